//! Certificates of an authority that exists for one test, in the files an edge reads.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

pub struct Certificates {
    authority: Issuer<'static, KeyPair>,
    /// The authority's certificate, in PEM.
    pub ca: String,
    hosts: Vec<String>,
    /// What an edge is told to read.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// For programs: `ca` in a file.
    pub ca_file: PathBuf,
}

/// A certificate and its key, in PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Pair {
    /// As a client is shown it.
    pub fn der(&self) -> Vec<u8> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap().to_vec()
    }
}

impl Certificates {
    /// For edges at these addresses; the files are written.
    pub fn new(folder: PathBuf, hosts: Vec<String>) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Natterjack test authority");
        let ca = params.self_signed(&key).unwrap().pem();
        let file = |name: &str| folder.join(name);
        let made = Self {
            authority: Issuer::new(params, key),
            ca,
            hosts,
            certificate: file("edge-cert.pem"),
            key: file("edge-key.pem"),
            ca_file: file("ca.pem"),
        };
        std::fs::write(&made.ca_file, &made.ca).unwrap();
        made.install(&made.issue());
        made
    }

    /// A new one for the same edges.
    pub fn issue(&self) -> Pair {
        self.issue_for(&self.hosts, |_| {})
    }

    /// For other hosts, or with other dates.
    pub fn issue_for(&self, hosts: &[String], with: impl FnOnce(&mut CertificateParams)) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(hosts).unwrap();
        with(&mut params);
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Puts it where the edges read it.
    pub fn install(&self, pair: &Pair) {
        replace(&self.certificate, &pair.certificate);
        replace(&self.key, &pair.key);
    }

    /// In files of their own: certificate and key.
    pub fn write(&self, name: &str, pair: &Pair) -> (PathBuf, PathBuf) {
        let folder = self.ca_file.parent().unwrap();
        let files = (folder.join(format!("{name}-cert.pem")), folder.join(format!("{name}-key.pem")));
        replace(&files.0, &pair.certificate);
        replace(&files.1, &pair.key);
        files
    }

    /// A client that believes the authority and nobody else.
    pub fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

/// Nobody reads half of it.
pub fn replace(path: &Path, text: &str) {
    let part = path.with_extension("part");
    std::fs::write(&part, text).unwrap();
    std::fs::rename(&part, path).unwrap();
}
