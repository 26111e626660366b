//! Typed, sortable ids: a readable prefix, then 48 bits of time and 80 random bits in Crockford's base 32. They hold no memory of their own: the fast paths copy them.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use crate::clock::{Clock, Rng};

/// Crockford's alphabet in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 26;
/// Three letters and an underscore.
const PREFIX: usize = 4;

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
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name([u8; PREFIX + LENGTH]);

        impl $name {
            /// The prefix of this kind of id, without the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id; ids made later sort later.
            pub fn new(clock: &Clock, rng: &Rng) -> Self {
                let mut bytes = [b'_'; PREFIX + LENGTH];
                bytes[..PREFIX - 1].copy_from_slice($prefix.as_bytes());
                bytes[PREFIX..].copy_from_slice(&sortable(clock.now_ms(), rng.bytes()));
                Self(bytes)
            }

            /// The first id that can be made at this time, Unix milliseconds.
            pub fn first_at(ms: i64) -> Self {
                let mut bytes = [b'_'; PREFIX + LENGTH];
                bytes[..PREFIX - 1].copy_from_slice($prefix.as_bytes());
                bytes[PREFIX..].copy_from_slice(&sortable(ms, [0; 10]));
                Self(bytes)
            }

            /// When it was made, Unix milliseconds.
            pub fn made_at(&self) -> i64 {
                let number = from_base32(&self.0[PREFIX..]).unwrap_or_default();
                i64::try_from(number >> 80).unwrap_or_default()
            }

            /// Is `text` an id of this kind?
            pub fn is(text: &str) -> bool {
                let rest = text.strip_prefix(concat!($prefix, "_")).unwrap_or("");
                rest.len() == LENGTH && rest.bytes().all(|b| ALPHABET.contains(&b))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                // All bytes are ASCII.
                std::str::from_utf8(&self.0).unwrap_or_default()
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                if Self::is(text) {
                    let mut bytes = [0; PREFIX + LENGTH];
                    bytes.copy_from_slice(text.as_bytes());
                    Ok(Self(bytes))
                } else {
                    Err(NotAnId { text: text.chars().take(60).collect(), prefix: $prefix })
                }
            }
        }

        // Maps are asked by text that came in.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        // As the text's, which maps are asked by; without the look whether it is one.
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                state.write(&self.0);
                state.write_u8(0xff);
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.as_str()).finish()
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
    /// A data source.
    SourceId = "src";
    /// A segment of the audit.
    SegmentId = "seg";
}

/// 48 bits of milliseconds and 80 random bits as 26 characters.
fn sortable(now_ms: i64, random: [u8; 10]) -> [u8; LENGTH] {
    let mut bits = u128::from(now_ms.max(0).unsigned_abs() & 0xffff_ffff_ffff) << 80;
    for (place, byte) in random.iter().rev().enumerate() {
        bits |= u128::from(*byte) << (8 * place);
    }
    base32(bits)
}

/// A number's last `N` digits.
pub(crate) fn base32<const N: usize>(number: u128) -> [u8; N] {
    std::array::from_fn(|place| ALPHABET[(number >> (5 * (N - 1 - place)) & 31) as usize])
}

/// The number that these digits stand for; `None` where one is no digit.
pub(crate) fn from_base32(digits: &[u8]) -> Option<u128> {
    let digit = |byte: &u8| ALPHABET.iter().position(|known| known == byte);
    digits.iter().try_fold(0, |number: u128, byte| Some(number << 5 | digit(byte)? as u128))
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

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
        // Maps of ids are asked by text.
        let hasher = foldhash::fast::FixedState::default();
        assert_eq!(hasher.hash_one(&first), hasher.hash_one(first.as_str()));
    }
}
