//! Operators of the console: links, passwords, sessions; and what their lists are narrowed by.

use keyholder_broker::model::{For, KeyId, Said, Scope};
use keyholder_broker::store::Filter;
use keyholder_broker::{Error, NewConnection, OperatorEdit, Page, Proof};
use keyholder_oauth::Secret;

use crate::app::{App, values};

const PASSWORD: &str = "correct horse battery";

fn password() -> Secret {
    Secret::new(PASSWORD)
}

fn proof(password: &str) -> Proof {
    Proof::Password(Secret::new(password))
}

/// The token of a link.
fn token(url: &str) -> String {
    url.rsplit_once("/console/welcome/").unwrap().1.to_owned()
}

async fn owner(app: &App) -> Secret {
    let link = app.broker.first_link().await.unwrap().unwrap();
    app.broker.join(&token(&link), "Anna", &proof(PASSWORD)).await.unwrap()
}

fn field_of(error: Error) -> String {
    let Error::Invalid(errors) = error else { panic!("{error}") };
    errors.into_iter().map(|it| it.field).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn a_link_makes_one_owner_once() {
    let app = App::start().await;
    let old = app.broker.first_link().await.unwrap().unwrap();
    let link = app.broker.first_link().await.unwrap().unwrap();
    let gone = |link: &str| {
        let (broker, token) = (app.broker.clone(), token(link));
        async move { matches!(broker.join(&token, "Anna", &proof(PASSWORD)).await.err(), Some(Error::Gone(_))) }
    };
    assert!(gone(&old).await, "an earlier start's link has ended");
    assert_eq!(app.broker.read_operator_link(&token(&link)).await.unwrap(), For::New { scopes: [Scope::Admin].into() });
    for (name, chosen, field) in [("", PASSWORD, "name"), ("Anna", "short", "password"), ("Anna/", PASSWORD, "name")] {
        let error = app.broker.join(&token(&link), name, &proof(chosen)).await.err().unwrap();
        assert_eq!(field_of(error), field);
    }
    let session = app.broker.join(&token(&link), "Anna", &proof(PASSWORD)).await.unwrap();
    let anna = app.broker.session(session.expose()).await.unwrap().unwrap();
    assert_eq!((anna.operator.name.as_str(), anna.caller.may(Scope::Admin)), ("Anna", true));
    assert!(gone(&link).await, "used");
    assert!(app.broker.first_link().await.unwrap().is_none(), "there is an owner");
    for hostile in ["", "x", "../../admin", &"a".repeat(10_000)] {
        assert!(matches!(app.broker.read_operator_link(hostile).await.err(), Some(Error::Gone(_))));
    }

    let second = app.broker.operator_link(&anna.caller, For::New { scopes: [Scope::Read].into() }).await.unwrap();
    app.advance(3600);
    assert!(gone(&second.url).await, "an hour later");
    assert_eq!(app.count("SELECT count(*) FROM operators"), 1);
    assert!(app.recorded("operator.join", "ok").await >= 1);
}

#[tokio::test]
async fn wrong_passwords_are_all_the_same_and_make_a_name_wait() {
    let app = App::start().await;
    owner(&app).await;
    let wrong = |name: &'static str| {
        let broker = app.broker.clone();
        async move { broker.sign_in(name, &Secret::new("not the password")).await.err().unwrap().to_string() }
    };
    let (known, unknown) = (wrong("Anna").await, wrong("Nobody").await);
    assert_eq!(known, unknown);
    // A name that nobody has waits as one that is known.
    for name in ["Anna", "Nobody"] {
        for _ in 0..4 {
            assert_eq!(wrong(name).await, known, "{name}");
        }
        for seconds in [1, 2, 4] {
            let waits = app.broker.sign_in(name, &password()).await.err().unwrap().to_string();
            assert!(waits.contains(&format!("try again in {seconds} s")), "{name}: {waits}");
            app.advance(seconds);
            assert_eq!(wrong(name).await, known, "{name}, after {seconds} s");
        }
        app.advance(8);
    }
    app.broker.sign_in("Anna", &password()).await.unwrap();
    assert_eq!(wrong("Anna").await, known);
    assert!(wrong("Anna").await.contains("try again in 16 s"), "a right one shows nobody that there is such a name");
    app.advance(3600);
    assert_eq!(wrong("Anna").await, known, "an hour later they are forgotten");
    app.broker.sign_in("Anna", &password()).await.unwrap();
    assert_eq!(app.count("SELECT count(*) FROM sign_in_failures"), 2, "a row for each name, none for each try");
    // An id is no name to sign in by.
    let id = app.broker.operators(&app.admin).await.unwrap()[0].id.clone();
    assert!(app.broker.sign_in(id.as_str(), &password()).await.is_err());
}

