//! The tables that say how requests are made.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderValue, Method};
use keyholder_oauth::{Hash, Pointer};

use super::fields::join;
use super::{Captured, Checker, Known, Parts};
use crate::definition::{
    ApiPhase, AssertionPhase, AuthorizePhase, BodyPhase, CallbackPhase, Capture, ChoosePhase, Discover, ExpiredWhen,
    FollowUpPhase, KeepAlive, Kind, Limits, LookupPhase, Pattern, Phases, PlaceOfToken, PlacementPhase, Recovery,
    RefreshLife, RefreshPhase, RequestPhase, SignaturePhase, UserinfoPhase, VerifyPhase,
};
use crate::error::DefinitionError;
use crate::schema::{self, BodyName, Either, HttpMethod, PlacementIn, RecoveryName, SignatureAlgorithm, Table};
use crate::template::{Place, Placeholder, Source, Template, UrlTemplate, is_variable_name};

impl Checker {
    /// Reads the phases of the tree that is being checked.
    pub(super) fn parts(&mut self) -> Result<Parts, DefinitionError> {
        let mut raw: schema::Phases = self.sources.fields(&self.root)?;
        self.known = Known {
            captures: BTreeMap::new(),
            lookups: self.lookup_names(&raw.after_connect),
            computed: BTreeMap::new(),
            broken: raw.computed.iter().map(|(name, _)| name.to_owned()).collect(),
            secondary: raw.token.secondary.iter().map(|(name, _)| name.to_owned()).collect(),
        };
        let captures = self.captures(std::mem::take(&mut raw.callback.capture));
        self.known.captures = captures
            .iter()
            .map(|it| (it.name.clone(), Captured { kind: it.kind, has_default: it.default.is_some() }))
            .collect();
        self.known.computed = self.computed(std::mem::take(&mut raw.computed));
        self.known.broken.retain(|name| !self.known.computed.contains_key(name));
        let scopes = self.scopes(raw.scopes);
        let reply = self.reply("token", &raw.token.reply, &raw.token.secondary);
        let discover = raw.discover.take().and_then(|discover| self.discover(discover));
        let revoke_token = raw.revoke.as_ref().map(|revoke| revoke.token).unwrap_or_default();
        let phases = Phases {
            authorize: self.authorize(raw.authorize),
            callback: self.callback(raw.callback, captures),
            device: raw.device.as_mut().map(|device| self.request(&["device"], device.request())),
            token: self.request(&["token"], raw.token.request()),
            reply,
            refresh: self.refresh(raw.refresh),
            follow_up: raw.follow_up.map(|follow_up| self.follow_up(follow_up)),
            revoke: raw.revoke.as_mut().map(|revoke| self.request(&["revoke"], revoke.request())),
            revoke_token,
            introspect: raw.introspect.as_mut().map(|introspect| self.request(&["introspect"], introspect.request())),
            register: raw.register.map(|register| self.register(register)),
            userinfo: raw.userinfo.map(|userinfo| self.userinfo(userinfo)),
            lookups: self.lookups(raw.after_connect, raw.api.base_url.is_some()),
            api: self.api(raw.api),
            computed: self.known.computed.clone(),
            discover,
        };
        Ok(Parts { phases: Arc::new(phases), scopes, setup: self.setup(raw.setup), inputs: Arc::new(raw.inputs) })
    }

    fn discover(&self, raw: schema::Discover) -> Option<Discover> {
        let Some(issuer) = raw.issuer else {
            self.error(&["discover", "issuer"], "it is missing", "give the issuer's URL");
            return None;
        };
        let issuer = self.url(&["discover", "issuer"], Some(issuer))?;
        Some(Discover { issuer, documents: raw.documents.0.into_iter().collect() })
    }

