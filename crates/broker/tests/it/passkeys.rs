//! Passkeys against the store: questions are good once, for whom they were put, for five minutes; counters go up; one way in always stays.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyholder_broker::model::{For, KeyId, Scope};
use keyholder_broker::{Error, PasskeyQuestion, Proof, SignedIn};
use keyholder_oauth::{Secret, sha256};
use serde_json::json;

use crate::app::App;

const ORIGIN: &str = "http://localhost:8787";

/// A device with one passkey.
struct Device {
    id: &'static str,
    key: Ed25519KeyPair,
}

impl Device {
    fn new(id: &'static str) -> Self {
        Self { id, key: Ed25519KeyPair::generate().unwrap() }
    }

    fn said(&self, kind: &str, question: &PasskeyQuestion, counter: u32) -> (String, Vec<u8>) {
        let client = json!({"type": kind, "challenge": question.challenge, "origin": ORIGIN, "crossOrigin": false});
        let mut data = sha256(question.party.as_bytes()).to_vec();
        data.push(0x45);
        data.extend(counter.to_be_bytes());
        (client.to_string(), data)
    }

    fn made(&self, question: &PasskeyQuestion) -> Secret {
        let (client, mut data) = self.said("webauthn.create", question, 1);
        data.extend([0; 16]);
        data.extend(u16::try_from(self.id.len()).unwrap().to_be_bytes());
        data.extend(self.id.as_bytes());
        let public_key = self.key.public_key().as_der().unwrap();
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let sent = json!({
            "id": text(self.id.as_bytes()), "clientDataJSON": text(client.as_bytes()), "authenticatorData": text(&data),
            "publicKey": text(public_key.as_ref()), "algorithm": -8,
        });
        Secret::new(sent.to_string())
    }

    fn shown(&self, question: &PasskeyQuestion, counter: u32) -> Secret {
        let (client, data) = self.said("webauthn.get", question, counter);
        let signature = self.key.sign(&[&data[..], &sha256(client.as_bytes())].concat());
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let sent = json!({
            "id": text(self.id.as_bytes()), "clientDataJSON": text(client.as_bytes()), "authenticatorData": text(&data),
            "signature": text(signature.as_ref()),
        });
        Secret::new(sent.to_string())
    }
}

fn token(url: &str) -> &str {
    url.rsplit_once("/console/welcome/").unwrap().1
}

async fn who(app: &App, session: &Secret) -> Option<SignedIn> {
    app.broker.session(session.expose()).await.unwrap()
}

/// Anna, who has this device and no password.
async fn anna(app: &App, device: &Device) -> (Secret, SignedIn) {
    let link = app.broker.first_link().await.unwrap().unwrap();
    let question = app.broker.passkey_by_link(token(&link)).await.unwrap();
    let joined = app.broker.join(token(&link), "Anna", &Proof::Passkey(device.made(&question))).await.unwrap();
    let signed_in = who(app, &joined).await.unwrap();
    (joined, signed_in)
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, says: &str) {
    let error = result.err().expect("it is refused").to_string();
    assert!(error.contains(says), "{error}");
}

