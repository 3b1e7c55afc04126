//! The list of kinds, and what is written once over all of them.
//!
//! A new kind is a file of rules here, one of its words on the wire
//! (`eventlog/src/wire`), and a line in `for_each_kind`.

mod app;
mod assignment;
mod branding;
mod certificate;
mod connector;
mod connector_group;
mod credential;
mod event;
mod group;
mod identity_provider;
mod join_token;
mod key;
pub mod kind;
mod linked_identity;
mod membership;
mod policy;
mod rejection;
mod revocation;
mod role;
mod settings;
pub mod table;
#[cfg(feature = "toy")]
mod toy;
mod user;

use std::{collections::BTreeSet, sync::Arc};

use imbl::OrdMap;

pub use self::kind::Kind;
#[cfg(feature = "toy")]
pub use self::toy::Toy;
pub use self::{
    assignment::{Assignment, AssignmentKey},
    certificate::{AcmeMethod, Certificate, Source},
    connector::Connector,
    connector_group::ConnectorGroup,
    credential::{Credential, CredentialKey, Credentials, Proof},
    event::Event,
    group::Group,
    identity_provider::{IdentityProvider, ProviderSecret},
    join_token::JoinToken,
    key::{Key, KeyHolder, KeyPurpose, in_use},
    linked_identity::{IdentityKey, LinkedIdentity},
    membership::{Membership, MembershipKey},
    rejection::Rejection,
    revocation::AllSessionsEnded,
    role::RoleAssignment,
    settings::{Singleton, TenantSettings},
    user::User,
};
use self::{
    kind::{Broken, Change, Concern, InField, Indexes, Rank, Reference, Touch},
    table::{Stored, Table},
};
pub use crate::{
    app::App,
    branding::Branding,
    policy::Policy,
    risk::{OutdatedTokens, SessionRevocation, UserRevocation},
};
use crate::{
    directory::Principal,
    event::{Stream, Subject},
    ids::*,
    origins::ByOrigin,
    policy::Policies,
    risk::Outdated,
    route::Routes,
    text::{Labels, check_labels},
};

/// Hands the list of kinds to a macro: the type, and the table of a tenant that
/// holds its objects.
#[macro_export]
macro_rules! for_each_kind {
    ($then:path) => {
        $crate::with_toy! { $then;
            TenantSettings settings;
            Branding brandings;
            ConnectorGroup connector_groups;
            JoinToken join_tokens;
            Connector connectors;
            App apps;
            Policy policies;
            Assignment assignments;
            RoleAssignment roles;
            Key keys;
            Certificate certificates;
            User users;
            Credentials credentials_before;
            Credential credentials;
            LinkedIdentity linked_identities;
            IdentityProvider identity_providers;
            ProviderSecret provider_secrets;
            Group groups;
            Membership memberships;
            SessionRevocation session_revocations;
            UserRevocation user_revocations;
            OutdatedTokens outdated_tokens;
            AllSessionsEnded sessions_ended;
        }
    };
}

/// The kind that a test adds, to see that a line is enough.
#[cfg(feature = "toy")]
#[macro_export]
macro_rules! with_toy {
    ($then:path; $($list:tt)*) => { $then! { $($list)* Toy toys; } };
}
#[cfg(not(feature = "toy"))]
#[macro_export]
macro_rules! with_toy {
    ($then:path; $($list:tt)*) => { $then! { $($list)* } };
}