    fn authorize(&self, raw: schema::Authorize) -> AuthorizePhase {
        for (scope, params) in raw.scope_params.iter() {
            for (name, _) in params.iter().filter(|(_, value)| value.contains("{{")) {
                let path = ["authorize", "scope_params", scope, name];
                self.error(&path, "placeholders have no use here", "write a fixed value, or use [authorize.params]");
            }
        }
        AuthorizePhase {
            url: self.url(&["authorize", "url"], raw.url),
            params: self.params(&["authorize", "params"], &raw.params),
            scope_params: raw.scope_params.0.into_iter().map(|(scope, params)| (scope, params.0)).collect(),
            renames: self.renames(&["authorize"], &raw.rename, &raw.drop),
            pkce: raw.pkce,
            nonce: raw.nonce,
        }
    }

    fn captures(&self, raw: Table<schema::Capture>) -> Vec<Capture> {
        let mut captures = Vec::new();
        for (name, raw) in raw.0 {
            let at = ["callback", "capture", name.as_str()];
            let raw = match raw {
                Either::Short(parameter) => schema::CaptureTable { parameter: Some(parameter), ..Default::default() },
                Either::Long(table) => table,
            };
            if !is_variable_name(&name) {
                self.error(
                    &at,
                    "the name has other characters than letters, digits and `_`",
                    "write it like `realm_id`",
                );
            }
            if matches!(raw.kind, Kind::Host | Kind::Url) && raw.pattern.is_none() {
                self.error(
                    &join(&at, &["pattern"]),
                    "whoever forges an answer could name any host",
                    "say which are the provider's, for example 'https://accounts\\.example\\.(com|eu)'",
                );
            }
            let pattern = raw.pattern.as_deref().and_then(|text| {
                self.keep(
                    &join(&at, &["pattern"]),
                    Pattern::new(text),
                    "write a regular expression for the whole value",
                )
            });
            captures.push(Capture {
                parameter: self.required(&join(&at, &["parameter"]), raw.parameter),
                default: raw.default.and_then(|text| self.capture_default(&join(&at, &["default"]), &text)),
                pattern,
                kind: raw.kind,
                required: raw.required,
                name: name.clone(),
            });
            let literal = captures.last().and_then(|it| Some((it, it.default.as_ref()?.as_literal()?)));
            if let Some(Err(reason)) = literal.map(|(capture, text)| capture.check(text)) {
                self.error(&join(&at, &["default"]), reason, "give one that fits the kind and the pattern");
            }
        }
        captures
    }

    fn capture_default(&self, path: &[&str], text: &str) -> Option<Template> {
        let template = self.keep(path, Template::parse(text), "write a text, or {{name}} with a variable's name")?;
        for placeholder in template.placeholders() {
            match placeholder {
                Placeholder::Variable(_) | Placeholder::Choice(_) => self.placeholder(path, placeholder, None),
                other => {
                    self.error(path, format!("{} may not stand here", other.shown()), "use a fixed text or variables");
                }
            }
        }
        Some(template)
    }

    fn callback(&self, raw: schema::Callback, captures: Vec<Capture>) -> CallbackPhase {
        for (name, _) in raw.rename.iter().filter(|(name, _)| !matches!(*name, "code" | "state")) {
            let reason = format!("`{name}` is not one of `code` and `state`");
            self.error(&["callback", "rename", name], reason, "keep other parameters with [callback.capture]");
        }
        let renamed = |wanted: &str| raw.rename.iter().find(|(name, _)| *name == wanted).map(|(_, to)| to.clone());
        CallbackPhase {
            code: renamed("code"),
            state: renamed("state"),
            issuer: self.url(&["callback", "issuer"], raw.issuer),
            issuer_required: raw.issuer_required,
            strip_code_suffix: raw.strip_code_suffix.filter(|suffix| !suffix.is_empty()),
            response_mode: raw.response_mode,
            captures,
            signature: raw.signature.and_then(|raw| self.signature(raw)),
        }
    }

    fn signature(&self, raw: schema::Signature) -> Option<SignaturePhase> {
        let at = ["callback", "signature"];
        let parameter = self.required(&join(&at, &["parameter"]), raw.parameter);
        let key = raw.key.unwrap_or_else(|| "{{client_secret}}".to_owned());
        Some(SignaturePhase {
            parameter,
            hash: match raw.algorithm {
                SignatureAlgorithm::HmacSha1 => Hash::Sha1,
                SignatureAlgorithm::HmacSha256 => Hash::Sha256,
                SignatureAlgorithm::HmacSha512 => Hash::Sha512,
            },
            encoding: raw.encoding,
            key: self.text(&join(&at, &["key"]), &key)?,
            over: raw.over,
        })
    }

