//! What happened: a connection's history and the audit.

use super::{Row, StoreError, StoreResult, Tx, Val, sql};
use crate::model::{ConnectionId, Event, EventId, Happened, SegmentId, Tenant};

/// Records of the audit that were written together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The earliest time in it, Unix milliseconds.
    pub from_at: i64,
    /// The latest.
    pub to_at: i64,
    /// How many records.
    pub count: i64,
    /// The records, as `audit::segment` writes them.
    pub records: Vec<u8>,
}

/// Where to read the audit: segments from this number on, in one direction, that may hold records of this time.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// The first segment to look at.
    pub from: i64,
    /// Towards newer ones.
    pub forwards: bool,
    /// Unix milliseconds.
    pub since: i64,
    /// Unix milliseconds.
    pub until: i64,
    /// Most segments.
    pub limit: i64,
    /// Most bytes of their records, except that the first comes in any case.
    pub bytes: i64,
}

/// Segments of a stretch.
#[derive(Clone, Debug)]
pub struct Found {
    /// Each with its number.
    pub segments: Vec<(i64, Segment)>,
    /// There are no more in the stretch.
    pub is_all: bool,
}

sql! {
    ADD_EVENT = "INSERT INTO events (id, tenant, connection, at, kind, message) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    EVENTS = "SELECT id, at, kind, message FROM events WHERE connection = ?1 ORDER BY id DESC LIMIT ?2";
    EVENTS_SINCE = "SELECT e.id, e.tenant, e.connection, c.name, e.at, e.kind, e.message FROM events e \
        LEFT JOIN connections c ON c.id = e.connection WHERE e.id > ?1 ORDER BY e.id LIMIT ?2";
    NEWEST_EVENTS = "SELECT e.id, e.tenant, e.connection, c.name, e.at, e.kind, e.message FROM events e \
        LEFT JOIN connections c ON c.id = e.connection WHERE e.tenant = ?1 ORDER BY e.id DESC LIMIT ?2";
    NEWEST_EVENT = "SELECT max(id) FROM events";
    NEXT_SEGMENT = "INSERT INTO audit_heads (tenant, last) VALUES (?1, 1) ON CONFLICT (tenant) DO UPDATE SET last = audit_heads.last + 1 RETURNING last";
    ADD_SEGMENT = "INSERT INTO audit (tenant, number, batch, from_at, to_at, count, records) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
        ON CONFLICT (tenant, batch) DO NOTHING";
    SEGMENTS = "SELECT number, from_at, to_at, count, records FROM audit \
        WHERE tenant = ?1 AND number >= ?2 AND to_at >= ?3 AND from_at <= ?4 ORDER BY number LIMIT ?5";
    SEGMENTS_BACK = "SELECT number, from_at, to_at, count, records FROM audit \
        WHERE tenant = ?1 AND number <= ?2 AND to_at >= ?3 AND from_at <= ?4 ORDER BY number DESC LIMIT ?5";
    SIZES = "SELECT length(records) FROM audit \
        WHERE tenant = ?1 AND number >= ?2 AND to_at >= ?3 AND from_at <= ?4 ORDER BY number LIMIT ?5";
    SIZES_BACK = "SELECT length(records) FROM audit \
        WHERE tenant = ?1 AND number <= ?2 AND to_at >= ?3 AND from_at <= ?4 ORDER BY number DESC LIMIT ?5";
    FIRST_SINCE = "SELECT min(number) FROM audit WHERE tenant = ?1 AND to_at >= ?2";
    SWEEP_AUDIT = "DELETE FROM audit WHERE tenant = ?1 AND number IN \
        (SELECT number FROM audit WHERE tenant = ?1 AND to_at < ?2 ORDER BY to_at LIMIT ?3)";
    TENANTS = "SELECT tenant FROM audit_heads";
}

