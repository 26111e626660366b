//! The form of a saved request.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use keyholder_broker::model::{Expect, Said, SavedRequest, Values};
use keyholder_broker::{Error, FieldError, ShownSource, SourceEdit};
use keyholder_oauth::sha256;
use serde_json::Value;

use super::super::super::App;
use super::super::super::input::{InPath, InPaths};
use super::super::super::problem::ApiError;
use super::super::forms::{Field, Pairs, Posted, Wrong, mark, wrongs};
use super::super::session::Person;
use super::super::setup::{difference, stale};
use super::super::{Frame, Menu, frame, places, render};

/// Where a saved request is.
pub(super) fn place(source: &str, request: &str) -> String {
    places::below(&format!("{}/requests", places::source(source)), request)
}

#[derive(Template)]
#[template(path = "console/request_form.html")]
struct Form<'a> {
    page: Frame<'a>,
    source: String,
    source_href: String,
    title: String,
    key: String,
    /// Of what is stored: a stale one saves nothing. `None`: nothing is.
    version: Option<String>,
    /// What somebody else saved meanwhile, by label.
    stored: Vec<(String, String)>,
    came: bool,
    wrong: Vec<Wrong>,
    fields: Vec<Field>,
    groups: Vec<Group>,
    more: Vec<Field>,
}

/// Names and values.
struct Group {
    name: &'static str,
    legend: &'static str,
    rows: Vec<(String, String)>,
    wrong: Option<String>,
}

/// `GET /console/sources/{source}/requests`.
pub(in crate::http) async fn new(
    State(app): State<App>,
    person: Person,
    InPath(source): InPath,
) -> Result<Response, ApiError> {
    let it = app.broker.source(&person.caller, &source).await?;
    let empty = Pairs::read(b"method=GET&path=/");
    Ok(show(&app, &person, &it, None, &empty, StatusCode::OK, &[]).await)
}

/// `POST /console/sources/{source}/requests`.
pub(in crate::http) async fn create(
    State(app): State<App>,
    person: Person,
    InPath(source): InPath,
    posted: Posted,
) -> Result<Response, ApiError> {
    let it = app.broker.source(&person.caller, &source).await?;
    let name = posted.one("name").to_owned();
    if it.source.spec.requests.contains_key(&name) {
        let wrong = [FieldError::new("name", "there is already a request of this name", "choose another name")];
        return Ok(show(&app, &person, &it, None, &posted, StatusCode::UNPROCESSABLE_ENTITY, &wrong).await);
    }
    put(&app, &person, &it, None, &name, &posted).await
}

/// `GET /console/sources/{source}/requests/{request}`.
pub(in crate::http) async fn edit(
    State(app): State<App>,
    person: Person,
    InPaths([source, request]): InPaths<2>,
) -> Result<Response, ApiError> {
    let it = app.broker.source(&person.caller, &source).await?;
    let stored = stored(of(&it, &request)?);
    Ok(show(&app, &person, &it, Some(&request), &stored, StatusCode::OK, &[]).await)
}

/// `POST /console/sources/{source}/requests/{request}`.
pub(in crate::http) async fn save(
    State(app): State<App>,
    person: Person,
    InPaths([source, request]): InPaths<2>,
    posted: Posted,
) -> Result<Response, ApiError> {
    let it = app.broker.source(&person.caller, &source).await?;
    if posted.one("version") != version(of(&it, &request)?) {
        let unfit = StatusCode::UNPROCESSABLE_ENTITY;
        return Ok(show(&app, &person, &it, Some(&request), &posted, unfit, &stale("saved request")).await);
    }
    if posted.one("then") == "remove" {
        let edit = SourceEdit { requests: BTreeMap::from([(request.clone(), None)]), ..SourceEdit::default() };
        app.broker.edit_source(&person.caller, it.source.id.as_str(), edit).await?;
        return Ok(render::moved(
            places::source(it.source.id.as_str()),
            Said::good(format!("“{request}” is removed.")),
        ));
    }
    put(&app, &person, &it, Some(&request), &request, &posted).await
}

/// The saved request of this name.
pub(super) fn of<'a>(it: &'a ShownSource, request: &str) -> Result<&'a SavedRequest, ApiError> {
    let missing = || Error::NotFound { what: "saved request", name: request.chars().take(100).collect() };
    Ok(it.source.spec.requests.get(request).ok_or_else(missing)?)
}

