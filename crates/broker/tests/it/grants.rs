//! Each grant, from nothing to a token that the API takes.

use keyholder_broker::model::{Limits, Scope, Status};
use keyholder_broker::{Error, RevocationOutcome};
use keyholder_sandbox::{Options, Rotation};

use crate::app::{App, START, alice};
use crate::fake::Fake;

#[tokio::test]
async fn client_credentials_need_no_person() {
    let app = App::start().await;
    app.machine("crm").await;
    let handed = app.token("crm").await.unwrap();
    assert_eq!(handed.token_type, "Bearer");
    assert_eq!(handed.expires_at, Some(START + 3_600_000));
    assert_eq!(handed.expires_in, Some(3600));
    assert_eq!(handed.scope.as_deref(), Some("read write"));
    assert_eq!(handed.generation, 1);
    assert_eq!(app.secret("crm").await, handed.access_token.expose());
    assert_eq!((app.sent("client_credentials"), app.seen("token")), (1, 1));

    let row = app.row("crm").await;
    assert_eq!(row.state.status(), Status::Connected);
    assert_eq!((row.generation, row.connected_at), (1, Some(START)));
    assert!(row.attempt.is_none() && app.escrow().is_empty());
    assert_eq!(app.kinds("crm").await, ["connected", "created"]);
    assert!(app.test("crm").await.unwrap().ok);
}

#[tokio::test]
async fn a_password_gives_a_refresh_token_that_is_used_from_then_on() {
    let app = App::start().await;
    app.password("crm").await;
    let first = app.token("crm").await.unwrap();
    app.advance(3600);
    let second = app.token("crm").await.unwrap();
    assert_ne!(first.access_token.expose(), second.access_token.expose());
    assert_eq!((first.generation, second.generation), (1, 2));
    assert_eq!((app.sent("password"), app.sent("refresh_token")), (1, 1));
    assert_eq!(second.scope.as_deref(), Some("read write"));
}

#[tokio::test]
async fn a_wrong_password_is_told_and_a_corrected_one_is_tried_at_the_next_use() {
    let app = App::start().await;
    app.add_integration(app.plain("password")).await;
    app.broker.add_connection(&app.admin, alice("crm", "looking-glass")).await.unwrap();
    let error = app.run("crm").await.unwrap_err().to_string();
    assert!(error.contains("invalid_grant") && error.contains("password of the connection"), "{error}");
    assert_eq!(app.status("crm").await, Status::Reconnect);

    let edit = keyholder_broker::ConnectionEdit { password: Some("wonderland".into()), ..Default::default() };
    app.broker.edit_connection(&app.admin, "crm", edit).await.unwrap();
    assert_eq!(app.token("crm").await.unwrap().generation, 1);
    assert_eq!(app.status("crm").await, Status::Connected);
}

#[tokio::test]
async fn a_dead_refresh_token_of_a_password_connection_needs_no_person() {
    let app = App::start().await;
    app.password("crm").await;
    app.sandbox.revoke(&keyholder_sandbox::Which::All);
    app.advance(3600);
    assert_eq!(app.token("crm").await.unwrap().generation, 2);
    assert_eq!((app.sent("refresh_token"), app.sent("password")), (1, 2));
}

#[tokio::test]
async fn a_consent_with_pkce_connects_and_names_scope_and_state() {
    let app = App::start().await;
    app.add_integration(app.plain("authorization_code")).await;
    app.add_connection("crm", "authorization_code").await;
    assert_eq!(app.status("crm").await, Status::Draft);
    let refused = app.token("crm").await.unwrap_err();
    assert!(matches!(refused, Error::NotReady { state: Status::Draft, .. }), "{refused}");

    app.consent("crm").await;
    let handed = app.token("crm").await.unwrap();
    assert_eq!((handed.generation, handed.scope.as_deref()), (1, Some("read write")));
    assert_eq!((app.sent("authorization_code"), app.seen("token")), (1, 1));
    assert_eq!(app.status("crm").await, Status::Connected);
    assert_eq!(app.kinds("crm").await, ["connected", "consented", "created"]);

    app.advance(3600);
    assert_eq!(app.token("crm").await.unwrap().generation, 2);
    assert_eq!(app.sent("refresh_token"), 1);
}

#[tokio::test]
async fn an_account_named_by_the_reply_is_shown() {
    let app = App::start().await;
    let mut fake = Fake::start().await;
    let mut new = app.plain("authorization_code");
    new.variables.insert("token_url".to_owned(), fake.url("/token"));
    app.add_integration(new).await;
    app.add_connection("crm", "authorization_code").await;
    let answer = async {
        let request = fake.next().await;
        assert_eq!(request.member("grant_type").as_deref(), Some("authorization_code"));
        assert_eq!(request.member("code_verifier").map(|verifier| verifier.len()), Some(43));
        // Silent about the scope, which means "as asked" (RFC 6749 §5.1).
        request.json(
            200,
            serde_json::json!({"access_token": "at-1", "token_type": "bearer", "email": "alice@sandbox.example"}),
        );
    };
    tokio::join!(app.consent("crm"), answer);
    let row = app.row("crm").await;
    assert_eq!(row.account.as_deref(), Some("alice@sandbox.example"));
    assert_eq!(row.scope.as_deref(), Some("read write"));
    let handed = app.token("crm").await.unwrap();
    assert_eq!((handed.expires_at, handed.scope.as_deref()), (None, Some("read write")));
}

#[tokio::test]
async fn a_connection_that_is_ended_gives_no_token_and_its_grant_is_revoked() {
    let app = App::with(Options { rotation: Rotation::Static, ..Options::default() }).await;
    app.consented("crm").await;
    let held = app.secret("crm").await;
    let (shown, outcome) = app.broker.revoke(&app.admin, "crm").await.unwrap();
    assert_eq!((shown.connection.state.status(), outcome), (Status::Revoked, RevocationOutcome::Revoked));
    assert!(matches!(app.token("crm").await, Err(Error::NotReady { state: Status::Revoked, .. })));
    assert!(!app.is_accepted(&held).await);
    assert_eq!(app.count("SELECT count(*) FROM connections WHERE token_set IS NOT NULL OR secrets IS NOT NULL"), 0);

    app.consent("crm").await;
    assert_eq!(app.status("crm").await, Status::Connected);
    app.broker.remove_connection(&app.admin, "crm").await.unwrap();
    assert!(matches!(app.token("crm").await, Err(Error::NotFound { .. })));
    assert_eq!(app.seen("revoke"), 2);
}

#[tokio::test]
async fn a_limited_key_gets_no_token_of_another_connection() {
    let app = App::start().await;
    app.machine("crm").await;
    let limits = Limits { connections: ["other".to_owned()].into(), ..Limits::default() };
    let caller = app.caller("agent", &[Scope::Token], limits).await;
    for _ in 0..2 {
        // The second time with the token in memory.
        let refused = app.broker.token(&caller, "crm", None).await.unwrap_err();
        assert!(matches!(refused, Error::Limited("connection")), "{refused}");
        app.token("crm").await.unwrap();
    }
}
