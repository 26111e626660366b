//! What people do that forms are not made for: odd texts, two tabs, no network, a session that ends; nothing is lost, and it is said what is wrong.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::{PASSWORD, no_errors, owner, sound};
use crate::app::App;
use crate::browser::Browser;

/// Posts each form of the page with each of its fields given each of `values`, one at a time; answers what is not as it should be: an answer that is neither
/// "done" nor "this field is wrong", a mistake that isn't said at its field, something typed that is gone, markup made of a text.
const SWEEP: &str = r##"(async () => {
    const ask = (url, form) => new Promise((done, fail) => {
        const request = new XMLHttpRequest();
        request.open(form ? 'POST' : 'GET', url);
        request.responseType = 'document';
        request.onload = () => done({ page: request.response, status: request.status, url: request.responseURL });
        request.onerror = () => fail(new Error(url));
        request.send(form);
    });
    const typed = (form) => [...form.elements].filter((it) => it.name && !['hidden', 'submit', 'button', 'file'].includes(it.type));
    const isSecret = (it) => it.type === 'password' || 'secret' in it.dataset;
    const open = (form) => typed(form).filter((it) => !isSecret(it) && !['checkbox', 'radio'].includes(it.type));
    const flat = (text) => text.replaceAll('\0', '\ufffd').replaceAll(/\s/g, '');
    const wrong = [];
    let tried = 0;
    const at = location.href;
    for (let which = 0; ; which += 1) {
        let page = (await ask(at)).page;
        const formOf = (page) => [...page.querySelectorAll('main form')].filter((it) => typed(it).length)[which];
        if (!formOf(page)) break;
        const action = new URL(formOf(page).getAttribute('action') ?? '', at).href;
        const isGet = formOf(page).method === 'get';
        const fields = typed(formOf(page)).map((it, place) => [it.name, place]);
        if (!isGet) {
            const nothing = await ask(action, new URLSearchParams({ csrf: formOf(page).elements.csrf.value }));
            if (nothing.status !== 422 && nothing.status !== 200) wrong.push(`nothing at all: ${nothing.status}`);
            page = (await ask(at)).page;
        }
        const wanted = (name, value) => !/^-\d/.test(value) || /limit|renewal|ends|expire|status|days/.test(name);
        for (const [name, place] of fields) for (const value of VALUES.filter((value) => wanted(name, value))) {
            const form = formOf(page);
            const body = new URLSearchParams();
            for (const it of form.elements) {
                const isOn = !['checkbox', 'radio'].includes(it.type) || it.checked || it === typed(form)[place];
                const isButton = ['submit', 'button'].includes(it.type) && !(it.name === 'then' && ['save', 'look'].includes(it.value));
                if (it.name && !it.disabled && isOn && !isButton && it.type !== 'file') body.append(it.name, it === typed(form)[place] ? value : it.value);
            }
            const label = `${name} = ${JSON.stringify(value.slice(0, 30))}: `;
            const got = isGet ? await ask(`${action}?${body}`.slice(0, 60_000)) : await ask(action, body);
            tried += 1;
            const again = got.page && formOf(got.page);
            if (!got.page || ![200, 422].includes(got.status)) { wrong.push(`${label}${got.status} ${got.page?.querySelector('main')?.innerText?.slice(0, 200)}`); continue; }
            if (got.page.querySelectorAll('script').length !== 1 || got.page.querySelector('img[src=x]')) wrong.push(`${label}markup`);
            if (got.status === 200) { page = (await ask(at)).page; continue; }
            if (!got.page.querySelector('.summary a[href^="#f-"], .wrong')) wrong.push(`${label}not said at a field: ${got.page.querySelector('.summary')?.textContent}`);
            for (const link of got.page.querySelectorAll('.summary a')) if (!got.page.getElementById(link.hash.slice(1))) wrong.push(`${label}${link.hash} leads nowhere`);
            const had = body.getAll(name).map(flat), has = again ? open(again).filter((it) => it.name === name).map((it) => flat(it.value)) : [];
            const field = typed(form)[place];
            if (open(form).includes(field) && field.tagName !== 'SELECT' && field.type !== 'date' && had.some((it) => it && !has.includes(it)))
                wrong.push(`${label}what was typed is gone: ${JSON.stringify(has).slice(0, 200)}`);
        }
    }
    return [tried, wrong];
})()"##;

