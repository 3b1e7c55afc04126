//! What users notice while an administrator publishes.
//!
//! `cargo bench -p postern-tests --bench publishing` prints users' p50 and p99 at
//! 1,000 requests a second over 300 links and 6,200 applications, in turns: alone,
//! while an administrator publishes as fast as controllers answer, and while one
//! makes groups of people, of which relays read nothing. The last says what the
//! controllers, the broker and the log take of this machine; compare the turns of
//! one run. Every role is a process of its own but the connectors, which share this one.
//! A number behind it is the seconds of a turn.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, measures time, and stops when it cannot go on"
)]

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use connector::{Connector, Settings, dial::Dialer, enrol};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use postern_tests::{
    browser::Browser,
    cluster::{Cluster, token},
    origin::Origin,
    until,
    world::{PASSWORD, app},
};
use proto::v1;
use serde_json::json;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use url::Url;

const APPLICATIONS: usize = 6_200;
/// Each has as many links as the relay has threads.
const CONNECTORS: usize = 150;
const RELAY_THREADS: usize = 2;
const CONNECTIONS: usize = 50;
const REQUESTS_PER_SECOND: usize = 1_000;
/// Administrators' calls on their way at once.
const PUBLISHING: usize = 8;
const ROUNDS: usize = 3;
const TURNS: [(&str, Option<Change>); 3] = [
    ("alone", None),
    ("while groups of people are made", Some(Change::People)),
    ("while applications are published", Some(Change::Application)),
];

#[derive(Clone, Copy)]
enum Change {
    Application,
    People,
}

#[tokio::main]
async fn main() {
    // Cargo adds arguments of its own.
    let seconds = std::env::args().find_map(|it| it.parse().ok()).unwrap_or(8);
    runtime::install_crypto();
    let environment = vec![
        ("POSTERN_RELAY__THREADS", RELAY_THREADS.to_string()),
        ("POSTERN_RELAY__CONNECTIONS_PER_SOURCE_MAX", "100000".to_owned()),
    ];
    let mut cluster = Cluster::start_with(environment).await;
    cluster.relays[1].kill();
    let origin = Origin::start().await;
    let alice = alice(&cluster, &origin).await;
    let stop = CancellationToken::new();
    let mut connectors = JoinSet::new();
    for n in 0..CONNECTORS {
        let connector = connector(&cluster, n).await;
        connectors.spawn(connector.run(stop.clone()));
    }
    let publisher = Arc::new(Publisher { cluster, origin: origin.url(), made: Default::default() });
    publisher.change_until(Change::Application, |publisher| publisher.made() >= APPLICATIONS).await;
    let url = Url::parse(&publisher.cluster.url(0, "wiki", "/")).unwrap();
    println!("{APPLICATIONS} applications, {} links, {REQUESTS_PER_SECOND} requests/s", CONNECTORS * RELAY_THREADS);
    println!("{:<34}{:>10}{:>10}{:>10}{:>10}", "turn", "changes/s", "p50 ms", "p99 ms", "failed");
    let mut p99: [Vec<f64>; TURNS.len()] = Default::default();
    for turn in 0..ROUNDS * TURNS.len() {
        let (what, change) = TURNS[turn % TURNS.len()];
        let end = Instant::now() + Duration::from_secs(seconds);
        let before = publisher.made();
        let mut changing = JoinSet::new();
        if let Some(change) = change {
            let publisher = publisher.clone();
            changing.spawn(async move { publisher.change_until(change, |_| Instant::now() >= end).await });
        }
        let (mut times, failed) = traffic(&alice, &url, end).await;
        changing.join_all().await;
        let rate = (publisher.made() - before) as f64 / seconds as f64;
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!("{what:<34}{rate:>10.0}{:>10.2}{:>10.2}{failed:>10}", at(0.5), at(0.99));
        p99[turn % TURNS.len()].push(at(0.99));
        sleep(Duration::from_secs(1)).await;
    }
    let medians = p99.map(|mut turns| {
        turns.sort_by(f64::total_cmp);
        turns[turns.len() / 2]
    });
    for ((what, _), median) in TURNS.iter().zip(medians) {
        println!("p99 {what}, median of turns: {median:.2} ms");
    }
    stop.cancel();
    connectors.join_all().await;
}

