//! The keys of the external issuer: fetched, kept, fetched again from time to time and for a key id that is not known.
//! While they cannot be fetched the last good ones stay: who logs in then does not notice.
//!
//! Anybody can make up key ids. So they make the issuer asked once in a few seconds at most, by one at a time, and who
//! cannot be judged because of that is told to come back; a token is refused only by keys that were asked for after it
//! came.

use std::{
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use natterjack_nats::ServerTime;
use natterjack_protocol::Refusal;
use natterjack_runtime::clock::wall_ms;
use parking_lot::RwLock;
use reqwest::header::{AGE, DATE, HeaderMap, HeaderName};

use crate::{
    external::{BadKeys, BadToken, External, KeySet, KeySource, Person},
    work_queue::WorkQueue,
};

/// A key that was taken back is believed for so long; a file costs nothing to read.
const FRESH_URL: Duration = Duration::from_secs(300);
const FRESH_FILE: Duration = Duration::from_secs(5);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(10);
/// For unknown key ids they are fetched once in this time at most.
const FOR_UNKNOWN: Duration = Duration::from_secs(5);
/// Requests that wait for an answer of the issuer; further ones are told to come back.
const WAITING: usize = 64;
/// Below the 15 s that an edge waits for its answer.
const ANSWER: Duration = Duration::from_secs(5);
/// A hundred RSA keys with their certificates.
const BYTES: usize = 512 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    #[error("external: TLS for the issuer's keys: {0}")]
    Client(reqwest::Error),
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Request(reqwest::Error),
    #[error("the answer was {0}")]
    Status(reqwest::StatusCode),
    #[error("the answer is longer than {BYTES} bytes")]
    Long,
    #[error("cannot read the file: {0}")]
    File(std::io::Error),
    #[error(transparent)]
    Keys(#[from] BadKeys),
}

pub struct Issuer {
    rules: External,
    http: reqwest::Client,
    known: RwLock<Option<Arc<KeySet>>>,
    /// The issuer's clock, milliseconds since 1970, as it stood at a moment of ours. None: it says no time.
    clock: RwLock<Option<(u64, Instant)>>,
    time: ServerTime,
    queue: WorkQueue,
    /// One at a time: whoever waits for the lock finds what the other has fetched.
    last: tokio::sync::Mutex<Option<Fetch>>,
}

/// When the keys were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fetch {
    began: Instant,
    ended: Instant,
    good: bool,
}

impl Issuer {
    pub fn new(rules: External, time: ServerTime) -> Result<Self, IssuerError> {
        // Where the keys are is the operator's word alone.
        let http = reqwest::Client::builder()
            .timeout(ANSWER)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(IssuerError::Client)?;
        let (known, clock, last) = (RwLock::new(None), RwLock::new(None), tokio::sync::Mutex::new(None));
        Ok(Self { rules, http, known, clock, time, queue: WorkQueue::new("issuer", 1, WAITING - 1), last })
    }

    /// Requests that may wait here at once.
    pub fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    pub fn rules(&self) -> &External {
        &self.rules
    }

    /// Keeps the keys fresh, for ever. Safe to drop.
    pub async fn run(&self) {
        let fresh = if matches!(self.rules.keys, KeySource::Url(_)) { FRESH_URL } else { FRESH_FILE };
        loop {
            let wait = if self.fetch(Duration::ZERO).await.good { fresh } else { AGAIN };
            tokio::time::sleep(wait).await;
        }
    }

    pub async fn check(&self, token: &str) -> Result<Person, Refusal> {
        let checked = match self.look(token) {
            None | Some(Err(BadToken::UnknownKey)) => self.check_anew(token).await?,
            Some(checked) => checked,
        };
        checked.map_err(|e| {
            count(e.label());
            e.into()
        })
    }

