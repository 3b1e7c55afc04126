//! Stories of the model: events and commands only.

use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;

use crate::{
    app::*,
    directory::Username,
    kinds::{AllSessionsEnded, AssignmentKey, MembershipKey, TenantSettings},
    policy::{self, Denied, Facts, Grant, Policies, Requirement, Scope, Selection, SignedIn, State},
    risk::*,
    session::*,
    *,
};

mod batches;
mod groups;
mod matrix;
mod outdated;
mod policies;

#[test]
fn a_url_has_one_owner() {
    given([group(BERLIN), published(HR, "https://hr.example.com/")])
        .when(publish(PAYROLL, "https://hr.example.com/"))
        .rejected_as(Rejection::UrlTaken { url: "https://hr.example.com/".into() });
}

#[test]
fn a_host_is_shared_by_path() {
    given([group(BERLIN), published(HR, "https://hr.example.com/")])
        .when(publish(PAYROLL, "https://hr.example.com/pay/"))
        .yields(vec![published(PAYROLL, "https://hr.example.com/pay/")]);
}

#[test]
fn a_host_belongs_to_one_tenant() {
    let mut snapshot = given([group(BERLIN), published(HR, "https://hr.example.com/")]).snapshot;
    let other = TenantId::parse("other").unwrap();
    snapshot.apply(&other, group(BERLIN), 1);
    let rejection = decide(&snapshot, &other, publish(PAYROLL, "https://hr.example.com/pay/"));
    assert_eq!(rejection, Err(Rejection::HostTaken { host: "hr.example.com".into() }));
}

#[test]
fn a_command_cannot_reach_into_another_tenant() {
    let snapshot = given([group(BERLIN), published(HR, "https://hr.example.com/")]).snapshot;
    let other = TenantId::parse("other").unwrap();
    assert_eq!(decide(&snapshot, &other, Command::Remove(ObjectKey::App(app_id(HR)))), Ok(vec![]));
    let change = Command::Change(app(HR, "https://hr.example.com/").into());
    assert_eq!(decide(&snapshot, &other, change), Err(Rejection::NotFound(KindName::App)));
}

#[test]
fn an_application_needs_its_connector_group() {
    let missing = Rejection::Dangling { kind: KindName::ConnectorGroup, key: id(BERLIN).to_string() };
    given([]).when(publish(HR, "https://hr.example.com/")).rejected_as(missing);
}

#[test]
fn a_group_in_use_stays() {
    given([group(BERLIN), published(HR, "https://hr.example.com/")])
        .when(Command::Remove(ObjectKey::ConnectorGroup(ConnectorGroupId(id(BERLIN)))))
        .rejected_as(Rejection::InUse { what: KindName::ConnectorGroup, by: format!("application app-{HR}") });
}

#[test]
fn a_join_token_makes_one_connector() {
    let token = join_token(1000);
    given([group(BERLIN), Event::put(token.clone()), Event::put(connector(1))])
        .when(Command::Enrol { connector: connector(2), now: Timestamp(0) })
        .rejected_as(Rejection::TokenSpent);
}

#[test]
fn a_join_token_ends() {
    given([group(BERLIN), Event::put(join_token(1000))])
        .when(Command::Enrol { connector: connector(1), now: Timestamp(1000) })
        .rejected_as(Rejection::TokenSpent);
}

#[test]
fn a_revoked_connector_does_not_give_its_token_back() {
    let revoked = Connector { revoked: true, ..connector(1) };
    given([group(BERLIN), Event::put(join_token(1000)), Event::put(revoked)])
        .when(Command::Enrol { connector: connector(2), now: Timestamp(0) })
        .rejected_as(Rejection::TokenSpent);
}

#[test]
fn the_last_owner_stays() {
    let world = || given([user(1), user(2), Event::put(RoleAssignment { user: user_id(1), role: Role::Owner })]);
    world().when(Command::Remove(ObjectKey::User(user_id(1)))).rejected_as(Rejection::LastOwner);
    world().when(set_role(user_id(1), Some(Role::Admin))).rejected_as(Rejection::LastOwner);
    world().when(set_role(user_id(1), None)).rejected_as(Rejection::LastOwner);
    let disabled = User { disabled: true, ..plain_user(1) };
    world().when(Command::Change(disabled.into())).rejected_as(Rejection::LastOwner);
}

