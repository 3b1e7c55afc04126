//! Which place a request goes to.

use std::collections::BTreeSet;

use super::*;
use crate::backend::System;

fn origin(more: &[&str]) -> Origin {
    let app = App {
        id: "a".into(),
        origin: "http://one.test:80".into(),
        more_origins: more.iter().map(|it| (*it).to_owned()).collect(),
        ..Default::default()
    };
    let trust = Trust { roots: Arc::new(rustls::RootCertStore::empty()), client_certificates: None };
    Pools::new(Arc::new(trust), Arc::new(System), TaskTracker::new())
        .make(Arc::new(app), 1, &RequestHead::default())
        .unwrap()
}

fn three() -> Origin {
    origin(&["http://two.test:80", "http://three.test:80"])
}

fn first(origin: &Origin, affinity: u64) -> u64 {
    origin.order(affinity)[0].seed
}

#[test]
fn requests_are_shared_and_the_least_busy_place_counts() {
    let origin = three();
    let shared: BTreeSet<u64> = (0..3).map(|_| first(&origin, 0)).collect();
    assert_eq!(shared.len(), 3, "idle places take turns");
    let _busy: Vec<Busy> = origin.places[..2].iter().map(|it| Busy::begin(&it.busy)).collect();
    for _ in 0..3 {
        assert_eq!(first(&origin, 0), origin.places[2].seed);
    }
}

#[test]
fn a_place_that_failed_rests_and_is_asked_when_no_other_is_left() {
    let origin = three();
    origin.places[0].rest();
    for _ in 0..6 {
        assert_ne!(first(&origin, 0), origin.places[0].seed);
    }
    assert_eq!(origin.order(0).len(), 3, "it is still the last resort");
    origin.places[0].came_through();
    let again: BTreeSet<u64> = (0..3).map(|_| first(&origin, 0)).collect();
    assert_eq!(again.len(), 3);
}

#[test]
fn a_session_stays_where_it_is_and_only_those_of_a_lost_place_move() {
    let origin = three();
    let before: Vec<u64> = (1..300).map(|session| first(&origin, session)).collect();
    assert_eq!(before, (1..300).map(|session| first(&origin, session)).collect::<Vec<_>>());
    let lost = origin.places[1].seed;
    let share = before.iter().filter(|it| **it == lost).count();
    assert!((60..140).contains(&share), "spread evenly: {share} of 299");
    origin.places[1].rest();
    for (session, before) in (1..300).zip(before) {
        let after = first(&origin, session);
        assert_ne!(after, lost);
        assert!(before == lost || after == before, "session {session} moved for nothing");
    }
}

#[test]
fn a_name_for_a_wildcard_is_one_label_and_nothing_else() {
    assert_eq!(named("https://*.dev.corp:8443", "a-1").unwrap(), "https://a-1.dev.corp:8443");
    assert_eq!(named("https://wiki.corp:8443", "anything").unwrap(), "https://wiki.corp:8443");
    for label in ["", "a.b", "a/b", "a:80", "A", "a@b", "*", "a#", &"a".repeat(64)] {
        assert_eq!(named("https://*.dev.corp:8443", label), Err(ResetCode::OriginRefused), "{label}");
    }
}

#[test]
fn only_addresses_of_the_definition_exist() {
    let segment = proto::v1::Segment { external_url: String::new(), origin: "http://two.test:80".into() };
    let app = App { origin: "http://one.test:80".into(), segments: vec![segment], ..Default::default() };
    let at = |segment| urls(&app, &RequestHead { segment, ..Default::default() });
    assert_eq!(at(0).unwrap(), ["http://one.test:80"]);
    assert_eq!(at(1).unwrap(), ["http://two.test:80"]);
    assert_eq!(at(2), Err(ResetCode::OriginRefused));
}
