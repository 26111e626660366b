//! The crate from outside: exact request bytes, and replies as servers really send them.
#![allow(missing_docs, clippy::unwrap_used)]

mod consent;
mod device;
mod failures;
mod metadata;
mod never;
mod replies;
mod requests;
mod revocation;
mod signing;
