//! The form of a data source: shown, and read.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::response::Response;
use http::StatusCode;
use keyholder_broker::model::{AllowRule, Behind, SavedRequest, SourceSpec, SourceVariable, Values};
use keyholder_broker::store::Filter;
use keyholder_broker::{FieldError, NewSource, Page, ShownSource, SourceEdit, VariableEdit, Wanted};
use serde::Deserialize;

use super::super::super::App;
use super::super::super::problem::ApiError;
use super::super::forms::{Field, Pairs, Wrong, mark};
use super::super::session::Person;
use super::super::setup::stale;
use super::super::{Frame, Menu, frame, places, render};
use super::rule;

/// How the form begins.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::http) struct Query {
    /// The connection that was made for it.
    connection: String,
}

/// What stands in the form.
pub(super) struct Typed {
    /// Of what it was opened with.
    version: String,
    name: String,
    description: String,
    connection: String,
    integration: String,
    base_url: String,
    health: String,
    allow: String,
    headers: Vec<(String, String)>,
    query: Vec<(String, String)>,
    variables: Vec<Row>,
}

/// A variable's row.
#[derive(Clone, Default)]
struct Row {
    name: String,
    label: String,
    value: String,
    /// `optional`, `required`, `secret`.
    kind: String,
    /// A secret is stored, which stays where nothing is typed.
    kept: bool,
}

impl Row {
    /// As it goes to the browser: a secret that was typed doesn't.
    fn shown(&self, it: Option<&ShownSource>) -> Self {
        let before = it.and_then(|it| it.source.spec.variables.get(&self.name));
        let kept = before.is_some_and(|before| before.secret);
        let value = if self.kind == "secret" { String::new() } else { self.value.clone() };
        Self { value, kept, ..self.clone() }
    }
}

#[derive(Template)]
#[template(path = "console/source_form.html")]
struct Form<'a> {
    page: Frame<'a>,
    title: String,
    key: String,
    back: String,
    version: i64,
    /// What somebody else saved meanwhile, by label.
    stored: Vec<(&'static str, String)>,
    came: bool,
    wrong: Vec<Wrong>,
    about: Vec<Field>,
    behind: Vec<Field>,
    /// Where a connection is made beside this form.
    panel: Option<String>,
    base: Vec<Field>,
    pairs: Vec<Pairing>,
    variables: Vec<Row>,
    variables_wrong: Option<String>,
}

/// Names and values.
struct Pairing {
    name: &'static str,
    legend: &'static str,
    help: &'static str,
    rows: Vec<(String, String)>,
    wrong: Option<String>,
}

pub(super) fn empty(query: &Query) -> Typed {
    let form = [("connection", query.connection.as_str())];
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    posted(&Pairs::read(body.as_bytes()))
}

pub(super) fn posted(form: &Pairs) -> Typed {
    let text = |name: &str| form.one(name).to_owned();
    Typed {
        version: text("version"),
        name: text("name"),
        description: text("description"),
        connection: text("connection"),
        integration: text("integration"),
        base_url: text("base_url"),
        health: text("health"),
        allow: text("allow"),
        headers: form.pairs("headers"),
        query: form.pairs("query"),
        variables: rows(form),
    }
}

pub(super) fn stored(it: &ShownSource) -> Typed {
    let (source, spec) = (&it.source, &it.source.spec);
    let pairs = |values: &Values| values.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let (connection, integration) = match &source.behind {
        Behind::Connection(id) => (id.to_string(), String::new()),
        Behind::EachCallers(id) => (String::new(), id.to_string()),
    };
    let row = |(name, it): (&String, &SourceVariable)| Row {
        name: name.clone(),
        label: it.label.clone(),
        value: it.value.clone().filter(|_| !it.secret).unwrap_or_default(),
        kind: if it.secret {
            "secret"
        } else if it.required {
            "required"
        } else {
            "optional"
        }
        .to_owned(),
        kept: it.secret,
    };
    Typed {
        version: source.generation.to_string(),
        name: source.name.clone(),
        description: source.description.clone(),
        connection,
        integration,
        base_url: source.base_url.clone().unwrap_or_default(),
        health: spec.health.as_ref().map(|it| it.path.clone()).unwrap_or_default(),
        allow: spec.allow.iter().map(rule).collect::<Vec<_>>().join("\n"),
        headers: pairs(&spec.headers),
        query: pairs(&spec.query),
        variables: spec.variables.iter().map(row).collect(),
    }
}

