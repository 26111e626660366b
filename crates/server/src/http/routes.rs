//! THE table of routes: path, method, scope, what goes in, what comes out, who handles it. Router, permission check and OpenAPI are made from it.

use axum::Router;
use axum::extract::State;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use http::{HeaderMap, Method, Uri};
use keyholder_broker::model::Scope;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::api::{advice, connections, integrations, keys, operations, operators, providers, sessions, sources, usage};
use super::console::{
    self, catalogue, connection, events, home, import, integration, sandbox, session, setup, sign_in, test,
};
use super::{App, assets, caller, connect, gateway, health, idempotency, openapi, origin, problem};
use problem::{ApiError, Problem, Refusal};

/// One route.
pub struct Route {
    /// `get`, `post`, `patch`, `delete`, or `any`.
    pub method: &'static str,
    /// Path with `{parameters}`.
    pub path: &'static str,
    /// What the caller's key must have; `None`: no key is asked for.
    pub scope: Option<Scope>,
    /// A page of the console: what whoever is signed in must be allowed.
    pub person: Option<Scope>,
    /// A form that asks for the password or passkey again, where that is more than ten minutes ago.
    pub dangerous: bool,
    /// Stands in the OpenAPI document.
    pub documented: bool,
    /// One line for the documentation.
    pub summary: &'static str,
    pub(super) input: Option<fn(&mut SchemaGenerator) -> Schema>,
    pub(super) output: Option<fn(&mut SchemaGenerator) -> Schema>,
    pub(super) query: &'static [(&'static str, &'static str)],
    pub(super) success: u16,
    handler: MethodRouter<App>,
}