    fn request(&self, at: &[&str], raw: schema::Request) -> RequestPhase {
        let method = raw.method.map_or(Method::POST, http_method);
        if method == Method::GET
            && raw.body.as_ref().is_some_and(|body| !matches!(body, Either::Short(BodyName::Query)))
        {
            self.error(&join(at, &["body"]), "a GET has none", "remove it; the parameters go into the query");
        }
        RequestPhase {
            url: self.url(&join(at, &["url"]), raw.url),
            method,
            client_auth: raw.client_auth,
            client_assertion: self.client_assertion(&join(at, &["client_assertion"]), raw.client_assertion),
            body: raw.body.and_then(|body| self.body(&join(at, &["body"]), body)),
            headers: self.headers(&join(at, &["headers"]), &raw.headers),
            query: self.texts(&join(at, &["query"]), &raw.query),
            params: self.params(&join(at, &["params"]), &raw.params),
            renames: self.renames(at, &raw.rename, &raw.drop),
        }
    }

    fn client_assertion(&self, at: &[&str], raw: schema::ClientAssertion) -> AssertionPhase {
        AssertionPhase {
            audience: raw.audience.and_then(|text| self.text(&join(at, &["audience"]), &text)),
            algorithm: raw.algorithm,
            lifetime: self.duration(&join(at, &["lifetime"]), raw.lifetime.as_deref()),
            header: self.texts(&join(at, &["header"]), &raw.header),
            claims: self.texts(&join(at, &["claims"]), &raw.claims),
        }
    }

    fn body(&self, at: &[&str], raw: schema::Body) -> Option<BodyPhase> {
        let table = match raw {
            Either::Short(BodyName::Form) => return Some(BodyPhase::Form),
            Either::Short(BodyName::Json) => return Some(BodyPhase::Json),
            Either::Short(BodyName::Query) => return Some(BodyPhase::Query),
            Either::Long(table) => table,
        };
        let content_type = self.required(&join(at, &["content_type"]), table.content_type);
        let content_type = self.keep(
            &join(at, &["content_type"]),
            HeaderValue::from_str(&content_type).map_err(|_| "it is not a content type".to_owned()),
            "write it like \"application/xml\"",
        )?;
        let path = join(at, &["template"]);
        let text = self.required(&path, table.template);
        Some(BodyPhase::Template(content_type, self.text(&path, &text)?))
    }

    fn refresh(&self, mut raw: schema::Refresh) -> RefreshPhase {
        let length = |field: &str, text: &Option<String>| self.duration(&["refresh", field], text.as_deref());
        RefreshPhase {
            request: self.request(&["refresh"], raw.request()),
            reply: self.reply("refresh", &raw.reply, &raw.secondary),
            with: raw.with,
            sends_scope: raw.sends_scope,
            min_age: length("min_age", &raw.min_age),
            keep_alive: match &raw.keep_alive {
                None | Some(Either::Short(true)) => KeepAlive::ByIdleLife,
                Some(Either::Short(false)) => KeepAlive::Off,
                Some(Either::Long(text)) => {
                    self.duration(&["refresh", "keep_alive"], Some(text)).map_or(KeepAlive::Off, KeepAlive::Every)
                }
            },
            recovery: self.recovery(raw.recovery, raw.window.as_deref()),
            life: RefreshLife {
                idle: length("idle_life", &raw.idle_life),
                absolute: length("absolute_life", &raw.absolute_life),
            },
        }
    }

