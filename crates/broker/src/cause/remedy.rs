//! What to do about each cause, in words.

use keyholder_oauth::ClientAuth;

use super::{Called, Ours};

pub(super) fn other_audience(ours: Option<&Ours>, called: &Called) -> Option<String> {
    let claims = called.claims.as_ref().filter(|claims| !claims.audience.is_empty())?;
    let is_meant = claims.audience.iter().any(|audience| {
        let host = url::Url::parse(audience).ok().and_then(|url| url.host_str().map(str::to_owned));
        let is_host = |name: &str| name == called.host || called.host.ends_with(&format!(".{name}"));
        // An audience that is no address is a name that only the two of them know.
        host.is_none_or(|host| is_host(&host))
            && (url::Url::parse(audience).is_ok() || !audience.contains('.') || is_host(audience))
    });
    if is_meant {
        return None;
    }
    let meant = claims.audience.join(", ");
    let asked = ours.and_then(|ours| ours.audience.as_deref()).map_or_else(
        || "the integration asks for no audience".to_owned(),
        |audience| format!("the integration asks for `{audience}`"),
    );
    Some(format!(
        "The token is meant for {meant}, not for {}; {asked}. Set the integration's audience to the API's, as the provider's documentation names it.",
        called.host
    ))
}

/// What the challenge asks for and the grant hasn't (RFC 6750 §3.1).
pub(super) fn missing_scope(challenge: &str, called: &Called) -> Option<String> {
    let wanted = parameter(challenge, "scope")?;
    let granted = called.granted.as_deref().unwrap_or_default();
    let from_token = called.claims.as_ref().map(|claims| claims.scopes.as_slice()).unwrap_or_default();
    let has = |scope: &str| granted.split([' ', ',']).any(|it| it == scope) || from_token.iter().any(|it| it == scope);
    let missing: Vec<&str> = wanted.split([' ', ',']).filter(|scope| !scope.is_empty() && !has(scope)).collect();
    if missing.is_empty() {
        return None;
    }
    let granted = if granted.is_empty() { "no scope that is known".to_owned() } else { format!("`{granted}`") };
    Some(format!(
        "The API asks for `{}`; granted is {granted}. Add it to the integration's scopes, and authorise the connection again.",
        missing.join(" ")
    ))
}

/// A parameter of a challenge: `Bearer scope="a b"`.
fn parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    let at = challenge.match_indices(name).map(|(at, _)| at).find(|at| {
        let before = challenge[..*at].chars().next_back();
        before.is_none_or(|c| c == ' ' || c == ',') && challenge[at + name.len()..].trim_start().starts_with('=')
    })?;
    let value = challenge[at + name.len()..].trim_start().strip_prefix('=')?.trim_start();
    match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => value.split([',', ' ']).next(),
    }
}

pub(super) fn prefix(challenge: &str, called: &Called) -> String {
    let Some(sent) = &called.prefix else {
        return "The API doesn't accept the token: check where the definition puts it, then refresh the connection or authorise it again.".to_owned();
    };
    let asked = challenge.split([' ', ',']).next().unwrap_or_default();
    let sent_as = if sent.is_empty() { "alone".to_owned() } else { format!("as `{sent} …`") };
    if !asked.is_empty() && !asked.eq_ignore_ascii_case(sent) && !asked.contains('=') {
        return format!(
            "The token was sent {sent_as}, and the API asks for `{asked}`. Set the integration's header prefix to what the API's documentation shows."
        );
    }
    format!(
        "The token is valid by all that is known, and was sent {sent_as}. Compare the header prefix with the API's documentation; else the token was revoked, or is for another account or region: refresh the connection or authorise it again."
    )
}

