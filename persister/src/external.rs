//! Tokens of somebody else: is this JWT one of the configured issuer's, and who is it? Pure: keys, rules and time come
//! in. Who fetches the keys: `directory/issuer`; what a login makes of it: `directory/external`.
//!
//! The algorithm is the key's, never the token's. So `none` and every HMAC are no algorithms here, and a public key
//! cannot be taken for a secret. Nothing of the claims is looked at before the signature is good.

use std::{path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Validation};
use natterjack_protocol::{Code, Refusal, limits, text};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

mod jwks;

pub use jwks::{BadKeys, KeySet};

/// Whose tokens are taken, and how they are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// `iss`, exactly.
    pub issuer: String,
    /// Must stand in `aud`.
    pub audience: String,
    pub keys: KeySource,
    /// The claim that says who it is.
    pub subject_claim: String,
    /// The claim that the name of a new account is made of.
    pub name_claim: Option<String>,
}

/// Where a set of keys (JWKS) is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    Url(String),
    File(PathBuf),
}

/// Longest token that is looked at; those with many groups in them have a few kilobytes.
const TOKEN_BYTES: usize = 16 * 1024;
const SUBJECT_BYTES: usize = 255;
/// Between the issuer's clock and ours.
const LEEWAY_S: f64 = 30.0;

/// Why a token is not good. Says nothing of what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("this is not a signed JWT with a key id (`kid`)")]
    Malformed,
    #[error("the token has more than {TOKEN_BYTES} bytes: ask its issuer for one with fewer claims")]
    Long,
    #[error("the token's algorithm (`alg`) is not the one of its key: RS256, ES256 or EdDSA")]
    Algorithm,
    #[error("the token's key (`kid`) is none that its issuer publishes: get a new token")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Forged,
    #[error("the token's issuer (`iss`) is not the configured one")]
    Issuer,
    #[error("the token is not for this audience: its `aud` lacks the configured one")]
    Audience,
    #[error("the token does not say when it expires (`exp`)")]
    NoExpiry,
    #[error("the token has expired: get a new one from its issuer")]
    Expired,
    #[error("the token is not good yet (`nbf`): compare the clocks of its issuer and of this server")]
    NotYet,
    #[error("the token has no claim {0:?} that says who it is: a text of 1 to {SUBJECT_BYTES} bytes")]
    Subject(String),
}

impl BadToken {
    /// As it is counted.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Long => "long",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Forged => "forged",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::NoExpiry => "no_expiry",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Subject(_) => "subject",
        }
    }
}

impl From<BadToken> for Refusal {
    fn from(e: BadToken) -> Self {
        let code = if e == BadToken::Expired { Code::TokenExpired } else { Code::Unauthorized };
        Self::new(code, e.to_string())
    }
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    /// What must be understood and is not.
    crit: Option<Value>,
}

/// Whom a good token is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub subject: String,
    /// As the issuer spells it.
    pub name: Option<String>,
    /// Since the token was made (`iat`), if it says that.
    pub age: Option<Duration>,
}

impl External {
    pub fn check(&self, token: &str, keys: &KeySet, now_ms: u64) -> Result<Person, BadToken> {
        if token.len() > TOKEN_BYTES {
            return Err(BadToken::Long);
        }
        let head = token.split('.').next().and_then(|h| URL_SAFE_NO_PAD.decode(h).ok()).ok_or(BadToken::Malformed)?;
        let head: Head = serde_json::from_slice(&head).map_err(|_| BadToken::Malformed)?;
        let algorithm = match head.alg.as_str() {
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            "EdDSA" => Algorithm::EdDSA,
            _ => return Err(BadToken::Algorithm),
        };
        let kid = head.kid.filter(|_| head.crit.is_none()).ok_or(BadToken::Malformed)?;
        let key = keys.get(&kid).ok_or(BadToken::UnknownKey)?;
        if key.algorithm != algorithm {
            return Err(BadToken::Algorithm);
        }
        let mut rules = Validation::new(key.algorithm);
        // The claims are judged below, by the clock that is an argument.
        rules.set_required_spec_claims::<&str>(&[]);
        (rules.validate_exp, rules.validate_nbf, rules.validate_aud) = (false, false, false);
        let claims = jsonwebtoken::decode::<Value>(token, &key.key, &rules).map_err(|_| BadToken::Forged)?.claims;
        self.judge(&claims, now_ms)
    }

    fn judge(&self, claims: &Value, now_ms: u64) -> Result<Person, BadToken> {
        if claims["iss"].as_str() != Some(&self.issuer) {
            return Err(BadToken::Issuer);
        }
        let audience = |a: &Value| a.as_str() == Some(&self.audience);
        if !audience(&claims["aud"]) && !claims["aud"].as_array().is_some_and(|all| all.iter().any(audience)) {
            return Err(BadToken::Audience);
        }
        let now = now_ms as f64 / 1_000.0;
        if claims["exp"].as_f64().ok_or(BadToken::NoExpiry)? + LEEWAY_S <= now {
            return Err(BadToken::Expired);
        }
        if !claims["nbf"].is_null() && !claims["nbf"].as_f64().is_some_and(|nbf| nbf <= now + LEEWAY_S) {
            return Err(BadToken::NotYet);
        }
        let subject = claims[&self.subject_claim].as_str().filter(|s| !s.is_empty() && s.len() <= SUBJECT_BYTES);
        let subject = subject.ok_or_else(|| BadToken::Subject(self.subject_claim.clone()))?;
        let name = self.name_claim.as_ref().and_then(|claim| claims[claim].as_str());
        let age = claims["iat"].as_f64().and_then(|iat| Duration::try_from_secs_f64((now - iat).max(0.0)).ok());
        Ok(Person { subject: subject.to_owned(), name: name.map(str::to_owned), age })
    }

    /// Names for a new account, best first: what the issuer calls them, then with something that is theirs alone behind
    /// it. Always the same for the same person, so that two first logins at once ask for the same ones. Whoever knows
    /// the person can take them all beforehand; the store has one more, which nobody can know.
    pub fn names(&self, person: &Person) -> Vec<String> {
        let mut hash = Sha256::new();
        hash.update(self.issuer.as_bytes());
        hash.update([0]);
        hash.update(person.subject.as_bytes());
        let own: String = hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
        let called = person.name.as_deref().and_then(called);
        let behind = |digits: usize| {
            let begin = |name: &str| name.chars().take(limits::USER_NAME_CHARS - digits - 1).collect::<String>();
            // The digits are Latin, which not every name goes with.
            let with = |name: &str| text::user_name(&format!("{}-{}", begin(name), &own[..digits])).ok();
            called.as_deref().and_then(with).or_else(|| with("user"))
        };
        called.iter().cloned().chain([4, 8, 16].into_iter().filter_map(behind)).collect()
    }
}

/// As much of a name as a name here may have; of an address what stands before the @. If that is none, of the ASCII in
/// it.
fn called(name: &str) -> Option<String> {
    let before = name.split('@').next().unwrap_or_default();
    let spaced: String = before.trim().chars().map(|c| if c.is_whitespace() { '-' } else { c }).collect();
    let kept = |fits: fn(char) -> bool| {
        text::user_name_chars(&spaced).filter(|c| fits(*c)).take(limits::USER_NAME_CHARS).collect::<String>()
    };
    text::user_name(&kept(|_| true)).or_else(|_| text::user_name(&kept(|c| c.is_ascii()))).ok()
}

#[cfg(test)]
mod tests;
