//! A connection's page: what happens shows without a reload; consent, renewal, its end; and who else may hear it.

use http_body_util::BodyExt;
use serde_json::json;

use crate::app::{App, Caller, full};
use crate::browser::Browser;
use crate::process::Server;

use super::{owner, sound};

fn page(app: &App, name: &str) -> String {
    format!("{}/console/connections/{name}", app.url)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_does_shows_without_a_reload() {
    let app = App::start().await;
    app.machine("crm").await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        assert_eq!(browser.goto(&page(&app, "crm")), 200);
        browser.see("connected");
        browser.see("● live");
        sound(&browser);
        browser.eval("window.stays = 1");
    });
    app.admin().post("/v1/connections/crm/refresh", json!({})).await.ok(200);
    tokio::task::block_in_place(|| {
        browser.see("The access token was renewed.");
        assert_eq!(browser.eval("window.stays"), json!(1));
    });
    app.fault("error:invalid_client");
    app.admin().post("/v1/connections/crm/refresh", json!({})).await;
    tokio::task::block_in_place(|| {
        browser.see("What to do:");
        assert_eq!(browser.text_of(".head .pill"), "failing");
        assert_eq!(browser.eval("window.stays"), json!(1));
        sound(&browser);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_renewed_compared_ended_and_removed() {
    let app = App::start().await;
    app.consented("crm").await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&page(&app, "crm"));
        browser.click("button", "Refresh now");
        browser.see("it is number 2 of this connection");

        let other = "http%3A%2F%2Flocalhost%2FCallback";
        browser.goto(&format!("{}/redirect?registered={other}", page(&app, "crm")));
        browser.see("They differ");
        browser.see("The host differs");
        assert_eq!(browser.text_of("dd mark >> nth=0"), "1");
        sound(&browser);

        browser.goto(&page(&app, "crm"));
        browser.click("link", "Disconnect…");
        browser.see("Disconnect crm?");
        browser.see(&format!("the provider is told at {}/revoke", app.sandbox.base_url()));
        browser.click_selector("dialog button.sure");
        browser.see("The provider confirmed that the grant is revoked.");
        assert_eq!(browser.text_of(".head .pill"), "revoked");
        assert!(browser.text_of(".timeline").contains("The provider confirmed"));
        browser.click("link", "Remove…");
        browser.see("This can't be undone.");
        browser.see("It holds no tokens");
        browser.click_selector("dialog button.sure");
        browser.see("The connection is gone.");
    });
    assert_eq!(app.admin().get("/v1/connections/crm").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_page_has_its_advice_its_users_and_what_a_provider_without_revocation_is_not_told() {
    let app = App::start().await;
    let mut integration = app.integration_body("shared", "password");
    integration["variables"].as_object_mut().unwrap().remove("revocation_url");
    app.admin().post("/v1/integrations", integration).await.ok(201);
    let connection = json!({"name": "crm", "integration": "shared", "username": "alice", "password": "wonderland"});
    app.admin().post("/v1/connections", connection).await.ok(201);
    app.admin().post("/v1/connections/crm/authorize", json!({})).await.ok(200);
    app.admin().get("/v1/connections/crm/token").await.ok(200);
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&page(&app, "crm"));
        let advice = browser.text_of("section[aria-labelledby=advice]");
        assert!(advice.contains("user names and passwords") && advice.contains("RFC 9700 §2.4"), "{advice}");
        let users = browser.text_of("section[aria-labelledby=users]");
        assert!(users.contains("admin"), "{users}");
        sound(&browser);
        browser.goto(&format!("{}/disconnect", page(&app, "crm")));
        browser.see("No revocation endpoint of the provider is known");
        sound(&browser);
        browser.click("button", "Disconnect");
        browser.see("The provider offers no revocation");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_is_given_in_a_tab_of_its_own_and_the_console_hears_of_it() {
    let app = App::start().await;
    app.draft("crm", "authorization_code").await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&page(&app, "crm"));
        browser.click("link", "Connect");
        browser.see("A person consents at");
        sound(&browser);
        browser.click("button", "Make the link");
        browser.see("That's me: consent here, in a new tab");
        sound(&browser);
        let link = browser.attribute("#here", "href").unwrap();
        let person = browser.second_person();
        person.goto(&link);
        person.click("button", "Yes, connect it");
        browser.see("Connected.");
        assert!(browser.count("#here") == 1, "the link's card stays as it was");
        browser.click("link", "Go on to crm");
        browser.see("connected");
    });
    assert_eq!(app.state("crm").await, "connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_hears_what_happens_until_the_server_stops() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::start().await;
    let server = tokio::task::block_in_place(|| Server::start(folder.path(), "error"));
    let key = std::fs::read_to_string(folder.path().join("admin-key")).unwrap();
    let admin = Caller::of(&server.url, Some(key.trim().to_owned()));
    let variables = json!({"token_url": format!("{}/token", app.sandbox.base_url())});
    let integration = json!({"name": "i", "provider": "oauth2", "method": "client_credentials",
        "client_id": "sandbox-basic", "client_secret": "sandbox-secret", "variables": variables});
    admin.post("/v1/integrations", integration).await.ok(201);
    admin.post("/v1/connections", json!({"name": "crm", "integration": "i"})).await.ok(201);
    let stream = admin.open(http::Method::GET, "/v1/events?connection=crm", &[], full("")).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut body = stream.into_body();
    admin.post("/v1/connections/crm/authorize", json!({})).await.ok(200);
    let mut heard = String::new();
    while !heard.contains("event: happened") {
        let part = body.frame().await.expect("it goes on").unwrap().into_data().unwrap();
        heard.push_str(std::str::from_utf8(&part).unwrap());
    }
    assert!(heard.contains("\"kind\":\"connected\"") && heard.contains("retry: 3000"), "{heard}");
    server.signal();
    let rest = body.collect().await.map(|rest| rest.to_bytes());
    assert!(rest.is_ok(), "the stream ends in order: {rest:?}");
    tokio::task::block_in_place(|| server.ended());
}
