//! Sealing: the only place that touches ciphers.
//!
//! A value is sealed with AES-256-GCM under a key derived from a data key and 128 random bits, so that random nonces can't
//! collide within one key however many values are sealed. The associated data names the value's place, so a value can't be moved. Data keys
//! are wrapped by the root key. The newest data key seals, all open.

mod root_key;

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::clock::Rng;

pub(crate) use root_key::write_private;
pub use root_key::{RootKey, RootKeyError, RootKeySource};

/// First byte of every sealed value; a new format takes a new number.
const FORMAT: u8 = 1;
const SALT: usize = 16;
const NONCE: usize = 12;
const HEADER: usize = 1 + 4 + SALT + NONCE;

/// Where a sealed value lives. Part of what is authenticated: moved to another place, it doesn't open.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The tenant's name.
    pub tenant: &'a str,
    /// Table, or `escrow` for the files.
    pub table: &'static str,
    /// The row's id.
    pub row: &'a str,
    /// The column.
    pub column: &'static str,
    /// The row's generation where the value changes with it, else 0.
    pub generation: i64,
}

impl Place<'_> {
    /// Unambiguous bytes: each part behind its length.
    fn aad(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        for part in [self.tenant, self.table, self.row, self.column] {
            out.extend_from_slice(&(part.len() as u64).to_be_bytes());
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(&self.generation.to_be_bytes());
        out
    }
}

/// Why something could not be opened or sealed. Says nothing about the content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The root key doesn't open the data keys.
    #[error(
        "the root key is not the one this database was sealed with (the database names root key {expected}, this is {found}); \
         put the right key back: without it nothing that is stored can be opened"
    )]
    WrongRootKey {
        /// Fingerprint in the store.
        expected: String,
        /// Fingerprint of the key at hand.
        found: String,
    },
    /// The value names a data key that isn't there.
    #[error("a sealed value names data key {0}, which is not in the store; restore it from a backup")]
    UnknownDataKey(u32),
    /// Damaged, moved, or sealed by somebody else.
    #[error("a sealed value in {table}.{column} doesn't open: it was damaged or moved from another row")]
    Damaged {
        /// Table of the place it was opened for.
        table: &'static str,
        /// Column of the place it was opened for.
        column: &'static str,
    },
    /// Ciphers refuse only keys and nonces of wrong length, which the types rule out.
    #[error("the cipher refused to seal")]
    Cipher,
}

/// A data key as the store keeps it.
#[derive(Clone, Debug)]
pub struct WrappedKey {
    /// Its number; sealed values carry it.
    pub id: u32,
    /// Fingerprint of the root key that wraps it.
    pub root_key: String,
    /// The wrapped key.
    pub wrapped: Vec<u8>,
}

/// The key ring: opens with any data key, seals with the newest.
pub struct Vault {
    ring: RwLock<BTreeMap<u32, DataKey>>,
}

struct DataKey(hmac::Key);

impl Vault {
    /// Opens the data keys with the root key.
    pub fn open(root: &RootKey, wrapped: &[WrappedKey]) -> Result<Self, VaultError> {
        let vault = Self { ring: RwLock::default() };
        wrapped.iter().try_for_each(|key| vault.add(root, key))?;
        if vault.newest() == 0 { Err(VaultError::UnknownDataKey(0)) } else { Ok(vault) }
    }

    /// Puts one more data key on the ring; the one with the highest number seals.
    pub fn add(&self, root: &RootKey, key: &WrappedKey) -> Result<(), VaultError> {
        if key.root_key != root.fingerprint() {
            return Err(VaultError::WrongRootKey { expected: key.root_key.clone(), found: root.fingerprint() });
        }
        let plain = root.unwrap_key(key)?;
        let data_key = DataKey(hmac::Key::new(hmac::HMAC_SHA256, &plain));
        self.ring.write().unwrap_or_else(PoisonError::into_inner).insert(key.id, data_key);
        Ok(())
    }

    /// Number of the data key that seals; they count from 1.
    pub fn newest(&self) -> u32 {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.keys().next_back().copied().unwrap_or(0)
    }

