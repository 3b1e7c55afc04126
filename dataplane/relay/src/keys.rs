//! Keys and certificates of the snapshot, ready to use. Derived again only when
//! they change, never on the path of a request.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    CertificateId, Snapshot, Tenant, TenantId, Timestamp,
    hosts::Hosts,
    keys::{Certificate, Key, KeyHolder, KeyPurpose, Source, in_use},
    table::Stored,
};
use proto::enrolment::endpoint_host;
use runtime::{sealing::SealingKey, secret::SharedSecret};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
};
use serde::de::DeserializeOwned;
use tokens::{PublicKeys, SigningKey};
use tracing::warn;

/// Everything derived from one snapshot.
#[derive(Default)]
pub struct Keys {
    pub tenants: BTreeMap<TenantId, TenantKeys>,
    pub certificates: Certificates,
}

/// Of one tenant.
pub struct TenantKeys {
    pub issuer: String,
    domain: String,
    pub login_host: String,
    pub connect_host: String,
    /// What identity's session tokens are verified with.
    pub sessions: PublicKeys,
    assertions: Vec<(Timestamp, SigningKey)>,
    /// Public halves of assertion keys: (id, SubjectPublicKeyInfo).
    pub assertion_keys: Vec<(String, Vec<u8>)>,
    secrets: Vec<(Timestamp, SharedSecret)>,
    /// DER of the certificates connectors chain to.
    pub authorities: Vec<Vec<u8>>,
    /// How the connector endpoint speaks TLS; none without a certificate for it.
    pub endpoint_tls: Option<Arc<ServerConfig>>,
}

impl Keys {
    pub fn derive(snapshot: &Snapshot, own: &SealingKey) -> Self {
        Self::default().derive_again(snapshot, own)
    }

    /// Of a later snapshot. A certificate that is the same is not opened again:
    /// each takes a tenth of a millisecond, and there may be thousands.
    pub fn derive_again(&self, snapshot: &Snapshot, own: &SealingKey) -> Self {
        let mut keys = Self::default();
        for (id, tenant) in &snapshot.tenants {
            keys.tenants.insert(id.clone(), TenantKeys::derive(tenant, own, self.tenants.get(id)));
            for certificate in tenant.certificates.iter() {
                keys.certificates.add(certificate, own, &self.certificates);
            }
        }
        for (id, tenant) in &mut keys.tenants {
            if tenant.prepare_endpoint(&keys.certificates).is_none() {
                warn!(tenant = %id, "no certificate for {}; connectors cannot come", tenant.connect_host);
            }
        }
        keys
    }

    /// The tenant whose connector endpoint has this name.
    pub fn endpoint(&self, host: &str) -> Option<(&TenantId, &TenantKeys)> {
        self.tenants.iter().find(|(_, keys)| keys.connect_host == host)
    }
}

impl TenantKeys {
    fn derive(tenant: &Tenant, own: &SealingKey, before: Option<&Self>) -> Self {
        let domain = &tenant.domain;
        let sessions = tenant.keys_for(KeyPurpose::Session);
        let sessions = PublicKeys::es256(sessions.iter().map(|(_, it)| (it.id.as_str(), it.public_key.as_slice())));
        let assertion = |(active_from, key): (Timestamp, &Key)| {
            let secret = open(own, "assertion-key", key.sealed_for(KeyHolder::Relay)?)?;
            Some((active_from, SigningKey::es256(&key.id, &secret)))
        };
        let secret = |(active_from, key): (Timestamp, &Key)| {
            let secret = open(own, "relay-secret", key.sealed_for(KeyHolder::Relay)?)?;
            Some((active_from, SharedSecret::new(&secret)))
        };
        let assertion_keys = tenant.keys_for(KeyPurpose::Assertion);
        Self {
            issuer: tenant.issuer(),
            domain: domain.clone(),
            login_host: tenant.hosts().login(),
            connect_host: endpoint_host(domain),
            sessions: before.map_or(sessions.clone(), |it| sessions.succeeding(&it.sessions)),
            assertion_keys: assertion_keys.iter().map(|(_, key)| (key.id.clone(), key.public_key.clone())).collect(),
            assertions: assertion_keys.into_iter().filter_map(assertion).collect(),
            secrets: tenant.keys_for(KeyPurpose::RelaySecret).into_iter().filter_map(secret).collect(),
            authorities: tenant.keys_for(KeyPurpose::Authority).iter().map(|(_, key)| key.public_key.clone()).collect(),
            endpoint_tls: None,
        }
    }

    /// TLS 1.3; a certificate is asked for and, if it comes, must be ours.
    fn prepare_endpoint(&mut self, certificates: &Certificates) -> Option<()> {
        // Connectors trust the installation's authority and nobody else.
        let certified = certificates.own(&self.connect_host)?;
        let roots = runtime::tls::roots(self.authorities.iter().map(Vec::as_slice)).ok()?;
        let verifier = WebPkiClientVerifier::builder(roots).allow_unauthenticated().build().ok()?;
        let mut config = ServerConfig::builder_with_protocol_versions(runtime::tls::LINK_VERSIONS)
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.ignore_client_order = true;
        config.time_provider = Arc::new(runtime::Clock::default());
        self.endpoint_tls = Some(Arc::new(config));
        Some(())
    }

