//! The golden matrix, and a second judge that reads a policy aloud.
//!
//! `matrix.txt` lists every condition, in every state and with every grant,
//! against every kind of request. A change of meaning shows there as a diff that
//! anybody can read. The second judge knows nothing of the first: random
//! policies must come to the same with both.

use super::*;
use crate::policy::Minutes;

/// Renewed by `POSTERN_RENEW_MATRIX=1 cargo test -p model matrix`.
const MATRIX: &str = "src/tests/matrix.txt";

#[test]
#[expect(clippy::disallowed_methods, reason = "renewal is asked for by hand")]
fn the_matrix_of_decisions_is_as_committed() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(MATRIX);
    let now = matrix();
    if std::env::var("POSTERN_RENEW_MATRIX").is_ok() {
        std::fs::write(&path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (now, committed)) in now.lines().zip(committed.lines()).enumerate() {
        assert_eq!(now, committed, "line {} of {MATRIX} differs; if that is meant: POSTERN_RENEW_MATRIX=1", number + 1);
    }
    assert_eq!(now.len(), committed.len(), "{MATRIX} is not whole; POSTERN_RENEW_MATRIX=1 renews it");
}

proptest! {
    #[test]
    fn two_judges_agree(
        policies in prop::collection::vec(any_policy(), 0..5),
        groups in prop::collection::btree_set((1u8..3).prop_map(group_id), 0..3),
        user in prop::option::of(1u8..3),
        app in 1u8..3,
        address in prop::sample::select(vec!["10.1.1.1", "::ffff:10.1.1.1", "8.8.8.8", "2001:db8::1"]),
        mfa in any::<bool>(),
        ago_s in prop::option::of(0u32..8000),
    ) {
        let numbered = |(n, policy)| Policy { id: PolicyId(id(n as u8)), ..policy };
        let policies: Vec<Policy> = policies.into_iter().enumerate().map(numbered).collect();
        let mut filed = Policies::default();
        policies.iter().for_each(|it| filed.insert(it.clone()));
        let satisfied = if mfa { BTreeSet::from([Requirement::Mfa]) } else { BTreeSet::new() };
        let now = Timestamp(10_000_000);
        let at = ago_s.map(|ago| Timestamp(now.0 - i64::from(ago) * 1000));
        let who = user.map(|user| SignedIn { user: user_id(user), groups: &groups, satisfied: &satisfied, at });
        let facts = Facts::new(app_id(app), address.parse().unwrap(), who, now);
        let verdict = policy::evaluate(filed.for_app(facts.app), &facts);
        let said: Vec<_> = policies.iter().map(|it| (it, aloud(it, &facts))).collect();
        let is_on = |it: &&Policy| it.state == State::On;
        let blocked = said.iter().any(|(it, said)| is_on(it) && *said == Some(Said::No));
        let asked = said.iter().any(|(it, said)| is_on(it) && *said == Some(Said::Prove));
        match &verdict.decision {
            Decision::Deny(by) => {
                prop_assert!(blocked && aloud(policies.iter().find(|it| it.id == *by).unwrap(), &facts) == Some(Said::No));
            }
            Decision::Challenge(missing) => {
                prop_assert!(!blocked && asked);
                prop_assert!(missing.iter().all(|it| !is_shown(*it, &facts)), "asks for what was shown");
                // Whoever shows it all, and no more, is let in; recorded facts are judged alike.
                let shown = showing(&facts, missing);
                let later = policy::evaluate(filed.for_app(facts.app), &shown.facts());
                prop_assert_eq!(later.decision, Decision::Grant, "asked again after all was shown");
                for less in easier(missing) {
                    let shown = showing(&facts, &less);
                    let opens = policies.iter().filter(is_on).all(|it| aloud(it, &shown.facts()) != Some(Said::Prove));
                    prop_assert!(!opens, "{less:?} would do, and {missing:?} is asked for");
                }
            }
            Decision::Grant => prop_assert!(!blocked && !asked),
        }
        let of = |state| said.iter().filter(move |(it, _)| it.state == state);
        let applied: BTreeSet<_> = of(State::On).filter(|(_, said)| said.is_some()).map(|(it, _)| it.id).collect();
        let reported = of(State::ReportOnly).filter(|(_, said)| matches!(said, Some(Said::No | Said::Prove)));
        prop_assert_eq!(applied, verdict.involved.applied.iter().copied().collect());
        prop_assert_eq!(
            reported.map(|(it, _)| it.id).collect::<BTreeSet<_>>(),
            verdict.involved.would_refuse.iter().copied().collect()
        );
        prop_assert_eq!(policy::evaluate(filed.for_app(facts.app), &facts.record().facts()), verdict);
    }
}

