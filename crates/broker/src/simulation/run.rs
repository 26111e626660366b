//! One run from one seed: set up, let things go wrong, let them calm down, and look at what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keyholder_oauth::{Secret, TokenSet};

use super::chaos::{Chaos, Dice};
use super::provider::{Class, Grant};
use super::replica::{Replica, numbers};
use super::world::{Figures, World};
use crate::clock::{Clock, Rng};
use crate::egress::Egress;
use crate::error::Result;
use crate::manage::{NewConnection, NewIntegration};
use crate::model::{Caller, KeyId, Limits, Scope, Status, Tenant};
use crate::open::{Broker, Opened, Settings};
use crate::points::Points;
use crate::store::{CommitTokens, Location};
use crate::token::HandedToken;
use crate::vault::{RootKey, RootKeySource};

/// No wait after a failure, and no token's life, is longer than what follows the faults.
const RECOVERS_WITHIN: Duration = Duration::from_secs(3 * 3600);
/// A caller that finds a valid token waits no longer than this for a better one, the store's delays aside.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// Clocks are wrong by no more than this.
const LONGEST_SET: Duration = Duration::from_secs(4000);

/// What a run showed.
pub(super) struct Report {
    pub(super) figures: Figures,
    pub(super) violations: Vec<String>,
    /// Two runs with the same one did the same things in the same order.
    pub(super) fingerprint: u64,
}

/// Runs `work` on one thread, on which virtual time moves when nothing else does.
pub(super) fn simulate<F: Future<Output = ()> + Send + 'static>(
    world: &Arc<World>,
    work: impl FnOnce(Arc<World>) -> F,
) -> Report {
    let time = Arc::clone(&world.time);
    let runtime = tokio::runtime::Builder::new_current_thread().on_thread_park(move || time.advance()).build().unwrap();
    let (work, time) = (work(Arc::clone(world)), Arc::clone(&world.time));
    runtime.block_on(async {
        let done = tokio::spawn(async move {
            work.await;
            time.end();
        });
        done.await.unwrap();
    });
    drop(runtime);
    let mut state = world.state();
    // It holds the world, which holds it.
    state.observer = None;
    state.replicas.clear();
    state.figures.seconds = world.time.now().as_secs();
    let (figures, violations) = (state.figures.clone(), std::mem::take(&mut state.violations));
    drop(state);
    Report { figures, violations, fingerprint: world.fingerprint() }
}

/// The run of `seed`.
pub(super) fn run(seed: u64, egress: &Egress, folder: &Path, loud: bool) -> Report {
    let mut dice = Dice::of(seed);
    let chaos = Chaos::of(seed, &mut dice);
    run_with(chaos, dice, egress, folder, loud)
}

/// The run of these troubles.
pub(super) fn run_with(chaos: Chaos, dice: Dice, egress: &Egress, folder: &Path, loud: bool) -> Report {
    if loud {
        println!("{chaos:#?}");
    }
    let world = world(chaos, dice, egress, folder, loud);
    simulate(&world, whole)
}

/// An empty world whose machines keep their data below `folder`.
pub(super) fn world(chaos: Chaos, dice: Dice, egress: &Egress, folder: &Path, loud: bool) -> Arc<World> {
    let root_key = RootKey::generate(&Rng::seeded(1)).to_text();
    World::new(chaos, dice, egress.clone(), folder.to_owned(), root_key, loud)
}

async fn whole(world: Arc<World>) {
    set_up(&world).await;
    if world.chaos.clocks {
        tokio::spawn(set_clocks(Arc::clone(&world)));
    }
    for machine in 0..world.chaos.replicas {
        tokio::spawn(keep(Arc::clone(&world), machine));
    }
    world.time.sleep(world.chaos.lasts).await;
    world.note(format_args!("from now on nothing goes wrong"));
    world.state().calm = true;
    let until = world.time.now() + RECOVERS_WITHIN;
    let longest = world.chaos.grants.iter().map(|(_, life)| *life).max().unwrap_or_default();
    // Once everything has expired, also what was dated by a wrong clock, what was said before doesn't count any more.
    let ahead = if world.chaos.clocks { LONGEST_SET } else { Duration::ZERO };
    world.time.sleep(longest + ahead + Duration::from_secs(120)).await;
    while world.time.now() < until && !is_settled(&world) {
        world.time.sleep(Duration::from_secs(300)).await;
    }
    look_back(&world).await;
}

