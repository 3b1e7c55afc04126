//! Who calls, and may they? One table (`roles.txt`) says so for every method.
//!
//! A caller shows a client certificate of this installation or a bearer token
//! of our own sign-in. The role is looked up when it is used, so a withdrawn
//! one ends at once.

use std::{collections::BTreeMap, sync::Arc};

use http::HeaderMap;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use model::{Role, Snapshot, TenantId, Timestamp, UserId, keys::KeyPurpose, session::SessionClaims};
use runtime::tls::{uris, validity_s};
use serde::Deserialize;
use tonic::Status;

use crate::{ControllerError, authority::USER_SCHEME};

/// The audience of tokens for the admin API.
pub const ADMIN_AUDIENCE: &str = "postern-admin";
/// The audience of calls between roles.
pub const INTERNAL_AUDIENCE: &str = "postern-internal";

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
        role: Role,
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
    Role(Role),
}

/// Every method and what it needs.
#[derive(Clone)]
pub struct RoleTable {
    methods: Arc<BTreeMap<String, Needs>>,
}

impl RoleTable {
    pub fn load() -> Result<Self, ControllerError> {
        Self::parse(include_str!("roles.txt"))
    }

    pub fn parse(text: &str) -> Result<Self, ControllerError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let methods = lines.map(|line| {
            let wrong = || ControllerError::RoleTable(line.to_owned());
            let (method, needs) = line.split_once(char::is_whitespace).ok_or_else(wrong)?;
            let needs = match needs.trim() {
                "anybody" => Needs::Anybody,
                "role:identity" => Needs::Identity,
                "auditor" => Needs::Role(Role::Auditor),
                "admin" => Needs::Role(Role::Admin),
                "owner" => Needs::Role(Role::Owner),
                _ => return Err(wrong()),
            };
            Ok((format!("/{method}"), needs))
        });
        Ok(Self { methods: Arc::new(methods.collect::<Result<_, ControllerError>>()?) })
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
            (Needs::Role(least), Who::Person { role, .. }) if role >= least => Ok(()),
            (Needs::Role(_) | Needs::Identity, Who::Nobody) => Err(Status::unauthenticated(
                "sign in first: postern login, or use the owner's credential file of the data folder",
            )),
            (Needs::Role(least), _) => {
                Err(Status::permission_denied(format!("this needs the role {least:?} or higher; ask an owner")))
            }
            (Needs::Identity, _) => Err(Status::permission_denied("this is for the installation's own processes")),
        }
    }
}

/// What a connection proved.
#[derive(Clone, Debug, Default)]
pub struct PeerCertificate(pub Option<Vec<u8>>);

pub fn recognise(
    snapshot: &Snapshot,
    peer: &PeerCertificate,
    headers: &HeaderMap,
    identity_key: &[u8],
    now: Timestamp,
) -> Caller {
    let bearer = headers
        .get(http::header::AUTHORIZATION)
        .and_then(|it| it.to_str().ok())
        .and_then(|it| it.strip_prefix("Bearer "));
    let recognised = match bearer {
        // A token that does not hold is nobody, even beside a certificate.
        Some(token) => of_identity(token, identity_key).or_else(|| of_token(snapshot, token, now)),
        None => peer.0.as_deref().and_then(|der| of_certificate(snapshot, der, now)),
    };
    recognised.unwrap_or(Caller { tenant: TenantId::default_tenant(), who: Who::Nobody })
}

/// TLS has verified the chain, when the connection began; it may have ended since.
fn of_certificate(snapshot: &Snapshot, der: &[u8], now: Timestamp) -> Option<Caller> {
    (now.seconds() < validity_s(der)?.1).then_some(())?;
    let uris = uris(der);
    let (tenant, user) = uris.iter().find_map(|uri| uri.strip_prefix(USER_SCHEME))?.split_once('/')?;
    person(snapshot, TenantId::parse(tenant)?, user.parse().ok()?)
}

fn of_token(snapshot: &Snapshot, token: &str, now: Timestamp) -> Option<Caller> {
    let kid = jsonwebtoken::decode_header(token).ok()?.kid?;
    let (tenant_id, tenant) = snapshot.tenants.iter().find(|(_, tenant)| tenant.keys.contains_key(&kid))?;
    let key = tenant.keys.get(&kid).filter(|it| it.purpose == KeyPurpose::Session)?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[ADMIN_AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let claims = jsonwebtoken::decode::<SessionClaims>(token, &DecodingKey::from_ec_der(&key.public_key), &validation)
        .ok()?
        .claims;
    claims.check(tenant, now).ok()?;
    tenant.is_issuer(&claims.iss).then_some(())?;
    (claims.tenant == *tenant_id).then_some(())?;
    person(snapshot, tenant_id.clone(), claims.sub)
}

fn person(snapshot: &Snapshot, tenant_id: TenantId, user: UserId) -> Option<Caller> {
    let tenant = snapshot.tenant(&tenant_id)?;
    tenant.active_user(user)?;
    let role = *tenant.roles.get(&user)?;
    Some(Caller { tenant: tenant_id, who: Who::Person { user, role } })
}

#[derive(Deserialize)]
struct InternalClaims {
    tenant: TenantId,
}

fn of_identity(token: &str, key: &[u8]) -> Option<Caller> {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[INTERNAL_AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "aud"]);
    let claims =
        jsonwebtoken::decode::<InternalClaims>(token, &DecodingKey::from_ed_der(key), &validation).ok()?.claims;
    Some(Caller { tenant: claims.tenant, who: Who::Identity })
}

#[cfg(test)]
mod tests {
    use model::{Event, User, directory::Username};

    use super::*;
    use crate::authority::Authority;

    #[test]
    fn a_connection_does_not_outlive_the_certificate_it_began_with() {
        const DAY_S: i64 = 24 * 3600;
        runtime::install_crypto();
        let (tenant, id) = (TenantId::default_tenant(), UserId(runtime::clock::fresh_id()));
        let mut snapshot = Snapshot::default();
        let username = Username::parse("admin").unwrap();
        let user = User { id, username, display_name: "".into(), email: "".into(), disabled: false };
        snapshot.apply(&tenant, Event::UserCreated(user), 1);
        snapshot.apply(&tenant, Event::RoleGranted { user: id, role: Role::Owner }, 1);
        let begun = Timestamp(1_800_000_000_000);
        let (certificate, key) = Authority::generate("example.com", begun).unwrap();
        let issued = Authority::load(certificate, &key).unwrap().owner(&tenant, id, begun).unwrap();
        let peer = PeerCertificate(issued.chain.first().cloned());
        let who = |days: i64| {
            let now = begun.plus_seconds(days * DAY_S);
            recognise(&snapshot, &peer, &HeaderMap::new(), &[], now).who
        };
        assert!(matches!(who(29), Who::Person { .. }));
        assert!(matches!(who(31), Who::Nobody));
    }
}
