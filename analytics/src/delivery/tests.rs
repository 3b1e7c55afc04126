//! What a sink gets, whatever happens to it: everything, in order, and nothing
//! forged; and what one sink suffers no other does.

use std::{path::PathBuf, sync::Arc};

use aws_lc_rs::signature::Ed25519KeyPair;
use eventlog::{Activity, Append, Fact, Journal, UnsignedEvent};
use model::{TenantId, Timestamp};
use proto::{signed::Signer, v1::SignInAttempt};
use runtime::{clock::fresh_id, metrics::Metrics};
use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinSet};

use super::*;
use crate::{Settings, SinkSettings};

#[tokio::test]
async fn a_file_gets_everything_once_and_goes_on_where_it_was() {
    let mut world = World::new();
    world.sign_ins(0..700).await;
    world.start(world.with_file());
    world.until_lines(700).await;
    world.sign_ins(700..710).await;
    world.until_lines(710).await;
    world.stop().await;
    world.sign_ins(710..720).await;
    world.start(world.with_file());
    let users = world.until_lines(720).await;
    assert_eq!(users, (0..720).map(|n| format!("user-{n}")).collect::<Vec<_>>(), "in order, none twice");
    world.stop().await;
}

#[tokio::test]
async fn what_is_forged_or_unreadable_is_counted_and_stops_nothing() {
    let mut world = World::new();
    world.sign_ins(0..1).await;
    world.stranger.record(&[draft("mallory")]).await.unwrap();
    let noise = Append { subject: "postern.activity.default.signin".into(), bytes: b"noise".as_slice().into() };
    world.log.append(Stream::Activity, vec![noise], None).await.unwrap();
    world.sign_ins(1..2).await;
    world.start(world.with_file());
    assert_eq!(world.until_lines(2).await, ["user-0", "user-1"]);
    let refused = "postern_sink_refused_records_total{sink=\"file\",reason=\"untrusted\"} 2";
    world.until_metric(refused).await;
    world.until_metric("postern_sink_delivered_records_total{sink=\"file\"} 2").await;
    world.stop().await;
}

/// A folder stands where the file should be.
#[tokio::test]
async fn a_file_that_cannot_be_written_is_tried_again_and_loses_nothing() {
    let mut world = World::new();
    std::fs::create_dir(world.file()).unwrap();
    world.sign_ins(0..3).await;
    world.start(world.with_file());
    const RETRIES: &str = "postern_sink_retries_total{sink=\"file\"} ";
    let tried_again = |text: &str| text.split(RETRIES).nth(1).is_some_and(|it| !it.starts_with('0'));
    world.until(|world| tried_again(&world.metrics.text())).await;
    assert!(!world.cursor("").exists(), "nothing was acknowledged");
    std::fs::remove_dir(world.file()).unwrap();
    assert_eq!(world.until_lines(3).await.len(), 3);
    world.stop().await;
}

/// A receiver that is away, comes, takes some of it and hangs up, and comes again.
#[tokio::test]
async fn a_syslog_receiver_gets_everything_although_it_comes_and_goes() {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let sink = SinkSettings { name: "siem".into(), syslog: Some(address.clone()), ..Default::default() };
    let settings = Settings { sinks: vec![sink], ..world.with_file() };
    world.sign_ins(0..5).await;
    world.start(settings);
    // The file does not wait for the receiver.
    world.until_lines(5).await;
    let listener = TcpListener::bind(&address).await.unwrap();
    let (mut first, _) = listener.accept().await.unwrap();
    let mut heard = read_frames(&mut first, 5).await;
    world.until_metric("postern_sink_delivered_records_total{sink=\"siem\"} 5").await;
    drop(first);
    // It is noticed before anything more is written to it.
    world.sign_ins(5..9).await;
    let (mut second, _) = listener.accept().await.unwrap();
    heard.extend(read_frames(&mut second, 4).await);
    for (n, frame) in heard.iter().enumerate() {
        assert!(frame.contains(&format!("\"name\":\"user-{n}\"")), "{frame}");
    }
    world.until(|world| std::fs::read_to_string(world.cursor(".siem")).is_ok_and(|it| it == "9")).await;
    let stopped = tokio::join!(world.stop(), async {
        let mut rest = Vec::new();
        second.read_to_end(&mut rest).await.unwrap();
        drop(second);
        rest
    });
    assert_eq!(stopped.1, b"", "closed in order, with no half frame");
}

