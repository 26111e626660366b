//! Every route of the table, whatever is added to it: no key, the wrong key, the right key, the wrong method.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyholder::http::{Route, table};
use serde_json::json;

use crate::app::{App, full};
use crate::person::Person;

const SCOPES: [&str; 4] = ["read", "manage", "token", "call"];

fn method(route: &Route) -> http::Method {
    let word = if route.method == "any" { "get" } else { route.method };
    word.to_uppercase().parse().unwrap()
}

/// The path with something for each parameter that nothing is named by.
fn path(route: &Route) -> String {
    let parts = route.path.split('/').map(|part| if part.starts_with('{') { "nothing" } else { part });
    let path = parts.collect::<Vec<_>>().join("/");
    // What happens to nothing is told at once.
    if path.ends_with("/events") && !path.contains("nothing") { format!("{path}?connection=nothing") } else { path }
}

fn body(route: &Route) -> crate::app::Body {
    full(if route.method == "post" || route.method == "patch" { "{}" } else { "" })
}

#[tokio::test]
async fn every_route_under_v1_asks_for_a_key() {
    let app = App::start().await;
    for route in table().iter().filter(|route| route.scope.is_some()) {
        let reply = app.anonymous().send(method(route), &path(route), &[], body(route)).await;
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"), "{} {}", route.method, route.path);
        let problem = reply.problem(401, "unauthenticated");
        assert!(problem["detail"].as_str().unwrap().contains("Authorization: Bearer"), "{problem}");
    }
}

