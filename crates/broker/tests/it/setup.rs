//! An integration and its connection made at once, and what an integration says beside its provider's definition.

use keyholder_broker::model::{RenewalPolicy, Scope, Values};
use keyholder_broker::{Error, IntegrationEdit, NewConnection, NewIntegration, Page, SetUp, Wanted};
use keyholder_provider::Extra;
use serde_json::json;

use crate::app::{App, START, token_of};
use crate::fake::{Asked, Fake};

fn named(name: &str) -> Option<NewConnection> {
    Some(NewConnection { name: name.to_owned(), ..NewConnection::default() })
}

fn new(integration: NewIntegration, connection: Option<NewConnection>) -> SetUp {
    SetUp { integration: Wanted::New(Box::new(integration)), connection }
}

async fn integrations(app: &App) -> usize {
    app.broker.integrations(&app.admin, &Page::first()).await.unwrap().len()
}

fn fields(error: Error) -> Vec<String> {
    let Error::Invalid(errors) = error else { panic!("{error}") };
    errors.into_iter().map(|error| error.field).collect()
}

#[tokio::test]
async fn integration_and_connection_are_made_together_or_not_at_all() {
    let app = App::start().await;
    let plain = || app.plain("client_credentials");
    let (integration, connection) = app.broker.set_up(&app.admin, new(plain(), named("crm"))).await.unwrap();
    let connection = connection.unwrap();
    assert_eq!(
        (integration.name.as_str(), connection.integration.as_str()),
        ("client_credentials", "client_credentials")
    );
    app.run("crm").await.unwrap();
    assert_eq!(app.kinds("crm").await, ["connected", "created"]);

    let other = || NewIntegration { name: "other".to_owned(), ..plain() };
    let refused = app.broker.set_up(&app.admin, new(other(), named("crm"))).await.err().unwrap();
    assert!(matches!(&refused, Error::Taken { what: "connection", name } if name == "crm"), "{refused}");
    let refused = app.broker.set_up(&app.admin, new(plain(), named("new"))).await.err().unwrap();
    assert!(matches!(&refused, Error::Taken { what: "integration", .. }), "{refused}");
    let refused = app.broker.set_up(&app.admin, new(other(), named("a/b"))).await.err().unwrap();
    assert_eq!(fields(refused), ["connection.name"]);
    let bad =
        NewConnection { variables: Values::from([("nobody".to_owned(), "x".to_owned())]), ..named("new").unwrap() };
    let refused = app.broker.set_up(&app.admin, new(other(), Some(bad))).await.err().unwrap();
    assert_eq!(fields(refused), ["variables.nobody"]);
    let user = NewIntegration { name: "user".to_owned(), ..app.plain("password") };
    let refused = app.broker.set_up(&app.admin, new(user, named("new"))).await.err().unwrap();
    assert_eq!(fields(refused), ["username", "password"]);
    assert_eq!(integrations(&app).await, 1, "nothing is left of what was refused");
    assert_eq!(app.count("SELECT count(*) FROM connections"), 1);

    let under = SetUp { integration: Wanted::Named("client_credentials".to_owned()), connection: named("second") };
    app.broker.set_up(&app.admin, under).await.unwrap();
    assert_eq!((integrations(&app).await, app.count("SELECT count(*) FROM connections")), (1, 2));
}

#[tokio::test]
async fn a_redirect_uri_is_known_before_its_integration_is_there() {
    let app = App::start().await;
    let id = app.broker.reserve_integration();
    let uri = app.broker.redirect_uri(&id);
    let with_id = |name: &str| NewIntegration {
        id: Some(id.clone()),
        name: name.to_owned(),
        description: "Müller’s CRM".to_owned(),
        ..app.plain("authorization_code")
    };
    let (made, none) = app.broker.set_up(&app.admin, new(with_id("one"), None)).await.unwrap();
    assert!(none.is_none());
    assert_eq!((app.broker.redirect_uri(&made.id), made.description.as_str()), (uri, "Müller’s CRM"));
    let again = app.broker.set_up(&app.admin, new(with_id("two"), named("x"))).await.err().unwrap();
    assert!(matches!(&again, Error::Taken { what: "integration id", name } if name == id.as_str()), "{again}");
    assert_eq!(integrations(&app).await, 1);

    let edit = IntegrationEdit { description: Some("x".repeat(501)), ..IntegrationEdit::default() };
    assert_eq!(fields(app.broker.edit_integration(&app.admin, "one", edit).await.err().unwrap()), ["description"]);
    let edit = IntegrationEdit { description: Some(String::new()), ..IntegrationEdit::default() };
    app.broker.edit_integration(&app.admin, "one", edit).await.unwrap();
    assert_eq!(app.broker.integration(&app.admin, "one").await.unwrap().description, "");
}

