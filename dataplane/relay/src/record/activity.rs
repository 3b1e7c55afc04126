//! Activity events on their way to the log: a bounded buffer that never makes a
//! user wait and counts what it had to drop.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use eventlog::{Activity, AppendError, EVENT_BYTES_MAX, Fact, Journal, REPEAT_WINDOW, Recording, UnsignedEvent};
use model::{TenantId, Timestamp};
use proto::{
    Message,
    v1::{Access, Accesses, ActivityGap},
};
use runtime::{Clock, clock::fresh_id, metrics::Counter, telemetry::chain};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::warn;

use crate::settings::WAITING_ACCESSES_MAX;

/// Accesses in one event; about 100 KiB.
const ACCESSES_MAX: usize = 256;
/// Half of what an event may have, for accesses of users with many groups.
const ACCESSES_BYTES_MAX: usize = EVENT_BYTES_MAX / 2;

/// How long the first of a batch waits for others. A SIEM hears of an access in
/// seconds, a signature and a write cost the same for one and for hundreds.
const GATHER: Duration = Duration::from_millis(20);

/// A relay that stops waits this long for its last accesses.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// What has no answer from the log is sent again this long, and then given up:
/// the log recognises it a little longer than that.
const SEND_TIMEOUT: Duration = REPEAT_WINDOW.saturating_sub(Duration::from_secs(20));
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Taken from the buffer at once; what accesses become fits one append.
const BATCH_MAX: usize = 4096;

type Happened = (TenantId, i64, Activity);

#[derive(Clone)]
pub(crate) struct ActivityLog {
    waiting: mpsc::Sender<Happened>,
    counts: Counts,
}

#[derive(Clone)]
struct Counts {
    /// Not said in the log yet.
    dropped: Arc<AtomicU64>,
    dropped_total: Counter,
    /// Not in the log yet; below zero for a moment when the writer is faster.
    pending: Arc<AtomicI64>,
}

impl ActivityLog {
    /// The buffer, and the task that empties it into the log.
    pub(crate) fn new(
        journal: Journal,
        writer: String,
        clock: Clock,
        dropped_total: Counter,
    ) -> (Self, impl Future<Output = ()>) {
        let (waiting, receiver) = mpsc::channel(WAITING_ACCESSES_MAX);
        let counts = Counts { dropped: Arc::default(), dropped_total, pending: Arc::default() };
        (Self { waiting, counts: counts.clone() }, write(journal, writer, clock, receiver, counts))
    }

    pub(crate) fn record(&self, tenant: &TenantId, now_ms: i64, activity: Activity) {
        match self.waiting.try_send((tenant.clone(), now_ms, activity)) {
            Ok(()) => {
                self.counts.pending.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                self.counts.dropped_total.inc();
            }
        }
    }

    /// What was recorded is in the log, or cannot get there in time.
    pub(crate) async fn flush(&self) {
        let flushed = async {
            while self.counts.pending.load(Ordering::Relaxed) > 0 {
                sleep(GATHER).await;
            }
        };
        if timeout(FLUSH_TIMEOUT, flushed).await.is_err() {
            warn!(accesses = self.counts.pending.load(Ordering::Relaxed), "the log is too slow for the last accesses");
        }
    }

    pub(crate) fn dropped_total(&self) -> u64 {
        self.counts.dropped_total.get()
    }
}

async fn write(journal: Journal, writer: String, clock: Clock, mut receiver: mpsc::Receiver<Happened>, counts: Counts) {
    let draft = |(tenant, time, activity)| UnsignedEvent {
        id: fresh_id(),
        tenant,
        time: Timestamp(time),
        actor: writer.clone(),
        cause: String::new(),
        fact: Fact::Activity(activity),
    };
    let mut batch = Vec::new();
    while receiver.recv_many(&mut batch, BATCH_MAX).await > 0 {
        // What is next will come soon, and then costs next to nothing.
        sleep(GATHER).await;
        while batch.len() < BATCH_MAX
            && let Ok(more) = receiver.try_recv()
        {
            batch.push(more);
        }
        let taken = batch.len();
        let mut drafts: Vec<UnsignedEvent> = together(batch.drain(..)).into_iter().map(draft).collect();
        let lost = counts.dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let gap = ActivityGap { writer: writer.clone(), dropped: lost };
            drafts.push(draft((TenantId::default_tenant(), clock.now_ms(), Activity::Gap(gap))));
        }
        let mut recording = journal.recording(&drafts);
        let sent = timeout(SEND_TIMEOUT, send(&journal, &mut recording)).await;
        let given_up = &drafts[drafts.len() - recording.remaining()..];
        if !given_up.is_empty() {
            let lost: u64 = given_up.iter().map(accesses).sum();
            let unsaid: u64 = given_up.iter().map(already_dropped).sum();
            let error = sent.ok().and_then(Result::err).map_or("no answer".to_owned(), |error| chain(&error));
            warn!(%error, lost, "activity is not recorded");
            counts.dropped.fetch_add(lost + unsaid, Ordering::Relaxed);
            counts.dropped_total.inc_by(lost);
        }
        counts.pending.fetch_sub(taken as i64, Ordering::Relaxed);
    }
}

/// Sends until the log answers. What it has already, it does not take again.
async fn send(journal: &Journal, recording: &mut Recording) -> Result<(), AppendError> {
    let mut tell_once = true;
    loop {
        match journal.send(recording).await {
            Err(AppendError::Unknown(error)) => {
                if std::mem::take(&mut tell_once) {
                    warn!(error = %chain(&error), "the log does not answer; activity is sent again");
                }
                sleep(RETRY_INTERVAL).await;
            }
            outcome => return outcome,
        }
    }
}

