//! A machine with the process on it: its way to the database, the network and the disk, and how it dies.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, header};
use keyholder_oauth::SecretBytes;
use serde_json::json;
use tokio::sync::{Notify, oneshot};

use super::chaos::{Outage, Sabotage};
use super::provider::{Answer, Class};
use super::time::SimulatedClock;
use super::world::World;
use crate::egress::{EgressFault, Fetched};
use crate::store::{StoreError, StoreResult, Tx};

/// One life of the process on one machine.
pub(crate) struct Replica {
    world: Arc<World>,
    pub(super) machine: usize,
    pub(super) life: u32,
    alive: AtomicBool,
    pub(super) died: Notify,
    /// Since when it could work without hindrance; `None`: not yet.
    well_since: Mutex<Option<Duration>>,
}

/// What a dead process's blocking code ends with.
pub(super) struct Died;

/// What happens at a point.
enum Happens {
    Nothing,
    Fails,
    Dies,
    Halts(Duration, bool),
}

/// What becomes of a token request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Refused,
    LostBefore,
    Busy(u16),
    Broken(u16),
    LostAfter,
    Good,
}

/// A request that is in flight until the client has ended it. A dead client ends nothing.
struct InFlight<'a> {
    replica: &'a Replica,
    grant: usize,
    number: u64,
    place: usize,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.replica.is_alive() {
            self.replica.world.sent(self.grant, self.number, self.place);
        }
    }
}

impl Replica {
    pub(super) fn new(world: &Arc<World>, machine: usize, life: u32) -> Arc<Self> {
        let (alive, died, well_since) = (AtomicBool::new(true), Notify::new(), Mutex::new(None));
        Arc::new(Self { world: Arc::clone(world), machine, life, alive, died, well_since })
    }

