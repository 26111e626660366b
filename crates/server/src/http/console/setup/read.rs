//! What was typed into the one form, as what the broker is asked for. All that can be wrong with it is named at once; what the chosen method has no use for is left out.

use keyholder_broker::model::{Integration, IntegrationId, Rate, RenewalPolicy, Values};
use keyholder_broker::{ConnectionEdit, FieldError, IntegrationEdit, NewConnection, NewIntegration};
use keyholder_oauth::{ClientAuth, Secret};
use keyholder_provider::{AskedOf, Definition, Extra, GrantKind, Method, Presence, ValueError, Variable};

use super::super::forms::Pairs;
use super::fields::{Purpose, scope_group, words};

/// What the form said.
pub(in crate::http) struct Read {
    pub(in crate::http) integration: NewIntegration,
    pub(in crate::http) connection: NewConnection,
    /// For [`keyholder_broker::Broker::bring_refresh_token`].
    pub(in crate::http) refresh_token: Option<Secret>,
}

/// Reads a form for something new. `id` is the integration's, where it was reserved.
pub(in crate::http) fn read(
    posted: &Pairs,
    definition: &Definition,
    method: &Method,
    purpose: Purpose,
    id: Option<IntegrationId>,
) -> Result<Read, Vec<FieldError>> {
    let mut wrong = Vec::new();
    let name = posted.one("name").to_owned();
    if name.is_empty() {
        wrong.push(FieldError::new("name", "it is missing", "give one, such as crm"));
    }
    let integration_name = posted.opt("integration_name").unwrap_or_else(|| name.clone());
    let integration = NewIntegration {
        id,
        name: integration_name,
        description: posted.one("description").to_owned(),
        provider: definition.id.clone(),
        method: Some(method.name.clone()),
        client_id: posted.opt("client_id").or_else(|| fixed(method, "client_id")).unwrap_or_default(),
        client_secret: posted.secret("client_secret"),
        client_secret_expires_at: noted(&mut wrong, end_of_day(posted, "client_secret_expires_at")),
        client_key: posted.secret("client_key"),
        client_certificate: posted.opt("client_certificate"),
        client_certificate_key: posted.secret("client_certificate_key"),
        scopes: scopes(posted, definition, method),
        audience: posted.opt("audience"),
        header_prefix: posted.opt("header_prefix"),
        client_auth: noted(&mut wrong, client_auth(posted)),
        grant_type: posted.opt("grant_type"),
        content_type: posted.opt("content_type"),
        token_key: posted.opt("token_key"),
        limits: limits(posted, &mut wrong),
        extra: extra(posted, method),
        renewal: renewal(posted, &mut wrong),
        variables: values(posted, definition, method, AskedOf::Integration),
    };
    let has_user = method.grant == GrantKind::Password;
    let connection = NewConnection {
        name,
        owner: posted.opt("owner"),
        username: posted.opt("username").filter(|_| has_user),
        password: posted.secret("password").filter(|_| has_user),
        variables: values(posted, definition, method, AskedOf::Connection),
        choices: choices(posted, method),
        tags: noted(&mut wrong, tags(posted)).unwrap_or_default(),
        ..NewConnection::default()
    };
    let brings = method.grant == GrantKind::RefreshToken && purpose.has_connection();
    let refresh_token = posted.secret("refresh_token").filter(|_| brings);
    if purpose.has_integration() {
        wrong.extend(missing_in_integration(&integration, definition, method));
    }
    if purpose.has_connection() {
        wrong.extend(missing_in_connection(&connection, definition, method));
    }
    if wrong.is_empty() { Ok(Read { integration, connection, refresh_token }) } else { Err(wrong) }
}

