//! What is verified of a passkey (WebAuthn Level 3, §7.1 and §7.2): pure. Attestation is never asked for, so a registration proves nothing but what the
//! browser says, and the public key is taken as the browser hands it out (SubjectPublicKeyInfo): nothing here reads CBOR.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyholder_oauth::sha256;
use serde::Deserialize;
use url::Url;

use crate::model::PasskeyKey;

/// Flags of authenticator data, §6.1.
const USER_PRESENT: u8 = 0x01;
const USER_VERIFIED: u8 = 0x04;
const HAS_CREDENTIAL: u8 = 0x40;
/// Hash of the relying party's id, flags, counter.
const FIXED: usize = 37;
/// §5.8.3 allows credential ids up to this length.
const LONGEST_ID: usize = 1023;

/// Whose passkeys these are: the host of the public URL, and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Party {
    pub(super) id: String,
    pub(super) origin: String,
}

impl Party {
    /// Of the public URL.
    ///
    /// # Errors
    /// Why there can be no passkeys there, and what to set.
    pub(super) fn of(public: &Url) -> Result<Self, String> {
        let is_local = |host: &str| host == "localhost" || host.ends_with(".localhost");
        match public.host() {
            Some(url::Host::Domain(host)) if public.scheme() == "https" || is_local(host) => {
                Ok(Self { id: host.to_owned(), origin: public.origin().ascii_serialization() })
            }
            Some(url::Host::Domain(_)) => {
                Err("Browsers offer passkeys over https only: put TLS in front, and set KEYHOLDER_PUBLIC_URL to the https address.".to_owned())
            }
            Some(url::Host::Ipv4(address)) if address.is_loopback() => Err(by_name(public)),
            Some(url::Host::Ipv6(address)) if address.is_loopback() => Err(by_name(public)),
            _ => Err("Passkeys belong to a name, never to an address of numbers: give this server one, and set KEYHOLDER_PUBLIC_URL to it, by https.".to_owned()),
        }
    }
}

fn by_name(public: &Url) -> String {
    let port = public.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!(
        "Passkeys belong to a name, never to an address of numbers: set KEYHOLDER_PUBLIC_URL={}://localhost{port}.",
        public.scheme()
    )
}

/// What was asked of the browser.
#[derive(Clone, Debug)]
pub(super) struct Expected<'a> {
    pub(super) party: &'a Party,
    /// SHA-256 of the challenge.
    pub(super) challenge: [u8; 32],
}

/// Why an answer isn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mismatch {
    #[error("the browser's answer can't be read")]
    Unreadable,
    #[error("the answer is to something else")]
    Kind,
    #[error("the answer is to another question, or came too late")]
    Challenge,
    #[error("the answer was given to another address than this one")]
    Origin,
    #[error("the answer was given inside another site's page")]
    CrossOrigin,
    #[error("the passkey belongs to another address than this one")]
    Party,
    #[error("nobody touched the device")]
    NotPresent,
    #[error("the device didn't look at who it was: it must ask for a PIN, a finger or a face")]
    NotVerified,
    #[error("the device made a key of a kind that isn't taken")]
    Algorithm,
    #[error("the public key can't be used")]
    Key,
    #[error("the passkey is another than the one that was answered with")]
    Credential,
    #[error("the passkey is somebody else's")]
    User,
    #[error("the signature is wrong")]
    Signature,
    #[error("its counter went back, as that of a copy does")]
    Counter,
}

/// As `passkey.js` sends it; texts are base64url.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    id: String,
    #[serde(rename = "clientDataJSON")]
    client_data: String,
    authenticator_data: String,
    #[serde(default)]
    signature: Option<String>,
    #[serde(default)]
    user_handle: Option<String>,
    #[serde(default)]
    public_key: Option<String>,
    #[serde(default)]
    algorithm: Option<i64>,
}

/// What the browser says it asked for, §5.8.1.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: bool,
    #[serde(default)]
    top_origin: Option<String>,
}

/// A browser's answer, not yet looked at.
pub(super) struct Answer {
    pub(super) credential: Vec<u8>,
    client_data: Vec<u8>,
    said: ClientData,
    data: Vec<u8>,
    signature: Vec<u8>,
    user: Option<Vec<u8>>,
    public_key: Vec<u8>,
    algorithm: i64,
}

