//! The JSON API: one file a group; a handler reads the request, calls one verb of the broker, shapes the reply.

pub(super) mod advice;
pub(super) mod connections;
pub(super) mod integrations;
pub(super) mod keys;
pub(super) mod operations;
pub(super) mod operators;
pub(super) mod providers;
pub(super) mod sessions;
pub(super) mod sources;
pub(super) mod usage;
