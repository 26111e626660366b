//! A small browser: it follows redirects, keeps cookies, and fills in the forms of server-rendered pages.

use std::collections::BTreeMap;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request};
use keyholder_broker::egress::{Bounds, Egress};
use keyholder_oauth::SecretBytes;
use url::{Url, form_urlencoded};

use super::super::error::{CliError, Result};
use super::form::{Form, forms};

/// More redirects than this are a circle.
const MOST_REDIRECTS: usize = 10;

/// One person's browser.
pub(super) struct Browser {
    egress: Egress,
    /// By host, as browsers keep them: cookies know no ports (RFC 6265 §8.5).
    cookies: BTreeMap<String, BTreeMap<String, String>>,
}

/// What is on the screen.
pub(super) struct Page {
    pub(super) url: Url,
    pub(super) status: u16,
    pub(super) html: String,
}

impl Page {
    /// The first form that has a field or button of this name and value, or simply the first form.
    pub(super) fn form(&self, with: Option<(&str, &str)>) -> Result<Form> {
        let fits = |form: &Form| {
            with.is_none_or(|(name, value)| {
                form.fields.iter().chain(&form.buttons).any(|(known, has)| known == name && has == value)
            })
        };
        forms(&self.html).into_iter().find(fits).ok_or_else(|| {
            CliError::Failed(format!(
                "the page at {}{} (status {}) has no such form",
                origin(&self.url),
                self.url.path(),
                self.status
            ))
        })
    }
}

impl Browser {
    /// A browser that has been nowhere.
    pub(super) fn new(egress: Egress) -> Self {
        Self { egress, cookies: BTreeMap::new() }
    }

    /// Opens a link.
    pub(super) async fn open(&mut self, url: &str) -> Result<Page> {
        let url = url.parse().map_err(|_| CliError::Failed(format!("`{url}` is no link")))?;
        self.go(Method::GET, url, None, None).await
    }

    /// Sends a form of the page with these fields.
    pub(super) async fn submit(&mut self, page: &Page, form: &Form, fields: &[(String, String)]) -> Result<Page> {
        let bad = || CliError::Failed(format!("the form leads to `{}`, which is no address", form.action));
        let mut target =
            if form.action.is_empty() { page.url.clone() } else { page.url.join(&form.action).map_err(|_| bad())? };
        let encoded = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        if form.method != "post" {
            target.set_query(Some(&encoded));
            return self.go(Method::GET, target, None, None).await;
        }
        self.go(Method::POST, target, Some(encoded), Some(origin(&page.url))).await
    }

    async fn go(
        &mut self,
        mut method: Method,
        mut url: Url,
        mut body: Option<String>,
        mut from: Option<String>,
    ) -> Result<Page> {
        for _ in 0..MOST_REDIRECTS {
            let request = self.request(&method, &url, body.as_deref(), from.as_deref())?;
            let fetched = self
                .egress
                .fetch(request, Bounds::PROVIDER)
                .await
                .map_err(|error| CliError::Failed(error.to_string()))?;
            self.keep_cookies(&url, &fetched.headers);
            let location = fetched.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
            match (fetched.status, location) {
                (status @ 300..=399, Some(location)) => {
                    url = url.join(location).map_err(|_| CliError::Failed("a redirect leads nowhere".to_owned()))?;
                    // RFC 9110 §15.4: all but 307 and 308 turn a POST into a GET.
                    if !matches!(status, 307 | 308) {
                        (method, body, from) = (Method::GET, None, None);
                    }
                }
                (status, _) => {
                    let html = String::from_utf8_lossy(fetched.body.expose()).into_owned();
                    return Ok(Page { url, status, html });
                }
            }
        }
        Err(CliError::Failed(format!("{} redirects in a circle", origin(&url))))
    }

    fn request(
        &self,
        method: &Method,
        url: &Url,
        body: Option<&str>,
        from: Option<&str>,
    ) -> Result<Request<SecretBytes>> {
        let bad = |_| CliError::Failed("a page's address can't be called".to_owned());
        let mut request = Request::new(SecretBytes::new(body.unwrap_or_default().as_bytes().to_vec()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = url.as_str().split('#').next().unwrap_or_default().parse().map_err(bad)?;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/html"));
        if body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        }
        let cookies = self.cookies.get(url.host_str().unwrap_or_default()).into_iter().flatten();
        let cookies = cookies.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        let lines = [(header::COOKIE, Some(cookies.as_str())), (header::ORIGIN, from)];
        for (name, value) in
            lines.into_iter().filter_map(|(name, value)| Some((name, value.filter(|v| !v.is_empty())?)))
        {
            headers.insert(name, value.parse().map_err(|_| CliError::Failed("a cookie fits no header".to_owned()))?);
        }
        Ok(request)
    }

    fn keep_cookies(&mut self, url: &Url, headers: &HeaderMap) {
        let jar = self.cookies.entry(url.host_str().unwrap_or_default().to_owned()).or_default();
        for line in headers.get_all(header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok()) {
            let mut parts = line.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { continue };
            if parts.any(|part| part.eq_ignore_ascii_case("max-age=0")) {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::api::client_for;

    #[test]
    fn cookies_are_kept_by_host_and_taken_away() {
        let url: Url = "http://127.0.0.1:1/".parse().unwrap();
        let mut browser = Browser::new(client_for(&[&url], None).unwrap());
        let mut keep = |line: &str| {
            let headers = HeaderMap::from_iter([(header::SET_COOKIE, line.parse().unwrap())]);
            browser.keep_cookies(&url, &headers);
            let request = browser.request(&Method::GET, &url, None, None).unwrap();
            request.headers().get(header::COOKIE).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(keep("a=1=2; Path=/; HttpOnly").as_deref(), Some("a=1=2"));
        assert_eq!(keep("b=; Path=/").as_deref(), Some("a=1=2; b="));
        assert_eq!(keep("a=; Max-Age=0").as_deref(), Some("b="));
    }
}
