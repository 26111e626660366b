//! A `curl` command line for a token request.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyholder_oauth::ClientAuth;
use serde_json::Value;

use super::vars::Vars;
use super::{Extra, Found, ImportError, Phase, Place, error};

/// Options with a value that make no difference to the request.
const WITH_VALUE: [&str; 14] = [
    "-o",
    "--output",
    "-w",
    "--write-out",
    "-m",
    "--max-time",
    "--connect-timeout",
    "--retry",
    "-A",
    "--user-agent",
    "--cacert",
    "-e",
    "--referer",
    "--ciphers",
];

pub(super) fn read(text: &str, given: &BTreeMap<String, String>) -> Result<Found, ImportError> {
    let words = words(text)?;
    let mut words = words.into_iter().skip_while(|word| !is_curl(word)).peekable();
    if words.next().is_none() {
        return Err(error("command", "it is no curl command", "begin it with `curl`"));
    }
    let vars = Vars::new([], given);
    let mut found = Found { name: "curl".to_owned(), ..Found::default() };
    let mut request = Command::default();
    while let Some(word) = words.next() {
        let (option, mut attached) = split(&word);
        let mut value = |what: &str| {
            attached
                .take()
                .or_else(|| words.next())
                .ok_or_else(|| error(what, "it has no value", "write the command as it was run"))
        };
        match option.as_str() {
            "-X" | "--request" => request.method = Some(value("-X")?.to_ascii_uppercase()),
            "-u" | "--user" => request.user = Some(value("-u")?),
            "-H" | "--header" => {
                let header = value("-H")?;
                if let Some((name, value)) = header.split_once(':') {
                    request.headers.push((name.trim().to_owned(), value.trim().to_owned()));
                }
            }
            "-d" | "--data" | "--data-ascii" | "--data-raw" | "--data-binary" => {
                request.body.push(Data::Plain(value("-d")?))
            }
            "--data-urlencode" => request.body.push(Data::Encode(value("--data-urlencode")?)),
            "--json" => {
                request.json = true;
                request.body.push(Data::Plain(value("--json")?));
            }
            "-F" | "--form" | "--form-string" => {
                let _ = value("-F")?;
                found.note(
                    "-F",
                    "a multipart form is no token request",
                    "see whether the server takes a plain form, which is the rule (RFC 6749 §4.1.3)",
                );
            }
            "-G" | "--get" => request.get = true,
            "--url" => request.url = Some(value("--url")?),
            "-E" | "--cert" | "--key" => {
                let _ = value("--cert")?;
                found.note(
                    &option,
                    "a client certificate is a file that is not read here",
                    "give certificate and key to the integration, with the client authentication `tls`",
                );
            }
            "-k" | "--insecure" => found.note(
                &option,
                "certificates are always checked",
                "add the server's authority with KEYHOLDER_CA_FILE",
            ),
            "-x" | "--proxy" | "--resolve" | "--connect-to" | "--unix-socket" | "-b" | "--cookie" | "-c"
            | "--cookie-jar" => {
                let _ = value(&option)?;
                found.note(&option, "it is not part of the request", "nothing can be set for it");
            }
            known if WITH_VALUE.contains(&known) => drop(value(known)?),
            flag if flag.starts_with('-') => {}
            url => request.url = request.url.or_else(|| Some(url.to_owned())),
        }
    }
    request.into_found(&vars, &mut found)?;
    Ok(found)
}

enum Data {
    Plain(String),
    Encode(String),
}

#[derive(Default)]
struct Command {
    url: Option<String>,
    method: Option<String>,
    user: Option<String>,
    headers: Vec<(String, String)>,
    body: Vec<Data>,
    json: bool,
    get: bool,
}

impl Command {
    fn into_found(self, vars: &Vars, found: &mut Found) -> Result<(), ImportError> {
        let url = self.url.ok_or_else(|| error("command", "it has no address", "write the token endpoint's URL"))?;
        // Filled first: what a variable of the shell holds may be the scheme, or the query.
        let filled = found.fill(vars, "url", &url);
        let url =
            filled.map(|url| if url.contains("://") { url } else { format!("https://{url}") }).unwrap_or_default();
        let (address, query) = url.split_once('?').unwrap_or((&url, ""));
        found.token_url = address.split('#').next().filter(|address| !address.is_empty()).map(str::to_owned);
        let content_type = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        found.json_body =
            self.json || content_type.is_some_and(|(_, value)| value.to_ascii_lowercase().contains("json"));
        let mut in_body: Vec<(String, String)> = Vec::new();
        for data in &self.body {
            match data {
                Data::Plain(text) | Data::Encode(text) if text.starts_with('@') => {
                    return Err(error(
                        "-d",
                        "the body is in a file, which is not read here",
                        "write its content into the command",
                    ));
                }
                Data::Plain(text) if found.json_body => in_body.extend(json_members(text)?),
                Data::Plain(text) => in_body.extend(url::form_urlencoded::parse(text.as_bytes()).into_owned()),
                Data::Encode(text) => {
                    in_body.extend(text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
                }
            }
        }
        let in_query: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        found.method_get =
            self.get || self.method.as_deref() == Some("GET") || (self.method.is_none() && in_body.is_empty());
        if let Some(user) = &self.user {
            found.client_auth = Some(ClientAuth::Basic);
            client(found, vars, "-u", user);
        }
        for (name, value) in &self.headers {
            match name.to_ascii_lowercase().as_str() {
                "content-type" | "accept" | "content-length" | "host" => {}
                "authorization" => {
                    match value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic")) {
                        Some((_, encoded)) => {
                            found.client_auth = Some(ClientAuth::Basic);
                            let plain = vars
                                .fill(encoded.trim())
                                .ok()
                                .and_then(|text| STANDARD.decode(text).ok())
                                .and_then(|bytes| String::from_utf8(bytes).ok());
                            match plain {
                                Some(plain) => client(found, vars, "Authorization", &plain),
                                None => found.note(
                                    "Authorization",
                                    "its value is not readable as Basic",
                                    "give client id and secret to the integration",
                                ),
                            }
                        }
                        None => found.note(
                            "Authorization",
                            "it is neither Basic nor part of a token request",
                            "add it to the definition: token.headers",
                        ),
                    }
                }
                _ => extra(found, vars, Place::Header, name, value),
            }
        }
        let in_body = in_body.into_iter().map(|pair| (Place::Body, pair));
        for (place, (name, value)) in in_query.into_iter().map(|pair| (Place::Query, pair)).chain(in_body) {
            // A GET has all of its parameters in the query.
            let place = if found.method_get { Place::Body } else { place };
            parameter(found, vars, place, &name, &value);
        }
        if found.client_auth.is_none() {
            found.client_auth = found.client_id.is_some().then_some(match found.client_secret {
                Some(_) if found.json_body => ClientAuth::Json,
                Some(_) => ClientAuth::Post,
                None => ClientAuth::None,
            });
        }
        Ok(())
    }
}

