//! When a token set is renewed, and when its grant dies.

use std::time::Duration;

use keyholder_oauth::TokenSet;
use keyholder_provider::{KeepAlive, Recovery, RefreshLife, RefreshWith};

use crate::clock::millis;
use crate::open::Broker;
use crate::plan::Plan;

/// A token is renewed so long before it expires, or at half its life.
const AHEAD: Duration = Duration::from_secs(15 * 60);
/// The same where renewal ends the access token that others still use.
const AHEAD_WHERE_ACCESS_DIES: Duration = Duration::from_secs(60);
/// No sooner than this after the last renewal, however short the life.
const LEAST: Duration = Duration::from_secs(1);

/// The times of a token set, Unix milliseconds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// When the scheduler renews. `None` where only use or a person can tell.
    pub(crate) due_at: Option<i64>,
    /// When only a person could bring the connection back, as far as is known and if it isn't renewed before: the refresh token dies, or, where there is none, the
    /// access token.
    pub(crate) dies_at: Option<i64>,
}

impl Broker {
    /// The times of a token set that came now; `connected_at` is when the grant was made; `None`: now.
    pub(crate) fn times(&self, plan: &Plan, tokens: &TokenSet, connected_at: Option<i64>, now: i64) -> Times {
        self.times_since(plan, tokens, connected_at, now, now)
    }

    /// The times of a token set whose main token came at `renewed_at`.
    pub(crate) fn times_since(
        &self,
        plan: &Plan,
        tokens: &TokenSet,
        connected_at: Option<i64>,
        renewed_at: i64,
        now: i64,
    ) -> Times {
        let rendered = &plan.rendered;
        let kind = Kind {
            needs_person: rendered.grant.needs_a_person(),
            access_dies: rendered.recovery == Recovery::AccessDies,
            extends_itself: rendered.refresh_with == RefreshWith::AccessToken,
            keep_alive: rendered.keep_alive,
            min_age: rendered.refresh_min_age.unwrap_or_default(),
            life: rendered.refresh_life,
            ahead: plan.renewal.ahead.map(|seconds| Duration::from_secs(seconds.into())),
            by_itself: plan.renewal.by_itself,
        };
        let when = When { granted_at: connected_at.unwrap_or(now), renewed_at, now };
        times(&kind, tokens, when, self.rng.unit())
    }
}

/// What a plan says about times.
struct Kind {
    needs_person: bool,
    access_dies: bool,
    /// There is no refresh token: the access token is sent.
    extends_itself: bool,
    keep_alive: KeepAlive,
    min_age: Duration,
    life: RefreshLife,
    /// The integration's own.
    ahead: Option<Duration>,
    /// Else at use only.
    by_itself: bool,
}

/// When things happened, Unix milliseconds.
#[derive(Clone, Copy)]
struct When {
    granted_at: i64,
    /// When the main token came, and its refresh token was last used.
    renewed_at: i64,
    now: i64,
}

/// Due: what comes first of the access token's expiry, less `AHEAD`, and half the time after which an unused refresh token dies; both a little earlier by `chance`,
/// 0 to 1, so that what was made at once isn't renewed at once. Never before the provider renews it. Secondary tokens with a refresh token of their own are due like
/// access tokens.
fn times(kind: &Kind, tokens: &TokenSet, when: When, chance: f64) -> Times {
    let now = when.now;
    let before = |expires: i64| {
        let life = (expires - now).max(0);
        let ahead = match (kind.ahead, kind.access_dies) {
            // Never so early that it would be renewed all the time.
            (Some(own), _) => (life / 4 * 3).min(millis(own)),
            (None, true) => (life / 10).min(millis(AHEAD_WHERE_ACCESS_DIES)),
            (None, false) => (life / 2).min(millis(AHEAD)),
        };
        expires - ahead - part(ahead, chance / 10.0)
    };
    let own = tokens.secondary.values().filter(|token| token.refresh_token.is_some());
    let secondary = own.filter_map(|token| token.expires_at.map(before)).min();
    let due = |at: Option<i64>| at.map(|at| at.max(now + millis(LEAST))).filter(|_| kind.by_itself);
    if kind.needs_person && tokens.refresh_token.is_none() && !kind.extends_itself {
        return Times { due_at: due(secondary), dies_at: tokens.expires_at };
    }
    // A grant that needs no person is run anew.
    let kept = |end: Option<i64>| end.filter(|end| kind.needs_person && *end > now);
    let after = |start: i64, life: Option<Duration>| life.map(|life| start.saturating_add(millis(life)));
    let itself = tokens.expires_at.filter(|_| kind.extends_itself);
    let ends = [after(when.renewed_at, kind.life.idle), tokens.refresh_expires_at, itself];
    let unused = ends.into_iter().filter_map(kept).min();
    let since = when.renewed_at;
    let keep_alive = match kind.keep_alive {
        KeepAlive::Off => None,
        KeepAlive::ByIdleLife => unused.map(|end| since + part(end - since, 0.5 - chance / 20.0)),
        KeepAlive::Every(often) => kept(after(since, Some(often))).map(|at| at - part(millis(often), chance / 20.0)),
    };
    let youngest = since.saturating_add(millis(kind.min_age));
    let main = [tokens.expires_at.map(before), keep_alive].into_iter().flatten().min().map(|at| at.max(youngest));
    Times {
        due_at: due([main, secondary].into_iter().flatten().min()),
        dies_at: [unused, kept(after(when.granted_at, kind.life.absolute))].into_iter().flatten().min(),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a part of some years in milliseconds"
)]
fn part(of: i64, share: f64) -> i64 {
    (of as f64 * share) as i64
}