// -------------------------------------------------------- the second judge

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Yes,
    Prove,
    No,
}

/// What one policy says of a request, `None` when it does not apply.
fn aloud(policy: &Policy, facts: &Facts<'_>) -> Option<Said> {
    let mut people = vec![Principal::Everyone];
    people.extend(facts.user.map(Principal::User));
    people.extend(facts.groups.iter().map(|it| Principal::Group(*it)));
    let spoken_of = |list: &BTreeSet<Principal>| people.iter().any(|it| list.contains(it));
    let within = |list: &BTreeSet<ipnet::IpNet>| {
        list.iter()
            .any(|net| net.network() <= facts.address && facts.address <= net.broadcast() && same_family(*net, facts))
    };
    let chosen = [
        (chosen(&policy.people.scope, spoken_of), spoken_of(&policy.people.except)),
        (chosen(&policy.apps.scope, |it| it.contains(&facts.app)), policy.apps.except.contains(&facts.app)),
        (chosen(&policy.networks.scope, within), within(&policy.networks.except)),
    ];
    if policy.state == State::Off || chosen.iter().any(|(chosen, excepted)| !chosen || *excepted) {
        return None;
    }
    let (shown, asked): (Vec<_>, Vec<_>) = policy.grant.requirements().partition(|it| is_shown(*it, facts));
    Some(match (&policy.grant, shown.is_empty(), asked.is_empty()) {
        (Grant::Block, ..) => Said::No,
        (_, _, true) | (Grant::RequireAny(_), false, _) => Said::Yes,
        (Grant::RequireAll(_) | Grant::RequireAny(_), _, false) => Said::Prove,
    })
}

fn chosen<T>(scope: &Scope<T>, lists: impl Fn(&BTreeSet<T>) -> bool) -> bool {
    match scope {
        Scope::All => true,
        Scope::Only(some) => lists(some),
    }
}

fn same_family(net: ipnet::IpNet, facts: &Facts<'_>) -> bool {
    net.addr().is_ipv4() == facts.address.is_ipv4()
}

fn is_shown(requirement: Requirement, facts: &Facts<'_>) -> bool {
    match requirement {
        Requirement::Mfa => facts.satisfied.iter().any(|it| *it == Requirement::Mfa),
        Requirement::SignInWithin(within) => facts.signed_in_ago_s.is_some_and(|it| it.div_ceil(60) <= within.get()),
    }
}

/// The facts after exactly this was shown beside.
fn showing(facts: &Facts<'_>, requirements: &BTreeSet<Requirement>) -> policy::RecordedFacts {
    let mut later = facts.record();
    for requirement in requirements {
        match requirement {
            Requirement::Mfa => _ = later.satisfied.insert(*requirement),
            Requirement::SignInWithin(within) => {
                let ago_s = within.get() * 60;
                later.signed_in_ago_s = Some(later.signed_in_ago_s.map_or(ago_s, |it| it.min(ago_s)));
            }
        }
    }
    later
}

/// All that is fewer things than these, or the same things and a longer time.
fn easier(asked: &BTreeSet<Requirement>) -> Vec<BTreeSet<Requirement>> {
    let minutes = |some: &BTreeSet<Requirement>| {
        some.iter().find_map(|it| match it {
            Requirement::SignInWithin(within) => Some(within.get()),
            Requirement::Mfa => None,
        })
    };
    let times =
        [None, Some(60), Some(30)].map(|it| it.map(|it| Requirement::SignInWithin(Minutes::parse(it).unwrap())));
    let all = times.into_iter().flat_map(|time| [None, Some(Requirement::Mfa)].map(|mfa| time.into_iter().chain(mfa)));
    let all = all.map(BTreeSet::from_iter);
    let same_things = |it: &BTreeSet<_>| it.contains(&Requirement::Mfa) == asked.contains(&Requirement::Mfa);
    let longer = |it: &BTreeSet<_>| it.len() == asked.len() && same_things(it) && minutes(it) > minutes(asked);
    all.filter(|it| it.len() < asked.len() || longer(it)).collect()
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let hour = Requirement::SignInWithin(Minutes::parse(60).unwrap());
    let half = Requirement::SignInWithin(Minutes::parse(30).unwrap());
    let person = prop_oneof![
        Just(Principal::Everyone),
        (1u8..3).prop_map(|n| Principal::User(user_id(n))),
        (1u8..3).prop_map(|n| Principal::Group(group_id(n))),
    ];
    let net = prop::sample::select(vec!["10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32"]);
    let asks = prop::collection::btree_set(prop::sample::select(vec![Requirement::Mfa, hour, half]), 0..3);
    let grant = (0u8..5, asks).prop_map(|(n, asks)| match n {
        0 => Grant::Block,
        1 | 2 => Grant::RequireAny(asks),
        _ => Grant::RequireAll(asks),
    });
    (
        prop::sample::select(vec![State::On, State::On, State::Off, State::ReportOnly]),
        any_selection(person),
        any_selection((1u8..3).prop_map(app_id)),
        any_selection(net.prop_map(|it| it.parse().unwrap())),
        grant,
    )
        .prop_map(|(state, people, apps, networks, grant)| Policy {
            state,
            people,
            apps,
            networks,
            grant,
            ..block(1)
        })
}

