//! Rendering.

use std::collections::BTreeMap;

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{StatusCode, header};
use keyholder_broker::{DeviceCode, FieldError, OpenSession, Question};
use keyholder_provider::Kind;

use super::brand::Look;
use super::words::fill;

#[derive(Template)]
#[template(path = "invitation.html")]
struct Invitation<'a> {
    look: &'a Look,
    provider: &'a str,
    asks: String,
    scopes: &'a [(String, Option<String>)],
    questions: Vec<Asked<'a>>,
    failed: Option<&'a str>,
    stays_here: bool,
}

/// A field of a form, as `field.html` shows it. A secret is never sent back as its value.
struct Asked<'a> {
    name: &'a str,
    label: &'a str,
    help: &'a str,
    value: &'a str,
    required: bool,
    secret: bool,
    kind: Kind,
    choices: &'a [(String, String)],
    example: Option<&'a str>,
    wrong: Option<String>,
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct Confirm<'a> {
    look: &'a Look,
    provider: String,
    account: Option<String>,
    connection: String,
    scope: Vec<String>,
}

#[derive(Template)]
#[template(path = "device.html")]
struct Device<'a> {
    look: &'a Look,
    provider: String,
    user_code: &'a str,
    address: &'a str,
    complete: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "choose.html")]
struct Choice<'a> {
    look: &'a Look,
    provider: String,
    lookup: String,
    options: Vec<(String, String)>,
    wrong: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "message.html")]
struct MessagePage<'a> {
    look: &'a Look,
    mark: Mark,
    title: String,
    text: String,
    remedy: Option<String>,
}

/// A page that only says something.
pub(super) struct Message {
    pub(super) mark: Mark,
    pub(super) title: String,
    pub(super) text: String,
    pub(super) remedy: Option<String>,
}

/// How it came out, at a glance.
#[derive(Clone, Copy)]
pub(super) enum Mark {
    Good,
    Neutral,
    Bad,
}

impl Mark {
    fn class(self) -> &'static str {
        match self {
            Mark::Good => "good",
            Mark::Neutral => "neutral",
            Mark::Bad => "bad",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Mark::Good => "✓",
            Mark::Neutral => "–",
            Mark::Bad => "!",
        }
    }
}

/// The invitation; with what was typed and what is wrong with it, when it comes a second time. Typed secrets are not sent back.
pub(super) fn invitation(
    look: &Look,
    session: &OpenSession,
    typed: &BTreeMap<String, String>,
    errors: &[FieldError],
) -> Response {
    let wrong = |question: &Question| {
        let field = format!("variables.{}", question.name);
        let error = errors.iter().find(|error| error.field == field)?;
        // The remedy is often the help, which stands below anyway.
        let remedy = if error.remedy == question.help { String::new() } else { format!("; {}", error.remedy) };
        Some(format!("{}{remedy}", error.reason))
    };
    let questions = session.questions.iter().map(|q| Asked {
        name: &q.name,
        label: &q.label,
        help: &q.help,
        value: if q.secret { "" } else { typed.get(&q.name).unwrap_or(&q.value) },
        required: q.required,
        secret: q.secret,
        kind: q.kind,
        choices: &q.choices,
        example: q.example.as_deref(),
        wrong: wrong(q),
    });
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    let template = Invitation {
        look,
        provider: &session.provider,
        asks: asks(look, &session.provider, &session.integration),
        scopes: &session.scopes,
        questions: questions.collect(),
        failed: session.failed.as_deref(),
        stays_here: session.stays_here,
    };
    html(look, status, &template)
}

/// Who asks: the operator by name, where there is one, for the application.
fn asks(look: &Look, provider: &str, integration: &str) -> String {
    let text = if look.name.is_empty() { look.words.asks } else { look.words.asks_for };
    fill(text, &[("name", &look.name), ("provider", provider), ("integration", integration)])
}

pub(super) fn confirmation(
    look: &Look,
    provider: String,
    account: Option<String>,
    connection: String,
    scope: Vec<String>,
) -> Response {
    html(look, StatusCode::OK, &Confirm { look, provider, account, connection, scope })
}

/// How often a page that waits looks again.
const LOOK_EVERY: HeaderValue = HeaderValue::from_static("5");

