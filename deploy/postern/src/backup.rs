//! `postern backup` and `postern restore`, for both backends of the log.
//!
//! What was recorded after the backup is lost, revocations among it. So a restore
//! ends all sessions, and says in the log that it happened: every role accepts the
//! shorter log knowingly, by the controller's signature.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use eventlog::{
    EventLog, Fact, Journal, Projection, UnsignedEvent,
    backup::{Ends, close_copy, copy},
};
use model::{Event, Snapshot, Timestamp, event::Stream, kinds::AllSessionsEnded};
use runtime::{Clock, clock::fresh_id};

use crate::{keys::RoleKeys, output::say, roles};

/// Which log.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The data folder of `postern up`.
    #[arg(long, default_value = "./postern-data")]
    data: PathBuf,
    /// For a log in NATS: the settings file of a controller.
    #[arg(long, conflicts_with = "data")]
    settings: Option<PathBuf>,
}

impl Place {
    fn log_file(&self) -> PathBuf {
        self.data.join("log.db")
    }

    fn own_keys(&self) -> PathBuf {
        self.data.join("keys/controller")
    }
}

pub async fn backup(file: &Path, place: &Place) -> anyhow::Result<()> {
    if file.exists() {
        bail!("{} exists; choose another name, or move it away", file.display());
    }
    let (log, keys) = match &place.settings {
        Some(settings) => roles::log_of(settings).await?,
        None => {
            let path = place.log_file();
            let log = EventLog::open_to_read(&path).with_context(|| format!("opening {}", path.display()))?;
            (log, place.own_keys())
        }
    };
    let trust = load_keys(&keys)?;
    let part = PathBuf::from(format!("{}.part", file.display()));
    private_file(&part)?;
    let target = EventLog::open_copy(&part).context("making the file")?;
    let ends = copy(&log, &target).await.with_context(|| format!("copying the log into {}", part.display()))?;
    drop(target);
    close_copy(&part)?;
    let snapshot = verified(&part, &trust).await?;
    fs::rename(&part, file).with_context(|| format!("naming {}", file.display()))?;
    say(&format!("{} is whole: {}; {}", file.display(), positions(&ends), contents(&snapshot)));
    say(&format!(
        "The keys are not in it. Keep a copy of {} apart from it: who has both can read and write everything.",
        keys.parent().unwrap_or(&keys).display()
    ));
    Ok(())
}

pub async fn restore(file: &Path, place: &Place, check: bool) -> anyhow::Result<()> {
    let source = EventLog::open_to_read(file).with_context(|| format!("opening {}", file.display()))?;
    let nats = match &place.settings {
        Some(settings) => Some(roles::log_of(settings).await?),
        None => None,
    };
    let keys = nats.as_ref().map_or_else(|| place.own_keys(), |(_, keys)| keys.clone());
    let keys = load_keys(&keys).context("the keys of the installation come first; they are not in a backup")?;
    let snapshot = verified(file, &keys).await?;
    say(&format!("{} is whole: {}", file.display(), contents(&snapshot)));
    if check {
        return Ok(());
    }
    match nats {
        Some((log, _)) => {
            let copied = copy(&source, &log).await;
            copied.context("copying into NATS; if the streams have events of another time, remove them first")?;
            finish(log, &keys).await?;
        }
        None => restore_file(file, place, &keys).await?,
    }
    say("Restored, as a new epoch of the log. Everybody has to sign in again. Now:");
    say("  1. start every role again, relays and identity too: a running one has stopped at the old log");
    say("  2. do again what was done after the backup: see \"what a restore does not bring back\" in docs/backup.md");
    Ok(())
}

async fn restore_file(file: &Path, place: &Place, keys: &RoleKeys) -> anyhow::Result<()> {
    let log = place.log_file();
    if EventLog::is_held(&log) {
        bail!("a process holds {}; stop it first", log.display());
    }
    for beside in ["db", "db-wal", "db-shm"] {
        let present = log.with_extension(beside);
        if present.exists() {
            bail!("{} is there; move log.db, log.db-wal and log.db-shm away first, and keep them", present.display());
        }
    }
    // Under another name until all of it is there.
    let part = log.with_extension("restoring");
    private_file(&part)?;
    fs::copy(file, &part).with_context(|| format!("copying to {}", part.display()))?;
    let copied = EventLog::open_copy(&part)?;
    finish(copied, keys).await?;
    close_copy(&part)?;
    fs::rename(&part, &log).with_context(|| format!("naming {}", log.display()))
}

/// Ends all sessions and begins a new epoch.
async fn finish(log: EventLog, keys: &RoleKeys) -> anyhow::Result<()> {
    let now = Timestamp(Clock::default().now_ms());
    let projection = Projection::start(log.clone(), &Stream::STATE, keys.trust.of_state()?, None).await?;
    let journal = Journal::new(log, keys.signer()?);
    let snapshot = projection.snapshot();
    let draft = |tenant: &model::TenantId| UnsignedEvent {
        id: fresh_id(),
        tenant: tenant.clone(),
        time: now,
        actor: "system".into(),
        cause: "restore".into(),
        fact: Fact::State(Event::put(AllSessionsEnded { before: now })),
    };
    let drafts: Vec<_> = snapshot.tenants.keys().map(draft).collect();
    let ended = journal.append(Stream::Risk, &drafts, projection.chain(), snapshot.risk).await;
    projection.reach(Stream::Risk, ended.context("ending all sessions")?).await;
    let epoch = u64::try_from(now.0).context("the clock stands before 1970")?;
    journal.record_restore(&projection, epoch, now).await.context("beginning a new epoch")
}

/// What is in a file, once its signatures and links have been checked.
async fn verified(file: &Path, keys: &RoleKeys) -> anyhow::Result<std::sync::Arc<Snapshot>> {
    let log = EventLog::open_to_read(file)?;
    let read = Projection::start(log, &Stream::STATE, keys.trust.of_state()?, None).await;
    let snapshot =
        read.with_context(|| format!("{} is not a whole log of this installation", file.display()))?.snapshot();
    if snapshot.tenants.is_empty() {
        bail!("there is nothing in {}", file.display());
    }
    Ok(snapshot)
}

fn load_keys(folder: &Path) -> anyhow::Result<RoleKeys> {
    RoleKeys::load(folder).with_context(|| format!("reading the keys in {}", folder.display()))
}

/// An empty file that only its owner can read, in place of what broke off there.
fn private_file(path: &Path) -> anyhow::Result<()> {
    let _none = fs::remove_file(path);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).with_context(|| format!("making {}", path.display()))
}

fn positions(ends: &Ends) -> String {
    let ends: Vec<_> = ends.iter().map(|(stream, end)| format!("{} to {end}", stream.name())).collect();
    ends.join(", ")
}

fn contents(snapshot: &Snapshot) -> String {
    let count = |of: fn(&model::Tenant) -> usize| snapshot.tenants.values().map(|it| of(it)).sum::<usize>();
    format!(
        "{} applications, {} policies, {} people, {} connectors",
        count(|it| it.apps.len()),
        count(|it| it.policies.iter().count()),
        count(|it| it.users.len()),
        count(|it| it.connectors.len()),
    )
}
