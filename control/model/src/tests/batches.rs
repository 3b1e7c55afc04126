//! Many commands as one change.

use super::*;
use crate::{app::PreAuthentication, event::Stream};

#[test]
fn an_application_comes_after_the_policy_that_guards_it() {
    let world = given([group(BERLIN), user(1)]);
    let guard = Policy { apps: Selection::only([app_id(HR)]), ..block(1) };
    let steps = world.decide_all(vec![
        publish(HR, "https://hr.example.com/"),
        Command::Put(Assignment { app: app_id(HR), principal: Principal::Everyone }.into()),
        Command::Create(guard.clone().into()),
    ]);
    let expected = vec![
        Event::put(guard),
        published(HR, "https://hr.example.com/"),
        Event::put(Assignment { app: app_id(HR), principal: Principal::Everyone }),
    ];
    assert_eq!(steps, Ok(vec![Step { stream: Stream::Config, events: expected }]));
}

#[test]
fn of_many_commands_all_or_none_happen() {
    let world = given([group(BERLIN)]);
    let outcome = world.decide_all(vec![publish(1, "https://a.example.com/"), publish(2, "https://a.example.com/")]);
    assert_eq!(outcome, Err(Rejection::UrlTaken { url: "https://a.example.com/".into() }));
}

#[test]
fn a_command_may_refer_to_what_an_earlier_one_makes() {
    let world = given([]);
    let steps = world.decide_all(vec![
        Command::Create(
            ConnectorGroup {
                id: ConnectorGroupId(id(BERLIN)),
                name: Name::parse("berlin").unwrap(),
                labels: Default::default(),
            }
            .into(),
        ),
        publish(HR, "https://hr.example.com/"),
        Command::Create(plain_user(1).into()),
        Command::Put(Assignment { app: app_id(HR), principal: Principal::User(user_id(1)) }.into()),
    ]);
    let streams: Vec<_> = steps.unwrap().iter().map(|it| (it.stream, it.events.len())).collect();
    assert_eq!(streams, [(Stream::Config, 1), (Stream::Directory, 1), (Stream::Config, 2)]);
}

#[test]
fn a_policy_that_moves_guards_both_places_in_between() {
    let guards = |n: u8| Policy { apps: Selection::only([app_id(n)]), ..block(1) };
    let mut world = given([group(BERLIN), published(1, "https://a.example.com/")]);
    world.apply(Event::put(guards(1)));
    let alone = world.decide_all(vec![Command::Change(guards(1).for_apps(&[1, 2]).into())]);
    assert_eq!(alone, Err(Rejection::Dangling { kind: KindName::App, key: id(2).to_string() }));
    let steps =
        world.decide_all(vec![publish(2, "https://b.example.com/"), Command::Change(guards(2).into())]).unwrap();
    let events: Vec<Event> = steps.into_iter().flat_map(|it| it.events).collect();
    assert_eq!(events[0], Event::put(guards(1).for_apps(&[1, 2])));
    assert_eq!(events[2], Event::put(guards(2)));
}

/// Found by the property below.
#[test]
fn a_policy_that_is_removed_and_made_again_guards_until_the_end() {
    let open_to_all = App { pre_authentication: PreAuthentication::Passthrough, ..app(2, "https://a.example.com/") };
    let looser = Policy { networks: Selection::all_except(["10.0.0.0/8".parse().unwrap()]), ..block(1) };
    let mut world = given([group(BERLIN), Event::put(open_to_all)]);
    world.apply(Event::put(Assignment { app: app_id(2), principal: Principal::Everyone }));
    world.apply(Event::put(block(1)));
    let steps = world.decide_all(vec![
        Command::Remove(ObjectKey::Policy(PolicyId(id(1)))),
        Command::Change(app(2, "https://a.example.com/").into()),
        Command::Create(looser.clone().into()),
    ]);
    let events: Vec<Event> = steps.unwrap().into_iter().flat_map(|it| it.events).collect();
    assert_eq!(events.last(), Some(&Event::put(looser)), "{events:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_opens_in_between(before in configuring(0..25), wished in configuring(0..12)) {
        let people = [group(BERLIN), user(1), user(2), user_group(1), member(1, 1)];
        let mut world = given(people);
        for command in before {
            for event in decide(&world.snapshot, &tenant_id(), command).unwrap_or_default() {
                world.apply(event);
            }
        }
        // Those that are rejected take the others with them; they are left out.
        let mut accepted = Vec::new();
        let mut draft = world.snapshot.clone();
        for command in wished {
            let Ok(events) = decide(&draft, &tenant_id(), command.clone()) else { continue };
            events.into_iter().for_each(|event| draft.apply(&tenant_id(), event, 1));
            accepted.push(command);
        }
        let steps = world.decide_all(accepted).unwrap();
        let events: Vec<Event> = steps.into_iter().flat_map(|it| it.events).collect();
        let after = World { snapshot: draft };
        let mut between = World { snapshot: world.snapshot.clone() };
        for event in &events {
            between.apply(event.clone());
            for way in ways() {
                let safe = !between.lets(way) || world.lets(way) || after.lets(way);
                prop_assert!(safe, "{way:?} is open after {event:?} of {events:#?}");
            }
        }
        let ends = ways().into_iter().all(|way| between.lets(way) == after.lets(way));
        prop_assert!(ends, "the order of events changes what comes of them");
    }
}

