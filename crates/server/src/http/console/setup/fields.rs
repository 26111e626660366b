//! The rows of the one form. Which there are follows from the provider's definition; what stands in them from what was typed, or is kept.

use std::collections::BTreeSet;

use keyholder_oauth::ClientAuth;
use keyholder_provider::{AskedOf, Definition, GrantKind, Method, Presence, ScopeRules, Variable};

use super::super::forms::{Field, Pairs, Wrong, mark};
use keyholder_broker::{FieldError, writes};

/// What the form is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Purpose {
    /// An integration, and a connection under it.
    Both,
    /// An integration alone.
    Integration,
    /// A connection under an integration that is there.
    Connection,
    /// An integration that is there.
    EditIntegration,
    /// A connection that is there.
    EditConnection,
}

impl Purpose {
    /// The integration's rows are there.
    pub(in crate::http) fn has_integration(self) -> bool {
        matches!(self, Self::Both | Self::Integration | Self::EditIntegration)
    }

    /// The connection's rows are there.
    pub(in crate::http) fn has_connection(self) -> bool {
        matches!(self, Self::Both | Self::Connection | Self::EditConnection)
    }
}

/// What the rows are made of.
pub(in crate::http) struct Source<'a> {
    pub(in crate::http) definition: &'a Definition,
    /// Those to choose from.
    pub(in crate::http) methods: Vec<&'a Method>,
    pub(in crate::http) chosen: &'a Method,
    pub(in crate::http) purpose: Purpose,
    /// What was typed, or stands in what is changed.
    pub(in crate::http) typed: Option<&'a Pairs>,
    /// Names of the rows whose secret is kept.
    pub(in crate::http) kept: BTreeSet<String>,
}

/// The rows, by the card that they stand on.
#[derive(Default)]
pub(in crate::http) struct Rows {
    pub(in crate::http) about: Vec<Field>,
    pub(in crate::http) methods: Vec<MethodRow>,
    pub(in crate::http) method_wrong: Option<String>,
    pub(in crate::http) client: Vec<Field>,
    pub(in crate::http) places: Vec<Field>,
    pub(in crate::http) scopes: Vec<ScopeGroup>,
    pub(in crate::http) may: Vec<Field>,
    pub(in crate::http) account: Vec<Field>,
    pub(in crate::http) more: Vec<Field>,
    pub(in crate::http) extra: Vec<ExtraRows>,
    /// There is a method that is handed a person's password.
    pub(in crate::http) password: Option<String>,
}

/// A method to choose.
pub(in crate::http) struct MethodRow {
    pub(in crate::http) name: String,
    pub(in crate::http) label: String,
    /// Who acts.
    pub(in crate::http) who: &'static str,
    pub(in crate::http) grant: &'static str,
    pub(in crate::http) chosen: bool,
}

/// The scopes that a provider is known to have, for the methods that share them.
pub(in crate::http) struct ScopeGroup {
    pub(in crate::http) name: String,
    pub(in crate::http) when: Option<String>,
    pub(in crate::http) items: Vec<ScopeRow>,
    /// What is asked for where none is chosen.
    pub(in crate::http) usual: String,
}

/// A scope to tick.
pub(in crate::http) struct ScopeRow {
    pub(in crate::http) name: String,
    pub(in crate::http) meaning: String,
    pub(in crate::http) writes: bool,
    pub(in crate::http) always: bool,
    pub(in crate::http) chosen: bool,
}

/// Parameters of one request.
pub(in crate::http) struct ExtraRows {
    pub(in crate::http) name: &'static str,
    pub(in crate::http) legend: &'static str,
    pub(in crate::http) when: Option<&'static str>,
    pub(in crate::http) pairs: Vec<(String, String)>,
    pub(in crate::http) wrong: Option<String>,
}

impl Rows {
    /// The rows of a form.
    pub(in crate::http) fn of(source: &Source<'_>) -> Self {
        let mut rows = Self { about: source.about(), ..Self::default() };
        if source.purpose.has_integration() {
            rows.methods = source.method_rows();
            rows.client = source.client();
            rows.places = source.variables(AskedOf::Integration, false);
            rows.scopes = source.scope_groups();
            rows.may = source.may();
            rows.more = source.more();
            rows.extra = source.extra();
        }
        if source.purpose.has_connection() {
            rows.account = source.account();
        }
        let passwords: Vec<_> = source.methods.iter().filter(|it| it.grant == GrantKind::Password).copied().collect();
        rows.password = (!passwords.is_empty() && source.purpose.has_connection())
            .then(|| source.when(&passwords).unwrap_or_default());
        rows
    }