pub(super) fn invalid_client(ours: &Ours) -> String {
    let offered = if ours.offered_auth.is_empty() {
        String::new()
    } else {
        format!("; the provider offers {}", ours.offered_auth.join(", "))
    };
    let mismatch = ours
        .client_auth
        .registered_name()
        .filter(|own| !ours.offered_auth.is_empty() && !ours.offered_auth.iter().any(|it| it == own));
    let first = match (mismatch, ours.client_auth) {
        (Some(_), _) => String::new(),
        (None, ClientAuth::PrivateKeyJwt) => "Check the client id, and that the provider has the public part of this private key. ".to_owned(),
        (None, ClientAuth::Tls) => "Check the client id, and that the provider knows this certificate. ".to_owned(),
        (None, _) => "Check client id and secret: copy the secret anew (its value, not the secret's own id or name, and without spaces), and see whether it has expired. ".to_owned(),
    };
    let how = format!("The client authenticates by `{}`{offered}", ours.client_auth.as_str());
    format!("{first}{how}; the integration's client authentication can be changed.")
}

pub(super) fn redirect(ours: &Ours) -> String {
    match &ours.redirect_uri {
        Some(uri) => format!(
            "Register exactly {uri} at the provider. Letter case, a slash at the end, http or https and the port all count."
        ),
        None => "Register exactly the integration's redirect URI at the provider, letter by letter.".to_owned(),
    }
}

pub(super) fn invalid_scope(ours: &Ours) -> String {
    let unknown: Vec<&str> = ours
        .scopes
        .iter()
        .map(String::as_str)
        .filter(|scope| !ours.known_scopes.is_empty() && !ours.known_scopes.iter().any(|it| it == scope))
        .collect();
    let enable = "or enable them for the client in the provider's settings";
    match unknown.as_slice() {
        [] => format!(
            "Asked for is `{}`. Take out what the provider's documentation doesn't list, {enable}.",
            ours.scopes.join(" ")
        ),
        unknown => format!(
            "As far as is known the provider has no scope {}. Correct the integration's scopes, {enable}.",
            unknown.iter().map(|scope| format!("`{scope}`")).collect::<Vec<_>>().join(", ")
        ),
    }
}

pub(super) fn wrong_grant(ours: &Ours) -> String {
    let own = ours.grant.grant_type();
    if !ours.offered_grants.is_empty() && !ours.offered_grants.iter().any(|it| it == own) {
        return format!(
            "The provider offers {}, not `{own}`. Make an integration with another method.",
            ours.offered_grants.join(", ")
        );
    }
    let others: Vec<&str> = ours.methods.iter().map(String::as_str).filter(|it| *it != ours.grant.as_str()).collect();
    let others = match others.as_slice() {
        [] => String::new(),
        others => format!(", or make an integration with another method ({})", others.join(", ")),
    };
    format!("Allow the grant `{own}` for this client in the provider's settings of your application{others}.")
}

pub(super) fn no_refresh_token(ours: &Ours) -> String {
    let is_offline = |scope: &&String| scope.to_ascii_lowercase().contains("offline");
    let again = "then authorise the connection again";
    if let Some(scope) = ours.known_scopes.iter().find(is_offline).filter(|scope| !ours.scopes.contains(scope)) {
        return format!("The provider gave no refresh token. Add the scope `{scope}` to the integration, {again}.");
    }
    if let Some((name, value)) = ours.consent_params.iter().find(|(name, value)| {
        ["access_type", "token_access_type", "prompt", "duration"].contains(&name.as_str()) || value == "offline"
    }) {
        return format!(
            "The provider gave no refresh token although `{name}={value}` asks for one: some give it only at the first consent. Take the application's access away in the account's settings at the provider, {again}."
        );
    }
    let setup = ours.setup.split_terminator(['\n']).find(|line| {
        let line = line.to_ascii_lowercase();
        line.contains("refresh") || line.contains("offline")
    });
    match setup {
        Some(line) => format!("The provider gave no refresh token. {} — {again}.", line.trim().trim_end_matches('.')),
        None => format!(
            "The provider gave no refresh token. Look in its documentation for what asks for one (a scope such as `offline_access`, a setting of the application), {again}."
        ),
    }
}
