//! What is tried after a reply was lost: each provider treats a refresh token differently that was used once and is used again (DESIGN §5).

use std::time::Duration;

use keyholder_oauth::{FailureShape, TokenFailure};
use keyholder_provider::Recovery;

use crate::clock::millis;
use crate::model::Connection;

/// Retries where haste helps begin with this.
const SOON: Duration = Duration::from_secs(1);
/// Where only a 401 of the API can tell that nothing is left to lose.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// What is known when a refresh token may have been used without an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    /// When it was first sent, Unix milliseconds.
    pub(super) at: i64,
    /// When the access token expires, Unix milliseconds; `None`: not known.
    pub(super) access_expires_at: Option<i64>,
    /// Now, Unix milliseconds.
    pub(super) now: i64,
}

impl Lost {
    /// The token set of `row`, its refresh token first sent at `at`.
    pub(super) fn of(row: &Connection, at: i64, now: i64) -> Self {
        Self { at, access_expires_at: row.token_expires_at, now }
    }
}

/// How long to wait before the refresh token is sent again; `backoff` where nothing speaks for another time. Where a second use does harm, the
/// claim stays until the first request can no longer arrive, and is waited for beside this.
///
/// | class | the used token | it is sent again |
/// | --- | --- | --- |
/// | `static` | is as good as before | after the usual backoff |
/// | `until_used` | works until its successor is used, which nobody holds | after the usual backoff |
/// | `window` | works for a while | at once, several times before the window closes |
/// | `single_use` | is dead if the request arrived; trying does no harm | after the usual backoff |
/// | `access_dies` | as `single_use`, and the old access token may be dead too | as soon as may be |
/// | `family` | would end the whole grant if the request arrived | when the access token has expired, and so nothing is left to lose |
pub(super) fn wait(recovery: &Recovery, lost: Lost, backoff: Duration) -> Duration {
    match recovery {
        Recovery::Static | Recovery::UntilUsed | Recovery::SingleUse => backoff,
        Recovery::AccessDies => backoff.min(SOON),
        Recovery::Window(window) => match left(lost.at.saturating_add(millis(*window)), lost.now) {
            Duration::ZERO => backoff,
            open => backoff.min(SOON).min(open / 2).max(SOON / 4),
        },
        Recovery::Family => match lost.access_expires_at {
            Some(expires) => left(expires, lost.now).max(backoff),
            None => LONG,
        },
    }
}

/// Whether sending now could cost more than it wins. A person who insists is not asked.
pub(super) fn must_wait(recovery: &Recovery, lost: Lost) -> Option<Duration> {
    match (recovery, lost.access_expires_at) {
        (Recovery::Family, Some(expires)) if expires > lost.now => Some(left(expires, lost.now)),
        (Recovery::Family, None) => Some(LONG),
        _ => None,
    }
}

/// Would a second use of the refresh token do harm, so that a dead owner is waited for with patience?
pub(super) fn second_use_harms(recovery: &Recovery) -> bool {
    match recovery {
        Recovery::SingleUse | Recovery::Family | Recovery::AccessDies => true,
        Recovery::Static | Recovery::Window(_) | Recovery::UntilUsed => false,
    }
}

/// Does this answer leave open whether the refresh token was used? A server that broke down, or something before it that gave up waiting, says nothing about that;
/// nor does a success that can't be read.
pub(super) fn leaves_open(refused: &TokenFailure) -> bool {
    let unreadable = is_unreadable(refused) || (refused.what == FailureShape::Html && refused.status < 300);
    let broke_down = refused.what != FailureShape::OauthError && matches!(refused.status, 408 | 500 | 502 | 504..);
    unreadable || broke_down
}

/// A success in which no token was found: with a corrected definition it may yet be read.
pub(crate) fn is_unreadable(refused: &TokenFailure) -> bool {
    matches!(refused.what, FailureShape::NotAToken(_)) && refused.status < 300
}

/// In a person's words: what may have happened to the refresh token, and what follows.
pub(super) fn told(recovery: &Recovery) -> &'static str {
    match recovery {
        Recovery::Static => "This provider's refresh tokens stay valid, so it is simply sent again.",
        Recovery::UntilUsed => {
            "This provider accepts the refresh token again until its successor is used, so it is sent again."
        }
        Recovery::Window(_) => {
            "This provider accepts the refresh token again for a while, so it is sent again at once."
        }
        Recovery::SingleUse => {
            "If the request arrived, the refresh token is spent, and its successor is lost with the reply; if it didn't, sending it again helps. So it is tried again."
        }
        Recovery::AccessDies => {
            "If the request arrived, the refresh token and the access token before it are both spent; if it didn't, sending it again helps. So it is tried again soon."
        }
        Recovery::Family => {
            "If the request arrived, a second use of the refresh token would make this provider end the whole grant. So it is not sent again while the access token is valid."
        }
    }
}

fn left(at: i64, now: i64) -> Duration {
    Duration::from_millis(at.saturating_sub(now).max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Duration = Duration::from_secs(90);

    fn lost(access_expires_at: Option<i64>) -> Lost {
        Lost { at: 1_000, access_expires_at, now: 11_000 }
    }

    #[test]
    fn each_class_waits_in_its_own_way() {
        let seconds = Duration::from_secs;
        let valid = lost(Some(3_611_000));
        let cases = [
            (Recovery::Static, BACKOFF, None),
            (Recovery::UntilUsed, BACKOFF, None),
            (Recovery::SingleUse, BACKOFF, None),
            (Recovery::AccessDies, SOON, None),
            (Recovery::Window(seconds(60)), SOON, None),
            // Half of what is left of it.
            (Recovery::Window(seconds(11)), Duration::from_millis(500), None),
            (Recovery::Window(seconds(10)), BACKOFF, None),
            (Recovery::Family, seconds(3600), Some(seconds(3600))),
        ];
        for (class, expected, must) in cases {
            assert_eq!(wait(&class, valid, BACKOFF), expected, "{class:?}");
            assert_eq!(must_wait(&class, valid), must, "{class:?}");
        }
    }

    #[test]
    fn a_family_is_tried_when_nothing_is_left_to_lose() {
        assert_eq!(wait(&Recovery::Family, lost(Some(11_000)), BACKOFF), BACKOFF);
        assert_eq!(must_wait(&Recovery::Family, lost(Some(11_000))), None);
        assert_eq!(must_wait(&Recovery::Family, lost(None)), Some(LONG));
        assert_eq!(wait(&Recovery::Family, lost(None), BACKOFF), LONG);
    }
}
