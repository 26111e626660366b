//! `keyholder connect`: authorise from the terminal.
//!
//! | grant | server | how |
//! | --- | --- | --- |
//! | needs no person | any | a connection is made and authorised |
//! | a person consents | on this machine | the browser comes back to a loopback socket of this process, which completes |
//! | a person consents on another device | any | the code is printed; this process looks until the person has typed it |
//! | somebody brings a refresh token | any | it is read from the terminal or standard input, and renewed at once |
//! | a person consents | elsewhere, or `--no-browser` | the link is printed; the person confirms on Keyholder's page; this process looks until it is done |

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use keyholder_broker::clock::Rng;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use url::{Host, Url};

use super::Context;
use super::api::Api;
use super::connection::{authorize_machine, tell_connected};
use super::error::{CliError, Result};
use super::output::{Out, Tint, clean, note, text};
use super::values::{object, pair, secret_from_stdin, secret_from_terminal};

/// How often a consent on another machine is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Authorise a connection: opens the browser where a person must consent
///
/// The connection is named like the integration unless --connection says otherwise. One that exists is authorised again.
#[derive(Args)]
#[command(
    after_help = "Example:\n  keyholder connect github\n  keyholder connect github --connection github-ada --owner ada\n  keyholder connect github --no-browser        print the link, for a browser elsewhere\n  pass show crm-token | keyholder connect crm --refresh-token-stdin"
)]
pub(crate) struct Connect {
    /// Name or id of the integration
    integration: String,
    /// Name of the connection, new or existing [default: the integration's name]
    #[arg(long, value_name = "CONNECTION")]
    connection: Option<String>,
    /// Who the grant belongs to, in your words
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    /// Value for one of the provider's variables; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,
    /// Print the link and wait, for a browser elsewhere
    #[arg(long)]
    no_browser: bool,
    /// Read a refresh token that was obtained elsewhere from standard input. It is renewed at once
    #[arg(long)]
    refresh_token_stdin: bool,
}

