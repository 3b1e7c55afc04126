//! Somebody else's OpenID provider that people sign in with, and what of its
//! word counts here.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    event::Stream,
    ids::{GroupId, ProviderId},
    kinds::{
        ObjectKey, Tenant,
        kind::{Broken, InField, Kind, Rank, Reference},
    },
    text::{Labels, Name},
};

const LISTED_MAX: usize = 64;
const MAPPED_GROUPS_MAX: usize = 1000;
const TEXT_BYTES_MAX: usize = 255;
const CA_PEM_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityProvider {
    pub id: ProviderId,
    /// On the button of the sign-in page.
    pub name: Name,
    /// As its discovery document writes it, to the letter.
    pub issuer: Arc<str>,
    pub client_id: Arc<str>,
    /// Its certificate authority, where that is not one of the system's.
    pub ca_pem: Arc<str>,
    /// Beside `openid`.
    pub scopes: Vec<String>,
    /// Domains of e-mail addresses that it decides about: people who type such
    /// an address are sent there, and its word for one is believed.
    pub domains: Vec<String>,
    /// People nobody made here are made at their first sign-in.
    pub create_users: bool,
    /// The claim that becomes the username of people who are made.
    pub username_claim: Arc<str>,
    /// The claim that lists groups.
    pub groups_claim: Arc<str>,
    /// Groups here, by what the provider calls them. Who is in them is the
    /// provider's word with each sign-in.
    pub groups: BTreeMap<String, GroupId>,
    /// Values of `amr` and `acr` that show a second factor.
    pub mfa_values: Vec<String>,
    /// `acr_values` that ask the provider for a second factor.
    pub mfa_acr: Arc<str>,
    /// People are sent there without a page of ours, unless they ask for one.
    pub direct: bool,
    pub disabled: bool,
    pub labels: Labels,
}

impl Kind for IdentityProvider {
    const NAME: &'static str = "identity-provider";
    const TITLE: &'static str = "identity provider";
    const STREAM: Stream = Stream::Directory;
    type Key = ProviderId;

    fn key(&self) -> ProviderId {
        self.id
    }

    fn name(&self) -> Option<&str> {
        Some(self.name.as_str())
    }

    fn labels(&self) -> Option<&Labels> {
        Some(&self.labels)
    }

    fn refers_to(&self) -> Vec<Reference> {
        self.groups.values().map(|it| Reference::needs(ObjectKey::Group(*it))).collect()
    }

    fn check(&self) -> Result<(), Broken> {
        Name::parse(self.name.as_str()).in_field("name")?;
        let fits = |text: &str| text.len() <= TEXT_BYTES_MAX && !text.chars().any(|it| it.is_control() || it == ' ');
        if !fits(&self.issuer) || !is_issuer(&self.issuer) {
            return Err(Broken::new("issuer", "is no https:// address such as https://login.example.com/realm"));
        }
        if self.client_id.is_empty() || !fits(&self.client_id) {
            return Err(Broken::new("client_id", "is what the provider calls Postern: 1 to 255 characters, no spaces"));
        }
        if self.ca_pem.len() > CA_PEM_BYTES_MAX
            || !(self.ca_pem.is_empty() || self.ca_pem.contains("-----BEGIN CERTIFICATE-----"))
        {
            return Err(Broken::new("ca_pem", "is a certificate in PEM, 64 KiB at most"));
        }
        for (field, list) in [("scopes", &self.scopes), ("mfa_values", &self.mfa_values)] {
            if list.len() > LISTED_MAX || list.iter().any(|it| it.is_empty() || !fits(it)) {
                return Err(Broken::new(field, "has at most 64 values without spaces"));
            }
        }
        if self.domains.len() > LISTED_MAX || !self.domains.iter().all(|it| is_domain(it)) {
            return Err(Broken::new("domains", "has at most 64 names such as example.com, in lower case"));
        }
        for (field, claim) in
            [("username_claim", &self.username_claim), ("groups_claim", &self.groups_claim), ("mfa_acr", &self.mfa_acr)]
        {
            if !fits(claim) {
                return Err(Broken::new(field, "has at most 255 characters and no spaces"));
            }
        }
        match self.groups.len() > MAPPED_GROUPS_MAX || self.groups.keys().any(|it| it.len() > TEXT_BYTES_MAX) {
            true => Err(Broken::new("groups", "has at most 1000 groups, each called by at most 255 bytes")),
            false => Ok(()),
        }
    }

    fn rank(_before: Option<&Self>, after: Option<&Self>) -> Rank {
        match after {
            Some(_) => Rank::Names,
            None => Rank::Forgets,
        }
    }
}

/// Plain HTTP only within this machine.
fn is_issuer(text: &str) -> bool {
    let host = |rest: &str| rest.split(['/', ':']).next().is_some_and(|it| !it.is_empty());
    let plain = text.strip_prefix("http://");
    let rest = text.strip_prefix("https://").or(plain.filter(|it| it.starts_with("127.0.0.1")));
    rest.is_some_and(|it| host(it) && !it.contains(['?', '#', '@']))
}

fn is_domain(text: &str) -> bool {
    text.contains('.') && text.split('.').all(crate::ids::is_label) && text.len() <= 253
}

/// The secret a provider gave Postern, sealed to identity.
#[derive(Clone, PartialEq, Eq)]
pub struct ProviderSecret {
    pub provider: ProviderId,
    pub sealed: Vec<u8>,
}

impl std::fmt::Debug for ProviderSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProviderSecret({}, ..)", self.provider)
    }
}

impl Kind for ProviderSecret {
    const NAME: &'static str = "provider-secret";
    const TITLE: &'static str = "secret of an identity provider";
    const STREAM: Stream = Stream::Directory;
    type Key = ProviderId;

    fn key(&self) -> ProviderId {
        self.provider
    }

    fn refers_to(&self) -> Vec<Reference> {
        vec![Reference::part_of(ObjectKey::IdentityProvider(self.provider))]
    }

    fn rank(_before: Option<&Self>, _after: Option<&Self>) -> Rank {
        Rank::People
    }
}

impl Tenant {
    /// Providers people may sign in with, by name.
    pub fn providers(&self) -> Vec<&IdentityProvider> {
        let mut found: Vec<_> = self.identity_providers.values().filter(|it| !it.disabled).collect();
        found.sort_by_key(|it| it.name.as_str().to_lowercase());
        found
    }

    pub fn provider(&self, id: ProviderId) -> Option<&IdentityProvider> {
        self.identity_providers.get(&id).filter(|it| !it.disabled)
    }

    /// The provider that decides about an e-mail address.
    pub fn provider_of(&self, address: &str) -> Option<&IdentityProvider> {
        let (_, domain) = address.rsplit_once('@')?;
        self.providers().into_iter().find(|it| it.domains.iter().any(|mine| mine.eq_ignore_ascii_case(domain)))
    }
}
