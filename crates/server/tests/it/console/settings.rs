//! Advice and settings.

use serde_json::json;

use super::{PASSWORD, no_errors, owner, sound};
use crate::app::App;
use crate::browser::Browser;

/// A red dot.
pub const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg==";

#[tokio::test(flavor = "multi_thread")]
async fn advice_leads_to_where_it_is_mended_and_is_put_aside() {
    let app = App::start().await;
    app.draft("people", "password").await;
    let key = app.admin().post("/v1/keys", json!({"name": "everything", "scopes": ["token"]})).await.ok(201);
    let of_key = format!("#key_unlimited-{}", key["id"].as_str().unwrap());
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/advice", app.url));
        browser.see("It signs in with people's user names and passwords.");
        browser.see("This key reaches every connection, and never expires.");
        sound(&browser);
        browser.click_selector(&format!("{of_key} a"));
        browser.wait_url("/console/callers/new");
        browser.goto(&format!("{}/console/advice", app.url));
        browser.click_selector(&format!("{of_key} button"));
        browser.see("It is put aside for three months.");
        assert!(!browser.text().contains("reaches every connection"));
        no_errors(&browser);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_changed_and_said_back() {
    let app = App::start().await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/settings", app.url));
        browser.see("It is the live one");
        sound(&browser);
        browser.fill("Name", "Acme");
        browser.fill("Colour", "blue");
        browser.fill("Logo", "PHN2Zy8+");
        browser.click("button", "Save");
        browser.see("It isn't a colour");
        browser.see("SVG isn't taken");
        sound(&browser);
        browser.fill("Colour", "#ffee00");
        browser.fill("Logo", &format!("data:image/png;base64,{PNG}"));
        browser.click("button", "Save");
        browser.see("The pages look so from now on.");
        assert_eq!(browser.count("img[src^='data:image/png']"), 1);
        assert_eq!(browser.eval("document.querySelector('#f-brand_name').value"), json!("Acme"));
        sound(&browser);
        browser.click("button", "Seal everything with a new data key");
        browser.see("There is a new data key");
        browser.see("Data key 2 seals.");
        no_errors(&browser);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_invited_change_roles_and_are_removed() {
    let app = App::start().await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        let settings = format!("{}/console/settings", app.url);
        browser.goto(&settings);
        browser.click("link", "Invite somebody");
        sound(&browser);
        browser.click("button", "Make the link");
        browser.see("Copy it now");
        sound(&browser);
        let link = browser.eval("document.querySelector('#f-link').value");
        let bob = browser.second_person();
        bob.goto(link.as_str().unwrap());
        bob.fill("Your name (required)", "Bob");
        bob.fill("Password (required)", PASSWORD);
        bob.click("button", "Set up and go on");
        bob.see("Sign out");
        bob.goto(&settings);
        bob.see("Viewer");
        assert!(!bob.text().contains("Invite somebody"), "people are for administrators");

        browser.goto(&settings);
        browser.click("link", "Role… Anna");
        browser.select("Role", "viewer");
        browser.click("button", "Change the role");
        browser.see("this is the last operator who may do everything");
        browser.goto(&settings);
        browser.click("link", "Role… Bob");
        sound(&browser);
        browser.select("Role", "editor");
        browser.click("button", "Change the role");
        browser.see("The role of “Bob” is changed.");
        browser.see("Editor");
        bob.goto(&settings);
        bob.see("Sign in");

        browser.click("link", "New link… Bob");
        sound(&browser);
        browser.click("button", "Make the link");
        let link = browser.eval("document.querySelector('#f-link').value");
        bob.goto(link.as_str().unwrap());
        bob.fill("Password (required)", "another horse battery");
        bob.click("button", "Save and sign in");
        bob.see("Sign out");

        browser.goto(&settings);
        browser.click("link", "Remove… Bob");
        browser.click("button", "Remove");
        browser.see("“Bob” is removed.");
        sound(&browser);
        bob.goto(&settings);
        bob.see("Sign in");
        no_errors(&browser);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn ones_own_password_is_changed_and_all_sessions_end() {
    let app = App::start().await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        let plain = browser.without_scripts();
        super::sign_in(&app, &plain, "Anna");
        let settings = format!("{}/console/settings", app.url);
        browser.goto(&settings);
        browser.click("link", "Change your password");
        sound(&browser);
        browser.fill("New password (required)", "short");
        browser.click("button", "Save");
        browser.see("It is too short");
        browser.fill("New password (required)", "another horse battery");
        browser.click("button", "Save");
        browser.see("Your new password counts from now on");
        plain.goto(&settings);
        plain.see("Sign in");
        plain.fill("Name (required)", "Anna");
        plain.fill("Password (required)", "another horse battery");
        plain.click("button", "Sign in");
        plain.goto(&settings);
        plain.click("button", "Sign out everywhere");
        plain.see("Sign in");
        browser.goto(&settings);
        browser.see("Sign in");
    });
}
