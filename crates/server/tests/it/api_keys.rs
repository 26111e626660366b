//! API keys, the audit and the doctor on the wire.

use serde_json::{Value, json};

use crate::app::{App, Caller, full};

#[tokio::test]
async fn a_key_is_seen_once_and_works_until_it_is_revoked() {
    let app = App::start().await;
    let admin = app.admin();
    let made = admin.post("/v1/keys", json!({"name": "ci", "scopes": ["read", "token"]})).await.ok(201);
    let key = made["key"].as_str().unwrap().to_owned();
    assert!(key.starts_with("khk_") && key.len() > 40, "{}", key.len());
    assert!(key.starts_with(made["hint"].as_str().unwrap()) && made["hint"].as_str().unwrap().len() < 12);
    let ci = Caller::of(&app.url, Some(key.clone()));
    ci.get("/v1/connections").await.ok(200);

    let list = admin.get("/v1/keys").await;
    assert!(!list.text().contains(&key));
    let list = list.ok(200);
    let listed = list["items"].as_array().unwrap().iter().find(|it| it["name"] == "ci").unwrap();
    assert!(listed.get("key").is_none());
    admin.post("/v1/keys", json!({"name": "ci", "scopes": ["read"]})).await.problem(409, "name_taken");

    let revoked = admin.delete("/v1/keys/ci").await.ok(200);
    assert!(revoked["revoked_at"].as_i64().is_some() && revoked.get("key").is_none());
    let problem = ci.get("/v1/connections").await.problem(401, "unauthenticated");
    assert!(problem["detail"].as_str().unwrap().contains("revoked"));
    // The name is free again, and the old key stays dead.
    admin.post("/v1/keys", json!({"name": "ci", "scopes": ["read"]})).await.ok(201);
    ci.get("/v1/connections").await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn what_makes_no_key_is_refused_by_field() {
    let app = App::start().await;
    for (body, field) in [
        (json!({"name": "a/b", "scopes": ["read"]}), "name"),
        (json!({"name": "k", "scopes": []}), "scopes"),
        (json!({"name": "k", "scopes": ["everything"]}), "scopes"),
        (json!({"name": "k", "scopes": ["read"], "expires_at": 1}), "expires_at"),
        (json!({"name": "k", "scopes": ["call"], "limits": {"methods": ["get"]}}), "limits.methods"),
        (json!({"name": "k", "scopes": ["call"], "limits": {"paths": ["v3"]}}), "limits.paths"),
        (json!({"name": "k", "scopes": ["call"], "limits": {"per_second": 0}}), "limits.per_second"),
        (json!({"name": "k", "scopes": ["call"], "limits": {"per_second": -2.5}}), "limits.per_second"),
        (json!({"name": "k", "scopes": ["call"], "limits": {"per_second": 1e300}}), "limits.per_second"),
        (json!({"name": "k", "scopes": ["call"], "limits": {"concurrent": 0}}), "limits.concurrent"),
    ] {
        let problem = app.admin().post("/v1/keys", body).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
    for limits in
        [json!({"concurrent": -1}), json!({"concurrent": 1.5}), json!({"per_second": "fast"}), json!({"burst": 1})]
    {
        let reply = app.admin().post("/v1/keys", json!({"name": "k", "scopes": ["call"], "limits": limits})).await;
        assert!(matches!(reply.status, 400 | 422), "{}", reply.text());
    }
    assert_eq!(app.admin().get("/v1/keys").await.ok(200)["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_calls_too_often_is_told_when_to_come_again() {
    let app = App::start().await;
    app.machine("m").await;
    let caller = app.limited_key(&["call", "token"], json!({"per_second": 0.01})).await;
    caller.get("/v1/connections/m/proxy/me").await.ok(200);
    for path in ["/v1/connections/m/proxy/me", "/v1/connections/m/token"] {
        let reply = caller.get(path).await;
        let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((90..=100).contains(&seconds), "{seconds}");
        let problem = reply.problem(429, "key_limited");
        assert!(problem["detail"].as_str().unwrap().contains("than its limits allow; try again in"), "{problem}");
    }
    let listed = app.admin().get("/v1/keys").await.ok(200);
    assert_eq!(listed["items"][1]["limits"]["per_second"], 0.01);

    let made = app.command(&["key", "create", "slow", "--scope", "call", "--per-second", "2.5", "--concurrent", "3"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let table = app.command(&["key", "list"]).out;
    assert!(table.contains("2.5 a second; 3 at once"), "{table}");
    let refused = app.command(&["key", "create", "none", "--scope", "call", "--concurrent", "0"]);
    assert!(refused.code == Some(1) && refused.err.contains("limits.concurrent"), "{refused:?}");
}

#[tokio::test]
async fn limits_hold_for_every_way_to_a_connection() {
    let app = App::start().await;
    app.machine("mine").await;
    app.machine("other").await;
    let limits = json!({"connections": ["mine"], "methods": ["GET"], "paths": ["/echo"]});
    let caller = app.limited_key(&["read", "manage", "token", "call"], limits).await;
    caller.get("/v1/connections/mine/token").await.ok(200);
    caller.get("/v1/connections/mine/proxy/echo/deep").await.ok(200);
    for path in ["", "/token", "/events", "/proxy/echo"] {
        let problem = caller.get(&format!("/v1/connections/other{path}")).await.problem(403, "limited");
        assert!(problem["detail"].as_str().unwrap().contains("other connections"), "{path}: {problem}");
    }
    for verb in ["authorize", "refresh", "test", "revoke"] {
        caller.post(&format!("/v1/connections/other/{verb}"), json!({})).await.problem(403, "limited");
    }
    caller.delete("/v1/connections/other").await.problem(403, "limited");
    caller.patch("/v1/connections/other", json!({})).await.problem(403, "limited");
    caller.get("/v1/connections/mine/proxy/me").await.problem(403, "limited");
    caller.get("/v1/connections/mine/proxy/echo-not").await.problem(403, "limited");
    caller.send(http::Method::POST, "/v1/connections/mine/proxy/echo", &[], full("")).await.problem(403, "limited");
    let list = caller.get("/v1/connections").await.ok(200);
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["mine"], "what a key can't use it doesn't see");
    let refusals = app.audit().await.into_iter().filter(|row| row["outcome"] == "refused").count();
    assert!(refusals >= 11, "every refusal is on the record: {refusals}");
    assert_eq!(app.state("other").await, "connected");
}

#[tokio::test]
async fn the_audit_is_read_forwards_from_a_cursor() {
    let app = App::start().await;
    app.machine("m").await;
    let admin = app.admin();
    let newest = admin.get("/v1/audit?limit=2").await.ok(200);
    assert_eq!(newest["items"].as_array().unwrap().len(), 2);
    assert_eq!(newest["items"][0]["action"], "connection.authorize", "newest first");
    let cursor = newest["next"].as_str().unwrap().to_owned();
    assert_eq!(cursor, newest["items"][0]["id"].as_str().unwrap());
    let none = admin.get(&format!("/v1/audit?after={cursor}")).await.ok(200);
    assert_eq!(none, json!({"items": [], "next": null}));
    admin.get("/v1/connections/m/token").await.ok(200);
    admin.post("/v1/connections/m/refresh", json!({})).await.ok(200);
    let more = admin.get(&format!("/v1/audit?after={cursor}")).await.ok(200);
    let actions: Vec<_> = more["items"].as_array().unwrap().iter().map(|it| it["action"].clone()).collect();
    assert_eq!(actions, ["token.read", "connection.refresh"], "oldest first");
    assert!(more["next"].as_str().unwrap() > cursor.as_str());
}

#[tokio::test]
async fn the_audit_is_filtered_and_read_backwards() {
    let app = App::start().await;
    app.machine("m").await;
    app.machine("other").await;
    let (admin, reader) = (app.admin(), app.key(&["token"]).await);
    for _ in 0..5 {
        reader.get("/v1/connections/m/token").await.ok(200);
        admin.get("/v1/connections/other/token").await.ok(200);
    }
    reader.get("/v1/keys").await.problem(403, "forbidden");
    let of = async |query: &str| {
        let page = admin.get(&format!("/v1/audit?limit=200&{query}")).await.ok(200);
        page["items"].as_array().unwrap().iter().map(|it| it["action"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("connection=m&action=token.read").await.len(), 5);
    assert_eq!(of("action=token").await.len(), 10);
    assert_eq!(of("action=tok").await, Vec::<String>::new());
    assert_eq!(of("outcome=refused").await, ["access.refused"]);
    assert_eq!(of("since=99999999999999").await, Vec::<String>::new());
    let first = admin.get("/v1/audit?order=oldest&limit=1").await.ok(200);
    let whole = of("").await;
    assert_eq!(first["items"][0]["action"], whole.last().unwrap().as_str());
    let refused = admin.get("/v1/audit?outcome=refused").await.ok(200)["items"][0].clone();
    let (name, key) = (refused["actor"].as_str().unwrap(), refused["key_id"].as_str().unwrap());
    assert_eq!((of(&format!("caller={name}")).await.len(), of(&format!("caller={key}")).await.len()), (6, 6));

    // Back in time, page by page, each record once.
    let (mut seen, mut before) = (Vec::new(), None::<String>);
    loop {
        let cursor = before.map(|before| format!("&before={before}")).unwrap_or_default();
        let page = admin.get(&format!("/v1/audit?limit=4{cursor}")).await.ok(200);
        seen.extend(page["items"].as_array().unwrap().iter().map(|it| it["action"].as_str().unwrap().to_owned()));
        before = page["older"].as_str().map(str::to_owned);
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, whole);
    for (query, field) in
        [("after=x", "after"), ("before=x", "before"), ("after=x&before=y", "before"), ("order=up", "order")]
    {
        let problem = admin.get(&format!("/v1/audit?{query}")).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
}

#[tokio::test]
async fn usage_is_summed_up() {
    let app = App::start().await;
    app.machine("m").await;
    app.machine("other").await;
    let admin = app.admin();
    for name in ["m", "m", "other"] {
        admin.get(&format!("/v1/connections/{name}/token")).await.ok(200);
    }
    let of = async |query: &str| {
        let page = admin.get(&format!("/v1/usage?{query}")).await.ok(200);
        let line = |it: &Value| (it["name"].as_str().unwrap_or_default().to_owned(), it["hand_outs"].as_i64().unwrap());
        let mut lines: Vec<_> = page["items"].as_array().unwrap().iter().map(line).collect();
        lines.sort_unstable();
        (page["by"].as_str().unwrap().to_owned(), lines)
    };
    let (m, other) = (("m".to_owned(), 2), ("other".to_owned(), 1));
    assert_eq!(of("").await, ("connection".to_owned(), vec![m.clone(), other]));
    assert_eq!(of("connection=m").await, ("connection".to_owned(), vec![m]));
    let callers = vec![(String::new(), 0), ("administrator".to_owned(), 3)];
    assert_eq!(of("by=caller").await, ("caller".to_owned(), callers), "renewals are nobody's");
    assert_eq!(of("to=0").await.1, []);
    admin.get("/v1/usage?by=day").await.problem(422, "invalid");
    admin.get("/v1/usage?from=2&to=1").await.problem(422, "invalid");
    app.key(&["read", "manage", "token", "call"]).await.get("/v1/usage").await.problem(403, "forbidden");
}

#[tokio::test]
async fn every_change_is_on_the_record() {
    let app = App::start().await;
    let admin = app.admin();
    app.consented("alice").await;
    admin.patch("/v1/connections/alice", json!({})).await.ok(200);
    admin.get("/v1/connections/alice/token").await.ok(200);
    admin.get("/v1/connections/alice/proxy/me?q=s3cret").await.ok(200);
    admin.post("/v1/connections/alice/test", json!({})).await.ok(200);
    let integration = admin.get("/v1/connections/alice").await.ok(200)["integration"].as_str().unwrap().to_owned();
    admin.patch(&format!("/v1/integrations/{integration}"), json!({})).await.ok(200);
    admin.post("/v1/connect-sessions", json!({"integration": integration})).await.ok(201);
    admin.post("/v1/connections/alice/revoke", json!({})).await.ok(200);
    admin.delete("/v1/connections/alice").await.ok(204);
    admin.post("/v1/keys", json!({"name": "k", "scopes": ["read"]})).await.ok(201);
    admin.delete("/v1/keys/k").await.ok(200);
    let audit = app.audit().await;
    assert!(!json!(audit).to_string().contains("s3cret"), "a query may hold a secret: it is not recorded");
    let actions: Vec<&str> = audit.iter().map(|row| row["action"].as_str().unwrap()).collect();
    for action in [
        "integration.create",
        "integration.edit",
        "connection.create",
        "connection.edit",
        "connection.authorize",
        "connection.confirm",
        "token.read",
        "proxy.call",
        "connection.test",
        "session.create",
        "connection.revoke",
        "connection.remove",
        "key.create",
        "key.revoke",
    ] {
        assert!(actions.contains(&action), "{action} is missing in {actions:?}");
    }
    let confirm = audit.iter().find(|row| row["action"] == "connection.confirm").unwrap();
    assert_eq!(confirm["actor"], "person");
}

#[tokio::test]
async fn the_doctor_names_what_is_wrong_and_what_to_do() {
    let app = App::start().await;
    app.machine("m").await;
    app.draft("broken", "client_credentials").await;
    app.fault("token=error:invalid_client,times=1");
    app.admin().post("/v1/connections/broken/authorize", json!({})).await.problem(502, "setup_refused");
    let report = app.admin().get("/v1/doctor").await.ok(200);
    let checks = report["checks"].as_array().unwrap();
    let verdict =
        |name: &str| checks.iter().find(|it| it["name"] == name).map_or(Value::Null, |it| it["verdict"].clone());
    assert_eq!((verdict("database"), verdict("sealing"), verdict("escrow")), (json!("ok"), json!("ok"), json!("ok")));
    assert_eq!(verdict("public URL"), "warning", "plain http is fine here, but not out there");
    let broken = checks.iter().find(|it| it["verdict"] == "problem").expect("the broken connection");
    assert!(broken["message"].as_str().unwrap().contains("`broken`"), "{broken}");
    assert!(broken["remedy"].as_str().unwrap().contains("client secret"), "{broken}");
}

/// A page that holds only what the key can't see must not look like the end of the list.
#[tokio::test]
async fn a_limited_key_finds_its_connection_behind_others() {
    let app = App::start().await;
    for name in ["a", "b", "c", "d"] {
        app.draft(name, "client_credentials").await;
    }
    let caller = app.limited_key(&["read"], json!({"connections": ["d"]})).await;
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let page = caller.get(&format!("/v1/connections?limit=1&after={after}")).await.ok(200);
        found.extend(page["items"].as_array().unwrap().iter().map(|it| it["name"].clone()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(found, ["d"]);
}

#[tokio::test]
async fn advice_is_told_with_its_reason_and_where_it_is_mended() {
    let app = App::start().await;
    app.draft("crm", "password").await;
    let all = app.admin().get("/v1/advice").await.ok(200);
    let items = all["items"].as_array().unwrap();
    let of = |rule: &str| items.iter().find(|it| it["rule"] == rule).unwrap_or_else(|| panic!("no {rule}: {all}"));
    let password = of("password_grant");
    assert_eq!((&password["severity"], &password["on"]["kind"]), (&json!("medium"), &json!("integration")));
    assert_eq!(
        (&password["source"], &password["page"]),
        (&json!("RFC 9700 §2.4"), &json!("/console/connections/new/oauth2"))
    );
    assert!(
        ["text", "reason", "remedy"].iter().all(|field| !password[field].as_str().unwrap().is_empty()),
        "{password}"
    );
    assert_eq!(of("key_unlimited")["on"]["kind"], json!("key"));
    // About keys only for who may see them.
    let seen = app.key(&["read"]).await.get("/v1/advice").await.ok(200);
    assert!(seen["items"].as_array().unwrap().iter().all(|it| it["on"]["kind"] != "key"), "{seen}");
    app.key(&["call", "token"]).await.get("/v1/advice").await.problem(403, "forbidden");
}
