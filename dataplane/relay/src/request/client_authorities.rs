//! Certificates of users (PUB-43): asked for on hosts where an application wants
//! them, verified for the application that was asked, and told to it (RFC 9440).
//!
//! The handshake takes whatever a user shows and holds the key of; which
//! authority counts is decided with the request, for a host may have several
//! applications.

use std::sync::{Arc, Mutex, PoisonError};

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{App, Snapshot};
use quick_cache::sync::Cache;
use runtime::verifier::Delegating;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::{
    USER_ALPN,
    listener::{FromSnapshot, user_tls},
};

/// Authorities remembered, by their PEM.
const REMEMBERED: usize = 1024;

/// Verifiers by the PEM they were made of.
pub(crate) struct ClientAuthorities {
    /// For handshakes in which a certificate is asked for.
    pub tls: Arc<ServerConfig>,
    verifiers: Cache<Arc<str>, Arc<dyn ClientCertVerifier>>,
}

impl ClientAuthorities {
    pub(crate) fn new(certificates: FromSnapshot) -> Result<Self, rustls::Error> {
        // Any certificate, or none; the application's own authority judges it with the request.
        let anybody = Delegating::new(|_| Ok(()));
        let tls = user_tls(runtime::tls::USER_VERSIONS, Arc::new(anybody), certificates, &USER_ALPN)?;
        Ok(Self { tls: Arc::new(tls), verifiers: Cache::new(REMEMBERED) })
    }

    /// Does anything on this host ask for a certificate?
    pub(crate) fn asks(snapshot: &Snapshot, host: &str) -> bool {
        snapshot.routes.on_host(host).iter().any(|route| {
            let app = snapshot.tenant(&route.tenant).and_then(|tenant| tenant.app(route.app));
            app.is_some_and(|it| !it.client_ca_pem.is_empty())
        })
    }

    /// Is the certificate good for this application, now?
    pub(crate) fn verifies(&self, app: &App, shown: &Shown, now_s: i64) -> bool {
        let Some((own, chain)) = shown.chain.split_first() else { return false };
        let mut last = shown.verified.lock().unwrap_or_else(PoisonError::into_inner);
        // Again every minute: certificates end.
        if last.as_ref().is_some_and(|(by, at)| *by == app.client_ca_pem && now_s - at < 60) {
            return true;
        }
        let Some(verifier) = self.verifier(&app.client_ca_pem) else { return false };
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_s.max(0) as u64));
        let good = verifier.verify_client_cert(own, chain, now).is_ok();
        *last = good.then(|| (app.client_ca_pem.clone(), now_s));
        good
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

/// What a user showed in the handshake, and for what it was good.
#[derive(Default)]
pub(crate) struct Shown {
    chain: Vec<CertificateDer<'static>>,
    verified: Mutex<Option<Verified>>,
}

/// By which authorities, and when in seconds.
type Verified = (Arc<str>, i64);

impl Shown {
    pub(crate) fn new(chain: Option<&[CertificateDer<'static>]>) -> Self {
        Self { chain: chain.unwrap_or_default().to_vec(), verified: Mutex::default() }
    }

    /// `Client-Cert`, a structured field (RFC 9440, section 2.2).
    pub(crate) fn field(&self) -> Option<String> {
        Some(format!(":{}:", STANDARD.encode(self.chain.first()?)))
    }
}
