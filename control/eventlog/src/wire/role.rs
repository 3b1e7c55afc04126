//! Roles on the wire.

use model::{Role, RoleAssignment};
use proto::{names, v1};

use super::{Happened, Link, Parsed, Words, bad, parse};

impl Words for RoleAssignment {
    type Message = v1::RoleAssignment;
    const PAST: &'static [(&'static str, Happened)] =
        &[("RoleGranted", Happened::Put), ("RoleWithdrawn", Happened::Removed)];

    fn to_wire(&self) -> v1::RoleAssignment {
        v1::RoleAssignment { user: self.user.to_string(), role: role_to(self.role).into() }
    }

    fn from_wire(wire: v1::RoleAssignment) -> Parsed<Self> {
        let role = role_from(wire.role()).ok_or(bad("role", "is auditor, admin or owner"))?;
        Ok(Self { user: parse("user", &wire.user)?, role })
    }

    fn key_to_wire(key: &Self::Key) -> v1::RoleAssignment {
        v1::RoleAssignment { user: key.to_string(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::RoleAssignment) -> Parsed<Self::Key> {
        parse("user", &wire.user)
    }

    fn links(wire: &mut v1::RoleAssignment) -> Vec<Link<'_>> {
        vec![Link::user("user", &mut wire.user)]
    }
}

fn role_from(role: v1::Role) -> Option<Role> {
    match role {
        v1::Role::Unspecified => None,
        v1::Role::Auditor => Some(Role::Auditor),
        v1::Role::Admin => Some(Role::Admin),
        v1::Role::Owner => Some(Role::Owner),
    }
}

/// As the API, files and the table of roles name it.
pub fn role_name(role: Role) -> String {
    names::role::name(role_to(role).into())
}

pub fn role_named(name: &str) -> Option<Role> {
    names::role::parse(name).and_then(|it| v1::Role::try_from(it).ok()).and_then(role_from)
}

pub fn role_to(role: Role) -> v1::Role {
    match role {
        Role::Auditor => v1::Role::Auditor,
        Role::Admin => v1::Role::Admin,
        Role::Owner => v1::Role::Owner,
    }
}
