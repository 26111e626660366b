//! What a provider says beside the tokens: in the callback, in a second exchange, and when it is asked with the new token.

use keyholder_broker::model::{Status, Values};
use keyholder_broker::{Begun, Completed, Error, Finished, NewConnectSession, NewIntegration, Result, View};
use keyholder_oauth::{CallbackError, Encoding, FailureKind, Hash, hmac_of};
use url::Url;

use crate::app::{App, PUBLIC_URL, query_value, token_of, values};
use crate::fake::{Asked, Fake};

const TOKENS: &str = r#"{"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3600}"#;
const SIGNED: &str = r#"signature = { parameter = "hmac", algorithm = "hmac_sha256", encoding = "hex", key = "{{client_secret}}", over = "sorted_query" }"#;
const SITES: &str = r#"
[[after_connect]]
name = "sites"
url = "BASE/sites"
choose = { value = "/id", label = "/name", save = "site" }
[api]
base_url = "BASE/site/{{lookup.site}}"
"#;

/// A draft under a definition of its own, whose provider answers what a test says.
struct Stage {
    app: App,
    fake: Fake,
    begun: Option<Begun>,
}

impl Stage {
    /// `BASE` in `more` stands for the provider's address.
    async fn with(more: &str) -> Self {
        Self::with_token_url("BASE/token", more).await
    }

    async fn with_token_url(token_url: &str, more: &str) -> Self {
        let (app, fake) = (App::start().await, Fake::start().await);
        let text = format!(
            "schema = 1\nid = \"acme\"\nname = \"Acme\"\n[[methods]]\ngrant = \"authorization_code\"\nlabel = \"A person consents\"\n\
             [authorize]\nurl = \"BASE/authorize\"\n[token]\nurl = \"{token_url}\"\nclient_auth = \"post\"\n\
             [refresh]\nrecovery = \"single_use\"\n[revoke]\nurl = \"BASE/revoke\"\n{more}"
        );
        app.broker.add_provider(&app.admin, "acme.toml", &text.replace("BASE", &fake.url(""))).await.unwrap();
        let new = NewIntegration {
            provider: "acme".to_owned(),
            name: "acme".to_owned(),
            variables: Values::new(),
            ..app.plain("authorization_code")
        };
        app.add_integration(new).await;
        app.add_connection("crm", "acme").await;
        Self { app, fake, begun: None }
    }

    /// The person has gone to the provider; answers the state.
    async fn leave(&mut self) -> String {
        let begun = self.app.leave(&self.app.invite("crm").await).await;
        let state = query_value(&begun.redirect, "state").unwrap();
        self.begun = Some(begun);
        state
    }

    fn browser(&self) -> Option<&str> {
        self.begun.as_ref().map(|begun| begun.browser.expose())
    }

    async fn integration(&self) -> String {
        self.app.row("crm").await.integration.to_string()
    }

    /// The browser comes back with this query while the provider answers.
    async fn back(&mut self, query: &str, answers: &[(&str, u16, &str)]) -> (Result<Finished>, Vec<Asked>) {
        let integration = self.integration().await;
        let browser = self.begun.as_ref().map(|begun| begun.browser.expose().to_owned());
        let finish = self.app.broker.finish_consent(&integration, query, browser.as_deref());
        tokio::join!(finish, self.fake.play(answers))
    }

    /// Goes there and back; what the provider says is `answers`.
    async fn consent(&mut self, answers: &[(&str, u16, &str)]) -> (Result<Finished>, Vec<Asked>) {
        let state = self.leave().await;
        self.back(&format!("code=c-1&state={state}"), answers).await
    }

    async fn confirm(&self, finished: Finished) {
        let Finished::Confirm(link) = finished else { panic!("no return URL was given") };
        let confirmed = self.app.broker.decide(token_of(&link), self.browser(), true).await.unwrap();
        assert!(matches!(confirmed, Completed::Connected(_)));
    }

