//! One method of a definition as the judge reads it, by itself, from data: `docs/provider-language.md` is all it knows.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use url::Url;

use super::keys;

/// What the application registered at the provider, and what people typed.
#[derive(Clone, Default)]
pub struct Registration {
    /// The client id.
    pub client_id: String,
    /// The client secret; `None` for a public client.
    pub client_secret: Option<String>,
    /// The client's private key, PEM (PKCS#8).
    pub client_key: Option<String>,
    /// For whom the token is meant, if the definition asks.
    pub audience: Option<String>,
    /// What is asked for; empty: the definition's default.
    pub scopes: Vec<String>,
    /// Values of the definition's variables.
    pub variables: BTreeMap<String, String>,
    /// Who signs in, with the password grant.
    pub username: Option<String>,
    /// Their password.
    pub password: Option<String>,
    /// The refresh token that somebody brings.
    pub refresh_token: Option<String>,
}

/// Before the name of a secondary token among what is known.
pub(super) const SECONDARY: &str = "secondary.";

/// What a value is filled in from besides the registration: what was said and issued so far.
pub(super) type Known = BTreeMap<String, String>;

/// A method with the values of one rehearsal.
pub(super) struct Script {
    phases: Value,
    variables: Value,
    writes_refresh: bool,
    pub(super) grant: String,
    pub(super) registration: Registration,
}

/// An address that a definition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// In lower case, with a port if there is one.
    pub(super) host: String,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
}

/// What these requests take from `[token]` where they don't say it themselves.
const LIKE_CLIENT: [&str; 6] = ["client_auth", "client_assertion", "body", "headers", "rename", "drop"];
/// What `[refresh]` and `[follow_up]` take beside that.
const LIKE_TOKEN: [&str; 3] = ["method", "reply", "secondary"];

impl Script {
    /// Reads a method of a merged definition; the error says what is not there.
    pub(super) fn read(definition: &Value, method: &str, registration: Registration) -> Result<Self, String> {
        let methods = definition["methods"].as_array().map(Vec::as_slice).unwrap_or_default();
        let named = |it: &&Value| it["name"].as_str().or(it["grant"].as_str()) == Some(method);
        let own = methods.iter().find(named).ok_or_else(|| format!("the definition has no method `{method}`"))?;
        let grant = own["grant"].as_str().unwrap_or_default().to_owned();
        let mut phases = merge(definition, own);
        let writes_refresh = phases["refresh"].is_object();
        let token = phases["token"].clone();
        for (phase, always) in
            [("refresh", true), ("follow_up", false), ("revoke", true), ("introspect", true), ("device", false)]
        {
            let like_token = matches!(phase, "refresh" | "follow_up");
            let taken = |key: &&String| {
                LIKE_CLIENT.contains(&key.as_str()) || (like_token && LIKE_TOKEN.contains(&key.as_str()))
            };
            let members = token.as_object().cloned().unwrap_or_default();
            let base: Map<String, Value> = members.into_iter().filter(|(key, _)| taken(&key)).collect();
            let written = phases.get(phase).cloned();
            if always || written.is_some() {
                phases[phase] = merge(&Value::Object(base), &written.unwrap_or_else(|| Value::Object(Map::new())));
            }
        }
        let variables = definition["variables"].clone();
        Ok(Self { phases, variables, writes_refresh, grant, registration })
    }

    /// A field, such as `/token/reply/error`; `null` if nobody says it.
    pub(super) fn field(&self, pointer: &str) -> &Value {
        self.phases.pointer(pointer).unwrap_or(&Value::Null)
    }

    pub(super) fn text(&self, pointer: &str) -> Option<&str> {
        self.field(pointer).as_str()
    }

    pub(super) fn is(&self, pointer: &str) -> bool {
        self.field(pointer) == &Value::Bool(true)
    }

    /// The entries of a table of texts, numbers and the like.
    pub(super) fn table(&self, pointer: &str) -> Vec<(&str, &Value)> {
        let members = self.field(pointer).as_object().into_iter().flatten();
        members.map(|(name, value)| (name.as_str(), value)).collect()
    }

