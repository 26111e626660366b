//! Consent through a browser without scripts: the pages, the callback, the confirmation, and whoever shouldn't get through.

use keyholder_sandbox::{Options, Which};
use serde_json::{Value, json};

use crate::app::{App, auto_approving};
use crate::person::{Page, Person};

/// What every page must say to the browser.
fn assert_guarded(page: &Page) {
    let header = |name: &str| page.reply.header(name).unwrap_or_else(|| panic!("{name} is missing: {page:?}"));
    let policy = header("content-security-policy");
    for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("script-src") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!(header("referrer-policy"), "no-referrer");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("x-frame-options"), "DENY");
    assert_eq!(header("cross-origin-opener-policy"), "same-origin");
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    let text = page.text();
    assert!(!text.contains("<script") && !text.contains(" style="), "{text}");
    assert!(text.contains("<html lang=\"en\">"), "{text}");
}

async fn session(app: &App, body: Value) -> Value {
    app.admin().post("/v1/connect-sessions", body).await.ok(201)
}

fn link(session: &Value) -> &str {
    session["url"].as_str().unwrap()
}

/// A page that says no: this status, these words in it, and always what to do.
#[track_caller]
fn assert_refused(page: &Page, status: u16, words: &str) {
    assert_eq!(page.status, status, "{page:?}");
    assert_guarded(page);
    let text = page.text();
    assert!(
        text.contains("That didn’t work") || text.contains("That didn&#39;t work") || text.contains("That didn't work"),
        "{text}"
    );
    assert!(text.contains(words), "{words:?} is missing: {text}");
}

/// Opens an invitation, goes on, and comes back to the question whose account it is.
async fn to_the_question(person: &Person, session: &Value) -> Page {
    person.get(link(session)).await;
    let left = person.post(link(session), &[]).await;
    person.follow_on(left).await
}

