//! Setting up: what can't work is refused at once, with field, reason and remedy, and nothing of it is stored.

use keyholder_broker::model::Values;
use keyholder_broker::{Error, IntegrationEdit, NewConnection, NewIntegration, Page};

use crate::app::{App, alice};
use crate::fake::Fake;

/// The refusal's text, after making sure that nothing was stored.
async fn refused(app: &App, new: NewIntegration) -> String {
    let error = app.broker.add_integration(&app.admin, new).await.unwrap_err();
    assert!(app.broker.integrations(&app.admin, &Page::first()).await.unwrap().is_empty(), "{error}");
    error.to_string()
}

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in: {text}");
    }
}

fn with(app: &App, name: &str, value: &str) -> NewIntegration {
    let mut new = app.plain("authorization_code");
    new.variables.insert(name.to_owned(), value.to_owned());
    new
}

#[tokio::test]
async fn fields_that_cannot_work_are_named() {
    let app = App::start().await;
    let plain = || app.plain("authorization_code");
    says(
        &refused(&app, NewIntegration { client_secret: None, ..plain() }).await,
        &["client_secret", "missing", "`basic`", "client_auth to `none`"],
    );
    says(&refused(&app, NewIntegration { client_secret: Some("".into()), ..plain() }).await, &["client_secret"]);
    says(
        &refused(&app, NewIntegration { client_id: String::new(), ..plain() }).await,
        &["client_id", "copy the client id"],
    );
    says(&refused(&app, NewIntegration { name: " x".to_owned(), ..plain() }).await, &["name", "1 to 100"]);
    says(
        &refused(&app, NewIntegration { provider: "nobody".to_owned(), ..plain() }).await,
        &["provider", "`nobody`", "provider list"],
    );
    says(
        &refused(&app, NewIntegration { method: Some("magic".to_owned()), ..plain() }).await,
        &["method", "`magic`", "client_credentials"],
    );
    says(&refused(&app, with(&app, "tokn_url", "https://x.example")).await, &["variables.tokn_url", "token_url"]);
    says(&refused(&app, with(&app, "token_url", "")).await, &["variables.token_url"]);
    says(
        &refused(&app, with(&app, "token_url", "http://login.example/token")).await,
        &["variables.token_url", "https"],
    );
    says(&refused(&app, with(&app, "token_url", "https://u:p@login.example/")).await, &["variables.token_url"]);
    says(&refused(&app, with(&app, "authorization_url", "nonsense")).await, &["variables.authorization_url"]);
    assert_eq!(app.seen("token"), 0);
}

#[tokio::test]
async fn an_issuer_is_asked_at_once() {
    let app = App::start().await;
    let mut elsewhere = app.oidc("authorization_code");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    elsewhere.variables.insert("issuer".to_owned(), format!("http://{address}"));
    says(&refused(&app, elsewhere).await, &["discovery", "no connection", "by hand"]);

    app.fault("discovery=wrong_issuer");
    says(&refused(&app, app.oidc("authorization_code")).await, &["impostor.example", app.sandbox.base_url()]);
    app.sandbox.clear_faults();
    app.fault("discovery=html");
    says(&refused(&app, app.oidc("authorization_code")).await, &["discovery", "JSON"]);
    app.sandbox.clear_faults();
    app.add_integration(app.oidc("authorization_code")).await;
}

#[tokio::test]
async fn an_issuer_in_a_private_network_is_refused_by_the_default_policy() {
    let app = App::start().await;
    let mut new = app.oidc("authorization_code");
    new.variables.insert("issuer".to_owned(), "https://169.254.169.254".to_owned());
    says(&refused(&app, new).await, &["169.254.169.254", "KEYHOLDER_EGRESS_ALLOW"]);
}

#[tokio::test]
async fn a_discovery_server_that_is_down_later_may_pass() {
    let app = App::start().await;
    app.add_integration(app.oidc("client_credentials")).await;
    app.add_connection("crm", "client_credentials").await;
    // A new process has no document in memory.
    let sibling = app.sibling().await;
    app.fault("discovery=server_error");
    let error = sibling.run("crm").await.unwrap_err().to_string();
    says(&error, &["503", "tried again by itself"]);
    let failures = app.row("crm").await.failures;
    assert_eq!((failures.setup, failures.transient), (0, 1));
    // This one has it, and goes on with it.
    app.advance(7200);
    app.run("crm").await.unwrap();
}

#[tokio::test]
async fn a_public_client_needs_no_secret() {
    let app = App::start().await;
    app.add_integration(NewIntegration {
        client_id: "sandbox-public".to_owned(),
        client_secret: None,
        client_auth: Some(keyholder_oauth::ClientAuth::None),
        ..app.plain("authorization_code")
    })
    .await;
    app.add_connection("crm", "authorization_code").await;
    app.consent("crm").await;
    assert_eq!(app.token("crm").await.unwrap().generation, 1);
}