async fn put(
    app: &App,
    person: &Person,
    it: &ShownSource,
    there: Option<&str>,
    name: &str,
    posted: &Pairs,
) -> Result<Response, ApiError> {
    let saved = match read(posted) {
        Ok(request) => {
            let requests = BTreeMap::from([(name.to_owned(), Some(request))]);
            let edit = SourceEdit { requests, ..SourceEdit::default() };
            app.broker.edit_source(&person.caller, it.source.id.as_str(), edit).await
        }
        Err(wrong) => Err(Error::Invalid(vec![wrong])),
    };
    match saved {
        Ok(_) => {
            let said = Said::good(format!("“{name}” is saved.")).saved(key(it, there));
            Ok(render::moved(format!("{}/run", place(it.source.id.as_str(), name)), said))
        }
        Err(error) => match wrongs(&error) {
            Some(wrong) => {
                let unfit = StatusCode::UNPROCESSABLE_ENTITY;
                Ok(show(app, person, it, there, posted, unfit, &ours(wrong, name)).await)
            }
            None => Err(error.into()),
        },
    }
}

/// Of this request alone: changes to the others of its source are no matter.
fn version(it: &SavedRequest) -> String {
    URL_SAFE_NO_PAD.encode(&sha256(serde_json::json!(it).to_string().as_bytes())[..12])
}

fn key(it: &ShownSource, there: Option<&str>) -> String {
    format!("request {} {}", it.source.id, there.unwrap_or("new"))
}

/// `requests.NAME.path` is the form's `path`.
fn ours(wrong: Vec<FieldError>, name: &str) -> Vec<FieldError> {
    let prefix = format!("requests.{name}");
    let ours = |error: FieldError| match error.field.strip_prefix(&prefix).map(|rest| rest.trim_start_matches('.')) {
        Some("") => FieldError { field: "name".to_owned(), ..error },
        Some(rest) => {
            let (field, part) = rest.split_once(['.', '[']).unwrap_or((rest, ""));
            let field = match (field, part) {
                ("expect", part) if part.starts_with("found") => "expect.found",
                ("expect", _) => "expect.status",
                (field, _) => field,
            };
            FieldError { field: field.to_owned(), ..error }
        }
        None => error,
    };
    wrong.into_iter().map(ours).collect()
}

fn read(form: &Pairs) -> Result<SavedRequest, FieldError> {
    let values = |name: &str| -> Values { form.pairs(name).into_iter().collect() };
    let codes = form.one("expect.status").split([' ', ',']).filter(|word| !word.is_empty());
    let codes: Result<Vec<u16>, _> = codes.map(str::parse).collect();
    let wrong = |_| FieldError::new("expect.status", "it is no list of status codes", "write them like 200 201");
    let (status, found) = (codes.map_err(wrong)?, form.opt("expect.found"));
    let expect = (!status.is_empty() || found.is_some()).then_some(Expect { status, found });
    let body = form.opt("body").map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)));
    Ok(SavedRequest {
        description: form.one("description").to_owned(),
        method: form.one("method").to_owned(),
        path: form.one("path").to_owned(),
        query: values("query"),
        headers: values("headers"),
        body,
        form: values("form"),
        extract: form.opt("extract"),
        expect,
    })
}

/// A stored request as the form would post it.
fn stored(it: &SavedRequest) -> Pairs {
    let expect = it.expect.clone().unwrap_or_default();
    let status = expect.status.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
    let body = it.body.as_ref().map(|body| match body {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    });
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("description", &it.description)
        .append_pair("method", super::method_of(it))
        .append_pair("path", &it.path)
        .append_pair("body", body.as_deref().unwrap_or_default())
        .append_pair("extract", it.extract.as_deref().unwrap_or_default())
        .append_pair("expect.status", &status)
        .append_pair("expect.found", expect.found.as_deref().unwrap_or_default());
    for (group, values) in [("query", &it.query), ("headers", &it.headers), ("form", &it.form)] {
        for (name, value) in values {
            form.append_pair(&format!("{group}.name"), name).append_pair(&format!("{group}.value"), value);
        }
    }
    Pairs::read(form.finish().as_bytes())
}

