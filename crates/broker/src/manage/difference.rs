//! What differs between two versions of a definition, line by line.

use std::fmt::Write as _;

use keyholder_provider::Definition;

/// Lines around a change that are shown too.
const CONTEXT: usize = 3;

/// Most cells of the table that is filled to compare two texts; longer ones are shown as replaced where they begin to differ.
const MAX_CELLS: usize = 4_000_000;

/// The texts of two versions as `diff -u` compares them: the definition's own, then those of what it extends.
pub(super) fn unified(old: (&str, &Definition), new: (&str, &Definition)) -> String {
    let texts = |definition: &Definition| -> Vec<(String, String)> {
        let bases = definition.bases.iter().map(|base| (base.id.clone(), base.text.to_string()));
        std::iter::once((definition.id.clone(), definition.text.to_string())).chain(bases).collect()
    };
    let (before, after) = (texts(old.1), texts(new.1));
    let mut ids: Vec<&String> = after.iter().map(|(id, _)| id).collect();
    ids.extend(before.iter().map(|(id, _)| id).filter(|id| !after.iter().any(|(known, _)| known == *id)));
    let mut out = String::new();
    for id in ids {
        let text = |texts: &[(String, String)]| {
            texts.iter().find(|(known, _)| known == id).map(|(_, text)| text.clone()).unwrap_or_default()
        };
        let (before, after) = (text(&before), text(&after));
        if before != after {
            let _ = writeln!(out, "--- {id}.toml, version {}\n+++ {id}.toml, version {}", old.0, new.0);
            hunks(&mut out, &before.lines().collect::<Vec<_>>(), &after.lines().collect::<Vec<_>>());
        }
    }
    out
}

/// A line: in both, only in the old text, only in the new one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line<'t> {
    Same(&'t str),
    Old(&'t str),
    New(&'t str),
}

fn hunks(out: &mut String, before: &[&str], after: &[&str]) {
    let lines = compared(before, after);
    let changed: Vec<usize> =
        lines.iter().enumerate().filter(|(_, line)| !matches!(line, Line::Same(_))).map(|(at, _)| at).collect();
    let mut next = 0;
    while let Some(first) = changed.get(next) {
        let mut last = *first;
        while let Some(more) = changed.get(next).filter(|at| **at <= last + 2 * CONTEXT) {
            last = *more;
            next += 1;
        }
        let (from, to) = (first.saturating_sub(CONTEXT), (last + CONTEXT + 1).min(lines.len()));
        let old_lines = |range: &[Line<'_>]| range.iter().filter(|line| !matches!(line, Line::New(_))).count();
        let new_lines = |range: &[Line<'_>]| range.iter().filter(|line| !matches!(line, Line::Old(_))).count();
        let (old_before, new_before) = (old_lines(&lines[..from]), new_lines(&lines[..from]));
        let (old_count, new_count) = (old_lines(&lines[from..to]), new_lines(&lines[from..to]));
        // As `diff` has it: an empty range is named by the line before it.
        let start = |before: usize, count: usize| if count == 0 { before } else { before + 1 };
        let _ = writeln!(
            out,
            "@@ -{},{old_count} +{},{new_count} @@",
            start(old_before, old_count),
            start(new_before, new_count)
        );
        for line in &lines[from..to] {
            let (sign, text) = match line {
                Line::Same(text) => (' ', text),
                Line::Old(text) => ('-', text),
                Line::New(text) => ('+', text),
            };
            let _ = writeln!(out, "{sign}{text}");
        }
    }
}

/// The longest lines in common stay, the others go and come.
fn compared<'t>(before: &[&'t str], after: &[&'t str]) -> Vec<Line<'t>> {
    let head = before.iter().zip(after).take_while(|(old, new)| old == new).count();
    let (rest_before, rest_after) = (&before[head..], &after[head..]);
    let tail = rest_before.iter().rev().zip(rest_after.iter().rev()).take_while(|(old, new)| old == new).count();
    let (old, new) = (&rest_before[..rest_before.len() - tail], &rest_after[..rest_after.len() - tail]);
    let mut lines: Vec<Line<'t>> = before[..head].iter().map(|line| Line::Same(line)).collect();
    if (old.len() + 1).saturating_mul(new.len() + 1) > MAX_CELLS {
        lines.extend(old.iter().map(|line| Line::Old(line)));
        lines.extend(new.iter().map(|line| Line::New(line)));
    } else {
        // common[i][j]: how many lines the rests from i and j have in common.
        let width = new.len() + 1;
        let mut common = vec![0_u32; (old.len() + 1) * width];
        for i in (0..old.len()).rev() {
            for j in (0..new.len()).rev() {
                common[i * width + j] = if old[i] == new[j] {
                    common[(i + 1) * width + j + 1] + 1
                } else {
                    common[(i + 1) * width + j].max(common[i * width + j + 1])
                };
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < old.len() || j < new.len() {
            if i < old.len() && j < new.len() && old[i] == new[j] {
                lines.push(Line::Same(old[i]));
                (i, j) = (i + 1, j + 1);
            } else if i < old.len() && (j == new.len() || common[(i + 1) * width + j] >= common[i * width + j + 1]) {
                lines.push(Line::Old(old[i]));
                i += 1;
            } else {
                lines.push(Line::New(new[j]));
                j += 1;
            }
        }
    }
    lines.extend(before[before.len() - tail..].iter().map(|line| Line::Same(line)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(before: &str, after: &str) -> String {
        let mut out = String::new();
        hunks(&mut out, &before.lines().collect::<Vec<_>>(), &after.lines().collect::<Vec<_>>());
        out
    }

    #[test]
    fn changes_stand_with_what_is_around_them() {
        let before = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\n";
        let after = "a\nb\nC\nd\ne\nf\ng\nh\ni\nj\nk\nm\nn\n";
        let expected = "@@ -1,6 +1,6 @@\n a\n b\n-c\n+C\n d\n e\n f\n@@ -9,5 +9,5 @@\n i\n j\n k\n-l\n m\n+n\n";
        assert_eq!(difference(before, after), expected);
        assert_eq!(difference(before, before), "");
        assert_eq!(difference("", "x\n"), "@@ -0,0 +1,1 @@\n+x\n");
        assert_eq!(difference("x\n", ""), "@@ -1,1 +0,0 @@\n-x\n");
    }

    #[test]
    fn what_is_too_long_to_compare_is_shown_as_replaced() {
        let long = |prefix: &str| (0..3000).map(|n| format!("{prefix}{n}\n")).collect::<String>();
        let shown = difference(&format!("same\n{}", long("a")), &format!("same\n{}", long("b")));
        assert!(shown.starts_with("@@ -1,3001 +1,3001 @@\n same\n-a0\n"), "{}", &shown[..80]);
    }
}
