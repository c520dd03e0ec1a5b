//! Tokens that `directory` gives: signed access tokens (verified by edges with the public keys in the control bucket)
//! and opaque refresh tokens (stored as hashes). Pure: time and keys come in, tokens go out. Who publishes the keys:
//! `directory/keys`.

use std::{fmt, time::Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use natterjack_protocol::{
    DeviceId, Times, Token, UserId,
    internal::{
        claims::{Claims, ISSUER},
        kv::PublicKey,
    },
};
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use sha2::{Digest, Sha256};

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("making a key or a token: the source of randomness does not answer")]
    NoRandomness,
    #[error("a new key was not accepted by its own library")]
    BadKey,
    #[error("signing an access token: {0}")]
    Sign(jsonwebtoken::errors::Error),
    /// No new key could be published for so long that tokens of this one would outlive it.
    #[error("the signing key is too old and no newer one could be published")]
    KeyTooOld,
}

/// What has to be known for as long as a token is good (its key, that its login is over) is kept so much longer,
/// milliseconds: the server's time, by which both end, may step.
pub const STEP: u64 = 6 * 3_600_000;

/// How long keys live, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTimes {
    /// A key signs for this long.
    pub rotation: u64,
    /// What it signed is good for this long.
    pub access: u64,
    /// Edges accept a token this long past its expiry while `directory` does not answer; its key has to be there.
    pub grace: u64,
}

impl KeyTimes {
    pub fn new(times: &Times) -> Self {
        let access = times.access_token.as_millis().try_into().unwrap_or(u64::MAX / 4);
        Self { rotation: 24 * 3_600_000, access, grace: 3_600_000 }
    }
}

/// A key pair. The private half never leaves the process that made it.
pub struct SigningKey {
    pub kid: Token,
    encoding: EncodingKey,
    public: Vec<u8>,
    /// Tokens of this key are refused from here on, milliseconds since 1970.
    pub until: u64,
    times: KeyTimes,
    /// It is as old as the monotonic clock says.
    made: Instant,
}

impl SigningKey {
    pub fn generate(now_ms: u64, times: KeyTimes) -> Result<Self, TokenError> {
        let rng = SystemRandom::new();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&rng).map_err(|_| TokenError::NoRandomness)?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|_| TokenError::BadKey)?;
        Ok(Self {
            kid: Token::mint('k', random()?),
            encoding: EncodingKey::from_ed_der(pkcs8.as_ref()),
            public: pair.public_key().as_ref().to_vec(),
            until: now_ms + times.rotation + times.access + times.grace + STEP,
            times,
            made: Instant::now(),
        })
    }

    /// What edges need to check its tokens.
    pub fn public(&self) -> PublicKey {
        PublicKey { ed25519: self.public.clone(), until: self.until }
    }

    /// Has it signed for long enough?
    pub fn is_due(&self, at: Instant) -> bool {
        self.age(at) >= self.times.rotation
    }

    /// Would what it signs now expire before the key does?
    pub fn can_sign(&self, at: Instant) -> bool {
        self.age(at) <= self.times.rotation + self.times.grace
    }

    fn age(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.made).as_millis().try_into().unwrap_or(u64::MAX)
    }

    /// An access token, given at `now_ms` of the server's time, and for how many seconds it is good.
    pub fn sign(
        &self,
        user: &UserId,
        device: &DeviceId,
        family: &Token,
        now_ms: u64,
    ) -> Result<(String, u64), TokenError> {
        let (iat, exp) = (now_ms / 1000, (now_ms + self.times.access) / 1000);
        let header = Header { kid: Some(self.kid.to_string()), ..Header::new(Algorithm::EdDSA) };
        let claims =
            Claims { iss: ISSUER.into(), sub: user.clone(), device: device.clone(), fam: family.to_string(), iat, exp };
        let token = jsonwebtoken::encode(&header, &claims, &self.encoding).map_err(TokenError::Sign)?;
        Ok((token, exp - iat))
    }
}

/// SHA-256 of a refresh token: what the store knows of it. 256 random bits need no slow hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RefreshHash(pub [u8; 32]);

/// SHA-256 of an invite's code, which has 160 random bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InviteHash(pub [u8; 32]);

impl InviteHash {
    pub fn of(code: &Token) -> Self {
        Self(Sha256::digest(code.as_str()).into())
    }
}

/// A refresh token: 256 random bits in base64url. Whoever has it, has the login.
pub struct RefreshSecret(String);

/// What a refresh token and this make is the next one. Kept beside the hash of the next one until that is used: whoever
/// shows the old one again can be given the same, and neither who reads the store nor who has an old token can make it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt(pub [u8; 32]);

impl Salt {
    pub fn mint() -> Result<Self, TokenError> {
        Ok(Self(random()?))
    }
}

impl RefreshSecret {
    pub fn mint() -> Result<Self, TokenError> {
        Ok(Self(URL_SAFE_NO_PAD.encode(random::<32>()?)))
    }

    /// None: not the spelling of any token of ours, no need to ask the store.
    pub fn parse(s: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(s).ok()?;
        (bytes.len() == 32).then(|| Self(s.to_owned()))
    }

    pub fn hash(&self) -> RefreshHash {
        RefreshHash(Sha256::digest(self.0.as_bytes()).into())
    }

    /// HMAC-SHA-256 of this one under the salt: as random as both.
    pub fn next(&self, salt: &Salt) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salt.0);
        Self(URL_SAFE_NO_PAD.encode(hmac::sign(&key, self.0.as_bytes())))
    }

    pub fn into_secret(self) -> String {
        self.0
    }
}

