//! Static members (KIP-345): a `group.instance.id` that outlives its member ids.

use super::*;

fn instances(world: &mut World) -> Vec<JoinResponse> {
    let members = world.stabilise(vec![join_static("", "leader"), join_static("", "follower")]);
    assert!(members[0].member_id.starts_with("leader-") && members[1].member_id.starts_with("follower-"), "{members:?}");
    members
}

#[test]
fn a_static_member_needs_no_second_join() {
    let mut world = World::new();
    let waiter = world.join_with(JoinRequest { require_known_member_id: true, ..join_static("", "i") });
    world.pass(0);
    let joined = world.joined(waiter);
    assert_eq!((joined.error, joined.generation_id), (None, 1));
    assert_eq!(joined.members[0].group_instance_id.as_deref(), Some("i"));
}

#[test]
fn a_follower_that_comes_back_under_a_new_id_does_not_rebalance_and_fences_the_old_one() {
    let mut world = World::new();
    let members = instances(&mut world);
    let old = &members[1];
    let waiter = world.join_with(join_static("", "follower"));
    let new = world.joined(waiter);
    assert_eq!((new.error, new.generation_id, new.skip_assignment), (None, old.generation_id, false));
    assert_ne!(new.member_id, old.member_id);
    assert_eq!(world.state(), "Stable");
    let waiter = world.sync_with(SyncRequest { group_instance_id: Some("follower".to_owned()), ..sync(&new) });
    assert_eq!(world.synced(waiter).assignment, old.member_id, "the assignment is the old one's");
    let fenced = Err(GroupError::FencedInstanceId);
    assert_eq!(world.heartbeat_with(&old.member_id, Some("follower"), old.generation_id), fenced);
    assert_eq!(world.commit(&old.member_id, Some("follower"), old.generation_id), fenced);
    let waiter = world.sync_with(SyncRequest { group_instance_id: Some("follower".to_owned()), ..sync(old) });
    assert_eq!(world.synced(waiter).error, Some(GroupError::FencedInstanceId));
    let waiter = world.join_with(join_static(&old.member_id, "follower"));
    assert_eq!(world.joined(waiter).error, Some(GroupError::FencedInstanceId));
    assert_eq!(world.leave(&[(&old.member_id, Some("follower"))]), [Some(GroupError::FencedInstanceId)]);
    assert_eq!(world.heartbeat_with(&new.member_id, Some("follower"), new.generation_id), Ok(()));
    assert_eq!(world.heartbeat_with(&old.member_id, None, old.generation_id), Err(GroupError::UnknownMemberId));
    assert_eq!(world.heartbeat_with(&new.member_id, Some("nobody"), new.generation_id), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_leader_that_comes_back_is_told_to_skip_the_assignment_if_it_can() {
    let mut world = World::new();
    let members = instances(&mut world);
    let waiter = world.join_with(join_static("", "leader"));
    let new = world.joined(waiter);
    assert!(new.skip_assignment);
    assert_eq!(new.leader, new.member_id);
    assert_eq!(new.members.len(), 2);
    // An older client is told that the old id leads, so that it does not assign.
    let waiter = world.join_with(JoinRequest { supports_skipping_assignment: false, ..join_static("", "leader") });
    let older = world.joined(waiter);
    assert!(!older.skip_assignment && older.members.is_empty());
    assert_eq!(older.leader, new.member_id);
    assert_eq!(older.generation_id, members[0].generation_id);
    assert_eq!(world.state(), "Stable");
}

#[test]
fn the_new_id_is_written_before_it_is_told_and_survives_a_replay() {
    let mut world = World::new();
    instances(&mut world);
    world.append = None;
    let waiter = world.join_with(join_static("", "follower"));
    assert!(world.is_waiting(waiter));
    world.end_append(Ok(()));
    let new = world.joined(waiter);
    let mut loaded = World::new();
    for record in &world.log {
        assert_eq!(loaded.shard.replay(record, START_MS), Ok(None));
    }
    assert_eq!(loaded.heartbeat_with(&new.member_id, Some("follower"), new.generation_id), Ok(()));
}

#[test]
fn if_the_new_id_can_t_be_written_the_old_one_stays() {
    let mut world = World::new();
    let members = instances(&mut world);
    world.append = Some(Err(StateLogError::NotEnoughReplicas));
    let waiter = world.join_with(JoinRequest { protocols: protocols(&["range"]), ..join_static("", "leader") });
    let refused = world.joined(waiter);
    assert_eq!(refused.error, Some(GroupError::CoordinatorNotAvailable));
    assert_eq!(refused.generation_id, members[0].generation_id);
    assert_eq!(world.heartbeat_with(&members[0].member_id, Some("leader"), members[0].generation_id), Ok(()));
    world.append = Some(Ok(()));
    let waiter = world.join_with(join_static("", "leader"));
    assert_eq!(world.joined(waiter).error, None);
}

#[test]
fn coming_back_with_protocols_that_change_the_choice_rebalances() {
    let mut world = World::new();
    let members = instances(&mut world);
    let waiter = world.join_with(JoinRequest { protocols: protocols(&["roundrobin"]), ..join_static("", "follower") });
    assert!(world.is_waiting(waiter));
    assert_eq!(world.state(), "PreparingRebalance");
    let leader = world.join_with(join_static(&members[0].member_id, "leader"));
    assert_eq!(world.joined(leader).protocol_name.as_deref(), Some("roundrobin"));
}

#[test]
fn coming_back_while_the_leader_assigns_rebalances() {
    let mut world = World::new();
    let members = instances(&mut world);
    let waiters =
        [world.join_with(join_static(&members[0].member_id, "leader")), world.join_with(join_static(&members[1].member_id, "follower"))];
    let [leader, follower] = waiters.map(|waiter| world.joined(waiter));
    let syncing = world.sync_with(SyncRequest { group_instance_id: Some("follower".to_owned()), ..sync(&follower) });
    let back = world.join_with(join_static("", "follower"));
    assert_eq!(world.synced(syncing).error, Some(GroupError::FencedInstanceId));
    assert_eq!(world.state(), "PreparingRebalance");
    let leader = world.join_with(join_static(&leader.member_id, "leader"));
    assert_eq!(world.joined(leader).generation_id, world.joined(back).generation_id);
}

#[test]
fn coming_back_during_a_rebalance_fences_the_join_that_waits() {
    let mut world = World::new();
    let members = instances(&mut world);
    world.join_with(join_static("", "third"));
    let waiting = world.join_with(join_static(&members[1].member_id, "follower"));
    let back = world.join_with(join_static("", "follower"));
    let fenced = world.joined(waiting);
    assert_eq!((fenced.error, fenced.member_id), (Some(GroupError::FencedInstanceId), members[1].member_id.clone()));
    world.join_with(join_static(&members[0].member_id, "leader"));
    assert_eq!(world.joined(back).error, None);
}

#[test]
fn a_static_member_that_does_not_join_again_stays_until_its_session_ends() {
    let mut world = World::new();
    let quick = JoinRequest { rebalance_timeout_ms: 5_000, ..join_static("", "leader") };
    let slow = JoinRequest { rebalance_timeout_ms: 5_000, session_timeout_ms: 30_000, ..join_static("", "follower") };
    let members = world.stabilise(vec![quick, slow]);
    let again = JoinRequest { rebalance_timeout_ms: 5_000, ..join_static(&members[0].member_id, "leader") };
    let leader = world.join_with(again);
    world.pass(6);
    let joined = world.joined(leader);
    assert_eq!(joined.members.len(), 2, "the other is still a member");
    let syncing = world.sync_with(SyncRequest { group_instance_id: Some("leader".to_owned()), ..sync(&joined) });
    assert_eq!(world.synced(syncing).error, None);
}

#[test]
fn a_rebalance_that_only_silent_static_members_could_join_waits_for_their_sessions() {
    let mut world = World::new();
    let member = JoinRequest { rebalance_timeout_ms: 2_000, ..join_static("", "i") };
    let joined = world.stabilise(vec![member]).remove(0);
    let newcomer = world.join_with(JoinRequest { rebalance_timeout_ms: 2_000, ..join("") });
    let id = format!("client-{}", Uuid::from_u128(u128::from(newcomer)));
    world.leave(&[(&id, None)]);
    assert_eq!(world.joined(newcomer).error, Some(GroupError::UnknownMemberId));
    world.pass(5);
    assert_eq!(world.state(), "PreparingRebalance");
    assert_eq!(world.heartbeat_with(&joined.member_id, Some("i"), joined.generation_id), Err(GroupError::RebalanceInProgress));
    world.pass(15);
    assert_eq!(world.state(), "Empty");
}

#[test]
fn an_administrator_removes_static_members_by_instance() {
    let mut world = World::new();
    let members = instances(&mut world);
    let left = world.leave(&[("", Some("follower")), ("", Some("nobody")), ("", None), (&members[0].member_id, Some("leader"))]);
    assert_eq!(left, [None, Some(GroupError::UnknownMemberId), Some(GroupError::UnknownMemberId), None]);
    assert_eq!(world.state(), "Empty");
}

#[test]
fn a_dynamic_id_can_t_be_used_with_an_instance() {
    let mut world = World::new();
    let waiter = world.join_with(JoinRequest { require_known_member_id: true, ..join("") });
    let id = world.joined(waiter).member_id;
    let waiter = world.join_with(join_static(&id, "i"));
    assert_eq!(world.joined(waiter), JoinResponse::refused("", GroupError::UnknownServerError));
}
