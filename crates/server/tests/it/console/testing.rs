//! The test page: faults with their causes and remedies, steps one by one, a renewal, and no secret anywhere.

use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::app::{App, full};
use crate::browser::Browser;

use super::{owner, sign_in, sound};

#[track_caller]
fn test(app: &App, browser: &Browser, name: &str) {
    assert_eq!(browser.goto(&format!("{}/console/connections/{name}/test", app.url)), 200);
    browser.click("button", "Run the test");
    browser.see("Test again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_stands_on_the_page_with_its_cause_and_remedy() {
    let app = App::start().await;
    app.machine("crm").await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        test(&app, &browser, "crm");
        browser.see("All steps held.");
        sound(&browser);
        for (fault, cause, remedy) in [
            ("error:invalid_client", "client id, secret, or how the client authenticates", "not the secret's own id"),
            ("error:invalid_scope", "a scope that the provider doesn't know", "Asked for is"),
            ("error:unauthorized_client", "this grant isn't allowed", "settings of your application"),
            ("html", "a page or a garbled text", "A web page answered"),
            ("malformed", "a page or a garbled text", "breaks off"),
            ("lost", "nothing answers at the address", "broke before the reply"),
            ("server_error", "the provider has a problem", ""),
        ] {
            app.fault(fault);
            test(&app, &browser, "crm");
            browser.see("The last step failed.");
            let failed = browser.text_of("li.bad");
            assert!(failed.contains(cause) && failed.contains(remedy), "{fault}: {failed}");
            app.sandbox.clear_faults();
        }
        sound(&browser);
        browser.click_selector("li.bad details summary");
        browser.see("POST http://127.0.0.1");
        assert!(!browser.html().contains("sandbox-secret"));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn let_it_expire_now_renews_and_the_page_needs_no_script() {
    let app = App::start().await;
    app.consented("crm").await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        let plain = browser.without_scripts();
        sign_in(&app, &plain, "Anna");
        test(&app, &plain, "crm");
        plain.click("button", "Let it expire now");
        plain.see("generation 2");
        plain.see("All steps held.");
    });
    assert_eq!(app.admin().get("/v1/connections/crm").await.ok(200)["generation"], 2);
    assert_eq!(app.sent("refresh_token"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_is_sent_when_it_is_over() {
    let app = App::start().await;
    let provider = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let token_url = format!("http://{}/token", provider.local_addr().unwrap());
    let integration = json!({"name": "slow", "provider": "oauth2", "method": "client_credentials", "client_id": "c",
        "client_secret": "hush-hush-hush", "variables": {"token_url": token_url}});
    app.admin().post("/v1/integrations", integration).await.ok(201);
    app.admin().post("/v1/connections", json!({"name": "slow", "integration": "slow"})).await.ok(201);
    let browser = Browser::start();
    let (cookie, csrf) = tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/connections/slow/test", app.url));
        let cookie = browser.cookies().into_iter().find(|it| it["name"] == "keyholder-console").unwrap();
        let csrf = browser.attribute("main input[name=csrf]", "value").unwrap();
        (format!("keyholder-console={}", cookie["value"].as_str().unwrap()), csrf)
    });
    let headers = [
        ("cookie", cookie.as_str()),
        ("origin", app.url.as_str()),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let form = full(format!("csrf={csrf}"));
    let reply = app.anonymous().open(http::Method::POST, "/console/connections/slow/test", &headers, form).await;
    assert_eq!(reply.status(), 200);
    let mut body = reply.into_body();
    let mut read = String::new();
    while !read.contains("id=\"step1\"") {
        let part = body.frame().await.expect("more to come").unwrap().into_data().unwrap();
        read.push_str(std::str::from_utf8(&part).unwrap());
    }
    assert!(read.contains("The token endpoint is") && !read.contains("id=\"step2\"") && !read.contains("</html>"));
    let (mut asked, _) = provider.accept().await.unwrap();
    let mut request = vec![0; 4096];
    let length = asked.read(&mut request).await.unwrap();
    assert!(String::from_utf8_lossy(&request[..length]).starts_with("POST /token"));
    let said = r#"{"access_token":"canary-Xq91","token_type":"Bearer","expires_in":60}"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
    asked.write_all(format!("{head}\r\ncontent-length: {}\r\n\r\n{said}", said.len()).as_bytes()).await.unwrap();
    let rest = body.collect().await.unwrap().to_bytes();
    read.push_str(std::str::from_utf8(&rest).unwrap());
    assert!(
        read.contains("id=\"step2\"") && read.contains("All steps held.") && read.trim_end().ends_with("</html>"),
        "{read}"
    );
    for secret in ["canary-Xq91", "hush-hush-hush"] {
        assert!(!read.contains(secret), "{secret} in {read}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_what_api_and_command_tell_of_a_test() {
    let app = App::start().await;
    app.consented("crm").await;
    let report = app.admin().post("/v1/connections/crm/test", json!({"renew": true})).await.ok(200);
    let token = app.admin().get("/v1/connections/crm/token").await.ok(200)["access_token"].as_str().unwrap().to_owned();
    let told = app.command(&["connection", "test", "crm", "--renew", "--verbose"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    let newer = app.admin().get("/v1/connections/crm/token").await.ok(200)["access_token"].as_str().unwrap().to_owned();
    let names: Vec<_> = report["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["settings", "token", "renewal"]);
    let exchange = &report["steps"][2]["exchanges"][0];
    assert_eq!((&exchange["to"], &exchange["reply"]["line"]), (&json!("token_endpoint"), &json!("200 OK")));
    let shown = format!("{report}{}{}", told.out, told.err);
    for secret in ["sandbox-secret", token.as_str(), newer.as_str()] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(told.out.contains("> POST http://127.0.0.1") && told.out.contains("< 200 OK"), "{}", told.out);
    assert!(told.out.contains("•••• ("), "{}", told.out);
    app.fault("error:invalid_client");
    let told = app.command(&["connection", "test", "crm", "--renew"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.out.contains("Probable cause: invalid client") && !told.out.contains("> POST"), "{}", told.out);
}
