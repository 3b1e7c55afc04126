//! The write path of every change: decide against a snapshot, append expecting its
//! position, decide again on a conflict. It exists once.
//!
//! A change of people is followed by an event in RISK, which makes relays ask
//! for fresh tokens (`follow_up`). It names the position of DIRECTORY to wait for,
//! so a token cannot be made from what was true before.
//!
//! Revocations have a lane of their own: RISK has a lock of its own, and nothing
//! that waits for CONFIG or DIRECTORY holds it. Every wait here has an end, and
//! what ends it is an error that says what to do.

use std::{
    panic::resume_unwind,
    sync::{Arc, PoisonError},
    time::Duration,
};

use eventlog::{APPEND_MAX, AppendError, Fact, Journal, Projection, UnsignedEvent, View};
use model::{
    Command, Event, Position, Refused, Snapshot, Step, Tenant, TenantId, Timestamp, decide_all, event::Stream,
};
use runtime::{Clock, clock::fresh_id};
use thiserror::Error;
use tokio::{
    sync::{Mutex, MutexGuard, watch},
    time::timeout,
};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, info};

use self::follow_up::Concerned;

mod follow_up;
#[cfg(test)]
mod tests;

/// Conflicts in a row before a change is given up.
const ATTEMPTS_MAX: usize = 16;
/// Changes of others that go first. A change takes milliseconds, a file of
/// thousands a second.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// For one append of `APPEND_MAX` events. The log itself gives up earlier, where
/// it can: past this nobody knows what became of them.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);
/// From the log back into the snapshot.
const FOLD_TIMEOUT: Duration = Duration::from_secs(10);
const APPLIED_TIMEOUT: Duration = Duration::from_secs(10);
const APPLIED_LOOK: Duration = Duration::from_millis(2);

#[derive(Debug, Error)]
pub enum WriteError {
    #[error(transparent)]
    Rejected(#[from] Refused),
    #[error("the configuration is at {found}, not at {expected}")]
    Moved { expected: Position, found: Position },
    #[error("too many conflicts")]
    Contended,
    #[error("an event is too large")]
    TooLarge,
    #[error("the disk of the log is full")]
    Full,
    #[error("the log does not answer")]
    Unknown(#[source] AppendError),
    #[error("nothing was recorded: this controller has stopped reading the log at {why}")]
    Stopped { why: Arc<str> },
    #[error("recorded at {position} of {}, but not read back", .stream.name())]
    Unread { stream: Stream, position: Position, why: Option<Arc<str>> },
    #[error("recorded at {position}, but not served by all relays")]
    NotServed { position: Position },
}

/// Who wishes something, why, and under which conditions.
#[derive(Clone, Debug)]
pub struct ChangeContext {
    pub tenant: TenantId,
    pub actor: String,
    pub cause: String,
    /// Only if CONFIG ends here.
    pub expected: Option<Position>,
    /// Answer when all relays serve it.
    pub wait_applied: bool,
}

impl ChangeContext {
    pub fn of_system(tenant: &TenantId, cause: &str) -> Self {
        let (actor, cause) = ("system".to_owned(), cause.to_owned());
        Self { tenant: tenant.clone(), actor, cause, expected: None, wait_applied: false }
    }
}

#[derive(Clone)]
pub struct Writer {
    lanes: Arc<Lanes>,
    tasks: TaskTracker,
}

impl Writer {
    pub fn new(journal: Journal, projection: Projection, clock: Clock) -> Self {
        let (changes, revocations) = (Mutex::default(), Mutex::default());
        Self { lanes: Arc::new(Lanes { journal, projection, clock, changes, revocations }), tasks: TaskTracker::new() }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.lanes.projection.snapshot()
    }

    pub fn now(&self) -> Timestamp {
        self.lanes.now()
    }

    /// Hash of the last event on a subject, as it was verified.
    pub(crate) fn last_on(&self, stream: Stream, subject: &str) -> Vec<u8> {
        let chain = self.lanes.projection.chain().lock().unwrap_or_else(PoisonError::into_inner);
        chain.next(stream, subject).1
    }

    /// Each state of what is known, from now on.
    pub fn views(&self) -> watch::Receiver<View> {
        self.lanes.projection.watch()
    }

    pub fn journal(&self) -> &Journal {
        &self.lanes.journal
    }

    /// Carries out commands as one change: all or none, and in no order that
    /// opens before it closes (see `model::batch`, also for when that takes more
    /// than one append). Returns the position of CONFIG that has all of them.
    ///
    /// It goes on to its end although whoever asked has hung up: an event may be
    /// there already, and what must follow it has to follow.
    pub async fn execute(&self, context: &ChangeContext, commands: Vec<Command>) -> Result<Position, WriteError> {
        let (lanes, context) = (self.lanes.clone(), context.clone());
        let task = async move { lanes.execute(&context, commands).await };
        match self.tasks.spawn(task.instrument(Span::current())).await {
            Ok(outcome) => outcome,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The process is stopping.
                Err(_) => Err(WriteError::Contended),
            },
        }
    }

    /// Carries out commands that were made from `snapshot`, if the log still ends
    /// there: what is on one stream is one append, or nothing.
    pub async fn execute_at(
        &self,
        context: &ChangeContext,
        snapshot: &Snapshot,
        commands: Vec<Command>,
    ) -> Result<(), WriteError> {
        self.lanes.execute_at(context, snapshot, commands).await
    }
}

struct Lanes {
    journal: Journal,
    projection: Projection,
    clock: Clock,
    /// One change of CONFIG and DIRECTORY at a time in this process: conflicts
    /// are for other processes.
    changes: Mutex<()>,
    /// One append to RISK at a time.
    revocations: Mutex<()>,
}

/// Why a change has to be decided again, or not.
enum Failure {
    Conflict { stream: Stream, at: Position },
    Final(WriteError),
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self::Final(error)
    }
}