/// Reads the changes to an integration; what is as it was isn't named.
pub(in crate::http) fn integration_edit(
    posted: &Pairs,
    definition: &Definition,
    method: &Method,
    now: &Integration,
) -> Result<IntegrationEdit, Vec<FieldError>> {
    let mut wrong = Vec::new();
    let removed = posted.all("remove");
    let secret = |name: &str| match removed.iter().any(|it| it == name) {
        true => Some(Secret::new("")),
        false => posted.secret(name),
    };
    let client_secret = secret("client_secret");
    let ends = noted(&mut wrong, end_of_day(posted, "client_secret_expires_at"));
    // What was said of the old secret's end goes with it, unless it was said anew.
    let ends = ends.filter(|ends| client_secret.is_none() || Some(*ends) != now.client_secret_expires_at);
    let certificate = posted.opt("client_certificate");
    let header_prefix = match posted.opt("header_prefix") {
        // An empty prefix is a prefix, which this form can't say.
        None if now.header_prefix.as_deref() == Some("") => None,
        prefix => Some(prefix),
    };
    let edit = IntegrationEdit {
        name: Some(posted.one("name").to_owned()),
        description: Some(posted.one("description").to_owned()),
        client_id: posted.opt("client_id").or_else(|| fixed(method, "client_id")).or(Some(String::new())),
        client_secret,
        client_secret_expires_at: Some(ends),
        client_key: secret("client_key"),
        client_certificate: (lines(certificate.as_deref()) != lines(now.client_certificate.as_deref()))
            .then_some(certificate),
        client_certificate_key: secret("client_certificate_key"),
        scopes: Some(scopes(posted, definition, method)),
        audience: Some(posted.opt("audience")),
        header_prefix,
        client_auth: Some(noted(&mut wrong, client_auth(posted))),
        grant_type: Some(posted.opt("grant_type")),
        content_type: Some(posted.opt("content_type")),
        token_key: Some(posted.opt("token_key")),
        limits: Some(limits(posted, &mut wrong)),
        extra: Some(extra(posted, method)),
        renewal: Some(renewal(posted, &mut wrong)),
        variables: changed_values(posted, definition, method, AskedOf::Integration, &now.variables),
    };
    if edit.name.as_deref() == Some("") {
        wrong.push(FieldError::new("name", "it is missing", "give one, such as crm"));
    }
    if wrong.is_empty() { Ok(edit) } else { Err(wrong) }
}

/// Reads the changes to a connection; `stored` are its variables.
pub(in crate::http) fn connection_edit(
    posted: &Pairs,
    definition: &Definition,
    method: &Method,
    stored: &Values,
) -> ConnectionEdit {
    let has_user = method.grant == GrantKind::Password;
    let stored_choice = |name: &str| stored.get(&format!("lookup.{name}")).map_or("", String::as_str);
    let choice = |name: &str| (name.to_owned(), posted.one(&format!("choices.{name}")).to_owned());
    ConnectionEdit {
        username: posted.opt("username").filter(|_| has_user),
        password: posted.secret("password").filter(|_| has_user),
        variables: changed_values(posted, definition, method, AskedOf::Connection, stored),
        choices: method.choices().map(choice).filter(|(name, value)| stored_choice(name) != value).collect(),
    }
}

/// What the definition says itself, so that nobody is asked for it.
fn fixed(method: &Method, name: &str) -> Option<String> {
    let input = method.inputs.iter().find(|input| input.name == name)?;
    input.default.clone().filter(|_| input.presence == Presence::Fixed)
}

/// Everything that is missing at once; the rest is checked when it is saved.
fn missing_in_integration(new: &NewIntegration, definition: &Definition, method: &Method) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    if new.client_id.is_empty() {
        let remedy = "copy it from the provider's page of your application";
        wrong.push(FieldError::new("client_id", "it is missing", remedy));
    }
    wrong.extend(of_variables(definition.check_values(method, AskedOf::Integration, &new.variables)));
    wrong.extend(of_inputs(method.check_extra(&new.extra)));
    wrong
}

fn missing_in_connection(new: &NewConnection, definition: &Definition, method: &Method) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let given = [
        ("username", new.username.as_deref().into_iter().collect()),
        ("password", new.password.iter().map(Secret::expose).collect()),
    ];
    wrong.extend(of_inputs(method.check_inputs(AskedOf::Connection, &given)));
    if !method.grant.needs_a_person() {
        wrong.extend(of_variables(definition.check_values(method, AskedOf::Connection, &new.variables)));
    }
    wrong
}

fn of_variables(checked: Result<(), Vec<ValueError>>) -> impl Iterator<Item = FieldError> {
    checked.err().into_iter().flatten().map(FieldError::from)
}

fn of_inputs(checked: Result<(), Vec<ValueError>>) -> impl Iterator<Item = FieldError> {
    let errors = checked.err().into_iter().flatten();
    errors.map(|error| FieldError::new(error.variable, error.reason, error.remedy))
}

fn noted<T>(wrong: &mut Vec<FieldError>, read: Result<Option<T>, FieldError>) -> Option<T> {
    read.unwrap_or_else(|error| {
        wrong.push(error);
        None
    })
}

fn asked<'a>(definition: &'a Definition, method: &'a Method, of: AskedOf) -> impl Iterator<Item = &'a Variable> {
    definition.variables_of(method).filter(move |variable| variable.asked_of == of)
}

/// A variable's value as it was typed; secrets keep their spaces.
fn typed(posted: &Pairs, variable: &Variable) -> Option<String> {
    let name = format!("variables.{}", variable.name);
    if variable.secret { posted.secret(&name).map(|it| it.expose().to_owned()) } else { posted.opt(&name) }
}

