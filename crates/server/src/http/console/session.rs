//! In front of every page: who is signed in, and whether they may.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, Method, header};
use keyholder_broker::model::{Caller, Said, Scope, Theme};
use keyholder_broker::{Error, SignedIn};
use keyholder_oauth::Secret;

use super::super::App;
use super::super::origin::{Cookie, canonical, is_cross_site};
use super::super::problem::{ApiError, Problem, Refusal};
use super::{again, places, proof, render};

/// The session's cookie. Strict: nothing that another site begins is done as somebody who is signed in here.
pub(in crate::http) const COOKIE: Cookie =
    Cookie { name: "keyholder-console", same_site: "Strict", path_on_http: "/console", lives: 7 * 24 * 60 * 60 };

/// Sent by the script, where it asks for a part of a page: that must not use up what the page itself shall say.
pub(super) const PART: &str = "keyholder-part";

/// Who looks at a page.
#[derive(Clone)]
pub(in crate::http) struct Person {
    pub(in crate::http) caller: Arc<Caller>,
    pub(in crate::http) name: String,
    pub(in crate::http) csrf: String,
    pub(in crate::http) theme: Option<Theme>,
    /// Where they are: path and query.
    pub(in crate::http) path: String,
    /// When they signed in, Unix milliseconds.
    pub(in crate::http) since: i64,
    /// They have shown who they are in the last ten minutes.
    pub(in crate::http) proved: bool,
    token: Secret,
    /// There is something to be said on this page.
    has_said: bool,
}

impl Person {
    /// Whether their role allows it.
    pub(in crate::http) fn may(&self, scope: Scope) -> bool {
        self.caller.may(scope)
    }

    /// The next page says this.
    pub(in crate::http) async fn said(&self, app: &App, said: Said) {
        if let Err(error) = app.broker.say(self.token.expose(), &said).await {
            Problem::of(&error).log();
        }
    }

    pub(super) async fn take_said(&self, app: &App) -> Vec<Said> {
        if !self.has_said {
            return Vec::new();
        }
        app.broker.take_said(self.token.expose()).await.unwrap_or_else(|error| {
            Problem::of(&error).log();
            Vec::new()
        })
    }

    pub(super) fn token(&self) -> &Secret {
        &self.token
    }
}

/// What is asked of whoever opens a page or sends a form.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Guard {
    /// What they must be allowed.
    pub(in crate::http) scope: Scope,
    /// It is dangerous: they must have shown who they are in the last ten minutes.
    pub(in crate::http) dangerous: bool,
}

/// Lets nobody through who isn't signed in or may not; turns problems into pages, and keeps what the next page shall say.
pub(in crate::http) async fn layer(State((app, guard)): State<(App, Guard)>, request: Request, next: Next) -> Response {
    let path = request.uri().path_and_query().map_or(places::HOME, |it| it.as_str()).to_owned();
    let posted = request.method() == Method::POST;
    if !posted && let Some(elsewhere) = canonical(&app, request.headers(), &path) {
        return elsewhere;
    }
    if posted && is_cross_site(&app, request.headers()) {
        return refused_alone(&Refusal::CrossSite);
    }
    let mut person = match person(&app, request.headers(), path.clone()).await {
        Ok(Some(person)) => person,
        Ok(None) if posted => return again::signed_out(&app, path, request).await,
        Ok(None) => return render::to(places::sign_in(places::within(&path))),
        Err(error) => return refused_by(&error),
    };
    if let Err(error) = app.broker.require(&person.caller, guard.scope) {
        return paged(&app, &person, ApiError::from(error)).await;
    }
    let passed = match guard.dangerous && !person.proved {
        true => proof::pass(&app, &person, request).await,
        false => Ok(request),
    };
    let mut response = match passed {
        Ok(mut request) => {
            person.proved |= guard.dangerous;
            request.extensions_mut().insert(person.clone());
            next.run(request).await
        }
        Err(asking) => asking,
    };
    if let Some(said) = response.extensions_mut().remove::<Said>() {
        person.said(&app, said).await;
    }
    match response.extensions_mut().remove::<Box<Problem>>() {
        Some(problem) => render::problem(&app, &person, &problem).await,
        None => response,
    }
}

async fn paged(app: &App, person: &Person, ApiError(problem): ApiError) -> Response {
    problem.log();
    render::problem(app, person, &problem).await
}

fn refused_alone(refusal: &Refusal) -> Response {
    let problem = Problem::of_refusal(refusal);
    problem.log();
    render::problem_alone(&problem)
}

fn refused_by(error: &Error) -> Response {
    let problem = Problem::of(error);
    problem.log();
    render::problem_alone(&problem)
}

/// Whoever the cookie says is there.
pub(super) async fn person(app: &App, headers: &HeaderMap, path: String) -> Result<Option<Person>, Error> {
    let Some(token) = COOKIE.read(app, headers) else { return Ok(None) };
    let Some(found) = app.broker.session(&token).await? else { return Ok(None) };
    let SignedIn { operator, caller, csrf, has_said, since, proved } = found;
    let has_said = has_said && !headers.contains_key(PART);
    Ok(Some(Person {
        caller,
        name: operator.name,
        csrf,
        theme: operator.theme,
        path,
        since,
        proved,
        token: Secret::new(token),
        has_said,
    }))
}

impl<S: Send + Sync> FromRequestParts<S> for Person {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Only a route without this layer could lack it, and that would be our mistake.
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| Error::Internal("a page without a person asks for one").into())
    }
}

/// Sets the cookie of a new session.
pub(super) fn signed_in(app: &App, token: &Secret, mut response: Response) -> Response {
    if let Some(cookie) = COOKIE.set(app, token) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}
