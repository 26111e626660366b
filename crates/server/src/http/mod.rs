//! The HTTP server: the table of routes, and the loop that serves it.

mod api;
mod assets;
mod caller;
mod clients;
mod connect;
mod console;
mod front;
mod gateway;
mod health;
mod idempotency;
mod input;
mod openapi;
mod origin;
mod problem;
mod routes;
mod serve;
mod stream;

pub use openapi::document;
pub use problem::Problem;
pub use routes::{Route, table};
pub use serve::{run, run_by};

use keyholder_broker::Broker;

/// What every handler has at hand.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) broker: Broker,
    /// False once the server is told to stop: the readiness probe says so before anything else changes.
    pub(crate) serving: std::sync::Arc<std::sync::atomic::AtomicBool>,
    /// The pages of the console.
    pages: std::sync::Arc<console::Pages>,
    /// The sandbox in this process, once somebody tries it.
    sandbox: std::sync::Arc<console::sandbox::SandboxPlace>,
}

impl App {
    fn new(broker: Broker, serving: std::sync::Arc<std::sync::atomic::AtomicBool>) -> Self {
        Self { broker, serving, pages: std::sync::Arc::new(routes::pages()), sandbox: std::sync::Arc::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_in_the_document_with_its_scope() {
        let document = document();
        for route in table().into_iter().filter(|route| route.documented) {
            let path = route.path.replace("{*path}", "{path}");
            let method = if route.method == "any" { "get" } else { route.method };
            let operation = &document["paths"][&path][method];
            assert_eq!(operation["summary"], route.summary, "{method} {path}");
            assert_eq!(operation["x-scope"].as_str(), route.scope.map(|scope| scope.as_str()), "{method} {path}");
            assert_eq!(route.scope.is_some(), path.starts_with("/v1/"), "{path}: everything under /v1 asks for a key");
        }
    }
}