impl Connect {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let (api, out) = (context.api()?, &context.out);
        let integration = api.get(&["integrations", &self.integration]).await?;
        let name = self.connection.clone().unwrap_or_else(|| text(&integration, "name").to_owned());
        let connection = self.connection(&api, &name).await?;
        match text(&integration, "grant") {
            "authorization_code" | "device_code" | "refresh_token" if self.refresh_token_stdin => {
                return bring(&api, out, &connection, secret_from_stdin()?).await;
            }
            "refresh_token" => {
                let missing = || {
                    CliError::Usage("the refresh token is missing; pipe it in with --refresh-token-stdin".to_owned())
                };
                let token = secret_from_terminal("Refresh token: ")?.ok_or_else(missing)?;
                return bring(&api, out, &connection, token).await;
            }
            "device_code" => return tell_connected(out, &on_another_device(&api, out, &connection).await?),
            "authorization_code" => {}
            _ => return authorize_machine(&api, out, text(&connection, "id")).await,
        }
        let connected = if self.no_browser || !is_here(api.base()) {
            self.anywhere_else(&api, out, &connection).await?
        } else {
            self.in_this_browser(&api, &connection).await?
        };
        tell_connected(out, &connected)
    }

    /// The connection of this name, made if it isn't there.
    async fn connection(&self, api: &Api, name: &str) -> Result<Value> {
        let found = match api.get(&["connections", name]).await {
            Ok(found) => found,
            Err(CliError::Problem(problem)) if problem.status == 404 => {
                let body = json!({
                    "name": name,
                    "integration": self.integration,
                    "owner": self.owner,
                    "variables": object(&self.variables),
                });
                return api.post(&["connections"], &body).await;
            }
            Err(error) => return Err(error),
        };
        let owner = found["owner"].as_str();
        if self.owner.is_some() && self.owner.as_deref() != owner {
            return Err(CliError::Usage(format!(
                "the connection {name} belongs to {}; choose another name with --connection",
                owner.unwrap_or("nobody")
            )));
        }
        note(format!(
            "The connection {name} is there already; it is authorised again. For a second one: --connection NAME"
        ));
        Ok(found)
    }

    fn session(&self, connection: &Value, return_url: Option<&str>) -> Value {
        json!({
            "integration": self.integration,
            "connection": connection["id"],
            "owner": owner(connection),
            "return_url": return_url,
            "variables": object(&self.variables),
        })
    }

    /// The browser brings the one-time code back to this process, which completes in the person's name.
    async fn in_this_browser(&self, api: &Api, connection: &Value) -> Result<Value> {
        let mut back = Back::listen().await?;
        let link = self.direct_link(api, connection, &back.url).await?;
        note(format!("Say yes in the browser. If none opens, open this link:\n\n  {}\n", clean(&link)));
        open_browser(&link);
        let (query, page) = back.came_back().await?;
        let answer = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let outcome = match (answer("code"), answer("error")) {
            (Some(code), None) => {
                let path = ["connections", text(connection, "id"), "complete"];
                api.post(&path, &json!({"code": code, "owner": owner(connection)})).await
            }
            (_, error) => {
                let why = answer("error_description").or(error);
                let why = why.unwrap_or_else(|| "the browser brought no code back".to_owned());
                Err(CliError::Failed(format!("{why}\n  To begin anew, run this again.")))
            }
        };
        page.show(&outcome).await;
        outcome
    }

    /// A link that leads to the provider at once. New values for a connection that exists go by an invitation, which takes them.
    async fn direct_link(&self, api: &Api, connection: &Value, return_url: &str) -> Result<String> {
        if !self.variables.is_empty() {
            let session = api.post(&["connect-sessions"], &self.session(connection, Some(return_url))).await?;
            return Ok(text(&session, "url").to_owned());
        }
        let wish = json!({"owner": owner(connection), "return_url": return_url});
        let begun = api.post(&["connections", text(connection, "id"), "authorize"], &wish).await?;
        Ok(text(&begun, "authorize_url").to_owned())
    }

    /// The person confirms on Keyholder's page, wherever that is.
    async fn anywhere_else(&self, api: &Api, out: &Out, connection: &Value) -> Result<Value> {
        let id = text(connection, "id");
        let before = newest_event(api, id).await?;
        let link = api.post(&["connect-sessions"], &self.session(connection, None)).await?;
        note(format!(
            "Open this link, and say yes there:\n\n  {}\n",
            out.paint(&clean(text(&link, "url")), Tint::Bold)
        ));
        note("Waiting … (Ctrl-C to leave; the link goes on working)");
        let until = link["expires_at"].as_i64().unwrap_or(i64::MAX);
        let connected = wait(api, out, id, &before, until).await?;
        connected.ok_or_else(|| CliError::Failed("the link has expired; run this again for a new one".to_owned()))
    }
}

/// Looks until the connection is connected, or it came to nothing; `None`: neither by `until`.
async fn wait(api: &Api, out: &Out, id: &str, before: &str, until: i64) -> Result<Option<Value>> {
    while out.now_ms() < until {
        out.clock().sleep(LOOK_EVERY).await;
        match outcome_since(api, id, before).await? {
            None => {}
            Some(Ok(())) => return api.get(&["connections", id]).await.map(Some),
            Some(Err(why)) => return Err(CliError::Failed(why)),
        }
    }
    Ok(None)
}

/// The person types a code at the provider, wherever they are.
async fn on_another_device(api: &Api, out: &Out, connection: &Value) -> Result<Value> {
    let id = text(connection, "id");
    let before = newest_event(api, id).await?;
    let begun = api.post(&["connections", id, "authorize"], &json!({"owner": connection["owner"]})).await?;
    let device = &begun["device"];
    let code = out.paint(&clean(text(device, "user_code")), Tint::Bold);
    note(format!(
        "Open this address, on any device, and type the code there:\n\n  {}\n  {code}\n",
        clean(text(device, "verification_uri"))
    ));
    if let Some(complete) = device["verification_uri_complete"].as_str() {
        note(format!("With the code filled in: {}\n", clean(complete)));
    }
    note("Waiting … (Ctrl-C to leave; the code goes on working)");
    // The provider is asked once more at the end.
    let until = device["expires_at"].as_i64().unwrap_or(i64::MAX).saturating_add(60_000);
    let connected = wait(api, out, id, &before, until).await?;
    connected.ok_or_else(|| CliError::Failed("nobody typed the code in time; run this again for a new one".to_owned()))
}

