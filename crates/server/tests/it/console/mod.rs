//! The console in a real browser, and on the wire.

mod bad;
mod callers;
mod catalogue;
mod connecting;
mod connection;
mod faults;
mod flows;
mod form;
mod hostile;
mod import;
mod lists;
mod passkeys;
mod provider;
mod records;
mod screens;
mod settings;
mod shell;
mod sign_in;
mod sources;
mod testing;

use serde_json::{Value, json};

use crate::app::App;
use crate::browser::Browser;

/// A password that can be used.
pub const PASSWORD: &str = "correct horse battery";

/// Sets up the console as its owner, who is signed in then.
#[track_caller]
pub fn owner(app: &App, browser: &Browser) {
    join(browser, &app.first_link());
}

/// Becomes an operator by this link, and is signed in then.
#[track_caller]
pub fn join(browser: &Browser, link: &str) {
    assert_eq!(browser.goto(link), 200);
    browser.fill("Your name (required)", "Anna");
    browser.fill("Password (required)", PASSWORD);
    browser.click("button", "Set up and go on");
    browser.wait_url("/console/");
    browser.see("Sign out");
}

/// Signs in.
#[track_caller]
pub fn sign_in(app: &App, browser: &Browser, name: &str) {
    browser.goto(&format!("{}/console/sign-in", app.url));
    browser.fill("Name (required)", name);
    browser.fill("Password (required)", PASSWORD);
    browser.click("button", "Sign in");
    browser.see("Sign out");
}

/// What axe finds on the page: nothing.
#[track_caller]
pub fn axe(browser: &Browser) {
    let found = browser.axe();
    assert!(found.is_empty(), "{}: {}", browser.url(), serde_json::to_string_pretty(&json!(found)).unwrap());
}

/// Pages that work leave no errors. (For answers that are failures Chromium says so itself.)
#[track_caller]
pub fn no_errors(browser: &Browser) {
    let errors = browser.console_errors();
    let ours: Vec<_> =
        errors.iter().filter(|it| !it.starts_with("Failed to load resource: the server responded")).collect();
    assert!(ours.is_empty(), "{}: {ours:#?}", browser.url());
}

/// Nothing hangs over at the side of a narrow window.
#[track_caller]
pub fn fits(browser: &Browser) {
    browser.size(320, 800);
    let over =
        browser.eval("Math.max(0, document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth)");
    assert_eq!(over, json!(0), "{} scrolls sideways", browser.url());
    browser.size(1280, 800);
}

/// All that a page must keep: axe in both colours, narrow windows, no errors.
#[track_caller]
pub fn sound(browser: &Browser) {
    axe(browser);
    browser.dark(true);
    axe(browser);
    browser.dark(false);
    fits(browser);
    no_errors(browser);
}

/// The name and role of what has the focus.
#[track_caller]
pub fn focused(browser: &Browser) -> (String, String) {
    let Value::Object(focused) = browser.focused() else { return (String::new(), String::new()) };
    let text = |name: &str| focused[name].as_str().unwrap_or_default().to_owned();
    (text("role"), text("name"))
}
