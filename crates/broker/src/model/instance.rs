//! Which copy of a database this is, and whether it may renew.

use serde::{Deserialize, Serialize};

/// Why a copy of the database is fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceReason {
    /// It isn't in the state its processes left it in: an older copy was put in its place.
    Older,
    /// It was copied to another place, or moved there.
    Moved,
    /// An operator said that it is not the live one.
    Retired,
}

impl FenceReason {
    /// The word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            FenceReason::Older => "older",
            FenceReason::Moved => "moved",
            FenceReason::Retired => "retired",
        }
    }

    /// What happened, as the part of a sentence.
    pub fn message(self) -> &'static str {
        match self {
            FenceReason::Older => {
                "the database is not as its processes left it, so an older copy (a backup, say) was put in its place"
            }
            FenceReason::Moved => {
                "the database is at another place than it was used at, so it may be a copy of a live one"
            }
            FenceReason::Retired => "an operator said that this copy of the database is not the live one",
        }
    }
}

/// A fence: valid tokens are handed out, nothing is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// Why.
    pub reason: FenceReason,
    /// Since when, Unix milliseconds.
    pub since: i64,
}