/// It would stop all that came after it.
#[tokio::test]
async fn a_record_the_sink_rejects_is_left_out_alone() {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let syslog = Some(listener.local_addr().unwrap().to_string());
    world.sign_ins(0..40).await;
    world.ours.record(&[draft(&"x".repeat(200_000))]).await.unwrap();
    world.sign_ins(40..80).await;
    let sink = SinkSettings { name: "siem".into(), syslog, format: Format::Cef, ..Default::default() };
    world.start(Settings { file: PathBuf::new(), sinks: vec![sink], cursor: world.cursor("") });
    let (mut receiver, _) = listener.accept().await.unwrap();
    let heard = read_frames(&mut receiver, 80).await;
    for (n, frame) in heard.iter().enumerate() {
        assert!(frame.contains(&format!(" suser=user-{n} ")), "{frame}");
    }
    world.until_metric("postern_sink_refused_records_total{sink=\"siem\",reason=\"rejected\"} 1").await;
    world.until(|world| std::fs::read_to_string(world.cursor(".siem")).is_ok_and(|it| it == "81")).await;
    drop(receiver);
    world.stop().await;
}

/// Its cursor is beyond the end of the log.
#[tokio::test]
async fn a_log_that_is_another_one_is_exported_from_its_beginning() {
    let mut world = World::new();
    std::fs::write(world.cursor(""), "1000").unwrap();
    world.sign_ins(0..3).await;
    world.start(world.with_file());
    assert_eq!(world.until_lines(3).await.len(), 3);
    world.stop().await;
}

struct World {
    folder: PathBuf,
    log: EventLog,
    ours: Journal,
    stranger: Journal,
    trust: Verifier,
    metrics: Metrics,
    stop: CancellationToken,
    running: JoinSet<()>,
}

impl World {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("postern-analytics-{}", fresh_id()));
        std::fs::create_dir_all(&folder).unwrap();
        let log = EventLog::open(&folder.join("log.db")).unwrap();
        let [ours, stranger] = [(); 2].map(|()| Signer::new(Ed25519KeyPair::generate().unwrap()));
        let trust = Verifier::trusting([ours.public_key().to_vec()]);
        let [ours, stranger] = [ours, stranger].map(|it| Journal::new(log.clone(), Arc::new(it)));
        let (metrics, stop, running) = (Metrics::default(), CancellationToken::new(), JoinSet::new());
        Self { folder, log, ours, stranger, trust, metrics, stop, running }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("lines")
    }

    fn cursor(&self, of: &str) -> PathBuf {
        self.folder.join(format!("cursor{of}"))
    }

    fn with_file(&self) -> Settings {
        Settings { file: self.file(), cursor: self.cursor(""), sinks: vec![] }
    }

    fn start(&mut self, settings: Settings) {
        (self.metrics, self.stop) = (Metrics::default(), CancellationToken::new());
        let (log, trust) = (self.log.clone(), self.trust.clone());
        let run = crate::run(settings, log, trust, self.metrics.clone(), self.stop.clone());
        self.running.spawn(async { run.await.unwrap() });
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap();
        }
    }

    async fn sign_ins(&self, numbers: std::ops::Range<usize>) {
        let drafts: Vec<_> = numbers.map(|n| draft(&format!("user-{n}"))).collect();
        self.ours.record(&drafts).await.unwrap();
    }

    /// Waits for so many lines, and returns whom each is about.
    async fn until_lines(&self, count: usize) -> Vec<String> {
        let lines = |world: &Self| std::fs::read_to_string(world.file()).unwrap_or_default();
        self.until(|world| lines(world).lines().count() >= count).await;
        let name = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["user"]["name"].clone();
        lines(self).lines().map(|line| name(line).as_str().unwrap().to_owned()).collect()
    }

    async fn until_metric(&self, line: &str) {
        self.until(|world| world.metrics.text().contains(line)).await;
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        waited.unwrap_or_else(|_| panic!("it never was so: {}", self.metrics.text()));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

fn draft(username: &str) -> UnsignedEvent {
    let attempt = SignInAttempt { username: username.into(), outcome: "success".into(), ..Default::default() };
    UnsignedEvent {
        id: fresh_id(),
        tenant: TenantId::default_tenant(),
        time: Timestamp(1_700_000_000_000),
        actor: "identity".into(),
        cause: String::new(),
        fact: Fact::Activity(Activity::SignIn(attempt)),
    }
}

/// Octet counting by the book: a length, a space, so many bytes.
async fn read_frames(connection: &mut tokio::net::TcpStream, count: usize) -> Vec<String> {
    let mut frames = Vec::new();
    while frames.len() < count {
        let mut length = String::new();
        loop {
            match connection.read_u8().await.unwrap() {
                b' ' => break,
                digit => length.push(digit.into()),
            }
        }
        let mut frame = vec![0; length.parse().unwrap()];
        connection.read_exact(&mut frame).await.unwrap();
        frames.push(String::from_utf8(frame).unwrap());
    }
    frames
}
