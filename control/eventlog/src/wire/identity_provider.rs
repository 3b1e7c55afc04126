//! Identity providers and their secrets on the wire.

use model::{IdentityProvider, kinds::ProviderSecret, text::Name};
use proto::v1;

use super::{Happened, Link, Parsed, Words, parse};

impl Words for IdentityProvider {
    type Message = v1::IdentityProvider;
    const PAST: &'static [(&'static str, Happened)] = &[];

    fn to_wire(&self) -> v1::IdentityProvider {
        v1::IdentityProvider {
            id: self.id.to_string(),
            name: self.name.to_string(),
            issuer: self.issuer.to_string(),
            client_id: self.client_id.to_string(),
            ca_pem: self.ca_pem.to_string(),
            scopes: self.scopes.clone(),
            domains: self.domains.clone(),
            create_users: self.create_users,
            username_claim: self.username_claim.to_string(),
            groups_claim: self.groups_claim.to_string(),
            groups: self
                .groups
                .iter()
                .map(|(name, group)| v1::MappedGroup { value: name.clone(), group: group.to_string() })
                .collect(),
            mfa_values: self.mfa_values.clone(),
            mfa_acr: self.mfa_acr.to_string(),
            direct: self.direct,
            disabled: self.disabled,
            labels: self.labels.clone(),
        }
    }

    fn from_wire(wire: v1::IdentityProvider) -> Parsed<Self> {
        let group = |it: v1::MappedGroup| Ok((it.value, parse("groups.group", &it.group)?));
        Ok(Self {
            id: parse("id", &wire.id)?,
            name: Name::recorded(&wire.name),
            issuer: wire.issuer.into(),
            client_id: wire.client_id.into(),
            ca_pem: wire.ca_pem.into(),
            scopes: wire.scopes,
            domains: wire.domains,
            create_users: wire.create_users,
            username_claim: wire.username_claim.into(),
            groups_claim: wire.groups_claim.into(),
            groups: wire.groups.into_iter().map(group).collect::<Parsed<_>>()?,
            mfa_values: wire.mfa_values,
            mfa_acr: wire.mfa_acr.into(),
            direct: wire.direct,
            disabled: wire.disabled,
            labels: wire.labels,
        })
    }

    fn key_to_wire(key: &Self::Key) -> v1::IdentityProvider {
        v1::IdentityProvider { id: key.to_string(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::IdentityProvider) -> Parsed<Self::Key> {
        parse("id", &wire.id)
    }

    fn id(wire: &mut v1::IdentityProvider) -> Option<&mut String> {
        Some(&mut wire.id)
    }

    fn links(wire: &mut v1::IdentityProvider) -> Vec<Link<'_>> {
        wire.groups.iter_mut().map(|it| Link::group("groups.group", &mut it.group)).collect()
    }
}

impl Words for ProviderSecret {
    type Message = v1::ProviderSecret;
    const PAST: &'static [(&'static str, Happened)] = &[];

    fn to_wire(&self) -> v1::ProviderSecret {
        v1::ProviderSecret { provider: self.provider.to_string(), sealed: self.sealed.clone() }
    }

    fn from_wire(wire: v1::ProviderSecret) -> Parsed<Self> {
        Ok(Self { provider: parse("provider", &wire.provider)?, sealed: wire.sealed })
    }

    fn key_to_wire(key: &Self::Key) -> v1::ProviderSecret {
        v1::ProviderSecret { provider: key.to_string(), sealed: vec![] }
    }

    fn key_from_wire(wire: &v1::ProviderSecret) -> Parsed<Self::Key> {
        parse("provider", &wire.provider)
    }
}
