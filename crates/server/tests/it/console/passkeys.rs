//! Passkeys in a real browser with a virtual device, from the one-time link to signed in again; and what others do with them.

use serde_json::{Value, json};

use super::{PASSWORD, no_errors, owner, sign_in, sound};
use crate::app::App;
use crate::browser::Browser;

/// Has the page that is open answer a question by a passkey, whatever page it is.
fn answer(browser: &Browser, question: &Value) -> String {
    let script = r#"(async () => {
        const asked = QUESTION;
        const bytes = (text) => Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
        const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
        const { rawId, response } = await navigator.credentials.get({ publicKey: { challenge: bytes(asked.challenge), rpId: asked.party, userVerification: 'required' } });
        return JSON.stringify({ id: text(rawId), clientDataJSON: text(response.clientDataJSON), authenticatorData: text(response.authenticatorData),
            signature: text(response.signature), userHandle: text(response.userHandle) });
    })()"#;
    browser.eval(&script.replace("QUESTION", &question.to_string())).as_str().unwrap().to_owned()
}

/// The owner, who has a passkey and no password.
fn owner_by_passkey(app: &App, browser: &Browser) {
    browser.authenticator();
    browser.goto(&app.first_link());
    browser.fill("Your name (required)", "Anna");
    browser.click("button", "Use a passkey instead");
    browser.see("Nothing is connected yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_leads_from_the_link_to_signed_in_again() {
    let app = App::named().await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        browser.authenticator();
        browser.goto(&app.first_link());
        sound(&browser);
        browser.click("button", "Use a passkey instead");
        browser.see("Nothing is connected yet");
        assert_eq!(browser.text_of(".who"), "Owner");
        no_errors(&browser);

        browser.click("button", "Sign out");
        browser.see("Sign in with a passkey");
        sound(&browser);
        browser.click("button", "Sign in with a passkey");
        browser.see("Nothing is connected yet");
        assert_eq!(browser.text_of(".who"), "Owner", "nobody had to say a name");

        // Another device, which has none yet.
        let settings = format!("{}/console/settings", app.url);
        browser.goto(&settings);
        browser.see("First passkey");
        browser.click("link", "Remove… First passkey");
        sound(&browser);
        browser.click("button", "Remove it");
        browser.see("this is your last way in");
        browser.goto(&settings);
        browser.click("link", "Add a passkey");
        sound(&browser);
        browser.fill("Name (required)", "Phone");
        browser.click("button", "Make the passkey");
        browser.see("This device has a passkey of yours already.");
        browser.authenticator();
        browser.fill("Name (required)", "First passkey");
        browser.click("button", "Make the passkey");
        browser.see("There is already a passkey of this name");
        sound(&browser);
        browser.authenticator();
        browser.fill("Name (required)", "Phone");
        browser.click("button", "Make the passkey");
        browser.see("You can sign in with the passkey “Phone” now.");
        sound(&browser);
        browser.click("link", "Remove… First passkey");
        browser.click("button", "Remove it");
        browser.see("The passkey “First passkey” is removed.");
        browser.click("button", "Sign out");
        browser.click("button", "Sign in with a passkey");
        browser.see("Nothing is connected yet");
        no_errors(&browser);
    });
    let actions: Vec<_> = app.audit().await.iter().map(|row| row["action"].as_str().unwrap().to_owned()).collect();
    for action in ["operator.join", "operator.sign_in", "operator.passkey.add", "operator.passkey.remove"] {
        assert!(actions.iter().any(|it| it == action), "{action}: {actions:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_from_elsewhere_used_ones_and_copies_open_nothing() {
    let app = App::named().await;
    let elsewhere = App::named().await;
    let browser = Browser::start();
    let person = app.person();
    let question = async || -> Value {
        let page = person.post("/console/sign-in/passkey", &[]).await;
        assert_eq!(page.status, 200);
        serde_json::from_str(&page.text()).unwrap()
    };
    let send = async |sent: &str| person.post("/console/sign-in", &[("passkey", sent)]).await;
    tokio::task::block_in_place(|| owner_by_passkey(&app, &browser));

    // On another port of this machine the device would answer too: the origin tells.
    let asked = question().await;
    let sent = tokio::task::block_in_place(|| {
        browser.goto(&format!("{}/console/sign-in", elsewhere.url));
        answer(&browser, &asked)
    });
    let refused = send(&sent).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("The answer was given to another address than this one"), "{}", refused.text());
    assert_eq!(
        person.post_with("/console/sign-in/passkey", &[("sec-fetch-site", "cross-site")], &[]).await.status,
        403
    );

    let asked = question().await;
    let sent = tokio::task::block_in_place(|| {
        browser.goto(&format!("{}/console/sign-in", app.url));
        answer(&browser, &asked)
    });
    assert_eq!(send(&sent).await.status, 303);
    let again = send(&sent).await;
    assert_eq!(again.status, 422);
    assert!(again.text().contains("The answer is to another question, or came too late"), "{}", again.text());
    for hostile in ["", "x", "{}", "<script>alert(1)</script>"] {
        assert_eq!(send(hostile).await.status, 422, "{hostile}");
    }

    // A copy of the device, made before it was used.
    let copied = tokio::task::block_in_place(|| browser.passkeys());
    let asked = question().await;
    let sent = tokio::task::block_in_place(|| answer(&browser, &asked));
    assert_eq!(send(&sent).await.status, 303);
    tokio::task::block_in_place(|| {
        browser.put_passkeys(&copied);
        browser.goto(&format!("{}/console/sign-in", app.url));
        if browser.text().contains("Sign out") {
            browser.click("button", "Sign out");
        }
        browser.click("button", "Sign in with a passkey");
        browser.see("Its counter went back, as that of a copy does; sign in another way");
        sound(&browser);
    });
    let newest = app.audit().await.into_iter().find(|row| row["action"] == "operator.sign_in").unwrap();
    assert_eq!((&newest["outcome"], &newest["object"]), (&json!("refused"), &json!("Anna")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_numbers_says_why_there_are_none() {
    let app = App::start().await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        let port = app.url.rsplit(':').next().unwrap();
        let why = format!("set KEYHOLDER_PUBLIC_URL=http://localhost:{port}.");
        browser.goto(&app.first_link());
        browser.see(&why);
        owner(&app, &browser);
        browser.goto(&format!("{}/console/settings", app.url));
        browser.see(&why);
        browser.goto(&format!("{}/console/settings/passkeys/new", app.url));
        browser.see(&why);
        sound(&browser);
        browser.click("button", "Sign out");
        browser.see(&why);
        sound(&browser);
    });
    assert_eq!(app.person().post("/console/sign-in/passkey", &[]).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_minutes_later_dangerous_forms_ask_again_and_lose_nothing() {
    let (app, clock) = App::on_a_clock().await;
    app.draft("crm", "client_credentials").await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner(&app, &browser);
        let late = || clock.advance(std::time::Duration::from_secs(601));
        let new_key = |browser: &Browser, name: &str| {
            browser.goto(&format!("{}/console/callers/new", app.url));
            browser.fill("Name (required)", name);
            browser.fill("Only these connections", "crm");
            browser.click("button", "Make the key");
        };
        new_key(&browser, "at-once");
        browser.see("Copy it now");
        let plain = browser.without_scripts();
        sign_in(&app, &plain, "Anna");
        late();
        for (browser, name) in [(&browser, "later"), (&plain, "later-still")] {
            new_key(browser, name);
            browser.see("Confirm that it is you");
            browser.fill("Your password now (required)", "not the password");
            browser.click("button", "Confirm, and go on");
            browser.see("This isn't your password; check capital letters.");
            browser.fill("Your password now (required)", PASSWORD);
            browser.click("button", "Confirm, and go on");
            browser.see(&format!("The key of “{name}”"));
        }
        browser.goto(&format!("{}/console/callers", app.url));
        browser.see("connections crm");
        browser.click("link", "Revoke… later");
        browser.click("button", "Revoke it");
        browser.see("“later” is revoked.");

        // Out of a dialog; and one's own password asks for the one there is at once.
        late();
        browser.click("link", "Revoke… later-still");
        browser.click("button", "Revoke it");
        browser.see("Confirm that it is you");
        sound(&browser);
        browser.fill("Your password now (required)", PASSWORD);
        browser.click("button", "Confirm, and go on");
        browser.see("“later-still” is revoked.");
        late();
        browser.goto(&format!("{}/console/settings/password", app.url));
        sound(&browser);
        browser.fill("Your password now (required)", PASSWORD);
        browser.fill("New password (required)", "another horse battery");
        browser.click("button", "Save");
        browser.see("Your new password counts from now on");
        no_errors(&browser);
    });
    let proofs: Vec<_> = app.audit().await.into_iter().filter(|row| row["action"] == "operator.prove").collect();
    let of = |outcome: &str| proofs.iter().filter(|row| row["outcome"] == outcome).count();
    assert_eq!((of("ok"), of("refused")), (4, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_proves_it_again() {
    let (app, clock) = App::named_on_a_clock().await;
    let browser = Browser::start();
    tokio::task::block_in_place(|| {
        owner_by_passkey(&app, &browser);
        clock.advance(std::time::Duration::from_secs(601));
        browser.goto(&format!("{}/console/settings/people/new", app.url));
        browser.select("Role", "editor");
        browser.click("button", "Make the link");
        browser.see("Confirm that it is you");
        sound(&browser);
        browser.click("button", "Use a passkey");
        browser.see("The link for somebody new");
        no_errors(&browser);
        // Out of a dialog too.
        clock.advance(std::time::Duration::from_secs(601));
        browser.goto(&format!("{}/console/settings", app.url));
        browser.click("link", "Remove… Anna");
        browser.click("button", "Remove");
        browser.click("button", "Use a passkey");
        browser.see("this is the last operator who may do everything");
    });
}