/// The rows of variables, in step; empty ones left out.
fn rows(form: &Pairs) -> Vec<Row> {
    let column =
        |name: &'static str| form.iter().filter(move |(key, _)| *key == name).map(|(_, value)| value.trim().to_owned());
    let mut labels = column("variables.label");
    let mut values = column("variables.value");
    let mut kinds = column("variables.kind");
    let all = column("variables.name").map(|name| Row {
        name,
        label: labels.next().unwrap_or_default(),
        value: values.next().unwrap_or_default(),
        kind: kinds.next().unwrap_or_default(),
        kept: false,
    });
    all.filter(|row| !(row.name.is_empty() && row.label.is_empty() && row.value.is_empty())).collect()
}

/// `GET HEAD /contacts/**`: methods, then the path.
fn rules(text: &str) -> Vec<AllowRule> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let mut words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
            let path = words.pop().unwrap_or_default().to_owned();
            AllowRule { methods: words.into_iter().map(str::to_uppercase).collect(), path }
        })
        .collect()
}

fn health(path: &str, before: Option<&SavedRequest>) -> Option<SavedRequest> {
    let before = before.cloned().unwrap_or_default();
    (!path.is_empty()).then(|| SavedRequest { path: path.to_owned(), ..before })
}

/// A variable, with what the form doesn't show as it was.
fn variable(row: &Row, before: Option<&SourceVariable>) -> SourceVariable {
    let before = before.cloned().unwrap_or_default();
    let secret = row.kind == "secret";
    SourceVariable {
        label: row.label.clone(),
        value: Some(row.value.clone()).filter(|value| !value.is_empty()),
        required: if secret { before.required || !before.secret } else { row.kind != "optional" },
        secret,
        ..before
    }
}

/// Two rows of one name would silently be one.
fn doubled<'a>(field: &str, mut names: impl Iterator<Item = &'a String>) -> Option<FieldError> {
    let mut seen = BTreeSet::new();
    let twice = names.find(|name| !seen.insert(name.as_str()))?;
    let reason = format!("`{}` stands there twice", twice.chars().take(60).collect::<String>());
    Some(FieldError::new(field, reason, "take one of them away"))
}