const ODD: &str = "\u{202e}<script>window.ran=1</script><img src=x onerror=window.ran=1>\"'&amp;{{x}}${x}";

/// Tries all that is odd on each form of these pages.
#[track_caller]
fn sweep(app: &App, browser: &Browser, places: &[String]) {
    owner(app, browser);
    let values = json!([ODD, "a\u{0}b\u{7}\r\nc", "-99999999999999999999", "x".repeat(1_000_000)]);
    let script = SWEEP.replace("VALUES", &values.to_string());
    let mut wrong = Vec::new();
    for place in places {
        assert_eq!(browser.goto(&format!("{}/console/{place}", app.url)), 200, "{place}");
        let found = browser.eval(&script);
        assert!(found[0].as_u64().is_some_and(|tried| tried > 0), "{place} has no form");
        wrong.extend(found[1].as_array().unwrap().iter().map(|it| format!("{place}: {}", it.as_str().unwrap())));
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(browser.eval("window.ran ?? null"), Value::Null);
}

fn id_of(reply: &Value) -> &str {
    reply["id"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_of_setting_up_takes_anything_or_says_what_is_wrong() {
    let app = App::start().await;
    app.draft("people", "password").await;
    let people = app.admin().get("/v1/connections/people").await.ok(200);
    let name = people["integration"].as_str().unwrap();
    let integration = app.admin().get(&format!("/v1/integrations/{name}")).await.ok(200);
    let places = [
        "connections/new/oauth2?method=password".to_owned(),
        format!("connections/{}/edit", id_of(&people)),
        format!("connections/{}/redirect", id_of(&people)),
        format!("integrations/{}/edit", id_of(&integration)),
        "connections".to_owned(),
        "providers/discover".to_owned(),
        "providers/new".to_owned(),
        "import".to_owned(),
    ];
    block_in_place(|| sweep(&app, &Browser::start(), &places));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_of_operation_takes_anything_or_says_what_is_wrong() {
    let app = App::start().await;
    app.machine("crm").await;
    let source = json!({"name": "api", "base_url": format!("{}/api/echo", app.sandbox.base_url()), "connection": "crm",
        "variables": {"key": {"secret": true, "value": "hush"}}, "requests": {"one": {"path": "/x/{{id}}", "extract": "$.path"}}});
    let made = app.admin().post("/v1/data-sources", source).await.ok(201);
    let source = format!("sources/{}", id_of(&made));
    let places = [
        "sources/new".to_owned(),
        format!("{source}/edit"),
        format!("{source}/requests"),
        format!("{source}/requests/one"),
        format!("{source}/requests/one/run"),
        "callers/new".to_owned(),
        "audit".to_owned(),
        "usage".to_owned(),
    ];
    block_in_place(|| sweep(&app, &Browser::start(), &places));
}

/// What the form by hand must have for a machine; the name and the secret are left to the test.
#[track_caller]
fn type_machine(app: &App, browser: &Browser) {
    browser.click_selector("input[name=method][value=client_credentials]");
    browser.fill("Client ID (required)", "sandbox-basic");
    browser.fill("Client secret (required)", "sandbox-secret");
    browser.fill("Token URL (required)", &format!("{}/token", app.sandbox.base_url()));
    browser.fill("API base URL", &format!("{}/api", app.sandbox.base_url()));
}

fn value(browser: &Browser, selector: &str) -> String {
    let value = browser.eval(&format!("document.querySelector({}).value", json!(selector)));
    value.as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn sign_in_again(browser: &Browser) {
    browser.fill("Name (required)", "Anna");
    browser.fill("Password (required)", PASSWORD);
    browser.click("button", "Sign in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_while_somebody_types_costs_nothing_but_secrets() {
    let (app, clock) = App::on_a_clock().await;
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/connections/new/oauth2", app.url));
        type_machine(&app, &browser);
        browser.fill("Name (required)", "crm");
        browser.fill("Description", "two\nlines, <b>not</b> markup");
        clock.advance(Duration::from_secs(13 * 3600));
        browser.click("button", "Save and connect");
        browser.see("nothing is lost");
        assert!(!browser.html().contains("sandbox-secret"));
        sign_in_again(&browser);
        browser.see("You are signed in");
        sound(&browser);
        browser.fill("client_secret", "sandbox-secret");
        browser.click("button", "Send it again");
        browser.see("“crm” is connected.");

        // The same in a side panel, with a form behind it.
        browser.goto(&format!("{}/console/sources/new", app.url));
        browser.fill("Name (required)", "contacts");
        browser.click("link", "Make a new connection…");
        browser.click_selector("dialog a[href^='/console/connections/new/oauth2']");
        browser.see("New connection: OAuth 2.0");
        type_machine(&app, &browser);
        browser.fill_selector("dialog [name=name]", "second");
        clock.advance(Duration::from_secs(13 * 3600));
        browser.click("button", "Save and connect");
        browser.see("nothing is lost");
        browser.fill("Password (required)", PASSWORD);
        browser.fill_selector("dialog [name=name]", "Anna");
        browser.click("button", "Sign in");
        browser.see("You are signed in");
        browser.fill("client_secret", "sandbox-secret");
        browser.click("button", "Send it again");
        browser.see("“second” was made and chosen.");
        assert_eq!(value(&browser, "#f-name"), "contacts");
        browser.click("button", "Save");
        browser.see("Save a request, and run it");

        // Signed in again elsewhere: the form is of the session before, and what was typed is offered on its page.
        browser.goto(&format!("{}/console/sources/new", app.url));
        browser.fill("Name (required)", "late");
        clock.advance(Duration::from_secs(13 * 3600));
        let tab = browser.tab();
        tab.goto(&format!("{}/console/", app.url));
        sign_in_again(&tab);
        tab.see("How things stand");
        browser.click("button", "Save");
        browser.see("This form is out of date");
        browser.back();
        browser.click("button", "Put it back");
        assert_eq!(value(&browser, "#f-name"), "late");
        browser.select("Through this connection", "crm");
        browser.click("button", "Save");
        browser.see("Save a request, and run it");
        no_errors(&browser);
    });
    let crm = app.admin().get("/v1/integrations/crm").await.ok(200);
    assert_eq!(crm["description"], "two\nlines, <b>not</b> markup");
    assert_eq!(app.admin().get("/v1/data-sources/contacts").await.ok(200)["connection"], "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_tabs_the_second_hears_what_the_first_saved() {
    let app = App::start().await;
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        // The same form, saved twice.
        browser.goto(&format!("{}/console/connections/new/oauth2", app.url));
        let tab = browser.tab();
        tab.goto(&browser.url());
        for (one, said) in [(&browser, "“crm” is connected."), (&tab, "This form was saved already")] {
            type_machine(&app, one);
            one.fill("Name (required)", "crm");
            one.click("button", "Save and connect");
            one.see(said);
        }
        let source =
            json!({"name": "api", "connection": "crm", "requests": {"one": {"path": "/x"}, "two": {"path": "/y"}}});
        let made = app.admin();
        tokio::runtime::Handle::current().block_on(async { made.post("/v1/data-sources", source).await.ok(201) });
        // Edited in both: the second is shown what the first saved, and decides.
        for (place, button) in
            [("integrations/crm/edit", "Save"), ("sources/api/edit", "Save"), ("sources/api/requests/one", "Save")]
        {
            let url = format!("{}/console/{place}", app.url);
            browser.goto(&url);
            tab.goto(&url);
            browser.fill("Description", "Of the first");
            browser.click("button", button);
            browser.see("aved.");
            tab.fill("Description", "Of the second");
            tab.click("button", button);
            tab.see("somebody saved it since you opened this form");
            assert!(tab.text_of("section.notice.warn").contains("Of the first"), "{place}: {}", tab.text());
            assert_eq!(value(&tab, "#f-description"), "Of the second");
            sound(&tab);
            tab.click("button", button);
            tab.see("aved.");
        }
        // Another request of the same source is no matter.
        browser.goto(&format!("{}/console/sources/api/requests/one", app.url));
        tab.goto(&format!("{}/console/sources/api/requests/two", app.url));
        tab.fill("Description", "Two");
        tab.click("button", "Save");
        tab.see("“two” is saved.");
        browser.fill("Description", "One");
        browser.click("button", "Save");
        browser.see("“one” is saved.");
        // A key twice.
        for (one, said) in [(&browser, "it isn't shown again"), (&tab, "There is already a")] {
            one.goto(&format!("{}/console/callers/new", app.url));
            one.fill("Name (required)", "nightly");
            one.click("button", "Make the key");
            one.see(said);
        }
        browser.click("button", "Copy");
        browser.see("Copied.");
        assert!(browser.clipboard().starts_with("khk_"), "{}", browser.clipboard());
        no_errors(&browser);
        no_errors(&tab);
    });
    assert_eq!(app.admin().get("/v1/connections").await.ok(200)["items"].as_array().unwrap().len(), 1);
    assert_eq!(app.admin().get("/v1/integrations/crm").await.ok(200)["description"], "Of the second");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_network_going_back_and_leaving_nothing_is_lost_silently() {
    let app = App::start().await;
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        browser.goto(&format!("{}/console/connections/new/oauth2", app.url));
        let here = browser.url();
        type_machine(&app, &browser);
        browser.fill("Name (required)", "crm");
        browser.offline(true);
        browser.click("button", "Save and connect");
        browser.see("There is no network, so nothing was sent.");
        assert_eq!(value(&browser, "#f-client_secret"), "sandbox-secret", "the page is as it was");
        browser.offline(false);

        // Away, and back: asked first, and what was typed is offered.
        browser.dialogs();
        browser.answer_dialogs(false);
        browser.click("link", "Cancel");
        assert_eq!(browser.dialogs(), ["beforeunload: "]);
        assert_eq!((browser.url(), value(&browser, "#f-name").as_str()), (here.clone(), "crm"));
        browser.answer_dialogs(true);
        browser.click("link", "Cancel");
        browser.see("Search providers");
        browser.back();
        browser.click("button", "Put it back");
        assert_eq!((browser.url(), value(&browser, "#f-name").as_str()), (here.clone(), "crm"));
        browser.fill("Client secret (required)", "sandbox-secret");
        browser.click("button", "Save and connect");
        browser.see("“crm” is connected.");

        // Back after saving: the form is empty, offers nothing, and makes nothing a second time.
        browser.back();
        browser.wait_url("/console/connections/new/oauth2");
        assert_eq!(value(&browser, "#f-name"), "");
        assert!(!browser.text().contains("Put it back"));
        type_machine(&app, &browser);
        browser.fill("Name (required)", "again");
        browser.click("button", "Save and connect");
        browser.see("This form was saved already");

        // The side panel: without network, closed, cancelled.
        browser.goto(&format!("{}/console/sources/new", app.url));
        browser.fill("Name (required)", "contacts");
        let panel = || {
            browser.click("link", "Make a new connection…");
            browser.click_selector("dialog a[href^='/console/connections/new/oauth2']");
            browser.see("New connection: OAuth 2.0");
        };
        panel();
        browser.dialogs();
        browser.fill_selector("dialog [name=name]", "second");
        browser.offline(true);
        browser.click("button", "Save and connect");
        browser.see("There is no network, so nothing was sent.");
        browser.offline(false);
        assert_eq!(value(&browser, "dialog [name=name]"), "second");
        browser.answer_dialogs(false);
        browser.press("Escape");
        browser.click("button", "Close");
        browser.click_selector("dialog .save a");
        assert_eq!(browser.dialogs().len(), 3, "each time it is asked");
        assert_eq!(browser.count("dialog"), 1);
        browser.answer_dialogs(true);
        browser.click_selector("dialog .save a");
        assert_eq!(browser.count("dialog"), 0);
        assert_eq!(value(&browser, "#f-name"), "contacts");
        panel();
        browser.click("button", "Put it back");
        assert_eq!(value(&browser, "dialog [name=name]"), "second");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_over_says_so_and_how_to_get_another() {
    let (app, clock) = App::on_a_clock().await;
    app.draft("people", "authorization_code").await;
    let link = app.admin().post("/v1/connections/people/authorize", json!({})).await.ok(200);
    let link = link["authorize_url"].as_str().unwrap().to_owned();
    let browser = Browser::start();
    block_in_place(|| {
        owner(&app, &browser);
        clock.advance(Duration::from_secs(2 * 3600));
        let person = browser.second_person();
        assert_eq!(person.goto(&link), 410);
        person.see("ask for a new one");
        super::axe(&person);
        browser.goto(&format!("{}/console/connections/people/authorize", app.url));
        browser.click("button", "Make the link");
        browser.click("link", "That's me: consent here, in a new tab");
        let person = browser.opened();
        person.click("button", "Yes, connect it");
        person.see("“people” is connected.");
    });
    assert_eq!(app.state("people").await, "connected");
}
