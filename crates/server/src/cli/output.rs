//! What a person reads: aligned tables, relative times, colour only on a terminal.

use std::io::{self, IsTerminal, Write};

use keyholder_broker::clock::Clock;
use serde_json::Value;

use super::error::{CliError, Result};
use crate::config::environment;

/// Where a command's result goes, and how it looks.
pub(crate) struct Out {
    /// The API's JSON instead of text.
    pub(crate) json: bool,
    colour: bool,
    clock: Clock,
}

/// A colour with a meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tint {
    #[default]
    Plain,
    /// It holds.
    Green,
    /// Somebody must act.
    Red,
    /// Somebody should look.
    Yellow,
    /// Of less weight.
    Dim,
    /// Of more weight.
    Bold,
}

impl Tint {
    fn code(self) -> Option<&'static str> {
        match self {
            Tint::Plain => None,
            Tint::Green => Some("32"),
            Tint::Red => Some("31"),
            Tint::Yellow => Some("33"),
            Tint::Dim => Some("2"),
            Tint::Bold => Some("1"),
        }
    }
}

/// A piece of text with its colour.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    tint: Tint,
}

impl Cell {
    /// Coloured text.
    pub(crate) fn tinted(text: impl AsRef<str>, tint: Tint) -> Self {
        Self { text: clean(text.as_ref()), tint }
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::tinted(text, Tint::Plain)
    }
}

impl Out {
    /// Standard output: coloured when it is a terminal and `NO_COLOR` isn't set (<https://no-color.org>).
    pub(crate) fn new(json: bool) -> Self {
        let colour = io::stdout().is_terminal() && environment("NO_COLOR").is_none();
        Self { json, colour, clock: Clock::System }
    }

    /// Now, Unix milliseconds.
    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// The clock that waiting is done by.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// One line.
    pub(crate) fn line(&self, text: impl AsRef<str>) -> Result {
        self.raw(format!("{}\n", text.as_ref()).as_bytes())
    }

    /// Bytes as they are, at once.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(CliError::io("standard output"))
    }

    /// The API's JSON, readable.
    pub(crate) fn json(&self, value: &Value) -> Result {
        self.line(format!("{value:#}"))
    }

    /// Text in a colour, where there are colours.
    pub(crate) fn paint(&self, text: &str, tint: Tint) -> String {
        match tint.code().filter(|_| self.colour) {
            Some(code) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            None => text.to_owned(),
        }
    }

    /// Cells side by side, as wide as they are.
    pub(crate) fn row(&self, cells: &[Cell]) -> String {
        let cells: Vec<String> = cells.iter().map(|cell| self.paint(&cell.text, cell.tint)).collect();
        cells.join("  ").trim_end().to_owned()
    }

    /// Columns under a head; a column in which no row has anything is left out.
    pub(crate) fn table(&self, head: &[&str], rows: &[Vec<Cell>]) -> Result {
        let used: Vec<usize> =
            (0..head.len()).filter(|at| rows.iter().any(|row| row.get(*at).is_some_and(|c| !c.is_empty()))).collect();
        let head: Vec<Cell> = head.iter().map(|name| Cell::tinted(name, Tint::Dim)).collect();
        let all: Vec<&Vec<Cell>> = std::iter::once(&head).chain(rows).collect();
        let width = |at: usize| all.iter().filter_map(|row| row.get(at)).map(|c| c.text.chars().count()).max();
        let widths: Vec<usize> = used.iter().map(|at| width(*at).unwrap_or(0)).collect();
        for row in all {
            let mut line = String::new();
            for (at, width) in used.iter().zip(&widths) {
                let cell = row.get(*at).cloned().unwrap_or_default();
                line.push_str(&self.paint(&cell.text, cell.tint));
                line.extend(std::iter::repeat_n(' ', width - cell.text.chars().count() + 2));
            }
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// Names and values; what has no value is left out.
    pub(crate) fn facts(&self, facts: &[(&str, Cell)]) -> Result {
        let width = facts.iter().filter(|(_, v)| !v.is_empty()).map(|(name, _)| name.chars().count()).max();
        for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
            let padded = format!("{name:<width$}", width = width.unwrap_or(0));
            self.line(format!("{}  {}", self.paint(&padded, Tint::Dim), self.paint(&value.text, value.tint)))?;
        }
        Ok(())
    }
}

