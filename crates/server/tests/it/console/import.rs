//! Settings of other programs.

use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::{no_errors, owner, sound};
use crate::app::App;
use crate::browser::Browser;

fn collection(app: &App, secret: Option<&str>) -> String {
    let member = |key: &str, value: Value| json!({"key": key, "value": value, "type": "string"});
    let base = app.sandbox.base_url();
    let mut settings = vec![
        member("grant_type", json!("client_credentials")),
        member("accessTokenUrl", json!(format!("{base}/token"))),
        member("clientId", json!("sandbox-basic")),
        member("scope", json!("read")),
        member("client_authentication", json!("header")),
    ];
    settings.extend(secret.map(|secret| member("clientSecret", json!(secret))));
    json!({
        "info": {"name": "crm", "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"},
        "auth": {"type": "oauth2", "oauth2": settings},
        "item": [{"name": "me", "request": {"method": "GET", "url": format!("{base}/api/me")}}],
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postman_file_becomes_a_connection_and_what_it_lacks_is_asked_for() {
    let app = App::start().await;
    let browser = Browser::start();
    let here = format!("{}/console/import", app.url);
    block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&here);
        sound(&browser);
        browser.fill("Its text (required)", "{}");
        browser.click("button", "Bring it in");
        browser.see("One thing is to be mended");
        browser.fill("Its text (required)", &collection(&app, Some("sandbox-secret")));
        browser.click("button", "Only look");
        browser.see("sandbox-basic");
        assert!(!browser.html().contains("sandbox-secret"), "a secret of the file came back");
        sound(&browser);
        browser.fill("Its text (required)", &collection(&app, None));
        browser.click("button", "Bring it in");
        browser.see("Client secret");
        let client = browser.eval("document.querySelector('#f-client_id').value");
        assert_eq!(client, "sandbox-basic");
        browser.see("to be mended");
        browser.fill("Client secret (required)", "sandbox-secret");
        browser.click("button", "Save and connect");
        browser.wait_url("/console/connections/con_");
        no_errors(&browser);
    });
    assert_eq!(app.state("crm").await, "connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_whole_needs_no_form() {
    let app = App::start().await;
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/import", app.url));
        browser.fill("Its text (required)", &collection(&app, Some("sandbox-secret")));
        browser.click("button", "Bring it in");
        browser.wait_url("/console/connections/con_");
        browser.see("“crm” is connected.");
        assert!(!browser.html().contains("sandbox-secret"), "a secret of the file came back");
        sound(&browser);
        browser.click("button", "Run the test");
        browser.see("All steps held.");
    });
    assert_eq!(app.state("crm").await, "connected");
}
