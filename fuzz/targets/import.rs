//! Any text as a file of Postman, Bruno or Insomnia or a `curl` command: what is made of it is a definition that is accepted, and no
//! message repeats a secret.
#![no_main]

use std::collections::BTreeMap;

use keyholder_provider::Catalogue;
use keyholder_provider::import::{Format, import};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static BUILT_IN: Catalogue = Catalogue::built_in();
}

fuzz_target!(|text: &str| {
    for format in [Format::Postman, Format::Bruno, Format::Insomnia, Format::Curl] {
        let found = match import(format, text, &BTreeMap::new()) {
            Ok(found) => found,
            Err(error) => {
                assert!(!error.field.is_empty() && !error.reason.is_empty() && !error.remedy.is_empty());
                continue;
            }
        };
        for imported in found {
            let Some(definition) = imported.definition() else { continue };
            if let Err(errors) = BUILT_IN.with(|catalogue| catalogue.parse("imported.toml", &definition)) {
                panic!("{format:?}: {}\n{definition}", errors[0]);
            }
        }
    }
});
