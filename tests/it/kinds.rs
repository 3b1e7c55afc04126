//! What every kind of object has for nothing: shown on one that only tests have,
//! which is a file of rules, a file of words and a line in the list of kinds.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use admin_client::lists::by_name;
use postern_tests::{
    origin::Origin,
    processes::binary,
    world::{World, app, applied},
};
use proto::v1;
use serde_json::json;

/// It was an event for each member.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_with_its_members_in_one_event_and_their_access_with_it() {
    let world = World::start().await;
    let origin = Origin::start().await;
    let file = world.folder.0.join("people.yaml");
    let mut text = "groups:\n- name: everybody\n- name: staff\nusers:\n".to_owned();
    (0..600).for_each(|n| text.push_str(&format!("- username: user{n}\n")));
    text.push_str("memberships:\n- { group: everybody, member: \"group:staff\" }\n");
    (0..600).for_each(|n| text.push_str(&format!("- {{ group: staff, member: \"user:user{n}\" }}\n")));
    std::fs::write(&file, &text).unwrap();
    cli(&world, &["apply", "-f", file.to_str().unwrap()]);
    world.user("alice").await;
    cli(&world, &["group", "add", "staff", "user:alice"]);
    world.publish(app("hr", &origin.url()), &["group:everybody"]).await;
    let mut alice = world.signed_in("hr", "alice").await;
    assert_eq!(alice.get(&world.url("hr", "/")).await.status, 200);

    let last = async |stream: &str| {
        let request = v1::ListHistoryRequest { stream: stream.into(), size: 1, ..Default::default() };
        world.admin.history().list(request).await.unwrap().into_inner().entries.remove(0)
    };
    let recorded = async || [last("directory").await.position, last("risk").await.position];
    let [directory, risk] = recorded().await;
    cli(&world, &["group", "remove", "staff"]);
    let after = recorded().await;
    let counts = [after[0] - directory, after[1] - risk];
    eprintln!("a group of 601 removed: {counts:?} events in DIRECTORY and RISK");
    // The group, and that it was in another; a checkpoint may have come between.
    assert!((2..=3).contains(&counts[0]) && (1..=2).contains(&counts[1]), "{counts:?}");
    assert_eq!(alice.get(&world.url("hr", "/")).await.refusal(), "not_assigned", "the next request has it no more");
    assert!(!cli(&world, &["list", "membership"]).contains("staff"));
    assert!(!cli(&world, &["export", "membership"]).contains("alice"));

    // Made again it is empty, and may be used as any other.
    cli(&world, &["group", "create", "staff"]);
    cli(&world, &["group", "add", "everybody", "group:staff"]);
    assert_eq!(alice.get(&world.url("hr", "/")).await.refusal(), "not_assigned");
    cli(&world, &["group", "add", "staff", "user:alice"]);
    assert_eq!(alice.get(&world.url("hr", "/")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_is_listed_changed_watched_undone_and_removed_without_a_line_of_its_own() {
    let world = World::start().await;
    world.user("alice").await;
    world.user("bob").await;
    assert!(cli(&world, &["kinds"]).contains("toy"));
    let mut watch = watch(&world, "toy");

    // Made, found by name and by label, shown with names.
    cli(&world, &["set", "toy", "name=Bear", "owner=alice", "labels={\"room\":\"attic\"}"]);
    assert_eq!(watch.line(), "created toy Bear");
    let refused = failing(&world, &["set", "toy", "name=Bear", "owner=nobody"]);
    assert!(refused.contains("there is no user \"nobody\""), "{refused}");
    let listed = cli(&world, &["list", "toy", "--label", "room=attic"]);
    assert!(listed.contains("Bear") && listed.contains("alice"), "names and no ids: {listed}");
    assert!(!cli(&world, &["list", "toy", "--label", "room=cellar"]).contains("Bear"));
    assert!(cli(&world, &["show", "toy", "bear"]).contains("alice"), "in any case");

    // Changed; history says it as people do, by object and by actor.
    cli(&world, &["set", "toy", "--name", "Bear", "owner=bob"]);
    assert_eq!(watch.line(), "changed toy Bear");
    let said = cli(&world, &["history", "--kind", "toy", "--object", "Bear", "--actor", "admin"]);
    assert!(said.contains("admin changed toy Bear: owner alice -> bob"), "{said}");
    assert!(said.contains("admin created toy Bear"), "{said}");

    // Rules of the kind, references and names, by the same code as for every kind.
    let long = "x".repeat(65);
    assert!(
        failing(&world, &["set", "toy", &format!("name={long}"), "owner=bob"]).contains("name: a name has 1 to 64")
    );
    assert!(failing(&world, &["user", "remove", "bob"]).contains("user is in use by toy Bear"));
    cli(&world, &["set", "toy", "name=Duck", "owner=bob"]);
    assert_eq!(watch.line(), "created toy Duck");
    let taken = failing(&world, &["set", "toy", "--name", "Duck", "name=BEAR"]);
    assert!(taken.contains("taken by another toy"), "{taken}");

    // Undone: first said, then done.
    let change = entry(&world, "toy", "Bear").await;
    let position = change.position.to_string();
    let dry = cli(&world, &["revert", "directory", &position, "--dry-run"]);
    assert!(dry.contains("~ toy Bear: owner: \"bob\" -> \"alice\""), "{dry}");
    cli(&world, &["revert", "directory", &position]);
    assert_eq!(watch.line(), "changed toy Bear");
    assert!(cli(&world, &["show", "toy", "Bear"]).contains("alice"));

    // In files: exported, compared, pruned by label.
    let file = world.folder.0.join("toys.yaml");
    let exported = cli(&world, &["export", "toy"]);
    assert!(exported.contains("toys:") && exported.contains("owner: alice"), "{exported}");
    std::fs::write(&file, &exported).unwrap();
    let path = file.to_str().unwrap();
    assert!(cli(&world, &["diff", "-f", path]).contains("nothing to change"));
    std::fs::write(&file, "toys:\n  - name: Ball\n    owner: bob\n    labels: {room: attic}\n").unwrap();
    let diff = cli(&world, &["diff", "-f", path, "--prune", "room=attic"]);
    assert!(diff.contains("+ toy Ball") && diff.contains("- toy Bear") && !diff.contains("Duck"), "{diff}");
    cli(&world, &["apply", "-f", path, "--prune", "room=attic"]);
    let mut seen = [watch.line(), watch.line()];
    seen.sort();
    assert_eq!(seen, ["created toy Ball", "removed toy Bear"]);
    assert!(!failing(&world, &["show", "toy", "Bear"]).is_empty());

    cli(&world, &["delete", "toy", "Ball"]);
    assert_eq!(watch.line(), "removed toy Ball");
    cli(&world, &["delete", "toy", "Duck"]);
    cli(&world, &["user", "remove", "bob"]);
}

#[tokio::test]
async fn an_application_is_changed_by_its_owner_and_no_further() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let wiki = world
        .publish(v1::App { owners: vec![format!("user:{}", alice.id)], ..app("wiki", "http://127.0.0.1:9") }, &[])
        .await;
    let other = world.publish(app("other", "http://127.0.0.1:9"), &[]).await;
    let token = crate::administration::cli_token(&world, "alice").await;
    let admin = admin_client::Admin::connect(&crate::administration::anonymous(&world, Some(&token))).await.unwrap();
    admin.change(applied(), "app", json!({ "id": "wiki", "maintenance": true })).await.unwrap();
    admin.put(applied(), "assignment", json!({ "app": "wiki", "principal": "everyone" })).await.unwrap();
    let seen: Vec<v1::App> = admin.read_all("app").await.unwrap();
    assert_eq!(seen.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), [&wiki.id], "of others nothing is told");
    for (kind, fields) in [
        ("app", json!({ "id": other.id, "maintenance": true })),
        ("app", json!({ "id": "wiki", "pre_authentication": "passthrough" })),
        ("app", json!({ "id": "wiki", "owners": [] })),
        ("app", json!({ "id": "wiki", "external_url": "https://else.postern.localhost/" })),
        ("assignment", json!({ "app": "other", "principal": "everyone" })),
        ("policy", json!({ "name": "mine", "block": true })),
        ("role", json!({ "user": "alice", "role": "owner" })),
    ] {
        let refused = admin.put(applied(), kind, fields.clone()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{kind} {fields}: {refused}");
    }
    assert!(admin.objects().list(v1::ListObjectsRequest { kind: "user".into(), ..Default::default() }).await.is_err());
}

/// Whatever was removed together is gone together, and nothing names what is gone.
#[tokio::test]
async fn what_is_removed_takes_its_parts_along_and_leaves_nothing_that_names_it() {
    let world = World::start().await;
    world.user("alice").await;
    world.admin.create(applied(), "group", json!({ "name": "staff" })).await.unwrap();
    world.admin.put(applied(), "membership", json!({ "group": "staff", "member": "user:alice" })).await.unwrap();
    world.admin.put(applied(), "role", json!({ "user": "alice", "role": "auditor" })).await.unwrap();
    let wiki = world.publish(app("wiki", "http://127.0.0.1:9"), &["user:alice", "group:staff"]).await;
    let guard = json!({ "name": "guard", "block": true, "apps": ["wiki"] });
    world.admin.create(applied(), "policy", guard).await.unwrap();
    let kept = world.admin.remove(applied(), "app", by_name("wiki")).await.unwrap_err();
    assert!(kept.message().contains("application is in use by policy guard"), "{kept}");
    world.admin.remove(applied(), "policy", by_name("guard")).await.unwrap();
    let removed = world.admin.remove(applied(), "app", by_name("wiki")).await.unwrap();
    assert_eq!(removed.differences.len(), 3, "and its two assignments");
    world.admin.remove(applied(), "user", by_name("alice")).await.unwrap();
    for kind in ["assignment", "membership", "role"] {
        let left = world.admin.all(kind).await.unwrap();
        assert!(!left.iter().any(|it| it.key.contains(&wiki.id) || it.named.contains("alice")), "{kind}: {left:?}");
    }
    let audit = world.admin.objects().audit(v1::AuditRequest {}).await.unwrap().into_inner();
    assert_eq!(audit.findings, [], "nothing dangles");
}

/// Issuer and subject are who somebody is elsewhere, and never become somebody else.
#[tokio::test]
async fn a_person_is_linked_by_issuer_and_subject_and_not_by_name() {
    let world = World::start().await;
    for name in ["alice", "bob"] {
        world.user(name).await;
    }
    let link = |issuer: &str, user: &str| json!({ "issuer": issuer, "subject": "4711", "user": user });
    let put = async |issuer: &str, user: &str| world.admin.put(applied(), "linked-identity", link(issuer, user)).await;
    put("https://login.example.com", "alice").await.unwrap();
    put("https://login.example.com/", "bob").await.unwrap();
    put("https://LOGIN.example.com", "bob").await.unwrap();
    let moved = put("https://login.example.com", "bob").await.unwrap_err();
    assert!(moved.message().contains("remove the linked identity first"), "{moved}");
    let nobody = world.admin.put(applied(), "linked-identity", json!({ "issuer": "i", "user": "alice" })).await;
    assert!(nobody.unwrap_err().message().contains("subject"));

    // A name is given to somebody else; the link stays with the person.
    let renamed = world.cli(&["set", "user", "--name", "alice", "username=alice.smith"]);
    assert!(renamed.status.success(), "{}", String::from_utf8_lossy(&renamed.stderr));
    world.user("alice").await;
    let nobody = world.cli(&["set", "user", "--name", "alise", "disabled=true"]);
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(!nobody.status.success() && said.contains("there is no user \"alise\""), "{said}");
    let listed = world.cli(&["list", "linked-identity"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.lines().any(|it| it.contains("https://login.example.com ") && it.contains("alice.smith")),
        "{listed}"
    );
    assert_eq!(listed.lines().filter(|it| it.contains("4711")).count(), 3, "{listed}");

    let alice = world.admin.remove(applied(), "user", by_name("alice.smith")).await.unwrap();
    assert_eq!(alice.differences.len(), 3, "and the password and the linked identity");
    put("https://login.example.com", "bob").await.unwrap();
}

#[tokio::test]
async fn two_applications_swap_their_addresses_in_one_change() {
    let world = World::start().await;
    let (a, b) = (app("a", "http://127.0.0.1:9"), app("b", "http://127.0.0.1:9"));
    let (a, b) = (world.publish(a, &[]).await, world.publish(b, &[]).await);
    let swap = |of: &v1::App, url: &str| {
        admin_client::lists::wanted("app", json!({ "id": of.id, "external_url": url }), v1::Wish::Change)
    };
    let alone = world.admin.change(applied(), "app", json!({ "id": a.id, "external_url": b.external_url })).await;
    assert_eq!(alone.unwrap_err().code(), tonic::Code::AlreadyExists);
    let objects = vec![swap(&a, &b.external_url), swap(&b, &a.external_url)];
    world.admin.apply(v1::ApplyRequest { change: applied(), objects, ..Default::default() }).await.unwrap();
    let now: v1::App = world.admin.read("app", "a").await.unwrap();
    assert_eq!(now.external_url, b.external_url);
}

// ---------------------------------------------------------------- helpers

async fn entry(world: &World, kind: &str, object: &str) -> v1::HistoryEntry {
    let request = v1::ListHistoryRequest { kind: kind.into(), object: object.into(), size: 1, ..Default::default() };
    let entries = world.admin.history().list(request).await.unwrap().into_inner().entries;
    entries.into_iter().next().unwrap()
}

fn cli(world: &World, arguments: &[&str]) -> String {
    let output = world.cli(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn failing(world: &World, arguments: &[&str]) -> String {
    let output = world.cli(arguments);
    assert!(!output.status.success(), "{arguments:?} went well");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `postern watch`, as somebody has it open in a terminal.
struct Watch {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

fn watch(world: &World, kind: &str) -> Watch {
    let credential = world.folder.0.join("data/owner.json");
    let mut command = Command::new(binary("postern"));
    command.arg("--credential").arg(credential).args(["watch", kind]).stdout(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut watch = Watch { process, lines };
    assert_eq!(watch.line(), "-- from here on as it happens");
    watch
}

impl Watch {
    fn line(&mut self) -> String {
        tokio::task::block_in_place(|| self.lines.next().unwrap().unwrap())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _waited = self.process.wait();
    }
}
