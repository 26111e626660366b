//! The decisions, moment by moment; then who waits for them.

use super::gate::*;
use super::*;
use crate::clock::ManualClock;
use futures_util::FutureExt as _;

const NOW: i64 = 1_790_000_000_000;
const URL: &str = "https://provider.example/token";

fn gate() -> Gate {
    Gate::new(Pace { at_once: 8, per_second: 1_000_000 })
}

fn go(gate: &mut Gate, urgency: Urgency, now: i64) -> Admitted {
    match gate.admit(urgency, now) {
        Decision::Go(admitted) => admitted,
        other => panic!("{urgency:?} at {}: {other:?}", now - NOW),
    }
}

/// A gate that opened at [`NOW`] for its first wait of 1 s.
fn open_gate() -> Gate {
    let mut gate = gate();
    for _ in 0..FAILURES {
        let admitted = go(&mut gate, Urgency::Reader, NOW);
        gate.failed(admitted, None, NOW, 1.0);
    }
    gate
}

fn closed(until: i64) -> Decision {
    Decision::Closed(Closed { until, since: NOW })
}

#[test]
fn failures_in_a_row_open_the_circuit_and_an_answer_between_them_does_not_let_them_add_up() {
    let mut gate = gate();
    for round in 0..3 {
        for _ in 1..FAILURES {
            let admitted = go(&mut gate, Urgency::Background, NOW + round);
            gate.failed(admitted, None, NOW, 0.0);
        }
        let admitted = go(&mut gate, Urgency::Background, NOW + round);
        gate.answered(admitted);
    }
    assert!(!gate.is_open());
    let gate = &mut open_gate();
    assert_eq!(gate.admit(Urgency::Reader, NOW + 999), closed(NOW + 1000));
    assert_eq!(gate.admit(Urgency::Background, NOW), closed(NOW + 1000));
}

#[test]
fn what_the_provider_asks_for_opens_it_at_once_and_for_long_when_it_asks_again() {
    for (asked, first, then) in [(1, 1000, 2000), (30, 30_000, 30_000), (100 * 3600, 60_000, 24 * 3_600_000)] {
        let mut gate = gate();
        let asked = Some(Duration::from_secs(asked));
        let admitted = go(&mut gate, Urgency::Background, NOW);
        gate.failed(admitted, asked, NOW, 1.0);
        assert_eq!(gate.admit(Urgency::Reader, NOW), closed(NOW + first));
        let probe = go(&mut gate, Urgency::Reader, NOW + first);
        gate.failed(probe, asked, NOW + first, 1.0);
        assert_eq!(gate.admit(Urgency::Reader, NOW + first), closed(NOW + first + then));
    }
    let mut gate = gate();
    let admitted = go(&mut gate, Urgency::Background, NOW);
    gate.failed(admitted, Some(Duration::ZERO), NOW, 1.0);
    assert!(!gate.is_open(), "no wait was asked for");
}

#[test]
fn each_probe_that_fails_doubles_the_wait_up_to_a_minute() {
    let mut gate = open_gate();
    let mut now = NOW + 1000;
    for wait in [2, 4, 8, 16, 32, 60, 60, 60] {
        let probe = go(&mut gate, Urgency::Background, now);
        assert!(probe.is_probe);
        assert!(matches!(gate.admit(Urgency::Background, now), Decision::Closed(_)), "one probe only");
        assert_eq!(gate.admit(Urgency::Reader, now), Decision::Wait, "its outcome is waited for");
        gate.failed(probe, None, now, 1.0);
        assert_eq!(gate.admit(Urgency::Reader, now + wait * 1000 - 1), closed(now + wait * 1000));
        now += wait * 1000;
    }
    let probe = go(&mut gate, Urgency::Background, now);
    gate.failed(probe, None, now, 0.0);
    assert_eq!(gate.room(now), Room::Closed(now + 30_000), "half of it, by chance");
}

#[test]
fn a_probe_that_says_nothing_makes_room_for_the_next() {
    let mut gate = open_gate();
    let probe = go(&mut gate, Urgency::Background, NOW + 1000);
    gate.left(probe);
    assert!(go(&mut gate, Urgency::Background, NOW + 1000).is_probe);
}

#[test]
fn after_an_outage_places_come_back_with_the_answers() {
    let mut gate = open_gate();
    let probe = go(&mut gate, Urgency::Background, NOW + 1000);
    gate.answered(probe);
    for places in [1, 2, 4, 8, 8] {
        assert_eq!(gate.room(NOW + 1000), Room::Free(places));
        let round: Vec<_> = (0..places).map(|_| go(&mut gate, Urgency::Reader, NOW + 1000)).collect();
        assert_eq!(gate.admit(Urgency::Reader, NOW + 1000), Decision::Wait);
        round.into_iter().for_each(|admitted| gate.answered(admitted));
    }
    assert_eq!(gate.setbacks, 0);
}

