//! What the embedded log costs: durable appends, replay, cold start.
//!
//! `cargo bench -p eventlog` prints a line a figure. Appends are compared with
//! a bare file that is synced after each write, in the same run.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures time and stops when it cannot"
)]

use std::{io::Write, sync::Arc, time::Instant};

use aws_lc_rs::signature::Ed25519KeyPair;
use eventlog::{APPEND_MAX, EventLog, Fact, Journal, Projection, UnsignedEvent};
use model::{
    App, AppId, Assignment, ConnectorGroupId, Event, ExternalUrl, Origin, Principal, TenantId, Timestamp, UserId,
    app::Name, event::Stream,
};
use proto::signed::{Signer, Verifier};
use uuid::Uuid;

const SINGLE_APPENDS: u32 = 2_000;
const APPS: usize = 100_000;
const ASSIGNMENTS_PER_APP: usize = 10;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let folder = std::env::temp_dir().join(format!("postern-bench-{}", Uuid::now_v7().simple()));
    std::fs::create_dir_all(&folder).unwrap();
    runtime.block_on(async {
        let signer = Arc::new(Signer::new(Ed25519KeyPair::generate().unwrap()));
        let trust = Verifier::trusting([signer.public_key().to_vec()]);
        let bare = bare_file(&folder.join("bare"));
        appends(&folder, &signer, &trust, bare).await;
        cold_start(&folder, &signer, trust).await;
    });
    std::fs::remove_dir_all(folder).unwrap();
}

/// The yardstick: 512 bytes and fdatasync, as often as it goes.
fn bare_file(path: &std::path::Path) -> f64 {
    let mut file = std::fs::File::create(path).unwrap();
    let started = Instant::now();
    for _ in 0..SINGLE_APPENDS {
        file.write_all(&[1; 512]).unwrap();
        file.sync_data().unwrap();
    }
    let rate = f64::from(SINGLE_APPENDS) / started.elapsed().as_secs_f64();
    println!("bare file, 1 at a time       {rate:>12.0} events/s  (1.00)");
    rate
}

async fn appends(folder: &std::path::Path, signer: &Arc<Signer>, trust: &Verifier, bare: f64) {
    let log = EventLog::open(&folder.join("appends.db")).unwrap();
    let projection = Projection::start(log.clone(), &Stream::STATE, trust.clone(), None).await.unwrap();
    let journal = Journal::new(log.clone(), signer.clone());
    let started = Instant::now();
    let mut position = 0;
    for n in 0..SINGLE_APPENDS {
        let event = draft(assigned(n as usize, 0));
        position = journal.append(Stream::Config, &[event], projection.chain(), position).await.unwrap();
        projection.reach(Stream::Config, position).await;
    }
    let rate = f64::from(SINGLE_APPENDS) / started.elapsed().as_secs_f64();
    println!("durable, 1 at a time, folded {rate:>12.0} events/s  ({:.2})", rate / bare);
    let started = Instant::now();
    for _ in 0..SINGLE_APPENDS / 4 {
        let events: Vec<UnsignedEvent> = (0..32).map(|n| draft(assigned(n, 1))).collect();
        journal.record(&events).await.unwrap();
    }
    let rate = f64::from(SINGLE_APPENDS / 4 * 32) / started.elapsed().as_secs_f64();
    println!("durable, 32 at a time        {rate:>12.0} events/s  ({:.2})", rate / bare);
}

async fn cold_start(folder: &std::path::Path, signer: &Arc<Signer>, trust: Verifier) {
    let path = folder.join("large.db");
    let total = APPS * (1 + ASSIGNMENTS_PER_APP);
    {
        let log = EventLog::open(&path).unwrap();
        let projection = Projection::start(log.clone(), &[Stream::Config], trust.clone(), None).await.unwrap();
        let journal = Journal::new(log, signer.clone());
        let started = Instant::now();
        let mut position = 0;
        let mut batch = Vec::with_capacity(APPEND_MAX);
        for n in 0..total {
            let event = if n < APPS { published(n) } else { assigned(n % APPS, n / APPS) };
            batch.push(draft(event));
            if batch.len() == APPEND_MAX || n + 1 == total {
                position = journal.append(Stream::Config, &batch, projection.chain(), position).await.unwrap();
                projection.reach(Stream::Config, position).await;
                batch.clear();
            }
        }
        let checkpoints = position as usize - total;
        let rate = total as f64 / started.elapsed().as_secs_f64();
        println!("written, {checkpoints} checkpoints    {rate:>12.0} events/s");
    }
    wait_until_closed(&path);
    let log = EventLog::open(&path).unwrap();
    let started = Instant::now();
    let (mut after, mut count) = (0, 0usize);
    loop {
        let entries = log.read(Stream::Config, after).await.unwrap();
        let Some(last) = entries.last() else { break };
        after = last.position;
        count += entries.len();
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    println!("replay, bytes only           {rate:>12.0} events/s");
    let before = rss_mib();
    let started = Instant::now();
    let projection = Projection::start(log, &Stream::STATE, trust, None).await.unwrap();
    let took = started.elapsed().as_secs_f64();
    let rate = total as f64 / took;
    println!("replay, verified and folded  {rate:>12.0} events/s");
    let tenant = projection.snapshot().tenant(&TenantId::default_tenant()).unwrap().clone();
    let (apps, grown) = (tenant.apps.len(), rss_mib() - before);
    println!("cold start, {apps} apps and {} assignments: {took:.1} s, {grown} MiB", APPS * ASSIGNMENTS_PER_APP);
}

/// The follower of the log that was written ends a moment after it is dropped.
fn wait_until_closed(path: &std::path::Path) {
    while EventLog::open(path).is_err() {
        std::thread::yield_now();
    }
}

fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

fn id(n: usize) -> Uuid {
    Uuid::from_u128(n as u128 + 1)
}

fn assigned(app: usize, user: usize) -> Event {
    Event::put(Assignment { app: AppId(id(app)), principal: Principal::User(UserId(id(app * 1000 + user))) })
}

fn published(n: usize) -> Event {
    let name = Name::parse(&format!("app {n}")).unwrap();
    let external = ExternalUrl::parse(&format!("https://a{n}.example.com/")).unwrap();
    let origin = Origin::parse("http://10.0.0.1:8080").unwrap();
    Event::put(App::new(AppId(id(n)), name, external, origin, ConnectorGroupId(id(0))))
}

fn draft(event: Event) -> UnsignedEvent {
    UnsignedEvent {
        id: Uuid::now_v7(),
        tenant: TenantId::default_tenant(),
        time: Timestamp(1),
        actor: "system".into(),
        cause: "bench".into(),
        fact: Fact::State(event),
    }
}
