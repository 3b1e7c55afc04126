//! What readers leave at the broker, and what a stolen credential can do there.

use async_nats::jetstream::{
    self as js,
    consumer::{pull, push},
};

use super::*;

#[tokio::test]
async fn readers_at_rest_keep_one_consumer_each() {
    let nats = Nats::start().await;
    let world = World::jetstream(&nats).await;
    let readers = [world.projection().await, world.projection().await];
    let journal = Journal::new(world.log.clone(), world.signer.clone());
    let event = Event::put(TenantSettings { domain: "a.example.com".into(), public_port: 443, relays: vec![] });
    let position = journal.append(Stream::Config, &[draft(event)], readers[0].chain(), 0).await.unwrap();
    for reader in &readers {
        reader.reach(Stream::Config, position).await;
    }
    // Both look at the end of the log each second; that may cost no consumer.
    for reader in &readers {
        for _ in 0..4 {
            let before = reader.view().confirmed;
            until(async || (reader.view().confirmed > before).then_some(())).await;
        }
    }
    let context = js::new(async_nats::connect(&nats.url).await.unwrap());
    // What a start read with goes soon after.
    until(async || (consumers(&context).await == 2).then_some(())).await;
    let again = Event::put(TenantSettings { domain: "b.example.com".into(), public_port: 443, relays: vec![] });
    let position = journal.append(Stream::Config, &[draft(again)], readers[0].chain(), 1).await.unwrap();
    for reader in &readers {
        reader.reach(Stream::Config, position).await;
    }
    assert_eq!(consumers(&context).await, 2, "and they are the same that follow");
}

#[tokio::test]
async fn a_reader_goes_on_when_its_consumer_is_gone() {
    let nats = Nats::start().await;
    let world = World::jetstream(&nats).await;
    let reader = world.projection().await;
    let journal = Journal::new(world.log.clone(), world.signer.clone());
    let context = js::new(async_nats::connect(&nats.url).await.unwrap());
    for n in 0..3 {
        let event =
            Event::put(TenantSettings { domain: format!("d{n}.example.com"), public_port: 443, relays: vec![] });
        let position = journal.append(Stream::Config, &[draft(event)], reader.chain(), n).await.unwrap();
        let reached = tokio::time::timeout(Duration::from_secs(30), reader.reach(Stream::Config, position)).await;
        assert_eq!(reached.expect("the reader follows again").config, n + 1);
        let stream = context.get_stream("CONFIG").await.unwrap();
        for name in names(&context).await {
            stream.delete_consumer(&name).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_relays_credential_reads_and_neither_makes_durables_nor_deletes() {
    let nats = Nats::with_roles(&["controller", "relay"]).await;
    let settings = |role: &str, create| jetstream::Settings {
        url: nats.url.clone(),
        nkey: Some(nats.folder.0.join(role)),
        inbox: role.into(),
        create,
        ..Default::default()
    };
    let controller = World::over("controller", EventLog::connect(&settings("controller", true)).await.unwrap());
    let relay = EventLog::connect(&settings("relay", false)).await.unwrap();
    let streams = [Stream::Config, Stream::Risk];
    let writer = controller.projection().await;
    let reader = Projection::start(relay, &streams, controller.trust(), None).await.unwrap();
    let journal = Journal::new(controller.log.clone(), controller.signer.clone());
    let event = Event::put(TenantSettings { domain: "a.example.com".into(), public_port: 443, relays: vec![] });
    let position = journal.append(Stream::Config, &[draft(event)], writer.chain(), 0).await.unwrap();
    reader.reach(Stream::Config, position).await;

    let mut stolen = js::new(nats.client("relay").await);
    stolen.set_timeout(Duration::from_secs(1));
    let everything = "postern.config.>".to_owned();
    let pull = pull::Config { filter_subject: everything.clone(), ..Default::default() };
    let durable = pull::Config { durable_name: Some("mine".into()), ..pull.clone() };
    assert!(stolen.create_consumer_on_stream(durable, "CONFIG").await.is_err(), "a durable consumer");
    let named = pull::Config { name: Some("mine".into()), ..pull.clone() };
    assert!(stolen.create_consumer_on_stream(named, "CONFIG").await.is_err(), "a consumer with a name");
    let push = push::Config {
        durable_name: Some("mine".into()),
        deliver_subject: "_INBOX_relay.mine".into(),
        filter_subject: everything,
        ..Default::default()
    };
    assert!(stolen.create_consumer_on_stream(push, "CONFIG").await.is_err(), "a durable push consumer");
    // The subject that takes no name takes none in its request either.
    let request = r#"{"stream_name":"CONFIG","config":{"durable_name":"mine","ack_policy":"none"}}"#;
    let hidden = stolen.client().request("$JS.API.CONSUMER.CREATE.CONFIG", request.into()).await.unwrap();
    assert!(String::from_utf8_lossy(&hidden.payload).contains("\"error\""), "a durable in disguise: {hidden:?}");
    assert!(stolen.create_consumer_on_stream(pull, "CONFIG").await.is_ok(), "what readers need");

    let owner = js::new(nats.client("everything").await);
    let names = names(&owner).await;
    assert!(!names.is_empty());
    for name in &names {
        assert!(stolen.delete_consumer_from_stream(name, "CONFIG").await.is_err(), "deleted {name}");
    }
    let event = Event::put(TenantSettings { domain: "b.example.com".into(), public_port: 443, relays: vec![] });
    let position = journal.append(Stream::Config, &[draft(event)], writer.chain(), 1).await.unwrap();
    assert_eq!(reader.reach(Stream::Config, position).await.config, 2, "the others read on");
}

#[tokio::test]
async fn activity_whose_answer_was_lost_is_recorded_once() {
    let nats = Nats::start().await;
    let world = World::jetstream(&nats).await;
    let journal = Journal::new(world.log.clone(), world.signer.clone());
    let access = |n: usize| UnsignedEvent {
        fact: Fact::Activity(Activity::Access(proto::v1::Access { request_id: n.to_string(), ..Default::default() })),
        ..draft(Event::put(TenantSettings { domain: String::new(), public_port: 1, relays: vec![] }))
    };
    for drafts in [1, 40] {
        let drafts: Vec<_> = (0..drafts).map(access).collect();
        let before = world.log.head(Stream::Activity).await.unwrap();
        let mut recording = journal.recording(&drafts);
        nats.signal("STOP");
        let unknown = journal.send(&mut recording).await;
        assert!(matches!(unknown, Err(AppendError::Unknown(_))), "{unknown:?}");
        assert_eq!(recording.remaining(), drafts.len());
        nats.signal("CONT");
        until(async || journal.send(&mut recording).await.ok()).await;
        assert_eq!(recording.remaining(), 0);
        let after = world.log.head(Stream::Activity).await.unwrap();
        assert_eq!(after - before, drafts.len() as u64, "neither lost nor there twice");
    }
}

async fn consumers(context: &js::Context) -> usize {
    let mut stream = context.get_stream("CONFIG").await.unwrap();
    stream.info().await.unwrap().state.consumer_count
}

async fn names(context: &js::Context) -> Vec<String> {
    use futures_util::TryStreamExt;
    context.get_stream("CONFIG").await.unwrap().consumer_names().try_collect().await.unwrap()
}

async fn until(mut holds: impl AsyncFnMut() -> Option<()>) {
    let waited = async {
        while holds().await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited).await.expect("the state never came");
}
