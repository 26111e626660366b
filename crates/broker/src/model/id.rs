//! Typed, sortable ids: a readable prefix, then 48 bits of time and 80 random bits in Crockford's base 32.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use crate::clock::{Clock, Rng};

/// Crockford's alphabet in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 26;

/// Why a text is not an id of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of this kind; one looks like `{prefix}_01j9zc…`")]
pub struct NotAnId {
    text: String,
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta] $name:ident = $prefix:literal;)*) => {$(
        #[$doc]
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The prefix of this kind of id, without the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id; ids made later sort later.
            pub fn new(clock: &Clock, rng: &Rng) -> Self {
                Self(format!("{}_{}", $prefix, sortable(clock.now_ms(), rng.bytes())))
            }

            /// Is `text` an id of this kind?
            pub fn is(text: &str) -> bool {
                let rest = text.strip_prefix(concat!($prefix, "_")).unwrap_or("");
                rest.len() == LENGTH && rest.bytes().all(|b| ALPHABET.contains(&b))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                if Self::is(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NotAnId { text: text.chars().take(60).collect(), prefix: $prefix })
                }
            }
        }

        // Maps are asked by text that came in.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

id! {
    /// A connection.
    ConnectionId = "con";
    /// An integration.
    IntegrationId = "int";
    /// A connect session.
    SessionId = "ses";
    /// An API key (its public name, not the key).
    KeyId = "key";
    /// One renewal attempt.
    AttemptId = "att";
    /// A grant that waits to be confirmed.
    PendingId = "pen";
    /// A grant that a person gives on another device.
    DeviceGrantId = "dev";
    /// An entry of a connection's history.
    EventId = "evt";
    /// An audit record.
    AuditId = "aud";
}

/// 48 bits of milliseconds and 80 random bits as 26 characters.
fn sortable(now_ms: i64, random: [u8; 10]) -> String {
    let mut bits = u128::from(now_ms.max(0).unsigned_abs() & 0xffff_ffff_ffff) << 80;
    for (place, byte) in random.iter().rev().enumerate() {
        bits |= u128::from(*byte) << (8 * place);
    }
    (0..LENGTH).rev().map(|digit| char::from(ALPHABET[(bits >> (5 * digit) & 31) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use std::time::Duration;

    #[test]
    fn ids_sort_by_time_and_read_back() {
        let manual = ManualClock::starting_at(1_790_000_000_000);
        let clock = Clock::Manual(manual.clone());
        let rng = Rng::seeded(1);
        let first = ConnectionId::new(&clock, &rng);
        manual.advance(Duration::from_millis(1));
        let second = ConnectionId::new(&clock, &rng);
        assert!(first < second);
        assert_eq!(first.as_str().parse(), Ok(first.clone()));
        assert!(first.as_str().parse::<IntegrationId>().is_err());
        assert!("con_../../etc".parse::<ConnectionId>().is_err());
    }
}