fn any_selection<T: Copy + Ord + std::fmt::Debug + 'static>(
    one: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Selection<T>> {
    let one = one.boxed();
    let except = prop_oneof![
        3 => Just(BTreeSet::new()),
        1 => prop::collection::btree_set(one.clone(), 0..2),
    ];
    let scope = prop_oneof![
        2 => Just(Scope::All),
        3 => prop::collection::btree_set(one, 0..3).prop_map(Scope::Only),
    ];
    (scope, except).prop_map(|(scope, except)| Selection { scope, except })
}

// -------------------------------------------------------------- the matrix

const CONDITIONS: [&str; 19] = [
    "always",
    "people only the user",
    "people only their group",
    "people only others",
    "people only another group",
    "people nobody",
    "people except the user",
    "people except their group",
    "people except others",
    "people except everyone",
    "apps only this",
    "apps only another",
    "apps except this",
    "apps except another",
    "networks only inside",
    "networks only IPv6",
    "networks except inside",
    "networks except IPv6",
    "people only their group, except the user",
];

fn conditional(condition: &str, policy: Policy) -> Policy {
    let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
    let (user, other) = (Principal::User(user_id(1)), Principal::User(user_id(2)));
    let (group, other_group) = (Principal::Group(group_id(1)), Principal::Group(group_id(2)));
    let people = |people| Policy { people, ..policy.clone() };
    let apps = |apps| Policy { apps, ..policy.clone() };
    let networks = |networks| Policy { networks, ..policy.clone() };
    match condition {
        "always" => policy,
        "people only the user" => people(Selection::only([user])),
        "people only their group" => people(Selection::only([group])),
        "people only others" => people(Selection::only([other])),
        "people only another group" => people(Selection::only([other_group])),
        "people nobody" => people(Selection::only([])),
        "people except the user" => people(Selection::all_except([user])),
        "people except their group" => people(Selection::all_except([group])),
        "people except others" => people(Selection::all_except([other, other_group])),
        "people except everyone" => people(Selection::all_except([Principal::Everyone])),
        "people only their group, except the user" => people(Selection::only([group]).except([user])),
        "apps only this" => apps(Selection::only([app_id(1)])),
        "apps only another" => apps(Selection::only([app_id(2)])),
        "apps except this" => apps(Selection::all_except([app_id(1)])),
        "apps except another" => apps(Selection::all_except([app_id(2)])),
        "networks only inside" => networks(Selection::only([net("10.0.0.0/8")])),
        "networks only IPv6" => networks(Selection::only([net("2001:db8::/32")])),
        "networks except inside" => networks(Selection::all_except([net("10.0.0.0/8")])),
        "networks except IPv6" => networks(Selection::all_except([net("2001:db8::/32")])),
        other => panic!("unknown condition {other}"),
    }
}

/// A column: who asks, from where, and what their sign-in has shown.
type Kind = (&'static str, Option<(bool, bool)>, &'static str);

fn kinds() -> Vec<(String, Kind)> {
    let people = [("guest", None), ("pwd", Some((false, false))), ("mfa", Some((true, false)))];
    let recent = [("new", Some((false, true))), ("mfa+new", Some((true, true)))];
    let places = [("in", "::ffff:10.1.1.1"), ("out", "8.8.8.8"), ("v6", "2001:db8::1")];
    let people = people.into_iter().chain(recent);
    people
        .flat_map(|(who, shown)| places.map(|(place, address)| (format!("{who}/{place}"), (who, shown, address))))
        .collect()
}