/// Accesses of a tenant go into one event, up to a limit; the rest stay their own.
fn together(batch: impl Iterator<Item = Happened>) -> Vec<Happened> {
    let mut events: Vec<Happened> = Vec::new();
    // The event of a tenant that is not full, and the bytes of the accesses in it.
    let mut open: BTreeMap<TenantId, (usize, usize)> = BTreeMap::new();
    for (tenant, time, activity) in batch {
        let Activity::Access(access) = activity else {
            events.push((tenant, time, activity));
            continue;
        };
        let access = Access { time_ms: time, ..access };
        let bytes = access.encoded_len();
        if let Some((at, filled)) = open.get_mut(&tenant)
            && let Some((_, _, Activity::Accesses(all))) = events.get_mut(*at)
            && all.accesses.len() < ACCESSES_MAX
            && *filled + bytes <= ACCESSES_BYTES_MAX
        {
            *filled += bytes;
            all.accesses.push(access);
        } else {
            open.insert(tenant.clone(), (events.len(), bytes));
            events.push((tenant, time, Activity::Accesses(Accesses { accesses: vec![access] })));
        }
    }
    events
}

fn accesses(draft: &UnsignedEvent) -> u64 {
    match &draft.fact {
        Fact::Activity(Activity::Accesses(all)) => all.accesses.len() as u64,
        Fact::Activity(Activity::Gap(_)) => 0,
        Fact::Activity(Activity::Access(_) | Activity::SignIn(_) | Activity::Connector(_)) | Fact::State(_) => 1,
    }
}

/// Drops that a gap was to tell of.
fn already_dropped(draft: &UnsignedEvent) -> u64 {
    match &draft.fact {
        Fact::Activity(Activity::Gap(gap)) => gap.dropped,
        Fact::Activity(_) | Fact::State(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(tenant: &str, n: i64) -> Happened {
        let access = Access { request_id: n.to_string(), ..Default::default() };
        (TenantId::parse(tenant).unwrap(), n, Activity::Access(access))
    }

    /// What is in each event: tenant and request ids.
    fn seen(events: &[Happened]) -> Vec<(String, Vec<String>)> {
        let ids = |activity: &Activity| match activity {
            Activity::Accesses(all) => all.accesses.iter().map(|it| it.request_id.clone()).collect(),
            Activity::SignIn(_) | Activity::Access(_) | Activity::Connector(_) | Activity::Gap(_) => vec![],
        };
        events.iter().map(|(tenant, _, activity)| (tenant.to_string(), ids(activity))).collect()
    }

    #[test]
    fn accesses_of_a_tenant_share_an_event_and_keep_their_times() {
        let gap = (TenantId::default_tenant(), 9, Activity::Gap(ActivityGap::default()));
        let batch = vec![access("a", 1), access("b", 2), gap, access("a", 3)];
        let events = together(batch.into_iter());
        let text = |it: &str| it.to_owned();
        assert_eq!(
            seen(&events),
            [
                (text("a"), vec![text("1"), text("3")]),
                (text("b"), vec![text("2")]),
                (TenantId::default_tenant().to_string(), vec![])
            ]
        );
        let Activity::Accesses(all) = &events[0].2 else { panic!("accesses") };
        assert_eq!(all.accesses.iter().map(|it| it.time_ms).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn an_event_has_its_limit() {
        let events = together((0..600).map(|n| access("a", n)));
        let sizes: Vec<usize> = seen(&events).iter().map(|(_, ids)| ids.len()).collect();
        assert_eq!(sizes, [256, 256, 88]);
        let large = |n| {
            let access = Access { user_agent: "x".repeat(ACCESSES_BYTES_MAX / 3), ..Default::default() };
            (TenantId::default_tenant(), n, Activity::Access(access))
        };
        let sizes: Vec<usize> = seen(&together((0..5).map(large))).iter().map(|(_, ids)| ids.len()).collect();
        assert_eq!(sizes, [2, 2, 1], "by bytes as well");
    }

    #[tokio::test]
    async fn what_the_log_refuses_is_counted_and_told_of() {
        let folder = std::env::temp_dir().join(format!("postern-relay-{}", fresh_id()));
        std::fs::create_dir_all(&folder).unwrap();
        let log = eventlog::EventLog::open(&folder.join("log.db")).unwrap();
        let signer = proto::signed::Signer::new(aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap());
        let journal = Journal::new(log.clone(), Arc::new(signer));
        let (activity, writing) = ActivityLog::new(journal, "relay".into(), Clock::default(), Counter::default());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(writing);
        let tenant = TenantId::default_tenant();
        let large = Access { user_agent: "x".repeat(eventlog::EVENT_BYTES_MAX), ..Default::default() };
        activity.record(&tenant, 1, Activity::Access(large));
        activity.flush().await;
        assert_eq!(activity.dropped_total(), 1);
        activity.record(&tenant, 2, Activity::Access(Access::default()));
        activity.flush().await;
        let entries = log.read(model::event::Stream::Activity, 0).await.unwrap();
        assert_eq!(entries.len(), 2, "the access, and the gap before it");
        assert_eq!(activity.dropped_total(), 1, "and nothing twice");
        drop(activity);
        tasks.join_all().await;
        std::fs::remove_dir_all(folder).unwrap();
    }
}
