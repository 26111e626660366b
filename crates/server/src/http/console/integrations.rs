//! The list of integrations.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use keyholder_broker::model::{Integration, Scope};
use serde::Deserialize;

use super::super::App;
use super::super::input::{InQuery, PageQuery, cut};
use super::super::problem::ApiError;
use super::forms::Time;
use super::session::Person;
use super::{Frame, Menu, frame, places, render};

/// An integration in the list.
struct Listed {
    name: String,
    href: String,
    description: String,
    provider: String,
    method: String,
    /// When the provider stops taking its client secret.
    ends: Option<Time>,
    connections_href: String,
}

impl From<&Integration> for Listed {
    fn from(it: &Integration) -> Self {
        Self {
            name: it.name.clone(),
            href: places::integration(it.id.as_str()),
            description: it.description.clone(),
            provider: it.provider.clone(),
            method: it.method.clone(),
            ends: it.client_secret_expires_at.map(Time::at),
            connections_href: places::with(places::CONNECTIONS, &[("integration", &it.name)]),
        }
    }
}

#[derive(Template)]
#[template(path = "console/integrations.html")]
struct List<'a> {
    page: Frame<'a>,
    items: Vec<Listed>,
    next: Option<String>,
    first: bool,
    may_manage: bool,
}

/// Where the list goes on.
#[derive(Deserialize)]
pub(in crate::http) struct After {
    #[serde(default)]
    after: String,
}

/// `GET /console/integrations`.
pub(in crate::http) async fn list(
    State(app): State<App>,
    person: Person,
    InQuery(After { after }): InQuery<After>,
) -> Result<Response, ApiError> {
    let page = PageQuery::new(Some(after.clone()), None).page()?;
    let (items, next) = cut(app.broker.integrations(&person.caller, &page).await?, &page, |it| it.id.to_string());
    let template = List {
        page: frame(&app, &person, Menu::Integrations).await,
        items: items.iter().map(Listed::from).collect(),
        next: next.map(|after| places::with(places::INTEGRATIONS, &[("after", &after)])),
        first: after.is_empty(),
        may_manage: person.may(Scope::Manage),
    };
    Ok(render::page(&person, StatusCode::OK, &template))
}
