//! API keys, limits, and the audit without which nothing leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyholder_broker::clock::ManualClock;
use keyholder_broker::model::{Limits, NewKey, PlainKey, Scope};
use keyholder_broker::points::{Points, Verdict};
use keyholder_broker::store::UsageGroup;
use keyholder_broker::{AuditFilter, AuditPart, ConnectionEdit, Error, Page, UsageFilter, UsageLine};
use keyholder_sandbox::Options;
use tokio::sync::Notify;

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
    assert_eq!(app.recorded("token.read", "ok").await, 3, "none was lost");
}

#[tokio::test]
async fn without_usage_for_a_minute_no_token_leaves() {
    let logs = Logs::catch();
    let app = App::start().await;
    app.machine("crm").await;
    app.refuse("BEFORE INSERT ON usage");
    app.token("crm").await.unwrap();
    app.advance(15);
    logs.wait_for("when that lasts for a minute").await;
    app.token("crm").await.unwrap();
    app.advance(60);
    logs.wait_for("for more than a minute").await;
    assert!(matches!(app.token("crm").await, Err(Error::AuditUnavailable)));
    app.relent();
    app.advance(1);
    app.flush_usage().await;
    app.token("crm").await.unwrap();
    app.flush_usage().await;
    assert_eq!(app.count("SELECT sum(hand_outs) FROM usage"), 3, "what waited was written, and once");
}

#[tokio::test]
async fn a_reader_and_a_stop_wait_for_the_database_so_long_and_no_longer() {
    let logs = Logs::catch();
    let app = App::start().await;
    app.machine("crm").await;
    app.token("crm").await.unwrap();
    assert_eq!(app.recorded("token.read", "ok").await, 1);
    app.flush_usage().await;
    app.refuse("BEFORE INSERT ON audit");
    app.token("crm").await.unwrap();
    logs.wait_for("the audit can't be written").await;
    let newest = || AuditPart::Newest { before: None };
    let filter = AuditFilter { action: Some("token.read".to_owned()), ..AuditFilter::default() };
    let reading = app.broker.read_audit(&app.admin, filter.clone(), newest(), 10);
    let (page, ()) = tokio::join!(reading, async { app.advance(2) });
    assert_eq!(page.unwrap().rows.len(), 1, "what is on disk");
    let ((), ()) = tokio::join!(app.broker.finish_records(), async { app.advance(10) });
    assert!(logs.text().contains("are lost"), "{}", logs.text());
    // The database is there again, but this process is not.
    app.relent();
    app.advance(1);
    assert!(matches!(app.token("crm").await, Err(Error::AuditUnavailable)));
}

#[tokio::test]
async fn after_the_last_flush_nothing_goes_out() {
    let app = App::start().await;
    app.machine("crm").await;
    app.token("crm").await.unwrap();
    app.broker.finish_records().await;
    assert!(matches!(app.token("crm").await, Err(Error::AuditUnavailable)));
    let proxied = app.broker.proxy(&app.admin, "crm", crate::gateway::get("/me")).await;
    assert!(matches!(proxied.err(), Some(Error::AuditUnavailable)));
    assert_eq!(app.seen("api"), 0);
    assert_eq!(app.recorded("token.read", "ok").await, 1, "it can still be read");
    assert_eq!(app.count("SELECT sum(hand_outs) FROM usage"), 1);
}

#[tokio::test]
async fn a_figure_that_is_refused_for_ever_costs_only_itself() {
    let logs = Logs::catch();
    let app = App::start().await;
    for name in ["crm", "erp"] {
        if name == "crm" {
            app.machine(name).await;
        } else {
            app.add_connection(name, "client_credentials").await;
            app.run(name).await.unwrap();
        }
        app.token(name).await.unwrap();
    }
    app.flush_usage().await;
    let full = format!("UPDATE usage SET hand_outs = {} WHERE connection = '{}'", i64::MAX, app.row("crm").await.id);
    app.database.run(&format!("{full} AND caller <> ''"));
    for name in ["crm", "erp"] {
        app.token(name).await.unwrap();
    }
    let of_erp = UsageFilter { from: START, to: START, connection: Some("erp".to_owned()), ..UsageFilter::default() };
    let page = app.broker.usage(&app.admin, of_erp, UsageGroup::Connection, &Page::first()).await.unwrap();
    assert_eq!(page.lines[0].figures.hand_outs, 2);
    assert!(logs.text().contains("is dropped"), "{}", logs.text());
    app.token("crm").await.unwrap();
}

