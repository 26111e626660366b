//! Secrets are planted and everything is exercised; then every place where they must not be is searched.

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use keyholder_broker::model::Values;
use keyholder_broker::{Error, Finished, KeptReply, NewIntegration};
use keyholder_oauth::Secret;
use serde_json::json;

use crate::app::{App, alice, integration_of, token_of, values};
use crate::fake::{Arrived, Fake};
use crate::logs::Logs;

const CLIENT_SECRET: &str = "canary/client+secret-Xq71";
const PASSWORD: &str = "canary password&Xq72";
const VARIABLE: &str = "canary-variable-Xq73";
const TYPED: &str = "canary-typed-Xq74";
const ACCESS: &str = "canary-access-Xq75";
const REFRESH: &str = "canary-refresh-Xq76";
const ID_TOKEN: &str = "canary-id-Xq77";
const KEPT: &str = "canary-kept-Xq78";
/// What all of them, in every encoding, hold.
const CANARIES: [&str; 8] = ["Xq71", "Xq72", "Xq73", "Xq74", "Xq75", "Xq76", "Xq77", "Xq78"];

/// What was shown to anybody: errors, rows, structures.
#[derive(Default)]
struct Shown(String);

impl Shown {
    fn add(&mut self, thing: &impl Debug) {
        self.0.push_str(&format!("{thing:?}\n{thing:#?}\n"));
    }

    fn error(&mut self, error: &Error) {
        self.0.push_str(&format!("{error}\n"));
        self.add(error);
    }
}

fn tokens() -> serde_json::Value {
    json!({"access_token": ACCESS, "refresh_token": REFRESH, "id_token": ID_TOKEN, "expires_in": 3600, "my_secret": ACCESS})
}

/// A provider that repeats in its error all that it was sent, in full, encoded, and cut in the middle.
fn echo(request: Arrived, status: u16, error: &str) {
    let sent = String::from_utf8_lossy(&request.body).into_owned();
    let decoded: Vec<_> = url::form_urlencoded::parse(sent.as_bytes()).map(|(_, value)| value.into_owned()).collect();
    for text in [sent.clone(), decoded.join(" ")] {
        assert!(!text.is_empty());
    }
    let padding = "x".repeat(30);
    request
        .json(status, json!({"error": error, "error_description": format!("{} {padding} {sent}", decoded.join(" "))}));
}

