//! Connections on the wire: the whole life under each grant, and what every request of it answers.

use http::Method;
use serde_json::{Value, json};

use crate::app::{App, full};

fn at(name: &str, tail: &str) -> String {
    format!("/v1/connections/{name}{tail}")
}

/// From a token that is there to a connection that is gone; what all grants share.
async fn use_and_end(app: &App, name: &str, integration: &str, account: Value) {
    let admin = app.admin();
    let shown = admin.get(&at(name, "")).await.ok(200);
    assert_eq!(
        (&shown["state"], &shown["color"], &shown["reason"]),
        (&json!("connected"), &json!("green"), &Value::Null)
    );
    assert_eq!((&shown["integration"], &shown["provider"]), (&json!(integration), &json!("oauth2")));
    assert!(shown["connected_at"].as_i64().is_some() && shown["expires_at"].as_i64().is_some(), "{shown}");

    let first = admin.get(&at(name, "/token")).await.ok(200);
    assert_eq!((&first["token_type"], &first["connection"]), (&json!("Bearer"), &shown["id"]));
    assert!((3500..=3600).contains(&first["expires_in"].as_i64().unwrap()), "{first}");
    let me = admin.get(&at(name, "/proxy/me")).await.ok(200);
    assert_eq!(me["account"], account);

    let refreshed = admin.post(&at(name, "/refresh"), json!({})).await.ok(200);
    assert_eq!((&refreshed["connection"], &refreshed["state"]), (&shown["id"], &json!("connected")));
    assert_eq!(refreshed["generation"].as_i64(), first["generation"].as_i64().map(|before| before + 1));
    let second = admin.get(&at(name, "/token")).await.ok(200);
    assert_ne!(first["access_token"], second["access_token"]);
    admin.get(&at(name, "/proxy/me")).await.ok(200);

    let tested = admin.post(&at(name, "/test"), json!({})).await.ok(200);
    assert_eq!((&tested["ok"], &tested["steps"][1]["name"]), (&json!(true), &json!("token")));

    let revoked = admin.post(&at(name, "/revoke"), json!({})).await.ok(200);
    assert_eq!((&revoked["connection"]["state"], &revoked["connection"]["color"]), (&json!("revoked"), &json!("grey")));
    assert_eq!(revoked["revocation"]["outcome"], "revoked", "{revoked}");
    let problem = admin.get(&at(name, "/token")).await.problem(409, "not_connected");
    assert_eq!(problem["state"], "revoked");
    assert!(problem["detail"].as_str().unwrap().contains("authorise it again"), "{problem}");
    admin.get(&at(name, "/proxy/me")).await.problem(409, "not_connected");

    let events = admin.get(&at(name, "/events")).await.ok(200);
    let kinds: Vec<_> = events["items"].as_array().unwrap().iter().map(|it| it["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&"revoked"), Some(&"created")), "newest first: {kinds:?}");

    assert!(
        admin.delete(&format!("/v1/integrations/{integration}")).await.problem(409, "in_use")["detail"]
            .as_str()
            .unwrap()
            .contains("remove those first")
    );
    assert_eq!(admin.delete(&at(name, "")).await.ok(204), Value::Null);
    admin.get(&at(name, "")).await.problem(404, "not_found");
    admin.delete(&format!("/v1/integrations/{integration}")).await.ok(204);
    assert_eq!(admin.get("/v1/connections").await.ok(200), json!({"items": [], "next": null}));
    assert_eq!(admin.get("/v1/integrations").await.ok(200), json!({"items": [], "next": null}));
}

#[tokio::test]
async fn client_credentials_from_setting_up_to_taking_down() {
    let app = App::start().await;
    app.integration("machines", "client_credentials").await;
    let made = app.admin().post("/v1/connections", json!({"name": "m", "integration": "machines"})).await.ok(201);
    assert_eq!((&made["state"], &made["color"], &made["generation"]), (&json!("draft"), &json!("grey"), &json!(0)));
    let done = app.admin().post(&at("m", "/authorize"), json!({})).await.ok(200);
    assert_eq!(done, json!({"connection": made["id"], "state": "connected"}), "no link where nobody has to consent");
    use_and_end(&app, "m", "machines", Value::Null).await;
}

#[tokio::test]
async fn a_password_from_setting_up_to_taking_down() {
    let app = App::start().await;
    app.integration("people", "password").await;
    let body = json!({"name": "alice", "integration": "people", "username": "alice", "password": "wonderland"});
    let made = app.admin().post("/v1/connections", body).await;
    assert!(!made.text().contains("wonderland"));
    assert_eq!(made.ok(201)["username"], "alice");
    app.admin().post(&at("alice", "/authorize"), json!({})).await.ok(200);
    use_and_end(&app, "alice", "people", json!("alice")).await;
}

#[tokio::test]
async fn a_consent_from_setting_up_to_taking_down() {
    let app = App::start().await;
    app.integration("people", "authorization_code").await;
    let body = json!({"name": "alice", "integration": "people", "owner": "user-7", "tags": {"team": "blue"}});
    let made = app.admin().post("/v1/connections", body).await.ok(201);
    assert_eq!((&made["owner"], &made["tags"]), (&json!("user-7"), &json!({"team": "blue"})));
    let begun = app.admin().post(&at("alice", "/authorize"), json!({})).await.ok(200);
    assert_eq!((&begun["connection"], &begun["state"]), (&made["id"], &json!("draft")));
    assert!(begun["expires_at"].as_i64().unwrap() > made["created_at"].as_i64().unwrap());
    let link = begun["authorize_url"].as_str().unwrap();
    assert!(link.starts_with(&format!("{}/connect/", app.url)), "{link}");

    let person = app.person();
    let page = person.follow(link).await;
    assert_eq!(app.state("alice").await, "pending", "what was granted waits for the person's yes");
    let waiting = app.admin().get(&at("alice", "/token")).await.problem(409, "not_connected");
    assert_eq!(waiting["state"], "pending");
    assert_eq!(person.post(&page.url, &[("decision", "yes")]).await.status, 200);
    use_and_end(&app, "alice", "people", json!("alice")).await;
}

#[tokio::test]
async fn a_draft_gives_no_token_until_somebody_authorises_it() {
    let app = App::start().await;
    app.draft("m", "client_credentials").await;
    for tail in ["/token", "/proxy/me"] {
        let problem = app.admin().get(&at("m", tail)).await.problem(409, "not_connected");
        assert_eq!(problem["state"], "draft");
        assert!(problem["detail"].as_str().unwrap().contains("authorise it first"), "{problem}");
    }
    assert_eq!(app.sent("client_credentials"), 0, "nothing was sent for it");
}

#[tokio::test]
async fn a_token_is_never_cached_and_is_the_only_thing_that_leaves() {
    let app = App::start().await;
    app.consented("alice").await;
    let reply = app.key(&["token"]).await.get(&at("alice", "/token")).await;
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let token = reply.ok(200);
    let names: Vec<_> = token.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["access_token", "connection", "expires_at", "expires_in", "generation", "scope", "token_type"]);
    assert_eq!(token["scope"], "read write");
    let audit = app.audit().await;
    let row = audit.iter().find(|row| row["action"] == "token.read").expect("a record of the hand-out");
    assert_eq!((&row["object"], &row["outcome"]), (&token["connection"], &json!("ok")));
    assert!(row["actor"].as_str().unwrap().starts_with("key-"), "{row}");
}

#[tokio::test]
async fn min_ttl_is_taken_in_every_form_it_is_promised_in() {
    let app = App::start().await;
    app.machine("m").await;
    let renewals = || app.sent("client_credentials");
    assert_eq!(renewals(), 1);
    for form in ["60", "60s", "5m", "0", "59m"] {
        app.admin().get(&at("m", &format!("/token?min_ttl={form}"))).await.ok(200);
    }
    // More than nine tenths of a life are never asked for; so a day is no reason to renew what was just made.
    app.admin().get(&at("m", "/token?min_ttl=24h")).await.ok(200);
    app.admin().get(&at("m", "/token?min_ttl=99999999999999999")).await.ok(200);
    assert_eq!(renewals(), 1);
    for wrong in ["", "-1", "1d", "soon", "5%20m", "1.5", "99999999999999999999999"] {
        let problem = app.admin().get(&at("m", &format!("/token?min_ttl={wrong}"))).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["field"], "min_ttl", "{wrong}");
        assert!(problem["errors"][0]["remedy"].as_str().unwrap().contains("5m"), "{wrong}");
    }
}

