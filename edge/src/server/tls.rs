//! Before step 2: TLS on the clients' port, if a certificate is configured, and a new certificate without a restart.
//!
//! The files are read again every few seconds and compared by content: dates lie, and a certificate that comes by a
//! symbolic link changes without an event on its path. Files that cannot be used change nothing: the certificate in
//! use stays, until it is replaced by a good one.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
    server::TlsStream,
};
use xxhash_rust::xxh3::xxh3_128;

/// How soon a new certificate is noticed.
const LOOK: Duration = Duration::from_secs(2);
/// A fatal alert before any handshake: record type 21, TLS 1.2 on the record layer, two bytes, fatal, `access_denied`.
pub const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// Both in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The edge's own certificate first, then those between it and the root.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Named by the key of the configuration that has to be looked at.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("edge.tls.certificate: cannot read {path}: {why}")]
    ReadCertificate { path: PathBuf, why: io::Error },
    #[error("edge.tls.key: cannot read {path}: {why}")]
    ReadKey { path: PathBuf, why: io::Error },
    #[error(
        "edge.tls.certificate: there is no certificate in {path}; it must be PEM, beginning with -----BEGIN \
         CERTIFICATE-----"
    )]
    NoCertificate { path: PathBuf },
    #[error("edge.tls.key: there is no private key in {path}; it must be PEM and without a password")]
    NoKey { path: PathBuf },
    #[error("edge.tls.key: the key in {key} does not belong to the certificate in {certificate}")]
    OtherKey { certificate: PathBuf, key: PathBuf },
    #[error("edge.tls: {certificate} and {key} cannot be used: {why}")]
    Unusable { certificate: PathBuf, key: PathBuf, why: rustls::Error },
}

/// What a new connection turned out to be.
pub enum Accepted {
    Secure(Box<TlsStream<TcpStream>>),
    /// It speaks HTTP or the PROXY protocol without TLS; nothing was read.
    Plain(TcpStream),
    Failed(io::Error),
}

pub struct Tls {
    files: Files,
    current: RwLock<TlsAcceptor>,
    /// Hash of what `current` was made of.
    opened: u128,
}

impl Tls {
    /// Reads the files; without good ones there is nothing to begin with.
    pub fn open(files: Files) -> Result<Arc<Self>, TlsError> {
        let pem = Pem::read(&files)?;
        let (current, opened) = (RwLock::new(pem.acceptor(&files)?), pem.hash());
        Ok(Arc::new(Self { files, current, opened }))
    }

    /// Not bounded in time: that is the caller's. Dropping it closes the connection.
    pub async fn accept(&self, stream: TcpStream) -> Accepted {
        let mut first = [0];
        match stream.peek(&mut first).await {
            // The name of a method, or the PROXY protocol, whose second version begins with a line break; a handshake
            // begins with 22.
            Ok(_) if first[0].is_ascii_uppercase() || first[0] == b'\r' => return Accepted::Plain(stream),
            Ok(_) => {}
            Err(e) => return Accepted::Failed(e),
        }
        let acceptor = self.current.read().clone();
        match acceptor.accept(stream).await {
            Ok(stream) => Accepted::Secure(Box::new(stream)),
            Err(e) => Accepted::Failed(e),
        }
    }

    /// Looks at the files for ever. Safe to drop.
    pub async fn watch(&self) {
        let mut seen = Some(self.opened);
        loop {
            tokio::time::sleep(LOOK).await;
            let files = self.files.clone();
            // A disk may hang.
            let Ok(read) = tokio::task::spawn_blocking(move || Pem::read(&files)).await else { continue };
            let now = read.as_ref().ok().map(Pem::hash);
            if now == seen {
                continue;
            }
            seen = now;
            let result = match read.and_then(|pem| pem.acceptor(&self.files)) {
                Ok(new) => {
                    *self.current.write() = new;
                    tracing::info!(certificate = %self.files.certificate.display(), "new connections get the new \
                        certificate");
                    "ok"
                }
                Err(e) => {
                    tracing::error!(error = %e, "the new certificate cannot be used; the old one stays");
                    "failed"
                }
            };
            metrics::counter!(crate::metrics::TLS_RELOADS, "result" => result).increment(1);
            metrics::gauge!(crate::metrics::TLS_STALE).set(if result == "ok" { 0.0 } else { 1.0 });
        }
    }
}

