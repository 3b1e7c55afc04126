//! What processes keep after a rush.

use std::sync::Arc;

use postern_tests::{
    cluster::Cluster,
    until,
    world::{PASSWORD, applied},
};
use proto::v1;
use tokio::{sync::Semaphore, task::JoinSet};

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
