//! Operators: people who use the console.

use std::collections::BTreeSet;

use super::{KeyId, Scope};

/// Colours of the console, where a person has chosen some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

impl Theme {
    /// The word in pages and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Theme::Light => "light",
            Theme::Dark => "dark",
        }
    }

    /// The theme of this word.
    pub fn of(word: &str) -> Option<Self> {
        [Theme::Light, Theme::Dark].into_iter().find(|theme| theme.as_str() == word)
    }
}

/// Somebody who uses the console.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Of the keys' kind: whoever acts has one kind of name.
    pub id: KeyId,
    /// Unique among the tenant's operators.
    pub name: String,
    /// What the person may do.
    pub scopes: BTreeSet<Scope>,
    /// Whether a password was chosen.
    pub has_password: bool,
    /// How many passkeys there are.
    pub passkeys: i64,
    /// Chosen colours.
    pub theme: Option<Theme>,
    /// When they last used the console, Unix milliseconds; a minute behind at most.
    pub seen_at: Option<i64>,
    /// Unix milliseconds.
    pub created_at: i64,
}

/// A passkey, as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passkey {
    /// Unique among its operator's.
    pub name: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub used_at: Option<i64>,
}

/// What is verified of a passkey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasskeyKey {
    /// The id that the device gave it.
    pub credential: Vec<u8>,
    /// COSE's number: -7 (ES256), -8 (EdDSA), -257 (RS256).
    pub algorithm: i64,
    /// SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    /// Goes up with each use; 0 where the device doesn't count.
    pub counter: i64,
}

/// Whom a link of [`crate::Broker::operator_link`] is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum For {
    /// Somebody new.
    New {
        /// What they may do.
        scopes: BTreeSet<Scope>,
    },
    /// An operator who chooses a new way to sign in.
    Reset(KeyId),
}

/// What the next page of a session says: the outcome of what was just done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// `good`, `bad`, `warn`, or nothing.
    pub kind: &'static str,
    /// In words.
    pub text: String,
    /// The draft that is done with, by its key.
    pub saved: Option<String>,
}

impl Said {
    /// It went well.
    pub fn good(text: impl Into<String>) -> Self {
        Self { kind: "good", text: text.into(), saved: None }
    }

    /// It didn't.
    pub fn bad(text: impl Into<String>) -> Self {
        Self { kind: "bad", text: text.into(), saved: None }
    }

    /// The draft of this key is done with.
    pub fn saved(self, draft: impl Into<String>) -> Self {
        Self { saved: Some(draft.into()), ..self }
    }
}
