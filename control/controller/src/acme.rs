//! Certificates from an ACME server (RFC 8555), ordered when asked and renewed
//! at two thirds of their life.
//!
//! The proof of a host is a certificate like any other, which relays show only
//! to ACME servers (TLS-ALPN-01) or as text (HTTP-01); DNS-01 is a program of
//! the operator's. The account is sealed to controllers and shared by them.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeHandle, ChallengeType, Identifier, NewAccount, NewOrder,
    OrderStatus, RetryPolicy,
};
use model::{
    CertificateId, Command, ObjectKey, TenantId, Timestamp,
    keys::{AcmeMethod, Certificate, Key, KeyHolder, KeyPurpose, Source},
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use runtime::{clock::fresh_id, telemetry::chain};
use serde::Deserialize;
use thiserror::Error;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    ControllerError, Surroundings,
    certificates::{self, Brought},
    writer::{ChangeContext, WriteError, Writer},
};

const ORDER_TIMEOUT: Duration = Duration::from_secs(180);
const HOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// Looked at this often, whatever is due.
const CHECK_INTERVAL_MAX: Duration = Duration::from_secs(6 * 3600);
const RETRY_MAX: Duration = Duration::from_secs(3600);
const CHALLENGE_LIFE_S: i64 = 3600;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where the server describes itself, such as
    /// `https://acme-v02.api.letsencrypt.org/directory`. Without it none is ordered.
    pub directory: String,
    /// `mailto:` addresses the server may write to.
    pub contact: Vec<String>,
    /// The operator has read the server's terms and agrees.
    pub terms_agreed: bool,
    /// PEM file of roots to trust for the server, in place of the system's.
    pub roots: Option<PathBuf>,
    /// Program for DNS-01, called with `set NAME VALUE` to add a TXT record
    /// and `clear NAME VALUE` to remove it. It returns when the record is there.
    pub dns_hook: Option<PathBuf>,
}