#[test]
fn groups_nest_but_not_in_circles() {
    let nested = [user_group(1), user_group(2), user_group(3), nest(1, 2), nest(2, 3)];
    given(nested.clone())
        .when(Command::Put(Membership { group: group_id(3), member: Principal::Group(group_id(1)) }.into()))
        .rejected_as(Rejection::Cycle);
    let mut world = given(nested);
    world.apply(user(7));
    world.apply(Event::put(Membership { group: group_id(3), member: Principal::User(user_id(7)) }));
    let groups = world.tenant().groups_of(user_id(7));
    assert_eq!(groups, BTreeSet::from([group_id(1), group_id(2), group_id(3)]));
    assert_eq!(world.tenant().users_in(group_id(1)), BTreeSet::from([user_id(7)]));
}

#[test]
fn a_circle_made_by_two_controllers_at_once_still_ends() {
    let world = given([user_group(1), user_group(2), nest(1, 2), nest(2, 1), user(7), member(1, 7)]);
    assert_eq!(world.tenant().groups_of(user_id(7)).len(), 2);
}

#[test]
fn a_group_that_a_policy_names_stays() {
    let policy = Policy { people: Selection::only([Principal::Group(group_id(1))]), ..block(1) };
    given([user_group(1), Event::put(policy)])
        .when(Command::Remove(ObjectKey::Group(group_id(1))))
        .rejected_as(Rejection::InUse { what: KindName::Group, by: "policy policy-1".into() });
}

#[test]
fn a_revocation_only_grows() {
    let revoked =
        |sessions, directory| UserRevocation { user: user_id(1), sessions_before: Timestamp(sessions), directory };
    given([Event::put(revoked(100, 5))])
        .when(Command::Put(revoked(50, 9).into()))
        .yields(vec![Event::put(revoked(100, 9))]);
    given([Event::put(revoked(100, 5))]).when(Command::Put(revoked(50, 5).into())).yields(vec![]);
}

#[test]
fn the_longest_path_wins_and_only_at_segment_borders() {
    let world = given([
        group(BERLIN),
        published(1, "https://x.example.com/"),
        published(2, "https://x.example.com/wiki/"),
        published(3, "https://x.example.com/wiki/team/"),
        published(4, "https://only.example.com/app/"),
    ]);
    let find = |host, path| world.snapshot.routes.find(host, path).map(|route| route.app);
    assert_eq!(find("x.example.com", "/"), Some(app_id(1)));
    assert_eq!(find("x.example.com", "/wikipedia"), Some(app_id(1)));
    assert_eq!(find("x.example.com", "/wiki"), Some(app_id(2)));
    assert_eq!(find("x.example.com", "/wiki/teams"), Some(app_id(2)));
    assert_eq!(find("x.example.com", "/wiki/team/a"), Some(app_id(3)));
    assert_eq!(find("only.example.com", "/other"), None);
    assert_eq!(find("y.example.com", "/"), None);
}

/// Attack class R3: Envoy CVE-2021-32777, Traefik CVE-2023-47106, Oathkeeper
/// CVE-2026-33494 and kin: the policy of one path, the content of another.
#[test]
fn a_path_that_a_lenient_server_reads_otherwise_is_seen() {
    let world = given([
        group(BERLIN),
        published(1, "https://x.example.com/"),
        published(2, "https://x.example.com/wiki/"),
        published(3, "https://only.example.com/"),
    ]);
    let routes = &world.snapshot.routes;
    let two_readings = |path: &str| routes.reads_otherwise("x.example.com", path);
    for evil in [
        "/%77iki/x",
        "/%2577iki/x",
        "/%252577iki",
        "/WIKI/x",
        "/Wiki",
        "/wiki;a=b/x",
        "/;a/wiki/x",
        "/wiki./x",
        "/wiki%20/x",
        "/wiki%5Cx",
        "/wiki%2Fx",
        "//wiki/x",
        "/%5cwiki/x",
        // Dots that appear when a path is decoded twice, or thrice.
        "/wiki/%252e%252e/x",
        "/wiki/%252e%252e%252fx",
        "/wiki/%25252e%25252e/x",
        "/a/%252e%252e/wiki/x",
        "/a/..%252fwiki",
        "/wiki/.%252e;v=1/x",
        "/wiki/%25u002e%25u002e/x",
        "/wiki/%25c0%25ae%25c0%25ae/x",
        "/wiki/%c0%ae%c0%ae%c0%afx",
        // Out for who decodes twice, and back again for who decodes once more.
        "/wiki/%252e%252e/a/%25252e%25252e/wiki/x",
    ] {
        assert!(two_readings(evil), "{evil}");
    }
    for good in [
        "/",
        "/wiki",
        "/wiki/Page%20One",
        "/wiki/a;b=c",
        "/wiki/%7Euser",
        "/Other/%77iki",
        "/wikipedia",
        "/a.b/c~d",
        "/100%25",
        "/v1.0/",
        "/wiki/..hidden/x...y",
        "/wiki/a%252eb",
    ] {
        assert!(!two_readings(good), "{good}");
    }
    let alone = |path: &str| routes.reads_otherwise("only.example.com", path);
    assert!(!alone("/WIKI/%77") && !alone("/a/%252e%252e/b"), "where nothing is told apart nothing is refused");
}

