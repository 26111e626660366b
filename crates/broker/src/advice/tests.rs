//! Each rule: when it speaks, and when it doesn't.

use std::collections::BTreeSet;

use keyholder_oauth::ClientAuth;
use keyholder_provider::{GrantKind, Pkce};

use super::rules::*;
use super::unusual::{burst, new_caller, night};
use super::*;
use crate::model::{AllowRule, Limits};

const NOW: i64 = 1_790_000_000_000;

fn integration(scopes: &[&str]) -> Integration {
    Integration {
        id: "int_00000000000000000000000000".parse().unwrap(),
        tenant: Tenant::default_tenant(),
        name: "crm".to_owned(),
        description: String::new(),
        provider: "oauth2".to_owned(),
        provider_version: "1".to_owned(),
        method: "authorization_code".to_owned(),
        client_id: "id".to_owned(),
        client_secret: None,
        client_secret_expires_at: None,
        client_key: None,
        client_certificate: None,
        client_certificate_key: None,
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        audience: None,
        header_prefix: None,
        client_auth: None,
        grant_type: None,
        content_type: None,
        token_key: None,
        limits: crate::model::Rate::default(),
        extra: keyholder_provider::Extra::default(),
        renewal: crate::model::RenewalPolicy::default(),
        variables: Values::new(),
        secret_variables: BTreeMap::new(),
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn kind(integration: &Integration) -> Kind<'_> {
    Kind {
        integration,
        provider: "oauth2",
        grant: GrantKind::AuthorizationCode,
        client_auth: None,
        pkce: Pkce::Offered,
        always: &[],
        default: &[],
        known: &[],
    }
}

fn connection() -> ConnectionId {
    "con_00000000000000000000000000".parse().unwrap()
}

fn on() -> On {
    On::Connection(connection(), "mine".to_owned())
}

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn alike(what: &str, count: i64) -> Alike {
    let integration = "int_00000000000000000000000000".parse().unwrap();
    Alike { integration, what: what.to_owned(), first: connection(), count, owners: count }
}

fn noted(what: &str) -> Noted {
    Noted { id: connection(), name: "mine".to_owned(), what: what.to_owned() }
}

#[test]
fn a_scope_that_writes_is_told_by_its_words() {
    let known = [
        ("repo".to_owned(), "Read and write access to repositories".to_owned()),
        ("gist".to_owned(), "Manage your gists".to_owned()),
        ("profile".to_owned(), "See your name".to_owned()),
    ];
    for scope in [
        "write",
        "contacts.write",
        "Mail.ReadWrite",
        "Mail.Send",
        "crm:manage",
        "readwrite",
        "https://api.example/auth/full",
        "admin",
        "read_write",
        "fullAccess",
        "repo",
        "gist",
        "files:rw",
    ] {
        assert!(writes(scope, &known), "{scope}");
    }
    for scope in [
        "",
        "read",
        "openid",
        "User.Read.All",
        "admin.directory.readonly",
        "offline_access",
        "profile",
        "drive",
        "rewriter",
        "all:read",
        "https://allen.example/x.readonly",
    ] {
        assert!(!writes(scope, &known), "{scope}");
    }
}

#[test]
fn a_scope_that_writes_and_is_used_for_reading_only() {
    let it = integration(&["write"]);
    let found =
        |granted: &[&str], reading, other| scope_unused(&kind(&it), on(), &texts(granted), Methods { reading, other });
    let advice = found(&["read", "write"], 10, 0).unwrap();
    assert_eq!(advice.text, "It may change data (write), and none of its 10 calls of the last 30 days did.");
    assert_eq!(advice.href, "/console/integrations/int_00000000000000000000000000/edit");
    assert_eq!(found(&["read", "write"], 9, 0), None);
    assert_eq!(found(&["read", "write"], 1000, 1), None);
    assert_eq!(found(&["read"], 1000, 0), None);
}

#[test]
fn a_scope_that_writes_behind_sources_that_only_read() {
    let it = integration(&["write"]);
    let rule = |methods: &[&str]| AllowRule { methods: texts(methods).into_iter().collect(), path: "/**".to_owned() };
    let found =
        |granted: &[&str], sources: &[&[AllowRule]]| scope_read_only_source(&kind(&it), on(), &texts(granted), sources);
    let (reads, writes, any) = ([rule(&["GET", "HEAD"])], [rule(&["GET"]), rule(&["POST"])], [rule(&[])]);
    assert!(found(&["write"], &[&reads, &reads]).is_some());
    assert_eq!(found(&["read"], &[&reads]), None);
    for sources in [&[&reads[..], &writes[..]][..], &[&any[..]], &[&[]], &[]] {
        assert_eq!(found(&["write"], sources), None);
    }
}

#[test]
fn more_was_granted_than_asked() {
    let it = integration(&["read"]);
    let always = texts(&["openid"]);
    let kind = Kind { always: &always, ..kind(&it) };
    let text = |scope, count| scope_more(&kind, &alike(scope, count), "mine").map(|advice| advice.text);
    assert_eq!(text("read,write openid", 1).unwrap(), "The provider granted what wasn't asked for: write.");
    assert!(text("read a b c d", 3).unwrap().ends_with("a, b, c and 1 more. This holds for 3 connections."));
    assert_eq!(text("read openid", 1), None);
    assert_eq!(text("read", 1), None);
    let nothing = integration(&[]);
    assert_eq!(scope_more(&self::kind(&nothing), &alike("read", 1), "mine"), None);
}

#[test]
fn grants_and_authentication_that_are_no_longer_recommended() {
    let mut it = integration(&[]);
    assert_eq!(password_grant(&kind(&it)), None);
    assert!(password_grant(&Kind { grant: GrantKind::Password, ..kind(&it) }).is_some());
    let public = Some(ClientAuth::None);
    assert_eq!(client_in_query(&kind(&it)), None);
    assert_eq!(client_in_query(&Kind { client_auth: public, ..kind(&it) }), None);
    assert!(client_in_query(&Kind { client_auth: public, pkce: Pkce::Off, ..kind(&it) }).is_some());
    assert!(client_in_query(&Kind { client_auth: Some(ClientAuth::Query), ..kind(&it) }).is_some());
    // What the integration says wins over the definition.
    it.client_auth = Some(ClientAuth::Post);
    assert_eq!(client_in_query(&Kind { client_auth: Some(ClientAuth::Query), ..kind(&it) }), None);
}

#[test]
fn tokens_that_live_long() {
    let it = integration(&[]);
    let found = |count, days: i64, endless| {
        let found = LongLived { integration: it.id.clone(), count, longest: days * 24 * HOUR_MS, endless };
        long_token(&kind(&it), &found).map(|advice| (advice.severity, advice.text))
    };
    assert_eq!(found(0, 0, 0), None);
    assert_eq!(found(1, 0, 1).unwrap().1, "One connection holds a token whose end isn't known.");
    assert_eq!(
        found(2, 60, 1).unwrap(),
        (Severity::Medium, "2 connections hold a token that lives up to 60 days.".to_owned())
    );
}

#[test]
fn accounts_that_are_shared() {
    let advice = shared_account("crm", &alike("anna@example.com", 2), "mine");
    assert_eq!(advice.text, "2 owners use the same account, “anna@example.com”, under “crm”.");
    for account in ["admin@example.com", "INFO@example.com", "no-reply@example.com", "admin", "team+crm@example.com"] {
        assert!(role_account(&noted(account)).is_some(), "{account}");
    }
    for account in ["anna@example.com", "administratrix@example.com", "informatics@example.com", ""] {
        assert_eq!(role_account(&noted(account)), None, "{account}");
    }
}

#[test]
fn addresses_by_plain_http() {
    for address in ["http://api.example.com/", "HTTP://10.0.0.1", "http://localhost.example"] {
        assert!(is_plain(address), "{address}");
    }
    for address in [
        "https://api.example.com",
        "http://localhost:8787",
        "http://127.0.0.9/x",
        "http://[::1]/",
        "http://x.localhost",
        "http",
        "",
    ] {
        assert!(!is_plain(address), "{address}");
    }
    let values = [("name", "crm"), ("token_url", "http://as.example/token")];
    let advice = plain_http(on(), values, "/edit".to_owned()).unwrap();
    assert_eq!((advice.severity, advice.href.as_str()), (Severity::High, "/edit"));
    assert!(advice.text.starts_with("token_url is http://as.example/token:"));
}

fn stored(scopes: &[Scope]) -> StoredKey {
    let caller = Caller {
        key: "key_00000000000000000000000000".parse().unwrap(),
        name: "job".to_owned(),
        tenant: Tenant::default_tenant(),
        scopes: scopes.iter().copied().collect(),
        limits: Limits::default(),
        expires_at: None,
    };
    StoredKey { caller, hint: "khk_ab".to_owned(), created_at: NOW - DAY, last_used_at: None, revoked_at: None }
}

#[test]
fn keys_without_bounds() {
    let text = |key: &StoredKey| key_unlimited(key, NOW).map(|advice| advice.text);
    let mut key = stored(&[Scope::Token]);
    assert_eq!(text(&key).unwrap(), "This key reaches every connection, and never expires.");
    key.caller.limits.connections = BTreeSet::from(["crm".to_owned()]);
    assert_eq!(text(&key).unwrap(), "This key never expires.");
    key.caller.expires_at = Some(NOW + DAY);
    assert_eq!(text(&key), None);
    let unlimited = StoredKey { revoked_at: Some(NOW), ..stored(&[Scope::Call]) };
    assert_eq!(text(&unlimited), None);
    assert_eq!(text(&stored(&[Scope::Read, Scope::Manage])), None);
    let mut admin = stored(&[Scope::Admin]);
    admin.caller.expires_at = Some(NOW + DAY);
    assert_eq!(text(&admin), None);
    admin.last_used_at = Some(NOW - 1000);
    assert!(text(&admin).unwrap().contains("by a program in the last day"));
    admin.caller.expires_at = Some(NOW - 1);
    assert_eq!(text(&admin), None);
}

#[test]
fn keys_that_nobody_uses() {
    let mut key = stored(&[Scope::Read]);
    key.created_at = NOW - 90 * DAY;
    assert_eq!(key_unused(&key, NOW).unwrap().text, "It was made 90 days ago and never used.");
    key.last_used_at = Some(NOW - 91 * DAY);
    assert_eq!(key_unused(&key, NOW).unwrap().text, "It was last used 91 days ago.");
    key.last_used_at = Some(NOW - 89 * DAY);
    assert_eq!(key_unused(&key, NOW), None);
    key.last_used_at = Some(NOW - 91 * DAY);
    key.revoked_at = Some(NOW);
    assert_eq!(key_unused(&key, NOW), None);
}

#[test]
fn what_is_near_its_end_is_more_pressing() {
    let ends = |at| ends_soon(on(), "The client secret", at, NOW, "/edit".to_owned(), "Put a new one in");
    assert_eq!((ends(NOW + 20 * DAY).severity, ends(NOW + 2 * DAY).severity), (Severity::Medium, Severity::High));
    assert_eq!(ends(NOW + 20 * DAY).text, "The client secret ends in 20 days.");
    assert!(ends(NOW).text.starts_with("The client secret has ended"));
}

#[test]
fn a_burst_is_measured_by_what_is_usual() {
    let hours = |usual: i64, count: i64, most: i64| -> Vec<HourOfCalls> {
        let hour = |hour, calls| HourOfCalls { connection: connection(), name: "mine".to_owned(), hour, calls };
        (0..count).map(|at| hour(at, usual)).chain([hour(1000, 3), hour(1001, most)]).collect()
    };
    let text = |usual, count, most| burst(&hours(usual, count, most), 1000).map(|advice| advice.text);
    assert_eq!(text(20, 30, 201).unwrap(), "201 calls within an hour, where 20 are usual.");
    assert_eq!(text(20, 30, 200), None);
    assert_eq!(text(1, 30, 100), None);
    assert_eq!(text(1, 23, 5000), None);
    assert_eq!(text(1, 0, 5000), None);
    let href = burst(&hours(1, 24, 5000), 1000).unwrap().href;
    assert!(href.ends_with("&by=caller&from=3520800000&to=3603600000"), "{href}");
}

#[test]
fn a_new_caller_and_a_new_night_lead_to_what_was_done() {
    let found = FirstUse { connection: connection(), name: "mine".to_owned(), caller: "key_x".to_owned(), hour: 1 };
    let advice = new_caller(&found, Some("job"));
    assert!(advice.text.starts_with("“job” used it"));
    assert_eq!(advice.href, "/console/audit?connection=con_00000000000000000000000000&caller=key_x");
    assert!(new_caller(&found, None).text.starts_with("“key_x” used it"));
    let hour = HourOfCalls { connection: connection(), name: "mine".to_owned(), hour: 3, calls: 7 };
    assert!(night(&hour).text.starts_with("7 calls between midnight and five"));
}
