//! What a decision knew is read as it was written, or not at all.

use model::{
    AppId, Event, Policy, Principal, Snapshot, TenantId, Timestamp, UserId,
    kinds::Assignment,
    policy::{Grant, Minutes, Selection, SignedIn, State},
    text::Name,
};
use proto::Message;

use super::*;

/// Alice of two groups, Mallory of one that is blocked, somebody unassigned, and
/// nobody at all; from two places; with and without a second factor.
#[test]
fn a_judgement_is_read_as_it_was_written_and_made_again() {
    let snapshot = snapshot();
    let tenant = snapshot.tenant(&TenantId::default_tenant()).unwrap();
    let mut verdicts = BTreeSet::new();
    for user in [None, Some(1), Some(2)] {
        for groups in [vec![], vec![1, 2], vec![3]] {
            for (address, mfa) in [("10.1.1.1", false), ("::ffff:8.8.8.8", false), ("2001:db8::1", true)] {
                for at in [None, Some(Timestamp(0)), Some(Timestamp(7_200_000))] {
                    let groups = groups.iter().map(|n| GroupId(Uuid::from_u128(*n))).collect();
                    let satisfied = if mfa { BTreeSet::from([Requirement::Mfa]) } else { BTreeSet::new() };
                    let who = user.map(|n| SignedIn {
                        user: UserId(Uuid::from_u128(n)),
                        groups: &groups,
                        satisfied: &satisfied,
                        at,
                    });
                    let facts = Facts::new(APP, address.parse().unwrap(), who, Timestamp(9_000_000));
                    let decided = tenant.authorize(&facts);
                    let packed = RecordedGroups::pack(facts.groups, false);
                    let access = recorded(&facts, packed, &decided);
                    let read = read(&access).unwrap();
                    assert_eq!(read.facts, facts.record());
                    assert_eq!((read.config, read.directory, read.risk), (7, 8, 9));
                    assert_eq!(read.verdict, decided.map(|it| it.involved));
                    let again = tenant.authorize(&read.facts.facts());
                    assert_eq!(read.verdict, again.map(|it| it.involved));
                    verdicts.insert(access.judgement.unwrap().verdict);
                }
            }
        }
    }
    assert_eq!(verdicts.len(), 4, "every verdict came up");
}

#[test]
fn groups_beyond_the_limit_are_said_to_be_missing() {
    let groups = |count: usize| (0..count as u128).map(|n| GroupId(Uuid::from_u128(n))).collect::<BTreeSet<_>>();
    let read_with = |groups: &BTreeSet<GroupId>, left_out: bool| {
        let satisfied = BTreeSet::new();
        let who = SignedIn { user: UserId(Uuid::from_u128(1)), groups, satisfied: &satisfied, at: None };
        let facts = Facts::new(APP, "10.1.1.1".parse().unwrap(), Some(who), Timestamp(0));
        let decided = snapshot().tenant(&TenantId::default_tenant()).unwrap().authorize(&facts);
        read(&recorded(&facts, RecordedGroups::pack(groups, left_out), &decided))
    };
    assert_eq!(read_with(&groups(TOKEN_GROUPS_MAX), false).unwrap().facts.groups.len(), TOKEN_GROUPS_MAX);
    let Err(NotJudged::GroupsLeftOut(part)) = read_with(&groups(TOKEN_GROUPS_MAX + 1), false) else {
        panic!("more than are recorded")
    };
    assert_eq!(part.facts.groups, groups(TOKEN_GROUPS_MAX), "those that are recorded are there");
    assert!(matches!(read_with(&groups(2), true), Err(NotJudged::GroupsLeftOut(_))), "identity left some out");
}

#[test]
fn what_is_not_recorded_or_not_readable_is_not_judged() {
    assert_eq!(read(&Access::default()), Err(NotJudged::NotRecorded));
    let groups = BTreeSet::new();
    let facts = Facts::new(APP, "10.1.1.1".parse().unwrap(), None, Timestamp(0));
    let decided = snapshot().tenant(&TenantId::default_tenant()).unwrap().authorize(&facts);
    let good = recorded(&facts, RecordedGroups::pack(&groups, false), &decided);
    assert!(read(&good).is_ok());
    type Spoil = fn(&mut Access, &mut Judgement);
    let spoilt: [(&str, Spoil); 8] = [
        ("app", |access, _| access.app.clear()),
        ("user", |access, _| access.user = "alice".into()),
        ("address", |access, _| access.address.clear()),
        ("groups", |_, judgement| judgement.groups = Bytes::from_static(b"not of 16 bytes")),
        ("policies", |access, _| access.policies.push("p".into())),
        ("verdict", |_, judgement| judgement.verdict = 77),
        ("missing", |_, judgement| {
            judgement.verdict = Verdict::Challenged.into();
            judgement.missing.push("compliant-device".into());
        }),
        ("blocked_by", |_, judgement| judgement.verdict = Verdict::Blocked.into()),
    ];
    for (what, spoil) in spoilt {
        let mut access = good.clone();
        let mut judgement = access.judgement.take().unwrap();
        spoil(&mut access, &mut judgement);
        access.judgement = Some(judgement);
        assert_eq!(read(&access), Err(NotJudged::Unreadable(what)));
    }
    let mut newer = good;
    newer.judgement.as_mut().unwrap().satisfied.push("compliant-device".into());
    assert!(read(&newer).unwrap().facts.satisfied.is_empty(), "what is not known here satisfies nothing here");
}

// ---------------------------------------------------------------- helpers

const APP: AppId = AppId(Uuid::from_u128(5));

/// Written by a relay, and read from the log.
fn recorded(facts: &Facts<'_>, groups: RecordedGroups, decided: &Result<Authorized, Denied>) -> Access {
    let mut access = Access {
        app: facts.app.to_string(),
        user: facts.user.map_or(String::new(), |it| it.to_string()),
        // Of a proxy, or of the user.
        address: "10.1.1.1".into(),
        snapshot: 7,
        ..Default::default()
    };
    write(&mut access, facts, Sources { groups, directory: 8, risk: 9 }, decided);
    Access::decode(access.encode_to_vec().as_slice()).unwrap()
}

fn snapshot() -> Snapshot {
    let policy = |n, grant| Policy::new(PolicyId(Uuid::from_u128(n)), Name::parse("p").unwrap(), grant);
    let hour = Requirement::SignInWithin(Minutes::parse(60).unwrap());
    let blocked = Selection::only([Principal::Group(GroupId(Uuid::from_u128(3)))]);
    let events = [
        Event::put(Assignment { app: APP, principal: Principal::User(UserId(Uuid::from_u128(1))) }),
        Event::put(Policy {
            networks: Selection::all_except(["10.0.0.0/8".parse().unwrap()]),
            ..policy(1, Grant::RequireAll(BTreeSet::from([Requirement::Mfa, hour])))
        }),
        Event::put(Policy { people: blocked, ..policy(2, Grant::Block) }),
        Event::put(Policy { state: State::ReportOnly, ..policy(3, Grant::Block) }),
    ];
    let mut snapshot = Snapshot::default();
    for event in events {
        snapshot.apply(&TenantId::default_tenant(), event, 1);
    }
    snapshot
}
