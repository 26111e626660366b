//! A provider that has the browser post its answer, and an account that has several of what a connection needs one of.

use axum::extract::RawQuery;
use axum::response::Html;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::app::{App, full};
use crate::browser::Browser;

const EVIL: &str = "<img src=x onerror=alert(1)>";

/// Its pages are at `localhost`: another site than the server under test, which is at `127.0.0.1`.
async fn provider() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let consent = |RawQuery(query): RawQuery| async move {
        let query = query.unwrap_or_default();
        let value = |name: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        assert_eq!(value("response_mode"), "form_post");
        Html(format!(
            "<!doctype html><title>Provider</title><link rel=\"icon\" href=\"data:,\"><form method=\"post\" action=\"{}\"><input type=\"hidden\" name=\"state\" value=\"{}\">\
             <input type=\"hidden\" name=\"code\" value=\"planted-code\"><button>Allow</button></form>",
            value("redirect_uri"),
            value("state")
        ))
    };
    let token = || async { axum::Json(json!({"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3600})) };
    let sites = || async { axum::Json(json!([{"id": "s-1", "name": "Wonderland"}, {"id": "s-2", "name": EVIL}])) };
    let router = axum::Router::new()
        .route("/authorize", get(consent))
        .route("/token", post(token))
        .route("/revoke", post(|| async { "" }))
        .route("/sites", get(sites));
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

/// An invitation of the provider's.
async fn invited(app: &App) -> (Value, String) {
    let port = provider().await;
    let definition = format!(
        "schema = 1\nid = \"acme\"\nname = \"Acme\"\n[[methods]]\ngrant = \"authorization_code\"\nlabel = \"A person consents\"\n\
         [authorize]\nurl = \"http://localhost:{port}/authorize\"\n[callback]\nresponse_mode = \"form_post\"\n\
         [token]\nurl = \"http://127.0.0.1:{port}/token\"\n[refresh]\nrecovery = \"single_use\"\n[revoke]\nurl = \"http://127.0.0.1:{port}/revoke\"\n\
         [[after_connect]]\nname = \"Sites\"\nurl = \"http://127.0.0.1:{port}/sites\"\nchoose = {{ value = \"/id\", label = \"/name\", save = \"site\" }}\n\
         [api]\nbase_url = \"http://127.0.0.1:{port}/{{{{lookup.site}}}}\"\n"
    );
    app.admin().post("/v1/providers", json!({"definition": definition})).await.ok(201);
    let new = json!({"name": "acme", "provider": "acme", "client_id": "c", "client_secret": "planted-secret"});
    let integration = app.admin().post("/v1/integrations", new).await.ok(201);
    let session = app.admin().post("/v1/connect-sessions", json!({"integration": "acme"})).await.ok(201);
    (session, format!("/callback/{}", integration["id"].as_str().unwrap()))
}

/// Chromium sends a `SameSite=Lax` cookie with the GET that follows a post from another site, not with the post.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_browser_a_posted_answer_comes_back_with_the_cookie_and_one_item_is_chosen_by_keyboard() {
    let app = App::start().await;
    let (session, callback) = invited(&app).await;
    let link = session["url"].as_str().unwrap().to_owned();
    let browser = Browser::start();
    browser.goto(&link);
    browser.click("button", "Continue to Acme");
    browser.wait_url("localhost");
    browser.click("button", "Allow");
    browser.see("Which one shall be connected?");
    assert!(!browser.url().contains("planted-code") && !browser.url().contains(&callback), "{}", browser.url());
    assert!(browser.text().contains(EVIL), "shown as text");
    assert_eq!(browser.count("img"), 0);
    browser.click("button", "Continue");
    assert!(browser.url().contains("/connect/"), "nothing was chosen, so nothing was sent");
    browser.eval("document.querySelector('input[type=radio]').focus()");
    browser.press("ArrowDown");
    browser.press("Enter");
    browser.click("button", "Yes, connect it");
    browser.see("is connected");
    assert_eq!(browser.console_errors(), Vec::<String>::new());
    let shown = app.admin().get(&format!("/v1/connections/{}", session["connection"].as_str().unwrap())).await.ok(200);
    assert_eq!(shown["state"], "connected");
    assert!(shown.to_string().contains("s-2"), "{shown}");
}

#[tokio::test]
async fn a_posted_answer_that_nobody_waits_for_is_refused() {
    let app = App::start().await;
    let (session, callback) = invited(&app).await;
    let person = app.person();
    let left = person.post(session["url"].as_str().unwrap(), &[]).await;
    let state = left.parameter("state").unwrap();
    let elsewhere = [("origin", "http://localhost"), ("sec-fetch-site", "cross-site")];
    for (form, status) in [
        (vec![("code", "c-1")], 400),
        (vec![("code", "c-1"), ("state", "a"), ("state", "b")], 400),
        (vec![("code", "c-1"), ("state", "made-up")], 410),
    ] {
        assert_eq!(person.post_with(&callback, &elsewhere, &form).await.status, status, "{form:?}");
    }
    let huge = "a".repeat(30_000);
    assert_eq!(person.post_with(&callback, &elsewhere, &[("code", &huge)]).await.status, 413);
    let bytes = app.anonymous().send(http::Method::POST, &callback, &[], full(vec![0xff, 0xfe])).await;
    assert_eq!(bytes.status, 400);
    // Another browser follows the address: it has no cookie, and the answer is spent.
    let posted = person.post_with(&callback, &elsewhere, &[("code", "c-1"), ("state", &state)]).await;
    assert_eq!((posted.status, posted.parameter("code")), (303, None));
    let back = posted.location().unwrap();
    assert_eq!(app.person().get(back.as_str()).await.status, 403);
    assert_eq!(person.get(back.as_str()).await.status, 410);

    app.integration("crm", "authorization_code").await;
    let session = app.admin().post("/v1/connect-sessions", json!({"integration": "crm"})).await.ok(201);
    let left = person.post(session["url"].as_str().unwrap(), &[]).await;
    let redirect_uri = left.parameter("redirect_uri").unwrap();
    let state = left.parameter("state").unwrap();
    let page = person.post_with(&redirect_uri, &elsewhere, &[("code", "c-1"), ("state", &state)]).await;
    assert_eq!(page.status, 409, "{page:?}");
    assert!(page.text().contains("form_post"), "{page:?}");
}
