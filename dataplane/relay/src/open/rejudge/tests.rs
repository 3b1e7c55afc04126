//! Whose open exchanges a change concerns.

use model::{
    App, Assignment, ConnectorGroupId, Event, ObjectKey, Principal, SessionId, TenantId, Timestamp,
    app::{ExternalUrl, Name, Origin},
    kinds::{AssignmentKey, TenantSettings},
    policy::{Grant, Policy},
    risk::{SessionRevocation, UserRevocation},
};
use uuid::Uuid;

use super::*;

fn app(n: u128) -> App {
    let external = ExternalUrl::parse(&format!("https://a{n}.example.com/")).unwrap();
    let origin = Origin::parse("http://10.0.0.1:8080").unwrap();
    let group = ConnectorGroupId(Uuid::from_u128(1));
    App::new(AppId(Uuid::from_u128(n)), Name::parse("app").unwrap(), external, origin, group)
}

fn policy() -> Policy {
    Policy::new(model::PolicyId(Uuid::from_u128(9)), Name::parse("policy").unwrap(), Grant::Block)
}

/// Whom the events concern, one after the other, in a world of three applications.
fn scopes(events: Vec<Event>) -> Vec<Scope> {
    let tenant = TenantId::default_tenant();
    let mut snapshot = Snapshot::default();
    for n in 0..3 {
        snapshot.apply(&tenant, Event::put(app(n)), 1);
    }
    let scope = |event| {
        let before = snapshot.clone();
        snapshot.apply(&tenant, event, 2);
        Scope::between(&before, &snapshot)
    };
    events.into_iter().map(scope).collect()
}

fn of(apps: &[u128], users: &[u128], sessions: &[u128]) -> Scope {
    Scope::Of {
        apps: apps.iter().map(|it| AppId(Uuid::from_u128(*it))).collect(),
        users: users.iter().map(|it| UserId(Uuid::from_u128(*it))).collect(),
        sessions: sessions.iter().map(|it| SessionId(Uuid::from_u128(*it))).collect(),
    }
}

#[test]
fn a_change_judges_those_it_concerns() {
    let (id, user) = (AppId(Uuid::from_u128(1)), UserId(Uuid::from_u128(7)));
    let principal = Principal::Everyone;
    let user_changed = UserRevocation { user, sessions_before: Timestamp(0), directory: 5 };
    let session_over = SessionRevocation { session: SessionId(Uuid::from_u128(8)), at: Timestamp(1) };
    let scopes = scopes(vec![
        Event::put(App { hidden: true, ..app(1) }),
        Event::Removed(ObjectKey::App(AppId(Uuid::from_u128(2)))),
        Event::put(Assignment { app: id, principal }),
        Event::Removed(ObjectKey::Assignment(AssignmentKey { app: id, principal })),
        Event::put(user_changed),
        Event::put(session_over),
        Event::put(TenantSettings { domain: "example.com".into(), public_port: 443, relays: vec![] }),
        Event::put(policy()),
        Event::Removed(ObjectKey::Policy(policy().id)),
    ]);
    let expected = [
        of(&[1], &[], &[]),
        of(&[2], &[], &[]),
        of(&[1], &[], &[]),
        of(&[1], &[], &[]),
        of(&[], &[7], &[]),
        of(&[], &[], &[8]),
        of(&[], &[], &[]),
        Scope::Everybody,
        Scope::Everybody,
    ];
    assert_eq!(scopes, expected);
}