fn client(found: &mut Found, vars: &Vars, field: &str, text: &str) {
    let (id, secret) = text.split_once(':').unwrap_or((text, ""));
    found.client_id = found.fill(vars, field, id);
    found.client_secret = found.fill(vars, field, secret);
}

fn parameter(found: &mut Found, vars: &Vars, place: Place, name: &str, value: &str) {
    match name {
        "grant_type" => value.clone_into(&mut found.grant),
        "client_id" => found.client_id = found.fill(vars, name, value),
        "client_secret" => found.client_secret = found.fill(vars, name, value),
        "scope" => found.scope = found.fill(vars, name, value),
        "audience" => found.audience = found.fill(vars, name, value),
        "resource" => found.resource = found.fill(vars, name, value),
        "username" => found.username = found.fill(vars, name, value),
        "password" => found.password = found.fill(vars, name, value),
        "redirect_uri" => found.left_out("redirect_uri", true),
        "refresh_token" => found.left_out("refresh_token", true),
        "code_verifier" => found.left_out("code_verifier", true),
        "code" => {}
        _ => extra(found, vars, place, name, value),
    }
}

fn extra(found: &mut Found, vars: &Vars, place: Place, name: &str, value: &str) {
    if let Some(value) = found.fill(vars, name, value) {
        found.extras.push(Extra { phase: Phase::Token, place, name: name.to_owned(), value });
    }
}

fn json_members(text: &str) -> Result<Vec<(String, String)>, ImportError> {
    let body: Value = serde_json::from_str(text).map_err(|at| super::not_json("a JSON body", &at))?;
    let members = body
        .as_object()
        .ok_or_else(|| error("-d", "the body is no JSON object", "write the token request as it was sent"))?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(members.iter().map(|(name, value)| (name.clone(), text(value))).collect())
}

fn is_curl(word: &str) -> bool {
    let program = word.rsplit(['/', '\\']).next().unwrap_or(word);
    program == "curl" || program == "curl.exe"
}

/// `--name=value` and `-Xvalue` apart.
fn split(word: &str) -> (String, Option<String>) {
    if word.starts_with("--") {
        return match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word.to_owned(), None),
        };
    }
    let mut chars = word.char_indices();
    if let (Some((_, '-')), Some((_, letter)), Some((at, _))) = (chars.next(), chars.next(), chars.next())
        && matches!(letter, 'X' | 'u' | 'H' | 'd' | 'F' | 'o' | 'E' | 'A' | 'b' | 'x' | 'm' | 'w' | 'e')
    {
        return (format!("-{letter}"), Some(word[at..].to_owned()));
    }
    (word.to_owned(), None)
}

/// The words of a command as a POSIX shell sees them, with bash's `$'…'`. Variables of the shell (`$NAME`, `${NAME}`) become placeholders.
fn words(text: &str) -> Result<Vec<String>, ImportError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    let open = || error("command", "a quotation mark is not closed", "copy the whole command");
    while let Some(c) = chars.next() {
        match c {
            '\\' | '^' if matches!(chars.peek(), Some('\n' | '\r')) => {
                // A command over several lines; `^` is Windows's way.
                while chars.next_if(|c| matches!(c, '\n' | '\r')).is_some() {}
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or_else(open)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or_else(open)? {
                        '"' => break,
                        '\\' => match chars.next().ok_or_else(open)? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            '\n' => {}
                            c => word.extend(['\\', c]),
                        },
                        '$' => variable(&mut chars, word),
                        c => word.push(c),
                    }
                }
            }
            '$' if chars.next_if_eq(&'\'').is_some() => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or_else(open)? {
                        '\'' => break,
                        '\\' => match chars.next().ok_or_else(open)? {
                            'n' => word.push('\n'),
                            't' => word.push('\t'),
                            'r' => word.push('\r'),
                            c => word.push(c),
                        },
                        c => word.push(c),
                    }
                }
            }
            '$' => variable(&mut chars, word.get_or_insert_default()),
            c if c.is_whitespace() => words.extend(word.take()),
            ';' | '|' | '>' | '<' if word.is_none() => break,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn variable(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut String) {
    let braced = chars.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    if braced {
        chars.next_if_eq(&'}');
    }
    if name.is_empty() {
        word.push('$');
    } else {
        word.push_str(&format!("{{{{{name}}}}}"));
    }
}
