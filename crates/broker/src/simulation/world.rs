//! What all machines of a simulation share: time, chance, the database, the provider, and the truth about what happened.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keyholder_oauth::Secret;
use serde_json::Value;
use tokio::task;

use super::chaos::{Chaos, Dice, Outage};
use super::provider::{Answer, Class, Grant};
use super::replica::Replica;
use super::time::{SimulatedClock, Time};
use crate::clock::Clock;
use crate::egress::Egress;
use crate::escrow::Escrow;
use crate::model::ConnectionId;
use crate::open::Broker;
use crate::points::Points;
use crate::store::{Simulated, StoreResult, Tx};

/// A process that has been able to work for so long has had its turn: what it holds must be in the row.
const ITS_TURN: Duration = Duration::from_secs(10);
/// A request is no longer in flight after this: [`crate::egress::Bounds::PROVIDER`].
const IN_FLIGHT: Duration = Duration::from_secs(30);
/// So many jobs at one instant are a loop without end.
const ENDLESS: u32 = 500_000;

/// One run.
pub(crate) struct World {
    pub(super) time: Arc<Time>,
    pub(super) chaos: Chaos,
    pub(super) database: Simulated,
    pub(super) database_clock: SimulatedClock,
    /// Of each machine.
    pub(super) clocks: Vec<SimulatedClock>,
    pub(super) egress: Egress,
    pub(super) folder: PathBuf,
    pub(super) root_key: Secret,
    state: Mutex<State>,
}

/// What is known, and what has been seen.
pub(super) struct State {
    pub(super) dice: Dice,
    pub(super) grants: Vec<Grant>,
    pub(super) connections: Vec<ConnectionId>,
    /// A broker that only looks.
    pub(super) observer: Option<Broker>,
    /// The process on each machine.
    pub(super) replicas: Vec<Option<Arc<Replica>>>,
    pub(super) figures: Figures,
    pub(super) violations: Vec<String>,
    pub(super) script: Option<Script>,
    /// The process on machine 0 dies when it comes here.
    pub(super) dies_at: Option<&'static str>,
    /// From now on nothing goes wrong.
    pub(super) calm: bool,
    sends: BTreeMap<(usize, u64), Vec<Send>>,
    /// What became of the token set of this grant and number.
    replies: BTreeMap<(usize, u64), Fate>,
    /// Which renewal got which token set, and whether its disk has failed since.
    renewing: HashMap<task::Id, (usize, u64, bool)>,
    generations: BTreeMap<String, i64>,
    jobs: (Duration, u32),
    trace: Trace,
}

/// What is counted over one run or many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) seeds: u64,
    pub(super) seconds: u64,
    pub(super) requests: u64,
    pub(super) renewals: u64,
    pub(super) calls: u64,
    pub(super) calls_answered: u64,
    pub(super) crashes: u64,
    pub(super) halts: u64,
    pub(super) lost_replies: u64,
    pub(super) failed_jobs: u64,
    pub(super) recovered: u64,
    pub(super) most_at_once: usize,
    /// Grants lost, by why that was out of Keyholder's hands.
    pub(super) lost: BTreeMap<&'static str, u64>,
}