#[tokio::test]
async fn a_question_is_good_once_and_for_whom_it_was_put() {
    let app = App::at("http://localhost:8787/").await;
    let phone = Device::new("phone");
    let (_, signed_in) = anna(&app, &phone).await;
    assert_eq!((signed_in.operator.passkeys, signed_in.operator.has_password), (1, false));
    const OLD: &str = "the answer is to another question, or came too late";

    let question = app.broker.passkey_to_sign_in().await.unwrap();
    assert!(question.known.is_empty() && question.user.is_none(), "nobody is named who isn't signed in");
    let session = app.broker.sign_in_by_passkey(&phone.shown(&question, 2)).await.unwrap();
    assert_eq!(who(&app, &session).await.unwrap().operator.name, "Anna");
    refused(app.broker.sign_in_by_passkey(&phone.shown(&question, 3)).await, OLD);

    // Put for another purpose, or never.
    let caller = &signed_in.caller;
    for other in [app.broker.passkey_to_add(caller).await.unwrap(), app.broker.passkey_to_prove(caller).await.unwrap()]
    {
        assert_eq!(other.known, [URL_SAFE_NO_PAD.encode("phone")]);
        refused(app.broker.sign_in_by_passkey(&phone.shown(&other, 3)).await, OLD);
    }
    let invented = PasskeyQuestion { challenge: URL_SAFE_NO_PAD.encode([7; 32]), ..question };
    refused(app.broker.sign_in_by_passkey(&phone.shown(&invented, 3)).await, OLD);

    // Five minutes later.
    let question = app.broker.passkey_to_sign_in().await.unwrap();
    app.advance(300);
    refused(app.broker.sign_in_by_passkey(&phone.shown(&question, 3)).await, OLD);

    // A wrong answer uses it up too.
    let question = app.broker.passkey_to_sign_in().await.unwrap();
    let stranger = Device { id: "phone", ..Device::new("") };
    refused(app.broker.sign_in_by_passkey(&stranger.shown(&question, 3)).await, "the signature is wrong");
    refused(app.broker.sign_in_by_passkey(&phone.shown(&question, 3)).await, OLD);
    let question = app.broker.passkey_to_sign_in().await.unwrap();
    let unknown = Device::new("unknown");
    refused(
        app.broker.sign_in_by_passkey(&unknown.shown(&question, 3)).await,
        "nobody here signs in with this passkey",
    );

    // Of many at once one gets in.
    let question = app.broker.passkey_to_sign_in().await.unwrap();
    let tries = (3..11).map(|counter| {
        let (broker, sent) = (app.broker.clone(), phone.shown(&question, counter));
        tokio::spawn(async move { broker.sign_in_by_passkey(&sent).await.is_ok() })
    });
    let mut in_all = 0;
    for one in tries.collect::<Vec<_>>() {
        in_all += u32::from(one.await.unwrap());
    }
    assert_eq!(in_all, 1);
    assert!(app.recorded("operator.sign_in", "refused").await >= 8);
    assert_eq!(app.recorded("operator.sign_in", "ok").await, 2);
}

#[tokio::test]
async fn one_persons_question_and_passkey_are_no_good_for_another() {
    let app = App::at("http://localhost:8787/").await;
    let (phone, laptop) = (Device::new("phone"), Device::new("laptop"));
    let (session, anna) = anna(&app, &phone).await;
    let link = app.broker.operator_link(&anna.caller, For::New { scopes: [Scope::Read].into() }).await.unwrap();
    let other_link = app.broker.operator_link(&anna.caller, For::New { scopes: [Scope::Read].into() }).await.unwrap();
    let question = app.broker.passkey_by_link(token(&other_link.url)).await.unwrap();
    let sent = Proof::Passkey(laptop.made(&question));
    refused(app.broker.join(token(&link.url), "Bob", &sent).await, "another question");
    let question = app.broker.passkey_by_link(token(&link.url)).await.unwrap();
    let bob = app.broker.join(token(&link.url), "Bob", &Proof::Passkey(laptop.made(&question))).await.unwrap();
    let bob_in = who(&app, &bob).await.unwrap();

    // Dangerous things: fresh at first, then after ten minutes no more.
    assert!(bob_in.proved);
    app.advance(601);
    assert!(!who(&app, &bob).await.unwrap().proved);
    let of_bob = app.broker.passkey_to_prove(&bob_in.caller).await.unwrap();
    let with = |sent: Secret| Proof::Passkey(sent);
    refused(app.broker.prove(&anna.caller, session.expose(), &with(phone.shown(&of_bob, 5))).await, "another question");
    let of_anna = app.broker.passkey_to_prove(&anna.caller).await.unwrap();
    refused(app.broker.prove(&anna.caller, session.expose(), &with(laptop.shown(&of_anna, 5))).await, "nobody here");
    assert!(!who(&app, &session).await.unwrap().proved);
    let of_bob = app.broker.passkey_to_prove(&bob_in.caller).await.unwrap();
    app.broker.prove(&bob_in.caller, bob.expose(), &with(laptop.shown(&of_bob, 5))).await.unwrap();
    assert!(who(&app, &bob).await.unwrap().proved && !who(&app, &session).await.unwrap().proved);
    let nothing = Proof::Password(Secret::new(""));
    refused(app.broker.prove(&bob_in.caller, bob.expose(), &nothing).await, "this isn't your password");
    assert!(app.recorded("operator.prove", "refused").await >= 3);

    // The same credential belongs to one person.
    let question = app.broker.passkey_to_add(&anna.caller).await.unwrap();
    assert!(app.broker.add_passkey(&anna.caller, "Bob's", &laptop.made(&question)).await.is_err());
    app.broker.remove_operator(&anna.caller, &bob_in.operator.id).await.unwrap();
    let question = app.broker.passkey_to_sign_in().await.unwrap();
    refused(app.broker.sign_in_by_passkey(&laptop.shown(&question, 6)).await, "nobody here");
    assert_eq!(app.count("SELECT count(*) FROM passkeys"), 1);
}