#[derive(Debug, Error)]
pub enum AcmeError {
    #[error("no ACME server is set: controller.acme.directory")]
    NoServer,
    #[error("the terms of the ACME server are not agreed to: controller.acme.terms_agreed")]
    Terms,
    #[error("{attempted}")]
    Server { attempted: &'static str, source: instant_acme::Error },
    #[error("the server offers no such proof for {0}")]
    NoChallenge(String),
    #[error("the server does not believe that {hosts} leads here")]
    NotProven { hosts: String },
    #[error("it took longer than 3 minutes")]
    Late,
    #[error("DNS-01 needs a program that sets records: controller.acme.dns_hook")]
    NoHook,
    #[error("the DNS hook failed to {0}")]
    Hook(&'static str),
    #[error("the certificate that came cannot be used: {0}")]
    Unusable(String),
    #[error(transparent)]
    Controller(#[from] ControllerError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("reading the account")]
    Account(#[from] serde_json::Error),
}

fn server(attempted: &'static str) -> impl FnOnce(instant_acme::Error) -> AcmeError {
    move |source| AcmeError::Server { attempted, source }
}

/// What ordering needs.
#[derive(Clone)]
pub(crate) struct Acme {
    pub settings: Arc<Settings>,
    pub writer: Arc<Writer>,
    pub surroundings: Surroundings,
}

impl Acme {
    /// Orders a certificate and installs it under an id.
    pub(crate) async fn order(
        &self,
        tenant: &TenantId,
        id: CertificateId,
        hosts: &[String],
        method: AcmeMethod,
    ) -> Result<Certificate, AcmeError> {
        let ordering = async {
            let account = self.account(tenant).await?;
            let identifiers: Vec<Identifier> = hosts.iter().map(|it| Identifier::Dns(it.clone())).collect();
            let ordered = account.new_order(&NewOrder::new(&identifiers)).await;
            let mut order = ordered.map_err(server("asking the ACME server for a certificate"))?;
            let mut proofs = Vec::new();
            let proven = async {
                let mut authorizations = order.authorizations();
                while let Some(authorization) = authorizations.next().await {
                    let mut authorization = authorization.map_err(server("reading what is to be proven"))?;
                    if authorization.status == AuthorizationStatus::Valid {
                        continue;
                    }
                    let kind = match method {
                        AcmeMethod::TlsAlpn01 => ChallengeType::TlsAlpn01,
                        AcmeMethod::Http01 => ChallengeType::Http01,
                        AcmeMethod::Dns01 => ChallengeType::Dns01,
                    };
                    let Identifier::Dns(host) = authorization.identifier().identifier.clone() else { continue };
                    let mut challenge = authorization.challenge(kind).ok_or(AcmeError::NoChallenge(host.clone()))?;
                    proofs.push(self.prove(tenant, &host, method, &challenge).await?);
                    challenge.set_ready().await.map_err(server("saying that the proof is there"))?;
                }
                order.poll_ready(&RetryPolicy::default()).await.map_err(server("waiting for the server to check"))
            };
            let status = proven.await;
            for proof in proofs {
                self.withdraw(tenant, proof).await;
            }
            if status? != OrderStatus::Ready {
                return Err(AcmeError::NotProven { hosts: hosts.join(", ") });
            }
            let key = order.finalize().await.map_err(server("finishing the order"))?;
            let chain =
                order.poll_certificate(&RetryPolicy::default()).await.map_err(server("fetching the certificate"))?;
            let brought = Brought::read(&(chain + &key), self.writer.now());
            let brought = brought.map_err(|error| AcmeError::Unusable(error.to_string()))?;
            let certificate = brought.seal(id, Source::Acme(method), &self.surroundings.peers.seal_to_relays)?;
            self.install(tenant, certificate.clone(), false).await?;
            info!(?hosts, "a certificate was ordered");
            Ok(certificate)
        };
        timeout(ORDER_TIMEOUT, ordering).await.map_err(|_| AcmeError::Late)?
    }

    async fn install(&self, tenant: &TenantId, certificate: Certificate, wait_applied: bool) -> Result<(), WriteError> {
        let context = ChangeContext { wait_applied, ..ChangeContext::of_system(tenant, "acme") };
        self.writer.execute(&context, vec![Command::Put(certificate.into())]).await.map(|_| ())
    }

    /// Makes the proof visible; the server looks right after.
    async fn prove(
        &self,
        tenant: &TenantId,
        host: &str,
        method: AcmeMethod,
        challenge: &ChallengeHandle<'_>,
    ) -> Result<Proof, AcmeError> {
        let key_authorization = challenge.key_authorization();
        if method == AcmeMethod::Dns01 {
            let record = Record { name: format!("_acme-challenge.{host}"), value: key_authorization.dns_value() };
            self.hook("set", &record).await?;
            return Ok(Proof::Record(record));
        }
        let key = KeyPair::generate().map_err(ControllerError::from)?;
        let mut params = CertificateParams::new([host.to_owned()]).map_err(ControllerError::from)?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(key_authorization.digest().as_ref())];
        let shown = params.self_signed(&key).map_err(ControllerError::from)?;
        let seal = &self.surroundings.peers.seal_to_relays;
        let certificate = Certificate {
            id: CertificateId(fresh_id()),
            hosts: vec![host.to_owned()],
            chain: vec![shown.der().to_vec()],
            sealed_private_key: seal.seal("certificate-key", &key.serialize_der()).map_err(ControllerError::from)?,
            expires: self.writer.now().plus_seconds(CHALLENGE_LIFE_S),
            source: Source::Challenge { key_authorization: key_authorization.as_str().to_owned() },
        };
        let id = certificate.id;
        // Every relay shows it before the server is told to look.
        self.install(tenant, certificate, true).await?;
        Ok(Proof::Certificate(id))
    }

    async fn withdraw(&self, tenant: &TenantId, proof: Proof) {
        let withdrawn = match &proof {
            Proof::Record(record) => self.hook("clear", record).await,
            Proof::Certificate(id) => {
                let context = ChangeContext::of_system(tenant, "acme");
                let removed = self.writer.execute(&context, vec![Command::Remove(ObjectKey::Certificate(*id))]).await;
                removed.map(|_| ()).map_err(AcmeError::from)
            }
        };
        if let Err(error) = withdrawn {
            warn!(error = %chain(&error), "a proof for an ACME server stays behind");
        }
    }

    async fn hook(&self, act: &'static str, record: &Record) -> Result<(), AcmeError> {
        let program = self.settings.dns_hook.as_ref().ok_or(AcmeError::NoHook)?;
        let mut command = tokio::process::Command::new(program);
        command.args([act, &record.name, &record.value]).stdin(Stdio::null()).kill_on_drop(true);
        let ended = timeout(HOOK_TIMEOUT, command.status()).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(_) | Err(_)) | Err(_) => Err(AcmeError::Hook(act)),
        }
    }

    /// The account at this server, made when there is none.
    async fn account(&self, tenant: &TenantId) -> Result<Account, AcmeError> {
        let Settings { directory, contact, terms_agreed, roots, .. } = self.settings.as_ref();
        if directory.is_empty() {
            return Err(AcmeError::NoServer);
        }
        let builder = match roots {
            Some(path) => Account::builder_with_root(path),
            None => Account::builder(),
        };
        let builder = builder.map_err(server("preparing TLS to the ACME server"))?;
        let known = self.writer.snapshot().tenant(tenant).and_then(|it| {
            let keys = it.keys_for(KeyPurpose::AcmeAccount);
            let (_, key) = keys.into_iter().find(|(_, key)| key.public_key == directory.as_bytes())?;
            key.sealed_for(KeyHolder::Controller).map(<[u8]>::to_vec)
        });
        if let Some(sealed) = known
            && let Ok(secret) = self.surroundings.sealing.open("acme-account", &sealed)
        {
            let credentials: AccountCredentials = serde_json::from_slice(&secret)?;
            return builder.from_credentials(credentials).await.map_err(server("opening the account"));
        }
        if !terms_agreed {
            return Err(AcmeError::Terms);
        }
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let account = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let made = builder.create(&account, directory.clone(), None).await;
        let (account, credentials) = made.map_err(server("making an account at the ACME server"))?;
        let secret = serde_json::to_vec(&credentials)?;
        let sealed = self.surroundings.sealing.public().seal("acme-account", &secret).map_err(ControllerError::from)?;
        let key = Key {
            id: fresh_id().simple().to_string(),
            purpose: KeyPurpose::AcmeAccount,
            active_from: self.writer.now(),
            public_key: directory.as_bytes().to_vec(),
            sealed: vec![(KeyHolder::Controller, sealed)],
        };
        self.writer.execute(&ChangeContext::of_system(tenant, "acme"), vec![Command::Put(key.into())]).await?;
        Ok(account)
    }

    /// Renews what was ordered, until `stop`.
    pub(crate) async fn renew(self, tenant: TenantId, stop: CancellationToken) {
        let mut failures = 0u32;
        let mut snapshots = self.surroundings.projection.watch();
        loop {
            let now = self.writer.now();
            let due = self.due(&tenant);
            let soonest = due.first().map(|(at, _)| Duration::from_millis((at.0 - now.0).max(0) as u64));
            let retry = RETRY_MAX.min(Duration::from_secs(5) * 4u32.pow(failures.min(6)));
            let pause = match (soonest, failures) {
                (None, _) => CHECK_INTERVAL_MAX,
                (Some(soonest), 0) => soonest.min(CHECK_INTERVAL_MAX),
                (Some(soonest), _) => soonest.max(retry).min(CHECK_INTERVAL_MAX),
            };
            // Several controllers have the same thought; the first one acts.
            let jitter = pause.mul_f64(f64::from(runtime::clock::random_bytes::<1>()[0]) / 5000.0);
            tokio::select! {
                () = tokio::time::sleep(pause + jitter) => {}
                changed = snapshots.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = stop.cancelled() => return,
            }
            let now = self.writer.now();
            for (_, certificate) in self.due(&tenant).into_iter().filter(|(at, _)| *at <= now) {
                let Source::Acme(method) = certificate.source else { continue };
                match self.order(&tenant, certificate.id, &certificate.hosts, method).await {
                    Ok(_) => failures = 0,
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        warn!(hosts = ?certificate.hosts, error = %chain(&error), "a certificate is not renewed yet");
                    }
                }
            }
        }
    }

    /// Ordered certificates, and when two thirds of each are over; soonest first.
    fn due(&self, tenant: &TenantId) -> Vec<(Timestamp, Certificate)> {
        let snapshot = self.writer.snapshot();
        let certificates = snapshot.tenant(tenant).into_iter().flat_map(|it| it.certificates.values());
        let ordered = certificates.filter(|it| matches!(it.source, Source::Acme(_)));
        let mut due: Vec<_> = ordered
            .filter_map(|it| {
                let begins = certificates::begins(it)?;
                Some((Timestamp(begins.0 + (it.expires.0 - begins.0) * 2 / 3), it.clone()))
            })
            .collect();
        due.sort_by_key(|(at, _)| *at);
        due
    }
}

/// What stands somewhere until the server has looked.
enum Proof {
    Certificate(CertificateId),
    Record(Record),
}

struct Record {
    name: String,
    value: String,
}