/// Integrations, and connections with their first token sets.
pub(super) async fn set_up(world: &Arc<World>) {
    let machine = world.chaos.replicas;
    let observer = open(world, &Replica::new(world, machine, 0)).await.unwrap().broker;
    let caller = caller();
    let mut known = BTreeSet::new();
    for (grant, (class, life)) in world.chaos.grants.clone().into_iter().enumerate() {
        if known.insert(class) {
            add_provider(&observer, &caller, class).await;
        }
        let name = format!("c{grant}");
        let integration = class.word().replace('_', "-");
        let new = NewConnection { name: name.clone(), integration, ..NewConnection::default() };
        let row = observer.add_connection(&caller, new).await.unwrap().connection;
        let now = world.time.now();
        world.state().grants.push(Grant::new(class, life, now));
        world.state().connections.push(row.id.clone());
        let expires_at = observer.now_ms() + i64::try_from(life.as_millis()).unwrap();
        let tokens = TokenSet {
            access_token: Secret::new(format!("at-{grant}-1")),
            refresh_token: Some(Secret::new(format!("rt-{grant}-1"))),
            id_token: None,
            token_type: "Bearer".to_owned(),
            expires_at: Some(expires_at),
            scope: None,
            secondary: Default::default(),
            extra: serde_json::Map::new(),
            refresh_expires_at: None,
        };
        let plan = observer.plan(&row, Some(&tokens)).await.unwrap();
        let commit = CommitTokens {
            sealed: observer.seal_tokens(&row.tenant, row.id.as_str(), 1, &tokens).unwrap(),
            expires_at: Some(expires_at),
            scope: None,
            account: None,
            due_at: Some(expires_at - i64::try_from(life.as_millis()).unwrap() / 2),
            dies_at: None,
            endpoint: crate::renew::endpoint_key(&plan),
            renewed_at: observer.now_ms(),
            now: observer.now_ms(),
        };
        observer.store.write(move |tx| tx.commit_tokens(&row.id, 0, &commit)).await.unwrap();
    }
    world.state().observer = Some(observer);
}

async fn add_provider(broker: &Broker, caller: &Caller, class: Class) {
    let word = class.word();
    let id = word.replace('_', "-");
    let window = if class == Class::Window { "window = \"60s\"\n" } else { "" };
    let definition = format!(
        "schema = 1\nid = \"{id}\"\nname = \"{id}\"\n[[methods]]\ngrant = \"authorization_code\"\nlabel = \"A person consents\"\n\
         [authorize]\nurl = \"http://127.0.0.1:9/{id}/authorize\"\n[token]\nurl = \"http://127.0.0.1:9/{id}/token\"\n\
         [refresh]\nrecovery = \"{word}\"\n{window}"
    );
    broker.add_provider(caller, &format!("{id}.toml"), &definition).await.unwrap();
    let new = NewIntegration {
        name: id.clone(),
        provider: id,
        method: Some("authorization_code".to_owned()),
        client_id: "simulation".to_owned(),
        client_secret: Some("secret".into()),
        ..NewIntegration::default()
    };
    broker.add_integration(caller, new).await.unwrap();
}

