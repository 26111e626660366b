//! A form that came when its sender was signed out: it is kept in the page that asks to sign in, and sent again by one button. Nothing of it is stored,
//! and no secret goes back to the browser.

use askama::Template;
use axum::extract::Request;
use axum::response::Response;
use http::{StatusCode, header};
use keyholder_oauth::Secret;

use super::super::input::read_up_to;
use super::super::problem::{ApiError, Problem, Refusal};
use super::super::{App, assets};
use super::forms::{Field, Pairs};
use super::{places, render};

/// Most bytes of a form that is kept.
pub(super) const MOST: usize = 64 << 10;
/// How names of secrets end, where their form doesn't say which they are.
const SECRET: [&str; 12] = [
    "password",
    "secret",
    "client_key",
    "certificate_key",
    "refresh_token",
    "access_token",
    "api_key",
    "api-key",
    "assertion",
    "pin",
    "file",
    "env",
];

/// What is kept of a form.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) pairs: Vec<(String, String)>,
    /// Names of the secrets that were typed, which have to be typed again.
    pub(super) secrets: Vec<String>,
}

impl Kept {
    /// Of a form as it was posted.
    pub(super) fn of_posted(form: &Pairs) -> Self {
        let said = form.all("secrets");
        let is_secret = |name: &str| {
            let lower = name.to_lowercase();
            said.iter().any(|it| it == name) || SECRET.iter().any(|word| lower.ends_with(word))
        };
        let mut kept = Self::default();
        let ours = |name: &str| matches!(name, "csrf" | "secrets") || name.starts_with(super::proof::FIELDS);
        for (name, value) in form.iter().filter(|(name, _)| !ours(name)) {
            match is_secret(name) {
                false => kept.pairs.push((name.to_owned(), value.to_owned())),
                true if value.is_empty() => {}
                true => kept.secrets.push(name.to_owned()),
            }
        }
        kept
    }

    /// Of the form that signed in.
    pub(super) fn of_form(form: &Pairs) -> Self {
        let names = form.values("kept.name").map(str::to_owned);
        let values = form.values("kept.value").map(str::to_owned);
        Self { pairs: names.zip(values).collect(), secrets: form.all("lost") }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.secrets.is_empty()
    }
}

/// The page for a form that came too late.
pub(super) async fn signed_out(app: &App, path: String, request: Request) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let is_form = kind.starts_with("application/x-www-form-urlencoded");
    let body = match is_form {
        true => read_up_to(MOST, request).await,
        false => Err(Refusal::SignedOut.into()),
    };
    let problem = Problem::of_refusal(&Refusal::SignedOut);
    problem.log();
    let kept = match body {
        Ok(body) => Kept::of_posted(&Pairs::read(&body)),
        Err(ApiError(_)) => return render::problem_alone(&problem),
    };
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::OK);
    super::sign_in::sign_in_page(app, status, "", places::within(&path), None, kept)
}

#[derive(Template)]
#[template(path = "console/again.html")]
struct Again<'a> {
    style: String,
    csrf: String,
    place: &'a str,
    pairs: &'a [(String, String)],
    secrets: Vec<Field>,
}

/// After signing in: one button that sends it.
pub(super) async fn page(app: &App, session: &Secret, place: &str, kept: &Kept) -> Response {
    let csrf = match app.broker.session(session.expose()).await {
        Ok(found) => found.map(|it| it.csrf).unwrap_or_default(),
        Err(error) => return render::problem_alone(&Problem::of(&error)),
    };
    let secrets = kept.secrets.iter().map(|name| Field::text(name, name, "").secret(false)).collect();
    let template = Again { style: assets::console_paths().0, csrf, place, pairs: &kept.pairs, secrets };
    render::alone(StatusCode::OK, &template)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_kept() {
        let form = Pairs::read(b"csrf=x&again.password=hush&name=crm&client_secret=hush&variables.door=1234&secrets=variables.door&password=&scopes=a&scopes=b&Api-Key=z");
        let kept = Kept::of_posted(&form);
        let names: Vec<_> = kept.pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(names, ["name=crm", "scopes=a", "scopes=b"]);
        assert_eq!(kept.secrets, ["client_secret", "variables.door", "Api-Key"]);
    }
}
