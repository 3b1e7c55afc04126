//! How soon a change reaches who is concerned, and whom it leaves alone.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt, future::join_all};
use postern_tests::{
    browser::Browser,
    cluster::Cluster,
    origin::Origin,
    processes::Running,
    until,
    world::{PASSWORD, WebSocket, app, applied, web_socket},
};
use proto::v1;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

const SOCKETS: usize = 100;
/// A second for the fresh token that does not come, and one for a busy machine.
/// Asked for one after the other, they took more than three minutes.
const CUT_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test]
async fn with_identity_away_a_changed_user_keeps_no_web_socket() {
    let cluster = Cluster::start().await;
    let origin = Origin::start().await;
    let alice = alice(&cluster, &origin).await;
    let url = cluster.url(0, "wiki", "/ws");
    let mut sockets = join_all((0..SOCKETS).map(|_| web_socket(&alice, &url))).await;
    for socket in &mut sockets {
        assert!(echoes(socket).await);
    }

    // While identity answers, a change of theirs leaves them what they may have.
    let staff = v1::Group { name: "staff".into(), ..Default::default() };
    let request = v1::PutGroupRequest { change: applied(), group: Some(staff) };
    cluster.admin.groups().create(request).await.unwrap();
    cluster.admin.groups().add_member(membership()).await.unwrap();
    for socket in &mut sockets {
        assert!(echoes(socket).await, "the fresh token passes");
    }

    // Frozen: whatever it is asked, it says nothing.
    signal(&cluster.identity, "STOP");
    let mut script = alice.as_script();
    let page = cluster.url(0, "wiki", "/");
    assert_eq!(script.get(&page).await.status, 200, "nobody needs identity for what is known");
    cluster.admin.groups().remove_member(membership()).await.unwrap();
    let changed = Instant::now();
    let cut = sockets.iter_mut().map(|socket| async {
        while let Some(Ok(_)) = socket.next().await {}
        changed.elapsed()
    });
    let last = join_all(cut).await.into_iter().max().unwrap();
    assert!(last < CUT_WITHIN, "the last one was open for {last:?}");
    // New requests of theirs do not queue behind it.
    let asked = Instant::now();
    let answers = join_all((0..SOCKETS).map(|_| {
        let (mut script, page) = (script.clone(), page.clone());
        async move { script.get(&page).await }
    }));
    for answer in answers.await {
        assert_eq!((answer.status.as_u16(), answer.refusal()), (503, "sign_in_unavailable"));
    }
    assert!(asked.elapsed() < CUT_WITHIN, "{:?}", asked.elapsed());

    signal(&cluster.identity, "CONT");
    until("identity is back", async || (script.get(&page).await.status == 200).then_some(())).await;
    assert!(echoes(&mut web_socket(&script, &url).await).await);
}

/// Somebody who has signed in at the wiki.
async fn alice(cluster: &Cluster, origin: &Origin) -> Browser {
    let user = v1::User { username: "alice".into(), ..Default::default() };
    let request = v1::CreateUserRequest { change: applied(), user: Some(user), password: PASSWORD.into() };
    cluster.admin.users().create(request).await.unwrap();
    cluster.publish(app("wiki", &origin.url())).await;
    let mut alice = cluster.browser();
    let answer = alice.sign_in(&cluster.url(0, "wiki", "/"), "alice", PASSWORD).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    alice
}

fn membership() -> v1::MembershipRequest {
    let membership = v1::Membership { group: "staff".into(), member: "user:alice".into() };
    v1::MembershipRequest { change: applied(), membership: Some(membership) }
}

async fn echoes(socket: &mut WebSocket) -> bool {
    let sent = Message::text("are you there?");
    let answer = async {
        socket.send(sent.clone()).await.ok()?;
        socket.next().await?.ok()
    };
    timeout(Duration::from_secs(5), answer).await.is_ok_and(|it| it == Some(sent))
}

fn signal(process: &Running, name: &str) {
    let sent = std::process::Command::new("kill").args([&format!("-{name}"), &process.child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}
