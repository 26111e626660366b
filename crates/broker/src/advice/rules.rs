//! What is worth a person's look, judged from what was read: no I/O, no clock.

use keyholder_oauth::ClientAuth;
use keyholder_provider::{GrantKind, Pkce};

use super::{Advice, On, Severity};
use crate::audit::Methods;
use crate::ends::until;
use crate::model::{AllowRule, Integration, Scope, StoredKey, Values};
use crate::store::{Alike, LongLived, Noted};

const DAY: i64 = 24 * 3_600_000;
/// Fewer calls than this say nothing about what a connection is used for.
const TELLING: u64 = 10;
/// RFC 6750 §5.3 says an hour or less; a day is what many providers give.
pub(super) const LONG: i64 = DAY;
const UNUSED_KEY_DAYS: i64 = 90;

/// What is known of an integration beside its own fields.
pub(super) struct Kind<'a> {
    pub(super) integration: &'a Integration,
    pub(super) provider: &'a str,
    pub(super) grant: GrantKind,
    /// As the definition says.
    pub(super) client_auth: Option<ClientAuth>,
    pub(super) pkce: Pkce,
    /// Asked for without anybody's choosing.
    pub(super) always: &'a [String],
    /// Asked for where nothing was chosen.
    pub(super) default: &'a [String],
    pub(super) known: &'a [(String, String)],
}

impl Kind<'_> {
    fn on(&self) -> On {
        On::Integration(self.integration.id.clone(), self.integration.name.clone())
    }

    fn edit(&self) -> String {
        format!("/console/integrations/{}/edit", self.integration.id)
    }

    /// What is asked for.
    pub(super) fn asked(&self) -> impl Iterator<Item = &String> {
        let chosen = if self.integration.scopes.is_empty() { self.default } else { &self.integration.scopes };
        self.always.iter().chain(chosen)
    }

    fn writing<'s>(&self, scopes: &'s [String]) -> Vec<&'s str> {
        scopes.iter().map(String::as_str).filter(|scope| writes(scope, self.known)).collect()
    }
}

/// Whether a scope, by its words or by what the definition says of it, lets data be changed. Where neither tells, it is taken as not.
pub fn writes(scope: &str, known: &[(String, String)]) -> bool {
    const SURE: [&str; 16] = [
        "write",
        "writes",
        "readwrite",
        "modify",
        "edit",
        "update",
        "delete",
        "create",
        "send",
        "compose",
        "insert",
        "upload",
        "publish",
        "rw",
        "remove",
        "change",
    ];
    // Much has these and only reads: `User.Read.All`, `admin.directory.readonly`.
    const UNSURE: [&str; 6] = ["manage", "admin", "full", "all", "owner", "management"];
    const READS: [&str; 6] = ["read", "readonly", "view", "list", "ro", "get"];
    let words = words(scope);
    let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    if has(&SURE) || (has(&UNSURE) && !has(&READS)) {
        return true;
    }
    let meaning = known.iter().find(|(name, _)| name == scope).map(|(_, meaning)| self::words(meaning));
    meaning.is_some_and(|words| words.iter().any(|word| SURE.contains(&word.as_str()) || word == "manage"))
}

