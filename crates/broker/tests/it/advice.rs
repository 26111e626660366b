//! Advice on a living installation: what is stored, called and counted leads to it, and mending ends it.

use axum::http::Method;
use keyholder_broker::model::{Caller, Limits, Scope};
use keyholder_broker::{Advice, Branding, Error, IntegrationEdit, Logo, Proof, ProxyRequest, Severity};
use keyholder_oauth::Secret;

use crate::app::App;

const HOUR: i64 = 3_600_000;
const DAY: u64 = 24 * 3600;

async fn advice(app: &App) -> Vec<Advice> {
    app.broker.advice_now(&app.admin).await.unwrap()
}

fn rules_on<'a>(advice: &'a [Advice], name: &str) -> Vec<&'a str> {
    advice.iter().filter(|it| it.on.name() == name).map(|it| it.rule).collect()
}

async fn call(app: &App, caller: &std::sync::Arc<Caller>, method: Method) {
    let request = ProxyRequest { method, ..ProxyRequest::new(Method::GET, "/me").unwrap() };
    let reply = app.broker.proxy(caller, "crm", request).await.unwrap();
    http_body_util::BodyExt::collect(reply.into_body()).await.map(drop).unwrap();
}

/// Figures as they were counted so many hours ago.
async fn counted(app: &App, caller: &str, hours_ago: i64, calls: i64) {
    let (hour, id) = (app.now() / HOUR - hours_ago, app.row("crm").await.id);
    let took: String = (0..15).map(|part| format!(", took_{}", 1 << part)).collect();
    app.database.run(&format!(
        "INSERT INTO usage (hour, tenant, connection, caller, source, hand_outs, calls, renewals, failed_renewals, client_errors, server_errors, own_errors, sent, received{took}, took_longer) \
         VALUES ({hour}, 'default', '{id}', '{caller}', '', 0, {calls}, 0, 0, 0, 0, 0, 0, 0{}, 0)",
        ", 0".repeat(15)
    ));
}

#[tokio::test]
async fn a_scope_that_is_never_used_is_found_by_the_calls() {
    let app = App::start().await;
    app.machine("crm").await;
    for _ in 0..10 {
        call(&app, &app.admin, Method::GET).await;
    }
    let found = advice(&app).await;
    assert_eq!(rules_on(&found, "crm"), ["scope_unused"], "{found:?}");
    // Who looks twice within a minute gets what was computed.
    call(&app, &app.admin, Method::POST).await;
    let row = app.row("crm").await;
    let kept = app.broker.advice(&app.admin).await.unwrap();
    assert_eq!(kept, found);
    app.advance(61);
    assert_eq!(app.broker.advice_on(&app.admin, &row.id).await.unwrap(), []);
}

#[tokio::test]
async fn grants_accounts_and_ends_are_judged_from_the_rows() {
    let app = App::start().await;
    app.password("crm").await;
    let now = app.now();
    app.database.run(&format!(
        "UPDATE connections SET owner = 'anna', account = 'Info@example.com', token_expires_at = renewed_at + {}",
        72 * HOUR
    ));
    let edit =
        IntegrationEdit { client_secret_expires_at: Some(Some(now + 2 * 24 * HOUR)), ..IntegrationEdit::default() };
    app.broker.edit_integration(&app.admin, "password", edit).await.unwrap();
    let found = advice(&app).await;
    assert_eq!(rules_on(&found, "password"), ["ends_soon", "long_token", "password_grant"], "{found:?}");
    assert_eq!(rules_on(&found, "crm"), ["shared_account"], "{found:?}");
    assert_eq!(found[0].severity, Severity::High);
    // Of one connection: its own, and that of what it shares.
    let row = app.row("crm").await;
    assert_eq!(app.broker.advice_on(&app.admin, &row.id).await.unwrap().len(), 4);

    app.broker.add_connection(&app.admin, crate::app::alice("twin", "wonderland")).await.unwrap();
    app.run("twin").await.unwrap();
    app.database.run("UPDATE connections SET owner = 'ben', account = 'info@EXAMPLE.com', scope = 'read write extra' WHERE name = 'twin'");
    let found = advice(&app).await;
    let shared: Vec<_> = found.iter().filter(|it| it.text.contains("2 owners use the same account")).collect();
    assert_eq!(shared.len(), 1, "{found:?}");
    assert!(rules_on(&found, "twin").contains(&"scope_more"), "{found:?}");
}

#[tokio::test]
async fn keys_and_unused_connections_age() {
    let app = App::start().await;
    app.machine("crm").await;
    app.caller("job", &[Scope::Call], Limits::default()).await;
    assert_eq!(rules_on(&advice(&app).await, "job"), ["key_unlimited"]);
    app.advance(46 * DAY);
    assert!(rules_on(&advice(&app).await, "crm").contains(&"unused"));
    counted(&app, "", 5, 1).await;
    assert!(!rules_on(&advice(&app).await, "crm").contains(&"unused"));
    app.advance(50 * DAY);
    assert_eq!(rules_on(&advice(&app).await, "job"), ["key_unlimited", "key_unused"]);
}

