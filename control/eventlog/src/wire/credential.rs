//! Credentials on the wire.

use model::{
    Credential, Proof,
    kinds::{CredentialKey, Credentials},
};
use proto::v1;

use super::{Happened, Link, Parsed, Words, bad, parse};

impl Words for Credential {
    type Message = v1::Credential;
    const PAST: &'static [(&'static str, Happened)] = &[];

    fn to_wire(&self) -> v1::Credential {
        v1::Credential { user: self.user.to_string(), proof: proof_to(self.proof).into(), sealed: self.sealed.clone() }
    }

    fn from_wire(wire: v1::Credential) -> Parsed<Self> {
        let proof = proof_from(wire.proof())?;
        Ok(Self { user: parse("user", &wire.user)?, proof, sealed: wire.sealed })
    }

    fn key_to_wire(key: &Self::Key) -> v1::Credential {
        v1::Credential { user: key.user.to_string(), proof: proof_to(key.proof).into(), sealed: vec![] }
    }

    fn key_from_wire(wire: &v1::Credential) -> Parsed<Self::Key> {
        Ok(CredentialKey { user: parse("user", &wire.user)?, proof: proof_from(wire.proof())? })
    }

    fn links(wire: &mut v1::Credential) -> Vec<Link<'_>> {
        vec![Link::user("user", &mut wire.user)]
    }
}

fn proof_from(proof: v1::Proof) -> Parsed<Proof> {
    match proof {
        v1::Proof::Password => Ok(Proof::Password),
        v1::Proof::Totp => Ok(Proof::Totp),
        v1::Proof::Unspecified => Err(bad("proof", "is unknown")),
    }
}

fn proof_to(proof: Proof) -> v1::Proof {
    match proof {
        Proof::Password => v1::Proof::Password,
        Proof::Totp => v1::Proof::Totp,
    }
}

impl Words for Credentials {
    type Message = v1::Credentials;
    const PAST: &'static [(&'static str, Happened)] = &[("CredentialsChanged", Happened::Put)];

    fn to_wire(&self) -> v1::Credentials {
        v1::Credentials { user: self.user.to_string(), password: self.password.clone(), totp: self.totp.clone() }
    }

    fn from_wire(wire: v1::Credentials) -> Parsed<Self> {
        Ok(Self { user: parse("user", &wire.user)?, password: wire.password, totp: wire.totp })
    }

    fn key_to_wire(key: &Self::Key) -> v1::Credentials {
        v1::Credentials { user: key.to_string(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::Credentials) -> Parsed<Self::Key> {
        parse("user", &wire.user)
    }

    fn links(wire: &mut v1::Credentials) -> Vec<Link<'_>> {
        vec![Link::user("user", &mut wire.user)]
    }
}
