//! Definitions of one's own: versions, what integrations stay on, what extends what; and the same for those that come with the program.

use keyholder_broker::model::{Scope, Status, Values};
use keyholder_broker::{Error, NewIntegration, NewVersion, Upgrade};

use crate::app::App;

/// A definition of a machine grant; what `more` says is behind it.
fn acme(app: &App, token: &str, more: &str) -> String {
    let base = app.sandbox.base_url();
    format!(
        "schema = 1\nid = \"acme\"\nname = \"Acme\"\n[[methods]]\ngrant = \"client_credentials\"\n[token]\nurl = \"{base}/{token}\"\nclient_auth = \"basic\"\n[api]\nbase_url = \"{base}/api\"\n{more}"
    )
}

fn integration(app: &App, name: &str, provider: &str) -> NewIntegration {
    let new = app.plain("client_credentials");
    NewIntegration { name: name.to_owned(), provider: provider.to_owned(), variables: Values::new(), ..new }
}

async fn versions(app: &App, id: &str) -> Vec<(String, i64)> {
    let versions = app.broker.provider_versions(&app.admin, id).await.unwrap();
    versions.into_iter().map(|it| (it.version, it.integrations)).collect()
}

async fn upgrade(app: &App, name: &str, version: Option<&str>, dry_run: bool) -> Result<Upgrade, Error> {
    let new = NewVersion { version: version.map(str::to_owned), dry_run, ..NewVersion::default() };
    app.broker.upgrade_integration(&app.admin, name, new).await
}

