//! Addresses of the console's pages. Names and ids are encoded here, so that no template has to.

use url::form_urlencoded::byte_serialize;

pub(in crate::http) const HOME: &str = "/console/";
pub(in crate::http) const SIGN_IN: &str = "/console/sign-in";
pub(in crate::http) const CONNECTIONS: &str = "/console/connections";
pub(in crate::http) const INTEGRATIONS: &str = "/console/integrations";
pub(in crate::http) const PROVIDERS: &str = "/console/providers";
pub(in crate::http) const IMPORT: &str = "/console/import";
pub(in crate::http) const SOURCES: &str = "/console/sources";
pub(in crate::http) const CALLERS: &str = "/console/callers";
pub(in crate::http) const AUDIT: &str = "/console/audit";
pub(in crate::http) const AUDIT_CSV: &str = "/console/audit.csv";
pub(in crate::http) const AUDIT_JSON: &str = "/console/audit.jsonl";
pub(in crate::http) const USAGE: &str = "/console/usage";
pub(in crate::http) const ADVICE: &str = "/console/advice";
pub(in crate::http) const SETTINGS: &str = "/console/settings";
pub(in crate::http) const PASSKEYS: &str = "/console/settings/passkeys";
/// Where `passkey.js` gets its questions: of who signs in, of who is signed in.
pub(in crate::http) const SIGN_IN_QUESTION: &str = "/console/sign-in/passkey";
pub(in crate::http) const PASSKEY_QUESTION: &str = "/console/settings/passkey";
/// Where settings speak of whoever reads them.
pub(in crate::http) const YOU: &str = "/console/settings#you";
/// And of all.
pub(in crate::http) const PEOPLE: &str = "/console/settings#people";
pub(in crate::http) const EVENTS: &str = "/console/events";

/// A connection's page, by id or name.
pub(in crate::http) fn connection(name: &str) -> String {
    below(CONNECTIONS, name)
}

/// A page below a connection's: `edit`, `test`, `authorize`.
pub(in crate::http) fn of_connection(name: &str, what: &str) -> String {
    format!("{}/{what}", connection(name))
}

/// An integration's page, by id or name.
pub(in crate::http) fn integration(name: &str) -> String {
    below(INTEGRATIONS, name)
}

/// A page below an integration's: `edit`, `upgrade`, `remove`.
pub(in crate::http) fn of_integration(name: &str, what: &str) -> String {
    format!("{}/{what}", integration(name))
}

/// A provider's page.
pub(in crate::http) fn provider(id: &str) -> String {
    below(PROVIDERS, id)
}

/// The form for a new connection of this provider.
pub(in crate::http) fn new_connection(provider: &str) -> String {
    below("/console/connections/new", provider)
}

/// A data source's page, by id or name.
pub(in crate::http) fn source(name: &str) -> String {
    below(SOURCES, name)
}

/// Events of one connection, or of all.
pub(in crate::http) fn events(connection: Option<&str>) -> String {
    connection.map_or_else(|| EVENTS.to_owned(), |it| with(EVENTS, &[("connection", it)]))
}

/// Where somebody becomes an operator.
pub(in crate::http) fn welcome(token: &str) -> String {
    below("/console/welcome", token)
}

/// And where `passkey.js` gets its question there.
pub(in crate::http) fn welcome_question(token: &str) -> String {
    format!("{}/passkey", welcome(token))
}

/// Where to sign in, and go on from there.
pub(in crate::http) fn sign_in(next: &str) -> String {
    if next == HOME { SIGN_IN.to_owned() } else { with(SIGN_IN, &[("next", next)]) }
}

/// `path`, and what has this name below it.
pub(in crate::http) fn below(path: &str, name: &str) -> String {
    // A plus sign is a space in queries only.
    let encoded: String = byte_serialize(name.as_bytes()).collect();
    format!("{path}/{}", encoded.replace('+', "%20"))
}

/// `path` with a query; empty values are left out.
pub(in crate::http) fn with(path: &str, query: &[(&str, &str)]) -> String {
    let given: Vec<_> = query.iter().filter(|(_, value)| !value.is_empty()).collect();
    if given.is_empty() {
        return path.to_owned();
    }
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish();
    format!("{path}?{query}")
}

/// A page of the console that somebody asked to be sent to; anything else is the first page.
pub(in crate::http) fn within(next: &str) -> &str {
    let plain = next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') && !next.contains("//");
    // Browsers take `%2e` for a dot.
    let path = next.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase().replace("%2e", ".");
    let climbs = path.split('/').any(|part| part == "..");
    if plain && !climbs && next.starts_with(HOME) { next } else { HOME }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_away() {
        for here in ["/console/", "/console/connections?state=failing&after=con_1", "/console/connections/a..b?x=/../"]
        {
            assert_eq!(within(here), here);
        }
        for away in [
            "",
            "//evil.example",
            "https://evil.example/console/",
            "/console",
            "/console//evil.example",
            "/console/\\evil",
            "/console/\r\nx",
            "/connect/x",
            "/console/../evil",
            "/console/a/..",
            "/console/%2E./evil",
        ] {
            assert_eq!(within(away), HOME, "{away}");
        }
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(connection("a b/ü+?"), "/console/connections/a%20b%2F%C3%BC%2B%3F");
        assert_eq!(with("/x", &[("a", "b c"), ("d", "")]), "/x?a=b+c");
        assert_eq!(sign_in("/console/"), SIGN_IN);
        assert_eq!(sign_in("/console/usage?by=hour"), "/console/sign-in?next=%2Fconsole%2Fusage%3Fby%3Dhour");
    }
}