/// Opens a broker on a machine's data folder.
pub(super) async fn open(world: &Arc<World>, replica: &Arc<Replica>) -> Result<Opened> {
    let data_dir = world.data_dir(replica.machine);
    let database = world.folder.join("keyholder.db");
    // The locks of a process that is dead here, though its memory isn't freed; and replicas share the database.
    for lock in [data_dir.join("lock"), world.folder.join("keyholder.db.lock")] {
        let _ = std::fs::remove_file(lock);
    }
    let settings = Settings {
        public_url: "http://127.0.0.1:8787/".parse().unwrap(),
        data_dir,
        database: Location::Sqlite(database),
        root_key: RootKeySource::Value(world.root_key.clone()),
        pace: crate::endpoints::Pace::default(),
        retention: crate::open::Retention::default(),
        points: Points::on(Arc::clone(replica)),
    };
    let clock = Clock::Simulated(replica.clock().clone());
    let rng = Rng::seeded(world.dice(Dice::next));
    let egress = world.egress.on(clock.clone(), Arc::clone(replica));
    Broker::open(settings, clock, rng, egress).await
}

/// Keeps a process running on a machine: when one dies, the next is started after a while.
async fn keep(world: Arc<World>, machine: usize) {
    for life in 1.. {
        let replica = Replica::new(&world, machine, life);
        world.state().replicas[machine] = Some(Arc::clone(&replica));
        let started = start(&world, &replica).await;
        if started {
            let lifetime =
                world.dice(|dice| dice.millis(1000, u64::try_from(world.chaos.lifetime.as_millis()).unwrap()));
            tokio::select! {
                biased;
                () = replica.died.notified() => {}
                () = world.time.sleep(lifetime) => {
                    if world.is_calm() {
                        replica.died.notified().await;
                    }
                    replica.die("its time has come");
                }
            }
        }
        let absence = world.dice(|dice| dice.delay(world.chaos.absence));
        let left = if world.is_calm() { Duration::ZERO } else { absence };
        // Whoever is away comes back when things calm down.
        let calm_in = world.chaos.lasts.saturating_sub(world.time.now());
        world.time.sleep(left.min(calm_in).max(Duration::from_millis(100))).await;
    }
}

/// Opens a broker that does nothing by itself.
pub(super) async fn start_alone(world: &Arc<World>, replica: &Arc<Replica>) -> Broker {
    world.state().replicas[replica.machine] = Some(Arc::clone(replica));
    let broker = open(world, replica).await.unwrap().broker;
    replica.is_well_from(world.time.now());
    broker
}

/// Opens the broker and lets it work; `false`: it didn't come so far.
pub(super) async fn start(world: &Arc<World>, replica: &Arc<Replica>) -> bool {
    world.note(format_args!("{replica} starts"));
    let opening = tokio::spawn({
        let (world, replica) = (Arc::clone(world), Arc::clone(replica));
        async move { open(&world, &replica).await }
    });
    let opened = tokio::select! {
        biased;
        () = replica.died.notified() => return false,
        opened = opening => opened,
    };
    let opened = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            world.note(format_args!("{replica} can't start: {error}"));
            replica.give_up();
            return false;
        }
        // Killed inside.
        Err(_) => return false,
    };
    world.state().figures.recovered += opened.recovered as u64;
    world.note(format_args!("{replica} works, {} recovered", opened.recovered));
    replica.is_well_from(world.time.now());
    let broker = opened.broker;
    tokio::spawn({
        let broker = broker.clone();
        async move { broker.run_scheduler(std::future::pending()).await }
    });
    if world.chaos.follows {
        let broker = broker.clone();
        tokio::spawn(async move { broker.run_follower(std::future::pending()).await });
    }
    for _ in 0..world.chaos.callers {
        tokio::spawn(ask(Arc::clone(world), Arc::clone(replica), broker.clone()));
    }
    true
}

/// A program that asks for tokens now and then.
async fn ask(world: Arc<World>, replica: Arc<Replica>, broker: Broker) {
    let caller = caller();
    while !world.is_calm() {
        let (pause, grant) = world.dice(|dice| {
            let grant = usize::try_from(dice.number(0, world.chaos.grants.len() as u64 - 1)).unwrap();
            let life = world.chaos.grants[grant].1;
            (dice.delay(life / 2), grant)
        });
        replica.clock().sleep(pause).await;
        let life = world.chaos.grants[grant].1;
        let min_ttl =
            world.dice(|dice| dice.of_list(&[None, None, None, Some(Duration::ZERO), Some(life / 3), Some(life * 2)]));
        replica.gate().await;
        let asked_at = world.time.now();
        let before = valid_until(&world, grant);
        let answer = broker.token(&caller, &format!("c{grant}"), min_ttl).await;
        replica.gate().await;
        judge(&world, &replica, grant, asked_at, before, &answer);
    }
}