    pub(super) fn list(&self, pointer: &str) -> Vec<&str> {
        self.field(pointer).as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Whether the definition has a table of its own about renewal.
    pub(super) fn writes_refresh(&self) -> bool {
        self.writes_refresh
    }

    /// Every text of the definition.
    pub(super) fn texts(&self) -> Vec<&str> {
        let mut found = Vec::new();
        gather(&self.phases, "", &mut |_, text| found.push(text));
        found
    }

    /// The texts that are addresses.
    pub(super) fn addresses(&self) -> Vec<&str> {
        let mut found = Vec::new();
        gather(&self.phases, "", &mut |key, text| {
            if matches!(key, "url" | "base_url") {
                found.push(text);
            }
        });
        found
    }

    /// A length of time such as `90d`, in milliseconds.
    pub(super) fn length(&self, pointer: &str) -> Option<i64> {
        milliseconds(self.text(pointer)?)
    }

    /// Whether a person decides.
    pub(super) fn has_person(&self) -> bool {
        matches!(self.grant.as_str(), "authorization_code" | "device_code")
    }

    /// What is asked for, one by one.
    pub(super) fn scopes(&self) -> Vec<String> {
        let chosen = self.registration.scopes.iter().map(String::as_str);
        let mut asked: Vec<&str> = chosen.collect();
        if asked.is_empty() {
            asked = self.list("/scopes/default");
        }
        let mut scopes: Vec<String> = Vec::new();
        for scope in asked.into_iter().chain(self.list("/scopes/always")) {
            if !scopes.iter().any(|known| known == scope) {
                scopes.push(scope.to_owned());
            }
        }
        scopes
    }

    pub(super) fn separator(&self) -> &str {
        self.text("/scopes/separator").unwrap_or(" ")
    }

    /// Puts values into a text; `None` if one is missing, which leaves out what the text stands for. A signed token, which is different
    /// each time, is left as a mark that [`keys::matches`] understands.
    pub(super) fn fill(&self, template: &str, known: &Known) -> Option<String> {
        self.fill_with(template, known, |value, _| value.to_owned())
    }

    /// As `fill`; `escape` gets each value, and how much text stands before it.
    pub(super) fn fill_with(
        &self,
        template: &str,
        known: &Known,
        escape: impl Fn(&str, &str) -> String,
    ) -> Option<String> {
        let mut out = String::new();
        for part in parts(template) {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Name(name) => {
                    let value = self.value(name, known)?;
                    let escaped = escape(&value, &out);
                    out.push_str(&escaped);
                }
            }
        }
        Some(out)
    }

    /// What a name stands for.
    pub(super) fn value(&self, name: &str, known: &Known) -> Option<String> {
        let registration = &self.registration;
        let standard = match name {
            "client_id" => Some(registration.client_id.clone()),
            "client_secret" => registration.client_secret.clone(),
            "client_key" => registration.client_key.clone(),
            "username" => registration.username.clone(),
            "password" => registration.password.clone(),
            "audience" => registration.audience.clone().or_else(|| self.input("audience")),
            "scope" => Some(self.scopes().join(self.separator())).filter(|scope| !scope.is_empty()),
            _ => None,
        };
        if let Some(computed) = name.strip_prefix("computed.") {
            return self.computed(computed, known);
        }
        let said = || known.get(name).cloned().or_else(|| self.capture_default(name, known));
        standard.or_else(said).or_else(|| self.variable(name)).filter(|value| !value.is_empty())
    }

    /// What stands for a parameter of the callback that has not come.
    fn capture_default(&self, name: &str, known: &Known) -> Option<String> {
        let default = self.field("/callback/capture")[name.strip_prefix("callback.")?]["default"].as_str()?;
        self.fill(default, known)
    }

    /// The default of a standard input.
    pub(super) fn input(&self, name: &str) -> Option<String> {
        self.text(&format!("/inputs/{name}/default")).map(str::to_owned)
    }

    fn variable(&self, name: &str) -> Option<String> {
        if let Some((variable, follows)) = name.split_once('.') {
            let chosen = self.variable(variable)?;
            return self.variables[variable]["choices"][chosen][follows].as_str().map(str::to_owned);
        }
        let declared = self.variables.get(name)?;
        let given = self.registration.variables.get(name).filter(|value| !value.is_empty()).cloned();
        let value = given.or_else(|| declared["default"].as_str().map(str::to_owned))?;
        if declared["kind"] != "scopes" {
            return Some(value);
        }
        let words: Vec<&str> = value.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        Some(words.join(self.separator()))
    }

    fn computed(&self, name: &str, known: &Known) -> Option<String> {
        let rule = self.field("/computed").get(name)?;
        let filled = |key: &str| self.fill(rule[key].as_str()?, known);
        if let Some(hash) = rule["hmac"].as_str() {
            let mac = keys::hmac(hash, filled("key")?.as_bytes(), filled("over")?.as_bytes())?;
            return Some(keys::encode(rule["encoding"].as_str().unwrap_or("hex"), &mac));
        }
        if let Some(hash) = rule["hash"].as_str() {
            let digest = keys::digest(hash, filled("over")?.as_bytes())?;
            return Some(keys::encode(rule["encoding"].as_str().unwrap_or("hex"), &digest));
        }
        if rule["base64"].is_string() {
            let encoding = rule["encoding"].as_str().unwrap_or("base64");
            return Some(keys::encode(encoding, filled("base64")?.as_bytes()));
        }
        self.fill(rule["jwt"]["key"].as_str()?, known)?;
        Some(keys::mark(name))
    }