/// Somebody's way to an application.
type Way = (u8, u8, &'static str, bool);

fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for app in 1..4 {
        for user in 1..3 {
            for address in ["10.0.0.1", "192.0.2.1"] {
                ways.extend([false, true].map(|mfa| (app, user, address, mfa)));
            }
        }
    }
    ways
}

/// Commands of CONFIG over a small world, policies above all.
fn configuring(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Command>> {
    let n = 1u8..4;
    let principal = prop_oneof![
        Just(Principal::Everyone),
        (1u8..3).prop_map(|n| Principal::User(user_id(n))),
        Just(Principal::Group(group_id(1))),
    ];
    let some_apps = prop::collection::btree_set((1u8..4).prop_map(app_id), 0..3);
    let nets = prop::sample::select(vec![vec![], vec!["10.0.0.0/8"], vec!["192.0.2.0/24"]]);
    let grant = prop::sample::select(vec![
        Grant::Block,
        Grant::RequireAll(BTreeSet::from([Requirement::Mfa])),
        Grant::RequireAny(BTreeSet::from([Requirement::Mfa])),
        Grant::RequireAll(BTreeSet::new()),
    ]);
    let state = prop::sample::select(vec![State::On, State::On, State::Off, State::ReportOnly]);
    let policy = (
        (n.clone(), state, grant),
        prop::collection::vec(principal.clone(), 0..2),
        prop::collection::vec(principal.clone(), 0..2),
        some_apps.clone(),
        some_apps,
        nets.clone(),
        nets,
    );
    let parse = |nets: Vec<&str>| nets.into_iter().map(|it| it.parse().unwrap()).collect::<Vec<_>>();
    let policy =
        policy.prop_map(move |((n, state, grant), include, exclude, apps, exclude_apps, nets, exclude_nets)| {
            let (networks, exclude_networks) = (parse(nets), parse(exclude_nets));
            Policy {
                state,
                grant,
                people: selection(include, exclude),
                apps: selection(apps, exclude_apps),
                networks: selection(networks, exclude_networks),
                ..block(n)
            }
        });
    let entrance = prop::sample::select(vec![PreAuthentication::SignIn, PreAuthentication::Passthrough]);
    let app = (n.clone(), entrance).prop_map(|(n, pre_authentication)| {
        Box::new(App { pre_authentication, ..app(n, &format!("https://a{n}.example.com/")) })
    });
    let wish = prop_oneof![
        3 => app.clone().prop_map(|it| Command::Create((*it).into())),
        1 => app.prop_map(|it| Command::Change((*it).into())),
        1 => n.clone().prop_map(|n| Command::Remove(ObjectKey::App(app_id(n)))),
        3 => (n.clone(), principal.clone()).prop_map(|(n, principal)| Command::Put(Assignment { app: app_id(n), principal }.into())),
        1 => (n.clone(), principal).prop_map(|(n, principal)| Command::Remove(ObjectKey::Assignment(AssignmentKey { app: app_id(n), principal }))),
        2 => policy.clone().prop_map(|it| Command::Create(it.into())),
        2 => policy.prop_map(|it| Command::Change(it.into())),
        1 => n.prop_map(|n| Command::Remove(ObjectKey::Policy(PolicyId(id(n))))),
    ];
    prop::collection::vec(wish, count)
}

impl Policy {
    fn for_apps(self, apps: &[u8]) -> Self {
        Self { apps: Selection::only(apps.iter().map(|n| app_id(*n))), ..self }
    }
}

impl World {
    pub(super) fn decide_all(&self, commands: Vec<Command>) -> Result<Vec<Step>, Rejection> {
        decide_all(&self.snapshot, &tenant_id(), commands).map_err(Rejection::from)
    }

    /// May they enter?
    fn lets(&self, (app, user, address, mfa): Way) -> bool {
        let Some(published) = self.tenant().app(app_id(app)) else { return false };
        let user = (published.pre_authentication == PreAuthentication::SignIn).then_some(user_id(user));
        let groups = user.map_or(BTreeSet::new(), |user| self.tenant().groups_of(user));
        let satisfied = if mfa { BTreeSet::from([Requirement::Mfa]) } else { BTreeSet::new() };
        let address = address.parse().unwrap();
        let who = user.map(|user| SignedIn { user, groups: &groups, satisfied: &satisfied, at: None });
        let facts = Facts::new(app_id(app), address, who, Timestamp(0));
        self.tenant().authorize(&facts).is_ok()
    }
}

/// None means all here.
pub(super) fn selection<T: Copy + Ord>(
    some: impl IntoIterator<Item = T>,
    except: impl IntoIterator<Item = T>,
) -> Selection<T> {
    let some: BTreeSet<T> = some.into_iter().collect();
    let of = if some.is_empty() { Selection::default() } else { Selection::only(some) };
    of.except(except)
}