/// Until when the access token in the row is valid by the time of the run, and whether its connection is one that serves.
fn valid_until(world: &World, grant: usize) -> Option<i64> {
    let id = world.state().connections[grant].clone();
    let row = world.database.run(|tx| tx.connection_by_id(&id)).unwrap()?;
    let serves = matches!(row.state.status(), Status::Connected | Status::Failing | Status::Reconnect);
    row.token_expires_at.filter(|_| serves)
}

fn judge(
    world: &World,
    replica: &Replica,
    grant: usize,
    asked_at: Duration,
    before: Option<i64>,
    answer: &Result<HandedToken>,
) {
    let (now, now_ms) = (world.time.now(), replica.clock().now_ms());
    let mut state = world.state();
    state.figures.calls += 1;
    state.figures.calls_answered += u64::from(answer.is_ok());
    drop(state);
    // Halted, cut off from the database, or with a wrong clock, nothing can be asked of it.
    let hindered =
        world.chaos.clocks || replica.well_since().is_none_or(|since| since + Duration::from_secs(5) > asked_at);
    match answer {
        Ok(handed) => {
            let token = handed.access_token.expose();
            world.note_quietly(format_args!("{replica} hands out {token}"));
            let number = numbers(token, "at-").filter(|(of, _)| *of == grant).map(|(_, number)| number);
            let was_given = number.is_some_and(|number| world.state().grants[grant].expires_at(number).is_some());
            if !was_given {
                world.violation(format!("{replica} hands out {token} for grant {grant}"));
            }
            if !hindered && handed.expires_at.is_some_and(|at| at <= now_ms) {
                world.violation(format!("{replica} hands out {token}, which has expired"));
            }
        }
        Err(error) => {
            world.note_quietly(format_args!("{replica} has no token of {grant}: {error}"));
            if !hindered && before.is_some_and(|until| until > now_ms) {
                world.violation(format!(
                    "{replica} has no token of grant {grant} although a valid one is in the row: {error}"
                ));
            }
        }
    }
    if !hindered && before.is_some_and(|until| until > now_ms) && now > asked_at + ANSWERED_WITHIN {
        world.violation(format!("{replica} lets a caller of grant {grant} wait for {:?}", now - asked_at));
    }
}

/// Sets the clocks of machines and of the database, forward and back.
async fn set_clocks(world: Arc<World>) {
    while !world.is_calm() {
        let (whose, by, pause) = world.dice(|dice| {
            let whose = usize::try_from(dice.number(0, world.chaos.replicas as u64)).unwrap();
            let by = i64::try_from(dice.delay(LONGEST_SET).as_millis()).unwrap();
            (whose, if dice.once_in(5000) { -by } else { by }, dice.seconds(1, 1000))
        });
        world.time.sleep(pause).await;
        world.note(format_args!("the clock of {whose} is set to differ by {by} ms"));
        match world.clocks.get(whose).filter(|_| whose < world.chaos.replicas) {
            Some(clock) => clock.set_by(by),
            None => world.database_clock.set_by(by),
        }
    }
    world.clocks.iter().chain([&world.database_clock]).for_each(|clock| clock.set_by(0));
}

/// Nothing is under way, and every connection works or needs a person.
fn is_settled(world: &World) -> bool {
    let observer = world.state().observer.clone().unwrap();
    let now = world.time.now();
    let settled = |grant: usize| {
        let id = world.state().connections[grant].clone();
        let row = world.database.run(|tx| tx.connection_by_id(&id)).unwrap().unwrap();
        let held = world.row_token(&observer, grant).and_then(|token| numbers(&token, "rt-"));
        let is_good = held.is_some_and(|(_, held)| world.state().grants[grant].honoured(now).contains(&held));
        match row.state.status() {
            Status::Connected => is_good,
            status => status == Status::Reconnect && row.attempt.is_none(),
        }
    };
    (0..world.chaos.grants.len()).all(settled)
        && (0..world.chaos.replicas).all(|machine| world.escrow_tokens(&observer, machine).is_empty())
        && world
            .state()
            .replicas
            .iter()
            .flatten()
            .all(|replica| replica.well_since().is_some_and(|since| now > since + Duration::from_secs(60)))
}

