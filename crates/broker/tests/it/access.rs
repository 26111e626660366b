//! API keys, limits, and the audit without which nothing leaves.

use keyholder_broker::model::{Limits, NewKey, PlainKey, Scope};
use keyholder_broker::store::UsageGroup;
use keyholder_broker::{Error, Page, UsageFilter, UsageLine};

use crate::app::{App, START};
use crate::logs::Logs;

fn key(name: &str, expires_at: Option<i64>) -> NewKey {
    NewKey { name: name.to_owned(), scopes: [Scope::Token].into(), limits: Limits::default(), expires_at }
}

#[tokio::test]
async fn unknown_revoked_and_expired_keys_are_refused() {
    let app = App::start().await;
    let refused = |key: &PlainKey| {
        let (broker, key) = (app.broker.clone(), key.clone());
        async move { broker.authenticate(&key).await.map(drop).unwrap_err().to_string() }
    };
    let unknown = PlainKey("khk_nobody".into());
    assert!(refused(&unknown).await.contains("unknown or was revoked"));

    let made = app.broker.create_key(&app.admin, key("agent", None)).await.unwrap();
    assert!(made.key.0.expose().starts_with("khk_") && made.key.0.expose().len() > 40);
    let caller = app.broker.authenticate(&made.key).await.unwrap();
    assert_eq!((caller.name.as_str(), caller.may(Scope::Token), caller.may(Scope::Call)), ("agent", true, false));
    assert!(matches!(
        app.broker.create_key(&app.admin, key("agent", None)).await.err(),
        Some(Error::Taken { what: "API key", .. })
    ));
    app.broker.revoke_key(&app.admin, "agent").await.unwrap();
    assert!(refused(&made.key).await.contains("unknown or was revoked"));
    // A revoked key's name is free again.
    app.broker.create_key(&app.admin, key("agent", None)).await.unwrap();

    let short = app.broker.create_key(&app.admin, key("short", Some(START + 1000))).await.unwrap();
    app.broker.authenticate(&short.key).await.unwrap();
    app.advance(1);
    assert!(refused(&short.key).await.contains("expired"));
    let past = app.broker.create_key(&app.admin, key("past", Some(START))).await.err().unwrap().to_string();
    assert!(past.contains("expires_at") && past.contains("past"), "{past}");
}

#[tokio::test]
async fn a_key_without_the_scope_or_beyond_its_limits_is_refused_on_the_record() {
    let app = App::start().await;
    app.machine("crm").await;
    let reader = app.caller("reader", &[Scope::Read], Limits::default()).await;
    assert!(matches!(app.broker.require(&reader, Scope::Token), Err(Error::Forbidden(Scope::Token))));
    app.broker.require(&app.admin, Scope::Token).unwrap();
    let limits = Limits { connections: ["erp".to_owned()].into(), ..Limits::default() };
    let limited = app.caller("limited", &[Scope::Token], limits).await;
    assert!(matches!(app.broker.token(&limited, "crm", None).await, Err(Error::Limited("connection"))));
    assert!(matches!(app.broker.connection(&limited, "crm").await, Err(Error::Limited("connection"))));
    let all = keyholder_broker::store::Filter::default();
    assert!(app.broker.connections(&limited, &all, &Page::first()).await.unwrap().is_empty());
    app.token("crm").await.unwrap();

    let records = app.broker.audit_records(&app.admin, &Page::first()).await.unwrap();
    let of = |actor: &str, action: &str| {
        let mine = records.iter().filter(|record| record.actor == actor && record.action == action);
        mine.map(|record| (record.outcome.as_str(), record.object.as_str())).collect::<Vec<_>>()
    };
    let id = app.row("crm").await.id;
    assert_eq!(of("reader", "access.refused"), [("refused", "token")]);
    assert_eq!(of("limited", "access.refused"), [("refused", id.as_str()), ("refused", id.as_str())]);
    assert_eq!(of("limited", "token.read"), []);
    assert_eq!(of(&app.admin.name, "token.read"), [("ok", id.as_str())]);
    assert_eq!(of(&app.admin.name, "connection.create").len(), 1);
}

