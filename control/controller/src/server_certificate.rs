//! The certificate controllers show, and its renewal while they run.
//!
//! Nobody else needs to know of it: whoever calls trusts the authority, and the
//! name is the same for every controller. So it is never written down.

use std::sync::{Arc, PoisonError, RwLock};

use model::Timestamp;
use proto::enrolment::CONTROLLER_NAME;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{ControllerError, authority::Authority, bootstrap::renewal};

/// What is shown now.
pub struct ServerCertificate {
    authority: Arc<Authority>,
    shown: RwLock<ServedCertificate>,
}

struct ServedCertificate {
    certified: Arc<CertifiedKey>,
    renews: Timestamp,
    expires: Timestamp,
}

impl ServerCertificate {
    pub fn new(authority: Arc<Authority>, now: Timestamp) -> Result<Self, ControllerError> {
        let shown = RwLock::new(issue(&authority, now)?);
        Ok(Self { authority, shown })
    }

    /// When another one is due.
    pub fn renews(&self) -> Timestamp {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).renews
    }

    pub fn expires(&self) -> Timestamp {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).expires
    }

    pub fn renew(&self, now: Timestamp) -> Result<(), ControllerError> {
        let next = issue(&self.authority, now)?;
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

fn issue(authority: &Authority, now: Timestamp) -> Result<ServedCertificate, ControllerError> {
    let issued = authority.server(&[CONTROLLER_NAME.to_owned()], now)?;
    let renews = issued.chain.first().map_or(now, |der| renewal(der));
    let chain: Vec<_> = issued.chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(issued.key));
    let certified = CertifiedKey::from_der(chain, key, &runtime::tls::provider())?;
    Ok(ServedCertificate { certified: Arc::new(certified), renews, expires: issued.expires })
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerCertificate")
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.read().unwrap_or_else(PoisonError::into_inner).certified.clone())
    }
}
