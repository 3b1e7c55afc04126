//! What an installation needs before anybody can use it: a tenant, keys,
//! certificates, the groups and applications of its own parts. (An owner:
//! `first_owner`.)
//!
//! It runs at every start and in every controller: what is missing is decided in
//! memory and recorded by one append that expects the log as it was looked at.
//! Of several controllers that start on nothing one is first; the others look
//! again and find everything.

use model::{
    App, AppId, Assignment, CertificateId, Command, ConnectorGroup, ConnectorGroupId, ExternalUrl, Origin, Principal,
    Snapshot, Tenant, TenantId, Timestamp,
    app::{Name, PreAuthentication},
    hosts::Hosts,
    keys::{Certificate, Key, KeyHolder, KeyPurpose, Source},
    kinds::TenantSettings,
};
use runtime::{clock::fresh_id, sealing::SealingKey};

use crate::{
    ControllerError, Surroundings,
    authority::{Authority, Issued},
    signing_keys,
    writer::{ChangeContext, WriteError, Writer},
};

pub const SYSTEM_GROUP: &str = "Postern";
pub const DEFAULT_GROUP: &str = "default";
/// Others that were first so often in a row are no start but a fault.
pub(crate) const ATTEMPTS_MAX: usize = 16;

/// Makes sure of everything but the owner; returns the authority.
pub async fn ensure(
    writer: &Writer,
    surroundings: &Surroundings,
    tenant_id: &TenantId,
    place: (&str, u16, &[String]),
    identity_origin: &str,
) -> Result<Authority, ControllerError> {
    let context = ChangeContext::of_system(tenant_id, "bootstrap");
    for _ in 0..ATTEMPTS_MAX {
        let snapshot = writer.snapshot();
        let commands = missing(&snapshot, surroundings, tenant_id, place, identity_origin, writer.now())?;
        match writer.execute_at(&context, &snapshot, commands).await {
            Ok(()) => return open_authority(writer, surroundings, tenant_id),
            // What somebody else recorded is in the snapshot now.
            Err(WriteError::Moved { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(WriteError::Contended.into())
}

/// What is not as it should be, in the order in which it builds on itself.
fn missing(
    snapshot: &Snapshot,
    surroundings: &Surroundings,
    tenant_id: &TenantId,
    (domain, public_port, relays): (&str, u16, &[String]),
    identity_origin: &str,
    now: Timestamp,
) -> Result<Vec<Command>, ControllerError> {
    let tenant = snapshot.tenant(tenant_id).cloned().unwrap_or_default();
    // A domain stays: everything published ends in it.
    let domain = if tenant.domain.is_empty() { domain } else { &tenant.domain };
    let mut commands =
        vec![Command::Put(TenantSettings { domain: domain.to_owned(), public_port, relays: relays.to_vec() }.into())];
    let (peers, sealing) = (&surroundings.peers, &surroundings.sealing);
    let mut authority = tenant.key_in_use(KeyPurpose::Authority, now).cloned();
    for purpose in KeyPurpose::ALL {
        if tenant.keys_for(purpose).is_empty() {
            let key = signing_keys::make(purpose, peers, &sealing.public(), domain, now, now)?;
            if purpose == KeyPurpose::Authority {
                authority = Some(key.clone());
            }
            commands.push(Command::Put(key.into()));
        }
    }
    let authority = authority.ok_or(ControllerError::NoAuthority)?;
    commands.extend(due_certificate(&tenant, domain, surroundings, &open(&authority, sealing)?, now)?);
    commands.extend(own_apps(&tenant, domain, identity_origin)?);
    Ok(commands)
}

pub(crate) fn tenant_of(writer: &Writer, id: &TenantId) -> std::sync::Arc<Tenant> {
    writer.snapshot().tenant(id).cloned().unwrap_or_default()
}

/// The authority of a tenant, opened.
pub fn open_authority(
    writer: &Writer,
    surroundings: &Surroundings,
    tenant: &TenantId,
) -> Result<Authority, ControllerError> {
    let tenant = tenant_of(writer, tenant);
    let key = tenant.key_in_use(KeyPurpose::Authority, writer.now()).ok_or(ControllerError::NoAuthority)?;
    open(key, &surroundings.sealing)
}

fn open(authority: &Key, sealing: &SealingKey) -> Result<Authority, ControllerError> {
    let sealed = authority.sealed_for(KeyHolder::Controller).ok_or(ControllerError::NoAuthority)?;
    let secret = sealing.open("authority-key", sealed).map_err(|_| ControllerError::NoAuthority)?;
    Authority::load(authority.public_key.clone(), &secret)
}

/// One certificate for all hosts of the domain, replaced in time.
pub async fn ensure_certificate(
    writer: &Writer,
    surroundings: &Surroundings,
    tenant_id: &TenantId,
    authority: &Authority,
) -> Result<(), ControllerError> {
    let snapshot = writer.snapshot();
    let tenant = snapshot.tenant(tenant_id).cloned().unwrap_or_default();
    let command = due_certificate(&tenant, &tenant.domain, surroundings, authority, writer.now())?;
    let context = ChangeContext::of_system(tenant_id, "certificate renewal");
    match writer.execute_at(&context, &snapshot, command.into_iter().collect()).await {
        // Another controller may have renewed it; whoever asks next sees.
        Ok(()) | Err(WriteError::Moved { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The own certificate of the domain.
pub fn own_certificate(tenant: &Tenant) -> Option<&Certificate> {
    let wildcard = format!("*.{}", tenant.domain);
    let mut own = tenant.certificates.values().filter(|it| it.source == Source::Own && it.hosts.contains(&wildcard));
    own.next()
}

fn due_certificate(
    tenant: &Tenant,
    domain: &str,
    surroundings: &Surroundings,
    authority: &Authority,
    now: Timestamp,
) -> Result<Option<Command>, ControllerError> {
    let current = own_certificate(tenant);
    let good = |it: &Certificate| it.chain.first().is_some_and(|der| now < renewal(der));
    if current.is_some_and(good) {
        return Ok(None);
    }
    let hosts = vec![domain.to_owned(), format!("*.{domain}")];
    let Issued { chain, key, expires } = authority.server(&hosts, now)?;
    Ok(Some(Command::Put(
        Certificate {
            id: current.map_or_else(|| CertificateId(fresh_id()), |it| it.id),
            hosts,
            chain,
            sealed_private_key: surroundings.peers.seal_to_relays.seal("certificate-key", &key)?,
            expires,
            source: Source::Own,
        }
        .into(),
    )))
}

/// When a certificate is to be renewed: two thirds into its life. One that
/// cannot be read: now.
pub fn renewal(der: &[u8]) -> Timestamp {
    let (begin_s, end_s) = runtime::tls::validity_s(der).unwrap_or_default();
    Timestamp::from_seconds(begin_s + (end_s - begin_s) * 2 / 3)
}

/// The login page and the portal are applications of a group of their own.
fn own_apps(tenant: &Tenant, domain: &str, identity_origin: &str) -> Result<Vec<Command>, ControllerError> {
    let mut commands = Vec::new();
    let system = group(tenant, SYSTEM_GROUP, &mut commands);
    group(tenant, DEFAULT_GROUP, &mut commands);
    let origin = Origin::parse(identity_origin).map_err(|_| ControllerError::NoAuthority)?;
    let hosts = Hosts::of(domain);
    let pages = [
        ("Sign-in", hosts.login(), PreAuthentication::Passthrough, false),
        ("My applications", hosts.portal(), PreAuthentication::SignIn, true),
    ];
    for (name, host, pre_authentication, assertion) in pages {
        let url = format!("https://{host}/");
        let external = ExternalUrl::parse(&url).map_err(|_| ControllerError::NoAuthority)?;
        let known = tenant.apps.values().find(|it| it.external == external);
        let id = known.map_or_else(|| AppId(fresh_id()), |it| it.id);
        let name = Name::parse(name).map_err(|_| ControllerError::NoAuthority)?;
        let plain = App::new(id, name, external, origin.clone(), system);
        let app = App { pre_authentication, assertion, hidden: true, ..plain };
        match known {
            Some(before) if before.origin == app.origin => {}
            Some(_) => commands.push(Command::Change(app.into())),
            None => {
                commands.push(Command::Create(app.into()));
                commands.push(Command::Put(Assignment { app: id, principal: Principal::Everyone }.into()));
            }
        };
    }
    Ok(commands)
}

fn group(tenant: &Tenant, name: &str, commands: &mut Vec<Command>) -> ConnectorGroupId {
    if let Some(id) = tenant.connector_groups.named(name) {
        return id;
    }
    let id = ConnectorGroupId(fresh_id());
    let group = ConnectorGroup { id, name: Name::parse(name).expect("a valid name"), labels: Default::default() };
    commands.push(Command::Create(group.into()));
    id
}

#[cfg(test)]
mod tests;
