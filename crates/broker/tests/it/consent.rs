//! Consent: only the person who began it, in the browser that began it, once, in time, and of the right provider.

use keyholder_broker::model::{Limits, Scope, Status, Values};
use keyholder_broker::{
    Begun, Completed, Error, Finished, NewConnectSession, NewConnection, NewIntegration, Page, Result, View,
};
use keyholder_oauth::{CallbackError, FailureKind};
use serde_json::json;
use url::Url;

use crate::app::{App, integration_of, query_value, token_of, values};
use crate::renewal::with_fake;

/// A consent that has come as far as the way back from the provider.
struct Back {
    token: String,
    begun: Begun,
    url: Url,
}

async fn at_the_door(app: &App) -> Back {
    let token = app.invite("crm").await;
    let begun = app.leave(&token).await;
    let url = app.decide(&begun.redirect, "allow", "alice").await;
    Back { token, begun, url }
}

/// A draft under `oauth2`.
async fn draft() -> App {
    let app = App::start().await;
    app.add_integration(app.plain("authorization_code")).await;
    app.add_connection("crm", "authorization_code").await;
    app
}

/// A draft under `oidc`, whose document promises an issuer in every answer.
async fn draft_oidc() -> App {
    let app = App::start().await;
    app.add_integration(app.oidc("authorization_code")).await;
    app.add_connection("crm", "authorization_code").await;
    app
}

async fn finish(app: &App, back: &Back, query: &str) -> Result<Finished> {
    app.broker.finish_consent(integration_of(&back.url), query, Some(back.begun.browser.expose())).await
}

fn is_gone(answer: Result<Finished>) -> bool {
    matches!(answer.err(), Some(Error::Gone(_)))
}

/// The link to the page that asks for a yes.
fn link(finished: Finished) -> String {
    match finished {
        Finished::Confirm(link) => token_of(&link).to_owned(),
        Finished::Return(url) => panic!("{url}"),
    }
}

/// Where the application is told of it.
fn returned(finished: Finished) -> Url {
    match finished {
        Finished::Return(url) => url,
        Finished::Confirm(link) => panic!("{link}"),
    }
}

fn session(return_url: Option<&str>) -> NewConnectSession {
    NewConnectSession {
        integration: "authorization_code".to_owned(),
        owner: Some("user-7".to_owned()),
        return_url: return_url.map(str::to_owned),
        ..NewConnectSession::default()
    }
}

#[tokio::test]
async fn a_state_works_once_in_time_and_at_its_own_callback() {
    let app = draft().await;
    let back = at_the_door(&app).await;
    let query = back.url.query().unwrap().to_owned();
    assert!(is_gone(finish(&app, &back, "code=x&state=unknown").await));
    link(finish(&app, &back, &query).await.unwrap());
    assert!(is_gone(finish(&app, &back, &query).await), "replayed");
    assert_eq!(app.sent("authorization_code"), 1);

    let app = draft().await;
    let back = at_the_door(&app).await;
    app.advance(600);
    assert!(is_gone(finish(&app, &back, back.url.query().unwrap()).await), "ten minutes later");

    let app = draft().await;
    let back = at_the_door(&app).await;
    let query = back.url.query().unwrap();
    let elsewhere =
        app.broker.finish_consent("int_00000000000000000000000000", query, Some(back.begun.browser.expose())).await;
    assert!(is_gone(elsewhere));
    assert!(is_gone(finish(&app, &back, query).await), "a state that was shown at the wrong door is spent");
    assert_eq!(app.sent("authorization_code"), 0);
}

#[tokio::test]
async fn another_browser_is_refused_and_the_state_is_spent() {
    for other in [None, Some("A".repeat(43))] {
        let app = draft().await;
        let back = at_the_door(&app).await;
        let (integration, query) = (integration_of(&back.url), back.url.query().unwrap());
        let refused = app.broker.finish_consent(integration, query, other.as_deref()).await;
        assert!(matches!(refused.err(), Some(Error::WrongBrowser)));
        assert!(is_gone(finish(&app, &back, query).await));
        assert_eq!((app.sent("authorization_code"), app.status("crm").await), (0, Status::Draft));
    }
}

#[tokio::test]
async fn answers_that_no_honest_server_sends_are_refused_before_anything_is_spent() {
    let app = draft().await;
    let back = at_the_door(&app).await;
    let query = back.url.query().unwrap();
    let cases = [
        format!("{query}&code=another"),
        format!("{query}&state=another"),
        "code=x".to_owned(),
        format!("{query}&long={}", "a".repeat(20_000)),
    ];
    for odd in cases {
        let refused = finish(&app, &back, &odd).await.err().unwrap();
        assert!(matches!(refused, Error::Callback(_)), "{refused}");
    }
    // None of them took the state away from the honest answer.
    link(finish(&app, &back, query).await.unwrap());
}

