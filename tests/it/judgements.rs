//! Recorded traffic is judged again: by what was in force, and by what might be.

use std::collections::{BTreeMap, BTreeSet};

use admin_client::lists::by_name;
use eventlog::{
    Activity, EventLog, Fact,
    codec::Mark,
    judgement::{self, NotJudged, RecordedJudgement},
};
use model::{
    Event, GroupId, Policy, PolicyId, Position, Principal, Snapshot, Tenant, TenantId,
    event::Stream,
    policy::{Grant, Selection},
    session::TOKEN_GROUPS_MAX,
    text::Name,
};
use postern_tests::{
    browser::Browser,
    origin::Origin,
    world::{PASSWORD, World, app, applied, open_app},
};
use proto::{
    Message,
    v1::{self, Access, EventBody, SignedEvent},
};
use serde_json::json;

const OFFICE: &str = "192.0.2.7";
const HOTEL: &str = "198.51.100.9";

#[tokio::test]
async fn recorded_traffic_is_judged_again_as_it_was_and_by_a_candidate() {
    let world = World::start().await;
    let origin = Origin::start().await;
    let mut sent = Sent::default();
    let (staff, browsers) = people(&world, &origin).await;

    // All of them, everywhere, while policies and assignments change.
    sent.everybody(&world, &browsers).await;
    let block = v1::Policy {
        name: "no-hotels".into(),
        block: true,
        apps: vec!["wiki".into()],
        networks: vec!["198.51.100.0/24".into()],
        exclude: vec!["group:night".into()],
        ..Default::default()
    };
    let block = world.policy(block).await;
    let drill = v1::Policy { name: "drill".into(), block: true, state: v1::PolicyState::ReportOnly.into(), ..block };
    world.policy(v1::Policy { id: String::new(), include: vec!["group:staff".into()], exclude: vec![], ..drill }).await;
    sent.everybody(&world, &browsers).await;
    world.admin.remove(applied(), "policy", by_name("no-hotels")).await.unwrap();
    world.admin.remove(applied(), "membership", json!({ "group": "staff", "member": "user:bob" })).await.unwrap();
    let require = vec![v1::Control::Mfa.into(), v1::Control::SignInWithin.into()];
    let strong = v1::Policy { name: "strong".into(), apps: vec!["plans".into()], require, ..Default::default() };
    world.policy(v1::Policy { sign_in_within_minutes: 5, ..strong }).await;
    sent.everybody(&world, &browsers).await;

    let log = Recorded::of(world).await;
    let judged = log.judged();
    let verdicts: BTreeSet<i32> = judged.iter().map(|(access, _)| access.judgement.as_ref().unwrap().verdict).collect();
    assert_eq!(verdicts.len(), 4, "every verdict came up");
    let positions: BTreeSet<_> = judged.iter().map(|(_, it)| it.config).collect();
    assert!(positions.len() >= 3, "{positions:?}");
    let known: BTreeSet<&String> = judged.iter().map(|(access, _)| &access.request_id).collect();
    let ours: BTreeSet<&String> = sent.0.iter().map(|it| &it.request).collect();
    assert!(ours.is_subset(&known), "every request was judged and recorded");

    // By what was in force then: the same again, policies and all.
    for (access, recorded) in &judged {
        let again = log.tenant(recorded.config).authorize(&recorded.facts.facts());
        assert_eq!(again.map(|it| it.involved), recorded.verdict, "{access:?}");
    }

    // By one policy more: those of staff that were let in from the hotel, and no others.
    let candidate = Policy {
        people: Selection::only([Principal::Group(staff)]),
        networks: Selection::only(["198.51.100.0/24".parse().unwrap()]),
        ..Policy::new(PolicyId(uuid::Uuid::max()), Name::parse("candidate").unwrap(), Grant::Block)
    };
    let differs = |recorded: &RecordedJudgement| {
        let mut snapshot = log.by_position[&recorded.config].clone();
        snapshot.apply(&TenantId::default_tenant(), Event::put(candidate.clone()), 1);
        let tenant = snapshot.tenant(&TenantId::default_tenant()).unwrap();
        let now = tenant.authorize(&recorded.facts.facts());
        recorded.verdict.is_ok() != now.is_ok()
    };
    // Beside ours there is what it took to sign in.
    let refused = judged.iter().filter(|(access, it)| ours.contains(&access.request_id) && differs(it));
    let refused: BTreeSet<&String> = refused.map(|(access, _)| &access.request_id).collect();
    let meant = |it: &&Request| it.served && it.address == HOTEL && it.in_staff;
    let meant: BTreeSet<&String> = sent.0.iter().filter(meant).map(|it| &it.request).collect();
    assert!(!meant.is_empty() && meant.len() < ours.len() / 2);
    assert_eq!(refused, meant);
}

/// Their token names the groups that decide, and the record says that there are more.
#[tokio::test]
async fn a_user_of_more_groups_than_a_token_names_is_recorded_as_such() {
    let world = World::start().await;
    let origin = Origin::start().await;
    world.user("alice").await;
    for n in 0..=TOKEN_GROUPS_MAX {
        let name = format!("group {n}");
        world.admin.create(None, "group", json!({ "name": name })).await.unwrap();
        world.admin.put(None, "membership", json!({ "group": name, "member": "user:alice" })).await.unwrap();
    }
    world.publish(app("wiki", &origin.url()), &["group:group 7"]).await;
    let mut alice = world.signed_in("wiki", "alice").await;
    let served = alice.get(&world.url("wiki", "/x")).await;
    assert_eq!(served.status, 200, "{}", served.text());
    let deciding: v1::Group = world.admin.read("group", "group 7").await.unwrap();

    let log = Recorded::of(world).await;
    let access = log.accesses.iter().find(|it| it.path_class == "/x").unwrap();
    let Err(NotJudged::GroupsLeftOut(recorded)) = judgement::read(access) else { panic!("{access:?}") };
    assert_eq!(recorded.facts.groups, BTreeSet::from([deciding.id.parse().unwrap()]));
    let again = log.tenant(recorded.config).authorize(&recorded.facts.facts());
    assert_eq!(again.map(|it| it.involved), recorded.verdict, "what was in force then says the same");
}

