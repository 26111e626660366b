//! What can go wrong with a connection, as its test page tells it: the cause, and what to do.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyholder_broker::clock::Clock;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::provider::Provider;
use super::{no_errors, owner, sound};
use crate::app::App;
use crate::browser::Browser;
use crate::peers::Nginx;

/// The connection's test page says this of the step that failed.
#[track_caller]
fn fails(app: &App, browser: &Browser, name: &str, button: &str, said: [&str; 2]) {
    let page = format!("{}/console/connections/{name}/test", app.url);
    if browser.url() != page || browser.count("#again") == 0 {
        browser.goto(&page);
        browser.click("button", "Run the test");
        browser.see("Test again");
    }
    browser.click("button", button);
    browser.see("The last step failed.");
    let failed = browser.text_of("li.bad");
    let [cause, remedy] = said;
    assert!(failed.contains("Probable cause:") && failed.contains(cause), "{cause}: {failed}");
    assert!(failed.contains("What to do:") && failed.contains(remedy), "{remedy}: {failed}");
}

const AGAIN: &str = "Test again";
const EXPIRE: &str = "Let it expire now";

fn jwt(claims: &Value) -> String {
    format!("eyJhbGciOiJub25lIn0.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_refuses_the_token_is_explained() {
    let app = App::start().await;
    let provider = Provider::start().await;
    provider.set_up(&app, &provider.definition("Acme", "It says so"), "crm", "client_credentials").await;
    app.admin().post("/v1/connections/crm/authorize", json!({})).await.ok(200);
    let now = Clock::System.now_ms() / 1000;
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        for (claims, challenge, said) in [
            (
                json!({}),
                "Bearer error=\"invalid_token\", error_description=\"The token expired\"",
                ["the token has ended", "set a token lifetime"],
            ),
            (json!({"exp": now - 120}), "Bearer", ["the token has ended", "The token ended 2 min ago"]),
            (
                json!({"aud": "https://other.example", "exp": now + 600}),
                "Bearer",
                ["meant for another API", "not for 127.0.0.1"],
            ),
            (
                json!({}),
                "Bearer error=\"insufficient_scope\", scope=\"admin\"",
                ["a scope or a right is missing", "The API asks for `admin`; granted is `read`"],
            ),
            (json!({}), "Token realm=\"api\"", ["how the token is sent", "the API asks for `Token`"]),
        ] {
            let token = if claims == json!({}) { "opaque-1".to_owned() } else { jwt(&claims) };
            provider.token(200, json!({"access_token": token, "expires_in": 3600, "scope": "read"}));
            provider.challenge(challenge);
            fails(&app, &browser, "crm", AGAIN, said);
            assert!(!browser.html().contains(&token), "the token is on the page");
        }
        sound(&browser);
        provider.api(200, "application/json", "{}");
        browser.click("button", EXPIRE);
        browser.see("All steps held.");
        browser.see("generation");
        no_errors(&browser);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_between_is_explained() {
    // Its clock is ten minutes ahead of the sandbox's.
    let (app, clock) = App::on_a_clock().await;
    clock.advance(std::time::Duration::from_secs(600));
    let nginx = block_in_place(Nginx::start);
    app.machine("crm").await;
    let draft = async |name: &str, token_url: &str| {
        let mut integration = app.integration_body(name, "client_credentials");
        integration["variables"]["token_url"] = token_url.into();
        app.admin().post("/v1/integrations", integration).await.ok(201);
        app.admin().post("/v1/connections", json!({"name": name, "integration": name})).await.ok(201);
    };
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    draft("unreachable", &format!("http://{closed}/token")).await;
    draft("refused", "https://10.9.8.7/token").await;
    draft("untrusted", &format!("{}/token", nginx.tls)).await;
    draft("unknown", "https://nowhere.invalid/token").await;
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        fails(&app, &browser, "unreachable", AGAIN, ["nothing answers at the address", "Check host and port"]);
        fails(&app, &browser, "refused", AGAIN, ["this installation's own rules", "KEYHOLDER_EGRESS_ALLOW"]);
        fails(&app, &browser, "untrusted", AGAIN, ["the certificate, or no TLS", "KEYHOLDER_CA_FILE"]);
        fails(&app, &browser, "unknown", AGAIN, ["nothing answers at the address", "spelling of the host"]);
        sound(&browser);
        app.fault("error:unsupported_grant_type");
        fails(&app, &browser, "crm", AGAIN, ["this grant isn't allowed", "settings of your application"]);
        app.sandbox.clear_faults();
        let early = json!({"error": "invalid_grant", "error_description": "iat is in the future"});
        let fault = json!({"on": "token", "kind": "status", "status": 400, "body": early.to_string()});
        app.sandbox.set_fault(keyholder_sandbox::Fault::from_json(fault.as_object().unwrap().clone()).unwrap());
        fails(&app, &browser, "crm", AGAIN, ["a clock that is wrong", "ahead of the provider's"]);
        no_errors(&browser);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_that_cant_last_and_a_redirect_uri_that_differs_are_explained() {
    let app = App::start().await;
    let provider = Provider::start().await;
    provider.set_up(&app, &provider.definition("Acme", "It says so"), "crm", "authorization_code").await;
    let sent = app.admin().get("/v1/integrations/crm").await.ok(200)["redirect_uri"].as_str().unwrap().to_owned();
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/connections/crm/authorize", app.url));
        browser.click("button", "Make the link");
        // At first the provider refuses the redirect URI.
        provider.refuse("invalid_request", "redirect_uri is not registered");
        browser.click("link", "That's me: consent here, in a new tab");
        let person = browser.opened();
        person.see("redirect_uri is not registered");
        no_errors(&person);
        // What is registered, letter by letter: another case, a slash too many, another port.
        browser.fill("What is registered at Acme", &sent.replace("/callback/", "/Callback/"));
        browser.click("button", "Compare it letter by letter (in a new tab)");
        let compared = browser.opened();
        let differs = |why: &str, letters: [&str; 2]| {
            compared.see("They differ");
            compared.see(why);
            let marked = |at: u8| compared.text_of(&format!("dl.facts dd:nth-of-type({at}) mark"));
            assert_eq!([marked(1), marked(2)], letters, "{why}");
        };
        differs("The letter case", ["c", "C"]);
        for (registered, why, letters) in [
            (format!("{sent}/"), "a slash at its end, ours has none", ["(ends here)", "/"]),
            (format!(" {sent}"), "white space", ["h", "␣"]),
            (sent.replacen("http:", "https:", 1), "The scheme differs", [":", "s"]),
        ] {
            compared.fill("What is registered at the provider", &registered);
            compared.click("button", "Compare");
            differs(why, letters);
        }
        sound(&compared);
        compared.fill("What is registered at the provider", &sent);
        compared.click("button", "Compare");
        compared.see("They are the same");
        // The link is as good as before.
        provider.consent();
        browser.click("link", "That's me: consent here, in a new tab");
        let person = browser.opened();
        person.click("button", "Yes, connect it");
        person.see("“crm” is connected.");
        browser.see("Connected.");
        fails(
            &app,
            &browser,
            "crm",
            EXPIRE,
            ["there is no refresh token", "Add the scope `offline.all` to the integration"],
        );
        no_errors(&browser);
    });
    assert_eq!(app.state("crm").await, "connected", "a test breaks nothing");
}
