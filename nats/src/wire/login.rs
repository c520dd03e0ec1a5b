//! How a connection says who it is: user and password, a token, an NKey, or a credentials file. The one place for
//! every connection of ours. Files are read again for each connection, so what expires may be replaced while
//! everything runs.

use std::path::{Path, PathBuf};

use async_nats::{Auth, ServerAddr};
use nkeys::KeyPair;

use crate::{
    config::NatsConfig,
    wire::client::{NatsConnectError, shown},
};

#[derive(Clone)]
pub(crate) struct NatsLogin {
    how: How,
    /// Where it was said, for people.
    source: &'static str,
}

#[derive(Clone, PartialEq, Eq)]
enum How {
    Nobody,
    Password { user: String, password: String },
    Token(String),
    NKey(PathBuf),
    Creds(PathBuf),
}

/// The servers of the configuration.
pub(crate) fn addresses(cfg: &NatsConfig) -> Result<Vec<ServerAddr>, NatsConnectError> {
    if cfg.urls.is_empty() {
        return Err(NatsConnectError::Config("nats.urls is empty".into()));
    }
    let parse = |url: &String| {
        let shown = shown(std::slice::from_ref(url));
        let addr: ServerAddr = url
            .parse()
            .map_err(|e| NatsConnectError::Config(format!("nats.urls: `{shown}` is not a server address: {e}")))?;
        match addr.scheme() {
            "nats" | "tls" => Ok(addr),
            other => Err(NatsConnectError::Config(format!(
                "nats.urls: `{shown}`: {other}:// is not spoken here; use nats:// or tls://"
            ))),
        }
    };
    cfg.urls.iter().map(parse).collect()
}

impl NatsLogin {
    /// Also looks whether its files can be used.
    pub(crate) fn new(cfg: &NatsConfig) -> Result<Self, NatsConnectError> {
        let said = |how: How, source| Some(Self { how, source });
        let keys = [
            cfg.user.as_ref().and_then(|user| {
                let password = cfg.password.clone().unwrap_or_default();
                said(How::Password { user: user.clone(), password }, "nats.user and nats.password")
            }),
            cfg.token.as_ref().and_then(|token| said(How::Token(token.clone()), "nats.token")),
            cfg.nkey.as_ref().and_then(|path| said(How::NKey(path.clone()), "nats.nkey")),
            cfg.creds.as_ref().and_then(|path| said(How::Creds(path.clone()), "nats.creds")),
        ];
        let mut keys = keys.into_iter().flatten();
        let (first, second) = (keys.next(), keys.next());
        if let (Some(a), Some(b)) = (&first, second) {
            return Err(NatsConnectError::Config(format!(
                "{} and {} are both set; a connection logs in with one of them",
                a.source, b.source
            )));
        }
        let login = match first {
            Some(login) => login,
            None => Self { how: of_urls(&addresses(cfg)?)?, source: "the login in nats.urls" },
        };
        login.answer("").map_err(NatsConnectError::Config)?;
        Ok(login)
    }

    /// What CONNECT says, to a server that has sent this nonce. An error names the key of the configuration.
    pub(crate) fn answer(&self, nonce: &str) -> Result<Auth, String> {
        let mut auth = Auth::new();
        match &self.how {
            How::Nobody => {}
            How::Password { user, password } => {
                (auth.username, auth.password) = (Some(user.clone()), Some(password.clone()));
            }
            How::Token(token) => auth.token = Some(token.clone()),
            How::NKey(path) => {
                let text = read("nats.nkey", path)?;
                let key = seed(&text)
                    .ok_or_else(|| format!("nats.nkey: there is no seed of a user (SU…) in {}", path.display()))?;
                (auth.nkey, auth.signature) = (Some(key.public_key()), Some(sign(&key, nonce)?));
            }
            How::Creds(path) => {
                let text = read("nats.creds", path)?;
                let Some((jwt, key)) = credentials(&text) else {
                    return Err(format!(
                        "nats.creds: {} is not a credentials file (a user's JWT and the seed of its NKey)",
                        path.display()
                    ));
                };
                (auth.jwt, auth.signature) = (Some(jwt.to_owned()), Some(sign(&key, nonce)?));
            }
        }
        Ok(auth)
    }

    /// What to look at when a server refuses it.
    pub(crate) fn advice(&self) -> String {
        match self.how {
            How::Nobody => {
                "this connection named nobody; set nats.user and nats.password, nats.token, nats.nkey or nats.creds"
                    .to_owned()
            }
            How::Creds(_) => {
                format!("check {}: is the user of that account, and has its JWT not expired?", self.source)
            }
            _ => format!("check {}: does nats-server know this one?", self.source),
        }
    }
}

/// Of one cluster: whatever server we are on, we are the same.
fn of_urls(addresses: &[ServerAddr]) -> Result<How, NatsConnectError> {
    let mut found = How::Nobody;
    for addr in addresses {
        let how = match (addr.username().map(decoded), addr.password().map(decoded)) {
            (None, _) => continue,
            (Some(token), None) => How::Token(token),
            (Some(user), Some(password)) => How::Password { user, password },
        };
        if found != How::Nobody && found != how {
            return Err(NatsConnectError::Config(
                "nats.urls: their logins differ; servers of one cluster take the same".into(),
            ));
        }
        found = how;
    }
    Ok(found)
}

