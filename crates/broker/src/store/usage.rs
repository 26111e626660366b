//! How often what was used, hour by hour.

use super::{Row, StoreResult, Tx, Val, sql};
use crate::model::{ConnectionId, KeyId, SourceId, Tenant};

/// Into how many parts the time that calls took is sorted: up to 1 ms, 2, 4, … 16,384 ms, and longer.
pub const TOOK: usize = 16;

/// Counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Tokens handed out.
    pub hand_outs: i64,
    /// Calls to the API.
    pub calls: i64,
    /// Renewals.
    pub renewals: i64,
    /// Renewals that failed.
    pub failed_renewals: i64,
    /// Calls that the API answered with 400 to 499.
    pub client_errors: i64,
    /// With 500 and above.
    pub server_errors: i64,
    /// Calls that the API didn't answer, or not to the end.
    pub own_errors: i64,
    /// Bytes of the requests' bodies.
    pub sent: i64,
    /// Bytes of the replies' bodies.
    pub received: i64,
    /// How many calls took how long until the reply's head.
    pub took: [i64; TOOK],
}

/// What is to be added to an hour.
#[derive(Clone, Debug)]
pub struct UsageRow {
    /// Hours since 1970.
    pub hour: i64,
    /// Whose.
    pub tenant: Tenant,
    /// By which key; `None`: Keyholder itself.
    pub caller: Option<KeyId>,
    /// Of which connection.
    pub connection: ConnectionId,
    /// By which data source.
    pub source: Option<SourceId>,
    /// How much.
    pub figures: Figures,
}

/// What figures are summed up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageGroup {
    /// Connections.
    Connection,
    /// Keys.
    Caller,
    /// Data sources.
    Source,
    /// Hours.
    Hour,
}

/// Which figures are summed up.
#[derive(Clone, Debug)]
pub struct UsageSpan {
    /// First hour since 1970.
    pub from: i64,
    /// The hour behind the last.
    pub to: i64,
    /// Only this connection; empty: all.
    pub connection: String,
    /// Only this key; empty: all.
    pub caller: String,
    /// Only this data source; empty: all.
    pub source: String,
}

/// The columns that hold figures, in the order of [`Figures`].
macro_rules! figures {
    ($($column:literal),*) => {
        /// As an INSERT names them.
        macro_rules! columns { () => { concat!($(", ", $column),*) }; }
        /// As they are added up.
        macro_rules! sums { () => { concat!($(", CAST(sum(", $column, ") AS BIGINT)"),*) }; }
        /// As an upsert adds to them.
        macro_rules! added { () => { concat!("hour = excluded.hour" $(, ", ", $column, " = usage.", $column, " + excluded.", $column)*) }; }
    };
}
figures!(
    "hand_outs",
    "calls",
    "renewals",
    "failed_renewals",
    "client_errors",
    "server_errors",
    "own_errors",
    "sent",
    "received",
    "took_1",
    "took_2",
    "took_4",
    "took_8",
    "took_16",
    "took_32",
    "took_64",
    "took_128",
    "took_256",
    "took_512",
    "took_1024",
    "took_2048",
    "took_4096",
    "took_8192",
    "took_16384",
    "took_longer"
);

/// Sums by a column, those behind a cursor.
macro_rules! by {
    ($column:literal) => {
        concat!(
            "SELECT ", $column, sums!(), " FROM usage WHERE hour >= ?1 AND hour < ?2 AND tenant = ?3 \
             AND (?4 = '' OR connection = ?4) AND (?5 = '' OR caller = ?5) AND (?6 = '' OR source = ?6) AND (?8 = 0 OR ", $column, " > ?7) GROUP BY ", $column, " ORDER BY ", $column, " LIMIT ?9"
        )
    };
}

sql! {
    ADD_USAGE = concat!("INSERT INTO usage (hour, tenant, connection, caller, source", columns!(), ") \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30) \
        ON CONFLICT (hour, tenant, connection, caller, source) DO UPDATE SET ", added!());
    BY_CONNECTION = by!("connection");
    BY_CALLER = by!("caller");
    BY_SOURCE = by!("source");
    BY_HOUR = by!("hour");
    SWEEP_USAGE = "DELETE FROM usage WHERE hour = (SELECT min(hour) FROM usage) AND hour < ?1";
}

impl Tx<'_> {
    /// Adds to the hours' rows.
    pub fn add_usage(&self, rows: &[UsageRow]) -> StoreResult<()> {
        let values = rows.iter().map(|row| {
            let texts = [
                row.tenant.as_str(),
                row.connection.as_str(),
                row.caller.as_ref().map_or("", |caller| caller.as_str()),
                row.source.as_ref().map_or("", |source| source.as_str()),
            ];
            let figures = row.figures.columns().into_iter().map(Val::I);
            [Val::I(row.hour)].into_iter().chain(texts.map(Val::T)).chain(figures).collect()
        });
        self.execute_each(&ADD_USAGE, values)
    }

    /// Sums, each with what it is of, in the order of that.
    pub fn usage(
        &self,
        tenant: &Tenant,
        span: &UsageSpan,
        by: UsageGroup,
        after: &str,
        limit: i64,
    ) -> StoreResult<Vec<(String, Figures)>> {
        let sql = match by {
            UsageGroup::Connection => &BY_CONNECTION,
            UsageGroup::Caller => &BY_CALLER,
            UsageGroup::Source => &BY_SOURCE,
            UsageGroup::Hour => &BY_HOUR,
        };
        // What has no source or caller stands first, under an empty text.
        let is_behind = Val::I(i64::from(!after.is_empty()));
        let after = if by == UsageGroup::Hour { Val::I(after.parse().unwrap_or(0)) } else { Val::T(after) };
        let values = [
            Val::I(span.from),
            Val::I(span.to),
            Val::T(tenant.as_str()),
            Val::T(&span.connection),
            Val::T(&span.caller),
            Val::T(&span.source),
            after,
            is_behind,
            Val::I(limit),
        ];
        self.rows(sql, &values, |row| {
            let of = if by == UsageGroup::Hour { row.i(0)?.to_string() } else { row.t(0)? };
            Ok((of, Figures::read(row)?))
        })
    }

    /// Removes the oldest hour that is before `before`.
    pub fn sweep_usage(&self, before: i64) -> StoreResult<()> {
        self.execute(&SWEEP_USAGE, &[Val::I(before)]).map(drop)
    }
}

/// The columns, in the order of the statements.
const COUNTS: usize = 9;

impl Figures {
    fn columns(&self) -> [i64; COUNTS + TOOK] {
        let counts = [
            self.hand_outs,
            self.calls,
            self.renewals,
            self.failed_renewals,
            self.client_errors,
            self.server_errors,
            self.own_errors,
            self.sent,
            self.received,
        ];
        std::array::from_fn(|place| counts.get(place).copied().unwrap_or_else(|| self.took[place - COUNTS]))
    }

    /// From the columns behind the first.
    fn read(row: &Row<'_>) -> StoreResult<Self> {
        let mut took = [0; TOOK];
        for (place, took) in took.iter_mut().enumerate() {
            *took = row.i(1 + COUNTS + place)?;
        }
        Ok(Self {
            hand_outs: row.i(1)?,
            calls: row.i(2)?,
            renewals: row.i(3)?,
            failed_renewals: row.i(4)?,
            client_errors: row.i(5)?,
            server_errors: row.i(6)?,
            own_errors: row.i(7)?,
            sent: row.i(8)?,
            received: row.i(9)?,
            took,
        })
    }
}
