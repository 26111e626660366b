//! Settings: who you are here, the others, the look of the pages for people, health, sealing, this copy.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use keyholder_broker::model::Scope;
use keyholder_broker::{Branding, Error, FieldError, Logo, Verdict};

use super::super::App;
use super::super::input::InPath;
use super::super::problem::{ApiError, Refusal};
use super::callers::good;
use super::forms::{Field, Pairs, Posted, Time, Wrong, mark, wrongs};
use super::session::Person;
use super::{Frame, Menu, frame, passkeys, people, places, render};

#[derive(Template)]
#[template(path = "console/settings.html")]
struct Settings<'a> {
    page: Frame<'a>,
    role: String,
    has_password: bool,
    passkeys: Vec<passkeys::Shown>,
    /// Why there can be none.
    no_passkeys: Option<String>,
    since: Time,
    admin: Option<Admin>,
}

/// What is for administrators.
struct Admin {
    people: Vec<people::Listed>,
    brand: Vec<Field>,
    brand_wrong: Vec<Wrong>,
    came: bool,
    has_logo: bool,
    /// As a data URL.
    logo: Option<String>,
    offset: Field,
    checks: Vec<Check>,
    newest_key: u32,
    left: u64,
    cluster: String,
    epoch: i64,
    running: i64,
    version: &'static str,
    public_url: String,
    fence: Option<String>,
}

/// Something that was looked at.
struct Check {
    name: &'static str,
    verdict: &'static str,
    color: &'static str,
    message: String,
    remedy: Option<String>,
}

/// `GET /console/settings`.
pub(in crate::http) async fn page(State(app): State<App>, person: Person) -> Result<Response, ApiError> {
    show(&app, &person, StatusCode::OK, None, &[]).await
}

/// `POST /console/settings/{section}`.
pub(in crate::http) async fn change(
    State(app): State<App>,
    person: Person,
    InPath(section): InPath,
    form: Posted,
) -> Result<Response, ApiError> {
    let done = match section.as_str() {
        "pages" => brand(&app, &person, &form).await.map(|()| "The pages look so from now on."),
        "advice" => offset(&app, &person, &form).await.map(|()| "The hours are set."),
        "seal" => app
            .broker
            .seal_rotate(&person.caller)
            .await
            .map(|_| "There is a new data key; everything is sealed with it by and by."),
        "live" if form.flag("sure") => {
            app.broker.declare_live(&person.caller).await.map(|_| "This copy is the live one: tokens are renewed here.")
        }
        "live" => {
            let remedy = "tick the box when you have looked, and stop the other copy first";
            Err(Error::Invalid(vec![FieldError::new("sure", "nobody said that no other copy is running", remedy)]))
        }
        _ => return Err(Refusal::NoRoute.into()),
    };
    match done {
        Ok(text) => Ok(render::moved(format!("{}#{section}", places::SETTINGS), good(text))),
        Err(error) => match wrongs(&error) {
            Some(wrong) => show(&app, &person, StatusCode::UNPROCESSABLE_ENTITY, Some(&form), &wrong).await,
            None => Err(error.into()),
        },
    }
}

async fn brand(app: &App, person: &Person, form: &Pairs) -> Result<(), Error> {
    let mut wrong = Vec::new();
    let color =
        form.opt("color").map(|text| text.parse()).transpose().map_err(|error| wrong.push(error)).unwrap_or_default();
    let kept = app.broker.branding().await?.logo.filter(|_| !form.flag("remove_logo"));
    let logo = match form.opt("logo") {
        Some(text) => logo(&text).map_err(|error| wrong.push(error)).ok(),
        None => kept,
    };
    if !wrong.is_empty() {
        return Err(Error::Invalid(wrong));
    }
    let new = Branding { name: form.one("brand_name").to_owned(), color, logo };
    app.broker.set_branding(&person.caller, new).await
}

