//! The authorization endpoint: the consent page and the decision (RFC 6749 §4.1.1, RFC 7636, RFC 9207).

use axum::body::Bytes;
use axum::extract::{RawQuery, State as Shared};
use axum::http::StatusCode;
use axum::response::Response;
use url::{Url, form_urlencoded};

use crate::Sandbox;
use crate::client_auth::{duplicate, find};
use crate::discovery::WRONG_ISSUER;
use crate::faults::{Call, Kind, On};
use crate::html;
use crate::options::{Client, USERS};
use crate::reply::Reply;
use crate::state::{Code, State};
use crate::token::known_scope;

type Pairs = Vec<(String, String)>;

/// Life of a code, milliseconds.
const CODE_TTL: i64 = 60_000;

/// `GET /authorize`: the consent page, or with [`crate::Options::auto_approve`] the redirect at once.
pub(crate) async fn page(Shared(sandbox): Shared<Sandbox>, RawQuery(query): RawQuery) -> Response {
    let pairs = read(query.unwrap_or_default().as_bytes());
    let auto = sandbox.options().auto_approve.clone();
    let call = Call { redirects: auto.is_some(), ..Call::new(On::Authorize, "authorize") };
    let work = |state: &mut State, kinds: &[Kind]| {
        let request = Request::check(&sandbox, state, &pairs)?;
        if let Some(account) = &auto {
            let scope = request.scope.clone();
            return Ok(request.allow(&sandbox, state, kinds, account, scope));
        }
        if find(&pairs, "prompt") == Some("none") {
            return Err(request.refuse("consent_required", "a person must decide here"));
        }
        let hint = find(&pairs, "login_hint");
        Ok(Reply::page(StatusCode::OK, html::consent(&request.client, &request.scope, &request.hidden(), hint)))
    };
    sandbox
        .answer(call, |state, kinds| work(state, kinds).unwrap_or_else(|refusal| refusal.reply(&sandbox, state)))
        .await
}

/// `POST /authorize/decision`: the form carries the request again, which is checked again, with `decision`, `account` and,
/// after `choose=1`, the chosen scopes as `granted`.
pub(crate) async fn decision(Shared(sandbox): Shared<Sandbox>, body: Bytes) -> Response {
    let (own, pairs): (Pairs, Pairs) = read(&body).into_iter().partition(|(name, _)| OWN.contains(&name.as_str()));
    let call = Call { redirects: true, ..Call::new(On::Authorize, "decision") };
    let work = |state: &mut State, kinds: &[Kind]| {
        let request = Request::check(&sandbox, state, &pairs)?;
        match find(&own, "decision") {
            Some("allow") => {}
            Some("deny") => return Err(request.refuse("access_denied", "the person said no")),
            _ => return Err(Refusal::page("The form names no decision: allow or deny.")),
        }
        let account = find(&own, "account").filter(|account| USERS.iter().any(|(user, _)| user == account));
        let account = account.ok_or_else(|| Refusal::page("The form names no known account: alice or bob."))?;
        match request.chosen(&own) {
            scope if scope.is_empty() => Err(request.refuse("access_denied", "the person left no scope")),
            scope => Ok(request.allow(&sandbox, state, kinds, account, scope)),
        }
    };
    sandbox
        .answer(call, |state, kinds| work(state, kinds).unwrap_or_else(|refusal| refusal.reply(&sandbox, state)))
        .await
}

/// The form's members that are not the request's.
const OWN: &[&str] = &["decision", "account", "choose", "granted"];
/// The request's parameters that the form carries.
const CARRIED: &[&str] =
    &["client_id", "redirect_uri", "response_type", "state", "scope", "code_challenge", "code_challenge_method"];

fn read(encoded: &[u8]) -> Pairs {
    form_urlencoded::parse(encoded).into_owned().collect()
}

/// An authorization request that holds.
struct Request<'a> {
    client: Client,
    back: Back,
    scope: Vec<String>,
    challenge: Option<String>,
    pairs: &'a Pairs,
}

/// A redirect URI that may be trusted.
#[derive(Clone)]
struct Back {
    url: Url,
    state: Option<String>,
}

/// Why not: shown to the person until the redirect URI is trusted, sent to the client afterwards (RFC 6749 §4.1.2.1).
enum Refusal {
    Page(String),
    Redirect { back: Box<Back>, error: &'static str, description: String },
}

impl<'a> Request<'a> {
    fn check(sandbox: &Sandbox, state: &State, pairs: &'a Pairs) -> Result<Self, Refusal> {
        if let Some(name) = duplicate(pairs) {
            return Err(Refusal::page(format!("The parameter {name} comes twice.")));
        }
        let id = find(pairs, "client_id").ok_or_else(|| Refusal::page("client_id is missing."))?;
        let client =
            state.client(id).ok_or_else(|| Refusal::page(format!("There is no client named \u{201c}{id}\u{201d}.")))?;
        let url = redirect_uri(sandbox.options().any_redirect, client, find(pairs, "redirect_uri"))?;
        let back = Back { url, state: find(pairs, "state").map(str::to_owned) };
        let refuse = |error, description: &str| back.clone().refuse(error, description);
        match find(pairs, "response_type") {
            Some("code") => {}
            None => return Err(refuse("invalid_request", "response_type is missing")),
            Some(_) => {
                return Err(refuse("unsupported_response_type", "only code is supported"));
            }
        }
        let challenge =
            challenge(sandbox.options().require_pkce, pairs).map_err(|why| refuse("invalid_request", why))?;
        let scope = known_scope(find(pairs, "scope")).map_err(|why| refuse("invalid_scope", &why))?;
        Ok(Self { client: client.clone(), back, scope, challenge, pairs })
    }