/// All routes.
#[rustfmt::skip]
pub fn table() -> Vec<Route> {
    use Scope::{Admin, Call, Manage, Read, Token};
    const PAGE: &[(&str, &str)] = &[("after", "Cursor: the `next` of the page before."), ("limit", "Most items, 1 to 200; 50 when not given.")];
    const VERSION: &[(&str, &str)] = &[("version", "A version of the definition; the newest (for DELETE: all) when not given.")];
    const CONNECTIONS: &[(&str, &str)] = &[("integration", "Only those under this integration (name or id)."), ("state", "Only those in this state."), ("owner", "Only those of this owner."),
        ("provider", "Only those of this provider, by its id."), ("tag", "Only those with this tag: `name`, or `name=value`."), ("search", "Only those with this text in name, owner, account or id."),
        ("after", "Cursor: the `next` of the page before."), ("limit", "Most items, 1 to 200; 50 when not given.")];
    const AUDIT: &[(&str, &str)] = &[("after", "Cursor: only what was recorded after this, oldest first."), ("before", "Cursor: only what was recorded before this, newest first."),
        ("order", "`newest` or `oldest` first; newest when not given."), ("limit", "Most items, 1 to 200; 50 when not given."),
        ("caller", "Only by this key (name or id), or `person`."), ("connection", "Only on this connection (name or id), or on anything else, by its id."),
        ("action", "Only this action, or all below it: `token.read`, `connection`."), ("outcome", "`ok` or `refused`."),
        ("since", "Only from this time on, Unix milliseconds."), ("until", "Only up to this time, Unix milliseconds.")];
    const USAGE: &[(&str, &str)] = &[("from", "From the hour of this time on, Unix milliseconds; a day before `to` when not given."), ("to", "Up to and with the hour of this time; now when not given."),
        ("by", "`connection`, `caller`, `source` or `hour`; by connection when not given."), ("connection", "Only of this connection (name or id)."),
        ("caller", "Only by this key (name or id)."), ("source", "Only by this data source (id)."),
        ("after", "Cursor: the `next` of the page before."), ("limit", "Most items, 1 to 200; 50 when not given.")];
    let mut table = vec![
        get("/v1/providers", Read, providers::list, "List providers").query(&[("search", "Only those with all these words in id, name or aliases.")]).answers::<providers::ProviderList>(),
        post("/v1/providers", Manage, providers::add, "Add a definition of your own, or a new version of it").takes::<providers::NewDefinition>().creates::<providers::ProviderBody>(),
        post("/v1/providers/check", Read, providers::check, "Check a definition without storing it").takes::<providers::NewDefinition>().answers::<providers::CheckBody>(),
        post("/v1/providers/discover", Manage, providers::discover, "Draft a definition from an issuer's discovery document").takes::<providers::DiscoverRequest>().answers::<providers::Draft>(),
        get("/v1/providers/{provider}", Read, providers::show, "Show a provider").query(VERSION).answers::<providers::ProviderBody>(),
        delete("/v1/providers/{provider}", Manage, providers::remove, "Remove a definition of your own, or one version of it").query(VERSION),
        get("/v1/providers/{provider}/versions", Read, providers::versions, "The versions of a definition, and how many integrations stay on each").answers::<providers::VersionList>(),

        get("/v1/integrations", Read, integrations::list, "List integrations").query(PAGE).answers::<integrations::IntegrationList>(),
        post("/v1/integrations", Manage, integrations::add, "Add an integration").takes::<integrations::NewIntegrationBody>().creates::<integrations::IntegrationBody>(),
        get("/v1/integrations/{integration}", Read, integrations::show, "Show an integration").answers::<integrations::IntegrationBody>(),
        patch("/v1/integrations/{integration}", Manage, integrations::edit, "Change an integration").takes::<integrations::IntegrationEditBody>().answers::<integrations::IntegrationBody>(),
        post("/v1/integrations/{integration}/upgrade", Manage, integrations::upgrade, "Put an integration on another version of its provider's definition, or tell what that would change").takes::<integrations::UpgradeBody>().answers::<integrations::UpgradeReply>(),
        delete("/v1/integrations/{integration}", Manage, integrations::remove, "Remove an integration that has no connections"),

        get("/v1/connections", Read, connections::list, "List connections").query(CONNECTIONS).answers::<connections::ConnectionList>(),
        post("/v1/connections", Manage, connections::add, "Add a connection").takes::<connections::NewConnectionBody>().creates::<connections::ConnectionBody>(),
        get("/v1/connections/{connection}", Read, connections::show, "Show a connection").answers::<connections::ConnectionBody>(),
        patch("/v1/connections/{connection}", Manage, connections::edit, "Change what a connection was told").takes::<connections::ConnectionEditBody>().answers::<connections::ConnectionBody>(),
        delete("/v1/connections/{connection}", Manage, connections::remove, "Revoke and remove a connection"),
        get("/v1/connections/{connection}/events", Read, connections::events, "A connection's history, newest first").answers::<connections::EventList>(),
        post("/v1/connections/{connection}/authorize", Manage, connections::authorize, "Run the grant, or make the link for the person").takes::<connections::AuthorizeBody>().answers::<connections::AuthorizeReply>(),
        post("/v1/connections/{connection}/complete", Manage, connections::complete, "Complete a consent with the one-time code of the return URL").takes::<connections::CompleteBody>().answers::<connections::ConnectionBody>(),
        post("/v1/connections/{connection}/cancel", Manage, connections::cancel, "Give up the authorization that is under way").answers::<connections::ConnectionBody>(),
        get("/v1/connections/{connection}/token", Token, connections::token, "Read a fresh access token").query(&[("min_ttl", "Seconds the token must still be valid, such as `60`, or `60s`, `5m`."), ("token", "A secondary token, by the name that the provider's definition gives it")]).answers::<connections::TokenReply>(),
        post("/v1/connections/{connection}/refresh", Manage, connections::refresh, "Renew now").answers::<connections::RefreshReply>(),
        post("/v1/connections/{connection}/test", Manage, connections::test, "Test settings, token and API, step by step, and say what is probably wrong").takes::<connections::TestBody>().answers::<connections::TestReply>(),
        post("/v1/connections/{connection}/revoke", Manage, connections::revoke, "End a connection, at the provider too").answers::<connections::RevokeReply>(),
        any("/v1/connections/{connection}/proxy/", Call, gateway::proxy, "Call the root of the connection's API"),
        any("/v1/connections/{connection}/proxy/{*path}", Call, gateway::proxy, "Call the connection's API with the token put in on the way"),

        stream("/v1/events", Read, events::of_api, "What happens to connections, as server-sent events").query(&[("connection", "Only of this connection (name or id).")]),

        post("/v1/connect-sessions", Manage, sessions::create, "Make a link for one person to authorise one connection").takes::<sessions::NewSessionBody>().creates::<sessions::SessionBody>(),

        get("/v1/data-sources", Read, sources::list, "List data sources").query(PAGE).answers::<sources::SourceList>(),
        post("/v1/data-sources", Manage, sources::add, "Add a data source, with integration and connection where these are given as objects: all or nothing").takes::<sources::NewSourceBody>().creates::<sources::CreatedSourceBody>(),
        get("/v1/data-sources/{source}", Read, sources::show, "Show a data source").answers::<sources::SourceBody>(),
        patch("/v1/data-sources/{source}", Manage, sources::edit, "Change a data source").takes::<sources::SourceEditBody>().answers::<sources::SourceBody>(),
        delete("/v1/data-sources/{source}", Manage, sources::remove, "Remove a data source"),
        post("/v1/data-sources/{source}/test", Manage, sources::test, "Test a data source, step by step: settings, token, its health request").takes::<sources::SourceTestBody>().answers::<connections::TestReply>(),
        post("/v1/data-sources/{source}/requests/{request}/run", Call, sources::run, "Run a saved request and show the reply").takes::<sources::RunBody>().answers::<sources::RunReplyBody>(),
        any("/v1/data-sources/{source}/proxy/", Call, gateway::proxy_source, "Call the root of the data source's API"),
        any("/v1/data-sources/{source}/proxy/{*path}", Call, gateway::proxy_source, "Call the data source's API with the token put in on the way"),

        get("/v1/keys", Admin, keys::list, "List API keys").query(PAGE).answers::<keys::KeyList>(),
        post("/v1/keys", Admin, keys::create, "Make an API key; it is shown this once").takes::<keys::NewKeyBody>().creates::<keys::KeyBody>(),
        delete("/v1/keys/{key}", Admin, keys::revoke, "Revoke an API key").answers::<keys::KeyBody>(),

        post("/v1/operators/links", Admin, operators::link, "Make a link by which a person becomes an operator of the console, or chooses anew how to sign in").takes::<operators::OperatorLinkRequest>().creates::<operators::OperatorLinkBody>(),

        get("/v1/audit", Admin, operations::audit, "Read the audit").query(AUDIT).answers::<operations::AuditList>(),
        get("/v1/advice", Read, advice::advice, "What security recommendations say about what is set up here").answers::<advice::AdviceList>(),
        get("/v1/usage", Admin, usage::usage, "How often what was used, summed up").query(USAGE).answers::<usage::UsageList>(),
        get("/v1/seal", Admin, operations::seal_status, "Which data keys seal how much").answers::<operations::SealBody>(),
        post("/v1/seal/rotate", Admin, operations::seal_rotate, "Make a new data key and seal everything anew with it, in the background").answers::<operations::SealBody>(),
        get("/v1/doctor", Admin, operations::doctor, "What is wrong with this installation, and what to do").answers::<operations::DoctorReply>(),

        get("/v1/instance", Admin, operations::instance, "Which cluster and copy this is, and whether it is fenced").answers::<operations::InstanceBody>(),
        post("/v1/instance/retire", Admin, operations::retire, "Say that this copy is not the live one: nothing is renewed from now on").answers::<operations::InstanceBody>(),
        post("/v1/instance/live", Admin, operations::declare_live, "Say that this copy is the live one: its fence is lifted").answers::<operations::InstanceBody>(),

        open("get", "/connect/{token}", connect::page, "The page behind a connect link"),
        open("post", "/connect/{token}", connect::answer, "The person's answer on that page"),
        open("get", "/callback/{integration}", connect::callback, "Where the provider sends the person back"),
        open("post", "/callback/{integration}", connect::callback_posted, "Where the provider has the browser post its answer"),
        open("get", "/assets/{file}", assets::file, "Style of the pages"),
        open("get", "/openapi.json", openapi::serve, "This document"),
        open("get", "/healthz", health::alive, "The process is alive"),
        open("get", "/readyz", health::ready, "The server takes requests"),
    ];
    for pages in [pages_of_frame(), pages_of_setup(), pages_of_use(), pages_of_operation()] {
        table.extend(pages);
    }
    table
}

