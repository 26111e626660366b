//! The tests of `it` on PostgreSQL, but for those that meet no database.
#![allow(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]

#[path = "../it/access.rs"]
mod access;
#[path = "../it/advice.rs"]
mod advice;
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
#[path = "../it/device.rs"]
mod device;
#[path = "../it/fake.rs"]
mod fake;
#[path = "../it/gateway.rs"]
mod gateway;
#[path = "../it/grants.rs"]
mod grants;
#[path = "../it/judgement.rs"]
mod judgement;
#[path = "../it/language.rs"]
mod language;
#[path = "../it/learning.rs"]
mod learning;
#[path = "../it/logs.rs"]
mod logs;
#[path = "../it/operators.rs"]
mod operators;
#[path = "../it/passkeys.rs"]
mod passkeys;
#[path = "../it/postgres.rs"]
mod postgres;
#[path = "../it/recovery.rs"]
mod recovery;
#[path = "../it/renewal.rs"]
mod renewal;
mod replicas;
#[path = "../it/scheduler.rs"]
mod scheduler;
#[path = "../it/setup.rs"]
mod setup;
#[path = "../it/sources.rs"]
mod sources;
#[path = "../it/start.rs"]
mod start;
#[path = "../it/testing.rs"]
mod testing;
#[path = "../it/versions.rs"]
mod versions;

const ON_POSTGRES: bool = true;

/// A file of tests that is forgotten here would run on one engine only.
#[test]
fn no_file_is_forgotten() {
    const ONE_ENGINE: [&str; 5] = ["egress", "fence", "scale", "sqlite_only", "upstream"];
    let (all, here) = (include_str!("../it/main.rs"), include_str!("main.rs"));
    let modules = all.lines().filter(|line| line.starts_with("mod "));
    let missing: Vec<_> = modules
        .filter(|line| !here.contains(*line) && !ONE_ENGINE.iter().any(|one| *line == format!("mod {one};")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}: add them, or say that they meet no database");
}
