//! A folder for what lasts no longer than a command.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use keyholder_broker::clock::Rng;

use super::error::{CliError, Result};

/// A new folder that only this user can enter, removed when dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Below the system's temporary folder; `what` is in its name.
    pub(super) fn make(what: &str) -> Result<Self> {
        let random: String = Rng::System.bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
        let path = std::env::temp_dir().join(format!("keyholder-{what}-{random}"));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(CliError::io(path.display().to_string()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What can't be removed is left to the system, as other temporary files are.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_folder_is_private_and_goes() {
        let folder = Folder::make("test").unwrap();
        let path = folder.0.clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(path.join("x"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
