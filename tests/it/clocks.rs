//! A year in a minute, and clocks that are wrong.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use postern_tests::{
    cluster::Cluster,
    origin::Origin,
    processes::{Folder, Running, free_port},
    until,
    world::{PASSWORD, World, app, open_app},
};
use runtime::Clock;
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};

const DAY_S: i64 = 24 * 3600;
/// Less than a third of the shortest life in the story, which is 30 days.
const STEP_DAYS: i64 = 5;
const YEAR_DAYS: i64 = 365;

/// The clock of everybody in a story.
#[derive(Clone, Debug)]
pub(crate) struct Drill {
    file: PathBuf,
    ahead_s: Arc<AtomicI64>,
}

impl Drill {
    pub(crate) fn new(folder: &mut Folder) -> Self {
        let file = folder.0.join("clock");
        fs::write(&file, "0").unwrap();
        folder.1.push(("POSTERN_DRILL_CLOCK", file.display().to_string()));
        Self { file, ahead_s: Arc::default() }
    }

    pub(crate) fn advance(&self, seconds: i64) {
        let ahead_s = self.ahead_s.fetch_add(seconds, Ordering::SeqCst) + seconds;
        // Whole or not at all: it is read all the time.
        let draft = self.file.with_extension("draft");
        fs::write(&draft, (ahead_s * 1000).to_string()).unwrap();
        fs::rename(&draft, &self.file).unwrap();
    }

    pub(crate) fn ahead_s(&self) -> i64 {
        self.ahead_s.load(Ordering::SeqCst)
    }
}

impl TimeProvider for Drill {
    fn current_time(&self) -> Option<UnixTime> {
        Clock { skew_ms: self.ahead_s() * 1000 }.current_time()
    }
}

#[tokio::test]
async fn a_year_passes_with_no_restart_and_no_person() {
    let mut folder = Folder::default();
    let clock = Drill::new(&mut folder);
    let settings = format!("[controller]\nconnector_certificate_life_s = {}\n", 30 * DAY_S);
    let world = World::with_settings_in(folder, &settings).await;
    let origin = Origin::start().await;
    world.user("alice").await;
    world.publish_origin("wiki", &origin).await;
    world.publish(open_app("open", &origin.url()), &[]).await;
    for day in (STEP_DAYS..=YEAR_DAYS).step_by(STEP_DAYS as usize) {
        clock.advance(STEP_DAYS * DAY_S);
        // At once, and not when something has been renewed meanwhile.
        let listed = world.cli(&["app", "list"]);
        assert!(listed.status.success(), "day {day}: {}", String::from_utf8_lossy(&listed.stderr));
        let mut browser = world.browser().with_clock(Arc::new(clock.clone()));
        let open = browser.get(&world.url("open", "/")).await;
        assert_eq!(open.status, 200, "day {day}: {}", open.text());
        let signed_in = browser.sign_in(&world.url("wiki", "/"), "alice", PASSWORD).await;
        assert_eq!(signed_in.status, 200, "day {day}: {}", signed_in.text());
        until(&format!("day {day}: nothing ends within the next two steps"), async || {
            let left = endings(&world.probes).await;
            assert_eq!(left.len(), 5, "{left:?}");
            left.iter()
                .all(|(what, left_s)| *left_s > 2 * STEP_DAYS * DAY_S - 3600 || what == "authority")
                .then_some(())
        })
        .await;
    }
    assert!(world.cli(&["connector", "token", "--group", "default"]).status.success());
    let doctor = world.cli(&["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let faults: Vec<&str> = said.lines().filter(|line| line.starts_with("FAULT")).collect();
    // The HTTP library dates answers with the machine's clock, which is no part of the drill.
    assert!(matches!(faults[..], [one] if one.contains("clocks differ")), "{said}");
    for what in [
        "controller certificate: ",
        "public certificate: ",
        "authority: ",
        "owner credential: ",
        "connector local of default has links; certificate ends 20",
        "join tokens that nobody has used: 1; the last one ends at 20",
    ] {
        assert!(said.contains(what), "{said}");
    }
}

/// What ends, and in how many seconds.
async fn endings(probes: &str) -> Vec<(String, i64)> {
    let text = get(probes, "/metrics").await;
    let lines = text.lines().filter_map(|line| line.strip_prefix("postern_expires_seconds{what=\""));
    let pair = |line: &str| {
        let (what, left) = line.split_once("\"} ")?;
        Some((what.to_owned(), left.parse().ok()?))
    };
    lines.filter_map(pair).collect()
}

async fn get(probes: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(probes).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_relay_whose_clock_is_ahead_says_so_and_sends_nobody_round() {
    let mut cluster = with_alice().await;
    let mut drilled = Drilled::new(&cluster, "relay", "relay-0");
    cluster.relays[0].kill();
    cluster.relays[0] = drilled.start();
    says_so_and_sends_nobody_round(&cluster, &drilled).await;
}

#[tokio::test]
async fn identity_whose_clock_is_ahead_says_so_and_sends_nobody_round() {
    let mut cluster = with_alice().await;
    let mut drilled = Drilled::new(&cluster, "identity", "identity");
    cluster.identity.kill();
    cluster.identity = drilled.start();
    says_so_and_sends_nobody_round(&cluster, &drilled).await;
}

async fn with_alice() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.user("alice").await;
    cluster
}

/// A role of a cluster that starts ten minutes ahead of everybody else.
struct Drilled {
    command: Command,
    clock: PathBuf,
    probes: String,
    name: &'static str,
}

impl Drilled {
    fn new(cluster: &Cluster, role: &str, name: &'static str) -> Self {
        let clock = cluster.folder.0.join("drilled-clock");
        fs::write(&clock, "600000").unwrap();
        let probes = format!("127.0.0.1:{}", free_port());
        let mut command = cluster.folder.program("postern");
        command.args([role, "--settings"]).arg(cluster.folder.0.join(format!("{name}.toml")));
        command.env("POSTERN_DRILL_CLOCK", &clock).env("POSTERN_ADMIN_LISTEN", &probes);
        Self { command, clock, probes, name }
    }

    fn start(&mut self) -> Running {
        Running::start(self.name, &mut self.command)
    }
}

async fn says_so_and_sends_nobody_round(cluster: &Cluster, drilled: &Drilled) {
    let origin = Origin::start().await;
    cluster.publish(app("wiki", &origin.url())).await;
    let not_ready = "clock: not ready: 600 s ahead of the log's";
    until("it says that its clock is wrong", async || ready(&drilled.probes, not_ready).await).await;
    let url = cluster.url(0, "wiki", "/");
    let answer = until("identity is reached through the relay", async || {
        let answer = cluster.browser().sign_in(&url, "alice", PASSWORD).await;
        let away = ["sign_in_unavailable", "no_connector", "link_lost"].contains(&answer.refusal());
        (!away).then_some(answer)
    })
    .await;
    assert_eq!((answer.status.as_u16(), answer.refusal()), (503, "clock_wrong"), "{}", answer.text());
    assert!(answer.text().contains("clock"), "{}", answer.text());

    // The clock is set, and all is well.
    fs::write(&drilled.clock, "0").unwrap();
    until("it says that its clock is right", async || ready(&drilled.probes, "clock: ready: 0 s").await).await;
    let answer = cluster.browser().sign_in(&url, "alice", PASSWORD).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn ready(probes: &str, line: &str) -> Option<()> {
    // Not yet listening is not yet ready.
    tokio::net::TcpStream::connect(probes).await.ok()?;
    get(probes, "/readyz").await.contains(line).then_some(())
}