async fn bring(api: &Api, out: &Out, connection: &Value, refresh_token: String) -> Result {
    let id = text(connection, "id");
    api.post(&["connections", id, "authorize"], &json!({"refresh_token": refresh_token})).await?;
    tell_connected(out, &api.get(&["connections", id]).await?)
}

/// The newest entry of a connection's history.
pub(crate) async fn newest_event(api: &Api, connection: &str) -> Result<String> {
    let history = api.get(&["connections", connection, "events"]).await?;
    Ok(text(&history["items"][0], "id").to_owned())
}

/// What became of a consent since `before`: connected, or why not; `None` while the person still decides.
pub(crate) async fn outcome_since(
    api: &Api,
    connection: &str,
    before: &str,
) -> Result<Option<std::result::Result<(), String>>> {
    let history = api.get(&["connections", connection, "events"]).await?;
    let new = history["items"].as_array().into_iter().flatten().take_while(|event| text(event, "id") != before);
    Ok(outcome(new))
}

fn outcome<'a>(mut newest_first: impl Iterator<Item = &'a Value>) -> Option<std::result::Result<(), String>> {
    newest_first.find_map(|event| match text(event, "kind") {
        "connected" => Some(Ok(())),
        "declined" | "refused" => Some(Err(text(event, "message").to_owned())),
        _ => None,
    })
}

/// Is the server on this machine, so that its browser can reach a loopback socket of this process?
fn is_here(server: &Url) -> bool {
    match server.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Best effort: the link was printed.
fn open_browser(url: &str) {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let started =
        Command::new(opener).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if let Ok(mut browser) = started {
        // Reaped in a thread of its own: some openers stay for as long as the browser does.
        std::thread::spawn(move || browser.wait());
    }
}

type Query = Vec<(String, String)>;

/// A loopback socket that the browser comes back to (RFC 8252 §7.3). Its path is random, so that no other page can answer.
struct Back {
    url: String,
    returns: mpsc::Receiver<(Query, Page)>,
}

/// What the person is shown.
struct Shown {
    good: bool,
    text: String,
}

/// The browser's request, which still waits for its page.
struct Page {
    show: oneshot::Sender<Shown>,
    /// Ends when the connection has.
    sent: Option<oneshot::Receiver<()>>,
}

impl Back {
    async fn listen() -> Result<Self> {
        let problem = || CliError::io("a socket for the browser to come back to");
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(problem())?;
        let address = listener.local_addr().map_err(problem())?;
        let path = format!("/{}", keyholder_oauth::random_token(Rng::System.bytes()).expose());
        let url = format!("http://{address}{path}");
        let (tell, returns) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tell, path) = (tell.clone(), path.clone());
                let (ends, sent) = oneshot::channel::<()>();
                let sent = Arc::new(Mutex::new(Some(sent)));
                let answer = service_fn(move |request| answer(request, tell.clone(), path.clone(), Arc::clone(&sent)));
                tokio::spawn(async move {
                    // A browser that goes away is its own affair.
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                    drop(ends);
                });
            }
        });
        Ok(Self { url, returns })
    }

    async fn came_back(&mut self) -> Result<(Query, Page)> {
        self.returns.recv().await.ok_or_else(|| CliError::Failed("the socket for the browser was closed".to_owned()))
    }
}