#[tokio::test]
async fn secrets_are_nowhere_but_sealed() {
    let logs = Logs::catch();
    let mut shown = Shown::default();
    let app = App::start().await;
    let mut fake = Fake::start().await;
    app.broker.add_provider(&app.admin, "canary.toml", &definition(&app, &fake)).await.unwrap();
    let consent = integration(&app, "authorization_code", "post");
    app.add_integration(consent).await;
    app.add_integration(integration(&app, "password", "post")).await;
    shown.add(&app.broker.integration(&app.admin, "password").await.unwrap());

    // The password grant: failing with an echo, then well.
    let new = keyholder_broker::NewConnection { variables: values([("typed", TYPED)]), ..alice("erp", PASSWORD) };
    shown.add(&app.broker.add_connection(&app.admin, new).await.unwrap());
    for (status, error) in [(400, "invalid_grant"), (401, "invalid_client"), (500, "server_error")] {
        let answer = async { echo(fake.next().await, status, error) };
        let (refused, ()) = tokio::join!(app.run("erp"), answer);
        shown.error(&refused.unwrap_err());
        shown.add(&app.row("erp").await);
    }
    let answer = async {
        let request = fake.next().await;
        assert_eq!(request.member("password").as_deref(), Some(PASSWORD));
        assert_eq!(request.member("client_secret").as_deref(), Some(CLIENT_SECRET));
        assert_eq!(request.member("partner").as_deref(), Some(VARIABLE));
        request.json(200, tokens());
    };
    tokio::join!(async { app.run("erp").await.unwrap() }, answer);

    // Consent: a code that is refused with an echo of code and verifier, then well.
    app.add_connection("crm", "authorization_code").await;
    let token = app.invite("crm").await;
    let begun = app.broker.begin_consent(&token, None, &values([("typed", TYPED)])).await.unwrap();
    let back = app.decide(&begun.redirect, "allow", "alice").await;
    let answer = async {
        let request = fake.next().await;
        let spent = [request.member("code").unwrap(), request.member("code_verifier").unwrap()];
        echo(request, 400, "invalid_grant");
        spent
    };
    let (refused, spent) = tokio::join!(app.return_with(&back, &begun), answer);
    shown.error(&refused.err().unwrap());
    let begun = app.broker.begin_consent(&token, None, &values([("typed", TYPED)])).await.unwrap();
    let back = app.decide(&begun.redirect, "allow", "alice").await;
    let finish = app.broker.finish_consent(integration_of(&back), back.query().unwrap(), Some(begun.browser.expose()));
    let (finished, ()) = tokio::join!(finish, async { fake.next().await.json(200, tokens()) });
    let Finished::Confirm(link) = finished.unwrap() else { panic!("no return URL was given") };
    app.broker.decide(token_of(&link), Some(begun.browser.expose()), true).await.unwrap();
    shown.add(&app.token("crm").await.unwrap());
    shown.add(&app.row("crm").await);

    // Renewal: every kind of refusal with an echo, a crash in the middle, and a revocation that is refused.
    for (status, error) in [(400, "invalid_request"), (429, "slow_down"), (200, "temporarily_unavailable")] {
        app.advance(7200);
        let answer = async { echo(fake.next().await, status, error) };
        let (refused, ()) = tokio::join!(app.token("crm"), answer);
        shown.error(&refused.unwrap_err());
    }
    app.advance(7200);
    app.refuse("BEFORE UPDATE OF token_set ON connections");
    let caller = tokio::spawn({
        let (broker, admin) = (app.broker.clone(), app.admin.clone());
        async move { broker.token(&admin, "crm", None).await.map(drop) }
    });
    fake.next().await.json(200, tokens());
    logs.wait_for("can't be stored yet").await;
    assert_eq!(app.escrow().len(), 1);
    search_stored(&app, &spent);
    app.relent();
    app.advance(1);
    caller.await.unwrap().unwrap();
    let answer = async { echo(fake.next().await, 400, "invalid_request") };
    let (revoked, ()) = tokio::join!(app.broker.revoke(&app.admin, "crm"), answer);
    let (after, outcome) = revoked.unwrap();
    shown.add(&after);
    shown.add(&outcome);
    shown.0.push_str(&outcome.message());

    // What is wrong with a secret variable is told without it.
    let mut bad = integration(&app, "password", "post");
    bad.variables.insert("partner".to_owned(), format!("{VARIABLE} with spaces"));
    shown.error(
        &app.broker.add_integration(&app.admin, NewIntegration { name: "bad".to_owned(), ..bad }).await.err().unwrap(),
    );

    let reply = KeptReply { status: 201, content_type: "text/plain".to_owned(), body: KEPT.to_owned() };
    app.broker.begin_idempotent(&app.admin, "order", [1; 32]).await.map(drop).unwrap();
    app.broker.keep_reply(&app.admin, "order", &reply).await.unwrap();
    for name in ["crm", "erp"] {
        shown.add(&app.broker.history(&app.admin, name, 100).await.unwrap());
    }
    shown.add(&app.broker.audit_records(&app.admin, &keyholder_broker::Page::first()).await.unwrap());
    shown.add(&app.broker.doctor(&app.admin).await.unwrap());
    app.broker.finish_renewals().await;
    app.broker.finish_records().await;

    search_stored(&app, &spent);
    let log = logs.text();
    assert!(log.contains("renewal failed"), "the log was caught");
    for (place, text) in [("log", &log), ("what was shown", &shown.0)] {
        for canary in CANARIES.into_iter().chain(spent.iter().map(String::as_str)) {
            assert!(!text.contains(canary), "{canary} is in the {place}: {}", around(text, canary));
        }
        // Also the first half of a token is too much.
        for half in ["canary-acc", "canary-ref", "canary-cl", "canary pass", "canary/cl"] {
            assert!(!text.contains(half), "{half} is in the {place}: {}", around(text, half));
        }
    }
    assert!(shown.0.contains("****"), "echoes were masked, not lost");
}

/// Database, write-ahead log, escrow.
fn search_stored(app: &App, spent: &[String]) {
    search_files(app.folder.path(), spent);
    search("the database", app.database.everything().as_bytes(), spent);
}

/// Every file of a folder.
fn search_files(folder: &Path, spent: &[String]) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            search_files(&entry, spent);
            continue;
        }
        search(&entry.display().to_string(), &fs::read(&entry).unwrap(), spent);
    }
}

fn search(place: &str, bytes: &[u8], spent: &[String]) {
    for canary in CANARIES.into_iter().chain(spent.iter().map(String::as_str)) {
        let found = bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
        assert!(!found, "{canary} is in {place}");
    }
}

fn around(text: &str, word: &str) -> String {
    let at = text.find(word).unwrap_or(0);
    text.chars().skip(text[..at].chars().count().saturating_sub(200)).take(400).collect()
}

fn integration(app: &App, method: &str, auth: &str) -> NewIntegration {
    NewIntegration {
        provider: "canary".to_owned(),
        client_secret: Some(Secret::new(CLIENT_SECRET)),
        client_auth: Some(auth.parse().unwrap()),
        variables: Values::from([("partner".to_owned(), VARIABLE.to_owned())]),
        ..app.plain(method)
    }
}

/// Secret variables of both kinds, sent to the token endpoint, which is the test.
fn definition(app: &App, fake: &Fake) -> String {
    let (base, token, revoke) = (app.sandbox.base_url(), fake.url("/token"), fake.url("/revoke"));
    format!(
        r#"
schema = 1
id = "canary"
name = "Canary"
[[methods]]
grant = "authorization_code"
label = "A person consents"
[[methods]]
grant = "password"
label = "A password"
[variables.partner]
label = "Partner key"
secret = true
pattern = "[A-Za-z0-9-]+"
[variables.typed]
label = "Tenant key"
asked_of = "connection"
secret = true
[authorize]
url = "{base}/authorize"
[token]
url = "{token}"
params = {{ partner = "{{{{partner}}}}", tenant_key = "{{{{typed}}}}" }}
[refresh]
recovery = "static"
params = {{ partner = "{{{{partner}}}}", tenant_key = "{{{{typed}}}}" }}
[revoke]
url = "{revoke}"
"#
    )
}
