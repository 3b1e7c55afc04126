//! An event that can be read is written as it was read, and folds.
#![no_main]

use eventlog::{Activity, Fact};
use libfuzzer_sys::fuzz_target;

/// As events were called before each kind of object had `put` and `removed`.
const PAST: [&str; 30] = [
    "TenantChanged", "BrandingChanged", "AppPublished", "AppChanged", "AppRetired", "ConnectorGroupCreated",
    "ConnectorGroupChanged", "ConnectorGroupRetired", "JoinTokenIssued", "ConnectorEnrolled", "ConnectorRevoked",
    "Assigned", "Unassigned", "PolicyCreated", "PolicyChanged", "PolicyRemoved", "RoleGranted", "RoleWithdrawn",
    "KeyPublished", "KeyRetired", "CertificateInstalled", "CertificateRemoved", "UserCreated", "UserChanged",
    "UserRemoved", "CredentialsChanged", "GroupCreated", "MemberAdded", "SessionRevoked", "Accessed",
];

fn kind(n: usize) -> String {
    let kinds = model::KindName::ALL;
    match n % (PAST.len() + 2 * kinds.len()) {
        n if n < PAST.len() => PAST[n].to_owned(),
        n => {
            let n = n - PAST.len();
            format!("{}.{}", kinds[n / 2].as_str(), if n % 2 == 0 { "put" } else { "removed" })
        }
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (number, payload) = input;
    let Ok(fact) = Fact::decode(&kind(usize::from(number)), payload) else { return };
    let (kind, payload) = fact.encode();
    let again = Fact::decode(&kind, &payload).expect("what was written can be read");
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