/// Something on the standard error stream, beside the result.
pub(crate) fn note(text: impl AsRef<str>) {
    // A reader that went away must not end the command.
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// A member as text; empty when it is missing or null.
pub(crate) fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

/// A list of texts, separated by spaces.
pub(crate) fn words(value: &Value) -> String {
    let words: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    words.join(" ")
}

/// An object of texts, as `name=value`.
pub(crate) fn pairs(value: &Value) -> String {
    let pair = |(name, value): (&String, &Value)| format!("{name}={}", value.as_str().unwrap_or_default());
    value.as_object().into_iter().flatten().map(pair).collect::<Vec<_>>().join(" ")
}

/// Text that can't steer a terminal: control characters are replaced.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A time as seen from now, rounded: `in 52 min`, `3 h ago`. Empty without one.
pub(crate) fn relative(at: &Value, now_ms: i64) -> String {
    let Some(at) = at.as_i64() else { return String::new() };
    let seconds = (at - now_ms) / 1000;
    let (count, unit) = match seconds.unsigned_abs() {
        0 => return "now".to_owned(),
        s @ ..120 => (s, "s"),
        s @ ..7200 => ((s + 30) / 60, "min"),
        s @ ..172_800 => ((s + 1800) / 3600, "h"),
        s => ((s + 43_200) / 86_400, "days"),
    };
    if seconds > 0 { format!("in {count} {unit}") } else { format!("{count} {unit} ago") }
}

/// `2026-11-22 06:30:05Z`. Empty without a time.
pub(crate) fn utc(at: &Value) -> String {
    let Some(at) = at.as_i64() else { return String::new() };
    let (days, second) = (at.div_euclid(86_400_000), at.rem_euclid(86_400_000) / 1000);
    // Civil date from days: years begin in March, so that the leap day is the last (Hinnant, `civil_from_days`).
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// A connection's state in its colour.
pub(crate) fn state(connection: &Value) -> Cell {
    let tint = match text(connection, "color") {
        "green" => Tint::Green,
        "red" => Tint::Red,
        _ => Tint::Dim,
    };
    Cell::tinted(text(connection, "state"), tint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_now() {
        let now = 1_700_000_000_000;
        let told = |seconds: i64| relative(&(now + seconds * 1000).into(), now);
        assert_eq!(told(0), "now");
        assert_eq!(told(59), "in 59 s");
        assert_eq!(told(-119), "119 s ago");
        assert_eq!(told(52 * 60 - 1), "in 52 min");
        assert_eq!(told(-3 * 3600), "3 h ago");
        assert_eq!(told(9 * 86_400), "in 9 days");
        assert_eq!(relative(&Value::Null, now), "");
    }

    #[test]
    fn dates_are_civil_dates() {
        assert_eq!(utc(&0.into()), "1970-01-01 00:00:00Z");
        assert_eq!(utc(&951_782_399_000_i64.into()), "2000-02-28 23:59:59Z");
        assert_eq!(utc(&951_868_799_999_i64.into()), "2000-02-29 23:59:59Z");
        assert_eq!(utc(&1_795_329_005_000_i64.into()), "2026-11-22 06:30:05Z");
        assert_eq!(utc(&(-1).into()), "1969-12-31 23:59:59Z");
    }

    #[test]
    fn a_providers_text_cant_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}]0;x\u{7}b\nc\r"), "a\u{fffd}]0;x\u{fffd}b\nc\u{fffd}");
    }
}