fn matrix() -> String {
    let [hour, half] = [60, 30].map(|it| Requirement::SignInWithin(Minutes::parse(it).unwrap()));
    let grants = [
        ("block", Grant::Block),
        ("mfa", Grant::RequireAll(BTreeSet::from([Requirement::Mfa]))),
        ("new", Grant::RequireAll(BTreeSet::from([hour]))),
        ("all of mfa, new", Grant::RequireAll(BTreeSet::from([Requirement::Mfa, hour]))),
        ("any of mfa, new", Grant::RequireAny(BTreeSet::from([Requirement::Mfa, hour]))),
        ("nothing", Grant::RequireAll(BTreeSet::new())),
    ];
    let mut text = String::from(
        "# Decisions of one policy: condition, state and grant against kinds of request.\n\
         # Request: guest (passthrough), or what the sign-in has shown: pwd, mfa, new (a sign-in within\n\
         # 60 minutes); from in (10.1.1.1 inside IPv6), out (8.8.8.8) or v6. Decision: - let in, deny, or what\n\
         # is asked for; * when a report-only policy would have refused.\n",
    );
    let row = |first: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|it| format!(" {it:>8}")).collect();
        format!("{first:<60}{cells}\n")
    };
    text += &row("", kinds().into_iter().map(|(name, _)| name).collect());
    for condition in CONDITIONS {
        for (state, state_name) in [(State::On, "on"), (State::ReportOnly, "report-only"), (State::Off, "off")] {
            for (asks, grant) in &grants {
                let policy = conditional(condition, Policy { state, grant: grant.clone(), ..block(1) });
                let cells = kinds().iter().map(|(_, kind)| decided(std::slice::from_ref(&policy), *kind)).collect();
                text += &row(&format!("{condition} | {state_name} | {asks}"), cells);
            }
        }
    }
    text += "\n# Two policies that apply to everything. new is a sign-in within 60 minutes, newer within 30.\n";
    let any = |some: &[Requirement]| Grant::RequireAny(some.iter().copied().collect());
    let grants = [
        ("mfa", any(&[Requirement::Mfa])),
        ("new", any(&[hour])),
        ("newer", any(&[half])),
        ("any of mfa, new", any(&[Requirement::Mfa, hour])),
        ("any of mfa, newer", any(&[Requirement::Mfa, half])),
        ("any of new, newer", any(&[hour, half])),
        ("any of mfa, new, newer", any(&[Requirement::Mfa, hour, half])),
    ];
    for (n, (first, grant)) in grants.iter().enumerate() {
        for (second, other) in &grants[n..] {
            let both = [(1, grant), (2, other)].map(|(n, grant)| Policy { grant: grant.clone(), ..block(n) });
            let cells = kinds().iter().map(|(_, kind)| decided(&both, *kind)).collect();
            text += &row(&format!("{first} | {second}"), cells);
        }
    }
    text
}

fn decided(all: &[Policy], (_, shown, address): Kind) -> String {
    let mut policies = Policies::default();
    all.iter().for_each(|it| policies.insert(it.clone()));
    let groups = BTreeSet::from([group_id(1)]);
    let now = Timestamp(100_000_000);
    let (mfa, recent) = shown.unwrap_or_default();
    let satisfied = if mfa { BTreeSet::from([Requirement::Mfa]) } else { BTreeSet::new() };
    let ago_ms = if recent { 60 * 60_000 } else { 60 * 60_000 + 1 };
    let at = Some(Timestamp(now.0 - ago_ms));
    let who = shown.map(|_| SignedIn { user: user_id(1), groups: &groups, satisfied: &satisfied, at });
    let facts = Facts::new(app_id(1), address.parse().unwrap(), who, now);
    let verdict = policy::evaluate(policies.for_app(facts.app), &facts);
    let short = |it: &Requirement| match it {
        Requirement::Mfa => "mfa",
        Requirement::SignInWithin(within) if within.get() == 30 => "newer",
        Requirement::SignInWithin(_) => "new",
    };
    let decision = match &verdict.decision {
        Decision::Grant => "-".to_owned(),
        Decision::Deny(_) => "deny".to_owned(),
        Decision::Challenge(missing) => missing.iter().map(short).collect::<Vec<_>>().join("+"),
    };
    if verdict.involved.would_refuse.is_empty() { decision } else { format!("{decision}*") }
}