#[tokio::test]
async fn the_issuer_is_compared_and_must_be_named_where_that_is_promised() {
    for (fault, named) in [("authorize=wrong_issuer", true), ("authorize=no_iss", false)] {
        let app = draft_oidc().await;
        app.fault(fault);
        let back = at_the_door(&app).await;
        let refused = finish(&app, &back, back.url.query().unwrap()).await.err().unwrap();
        match refused {
            Error::Callback(CallbackError::IssuerMismatch { received, .. }) if named => {
                assert!(received.contains("impostor.example"), "{received}");
            }
            Error::Callback(CallbackError::IssuerMissing { .. }) if !named => {}
            other => panic!("{fault}: {other}"),
        }
        assert_eq!(app.sent("authorization_code"), 0, "{fault}");
        let row = app.row("crm").await;
        assert_eq!(row.state.status(), Status::Draft);
        assert!(row.state.failure().unwrap().message.contains("ssuer"), "{fault}");
    }
    // By hand no issuer is known, so none is required.
    let app = draft().await;
    app.fault("authorize=no_iss");
    app.consent("crm").await;
    let app = draft_oidc().await;
    app.consent("crm").await;
    assert_eq!(app.status("crm").await, Status::Connected);
}

#[tokio::test]
async fn a_person_who_says_no_at_the_provider_is_believed() {
    let app = draft_oidc().await;
    let token = app.invite("crm").await;
    let begun = app.leave(&token).await;
    assert_eq!(app.status("crm").await, Status::Pending);
    let url = app.decide(&begun.redirect, "deny", "alice").await;
    let refused = app.return_with(&url, &begun).await.err().unwrap();
    assert!(matches!(&refused, Error::Callback(CallbackError::Refused { error, .. }) if error == "access_denied"));
    let row = app.row("crm").await;
    let failure = row.state.failure().unwrap();
    assert_eq!((row.state.status(), failure.code.as_deref()), (Status::Draft, Some("access_denied")));
    // The link is not used up: the person may think again.
    app.consent("crm").await;
}

#[tokio::test]
async fn an_application_that_waits_is_told_of_a_refusal() {
    let app = draft().await;
    let link = app.broker.create_session(&app.admin, session(Some("https://app.example/done?x=1"))).await.unwrap();
    let begun = app.leave(token_of(&link.url)).await;
    let url = app.decide(&begun.redirect, "deny", "alice").await;
    let back = returned(app.return_with(&url, &begun).await.unwrap());
    assert_eq!((back.host_str(), query_value(&back, "x").as_deref()), (Some("app.example"), Some("1")));
    assert_eq!(query_value(&back, "error").as_deref(), Some("access_denied"));
    assert_eq!(query_value(&back, "connection").as_deref(), Some(link.session.connection.as_str()));
    assert_eq!(query_value(&back, "code"), None);
}

#[tokio::test]
async fn a_code_that_cannot_be_exchanged_leaves_a_draft_with_the_reason() {
    for (fault, kind, words) in [
        ("token=error:invalid_grant", FailureKind::Grant, "redirect URI"),
        ("token=error:invalid_client", FailureKind::Setup, "client secret"),
        ("token=server_error", FailureKind::Transient, "503"),
        ("token=lost", FailureKind::Transient, "broke"),
    ] {
        let app = draft().await;
        app.fault(fault);
        let back = at_the_door(&app).await;
        let refused = finish(&app, &back, back.url.query().unwrap()).await.err().unwrap();
        let Error::Exchange(failure) = refused else { panic!("{fault}: {refused}") };
        assert_eq!(failure.kind, kind, "{fault}");
        let row = app.row("crm").await;
        let kept = row.state.failure().unwrap();
        assert_eq!(row.state.status(), Status::Draft);
        assert!(format!("{} {}", kept.message, kept.remedy).contains(words), "{fault}: {kept:?}");
        assert_eq!(app.sent("authorization_code"), 1, "{fault}: a code is sent once");
        app.sandbox.clear_faults();
        let begun = app.leave(&back.token).await;
        let url = app.decide(&begun.redirect, "allow", "alice").await;
        link(app.return_with(&url, &begun).await.unwrap());
    }
}

