//! A disk without room: a small one of this test's own.

use std::io::Write;

use super::*;

#[tokio::test]
async fn a_revocation_fits_on_a_full_disk_and_room_needs_no_restart() {
    let test = "a_revocation_fits_on_a_full_disk_and_room_needs_no_restart";
    let Some(disk) = SmallDisk::of_mib(24, test) else { return };
    let log = EventLog::open(&disk.path("log.db")).unwrap();
    // Somebody else's file takes what is left; then the log itself does.
    let ballast = disk.fill("ballast", 6);
    let mut written = 0;
    while append(&log, Stream::Activity, 100_000).await.is_ok() {
        written += 1;
        assert!(written < 1000, "the disk is larger than it should be");
    }
    assert!(written > 10, "{written}");
    for stream in [Stream::Config, Stream::Directory, Stream::Activity] {
        assert!(matches!(append(&log, stream, 100_000).await, Err(AppendError::Full)), "{}", stream.name());
    }
    for n in 1..=1000 {
        assert_eq!(append(&log, Stream::Risk, 500).await.unwrap(), n, "a revocation always fits");
    }
    assert!(matches!(append(&log, Stream::Config, 500).await, Err(AppendError::Full)), "the room is for revocations");
    assert_eq!(log.read(Stream::Risk, 0).await.unwrap().len(), 1000, "reading goes on");

    std::fs::remove_file(ballast).unwrap();
    let taken = async {
        while append(&log, Stream::Config, 500).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), taken).await.expect("events are taken again");
    assert!(disk.path("log.reserve").exists(), "and room is kept again");
    append(&log, Stream::Directory, 500).await.unwrap();

    // What was acknowledged is there for the next process.
    let heads = [log.head(Stream::Risk).await.unwrap(), log.head(Stream::Config).await.unwrap()];
    drop(log);
    wait_until(|| EventLog::open(&disk.path("log.db")).is_ok()).await;
    let again = EventLog::open(&disk.path("log.db")).unwrap();
    assert_eq!([again.head(Stream::Risk).await.unwrap(), again.head(Stream::Config).await.unwrap()], heads);
}

#[tokio::test]
async fn a_log_opens_on_a_full_disk_and_takes_revocations() {
    let test = "a_log_opens_on_a_full_disk_and_takes_revocations";
    let Some(disk) = SmallDisk::of_mib(12, test) else { return };
    {
        let log = EventLog::open(&disk.path("log.db")).unwrap();
        append(&log, Stream::Config, 500).await.unwrap();
    }
    std::fs::remove_file(disk.path("log.reserve")).unwrap();
    disk.fill("ballast", 9);
    wait_until(|| EventLog::open(&disk.path("log.db")).is_ok()).await;
    let log = EventLog::open(&disk.path("log.db")).unwrap();
    append(&log, Stream::Risk, 500).await.unwrap();
    assert!(matches!(append(&log, Stream::Config, 500).await, Err(AppendError::Full)));
}

async fn append(log: &EventLog, stream: Stream, bytes: usize) -> Result<Position, AppendError> {
    let subject = format!("postern.{}.default.test.{}", stream.name(), Uuid::now_v7());
    log.append(stream, vec![Append { subject, bytes: vec![7; bytes].into() }], None).await
}

struct SmallDisk(PathBuf);

impl SmallDisk {
    /// A file system in memory, in a mount namespace of a process of its own: the
    /// test starts itself again in there. It takes no right that a user does not
    /// have. `None` outside, when the test inside has passed.
    #[expect(clippy::disallowed_methods, reason = "how the inner test knows that it is inside")]
    fn of_mib(mib: usize, test: &str) -> Option<Self> {
        const INSIDE: &str = "POSTERN_TEST_SMALL_DISK";
        if let Ok(path) = std::env::var(INSIDE) {
            return Some(Self(path.into()));
        }
        let folder = Folder::new();
        let script = format!("mount -t tmpfs -o size={mib}m tmpfs \"${INSIDE}\" && exec \"$@\"");
        let passed = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", &script, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &format!("tests::full::{test}"), "--nocapture"])
            .env(INSIDE, &folder.0)
            .status()
            .expect("unshare (util-linux) makes the small disk");
        assert!(passed.success(), "the test failed inside, or nobody may mount here");
        None
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// As much of so many MiB as there is room for.
    fn fill(&self, name: &str, mib: usize) -> PathBuf {
        let path = self.path(name);
        let mut file = std::fs::File::create(&path).unwrap();
        for _ in 0..mib {
            let _full = file.write_all(&vec![1; 1024 * 1024]);
        }
        path
    }
}

/// The limits of CONFIG, DIRECTORY and ACTIVITY leave RISK what is left of the
/// server's store.
#[tokio::test]
async fn a_revocation_fits_beside_streams_that_are_full() {
    let nats = Nats::with_store(64 * MIB).await;
    let settings = jetstream::Settings {
        url: nats.url.clone(),
        create: true,
        activity_mib_max: 16,
        state_mib_max: 16,
        ..Default::default()
    };
    let log = EventLog::connect(&settings).await.unwrap();
    for stream in [Stream::Config, Stream::Directory] {
        let mut written = 0;
        let refused = loop {
            match append(&log, stream, 200_000).await {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
            assert!(written < 1000, "no limit");
        };
        assert!(matches!(refused, AppendError::Full), "{}: {refused:?}", stream.name());
        let batch = (0..2)
            .map(|n| Append { subject: format!("postern.{}.a.b.{n}", stream.name()), bytes: vec![7; 200_000].into() });
        let refused = log.append(stream, batch.collect(), None).await;
        assert!(matches!(refused, Err(AppendError::Full)), "{}: {refused:?}", stream.name());
    }
    for _ in 0..200 {
        append(&log, Stream::Activity, 200_000).await.expect("old activity makes room for new");
    }
    for n in 1..=1000 {
        assert_eq!(append(&log, Stream::Risk, 500).await.unwrap(), n);
    }
    // More room is given while everything runs.
    let client = async_nats::connect(&nats.url).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let mut config = context.get_stream("CONFIG").await.unwrap().cached_info().config.clone();
    config.max_bytes = (20 * MIB) as i64;
    context.update_stream(config).await.unwrap();
    append(&log, Stream::Config, 500).await.unwrap();
}

const MIB: u64 = 1024 * 1024;
