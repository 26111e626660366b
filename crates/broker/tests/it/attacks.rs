//! What an attacker tried, kept so that it goes on failing.

use keyholder_broker::model::{ConnectionId, Limits, Scope, Status};
use keyholder_broker::{
    Completed, ConnectionEdit, Error, Finished, IntegrationEdit, NewConnectSession, NewConnection, NewIntegration,
};
use keyholder_oauth::Secret;

use crate::app::{App, query_value, token_of, values};

async fn draft() -> App {
    let app = App::start().await;
    app.add_integration(app.plain("authorization_code")).await;
    app.add_connection("crm", "authorization_code").await;
    app
}

fn session(return_url: Option<&str>, owner: Option<&str>) -> NewConnectSession {
    NewConnectSession {
        integration: "authorization_code".to_owned(),
        connection: Some("crm".to_owned()),
        owner: owner.map(str::to_owned),
        return_url: return_url.map(str::to_owned),
        ..NewConnectSession::default()
    }
}

#[tokio::test]
async fn a_code_for_the_application_is_no_use_on_the_page_and_the_other_way_round() {
    let app = draft().await;
    let link =
        app.broker.create_session(&app.admin, session(Some("https://app.example/done"), Some("ada"))).await.unwrap();
    let token = token_of(&link.url).to_owned();
    let begun = app.leave(&token).await;
    let back = app.decide(&begun.redirect, "allow", "bob").await;
    let Ok(Finished::Return(url)) = app.return_with(&back, &begun).await else { panic!("the application is told") };
    let code = query_value(&url, "code").unwrap();
    let browser = Some(begun.browser.expose());
    assert!(matches!(app.broker.decide(&code, browser, true).await.err(), Some(Error::Gone(_))));
    assert!(matches!(app.broker.open_link(&code, browser).await.err(), Some(Error::Gone(_))));
    assert_ne!(app.status("crm").await, Status::Connected);

    let app = draft().await;
    let link = app.broker.create_session(&app.admin, session(None, Some("ada"))).await.unwrap();
    let begun = app.leave(token_of(&link.url)).await;
    let back = app.decide(&begun.redirect, "allow", "alice").await;
    let Ok(Finished::Confirm(link)) = app.return_with(&back, &begun).await else { panic!("the person is asked") };
    let code = token_of(&link);
    assert!(matches!(app.broker.complete(&app.admin, "crm", code, Some("ada")).await.err(), Some(Error::Gone(_))));
    assert!(matches!(app.broker.open_link(code, None).await.err(), Some(Error::WrongBrowser)));
    let done = app.broker.decide(code, Some(begun.browser.expose()), true).await.unwrap();
    assert!(matches!(done, Completed::Connected(_)));
}

#[tokio::test]
async fn a_return_url_needs_an_owner() {
    let app = draft().await;
    let refused = app.broker.create_session(&app.admin, session(Some("https://app.example/done"), None)).await;
    assert!(refused.err().unwrap().to_string().contains("owner"));
    let refused = app.broker.authorize(&app.admin, "crm", None, Some("https://app.example/done".to_owned())).await;
    assert!(refused.err().unwrap().to_string().contains("owner"));
}

#[tokio::test]
async fn nobody_answers_what_was_not_asked() {
    let app = draft().await;
    let token = app.invite("crm").await;
    let refused = app.broker.begin_consent(&token, None, &values([("token_url", "https://evil.example")])).await;
    assert!(refused.err().unwrap().to_string().contains("isn't asked for"));
}

#[tokio::test]
async fn an_old_link_does_not_revive_a_revoked_connection() {
    let app = draft().await;
    let (before, under_way) = (app.invite("crm").await, app.invite("crm").await);
    let begun = app.leave(&under_way).await;
    let back = app.decide(&begun.redirect, "allow", "alice").await;
    app.broker.revoke(&app.admin, "crm").await.unwrap();
    assert!(matches!(app.broker.open_link(&before, None).await.err(), Some(Error::Gone(_))));
    assert!(app.return_with(&back, &begun).await.is_err());
    assert_eq!(app.status("crm").await, Status::Revoked);
    assert!(app.token("crm").await.is_err());
}

#[tokio::test]
async fn two_callbacks_at_once_leave_one_grant_and_revoke_the_other() {
    let app = draft().await;
    let token = app.invite("crm").await;
    let (first, second) = (app.leave(&token).await, app.leave(&token).await);
    let first_back = app.decide(&first.redirect, "allow", "alice").await;
    let second_back = app.decide(&second.redirect, "allow", "bob").await;
    let (a, b) = tokio::join!(app.return_with(&first_back, &first), app.return_with(&second_back, &second));
    assert_eq!([a.is_ok(), b.is_ok()].into_iter().filter(|ok| *ok).count(), 1);
    assert_eq!(app.count("SELECT count(*) FROM pending_grants"), 1);
}

