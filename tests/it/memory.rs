//! What processes keep after a rush.

use std::sync::Arc;

use model::{
    App, AppId, Assignment, Connector, ConnectorGroupId, ConnectorId, Credential, Event, ExternalUrl, Group, GroupId,
    JoinTokenId, Membership, Origin, Principal, Proof, Snapshot, TenantId, User, UserId, app::Name,
    directory::Username,
};
use postern_tests::{
    cluster::Cluster,
    until,
    world::{PASSWORD, World, applied},
};
use proto::v1;
use runtime::hashing::WAITING_HASHES_MAX;
use tokio::{sync::Semaphore, task::JoinSet};
use url::Url;
use uuid::Uuid;

const SIGN_INS: usize = 1000;
const AT_ONCE: usize = 48;
const USERS: usize = 100;
/// Of identity and of each controller, as docs/sizing.md says.
const MIB_MAX: u64 = 120;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hashing_passwords_keeps_no_memory() {
    let cluster = Cluster::start().await;
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut made = JoinSet::new();
    for n in 0..USERS {
        let (admin, turns) = (cluster.admin.clone(), turns.clone());
        made.spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            let user = Some(v1::User { username: format!("user{n}"), ..Default::default() });
            let change = Some(v1::Change { wait_applied: false, ..applied().unwrap() });
            admin.users().create(v1::CreateUserRequest { change, user, password: PASSWORD.into() }).await.unwrap()
        });
    }
    made.join_all().await;
    // Whoever knows the last user knows all of them.
    let user = Some(v1::User { username: "last".into(), ..Default::default() });
    let request = v1::CreateUserRequest { change: applied(), user, password: PASSWORD.into() };
    cluster.admin.users().create(request).await.unwrap();
    until("identity has heard of all users", async || {
        let answer = cluster.browser().sign_in(&cluster.url(0, "apps", "/"), "last", PASSWORD).await;
        (answer.status == 200).then_some(())
    })
    .await;
    let before = cluster.identity.rss_kib() / 1024;
    let mut sign_ins = JoinSet::new();
    for n in 0..SIGN_INS {
        let (mut browser, turns) = (cluster.browser(), turns.clone());
        let url = cluster.url(n % 2, "apps", "/");
        sign_ins.spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            let answer = browser.sign_in(&url, &format!("user{}", n % USERS), PASSWORD).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        });
    }
    sign_ins.join_all().await;
    let identity = cluster.identity.rss_kib() / 1024;
    let controllers: Vec<u64> = cluster.controllers.iter().map(|it| it.rss_kib() / 1024).collect();
    println!(
        "identity {before} MiB, after {SIGN_INS} sign-ins, {AT_ONCE} at once {identity} MiB; controllers after {USERS} new passwords {controllers:?} MiB"
    );
    assert!(identity <= MIB_MAX, "identity keeps {identity} MiB");
    assert!(controllers.iter().all(|it| *it <= MIB_MAX), "controllers keep {controllers:?} MiB");
    // And it goes on.
    let answer = cluster.browser().sign_in(&cluster.url(0, "apps", "/"), "user0", PASSWORD).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_is_too_large_to_sign_in_at_once_is_told_to_come_again() {
    const CROWD: usize = 400;
    let world = World::with_settings("[relay]\nconnections_per_source_max = 4000\n").await;
    world.user("alice").await;
    let login = Url::parse(&world.url("login", "/signin")).unwrap();
    // All have the page before anybody has typed a password.
    let mut pages = JoinSet::new();
    for _ in 0..CROWD {
        let (mut browser, url) = (world.browser(), world.url("apps", "/"));
        pages.spawn(async move {
            let flow = browser.open(&url).await.field("flow");
            (browser, flow)
        });
    }
    let pages = pages.join_all().await;
    let mut typed = JoinSet::new();
    for (mut browser, flow) in pages {
        let login = login.clone();
        typed.spawn(async move {
            let answer = browser.form(&login, &[("flow", &flow), ("username", "alice"), ("password", PASSWORD)]).await;
            let wait = answer.headers.get("retry-after").map(|it| it.to_str().unwrap().to_owned());
            let again = answer.text().contains("Try again in a few seconds") && wait.as_deref() == Some("2");
            (answer.status.as_u16(), again)
        });
    }
    let answers = typed.join_all().await;
    let signed_in = answers.iter().filter(|(status, _)| *status == 200).count();
    let told = answers.iter().filter(|(status, again)| *status == 503 && *again).count();
    println!("of {CROWD} at once {signed_in} signed in and {told} were told to come again");
    assert_eq!(signed_in + told, CROWD, "{answers:?}");
    assert!(told > 0 && signed_in >= WAITING_HASHES_MAX, "{signed_in} and {told}");
    // Nobody is locked out for having been turned away.
    let answer = world.browser().sign_in(&world.url("apps", "/"), "alice", PASSWORD).await;
    assert_eq!(answer.status, 200);
}

