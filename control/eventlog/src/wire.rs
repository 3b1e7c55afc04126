//! Between the wire and the model: the words of each kind, one file a kind.
//!
//! Reading is total: it fails only on grammar that never changes, so that no
//! rule of today stops a reader of an old log. Rules are the model's, and are
//! asked by whoever decides. The admin API and the event codec share this module.

mod app;
mod assignment;
mod branding;
mod certificate;
mod connector;
mod connector_group;
mod credential;
mod group;
mod identity_provider;
mod join_token;
mod key;
mod link;
mod linked_identity;
mod membership;
mod policy;
mod revocation;
mod role;
mod settings;
#[cfg(feature = "toy")]
mod toy;
mod user;

use std::{net::IpAddr, str::FromStr, time::Duration};

use ipnet::IpNet;
#[cfg(feature = "toy")]
use model::kinds::Toy;
use model::{
    App, Assignment, Connector, ConnectorGroup, Credential, Event, Group, IdentityProvider, JoinToken, Kind, KindName,
    LinkedIdentity, Membership, Object, ObjectKey, Policy, RoleAssignment, User,
    kinds::{
        AllSessionsEnded, Branding, Certificate, Credentials, Key, OutdatedTokens, ProviderSecret, SessionRevocation,
        TenantSettings, UserRevocation,
    },
};
use proto::Message;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use thiserror::Error;

pub use self::{
    certificate::acme_method_from,
    link::{Link, Unknown, resolve_principal},
    policy::{control_to, controls_to, policy_state_to},
    role::{role_name, role_named, role_to},
};

/// A field that cannot be read, and what it should be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field}: {problem}")]
pub struct FieldError {
    pub field: &'static str,
    pub problem: String,
}

pub type Parsed<T> = Result<T, FieldError>;

/// What an event of the first releases did to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    Put,
    Removed,
}

/// How a kind is written down.
pub trait Words: Kind {
    /// Shown as JSON without what is secret (`proto/build.rs`).
    type Message: Message + Default + Clone + PartialEq + Serialize + DeserializeOwned;

    /// Names of its events before every kind had `KIND.put` and `KIND.removed`.
    const PAST: &'static [(&'static str, Happened)];

    fn to_wire(&self) -> Self::Message;

    /// Fails only on grammar that never changes.
    fn from_wire(wire: Self::Message) -> Parsed<Self>;

    /// A message with the fields of the key, and no more.
    fn key_to_wire(key: &Self::Key) -> Self::Message;

    fn key_from_wire(wire: &Self::Message) -> Parsed<Self::Key>;

    /// The field people write its name in.
    const NAME_FIELD: &'static str = "name";

    /// The field with the id; `None` where the key is something else.
    fn id(_wire: &mut Self::Message) -> Option<&mut String> {
        None
    }

    /// Fields that hold ids of other objects.
    fn links(_wire: &mut Self::Message) -> Vec<Link<'_>> {
        vec![]
    }
}