impl Page {
    /// Shows how it ended, and waits until the page has left this process.
    async fn show(self, outcome: &Result<Value>) {
        let shown = match outcome {
            Ok(_) => Shown { good: true, text: "Connected. You can close this tab.".to_owned() },
            Err(error) => Shown { good: false, text: format!("That didn't work: {error}") },
        };
        // A tab that was closed in the meantime is no failure.
        if self.show.send(shown).is_ok()
            && let Some(sent) = self.sent
        {
            let _ = sent.await;
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    tell: mpsc::Sender<(Query, Page)>,
    path: String,
    sent: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
) -> std::result::Result<Response<Full<Bytes>>, std::convert::Infallible> {
    if request.uri().path() != path {
        return Ok(page(StatusCode::NOT_FOUND, "There is nothing here."));
    }
    let query = request.uri().query().unwrap_or_default();
    let query: Query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let (show, shown) = oneshot::channel();
    let sent = sent.lock().unwrap_or_else(PoisonError::into_inner).take();
    if tell.send((query, Page { show, sent })).await.is_err() {
        return Ok(page(StatusCode::OK, "This was answered already. You can close this tab."));
    }
    Ok(match shown.await {
        Ok(Shown { good: true, text }) => page(StatusCode::OK, &text),
        Ok(Shown { good: false, text }) => page(StatusCode::BAD_REQUEST, &text),
        Err(_) => page(StatusCode::OK, "You can close this tab."),
    })
}

fn page(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('\n', "<br>");
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Keyholder</title><body style=\"font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem\"><p>{text}</p></body></html>"
    );
    let mut response = Response::new(Full::from(html));
    *response.status_mut() = status;
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
        // The page must be there before this process ends.
        (header::CONNECTION, "close"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, header::HeaderValue::from_static(value));
    }
    response
}

/// Whom the consent is for: the connection's owner, else whoever sits at this terminal.
fn owner(connection: &Value) -> &str {
    connection["owner"].as_str().unwrap_or("command line")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::api::client_for;
    use keyholder_broker::egress::Bounds;
    use keyholder_oauth::SecretBytes;

    #[test]
    fn only_this_machine_can_send_the_browser_back() {
        let here = |url: &str| is_here(&url.parse().unwrap());
        assert!(here("http://127.0.0.1:8787") && here("http://localhost:1") && here("http://[::1]:1"));
        assert!(
            !here("https://keyholder.example.com") && !here("http://10.0.0.1") && !here("http://localhost.example")
        );
    }

    #[test]
    fn the_newest_decision_counts() {
        let events = |kinds: &[&str]| -> Vec<Value> {
            kinds.iter().map(|kind| json!({"kind": kind, "message": format!("{kind}!")})).collect()
        };
        assert_eq!(outcome(events(&["renewed", "connected", "consented"]).iter()), Some(Ok(())));
        assert_eq!(outcome(events(&["refused", "connected"]).iter()), Some(Err("refused!".to_owned())));
        assert_eq!(outcome(events(&["consented", "created"]).iter()), None);
    }

    #[tokio::test]
    async fn the_browser_comes_back_once_and_sees_how_it_ended() {
        let mut back = Back::listen().await.unwrap();
        let url: Url = back.url.parse().unwrap();
        let egress = client_for(&[&url], None).unwrap();
        let visit = |url: String| {
            let egress = egress.clone();
            async move {
                let request = Request::get(url).body(SecretBytes::new(Vec::new())).unwrap();
                let fetched = egress.fetch(request, Bounds::PROVIDER).await.unwrap();
                (fetched.status, String::from_utf8(fetched.body.expose().to_vec()).unwrap())
            }
        };
        assert_eq!(visit(url.join("/favicon.ico").unwrap().to_string()).await.0, 404);
        let browser = tokio::spawn(visit(format!("{url}?connection=con_1&code=a%26b")));
        let (query, page) = back.came_back().await.unwrap();
        assert_eq!(query[1], ("code".to_owned(), "a&b".to_owned()));
        page.show(&Err(CliError::Failed("<no>".to_owned()))).await;
        let (status, shown) = browser.await.unwrap();
        assert_eq!(status, 400);
        assert!(shown.contains("That didn't work: &lt;no>"), "{shown}");
        drop(back);
        assert!(visit(url.to_string()).await.1.contains("answered already"));
    }
}