fn values(posted: &Pairs, definition: &Definition, method: &Method, of: AskedOf) -> Values {
    asked(definition, method, of).filter_map(|it| Some((it.name.clone(), typed(posted, it)?))).collect()
}

/// Only what differs; taken away where it is empty now. A secret is only changed where one was typed.
fn changed_values(posted: &Pairs, definition: &Definition, method: &Method, of: AskedOf, stored: &Values) -> Values {
    let removed = posted.all("remove");
    let change = |variable: &Variable| {
        let name = variable.name.clone();
        if variable.secret {
            let gone = removed.iter().any(|it| it.strip_prefix("variables.") == Some(&name));
            return Some((name, if gone { String::new() } else { typed(posted, variable)? }));
        }
        let value = typed(posted, variable).unwrap_or_default();
        let before = stored.get(&name).or(variable.default.as_ref()).map_or("", String::as_str);
        (value != before).then_some((name, value))
    };
    asked(definition, method, of).filter_map(change).collect()
}

fn choices(posted: &Pairs, method: &Method) -> Values {
    let choice = |name: &str| Some((name.to_owned(), posted.opt(&format!("choices.{name}"))?));
    method.choices().filter_map(choice).collect()
}

/// Ticked ones and written ones. Those that are always asked for are not among them.
fn scopes(posted: &Pairs, definition: &Definition, method: &Method) -> Vec<String> {
    // One group of boxes is for all methods that share its rules.
    let groups = [scope_group(&[method], method), scope_group(&definition.methods.iter().collect::<Vec<_>>(), method)];
    let ticked = posted.iter().filter(|(name, _)| groups.iter().any(|group| group == name));
    let mut all: Vec<String> = Vec::new();
    for scope in ticked.flat_map(|(_, value)| words(value)).chain(words(posted.one("scopes"))) {
        if !method.scopes.always.contains(&scope) && !all.contains(&scope) {
            all.push(scope);
        }
    }
    all
}

fn client_auth(posted: &Pairs) -> Result<Option<ClientAuth>, FieldError> {
    let Some(word) = posted.opt("client_auth") else { return Ok(None) };
    let wrong = |_| FieldError::new("client_auth", "there is no such client authentication", "choose one of the list");
    word.parse().map(Some).map_err(wrong)
}

fn limits(posted: &Pairs, wrong: &mut Vec<FieldError>) -> Rate {
    Rate {
        per_second: noted(wrong, posted.number("limits.per_second")),
        concurrent: noted(wrong, posted.number("limits.concurrent")),
    }
}

fn extra(posted: &Pairs, method: &Method) -> Extra {
    let has_code = method.grant == GrantKind::AuthorizationCode;
    let authorize = if has_code { posted.pairs("extra.authorize") } else { Vec::new() };
    Extra { authorize, token: posted.pairs("extra.token"), refresh: posted.pairs("extra.refresh") }
}

fn renewal(posted: &Pairs, wrong: &mut Vec<FieldError>) -> RenewalPolicy {
    RenewalPolicy {
        token_lifetime: noted(wrong, seconds(posted, "renewal.token_lifetime")),
        ahead: noted(wrong, seconds(posted, "renewal.ahead")),
        by_itself: posted.one("renewal.by_itself") != "no",
    }
}

/// `name=value` a line.
fn tags(posted: &Pairs) -> Result<Option<Values>, FieldError> {
    let wrong = || FieldError::new("tags", "a line has no name and value", "write one a line, as name=value");
    let tag = |line: String| {
        let (name, value) = line.split_once('=').ok_or_else(wrong)?;
        let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
        if name.is_empty() { Err(wrong()) } else { Ok((name, value)) }
    };
    posted.lines("tags").into_iter().map(tag).collect::<Result<Values, _>>().map(Some)
}

/// `90s`, `30m`, `1h`, `60d`, or seconds.
fn seconds(posted: &Pairs, name: &str) -> Result<Option<u32>, FieldError> {
    let Some(text) = posted.opt(name) else { return Ok(None) };
    let wrong = || FieldError::new(name, "it is no duration", "write it as 90s, 30m, 1h or 60d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let factor: u32 = match unit.trim() {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let count: u32 = count.parse().map_err(|_| wrong())?;
    count.checked_mul(factor).map(Some).ok_or_else(wrong)
}

/// A duration as [`seconds`] reads it.
pub(in crate::http) fn in_units(seconds: u32) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m")];
    let fitting = units.iter().find(|(factor, _)| seconds >= *factor && seconds.is_multiple_of(*factor));
    fitting.map_or_else(|| format!("{seconds}s"), |(factor, unit)| format!("{}{unit}", seconds / factor))
}

