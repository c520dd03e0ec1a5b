//! TLS to NATS: what we believe and what we show, out of the configuration, and in words what a handshake failed for.

use std::{io, path::Path, sync::Arc};

use tokio_rustls::{
    TlsConnector,
    rustls::{
        AlertDescription, CertificateError, ClientConfig, Error as TlsError, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::config::{NatsConfig, TlsFiles};

/// Whoever named an authority or shows a certificate must not be led to a server without TLS: it would be told the
/// password.
pub(crate) fn required(cfg: &NatsConfig) -> bool {
    let tls = &cfg.tls;
    tls.required
        || tls.first
        || tls.ca.is_some()
        || tls.certificate.is_some()
        || cfg.urls.iter().any(|u| u.starts_with("tls://"))
}

/// Reads the files. An error names the key of the configuration.
pub(crate) fn connector(files: &TlsFiles) -> Result<TlsConnector, String> {
    let roots = roots(files.ca.as_deref())?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("nats.tls: {e}"))?
        .with_root_certificates(roots);
    let config = match (&files.certificate, &files.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = certificates("nats.tls.certificate", certificate)?;
            let private = PrivateKeyDer::from_pem_slice(&read("nats.tls.key", key)?).map_err(|_| {
                format!(
                    "nats.tls.key: there is no private key in {}; it must be PEM and without a password",
                    key.display()
                )
            })?;
            let unusable = |e| {
                format!("nats.tls.certificate: {} and {} cannot be used: {e}", certificate.display(), key.display())
            };
            builder.with_client_auth_cert(chain, private).map_err(unusable)?
        }
        (Some(_), None) => return Err("nats.tls.key is missing: nats.tls.certificate is set".into()),
        (None, Some(_)) => return Err("nats.tls.certificate is missing: nats.tls.key is set".into()),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates("nats.tls.ca", path)? {
                roots.add(certificate).map_err(|e| format!("nats.tls.ca: {}: {e}", path.display()))?;
            }
        }
        // Those that cannot be read are as good as absent: what they would have vouched for is then refused by name.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    Ok(roots)
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read(key, path)?).filter_map(Result::ok).collect();
    if found.is_empty() {
        return Err(format!(
            "{key}: there is no certificate in {}; it must be PEM, beginning with -----BEGIN CERTIFICATE-----",
            path.display()
        ));
    }
    Ok(found)
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{key}: cannot read {}: {e}", path.display()))
}

/// What went wrong between us and `host`, and what to do about it. None: it was not TLS.
pub(crate) fn explained(e: &io::Error, host: &str) -> Option<String> {
    let error = e.get_ref()?.downcast_ref::<TlsError>()?;
    Some(match error {
        TlsError::InvalidCertificate(why) => match why {
            // The second: an authority of the same name, made anew.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is of an authority that is not known here; name the file with the authority's \
                 certificate in nats.tls.ca"
                    .into()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired; renew it on that server (or set this machine's clock)".into()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; set the clock of this machine or of the one that made it".into()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
                "its certificate is for another name than {host}; write the name that it is for in nats.urls (and in \
                 client_advertise of \
                 that server), or make one for {host}"
            ),
            other => format!("its certificate cannot be believed: {other:?}"),
        },
        TlsError::AlertReceived(AlertDescription::CertificateRequired) => {
            "it wants a certificate of ours; set nats.tls.certificate and nats.tls.key".into()
        }
        TlsError::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate),
        ) => format!(
            "it does not take our certificate ({alert:?}); look at nats.tls.certificate: its authority, its \
            dates"
        ),
        TlsError::InvalidMessage(_) => {
            "it does not begin with TLS; unset nats.tls.first, or set handshake_first on that server".into()
        }
        other => format!("TLS failed: {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_an_authority_wants_tls() {
        let with = |tls| NatsConfig { tls, ..NatsConfig::default() };
        assert!(!required(&NatsConfig::default()));
        assert!(required(&with(TlsFiles { ca: Some("x".into()), ..TlsFiles::default() })));
        assert!(required(&with(TlsFiles { required: true, ..TlsFiles::default() })));
        assert!(required(&NatsConfig { urls: vec!["nats://a".into(), "tls://b".into()], ..NatsConfig::default() }));
    }

    #[test]
    fn files_that_are_no_good_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "hello").unwrap();
        let says = |files: TlsFiles| connector(&files).err().unwrap();
        assert!(
            says(TlsFiles { ca: Some(empty.clone()), ..TlsFiles::default() })
                .contains("nats.tls.ca: there is no certificate")
        );
        assert!(
            says(TlsFiles { ca: Some("/none".into()), ..TlsFiles::default() })
                .contains("nats.tls.ca: cannot read /none")
        );
        assert!(says(TlsFiles { key: Some(empty), ..TlsFiles::default() }).contains("nats.tls.certificate is missing"));
    }
}
