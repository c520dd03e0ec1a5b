//! Who this device is: tokens, renewed before they expire, one renewal at a time, the new ones stored before they are
//! used. A refresh token whose answer was lost is used again: the server gives the same next one for a minute
//! (docs/protocol.md, Renewing).

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use natterjack_protocol::{
    Code, DeviceId, Refusal, Retry, UserId,
    client::http::{Credentials, ExternalToken, LoggedOut, RefreshToken, Registration, Tokens},
};
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::Mutex, time::Instant};

use crate::{backoff, error::RequestError, http::Http, store::Store};

/// Renewed this long before the end, so that a hello on its way does not expire; a quarter of a short life.
const MARGIN: Duration = Duration::from_secs(60);

const YEAR_SECONDS: u64 = 365 * 24 * 3_600;

/// How the app logs in. Never shown: it holds secrets.
#[derive(Clone)]
pub(crate) enum LoginMethod {
    Password {
        name: String,
        password: String,
    },
    Register {
        name: String,
        password: String,
    },
    /// A token of somebody else's that the server takes.
    External(String),
    Tokens(Tokens),
    /// Whatever the store holds.
    Stored,
}

pub(crate) struct Auth {
    http: Http,
    store: Store,
    /// For a new login when the refresh token is no good any more.
    password: Option<(String, String)>,
    ended: AtomicBool,
    held: Mutex<Held>,
    pub user: UserId,
    pub device: DeviceId,
    pub name: String,
}

struct Held {
    tokens: Tokens,
    /// When they are renewed, in the server's time: what the device takes for the time does not matter, and its
    /// monotonic clock stops while it sleeps. None: the server's time was not known when they came. Of those from
    /// a store it is not known how old they are; the edge says `token_expired` if they are too old.
    renew_at: Option<u64>,
    /// Newer ones that could not be stored yet. The old ones are used up, so these are not asked for again.
    renewed: Option<Tokens>,
    /// No renewal before: the server said so.
    not_before: Option<(Instant, Refusal)>,
}

impl Held {
    /// The refusal that still holds, with what is left of its time.
    fn told(&self) -> Option<Refusal> {
        let (until, refusal) = self.not_before.as_ref()?;
        let left = u64::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u64::MAX);
        (left > 0).then(|| Refusal { retry_after_ms: Some(left), ..refusal.clone() })
    }

    fn obey(&mut self, e: &RequestError) {
        if let RequestError::Refused(refusal) = e
            && let Some(ms) = refusal.retry_after_ms
        {
            self.not_before = Some((Instant::now() + backoff::capped(ms), refusal.clone()));
        }
    }
}

pub(crate) async fn log_in(http: &Http, name: &str, password: &str, device: &DeviceId) -> Result<Tokens, RequestError> {
    let body = Credentials { name: name.to_owned(), password: password.to_owned(), device: Some(device.clone()) };
    http.ask(Method::POST, "/v1/login", None, Some(&body)).await
}

pub(crate) async fn register(http: &Http, account: Registration) -> Result<Tokens, RequestError> {
    http.ask(Method::POST, "/v1/register", None, Some(&account)).await
}

pub(crate) async fn log_in_external(http: &Http, token: &str, device: &DeviceId) -> Result<Tokens, RequestError> {
    http.ask(
        Method::POST,
        "/v1/login/external",
        None,
        Some(&ExternalToken { token: token.to_owned(), device: Some(device.clone()) }),
    )
    .await
}

impl Auth {
    pub fn new(http: Http, store: Store, password: Option<(String, String)>, tokens: Tokens) -> Self {
        let (user, device, name) = (tokens.user.clone(), tokens.device.clone(), tokens.name.clone());
        let renew_at = http.now_ms().map(|now| now + renew_after(&tokens));
        let held = Mutex::new(Held { tokens, renew_at, renewed: None, not_before: None });
        Self { http, store, password, ended: AtomicBool::new(false), held, user, device, name }
    }

    /// Somebody ended the login while it was in use, and did not mean a device that logs in again by itself: its
    /// password is used no more.
    pub fn login_was_ended(&self) {
        self.ended.store(true, Relaxed);
    }