/// The last millisecond of a day, UTC.
fn end_of_day(posted: &Pairs, name: &str) -> Result<Option<i64>, FieldError> {
    let Some(text) = posted.opt(name) else { return Ok(None) };
    let wrong = || FieldError::new(name, "it is no day", "write it as 2027-01-31");
    let numbers: Vec<i64> = text.split('-').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
    let [year, month, day] = <[i64; 3]>::try_from(numbers).map_err(|_| wrong())?;
    if !((2001..=5000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day)) {
        return Err(wrong());
    }
    // Howard Hinnant's `days_from_civil`: years begin in March, so that the leap day is the last.
    let shifted = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + of_year - 719_468;
    let end = (days + 1) * 86_400_000 - 1;
    let is_that_day = super::super::forms::Time::at(end).iso.starts_with(&format!("{year}-{month:02}-{day:02}T"));
    if is_that_day { Ok(Some(end)) } else { Err(wrong()) }
}

/// Browsers send line ends of their own.
fn lines(text: Option<&str>) -> Vec<&str> {
    text.unwrap_or_default().lines().map(str::trim_end).collect()
}

#[cfg(test)]
mod tests {
    use keyholder_provider::Catalogue;

    use super::*;

    fn form(pairs: &[(&str, &str)]) -> Pairs {
        let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        Pairs::read(text.as_bytes())
    }

    fn fields(pairs: &[(&str, &str)], method: &str) -> Vec<String> {
        let definition = Catalogue::built_in().definition("oauth2").unwrap();
        let method = definition.method(Some(method)).unwrap();
        let read = read(&form(pairs), &definition, method, Purpose::Both, None);
        read.err().unwrap_or_default().into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        assert_eq!(
            fields(&[], "authorization_code"),
            ["name", "client_id", "variables.authorization_url", "variables.token_url"]
        );
        assert_eq!(fields(&[], "password"), ["name", "client_id", "variables.token_url", "username", "password"]);
        let url = ("variables.token_url", "https://a.example/token");
        let good = [("name", "crm"), ("client_id", "c"), url];
        type Typed = &'static [(&'static str, &'static str)];
        let table: [(Typed, &[&str]); 8] = [
            (&[], &[]),
            (&[("client_secret_expires_at", "2027-02-30")], &["client_secret_expires_at"]),
            (&[("client_auth", "magic")], &["client_auth"]),
            (&[("tags", "a=b\r\nc")], &["tags"]),
            (
                &[("renewal.ahead", "1 week"), ("renewal.token_lifetime", "99999999d")],
                &["renewal.token_lifetime", "renewal.ahead"],
            ),
            (&[("limits.concurrent", "-1")], &["limits.concurrent"]),
            (&[("extra.token.name", "client_id"), ("extra.token.value", "x")], &["extra.token"]),
            // Nobody is sent to an authorization endpoint, and there is no password.
            (&[("extra.authorize.name", "state"), ("variables.authorization_url", "no url"), ("username", "x")], &[]),
        ];
        for (more, expected) in table {
            let all: Vec<_> = good.iter().chain(more).copied().collect();
            assert_eq!(fields(&all, "client_credentials"), expected, "{more:?}");
        }
    }

    #[test]
    fn what_was_typed_is_what_is_asked_for() {
        let definition = Catalogue::built_in().definition("oidc").unwrap();
        let method = definition.method(Some("authorization_code")).unwrap();
        let typed = form(&[
            ("name", " crm "),
            ("client_id", "c"),
            ("client_secret", " s "),
            ("client_secret_expires_at", "2027-01-31"),
            ("scopes.authorization_code", "openid"),
            ("scopes.client_credentials", "other"),
            ("scopes", "email\r\nopenid profile"),
            ("variables.issuer", "https://login.example"),
            ("tags", "team = sales"),
            ("renewal.ahead", "10m"),
            ("renewal.by_itself", "no"),
            ("extra.authorize.name", "prompt"),
            ("extra.authorize.value", "consent"),
        ]);
        let read =
            read(&typed, &definition, method, Purpose::Both, None).map_err(|errors| format!("{errors:?}")).unwrap();
        let it = read.integration;
        assert_eq!((it.name.as_str(), it.client_secret.unwrap().expose()), ("crm", " s "));
        assert_eq!(it.client_secret_expires_at, Some(1_801_439_999_999));
        assert_eq!(it.scopes, ["openid", "email", "profile"]);
        assert_eq!((it.renewal.ahead, it.renewal.by_itself), (Some(600), false));
        assert_eq!(it.extra.authorize, [("prompt".to_owned(), "consent".to_owned())]);
        assert_eq!(read.connection.tags, Values::from([("team".to_owned(), "sales".to_owned())]));
        for (seconds, text) in [(59, "59s"), (60, "1m"), (3600, "1h"), (5400, "90m"), (172_800, "2d")] {
            assert_eq!(in_units(seconds), text);
        }
    }
}
