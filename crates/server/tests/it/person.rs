//! A person in a browser without scripts: keeps cookies, follows redirects on this machine, sends forms.

use std::collections::BTreeMap;
use std::sync::Mutex;

use http::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderName, Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use url::Url;

use crate::app::{Body, Reply, full, read};

/// One browser.
pub struct Person {
    base: String,
    wire: Client<HttpConnector, Body>,
    /// By host and port: stricter than a real browser, which forgets the port.
    cookies: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
}

/// What came back, and from where.
#[derive(Debug)]
pub struct Page {
    pub url: String,
    pub status: u16,
    pub reply: Reply,
}

impl Page {
    pub fn text(&self) -> String {
        self.reply.text()
    }

    /// Where it redirects to.
    pub fn location(&self) -> Option<Url> {
        self.reply.header(LOCATION.as_str())?.parse().ok()
    }

    /// A parameter of the redirect's query.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let location = self.location()?;
        location.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

impl Person {
    pub fn new(base: &str, wire: Client<HttpConnector, Body>) -> Self {
        Self { base: base.to_owned(), wire, cookies: Mutex::default() }
    }

    /// One request, no redirect followed. A path is the server's under test.
    pub async fn get(&self, url: &str) -> Page {
        self.send(Method::GET, url, &[], String::new()).await
    }

    /// A form of the page at `url`, sent to its own address as a browser does.
    pub async fn post(&self, url: &str, form: &[(&str, &str)]) -> Page {
        let own = self.base.clone();
        self.send(Method::POST, url, &[("origin", &own), ("sec-fetch-site", "same-origin")], encoded(form)).await
    }

    /// A form that another site sends.
    pub async fn post_with(&self, url: &str, headers: &[(&str, &str)], form: &[(&str, &str)]) -> Page {
        self.send(Method::POST, url, headers, encoded(form)).await
    }

    /// Opens `url` and follows redirects as long as they stay on this machine.
    pub async fn follow(&self, url: &str) -> Page {
        let first = self.get(url).await;
        self.follow_on(first).await
    }

    /// Follows the redirects of a page that is already there.
    pub async fn follow_on(&self, mut page: Page) -> Page {
        for _ in 0..10 {
            match page.location() {
                Some(next) if (300..400).contains(&page.status) && next.host_str() == Some("127.0.0.1") => {
                    page = self.get(next.as_str()).await;
                }
                _ => return page,
            }
        }
        panic!("too many redirects; the last: {page:?}")
    }

    /// The cookies for the server under test.
    pub fn cookies(&self) -> BTreeMap<String, String> {
        let authority = self.base.trim_start_matches("http://").to_owned();
        self.cookies.lock().unwrap().get(&authority).cloned().unwrap_or_default()
    }

    async fn send(&self, method: Method, url: &str, headers: &[(&str, &str)], form: String) -> Page {
        let url = if url.starts_with('/') { format!("{}{url}", self.base) } else { url.to_owned() };
        let parsed: Url = url.parse().unwrap();
        let authority = format!("{}:{}", parsed.host_str().unwrap(), parsed.port_or_known_default().unwrap());
        let mut request = Request::new(full(form));
        *request.method_mut() = method.clone();
        *request.uri_mut() = url.parse().unwrap();
        if method == Method::POST {
            request.headers_mut().insert(CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
        }
        for (name, value) in headers {
            request.headers_mut().insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        if let Some(jar) = self.cookies.lock().unwrap().get(&authority) {
            let pairs: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request.headers_mut().insert(COOKIE, pairs.join("; ").parse().unwrap());
        }
        let reply = read(self.wire.request(request).await.unwrap()).await;
        self.keep_cookies(&authority, &reply);
        Page { url, status: reply.status, reply }
    }

    fn keep_cookies(&self, authority: &str, reply: &Reply) {
        let mut jars = self.cookies.lock().unwrap();
        for cookie in reply.headers.get_all(SET_COOKIE) {
            let (name, rest) = cookie.to_str().unwrap().split_once('=').unwrap();
            let value = rest.split(';').next().unwrap_or_default();
            jars.entry(authority.to_owned()).or_default().insert(name.to_owned(), value.to_owned());
        }
    }
}

fn encoded(form: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}
