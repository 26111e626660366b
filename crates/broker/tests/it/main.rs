//! The broker from outside: its verbs against a provider on a real socket, a file database and a clock that the test moves.
#![allow(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]

mod app;
mod crash;
mod fake;
mod grants;
mod logs;
mod renewal;
