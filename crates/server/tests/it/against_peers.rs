//! Keyholder against authorization servers that we did not write (`tests/peers`), and in a real browser.
//!
//! What a peer was asked is counted in the peer's own log. Helpers that block (peers, browser) are used from tests whose runtime has more
//! than one thread.

mod command_line;
mod consent;
mod discovery;
mod gateway;
mod machine;
mod nanoidp;
mod pages;
mod renewal;
mod revocation;
mod setup;

use std::time::Duration;

use http::Method;
use keyholder_broker::clock::ManualClock;
use serde_json::{Value, json};
use url::Url;

use crate::app::{App, Caller, Reply, full};
use crate::peers::{NanoIdp, OidcProvider};
use crate::person::{Page, Person};

/// What an integration of the peer under the built-in provider `oidc` is made of.
fn oidc(peer: &OidcProvider, name: &str, method: &str, client_id: &str) -> Value {
    json!({
        "name": name,
        "provider": "oidc",
        "method": method,
        "client_id": client_id,
        "client_secret": OidcProvider::SECRET,
        "scopes": if method == "client_credentials" { ["read"] } else { ["openid"] },
        "variables": {"issuer": peer.issuer, "api_base_url": peer.resource},
    })
}

/// Adds an integration and a draft connection of the same name.
async fn draft(app: &App, integration: Value) -> Value {
    let name = integration["name"].clone();
    app.admin().post("/v1/integrations", integration).await.ok(201);
    app.admin().post("/v1/connections", json!({"name": name, "integration": name})).await.ok(201)
}

/// A connected machine connection of this name, by the client `c-basic`.
async fn machine(app: &App, peer: &OidcProvider, name: &str) {
    draft(app, oidc(peer, name, "client_credentials", "c-basic")).await;
    authorize(app, name).await.ok(200);
}

/// A connection of this name to which alice has consented, by the client `c-basic`; no browser needed.
async fn consented(app: &App, peer: &OidcProvider, name: &str) -> Value {
    draft(app, oidc(peer, name, "authorization_code", "c-basic")).await;
    consent(app, name).await
}

/// Alice consents on the peer's automatic pages and confirms on Keyholder's.
async fn consent(app: &App, name: &str) -> Value {
    let person = app.person();
    let link = authorize(app, name).await.ok(200)["authorize_url"].clone();
    let page = follow(&person, person.get(link.as_str().unwrap()).await).await;
    assert!(page.text().contains("Is this your account?"), "{} {}", page.url, page.text());
    assert!(page.text().contains("alice"), "{}", page.text());
    let done = person.post(&page.url, &[("decision", "yes")]).await;
    assert_eq!(done.status, 200, "{}", done.text());
    shown(app, name).await
}

/// Follows redirects, relative ones too.
async fn follow(person: &Person, page: Page) -> Page {
    follow_to(person, page, "nowhere").await
}

/// Follows redirects until one leads to an address that contains `stop`; that page is the one that redirects there.
async fn follow_to(person: &Person, mut page: Page, stop: &str) -> Page {
    for _ in 0..15 {
        match next(&page) {
            Some(next) if !next.as_str().contains(stop) => page = person.get(next.as_str()).await,
            _ => return page,
        }
    }
    panic!("too many redirects; the last: {page:?}")
}

/// Where a page redirects to.
fn next(page: &Page) -> Option<Url> {
    let location = page.reply.header("location").filter(|_| (300..400).contains(&page.status))?;
    Some(Url::parse(&page.url).unwrap().join(location).unwrap())
}

async fn authorize(app: &App, name: &str) -> Reply {
    app.admin().post(&format!("/v1/connections/{name}/authorize"), json!({})).await
}

async fn shown(app: &App, name: &str) -> Value {
    app.admin().get(&format!("/v1/connections/{name}")).await.ok(200)
}

async fn refresh(app: &App, name: &str) -> Reply {
    app.admin().post(&format!("/v1/connections/{name}/refresh"), json!({})).await
}

/// The token reply; `query` such as `?min_ttl=5`.
async fn token(app: &App, name: &str, query: &str) -> Reply {
    app.admin().get(&format!("/v1/connections/{name}/token{query}")).await
}

/// An access token.
async fn access_token(app: &App, name: &str) -> String {
    token(app, name, "?min_ttl=0").await.ok(200)["access_token"].as_str().unwrap().to_owned()
}

/// A gateway call.
async fn call(app: &App, method: Method, name: &str, path: &str, body: &'static str) -> Reply {
    app.admin().send(method, &format!("/v1/connections/{name}/proxy{path}"), &[], full(body)).await
}

/// What the peer's API says to this token, without Keyholder between.
async fn direct(peer: &OidcProvider, token: &str) -> Reply {
    let api = Caller::of(&peer.resource, Some(token.to_owned()));
    api.get("/direct").await
}

/// Whether the peer still knows the token, by its introspection endpoint.
async fn is_active(peer: &OidcProvider, token: &str) -> bool {
    let (rs, form) = ([("authorization", basic("rs"))], format!("token={token}"));
    let headers: Vec<_> = rs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let reply = form_post(&peer.issuer, "/token/introspection", &headers, form).await;
    reply.ok_json()["active"].as_bool().unwrap()
}

/// Revokes a token at the peer, behind Keyholder's back.
async fn revoke_there(peer: &OidcProvider, token: &str) {
    let authorization = basic("c-basic");
    let headers = [("authorization", authorization.as_str())];
    let reply = form_post(&peer.issuer, "/token/revocation", &headers, format!("token={token}")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(!is_active(peer, token).await);
}

async fn form_post(base: &str, path: &str, headers: &[(&str, &str)], form: String) -> Reply {
    let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
    all.extend(headers);
    Caller::of(base, None).send(Method::POST, path, &all, full(form)).await
}

fn basic(client: &str) -> String {
    use base64::Engine;
    let pair = format!("{client}:{}", OidcProvider::SECRET);
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

impl Reply {
    /// The JSON of somebody else's 200, whatever its content type says.
    #[track_caller]
    fn ok_json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }
}

/// Waits until the server shows the connection in a certain way.
async fn until(app: &App, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let looking = async {
        loop {
            let connection = shown(app, name).await;
            if holds(&connection) {
                return connection;
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(30), looking).await {
        Ok(connection) => connection,
        Err(_) => {
            let history = app.admin().get(&format!("/v1/connections/{name}/events")).await.ok(200);
            panic!("{name} never was {what}: {}\nits history: {history}", shown(app, name).await)
        }
    }
}

/// Whether a connection is in this state; the clock goes on between the looks, beyond the claim of a request that may still be under way.
fn in_time(clock: &ManualClock, state: &'static str) -> impl Fn(&Value) -> bool {
    clock.advance(Duration::from_secs(61));
    move |it| {
        clock.advance(Duration::from_millis(100));
        it["state"] == state
    }
}

/// How often the peer's API was asked for this path.
fn calls(peer: &OidcProvider, path: &str) -> Vec<u64> {
    let log = peer.log();
    let of_api = log.iter().filter(|entry| entry["server"] == "resource" && entry["path"] == path);
    of_api.map(|entry| entry["status"].as_u64().unwrap()).collect()
}

/// How often an endpoint of the issuer was asked, whatever it answered.
fn asked(peer: &OidcProvider, path: &str) -> usize {
    peer.log().iter().filter(|entry| entry["server"] == "issuer" && entry["path"] == path).count()
}
