//! Callers of the admin API: authenticated here, and allowed what one table
//! (`roles.txt`) says of every method.
//!
//! A caller shows a client certificate of this installation or a bearer token
//! of our own sign-in. The role is looked up when it is used, so a withdrawn
//! one ends at once.

use std::{collections::BTreeMap, sync::Arc};

use eventlog::wire::role_named;
use http::HeaderMap;
use model::{
    Role, Snapshot, TenantId, Timestamp, UserId,
    keys::KeyPurpose,
    session::{SessionClaims, SessionFault},
};
use proto::signed::key_id;
use runtime::tls::{uris, validity_s};
use thiserror::Error;
use tokens::{ADMIN_AUDIENCE, PublicKeys, TokenFault, TokenKind, internal, named_key, session};
use tonic::Status;

use crate::{
    ControllerError,
    authority::USER_SCHEME,
    permits::{self, Permits},
};

/// Who was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub tenant: TenantId,
    pub who: Who,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    Nobody,
    Person {
        user: UserId,
        /// Owners of applications need none.
        role: Option<Role>,
    },
    /// A process of ours.
    Identity,
}

impl Caller {
    /// As events name them.
    pub fn actor(&self) -> String {
        match &self.who {
            Who::Nobody => "nobody".into(),
            Who::Person { user, .. } => format!("user:{user}"),
            Who::Identity => "identity".into(),
        }
    }

    /// The same caller, with the role of today.
    pub(crate) fn now(&self, snapshot: &Snapshot) -> Self {
        match &self.who {
            Who::Person { user, .. } => {
                let role = snapshot.tenant(&self.tenant).and_then(|it| it.active_user(*user).and(it.role(*user)));
                Self { tenant: self.tenant.clone(), who: Who::Person { user: *user, role } }
            }
            Who::Nobody | Who::Identity => self.clone(),
        }
    }

    pub fn user(&self) -> Option<UserId> {
        match self.who {
            Who::Person { user, .. } => Some(user),
            Who::Nobody | Who::Identity => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Anybody,
    Identity,
    /// Somebody with a role, or the owner of an application; the call itself looks further.
    Person,
    Role(Role),
}

/// Every method and what it needs.
#[derive(Clone)]
pub struct RoleTable {
    methods: Arc<BTreeMap<String, Needs>>,
    /// What may be done to objects, by kind.
    pub permits: Arc<Permits>,
}

impl RoleTable {
    pub fn load() -> Result<Self, ControllerError> {
        Self::parse(include_str!("roles.txt"))
    }

    pub fn parse(text: &str) -> Result<Self, ControllerError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut methods = BTreeMap::new();
        let mut permits = Permits::default();
        for line in lines {
            let wrong = || ControllerError::RoleTable(line.to_owned());
            let (method, needs) = line.split_once(char::is_whitespace).ok_or_else(wrong)?;
            let needs = match (method, needs.trim()) {
                ("object", rest) => {
                    permits.add(rest).ok_or_else(wrong)?;
                    continue;
                }
                (_, "anybody") => Needs::Anybody,
                (_, "role:identity") => Needs::Identity,
                (_, "person") => Needs::Person,
                (_, name) => Needs::Role(role_named(name).ok_or_else(wrong)?),
            };
            methods.insert(format!("/{method}"), needs);
        }
        Ok(Self { methods: Arc::new(methods), permits: Arc::new(permits) })
    }

    pub fn methods(&self) -> impl Iterator<Item = (&str, Needs)> {
        self.methods.iter().map(|(method, needs)| (method.as_str(), *needs))
    }

    /// A method that is not in the table is nobody's.
    pub fn permit(&self, method: &str, caller: &Caller) -> Result<(), Status> {
        let needs = self.methods.get(method).ok_or_else(|| Status::unimplemented("there is no such method"))?;
        match (needs, &caller.who) {
            (Needs::Anybody, _) => Ok(()),
            (Needs::Identity, Who::Identity) => Ok(()),
            (Needs::Person, Who::Person { .. }) => Ok(()),
            (Needs::Role(least), Who::Person { role: Some(role), .. }) if role >= least => Ok(()),
            (Needs::Role(_) | Needs::Person | Needs::Identity, Who::Nobody) => Err(Status::unauthenticated(
                "sign in first: postern login, or use the owner's credential file of the data folder",
            )),
            (Needs::Role(least), _) => {
                Err(Status::permission_denied(format!("this needs the role {least:?} or higher; ask an owner")))
            }
            (Needs::Person, _) => Err(Status::permission_denied("this is for people")),
            (Needs::Identity, _) => Err(Status::permission_denied("this is for the installation's own processes")),
        }
    }
}

/// What a connection proved.
#[derive(Clone, Debug, Default)]
pub struct PeerCertificate(pub Option<Vec<u8>>);

/// Why whoever calls is nobody.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CallerFault {
    #[error("neither a token nor a certificate")]
    Nothing,
    #[error("{fault}")]
    Token { kind: TokenKind, fault: TokenFault },
    #[error("the session of the token is over or outdated: {0:?}")]
    Session(SessionFault),
    #[error("the certificate names no person of ours")]
    Certificate,
    #[error("the certificate has ended")]
    CertificateEnded,
    #[error("there is no such active user")]
    NoUser,
    #[error("the user has no role")]
    NoRole,
}

/// The public key of identity, which signs calls.
#[derive(Clone, Default)]
pub struct IdentityKey {
    id: String,
    keys: PublicKeys,
}

impl IdentityKey {
    /// From the raw Ed25519 key.
    pub fn new(raw: &[u8]) -> Self {
        let id = key_id(raw);
        Self { keys: PublicKeys::ed25519(&id, raw), id }
    }
}