impl Answer {
    pub(super) fn read(json: &str) -> Result<Self, Mismatch> {
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| Mismatch::Unreadable);
        let optional = |text: Option<String>| text.map(|text| bytes(&text)).transpose();
        let sent: Sent = serde_json::from_str(json).map_err(|_| Mismatch::Unreadable)?;
        let client_data = bytes(&sent.client_data)?;
        let credential = bytes(&sent.id)?;
        if credential.is_empty() || credential.len() > LONGEST_ID {
            return Err(Mismatch::Unreadable);
        }
        Ok(Self {
            credential,
            said: serde_json::from_slice(&client_data).map_err(|_| Mismatch::Unreadable)?,
            client_data,
            data: bytes(&sent.authenticator_data)?,
            signature: optional(sent.signature)?.unwrap_or_default(),
            user: optional(sent.user_handle)?.filter(|user| !user.is_empty()),
            public_key: optional(sent.public_key)?.unwrap_or_default(),
            algorithm: sent.algorithm.unwrap_or_default(),
        })
    }

    /// SHA-256 of the challenge that was answered, by which it is found.
    pub(super) fn challenge(&self) -> Result<[u8; 32], Mismatch> {
        let challenge = URL_SAFE_NO_PAD.decode(&self.said.challenge).map_err(|_| Mismatch::Unreadable)?;
        Ok(sha256(&challenge))
    }

    /// A new passkey, §7.1.
    pub(super) fn registered(&self, expected: &Expected<'_>) -> Result<PasskeyKey, Mismatch> {
        let (flags, counter) = self.compare("webauthn.create", expected)?;
        if flags & HAS_CREDENTIAL == 0 {
            return Err(Mismatch::Credential);
        }
        // The kind of authenticator (16 bytes), the id's length, the id.
        let rest = self.data.get(FIXED + 16..).ok_or(Mismatch::Unreadable)?;
        let (length, rest) = rest.split_first_chunk().ok_or(Mismatch::Unreadable)?;
        if rest.get(..usize::from(u16::from_be_bytes(*length))) != Some(&self.credential[..]) {
            return Err(Mismatch::Credential);
        }
        key(self.algorithm, &self.public_key)?;
        let (credential, public_key) = (self.credential.clone(), self.public_key.clone());
        Ok(PasskeyKey { credential, algorithm: self.algorithm, public_key, counter })
    }

    /// That the passkey was there, §7.2; answers its counter now.
    pub(super) fn proved(&self, expected: &Expected<'_>, known: &PasskeyKey, user: &str) -> Result<i64, Mismatch> {
        let (_, counter) = self.compare("webauthn.get", expected)?;
        if self.credential != known.credential {
            return Err(Mismatch::Credential);
        }
        if self.user.as_deref().is_some_and(|it| it != user.as_bytes()) {
            return Err(Mismatch::User);
        }
        let signed = [&self.data[..], &sha256(&self.client_data)].concat();
        let key = key(known.algorithm, &known.public_key)?;
        key.verify_sig(&signed, &self.signature).map_err(|_| Mismatch::Signature)?;
        // One that counts never stands still; one that doesn't says 0 for ever.
        let counts = counter > known.counter || (counter == 0 && known.counter == 0);
        if counts { Ok(counter) } else { Err(Mismatch::Counter) }
    }

    /// Compares what both ceremonies have in common; answers flags and counter.
    fn compare(&self, kind: &str, expected: &Expected<'_>) -> Result<(u8, i64), Mismatch> {
        if self.said.kind != kind {
            return Err(Mismatch::Kind);
        }
        if self.challenge()? != expected.challenge {
            return Err(Mismatch::Challenge);
        }
        if self.said.origin != expected.party.origin {
            return Err(Mismatch::Origin);
        }
        if self.said.cross_origin || self.said.top_origin.is_some() {
            return Err(Mismatch::CrossOrigin);
        }
        let fixed: &[u8; FIXED] = self.data.first_chunk().ok_or(Mismatch::Unreadable)?;
        if fixed[..32] != sha256(expected.party.id.as_bytes()) {
            return Err(Mismatch::Party);
        }
        let flags = fixed[32];
        if flags & USER_PRESENT == 0 {
            return Err(Mismatch::NotPresent);
        }
        if flags & USER_VERIFIED == 0 {
            return Err(Mismatch::NotVerified);
        }
        Ok((flags, i64::from(u32::from_be_bytes([fixed[33], fixed[34], fixed[35], fixed[36]]))))
    }
}

