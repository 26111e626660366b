//! Running a saved request, and looking at the reply.

use std::collections::BTreeSet;
use std::io;

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

/// Most of what was found, and of an indented body, that a page shows, in bytes.
const MOST: usize = 1 << 20;

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
    let extracted = run.extracted.map(|found| list(&found));
    let is_cut = extracted.as_ref().is_some_and(|(_, is_all)| !is_all);
    let more = is_cut.then(|| "more was found than is shown; narrow the JSONPath".to_owned());
    Reply {
        status: run.status,
        expected: run.expected,
        took_ms: run.took_ms,
        size: run.size.map_or_else(|| "unknown".to_owned(), bytes_of),
        truncated: run.truncated,
        headers: run.headers.into_iter().collect(),
        body,
        is_text,
        extracted: extracted.map(|(text, _)| text),
        problem: run.problem.or(more),
    }
}

/// JSON on several lines; anything else, and what would grow too long, as it came.
fn pretty(text: &str) -> String {
    let read = serde_json::from_str::<Value>(text).ok().filter(|value| value.is_object() || value.is_array());
    let fits = |value: &Value| Room(MOST).takes(value);
    read.filter(fits).and_then(|it| serde_json::to_string_pretty(&it).ok()).unwrap_or_else(|| text.to_owned())
}

/// As many of these as there is room for, and whether that is all.
fn list(found: &[Value]) -> (String, bool) {
    let mut room = Room(MOST);
    let shown = found.iter().take_while(|value| room.takes(value)).count();
    (serde_json::to_string_pretty(&found[..shown]).unwrap_or_default(), shown == found.len())
}

/// Bytes that may still be written. Indented, what is deeply nested is many times as long as it came, so it is measured before it is written.
struct Room(usize);

impl Room {
    fn takes(&mut self, value: &Value) -> bool {
        serde_json::to_writer_pretty(self, value).is_ok()
    }
}

impl io::Write for Room {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        // In a list each line is indented once more.
        let lines = text.iter().filter(|it| **it == b'\n').count();
        self.0 = self.0.checked_sub(text.len() + 2 * lines).ok_or(io::ErrorKind::StorageFull)?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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

    #[test]
    fn what_is_deeply_nested_does_not_flood_the_page() {
        let nested = format!("{}{}{}", "[".repeat(120), "1,".repeat(30_000) + "1", "]".repeat(120));
        assert_eq!(pretty(&nested), nested, "too long when indented");
        let deep: Value = serde_json::from_str(&format!("{}{}", "[".repeat(120), "]".repeat(120))).unwrap();
        let run = |found: Vec<Value>| {
            shown(RunReply {
                status: 200,
                expected: true,
                headers: Default::default(),
                preview: Preview::Text(String::new()),
                size: Some(0),
                truncated: false,
                extracted: Some(found),
                problem: None,
                took_ms: 1,
            })
        };
        let reply = run(vec![deep.clone(); 1000]);
        let text = reply.extracted.unwrap();
        assert!((MOST / 2..=MOST + 100).contains(&text.len()), "{}", text.len());
        assert!(reply.problem.unwrap().contains("more was found than is shown"));
        let all: Vec<Value> = serde_json::from_str(&run(vec![deep; 3]).extracted.unwrap()).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(run(Vec::new()).problem, None);
    }
}
