//! What a change waits for, and what it does not.

use std::{path::PathBuf, sync::Arc};

use aws_lc_rs::signature::Ed25519KeyPair;
use eventlog::{Append, EventLog};
use model::{
    Group, GroupId, Kind, Membership, ObjectKey, Principal, User, UserId, app::Name, directory::Username,
    kinds::UserRevocation, policy::Grant,
};
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
async fn a_change_of_a_group_of_50_000_is_one_event_and_no_revocation_waits() {
    const PEOPLE: u128 = 50_000;
    let world = World::start().await;
    let (outer, inner) = (GroupId(id(1)), GroupId(id(2)));
    let people = 10..PEOPLE + 10;
    let member = |n: u128| Command::Put(Membership { group: inner, member: Principal::User(UserId(id(n))) }.into());
    let mut commands = vec![create_group(outer), create_group(inner), create_user(5)];
    commands.extend(people.clone().map(create_user));
    commands.extend(people.clone().map(member));
    world.execute(commands).await.unwrap();

    let nesting = Membership { group: outer, member: Principal::Group(inner) };
    let renamed = Group { id: inner, name: Name::parse("renamed").unwrap(), labels: Default::default() };
    let changes = [
        ("rename", Command::Change(renamed.into()), (1, 0)),
        ("add one member", member(5), (1, 1)),
        ("put into another group", Command::Put(nesting.into()), (1, 1)),
        ("take out of it again", Command::Remove(ObjectKey::Membership(nesting.key())), (1, 1)),
        ("remove", Command::Remove(ObjectKey::Group(inner)), (1, 1)),
    ];
    for (what, command, (in_directory, in_risk)) in changes {
        let before = world.heads().await;
        let clock = Clock::default();
        let began = clock.instant();
        let change = async {
            world.execute(vec![command]).await.unwrap();
            clock.instant() - began
        };
        let revocations = async {
            let mut slowest = Duration::ZERO;
            for n in 0..20 {
                let began = clock.instant();
                world.execute(vec![sign_out(before.1 as u128 + n + 10)]).await.unwrap();
                slowest = slowest.max(clock.instant() - began);
            }
            slowest
        };
        let (change, slowest) = tokio::join!(change, revocations);
        let after = world.heads().await;
        let (directory, risk) = (after.0 - before.0, after.1 - before.1 - 20);
        eprintln!(
            "{what}: {directory} in DIRECTORY, {risk} in RISK; it took {change:?}, the slowest of 20 revocations {slowest:?}"
        );
        // A checkpoint may have come between.
        assert!((in_directory..=in_directory + 1).contains(&directory), "{what}: {directory}");
        assert!((in_risk..=in_risk + 1).contains(&risk), "{what}: {risk}");
        if in_risk > 0 && what != "add one member" {
            let snapshot = world.writer.snapshot();
            let tenant = snapshot.tenant(&world.tenant).unwrap();
            assert!(people.clone().all(|n| tenant.directory_for(UserId(id(n))) > before.0), "{what}");
        }
    }
}