#[test]
fn a_relapse_opens_it_sooner_and_for_longer() {
    let mut gate = open_gate();
    let probe = go(&mut gate, Urgency::Background, NOW + 1000);
    gate.answered(probe);
    let admitted = go(&mut gate, Urgency::Background, NOW + 1000);
    gate.failed(admitted, None, NOW + 1000, 1.0);
    assert_eq!(gate.room(NOW + 1000), Room::Closed(NOW + 3000), "one failure, two seconds");
}

#[test]
fn a_person_passes_and_a_failure_of_theirs_changes_nothing() {
    let mut gate = open_gate();
    let person = go(&mut gate, Urgency::Person, NOW);
    gate.failed(person, None, NOW, 1.0);
    assert_eq!(gate.admit(Urgency::Reader, NOW), closed(NOW + 1000));
    let person = go(&mut gate, Urgency::Person, NOW);
    gate.failed(person, Some(Duration::from_secs(7)), NOW, 1.0);
    assert_eq!(gate.admit(Urgency::Reader, NOW), closed(NOW + 7000));
    let person = go(&mut gate, Urgency::Person, NOW);
    gate.answered(person);
    assert_eq!(gate.room(NOW), Room::Free(1));
}

#[test]
fn who_asked_before_the_opening_says_nothing_about_the_time_after() {
    let mut gate = gate();
    let early: Vec<_> = (0..8).map(|_| go(&mut gate, Urgency::Background, NOW)).collect();
    for admitted in &early[..6] {
        gate.failed(*admitted, None, NOW, 1.0);
    }
    assert_eq!(gate.room(NOW), Room::Closed(NOW + 1000), "the sixth doesn't lengthen it");
    gate.answered(early[6]);
    assert_eq!(gate.room(NOW), Room::Closed(NOW + 1000));
    gate.failed(early[7], Some(Duration::from_secs(5)), NOW, 1.0);
    assert_eq!(gate.room(NOW), Room::Closed(NOW + 5000));
    assert_eq!(gate.in_flight, 0);
}

#[test]
fn the_rate_is_kept_beyond_a_burst() {
    let mut gate = Gate::new(Pace { at_once: usize::MAX, per_second: 10 });
    let waits: Vec<_> = (0..25).map(|_| go(&mut gate, Urgency::Reader, NOW).wait.as_millis()).collect();
    assert!(waits[..=20].iter().all(|wait| *wait == 0), "{waits:?}");
    assert_eq!(waits[21..], [100, 200, 300, 400]);
    assert_eq!(go(&mut gate, Urgency::Reader, NOW + 400).wait.as_millis(), 100);
    assert_eq!(go(&mut gate, Urgency::Reader, NOW + 3_600_000).wait, Duration::ZERO);
}

#[test]
fn a_clock_that_jumps_holds_nothing_up() {
    let mut gate = open_gate();
    let before = NOW - 86_400_000;
    assert_eq!(gate.room(before), Room::Closed(before + 1000));
    assert!(
        matches!(gate.admit(Urgency::Reader, before), Decision::Closed(Closed { until, .. }) if until == before + 1000)
    );
    assert!(go(&mut gate, Urgency::Reader, before + 1000).is_probe);

    let mut gate = Gate::new(Pace { at_once: 4, per_second: 10 });
    let admitted: Vec<_> = (0..4).map(|_| go(&mut gate, Urgency::Reader, NOW)).collect();
    admitted.into_iter().for_each(|admitted| gate.answered(admitted));
    assert!(go(&mut gate, Urgency::Reader, before).wait <= Duration::from_millis(400));

    let mut gate = open_gate();
    assert!(go(&mut gate, Urgency::Background, NOW + 86_400_000).is_probe);
}

struct Bench {
    endpoints: Endpoints,
    manual: ManualClock,
    clock: Clock,
    rng: Rng,
}

impl Bench {
    fn new(at_once: usize, per_second: u32) -> Self {
        let manual = ManualClock::starting_at(NOW);
        let clock = Clock::Manual(manual.clone());
        Self { endpoints: Endpoints::new(Pace { at_once, per_second }), manual, clock, rng: Rng::seeded(1) }
    }

    fn enter(&self, urgency: Urgency) -> impl Future<Output = Result<Pass, Closed>> {
        Box::pin(self.endpoints.enter(&self.clock, &self.rng, URL, urgency))
    }

    fn pass(&self, urgency: Urgency) -> Pass {
        self.enter(urgency).now_or_never().unwrap().ok().unwrap()
    }

    fn room(&self) -> Room {
        self.endpoints.room(URL, self.clock.now_ms(), 0)
    }
}

