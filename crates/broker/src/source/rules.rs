//! What may be called through a data source: methods and path patterns.

use std::collections::BTreeSet;

use http::Method;

use crate::model::AllowRule;

/// A rule, read.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Empty: any.
    methods: BTreeSet<String>,
    segments: Vec<Segment>,
    /// It ends with `**`.
    and_below: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Written(String),
    Any,
}

impl Rule {
    /// The error is a reason in plain words, about the path.
    pub(super) fn read(rule: &AllowRule) -> Result<Self, &'static str> {
        let rest = rule.path.strip_prefix('/').ok_or("it doesn't begin with a slash")?;
        if rule.path.len() > 2048 || rest.bytes().any(|b| !b.is_ascii_graphic() || matches!(b, b'?' | b'#' | b'\\')) {
            return Err("it is no path: it is too long, or has a query or characters that a path may not have");
        }
        let (rest, and_below) = match rest.strip_suffix("**") {
            Some("") => ("", true),
            Some(rest) => (rest.strip_suffix('/').ok_or("`**` stands beside something else")?, true),
            None => (rest, false),
        };
        let mut segments = Vec::new();
        // `/**` has none before it.
        for segment in rest.split('/').filter(|_| !(and_below && rest.is_empty())) {
            segments.push(match segment {
                "*" => Segment::Any,
                "." | ".." => return Err("it has a `.` or `..` segment"),
                text if text.contains('*') => {
                    return Err("`*` stands for a whole segment, and `**` at the end for all that follow");
                }
                text => Segment::Written(text.to_owned()),
            });
        }
        Ok(Self { methods: rule.methods.clone(), segments, and_below })
    }

    fn covers(&self, method: &Method, path: &str) -> bool {
        let method = self.methods.is_empty() || self.methods.contains(method.as_str());
        let mut given = path.strip_prefix('/').unwrap_or(path).split('/');
        let mut fits = |segment: &Segment| {
            given.next().is_some_and(|given| match segment {
                Segment::Written(text) => text == given,
                Segment::Any => !given.is_empty() && !is_several(given),
            })
        };
        method && self.segments.iter().all(&mut fits) && (self.and_below || given.next().is_none())
    }
}

/// Whether some rule lets this call pass; the path percent-encoded, without its query.
pub(crate) fn allows(rules: &[Rule], method: &Method, path: &str) -> bool {
    rules.is_empty() || rules.iter().any(|rule| rule.covers(method, path))
}

/// A server that decodes `%2F` first sees more than one segment, and one that decodes `%3F` or `%23` nothing of what follows.
fn is_several(segment: &str) -> bool {
    let mut plain = segment.to_ascii_lowercase();
    while plain.contains("%25") {
        plain = plain.replace("%25", "%");
    }
    ["%2f", "%5c", "\\", "%3f", "%23"].iter().any(|separator| plain.contains(separator))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rule(methods: &[&str], path: &str) -> Rule {
        let methods = methods.iter().map(|method| (*method).to_owned()).collect();
        Rule::read(&AllowRule { methods, path: path.to_owned() }).unwrap()
    }

    #[test]
    fn rules_cover_whole_segments() {
        for (pattern, path, expected) in [
            ("/contacts", "/contacts", true),
            ("/contacts", "/contacts/", false),
            ("/contacts", "/contacts/1", false),
            ("/contacts", "/contactsx", false),
            ("/contacts", "/%63ontacts", false),
            ("/contacts/*", "/contacts/1", true),
            ("/contacts/*", "/contacts/", false),
            ("/contacts/*", "/contacts/1/notes", false),
            ("/contacts/*", "/contacts/a%2Fb", false),
            ("/contacts/*", "/contacts/a%252fb", false),
            ("/contacts/*", "/contacts/a%5Cb", false),
            ("/contacts/*/notes", "/contacts/1/notes", true),
            ("/contacts/*/notes", "/contacts//notes", false),
            ("/contacts/*/notes", "/contacts/1%3F/notes", false),
            ("/contacts/*/notes", "/contacts/1%2523/notes", false),
            ("/contacts/**", "/contacts", true),
            ("/contacts/**", "/contacts/", true),
            ("/contacts/**", "/contacts/1/notes/2", true),
            ("/contacts/**", "/contactsx/1", false),
            ("/**", "/", true),
            ("/**", "/a/b", true),
            ("/", "/", true),
            ("/", "/a", false),
        ] {
            assert_eq!(allows(&[rule(&[], pattern)], &Method::GET, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn methods_are_part_of_a_rule() {
        let rules = [rule(&["GET"], "/a/**"), rule(&["POST"], "/b")];
        let allowed = |method: Method, path| allows(&rules, &method, path);
        assert!(allowed(Method::GET, "/a/1") && allowed(Method::POST, "/b"));
        assert!(!allowed(Method::POST, "/a/1") && !allowed(Method::GET, "/b") && !allowed(Method::DELETE, "/c"));
        assert!(allows(&[], &Method::DELETE, "/anything"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for path in ["", "a", "/a*", "/a/**/b", "/a**", "/a?b", "/a#b", "/a b", "/../a", "/\u{fc}", "/a\\b"] {
            assert!(Rule::read(&AllowRule { methods: BTreeSet::new(), path: path.to_owned() }).is_err(), "{path}");
        }
    }
}
