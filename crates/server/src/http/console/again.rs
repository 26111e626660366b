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
const SECRET: [&str; 15] = [
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
    // Of data sources: keys stand there in the open too.
    "variables.value",
    "headers.value",
    "query.value",
];

/// How names of values end whose rows have names of their own, `headers.name` and `headers.value`.
const COLUMN: &str = ".value";

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
                // Rows are read in step, so those that were empty keep their place.
                true if value.is_empty() && !name.ends_with(COLUMN) => {}
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

    /// The secrets to type again, with their labels; an empty one where a row has no name.
    fn asked(&self) -> impl Iterator<Item = (&str, String)> {
        self.secrets.iter().enumerate().map(|(at, name)| {
            let label = name.strip_suffix(COLUMN).map(|group| {
                let before = self.secrets[..at].iter().filter(|it| *it == name).count();
                let names = self.pairs.iter().filter(|(it, _)| it.strip_suffix(".name") == Some(group));
                let row = names.map(|(_, row)| row.trim()).nth(before).filter(|row| !row.is_empty());
                row.map(|row| format!("{group}: {row}")).unwrap_or_default()
            });
            (name.as_str(), label.unwrap_or_else(|| name.clone()))
        })
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
    let secrets = kept.asked().map(|(name, label)| Field::text(name, label, "").secret(false)).collect();
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

    #[test]
    fn values_of_rows_are_typed_again_in_their_rows() {
        let form = Pairs::read(b"headers.name=&headers.value=&headers.name=X-Key&headers.value=hush&variables.name=a&variables.value=&variables.name=b&variables.value=hush");
        let kept = Kept::of_posted(&form);
        assert!(kept.pairs.iter().all(|(_, value)| value != "hush"));
        let asked: Vec<_> = kept.asked().collect();
        let expected = [
            ("headers.value", ""),
            ("headers.value", "headers: X-Key"),
            ("variables.value", "variables: a"),
            ("variables.value", "variables: b"),
        ];
        assert_eq!(asked, expected.map(|(name, label)| (name, label.to_owned())));
    }
}