    /// A token that should be good. `stale`: one that was refused, so renew unless somebody has already.
    ///
    /// Not to be dropped half-way if it can be helped: a refresh token whose answer was lost has to be used again
    /// within a minute.
    pub async fn access(&self, stale: Option<&str>) -> Result<String, RequestError> {
        let mut held = self.held.lock().await;
        let refused = stale.is_some_and(|s| s == held.tokens.access);
        if !refused && !self.is_due(&mut held) {
            return Ok(held.tokens.access.clone());
        }
        match self.renewed(&mut held).await {
            // `directory` is away, or the file cannot be written: edges take the old one for a while past its end.
            Err(e) if !refused && !says_logged_out(&e) => tracing::debug!(error = %e, "token not renewed now"),
            Err(e) => return Err(e),
            Ok(()) => {}
        }
        Ok(held.tokens.access.clone())
    }

    /// By the server's time. The life of tokens that came before that was known counts from the first look.
    fn is_due(&self, held: &mut Held) -> bool {
        let Some(now) = self.http.now_ms() else { return false };
        let life = renew_after(&held.tokens);
        now >= *held.renew_at.get_or_insert(now + life)
    }

    /// The server's time is known. Who holds the lock is renewing them, and dates them.
    pub fn date_tokens(&self) {
        if let Ok(mut held) = self.held.try_lock() {
            self.is_due(&mut held);
        }
    }

    /// Stored, then used. Whatever fails goes on where it was at the next call.
    async fn renewed(&self, held: &mut Held) -> Result<(), RequestError> {
        let new = match held.renewed.take() {
            Some(new) => new,
            None => {
                if let Some(refusal) = held.told() {
                    return Err(RequestError::Refused(refusal));
                }
                self.renew(&held.tokens.refresh).await.inspect_err(|e| held.obey(e))?
            }
        };
        let stored = self.store.save_login(self.device.clone(), Some(new.clone())).await;
        match stored {
            Ok(()) => {
                held.renew_at = self.http.now_ms().map(|now| now + renew_after(&new));
                held.tokens = new;
            }
            Err(_) => held.renewed = Some(new),
        }
        Ok(stored?)
    }

    async fn renew(&self, refresh: &str) -> Result<Tokens, RequestError> {
        match self
            .http
            .ask(Method::POST, "/v1/refresh", None, Some(&RefreshToken { refresh: refresh.to_owned() }))
            .await
        {
            Err(e) if says_logged_out(&e) => match &self.password {
                Some((name, password)) if !self.ended.load(Relaxed) => {
                    log_in(&self.http, name, password, &self.device).await
                }
                _ => Err(e),
            },
            answer => answer,
        }
    }

    /// A request as this user; an expired token is renewed once.
    pub async fn ask<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, RequestError> {
        let access = self.access(None).await?;
        match self.http.ask(method.clone(), path, Some(&access), body).await {
            Err(RequestError::Refused(r)) if r.code.retry() == Retry::AfterLogin => {
                let access = self.access(Some(&access)).await?;
                self.http.ask(method, path, Some(&access), body).await
            }
            answer => answer,
        }
    }

    pub async fn log_out(&self) -> Result<(), RequestError> {
        let held = self.held.lock().await;
        let body = RefreshToken { refresh: held.tokens.refresh.clone() };
        let _: LoggedOut = self.http.ask(Method::POST, "/v1/logout", None, Some(&body)).await?;
        self.forget().await
    }

    /// The login is over: its tokens are good for nothing.
    pub async fn forget(&self) -> Result<(), RequestError> {
        Ok(self.store.save_login(self.device.clone(), None).await?)
    }

    pub fn http(&self) -> &Http {
        &self.http
    }
}

pub(crate) fn says_logged_out(e: &RequestError) -> bool {
    use Code::{AccountDisabled, TokenExpired, Unauthorized};
    matches!(e, RequestError::Refused(r) if matches!(r.code, Unauthorized | TokenExpired | AccountDisabled))
}

/// Milliseconds from the moment at which they came.
fn renew_after(tokens: &Tokens) -> u64 {
    let life = Duration::from_secs(tokens.expires_in.min(YEAR_SECONDS));
    life.saturating_sub(MARGIN.min(life / 4)).as_millis() as u64
}
