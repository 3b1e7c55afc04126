//! TLS for users: which certificate a host gets, and whose certificate is asked
//! for. What an ACME server asks is answered here too.

use std::sync::Arc;

use arc_swap::ArcSwap;
use model::Snapshot;
use runtime::verifier::Delegating;
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use crate::keys::Keys;

/// Over TCP.
const USER_ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What users are shown: for most hosts, and where an application asks for a
/// certificate of theirs.
pub(crate) struct UserTls {
    pub usual: Arc<ServerConfig>,
    pub asking: Arc<ServerConfig>,
}

impl UserTls {
    pub(crate) fn new(keys: &Arc<ArcSwap<Keys>>) -> Result<Self, rustls::Error> {
        let certificates = || FromSnapshot(keys.clone());
        let nobody = WebPkiClientVerifier::no_client_auth();
        let usual = user_tls(runtime::tls::USER_VERSIONS, nobody, certificates(), &USER_ALPN)?;
        // Any certificate, or none; the application's own authority judges it with the request.
        let anybody = Arc::new(Delegating::new(|_| Ok(())));
        let asking = user_tls(runtime::tls::USER_VERSIONS, anybody, certificates(), &USER_ALPN)?;
        Ok(Self { usual: Arc::new(usual), asking: Arc::new(asking) })
    }

    pub(crate) fn of_host(&self, snapshot: &Snapshot, host: Option<&str>) -> &Arc<ServerConfig> {
        match host.is_some_and(|it| asks_for_certificate(snapshot, it)) {
            true => &self.asking,
            false => &self.usual,
        }
    }
}

/// Does anything on this host ask for a certificate?
fn asks_for_certificate(snapshot: &Snapshot, host: &str) -> bool {
    snapshot.routes.on_host(host).iter().any(|route| {
        let app = snapshot.tenant(&route.tenant).and_then(|tenant| tenant.app(route.app));
        app.is_some_and(|it| !it.client_ca_pem.is_empty())
    })
}

/// For ACME servers that ask whether a host leads here.
pub(crate) fn challenge_tls(keys: &Arc<ArcSwap<Keys>>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_protocol_versions(runtime::tls::USER_VERSIONS)
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Challenges(FromSnapshot(keys.clone()))));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    Arc::new(config)
}

/// TLS for users, in which they choose the cipher: a phone without AES in
/// hardware asks for ChaCha20.
pub(crate) fn user_tls(
    versions: &[&'static SupportedProtocolVersion],
    clients: Arc<dyn ClientCertVerifier>,
    certificates: FromSnapshot,
    protocols: &[&[u8]],
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_protocol_versions(versions)
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
    config.time_provider = Arc::new(runtime::Clock::default());
    // Of its own: no session is resumed on terms it did not begin with.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// Chooses the user's certificate from what is configured now.
pub(crate) struct FromSnapshot(pub Arc<ArcSwap<Keys>>);

impl std::fmt::Debug for FromSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FromSnapshot")
    }
}

/// Proves hosts to an ACME server (RFC 8737).
#[derive(Debug)]
pub(crate) struct Challenges(pub FromSnapshot);

pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = host_asked_for(hello.server_name()?);
        self.0.0.load().certificates.challenge(&host)
    }
}

impl ResolvesServerCert for FromSnapshot {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = host_asked_for(hello.server_name()?);
        self.0.load().certificates.find(&host)
    }
}

/// In lower case. Some send the dot of a host written in full, though they should
/// not (RFC 6066, section 3).
pub(crate) fn host_asked_for(server_name: &str) -> String {
    server_name.strip_suffix('.').unwrap_or(server_name).to_ascii_lowercase()
}
