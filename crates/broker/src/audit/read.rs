//! Reading the audit, newest or oldest first.

use std::fmt;
use std::str::FromStr;

use super::READERS_WAIT;
use super::segment::{Detail, Read, Reader};
use crate::error::{Result, invalid};
use crate::manage::Page;
use crate::model::{Caller, Tenant, base32, from_base32};
use crate::open::Broker;
use crate::store::{StoreError, StoreResult, Stretch, Tx};

/// One reading looks at no more records than this: where few of very many fit a filter, a page may have fewer than it could, and its cursor leads on.
pub(super) const LOOKED_AT: usize = 200_000;
/// The same in bytes of segments.
pub(super) const BYTES_LOOKED_AT: usize = 64 << 20;
/// So many bytes of segments are in memory at once, at most; also about so many of records on a page.
pub(super) const BYTES: usize = 4 << 20;
/// So many segments are fetched first, and twice as many each time after, up to the most.
const CHUNK: (i64, i64) = (4, 256);

/// An audit record.
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// Its place in the audit; what is recorded later sorts behind it.
    pub id: String,
    /// When, Unix milliseconds.
    pub at: i64,
    /// Who: the key's name, `person` or `keyholder`.
    pub actor: String,
    /// The key's id.
    pub key_id: Option<String>,
    /// What: `token.read`, `proxy.call`, `connection.create`, …
    pub action: String,
    /// On what: an id.
    pub object: String,
    /// By which data source, as its id.
    pub source: Option<String>,
    /// `ok` or `refused`.
    pub outcome: String,
    /// More, without secrets.
    pub detail: Option<String>,
}

/// Which records.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Those of a key, by its name or id; `person` for those of people.
    pub caller: Option<String>,
    /// Those of a connection, by its name or id; or of anything else, by its id.
    pub object: Option<String>,
    /// This action, or all that begin with it and a dot.
    pub action: Option<String>,
    /// `ok` or `refused`.
    pub outcome: Option<String>,
    /// From this time on, Unix milliseconds.
    pub since: Option<i64>,
    /// Up to this time, Unix milliseconds.
    pub until: Option<i64>,
}

/// From where, and in which direction. Both are ids of records, or cursors of pages.
#[derive(Clone, Debug)]
pub enum AuditPart {
    /// Newest first, those recorded before this one.
    Newest {
        /// `None`: from the newest of all.
        before: Option<String>,
    },
    /// Oldest first, those recorded after this one.
    Oldest {
        /// `None`: from the oldest of all.
        after: Option<String>,
    },
}

/// A part of the audit.
#[derive(Clone, Debug)]
pub struct AuditPage {
    /// The records, in the direction asked for.
    pub rows: Vec<AuditRow>,
    /// Cursor: what is recorded after all that was looked at. `None` where nothing was.
    pub next: Option<String>,
    /// Cursor, newest first only: what was recorded before. `None` where there is no more.
    pub older: Option<String>,
}

impl Broker {
    /// Audit records: without a cursor the newest, newest first; behind a cursor oldest first.
    pub async fn audit_records(&self, caller: &Caller, page: &Page) -> Result<Vec<AuditRow>> {
        let part = match page.after.is_empty() {
            true => AuditPart::Newest { before: None },
            false => AuditPart::Oldest { after: Some(page.after.clone()) },
        };
        Ok(self.read_audit(caller, AuditFilter::default(), part, page.limit).await?.rows)
    }

    /// At most `limit` records that fit a filter.
    pub async fn read_audit(
        &self,
        caller: &Caller,
        filter: AuditFilter,
        part: AuditPart,
        limit: i64,
    ) -> Result<AuditPage> {
        let (forwards, from) = match &part {
            AuditPart::Newest { before: None } => (false, Place::LAST),
            AuditPart::Newest { before: Some(before) } => (false, place("before", before)?),
            AuditPart::Oldest { after: None } => (true, Place::FIRST),
            AuditPart::Oldest { after: Some(after) } => (true, place("after", after)?),
        };
        self.clock.timeout(READERS_WAIT, self.audit.flush()).await;
        let (tenant, limit) = (caller.tenant.clone(), usize::try_from(limit).unwrap_or(0));
        let look = Look { forwards, from, limit, newest: None, last: None, more: false, bytes: 0, rows: Vec::new() };
        let look = self.store.read(move |tx| look.through(tx, &tenant, &filter)).await?;
        let cursor = |place: Option<Place>| place.map(|place| place.to_string());
        Ok(match part {
            AuditPart::Oldest { .. } => AuditPage { rows: look.rows, next: cursor(look.last), older: None },
            AuditPart::Newest { before } => AuditPage {
                rows: look.rows,
                next: cursor(look.newest.filter(|_| before.is_none())),
                older: cursor(look.last.filter(|_| look.more)),
            },
        })
    }
}

/// The place of a record: its segment, and which one of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    segment: i64,
    index: u16,
}

impl Place {
    const FIRST: Self = Self { segment: 0, index: 0 };
    const LAST: Self = Self { segment: i64::MAX, index: 0 };
}

/// As text that sorts like it: ten digits for the segment, three for the record, in base 32.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u128::from(self.segment.cast_unsigned()) << 15 | u128::from(self.index & 0x7fff);
        let digits = base32::<13>(number);
        write!(f, "aud_{}", std::str::from_utf8(&digits).unwrap_or_default())
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let digits: &[u8; 13] = text.strip_prefix("aud_").and_then(|rest| rest.as_bytes().try_into().ok()).ok_or(())?;
        let number = from_base32(digits).ok_or(())?;
        let segment = i64::try_from(number >> 15).map_err(|_| ())?;
        Ok(Self { segment, index: (number & 0x7fff) as u16 })
    }
}