/// Could an edge start with these?
pub fn check(files: &Files) -> Result<(), TlsError> {
    Pem::read(files)?.acceptor(files).map(drop)
}

/// No `Debug`: it holds a secret.
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Pem {
    fn read(files: &Files) -> Result<Self, TlsError> {
        let read = |path: &Path| std::fs::read(path).map_err(|why| (path.to_owned(), why));
        Ok(Self {
            certificate: read(&files.certificate).map_err(|(path, why)| TlsError::ReadCertificate { path, why })?,
            key: read(&files.key).map_err(|(path, why)| TlsError::ReadKey { path, why })?,
        })
    }

    fn hash(&self) -> u128 {
        xxh3_128(&self.certificate) ^ xxh3_128(&self.key).rotate_left(1)
    }

    /// A whole new configuration: no session of an older certificate can be resumed under this one.
    fn acceptor(&self, files: &Files) -> Result<TlsAcceptor, TlsError> {
        let Files { certificate, key } = files.clone();
        let chain =
            CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<Vec<_>, _>>().unwrap_or_default();
        if chain.is_empty() {
            return Err(TlsError::NoCertificate { path: certificate });
        }
        let Ok(private) = PrivateKeyDer::from_pem_slice(&self.key) else { return Err(TlsError::NoKey { path: key }) };
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|b| b.with_no_client_auth().with_single_cert(chain, private));
        match config {
            Ok(mut config) => {
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                Ok(TlsAcceptor::from(Arc::new(config)))
            }
            Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::OtherKey { certificate, key }),
            Err(why) => Err(TlsError::Unusable { certificate, key, why }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> (Self, Files) {
            let folder = tempfile::tempdir().unwrap();
            let files = Files { certificate: folder.path().join("c.pem"), key: folder.path().join("k.pem") };
            (Self(folder), files)
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.path().join(name), text).unwrap();
        }
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["edge.test".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[track_caller]
    fn says(files: &Files, words: &[&str]) {
        let text = check(files).unwrap_err().to_string();
        for word in words {
            assert!(text.contains(word), "{word} is missing in: {text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let (folder, files) = Folder::new();
        says(&files, &["edge.tls.certificate", "cannot read", "c.pem"]);
        let (certificate, key) = pair();
        folder.write("c.pem", &certificate);
        says(&files, &["edge.tls.key", "cannot read", "k.pem"]);
        folder.write("k.pem", &certificate);
        says(&files, &["edge.tls.key", "no private key", "k.pem"]);
        folder.write("k.pem", &pair().1);
        says(&files, &["edge.tls.key", "does not belong"]);
        folder.write("k.pem", &key);
        check(&files).unwrap();
        folder.write("c.pem", &key);
        says(&files, &["edge.tls.certificate", "no certificate", "c.pem"]);
        folder.write("c.pem", &certificate[..certificate.len() / 2]);
        says(&files, &["edge.tls.certificate", "no certificate"]);
        folder.write("c.pem", "-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n");
        says(&files, &["cannot be used"]);
    }

    #[test]
    fn what_is_compared_is_the_content() {
        let pem = |c: &str, k: &str| Pem { certificate: c.into(), key: k.into() }.hash();
        assert_eq!(pem("a", "b"), pem("a", "b"));
        assert!(pem("a", "b") != pem("b", "a") && pem("a", "a") != pem("b", "b") && pem("a", "b") != pem("a", "c"));
    }
}