fn check(typed: &Typed) -> Result<(), Vec<FieldError>> {
    let both = !typed.connection.is_empty() && !typed.integration.is_empty();
    let remedy = "choose a connection, or an integration under which each caller has its own";
    let both = both.then(|| FieldError::new("integration", "there is a connection too", remedy));
    let wrong: Vec<_> = [
        both,
        doubled("headers", typed.headers.iter().map(|(name, _)| name)),
        doubled("query", typed.query.iter().map(|(name, _)| name)),
        doubled("variables", typed.variables.iter().map(|row| &row.name)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

pub(super) fn new_source(form: &Pairs) -> Result<NewSource, Vec<FieldError>> {
    let typed = posted(form);
    check(&typed)?;
    let named = |id: &str| Some(id.to_owned()).filter(|id| !id.is_empty());
    Ok(NewSource {
        name: typed.name.clone(),
        description: typed.description,
        base_url: named(&typed.base_url),
        connection: named(&typed.connection).map(Wanted::Named),
        integration: named(&typed.integration).map(Wanted::Named),
        spec: SourceSpec {
            headers: typed.headers.into_iter().collect(),
            query: typed.query.into_iter().collect(),
            variables: typed.variables.iter().map(|row| (row.name.clone(), variable(row, None))).collect(),
            health: health(&typed.health, None),
            requests: BTreeMap::new(),
            allow: rules(&typed.allow),
        },
    })
}

/// What is other than it was. What was taken out of the form is taken away.
pub(super) fn edit_of(form: &Pairs, it: &ShownSource) -> Result<SourceEdit, Vec<FieldError>> {
    let typed = posted(form);
    let (source, spec) = (&it.source, &it.source.spec);
    check(&typed)?;
    if typed.version != source.generation.to_string() {
        return Err(stale("data source"));
    }
    let changed = |new: &[(String, String)], old: &Values| -> BTreeMap<String, Option<String>> {
        let gone = old.keys().filter(|name| !new.iter().any(|(it, _)| it == *name)).map(|name| (name.clone(), None));
        new.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).chain(gone).collect()
    };
    let kept = typed.variables.iter().map(|row| {
        let whole = VariableEdit::Whole(Box::new(variable(row, spec.variables.get(&row.name))));
        (row.name.clone(), Some(whole))
    });
    let gone = spec.variables.keys().filter(|name| !typed.variables.iter().any(|row| row.name == **name));
    let named = |id: &str| Some(id.to_owned()).filter(|id| !id.is_empty());
    Ok(SourceEdit {
        name: Some(typed.name.clone()),
        description: Some(typed.description.clone()),
        base_url: Some(named(&typed.base_url)),
        connection: named(&typed.connection),
        integration: named(&typed.integration),
        headers: changed(&typed.headers, &spec.headers),
        query: changed(&typed.query, &spec.query),
        variables: kept.chain(gone.map(|name| (name.clone(), None))).collect(),
        requests: BTreeMap::new(),
        health: Some(health(&typed.health, spec.health.as_ref())),
        allow: Some(rules(&typed.allow)),
    })
}

/// What is stored where something else was typed.
fn differences(stored: &Typed, typed: &Typed) -> Vec<(&'static str, String)> {
    let pairs = |rows: &[(String, String)]| rows.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let variables =
        |rows: &[Row]| rows.iter().map(|row| format!("{} ({}) {}\n", row.name, row.kind, row.value)).collect();
    let texts = |it: &Typed| -> [(&'static str, String); 8] {
        [
            ("Name", it.name.clone()),
            ("Description", it.description.clone()),
            ("Base URL", it.base_url.clone()),
            ("Health check", it.health.clone()),
            ("What may be called", it.allow.lines().collect::<Vec<_>>().join("\n")),
            ("Headers", pairs(&it.headers)),
            ("Parameters", pairs(&it.query)),
            ("Variables", variables(&it.variables)),
        ]
    };
    texts(stored).into_iter().zip(texts(typed)).filter(|(now, typed)| now != typed).map(|(now, _)| now).collect()
}

pub(super) async fn show(
    app: &App,
    person: &Person,
    it: Option<&ShownSource>,
    typed: &Typed,
    status: StatusCode,
    wrong: &[FieldError],
) -> Result<Response, ApiError> {
    let connections = app.broker.connections(&person.caller, &Filter::default(), &Page::first()).await?;
    let integrations = app.broker.integrations(&person.caller, &Page::first()).await?;
    let none = |text: &str| (String::new(), text.to_owned());
    let connections = connections.into_iter().map(|it| (it.connection.id.to_string(), it.connection.name));
    let integrations = integrations.into_iter().map(|it| (it.id.to_string(), it.name));
    let text = |name: &'static str, label: &str, help: &str, value: &str| Field::text(name, label, help).value(value);
    let mut about = vec![
        text("name", "Name", "It is called by this name.", &typed.name).required(),
        text("description", "Description", "For people.", &typed.description),
    ];
    let mut behind = vec![
        text("connection", "Through this connection", "Every call uses it.", &typed.connection)
            .choices(std::iter::once(none("none: each caller's own")).chain(connections)),
        text(
            "integration",
            "Or each caller's own under this integration",
            "The caller names whose, or has one only.",
            &typed.integration,
        )
        .choices(std::iter::once(none("none")).chain(integrations)),
    ];
    let mut base = vec![
        text("base_url", "Base URL", "What paths are appended to. Empty: the connection's own. May have placeholders, {{name}}.", &typed.base_url).mono(),
        text("health", "Health check", "A path that is cheap to ask for and changes nothing.", &typed.health).mono().example("/me"),
        text("allow", "What may be called", "One a line: methods, then a path; * stands for one segment, ** at the end for all below. Empty: everything below the base URL.", &typed.allow).lines(3).example("GET HEAD /contacts/**"),
    ];
    let mut groups: Vec<Field> = ["headers", "query", "variables"].map(|name| Field::text(name, name, "")).into();
    let mut all: Vec<&mut Field> = about.iter_mut().chain(&mut behind).chain(&mut base).chain(&mut groups).collect();
    // `variables.x.pattern` is a matter of the row of x.
    let wrong: Vec<FieldError> = wrong.iter().cloned().map(grouped).collect();
    let wrong = mark(&mut all, &wrong);
    let mut groups = groups.into_iter().map(|field| field.wrong);
    let mut pairing = |name, legend, help, rows: &[(String, String)]| Pairing {
        name,
        legend,
        help,
        rows: rows.iter().cloned().chain([(String::new(), String::new())]).collect(),
        wrong: groups.next().flatten(),
    };
    let pairs = vec![
        pairing("headers", "Headers", "Sent with calls that have none of the name.", &typed.headers),
        pairing("query", "Parameters", "In the address of calls that have none of the name.", &typed.query),
    ];
    let place = it.map(|it| places::source(it.source.id.as_str()));
    let back = places::with(places::PROVIDERS, &[("for", "source"), ("back", &person.path), ("panel", "1")]);
    let changed = it.filter(|it| typed.version != it.source.generation.to_string());
    let template = Form {
        page: frame(app, person, Menu::Sources).await,
        stored: changed.map(|it| differences(&stored(it), typed)).unwrap_or_default(),
        title: it.map_or_else(|| "New data source".to_owned(), |it| format!("Edit “{}”", it.source.name)),
        key: format!("source {}", it.map_or("new", |it| it.source.id.as_str())),
        back: place.unwrap_or_else(|| places::SOURCES.to_owned()),
        version: it.map_or(0, |it| it.source.generation),
        came: status != StatusCode::OK,
        wrong,
        about,
        behind,
        panel: app.pages.contains_key(places::PROVIDERS).then_some(back),
        base,
        pairs,
        variables: typed.variables.iter().map(|row| row.shown(it)).chain([Row::default()]).collect(),
        variables_wrong: groups.next().flatten(),
    };
    Ok(render::page(person, status, &template))
}

fn grouped(error: FieldError) -> FieldError {
    let group = ["headers", "query", "variables", "allow", "health"];
    let found = group
        .into_iter()
        .find(|group| error.field.strip_prefix(group).is_some_and(|rest| rest.starts_with(['.', '['])));
    match found {
        Some(group) => {
            let part = error.field[group.len()..].trim_matches(['.', '[', ']']).to_owned();
            FieldError { field: group.to_owned(), reason: format!("{part}: {}", error.reason), ..error }
        }
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_methods_and_a_path() {
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
        let read = rules("get, head /a/**\n\n /b \nPOST /c");
        let expected = [(set(&["GET", "HEAD"]), "/a/**"), (set(&[]), "/b"), (set(&["POST"]), "/c")];
        assert_eq!(read.len(), 3);
        for (read, (methods, path)) in read.iter().zip(expected) {
            assert_eq!((&read.methods, read.path.as_str()), (&methods, path));
        }
        assert_eq!(read.iter().map(rule).collect::<Vec<_>>(), ["GET HEAD /a/**", "/b", "POST /c"]);
    }

    #[test]
    fn variables_stay_in_step_and_keep_what_is_not_shown() {
        let form = Pairs::read(b"variables.name=a&variables.label=A&variables.value=&variables.kind=secret&variables.name=&variables.label=&variables.value=&variables.kind=optional&variables.name=b&variables.label=&variables.value=2&variables.kind=optional");
        let rows = rows(&form);
        assert_eq!(
            rows.iter().map(|row| (row.name.as_str(), row.value.as_str())).collect::<Vec<_>>(),
            [("a", ""), ("b", "2")]
        );
        let before =
            SourceVariable { help: "why".to_owned(), secret: true, required: true, ..SourceVariable::default() };
        let after = variable(&rows[0], Some(&before));
        assert_eq!((after.help.as_str(), after.secret, after.required, after.value), ("why", true, true, None));
        assert!(!variable(&rows[1], None).required);
        assert!(doubled("variables", ["a".to_owned(), "a".to_owned()].iter()).is_some());
    }
}
