//! A failure in words a person can act on: whose fault, what happened, what to do.

use std::time::Duration;

use keyholder_oauth::{DiscoveryError, FailureKind, FailureShape, Secret, TokenFailure};
use keyholder_provider::{ErrorPhase, GrantKind, KnownError};

use crate::egress::{EgressError, EgressFault};
use crate::error::Error;
use crate::model::Failure;

/// What was attempted; the same error code has another remedy in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A refresh token was used.
    Refresh,
    /// A secondary token's own refresh token was used.
    Secondary,
    /// A grant without a person was run.
    Machine(GrantKind),
    /// An authorization code was exchanged.
    Exchange,
}

impl Deed {
    /// Whether a refresh token is sent, which may be good for one use.
    pub(crate) fn spends(self) -> bool {
        matches!(self, Deed::Refresh | Deed::Secondary)
    }

    fn phase(self) -> ErrorPhase {
        match self {
            Deed::Refresh | Deed::Secondary => ErrorPhase::Refresh,
            Deed::Machine(_) | Deed::Exchange => ErrorPhase::Token,
        }
    }
}

/// A failure, and how long the provider asked to wait.
pub(crate) struct Explained {
    pub(crate) failure: Failure,
    pub(crate) retry_after: Option<Duration>,
}

/// What is known of a provider and a client before they refuse.
#[derive(Clone, Copy, Default)]
pub(crate) struct Known<'a> {
    /// The definition's remedies.
    pub(crate) errors: &'a [KnownError],
    pub(crate) client_secret_expires_at: Option<i64>,
}

/// Explains a provider's refusal. `secrets` are masked wherever the provider echoed them; the definition's own remedies come first.
pub(crate) fn refusal(
    deed: Deed,
    refused: &TokenFailure,
    known: Known<'_>,
    secrets: &[&Secret],
    now: i64,
) -> Explained {
    let refused = &masked_refusal(refused, secrets);
    let of_definition = known_error(known.errors, deed.phase(), |known| names(refused, known));
    let remedy = expired_secret(refused, known.client_secret_expires_at, now)
        .or_else(|| of_definition.map(|known| known.remedy.clone()))
        .unwrap_or_else(|| remedy_for(deed, refused));
    let mut message = sentence(refused.to_string());
    if let Some(meaning) = of_definition.and_then(|known| known.meaning.clone()) {
        message = format!("{message} {}", sentence(meaning));
    }
    Explained {
        retry_after: refused.retry_after,
        failure: Failure {
            kind: refused.kind,
            code: refused.code.clone(),
            message,
            remedy,
            at: now,
            next_try_at: None,
        },
    }
}

/// The definition's word on an error that occurs in `phase`: one for that phase before one for any.
pub(crate) fn known_error(
    errors: &[KnownError],
    phase: ErrorPhase,
    fits: impl Fn(&str) -> bool,
) -> Option<&KnownError> {
    let of_phase = |wanted: Option<ErrorPhase>| errors.iter().find(|it| it.phase == wanted && fits(&it.code));
    of_phase(Some(phase)).or_else(|| of_phase(None))
}

/// A refusal without the secrets that the provider echoed.
pub(crate) fn masked_refusal(refused: &TokenFailure, secrets: &[&Secret]) -> TokenFailure {
    TokenFailure {
        code: refused.code.as_deref().map(|code| masked(code, secrets)),
        description: refused.description.as_deref().map(|text| masked(text, secrets)),
        ..refused.clone()
    }
}

