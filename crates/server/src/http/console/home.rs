//! The first page.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::super::App;
use super::session::Person;
use super::{Frame, Menu, frame, render};

#[derive(Template)]
#[template(path = "console/home.html")]
struct Home<'a> {
    page: Frame<'a>,
}

/// `GET /console/`.
pub(in crate::http) async fn page(State(app): State<App>, person: Person) -> Response {
    let page = frame(&app, &person, Menu::Home).await;
    render::page(&person, StatusCode::OK, &Home { page })
}
