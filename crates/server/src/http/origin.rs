//! Where a request comes from: this site or another, under which of our names, with which cookie.

use axum::response::{IntoResponse, Redirect, Response};
use http::header::{COOKIE, HOST, HeaderMap, HeaderValue, ORIGIN};
use keyholder_oauth::Secret;
use url::Url;

use super::App;

/// A form from elsewhere: told by `Sec-Fetch-Site`, or where that is missing by `Origin`. Programs that send neither bring no browser's cookies.
pub(super) fn is_cross_site(app: &App, headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let public = app.broker.public_url().origin().ascii_serialization();
    origin.as_bytes() != public.as_bytes()
}

/// On one machine the server has two names; a cookie would be lost between them. Everything happens under the public one: where else it was asked for
/// `path`, it answers the way there.
pub(super) fn canonical(app: &App, headers: &HeaderMap, path: &str) -> Option<Response> {
    let public = app.broker.public_url();
    let host = headers.get(HOST)?.to_str().ok()?;
    let asked = Url::parse(&format!("{}://{host}/", public.scheme())).ok()?;
    let loopback = |url: &Url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if asked.host_str() == public.host_str() || !loopback(&asked) || !loopback(public) {
        return None;
    }
    // What isn't plain might not fit a header.
    if !path.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let target = format!("{}{path}", public.as_str().trim_end_matches('/'));
    Some(Redirect::temporary(&target).into_response())
}

/// A cookie of ours: what browsers are told of it follows from the public URL.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cookie {
    /// Its name without the prefix.
    pub(super) name: &'static str,
    /// `Lax` or `Strict`.
    pub(super) same_site: &'static str,
    /// On plain http, where cookies don't tell ports apart and another program of this machine may answer.
    pub(super) path_on_http: &'static str,
    /// In seconds.
    pub(super) lives: u32,
}

impl Cookie {
    /// `__Host-` ties the cookie to exactly this host over https (RFC 6265bis §4.1.3.2); plain http on loopback can't have it.
    fn name(&self, app: &App) -> String {
        format!("{}{}", if is_https(app) { "__Host-" } else { "" }, self.name)
    }

    /// The value that a browser brings.
    pub(super) fn read(&self, app: &App, headers: &HeaderMap) -> Option<String> {
        let name = self.name(app);
        let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(';')).find_map(|pair| {
            pair.trim().split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        })
    }

    /// The header that sets it.
    pub(super) fn set(&self, app: &App, value: &Secret) -> Option<HeaderValue> {
        self.header(app, value.expose(), self.lives)
    }

    /// The header that takes it away.
    pub(super) fn clear(&self, app: &App) -> Option<HeaderValue> {
        self.header(app, "", 0)
    }

    fn header(&self, app: &App, value: &str, lives: u32) -> Option<HeaderValue> {
        let (secure, path) = if is_https(app) { ("; Secure", "/") } else { ("", self.path_on_http) };
        let (name, same_site) = (self.name(app), self.same_site);
        let text = format!("{name}={value}; Path={path}; HttpOnly; SameSite={same_site}; Max-Age={lives}{secure}");
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

fn is_https(app: &App) -> bool {
    app.broker.public_url().scheme() == "https"
}