    /// Puts values into an address.
    pub(super) fn address(&self, template: &str, known: &Known) -> Option<Address> {
        let filled = self.fill_with(template, known, |value, before| {
            // What stands before the path is put in as it is: a host, or the whole of what comes before.
            let in_host = before.is_empty() || before.split_once("://").is_some_and(|(_, rest)| !rest.contains('/'));
            if in_host { value.to_owned() } else { percent(value) }
        })?;
        // A base that ends with a slash is followed by a path.
        let (scheme, rest) = filled.split_once("://")?;
        Address::read(&format!("{scheme}://{}", rest.replace("//", "/")))
    }

    /// Where a phase's request goes: as the definition says, else as the discovery document does.
    pub(super) fn endpoint(&self, phase: &str, known: &Known) -> Option<Address> {
        if let Some(template) = self.text(&format!("/{phase}/url"))
            && let Some(address) = self.address(template, known)
        {
            return Some(address);
        }
        match phase {
            "refresh" | "follow_up" => self.endpoint("token", known),
            "authorize" | "token" | "revoke" | "userinfo" | "device" => {
                Address::read(&format!("{}/rehearsal/{phase}", self.issuer(known)?))
            }
            _ => None,
        }
    }

    /// The issuer whose document is asked for, without a slash at the end.
    pub(super) fn issuer(&self, known: &Known) -> Option<String> {
        self.written_issuer(known).map(|issuer| issuer.trim_end_matches('/').to_owned())
    }

    /// The same as it is written, which its document repeats to the letter (RFC 8414 §3.3).
    pub(super) fn written_issuer(&self, known: &Known) -> Option<String> {
        let filled = self.fill_with(self.text("/discover/issuer")?, known, |value, before| {
            if before.is_empty() || !before.contains("://") || !before[8..].contains('/') {
                value.to_owned()
            } else {
                percent(value)
            }
        })?;
        filled.split("/.well-known/").next().map(str::to_owned)
    }

    /// How the client proves itself in a phase.
    pub(super) fn client_auth(&self, phase: &str) -> &str {
        let offered = if self.field("/discover").is_object() { "post" } else { "basic" };
        self.text(&format!("/{phase}/client_auth")).unwrap_or(offered)
    }
}

impl Address {
    pub(super) fn read(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Some(Self {
            host: format!("{}{port}", url.host_str()?),
            path: url.path().to_owned(),
            query: url.query_pairs().into_owned().collect(),
        })
    }

    /// The address without its query.
    pub(super) fn shown(&self) -> String {
        format!("https://{}{}", self.host, self.path)
    }
}

/// A piece of a template.
pub(super) enum Part<'a> {
    Text(&'a str),
    Name(&'a str),
}

pub(super) fn parts(template: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((text, more)) = rest.split_once("{{") {
        let (name, after) = more.split_once("}}").unwrap_or((more, ""));
        parts.push(Part::Text(text));
        parts.push(Part::Name(name.trim()));
        rest = after;
    }
    parts.push(Part::Text(rest));
    parts
}

/// All but the unreserved characters in percent notation.
pub(super) fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn gather<'a>(value: &'a Value, key: &'a str, each: &mut impl FnMut(&'a str, &'a str)) {
    match value {
        Value::String(text) => each(key, text),
        Value::Array(items) => items.iter().for_each(|item| gather(item, key, each)),
        Value::Object(members) => {
            members.iter().filter(|(name, _)| *name != "methods").for_each(|(name, value)| gather(value, name, each))
        }
        _ => {}
    }
}

/// Key by key: tables merge, all else replaces, and `false` removes what is no truth value.
pub(super) fn merge(base: &Value, over: &Value) -> Value {
    let (Value::Object(base), Value::Object(over)) = (base, over) else { return over.clone() };
    let mut merged = base.clone();
    for (key, value) in over {
        match merged.get(key) {
            Some(known) if value == &Value::Bool(false) && !known.is_boolean() => drop(merged.remove(key)),
            Some(known) => drop(merged.insert(key.clone(), merge(known, value))),
            None => drop(merged.insert(key.clone(), value.clone())),
        }
    }
    Value::Object(merged)
}

/// `60s`, `30m`, `12h`, `90d`.
pub(super) fn milliseconds(text: &str) -> Option<i64> {
    let text = text.trim();
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit)
}
