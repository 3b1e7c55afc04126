//! Expiry of the certificates and keys of a role, for its metrics.

use controller::bootstrap::own_certificate;
use eventlog::Projection;
use model::{
    Tenant, TenantId,
    keys::{Certificate, KeyPurpose, Source},
};
use runtime::{
    endings::{Endings, What},
    tls::validity_s,
};

/// What the snapshot knows the end of.
pub(crate) fn of_snapshot(endings: &Endings, projection: &Projection) {
    let tell = |what, ends_s: fn(&Tenant) -> Option<i64>| {
        let projection = projection.clone();
        endings.tell(what, move || ends_s(projection.snapshot().tenant(&TenantId::default_tenant())?));
    };
    tell(What::PublicCertificate, |tenant| own_certificate(tenant).map(|it| it.expires.seconds()));
    tell(What::OrderedCertificate, |tenant| soonest(tenant, |it| matches!(it, Source::Acme(_))));
    tell(What::BroughtCertificate, |tenant| soonest(tenant, |it| *it == Source::Uploaded));
    tell(What::Authority, |tenant| {
        let authorities = tenant.keys_for(KeyPurpose::Authority);
        let ends = authorities.iter().filter_map(|(_, key)| validity_s(&key.public_key));
        ends.map(|(_, end_s)| end_s).min()
    });
}

fn soonest(tenant: &Tenant, counts: fn(&Source) -> bool) -> Option<i64> {
    let counted = tenant.certificates.values().filter(|it| counts(&it.source));
    counted.map(|it: &Certificate| it.expires.seconds()).min()
}
