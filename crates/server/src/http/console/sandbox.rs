//! The sandbox in this process, for a first try: begun by a button, reachable from this machine alone, gone with the process.

use std::net::Ipv4Addr;

use axum::extract::State;
use axum::response::Response;
use keyholder_broker::model::{Said, Values};
use keyholder_broker::{Broker, Error, NewConnection, NewIntegration, SetUp, Wanted};
use keyholder_oauth::Secret;
use keyholder_sandbox::Options;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;

use super::super::App;
use super::super::problem::ApiError;
use super::forms::Posted;
use super::session::Person;
use super::{places, render};

/// Short enough to see a renewal, in seconds.
const ACCESS_TTL: u64 = 300;
/// Tries to find a name that is free.
const TRIES: u32 = 50;

/// Where it runs, once it does.
#[derive(Default)]
pub(in crate::http) struct SandboxPlace(OnceCell<String>);

impl SandboxPlace {
    /// Starts it, unless it runs; answers its URL.
    async fn start(&self, broker: &Broker) -> Result<&str, Error> {
        let started = self.0.get_or_try_init(|| async {
            let failed = |error: std::io::Error| Error::NotPossible(format!("the sandbox could not start: {error}"));
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            broker.open_sandbox(address)?;
            let options = Options { any_redirect: true, access_ttl: ACCESS_TTL, ..Options::default() };
            tokio::spawn(keyholder_sandbox::run(listener, options, std::future::pending()));
            Ok(format!("http://{address}"))
        });
        started.await.map(String::as_str)
    }
}

/// `POST /console/sandbox`: starts it, and sets up one connection of a program and one of a person.
pub(in crate::http) async fn start(State(app): State<App>, person: Person, _: Posted) -> Result<Response, ApiError> {
    let base = app.sandbox.start(&app.broker).await?;
    let machine = set_up(&app, &person, base, "sandbox-app", "client_credentials").await?;
    app.broker.authorize(&person.caller, &machine, None, None).await?;
    set_up(&app, &person, base, "sandbox-user", "authorization_code").await?;
    let text = "The sandbox runs, and two connections were made. This one has its token already: test it. The other, sandbox-user, waits for a person, who signs in as alice (password wonderland).";
    Ok(render::moved(places::connection(&machine), Said::good(text)))
}

/// Integration and connection of this name, or with a number behind it where that is taken; answers the connection's id.
async fn set_up(app: &App, person: &Person, base: &str, stem: &str, method: &str) -> Result<String, ApiError> {
    for number in 1..=TRIES {
        let name = if number == 1 { stem.to_owned() } else { format!("{stem}-{number}") };
        let integration = Wanted::New(Box::new(integration(base, &name, method)));
        let connection = Some(NewConnection { name, ..NewConnection::default() });
        match app.broker.set_up(&person.caller, SetUp { integration, connection }).await {
            Ok((_, Some(made))) => return Ok(made.connection.id.to_string()),
            Ok((_, None)) => return Err(Error::Internal("a connection was not made").into()),
            Err(Error::Taken { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::NotPossible(format!("there are {TRIES} connections named {stem} already; remove some")).into())
}

fn integration(base: &str, name: &str, method: &str) -> NewIntegration {
    let mut variables: Values = [("token_url", "/token"), ("revocation_url", "/revoke"), ("api_base_url", "/api")]
        .map(|(name, path)| (name.to_owned(), format!("{base}{path}")))
        .into();
    if method == "authorization_code" {
        variables.insert("authorization_url".to_owned(), format!("{base}/authorize"));
    }
    NewIntegration {
        name: name.to_owned(),
        description: "The sandbox in this process, for a first try.".to_owned(),
        provider: "oauth2".to_owned(),
        method: Some(method.to_owned()),
        client_id: "sandbox-basic".to_owned(),
        client_secret: Some(Secret::new("sandbox-secret")),
        scopes: vec!["read".to_owned(), "write".to_owned()],
        variables,
        ..NewIntegration::default()
    }
}