#[tokio::test]
async fn without_an_audit_no_token_leaves() {
    let logs = Logs::catch();
    let app = App::start().await;
    app.machine("crm").await;
    app.token("crm").await.unwrap();
    app.refuse("BEFORE INSERT ON audit");
    // The one that finds it out is recorded later; all that come after wait outside.
    app.token("crm").await.unwrap();
    logs.wait_for("the audit can't be written").await;
    for _ in 0..3 {
        assert!(matches!(app.token("crm").await, Err(Error::AuditUnavailable)));
        let proxied = app.broker.proxy(&app.admin, "crm", crate::gateway::get("/me")).await;
        assert!(matches!(proxied.err(), Some(Error::AuditUnavailable)));
    }
    assert_eq!(app.seen("api"), 0);
    app.relent();
    app.advance(1);
    app.broker.audit_records(&app.admin, &Page::first()).await.unwrap();
    app.token("crm").await.unwrap();
    app.broker.finish_renewals().await;
    assert_eq!(app.recorded("token.read", "ok").await, 3, "none was lost");
}

#[tokio::test]
async fn without_usage_for_a_minute_no_token_leaves() {
    let logs = Logs::catch();
    let app = App::start().await;
    app.machine("crm").await;
    app.refuse("BEFORE INSERT ON usage");
    app.token("crm").await.unwrap();
    app.advance(5);
    logs.wait_for("when that lasts for a minute").await;
    app.token("crm").await.unwrap();
    app.advance(60);
    logs.wait_for("for more than a minute").await;
    assert!(matches!(app.token("crm").await, Err(Error::AuditUnavailable)));
    app.relent();
    app.advance(1);
    app.broker.finish_renewals().await;
    app.token("crm").await.unwrap();
    app.broker.finish_renewals().await;
    assert_eq!(app.count("SELECT sum(hand_outs) FROM usage"), 3, "what waited was written, and once");
}

#[tokio::test]
async fn usage_is_counted_by_the_hour() {
    let app = App::start().await;
    app.machine("crm").await;
    let other = app.caller("other", &[Scope::Token], Limits::default()).await;
    for _ in 0..2 {
        app.token("crm").await.unwrap();
    }
    app.advance(3600);
    app.broker.token(&other, "crm", None).await.unwrap();
    let filter = UsageFilter { from: START, to: app.now(), ..UsageFilter::default() };
    let by = async |by, filter: &UsageFilter| {
        let page = app.broker.usage(&app.admin, filter.clone(), by, &Page::first()).await.unwrap();
        let line = |line: UsageLine| (line.name.unwrap_or(line.of), line.figures.hand_outs, line.figures.renewals);
        page.lines.into_iter().map(line).collect::<Vec<_>>()
    };
    let hour = |hours: i64| ((START / 3_600_000 + hours) * 3_600_000).to_string();
    assert_eq!(by(UsageGroup::Hour, &filter).await, [(hour(0), 2, 1), (hour(1), 1, 1)]);
    assert_eq!(by(UsageGroup::Connection, &filter).await, [("crm".to_owned(), 3, 2)]);
    assert_eq!(by(UsageGroup::Source, &filter).await, [(String::new(), 3, 2)]);
    let mut callers = by(UsageGroup::Caller, &filter).await;
    callers.sort_unstable();
    let expected = [(String::new(), 0, 2), (app.admin.name.clone(), 2, 0), ("other".to_owned(), 1, 0)];
    assert_eq!(callers, expected);
    let only = UsageFilter { caller: Some("other".to_owned()), ..filter.clone() };
    assert_eq!(by(UsageGroup::Connection, &only).await, [("crm".to_owned(), 1, 0)]);
    let none = UsageFilter { connection: Some("erp".to_owned()), ..filter.clone() };
    assert_eq!(by(UsageGroup::Connection, &none).await, []);

    for path in ["/me", "/nothing"] {
        drop(app.broker.proxy(&other, "crm", crate::gateway::get(path)).await.unwrap());
    }
    let page = app.broker.usage(&app.admin, only, UsageGroup::Connection, &Page::first()).await.unwrap();
    let figures = &page.lines[0].figures;
    assert_eq!((figures.calls, figures.client_errors, figures.own_errors), (2, 1, 0));
}
