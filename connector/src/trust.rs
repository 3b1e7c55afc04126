//! TLS to https origins: how their certificates are verified, and which client
//! certificate they are shown.
//!
//! Roots are the system's or the application's own; pins come on top of the
//! usual verification and never in place of it. A client certificate lies
//! beside the connector and goes nowhere else: not to the controller, not
//! through a relay.

use std::{path::PathBuf, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use proto::v1::{App, ResetCode};
use runtime::verifier::{Delegating, PresentedChain};
use rustls::{
    CertificateError, ClientConfig, Error, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::ParsedCertificate,
};
use tracing::warn;

/// What is the same for all origins of a connector.
#[derive(Debug)]
pub struct Trust {
    pub roots: Arc<RootCertStore>,
    /// Folder of `HOST.pem`: a client certificate with its chain and key.
    pub client_certificates: Option<PathBuf>,
}

impl Trust {
    /// How to speak TLS with a host of an application: any protocol, or HTTP/1.1.
    pub(crate) fn client(&self, app: &App, host: &str) -> Result<(Arc<ClientConfig>, Arc<ClientConfig>), ResetCode> {
        let roots = match app.origin_ca_pem.is_empty() {
            true => self.roots.clone(),
            false => {
                let ders = runtime::tls::pem_certificates(app.origin_ca_pem.as_bytes()).map_err(|_| ResetCode::Tls)?;
                runtime::tls::roots(ders.iter().map(|it| it.as_ref())).map_err(|_| ResetCode::Tls)?
            }
        };
        let usual = WebPkiServerVerifier::builder(roots).build().map_err(|_| ResetCode::Tls)?;
        let pins: Vec<Vec<u8>> = app.origin_pins.iter().filter_map(|it| STANDARD.decode(it).ok()).collect();
        let verifier: Arc<dyn ServerCertVerifier> = match app.origin_pins.is_empty() {
            true => usual,
            false => Arc::new(pinned(usual, pins)),
        };
        let builder = ClientConfig::builder_with_protocol_versions(runtime::tls::USER_VERSIONS)
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match self.own_certificate(host)? {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
                warn!(host, %error, "the client certificate for this host cannot be used");
                ResetCode::Tls
            })?,
        };
        let with = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
            Arc::new(config)
        };
        Ok((with(&[b"h2", b"http/1.1"]), with(&[b"http/1.1"])))
    }

    /// Read when an application is first used, and again when its definition changes.
    fn own_certificate(&self, host: &str) -> Result<Option<OwnCertificate>, ResetCode> {
        let is_name =
            host.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._".contains(&it)) && !host.starts_with('.');
        let Some(folder) = self.client_certificates.as_ref().filter(|_| is_name) else { return Ok(None) };
        let path = folder.join(format!("{host}.pem"));
        let pem = match std::fs::read(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                warn!(path = %path.display(), %error, "a client certificate cannot be read");
                return Err(ResetCode::Tls);
            }
        };
        let chain = runtime::tls::pem_certificates(&pem).map_err(|_| ResetCode::Tls)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
            warn!(path = %path.display(), %error, "a client certificate has no key beside it");
            ResetCode::Tls
        })?;
        Ok(Some((chain, key)))
    }
}

/// A chain, and the key of its first certificate.
type OwnCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The verification that a chain of certificates meets without pins.
pub(crate) fn verify_as_usual(usual: &WebPkiServerVerifier, presented: &PresentedChain<'_>) -> Result<(), Error> {
    let PresentedChain { leaf, intermediates, name, ocsp_response, now } = presented;
    let name = name.ok_or(Error::General("a server without a name".into()))?;
    usual.verify_server_cert(leaf, intermediates, name, ocsp_response, *now).map(|_| ())
}

/// The usual verification, and then one of the pinned keys.
fn pinned(usual: Arc<WebPkiServerVerifier>, pins: Vec<Vec<u8>>) -> impl ServerCertVerifier {
    Delegating::new(move |presented| {
        verify_as_usual(&usual, presented)?;
        let key = ParsedCertificate::try_from(presented.leaf)?.subject_public_key_info();
        let hash = digest(&SHA256, &key);
        match pins.iter().any(|it| it == hash.as_ref()) {
            true => Ok(()),
            false => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    })
}
