//! Keys: made, shown once, revoked.

use serde_json::json;

use super::{no_errors, owner, sound};
use crate::app::App;
use crate::browser::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_once_works_and_is_revoked() {
    let app = App::start().await;
    app.machine("crm").await;
    let browser = Browser::start();
    let key = tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/callers", app.url));
        sound(&browser);
        browser.click("link", "Make a key");
        sound(&browser);
        // Nothing chosen: said where it is missing.
        browser.click_selector("input[value=call]");
        browser.fill("Name (required)", "nightly job");
        browser.fill("Only these methods", "get");
        browser.fill("Only below these paths", "contacts");
        browser.click("button", "Make the key");
        browser.see("to be mended");
        sound(&browser);
        browser.click_selector("input[value=token]");
        browser.fill("Only below these paths", "");
        browser.fill("Only these connections", "crm");
        browser.click("button", "Make the key");
        browser.see("it isn't shown again");
        sound(&browser);
        let key = browser.eval("document.querySelector('#f-key').value").as_str().unwrap().to_owned();
        browser.click("link", "I have it");
        browser.see("nightly job");
        assert!(!browser.html().contains(&key));
        key
    });
    let mut caller = app.anonymous();
    caller.key = Some(key);
    caller.get("/v1/connections/crm/token").await.ok(200);
    let keys = app.admin().get("/v1/keys").await.ok(200);
    let made = keys["items"].as_array().unwrap().iter().find(|it| it["name"] == "nightly job").unwrap().clone();
    assert_eq!((&made["scopes"], &made["limits"]["methods"]), (&json!(["token"]), &json!(["GET"])));
    let days = (made["expires_at"].as_i64().unwrap() - made["created_at"].as_i64().unwrap()) / 86_400_000;
    assert!((89..=90).contains(&days), "{made}");
    tokio::task::block_in_place(|| {
        browser.goto(&format!("{}/console/callers", app.url));
        sound(&browser);
        browser.goto(&format!("{}/console/callers/{}/revoke", app.url, made["id"].as_str().unwrap()));
        browser.see("It was last used");
        sound(&browser);
        browser.click("button", "Revoke it");
        browser.see("“nightly job” is revoked");
        no_errors(&browser);
    });
    caller.get("/v1/connections/crm/token").await.problem(401, "unauthenticated");
}
