//! What a reader does with an event it cannot believe: it stops, says which,
//! and goes on serving what it knew.

use super::*;

#[tokio::test]
async fn a_forged_event_stops_the_fold() {
    let stranger = Signer::new(Ed25519KeyPair::generate().unwrap());
    let quarantine = after(|_, body| sign(&stranger, body)).await;
    assert!(quarantine.contains("no key"), "{quarantine}");
}

#[tokio::test]
async fn a_tampered_event_stops_the_fold() {
    let quarantine = after(|signer, body| {
        let mut event = SignedEvent::decode(sign(signer, body).as_slice()).unwrap();
        let at = event.body.len() - 1;
        let mut tampered = event.body.to_vec();
        tampered[at] ^= 1;
        event.body = tampered.into();
        event.encode_to_vec()
    })
    .await;
    assert!(quarantine.contains("signature does not fit"), "{quarantine}");
}

#[tokio::test]
async fn a_truncated_event_stops_the_fold() {
    let quarantine = after(|signer, body| {
        let mut bytes = sign(signer, body);
        bytes.truncate(bytes.len() / 2);
        bytes
    })
    .await;
    assert!(quarantine.contains("event 3 of config"), "{quarantine}");
}

#[tokio::test]
async fn an_unknown_kind_stops_the_fold_and_is_named() {
    let quarantine = after(|signer, body| sign(signer, EventBody { kind: "AppTeleported".into(), ..body })).await;
    assert!(quarantine.contains("AppTeleported"), "{quarantine}");
}

#[tokio::test]
async fn a_left_out_event_stops_the_fold() {
    let quarantine = after(|signer, body| sign(signer, EventBody { version: body.version + 1, ..body })).await;
    assert!(quarantine.contains("version 4"), "{quarantine}");
}

#[tokio::test]
async fn a_reordered_event_stops_the_fold() {
    let quarantine =
        after(|signer, body| sign(signer, EventBody { version: 1, previous: vec![].into(), ..body })).await;
    assert!(quarantine.contains("not the successor"), "{quarantine}");
}

#[tokio::test]
async fn an_event_in_place_of_another_stops_the_fold() {
    let quarantine = after(|signer, body| sign(signer, EventBody { previous: vec![7; 32].into(), ..body })).await;
    assert!(quarantine.contains("not the successor"), "{quarantine}");
}

#[tokio::test]
async fn an_event_after_another_of_the_stream_stops_the_fold() {
    let quarantine =
        after(|signer, body| sign(signer, EventBody { stream_previous: vec![7; 32].into(), ..body })).await;
    assert!(quarantine.contains("left out or replaced"), "{quarantine}");
}

#[tokio::test]
async fn an_event_that_names_no_other_of_the_stream_stops_the_fold() {
    let quarantine = after(|signer, body| sign(signer, EventBody { stream_previous: vec![].into(), ..body })).await;
    assert!(quarantine.contains("does not name the event before it"), "{quarantine}");
}

#[tokio::test]
async fn an_event_filed_under_another_subject_stops_the_fold() {
    let elsewhere = "postern.config.default.app.1".to_owned();
    let quarantine = after(|signer, body| {
        sign(signer, EventBody { subject: elsewhere, version: 1, previous: vec![].into(), ..body })
    })
    .await;
    assert!(quarantine.contains("postern.config.default.app.1"), "{quarantine}");
}

#[tokio::test]
async fn an_event_of_another_stream_stops_the_fold() {
    let quarantine = after(|signer, body| {
        let event = Event::Removed(ObjectKey::User(UserId(Uuid::from_u128(1))));
        let (kind, payload) = Fact::State(event.clone()).encode();
        let subject = draft_subject(&event);
        sign(signer, EventBody { subject, kind, payload: payload.into(), version: 1, previous: vec![].into(), ..body })
    })
    .await;
    assert!(quarantine.contains("directory"), "{quarantine}");
}