#[tokio::test]
async fn everything_is_named_by_id_or_by_name_whatever_it_looks_like() {
    let app = App::start().await;
    for name in ["Zoë’s CRM 日本", "a b", "+plus+", "semi;colon=&", "con_", "%25"] {
        let integration = app.unique("i");
        app.integration(&integration, "client_credentials").await;
        let body = json!({"name": name, "integration": integration});
        if name.contains('%') {
            let problem = app.admin().post("/v1/connections", body).await.problem(422, "invalid");
            assert_eq!(problem["errors"][0]["field"], "name");
            continue;
        }
        let made = app.admin().post("/v1/connections", body).await.ok(201);
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for way in [&encoded, made["id"].as_str().unwrap()] {
            assert_eq!(app.admin().get(&at(way, "")).await.ok(200)["name"], name);
            app.admin().post(&at(way, "/authorize"), json!({})).await.ok(200);
            app.admin().get(&at(way, "/token")).await.ok(200);
            app.admin().get(&at(way, "/proxy/me")).await.ok(200);
        }
        app.admin().delete(&at(&encoded, "")).await.ok(204);
    }
}

#[tokio::test]
async fn names_that_make_no_path_are_refused() {
    let app = App::start().await;
    app.integration("i", "client_credentials").await;
    for name in ["", " ", "a/b", "a\\b", "a?b", "a#b", " a", "a ", "a\nb", ".", "..", &"x".repeat(101)] {
        let body = json!({"name": name, "integration": "i"});
        let problem = app.admin().post("/v1/connections", body).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["field"], "name", "{name:?}");
    }
    assert_eq!(app.admin().get("/v1/connections").await.ok(200)["items"], json!([]));
}

