//! First phase: who calls, and what the call asks of the gateway itself.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::account::Account;
use super::credential::KeptBody;
use super::{Call, ProxyRequest, Via};
use crate::allowance::Turn;
use crate::clock::millis;
use crate::error::{Error, Result, invalid};
use crate::model::Caller;
use crate::open::Broker;

/// What of a caller's headers is meant for the gateway begins so, and goes no further.
pub(super) const OWN: &str = "keyholder-";
/// Chooses another of the definition's hosts than the base URL's.
const HOST_CHOICE: HeaderName = HeaderName::from_static("keyholder-host");
/// How often the call may be sent again.
const RETRY: HeaderName = HeaderName::from_static("keyholder-retry");
/// When the call must be over.
const TIMEOUT: HeaderName = HeaderName::from_static("keyholder-timeout");

/// Most repetitions that a caller may ask for.
const MOST_RETRIES: u32 = 5;
/// Longest time that a caller may give a call.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// When a call must be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Unix milliseconds.
    pub(crate) at: i64,
    /// How long that was when the call came in.
    pub(crate) within: Duration,
}

impl ProxyRequest {
    /// What it asks of the gateway itself. Most ask nothing, which a look at each header tells quicker than a search for one.
    pub(crate) fn own(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.headers.iter().find_map(|(its, value)| (its == name).then_some(value))
    }
}

impl Broker {
    /// When a request must be over; `None`: its caller doesn't say.
    pub(crate) fn due(&self, request: &ProxyRequest) -> Result<Option<Due>> {
        let Some(text) = request.own(&TIMEOUT) else { return Ok(None) };
        let within =
            text.to_str().ok().and_then(duration).filter(|it| (Duration::from_millis(1)..=LONGEST).contains(it));
        let within = within.ok_or_else(|| {
            invalid("Keyholder-Timeout", "it is no time from 1ms to 24h", "write a number and its unit: 500ms, 10s, 5m")
        })?;
        Ok(Some(Due { at: self.now_ms().saturating_add(millis(within)), within }))
    }

    /// Gives work up when it is due.
    pub(crate) async fn by<T>(&self, due: Due, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.clock.timeout(self.left(due), work).await.unwrap_or(Err(Error::DeadlinePassed(due.within)))
    }

    /// How long it is until then.
    pub(super) fn left(&self, due: Due) -> Duration {
        Duration::from_millis((due.at - self.now_ms()).max(0).unsigned_abs())
    }

    /// A call as it begins, which has its place among its key's calls.
    pub(super) fn caller<'a>(
        &self,
        caller: &'a Arc<Caller>,
        via: Via<'a>,
        request: Box<ProxyRequest>,
        due: Option<Due>,
    ) -> Result<Call<'a>> {
        let retries = retries(request.own(&RETRY))?;
        let turn = self.let_in(caller)?;
        let account = Account::new(turn);
        let body = KeptBody::Unread;
        Ok(Call { caller, via, request, body, account, due, retries, tried: 0, is_renewed: false, is_recorded: false })
    }

    /// A place among a key's calls, where it is limited in them.
    pub(crate) fn let_in(&self, caller: &Caller) -> Result<Turn> {
        let rate = caller.limits.rate;
        if rate.is_unlimited() {
            return Ok(None);
        }
        let gate = self.key_gates.of(&caller.key, rate);
        gate.enter_at_once(self.now_ms()).map_err(|at| Error::CallerLimited {
            key: caller.name.clone(),
            retry_after: Duration::from_millis((at - self.now_ms()).max(0).unsigned_abs()),
        })
    }
}

impl Call<'_> {
    /// Another of the definition's hosts, where the caller chose one.
    pub(super) fn host(&self) -> Option<&HeaderValue> {
        self.request.own(&HOST_CHOICE)
    }
}

fn retries(asked: Option<&HeaderValue>) -> Result<u32> {
    let Some(text) = asked else { return Ok(0) };
    let asked = text.to_str().ok().and_then(|text| text.trim().parse().ok()).filter(|retries| *retries <= MOST_RETRIES);
    asked.ok_or_else(|| {
        invalid(
            "Keyholder-Retry",
            format!("it is no number from 0 to {MOST_RETRIES}"),
            "say how often the call may be repeated",
        )
    })
}

/// `500ms`, `10s`, `5m`, `2h`.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number: u64 = number.parse().ok()?;
    let factor = match unit.trim_start() {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(factor).map(Duration::from_millis)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, expected) in [
            ("500ms", Some(500)),
            ("10s", Some(10_000)),
            (" 5 m ", Some(300_000)),
            ("2h", Some(7_200_000)),
            ("0ms", Some(0)),
            ("10", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("1d", None),
            ("", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn repetitions_are_few() {
        let asked = |text: &str| {
            let asked = text.parse().unwrap();
            retries(Some(&asked)).ok()
        };
        assert_eq!((asked("0"), asked("5"), asked("6"), asked("-1"), asked("x")), (Some(0), Some(5), None, None, None));
        assert_eq!(retries(None).unwrap(), 0);
    }
}