    /// What a refused consent leaves.
    async fn reason(&self) -> String {
        let row = self.app.row("crm").await;
        assert_eq!(row.state.status(), Status::Draft);
        let failure = row.state.failure().unwrap();
        format!("{} {}", failure.message, failure.remedy)
    }
}

fn member(asked: &Asked, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(asked.body.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

#[tokio::test]
async fn a_callback_is_read_by_the_definitions_names() {
    let more = "[callback]\nrename = { code = \"oauth_code\", state = \"sent\" }\nstrip_code_suffix = \"#_\"\n";
    let mut stage = Stage::with(more).await;
    let state = stage.leave().await;
    let wrong = stage.back(&format!("code=c-1&state={state}"), &[]).await.0.err().unwrap();
    assert!(matches!(wrong, Error::Callback(CallbackError::MissingState)), "{wrong}");
    let query = format!("oauth_code=c-1%23_&sent={state}");
    let (finished, asked) = stage.back(&query, &[("/token", 200, TOKENS)]).await;
    assert_eq!(member(&asked[0], "code").as_deref(), Some("c-1"));
    stage.confirm(finished.unwrap()).await;
    assert_eq!(stage.app.status("crm").await, Status::Connected);
}

#[tokio::test]
async fn a_signed_callback_must_be_signed_with_the_clients_secret() {
    let sign = |key: &str, text: &str| Encoding::Hex.encode(&hmac_of(Hash::Sha256, key.as_bytes(), text.as_bytes()));
    let mut stage = Stage::with(&format!("[callback]\n{SIGNED}\n")).await;
    for key in [None, Some("another-secret")] {
        let state = stage.leave().await;
        let signed = key.map(|key| sign(key, &format!("code=c-1&shop=a&state={state}")));
        let query =
            format!("code=c-1&state={state}&shop=a{}", signed.map_or(String::new(), |it| format!("&hmac={it}")));
        let refused = stage.back(&query, &[]).await.0.err().unwrap();
        assert!(matches!(refused, Error::Callback(CallbackError::Signature)), "{refused}");
        assert!(stage.reason().await.contains("check the client secret"));
        let again = stage.back(&query, &[]).await.0.err().unwrap();
        assert!(matches!(again, Error::Gone(_)), "the state is spent: {again}");
    }
    assert!(stage.fake.is_quiet(), "no code was sent");
    let state = stage.leave().await;
    let right = sign("sandbox-secret", &format!("code=c-1&shop=a&state={state}"));
    let query = format!("code=c-1&hmac={right}&state={state}&shop=a");
    let (finished, _) = stage.back(&query, &[("/token", 200, TOKENS)]).await;
    stage.confirm(finished.unwrap()).await;
}

#[tokio::test]
async fn what_the_callback_brings_steers_the_token_endpoint_within_its_pattern() {
    let more = "[callback]\ncapture = { server = { parameter = \"accounts-server\", kind = \"url\", \
         pattern = 'http://127\\.0\\.0\\.1:[0-9]+', default = \"http://127.0.0.1:1\", required = true }, realm = \"realmId\" }\n\
         [api]\nbase_url = \"BASE/api/{{callback.realm}}\"\n";
    let mut stage = Stage::with_token_url("{{callback.server}}/eu/token", more).await;
    for (server, why) in [
        (Some("https%3A%2F%2Fevil.example"), "does not match"),
        (Some("http%3A%2F%2F127.0.0.1%3A80%40evil.example"), "plain http"),
        (None, "does not have it"),
    ] {
        let state = stage.leave().await;
        let server = server.map_or(String::new(), |server| format!("&accounts-server={server}"));
        let refused = stage.back(&format!("code=c-1&state={state}{server}"), &[]).await.0.err().unwrap();
        assert!(matches!(&refused, Error::Exchange(failure) if failure.kind == FailureKind::Setup), "{refused}");
        let reason = stage.reason().await;
        assert!(reason.contains("callback.server") && !reason.contains("evil"), "{reason}");
        assert!(reason.contains(why), "{reason}");
    }
    assert!(stage.fake.is_quiet(), "no code was sent");
    let state = stage.leave().await;
    let query = format!("code=c-1&state={state}&accounts-server={}&realmId=r-7", stage.fake.url(""));
    let (finished, _) = stage.back(&query, &[("/eu/token", 200, TOKENS)]).await;
    stage.confirm(finished.unwrap()).await;
    let server = stage.fake.url("");
    let kept = values([("callback.realm", "r-7"), ("callback.server", &server)]);
    assert_eq!(stage.app.row("crm").await.variables, kept);
    // Renewal and API go where the callback said.
    let renewed = stage.app.broker.refresh(&stage.app.admin, "crm");
    let (renewed, _) = tokio::join!(renewed, stage.fake.play(&[("/eu/token", 200, TOKENS)]));
    renewed.unwrap();
    let called = stage.app.broker.proxy(&stage.app.admin, "crm", crate::gateway::get("/x"));
    let (called, _) = tokio::join!(called, stage.fake.play(&[("/api/r-7/x", 200, "{}")]));
    assert_eq!(called.unwrap().status(), 200);
    // Another consent forgets it.
    let state = stage.leave().await;
    let refused = stage.back(&format!("code=c-2&state={state}"), &[]).await.0.err().unwrap();
    assert!(refused.to_string().contains("callback.server"), "{refused}");
}

#[tokio::test]
async fn a_posted_answer_waits_for_the_browser_to_come_back_with_its_cookie() {
    let mut stage = Stage::with("[callback]\nresponse_mode = \"form_post\"\n").await;
    let state = stage.leave().await;
    assert_eq!(query_value(&stage.begun.as_ref().unwrap().redirect, "response_mode").as_deref(), Some("form_post"));
    let integration = stage.integration().await;
    let broker = stage.app.broker.clone();
    let post = |body: String| {
        let (broker, integration) = (broker.clone(), integration.clone());
        async move { broker.receive_posted(&integration, &body).await }
    };
    assert!(matches!(post("code=c-1&state=made-up".to_owned()).await, Err(Error::Gone(_))));
    let next: Url = post(format!("code=planted-code&state={state}")).await.unwrap();
    let address = format!("{PUBLIC_URL}callback/{integration}?state={state}&keyholder_ticket=");
    assert!(next.as_str().strip_prefix(&address).is_some_and(|ticket| ticket.len() == 43), "{next}");
    assert!(matches!(post(format!("code=c-2&state={state}")).await, Err(Error::Gone(_))), "the first one counts");
    let (finished, asked) = stage.back(next.query().unwrap(), &[("/token", 200, TOKENS)]).await;
    assert_eq!(member(&asked[0], "code").as_deref(), Some("planted-code"));
    stage.confirm(finished.unwrap()).await;
    assert!(matches!(post(format!("code=c-1&state={state}")).await, Err(Error::Gone(_))));

    // Whoever follows the address elsewhere gets nothing, and the answer is gone.
    let state = stage.leave().await;
    let posted = post(format!("code=c-1&state={state}")).await.unwrap();
    let elsewhere = stage.app.broker.finish_consent(&integration, posted.query().unwrap(), None).await;
    assert!(matches!(elsewhere.err(), Some(Error::WrongBrowser)));
    assert!(matches!(stage.back(posted.query().unwrap(), &[]).await.0.err(), Some(Error::Gone(_))));
    // Whoever began has the cookie, but not the ticket, which went to the browser that posted: the code was somebody else's.
    for ticket in ["", "&keyholder_ticket=made-up"] {
        let state = stage.leave().await;
        post(format!("code=c-1&state={state}")).await.unwrap();
        let (raced, asked) = stage.back(&format!("state={state}{ticket}"), &[]).await;
        assert!(matches!(raced.err(), Some(Error::WrongBrowser)) && asked.is_empty());
    }
    // A refusal comes the same way.
    let state = stage.leave().await;
    let posted = post(format!("error=access_denied&state={state}")).await.unwrap();
    let refused = stage.back(posted.query().unwrap(), &[]).await.0.err().unwrap();
    assert!(matches!(refused, Error::Callback(CallbackError::Refused { .. })), "{refused}");

    let mut by_query = Stage::with("").await;
    let state = by_query.leave().await;
    let integration = by_query.integration().await;
    let refused = by_query.app.broker.receive_posted(&integration, &format!("code=c-1&state={state}")).await;
    assert!(matches!(refused.err(), Some(Error::NotPossible(_))));
}

#[tokio::test]
async fn a_short_lived_token_is_exchanged_for_a_long_lived_one() {
    let follow_up = |when: &str| {
        format!(
            "[follow_up]\nurl = \"BASE/long\"\nwhen = \"{when}\"\nparams = {{ grant_type = \"exchange\", token = \"{{{{access_token}}}}\" }}\n"
        )
    };
    let short = r#"{"access_token": "at-short", "expires_in": 60}"#;
    let long = r#"{"access_token": "at-long", "expires_in": 5184000}"#;
    for when in ["always", "missing_refresh"] {
        let mut stage = Stage::with(&follow_up(when)).await;
        let (finished, asked) = stage.consent(&[("/token", 200, short), ("/long", 200, long)]).await;
        assert_eq!(member(&asked[1], "token").as_deref(), Some("at-short"));
        assert_eq!((member(&asked[1], "grant_type").as_deref(), member(&asked[1], "code")), (Some("exchange"), None));
        stage.confirm(finished.unwrap()).await;
        assert_eq!(stage.app.secret("crm").await, "at-long", "{when}");
    }
    let mut stage = Stage::with(&follow_up("missing_refresh")).await;
    let (finished, _) = stage.consent(&[("/token", 200, TOKENS)]).await;
    stage.confirm(finished.unwrap()).await;
    assert_eq!(stage.app.secret("crm").await, "at-1", "it came with a refresh token");

    let mut stage = Stage::with(&follow_up("always")).await;
    let no = r#"{"error": "invalid_grant", "error_description": "at-short is no good"}"#;
    let (refused, asked) = stage.consent(&[("/token", 200, short), ("/long", 400, no), ("/revoke", 200, "")]).await;
    assert!(matches!(refused.err(), Some(Error::Exchange(_))));
    assert_eq!(member(&asked[2], "token").as_deref(), Some("at-short"), "what was granted is given back");
    assert!(stage.reason().await.contains("invalid_grant"));
}

#[tokio::test]
async fn lookups_build_on_each_other_and_steer_the_api() {
    let more = "[[after_connect]]\nname = \"me\"\nurl = \"BASE/me\"\nextract = { org = \"/org/id\" }\n\
         [[after_connect]]\nname = \"shard\"\nurl = \"BASE/orgs/{{lookup.org}}\"\nlist = \"/shards\"\n\
         where = { pointer = \"/main\", equals = true }\nextract = { shard = \"/name\" }\n\
         [[after_connect]]\nname = \"plan\"\nurl = \"BASE/plan\"\nextract = { plan = \"/plan\" }\nrequired = false\n\
         [userinfo]\nurl = \"BASE/who\"\naccount = \"/data/login\"\nname = \"/data/full\"\n\
         [api]\nbase_url = \"BASE/{{lookup.shard}}\"\nheaders = { x-org = \"{{lookup.org}}\", x-plan = \"{{lookup.plan}}\" }\n";
    let mut stage = Stage::with(more).await;
    let (finished, asked) = stage
        .consent(&[
            ("/token", 200, TOKENS),
            ("/me", 200, r#"{"org": {"id": 42}}"#),
            ("/orgs/42", 200, r#"{"shards": [{"name": "old"}, {"name": "s3", "main": true}]}"#),
            ("/plan", 403, "<html>no</html>"),
            ("/who", 200, r#"{"data": {"login": "ada", "full": "Ada Lovelace"}}"#),
        ])
        .await;
    assert!(asked.iter().all(|request| request.query.is_empty()));
    assert!(asked[1..].iter().all(|request| request.headers["authorization"] == "Bearer at-1"));
    assert_eq!(asked[2].headers["x-org"], "42", "what was learnt before goes into the API's headers");
    stage.confirm(finished.unwrap()).await;
    let row = stage.app.row("crm").await;
    assert_eq!(row.variables, values([("lookup.org", "42"), ("lookup.shard", "s3")]));
    assert_eq!(row.account.as_deref(), Some("Ada Lovelace (ada)"));
    let called = stage.app.broker.proxy(&stage.app.admin, "crm", crate::gateway::get("/x"));
    let (called, asked) = tokio::join!(called, stage.fake.play(&[("/s3/x", 200, "{}")]));
    assert_eq!((called.unwrap().status().as_u16(), asked[0].headers["x-org"].to_str().unwrap()), (200, "42"));
}

#[tokio::test]
async fn without_what_a_required_lookup_learns_there_is_no_connection() {
    let huge = format!("[{}0]", "0,".repeat(600_000));
    let bad = [
        (200, "[]", FailureKind::Setup, "no usable `site`"),
        (200, "{\"error\": \"no\"}", FailureKind::Setup, "no usable `site`"),
        (200, "<html>Sign in</html>", FailureKind::Setup, "not JSON"),
        (200, "[{\"id\": \"a\\u0000b\"}]", FailureKind::Setup, "no usable `site`"),
        (200, huge.as_str(), FailureKind::Setup, "larger than"),
        (403, "{}", FailureKind::Setup, "scopes"),
        (503, "{}", FailureKind::Transient, "503"),
    ];
    let mut stage = Stage::with(SITES).await;
    for (status, body, kind, words) in bad {
        let answers = [("/token", 200, TOKENS), ("/sites", status, body), ("/revoke", 200, "")];
        let (refused, asked) = stage.consent(&answers).await;
        let refused = refused.err().unwrap();
        assert!(matches!(&refused, Error::Exchange(failure) if failure.kind == kind), "{words}: {refused}");
        assert_eq!(member(&asked[2], "token").as_deref(), Some("rt-1"), "{words}: what was granted is given back");
        let reason = stage.reason().await;
        assert!(reason.contains(words), "{words}: {reason}");
    }
    let (finished, _) = stage.consent(&[("/token", 200, TOKENS), ("/sites", 200, r#"[{"id": "s-1"}]"#)]).await;
    stage.confirm(finished.unwrap()).await;
    assert_eq!(stage.app.row("crm").await.variables, values([("lookup.site", "s-1")]), "a single one is taken");
}

const TWO: &str = r#"[{"id": "s-1", "name": "Wonderland"}, {"id": "s-2", "name": "<script>"}]"#;

#[tokio::test]
async fn a_person_chooses_among_several_in_the_browser_that_began() {
    let mut stage = Stage::with(SITES).await;
    let (finished, _) = stage.consent(&[("/token", 200, TOKENS), ("/sites", 200, TWO)]).await;
    let Ok(Finished::Confirm(link)) = finished else { panic!("a choice is open") };
    let code = token_of(&link).to_owned();
    let broker = stage.app.broker.clone();
    let browser = stage.browser().map(str::to_owned);
    let browser = browser.as_deref();
    assert!(matches!(broker.open_link(&code, None).await.err(), Some(Error::WrongBrowser)));
    let View::Choice { provider, lookup, options } = broker.open_link(&code, browser).await.unwrap() else {
        panic!("a choice is open")
    };
    assert_eq!((provider.as_str(), lookup.as_str()), ("Acme", "sites"));
    let pair = |value: &str, label: &str| (value.to_owned(), label.to_owned());
    assert_eq!(options, [pair("s-1", "Wonderland"), pair("s-2", "<script>")]);
    assert!(matches!(broker.decide(&code, browser, true).await.err(), Some(Error::Gone(_))), "not before the choice");
    assert!(matches!(broker.choose(&code, Some("x"), "s-1").await.err(), Some(Error::WrongBrowser)));
    assert!(matches!(broker.choose(&code, browser, "s-3").await.err(), Some(Error::Invalid(_))));
    // The provider is down for a moment: nothing is lost.
    let failing = broker.choose(&code, browser, "s-2");
    let (failed, _) = tokio::join!(failing, stage.fake.play(&[("/sites", 500, "")]));
    assert!(matches!(failed.err(), Some(Error::Exchange(_))));
    let choosing = broker.choose(&code, browser, "s-2");
    let (chosen, _) = tokio::join!(choosing, stage.fake.play(&[("/sites", 200, TWO)]));
    let chosen = chosen.unwrap();
    assert!(matches!(broker.choose(&code, browser, "s-1").await.err(), Some(Error::Gone(_))));
    stage.confirm(chosen).await;
    assert_eq!(stage.app.row("crm").await.variables, values([("lookup.site", "s-2")]));

    // Authorised again, the same is taken without asking; no longer offered, it is asked for.
    let (finished, _) = stage.consent(&[("/token", 200, TOKENS), ("/sites", 200, TWO)]).await;
    stage.confirm(finished.unwrap()).await;
    let others = r#"[{"id": "s-1", "name": "Wonderland"}, {"id": "s-4"}]"#;
    let (finished, _) = stage.consent(&[("/token", 200, TOKENS), ("/sites", 200, others)]).await;
    let Ok(Finished::Confirm(link)) = finished else { panic!("a choice is open") };
    let view = stage.app.broker.open_link(token_of(&link), stage.browser()).await.unwrap();
    assert!(matches!(view, View::Choice { .. }));
    assert_eq!(stage.app.row("crm").await.variables, values([("lookup.site", "s-2")]), "until it is confirmed");
}

#[tokio::test]
async fn the_application_completes_after_the_choice() {
    let mut stage = Stage::with(SITES).await;
    let session = NewConnectSession {
        integration: "acme".to_owned(),
        connection: Some("crm".to_owned()),
        owner: Some("user-7".to_owned()),
        return_url: Some("https://app.example/done".to_owned()),
        ..NewConnectSession::default()
    };
    let link = stage.app.broker.create_session(&stage.app.admin, session).await.unwrap();
    let begun = stage.app.leave(token_of(&link.url)).await;
    let state = query_value(&begun.redirect, "state").unwrap();
    stage.begun = Some(begun);
    let answers = [("/token", 200, TOKENS), ("/sites", 200, TWO)];
    let (finished, _) = stage.back(&format!("code=c-1&state={state}"), &answers).await;
    let Ok(Finished::Confirm(link)) = finished else { panic!("a choice is open") };
    let old = token_of(&link).to_owned();
    let (broker, admin) = (stage.app.broker.clone(), stage.app.admin.clone());
    let early = broker.complete(&admin, "crm", &old, Some("user-7")).await;
    assert!(matches!(early.err(), Some(Error::Gone(_))));
    let choosing = broker.choose(&old, stage.begun.as_ref().map(|begun| begun.browser.expose()), "s-1");
    let (chosen, _) = tokio::join!(choosing, stage.fake.play(&[("/sites", 200, TWO)]));
    let Ok(Finished::Return(url)) = chosen else { panic!("the application waits") };
    let code = query_value(&url, "code").unwrap();
    assert_ne!(code, old, "the code that was in an address of ours is worth nothing");
    assert!(matches!(broker.complete(&admin, "crm", &old, Some("user-7")).await.err(), Some(Error::Gone(_))));
    broker.complete(&admin, "crm", &code, Some("user-7")).await.unwrap();
    assert_eq!(stage.app.row("crm").await.variables, values([("lookup.site", "s-1")]));
}