    /// Marks what is wrong at its row; answers it all for the summary.
    pub(in crate::http) fn mark(&mut self, wrong: &[FieldError]) -> Vec<Wrong> {
        let own = |error: &&FieldError| error.field == "method" || error.field.starts_with("extra.");
        for error in wrong.iter().filter(own) {
            let text =
                format!("{}; {}.", super::super::render::sentence(&error.reason).trim_end_matches('.'), error.remedy);
            let place = match self.extra.iter_mut().find(|rows| error.field.strip_prefix("extra.") == Some(rows.name)) {
                Some(rows) => &mut rows.wrong,
                None => &mut self.method_wrong,
            };
            *place = Some(place.take().map_or_else(|| text.clone(), |before| format!("{before} {text}")));
        }
        let cards =
            [&mut self.about, &mut self.client, &mut self.places, &mut self.may, &mut self.account, &mut self.more];
        let mut fields: Vec<&mut Field> = cards.into_iter().flatten().collect();
        let mut all = mark(&mut fields, wrong);
        for one in all.iter_mut().filter(|one| one.field.is_empty()) {
            let legend = self.extra.iter().find(|rows| one.label.strip_prefix("extra.") == Some(rows.name));
            let place = match legend {
                Some(rows) => Some((one.label.clone(), rows.legend)),
                None => (one.label == "method").then(|| ("method".to_owned(), "Who acts")),
            };
            if let Some((field, label)) = place {
                (one.field, one.label) = (field, label.to_owned());
            }
        }
        all
    }

    /// The switch's words for the card of the addresses; `None`: it is always there.
    pub(in crate::http) fn places_when(&self) -> Option<String> {
        together(&self.places)
    }

    /// The same for the card of the account: a grant that needs nothing of it has none.
    pub(in crate::http) fn account_when(&self) -> Option<String> {
        together(&self.account)
    }

    /// Whether something below “More” wants attention.
    pub(in crate::http) fn more_wrong(&self) -> bool {
        self.more.iter().any(|field| field.wrong.is_some()) || self.extra.iter().any(|rows| rows.wrong.is_some())
    }
}

/// The switch's words where any of these rows is shown; `None`: one of them always is.
fn together(fields: &[Field]) -> Option<String> {
    let words: Option<Vec<&str>> = fields.iter().map(|field| field.when.as_deref()).collect();
    let words: BTreeSet<&str> = words?.into_iter().flat_map(str::split_whitespace).collect();
    Some(words.into_iter().collect::<Vec<_>>().join(" "))
}

