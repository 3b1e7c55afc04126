//! A file as one change: all of it or nothing, and closed at every position.

use std::sync::atomic::{AtomicBool, Ordering};

use admin_client::lists::wanted;
use postern_tests::{
    origin::Origin,
    until,
    world::{World, applied},
};
use proto::v1;
use serde_json::{Value, json};

/// `apply` published and assigned first, and guarded last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_of_a_file_is_never_open_before_its_policy() {
    let world = World::start().await;
    world.user("alice").await;
    let origin = Origin::start().await;
    world.publish_origin("known", &origin).await;
    let alice = world.signed_in("known", "alice").await;
    for round in 0..3 {
        let name = format!("secret{round}");
        let url = world.url(&name, "/");
        let file = world.folder.0.join("secret.yaml");
        let text = format!(
            "apps:\n  - name: {name}\n    origin: {}\n    pre_authentication: passthrough\n\
             assignments:\n  - app: {name}\n    principal: everyone\n\
             policies:\n  - name: guard{round}\n    state: on\n    block: true\n    apps: [{name}]\n",
            origin.url()
        );
        std::fs::write(&file, text).unwrap();
        let done = AtomicBool::new(false);
        let watch = async {
            let (mut asked, mut alice) = (0, alice.clone());
            while !done.load(Ordering::SeqCst) || asked == 0 {
                let answer = alice.get(&url).await;
                assert_ne!(answer.status, 200, "round {round}: entered after {asked} requests");
                asked += 1;
            }
        };
        let apply = async {
            let output = tokio::task::block_in_place(|| world.cli(&["apply", "-f", file.to_str().unwrap(), "--wait"]));
            done.store(true, Ordering::SeqCst);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let ((), ()) = tokio::join!(watch, apply);
        let alice = alice.clone();
        until("the policy is what refuses", async || {
            (alice.as_script().get(&url).await.refusal() == "blocked_by_policy").then_some(())
        })
        .await;
        // What readers see at each position.
        let kinds = positions(&world).await;
        let at = |kind: &str, subject: &str| {
            let found = kinds.iter().rev().find(|it| it.kind == kind && it.summary.contains(subject));
            found.unwrap_or_else(|| panic!("no {kind}")).position
        };
        let (guarded, published) = (at("policy.put", &format!("guard{round}")), at("app.put", &name));
        assert!(guarded < published && published < at("assignment.put", "everyone"));
        assert!(at("assignment.put", "everyone") - guarded == 2, "one append");
    }
}

#[tokio::test]
async fn a_file_with_one_mistake_changes_nothing_and_says_which_object() {
    let world = World::start().await;
    let before = position(&world).await;
    let file = world.folder.0.join("all.yaml");
    let path = file.to_str().unwrap();
    let good = "users:\n  - username: bob\ngroups:\n  - name: staff\nmemberships:\n  - group: staff\n    member: user:bob\n\
                apps:\n  - name: wiki\n    origin: http://127.0.0.1:9\n";
    let assign = |group: &str| format!("{good}assignments:\n  - app: wiki\n    principal: group:{group}\n");
    std::fs::write(&file, assign("nobody")).unwrap();
    let output = world.cli(&["apply", "-f", path]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("assignment wiki group:nobody"), "{error}");
    assert_eq!(position(&world).await, before);
    assert!(world.admin.object("user", "bob").await.is_err());

    // The same file put right, twice with one request id, and late.
    std::fs::write(&file, assign("staff")).unwrap();
    let run = |arguments: &[&str]| {
        let output = world.cli(&[&["apply", "-f", path], arguments].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let expected = before.to_string();
    let first = run(&["--request-id", "r1", "--expected-position", &expected]);
    assert!(first.0 && first.1.contains("5 changed"), "{}", first.1);
    let after = position(&world).await;
    assert!(run(&["--request-id", "r1"]).1.contains("nothing to change"));
    assert_eq!(position(&world).await, after);
    let late = run(&["--expected-position", &expected]);
    assert!(!late.0 && late.1.contains("expected_position"), "{}", late.1);
}

/// Two at the same moment, with the same request id: a client that was impatient.
#[tokio::test]
async fn twins_of_one_request_make_one_of_each() {
    let world = World::start().await;
    let request = || v1::ApplyRequest {
        change: Some(v1::Change { request_id: "twins".into(), ..Default::default() }),
        objects: (0..50).map(|n| put("user", json!({ "username": format!("u{n}") }))).collect(),
        ..Default::default()
    };
    let asked = (0..8).map(|_| {
        let admin = world.admin.clone();
        async move { admin.apply(request()).await }
    });
    for answer in futures_util::future::join_all(asked).await {
        answer.unwrap();
    }
    let users: Vec<v1::User> = world.admin.read_all("user").await.unwrap();
    assert_eq!(users.iter().filter(|it| it.username.starts_with('u')).count(), 50);
}

/// More than fits into one append: 600 applications and their guards.
#[tokio::test]
async fn a_file_of_hundreds_is_in_order_over_all_its_appends() {
    let world = World::start().await;
    let app = |n| put("app", json!({ "name": format!("app{n}"), "origin": "http://127.0.0.1:9" }));
    let guard = |n| put("policy", json!({ "name": format!("guard{n}"), "block": true, "apps": [format!("app{n}")] }));
    let assignment = |n| put("assignment", json!({ "app": format!("app{n}"), "principal": "everyone" }));
    // In an order that would open before it closes.
    let objects = (0..600).flat_map(|n| [assignment(n), app(n), guard(n)]).collect();
    let answer =
        world.admin.apply(v1::ApplyRequest { change: applied(), objects, ..Default::default() }).await.unwrap();
    assert_eq!(answer.differences.len(), 1800);
    let mut kinds = Vec::new();
    let mut before_position = 0;
    while kinds.len() < 1800 {
        let request =
            v1::ListHistoryRequest { stream: "config".into(), size: 500, before_position, ..Default::default() };
        let entries = world.admin.history().list(request).await.unwrap().into_inner().entries;
        before_position = entries.last().unwrap().position;
        kinds.extend(entries.into_iter().map(|it| it.kind));
    }
    kinds.truncate(1800);
    kinds.dedup();
    assert_eq!(kinds, ["assignment.put", "app.put", "policy.put"], "newest first");
}

// ---------------------------------------------------------------- helpers

fn put(kind: &str, fields: Value) -> v1::ObjectFields {
    wanted(kind, fields, v1::Wish::Put)
}

async fn position(world: &World) -> u64 {
    world.admin.tenants().get(v1::GetTenantRequest {}).await.unwrap().into_inner().position
}

async fn positions(world: &World) -> Vec<v1::HistoryEntry> {
    let request = v1::ListHistoryRequest { stream: "config".into(), size: 100, ..Default::default() };
    let mut entries = world.admin.history().list(request).await.unwrap().into_inner().entries;
    entries.reverse();
    entries
}