impl Tx<'_> {
    /// Adds an entry to a connection's history.
    pub fn add_event(
        &self,
        id: &EventId,
        tenant: &Tenant,
        connection: &ConnectionId,
        at: i64,
        kind: &str,
        message: &str,
    ) -> StoreResult<()> {
        let values = [
            Val::T(id.as_str()),
            Val::T(tenant.as_str()),
            Val::T(connection.as_str()),
            Val::I(at),
            Val::T(kind),
            Val::T(message),
        ];
        self.execute(&ADD_EVENT, &values).map(drop)
    }

    /// A connection's history, newest first.
    pub fn events(&self, connection: &ConnectionId, limit: i64) -> StoreResult<Vec<Event>> {
        self.rows(&EVENTS, &[Val::T(connection.as_str()), Val::I(limit)], |row| {
            Ok(Event {
                id: row.t(0)?.parse().map_err(|_| StoreError::Unreadable { table: "events", column: "id" })?,
                at: row.i(1)?,
                kind: row.t(2)?,
                message: row.t(3)?,
            })
        })
    }

    /// What happened to connections since, oldest first.
    pub fn events_since(&self, since: &EventId, limit: i64) -> StoreResult<Vec<Happened>> {
        self.rows(&EVENTS_SINCE, &[Val::T(since.as_str()), Val::I(limit)], read_happened)
    }

    /// What happened to connections, newest first.
    pub fn newest_events(&self, tenant: &Tenant, limit: i64) -> StoreResult<Vec<Happened>> {
        self.rows(&NEWEST_EVENTS, &[Val::T(tenant.as_str()), Val::I(limit)], read_happened)
    }

    /// The newest event's id, if there is one.
    pub fn newest_event(&self) -> StoreResult<Option<EventId>> {
        let newest = self.row(&NEWEST_EVENT, &[], |row| row.opt_t(0))?.flatten();
        Ok(newest.and_then(|id| id.parse().ok()))
    }

    /// Adds a segment to the audit, behind all that can be read: whoever takes the next number keeps others from taking one until he has committed.
    /// A batch that is there already, from a commit whose answer was lost, stays as it is.
    pub fn add_audit(&self, tenant: &Tenant, batch: &SegmentId, new: &Segment) -> StoreResult<()> {
        let next = self.row(&NEXT_SEGMENT, &[Val::T(tenant.as_str())], |row| row.i(0))?;
        let values = [
            Val::T(tenant.as_str()),
            Val::I(next.unwrap_or_default()),
            Val::T(batch.as_str()),
            Val::I(new.from_at),
            Val::I(new.to_at),
            Val::I(new.count),
            Val::B(&new.records),
        ];
        self.execute(&ADD_SEGMENT, &values).map(drop)
    }

    /// Segments of the audit. Their sizes are looked at first, so that no more come into memory than were asked for.
    pub fn audit(&self, tenant: &Tenant, stretch: &Stretch) -> StoreResult<Found> {
        let (sizes, segments) = if stretch.forwards { (&SIZES, &SEGMENTS) } else { (&SIZES_BACK, &SEGMENTS_BACK) };
        let values = |limit| {
            let Stretch { from, since, until, .. } = *stretch;
            [Val::T(tenant.as_str()), Val::I(from), Val::I(since), Val::I(until), Val::I(limit)]
        };
        let sizes = self.rows(sizes, &values(stretch.limit), |row| row.i(0))?;
        let mut left = stretch.bytes;
        let fits = |size: &&i64| {
            left -= **size;
            left >= 0
        };
        let fitting = sizes.iter().take_while(fits).count().max(1).min(sizes.len());
        let (there, fitting) = (sizes.len() as i64, fitting as i64);
        let segments = self.rows(segments, &values(fitting), |row| {
            Ok((row.i(0)?, Segment { from_at: row.i(1)?, to_at: row.i(2)?, count: row.i(3)?, records: row.b(4)? }))
        })?;
        Ok(Found { segments, is_all: fitting == there && there < stretch.limit })
    }

    /// The number of the first segment with records since then.
    pub fn first_audit_since(&self, tenant: &Tenant, since: i64) -> StoreResult<Option<i64>> {
        Ok(self.row(&FIRST_SINCE, &[Val::T(tenant.as_str()), Val::I(since)], |row| row.opt_i(0))?.flatten())
    }

    /// Removes segments that are wholly from before `before`, at most `limit` of each tenant; answers how many.
    pub fn sweep_audit(&self, before: i64, limit: usize) -> StoreResult<usize> {
        let (mut removed, limit) = (0, i64::try_from(limit).unwrap_or(i64::MAX));
        for tenant in self.rows(&TENANTS, &[], |row| row.t(0))? {
            removed += self.execute(&SWEEP_AUDIT, &[Val::T(&tenant), Val::I(before), Val::I(limit)])?;
        }
        Ok(removed)
    }
}

fn read_happened(row: &Row<'_>) -> StoreResult<Happened> {
    let unreadable = |column| StoreError::Unreadable { table: "events", column };
    Ok(Happened {
        id: row.t(0)?.parse().map_err(|_| unreadable("id"))?,
        tenant: Tenant::from_stored(row.t(1)?),
        connection: row.t(2)?.parse().map_err(|_| unreadable("connection"))?,
        name: row.opt_t(3)?,
        at: row.i(4)?,
        kind: row.t(5)?,
        message: row.t(6)?,
    })
}
