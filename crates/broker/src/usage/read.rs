//! Usage, summed up.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::HOUR_MS;
use crate::audit::READERS_WAIT;
use crate::error::{Result, invalid};
use crate::manage::Page;
use crate::model::Caller;
use crate::open::Broker;
use crate::store::{Figures, TOOK, Tx, UsageGroup, UsageSpan};

/// What can be asked for: from a day before 1970, where a day up to its beginning begins, to the end of 9999.
const TIMES: RangeInclusive<i64> = -24 * HOUR_MS..=253_402_300_799_999;

/// Which figures.
#[derive(Clone, Debug, Default)]
pub struct UsageFilter {
    /// From the hour of this time on, Unix milliseconds.
    pub from: i64,
    /// Up to and with the hour of this time.
    pub to: i64,
    /// Only of this connection, by name or id.
    pub connection: Option<String>,
    /// Only of this key, by name or id.
    pub caller: Option<String>,
    /// Only of this data source, by id.
    pub source: Option<String>,
}

/// Figures, and what they are of.
#[derive(Clone, Debug)]
pub struct UsageLine {
    /// A connection's, a key's or a data source's id, empty for what had none; or the beginning of an hour, Unix milliseconds.
    pub of: String,
    /// The name of what it is, where it is still there.
    pub name: Option<String>,
    /// The sums.
    pub figures: Figures,
}

/// A part of a summary.
#[derive(Clone, Debug)]
pub struct UsagePage {
    /// From when on, Unix milliseconds: a whole hour.
    pub from: i64,
    /// Up to when: a whole hour.
    pub to: i64,
    /// In the order of their ids, or of the hours.
    pub lines: Vec<UsageLine>,
}

impl Broker {
    /// Sums up what was used.
    pub async fn usage(&self, caller: &Caller, filter: UsageFilter, by: UsageGroup, page: &Page) -> Result<UsagePage> {
        for (field, at) in [("to", filter.to), ("from", filter.from)] {
            if !TIMES.contains(&at) {
                let remedy = "give a time between the years 1970 and 9999, in Unix milliseconds";
                return Err(invalid(field, "nothing was used then", remedy));
            }
        }
        if filter.from > filter.to {
            return Err(invalid("from", "it lies behind `to`", "give an earlier time, in Unix milliseconds"));
        }
        self.clock.timeout(READERS_WAIT, self.usage.flush()).await;
        let (tenant, page) = (caller.tenant.clone(), page.clone());
        let after = match by {
            UsageGroup::Hour if !page.after.is_empty() => {
                let bad = |_| invalid("after", "it is no cursor of this list", "give the `next` of the page before");
                page.after.parse::<i64>().map_err(bad)?.div_euclid(HOUR_MS).to_string()
            }
            _ => page.after,
        };
        let read = move |tx: &Tx<'_>| {
            // What is gone is still named by its id.
            let or_given = |given: &Option<String>, found: Option<String>| {
                found.unwrap_or_else(|| given.clone().unwrap_or_default())
            };
            let connection = match &filter.connection {
                Some(named) => tx.connection(&tenant, named)?.map(|row| row.id.to_string()),
                None => None,
            };
            let key = match &filter.caller {
                Some(named) => tx.key(&tenant, named)?.map(|key| key.caller.key.to_string()),
                None => None,
            };
            let span = UsageSpan {
                from: filter.from.div_euclid(HOUR_MS),
                to: filter.to.div_euclid(HOUR_MS) + 1,
                connection: or_given(&filter.connection, connection),
                caller: or_given(&filter.caller, key),
                source: filter.source.clone().unwrap_or_default(),
            };
            let sums = tx.usage(&tenant, &span, by, &after, page.limit)?;
            let mut names = HashMap::new();
            for (of, _) in &sums {
                let name = match by {
                    UsageGroup::Connection => tx.connection(&tenant, of)?.map(|row| row.name),
                    UsageGroup::Caller => match tx.key(&tenant, of)? {
                        Some(key) => Some(key.caller.name),
                        None => tx.operator_name(&tenant, of)?,
                    },
                    UsageGroup::Source | UsageGroup::Hour => None,
                };
                names.extend(name.map(|name| (of.clone(), name)));
            }
            Ok((span, sums, names))
        };
        let (span, sums, mut names) = self.store.read(read).await?;
        let line = |(of, figures): (String, Figures)| {
            let name = names.remove(&of);
            let hour = of.parse::<i64>().ok().filter(|_| by == UsageGroup::Hour);
            UsageLine { of: hour.map_or(of, |hour| (hour * HOUR_MS).to_string()), name, figures }
        };
        let lines = sums.into_iter().map(line).collect();
        Ok(UsagePage { from: span.from * HOUR_MS, to: span.to * HOUR_MS, lines })
    }
}

impl Figures {
    /// In how many milliseconds so many of a hundred calls had their reply's head, as far as the sorting tells: within a part it is taken as even. `None`
    /// without calls; the longest part counts as its beginning.
    pub fn took_ms(&self, percent: u32) -> Option<f64> {
        let wanted = self.calls as f64 * f64::from(percent) / 100.0;
        let mut before = 0.0;
        for (part, calls) in self.took.iter().enumerate() {
            let calls = *calls as f64;
            if calls > 0.0 && before + calls >= wanted {
                let from = if part == 0 { 0.0 } else { f64::from(1 << (part - 1)) };
                let width = if part == 0 {
                    1.0
                } else if part == TOOK - 1 {
                    0.0
                } else {
                    from
                };
                return Some(from + width * (wanted - before) / calls);
            }
            before += calls;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_within_their_part() {
        let mut figures = Figures { calls: 100, ..Figures::default() };
        figures.took[2] = 90;
        figures.took[15] = 10;
        assert_eq!(figures.took_ms(45), Some(3.0));
        assert_eq!(figures.took_ms(90), Some(4.0));
        assert_eq!(figures.took_ms(99), Some(16384.0));
        assert_eq!(Figures::default().took_ms(50), None);
    }
}
