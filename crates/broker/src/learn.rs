//! What is asked with a new token: the values that the API's addresses need, and whose account it is.

use std::sync::Arc;
use std::time::Duration;

use keyholder_oauth::{FailureKind, TokenSet};
use keyholder_provider::{Account, Learnt, Lookup, LookupError};
use serde_json::{Map, Value};

use crate::egress::{Bounds, EgressError, EgressFault, Fetched};
use crate::error::{Error, Result};
use crate::explain::sentence;
use crate::model::{Failure, Integration, SecretInput, Values};
use crate::open::Broker;
use crate::plan::Plan;
use crate::trace::{LOOKED_UP, Noting, Trace};

/// A person waits meanwhile, or a renewal.
const LOOKUP: Bounds = Bounds { time: Duration::from_secs(10), bytes: 1 << 20 };

/// Asking for the account's name must not hold up the person.
const ACCOUNT: Bounds = Bounds { time: Duration::from_secs(5), bytes: 256 << 10 };

/// What learnt values are named: `lookup.NAME` among a connection's variables.
pub(crate) const LEARNT: &str = "lookup.";

/// What people recognise first; the names are OpenID Connect Core §5.1's and what many replies use.
const NAMES: [&str; 8] = ["email", "preferred_username", "upn", "username", "login", "account", "name", "sub"];
/// Those before this are an account's own; people share full names.
const FULL_NAME: usize = 6;

/// Which lookups are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// All of them. What was learnt from an older grant doesn't count, but a choice made then is made again where it is still possible.
    AfterConnect,
    /// Those that the definition wants repeated.
    AfterRenewal,
}

/// What the lookups came to.
#[derive(Debug)]
pub(crate) enum Learning {
    /// `lookup.NAME` for a connection's variables.
    Done(Values),
    /// A person must choose; the lookups go on once `lookup.` and `saves` is among the variables.
    Choose {
        /// Name of the lookup, for people.
        lookup: String,
        /// What the choice is kept as.
        saves: String,
        /// Values with their labels, as the provider gave them.
        options: Vec<(String, String)>,
        /// What was learnt before.
        sofar: Values,
    },
}

impl Learning {
    /// For grants where nobody can choose: what was learnt, or the failure that lists what there is.
    pub(crate) fn without_a_person(self, now: i64) -> Result<Values> {
        match self {
            Learning::Done(values) => Ok(values),
            Learning::Choose { saves, options, .. } => {
                const SHOWN: usize = 20;
                let listed: Vec<String> = options
                    .iter()
                    .take(SHOWN)
                    .map(|(value, label)| if value == label { value.clone() } else { format!("{value} ({label})") })
                    .collect();
                let more = if options.len() > SHOWN { ", …" } else { "" };
                Err(failed(
                    FailureKind::Setup,
                    format!("the account has several to choose from for `{saves}`: {}{more}", listed.join(", ")),
                    format!(
                        "Say which with PATCH /v1/connections/{{id}} {{\"choices\": {{\"{saves}\": \"VALUE\"}}}}, then authorise it again."
                    ),
                    now,
                ))
            }
        }
    }
}

impl Broker {
    /// Makes the lookups of a definition with a new token, each with what those before it learnt.
    ///
    /// `traces` note what is exchanged. `variables` are the connection's. A `lookup.NAME` among them that the account still offers is taken without asking where one must be chosen.
    ///
    /// # Errors
    /// [`Error::Exchange`] with the reason, if a lookup that is required learns nothing.
    pub(crate) async fn learn(
        &self,
        integration: &Integration,
        variables: &Values,
        secrets: &SecretInput,
        tokens: &TokenSet,
        which: Which,
        traces: &[Arc<Trace>],
    ) -> Result<Learning> {
        let mut known = variables.clone();
        if which == Which::AfterConnect {
            known.retain(|name, _| !name.starts_with(LEARNT));
        }
        let (mut learnt, mut done) = (Values::new(), 0);
        loop {
            let mut plan = self.plan_for(integration, &known, secrets.clone(), Some(tokens)).await?;
            plan.noted_by(traces, Some(tokens));
            let is_wanted = |lookup: &Lookup| which == Which::AfterConnect || lookup.refresh;
            let lookups = plan.rendered.lookups.iter().enumerate().skip(done);
            let Some((place, lookup)) = lookups.into_iter().find(|(_, lookup)| is_wanted(lookup)) else {
                return Ok(Learning::Done(learnt));
            };
            done = place + 1;
            match self.look_up(&plan, lookup, tokens, variables).await {
                Ok(Learnt::Values(new)) => {
                    known.extend(new.clone());
                    learnt.extend(new);
                }
                Ok(Learnt::Choose(options)) => {
                    return Ok(Learning::Choose {
                        lookup: lookup.name.clone(),
                        saves: lookup.saves().unwrap_or_default().to_owned(),
                        options: options.into_iter().map(|option| (option.value, option.label)).collect(),
                        sofar: learnt,
                    });
                }
                Err(error) if lookup.required => return Err(error),
                Err(error) => tracing::debug!(%error, "a lookup that is not required learnt nothing"),
            }
        }
    }