/// Everything has had its time: what can be renewed is, and what can't was lost for a reason.
pub(super) async fn look_back(world: &Arc<World>) {
    let observer = world.state().observer.clone().unwrap();
    let caller = caller();
    let now = world.time.now();
    for machine in 0..world.chaos.replicas {
        let left = world.escrow_tokens(&observer, machine);
        if !left.is_empty() {
            world.violation(format!("{left:?} is left in the escrow of {machine}"));
        }
    }
    for grant in 0..world.chaos.grants.len() {
        let class = world.class(grant);
        let row = observer.connection(&caller, &format!("c{grant}")).await.unwrap().connection;
        let status = row.state.status();
        let held = world.row_token(&observer, grant).and_then(|token| numbers(&token, "rt-")).map(|(_, number)| number);
        let honoured = world.state().grants[grant].honoured(now);
        let is_good = held.is_some_and(|held| honoured.contains(&held));
        world.note(format_args!(
            "grant {grant} ({class:?}) ends {status:?} with {held:?}; the provider honours {honoured:?}"
        ));
        match status {
            Status::Connected if is_good => serves(world, &observer, &caller, grant).await,
            Status::Reconnect if !is_good => {
                if world.state().grants[grant].ended {
                    continue;
                }
                let heirs = held.map(|held| world.state().grants[grant].heirs(held, now)).unwrap_or_default();
                let reasons: Vec<_> = heirs.iter().map(|number| world.why_lost(grant, *number)).collect();
                let mut why: BTreeMap<&str, ()> = BTreeMap::new();
                for reason in reasons {
                    match reason {
                        Ok(reason) => drop(why.insert(reason, ())),
                        Err(held) => world.violation(format!("grant {grant} ({class:?}) is lost: {held}")),
                    }
                }
                let why = why.into_keys().next().unwrap_or("the window had closed before a second try got through");
                *world.state().figures.lost.entry(why).or_default() += 1;
            }
            _ => world.violation(format!(
                "grant {grant} ({class:?}) ends as {status:?} with {held:?}, and the provider honours {honoured:?}: {:?}",
                row.state.failure().map(|failure| &failure.message)
            )),
        }
    }
}

/// A good connection hands out a token that the provider's API takes.
async fn serves(world: &Arc<World>, observer: &Broker, caller: &Arc<Caller>, grant: usize) {
    let handed = observer.token(caller, &format!("c{grant}"), None).await;
    let now = world.time.now();
    let token = handed.as_ref().ok().and_then(|handed| numbers(handed.access_token.expose(), "at-"));
    let accepted = token.is_some_and(|(of, number)| of == grant && world.state().grants[grant].accepts(number, now));
    if !accepted {
        world.violation(format!("grant {grant} is connected, but gives {:?}", handed.map(|handed| handed.generation)));
    }
}

/// Who asks.
pub(super) fn caller() -> Arc<Caller> {
    Arc::new(Caller {
        key: KeyId::new(&Clock::System, &Rng::seeded(1)),
        name: "simulation".to_owned(),
        tenant: Tenant::default_tenant(),
        scopes: BTreeSet::from([Scope::Admin]),
        limits: Limits::default(),
        expires_at: None,
    })
}

/// What every run of a test shares: building it loads the machine's certificates.
pub(super) fn egress() -> Egress {
    Egress::new(Clock::System, "127.0.0.1".parse().map(crate::egress::Policy::new).unwrap(), None).unwrap()
}

/// Where a run's machines keep their data: in memory where there is such a place, because everything is synced.
pub(super) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}
