//! What a change waits for, and what it does not.

use std::{path::PathBuf, sync::Arc};

use aws_lc_rs::signature::Ed25519KeyPair;
use eventlog::{Append, EventLog};
use model::{Group, GroupId, Membership, User, app::Name, directory::Username, policy::Grant};
use proto::signed::{Signer, Verifier};

use super::*;

/// It waited for ever, and held the lock meanwhile.
#[tokio::test]
async fn a_stopped_controller_refuses_at_once_and_says_where_and_why() {
    let world = World::start().await;
    world.execute(vec![create_user(1)]).await.unwrap();
    world.stop_reading().await;
    for command in [create_user(2), sign_out(1)] {
        let refused = tokio::time::timeout(Duration::from_secs(1), world.execute(vec![command])).await;
        let Err(WriteError::Stopped { why }) = refused.expect("an answer at once") else { panic!("not refused") };
        assert!(why.starts_with("event 1 of risk: "), "{why}");
    }
    assert_eq!(world.log.head(Stream::Directory).await.unwrap(), 1, "nothing was recorded");
}

#[tokio::test]
async fn who_waits_for_a_position_is_told_that_the_reader_has_stopped() {
    let world = World::start().await;
    let waiting = world.writer.lanes.reach(Stream::Directory, 99);
    let (outcome, ()) = tokio::join!(waiting, world.stop_reading());
    assert!(matches!(outcome, Err(WriteError::Unread { why: Some(_), .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_revocation_does_not_wait_for_a_change() {
    let world = World::start().await;
    world.execute(vec![create_user(1)]).await.unwrap();
    let _somebody_changes = world.writer.lanes.changes.lock().await;
    world.execute(vec![sign_out(1)]).await.unwrap();
    assert_eq!(world.log.head(Stream::Risk).await.unwrap(), 1);
}

/// It wrote one event for each of them, and a revocation waited seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_large_group_is_few_events_and_no_revocation_waits() {
    for (people, events) in [(5_000, 1), (50_000, 2)] {
        let world = World::start().await;
        let (outer, inner) = (GroupId(id(1)), GroupId(id(2)));
        let mut commands = vec![create_group(outer), create_group(inner)];
        commands.extend((0..people).map(|n| create_user(n as u128 + 10)));
        let member = |n: usize| Principal::User(UserId(id(n as u128 + 10)));
        commands.extend((0..people).map(|n| Command::Put(Membership { group: inner, member: member(n) }.into())));
        world.execute(commands).await.unwrap();
        let before = world.log.head(Stream::Risk).await.unwrap();
        let directory = world.writer.snapshot().directory;

        let nest = vec![Command::Put(Membership { group: outer, member: Principal::Group(inner) }.into())];
        let clock = Clock::default();
        let began = clock.instant();
        let change = async {
            world.execute(nest).await.unwrap();
            clock.instant() - began
        };
        let revocations = async {
            let mut slowest = Duration::ZERO;
            for n in 0..20 {
                let began = clock.instant();
                world.execute(vec![sign_out(n + 10)]).await.unwrap();
                slowest = slowest.max(clock.instant() - began);
            }
            slowest
        };
        let (change, slowest) = tokio::join!(change, revocations);
        eprintln!("{people} people: the change took {change:?}, the slowest of 20 revocations {slowest:?}");
        // A checkpoint may have come between.
        let recorded = world.log.head(Stream::Risk).await.unwrap() - before - 20;
        assert!(recorded == events || recorded == events + 1, "{recorded} events for {people} people");
        let snapshot = world.writer.snapshot();
        let tenant = snapshot.tenant(&world.tenant).unwrap();
        assert!((0..people).all(|n| tenant.directory_for(UserId(id(n as u128 + 10))) > directory));
    }
}

/// A client that went away took the second of two events with it.
#[tokio::test]
async fn what_has_begun_goes_on_when_who_asked_hangs_up() {
    let world = World::start().await;
    world.execute(vec![create_user(1)]).await.unwrap();
    let disabled = Command::Change(User { disabled: true, ..user(1) }.into());
    let turn = world.writer.lanes.changes.lock().await;
    let asking = world.execute(vec![disabled]);
    assert!(tokio::time::timeout(Duration::from_millis(1), asking).await.is_err(), "it has to wait for its turn");
    drop(turn);
    let snapshot = world.writer.lanes.reach(Stream::Risk, 1).await.unwrap();
    assert!(snapshot.tenant(&world.tenant).unwrap().user_revocations.contains_key(&UserId(id(1))));
}

#[tokio::test]
async fn an_expected_position_is_for_all_commands_together() {
    let world = World::start().await;
    let policy = |n: u128| {
        let name = Name::parse(&format!("p{n}")).unwrap();
        Command::Create(model::Policy::new(model::PolicyId(id(n)), name, Grant::Block).into())
    };
    let expecting = |expected| Wish { expected: Some(expected), ..world.wish() };
    assert_eq!(world.writer.execute(&expecting(0), vec![policy(1), policy(2)]).await.unwrap(), 2);
    let late = world.writer.execute(&expecting(0), vec![policy(3), policy(4)]).await;
    assert!(matches!(late, Err(WriteError::Moved { expected: 0, found: 2 })), "{late:?}");
    assert_eq!(world.log.head(Stream::Config).await.unwrap(), 2);
}

// ---------------------------------------------------------------- helpers

struct World {
    writer: Writer,
    log: EventLog,
    tenant: TenantId,
    _folder: Folder,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

impl World {
    async fn start() -> Self {
        let folder = Folder(std::env::temp_dir().join(format!("postern-writer-{}", fresh_id())));
        std::fs::create_dir_all(&folder.0).unwrap();
        let log = EventLog::open(&folder.0.join("log.db")).unwrap();
        let signer = Arc::new(Signer::new(Ed25519KeyPair::generate().unwrap()));
        let trust = Verifier::trusting([signer.public_key().to_vec()]);
        let projection = Projection::start(log.clone(), &Stream::STATE, trust, None).await.unwrap();
        let writer = Writer::new(Journal::new(log.clone(), signer), projection, Clock::default());
        Self { writer, log, tenant: TenantId::default_tenant(), _folder: folder }
    }

    fn wish(&self) -> Wish {
        Wish::of_system(&self.tenant, "test")
    }

    async fn execute(&self, commands: Vec<Command>) -> Result<Position, WriteError> {
        self.writer.execute(&self.wish(), commands).await
    }

    /// An event nobody can believe makes the reader stop.
    async fn stop_reading(&self) {
        let forged = Append { subject: "postern.risk.default.user.1".into(), bytes: "forged".into() };
        self.log.append(Stream::Risk, vec![forged], None).await.unwrap();
        let mut views = self.writer.lanes.projection.watch();
        let stopped = views.wait_for(|view| view.quarantine.is_some());
        tokio::time::timeout(Duration::from_secs(10), stopped).await.unwrap().unwrap();
    }
}

fn id(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(n)
}

fn user(n: u128) -> User {
    User {
        id: UserId(id(n)),
        username: Username::parse(&format!("user{n}")).unwrap(),
        display_name: "".into(),
        email: "".into(),
        disabled: false,
        labels: Default::default(),
    }
}

fn create_user(n: u128) -> Command {
    Command::Create(user(n).into())
}

fn create_group(group: GroupId) -> Command {
    Command::Create(
        Group { id: group, name: Name::parse(&group.to_string()).unwrap(), labels: Default::default() }.into(),
    )
}

fn sign_out(n: u128) -> Command {
    Command::Put(UserRevocation { user: UserId(id(n)), sessions_before: Timestamp(n as i64), directory: 0 }.into())
}
