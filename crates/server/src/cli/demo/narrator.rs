//! Numbered steps, as a person reads them.

use std::cell::Cell;

use super::super::error::{CliError, Result};
use super::super::output::{Out, Tint, clean};

/// Told at length, a line is at most so wide, behind an indent of five.
const WIDTH: usize = 74;

/// Tells the steps.
pub(super) struct Narrator<'a> {
    out: &'a Out,
    /// With what a person would type to do the same.
    pub(super) at_length: bool,
    steps: Cell<usize>,
}

/// What a step has to tell when it held.
pub(super) struct Held<T> {
    pub(super) value: T,
    pub(super) line: String,
    /// The same as a command, where there is one.
    pub(super) command: Option<String>,
}

impl<T> Held<T> {
    /// A value for the steps to come, and what is told.
    pub(super) fn new(value: T, line: impl Into<String>) -> Self {
        Self { value, line: line.into(), command: None }
    }

    /// The same done by hand.
    pub(super) fn by_hand(self, command: impl Into<String>) -> Self {
        Self { command: Some(command.into()), ..self }
    }
}

impl<'a> Narrator<'a> {
    /// A narrator before the first step.
    pub(super) fn new(out: &'a Out, at_length: bool) -> Self {
        Self { out, at_length, steps: Cell::new(0) }
    }

    /// How many steps were told.
    pub(super) fn steps(&self) -> usize {
        self.steps.get()
    }

    /// Runs a step and tells how it went. A step that doesn't hold ends the story.
    pub(super) async fn step<T>(&self, title: &str, work: impl Future<Output = Result<Held<T>>>) -> Result<T> {
        self.steps.set(self.steps.get() + 1);
        let number = self.steps.get();
        match work.await {
            Ok(held) => {
                let (mark, told) = (self.out.paint("✓", Tint::Green), clean(&held.line));
                if !self.at_length {
                    self.out.line(format!("{number:>2} {mark} {title:<21} {told}"))?;
                    return Ok(held.value);
                }
                self.out.line(format!("{number:>2} {mark} {}", self.out.paint(title, Tint::Bold)))?;
                wrapped(&told, WIDTH).into_iter().try_for_each(|line| self.out.line(format!("     {line}")))?;
                let commands = held.command.iter().flat_map(|command| command.lines());
                for command in commands {
                    self.out.line(format!("     {}", self.out.paint(&format!("$ {}", clean(command)), Tint::Dim)))?;
                }
                self.out.line("")?;
                Ok(held.value)
            }
            Err(error) => {
                self.out.line(format!("{number:>2} {} {title:<21} {error}", self.out.paint("✗", Tint::Red)))?;
                Err(CliError::Said)
            }
        }
    }

    /// Something between two steps.
    pub(super) fn aside(&self, text: &str) -> Result {
        text.lines().try_for_each(|line| self.out.line(format!("     {line}").trim_end()))
    }
}

/// Breaks a text between words.
fn wrapped(text: &str, width: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    let (mut start, mut last_space) = (0, None);
    for (count, (at, character)) in text.char_indices().enumerate() {
        if character == ' ' {
            last_space = Some(at);
        }
        let begun = text[..start].chars().count();
        if let Some(space) = last_space.filter(|space| count - begun >= width && *space >= start) {
            lines.push(&text[start..space]);
            (start, last_space) = (space + 1, None);
        }
    }
    lines.push(&text[start..]);
    lines
}

/// Goes on only if something holds; `otherwise` says what was found instead.
pub(super) fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result {
    if holds { Ok(()) } else { Err(CliError::Failed(otherwise())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_breaks_between_words() {
        assert_eq!(wrapped("a bc def", 100), ["a bc def"]);
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("ééé ööö ü", 5), ["ééé", "ööö ü"]);
        assert_eq!(wrapped("unbreakable", 3), ["unbreakable"]);
        assert_eq!(wrapped("", 3), [""]);
    }
}