/// Pages of the console: signing in, the first page, the lists.
#[rustfmt::skip]
fn pages_of_frame() -> Vec<Route> {
    use Scope::{Manage, Read};
    vec![
        public("get", "/", sign_in::root, "To the console"),
        public("get", "/console/welcome/{token}", sign_in::welcome, "Becoming an operator"),
        public("post", "/console/welcome/{token}", sign_in::join, "Becoming an operator"),
        public("post", "/console/welcome/{token}/passkey", console::passkeys::to_join, "The question for a passkey"),
        public("get", "/console/sign-in", sign_in::page, "Signing in"),
        public("post", "/console/sign-in/passkey", console::passkeys::to_sign_in, "The question for a passkey"),
        public("post", "/console/sign-in", sign_in::sign_in, "Signing in"),
        view("post", "/console/sign-out", Read, sign_in::sign_out, "Signing out"),
        view("post", "/console/theme", Read, sign_in::theme, "Light or dark"),
        view("get", "/console/", Read, home::page, "The first page"),
        view("post", "/console/sandbox", Manage, sandbox::start, "The sandbox, for a first try"),
        view("get", "/console/connections", Read, console::connections::list, "Connections"),
        view("get", "/console/integrations", Read, console::integrations::list, "Integrations"),
    ]
}