/// Out of `data:image/png;base64,…`, or what stands behind it.
fn logo(text: &str) -> Result<Logo, FieldError> {
    let bytes = text.split_once(";base64,").map_or(text, |(_, bytes)| bytes);
    let compact: String = bytes.split_whitespace().collect();
    let wrong = |_| {
        FieldError::new("logo", "it is no image in base64", "choose a file, or paste what a `data:` URL of it says")
    };
    Logo::new(STANDARD.decode(compact).map_err(wrong)?)
}

async fn offset(app: &App, person: &Person, form: &Pairs) -> Result<(), Error> {
    let hours = form.number("utc_offset").map_err(|error| Error::Invalid(vec![error]))?.unwrap_or(0);
    app.broker.set_advice_utc_offset(&person.caller, hours).await
}

async fn show(
    app: &App,
    person: &Person,
    status: StatusCode,
    form: Option<&Pairs>,
    wrong: &[FieldError],
) -> Result<Response, ApiError> {
    let admin = if person.may(Scope::Admin) { Some(admin(app, person, form, wrong).await?) } else { None };
    let template = Settings {
        page: frame(app, person, Menu::Settings).await,
        role: people::role_of(&person.caller.scopes),
        has_password: app.broker.operator(&person.caller, person.caller.key.as_str()).await?.has_password,
        passkeys: app.broker.passkeys(&person.caller).await?.into_iter().map(Into::into).collect(),
        no_passkeys: app.broker.passkeys_possible().err(),
        since: Time::at(person.since),
        admin,
    };
    Ok(render::page(person, status, &template))
}

async fn admin(app: &App, person: &Person, form: Option<&Pairs>, wrong: &[FieldError]) -> Result<Admin, ApiError> {
    let branding = app.broker.branding().await?;
    let typed = |name: &str, stored: String| form.map_or(stored, |form| form.one(name).to_owned());
    let color = branding.color.map(|color| color.to_string()).unwrap_or_default();
    let mut brand = vec![
        Field::text(
            "brand_name",
            "Name",
            "Who asks: people read it before they sign in anywhere. Empty: no name is shown.",
        )
        .value(typed("brand_name", branding.name)),
        Field::text("color", "Colour", "Of buttons and links. It is made darker or lighter where it couldn't be read.")
            .value(typed("color", color))
            .example("#1b57c4"),
        Field::text("logo", "Logo", "PNG, JPEG or WebP, up to 64 kB, in base64. Empty: it stays as it is.").lines(2),
    ];
    let stored = app.broker.advice_utc_offset(&person.caller).await?.to_string();
    let mut offset = Field::text(
        "utc_offset",
        "Your clocks are apart from UTC by, in hours",
        "So that calls at night are told by your night; 1 or 2 for Berlin, -5 or -4 for New York.",
    )
    .value(form.and_then(|form| form.opt("utc_offset")).unwrap_or(stored));
    let mut rows: Vec<&mut Field> = brand.iter_mut().chain([&mut offset]).collect();
    let brand_wrong = mark(&mut rows, wrong);
    let (seal, instance) = (app.broker.seal_status().await?, app.broker.instance().await?);
    let checks = app.broker.doctor(&person.caller).await?;
    Ok(Admin {
        people: people::list(app, person).await?,
        brand,
        brand_wrong,
        came: form.is_some(),
        has_logo: branding.logo.is_some(),
        logo: branding.logo.map(|logo| format!("data:{};base64,{}", logo.mime(), STANDARD.encode(logo.bytes()))),
        offset,
        checks: checks.into_iter().map(check).collect(),
        newest_key: seal.newest,
        left: seal.left,
        cluster: instance.cluster,
        epoch: instance.epoch,
        running: instance.running,
        version: env!("CARGO_PKG_VERSION"),
        public_url: app.broker.public_url().to_string(),
        fence: instance.fenced.map(|fenced| render::sentence(fenced.reason.message())),
    })
}

fn check(it: keyholder_broker::Check) -> Check {
    let (verdict, color) = match it.verdict {
        Verdict::Ok => ("ok", "green"),
        Verdict::Warning => ("warning", "amber"),
        Verdict::Problem => ("problem", "red"),
    };
    Check { name: it.name, verdict, color, message: it.message, remedy: it.remedy }
}