#[tokio::test]
async fn a_link_is_used_once_and_ends_in_an_hour() {
    let app = draft().await;
    let back = at_the_door(&app).await;
    link(finish(&app, &back, back.url.query().unwrap()).await.unwrap());
    let used = app.broker.begin_consent(&back.token, None, &Values::new()).await.err().unwrap();
    assert!(matches!(used, Error::Gone(why) if why.contains("already used")));
    assert!(matches!(app.broker.open_link(&back.token, None).await.err(), Some(Error::Gone(_))));
    assert!(matches!(app.broker.open_link("nothing", None).await.err(), Some(Error::Gone(_))));

    let token = app.invite("crm").await;
    app.advance(3600);
    let expired = app.broker.begin_consent(&token, None, &Values::new()).await.err().unwrap();
    assert!(matches!(expired, Error::Gone(why) if why.contains("expired")));
}

#[tokio::test]
async fn a_browser_keeps_its_cookie_over_consents_but_only_one_of_ours() {
    let app = draft().await;
    let token = app.invite("crm").await;
    let first = app.leave(&token).await;
    let again = app.broker.begin_consent(&token, Some(first.browser.expose()), &Values::new()).await.unwrap();
    assert!(first.browser.ct_eq(&again.browser));
    for planted in ["short", "a\r\nset-cookie: x=y-----------------------------"] {
        let fresh = app.broker.begin_consent(&token, Some(planted), &Values::new()).await.unwrap();
        assert_eq!(fresh.browser.expose().len(), 43);
        assert_ne!(fresh.browser.expose(), planted);
    }
    assert_ne!(query_value(&first.redirect, "state"), query_value(&again.redirect, "state"));
    assert_eq!(query_value(&first.redirect, "code_challenge_method").as_deref(), Some("S256"));
}

#[tokio::test]
async fn the_person_is_asked_for_what_only_the_person_knows() {
    let app = App::start().await;
    app.broker.add_provider(&app.admin, "acme.toml", &acme(&app)).await.unwrap();
    let mut new = app.plain("authorization_code");
    (new.provider, new.variables) = ("acme".to_owned(), Values::new());
    app.add_integration(NewIntegration { name: "acme".to_owned(), ..new }).await;
    let link = app
        .broker
        .create_session(&app.admin, NewConnectSession { integration: "acme".to_owned(), ..session(None) })
        .await
        .unwrap();
    let token = token_of(&link.url);
    let View::Invitation(page) = app.broker.open_link(token, None).await.unwrap() else {
        panic!("nothing was granted yet")
    };
    assert_eq!((page.provider.as_str(), page.direct), ("Acme", false));
    let asked: Vec<_> = page.questions.iter().map(|q| (q.name.as_str(), q.required, q.secret)).collect();
    assert_eq!(asked, [("region", true, false), ("api_key", false, true)]);

    for typed in [values([]), values([("region", "EU!")]), values([("region", "eu"), ("colour", "red")])] {
        let refused = app.broker.begin_consent(token, None, &typed).await.err().unwrap();
        assert!(matches!(refused, Error::Invalid(_)), "{refused}");
    }
    let typed = values([("region", "eu"), ("api_key", "planted-api-key")]);
    let begun = app.broker.begin_consent(token, None, &typed).await.unwrap();
    assert_eq!(query_value(&begun.redirect, "region").as_deref(), Some("eu"));
    let name = link.session.connection.as_str();
    let row = app.row(name).await;
    assert!(row.variables.is_empty(), "what is typed counts when the grant is confirmed");

    let back = app.decide(&begun.redirect, "allow", "alice").await;
    let confirm = self::link(app.return_with(&back, &begun).await.unwrap());
    app.broker.decide(&confirm, Some(begun.browser.expose()), true).await.unwrap();
    assert_eq!(app.row(name).await.variables, values([("region", "eu")]));
    let response = app.broker.proxy(&app.admin, name, crate::gateway::get("/echo")).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let seen: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(seen["headers"]["x-api-key"], "planted-api-key");
}

#[tokio::test]
async fn the_application_completes_for_the_owner_it_named() {
    let app = draft().await;
    let link = app.broker.create_session(&app.admin, session(Some("http://localhost:3000/done"))).await.unwrap();
    let begun = app.leave(token_of(&link.url)).await;
    let url = app.decide(&begun.redirect, "allow", "alice").await;
    let back = returned(app.return_with(&url, &begun).await.unwrap());
    let (connection, code) = (query_value(&back, "connection").unwrap(), query_value(&back, "code").unwrap());
    assert_eq!(app.status(&connection).await, Status::Pending);
    assert!(matches!(app.token(&connection).await, Err(Error::NotReady { state: Status::Pending, .. })));
    assert!(matches!(app.broker.complete(&app.admin, "crm", &code, Some("user-7")).await, Err(Error::Gone(_))));

    let done = app.broker.complete(&app.admin, &connection, &code, Some("user-7")).await.unwrap();
    assert_eq!((done.connection.state.status(), done.connection.owner.as_deref()), (Status::Connected, Some("user-7")));
    assert!(matches!(app.broker.complete(&app.admin, &connection, &code, Some("user-7")).await, Err(Error::Gone(_))));
    assert_eq!(app.token(&connection).await.unwrap().generation, 1);
    assert_eq!(app.seen("revoke"), 0);
}