    pub fn is_issuer(&self, iss: &str) -> bool {
        Hosts::of(&self.domain).is_issuer(iss)
    }

    /// The shared secret that seals sign-in state and authenticates this relay to identity.
    pub fn secret(&self, now: Timestamp) -> Option<&SharedSecret> {
        in_use(&self.secrets, now)
    }

    /// Opens what any of the secrets sealed; with that secret.
    pub fn open<T: DeserializeOwned>(&self, purpose: &str, sealed: &str) -> Option<(T, &SharedSecret)> {
        self.secrets.iter().find_map(|(_, secret)| Some((secret.open(purpose, sealed)?, secret)))
    }

    /// The key that signs assertions now.
    pub fn assertion_key(&self, now: Timestamp) -> Option<&SigningKey> {
        in_use(&self.assertions, now)
    }
}

fn open(own: &SealingKey, purpose: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let opened = own.open(purpose, sealed);
    if opened.is_err() {
        warn!(purpose, "a key is sealed to another relay key than this relay has");
    }
    opened.ok()
}

/// Server certificates by host name.
#[derive(Default)]
pub struct Certificates {
    /// The installation's own, for hosts nobody brought one for.
    own: Names,
    brought: Names,
    /// By host: what proves it to an ACME server.
    challenges: BTreeMap<String, Challenge>,
    opened: BTreeMap<CertificateId, Opened>,
}

/// A certificate and its opened key; none when it cannot be used.
#[derive(Clone)]
struct Opened {
    of: Arc<Stored<Certificate>>,
    certified: Option<Arc<CertifiedKey>>,
}

/// By exact name, or by `*.PARENT`.
type Names = BTreeMap<String, (Timestamp, Arc<CertifiedKey>)>;

struct Challenge {
    certified: Arc<CertifiedKey>,
    key_authorization: String,
}

impl Certificates {
    fn add(&mut self, stored: &Arc<Stored<Certificate>>, own: &SealingKey, before: &Self) {
        let certificate = &stored.object;
        let opened = before.opened.get(&certificate.id).filter(|it| Arc::ptr_eq(&it.of, stored)).cloned();
        let opened = opened.unwrap_or_else(|| Opened::open(stored, own));
        let certified = opened.certified.clone();
        self.opened.insert(certificate.id, opened);
        let Some(certified) = certified else { return };
        let names = match &certificate.source {
            Source::Own => &mut self.own,
            Source::Uploaded | Source::Acme(_) => &mut self.brought,
            Source::Challenge { key_authorization } => {
                for host in &certificate.hosts {
                    let (certified, key_authorization) = (certified.clone(), key_authorization.clone());
                    self.challenges.insert(host.clone(), Challenge { certified, key_authorization });
                }
                return;
            }
        };
        for host in &certificate.hosts {
            // Of several, the one that lasts longest.
            if names.get(host).is_none_or(|(expires, _)| *expires <= certificate.expires) {
                names.insert(host.clone(), (certificate.expires, certified.clone()));
            }
        }
    }

    pub fn find(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        find(&self.brought, host).or_else(|| self.own(host))
    }

    fn own(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        find(&self.own, host)
    }

    /// RFC 8737: for a client that asks for `acme-tls/1` and nothing else.
    pub fn challenge(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.challenges.get(host).map(|it| it.certified.clone())
    }

    /// RFC 8555, section 8.3.
    pub fn key_authorization(&self, host: &str, token: &str) -> Option<&str> {
        let all = self.challenges.get(host)?.key_authorization.as_str();
        all.split_once('.').filter(|(known, _)| *known == token).map(|_| all)
    }
}

impl Opened {
    fn open(stored: &Arc<Stored<Certificate>>, own: &SealingKey) -> Self {
        let certified = certified(&stored.object, own).map(Arc::new);
        if certified.is_none() {
            warn!(certificate = %stored.object.id, "a certificate cannot be used");
        }
        Self { of: stored.clone(), certified }
    }
}

fn find(names: &Names, host: &str) -> Option<Arc<CertifiedKey>> {
    let of_parent = || {
        let (_, parent) = host.split_once('.')?;
        names.get(format!("*.{parent}").as_str())
    };
    names.get(host).or_else(of_parent).map(|(_, certified)| certified.clone())
}

fn certified(certificate: &Certificate, own: &SealingKey) -> Option<CertifiedKey> {
    let key = open(own, "certificate-key", &certificate.sealed_private_key)?;
    let key = PrivateKeyDer::try_from(key).ok()?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).ok()?;
    let chain = certificate.chain.iter().map(|it| CertificateDer::from(it.clone())).collect();
    Some(CertifiedKey::new(chain, key))
}