/// `%40` for `@`, as in every URL; what is no such thing stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&b) = bytes.get(at) {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|h| std::str::from_utf8(h).ok())
            .filter(|h| h.bytes().all(|c| c.is_ascii_hexdigit()));
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()).filter(|_| b == b'%') {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(b);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn read(key: &str, path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{key}: cannot read {}: {e}", path.display()))
}

fn seed(text: &str) -> Option<KeyPair> {
    let line = text.lines().map(str::trim).find(|l| l.starts_with("SU"))?;
    KeyPair::from_seed(line).ok()
}

fn sign(key: &KeyPair, nonce: &str) -> Result<Vec<u8>, String> {
    key.sign(nonce.as_bytes()).map_err(|e| format!("the NKey cannot sign: {e}"))
}

/// The line between the first two lines of dashes, and a seed between two others.
fn credentials(text: &str) -> Option<(&str, KeyPair)> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let dashes = |l: &str| l.starts_with("---") && l.ends_with("---");
    let mut framed = lines.windows(3).filter(|w| dashes(w[0]) && !dashes(w[1]) && dashes(w[2])).map(|w| w[1]);
    let jwt = framed.next()?;
    Some((jwt, framed.find_map(seed)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cfg(urls: &[&str]) -> NatsConfig {
        NatsConfig { urls: urls.iter().map(|u| (*u).to_owned()).collect(), ..NatsConfig::default() }
    }

    fn answer(cfg: &NatsConfig) -> Auth {
        NatsLogin::new(cfg).ok().unwrap().answer("nonce").unwrap()
    }

    fn refused(cfg: &NatsConfig) -> String {
        NatsLogin::new(cfg).err().unwrap().to_string()
    }

    #[test]
    fn a_login_in_the_urls_counts_for_the_cluster() {
        let auth = answer(&cfg(&["nats://u:p%40ss@a:1", "nats://b:1"]));
        assert_eq!((auth.username.as_deref(), auth.password.as_deref()), (Some("u"), Some("p@ss")));
        assert_eq!(answer(&cfg(&["tls://t%@a:1"])).token.as_deref(), Some("t%"));
        assert!(refused(&cfg(&["nats://u:p@a:1", "nats://u:q@b:1"])).contains("differ"));
        // What is set by itself counts.
        let auth = answer(&NatsConfig { token: Some("t".into()), ..cfg(&["nats://u:p@a:1"]) });
        assert_eq!((auth.token.as_deref(), auth.username), (Some("t"), None));
    }

    #[test]
    fn one_way_to_log_in_and_addresses_that_are_some() {
        let two = NatsConfig { token: Some("t".into()), creds: Some("x".into()), ..cfg(&["a"]) };
        assert!(refused(&two).contains("nats.token and nats.creds"));
        assert!(matches!(addresses(&cfg(&[])), Err(NatsConnectError::Config(_))));
        assert!(addresses(&cfg(&["ws://secret@h:1"])).unwrap_err().to_string().contains("`h:1`"));
    }

    #[test]
    fn keys_and_credentials_are_read_from_files() {
        let (dir, key) = (tempfile::tempdir().unwrap(), KeyPair::new_user());
        let file = |name: &str, text: String| {
            std::fs::write(dir.path().join(name), text).unwrap();
            Some(dir.path().join(name))
        };
        let of_key = NatsConfig { nkey: file("seed", format!("# ours\n{}\n", key.seed().unwrap())), ..cfg(&["a"]) };
        let auth = answer(&of_key);
        assert_eq!(auth.nkey, Some(key.public_key()));
        key.verify(b"nonce", &auth.signature.unwrap()).unwrap();

        let creds = format!(
            "-----BEGIN NATS USER JWT-----\r\neyJ.a-b_.c\r\n------END NATS USER JWT------\r\n\r\n************************* IMPORTANT *****\r\n\
             -----BEGIN USER NKEY SEED-----\r\n{}\r\n------END USER NKEY SEED------\r\n",
            key.seed().unwrap()
        );
        let auth = answer(&NatsConfig { creds: file("creds", creds), ..cfg(&["a"]) });
        assert_eq!(auth.jwt.as_deref(), Some("eyJ.a-b_.c"));
        key.verify(b"nonce", &auth.signature.unwrap()).unwrap();

        for (bad, says) in [
            (NatsConfig { nkey: file("no", "hello".into()), ..cfg(&["a"]) }, "no seed of a user"),
            (NatsConfig { nkey: Some(dir.path().join("none")), ..cfg(&["a"]) }, "cannot read"),
            (
                NatsConfig { creds: file("no-creds", KeyPair::new_user().seed().unwrap()), ..cfg(&["a"]) },
                "not a credentials file",
            ),
        ] {
            assert!(refused(&bad).contains(says), "{}", refused(&bad));
        }
    }
}
