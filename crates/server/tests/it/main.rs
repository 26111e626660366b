//! The whole program on the wire: a real server on a port of its own, a misbehaving provider on another.
#![allow(clippy::unwrap_used, reason = "a test that can't go on shall stop")]
#![allow(clippy::disallowed_methods, reason = "a test opens sockets and reads the environment as a client does")]

mod against_peers;
mod api_connections;
mod api_idempotency;
mod api_input;
mod api_integrations;
mod api_keys;
mod api_sources;
mod app;
mod bad_clients;
mod bad_input;
mod bad_upstreams;
mod browser;
mod canary;
mod connect_pages;
mod console;
mod front;
mod gateway;
mod gateway_clients;
mod house_rules;
mod idle_clients;
mod import;
mod openapi;
mod peers;
mod person;
mod posted;
#[path = "../../../broker/tests/it/postgres.rs"]
mod postgres;
mod process;
mod rehearsal;
mod rehearsal_language;
mod replicas;
mod routes_covered;
mod stop;
mod streaming;
mod torture;
mod watched;
