//! A renewal that failed: recorded with its reason, its counters and the time of the next attempt.

use std::time::Duration;

use keyholder_oauth::FailureKind;

use super::{Enough, Outcome, Wish};
use crate::clock::millis;
use crate::error::Error;
use crate::explain::Explained;
use crate::model::{Attempt, Connection, ConnectionState, Failure, Status};
use crate::open::Broker;
use crate::store::RecordFailure;

/// A provider that asks to wait longer is asked again after this.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

impl Broker {
    /// There is no refresh token, and the grant doesn't run by itself. Recorded only when the access token is of no use any more: expired, or refused
    /// by the API where its expiry isn't known. A caller who wishes for more life than is left, a person who asks for a renewal, or a single path that answers 401 to
    /// everybody ends no connection that works.
    pub(super) async fn nothing_to_renew_with(&self, row: &Connection, wish: Wish) -> Outcome {
        let explained = no_refresh_token(self.now_ms());
        let refused_by_api = matches!(wish, Wish { enough: Enough::NewerThan(_), insist: false });
        if row.token_set.is_none() {
            let (state, failure) = (row.state.status(), row.state.failure().cloned());
            return Err(Error::NotReady { connection: row.name.clone(), state, failure, retry_after: None });
        }
        let is_useless = row.token_expires_at.map_or(refused_by_api, |at| at <= self.now_ms());
        if !is_useless && wish.insist {
            return Err(Error::NotPossible(format!(
                "the provider gave no refresh token, so there is nothing to renew `{}` with; its access token is still valid. {}",
                row.name, explained.failure.remedy
            )));
        }
        if !is_useless {
            return Err(self.not_ready(row, explained.failure, None));
        }
        self.fail_unsent(row, explained).await
    }

    /// Records a failure before anything was sent: claim and record in one transaction.
    pub(super) async fn fail_unsent(&self, row: &Connection, explained: Explained) -> Outcome {
        let attempt = self.new_attempt();
        if self.claim(row, &attempt).await? {
            return self.fail(row, &attempt, explained).await;
        }
        Err(self.not_ready(row, explained.failure, None))
    }

    /// Records why there is no new token, gives the claim back, and answers the reason.
    pub(super) async fn fail(&self, row: &Connection, attempt: &Attempt, explained: Explained) -> Outcome {
        let now = self.now_ms();
        let Explained { mut failure, retry_after } = explained;
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
        let record = RecordFailure { state, failures, retry_at, due_at: by_itself, lost_at: row.lost_at, now };
        let (id, generation, attempt_id) = (row.id.clone(), row.generation, attempt.id.clone());
        let recorded = self
            .store
            .write(move |tx| {
                let recorded = tx.record_failure(&id, generation, &attempt_id, &record)?;
                if recorded {
                    event.write(tx)?;
                }
                Ok(recorded)
            })
            .await?;
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
