//! When a token ends, out of what a reply says about it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::reply::{Expiry, Pointer, ReplyRules};

/// Members that hold the end as a date.
const DATES: [&str; 3] = ["expires_at", "expires_on", ".expires"];

/// Other names of a refresh token's lifetime: Keycloak's, Intuit's.
const REFRESH_LIFETIMES: [&str; 2] = ["refresh_expires_in", "x_refresh_token_expires_in"];

/// Members that hold a refresh token's end as a date.
const REFRESH_DATES: [&str; 2] = ["refresh_token_expires_at", "refresh_expires_at"];

/// A number above this is a date, not a lifetime: 31 years in seconds, the year 2001 as a date.
const FIRST_DATE_S: f64 = 1e9;

/// A date above this is in milliseconds: the year 5138 in seconds, 1973 in milliseconds.
const FIRST_DATE_MS: f64 = 1e11;

/// Lifetimes beyond 100 years are no information: "unknown" is never "for ever".
const LONGEST_MS: f64 = 100.0 * 365.25 * 86_400_000.0;

/// What the end is read by.
pub(crate) struct ExpiryRules<'a> {
    pub expires_in: Option<&'a Pointer>,
    pub expires_at: Option<&'a Pointer>,
    pub expiry: Expiry,
    pub default_lifetime: Option<Duration>,
}

impl<'a> ExpiryRules<'a> {
    pub(crate) fn of(rules: &'a ReplyRules) -> Self {
        Self {
            expires_in: Some(&rules.expires_in),
            expires_at: rules.expires_at.as_ref(),
            expiry: rules.expiry,
            default_lifetime: rules.default_lifetime,
        }
    }
}

/// The end in Unix milliseconds, or `None` if it is unknown. What the reply says counts first, then the
/// token's own `exp` (RFC 7519 §4.1.4), then the definition's default.
pub(crate) fn expires_at(rules: &ExpiryRules<'_>, reply: &Value, access_token: &str, now_ms: i64) -> Option<i64> {
    let clock = Clock { now_ms, expiry: rules.expiry };
    let dated = || clock.date_in(rules.expires_at?.find(reply)?);
    let said = || clock.said(rules.expires_in?.find(reply)?);
    // The names in use belong to the main token, whose lifetime always has a place.
    let main = rules.expires_in.is_some();
    let alias = || clock.said(reply.get("expires").filter(|_| main)?);
    let date = || DATES.iter().filter(|_| main).find_map(|name| clock.date_in(reply.get(*name)?));
    let token = || clock.date(jwt_exp(access_token)?);
    let default = || now_ms.checked_add(i64::try_from(rules.default_lifetime?.as_millis()).ok()?);
    let stated = || dated().or_else(said).or_else(alias).or_else(date);
    match rules.expiry {
        Expiry::Never => stated(),
        Expiry::Jwt => token().or_else(stated).or_else(default),
        _ => stated().or_else(token).or_else(default),
    }
}

/// The refresh token's end in Unix milliseconds, or `None` if it is unknown. 0, which some say for "never", says nothing.
pub(crate) fn refresh_expires_at(
    rules: &ReplyRules,
    reply: &Value,
    refresh_token: Option<&str>,
    now_ms: i64,
) -> Option<i64> {
    let clock = Clock { now_ms, expiry: rules.expiry };
    let said = || clock.said(rules.refresh_expires_in.find(reply)?);
    let alias = || REFRESH_LIFETIMES.iter().find_map(|name| clock.said(reply.get(*name)?));
    let date = || REFRESH_DATES.iter().find_map(|name| clock.date_in(reply.get(*name)?));
    let token = || clock.date(jwt_exp(refresh_token?)?);
    said().or_else(alias).or_else(date).or_else(token)
}

struct Clock {
    now_ms: i64,
    expiry: Expiry,
}

impl Clock {
    /// What `expires_in` and `expires` hold: a lifetime, or a date that is told by its size or its form.
    /// Both names are used for both.
    fn said(&self, value: &Value) -> Option<i64> {
        let to_ms = match self.expiry {
            Expiry::Milliseconds => 1.0,
            Expiry::Unix => return self.after_date((number(value)? * 1000.0) as i64),
            Expiry::UnixMs => return self.after_date(number(value)? as i64),
            Expiry::Date => return self.date_in(value),
            Expiry::Seconds | Expiry::Jwt | Expiry::Never => 1000.0,
        };
        match number(value) {
            Some(number) if number * to_ms < FIRST_DATE_S * 1000.0 => self.after(number * to_ms),
            _ => self.date_in(value),
        }
    }

