//! The ritual of every change: decide against a snapshot, append expecting its
//! position, decide again on a conflict. It exists once.
//!
//! A change of a person is followed by an event in RISK, which makes relays ask
//! for a fresh token. It names the position of DIRECTORY to wait for, so the
//! token cannot be made from what was true before.

use std::{collections::BTreeSet, time::Duration};

use eventlog::{AppendError, Draft, Fact, Journal, Projection};
use model::{
    Command, Event, Position, Principal, Rejection, Snapshot, TenantId, Timestamp, UserId, decide, event::Stream,
    risk::UserRevocation,
};
use runtime::{Clock, clock::fresh_id};
use thiserror::Error;
use tokio::{sync::Mutex, time::timeout};
use tracing::info;

/// Conflicts in a row before a change is given up.
const ATTEMPTS_MAX: usize = 16;
const APPLIED_TIMEOUT: Duration = Duration::from_secs(10);
const APPLIED_LOOK: Duration = Duration::from_millis(2);

#[derive(Debug, Error)]
pub enum WriteError {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error("the configuration is at {found}, not at {expected}")]
    Moved { expected: Position, found: Position },
    #[error("too many conflicts")]
    Contended,
    #[error("an event is too large")]
    TooLarge,
    #[error("the log does not answer")]
    Unknown(#[source] AppendError),
    #[error("recorded at {position}, but not served by all relays")]
    NotServed { position: Position },
}

/// Who wishes something, why, and under which conditions.
#[derive(Clone, Debug)]
pub struct Wish {
    pub tenant: TenantId,
    pub actor: String,
    pub cause: String,
    /// Only if CONFIG ends here.
    pub expected: Option<Position>,
    /// Answer when all relays serve it.
    pub wait_applied: bool,
}

impl Wish {
    pub fn of_system(tenant: &TenantId, cause: &str) -> Self {
        let (actor, cause) = ("system".to_owned(), cause.to_owned());
        Self { tenant: tenant.clone(), actor, cause, expected: None, wait_applied: false }
    }
}

pub struct Writer {
    journal: Journal,
    projection: Projection,
    clock: Clock,
    /// One change at a time in this process: conflicts are for other processes.
    turn: Mutex<()>,
}

impl Writer {
    pub fn new(journal: Journal, projection: Projection, clock: Clock) -> Self {
        Self { journal, projection, clock, turn: Mutex::new(()) }
    }

    pub fn snapshot(&self) -> std::sync::Arc<Snapshot> {
        self.projection.snapshot()
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_ms())
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Carries out commands one after the other; each is a change of its own.
    /// Returns the position of CONFIG that has all of them.
    pub async fn execute(&self, wish: &Wish, commands: Vec<Command>) -> Result<Position, WriteError> {
        let turn = self.turn.lock().await;
        if let Some(expected) = wish.expected {
            let found = self.projection.snapshot().config;
            if found != expected {
                return Err(WriteError::Moved { expected, found });
            }
        }
        for command in commands {
            self.carry_out(wish, command).await?;
        }
        drop(turn);
        let snapshot = self.projection.snapshot();
        if wish.wait_applied {
            self.wait_applied(&snapshot).await?;
        }
        Ok(snapshot.config)
    }

    async fn carry_out(&self, wish: &Wish, command: Command) -> Result<(), WriteError> {
        for _ in 0..ATTEMPTS_MAX {
            let snapshot = self.projection.snapshot();
            let events = decide(&snapshot, &wish.tenant, command.clone())?;
            let Some(stream) = events.first().map(|event| event.subject().stream) else {
                // Already so. What must follow may still be missing.
                return self.follow_up(wish, &snapshot, &consequence(&command), snapshot.directory).await;
            };
            match self.append(wish, stream, &events, snapshot.position(stream)).await {
                Ok(position) => {
                    let snapshot = self.projection.reach(stream, position).await;
                    for event in &events {
                        info!(subject = %event.subject().path(&wish.tenant), position, "recorded");
                    }
                    return self.follow_up(wish, &snapshot, &consequence(&command), position).await;
                }
                Err(AppendError::Conflict { at }) => {
                    self.projection.reach(stream, at).await;
                }
                Err(AppendError::TooLarge { .. }) => return Err(WriteError::TooLarge),
                Err(unknown @ AppendError::Unknown(_)) => return Err(WriteError::Unknown(unknown)),
            }
        }
        Err(WriteError::Contended)
    }

