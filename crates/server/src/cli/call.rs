//! `keyholder call`: an API call through the gateway. Feels like curl; the token is put in on the way and never seen.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use futures_util::stream;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Frame;
use keyholder_broker::egress::{Body, empty, full};
use tokio::io::{AsyncRead, AsyncReadExt};
use url::Url;

use super::Context;
use super::api::header_line;
use super::error::{CliError, Problem, Result};
use super::output::note;

/// The most of a refusal that is read to find out whose it is.
const PROBLEM_LIMIT: usize = 256 << 10;
/// A file is sent in pieces of this size.
const PIECE: usize = 64 << 10;

/// Call a connection's API
///
/// The path is appended to the API's base URL. A full URL may name another host that the provider's definition allows.
/// The reply's body goes to standard output as it comes. Exits 1 when the API answers 400 or above.
#[derive(Args)]
#[command(
    override_usage = "keyholder call [OPTIONS] <CONNECTION> [METHOD] <PATH>",
    after_help = "Example:\n  keyholder call crm '/v3/contacts?limit=5'\n  keyholder call crm /v3/contacts -d '{\"name\": \"Ada\"}'\n  keyholder call crm PUT /v3/files/1 -H 'Content-Type: image/png' -d @picture.png\n  keyholder call crm https://files.example.com/v1/export -o export.zip"
)]
pub(crate) struct Call {
    /// Name or id
    connection: String,
    /// Method (GET, or POST with -d) and path or URL
    #[arg(required = true, num_args = 1..=2, value_names = ["METHOD", "PATH"])]
    target: Vec<String>,
    /// Send this header; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header_line)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Send this body; @FILE sends a file, - standard input
    #[arg(short, long, value_name = "BODY", allow_hyphen_values = true)]
    data: Option<String>,
    /// Show the reply's status and headers too
    #[arg(short, long)]
    include: bool,
    /// Write the reply's body to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Call {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let api = context.api()?;
        let (method, target) = method_and_target(&self.target, self.data.is_some())?;
        let (path, host) = path_and_host(target)?;
        let mut headers: HeaderMap = self.headers.into_iter().collect();
        if let Some(host) = host {
            headers.insert(HeaderName::from_static("keyholder-host"), host);
        }
        let body = match &self.data {
            Some(data) => body_of(data, &mut headers).await?,
            None => empty(),
        };
        let response = api.proxy(&self.connection, method, &path, headers, body).await?;
        let status = response.status();
        let mut to: Box<dyn Write + Send> = match &self.output {
            Some(path) => Box::new(std::fs::File::create(path).map_err(CliError::io(path.display().to_string()))?),
            None => Box::new(std::io::stdout()),
        };
        if self.include {
            context.out.raw(head(&response).as_bytes())?;
        }
        let what = self.output.as_ref().map_or("standard output".to_owned(), |path| path.display().to_string());
        let ended = copy(response, &mut *to, &what).await?;
        if !ended && self.output.is_none() && std::io::stdout().is_terminal() {
            // The prompt would stand behind the body.
            note("");
        }
        if status.is_client_error() || status.is_server_error() {
            note(format!("the API answered {status}"));
            return Err(CliError::Said);
        }
        Ok(())
    }
}

fn method_and_target(target: &[String], has_body: bool) -> Result<(Method, &str)> {
    match target {
        [method, target] => {
            let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes())
                .map_err(|_| CliError::Usage(format!("`{method}` is no HTTP method")))?;
            Ok((method, target))
        }
        [target] => Ok((if has_body { Method::POST } else { Method::GET }, target)),
        _ => Err(CliError::Usage("give a path".to_owned())),
    }
}

/// What stands behind `/proxy`, and the host of a full URL.
fn path_and_host(target: &str) -> Result<(String, Option<HeaderValue>)> {
    if !target.contains("://") {
        let slash = if target.starts_with('/') { "" } else { "/" };
        return Ok((format!("{slash}{target}"), None));
    }
    let bad = || CliError::Usage(format!("`{target}` is neither a path nor an https URL"));
    let url = Url::parse(target).map_err(|_| bad())?;
    let host = url.host_str().filter(|_| matches!(url.scheme(), "https" | "http")).ok_or_else(bad)?;
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok((format!("{}{query}", url.path()), Some(authority.parse().map_err(|_| bad())?)))
}

