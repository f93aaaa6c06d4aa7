//! Dynamic members: joining, rebalancing, falling silent.

use super::*;

#[test]
fn a_new_member_is_sent_back_with_an_id_from_version_4_on() {
    let mut world = World::new();
    let waiter = world.join_with(JoinRequest { require_known_member_id: true, ..join("") });
    let first = world.joined(waiter);
    assert_eq!(first.error, Some(GroupError::MemberIdRequired));
    assert!(first.member_id.starts_with("client-") && first.member_id.len() == 7 + 36, "{}", first.member_id);
    assert_eq!((first.generation_id, first.leader.as_str()), (-1, ""));
    let waiter = world.join_with(JoinRequest { require_known_member_id: true, ..join(&first.member_id) });
    let joined = world.joined(waiter);
    assert_eq!((joined.error, joined.generation_id, joined.leader), (None, 1, first.member_id));
}

#[test]
fn an_id_that_is_not_used_within_the_session_timeout_is_forgotten() {
    let mut world = World::new();
    let waiter = world.join_with(JoinRequest { require_known_member_id: true, ..join("") });
    let id = world.joined(waiter).member_id;
    world.pass(11);
    let waiter = world.join_with(join(&id));
    assert_eq!(world.joined(waiter).error, Some(GroupError::UnknownMemberId));
}

#[test]
fn a_rebalance_waits_for_ids_given_out_and_goes_on_without_them() {
    let mut world = World::new();
    let member = world.stable(1).remove(0);
    let waiter = world.join_with(JoinRequest { require_known_member_id: true, session_timeout_ms: 8_000, ..join("") });
    assert_eq!(world.joined(waiter).error, Some(GroupError::MemberIdRequired));
    assert_eq!(world.state(), "Stable", "an id alone does not rebalance");
    let waiter = world.join_with(join(&member.member_id));
    assert!(world.is_waiting(waiter), "the new one may come");
    world.pass(9);
    assert_eq!(world.joined(waiter).generation_id, 2);
}

#[test]
fn members_of_unknown_groups_are_unknown() {
    let mut world = World::new();
    let nobody = JoinResponse::refused("nobody", GroupError::UnknownMemberId);
    let waiter = world.join_with(join("nobody"));
    assert_eq!(world.joined(waiter), nobody);
    let waiter = world.sync(&nobody);
    assert_eq!(world.synced(waiter).error, Some(GroupError::UnknownMemberId));
    assert_eq!(world.heartbeat(&nobody), Err(GroupError::UnknownMemberId));
    assert_eq!(world.leave(&[("nobody", None)]), [Some(GroupError::UnknownMemberId)]);
    assert_eq!(world.shard.len(), 0);
}

#[test]
fn the_first_members_join_within_the_initial_delay_which_grows_up_to_the_rebalance_timeout() {
    let mut world = World::with(GroupCoordinatorConfig::default());
    let first = world.join_with(JoinRequest { rebalance_timeout_ms: 7_000, ..join("") });
    world.pass(2);
    let second = world.join_with(JoinRequest { rebalance_timeout_ms: 7_000, ..join("") });
    world.pass(2);
    assert!(world.is_waiting(first), "the second one made it wait three seconds more");
    let third = world.join_with(JoinRequest { rebalance_timeout_ms: 7_000, ..join("") });
    world.pass(2);
    assert!(world.is_waiting(first), "and the third one second more, up to the rebalance timeout");
    world.pass(1);
    for waiter in [first, second, third] {
        assert_eq!(world.joined(waiter).generation_id, 1);
    }
    assert_eq!(world.joined(first).members.len(), 3);
    assert!(world.joined(second).members.is_empty(), "only the leader is told who is there");
}

#[test]
fn protocols_that_do_not_fit_are_refused() {
    let mut world = World::new();
    let with = |kind: &str, names: &[&str]| JoinRequest { protocol_type: kind.to_owned(), protocols: protocols(names), ..join("") };
    for (kind, names) in [("", &["range"][..]), ("consumer", &[])] {
        let waiter = world.join_with(with(kind, names));
        assert_eq!(world.joined(waiter).error, Some(GroupError::InconsistentGroupProtocol));
    }
    let member = world.stable(1).remove(0);
    for (kind, names) in [("connect", &["range"][..]), ("consumer", &["sticky"]), ("consumer", &[])] {
        let waiter = world.join_with(with(kind, names));
        assert_eq!(world.joined(waiter).error, Some(GroupError::InconsistentGroupProtocol), "{kind} {names:?}");
        let waiter = world.join_with(JoinRequest { member_id: member.member_id.clone(), ..with(kind, names) });
        assert_eq!(world.joined(waiter).error, Some(GroupError::InconsistentGroupProtocol), "{kind} {names:?}");
    }
    assert_eq!(world.state(), "Stable");
    world.leave(&[(&member.member_id, None)]);
    let waiter = world.join_with(with("connect", &["sessioned"]));
    world.pass(0);
    assert_eq!(world.joined(waiter).protocol_type.as_deref(), Some("connect"), "an empty group takes any type");
}