/// Pages of the console: setting up.
#[rustfmt::skip]
fn pages_of_setup() -> Vec<Route> {
    use Scope::{Manage, Read};
    vec![
        view("get", "/console/providers", Read, catalogue::list, "The catalogue of providers"),
        view("get", "/console/providers/discover", Manage, catalogue::discover, "Where to look for a discovery document"),
        view("post", "/console/providers/discover", Manage, catalogue::draft, "A definition drafted from it"),
        view("get", "/console/providers/new", Manage, catalogue::new, "A definition of one's own"),
        view("post", "/console/providers/new", Manage, catalogue::add, "A definition of one's own"),
        view("get", "/console/providers/{provider}", Read, catalogue::page, "A provider"),
        view("get", "/console/import", Manage, import::page, "Settings of other programs"),
        view("post", "/console/import", Manage, import::bring, "Settings of other programs"),
        view("get", "/console/connections/new/{provider}", Manage, setup::new, "The form for a connection"),
        view("post", "/console/connections/new/{provider}", Manage, setup::create, "The form for a connection"),
        view("get", "/console/connections/{connection}/edit", Manage, setup::edit_connection, "Changes to a connection"),
        view("post", "/console/connections/{connection}/edit", Manage, setup::save_connection, "Changes to a connection"),
        view("get", "/console/integrations/{integration}", Read, integration::page, "An integration"),
        view("get", "/console/integrations/{integration}/edit", Manage, integration::edit, "Changes to an integration"),
        view("post", "/console/integrations/{integration}/edit", Manage, integration::save, "Changes to an integration"),
        view("get", "/console/integrations/{integration}/upgrade", Manage, integration::upgrade, "What a newer definition changes"),
        view("post", "/console/integrations/{integration}/upgrade", Manage, integration::upgrade_now, "Putting an integration on it"),
        view("get", "/console/integrations/{integration}/remove", Manage, integration::remove, "Before an integration is removed"),
        dangerous("/console/integrations/{integration}/remove", Manage, integration::remove_now, "Removing an integration"),
    ]
}

/// Pages of the console: a connection, its test, what happens.
#[rustfmt::skip]
fn pages_of_use() -> Vec<Route> {
    use Scope::{Manage, Read};
    vec![
        view("get", "/console/connections/{connection}", Read, connection::page, "A connection"),
        view("post", "/console/connections/{connection}/refresh", Manage, connection::refresh, "Renewing now"),
        view("post", "/console/connections/{connection}/cancel", Manage, connection::cancel, "Giving an authorization up"),
        view("get", "/console/connections/{connection}/authorize", Manage, connection::authorize_page, "Consent"),
        view("post", "/console/connections/{connection}/authorize", Manage, connection::authorize, "Consent"),
        view("get", "/console/connections/{connection}/disconnect", Manage, connection::disconnect_page, "Disconnecting"),
        dangerous("/console/connections/{connection}/disconnect", Manage, connection::disconnect, "Disconnecting"),
        view("get", "/console/connections/{connection}/remove", Manage, connection::remove_page, "Removing"),
        dangerous("/console/connections/{connection}/remove", Manage, connection::remove, "Removing"),
        view("get", "/console/connections/{connection}/redirect", Read, connection::redirect, "Comparing redirect URIs"),
        view("get", "/console/connections/{connection}/test", Manage, test::page, "Testing"),
        view("post", "/console/connections/{connection}/test", Manage, test::run, "Testing"),
        view("get", "/console/events", Read, events::of_console, "What happens"),
    ]
}

