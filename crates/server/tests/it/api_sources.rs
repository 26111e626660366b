//! Data sources on the wire and by command.

use http::Method;
use serde_json::{Value, json};

use crate::app::{App, full};

/// A machine connection `crm` and what a data source `api` on the sandbox's echo is made of.
async fn body(app: &App) -> Value {
    app.machine("crm").await;
    json!({
        "name": "api",
        "description": "What the sandbox echoes",
        "base_url": format!("{}/api/echo", app.sandbox.base_url()),
        "connection": "crm",
        "headers": {"x-key": "{{key}}"},
        "query": {"limit": "{{limit}}"},
        "variables": {"limit": "5", "key": {"secret": true, "value": "hush-hush"}},
        "health": {"path": "/health"},
        "requests": {
            "one": {"path": "/contacts/{{id}}", "extract": "$.path"},
            "add": {"path": "/contacts", "body": {"name": "{{name}}", "age": "{{age}}"}, "expect": {"status": [201]}},
        },
        "allow": [{"methods": ["GET"], "path": "/contacts/*"}, {"path": "/contacts"}, {"path": "/health"}],
    })
}

#[tokio::test]
async fn a_data_source_is_made_shown_changed_and_removed() {
    let app = App::start().await;
    let admin = app.admin();
    let made = admin.post("/v1/data-sources", body(&app).await).await;
    assert!(!made.text().contains("hush"), "{}", made.text());
    let made = made.ok(201);
    assert!(made["id"].as_str().unwrap().starts_with("src_"), "{made}");
    assert_eq!((&made["connection"], &made["integration"]), (&json!("crm"), &Value::Null));
    let key = &made["variables"]["key"];
    assert_eq!((&key["value"], &key["has_value"], &key["required"]), (&Value::Null, &json!(true), &json!(true)));
    let shown = admin.get("/v1/data-sources/api").await.ok(200);
    assert_eq!(shown, admin.get("/v1/data-sources").await.ok(200)["items"][0]);
    assert_eq!(shown["requests"]["one"]["path"], "/contacts/{{id}}");
    admin.post("/v1/data-sources", json!({"name": "api", "connection": "crm"})).await.problem(409, "name_taken");

    let at = "/v1/data-sources/api";
    let after = admin.patch(at, json!({})).await.ok(200);
    for (name, value) in shown.as_object().unwrap().iter().filter(|(name, _)| *name != "updated_at") {
        assert_eq!(&after[name], value, "an empty change leaves {name}");
    }
    let change = json!({"requests": {"one": null, "two": {"path": "/contacts"}}, "health": null, "headers": {"x-key": null, "accept": "text/csv"}, "variables": {"limit": "9"}});
    let after = admin.patch(at, change).await.ok(200);
    assert_eq!((&after["health"], &after["headers"]), (&Value::Null, &json!({"accept": "text/csv"})));
    let names: Vec<_> = after["requests"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((names, &after["variables"]["limit"]["value"]), (vec!["add", "two"], &json!("9")));
    let wrong = json!({"requests": {"two": {"path": "x"}}, "description": "changed"});
    admin.patch(at, wrong).await.invalid("requests.two.path", "leading slash");
    assert_eq!(admin.get(at).await.ok(200)["description"], "What the sandbox echoes", "nothing is half written");
    admin.delete("/v1/connections/crm").await.problem(409, "in_use");
    admin.delete(at).await.ok(204);
    admin.get(at).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_saved_request_runs_and_a_call_by_name_passes() {
    let app = App::start().await;
    app.admin().post("/v1/data-sources", body(&app).await).await.ok(201);
    let caller = app.key(&["call"]).await;
    let run = |request: &str, variables: Value| {
        let path = format!("/v1/data-sources/api/requests/{request}/run");
        let caller = caller.clone();
        async move { caller.post(&path, json!({"variables": variables})).await }
    };
    let reply = run("one", json!({"id": "a b"})).await.ok(200);
    assert_eq!((&reply["status"], &reply["expected"], &reply["truncated"]), (&json!(200), &json!(true), &json!(false)));
    assert_eq!(reply["extracted"], json!(["/api/echo/contacts/a%20b"]));
    assert_eq!(reply["headers"]["content-type"], "application/json");
    let seen: Value = serde_json::from_str(reply["text"].as_str().unwrap()).unwrap();
    assert_eq!((&seen["query"], &seen["headers"]["x-key"]), (&json!("limit=5"), &json!("hush-hush")));
    let reply = run("add", json!({"name": "Ada", "age": 36})).await.ok(200);
    assert_eq!(reply["expected"], false, "201 is expected");
    run("one", json!({})).await.invalid("variables.id", "no value");
    run("one", json!({"id": "1", "x": "y"})).await.invalid("variables.x", "id");
    run("one", json!({"id": "../1"})).await.invalid("path", "..");
    run("none", json!({})).await.problem(404, "not_found");
    caller
        .post("/v1/data-sources/api/requests/one/run", json!({"variables": {"id": []}}))
        .await
        .problem(400, "unreadable");
    caller.post("/v1/data-sources/api/requests/one/run", json!({"limit": 0})).await.invalid("limit", "bytes");

    let seen = caller.get("/v1/data-sources/api/proxy/contacts/1%20?page=2").await.ok(200);
    assert_eq!((&seen["path"], &seen["query"]), (&json!("/api/echo/contacts/1%20"), &json!("page=2&limit=5")));
    let refused = caller.send(Method::DELETE, "/v1/data-sources/api/proxy/contacts/1", &[], full("")).await;
    refused.problem(403, "not_allowed");
    caller.get("/v1/data-sources/nothing/proxy/x").await.problem(404, "not_found");
    let report = app.admin().post("/v1/data-sources/api/test", json!({})).await.ok(200);
    assert_eq!((&report["ok"], &report["steps"][2]["name"]), (&json!(true), &json!("call")), "{report}");

    let limited = app.limited_key(&["call", "token", "read"], json!({"sources": ["api"]})).await;
    limited.get("/v1/data-sources/api/proxy/contacts/1").await.ok(200);
    limited.get("/v1/connections/crm/token").await.problem(403, "limited");
    limited.get("/v1/connections/crm/proxy/me").await.problem(403, "limited");
}

#[tokio::test]
async fn integration_connection_and_source_are_made_in_one_step() {
    let app = App::start().await;
    let mut integration = app.integration_body("crm integration", "client_credentials");
    let all = |integration: &Value| {
        json!({
            "name": "api",
            "base_url": format!("{}/api/echo", app.sandbox.base_url()),
            "integration": integration,
            "connection": {"name": "crm"},
            "requests": {"me": {"path": "/me"}},
        })
    };
    let mut far = all(&integration);
    far["base_url"] = "https://evil.example/".into();
    app.admin().post("/v1/data-sources", far).await.problem(403, "host_not_allowed");
    let mut unknown = all(&integration);
    unknown["connection"]["more"] = 1.into();
    app.admin().post("/v1/data-sources", unknown).await.invalid("more", "no such field");
    assert_eq!(app.admin().get("/v1/integrations").await.ok(200)["items"], json!([]), "all or nothing");

    let made = app.admin().post("/v1/data-sources", all(&integration)).await.ok(201);
    assert_eq!(made["made"]["connection"]["state"], "connected", "{made}");
    assert_eq!((&made["made"]["authorize"]["state"], &made["connection"]), (&json!("connected"), &json!("crm")));
    app.admin().post("/v1/data-sources/api/requests/me/run", json!({})).await.ok(200);

    integration = app.integration_body("people", "authorization_code");
    let mut people = all(&integration);
    people["name"] = "people".into();
    people["connection"]["name"] = "alice".into();
    let made = app.admin().post("/v1/data-sources", people).await.ok(201);
    let link = made["made"]["authorize"]["authorize_url"].as_str().unwrap();
    assert!(link.starts_with(&format!("{}/connect/", app.url)), "{made}");

    // What is wrong with the client shows in the connection, which waits to be corrected.
    let mut refused = all(&app.integration_body("refused", "client_credentials"));
    refused["name"] = "refused".into();
    refused["connection"]["name"] = "refused".into();
    refused["integration"]["client_secret"] = "wrong".into();
    let made = app.admin().post("/v1/data-sources", refused).await.ok(201);
    assert!(made["made"]["authorize_error"].as_str().unwrap().contains("client"), "{made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_do_the_same() {
    let app = App::start().await;
    app.machine("crm").await;
    let base = format!("{}/api/echo", app.sandbox.base_url());
    let added = app.command(&[
        "source",
        "add",
        "api",
        "--connection",
        "crm",
        "--base-url",
        &base,
        "--request",
        "one=GET /contacts/{{id}}",
        "--query",
        "limit={{limit}}",
        "--var",
        "limit=5",
        "--health",
        "/health",
        "--allow",
        "GET /contacts/*",
        "--allow",
        "/health",
    ]);
    assert_eq!(added.code, Some(0), "{added:?}");
    assert!(added.out.contains("Try: keyholder source run api one"), "{added:?}");
    let shown = app.command(&["source", "show", "api"]);
    assert!(shown.out.contains("GET /contacts/{{id}}") && shown.out.contains("limit=5"), "{shown:?}");
    let listed = app.command(&["source", "list"]);
    assert!(listed.out.contains("api") && listed.out.contains("crm"), "{listed:?}");

    let ran = app.command(&["source", "run", "api", "one", "--var", "id=4 2", "--include"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.starts_with("200  ") && ran.out.contains("\"path\": \"/api/echo/contacts/4%202\""), "{ran:?}");
    let missing = app.command(&["source", "run", "api", "one"]);
    assert!(missing.code == Some(1) && missing.err.contains("variables.id"), "{missing:?}");
    let edited =
        app.command(&["source", "edit", "api", "--request", "two=/contacts/2", "--remove", "requests.one", "--json"]);
    let edited: Value = serde_json::from_str(&edited.out).unwrap();
    assert_eq!(edited["requests"].as_object().unwrap().keys().collect::<Vec<_>>(), ["two"]);
    assert_eq!(app.command(&["source", "edit", "api"]).code, Some(2));
    let tested = app.command(&["source", "test", "api"]);
    assert!(tested.code == Some(0) && tested.out.contains("GET /health answered 200"), "{tested:?}");

    // What `show --json` prints can be read back.
    let file = app.folder.path().join("copy.json");
    std::fs::write(&file, app.command(&["source", "show", "api", "--json"]).out).unwrap();
    let copied = app.command(&["source", "add", "copy", "--file", file.to_str().unwrap(), "--description", "a copy"]);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    let key = app.command(&["key", "create", "reader", "--scope", "call", "--source", "api"]);
    assert_eq!(key.code, Some(0), "{key:?}");
    assert!(app.command(&["key", "list"]).out.contains("api"));
    for name in ["api", "copy"] {
        assert_eq!(app.command(&["source", "rm", name]).code, Some(0));
    }
    assert!(app.command(&["source", "list"]).out.contains("no data sources"));
}