#[test]
fn the_protocol_is_the_favourite_of_most_among_those_that_all_support() {
    let mut world = World::with(GroupCoordinatorConfig::default());
    let offers: [&[&str]; 4] = [&["a", "b", "c"], &["d", "b", "a"], &["c", "b", "a"], &["b", "a", "b"]];
    let waiters: Vec<_> = offers.iter().map(|names| world.join_with(JoinRequest { protocols: protocols(names), ..join("") })).collect();
    world.pass(20);
    for waiter in waiters {
        assert_eq!(world.joined(waiter).protocol_name.as_deref(), Some("b"));
    }
}

#[test]
fn a_follower_that_joins_again_gets_the_same_answer_and_the_leader_rebalances() {
    let mut world = World::new();
    let members = world.stable(2);
    let generation = members[0].generation_id;
    let waiter = world.join_with(join(&members[1].member_id));
    assert_eq!(world.joined(waiter).generation_id, generation);
    assert_eq!(world.state(), "Stable");
    let waiter = world.join_with(join(&members[0].member_id));
    assert!(world.is_waiting(waiter));
    assert_eq!(world.state(), "PreparingRebalance");
    assert_eq!(world.heartbeat(&members[1]), Err(GroupError::RebalanceInProgress));
    let follower = world.join_with(join(&members[1].member_id));
    assert_eq!(world.joined(waiter).generation_id, generation + 1);
    assert_eq!(world.joined(follower).generation_id, generation + 1);
}

#[test]
fn changed_metadata_rebalances_in_every_state() {
    let mut world = World::new();
    let members = world.stable(2);
    let changed = |id: &str, names: &[&str]| JoinRequest { protocols: protocols(names), ..join(id) };
    let follower = world.join_with(changed(&members[1].member_id, &["roundrobin"]));
    assert_eq!(world.state(), "PreparingRebalance");
    let leader = world.join_with(join(&members[0].member_id));
    assert_eq!(world.joined(follower).protocol_name.as_deref(), Some("roundrobin"));
    let generation = world.joined(leader).generation_id;
    // Completing: the same request gets the same answer again, another one rebalances.
    let again = world.join_with(changed(&members[1].member_id, &["roundrobin"]));
    assert_eq!(world.joined(again).generation_id, generation);
    assert_eq!(world.state(), "CompletingRebalance");
    let leader_again = world.join_with(join(&members[0].member_id));
    assert_eq!(world.joined(leader_again).members.len(), 2);
    let joined = world.joined(leader);
    let syncing = world.sync(&JoinResponse { members: Vec::new(), member_id: members[1].member_id.clone(), ..joined });
    world.join_with(changed(&members[1].member_id, &["roundrobin", "range"]));
    assert_eq!(world.synced(syncing).error, Some(GroupError::RebalanceInProgress));
    assert_eq!(world.state(), "PreparingRebalance");
}

#[test]
fn followers_wait_for_the_leader_s_assignment_which_is_written_first() {
    let mut world = World::with(GroupCoordinatorConfig::default());
    let waiters = [world.join_new(), world.join_new()];
    world.pass(6);
    let [leader, follower] = waiters.map(|waiter| world.joined(waiter));
    let following = world.sync(&follower);
    assert!(world.is_waiting(following));
    let written = world.log.len();
    world.append = None;
    let leading = world.sync(&leader);
    assert!(world.is_waiting(leading) && world.is_waiting(following), "not before it is committed");
    assert_eq!(world.commit_error(&follower), Some(GroupError::RebalanceInProgress));
    world.end_append(Ok(()));
    assert_eq!(world.log.len(), written + 1);
    assert_eq!(world.synced(leading).assignment, leader.member_id);
    assert_eq!(world.synced(following).assignment, follower.member_id);
    let again = world.sync(&follower);
    assert_eq!(world.synced(again).assignment, follower.member_id, "once stable it is told at once");
}

impl World {
    fn commit_error(&mut self, joined: &JoinResponse) -> Option<GroupError> {
        self.commit(&joined.member_id, None, joined.generation_id).err()
    }
}