/// Explains why no reply came.
pub(crate) fn unreachable(error: &EgressError, now: i64) -> Explained {
    let (kind, remedy) = match &error.what {
        EgressFault::Refused(_) => {
            (FailureKind::Setup, "Correct the endpoint, or allow the address in KEYHOLDER_EGRESS_ALLOW and restart.")
        }
        EgressFault::Tls(_) => (
            FailureKind::Setup,
            "Check the endpoint's certificate; a private authority's certificate goes into the file of KEYHOLDER_CA_FILE.",
        ),
        EgressFault::Dns(_) => (
            FailureKind::Transient,
            "Check the host name of the endpoint, and this machine's DNS. It is tried again by itself.",
        ),
        EgressFault::Connect(_) | EgressFault::CircuitOpen { .. } => (
            FailureKind::Transient,
            "Check that the provider is up and that a firewall lets this machine reach it. It is tried again by itself.",
        ),
        EgressFault::Timeout(_) | EgressFault::Lost(_) | EgressFault::TooLarge(_) => (
            FailureKind::Transient,
            "The provider may have acted on the request although its reply was lost. It is tried again by itself; if the provider then refuses the refresh token, authorise again.",
        ),
    };
    Explained {
        retry_after: None,
        failure: Failure {
            kind,
            code: None,
            message: sentence(error.to_string()),
            remedy: remedy.to_owned(),
            at: now,
            next_try_at: None,
        },
    }
}

/// The process that held the claim ended, nobody knows how far it came.
pub(crate) fn owner_died(now: i64) -> Explained {
    let message = "The process that was renewing this connection ended in the middle of it.".to_owned();
    let failure = Failure {
        kind: FailureKind::Transient,
        code: None,
        message,
        remedy: String::new(),
        at: now,
        next_try_at: None,
    };
    Explained { retry_after: None, failure }
}

/// The token endpoint's circuit is open: nothing was sent.
pub(crate) fn circuit_open(since: i64, until: i64, now: i64) -> Failure {
    let minutes = now.saturating_sub(since).max(0) / 60_000;
    Failure {
        kind: FailureKind::Transient,
        code: None,
        message: format!("The provider's token endpoint has not been working for {minutes} min, so it is not asked for every connection."),
        remedy: "It is asked again by itself, at first by one connection; a renewal that a person asks for is tried at once.".to_owned(),
        at: now,
        next_try_at: Some(until),
    }
}

/// The provider doesn't renew a token that is so young: nothing was sent.
pub(crate) fn too_young(until: i64, now: i64) -> Failure {
    Failure {
        kind: FailureKind::Transient,
        code: None,
        message: "The provider doesn't renew tokens as young as this one, so it was not asked.".to_owned(),
        remedy: format!("It is asked by itself in {} min.", until.saturating_sub(now).max(0) / 60_000 + 1),
        at: now,
        next_try_at: Some(until),
    }
}

/// Explains why no request could be made.
pub(crate) fn no_request(error: &Error, now: i64) -> Explained {
    let (kind, remedy) = match error {
        Error::Egress(egress) | Error::DiscoveryUnreachable(egress) => return unreachable(egress, now),
        Error::Discovery { cause: DiscoveryError::Status(408 | 429 | 500..), .. } => {
            (FailureKind::Transient, "It is tried again by itself.")
        }
        _ => (FailureKind::Setup, "Correct the integration; the connection is then tried again."),
    };
    Explained {
        retry_after: None,
        failure: Failure {
            kind,
            code: None,
            message: sentence(error.to_string()),
            remedy: remedy.to_owned(),
            at: now,
            next_try_at: None,
        },
    }
}

fn expired_secret(refused: &TokenFailure, expires_at: Option<i64>, now: i64) -> Option<String> {
    let days = (now - expires_at.filter(|at| *at <= now)?) / 86_400_000;
    (refused.code.as_deref() == Some("invalid_client")).then(|| {
        format!("The client secret has probably expired: by what the integration says, {days} days ago. Make a new one at the provider and put it in with `keyholder integration edit`.")
    })
}