/// Pages of the console: data sources, callers, audit, usage, advice, settings.
#[rustfmt::skip]
fn pages_of_operation() -> Vec<Route> {
    use Scope::{Admin, Call, Manage, Read};
    use console::{advice, audit, callers, passkeys, people, settings, sources, usage, you};
    vec![
        view("get", "/console/sources", Read, sources::list, "Data sources"),
        view("get", "/console/sources/new", Manage, sources::new, "The form for a data source"),
        view("post", "/console/sources/new", Manage, sources::create, "Make a data source"),
        view("get", "/console/sources/{source}", Read, sources::page, "A data source"),
        view("get", "/console/sources/{source}/edit", Manage, sources::edit, "The form of a data source"),
        view("post", "/console/sources/{source}/edit", Manage, sources::save, "Change a data source"),
        view("get", "/console/sources/{source}/remove", Manage, sources::ask_remove, "Whether to remove it"),
        view("post", "/console/sources/{source}/remove", Manage, sources::remove, "Remove a data source"),
        view("get", "/console/sources/{source}/test", Manage, test::source_page, "Testing a data source"),
        view("post", "/console/sources/{source}/test", Manage, test::run_source, "Testing a data source"),
        view("get", "/console/sources/{source}/requests", Manage, sources::request::new, "The form for a request"),
        view("post", "/console/sources/{source}/requests", Manage, sources::request::create, "Save a request"),
        view("get", "/console/sources/{source}/requests/{request}", Manage, sources::request::edit, "The form of a request"),
        view("post", "/console/sources/{source}/requests/{request}", Manage, sources::request::save, "Change a request"),
        view("get", "/console/sources/{source}/requests/{request}/run", Call, sources::runner::page, "The runner of a request"),
        view("post", "/console/sources/{source}/requests/{request}/run", Call, sources::runner::run, "Run a request"),
        view("get", "/console/callers", Admin, callers::list, "Keys"),
        view("get", "/console/callers/new", Admin, callers::new, "The form for a key"),
        dangerous("/console/callers/new", Admin, callers::create, "Make a key"),
        view("get", "/console/callers/{key}/revoke", Admin, callers::ask_revoke, "Whether to revoke it"),
        dangerous("/console/callers/{key}/revoke", Admin, callers::revoke, "Revoke a key"),
        view("get", "/console/audit", Admin, audit::page, "The audit"),
        view("get", "/console/audit.csv", Admin, audit::csv, "The audit as CSV"),
        view("get", "/console/audit.jsonl", Admin, audit::json, "The audit as JSON lines"),
        view("get", "/console/usage", Admin, usage::page, "Usage"),
        view("get", "/console/advice", Read, advice::page, "Advice"),
        view("post", "/console/advice/dismiss", Manage, advice::dismiss, "Put advice aside"),
        view("get", "/console/settings", Read, settings::page, "Settings"),
        view("get", "/console/settings/password", Read, you::password_form, "The form for one's own password"),
        dangerous("/console/settings/password", Read, you::password, "Change one's own password"),
        view("post", "/console/settings/passkey", Read, passkeys::to_add_or_prove, "The question for a passkey"),
        view("get", "/console/settings/passkeys/new", Read, passkeys::form, "The form for a passkey"),
        dangerous("/console/settings/passkeys/new", Read, passkeys::add, "Add a passkey"),
        view("get", "/console/settings/passkeys/{passkey}/remove", Read, passkeys::ask_remove, "Whether to remove a passkey"),
        dangerous("/console/settings/passkeys/{passkey}/remove", Read, passkeys::remove, "Remove a passkey"),
        view("post", "/console/settings/sessions", Read, you::sign_out_everywhere, "Sign out everywhere"),
        view("get", "/console/settings/people/new", Admin, people::invite_form, "The form to invite somebody"),
        dangerous("/console/settings/people/new", Admin, people::invite, "Invite somebody"),
        view("get", "/console/settings/people/{person}/role", Admin, people::role_form, "The form of somebody's role"),
        dangerous("/console/settings/people/{person}/role", Admin, people::role, "Change somebody's role"),
        view("get", "/console/settings/people/{person}/link", Admin, people::ask_link, "Whether to make a link for somebody"),
        dangerous("/console/settings/people/{person}/link", Admin, people::link, "Make a link for somebody"),
        view("get", "/console/settings/people/{person}/remove", Admin, people::ask_remove, "Whether to remove somebody"),
        dangerous("/console/settings/people/{person}/remove", Admin, people::remove, "Remove somebody"),
        view("post", "/console/settings/{section}", Admin, settings::change, "Change settings"),
    ]
}