impl Source<'_> {
    /// What was typed goes in; a secret never does.
    fn fill(&self, field: Field) -> Field {
        if field.secret {
            return Field { kept: self.kept.contains(&field.name), ..field };
        }
        match self.typed {
            Some(typed) if typed.iter().any(|(name, _)| name == field.name) => {
                let value = typed.one(&field.name).to_owned();
                field.value(value)
            }
            _ => field,
        }
    }

    /// The switch's words for some of the methods; `None` where it is all of them.
    fn when(&self, methods: &[&Method]) -> Option<String> {
        (methods.len() < self.methods.len())
            .then(|| methods.iter().map(|method| method.name.as_str()).collect::<Vec<_>>().join(" "))
    }

    fn about(&self) -> Vec<Field> {
        if self.purpose == Purpose::EditConnection {
            return Vec::new();
        }
        let mut fields =
            vec![Field::text("name", "Name", "What you call it; it goes into addresses and commands.").required()];
        if self.purpose.has_integration() {
            fields.push(Field::text("description", "Description", "For you and your colleagues.").lines(2));
        }
        if self.purpose.has_connection() {
            fields.push(Field::text(
                "owner",
                "Owner",
                "Whose account it is, in your application's words; may stay empty.",
            ));
            fields.push(Field::text("tags", "Tags", "Labels to find it by, one a line, as name=value.").lines(2));
        }
        fields.into_iter().map(|field| self.fill(field)).collect()
    }

    fn method_rows(&self) -> Vec<MethodRow> {
        let row = |method: &&Method| MethodRow {
            name: method.name.clone(),
            label: method.label.clone(),
            who: if acts_for_itself(method.grant) { "Application → API" } else { "User → API" },
            grant: method.grant.as_str(),
            chosen: method.name == self.chosen.name,
        };
        self.methods.iter().map(row).collect()
    }

    /// The row of a standard input, for the methods that ask for it; `hidden` ones stand among the further settings.
    fn input(&self, name: &str, hidden: bool) -> Option<Field> {
        let has = |method: &&&Method| method.inputs.iter().any(|input| input.name == name);
        let having: Vec<&Method> = self.methods.iter().filter(has).copied().collect();
        let inputs: Vec<&Variable> =
            having.iter().filter_map(|method| method.inputs.iter().find(|input| input.name == name)).collect();
        let first = *inputs.first()?;
        let shown = inputs.iter().any(|it| matches!(it.presence, Presence::Required | Presence::Optional));
        if first.presence == Presence::Fixed || shown == hidden {
            return None;
        }
        let field = Field::from(first, "");
        let required = inputs.iter().all(|it| it.presence == Presence::Required && it.default.is_none());
        let help = if field.help.is_empty() { help_of(name).to_owned() } else { field.help.clone() };
        Some(self.fill(Field { required, help, when: self.when(&having), ..field }))
    }

    fn client(&self) -> Vec<Field> {
        let mut fields: Vec<Field> = self.input("client_id", false).into_iter().collect();
        fields.extend(
            self.input("client_secret", false).map(|field| Field { required: field.required && !field.kept, ..field }),
        );
        let ends = Field::text(
            "client_secret_expires_at",
            "The secret ends on",
            "If the provider says when; you are warned ahead of it.",
        );
        fields.push(self.fill(ends.kind("date")));
        fields.extend(self.input("client_key", false));
        fields
    }

    /// Rows of the definition's variables.
    fn variables(&self, asked_of: AskedOf, hidden: bool) -> Vec<Field> {
        let asked = self.definition.variables.iter().filter(|it| it.asked_of == asked_of);
        let wanted = asked.filter(|it| it.presence != Presence::Fixed && (it.presence == Presence::Hidden) == hidden);
        let row = |variable: &Variable| {
            let having: Vec<&Method> = self.methods.iter().filter(|it| variable.applies_to(it)).copied().collect();
            let field = Field::from(variable, "variables.");
            let asked_later = asked_of == AskedOf::Connection && having.iter().all(|it| it.grant.needs_a_person());
            let mut help = field.help.clone();
            if let Some(pattern) = &variable.pattern
                && variable.choices.is_empty()
                && help.is_empty()
            {
                help = format!("Must match {}", pattern.as_str());
            }
            if asked_later && field.required {
                help = format!("{help} Left empty, whoever connects is asked for it.");
            }
            let field = Field { required: field.required && !asked_later, help, when: self.when(&having), ..field };
            (!having.is_empty()).then(|| self.fill(field))
        };
        wanted.filter_map(row).map(|field| Field { required: field.required && !field.kept, ..field }).collect()
    }

    fn scope_groups(&self) -> Vec<ScopeGroup> {
        let mut groups: Vec<(String, &ScopeRules, Vec<&Method>)> = Vec::new();
        for method in self.methods.iter().filter(|it| asks_for_scopes(it)) {
            let name = scope_group(&self.methods, method);
            match groups.iter_mut().find(|(known, ..)| *known == name) {
                Some((.., methods)) => methods.push(method),
                None => groups.push((name, &method.scopes, vec![method])),
            }
        }
        let groups = groups.into_iter().map(|(name, rules, methods)| {
            let chosen: BTreeSet<String> = match self.typed {
                Some(typed) if typed.iter().any(|(field, _)| field == "method" || field == "scopes") => {
                    typed.all(&name).into_iter().chain(words(typed.one("scopes"))).collect()
                }
                _ => rules.default.iter().flat_map(|text| words(text)).collect(),
            };
            let named = rules.known.iter().map(|(name, _)| name.as_str());
            let rest =
                rules.always.iter().chain(&rules.default).map(String::as_str).filter(|scope| !scope.contains("{{"));
            let mut seen = BTreeSet::new();
            let items = named.chain(rest).filter(|scope| seen.insert((*scope).to_owned())).map(|scope| ScopeRow {
                name: scope.to_owned(),
                meaning: rules.known.iter().find(|(name, _)| name == scope).map_or(String::new(), |(_, it)| it.clone()),
                writes: writes(scope, &rules.known),
                always: rules.always.iter().any(|always| always == scope),
                chosen: chosen.contains(scope),
            });
            ScopeGroup { name, when: self.when(&methods), items: items.collect(), usual: rules.default.join(" ") }
        });
        groups.filter(|group| !group.items.is_empty()).collect()
    }

    fn may(&self) -> Vec<Field> {
        let mut fields = Vec::new();
        if self.methods.iter().any(|it| asks_for_scopes(it)) {
            let known = self.methods.iter().any(|it| !it.scopes.known.is_empty());
            let label = if known { "Other scopes" } else { "Scopes" };
            let help = "One a line, or separated by spaces. Ask for as little as you need; with none, the provider's usual ones are asked for.";
            let field = self.fill(Field::text("scopes", label, help).lines(2));
            // What is ticked isn't written too.
            let ticked: BTreeSet<String> =
                self.scope_groups().into_iter().flat_map(|group| group.items).map(|row| row.name).collect();
            let value = words(&field.value).filter(|scope| !ticked.contains(scope)).collect::<Vec<_>>().join("\n");
            fields.push(field.value(value));
        }
        fields.extend(self.input("audience", false));
        fields
    }

    fn account(&self) -> Vec<Field> {
        let mut fields: Vec<Field> = ["username", "password", "refresh_token"]
            .into_iter()
            .filter(|name| self.purpose != Purpose::EditConnection || *name != "refresh_token")
            .filter_map(|name| self.input(name, false))
            .map(|field| {
                if field.name != "password" || self.purpose != Purpose::EditConnection {
                    return field;
                }
                Field { required: false, kept: false, ..field }.example("•••• kept; type to replace it")
            })
            .collect();
        fields.extend(self.variables(AskedOf::Connection, false));
        fields.extend(self.variables(AskedOf::Connection, true));
        let mut known = BTreeSet::new();
        let choices = self.methods.iter().flat_map(|method| method.choices().map(move |name| (*method, name)));
        for (method, name) in choices.filter(|(_, name)| known.insert((*name).to_owned())) {
            let help = "As the provider names it, if you know it; else whoever connects chooses.";
            let field = Field::text(format!("choices.{name}"), name, help);
            fields.push(self.fill(Field { when: self.when(&[method]), ..field }));
        }
        fields
    }

    fn more(&self) -> Vec<Field> {
        let mut fields = Vec::new();
        if self.purpose == Purpose::Both {
            let help = "The registration that connections share; as the connection, where nothing is given.";
            fields.push(Field::text("integration_name", "Name of the integration", help));
        }
        let usual = (String::new(), "As the provider wants it".to_owned());
        let ways = ClientAuth::ALL.iter().map(|auth| (auth.to_string(), in_words(*auth).to_owned()));
        let help = "How the application proves itself where tokens are asked for.";
        fields.push(
            Field::text("client_auth", "Client authentication", help)
                .choices(std::iter::once(usual.clone()).chain(ways)),
        );
        for name in ["client_secret", "client_key", "audience", "grant_type", "token_key"] {
            let is_shown = self.input(name, false).is_some();
            fields.extend((!is_shown).then(|| self.input(name, true).unwrap_or_else(|| standard(name))));
        }
        let certificate =
            Field::text("client_certificate", "Client certificate", help_of("client_certificate")).lines(4);
        let its_key =
            Field::text("client_certificate_key", "The certificate's private key", help_of("client_certificate_key"));
        fields.extend([certificate, its_key.secret(false).lines(4)]);
        let prefix = "What stands before the token in API calls, instead of the provider's.";
        fields.push(Field::text("header_prefix", "Header prefix", prefix).example("Bearer"));
        let bodies = [("form", "Form"), ("json", "JSON")].map(|(value, label)| (value.to_owned(), label.to_owned()));
        let help = "What the body of token requests is.";
        fields.push(
            Field::text("content_type", "Body of token requests", help).choices(std::iter::once(usual).chain(bodies)),
        );
        let times = "Such as 90s, 30m, 1h or 60d.";
        fields.push(Field::text(
            "renewal.token_lifetime",
            "A token lives",
            format!("Where its reply doesn't say. {times}"),
        ));
        let help = format!("How long before its end it is renewed; at most three quarters of its life. {times}");
        fields.push(Field::text("renewal.ahead", "Renew ahead by", help));
        let by_itself = [("yes", "Ahead of need, by itself"), ("no", "At use only")];
        let help = "At use only, a refresh token that is not used for long may die, and a person has to connect again.";
        let by_itself = by_itself.map(|(value, label)| (value.to_owned(), label.to_owned()));
        fields.push(Field::text("renewal.by_itself", "Renewal", help).value("yes").choices(by_itself));
        fields.push(Field::text(
            "limits.per_second",
            "Calls a second",
            "At most so many through the gateway, for each connection.",
        ));
        fields.push(Field::text(
            "limits.concurrent",
            "Calls at once",
            "At most so many at the same time, for each connection.",
        ));
        fields.extend(self.variables(AskedOf::Integration, true));
        fields.into_iter().map(|field| self.fill(field)).collect()
    }

    fn extra(&self) -> Vec<ExtraRows> {
        let rows = [
            ("authorize", "With the person, to the authorization URL", Some("authorization_code")),
            ("token", "With the request for a token", None),
            ("refresh", "With the request that renews one", None),
        ];
        let has_code = self.methods.iter().any(|it| it.grant == GrantKind::AuthorizationCode);
        let rows = rows.into_iter().filter(|(name, ..)| *name != "authorize" || has_code);
        rows.map(|(name, legend, when)| {
            let mut pairs = self.typed.map(|typed| typed.pairs(&format!("extra.{name}"))).unwrap_or_default();
            pairs.push((String::new(), String::new()));
            ExtraRows { name, legend, when: when.filter(|_| self.methods.len() > 1), pairs, wrong: None }
        })
        .collect()
    }
}

