//! Pictures of the pages: `make screenshots`. Not a test; it fails where a page can't be shown.

use std::path::Path;

use serde_json::json;

use super::owner;
use crate::app::App;
use crate::browser::{Browser, Look};

/// Every page that needs nothing typed, with something on it: in light and dark, wide and on a phone.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes docs/screens: make screenshots"]
async fn all() {
    let app = App::start().await;
    app.machine("crm").await;
    app.draft("people", "password").await;
    app.admin().post("/v1/connections/people/authorize", json!({})).await.ok(200);
    app.consented("calendar").await;
    app.admin().post("/v1/keys", json!({"name": "nightly-report", "scopes": ["call"]})).await.ok(201);
    let source = json!({
        "name": "contacts", "description": "People of the CRM", "connection": "crm",
        "base_url": format!("{}/api/echo", app.sandbox.base_url()),
        "allow": [{"methods": ["GET"], "path": "/people/**"}],
        "health": {"path": "/people/7"},
        "requests": {
            "one": {"description": "A person by number", "path": "/people/7", "extract": "$.path"},
            "other": {"description": "Anything", "path": "/{{where}}"},
        },
    });
    app.admin().post("/v1/data-sources", source).await.ok(201);
    for path in ["me", "me", "nothing", "me"] {
        app.admin().get(&format!("/v1/connections/crm/proxy/{path}")).await;
        app.admin().get("/v1/connections/crm/token").await.ok(200);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/screens");
    std::fs::create_dir_all(&folder).unwrap();
    let pages = [
        ("home", "/console/"),
        ("connections", "/console/connections"),
        ("connection", "/console/connections/crm"),
        ("integrations", "/console/integrations"),
        ("providers", "/console/providers"),
        ("provider", "/console/providers/github"),
        ("form", "/console/connections/new/github"),
        ("form-by-hand", "/console/connections/new/oauth2"),
        ("integration", "/console/integrations/integration-0"),
        ("integration-form", "/console/integrations/integration-0/edit"),
        ("consent", "/console/connections/calendar/authorize"),
        ("redirect", "/console/connections/calendar/redirect?registered=http%3A%2F%2Flocalhost%2Fcallback"),
        ("import", "/console/import"),
        ("sources", "/console/sources"),
        ("source", "/console/sources/contacts"),
        ("source-form", "/console/sources/contacts/edit"),
        ("request", "/console/sources/contacts/requests/one"),
        ("runner", "/console/sources/contacts/requests/one/run"),
        ("failed-run", "/console/sources/contacts/requests/other/run"),
        ("source-test", "/console/sources/contacts/test"),
        ("disconnect", "/console/connections/calendar/disconnect"),
        ("connection-edit", "/console/connections/people/edit"),
        ("callers", "/console/callers"),
        ("caller-form", "/console/callers/new"),
        ("audit", "/console/audit"),
        ("usage", "/console/usage"),
        ("advice", "/console/advice"),
        ("settings", "/console/settings"),
        ("invitation", "/console/settings/people/new"),
        ("password", "/console/settings/password"),
        ("passkey-form", "/console/settings/passkeys/new"),
        // Last: from here on the provider refuses the client.
        ("failed-test", "/console/connections/crm/test"),
    ];
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        for (name, path) in pages {
            if browser.goto(&format!("{}{path}", app.url)) == 404 {
                continue;
            }
            if name == "runner" {
                browser.click("button", "Run it");
                browser.see("The reply");
            }
            if name == "failed-run" {
                browser.fill("where", "elsewhere");
                browser.click("button", "Run it");
                browser.see("the data source's own rules");
            }
            if name == "source-test" {
                browser.click("button", "Run the test");
                browser.see("All steps held.");
            }
            if name == "failed-test" {
                app.fault("error:invalid_client");
                browser.click("button", "Run the test");
                browser.see("The last step failed.");
            }
            let shoot = |end: &str, look| browser.screenshot(&folder.join(format!("{name}{end}.png")), look);
            for (end, width) in [("", 1280), ("-phone", 390)] {
                shoot(end, Look { width, ..Look::default() });
                shoot(&format!("{end}-dark"), Look { width, dark: true, ..Look::default() });
            }
            // These three are in the README: what a window shows, small enough to be loaded by everybody who opens it.
            if ["home", "form", "failed-test"].contains(&name) {
                shoot("", Look { width: 1120, height: 640, dark: false, whole: false });
            }
        }
    });
}
