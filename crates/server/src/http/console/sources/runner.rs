//! Running a saved request, and looking at the reply.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use keyholder_broker::model::{SavedRequest, SourceSpec};
use keyholder_broker::{FieldError, Preview, RunReply, ShownSource, SourceRun, Tried};
use serde_json::Value;

use super::super::super::App;
use super::super::super::input::InPaths;
use super::super::super::problem::ApiError;
use super::super::forms::{Field, Pairs, Posted, Wrong, mark, wrongs};
use super::super::session::Person;
use super::super::test::Step;
use super::super::{Frame, Menu, frame, places, render};
use super::request::{of, place};

#[derive(Template)]
#[template(path = "console/runner.html")]
struct Runner<'a> {
    page: Frame<'a>,
    source: String,
    source_href: String,
    name: String,
    description: String,
    line: String,
    edit: String,
    action: String,
    wrong: Vec<Wrong>,
    fields: Vec<Field>,
    reply: Option<Reply>,
    failed: Option<Step>,
}

/// What came back.
struct Reply {
    status: u16,
    expected: bool,
    took_ms: i64,
    size: String,
    truncated: bool,
    headers: Vec<(String, String)>,
    /// A text, or what there is instead of one.
    body: String,
    is_text: bool,
    extracted: Option<String>,
    problem: Option<String>,
}

/// `GET /console/sources/{source}/requests/{request}/run`.
pub(in crate::http) async fn page(
    State(app): State<App>,
    person: Person,
    InPaths([source, request]): InPaths<2>,
) -> Result<Response, ApiError> {
    let it = app.broker.source(&person.caller, &source).await?;
    of(&it, &request)?;
    Ok(show(&app, &person, &it, &request, &Pairs::read(b""), Came::Nothing).await)
}

/// `POST /console/sources/{source}/requests/{request}/run`.
pub(in crate::http) async fn run(
    State(app): State<App>,
    person: Person,
    InPaths([source, request]): InPaths<2>,
    posted: Posted,
) -> Result<Response, ApiError> {
    let it = app.broker.source(&person.caller, &source).await?;
    of(&it, &request)?;
    let wish = SourceRun { variables: posted.below("variables."), owner: posted.opt("owner"), limit: None };
    match app.broker.try_request(&person.caller, it.source.id.as_str(), &request, wish).await {
        Ok(tried) => Ok(show(&app, &person, &it, &request, &posted, Came::Back(Box::new(tried))).await),
        Err(error) => {
            let wrong = wrongs(&error).ok_or(error)?;
            Ok(show(&app, &person, &it, &request, &posted, Came::Wrong(wrong)).await)
        }
    }
}

/// What came of it.
enum Came {
    Nothing,
    Back(Box<Tried>),
    Wrong(Vec<FieldError>),
}

async fn show(app: &App, person: &Person, it: &ShownSource, name: &str, form: &Pairs, came: Came) -> Response {
    let spec = &it.source.spec;
    let request = spec.requests.get(name).cloned().unwrap_or_default();
    let mut fields = fields(spec, &request, form);
    if it.connection.is_none() {
        let help = "Each caller has a connection of their own here: say whose is used.";
        fields.push(Field::text("owner", "Whose connection", help).value(form.one("owner")));
    }
    let (status, wrong, tried) = match came {
        Came::Nothing => (StatusCode::OK, Vec::new(), None),
        Came::Back(tried) => (StatusCode::OK, Vec::new(), Some(tried)),
        Came::Wrong(wrong) => (StatusCode::UNPROCESSABLE_ENTITY, wrong, None),
    };
    let wrong = mark(&mut fields.iter_mut().collect::<Vec<_>>(), &wrong);
    let (reply, failed) = tried.map_or((None, None), |it| (it.reply, it.failed));
    let edit = place(it.source.id.as_str(), name);
    let template = Runner {
        page: frame(app, person, Menu::Sources).await,
        source: it.source.name.clone(),
        source_href: places::source(it.source.id.as_str()),
        name: name.to_owned(),
        line: format!("{} {}", super::method_of(&request), request.path),
        description: request.description,
        action: format!("{edit}/run"),
        edit,
        wrong,
        fields,
        reply: reply.map(shown),
        failed: failed.map(|step| Step::of(1, &step)),
    };
    render::page(person, status, &template)
}

