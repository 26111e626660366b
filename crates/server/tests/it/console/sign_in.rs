//! Links, passwords, sessions: the way in, and what happens to those who come another way.

use serde_json::json;

use super::{PASSWORD, axe, owner, sign_in, sound};
use crate::app::App;
use crate::browser::Browser;

/// Somebody with these scopes, made by a link of the administrator's.
pub async fn second(app: &App, browser: &Browser, name: &str, scopes: &[&str]) {
    let made = app.admin().post("/v1/operators/links", json!({"scopes": scopes})).await.ok(201);
    tokio::task::block_in_place(|| {
        browser.goto(made["url"].as_str().unwrap());
        browser.fill("Your name (required)", name);
        browser.fill("Password (required)", PASSWORD);
        browser.click("button", "Set up and go on");
        browser.see("Sign out");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_minute_leads_from_a_link_to_three_ways_to_begin() {
    let app = App::start().await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        let link = app.first_link();
        browser.goto(&link);
        sound(&browser);
        browser.fill("Password (required)", "short");
        browser.click("button", "Set up and go on");
        browser.see("It is too short; use 12 to 1024 characters, a few words for example.");
        assert_eq!(browser.attribute("#f-password", "aria-invalid").as_deref(), Some("true"));
        assert!(!browser.html().contains("value=\"short\""), "a password is never sent back");
        axe(&browser);
        browser.fill("Password (required)", PASSWORD);
        browser.traffic();
        browser.click("button", "Set up and go on");
        browser.see("Nothing is connected yet");
        let (hosts, bytes) = browser.traffic();
        assert_eq!(hosts, [app.url.trim_start_matches("http://")], "no other host is asked");
        assert!(bytes < 100_000, "the first page weighs {bytes} bytes");
        for way in ["Try the sandbox", "Choose a provider", "Bring a Postman file"] {
            browser.see(way);
        }
        sound(&browser);
        // The link is used up; who is signed in stays so.
        let somebody = browser.second_person();
        assert_eq!(somebody.goto(&link), 410);
        somebody.see("keyholder operator link");
        sound(&somebody);
        for hostile in ["x", "%3Cscript%3E", "..%2f..%2fadmin"] {
            assert_eq!(somebody.goto(&format!("{}/console/welcome/{hostile}", app.url)), 410);
        }
        assert_eq!(somebody.goto(&format!("{}/console/nothing", app.url)), 404);
        sound(&somebody);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_says_so_and_then_makes_wait() {
    let (app, clock) = App::on_a_clock().await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        let other = browser.second_person();
        other.goto(&format!("{}/console/connections?state=failing", app.url));
        assert!(
            other.url().ends_with("/console/sign-in?next=%2Fconsole%2Fconnections%3Fstate%3Dfailing"),
            "{}",
            other.url()
        );
        for _ in 0..5 {
            other.fill("Name (required)", "Anna");
            other.fill("Password (required)", "not the password");
            other.click("button", "Sign in");
            other.see("Name and password don't belong together; check both, and capital letters.");
        }
        sound(&other);
        other.fill("Password (required)", PASSWORD);
        other.click("button", "Sign in");
        other.see("Too many were wrong in a row; try again in 1 s.");
        clock.advance(std::time::Duration::from_secs(1));
        other.fill("Password (required)", PASSWORD);
        other.click("button", "Sign in");
        other.see("Nothing fits what you asked for.");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_in_one_browser_see_nothing_of_each_other() {
    let app = App::start().await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| owner(&app, &browser));
    app.draft("annas-own", "client_credentials").await;
    let bob = browser.second_person();
    second(&app, &bob, "Bob", &["read"]).await;
    tokio::task::block_in_place(|| {
        browser.goto(&format!("{}/console/connections", app.url));
        browser.see("annas-own");
        browser.click("button", "Dark");
        browser.wait_url("/console/connections");
        assert_eq!(browser.attribute("html", "data-theme").as_deref(), Some("dark"));
        browser.click("button", "Sign out");
        browser.see("Sign in");
        browser.goto(&format!("{}/console/connections", app.url));
        browser.see("Sign in");
        assert!(browser.cookies().iter().all(|it| it["name"] != "keyholder-console"), "the cookie is gone");
        sign_in(&app, &browser, "Bob");
        assert_eq!(browser.attribute("html", "data-theme"), None, "Bob's own colours");
        assert_eq!(browser.text_of(".who"), "Bob");
        // Bob may look only.
        browser.goto(&format!("{}/console/connections", app.url));
        assert!(!browser.text().contains("New connection"));
        // The other window is still Bob's too, and the theme is stored with Anna.
        browser.click("button", "Sign out");
        sign_in(&app, &browser, "Anna");
        assert_eq!(browser.attribute("html", "data-theme").as_deref(), Some("dark"));
        bob.goto(&format!("{}/console/", app.url));
        assert_eq!(bob.text_of(".who"), "Bob");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn without_scripts_and_by_keyboard_alone_all_of_it_works() {
    let app = App::start().await;
    let browser = Browser::start();
    let plain = browser.without_scripts();
    tokio::task::block_in_place(|| {
        owner(&app, &plain);
        plain.click("button", "Sign out");
        plain.see("Sign in");

        let open = |path: &str| browser.goto(&format!("{}{path}", app.url));
        open("/console/");
        browser.press("Tab");
        assert_eq!(super::focused(&browser), ("textbox".to_owned(), "Name (required)".to_owned()));
        browser.eval("document.activeElement.value = 'Anna'");
        browser.press("Tab");
        browser.eval(&format!("document.activeElement.value = '{PASSWORD}'"));
        browser.press("Enter");
        browser.see("Nothing is connected yet");
        browser.press("Tab");
        assert_eq!(super::focused(&browser), ("link".to_owned(), "Skip to the content".to_owned()));
        browser.press("Enter");
        browser.press("Tab");
        assert_eq!(super::focused(&browser), ("button".to_owned(), "Try the sandbox".to_owned()));

        // A draft belongs to whoever typed it.
        let who = browser.attribute("body", "data-who").unwrap();
        assert!(who.starts_with("key_"), "{who}");

        // The menu of a narrow window, without scripts.
        plain.size(390, 800);
        sign_in(&app, &plain, "Anna");
        plain.click("link", "Menu");
        plain.click("link", "Connections");
        plain.see("There is no connection yet.");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_session_loses_nothing() {
    let (app, clock) = App::on_a_clock().await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        // A page stays open over night; then its form is sent.
        clock.advance(std::time::Duration::from_secs(13 * 3600));
        browser.click("button", "Dark");
        browser.see("You were signed out");
        sound(&browser);
        browser.fill("Name (required)", "Anna");
        browser.fill("Password (required)", "not the password");
        browser.click("button", "Sign in");
        browser.see("Name and password don't belong together");
        browser.see("nothing is lost");
        browser.fill("Password (required)", PASSWORD);
        browser.click("button", "Sign in");
        browser.see("You are signed in");
        sound(&browser);
        browser.click("button", "Send it again");
        browser.see("Nothing is connected yet");
        assert_eq!(browser.attribute("html", "data-theme").as_deref(), Some("dark"), "it was done");
        // A page that is only opened leads there after signing in.
        clock.advance(std::time::Duration::from_secs(13 * 3600));
        browser.goto(&format!("{}/console/connections?search=a%20b", app.url));
        browser.see("Sign in");
        browser.fill("Name (required)", "Anna");
        browser.fill("Password (required)", PASSWORD);
        browser.click("button", "Sign in");
        browser.wait_url("/console/connections?search=a%20b");
    });
}

/// On the wire, as nobody's browser would.
#[tokio::test(flavor = "multi_thread")]
async fn forms_from_elsewhere_and_old_forms_do_nothing() {
    let app = App::start().await;
    let person = app.person();
    let link = tokio::task::block_in_place(|| app.first_link());
    let join = [("name", "Anna"), ("password", PASSWORD)];
    for headers in [[("sec-fetch-site", "cross-site")], [("origin", "https://evil.example")], [("origin", "null")]] {
        assert_eq!(person.post_with(&link, &headers, &join).await.status, 403);
    }
    let joined = person.post(&link, &join).await;
    assert_eq!((joined.status, joined.reply.header("location")), (303, Some("/console/")));
    let cookie = joined.reply.header("set-cookie").unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/console", "Max-Age=604800"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let page = person.get("/console/").await;
    assert_eq!(page.status, 200);
    let policy = page.reply.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.reply.header("cache-control"), Some("no-store"));
    let text = page.text();
    let csrf = text.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let theme = |csrf: &str| {
        vec![("csrf", csrf.to_owned()), ("theme", "dark".to_owned()), ("back", "//evil.example".to_owned())]
    };
    let borrowed =
        |form: &[(&'static str, String)]| form.iter().map(|(name, value)| (*name, value.clone())).collect::<Vec<_>>();
    for wrong in ["", "x", &csrf[1..]] {
        let form = borrowed(&theme(wrong));
        let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(person.post("/console/theme", &form).await.status, 403, "{wrong}");
    }
    let form = theme(&csrf);
    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for headers in
        [[("sec-fetch-site", "cross-site")], [("sec-fetch-site", "same-site")], [("origin", "https://evil.example")]]
    {
        assert_eq!(person.post_with("/console/theme", &headers, &form).await.status, 403);
    }
    let done = person.post("/console/theme", &form).await;
    assert_eq!((done.status, done.reply.header("location")), (303, Some("/console/")), "nobody is sent away");
    // A body as large as it may be, and larger.
    let large = "x".repeat(2 << 20);
    assert_eq!(person.post("/console/theme", &[("csrf", &csrf), ("theme", &large)]).await.status, 413);
    for next in
        ["//evil.example", "https://evil.example/console/", "/console/../../evil", "/console//evil.example", "\\\\evil"]
    {
        let form = [("name", "Anna"), ("password", PASSWORD), ("next", next)];
        let location = person.post("/console/sign-in", &form).await;
        let location = location.reply.header("location").unwrap().to_owned();
        assert!(location.starts_with("/console/") && !location.contains("//"), "{next}: {location}");
    }
    // Nothing that opens the console lies in the data folder.
    let session = &person.cookies()["keyholder-console"];
    let token = link.rsplit('/').next().unwrap();
    for file in
        std::fs::read_dir(app.folder.path()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
    {
        let bytes = std::fs::read(&file).unwrap();
        for secret in [PASSWORD, session, token, &csrf] {
            assert!(!bytes.windows(secret.len()).any(|it| it == secret.as_bytes()), "{}", file.display());
        }
    }
    // Whoever was signed in before signing in again isn't any more.
    let old = person.post("/console/theme", &form).await;
    assert_eq!(old.status, 403, "a form of the session before");
}