    fn recovery(&self, name: Option<RecoveryName>, window: Option<&str>) -> Recovery {
        let path = ["refresh", "window"];
        let length = self.duration(&path, window);
        match (name, window) {
            (Some(RecoveryName::Window), None) => {
                self.error(&path, "recovery is `window`, and its length is missing", "write it like \"60s\"");
            }
            (Some(RecoveryName::Window), Some(_)) | (_, None) => {}
            (_, Some(_)) => {
                self.error(&path, "recovery is not `window`", "remove it, or write `recovery = \"window\"`");
            }
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

    fn follow_up(&self, mut raw: schema::FollowUp) -> FollowUpPhase {
        FollowUpPhase {
            request: self.request(&["follow_up"], raw.request()),
            reply: self.reply("follow_up", &raw.reply, &raw.secondary),
            when: raw.when,
        }
    }

    fn register(&self, raw: schema::Register) -> RequestPhase {
        RequestPhase {
            url: self.url(&["register", "url"], raw.url),
            method: Method::POST,
            body: Some(BodyPhase::Json),
            headers: self.headers(&["register", "headers"], &raw.headers),
            params: self.params(&["register", "params"], &raw.params),
            ..RequestPhase::default()
        }
    }

    fn userinfo(&self, raw: schema::Userinfo) -> UserinfoPhase {
        let pointer = |field: &str, written: &Option<String>| self.pointer(&["userinfo", field], written.as_deref());
        UserinfoPhase {
            account: pointer("account", &raw.account),
            name: pointer("name", &raw.name),
            email: pointer("email", &raw.email),
            url: self.url(&["userinfo", "url"], raw.url),
            headers: self.headers(&["userinfo", "headers"], &raw.headers),
            query: self.texts(&["userinfo", "query"], &raw.query),
        }
    }

    /// What the lookups save, each with its lookup's number.
    fn lookup_names(&self, raw: &[schema::Lookup]) -> BTreeMap<String, usize> {
        let mut names = BTreeMap::new();
        for (index, lookup) in raw.iter().enumerate() {
            let number = index.to_string();
            let extracted =
                lookup.extract.iter().map(|(name, _)| (vec!["after_connect", number.as_str(), "extract", name], name));
            let chosen = lookup.choose.iter().filter_map(|choose| choose.save.as_deref());
            let chosen = chosen.map(|name| (vec!["after_connect", number.as_str(), "choose", "save"], name));
            for (path, name) in extracted.chain(chosen) {
                if !is_variable_name(name) {
                    self.error(
                        &path,
                        format!("`{name}` has other characters than letters, digits and `_`"),
                        "write it like `cloud_id`",
                    );
                }
                if names.insert(name.to_owned(), index).is_some() {
                    self.error(&path, format!("`{name}` is saved twice"), "give each value its own name");
                }
                // What has a name for people is shown to them, whether or not a placeholder uses it.
                if lookup.name.is_none() {
                    self.declare(&path, &format!("lookup.{name}"));
                }
            }
        }
        names
    }

    fn lookups(&self, raw: Vec<schema::Lookup>, has_base: bool) -> Vec<LookupPhase> {
        raw.into_iter().enumerate().map(|(index, raw)| self.lookup(&index.to_string(), raw, has_base)).collect()
    }

    fn lookup(&self, index: &str, mut raw: schema::Lookup, has_base: bool) -> LookupPhase {
        let at = ["after_connect", index];
        match (&raw.url, &raw.path) {
            (Some(_), None) => {}
            (None, Some(_)) if has_base => {}
            (None, Some(_)) => self.error(&join(&at, &["path"]), "[api] has no base_url", "write the whole url"),
            _ => self.error(&at, "it needs one of `url` and `path`", "say what to ask"),
        }
        if raw.extract.0.is_empty() && raw.choose.is_none() {
            self.error(&at, "nothing is taken from its answer", "add `extract` or `choose`");
        }
        if raw.choose.is_some() && raw.r#where.is_some() {
            self.error(&join(&at, &["where"]), "a person chooses the item", "remove it, or `choose`");
        }
        let path = raw.path.take().and_then(|path| self.path(&join(&at, &["path"]), &path));
        let request = schema::Request {
            url: raw.url.take(),
            headers: raw.headers,
            query: raw.query,
            params: raw.params,
            ..schema::Request::default()
        };
        let pointer = |path: &[&str], written: &str| self.pointer(path, Some(written)).unwrap_or_else(|| "".into());
        LookupPhase {
            name: raw.name.unwrap_or_else(|| format!("lookup {}", index.parse::<usize>().unwrap_or_default() + 1)),
            request: self.plain_request(&at, request, raw.method, raw.body),
            path,
            list: match raw.list.as_deref() {
                None | Some("") => Pointer::root(),
                written => self.pointer(&join(&at, &["list"]), written).unwrap_or_else(Pointer::root),
            },
            filter: raw.r#where.and_then(|raw| self.predicate(&join(&at, &["where"]), &raw)),
            extract: raw
                .extract
                .iter()
                .map(|(name, written)| (name.to_owned(), pointer(&join(&at, &["extract", name]), written)))
                .collect(),
            choose: raw.choose.map(|raw| {
                let at = join(&at, &["choose"]);
                ChoosePhase {
                    value: pointer(&join(&at, &["value"]), raw.value.as_deref().unwrap_or_default()),
                    label: self.pointer(&join(&at, &["label"]), raw.label.as_deref()),
                    save: self.required(&join(&at, &["save"]), raw.save),
                }
            }),
            required: raw.required.unwrap_or(true),
            refresh: raw.refresh,
        }
    }

    fn api(&self, raw: schema::Api) -> ApiPhase {
        let base_url = self.url(&["api", "base_url"], raw.base_url);
        let provider_says = |url: &UrlTemplate| {
            url.placeholders().iter().any(|(placeholder, place)| {
                matches!(placeholder, Placeholder::Said(Source::Reply | Source::Lookup, _))
                    && *place != Place::PathOrQuery
            })
        };
        if base_url.as_ref().is_some_and(provider_says) && raw.hosts.is_empty() {
            self.error(
                &["api", "hosts"],
                "the base URL comes from a reply, and nothing says which hosts are the provider's",
                "list them, for example \"*.example.com\"",
            );
        }
        let hosts = raw.hosts.iter().enumerate();
        ApiPhase {
            base_url,
            hosts: hosts.filter_map(|(index, host)| self.host(&["api", "hosts", &index.to_string()], host)).collect(),
            token: self.placements(raw.token.0, raw.token.1),
            headers: self.headers(&["api", "headers"], &raw.headers),
            query: self.texts(&["api", "query"], &raw.query),
            verify: raw.verify.and_then(|raw| self.verify(raw)),
            expired_when: raw
                .expired_when
                .0
                .into_iter()
                .enumerate()
                .filter_map(|(index, when)| self.expired_when(raw.expired_when.1.then_some(index), when))
                .collect(),
            limits: self.limits(raw.limits),
        }
    }

    fn placements(&self, raw: Vec<schema::Placement>, many: bool) -> Vec<PlacementPhase> {
        let mut placements = Vec::new();
        for (index, raw) in raw.into_iter().enumerate() {
            let index = index.to_string();
            let at = if many { vec!["api", "token", index.as_str()] } else { vec!["api", "token"] };
            let at_name = join(&at, &["name"]);
            let place_in = raw.r#in.unwrap_or(PlacementIn::Header);
            let standard = if place_in == PlacementIn::Header { "Authorization" } else { "access_token" };
            let name = raw.name.unwrap_or_else(|| standard.to_owned());
            let place = match place_in {
                PlacementIn::Header => self.header_name(&at_name, &name).map(PlaceOfToken::Header),
                PlacementIn::Query => Some(PlaceOfToken::Query(self.required(&at_name, Some(name)))),
                PlacementIn::Body => Some(PlaceOfToken::Body(self.required(&at_name, Some(name)))),
            };
            let prefix = raw.prefix.inspect(|prefix| self.prefix(&join(&at, &["prefix"]), prefix));
            let secondary = raw.token.filter(|name| name != "access_token");
            if let Some(name) = secondary.as_ref().filter(|name| !self.known.secondary.contains(*name)) {
                self.error(
                    &join(&at, &["token"]),
                    format!("there is no token `{name}`"),
                    "write access_token, or the name of a table of [token.secondary]",
                );
            }
            // RFC 6750 §2.1 for the header it speaks of; other places have no such word before the token.
            let standard = if matches!(&place, Some(PlaceOfToken::Header(name)) if name == http::header::AUTHORIZATION)
            {
                "Bearer"
            } else {
                ""
            };
            placements.extend(place.map(|place| PlacementPhase {
                place,
                prefix: prefix.unwrap_or_else(|| standard.to_owned()),
                secondary,
            }));
        }
        placements
    }

    fn verify(&self, raw: schema::Verify) -> Option<VerifyPhase> {
        let (at, table) = match raw {
            // Switches off what is inherited.
            Either::Short(path) if path.is_empty() => return None,
            Either::Short(path) => {
                (vec!["api", "verify"], schema::VerifyTable { path: Some(path), ..Default::default() })
            }
            Either::Long(table) => (vec!["api", "verify", "path"], table),
        };
        let path = self.required(&at, table.path);
        let request = self.plain_request(
            &["api", "verify"],
            schema::Request { headers: table.headers, params: table.params, ..schema::Request::default() },
            table.method,
            table.body,
        );
        if request.method == Method::GET && !request.params.is_empty() {
            self.error(&["api", "verify", "params"], "a GET has no body for them", "write them into the path's query");
        }
        Some(VerifyPhase {
            request,
            expect: table.expect.and_then(|raw| self.predicate(&["api", "verify", "expect"], &raw)),
            path: self.path(&at, &path)?,
        })
    }

    /// A call with the new token: GET unless it says otherwise, and with a body in JSON unless it is a form.
    fn plain_request(
        &self,
        at: &[&str],
        mut raw: schema::Request,
        method: Option<HttpMethod>,
        body: Option<schema::Body>,
    ) -> RequestPhase {
        if matches!(&body, Some(Either::Short(BodyName::Query) | Either::Long(_))) {
            self.error(&join(at, &["body"]), "it is neither `json` nor `form`", "write one of the two");
        }
        raw.method = method.or(Some(HttpMethod::Get));
        raw.body = match raw.method {
            Some(HttpMethod::Get) => body,
            _ => Some(body.unwrap_or(Either::Short(BodyName::Json))),
        };
        self.request(at, raw)
    }

    fn expired_when(&self, index: Option<usize>, raw: schema::ExpiredWhen) -> Option<ExpiredWhen> {
        let number = index.map(|index| index.to_string());
        let at: Vec<&str> = ["api", "expired_when"].into_iter().chain(number.as_deref()).collect();
        let body = match raw.pointer {
            None if raw.equals.is_none() && raw.not_equals.is_none() && raw.exists.is_none() => None,
            pointer => Some(self.predicate(
                &at,
                &schema::Predicate { pointer, equals: raw.equals, not_equals: raw.not_equals, exists: raw.exists },
            )?),
        };
        if raw.status.is_none() && body.is_none() {
            self.error(&at, "it says nothing", "give a status, a pointer with what it must be, or both");
        }
        if let Some(status) = raw.status.filter(|status| !(100..600).contains(status)) {
            self.error(&join(&at, &["status"]), format!("{status} is not a status"), "write it like 403");
        }
        Some(ExpiredWhen { status: raw.status, body })
    }

    fn limits(&self, raw: schema::Limits) -> Limits {
        let header = |field: &str, name: Option<String>| {
            name.and_then(|name| self.header_name(&["api", "limits", field], &name))
        };
        if raw.per_second.is_some_and(|rate| !(0.001..=1e6).contains(&rate)) {
            self.error(&["api", "limits", "per_second"], "it is not a rate", "write a number from 0.001 to 1000000");
        }
        if raw.concurrent == Some(0) {
            self.error(&["api", "limits", "concurrent"], "nothing could be called", "write a number above 0");
        }
        Limits {
            per_second: raw.per_second,
            concurrent: raw.concurrent,
            remaining_header: header("remaining_header", raw.remaining_header),
            reset_header: header("reset_header", raw.reset_header),
            reset_unit: raw.reset_unit,
            retry_after_header: header("retry_after_header", raw.retry_after_header),
            timeout_header: header("timeout_header", raw.timeout_header),
            timeout_unit: raw.timeout_unit,
        }
    }
}

fn http_method(raw: HttpMethod) -> Method {
    match raw {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
    }
}
