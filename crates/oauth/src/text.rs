//! Text from outside, made fit to be shown.

/// How many characters of a provider's text are shown.
pub(crate) const MAX_TEXT: usize = 300;

/// How many characters of a code, a name or an address are shown.
pub(crate) const MAX_NAME: usize = 100;

/// Makes text from outside fit to be shown: one line, no control or direction-changing characters,
/// nothing that looks like a JWT, at most `max` characters. `None` if nothing is left.
pub(crate) fn clean(text: &str, max: usize) -> Option<String> {
    let spaced: String =
        text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| !is_unfit(*c)).collect();
    let words: Vec<&str> = spaced.split(' ').filter(|word| !word.is_empty()).map(hide_jwt).collect();
    let line = words.join(" ");
    if line.is_empty() {
        return None;
    }
    match line.char_indices().nth(max) {
        Some(_) => Some(line.chars().take(max - 1).chain(['…']).collect()),
        None => Some(line),
    }
}

/// Whether this looks like a signed JWT: `header.payload.signature`, the header a JSON object in base64url.
pub(crate) fn looks_like_jwt(text: &str) -> bool {
    text.find("eyJ").is_some_and(|start| text[start..].matches('.').count() >= 2)
}

fn hide_jwt(word: &str) -> &str {
    if looks_like_jwt(word) { "****" } else { word }
}

/// Control characters, and the invisible ones that reorder or hide text.
fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_one_bounded_line() {
        assert_eq!(clean(" a\r\n\tb\u{7}\u{202e}c ", 300).as_deref(), Some("a bc"));
        assert_eq!(clean("\u{0}\n", 300), None);
        assert_eq!(clean(&"ä".repeat(301), 300).map(|t| t.chars().count()), Some(300));
        assert_eq!(clean(&"ä".repeat(300), 300), Some("ä".repeat(300)));
        assert_eq!(clean("token 'eyJh.eyJz.sig' expired", 300).as_deref(), Some("token **** expired"));
    }
}