#[tokio::test]
async fn usage_of_times_beyond_reason_is_refused_with_the_field() {
    let app = App::start().await;
    for (from, to, wrong) in [(0, i64::MAX, "to"), (i64::MIN, 0, "from"), (i64::MIN, i64::MIN, "to")] {
        let filter = UsageFilter { from, to, ..UsageFilter::default() };
        let read = app.broker.usage(&app.admin, filter, UsageGroup::Hour, &Page::first()).await;
        let Err(Error::Invalid(errors)) = read else { panic!("{from} {to}") };
        assert_eq!(errors[0].field, wrong);
    }
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

#[tokio::test]
async fn a_page_of_the_audit_is_bounded_in_bytes() {
    let app = App::start().await;
    app.machine("crm").await;
    let path = format!("/{}", "x".repeat(2000));
    for _ in 0..20 {
        drop(app.broker.proxy(&app.admin, "crm", crate::gateway::get(&path)).await.unwrap());
    }
    let mut count = app.recorded("proxy.call", "ok").await;
    assert_eq!(count, 20);
    // 10 MB of them.
    for round in 0..8 {
        app.database.run(&format!(
            "INSERT INTO audit (tenant, number, batch, from_at, to_at, count, records) \
             SELECT tenant, number + (SELECT last FROM audit_heads), batch || '-{round}', from_at, to_at, count, records FROM audit; \
             UPDATE audit_heads SET last = last * 2"
        ));
        count *= 2;
    }
    let filter = AuditFilter { action: Some("proxy.call".to_owned()), ..AuditFilter::default() };
    let (mut forwards, mut after) = (Vec::new(), None);
    loop {
        let part = AuditPart::Oldest { after };
        let page = app.broker.read_audit(&app.admin, filter.clone(), part, 1_000_000).await.unwrap();
        forwards.push(page.rows.len());
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let (mut back, mut before) = (Vec::new(), None);
    loop {
        let part = AuditPart::Newest { before };
        let page = app.broker.read_audit(&app.admin, filter.clone(), part, 1_000_000).await.unwrap();
        back.push(page.rows.len());
        match page.older {
            Some(older) => before = Some(older),
            None => break,
        }
    }
    for pages in [forwards, back] {
        assert!(pages.iter().all(|rows| rows * 2000 <= 4 << 20), "{pages:?}");
        assert_eq!(pages.iter().sum::<usize>(), count);
    }
}

/// Which of the store's reads comes to nothing.
#[derive(Clone, Default)]
pub struct Reads(Arc<Script>);

#[derive(Default)]
struct Script {
    /// How many go on before it; far away when none comes to nothing.
    left: AtomicUsize,
    /// It never answers, instead of failing.
    hangs: AtomicUsize,
    /// It came to pass.
    came: AtomicUsize,
    hung: Notify,
}

impl Reads {
    const NONE: usize = usize::MAX / 2;

    pub async fn app(&self) -> App {
        self.0.left.store(Self::NONE, Ordering::Relaxed);
        let script = Arc::clone(&self.0);
        let points = Points::with(move |point| {
            if point != "store.read" || script.left.fetch_sub(1, Ordering::Relaxed) != 1 {
                return Verdict::Go;
            }
            script.came.store(1, Ordering::Relaxed);
            if script.hangs.load(Ordering::Relaxed) == 0 {
                return Verdict::Fail(std::io::Error::other("away"));
            }
            script.hung.notify_one();
            Verdict::Stop
        });
        App::with_points(Options::default(), &ManualClock::starting_at(START), points).await
    }

    /// Each read of a look fails in turn, or is given up with the task that asked. What the look put into memory must not be there afterwards, so that what is hidden behind everybody's back
    /// isn't found.
    pub async fn leave_nothing(&self, hide: impl Fn(bool), is_found: impl AsyncFn() -> bool) {
        for (number, hangs) in (1..).flat_map(|number| [(number, 0), (number, 1)]) {
            self.0.hangs.store(hangs, Ordering::Relaxed);
            self.0.left.store(number, Ordering::Relaxed);
            tokio::select! {
                _ = is_found() => {}
                () = self.0.hung.notified() => {}
            }
            self.0.left.store(Self::NONE, Ordering::Relaxed);
            if self.0.came.swap(0, Ordering::Relaxed) == 0 {
                assert!(number > 2, "it looks once, and once more");
                return;
            }
            hide(true);
            assert!(!is_found().await, "read {number}");
            hide(false);
        }
    }
}

#[tokio::test]
async fn what_no_second_look_has_confirmed_is_not_in_memory() {
    let reads = Reads::default();
    let app = reads.app().await;
    let made = app.broker.create_key(&app.admin, key("k", None)).await.unwrap().key;
    let hide = |is_hidden: bool| {
        let at = if is_hidden { "1" } else { "NULL" };
        app.database.run(&format!("UPDATE api_keys SET revoked_at = {at} WHERE name = 'k'"));
    };
    let known = async || app.broker.authenticate(&made).await.is_ok();
    reads.leave_nothing(hide, known).await;

    app.machine("crm").await;
    app.broker.edit_connection(&app.admin, "crm", ConnectionEdit::default()).await.unwrap();
    let hide = |is_hidden: bool| {
        let name = if is_hidden { ["other", "crm"] } else { ["crm", "other"] };
        app.database.run(&format!("UPDATE connections SET name = '{}' WHERE name = '{}'", name[0], name[1]));
    };
    let handed = async || app.token("crm").await.is_ok();
    reads.leave_nothing(hide, handed).await;
}
