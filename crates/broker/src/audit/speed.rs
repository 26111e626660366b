//! What a record costs, on the caller's side and in all: `cargo test --release --lib -p keyholder-broker --config
//! 'profile.release.package.keyholder-broker.debug-assertions=true' -- --ignored --nocapture audit::speed`.

use std::time::Duration;

use super::*;
use crate::model::{Limits, Scope};
use crate::points::Points;
use crate::store::Location;
use crate::usage::{CallEnd, Called, Usage};

const ROUNDS: usize = 400;

/// CPU time of the process so far, in hundredths of a second as the kernel counts.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<u64> =
        stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2).map(|field| field.parse().unwrap()).collect();
    Duration::from_millis(10 * fields.iter().sum::<u64>())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn of_a_record() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, rng) = (Clock::System, Rng::System);
    let location = Location::Sqlite(folder.path().join("k.db"));
    let store = Store::open(&location, clock.clone(), Points::default()).unwrap();
    let audit = AuditLog::start(store.clone(), clock.clone(), rng.clone());
    let usage = Usage::start(store.clone(), clock.clone(), rng.clone(), audit.gate(), "speed".to_owned());
    let caller = Arc::new(Caller {
        key: KeyId::new(&clock, &rng),
        name: "production-app".to_owned(),
        tenant: Tenant::default_tenant(),
        scopes: [Scope::Call].into(),
        limits: Limits::default(),
        expires_at: None,
    });
    let connections: Vec<_> = (0..100).map(|_| ConnectionId::new(&clock, &rng)).collect();
    let of = |round: usize, at: usize| &connections[(round * 7 + at) % connections.len()];
    let told = |what: &str, count: usize, spent: Duration, cpu: Duration| {
        let each = |spent: Duration| spent.as_nanos() / count as u128;
        println!("{what}: {count} of them, {} ns at the caller, {} ns of CPU in all", each(spent), each(cpu));
    };

    let (mut spent, began) = (Duration::ZERO, cpu());
    for round in 0..ROUNDS {
        let moment = clock.moment();
        for at in 0..SEGMENT {
            let path = "/v3/contacts/1234567";
            let host = "api.example.com";
            let call = CallRecord { connection: of(round, at), source: None, method: &Method::GET, host, path };
            audit.record_call(clock.now_ms(), &caller, call).await.unwrap();
        }
        spent += clock.since(moment);
        audit.flush().await;
    }
    told("calls on the record", ROUNDS * SEGMENT, spent, cpu() - began);
    let size = std::fs::metadata(folder.path().join("k.db")).unwrap().len();
    println!("{} bytes each", size / (ROUNDS * SEGMENT) as u64);

    let (mut spent, began) = (Duration::ZERO, cpu());
    for round in 0..ROUNDS {
        let moment = clock.moment();
        for at in 0..SEGMENT {
            audit.record_token(clock.now_ms(), &caller, of(round, at), None).await.unwrap();
        }
        spent += clock.since(moment);
        audit.flush().await;
    }
    told("hand-outs on the record", ROUNDS * SEGMENT, spent, cpu() - began);

    let (moment, began) = (clock.moment(), cpu());
    for at in 0..ROUNDS * SEGMENT {
        let took = Duration::from_micros(at as u64 % 50_000);
        let call = Called { end: CallEnd::Answered(200), sent: 0, received: 1234, took };
        usage.called(clock.now_ms(), &caller, of(0, at), None, &call);
    }
    let spent = clock.since(moment);
    usage.flush().await;
    told("calls counted", ROUNDS * SEGMENT, spent, cpu() - began);
}
