//! Keyholder's ways in: configuration, HTTP server, command line.
//!
//! The program is [`cli::main`]; tests start [`http::run`] on a socket of their own. [`rehearsal`] tries definitions out.

pub mod cli;
pub mod config;
pub mod http;
pub mod rehearsal;
