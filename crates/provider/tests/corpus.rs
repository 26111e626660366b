//! Broken definitions: each file of `corpus/` has the errors that `corpus.expected` names, with their places; and what is too large to be a file.
#![allow(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]

use std::fmt::Write as _;
use std::path::Path;

use keyholder_provider::{Catalogue, DefinitionError, parse, read_text};

fn errors_of(file: &str, bytes: &[u8]) -> Vec<DefinitionError> {
    match read_text(file, bytes) {
        Ok(text) => parse(file, text).err().unwrap_or_default(),
        Err(error) => vec![error],
    }
}

/// After looking at every line of the difference: `UPDATE=1 cargo test -p keyholder-provider --test corpus`.
#[test]
#[allow(clippy::disallowed_methods, reason = "a test that writes its own snapshot")]
fn every_broken_definition_is_explained() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut files: Vec<_> =
        std::fs::read_dir(folder.join("corpus")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 70, "the corpus has lost its files");
    let mut found = String::new();
    for path in files {
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let errors = errors_of(&file, &std::fs::read(&path).unwrap());
        assert!(!errors.is_empty(), "{file} is taken for a sound one");
        for error in errors {
            assert!(!error.reason.is_empty() && !error.remedy.is_empty(), "{error}");
            writeln!(found, "{}", error.to_string().escape_debug()).unwrap();
        }
    }
    let expected = folder.join("corpus.expected");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&expected, &found).unwrap();
    }
    let expected = std::fs::read_to_string(expected).unwrap();
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

const SOUND: &str = "schema = 1\nid = \"acme\"\nname = \"Acme\"\n[[methods]]\ngrant = \"client_credentials\"\n[token]\nurl = \"https://acme.example/token\"\n";

#[track_caller]
fn refused(text: &str, begins: &str) {
    let errors = errors_of("big.toml", text.as_bytes());
    assert!(errors[0].to_string().starts_with(begins), "{}", errors[0]);
}

#[test]
fn what_is_too_large_is_not_read() {
    refused(&format!("{SOUND}# {}", "x".repeat(10 << 20)), "big.toml:1:1: the file has 10");
    let deep = |open: &str, close: &str, inner: &str| {
        let levels = 100_000;
        format!("{SOUND}params = {{ a = {}{inner}{} }}\n", open.repeat(levels), close.repeat(levels))
    };
    refused(&deep("[", "]", ""), "big.toml:8:");
    refused(&deep("{a=", "}", "1"), "big.toml:8:");
    refused(&format!("{SOUND}params = {{ {}b = 1 }}\n", "a.".repeat(100_000)), "big.toml:8:");
    refused(&format!("{SOUND}[{}b]\nc = 1\n", "a.".repeat(100_000)), "big.toml:8:");
    refused(&format!("{SOUND}[{}b]\nc = 1\n", "token.params.".repeat(60)), "big.toml:8:");
}

#[test]
fn of_very_many_mistakes_the_first_are_told() {
    let many = |count: usize| -> String { (0..count).map(|n| format!("p{n} = \"{{{{x{n}}}}}\"\n")).collect() };
    let errors = errors_of("big.toml", format!("{SOUND}[token.params]\n{}", many(2000)).as_bytes());
    assert_eq!(errors.len(), 100);
    assert!(
        errors[0].to_string().starts_with("big.toml:9:6: token.params.p0: there is no variable `x0`"),
        "{}",
        errors[0]
    );
    refused(&format!("{SOUND}[token.params]\n{}", many(30_000)), "big.toml:2009:1: there are more than 2000 beside");
    let many: String = (0..30_000).map(|n| format!("[variables.v{n}]\n")).collect();
    refused(&format!("{SOUND}{many}"), "big.toml:2008:12: there are more than 2000 beside");
    let many = "[[methods]]\ngrant = \"password\"\n".repeat(20_000);
    refused(&format!("{SOUND}{many}"), "big.toml:4006:1: there are more than 2000 beside");
}

#[test]
fn chains_end() {
    let mut catalogue = Catalogue::new();
    let text = |id: &str, extends: &str| format!("schema = 1\nid = \"{id}\"\nname = \"A\"\nextends = \"{extends}\"\n");
    let mut add = |id: &str, text: &str| -> Result<(), Vec<DefinitionError>> {
        let definition = catalogue.parse(&format!("{id}.toml"), text)?;
        catalogue.insert(definition.into());
        Ok(())
    };
    add("c0", &SOUND.replace("acme\"", "c0\"")).unwrap();
    for n in 1..8 {
        add(&format!("c{n}"), &text(&format!("c{n}"), &format!("c{}", n - 1))).unwrap();
    }
    let errors = add("c8", &text("c8", "c7")).unwrap_err();
    assert!(errors[0].to_string().contains("there are more than 8 definitions in the chain"), "{}", errors[0]);
    // A circle is closed by a new version of its first.
    let errors = add("c0", &text("c0", "c1")).unwrap_err();
    assert_eq!(
        errors[0].to_string().split(';').next(),
        Some("c1.toml:4:11: extends: `c0` extends this definition, or is it")
    );
}
