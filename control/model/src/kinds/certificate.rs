//! Server certificates for hosts of a tenant.

use std::fmt;

use crate::{
    event::Stream,
    ids::{CertificateId, Timestamp},
    kinds::{
        KindName, Rejection,
        kind::{Change, Kind, Rank},
    },
};

#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    pub id: CertificateId,
    /// Exact names, or `*.NAME` for one label.
    pub hosts: Vec<String>,
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// Sealed to relays.
    pub sealed_private_key: Vec<u8>,
    pub expires: Timestamp,
    pub source: Source,
}

/// Where a certificate comes from. For a host, one that was brought counts
/// before the installation's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The installation's authority.
    Own,
    Uploaded,
    /// Renewed in time, the same way.
    Acme(AcmeMethod),
    /// Proves a host to an ACME server, and serves nobody else.
    Challenge {
        key_authorization: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcmeMethod {
    TlsAlpn01,
    Http01,
    Dns01,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, {:?}, ..)", self.id, self.hosts)
    }
}

impl Kind for Certificate {
    const NAME: &'static str = "certificate";
    const TITLE: &'static str = "certificate";
    const STREAM: Stream = Stream::Config;
    type Key = CertificateId;

    fn key(&self) -> CertificateId {
        self.id
    }

    fn check_change(before: Option<&Self>, after: Option<&Self>, _change: &Change<'_>) -> Result<(), Rejection> {
        match (before, after) {
            (Some(before), None) if before.source == Source::Own => Err(Rejection::InUse {
                what: KindName::Certificate,
                by: "the installation itself, which would make it again".into(),
            }),
            _ => Ok(()),
        }
    }

    fn rank(_before: Option<&Self>, after: Option<&Self>) -> Rank {
        match after {
            Some(_) => Rank::Names,
            None => Rank::Loosens,
        }
    }
}
