//! Data sources: made, requests saved and run, replies looked at.

use serde_json::json;

use super::{no_errors, owner, sound};
use crate::app::App;
use crate::browser::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn a_data_source_is_made_and_its_request_run() {
    let app = App::start().await;
    app.machine("crm").await;
    let browser = Browser::start();
    let base = format!("{}/api/echo", app.sandbox.base_url());
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/sources", app.url));
        sound(&browser);
        browser.click("link", "New data source");
        sound(&browser);
        // A mistake: it is said at the field, and what was typed stays.
        browser.fill("Base URL", &base);
        browser.fill("Name (required)", "a/b");
        browser.select("Through this connection", "crm");
        browser.fill("Variable 1: name", "limit");
        browser.fill("Variable 1: value", "typed-secret");
        browser.select("Variable 1: kind", "secret");
        assert_eq!(browser.eval("JSON.stringify(sessionStorage).includes('typed-secret')"), json!(false));
        browser.click("button", "Save");
        browser.see("It can't be used as a name");
        assert!(!browser.html().contains("typed-secret"));
        assert_eq!(browser.count("[placeholder='type it again']"), 1);
        assert_eq!(browser.attribute("#f-name", "aria-invalid").as_deref(), Some("true"));
        assert_eq!(browser.eval("document.querySelector('#f-base_url').value"), json!(base));
        sound(&browser);
        browser.fill("Name (required)", "contacts");
        browser.fill("Headers: name 1", "X-Limit");
        browser.fill("Headers: value 1", "{{limit}}");
        browser.fill("Variable 1: name", "limit");
        browser.fill("Variable 1: value", "5");
        browser.select("Variable 1: kind", "required");
        browser.click("button", "One more variable");
        browser.fill("Variable: name", "key");
        browser.fill("Variable: value", "hush-hush");
        browser.select("Variable: kind", "secret");
        browser.fill("What may be called", "GET HEAD /people/**\nPOST /people");
        browser.click("button", "Save");
        browser.see("Save a request, and run it");
        sound(&browser);
        assert!(!browser.html().contains("hush-hush"));

        browser.click("link", "Save a request");
        sound(&browser);
        browser.fill("Name (required)", "one");
        browser.fill("Path (required)", "/people/{{id}}");
        browser.click("button", "Save");
        browser.see("“one” is saved");
        browser.fill("id", "7");
        browser.click("button", "Run it");
        browser.see("as it should be");
        browser.see("/api/echo/people/7");
        sound(&browser);
    });
    let made = app.admin().get("/v1/data-sources/contacts").await.ok(200);
    assert_eq!(made["allow"][0]["methods"], json!(["GET", "HEAD"]));
    assert_eq!(
        (&made["variables"]["limit"]["value"], &made["variables"]["key"]["secret"]),
        (&json!("5"), &json!(true))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_are_shown_as_text_whatever_they_are() {
    let app = App::start().await;
    app.machine("crm").await;
    let source = json!({
        "name": "api",
        "base_url": format!("{}/api/echo", app.sandbox.base_url()),
        "connection": "crm",
        "variables": {"id": {"required": true}},
        "requests": {"one": {"path": "/people/{{id}}", "extract": "$.path"}, "wrong": {"path": "/people", "expect": {"status": [418]}}},
    });
    app.admin().post("/v1/data-sources", source).await.ok(201);
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/sources/api/requests/one/run", app.url));
        sound(&browser);
        // What must have a value says so.
        browser.click("button", "Run it");
        browser.see("to be mended");
        browser.fill("id (required)", "<img src=x onerror=document.title='run'>");
        browser.click("button", "Run it");
        browser.see("as it should be");
        browser.see("What was taken out of it");
        assert!(browser.text().contains("/people/"), "{}", browser.text());
        assert_eq!(browser.count("pre img"), 0);
        assert!(browser.title().starts_with("Run one"));
        sound(&browser);
        browser.goto(&format!("{}/console/sources/api/requests/wrong/run", app.url));
        browser.click("button", "Run it");
        browser.see("not what it should be");
        no_errors(&browser);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_changed_and_removed() {
    let app = App::start().await;
    app.machine("crm").await;
    let source = json!({
        "name": "api", "base_url": format!("{}/api/echo", app.sandbox.base_url()), "connection": "crm",
        "headers": {"x-gone": "1", "x-kept": "2"},
        "variables": {"key": {"secret": true, "value": "hush-hush", "help": "why"}},
        "requests": {"one": {"path": "/x"}},
    });
    app.admin().post("/v1/data-sources", source).await.ok(201);
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        let other = format!("{}/console/sources/api/edit", app.url);
        browser.goto(&other);
        sound(&browser);
        browser.fill("Headers: name 1", "");
        browser.fill("Headers: value 1", "");
        browser.fill("Description", "Echoes");
        browser.click("button", "Save");
        browser.see("Saved.");
    });
    let after = app.admin().get("/v1/data-sources/api").await.ok(200);
    assert_eq!((&after["headers"], &after["description"]), (&json!({"x-kept": "2"}), &json!("Echoes")));
    let key = &after["variables"]["key"];
    assert_eq!((&key["has_value"], &key["help"], &key["required"]), (&json!(true), &json!("why"), &json!(true)));
    tokio::task::block_in_place(|| {
        // Two tabs: the second was opened before the first saved.
        browser.goto(&format!("{}/console/sources/api/edit", app.url));
    });
    app.admin().patch("/v1/data-sources/api", json!({"description": "Somebody else's"})).await.ok(200);
    tokio::task::block_in_place(|| {
        browser.fill("Description", "Mine");
        browser.click("button", "Save");
        browser.see("somebody saved it since you opened this form");
        browser.see("Somebody else's");
        browser.goto(&format!("{}/console/sources/api/requests/one", app.url));
        sound(&browser);
        browser.click("button", "Remove it");
        browser.see("“one” is removed");
        browser.goto(&format!("{}/console/sources/api/remove", app.url));
        sound(&browser);
        browser.click("button", "Remove it");
        browser.see("The data source is removed");
        no_errors(&browser);
    });
    app.admin().get("/v1/data-sources/api").await.problem(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_tested_as_a_connection_is() {
    let app = App::start().await;
    app.machine("crm").await;
    let base = format!("{}/api/echo", app.sandbox.base_url());
    let health = json!({"path": "/up"});
    let shared = json!({"name": "shared", "base_url": base, "connection": "crm", "health": health});
    app.admin().post("/v1/data-sources", shared).await.ok(201);
    let integration = app.admin().get("/v1/connections/crm").await.ok(200)["integration"].clone();
    let own = json!({"name": "own", "base_url": base, "integration": integration, "health": health});
    app.admin().post("/v1/data-sources", own).await.ok(201);
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/sources/shared", app.url));
        browser.click("button", "Test");
        browser.see("All steps held.");
        browser.see("GET /up answered 200");
        sound(&browser);
        app.fault("error:invalid_client");
        browser.click("button", "Let it expire now");
        browser.see("The last step failed.");
        let failed = browser.text_of("li.bad");
        assert!(failed.contains("client id, secret, or how") && failed.contains("What to do:"), "{failed}");
        app.sandbox.clear_faults();
        browser.goto(&format!("{}/console/sources/own", app.url));
        browser.click("link", "Test");
        sound(&browser);
        browser.fill("Whose connection", "nobody");
        browser.click("button", "Run the test");
        browser.see("there is no connection that is connected");
        browser.click("button", "Test again");
        browser.see("of the owner `nobody`");
        sound(&browser);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_says_why_as_a_test_does() {
    let app = App::start().await;
    app.machine("crm").await;
    let source = json!({
        "name": "api", "base_url": format!("{}/api", app.sandbox.base_url()), "connection": "crm",
        "allow": [{"methods": ["GET"], "path": "/echo/**"}],
        "requests": {"one": {"path": "/{{where}}"}},
    });
    app.admin().post("/v1/data-sources", source).await.ok(201);
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/sources/api/requests/one/run", app.url));
        browser.fill("where", "me");
        browser.click("button", "Run it");
        browser.see("the data source's own rules");
        browser.see("Add a rule for it");
        sound(&browser);
    });
    app.admin().post("/v1/connections/crm/revoke", json!({})).await;
    tokio::task::block_in_place(|| {
        browser.fill("where", "echo");
        browser.click("button", "Run it");
        browser.see("there is no connection that is connected");
        browser.see("Connect it on its page");
        no_errors(&browser);
    });
}