    /// A date as a number or as text.
    fn date_in(&self, value: &Value) -> Option<i64> {
        match (number(value), value.as_str()) {
            (Some(number), _) if number >= FIRST_DATE_S => self.date(number),
            (None, Some(text)) => self.after_date(date_ms(text)?),
            _ => None,
        }
    }

    fn date(&self, number: f64) -> Option<i64> {
        let ms = if number > FIRST_DATE_MS { number } else { number * 1000.0 };
        (ms.abs() < 1e16).then(|| self.after_date(ms as i64)).flatten()
    }

    /// A date that is past says more about the clocks than about the token.
    fn after_date(&self, date_ms: i64) -> Option<i64> {
        self.after(date_ms.checked_sub(self.now_ms)? as f64)
    }

    fn after(&self, ms: f64) -> Option<i64> {
        (1.0..=LONGEST_MS).contains(&ms).then(|| self.now_ms.checked_add(ms as i64)).flatten()
    }
}

/// A number, also as text: `3600`, `"3600"`, `"3600.0"`.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// The `exp` of a token that is a JWT, in seconds. Read without its signature: it only tells when to renew.
fn jwt_exp(token: &str) -> Option<f64> {
    let mut parts = token.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    claims.get("exp").and_then(number).filter(|exp| parts.next().is_none() && *exp >= FIRST_DATE_S)
}

/// `Retry-After` (RFC 9110 §10.2.3): seconds, or an HTTP date, of which the past is no wait.
pub fn retry_after(value: &str, now_ms: i64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let wait = http_date_ms(value)?.saturating_sub(now_ms);
    Some(Duration::from_millis(wait.try_into().unwrap_or(0)))
}

/// A date as HTTP writes it, or as RFC 3339 does, in Unix milliseconds.
pub fn date_ms(text: &str) -> Option<i64> {
    http_date_ms(text).or_else(|| rfc3339_ms(text))
}

fn http_date_ms(text: &str) -> Option<i64> {
    let date: SystemTime = httpdate::parse_http_date(text.trim()).ok()?;
    i64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// `2026-01-31T12:34:56.789+01:00` (RFC 3339 §5.6); without an offset it is taken for UTC.
fn rfc3339_ms(text: &str) -> Option<i64> {
    let text = text.trim();
    let (day, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = fields(day, '-')?;
    let end = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let [hour, minute, second] = fields(time[..end].split('.').next()?, ':')?;
    let possible = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !possible || hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    let local = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some((local - offset_seconds(&time[end..])?) * 1000)
}

fn offset_seconds(text: &str) -> Option<i64> {
    let sign = match text.chars().next() {
        None | Some('Z' | 'z') => return Some(0),
        Some('-') => -1,
        Some(_) => 1,
    };
    let (hours, minutes) = text[1..].split_once(':').or_else(|| text[1..].split_at_checked(2))?;
    Some(sign * (hours.parse::<i64>().ok()?.min(24) * 3600 + minutes.parse::<i64>().ok()?.min(59) * 60))
}

fn fields(text: &str, separator: char) -> Option<[i64; 3]> {
    let parts: Vec<u16> = text.split(separator).map(|part| part.parse().ok()).collect::<Option<_>>()?;
    <[u16; 3]>::try_from(parts).ok().map(|parts| parts.map(i64::from))
}

/// Days since 1970-01-01 of a Gregorian date, counting years from March so that the leap day is last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        let table = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600_000)),
            ("2026-01-31T12:34:56.789+01:00", Some(1_769_859_296_000)),
            ("2026-01-31T12:34:56-0130", Some(1_769_868_296_000)),
            ("2026-01-31 11:34:56", Some(1_769_859_296_000)),
            ("2026-13-31T12:34:56Z", None),
            ("2026-01-31", None),
            ("2026-01-31T12:34:56+é", None),
            ("3600", None),
        ];
        for (text, expected) in table {
            assert_eq!(rfc3339_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = 1_700_000_000_000; // Tue, 14 Nov 2023 22:13:20 GMT
        let table = [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Tue, 14 Nov 2023 22:14:20 GMT", Some(60)),
            ("Tue, 14 Nov 2023 22:12:20 GMT", Some(0)),
            ("-5", None),
            ("soon", None),
        ];
        for (text, expected) in table {
            assert_eq!(retry_after(text, now), expected.map(Duration::from_secs), "{text}");
        }
    }
}
