//! The broker from outside: its verbs against a provider on a real socket, a file database and a clock that the test moves.
#![allow(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]

mod access;
mod advice;
mod app;
mod attacks;
mod canary;
mod checks;
mod consent;
mod crash;
mod database;
mod device;
mod egress;
mod fake;
mod fence;
mod gateway;
mod grants;
mod judgement;
mod language;
mod learning;
mod logs;
mod operators;
mod passkeys;
mod postgres;
mod recovery;
mod renewal;
mod scale;
mod scheduler;
mod setup;
mod sources;
mod sqlite_only;
mod start;
mod testing;
mod upstream;
mod versions;

/// Whether these tests run on PostgreSQL; `it_postgres` is the same on that engine.
const ON_POSTGRES: bool = false;
