//! The pages' style: one file, from this server, under a name that changes with its content.

use axum::response::{IntoResponse, Response};
use http::header;

use super::input::InPath;
use super::problem::{ApiError, Refusal};

const STYLE: &str = include_str!("../assets/keyholder.css");

/// Path of the style sheet, with a hash of its content, so that it can be cached for ever.
pub(super) fn style_path() -> String {
    let hash = keyholder_oauth::sha256(STYLE.as_bytes());
    let short: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("/assets/keyholder-{short}.css")
}

pub(super) async fn file(InPath(file): InPath) -> Result<Response, ApiError> {
    if format!("/assets/{file}") != style_path() {
        return Err(Refusal::NoRoute.into());
    }
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, STYLE).into_response())
}
