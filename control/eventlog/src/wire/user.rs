//! Users on the wire.

use model::{User, directory::Username};
use proto::v1;

use super::{Happened, Parsed, Words, parse};

impl Words for User {
    type Message = v1::User;
    const PAST: &'static [(&'static str, Happened)] =
        &[("UserCreated", Happened::Put), ("UserChanged", Happened::Put), ("UserRemoved", Happened::Removed)];

    const NAME_FIELD: &'static str = "username";

    fn to_wire(&self) -> v1::User {
        v1::User {
            id: self.id.to_string(),
            username: self.username.as_str().to_owned(),
            display_name: self.display_name.to_string(),
            email: self.email.to_string(),
            disabled: self.disabled,
            labels: self.labels.clone(),
        }
    }

    fn from_wire(wire: v1::User) -> Parsed<Self> {
        Ok(Self {
            id: parse("id", &wire.id)?,
            username: Username::recorded(&wire.username),
            display_name: wire.display_name.into(),
            email: wire.email.into(),
            disabled: wire.disabled,
            labels: wire.labels,
        })
    }

    fn key_to_wire(key: &Self::Key) -> v1::User {
        v1::User { id: key.to_string(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::User) -> Parsed<Self::Key> {
        parse("id", &wire.id)
    }

    fn id(wire: &mut v1::User) -> Option<&mut String> {
        Some(&mut wire.id)
    }
}