/// A row for each placeholder of this request. Values of secret variables stay where they are.
fn fields(spec: &SourceSpec, request: &SavedRequest, form: &Pairs) -> Vec<Field> {
    let texts = serde_json::json!([request, spec.headers, spec.query]).to_string();
    let names = placeholders(&texts);
    let unknown = names.iter().filter(|name| !spec.variables.contains_key(**name)).map(|name| {
        let field = format!("variables.{name}");
        let typed = form.opt(&field).unwrap_or_default();
        Field::text(field, *name, "Given at each run, where the connection has no such value.").value(typed)
    });
    let used = spec.variables.iter().filter(|(name, it)| !it.secret && names.contains(name.as_str()));
    let row = |(name, it): (&String, &keyholder_broker::model::SourceVariable)| {
        let label = if it.label.is_empty() { name } else { &it.label };
        let typed = form.opt(&format!("variables.{name}")).unwrap_or_default();
        let row = Field::text(format!("variables.{name}"), label, &it.help).value(typed);
        let row = match it.value.as_ref().or(it.default.as_ref()) {
            Some(value) => row.example(value.clone()),
            None if it.required => row.required(),
            None => row,
        };
        if it.choices.is_empty() {
            return row;
        }
        let none = (String::new(), "as it is set".to_owned());
        row.choices(std::iter::once(none).chain(it.choices.iter().map(|value| (value.clone(), value.clone()))))
    };
    used.map(row).chain(unknown).collect()
}

/// The names between double braces, each once.
fn placeholders(text: &str) -> BTreeSet<&str> {
    let inside = text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(name, _)| name.trim());
    let is_name = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    inside.filter(is_name).collect()
}

fn shown(run: RunReply) -> Reply {
    let kind = run.headers.get("content-type").cloned().unwrap_or_default();
    let (body, is_text) = match &run.preview {
        Preview::Text(text) => (pretty(text), true),
        Preview::Bytes(bytes) => {
            let kind = if kind.is_empty() { "unknown type" } else { &kind };
            (format!("{} of {kind}; not shown, because it is no text.", bytes_of(bytes.len() as u64)), false)
        }
    };
    Reply {
        status: run.status,
        expected: run.expected,
        took_ms: run.took_ms,
        size: run.size.map_or_else(|| "unknown".to_owned(), bytes_of),
        truncated: run.truncated,
        headers: run.headers.into_iter().collect(),
        body,
        is_text,
        extracted: run.extracted.map(|found| serde_json::to_string_pretty(&found).unwrap_or_default()),
        problem: run.problem,
    }
}

/// JSON on several lines; anything else as it came.
fn pretty(text: &str) -> String {
    let read = serde_json::from_str::<Value>(text).ok().filter(|value| value.is_object() || value.is_array());
    read.and_then(|value| serde_json::to_string_pretty(&value).ok()).unwrap_or_else(|| text.to_owned())
}

fn bytes_of(count: u64) -> String {
    match count {
        1 => "1 byte".to_owned(),
        0..10_000 => format!("{count} bytes"),
        _ => format!("{} kB", count / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_found_once() {
        let found = placeholders("[\"/a/{{id}}?b={{ b }}&c={{id}}\", \"{{}} {{a.b}} {{cut\"]");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["b", "id"]);
    }

    #[test]
    fn json_is_indented_and_nothing_else_is_touched() {
        assert_eq!(pretty("{\"a\":[1]}"), "{\n  \"a\": [\n    1\n  ]\n}");
        for text in ["<html>", "1", "", "{\"cut\":"] {
            assert_eq!(pretty(text), text);
        }
        assert_eq!(
            (bytes_of(1), bytes_of(9999), bytes_of(10_000)),
            ("1 byte".into(), "9999 bytes".into(), "10 kB".into())
        );
    }
}
