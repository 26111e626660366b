//! The root key: where it comes from, and how it wraps data keys.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::aead::{Aad, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyholder_oauth::{Secret, sha256};
use zeroize::Zeroizing;

use super::{NONCE, VaultError, WrappedKey, cipher};
use crate::clock::Rng;

/// What the text form begins with, so that a wrong file is noticed.
const PREFIX: &str = "khroot1_";

/// Where the root key comes from.
#[derive(Clone, Debug)]
pub enum RootKeySource {
    /// A file, mode 0600; made at the first start when it is not there and the store is new.
    File(PathBuf),
    /// The key itself, from the environment.
    Value(Secret),
    /// A command whose standard output is the key.
    Command(String),
}

/// 256 bits that open everything that is stored. Not printable.
pub struct RootKey(Zeroizing<[u8; 32]>);

/// Why there is no root key.
#[derive(Debug, thiserror::Error)]
pub enum RootKeyError {
    /// The file can't be read or written.
    #[error("the root key file {path}: {cause}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Other users of the machine may read the file.
    #[error("the root key file {path} may be read by others (mode {mode:o}); run `chmod 600 {path}`")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The database has data but its key file is gone.
    #[error(
        "the root key file {0} is missing, but the database already holds sealed data; put the key back from your backup: \
         without it the data can't be opened"
    )]
    Missing(PathBuf),
    /// Not a root key.
    #[error("{0} is not a root key: it must be `khroot1_` and 43 characters of base64url (32 bytes)")]
    Malformed(&'static str),
    /// The command failed.
    #[error("the root key command failed: {0}")]
    Command(String),
}

impl RootKeySource {
    /// Reads the key. When the source is a file that is not there and `may_create` (the store is new), makes it; the second value says so.
    pub fn load(&self, rng: &Rng, may_create: bool) -> Result<(RootKey, bool), RootKeyError> {
        match self {
            RootKeySource::Value(text) => Ok((RootKey::parse(text, "the value of KEYHOLDER_ROOT_KEY")?, false)),
            RootKeySource::Command(command) => Ok((from_command(command)?, false)),
            RootKeySource::File(path) if path.exists() => Ok((from_file(path)?, false)),
            RootKeySource::File(path) if may_create => {
                let key = RootKey::generate(rng);
                write_private(path, key.to_text().expose().as_bytes())
                    .map_err(|cause| RootKeyError::File { path: path.clone(), cause })?;
                Ok((key, true))
            }
            RootKeySource::File(path) => Err(RootKeyError::Missing(path.clone())),
        }
    }
}

impl RootKey {
    /// A new key.
    pub fn generate(rng: &Rng) -> Self {
        Self(Zeroizing::new(rng.bytes()))
    }

    /// Reads the text form; surrounding white space is allowed.
    pub fn parse(text: &Secret, what: &'static str) -> Result<Self, RootKeyError> {
        let bytes = text
            .expose()
            .trim()
            .strip_prefix(PREFIX)
            .and_then(|rest| URL_SAFE_NO_PAD.decode(rest).ok())
            .map(Zeroizing::new)
            .ok_or(RootKeyError::Malformed(what))?;
        let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| RootKeyError::Malformed(what))?;
        Ok(Self(Zeroizing::new(key)))
    }

    /// The text form, for the key file.
    pub fn to_text(&self) -> Secret {
        Secret::new(format!("{PREFIX}{}\n", URL_SAFE_NO_PAD.encode(*self.0)))
    }

    /// Tells keys apart without telling anything about them: 64 bits of a hash, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let mut input = Zeroizing::new(b"keyholder root key fingerprint".to_vec());
        input.extend_from_slice(&*self.0);
        sha256(&input)[..8].iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Makes data key number `id` and wraps it.
    pub fn wrap_new(&self, rng: &Rng, id: u32) -> Result<WrappedKey, VaultError> {
        let nonce: [u8; NONCE] = rng.bytes();
        let mut body = Zeroizing::new(rng.bytes::<32>().to_vec());
        cipher(&*self.0)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(key_aad(id)), &mut *body)
            .map_err(|_| VaultError::Cipher)?;
        let mut wrapped = nonce.to_vec();
        wrapped.extend_from_slice(&body);
        Ok(WrappedKey { id, root_key: self.fingerprint(), wrapped })
    }

    pub(super) fn unwrap_key(&self, key: &WrappedKey) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let damaged = || VaultError::Damaged { table: "data_keys", column: "wrapped" };
        let (nonce, body) = key.wrapped.split_first_chunk::<NONCE>().ok_or_else(damaged)?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = cipher(&*self.0)?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(key_aad(key.id)), &mut body)
            .map_err(|_| damaged())?
            .len();
        body.truncate(length);
        Ok(body)
    }
}

fn key_aad(id: u32) -> Vec<u8> {
    let mut aad = b"keyholder data key".to_vec();
    aad.extend_from_slice(&id.to_be_bytes());
    aad
}

fn from_file(path: &Path) -> Result<RootKey, RootKeyError> {
    let failed = |cause| RootKeyError::File { path: path.to_owned(), cause };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(RootKeyError::Open { path: path.to_owned(), mode });
    }
    let text = Secret::new(fs::read_to_string(path).map_err(failed)?);
    RootKey::parse(&text, "the content of the root key file")
}

fn from_command(command: &str) -> Result<RootKey, RootKeyError> {
    let output = Command::new("sh").args(["-c", command]).output().map_err(|e| RootKeyError::Command(e.to_string()))?;
    if !output.status.success() {
        return Err(RootKeyError::Command(output.status.to_string()));
    }
    let text =
        String::from_utf8(output.stdout).map_err(|_| RootKeyError::Malformed("the output of the root key command"))?;
    RootKey::parse(&Secret::new(text), "the output of the root key command")
}

/// Writes a new file that only its owner can read, and makes sure it survives a power cut.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_made_once_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root-key");
        let rng = Rng::seeded(1);
        let source = RootKeySource::File(path.clone());
        assert!(matches!(source.load(&rng, false), Err(RootKeyError::Missing(_))));
        let (made, created) = source.load(&rng, true).unwrap();
        assert!(created);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (read, created) = source.load(&rng, true).unwrap();
        assert!(!created);
        assert_eq!(made.fingerprint(), read.fingerprint());

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(source.load(&rng, true), Err(RootKeyError::Open { .. })));
    }

    #[test]
    fn a_command_and_a_value_give_the_same_key() {
        let rng = Rng::seeded(2);
        let key = RootKey::generate(&rng);
        let text = key.to_text();
        let value = RootKeySource::Value(text.clone());
        let command = RootKeySource::Command(format!("printf '%s' '{}'", text.expose().trim()));
        for source in [value, command] {
            assert_eq!(source.load(&rng, false).unwrap().0.fingerprint(), key.fingerprint());
        }
        let wrong = RootKeySource::Value(Secret::new("hunter2"));
        let error = wrong.load(&rng, false).err().unwrap().to_string();
        assert!(error.contains("khroot1_") && !error.contains("hunter2"), "{error}");
    }
}