/// A public key as browsers hand it out.
fn key(algorithm: i64, public_key: &[u8]) -> Result<ParsedPublicKey, Mismatch> {
    let algorithm: &'static dyn VerificationAlgorithm = match algorithm {
        -7 => &ECDSA_P256_SHA256_ASN1,
        -8 => &ED25519,
        -257 => &RSA_PKCS1_2048_8192_SHA256,
        _ => return Err(Mismatch::Algorithm),
    };
    ParsedPublicKey::new(algorithm, public_key).map_err(|_| Mismatch::Key)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    };
    use serde_json::{Value, json};

    use super::*;

    const CHALLENGE: &[u8] = b"a challenge of thirty-two bytes.";
    const USER: &str = "key_of_anna";

    enum Signer {
        Ec(EcdsaKeyPair),
        Ed(Ed25519KeyPair),
        Rsa(RsaKeyPair),
    }

    impl Signer {
        fn all() -> [Self; 3] {
            [
                Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()),
                Self::Ed(Ed25519KeyPair::generate().unwrap()),
                Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
            ]
        }

        fn algorithm(&self) -> i64 {
            match self {
                Self::Ec(_) => -7,
                Self::Ed(_) => -8,
                Self::Rsa(_) => -257,
            }
        }

        fn public_key(&self) -> Vec<u8> {
            match self {
                Self::Ec(it) => it.public_key().as_der().unwrap().as_ref().to_vec(),
                Self::Ed(it) => it.public_key().as_der().unwrap().as_ref().to_vec(),
                Self::Rsa(it) => it.public_key().as_der().unwrap().as_ref().to_vec(),
            }
        }

        #[allow(clippy::disallowed_methods, reason = "what a device signs with is its own affair")]
        fn sign(&self, message: &[u8]) -> Vec<u8> {
            match self {
                Self::Ec(it) => it.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
                Self::Ed(it) => it.sign(message).as_ref().to_vec(),
                Self::Rsa(it) => {
                    let mut out = vec![0; it.public_modulus_len()];
                    it.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut out).unwrap();
                    out
                }
            }
        }
    }

    /// What a browser and a device say, before it is put into words.
    #[derive(Clone)]
    struct Says {
        client: Value,
        party: &'static str,
        flags: u8,
        counter: u32,
        id: Vec<u8>,
        id_inside: Vec<u8>,
        user: Option<&'static str>,
    }

    fn says(kind: &str) -> Says {
        let challenge = URL_SAFE_NO_PAD.encode(CHALLENGE);
        Says {
            client: json!({"type": kind, "challenge": challenge, "origin": "https://keys.example", "crossOrigin": false}),
            party: "keys.example",
            flags: USER_PRESENT | USER_VERIFIED,
            counter: 7,
            id: b"credential".to_vec(),
            id_inside: b"credential".to_vec(),
            user: Some(USER),
        }
    }

    fn data(it: &Says, with_credential: bool) -> Vec<u8> {
        let mut data = sha256(it.party.as_bytes()).to_vec();
        data.push(it.flags);
        data.extend(it.counter.to_be_bytes());
        if with_credential {
            data.extend([0; 16]);
            data.extend(u16::try_from(it.id_inside.len()).unwrap().to_be_bytes());
            data.extend(&it.id_inside);
            data.extend(b"a key in CBOR, which nobody reads");
        }
        data
    }

    fn created(it: &Says, algorithm: i64, public_key: &[u8]) -> String {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "id": text(&it.id), "clientDataJSON": text(it.client.to_string().as_bytes()),
            "authenticatorData": text(&data(it, it.flags & HAS_CREDENTIAL != 0)),
            "publicKey": text(public_key), "algorithm": algorithm,
        })
        .to_string()
    }

    fn got(it: &Says, signer: &Signer) -> String {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (client, data) = (it.client.to_string(), data(it, false));
        let signature = signer.sign(&[&data[..], &sha256(client.as_bytes())].concat());
        json!({
            "id": text(&it.id), "clientDataJSON": text(client.as_bytes()), "authenticatorData": text(&data),
            "signature": text(&signature), "userHandle": it.user.map(|user| text(user.as_bytes())),
        })
        .to_string()
    }

    fn party() -> Party {
        Party::of(&"https://keys.example/".parse().unwrap()).unwrap()
    }

    fn register(json: &str) -> Result<PasskeyKey, Mismatch> {
        let party = party();
        let expected = Expected { party: &party, challenge: sha256(CHALLENGE) };
        Answer::read(json)?.registered(&expected)
    }

    fn prove(json: &str, known: &PasskeyKey) -> Result<i64, Mismatch> {
        let party = party();
        let expected = Expected { party: &party, challenge: sha256(CHALLENGE) };
        Answer::read(json)?.proved(&expected, known, USER)
    }

    fn known(signer: &Signer, counter: i64) -> PasskeyKey {
        let (algorithm, public_key) = (signer.algorithm(), signer.public_key());
        PasskeyKey { credential: b"credential".to_vec(), algorithm, public_key, counter }
    }

    #[test]
    fn what_is_right_is_taken_with_each_kind_of_key() {
        for signer in Signer::all() {
            let new = Says { flags: USER_PRESENT | USER_VERIFIED | HAS_CREDENTIAL, ..says("webauthn.create") };
            let registered = register(&created(&new, signer.algorithm(), &signer.public_key())).unwrap();
            assert_eq!(registered, known(&signer, 7));
            let later = Says { counter: 8, ..says("webauthn.get") };
            assert_eq!(prove(&got(&later, &signer), &registered), Ok(8), "{}", signer.algorithm());
            // Some devices say nothing of the user, and don't count.
            let silent = Says { counter: 0, user: None, ..says("webauthn.get") };
            assert_eq!(prove(&got(&silent, &signer), &known(&signer, 0)), Ok(0));
        }
    }

    /// What may be wrong in both ceremonies.
    fn wrong(kind: &str) -> Vec<(Says, Mismatch)> {
        let good = Says { flags: USER_PRESENT | USER_VERIFIED | HAS_CREDENTIAL, ..says(kind) };
        let with = |name: &str, value: Value| {
            let mut it = good.clone();
            it.client[name] = value;
            it
        };
        vec![
            (with("type", "webauthn.other".into()), Mismatch::Kind),
            (with("challenge", URL_SAFE_NO_PAD.encode("another").into()), Mismatch::Challenge),
            (with("challenge", "".into()), Mismatch::Challenge),
            (with("challenge", "not base64!".into()), Mismatch::Unreadable),
            (with("origin", "https://evil.example".into()), Mismatch::Origin),
            (with("origin", "https://keys.example:444".into()), Mismatch::Origin),
            (with("origin", "http://keys.example".into()), Mismatch::Origin),
            (with("origin", "https://keys.example/".into()), Mismatch::Origin),
            (with("crossOrigin", true.into()), Mismatch::CrossOrigin),
            (with("topOrigin", "https://evil.example".into()), Mismatch::CrossOrigin),
            (with("crossOrigin", "no".into()), Mismatch::Unreadable),
            (Says { party: "example", ..good.clone() }, Mismatch::Party),
            (Says { flags: USER_VERIFIED | HAS_CREDENTIAL, ..good.clone() }, Mismatch::NotPresent),
            (Says { flags: USER_PRESENT | HAS_CREDENTIAL, ..good.clone() }, Mismatch::NotVerified),
            (Says { id: b"another".to_vec(), ..good.clone() }, Mismatch::Credential),
            (Says { id: Vec::new(), ..good.clone() }, Mismatch::Unreadable),
            (Says { id: vec![0; 1024], ..good }, Mismatch::Unreadable),
        ]
    }

    #[test]
    fn each_wrong_field_of_a_registration_is_refused() {
        let [signer, other, _] = Signer::all();
        let key = signer.public_key();
        for (it, reason) in wrong("webauthn.create") {
            assert_eq!(register(&created(&it, -7, &key)), Err(reason), "{}", it.client);
        }
        let good = Says { flags: USER_PRESENT | USER_VERIFIED | HAS_CREDENTIAL, ..says("webauthn.create") };
        assert_eq!(register(&created(&says("webauthn.create"), -7, &key)), Err(Mismatch::Credential), "none inside");
        assert_eq!(
            register(&created(&Says { client: says("webauthn.get").client, ..good.clone() }, -7, &key)),
            Err(Mismatch::Kind)
        );
        for (algorithm, key, reason) in [
            (-47, &key[..], Mismatch::Algorithm),
            (0, &key, Mismatch::Algorithm),
            (-8, &key, Mismatch::Key),
            (-257, &key, Mismatch::Key),
            (-7, &other.public_key(), Mismatch::Key),
            (-7, &key[..key.len() - 1], Mismatch::Key),
            (-7, &[], Mismatch::Key),
        ] {
            assert_eq!(register(&created(&good, algorithm, key)), Err(reason), "{algorithm}");
        }
        for hostile in
            ["", "{}", "[]", "null", "{\"id\":1}", "{\"id\":\"AA\",\"clientDataJSON\":\"\",\"authenticatorData\":\"\"}"]
        {
            assert_eq!(register(hostile), Err(Mismatch::Unreadable), "{hostile}");
        }
        // Cut off anywhere.
        let whole = data(&good, true);
        for length in 0..FIXED + 18 + good.id.len() {
            let mut json: Value = serde_json::from_str(&created(&good, -7, &key)).unwrap();
            json["authenticatorData"] = URL_SAFE_NO_PAD.encode(&whole[..length]).into();
            assert!(register(&json.to_string()).is_err(), "{length}");
        }
    }

    #[test]
    fn each_wrong_field_of_a_proof_is_refused() {
        let [signer, _, rsa] = Signer::all();
        let known_one = known(&signer, 6);
        for (it, reason) in wrong("webauthn.get") {
            assert_eq!(prove(&got(&it, &signer), &known_one), Err(reason), "{}", it.client);
        }
        let good = says("webauthn.get");
        assert_eq!(prove(&got(&good, &signer), &known_one), Ok(7));
        assert_eq!(
            prove(&got(&Says { client: says("webauthn.create").client, ..good.clone() }, &signer), &known_one),
            Err(Mismatch::Kind)
        );
        assert_eq!(
            prove(&got(&Says { user: Some("key_of_bob"), ..good.clone() }, &signer), &known_one),
            Err(Mismatch::User)
        );
        assert_eq!(prove(&got(&good, &rsa), &known_one), Err(Mismatch::Signature), "another key's");
        for (before, now) in [(7, 7), (8, 7), (1, 0)] {
            let it = Says { counter: now, ..good.clone() };
            assert_eq!(prove(&got(&it, &signer), &known(&signer, before)), Err(Mismatch::Counter), "{before} → {now}");
        }
        // What was signed, and nothing else.
        let mut json: Value = serde_json::from_str(&got(&good, &signer)).unwrap();
        let counted = data(&Says { counter: 9, ..good.clone() }, false);
        json["authenticatorData"] = URL_SAFE_NO_PAD.encode(counted).into();
        assert_eq!(prove(&json.to_string(), &known_one), Err(Mismatch::Signature));
        let mut json: Value = serde_json::from_str(&got(&good, &signer)).unwrap();
        json["clientDataJSON"] = URL_SAFE_NO_PAD.encode(format!("{} ", good.client)).into();
        assert_eq!(prove(&json.to_string(), &known_one), Err(Mismatch::Signature));
        let mut json: Value = serde_json::from_str(&got(&good, &signer)).unwrap();
        json["signature"] = Value::Null;
        assert_eq!(prove(&json.to_string(), &known_one), Err(Mismatch::Signature));
    }

    #[test]
    fn passkeys_need_a_name_and_https() {
        for (url, id) in [
            ("https://keys.example/", "keys.example"),
            ("https://keys.example:8443/", "keys.example"),
            ("http://localhost:8787/", "localhost"),
            ("http://kh.localhost:8787/", "kh.localhost"),
        ] {
            let party = Party::of(&url.parse().unwrap()).unwrap();
            assert_eq!((party.id.as_str(), party.origin.as_str()), (id, url.trim_end_matches('/')));
        }
        for (url, says) in [
            ("http://127.0.0.1:8787/", "KEYHOLDER_PUBLIC_URL=http://localhost:8787"),
            ("http://[::1]:8787/", "KEYHOLDER_PUBLIC_URL=http://localhost:8787"),
            ("https://10.0.0.7/", "by https"),
            ("http://keys.example/", "put TLS in front"),
        ] {
            let why = Party::of(&url.parse().unwrap()).unwrap_err();
            assert!(why.contains(says), "{url}: {why}");
        }
    }
}