/// Lower case, split where no letter stands, and before a capital that follows a small letter.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut after_small) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if !c.is_alphabetic() || (c.is_uppercase() && after_small) {
            words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
        }
        if c.is_alphabetic() {
            word.extend(c.to_lowercase());
        }
        after_small = c.is_lowercase();
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// A granted scope as separate ones: providers write them apart by spaces or commas.
pub(super) fn parts(scope: &str) -> Vec<String> {
    scope.split([' ', ',']).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

pub(super) fn scope_unused(kind: &Kind<'_>, on: On, granted: &[String], methods: Methods) -> Option<Advice> {
    let writing = kind.writing(granted);
    if writing.is_empty() || methods.other > 0 || methods.reading < TELLING {
        return None;
    }
    let (named, calls) = (list(&writing), methods.reading);
    Some(Advice {
        rule: "scope_unused",
        severity: Severity::Medium,
        on,
        text: format!("It may change data ({named}), and none of its {calls} calls of the last 30 days did."),
        reason: "A token that may only read does less harm in wrong hands.",
        source: "Least privilege; RFC 9700 §2.3",
        href: kind.edit(),
        link: "Ask for less",
    })
}

/// `sources`: what each data source behind one connection, or under the integration, allows.
pub(super) fn scope_read_only_source(
    kind: &Kind<'_>,
    on: On,
    granted: &[String],
    sources: &[&[AllowRule]],
) -> Option<Advice> {
    let reads = |rule: &AllowRule| {
        !rule.methods.is_empty() && rule.methods.iter().all(|method| matches!(method.as_str(), "GET" | "HEAD"))
    };
    let all_read = !sources.is_empty() && sources.iter().all(|rules| !rules.is_empty() && rules.iter().all(reads));
    let writing = kind.writing(granted);
    if !all_read || writing.is_empty() {
        return None;
    }
    Some(Advice {
        rule: "scope_read_only_source",
        severity: Severity::Medium,
        on,
        text: format!(
            "Its data sources let nothing but reading through, and the token may change data ({}).",
            list(&writing)
        ),
        reason: "What a data source forbids, the token itself should not allow either.",
        source: "RFC 9700 §2.3",
        href: kind.edit(),
        link: "Ask for less",
    })
}

pub(super) fn scope_more(kind: &Kind<'_>, alike: &Alike, name: &str) -> Option<Advice> {
    // Where nothing is asked for, the provider decides.
    kind.asked().next()?;
    let granted = parts(&alike.what);
    let asked: Vec<_> = kind.asked().collect();
    let more: Vec<&str> = granted.iter().filter(|scope| !asked.contains(scope)).map(String::as_str).collect();
    if more.is_empty() {
        return None;
    }
    let of = if alike.count > 1 { format!(" This holds for {} connections.", alike.count) } else { String::new() };
    Some(Advice {
        rule: "scope_more",
        severity: Severity::Low,
        on: On::Connection(alike.first.clone(), name.to_owned()),
        text: format!("The provider granted what wasn't asked for: {}.{of}", list(&more)),
        reason: "Grants grow when an account said yes to more before, or when the application is set up for more at the provider.",
        source: "RFC 6749 §3.3",
        href: format!("/console/connections/{}", alike.first),
        link: "Compare",
    })
}

pub(super) fn password_grant(kind: &Kind<'_>) -> Option<Advice> {
    (kind.grant == GrantKind::Password).then(|| Advice {
        rule: "password_grant",
        severity: Severity::Medium,
        on: kind.on(),
        text: "It signs in with people's user names and passwords.".to_owned(),
        reason: "The password opens the whole account, and no second factor can be asked for. Current practice is not to use this grant.",
        source: "RFC 9700 §2.4",
        href: format!("/console/connections/new/{}", kind.provider),
        link: "Set up another method",
    })
}

pub(super) fn long_token(kind: &Kind<'_>, found: &LongLived) -> Option<Advice> {
    let connections = match found.count {
        1 => "One connection holds".to_owned(),
        count => format!("{count} connections hold"),
    };
    let (severity, text) = match found.longest / DAY {
        0 => (Severity::Low, format!("{connections} a token whose end isn't known.")),
        1 => (Severity::Low, format!("{connections} a token that lives longer than a day.")),
        days => (Severity::Medium, format!("{connections} a token that lives up to {days} days.")),
    };
    (found.count > 0).then(|| Advice {
        rule: "long_token",
        severity,
        on: kind.on(),
        text,
        reason: "Who gets hold of an access token may use it until it ends. An hour is what is recommended; many providers let it be set.",
        source: "RFC 6750 §5.3",
        href: kind.edit(),
        link: "Set the lifetime",
    })
}

pub(super) fn shared_account(integration: &str, found: &Alike, name: &str) -> Advice {
    Advice {
        rule: "shared_account",
        severity: Severity::Medium,
        on: On::Connection(found.first.clone(), name.to_owned()),
        text: format!("{} owners use the same account, “{}”, under “{integration}”.", found.owners, found.what),
        reason: "At the provider nobody can tell who did what, and ending one person's access ends everybody's.",
        source: "NIST SP 800-53 AC-2",
        href: format!("/console/connections/{}", found.first),
        link: "Look at it",
    }
}

pub(super) fn role_account(found: &Noted) -> Option<Advice> {
    is_role(&found.what).then(|| Advice {
        rule: "shared_account",
        severity: Severity::Low,
        on: On::Connection(found.id.clone(), found.name.clone()),
        text: format!("Its account, “{}”, looks like one that several people share.", found.what),
        reason: "Who did what can't be told, and its password is known to many. A service account of its own, or each person's own, is better.",
        source: "NIST SP 800-53 AC-2",
        href: format!("/console/connections/{}", found.id),
        link: "Look at it",
    })
}

/// `admin@…`, `info@…`, or such a word alone.
fn is_role(account: &str) -> bool {
    const ROLES: [&str; 16] = [
        "admin",
        "administrator",
        "admins",
        "info",
        "noreply",
        "no-reply",
        "team",
        "service",
        "services",
        "support",
        "office",
        "root",
        "shared",
        "sales",
        "contact",
        "no_reply",
    ];
    let account = account.trim().to_lowercase();
    let name = account.split_once('@').map_or(account.as_str(), |(name, _)| name);
    ROLES.contains(&name.split_once('+').map_or(name, |(name, _)| name))
}

/// An address by plain http to somewhere else than this machine.
pub(super) fn is_plain(address: &str) -> bool {
    let Ok(url) = url::Url::parse(address) else { return false };
    let here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => true,
    };
    url.scheme() == "http" && !here
}

/// `values`: what may be an address, by name.
pub(super) fn plain_http<'a>(
    on: On,
    values: impl IntoIterator<Item = (&'a str, &'a str)>,
    href: String,
) -> Option<Advice> {
    let (name, address) = values.into_iter().find(|(_, value)| is_plain(value))?;
    Some(Advice {
        rule: "plain_http",
        severity: Severity::High,
        on,
        text: format!("{name} is {address}: what is sent there can be read on the way."),
        reason: "Tokens, codes and client secrets must only go over TLS.",
        source: "RFC 9700 §2.6, RFC 6750 §5.3",
        href,
        link: "Change it to https",
    })
}