#[tokio::test]
async fn another_owners_completion_revokes_what_was_granted() {
    for wrong in [Some("user-8"), None] {
        let (app, mut fake) = with_fake().await;
        let link = app.broker.create_session(&app.admin, session(Some("https://app.example/done"))).await.unwrap();
        let begun = app.leave(token_of(&link.url)).await;
        let url = app.decide(&begun.redirect, "allow", "alice").await;
        let answer = async {
            fake.next().await.json(200, json!({"access_token": "at-1", "refresh_token": "rt-1"}));
        };
        let (finished, ()) = tokio::join!(app.return_with(&url, &begun), answer);
        let back = returned(finished.unwrap());
        let (connection, code) = (query_value(&back, "connection").unwrap(), query_value(&back, "code").unwrap());
        let revoked = async {
            let request = fake.next().await;
            let told = request.member("token");
            request.json(200, json!({}));
            told
        };
        let (refused, told) = tokio::join!(app.broker.complete(&app.admin, &connection, &code, wrong), revoked);
        assert!(matches!(refused.err(), Some(Error::WrongOwner)));
        assert_eq!(told.as_deref(), Some("rt-1"));
        assert_eq!(app.status(&connection).await, Status::Draft);
        let right = app.broker.complete(&app.admin, &connection, &code, Some("user-7")).await;
        assert!(matches!(right.err(), Some(Error::Gone(_))));
        let records = app.broker.audit_records(&app.admin, &Page::first()).await.unwrap();
        let refusals = records.iter().filter(|r| r.action == "connection.complete" && r.outcome == "refused");
        assert_eq!(refusals.count(), 1);
    }
}

#[tokio::test]
async fn the_page_asks_and_a_no_revokes() {
    let app = draft().await;
    let back = at_the_door(&app).await;
    let code = link(finish(&app, &back, back.url.query().unwrap()).await.unwrap());
    let View::Confirmation { connection, scope, .. } =
        app.broker.open_link(&code, Some(back.begun.browser.expose())).await.unwrap()
    else {
        panic!("a grant waits")
    };
    assert_eq!((connection.as_str(), scope), ("crm", vec!["read".to_owned(), "write".to_owned()]));
    let browser = Some(back.begun.browser.expose());
    assert!(matches!(app.broker.decide(&code, None, true).await.err(), Some(Error::WrongBrowser)));
    assert!(matches!(app.broker.decide(&code, Some("x"), true).await.err(), Some(Error::WrongBrowser)));
    assert!(matches!(app.broker.decide(&code, browser, false).await.unwrap(), Completed::Declined));
    assert_eq!((app.seen("revoke"), app.status("crm").await), (1, Status::Draft));
    assert!(matches!(app.broker.decide(&code, browser, true).await.err(), Some(Error::Gone(_))));
}

