//! Certificates on the wire.

use model::{
    Timestamp,
    keys::{AcmeMethod, Certificate, Source},
};
use proto::v1;

use super::{Happened, Parsed, Words, parse};

impl Words for Certificate {
    type Message = v1::Certificate;
    const PAST: &'static [(&'static str, Happened)] =
        &[("CertificateInstalled", Happened::Put), ("CertificateRemoved", Happened::Removed)];

    fn to_wire(&self) -> v1::Certificate {
        let none = (v1::AcmeMethod::default(), String::new());
        let (source, (method, key_authorization)) = match &self.source {
            Source::Own => (v1::CertificateSource::Own, none),
            Source::Uploaded => (v1::CertificateSource::Uploaded, none),
            Source::Acme(method) => (v1::CertificateSource::Acme, (acme_method_to(*method), String::new())),
            Source::Challenge { key_authorization } => {
                (v1::CertificateSource::Challenge, (v1::AcmeMethod::default(), key_authorization.clone()))
            }
        };
        v1::Certificate {
            id: self.id.to_string(),
            hosts: self.hosts.clone(),
            chain: self.chain.clone(),
            sealed_private_key: self.sealed_private_key.clone(),
            expires_ms: self.expires.0,
            source: source.into(),
            method: method.into(),
            key_authorization,
        }
    }

    fn from_wire(wire: v1::Certificate) -> Parsed<Self> {
        let source = match wire.source() {
            v1::CertificateSource::Own => Source::Own,
            v1::CertificateSource::Uploaded => Source::Uploaded,
            v1::CertificateSource::Acme => Source::Acme(acme_method_from(wire.method())),
            v1::CertificateSource::Challenge => Source::Challenge { key_authorization: wire.key_authorization },
        };
        Ok(Self {
            id: parse("id", &wire.id)?,
            hosts: wire.hosts,
            chain: wire.chain,
            sealed_private_key: wire.sealed_private_key,
            expires: Timestamp(wire.expires_ms),
            source,
        })
    }

    fn key_to_wire(key: &Self::Key) -> v1::Certificate {
        v1::Certificate { id: key.to_string(), ..Default::default() }
    }

    fn key_from_wire(wire: &v1::Certificate) -> Parsed<Self::Key> {
        parse("id", &wire.id)
    }
}

pub fn acme_method_from(method: v1::AcmeMethod) -> AcmeMethod {
    match method {
        v1::AcmeMethod::TlsAlpn01 => AcmeMethod::TlsAlpn01,
        v1::AcmeMethod::Http01 => AcmeMethod::Http01,
        v1::AcmeMethod::Dns01 => AcmeMethod::Dns01,
    }
}

fn acme_method_to(method: AcmeMethod) -> v1::AcmeMethod {
    match method {
        AcmeMethod::TlsAlpn01 => v1::AcmeMethod::TlsAlpn01,
        AcmeMethod::Http01 => v1::AcmeMethod::Http01,
        AcmeMethod::Dns01 => v1::AcmeMethod::Dns01,
    }
}