/// Tokens named the group until they ended by themselves: a repeated removal found
/// nothing to remove, and so nobody whom it concerned.
#[tokio::test]
async fn what_a_killed_controller_left_between_two_streams_is_done_by_the_next() {
    let (outer, inner) = (GroupId(id(100)), GroupId(id(101)));
    let member = |group, member| Membership { group, member };
    let [nested, alone] = [member(outer, Principal::Group(inner)), member(inner, Principal::User(UserId(id(1))))];
    let changes = [
        Command::Remove(ObjectKey::Group(outer)),
        Command::Remove(ObjectKey::Group(inner)),
        Command::Remove(ObjectKey::Membership(nested.key())),
        Command::Remove(ObjectKey::Membership(alone.key())),
        Command::Remove(ObjectKey::User(UserId(id(1)))),
        Command::Change(User { disabled: true, ..user(1) }.into()),
        Command::Change(User { email: "new@example.com".into(), ..user(1) }.into()),
    ];
    for change in changes {
        let world = World::start().await;
        let groups = vec![create_group(outer), create_group(inner), Command::Put(nested.into())];
        world.execute(vec![create_user(1), create_user(2)]).await.unwrap();
        world.execute(groups).await.unwrap();
        world.execute(vec![Command::Put(alone.into())]).await.unwrap();
        let snapshot = world.writer.snapshot();
        let steps = decide_all(&snapshot, &world.tenant, [change.clone()]).unwrap();
        let [step] = &steps[..] else { panic!("one step: {steps:?}") };
        // Killed after this append.
        let Ok(killed) = world.writer.lanes.append(&world.context(), step, &snapshot).await else {
            panic!("{change:?}")
        };

        let next = world.controller().await;
        let _answered = next.execute(&world.context(), vec![change.clone()]).await;
        next.lanes.follow_up_to(0, killed.directory).await.unwrap();
        let snapshot = next.snapshot();
        let tenant = snapshot.tenant(&world.tenant).unwrap();
        assert!(tenant.directory_for(UserId(id(1))) >= killed.directory, "{change:?}");
        assert_eq!(tenant.directory_for(UserId(id(2))), 0, "nobody else is asked for a new token");
        let end = world.log.head(Stream::Risk).await.unwrap();
        next.lanes.follow_up_to(0, killed.directory).await.unwrap();
        assert_eq!(world.log.head(Stream::Risk).await.unwrap(), end, "what is followed is not followed again");
    }
}

/// Nobody repeats the change, and the one who made it never comes back.
#[tokio::test]
async fn another_controller_that_runs_follows_up_by_itself() {
    let world = World::start().await;
    world.execute(vec![create_user(1)]).await.unwrap();
    let next = Arc::new(world.controller().await);
    let stop = tokio_util::sync::CancellationToken::new();
    let following = next.clone().follow_up_always(stop.clone());
    let changing = async {
        for email in ["a@example.com", "b@example.com"] {
            let snapshot = world.writer.snapshot();
            let change = Command::Change(User { email: email.into(), ..user(1) }.into());
            let steps = decide_all(&snapshot, &world.tenant, [change]).unwrap();
            let Ok(killed) = world.writer.lanes.append(&world.context(), &steps[0], &snapshot).await else {
                panic!("{email}")
            };
            let mut views = next.views();
            let is_told = |view: &View| {
                let tenant = view.snapshot.tenant(&world.tenant).unwrap();
                tenant.directory_for(UserId(id(1))) >= killed.directory
            };
            tokio::time::timeout(Duration::from_secs(20), views.wait_for(is_told)).await.expect(email).unwrap();
        }
        stop.cancel();
    };
    tokio::join!(following, changing);
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
    let expecting = |expected| ChangeContext { expected: Some(expected), ..world.context() };
    assert_eq!(world.writer.execute(&expecting(0), vec![policy(1), policy(2)]).await.unwrap(), 2);
    let late = world.writer.execute(&expecting(0), vec![policy(3), policy(4)]).await;
    assert!(matches!(late, Err(WriteError::Moved { expected: 0, found: 2 })), "{late:?}");
    assert_eq!(world.log.head(Stream::Config).await.unwrap(), 2);
}

// ---------------------------------------------------------------- helpers

struct World {
    writer: Writer,
    log: EventLog,
    signer: Arc<Signer>,
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
        let writer = Writer::new(Journal::new(log.clone(), signer.clone()), projection, Clock::default());
        Self { writer, log, signer, tenant: TenantId::default_tenant(), _folder: folder }
    }

    async fn heads(&self) -> (Position, Position) {
        (self.log.head(Stream::Directory).await.unwrap(), self.log.head(Stream::Risk).await.unwrap())
    }

    /// Another one over the same log.
    async fn controller(&self) -> Writer {
        let trust = Verifier::trusting([self.signer.public_key().to_vec()]);
        let projection = Projection::start(self.log.clone(), &Stream::STATE, trust, None).await.unwrap();
        Writer::new(Journal::new(self.log.clone(), self.signer.clone()), projection, Clock::default())
    }

    fn context(&self) -> ChangeContext {
        ChangeContext::of_system(&self.tenant, "test")
    }

    async fn execute(&self, commands: Vec<Command>) -> Result<Position, WriteError> {
        self.writer.execute(&self.context(), commands).await
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
