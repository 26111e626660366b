//! A renewal that failed: recorded with its reason, its counters and the time of the next attempt.

use std::time::Duration;

use keyholder_oauth::FailureKind;
use keyholder_provider::Recovery;

use super::claims::PATIENCE;
use super::recovery::{self, Lost};
use super::{Outcome, Wish};
use crate::clock::millis;
use crate::error::Error;
use crate::explain::Explained;
use crate::model::{Attempt, Connection, ConnectionState, Failure, Status};
use crate::open::Broker;
use crate::store::RecordFailure;

/// A provider that asks to wait longer is asked again after this.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// A renewal that failed, on its way into the row.
pub(super) struct Failed {
    explained: Explained,
    /// A refresh token was sent, and nobody knows whether it was used: since when (Unix milliseconds), and what that means at this provider.
    lost: Option<(i64, Recovery)>,
    /// What was sent may still be under way, and arrive after what is sent next.
    under_way: bool,
    /// The reply may hold a token set that this definition doesn't find.
    pub(super) unreadable: bool,
}

impl Failed {
    /// The provider's answer is known.
    pub(super) fn plain(explained: Explained) -> Self {
        Self { explained, lost: None, under_way: false, unreadable: false }
    }

    /// Nothing was sent; what was unknown before still is.
    pub(super) fn unsent(explained: Explained, row: &Connection) -> Self {
        // Whatever the class: nothing was added to what is unknown, and so nothing about the wait.
        Self { lost: row.lost_at.map(|at| (at, Recovery::Static)), ..Self::plain(explained) }
    }

    /// No answer: whether the refresh token was used is not known since `at`, and the request may still be under way.
    pub(super) fn unanswered(explained: Explained, at: i64, recovery: &Recovery) -> Self {
        Self { under_way: recovery::second_use_harms(recovery), ..Self::lost(explained, at, recovery) }
    }

    /// Whether the refresh token was used is not known since `at`.
    pub(super) fn lost(mut explained: Explained, at: i64, recovery: &Recovery) -> Self {
        explained.failure.remedy = format!(
            "The provider may have acted on the request although its reply was lost. {}",
            recovery::told(recovery)
        );
        Self { lost: Some((at, *recovery)), ..Self::plain(explained) }
    }

    /// This time it was not used, or was refused; what happened at `at` is as unknown as before.
    pub(super) fn still_lost(mut explained: Explained, at: i64, recovery: &Recovery) -> Self {
        if explained.failure.kind == FailureKind::Grant {
            explained
                .failure
                .message
                .push_str(" Before that, a reply had been lost, and with it the refresh token that replaced this one.");
        }
        Self { lost: Some((at, *recovery)), ..Self::plain(explained) }
    }
}

impl Broker {
    /// There is no refresh token, and the grant doesn't run by itself. Recorded only when the access token is of no use any more: expired, or refused
    /// by the API where its expiry isn't known. A caller who wishes for more life than is left, a person who asks for a renewal, or a single path that answers 401 to
    /// everybody ends no connection that works.
    pub(super) async fn nothing_to_renew_with(&self, row: &Connection, dead: Option<&Attempt>, wish: Wish) -> Outcome {
        let explained = no_refresh_token(self.now_ms());
        if row.token_set.is_none() {
            let (state, failure) = (row.state.status(), row.state.failure().cloned());
            return Err(Error::NotReady { connection: row.name.clone(), state, failure, retry_after: None });
        }
        let is_useless = row.token_expires_at.map_or(wish.refused_by_api(), |at| at <= self.now_ms());
        if !is_useless && wish.insists() {
            return Err(Error::NotPossible(format!(
                "the provider gave no refresh token, so there is nothing to renew `{}` with; its access token is still valid. {}",
                row.name, explained.failure.remedy
            )));
        }
        if !is_useless {
            return Err(self.not_ready(row, explained.failure, None));
        }
        self.fail_unsent(row, dead, Failed::plain(explained)).await
    }

    /// Records a failure before anything was sent, in the place of `dead`, the claim of somebody who ended.
    pub(super) async fn fail_unsent(&self, row: &Connection, dead: Option<&Attempt>, failed: Failed) -> Outcome {
        if row.attempt.is_some() && dead.is_none() {
            // Somebody else is at it, and will say how it ended.
            return Err(self.not_ready(row, failed.explained.failure, None));
        }
        self.fail(row, dead, failed).await
    }

