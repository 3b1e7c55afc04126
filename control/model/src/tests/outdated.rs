//! Tokens of many people made stale by few events.

use super::*;

#[test]
fn a_change_of_a_large_group_is_one_event_and_of_a_huge_one_a_few() {
    for (people, events) in [(1, 1), (50_000, 1), (60_000, 1), (60_001, 2), (240_000, 4), (240_001, 1)] {
        let outdated = events_for(&given([]), people, 7);
        assert_eq!(outdated.len(), events, "{people} people");
        let world = given(outdated.into_iter().map(Event::put));
        for n in [0, people / 2, people - 1] {
            assert_eq!(world.tenant().directory_for(nth(n)), 7, "person {n} of {people}");
        }
    }
}

#[test]
fn a_token_from_before_the_change_is_renewed_and_no_other() {
    let now = Timestamp(1_000_000_000);
    let outdated = |directory| {
        let users = BTreeSet::from([user_id(1), user_id(2)]);
        let events = decide(&given([]).snapshot, &tenant_id(), Command::OutdateTokens { users, directory, now });
        given(events.unwrap()).tenant().clone()
    };
    assert_eq!(claims(now).check(&outdated(8), now), Err(SessionFault::Renew));
    assert_eq!(claims(now).check(&outdated(7), now), Ok(()), "minted from the change, or later");
    let somebody = SessionClaims { sub: user_id(3), ..claims(now) };
    assert_eq!(somebody.check(&outdated(8), now), Ok(()), "nobody spoke of them");
}

#[test]
fn tokens_that_ended_by_themselves_cost_nobody_a_renewal() {
    let mut world = given([]);
    let hour = |n: u64| Timestamp::from_seconds(n as i64 * 3600);
    for n in 1..100 {
        let users = BTreeSet::from([user_id(1)]);
        world.carry_out(Command::OutdateTokens { users, directory: 10 * n, now: hour(n) });
    }
    assert!(world.tenant().directory_for(user_id(2)) < 990, "those who did not change are asked for less");
    assert_eq!(world.tenant().directory_for(user_id(1)), 990);
    let slots = |event: &Event| matches!(event, Event::Put(Object::OutdatedTokens(it)) if it.slot > 1);
    let more = decide(&world.snapshot, &tenant_id(), outdate_one(1, 2_000, hour(200))).unwrap();
    assert!(!more.iter().any(slots), "a slot whose tokens have ended is taken before a free one");
}

#[test]
fn a_hundred_changes_in_a_second_forget_nobody() {
    let mut world = given([]);
    for n in 0..100u8 {
        world.carry_out(outdate_one(n, u64::from(n) + 1, Timestamp(5)));
    }
    for n in 0..100u8 {
        assert!(world.tenant().directory_for(user_id(n)) > u64::from(n), "person {n}");
    }
}

proptest! {
    #[test]
    fn what_was_said_of_a_person_stays_said(commands in prop::collection::vec(outdating(), 0..120), seed in any::<u64>()) {
        let (snapshot, history) = run(commands.clone());
        let mut last = last_per_subject(&history);
        shuffle(&mut last, seed);
        let late = fold(&last);
        prop_assert_eq!(&late, &snapshot);
        let Some(tenant) = late.tenant(&tenant_id()) else { return Ok(()) };
        for n in 1..9 {
            let user = user_id(n);
            let told = commands.iter().filter_map(|command| {
                let Command::OutdateTokens { users, directory, .. } = command else { return None };
                users.contains(&user).then_some(*directory)
            });
            let told = told.max().unwrap_or(0);
            prop_assert!(tenant.directory_for(user) >= told, "{user}: {} and not {told}", tenant.directory_for(user));
            for minted in 0..60 {
                prop_assert_eq!(tenant.outdated.concerns(user, minted), minted < tenant.outdated.directory_for(user));
            }
        }
    }
}

fn nth(n: usize) -> UserId {
    UserId(Uuid::from_u128(n as u128 * 7919 + 1))
}

fn events_for(world: &World, people: usize, directory: Position) -> Vec<OutdatedTokens> {
    let users: BTreeSet<UserId> = (0..people).map(nth).collect();
    world.tenant().outdated.outdate(users, directory, Timestamp(0))
}

fn outdate_one(n: u8, directory: Position, now: Timestamp) -> Command {
    Command::OutdateTokens { users: BTreeSet::from([user_id(n)]), directory, now }
}

impl World {
    pub(super) fn carry_out(&mut self, command: Command) {
        for event in decide(&self.snapshot, &tenant_id(), command).unwrap() {
            self.apply(event);
        }
    }
}
