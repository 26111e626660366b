//! From the text of a definition to a checked [`Definition`]: every rule of the language that is not syntax.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use http::HeaderName;
use keyholder_oauth::{ExpiryUnit, Pointer, ReplyRules, SuccessRule};

use crate::definition::{
    ApiPhase, AuthorizePhase, CallbackPhase, Definition, Discover, Kind, KnownError, Method, Pattern, Phases, Presence, Recovery, RefreshLife, RequestPhase,
    ScopeRules, Setup, Variable,
};
use crate::endpoint::{is_host_pattern, read_endpoint};
use crate::error::DefinitionError;
use crate::schema::{self, RecoveryName, Table, Unit};
use crate::source::{Path, Source};
use crate::template::{Place, Placeholder, Template, UrlTemplate, is_variable_name};

/// Reads a definition. `file` is only for the errors; pass what the user knows the text by.
///
/// All errors are returned, in the order of the text, unless the syntax, a field's name or a type is wrong: then only the first.
pub fn parse(file: &str, text: &str) -> Result<Definition, Vec<DefinitionError>> {
    let source = Source::read(file, text).map_err(|error| vec![error])?;
    let raw: schema::File = source.fields().map_err(|error| vec![error])?;
    let checker = Checker { source, errors: RefCell::default(), used: RefCell::default(), variables: Vec::new() };
    checker.definition(raw)
}

/// The version of the language that this crate reads.
const SCHEMA: i64 = 1;

struct Checker<'a> {
    source: Source<'a>,
    errors: RefCell<Vec<DefinitionError>>,
    /// Names of variables that have a placeholder.
    used: RefCell<BTreeSet<String>>,
    variables: Vec<Variable>,
}