#[tokio::test]
async fn a_copy_is_noticed_and_one_way_in_always_stays() {
    let app = App::at("http://localhost:8787/").await;
    let (phone, tablet) = (Device::new("phone"), Device::new("tablet"));
    let (session, anna) = anna(&app, &phone).await;
    let sign_in = async |device: &Device, counter| {
        let question = app.broker.passkey_to_sign_in().await.unwrap();
        app.broker.sign_in_by_passkey(&device.shown(&question, counter)).await
    };
    sign_in(&phone, 9).await.unwrap();
    for counter in [9, 2, 0] {
        refused(sign_in(&phone, counter).await, "its counter went back");
    }
    sign_in(&phone, 10).await.unwrap();

    let broker = &app.broker;
    refused(broker.remove_passkey(&anna.caller, "First passkey", session.expose()).await, "your last way in");
    let question = broker.passkey_to_add(&anna.caller).await.unwrap();
    assert_eq!(question.user, Some(anna.operator.id.clone()));
    refused(broker.add_passkey(&anna.caller, "a/b", &tablet.made(&question)).await, "name");
    broker.add_passkey(&anna.caller, "Tablet", &tablet.made(&question)).await.unwrap();
    refused(broker.add_passkey(&anna.caller, "Again", &tablet.made(&question)).await, "another question");
    refused(sign_in(&tablet, 0).await, "its counter went back");
    let elsewhere = sign_in(&tablet, 5).await.unwrap();
    let names: Vec<_> =
        broker.passkeys(&anna.caller).await.unwrap().into_iter().map(|it| (it.name, it.used_at.is_some())).collect();
    assert_eq!(names, [("First passkey".to_owned(), true), ("Tablet".to_owned(), true)]);
    refused(broker.remove_passkey(&anna.caller, "Nothing", session.expose()).await, "there is no passkey");
    broker.remove_passkey(&anna.caller, "First passkey", session.expose()).await.unwrap();
    assert!(who(&app, &session).await.is_some() && who(&app, &elsewhere).await.is_none(), "the others end");
    refused(sign_in(&phone, 20).await, "nobody here");
    refused(broker.remove_passkey(&anna.caller, "Tablet", session.expose()).await, "your last way in");

    // A link replaces every way in.
    let id: KeyId = anna.operator.id.clone();
    let link = broker.operator_link(&anna.caller, For::Reset(id)).await.unwrap();
    broker.join(token(&link.url), "", &Proof::Password(Secret::new("correct horse battery"))).await.unwrap();
    refused(sign_in(&tablet, 6).await, "nobody here");
    assert!(who(&app, &session).await.is_none());
    broker.sign_in("Anna", &Secret::new("correct horse battery")).await.unwrap();
    assert_eq!(app.recorded("operator.passkey.add", "ok").await, 1);
    assert_eq!(app.recorded("operator.passkey.remove", "ok").await, 1);
}

#[tokio::test]
async fn an_address_of_numbers_has_no_passkeys() {
    let app = App::start().await;
    assert!(app.broker.passkeys_possible().unwrap_err().contains("KEYHOLDER_PUBLIC_URL=http://localhost:8787"));
    refused(app.broker.passkey_to_sign_in().await, "KEYHOLDER_PUBLIC_URL=http://localhost:8787");
    let link = app.broker.first_link().await.unwrap().unwrap();
    refused(app.broker.passkey_by_link(token(&link)).await, "KEYHOLDER_PUBLIC_URL=http://localhost:8787");
}

#[tokio::test]
async fn questions_don_t_pile_up() {
    let app = App::at("http://localhost:8787/").await;
    for _ in 0..20 {
        app.broker.passkey_to_sign_in().await.unwrap();
    }
    assert_eq!(app.count("SELECT count(*) FROM passkey_challenges"), 20);
    app.database.run(&format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10050) \
         INSERT INTO passkey_challenges (challenge_hash, purpose, operator, expires_at) SELECT {}, 'sign_in', '', {} + i FROM n",
        if crate::ON_POSTGRES { "decode(lpad(i::text, 8, '0'), 'escape')" } else { "CAST(printf('%08d', i) AS BLOB)" },
        app.now(),
    ));
    app.broker.passkey_to_sign_in().await.unwrap();
    assert_eq!(app.count("SELECT count(*) FROM passkey_challenges"), 10_000, "the oldest have made room");
}