/// PUB-15, PUB-16 and PUB-19.
#[test]
fn a_wildcard_takes_what_is_not_published_by_name() {
    let mut complex = app(4, "https://shop.example.com/");
    complex.segments = vec![Segment {
        external: ExternalUrl::parse("https://api.example.com/v1/").unwrap(),
        origin: Origin::parse("http://10.0.0.2").unwrap(),
    }];
    let mut world = given([
        group(BERLIN),
        published(1, "https://*.example.com/"),
        published(2, "https://wiki.example.com/team/"),
        Event::put(complex.clone()),
    ]);
    let find = |world: &Snapshot, host, path| world.routes.find(host, path).map(|route| (route.app, route.segment));
    assert_eq!(find(&world.snapshot, "any.example.com", "/x"), Some((app_id(1), 0)));
    assert_eq!(find(&world.snapshot, "wiki.example.com", "/team/x"), Some((app_id(2), 0)));
    assert_eq!(find(&world.snapshot, "wiki.example.com", "/x"), None, "a name of its own is no part of the wildcard");
    assert_eq!(find(&world.snapshot, "a.b.example.com", "/"), None, "one label");
    assert_eq!(find(&world.snapshot, "example.com", "/"), None);
    assert_eq!(find(&world.snapshot, "api.example.com", "/v1"), Some((app_id(4), 1)));
    assert_eq!(find(&world.snapshot, "api.example.com", "/v2"), None, "only what is listed");
    complex.segments.clear();
    world.apply(Event::put(complex));
    assert_eq!(find(&world.snapshot, "api.example.com", "/v1"), Some((app_id(1), 0)));
}

#[test]
fn an_address_belongs_to_one_application_segments_too() {
    let mut shop = app(1, "https://shop.example.com/");
    let segment = |url: &str| Segment {
        external: ExternalUrl::parse(url).unwrap(),
        origin: Origin::parse("http://10.0.0.2").unwrap(),
    };
    shop.segments = vec![segment("https://api.example.com/")];
    let taken = |url: &str| Rejection::UrlTaken { url: url.into() };
    given([group(BERLIN), Event::put(shop.clone())])
        .when(publish(2, "https://api.example.com/"))
        .rejected_as(taken("https://api.example.com/"));
    shop.segments.push(segment("https://shop.example.com/"));
    given([group(BERLIN)]).when(Command::Create(shop.into())).rejected_as(taken("https://shop.example.com/"));
}

#[test]
fn moving_an_application_frees_its_old_url() {
    let mut world = given([group(BERLIN), published(HR, "https://old.example.com/")]);
    world.apply(Event::put(app(HR, "https://new.example.com/")));
    assert!(world.snapshot.routes.on_host("old.example.com").is_empty());
    assert!(!world.snapshot.routes.on_host("new.example.com").is_empty());
    world.apply(Event::Removed(ObjectKey::App(app_id(HR))));
    assert!(world.snapshot.routes.on_host("new.example.com").is_empty());
}

