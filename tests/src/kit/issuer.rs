//! Somebody else's login server, as far as Natterjack sees it: it signs tokens and publishes its keys over HTTP, or
//! does not.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use natterjack_testkit::now_ms;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub const NAME: &str = "https://login.test";
pub const AUDIENCE: &str = "natterjack-test";

/// What the server says when it is asked for its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Closes every connection.
    Away,
    /// 500 and a page for people.
    Broken,
    /// Takes the question and says nothing.
    Silent,
    /// The keys, and more white space behind them than anybody should read.
    Huge,
    /// Sends whoever asks to another path, where the keys are.
    Moved,
}

struct State {
    published: Vec<Value>,
    mood: Mood,
}

pub struct Issuer {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

pub struct Key {
    pub kid: String,
    algorithm: Algorithm,
    key: EncodingKey,
    pub jwk: Value,
}

impl Key {
    pub fn ed25519(kid: &str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let jwk = json!({ "kid": kid, "kty": "OKP", "crv": "Ed25519", "use": "sig", "x": x });
        Self { kid: kid.into(), algorithm: Algorithm::EdDSA, key: EncodingKey::from_ed_der(pkcs8.as_ref()), jwk }
    }

    pub fn p256(kid: &str) -> Self {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        let jwk = json!({ "kid": kid, "kty": "EC", "crv": "P-256", "alg": "ES256", "x": x, "y": y });
        Self { kid: kid.into(), algorithm: Algorithm::ES256, key: EncodingKey::from_ec_der(pkcs8.as_ref()), jwk }
    }

    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

/// Claims of a good token.
pub fn claims(subject: &str, name: &str) -> Value {
    let now = now_ms() / 1_000;
    json!({ "iss": NAME, "aud": AUDIENCE, "sub": subject, "preferred_username": name, "iat": now, "exp": now + 300 })
}

impl Issuer {
    /// Publishes these keys.
    pub async fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { published: Vec::new(), mood: Mood::Well }));
        let asked = Arc::new(AtomicUsize::new(0));
        let (served, counted) = (state.clone(), asked.clone());
        let task = tokio::spawn(async move {
            // Kept open: silence is not the end of a connection.
            let mut silent = Vec::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Relaxed);
                let (mood, body) = {
                    let state = served.lock().unwrap_or_else(PoisonError::into_inner);
                    (state.mood, json!({ "keys": state.published }).to_string())
                };
                match mood {
                    Mood::Well => answer(stream, "200 OK", &body).await,
                    Mood::Broken => answer(stream, "500 Internal Server Error", "<html>sorry</html>").await,
                    Mood::Silent => silent.push(stream),
                    Mood::Huge => answer(stream, "200 OK", &(body + &" ".repeat(1 << 20))).await,
                    Mood::Moved => moved(stream, &body).await,
                    Mood::Away => {}
                }
            }
        });
        let issuer = Self { addr, state, asked, task };
        issuer.publish(keys);
        issuer
    }

    /// For the configuration of every process.
    pub fn settings(&self) -> Vec<(String, String)> {
        [
            ("external.issuer", NAME.to_owned()),
            ("external.audience", AUDIENCE.to_owned()),
            ("external.jwks_url", format!("http://{}/keys", self.addr)),
            ("external.name_claim", "preferred_username".to_owned()),
            ("accounts.registration", "open".to_owned()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into()
    }

    /// In place of those before.
    pub fn publish(&self, keys: &[&Key]) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).published =
            keys.iter().map(|k| k.jwk.clone()).collect();
    }

    pub fn mood(&self, mood: Mood) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).mood = mood;
    }

    /// How often somebody has asked so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whoever asks here asks for one thing.
async fn answer(mut stream: TcpStream, status: &str, body: &str) {
    read(&mut stream).await;
    write(stream, &format!("{status}\r\nContent-Type: application/json"), body).await;
}

async fn moved(mut stream: TcpStream, body: &str) {
    if read(&mut stream).await.starts_with("GET /moved ") {
        write(stream, "200 OK\r\nContent-Type: application/json", body).await;
    } else {
        write(stream, "302 Found\r\nLocation: /moved", "").await;
    }
}

async fn read(stream: &mut TcpStream) -> String {
    let mut request = [0; 4_096];
    let n = stream.read(&mut request).await.unwrap_or(0);
    String::from_utf8_lossy(&request[..n]).into_owned()
}

async fn write(mut stream: TcpStream, head: &str, body: &str) {
    let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // Who has read enough hangs up.
    let _ = stream.write_all((head + body).as_bytes()).await;
}
