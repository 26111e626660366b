//! A look of the scheduler at 1 thousand, 100 thousand and 1 million stored connections.

use std::time::{Duration, Instant};

use keyholder_broker::clock::Clock;
use keyholder_broker::points::Points;
use keyholder_broker::store::{Location, Store};

use crate::app::{App, START};

/// Token endpoints among which the connections are spread.
const ENDPOINTS: i64 = 50;

/// What a look reads: what is due soonest, and when the next one is; where it is full, endpoint by endpoint.
async fn look(store: &Store, now: i64) -> usize {
    store
        .read(move |tx| {
            let due = tx.due(now, 512)?;
            tx.next_due(now)?;
            if due.len() < 512 {
                return Ok(due.len());
            }
            let endpoints = tx.due_endpoints("", 500)?;
            let of_each = endpoints.iter().filter(|(_, due)| due.is_some_and(|at| at <= now));
            of_each.map(|(endpoint, _)| Ok(tx.due_at(endpoint, now, 33)?.len())).sum()
        })
        .await
        .unwrap()
}

/// The middle of many looks.
#[expect(clippy::disallowed_methods, reason = "it measures")]
async fn measured(store: &Store) -> Duration {
    let mut took = Vec::new();
    for _ in 0..51 {
        let begun = Instant::now();
        look(store, START).await;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    took[took.len() / 2]
}

#[tokio::test]
#[ignore = "stores a million rows; `make scale`"]
async fn a_look_costs_what_is_due_not_what_is_stored() {
    let app = App::start().await;
    app.machine("crm").await;
    let location = Location::Sqlite(app.folder.path().join("keyholder.db"));
    let store = Store::open(&location, Clock::Manual(app.clock.clone()), Points::default()).unwrap();
    let sql = rusqlite::Connection::open(app.folder.path().join("keyholder.db")).unwrap();
    let mut of_a_thousand = [Duration::ZERO; 3];
    let mut stored = 1_i64;
    for wanted in [1_000_i64, 100_000, 1_000_000] {
        sql
            .execute(
                "WITH RECURSIVE n (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < ?2) \
                INSERT INTO connections (id, tenant, name, integration, tags, variables, state, generation, endpoint, due_at, failures_setup, failures_grant, \
                failures_transient, created_at, updated_at) \
                SELECT printf('con_%026d', n), tenant, printf('c-%d', n), integration, '{}', '{}', 'connected', 1, printf('https://%d.example/token', n % ?3), \
                ?4 + 1000 * n, 0, 0, 0, 0, 0 FROM n, connections WHERE name = 'crm'",
                rusqlite::params![stored, wanted, ENDPOINTS, START + 3_600_000],
            )
            .unwrap();
        stored = wanted;
        for (at, due) in [0_i64, 10, 10_000].into_iter().enumerate() {
            let due = due.min(stored - 1);
            let begin = rusqlite::params![START - 1, due];
            sql.execute(
                "UPDATE connections SET due_at = ?1 WHERE substr(id, 5) * 1 BETWEEN 1 AND ?2 AND name LIKE 'c-%'",
                begin,
            )
            .unwrap();
            let found = look(&store, START).await;
            assert_eq!(found > 0, due > 0);
            let took = measured(&store).await;
            if stored == 1_000 {
                of_a_thousand[at] = took;
            }
            let ratio = took.as_secs_f64() / of_a_thousand[at].as_secs_f64();
            println!("{stored:>9} stored, {due:>6} due: {took:>10.1?} a look, {ratio:.2} x that at 1,000 stored");
            sql.execute("UPDATE connections SET due_at = ?1 + 1000 WHERE due_at < ?1", [START + 3_600_000]).unwrap();
        }
    }
}
