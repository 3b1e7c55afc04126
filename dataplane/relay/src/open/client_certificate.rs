//! The certificate a user showed in the TLS handshake, and for which authorities
//! it was found good.

use std::sync::{Arc, Mutex, PoisonError};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::pki_types::CertificateDer;

/// Certificates end, so each is verified again after so many seconds.
const VERIFIED_LIFE_S: i64 = 60;

#[derive(Default)]
pub(crate) struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    verified: Mutex<Option<Verified>>,
}

/// By which authorities, and when in seconds.
type Verified = (Arc<str>, i64);

impl ClientCertificate {
    pub(crate) fn new(chain: Option<&[CertificateDer<'static>]>) -> Self {
        Self { chain: chain.unwrap_or_default().to_vec(), verified: Mutex::default() }
    }

    /// Whether it is good for these authorities (PEM); `verify` is asked with the
    /// certificate and its chain unless it said so lately.
    pub(crate) fn is_good(
        &self,
        authorities: &Arc<str>,
        now_s: i64,
        verify: impl FnOnce(&CertificateDer<'_>, &[CertificateDer<'_>]) -> bool,
    ) -> bool {
        let Some((own, chain)) = self.chain.split_first() else { return false };
        let mut last = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|(by, at)| by == authorities && now_s - at < VERIFIED_LIFE_S) {
            return true;
        }
        let good = verify(own, chain);
        *last = good.then(|| (authorities.clone(), now_s));
        good
    }

    /// `Client-Cert`, a structured field (RFC 9440, section 2.2).
    pub(crate) fn field(&self) -> Option<String> {
        Some(format!(":{}:", STANDARD.encode(self.chain.first()?)))
    }
}
