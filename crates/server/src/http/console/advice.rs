//! Advice: what was found, why it matters, where it is mended.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use keyholder_broker::model::{Said, Scope};
use keyholder_broker::{Advice, Severity};

use super::super::App;
use super::super::problem::ApiError;
use super::forms::Posted;
use super::session::Person;
use super::{Frame, Menu, frame, places, render};

#[derive(Template)]
#[template(path = "console/advice.html")]
struct Page<'a> {
    page: Frame<'a>,
    advice: Vec<Shown>,
    may_dismiss: bool,
}

/// A piece of advice.
pub(super) struct Shown {
    pub(super) rule: &'static str,
    pub(super) severity: &'static str,
    pub(super) color: &'static str,
    pub(super) what: &'static str,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) text: String,
    pub(super) reason: &'static str,
    pub(super) source: &'static str,
    pub(super) href: String,
    pub(super) link: &'static str,
}

/// `GET /console/advice`.
pub(in crate::http) async fn page(State(app): State<App>, person: Person) -> Result<Response, ApiError> {
    let advice = app.broker.advice_now(&person.caller).await?;
    let template = Page {
        page: frame(&app, &person, Menu::Advice).await,
        advice: advice.into_iter().map(Shown::from).collect(),
        may_dismiss: person.may(Scope::Manage),
    };
    Ok(render::page(&person, StatusCode::OK, &template))
}

impl From<Advice> for Shown {
    fn from(it: Advice) -> Self {
        let (severity, color) = match it.severity {
            Severity::High => ("high", "red"),
            Severity::Medium => ("medium", "amber"),
            Severity::Low => ("low", ""),
        };
        Self {
            rule: it.rule,
            severity,
            color,
            what: it.on.what(),
            id: it.on.id().to_owned(),
            name: it.on.name().to_owned(),
            text: it.text,
            reason: it.reason,
            source: it.source,
            href: it.href,
            link: it.link,
        }
    }
}

/// `POST /console/advice/dismiss`.
pub(in crate::http) async fn dismiss(
    State(app): State<App>,
    person: Person,
    form: Posted,
) -> Result<Response, ApiError> {
    app.broker.dismiss_advice(&person.caller, form.one("rule"), form.one("on")).await?;
    Ok(render::moved(places::ADVICE, Said::good("It is put aside for three months.")))
}
