//! Which database this is, and the marks by which its processes know it again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

use keyholder_oauth::sha256;

use super::{Change, StoreError, StoreResult, Tx, Val, from_json, sql, to_json};
use crate::model::Fenced;

sql! {
    FOUND = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING";
    HOLD = "UPDATE meta SET value = value WHERE name = 'cluster'";
    FORGET_META = "DELETE FROM meta WHERE name = ?1";
    MARK = "SELECT mark FROM instances WHERE id = ?1";
    PUT_MARK = "INSERT INTO instances (id, mark, started_at, seen_at) VALUES (?1, ?2, ?3, ?3) \
        ON CONFLICT (id) DO UPDATE SET mark = excluded.mark, seen_at = excluded.seen_at";
    SEEN = "SELECT count(*) FROM instances WHERE seen_at > ?1";
}

const CLUSTER: &str = "cluster";
const EPOCH: &str = "epoch";
const HOME: &str = "home";
const FENCE: &str = "fence";

/// What a database says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster's random name, made with it.
    pub cluster: String,
    /// Raised whenever an operator says that this copy is the live one.
    pub epoch: i64,
    /// The place it is used at, as far as that could be told.
    pub home: Option<String>,
    /// Whether it is fenced.
    pub fenced: Option<Fenced>,
}

/// Where a database lies: what it can be told from a copy of it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Compared, and shown to nobody.
    pub name: String,
    /// A server that takes over under another name goes on with the same data; a file elsewhere is another file.
    pub follows: bool,
}

impl Tx<'_> {
    /// The cluster's name; `None` in a database that no process has joined yet.
    pub fn cluster(&self) -> StoreResult<Option<String>> {
        self.meta(CLUSTER)
    }

    /// Gives a new database its name; one that has a name keeps it.
    pub fn found_cluster(&self, name: &str) -> StoreResult<()> {
        self.execute(&FOUND, &[Val::T(CLUSTER), Val::T(name)])?;
        self.execute(&FOUND, &[Val::T(EPOCH), Val::T("1")]).map(drop)
    }

    /// What the database says of itself. Until the end of the transaction nobody else changes it.
    pub fn hold_identity(&self) -> StoreResult<Identity> {
        self.execute(&HOLD, &[])?;
        self.identity()
    }

    /// What the database says of itself.
    pub fn identity(&self) -> StoreResult<Identity> {
        let unreadable = StoreError::Unreadable { table: "meta", column: "value" };
        let epoch = self.meta(EPOCH)?.and_then(|text| text.parse().ok());
        Ok(Identity {
            cluster: self.meta(CLUSTER)?.ok_or(unreadable.clone())?,
            epoch: epoch.ok_or(unreadable)?,
            home: self.meta(HOME)?,
            fenced: self.meta(FENCE)?.map(|text| from_json("meta", "value", &text)).transpose()?,
        })
    }

    /// Sets what [`Self::identity`] answers.
    pub fn put_identity(&self, it: &Identity) -> StoreResult<()> {
        self.announce(&Change::Fence)?;
        self.put_meta(EPOCH, &it.epoch.to_string())?;
        if let Some(home) = &it.home {
            self.put_meta(HOME, home)?;
        }
        match &it.fenced {
            Some(fenced) => self.put_meta(FENCE, &to_json(fenced)),
            None => self.execute(&FORGET_META, &[Val::T(FENCE)]).map(drop),
        }
    }

    /// The mark by which an instance knows this database again.
    pub fn mark(&self, instance: &str) -> StoreResult<Option<String>> {
        self.row(&MARK, &[Val::T(instance)], |row| row.t(0))
    }

    /// Sets it.
    pub fn put_mark(&self, instance: &str, mark: &str) -> StoreResult<()> {
        self.execute(&PUT_MARK, &[Val::T(instance), Val::T(mark), Val::I(self.now_ms()?)]).map(drop)
    }

    /// How many instances were seen after this time of the database's clock.
    pub fn instances_seen(&self, after: i64) -> StoreResult<i64> {
        Ok(self.row(&SEEN, &[Val::I(after)], |row| row.i(0))?.unwrap_or(0))
    }

    /// Where this database lies; `None` where that can't be told.
    ///
    /// A file's time of birth stays when it is written, renamed or its disk is mounted elsewhere, and no tool copies it.
    pub fn place(&self) -> StoreResult<Option<Place>> {
        // A role that may not ask has no place to go by; the marks remain.
        if let Some(name) = self.attempt(Self::server_identity).unwrap_or(None) {
            return Ok(Some(Place { name, follows: true }));
        }
        let Some(file) = self.file().and_then(|path| fs::metadata(path).ok()) else { return Ok(None) };
        let born = file.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let file = born.map_or_else(|| format!("inode {}", file.ino()), |born| format!("born {}", born.as_nanos()));
        let machine = fs::read("/etc/machine-id").unwrap_or_default();
        let machine: String = sha256(&machine)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(Place { name: format!("{file} on {machine}"), follows: false }))
    }
}
