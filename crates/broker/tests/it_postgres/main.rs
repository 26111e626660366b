//! The tests of `it` on PostgreSQL, but for those that meet no database.
#![allow(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]

#[path = "../it/access.rs"]
mod access;
#[path = "../it/app.rs"]
mod app;
#[path = "../it/attacks.rs"]
mod attacks;
#[path = "../it/canary.rs"]
mod canary;
#[path = "../it/checks.rs"]
mod checks;
#[path = "../it/consent.rs"]
mod consent;
#[path = "../it/crash.rs"]
mod crash;
#[path = "../it/database.rs"]
mod database;
#[path = "../it/fake.rs"]
mod fake;
#[path = "../it/gateway.rs"]
mod gateway;
#[path = "../it/grants.rs"]
mod grants;
#[path = "../it/logs.rs"]
mod logs;
#[path = "../it/postgres.rs"]
mod postgres;
#[path = "../it/recovery.rs"]
mod recovery;
#[path = "../it/renewal.rs"]
mod renewal;
#[path = "../it/scheduler.rs"]
mod scheduler;
#[path = "../it/start.rs"]
mod start;

const ON_POSTGRES: bool = true;
