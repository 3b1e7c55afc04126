//! Somebody comes from an identity provider: who that is here, and what changes
//! with it. Identity asks first; what changes, the controller decides again.

use std::collections::BTreeSet;

use crate::{
    command::Command,
    directory::{Principal, Username},
    ids::{GroupId, UserId},
    kinds::{
        IdentityKey, IdentityProvider, LinkedIdentity, Membership, MembershipKey, ObjectKey, Tenant, User, kind::Kind,
    },
};

/// What a provider says of somebody, checked to be its word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderClaims {
    pub subject: String,
    /// The claim that is to become a username.
    pub username: String,
    pub name: String,
    pub email: String,
    pub email_verified: bool,
    pub groups: BTreeSet<String>,
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArrivalFault {
    #[error("nobody here is linked to this subject, and the provider may not create users (create_users)")]
    Unknown,
    #[error("the user is disabled here")]
    Disabled,
    #[error("the claim named by username_claim is missing or no username")]
    NoUsername,
    #[error("the username is somebody else's: link the identity by hand (postern set linked-identity)")]
    NameTaken,
    #[error("the subject has no or more than 255 bytes")]
    Subject,
}

/// Who it is, and what is to be recorded first; `new` is the id of somebody new.
pub fn arrive(
    tenant: &Tenant,
    provider: &IdentityProvider,
    claims: &ProviderClaims,
    new: UserId,
) -> Result<(UserId, Vec<Command>), ArrivalFault> {
    let identity = IdentityKey { issuer: provider.issuer.clone(), subject: claims.subject.as_str().into() };
    let link = LinkedIdentity { identity, user: new };
    link.check().map_err(|_| ArrivalFault::Subject)?;
    let linked = tenant.linked_user(&link.identity);
    let mut commands = Vec::new();
    let user = match linked.or_else(|| by_address(tenant, provider, claims)) {
        Some(user) => user,
        None => {
            commands.push(Command::Create(created(tenant, provider, claims, new)?.into()));
            new
        }
    };
    if tenant.users.get(&user).is_some_and(|it| it.disabled) {
        return Err(ArrivalFault::Disabled);
    }
    if linked.is_none() {
        commands.push(Command::Put(LinkedIdentity { user, ..link }.into()));
    }
    commands.extend(memberships(tenant, provider, claims, user));
    Ok((user, commands))
}

/// The one person with this address, if the provider decides about its domain and
/// says that it is theirs. Administrators are linked by hand: whoever makes
/// addresses at the provider would choose among them.
fn by_address(tenant: &Tenant, provider: &IdentityProvider, claims: &ProviderClaims) -> Option<UserId> {
    let (_, domain) = claims.email.rsplit_once('@')?;
    let trusted = claims.email_verified && provider.domains.iter().any(|it| it.eq_ignore_ascii_case(domain));
    let mut same = tenant.users.values().filter(|it| trusted && it.email.eq_ignore_ascii_case(&claims.email));
    let (found, other) = (same.next()?, same.next());
    let linked =
        || tenant.linked_identities.values().any(|it| it.user == found.id && it.identity.issuer == provider.issuer);
    (other.is_none() && tenant.role(found.id).is_none() && !linked()).then_some(found.id)
}

fn created(
    tenant: &Tenant,
    provider: &IdentityProvider,
    claims: &ProviderClaims,
    id: UserId,
) -> Result<User, ArrivalFault> {
    if !provider.create_users {
        return Err(ArrivalFault::Unknown);
    }
    let username = Username::parse(&claims.username).map_err(|_| ArrivalFault::NoUsername)?;
    if tenant.user_by_name(username.as_str()).is_some() {
        return Err(ArrivalFault::NameTaken);
    }
    let is_shown = |it: &char| !it.is_control();
    let fits = claims.email_verified && claims.email.len() <= 256 && claims.email.contains('@');
    let email = if fits && claims.email.chars().all(|it| is_shown(&it)) { claims.email.as_str() } else { "" };
    let display_name = claims.name.chars().filter(is_shown).take(64).collect::<String>().into();
    Ok(User { id, username, display_name, email: email.into(), disabled: false, labels: Default::default() })
}

/// Into the groups the provider names, and out of those it names no more.
fn memberships(tenant: &Tenant, provider: &IdentityProvider, claims: &ProviderClaims, user: UserId) -> Vec<Command> {
    let member = Principal::User(user);
    let wanted: BTreeSet<GroupId> =
        provider.groups.iter().filter(|(name, _)| claims.groups.contains(*name)).map(|(_, group)| *group).collect();
    let mapped: BTreeSet<GroupId> = provider.groups.values().copied().collect();
    let is_in = |group: &GroupId| tenant.memberships.contains_key(&MembershipKey { group: *group, member });
    mapped
        .into_iter()
        .filter_map(|group| match (is_in(&group), wanted.contains(&group)) {
            (false, true) => Some(Command::Put(Membership { group, member }.into())),
            (true, false) => Some(Command::Remove(ObjectKey::Membership(MembershipKey { group, member }))),
            (true, true) | (false, false) => None,
        })
        .collect()
}