/// Which token endpoint renews this plan's connections: its address without query. Renewals are bounded, and broken off, by it.
pub(crate) fn endpoint_key(plan: &Plan) -> String {
    let mut url = plan.rendered.refresh.url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

#[cfg(test)]
mod tests {
    use keyholder_oauth::Secret;

    use super::*;

    const NOW: i64 = 1_790_000_000_000;
    const MINUTE: i64 = 60_000;
    const DAY: i64 = 24 * 60 * MINUTE;

    fn tokens(expires: Option<i64>, refresh_token: bool, refresh_expires: Option<i64>) -> TokenSet {
        TokenSet {
            access_token: Secret::new("a"),
            refresh_token: refresh_token.then(|| Secret::new("r")),
            id_token: None,
            token_type: "Bearer".to_owned(),
            expires_at: expires.map(|life| NOW + life),
            refresh_expires_at: refresh_expires.map(|life| NOW + life),
            scope: None,
            secondary: Default::default(),
            extra: serde_json::Map::new(),
        }
    }

    /// Due and dying, from now; without jitter.
    fn of(kind: &Kind, tokens: &TokenSet, granted_at: i64) -> (Option<i64>, Option<i64>) {
        let times = times(kind, tokens, When { granted_at, renewed_at: NOW, now: NOW }, 0.0);
        (times.due_at.map(|at| at - NOW), times.dies_at.map(|at| at - NOW))
    }

    fn kind(idle: Option<u64>, absolute: Option<u64>) -> Kind {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        Kind {
            needs_person: true,
            access_dies: false,
            extends_itself: false,
            keep_alive: KeepAlive::ByIdleLife,
            min_age: Duration::ZERO,
            life: RefreshLife { idle: idle.map(days), absolute: absolute.map(days) },
            ahead: None,
            by_itself: true,
        }
    }

    #[test]
    fn what_comes_first_decides() {
        let hour = Some(60 * MINUTE);
        let table = [
            ("by expiry", kind(None, None), tokens(hour, true, None), (Some(45 * MINUTE), None)),
            ("half a short life", kind(None, None), tokens(Some(20 * MINUTE), true, None), (Some(10 * MINUTE), None)),
            ("not all the time", kind(None, None), tokens(Some(100), true, None), (Some(1000), None)),
            ("nothing is known", kind(None, None), tokens(None, true, None), (None, None)),
            ("kept alive", kind(Some(90), None), tokens(None, true, None), (Some(45 * DAY), Some(90 * DAY))),
            ("expiry before that", kind(Some(90), None), tokens(hour, true, None), (Some(45 * MINUTE), Some(90 * DAY))),
            ("that before expiry", kind(Some(2), None), tokens(Some(60 * DAY), true, None), (Some(DAY), Some(2 * DAY))),
            ("by the reply", kind(Some(90), None), tokens(None, true, Some(DAY)), (Some(DAY / 2), Some(DAY))),
            ("for ever used", kind(None, Some(365)), tokens(None, true, None), (None, Some(265 * DAY))),
            ("both", kind(Some(90), Some(110)), tokens(None, true, None), (Some(45 * DAY), Some(10 * DAY))),
            ("older than it can be", kind(None, Some(50)), tokens(hour, true, None), (Some(45 * MINUTE), None)),
            ("no refresh token", kind(Some(90), None), tokens(Some(60 * DAY), false, None), (None, Some(60 * DAY))),
        ];
        for (what, kind, tokens, expected) in table {
            assert_eq!(of(&kind, &tokens, NOW - 100 * DAY), expected, "{what}");
        }
    }

    #[test]
    fn where_renewal_ends_the_access_token_it_comes_late() {
        let kind = Kind { access_dies: true, ..kind(None, None) };
        assert_eq!(of(&kind, &tokens(Some(480 * MINUTE), true, None), NOW).0, Some(479 * MINUTE));
        assert_eq!(of(&kind, &tokens(Some(5 * MINUTE), true, None), NOW).0, Some(5 * MINUTE - 30_000));
    }

    #[test]
    fn a_grant_that_needs_no_person_does_not_die() {
        let kind = Kind { needs_person: false, ..kind(Some(1), Some(1)) };
        assert_eq!(of(&kind, &tokens(None, true, Some(DAY)), NOW), (None, None));
        assert_eq!(of(&kind, &tokens(Some(60 * MINUTE), false, None), NOW), (Some(45 * MINUTE), None));
    }

    #[test]
    fn jitter_makes_it_earlier_never_later() {
        let (kind, tokens) = (kind(Some(90), None), tokens(None, true, None));
        let when = When { granted_at: NOW, renewed_at: NOW, now: NOW };
        let due = |chance| times(&kind, &tokens, when, chance).due_at;
        assert_eq!((due(0.0), due(1.0)), (Some(NOW + 45 * DAY), Some(NOW + 81 * DAY / 2)));
        let (kind, tokens) = (self::kind(None, None), self::tokens(Some(60 * MINUTE), true, None));
        assert_eq!(times(&kind, &tokens, when, 1.0).due_at, Some(NOW + 45 * MINUTE - 90_000));
    }

    #[test]
    fn what_a_definition_says_of_renewal_moves_it() {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        let (hour, year) = (Some(60 * MINUTE), Some(365 * DAY));
        let of = |kind: Kind, tokens: &TokenSet| of(&kind, tokens, NOW);
        let off = Kind { keep_alive: KeepAlive::Off, ..kind(Some(90), None) };
        assert_eq!(of(off, &tokens(None, true, None)), (None, Some(90 * DAY)));
        let every = Kind { keep_alive: KeepAlive::Every(days(30)), ..kind(Some(90), None) };
        assert_eq!(of(every, &tokens(year, true, None)), (Some(30 * DAY), Some(90 * DAY)));
        let young = Kind { min_age: Duration::from_secs(50 * 60), ..kind(None, None) };
        assert_eq!(of(young, &tokens(hour, true, None)), (Some(50 * MINUTE), None));
        let itself = || Kind { extends_itself: true, min_age: days(1), ..kind(None, None) };
        assert_eq!(of(itself(), &tokens(Some(60 * DAY), false, None)), (Some(30 * DAY), Some(60 * DAY)));
        assert_eq!(of(itself(), &tokens(hour, false, None)), (Some(DAY), Some(60 * MINUTE)));
    }

    #[test]
    fn an_integration_says_how_long_before_its_end_a_token_is_renewed() {
        let ahead = |seconds| Kind { ahead: Some(Duration::from_secs(seconds)), ..kind(None, None) };
        let hour = tokens(Some(60 * MINUTE), true, None);
        assert_eq!(of(&ahead(300), &hour, NOW).0, Some(55 * MINUTE));
        assert_eq!(of(&ahead(24 * 3600), &hour, NOW).0, Some(15 * MINUTE), "three quarters of its life at most");
        let dies = Kind { access_dies: true, ..ahead(600) };
        assert_eq!(of(&dies, &hour, NOW).0, Some(50 * MINUTE), "the integration's word, not the definition's");
        let at_use = Kind { by_itself: false, ..kind(Some(90), None) };
        assert_eq!(of(&at_use, &hour, NOW), (None, Some(90 * DAY)), "when it dies is known all the same");
    }

    #[test]
    fn a_secondary_token_is_due_by_itself() {
        let secondary = |refresh_token: Option<&str>| keyholder_oauth::SecondaryToken {
            access_token: Secret::new("s"),
            refresh_token: refresh_token.map(Secret::new),
            token_type: "user".to_owned(),
            expires_at: Some(NOW + 60 * MINUTE),
            scope: None,
        };
        let due = |own, main: TokenSet| {
            let tokens = TokenSet { secondary: [("user".to_owned(), secondary(own))].into(), ..main };
            of(&kind(None, None), &tokens, NOW)
        };
        let long = Some(10 * DAY);
        assert_eq!(due(Some("r"), tokens(long, true, None)).0, Some(45 * MINUTE));
        assert_eq!(due(Some("r"), tokens(None, false, None)).0, Some(45 * MINUTE));
        assert_eq!(due(None, tokens(long, true, None)).0, Some(10 * DAY - 15 * MINUTE), "it comes with the main one");
    }
}
