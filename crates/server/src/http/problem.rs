//! THE error mapping: the only place that chooses status codes for failures, and the only one that logs them.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use keyholder_broker::egress::EgressFault;
use keyholder_broker::model::{Failure, Status};
use keyholder_broker::{Error, FieldError};
use keyholder_oauth::FailureKind;
use schemars::JsonSchema;
use serde::Serialize;

/// On every problem document, with its code, and on no reply of a called API.
const ERROR: HeaderName = HeaderName::from_static("keyholder-error");

/// A problem document (RFC 9457).
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Problem {
    /// `urn:keyholder:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// What kind of problem, in a few words.
    pub title: &'static str,
    /// HTTP status.
    pub status: u16,
    /// What happened and what to do.
    pub detail: String,
    /// A stable word for programs.
    pub code: &'static str,
    /// The fields that can't be taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub errors: Vec<Field>,
    /// Why the connection has no token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureBody>,
    /// The connection's state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// Seconds to wait before trying again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// A field that can't be taken.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Field {
    /// Which field.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// Why a connection doesn't work.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FailureBody {
    /// `setup` (correct the integration), `grant` (authorise again) or `transient` (it may pass).
    pub kind: &'static str,
    /// The provider's error code.
    pub code: Option<String>,
    /// What happened.
    pub message: String,
    /// What to do.
    pub remedy: String,
    /// When, Unix milliseconds.
    pub at: i64,
    /// When it is tried again by itself, Unix milliseconds.
    pub next_try_at: Option<i64>,
}

impl From<&Failure> for FailureBody {
    fn from(failure: &Failure) -> Self {
        Self {
            kind: match failure.kind {
                FailureKind::Setup => "setup",
                FailureKind::Grant => "grant",
                FailureKind::Transient => "transient",
            },
            code: failure.code.clone(),
            message: failure.message.clone(),
            remedy: failure.remedy.clone(),
            at: failure.at,
            next_try_at: failure.next_try_at,
        }
    }
}