#[tokio::test]
async fn a_duplicate_is_harmless() {
    let folder = Folder::new();
    let world = World::embedded(&folder);
    let projection = two_events(&world).await;
    let entries = world.log.read(Stream::Config, 1).await.unwrap();
    let repeated = Append { subject: subject("x"), bytes: entries[0].bytes.clone() };
    world.log.append(Stream::Config, vec![repeated], None).await.unwrap();
    let snapshot = projection.reach(Stream::Config, 3).await;
    assert_eq!(snapshot.tenant(&TenantId::default_tenant()).unwrap().domain, "d1.example.com");
    assert!(projection.view().quarantine.is_none());
}

#[tokio::test]
async fn a_log_that_ends_earlier_than_it_did_is_not_believed() {
    let folder = Folder::new();
    let mirror = folder.0.join("mirror.db");
    let world = World::embedded(&folder);
    drop(Projection::start(world.log.clone(), &[Stream::Config], world.trust(), Some(&mirror)).await.unwrap());
    let projection = two_events(&world).await;
    drop(projection);
    wait_until(|| EventLog::open(&mirror).is_ok()).await;
    let mirrored = Projection::start(world.log.clone(), &[Stream::Config], world.trust(), Some(&mirror)).await.unwrap();
    drop(mirrored);
    wait_until(|| EventLog::open(&mirror).is_ok()).await;

    let restored = Folder::new();
    let older = World { signer: world.signer.clone(), ..World::embedded(&restored) };
    let outcome = Projection::start(older.log.clone(), &[Stream::Config], world.trust(), Some(&mirror)).await;
    assert!(matches!(outcome, Err(projection::StartError::WentBack { seen: 2, found: 0, .. })));
}

/// Appends two good events and one made by `evil` from the good third; returns
/// why the reader stopped, after checking that it still serves the second.
async fn after(evil: impl FnOnce(&Signer, EventBody) -> Vec<u8>) -> String {
    let folder = Folder::new();
    let world = World::embedded(&folder);
    let projection = two_events(&world).await;
    let event = Event::put(TenantSettings { domain: "evil.example.com".into(), public_port: 443, relays: vec![] });
    let subject = draft_subject(&event);
    let (kind, payload) = Fact::State(event).encode();
    let (version, previous) = projection.chain().lock().unwrap().next(Stream::Config, &subject);
    let stream_previous = projection.chain().lock().unwrap().stream_previous(Stream::Config);
    let body = EventBody {
        tenant: "default".into(),
        subject: subject.clone(),
        version,
        previous: previous.into(),
        kind,
        payload: payload.into(),
        stream_previous: stream_previous.to_vec().into(),
        ..Default::default()
    };
    let bytes = evil(&world.signer, body).into();
    world.log.append(Stream::Config, vec![Append { subject, bytes }], None).await.unwrap();

    let mut views = projection.watch();
    let stopped = views.wait_for(|view| view.quarantine.is_some()).await.unwrap().clone();
    assert_eq!(stopped.snapshot.config, 2, "the last good snapshot serves");
    assert_eq!(stopped.snapshot.tenant(&TenantId::default_tenant()).unwrap().domain, "d1.example.com");
    let restarted = Projection::start(world.log.clone(), &Stream::STATE, world.trust(), None).await;
    assert!(restarted.is_err(), "a reader that starts now does not believe it either");
    stopped.quarantine.unwrap().to_string()
}

async fn two_events(world: &World) -> Projection {
    let projection = world.projection().await;
    let journal = Journal::new(world.log.clone(), world.signer.clone());
    for n in 0..2 {
        let event =
            Event::put(TenantSettings { domain: format!("d{n}.example.com"), public_port: 443, relays: vec![] });
        let position = journal.append(Stream::Config, &[draft(event)], projection.chain(), n).await.unwrap();
        projection.reach(Stream::Config, position).await;
    }
    projection
}

fn sign(signer: &Signer, body: EventBody) -> Vec<u8> {
    signer.sign(vec![body.encode_to_vec()]).remove(0).encode_to_vec()
}