#[test]
fn urls_and_origins_are_right_by_construction() {
    for good in ["https://a.example.com", "https://A.example.com:8443/", "https://a.example.com/x/y"] {
        assert!(ExternalUrl::parse(good).is_ok(), "{good}");
    }
    for bad in [
        "http://a.example.com",
        "https://",
        "https://u@a.example.com",
        "https://a..example.com",
        "https://a.example.com/../x",
        "https://a.example.com//x",
        "https://a.example.com/%2e",
        "https://-a.example.com/",
    ] {
        assert!(ExternalUrl::parse(bad).is_err(), "{bad}");
    }
    for (good, canonical) in [
        ("http://10.0.0.1:3000", "http://10.0.0.1:3000"),
        ("https://Wiki.internal/", "https://wiki.internal:443"),
        ("h2c://[::1]:50051", "h2c://[::1]:50051"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
        ("http://my_host:80", "http://my_host:80"),
    ] {
        assert_eq!(Origin::parse(good).unwrap().to_string(), canonical);
    }
    for bad in [
        "ftp://a",
        "http://a/b",
        "http://a:0",
        "http://a:b",
        "http://u@a",
        "unix:run",
        "http://[::1",
        "http://",
        "a:80",
    ] {
        assert!(Origin::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn http_keeps_its_own_headers() {
    assert!(HeaderName::parse("X-Remote-User").is_ok());
    for bad in ["Host", "x-forwarded-for", "Cookie", "X_User", "", "a b", "Transfer-Encoding", "Postern-Assertion"] {
        assert!(HeaderName::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_session_ends_in_every_way_it_should() {
    let now = Timestamp(1_000_000_000);
    let tenant = given([]).tenant().clone();
    assert_eq!(claims(now).check(&tenant, now), Ok(()));
    assert_eq!(claims(now).check(&tenant, now.plus_seconds(TOKEN_LIFE_S)), Err(SessionFault::Renew));
    assert_eq!(claims(now).check(&tenant, now.plus_seconds(SESSION_LIFE_S)), Err(SessionFault::Over));
    assert_eq!(claims(now.plus_seconds(61)).check(&tenant, now), Err(SessionFault::Over), "issued in the future");
    for (ahead_s, of_now) in [(-61, false), (-60, true), (0, true), (TOKEN_LIFE_S - 1, true), (TOKEN_LIFE_S, false)] {
        assert_eq!(claims(now).is_of_now(now.plus_seconds(ahead_s)), of_now, "{ahead_s} s ahead");
    }

    let revoked = given([Event::put(SessionRevocation { session: SessionId(id(9)), at: now })]);
    assert_eq!(claims(now).check(revoked.tenant(), now), Err(SessionFault::Over));

    let before = |sessions_before, directory| {
        given([Event::put(UserRevocation { user: user_id(1), sessions_before, directory })])
    };
    assert_eq!(claims(now).check(before(Timestamp(now.0 + 1), 0).tenant(), now), Err(SessionFault::Over));
    assert_eq!(claims(now).check(before(now, 0).tenant(), now), Ok(()), "a session begun at the revocation lives");
    assert_eq!(claims(now).check(before(Timestamp(0), 8).tenant(), now), Err(SessionFault::Renew));
    assert_eq!(claims(now).check(before(Timestamp(0), 7).tenant(), now), Ok(()));

    let ended = |ms: i64| given([Event::put(AllSessionsEnded { before: Timestamp(ms) })]);
    assert_eq!(claims(now).check(ended(now.0 + 1).tenant(), now), Err(SessionFault::Over));
    assert_eq!(claims(now).check(ended(now.0).tenant(), now), Ok(()), "a session begun at the end of all lives");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn replay_is_idempotent_and_the_last_event_of_each_subject_is_enough(commands in wishes()) {
        let (snapshot, history) = run(commands);
        let mut again = fold(&history);
        prop_assert_eq!(&again, &snapshot);
        for event in &history {
            again.apply(&tenant_id(), event.clone(), 1);
        }
        prop_assert_eq!(&again, &snapshot, "replaying the whole history changes nothing");
        prop_assert_eq!(fold(&last_per_subject(&history)), snapshot);
    }

    #[test]
    fn order_between_subjects_does_not_matter(commands in wishes(), seed in any::<u64>()) {
        let (_, history) = run(commands);
        let mut last = last_per_subject(&history);
        let in_order = fold(&last);
        shuffle(&mut last, seed);
        prop_assert_eq!(fold(&last), in_order);
    }

    #[test]
    fn a_repeated_command_yields_nothing_and_no_event_is_ignored(commands in wishes()) {
        let mut snapshot = Snapshot::default();
        for command in commands {
            let Ok(events) = decide(&snapshot, &tenant_id(), command.clone()) else { continue };
            let before = snapshot.clone();
            for event in &events {
                snapshot.apply(&tenant_id(), event.clone(), 1);
            }
            prop_assert!(events.is_empty() || snapshot != before, "an event that changes nothing: {:?}", events);
            prop_assert_eq!(decide(&snapshot, &tenant_id(), command), Ok(vec![]));
        }
    }

    #[test]
    fn one_more_blocking_policy_never_grants_more(ids in prop::collection::btree_set(1u8..5, 0..4), extra in 5u8..9, mfa in any::<bool>()) {
        let facts_groups = BTreeSet::new();
        let satisfied = if mfa { BTreeSet::from([Requirement::Mfa]) } else { BTreeSet::new() };
        let who = SignedIn { user: user_id(1), groups: &facts_groups, satisfied: &satisfied, at: None };
        let facts = Facts::new(app_id(1), "10.0.0.1".parse().unwrap(), Some(who), Timestamp(0));
        let mut policies = Policies::default();
        for n in ids {
            let grant = if n % 2 == 0 { Grant::RequireAll(BTreeSet::from([Requirement::Mfa])) } else { Grant::RequireAny(BTreeSet::new()) };
            policies.insert(Policy { grant, ..block(n) });
        }
        policies.insert(block(extra));
        let verdict = policy::evaluate(policies.for_app(app_id(1)), &facts);
        prop_assert_eq!(verdict.decision, Decision::Deny(PolicyId(id(extra))));
    }
}

// ---------------------------------------------------------------- helpers

const BERLIN: u8 = 200;
const HR: u8 = 1;
const PAYROLL: u8 = 2;

fn id(n: u8) -> Uuid {
    Uuid::from_u128(n.into())
}

fn app_id(n: u8) -> AppId {
    AppId(id(n))
}

fn user_id(n: u8) -> UserId {
    UserId(id(n))
}

fn group_id(n: u8) -> GroupId {
    GroupId(id(n))
}

fn tenant_id() -> TenantId {
    TenantId::default_tenant()
}

struct World {
    snapshot: Snapshot,
}

struct Outcome(Result<Vec<Event>, Rejection>);

fn given(events: impl IntoIterator<Item = Event>) -> World {
    let mut world = World { snapshot: Snapshot::default() };
    world.apply(Event::put(TenantSettings { domain: "example.com".into(), public_port: 443, relays: vec![] }));
    for event in events {
        world.apply(event);
    }
    world
}

impl World {
    fn apply(&mut self, event: Event) {
        self.snapshot.apply(&tenant_id(), event, 1);
    }

    fn tenant(&self) -> &Tenant {
        self.snapshot.tenant(&tenant_id()).unwrap()
    }

    fn when(&self, command: Command) -> Outcome {
        Outcome(decide(&self.snapshot, &tenant_id(), command))
    }
}

impl Outcome {
    fn rejected_as(self, rejection: Rejection) {
        assert_eq!(self.0, Err(rejection));
    }

    fn yields(self, events: Vec<Event>) {
        assert_eq!(self.0, Ok(events));
    }
}

fn group(n: u8) -> Event {
    Event::put(ConnectorGroup {
        id: ConnectorGroupId(id(n)),
        name: Name::parse(&format!("group-{n}")).unwrap(),
        labels: Default::default(),
    })
}

fn app(n: u8, url: &str) -> App {
    let name = Name::parse(&format!("app-{n}")).unwrap();
    let (external, origin) = (ExternalUrl::parse(url).unwrap(), Origin::parse("http://10.0.0.1:80").unwrap());
    App::new(app_id(n), name, external, origin, ConnectorGroupId(id(BERLIN)))
}

fn published(n: u8, url: &str) -> Event {
    Event::put(app(n, url))
}

fn publish(n: u8, url: &str) -> Command {
    Command::Create(app(n, url).into())
}

fn join_token(expires: i64) -> JoinToken {
    JoinToken {
        id: JoinTokenId(id(50)),
        group: ConnectorGroupId(id(BERLIN)),
        secret_hash: vec![1],
        expires: Timestamp(expires),
    }
}

fn connector(n: u8) -> Connector {
    Connector {
        id: ConnectorId(id(n)),
        name: Name::parse("c").unwrap(),
        group: ConnectorGroupId(id(BERLIN)),
        public_key: vec![n],
        join_token: JoinTokenId(id(50)),
        revoked: false,
    }
}

fn plain_user(n: u8) -> User {
    User {
        id: user_id(n),
        username: Username::parse(&format!("user{n}")).unwrap(),
        display_name: "".into(),
        email: "".into(),
        disabled: false,
        labels: Default::default(),
    }
}

fn set_role(user: UserId, role: Option<Role>) -> Command {
    match role {
        Some(role) => Command::Put(RoleAssignment { user, role }.into()),
        None => Command::Remove(ObjectKey::RoleAssignment(user)),
    }
}

fn user(n: u8) -> Event {
    Event::put(plain_user(n))
}

fn user_group(n: u8) -> Event {
    Event::put(Group { id: group_id(n), name: Name::parse(&format!("g{n}")).unwrap(), labels: Default::default() })
}

fn nest(outer: u8, inner: u8) -> Event {
    Event::put(Membership { group: group_id(outer), member: Principal::Group(group_id(inner)) })
}

fn member(group: u8, user: u8) -> Event {
    Event::put(Membership { group: group_id(group), member: Principal::User(user_id(user)) })
}

fn block(n: u8) -> Policy {
    Policy::new(PolicyId(id(n)), Name::parse(&format!("policy-{n}")).unwrap(), Grant::Block)
}

fn claims(now: Timestamp) -> SessionClaims {
    SessionClaims {
        iss: "https://login".into(),
        aud: app_id(1).to_string(),
        sub: user_id(1),
        sid: SessionId(id(9)),
        iat: now.seconds(),
        exp: now.seconds() + TOKEN_LIFE_S,
        started_ms: now.0,
        directory: 7,
        satisfied: BTreeSet::new(),
        amr: vec!["pwd".into()],
        tenant: tenant_id(),
        preferred_username: "user1".into(),
        name: String::new(),
        email: String::new(),
        groups: vec![],
        groups_left_out: false,
        group_names: vec![],
        nonce: None,
    }
}

/// Any command over a small world, so that they meet each other.
fn wishes() -> impl Strategy<Value = Vec<Command>> {
    let n = 1u8..4;
    let principal = prop_oneof![
        Just(Principal::Everyone),
        n.clone().prop_map(|n| Principal::User(user_id(n))),
        n.clone().prop_map(|n| Principal::Group(group_id(n))),
    ];
    let urls =
        prop::sample::select(vec!["https://a.example.com/", "https://a.example.com/x/", "https://b.example.com/"]);
    let role = prop::sample::select(vec![None, Some(Role::Auditor), Some(Role::Admin), Some(Role::Owner)]);
    let wish = prop_oneof![
        Just(Command::Create(
            ConnectorGroup {
                id: ConnectorGroupId(id(BERLIN)),
                name: Name::parse("berlin").unwrap(),
                labels: Default::default()
            }
            .into()
        )),
        (n.clone(), urls.clone()).prop_map(|(n, url)| publish(n, url)),
        (n.clone(), urls).prop_map(|(n, url)| Command::Change(app(n, url).into())),
        n.clone().prop_map(|n| Command::Remove(ObjectKey::App(app_id(n)))),
        Just(Command::Remove(ObjectKey::ConnectorGroup(ConnectorGroupId(id(BERLIN))))),
        Just(Command::Put(join_token(1000).into())),
        n.clone().prop_map(|n| Command::Enrol { connector: connector(n), now: Timestamp(0) }),
        n.clone().prop_map(|n| Command::RevokeConnector(ConnectorId(id(n)))),
        (n.clone(), principal.clone())
            .prop_map(|(n, principal)| Command::Put(Assignment { app: app_id(n), principal }.into())),
        (n.clone(), principal.clone()).prop_map(|(n, principal)| Command::Remove(ObjectKey::Assignment(
            AssignmentKey { app: app_id(n), principal }
        ))),
        (n.clone(), principal.clone())
            .prop_map(|(n, it)| Command::Create(Policy { people: Selection::only([it]), ..block(n) }.into())),
        n.clone().prop_map(|n| Command::Change(Policy { apps: Selection::only([app_id(1)]), ..block(n) }.into())),
        n.clone().prop_map(|n| Command::Remove(ObjectKey::Policy(PolicyId(id(n))))),
        (n.clone(), role).prop_map(|(n, role)| set_role(user_id(n), role)),
        n.clone().prop_map(|n| Command::Create(plain_user(n).into())),
        n.clone().prop_map(|n| Command::Change(User { disabled: true, ..plain_user(n) }.into())),
        n.clone().prop_map(|n| Command::Remove(ObjectKey::User(user_id(n)))),
        n.clone().prop_map(|n| Command::Put(
            Credential { user: user_id(n), proof: Proof::Password, sealed: vec![1] }.into()
        )),
        n.clone().prop_map(|n| Command::Create(
            Group { id: group_id(n), name: Name::parse(&format!("g{n}")).unwrap(), labels: Default::default() }.into()
        )),
        n.clone().prop_map(|n| Command::Remove(ObjectKey::Group(group_id(n)))),
        (n.clone(), principal.clone())
            .prop_map(|(n, member)| Command::Put(Membership { group: group_id(n), member }.into())),
        (n.clone(), principal).prop_map(|(n, member)| Command::Remove(ObjectKey::Membership(MembershipKey {
            group: group_id(n),
            member
        }))),
        (n.clone(), 0i64..100, 0u64..9).prop_map(|(n, at, directory)| Command::Put(
            UserRevocation { user: user_id(n), sessions_before: Timestamp(at), directory }.into()
        )),
        outdating(),
        (0i64..100).prop_map(|at| Command::Put(AllSessionsEnded { before: Timestamp(at) }.into())),
    ];
    prop::collection::vec(wish, 0..60)
}

fn outdating() -> impl Strategy<Value = Command> {
    (prop::collection::btree_set(1u8..9, 1..4), 0u64..60, 0i64..2_000).prop_map(|(users, directory, s)| {
        let users = users.into_iter().map(user_id).collect();
        Command::OutdateTokens { users, directory, now: Timestamp::from_seconds(s) }
    })
}

fn run(commands: Vec<Command>) -> (Snapshot, Vec<Event>) {
    let mut snapshot = Snapshot::default();
    let mut history = vec![];
    for command in commands {
        for event in decide(&snapshot, &tenant_id(), command).unwrap_or_default() {
            snapshot.apply(&tenant_id(), event.clone(), 1);
            history.push(event);
        }
    }
    (snapshot, history)
}

fn fold(events: &[Event]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for event in events {
        snapshot.apply(&tenant_id(), event.clone(), 1);
    }
    snapshot
}

fn last_per_subject(history: &[Event]) -> Vec<Event> {
    let mut seen = BTreeSet::new();
    let mut last: Vec<Event> =
        history.iter().rev().filter(|event| seen.insert(event.subject().path(&tenant_id()))).cloned().collect();
    last.reverse();
    last
}

fn shuffle(events: &mut [Event], mut seed: u64) {
    for at in (1..events.len()).rev() {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        events.swap(at, (seed >> 33) as usize % (at + 1));
    }
}

/// Two that differ are two subjects, and each is tokens that a subject may have.
#[test]
fn an_identity_is_a_subject_of_its_own() {
    use kinds::IdentityKey;
    let key = |issuer: &str, subject: &str| IdentityKey { issuer: issuer.into(), subject: subject.into() };
    let text = key("https://login.example.com", "auth0|5F >*").to_string();
    assert_eq!(text, "https=3A=2F=2Flogin=2Eexample=2Ecom.auth0=7C5F=20=3E=2A");
    let mut seen = BTreeSet::new();
    for (issuer, subject) in [("a", "b"), ("a.b", ""), ("", "a.b"), ("a=2E", "b"), ("a.", "b"), ("A", "b"), ("é", "b")]
    {
        assert!(seen.insert(key(issuer, subject).to_string()), "{issuer} {subject}");
    }
}