async fn version_of(app: &App, name: &str) -> String {
    app.broker.integration(&app.admin, name).await.unwrap().provider_version
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_stays_on_its_version_until_it_is_upgraded() {
    let app = App::start().await;
    let added = app.broker.add_provider(&app.admin, "acme.toml", &acme(&app, "token", "")).await.unwrap();
    assert_eq!((added.version.as_str(), added.built_in), ("1", false));
    app.add_integration(integration(&app, "crm", "acme")).await;
    app.add_connection("crm", "crm").await;
    app.run("crm").await.unwrap();

    // A version that sends the secret to a place that isn't there.
    let added = app.broker.add_provider(&app.admin, "acme.toml", &acme(&app, "elsewhere", "")).await.unwrap();
    assert_eq!(added.version, "2");
    let again = app.broker.add_provider(&app.admin, "acme.toml", &acme(&app, "elsewhere", "")).await.unwrap();
    assert_eq!(again.version, "2", "the same text is the same version");
    app.broker.refresh(&app.admin, "crm").await.unwrap();
    assert_eq!((app.status("crm").await, version_of(&app, "crm").await.as_str()), (Status::Connected, "1"));
    assert_eq!(versions(&app, "acme").await, [("2".to_owned(), 0), ("1".to_owned(), 1)]);

    let seen = upgrade(&app, "crm", None, true).await.unwrap();
    assert_eq!((seen.from.as_str(), seen.to.as_str()), ("1", "2"));
    assert!(seen.difference.contains("--- acme.toml, version 1\n+++ acme.toml, version 2\n"), "{}", seen.difference);
    assert!(
        seen.difference.contains("/token\"\n+url = ") && seen.difference.contains("/elsewhere\""),
        "{}",
        seen.difference
    );
    let base = app.sandbox.base_url();
    let moved = |field: &str| (field.to_owned(), Some(format!("{base}/token")), Some(format!("{base}/elsewhere")));
    assert!(seen.meaning.addresses.contains(&moved("token.url")), "{:?}", seen.meaning);
    assert_eq!(version_of(&app, "crm").await, "1", "to look changes nothing");

    let manager = app.caller("manager", &[Scope::Read, Scope::Manage], Default::default()).await;
    let refused = app.broker.upgrade_integration(&manager, "crm", NewVersion::default()).await;
    assert!(matches!(refused, Err(Error::Forbidden(Scope::Admin))), "it may send the secret elsewhere");

    // A restart finds the version in the database.
    let app = app.crashed_with(|_| ()).await.app;
    app.broker.refresh(&app.admin, "crm").await.unwrap();
    upgrade(&app, "crm", None, false).await.unwrap();
    assert_eq!(version_of(&app, "crm").await, "2");
    app.broker.refresh(&app.admin, "crm").await.unwrap_err();
    upgrade(&app, "crm", Some("1"), false).await.unwrap();
    app.broker.refresh(&app.admin, "crm").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_removed_only_when_nothing_stays_on_it_and_its_number_is_not_given_again() {
    let app = App::start().await;
    for token in ["token", "token?a=2", "token?a=3"] {
        app.broker.add_provider(&app.admin, "acme.toml", &acme(&app, token, "")).await.unwrap();
    }
    app.add_integration(integration(&app, "crm", "acme")).await;
    assert_eq!(version_of(&app, "crm").await, "3");
    for version in [None, Some("3")] {
        let refused = app.broker.remove_provider(&app.admin, "acme", version).await;
        assert!(matches!(refused, Err(Error::InUse { .. })), "{refused:?}");
    }
    app.broker.remove_provider(&app.admin, "acme", Some("2")).await.unwrap();
    assert!(matches!(upgrade(&app, "crm", Some("2"), true).await, Err(Error::NotFound { .. })));
    upgrade(&app, "crm", Some("1"), false).await.unwrap();
    app.broker.remove_provider(&app.admin, "acme", Some("3")).await.unwrap();
    assert_eq!(versions(&app, "acme").await, [("1".to_owned(), 1)]);
    let added = app.broker.add_provider(&app.admin, "acme.toml", &acme(&app, "token?a=4", "")).await.unwrap();
    assert_eq!(added.version, "4");
    app.broker.remove_integration(&app.admin, "crm").await.unwrap();
    app.broker.remove_provider(&app.admin, "acme", None).await.unwrap();
    assert!(matches!(app.broker.provider(&app.admin, "acme", None).await, Err(Error::NotFound { .. })));
    let refused = app.broker.remove_provider(&app.admin, "oidc", None).await;
    assert!(matches!(refused, Err(Error::NotPossible(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_of_a_base_makes_new_versions_of_what_extends_it() {
    let app = App::start().await;
    let child = "schema = 1\nid = \"acme-eu\"\nname = \"Acme EU\"\nextends = \"acme\"\n";
    let grandchild =
        "schema = 1\nid = \"acme-de\"\nname = \"Acme DE\"\nextends = \"acme-eu\"\n[token.params]\nregion = \"de\"\n";
    app.broker.add_provider(&app.admin, "acme.toml", &acme(&app, "token", "")).await.unwrap();
    app.broker.add_provider(&app.admin, "eu.toml", child).await.unwrap();
    app.broker.add_provider(&app.admin, "de.toml", grandchild).await.unwrap();
    app.add_integration(integration(&app, "crm", "acme-de")).await;
    app.add_connection("crm", "crm").await;
    app.run("crm").await.unwrap();

    app.broker.add_provider(&app.admin, "acme.toml", &acme(&app, "elsewhere", "")).await.unwrap();
    assert_eq!(versions(&app, "acme-de").await, [("2".to_owned(), 0), ("1".to_owned(), 1)]);
    app.broker.refresh(&app.admin, "crm").await.unwrap();
    let seen = upgrade(&app, "crm", None, true).await.unwrap();
    assert!(
        seen.difference.contains("+++ acme.toml, version 2") && !seen.difference.contains("acme-de.toml"),
        "{}",
        seen.difference
    );

    // A base that would break what extends it is refused whole, with the mistake in the other's words.
    let broken = acme(&app, "token", "")
        .replace("[token]", "[[methods]]\ngrant = \"password\"\n[token]\nparams = { region = 1, a = \"x\" }");
    app.broker.add_provider(&app.admin, "acme.toml", &broken).await.unwrap();
    let broken = broken.replace("id = \"acme\"", "id = \"acme\"\nextends = \"acme-de\"");
    let refused = app.broker.add_provider(&app.admin, "acme.toml", &broken).await;
    assert!(matches!(&refused, Err(Error::Definition(errors)) if errors[0].field == "extends"), "a circle");
    assert_eq!(versions(&app, "acme").await.len(), 3);

    let refused = app.broker.remove_provider(&app.admin, "acme", None).await;
    assert!(matches!(refused, Err(Error::InUse { by, .. }) if by.contains("extend")));
    // A start reads each with its own bases, whatever the order.
    let app = app.crashed_with(|_| ()).await.app;
    assert_eq!(app.broker.provider(&app.admin, "acme-de", None).await.unwrap().version, "3");
    app.broker.refresh(&app.admin, "crm").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_release_changes_no_integration_by_itself() {
    let app = App::start().await;
    app.machine("m").await;
    let now = version_of(&app, "client_credentials").await;
    assert!(now.starts_with("built-in-"), "{now}");
    assert_eq!(versions(&app, "oauth2").await, [(now.clone(), 1)]);
    // As if an older release had made it, whose text was another.
    app.database.run(
        "UPDATE integrations SET provider_version = 'built-in-0123456789ab'; \
         UPDATE providers SET version = 'built-in-0123456789ab', definition = replace(definition, 'name = \"', 'name = \"Older ')",
    );
    let app = app.crashed_with(|_| ()).await.app;
    app.broker.refresh(&app.admin, "m").await.unwrap();
    let old = app.broker.provider(&app.admin, "oauth2", Some("built-in-0123456789ab")).await.unwrap();
    assert!(old.definition.name.starts_with("Older "), "{}", old.definition.name);
    assert_eq!(versions(&app, "oauth2").await, [(now.clone(), 0), ("built-in-0123456789ab".to_owned(), 1)]);
    let seen = upgrade(&app, "client_credentials", None, true).await.unwrap();
    assert!(seen.difference.contains("-name = \"Older "), "{}", seen.difference);
    assert!(seen.meaning.addresses.is_empty());
    upgrade(&app, "client_credentials", None, false).await.unwrap();
    assert_eq!(version_of(&app, "client_credentials").await, now);
    app.broker.refresh(&app.admin, "m").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_agree() {
    let app = App::start().await;
    let other = app.sibling().await;
    app.broker.add_provider(&app.admin, "acme.toml", &acme(&app, "token", "")).await.unwrap();
    // Whoever adds looks first.
    let second = other.broker.add_provider(&app.admin, "acme.toml", &acme(&app, "token?v=2", "")).await.unwrap();
    assert_eq!(second.version, "2");
    if crate::ON_POSTGRES {
        app.broker.catch_up().await.unwrap();
        assert_eq!(app.broker.provider(&app.admin, "acme", None).await.unwrap().version, "2");
    }
    app.add_integration(integration(&app, "crm", "acme")).await;
    app.add_connection("crm", "crm").await;
    other.broker.authorize(&app.admin, "crm", None, None).await.unwrap();
    upgrade(&other, "crm", Some("1"), false).await.unwrap();
    app.broker.refresh(&app.admin, "crm").await.unwrap();
    // Removed there, it can't be used here although it is still in memory.
    other.broker.remove_provider(&app.admin, "acme", Some("2")).await.unwrap();
    let refused = app.broker.add_integration(&app.admin, integration(&app, "late", "acme")).await;
    if crate::ON_POSTGRES {
        assert!(matches!(refused, Err(Error::ChangedMeanwhile("provider"))), "{refused:?}");
    }
    let refused = other.broker.remove_provider(&app.admin, "acme", Some("1")).await;
    assert!(matches!(refused, Err(Error::InUse { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_version_needs_is_said_and_asked_for() {
    let app = App::start().await;
    let old = "[token.params]\nold = \"{{old}}\"\n[variables.old]\n";
    let new = "[token.params]\nnew = \"{{new}}\"\nmine = \"{{mine}}\"\n[variables.new]\n[variables.mine]\nasked_of = \"connection\"\n";
    app.broker.add_provider(&app.admin, "acme.toml", &acme(&app, "token", old)).await.unwrap();
    let variables = [("old".to_owned(), "x".to_owned())].into();
    app.add_integration(NewIntegration { variables, ..integration(&app, "crm", "acme") }).await;
    app.broker.add_provider(&app.admin, "acme.toml", &acme(&app, "token", new)).await.unwrap();
    let meaning = upgrade(&app, "crm", None, true).await.unwrap().meaning;
    assert_eq!(
        (&meaning.missing[..], &meaning.missing_in_connections[..]),
        (&["new".to_owned()][..], &["mine".to_owned()][..])
    );
    assert_eq!(meaning.dropped, ["old"]);
    let refused = upgrade(&app, "crm", None, false).await.err().unwrap();
    assert!(matches!(&refused, Error::Invalid(errors) if errors[0].field == "variables.new"), "{refused}");
    let variables = [("new".to_owned(), "y".to_owned())].into();
    let wanted = NewVersion { variables, ..NewVersion::default() };
    let done = app.broker.upgrade_integration(&app.admin, "crm", wanted).await.unwrap();
    assert_eq!(done.integration.variables, [("new".to_owned(), "y".to_owned())].into());
}