    fn refuse(&self, error: &'static str, description: &str) -> Refusal {
        self.back.clone().refuse(error, description)
    }

    fn hidden(&self) -> Vec<(&str, &str)> {
        let carried = |(name, value): &'a (String, String)| {
            CARRIED.contains(&name.as_str()).then_some((name.as_str(), value.as_str()))
        };
        self.pairs.iter().filter_map(carried).collect()
    }

    /// What the person left ticked; without the page's `choose`, all that was asked for.
    fn chosen(&self, own: &Pairs) -> Vec<String> {
        let granted = |scope: &&String| own.iter().any(|(name, value)| name == "granted" && value == *scope);
        let chooses = find(own, "choose").is_some();
        self.scope.iter().filter(|scope| !chooses || granted(scope)).cloned().collect()
    }

    fn allow(&self, sandbox: &Sandbox, state: &mut State, kinds: &[Kind], account: &str, scope: Vec<String>) -> Reply {
        let code = sandbox.fresh("code_");
        let record = Code {
            client: self.client.id.clone(),
            account: account.to_owned(),
            scope,
            redirect_uri: find(self.pairs, "redirect_uri").map(str::to_owned),
            challenge: self.challenge.clone(),
            expires_at: sandbox.now().saturating_add(CODE_TTL),
            spent_for: None,
        };
        state.codes.insert(code.clone(), record);
        let issuer = match kinds {
            kinds if kinds.contains(&Kind::NoIss) => None,
            kinds if kinds.contains(&Kind::WrongIssuer) => Some(WRONG_ISSUER),
            _ => Some(sandbox.base_url()),
        };
        self.back.clone().reply(&[("code", &code)], issuer)
    }
}

impl Back {
    fn refuse(self, error: &'static str, description: &str) -> Refusal {
        Refusal::Redirect { back: Box::new(self), error, description: description.to_owned() }
    }

    /// The redirect keeps the URI's own query (RFC 6749 §3.1.2) and names the issuer (RFC 9207 §2).
    fn reply(mut self, answer: &[(&str, &str)], issuer: Option<&str>) -> Reply {
        self.url.query_pairs_mut().extend_pairs(answer);
        if let Some(state) = &self.state {
            self.url.query_pairs_mut().append_pair("state", state);
        }
        if let Some(issuer) = issuer {
            self.url.query_pairs_mut().append_pair("iss", issuer);
        }
        Reply::redirect(self.url.as_str())
    }
}

impl Refusal {
    fn page(text: impl Into<String>) -> Self {
        Self::Page(text.into())
    }

    fn reply(self, sandbox: &Sandbox, state: &mut State) -> Reply {
        match self {
            Self::Page(text) => {
                state.counters.saw_error("invalid_request");
                Reply::page(StatusCode::BAD_REQUEST, html::refusal(&text))
            }
            Self::Redirect { back, error, description } => {
                state.counters.saw_error(error);
                back.reply(&[("error", error), ("error_description", &description)], Some(sandbox.base_url()))
            }
        }
    }
}

/// Registered, character by character (RFC 9700 §2.1); the only registered one if the request names none.
fn redirect_uri(any: bool, client: &Client, asked: Option<&str>) -> Result<Url, Refusal> {
    let asked = match (asked, client.redirect_uris.as_slice()) {
        (Some(asked), _) => asked,
        (None, [only]) => only,
        (None, _) => return Err(Refusal::page("redirect_uri is missing.")),
    };
    if !any && !client.redirect_uris.iter().any(|registered| registered == asked) {
        return Err(Refusal::page(format!(
            "The redirect URI \u{201c}{asked}\u{201d} is not registered for {}. Register it with --redirect-uri or POST /admin/clients, \
             or start the sandbox with --any-redirect.",
            client.id
        )));
    }
    let url = Url::parse(asked).ok().filter(|url| url.fragment().is_none() && !SCRIPTS.contains(&url.scheme()));
    url.ok_or_else(|| {
        Refusal::page(format!("The redirect URI \u{201c}{asked}\u{201d} is not an absolute URI without a fragment."))
    })
}

const SCRIPTS: &[&str] = &["javascript", "data", "vbscript"];

fn challenge(required: bool, pairs: &Pairs) -> Result<Option<String>, &'static str> {
    match (find(pairs, "code_challenge"), find(pairs, "code_challenge_method")) {
        (None, _) if required => Err("code_challenge is missing (PKCE is required)"),
        (None, _) => Ok(None),
        (Some(challenge), Some("S256")) if challenge.len() == 43 => Ok(Some(challenge.to_owned())),
        (Some(_), Some("S256")) => Err("code_challenge is not the base64url of a SHA-256"),
        (Some(_), _) => Err("code_challenge_method must be S256"),
    }
}
