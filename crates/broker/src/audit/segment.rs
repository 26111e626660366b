//! Records as bytes, many in one row.
//!
//! A format byte, then the records. A record is its time as the difference to the one before (for the first one: to 1970), then key, actor, action, object and outcome, then the
//! detail. A text that comes often stands where it comes first, as `0`, length, bytes; from then on the how-many-eth of these it was stands for it. Numbers are LEB128, those that may be negative in zigzag.

use std::collections::HashMap;

use super::{Record, What, Who};
use crate::model::Tenant;
use crate::store::Segment;

const FORMAT: u8 = 1;

/// What stands before a detail.
const NO_DETAIL: u8 = 0;
const TEXT: u8 = 1;
const CALL: u8 = 2;
const SECONDARY: u8 = 3;

/// The fields of a record whose text is likely that of the record before.
const MEMORABLE: usize = 8;

/// A record as it is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read<'a> {
    /// Unix milliseconds.
    pub(super) at: i64,
    /// Id of the key; empty for a person.
    pub(super) key: &'a str,
    pub(super) actor: &'a str,
    pub(super) action: &'a str,
    pub(super) object: &'a str,
    pub(super) outcome: &'a str,
    pub(super) detail: Detail<'a>,
}

/// More of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail<'a> {
    None,
    Text(&'a str),
    /// A call; `source` is empty where it went by no data source.
    Call {
        source: &'a str,
        method: &'a str,
        host: &'a str,
        path: &'a str,
    },
    /// The name of a secondary token.
    Secondary(&'a str),
}

/// The records of a batch, a segment for each tenant.
pub(super) fn of(records: &[Record]) -> Vec<(&Tenant, Segment)> {
    let mut writers: Vec<(&Tenant, Writer<'_>)> = Vec::new();
    for record in records {
        let tenant = record.tenant();
        let known = writers.iter().position(|(known, _)| *known == tenant);
        let place = known.unwrap_or_else(|| {
            writers.push((tenant, Writer::new(record.at, records.len())));
            writers.len() - 1
        });
        writers[place].1.record(&record.view());
    }
    writers.into_iter().map(|(tenant, writer)| (tenant, writer.segment)).collect()
}

impl Record {
    fn view(&self) -> Read<'_> {
        let (key, actor) = match &self.who {
            Who::Caller(caller) => (caller.key.as_str(), caller.name.as_str()),
            Who::Named(named) => (named.key.as_ref().map_or("", |key| key.as_str()), named.name.as_str()),
        };
        let (action, object, outcome, detail) = match &self.what {
            What::Token { connection, secondary } => {
                let detail = secondary.as_deref().map_or(Detail::None, Detail::Secondary);
                ("token.read", connection.as_str(), "ok", detail)
            }
            What::Call { connection, source, method, target } => {
                let (host, path) = target.parts();
                let source = source.as_ref().map_or("", |source| source.as_str());
                ("proxy.call", connection.as_str(), "ok", Detail::Call { source, method: method.as_str(), host, path })
            }
            What::Other(other) => {
                let detail = other.detail.as_deref().map_or(Detail::None, Detail::Text);
                (other.action, other.object.as_str(), other.outcome, detail)
            }
        };
        Read { at: self.at, key, actor, action, object, outcome, detail }
    }
}

struct Writer<'a> {
    segment: Segment,
    last_at: i64,
    /// Texts that were written, each with its number.
    known: HashMap<&'a str, u64>,
    /// The text that each field had last: mostly it has it again.
    last: [(&'a str, u64); MEMORABLE],
}

impl<'a> Writer<'a> {
    fn new(from_at: i64, expected: usize) -> Self {
        let mut records = Vec::with_capacity(64 + 40 * expected);
        records.push(FORMAT);
        let segment = Segment { from_at, to_at: from_at, count: 0, records };
        Self { segment, last_at: 0, known: HashMap::new(), last: [("", 0); MEMORABLE] }
    }

    fn record(&mut self, record: &Read<'a>) {
        let segment = &mut self.segment;
        segment.from_at = segment.from_at.min(record.at);
        segment.to_at = segment.to_at.max(record.at);
        segment.count += 1;
        let passed = record.at.wrapping_sub(self.last_at);
        self.last_at = record.at;
        self.number(((passed << 1) ^ (passed >> 63)).cast_unsigned());
        self.often(0, record.key);
        self.often(1, record.actor);
        self.often(2, record.action);
        self.often(3, record.object);
        self.often(4, record.outcome);
        match record.detail {
            Detail::None => self.segment.records.push(NO_DETAIL),
            Detail::Text(text) => {
                self.segment.records.push(TEXT);
                self.once(text);
            }
            Detail::Secondary(name) => {
                self.segment.records.push(SECONDARY);
                self.often(5, name);
            }
            Detail::Call { source, method, host, path } => {
                self.segment.records.push(CALL);
                self.often(5, source);
                self.often(6, method);
                self.often(7, host);
                self.once(path);
            }
        }
    }

    /// A text that may come again.
    fn often(&mut self, field: usize, text: &'a str) {
        let (last, number) = self.last[field];
        if number != 0 && last == text {
            return self.number(number);
        }
        let next = self.known.len() as u64 + 1;
        let number = *self.known.entry(text).or_insert(next);
        self.last[field] = (text, number);
        if number == next {
            self.number(0);
            self.once(text);
        } else {
            self.number(number);
        }
    }

    fn once(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.segment.records.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.segment.records.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.segment.records.push(number as u8);
    }
}

/// Reads a segment's records, in order. `None` in place of one: it can't be read, and so nothing behind it.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    at: i64,
    known: Vec<&'a str>,
    broken: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(segment: &'a Segment) -> Self {
        let (format, rest) = segment.records.split_first().unwrap_or((&0, &[]));
        Self { rest, at: 0, known: Vec::new(), broken: *format != FORMAT }
    }

    fn record(&mut self) -> Option<Read<'a>> {
        let passed = self.number()?;
        self.at = self.at.wrapping_add((passed >> 1).cast_signed() ^ -(passed & 1).cast_signed());
        let (key, actor) = (self.often()?, self.often()?);
        let (action, object, outcome) = (self.often()?, self.often()?, self.often()?);
        let detail = match self.byte()? {
            NO_DETAIL => Detail::None,
            TEXT => Detail::Text(self.once()?),
            SECONDARY => Detail::Secondary(self.often()?),
            CALL => {
                let (source, method, host) = (self.often()?, self.often()?, self.often()?);
                Detail::Call { source, method, host, path: self.once()? }
            }
            _ => return None,
        };
        Some(Read { at: self.at, key, actor, action, object, outcome, detail })
    }

    fn often(&mut self) -> Option<&'a str> {
        match usize::try_from(self.number()?).ok()?.checked_sub(1) {
            Some(place) => self.known.get(place).copied(),
            None => {
                let text = self.once()?;
                self.known.push(text);
                Some(text)
            }
        }
    }

    fn once(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        std::str::from_utf8(text).ok()
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for place in 0..10 {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Option<Read<'a>>;

    fn next(&mut self) -> Option<Option<Read<'a>>> {
        if self.broken {
            self.broken = false;
            self.rest = &[];
            return Some(None);
        }
        if self.rest.is_empty() {
            return None;
        }
        let record = self.record();
        if record.is_none() {
            self.rest = &[];
        }
        Some(record)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn written(records: &[Read<'_>]) -> Segment {
        let mut writer = Writer::new(records[0].at, records.len());
        records.iter().for_each(|record| writer.record(record));
        writer.segment
    }

    fn records() -> Vec<Read<'static>> {
        let call = |path| Detail::Call { source: "", method: "GET", host: "api.example.com", path };
        let read = |at, object, detail| Read {
            at,
            key: "key_1",
            actor: "app",
            action: "proxy.call",
            object,
            outcome: "ok",
            detail,
        };
        let person = Read {
            at: 1_800_000_000_000,
            key: "",
            actor: "person",
            action: "x",
            object: "",
            ..read(0, "", Detail::None)
        };
        vec![
            read(1_790_000_000_000, "con_1", call("/a")),
            read(1_790_000_000_000, "con_2", call("/ä?\0")),
            // The clock was set back.
            read(-1, "con_1", Detail::Text("limited to other methods")),
            read(i64::MAX, "con_1", Detail::Secondary("bot")),
            read(i64::MIN, "con_1", call("")),
            Read { detail: Detail::Text(""), ..person },
            person,
        ]
    }

    #[test]
    fn records_come_back_as_they_were() {
        let records = records();
        let segment = written(&records);
        assert_eq!((segment.count, segment.from_at, segment.to_at), (7, i64::MIN, i64::MAX));
        let read: Vec<_> = Reader::new(&segment).map(Option::unwrap).collect();
        assert_eq!(read, records);
    }

    #[test]
    fn what_comes_again_takes_a_byte() {
        let one = records()[0];
        let (few, more) = (written(&[one; 10]).records.len(), written(&[one; 110]).records.len());
        assert_eq!(
            more - few,
            100 * (1 + 5 + 1 + 3 + 3),
            "times, references, the kind of detail, references, the path"
        );
    }

    #[test]
    fn damage_is_told_and_never_more_than_that() {
        let whole = written(&records());
        for length in 0..whole.records.len() {
            let cut = Segment { records: whole.records[..length].to_vec(), ..whole.clone() };
            let read: Vec<_> = Reader::new(&cut).collect();
            let good = read.iter().flatten().count();
            assert!(good <= 7 && read.len() <= good + 1, "{length}");
            assert!(read.iter().flatten().eq(records()[..good].iter()), "{length}");
        }
        for place in 0..whole.records.len() {
            for bits in [0x01, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed.records[place] ^= bits;
                assert!(Reader::new(&changed).count() <= whole.records.len());
            }
        }
    }
}