/// A problem that HTTP itself brings: the broker never sees such a request.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// A body, query or path that can't be read.
    Unreadable(String),
    /// No API key was sent.
    NoKey,
    /// No such path.
    NoRoute,
    /// The path doesn't know this method.
    NoMethod,
    /// The body is larger than the limit, in bytes.
    TooLarge(usize),
    /// The same `Idempotency-Key` with another request.
    KeyReused,
    /// The first request with this `Idempotency-Key` is still at work.
    KeyUnderWay,
    /// A form sent from another site.
    CrossSite,
    /// A form of the console from somebody who isn't signed in any more.
    SignedOut,
    /// A form of the console from another session.
    StaleForm,
    /// A dangerous form of the console from somebody who hasn't shown for a while who they are.
    ProveAgain,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:keyholder:problem:{code}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            code,
            errors: Vec::new(),
            failure: None,
            state: None,
            retry_after: None,
        }
    }

    /// The document for a refusal.
    pub fn of_refusal(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Unreadable(why) => {
                Self::new(StatusCode::BAD_REQUEST, "unreadable", "The request can't be read", why.clone())
            }
            Refusal::NoKey => Self::new(
                StatusCode::UNAUTHORIZED,
                "unauthenticated",
                "No valid API key",
                "there is no API key; send it as `Authorization: Bearer khk_…` (`keyholder serve` leaves one in <data dir>/admin-key)",
            ),
            Refusal::NoRoute => Self::new(
                StatusCode::NOT_FOUND,
                "no_route",
                "Not found",
                "there is nothing at this path; see /openapi.json",
            ),
            Refusal::NoMethod => Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "no_method",
                "Method not allowed",
                "this path doesn't know the method; see /openapi.json",
            ),
            Refusal::TooLarge(limit) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                "Too large",
                format!("the body is larger than {limit} bytes; send less"),
            ),
            Refusal::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "Idempotency-Key was used before",
                "this Idempotency-Key was used for another request; use a new one for each new request",
            ),
            Refusal::KeyUnderWay => Self::new(
                StatusCode::CONFLICT,
                "idempotency_key_under_way",
                "The first request is still at work",
                "the first request with this Idempotency-Key is still at work; repeat it in a moment",
            ),
            Refusal::CrossSite => Self::new(
                StatusCode::FORBIDDEN,
                "cross_site",
                "Sent from another site",
                "this form was sent from another site; open the link again and answer there (if a reverse proxy is in front, KEYHOLDER_PUBLIC_URL must be the address in the browser)",
            ),
            Refusal::SignedOut => Self::new(
                StatusCode::FORBIDDEN,
                "signed_out",
                "You are signed out",
                "nothing was done: sign in, and send the form again",
            ),
            Refusal::StaleForm => Self::new(
                StatusCode::FORBIDDEN,
                "stale_form",
                "This form is out of date",
                "nothing was done: somebody signed out or in since it was opened; open its page again",
            ),
            Refusal::ProveAgain => Self::new(
                StatusCode::FORBIDDEN,
                "prove_again",
                "Confirm that it is you",
                "nothing was done: give your password or passkey again",
            ),
        }
    }

    /// The document for a broker's error.
    pub fn of(error: &Error) -> Self {
        let detail = error.to_string();
        match error {
            Error::NotFound { .. } => Self::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "Not found",
                format!("{detail}; check the name, or list what there is"),
            ),
            Error::Invalid(errors) => Self {
                errors: errors.iter().map(Field::from).collect(),
                ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The input can't be taken", detail)
            },
            Error::Definition(errors) => Self {
                errors: errors.iter().map(definition_field).collect(),
                ..Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "invalid_definition",
                    "The definition has mistakes",
                    detail,
                )
            },
            Error::Taken { .. } => Self::new(StatusCode::CONFLICT, "name_taken", "The name is taken", detail),
            Error::InUse { .. } => Self::new(StatusCode::CONFLICT, "in_use", "Still in use", detail),
            Error::ChangedMeanwhile(_) => {
                Self::new(StatusCode::CONFLICT, "changed_meanwhile", "Changed meanwhile", detail)
            }
            Error::Unauthenticated(_) => {
                Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "No valid API key", detail)
            }
            Error::Forbidden(_) => Self::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail),
            Error::Limited(_) => Self::new(StatusCode::FORBIDDEN, "limited", "Beyond the key's limits", detail),
            Error::NotReady { state, failure, retry_after, .. } => {
                not_ready(detail, *state, failure.as_ref(), *retry_after)
            }
            Error::ApiLimited { retry_after, .. } => Self {
                retry_after: Some(retry_after.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, "api_limited", "The API takes no calls now", detail)
            },
            Error::CallerLimited { retry_after, .. } => Self {
                retry_after: Some(retry_after.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX)),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, "key_limited", "More calls than the key may make", detail)
            },
            Error::DeadlinePassed(_) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline", "Not over in the time that the caller gave", detail)
            }
            Error::Unfinished(_) => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "unfinished", "The request did not come to its end", detail)
            }
            Error::NotPossible(_) => Self::new(StatusCode::CONFLICT, "not_possible", "Not possible here", detail),
            Error::StillRenewing => Self {
                retry_after: Some(2),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "still_renewing", "Renewal is under way", detail)
            },
            Error::Render(_) | Error::Request(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "setup", "The set-up makes no request", detail)
            }
            Error::Discovery { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "discovery", "The discovery document can't be used", detail)
            }
            Error::DiscoveryUnreachable(egress) => unreachable_provider(&egress.what, "discovery_unreachable", detail),
            Error::Callback(_) => {
                Self::new(StatusCode::BAD_REQUEST, "callback", "The provider's answer was refused", detail)
            }
            Error::Exchange(failure) => Self {
                failure: Some(failure.into()),
                ..Self::new(StatusCode::BAD_GATEWAY, "exchange_failed", "The provider gave no token", detail)
            },
            Error::Gone(_) => Self::new(StatusCode::GONE, "gone", "No longer valid", detail),
            Error::WrongBrowser => Self::new(StatusCode::FORBIDDEN, "wrong_browser", "Another browser", detail),
            Error::WrongOwner => Self::new(StatusCode::FORBIDDEN, "wrong_owner", "Another owner", detail),
            Error::HostNotAllowed { .. } => {
                Self::new(StatusCode::FORBIDDEN, "host_not_allowed", "Not a host of this provider", detail)
            }
            Error::NotAllowed { .. } => {
                Self::new(StatusCode::FORBIDDEN, "not_allowed", "Not among the data source's calls", detail)
            }
            Error::Egress(egress) => unreachable_provider(&egress.what, "unreachable", detail),
            Error::Store(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "store", "The database failed", detail),
            Error::Vault(_) | Error::RootKey(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "sealing", "Sealing failed", detail)
            }
            Error::AuditUnavailable => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "audit", "The audit can't be written", detail)
            }
            Error::File { .. } | Error::FolderInUse(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "file", "A file can't be written", detail)
            }
            Error::Fenced(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "fenced", "This copy is fenced", detail),
            Error::OtherCluster { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "other_cluster", "Another cluster's database", detail)
            }
            Error::Internal(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail),
        }
    }

    /// Is it ours rather than the caller's or the provider's?
    fn is_ours(&self) -> bool {
        matches!(self.code, "store" | "sealing" | "audit" | "file" | "other_cluster" | "internal")
    }

    /// Logs a failure once, here, where it is handled.
    pub fn log(&self) {
        if self.is_ours() {
            tracing::error!(code = self.code, status = self.status, "{}", self.detail);
        } else {
            tracing::debug!(code = self.code, status = self.status, "{}", self.detail);
        }
    }
}

