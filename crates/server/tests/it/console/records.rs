//! Audit and usage: what stands there is what the API says.

use serde_json::{Value, json};

use super::{no_errors, owner, sound};
use crate::app::App;
use crate::browser::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_filtered_paged_and_taken_away() {
    let app = App::start().await;
    app.machine("crm").await;
    let made = app.admin().post("/v1/keys", json!({"name": "=1+1", "scopes": ["token"]})).await.ok(201);
    let mut formula = app.anonymous();
    formula.key = made["key"].as_str().map(str::to_owned);
    for _ in 0..60 {
        formula.get("/v1/connections/crm/token").await.ok(200);
    }
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/audit", app.url));
        browser.see("token.read");
        sound(&browser);
        browser.click("link", "Older");
        browser.see("connection.create");
        browser.fill("Who", "=1+1");
        browser.fill("Action", "token");
        browser.click("button", "Filter");
        let filtered = browser.wait_url("caller=%3D1%2B1");
        browser.goto(&filtered);
        assert_eq!(browser.count("tbody tr"), 50);
        assert!(!browser.text().contains("connection.create"));
        let older = browser.attribute(".pages a", "href").unwrap();
        browser.goto(&format!("{}{older}", app.url));
        assert_eq!(browser.count("tbody tr"), 10);
        let take = |file: &str| {
            let text = browser.eval(&format!("fetch('/console/{file}?caller=%3D1%2B1').then((reply) => reply.text())"));
            text.as_str().unwrap().to_owned()
        };
        let csv = take("audit.csv");
        let lines: Vec<_> = csv.split("\r\n").collect();
        assert_eq!((lines.len(), lines[0]), (62, "at,actor,key_id,action,object,source,outcome,detail,id"));
        assert!(lines[1].contains(",'=1+1,"), "{}", lines[1]);
        let records: Vec<Value> = take("audit.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((records.len(), &records[0]["actor"]), (60, &json!("=1+1")));
        browser.goto(&format!("{}/console/audit?action=nothing", app.url));
        browser.see("Nothing fits");
        sound(&browser);
        no_errors(&browser);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn charts_show_what_the_api_counts() {
    let app = App::start().await;
    app.machine("crm").await;
    for _ in 0..3 {
        app.admin().get("/v1/connections/crm/token").await.ok(200);
    }
    for path in ["me", "me", "me", "me", "nothing-there"] {
        app.admin().get(&format!("/v1/connections/crm/proxy/{path}")).await;
    }
    let counted = app.admin().get("/v1/usage").await.ok(200)["items"][0].clone();
    assert_eq!((&counted["hand_outs"], &counted["calls"]), (&json!(3), &json!(5)));
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/usage", app.url));
        browser.see("5 calls.");
        browser.see("3 tokens.");
        sound(&browser);
        let errors = counted["errors"].clone();
        let failed: i64 = ["client", "server", "keyholder"].iter().map(|kind| errors[kind].as_i64().unwrap()).sum();
        browser.see(&format!("{failed} calls came to nothing."));
        browser.see(&format!("{} renewals", counted["renewals"]));
        let sum = |chart: &str| {
            browser.eval(&format!(
                "[...document.querySelectorAll('section[aria-labelledby={chart}] tbody td:first-of-type')].reduce((sum, it) => sum + Number(it.textContent), 0)"
            ))
        };
        assert_eq!((sum("calls"), sum("tokens")), (json!(5), json!(3)));
        assert!(browser.count("section[aria-labelledby=calls] rect.accent") >= 1);
        // A square stands beside its word.
        let apart = "[...document.querySelectorAll('.key span')].map((it) => it.getBoundingClientRect().height).filter((it) => it > 30).length";
        assert_eq!((browser.eval(apart), browser.count(".key span") >= 8), (json!(0), true));
        browser.select("Summed up by", "caller");
        browser.select("Time", "7 days");
        browser.click("button", "Show");
        browser.wait_url("by=caller");
        browser.see("By caller");
        assert_eq!(sum("calls"), json!(5));
        browser.goto(&format!("{}/console/usage?connection=nothing", app.url));
        browser.see("Nothing was used in that time");
        sound(&browser);
        no_errors(&browser);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_that_failed_are_not_among_the_good() {
    let app = App::start().await;
    app.machine("crm").await;
    app.admin().post("/v1/connections/crm/refresh", json!({})).await.ok(200);
    app.fault("error:invalid_client");
    app.admin().post("/v1/connections/crm/refresh", json!({})).await;
    let counted = app.admin().get("/v1/usage").await.ok(200)["items"][0].clone();
    let (good, failed) = (counted["renewals"].as_i64().unwrap(), counted["failed_renewals"].as_i64().unwrap());
    assert!(good >= 1 && failed >= 1, "{counted}");
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/usage", app.url));
        browser.see(&format!("{good} renewals, and {failed} that failed."));
        let fill = |class: &str| {
            browser.eval(&format!(
                "getComputedStyle(document.querySelector('section[aria-labelledby=renewals] rect.{class}')).fill"
            ))
        };
        assert_ne!(fill("good"), fill("bad"));
        sound(&browser);
    });
}
