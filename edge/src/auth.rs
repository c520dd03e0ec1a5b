//! Who is it? Access tokens against the public keys in the control bucket: an edge can check tokens, never make them.
//!
//! A login that is revoked (logged out, or its refresh token was used twice) stands in the same bucket: whatever
//! happens to an edge or its connection, it reads on from where it was, and closes the sessions concerned.

pub mod keys;
pub mod revoked;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use natterjack_nats::{KvBuckets, KvError, ServerTime, WatchProgress};
use natterjack_protocol::{DeviceId, Refusal, Times, Token, UserId, internal::claims::Claims};
use parking_lot::RwLock;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    directory::Directory,
    refusals::{EdgeError, refuse},
    sessions::Sessions,
};
use keys::{AccessKeys, BadAccessToken};
use revoked::RevokedLogins;

/// Somebody whose token is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub user: UserId,
    pub device: DeviceId,
    /// Of the login that the token came from.
    pub family: Token,
}

impl TryFrom<Claims> for Actor {
    type Error = BadAccessToken;

    fn try_from(c: Claims) -> Result<Self, BadAccessToken> {
        let family = Token::parse(&c.fam).map_err(|_| BadAccessToken::Malformed)?;
        Ok(Self { user: c.sub, device: c.device, family })
    }
}

/// A key that was not there is asked for again only after this long.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// How long an answer about the directory's health is believed.
const HEALTH: Duration = Duration::from_secs(5);

struct Inner {
    keys: Arc<RwLock<AccessKeys>>,
    revoked: RevokedLogins,
    buckets: KvBuckets,
    /// What gave the tokens judges them.
    time: ServerTime,
    directory: Directory,
    /// Past its expiry a token is good for this long while nobody can renew it (P7).
    grace: Duration,
    /// The last key that was not there. One read of the leader at a time: forged key ids must not become a storm of
    /// them.
    missed: tokio::sync::Mutex<Option<(Token, Instant)>>,
    /// When the directory was last probed, and whether it was away.
    away: tokio::sync::Mutex<Option<(Instant, bool)>>,
    _watches: [AbortOnDropHandle<()>; 2],
    watching: [(&'static str, WatchProgress); 2],
}

/// Clones share it.
#[derive(Clone)]
pub struct TokenVerifier(Arc<Inner>);

impl TokenVerifier {
    pub async fn start(
        buckets: &KvBuckets,
        time: &ServerTime,
        directory: &Directory,
        sessions: &Sessions,
        times: &Times,
    ) -> Result<Self, KvError> {
        let keys = Arc::new(RwLock::new(AccessKeys::default()));
        let (mut changes, key_watch) = buckets.signing_keys().watch_with_progress().await?;
        let watched = keys.clone();
        let watch = tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                if let Ok(kid) = Token::parse(&change.name)
                    && !watched.write().put(&kid, change.value.as_ref())
                {
                    tracing::warn!(%kid, "a signing key cannot be read");
                }
            }
        });
        let revoked = RevokedLogins::default();
        let (over, revoked_watch) = watch_revoked(buckets, revoked.clone(), sessions.clone(), time.clone()).await?;
        Ok(Self(Arc::new(Inner {
            keys,
            revoked,
            buckets: buckets.clone(),
            time: time.clone(),
            directory: directory.clone(),
            grace: times.access_token,
            missed: tokio::sync::Mutex::new(None),
            away: tokio::sync::Mutex::new(None),
            _watches: [AbortOnDropHandle::new(watch), over],
            watching: [("keys", key_watch), ("revoked", revoked_watch)],
        })))
    }

    /// How far the watches are by which this edge knows keys and revoked logins.
    pub fn watching(&self) -> [(&'static str, WatchProgress); 2] {
        self.0.watching.clone()
    }

    pub async fn check(&self, token: &str) -> Result<Actor, Refusal> {
        let mut checked = self.look(token);
        if let Err(BadAccessToken::UnknownKey { kid }) = &checked
            && self.read(kid).await
        {
            checked = self.look(token);
        }
        let claims = match checked {
            Ok(claims) => claims,
            Err(BadAccessToken::Expired { claims }) if self.in_grace(&claims).await => *claims,
            Err(e) => return Err(refuse(e)),
        };
        let actor = Actor::try_from(claims).map_err(refuse)?;
        if self.0.revoked.contains(&actor.family) { Err(refuse(EdgeError::Revoked)) } else { Ok(actor) }
    }

    /// To be asked again once a session is registered: its login may have been revoked between the check and that.
    pub fn revoked(&self) -> &RevokedLogins {
        &self.0.revoked
    }

    fn look(&self, token: &str) -> Result<Claims, BadAccessToken> {
        self.0.keys.read().check(token, self.0.time.earliest_ms())
    }

    /// Asks the leader for a key that the watch has not brought yet: a token may be used milliseconds after its key
    /// was made.
    async fn read(&self, kid: &Token) -> bool {
        let mut missed = self.0.missed.lock().await;
        if self.0.keys.read().knows(kid) {
            // Whoever held the lock before has read it.
            return true;
        }
        if missed.as_ref().is_some_and(|(last, at)| last == kid && at.elapsed() < ASK_AGAIN) {
            return false;
        }
        *missed = Some((kid.clone(), Instant::now()));
        match self.0.buckets.signing_key(kid).load().await {
            Ok(Some(key)) => self.0.keys.write().put(kid, Some(&key)),
            Ok(None) => false,
            Err(e) => {
                tracing::warn!(error = %e, "signing keys cannot be read");
                false
            }
        }
    }

    async fn in_grace(&self, claims: &Claims) -> bool {
        let since = self.0.time.earliest_ms().saturating_sub(claims.exp.saturating_mul(1_000));
        if u128::from(since) > self.0.grace.as_millis() {
            return false;
        }
        // One probe at a time, however many tokens expire together.
        let mut away = self.0.away.lock().await;
        match *away {
            Some((at, answer)) if at.elapsed() < HEALTH => answer,
            _ => {
                let answer = !self.0.directory.answers(&claims.sub).await;
                *away = Some((Instant::now(), answer));
                answer
            }
        }
    }
}

/// A revocation is known first, then the session is closed; a session is registered first, then asks whether it is
/// revoked. So none slips through between the two.
async fn watch_revoked(
    buckets: &KvBuckets,
    revoked: RevokedLogins,
    sessions: Sessions,
    time: ServerTime,
) -> Result<(AbortOnDropHandle<()>, WatchProgress), KvError> {
    let (mut changes, watching) = buckets.revoked_logins().watch_with_progress().await?;
    let task = async move {
        while let Some(change) = changes.next().await {
            let (Some(login), Ok(family)) = (change.value, Token::parse(&change.name)) else { continue };
            revoked.put(family.clone(), login.until, time.earliest_ms());
            sessions.revoke(login.user, login.device, &family);
        }
    };
    Ok((AbortOnDropHandle::new(tokio::spawn(task)), watching))
}