/// No person has a part in it.
pub(in crate::http) fn acts_for_itself(grant: GrantKind) -> bool {
    matches!(
        grant,
        GrantKind::ClientCredentials | GrantKind::JwtBearer | GrantKind::SamlBearer | GrantKind::TokenExchange
    )
}

/// The name of a method's group of boxes: that of the first method with the same scopes.
pub(in crate::http) fn scope_group(methods: &[&Method], method: &Method) -> String {
    let own = &method.scopes;
    let same = |it: &ScopeRules| it.known == own.known && it.default == own.default && it.always == own.always;
    let first = methods.iter().find(|it| asks_for_scopes(it) && same(&it.scopes));
    format!("scopes.{}", first.map_or(method.name.as_str(), |first| first.name.as_str()))
}

/// Scopes out of a text of several.
pub(in crate::http) fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace().map(str::to_owned)
}

fn asks_for_scopes(method: &Method) -> bool {
    method.inputs.iter().any(|input| input.name == "scope" && input.presence != Presence::Fixed)
}

/// The row of a standard input that the definition says nothing of.
fn standard(name: &str) -> Field {
    let label = match name {
        "client_secret" => "Client secret",
        "client_key" => "Private key",
        "audience" => "Audience",
        "grant_type" => "grant_type to send",
        _ => "Member of the reply that is the token",
    };
    let field = Field::text(name, label, help_of(name));
    match name {
        "client_secret" => field.secret(false),
        "client_key" => field.secret(false).lines(4),
        _ => field,
    }
}

