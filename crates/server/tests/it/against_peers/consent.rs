//! The way back from the provider, with a person whose browser can be steered: what a page's visitor never sees.

use super::*;

/// A person on the way back: the consent is given, the browser is about to go to Keyholder's callback.
async fn almost_back(app: &App, name: &str) -> (Person, Url) {
    let person = app.person();
    let link = authorize(app, name).await.ok(200)["authorize_url"].clone();
    let page = follow_to(&person, person.get(link.as_str().unwrap()).await, "/callback/").await;
    let callback = next(&page).unwrap_or_else(|| panic!("{} {}", page.url, page.text()));
    (person, callback)
}

fn with_parameter(url: &Url, name: &str, value: &str) -> String {
    let mut changed = url.clone();
    let pairs: Vec<(String, String)> =
        url.query_pairs().filter(|(key, _)| key != name).map(|(key, value)| (key.into(), value.into())).collect();
    changed.query_pairs_mut().clear().extend_pairs(pairs).append_pair(name, value);
    changed.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_the_name_of_another_issuer_is_not_exchanged() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[]));
    draft(&app, oidc(&peer, "app", "authorization_code", "c-basic")).await;
    for iss in ["https://attacker.example", &format!("{}/", peer.issuer)] {
        let (person, callback) = almost_back(&app, "app").await;
        assert!(callback.query_pairs().any(|(key, value)| key == "iss" && value == peer.issuer.as_str()), "{callback}");
        let page = person.get(&with_parameter(&callback, "iss", iss)).await;
        assert_eq!(page.status, 400);
        assert!(page.text().contains(&peer.issuer), "{}", page.text());
    }
    // The server announced that it names itself, so an answer that doesn't is not its own (RFC 9207 §2.4).
    let (person, callback) = almost_back(&app, "app").await;
    let without = with_parameter(&callback, "iss", "").replace("&iss=", "");
    assert!(!without.contains("iss="));
    assert_eq!(person.get(&without).await.status, 400);
    assert_eq!(asked(&peer, "/token"), 0);
    assert_eq!(shown(&app, "app").await["state"], "draft");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_counts_once_and_only_with_its_own_state() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60")]));
    draft(&app, oidc(&peer, "app", "authorization_code", "c-basic")).await;
    let (person, callback) = almost_back(&app, "app").await;
    let forged = person.get(&with_parameter(&callback, "state", "x")).await;
    assert_eq!(forged.status, 410, "{}", forged.text());
    assert_eq!(asked(&peer, "/token"), 0);

    let confirm = follow(&person, person.get(callback.as_str()).await).await;
    assert_eq!(confirm.status, 200);
    let again = person.get(callback.as_str()).await;
    assert_eq!(again.status, 410);
    assert!(again.text().contains("reloading this page"), "{}", again.text());
    assert_eq!(asked(&peer, "/token"), 1, "the code is exchanged once");

    assert_eq!(person.post(&confirm.url, &[("decision", "yes")]).await.status, 200);
    assert_eq!(person.post(&confirm.url, &[("decision", "yes")]).await.status, 410, "given once");
    assert_eq!(shown(&app, "app").await["state"], "connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_came_too_late_is_refused_with_a_reason() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60")]));
    draft(&app, oidc(&peer, "app", "authorization_code", "c-basic")).await;
    let (person, callback) = almost_back(&app, "app").await;
    let page = person.get(&with_parameter(&callback, "code", "too-old")).await;
    assert_eq!(page.status, 502);
    assert!(page.text().contains("Begin again"), "{}", page.text());
    let connection = shown(&app, "app").await;
    assert_eq!((&connection["state"], &connection["failure"]["code"]), (&json!("draft"), &json!("invalid_grant")));
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_can_neither_answer_nor_confirm() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60")]));
    draft(&app, oidc(&peer, "app", "authorization_code", "c-basic")).await;
    let (_, callback) = almost_back(&app, "app").await;
    assert_eq!(app.person().get(callback.as_str()).await.status, 403);
    assert_eq!(asked(&peer, "/token"), 0, "the code is not even exchanged");
    assert_eq!(shown(&app, "app").await["state"], "draft");

    let (person, callback) = almost_back(&app, "app").await;
    let confirm = follow(&person, person.get(callback.as_str()).await).await;
    assert_eq!(app.person().post(&confirm.url, &[("decision", "yes")]).await.status, 403);
    assert_eq!(shown(&app, "app").await["state"], "pending");
    token(&app, "app", "").await.problem(409, "not_connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_gives_the_grant_back() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60"), ("ALWAYS_RT", "1")]));
    draft(&app, oidc(&peer, "app", "authorization_code", "c-basic")).await;
    let (person, callback) = almost_back(&app, "app").await;
    let confirm = follow(&person, person.get(callback.as_str()).await).await;
    let page = person.post(&confirm.url, &[("decision", "no")]).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Nothing was connected"), "{}", page.text());
    assert_eq!(asked(&peer, "/token/revocation"), 1);
    assert_eq!(shown(&app, "app").await["state"], "draft");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_completes_for_its_own_user_only() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[("AT_TTL", "60"), ("ALWAYS_RT", "1")]));
    app.admin().post("/v1/integrations", oidc(&peer, "app", "authorization_code", "c-basic")).await.ok(201);
    for (owner, completes) in [("mallory", false), ("user-1", true)] {
        let wish = json!({"integration": "app", "owner": "user-1", "return_url": "https://app.example/done?tab=2"});
        let session = app.admin().post("/v1/connect-sessions", wish).await.ok(201);
        let person = app.person();
        let begun = person.post(session["url"].as_str().unwrap(), &[]).await;
        let back = follow_to(&person, begun, "app.example").await;
        let url = next(&back).unwrap_or_else(|| panic!("{} {}", back.url, back.text()));
        let query: std::collections::BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(
            (query["tab"].as_str(), query["connection"].as_str()),
            ("2", session["connection"].as_str().unwrap())
        );

        let name = session["connection"].as_str().unwrap();
        assert_eq!(shown(&app, name).await["state"], "pending");
        let done = app
            .admin()
            .post(&format!("/v1/connections/{name}/complete"), json!({"code": query["code"], "owner": owner}))
            .await;
        if completes {
            assert_eq!(done.ok(200)["state"], "connected");
            assert_eq!(call(&app, Method::GET, name, "/mine", "").await.status, 200);
        } else {
            done.problem(403, "wrong_owner");
            assert_eq!(asked(&peer, "/token/revocation"), 1, "what was granted is given back");
            assert_eq!(shown(&app, name).await["state"], "draft");
        }
    }
    assert_eq!(asked(&peer, "/token/revocation"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_the_application_that_waits_for_the_browser() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[]));
    draft(&app, oidc(&peer, "app", "authorization_code", "c-basic")).await;
    let wish = json!({"owner": "user-1", "return_url": "https://app.example/done"});
    let begun = app.admin().post("/v1/connections/app/authorize", wish).await.ok(200);
    let person = app.person();
    let page = follow_to(&person, person.get(begun["authorize_url"].as_str().unwrap()).await, "/auth?").await;
    // `login_hint=deny` makes this peer refuse, as if the person had pressed Cancel.
    let asked_for = format!("{}&login_hint=deny", next(&page).unwrap());
    let back = follow_to(&person, person.get(&asked_for).await, "app.example").await;
    let url = next(&back).unwrap_or_else(|| panic!("{} {}", back.url, back.text()));
    let query: std::collections::BTreeMap<_, _> = url.query_pairs().into_owned().collect();
    assert_eq!((query["error"].as_str(), query.contains_key("code")), ("access_denied", false));
    assert!(query["error_description"].contains("user said no"), "{query:?}");
    assert_eq!(shown(&app, "app").await["failure"]["code"], "access_denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_told_everything_that_will_be_asked_for() {
    let (app, peer) = (App::start().await, OidcProvider::start(&[]));
    app.admin().post("/v1/providers", json!({"definition": machine::WITH_RESOURCE})).await.ok(201);
    let mut integration = oidc(&peer, "app", "authorization_code", "c-basic");
    integration["provider"] = "with-resource".into();
    // Then it is what the definition's method says.
    integration["scopes"] = json!([]);
    app.admin().post("/v1/integrations", integration).await.ok(201);
    let session = app.admin().post("/v1/connect-sessions", json!({"integration": "app"})).await.ok(201);
    let person = app.person();
    let link = session["url"].as_str().unwrap();
    let page = person.get(link).await.text();
    let begun = next(&person.post(link, &[]).await).unwrap();
    let asked = begun.query_pairs().find(|(name, _)| name == "scope").unwrap().1.into_owned();
    assert_eq!(asked, "openid offline_access read");
    for scope in asked.split(' ') {
        assert!(page.contains(&format!("<code>{scope}</code>")), "{scope}: {page}");
    }
}
