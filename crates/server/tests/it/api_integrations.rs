//! Integrations and providers on the wire.

use serde_json::{Value, json};

use crate::app::App;

#[tokio::test]
async fn an_integration_is_shown_without_its_secret() {
    let app = App::start().await;
    let made = app.admin().post("/v1/integrations", app.integration_body("crm", "authorization_code")).await;
    assert!(!made.text().contains("sandbox-secret"));
    let made = made.ok(201);
    assert!(made["id"].as_str().unwrap().starts_with("int_"), "{made}");
    assert_eq!(
        (&made["provider"], &made["method"], &made["grant"]),
        (&json!("oauth2"), &json!("authorization_code"), &json!("authorization_code"))
    );
    assert_eq!((&made["has_client_secret"], &made["client_id"]), (&json!(true), &json!("sandbox-basic")));
    assert_eq!(made["redirect_uri"], format!("{}/callback/{}", app.url, made["id"].as_str().unwrap()));
    assert!(made["redirect_note"].as_str().unwrap().contains("character"), "{made}");

    let mut listed = app.admin().get("/v1/integrations").await.ok(200)["items"][0].clone();
    assert_eq!(listed, app.admin().get("/v1/integrations/crm").await.ok(200));
    assert_eq!(listed.as_object_mut().map(std::mem::take), made.as_object().cloned(), "list, show and add agree");
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let app = App::start().await;
    let mut body = app.integration_body("crm", "authorization_code");
    body["audience"] = "https://api.example".into();
    body["header_prefix"] = "Token".into();
    let admin = app.admin();
    let before = admin.post("/v1/integrations", body).await.ok(201);
    let at = "/v1/integrations/crm";

    let after = admin.patch(at, json!({})).await.ok(200);
    for (name, value) in before.as_object().unwrap().iter().filter(|(name, _)| *name != "updated_at") {
        assert_eq!(&after[name], value, "an empty change leaves {name}");
    }
    let after = admin.patch(at, json!({"scopes": ["read"], "client_auth": "basic"})).await.ok(200);
    assert_eq!((&after["scopes"], &after["client_auth"]), (&json!(["read"]), &json!("basic")));
    assert_eq!((&after["audience"], &after["header_prefix"]), (&json!("https://api.example"), &json!("Token")));
    assert_eq!(after["has_client_secret"], true, "a secret that isn't named stays");
    let after = admin.patch(at, json!({"audience": null, "header_prefix": null, "client_auth": null})).await.ok(200);
    assert_eq!(
        (&after["audience"], &after["header_prefix"], &after["client_auth"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let after = admin.patch(at, json!({"variables": {"revocation_url": ""}})).await.ok(200);
    assert!(after["variables"].get("revocation_url").is_none(), "an empty value takes a variable away");
    assert_eq!(after["variables"]["token_url"], before["variables"]["token_url"]);
    let after = admin.patch(at, json!({"name": "Zoë"})).await.ok(200);
    assert_eq!((&after["id"], &after["name"]), (&before["id"], &json!("Zoë")));
    assert_eq!(after["redirect_uri"], before["redirect_uri"], "the redirect URI is registered somewhere: it stays");
    admin.get(at).await.problem(404, "not_found");
    admin.get("/v1/integrations/Zo%C3%AB").await.ok(200);
}

#[tokio::test]
async fn a_bad_patch_changes_nothing() {
    let app = App::start().await;
    app.integration("crm", "client_credentials").await;
    app.integration("other", "client_credentials").await;
    let admin = app.admin();
    let before = admin.get("/v1/integrations/crm").await.ok(200);
    let at = "/v1/integrations/crm";
    for (patch, status, code) in [
        (json!({"name": "other"}), 409, "name_taken"),
        (json!({"name": "a/b"}), 422, "invalid"),
        (json!({"client_id": ""}), 422, "invalid"),
        (json!({"client_secret": ""}), 422, "invalid"),
        (json!({"client_auth": "telepathy"}), 422, "invalid"),
        (json!({"variables": {"token_url": ""}}), 422, "invalid"),
        (json!({"variables": {"token_url": "ftp://x"}}), 422, "invalid"),
        (json!({"variables": {"unheard_of": "x"}}), 422, "invalid"),
        (json!({"provider": "oidc"}), 422, "invalid"),
        (json!({"method": "password"}), 422, "invalid"),
    ] {
        let reply = admin.patch(at, patch.clone()).await;
        assert_eq!(reply.status, status, "{patch}: {}", reply.text());
        reply.problem(status, code);
        assert_eq!(admin.get(at).await.ok(200), before, "{patch}");
    }
}

#[tokio::test]
async fn a_corrected_secret_repairs_the_connections_under_it() {
    let app = App::start().await;
    let admin = app.admin();
    let mut body = app.integration_body("crm", "client_credentials");
    body["client_secret"] = "out of date".into();
    admin.post("/v1/integrations", body).await.ok(201);
    admin.post("/v1/connections", json!({"name": "m", "integration": "crm"})).await.ok(201);
    let problem = admin.post("/v1/connections/m/authorize", json!({})).await.problem(502, "setup_refused");
    assert_eq!(problem["failure"]["code"], "invalid_client");
    assert!(!problem.to_string().contains("out of date"));
    assert!(problem["failure"]["remedy"].as_str().unwrap().contains("client secret"), "{problem}");
    admin.patch("/v1/integrations/crm", json!({"client_secret": "sandbox-secret"})).await.ok(200);
    admin.get("/v1/connections/m/token").await.ok(200);
    assert_eq!(app.state("m").await, "connected");
}

#[tokio::test]
async fn every_way_to_authenticate_a_client_reaches_the_provider() {
    let app = App::start().await;
    for (client, auth, secret) in [
        ("sandbox-basic", json!("basic"), true),
        ("sandbox-post", json!("post"), true),
        ("sandbox-json", json!("json"), true),
    ] {
        let mut body = app.integration_body(client, "client_credentials");
        body["client_id"] = client.into();
        body["client_auth"] = auth;
        assert!(secret);
        app.admin().post("/v1/integrations", body).await.ok(201);
        app.admin().post("/v1/connections", json!({"name": client, "integration": client})).await.ok(201);
        app.admin().post(&format!("/v1/connections/{client}/authorize"), json!({})).await.ok(200);
    }
}

#[tokio::test]
async fn a_public_client_consents_without_a_secret() {
    let app = App::start().await;
    let mut body = app.integration_body("public", "authorization_code");
    body["client_id"] = "sandbox-public".into();
    body["client_auth"] = "none".into();
    body.as_object_mut().unwrap().remove("client_secret");
    let made = app.admin().post("/v1/integrations", body).await.ok(201);
    assert_eq!(made["has_client_secret"], false);
    app.admin().post("/v1/connections", json!({"name": "alice", "integration": "public"})).await.ok(201);
    let begun = app.admin().post("/v1/connections/alice/authorize", json!({})).await.ok(200);
    let person = app.person();
    let page = person.follow(begun["authorize_url"].as_str().unwrap()).await;
    person.post(&page.url, &[("decision", "yes")]).await;
    assert_eq!(app.state("alice").await, "connected");
    app.admin().post("/v1/connections/alice/refresh", json!({})).await.ok(200);
}

#[tokio::test]
async fn oidc_needs_only_the_issuer() {
    let app = App::start().await;
    let base = app.sandbox.base_url();
    let mut body = app.integration_body("crm", "client_credentials");
    body["provider"] = "oidc".into();
    for issuer in [base.to_owned(), format!("{base}/.well-known/openid-configuration")] {
        let name = app.unique("oidc");
        body["name"] = name.clone().into();
        body["variables"] = json!({"issuer": issuer, "api_base_url": format!("{base}/api")});
        app.admin().post("/v1/integrations", body.clone()).await.ok(201);
        app.admin().post("/v1/connections", json!({"name": name, "integration": name})).await.ok(201);
        app.admin().post(&format!("/v1/connections/{name}/authorize"), json!({})).await.ok(200);
    }
}

#[tokio::test]
async fn the_catalogue_is_listed_and_each_of_it_shown() {
    let app = App::start().await;
    let reader = app.key(&["read"]).await;
    let list = reader.get("/v1/providers").await.ok(200);
    let items = list["items"].as_array().unwrap();
    assert!(items.len() >= 14, "{}", items.len());
    for item in items {
        let id = item["id"].as_str().unwrap();
        let mut shown = reader.get(&format!("/v1/providers/{id}")).await.ok(200);
        let text = shown.as_object_mut().unwrap().remove("definition").unwrap();
        assert!(text.as_str().unwrap().contains(&format!("id = \"{id}\"")), "{id}");
        assert_eq!(&shown, item, "{id}");
        assert!(!item["methods"].as_array().unwrap().is_empty(), "{id}");
    }
    reader.get("/v1/providers/nobody").await.problem(404, "not_found");
}

const OWN: &str = r#"
schema = 1
id = "acme"
name = "Acme"
source = ["https://acme.example/docs"]
[[methods]]
grant = "client_credentials"
[token]
url = "https://acme.example/token"
"#;

#[tokio::test]
async fn an_own_definition_is_checked_added_and_replaced_but_never_a_built_in_one() {
    let app = App::start().await;
    let admin = app.admin();
    let checked = admin.post("/v1/providers/check", json!({"definition": OWN})).await.ok(200);
    assert_eq!(checked, json!({"ok": true, "errors": []}));
    admin.get("/v1/providers/acme").await.problem(404, "not_found");
    assert_eq!(admin.post("/v1/providers", json!({"definition": OWN})).await.ok(201)["name"], "Acme");
    let renamed = OWN.replace("name = \"Acme\"", "name = \"Acme 2\"");
    admin.post("/v1/providers", json!({"definition": renamed})).await.ok(201);
    assert_eq!(admin.get("/v1/providers/acme").await.ok(200)["name"], "Acme 2");
    let built_in = OWN.replace("id = \"acme\"", "id = \"oauth2\"");
    admin.post("/v1/providers", json!({"definition": built_in})).await.problem(409, "name_taken");
    assert_eq!(admin.get("/v1/providers/oauth2").await.ok(200)["name"], "OAuth 2.0");
}

#[tokio::test]
async fn a_definition_is_drafted_from_an_issuer() {
    let app = App::start().await;
    let base = app.sandbox.base_url().to_owned();
    let draft = app.admin().post("/v1/providers/discover", json!({"url": base})).await.ok(200);
    let definition = draft["definition"].as_str().unwrap();
    assert!(definition.contains(&format!("{base}/token")) || definition.contains(&base), "{definition}");
    let checked = app.admin().post("/v1/providers/check", json!({"definition": definition})).await.ok(200);
    assert_eq!(checked["ok"], true, "what is drafted can be added: {checked}\n{definition}");
    let problem = app.admin().post("/v1/providers/discover", json!({"url": "no url"})).await.problem(422, "invalid");
    assert_eq!(problem["errors"][0]["field"], "url");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_drafted_from_an_api() {
    let app = App::start().await;
    let base = app.sandbox.base_url().to_owned();
    // By its address, by its document, and by a path whose refusal points to the document.
    for place in ["/api", "/.well-known/oauth-protected-resource/api", "/api/me"] {
        let url = format!("{base}{place}");
        let draft = app.admin().post("/v1/providers/discover", json!({"url": url})).await.ok(200);
        let definition = draft["definition"].as_str().unwrap();
        assert!(definition.contains(&format!("base_url = \"{base}/api\"")), "{place}: {definition}");
        assert!(definition.contains("default = [\"openid\", \"read\", \"write\"]"), "{definition}");
        let checked = app.admin().post("/v1/providers/check", json!({"definition": definition})).await.ok(200);
        assert_eq!(checked["ok"], true, "what is drafted can be added: {checked}\n{definition}");
    }
    // It works as it was drafted.
    let drafted = app.command(&["provider", "discover", &format!("{base}/api")]);
    assert_eq!(drafted.code, Some(0), "{drafted:?}");
    let added = app.admin().post("/v1/providers", json!({"definition": drafted.out})).await.ok(201);
    let integration = json!({
        "name": "api", "provider": added["id"], "method": "client_credentials", "client_id": "sandbox-basic", "client_secret": "sandbox-secret", "scopes": ["read"],
    });
    app.admin().post("/v1/integrations", integration).await.ok(201);
    assert_eq!(app.command(&["connect", "api"]).code, Some(0));
    let called = app.command(&["call", "api", "/me"]);
    assert_eq!(called.code, Some(0), "{called:?}");
    // Neither an issuer nor an API.
    app.admin()
        .post("/v1/providers/discover", json!({"url": format!("{base}/nowhere")}))
        .await
        .problem(422, "discovery");
}

/// A certificate made for this test, and its key.
const CERTIFICATE: &str = include_str!("client.crt");
const CERTIFICATE_KEY: &str = include_str!("client.key");

#[tokio::test]
async fn keys_and_certificates_are_kept_and_only_the_public_part_is_shown() {
    let app = App::start().await;
    let admin = app.admin();
    let mut body = app.integration_body("crm", "client_credentials");
    body.as_object_mut().unwrap().remove("client_secret");
    body["client_auth"] = "private_key_jwt".into();
    admin.post("/v1/integrations", body.clone()).await.invalid("client_key", "private_key_jwt");
    body["client_key"] = "-----BEGIN PRIVATE KEY-----".into();
    admin.post("/v1/integrations", body.clone()).await.invalid("client_key", "private key");
    body["client_key"] = r#"{"kty":"oct","k":"planted-key"}"#.into();
    body["grant_type"] = "account_credentials".into();
    body["token_key"] = "/data/token".into();
    body["content_type"] = "xml".into();
    let problem = admin.post("/v1/integrations", body.clone()).await.problem(422, "invalid");
    assert_eq!(problem["errors"][0]["field"], "content_type", "{problem}");
    body["content_type"] = "json".into();
    let made = admin.post("/v1/integrations", body).await;
    assert!(!made.text().contains("planted-key"));
    let made = made.ok(201);
    assert_eq!((&made["has_client_key"], &made["has_client_secret"]), (&json!(true), &json!(false)));
    assert_eq!((&made["grant_type"], &made["token_key"]), (&json!("account_credentials"), &json!("/data/token")));
    assert_eq!(made["content_type"], "json");
    assert!(made["provider_version"].as_str().unwrap().starts_with("built-in-"), "{made}");

    let at = "/v1/integrations/crm";
    let tls = json!({"client_auth": "tls", "client_certificate": CERTIFICATE});
    admin.patch(at, tls.clone()).await.invalid("client_certificate_key", "missing");
    let tls = json!({"client_auth": "tls", "client_certificate": CERTIFICATE, "client_certificate_key": CERTIFICATE_KEY, "client_key": ""});
    let after = admin.patch(at, tls).await.ok(200);
    assert_eq!((&after["client_certificate"], &after["has_client_key"]), (&json!(CERTIFICATE), &json!(false)));
    admin.patch(at, json!({"client_certificate": null})).await.invalid("client_certificate", "missing");
    let after = admin
        .patch(at, json!({"client_auth": null, "client_secret": "s", "client_certificate": null, "grant_type": null}))
        .await
        .ok(200);
    assert_eq!((&after["client_certificate"], &after["grant_type"]), (&Value::Null, &Value::Null));

    let manager = app.key(&["read", "manage"]).await;
    manager.patch(at, json!({"token_key": "/refresh_token"})).await.problem(403, "forbidden");
}

const WITH_INPUTS: &str = r#"
schema = 1
id = "acme"
aliases = ["acme-crm"]
name = "Acme CRM"

[[methods]]
grant = "client_credentials"

[[methods]]
grant = "authorization_code"
inputs = { scope = { presence = "fixed" } }

[inputs.audience]
presence = "required"
help = "The address of your Acme, as its settings show it."
pattern = "https://.+"

[inputs.scope]
label = "Rights"
choices = { read = "Read", write = "Write" }
order = 1

[variables.Zone]
label = "Zone"
choices = { eu = "Europe", us = "America" }
order = 2

[variables.Plan]
default = "free"
example = "paid"
order = 1

[scopes]
default = ["read"]

[authorize]
url = "https://acme.example/authorize"

[token]
url = "https://acme.example/token"
params = { audience = "{{audience}}", zoneName = "{{Zone}}", plan = "{{Plan}}" }

[setup]
steps = ["Make an app.", "Copy its id."]

[[errors]]
code = "E1"
meaning = "No app."
remedy = "Make one."
"#;

#[tokio::test(flavor = "multi_thread")]
async fn inputs_and_variables_are_told_in_their_order_and_held_to_what_the_definition_says() {
    let app = App::start().await;
    let admin = app.admin();
    admin.post("/v1/providers", json!({"definition": WITH_INPUTS})).await.ok(201);
    let shown = admin.get("/v1/providers/acme-crm").await.ok(200);
    assert_eq!((&shown["version"], &shown["built_in"], &shown["checked"]), (&json!("1"), &json!(false), &Value::Null));
    assert_eq!(shown["definition"], WITH_INPUTS);
    let inputs = &shown["methods"][0]["inputs"];
    let names: Vec<&str> = inputs.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["scope", "client_id", "client_secret", "audience"]);
    assert_eq!(
        (&inputs[0]["label"], &inputs[0]["default"], &inputs[0]["choices"][1]),
        (&json!("Rights"), &json!("read"), &json!({"value": "write", "label": "Write"}))
    );
    assert_eq!((&inputs[3]["presence"], &inputs[3]["pattern"]), (&json!("required"), &json!("https://.+")));
    assert_eq!(shown["methods"][0]["variables"], json!(["Plan", "Zone"]));
    assert_eq!(
        (&shown["variables"][0]["example"], &shown["errors"][0]["remedy"]),
        (&json!("paid"), &json!("Make one."))
    );
    assert_eq!(shown["setup"]["steps"][1], "Copy its id.");

    let body = |method: &str, more: Value| {
        let mut body = json!({"name": "crm", "provider": "acme", "method": method, "client_id": "c", "client_secret": "s",
            "audience": "https://a.acme.example", "variables": {"Zone": "eu"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let machine = |more| body("client_credentials", more);
    for (wrong, field, words) in [
        (machine(json!({"audience": null})), "audience", "The address of your Acme"),
        (machine(json!({"audience": "acme"})), "audience", "does not match"),
        (machine(json!({"scopes": ["read", "admin"]})), "scopes", "use one of: read, write"),
        (machine(json!({"variables": {"Zone": "mars"}})), "variables.Zone", "use one of: eu, us"),
        (machine(json!({"variables": {"zone": "eu"}})), "variables.zone", "there is no such variable"),
        (machine(json!({"variables": {}})), "variables.Zone", "required"),
        (body("authorization_code", json!({"scopes": ["write"]})), "scopes", "fixes the scopes"),
    ] {
        admin.post("/v1/integrations", wrong).await.invalid(field, words);
    }
    admin.post("/v1/integrations", body("authorization_code", json!({"scopes": ["read"]}))).await.ok(201);
    admin.patch("/v1/integrations/crm", json!({"audience": null})).await.invalid("audience", "required");

    let found = |search: &str| {
        let path = format!("/v1/providers?search={search}");
        let admin = admin.clone();
        async move {
            let items = admin.get(&path).await.ok(200)["items"].take();
            items.as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        }
    };
    assert_eq!(found("CRM%20acme").await, ["acme"]);
    assert_eq!(found("crm%20nothing").await, Vec::<String>::new());

    let shown = app.command(&["provider", "show", "acme"]);
    for words in [
        "not compared with the provider's pages",
        "1. Make an app.",
        "What client_credentials asks for",
        "One of: eu, us.",
        "Make one.",
        "Rights",
    ] {
        assert!(shown.out.contains(words), "{words} is missing in\n{}", shown.out);
    }
    let listed = app.command(&["provider", "list", "acme", "crm"]);
    assert!(listed.out.contains("not compared") && !listed.out.contains("oidc"), "{}", listed.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_kept_and_upgrades_are_shown() {
    let app = App::start().await;
    let admin = app.admin();
    let file = app.folder.path().join("acme.toml");
    std::fs::write(&file, WITH_INPUTS).unwrap();
    let path = file.to_str().unwrap();
    let added = app.command(&["provider", "add", path]);
    assert!(added.out.contains("version 1"), "{added:?}");
    let body = json!({"name": "crm", "provider": "acme", "client_id": "c", "client_secret": "s", "audience": "https://a.acme.example", "variables": {"Zone": "eu"}});
    assert_eq!(admin.post("/v1/integrations", body).await.ok(201)["provider_version"], "1");
    std::fs::write(&file, WITH_INPUTS.replace("https://acme.example/token", "https://id.acme.example/token")).unwrap();
    let added = app.command(&["provider", "add", path]);
    assert!(added.out.contains("version 2") && added.out.contains("integration upgrade"), "{added:?}");
    let seen = app.command(&["integration", "upgrade", "crm", "--dry-run"]);
    for words in [
        "-url = \"https://acme.example/token\"",
        "+url = \"https://id.acme.example/token\"",
        "token.url changes from",
        "Nothing was changed",
    ] {
        assert!(seen.out.contains(words), "{words} is missing in\n{}", seen.out);
    }
    assert_eq!(admin.delete("/v1/providers/acme?version=1").await.problem(409, "in_use")["status"], 409);
    let done = app.command(&["integration", "upgrade", "crm", "--to", "2"]);
    assert!(done.out.contains("is on 2 now"), "{done:?}");
    let versions = admin.get("/v1/providers/acme/versions").await.ok(200);
    let counted: Vec<_> = versions["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["version"].clone(), it["integrations"].clone()))
        .collect();
    assert_eq!(counted, [(json!("2"), json!(1)), (json!("1"), json!(0))]);
    assert!(app.command(&["provider", "rm", "acme@1"]).out.contains("gone"));
    admin.get("/v1/providers/acme?version=1").await.problem(404, "not_found");
    assert!(app.command(&["provider", "show", "acme@2", "--text"]).out.contains("https://id.acme.example/token"));
    let manager = app.key(&["read", "manage"]).await;
    manager.post("/v1/integrations/crm/upgrade", json!({"dry_run": true, "version": "2"})).await.ok(200);
}

/// The corpus of broken definitions: the API explains each as the crate does, and stores none.
#[tokio::test(flavor = "multi_thread")]
async fn broken_definitions_are_explained_and_not_stored() {
    let app = App::start().await;
    let admin = app.admin();
    let before = admin.get("/v1/providers").await.ok(200);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../provider/tests/corpus");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let expected = keyholder_provider::parse(&file, &text).unwrap_err();
        let body = json!({"definition": text, "file": file});
        let checked = admin.post("/v1/providers/check", body.clone()).await.ok(200);
        assert_eq!(checked["ok"], false, "{file}");
        let told = &checked["errors"][0];
        assert_eq!(
            (&told["line"], &told["column"], &told["reason"]),
            (&json!(expected[0].line), &json!(expected[0].column), &json!(expected[0].reason)),
            "{file}"
        );
        admin.post("/v1/providers", body).await.problem(422, "invalid_definition");
        count += 1;
    }
    assert!(count > 70);
    let large = json!({"definition": "#".repeat(10 << 20)});
    admin.post("/v1/providers", large).await.problem(413, "too_large");
    assert_eq!(admin.get("/v1/providers").await.ok(200), before);

    let checked = app.command(&["provider", "check", folder.join("value_is_the_host.toml").to_str().unwrap()]);
    assert_eq!(checked.code, Some(1));
    assert!(checked.out.contains("7 | url = \"https://{{tenant}}/token\"\n    |       ^"), "{}", checked.out);
    let checked = app.command(&["provider", "check", folder.join("not_utf8.toml").to_str().unwrap()]);
    assert!(checked.out.contains("not_utf8.toml:3:11: the text is not UTF-8"), "{}", checked.out);
    let checked = app.command(&["--json", "provider", "check", folder.join("nul.toml").to_str().unwrap()]);
    assert_eq!(serde_json::from_str::<Value>(&checked.out).unwrap()["ok"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_definition_extends_is_found_on_the_server() {
    let app = App::start().await;
    app.admin().post("/v1/providers", json!({"definition": WITH_INPUTS})).await.ok(201);
    let child = "schema = 1\nid = \"acme-eu\"\nname = \"Acme EU\"\nextends = \"acme\"\n";
    assert_eq!(app.admin().post("/v1/providers/check", json!({"definition": child})).await.ok(200)["ok"], true);
    let file = app.folder.path().join("eu.toml");
    std::fs::write(&file, child).unwrap();
    let checked = app.command(&["provider", "check", file.to_str().unwrap()]);
    assert_eq!((checked.code, checked.out.contains("is sound")), (Some(0), true), "{checked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_calls_are_set_changed_and_taken_away() {
    let app = App::start().await;
    let admin = app.admin();
    let mut body = app.integration_body("crm", "client_credentials");
    body["limits"] = json!({"concurrent": 3});
    let made = admin.post("/v1/integrations", body).await.ok(201);
    assert_eq!(made["limits"], json!({"per_second": null, "concurrent": 3}));
    let at = "/v1/integrations/crm";
    let after = admin.patch(at, json!({"limits": {"per_second": 0.5}})).await.ok(200);
    assert_eq!(after["limits"], json!({"per_second": 0.5, "concurrent": null}), "both at once");
    for (limits, field) in [
        (json!({"per_second": 0}), "limits.per_second"),
        (json!({"per_second": -1}), "limits.per_second"),
        (json!({"concurrent": 0}), "limits.concurrent"),
        (json!({"concurrent": 4_000_000_000_u32}), "limits.concurrent"),
    ] {
        admin.patch(at, json!({"limits": limits})).await.invalid(field, "it is no");
    }
    for limits in [json!(5), json!({"per_second": "1"}), json!({"per_minute": 1})] {
        let reply = admin.patch(at, json!({"limits": limits})).await;
        assert!(matches!(reply.status, 400 | 422), "{}", reply.text());
    }
    let edited = app.command(&["integration", "edit", "crm", "--per-second", "4", "--concurrent", "2"]);
    assert_eq!(edited.code, Some(0), "{edited:?}");
    assert_eq!(admin.get(at).await.ok(200)["limits"], json!({"per_second": 4.0, "concurrent": 2}));
    let edited = app.command(&["integration", "edit", "crm", "--per-second", "0"]);
    assert_eq!(edited.code, Some(0), "{edited:?}");
    assert_eq!(admin.get(at).await.ok(200)["limits"], json!({"per_second": null, "concurrent": null}));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_parameters_and_renewal_come_and_go() {
    let app = App::start().await;
    let admin = app.admin();
    let body = json!({
        "name": "crm", "provider": "oauth2", "method": "client_credentials", "client_id": "c", "client_secret": "s",
        "description": "Ours", "variables": {"token_url": "https://a.example/token", "api_base_url": "https://api.example"},
        "extra": {"token": [{"name": "resource", "value": "https://api.example"}]}, "renewal": {"ahead": 60},
    });
    let made = admin.post("/v1/integrations", body.clone()).await.ok(201);
    assert_eq!(
        made["extra"],
        json!({"authorize": [], "token": [{"name": "resource", "value": "https://api.example"}], "refresh": []})
    );
    assert_eq!(made["renewal"], json!({"token_lifetime": null, "ahead": 60, "by_itself": true}));
    let edit = json!({"extra": {"token": [{"name": "grant_type", "value": "x"}]}});
    let refused = admin.patch("/v1/integrations/crm", edit).await.problem(422, "invalid");
    assert_eq!(refused["errors"][0]["field"], "extra.token");
    let shown = app.command(&[
        "integration",
        "edit",
        "crm",
        "--renew-at-use",
        "--extra",
        "refresh:mode=full",
        "--description",
        "Theirs",
    ]);
    for words in ["Theirs", "refresh:mode=full", "at use only"] {
        assert!(shown.out.contains(words), "{words} is missing in\n{}\n{}", shown.out, shown.err);
    }
    let shown = app.command(&["integration", "edit", "crm", "--reset", "extra", "--reset", "renewal"]);
    assert!(!shown.out.contains("mode=full") && !shown.out.contains("at use only"), "{}", shown.out);
}
