//! What an installation needs before anybody can use it: a tenant, keys,
//! certificates, the groups and applications of its own parts, an owner.
//!
//! Each step looks first and does only what is missing, so it runs at every
//! start and in every controller.

use model::{
    App, AppId, CertificateId, Command, ConnectorGroup, ConnectorGroupId, ExternalUrl, Origin, Principal, Role, Tenant,
    TenantId, User, UserId,
    app::{Name, PreAuthentication},
    directory::Username,
    keys::{Certificate, KeyHolder, KeyPurpose, Source},
};
use runtime::clock::fresh_id;

use crate::{
    ControllerError, Surroundings,
    authority::{Authority, Issued},
    passwords, signing_keys,
    writer::{Wish, Writer},
};

pub const SYSTEM_GROUP: &str = "Postern";
pub const DEFAULT_GROUP: &str = "default";
/// Server certificates are replaced this long before they end.
const RENEW_BEFORE_S: i64 = 30 * 24 * 3600;

/// What the first start has to tell its operator, once.
pub struct FirstOwner {
    pub username: String,
    pub password: String,
}

/// Makes sure of everything but the owner; returns the authority.
pub async fn ensure(
    writer: &Writer,
    surroundings: &Surroundings,
    tenant_id: &TenantId,
    (domain, public_port, relays): (&str, u16, &[String]),
    identity_origin: &str,
) -> Result<Authority, ControllerError> {
    let wish = Wish::of_system(tenant_id, "bootstrap");
    let tenant = tenant_of(writer, tenant_id);
    // A domain stays: everything published ends in it.
    let domain = if tenant.domain.is_empty() { domain } else { &tenant.domain };
    writer
        .execute(&wish, vec![Command::SetTenant { domain: domain.to_owned(), public_port, relays: relays.to_vec() }])
        .await?;
    let mut commands = Vec::new();
    let (peers, now) = (&surroundings.peers, writer.now());
    for purpose in KeyPurpose::ALL {
        if tenant.keys_for(purpose).is_empty() {
            let key = signing_keys::make(purpose, peers, &surroundings.sealing.public(), domain, now, now)?;
            commands.push(Command::PublishKey(key));
        }
    }
    writer.execute(&wish, commands).await?;
    let authority = open_authority(writer, surroundings, tenant_id)?;
    ensure_certificate(writer, surroundings, tenant_id, &authority).await?;
    ensure_own_apps(writer, tenant_id, identity_origin).await?;
    Ok(authority)
}

fn tenant_of(writer: &Writer, id: &TenantId) -> std::sync::Arc<Tenant> {
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
    let sealed = key.sealed_for(KeyHolder::Controller).ok_or(ControllerError::NoAuthority)?;
    let secret = surroundings.sealing.open("authority-key", sealed).map_err(|_| ControllerError::NoAuthority)?;
    Authority::load(key.public_key.clone(), &secret)
}

/// One certificate for all hosts of the domain, replaced in time.
pub async fn ensure_certificate(
    writer: &Writer,
    surroundings: &Surroundings,
    tenant_id: &TenantId,
    authority: &Authority,
) -> Result<(), ControllerError> {
    let tenant = tenant_of(writer, tenant_id);
    let wildcard = format!("*.{}", tenant.domain);
    let now = writer.now();
    let current = tenant.certificates.values().find(|it| it.source == Source::Own && it.hosts.contains(&wildcard));
    if current.is_some_and(|it| it.expires > now.plus_seconds(RENEW_BEFORE_S)) {
        return Ok(());
    }
    let hosts = vec![tenant.domain.clone(), wildcard];
    let Issued { chain, key, expires } = authority.server(&hosts, now)?;
    let certificate = Certificate {
        id: current.map_or_else(|| CertificateId(fresh_id()), |it| it.id),
        hosts,
        chain,
        sealed_private_key: surroundings.peers.seal_to_relays.seal("certificate-key", &key)?,
        expires,
        source: Source::Own,
    };
    let wish = Wish::of_system(tenant_id, "certificate renewal");
    writer.execute(&wish, vec![Command::InstallCertificate(certificate)]).await?;
    Ok(())
}