/// What people are told where a definition says nothing.
fn help_of(name: &str) -> &'static str {
    match name {
        "client_id" => {
            "As the provider shows it on the page of your application; also called application id or consumer key."
        }
        "client_secret" => "Sealed when it is saved, and never shown again. Leave it empty for a public client.",
        "client_key" => "PEM or JWK, whose public half the provider has; for private_key_jwt.",
        "client_certificate" => "Chain as PEM, the client's own first; for tls.",
        "client_certificate_key" => "As PEM, where it isn't the private key above.",
        "audience" => "The API that tokens are for, where the provider knows several.",
        "grant_type" => "Instead of the grant's own name.",
        "token_key" => "A name or a JSON pointer; instead of what the provider's definition says.",
        "username" => "Of the account at the provider.",
        "password" => "Sealed when it is saved, and never shown again.",
        "refresh_token" => {
            "One that was obtained elsewhere. It is used at once: whoever else has it may find it spent."
        }
        _ => "",
    }
}

fn in_words(auth: ClientAuth) -> &'static str {
    match auth {
        ClientAuth::Basic => "In the header (basic)",
        ClientAuth::RawBasic => "In the header, not encoded (raw_basic)",
        ClientAuth::Post => "In the body (post)",
        ClientAuth::Json => "In a JSON body (json)",
        ClientAuth::Query => "In the address (query)",
        ClientAuth::ClientSecretJwt => "A JWT signed with the secret (client_secret_jwt)",
        ClientAuth::PrivateKeyJwt => "A JWT signed with the private key (private_key_jwt)",
        ClientAuth::Tls => "By certificate (tls)",
        ClientAuth::None => "Not at all: a public client (none)",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]
