//! Query strings: strict reading, and writing that every server understands.

use url::Url;

use crate::params::Params;

/// Puts the parameters into the URL's query.
///
/// The endpoint's own query is kept byte for byte (RFC 6749 §3.1), except for parameters that are
/// also given here: none may occur twice.
pub(crate) fn with_params(endpoint: &Url, params: &Params) -> Url {
    let mut url = endpoint.clone();
    let own = endpoint.query().unwrap_or_default().split('&');
    let kept = own.filter(|piece| !piece.is_empty() && !params.contains(&name_of(piece))).map(str::to_owned);
    let ours = params.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    let query = kept.chain(ours).collect::<Vec<_>>().join("&");
    url.set_query((!query.is_empty()).then_some(&query));
    url
}

/// Reads `a=1&b=2` into decoded pairs, or `None` where an escape does not give UTF-8.
pub(crate) fn parse(query: &str) -> Option<Vec<(String, String)>> {
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    pieces
        .map(|piece| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            Some((decode(name)?, decode(value)?))
        })
        .collect()
}

/// Percent-encodes all but the unreserved characters (RFC 3986 §2.3). A space becomes `%20`, because
/// some servers read `+` literally in a query.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push(hex_digit(byte >> 4));
                out.push(hex_digit(byte & 15));
            }
        }
    }
    out
}

fn hex_digit(value: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(value)])
}

fn name_of(piece: &str) -> String {
    let name = piece.split('=').next().unwrap_or_default();
    decode(name).unwrap_or_else(|| name.to_owned())
}

/// An escape that is not two hexadecimal digits stands for itself, as browsers read it.
fn decode(text: &str) -> Option<String> {
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let Some(&byte) = rest.first() {
        let escaped = if byte == b'%' { rest.get(1..3).and_then(hex_pair) } else { None };
        out.push(escaped.unwrap_or(if byte == b'+' { b' ' } else { byte }));
        rest = &rest[if escaped.is_some() { 3 } else { 1 }..];
    }
    String::from_utf8(out).ok()
}

fn hex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()
}