#[tokio::test]
async fn a_key_that_was_never_made_opens_nothing() {
    let app = App::start().await;
    let mut stranger = app.anonymous();
    stranger.key = Some("khk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned());
    for route in table().iter().filter(|route| route.scope.is_some()) {
        let problem =
            stranger.send(method(route), &path(route), &[], body(route)).await.problem(401, "unauthenticated");
        assert!(problem["detail"].as_str().unwrap().contains("KEYHOLDER_API_KEY"), "{problem}");
    }
}

/// The permission matrix: all scopes but the route's own are refused, on the record; the route's own alone gets past.
#[tokio::test]
async fn each_route_takes_exactly_its_scope() {
    let app = App::start().await;
    for route in table() {
        let Some(scope) = route.scope.map(|scope| scope.as_str()) else { continue };
        let others: Vec<_> = SCOPES.into_iter().filter(|other| *other != scope).collect();
        let place = format!("{} {}", route.method, route.path);

        let lacking = app.key(&others).await;
        let problem = lacking.send(method(&route), &path(&route), &[], body(&route)).await.problem(403, "forbidden");
        assert!(problem["detail"].as_str().unwrap().contains(&format!("`{scope}`")), "{place}: {problem}");
        let newest = app.audit().await.into_iter().find(|row| row["action"] == "access.refused").unwrap();
        assert_eq!((&newest["object"], &newest["outcome"]), (&json!(scope), &json!("refused")), "{place}");

        let having = app.key(&[scope]).await;
        let reply = having.send(method(&route), &path(&route), &[], body(&route)).await;
        assert!(!matches!(reply.status, 401 | 403 | 405), "{place}: {} {}", reply.status, reply.text());
        assert!(!reply.text().contains("no_route"), "{place}: {}", reply.text());
    }
}

/// The administrator's scope holds all others.
#[tokio::test]
async fn the_administrator_gets_past_every_route() {
    let app = App::start().await;
    for route in table().iter().filter(|route| route.scope.is_some()) {
        let reply = app.admin().send(method(route), &path(route), &[], body(route)).await;
        assert!(!matches!(reply.status, 401 | 403 | 405), "{} {}: {}", route.method, route.path, reply.text());
    }
}

#[tokio::test]
async fn open_routes_answer_without_a_key() {
    let app = App::start().await;
    for route in table().iter().filter(|route| route.scope.is_none()) {
        let reply = app.anonymous().send(method(route), &path(route), &[], body(route)).await;
        assert!(!matches!(reply.status, 401 | 405 | 500), "{} {}: {}", route.method, route.path, reply.text());
    }
    assert_eq!(app.anonymous().get("/healthz").await.ok(200)["status"], "ok");
    assert_eq!(app.anonymous().get("/readyz").await.ok(200)["status"], "ok");
}

#[tokio::test]
async fn an_unknown_path_is_a_problem_document() {
    let app = App::start().await;
    for path in ["/v1", "/v1/", "/v2/connections", "/v1/nothing", "/v1/connections/a/b/c", "/assets/other.css"] {
        let problem = app.admin().get(path).await.problem(404, "no_route");
        assert!(problem["detail"].as_str().unwrap().contains("/openapi.json"), "{path}");
        app.anonymous().get(path).await.problem(404, "no_route");
    }
}

#[tokio::test]
async fn a_wrong_method_is_a_problem_document_that_names_the_right_ones() {
    let app = App::start().await;
    for route in table().iter().filter(|route| route.method != "any") {
        let reply = app.admin().send(http::Method::PUT, &path(route), &[], full("{}")).await;
        let allowed = reply.header("allow").map(str::to_owned);
        reply.problem(405, "no_method");
        // RFC 9110 §15.5.6: the field is a must.
        let allowed = allowed.unwrap_or_else(|| panic!("{}: no Allow", route.path));
        assert!(allowed.contains(&route.method.to_uppercase()), "{}: {allowed}", route.path);
    }
}

/// Somebody who is signed in with these scopes, and what forms of the session carry.
async fn signed_in(app: &App, scopes: &[&str]) -> (Person, String) {
    let made = app.admin().post("/v1/operators/links", json!({"scopes": scopes})).await.ok(201);
    let person = app.person();
    let form = [("name", app.unique("somebody")), ("password", "correct horse battery".to_owned())];
    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let joined = person.post(made["url"].as_str().unwrap(), &form).await;
    assert_eq!(joined.status, 303, "{joined:?}");
    let token = person.cookies()["keyholder-console"].clone();
    (person, URL_SAFE_NO_PAD.encode(keyholder_oauth::sha256(format!("csrf {token}").as_bytes())))
}

/// The permission matrix of the console's pages.
#[tokio::test(flavor = "multi_thread")]
async fn each_page_lets_in_whoever_may_and_nobody_else() {
    const ROLES: [&str; 4] = ["read", "manage", "call", "admin"];
    let app = App::start().await;
    for route in table() {
        let Some(scope) = route.person.map(|scope| scope.as_str()) else { continue };
        let (place, path) = (format!("{} {}", route.method, route.path), path(&route));
        let ask = async |person: &Person, csrf: &str| match route.method {
            "post" => person.post(&path, &[("csrf", csrf)]).await,
            _ => person.get(&path).await,
        };
        let stranger = ask(&app.person(), "").await;
        match route.method {
            "post" => assert_eq!(stranger.status, 403, "{place}"),
            _ => {
                assert_eq!(stranger.status, 303, "{place}");
                assert!(stranger.reply.header("location").unwrap().starts_with("/console/sign-in"), "{place}");
            }
        }
        let others: Vec<_> = ROLES.into_iter().filter(|role| *role != scope && *role != "admin").collect();
        let (person, csrf) = signed_in(&app, &others).await;
        assert_eq!(ask(&person, &csrf).await.status, 403, "{place}: for those who may {others:?}");
        let (person, csrf) = signed_in(&app, &[scope]).await;
        if route.method == "post" {
            assert_eq!(ask(&person, "").await.status, 403, "{place}: without what forms carry");
            let elsewhere = person.post_with(&path, &[("sec-fetch-site", "cross-site")], &[("csrf", &csrf)]).await;
            assert_eq!(elsewhere.status, 403, "{place}: from elsewhere");
        }
        let status = ask(&person, &csrf).await.status;
        assert!(!matches!(status, 401 | 403 | 405 | 500), "{place}: {status} for whoever may {scope}");
    }
}

/// What a session that somebody left open can't do: every form that gives access away or ends it, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn dangerous_forms_ask_again_after_ten_minutes() {
    const DANGEROUS: [&str; 12] = [
        "/console/callers/new",
        "/console/callers/{key}/revoke",
        "/console/connections/{connection}/disconnect",
        "/console/connections/{connection}/remove",
        "/console/integrations/{integration}/remove",
        "/console/settings/passkeys/new",
        "/console/settings/passkeys/{passkey}/remove",
        "/console/settings/password",
        "/console/settings/people/new",
        "/console/settings/people/{person}/link",
        "/console/settings/people/{person}/remove",
        "/console/settings/people/{person}/role",
    ];
    let (app, clock) = App::on_a_clock().await;
    let (person, csrf) = signed_in(&app, &["admin"]).await;
    clock.advance(std::time::Duration::from_secs(601));
    let mut asking = Vec::new();
    for route in table().iter().filter(|route| route.person.is_some() && route.method == "post") {
        // These end the session, or its server's peace.
        if ["/console/sign-out", "/console/settings/sessions"].contains(&route.path) {
            continue;
        }
        let path = path(route);
        let asked = person.post(&path, &[("csrf", &csrf), ("name", "kept")]).await;
        let asks = asked.text().contains("Confirm that it is you");
        assert_eq!(asks, route.dangerous, "{path}");
        if asks {
            assert_eq!(asked.status, 403, "{path}");
            assert!(asked.text().contains("<input type=\"hidden\" name=\"name\" value=\"kept\">"), "{path}");
            let guess = [("csrf", "x"), ("again.password", "correct horse battery")];
            assert_eq!(person.post(&path, &guess).await.status, 403, "{path}: another page's form tries no password");
            asking.push(route.path);
        }
    }
    asking.sort_unstable();
    assert_eq!(asking, DANGEROUS);
    let form = [("csrf", csrf.as_str()), ("again.password", "correct horse battery"), ("role", "viewer")];
    assert_eq!(person.post("/console/settings/people/new", &form).await.status, 200);
    let refused = app.audit().await.iter().filter(|row| row["action"] == "operator.prove").count();
    assert_eq!(refused, 1, "the right one alone was looked at");
}