mod tests {
    use keyholder_provider::Catalogue;

    use super::*;

    #[test]
    fn every_setting_of_the_usual_grants_has_a_row_and_its_help() {
        let definition = Catalogue::built_in().definition("oauth2").unwrap();
        let of_all = [
            "name",
            "description",
            "owner",
            "tags",
            "client_id",
            "client_secret",
            "client_secret_expires_at",
            "variables.token_url",
            "variables.refresh_url",
            "variables.api_base_url",
            "scopes",
            "audience",
            "client_auth",
            "header_prefix",
            "grant_type",
            "content_type",
            "token_key",
            "renewal.token_lifetime",
            "renewal.ahead",
            "renewal.by_itself",
            "limits.per_second",
            "limits.concurrent",
        ];
        for (grant, own, phases) in [
            ("authorization_code", &["variables.authorization_url"][..], &["authorize", "token", "refresh"][..]),
            ("client_credentials", &[], &["token", "refresh"]),
            ("password", &["username", "password"], &["token", "refresh"]),
        ] {
            let chosen = definition.method(Some(grant)).unwrap();
            let (methods, kept) = (vec![chosen], BTreeSet::new());
            let source = Source { definition: &definition, methods, chosen, purpose: Purpose::Both, typed: None, kept };
            let rows = Rows::of(&source);
            assert_eq!(rows.methods[0].grant, grant);
            let given: Vec<_> = rows.extra.iter().map(|rows| rows.name).collect();
            assert_eq!(given, phases);
            let fields: Vec<Field> = [rows.about, rows.client, rows.places, rows.may, rows.account, rows.more]
                .into_iter()
                .flatten()
                .collect();
            for name in of_all.iter().chain(own) {
                assert!(fields.iter().any(|field| field.name == *name), "{grant} has no {name}");
            }
            for field in &fields {
                assert!(!field.label.is_empty() && !field.help.is_empty(), "{grant}: {} has no help", field.name);
            }
        }
    }

    #[test]
    fn what_may_change_data_is_marked_by_the_words_of_advice() {
        let definition = Catalogue::built_in().definition("github").unwrap();
        let (chosen, kept) = (&definition.methods[0], BTreeSet::new());
        let source = Source {
            definition: &definition,
            methods: vec![chosen],
            chosen,
            purpose: Purpose::Both,
            typed: None,
            kept,
        };
        let rows: Vec<ScopeRow> = Rows::of(&source).scopes.into_iter().flat_map(|group| group.items).collect();
        let marked = |name: &str| rows.iter().find(|row| row.name == name).map(|row| row.writes);
        assert_eq!((marked("repo"), marked("read:user")), (Some(true), Some(false)));
    }

    #[test]
    fn a_card_without_a_row_for_the_chosen_grant_is_not_shown() {
        let definition = Catalogue::built_in().definition("oauth2").unwrap();
        let (methods, kept) = (definition.methods.iter().collect(), BTreeSet::new());
        let chosen = &definition.methods[0];
        let rows =
            Rows::of(&Source { definition: &definition, methods, chosen, purpose: Purpose::Both, typed: None, kept });
        let when = rows.account_when().unwrap();
        assert!(when.split(' ').any(|word| word == "password"), "{when}");
        assert!(when.split(' ').all(|word| word != "authorization_code"), "{when}");
        assert_eq!(rows.places_when(), None, "every grant has a token endpoint");
    }
}