#[tokio::test]
async fn an_invitation_leads_over_the_provider_to_a_yes() {
    let app = App::start().await;
    app.integration("crm", "authorization_code").await;
    let session = session(&app, json!({"integration": "crm", "tags": {"team": "blue"}})).await;
    assert!(session["expires_at"].as_i64().is_some());
    let connection = session["connection"].as_str().unwrap();

    let person = app.person();
    let invitation = person.get(link(&session)).await;
    assert_eq!(invitation.status, 200);
    assert_guarded(&invitation);
    let text = invitation.text();
    for words in [
        "<h1>Connect your 127.0.0.1 account</h1>",
        "crm asks to use your account at 127.0.0.1.",
        "<code>read</code>",
        "<form method=\"post\">",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(person.cookies().is_empty(), "looking at an invitation begins nothing");
    assert_eq!(app.state(connection).await, "draft");

    let left = person.post(link(&session), &[]).await;
    assert_eq!(left.status, 303, "{left:?}");
    let cookie = left.reply.header("set-cookie").unwrap();
    for part in ["keyholder-browser=", "; Path=/", "; HttpOnly", "; SameSite=Lax"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "plain http on this machine");
    let provider = left.location().unwrap();
    assert!(provider.as_str().starts_with(&format!("{}/authorize?", app.sandbox.base_url())), "{provider}");
    assert_eq!(left.parameter("response_type").as_deref(), Some("code"));
    assert_eq!(left.parameter("code_challenge_method").as_deref(), Some("S256"));
    assert_eq!(left.parameter("scope").as_deref(), Some("read write"));
    assert_eq!(left.parameter("state").unwrap().len(), 43);
    assert_eq!(app.state(connection).await, "pending");

    let question = person.follow_on(left).await;
    assert_eq!(question.status, 200);
    assert_guarded(&question);
    assert!(
        question.url.starts_with(&format!("{}/connect/", app.url)),
        "the code is out of the address: {}",
        question.url
    );
    assert!(
        question.text().contains("Is this your account?") && question.text().contains("value=\"no\""),
        "{question:?}"
    );

    let done = person.post(&question.url, &[("decision", "yes")]).await;
    assert_eq!(done.status, 200);
    assert_guarded(&done);
    assert!(done.text().contains("is connected. You can close this page."), "{done:?}");
    let shown = app.admin().get(&format!("/v1/connections/{connection}")).await.ok(200);
    assert_eq!((&shown["state"], &shown["tags"]), (&json!("connected"), &json!({"team": "blue"})));

    // Everything was for one use.
    assert_refused(&person.get(link(&session)).await, 410, "already used");
    assert_refused(&person.post(link(&session), &[]).await, 410, "already used");
    assert_refused(&person.get(&question.url).await, 410, "ask for a new one");
    assert_refused(&person.post(&question.url, &[("decision", "yes")]).await, 410, "already used");
    assert_refused(&person.post(&question.url, &[("decision", "no")]).await, 410, "already used");
    assert_eq!(app.state(connection).await, "connected", "a no behind a yes changes nothing");
}

#[tokio::test]
async fn a_no_gives_back_what_was_granted() {
    let app = App::start().await;
    app.integration("crm", "authorization_code").await;
    let session = session(&app, json!({"integration": "crm"})).await;
    let person = app.person();
    let question = to_the_question(&person, &session).await;
    let done = person.post(&question.url, &[("decision", "no")]).await;
    assert_eq!(done.status, 200);
    assert_guarded(&done);
    assert!(done.text().contains("Nothing was connected") && done.text().contains("new link"), "{done:?}");
    assert_eq!(app.seen("revoke"), 1, "the sandbox was told");
    assert_eq!(app.state(session["connection"].as_str().unwrap()).await, "draft");
    assert_refused(&person.post(&question.url, &[("decision", "yes")]).await, 410, "already used");
}

/// A definition that asks the person for two things, one of them secret.
const SHOP: &str = r#"
schema = 1
id = "shop"
name = "Shop <&> Söhne"
source = ["https://shop.example/docs"]
[[methods]]
grant = "authorization_code"
[variables.shop]
label = "Your shop"
help = "The first part of its address."
asked_of = "connection"
pattern = "[a-z0-9-]{3,20}"
[variables.pin]
label = "PIN"
asked_of = "connection"
secret = true
[variables.note]
label = "Note"
asked_of = "connection"
presence = "optional"
[scopes]
known = { read = "See your orders" }
[authorize]
url = "BASE/authorize"
params = { shop = "{{shop}}" }
[token]
url = "BASE/token"
params = { pin = "{{pin}}", note = "{{note}}" }
[revoke]
url = "BASE/revoke"
[api]
base_url = "BASE/api"
"#;

async fn shop(app: &App) {
    let admin = app.admin();
    let definition = SHOP.replace("BASE", app.sandbox.base_url());
    admin.post("/v1/providers", json!({"definition": definition})).await.ok(201);
    let mut body = app.integration_body("crm", "authorization_code");
    body["provider"] = "shop".into();
    body["scopes"] = json!(["read"]);
    body["variables"] = json!({});
    admin.post("/v1/integrations", body).await.ok(201);
}

#[tokio::test]
async fn what_only_the_person_knows_is_asked_for_and_corrected_beside_the_field() {
    let app = App::start().await;
    shop(&app).await;
    let session = session(&app, json!({"integration": "crm"})).await;
    let person = app.person();
    let page = person.get(link(&session)).await;
    let text = page.text();
    for words in [
        "Your shop",
        "The first part of its address.",
        "name=\"shop\"",
        "type=\"password\"",
        "name=\"note\"",
        "(optional)",
        "See your orders",
        "Söhne",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("Shop <&>"), "{text}");

    let wrong = person.post(link(&session), &[("shop", "<i>No\"shop</i>"), ("pin", "pin-s3cret")]).await;
    assert_eq!(wrong.status, 422, "{wrong:?}");
    assert_guarded(&wrong);
    let text = wrong.text();
    assert!(
        text.contains("id=\"w-shop\"") && text.contains("aria-describedby=\"w-shop"),
        "the reason stands beside the field: {text}"
    );
    assert!(!text.contains("id=\"w-pin\""), "and only beside that one: {text}");
    assert!(text.contains("No&#34;shop") || text.contains("No&quot;shop"), "what was typed is still there: {text}");
    assert!(!text.contains("<i>No"), "{text}");
    assert!(!text.contains("pin-s3cret"), "a typed secret is not sent back: {text}");
    assert!(person.cookies().is_empty(), "nothing has begun");

    let missing = person.post(link(&session), &[("shop", "acme")]).await;
    assert_eq!(missing.status, 422);
    assert!(missing.text().contains("id=\"w-pin\""), "{missing:?}");
    assert!(missing.text().contains("value=\"acme\""), "{missing:?}");

    let left = person.post(link(&session), &[("shop", "acme"), ("pin", "pin-s3cret")]).await;
    assert_eq!(left.status, 303, "{left:?}");
    assert_eq!(left.parameter("shop").as_deref(), Some("acme"));
    assert!(!left.location().unwrap().as_str().contains("pin-s3cret"));
    let connection = session["connection"].as_str().unwrap();
    let shown = app.admin().get(&format!("/v1/connections/{connection}")).await;
    assert!(
        !shown.text().contains("acme") && !shown.text().contains("pin-s3cret"),
        "typed values count from the yes on"
    );
    let question = person.follow_on(left).await;
    person.post(&question.url, &[("decision", "yes")]).await;
    let shown = app.admin().get(&format!("/v1/connections/{connection}")).await;
    assert!(!shown.text().contains("pin-s3cret"));
    assert_eq!(shown.ok(200)["variables"], json!({"shop": "acme"}));
    app.admin().post(&format!("/v1/connections/{connection}/refresh"), json!({})).await.ok(200);
}

#[tokio::test]
async fn a_field_has_the_form_that_its_value_needs() {
    let app = App::start().await;
    let fields = "[variables.key]\nkind = \"pem\"\nsecret = true\norder = 3\nasked_of = \"connection\"\nexample = \"-----BEGIN <KEY>\"\n\
        [variables.region]\nasked_of = \"connection\"\norder = 1\nchoices = { eu = \"Europe & more\", us = \"America\" }\n\
        [variables.seats]\nasked_of = \"connection\"\norder = 2\nkind = \"number\"\nexample = \"25\"\npresence = \"optional\"\n\
        [variables.hidden]\nasked_of = \"connection\"\npresence = \"hidden\"\n";
    let definition = SHOP.replace("BASE", app.sandbox.base_url());
    let (head, tail) = definition.split_once("[variables.shop]").unwrap();
    let tail = &tail[tail.find("[authorize]").unwrap()..];
    let tail = tail.replace("{ shop = \"{{shop}}\" }", "{ region = \"{{region}}\", hidden = \"{{hidden}}\" }");
    let tail =
        tail.replace("{ pin = \"{{pin}}\", note = \"{{note}}\" }", "{ key = \"{{key}}\", seats = \"{{seats}}\" }");
    app.admin().post("/v1/providers", json!({"definition": format!("{head}{fields}{tail}")})).await.ok(201);
    let mut body = app.integration_body("crm", "authorization_code");
    body["provider"] = "shop".into();
    body["variables"] = json!({});
    app.admin().post("/v1/integrations", body).await.ok(201);
    let session = session(&app, json!({"integration": "crm"})).await;
    let person = app.person();
    let page = person.get(link(&session)).await.text();
    let at = |words: &str| page.find(words).unwrap_or_else(|| panic!("{words} is missing: {page}"));
    assert!(
        at("<select id=\"v-region\"") < at("id=\"v-seats\"") && at("id=\"v-seats\"") < at("<textarea id=\"v-key\""),
        "{page}"
    );
    at("<option value=\"eu\">Europe &#38; more</option>");
    at("inputmode=\"numeric\" placeholder=\"25\"");
    at("placeholder=\"-----BEGIN &#60;KEY&#62;\"");
    assert!(!page.contains("v-hidden"), "{page}");

    let typed = [("region", "mars"), ("seats", "many"), ("key", "line-1\r\nline-2-s3cret\r\n")];
    let wrong = person.post(link(&session), &typed).await;
    assert_eq!(wrong.status, 422);
    let text = wrong.text();
    assert!(
        text.contains("id=\"w-region\"") && text.contains("id=\"w-seats\"") && !text.contains("id=\"w-key\""),
        "{text}"
    );
    assert!(text.contains("use one of: eu, us") && !text.contains("s3cret"), "{text}");
    let right = [("region", "us"), ("key", "line-1\r\nline-2-s3cret\r\n")];
    let left = person.post(link(&session), &right).await;
    assert_eq!((left.status, left.parameter("region").as_deref()), (303, Some("us")), "{left:?}");
}

#[tokio::test]
async fn what_the_session_brings_is_not_asked_for() {
    let app = App::start().await;
    shop(&app).await;
    let body = json!({"integration": "crm", "variables": {"shop": "acme", "pin": "1234-s3cret"}});
    let session = session(&app, body).await;
    let person = app.person();
    let page = person.get(link(&session)).await;
    assert!(!page.text().contains("name=\"shop\"") && !page.text().contains("name=\"pin\""), "{page:?}");
    assert!(page.text().contains("name=\"note\""), "{page:?}");
    let question = to_the_question(&person, &session).await;
    assert!(question.text().contains("Is this your account?"), "{question:?}");
    // A form with a field that nobody asked for changes nothing that the application set.
    let problem =
        app.admin().post("/v1/connect-sessions", json!({"integration": "crm", "variables": {"shop": "NO"}})).await;
    assert_eq!(problem.problem(422, "invalid")["errors"][0]["field"], "variables.shop");
}

#[tokio::test]
async fn an_application_that_authorises_sends_the_person_straight_on() {
    let app = App::start().await;
    app.draft("alice", "authorization_code").await;
    let begun = app.admin().post("/v1/connections/alice/authorize", json!({})).await.ok(200);
    let page = app.person().get(begun["authorize_url"].as_str().unwrap()).await;
    assert_eq!(page.status, 303, "no page of ours: {page:?}");
    assert!(page.location().unwrap().as_str().contains("/authorize?"));
}

/// Begins at the application and comes back to it; answers the URL it was sent to.
async fn returned(app: &App, person: &Person, owner: &str) -> Page {
    let body = json!({"owner": owner, "return_url": "https://app.example/done?tab=2"});
    let begun = app.admin().post("/v1/connections/alice/authorize", body).await.ok(200);
    let page = person.follow(begun["authorize_url"].as_str().unwrap()).await;
    assert_eq!(page.status, 303, "{page:?}");
    let back = page.location().unwrap();
    assert!(back.as_str().starts_with("https://app.example/done?tab=2&connection=con_"), "{back}");
    page
}

#[tokio::test]
async fn with_a_return_url_the_application_completes_for_its_own_user() {
    let app = App::start().await;
    app.draft("alice", "authorization_code").await;
    let back = returned(&app, &app.person(), "user-7").await;
    let code = back.parameter("code").unwrap();
    assert_eq!(app.state("alice").await, "pending");
    let body = json!({"code": code, "owner": "user-7"});
    let shown = app.admin().post("/v1/connections/alice/complete", body.clone()).await.ok(200);
    assert_eq!(shown["state"], "connected");
    assert_eq!(Some(shown["id"].as_str().unwrap()), back.parameter("connection").as_deref());
    app.admin().get("/v1/connections/alice/proxy/me").await.ok(200);
    app.admin().post("/v1/connections/alice/complete", body).await.problem(410, "gone");
    app.admin().get("/v1/connections/alice/token").await.ok(200);
}

#[tokio::test]
async fn anybody_elses_completion_revokes_what_was_granted() {
    let app = App::start().await;
    app.draft("alice", "authorization_code").await;
    for owner in [json!({"owner": "user-8"}), json!({})] {
        app.sandbox.reset_counters();
        let back = returned(&app, &app.person(), "user-7").await;
        let code = back.parameter("code").unwrap();
        let mut body = owner.clone();
        body["code"] = code.clone().into();
        let problem = app.admin().post("/v1/connections/alice/complete", body).await.problem(403, "wrong_owner");
        assert!(problem["detail"].as_str().unwrap().contains("has been revoked"), "{problem}");
        assert_eq!(app.seen("revoke"), 1, "the sandbox was told");
        let right = json!({"code": code, "owner": "user-7"});
        app.admin().post("/v1/connections/alice/complete", right).await.problem(410, "gone");
        assert_ne!(app.state("alice").await, "connected");
    }
    let refused = app.audit().await.into_iter().find(|row| row["action"] == "connection.complete").unwrap();
    assert_eq!((&refused["outcome"], &refused["detail"]), (&json!("refused"), &json!("another owner")));
}

#[tokio::test]
async fn a_code_is_of_no_use_for_another_connection_or_as_a_page() {
    let app = App::start().await;
    app.draft("alice", "authorization_code").await;
    app.draft("other", "authorization_code").await;
    let person = app.person();
    let back = returned(&app, &person, "user-7").await;
    let code = back.parameter("code").unwrap();
    let body = json!({"code": code, "owner": "user-7"});
    app.admin().post("/v1/connections/other/complete", body.clone()).await.problem(410, "gone");
    // Somebody who only saw the code, in a browser of their own.
    let stranger = app.person();
    let page = stranger.post(&format!("/connect/{code}"), &[("decision", "yes")]).await;
    assert_eq!(page.status, 403, "{page:?}");
    assert_eq!(app.state("alice").await, "pending");
    app.admin().post("/v1/connections/alice/complete", body).await.ok(200);
}

#[tokio::test]
async fn a_refusal_at_the_provider_is_told_to_the_application() {
    let app = App::with(Options { auto_approve: None, ..auto_approving() }).await;
    app.draft("alice", "authorization_code").await;
    let body = json!({"owner": "u", "return_url": "https://app.example/done"});
    let begun = app.admin().post("/v1/connections/alice/authorize", body).await.ok(200);
    let person = app.person();
    let left = person.get(begun["authorize_url"].as_str().unwrap()).await;
    let denied = decision(&app, &person, &left, "deny").await;
    let back = person.follow_on(denied).await;
    assert_eq!(back.parameter("error").as_deref(), Some("access_denied"), "{back:?}");
    assert!(back.parameter("error_description").is_some() && back.parameter("connection").is_some());
    assert_eq!(back.parameter("code"), None);
    let events = app.admin().get("/v1/connections/alice/events").await.ok(200);
    assert_eq!(events["items"][0]["kind"], "refused");
}

/// What the sandbox's own page would send.
async fn decision(app: &App, person: &Person, left: &Page, word: &str) -> Page {
    let pairs: Vec<(String, String)> = left.location().unwrap().query_pairs().into_owned().collect();
    let mut form: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    form.extend([("decision", word), ("account", "bob")]);
    person.post(&format!("{}/authorize/decision", app.sandbox.base_url()), &form).await
}

#[tokio::test]
async fn a_refusal_at_the_provider_is_shown_to_the_person() {
    let app = App::with(Options { auto_approve: None, ..auto_approving() }).await;
    app.integration("crm", "authorization_code").await;
    let session = session(&app, json!({"integration": "crm"})).await;
    let person = app.person();
    let left = person.post(link(&session), &[]).await;
    let denied = decision(&app, &person, &left, "deny").await;
    let page = person.follow_on(denied).await;
    assert_refused(&page, 400, "access_denied");
    assert_eq!(app.sent("authorization_code"), 0);
    // The invitation still holds: a person may think twice.
    let question = to_the_question(&person, &session).await;
    assert!(question.status < 500);
    let left = person.post(link(&session), &[]).await;
    let allowed = decision(&app, &person, &left, "allow").await;
    let question = person.follow_on(allowed).await;
    assert!(question.text().contains("Is this your account?"), "{question:?}");
}

/// Goes to the provider and answers the callback's address without calling it.
async fn callback_of(person: &Person, session: &Value) -> String {
    let left = person.post(link(session), &[]).await;
    let back = person.get(left.location().unwrap().as_str()).await;
    back.location().unwrap().to_string()
}

#[tokio::test]
async fn a_callback_that_comes_twice_is_gone() {
    let app = App::start().await;
    app.integration("crm", "authorization_code").await;
    let session = session(&app, json!({"integration": "crm"})).await;
    let person = app.person();
    let callback = callback_of(&person, &session).await;
    let question = person.follow(&callback).await;
    assert_refused(&person.get(&callback).await, 410, "begin again");
    assert_eq!(app.sent("authorization_code"), 1, "a code is exchanged once");
    let done = person.post(&question.url, &[("decision", "yes")]).await;
    assert_eq!(done.status, 200, "the replay took nothing away: {done:?}");
}

#[tokio::test]
async fn a_callback_in_another_browser_is_refused_and_ends_that_consent() {
    let app = App::start().await;
    app.integration("crm", "authorization_code").await;
    let session = session(&app, json!({"integration": "crm"})).await;
    let (person, other) = (app.person(), app.person());
    // The other has a cookie too, of a consent of its own.
    let own = self::session(&app, json!({"integration": "crm"})).await;
    callback_of(&other, &own).await;
    let callback = callback_of(&person, &session).await;
    assert_refused(&other.get(&callback).await, 403, "another browser");
    assert_eq!(app.sent("authorization_code"), 0, "the code was not used");
    assert_refused(&person.get(&callback).await, 410, "begin again");
    let stranger = app.person();
    let callback = callback_of(&person, &session).await;
    assert_refused(&stranger.get(&callback).await, 403, "cookies must be allowed");
}

#[tokio::test]
async fn a_yes_from_another_browser_or_another_site_is_refused() {
    let app = App::start().await;
    app.integration("crm", "authorization_code").await;
    let session = session(&app, json!({"integration": "crm"})).await;
    let person = app.person();

    // A page elsewhere that sends the form of an invitation.
    for headers in [
        vec![("sec-fetch-site", "cross-site")],
        vec![("sec-fetch-site", "same-site")],
        vec![("origin", "https://evil.example")],
        vec![("origin", "null")],
        vec![("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")],
    ] {
        assert_refused(&person.post_with(link(&session), &headers, &[]).await, 403, "another site");
    }
    let question = to_the_question(&person, &session).await;
    for word in ["yes", "no"] {
        let page = person.post_with(&question.url, &[("origin", "https://evil.example")], &[("decision", word)]).await;
        assert_refused(&page, 403, "another site");
        assert_refused(&app.person().post(&question.url, &[("decision", word)]).await, 403, "another browser");
    }
    let connection = session["connection"].as_str().unwrap();
    assert_eq!(app.state(connection).await, "pending");
    assert_eq!(person.post(&question.url, &[("decision", "yes")]).await.status, 200);
    assert_eq!(app.state(connection).await, "connected");
}

#[tokio::test]
async fn links_and_states_that_nobody_made_are_gone() {
    let app = App::start().await;
    let integration = app.integration("crm", "authorization_code").await;
    let person = app.person();
    let made_up = "A".repeat(43);
    for url in [format!("/connect/{made_up}"), "/connect/x".to_owned(), format!("/connect/{}", "x".repeat(5000))] {
        assert_refused(&person.get(&url).await, 410, "ask for a new one");
        assert_refused(&person.post(&url, &[]).await, 410, "ask for a new one");
        assert_refused(&person.post(&url, &[("decision", "yes")]).await, 410, "ask for a new one");
    }
    let callback = format!("/callback/{}", integration["id"].as_str().unwrap());
    assert_refused(&person.get(&format!("{callback}?code=c&state={made_up}")).await, 410, "begin again");
    for (query, words) in
        [("", "state"), ("?code=c", "state"), ("?code=c&state=a&state=b", "state"), ("?code=c&code=d&state=a", "code")]
    {
        assert_refused(&person.get(&format!("{callback}{query}")).await, 400, words);
    }
    assert_refused(&person.get(&format!("/callback/elsewhere?code=c&state={made_up}")).await, 410, "begin again");
}

/// A state only counts at the redirect URI it was made for (RFC 9700 §4.4.2.2).
#[tokio::test]
async fn a_state_of_another_integration_is_refused() {
    let app = App::start().await;
    app.integration("crm", "authorization_code").await;
    let other = app.integration("other", "authorization_code").await;
    let session = session(&app, json!({"integration": "crm"})).await;
    let person = app.person();
    let callback: url::Url = callback_of(&person, &session).await.parse().unwrap();
    let elsewhere = format!("/callback/{}?{}", other["id"].as_str().unwrap(), callback.query().unwrap());
    assert_refused(&person.get(&elsewhere).await, 410, "begin again");
    assert_eq!(app.sent("authorization_code"), 0);
}

#[tokio::test]
async fn what_a_provider_says_never_becomes_markup() {
    let app = App::start().await;
    app.integration("crm", "authorization_code").await;
    let session = session(&app, json!({"integration": "crm"})).await;
    let person = app.person();
    let left = person.post(link(&session), &[]).await;
    let state = left.parameter("state").unwrap();
    let integration = session["integration"].as_str().unwrap();
    let evil = "%3Cscript%3Ealert(1)%3C%2Fscript%3E%22%27%26";
    let page =
        person.get(&format!("/callback/{integration}?error={evil}&error_description={evil}&state={state}")).await;
    assert_refused(&page, 400, "alert(1)");
    assert!(!page.text().contains("<script>"), "{page:?}");
}

#[tokio::test]
async fn a_code_the_provider_refuses_is_explained_to_the_person() {
    let app = App::start().await;
    app.integration("crm", "authorization_code").await;
    let session = session(&app, json!({"integration": "crm"})).await;
    let person = app.person();
    app.fault("token=error:invalid_client,times=1");
    let page = to_the_question(&person, &session).await;
    assert_refused(&page, 502, "client secret");
    let shown = app.admin().get(&format!("/v1/connections/{}", session["connection"].as_str().unwrap())).await.ok(200);
    assert_eq!(shown["state"], "draft");
    assert_eq!(shown["failure"]["code"], "invalid_client", "the operator sees the same: {shown}");
    assert_eq!(shown["generation"], 0);
    // The link still holds once the set-up is right.
    let question = to_the_question(&person, &session).await;
    assert!(question.text().contains("Is this your account?"), "{question:?}");
}

#[tokio::test]
async fn a_consent_again_replaces_the_old_grant_only_with_the_yes() {
    let app = App::start().await;
    let person = app.consented("alice").await;
    let before = app.admin().get("/v1/connections/alice/token").await.ok(200);
    let begun = app.admin().post("/v1/connections/alice/authorize", json!({})).await.ok(200);
    let question = person.follow(begun["authorize_url"].as_str().unwrap()).await;
    let meanwhile = app.admin().get("/v1/connections/alice/token").await.ok(200);
    assert_eq!(meanwhile["access_token"], before["access_token"], "the old grant works while the new one waits");
    person.post(&question.url, &[("decision", "no")]).await;
    assert_eq!(app.state("alice").await, "connected", "a no keeps the old grant");
    app.admin().get("/v1/connections/alice/proxy/me").await.ok(200);
    let begun = app.admin().post("/v1/connections/alice/authorize", json!({})).await.ok(200);
    let question = person.follow(begun["authorize_url"].as_str().unwrap()).await;
    person.post(&question.url, &[("decision", "yes")]).await;
    let after = app.admin().get("/v1/connections/alice/token").await.ok(200);
    assert_ne!(after["access_token"], before["access_token"]);
    let revoked = app.sandbox.revoke(&Which::All);
    assert!(revoked > 0);
}

#[tokio::test]
async fn the_style_comes_from_this_server_and_may_be_kept_for_ever() {
    let app = App::start().await;
    let page = app.person().get("/connect/x").await;
    let text = page.text();
    let path = text.split("href=\"").find(|part| part.starts_with("/assets/")).unwrap().split('"').next().unwrap();
    let style = app.person().get(path).await;
    assert_eq!(style.status, 200);
    assert_eq!(style.reply.header("content-type"), Some("text/css; charset=utf-8"));
    assert!(style.reply.header("cache-control").unwrap().contains("immutable"));
}

/// On one machine the server has two names, and a cookie belongs to one.
#[tokio::test]
async fn a_link_under_another_name_of_this_machine_leads_to_the_public_one() {
    let app = App::start().await;
    app.integration("crm", "authorization_code").await;
    let session = session(&app, json!({"integration": "crm"})).await;
    let path = link(&session).strip_prefix(&app.url).unwrap();
    let port = app.url.rsplit(':').next().unwrap();
    let host = format!("localhost:{port}");
    let reply = app.anonymous().send(http::Method::GET, path, &[("host", &host)], crate::app::full("")).await;
    assert_eq!(reply.status, 307);
    assert_eq!(reply.header("location"), Some(link(&session)));
    // What is no token is not sent anywhere: it might not fit a header.
    let reply =
        app.anonymous().send(http::Method::GET, "/connect/%0d%0a", &[("host", &host)], crate::app::full("")).await;
    assert_eq!((reply.status, reply.header("location")), (410, None));
}

#[tokio::test]
async fn who_knows_no_link_is_answered_before_the_body_is_there() {
    let app = App::start().await;
    let silent = http_body_util::StreamBody::new(futures_util::stream::pending());
    let body = http_body_util::BodyExt::boxed_unsync(silent);
    let reply = app.anonymous().send(http::Method::POST, "/connect/x", &[], body).await;
    assert_eq!(reply.status, 410);
}