#[tokio::test]
async fn who_may_not_manage_sets_nothing_up() {
    let app = App::start().await;
    let limits = keyholder_broker::model::Limits {
        connections: ["crm".to_owned()].into(),
        ..keyholder_broker::model::Limits::default()
    };
    let caller = app.caller("limited", &[Scope::Manage], limits).await;
    let refused = app.broker.set_up(&caller, new(app.plain("client_credentials"), named("crm"))).await;
    assert!(matches!(refused, Err(Error::Limited(_))));
    assert_eq!(integrations(&app).await, 0);
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn says(asked: &Asked, name: &str) -> Vec<String> {
    let pairs = url::form_urlencoded::parse(asked.body.as_bytes());
    pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
}

/// A connection `crm` of a provider that the test answers for.
async fn consented(new: impl FnOnce(NewIntegration) -> NewIntegration, reply: &str) -> (App, Fake, Asked, String) {
    let app = App::start().await;
    let mut fake = Fake::start().await;
    let mut plain = app.plain("authorization_code");
    plain.variables.insert("token_url".to_owned(), fake.url("/token"));
    app.add_integration(new(plain)).await;
    app.add_connection("crm", "authorization_code").await;
    let token = app.invite("crm").await;
    let begun = app.leave(&token).await;
    let sent_to = begun.redirect.query().unwrap().to_owned();
    let back = app.decide(&begun.redirect, "allow", "alice").await;
    let answers = [("/token", 200, reply)];
    let (finished, asked) = tokio::join!(app.return_with(&back, &begun), fake.play(&answers));
    let keyholder_broker::Finished::Confirm(link) = finished.unwrap() else { panic!("no return URL was given") };
    app.broker.decide(token_of(&link), Some(begun.browser.expose()), true).await.unwrap();
    let asked = asked.into_iter().next().unwrap();
    (app, fake, asked, sent_to)
}

#[tokio::test]
async fn more_parameters_go_with_the_request_that_they_are_for() {
    let extra = Extra {
        authorize: vec![pair("prompt", "consent"), pair("login_hint", "a b&c=d")],
        token: vec![pair("resource", "https://a.example"), pair("resource", "https://b.example")],
        refresh: vec![pair("renewed", "yes")],
    };
    let reply = r#"{"access_token": "a1", "expires_in": 3600, "refresh_token": "r1"}"#;
    let with_extra = |new| NewIntegration { extra: extra.clone(), ..new };
    let (app, mut fake, asked, sent_to) = consented(with_extra, reply).await;
    let sent: Vec<_> = url::form_urlencoded::parse(sent_to.as_bytes()).into_owned().collect();
    assert!(sent.contains(&pair("prompt", "consent")) && sent.contains(&pair("login_hint", "a b&c=d")), "{sent:?}");
    assert!(!sent.iter().any(|(name, _)| name == "resource"), "{sent:?}");
    assert_eq!(says(&asked, "resource"), ["https://a.example", "https://b.example"]);
    assert!(says(&asked, "prompt").is_empty() && says(&asked, "renewed").is_empty());

    app.advance(3000);
    let answers = [("/token", 200, r#"{"access_token": "a2", "expires_in": 3600, "refresh_token": "r2"}"#)];
    let (_, asked) = tokio::join!(app.broker.refresh(&app.admin, "crm"), fake.play(&answers));
    assert_eq!((says(&asked[0], "renewed"), says(&asked[0], "resource")), (vec!["yes".to_owned()], Vec::new()));

    let stored = app.broker.integration(&app.admin, "authorization_code").await.unwrap();
    assert_eq!(stored.extra, extra);
    let bad = Extra { token: vec![pair("client_id", "other")], ..Extra::default() };
    let edit = IntegrationEdit { extra: Some(bad), ..IntegrationEdit::default() };
    let refused = app.broker.edit_integration(&app.admin, "authorization_code", edit).await.err().unwrap();
    assert_eq!(fields(refused), ["extra.token"]);
    let edit = IntegrationEdit { extra: Some(Extra::default()), ..IntegrationEdit::default() };
    assert!(app.broker.edit_integration(&app.admin, "authorization_code", edit).await.unwrap().extra.is_empty());
}

#[tokio::test]
async fn an_integration_says_how_long_a_token_lives_and_when_it_is_renewed() {
    let renewal = RenewalPolicy { token_lifetime: Some(1800), ahead: Some(600), by_itself: true };
    let reply = json!({"access_token": "a1", "refresh_token": "r1"}).to_string();
    let (app, mut fake, ..) = consented(|new| NewIntegration { renewal, ..new }, &reply).await;
    let row = app.row("crm").await;
    assert_eq!(row.token_expires_at, Some(START + 1_800_000), "the reply said nothing");
    let due = row.due_at.unwrap() - START;
    assert!((1_140_000..=1_200_000).contains(&due), "ten minutes ahead, and a little jitter: {due}");

    let edit = |renewal| IntegrationEdit { renewal: Some(renewal), ..IntegrationEdit::default() };
    let wrong = RenewalPolicy { token_lifetime: Some(9), ahead: Some(0), by_itself: true };
    let refused = app.broker.edit_integration(&app.admin, "authorization_code", edit(wrong)).await.err().unwrap();
    assert_eq!(fields(refused), ["renewal.token_lifetime", "renewal.ahead"]);
    let at_use = RenewalPolicy { by_itself: false, ..RenewalPolicy::default() };
    app.broker.edit_integration(&app.admin, "authorization_code", edit(at_use)).await.unwrap();
    app.advance(60);
    let answers = [("/token", 200, r#"{"access_token": "a2", "expires_in": 3600, "refresh_token": "r2"}"#)];
    tokio::join!(app.broker.refresh(&app.admin, "crm"), fake.play(&answers)).0.unwrap();
    let row = app.row("crm").await;
    assert_eq!((row.due_at, row.generation), (None, 2), "at use only");
    app.advance(4000);
    let answers = [("/token", 200, r#"{"access_token": "a3", "expires_in": 3600, "refresh_token": "r3"}"#)];
    assert_eq!(tokio::join!(app.secret("crm"), fake.play(&answers)).0, "a3");
}
