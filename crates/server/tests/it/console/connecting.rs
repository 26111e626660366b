//! The pages for people who connect: the operator's look, help that is heard, and opening them from an application's page.

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use super::settings::PNG;
use super::{axe, no_errors, owner};
use crate::app::App;
use crate::browser::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_have_the_operators_name_logo_and_colour() {
    let app = App::start().await;
    app.integration("crm", "authorization_code").await;
    let invited = app.admin().post("/v1/connect-sessions", json!({"integration": "crm"})).await.ok(201);
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/settings", app.url));
        browser.fill("Name", "Acme <b>Ltd</b>");
        browser.fill("Colour", "#ffee00");
        browser.fill("Logo", PNG);
        browser.click("button", "Save");
        browser.see("The pages look so from now on.");
    });
    tokio::task::block_in_place(|| {
        let person = browser.second_person();
        person.goto(invited["url"].as_str().unwrap());
        person.see("Acme <b>Ltd</b> asks, for crm, to use your account");
        assert_eq!(person.text_of("p.brand"), "Acme <b>Ltd</b>");
        assert_eq!(person.count("p.brand img"), 1);
        // Yellow can't be read on white: it is darker there.
        let accent = person.eval("getComputedStyle(document.documentElement).getPropertyValue('--accent')");
        assert!(accent.as_str().is_some_and(|it| !it.is_empty() && !it.contains("#ffee00,")), "{accent}");
        axe(&person);
        person.dark(true);
        axe(&person);
        no_errors(&person);
    });
}

/// An application's pages, on a server of its own.
async fn application(keyholder: &str) -> String {
    let script = format!("<script src=\"{keyholder}/assets/connect.js\"></script>");
    let opening = format!("<!doctype html><title>App</title><button>Connect</button><p id=\"said\"></p>{script}");
    let back = format!("<!doctype html><title>Back</title><p>You can close this window.</p>{script}");
    let pages = Router::new()
        .route("/", get(move || async move { Html(opening) }))
        .route("/back", get(move || async move { Html(back) }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, pages).await });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_opens_the_link_and_hears_how_it_ended() {
    let app = App::start().await;
    let home = application(&app.url).await;
    let browser = Browser::start();
    for mode in ["popup", "redirect"] {
        app.draft(mode, "authorization_code").await;
        let wish = json!({"owner": "anna", "return_url": format!("{home}/back")});
        let begun = app.admin().post(&format!("/v1/connections/{mode}/authorize"), wish).await.ok(200);
        let url = begun["authorize_url"].as_str().unwrap().to_owned();
        let came = tokio::task::block_in_place(|| {
            browser.goto(&home);
            let open = format!(
                "document.querySelector('button').onclick = () => KeyholderConnect.open('{url}', {{ mode: '{mode}' }}).then((it) => {{ document.querySelector('#said').textContent = 'came ' + JSON.stringify(it); }}), null"
            );
            browser.eval(&open);
            if mode == "popup" {
                // Somebody on this page, or in another tab, waits for another connection: what comes is none of his.
                browser.eval("const opened = window.open; window.open = () => true; KeyholderConnect.open('/', { connection: 'con_other' }).finally(() => { document.title = 'taken'; }); window.open = opened; null");
            }
            browser.click("button", "Connect");
            if mode == "popup" {
                browser.see("came");
                assert_ne!(browser.eval("document.title"), "taken");
                let said = browser.text_of("#said");
                return serde_json::from_str::<serde_json::Value>(said.trim_start_matches("came ")).unwrap();
            }
            browser.wait_url("/back");
            browser.see("You can close this window.");
            browser.eval("KeyholderConnect.result()")
        });
        let at = format!("/v1/connections/{}/complete", came["connection"].as_str().unwrap());
        app.admin().post(&at, json!({"code": came["code"], "owner": "anna"})).await.ok(200);
        assert_eq!(app.state(mode).await, "connected");
    }
}
