//! Who the user of a request is, as identity signed it: not as a relay says.
//!
//! The keys come from the controller's signed events, as applications do
//! (`origins`); a relay passes them on but cannot make one up. A signature is
//! checked once and remembered; whether its key is trusted, the statement is
//! about the application of the request, and it is in time, is asked at each use.
//!
//! Not here: what an application is told of its user.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use proto::{
    Message,
    signed::{Untrusted, Verifier},
    v1::{EventBody, Key, KeyPurpose, SignedEvent},
};
use quick_cache::sync::Cache;
use runtime::Clock;
use thiserror::Error;
use tokens::{
    PublicKeys, TokenFault, TokenFaults, TokenKind,
    statement::{UserStatement, VerifiedStatement, verify_statement},
};
use tokio::{sync::watch, time::timeout};
use tracing::{debug, warn};

/// Verified statements that are remembered: sessions of ten minutes.
const REMEMBERED: usize = 4096;
/// A request may be faster than the key that its statement is signed with.
const KEY_WAIT: Duration = Duration::from_secs(2);

/// The user that a connection to an origin is opened for: an id, never a name,
/// which may be given to somebody else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account(Arc<str>);

impl Account {
    pub fn of(user: &UserStatement) -> Self {
        Self(user.sub.as_str().into())
    }

    #[cfg(test)]
    pub(crate) fn named(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is believed about users, by all workers of a connector.
pub struct Statements {
    tenant: String,
    known: RwLock<KnownKeys>,
    /// Tells that keys came or went.
    learnt: watch::Sender<()>,
    verified: Cache<String, Arc<VerifiedStatement>>,
    faults: TokenFaults,
    clock: Clock,
}

struct KnownKeys {
    trust: Verifier,
    /// By id: the version of the last event, and the key unless it is retired.
    keys: BTreeMap<String, (u64, Option<Vec<u8>>)>,
    public: PublicKeys,
}

/// Why an event about a key is not learnt.
#[derive(Debug, Error, PartialEq, Eq)]
enum KeyFault {
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    #[error("the event is of tenant {0:?}")]
    Tenant(String),
    #[error("the event is a {0:?}")]
    Kind(String),
    #[error("the key is for something else")]
    Purpose,
}

impl Statements {
    /// Of users of this tenant, in events these keys sign.
    pub fn new(tenant: &str, writers: Vec<Vec<u8>>, faults: TokenFaults, clock: Clock) -> Self {
        let known =
            KnownKeys { trust: Verifier::trusting(writers), keys: BTreeMap::new(), public: PublicKeys::default() };
        Self {
            tenant: tenant.to_owned(),
            known: RwLock::new(known),
            learnt: watch::Sender::default(),
            verified: Cache::new(REMEMBERED),
            faults,
            clock,
        }
    }

    /// Takes events about keys that a relay passed on. Forged ones, another
    /// tenant's, and older versions than what is known change nothing.
    pub fn learn(&self, events: &[bytes::Bytes]) {
        if events.is_empty() {
            return;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            match known.believe(&self.tenant, event) {
                Ok((version, key)) => known.put(version, key),
                Err(fault) => warn!(%fault, "a relay passed on a key that is not believed"),
            }
        }
        let public = known.keys.iter().filter_map(|(id, (_, key))| Some((id.as_str(), key.as_deref()?)));
        known.public = PublicKeys::es256(public).succeeding(&known.public);
        drop(known);
        self.learnt.send_replace(());
    }

    /// The user of a request to an application; nobody where no statement came.
    pub async fn user(&self, statement: &[u8], app: &str) -> Result<Option<Arc<VerifiedStatement>>, TokenFault> {
        if statement.is_empty() {
            return Ok(None);
        }
        let mut learnt = self.learnt.subscribe();
        let mut outcome = self.verify(statement, app);
        if outcome.as_ref().err() == Some(&TokenFault::UnknownKey) {
            let known = async {
                while outcome.as_ref().err() == Some(&TokenFault::UnknownKey) && learnt.changed().await.is_ok() {
                    outcome = self.verify(statement, app);
                }
            };
            // Late: it is unknown then.
            let _late = timeout(KEY_WAIT, known).await;
        }
        self.faults.noted(TokenKind::Statement, outcome).map(Some)
    }

    fn verify(&self, statement: &[u8], app: &str) -> Result<Arc<VerifiedStatement>, TokenFault> {
        let text = std::str::from_utf8(statement).map_err(|_| TokenFault::Malformed)?;
        let now_s = self.clock.now_ms() / 1000;
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(verified) = self.verified.get(text) {
            known.public.check(&verified.key)?;
            verified.claims.check(app, now_s)?;
            return Ok(verified);
        }
        let verified = Arc::new(verify_statement(text, &known.public, &self.tenant, app, now_s)?);
        debug!(app, user = %Account::of(&verified.claims), key = verified.key, "a user statement is believed");
        self.verified.insert(text.to_owned(), verified.clone());
        Ok(verified)
    }
}

impl KnownKeys {
    fn believe(&mut self, tenant: &str, event: &[u8]) -> Result<(u64, Key), KeyFault> {
        let event = SignedEvent::decode(event).map_err(|_| Untrusted::Malformed)?;
        let (body, _) = self.trust.verify(&event)?;
        let EventBody { tenant: of, kind, version, payload, .. } = body;
        if of != tenant {
            return Err(KeyFault::Tenant(of));
        }
        let key = Key::decode(payload).map_err(|_| Untrusted::Malformed)?;
        match kind.as_str() {
            "key.put" | "KeyPublished" if key.purpose() == KeyPurpose::Session => Ok((version, key)),
            "key.put" | "KeyPublished" => Err(KeyFault::Purpose),
            "key.removed" | "KeyRetired" => Ok((version, Key { id: key.id, ..Key::default() })),
            _ => Err(KeyFault::Kind(kind)),
        }
    }

    fn put(&mut self, version: u64, key: Key) {
        if self.keys.get(&key.id).is_none_or(|(before, _)| *before < version) {
            debug!(key = %key.id, version, "a key of user statements is known");
            self.keys.insert(key.id, (version, Some(key.public_key).filter(|it| !it.is_empty())));
        }
    }
}

#[cfg(test)]
mod tests;
