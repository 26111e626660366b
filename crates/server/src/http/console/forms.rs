//! Forms: what was posted, the rows of a form, what is wrong with which.

use std::fmt::Write;
use std::str::FromStr;

use axum::extract::{FromRequest, Request};
use keyholder_broker::model::Values;
use keyholder_broker::{Error, FieldError};
use keyholder_oauth::Secret;
use keyholder_provider::{Kind, Presence, Variable};

use super::super::App;
use super::super::input::{BODY_LIMIT, read_up_to};
use super::super::problem::{ApiError, Refusal};
use super::session::Person;

/// A form that was posted from a page of this session, `MOST` bytes at most.
pub(in crate::http) struct Posted<const MOST: usize = BODY_LIMIT>(Pairs);

impl<const MOST: usize> FromRequest<App> for Posted<MOST> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &App) -> Result<Self, ApiError> {
        let person = request.extensions().get::<Person>().cloned();
        let person = person.ok_or_else(|| ApiError::from(Error::Internal("a form without a person is read")))?;
        let posted = Pairs::read(&read_up_to(MOST, request).await?);
        match Secret::new(person.csrf).is(posted.one("csrf")) {
            true => Ok(Self(posted)),
            false => Err(Refusal::StaleForm.into()),
        }
    }
}

impl<const MOST: usize> std::ops::Deref for Posted<MOST> {
    type Target = Pairs;

    fn deref(&self) -> &Pairs {
        &self.0
    }
}

/// Names and values of a form, in its order.
pub(in crate::http) struct Pairs(Vec<(String, String)>);

impl From<Vec<(String, String)>> for Pairs {
    fn from(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }
}

impl Pairs {
    /// Reads an urlencoded form. Browsers send line ends of their own.
    pub(in crate::http) fn read(body: &[u8]) -> Self {
        let pairs = url::form_urlencoded::parse(body);
        Self(pairs.map(|(name, value)| (name.into_owned(), value.replace("\r\n", "\n"))).collect())
    }

    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All that was posted.
    pub(in crate::http) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A field's value without spaces around it; empty where it is missing.
    pub(in crate::http) fn one(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.trim())
    }

    /// The same; `None` where it is empty.
    pub(in crate::http) fn opt(&self, name: &str) -> Option<String> {
        Some(self.one(name)).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// All values of a name, such as those of ticked boxes; empty ones left out.
    pub(in crate::http) fn all(&self, name: &str) -> Vec<String> {
        self.values(name).map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned).collect()
    }

    /// The lines of a field, trimmed, empty ones left out.
    pub(in crate::http) fn lines(&self, name: &str) -> Vec<String> {
        self.one(name).lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// A secret as it was typed: spaces may belong to it. `None` where it is empty.
    pub(in crate::http) fn secret(&self, name: &str) -> Option<Secret> {
        self.values(name).next().filter(|value| !value.is_empty()).map(Secret::new)
    }

    /// Rows of `NAME.name` and `NAME.value`, in step; those without a name and a value left out.
    pub(in crate::http) fn pairs(&self, name: &str) -> Vec<(String, String)> {
        let (names, values) = (format!("{name}.name"), format!("{name}.value"));
        let rows = self.values(&names).zip(self.values(&values).chain(std::iter::repeat("")));
        let rows = rows.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
        rows.filter(|(name, value)| !name.is_empty() || !value.is_empty()).collect()
    }

    /// Whether a box is ticked.
    pub(in crate::http) fn flag(&self, name: &str) -> bool {
        self.values(name).any(|value| !value.is_empty())
    }

    /// A number; `None` where nothing was typed.
    pub(in crate::http) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, FieldError> {
        let typed = self.one(name);
        if typed.is_empty() {
            return Ok(None);
        }
        let wrong = |_| FieldError::new(name, "it is no number that fits here", "write digits, or leave it empty");
        typed.parse().map(Some).map_err(wrong)
    }

    /// What was typed into the fields below a prefix such as `variables.`, by their names without it; empty ones left out.
    pub(in crate::http) fn below(&self, prefix: &str) -> Values {
        let inside = self.0.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value.trim())));
        inside.filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// A row of a form, as `field.html` shows it. A secret is never its value.
