//! Server certificates somebody brought: read, judged, sealed to relays.

use eventlog::wire::FieldError;
use model::{
    CertificateId, Timestamp,
    keys::{Certificate, Source},
};
use runtime::{sealing::SealTo, tls};
use rustls::sign::CertifiedKey;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::ControllerError;

const PEM_BYTES_MAX: usize = 64 * 1024;
const HOSTS_MAX: usize = 100;

/// A chain and its key that fit together.
pub(crate) struct Brought {
    hosts: Vec<String>,
    chain: Vec<Vec<u8>>,
    private_key: Vec<u8>,
    expires: Timestamp,
}

impl Brought {
    /// `pem` has the chain, leaf first, and the key, in any order.
    pub(crate) fn read(pem: &str, now: Timestamp) -> Result<Self, FieldError> {
        let bad = |problem: &str| FieldError { field: "pem", problem: problem.to_owned() };
        if pem.len() > PEM_BYTES_MAX {
            return Err(bad("has 64 KiB at most"));
        }
        let chain = tls::pem_certificates(pem.as_bytes()).map_err(|_| bad("is not PEM"))?;
        let key = tls::pem_key(pem.as_bytes())
            .map_err(|_| bad("has no unencrypted private key: openssl pkey decrypts one"))?;
        let leaf = chain.first().ok_or(bad("has no certificate"))?.clone();
        let private_key = key.secret_der().to_vec();
        CertifiedKey::from_der(chain.clone(), key, &tls::provider())
            .map_err(|_| bad("has a key that is not the first certificate's; the leaf comes first"))?;
        let (_, parsed) = X509Certificate::from_der(&leaf).map_err(|_| bad("has a certificate that cannot be read"))?;
        let expires = Timestamp(parsed.validity().not_after.timestamp() * 1000);
        if expires <= now {
            return Err(bad("has expired"));
        }
        // PUB-13: nobody's browser would believe it.
        if parsed.issuer() == parsed.subject() {
            return Err(bad("is its own issuer; have an authority sign it, or order one"));
        }
        let hosts = names(&parsed);
        if hosts.is_empty() || hosts.len() > HOSTS_MAX {
            return Err(bad("names no host in its subjectAltName, or more than 100"));
        }
        Ok(Self { hosts, chain: chain.iter().map(|it| it.to_vec()).collect(), private_key, expires })
    }

    pub(crate) fn seal(
        self,
        id: CertificateId,
        source: Source,
        relays: &SealTo,
    ) -> Result<Certificate, ControllerError> {
        let sealed_private_key = relays.seal("certificate-key", &self.private_key)?;
        let Self { hosts, chain, expires, .. } = self;
        Ok(Certificate { id, hosts, chain, sealed_private_key, expires, source })
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return vec![] };
    let mut dns = Vec::new();
    for name in &names.value.general_names {
        if let GeneralName::DNSName(name) = name {
            dns.push(name.to_ascii_lowercase());
        }
    }
    dns
}

/// When a certificate began.
pub(crate) fn begins(certificate: &Certificate) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(certificate.chain.first()?).ok()?;
    Some(Timestamp(parsed.validity().not_before.timestamp() * 1000))
}
