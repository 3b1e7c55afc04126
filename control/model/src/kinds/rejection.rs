//! Why a change does not happen, for the administrator who wished it.

use thiserror::Error;

use super::KindName;
use crate::text::Broken;

/// A reasoned no. `field` and `remedy` are for the administrator.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Rejection {
    #[error("{} does not exist", .0.title())]
    NotFound(KindName),
    #[error("{} exists already", .0.title())]
    Exists(KindName),
    #[error("it names the {} {key}, which does not exist", .kind.title())]
    Dangling { kind: KindName, key: String },
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("the name {name:?} is taken by another {}", .what.title())]
    NameTaken { what: KindName, name: String },
    #[error("{url} is taken by another application")]
    UrlTaken { url: String },
    #[error("the host {host} belongs to another tenant")]
    HostTaken { host: String },
    #[error("{} is in use by {by}", .what.title())]
    InUse { what: KindName, by: String },
    #[error("the join token was used before or has expired")]
    TokenSpent,
    #[error("the connector was revoked")]
    Revoked,
    #[error("the last owner cannot be removed, disabled or given another role")]
    LastOwner,
    #[error("a group cannot contain itself, directly or through other groups")]
    Cycle,
}

impl Rejection {
    /// The field of the request to change.
    pub fn field(&self) -> &'static str {
        match self {
            Self::NotFound(_) | Self::Exists(_) | Self::InUse { .. } | Self::Revoked => "id",
            Self::Dangling { kind, .. } => kind.as_str(),
            Self::Broken(broken) => broken.field,
            Self::NameTaken { what: KindName::User, .. } => "username",
            Self::NameTaken { .. } => "name",
            Self::UrlTaken { .. } | Self::HostTaken { .. } => "external_url",
            Self::TokenSpent => "token",
            Self::LastOwner => "role",
            Self::Cycle => "member",
        }
    }

    /// What to do about it; a broken rule says that itself.
    pub fn remedy(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotFound(_) | Self::Dangling { .. } => "list what exists and use its id or name",
            Self::Exists(_) => "update it instead, or choose another id",
            Self::Broken(_) => return None,
            Self::NameTaken { .. } => "choose another name",
            Self::UrlTaken { .. } => "choose another host or path",
            Self::HostTaken { .. } => "choose a host under your own domain",
            Self::InUse { .. } => "move or remove what uses it first",
            Self::TokenSpent => "ask for a new one: postern connector token",
            Self::Revoked => "join again with a new token",
            Self::LastOwner => "make another user owner first",
            Self::Cycle => "remove the other membership first",
        })
    }
}