/// The pages there are to be opened, with what whoever opens them must be allowed.
pub(super) fn pages() -> console::Pages {
    let pages = table().into_iter().filter(|route| route.method == "get");
    pages.filter_map(|route| Some((route.path, route.person?))).collect()
}

/// A request that goes past the router: these routes are most of all that is asked.
pub(super) enum Hot<Name> {
    /// The token of this connection.
    Token(Name),
    /// A call of this connection's API.
    Proxy(Name),
    /// A call of this data source's API.
    Source(Name),
}

impl Hot<&str> {
    /// The same for when the request's text is gone.
    pub(super) fn kept(self) -> Hot<Box<str>> {
        match self {
            Hot::Token(name) => Hot::Token(name.into()),
            Hot::Proxy(name) => Hot::Proxy(name.into()),
            Hot::Source(name) => Hot::Source(name.into()),
        }
    }
}

/// Whether a request goes past the router. What is seldom doesn't: encoded names, other methods, what the router refuses.
pub(super) fn hot<'a>(method: &Method, path: &'a str) -> Option<Hot<&'a str>> {
    // Each request comes by here; these are so short that a search by patterns takes longer to begin.
    let cut = |text: &'a str| {
        let at = text.bytes().position(|byte| byte == b'/')?;
        Some((&text[..at], &text[at + 1..]))
    };
    let (kind, rest) = cut(path.strip_prefix("/v1/")?)?;
    let (name, rest) = cut(rest)?;
    if name.is_empty() || name.contains('%') {
        return None;
    }
    match (kind, rest) {
        ("connections", "token") => (*method == Method::GET).then_some(Hot::Token(name)),
        ("connections", _) => rest.starts_with("proxy/").then_some(Hot::Proxy(name)),
        ("data-sources", _) => rest.starts_with("proxy/").then_some(Hot::Source(name)),
        _ => None,
    }
}

/// The scopes of those routes.
pub(super) struct HotScopes {
    pub(super) token: Scope,
    pub(super) proxy: Scope,
    pub(super) source: Scope,
}

impl HotScopes {
    /// What the table says of them; what it doesn't have takes the scope that holds all.
    pub(super) fn of_table() -> Self {
        let table = table();
        let scope = |path| table.iter().find(|route| route.path == path).and_then(|route| route.scope);
        Self {
            token: scope("/v1/connections/{connection}/token").unwrap_or(Scope::Admin),
            proxy: scope("/v1/connections/{connection}/proxy/{*path}").unwrap_or(Scope::Admin),
            source: scope("/v1/data-sources/{source}/proxy/{*path}").unwrap_or(Scope::Admin),
        }
    }
}

/// The router over the table.
pub(super) fn router(app: App) -> Router {
    let mut router = Router::new();
    for route in table() {
        let mut handler = route.handler;
        if let Some(scope) = route.scope {
            if route.method == "post" {
                handler = handler.route_layer(from_fn_with_state(app.clone(), idempotency::layer));
            }
            let asks_for_key = from_fn_with_state((app.clone(), scope), caller::layer);
            // A handler of any method is the router's fallback, which only `layer` reaches.
            handler =
                if route.method == "any" { handler.layer(asks_for_key) } else { handler.route_layer(asks_for_key) };
        }
        if let Some(scope) = route.person {
            let guard = session::Guard { scope, dangerous: route.dangerous };
            handler = handler.route_layer(from_fn_with_state((app.clone(), guard), session::layer));
        }
        router = router.route(route.path, handler);
    }
    router
        .fallback(nothing_there)
        .method_not_allowed_fallback(|| async { ApiError::from(Refusal::NoMethod) })
        .with_state(app)
}

/// Nothing at this path; below the console's, people are told.
async fn nothing_there(State(app): State<App>, headers: HeaderMap, uri: Uri) -> Response {
    let problem = Problem::of_refusal(&Refusal::NoRoute);
    if !uri.path().starts_with("/console") {
        return problem.into_response();
    }
    let elsewhere = origin::canonical(&app, &headers, uri.path());
    elsewhere.unwrap_or_else(console::render::nothing_there)
}