    /// With keys that may be newer.
    async fn check_anew(&self, token: &str) -> Result<Result<Person, BadToken>, Refusal> {
        let came = Instant::now();
        let later = |why: &'static str, message: &str| {
            count(why);
            Refusal { retry_after_ms: Some(FOR_UNKNOWN.as_millis() as u64), ..Refusal::unavailable(message) }
        };
        let _place = self
            .queue
            .enter()
            .ok_or_else(|| later("busy", "many tokens with unknown keys are looked at; try again in a moment"))?;
        let fetch = self.fetch(FOR_UNKNOWN).await;
        match self.look(token) {
            Some(checked) if checked != Err(BadToken::UnknownKey) => Ok(checked),
            _ if !fetch.good => {
                Err(later("keys_away", "the keys of the tokens' issuer cannot be read now; try again in a moment"))
            }
            // It may be newer than the keys.
            _ if fetch.began < came => {
                Err(later("asked", "the token's key is not known, and they were asked for a moment ago; try again"))
            }
            _ => Ok(Err(BadToken::UnknownKey)),
        }
    }

    /// None: there are no keys yet.
    fn look(&self, token: &str) -> Option<Result<Person, BadToken>> {
        let keys = self.known.read().clone()?;
        let untimely =
            |checked: &Result<Person, BadToken>| matches!(checked, Err(BadToken::Expired | BadToken::NotYet));
        let [first, other] = self.now_ms();
        let checked = self.rules.check(token, &keys, first);
        Some(if other != first && untimely(&checked) { self.rules.check(token, &keys, other) } else { checked })
    }

    /// Who issues judges: by its own clock, as its answers have it. Where keys come from a file nobody says what time
    /// it is there: then both of ours have to agree that a token is not good.
    fn now_ms(&self) -> [u64; 2] {
        match *self.clock.read() {
            Some((ms, at)) => [ms + at.elapsed().as_millis() as u64; 2],
            None => [self.time.earliest_ms(), wall_ms()],
        }
    }

    /// Asks for the keys, unless somebody did within this time. Safe to drop: then it was not done.
    async fn fetch(&self, within: Duration) -> Fetch {
        let mut last = self.last.lock().await;
        // From the answer on: an issuer that is slow to fail is not asked again by everybody who waited.
        if let Some(fetch) = last.filter(|f| f.ended.elapsed() < within) {
            return fetch;
        }
        let began = Instant::now();
        let fetched = self.try_fetch().await;
        let good = fetched.is_ok();
        match fetched {
            Ok(keys) => {
                if keys.is_empty() {
                    tracing::warn!(
                        "the external issuer publishes no key that can be used (RS256, ES256 or EdDSA, with a `kid`): \
                         nobody can log in with its tokens"
                    );
                }
                metrics::gauge!(crate::metrics::DIRECTORY_ISSUER_KEYS).set(keys.len() as f64);
                *self.known.write() = Some(Arc::new(keys));
            }
            Err(e) => {
                let kept = self.known.read().as_ref().map_or(0, |keys| keys.len());
                tracing::warn!(
                    error = %e, kept,
                    "the keys of the external issuer could not be fetched; those known are kept"
                );
            }
        }
        metrics::counter!(crate::metrics::DIRECTORY_ISSUER_FETCHES, "result" => if good { "ok" } else { "failed" })
            .increment(1);
        let fetch = Fetch { began, ended: Instant::now(), good };
        *last = Some(fetch);
        fetch
    }

    async fn try_fetch(&self) -> Result<KeySet, FetchError> {
        let json = match &self.rules.keys {
            KeySource::File(path) => tokio::fs::read(path).await.map_err(FetchError::File)?,
            KeySource::Url(url) => {
                // Without the URL: who configured it may have put a secret there.
                let failed = |e: reqwest::Error| FetchError::Request(e.without_url());
                let mut answer = self.http.get(url).send().await.map_err(failed)?;
                if !answer.status().is_success() {
                    return Err(FetchError::Status(answer.status()));
                }
                *self.clock.write() = says_the_time(answer.headers()).map(|ms| (ms, Instant::now()));
                let mut json = Vec::new();
                while let Some(part) = answer.chunk().await.map_err(failed)? {
                    json.extend_from_slice(&part);
                    if json.len() > BYTES {
                        return Err(FetchError::Long);
                    }
                }
                json
            }
        };
        Ok(KeySet::parse(&json)?)
    }
}

/// `Date`, and for how long a cache has kept the answer since.
fn says_the_time(headers: &HeaderMap) -> Option<u64> {
    let value = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let date = httpdate::parse_http_date(value(DATE)?).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let age = Duration::from_secs(value(AGE).and_then(|age| age.parse().ok()).unwrap_or(0));
    u64::try_from(date.checked_add(age)?.as_millis()).ok()
}

pub fn count(result: &'static str) {
    metrics::counter!(crate::metrics::DIRECTORY_EXTERNAL_LOGINS, "result" => result).increment(1);
}

#[cfg(test)]
mod tests {
    use natterjack_protocol::Code;

    use super::*;