/// The login page and the portal are applications of a group of their own.
async fn ensure_own_apps(writer: &Writer, tenant_id: &TenantId, identity_origin: &str) -> Result<(), ControllerError> {
    let tenant = tenant_of(writer, tenant_id);
    let wish = Wish::of_system(tenant_id, "bootstrap");
    let system = ensure_group(writer, &tenant, &wish, SYSTEM_GROUP).await?;
    ensure_group(writer, &tenant, &wish, DEFAULT_GROUP).await?;
    let origin = Origin::parse(identity_origin).map_err(|_| ControllerError::NoAuthority)?;
    let pages = [
        ("Sign-in", "login", PreAuthentication::Passthrough, false),
        ("My applications", "apps", PreAuthentication::SignIn, true),
    ];
    for (name, host, pre_authentication, assertion) in pages {
        let url = format!("https://{host}.{}/", tenant.domain);
        let external = ExternalUrl::parse(&url).map_err(|_| ControllerError::NoAuthority)?;
        let known = tenant.apps.values().find(|it| it.app.external == external);
        let id = known.map_or_else(|| AppId(fresh_id()), |it| it.app.id);
        let name = Name::parse(name).map_err(|_| ControllerError::NoAuthority)?;
        let plain = App::new(id, name, external, origin.clone(), system);
        let app = App { pre_authentication, assertion, hidden: true, ..plain };
        match known {
            Some(before) if before.app.origin == app.origin => continue,
            Some(_) => writer.execute(&wish, vec![Command::ChangeApp(Box::new(app))]).await?,
            None => {
                let assign = Command::Assign { app: id, principal: Principal::Everyone };
                writer.execute(&wish, vec![Command::PublishApp(Box::new(app)), assign]).await?
            }
        };
    }
    Ok(())
}

async fn ensure_group(
    writer: &Writer,
    tenant: &Tenant,
    wish: &Wish,
    name: &str,
) -> Result<ConnectorGroupId, ControllerError> {
    if let Some(group) = tenant.groups.values().find(|it| it.name.as_str() == name) {
        return Ok(group.id);
    }
    let id = ConnectorGroupId(fresh_id());
    let group = ConnectorGroup { id, name: Name::parse(name).expect("a valid name") };
    writer.execute(wish, vec![Command::CreateConnectorGroup(group)]).await?;
    Ok(id)
}

/// An owner with a password nobody chose, unless there is an owner.
pub async fn ensure_owner(
    writer: &Writer,
    surroundings: &Surroundings,
    tenant_id: &TenantId,
) -> Result<Option<FirstOwner>, ControllerError> {
    let tenant = tenant_of(writer, tenant_id);
    if tenant.roles.values().any(|role| *role == Role::Owner) {
        return Ok(None);
    }
    const USERNAME: &str = "admin";
    let password = passwords::generate();
    let hash = passwords::hash(&password)?;
    let sealed = surroundings.peers.seal_to_identity.seal(passwords::PURPOSE, hash.as_bytes())?;
    let id = tenant.user_by_name(USERNAME).map_or_else(|| UserId(fresh_id()), |it| it.id);
    let user = User {
        id,
        username: Username::parse(USERNAME).expect("a valid name"),
        display_name: "Administrator".into(),
        email: "".into(),
        disabled: false,
    };
    let credentials = model::Credentials { user: id, password: sealed, totp: vec![] };
    let commands = vec![
        Command::CreateUser(user),
        Command::SetCredentials(credentials),
        Command::SetRole { user: id, role: Some(Role::Owner) },
    ];
    writer.execute(&Wish::of_system(tenant_id, "bootstrap"), commands).await?;
    Ok(Some(FirstOwner { username: USERNAME.to_owned(), password }))
}

/// The first active owner, for the credential file of the same machine.
pub fn first_owner(writer: &Writer, tenant_id: &TenantId) -> Option<UserId> {
    let tenant = tenant_of(writer, tenant_id);
    tenant
        .roles
        .iter()
        .find(|(id, role)| **role == Role::Owner && tenant.active_user(**id).is_some())
        .map(|(id, _)| *id)
}
