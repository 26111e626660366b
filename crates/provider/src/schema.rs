//! The fields of a definition as they are written. What they mean and whether they fit together is `check`'s business;
//! nothing is required here, so that a missing field is reported by its own name.
//!
//! The comments are what an editor shows beside a field: `docs/provider.schema.json` is made from them.

use std::fmt;
use std::marker::PhantomData;

use keyholder_oauth::{Algorithm, ClientAuth, Encoding, Expiry, Hash, SignedOver};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use crate::definition::{
    AskedOf, ErrorPhase, FollowUpWhen, GrantKind, Kind, Pkce, Presence, RefreshWith, ResetUnit, ResponseMode,
    RevokedToken, TimeoutUnit,
};

/// The tables that say how requests are made and replies are read: what a method may say in its own way.
pub(crate) const PHASES: [&str; 17] = [
    "inputs",
    "scopes",
    "discover",
    "authorize",
    "callback",
    "device",
    "token",
    "refresh",
    "follow_up",
    "revoke",
    "introspect",
    "register",
    "userinfo",
    "after_connect",
    "api",
    "computed",
    "setup",
];

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {
        $($(#[$doc])*
        #[derive(Default, serde::Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
        })*
    };
}

tables! {
    /// What stands beside the phases.
    Head {
        /// The version of the language: 1.
        schema: Option<i64>,
        /// The definition that this one builds on, by its id. Merged key by key; methods by name.
        extends: Option<String>,
        /// Lower-case letters, digits and `-`; the file is named after it.
        id: Option<String>,
        /// Other ids under which it is found.
        aliases: Vec<String>,
        /// For people.
        name: Option<String>,
        /// It stands for any server of a kind.
        generic: bool,
        /// The provider's page about OAuth.
        docs: Option<String>,
        /// The day on which somebody compared the facts with the sources: `2026-01-31`.
        checked: Option<String>,
        /// The pages that the facts come from.
        source: Vec<String>,
        /// What users are asked for, by name, in the order in which to ask.
        variables: Table<Variable>,
        /// The provider's error codes with their remedies.
        errors: Vec<KnownError>,
    }

    /// The phases, of the file or of one method.
    Phases {
        /// The standard inputs: what people are told about them, and what they must be.
        inputs: Inputs,
        /// What may be asked for and how it is written.
        scopes: Scopes,
        /// Endpoints from a discovery document.
        discover: Option<Discover>,
        /// The authorization request.
        authorize: Authorize,
        /// What the browser brings back.
        callback: Callback,
        /// The device authorization request.
        device: Option<Device>,
        /// The token request and its reply.
        token: Token,
        /// Renewal.
        refresh: Refresh,
        /// One more exchange, for a better token.
        follow_up: Option<FollowUp>,
        /// Revocation.
        revoke: Option<Revoke>,
        /// Introspection.
        introspect: Option<Introspect>,
        /// Registering a client by program.
        register: Option<Register>,
        /// Whose account it is.
        userinfo: Option<Userinfo>,
        /// Requests that learn what the API's addresses need.
        after_connect: Vec<Lookup>,
        /// How the API is called.
        api: Api,
        /// Values made of others: signatures, tokens, encodings.
        computed: Table<Computed>,
        /// How to register an application with the provider.
        setup: Setup,
    }

    /// What stands beside a method's phases.
    MethodHead {
        /// Lower-case letters, digits and `_`; the grant's name if it is not given.
        name: Option<String>,
        /// For people.
        label: Option<String>,
        /// What it runs.
        grant: Option<GrantKind>,
    }

    Variable {
        /// For people; the name if it is not given.
        label: Option<String>,
        /// One or two sentences for people.
        help: String,
        /// Used where no value is given.
        default: Option<String>,
        /// Whether a value must be given.
        presence: Presence,
        /// Sealed and never shown.
        secret: bool,
        /// A regular expression for the whole value.
        pattern: Option<String>,
        /// Who is asked for it.
        asked_of: AskedOf,
        /// What kind of text it is.
        kind: Kind,
        /// The values there are: a list, or a table of values and their labels (or tables with a `label` and more values).
        choices: Option<Choices>,
        /// Lower ones are asked first; those without come after, in the order of the file.
        order: Option<i64>,
        /// Shown in an empty field.
        example: Option<String>,
        /// The methods that need it; all if it is not given.
        methods: Vec<String>,
    }

    /// The inputs that every integration or connection has.
    Inputs {
        /// The scopes.
        scope: Option<Input>,
        /// The grant type on the wire.
        grant_type: Option<Input>,
        /// The client identifier.
        client_id: Option<Input>,
        /// The client secret.
        client_secret: Option<Input>,
        /// The client's private key.
        client_key: Option<Input>,
        /// The member of the reply that is the access token.
        token_key: Option<Input>,
        /// The resource owner's name.
        username: Option<Input>,
        /// The resource owner's password.
        password: Option<Input>,
        /// A refresh token that was obtained elsewhere, for the grant `refresh_token`.
        refresh_token: Option<Input>,
        /// For whom the token is meant.
        audience: Option<Input>,
    }

    /// What people are told about a standard input, and what it must be. Its name on the wire is `rename`'s business.
    Input {
        /// For people.
        label: Option<String>,
        /// One or two sentences for people.
        help: Option<String>,
        /// Used where no value is given.
        default: Option<String>,
        /// Whether a value must be given.
        presence: Option<Presence>,
        /// Sealed and never shown.
        secret: Option<bool>,
        /// A regular expression for the whole value.
        pattern: Option<String>,
        /// The values there are: a list, or a table of values and their labels (or tables with a `label` and more values).
        choices: Option<Choices>,
        /// Lower ones are asked first.
        order: Option<i64>,
        /// Shown in an empty field.
        example: Option<String>,
    }

    Scopes {
        /// Stands between two scopes; one space if it is not given.
        separator: Option<String>,
        /// The parameter's name; `scope` if it is not given.
        parameter: Option<String>,
        /// One text, a JSON array, or the parameter once for each.
        format: ScopeFormat,
        /// Asked for when the integration names none.
        default: Vec<String>,
        /// Asked for whatever else is.
        always: Vec<String>,
        /// Names and explanations; not a limit.
        known: Table,
    }

    Discover {
        /// The issuer's URL.
        issuer: Option<String>,
        /// For servers whose document names another issuer: the one it is found under → the one it names.
        documents: Table,
    }

    Authorize {
        /// Where people consent.
        url: Option<String>,
        /// More parameters.
        params: Table<Value>,
        /// Parameters that are sent only when a scope is asked for, by scope.
        scope_params: Table<Table>,
        /// Standard parameter → the provider's name of it.
        rename: Table,
        /// Standard parameters that are not sent.
        drop: Vec<String>,
        /// Whether a code challenge is sent.
        pkce: Pkce,
        /// Send a nonce when `openid` is asked for.
        nonce: bool,
    }

    Callback {
        /// What `iss` is compared with.
        issuer: Option<String>,
        /// Refuse an answer without `iss`.
        issuer_required: bool,
        /// Standard parameter (`code`, `state`) → the provider's name of it.
        rename: Table,
        /// Cut off the end of the code.
        strip_code_suffix: Option<String>,
        /// Whether the provider sends the browser back with a query or lets it post a form.
        response_mode: ResponseMode,
        /// Parameters to keep: the name for `{{callback.NAME}}` → the parameter, or a table with what it must be.
        capture: Table<Capture>,
        /// How the provider signs its answers.
        signature: Option<Signature>,
    }

    CaptureTable {
        /// The parameter's name.
        parameter: Option<String>,
        /// A regular expression for the whole value.
        pattern: Option<String>,
        /// `host` and `url` may steer an address and need a pattern.
        kind: Kind,
        /// Refuse an answer without it.
        required: bool,
        /// Stands until the callback has come, and where it does not have the parameter. May have placeholders of variables.
        default: Option<String>,
    }

    Signature {
        /// The parameter that holds it.
        parameter: Option<String>,
        /// How it is made.
        algorithm: SignatureAlgorithm,
        /// How it is written.
        encoding: Encoding,
        /// What it is made with.
        key: Option<String>,
        /// What it is made over.
        over: SignedOver,
    }

    ClientAssertion {
        /// For whom it is; the endpoint's address if it is not given.
        audience: Option<String>,
        /// How it is signed: HS256 with a secret and RS256 with a key if it is not given.
        algorithm: Option<Algorithm>,
        /// How long it may be used: a minute if it is not given.
        lifetime: Option<String>,
        /// More members of its header.
        header: Table,
        /// More claims.
        claims: Table,
    }

    Reply {
        access_token: Option<String>,
        refresh_token: Option<String>,
        id_token: Option<String>,
        token_type: Option<String>,
        scope: Option<String>,
        expires_in: Option<String>,
        /// Where the end stands as a date.
        expires_at: Option<String>,
        refresh_expires_in: Option<String>,
        /// What the expiry is written in.
        expiry: Expiry,
        /// When the reply does not tell.
        default_lifetime: Option<String>,
        /// What a reply with status 200 must say to be a success.
        success: Option<Predicate>,
        /// What makes a failure of a reply with status 200.
        error_when: Option<Predicate>,
        error: Option<String>,
        error_description: Option<String>,
        /// Codes that mean: consent again. `*` at the end stands for any rest.
        dead: Vec<Code>,
        /// Codes that mean: try again later.
        retry: Vec<Code>,
        /// Codes that mean: the set-up is wrong.
        setup: Vec<Code>,
        /// The members to keep beside the tokens; all that are not secret if it is not given.
        keep: Vec<String>,
    }

    Secondary {
        access_token: Option<String>,
        refresh_token: Option<String>,
        token_type: Option<String>,
        scope: Option<String>,
        expires_in: Option<String>,
        expiry: Expiry,
        default_lifetime: Option<String>,
    }

    /// A question about a reply.
    Predicate {
        /// Where to look: a JSON pointer.
        pointer: Option<String>,
        equals: Option<Value>,
        not_equals: Option<Value>,
        exists: Option<bool>,
    }

    Register {
        /// The registration endpoint (RFC 7591).
        url: Option<String>,
        headers: Table,
        /// The client's metadata.
        params: Table<Value>,
    }

    Userinfo {
        url: Option<String>,
        headers: Table,
        query: Table,
        /// Where the account's identifier stands in the answer.
        account: Option<String>,
        /// Where its name stands.
        name: Option<String>,
        /// Where its email address stands.
        email: Option<String>,
    }

    /// A request with the new token, and what is taken from its answer.
    Lookup {
        /// For people and messages.
        name: Option<String>,
        method: Option<HttpMethod>,
        /// The whole address.
        url: Option<String>,
        /// Or a path below the API's base URL.
        path: Option<String>,
        headers: Table,
        query: Table,
        params: Table<Value>,
        body: Option<Body>,
        /// The list that `where` and `choose` look at; the answer itself if it is not given.
        list: Option<String>,
        /// Which item of the list to extract from.
        r#where: Option<Predicate>,
        /// The name for `{{lookup.NAME}}` → where it stands.
        extract: Table,
        /// Let a person choose an item of the list; a single one is taken.
        choose: Option<Choose>,
        /// Without what it extracts there is no connection.
        required: Option<bool>,
        /// Ask again after each renewal.
        refresh: bool,
    }

    Choose {
        /// Where an item's value stands.
        value: Option<String>,
        /// Where its label stands.
        label: Option<String>,
        /// The name for `{{lookup.NAME}}`.
        save: Option<String>,
    }

    Api {
        /// What paths are appended to.
        base_url: Option<String>,
        /// More hosts that may get credentials: exact, or `*.example.com`.
        hosts: Vec<String>,
        /// Where the token goes; several places if it is a list.
        token: OneOrMany<Placement>,
        /// Sent with every call.
        headers: Table,
        /// Sent with every call.
        query: Table,
        /// A path below `base_url`, or a table: a call that is cheap, needs a token and changes nothing.
        verify: Option<Verify>,
        /// Besides a 401: what means that the token has expired.
        expired_when: OneOrMany<ExpiredWhen>,
        /// What the API says about its limits.
        limits: Limits,
    }

    Placement {
        r#in: Option<PlacementIn>,
        /// The header's, parameter's or member's name.
        name: Option<String>,
        /// Before the token, with a space between.
        prefix: Option<String>,
        /// `access_token`, or the name of a secondary token.
        token: Option<String>,
    }

    VerifyTable {
        method: Option<HttpMethod>,
        path: Option<String>,
        headers: Table,
        /// What a request with a body says.
        params: Table<Value>,
        /// `json` if it is not given, or `form`.
        body: Option<Body>,
        expect: Option<Predicate>,
    }

    ExpiredWhen {
        /// Only with this status.
        status: Option<u16>,
        pointer: Option<String>,
        equals: Option<Value>,
        not_equals: Option<Value>,
        exists: Option<bool>,
    }

    Limits {
        /// Calls a second.
        per_second: Option<f64>,
        /// Calls at the same time.
        concurrent: Option<u32>,
        /// Says how many calls are left.
        remaining_header: Option<String>,
        /// Says when there are more.
        reset_header: Option<String>,
        /// What `reset_header` is written in.
        reset_unit: ResetUnit,
        /// Says how long to wait, where it is not `Retry-After`.
        retry_after_header: Option<String>,
        /// Takes how long the caller still waits, where it says so.
        timeout_header: Option<String>,
        /// What `timeout_header` is written in.
        timeout_unit: TimeoutUnit,
    }

    Computed {
        /// HMAC with this hash, of `over` with `key`.
        hmac: Option<Hash>,
        /// This hash of `over`.
        hash: Option<Hash>,
        key: Option<String>,
        over: Option<String>,
        /// How the bytes are written.
        encoding: Option<Encoding>,
        /// A signed token.
        jwt: Option<Jwt>,
        /// A text in base64.
        base64: Option<String>,
    }

    Jwt {
        alg: Option<Algorithm>,
        /// PEM, JWK or shared secret.
        key: Option<String>,
        kid: Option<String>,
        /// Texts with placeholders, numbers, lists; `exp`, `iat` and `nbf` may be `now` or `+5m`, `jti` may be `random`.
        claims: Table<Value>,
        /// More members of the header.
        header: Table,
    }

    Setup {
        /// Where to register.
        register_url: Option<String>,
        /// How, in plain text.
        text: String,
        /// The same, step by step.
        steps: Vec<String>,
        /// What to mind about the redirect URI.
        redirect_note: Option<String>,
        /// Whether its letter case counts.
        redirect_case_sensitive: Option<bool>,
    }

    KnownError {
        /// An error code, or a word of the description.
        code: Option<String>,
        /// Only in this phase.
        phase: Option<ErrorPhase>,
        /// What it means, in plain words.
        meaning: Option<String>,
        /// What to do, in plain words.
        remedy: Option<String>,
    }
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {
        tables! {
            $($(#[$doc])* $name {
                /// The endpoint.
                url: Option<String>,
                /// POST if it is not given; a GET has its parameters in the query.
                method: Option<HttpMethod>,
                /// How the client authenticates.
                client_auth: Option<ClientAuth>,
                /// What its assertion says, with `client_secret_jwt` and `private_key_jwt`.
                client_assertion: ClientAssertion,
                /// `form`, `json`, `query`, or a table with a content type and a template.
                body: Option<Body>,
                /// More headers; they replace those that are sent anyway.
                headers: Table,
                /// More parameters of the URL.
                query: Table,
                /// More parameters.
                params: Table<Value>,
                /// Standard parameter → the provider's name of it.
                rename: Table,
                /// Standard parameters that are not sent.
                drop: Vec<String>,
                $($(#[$field_doc])* $field: $kind,)*
            })*
        }
        $(impl $name {
            /// The fields that all requests have.
            pub fn request(&mut self) -> Request {
                Request {
                    url: self.url.take(),
                    method: self.method,
                    client_auth: self.client_auth,
                    client_assertion: std::mem::take(&mut self.client_assertion),
                    body: self.body.take(),
                    headers: std::mem::take(&mut self.headers),
                    query: std::mem::take(&mut self.query),
                    params: std::mem::take(&mut self.params),
                    rename: std::mem::take(&mut self.rename),
                    drop: std::mem::take(&mut self.drop),
                }
            }
        })*
    };
}

requests! {
    /// The device authorization request (RFC 8628).
    Device {}

    /// The token request and its reply.
    Token {
        /// How the reply is read.
        reply: Reply,
        /// More tokens in the same reply, by name.
        secondary: Table<Secondary>,
    }

    /// Renewal. What is not said here is as in `[token]`.
    Refresh {
        reply: Reply,
        secondary: Table<Secondary>,
        /// Which token is sent.
        with: RefreshWith,
        /// Repeat the scope.
        sends_scope: bool,
        /// Too early a renewal is refused: the access token must be this old.
        min_age: Option<String>,
        /// Renew so that the refresh token does not die of disuse: `true`, `false`, or how often.
        keep_alive: Option<KeepAlive>,
        /// What happens to a refresh token whose reply was lost.
        recovery: Option<RecoveryName>,
        /// How long the old one works, for `recovery = "window"`.
        window: Option<String>,
        /// Dies when not used for this long.
        idle_life: Option<String>,
        /// Dies this long after consent.
        absolute_life: Option<String>,
    }

    /// One more exchange. What is not said here is as in `[token]`.
    FollowUp {
        reply: Reply,
        secondary: Table<Secondary>,
        /// `always`, or only when the first reply brought no refresh token.
        when: FollowUpWhen,
    }

    /// Revocation (RFC 7009). What is not said here, but for the URL, is as in `[token]`.
    Revoke {
        /// Which token is named.
        token: RevokedToken,
    }

    /// Introspection (RFC 7662). What is not said here, but for the URL, is as in `[token]`.
    Introspect {}
}

/// What the tables of requests have in common.
#[derive(Default)]
pub(crate) struct Request {
    pub url: Option<String>,
    pub method: Option<HttpMethod>,
    pub client_auth: Option<ClientAuth>,
    pub client_assertion: ClientAssertion,
    pub body: Option<Body>,
    pub headers: Table,
    pub query: Table,
    pub params: Table<Value>,
    pub rename: Table,
    pub drop: Vec<String>,
}

macro_rules! words {
    ($($(#[$doc:meta])* $case:literal $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(rename_all = $case)]
        pub(crate) enum $name {
            $($(#[$variant_doc])* $variant,)*
        })*
    };
}

words! {
    "UPPERCASE" HttpMethod { Get, Post, Put, Patch, Delete, }

    "snake_case" BodyName { Form, Json, Query, }

    "snake_case" PlacementIn { Header, Query, Body, }

    "snake_case" RecoveryName { Static, Window, UntilUsed, SingleUse, Family, AccessDies, }
}

/// How several scopes are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum ScopeFormat {
    #[default]
    Text,
    Array,
    Repeat,
}

/// How a callback is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum SignatureAlgorithm {
    HmacSha1,
    #[default]
    HmacSha256,
    HmacSha512,
}

tables! {
    /// A body in the provider's own form.
    BodyTable {
        content_type: Option<String>,
        /// The text, with `{{params.NAME}}` for the request's parameters by their standard names.
        template: Option<String>,
    }
}

/// Any value of JSON.
pub(crate) type Value = serde_json::Value;

pub(crate) type Body = Either<BodyName, BodyTable>;
pub(crate) type Capture = Either<String, CaptureTable>;
pub(crate) type Verify = Either<String, VerifyTable>;
/// A choice's label, or a table with its label and what `{{variable.NAME}}` is.
pub(crate) type Choices = Either<Vec<String>, Table<Either<String, Table>>>;
pub(crate) type KeepAlive = Either<bool, String>;

/// A table whose keys are names that the definition chooses, in the order of the file.
#[derive(Clone)]
pub(crate) struct Table<T = String>(pub Vec<(String, T)>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Table<T> {
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    pub fn contains_key(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
            type Value = Table<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table<T>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Table(pairs))
            }
        }
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

/// A value in its short or its long form: a table (or, for truth values, a text) is the long one.
#[derive(Clone)]
pub(crate) enum Either<A, B> {
    Short(A),
    Long(B),
}

impl<'de, A: Deserialize<'de>, B: Deserialize<'de>> Deserialize<'de> for Either<A, B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms<A, B>(PhantomData<(A, B)>);
        impl<'de, A: Deserialize<'de>, B: Deserialize<'de>> Visitor<'de> for Forms<A, B> {
            type Value = Either<A, B>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the short form or the long one of this field")
            }

            fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
                A::deserialize(value.into_deserializer()).map(Either::Short)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                // The two forms never both take a text.
                match A::deserialize(IntoDeserializer::<E>::into_deserializer(text)) {
                    Ok(short) => Ok(Either::Short(short)),
                    Err(error) => B::deserialize(IntoDeserializer::<E>::into_deserializer(text))
                        .map(Either::Long)
                        .map_err(|_| error),
                }
            }

            fn visit_seq<S: SeqAccess<'de>>(self, items: S) -> Result<Self::Value, S::Error> {
                A::deserialize(SeqAccessDeserializer::new(items)).map(Either::Short)
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Self::Value, M::Error> {
                B::deserialize(MapAccessDeserializer::new(map)).map(Either::Long)
            }
        }
        deserializer.deserialize_any(Forms(PhantomData))
    }
}

/// One table, or a list of them.
pub(crate) struct OneOrMany<T>(pub Vec<T>, pub bool);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new(), false)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Either::<Vec<T>, T>::deserialize(deserializer)? {
            Either::Short(many) => Self(many, true),
            Either::Long(one) => Self(vec![one], false),
        })
    }
}

/// An error code: a text or a number.
pub(crate) struct Code(pub String);

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Codes;
        impl Visitor<'_> for Codes {
            type Value = Code;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a whole number")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Code, E> {
                Ok(Code(text.to_owned()))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Code, E> {
                Ok(Code(number.to_string()))
            }
        }
        deserializer.deserialize_any(Codes)
    }
}

#[cfg(test)]
mod tests;