    /// An issuer with keys in a file, and a token that names one of them; nobody has the private half.
    struct Desk {
        issuer: Issuer,
        file: std::path::PathBuf,
        _folder: tempfile::TempDir,
    }

    impl Desk {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("keys.json");
            let rules = External {
                issuer: "i".into(),
                audience: "a".into(),
                keys: KeySource::File(file.clone()),
                subject_claim: "sub".into(),
                name_claim: None,
            };
            Self { issuer: Issuer::new(rules, ServerTime::fixed(wall_ms())).unwrap(), file, _folder: folder }
        }

        fn publish(&self, kids: &[&str]) {
            let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
            let key = |kid: &&str| serde_json::json!({ "kid": kid, "kty": "OKP", "crv": "Ed25519", "x": x });
            let keys: Vec<_> = kids.iter().map(key).collect();
            std::fs::write(&self.file, serde_json::json!({ "keys": keys }).to_string()).unwrap();
        }

        fn kept(&self) -> usize {
            self.issuer.known.read().as_ref().map_or(0, |k| k.len())
        }

        /// As after a few seconds in which nobody asked.
        async fn later(&self) {
            *self.issuer.last.lock().await = None;
        }

        async fn check(&self, kid: &str) -> (Code, String) {
            use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
            let head = BASE64_URL_SAFE_NO_PAD.encode(serde_json::json!({ "alg": "EdDSA", "kid": kid }).to_string());
            let refusal = self.issuer.check(&format!("{head}.e30.AA")).await.unwrap_err();
            assert_eq!(refusal.retry_after_ms.is_some(), refusal.code == Code::Unavailable, "{refusal:?}");
            (refusal.code, refusal.message)
        }
    }

    #[track_caller]
    fn is((code, message): &(Code, String), wanted: Code, word: &str) {
        assert!(*code == wanted && message.contains(word), "{code:?} {message}");
    }

    #[test]
    fn the_time_there_is_that_of_the_answer_and_of_its_age() {
        let told = |lines: &[(&'static str, &str)]| {
            says_the_time(&lines.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect())
        };
        let date = ("date", "Tue, 15 Nov 1994 08:12:31 GMT");
        assert_eq!(told(&[date]), Some(784_887_151_000));
        assert_eq!(told(&[date, ("age", "60")]), Some(784_887_211_000));
        for nothing in [&[][..], &[("age", "60")], &[("date", "today")], &[("date", "Tue, 15 Nov 1894 08:12:31 GMT")]] {
            assert_eq!(told(nothing), None);
        }
    }

    #[tokio::test]
    async fn a_broken_file_changes_nothing_and_an_empty_set_everything() {
        let desk = Desk::new();
        is(&desk.check("a").await, Code::Unavailable, "cannot be read");
        desk.publish(&["a"]);
        is(&desk.check("a").await, Code::Unavailable, "cannot be read"); // tried a moment ago
        desk.later().await;
        is(&desk.check("a").await, Code::Unauthorized, "signature");
        std::fs::write(&desk.file, "{").unwrap();
        assert!(!desk.issuer.fetch(Duration::ZERO).await.good && desk.kept() == 1);
        is(&desk.check("a").await, Code::Unauthorized, "signature");
        is(&desk.check("b").await, Code::Unavailable, "cannot be read");
        desk.publish(&[]);
        assert!(desk.issuer.fetch(Duration::ZERO).await.good && desk.kept() == 0, "all taken back");
        desk.later().await;
        is(&desk.check("a").await, Code::Unauthorized, "`kid`");
    }

    #[tokio::test]
    async fn a_token_is_refused_only_by_keys_that_were_asked_for_after_it_came() {
        let desk = Desk::new();
        desk.publish(&["a"]);
        is(&desk.check("made-up").await, Code::Unauthorized, "`kid`");
        // A key made now: whoever asked with a made-up one must not make it a stranger.
        desk.publish(&["a", "b"]);
        is(&desk.check("b").await, Code::Unavailable, "a moment ago");
        assert_eq!(desk.kept(), 1, "not asked again");
        desk.later().await;
        is(&desk.check("b").await, Code::Unauthorized, "signature");
        desk.publish(&["b"]);
        is(&desk.check("a").await, Code::Unauthorized, "signature"); // known until the next look
        desk.later().await;
        is(&desk.check("made-up").await, Code::Unauthorized, "`kid`");
        is(&desk.check("a").await, Code::Unavailable, "a moment ago");
        desk.later().await;
        is(&desk.check("a").await, Code::Unauthorized, "`kid`");
    }
}