#[test]
fn a_member_that_joins_while_the_assignment_is_written_wins() {
    let mut world = World::new();
    let waiter = world.join_new();
    world.pass(0);
    let leader = world.joined(waiter);
    world.append = None;
    let leading = world.sync(&leader);
    let newcomer = world.join_new();
    assert_eq!(world.synced(leading).error, Some(GroupError::RebalanceInProgress));
    world.end_append(Ok(()));
    assert_eq!(world.state(), "PreparingRebalance");
    let leader = world.join_with(join(&leader.member_id));
    assert_eq!(world.joined(leader).generation_id, 2);
    assert_eq!(world.joined(newcomer).generation_id, 2);
}

#[test]
fn sync_is_fenced_by_generation_member_and_protocol() {
    let mut world = World::new();
    let member = world.stable(1).remove(0);
    let refused = |world: &mut World, request: SyncRequest| {
        let waiter = world.sync_with(request);
        world.synced(waiter).error
    };
    assert_eq!(refused(&mut world, SyncRequest { generation_id: 9, ..sync(&member) }), Some(GroupError::IllegalGeneration));
    assert_eq!(refused(&mut world, SyncRequest { member_id: "x".to_owned(), ..sync(&member) }), Some(GroupError::UnknownMemberId));
    for (kind, name) in [("connect", "range"), ("consumer", "roundrobin")] {
        let request = SyncRequest { protocol_type: Some(kind.to_owned()), protocol_name: Some(name.to_owned()), ..sync(&member) };
        assert_eq!(refused(&mut world, request), Some(GroupError::InconsistentGroupProtocol), "{kind} {name}");
    }
    world.join_with(join(""));
    assert_eq!(refused(&mut world, sync(&member)), Some(GroupError::RebalanceInProgress));
}

#[test]
fn a_silent_member_is_removed_and_the_others_rebalance() {
    let mut world = World::new();
    let members = world.stable(2);
    for _ in 0..3 {
        world.pass(6);
        let _ = world.heartbeat(&members[0]);
    }
    assert_eq!(world.state(), "PreparingRebalance");
    assert_eq!(world.heartbeat(&members[1]), Err(GroupError::UnknownMemberId));
    let waiter = world.join_with(join(&members[0].member_id));
    assert_eq!(world.joined(waiter).members.len(), 1);
}

#[test]
fn a_commit_keeps_a_member_alive() {
    let mut world = World::new();
    let member = world.stable(1).remove(0);
    for _ in 0..5 {
        world.pass(8);
        assert_eq!(world.commit(&member.member_id, None, member.generation_id), Ok(()));
    }
}

