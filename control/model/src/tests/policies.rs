//! Policies as tables an administrator could review.
//!
//! First the policies, a line each: name, state unless on, conditions, grant.
//! Then sign-ins: who, where from, what they proved, and what must come of it.

use super::{batches::selection, *};

#[test]
fn every_policy_that_applies_must_be_satisfied() {
    check(
        "
        away        network!=10.0.0.0/8           require mfa
        guests      group=2  app=2                block
        drill       report-only                   block

        user  app   address    proof
        1     1     10.1.1.1   -      -> grant
        1     1     8.8.8.8    -      -> challenge
        1     1     8.8.8.8    mfa    -> grant
        1/2   1     10.1.1.1   -      -> grant
        1/2   2     10.1.1.1   mfa    -> deny guests
        -     1     8.8.8.8    -      -> challenge
        ",
    );
}

#[test]
fn a_block_beats_any_grant_and_an_exclusion_beats_a_block() {
    check(
        "
        all-mfa     require mfa
        lockdown    group!=9   block

        user  app   address    proof
        1     1     10.1.1.1   mfa    -> deny lockdown
        1/9   1     10.1.1.1   mfa    -> grant
        1/9   1     10.1.1.1   -      -> challenge
        ",
    );
}

#[test]
fn a_policy_that_is_off_says_nothing() {
    check(
        "
        old   off   block

        user  app   address    proof
        1     1     10.1.1.1   -      -> grant
        ",
    );
}

#[test]
fn an_ipv4_address_in_ipv6_clothes_is_the_same_address() {
    check(
        "
        office   network=10.0.0.0/8   block

        user  app   address            proof
        1     1     ::ffff:10.1.1.1    -      -> deny office
        1     1     2001:db8::1        -      -> grant
        ",
    );
}

