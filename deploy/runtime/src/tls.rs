//! TLS as every part of Postern speaks it.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use x509_parser::extensions::GeneralName;

use crate::Clock;

/// Users may come with 1.2; our own links never do.
pub const USER_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
pub const LINK_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// What this machine encrypts cheapest comes first: AES-128 where the processor
/// has AES (a quarter less than AES-256, and no less safe for a session), else
/// ChaCha20.
pub fn provider() -> CryptoProvider {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has_aes = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        let name = format!("{:?}", suite.suite());
        let is_cheap = if has_aes { name.contains("AES_128") } else { name.contains("CHACHA20") };
        // Sorting is stable: 1.3 stays before 1.2.
        (suite.tls13().is_none(), !is_cheap)
    });
    provider
}

/// Roots from DER certificates.
pub fn roots<'a>(ders: impl IntoIterator<Item = &'a [u8]>) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut store = RootCertStore::empty();
    for der in ders {
        store.add(CertificateDer::from(der.to_vec()))?;
    }
    Ok(Arc::new(store))
}

/// A client of our own services: TLS 1.3, these roots, and a certificate if given.
pub fn link_client(
    roots: Arc<RootCertStore>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_protocol_versions(LINK_VERSIONS).with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.time_provider = Arc::new(Clock::default());
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// From when and until when a certificate may be used, in seconds since 1970.
pub fn validity_s(der: &[u8]) -> Option<(i64, i64)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some((certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp()))
}

/// The names in a certificate that are URIs; none of what cannot be read.
pub fn uris(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else { return vec![] };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return vec![] };
    let uris = names.value.general_names.iter().filter_map(|name| {
        let GeneralName::URI(uri) = name else { return None };
        Some((*uri).to_owned())
    });
    uris.collect()
}

/// Certificates of a PEM text, as DER.
pub fn pem_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem).collect()
}

pub fn pem_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, rustls::pki_types::pem::Error> {
    PrivateKeyDer::from_pem_slice(pem)
}

/// DER as PEM (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).filter_map(|it| std::str::from_utf8(it).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_suite_is_tls_13_and_the_rest_is_kept() {
        let (ours, theirs) = (provider(), rustls::crypto::aws_lc_rs::default_provider());
        assert!(ours.cipher_suites[0].tls13().is_some());
        assert_eq!(ours.cipher_suites.len(), theirs.cipher_suites.len());
        let first_12 = ours.cipher_suites.iter().position(|suite| suite.tls13().is_none()).unwrap();
        assert!(ours.cipher_suites[first_12..].iter().all(|suite| suite.tls13().is_none()));
    }
}
