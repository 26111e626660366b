//! The list of connections.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use keyholder_broker::ShownConnection;
use keyholder_broker::model::{Scope, Status};
use keyholder_broker::store::Filter;
use serde::Deserialize;

use super::super::App;
use super::super::api::connections::tag;
use super::super::input::{InQuery, PageQuery, cut};
use super::super::problem::ApiError;
use super::forms::Time;
use super::session::Person;
use super::{Frame, Menu, frame, places, render};

/// A state as people read it: a word, and the colour of its sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) struct Pill {
    pub(in crate::http) word: &'static str,
    pub(in crate::http) color: &'static str,
}

impl From<Status> for Pill {
    fn from(status: Status) -> Self {
        let (word, color) = match status {
            Status::Draft => ("Not connected yet", "grey"),
            Status::Pending => ("Waiting for a person", "amber"),
            Status::Connected => ("Connected", "green"),
            Status::Failing => ("Failing", "red"),
            Status::Reconnect => ("Reconnect", "red"),
            Status::Revoked => ("Disconnected", "grey"),
        };
        Self { word, color }
    }
}

/// States in the order in which they matter to somebody who looks.
pub(super) const STATES: [Status; 6] =
    [Status::Connected, Status::Failing, Status::Reconnect, Status::Pending, Status::Draft, Status::Revoked];

/// A connection in a list.
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) href: String,
    pub(super) pill: Pill,
    /// Why it doesn't work, and what to do.
    pub(super) reason: Option<String>,
    pub(super) account: String,
    pub(super) owner: String,
    pub(super) integration: String,
    pub(super) integration_href: String,
    pub(super) tags: Vec<String>,
    pub(super) next: Option<Time>,
}

impl From<&ShownConnection> for Listed {
    fn from(shown: &ShownConnection) -> Self {
        let it = &shown.connection;
        let reason = it.state.failure().map(|failure| format!("{} {}", failure.message, failure.remedy));
        Self {
            name: it.name.clone(),
            href: places::connection(it.id.as_str()),
            pill: it.state.status().into(),
            reason,
            account: it.account.clone().unwrap_or_default(),
            owner: it.owner.clone().unwrap_or_default(),
            integration: shown.integration.clone(),
            integration_href: places::integration(it.integration.as_str()),
            tags: it.tags.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            next: it.due_at.map(Time::at),
        }
    }
}

/// What the list is narrowed to, as it stands in the address.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::http) struct Narrow {
    search: String,
    state: String,
    owner: String,
    tag: String,
    provider: String,
    integration: String,
    after: String,
}

impl Narrow {
    fn is_narrow(&self) -> bool {
        [&self.search, &self.state, &self.owner, &self.tag, &self.provider, &self.integration]
            .iter()
            .any(|it| !it.is_empty())
    }

    fn next(&self, after: &str) -> String {
        let query = [
            ("search", self.search.as_str()),
            ("state", &self.state),
            ("owner", &self.owner),
            ("tag", &self.tag),
            ("provider", &self.provider),
            ("integration", &self.integration),
            ("after", after),
        ];
        places::with(places::CONNECTIONS, &query)
    }
}

#[derive(Template)]
#[template(path = "console/connections.html")]
struct List<'a> {
    page: Frame<'a>,
    narrow: &'a Narrow,
    /// Value, word, whether it is chosen.
    states: Vec<(&'static str, &'static str, bool)>,
    items: Vec<Listed>,
    next: Option<String>,
    first: bool,
    narrowed: bool,
    may_manage: bool,
}

/// `GET /console/connections`.
pub(in crate::http) async fn list(
    State(app): State<App>,
    person: Person,
    InQuery(narrow): InQuery<Narrow>,
) -> Result<Response, ApiError> {
    let page = PageQuery::new(Some(narrow.after.clone()), None).page()?;
    let items = match filter(&app, &person, &narrow).await? {
        Some(filter) => app.broker.connections(&person.caller, &filter, &page).await?,
        None => Vec::new(),
    };
    let (items, next) = cut(items, &page, |it| it.connection.id.to_string());
    let chosen = |state: Status| (state.as_str(), Pill::from(state).word, narrow.state == state.as_str());
    let template = List {
        page: frame(&app, &person, Menu::Connections).await.live(places::events(None)),
        states: STATES.into_iter().map(chosen).collect(),
        items: items.iter().map(Listed::from).collect(),
        next: next.map(|after| narrow.next(&after)),
        first: narrow.after.is_empty(),
        narrowed: narrow.is_narrow(),
        may_manage: person.may(Scope::Manage),
        narrow: &narrow,
    };
    Ok(render::page(&person, StatusCode::OK, &template))
}

/// What is asked for; `None`: nothing can fit.
async fn filter(app: &App, person: &Person, narrow: &Narrow) -> Result<Option<Filter>, ApiError> {
    let given = |text: &str| Some(text.trim()).filter(|text| !text.is_empty()).map(str::to_owned);
    let integration = match given(&narrow.integration) {
        None => None,
        Some(name) => match app.broker.integration(&person.caller, &name).await {
            Ok(found) => Some(found.id),
            Err(keyholder_broker::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        },
    };
    let state = match given(&narrow.state) {
        None => None,
        Some(word) => match Status::from_stored(&word) {
            Some(state) => Some(state),
            None => return Ok(None),
        },
    };
    Ok(Some(Filter {
        integration,
        state,
        owner: given(&narrow.owner),
        provider: given(&narrow.provider),
        tag: given(&narrow.tag).as_deref().map(tag),
        search: given(&narrow.search),
    }))
}