#[tokio::test]
async fn a_grant_that_nobody_confirms_is_revoked_by_itself() {
    let app = draft().await;
    let back = at_the_door(&app).await;
    let code = link(finish(&app, &back, back.url.query().unwrap()).await.unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let broker = app.broker.clone();
    let scheduler = tokio::spawn(async move { broker.run_scheduler(async { drop(stopped.await) }).await });
    app.advance(15 * 60);
    while app.seen("revoke") == 0 || app.status("crm").await != Status::Draft {
        app.broker.doctor(&app.admin).await.unwrap();
    }
    let late = app.broker.decide(&code, Some(back.begun.browser.expose()), true).await;
    assert!(matches!(late.err(), Some(Error::Gone(_))));
    drop(stop);
    scheduler.await.unwrap();
}

#[tokio::test]
async fn an_invitation_that_nobody_took_takes_its_draft_along() {
    let app = draft().await;
    let made = app.broker.create_session(&app.admin, session(None)).await.unwrap();
    let named = NewConnectSession { connection: Some("crm".to_owned()), ..session(None) };
    app.broker.create_session(&app.admin, named).await.unwrap();
    let (_stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let broker = app.broker.clone();
    tokio::spawn(async move { broker.run_scheduler(async { drop(stopped.await) }).await });
    app.advance(3600);
    while app.count("SELECT count(*) FROM connect_sessions") > 0 || app.count("SELECT count(*) FROM connections") > 1 {
        app.broker.doctor(&app.admin).await.unwrap();
    }
    let gone = app.broker.connection(&app.admin, made.session.connection.as_str()).await;
    assert!(matches!(gone.err(), Some(Error::NotFound { .. })));
    assert_eq!(app.status("crm").await, Status::Draft, "this one was there before");
}

#[tokio::test]
async fn a_new_consent_of_a_working_connection_changes_nothing_until_it_is_confirmed() {
    let app = App::start().await;
    app.consented("crm").await;
    let first = app.secret("crm").await;
    let back = at_the_door(&app).await;
    assert_eq!(app.status("crm").await, Status::Connected);
    let code = link(finish(&app, &back, back.url.query().unwrap()).await.unwrap());
    assert_eq!(app.secret("crm").await, first);
    // Meanwhile the old grant is renewed.
    app.broker.refresh(&app.admin, "crm").await.unwrap();
    let renewed = app.secret("crm").await;
    assert_ne!(renewed, first);
    app.broker.decide(&code, Some(back.begun.browser.expose()), true).await.unwrap();
    let handed = app.token("crm").await.unwrap();
    assert_eq!(handed.generation, 3);
    assert!(app.is_accepted(handed.access_token.expose()).await);
    assert_ne!(handed.access_token.expose(), renewed);
    // And a refusal of one more takes nothing away.
    let begun = app.leave(&app.invite("crm").await).await;
    let url = app.decide(&begun.redirect, "deny", "alice").await;
    assert!(app.return_with(&url, &begun).await.is_err());
    assert_eq!(app.status("crm").await, Status::Connected);
    assert_eq!(app.secret("crm").await, handed.access_token.expose());
}

#[tokio::test]
async fn a_return_url_must_be_one_that_keeps_the_code_safe() {
    let app = draft().await;
    for bad in
        ["http://app.example/", "javascript:alert(1)", "/done", "https://u@app.example/", "https://app.example/#x"]
    {
        let refused = app.broker.create_session(&app.admin, session(Some(bad))).await.err().unwrap();
        assert!(refused.to_string().contains("return_url"), "{bad}: {refused}");
    }
    assert_eq!(app.count("SELECT count(*) FROM connect_sessions"), 0);
    assert_eq!(app.count("SELECT count(*) FROM connections"), 1, "and no draft is left behind");
}

#[tokio::test]
async fn a_method_without_a_person_has_no_link_and_an_integration_of_another_connection_is_told() {
    let app = App::start().await;
    app.machine("crm").await;
    let machine = NewConnectSession { integration: "client_credentials".to_owned(), ..session(None) };
    assert!(matches!(app.broker.create_session(&app.admin, machine).await.err(), Some(Error::NotPossible(_))));
    app.add_integration(app.plain("authorization_code")).await;
    let other = NewConnectSession { connection: Some("crm".to_owned()), ..session(None) };
    let refused = app.broker.create_session(&app.admin, other).await.err().unwrap().to_string();
    assert!(refused.contains("another integration"), "{refused}");
    let limits = Limits { connections: ["erp".to_owned()].into(), ..Limits::default() };
    let limited = app.caller("agent", &[Scope::Manage], limits).await;
    let erp = NewConnection {
        name: "mine".to_owned(),
        integration: "authorization_code".to_owned(),
        ..NewConnection::default()
    };
    app.broker.add_connection(&app.admin, erp).await.unwrap();
    let foreign = NewConnectSession { connection: Some("mine".to_owned()), ..session(None) };
    let refused = app.broker.create_session(&limited, foreign).await.err();
    assert!(matches!(refused, Some(Error::Limited("connection"))));
}

/// A definition that asks the person, with the sandbox's endpoints.
fn acme(app: &App) -> String {
    let base = app.sandbox.base_url();
    format!(
        r#"
schema = 1
id = "acme"
name = "Acme"
[[methods]]
grant = "authorization_code"
label = "A person consents"
[variables.region]
label = "Region"
asked_of = "connection"
pattern = "[a-z]{{2}}"
[variables.api_key]
label = "API key"
asked_of = "connection"
presence = "optional"
secret = true
[authorize]
url = "{base}/authorize"
params = {{ region = "{{{{region}}}}" }}
[token]
url = "{base}/token"
[refresh]
recovery = "single_use"
[revoke]
url = "{base}/revoke"
[api]
base_url = "{base}/api"
headers = {{ x-api-key = "{{{{api_key}}}}" }}
"#
    )
}
