//! All that the pages say to people who connect. Another language is another [`Words`] in [`ALL`]; what is between braces is filled in.

use http::HeaderMap;
use http::header::ACCEPT_LANGUAGE;

/// The texts of one language.
pub(in crate::http) struct Words {
    /// Its tag, for the page.
    pub(in crate::http) lang: &'static str,
    pub(in crate::http) optional: &'static str,
    pub(in crate::http) choose: &'static str,
    pub(in crate::http) go_on: &'static str,
    pub(in crate::http) go_on_to: &'static str,
    pub(in crate::http) connect: &'static str,
    pub(in crate::http) connect_yours: &'static str,
    pub(in crate::http) asks: &'static str,
    pub(in crate::http) asks_for: &'static str,
    pub(in crate::http) asked_for: &'static str,
    pub(in crate::http) unexpected: &'static str,
    pub(in crate::http) which: &'static str,
    pub(in crate::http) which_text: &'static str,
    pub(in crate::http) which_wrong: &'static str,
    pub(in crate::http) nothing_yet: &'static str,
    pub(in crate::http) is_it_yours: &'static str,
    pub(in crate::http) signed_in_as: &'static str,
    pub(in crate::http) signed_in: &'static str,
    pub(in crate::http) granted: &'static str,
    pub(in crate::http) yes: &'static str,
    pub(in crate::http) no: &'static str,
    pub(in crate::http) after_yes: &'static str,
    pub(in crate::http) type_code: &'static str,
    pub(in crate::http) open: &'static str,
    pub(in crate::http) open_and: &'static str,
    pub(in crate::http) open_filled: &'static str,
    pub(in crate::http) by_itself: &'static str,
    pub(in crate::http) connected: &'static str,
    pub(in crate::http) connected_text: &'static str,
    pub(in crate::http) declined: &'static str,
    pub(in crate::http) declined_text: &'static str,
    pub(in crate::http) declined_remedy: &'static str,
    pub(in crate::http) failed: &'static str,
    pub(in crate::http) mind_changed: &'static str,
}

/// English.
pub(in crate::http) const ENGLISH: Words = Words {
    lang: "en",
    optional: "(optional)",
    choose: "Choose…",
    go_on: "Continue",
    go_on_to: "Continue to {provider}",
    connect: "Connect {provider}",
    connect_yours: "Connect your {provider} account",
    asks: "{integration} asks to use your account at {provider}. You sign in there; your password is never shown here.",
    asks_for: "{name} asks, for {integration}, to use your account at {provider}. You sign in there; your password is never shown here.",
    asked_for: "What will be asked for",
    unexpected: "Didn't expect this? Close the page; nothing happens.",
    which: "Which one shall be connected?",
    which_text: "Your account at {provider} has several. The connection will use the one that you choose.",
    which_wrong: "Choose one of these.",
    nothing_yet: "Nothing is connected yet. To leave it, close the page.",
    is_it_yours: "Is this your account?",
    signed_in_as: "At {provider} you signed in as:",
    signed_in: "You signed in at {provider}, which didn't name the account.",
    granted: "What was granted",
    yes: "Yes, connect it",
    no: "No, undo it",
    after_yes: "The connection “{connection}” is used only after your yes.",
    type_code: "Type this code at {provider}",
    open: "Open",
    open_and: ", on this device or another, sign in there, and type the code.",
    open_filled: "Open it with the code filled in",
    by_itself: "This page goes on by itself when you have said yes there.",
    connected: "Connected",
    connected_text: "“{connection}” is connected. You can close this page.",
    declined: "Nothing was connected",
    declined_text: "What was granted has been given back to the provider.",
    declined_remedy: "To connect another account, ask for a new link and sign in with that account.",
    failed: "That didn't work",
    mind_changed: "If you changed your mind, open the link again and accept.",
};

/// The languages there are; the first is what those get who read none of them.
const ALL: [&Words; 1] = [&ENGLISH];

/// The first language of the reader's that there is.
pub(in crate::http) fn words_for(headers: &HeaderMap) -> &'static Words {
    let wished = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    first_of(&ALL, wished).unwrap_or(ALL[0])
}

/// Of `en-GB, fr;q=0.8` the parts before the weights, in their order, which browsers keep to the weights.
fn first_of(all: &[&'static Words], wished: &str) -> Option<&'static Words> {
    let tags = wished.split(',').filter_map(|part| part.split([';', '-']).next()).map(str::trim);
    let mut found = tags.filter_map(|tag| all.iter().find(|words| words.lang.eq_ignore_ascii_case(tag)));
    found.next().copied()
}

/// A text with what stands between its braces. Values with braces stay as they are.
pub(in crate::http) fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut parts = text.split('{');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap_or(("", part));
        filled.push_str(values.iter().find(|(it, _)| *it == name).map_or("", |(_, value)| value));
        filled.push_str(rest);
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readers_first_language_is_taken() {
        static OTHER: Words = Words { lang: "de", ..ENGLISH };
        let all = [&ENGLISH, &OTHER];
        let of = |wished| first_of(&all, wished).map(|words| words.lang);
        assert_eq!(of("fr-FR, de-AT;q=0.8, en;q=0.5"), Some("de"));
        assert_eq!(of("EN-us"), Some("en"));
        assert_eq!((of("fr"), of(""), of("-;,")), (None, None, None));
    }

    #[test]
    fn braces_of_values_stay() {
        assert_eq!(fill("At {provider}: {name}!", &[("provider", "{name}"), ("name", "x")]), "At {name}: x!");
        assert_eq!(fill("{unknown}a{", &[]), "a");
    }
}
