//! An event that can be read is written as it was read, and folds.
#![no_main]

use eventlog::{Activity, Fact};
use libfuzzer_sys::fuzz_target;

const KINDS: [&str; 30] = [
    "TenantChanged", "BrandingChanged", "AppPublished", "AppChanged", "AppRetired", "ConnectorGroupCreated",
    "ConnectorGroupChanged", "ConnectorGroupRetired", "JoinTokenIssued", "ConnectorEnrolled", "ConnectorRevoked",
    "Assigned", "Unassigned", "PolicyCreated", "PolicyChanged", "PolicyRemoved", "RoleGranted", "RoleWithdrawn",
    "KeyPublished", "KeyRetired", "CertificateInstalled", "CertificateRemoved", "UserCreated", "UserChanged",
    "UserRemoved", "CredentialsChanged", "GroupCreated", "MemberAdded", "SessionRevoked", "Accessed",
];

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, payload) = input;
    let Ok(fact) = Fact::decode(KINDS[usize::from(kind) % KINDS.len()], payload) else { return };
    let (kind, payload) = fact.encode();
    let again = Fact::decode(kind, &payload).expect("what was written can be read");
    assert_eq!(again.encode(), (kind, payload));
    match fact {
        Fact::State(event) => {
            let (mut snapshot, tenant) = (model::Snapshot::default(), model::TenantId::default_tenant());
            snapshot.apply(&tenant, event.clone(), 1);
            let once = snapshot.clone();
            snapshot.apply(&tenant, event, 1);
            assert_eq!(once.routes, snapshot.routes, "twice is once");
        }
        Fact::Activity(Activity::Access(_) | _) => {}
    }
});