pub fn recognise(
    snapshot: &Snapshot,
    peer: &PeerCertificate,
    headers: &HeaderMap,
    identity: &IdentityKey,
    now: Timestamp,
) -> Result<Caller, CallerFault> {
    let bearer = headers
        .get(http::header::AUTHORIZATION)
        .and_then(|it| it.to_str().ok())
        .and_then(|it| it.strip_prefix("Bearer "));
    match bearer {
        // A token that does not hold is nobody, even beside a certificate.
        Some(token) if named_key(token) == Ok(identity.id.clone()) => of_identity(token, identity, now),
        Some(token) => of_token(snapshot, token, now),
        None => of_certificate(snapshot, peer.0.as_deref().ok_or(CallerFault::Nothing)?, now),
    }
}

/// Whoever was not recognised.
pub fn nobody() -> Caller {
    Caller { tenant: TenantId::default_tenant(), who: Who::Nobody }
}

/// TLS has verified the chain, when the connection began; it may have ended since.
fn of_certificate(snapshot: &Snapshot, der: &[u8], now: Timestamp) -> Result<Caller, CallerFault> {
    let (_, end_s) = validity_s(der).ok_or(CallerFault::Certificate)?;
    if now.seconds() >= end_s {
        return Err(CallerFault::CertificateEnded);
    }
    let uris = uris(der);
    let name = uris.iter().find_map(|uri| uri.strip_prefix(USER_SCHEME)?.split_once('/'));
    let named = name.and_then(|(tenant, user)| Some((TenantId::parse(tenant)?, user.parse().ok()?)));
    let (tenant, user) = named.ok_or(CallerFault::Certificate)?;
    person(snapshot, tenant, user)
}

fn of_token(snapshot: &Snapshot, token: &str, now: Timestamp) -> Result<Caller, CallerFault> {
    let refused = |fault| CallerFault::Token { kind: TokenKind::Session, fault };
    let key = named_key(token).map_err(refused)?;
    let signer = snapshot.tenants.iter().find(|(_, tenant)| tenant.keys.contains_key(&key));
    let (tenant_id, tenant) = signer.ok_or(refused(TokenFault::UnknownKey))?;
    let keys = tenant.keys_for(KeyPurpose::Session);
    let keys = PublicKeys::es256(keys.iter().map(|(_, it)| (it.id.as_str(), it.public_key.as_slice())));
    let is_issuer = |iss: &str| tenant.is_issuer(iss);
    let expected = session::Session { audience: ADMIN_AUDIENCE, tenant: &tenant_id.to_string(), is_issuer: &is_issuer };
    let claims = session::verify::<SessionClaims>(token, &keys, &expected).map_err(refused)?.claims;
    claims.check(tenant, now).map_err(CallerFault::Session)?;
    person(snapshot, tenant_id.clone(), claims.sub)
}

fn person(snapshot: &Snapshot, tenant_id: TenantId, user: UserId) -> Result<Caller, CallerFault> {
    let tenant = snapshot.tenant(&tenant_id).ok_or(CallerFault::NoUser)?;
    tenant.active_user(user).ok_or(CallerFault::NoUser)?;
    let role = tenant.role(user);
    let caller = Caller { tenant: tenant_id, who: Who::Person { user, role } };
    let owns_one = || tenant.apps.values().any(|app| !app.owners.is_empty() && permits::owns(&caller, tenant, app));
    match role.is_some() || owns_one() {
        true => Ok(caller),
        false => Err(CallerFault::NoRole),
    }
}

fn of_identity(token: &str, identity: &IdentityKey, now: Timestamp) -> Result<Caller, CallerFault> {
    let refused = |fault| CallerFault::Token { kind: TokenKind::Internal, fault };
    let call = internal::verify(token, &identity.keys, now.seconds()).map_err(refused)?;
    let tenant = TenantId::parse(&call.tenant).ok_or(refused(TokenFault::WrongTenant))?;
    Ok(Caller { tenant, who: Who::Identity })
}

#[cfg(test)]
mod tests {
    use model::{Event, RoleAssignment, User, directory::Username};

    use super::*;
    use crate::authority::Authority;

    #[test]
    fn a_connection_does_not_outlive_the_certificate_it_began_with() {
        const DAY_S: i64 = 24 * 3600;
        runtime::install_crypto();
        let (tenant, id) = (TenantId::default_tenant(), UserId(runtime::clock::fresh_id()));
        let mut snapshot = Snapshot::default();
        let username = Username::parse("admin").unwrap();
        let user = User {
            id,
            username,
            display_name: "".into(),
            email: "".into(),
            disabled: false,
            labels: Default::default(),
        };
        snapshot.apply(&tenant, Event::put(user), 1);
        snapshot.apply(&tenant, Event::put(RoleAssignment { user: id, role: Role::Owner }), 1);
        let begun = Timestamp(1_800_000_000_000);
        let (certificate, key) = Authority::generate("example.com", begun).unwrap();
        let issued = Authority::load(certificate, &key).unwrap().owner(&tenant, id, begun).unwrap();
        let peer = PeerCertificate(issued.chain.first().cloned());
        let who = |days: i64| {
            let now = begun.plus_seconds(days * DAY_S);
            recognise(&snapshot, &peer, &HeaderMap::new(), &IdentityKey::default(), now).map(|it| it.who)
        };
        assert!(matches!(who(29), Ok(Who::Person { .. })));
        assert_eq!(who(31), Err(CallerFault::CertificateEnded));
    }
}