    pub(super) fn clock(&self) -> &SimulatedClock {
        &self.world.clocks[self.machine]
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Nothing it does has an effect any more.
    pub(super) fn die(&self, why: &str) {
        if self.alive.swap(false, Ordering::Relaxed) {
            self.world.note(format_args!("{self} dies: {why}"));
            self.world.state().figures.crashes += 1;
            self.died.notify_one();
        }
    }

    pub(crate) fn sabotages(&self, rule: Sabotage) -> bool {
        self.life != 0 && self.world.chaos.sabotage == Some(rule)
    }

    /// It ends by itself.
    pub(super) fn give_up(&self) {
        self.alive.store(false, Ordering::Relaxed);
    }

    /// Since when nothing has kept it from working.
    pub(super) fn well_since(&self) -> Option<Duration> {
        *self.well_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From `at` on it can work.
    pub(super) fn is_well_from(&self, at: Duration) {
        *self.well_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// Goes on only while the process lives and its machine runs.
    pub(super) async fn gate(&self) {
        if self.is_alive() {
            self.clock().is_running().await;
        }
        if !self.is_alive() {
            std::future::pending().await
        }
    }

    async fn pass(&self, duration: Duration) {
        if !duration.is_zero() {
            self.world.time.sleep(duration).await;
        }
        self.gate().await;
    }

    /// A point of a task.
    pub(crate) async fn reach(&self, point: &'static str) -> io::Result<()> {
        self.gate().await;
        match self.at(point) {
            Happens::Nothing => Ok(()),
            Happens::Fails => Err(io::Error::other("the simulation lets it fail")),
            Happens::Dies => {
                self.die(point);
                std::future::pending().await
            }
            Happens::Halts(duration, asleep) => {
                self.halt(duration, asleep);
                self.gate().await;
                Ok(())
            }
        }
    }

    /// A point of code that blocks.
    pub(crate) fn touch(&self, point: &'static str) -> io::Result<()> {
        if !self.is_alive() {
            std::panic::resume_unwind(Box::new(Died) as Box<dyn Any + Send>);
        }
        match self.at(point) {
            Happens::Nothing => Ok(()),
            Happens::Fails => {
                self.world.disk_failed();
                Err(io::Error::other("the simulation lets the disk fail"))
            }
            Happens::Dies => {
                self.die(point);
                std::panic::resume_unwind(Box::new(Died) as Box<dyn Any + Send>);
            }
            Happens::Halts(duration, asleep) => {
                self.halt(duration, asleep);
                Ok(())
            }
        }
    }

    fn halt(&self, duration: Duration, asleep: bool) {
        let word = if asleep { "sleeps" } else { "is halted" };
        self.world.note(format_args!("{self} {word} for {} s", duration.as_secs_f64()));
        self.world.state().figures.halts += 1;
        self.clock().halt(duration, asleep);
        self.is_well_from(self.world.time.now() + duration);
    }

    fn at(&self, point: &'static str) -> Happens {
        let store = point.starts_with("store.");
        if store {
            self.world.note_quietly(format_args!("{self} {point}"));
        } else {
            self.world.note(format_args!("{self} is at {point}"));
        }
        if point == "escrowed" {
            self.world.passed_escrow();
        }
        if let Some(happens) = self.scripted(point) {
            return happens;
        }
        if self.world.is_calm() || self.life == 0 {
            return Happens::Nothing;
        }
        let chaos = &self.world.chaos;
        let disk = point.starts_with("escrow.");
        if disk && self.world.is_out(Outage::Disk, self.machine) {
            return Happens::Fails;
        }
        // Store jobs are many, and fail on their own way.
        let rate = if store { chaos.crashes / 50 } else { chaos.crashes };
        self.world.dice(|dice| {
            if dice.once_in(rate) {
                Happens::Dies
            } else if disk && dice.once_in(chaos.disk_fails) {
                Happens::Fails
            } else if !store && dice.once_in(chaos.halts) {
                Happens::Halts(dice.delay(Duration::from_secs(90)), dice.once_in(5000))
            } else {
                Happens::Nothing
            }
        })
    }

    fn scripted(&self, point: &'static str) -> Option<Happens> {
        let mut state = self.world.state();
        if self.machine == 0 && state.dies_at == Some(point) {
            state.dies_at = None;
            return Some(Happens::Dies);
        }
        let script = state.script.as_mut().filter(|_| self.machine == 0)?;
        let reached = script.at == Some(script.seen.len());
        script.seen.push(point);
        Some(match (reached, script.stop) {
            (true, true) => Happens::Dies,
            (true, false) => Happens::Fails,
            (false, _) => Happens::Nothing,
        })
    }

    /// A job of the store that writes.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        let fate = self.way_to_the_store(true).await?;
        if fate == InDoubt::Late {
            let (world, this) = (Arc::clone(&self.world), Self::new(&self.world, self.machine, self.life));
            let late = self.world.dice(|dice| dice.delay(Duration::from_secs(60)));
            tokio::spawn(async move {
                world.time.sleep(late).await;
                let _ = world.run_job(&this, true, job);
            });
            return Err(self.failed("the answer is lost, and the job comes late"));
        }
        let done = self.world.run_job(self, true, job);
        self.way_back().await;
        match fate {
            InDoubt::Lost => Err(self.failed("the answer is lost")),
            _ => done,
        }
    }

    /// A job that reads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        self.way_to_the_store(false).await?;
        let done = self.world.run_job(self, false, job);
        self.way_back().await;
        done
    }

    async fn way_to_the_store(&self, writes: bool) -> StoreResult<InDoubt> {
        if self.world.is_calm() || self.life == 0 {
            return Ok(InDoubt::No);
        }
        let chaos = &self.world.chaos;
        let (before, fails, lost, late) = self.world.dice(|dice| {
            let doubts = writes && dice.once_in(chaos.store_doubts);
            (dice.delay(chaos.store_slow), dice.once_in(chaos.store_fails), doubts, dice.once_in(5000))
        });
        self.pass(before).await;
        if self.world.is_out(Outage::Database, self.machine) {
            self.pass(Duration::from_millis(200)).await;
            return Err(self.failed("the database can't be reached"));
        }
        match (fails, lost, late) {
            (true, ..) => Err(self.failed("the simulation lets it fail")),
            (_, true, false) => Ok(InDoubt::Lost),
            (_, true, true) => Ok(InDoubt::Late),
            _ => Ok(InDoubt::No),
        }
    }

    async fn way_back(&self) {
        if !self.world.is_calm() && self.life != 0 {
            let after = self.world.dice(|dice| dice.delay(self.world.chaos.store_slow));
            self.pass(after).await;
        }
    }

    fn failed(&self, why: &'static str) -> StoreError {
        self.world.state().figures.failed_jobs += 1;
        self.world.note_quietly(format_args!("{self}: {why}"));
        if self.well_since().is_some() {
            self.is_well_from(self.world.time.now());
        }
        StoreError::Engine(Arc::new(io::Error::other(why)))
    }

    /// A token request on its way to the provider and back.
    pub(crate) async fn exchange(&self, request: Request<SecretBytes>) -> Result<Fetched, EgressFault> {
        let (grant, number) = refresh_token(&request).expect("the simulated provider knows refresh tokens only");
        let (way, there, back) = self.way();
        if way == Way::Refused {
            self.pass(there.min(Duration::from_secs(3))).await;
            self.world.note(format_args!("{self} gets no connection"));
            return Err(EgressFault::Connect("connection refused".to_owned()));
        }
        let in_flight = InFlight { replica: self, grant, number, place: self.world.send(self, grant, number) };
        let (answer, answered) = oneshot::channel();
        tokio::spawn(serve(Arc::clone(&self.world), way, (there, back), (grant, number, in_flight.place), answer));
        let reply = answered.await;
        self.gate().await;
        drop(in_flight);
        match reply {
            Ok(Reply { fetched, given }) => {
                if let Some(given) = given {
                    self.world.delivered(self, grant, given);
                }
                Ok(fetched)
            }
            Err(_) => Err(EgressFault::Lost("the connection was reset".to_owned())),
        }
    }

    fn way(&self) -> (Way, Duration, Duration) {
        let chaos = &self.world.chaos;
        if self.world.is_out(Outage::Provider, self.machine) {
            return (Way::Refused, Duration::from_millis(30), Duration::ZERO);
        }
        let calm = self.world.is_calm();
        self.world.dice(|dice| {
            if calm {
                return (Way::Good, dice.millis(1, 50), dice.millis(1, 50));
            }
            let rates = [
                (chaos.refused, Way::Refused),
                (chaos.lost_before, Way::LostBefore),
                (chaos.busy, Way::Busy(dice.of_list(&[429, 503]))),
                (chaos.broken, Way::Broken(dice.of_list(&[500, 502, 504]))),
                (chaos.lost_after, Way::LostAfter),
            ];
            let way = rates.into_iter().find(|(rate, _)| dice.once_in(*rate)).map_or(Way::Good, |(_, way)| way);
            let most = u64::try_from(chaos.network_slow.as_millis()).unwrap_or(0);
            let whole = if chaos.evenly { dice.millis(0, most) } else { dice.delay(chaos.network_slow) };
            let there = whole.mul_f64(f64::from(u32::try_from(dice.number(0, 100)).unwrap_or(0)) / 100.0);
            (way, there, whole - there)
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum InDoubt {
    No,
    /// It took place.
    Lost,
    /// It will take place.
    Late,
}

struct Reply {
    fetched: Fetched,
    /// The token set in it.
    given: Option<u64>,
}

/// The provider's side of a request: it goes on whatever becomes of the client.
async fn serve(
    world: Arc<World>,
    way: Way,
    (there, back): (Duration, Duration),
    (grant, number, place): (usize, u64, usize),
    answer: oneshot::Sender<Reply>,
) {
    world.time.sleep(there).await;
    let given = match way {
        Way::LostBefore => {
            world.note(format_args!("the request with rt-{grant}-{number} is lost"));
            return world.sent(grant, number, place);
        }
        Way::Refused | Way::Busy(_) => None,
        Way::Broken(_) | Way::LostAfter | Way::Good => Some(world.act(grant, number)),
    };
    world.time.sleep(back).await;
    // Whatever the client does now, the provider is done with it.
    world.sent(grant, number, place);
    let (status, body, set) = match (way, given) {
        (Way::Busy(status) | Way::Broken(status), _) => (status, "<html>".to_owned(), None),
        (_, Some(Answer::Tokens(set))) => (200, tokens(&world, grant, set), Some(set)),
        _ => (400, json!({"error": "invalid_grant"}).to_string(), None),
    };
    let minted = match given {
        Some(Answer::Tokens(set)) => Some(set),
        _ => None,
    };
    if way == Way::LostAfter {
        return minted.into_iter().for_each(|set| world.lost(grant, set, "the reply was lost on the way"));
    }
    if let (Way::Broken(_), Some(set)) = (way, minted) {
        world.lost(grant, set, "the provider broke down after it had acted");
    }
    let mut headers = HeaderMap::new();
    let html = body.starts_with('<');
    let content_type = HeaderValue::from_static(if html { "text/html" } else { "application/json" });
    headers.insert(header::CONTENT_TYPE, content_type);
    let fetched = Fetched { status, headers, body: SecretBytes::new(body.into_bytes()) };
    if answer.send(Reply { fetched, given: set }).is_err() {
        set.into_iter()
            .for_each(|set| world.lost(grant, set, "the reply came after 30 s, when nobody waited any more"));
    }
}

fn tokens(world: &World, grant: usize, set: u64) -> String {
    let state = world.state();
    let it = &state.grants[grant];
    let mut body = json!({
        "access_token": format!("at-{grant}-{set}"), "token_type": "Bearer", "expires_in": it.life.as_secs(),
    });
    if it.class != Class::Static {
        body["refresh_token"] = json!(format!("rt-{grant}-{set}"));
    }
    body.to_string()
}

/// Grant and number of `rt-3-17`.
fn refresh_token(request: &Request<SecretBytes>) -> Option<(usize, u64)> {
    let mut form = url::form_urlencoded::parse(request.body().expose());
    let (_, token) = form.find(|(name, _)| name == "refresh_token")?;
    numbers(&token, "rt-")
}

/// The two numbers behind `prefix`.
pub(super) fn numbers(token: &str, prefix: &str) -> Option<(usize, u64)> {
    let (grant, number) = token.strip_prefix(prefix)?.split_once('-')?;
    Some((grant.parse().ok()?, number.parse().ok()?))
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.machine, self.life)
    }
}
