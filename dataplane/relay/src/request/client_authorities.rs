//! Authorities of client certificates (PUB-43): a certificate is asked for on
//! hosts where an application wants one, and verified here for the application
//! that was asked, which is told it (RFC 9440).
//!
//! The handshake takes whatever a user shows and holds the key of; which
//! authority counts is decided with the request, for a host may have several
//! applications.

use std::sync::Arc;

use model::App;
use quick_cache::sync::Cache;
use rustls::{
    pki_types::UnixTime,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::open::client_certificate::ClientCertificate;

/// Authorities remembered, by their PEM.
const REMEMBERED: usize = 1024;

/// Verifiers by the PEM they were made of.
pub(crate) struct ClientAuthorities {
    verifiers: Cache<Arc<str>, Arc<dyn ClientCertVerifier>>,
}

impl Default for ClientAuthorities {
    fn default() -> Self {
        Self { verifiers: Cache::new(REMEMBERED) }
    }
}

impl ClientAuthorities {
    /// Is the certificate good for this application, now?
    pub(crate) fn verifies(&self, app: &App, certificate: &ClientCertificate, now_s: i64) -> bool {
        certificate.is_good(&app.client_ca_pem, now_s, |own, chain| {
            let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_s.max(0) as u64));
            let verifier = self.verifier(&app.client_ca_pem);
            verifier.is_some_and(|it| it.verify_client_cert(own, chain, now).is_ok())
        })
    }

    fn verifier(&self, pem: &str) -> Option<Arc<dyn ClientCertVerifier>> {
        if let Some(known) = self.verifiers.get(pem) {
            return Some(known);
        }
        let ders = runtime::tls::pem_certificates(pem.as_bytes()).ok()?;
        let roots = runtime::tls::roots(ders.iter().map(|it| it.as_ref())).ok()?;
        let made = WebPkiClientVerifier::builder(roots).build().ok()?;
        self.verifiers.insert(pem.into(), made.clone());
        Some(made)
    }
}