#[tokio::test]
async fn use_that_is_not_as_it_was() {
    let app = App::start().await;
    app.machine("crm").await;
    let key = app.caller("job", &[Scope::Call], Limits::default()).await.key.clone();
    app.advance(20 * DAY);
    // 20 days after the start it is 14:13 UTC: so many hours ago it was 10 o'clock, in the night it was 3.
    let (morning, night) = (4, 11);
    for day in 1..=14 {
        for hour in 0..2 {
            counted(&app, "key_old", morning + 24 * day + hour, 5).await;
        }
    }
    assert_eq!(unusual(&app).await, [""; 0]);
    counted(&app, key.as_str(), morning, 3).await;
    assert_eq!(unusual(&app).await, ["new_caller"]);
    counted(&app, "key_old", morning, 101).await;
    assert_eq!(unusual(&app).await, ["burst", "new_caller"]);
    counted(&app, "key_old", night, 2).await;
    assert_eq!(unusual(&app).await, ["burst", "new_caller", "night"]);
    let found = advice(&app).await;
    assert!(found.iter().any(|it| it.text.starts_with("“job” used it")), "{found:?}");
    // A person of the console is named too.
    let link = app.broker.first_link().await.unwrap().unwrap();
    let token = link.rsplit('/').next().unwrap();
    let password = Proof::Password(Secret::new("correct horse battery"));
    let session = app.broker.join(token, "Anna", &password).await.unwrap();
    let anna = app.broker.session(session.expose()).await.unwrap().unwrap();
    counted(&app, anna.caller.key.as_str(), morning, 1).await;
    let found = advice(&app).await;
    assert!(found.iter().any(|it| it.text.starts_with("“Anna (console)” used it")), "{found:?}");
    // Where it is seven hours later, that was in the morning; the calls at 10 o'clock, at five in the afternoon.
    app.broker.set_advice_utc_offset(&app.admin, 7).await.unwrap();
    assert_eq!(unusual(&app).await, ["burst", "new_caller", "new_caller"]);
    let refused = app.broker.set_advice_utc_offset(&app.admin, 15).await.unwrap_err();
    assert!(matches!(refused, Error::Invalid(_)), "{refused:?}");
}

async fn unusual(app: &App) -> Vec<&'static str> {
    let found = advice(app).await;
    let unusual = ["burst", "new_caller", "night"];
    let mut rules: Vec<_> = found.iter().map(|it| it.rule).filter(|rule| unusual.contains(rule)).collect();
    rules.sort_unstable();
    rules
}

#[tokio::test]
async fn advice_is_dismissed_and_comes_again() {
    let app = App::start().await;
    app.password("crm").await;
    let id = app.broker.integration(&app.admin, "password").await.unwrap().id;
    app.broker.dismiss_advice(&app.admin, "password_grant", id.as_str()).await.unwrap();
    assert!(!rules_on(&app.broker.advice(&app.admin).await.unwrap(), "password").contains(&"password_grant"));
    assert_eq!(app.recorded("advice.dismiss", "ok").await, 1);
    let refused = app.broker.dismiss_advice(&app.admin, "burst", id.as_str()).await.unwrap_err();
    assert!(matches!(refused, Error::Invalid(_)), "{refused:?}");
    app.advance(91 * DAY);
    assert!(rules_on(&advice(&app).await, "password").contains(&"password_grant"));
}

#[tokio::test]
async fn advice_about_keys_is_for_who_may_see_keys() {
    let app = App::start().await;
    let viewer = app.caller("viewer", &[Scope::Read], Limits::default()).await;
    app.caller("job", &[Scope::Call], Limits::default()).await;
    assert!(advice(&app).await.iter().any(|it| it.on.what() == "key"));
    assert!(app.broker.advice(&viewer).await.unwrap().iter().all(|it| it.on.what() != "key"));
    let job = app.caller("other", &[Scope::Call], Limits::default()).await;
    assert!(matches!(app.broker.advice(&job).await, Err(Error::Forbidden(Scope::Read))));
    let limits = Limits { connections: ["crm".to_owned()].into(), ..Limits::default() };
    let limited = app.caller("limited", &[Scope::Read], limits).await;
    assert!(matches!(app.broker.advice(&limited).await, Err(Error::Limited("connection"))));
}

#[tokio::test]
async fn branding_is_kept_and_checked() {
    let app = App::start().await;
    assert_eq!(app.broker.branding().await.unwrap(), Branding::default());
    let logo = Logo::new(b"\x89PNG\r\n\x1a\nrest".to_vec()).unwrap();
    let new = Branding { name: " Acme ".to_owned(), color: Some("#AA0000".parse().unwrap()), logo: Some(logo) };
    app.broker.set_branding(&app.admin, new.clone()).await.unwrap();
    assert_eq!(app.broker.branding().await.unwrap(), Branding { name: "Acme".to_owned(), ..new.clone() });
    let viewer = app.caller("viewer", &[Scope::Read], Limits::default()).await;
    assert!(matches!(app.broker.set_branding(&viewer, new).await, Err(Error::Forbidden(Scope::Admin))));
    for name in ["x".repeat(61), "a\nb".to_owned()] {
        let refused = app.broker.set_branding(&app.admin, Branding { name, ..Branding::default() }).await.unwrap_err();
        assert!(matches!(&refused, Error::Invalid(errors) if errors[0].field == "brand_name"), "{refused:?}");
    }
    assert_eq!(app.recorded("branding.edit", "ok").await, 1);
}
