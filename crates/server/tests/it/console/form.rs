//! The one form: each grant from the empty console to a called API, mistakes at their rows, what is kept, what never comes back.

use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::{PASSWORD, axe, no_errors, owner, sign_in, sound};
use crate::app::App;
use crate::browser::Browser;

/// The form by hand, with a method chosen and all that every grant needs typed in.
#[track_caller]
fn by_hand(app: &App, browser: &Browser, method: &str) {
    browser.goto(&format!("{}/console/providers", app.url));
    browser.click_selector("a[href^='/console/connections/new/oauth2']");
    browser.wait_url("id=int_");
    browser.click_selector(&format!("input[name=method][value={method}]"));
    browser.fill("Name (required)", "crm");
    browser.fill("Client ID (required)", "sandbox-basic");
    browser.fill("Client secret (required)", "sandbox-secret");
    browser.fill("Token URL (required)", &format!("{}/token", app.sandbox.base_url()));
    browser.fill("API base URL", &format!("{}/api", app.sandbox.base_url()));
    browser.fill_selector("#f-scopes", "read");
}

/// What the API says, called with the connection's token.
async fn called(app: &App) -> Value {
    app.admin().get("/v1/connections/crm/proxy/me").await.ok(200)
}

fn value_of(browser: &Browser, selector: &str) -> String {
    let value = browser.eval(&format!("document.querySelector({}).value", json!(selector)));
    value.as_str().unwrap_or_default().to_owned()
}

