//! Groups that go with all their members, in one event.

use super::*;
use crate::{
    kind::{Bond, Reference},
    kinds::Membership,
};

#[test]
fn removing_a_group_of_many_is_one_event() {
    let world = group_of(1..=200);
    world.when(remove()).yields(vec![Event::Removed(ObjectKey::Group(group_id(1)))]);
}

#[test]
fn nobody_is_in_a_group_that_was_removed_and_nothing_lists_its_members() {
    let mut world = group_of(1..=3);
    world.carry_out(remove());
    assert_eq!(world.tenant().groups_of(user_id(1)), BTreeSet::new());
    assert_eq!(world.tenant().objects(KindName::Membership, None).count(), 0);
    assert!(!world.tenant().contains(&member(1).key()) && world.tenant().get(&member(1).key()).is_none());
    world.when(Command::Remove(member(1).key())).yields(vec![]);
    let dangling = Rejection::Dangling { kind: KindName::Group, key: id(1).to_string() };
    world.when(Command::Put(member(1))).rejected_as(dangling);
}

/// Every beginning of it is safe: no member comes back for a moment.
#[test]
fn a_group_that_is_made_again_has_none_of_its_earlier_members() {
    let mut world = group_of(1..=3);
    world.carry_out(remove());
    let Outcome(events) = world.when(create());
    for event in events.unwrap() {
        world.apply(event);
        assert!((1..=3).all(|n| world.tenant().groups_of(user_id(n)).is_empty()));
    }
    assert!(world.tenant().contains(&ObjectKey::Group(group_id(1))));
    assert_eq!(world.tenant().objects(KindName::Membership, None).count(), 0);
}

#[test]
fn a_file_that_makes_a_group_again_says_who_is_in_it_in_any_order() {
    let mut world = group_of(1..=3);
    world.carry_out(remove());
    for commands in [vec![Command::Put(member(2)), create()], vec![create(), Command::Put(member(2))]] {
        let mut world = World { snapshot: world.snapshot.clone() };
        for event in world.decide_all(commands).unwrap().into_iter().flat_map(|it| it.events) {
            world.apply(event);
        }
        let members: Vec<_> = world.tenant().objects(KindName::Membership, None).map(|(it, _)| it).collect();
        assert_eq!(members, [member(2)]);
    }
}

/// Earlier releases wrote an event for each membership of a removed group.
#[test]
fn a_log_that_removes_each_membership_comes_to_the_same() {
    let (mut now, mut before) = (group_of(1..=3), group_of(1..=3));
    now.carry_out(remove());
    for n in 1..=3 {
        before.apply(Event::Removed(member(n).key()));
    }
    before.carry_out(remove());
    for n in 1..=3 {
        assert_eq!(now.tenant().groups_of(user_id(n)), before.tenant().groups_of(user_id(n)));
    }
    before.when(create()).yields(vec![Event::put(staff())]);
}

proptest! {
    /// Against sets that forget the members of a group with the group; a late
    /// reader, who sees the last event of each subject, comes to the same.
    #[test]
    fn who_is_in_which_group_is_as_in_a_book_of_sets(commands in wishes(), seed in any::<u64>()) {
        let (mut snapshot, mut history) = (Snapshot::default(), Vec::new());
        let mut book: BTreeSet<(GroupId, Principal)> = BTreeSet::new();
        for command in commands {
            let Ok(events) = decide(&snapshot, &tenant_id(), command.clone()) else { continue };
            if let Command::Put(Object::Membership(it)) = &command {
                book.insert((it.group, it.member));
            } else if let Command::Remove(gone) = &command {
                book.retain(|(group, member)| {
                    let membership = ObjectKey::Membership(MembershipKey { group: *group, member: *member });
                    let named = [Principal::Group(*group), *member].map(|it| Reference::to_principal(it, Bond::PartOf));
                    *gone != membership && named.into_iter().flatten().all(|it| it.to != *gone)
                });
            }
            for event in events {
                snapshot.apply(&tenant_id(), event.clone(), 1);
                history.push(event);
            }
            let mut last = last_per_subject(&history);
            shuffle(&mut last, seed);
            for snapshot in [&snapshot, &fold(&last)] {
                let tenant = snapshot.tenant(&tenant_id()).cloned().unwrap_or_default();
                let listed = tenant.objects(KindName::Membership, None).map(|(it, _)| it.key());
                let expected = book.iter().map(|(group, member)| MembershipKey { group: *group, member: *member });
                prop_assert!(listed.eq(expected.map(ObjectKey::Membership)));
            }
        }
    }
}

fn group_of(people: std::ops::RangeInclusive<u8>) -> World {
    let users = people.clone().map(|n| Event::put(plain_user(n)));
    let members = people.map(|n| Event::Put(member(n)));
    given(users.chain([Event::put(staff())]).chain(members))
}

fn staff() -> Group {
    Group { id: group_id(1), name: Name::parse("staff").unwrap(), labels: Default::default() }
}

fn member(n: u8) -> Object {
    Membership { group: group_id(1), member: Principal::User(user_id(n)) }.into()
}

fn create() -> Command {
    Command::Create(staff().into())
}

fn remove() -> Command {
    Command::Remove(ObjectKey::Group(group_id(1)))
}
