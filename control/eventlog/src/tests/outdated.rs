//! Many people in one event: that it fits, and what is no such event.

use std::collections::BTreeSet;

use model::risk::{OUTDATED_PARTS_MAX, OUTDATED_SLOTS, OUTDATED_USERS_MAX};
use proto::v1;

use super::*;

/// Measured with the envelope of a batch as large as any.
#[tokio::test]
async fn the_largest_change_of_people_fits_into_both_backends() {
    for world in World::both().await {
        let projection = world.projection().await;
        let journal = Journal::new(world.log.clone(), world.signer.clone());
        let people = OUTDATED_PARTS_MAX * OUTDATED_USERS_MAX;
        let users: BTreeSet<UserId> = (0..people).map(|n| UserId(Uuid::from_u128(n as u128 * 7919))).collect();
        let (last, tenant) = (*users.last().unwrap(), TenantId::default_tenant());
        let command = model::Command::OutdateTokens { users, directory: 9, now: Timestamp(1) };
        let events = decide(&projection.snapshot(), &tenant, command).unwrap();
        assert_eq!(events.len(), OUTDATED_PARTS_MAX, "one event for each 60,000 people");
        let drafts: Vec<_> = events.into_iter().map(draft).collect();
        let position = journal.append(Stream::Risk, &drafts, projection.chain(), 0).await.expect(world.name);
        let snapshot = projection.reach(Stream::Risk, position).await;
        assert_eq!(snapshot.tenant(&tenant).unwrap().directory_for(last), 9, "{}", world.name);
    }
}

#[test]
fn people_out_of_order_or_miscounted_are_refused() {
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let event = |users: &[Uuid], slot: u32, count: u32| v1::OutdatedTokens {
        slot,
        count,
        users: users.iter().flat_map(|it| it.into_bytes()).collect(),
        ..Default::default()
    };
    let read = |it: v1::OutdatedTokens| Fact::decode("TokensOutdated", &it.encode_to_vec()).is_ok();
    assert!(read(event(&[one, two], 0, 2)));
    assert!(read(event(&[], 0, 0)), "everybody is meant");
    assert!(!read(event(&[two, one], 0, 2)), "a person out of order is not found");
    assert!(!read(event(&[one, one], 0, 2)));
    assert!(!read(event(&[one, two], 0, 1)));
    assert!(!read(event(&[one, two], OUTDATED_SLOTS.into(), 2)));
    assert!(!read(v1::OutdatedTokens { users: vec![0; 17], count: 1, ..Default::default() }));
}