impl Route {
    fn takes<T: JsonSchema>(mut self) -> Self {
        self.input = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    fn answers<T: JsonSchema>(mut self) -> Self {
        self.output = Some(SchemaGenerator::subschema_for::<T>);
        self.success = 200;
        self
    }

    fn creates<T: JsonSchema>(self) -> Self {
        Self { success: 201, ..self.answers::<T>() }
    }

    fn query(self, query: &'static [(&'static str, &'static str)]) -> Self {
        Self { query, ..self }
    }
}

/// A constructor of routes for each method.
macro_rules! methods {
    ($($name:ident = $filter:ident;)*) => {$(
        fn $name<H, T>(path: &'static str, scope: Scope, handler: H, summary: &'static str) -> Route
        where
            H: Handler<T, App>,
            T: 'static,
        {
            route(stringify!($name), path, Some(scope), on(MethodFilter::$filter, handler), summary)
        }
    )*};
}

methods! {
    get = GET;
    post = POST;
    patch = PATCH;
    delete = DELETE;
}

fn any<H, T>(path: &'static str, scope: Scope, handler: H, summary: &'static str) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    Route { success: 200, ..route("any", path, Some(scope), axum::routing::any(handler), summary) }
}

fn open<H, T>(method: &'static str, path: &'static str, handler: H, summary: &'static str) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    let filter = if method == "post" { MethodFilter::POST } else { MethodFilter::GET };
    Route { success: 200, ..route(method, path, None, on(filter, handler), summary) }
}

/// What goes on until somebody ends it, for keys with this scope.
fn stream<H, T>(path: &'static str, scope: Scope, handler: H, summary: &'static str) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    Route { success: 200, ..get(path, scope, handler, summary) }
}

/// A page of the console, for whoever is signed in and has this scope.
fn view<H, T>(method: &'static str, path: &'static str, person: Scope, handler: H, summary: &'static str) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    Route { person: Some(person), ..public(method, path, handler, summary) }
}

/// A form of the console that could do harm in other hands.
fn dangerous<H, T>(path: &'static str, person: Scope, handler: H, summary: &'static str) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    Route { dangerous: true, ..view("post", path, person, handler, summary) }
}

/// A page of the console for whoever isn't signed in yet.
fn public<H, T>(method: &'static str, path: &'static str, handler: H, summary: &'static str) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    Route { documented: false, ..open(method, path, handler, summary) }
}

fn route(
    method: &'static str,
    path: &'static str,
    scope: Option<Scope>,
    handler: MethodRouter<App>,
    summary: &'static str,
) -> Route {
    Route {
        method,
        path,
        scope,
        person: None,
        dangerous: false,
        documented: true,
        summary,
        input: None,
        output: None,
        query: &[],
        success: 204,
        handler,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_past_the_router_is_in_the_table() {
        let shown = |method: Method, path: &str| match hot(&method, path) {
            Some(Hot::Token(name)) => format!("token {name}"),
            Some(Hot::Proxy(name)) => format!("proxy {name}"),
            Some(Hot::Source(name)) => format!("source {name}"),
            None => String::new(),
        };
        assert_eq!(shown(Method::GET, "/v1/connections/crm/token"), "token crm");
        assert_eq!(shown(Method::DELETE, "/v1/connections/crm/proxy/token"), "proxy crm");
        assert_eq!(shown(Method::GET, "/v1/connections/crm/proxy//"), "proxy crm");
        assert_eq!(shown(Method::GET, "/v1/data-sources/crm/proxy/x"), "source crm");
        assert_eq!(shown(Method::GET, "/v1/data-sources/crm/token"), "");
        for path in ["crm/token/", "%63rm/token", "/token", "crm", "crm/proxy", "crm/tokens", ""] {
            assert_eq!(shown(Method::GET, &format!("/v1/connections/{path}")), "", "{path}");
        }
        assert_eq!(shown(Method::HEAD, "/v1/connections/crm/token"), "");
        let scopes = HotScopes::of_table();
        assert_eq!((scopes.token, scopes.proxy, scopes.source), (Scope::Token, Scope::Call, Scope::Call));
    }
}