fn remedy_for(deed: Deed, refused: &TokenFailure) -> String {
    let by_code = match (refused.code.as_deref(), deed) {
        (Some("invalid_client"), _) => {
            "Check the integration's client id and client secret (has the secret expired?), and whether the provider wants them in the header (client_auth `basic`) or in the body (`post`)."
        }
        (Some("invalid_grant"), Deed::Refresh | Deed::Secondary) => {
            "The provider no longer accepts the refresh token: it expired, was revoked there, or was used elsewhere. Authorise the connection again."
        }
        (Some("invalid_grant"), Deed::Machine(GrantKind::Password)) => {
            "Check the user name and password of the connection."
        }
        (Some("invalid_grant"), Deed::Machine(_)) => {
            "The provider doesn't accept this grant; check the integration's set-up at the provider."
        }
        (Some("invalid_grant"), Deed::Exchange) => {
            "The code was too old, already used, or made for another redirect URI. Begin again; if it stays, compare the redirect URI at the provider letter by letter."
        }
        (Some("invalid_scope"), _) => {
            "The provider doesn't know, or doesn't allow this client, one of the scopes. Correct the integration's scopes, or enable them at the provider."
        }
        (Some("unauthorized_client"), _) => {
            "Allow this grant type for the client in the provider's settings of your application."
        }
        (Some("unsupported_grant_type"), _) => {
            "The provider doesn't offer this grant; choose another method for the integration."
        }
        (Some("invalid_request"), _) => {
            "The provider misses or dislikes a parameter. Compare the method, client authentication and variables with the provider's documentation."
        }
        (Some("invalid_target"), _) => {
            "The provider doesn't know the audience or resource; correct the integration's audience."
        }
        (Some("redirect_uri_mismatch"), _) => {
            "Register exactly the integration's redirect URI at the provider, letter by letter."
        }
        (Some("access_denied"), _) => "The person or an administrator declined. Authorise again and accept.",
        _ => "",
    };
    if !by_code.is_empty() {
        return by_code.to_owned();
    }
    match (&refused.what, refused.kind) {
        (FailureShape::Redirect, _) => "Set the token endpoint to the address that finally answers; redirects are not followed with credentials.",
        (FailureShape::Html, FailureKind::Setup) => "The address is a web page, not the token endpoint; check the endpoint's URL.",
        (FailureShape::Html, _) => {
            "The provider may be in maintenance, or the address is a web page and not the token endpoint. It is tried again by itself; if it stays, check the endpoint's URL."
        }
        (FailureShape::TooManyRequests, _) => "It is tried again by itself when the provider allows it.",
        (FailureShape::HttpStatus, FailureKind::Setup) => "Check the endpoint's URL.",
        (_, FailureKind::Setup) => "Compare the integration's set-up with the provider's documentation.",
        (_, FailureKind::Grant) => "Authorise the connection again.",
        (_, FailureKind::Transient) => "It is tried again by itself.",
    }
    .to_owned()
}

/// A known error is an error code, or words of the description such as a vendor's own number or the sentence that it always says.
fn names(refused: &TokenFailure, known: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    // At the ends of words, in any letter case.
    let has_words = |text: &str| {
        let (text, known) = (text.to_lowercase(), known.to_lowercase());
        text.match_indices(&known)
            .any(|(at, found)| !text[..at].ends_with(is_word) && !text[at + found.len()..].starts_with(is_word))
    };
    refused.code.as_deref() == Some(known)
        || (!known.is_empty() && refused.description.as_deref().is_some_and(has_words))
}

/// First letter large, full stop at the end.
pub(crate) fn sentence(text: String) -> String {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return text };
    let mut out: String = if text.starts_with("http") { text } else { first.to_uppercase().chain(chars).collect() };
    if !out.ends_with(['.', '!', '?']) {
        out.push('.');
    }
    out
}

/// Replaces every secret that stands in `text`, however it is written, also where the text was cut in the middle of one. Very short ones are
/// left: they would mask ordinary words, and guess nothing.
fn masked(text: &str, secrets: &[&Secret]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().map(|secret| secret.expose()).filter(|secret| secret.len() >= SHORTEST) {
        for way in crate::redact::ways_to_write(secret) {
            text = mask_cut_end(text.replace(way.as_str(), "****"), &way);
        }
    }
    text
}

const SHORTEST: usize = 6;