impl Figures {
    pub(super) fn add(&mut self, other: &Figures) {
        self.seeds += other.seeds;
        self.seconds += other.seconds;
        self.requests += other.requests;
        self.renewals += other.renewals;
        self.calls += other.calls;
        self.calls_answered += other.calls_answered;
        self.crashes += other.crashes;
        self.halts += other.halts;
        self.lost_replies += other.lost_replies;
        self.failed_jobs += other.failed_jobs;
        self.recovered += other.recovered;
        self.most_at_once = self.most_at_once.max(other.most_at_once);
        for (why, count) in &other.lost {
            *self.lost.entry(why).or_default() += count;
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seeds                      {}", self.seeds)?;
        writeln!(f, "virtual hours              {}", self.seconds / 3600)?;
        writeln!(f, "token requests             {}", self.requests)?;
        writeln!(f, "renewals committed         {}", self.renewals)?;
        writeln!(f, "tokens asked for           {}, handed out {}", self.calls, self.calls_answered)?;
        writeln!(f, "crashes                    {}", self.crashes)?;
        writeln!(f, "halted or asleep           {}", self.halts)?;
        writeln!(f, "replies lost on the way    {}", self.lost_replies)?;
        writeln!(f, "failed store jobs          {}", self.failed_jobs)?;
        writeln!(f, "recovered from escrow      {}", self.recovered)?;
        writeln!(f, "most at once for one token {}", self.most_at_once)?;
        for (why, count) in &self.lost {
            writeln!(f, "grants lost                {count}: {why}")?;
        }
        Ok(())
    }
}

/// A request with a refresh token.
struct Send {
    at: Duration,
    by: (usize, u32),
    /// The client has ended it, or the provider has.
    ended: bool,
}

/// Where a token set went.
#[derive(Clone, Copy, Debug)]
enum Fate {
    OnTheWay,
    Lost(&'static str),
    /// To this life of this machine.
    Delivered(usize, u32),
    /// There, and the process went on as if it were in escrow.
    Escrowed(usize, u32),
}

/// Something that shall happen at one point of machine 0, once.
#[derive(Clone)]
pub(super) struct Script {
    /// Points seen, in order.
    pub(super) seen: Vec<&'static str>,
    /// At which of them.
    pub(super) at: Option<usize>,
    /// The process dies there; else the effect fails.
    pub(super) stop: bool,
}

/// A fingerprint of everything that happened, in order.
struct Trace {
    hash: u64,
    loud: bool,
}

impl fmt::Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // FNV-1a.
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

impl World {
    pub(super) fn new(
        chaos: Chaos,
        dice: Dice,
        egress: Egress,
        folder: PathBuf,
        root_key: Secret,
        loud: bool,
    ) -> Arc<Self> {
        let time = Arc::<Time>::default();
        let clocks: Vec<_> = (0..chaos.replicas + 1).map(|_| SimulatedClock::new(&time)).collect();
        let database_clock = SimulatedClock::new(&time);
        let database = Simulated::new(Clock::Simulated(database_clock.clone())).unwrap();
        let state = State {
            dice,
            grants: Vec::new(),
            connections: Vec::new(),
            observer: None,
            replicas: (0..chaos.replicas).map(|_| None).collect(),
            figures: Figures { seeds: 1, ..Figures::default() },
            violations: Vec::new(),
            script: None,
            dies_at: None,
            calm: false,
            sends: BTreeMap::new(),
            replies: BTreeMap::new(),
            renewing: HashMap::new(),
            generations: BTreeMap::new(),
            jobs: (Duration::ZERO, 0),
            trace: Trace { hash: 0xcbf2_9ce4_8422_2325, loud },
        };
        let state = Mutex::new(state);
        Arc::new(Self { time, chaos, database, database_clock, clocks, egress, folder, root_key, state })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Throws the dice.
    pub(super) fn dice<T>(&self, throw: impl FnOnce(&mut Dice) -> T) -> T {
        throw(&mut self.state().dice)
    }

    pub(super) fn note(&self, what: fmt::Arguments<'_>) {
        let now = self.time.now();
        let mut state = self.state();
        let trace = &mut state.trace;
        let _ = writeln!(trace, "{} {what}", now.as_nanos());
        if trace.loud {
            println!("{:>12.3} s  {what}", now.as_secs_f64());
        }
    }

    /// As [`Self::note`], for what would drown everything else.
    pub(super) fn note_quietly(&self, what: fmt::Arguments<'_>) {
        let now = self.time.now();
        let _ = writeln!(self.state().trace, "{} {what}", now.as_nanos());
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.state().trace.hash
    }

    pub(super) fn violation(&self, what: String) {
        self.note(format_args!("VIOLATION: {what}"));
        self.state().violations.push(what);
    }

    pub(super) fn is_calm(&self) -> bool {
        self.state().calm
    }

    /// Is this out of order now, for this machine?
    pub(super) fn is_out(&self, what: Outage, machine: usize) -> bool {
        let now = self.time.now();
        let out = |(it, whose, from, until): &(Outage, Option<usize>, Duration, Duration)| {
            *it == what && whose.is_none_or(|whose| whose == machine) && (*from..*until).contains(&now)
        };
        !self.is_calm() && self.chaos.outages.iter().any(out)
    }

    /// Runs a job, and looks at what it left.
    pub(super) fn run_job<T>(
        &self,
        by: &Replica,
        writes: bool,
        job: impl FnOnce(&Tx<'_>) -> StoreResult<T>,
    ) -> StoreResult<T> {
        let now = self.time.now();
        let endless = {
            let jobs = &mut self.state().jobs;
            *jobs = if jobs.0 == now { (now, jobs.1 + 1) } else { (now, 1) };
            jobs.1 > ENDLESS
        };
        assert!(!endless, "seed {}: jobs without end at one instant", self.chaos.seed);
        let done = self.database.run(job);
        if writes && done.is_ok() {
            for (name, generation) in self.database.generations().unwrap() {
                let before = self.state().generations.insert(name.clone(), generation).unwrap_or(0);
                if before > generation {
                    self.violation(format!("{by}: the generation of {name} went back from {before} to {generation}"));
                } else if before < generation {
                    self.state().figures.renewals += 1;
                    self.note(format_args!("{by} committed generation {generation} of {name}"));
                }
            }
        }
        done
    }

    /// A request with refresh token `number` leaves.
    pub(super) fn send(&self, by: &Replica, grant: usize, number: u64) -> usize {
        let now = self.time.now();
        let rash;
        let (place, others) = {
            let mut state = self.state();
            state.figures.requests += 1;
            let sends = state.sends.entry((grant, number)).or_default();
            let live = |send: &&Send| !send.ended && now < send.at + IN_FLIGHT;
            let others: Vec<_> = sends.iter().filter(live).map(|send| send.by).collect();
            sends.push(Send { at: now, by: (by.machine, by.life), ended: false });
            let place = sends.len() - 1;
            let figures = &mut state.figures;
            figures.most_at_once = figures.most_at_once.max(others.len() + 1);
            rash = state.grants[grant].would_end(number, now) && !self.chaos.clocks;
            (place, others)
        };
        self.note(format_args!("{by} sends rt-{grant}-{number}"));
        if rash {
            self.violation(format!(
                "{by} sends rt-{grant}-{number} again, which ends the grant, while its access token is valid"
            ));
        }
        if !others.is_empty() {
            self.violation(format!("{by} sends rt-{grant}-{number} while requests of {others:?} are in flight"));
        }
        place
    }

    pub(super) fn sent(&self, grant: usize, number: u64, place: usize) {
        if let Some(send) = self.state().sends.get_mut(&(grant, number)).and_then(|sends| sends.get_mut(place)) {
            send.ended = true;
        }
    }

    /// The provider acts on refresh token `number`.
    pub(super) fn act(&self, grant: usize, number: u64) -> Answer {
        let now = self.time.now();
        let before = self.state().grants[grant].honoured(now);
        let answer = self.state().grants[grant].renew(number, now);
        self.note(format_args!("the provider answers rt-{grant}-{number}: {answer:?}"));
        match answer {
            Answer::Tokens(new) => drop(self.state().replies.insert((grant, new), Fate::OnTheWay)),
            Answer::Refused => {}
            Answer::Ended => {
                for newest in before {
                    match self.why_lost(grant, newest) {
                        Ok(why) => *self.state().figures.lost.entry(why).or_default() += 1,
                        Err(why) => {
                            self.violation(format!("rt-{grant}-{number} was used twice, which ended the grant: {why}"))
                        }
                    }
                }
            }
        }
        answer
    }

    pub(super) fn lost(&self, grant: usize, number: u64, why: &'static str) {
        self.note(format_args!("the reply with token set {number} of grant {grant} is lost: {why}"));
        let mut state = self.state();
        state.figures.lost_replies += 1;
        state.replies.insert((grant, number), Fate::Lost(why));
    }

    pub(super) fn delivered(&self, by: &Replica, grant: usize, number: u64) {
        self.note(format_args!("{by} gets token set {number} of grant {grant}"));
        let mut state = self.state();
        state.replies.insert((grant, number), Fate::Delivered(by.machine, by.life));
        if let Some(task) = task::try_id() {
            state.renewing.insert(task, (grant, number, false));
        }
    }

    /// The disk failed under this task.
    pub(super) fn disk_failed(&self) {
        let mut state = self.state();
        if let Some(renewing) = task::try_id().and_then(|task| state.renewing.get_mut(&task)) {
            renewing.2 = true;
        }
    }

    /// This task takes its reply to be in escrow.
    pub(super) fn passed_escrow(&self) {
        let mut state = self.state();
        let Some((grant, number, false)) = task::try_id().and_then(|task| state.renewing.get(&task).copied()) else {
            return;
        };
        if let Some(fate) = state.replies.get_mut(&(grant, number))
            && let Fate::Delivered(machine, life) = *fate
        {
            *fate = Fate::Escrowed(machine, life);
        }
    }

    /// Why nobody has refresh token `number` in hand who could use it; `Err`: somebody has.
    pub(super) fn why_lost(&self, grant: usize, number: u64) -> Result<&'static str, String> {
        let token = format!("rt-{grant}-{number}");
        let Some(observer) = self.state().observer.clone() else { return Err("nobody looks".to_owned()) };
        if self.row_token(&observer, grant).as_deref() == Some(token.as_str()) {
            return Err(format!("{token} is in the row"));
        }
        let now = self.time.now();
        let replicas = self.state().replicas.clone();
        for (machine, replica) in replicas.iter().enumerate() {
            if !self.escrow_tokens(&observer, machine).contains(&token) {
                continue;
            }
            let Some(replica) = replica.as_ref().filter(|replica| replica.is_alive()) else {
                return Ok("its reply lay in the escrow of a machine that was down");
            };
            if replica.well_since().is_some_and(|since| now > since + ITS_TURN) {
                return Err(format!("{token} is in the escrow of {replica}, which works"));
            }
            return Ok("its reply lay in escrow while the database, or the machine, had been away");
        }
        let fate = self.state().replies.get(&(grant, number)).copied();
        match fate {
            None => Err(format!("{token} was there from the beginning")),
            Some(Fate::OnTheWay) => Ok("the reply was on the way to a process that had died, or given up"),
            Some(Fate::Lost(why)) => Ok(why),
            Some(Fate::Delivered(machine, life) | Fate::Escrowed(machine, life)) => {
                let holder = replicas[machine].as_ref().filter(|replica| replica.life == life && replica.is_alive());
                match holder.map(|holder| holder.well_since()) {
                    None if matches!(fate, Some(Fate::Escrowed(..))) => {
                        Err(format!("{token} had been put in escrow by {machine}.{life}, and is gone"))
                    }
                    None => Ok("the process died between the reply and the end of its escrow"),
                    Some(Some(since)) if now > since + ITS_TURN => {
                        Err(format!("{token} is in the memory of {machine}.{life}, which works"))
                    }
                    Some(_) => Ok("its reply lay in memory while the database, or the machine, had been away"),
                }
            }
        }
    }

    /// The refresh token in the row.
    pub(super) fn row_token(&self, observer: &Broker, grant: usize) -> Option<String> {
        let id = self.state().connections[grant].clone();
        let row = self.database.run(|tx| tx.connection_by_id(&id)).unwrap()?;
        let tokens =
            observer.open_tokens(&row.tenant, row.id.as_str(), row.generation, row.token_set.as_ref()?).unwrap();
        Some(tokens.refresh_token?.expose().to_owned())
    }

    /// The refresh tokens in a machine's escrow.
    pub(super) fn escrow_tokens(&self, observer: &Broker, machine: usize) -> Vec<String> {
        let Ok(escrow) = Escrow::open(&self.data_dir(machine), Points::default()) else { return Vec::new() };
        let waiting = escrow.waiting().unwrap_or_default();
        let read = |(connection, attempt): &(_, _)| {
            let held = escrow.open_reply(&observer.vault, connection, attempt).ok()?;
            let body: Value = serde_json::from_slice(held.reply.body.expose()).ok()?;
            Some(body.get("refresh_token")?.as_str()?.to_owned())
        };
        waiting.iter().filter_map(read).collect()
    }

    pub(super) fn data_dir(&self, machine: usize) -> PathBuf {
        self.folder.join(machine.to_string())
    }

    /// The class of a grant, for messages.
    pub(super) fn class(&self, grant: usize) -> Class {
        self.state().grants[grant].class
    }
}
