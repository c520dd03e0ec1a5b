//! Whose certificates a client believes: those of the public roots, and those the app adds. One configuration for
//! sockets and requests.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("root certificates: {0}")]
pub struct BadRoots(String);

/// `extra`: certificates in PEM, believed beside the public ones.
pub(crate) fn config(extra: Option<&[u8]>) -> Result<Arc<ClientConfig>, BadRoots> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(pem) = extra {
        let all = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| BadRoots(format!("not PEM: {e}")))?;
        if all.is_empty() {
            return Err(BadRoots("there is none; they must be PEM, beginning with -----BEGIN CERTIFICATE-----".into()));
        }
        for one in all {
            roots.add(one).map_err(|e| BadRoots(e.to_string()))?;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| BadRoots(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_said() {
        assert!(config(None).is_ok());
        for bad in [
            "",
            "nonsense",
            "-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n",
        ] {
            assert!(config(Some(bad.as_bytes())).is_err(), "{bad:?}");
        }
    }
}