    /// Records why there is no new token, gives the claim `attempt` back, and answers the reason.
    pub(super) async fn fail(&self, row: &Connection, attempt: Option<&Attempt>, failed: Failed) -> Outcome {
        let now = self.now_ms();
        let Failed { explained: Explained { mut failure, retry_after }, lost, under_way, .. } = failed;
        let mut failures = row.failures;
        failures.count(failure.kind);
        let in_a_row = failures.setup + failures.transient;
        let wait = match failure.kind {
            FailureKind::Grant => None,
            FailureKind::Transient => {
                Some(self.backoff(Duration::from_secs(2), Duration::from_secs(15 * 60), in_a_row))
            }
            FailureKind::Setup => Some(self.backoff(Duration::from_secs(15), Duration::from_secs(3600), in_a_row)),
        };
        let wait = wait.map(|backoff| match lost {
            Some((at, recovery)) => recovery::wait(&recovery, Lost::of(row, at, now), backoff),
            None => backoff,
        });
        // The claim stays: who comes before it has run out waits for that.
        let over_at = attempt.filter(|_| under_way).map(|attempt| attempt.deadline + millis(PATIENCE));
        let wait = wait.map(|wait| wait.max(over_at.map_or(Duration::ZERO, |at| left(at, now))));
        let retry_at = wait.map(|wait| now + millis(wait.max(retry_after.unwrap_or_default().min(LONGEST_WAIT))));
        // A set-up that never worked is not tried by itself: a person is at it, and sees each failure.
        let being_set_up = row.connected_at.is_none() && failure.kind == FailureKind::Setup;
        let by_itself = retry_at.filter(|_| !being_set_up);
        failure.next_try_at = by_itself;
        let state = match failure.kind {
            FailureKind::Grant => ConnectionState::Reconnect(failure.clone()),
            FailureKind::Setup | FailureKind::Transient => ConnectionState::Failing(failure.clone()),
        };
        let event = self.event(row, "failed", format!("{} {}", failure.message, failure.remedy));
        let record = RecordFailure {
            state,
            failures,
            retry_at,
            due_at: by_itself,
            lost_at: lost.map(|(at, _)| at),
            keeps_claim: under_way,
            now,
        };
        let (id, generation, attempt) = (row.id.clone(), row.generation, attempt.map(|attempt| attempt.id.clone()));
        let recorded = self
            .store
            .write(move |tx| {
                let recorded = tx.record_failure(&id, generation, attempt.as_ref(), &record)?;
                if recorded {
                    event.write(tx)?;
                }
                Ok(recorded)
            })
            .await?;
        self.usage.renewed(now, &row.tenant, &row.id, false);
        if !recorded && failure.kind == FailureKind::Grant {
            // A sibling may have won in between: its token set is the answer.
            let id = row.id.clone();
            if let Some(newer) = self.store.read(move |tx| tx.connection_by_id(&id)).await?
                && newer.generation > row.generation
                && let Some(live) = self.live_of(&newer)?
            {
                return Ok(live);
            }
        }
        tracing::info!(connection = %row.id, kind = ?failure.kind, code = failure.code, "renewal failed");
        self.due.notify_one();
        Err(self.not_ready(row, failure, retry_at.map(|at| left(at, now))))
    }

    fn not_ready(&self, row: &Connection, failure: Failure, retry_after: Option<Duration>) -> Error {
        let state = match failure.kind {
            FailureKind::Grant => Status::Reconnect,
            FailureKind::Setup | FailureKind::Transient => Status::Failing,
        };
        Error::NotReady { connection: row.name.clone(), state, failure: Some(failure), retry_after }
    }

    /// Doubles with each failure in a row, between half and the whole of it, so that many don't come back at once.
    fn backoff(&self, first: Duration, most: Duration, in_a_row: i64) -> Duration {
        let doubled = first.saturating_mul(1 << in_a_row.clamp(1, 20).unsigned_abs().saturating_sub(1).min(20));
        doubled.min(most).mul_f64(0.5 + self.rng.unit() / 2.0)
    }
}

/// From `now` to `at`, both Unix milliseconds.
pub(super) fn left(at: i64, now: i64) -> Duration {
    Duration::from_millis(at.saturating_sub(now).max(0).unsigned_abs())
}

fn no_refresh_token(now: i64) -> Explained {
    Explained {
        retry_after: None,
        failure: Failure {
            kind: FailureKind::Grant,
            code: None,
            message: "The provider gave no refresh token, so the access token can't be renewed without a person.".to_owned(),
            remedy: "Authorise the connection again. To avoid it, ask for a refresh token: many providers give one only for a scope like `offline_access` or when it is enabled in the application's settings there.".to_owned(),
            at: now,
            next_try_at: None,
        },
    }
}
