//! When a token set is renewed, and when its grant dies.

use std::time::Duration;

use keyholder_oauth::TokenSet;
use keyholder_provider::{GrantKind, Recovery, RefreshLife};

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
    /// `connected_at` is when the grant was made; `None`: now.
    pub(crate) fn times(&self, plan: &Plan, tokens: &TokenSet, connected_at: Option<i64>, now: i64) -> Times {
        let kind = Kind {
            needs_person: plan.rendered.grant == GrantKind::AuthorizationCode,
            access_dies: plan.rendered.recovery == Recovery::AccessDies,
            life: plan.rendered.refresh_life,
        };
        times(&kind, tokens, connected_at.unwrap_or(now), now, self.rng.unit())
    }
}

/// What a plan says about times.
struct Kind {
    needs_person: bool,
    access_dies: bool,
    life: RefreshLife,
}

/// Due: what comes first of the access token's expiry, less `AHEAD`, and half the time after which an unused refresh token dies; both a little earlier by `chance`,
/// 0 to 1, so that what was made at once isn't renewed at once.
fn times(kind: &Kind, tokens: &TokenSet, granted_at: i64, now: i64, chance: f64) -> Times {
    if kind.needs_person && tokens.refresh_token.is_none() {
        return Times { due_at: None, dies_at: tokens.expires_at };
    }
    let expiry = tokens.expires_at.map(|expires| {
        let life = (expires - now).max(0);
        let ahead = match kind.access_dies {
            true => (life / 10).min(millis(AHEAD_WHERE_ACCESS_DIES)),
            false => (life / 2).min(millis(AHEAD)),
        };
        expires - ahead - part(ahead, chance / 10.0)
    });
    // A grant that needs no person is run anew.
    let kept = |end: Option<i64>| end.filter(|end| kind.needs_person && *end > now);
    let after = |start: i64, life: Option<Duration>| life.map(|life| start.saturating_add(millis(life)));
    let unused = [kept(after(now, kind.life.idle)), kept(tokens.refresh_expires_at)].into_iter().flatten().min();
    let keep_alive = unused.map(|end| now + part(end - now, 0.5 - chance / 20.0));
    Times {
        due_at: [expiry, keep_alive].into_iter().flatten().min().map(|at| at.max(now + millis(LEAST))),
        dies_at: [unused, kept(after(granted_at, kind.life.absolute))].into_iter().flatten().min(),
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
        let times = times(kind, tokens, granted_at, NOW, 0.0);
        (times.due_at.map(|at| at - NOW), times.dies_at.map(|at| at - NOW))
    }

    fn kind(idle: Option<u64>, absolute: Option<u64>) -> Kind {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        Kind {
            needs_person: true,
            access_dies: false,
            life: RefreshLife { idle: idle.map(days), absolute: absolute.map(days) },
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
        let due = |chance| times(&kind, &tokens, NOW, NOW, chance).due_at;
        assert_eq!((due(0.0), due(1.0)), (Some(NOW + 45 * DAY), Some(NOW + 81 * DAY / 2)));
        let (kind, tokens) = (self::kind(None, None), self::tokens(Some(60 * MINUTE), true, None));
        assert_eq!(times(&kind, &tokens, NOW, NOW, 1.0).due_at, Some(NOW + 45 * MINUTE - 90_000));
    }
}
