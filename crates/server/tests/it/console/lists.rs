//! Lists and the first page.

use serde_json::json;

use super::sign_in::second;
use super::{owner, sound};
use crate::app::App;
use crate::browser::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_card_ends_with_a_connection_that_works() {
    let app = App::configured(|config| config.sandbox = true).await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.click("button", "Try the sandbox");
        browser.see("The sandbox runs, and two connections were made");
        assert_eq!(browser.text_of("h1"), "sandbox-app");
        sound(&browser);
        browser.click("button", "Test");
        browser.see("All steps held.");
    });
    assert_eq!((app.state("sandbox-app").await, app.state("sandbox-user").await), ("connected".into(), "draft".into()));
    // The API behind it answers.
    let reply = app.admin().get("/v1/connections/sandbox-app/proxy/me").await;
    assert!(reply.status < 500, "{}", reply.text());
    tokio::task::block_in_place(|| {
        // What was said is said once.
        browser.goto(&format!("{}/console/connections", app.url));
        assert!(!browser.text().contains("The sandbox runs"));
        browser.goto(&format!("{}/console/", app.url));
        browser.see("How things stand");
        sound(&browser);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_sandbox_the_card_says_how() {
    let app = App::configured(|config| config.sandbox = false).await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.see("keyholder sandbox");
        assert_eq!(browser.count("button:text-is('Try the sandbox')"), 0);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_searched_narrowed_and_paged() {
    let app = App::start().await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/integrations", app.url));
        browser.see("There is no integration yet.");
        sound(&browser);
    });
    app.machine("machine").await;
    let integration = app.unique("many");
    app.integration(&integration, "client_credentials").await;
    let hostile = ["<script>alert(1)<∕script>", "\u{202e}gnp.exe", &"w".repeat(100), "a\"b'c&amp;"];
    for name in hostile.iter().map(|name| (*name).to_owned()).chain((0..60).map(|number| format!("row-{number:02}"))) {
        let body = json!({"name": name, "integration": integration, "owner": format!("owner of {name}"), "tags": {"env": if name == "row-07" { "prod" } else { "test" }}});
        app.admin().post("/v1/connections", body).await.ok(201);
    }
    tokio::task::block_in_place(|| {
        let open = |query: &str| browser.goto(&format!("{}/console/connections{query}", app.url));
        open("");
        for name in hostile {
            browser.see(name);
        }
        assert_eq!(browser.count("tbody tr"), 50);
        sound(&browser);
        browser.click("link", "Next");
        browser.wait_url("after=");
        assert_eq!(browser.count("tbody tr"), 15);
        browser.click("link", "To the beginning");
        browser.fill("Search", "ROW-1");
        browser.press("Enter");
        browser.wait_url("search=ROW-1");
        assert_eq!(browser.count("tbody tr"), 10);
        open("");
        browser.fill("Tag", "env=prod");
        browser.press("Enter");
        browser.wait_url("tag=env%3Dprod");
        assert_eq!(browser.text_of("tbody th a"), "row-07");
        open("");
        browser.select("State", "Connected");
        browser.wait_url("state=connected");
        assert_eq!(browser.text_of("tbody th a"), "machine");
        for (query, rows) in [
            ("?provider=oauth2&state=connected", 1),
            ("?provider=nobody", 0),
            ("?integration=nobody", 0),
            ("?state=nonsense", 0),
            ("?owner=owner%20of%20row-01", 1),
        ] {
            assert_eq!(open(query), 200);
            assert_eq!(browser.count("tbody tr"), rows, "{query}");
        }
        browser.goto(&format!("{}/console/connections?search=%25", app.url));
        browser.see("Nothing fits what you asked for.");
        sound(&browser);
        browser.goto(&format!("{}/console/integrations", app.url));
        browser.see(&integration);
        sound(&browser);
    });
    let failing = app.admin().post("/v1/connections", json!({"name": "hopeless", "integration": integration})).await;
    failing.ok(201);
    app.fault("token=error:invalid_client");
    app.admin().post("/v1/connections/machine/refresh", json!({})).await;
    let bob = browser.second_person();
    second(&app, &bob, "Bob", &["read"]).await;
    tokio::task::block_in_place(|| {
        bob.see("How things stand");
        assert_eq!(bob.count("a.button"), 1, "the menu's button alone");
        sound(&bob);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_page_has_advice_and_what_happened_last() {
    let app = App::start().await;
    app.machine("crm").await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/", app.url));
        browser.see("What happened last");
        assert!(browser.text_of(".timeline").contains("crm"), "{}", browser.text_of(".timeline"));
        let advice = browser.text_of("section[aria-labelledby=advice]");
        assert!(advice.contains("This key") && advice.contains("NIST SP 800-53 AC-6"), "{advice}");
        sound(&browser);
        browser.click_selector("section[aria-labelledby=advice] a[href='/console/callers/new']");
        browser.wait_url("/console/callers/new");
    });
    // What happens stands there without a reload.
    tokio::task::block_in_place(|| {
        browser.goto(&format!("{}/console/", app.url));
        browser.see("● live");
    });
    app.admin().post("/v1/connections/crm/revoke", json!({})).await.ok(200);
    tokio::task::block_in_place(|| {
        browser.see("The connection was ended on purpose.");
    });
}