#[tokio::test]
async fn each_way_a_client_authenticates_works() {
    use keyholder_oauth::ClientAuth;
    for (client, auth) in [
        ("sandbox-basic", ClientAuth::Basic),
        ("sandbox-basic", ClientAuth::RawBasic),
        ("sandbox-post", ClientAuth::Post),
        ("sandbox-json", ClientAuth::Json),
    ] {
        let app = App::start().await;
        let plain = app.plain("client_credentials");
        app.add_integration(NewIntegration { client_id: client.to_owned(), client_auth: Some(auth), ..plain }).await;
        app.add_connection("crm", "client_credentials").await;
        app.run("crm").await.unwrap_or_else(|error| panic!("{auth}: {error}"));
    }
}

#[tokio::test]
async fn names_are_unique_and_what_is_used_stays() {
    let app = App::start().await;
    app.machine("crm").await;
    let again = app.broker.add_integration(&app.admin, app.plain("client_credentials")).await;
    assert!(matches!(again, Err(Error::Taken { what: "integration", .. })));
    let twice = NewConnection {
        name: "crm".to_owned(),
        integration: "client_credentials".to_owned(),
        ..NewConnection::default()
    };
    assert!(matches!(app.broker.add_connection(&app.admin, twice).await, Err(Error::Taken { what: "connection", .. })));
    let removed = app.broker.remove_integration(&app.admin, "client_credentials").await;
    assert!(matches!(removed, Err(Error::InUse { what: "integration", .. })));
    app.broker.remove_connection(&app.admin, "crm").await.unwrap();
    app.broker.remove_integration(&app.admin, "client_credentials").await.unwrap();
}

#[tokio::test]
async fn a_connection_says_what_it_lacks() {
    let app = App::start().await;
    app.add_integration(app.plain("password")).await;
    let lacking = NewConnection { password: None, username: None, ..alice("crm", "x") };
    let error = app.broker.add_connection(&app.admin, lacking).await.unwrap_err().to_string();
    says(&error, &["username", "password", "it is required"]);
    let odd = NewConnection {
        variables: Values::from([("colour".to_owned(), "red".to_owned())]),
        ..alice("crm", "wonderland")
    };
    says(&app.broker.add_connection(&app.admin, odd).await.unwrap_err().to_string(), &["variables.colour"]);
    let lost = NewConnection { integration: "nothing".to_owned(), ..alice("crm", "wonderland") };
    says(&app.broker.add_connection(&app.admin, lost).await.unwrap_err().to_string(), &["integration", "`nothing`"]);
    assert_eq!(app.count("SELECT count(*) FROM connections"), 0);
}

#[tokio::test]
async fn a_change_that_cannot_work_changes_nothing() {
    let app = App::start().await;
    app.machine("crm").await;
    let bad = IntegrationEdit {
        variables: Values::from([("token_url".to_owned(), "http://login.example".to_owned())]),
        ..IntegrationEdit::default()
    };
    says(
        &app.broker.edit_integration(&app.admin, "client_credentials", bad).await.unwrap_err().to_string(),
        &["variables.token_url"],
    );
    let none = IntegrationEdit { client_secret: Some("".into()), ..IntegrationEdit::default() };
    assert!(app.broker.edit_integration(&app.admin, "client_credentials", none).await.is_err());
    let integration = app.broker.integration(&app.admin, "client_credentials").await.unwrap();
    assert_eq!((integration.generation, integration.client_secret.is_some()), (1, true));

    let renamed = IntegrationEdit { name: Some("acme".to_owned()), ..IntegrationEdit::default() };
    assert_eq!(app.broker.edit_integration(&app.admin, "client_credentials", renamed).await.unwrap().generation, 2);
    app.advance(3600);
    assert_eq!(app.token("crm").await.unwrap().generation, 2, "its secrets still open");
}

#[tokio::test]
async fn an_audience_goes_to_both_endpoints() {
    let app = App::start().await;
    let mut fake = Fake::start().await;
    let mut new =
        NewIntegration { audience: Some("https://api.example".to_owned()), ..app.plain("authorization_code") };
    new.variables.insert("token_url".to_owned(), fake.url("/token"));
    app.add_integration(new).await;
    app.add_connection("crm", "authorization_code").await;
    let token = app.invite("crm").await;
    let begun = app.leave(&token).await;
    assert_eq!(crate::app::query_value(&begun.redirect, "audience").as_deref(), Some("https://api.example"));
    let back = app.decide(&begun.redirect, "allow", "alice").await;
    let sent = async {
        let request = fake.next().await;
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/token"));
        request.member("audience")
    };
    let (_, sent) = tokio::join!(app.return_with(&back, &begun), sent);
    assert_eq!(sent.as_deref(), Some("https://api.example"));
}