macro_rules! define {
    ($($kind:ident $table:ident;)*) => {
        /// The kind of an event, `KIND.put` or `KIND.removed`, and its payload.
        pub fn encode(event: &Event) -> (String, Vec<u8>) {
            match event {
                $(Event::Put(Object::$kind(it)) => {
                    (format!("{}.put", <$kind as Kind>::NAME), it.to_wire().encode_to_vec())
                })*
                $(Event::Removed(ObjectKey::$kind(key)) => {
                    (format!("{}.removed", <$kind as Kind>::NAME), <$kind as Words>::key_to_wire(key).encode_to_vec())
                })*
            }
        }

        /// What the kind of an event says happened to which kind of object.
        pub fn meaning(kind: &str) -> Option<(KindName, Happened)> {
            if let Some((name, happened)) = kind.split_once('.') {
                let happened = match happened {
                    "put" => Happened::Put,
                    "removed" => Happened::Removed,
                    _ => return None,
                };
                return KindName::parse(name).map(|it| (it, happened));
            }
            $(if let Some((_, happened)) = <$kind as Words>::PAST.iter().find(|(name, _)| *name == kind) {
                return Some((KindName::$kind, *happened));
            })*
            None
        }

        /// `None` where the bytes are no message.
        pub fn decode(kind: KindName, happened: Happened, payload: &[u8]) -> Option<Parsed<Event>> {
            match kind {
                $(KindName::$kind => {
                    let wire = <$kind as Words>::Message::decode(payload).ok()?;
                    Some(match happened {
                        Happened::Put => $kind::from_wire(wire).map(Event::put),
                        Happened::Removed => {
                            $kind::key_from_wire(&wire).map(|key| Event::Removed(ObjectKey::$kind(key)))
                        }
                    })
                })*
            }
        }

        /// An object as people read it, without what is secret. `named` says what
        /// to write in place of a link's id.
        pub fn to_json(object: &Object, named: &mut dyn FnMut(&mut Link<'_>)) -> Value {
            match object {
                $(Object::$kind(it) => {
                    let mut wire = it.to_wire();
                    $kind::links(&mut wire).iter_mut().for_each(named);
                    serde_json::to_value(&wire).unwrap_or_default()
                })*
            }
        }

        /// The fields of a key, as people read them.
        pub fn key_to_json(key: &ObjectKey, named: &mut dyn FnMut(&mut Link<'_>)) -> Value {
            match key {
                $(ObjectKey::$kind(key) => {
                    let mut wire = <$kind as Words>::key_to_wire(key);
                    $kind::links(&mut wire).iter_mut().for_each(named);
                    let mut fields = serde_json::to_value(&wire).unwrap_or_default();
                    let empty = serde_json::to_value(<$kind as Words>::Message::default()).unwrap_or_default();
                    if let Some(map) = fields.as_object_mut() {
                        map.retain(|field, value| empty.get(field) != Some(value));
                    }
                    fields
                })*
            }
        }

        /// The object that JSON fields come to when they are written over `before`;
        /// `id` is the one it gets. `resolve` puts ids in place of names.
        pub fn from_json(
            kind: KindName,
            before: Option<&Object>,
            fields: &serde_json::Map<String, Value>,
            id: &str,
            resolve: &mut dyn FnMut(Link<'_>) -> Parsed<()>,
        ) -> Parsed<Object> {
            match kind {
                $(KindName::$kind => {
                    let before = match before {
                        Some(Object::$kind(it)) => it.to_wire(),
                        _ => <$kind as Words>::Message::default(),
                    };
                    let mut wire = merged::<$kind>(before, fields)?;
                    if let Some(field) = $kind::id(&mut wire) {
                        id.clone_into(field);
                    }
                    $kind::links(&mut wire).into_iter().try_for_each(resolve)?;
                    $kind::from_wire(wire).map(Object::from)
                })*
            }
        }

        /// The key that fields name, by `id` or by what it is made of.
        pub fn key_from_json(
            kind: KindName,
            fields: &serde_json::Map<String, Value>,
            resolve: &mut dyn FnMut(Link<'_>) -> Parsed<()>,
        ) -> Parsed<ObjectKey> {
            match kind {
                $(KindName::$kind => {
                    let mut wire = merged::<$kind>(<$kind as Words>::Message::default(), fields)?;
                    // Links that are no part of the key may be missing.
                    let given = $kind::links(&mut wire).into_iter().filter(|link| !link.text.is_empty());
                    given.into_iter().try_for_each(resolve)?;
                    $kind::key_from_wire(&wire).map(ObjectKey::$kind)
                })*
            }
        }

        /// The field people write the name of such an object in.
        pub fn name_field(kind: KindName) -> &'static str {
            match kind {
                $(KindName::$kind => <$kind as Words>::NAME_FIELD,)*
            }
        }

        /// Is the key an id, which may be chosen when the object is made?
        pub fn has_id(kind: KindName) -> bool {
            match kind {
                $(KindName::$kind => $kind::id(&mut <$kind as Words>::Message::default()).is_some(),)*
            }
        }
    };
}

model::for_each_kind!(define);

/// Fields written over a message. What is not mentioned stays, what nobody is
/// shown too.
fn merged<K: Words>(before: K::Message, fields: &serde_json::Map<String, Value>) -> Parsed<K::Message> {
    let mut known = match serde_json::to_value(&before) {
        Ok(Value::Object(map)) => map,
        _ => return Err(FieldError { field: K::NAME, problem: "cannot be written as JSON".into() }),
    };
    for (field, value) in fields {
        if known.insert(field.clone(), value.clone()).is_none() {
            return Err(FieldError { field: K::NAME, problem: format!("has no field {field:?}") });
        }
    }
    serde_json::from_value(Value::Object(known)).map_err(|error| {
        // Which field it is, the reader of JSON does not say.
        let alone = |(name, value): &(&String, &Value)| {
            let field = serde_json::Map::from_iter([((*name).clone(), (*value).clone())]);
            serde_json::from_value::<K::Message>(Value::Object(field)).is_err()
        };
        let field = fields.iter().find(alone).map_or(String::new(), |(name, _)| format!("{name}: "));
        FieldError { field: K::NAME, problem: format!("{field}{error}") }
    })
}

/// Names the field in an error about its value.
pub trait InField<T> {
    fn in_field(self, field: &'static str) -> Parsed<T>;
}

impl<T, E: std::fmt::Display> InField<T> for Result<T, E> {
    fn in_field(self, field: &'static str) -> Parsed<T> {
        self.map_err(|problem| FieldError { field, problem: problem.to_string() })
    }
}

pub fn parse<T: FromStr<Err: std::fmt::Display>>(field: &'static str, text: &str) -> Parsed<T> {
    T::from_str(text).in_field(field)
}

fn parse_all<T: FromStr<Err: std::fmt::Display>, C: FromIterator<T>>(
    field: &'static str,
    texts: &[String],
) -> Parsed<C> {
    texts.iter().map(|text| parse(field, text)).collect()
}

/// A network may be written as one address.
fn parse_networks(field: &'static str, texts: &[String]) -> Parsed<Vec<IpNet>> {
    let network = |text: &String| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    texts.iter().map(|text| network(text).map_err(|_| bad(field, "is not a network such as 10.0.0.0/8"))).collect()
}

fn bad(field: &'static str, problem: &str) -> FieldError {
    FieldError { field, problem: problem.to_owned() }
}

fn strings<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|it| it.to_string()).collect()
}

fn millis_or(value: u32, default: Duration) -> Duration {
    match value {
        0 => default,
        ms => Duration::from_millis(ms.into()),
    }
}

fn seconds_or(value: u32, default: Duration) -> Duration {
    match value {
        0 => default,
        seconds => Duration::from_secs(seconds.into()),
    }
}
