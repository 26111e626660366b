//! Styles and scripts of the pages: from this server, under names that change with their content.

use axum::response::{IntoResponse, Response};
use http::header;

use super::connect::brand;
use super::input::InPath;
use super::problem::{ApiError, Refusal};

/// A file, with its name, its text and its type.
struct Asset {
    stem: &'static str,
    ending: &'static str,
    text: &'static str,
    kind: &'static str,
}

const FOR_EVER: &str = "public, max-age=31536000, immutable";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

const ASSETS: [Asset; 4] = [
    Asset { stem: "keyholder", ending: "css", text: include_str!("../assets/keyholder.css"), kind: CSS },
    Asset { stem: "console", ending: "css", text: include_str!("../assets/console.css"), kind: CSS },
    Asset { stem: "console", ending: "js", text: include_str!("../assets/console.js"), kind: JS },
    Asset { stem: "passkey", ending: "js", text: include_str!("../assets/passkey.js"), kind: JS },
];

impl Asset {
    /// With a hash of its content, so that it can be cached for ever.
    fn path(&self) -> String {
        let hash = keyholder_oauth::sha256(self.text.as_bytes());
        let short: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("/assets/{}-{short}.{}", self.stem, self.ending)
    }
}

/// Path of the style sheet of the pages of consent.
pub(super) fn style_path() -> String {
    ASSETS[0].path()
}

/// Paths of the console's style and script.
pub(super) fn console_paths() -> (String, String) {
    (ASSETS[1].path(), ASSETS[2].path())
}

/// Path of the script that asks browsers for passkeys.
pub(super) fn passkey_path() -> String {
    ASSETS[3].path()
}

pub(super) async fn file(InPath(file): InPath) -> Result<Response, ApiError> {
    // Made of its name alone; and what pages of others load by a name that stays.
    if let Some(text) = brand::css(&file) {
        let headers = [
            (header::CONTENT_TYPE, CSS),
            (header::CACHE_CONTROL, FOR_EVER),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        return Ok((headers, text).into_response());
    }
    if file == "connect.js" {
        let headers = [
            (header::CONTENT_TYPE, JS),
            (header::CACHE_CONTROL, "public, max-age=3600"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        return Ok((headers, include_str!("../assets/connect.js")).into_response());
    }
    let wanted = format!("/assets/{file}");
    let found = ASSETS.iter().find(|asset| asset.path() == wanted).ok_or(Refusal::NoRoute)?;
    let headers = [
        (header::CONTENT_TYPE, found.kind),
        (header::CACHE_CONTROL, FOR_EVER),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, found.text).into_response())
}
