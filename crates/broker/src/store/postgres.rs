//! The PostgreSQL engine: a few threads, each with a connection and one transaction at a time.
//!
//! A job runs on such a thread and waits there for each reply, so it reads like a job on SQLite. Nothing outlives a transaction (no named statement, no
//! setting, no advisory lock, no LISTEN), so a pooler that hands out servers by transaction may stand in between.

mod fault;
mod server;
mod tls;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, BytesMut};
use futures_util::future::try_join_all;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, yield_now};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

pub use server::Server;
use tls::Tls;

use super::engine::{On, statement_for_postgres};
use super::migrate::{self, Migration};
use super::{Sql, StoreError, StoreResult, Tx, Val, spawn};
use crate::clock::Clock;

/// Connections of one process. A job holds one for a few round trips, never across a call to a provider.
const CONNECTIONS: usize = 8;
/// How long a job waits for a server that is away, a restart of PostgreSQL say, before it fails.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long making a connection may take.
const CONNECTING: Duration = Duration::from_secs(10);
/// How long a reply to one statement may take. The server's own limit, in `BEGIN`, comes first; this one is for a server that has gone silent.
const REPLY: Duration = Duration::from_secs(25);
/// First and longest pause between attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What a job may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Read, all statements from one snapshot.
    Read,
    /// Read and write, durable when answered.
    Write,
    /// Change the schema, however long it takes.
    Migrate,
}

impl Access {
    /// Begins the transaction and asks for the server's clock. All settings end with the transaction. Where the server is told not to wait for its disk at a
    /// commit, ours waits all the same: a token that was spent must not be lost with it.
    fn begin(self) -> &'static str {
        match self {
            Access::Read => {
                "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = '20s'; \
                 SET LOCAL idle_in_transaction_session_timeout = '30s'; \
                 SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
            }
            Access::Write => {
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '20s'; SET LOCAL lock_timeout = '5s'; \
                 SET LOCAL idle_in_transaction_session_timeout = '30s'; \
                 SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'; \
                 SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
            }
            Access::Migrate => {
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; \
                 SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
            }
        }
    }
}

/// The queue of jobs and its threads, which end when this is dropped.
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    server: Server,
    tls: Option<Tls>,
    state: Mutex<State>,
    /// A permit for each job in the queue; closed when the store is.
    waiting: Semaphore,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    connected: usize,
    /// Since when no thread has had a connection.
    down_since: Option<Instant>,
    closed: bool,
}

struct Job {
    access: Access,
    since: Instant,
    work: Work,
}