#[tokio::test]
async fn a_key_limited_to_a_connection_reaches_no_other() {
    let app = draft().await;
    app.add_integration(app.plain("client_credentials")).await;
    let id: ConnectionId = app.row("crm").await.id;
    let limits = Limits { connections: [id.to_string()].into(), ..Limits::default() };
    let limited = app.caller("limited", &[Scope::Read, Scope::Manage, Scope::Token], limits).await;
    let lookalike = NewConnection {
        name: id.to_string(),
        integration: "client_credentials".to_owned(),
        ..NewConnection::default()
    };
    assert!(matches!(app.broker.add_connection(&limited, lookalike.clone()).await.err(), Some(Error::Limited(_))));
    assert!(app.broker.add_connection(&app.admin, lookalike).await.err().unwrap().to_string().contains("name"));
    let fresh = NewConnectSession { integration: "authorization_code".to_owned(), ..NewConnectSession::default() };
    assert!(matches!(app.broker.create_session(&limited, fresh).await.err(), Some(Error::Limited(_))));
    let edit = IntegrationEdit { client_secret: Some(Secret::new("other")), ..IntegrationEdit::default() };
    assert!(matches!(
        app.broker.edit_integration(&limited, "client_credentials", edit).await.err(),
        Some(Error::Limited(_))
    ));
}

#[tokio::test]
async fn only_an_administrator_may_send_a_clients_secret_elsewhere() {
    let app = App::start().await;
    app.add_integration(app.plain("client_credentials")).await;
    let manager = app.caller("manager", &[Scope::Read, Scope::Manage], Limits::default()).await;
    let elsewhere = || IntegrationEdit {
        variables: values([("token_url", "https://evil.example/token")]),
        ..IntegrationEdit::default()
    };
    let refused = app.broker.edit_integration(&manager, "client_credentials", elsewhere()).await;
    assert!(matches!(refused.err(), Some(Error::Forbidden(Scope::Admin))));
    let renamed = IntegrationEdit { scopes: Some(vec!["read".to_owned()]), ..IntegrationEdit::default() };
    app.broker.edit_integration(&manager, "client_credentials", renamed).await.unwrap();
    app.broker.edit_integration(&app.admin, "client_credentials", elsewhere()).await.unwrap();
}

/// A connection's variables may be part of the address that its refresh token is sent to.
#[tokio::test]
async fn only_an_administrator_may_tell_a_connected_connection_something_else() {
    let app = App::start().await;
    let text = "schema = 1\nid = \"odd\"\nname = \"Odd\"\n[variables.shop]\nlabel = \"Shop\"\nasked_of = \"connection\"\npattern = \"[a-z]+\"\n\
        [[methods]]\ngrant = \"authorization_code\"\nlabel = \"One\"\n[authorize]\nurl = \"BASE/authorize\"\n[token]\nurl = \"BASE/token\"\nparams = { shop = \"{{shop}}\" }\n";
    let text = text.replace("BASE", app.sandbox.base_url());
    app.broker.add_provider(&app.admin, "odd.toml", &text).await.unwrap_or_else(|error| panic!("{error}"));
    let plain = app.plain("authorization_code");
    app.add_integration(NewIntegration { provider: "odd".to_owned(), variables: values([]), ..plain }).await;
    let new = NewConnection {
        name: "crm".to_owned(),
        integration: "authorization_code".to_owned(),
        variables: values([("shop", "mine")]),
        ..NewConnection::default()
    };
    app.broker.add_connection(&app.admin, new).await.unwrap();
    app.consent("crm").await;
    let manager = app.caller("manager", &[Scope::Read, Scope::Manage], Limits::default()).await;
    let session = |shop: &str| NewConnectSession {
        integration: "authorization_code".to_owned(),
        connection: Some("crm".to_owned()),
        variables: values([("shop", shop)]),
        ..NewConnectSession::default()
    };
    let edit = ConnectionEdit { variables: values([("shop", "evil")]), ..ConnectionEdit::default() };
    let refused = app.broker.edit_connection(&manager, "crm", edit).await.map(drop);
    assert!(matches!(refused, Err(Error::Forbidden(Scope::Admin))), "{refused:?}");
    let refused = app.broker.create_session(&manager, session("evil")).await.map(drop);
    assert!(matches!(refused, Err(Error::Forbidden(Scope::Admin))), "{refused:?}");
    assert_eq!(app.row("crm").await.variables["shop"], "mine");
    // What it was told already is nothing new, and an administrator may.
    let same = app.broker.create_session(&manager, session("mine")).await.map(drop);
    assert!(!matches!(same, Err(Error::Forbidden(_))), "{same:?}");
}

#[tokio::test]
async fn a_session_that_ends_takes_no_connection_from_another_one() {
    let app = draft().await;
    let first = NewConnectSession { connection: None, ..session(None, Some("ada")) };
    let made = app.broker.create_session(&app.admin, first).await.unwrap().session;
    app.advance(45 * 60);
    let second = NewConnectSession { connection: Some(made.connection.to_string()), ..session(None, Some("ada")) };
    let link = app.broker.create_session(&app.admin, second).await.unwrap();
    // The first session's hour is over; whoever sweeps must leave the connection to the second.
    app.advance(20 * 60);
    let (_stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let broker = app.broker.clone();
    tokio::spawn(async move { broker.run_scheduler(async { drop(stopped.await) }).await });
    while app.count("SELECT count(*) FROM connect_sessions") > 1 {
        app.broker.doctor(&app.admin).await.unwrap();
    }
    assert!(app.broker.open_link(token_of(&link.url), None).await.is_ok());
}
