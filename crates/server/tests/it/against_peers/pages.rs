//! Consent as a person sees it: real pages, a real browser. `KEYHOLDER_SCREENSHOTS=folder` keeps pictures of Keyholder's own pages.

use std::path::Path;

use super::*;
use crate::browser::{Browser, Look};

/// The server, the peer with real pages, and alice's browser. People know a provider of a generic definition by its host.
async fn stage() -> (App, OidcProvider, Browser) {
    let peer = OidcProvider::start(&[("AT_TTL", "60"), ("ALWAYS_RT", "1"), ("INTERACTIVE", "1")]);
    (App::start().await, peer, Browser::start())
}

async fn stage_on_a_clock() -> ((App, ManualClock), OidcProvider, Browser) {
    let peer = OidcProvider::start(&[("AT_TTL", "600"), ("ALWAYS_RT", "1"), ("INTERACTIVE", "1")]);
    (App::on_a_clock().await, peer, Browser::start())
}

/// An invitation to connect under the integration `name`, and the connection it makes.
async fn invitation(app: &App, name: &str) -> (String, String) {
    let session = app.admin().post("/v1/connect-sessions", json!({"integration": name})).await.ok(201);
    (text(&session["url"]), text(&session["connection"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn sign_in(browser: &Browser, (user, password): (&str, &str)) {
    browser.fill("Username", user);
    browser.fill("Password", password);
    browser.click("button", "Sign in");
    browser.see("asks for access to the account of");
}

/// What the browser complained about. That a page's status is an error, which Chromium reports too, is what some tests are about.
fn complaints(browser: &Browser) -> Vec<String> {
    let mut all = browser.console_errors();
    all.retain(|one| !one.starts_with("Failed to load resource: the server responded with a status of"));
    all
}

/// Pictures of the page as it stands, in each look, when they are asked for.
fn picture(browser: &Browser, name: &str) {
    let Some(folder) = keyholder::config::environment("KEYHOLDER_SCREENSHOTS") else { return };
    let phone = Look { width: 390, height: 844, ..Look::default() };
    let dark = Look { dark: true, ..Look::default() };
    for (look, which) in [(phone, "phone"), (dark, "dark"), (Look::default(), "light")] {
        browser.screenshot(&Path::new(&folder).join(format!("{name}-{which}.png")), look);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alice_connects_her_account() {
    let (app, peer, browser) = stage().await;
    let mut integration = oidc(&peer, "Reports", "authorization_code", "c-basic");
    integration["scopes"] = json!(["openid", "email", "read"]);
    app.admin().post("/v1/integrations", integration).await.ok(201);
    let (link, connection) = invitation(&app, "Reports").await;

    assert_eq!(browser.goto(&link), 200);
    browser.see("Connect your 127.0.0.1 account");
    picture(&browser, "invitation");
    browser.click("button", "Continue to 127.0.0.1");
    sign_in(&browser, OidcProvider::ALICE);
    assert_eq!(shown(&app, &connection).await["state"], "pending");
    browser.click("button", "Continue");
    browser.see("Is this your account?");
    assert!(browser.text_of(".account").contains("alice"), "{}", browser.text());
    assert!(!browser.url().contains("code="), "the code does not stay in the history: {}", browser.url());
    picture(&browser, "confirm");
    assert_eq!(shown(&app, &connection).await["state"], "pending", "not before the yes");
    token(&app, &connection, "").await.problem(409, "not_connected");

    browser.click("button", "Yes, connect it");
    browser.see("is connected. You can close this page.");
    picture(&browser, "connected");
    let connected = shown(&app, &connection).await;
    assert_eq!((&connected["state"], &connected["color"]), (&json!("connected"), &json!("green")));
    assert!(connected["account"].as_str().unwrap().starts_with("alice"), "{connected}");
    assert_eq!(call(&app, Method::GET, &connection, "/me", "").await.ok_json()["sub"], "alice");
    assert_eq!(browser.console_errors(), [""; 0]);
    assert_eq!(peer.token_requests("authorization_code"), 1);
    let cookies = browser.cookies();
    let own = cookies.iter().find(|cookie| cookie["name"] == "keyholder-browser").expect("the binding cookie");
    assert_eq!((&own["httpOnly"], &own["sameSite"]), (&json!(true), &json!("Lax")));

    assert_eq!(browser.goto(&link), 410, "an invitation is used once");
    picture(&browser, "used");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_at_the_provider_leads_to_a_page_that_says_so() {
    let (app, peer, browser) = stage().await;
    app.admin().post("/v1/integrations", oidc(&peer, "Reports", "authorization_code", "c-basic")).await.ok(201);
    let (link, connection) = invitation(&app, "Reports").await;
    browser.goto(&link);
    browser.click("button", "Continue to 127.0.0.1");
    sign_in(&browser, OidcProvider::ALICE);
    browser.click("button", "Cancel");

    let callback = browser.wait_url("/callback/");
    browser.see("user said no");
    let page = browser.text();
    assert!(page.contains("open the link again"), "the remedy: {page}");
    picture(&browser, "cancelled");
    let connection = shown(&app, &connection).await;
    assert_eq!((&connection["state"], &connection["failure"]["code"]), (&json!("draft"), &json!("access_denied")));
    assert!(connection["reason"].as_str().unwrap().contains("user said no"), "{connection}");
    assert_eq!(asked(&peer, "/token"), 0);

    assert_eq!(browser.goto(&callback), 410, "reloading is no second chance");
    browser.see("reloading this page");
    picture(&browser, "reloaded");
    assert_eq!(complaints(&browser), [""; 0]);

    // The same link leads there again: nothing was used up.
    browser.goto(&link);
    browser.click("button", "Continue to 127.0.0.1");
    browser.click("button", "Continue");
    browser.click("button", "Yes, connect it");
    browser.see("is connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_after_consent_is_met_by_an_explanation() {
    let (app, peer, browser) = stage().await;
    app.admin().post("/v1/integrations", oidc(&peer, "Reports", "authorization_code", "c-basic")).await.ok(201);
    let (link, connection) = invitation(&app, "Reports").await;
    browser.goto(&link);
    browser.click("button", "Continue to 127.0.0.1");
    sign_in(&browser, OidcProvider::ALICE);
    browser.click("button", "Continue");
    browser.click("button", "Yes, connect it");
    browser.see("is connected");
    let confirmed = browser.url();
    assert_eq!(browser.goto(&confirmed), 410, "the confirmation was given");
    browser.see("already used");
    assert_eq!(shown(&app, &connection).await["state"], "connected", "and stays given");
    // The same by the button: nothing of a consent is kept in the browser's cache.
    browser.goto(&link);
    browser.see("already used");
    browser.eval("history.back()");
    browser.wait_url(&confirmed);
    browser.see("already used");
    assert_eq!(shown(&app, &connection).await["state"], "connected");
    assert_eq!(complaints(&browser), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_person_knows_is_asked_for() {
    let (app, peer, browser) = stage().await;
    let asks = machine::WITH_RESOURCE
        .replace("[discover]", ASKED_OF_THE_PERSON)
        .replace("resource = \"{{audience}}\", prompt", "login_hint = \"{{user}}\", prompt");
    app.admin().post("/v1/providers", json!({"definition": asks})).await.ok(201);
    let mut integration = oidc(&peer, "Reports", "authorization_code", "c-basic");
    integration["provider"] = "with-resource".into();
    app.admin().post("/v1/integrations", integration).await.ok(201);
    let (link, connection) = invitation(&app, "Reports").await;

    browser.goto(&link);
    browser.fill("User name", "Alice Smith");
    picture(&browser, "asked");
    browser.click("button", "Continue to Resource Indicators");
    browser.see("does not match");
    assert_eq!(browser.attribute("input[name=user]", "aria-invalid").as_deref(), Some("true"));
    assert_eq!(browser.eval("document.querySelector('input[name=user]').value"), "Alice Smith", "what was typed stays");
    picture(&browser, "asked-again");
    assert_eq!(asked(&peer, "/auth"), 0);

    browser.fill("User name", "alice");
    browser.click("button", "Continue to Resource Indicators");
    browser.see("Sign in to go on to");
    assert_eq!(browser.eval("document.querySelector('#username').value"), "alice", "the value arrived");
    sign_in(&browser, OidcProvider::ALICE);
    browser.click("button", "Continue");
    browser.click("button", "Yes, connect it");
    browser.see("is connected");
    assert_eq!(shown(&app, &connection).await["variables"], json!({"user": "alice"}));
    assert_eq!(complaints(&browser), [""; 0]);
}

const ASKED_OF_THE_PERSON: &str = r#"
[variables.user]
label = "User name"
help = "Your name there, in small letters."
pattern = "[a-z]+"
asked_of = "connection"

[discover]"#;

/// The attack: mallory begins, and sends alice the provider's own page with mallory's state.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_person_began_another_can_not_finish() {
    let (app, peer, browser) = stage().await;
    draft(&app, oidc(&peer, "mallorys", "authorization_code", "c-basic")).await;
    let mallory = app.person();
    let link = text(&authorize(&app, "mallorys").await.ok(200)["authorize_url"]);
    let at_provider = next(&mallory.get(&link).await).unwrap();

    browser.goto(at_provider.as_str());
    sign_in(&browser, OidcProvider::ALICE);
    browser.click("button", "Continue");
    browser.see("another browser");
    picture(&browser, "another-browser");
    assert!(browser.wait_url("/callback/").contains("code="));
    assert_eq!(asked(&peer, "/token"), 0, "alice's code is not exchanged");
    assert_eq!(shown(&app, "mallorys").await["state"], "draft");
    // Nor can mallory use what alice's browser was refused.
    assert_eq!(mallory.get(&browser.url()).await.status, 410);
    assert_eq!(complaints(&browser), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_opened_by_somebody_else_stays_the_first_persons() {
    let (app, peer, browser) = stage().await;
    app.admin().post("/v1/integrations", oidc(&peer, "Reports", "authorization_code", "c-basic")).await.ok(201);
    let (link, connection) = invitation(&app, "Reports").await;
    browser.goto(&link);
    browser.click("button", "Continue to 127.0.0.1");
    sign_in(&browser, OidcProvider::ALICE);
    browser.click("button", "Continue");
    browser.see("Is this your account?");

    let stranger = browser.second_person();
    stranger.goto(&browser.url());
    if stranger.count("button") > 0 {
        stranger.click("button", "Yes, connect it");
    }
    stranger.see("another browser");
    assert_eq!(shown(&app, &connection).await["state"], "pending");

    browser.click("button", "Yes, connect it");
    browser.see("is connected");
    assert_eq!(shown(&app, &connection).await["state"], "connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_returns_to_the_application() {
    let (app, peer, browser) = stage().await;
    app.admin().post("/v1/integrations", oidc(&peer, "Reports", "authorization_code", "c-basic")).await.ok(201);
    // Somewhere that answers: a page of another application would stand there.
    let return_url = format!("{}/healthz?from=app", app.url);
    let wish = json!({"integration": "Reports", "owner": "user-7", "return_url": return_url});
    let session = app.admin().post("/v1/connect-sessions", wish).await.ok(201);
    browser.goto(session["url"].as_str().unwrap());
    browser.click("button", "Continue to 127.0.0.1");
    sign_in(&browser, OidcProvider::ALICE);
    browser.click("button", "Continue");

    let returned = Url::parse(&browser.wait_url("/healthz?from=app")).unwrap();
    let code = returned.query_pairs().find(|(key, _)| key == "code").unwrap().1.into_owned();
    let path = format!("/v1/connections/{}/complete", session["connection"].as_str().unwrap());
    let done = app.admin().post(&path, json!({"code": code, "owner": "user-7"})).await.ok(200);
    assert_eq!((&done["state"], &done["owner"]), (&json!("connected"), &json!("user-7")));
    app.admin().post(&path, json!({"code": code, "owner": "user-7"})).await.problem(410, "gone");
    assert_eq!(complaints(&browser), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn consenting_again_mends_the_connection_in_place() {
    let ((app, clock), peer, browser) = stage_on_a_clock().await;
    app.admin().post("/v1/integrations", oidc(&peer, "Reports", "authorization_code", "c-basic")).await.ok(201);
    let (link, connection) = invitation(&app, "Reports").await;
    browser.goto(&link);
    browser.click("button", "Continue to 127.0.0.1");
    sign_in(&browser, OidcProvider::ALICE);
    browser.click("button", "Continue");
    browser.click("button", "Yes, connect it");
    browser.see("is connected");

    // The reply to a refresh is lost, the next try counts as theft.
    peer.fault(json!({"path": "/token", "drop": true, "after": true}));
    refresh(&app, &connection).await.problem(503, "provider_unavailable");
    let dead = until(&app, &connection, "dead", in_time(&clock, "reconnect")).await;

    let begun = authorize(&app, &connection).await.ok(200);
    assert_eq!((&begun["connection"], &begun["state"]), (&dead["id"], &json!("reconnect")));
    browser.goto(begun["authorize_url"].as_str().unwrap());
    // The peer still knows who she is.
    browser.click("button", "Continue");
    browser.see("Is this your account?");
    browser.click("button", "Yes, connect it");
    browser.see("is connected");
    let mended = shown(&app, &connection).await;
    assert_eq!((&mended["id"], &mended["name"], &mended["state"]), (&dead["id"], &dead["name"], &json!("connected")));
    assert_eq!(call(&app, Method::GET, &connection, "/me", "").await.ok_json()["sub"], "alice");
    assert_eq!(browser.console_errors(), [""; 0]);
}