fn is_shown(browser: &Browser, selector: &str) -> bool {
    browser.eval(&format!("document.querySelector({}).checkVisibility()", json!(selector))) == json!(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_connected_by_hand() {
    let app = App::start().await;
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        by_hand(&app, &browser, "client_credentials");
        assert!(!is_shown(&browser, "#f-username") && !is_shown(&browser, "[id='f-variables.authorization_url']"));
        assert!(!is_shown(&browser, "#f-redirect"));
        sound(&browser);
        browser.click("button", "Save and connect");
        browser.wait_url("/console/connections/con_");
        no_errors(&browser);
        // What it shares with others is changed in the integration's form, which its own leads to.
        browser.goto(&format!("{}/console/connections/crm/edit", app.url));
        sound(&browser);
        browser.click("link", "Change them in the integration's form");
        browser.wait_url("/console/integrations/int_");
        assert_eq!(value_of(&browser, "#f-client_id"), "sandbox-basic");
    });
    assert_eq!(app.state("crm").await, "connected");
    called(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_taken_with_a_warning() {
    let app = App::start().await;
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        by_hand(&app, &browser, "password");
        browser.see("The password grant hands a person's password to this program.");
        browser.fill("User name (required)", "alice");
        browser.fill("Password (required)", "wonderland");
        browser.click("button", "Save and connect");
        browser.wait_url("/console/connections/con_");
        assert!(!browser.html().contains("wonderland"));
    });
    assert_eq!(app.state("crm").await, "connected");
    called(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_consents_and_the_redirect_uri_stays_what_it_was() {
    let app = App::start().await;
    let browser = Browser::start();
    let redirect = block_in_place(|| {
        owner(&app, &browser);
        by_hand(&app, &browser, "authorization_code");
        browser.fill("Authorization URL (required)", &format!("{}/authorize", app.sandbox.base_url()));
        // A person's grant asks for no account here, so the card of it isn't there.
        assert!(!is_shown(&browser, "fieldset:has(#f-username)"));
        let redirect = value_of(&browser, "#f-redirect");
        assert!(redirect.starts_with(&format!("{}/callback/int_", app.url)), "{redirect}");
        browser.click("button", "Save and connect");
        browser.wait_url("/console/connections/con_");
        redirect
    });
    let integration = app.admin().get("/v1/integrations/crm").await.ok(200);
    assert_eq!(integration["redirect_uri"], redirect);
    let link = app.admin().post("/v1/connections/crm/authorize", json!({})).await.ok(200);
    block_in_place(|| {
        let person = browser.second_person();
        person.goto(link["authorize_url"].as_str().unwrap());
        person.click("button", "Yes, connect it");
        person.see("Connected");
        browser.goto(&format!("{}/console/integrations/crm", app.url));
        assert_eq!(value_of(&browser, "#f-redirect"), redirect);
        sound(&browser);
    });
    assert_eq!(app.state("crm").await, "connected");
    called(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_stand_at_their_rows_and_what_was_typed_stays() {
    let app = App::start().await;
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/connections/new/oauth2", app.url));
        browser.click("button", "Save and connect");
        browser.see("4 things are to be mended");
        assert_eq!(browser.attribute("#f-client_id", "aria-invalid").as_deref(), Some("true"));
        assert_eq!(browser.count("#f-name[aria-describedby*='w-name']"), 1);
        axe(&browser);
        let hostile = "\u{202e}<script>alert(1)</script>\"' onfocus=x";
        browser.fill("Name (required)", hostile);
        browser.fill("Description", hostile);
        browser.fill("Client ID (required)", "sandbox-basic");
        browser.fill("Client secret (required)", "typed secret");
        browser.fill("Token URL (required)", "javascript:alert(1)");
        browser.fill("Authorization URL (required)", &format!("{}/authorize", app.sandbox.base_url()));
        browser.click("button", "Save and connect");
        browser.see("Secrets are never sent back to the browser");
        assert_eq!(value_of(&browser, "#f-description"), hostile);
        assert_eq!(value_of(&browser, "[id='f-variables.token_url']"), "javascript:alert(1)");
        assert!(!browser.html().contains("typed secret"));
        assert_eq!(browser.count("[id='f-variables.token_url'][aria-invalid]"), 1);
        sound(&browser);
        browser.click_selector("#more > summary");
        browser.fill_selector("[name='extra.token.name']", "client_id");
        browser.fill_selector("[name='extra.token.value']", "other");
        browser.fill("Renew ahead by", "soon");
        browser.click("button", "Save as a draft");
        browser.see("`client_id` is set by the protocol");
        assert!(is_shown(&browser, "[id='w-extra.token']"), "“More” is open where it is wrong");
        no_errors(&browser);
    });
    assert_eq!(app.admin().get("/v1/integrations").await.ok(200)["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn further_settings_arrive_and_a_change_shows_what_somebody_else_saved() {
    let app = App::start().await;
    let browser = Browser::start();
    let edit = format!("{}/console/integrations/crm/edit", app.url);
    block_in_place(|| {
        owner(&app, &browser);
        by_hand(&app, &browser, "client_credentials");
        browser.click_selector("#more > summary");
        browser.fill_selector("[name='extra.token.name']", "resource");
        browser.fill_selector("[name='extra.token.value']", "https://api.example");
        browser.fill("A token lives", "2h");
        browser.select("Renewal", "At use only");
        browser.select("Client authentication", "In the header (basic)");
        browser.click("button", "Save as a draft");
        browser.wait_url("/console/connections/con_");
        browser.goto(&edit);
        assert_eq!(value_of(&browser, "[id='f-renewal.token_lifetime']"), "2h");
        assert_eq!(value_of(&browser, "#f-scopes"), "read");
        assert!(!browser.html().contains("sandbox-secret"));
        sound(&browser);
    });
    let made = app.admin().get("/v1/integrations/crm").await.ok(200);
    assert_eq!(made["extra"]["token"], json!([{"name": "resource", "value": "https://api.example"}]));
    assert_eq!(made["renewal"], json!({"token_lifetime": 7200, "ahead": null, "by_itself": false}));
    assert_eq!(made["client_auth"], "basic");

    app.admin().patch("/v1/integrations/crm", json!({"description": "Theirs"})).await.ok(200);
    block_in_place(|| {
        browser.fill("Description", "Mine");
        browser.fill("Client secret", "an0ther-s3cret");
        browser.click("button", "Save");
        browser.see("somebody saved it since you opened this form");
        browser.see("Theirs");
        assert_eq!(value_of(&browser, "#f-description"), "Mine");
        browser.fill("Client secret", "an0ther-s3cret");
        browser.click("button", "Save");
        browser.see("The integration is saved.");
        assert!(!browser.html().contains("an0ther-s3cret"));
        no_errors(&browser);
    });
    let saved = app.admin().get("/v1/integrations/crm").await.ok(200);
    assert_eq!((&saved["description"], &saved["renewal"]), (&json!("Mine"), &made["renewal"]));
    block_in_place(|| {
        browser.goto(&edit);
        browser.check("Remove the one that is kept", true);
        browser.click_selector("#more > summary");
        browser.select("Client authentication", "Not at all: a public client (none)");
        browser.click("button", "Save");
        browser.see("The integration is saved.");
        browser.goto(&format!("{}/console/integrations/crm/upgrade", app.url));
        browser.see("the newest there is");
        sound(&browser);
        browser.goto(&format!("{}/console/integrations/crm/remove", app.url));
        browser.see("it can't be removed");
    });
    assert_eq!(app.admin().get("/v1/integrations/crm").await.ok(200)["has_client_secret"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_is_put_back_without_its_secrets() {
    let app = App::start().await;
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        by_hand(&app, &browser, "client_credentials");
        browser.see("Not saved yet");
        let kept = browser.eval("JSON.stringify(sessionStorage)").as_str().unwrap().to_owned();
        assert!(kept.contains("sandbox-basic") && !kept.contains("sandbox-secret"), "{kept}");
        let here = browser.url();
        browser.eval("window.onbeforeunload = null; 0");
        browser.goto(&here);
        browser.see("What you had typed, except secrets, is still here.");
        browser.click("button", "Put it back");
        assert_eq!(value_of(&browser, "#f-client_id"), "sandbox-basic");
        assert_eq!(value_of(&browser, "#f-client_secret"), "");
        assert_eq!(browser.url(), here, "the redirect URI is the same");
        browser.fill("Client secret (required)", "sandbox-secret");
        browser.click("button", "Save as a draft");
        browser.wait_url("/console/connections/con_");
        browser.goto(&format!("{}/console/integrations/crm", app.url));
        assert_eq!(browser.eval("sessionStorage.length"), json!(0), "a saved form leaves no draft");
        // Back, and sent once more: the id is taken, so it was saved already.
        browser.goto(&here);
        by_hand_again(&app, &browser);
        browser.see("This form was saved already");
        no_errors(&browser);
    });
    assert_eq!(app.admin().get("/v1/connections").await.ok(200)["items"].as_array().unwrap().len(), 1);
}

#[track_caller]
fn by_hand_again(app: &App, browser: &Browser) {
    browser.click_selector("input[name=method][value=client_credentials]");
    browser.fill("Name (required)", "second");
    browser.fill("Client ID (required)", "sandbox-basic");
    browser.fill("Client secret (required)", "sandbox-secret");
    browser.fill("Token URL (required)", &format!("{}/token", app.sandbox.base_url()));
    browser.click("button", "Save as a draft");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_scripts_all_rows_are_there() {
    let app = App::start().await;
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        let plain = browser.without_scripts();
        sign_in(&app, &plain, "Anna");
        assert!(!PASSWORD.is_empty());
        plain.goto(&format!("{}/console/providers?q=no+such+provider", app.url));
        plain.see("No provider is found by these words.");
        by_hand(&app, &plain, "client_credentials");
        // Rows of other methods are there, and what stands in them doesn't count.
        plain.fill("User name (required)", "alice");
        plain.fill("Authorization URL (required)", "nonsense");
        plain.click("button", "Save and connect");
        plain.wait_url("/console/connections/con_");
    });
    assert_eq!(app.state("crm").await, "connected");
    called(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_changed_apart_from_what_it_shares() {
    let app = App::start().await;
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        by_hand(&app, &browser, "password");
        browser.fill("User name (required)", "alice");
        browser.fill("Password (required)", "wrong");
        browser.click("button", "Save and connect");
        browser.wait_url("/console/connections/con_");
        browser.goto(&format!("{}/console/connections/crm/edit", app.url));
        browser.see("No other connection shares them.");
        assert_eq!(value_of(&browser, "#f-username"), "alice");
        sound(&browser);
        browser.fill("Password", "wonderland");
        browser.click("button", "Save");
        browser.wait_url("/console/connections/con_");
    });
    app.admin().post("/v1/connections/crm/authorize", json!({})).await.ok(200);
    assert_eq!(app.state("crm").await, "connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_form_asked_for_is_given_back_to_it() {
    let app = App::start().await;
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/providers?for=source&panel=1&back=/console/sources/new", app.url));
        browser.click_selector("a[href^='/console/connections/new/oauth2']");
        browser.wait_url("panel=1");
        browser.click_selector("input[name=method][value=client_credentials]");
        browser.fill("Name (required)", "crm ü");
        browser.fill("Client ID (required)", "sandbox-basic");
        browser.fill("Client secret (required)", "sandbox-secret");
        let sent = "(async () => { const form = document.querySelector('form[data-guard]'); const reply = await fetch(form.action, {method: 'POST', \
            headers: {'Keyholder-Part': '1'}, body: new URLSearchParams(new FormData(form))}); return [reply.status, reply.headers.get('keyholder-made') ?? '']; })()";
        assert_eq!(browser.eval(sent)[0], 422, "a mistake comes back into the panel");
        browser.fill("Token URL (required)", &format!("{}/token", app.sandbox.base_url()));
        let answer = browser.eval(sent);
        let made = answer[1].as_str().unwrap();
        assert!(answer[0] == 200 && made.starts_with("con_") && made.ends_with(" crm%20%C3%BC"), "{answer}");
        // Without script: the same form, sent by the browser, leads back.
        browser.goto(&format!("{}/console/connections/new/oauth2?for=source&back=/console/sources/new", app.url));
        by_hand_again(&app, &browser);
        browser.wait_url("/console/sources/new?connection=con_");
        browser.goto(&format!("{}/console/connections/new/oauth2?back=https://evil.example/console/", app.url));
        assert!(!browser.html().contains("href=\"https://evil.example"));
    });
}
