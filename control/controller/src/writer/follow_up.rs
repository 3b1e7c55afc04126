//! What follows a change of people: an event in RISK that names the position of
//! DIRECTORY their tokens must be made from.
//!
//! Who makes the change records it at once. A controller that is killed between
//! the two appends leaves it undone, and perhaps nobody repeats the change. So
//! every controller also reads DIRECTORY after itself and others, and records
//! what is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use eventlog::{AppendError, Fact, LogError, READ_MAX, View};
use model::{
    Command, Event, Position, Principal, Snapshot, Step, Tenant, TenantId, Timestamp, UserId,
    event::Stream,
    kind::Concern,
    kinds::{UserRevocation, concerns},
    risk::OUTDATED_LIFE_S,
};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{ChangeContext, Lanes, WriteError, Writer};

/// When DIRECTORY has been quiet this long, whoever changed it has had the time to
/// record what follows. Done twice it costs a few renewals.
const QUIET: Duration = Duration::from_secs(2);
/// And if it never is quiet, this is waited at most.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Writer {
    /// Records what must follow changes of people wherever it is missing, until `stop`.
    pub async fn follow_up_always(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(self.lanes.follow_up_always()).await;
    }
}

impl Lanes {
    async fn follow_up_always(&self) {
        let mut views = self.projection.watch();
        let mut done = None;
        loop {
            let end = self.projection.snapshot().directory;
            match self.follow_up_since(done, end).await {
                Ok(()) => done = Some(end),
                Err(error) => {
                    warn!(error = %runtime::telemetry::chain(&error), "tokens of people who changed are not outdated yet");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
            }
            if views.wait_for(|view| view.snapshot.directory > end).await.is_err() {
                return;
            }
            let _never_quiet = timeout(QUIET_WAIT_MAX, quiet(&mut views)).await;
            // A long change of this process records what follows at its end.
            drop(self.changes.lock().await);
        }
    }

    async fn follow_up_since(&self, done: Option<Position>, end: Position) -> Result<(), WriteError> {
        let after = match done {
            Some(done) => done,
            None => self.before_living_tokens(end).await.map_err(unanswered)?,
        };
        self.follow_up_to(after, end).await
    }

    /// A position of DIRECTORY, before which all changes are older than any token.
    async fn before_living_tokens(&self, end: Position) -> Result<Position, LogError> {
        let oldest = self.now().plus_seconds(-OUTDATED_LIFE_S);
        let mut after = end;
        while after > 0 {
            after = after.saturating_sub(READ_MAX as u64);
            let entries = self.journal.log().read(Stream::Directory, after).await?;
            let first = entries.first().and_then(Fact::unverified);
            if first.is_some_and(|(body, _)| Timestamp(body.time_ms) < oldest) {
                break;
            }
        }
        Ok(after)
    }

    /// Records what is missing of what must follow the changes in a part of DIRECTORY.
    pub(super) async fn follow_up_to(&self, mut after: Position, end: Position) -> Result<(), WriteError> {
        while after < end {
            let entries = self.journal.log().read(Stream::Directory, after).await.map_err(unanswered)?;
            let snapshot = self.readable()?;
            let mut missing: BTreeMap<TenantId, Concerned> = BTreeMap::new();
            for entry in entries.iter().filter(|it| it.position <= end) {
                let Some((body, Fact::State(event))) = Fact::unverified(entry) else { continue };
                let Some(id) = TenantId::parse(&body.tenant) else { continue };
                let Some(tenant) = snapshot.tenant(&id) else { continue };
                let is_new = body.version == 1;
                let concern = if is_new { concerns(&event, &Tenant::default()) } else { concerns(&event, tenant) };
                if !is_followed(tenant, concern, entry.position) {
                    missing.entry(id).or_default().add(concern);
                }
            }
            for (id, concerned) in missing {
                let tenant = snapshot.tenant(&id).cloned().unwrap_or_default();
                info!(tenant = %id, "a change of people was not followed in RISK; it is now");
                let context = ChangeContext::of_system(&id, "a change of people that nobody followed up");
                self.follow_up(&context, &[(concerned, tenant)], &snapshot).await?;
            }
            after = entries.last().map_or(end, |it| it.position);
        }
        Ok(())
    }

    /// Makes tokens of the people concerned stale.
    pub(super) async fn follow_up(
        &self,
        context: &ChangeContext,
        concerned: &[(Concerned, Arc<Tenant>)],
        snapshot: &Snapshot,
    ) -> Result<(), WriteError> {
        let Some(tenant) = snapshot.tenant(&context.tenant).filter(|_| concerned.iter().any(|(it, _)| !it.is_nobody()))
        else {
            return Ok(());
        };
        let (now, directory) = (self.now(), snapshot.directory);
        let changed: BTreeSet<UserId> = concerned.iter().flat_map(|(it, before)| it.users([before, tenant])).collect();
        let ended: BTreeSet<UserId> = concerned.iter().flat_map(|(it, _)| it.signed_out.iter().copied()).collect();
        let revoke = |user, sessions_before| Command::Put(UserRevocation { user, sessions_before, directory }.into());
        let mut revocations: Vec<Command> = ended.into_iter().map(|user| revoke(user, now)).collect();
        let stale: BTreeSet<UserId> =
            changed.into_iter().filter(|user| tenant.directory_for(*user) < directory).collect();
        match stale.first() {
            None => {}
            Some(user) if stale.len() == 1 => revocations.push(revoke(*user, Timestamp(0))),
            Some(_) => revocations.push(Command::OutdateTokens { users: stale, directory, now }),
        }
        self.revoke(context, &revocations).await
    }
}

async fn quiet(views: &mut watch::Receiver<View>) {
    loop {
        let end = views.borrow().snapshot.directory;
        match timeout(QUIET, views.wait_for(|view| view.snapshot.directory > end)).await {
            Ok(Ok(_)) => {}
            // Quiet, or the process is stopping.
            Err(_) | Ok(Err(_)) => return,
        }
    }
}

fn unanswered(error: LogError) -> WriteError {
    WriteError::Unknown(AppendError::Unknown(error))
}

fn is_followed(tenant: &Tenant, concern: Concern, position: Position) -> bool {
    let is_told = |user: &UserId| tenant.directory_for(*user) >= position;
    match concern {
        Concern::Nobody => true,
        Concern::SignedOut(user) => is_told(&user),
        Concern::Tokens(principal) => people([tenant], &principal).iter().all(is_told),
    }
}

/// Whom a change concerns, as far as tokens say something of them.
#[derive(Default)]
pub(super) struct Concerned {
    /// What tokens say of them may be wrong now.
    outdated: BTreeSet<Principal>,
    /// Whoever is signed in as one of them has to prove it again.
    signed_out: BTreeSet<UserId>,
}

impl Concerned {
    /// By the events of the change; and by commands that come to nothing because
    /// it is so already: what had to follow may be missing.
    pub(super) fn by(before: &Tenant, commands: &[Command], steps: &[Step]) -> Self {
        let mut concerned = Self::default();
        for event in steps.iter().flat_map(|step| &step.events) {
            concerned.add(concerns(event, before));
        }
        for command in commands {
            match command {
                Command::Change(object) => concerned.add(concerns(&Event::Put(object.clone()), before)),
                Command::Put(object) if before.get(&object.key()).is_some_and(|(it, _)| it == *object) => {
                    // A membership that is there already, perhaps.
                    if object.name().is_none() {
                        concerned.add(concerns(&Event::Put(object.clone()), before));
                    }
                }
                Command::Put(_)
                | Command::Create(_)
                | Command::Remove(_)
                | Command::Enrol { .. }
                | Command::RevokeConnector(_)
                | Command::RetireKey { .. }
                | Command::OutdateTokens { .. } => {}
            }
        }
        concerned
    }

    fn add(&mut self, concern: Concern) {
        match concern {
            Concern::Nobody => {}
            Concern::Tokens(principal) => _ = self.outdated.insert(principal),
            Concern::SignedOut(user) => _ = self.signed_out.insert(user),
        }
    }

    fn is_nobody(&self) -> bool {
        self.outdated.is_empty() && self.signed_out.is_empty()
    }

    /// Everybody whose tokens are out of date.
    fn users(&self, tenants: [&Tenant; 2]) -> BTreeSet<UserId> {
        self.outdated.iter().flat_map(|principal| people(tenants, principal)).collect()
    }
}

/// Who is meant in any of the tenants, through groups too.
fn people<const N: usize>(tenants: [&Tenant; N], principal: &Principal) -> BTreeSet<UserId> {
    match principal {
        Principal::User(user) => BTreeSet::from([*user]),
        Principal::Group(group) => tenants.iter().flat_map(|it| it.users_in(*group)).collect(),
        Principal::Everyone => BTreeSet::new(),
    }
}
