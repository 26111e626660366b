//! Values as people write them on a command line.

use std::io::{self, IsTerminal, Read};
use std::time::Duration;

use serde_json::{Map, Value};

use super::error::{CliError, Result};
use super::output::utc;

/// `60s`, `5m`, `2h`, `30d`, or seconds without a unit.
pub(crate) fn duration(text: &str) -> std::result::Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("write it as 60s, 5m, 2h or 30d".to_owned()),
    };
    let count: u64 = count.parse().map_err(|_| "write it as 60s, 5m, 2h or 30d".to_owned())?;
    count.checked_mul(factor).map(Duration::from_secs).ok_or_else(|| "that is too long".to_owned())
}

/// `2027-01-31` as Unix milliseconds: the day's beginning, UTC.
pub(crate) fn date(text: &str) -> std::result::Result<i64, String> {
    let wrong = || "write it as 2027-01-31".to_owned();
    let numbers: Vec<i64> =
        text.split('-').map(str::parse).collect::<std::result::Result<_, _>>().map_err(|_| wrong())?;
    let [year, month, day] = <[i64; 3]>::try_from(numbers).map_err(|_| wrong())?;
    if !((2001..=5000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day)) {
        return Err(wrong());
    }
    // Days since 1970 of a civil date: years begin in March, so that the leap day is the last (Hinnant, `days_from_civil`).
    let shifted = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let at = (shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + of_year - 719_468) * 86_400_000;
    // The 31st of a shorter month is another day.
    if utc(&at.into()).starts_with(&format!("{year}-{month:02}-{day:02} ")) { Ok(at) } else { Err(wrong()) }
}

/// `name=value`; the value may be empty and may hold more `=`.
pub(crate) fn pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// Pairs as a JSON object.
pub(crate) fn object(pairs: &[(String, String)]) -> Value {
    let members: Map<String, Value> =
        pairs.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect();
    Value::Object(members)
}

/// Scopes, each flag one or several separated by spaces.
pub(crate) fn scopes(flags: &[String]) -> Vec<&str> {
    flags.iter().flat_map(|flag| flag.split_whitespace()).collect()
}

/// All of standard input as a secret, without the line end.
pub(crate) fn secret_from_stdin() -> Result<String> {
    let mut secret = String::new();
    io::stdin().read_to_string(&mut secret).map_err(CliError::io("standard input"))?;
    let secret = secret.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(CliError::Usage("standard input is empty; pipe the secret in".to_owned()));
    }
    Ok(secret.to_owned())
}

/// Asks on the terminal without showing what is typed; `None` when nobody is there to ask.
pub(crate) fn secret_from_terminal(prompt: &str) -> Result<Option<String>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    let typed = rpassword::prompt_password(prompt).map_err(CliError::io("the terminal"))?;
    Ok(Some(typed).filter(|typed| !typed.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [("60s", 60), ("90", 90), ("5m", 300), ("5min", 300), ("2h", 7200), ("30d", 2_592_000)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "1.5h", "-1s", "1w", "99999999999999999999d", "999999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pairs_split_at_the_first_sign() {
        assert_eq!(pair("k=v"), Ok(("k".to_owned(), "v".to_owned())));
        assert_eq!(pair("url=https://a/?b=c"), Ok(("url".to_owned(), "https://a/?b=c".to_owned())));
        assert_eq!(pair("k="), Ok(("k".to_owned(), String::new())));
        assert!(pair("k").is_err());
        assert!(pair("=v").is_err());
    }

    #[test]
    fn scopes_may_share_a_flag() {
        assert_eq!(scopes(&["read write".to_owned(), "admin".to_owned()]), ["read", "write", "admin"]);
    }
}