#[test]
fn a_requirement_is_written_and_read_alike() {
    let read = |text: &str| text.parse::<Requirement>().map(|it| it.to_string());
    assert_eq!(read("mfa").unwrap(), "mfa");
    assert_eq!(read("sign-in-within:30m").unwrap(), "sign-in-within:30m");
    assert_eq!(read("sign-in-within:8h").unwrap(), "sign-in-within:8h");
    assert_eq!(read("sign-in-within:480m").unwrap(), "sign-in-within:8h", "as releases before wrote it");
    assert_eq!(read("sign-in-within:90m").unwrap(), "sign-in-within:90m");
    for wrong in ["", "MFA", "mfa:1", "sign-in-within", "sign-in-within:4m", "sign-in-within:13h", "sign-in-within:+5m"]
    {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    let list = Requirement::parse_list("sign-in-within:1h mfa").unwrap();
    assert_eq!(Requirement::list(&list), "mfa sign-in-within:1h");
    assert_eq!(Requirement::parse_list("mfa compliant-device"), Err("compliant-device".to_owned()), "says which");
}

#[test]
fn several_policies_ask_for_as_little_as_satisfies_all() {
    let within = |text: &str| text.parse::<Requirement>().unwrap();
    let (half, hour) = (within("sign-in-within:30m"), within("sign-in-within:1h"));
    let asked = |grants: Vec<Grant>| {
        let mut policies = Policies::default();
        for (n, grant) in grants.into_iter().enumerate() {
            policies.insert(Policy { grant, ..block(n as u8 + 1) });
        }
        let facts = Facts::new(app_id(1), "8.8.8.8".parse().unwrap(), None, Timestamp(0));
        policy::evaluate(policies.for_app(app_id(1)), &facts).decision
    };
    let all = |some: &[Requirement]| Grant::RequireAll(some.iter().copied().collect());
    let any = |some: &[Requirement]| Grant::RequireAny(some.iter().copied().collect());
    let challenge = |some: &[Requirement]| Decision::Challenge(some.iter().copied().collect());
    assert_eq!(asked(vec![all(&[hour]), all(&[half])]), challenge(&[half]), "the shorter one says both");
    assert_eq!(asked(vec![any(&[Requirement::Mfa, hour]), all(&[hour])]), challenge(&[hour]), "one would do");
    assert_eq!(asked(vec![any(&[Requirement::Mfa, hour])]), challenge(&[Requirement::Mfa]));
    let mfa = Requirement::Mfa;
    assert_eq!(asked(vec![any(&[mfa, hour]), all(&[half])]), challenge(&[half]), "half an hour is within an hour");
    assert_eq!(asked(vec![any(&[half, hour])]), challenge(&[hour]), "the longer one is easier");
    assert_eq!(asked(vec![any(&[mfa, half]), any(&[hour])]), challenge(&[half]), "a sign-in is asked for anyway");
    assert_eq!(asked(vec![any(&[mfa, half]), any(&[mfa, hour])]), challenge(&[mfa]), "the first that would do");
    let one_by_one = vec![any(&[mfa, half]), all(&[mfa]), any(&[hour])];
    assert_eq!(asked(one_by_one), challenge(&[mfa, hour]), "no shorter than it must be");
}

/// What a newer identity says satisfies nothing here, and takes nothing away.
#[test]
fn a_token_with_a_requirement_that_is_not_known_is_read() {
    #[derive(serde::Deserialize)]
    struct Claim {
        #[serde(deserialize_with = "crate::policy::known_requirements")]
        satisfied: BTreeSet<Requirement>,
    }
    let words = serde::de::value::MapDeserializer::<_, serde::de::value::Error>::new(
        [("satisfied", vec!["compliant-device", "mfa"])].into_iter(),
    );
    let claim = <Claim as serde::Deserialize>::deserialize(words).unwrap();
    assert_eq!(claim.satisfied, BTreeSet::from([Requirement::Mfa]));
}

#[test]
fn nobody_enters_unassigned() {
    let assigned = |principal| Event::put(Assignment { app: app_id(1), principal });
    let enters = |world: &World, groups: &[u8]| {
        let groups = groups.iter().map(|n| group_id(*n)).collect();
        let who = SignedIn { user: user_id(1), groups: &groups, satisfied: &BTreeSet::new(), at: None };
        let facts = Facts::new(app_id(1), "10.0.0.1".parse().unwrap(), Some(who), Timestamp(0));
        world.tenant().authorize(&facts).map(|_| ())
    };
    assert_eq!(enters(&given([]), &[]), Err(Denied::NotAssigned));
    assert_eq!(enters(&given([assigned(Principal::User(user_id(2)))]), &[]), Err(Denied::NotAssigned));
    assert_eq!(enters(&given([assigned(Principal::User(user_id(1)))]), &[]), Ok(()));
    assert_eq!(enters(&given([assigned(Principal::Everyone)]), &[]), Ok(()));
    assert_eq!(enters(&given([assigned(Principal::Group(group_id(3)))]), &[3]), Ok(()));
    assert_eq!(enters(&given([assigned(Principal::Group(group_id(3)))]), &[4]), Err(Denied::NotAssigned));
}

/// All conditions against each other, judged a second time by the sentence an
/// administrator would say: it applies if it is on, for this application, for
/// one of these people, from one of these networks, and none of the exceptions
/// holds; a block ends it, anything else must be proved.
#[test]
fn every_combination_reads_as_it_is_written() {
    let (groups, nobody) = (BTreeSet::from([group_id(1)]), BTreeSet::new());
    let inside: ipnet::IpNet = "10.0.0.0/8".parse().unwrap();
    let who = [
        vec![],
        vec![Principal::Everyone],
        vec![Principal::User(user_id(1))],
        vec![Principal::Group(group_id(1))],
        vec![Principal::Group(group_id(2))],
    ];
    let apps = [BTreeSet::new(), BTreeSet::from([app_id(1)]), BTreeSet::from([app_id(2)])];
    let networks = [vec![], vec![inside]];
    let grants = [Grant::Block, Grant::RequireAll(BTreeSet::from([Requirement::Mfa]))];
    let proofs = [BTreeSet::new(), BTreeSet::from([Requirement::Mfa])];
    let mut seen = std::collections::BTreeMap::<&str, u32>::new();
    for state in [State::On, State::Off, State::ReportOnly] {
        for (include, exclude) in pairs(&who, &who) {
            for (only_apps, exclude_apps) in pairs(&apps, &apps) {
                for (only_networks, exclude_networks) in pairs(&networks, &networks) {
                    for (grant, satisfied) in pairs(&grants, &proofs) {
                        let policy = Policy {
                            state,
                            people: selection(include.clone(), exclude.clone()),
                            apps: selection(only_apps.clone(), exclude_apps.clone()),
                            networks: selection(only_networks.clone(), exclude_networks.clone()),
                            grant: grant.clone(),
                            ..block(1)
                        };
                        let mut policies = Policies::default();
                        policies.insert(policy.clone());
                        for (user, address) in
                            [(Some(user_id(1)), "10.1.1.1"), (Some(user_id(1)), "8.8.8.8"), (None, "10.1.1.1")]
                        {
                            let address = address.parse().unwrap();
                            let groups = if user.is_some() { &groups } else { &nobody };
                            let who = user.map(|user| SignedIn { user, groups, satisfied, at: None });
                            let facts = Facts::new(app_id(1), address, who, Timestamp(0));
                            let verdict = policy::evaluate(policies.for_app(facts.app), &facts);
                            let expected = if state == State::On { said(&policy, &facts) } else { "grant" };
                            let came = match verdict.decision {
                                Decision::Grant => "grant",
                                Decision::Challenge(_) => "challenge",
                                Decision::Deny(_) => "deny",
                            };
                            assert_eq!(came, expected, "{policy:?} {facts:?}");
                            let reported = state == State::ReportOnly && said(&policy, &facts) != "grant";
                            assert_eq!(
                                verdict.involved.would_refuse.len(),
                                usize::from(reported),
                                "{policy:?} {facts:?}"
                            );
                            *seen.entry(came).or_default() += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(seen.len() == 3 && seen.values().all(|count| *count > 100), "each outcome was met: {seen:?}");
}

fn pairs<'a, A, B>(a: &'a [A], b: &'a [B]) -> impl Iterator<Item = (&'a A, &'a B)> {
    a.iter().flat_map(move |a| b.iter().map(move |b| (a, b)))
}

fn said(policy: &Policy, facts: &Facts<'_>) -> &'static str {
    let is = |principal: &Principal| match principal {
        Principal::Everyone => true,
        Principal::User(user) => facts.user == Some(*user),
        Principal::Group(group) => facts.groups.contains(group),
    };
    let for_app = policy.apps.scope == Scope::All || policy.apps.scope.listed().any(|it| *it == facts.app);
    let for_user = policy.people.scope == Scope::All || policy.people.scope.listed().any(is);
    let from_there =
        policy.networks.scope == Scope::All || policy.networks.scope.listed().any(|it| it.contains(&facts.address));
    let excepted = policy.apps.except.contains(&facts.app)
        || policy.people.except.iter().any(is)
        || policy.networks.except.iter().any(|it| it.contains(&facts.address));
    if !(for_app && for_user && from_there) || excepted {
        return "grant";
    }
    match &policy.grant {
        Grant::Block => "deny",
        Grant::RequireAll(controls) if controls.is_subset(facts.satisfied) => "grant",
        Grant::RequireAny(controls) if !controls.is_disjoint(facts.satisfied) => "grant",
        Grant::RequireAll(_) | Grant::RequireAny(_) => "challenge",
    }
}

fn check(table: &str) {
    let mut policies = Policies::default();
    let mut names = vec![];
    let (rules, sign_ins) = table.split_once("user ").expect("a line of headings");
    for line in rules.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, policy) = parse_policy(names.len() as u8 + 1, line);
        names.push(name.to_owned());
        policies.insert(policy);
    }
    for line in sign_ins.lines().skip(1).map(str::trim).filter(|line| !line.is_empty()) {
        let (given, expected) = line.split_once("->").expect("an arrow");
        let words: Vec<&str> = given.split_whitespace().collect();
        let [who, app, address, proof] = words[..] else { panic!("four columns: {line}") };
        let mut who = who.split('/');
        let user = who.next().and_then(|it| it.parse().ok()).map(user_id);
        let groups = who.map(|it| group_id(it.parse().unwrap())).collect();
        let satisfied = if proof == "mfa" { BTreeSet::from([Requirement::Mfa]) } else { BTreeSet::new() };
        let who = user.map(|user| SignedIn { user, groups: &groups, satisfied: &satisfied, at: None });
        let facts = Facts::new(app_id(app.parse().unwrap()), address.parse().unwrap(), who, Timestamp(0));
        let came = match policy::evaluate(policies.for_app(facts.app), &facts).decision {
            Decision::Grant => "grant".to_owned(),
            Decision::Challenge(_) => "challenge".to_owned(),
            Decision::Deny(id) => format!("deny {}", names[id.0.as_u128() as usize - 1]),
        };
        assert_eq!(came, expected.trim(), "{line}");
    }
}

fn parse_policy(n: u8, line: &str) -> (&str, Policy) {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap();
    let mut policy = block(n);
    while let Some(word) = words.next() {
        match word.split_once('=') {
            Some(("network", it)) => policy.networks.scope = Selection::only([it.parse().unwrap()]).scope,
            Some(("network!", it)) => policy.networks.except = BTreeSet::from([it.parse().unwrap()]),
            Some(("group", it)) => {
                policy.people.scope = Selection::only([Principal::Group(group_id(it.parse().unwrap()))]).scope
            }
            Some(("group!", it)) => {
                policy.people.except = BTreeSet::from([Principal::Group(group_id(it.parse().unwrap()))])
            }
            Some(("app", it)) => policy.apps = Selection::only([app_id(it.parse().unwrap())]),
            None if word == "off" => policy.state = State::Off,
            None if word == "report-only" => policy.state = State::ReportOnly,
            None if word == "block" => policy.grant = Grant::Block,
            None if word == "require" => {
                assert_eq!(words.next(), Some("mfa"));
                policy.grant = Grant::RequireAll(BTreeSet::from([Requirement::Mfa]));
            }
            None | Some(_) => panic!("unknown word {word:?}"),
        }
    }
    (name, policy)
}