/// A text that was cut ends in `…`; what stands before it may be the first part of a secret.
fn mask_cut_end(text: String, secret: &str) -> String {
    let Some(kept) = text.strip_suffix('…') else { return text };
    let part = (SHORTEST..secret.len()).rev().filter_map(|end| secret.get(..end)).find(|part| kept.ends_with(part));
    match part {
        Some(part) => format!("{}****…", &kept[..kept.len() - part.len()]),
        None => text,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refused(kind: FailureKind, code: &str, description: &str) -> TokenFailure {
        TokenFailure {
            kind,
            code: Some(code.to_owned()),
            description: Some(description.to_owned()),
            status: 400,
            retry_after: None,
            what: FailureShape::OauthError,
        }
    }

    #[test]
    fn what_a_provider_echoes_is_masked() {
        let token = Secret::new("rt-12345");
        let echoed = refused(FailureKind::Grant, "invalid_grant", "token rt-12345 is unknown");
        let explained = refusal(Deed::Refresh, &echoed, Known::default(), &[&token], 0);
        assert!(explained.failure.message.contains("****"));
        assert!(!explained.failure.message.contains("rt-12345"));
    }

    #[test]
    fn a_known_error_is_a_code_or_words_of_the_description() {
        let said = refused(FailureKind::Grant, "invalid_grant", "AADSTS50011: The Refresh Token was revoked, ask anew");
        for known in ["invalid_grant", "AADSTS50011", "refresh token was revoked", "ask"] {
            assert!(names(&said, known), "{known}");
        }
        for known in ["", "invalid", "AADSTS5001", "token was", "as", "revoked ask"] {
            assert_eq!(names(&said, known), known == "token was", "{known}");
        }
    }

    #[test]
    fn an_echo_is_masked_when_it_is_encoded_or_cut() {
        let token = Secret::new("a+b/cdefgh");
        let shown = |text: &str| masked(text, &[&token]);
        assert_eq!(shown("client_secret=a%2Bb%2Fcdefgh is wrong"), "client_secret=**** is wrong");
        assert_eq!(shown("unknown token a+b/cde…"), "unknown token ****…");
        assert_eq!(shown("unknown token a%2Bb%2…"), "unknown token ****…");
        assert_eq!(shown("nothing of it…"), "nothing of it…");
    }

    #[test]
    fn the_definitions_remedy_comes_first() {
        let known = [KnownError {
            code: "invalid_grant".to_owned(),
            phase: None,
            meaning: None,
            remedy: "Ask Ada.".to_owned(),
        }];
        let failure = refused(FailureKind::Grant, "invalid_grant", "no");
        assert_eq!(
            refusal(Deed::Refresh, &failure, Known { errors: &known, ..Known::default() }, &[], 0).failure.remedy,
            "Ask Ada."
        );
        assert!(refusal(Deed::Exchange, &failure, Known::default(), &[], 0).failure.remedy.contains("redirect URI"));
        assert!(
            refusal(Deed::Machine(GrantKind::Password), &failure, Known::default(), &[], 0)
                .failure
                .remedy
                .contains("password")
        );
    }

    #[test]
    fn a_known_error_counts_in_its_own_phase_and_says_what_it_means() {
        let known = |phase, remedy: &str| KnownError {
            code: "190".to_owned(),
            phase,
            meaning: Some("the password was changed".to_owned()),
            remedy: remedy.to_owned(),
        };
        let errors = [known(None, "Anywhere."), known(Some(ErrorPhase::Refresh), "When renewing.")];
        let failure = refused(FailureKind::Grant, "190", "no");
        let explained = |deed| refusal(deed, &failure, Known { errors: &errors, ..Known::default() }, &[], 0).failure;
        assert_eq!(explained(Deed::Refresh).remedy, "When renewing.");
        assert_eq!(explained(Deed::Exchange).remedy, "Anywhere.");
        assert!(explained(Deed::Refresh).message.ends_with("The password was changed."));
        let only = |errors: &[KnownError]| {
            refusal(Deed::Exchange, &failure, Known { errors, ..Known::default() }, &[], 0).failure.remedy
        };
        assert_ne!(only(&errors[1..]), "When renewing.");
    }

    #[test]
    fn an_expired_client_secret_is_the_likely_cause() {
        let failure = refused(FailureKind::Setup, "invalid_client", "no");
        let day = 86_400_000;
        let remedy = |expires_at| {
            let known = Known { client_secret_expires_at: expires_at, ..Known::default() };
            refusal(Deed::Refresh, &failure, known, &[], 100 * day).failure.remedy
        };
        assert!(remedy(Some(97 * day)).contains("3 days ago"));
        for not_yet in [None, Some(101 * day)] {
            assert!(!remedy(not_yet).contains("days ago"));
        }
    }
}
