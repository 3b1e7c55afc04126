//! Enrolment of a connector: a key made here, a certificate from the controller,
//! renewed at two thirds of its life, and again after a long absence.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use proto::{
    enrolment::{ConnectorUri, ConnectorUriFault, ENROL, JoinTokenText, RENEW, endpoint_host},
    hex,
    v1::{EnrolRequest, EnrolResponse, RenewRequest},
};
use rcgen::{CertificateParams, KeyPair};
use runtime::{files, verifier::Delegating};
use rustls::{
    ClientConfig, RootCertStore,
    client::WebPkiServerVerifier,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tunnel::link;

use crate::{ConnectorError, dial::Dialer, origins::Relays, trust::verify_as_usual};

const KEY_FILE: &str = "key.pem";
const STATE_FILE: &str = "connector.json";

/// What enrolment leaves behind.
#[derive(Clone)]
pub struct Identity {
    folder: PathBuf,
    key: Arc<KeyPair>,
    pub state: State,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub connector: String,
    pub group: String,
    pub relays: Vec<String>,
    /// Of the event that said where they are; 0 for those of the join token.
    #[serde(default)]
    pub relays_version: u64,
    pub endpoint: String,
    /// DER in hexadecimal, leaf first, the authority last.
    chain: Vec<String>,
    /// Keys that sign application definitions.
    writers: Vec<String>,
}

/// Uses up a token. The key never leaves the folder.
pub async fn join(token: &str, name: &str, folder: &Path, way: &Dialer) -> Result<Identity, ConnectorError> {
    let parsed = JoinTokenText::parse(token)?;
    let in_file = |attempted: &'static str, path: &Path| {
        let path = path.display().to_string();
        move |source| ConnectorError::File { attempted, path, source }
    };
    files::private_folder(folder).map_err(in_file("preparing the folder", folder))?;
    let key = KeyPair::generate()?;
    files::write_private(&folder.join(KEY_FILE), key.serialize_pem().as_bytes())
        .map_err(in_file("writing the key", folder))?;
    let question = EnrolRequest { token: token.trim().to_owned(), name: name.to_owned(), csr: csr(&key)? };
    let config = client_of_anybody(parsed.authority);
    let mut failure = ConnectorError::NotJoined;
    for address in &parsed.relays {
        let asked = ask::<_, EnrolResponse>(way, address, &parsed.endpoint, config.clone(), ENROL, &question);
        match asked.await {
            Ok(answer) => {
                let state = State {
                    connector: answer.connector,
                    group: answer.group,
                    relays: parsed.relays,
                    relays_version: 0,
                    endpoint: parsed.endpoint,
                    chain: answer.chain.iter().map(|it| hex::encode(it)).collect(),
                    writers: answer.writers.values().map(|it| hex::encode(it)).collect(),
                };
                let identity = Identity { folder: folder.to_owned(), key: Arc::new(key), state };
                identity.save()?;
                return Ok(identity);
            }
            Err(refused @ ConnectorError::Refused(_)) => return Err(refused),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

impl Identity {
    pub fn load(folder: &Path) -> Result<Self, ConnectorError> {
        let path = folder.join(STATE_FILE);
        if !path.exists() {
            return Err(ConnectorError::NotJoined);
        }
        let failed = |source| ConnectorError::File { attempted: "reading", path: folder.display().to_string(), source };
        let state = files::read_private(&path).map_err(failed)?;
        let state = serde_json::from_slice(&state).map_err(|source| failed(source.into()))?;
        let pem = files::read_private(&folder.join(KEY_FILE)).map_err(failed)?;
        let key = KeyPair::from_pem(&String::from_utf8_lossy(&pem))?;
        Ok(Self { folder: folder.to_owned(), key: Arc::new(key), state })
    }

    fn save(&self) -> Result<(), ConnectorError> {
        let path = self.folder.join(STATE_FILE);
        let json = serde_json::to_vec_pretty(&self.state).unwrap_or_default();
        files::write_private(&path, &json).map_err(|source| ConnectorError::File {
            attempted: "writing",
            path: path.display().to_string(),
            source,
        })
    }

    /// Relays are somewhere else now.
    pub fn move_to(&mut self, relays: Vec<String>) -> Result<(), ConnectorError> {
        if self.state.relays != relays {
            self.state.relays = relays;
            self.save()?;
        }
        Ok(())
    }

    /// Where the relays of this installation are, unless what is known is newer.
    pub fn news<'a>(&self, relays: &'a Relays) -> Option<&'a [String]> {
        let ours = endpoint_host(&relays.domain) == self.state.endpoint;
        let is_news = ours && relays.version > self.state.relays_version && !relays.addresses.is_empty();
        is_news.then_some(&relays.addresses)
    }

    /// Keeps them for the next start.
    pub fn remember(&mut self, relays: &Relays) -> Result<(), ConnectorError> {
        if let Some(addresses) = self.news(relays) {
            self.state.relays = addresses.to_vec();
            self.state.relays_version = relays.version;
            self.save()?;
        }
        Ok(())
    }

    /// TLS to a relay as this connector.
    pub fn tls(&self) -> Result<Arc<ClientConfig>, ConnectorError> {
        let chain = self.chain();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        Ok(Arc::new(runtime::tls::link_client(self.roots()?, Some((chain, key)))?))
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, ConnectorError> {
        let authority = self.chain().pop().ok_or(ConnectorError::NotJoined)?;
        Ok(runtime::tls::roots([authority.as_ref()])?)
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.state.chain.iter().filter_map(|it| Some(CertificateDer::from(hex::decode(it)?))).collect()
    }

    /// The tenant, as the certificate says.
    pub fn tenant(&self) -> Result<String, ConnectorUriFault> {
        let uris = self.chain().first().map(|leaf| runtime::tls::uris(leaf)).unwrap_or_default();
        ConnectorUri::find(uris.iter().map(String::as_str)).map(|it| it.tenant.to_owned())
    }

    pub fn writers(&self) -> Vec<Vec<u8>> {
        self.state.writers.iter().filter_map(|it| hex::decode(it)).collect()
    }

    /// When two thirds of the certificate's life have passed, in seconds since 1970.
    pub fn renewal_s(&self) -> i64 {
        self.validity().map_or(0, |(from, to)| from + (to - from) * 2 / 3)
    }

    /// When the certificate ends, in seconds since 1970.
    pub fn end_s(&self) -> Option<i64> {
        self.validity().map(|(_, to)| to)
    }

    /// When the certificate ends.
    pub fn until_end(&self, now_s: i64) -> Instant {
        let end = self.validity().map_or(now_s, |(_, to)| to);
        Instant::now() + Duration::from_secs(end.saturating_sub(now_s).max(0) as u64)
    }

    fn validity(&self) -> Option<(i64, i64)> {
        let chain = self.chain();
        runtime::tls::validity_s(chain.first()?)
    }

    /// A new certificate for the same key. The request's signature proves the
    /// key, so an expired certificate is no obstacle; a revoked one is.
    pub async fn renew(&self, way: &Dialer) -> Result<Self, ConnectorError> {
        let certificate = self.chain().first().map(|it| it.to_vec()).unwrap_or_default();
        let question = RenewRequest { certificate, csr: csr(&self.key)? };
        let config = Arc::new(runtime::tls::link_client(self.roots()?, None)?);
        let mut failure = ConnectorError::NotJoined;
        for address in &self.state.relays {
            let asked = ask::<_, EnrolResponse>(way, address, &self.state.endpoint, config.clone(), RENEW, &question);
            match asked.await {
                Ok(answer) => {
                    let mut renewed = self.clone();
                    renewed.state.chain = answer.chain.iter().map(|it| hex::encode(it)).collect();
                    renewed.state.writers = answer.writers.values().map(|it| hex::encode(it)).collect();
                    renewed.save()?;
                    return Ok(renewed);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

fn csr(key: &KeyPair) -> Result<Vec<u8>, ConnectorError> {
    Ok(CertificateParams::default().serialize_request(key)?.der().to_vec())
}

async fn ask<Q: proto::Message, A: proto::Message + Default>(
    way: &Dialer,
    address: &str,
    name: &str,
    config: Arc<ClientConfig>,
    path: &'static str,
    question: &Q,
) -> Result<A, ConnectorError> {
    let dial = |source| ConnectorError::Dial { address: address.to_owned(), source };
    let talk = |source| ConnectorError::Link { address: address.to_owned(), source };
    let io = way.dial(address, name, config).await.map_err(dial)?;
    let (requests, connection) = link::connect(io).await.map_err(talk)?;
    tokio::select! {
        answer = link::unary(&requests, path, question) => Ok(answer.map_err(talk)??),
        ended = connection => {
            let source = ended.err().map_or(tunnel::TunnelError::Ended, Into::into);
            Err(talk(source))
        }
    }
}

/// A client without a certificate that believes one authority by fingerprint:
/// a server whose chain ends there. Name, dates and signatures are checked as
/// usual, under that authority alone.
fn client_of_anybody(fingerprint: String) -> Arc<ClientConfig> {
    let verifier = Delegating::new(move |presented| {
        let authority = presented
            .intermediates
            .iter()
            .find(|it| hex::encode(digest(&SHA256, it).as_ref()) == fingerprint)
            .ok_or_else(|| rustls::Error::General("the relay does not belong to the token's installation".into()))?;
        let roots = runtime::tls::roots([authority.as_ref()])?;
        let usual =
            WebPkiServerVerifier::builder(roots).build().map_err(|error| rustls::Error::General(error.to_string()))?;
        verify_as_usual(&usual, presented)
    });
    let mut config = ClientConfig::builder_with_protocol_versions(runtime::tls::LINK_VERSIONS)
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.time_provider = Arc::new(runtime::Clock::default());
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_are_followed_only_forwards_and_only_in_the_own_installation() {
        let folder = std::env::temp_dir().join(format!("pc-{}", hex::encode(&runtime::clock::random_bytes::<8>())));
        files::private_folder(&folder).unwrap();
        let state = State {
            connector: "c".into(),
            group: "g".into(),
            relays: vec!["old:443".into()],
            relays_version: 3,
            endpoint: "connect.example.com".into(),
            chain: vec![],
            writers: vec![],
        };
        let mut identity = Identity { folder: folder.clone(), key: Arc::new(KeyPair::generate().unwrap()), state };
        let told = |version, domain: &str, addresses: &[&str]| Relays {
            version,
            domain: domain.into(),
            addresses: addresses.iter().map(|it| (*it).to_owned()).collect(),
        };
        for no_news in [
            told(3, "example.com", &["evil:443"]),
            told(9, "another.example.com", &["evil:443"]),
            told(9, "example.com", &[]),
        ] {
            assert!(identity.news(&no_news).is_none(), "{no_news:?}");
        }
        identity.remember(&told(4, "example.com", &["new:443"])).unwrap();
        files::write_private(&folder.join(KEY_FILE), identity.key.serialize_pem().as_bytes()).unwrap();
        let next_start = Identity::load(&folder).unwrap();
        assert_eq!(next_start.state.relays, ["new:443"]);
        assert!(next_start.news(&told(4, "example.com", &["evil:443"])).is_none(), "also after a start");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