/// Other stories run in this process, so the figure is exact only when this one
/// runs alone.
#[test]
fn a_large_organisation_fits_in_memory() {
    const PEOPLE: usize = 100_000;
    const GROUPS: usize = 2_000;
    const GROUPS_OF_EACH: usize = 5;
    const APPLICATIONS: usize = 6_000;
    const CONNECTORS: usize = 300;
    let id = |kind: u128, n: usize| Uuid::from_u128((kind << 64) + n as u128);
    let user = |n| UserId(id(1, n));
    let group = |n| GroupId(id(2, n));
    let connector_group = ConnectorGroupId(id(3, 0));
    let mut snapshot = Snapshot::default();
    let before = resident_mib();
    let mut version = 0;
    let mut fold = |event| {
        version += 1;
        snapshot.apply(&TenantId::default_tenant(), event, version);
    };
    for n in 0..GROUPS {
        fold(Event::put(Group {
            id: group(n),
            name: Name::parse(&format!("group {n}")).unwrap(),
            labels: Default::default(),
        }));
    }
    for n in 0..PEOPLE {
        let username = Username::parse(&format!("first.last{n}@example.com")).unwrap();
        let (display_name, email) = (format!("First Last {n}").into(), username.as_str().into());
        fold(Event::put(User {
            id: user(n),
            username,
            display_name,
            email,
            disabled: false,
            labels: Default::default(),
        }));
        // A sealed PHC string, and a sealed secret.
        fold(Event::put(Credential { user: user(n), proof: Proof::Password, sealed: vec![1; 178] }));
        fold(Event::put(Credential { user: user(n), proof: Proof::Totp, sealed: vec![1; 101] }));
        for k in 0..GROUPS_OF_EACH {
            let group = group((n + k * 397) % GROUPS);
            fold(Event::put(Membership { group, member: Principal::User(user(n)) }));
        }
    }
    for n in 0..APPLICATIONS {
        let (name, external) = (format!("app {n}"), format!("https://a{n}.example.com/"));
        let (name, external) = (Name::parse(&name).unwrap(), ExternalUrl::parse(&external).unwrap());
        let origin = Origin::parse("http://10.0.0.1:8080").unwrap();
        let app = AppId(id(4, n));
        fold(Event::put(App::new(app, name, external, origin, connector_group)));
        fold(Event::put(Assignment { app, principal: Principal::Group(group(n % GROUPS)) }));
    }
    for n in 0..CONNECTORS {
        fold(Event::put(Connector {
            id: ConnectorId(id(5, n)),
            group: connector_group,
            join_token: JoinTokenId(id(6, n)),
            name: Name::parse(&format!("connector {n}")).unwrap(),
            public_key: vec![1; 91],
            revoked: false,
        }));
    }
    let grown = resident_mib().saturating_sub(before);
    println!(
        "{PEOPLE} people in {GROUPS_OF_EACH} of {GROUPS} groups each, {APPLICATIONS} applications, {CONNECTORS} connectors: {grown} MiB"
    );
    // Twice what it is, since other stories run beside it.
    assert!(grown <= 400, "{grown} MiB");
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}