/// A code, and where to type it. The page loads itself again, without a script, until there is something to go on with.
pub(super) fn device(look: &Look, provider: String, code: &DeviceCode) -> Response {
    let template = Device {
        look,
        provider,
        user_code: &code.user_code,
        address: &code.verification_uri,
        complete: code.verification_uri_complete.as_deref(),
    };
    let mut response = html(look, StatusCode::OK, &template);
    response.headers_mut().insert(header::REFRESH, LOOK_EVERY);
    response
}

/// What the account has several of; `wrong` where none was chosen.
pub(super) fn choice(
    look: &Look,
    provider: String,
    lookup: String,
    options: Vec<(String, String)>,
    wrong: Option<&'static str>,
) -> Response {
    let status = if wrong.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    html(look, status, &Choice { look, provider, lookup, options, wrong })
}

pub(super) fn message(look: &Look, status: StatusCode, message: Message) -> Response {
    let Message { mark, title, text, remedy } = message;
    html(look, status, &MessagePage { look, mark, title, text, remedy })
}

fn html(look: &Look, status: StatusCode, template: &impl Template) -> Response {
    let Ok(text) = template.render() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers: [(HeaderName, HeaderValue); 7] = [
        (CONTENT_SECURITY_POLICY, look.policy.clone()),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
    ];
    (status, headers, Html(text)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every page type, with what a hostile provider or person could put into it.
    #[test]
    fn nothing_that_comes_from_outside_becomes_markup() {
        let evil = "<script>alert(1)</script>\"'&".to_owned();
        let look = Look {
            style: evil.clone(),
            colors: Some(evil.clone()),
            name: evil.clone(),
            logo: Some(evil.clone()),
            words: &super::super::words::ENGLISH,
            policy: HeaderValue::from_static(""),
        };
        let choices = [(evil.clone(), evil.clone()), ("other".to_owned(), evil.clone())];
        let asked = |kind, choices| Asked {
            name: &evil,
            label: &evil,
            help: &evil,
            value: &evil,
            required: true,
            secret: false,
            kind,
            choices,
            example: Some(&evil),
            wrong: Some(evil.clone()),
        };
        let scopes = [(evil.clone(), Some(evil.clone())), (evil.clone(), None)];
        let pages = [
            Invitation {
                look: &look,
                provider: &evil,
                asks: evil.clone(),
                scopes: &scopes,
                questions: vec![asked(Kind::Text, &[]), asked(Kind::Pem, &[]), asked(Kind::Text, &choices)],
                failed: Some(&evil),
                stays_here: true,
            }
            .render(),
            Confirm {
                look: &look,
                provider: evil.clone(),
                account: Some(evil.clone()),
                connection: evil.clone(),
                scope: vec![evil.clone()],
            }
            .render(),
            Device { look: &look, provider: evil.clone(), user_code: &evil, address: &evil, complete: Some(&evil) }
                .render(),
            Choice {
                look: &look,
                provider: evil.clone(),
                lookup: evil.clone(),
                options: vec![(evil.clone(), evil.clone()), (evil.clone(), "x".to_owned())],
                wrong: Some("Choose one of these."),
            }
            .render(),
            MessagePage {
                look: &look,
                mark: Mark::Bad,
                title: evil.clone(),
                text: evil.clone(),
                remedy: Some(evil.clone()),
            }
            .render(),
        ];
        for page in pages {
            let page = page.unwrap();
            assert!(!page.contains("<script"), "{page}");
            assert!(page.contains("&#60;script") || page.contains("&lt;script"), "{page}");
        }
    }

    /// Help and mistake are read out with their field.
    #[test]
    fn help_hangs_together_with_its_field() {
        let field = Asked {
            name: "shop",
            label: "Shop",
            help: "Its address",
            value: "",
            required: true,
            secret: false,
            kind: Kind::Text,
            choices: &[],
            example: None,
            wrong: Some("wrong".to_owned()),
        };
        let look = Look {
            style: String::new(),
            colors: None,
            name: String::new(),
            logo: None,
            words: &super::super::words::ENGLISH,
            policy: HeaderValue::from_static(""),
        };
        let page = Invitation {
            look: &look,
            provider: "Example",
            asks: String::new(),
            scopes: &[],
            questions: vec![field],
            failed: None,
            stays_here: false,
        };
        let page = page.render().unwrap();
        assert!(page.contains("aria-describedby=\"w-shop h-shop\""), "{page}");
        assert!(page.contains("id=\"h-shop\">Its address"), "{page}");
    }
}
