//! Scopes of policies on the wire.

use model::policy::Scope;
use proto::v1;

use super::*;
use crate::wire::Words;

fn policy(include: &[&str], include_scope: v1::Scope) -> v1::Policy {
    v1::Policy {
        id: Uuid::from_u128(1).to_string(),
        name: "guard".into(),
        include: include.iter().map(ToString::to_string).collect(),
        include_scope: include_scope.into(),
        block: true,
        ..Default::default()
    }
}

#[test]
fn a_list_of_the_first_releases_means_all_when_it_is_empty() {
    let read = |wire| model::Policy::from_wire(wire).unwrap().people.scope;
    let user = format!("user:{}", Uuid::from_u128(2));
    assert_eq!(read(policy(&[], v1::Scope::Unspecified)), Scope::All);
    assert!(matches!(read(policy(&[&user], v1::Scope::Unspecified)), Scope::Only(it) if it.len() == 1));
    assert_eq!(read(policy(&[&user, "everyone"], v1::Scope::Unspecified)), Scope::All);
    assert!(model::Policy::from_wire(policy(&[&user], v1::Scope::All)).is_err(), "all, and some");
}

#[test]
fn taking_the_last_entry_from_a_list_never_makes_it_everyone() {
    let user = format!("user:{}", Uuid::from_u128(2));
    let stored = model::Policy::from_wire(policy(&[&user], v1::Scope::Unspecified)).unwrap();
    let mut wire = stored.to_wire();
    wire.include.clear();
    let edited = model::Policy::from_wire(wire.clone()).unwrap();
    assert_eq!(edited.people.scope, Scope::Only(Default::default()));
    assert_eq!(model::Kind::check(&edited).unwrap_err().field, "include");
    wire.include_scope = v1::Scope::All.into();
    assert_eq!(model::Policy::from_wire(wire).unwrap().people.scope, Scope::All, "only when it is said");
}

#[test]
fn naming_somebody_narrows_a_policy_for_everyone() {
    let mut wire = model::Policy::from_wire(policy(&[], v1::Scope::All)).unwrap().to_wire();
    wire.include.push(format!("user:{}", Uuid::from_u128(2)));
    assert!(matches!(model::Policy::from_wire(wire).unwrap().people.scope, Scope::Only(_)));
}

#[test]
fn a_recent_sign_in_says_how_recent() {
    let mut wire = policy(&[], v1::Scope::Unspecified);
    wire.block = false;
    wire.require = vec![v1::Control::SignInWithin.into(), v1::Control::Mfa.into()];
    let unsaid = model::Policy::from_wire(wire.clone()).unwrap();
    assert_eq!(model::Kind::check(&unsaid).unwrap_err().field, "require");
    wire.sign_in_within_minutes = 60;
    let policy = model::Policy::from_wire(wire.clone()).unwrap();
    assert_eq!(policy.grant.asks(), "requires all of mfa, sign-in-within:1h");
    assert_eq!(policy.to_wire().sign_in_within_minutes, 60);
    wire.require.clear();
    wire.require.push(v1::Control::Mfa.into());
    assert!(model::Policy::from_wire(wire).is_err(), "minutes of nothing");
}