    async fn append(
        &self,
        wish: &Wish,
        stream: Stream,
        events: &[Event],
        expected: Position,
    ) -> Result<Position, AppendError> {
        let drafts: Vec<Draft> = events
            .iter()
            .map(|event| Draft {
                id: fresh_id(),
                tenant: wish.tenant.clone(),
                time: self.now(),
                actor: wish.actor.clone(),
                cause: wish.cause.clone(),
                fact: Fact::State(event.clone()),
            })
            .collect();
        self.journal.append(stream, &drafts, self.projection.chain(), expected).await
    }

    /// Makes tokens of the people concerned stale.
    async fn follow_up(
        &self,
        wish: &Wish,
        snapshot: &Snapshot,
        consequence: &Consequence,
        directory: Position,
    ) -> Result<(), WriteError> {
        let Some(tenant) = snapshot.tenant(&wish.tenant) else { return Ok(()) };
        let (users, sessions_before) = match consequence {
            Consequence::Nothing => return Ok(()),
            Consequence::Changed(Principal::User(user)) => (BTreeSet::from([*user]), Timestamp(0)),
            Consequence::Changed(Principal::Group(group)) => (tenant.users_in(*group), Timestamp(0)),
            Consequence::Changed(Principal::Everyone) => return Ok(()),
            Consequence::SignedOut(user) => (BTreeSet::from([*user]), self.now()),
        };
        let stale = |user: &UserId| {
            let before = tenant.revoked_users.get(user);
            sessions_before > Timestamp(0) || before.is_none_or(|it| it.directory < directory)
        };
        for user in users.into_iter().filter(stale) {
            let revocation = UserRevocation { user, sessions_before, directory };
            Box::pin(self.carry_out(wish, Command::RevokeUser(revocation))).await?;
        }
        Ok(())
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

enum Consequence {
    Nothing,
    /// What tokens say of them may be wrong now.
    Changed(Principal),
    /// Whoever is signed in as this user has to prove it again.
    SignedOut(UserId),
}

fn consequence(command: &Command) -> Consequence {
    match command {
        Command::AddMember { member, .. } | Command::RemoveMember { member, .. } => Consequence::Changed(*member),
        Command::RemoveGroup(group) => Consequence::Changed(Principal::Group(*group)),
        Command::ChangeUser(user) if user.disabled => Consequence::SignedOut(user.id),
        Command::ChangeUser(user) => Consequence::Changed(Principal::User(user.id)),
        Command::RemoveUser(user) => Consequence::SignedOut(*user),
        Command::SetTenant { .. }
        | Command::SetBranding(_)
        | Command::PublishApp(_)
        | Command::ChangeApp(_)
        | Command::RetireApp(_)
        | Command::CreateConnectorGroup(_)
        | Command::ChangeConnectorGroup(_)
        | Command::RetireConnectorGroup(_)
        | Command::IssueJoinToken(_)
        | Command::EnrolConnector { .. }
        | Command::RevokeConnector(_)
        | Command::Assign { .. }
        | Command::Unassign { .. }
        | Command::CreatePolicy(_)
        | Command::ChangePolicy(_)
        | Command::RemovePolicy(_)
        | Command::SetRole { .. }
        | Command::PublishKey(_)
        | Command::RetireKey { .. }
        | Command::InstallCertificate(_)
        | Command::RemoveCertificate(_)
        | Command::CreateUser(_)
        | Command::SetCredentials(_)
        | Command::CreateGroup(_)
        | Command::ChangeGroup(_)
        | Command::RevokeSession(_)
        | Command::RevokeUser(_)
        | Command::OutdateTokens { .. } => Consequence::Nothing,
    }
}
