//! `keyholder sandbox`: the misbehaving provider alone.

use std::net::SocketAddr;

use clap::Args;
use keyholder_sandbox::{Fault, Options, Rotation};
use tokio::net::TcpListener;

use super::error::{CliError, Result};
use super::{Context, signal};

/// Run a practice provider that misbehaves on demand
///
/// An authorization server and API, all in memory. Its admin endpoints ask for no authentication: leave it on a loopback address.
#[derive(Args)]
#[command(
    after_help = "Example:\n  keyholder sandbox --fault token=lost,times=1 --rotation family --access-ttl 3\n\nStart the server with KEYHOLDER_EGRESS_ALLOW=127.0.0.1 to let it reach the sandbox."
)]
pub(crate) struct Sandbox {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8790")]
    listen: SocketAddr,
    /// A fault that is set from the start, as [on=]kind[:value][,member=value…]; may be repeated
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,
    /// Life of an access token
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    access_ttl: u64,
    /// Life of a refresh token [default: no end]
    #[arg(long, value_name = "SECONDS")]
    refresh_ttl: Option<u64>,
    /// What becomes of a used refresh token: static, rotate, family, window:SECONDS or until_used
    #[arg(long, value_name = "MODE", default_value = "rotate")]
    rotation: Rotation,
    /// Register this redirect URI for the built-in clients; may be repeated
    #[arg(long = "redirect-uri", value_name = "URI")]
    redirect_uris: Vec<String>,
    /// Accept any redirect URI: for demonstrations only
    #[arg(long)]
    any_redirect: bool,
    /// Do not require PKCE
    #[arg(long)]
    no_pkce: bool,
    /// This account allows every request without a page
    #[arg(long, value_name = "ACCOUNT")]
    auto_approve: Option<String>,
}

impl Sandbox {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let listener = TcpListener::bind(self.listen)
            .await
            .map_err(CliError::io(format!("{} can't be listened on; choose another with --listen", self.listen)))?;
        let stop = signal::stop();
        let address = listener.local_addr().map_err(CliError::io("the listening socket"))?;
        context
            .out
            .line(format!("The sandbox listens on http://{address} (open it in a browser to see what there is)"))?;
        let options = Options {
            access_ttl: self.access_ttl,
            refresh_ttl: self.refresh_ttl,
            rotation: self.rotation,
            require_pkce: !self.no_pkce,
            any_redirect: self.any_redirect,
            redirect_uris: self.redirect_uris,
            auto_approve: self.auto_approve,
            faults: self.faults,
            ..Options::default()
        };
        keyholder_sandbox::run(listener, options, stop).await.map_err(CliError::io("the sandbox"))
    }
}