impl Checker<'_> {
    fn definition(mut self, raw: schema::File) -> Result<Definition, Vec<DefinitionError>> {
        self.schema(raw.schema);
        let id = self.id(&["id"], raw.id);
        for (index, alias) in raw.aliases.iter().enumerate() {
            self.id(&["aliases", &index.to_string()], Some(alias.clone()));
        }
        let name = self.required(&["name"], raw.name);
        self.page(&["docs"], raw.docs.as_deref());
        for (index, page) in raw.source.iter().enumerate() {
            self.page(&["source", &index.to_string()], Some(page));
        }
        self.date(&["checked"], raw.checked.as_deref());
        let methods = self.methods(raw.methods);
        self.variables = self.declared(raw.variables, &methods);
        let phases = self.phases(raw.discover, raw.authorize, raw.callback, raw.token, raw.refresh, raw.revoke, raw.api, &methods);
        let scopes = self.scopes(raw.scopes);
        let setup = self.setup(raw.setup);
        let known_errors = self.known_errors(raw.errors);
        self.unused();
        let mut errors = self.errors.into_inner();
        if !errors.is_empty() {
            errors.sort_by_key(|error| (error.line, error.column));
            return Err(errors);
        }
        Ok(Definition {
            id,
            aliases: raw.aliases,
            name,
            docs: raw.docs,
            checked: raw.checked,
            source: raw.source,
            methods,
            variables: self.variables,
            scopes,
            setup,
            known_errors,
            phases,
        })
    }

    #[allow(clippy::too_many_arguments, reason = "one argument for each table of the file")]
    fn phases(
        &self,
        discover: Option<schema::Discover>,
        authorize: schema::Authorize,
        callback: schema::Callback,
        token: schema::Token,
        refresh: schema::Refresh,
        revoke: Option<schema::Revoke>,
        api: schema::Api,
        methods: &[Method],
    ) -> Phases {
        let needs_consent = methods.iter().any(|method| method.grant == crate::definition::GrantKind::AuthorizationCode);
        if needs_consent && authorize.url.is_none() && discover.is_none() {
            self.error(&["authorize", "url"], "the method authorization_code needs it", "give the URL, or a [discover] table");
        }
        if token.url.is_none() && discover.is_none() {
            self.error(&["token", "url"], "it is missing", "give the URL, or a [discover] table");
        }
        let reply = self.reply(&token.reply);
        let token = self.token(token);
        let recovery = self.recovery(refresh.recovery, refresh.window.as_deref());
        let refresh_life = RefreshLife {
            idle: self.duration(&["refresh", "idle_life"], refresh.idle_life.as_deref()),
            absolute: self.duration(&["refresh", "absolute_life"], refresh.absolute_life.as_deref()),
        };
        let refresh_sends_scope = refresh.sends_scope;
        let refresh = self.refresh(refresh, &token);
        let revoke_token = revoke.as_ref().map(|revoke| revoke.token).unwrap_or_default();
        Phases {
            discover: discover.and_then(|discover| self.discover(discover)),
            authorize: self.authorize(authorize),
            callback: self.callback(callback),
            revoke: revoke.map(|revoke| self.revoke(revoke, &token)),
            token,
            reply,
            refresh,
            refresh_sends_scope,
            recovery,
            refresh_life,
            revoke_token,
            api: self.api(api),
        }
    }

    // The top of the file.

    fn schema(&self, schema: Option<i64>) {
        match schema {
            Some(SCHEMA) => {}
            None => self.error(&["schema"], "it is missing", "write `schema = 1` at the top"),
            Some(other) => self.error(&["schema"], format!("{other} is not a version of the language that this program reads"), "write `schema = 1`"),
        }
    }

    fn id(&self, path: Path<'_>, id: Option<String>) -> String {
        let id = self.required(path, id);
        let fits = id.len() <= 64 && !id.starts_with('-') && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !id.is_empty() && !fits {
            self.error(path, "it has other characters than lower-case letters, digits and `-`, or is too long", "write it like `acme-crm`, at most 64 characters");
        }
        id
    }

    fn page(&self, path: Path<'_>, page: Option<&str>) {
        if let Some(Err(reason)) = page.map(read_endpoint_or_page) {
            self.error(path, reason, "give the https:// address of a page");
        }
    }

    fn date(&self, path: Path<'_>, date: Option<&str>) {
        let is_date = |date: &str| {
            let parts: Vec<_> = date.split('-').collect();
            let number = |part: &str, digits: usize, most: u32| part.len() == digits && part.parse::<u32>().is_ok_and(|number| (1..=most).contains(&number));
            matches!(parts.as_slice(), [year, month, day] if number(year, 4, 9999) && number(month, 2, 12) && number(day, 2, 31))
        };
        if date.is_some_and(|date| !is_date(date)) {
            self.error(path, "it is not a date", "write it like \"2026-01-31\"");
        }
    }

    fn methods(&self, raw: Vec<schema::Method>) -> Vec<Method> {
        if raw.is_empty() {
            self.error(&["methods"], "there is none", "add [[methods]] with a grant");
        }
        let mut names = BTreeSet::new();
        let mut methods = Vec::new();
        for (index, method) in raw.into_iter().enumerate() {
            let index = index.to_string();
            let Some(grant) = method.grant else {
                self.error(&["methods", &index, "grant"], "it is missing", "write authorization_code, client_credentials or password");
                continue;
            };
            let name = method.name.unwrap_or_else(|| grant.as_str().to_owned());
            if !is_variable_name(&name) {
                self.error(&["methods", &index, "name"], "it has other characters than lower-case letters, digits and `_`", "write it like `client_credentials`");
            }
            if !names.insert(name.clone()) {
                self.error(&["methods", &index], format!("there are two methods `{name}`"), "give each method its own name");
            }
            self.path(&["methods", &index, "verify"], method.verify.as_deref());
            methods.push(Method {
                label: method.label.unwrap_or_else(|| name.clone()),
                name,
                grant,
                default_scopes: method.default_scopes,
                always_scopes: method.always_scopes,
                verify: method.verify,
            });
        }
        methods
    }

    // Variables.

    fn declared(&self, raw: Table<schema::Variable>, methods: &[Method]) -> Vec<Variable> {
        self.source.order(&["variables"], raw).into_iter().map(|(name, variable)| self.variable(name, variable, methods)).collect()
    }

    fn variable(&self, name: String, raw: schema::Variable, methods: &[Method]) -> Variable {
        let path = ["variables", name.as_str()];
        let at = |field| ["variables", name.as_str(), field];
        if !is_variable_name(&name) {
            self.error(&path, "the name has other characters than lower-case letters, digits and `_`", "write it like `account_id`");
        }
        if name == crate::template::AUDIENCE {
            self.error(&path, "`audience` is the integration's own field", "remove the variable and use {{audience}} where it goes");
        }
        let pattern = raw.pattern.as_deref().and_then(|text| self.keep(&at("pattern"), Pattern::new(text), "write a regular expression for the whole value"));
        if raw.kind == Kind::Host && raw.pattern.is_none() {
            self.error(&at("pattern"), "a host variable without one could name any host", "say which hosts are the provider's");
        }
        if raw.presence == Presence::Fixed && raw.default.is_none() {
            self.error(&at("default"), "a fixed variable is always its default, and has none", "give the default");
        }
        if raw.secret && raw.default.is_some() {
            self.error(&at("default"), "a secret in a definition is not secret", "remove the default, or `secret`");
        }
        for (index, method) in raw.methods.iter().enumerate() {
            if !methods.iter().any(|known| known.name == *method) {
                self.error(&["variables", &name, "methods", &index.to_string()], format!("there is no method `{method}`"), "name a method of this file");
            }
        }
        let variable = Variable {
            label: raw.label.unwrap_or_else(|| name.clone()),
            help: raw.help,
            default: raw.default,
            presence: raw.presence,
            secret: raw.secret,
            pattern,
            asked_of: raw.asked_of,
            kind: raw.kind,
            is_url: raw.kind == Kind::Url,
            methods: raw.methods,
            name: name.clone(),
        };
        if let Some(Err(error)) = variable.default.as_deref().map(|default| variable.check(default)) {
            self.error(&at("default"), error.reason, error.remedy);
        }
        variable
    }

    fn unused(&self) {
        for variable in &self.variables {
            if !self.used.borrow().contains(&variable.name) {
                self.error(&["variables", &variable.name], "no placeholder uses it", format!("remove it, or write {{{{{}}}}} where it belongs", variable.name));
            }
        }
    }

    /// Notes that a placeholder is used and checks that it may stand where it does.
    fn placeholder(&self, path: Path<'_>, placeholder: &Placeholder, place: Option<Place>) {
        let name = placeholder.name();
        let in_api = path.first() == Some(&"api");
        match placeholder {
            Placeholder::Variable(name) => self.used.borrow_mut().insert(name.clone()),
            Placeholder::Reply(_) if in_api && place != Some(Place::Host) => return,
            Placeholder::Audience if !in_api && !matches!(place, Some(Place::Host | Place::Whole)) => return,
            Placeholder::Reply(_) => return self.error(path, format!("{{{{{name}}}}} may not stand here"), "use it in [api]: as the whole of base_url, in a path or in a header"),
            Placeholder::Audience => return self.error(path, "{{audience}} may not stand here", "use it in params or headers of [authorize], [token] and [refresh]"),
        };
        let Some(variable) = self.variables.iter().find(|variable| variable.name == name) else {
            let known: Vec<_> = self.variables.iter().map(|variable| variable.name.as_str()).collect();
            let known = if known.is_empty() { String::new() } else { format!(", or use one of: {}", known.join(", ")) };
            return self.error(path, format!("there is no variable `{name}`"), format!("add [variables.{name}]{known}"));
        };
        match place {
            Some(Place::Host) if variable.kind != Kind::Host => {
                self.error(path, format!("`{name}` could change the host"), "make the variable `kind = \"host\"` with a pattern");
            }
            Some(Place::Whole) if variable.kind != Kind::Url => self.error(path, format!("`{name}` is not a URL"), "make the variable `kind = \"url\"`"),
            Some(Place::PathOrQuery) if variable.kind == Kind::Url => {
                self.error(path, format!("`{name}` is a whole URL"), "let it be the whole of this field, or make the variable a text");
            }
            _ => {}
        }
    }

    // The phases.

    fn discover(&self, raw: schema::Discover) -> Option<Discover> {
        let Some(issuer) = raw.issuer else {
            self.error(&["discover", "issuer"], "it is missing", "give the issuer's URL");
            return None;
        };
        let issuer = self.url(&["discover", "issuer"], Some(issuer))?;
        Some(Discover { issuer, documents: raw.documents })
    }

    fn authorize(&self, raw: schema::Authorize) -> AuthorizePhase {
        AuthorizePhase {
            url: self.url(&["authorize", "url"], raw.url),
            params: self.params("authorize", raw.params),
            renames: self.renames("authorize", raw.rename, raw.drop),
            pkce: raw.pkce,
            nonce: raw.nonce,
        }
    }

    fn callback(&self, raw: schema::Callback) -> CallbackPhase {
        CallbackPhase { issuer: self.url(&["callback", "issuer"], raw.issuer), issuer_required: raw.issuer_required }
    }

    fn token(&self, raw: schema::Token) -> RequestPhase {
        RequestPhase {
            url: self.url(&["token", "url"], raw.url),
            client_auth: raw.client_auth,
            body: raw.body,
            headers: self.headers("token", raw.headers),
            params: self.params("token", raw.params),
            renames: self.renames("token", raw.rename, raw.drop),
        }
    }

    /// What [refresh] does not say is as in [token], but for the parameters.
    fn refresh(&self, raw: schema::Refresh, token: &RequestPhase) -> RequestPhase {
        RequestPhase {
            url: self.url(&["refresh", "url"], raw.url),
            client_auth: raw.client_auth.or(token.client_auth),
            body: raw.body.or(token.body),
            headers: raw.headers.map_or_else(|| token.headers.clone(), |headers| self.headers("refresh", headers)),
            params: self.params("refresh", raw.params),
            renames: token.renames.clone(),
        }
    }

    fn revoke(&self, raw: schema::Revoke, token: &RequestPhase) -> RequestPhase {
        RequestPhase {
            url: self.url(&["revoke", "url"], raw.url),
            client_auth: raw.client_auth.or(token.client_auth),
            body: raw.body.or(token.body),
            headers: raw.headers.map_or_else(|| token.headers.clone(), |headers| self.headers("revoke", headers)),
            params: self.params("revoke", raw.params),
            renames: self.renames("revoke", raw.rename, raw.drop),
        }
    }

    fn recovery(&self, name: Option<RecoveryName>, window: Option<&str>) -> Recovery {
        let path = ["refresh", "window"];
        let length = self.duration(&path, window);
        match (name, window) {
            (Some(RecoveryName::Window), None) => self.error(&path, "recovery is `window`, and its length is missing", "write it like \"60s\""),
            (Some(RecoveryName::Window), Some(_)) | (_, None) => {}
            (_, Some(_)) => self.error(&path, "recovery is not `window`", "remove it, or write `recovery = \"window\"`"),
        }
        match name {
            Some(RecoveryName::Static) => Recovery::Static,
            Some(RecoveryName::Window) => Recovery::Window(length.unwrap_or_default()),
            Some(RecoveryName::UntilUsed) => Recovery::UntilUsed,
            Some(RecoveryName::SingleUse) | None => Recovery::SingleUse,
            Some(RecoveryName::Family) => Recovery::Family,
            Some(RecoveryName::AccessDies) => Recovery::AccessDies,
        }
    }

    fn reply(&self, raw: &schema::Reply) -> ReplyRules {
        let standard = ReplyRules::default();
        let pointer = |field: &str, written: &Option<String>, standard: Pointer| {
            let Some(written) = written else { return standard };
            if written.is_empty() || written.contains("//") || written.ends_with('/') {
                self.error(&["token", "reply", field], "it does not name a member of the reply", "write a name, or a JSON pointer like \"/data/access_token\"");
            }
            Pointer::new(written)
        };
        if raw.never_expires && raw.default_lifetime.is_some() {
            self.error(&["token", "reply", "default_lifetime"], "tokens that never expire have no lifetime", "remove it, or `never_expires`");
        }
        ReplyRules {
            access_token: pointer("access_token", &raw.access_token, standard.access_token),
            refresh_token: pointer("refresh_token", &raw.refresh_token, standard.refresh_token),
            id_token: pointer("id_token", &raw.id_token, standard.id_token),
            token_type: pointer("token_type", &raw.token_type, standard.token_type),
            scope: pointer("scope", &raw.scope, standard.scope),
            expires_in: pointer("expires_in", &raw.expires_in, standard.expires_in),
            error: pointer("error", &raw.error, standard.error),
            error_description: pointer("error_description", &raw.error_description, standard.error_description),
            expiry_unit: match raw.expiry_unit {
                Unit::Seconds => ExpiryUnit::Seconds,
                Unit::Milliseconds => ExpiryUnit::Milliseconds,
            },
            default_lifetime: self.duration(&["token", "reply", "default_lifetime"], raw.default_lifetime.as_deref()),
            never_expires: raw.never_expires,
            success: raw.success.as_ref().and_then(|success| self.success(success)),
            dead: raw.dead.clone(),
            retry: raw.retry.clone(),
            setup: raw.setup.clone(),
            keep: raw.keep.clone(),
        }
    }

    fn success(&self, raw: &schema::Success) -> Option<SuccessRule> {
        let path = ["token", "reply", "success"];
        let (Some(pointer), Some(equals)) = (&raw.pointer, &raw.equals) else {
            self.error(&path, "it needs both `pointer` and `equals`", "write it like { pointer = \"/ok\", equals = true }");
            return None;
        };
        Some(SuccessRule { pointer: Pointer::new(pointer), equals: equals.clone() })
    }

    fn api(&self, raw: schema::Api) -> ApiPhase {
        let standard = ApiPhase::default();
        let base_url = self.url(&["api", "base_url"], raw.base_url);
        let from_reply = base_url.as_ref().is_some_and(|url| url.placeholders().iter().any(|(placeholder, _)| matches!(placeholder, Placeholder::Reply(_))));
        if from_reply && raw.hosts.is_empty() {
            self.error(&["api", "hosts"], "the base URL comes from a reply, and nothing says which hosts are the provider's", "list them, for example \"*.example.com\"");
        }
        self.path(&["api", "verify"], raw.verify.as_deref());
        ApiPhase {
            base_url,
            hosts: raw.hosts.iter().enumerate().filter_map(|(index, host)| self.host(&["api", "hosts", &index.to_string()], host)).collect(),
            header: raw.header.and_then(|name| self.header_name(&["api", "header"], &name)).unwrap_or(standard.header),
            prefix: raw.prefix.inspect(|prefix| self.prefix(prefix)).unwrap_or(standard.prefix),
            headers: self.headers("api", raw.headers),
            verify: raw.verify,
        }
    }

    fn host(&self, path: Path<'_>, text: &str) -> Option<Template> {
        let template = self.keep(path, Template::parse(text), "write {{name}} with a variable's name")?;
        for placeholder in template.placeholders() {
            self.placeholder(path, placeholder, Some(Place::Host));
        }
        let sample = template.render(|_| Ok::<_, ()>(Some("x".to_owned()))).ok().flatten().unwrap_or_default();
        if !is_host_pattern(&sample) || sample != sample.to_ascii_lowercase() {
            self.error(path, "it is not a host", "write a host in lower case, without https:// and port, or \"*.example.com\" for all below one");
        }
        Some(template)
    }

    fn prefix(&self, prefix: &str) {
        if !prefix.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
            self.error(&["api", "prefix"], "it has characters that a header may not have", "write it like \"Bearer\", or \"\" for none");
        }
    }

    fn path(&self, path: Path<'_>, text: Option<&str>) {
        let Some(text) = text else { return };
        if !text.is_empty() && (!text.starts_with('/') || text.starts_with("//") || text.contains(['\\', '#', '{']) || text.chars().any(|c| !c.is_ascii_graphic())) {
            self.error(path, "it is not a path", "write a path below base_url, beginning with one `/`; \"\" switches the check off");
        }
    }

    // The rest of the file.

    fn scopes(&self, raw: schema::Scopes) -> ScopeRules {
        let separator = raw.separator.unwrap_or_else(|| " ".to_owned());
        if separator.is_empty() {
            self.error(&["scopes", "separator"], "it is empty", "write what stands between two scopes, such as \" \" or \",\"");
        }
        ScopeRules {
            separator,
            parameter: raw.parameter.unwrap_or_else(|| "scope".to_owned()),
            default: raw.default,
            always: raw.always,
            known: self.source.order(&["scopes", "known"], raw.known),
        }
    }

    fn setup(&self, raw: schema::Setup) -> Setup {
        self.page(&["setup", "register_url"], raw.register_url.as_deref());
        Setup { register_url: raw.register_url, text: raw.text.trim().to_owned(), redirect_note: raw.redirect_note }
    }

    fn known_errors(&self, raw: Vec<schema::KnownError>) -> Vec<KnownError> {
        let mut errors = Vec::new();
        for (index, error) in raw.into_iter().enumerate() {
            let index = index.to_string();
            let code = self.required(&["errors", &index, "code"], error.code);
            let remedy = self.required(&["errors", &index, "remedy"], error.remedy);
            errors.push(KnownError { code, remedy });
        }
        errors
    }

    // Kinds of fields.

    fn required(&self, path: Path<'_>, text: Option<String>) -> String {
        let text = text.unwrap_or_default();
        if text.trim().is_empty() {
            self.error(path, "it is missing or empty", "add it");
        }
        text
    }

    fn url(&self, path: Path<'_>, text: Option<String>) -> Option<UrlTemplate> {
        let remedy = "give an absolute https:// URL without user name and fragment, or \"{{name}}\" of a variable of kind url (http:// is for loopback only)";
        let url = self.keep(path, UrlTemplate::parse(&text?), remedy)?;
        for (placeholder, place) in url.placeholders() {
            self.placeholder(path, placeholder, Some(place));
        }
        Some(url)
    }

    fn params(&self, phase: &str, raw: Table) -> Vec<(String, Template)> {
        let table = [phase, "params"];
        let params = self.source.order(&table, raw).into_iter();
        params.filter_map(|(name, text)| Some((name.clone(), self.text(&[phase, "params", &name], &text)?))).collect()
    }

    fn headers(&self, phase: &str, raw: Table) -> Vec<(HeaderName, Template)> {
        let table = [phase, "headers"];
        let headers = self.source.order(&table, raw).into_iter();
        headers.filter_map(|(name, text)| {
            let path = [phase, "headers", name.as_str()];
            let header = self.header_name(&path, &name)?;
            let template = self.text(&path, &text)?;
            if template.as_literal().is_some_and(|text| http::HeaderValue::from_str(&text).is_err()) {
                self.error(&path, "the value has characters that a header may not have", "remove line breaks and control characters");
            }
            Some((header, template))
        })
        .collect()
    }

    fn header_name(&self, path: Path<'_>, name: &str) -> Option<HeaderName> {
        self.keep(path, HeaderName::try_from(name).map_err(|_| "it is not a header's name".to_owned()), "write it like \"X-Api-Version\"")
    }

    fn text(&self, path: Path<'_>, text: &str) -> Option<Template> {
        let template = self.keep(path, Template::parse(text), "write {{name}} with a variable's name")?;
        for placeholder in template.placeholders() {
            self.placeholder(path, placeholder, None);
        }
        Some(template)
    }

    fn renames(&self, phase: &str, rename: Table, drop: Vec<String>) -> Vec<(String, Option<String>)> {
        for (index, name) in drop.iter().enumerate() {
            if rename.contains_key(name) {
                self.error(&[phase, "drop", &index.to_string()], format!("`{name}` is renamed too"), "keep one of the two");
            }
        }
        let renamed = rename.into_iter().map(|(from, to)| (from, Some(to)));
        renamed.chain(drop.into_iter().map(|name| (name, None))).collect()
    }

    fn duration(&self, path: Path<'_>, text: Option<&str>) -> Option<Duration> {
        let text = text?;
        let parsed = read_duration(text);
        if parsed.is_none() {
            self.error(path, "it is not a length of time", "write a number and a unit: \"60s\", \"30m\", \"12h\" or \"90d\"");
        }
        parsed
    }

    /// The value, or an error at `path`.
    fn keep<T>(&self, path: Path<'_>, result: Result<T, String>, remedy: &str) -> Option<T> {
        result.map_err(|reason| self.error(path, reason, remedy)).ok()
    }

    fn error(&self, path: Path<'_>, reason: impl Into<String>, remedy: impl Into<String>) {
        self.errors.borrow_mut().push(self.source.error(path, reason, remedy));
    }
}

fn read_endpoint_or_page(text: &str) -> Result<(), String> {
    // A page may have a fragment; it is for people.
    read_endpoint(text.split('#').next().unwrap_or_default()).map(|_| ())
}

fn read_duration(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    if number.is_empty() || number.len() > 6 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok().map(|number| Duration::from_secs(number * unit))
}

#[cfg(test)]
mod tests;