fn place(field: &'static str, text: &str) -> Result<Place> {
    text.parse().map_err(|()| {
        invalid(field, "it is not a record of the audit", "give the `id` of a record, or the cursor of another page")
    })
}

/// A way through the segments.
struct Look {
    forwards: bool,
    from: Place,
    limit: usize,
    /// The newest record that was looked at.
    newest: Option<Place>,
    /// The last one.
    last: Option<Place>,
    /// There may be more behind it.
    more: bool,
    /// Of the rows.
    bytes: usize,
    rows: Vec<AuditRow>,
}

impl Look {
    fn through(mut self, tx: &Tx<'_>, tenant: &Tenant, filter: &AuditFilter) -> StoreResult<Self> {
        let object = match &filter.object {
            Some(named) => Some(tx.connection(tenant, named)?.map_or(named.clone(), |row| row.id.to_string())),
            None => None,
        };
        let (since, until) = (filter.since.unwrap_or(i64::MIN), filter.until.unwrap_or(i64::MAX));
        let fits = |record: &Read<'_>| {
            (since..=until).contains(&record.at)
                && filter.caller.as_deref().is_none_or(|caller| record.actor == caller || record.key == caller)
                && object.as_deref().is_none_or(|object| record.object == object)
                && filter.action.as_deref().is_none_or(|action| is_below(record.action, action))
                && filter.outcome.as_deref().is_none_or(|outcome| record.outcome == outcome)
        };
        let (from, forwards, bytes) = (self.from.segment, self.forwards, BYTES as i64);
        let mut stretch = Stretch { from, forwards, since, until, limit: CHUNK.0, bytes };
        if self.forwards && since > i64::MIN {
            let Some(first) = tx.first_audit_since(tenant, since)? else { return Ok(self) };
            stretch.from = stretch.from.max(first);
        }
        let (mut looked_at, mut bytes_looked_at) = (0, 0);
        loop {
            let found = tx.audit(tenant, &stretch)?;
            for (number, segment) in found.segments {
                stretch.from = if self.forwards { number + 1 } else { number - 1 };
                let unreadable = StoreError::Unreadable { table: "audit", column: "records" };
                let records: Option<Vec<_>> = Reader::new(&segment).collect();
                let records = records.ok_or(unreadable)?;
                looked_at += records.len();
                bytes_looked_at += segment.records.len();
                if !self.take(number, &records, &fits) {
                    self.more = true;
                    return Ok(self);
                }
            }
            if found.is_all {
                return Ok(self);
            }
            if looked_at >= LOOKED_AT || bytes_looked_at >= BYTES_LOOKED_AT {
                self.more = true;
                return Ok(self);
            }
            stretch.limit = (stretch.limit * 2).min(CHUNK.1);
        }
    }

    /// Takes what fits out of a segment; `false`: enough.
    fn take(&mut self, segment: i64, records: &[Read<'_>], fits: &impl Fn(&Read<'_>) -> bool) -> bool {
        for step in 0..records.len() {
            let index = if self.forwards { step } else { records.len() - 1 - step };
            let place = Place { segment, index: u16::try_from(index).unwrap_or(u16::MAX) };
            let is_beyond = if self.forwards { place > self.from } else { place < self.from };
            if !is_beyond {
                continue;
            }
            if self.rows.len() == self.limit || self.bytes >= BYTES {
                return false;
            }
            self.newest = self.newest.max(Some(place));
            self.last = Some(place);
            if fits(&records[index]) {
                let row = row(place, &records[index]);
                self.bytes += row.size();
                self.rows.push(row);
            }
        }
        true
    }
}

impl AuditRow {
    /// About how many bytes it is.
    fn size(&self) -> usize {
        let some = [&self.key_id, &self.source, &self.detail].into_iter().flatten().map(String::len).sum::<usize>();
        let texts = [&self.id, &self.actor, &self.action, &self.object, &self.outcome];
        size_of::<Self>() + some + texts.into_iter().map(String::len).sum::<usize>()
    }
}

fn is_below(action: &str, wanted: &str) -> bool {
    action.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn row(place: Place, record: &Read<'_>) -> AuditRow {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (source, detail) = match record.detail {
        Detail::None => (None, None),
        Detail::Text(text) => (None, Some(text.to_owned())),
        Detail::Secondary(name) => (None, Some(format!("token {name}"))),
        Detail::Call { source, method, host, path } => (some(source), Some(format!("{method} {host}{path}"))),
    };
    AuditRow {
        id: place.to_string(),
        at: record.at,
        actor: record.actor.to_owned(),
        key_id: some(record.key),
        action: record.action.to_owned(),
        object: record.object.to_owned(),
        source,
        outcome: record.outcome.to_owned(),
        detail,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn places_sort_as_text_and_read_back() {
        let place = |segment, index| Place { segment, index };
        let places = [place(0, 0), place(1, 0), place(1, 511), place(2, 0), place(1 << 40, 0)];
        let texts = places.map(|place| place.to_string());
        assert!(texts.is_sorted(), "{texts:?}");
        assert_eq!(texts.map(|text| text.parse::<Place>().unwrap()), places);
        for text in
            ["", "aud_", "aud_01j9zc0000000000000000000", "seg_0000000000000", "aud_000000000000u", "aud_000000000000é"]
        {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_action_takes_in_what_is_below_it() {
        assert!(is_below("connection.create", "connection") && is_below("token.read", "token.read"));
        assert!(!is_below("connection.create", "conn") && !is_below("token.read", "token.read.x"));
    }
}
