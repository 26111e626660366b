//! Texts of providers and APIs that are meant for a browser: on every page that shows them they are texts.

use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::provider::Provider;
use super::{no_errors, owner};
use crate::app::App;
use crate::browser::Browser;

const EVIL: &str = "</pre></title><script>window.ran=1</script><img src=x onerror=window.ran=1>\u{202e}\"' onfocus=window.ran=1 autofocus x='";

/// The page shows it, and nothing of it ran or became markup. (A violation of the policy would stand among the errors.)
#[track_caller]
fn harmless(browser: &Browser, shows: &str) {
    let url = browser.url();
    let text = browser.eval("document.documentElement.textContent");
    assert!(text.as_str().unwrap().contains(shows), "{url} doesn't show it:\n{}", browser.text());
    assert_eq!(browser.count("img[src=x], [onfocus], [onerror], pre ~ title"), 0, "{url}");
    assert!(browser.count("script") <= 1, "{url}");
    assert_eq!(browser.eval("window.ran ?? null"), Value::Null, "{url}");
    no_errors(browser);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_says_is_text_on_every_page() {
    let app = App::start().await;
    let provider = Provider::start().await;
    let definition = provider.definition(EVIL, EVIL);
    provider.set_up(&app, &definition, "machine", "client_credentials").await;
    let person = json!({"name": "person", "provider": "acme", "method": "authorization_code", "client_id": "c", "client_secret": "s3cret", "scopes": ["read"]});
    app.admin().post("/v1/integrations", person).await.ok(201);
    app.admin().post("/v1/connections", json!({"name": "person", "integration": "person"})).await.ok(201);
    let session = app.admin().post("/v1/connect-sessions", json!({"integration": "person"})).await.ok(201);
    provider.token(200, json!({"access_token": "a", "expires_in": 3600, "scope": format!("read {}", EVIL.replace(' ', "\u{a0}")), "token_type": "Bearer"}));
    app.admin().post("/v1/connections/machine/authorize", json!({})).await.ok(200);
    let refusal = json!({"error": "invalid_client", "error_description": EVIL, "error_uri": "javascript:window.ran=1"});
    provider.token(401, refusal);
    app.admin().post("/v1/connections/machine/refresh", json!({})).await;
    provider.api(401, "application/json", json!({"error": EVIL}).to_string());
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        let name = "<script>window.ran=1</script>";
        for path in [
            "providers",
            "providers/acme",
            "connections/new/acme",
            "integrations/machine",
            "integrations/machine/edit",
            "connections/machine",
            "connections/machine/edit",
            "connections/machine/authorize",
            "connections/machine/disconnect",
            "connections",
        ] {
            let status = browser.goto(&format!("{}/console/{path}", app.url));
            assert_eq!(status, 200, "{path}");
            harmless(
                &browser,
                if path.starts_with("connections/machine/") && !path.ends_with("authorize") { "machine" } else { name },
            );
        }
        for path in ["", "integrations", "usage", "audit", "advice"] {
            browser.goto(&format!("{}/console/{path}", app.url));
            harmless(&browser, "");
        }
        // Its refusals, in a test and in the consent of a person.
        browser.goto(&format!("{}/console/connections/machine/test", app.url));
        browser.click("button", "Run the test");
        browser.see("The last step failed.");
        harmless(&browser, name);
        provider.refuse("access_denied", EVIL);
        let person = browser.second_person();
        person.goto(session["url"].as_str().unwrap());
        harmless(&person, name);
        let on = person.eval("document.querySelector('form button').click(), 0");
        assert_eq!(on, json!(0));
        person.wait_url("/callback/");
        person.see("mind");
        harmless(&person, name);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_of_html_and_of_bytes_are_looked_at_without_being_opened() {
    let app = App::start().await;
    let provider = Provider::start().await;
    provider.set_up(&app, &provider.definition("Acme", "It says so"), "crm", "client_credentials").await;
    app.admin().post("/v1/connections/crm/authorize", json!({})).await.ok(200);
    let source = json!({"name": "api", "connection": "crm", "requests": {"one": {"path": "/any"}}});
    app.admin().post("/v1/data-sources", source).await.ok(201);
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/sources/api/requests/one/run", app.url));
        let page = format!(
            "<!doctype html><title>{EVIL}</title><h1>Sign in</h1><form action=/console/sign-out method=post><button>Go</button></form>"
        );
        let bytes: &[u8] = b"\x89PNG\r\n\x1a\n\x00<script>window.ran=1</script>\xff\xfe";
        let large = format!("[{}\"last\"]", "\"0123456789\", ".repeat(200_000));
        let run = |kind: &'static str, body: Vec<u8>, sees: &str| {
            provider.api(200, kind, body);
            browser.click("button", "Run it");
            browser.see(sees);
            harmless(&browser, sees);
        };
        run("text/html; charset=utf-8", page.clone().into_bytes(), "<h1>Sign in</h1>");
        assert_eq!(browser.count("main form"), 1, "the runner's own");
        run("image/svg+xml", page.into_bytes(), "<!doctype html>");
        run("image/png", bytes.to_vec(), "not shown, because it is no text");
        run("text/html", bytes.to_vec(), "not shown, because it is no text");
        run("application/json", json!({"name": EVIL}).to_string().into_bytes(), "window.ran=1");
        run("application/json", large.into_bytes(), "only the beginning is shown");
        run("text/plain", Vec::new(), "0 bytes");
        super::sound(&browser);
    });
}
