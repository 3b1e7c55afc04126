//! Answers about activity are right, believed only when signed, and bounded.

use std::path::PathBuf;

use aws_lc_rs::signature::Ed25519KeyPair;
use eventlog::{Fact, Journal, UnsignedEvent};
use proto::signed::Signer;
use runtime::clock::fresh_id;
use tokio::task::JoinSet;

use super::{
    recent::{MISSING_URLS_MAX, SESSIONS_MAX},
    *,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const HOUR_S: i64 = 3600;

#[tokio::test]
async fn a_sign_in_that_is_in_the_log_is_in_the_next_answer() {
    let world = World::start();
    for n in 0..50 {
        world.ours.record(&[world.draft(NOW, sign_in(&format!("s{n:02}"), "success"))]).await.unwrap();
        let sessions = world.reader.sessions(&world.tenant, NOW).await.unwrap();
        assert_eq!(sessions.len(), n + 1, "at once, after each");
    }
    let other = TenantId::parse("other").unwrap();
    assert_eq!(world.reader.sessions(&other, NOW).await.unwrap(), []);
}

#[tokio::test]
async fn what_a_stranger_signed_is_not_believed() {
    let world = World::start();
    world.stranger.record(&[world.draft(NOW, sign_in("forged", "success"))]).await.unwrap();
    let subject = "postern.activity.default.signin".to_owned();
    let noise = eventlog::Append { subject, bytes: b"noise".as_slice().into() };
    world.log.append(Stream::Activity, vec![noise], None).await.unwrap();
    world.ours.record(&[world.draft(NOW, sign_in("true", "success"))]).await.unwrap();
    let sessions = world.reader.sessions(&world.tenant, NOW).await.unwrap();
    assert_eq!(ids(&sessions), ["true"]);
}

#[tokio::test]
async fn a_reader_that_starts_late_gives_the_same_answer() {
    let world = World::start();
    let drafts: Vec<_> = (0..600).map(|n| world.draft(NOW, sign_in(&format!("s{n:03}"), "success"))).collect();
    world.ours.record(&drafts).await.unwrap();
    let mut late = JoinSet::new();
    let reader = world.reader_of(&world.log, &mut late);
    let (first, second) = tokio::join!(world.reader.sessions(&world.tenant, NOW), reader.sessions(&world.tenant, NOW));
    assert_eq!(first.unwrap(), second.unwrap());
}

/// A restored log counts ACTIVITY from 1 again.
#[tokio::test]
async fn a_log_that_ends_before_what_was_read_is_read_again() {
    let world = World::start();
    world.ours.record(&[world.draft(NOW, sign_in("s1", "success"))]).await.unwrap();
    assert_eq!(world.reader.sessions(&world.tenant, NOW).await.unwrap().len(), 1);
    *world.reader.lock() = RecentActivity::default();
    world.reader.position.send_replace(Some(99));
    assert_eq!(ids(&world.reader.sessions(&world.tenant, NOW).await.unwrap()), ["s1"]);
}

#[test]
fn failures_and_sessions_at_their_end_are_no_sessions() {
    let mut recent = RecentActivity::default();
    let tenant = TenantId::default_tenant();
    for (id, outcome, hours_ago) in [
        ("old", "success", 13),
        ("live", "success", 11),
        ("failed", "wrong_code", 1),
        ("newer", "of a newer release", 1),
    ] {
        recent.apply(&tenant, NOW.plus_seconds(-hours_ago * HOUR_S), sign_in(id, outcome));
    }
    assert_eq!(ids(&recent.sessions(&tenant, NOW)), ["live"]);
    let Activity::SignIn(attempt) = sign_in("live", "success") else { unreachable!() };
    let stronger = v1::SignInAttempt { methods: vec!["pwd".into(), "otp".into()], ..attempt };
    recent.apply(&tenant, NOW, Activity::SignIn(stronger));
    let sessions = recent.sessions(&tenant, NOW);
    assert_eq!(
        (sessions.len(), sessions[0].methods.len(), sessions[0].started_ms),
        (1, 2, NOW.0),
        "a step up replaces"
    );
}

/// As a connector with a new certificate does: it links anew before the old link ends.
#[test]
fn a_connector_is_linked_until_its_last_link_ends() {
    let (tenant, connector) = (TenantId::default_tenant(), ConnectorId(fresh_id()));
    let mut recent = RecentActivity::default();
    let mut told = |what: &str, relay: &str, second: i64| {
        let (connector, what, relay) = (connector.to_string(), what.into(), relay.into());
        let told = v1::ConnectorActivity { connector, what, relay, ..Default::default() };
        recent.apply(&tenant, NOW.plus_seconds(second), Activity::Connector(told));
        let of_connector = recent.links(&tenant).remove(0).1;
        of_connector.relays.into_iter().map(|(relay, at)| (relay, at.since_ms)).collect::<Vec<_>>()
    };
    assert_eq!(told("linked", "r1", 1), [("r1".to_owned(), NOW.0 + 1000)]);
    told("linked", "r1", 2);
    assert_eq!(told("unlinked", "r1", 3), [("r1".to_owned(), NOW.0 + 1000)], "one link is left");
    assert_eq!(told("unlinked", "r1", 4), []);
    assert_eq!(told("unlinked", "r1", 5), [], "one more than ever was");
    assert_eq!(told("linked", "r1", 6), [("r1".to_owned(), NOW.0 + 6000)], "and it is linked again");
}

#[test]
fn missing_urls_are_counted_for_the_application_whose_page_asked() {
    let (tenant, shop, other) = (TenantId::default_tenant(), AppId(fresh_id()), AppId(fresh_id()));
    let mut recent = RecentActivity::default();
    let asked = |app: AppId, path: &str, refusal: &str| v1::Access {
        app: app.to_string(),
        host: "shop.example.com".into(),
        path_class: path.into(),
        refusal: refusal.into(),
        time_ms: NOW.0 - 5,
        ..Default::default()
    };
    let all = vec![
        asked(shop, "/images", "not_published"),
        asked(shop, "/static/", "not_published"),
        asked(shop, "/static", "not_published"),
        asked(shop, "/secret", "not_assigned"),
        asked(other, "/static", "not_published"),
        v1::Access { app: String::new(), ..asked(other, "/probe", "not_published") },
    ];
    recent.apply(&tenant, NOW, Activity::Accesses(v1::Accesses { accesses: all }));
    // As relays wrote it before: with the event's own time.
    recent.apply(&tenant, NOW, Activity::Access(v1::Access { time_ms: 0, ..asked(shop, "/images", "not_published") }));
    recent.apply(&tenant, NOW, Activity::Access(asked(shop, "/static", "not_published")));
    let found = recent.missing_paths(&tenant, shop, NOW);
    let found: Vec<_> = found.iter().map(|it| (it.url.as_str(), it.requests, it.last_ms)).collect();
    let (first, second) = ("https://shop.example.com/static/", "https://shop.example.com/images/");
    assert_eq!(found, [(first, 3, NOW.0), (second, 2, NOW.0)]);
    assert_eq!(recent.missing_paths(&tenant, other, NOW).len(), 1);
    let much_later = NOW.plus_seconds(8 * 24 * HOUR_S);
    assert_eq!(recent.missing_paths(&tenant, shop, much_later), [], "nobody asks any more");
}

/// Strangers choose paths, and many people sign in.
#[test]
fn memory_is_bounded_and_the_newest_stay() {
    let (tenant, app) = (TenantId::default_tenant(), AppId(fresh_id()));
    let mut recent = RecentActivity::default();
    let probe = |path: String| {
        Activity::Access(v1::Access {
            app: app.to_string(),
            host: "shop.example.com".into(),
            path_class: path,
            refusal: "not_published".into(),
            ..Default::default()
        })
    };
    for n in 0..MISSING_URLS_MAX + 500 {
        recent.apply(&tenant, NOW, probe(format!("/{n}")));
        // Asked for again and again, so never the one touched longest ago.
        recent.apply(&tenant, NOW, probe("/static".into()));
    }
    recent.apply(&tenant, NOW, probe(format!("/{}", "x".repeat(8000))));
    for n in 0..SESSIONS_MAX + 7 {
        recent.apply(&tenant, NOW, sign_in(&format!("{n:06}"), "success"));
    }
    assert_eq!(recent.sizes(), (SESSIONS_MAX, MISSING_URLS_MAX));
    let most = &recent.missing_paths(&tenant, app, NOW)[0];
    assert_eq!(
        (most.url.as_str(), most.requests),
        ("https://shop.example.com/static/", (MISSING_URLS_MAX + 500) as u64)
    );
    assert_eq!(recent.sessions(&tenant, NOW)[0].id, "000007", "the oldest went");
}

struct World {
    folder: PathBuf,
    tenant: TenantId,
    log: EventLog,
    ours: Journal,
    stranger: Journal,
    key: Vec<u8>,
    reader: ActivityReader,
    _following: JoinSet<()>,
}

impl World {
    fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("postern-activity-{}", fresh_id()));
        std::fs::create_dir_all(&folder).unwrap();
        let log = EventLog::open(&folder.join("log.db")).unwrap();
        let [ours, stranger] = [(); 2].map(|()| Signer::new(Ed25519KeyPair::generate().unwrap()));
        let key = ours.public_key().to_vec();
        let [ours, stranger] = [ours, stranger].map(|it| Journal::new(log.clone(), Arc::new(it)));
        let mut following = JoinSet::new();
        let reader = ActivityReader::new(log.clone(), Verifier::trusting([key.clone()]));
        following.spawn(reader.clone().follow(CancellationToken::new()));
        let tenant = TenantId::default_tenant();
        Self { folder, tenant, log, ours, stranger, key, reader, _following: following }
    }

    fn reader_of(&self, log: &EventLog, following: &mut JoinSet<()>) -> ActivityReader {
        let reader = ActivityReader::new(log.clone(), Verifier::trusting([self.key.clone()]));
        following.spawn(reader.clone().follow(CancellationToken::new()));
        reader
    }

    fn draft(&self, time: Timestamp, activity: Activity) -> UnsignedEvent {
        let (tenant, fact) = (self.tenant.clone(), Fact::Activity(activity));
        UnsignedEvent { id: fresh_id(), tenant, time, actor: "identity".into(), cause: String::new(), fact }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

fn sign_in(session: &str, outcome: &str) -> Activity {
    Activity::SignIn(v1::SignInAttempt {
        session: session.into(),
        username: "alice".into(),
        outcome: outcome.into(),
        methods: vec!["pwd".into()],
        ..Default::default()
    })
}

fn ids(sessions: &[v1::Session]) -> Vec<&str> {
    sessions.iter().map(|it| it.id.as_str()).collect()
}
