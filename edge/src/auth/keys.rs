//! Checking an access token (JWT, EdDSA only) against the public keys known now. Pure: time is an argument.

use std::collections::HashMap;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use natterjack_protocol::{
    Token,
    internal::{
        claims::{Claims, ISSUER},
        kv::PublicKey,
    },
};

use crate::refusals::EdgeError;

/// Why a token is not good. Says nothing about the token itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAccessToken {
    #[error("this is not an access token")]
    Malformed,
    #[error("the token's algorithm is not EdDSA")]
    Algorithm,
    #[error("the token was signed with a key that is not known (any more)")]
    UnknownKey { kid: Token },
    #[error("the token's signature or issuer is wrong")]
    Forged,
    #[error("the token has expired: get a new one with the refresh token")]
    Expired { claims: Box<Claims> },
}

impl From<BadAccessToken> for EdgeError {
    fn from(e: BadAccessToken) -> Self {
        Self::Token { expired: matches!(e, BadAccessToken::Expired { .. }), reason: e.to_string() }
    }
}

/// Longest token that is looked at; ours have about 400 bytes.
const TOKEN_BYTES: usize = 4_096;

#[derive(Default)]
pub struct AccessKeys(HashMap<Token, Key>);

struct Key {
    key: DecodingKey,
    /// Milliseconds since 1970.
    until: u64,
}

impl AccessKeys {
    /// None: deleted. False: it is not a key.
    pub fn put(&mut self, kid: &Token, value: Option<&PublicKey>) -> bool {
        match value.map(parse) {
            Some(Some(key)) => {
                self.0.insert(kid.clone(), key);
                true
            }
            Some(None) => false,
            None => {
                self.0.remove(kid);
                true
            }
        }
    }

    pub fn knows(&self, kid: &Token) -> bool {
        self.0.contains_key(kid)
    }

