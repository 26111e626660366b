//! Files of other programs become integrations that work.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::app::App;

fn file(app: &App, name: &str, text: &str) -> String {
    let path: PathBuf = app.folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn postman(app: &App, grant: &str) -> Value {
    json!({
        "info": {"name": "Sandbox API", "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"},
        "auth": {"type": "oauth2", "oauth2": [
            {"key": "grant_type", "value": grant},
            {"key": "accessTokenUrl", "value": "{{server}}/token"},
            {"key": "clientId", "value": "sandbox-post"},
            {"key": "clientSecret", "value": "{{secret}}"},
            {"key": "client_authentication", "value": "body"},
            {"key": "scope", "value": "read"},
            {"key": "username", "value": "alice"},
            {"key": "password", "value": "wonderland"},
            {"key": "tokenRequestParams", "value": [
                {"key": "X-Api-Key", "value": "planted-key", "enabled": true, "send_as": "request_header"},
                {"key": "tenant", "value": "t1", "enabled": true, "send_as": "request_body"},
            ]},
        ]},
        "item": [{"name": "Me", "request": {"method": "GET", "url": format!("{}/api/me", app.sandbox.base_url())}}],
    })
}

fn environment(app: &App) -> Value {
    json!({"name": "local", "values": [
        {"key": "server", "value": app.sandbox.base_url(), "enabled": true},
        {"key": "secret", "value": "sandbox-secret", "enabled": true},
    ]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_becomes_an_integration_that_works() {
    let app = App::start().await;
    let collection = file(&app, "c.json", &postman(&app, "client_credentials").to_string());
    let env = file(&app, "e.json", &environment(&app).to_string());

    let shown = app.command(&["import", "postman", &collection, "--env", &env, "--dry-run"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.out.contains("tenant = \"t1\"") && shown.out.contains("imported-sandbox-api"), "{shown:?}");
    assert!(
        !format!("{shown:?}").contains("planted-key") && !format!("{shown:?}").contains("sandbox-secret"),
        "{shown:?}"
    );
    assert_eq!(app.admin().get("/v1/integrations").await.json()["items"], json!([]));

    let made = app.command(&["import", "postman", &collection, "--env", &env, "--name", "crm"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(
        !format!("{made:?}").contains("planted-key") && !format!("{made:?}").contains("sandbox-secret"),
        "{made:?}"
    );
    assert!(made.out.contains("keyholder connect crm"), "{made:?}");
    let integration = app.admin().get("/v1/integrations/crm").await.json();
    assert_eq!(
        (integration["provider"].as_str(), integration["client_auth"].as_str()),
        (Some("imported-crm"), Some("post"))
    );
    assert_eq!(integration["secret_variables"], json!(["imported_X_Api_Key"]));

    let connected = app.command(&["connect", "crm"]);
    assert_eq!(connected.code, Some(0), "{connected:?}");
    let called = app.command(&["call", "crm", "/api/me"]);
    assert_eq!(called.code, Some(0), "{called:?}");

    let again = app.command(&["import", "postman", &collection, "--env", &env, "--name", "crm"]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.err.contains("there is a provider imported-crm already; give another name with --name"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_goes_into_a_connection() {
    let app = App::start().await;
    let collection = file(&app, "c.json", &postman(&app, "password_credentials").to_string());
    let server = format!("server={}", app.sandbox.base_url());
    let made = app.command(&["import", "postman", &collection, "--set", &server, "--set", "secret=sandbox-secret"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(!format!("{made:?}").contains("wonderland"), "{made:?}");
    let run = app.command(&["connection", "refresh", "Sandbox API"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let called = app.command(&["call", "Sandbox API", "/api/me"]);
    assert!(called.out.contains("alice"), "{called:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_becomes_an_integration_that_works() {
    let app = App::start().await;
    let command =
        "curl -u sandbox-basic:sandbox-secret \"$SERVER/token\" -d grant_type=client_credentials -d scope=read";
    let command = file(&app, "token.sh", command);
    let server = format!("SERVER={}", app.sandbox.base_url());
    let base = format!("api_base_url={}", app.sandbox.base_url());
    let made = app.command(&["--json", "import", "curl", &command, "--set", &server, "--set", &base]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let made: Value = serde_json::from_str(&made.out).unwrap();
    assert_eq!(made["items"][0]["provider"], "oauth2");
    let connected = app.command(&["connect", "curl"]);
    assert_eq!(connected.code, Some(0), "{connected:?}");
    let called = app.command(&["call", "curl", "/api/me"]);
    assert_eq!(called.code, Some(0), "{called:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_imported_leaves_nothing() {
    let app = App::start().await;
    let broken = file(&app, "broken.json", "{\"info\": \"hush");
    let said = app.command(&["import", "postman", &broken]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("broken JSON at line 1") && !said.err.contains("hush"), "{said:?}");
    let missing = app.command(&["import", "postman", "nowhere.json"]);
    assert!(missing.code == Some(1) && missing.err.contains("nowhere.json"), "{missing:?}");
    let collection = file(&app, "c.json", &postman(&app, "client_credentials").to_string());
    let said = app.command(&["import", "postman", &collection]);
    assert!(said.err.contains("it uses `server`, which the file gives no value for"), "{said:?}");
    let said = app.command(&["import", "postman", &collection, "--only", "Other"]);
    assert!(said.code == Some(1), "{said:?}");
    // Plain http to a host that is not this machine: refused as if it had been typed, and the definition goes with it.
    let said =
        app.command(&["import", "postman", &collection, "--set", "server=http://plain.example", "--set", "secret=s"]);
    assert!(said.code == Some(1) && said.err.contains("https"), "{said:?}");
    assert_eq!(app.admin().get("/v1/integrations").await.json()["items"], json!([]));
}
