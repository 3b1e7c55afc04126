//! The table of steps, row by row, and that every sign-in ends.

use std::collections::BTreeSet;

use model::{Proof, Requirement, Requirement::Mfa, SessionId, UserId};

use super::{Evidence, Step, next};
use crate::sessions::SsoSession;

const USER: UserId = UserId(uuid::Uuid::from_u128(1));

fn recent() -> Requirement {
    "sign-in-within:1h".parse().unwrap()
}

/// A session of a browser, by the words of its `amr`.
fn session(amr: &str) -> SsoSession {
    let amr = amr.split(' ').map(str::to_owned).collect();
    SsoSession { user: USER, session: SessionId(uuid::Uuid::from_u128(2)), started_ms: 0, amr }
}

fn evidence(before: Option<&str>, proofs: &[Proof]) -> Evidence {
    let begun = match before {
        Some(amr) => Evidence::before(Some(session(amr))),
        None => Evidence { user: Some(USER), ..Evidence::default() },
    };
    Evidence { proofs: proofs.to_vec(), ..begun }
}

#[test]
fn each_step_follows_from_what_was_shown_what_is_missing_and_what_the_user_has() {
    use Proof::{Password, Totp};
    use Step::{Done, Enrol, Prove};
    let (one, both): (&[Proof], &[Proof]) = (&[Password], &[Password, Totp]);
    // Session before, proofs now, proofs the user has, what is missing: what comes next.
    type Row<'a> = (Option<&'a str>, &'a [Proof], &'a [Proof], &'a [Requirement], Step);
    let rows: &[Row<'_>] = &[
        // A whole sign-in asks for every proof the user has.
        (None, &[], one, &[], Prove(Password)),
        (None, one, one, &[], Done),
        (None, one, both, &[], Prove(Totp)),
        (None, both, both, &[], Done),
        (None, one, one, &[Mfa], Enrol(Totp)),
        (None, both, one, &[], Done),
        // A session is made stronger by what is missing, and by no more.
        (Some("pwd"), &[], both, &[], Done),
        (Some("pwd"), &[], both, &[Mfa], Prove(Totp)),
        (Some("pwd"), &[Totp], both, &[], Done),
        // A stolen session is not enough to set up a second factor.
        (Some("pwd"), &[], one, &[Mfa], Prove(Password)),
        // A recent sign-in is shown by the password.
        (Some("pwd otp"), &[], both, &[recent()], Prove(Password)),
        (Some("pwd"), &[], both, &[Mfa, recent()], Prove(Password)),
        (Some("pwd"), &[Totp], both, &[recent()], Prove(Password)),
    ];
    for (before, proofs, has, missing, expected) in rows {
        let step = next(&evidence(*before, proofs), &has.iter().copied().collect(), &missing.iter().copied().collect());
        assert_eq!(step, *expected, "{before:?} {proofs:?} {has:?} {missing:?}");
    }
    assert_eq!(next(&Evidence::before(None), &both.iter().copied().collect(), &BTreeSet::new()), Step::Identify);
}

/// Whatever a user has and is asked for: steps that are done as they say lead to
/// the end, with nothing missing, and no step is asked for twice.
#[test]
fn every_sign_in_ends() {
    let befores = [None, Some("pwd"), Some("pwd otp")];
    let requirements = [BTreeSet::new(), [Mfa].into(), [recent()].into(), [Mfa, recent()].into()];
    let all = befores.iter().flat_map(|it| requirements.iter().map(move |asked| (*it, asked)));
    for ((before, asked), has_totp) in all.flat_map(|it| [(it, false), (it, true)]) {
        let mut registered = BTreeSet::from([Proof::Password]);
        registered.extend(has_totp.then_some(Proof::Totp));
        let mut evidence = Evidence::before(before.map(session));
        let mut steps = Vec::new();
        loop {
            // A session here is an old one.
            let is_met = |it: &Requirement| match it {
                Mfa => evidence.satisfied().contains(it),
                Requirement::SignInWithin(_) => evidence.session.is_none(),
            };
            let missing: BTreeSet<_> = asked.iter().filter(|it| !is_met(it)).copied().collect();
            let step = next(&evidence, &registered, &missing);
            assert!(!steps.contains(&step), "{step:?} twice, after {steps:?}");
            match step {
                Step::Identify | Step::Prove(Proof::Password) => evidence = Evidence::by_password(USER),
                Step::Prove(proof) | Step::Enrol(proof) => {
                    assert!(step == Step::Prove(proof) || evidence.has(Proof::Password), "a second factor of anybody");
                    evidence.proofs.push(proof);
                    registered.insert(proof);
                }
                Step::Done => {
                    assert!(missing.is_empty(), "{missing:?} after {steps:?}");
                    break;
                }
            }
            steps.push(step);
        }
    }
}

#[test]
fn a_session_that_is_made_stronger_stays_the_same_one() {
    let stronger = evidence(Some("pwd"), &[Proof::Totp]);
    let now = model::Timestamp(5000);
    let after = stronger.into_session(USER, SessionId(uuid::Uuid::from_u128(9)), now);
    assert_eq!(after, SsoSession { amr: vec!["pwd".into(), "otp".into()], ..session("pwd") });

    let begun = Evidence::by_password(USER).into_session(USER, SessionId(uuid::Uuid::from_u128(9)), now);
    assert_eq!((begun.session, begun.started_ms), (SessionId(uuid::Uuid::from_u128(9)), 5000));
}