    pub fn check(&self, token: &str, now_ms: u64) -> Result<Claims, BadAccessToken> {
        if token.len() > TOKEN_BYTES {
            return Err(BadAccessToken::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| algorithm_or_malformed(token))?;
        if header.alg != Algorithm::EdDSA {
            return Err(BadAccessToken::Algorithm);
        }
        let kid = header.kid.and_then(|k| Token::parse(&k).ok()).ok_or(BadAccessToken::Malformed)?;
        let known = self.0.get(&kid).filter(|k| now_ms < k.until).ok_or(BadAccessToken::UnknownKey { kid })?;
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.set_issuer(&[ISSUER]);
        rules.set_required_spec_claims(&["exp", "iss", "sub"]);
        // By the clock that is an argument, below, and without leeway.
        rules.validate_exp = false;
        rules.validate_aud = false;
        let claims =
            jsonwebtoken::decode::<Claims>(token, &known.key, &rules).map_err(|_| BadAccessToken::Forged)?.claims;
        if claims.exp.saturating_mul(1_000) <= now_ms {
            return Err(BadAccessToken::Expired { claims: Box::new(claims) });
        }
        Ok(claims)
    }
}

fn parse(key: &PublicKey) -> Option<Key> {
    if key.ed25519.len() != 32 {
        return None;
    }
    let x = BASE64_URL_SAFE_NO_PAD.encode(&key.ed25519);
    Some(Key { key: DecodingKey::from_ed_components(&x).ok()?, until: key.until })
}

/// `none` is no algorithm to the library, so its header does not parse; the answer should still say what is wrong.
fn algorithm_or_malformed(token: &str) -> BadAccessToken {
    let header = token.split('.').next().and_then(|h| BASE64_URL_SAFE_NO_PAD.decode(h).ok());
    let names_one = header
        .and_then(|h| serde_json::from_slice::<serde_json::Value>(&h).ok())
        .is_some_and(|h| h.get("alg").is_some());
    if names_one { BadAccessToken::Algorithm } else { BadAccessToken::Malformed }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use ring::{rand::SystemRandom, signature::Ed25519KeyPair, signature::KeyPair};

    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    struct Issuer {
        signing: EncodingKey,
        public: Vec<u8>,
    }

    impl Issuer {
        fn new() -> Self {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
            let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
            Self { signing: EncodingKey::from_ed_der(pkcs8.as_ref()), public: pair.public_key().as_ref().to_vec() }
        }

        fn value(&self, until: u64) -> PublicKey {
            PublicKey { ed25519: self.public.clone(), until }
        }

        fn token(&self, kid: Option<&str>, claims: &Claims) -> String {
            let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
            jsonwebtoken::encode(&header, claims, &self.signing).unwrap()
        }
    }

    fn claims() -> Claims {
        let id = |s| Token::parse(s).unwrap();
        Claims {
            iss: ISSUER.into(),
            sub: id("u1"),
            device: id("d1"),
            fam: "f".into(),
            iat: NOW / 1000,
            exp: NOW / 1000 + 60,
        }
    }

    fn known(issuer: &Issuer) -> AccessKeys {
        let mut keys = AccessKeys::default();
        assert!(keys.put(&Token::parse("k1").unwrap(), Some(&issuer.value(NOW + 3_600_000))));
        keys
    }

    #[test]
    fn a_good_token_until_the_second_it_expires() {
        let issuer = Issuer::new();
        let keys = known(&issuer);
        let token = issuer.token(Some("k1"), &claims());
        assert_eq!(keys.check(&token, NOW), Ok(claims()));
        assert_eq!(keys.check(&token, NOW + 59_999), Ok(claims()));
        let expired = keys.check(&token, NOW + 60_000).unwrap_err();
        assert_eq!(crate::refusals::refuse(expired).code, natterjack_protocol::Code::TokenExpired);
    }

    #[test]
    fn forged_in_every_way() {
        let (issuer, stranger) = (Issuer::new(), Issuer::new());
        let keys = known(&issuer);
        let kid = Some("k1");
        assert_eq!(keys.check(&stranger.token(kid, &claims()), NOW), Err(BadAccessToken::Forged));
        let other_issuer = Claims { iss: "somebody".into(), ..claims() };
        assert_eq!(keys.check(&issuer.token(kid, &other_issuer), NOW), Err(BadAccessToken::Forged));
        assert!(matches!(
            keys.check(&issuer.token(Some("k2"), &claims()), NOW),
            Err(BadAccessToken::UnknownKey { .. })
        ));
        assert_eq!(
            keys.check(&issuer.token(Some("keys.*"), &claims()), NOW),
            Err(BadAccessToken::Malformed),
            "a kid becomes a key of a bucket"
        );
        assert_eq!(keys.check(&issuer.token(None, &claims()), NOW), Err(BadAccessToken::Malformed));

        // The public key as an HMAC secret: the classic.
        let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::HS256) };
        let hmac = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(&issuer.public)).unwrap();
        assert_eq!(keys.check(&hmac, NOW), Err(BadAccessToken::Algorithm));

        let b64 = |s: &str| BASE64_URL_SAFE_NO_PAD.encode(s);
        let body = serde_json::to_string(&claims()).unwrap();
        for none in ["none", "None", "NONE"] {
            let token = format!("{}.{}.", b64(&format!(r#"{{"alg":"{none}","kid":"k1"}}"#)), b64(&body));
            assert_eq!(keys.check(&token, NOW), Err(BadAccessToken::Algorithm));
        }
        let good = issuer.token(kid, &claims());
        let mut parts: Vec<&str> = good.split('.').collect();
        let richer = b64(&serde_json::to_string(&Claims { sub: Token::parse("root").unwrap(), ..claims() }).unwrap());
        parts[1] = &richer;
        assert_eq!(keys.check(&parts.join("."), NOW), Err(BadAccessToken::Forged));
        for nonsense in ["", ".", "..", "a.b.c", "x", &"y".repeat(10_000)] {
            assert_eq!(keys.check(nonsense, NOW), Err(BadAccessToken::Malformed), "{nonsense:.20}");
        }
    }

    #[test]
    fn keys_come_and_go() {
        let issuer = Issuer::new();
        let mut keys = known(&issuer);
        let token = issuer.token(Some("k1"), &claims());
        let kid = Token::parse("k1").unwrap();
        let short = PublicKey { ed25519: vec![1; 31], until: NOW + 3_600_000 };
        assert!(!keys.put(&kid, Some(&short)), "a value that is no key does not take the old one away");
        assert!(keys.check(&token, NOW).is_ok());
        keys.put(&kid, None);
        assert!(matches!(keys.check(&token, NOW), Err(BadAccessToken::UnknownKey { .. })));
        keys.put(&kid, Some(&issuer.value(NOW)));
        assert!(matches!(keys.check(&token, NOW), Err(BadAccessToken::UnknownKey { .. })), "past its `until`");
    }
}