/// Alice and Bob of staff, Bob of the night as well, and Carol of nothing; one
/// browser each in the office and in a hotel, as the proxy in front says.
async fn people(world: &World, origin: &Origin) -> (GroupId, Vec<(&'static str, &'static str, Browser)>) {
    for name in ["alice", "bob", "carol"] {
        world.user(name).await;
    }
    for (group, members) in [("staff", &["alice", "bob"][..]), ("night", &["bob"])] {
        world.admin.create(applied(), "group", json!({ "name": group })).await.unwrap();
        for member in members {
            let membership = json!({ "group": group, "member": format!("user:{member}") });
            world.admin.put(applied(), "membership", membership).await.unwrap();
        }
    }
    let behind_a_proxy = |it: v1::App| v1::App { trusted_addresses: vec!["127.0.0.0/8".into()], ..it };
    world.publish(behind_a_proxy(app("wiki", &origin.url())), &["everyone"]).await;
    world.publish(behind_a_proxy(app("plans", &origin.url())), &["group:staff"]).await;
    world.publish(behind_a_proxy(open_app("open", &origin.url())), &[]).await;
    let mut browsers = vec![];
    for name in ["alice", "bob", "carol"] {
        for address in [OFFICE, HOTEL] {
            let mut browser = world.browser();
            browser.headers.insert("x-forwarded-for", address.parse().unwrap());
            for app in ["wiki", "plans"] {
                let page = browser.open(&world.url(app, "/")).await;
                if page.text().contains("name=\"flow\"") {
                    browser.sign_in(&world.url(app, "/"), name, PASSWORD).await;
                }
            }
            browsers.push((name, address, browser));
        }
    }
    let staff: v1::Group = world.admin.read("group", "staff").await.unwrap();
    (staff.id.parse().unwrap(), browsers)
}

/// A request of a signed-in user, or to an application without sign-in.
struct Request {
    request: String,
    address: &'static str,
    served: bool,
    in_staff: bool,
}

#[derive(Default)]
struct Sent(Vec<Request>);

impl Sent {
    async fn everybody(&mut self, world: &World, browsers: &[(&'static str, &'static str, Browser)]) {
        let staff: Vec<v1::Membership> = world.admin.read_all("membership").await.unwrap();
        let group: v1::Group = world.admin.read("group", "staff").await.unwrap();
        for (name, address, browser) in browsers {
            let user: v1::User = world.admin.read("user", name).await.unwrap();
            let in_staff = staff.iter().any(|it| it.group == group.id && it.member.contains(&user.id));
            for app in ["wiki", "plans", "open"] {
                let answer = browser.clone().get(&world.url(app, "/x")).await;
                let request = answer.headers["x-request-id"].to_str().unwrap().to_owned();
                let (served, in_staff) = (answer.status == 200, in_staff && app != "open");
                self.0.push(Request { request, address, served, in_staff });
            }
        }
    }
}

/// What a world that has ended left in its log.
struct Recorded {
    accesses: Vec<Access>,
    /// Configuration as it was at each position.
    by_position: BTreeMap<Position, Snapshot>,
}

impl Recorded {
    async fn of(mut world: World) -> Self {
        world.up.terminate();
        assert!(world.up.ended().await.success());
        let log = EventLog::open(&world.folder.0.join("data/log.db")).unwrap();
        let mut by_position = BTreeMap::from([(0, Snapshot::default())]);
        for (position, body) in bodies(&log, Stream::Config).await {
            let mut snapshot = by_position[&(position - 1)].clone();
            if Mark::decode(&body.kind, &body.payload).unwrap().is_none() {
                let Fact::State(event) = Fact::decode(&body.kind, &body.payload).unwrap() else { panic!("state") };
                snapshot.apply(&TenantId::parse(&body.tenant).unwrap(), event, body.version);
            }
            by_position.insert(position, snapshot);
        }
        let mut accesses = vec![];
        for (_, body) in bodies(&log, Stream::Activity).await {
            if let Fact::Activity(Activity::Accesses(all)) = Fact::decode(&body.kind, &body.payload).unwrap() {
                accesses.extend(all.accesses);
            }
        }
        Self { accesses, by_position }
    }

    fn tenant(&self, config: Position) -> &Tenant {
        self.by_position[&config].tenant(&TenantId::default_tenant()).unwrap()
    }

    /// All but those that ended before policies were asked.
    fn judged(&self) -> Vec<(&Access, RecordedJudgement)> {
        let judged = self.accesses.iter().filter_map(|access| match judgement::read(access) {
            Ok(judged) => Some((access, judged)),
            Err(NotJudged::NotRecorded) => None,
            Err(other) => panic!("{other}: {access:?}"),
        });
        judged.collect()
    }
}

async fn bodies(log: &EventLog, stream: Stream) -> Vec<(Position, EventBody)> {
    let mut bodies = vec![];
    loop {
        let entries = log.read(stream, bodies.len() as Position).await.unwrap();
        if entries.is_empty() {
            return bodies;
        }
        for entry in entries {
            let event = SignedEvent::decode(entry.bytes).unwrap();
            bodies.push((entry.position, EventBody::decode(event.body).unwrap()));
        }
    }
}
