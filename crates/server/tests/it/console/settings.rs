//! Advice and settings.

use serde_json::json;

use super::{no_errors, owner, sound};
use crate::app::App;
use crate::browser::Browser;

/// A red dot.
pub const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg==";

#[tokio::test(flavor = "multi_thread")]
async fn advice_leads_to_where_it_is_mended_and_is_put_aside() {
    let app = App::start().await;
    app.draft("people", "password").await;
    let key = app.admin().post("/v1/keys", json!({"name": "everything", "scopes": ["token"]})).await.ok(201);
    let of_key = format!("#key_unlimited-{}", key["id"].as_str().unwrap());
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/advice", app.url));
        browser.see("It signs in with people's user names and passwords.");
        browser.see("This key reaches every connection, and never expires.");
        sound(&browser);
        browser.click_selector(&format!("{of_key} a"));
        browser.wait_url("/console/callers/new");
        browser.goto(&format!("{}/console/advice", app.url));
        browser.click_selector(&format!("{of_key} button"));
        browser.see("It is put aside for three months.");
        assert!(!browser.text().contains("reaches every connection"));
        no_errors(&browser);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_changed_and_said_back() {
    let app = App::start().await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/settings", app.url));
        browser.see("It is the live one");
        sound(&browser);
        browser.fill("Name", "Acme");
        browser.fill("Colour", "blue");
        browser.fill("Logo", "PHN2Zy8+");
        browser.click("button", "Save");
        browser.see("It isn't a colour");
        browser.see("SVG isn't taken");
        sound(&browser);
        browser.fill("Colour", "#ffee00");
        browser.fill("Logo", &format!("data:image/png;base64,{PNG}"));
        browser.click("button", "Save");
        browser.see("The pages look so from now on.");
        assert_eq!(browser.count("img[src^='data:image/png']"), 1);
        assert_eq!(browser.eval("document.querySelector('#f-brand_name').value"), json!("Acme"));
        sound(&browser);
        browser.click("button", "Seal everything with a new data key");
        browser.see("There is a new data key");
        browser.see("Data key 2 seals.");
        no_errors(&browser);
    });
}