    async fn look_up(&self, plan: &Plan, lookup: &Lookup, tokens: &TokenSet, stored: &Values) -> Result<Learnt> {
        let now = self.now_ms();
        let request = lookup.request(&plan.rendered.api, tokens)?.ok_or_else(|| {
            let message = format!("the request `{}` has no address: what it is made of was not learnt", lookup.name);
            failed(FailureKind::Setup, message, CORRECT.to_owned(), now)
        })?;
        let noting = Noting::begin(&plan.traces, LOOKED_UP, &request, &self.clock);
        let outcome = self.egress.fetch(request, LOOKUP).await;
        if let Some(noting) = noting {
            noting.end(&outcome, &self.clock);
        }
        let reply = outcome.map_err(|error| unanswered(lookup, &error, now))?;
        let unusable = |error: LookupError| {
            let (kind, remedy) = match error {
                LookupError::Status { status: 408 | 429 | 500.., .. } => (FailureKind::Transient, AGAIN),
                LookupError::Status { .. } => (FailureKind::Setup, SCOPES),
                LookupError::NotJson { .. } | LookupError::Missing { .. } => (FailureKind::Setup, CORRECT),
            };
            failed(kind, error.to_string(), remedy.to_owned(), now)
        };
        let read = lookup.read(reply.status, reply.body.expose()).map_err(unusable)?;
        let chosen = lookup.saves().and_then(|saves| stored.get(&format!("{LEARNT}{saves}")));
        match (&read, chosen) {
            (Learnt::Choose(options), Some(chosen)) if options.iter().any(|option| option.value == *chosen) => {
                lookup.chosen(reply.status, reply.body.expose(), chosen).map(Learnt::Values).map_err(unusable)
            }
            _ => Ok(read),
        }
    }

    /// Asks the provider whose account it is: where it describes it (OpenID Connect Core §5.3), else by the definition's cheap call. A
    /// provider that doesn't say leaves the person to know.
    pub(crate) async fn ask_for_account(&self, plan: &Plan, tokens: &TokenSet) -> Option<String> {
        let api = &plan.rendered.api;
        if let Some(userinfo) = &plan.rendered.userinfo {
            let reply = self.egress.fetch(userinfo.request(api, tokens).ok()?, ACCOUNT).await.ok()?;
            let told = |reply: &Fetched| named(userinfo.read(reply.body.expose()), reply.body.expose());
            return (reply.status == 200).then(|| told(&reply)).flatten();
        }
        let reply = self.egress.fetch(api.verify_request(tokens).ok()??, ACCOUNT).await.ok()?;
        (reply.status == 200).then(|| described(reply.body.expose())).flatten()
    }
}

const SCOPES: &str = "Check that the integration's scopes allow it, then connect again.";
const CORRECT: &str =
    "Connect with an account that has access; if it stays so, correct `after_connect` in the definition.";
const AGAIN: &str = "Connect again in a while.";

fn unanswered(lookup: &Lookup, error: &EgressError, now: i64) -> Error {
    let (kind, remedy) = match &error.what {
        EgressFault::Refused(_) | EgressFault::Tls(_) | EgressFault::TooLarge(_) => (FailureKind::Setup, CORRECT),
        EgressFault::Dns(_)
        | EgressFault::Connect(_)
        | EgressFault::Timeout(_)
        | EgressFault::Lost(_)
        | EgressFault::CircuitOpen { .. } => (FailureKind::Transient, AGAIN),
    };
    failed(kind, format!("the request `{}` was not answered: {error}", lookup.name), remedy.to_owned(), now)
}

fn failed(kind: FailureKind, message: String, remedy: String, now: i64) -> Error {
    Error::Exchange(Failure { kind, code: None, message: sentence(message), remedy, at: now, next_try_at: None })
}

/// What people know an account by: what the definition says of it, or a name in use among the answer's members.
fn named(account: Account, body: &[u8]) -> Option<String> {
    let Account { account, name, email } = account;
    let both = match (name, account) {
        (Some(name), Some(account)) if name != account => Some(format!("{name} ({account})")),
        (name, account) => name.or(account),
    };
    let members = || serde_json::from_slice(body).ok().and_then(|members| first_of(&NAMES[..FULL_NAME], &members));
    email.or_else(members).or(both).map(|text| text.chars().take(200).collect())
}

/// The account's name in an answer that describes the account.
fn described(body: &[u8]) -> Option<String> {
    name(&serde_json::from_slice(body).ok()?)
}

/// The account's name among members that describe it.
pub(crate) fn name(members: &Map<String, Value>) -> Option<String> {
    first_of(&NAMES, members)
}

fn first_of(names: &[&str], members: &Map<String, Value>) -> Option<String> {
    names
        .iter()
        .filter_map(|name| members.get(*name)?.as_str())
        .find(|text| !text.is_empty())
        .map(|text| text.chars().filter(|c| !c.is_control()).take(200).collect())
}
