//! `doctor`: what is wrong with this installation, and what to do.

use std::time::Duration;

use serde::Serialize;

use crate::clock::millis;
use crate::egress::certificate_ends_at;
use crate::ends;
use crate::error::Result;
use crate::fence::Instance;
use crate::model::{Caller, Status};
use crate::open::Broker;
use crate::store::Filter;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but somebody should look.
    Warning,
    /// Doesn't work.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do, where something is to be done.
    pub remedy: Option<String>,
}

impl Broker {
    /// Looks at store, sealing, data folder, public URL and connections.
    pub async fn doctor(&self, caller: &Caller) -> Result<Vec<Check>> {
        let mut checks = vec![
            self.check_store().await,
            self.check_instance().await?,
            self.check_sealing(),
            self.check_folder(),
            self.check_public_url(),
        ];
        checks.extend(self.check_connections(caller).await?);
        checks.extend(self.check_ends(caller).await?);
        checks.extend(self.check_endpoints());
        Ok(checks)
    }

    async fn check_store(&self) -> Check {
        let now = self.now_ms().to_string();
        match self.store.write(move |tx| tx.put_meta("doctor", &now)).await {
            Ok(()) => ok("database", "It can be read and written."),
            Err(error) => {
                problem("database", error.to_string(), "Check the disk: free space, permissions, read-only mount.")
            }
        }
    }

    async fn check_instance(&self) -> Result<Check> {
        let Instance { cluster, epoch, fenced, running } = self.instance().await?;
        let which = format!("cluster {cluster}, epoch {epoch}, {running} running");
        Ok(match fenced {
            None => ok("instance", format!("This copy is the live one: {which}.")),
            Some(fenced) => problem(
                "instance",
                format!("Fenced, nothing is renewed ({which}): {}.", fenced.reason.message()),
                "If this is the live copy, and no other one runs: keyholder doctor --live. If not: leave it, or stop it.",
            ),
        })
    }

    fn check_sealing(&self) -> Check {
        ok("sealing", format!("The root key opens the key ring; data key {} seals.", self.vault.newest()))
    }

    fn check_folder(&self) -> Check {
        match self.escrow.waiting() {
            Ok(waiting) if waiting.is_empty() => ok("escrow", "Empty: no provider's reply waits to be committed."),
            Ok(waiting) => Check {
                name: "escrow",
                verdict: Verdict::Warning,
                message: format!("{} replies wait to be committed.", waiting.len()),
                remedy: Some(
                    "They are committed at the next start; if they stay, read the log for the reason.".to_owned(),
                ),
            },
            Err(error) => {
                problem("escrow", error.to_string(), "Make the data folder readable and writable for this user.")
            }
        }
    }

    fn check_public_url(&self) -> Check {
        let url = self.public_url();
        if url.scheme() == "https" {
            return ok("public URL", format!("{url} is https."));
        }
        Check {
            name: "public URL",
            verdict: Verdict::Warning,
            message: format!(
                "{url} is plain http: fine on this machine, but most providers take https callbacks only."
            ),
            remedy: Some("Behind a reverse proxy with TLS, set KEYHOLDER_PUBLIC_URL to its https address.".to_owned()),
        }
    }

    /// Grants that end within two weeks, client secrets within a month.
    async fn check_ends(&self, caller: &Caller) -> Result<Vec<Check>> {
        let (tenant, now) = (caller.tenant.clone(), self.now_ms());
        let day = millis(Duration::from_secs(24 * 3600));
        let (connections, integrations, certified) = self
            .store
            .read(move |tx| {
                Ok((
                    tx.ending(&tenant, now, now + 14 * day, 20)?,
                    tx.client_secrets_ending(0, now + 30 * day)?,
                    tx.integrations_with_certificate()?,
                ))
            })
            .await?;
        let connections = connections.into_iter().map(|it| {
            warning("connection", format!("`{}`: {}", it.name, ends::message(it.dies_at, now)), ends::REMEDY)
        });
        let of_tenant = integrations.into_iter().filter(|it| it.tenant == caller.tenant);
        let secrets = of_tenant.filter_map(|it| {
            let at = it.client_secret_expires_at?;
            let remedy = "Make a new one at the provider and put it in with `keyholder integration edit NAME --client-secret-stdin --client-secret-expires DATE`.";
            Some(match at <= now {
                true => problem("client secret", format!("That of `{}` has expired.", it.name), remedy),
                false => warning("client secret", format!("That of `{}` expires in {}.", it.name, ends::until(at, now)), remedy),
            })
        });
        let certified = certified.into_iter().filter(|it| it.tenant == caller.tenant);
        let certificates = certified.filter_map(|it| {
            let at = certificate_ends_at(it.client_certificate.as_deref()?).filter(|at| *at <= now + 30 * day)?;
            let remedy =
                "Have a new one made, register it at the provider, and put it in with `keyholder integration edit`.";
            Some(match at <= now {
                true => problem("client certificate", format!("That of `{}` has expired.", it.name), remedy),
                false => warning(
                    "client certificate",
                    format!("That of `{}` expires in {}.", it.name, ends::until(at, now)),
                    remedy,
                ),
            })
        });
        Ok(connections.chain(secrets).chain(certificates).collect())
    }

    fn check_endpoints(&self) -> Vec<Check> {
        let now = self.now_ms();
        let down = self.endpoints.down(now).into_iter().map(|(endpoint, closed)| {
            let minutes = now.saturating_sub(closed.since) / 60_000;
            let message = format!("{endpoint} has not been working for {minutes} min; renewals there wait.");
            warning(
                "token endpoint",
                message,
                "It is asked again by itself. If it stays, see the reason at one of its connections.",
            )
        });
        down.collect()
    }

    async fn check_connections(&self, caller: &Caller) -> Result<Vec<Check>> {
        let tenant = caller.tenant.clone();
        let counts = self.store.read(move |tx| tx.count_by_state(&tenant)).await?;
        let summary: Vec<_> = counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
        let mut checks = vec![ok(
            "connections",
            if summary.is_empty() { "None yet.".to_owned() } else { format!("{}.", summary.join(", ")) },
        )];
        for state in [Status::Failing, Status::Reconnect] {
            let filter = Filter { state: Some(state), ..Filter::default() };
            let (tenant, limit) = (caller.tenant.clone(), 20);
            for row in self.store.read(move |tx| tx.connections(&tenant, &filter, "", limit)).await? {
                if let Some(failure) = row.state.failure() {
                    checks.push(problem("connection", format!("`{}`: {}", row.name, failure.message), &failure.remedy));
                }
            }
        }
        Ok(checks)
    }
}

fn ok(name: &'static str, message: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Ok, message: message.into(), remedy: None }
}

fn warning(name: &'static str, message: String, remedy: &str) -> Check {
    Check { name, verdict: Verdict::Warning, message, remedy: Some(remedy.to_owned()) }
}

fn problem(name: &'static str, message: String, remedy: &str) -> Check {
    Check { name, verdict: Verdict::Problem, message, remedy: Some(remedy.to_owned()) }
}