async fn show(
    app: &App,
    person: &Person,
    it: &ShownSource,
    there: Option<&str>,
    form: &Pairs,
    status: StatusCode,
    wrong: &[FieldError],
) -> Response {
    let text = |name: &'static str, label: &str, help: &str| Field::text(name, label, help).value(form.one(name));
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"].map(|word| (word.to_owned(), word.to_owned()));
    let mut fields = vec![
        text("description", "Description", "For people."),
        text("method", "Method", "").choices(methods),
        text("path", "Path", "Below the base URL; may have placeholders, {{name}}, and a query.")
            .mono()
            .required()
            .example("/contacts/{{id}}"),
    ];
    if there.is_none() {
        fields.insert(0, text("name", "Name", "It is run by this name.").required());
    }
    let mut more = vec![
        text("body", "Body", "JSON, or any text. Placeholders are filled in.").lines(6),
        text("extract", "What to take out of the reply", "A JSONPath.").mono().example("$.items[*].name"),
        text("expect.status", "Status that is right", "Empty: any success.").example("200 201"),
        text("expect.found", "What must be found in the reply", "A JSONPath.").mono(),
    ];
    let now = there.and_then(|name| it.source.spec.requests.get(name));
    let is_stale = |it: &&SavedRequest| form.opt("version").is_some_and(|typed| typed != version(it));
    let label = |(name, value): (String, String)| {
        let row = fields.iter().chain(&more).find(|row| row.name == name);
        (row.map_or(name, |row| row.label.clone()), value)
    };
    let differs = now.filter(is_stale).map(|it| difference(&stored(it), form)).unwrap_or_default();
    let differs = differs.into_iter().map(label).collect();
    let mut groups: Vec<Field> = ["query", "headers", "form"].map(|name| Field::text(name, name, "")).into();
    let mut all: Vec<&mut Field> = fields.iter_mut().chain(&mut more).chain(&mut groups).collect();
    let wrong = mark(&mut all, wrong);
    let mut wrongs = groups.into_iter().map(|field| field.wrong);
    let mut group = |name, legend| Group {
        name,
        legend,
        rows: form.pairs(name).into_iter().chain([(String::new(), String::new())]).collect(),
        wrong: wrongs.next().flatten(),
    };
    let groups =
        vec![group("query", "Parameters"), group("headers", "Headers"), group("form", "Form, instead of a body")];
    let template = Form {
        page: frame(app, person, Menu::Sources).await,
        source: it.source.name.clone(),
        source_href: places::source(it.source.id.as_str()),
        title: there.map_or_else(|| "Save a request".to_owned(), |name| format!("Request “{name}”")),
        key: key(it, there),
        version: now.map(version),
        stored: differs,
        came: status != StatusCode::OK,
        wrong,
        fields,
        groups,
        more,
    };
    render::page(person, status, &template)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_is_shown() {
        let request = SavedRequest {
            description: "Those".to_owned(),
            method: "POST".to_owned(),
            path: "/contacts?x={{y}}".to_owned(),
            query: Values::from([("a".to_owned(), "1".to_owned())]),
            headers: Values::from([("X-B".to_owned(), "2".to_owned())]),
            body: Some(serde_json::json!({ "name": "{{name}}" })),
            form: Values::new(),
            extract: Some("$.id".to_owned()),
            expect: Some(Expect { status: vec![200, 201], found: None }),
        };
        assert_eq!(read(&stored(&request)), Ok(request.clone()));
        let text = SavedRequest { body: Some(Value::String("{{raw}} text".to_owned())), expect: None, ..request };
        assert_eq!(read(&stored(&text)), Ok(text));
        assert_eq!(read(&Pairs::read(b"path=/&expect.status=2x")).unwrap_err().field, "expect.status");
    }

    #[test]
    fn mistakes_find_their_rows() {
        let at = |field: &str| ours(vec![FieldError::new(field, "", "")], "a").remove(0).field;
        for (field, row) in [
            ("requests.a.path", "path"),
            ("requests.a", "name"),
            ("requests.a.headers.X", "headers"),
            ("requests.a.expect.found", "expect.found"),
            ("requests.a.expect.status", "expect.status"),
            ("base_url", "base_url"),
        ] {
            assert_eq!(at(field), row);
        }
    }
}