#[test]
fn places_go_to_persons_then_readers_then_background_each_in_the_order_they_came() {
    let bench = Bench::new(1, 1_000_000);
    let mut held = bench.pass(Urgency::Background);
    let order = [Urgency::Background, Urgency::Reader, Urgency::Background, Urgency::Person, Urgency::Reader];
    let mut waiting: Vec<_> = order.map(|urgency| bench.enter(urgency)).into_iter().map(Some).collect();
    for one in waiting.iter_mut().flatten() {
        assert!(one.now_or_never().is_none());
    }
    for next in [3, 1, 4, 0, 2] {
        held.answered();
        let mut ready = Vec::new();
        for (at, one) in waiting.iter_mut().enumerate() {
            ready.extend(one.as_mut().and_then(|one| one.now_or_never()).map(|pass| (at, pass)));
        }
        let (at, pass) = ready.pop().unwrap();
        assert_eq!((at, ready.len()), (next, 0));
        held = pass.ok().unwrap();
        waiting[at] = None;
    }
}

#[test]
fn who_goes_away_gives_the_place_back_whether_still_waiting_or_just_admitted() {
    let bench = Bench::new(1, 1_000_000);
    let held = bench.pass(Urgency::Reader);
    let (mut first, mut second, mut third) =
        (bench.enter(Urgency::Reader), bench.enter(Urgency::Reader), bench.enter(Urgency::Reader));
    for waiting in [&mut first, &mut second, &mut third] {
        assert!(waiting.now_or_never().is_none());
    }
    drop(second);
    drop(held);
    // Admitted, but it never looked.
    drop(first);
    let held = third.now_or_never().unwrap().ok().unwrap();
    assert_eq!(bench.room(), Room::Free(0));
    drop(held);
    assert_eq!(bench.room(), Room::Free(1));
}

#[test]
fn who_waits_for_the_rate_holds_a_place_and_gives_it_back() {
    let bench = Bench::new(8, 1);
    for _ in 0..3 {
        bench.pass(Urgency::Reader).answered();
    }
    let mut late = bench.enter(Urgency::Reader);
    assert!((&mut late).now_or_never().is_none());
    assert_eq!(bench.room(), Room::Free(7));
    bench.manual.advance(Duration::from_secs(1));
    late.now_or_never().unwrap().ok().unwrap().answered();
    let mut cancelled = bench.enter(Urgency::Reader);
    assert!((&mut cancelled).now_or_never().is_none());
    drop(cancelled);
    assert_eq!(bench.room(), Room::Free(8));
}

#[test]
fn who_waits_when_the_circuit_opens_is_told_so_but_a_person_goes() {
    let bench = Bench::new(1, 1_000_000);
    for _ in 1..FAILURES {
        bench.pass(Urgency::Background).failed(None);
    }
    let held = bench.pass(Urgency::Background);
    let (mut reader, mut person) = (bench.enter(Urgency::Reader), bench.enter(Urgency::Person));
    assert!((&mut reader).now_or_never().is_none() && (&mut person).now_or_never().is_none());
    held.failed(None);
    assert!(person.now_or_never().is_some_and(|pass| pass.is_ok()));
    let closed = reader.now_or_never().unwrap().err().unwrap();
    assert_eq!((closed.since, bench.endpoints.down(NOW)), (NOW, vec![(URL.to_owned(), closed)]));
}

#[test]
fn readers_wait_for_a_probe_and_one_of_them_is_the_next() {
    let bench = Bench::new(8, 1_000_000);
    for _ in 0..FAILURES {
        bench.pass(Urgency::Reader).failed(None);
    }
    bench.manual.advance(Duration::from_secs(1));
    let probe = bench.pass(Urgency::Background);
    let mut readers: Vec<_> = (0..3).map(|_| bench.enter(Urgency::Reader)).collect();
    assert!(readers.iter_mut().all(|reader| reader.now_or_never().is_none()));
    drop(probe);
    let probe = readers.remove(0).now_or_never().unwrap().ok().unwrap();
    assert!(readers.iter_mut().all(|reader| reader.now_or_never().is_none()));
    probe.failed(None);
    assert!(readers.iter_mut().all(|reader| reader.now_or_never().unwrap().is_err()));
}

#[test]
fn idle_endpoints_are_forgotten_and_those_in_use_are_not() {
    let bench = Bench::new(8, 20);
    let held = bench.pass(Urgency::Reader);
    for n in 0..10_000 {
        let name = format!("https://{n}.example/token");
        let pass = bench.endpoints.enter(&bench.clock, &bench.rng, &name, Urgency::Reader);
        pass.now_or_never().unwrap().ok().unwrap().answered();
        bench.manual.advance(Duration::from_millis(100));
    }
    assert!(bench.endpoints.lock().endpoints.len() <= 2 * KEPT);
    assert_eq!(bench.room(), Room::Free(7));
    drop(held);
}