    /// Whether this data key is on the ring.
    pub fn has(&self, id: u32) -> bool {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).contains_key(&id)
    }

    /// Number of the data key a value was sealed with.
    pub fn key_of(sealed: &[u8]) -> Option<u32> {
        let [FORMAT, rest @ ..] = sealed else { return None };
        rest.first_chunk::<4>().map(|id| u32::from_be_bytes(*id))
    }

    /// Seals `plain` to its place.
    pub fn seal(&self, rng: &Rng, place: &Place<'_>, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let salt: [u8; SALT] = rng.bytes();
        let nonce: [u8; NONCE] = rng.bytes();
        let newest = self.newest();
        let key = self.derive(newest, &salt)?;
        let mut out = Vec::with_capacity(HEADER + plain.len() + AES_256_GCM.tag_len());
        out.push(FORMAT);
        out.extend_from_slice(&newest.to_be_bytes());
        out.extend_from_slice(&salt);
        out.extend_from_slice(&nonce);
        // Encrypted in a buffer that is wiped: on failure no plain text is left behind.
        let mut body = Zeroizing::new(plain.to_vec());
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place.aad()), &mut *body)
            .map_err(|_| VaultError::Cipher)?;
        out.extend_from_slice(&body);
        Ok(out)
    }

    /// Opens a value sealed to `place`.
    pub fn open_value(&self, place: &Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let damaged = || VaultError::Damaged { table: place.table, column: place.column };
        let (header, body) = sealed.split_at_checked(HEADER).ok_or_else(damaged)?;
        let [FORMAT, rest @ ..] = header else {
            return Err(damaged());
        };
        let (id, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (salt, rest) = rest.split_first_chunk::<SALT>().ok_or_else(damaged)?;
        let nonce = rest.first_chunk::<NONCE>().ok_or_else(damaged)?;
        let key = self.derive(u32::from_be_bytes(*id), salt)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(place.aad()), &mut body)
            .map_err(|_| damaged())?
            .len();
        body.truncate(length);
        Ok(body)
    }

    fn derive(&self, id: u32, salt: &[u8; SALT]) -> Result<LessSafeKey, VaultError> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let data_key = ring.get(&id).ok_or(VaultError::UnknownDataKey(id))?;
        let mut input = b"keyholder value v1".to_vec();
        input.extend_from_slice(salt);
        cipher(hmac::sign(&data_key.0, &input).as_ref())
    }
}

fn cipher(key: &[u8]) -> Result<LessSafeKey, VaultError> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| VaultError::Cipher)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn vault(rng: &Rng) -> Vault {
        let root = RootKey::generate(rng);
        let wrapped = root.wrap_new(rng, 1).unwrap();
        Vault::open(&root, &[wrapped]).unwrap()
    }

    const HERE: Place<'static> =
        Place { tenant: "default", table: "connections", row: "con_1", column: "token_set", generation: 7 };

    #[test]
    fn what_is_sealed_opens_only_in_its_place() {
        let rng = Rng::seeded(1);
        let vault = vault(&rng);
        let sealed = vault.seal(&rng, &HERE, b"a token").unwrap();
        assert_eq!(vault.open_value(&HERE, &sealed).unwrap().as_slice(), b"a token");
        let places = [
            Place { tenant: "other", ..HERE },
            Place { table: "integrations", ..HERE },
            Place { row: "con_2", ..HERE },
            Place { column: "secrets", ..HERE },
            Place { generation: 8, ..HERE },
        ];
        for place in places {
            assert!(matches!(vault.open_value(&place, &sealed), Err(VaultError::Damaged { .. })), "{place:?}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let rng = Rng::seeded(2);
        let vault = vault(&rng);
        let sealed = vault.seal(&rng, &HERE, b"a token").unwrap();
        for byte in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[byte] ^= 1;
            assert!(vault.open_value(&HERE, &bent).is_err(), "byte {byte}");
            assert!(vault.open_value(&HERE, &sealed[..byte]).is_err(), "cut at {byte}");
        }
    }

    #[test]
    fn another_root_key_is_refused_and_named() {
        let rng = Rng::seeded(3);
        let wrapped = RootKey::generate(&rng).wrap_new(&rng, 1).unwrap();
        let other = RootKey::generate(&rng);
        let refused = Vault::open(&other, &[wrapped]).err().unwrap();
        assert!(matches!(refused, VaultError::WrongRootKey { .. }));
        assert!(refused.to_string().contains(&other.fingerprint()));
    }

    #[test]
    fn older_keys_open_and_the_newest_seals() {
        let rng = Rng::seeded(4);
        let root = RootKey::generate(&rng);
        let first = root.wrap_new(&rng, 1).unwrap();
        let old = Vault::open(&root, std::slice::from_ref(&first)).unwrap();
        let sealed = old.seal(&rng, &HERE, b"old").unwrap();
        let second = root.wrap_new(&rng, 2).unwrap();
        let both = Vault::open(&root, &[first, second]).unwrap();
        assert_eq!(both.open_value(&HERE, &sealed).unwrap().as_slice(), b"old");
        assert_eq!(both.seal(&rng, &HERE, b"new").unwrap()[1..5], 2_u32.to_be_bytes());
    }
}
