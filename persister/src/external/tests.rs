use jsonwebtoken::{EncodingKey, Header};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000_000;

fn external() -> External {
    External {
        issuer: "https://login.example".into(),
        audience: "chat".into(),
        keys: KeySource::File("unused".into()),
        subject_claim: "sub".into(),
        name_claim: Some("preferred_username".into()),
    }
}

struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    jwk: Value,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    fn ed(kid: &str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let jwk = json!({ "kid": kid, "kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key()) });
        Self { algorithm: Algorithm::EdDSA, key: EncodingKey::from_ed_der(pkcs8.as_ref()), jwk }
    }

    fn ec(kid: &str) -> Self {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let jwk = json!({ "kid": kid, "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
            "x": b64(x), "y": b64(y) });
        Self { algorithm: Algorithm::ES256, key: EncodingKey::from_ec_der(pkcs8.as_ref()), jwk }
    }

    fn sign(&self, claims: &Value) -> String {
        let kid = Some(self.jwk["kid"].as_str().unwrap().to_owned());
        jsonwebtoken::encode(&Header { kid, ..Header::new(self.algorithm) }, claims, &self.key).unwrap()
    }
}

fn set(signers: &[&Signer]) -> KeySet {
    KeySet::parse(json!({ "keys": signers.iter().map(|s| s.jwk.clone()).collect::<Vec<_>>() }).to_string().as_bytes())
        .unwrap()
}

fn claims() -> Value {
    json!({
        "iss": "https://login.example", "aud": ["other", "chat"], "sub": "4711", "preferred_username": "Alice",
        "exp": NOW / 1_000 + 60, "nbf": NOW / 1_000 - 60,
    })
}

fn with(key: &str, value: Value) -> Value {
    let mut all = claims();
    all[key] = value;
    all
}

#[test]
fn a_good_token_of_every_sort() {
    let (ed, ec) = (Signer::ed("k1"), Signer::ec("k2"));
    let keys = set(&[&ed, &ec]);
    let alice = Person { subject: "4711".into(), name: Some("Alice".into()), age: None };
    for signer in [&ed, &ec] {
        assert_eq!(external().check(&signer.sign(&claims()), &keys, NOW), Ok(alice.clone()));
        assert_eq!(external().check(&signer.sign(&with("aud", json!("chat"))), &keys, NOW), Ok(alice.clone()));
    }
    for good in [with("exp", json!(NOW / 1_000 - 29)), with("nbf", json!(NOW / 1_000 + 29)), with("nbf", json!(null))] {
        assert_eq!(external().check(&ed.sign(&good), &keys, NOW), Ok(alice.clone()), "{good}");
    }
    let aged = |iat: Value| external().check(&ed.sign(&with("iat", iat)), &keys, NOW).unwrap().age;
    assert_eq!(aged(json!(NOW / 1_000 - 90)), Some(Duration::from_secs(90)));
    assert_eq!((aged(json!(NOW / 1_000 + 9)), aged(json!("x"))), (Some(Duration::ZERO), None));
    let by_mail = External { subject_claim: "email".into(), name_claim: None, ..external() };
    let person = by_mail.check(&ed.sign(&with("email", json!("a@b.c"))), &keys, NOW);
    assert_eq!(person, Ok(Person { subject: "a@b.c".into(), name: None, age: None }));
}

/// A key and a token of it, made by another library (pyca/cryptography); the private half is gone.
const RSA_N: &str = "\
         xtOA0ATwdZS-XmmMFbsMC8Ql4kMIqtHDFfvLfcvIWP9QydhfTGTMSRii3KFEOemcXHcfBtSKJKC5k-3CXPq2dFbxhWaWGc0DUXD8\
         Zvi4Toy1tt0VU-jK-tmksUd0TG1-H82slokQ-SndFWZEBkzSA1riSpjaydScPEnW-iiB2EpxTdfmSmns4ksjcRpxIWcrug4aqy24\
         27EmGt94whbTrhRQXF3dNItGtqWAMb-6Rczg_F0O62Chda9GJh6vPq119qq4yxYYdwQYPmuyytfhyaoJwIqwDOwYH5YAK_ZtBOGA\
         zIGX1vJbmIpN89Au7xx7dKLxclYSo8KXwtZIUvMkCQ";
const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.\
         eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUiLCJhdWQiOiJjaGF0Iiwic3ViIjoiNDcxMSIsImV4cCI6MTgwMDAwMDA2MH0.\
         SukeF9_FvAx9Ul8UHeCMd-q8lpstsLIQWTW2PibGlQgImnDIZByRnDwjTx-XoLSpP4KXxZHmNWaagLSjZVhwJXuxxrERWKRrHFVt\
         Ri7m5R3hqCvW7_3RljVUTdVFCcgpD9SSlt8OGDwnV4KcaPC6gA8u94aA5XdQYIP7HsW47Z5szRKwNTUgKu7f1cVamMNIu-0VzpZj\
         lrW__dtlCIPgJ0A60aQ4gftg4RPr-pMqaUNk_dUwFjLRLsj_acBWZ0b-M9NpYXIjXFb57KdaKcj1qy3ig0oCGMC-K0W5tghu37hv\
         qIXW8aY1cKkNq5J9f_OtjU6mA0UT3q7PPx-vHa6Hjw";

#[test]
fn rsa_is_checked() {
    let set = |more: Value| {
        let mut jwk = json!({ "kid": "rsa", "kty": "RSA", "n": RSA_N, "e": "AQAB" });
        more.as_object().unwrap().iter().for_each(|(k, v)| jwk[k] = v.clone());
        KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap()
    };
    let keys = set(json!({}));
    let check = |token: &str| external().check(token, &keys, NOW);
    assert_eq!(check(RSA_TOKEN), Ok(Person { subject: "4711".into(), name: None, age: None }));
    assert_eq!(
        external().check(RSA_TOKEN, &set(json!({ "alg": "RS256", "use": "sig" })), NOW).map(|p| p.subject),
        Ok("4711".into())
    );
    assert_eq!(
        external().check(RSA_TOKEN, &set(json!({ "alg": "PS256" })), NOW),
        Err(BadToken::UnknownKey),
        "its key is for PS256"
    );
    // Somebody else's claims before the same signature.
    let (head, rest) = RSA_TOKEN.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let other = b64(with("sub", json!("4712")).to_string());
    assert_eq!(check(&format!("{head}.{other}.{signature}")), Err(BadToken::Forged));
    // The key taken for one of another sort, and, the classic, for a secret.
    for alg in ["ES256", "EdDSA"] {
        let head = b64(json!({ "alg": alg, "kid": "rsa" }).to_string());
        assert_eq!(check(&format!("{head}.{rest}")), Err(BadToken::Algorithm), "{alg}");
    }
    let header = Header { kid: Some("rsa".into()), ..Header::new(Algorithm::HS256) };
    let secret = EncodingKey::from_secret(&URL_SAFE_NO_PAD.decode(RSA_N).unwrap());
    assert_eq!(check(&jsonwebtoken::encode(&header, &claims(), &secret).unwrap()), Err(BadToken::Algorithm));
}

#[test]
fn whatever_is_wrong_has_its_name() {
    let (signer, stranger) = (Signer::ed("k1"), Signer::ed("k1"));
    let keys = set(&[&signer]);
    let check = |token: &str| external().check(token, &keys, NOW).unwrap_err();
    assert_eq!(check(&stranger.sign(&claims())), BadToken::Forged);
    assert_eq!(check(&Signer::ed("k2").sign(&claims())), BadToken::UnknownKey);
    assert_eq!(check(&Signer::ec("k1").sign(&claims())), BadToken::Algorithm, "a key has one algorithm");
    for (key, value, why) in [
        ("iss", json!("https://login.example/"), BadToken::Issuer),
        ("iss", json!(["https://login.example"]), BadToken::Issuer),
        ("aud", json!("other"), BadToken::Audience),
        ("aud", json!(null), BadToken::Audience),
        ("aud", json!([["chat"]]), BadToken::Audience),
        ("iss", json!(null), BadToken::Issuer),
        ("exp", json!(NOW / 1_000 - 31), BadToken::Expired),
        ("exp", json!(null), BadToken::NoExpiry),
        ("exp", json!("9999999999"), BadToken::NoExpiry),
        ("exp", json!(-1), BadToken::Expired),
        ("nbf", json!(NOW / 1_000 + 31), BadToken::NotYet),
        ("nbf", json!("0"), BadToken::NotYet),
        ("sub", json!(""), BadToken::Subject("sub".into())),
        ("sub", json!(4711), BadToken::Subject("sub".into())),
        ("sub", json!("x".repeat(256)), BadToken::Subject("sub".into())),
    ] {
        assert_eq!(check(&signer.sign(&with(key, value.clone()))), why, "{key} {value}");
    }
    assert_eq!(Refusal::from(BadToken::Expired).code, Code::TokenExpired);
    assert_eq!(Refusal::from(BadToken::Forged).code, Code::Unauthorized);
}

#[test]
fn no_algorithm_and_no_secret() {
    let signer = Signer::ed("k1");
    let (keys, body) = (set(&[&signer]), b64(claims().to_string()));
    let check = |token: &str| external().check(token, &keys, NOW).unwrap_err();
    for none in ["none", "None", "NONE", "HS256", "PS256", ""] {
        let head = b64(json!({ "alg": none, "kid": "k1" }).to_string());
        assert_eq!(check(&format!("{head}.{body}.")), BadToken::Algorithm, "{none:?}");
    }
    // The public key taken for an HMAC secret.
    let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::HS256) };
    let secret = URL_SAFE_NO_PAD.decode(signer.jwk["x"].as_str().unwrap()).unwrap();
    assert_eq!(
        check(&jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(&secret)).unwrap()),
        BadToken::Algorithm
    );
    assert_eq!(check(&format!("{}.{}", "x".repeat(TOKEN_BYTES), body)), BadToken::Long);
    // An empty signature, half a token, nonsense, an extension that must be understood.
    let good = signer.sign(&claims());
    assert_eq!(check(&good[..=good.rfind('.').unwrap()]), BadToken::Forged);
    assert_eq!(check(good.split_once('.').unwrap().0), BadToken::Forged);
    for bad in ["", ".", "..", "a.b.c", &format!("{}.{body}.", b64(br#"{"alg":"EdDSA","kid":"k1","crit":["b64"]}"#))] {
        assert_eq!(check(bad), BadToken::Malformed, "{:.20}", bad);
    }
}

#[test]
fn names_are_such_as_anybody_may_have() {
    let names = |name: Option<&str>| {
        external().names(&Person { subject: "4711".into(), name: name.map(str::to_owned), age: None })
    };
    let alice = names(Some("Alice"));
    assert_eq!((alice.len(), alice[0].as_str()), (4, "Alice"));
    assert!(alice[1].starts_with("Alice-") && alice[2].starts_with(&alice[1]) && alice[3].starts_with(&alice[2]));
    assert_eq!(alice, names(Some("Alice")));
    assert_eq!(names(Some("alice.b@example.org"))[0], "alice.b");
    assert_eq!(names(Some(" Zoe\u{308} van Dyk "))[0], "Zoë-van-Dyk");
    assert_eq!(
        (&*names(Some("Жанна"))[0], &*names(Some("Жanna\0\u{202e}"))[0]),
        ("жанна", "anna"),
        "letters of one script"
    );
    assert_eq!(names(Some("שלום"))[0], "שלום");
    for nobody in [None, Some(""), Some("@x"), Some("ü"), Some("x"), Some("\u{202e}\0"), Some("--"), Some("🐸🐸")]
    {
        let names = names(nobody);
        assert!(names.len() == 3 && names[0].starts_with("user-"), "{nobody:?}: {names:?}");
    }
    let long = names(Some(&"x".repeat(100)));
    for name in long
        .iter()
        .chain(&names(Some("Zoe\u{308}".repeat(20).as_str())))
        .chain(&names(Some("王小明")))
        .chain(&names(Some("שלום")))
    {
        assert_eq!(text::user_name(name).as_ref(), Ok(name));
    }
    let other = external().names(&Person { subject: "4712".into(), name: Some("Alice".into()), age: None });
    assert!(other[0] == alice[0] && other[1] != alice[1]);
}