#[tokio::test]
async fn a_list_comes_in_pages_and_by_filters() {
    let app = App::start().await;
    let admin = app.admin();
    for integration in ["one", "two"] {
        app.integration(integration, "client_credentials").await;
    }
    for n in 0..5 {
        let integration = if n < 3 { "one" } else { "two" };
        let owner = if n % 2 == 0 { "even" } else { "odd" };
        admin
            .post("/v1/connections", json!({"name": format!("c{n}"), "integration": integration, "owner": owner}))
            .await
            .ok(201);
    }
    admin.post(&at("c4", "/authorize"), json!({})).await.ok(200);

    let mut names = Vec::new();
    let mut after = String::new();
    loop {
        let page = admin.get(&format!("/v1/connections?limit=2&after={after}")).await.ok(200);
        let items = page["items"].as_array().unwrap();
        assert!((1..=2).contains(&items.len()), "no empty page at the end");
        names.extend(items.iter().map(|it| it["name"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4"], "each once, in the order they were made");

    let names = |page: Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    let integration = admin.get("/v1/integrations/two").await.ok(200)["id"].as_str().unwrap().to_owned();
    for (query, expected) in [
        ("integration=one", vec!["c0", "c1", "c2"]),
        (&format!("integration={integration}"), vec!["c3", "c4"]),
        ("state=connected", vec!["c4"]),
        ("state=draft&owner=odd", vec!["c1", "c3"]),
        ("owner=nobody", vec![]),
        ("integration=two&state=connected&owner=even", vec!["c4"]),
    ] {
        assert_eq!(names(admin.get(&format!("/v1/connections?{query}")).await.ok(200)), expected, "{query}");
    }
    admin.get("/v1/connections?integration=three").await.problem(404, "not_found");
    let problem = admin.get("/v1/connections?state=broken").await.problem(422, "invalid");
    assert_eq!(problem["errors"][0]["field"], "state");
    for limit in ["0", "201", "-1"] {
        let problem = admin.get(&format!("/v1/connections?limit={limit}")).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["field"], "limit");
    }
    admin.get("/v1/connections?limit=many").await.problem(400, "unreadable");
    assert_eq!(names(admin.get("/v1/connections?limit=5").await.ok(200)).len(), 5);
}

#[tokio::test]
async fn a_taken_name_is_refused_and_changes_nothing() {
    let app = App::start().await;
    app.draft("crm", "client_credentials").await;
    app.integration("other", "client_credentials").await;
    let body = json!({"name": "crm", "integration": "other"});
    let problem = app.admin().post("/v1/connections", body).await.problem(409, "name_taken");
    assert!(problem["detail"].as_str().unwrap().contains("choose another name"));
    assert_eq!(app.admin().get("/v1/connections").await.ok(200)["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_grant_has_no_use_for_is_refused_by_field() {
    let app = App::start().await;
    app.integration("machines", "client_credentials").await;
    app.integration("people", "password").await;
    let admin = app.admin();
    let problem =
        admin.post("/v1/connections", json!({"name": "a", "integration": "machines", "password": "pw-s3cret"})).await;
    assert!(!problem.text().contains("pw-s3cret"));
    assert_eq!(problem.problem(422, "invalid")["errors"][0]["field"], "password");
    let problem = admin
        .post("/v1/connections", json!({"name": "a", "integration": "people", "username": "x"}))
        .await
        .problem(422, "invalid");
    assert_eq!(problem["errors"][0]["field"], "password");
    let problem =
        admin.post("/v1/connections", json!({"name": "a", "integration": "none"})).await.problem(422, "invalid");
    assert_eq!(problem["errors"][0]["field"], "integration");
    let problem = admin
        .post("/v1/connections", json!({"name": "a", "integration": "machines", "variables": {"shop": "x"}}))
        .await
        .problem(422, "invalid");
    assert_eq!(problem["errors"][0]["field"], "variables.shop");
    assert_eq!(admin.get("/v1/connections").await.ok(200)["items"], json!([]));
}

#[tokio::test]
async fn a_wrong_password_is_explained_and_a_new_one_repairs_it() {
    let app = App::start().await;
    app.integration("people", "password").await;
    let admin = app.admin();
    let body = json!({"name": "a", "integration": "people", "username": "alice", "password": "looking-glass"});
    admin.post("/v1/connections", body).await.ok(201);
    let problem = admin.post(&at("a", "/authorize"), json!({})).await.problem(409, "not_connected");
    assert_eq!((&problem["failure"]["kind"], &problem["failure"]["code"]), (&json!("grant"), &json!("invalid_grant")));
    assert!(problem["failure"]["remedy"].as_str().unwrap().contains("user name and password"), "{problem}");
    let shown = admin.get(&at("a", "")).await.ok(200);
    assert_eq!((&shown["state"], &shown["color"]), (&json!("reconnect"), &json!("red")));
    assert_eq!(shown["failures"]["grant"], 1);

    let patched = admin.patch(&at("a", ""), json!({"password": "wonderland"})).await;
    assert!(!patched.text().contains("wonderland"));
    assert_eq!(patched.ok(200)["username"], "alice", "what isn't named stays");
    admin.post(&at("a", "/authorize"), json!({})).await.ok(200);
    assert_eq!(app.state("a").await, "connected");
}

#[tokio::test]
async fn a_provider_that_asks_to_wait_is_passed_on_as_retry_after() {
    let app = App::start().await;
    app.draft("m", "client_credentials").await;
    app.fault("token=rate_limited:77");
    let reply = app.admin().post(&at("m", "/authorize"), json!({})).await;
    let header: u64 = reply.header("retry-after").expect("Retry-After").parse().unwrap();
    let problem = reply.problem(503, "provider_unavailable");
    assert_eq!(problem["retry_after"], header);
    assert!((60..=77).contains(&header), "{problem}");
    assert_eq!(problem["failure"]["kind"], "transient");
    assert!(problem["failure"]["next_try_at"].as_i64().is_some());
}

#[tokio::test]
async fn a_valid_token_is_served_while_the_provider_fails_and_the_reason_is_shown() {
    let app = App::start().await;
    app.machine("m").await;
    app.fault("token=server_error");
    app.admin().post(&at("m", "/refresh"), json!({})).await.problem(503, "provider_unavailable");
    let shown = app.admin().get(&at("m", "")).await.ok(200);
    assert_eq!((&shown["state"], &shown["color"]), (&json!("failing"), &json!("red")));
    assert!(shown["reason"].as_str().unwrap().contains("503"), "{shown}");
    assert_eq!(shown["failures"]["transient"], 1);
    app.admin().get(&at("m", "/token")).await.ok(200);
    app.admin().get(&at("m", "/proxy/me")).await.ok(200);
    app.sandbox.clear_faults();
    app.admin().post(&at("m", "/refresh"), json!({})).await.ok(200);
    let shown = app.admin().get(&at("m", "")).await.ok(200);
    assert_eq!(
        (&shown["state"], &shown["reason"], &shown["failure"]),
        (&json!("connected"), &Value::Null, &Value::Null)
    );
    assert_eq!(shown["failures"], json!({"setup": 0, "grant": 0, "transient": 0}));
}

#[tokio::test]
async fn a_dead_grant_asks_for_a_person_and_a_new_consent_repairs_it() {
    let app = App::start().await;
    app.consented("alice").await;
    app.sandbox.revoke(&keyholder_sandbox::Which::All);
    let problem = app.admin().post(&at("alice", "/refresh"), json!({})).await.problem(409, "not_connected");
    assert_eq!((&problem["state"], &problem["failure"]["code"]), (&json!("reconnect"), &json!("invalid_grant")));
    let begun = app.admin().post(&at("alice", "/authorize"), json!({})).await.ok(200);
    let person = app.person();
    let page = person.follow(begun["authorize_url"].as_str().unwrap()).await;
    person.post(&page.url, &[("decision", "yes")]).await;
    assert_eq!(app.state("alice").await, "connected");
    app.admin().get(&at("alice", "/proxy/me")).await.ok(200);
}

#[tokio::test]
async fn a_revoked_connection_can_be_authorised_again() {
    let app = App::start().await;
    app.machine("m").await;
    app.admin().post(&at("m", "/revoke"), json!({})).await.ok(200);
    let again = app.admin().post(&at("m", "/revoke"), json!({})).await.ok(200);
    assert_eq!(again["revocation"]["outcome"], "nothing_held", "twice is no error");
    app.admin().post(&at("m", "/authorize"), json!({})).await.ok(200);
    app.admin().get(&at("m", "/token")).await.ok(200);
}

#[tokio::test]
async fn a_revocation_the_provider_does_not_hear_of_is_said() {
    let app = App::start().await;
    app.consented("alice").await;
    app.fault("revoke=server_error");
    let revoked = app.admin().post(&at("alice", "/revoke"), json!({})).await.ok(200);
    assert_eq!(
        (&revoked["connection"]["state"], &revoked["revocation"]["outcome"]),
        (&json!("revoked"), &json!("failed"))
    );
    assert!(revoked["revocation"]["message"].as_str().unwrap().contains("in the account at the provider"), "{revoked}");
}

#[tokio::test]
async fn a_grant_without_a_person_has_no_link() {
    let app = App::start().await;
    app.integration("machines", "client_credentials").await;
    let problem =
        app.admin().post("/v1/connect-sessions", json!({"integration": "machines"})).await.problem(409, "not_possible");
    assert!(problem["detail"].as_str().unwrap().contains("authorize"), "{problem}");
    app.admin().post("/v1/connect-sessions", json!({"integration": "none"})).await.problem(404, "not_found");
}

#[tokio::test]
async fn return_urls_that_could_carry_a_code_elsewhere_are_refused() {
    let app = App::start().await;
    app.draft("alice", "authorization_code").await;
    for url in [
        "",
        "app.example/x",
        "http://app.example/x",
        "javascript:alert(1)",
        "https://a@app.example/",
        "https://app.example/#f",
        "data:text/html,x",
    ] {
        let problem = app
            .admin()
            .post(&at("alice", "/authorize"), json!({"owner": "alice", "return_url": url}))
            .await
            .problem(422, "invalid");
        assert_eq!(problem["errors"][0]["field"], "return_url", "{url}");
    }
    for url in ["https://app.example/x?a=b", "http://localhost:3000/", "http://127.0.0.1:1/", "http://[::1]:1/"] {
        app.admin().post(&at("alice", "/authorize"), json!({"owner": "alice", "return_url": url})).await.ok(200);
    }
}

#[tokio::test]
async fn a_head_request_answers_as_get_without_a_body() {
    let app = App::start().await;
    app.draft("m", "client_credentials").await;
    let reply = app.admin().send(Method::HEAD, &at("m", ""), &[], full("")).await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
}

#[tokio::test]
async fn what_was_learnt_stands_apart_and_choices_can_be_made_beforehand() {
    let app = App::start().await;
    let admin = app.admin();
    let base = app.sandbox.base_url();
    let definition = format!(
        "schema = 1\nid = \"sites\"\nname = \"Sites\"\n[[methods]]\ngrant = \"client_credentials\"\n[token]\nurl = \"{base}/token\"\nparams = {{ note = \"{{{{note}}}}\" }}\n\
         [variables.note]\nasked_of = \"connection\"\npresence = \"optional\"\n[api]\nbase_url = \"{base}/api\"\nheaders = {{ X-Site = \"{{{{lookup.site}}}}\" }}\n\
         [[after_connect]]\nname = \"sites\"\npath = \"/sites\"\nchoose = {{ value = \"id\", save = \"site\" }}\n"
    );
    let shown = admin.post("/v1/providers", json!({"definition": definition})).await.ok(201);
    assert_eq!(shown["methods"][0]["choices"], json!(["site"]));
    let mut body = app.integration_body("crm", "client_credentials");
    body["provider"] = "sites".into();
    body["variables"] = json!({});
    admin.post("/v1/integrations", body).await.ok(201);
    let new =
        |choices: Value| json!({"name": "m", "integration": "crm", "variables": {"note": "n"}, "choices": choices});
    admin.post("/v1/connections", new(json!({"sight": "a"}))).await.invalid("choices.sight", "use one of: site");
    admin.post("/v1/connections", new(json!({"site": "a\nb"}))).await.invalid("choices.site", "control characters");
    let made = admin.post("/v1/connections", new(json!({"site": "a"}))).await.ok(201);
    assert_eq!((&made["variables"], &made["learnt"]), (&json!({"note": "n"}), &json!({"lookup.site": "a"})));
    let reserved = json!({"variables": {"lookup.site": "b"}});
    admin.patch("/v1/connections/m", reserved).await.invalid("variables.lookup.site", "there is no such variable");
    let after = admin.patch("/v1/connections/m", json!({"variables": {"note": "x"}})).await.ok(200);
    assert_eq!((&after["variables"], &after["learnt"]), (&json!({"note": "x"}), &json!({"lookup.site": "a"})));
    let after = admin.patch("/v1/connections/m", json!({"choices": {"site": ""}})).await.ok(200);
    assert_eq!((&after["variables"], &after["learnt"]), (&json!({"note": "x"}), &json!({})));
}
