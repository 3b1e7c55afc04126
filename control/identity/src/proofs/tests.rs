//! What each check says of each thing that can be wrong.

use std::sync::Arc;

use model::{
    Credential, Event, Object, Proof, Snapshot, Tenant, TenantId, Timestamp, User, UserId, directory::Username,
};
use runtime::{
    hashing::{Area, Hashing},
    metrics::Metrics,
    sealing::SealingKey,
};
use totp_rs::Builder;

use super::{
    ProofFault::{self, Disabled, NotRegistered, UnknownUser, Unreadable, UsedBefore, Wrong},
    ProofFaults,
    password::Passwords,
    totp::Codes,
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const SECRET: &[u8; 20] = b"twenty bytes of code";

/// A tenant of these objects.
fn tenant(objects: impl IntoIterator<Item = Object>) -> Arc<Tenant> {
    let (id, mut snapshot) = (TenantId::default_tenant(), Snapshot::default());
    for (version, object) in (1..).zip(objects) {
        snapshot.apply(&id, Event::Put(object), version);
    }
    snapshot.tenant(&id).unwrap().clone()
}

fn user(id: u128, name: &str, disabled: bool) -> Object {
    let username = Username::parse(name).unwrap();
    let (id, labels) = (UserId(uuid::Uuid::from_u128(id)), Default::default());
    User { id, username, display_name: "".into(), email: "".into(), disabled, labels }.into()
}

fn credential(id: u128, proof: Proof, key: &SealingKey, plain: &[u8]) -> Object {
    let sealed = key.public().seal(proof.as_str(), plain).unwrap();
    Credential { user: UserId(uuid::Uuid::from_u128(id)), proof, sealed }.into()
}

#[tokio::test]
async fn a_password_is_its_users_or_the_reason_is_known() {
    let (ours, other) = (Arc::new(SealingKey::generate()), SealingKey::generate());
    let hash = Area::default().hash(b"a right password").unwrap();
    let password = |id, key: &SealingKey| credential(id, Proof::Password, key, hash.as_bytes());
    let tenant = tenant([
        user(1, "alice", false),
        password(1, &ours),
        user(2, "left", true),
        password(2, &ours),
        user(3, "new", false),
        user(4, "restored", false),
        password(4, &other),
    ]);
    let passwords = Passwords::new(ours, Hashing::on_callers_thread()).unwrap();
    let rows: &[(&str, &str, Result<(), ProofFault>)] = &[
        ("alice", "a right password", Ok(())),
        ("alice", "a wrong password", Err(Wrong)),
        ("alice", "", Err(Wrong)),
        ("left", "a right password", Err(Disabled)),
        ("left", "a wrong password", Err(Wrong)),
        ("new", "a right password", Err(NotRegistered)),
        ("restored", "a right password", Err(Unreadable)),
        ("nobody", "a right password", Err(UnknownUser)),
    ];
    for (name, typed, expected) in rows {
        let checked = passwords.check(&tenant, tenant.user_by_name(name), (*typed).to_owned()).await;
        assert_eq!(checked.map(|_| ()), *expected, "{name} {typed}");
    }
}

#[test]
fn a_code_is_of_now_and_works_once_or_the_reason_is_known() {
    let (ours, other) = (Arc::new(SealingKey::generate()), SealingKey::generate());
    let totp = |id, key: &SealingKey| credential(id, Proof::Totp, key, SECRET);
    let users = [1, 2, 3].map(|id| user(id, &format!("user{id}"), false));
    let tenant = tenant(users.into_iter().chain([totp(1, &ours), totp(2, &other)]));
    let code = |at_s: i64| {
        Builder::new().with_secret(SECRET.to_vec()).build().unwrap().generate((NOW.seconds() + at_s) as u64).to_string()
    };
    let codes = Codes::new(ours);
    let check = |id, code: &str| codes.check(&tenant, UserId(uuid::Uuid::from_u128(id)), code, NOW);

    assert_eq!(check(1, "12"), Err(Wrong));
    assert_eq!(check(1, &code(120)), Err(Wrong), "too far away");
    let spaced = format!(" {} {} ", &code(0)[..3], &code(0)[3..]);
    assert_eq!(check(1, &spaced), Ok(()), "as some apps show it");
    assert_eq!(check(1, &code(0)), Err(UsedBefore));
    assert_eq!(check(1, &code(-30)), Err(UsedBefore), "one before a used one is no fresh proof");
    assert_eq!(check(1, &code(30)), Ok(()), "a phone's clock may be a step ahead");
    assert_eq!(check(2, &code(0)), Err(Unreadable));
    assert_eq!(check(3, &code(0)), Err(NotRegistered));
}

#[test]
fn faults_are_counted_by_proof_and_reason() {
    let metrics = Metrics::default();
    let faults = ProofFaults::register(&metrics);
    for fault in ProofFault::ALL {
        assert_eq!(faults.noted(Proof::Password, Err::<(), _>(fault)), Err(fault));
    }
    assert_eq!(faults.noted(Proof::Totp, Ok(7)), Ok(7));
    let text = metrics.text();
    for fault in ProofFault::ALL {
        let line = format!("postern_proof_faults_total{{proof=\"password\",fault=\"{}\"}} 1", fault.name());
        assert!(text.contains(&line), "{line} in {text}");
    }
    assert!(!text.contains("totp"), "{text}");
}
