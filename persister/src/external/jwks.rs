//! The keys that an issuer publishes (JWKS, RFC 7517): those of them that can check a token, by their id.

use std::collections::HashMap;

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// Keys that are kept of a set.
const KEYS: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a JWKS (`{{\"keys\": […]}}`): {0}")]
pub struct BadKeys(String);

/// The keys of an issuer, by their id.
pub struct KeySet(HashMap<String, Key>);

/// A key has one algorithm, whatever a token says.
pub(super) struct Key {
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kid: String,
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Keys of other sorts, or for another use, are left out: they say nothing about the rest. So a set may be empty:
    /// an issuer that takes all its keys back means it.
    pub fn parse(json: &[u8]) -> Result<Self, BadKeys> {
        let set: Jwks = serde_json::from_slice(json).map_err(|e| BadKeys(e.to_string()))?;
        Ok(Self(set.keys.into_iter().filter_map(key).take(KEYS).collect()))
    }

    pub(super) fn get(&self, kid: &str) -> Option<&Key> {
        self.0.get(kid)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn key(jwk: Value) -> Option<(String, Key)> {
    let jwk: Jwk = serde_json::from_value(jwk).ok()?;
    if jwk.usage.is_some_and(|u| u != "sig") || jwk.key_ops.is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
        return None;
    }
    let (algorithm, name, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => (Algorithm::RS256, "RS256", DecodingKey::from_rsa_components(&jwk.n?, &jwk.e?)),
        ("EC", Some("P-256")) => (Algorithm::ES256, "ES256", DecodingKey::from_ec_components(&jwk.x?, &jwk.y?)),
        ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, "EdDSA", DecodingKey::from_ed_components(&jwk.x?)),
        _ => return None,
    };
    if jwk.alg.is_some_and(|alg| alg != name) {
        return None;
    }
    Some((jwk.kid, Key { algorithm, key: key.ok()? }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_of_other_sorts_are_left_out() {
        let ed =
            json!({ "kid": "k1", "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        let other = |kid: &str, key: &str, value: Value| {
            let mut jwk = ed.clone();
            (jwk["kid"], jwk[key]) = (json!(kid), value);
            jwk
        };
        let kept = |keys: Value| {
            let set = KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
            let mut kids: Vec<_> = set.0.into_keys().collect();
            kids.sort();
            kids
        };
        let keys = json!([
            other("enc", "use", json!("enc")), other("wrap", "key_ops", json!(["wrapKey"])),
            other("es", "alg", json!("ES256")),
            other("hs", "alg", json!("HS256")), other("short", "x", json!("?")),
            { "kid": "s", "kty": "oct", "k": "c2VjcmV0" },
            { "kid": "p384", "kty": "EC", "crv": "P-384", "x": "AA", "y": "AA" },
            { "kty": "OKP" }, "nonsense", ed,
            other("k2", "use", json!("sig")), other("k3", "key_ops", json!(["verify"])),
            other("k4", "alg", json!("EdDSA")),
        ]);
        assert_eq!(kept(keys), ["k1", "k2", "k3", "k4"]);
        assert_eq!(kept((0..200).map(|n| other(&format!("k{n}"), "use", json!("sig"))).collect()).len(), KEYS);
    }

    #[test]
    fn no_key_at_all_is_a_set_and_a_page_for_people_is_none() {
        assert!(KeySet::parse(br#"{"keys":[]}"#).unwrap().is_empty());
        for bad in ["<html>", "", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":null}"#] {
            assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
