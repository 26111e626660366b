//! Consent without a browser that comes back: a code that is typed on another device (RFC 8628), and a refresh token that somebody brings.

use std::time::Duration;

use keyholder_broker::model::{Status, Values};
use keyholder_broker::{
    Authorize, Completed, DeviceCode, Error, Finished, NewConnectSession, NewIntegration, Result, View,
};
use keyholder_oauth::{FailureKind, Secret};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::app::{App, query_value, token_of, values};
use crate::fake::{Arrived, Asked, Fake};

const CODES: &str = r#"{"device_code": "planted-device-code", "user_code": "WDJB-MJHT", "verification_uri": "https://acme.example/device",
    "verification_uri_complete": "https://acme.example/device?code=WDJB-MJHT", "expires_in": 600, "interval": 5}"#;
const PENDING: (&str, u16, &str) = ("/token", 400, r#"{"error": "authorization_pending"}"#);
const TOKENS: &str = r#"{"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3600}"#;

/// A connection whose provider answers what a test says, and a scheduler that asks it.
struct Stage {
    app: App,
    fake: Fake,
    scheduler: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Stage {
    async fn with(grant: &str, more: &str) -> Self {
        let (app, fake) = (App::start().await, Fake::start().await);
        let device = if grant == "device_code" { "[device]\nurl = \"BASE/device\"\n" } else { "" };
        let text = format!(
            "schema = 1\nid = \"acme\"\nname = \"Acme\"\n[[methods]]\ngrant = \"{grant}\"\nlabel = \"One\"\n{device}\
             [token]\nurl = \"BASE/token\"\nclient_auth = \"post\"\n[refresh]\nrecovery = \"single_use\"\n[revoke]\nurl = \"BASE/revoke\"\n{more}"
        );
        app.broker.add_provider(&app.admin, "acme.toml", &text.replace("BASE", &fake.url(""))).await.unwrap();
        let new = NewIntegration {
            provider: "acme".to_owned(),
            name: "acme".to_owned(),
            method: Some(grant.to_owned()),
            variables: Values::new(),
            ..app.plain("client_credentials")
        };
        app.add_integration(new).await;
        app.add_connection("crm", "acme").await;
        let mut stage = Self { app, fake, scheduler: None };
        stage.start_scheduler();
        stage
    }

    fn start_scheduler(&mut self) {
        let (stop, stopped) = oneshot::channel::<()>();
        let broker = self.app.broker.clone();
        let running = tokio::spawn(async move { broker.run_scheduler(async { drop(stopped.await) }).await });
        self.scheduler = Some((stop, running));
    }

    async fn stop_scheduler(&mut self) {
        let (stop, running) = self.scheduler.take().unwrap();
        drop(stop);
        running.await.unwrap();
    }

    async fn authorize(&mut self) -> Result<Authorize> {
        let authorizing = self.app.broker.authorize(&self.app.admin, "crm", None, None);
        let (begun, _) = tokio::join!(authorizing, self.fake.play(&[("/device", 200, CODES)]));
        begun
    }

    /// The code that a caller of the API is told.
    async fn begin(&mut self) -> DeviceCode {
        match self.authorize().await.unwrap() {
            Authorize::Device(code) => code,
            _ => panic!("a code is told"),
        }
    }

    /// So long later, the provider is asked once, and answers this.
    async fn asked_after(&mut self, seconds: u64, (path, status, body): (&str, u16, &str)) -> Asked {
        let request = self.question_after(seconds).await;
        assert_eq!(request.path, path);
        let asked = Asked {
            query: request.query.clone().unwrap_or_default(),
            headers: request.headers.clone(),
            body: String::from_utf8(request.body.to_vec()).unwrap(),
        };
        let response = axum::response::Response::builder().status(status).body(body.to_owned().into());
        request.respond(response.unwrap());
        asked
    }

    /// What the provider is asked so long later.
    async fn question_after(&mut self, seconds: u64) -> Arrived {
        self.app.advance(seconds);
        while self.fake.is_quiet() {
            self.a_moment().await;
        }
        self.fake.next().await
    }

    /// The scheduler rests a little after each look, by the clock that stands still.
    async fn a_moment(&self) {
        self.app.broker.doctor(&self.app.admin).await.unwrap();
        self.app.clock.advance(Duration::from_millis(100));
    }

    /// Waits for what happens in the background.
    async fn until(&self, status: Status) {
        while self.app.status("crm").await != status {
            self.a_moment().await;
        }
    }

    async fn until_asked_again_in(&self, milliseconds: i64) {
        let wanted = self.app.now() + milliseconds;
        while self.app.count("SELECT coalesce(max(ask_at), 0) FROM device_grants") != wanted {
            tokio::task::yield_now().await;
        }
    }

    async fn reason(&self) -> String {
        let row = self.app.row("crm").await;
        let failure = row.state.failure().unwrap();
        format!("{} {}", failure.message, failure.remedy)
    }
}

fn member(asked: &Asked, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(asked.body.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

#[tokio::test]
async fn a_code_is_told_and_the_provider_asked_until_the_person_has_typed_it() {
    let mut stage = Stage::with("device_code", "").await;
    let told = stage.begin().await;
    assert_eq!((told.user_code.as_str(), told.interval.as_secs()), ("WDJB-MJHT", 5));
    assert_eq!(told.verification_uri, "https://acme.example/device");
    assert_eq!(told.expires_at, stage.app.now() + 600_000);
    assert_eq!(stage.app.status("crm").await, Status::Pending);
    assert!(matches!(stage.app.token("crm").await, Err(Error::NotReady { state: Status::Pending, .. })));

    let asked = stage.asked_after(5, PENDING).await;
    assert_eq!(member(&asked, "grant_type").as_deref(), Some("urn:ietf:params:oauth:grant-type:device_code"));
    assert_eq!(member(&asked, "device_code").as_deref(), Some("planted-device-code"));
    stage.until_asked_again_in(5_000).await;
    stage.asked_after(5, ("/token", 400, r#"{"error": "slow_down"}"#)).await;
    stage.until_asked_again_in(10_000).await;
    stage.asked_after(10, ("/token", 503, "")).await;
    stage.until_asked_again_in(30_000).await;
    stage.asked_after(30, PENDING).await;
    stage.until_asked_again_in(10_000).await;
    stage.asked_after(10, ("/token", 200, TOKENS)).await;
    stage.until(Status::Connected).await;
    assert_eq!(stage.app.secret("crm").await, "at-1");
    assert_eq!(stage.app.kinds("crm").await, ["connected", "created"]);
    assert_eq!(stage.app.count("SELECT count(*) FROM device_grants"), 0);
    // It is renewed like any other.
    let renewing = stage.app.broker.refresh(&stage.app.admin, "crm");
    let (renewed, asked) = tokio::join!(renewing, stage.fake.play(&[("/token", 200, TOKENS)]));
    renewed.unwrap();
    assert_eq!(member(&asked[0], "refresh_token").as_deref(), Some("rt-1"));
}

#[tokio::test]
async fn a_no_or_a_late_code_leaves_a_draft_with_the_reason() {
    for (answer, words) in [
        (r#"{"error": "access_denied"}"#, "declined"),
        (r#"{"error": "expired_token"}"#, "in time"),
        (r#"{"error": "invalid_client"}"#, "client secret"),
    ] {
        let mut stage = Stage::with("device_code", "").await;
        stage.begin().await;
        stage.asked_after(5, ("/token", 400, answer)).await;
        stage.until(Status::Draft).await;
        let reason = stage.reason().await;
        assert!(reason.contains(words), "{reason}");
        assert_eq!(stage.app.kinds("crm").await, ["created", "refused"]);
    }
    // The provider never says that it is over.
    let mut stage = Stage::with("device_code", "").await;
    stage.begin().await;
    stage.app.advance(601);
    stage.until(Status::Draft).await;
    assert!(stage.reason().await.contains("in time"));
    assert!(stage.fake.is_quiet(), "a code that has ended isn't asked for");
    // Not even a code is had.
    let authorizing = stage.app.broker.authorize(&stage.app.admin, "crm", None, None);
    const NO: &str = r#"{"error": "unauthorized_client"}"#;
    let (refused, _) = tokio::join!(authorizing, stage.fake.play(&[("/device", 400, NO)]));
    assert!(matches!(refused.err(), Some(Error::Exchange(failure)) if failure.kind == FailureKind::Setup));
    assert_eq!(stage.app.status("crm").await, Status::Draft);
}

#[tokio::test]
async fn the_question_goes_on_after_a_restart_and_one_process_asks() {
    let mut stage = Stage::with("device_code", "").await;
    stage.begin().await;
    stage.asked_after(5, PENDING).await;
    stage.until_asked_again_in(5_000).await;
    stage.stop_scheduler().await;
    let mut sibling = Stage { app: stage.app.sibling().await, fake: Fake::start().await, scheduler: None };
    stage.start_scheduler();
    sibling.start_scheduler();
    let request = stage.question_after(5).await;
    // Both have looked; the other one found that somebody asks.
    for broker in [&stage.app.broker, &sibling.app.broker] {
        broker.ready().await.unwrap();
    }
    request.json(200, serde_json::from_str(TOKENS).unwrap());
    stage.until(Status::Connected).await;
    assert!(stage.fake.is_quiet());
}

#[tokio::test]
async fn an_authorization_can_be_given_up() {
    let mut stage = Stage::with("device_code", "").await;
    stage.begin().await;
    stage.app.broker.cancel_authorization(&stage.app.admin, "crm").await.unwrap();
    assert_eq!(stage.app.status("crm").await, Status::Draft);
    assert_eq!(stage.app.count("SELECT count(*) FROM device_grants"), 0);
    // While the provider is being asked: what it grants is given back.
    stage.begin().await;
    let request = stage.question_after(5).await;
    stage.app.broker.cancel_authorization(&stage.app.admin, "crm").await.unwrap();
    request.json(200, serde_json::from_str(TOKENS).unwrap());
    let revoked = stage.fake.play(&[("/revoke", 200, "")]).await;
    assert_eq!(member(&revoked[0], "token").as_deref(), Some("rt-1"));
    assert_eq!(stage.app.status("crm").await, Status::Draft);
    // One that works is not ended by it, nor by a revocation's leftovers.
    stage.begin().await;
    stage.asked_after(5, ("/token", 200, TOKENS)).await;
    stage.until(Status::Connected).await;
    stage.begin().await;
    stage.app.broker.cancel_authorization(&stage.app.admin, "crm").await.unwrap();
    assert_eq!(stage.app.secret("crm").await, "at-1");
    stage.begin().await;
    let revoking = stage.app.broker.revoke(&stage.app.admin, "crm");
    let (revoked, _) = tokio::join!(revoking, stage.fake.play(&[("/revoke", 200, "")]));
    revoked.unwrap();
    assert_eq!(stage.app.count("SELECT count(*) FROM device_grants"), 0);
}

#[tokio::test]
async fn without_a_person_at_a_page_a_choice_must_be_made_beforehand() {
    let more = "[[after_connect]]\nname = \"sites\"\nurl = \"BASE/sites\"\nchoose = { value = \"/id\", label = \"/name\", save = \"site\" }\n\
         [api]\nbase_url = \"BASE/{{lookup.site}}\"\n";
    let mut stage = Stage::with("device_code", more).await;
    stage.begin().await;
    stage.asked_after(5, ("/token", 200, TOKENS)).await;
    stage.fake.play(&[("/sites", 200, r#"[{"id": "s-1", "name": "Wonderland"}, {"id": "s-2"}]"#)]).await;
    stage.fake.play(&[("/revoke", 200, "")]).await;
    stage.until(Status::Draft).await;
    let reason = stage.reason().await;
    for words in ["s-1 (Wonderland)", "s-2", "choices", "\"site\""] {
        assert!(reason.contains(words), "{words}: {reason}");
    }
}

#[tokio::test]
async fn a_page_shows_the_code_and_goes_on_in_the_browser_that_asked() {
    for return_url in [None, Some("https://app.example/done".to_owned())] {
        let mut stage = Stage::with("device_code", "").await;
        let session = NewConnectSession {
            integration: "acme".to_owned(),
            connection: Some("crm".to_owned()),
            owner: Some("user-7".to_owned()),
            return_url: return_url.clone(),
            ..NewConnectSession::default()
        };
        let link = stage.app.broker.create_session(&stage.app.admin, session).await.unwrap();
        let token = token_of(&link.url).to_owned();
        let broker = stage.app.broker.clone();
        let View::Invitation(page) = broker.open_link(&token, None).await.unwrap() else { panic!("nothing began yet") };
        assert!(page.stays_here && !page.direct);
        let nothing = Values::new();
        let beginning = broker.begin_consent(&token, None, &nothing);
        let (begun, _) = tokio::join!(beginning, stage.fake.play(&[("/device", 200, CODES)]));
        let begun = begun.unwrap();
        assert_eq!(begun.redirect.as_str(), link.url);
        let browser = Some(begun.browser.expose());
        let View::Device { code, .. } = broker.open_link(&token, browser).await.unwrap() else { panic!("a code") };
        assert_eq!(code.user_code, "WDJB-MJHT");
        let elsewhere = broker.open_link(&token, None).await.unwrap();
        assert!(matches!(elsewhere, View::Invitation(_)), "another browser sees no code");

        stage.asked_after(5, ("/token", 200, TOKENS)).await;
        while stage.app.count("SELECT count(*) FROM pending_grants") == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(stage.app.status("crm").await, Status::Pending, "not before it is confirmed");
        assert!(matches!(broker.open_link(&token, None).await.err(), Some(Error::WrongBrowser)));
        let View::Onward(finished) = broker.open_link(&token, browser).await.unwrap() else { panic!("it goes on") };
        match finished {
            Finished::Confirm(link) => {
                let confirmed = broker.decide(token_of(&link), browser, true).await.unwrap();
                assert!(return_url.is_none() && matches!(confirmed, Completed::Connected(_)));
            }
            Finished::Return(url) => {
                let code = query_value(&url, "code").unwrap();
                broker.complete(&stage.app.admin, "crm", &code, Some("user-7")).await.unwrap();
            }
        }
        assert_eq!(stage.app.secret("crm").await, "at-1");
        assert!(matches!(broker.open_link(&token, browser).await.err(), Some(Error::Gone(_))));
    }
}

#[tokio::test]
async fn a_refresh_token_that_is_brought_is_renewed_at_once() {
    let mut stage = Stage::with("refresh_token", "").await;
    let (broker, admin) = (stage.app.broker.clone(), stage.app.admin.clone());
    let missing = broker.authorize(&admin, "crm", None, None).await.err().unwrap();
    assert!(missing.to_string().contains("refresh_token"), "{missing}");
    for bad in ["", "a b", "a\nb"] {
        let refused = broker.bring_refresh_token(&admin, "crm", &Secret::new(bad)).await.err().unwrap();
        assert!(matches!(refused, Error::Invalid(_)), "{refused}");
    }
    assert!(stage.fake.is_quiet());
    let brought = Secret::new("planted-brought");
    let bringing = broker.bring_refresh_token(&admin, "crm", &brought);
    const NO: &str = r#"{"error": "invalid_grant", "error_description": "planted-brought is spent"}"#;
    let (refused, _) = tokio::join!(bringing, stage.fake.play(&[("/token", 400, NO)]));
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("invalid_grant") && !refused.contains("planted-brought"), "{refused}");
    assert_eq!(stage.app.status("crm").await, Status::Draft);

    let bringing = broker.bring_refresh_token(&admin, "crm", &brought);
    const KEPT: &str = r#"{"access_token": "at-1", "expires_in": 3600}"#;
    let (done, asked) = tokio::join!(bringing, stage.fake.play(&[("/token", 200, KEPT)]));
    done.unwrap();
    assert_eq!(member(&asked[0], "grant_type").as_deref(), Some("refresh_token"));
    assert_eq!(member(&asked[0], "refresh_token").as_deref(), Some("planted-brought"));
    assert_eq!(stage.app.status("crm").await, Status::Connected);
    let renewing = broker.refresh(&admin, "crm");
    let (renewed, asked) = tokio::join!(renewing, stage.fake.play(&[("/token", 200, TOKENS)]));
    renewed.unwrap();
    assert_eq!(member(&asked[0], "refresh_token").as_deref(), Some("planted-brought"), "the reply named no other");
    let revoking = broker.revoke(&admin, "crm");
    let (revoked, _) = tokio::join!(revoking, stage.fake.play(&[("/revoke", 200, "")]));
    revoked.unwrap();
    // A connection that was ended is authorised anew.
    let bringing = broker.bring_refresh_token(&admin, "crm", &brought);
    let (done, _) = tokio::join!(bringing, stage.fake.play(&[("/token", 200, TOKENS)]));
    done.unwrap();
    assert_eq!(stage.app.status("crm").await, Status::Connected);
}

#[tokio::test]
async fn a_person_brings_a_refresh_token_on_a_page() {
    let mut stage = Stage::with("refresh_token", "").await;
    let session =
        NewConnectSession { integration: "acme".to_owned(), connection: Some("crm".to_owned()), ..Default::default() };
    let link = stage.app.broker.create_session(&stage.app.admin, session).await.unwrap();
    let token = token_of(&link.url).to_owned();
    let broker = stage.app.broker.clone();
    let View::Invitation(page) = broker.open_link(&token, None).await.unwrap() else { panic!("nothing began yet") };
    let asked: Vec<_> = page.questions.iter().map(|q| (q.name.as_str(), q.required, q.secret)).collect();
    assert_eq!(asked, [("refresh_token", true, true)]);
    for typed in [Values::new(), values([("refresh_token", "a b")])] {
        assert!(matches!(broker.begin_consent(&token, None, &typed).await.err(), Some(Error::Invalid(_))));
    }
    let typed = values([("refresh_token", " planted-brought ")]);
    let bringing = broker.begin_consent(&token, None, &typed);
    let (begun, asked) = tokio::join!(bringing, stage.fake.play(&[("/token", 200, TOKENS)]));
    let begun = begun.unwrap();
    assert_eq!(member(&asked[0], "refresh_token").as_deref(), Some("planted-brought"));
    assert_ne!(stage.app.status("crm").await, Status::Connected, "not before it is confirmed");
    let link = begun.redirect.to_string();
    let confirmed = broker.decide(token_of(&link), Some(begun.browser.expose()), true).await.unwrap();
    assert!(matches!(confirmed, Completed::Connected(_)));
    assert_eq!(stage.app.secret("crm").await, "at-1");
}
