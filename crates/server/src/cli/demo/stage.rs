//! The servers of the demo, their ports, and the folder that is removed with them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyholder_broker::clock::{Clock, Rng};
use keyholder_broker::egress::{AllowRule, Egress, Policy, Rules};
use keyholder_broker::store::Location;
use keyholder_broker::vault::RootKeySource;
use keyholder_broker::{Broker, Settings};
use keyholder_sandbox::{Options, Rotation};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

use super::super::error::{CliError, Result};
use super::super::folder::Folder;
use crate::http;

/// Where the server listens if it can.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8787);
/// Life of the hasty provider's tokens, seconds.
pub(super) const HASTY_LIFE: u64 = 3;

/// Everything that runs.
pub(super) struct Stage {
    /// The server.
    pub(super) url: Url,
    /// A provider whose tokens live for an hour.
    pub(super) sandbox: Url,
    /// A provider whose tokens live for three seconds.
    pub(super) hasty: Url,
    folder: Folder,
    stop: watch::Sender<bool>,
    running: Vec<JoinHandle<io::Result<()>>>,
}

impl Stage {
    /// Starts server and providers on loopback ports.
    pub(super) async fn set_up(listen: Option<SocketAddr>) -> Result<Self> {
        let folder = Folder::make("demo")?;
        let (listener, url) = bind(listen).await?;
        let (stop, _) = watch::channel(false);
        let mut policy = Policy::new(Rules::default());
        let mut running = Vec::new();
        let mut provider = async |access_ttl| {
            let (listener, url) = bind_free().await?;
            let address = listener.local_addr().map_err(CliError::io("a listening socket"))?;
            policy.allow(AllowRule::Socket(address.ip(), address.port()));
            // The strictest kind of provider: a refresh token used twice ends the whole grant.
            let options = Options { access_ttl, rotation: Rotation::Family, ..Options::default() };
            running.push(tokio::spawn(keyholder_sandbox::run(listener, options, stopped(&stop))));
            Ok::<_, CliError>(url)
        };
        let (sandbox, hasty) = (provider(3600).await?, provider(HASTY_LIFE).await?);

        let settings = Settings {
            public_url: url.clone(),
            data_dir: folder.path().to_owned(),
            database: Location::Sqlite(folder.path().join("keyholder.db")),
            root_key: RootKeySource::File(folder.path().join("root-key")),
            pace: keyholder_broker::Pace::default(),
            retention: keyholder_broker::Retention::default(),
            points: keyholder_broker::points::Points::default(),
        };
        let failed = |error: &dyn std::fmt::Display| CliError::Failed(format!("the server could not start: {error}"));
        let egress = Egress::new(Clock::System, policy, None).map_err(|error| failed(&error))?;
        let opened =
            Broker::open(settings, Clock::System, Rng::System, egress).await.map_err(|error| failed(&error))?;
        opened.broker.ensure_admin_key().await.map_err(|error| failed(&error))?;
        let stopped = stopped(&stop);
        let shutdown = async move {
            stopped.await;
            Duration::ZERO
        };
        running.push(tokio::spawn(http::run(opened.broker, listener, shutdown)));
        Ok(Self { url, sandbox, hasty, folder, stop, running })
    }

    /// The server's data folder.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the administrator's API key lies.
    pub(super) fn key_file(&self) -> PathBuf {
        self.folder.path().join("admin-key")
    }

    /// Stops everything and removes the folder.
    pub(super) async fn take_down(self) {
        self.stop.send_replace(true);
        for server in self.running {
            // Whatever it ended with, nothing is left to be done with it.
            let _ = server.await;
        }
    }
}

fn stopped(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut stop = stop.subscribe();
    async move {
        // A stage that is gone stops its servers too.
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

/// The address that was asked for; else the usual one, or where that is taken any free one.
async fn bind(listen: Option<SocketAddr>) -> Result<(TcpListener, Url)> {
    match listen {
        Some(address) => {
            let listener =
                TcpListener::bind(address).await.map_err(CliError::io(format!("{address} can't be listened on")))?;
            with_url(listener)
        }
        None => match TcpListener::bind(USUAL).await {
            Ok(listener) => with_url(listener),
            Err(_) => bind_free().await,
        },
    }
}

async fn bind_free() -> Result<(TcpListener, Url)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(CliError::io("no free loopback port"))?;
    with_url(listener)
}

fn with_url(listener: TcpListener) -> Result<(TcpListener, Url)> {
    let mut address = listener.local_addr().map_err(CliError::io("a listening socket"))?;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let url = format!("http://{address}/").parse().map_err(|_| CliError::Failed(format!("{address} makes no URL")))?;
    Ok((listener, url))
}