macro_rules! define {
    ($($kind:ident $table:ident;)*) => {
        /// One object, whole.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object {
            $($kind(Box<$kind>),)*
        }

        /// The natural key of an object.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ObjectKey {
            $($kind(<$kind as Kind>::Key),)*
        }

        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum KindName {
            $($kind,)*
        }

        /// What is true of one tenant: a table for each kind, and what follows from them.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Tenant {
            $(pub $table: Table<$kind>,)*
            pub domain: String,
            /// Where users reach relays.
            pub public_port: u16,
            /// Where connectors reach relays, `HOST:PORT`.
            pub relays: Arc<[String]>,
            pub branding: Branding,
            pub by_origin: ByOrigin,
            /// Policies by the applications they may concern.
            pub by_app: Policies,
            pub assigned: OrdMap<AppId, Arc<BTreeSet<Principal>>>,
            pub members: OrdMap<GroupId, Arc<BTreeSet<Principal>>>,
            /// The groups each principal is directly in: `members` read backwards.
            pub member_of: OrdMap<Principal, Arc<BTreeSet<GroupId>>>,
            pub outdated: Outdated,
            /// Sessions of anybody begun before this are over.
            pub sessions_before: Timestamp,
        }

        $(
            impl From<$kind> for Object {
                fn from(it: $kind) -> Self {
                    Self::$kind(Box::new(it))
                }
            }
        )*

        impl KindName {
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// In files, commands and the table of roles.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => <$kind as Kind>::NAME,)*
                }
            }

            /// The list of such objects in a file.
            pub fn plural(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($table),)*
                }
            }

            /// For people.
            pub fn title(self) -> &'static str {
                match self {
                    $(Self::$kind => <$kind as Kind>::TITLE,)*
                }
            }

            pub fn stream(self) -> Stream {
                match self {
                    $(Self::$kind => <$kind as Kind>::STREAM,)*
                }
            }
        }

        impl ObjectKey {
            pub fn kind(&self) -> KindName {
                match self {
                    $(Self::$kind(_) => KindName::$kind,)*
                }
            }

            pub fn subject(&self) -> Subject {
                match self {
                    $(Self::$kind(key) => Subject {
                        stream: <$kind as Kind>::STREAM,
                        kind: <$kind as Kind>::SUBJECT,
                        id: key.to_string(),
                    },)*
                }
            }
        }

        impl Object {
            pub fn key(&self) -> ObjectKey {
                match self {
                    $(Self::$kind(it) => ObjectKey::$kind(it.key()),)*
                }
            }

            pub fn name(&self) -> Option<&str> {
                match self {
                    $(Self::$kind(it) => it.name(),)*
                }
            }

            pub fn labels(&self) -> Option<&Labels> {
                match self {
                    $(Self::$kind(it) => it.labels(),)*
                }
            }

            pub fn refers_to(&self) -> Vec<Reference> {
                match self {
                    $(Self::$kind(it) => it.refers_to(),)*
                }
            }

            /// Today's rules for what it says by itself.
            pub fn check(&self) -> Result<(), Broken> {
                match self {
                    $(Self::$kind(it) => it.check(),)*
                }?;
                self.labels().map_or(Ok(()), |it| check_labels(it).in_field("labels"))
            }
        }

        impl Tenant {
            pub fn contains(&self, key: &ObjectKey) -> bool {
                match key {
                    $(ObjectKey::$kind(key) => self.$table.get(key).is_some_and(|it| it.counts(self)),)*
                }
            }

            /// The object, and the version of its last event.
            pub fn get(&self, key: &ObjectKey) -> Option<(Object, u64)> {
                match key {
                    $(ObjectKey::$kind(key) => {
                        let stored = self.$table.stored(key).filter(|it| it.object.counts(self));
                        stored.map(|it| (it.object.clone().into(), it.version))
                    })*
                }
            }

            pub fn named(&self, kind: KindName, name: &str) -> Option<ObjectKey> {
                match kind {
                    $(KindName::$kind => self.$table.named(name).map(ObjectKey::$kind),)*
                }
            }

            /// Objects of a kind in the order of keys, each with its version,
            /// from the one after `after` on.
            pub fn objects<'a>(
                &'a self,
                kind: KindName,
                after: Option<&'a ObjectKey>,
            ) -> Box<dyn Iterator<Item = (Object, u64)> + 'a> {
                match kind {
                    $(KindName::$kind => {
                        let whole = |it: &Arc<Stored<$kind>>| (it.object.clone().into(), it.version);
                        let counts = |it: &&Arc<Stored<$kind>>| it.object.counts(self);
                        match after {
                            Some(ObjectKey::$kind(key)) => Box::new(self.$table.after(key).filter(counts).map(whole)),
                            _ => Box::new(self.$table.iter().filter(counts).map(whole)),
                        }
                    })*
                }
            }

            /// Keys of objects of a kind that are not the same in another snapshot.
            pub fn differing(&self, other: &Self, kind: KindName) -> Vec<ObjectKey> {
                match kind {
                    $(KindName::$kind => self.$table.differing(&other.$table).map(ObjectKey::$kind).collect(),)*
                }
            }

            /// Whose open exchanges have to be judged again, as this became `now`.
            pub fn touched(&self, now: &Self) -> Vec<Touch> {
                let mut touched = Vec::new();
                $(for key in self.$table.differing(&now.$table) {
                    let both = [self.$table.get(&key), now.$table.get(&key)];
                    touched.extend(both.into_iter().flatten().map(Kind::touches));
                })*
                touched
            }

            /// Every object of the tenant that names another.
            pub fn all_references(&self) -> impl Iterator<Item = (ObjectKey, Vec<Reference>)> + '_ {
                let none = std::iter::empty();
                $(let none = none.chain(self.$table.values().filter(|it| it.counts(self)).filter_map(|it| {
                    let references = it.refers_to();
                    (!references.is_empty()).then(|| (ObjectKey::$kind(it.key()), references))
                }));)*
                none
            }

            /// What is recorded when this is wished now; `None` when it is so already.
            pub(crate) fn settled(&self, object: Object) -> Option<Object> {
                match object {
                    $(Object::$kind(it) => {
                        let before = self.$table.get(&it.key()).filter(|it| it.counts(self));
                        let settled = it.settled(before);
                        (before != Some(&settled)).then(|| settled.into())
                    })*
                }
            }

            /// See [`Kind::lapsed_with`].
            pub(crate) fn lapsed_with(&self, key: &ObjectKey) -> Vec<ObjectKey> {
                match key {
                    $(ObjectKey::$kind(key) => <$kind as Kind>::lapsed_with(key, self),)*
                }
            }

            pub(crate) fn put(&mut self, routes: &mut Routes, tenant_id: &TenantId, object: Object, version: u64) {
                match object {
                    $(Object::$kind(it) => {
                        let before = self.$table.put((*it).clone(), version);
                        let at = &mut Indexes { tenant_id, tenant: self, routes };
                        <$kind as Kind>::index(at, before.as_ref().map(|it| &it.object), Some(&it));
                    })*
                }
            }

            pub(crate) fn remove(&mut self, routes: &mut Routes, tenant_id: &TenantId, key: &ObjectKey) {
                match key {
                    $(ObjectKey::$kind(key) => {
                        if let Some(before) = self.$table.remove(key) {
                            let at = &mut Indexes { tenant_id, tenant: self, routes };
                            <$kind as Kind>::index(at, Some(&before.object), None);
                        }
                    })*
                }
            }

            /// Another object of the kind that has its name.
            pub(crate) fn same_name(&self, key: &ObjectKey, name: &str) -> Option<ObjectKey> {
                match key {
                    $(ObjectKey::$kind(_) if <$kind as Kind>::NAMES_REPEAT => None,)*
                    _ => self.named(key.kind(), name).filter(|it| it != key),
                }
            }
        }

        /// The rules of one object's kind that look at others.
        pub(crate) fn check_change(key: &ObjectKey, change: &Change<'_>) -> Result<(), Rejection> {
            match key {
                $(ObjectKey::$kind(key) => {
                    let (before, after) = (change.before.$table.get(key), change.after.$table.get(key));
                    <$kind as Kind>::check_change(before, after, change)
                })*
            }
        }

        pub(crate) fn rank(event: &Event, before: &Tenant) -> Rank {
            match event {
                $(Event::Put(Object::$kind(it)) => {
                    <$kind as Kind>::rank(before.$table.get(&it.key()), Some(it))
                })*
                $(Event::Removed(ObjectKey::$kind(key)) => {
                    <$kind as Kind>::rank(before.$table.get(key).filter(|it| it.counts(before)), None)
                })*
            }
        }

        /// See [`Kind::stricter_first`].
        pub(crate) fn stricter_first(object: &Object, before: &Tenant) -> Option<Object> {
            match object {
                $(Object::$kind(it) => {
                    let before = before.$table.get(&it.key())?;
                    <$kind as Kind>::stricter_first(before, it).map(Object::from)
                })*
            }
        }

        /// Who is concerned when `before` becomes what `event` says.
        pub fn concerns(event: &Event, before: &Tenant) -> Concern {
            match event {
                $(Event::Put(Object::$kind(it)) => {
                    <$kind as Kind>::concerns(&it.key(), before.$table.get(&it.key()), Some(it))
                })*
                $(Event::Removed(ObjectKey::$kind(key)) => {
                    <$kind as Kind>::concerns(key, before.$table.get(key), None)
                })*
            }
        }
    };
}

for_each_kind!(define);

impl KindName {
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.as_str() == name)
    }
}