/// Runs in a transaction, or is told why there is none; answers whether to commit, and whom to tell.
type Work = Box<dyn FnOnce(StoreResult<&Session<'_>>) -> (bool, Acknowledge) + Send>;
type Acknowledge = Box<dyn FnOnce(StoreResult<()>) + Send>;

impl Pool {
    /// Connects, brings the schema up to date, and starts the first thread; others start as they are needed.
    pub(super) fn open(server: &Server, clock: &Clock, known: &'static [Migration]) -> StoreResult<Self> {
        let shared = Arc::new(Shared {
            tls: server.tls()?,
            server: server.clone(),
            state: Mutex::new(State { threads: 1, ..State::default() }),
            waiting: Semaphore::new(0),
        });
        let (ready, is_ready) = mpsc::channel();
        let (working, clock) = (Arc::clone(&shared), clock.clone());
        spawn("keyholder-postgres", move || {
            let Some(worker) = Worker::new(&working) else { return };
            match worker.connect().and_then(|line| worker.migrate(&line, &clock, known).map(|()| line)) {
                Ok(line) => {
                    let _ = ready.send(Ok(()));
                    worker.run(Some(line));
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        is_ready.recv().unwrap_or(Err(StoreError::Closed))?;
        Ok(Self(shared))
    }

    /// Runs a job on the next free thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        access: Access,
        clock: &Clock,
        job: impl FnOnce(&Tx<'_>) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        let (answer, answered) = oneshot::channel();
        let clock = clock.clone();
        let work: Work = Box::new(move |session| {
            let result = session.and_then(|session| {
                let tx = Tx { on: On::Postgres(session), clock: &clock };
                // A bug in one job must not end the thread; what the job did is undone.
                catch_unwind(AssertUnwindSafe(|| job(&tx))).unwrap_or(Err(StoreError::Closed))
            });
            let succeeded = result.is_ok();
            let acknowledge: Acknowledge = Box::new(move |ended| {
                // Nobody waits any more when the caller went away; the work is done all the same.
                let _ = answer.send(if succeeded { ended.and(result) } else { result });
            });
            (succeeded, acknowledge)
        });
        self.0.submit(Job { access, since: instant(), work })?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.waiting.close();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(self: &Arc<Self>, job: Job) -> StoreResult<()> {
        let mut state = self.state();
        state.jobs.push_back(job);
        let wants_thread = state.jobs.len() > state.idle && state.threads < CONNECTIONS;
        state.threads += usize::from(wants_thread);
        drop(state);
        self.waiting.add_permits(1);
        if wants_thread {
            let shared = Arc::clone(self);
            spawn("keyholder-postgres", move || {
                if let Some(worker) = Worker::new(&shared) {
                    worker.run(None);
                }
            })?;
        }
        Ok(())
    }

    /// There is no server to work with: tells the jobs that have waited long enough, or all once it has been away for that long.
    fn fail_waiting(&self, error: &StoreError) {
        let mut state = self.state();
        if state.connected > 0 {
            return;
        }
        let down_for_long = passed(*state.down_since.get_or_insert_with(instant)) >= PATIENCE;
        let mut failed = Vec::new();
        while state.jobs.front().is_some_and(|job| down_for_long || state.closed || passed(job.since) >= PATIENCE) {
            // A job without a permit is already some thread's.
            let Ok(permit) = self.waiting.try_acquire() else { break };
            permit.forget();
            failed.extend(state.jobs.pop_front());
        }
        drop(state);
        for job in failed {
            tell(job, error.clone());
        }
    }
}

fn tell(job: Job, error: StoreError) {
    let (_, acknowledge) = (job.work)(Err(error));
    acknowledge(Ok(()));
}

/// One thread and its runtime.
struct Worker<'a> {
    shared: &'a Shared,
    runtime: Runtime,
    /// Our statements in PostgreSQL's writing.
    texts: RefCell<HashMap<&'static str, Rc<str>>>,
}

/// A connection: what sends, and the task that moves its bytes, which ends with it.
struct Line {
    client: Client,
    task: JoinHandle<()>,
}

/// What a thread does next.
enum Next {
    Work(Job),
    /// The connection ended while it was idle.
    Reconnect,
    End,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared) -> Option<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime
            .map_err(|error| {
                tracing::error!(%error, "a thread of the database could not start");
                shared.state().threads -= 1;
            })
            .ok()?;
        Some(Self { shared, runtime, texts: RefCell::default() })
    }

    fn connect(&self) -> StoreResult<Line> {
        let server = &self.shared.server;
        self.runtime.block_on(async {
            let connecting = async {
                let (client, task) = match &self.shared.tls {
                    Some(tls) => {
                        let (client, connection) = server.config().connect(tls.clone()).await?;
                        (client, tokio::spawn(async move { drop(connection.await) }))
                    }
                    None => {
                        let (client, connection) = server.config().connect(NoTls).await?;
                        (client, tokio::spawn(async move { drop(connection.await) }))
                    }
                };
                Ok(Line { client, task })
            };
            match tokio::time::timeout(CONNECTING, connecting).await {
                Ok(line) => line.map_err(|error| fault::connecting(server, &error)),
                Err(_) => Err(fault::silent(server, CONNECTING)),
            }
        })
    }

    fn migrate(&self, line: &Line, clock: &Clock, known: &[Migration]) -> StoreResult<()> {
        let session = self.session(line, Access::Migrate);
        let tx = Tx { on: On::Postgres(&session), clock };
        let done = migrate::run(&tx, known);
        session.end(done.is_ok())?;
        done
    }

    fn session<'s>(&'s self, line: &'s Line, access: Access) -> Session<'s> {
        Session {
            worker: self,
            client: &line.client,
            access,
            open: Cell::default(),
            begun: Cell::default(),
            failed: RefCell::default(),
        }
    }

    /// Works until the store is closed; makes a new connection whenever one is lost.
    fn run(self, mut line: Option<Line>) {
        let mut pause = PAUSES.0;
        loop {
            let connected = line.take().map_or_else(|| self.connect(), Ok);
            match connected {
                Ok(line) => {
                    pause = PAUSES.0;
                    if self.work(line) == Ended::Store {
                        return;
                    }
                }
                Err(error) => {
                    self.shared.fail_waiting(&error);
                    if self.shared.state().closed {
                        return;
                    }
                    self.sleep(pause);
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    /// Does jobs on one connection, until it or the store ends.
    fn work(&self, mut line: Line) -> Ended {
        let mut state = self.shared.state();
        state.connected += 1;
        state.down_since = None;
        drop(state);
        let ended = loop {
            match self.next(&mut line) {
                Next::Work(job) => {
                    if !self.perform(&line, job) {
                        break Ended::Connection;
                    }
                }
                Next::Reconnect => break Ended::Connection,
                Next::End => break Ended::Store,
            }
        };
        let mut state = self.shared.state();
        state.connected -= 1;
        if state.connected == 0 {
            state.down_since = Some(instant());
        }
        drop(state);
        drop(line.client);
        if ended == Ended::Store {
            // Says goodbye to the server.
            let _ = self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(1), line.task).await });
        } else {
            line.task.abort();
        }
        ended
    }

    /// Waits for a job; meanwhile the connection is looked after, so that no job is given one that the server has closed.
    fn next(&self, line: &mut Line) -> Next {
        self.shared.state().idle += 1;
        let next = self.runtime.block_on(async {
            // Twice: once for the runtime to look at the socket, once for the connection's task to read what has come.
            yield_now().await;
            yield_now().await;
            tokio::select! {
                biased;
                _ = &mut line.task => Next::Reconnect,
                permit = self.shared.waiting.acquire() => {
                    if let Ok(permit) = permit {
                        permit.forget();
                    }
                    self.shared.state().jobs.pop_front().map_or(Next::End, Next::Work)
                }
            }
        });
        self.shared.state().idle -= 1;
        next
    }

    /// Does a job; `false` when its connection can't be used any more.
    fn perform(&self, line: &Line, job: Job) -> bool {
        let session = self.session(line, job.access);
        let (succeeded, acknowledge) = (job.work)(Ok(&session));
        if job.access == Access::Read {
            // What was read stays as it is; the end of the transaction is nobody's to wait for.
            acknowledge(session.failure().map_or(Ok(()), Err));
            let _ = session.end(false);
        } else {
            acknowledge(session.end(succeeded));
        }
        session.is_usable()
    }

    #[expect(clippy::disallowed_methods, reason = "the server is real, so are pauses before it is tried again")]
    fn sleep(&self, pause: Duration) {
        self.runtime.block_on(tokio::time::sleep(pause));
    }
}

#[derive(PartialEq, Eq)]
enum Ended {
    Store,
    Connection,
}

/// One transaction on PostgreSQL. `BEGIN` goes out with the first statement.
pub(super) struct Session<'a> {
    worker: &'a Worker<'a>,
    client: &'a Client,
    access: Access,
    /// Was `BEGIN` sent?
    open: Cell<bool>,
    /// The server's clock at `BEGIN`, and ours.
    begun: Cell<Option<(i64, Instant)>>,
    /// The first failure: PostgreSQL does nothing more in a transaction once a statement has failed, and answers a commit with a quiet rollback.
    failed: RefCell<Option<StoreError>>,
}

type Reply<T> = Result<T, tokio_postgres::Error>;

impl Session<'_> {
    pub(super) fn execute(&self, sql: &Sql, values: &[Val<'_>]) -> StoreResult<usize> {
        let (text, values) = (self.text(sql), typed(values));
        let changed = self.send(self.client.execute_typed(&text, &values))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    pub(super) fn execute_each(&self, sql: &Sql, rows: Vec<Vec<Val<'_>>>) -> StoreResult<()> {
        let text = self.text(sql);
        let rows: Vec<_> = rows.iter().map(|values| typed(values)).collect();
        // Sent in one go; they run in this order.
        self.send(try_join_all(rows.iter().map(|values| self.client.execute_typed(&text, values)))).map(drop)
    }

    pub(super) fn query(&self, sql: &Sql, values: &[Val<'_>]) -> StoreResult<Vec<tokio_postgres::Row>> {
        let (text, values) = (self.text(sql), typed(values));
        self.send(self.client.query_typed(&text, &values))
    }

    pub(super) fn batch(&self, text: &str) -> StoreResult<()> {
        self.send(self.client.batch_execute(text))
    }

    /// The server's clock, Unix milliseconds.
    pub(super) fn now_ms(&self) -> StoreResult<i64> {
        if self.begun.get().is_none() {
            self.send(async { Ok(()) })?;
        }
        let (theirs, ours) = self.begun.get().ok_or(StoreError::Closed)?;
        Ok(theirs + crate::clock::millis(passed(ours)))
    }

    #[cfg(test)]
    pub(super) fn prepare(&self, sql: &Sql) -> StoreResult<()> {
        let text = self.text(sql);
        self.send(self.client.prepare(&text)).map(drop)
    }

    /// The failed part of the job was rolled back to its savepoint.
    pub(super) fn forgive(&self) {
        if self.is_usable() {
            self.failed.take();
        }
    }

    fn failure(&self) -> Option<StoreError> {
        self.failed.borrow().clone()
    }

    fn is_usable(&self) -> bool {
        !self.client.is_closed() && !matches!(*self.failed.borrow(), Some(StoreError::Unreachable(_)))
    }

    /// Sends `statement`, behind `BEGIN` if it is the first one, and waits for its reply.
    fn send<T>(&self, statement: impl Future<Output = Reply<T>>) -> StoreResult<T> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        let is_open = self.open.replace(true);
        let sent = async {
            if is_open {
                return statement.await;
            }
            let (begun, done) = tokio::join!(biased; self.client.simple_query(self.access.begin()), statement);
            self.begun.set(Some((clock_of(&begun?), instant())));
            done
        };
        self.wait(sent)
    }

    fn wait<T>(&self, sent: impl Future<Output = Reply<T>>) -> StoreResult<T> {
        let limit = if self.access == Access::Migrate { Duration::from_secs(24 * 3600) } else { REPLY };
        let server = &self.worker.shared.server;
        let reply = self.worker.runtime.block_on(async { tokio::time::timeout(limit, sent).await });
        let reply = match reply {
            Ok(reply) => reply.map_err(|error| fault::statement(server, &error)),
            Err(_) => Err(fault::silent(server, limit)),
        };
        reply.inspect_err(|error| *self.failed.borrow_mut() = Some(error.clone()))
    }

    /// Commits, or gives everything back.
    fn end(&self, succeeded: bool) -> StoreResult<()> {
        if !self.open.get() {
            return self.failure().map_or(Ok(()), Err);
        }
        if let Some(failure) = self.failure().filter(|_| !self.is_usable()) {
            // The server ends the transaction with the connection.
            return Err(failure);
        }
        let failure = self.failed.take();
        let commits = succeeded && failure.is_none();
        let ended = self.wait(self.client.batch_execute(if commits { "COMMIT" } else { "ROLLBACK" }));
        match failure {
            Some(failure) => Err(failure),
            None => ended,
        }
    }

    fn text(&self, sql: &Sql) -> Rc<str> {
        let mut texts = self.worker.texts.borrow_mut();
        Rc::clone(texts.entry(sql.0).or_insert_with(|| statement_for_postgres(sql.0).into()))
    }
}

/// The last row of the reply to `BEGIN`.
fn clock_of(reply: &[SimpleQueryMessage]) -> i64 {
    let rows = reply.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    rows.last().unwrap_or_default()
}

/// Values with their types: an unnamed statement is parsed, bound and run in one go.
fn typed<'v>(values: &'v [Val<'v>]) -> Vec<(&'v (dyn ToSql + Sync), Type)> {
    let typed = values.iter().map(|value| {
        let kind = match value {
            Val::I(_) => Type::INT8,
            Val::T(_) => Type::TEXT,
            Val::B(_) => Type::BYTEA,
            // The server infers it from where the parameter stands.
            Val::Null => Type::UNKNOWN,
        };
        (value as &(dyn ToSql + Sync), kind)
    });
    typed.collect()
}

impl ToSql for Val<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Val::I(number) => out.put_i64(*number),
            // PostgreSQL's text has no NUL. What a caller or a provider sent with one must not keep the audit from being written.
            Val::T(text) if text.contains('\0') => out.put_slice(text.replace('\0', "\u{fffd}").as_bytes()),
            Val::T(text) => out.put_slice(text.as_bytes()),
            Val::B(bytes) => out.put_slice(bytes),
            Val::Null => return Ok(IsNull::Yes),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A whole number of whatever width: a column is BIGINT, an expression may be narrower.
pub(super) struct Int(pub(super) i64);

impl<'r> FromSql<'r> for Int {
    fn from_sql(kind: &Type, raw: &'r [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(match *kind {
            Type::INT2 => i16::from_sql(kind, raw)?.into(),
            Type::INT4 => i32::from_sql(kind, raw)?.into(),
            _ => i64::from_sql(kind, raw)?,
        }))
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::INT2 | Type::INT4 | Type::INT8)
    }
}

/// A column of a row.
pub(super) fn read<'r, T: FromSql<'r>>(row: &'r tokio_postgres::Row, column: usize) -> StoreResult<T> {
    row.try_get(column).map_err(|error| StoreError::Engine(Arc::new(error)))
}

#[expect(clippy::disallowed_methods, reason = "the server is real, so is the time a job waits for it")]
fn instant() -> Instant {
    Instant::now()
}

fn passed(since: Instant) -> Duration {
    instant().saturating_duration_since(since)
}
