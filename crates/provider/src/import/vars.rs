//! Placeholders of other programs: `{{name}}`, `{{ _.name }}`, `{{process.env.NAME}}`.

use std::collections::BTreeMap;

/// A value may name others; more than this is a circle.
const DEEPEST: usize = 16;

/// Longest text that filling may make.
const LONGEST: usize = 64 << 10;

/// Values by name.
#[derive(Clone, Default)]
pub(super) struct Vars(BTreeMap<String, String>);

impl Vars {
    /// The file's values, under those that were given.
    pub(super) fn new(of_file: impl IntoIterator<Item = (String, String)>, given: &BTreeMap<String, String>) -> Self {
        let mut all: BTreeMap<String, String> = of_file.into_iter().collect();
        all.extend(given.iter().map(|(name, value)| (name.clone(), value.clone())));
        Self(all)
    }

    /// The text with its placeholders filled, or the name of one that has no value.
    pub(super) fn fill(&self, text: &str) -> Result<String, String> {
        let mut text = text.to_owned();
        for _ in 0..DEEPEST {
            let Some(filled) = self.fill_once(&text)? else { return Ok(text) };
            if filled.len() > LONGEST {
                break;
            }
            text = filled;
        }
        Err(first_name(&text))
    }

    fn fill_once(&self, text: &str) -> Result<Option<String>, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, behind)) = after.split_once("}}") else { break };
            let name = plain_name(name);
            let value = self.0.get(name).ok_or_else(|| name.to_owned())?;
            if filled.len() + before.len() + value.len() > LONGEST {
                return Err(name.to_owned());
            }
            filled.push_str(before);
            filled.push_str(value);
            rest = behind;
        }
        if rest.len() == text.len() {
            return match text.contains("{%") {
                // A tag of Insomnia's, which runs code.
                true => Err("{% … %}".to_owned()),
                false => Ok(None),
            };
        }
        filled.push_str(rest);
        Ok(Some(filled))
    }
}

/// Bruno's and Insomnia's ways to write a name.
fn plain_name(written: &str) -> &str {
    let name = written.trim();
    name.strip_prefix("_.").or_else(|| name.strip_prefix("process.env.")).unwrap_or(name)
}

fn first_name(text: &str) -> String {
    let name =
        text.split_once("{{").and_then(|(_, rest)| rest.split_once("}}")).map_or("", |(name, _)| plain_name(name));
    name.chars().filter(|c| !c.is_control()).take(100).collect()
}
