//! `keyholder serve`: the server.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use keyholder_broker::vault::RootKeySource;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::Context;
use super::error::{CliError, Result};
use super::signal::{Stop, Stops};
use crate::config::{Config, Overrides};
use crate::http;

/// Run the server
///
/// Everything is set by environment variables or by keyholder.toml; a flag beats both. The log goes to standard error.
#[derive(Args)]
#[command(
    after_help = "Example:\n  keyholder serve\n  keyholder serve --listen 0.0.0.0:8787 --public-url https://keyholder.example.com"
)]
pub(crate) struct Serve {
    /// Address to listen on [default: 127.0.0.1:8787]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where people and providers reach this server [default: the address, by plain http]
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
}

impl Serve {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let flags = Overrides { listen: self.listen, public_url: self.public_url, ..Overrides::default() };
        let config = context.config(flags)?;
        start_log(&config)?;
        // The socket first: a second server must not touch the first one's data.
        let listener = TcpListener::bind(config.listen).await.map_err(CliError::io(format!(
            "{} can't be listened on; is another server running there? Choose another with --listen",
            config.listen
        )))?;
        let address = listener.local_addr().map_err(CliError::io("the listening socket"))?;
        let config = config.bound(address);
        let failed = |error: &dyn std::fmt::Display| CliError::Failed(error.to_string());
        let opened = config.open_broker().await.map_err(|error| failed(&error))?;
        let key_file = opened.broker.ensure_admin_key().await.map_err(|error| failed(&error))?;

        let mut stops = Stops::listen();
        let out = &context.out;
        out.line(format!("Keyholder listens on http://{address} (public URL {})", config.public_url))?;
        out.line(format!(
            "The administrator's API key is in {}; on this machine the commands find it by themselves.",
            key_file.display()
        ))?;
        if let (true, RootKeySource::File(path)) = (opened.new_root_key, &config.root_key) {
            out.line(format!(
                "A new root key was made: {}. Back it up now, apart from the database: without it nothing that is stored can be opened.",
                path.display()
            ))?;
        }
        if let Some(link) = opened.broker.first_link().await.map_err(|error| failed(&error))? {
            out.line(format!("Open this once, within an hour, to set up the console: {link}"))?;
        }
        if let Some(fenced) = opened.fenced {
            out.line(format!(
                "Fenced, nothing is renewed: {}. If this is the live copy, and no other one runs: keyholder doctor --live",
                fenced.reason.message()
            ))?;
        }
        let (stop, stopped) = oneshot::channel();
        let stop_delay = config.stop_delay;
        let signals = async {
            // Nobody sends a person's requests here any more; a supervisor's load balancer has yet to notice.
            let delay = if stops.next().await == Stop::Terminate { stop_delay } else { Duration::ZERO };
            let _ = stop.send(delay);
            stops.next().await;
        };
        let shutdown = async move { stopped.await.unwrap_or_default() };
        tokio::select! {
            served = http::run(opened.broker, listener, shutdown) => served.map_err(CliError::io("the server")),
            () = signals => Err(CliError::Failed(
                "stopped at once by a second signal; what a provider has answered is committed at the next start".to_owned(),
            )),
        }
    }
}

/// The log, on standard error.
fn start_log(config: &Config) -> Result {
    let filter: Targets = config.log.parse().map_err(|error| {
        CliError::Usage(format!("log: {error}; write it as in info, or info,keyholder_broker=debug"))
    })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let started = if config.log_json {
        registry.with(lines.json()).try_init()
    } else {
        registry.with(lines.with_ansi(false)).try_init()
    };
    started.map_err(|error| CliError::Failed(error.to_string()))
}
