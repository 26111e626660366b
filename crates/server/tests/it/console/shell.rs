//! Becoming the owner, signing in and out; what holds on every page.

use serde_json::json;

use crate::app::App;
use crate::browser::Browser;

use super::{owner, sign_in, sound};

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_sets_up_signs_out_and_in() {
    let app = App::start().await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        sound(&browser);
        browser.click("button", "Sign out");
        browser.wait_url("/console/sign-in");
        sound(&browser);
        sign_in(&app, &browser, "Anna");
        sound(&browser);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_come_as_they_stay_and_ask_nobody_else() {
    let app = App::start().await;
    app.machine("crm").await;
    app.consented("people").await;
    app.admin().get("/v1/connections/crm/proxy/me").await.ok(200);
    let source = json!({"name": "api", "connection": "crm", "requests": {"one": {"path": "/me"}}});
    app.admin().post("/v1/data-sources", source).await.ok(201);
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.traffic();
        for width in [1280, 390] {
            browser.size(width, 800);
            for path in [
                "",
                "connections",
                "connections/crm",
                "connections/crm/edit",
                "connections/new/oauth2",
                "connections/new/github",
                "integrations",
                "providers",
                "providers/google",
                "import",
                "sources",
                "sources/api",
                "sources/api/edit",
                "sources/api/requests/one/run",
                "callers",
                "callers/new",
                "audit",
                "usage",
                "advice",
                "settings",
            ] {
                assert_eq!(browser.goto(&format!("{}/console/{path}", app.url)), 200, "{path}");
                // What web.dev/cls calls good is below 0.1.
                let moved = browser.shift();
                assert!(moved < 0.02, "{path}, {width} px wide, moves by {moved}");
                let over = browser
                    .eval("Math.max(0, document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth)");
                assert_eq!(over, json!(0), "{path} scrolls sideways at {width} px");
                let (hosts, bytes) = browser.traffic();
                assert_eq!(hosts, [app.url.trim_start_matches("http://")], "{path}");
                assert!(bytes < 100_000, "{path} weighs {bytes} bytes");
            }
        }
        super::no_errors(&browser);
    });
}