#[derive(Clone, Debug)]
pub(in crate::http) struct Field {
    pub(in crate::http) name: String,
    pub(in crate::http) label: String,
    pub(in crate::http) help: String,
    pub(in crate::http) value: String,
    /// `text`, `url`, `number`, `password`, `date` or `search`.
    pub(in crate::http) kind: &'static str,
    pub(in crate::http) required: bool,
    /// Never sent back, never kept in a draft.
    pub(in crate::http) secret: bool,
    /// There is a secret already, which stays where nothing is typed.
    pub(in crate::http) kept: bool,
    /// In letters of one width.
    pub(in crate::http) mono: bool,
    /// Decides which other rows are shown.
    pub(in crate::http) switch: bool,
    /// More than one: a text of several lines.
    pub(in crate::http) lines: u8,
    /// Values with their labels; some: a list to choose from.
    pub(in crate::http) choices: Vec<(String, String)>,
    pub(in crate::http) example: Option<String>,
    /// Shown where a switch has one of these words.
    pub(in crate::http) when: Option<String>,
    pub(in crate::http) autocomplete: &'static str,
    pub(in crate::http) wrong: Option<String>,
}

impl Field {
    /// A line of text.
    pub(in crate::http) fn text(name: impl Into<String>, label: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            label: label.into(),
            help: help.into(),
            value: String::new(),
            kind: "text",
            required: false,
            secret: false,
            kept: false,
            mono: false,
            switch: false,
            lines: 1,
            choices: Vec::new(),
            example: None,
            when: None,
            autocomplete: "off",
            wrong: None,
        }
    }

    /// The row for a definition's variable; `prefix` such as `variables.`.
    pub(in crate::http) fn from(variable: &Variable, prefix: &str) -> Self {
        let required = variable.presence == Presence::Required && variable.default.is_none();
        let row = Self {
            required,
            value: if variable.secret { String::new() } else { variable.default.clone().unwrap_or_default() },
            mono: variable.kind != Kind::Text,
            kind: match variable.kind {
                Kind::Url => "url",
                _ => "text",
            },
            lines: if variable.kind == Kind::Pem { 6 } else { 1 },
            example: variable.example.clone(),
            ..Self::text(format!("{prefix}{}", variable.name), &variable.label, &variable.help)
        };
        let row = if variable.secret { row.secret(false) } else { row };
        if variable.choices.is_empty() {
            return row;
        }
        let none = (!required || row.value.is_empty()).then(|| (String::new(), "Choose…".to_owned()));
        row.choices(none.into_iter().chain(variable.choices.iter().cloned()))
    }

    /// What stands in it.
    pub(in crate::http) fn value(self, value: impl Into<String>) -> Self {
        Self { value: value.into(), ..self }
    }

    /// It must be filled in.
    pub(in crate::http) fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// It is a secret; `kept`: there is one already.
    pub(in crate::http) fn secret(self, kept: bool) -> Self {
        Self { secret: true, kept, value: String::new(), kind: "password", autocomplete: "new-password", ..self }
    }

    /// It has several lines.
    pub(in crate::http) fn lines(self, lines: u8) -> Self {
        Self { lines, ..self }
    }

    /// One of these, by value and label.
    pub(in crate::http) fn choices(self, choices: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { choices: choices.into_iter().collect(), ..self }
    }

    /// Another kind of input.
    pub(in crate::http) fn kind(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    /// In letters of one width.
    pub(in crate::http) fn mono(self) -> Self {
        Self { mono: true, ..self }
    }

    /// Shown in the empty field.
    pub(in crate::http) fn example(self, example: impl Into<String>) -> Self {
        Self { example: Some(example.into()), ..self }
    }
}

/// A mistake in the summary above a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct Wrong {
    /// Name of the row; empty where no row is to blame.
    pub(in crate::http) field: String,
    pub(in crate::http) label: String,
    pub(in crate::http) reason: String,
}

/// The mistakes that an error names; `None` where it is no mistake of a form.
pub(in crate::http) fn wrongs(error: &Error) -> Option<Vec<FieldError>> {
    match error {
        Error::Invalid(errors) => Some(errors.clone()),
        Error::Taken { what, .. } => {
            let field = if *what == "integration" { "integration_name" } else { "name" };
            let reason = format!("there is already a {what} of this name");
            Some(vec![FieldError::new(field, reason, "choose another name")])
        }
        Error::Discovery { cause, .. } => {
            let remedy = "check the address, or give the endpoints by hand";
            Some(vec![FieldError::new("variables.issuer", cause.to_string(), remedy)])
        }
        Error::DiscoveryUnreachable(egress) => {
            let remedy = "check the address, or give the endpoints by hand";
            Some(vec![FieldError::new("variables.issuer", egress.to_string(), remedy)])
        }
        _ => None,
    }
}