pub(super) fn of_values(values: &Values) -> impl Iterator<Item = (&str, &str)> {
    values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

/// A live key that may do much, without bounds.
pub(super) fn key_unlimited(key: &StoredKey, now: i64) -> Option<Advice> {
    let caller = &key.caller;
    let (is_admin, limits) = (caller.scopes.contains(&Scope::Admin), &caller.limits);
    let is_strong = is_admin || caller.scopes.contains(&Scope::Token) || caller.scopes.contains(&Scope::Call);
    let mut lacks = Vec::new();
    if is_admin && key.last_used_at.is_some_and(|at| at > now - DAY) {
        lacks.push("may do everything, and was used by a program in the last day");
    } else if is_strong && !is_admin && !limits.are_to_some() && limits.methods.is_empty() && limits.paths.is_empty() {
        lacks.push("reaches every connection");
    }
    if is_strong && caller.expires_at.is_none() {
        lacks.push("never expires");
    }
    if lacks.is_empty() || key.revoked_at.is_some() || is_over(key, now) {
        return None;
    }
    Some(Advice {
        rule: "key_unlimited",
        severity: Severity::Medium,
        on: On::Key(caller.key.clone(), caller.name.clone()),
        text: format!("This key {}.", lacks.join(", and ")),
        reason: "A key of its own for each program, for what it needs and for a time, makes a leak small. A key can't be changed: make another, then revoke this one.",
        source: "Least privilege; NIST SP 800-53 AC-6",
        href: "/console/callers/new".to_owned(),
        link: "Make a narrower key",
    })
}

pub(super) fn key_unused(key: &StoredKey, now: i64) -> Option<Advice> {
    let days = (now - key.last_used_at.unwrap_or(key.created_at)) / DAY;
    if days < UNUSED_KEY_DAYS || key.revoked_at.is_some() || is_over(key, now) {
        return None;
    }
    let text = match key.last_used_at {
        Some(_) => format!("It was last used {days} days ago."),
        None => format!("It was made {days} days ago and never used."),
    };
    Some(Advice {
        rule: "key_unused",
        severity: Severity::Low,
        on: On::Key(key.caller.key.clone(), key.caller.name.clone()),
        text,
        reason: "What nobody uses, nobody misses when it is stolen.",
        source: "NIST SP 800-53 AC-2(3)",
        href: format!("/console/callers/{}/revoke", key.caller.key),
        link: "Revoke it",
    })
}

fn is_over(key: &StoredKey, now: i64) -> bool {
    key.caller.expires_at.is_some_and(|at| at <= now)
}

pub(super) fn unused(found: &Noted, days: i64) -> Advice {
    Advice {
        rule: "unused",
        severity: Severity::Low,
        on: On::Connection(found.id.clone(), found.name.clone()),
        text: format!("Nobody used it in the last {days} days, and its tokens are renewed all the same."),
        reason: "A grant that nobody needs is only a risk.",
        source: "CIS Controls v8 5.3",
        href: format!("/console/connections/{}/disconnect", found.id),
        link: "Disconnect it",
    }
}

/// What ends at `at`: what it is, and what to do.
pub(super) fn ends_soon(on: On, what: &str, at: i64, now: i64, href: String, link: &'static str) -> Advice {
    let text = if at <= now {
        format!("{what} has ended: renewals fail, or soon will.")
    } else {
        format!("{what} ends in {}.", until(at, now))
    };
    Advice {
        rule: "ends_soon",
        severity: if at - now <= 3 * DAY { Severity::High } else { Severity::Medium },
        on,
        text,
        reason: "When it has ended, calls stop until a person has mended it.",
        source: "An outage ahead",
        href,
        link,
    }
}

pub(super) fn client_in_query(kind: &Kind<'_>) -> Option<Advice> {
    let text = match kind.integration.client_auth.or(kind.client_auth) {
        Some(ClientAuth::Query) => "The client secret is sent in the address of the request.",
        Some(ClientAuth::None) if kind.grant == GrantKind::AuthorizationCode && kind.pkce == Pkce::Off => {
            "The client doesn't authenticate, and no PKCE ties the code to who asked for it."
        }
        _ => return None,
    };
    Some(Advice {
        rule: "client_in_query",
        severity: Severity::Medium,
        on: kind.on(),
        text: text.to_owned(),
        reason: "Addresses are written to logs; a code without either can be redeemed by whoever intercepts it.",
        source: "RFC 9700 §2.5, §2.1.1",
        href: kind.edit(),
        link: "Change how it authenticates",
    })
}

/// At most three, so that a sentence stays one.
fn list(items: &[&str]) -> String {
    let shown =
        items.iter().take(3).map(|item| item.chars().take(80).collect::<String>()).collect::<Vec<_>>().join(", ");
    if items.len() > 3 { format!("{shown} and {} more", items.len() - 3) } else { shown }
}