impl Lanes {
    fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_ms())
    }

    async fn execute(&self, context: &ChangeContext, commands: Vec<Command>) -> Result<Position, WriteError> {
        let (revocations, changes): (Vec<_>, Vec<_>) = commands.into_iter().partition(|it| it.stream() == Stream::Risk);
        if !changes.is_empty() {
            let _turn = turn(&self.changes).await?;
            self.as_expected(context)?;
            self.change(context, &changes).await?;
        } else {
            self.as_expected(context)?;
        }
        self.revoke(context, &revocations).await?;
        let snapshot = self.projection.snapshot();
        if context.wait_applied {
            self.wait_applied(&snapshot).await?;
        }
        Ok(snapshot.config)
    }

    async fn execute_at(
        &self,
        context: &ChangeContext,
        snapshot: &Snapshot,
        commands: Vec<Command>,
    ) -> Result<(), WriteError> {
        let _turn = turn(&self.changes).await?;
        self.readable()?;
        let mut snapshot = Arc::new(snapshot.clone());
        for step in decide_all(&snapshot, &context.tenant, commands)? {
            let expected = snapshot.position(step.stream);
            snapshot = match self.append(context, &step, &snapshot).await {
                Ok(next) => next,
                Err(Failure::Conflict { stream, at }) => {
                    self.catch_up(stream, at).await?;
                    return Err(WriteError::Moved { expected, found: at });
                }
                Err(Failure::Final(error)) => return Err(error),
            };
        }
        Ok(())
    }

    /// What is known, unless it is known to be less than what there is. A change
    /// decided against it could never be recorded.
    fn readable(&self) -> Result<Arc<Snapshot>, WriteError> {
        let view = self.projection.view();
        match view.quarantine {
            Some(why) => Err(WriteError::Stopped { why }),
            None => Ok(view.snapshot),
        }
    }

    fn as_expected(&self, context: &ChangeContext) -> Result<(), WriteError> {
        let found = self.readable()?.config;
        match context.expected {
            Some(expected) if found != expected => Err(WriteError::Moved { expected, found }),
            _ => Ok(()),
        }
    }

    async fn change(&self, context: &ChangeContext, commands: &[Command]) -> Result<(), WriteError> {
        let mut unchanged = true;
        // Of every attempt: an earlier one may have recorded a part.
        let mut concerned = Vec::new();
        for _ in 0..ATTEMPTS_MAX {
            let snapshot = self.readable()?;
            let steps = decide_all(&snapshot, &context.tenant, commands.iter().cloned())?;
            let before = snapshot.tenant(&context.tenant).cloned().unwrap_or_default();
            concerned.push((Concerned::by(&before, commands, &steps), before));
            match self.carry_out(context, &concerned, snapshot, steps, &mut unchanged).await {
                Ok(()) => return Ok(()),
                Err(Failure::Conflict { stream, at }) => {
                    let snapshot = self.catch_up(stream, at).await?;
                    if let (Some(expected), true) = (context.expected, unchanged)
                        && snapshot.config != expected
                    {
                        return Err(WriteError::Moved { expected, found: snapshot.config });
                    }
                }
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        Err(WriteError::Contended)
    }

    /// Appends one step after the other. What the steps say of people is followed
    /// by RISK before anything opens. `unchanged` until CONFIG has an event of it.
    async fn carry_out(
        &self,
        context: &ChangeContext,
        concerned: &[(Concerned, Arc<Tenant>)],
        mut snapshot: Arc<Snapshot>,
        steps: Vec<Step>,
        unchanged: &mut bool,
    ) -> Result<(), Failure> {
        // Already so, perhaps; what must follow may still be missing.
        let mut followed = false;
        for step in steps {
            let in_parts = step.events.len() > APPEND_MAX;
            *unchanged &= step.stream != Stream::Config || !in_parts;
            snapshot = self.append(context, &step, &snapshot).await?;
            match step.stream {
                Stream::Config => *unchanged = false,
                Stream::Directory => {
                    self.follow_up(context, concerned, &snapshot).await?;
                    followed = true;
                }
                Stream::Risk | Stream::Activity => {}
            }
        }
        if !followed {
            self.follow_up(context, concerned, &snapshot).await?;
        }
        Ok(())
    }

    /// Appends a step, and waits until the snapshot has it.
    async fn append(
        &self,
        context: &ChangeContext,
        step: &Step,
        snapshot: &Snapshot,
    ) -> Result<Arc<Snapshot>, Failure> {
        let draft = |event: &Event| UnsignedEvent {
            id: fresh_id(),
            tenant: context.tenant.clone(),
            time: self.now(),
            actor: context.actor.clone(),
            cause: context.cause.clone(),
            fact: Fact::State(event.clone()),
        };
        let drafts: Vec<UnsignedEvent> = step.events.iter().map(draft).collect();
        let appends = drafts.len().div_ceil(APPEND_MAX) as u32;
        let expected = snapshot.position(step.stream);
        let appended = self.journal.append(step.stream, &drafts, self.projection.chain(), expected);
        let position = match timeout(APPEND_TIMEOUT * appends, appended).await {
            Ok(Ok(position)) => position,
            Ok(Err(AppendError::Conflict { at })) => return Err(Failure::Conflict { stream: step.stream, at }),
            Ok(Err(AppendError::TooLarge { .. })) => return Err(WriteError::TooLarge.into()),
            Ok(Err(AppendError::Full)) => return Err(WriteError::Full.into()),
            Ok(Err(unknown @ AppendError::Unknown(_))) => return Err(WriteError::Unknown(unknown).into()),
            Err(late) => return Err(WriteError::Unknown(AppendError::late(late)).into()),
        };
        let snapshot = self.reach(step.stream, position).await?;
        for event in &step.events {
            info!(subject = %event.subject().path(&context.tenant), position, "recorded");
        }
        Ok(snapshot)
    }

    /// Waits until what is in the log is in the snapshot.
    async fn reach(&self, stream: Stream, position: Position) -> Result<Arc<Snapshot>, WriteError> {
        let reached = timeout(FOLD_TIMEOUT, self.projection.reach(stream, position)).await;
        match reached {
            Ok(snapshot) if snapshot.position(stream) >= position => Ok(snapshot),
            Ok(_) | Err(_) => {
                let why = self.projection.view().quarantine;
                Err(WriteError::Unread { stream, position, why })
            }
        }
    }

    /// Reads what somebody else has recorded, to decide again.
    async fn catch_up(&self, stream: Stream, at: Position) -> Result<Arc<Snapshot>, WriteError> {
        let reached = self.reach(stream, at).await;
        let Err(WriteError::Unread { why, .. }) = &reached else { return reached };
        let late = || format!("event {at} of {}, which does not come", stream.name()).into();
        Err(WriteError::Stopped { why: why.clone().unwrap_or_else(late) })
    }

    /// The lane of RISK. Waits for nothing but the revocation before.
    async fn revoke(&self, context: &ChangeContext, revocations: &[Command]) -> Result<(), WriteError> {
        if revocations.is_empty() {
            return Ok(());
        }
        let _turn = turn(&self.revocations).await?;
        for _ in 0..ATTEMPTS_MAX {
            let mut snapshot = self.readable()?;
            let mut outcome = Ok(());
            for step in decide_all(&snapshot, &context.tenant, revocations.iter().cloned())? {
                match self.append(context, &step, &snapshot).await {
                    Ok(next) => snapshot = next,
                    Err(failure) => {
                        outcome = Err(failure);
                        break;
                    }
                }
            }
            match outcome {
                Ok(()) => return Ok(()),
                Err(Failure::Conflict { stream, at }) => self.catch_up(stream, at).await?,
                Err(Failure::Final(error)) => return Err(error),
            };
        }
        Err(WriteError::Contended)
    }

    async fn wait_applied(&self, snapshot: &Snapshot) -> Result<(), WriteError> {
        let log = self.journal.log();
        let served = async {
            loop {
                let relays = log.presences("relay");
                if relays.iter().all(|it| it.config >= snapshot.config && it.risk >= snapshot.risk) {
                    return;
                }
                tokio::time::sleep(APPLIED_LOOK).await;
            }
        };
        timeout(APPLIED_TIMEOUT, served).await.map_err(|_| WriteError::NotServed { position: snapshot.config })
    }
}

async fn turn(lane: &Mutex<()>) -> Result<MutexGuard<'_, ()>, WriteError> {
    timeout(TURN_TIMEOUT, lane.lock()).await.map_err(|_| WriteError::Contended)
}