async fn body_of(data: &str, headers: &mut HeaderMap) -> Result<Body> {
    let looks_like_json = data.starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(data).is_ok();
    let (kind, body) = if data == "-" {
        ("application/octet-stream", pieces(tokio::io::stdin()))
    } else if let Some(path) = data.strip_prefix('@') {
        let problem = || CliError::io(path.to_owned());
        let file = tokio::fs::File::open(path).await.map_err(problem())?;
        let length = file.metadata().await.map_err(problem())?.len();
        headers.entry(header::CONTENT_LENGTH).or_insert(length.into());
        let json = Path::new(path).extension().is_some_and(|extension| extension == "json");
        (if json { "application/json" } else { "application/octet-stream" }, pieces(file))
    } else if looks_like_json {
        ("application/json", full(data.to_owned()))
    } else {
        ("application/x-www-form-urlencoded", full(data.to_owned()))
    };
    headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
    Ok(body)
}

/// Something that is read while it is sent.
fn pieces(from: impl AsyncRead + Send + Unpin + 'static) -> Body {
    let frames = stream::unfold(Some(from), |from| async move {
        let mut from = from?;
        let mut piece = Vec::with_capacity(PIECE);
        match from.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(Frame::data(Bytes::from(piece))), Some(from))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Body::boxed(StreamBody::new(frames))
}

fn head(response: &Response<Body>) -> String {
    let status = response.status();
    let mut head = format!("HTTP/1.1 {} {}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    for (name, value) in response.headers() {
        head.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    head.push('\n');
    head
}

/// Writes the body out; answers whether it ended with a line end. A refusal of Keyholder's own is an error, not a body.
async fn copy(response: Response<Body>, to: &mut (dyn Write + Send), what: &str) -> Result<bool> {
    let is_problem = |value: &HeaderValue| value.as_bytes().starts_with(b"application/problem+json");
    let refused = response.status() >= StatusCode::BAD_REQUEST
        && response.headers().get(header::CONTENT_TYPE).is_some_and(is_problem);
    let broke = |error: &dyn std::fmt::Display| CliError::Failed(format!("the reply broke off: {error}"));
    let mut body = response.into_body();
    let mut last = b'\n';
    let mut write = |data: &[u8]| {
        last = data.last().copied().unwrap_or(last);
        to.write_all(data).map_err(CliError::io(what))
    };
    if refused {
        let whole = Limited::new(body, PROBLEM_LIMIT).collect().await.map_err(|error| broke(&error))?.to_bytes();
        if let Some(problem) = Problem::read(&whole) {
            return Err(CliError::Problem(Box::new(problem)));
        }
        write(&whole)?;
    } else {
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|error| broke(&error))?.into_data() {
                write(&data)?;
            }
        }
    }
    to.flush().map_err(CliError::io(what))?;
    Ok(last == b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(words: &[&str], has_body: bool) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let (method, target) = method_and_target(&words, has_body).unwrap();
        let (path, host) = path_and_host(target).unwrap();
        format!("{method} {path} {}", host.as_ref().map_or("-", |host| host.to_str().unwrap()))
    }

    #[test]
    fn the_method_follows_the_body() {
        assert_eq!(target(&["/me"], false), "GET /me -");
        assert_eq!(target(&["/me"], true), "POST /me -");
        assert_eq!(target(&["delete", "me?x=1"], false), "DELETE /me?x=1 -");
    }

    #[test]
    fn a_full_url_names_its_host() {
        assert_eq!(target(&["https://files.example.com/v1/a%2Fb?c=d"], false), "GET /v1/a%2Fb?c=d files.example.com");
        assert_eq!(target(&["http://127.0.0.1:8790/api/me"], false), "GET /api/me 127.0.0.1:8790");
        assert!(path_and_host("ftp://example.com/").is_err());
    }

    #[tokio::test]
    async fn a_body_says_what_it_is() {
        let kind = async |data: &str, given: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.extend(given.map(|given| (header::CONTENT_TYPE, given.parse().unwrap())));
            let body = body_of(data, &mut headers).await.unwrap().collect().await.unwrap().to_bytes();
            (headers[header::CONTENT_TYPE].to_str().unwrap().to_owned(), String::from_utf8(body.to_vec()).unwrap())
        };
        assert_eq!(kind("{\"a\": 1}", None).await, ("application/json".to_owned(), "{\"a\": 1}".to_owned()));
        assert_eq!(kind("{a", None).await.0, "application/x-www-form-urlencoded");
        assert_eq!(kind("a=b", Some("text/plain")).await.0, "text/plain");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("body.json");
        std::fs::write(&path, "[]").unwrap();
        assert_eq!(kind(&format!("@{}", path.display()), None).await, ("application/json".to_owned(), "[]".to_owned()));
        assert!(matches!(body_of("@/nowhere/at/all", &mut HeaderMap::new()).await, Err(CliError::Io { .. })));
    }
}