/// The person must act → 409; it may pass → 503; the provider refuses the set-up → 502.
fn not_ready(
    detail: String,
    state: Status,
    failure: Option<&Failure>,
    retry_after: Option<std::time::Duration>,
) -> Problem {
    let (status, code, title) = match failure.map(|failure| failure.kind) {
        None | Some(FailureKind::Grant) => (StatusCode::CONFLICT, "not_connected", "Not connected"),
        Some(FailureKind::Transient) => {
            (StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable", "The provider gives no token now")
        }
        Some(FailureKind::Setup) => (StatusCode::BAD_GATEWAY, "setup_refused", "The provider refuses the set-up"),
    };
    Problem {
        failure: failure.map(FailureBody::from),
        state: Some(state.as_str()),
        retry_after: retry_after.map(|wait| wait.as_secs().max(1)),
        ..Problem::new(status, code, title, detail)
    }
}

fn unreachable_provider(fault: &EgressFault, code: &'static str, detail: String) -> Problem {
    match fault {
        EgressFault::Refused(_) => {
            Problem::new(StatusCode::FORBIDDEN, "egress_refused", "This address is not called", detail)
        }
        EgressFault::Timeout(_) => {
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "provider_timeout", "The provider didn't answer", detail)
        }
        EgressFault::CircuitOpen { retry_after } => Problem {
            retry_after: Some(retry_after.as_secs().max(1)),
            ..Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "circuit_open",
                "The provider could not be reached several times in a row",
                detail,
            )
        },
        EgressFault::Dns(_)
        | EgressFault::Connect(_)
        | EgressFault::Tls(_)
        | EgressFault::Lost(_)
        | EgressFault::TooLarge(_) => {
            Problem::new(StatusCode::BAD_GATEWAY, code, "The provider can't be reached", detail)
        }
    }
}

impl From<&FieldError> for Field {
    fn from(error: &FieldError) -> Self {
        Self { field: error.field.clone(), reason: error.reason.clone(), remedy: error.remedy.clone() }
    }
}

fn definition_field(error: &keyholder_provider::DefinitionError) -> Field {
    Field {
        field: format!("{}:{}:{} {}", error.file, error.line, error.column, error.field),
        reason: error.reason.clone(),
        remedy: error.remedy.clone(),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.log();
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (code, retry_after) = (self.code, self.retry_after);
        let mut response = (status, Json(&self)).into_response();
        // For the console, which makes a page of it.
        response.extensions_mut().insert(Box::new(self));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // Tells our errors from those of a called API, which pass unchanged.
        headers.insert(ERROR, HeaderValue::from_static(code));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// What a handler of the API answers instead of its reply.
#[derive(Debug)]
pub struct ApiError(pub Box<Problem>);

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(Box::new(Problem::of(&error)))
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self(Box::new(Problem::of_refusal(&refusal)))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_document_is_kept_or_taken_for_a_page() {
        for refusal in [Refusal::NoRoute, Refusal::NoMethod, Refusal::NoKey] {
            let response = Problem::of_refusal(&refusal).into_response();
            let header = |name: &str| response.headers()[name].to_str().unwrap_or_default().to_owned();
            assert_eq!(
                (header("x-content-type-options"), header("cache-control")),
                ("nosniff".into(), "no-store".into())
            );
        }
    }
}