/// Marks the rows that are wrong; answers all mistakes for the summary. What fits no row stands there by itself.
pub(in crate::http) fn mark(fields: &mut [&mut Field], wrong: &[FieldError]) -> Vec<Wrong> {
    let mut all = Vec::with_capacity(wrong.len());
    for error in wrong {
        let text = told(error);
        // An integration's name is the connection's where only one is asked for.
        let named = |field: &Field| field.name == error.field;
        let place = fields.iter().position(|field| named(field)).or_else(|| {
            let instead =
                if error.field == "integration_name" { "name" } else { error.field.strip_prefix("connection.")? };
            fields.iter().position(|field| field.name == instead)
        });
        match place {
            Some(place) => {
                let field = &mut fields[place];
                match &mut field.wrong {
                    Some(before) => drop(write!(before, " {text}")),
                    none => *none = Some(text.clone()),
                }
                all.push(Wrong { field: field.name.clone(), label: field.label.clone(), reason: text });
            }
            None => all.push(Wrong { field: String::new(), label: error.field.clone(), reason: text }),
        }
    }
    all
}

/// A mistake as one sentence or two.
fn told(error: &FieldError) -> String {
    match error.remedy.is_empty() {
        true => super::render::sentence(&error.reason),
        false => super::render::sentence(&format!("{}; {}", error.reason, error.remedy)),
    }
}

/// A moment, for machines and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct Time {
    /// `2026-11-22T19:10:41Z`.
    pub(in crate::http) iso: String,
    /// `22 November 2026, 19:10 UTC`; the script makes local time of it.
    pub(in crate::http) text: String,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Time {
    /// Of Unix milliseconds.
    pub(in crate::http) fn at(ms: i64) -> Self {
        let seconds = ms.div_euclid(1000);
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let name = usize::try_from(month - 1).ok().and_then(|month| MONTHS.get(month)).copied().unwrap_or_default();
        Self {
            iso: format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"),
            text: format!("{day} {name} {year}, {hour:02}:{minute:02} UTC"),
        }
    }
}

/// Year, month and day of days since 1970, in the proleptic Gregorian calendar: Howard Hinnant's `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * from_march + 2) / 5 + 1, (from_march + 2) % 12 + 1);
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_it_was_meant() {
        let form = Pairs::read(b"name=+a+&empty=&box=1&h.name=A&h.value=1&h.name=&h.value=&h.name=B&secret=+s+&lines=a%0D%0A%0D%0Ab&variables.x=1&variables.y=&n=12");
        assert_eq!((form.one("name"), form.opt("empty"), form.opt("none")), ("a", None, None));
        assert_eq!(form.secret("secret").unwrap().expose(), " s ");
        assert!(form.secret("empty").is_none() && form.flag("box") && !form.flag("empty"));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(form.pairs("h"), [pair("A", "1"), pair("B", "")]);
        assert_eq!(form.lines("lines"), ["a", "b"]);
        assert_eq!(form.below("variables."), Values::from([pair("x", "1")]));
        assert_eq!((form.number::<u32>("n"), form.number::<u32>("empty")), (Ok(Some(12)), Ok(None)));
        assert_eq!(form.number::<u32>("name").unwrap_err().field, "name");
    }

    #[test]
    fn mistakes_stand_at_their_rows() {
        let mut name = Field::text("name", "Name", "");
        let mut url = Field::text("variables.token_url", "Token URL", "").required();
        let wrong = [
            FieldError::new("variables.token_url", "it is missing", "give it"),
            FieldError::new("connection.name", "it is taken", "choose another"),
            FieldError::new("elsewhere", "no", ""),
        ];
        let all = mark(&mut [&mut name, &mut url], &wrong);
        assert_eq!(url.wrong.as_deref(), Some("It is missing; give it."));
        assert_eq!(name.wrong.as_deref(), Some("It is taken; choose another."));
        let places: Vec<_> = all.iter().map(|it| (it.field.as_str(), it.label.as_str())).collect();
        assert_eq!(places, [("variables.token_url", "Token URL"), ("name", "Name"), ("", "elsewhere")]);
    }

    #[test]
    fn moments_are_read_by_people() {
        for (ms, iso, text) in [
            (0, "1970-01-01T00:00:00Z", "1 January 1970, 00:00 UTC"),
            (-1, "1969-12-31T23:59:59Z", "31 December 1969, 23:59 UTC"),
            (951_782_400_000, "2000-02-29T00:00:00Z", "29 February 2000, 00:00 UTC"),
            (1_795_374_641_999, "2026-11-22T19:10:41Z", "22 November 2026, 19:10 UTC"),
        ] {
            assert_eq!(Time::at(ms), Time { iso: iso.to_owned(), text: text.to_owned() });
        }
    }
}