#[tokio::test]
async fn a_session_ends_by_itself_by_hand_and_with_a_new_password() {
    let app = App::start().await;
    let first = owner(&app).await;
    let second = app.broker.sign_in("Anna", &password()).await.unwrap();
    let there = |token: &Secret| {
        let (broker, token) = (app.broker.clone(), token.clone());
        async move { broker.session(token.expose()).await.unwrap().is_some() }
    };
    assert!(there(&first).await && there(&second).await && !there(&Secret::new("nonsense")).await);
    app.broker.say(first.expose(), &Said::good("Saved.").saved("new x")).await.unwrap();
    assert!(app.broker.session(first.expose()).await.unwrap().unwrap().has_said);
    assert_eq!(app.broker.take_said(first.expose()).await.unwrap(), [Said::good("Saved.").saved("new x")]);
    assert_eq!(app.broker.take_said(first.expose()).await.unwrap(), []);
    assert_eq!(app.broker.take_said(second.expose()).await.unwrap(), [], "another session");

    let anna = app.broker.session(first.expose()).await.unwrap().unwrap();
    let edit = OperatorEdit { password: Some(Secret::new("another horse battery")), ..OperatorEdit::default() };
    app.broker.edit_operator(&anna.caller, &anna.operator.id, edit, Some(first.expose())).await.unwrap();
    assert!(there(&first).await && !there(&second).await);
    assert!(app.broker.sign_in("Anna", &password()).await.is_err());

    app.broker.sign_out(first.expose()).await.unwrap();
    app.broker.sign_out(first.expose()).await.unwrap();
    assert!(!there(&first).await);
    let third = app.broker.sign_in("Anna", &Secret::new("another horse battery")).await.unwrap();
    for _ in 0..13 {
        app.advance(12 * 3600 - 1);
        assert!(there(&third).await, "in use");
    }
    app.advance(12 * 3600);
    assert!(!there(&third).await, "idle, and a week is over");
}

#[tokio::test]
async fn only_administrators_change_others_and_one_always_stays() {
    let app = App::start().await;
    owner(&app).await;
    let link = app.broker.operator_link(&app.admin, For::New { scopes: [Scope::Read].into() }).await.unwrap();
    let bob = app.broker.join(&token(&link.url), "Bob", &proof(PASSWORD)).await.unwrap();
    let bob = app.broker.session(bob.expose()).await.unwrap().unwrap();
    let anna: KeyId = app.broker.operator(&app.admin, "Anna").await.unwrap().id;
    let refused = |result: Result<(), Error>| matches!(result, Err(Error::Forbidden(Scope::Admin)));
    let rename = OperatorEdit { name: Some("Robert".to_owned()), ..OperatorEdit::default() };
    let promote = OperatorEdit { scopes: Some([Scope::Admin].into()), ..OperatorEdit::default() };
    assert!(refused(app.broker.edit_operator(&bob.caller, &anna, rename.clone(), None).await));
    assert!(refused(app.broker.edit_operator(&bob.caller, &bob.operator.id, promote.clone(), None).await));
    assert!(refused(app.broker.remove_operator(&bob.caller, &anna).await));
    assert!(app.broker.operator_link(&bob.caller, For::Reset(anna.clone())).await.is_err());
    app.broker.edit_operator(&bob.caller, &bob.operator.id, rename, None).await.unwrap();

    let demote = OperatorEdit { scopes: Some([Scope::Read].into()), ..OperatorEdit::default() };
    assert!(app.broker.edit_operator(&app.admin, &anna, demote.clone(), None).await.is_err(), "the last one");
    assert!(app.broker.remove_operator(&app.admin, &anna).await.is_err(), "the last one");
    app.broker.edit_operator(&app.admin, &bob.operator.id, promote, None).await.unwrap();
    let sessions = async || {
        let token = app.broker.sign_in("Anna", &password()).await.unwrap();
        app.broker.session(token.expose()).await.unwrap().map(|it| (token, it))
    };
    let (kept, _) = sessions().await.unwrap();
    let (ended, _) = sessions().await.unwrap();
    app.broker.edit_operator(&app.admin, &anna, demote, Some(kept.expose())).await.unwrap();
    let kept = app.broker.session(kept.expose()).await.unwrap().expect("the one that is kept");
    assert!(kept.caller.may(Scope::Read) && !kept.caller.may(Scope::Admin), "with the new rights");
    assert!(app.broker.session(ended.expose()).await.unwrap().is_none(), "the others end with the old rights");
    assert!(refused(app.broker.operators(&kept.caller).await.map(drop)));
    assert!(kept.operator.seen_at.is_some());
    let (_, again) = sessions().await.unwrap();
    app.broker.end_sessions(&again.caller, &anna, None).await.unwrap();
    assert_eq!(app.count("SELECT count(*) FROM console_sessions"), 0, "Bob's ended when he was promoted");
    let went_astray = app.broker.operator_link(&app.admin, For::Reset(anna.clone())).await.unwrap();
    let reset = app.broker.operator_link(&app.admin, For::Reset(anna.clone())).await.unwrap();
    let late = app.broker.join(&token(&went_astray.url), "ignored", &proof("somebody else's words")).await.map(drop);
    assert!(matches!(late, Err(Error::Gone(_))), "a newer link ends the older: {late:?}");
    app.broker.join(&token(&reset.url), "ignored", &proof("another horse battery")).await.unwrap();
    app.broker.sign_in("Anna", &Secret::new("another horse battery")).await.unwrap();
    app.broker.remove_operator(&app.admin, &anna).await.unwrap();
    assert_eq!(app.count("SELECT count(*) FROM console_sessions"), 0, "Anna's ended with her");
    let names: Vec<_> = app.broker.operators(&app.admin).await.unwrap().into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["Robert"]);
}

