//! The table of steps, row by row, and that every sign-in ends.

use std::collections::BTreeSet;

use model::{Proof, ProviderId, Requirement, Requirement::Mfa, SessionId, Timestamp, UserId};

use super::{Evidence, HomeProvider, Step, VouchedBy, next};
use crate::{sessions::SsoSession, upstream::Asks};

const USER: UserId = UserId(uuid::Uuid::from_u128(1));
const PROVIDER: ProviderId = ProviderId(uuid::Uuid::from_u128(3));

fn home(asks_mfa: bool) -> HomeProvider {
    HomeProvider { provider: PROVIDER, asks_mfa }
}

fn recent() -> Requirement {
    "sign-in-within:1h".parse().unwrap()
}

/// A session of a browser, by the words of its `amr`.
fn session(amr: &str) -> SsoSession {
    let amr = amr.split(' ').map(str::to_owned).collect();
    SsoSession { user: USER, session: SessionId(uuid::Uuid::from_u128(2)), started_ms: 0, amr, provider: None }
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
        let (has, missing) = (has.iter().copied().collect(), missing.iter().copied().collect());
        let step = next(&evidence(*before, proofs), &has, &missing, None);
        assert_eq!(step, *expected, "{before:?} {proofs:?} {has:?} {missing:?}");
    }
    assert_eq!(next(&Evidence::before(None), &both.iter().copied().collect(), &BTreeSet::new(), None), Step::Identify);
}

/// People of a provider show its word first, and a second factor there or here.
#[test]
fn a_providers_word_is_a_first_factor_and_a_second_where_it_says_so() {
    use Proof::{Password, Totp};
    let word = |mfa, asks| Evidence::by_provider(USER, VouchedBy { provider: PROVIDER, asks, mfa, at: Timestamp(0) });
    let plain = Asks::default();
    let (mfa, again) = (Asks { mfa: true, ..plain }, Asks { again: true, ..plain });
    let (asks_mfa, cannot) = (Some(home(true)), Some(home(false)));
    let of_session = Evidence::before(Some(SsoSession { provider: Some(PROVIDER), ..session("fed") }));
    type Row<'a> = (Evidence, &'a [Proof], &'a [Requirement], Option<HomeProvider>, Step);
    let rows: &[Row<'_>] = &[
        (word(false, plain), &[], &[], cannot, Step::Done),
        (word(true, plain), &[Totp], &[], cannot, Step::Done),
        // Whoever set up a second factor here is asked for it, unless there was one there.
        (word(false, plain), &[Totp], &[], cannot, Step::Prove(Totp)),
        (word(false, plain), &[], &[Mfa], asks_mfa, Step::Visit(PROVIDER, mfa)),
        // It was asked and had none: ours.
        (word(false, mfa), &[], &[Mfa], asks_mfa, Step::Enrol(Totp)),
        (word(false, plain), &[], &[Mfa], cannot, Step::Enrol(Totp)),
        (word(false, plain), &[], &[recent()], cannot, Step::Visit(PROVIDER, again)),
        (of_session.clone(), &[], &[recent()], cannot, Step::Visit(PROVIDER, again)),
        (of_session.clone(), &[Password], &[Mfa], asks_mfa, Step::Visit(PROVIDER, mfa)),
        // A stolen session is not enough to set up a second factor.
        (of_session, &[], &[Mfa], cannot, Step::Visit(PROVIDER, again)),
    ];
    for (evidence, has, missing, home, expected) in rows {
        let (has, missing) = (has.iter().copied().collect(), missing.iter().copied().collect());
        assert_eq!(next(evidence, &has, &missing, *home), *expected, "{evidence:?} {has:?} {missing:?} {home:?}");
    }
}

/// Whatever a user has and is asked for: steps that are done as they say lead to
/// the end, with nothing missing, and no step is asked for twice.
#[test]
fn every_sign_in_ends() {
    let befores = [None, Some("pwd"), Some("pwd otp"), Some("fed"), Some("fed mfa")];
    let requirements = [BTreeSet::new(), [Mfa].into(), [recent()].into(), [Mfa, recent()].into()];
    let both = [false, true];
    let all = befores.iter().flat_map(|it| requirements.iter().map(move |asked| (*it, asked)));
    let all = all.flat_map(|it| both.map(|has_totp| (it, has_totp)));
    let all = all.flat_map(|it| both.map(|asks_mfa| (it, asks_mfa)));
    // Does a provider that is asked for a second factor have one?
    for ((((before, asked), has_totp), asks_mfa), gives_mfa) in all.flat_map(|it| both.map(|gives| (it, gives))) {
        let mut registered = BTreeSet::from([Proof::Password]);
        registered.extend(has_totp.then_some(Proof::Totp));
        let federated = before.filter(|it| it.starts_with("fed")).map(|_| PROVIDER);
        let before = before.map(|amr| SsoSession { provider: federated, ..session(amr) });
        let mut evidence = Evidence::before(before);
        let mut steps = Vec::new();
        loop {
            // A session here is an old one.
            let is_met = |it: &Requirement| match it {
                Mfa => evidence.satisfied().contains(it),
                Requirement::SignInWithin(_) => evidence.session.is_none(),
            };
            let missing: BTreeSet<_> = asked.iter().filter(|it| !is_met(it)).copied().collect();
            let step = next(&evidence, &registered, &missing, evidence.provider().map(|_| home(asks_mfa)));
            assert!(!steps.contains(&step), "{step:?} twice, after {steps:?}");
            match step {
                Step::Identify | Step::Prove(Proof::Password) => evidence = Evidence::by_password(USER),
                Step::Visit(provider, asks) => {
                    let mfa = asks.mfa && gives_mfa;
                    evidence = Evidence::by_provider(USER, VouchedBy { provider, asks, mfa, at: Timestamp(0) });
                }
                Step::Prove(proof) | Step::Enrol(proof) => {
                    let first = evidence.has(Proof::Password) || evidence.vouched.is_some();
                    assert!(step == Step::Prove(proof) || first, "a second factor of anybody");
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
    let now = Timestamp(5000);
    let after = stronger.into_session(USER, SessionId(uuid::Uuid::from_u128(9)), now);
    assert_eq!(after, SsoSession { amr: vec!["pwd".into(), "otp".into()], ..session("pwd") });

    let begun = Evidence::by_password(USER).into_session(USER, SessionId(uuid::Uuid::from_u128(9)), now);
    assert_eq!((begun.session, begun.started_ms), (SessionId(uuid::Uuid::from_u128(9)), 5000));
}
