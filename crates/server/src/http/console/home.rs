//! The first page: where to begin, or how things stand, what needs a person, advice, and what happened last.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use keyholder_broker::model::{Scope, Status};
use keyholder_broker::store::Filter;
use keyholder_broker::{Counts, Error, Page};

use super::super::App;
use super::super::problem::ApiError;
use super::advice::Shown;
use super::connection::ShownEvent;
use super::connections::{Listed, Pill, STATES};
use super::session::Person;
use super::{Frame, Menu, frame, places, render};

/// So many of those that need a person stand here; the list has all.
const SHOWN: i64 = 10;

/// As much advice stands here; its page has all.
const PIECES: usize = 3;
/// As many of the newest events.
const EVENTS: i64 = 12;

#[derive(Template)]
#[template(path = "console/home.html")]
struct InUse<'a> {
    page: Frame<'a>,
    tiles: Vec<Tile>,
    needing: Vec<Listed>,
    more: i64,
    more_href: String,
    advice: Vec<Shown>,
    more_advice: usize,
    events: Vec<ShownEvent>,
}

/// How many connections are in a state.
struct Tile {
    pill: Pill,
    count: i64,
    href: String,
}

#[derive(Template)]
#[template(path = "console/first.html")]
struct First<'a> {
    page: Frame<'a>,
    /// The sandbox can be begun by a button.
    sandbox: bool,
    may_manage: bool,
}

/// `GET /console/`.
pub(in crate::http) async fn page(State(app): State<App>, person: Person) -> Result<Response, ApiError> {
    let counts = app.broker.counts(&person.caller).await?;
    let page = frame(&app, &person, Menu::Home).await;
    if counts.integrations == 0 {
        let (sandbox, may_manage) = (app.broker.may_open_sandbox(), person.may(Scope::Manage));
        return Ok(render::page(&person, StatusCode::OK, &First { page, sandbox, may_manage }));
    }
    let needing = needing(&app, &person).await?;
    let all = counts.of(Status::Reconnect.as_str()) + counts.of(Status::Failing.as_str());
    let advice = app.broker.advice(&person.caller).await?;
    let events = app.broker.newest_events(&person.caller, EVENTS).await?;
    let template = InUse {
        page: page.live(places::events(None)),
        tiles: tiles(&counts),
        more: all - i64::try_from(needing.len()).unwrap_or(0),
        more_href: places::with(places::CONNECTIONS, &[("state", Status::Reconnect.as_str())]),
        needing,
        more_advice: advice.len().saturating_sub(PIECES),
        advice: advice.into_iter().take(PIECES).map(Shown::from).collect(),
        events: events.into_iter().map(ShownEvent::from).collect(),
    };
    Ok(render::page(&person, StatusCode::OK, &template))
}

async fn needing(app: &App, person: &Person) -> Result<Vec<Listed>, Error> {
    let mut needing = Vec::new();
    for state in [Status::Reconnect, Status::Failing] {
        let filter = Filter { state: Some(state), ..Filter::default() };
        let some = Page { after: String::new(), limit: SHOWN };
        needing.extend(app.broker.connections(&person.caller, &filter, &some).await?.iter().map(Listed::from));
    }
    needing.truncate(usize::try_from(SHOWN).unwrap_or(0));
    Ok(needing)
}

fn tiles(counts: &Counts) -> Vec<Tile> {
    let tile = |state: Status| Tile {
        pill: state.into(),
        count: counts.of(state.as_str()),
        href: places::with(places::CONNECTIONS, &[("state", state.as_str())]),
    };
    STATES.into_iter().map(tile).filter(|tile| tile.count > 0 || tile.pill.color == "green").collect()
}