#[tokio::test]
async fn a_list_is_narrowed_by_provider_tag_and_text() {
    let app = App::start().await;
    app.add_integration(app.plain("client_credentials")).await;
    for (name, owner, tags) in [
        ("alpha", Some("Jane"), values([("env", "prod"), ("team", "a\"b")])),
        ("be_ta", None, values([("env", "test")])),
        ("beXta", Some("100%"), values([])),
    ] {
        let (name, integration) = (name.to_owned(), "client_credentials".to_owned());
        let new =
            NewConnection { name, integration, owner: owner.map(str::to_owned), tags, ..NewConnection::default() };
        app.broker.add_connection(&app.admin, new).await.unwrap();
        app.advance(1);
    }
    let found = |filter: Filter| {
        let (broker, admin) = (app.broker.clone(), app.admin.clone());
        async move {
            let found = broker.connections(&admin, &filter, &Page::first()).await.unwrap();
            found.into_iter().map(|it| it.connection.name).collect::<Vec<_>>().join(" ")
        }
    };
    let search = |text: &str| Filter { search: Some(text.to_owned()), ..Filter::default() };
    let tag = |name: &str, value: Option<&str>| Filter {
        tag: Some((name.to_owned(), value.map(str::to_owned))),
        ..Filter::default()
    };
    let provider = |id: &str| Filter { provider: Some(id.to_owned()), ..Filter::default() };
    for (filter, expected) in [
        (search("ALPHA"), "alpha"),
        (search("jane"), "alpha"),
        (search("e_t"), "be_ta"),
        (search("%"), "beXta"),
        (search("con_"), "alpha be_ta beXta"),
        (search("'; DROP TABLE connections"), ""),
        (search(&"%".repeat(100_000)), ""),
        (tag("env", Some(&"x".repeat(100_000))), ""),
        (tag("env", None), "alpha be_ta"),
        (tag("env", Some("prod")), "alpha"),
        (tag("team", Some("a\"b")), "alpha"),
        (tag("prod", None), ""),
        (provider("oauth2"), "alpha be_ta beXta"),
        (provider("nobody"), ""),
    ] {
        assert_eq!(found(filter.clone()).await, expected, "{filter:?}");
    }
    let counts = app.broker.counts(&app.admin).await.unwrap();
    assert_eq!(
        (counts.of("draft"), counts.of("connected"), counts.integrations, counts.sources, counts.keys),
        (3, 0, 1, 0, 1)
    );
    let tallies = app.broker.tallies(&app.admin).await.unwrap();
    assert_eq!((tallies.connections, tallies.integrations, tallies.sources, tallies.keys), (3, 1, 0, 1));
}
