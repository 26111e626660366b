//! Warnings ahead: what ends soon, and only a person can renew.

use std::time::Duration;

use crate::clock::millis;
use crate::egress::certificate_ends_at;
use crate::error::Result;
use crate::model::EventId;
use crate::open::Broker;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Days before a connection's end.
const CONNECTIONS: [u32; 3] = [1, 3, 14];
/// Days before a client secret's end.
const CLIENT_SECRETS: [u32; 5] = [0, 1, 3, 14, 30];
/// Connections warned of in one transaction.
const BATCH: i64 = 200;
/// How far warnings have come is written down this often; after a start it goes on from there.
const NOTED_EVERY: Duration = Duration::from_secs(3600);
/// The name under which it is written down.
const WARNED: &str = "warned";

/// How far warnings have come, Unix milliseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Warned {
    connections: Option<i64>,
    noted: Option<i64>,
}

impl Broker {
    /// Warns of what has come near its end since the last time: in the connection's history and in the log. Work follows what has just come near.
    pub(crate) async fn warn_ahead(&self, warned: &mut Warned) -> Result<()> {
        let now = self.now_ms();
        let noted = match warned.noted {
            Some(noted) => noted,
            None => {
                let written = self.store.read(|tx| tx.meta(WARNED)).await?;
                written.and_then(|text| text.parse().ok()).unwrap_or(0)
            }
        };
        // A clock that was set back repeats a little; the rows know what was said.
        let since = warned.connections.unwrap_or(noted).min(now);
        for days in CONNECTIONS {
            self.warn_of_connections(days, since, now).await?;
        }
        warned.connections = Some(now);
        if warned.noted.is_none() || now < noted || now - noted >= millis(NOTED_EVERY) {
            self.warn_of_client_secrets(noted.min(now), now).await?;
            self.warn_of_certificates(noted.min(now), now).await?;
            self.store.write(move |tx| tx.put_meta(WARNED, &now.to_string())).await?;
            warned.noted = Some(now);
        }
        Ok(())
    }

    async fn warn_of_connections(&self, days: u32, since: i64, now: i64) -> Result<()> {
        let ahead = millis(DAY * days);
        loop {
            let broker = self.clone();
            let warned = self.store.write(move |tx| {
                let ending = tx.warn_of_end((since + ahead).max(now), now + ahead, ahead, BATCH, now)?;
                for it in &ending {
                    let id = EventId::new(&broker.clock, &broker.rng);
                    let message = format!("{} {REMEDY}", message(it.dies_at, now));
                    tx.add_event(&id, &it.tenant, &it.id, now, "ends_soon", &message)?;
                }
                Ok(ending)
            });
            let warned = warned.await?;
            for it in &warned {
                tracing::warn!(connection = %it.id, name = it.name, ends_at = it.dies_at, "a connection ends in {}", until(it.dies_at, now));
            }
            if warned.len() < usize::try_from(BATCH).unwrap_or(usize::MAX) {
                return Ok(());
            }
        }
    }

    async fn warn_of_client_secrets(&self, since: i64, now: i64) -> Result<()> {
        for days in CLIENT_SECRETS {
            let ahead = millis(DAY * days);
            let ending = self.store.read(move |tx| tx.client_secrets_ending(since + ahead, now + ahead)).await?;
            for it in ending.iter().filter(|it| nearest(it.client_secret_expires_at, now) == Some(days)) {
                let at = it.client_secret_expires_at.unwrap_or(now);
                if at <= now {
                    tracing::error!(integration = %it.id, name = it.name, "a client secret has expired: put a new one in");
                } else {
                    tracing::warn!(integration = %it.id, name = it.name, ends_at = at, "a client secret expires in {}: put a new one in", until(at, now));
                }
            }
        }
        Ok(())
    }

    /// The same for client certificates, which say themselves when they end.
    async fn warn_of_certificates(&self, since: i64, now: i64) -> Result<()> {
        let integrations = self.store.read(|tx| tx.integrations_with_certificate()).await?;
        for it in &integrations {
            let Some(at) = it.client_certificate.as_deref().and_then(certificate_ends_at) else { continue };
            let Some(days) = nearest(Some(at), now).filter(|days| at > since + millis(DAY * *days)) else { continue };
            if at <= now {
                tracing::error!(integration = %it.id, name = it.name, "a client certificate has expired: put a new one in");
            } else {
                tracing::warn!(integration = %it.id, name = it.name, ends_at = at, days, "a client certificate expires in {}: put a new one in", until(at, now));
            }
        }
        Ok(())
    }
}

/// What to do about a connection that ends.
pub(crate) const REMEDY: &str = "Authorise it again before, and nothing stops.";

/// What is said of a connection that ends at `at`.
pub(crate) fn message(at: i64, now: i64) -> String {
    format!("As far as is known, the provider ends this grant in {} unless a person consents again.", until(at, now))
}

/// How long it is to `at`: days, where it is more than one.
pub(crate) fn until(at: i64, now: i64) -> String {
    let hours = (at - now + 1_800_000).div_euclid(3_600_000);
    match hours {
        48.. => format!("{} days", (hours + 12) / 24),
        _ => format!("{hours} h"),
    }
}

/// The smallest number of days within which `at` lies: after a pause only that is said.
fn nearest(at: Option<i64>, now: i64) -> Option<u32> {
    let left = at? - now;
    CLIENT_SECRETS.into_iter().find(|days| left <= millis(DAY * *days))
}