#[test]
fn members_that_do_not_join_again_in_time_are_out() {
    let mut world = World::new();
    let members = world.stable(2);
    let newcomer = world.join_new();
    let leader = world.join_with(join(&members[0].member_id));
    for _ in 0..9 {
        world.pass(6);
        assert_eq!(world.heartbeat(&members[1]), Err(GroupError::RebalanceInProgress));
    }
    assert!(world.is_waiting(leader));
    world.pass(6);
    assert_eq!(world.joined(leader).members.len(), 2);
    assert_eq!(world.joined(newcomer).generation_id, members[0].generation_id + 1);
    assert_eq!(world.heartbeat(&members[1]), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_leader_that_does_not_join_again_is_replaced() {
    let mut world = World::new();
    let members = world.stable(2);
    world.join_new();
    let follower = world.join_with(join(&members[1].member_id));
    world.pass(61);
    assert_eq!(world.joined(follower).leader, members[1].member_id);
}

#[test]
fn members_that_do_not_sync_in_time_are_out() {
    let mut world = World::with(GroupCoordinatorConfig::default());
    let waiters = [world.join_new(), world.join_new()];
    world.pass(6);
    let [leader, follower] = waiters.map(|waiter| world.joined(waiter));
    let syncing = world.sync(&leader);
    assert_eq!(world.synced(syncing).error, None);
    for _ in 0..10 {
        let _ = world.heartbeat(&leader);
        let _ = world.heartbeat(&follower);
        world.pass(6);
    }
    assert_eq!(world.state(), "PreparingRebalance");
    assert_eq!(world.heartbeat(&follower), Err(GroupError::UnknownMemberId));
    let waiter = world.join_with(join(&leader.member_id));
    assert_eq!(world.joined(waiter).members.len(), 1);
}

#[test]
fn a_leader_that_never_syncs_is_out_and_its_followers_join_again() {
    let mut world = World::with(GroupCoordinatorConfig::default());
    let waiters = [world.join_new(), world.join_new()];
    world.pass(6);
    let [leader, follower] = waiters.map(|waiter| world.joined(waiter));
    let syncing = world.sync(&follower);
    world.pass(11);
    assert_eq!(world.heartbeat(&leader), Err(GroupError::UnknownMemberId), "its session ended");
    assert_eq!(world.synced(syncing).error, Some(GroupError::RebalanceInProgress));
    let waiter = world.join_with(join(&follower.member_id));
    assert_eq!(world.joined(waiter).leader, follower.member_id);
}

#[test]
fn a_new_member_whose_join_waits_too_long_is_sent_away() {
    let mut world = World::new();
    let slow = JoinRequest { rebalance_timeout_ms: 600_000, ..join("") };
    let member = world.stabilise(vec![slow]).remove(0);
    let newcomer = world.join_new();
    for _ in 0..50 {
        world.pass(6);
        let _ = world.heartbeat(&member);
    }
    assert_eq!(world.joined(newcomer), JoinResponse::refused("", GroupError::UnknownMemberId));
}

#[test]
fn a_retried_join_replaces_the_one_that_waits() {
    let mut world = World::new();
    let members = world.stable(2);
    let first = world.join_with(join(&members[0].member_id));
    let retry = world.join_with(join(&members[0].member_id));
    assert_eq!(world.joined(first).error, Some(GroupError::RebalanceInProgress));
    assert!(world.is_waiting(retry));
    world.join_with(join(&members[1].member_id));
    assert_eq!(world.joined(retry).error, None);
}

#[test]
fn the_last_to_leave_empties_the_group_and_its_next_generation_is_higher() {
    let mut world = World::new();
    let members = world.stable(2);
    assert_eq!(world.leave(&[(&members[0].member_id, None), ("nobody", None)]), [None, Some(GroupError::UnknownMemberId)]);
    assert_eq!(world.heartbeat(&members[1]), Err(GroupError::RebalanceInProgress));
    assert_eq!(world.leave(&[(&members[1].member_id, None)]), [None]);
    assert_eq!(world.state(), "Empty");
    let again = world.stable(1).remove(0);
    assert_eq!(again.generation_id, members[0].generation_id + 2);
}

#[test]
fn a_group_takes_no_more_members_than_its_limit() {
    let config = GroupCoordinatorConfig { group_initial_rebalance_delay_ms: 0, group_max_size: 2, ..GroupCoordinatorConfig::default() };
    let mut world = World::with(config);
    let members = world.stable(2);
    let waiter = world.join_new();
    assert_eq!(world.joined(waiter), JoinResponse::refused("", GroupError::GroupMaxSizeReached));
    // While they join again, whoever comes first is in.
    let leader = world.join_with(join(&members[0].member_id));
    let newcomer = world.join_new();
    let late = world.join_with(join(&members[1].member_id));
    assert_eq!(world.joined(late).error, Some(GroupError::GroupMaxSizeReached));
    world.pass(61);
    assert_eq!(world.joined(leader).members.len(), 2);
    assert_eq!(world.joined(newcomer).error, None);
}

#[test]
fn a_loaded_group_that_is_too_large_rebalances() {
    let mut world = World::new();
    world.stable(3);
    let config = GroupCoordinatorConfig { group_max_size: 2, ..GroupCoordinatorConfig::default() };
    let mut loaded = GroupShard::new(Arc::new(config));
    for record in &world.log {
        assert_eq!(loaded.replay(record, START_MS), Ok(None));
    }
    loaded.on_loaded(world.now());
    assert_eq!(loaded.classic(GROUP).unwrap().state().name(), "PreparingRebalance");
}

#[test]
fn cooperative_members_rebalance_twice_without_losing_their_generation() {
    let mut world = World::new();
    let cooperative = || JoinRequest { protocols: protocols(&["cooperative-sticky"]), ..join("") };
    let members = world.stabilise(vec![cooperative(), cooperative()]);
    let again = |id: &str| JoinRequest { member_id: id.to_owned(), ..cooperative() };
    for round in 1..=2 {
        let leader = world.join_with(again(&members[0].member_id));
        let _ = world.commit(&members[1].member_id, None, members[1].generation_id + round - 1);
        let follower = world.join_with(again(&members[1].member_id));
        for waiter in [leader, follower] {
            let joined = world.joined(waiter);
            assert_eq!(joined.generation_id, members[0].generation_id + round);
            world.sync(&joined);
        }
        assert_eq!(world.state(), "Stable");
    }
}
