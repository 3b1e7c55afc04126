//! The certificate authority: connectors, owners, and servers of this
//! installation. Constrained to the installation's own names (RFC 5280,
//! section 4.2.1.10), so trusting it in a browser risks no other site.

use std::time::Duration;

use model::{ConnectorGroupId, ConnectorId, TenantId, Timestamp, UserId};
use proto::enrolment::ConnectorUri;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
    SerialNumber,
};
use time::OffsetDateTime;

use crate::ControllerError;

const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Browsers refuse server certificates that live longer than 398 days.
pub const SERVER_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
const OWNER_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Clocks of those who check may be behind ours; not by a large part of a short life.
const BACKDATED: Duration = Duration::from_secs(300);
const BACKDATED_PART: u32 = 10;
/// Controllers are reached by this name, whatever their address.
pub const INTERNAL_DOMAIN: &str = "postern.internal";
/// The URI in a certificate of a person: `postern-user://TENANT/USER`.
pub(crate) const USER_SCHEME: &str = "postern-user://";

/// A certificate and its key.
pub struct Issued {
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8.
    pub key: Vec<u8>,
    pub expires: Timestamp,
}

pub struct Authority {
    certificate: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new one: certificate (DER) and key (PKCS#8).
    pub fn generate(domain: &str, now: Timestamp) -> Result<(Vec<u8>, Vec<u8>), ControllerError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&format!("Postern at {domain}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let permitted = [domain, INTERNAL_DOMAIN].map(|it| GeneralSubtree::DnsName(it.to_owned())).to_vec();
        params.name_constraints = Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees: vec![] });
        set_life(&mut params, now, AUTHORITY_LIFE);
        let certificate = params.self_signed(&key)?;
        Ok((certificate.der().to_vec(), key.serialize_der()))
    }

    pub fn load(certificate: Vec<u8>, key: &[u8]) -> Result<Self, ControllerError> {
        let key = KeyPair::try_from(key)?;
        let issuer = Issuer::from_ca_cert_der(&certificate.as_slice().into(), key)?;
        Ok(Self { certificate, issuer })
    }

    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// A server certificate for names of the installation.
    pub fn server(&self, hosts: &[String], now: Timestamp) -> Result<Issued, ControllerError> {
        let mut params = CertificateParams::new(hosts.to_vec())?;
        params.distinguished_name = name(hosts.first().map_or("postern", String::as_str));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params, now, SERVER_LIFE)
    }

    /// A certificate with which an owner calls the admin API.
    pub fn owner(&self, tenant: &TenantId, user: UserId, now: Timestamp) -> Result<Issued, ControllerError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("owner");
        params.subject_alt_names = vec![SanType::URI(format!("{USER_SCHEME}{tenant}/{user}").try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params, now, OWNER_LIFE)
    }

    /// A certificate for the key of a connector's request. What the request
    /// says beside the key counts for nothing.
    pub fn connector(
        &self,
        request: &CertificateSigningRequestParams,
        tenant: &TenantId,
        group: ConnectorGroupId,
        connector: ConnectorId,
        now: Timestamp,
        life: Duration,
    ) -> Result<Vec<Vec<u8>>, ControllerError> {
        let mut params = CertificateParams::default();
        let [tenant, group, connector] = [tenant.to_string(), group.to_string(), connector.to_string()];
        params.distinguished_name = name(&connector);
        let uri = ConnectorUri { tenant: &tenant, group: &group, connector: &connector };
        params.subject_alt_names = vec![SanType::URI(uri.to_string().try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial());
        set_life(&mut params, now, life);
        let certificate = params.signed_by(&request.public_key, &self.issuer)?;
        Ok(vec![certificate.der().to_vec(), self.certificate.clone()])
    }

    fn issue(&self, mut params: CertificateParams, now: Timestamp, life: Duration) -> Result<Issued, ControllerError> {
        let key = KeyPair::generate()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial());
        set_life(&mut params, now, life);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            chain: vec![certificate.der().to_vec(), self.certificate.clone()],
            key: key.serialize_der(),
            expires: now.plus_seconds(life.as_secs() as i64),
        })
    }
}

/// The default of the library is a life of two thousand years.
fn set_life(params: &mut CertificateParams, now: Timestamp, life: Duration) {
    let at = |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let backdated = BACKDATED.min(life / BACKDATED_PART);
    params.not_before = at(now.seconds() - backdated.as_secs() as i64);
    params.not_after = at(now.seconds() + life.as_secs() as i64);
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, DnValue::Utf8String(common.chars().take(64).collect()));
    name
}

/// Positive and unpredictable (CA/Browser Forum, section 7.1).
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = runtime::clock::random_bytes();
    bytes[0] = bytes[0] & 0x7f | 1;
    SerialNumber::from_slice(&bytes)
}