/// Requests come when they come: each is timed from when it was due.
async fn traffic(alice: &Browser, url: &Url, end: Instant) -> (Vec<Duration>, usize) {
    let every = Duration::from_secs(1) * CONNECTIONS as u32 / REQUESTS_PER_SECOND as u32;
    let mut users = JoinSet::new();
    for n in 0..CONNECTIONS {
        let (alice, url) = (alice.clone(), url.clone());
        users.spawn(async move {
            let cookie = alice.cookie_header(&url).unwrap();
            let (mut sender, connection) = handshake(TokioIo::new(alice.connect(&url).await)).await.unwrap();
            let mut driving = JoinSet::new();
            driving.spawn(connection);
            let first = Instant::now() + every * n as u32 / CONNECTIONS as u32;
            let mut due = interval_at(first, every);
            due.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let (mut times, mut failed) = (Vec::new(), 0);
            while Instant::now() < end {
                let due = due.tick().await;
                match get(&mut sender, &url, &cookie).await {
                    Some(200) => times.push(due.elapsed()),
                    Some(_) | None => failed += 1,
                }
            }
            (times, failed)
        });
    }
    let all = users.join_all().await;
    let failed = all.iter().map(|(_, failed)| failed).sum();
    (all.into_iter().flat_map(|(times, _)| times).collect(), failed)
}

async fn get(sender: &mut SendRequest<Empty<Bytes>>, url: &Url, cookie: &str) -> Option<u16> {
    let host = format!("{}:{}", url.host_str()?, url.port()?);
    let request =
        http::Request::get(url.path()).header("host", host).header("cookie", cookie).body(Empty::new()).ok()?;
    sender.ready().await.ok()?;
    let response = sender.send_request(request).await.ok()?;
    let status = response.status().as_u16();
    response.into_body().collect().await.ok()?;
    Some(status)
}

async fn alice(cluster: &Cluster, origin: &Origin) -> Browser {
    let user = v1::User { username: "alice".into(), ..Default::default() };
    let request = v1::CreateUserRequest { change: None, user: Some(user), password: PASSWORD.into() };
    cluster.admin.users().create(request).await.unwrap();
    let wiki = v1::PublishAppRequest { change: None, app: Some(app("wiki", &origin.url())), assign_caller: false };
    let wiki = cluster.admin.applications().publish(wiki).await.unwrap().into_inner().app.unwrap();
    let everyone = json!({ "app": wiki.id, "principal": "everyone" });
    cluster.admin.put(None, "assignment", everyone).await.unwrap();
    let url = cluster.url(0, "wiki", "/");
    until("alice is in", async || {
        let mut alice = cluster.browser();
        (alice.sign_in(&url, "alice", PASSWORD).await.status == 200).then_some(alice)
    })
    .await
}

/// One connector of a group of its own, in this process.
async fn connector(cluster: &Cluster, n: usize) -> Connector {
    cluster.admin.create(None, "connector-group", json!({ "name": group_name(n) })).await.unwrap();
    let invitation = token(&cluster.admin, &group_name(n)).await;
    let state: PathBuf = cluster.folder.0.join(format!("many-{n}"));
    let joined = until("a relay serves the group", async || {
        enrol::join(&invitation, &format!("many-{n}"), &state, &Dialer::default()).await.ok()
    })
    .await;
    drop(joined);
    Connector::prepare(&Settings { state, threads: 1, ..Settings::default() }).unwrap()
}

fn group_name(n: usize) -> String {
    format!("group-{n}")
}

struct Publisher {
    cluster: Cluster,
    origin: String,
    made: std::sync::atomic::AtomicUsize,
}

impl Publisher {
    fn made(&self) -> usize {
        self.made.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// As fast as controllers answer.
    async fn change_until(self: &Arc<Self>, change: Change, enough: impl Fn(&Self) -> bool) {
        let at_once = Arc::new(Semaphore::new(PUBLISHING));
        let mut calls = JoinSet::new();
        while !enough(self) {
            let place = at_once.clone().acquire_owned().await.unwrap();
            let publisher = self.clone();
            calls.spawn(async move {
                publisher.change_one(change).await;
                drop(place);
            });
            while calls.try_join_next().is_some() {}
        }
        calls.join_all().await;
    }

    async fn change_one(&self, change: Change) {
        let n = self.made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let refused = match change {
            Change::Application => {
                let connector_group = group_name(n % CONNECTORS);
                let app = v1::App { connector_group, ..app(&format!("more-{n}"), &self.origin) };
                let request = v1::PublishAppRequest { change: None, app: Some(app), assign_caller: false };
                self.cluster.admin.applications().publish(request).await.err()
            }
            Change::People => {
                let group = json!({ "name": format!("people-{n}") });
                self.cluster.admin.create(None, "group", group).await.err()
            }
        };
        // Two controllers write at once: whoever loses says so, and makes the next.
        if let Some(refused) = refused {
            sleep_until(Instant::now() + Duration::from_millis(1)).await;
            assert!(matches!(refused.code(), tonic::Code::Aborted | tonic::Code::Unavailable), "{refused}");
        }
    }
}