impl fmt::Debug for RefreshSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshSecret(…)")
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(…)")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

/// Mints the id of a user (`u`), of a family of refresh tokens (`f`), and the like.
pub fn mint_id(prefix: char) -> Result<Token, TokenError> {
    Ok(Token::mint(prefix, random()?))
}

fn random<const N: usize>() -> Result<[u8; N], TokenError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| TokenError::NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jsonwebtoken::{DecodingKey, Validation, errors::ErrorKind};

    use super::*;

    const TIMES: KeyTimes = KeyTimes { rotation: 1_000_000, access: 100_000, grace: 50_000 };

    fn now_ms() -> u64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
    }

    /// As an edge does it: the algorithm is ours to choose, never the token's.
    fn verify(token: &str, key: &PublicKey) -> Result<Claims, ErrorKind> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.leeway = 0;
        let key = DecodingKey::from_ed_der(&key.ed25519);
        jsonwebtoken::decode(token, &key, &validation).map(|t| t.claims).map_err(|e| e.kind().clone())
    }

    fn claims_of(token: &str) -> Claims {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
    }

    fn sign(key: &SigningKey, now: u64) -> String {
        let id = |s| Token::parse(s).unwrap();
        key.sign(&id("u1"), &id("d1"), &id("f1"), now).unwrap().0
    }

    #[test]
    fn signed_by_us_and_good_for_its_time() {
        let now = now_ms();
        let key = SigningKey::generate(now, TIMES).unwrap();
        let token = sign(&key, now);
        let claims = verify(&token, &key.public()).unwrap();
        assert_eq!((claims.sub.as_str(), claims.device.as_str(), claims.fam.as_str()), ("u1", "d1", "f1"));
        assert_eq!(claims.exp, (now + TIMES.access) / 1000);
        assert_eq!(jsonwebtoken::decode_header(&token).unwrap().kid.as_deref(), Some(key.kid.as_str()));
        assert_eq!(verify(&sign(&key, now - 200_000), &key.public()), Err(ErrorKind::ExpiredSignature));
    }

    #[test]
    fn forged_tokens_are_refused() {
        let now = now_ms();
        let (key, other) = (SigningKey::generate(now, TIMES).unwrap(), SigningKey::generate(now, TIMES).unwrap());
        assert_ne!(key.kid, other.kid);
        assert_eq!(verify(&sign(&other, now), &key.public()), Err(ErrorKind::InvalidSignature));
        let token = sign(&key, now);
        let claims = token.split('.').nth(1).unwrap();
        let none = URL_SAFE_NO_PAD.encode(br#"{"typ":"JWT","alg":"none"}"#);
        assert!(verify(&format!("{none}.{claims}."), &key.public()).is_err());
        // The public key taken for an HMAC secret: the classic confusion.
        let header = Header { kid: Some(key.kid.to_string()), ..Header::new(Algorithm::HS256) };
        let fake: Claims = verify(&token, &key.public()).unwrap();
        let hmac = jsonwebtoken::encode(&header, &fake, &EncodingKey::from_secret(&key.public().ed25519)).unwrap();
        assert_eq!(verify(&hmac, &key.public()), Err(ErrorKind::InvalidAlgorithm));
    }

    #[test]
    fn a_key_outlives_what_it_signed() {
        let key = SigningKey::generate(5_000_000, TIMES).unwrap();
        let after = |ms| key.made + Duration::from_millis(ms);
        assert!(!key.is_due(after(TIMES.rotation - 1)) && key.is_due(after(TIMES.rotation)));
        let last = TIMES.rotation + TIMES.grace;
        assert!(key.can_sign(after(last)) && !key.can_sign(after(last + 1)));
        let id = |s| Token::parse(s).unwrap();
        let (token, seconds) = key.sign(&id("u"), &id("d"), &id("f"), 5_000_000 + last).unwrap();
        assert_eq!(seconds, TIMES.access / 1_000);
        let exp = 1_000 * claims_of(&token).exp;
        assert!(exp + STEP <= key.until, "also if the server's clock steps by hours meanwhile");
    }

    #[test]
    fn the_next_token_hangs_on_the_old_one_and_on_the_salt() {
        let (old, other, salt) =
            (RefreshSecret::mint().unwrap(), RefreshSecret::mint().unwrap(), Salt::mint().unwrap());
        let next = old.next(&salt);
        assert!(next.hash() == old.next(&salt).hash(), "the same again");
        assert!(RefreshSecret::parse(&old.next(&salt).into_secret()).is_some());
        for different in [&old, &other.next(&salt), &old.next(&Salt::mint().unwrap()), &next.next(&salt)] {
            assert!(different.hash() != next.hash());
        }
        assert_eq!(format!("{salt:?}"), "Salt(…)");
    }

    #[test]
    fn refresh_tokens_are_known_by_their_hash_and_never_printed() {
        let (a, b) = (RefreshSecret::mint().unwrap(), RefreshSecret::mint().unwrap());
        assert!(a.hash() != b.hash());
        assert_eq!(format!("{a:?}"), "RefreshSecret(…)");
        let hash = a.hash();
        let secret = a.into_secret();
        assert_eq!(secret.len(), 43);
        assert!(RefreshSecret::parse(&secret).unwrap().hash() == hash);
        for bad in ["", "abc", &secret[1..], &format!("{secret}="), "ä"] {
            assert!(RefreshSecret::parse(bad).is_none(), "{bad}");
        }
    }
}
