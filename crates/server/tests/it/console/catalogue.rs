//! The catalogue, and definitions of one's own.

use serde_json::json;
use tokio::task::block_in_place;

use super::{no_errors, owner, sound};
use crate::app::App;
use crate::browser::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_found_and_each_form_can_be_shown() {
    let app = App::start().await;
    let browser = Browser::start();
    let providers = app.admin().get("/v1/providers?limit=200").await.ok(200);
    block_in_place(|| {
        owner(&app, &browser);
        browser.traffic();
        assert_eq!(browser.goto(&format!("{}/console/providers", app.url)), 200);
        let (hosts, bytes) = browser.traffic();
        assert_eq!((hosts.len(), bytes < 100_000), (1, true), "{hosts:?} {bytes}");
        sound(&browser);
        let all = browser.count("#providers li");
        browser.fill("Search providers", "github");
        browser.see("found");
        assert!(all > 250 && browser.count("#providers li:not([hidden])") < 10);
        no_errors(&browser);
        let ids = providers["items"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap());
        let ids: Vec<&str> = ids.collect();
        let script = format!(
            "(async () => {{ const bad = []; for (const id of {}) {{
                const page = await new Promise((done) => {{ const ask = new XMLHttpRequest(); ask.open('GET', `/console/connections/new/${{id}}`);
                    ask.responseType = 'document'; ask.onload = () => done(ask); ask.send(); }});
                const ids = [...page.response?.querySelectorAll('[id]') ?? []].map((it) => it.id);
                const twice = ids.filter((it, at) => ids.indexOf(it) !== at);
                if (page.status !== 200 || !ids.includes('f-name') || twice.length) bad.push([id, page.status, twice]);
            }} return bad; }})()",
            json!(ids)
        );
        assert_eq!(browser.eval(&script), json!([]), "forms that can't be shown, or have an id twice");
        browser.goto(&format!("{}/console/providers/github", app.url));
        sound(&browser);
        no_errors(&browser);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discovery_document_becomes_a_definition_and_a_form() {
    let app = App::start().await;
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/providers/discover", app.url));
        browser.fill("Address (required)", "no address");
        browser.click("button", "Look there");
        browser.see("it is no URL");
        sound(&browser);
        browser.fill("Address (required)", app.sandbox.base_url());
        browser.click("button", "Look there");
        browser.see("A definition of your own");
        sound(&browser);
        let text = browser.eval("document.querySelector('#f-definition').value").as_str().unwrap().to_owned();
        browser.fill("Definition (required)", "schema = 1\nid = 7");
        browser.click("button", "Save and set up");
        browser.see("Line 2");
        browser.fill("Definition (required)", &text);
        browser.click("button", "Save and set up");
        browser.wait_url("id=int_");
        browser.see("is saved.");
        browser.click_selector("input[name=method][value=client_credentials]");
        browser.fill("Name (required)", "crm");
        browser.fill("Client ID (required)", "sandbox-basic");
        browser.fill("Client secret (required)", "sandbox-secret");
        browser.click("button", "Save and connect");
        browser.wait_url("/console/connections/con_");
        no_errors(&browser);
    });
    assert_eq!(app.state("crm").await, "connected");
}
