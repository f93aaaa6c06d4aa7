//! Consumer groups in a shard: answers wait for the log, restarts change nothing, groups migrate and end.

use super::*;
use crate::cluster::ChangedTopics;
use crate::consumer::tests::{TestCluster, heartbeat, topic_id};
use crate::consumer_protocol;
use crate::messages::{ConsumerHeartbeatRequest, ConsumerHeartbeatResponse, DescribedConsumerGroup, Refusal};

fn joining(member_id: &str) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        rebalance_timeout_ms: 60_000,
        subscribed_topics: Some(vec!["topic".to_owned()]),
        owned: Some(Vec::new()),
        ..heartbeat(member_id, 0)
    }
}

fn config() -> GroupCoordinatorConfig {
    GroupCoordinatorConfig { group_initial_rebalance_delay_ms: 0, consumer_assignment_interval_ms: 0, ..GroupCoordinatorConfig::default() }
}

/// A topic with four partitions.
fn world() -> World {
    let mut world = World::with(config());
    world.shard.on_cluster_changed(Arc::new(TestCluster::default().with_topic("topic", 4)), &ChangedTopics::default());
    world
}

impl World {
    fn beat_with(&mut self, request: ConsumerHeartbeatRequest) -> WaiterId {
        let waiter = self.waiter();
        self.shard.consumer_heartbeat(request, &|_| true, Uuid::from_u128(u128::from(waiter)), waiter, self.now());
        self.settle();
        waiter
    }

    fn beat(&mut self, request: ConsumerHeartbeatRequest) -> Result<ConsumerHeartbeatResponse, Refusal> {
        let waiter = self.beat_with(request);
        match self.replies.get(&waiter) {
            Some(Reply::ConsumerHeartbeat(result)) => result.clone(),
            other => panic!("expected an answer to ConsumerGroupHeartbeat, not {other:?}"),
        }
    }

    fn described(&self) -> DescribedConsumerGroup {
        self.shard.describe_consumer_group(GROUP).expect("a consumer group")
    }

    /// A shard that replays this one's log.
    fn restarted(&self) -> World {
        let mut world = world();
        for record in &self.log {
            assert_eq!(world.shard.replay(record, START_MS), Ok(None));
        }
        world.log.clone_from(&self.log);
        world.now = self.now;
        world.shard.on_loaded(world.now());
        world
    }
}

#[test]
fn answers_wait_for_their_records_and_for_those_before_them() {
    let mut world = world();
    world.append = None;
    let first = world.beat_with(joining("a"));
    let again = world.beat_with(joining("a"));
    assert!(world.is_waiting(first) && world.is_waiting(again), "the second answer tells of what is not written");
    world.end_append(Ok(()));
    assert!(!world.is_waiting(first) && !world.is_waiting(again));
    let steady = world.log.len();
    world.beat(heartbeat("a", 2)).unwrap();
    assert_eq!(world.log.len(), steady, "a heartbeat without news writes nothing");
}

#[test]
fn after_a_failed_write_the_partition_must_be_replayed() {
    let mut world = world();
    world.beat(joining("a")).unwrap();
    let before = world.described();
    world.append = Some(Err(StateLogError::NotEnoughReplicas));
    assert_eq!(world.beat(joining("b")).unwrap_err().error, GroupError::CoordinatorNotAvailable);
    assert!(world.shard.must_reload());
    let restarted = world.restarted();
    assert!(!restarted.shard.must_reload());
    assert_eq!(restarted.described(), before, "as if the member had never come");
}

#[test]
fn a_restart_changes_nothing_but_begins_the_sessions_anew() {
    let mut world = world();
    world.beat(joining("a")).unwrap();
    world.beat(joining("b")).unwrap();
    world.beat(heartbeat("a", 2)).unwrap();
    let mut restarted = world.restarted();
    assert_eq!(restarted.described(), world.described());
    restarted.pass(20);
    assert_eq!(restarted.beat(heartbeat("b", 3)).unwrap().member_epoch, 3);
    restarted.pass(24);
    assert_eq!(restarted.described().members.len(), 2);
    restarted.pass(2);
    assert_eq!(restarted.described().members.len(), 1, "only b sent a heartbeat");
    restarted.pass(60);
    assert_eq!(restarted.described().state, "Empty");
    assert_eq!(restarted.restarted().described(), restarted.described());
}

#[test]
fn members_that_give_nothing_up_are_removed_even_after_a_restart() {
    let mut world = world();
    world.beat(joining("a")).unwrap();
    world.beat(joining("b")).unwrap();
    world.beat(heartbeat("a", 2)).unwrap();
    let mut world = world.restarted();
    for _ in 0..3 {
        world.pass(19);
        world.beat(heartbeat("a", 2)).unwrap();
        world.beat(heartbeat("b", 3)).unwrap();
    }
    world.pass(4);
    assert_eq!(world.beat(heartbeat("a", 2)).unwrap_err().error, GroupError::UnknownMemberId);
    let all = world.beat(heartbeat("b", 3)).unwrap();
    assert_eq!(all.assignment.unwrap()[0].partitions, [0, 1, 2, 3]);
}

#[test]
fn an_empty_consumer_group_can_be_deleted_and_its_offsets_with_it() {
    let mut world = world();
    world.beat(joining("a")).unwrap();
    let commit = CommitRequest { reports_unknown_group: true, ..commit("a", 2, 9) };
    let waiter = world.waiter();
    world.shard.commit_offsets(commit, waiter, world.now());
    world.settle();
    let delete = |world: &mut World| {
        let waiter = world.waiter();
        world.shard.delete_groups(vec![GROUP.to_owned()], waiter);
        world.settle();
        match world.replies.remove(&waiter) {
            Some(Reply::DeleteGroups(results)) => results[0].1,
            other => panic!("expected an answer to DeleteGroups, not {other:?}"),
        }
    };
    assert_eq!(delete(&mut world), Err(GroupError::NonEmptyGroup));
    world.beat(heartbeat("a", -1)).unwrap();
    assert_eq!(world.described().state, "Empty");
    assert_eq!(delete(&mut world), Ok(()));
    assert_eq!(world.shard.len(), 0);
    assert_eq!(world.restarted().shard.len(), 0);
    assert_eq!(world.beat(joining("a")).unwrap().member_epoch, 2, "a new group of the same name begins anew");
}

#[test]
fn a_live_classic_group_becomes_a_consumer_group_and_back() {
    let mut world = world();
    let joined = world.stable(1).remove(0);
    // The test's leader assigns nonsense: such a group can't be understood.
    assert_eq!(world.beat(joining("new")).unwrap_err().error, GroupError::GroupIdNotFound);
    let rejoined = world.join_with(join(&joined.member_id));
    let joined = world.joined(rejoined);
    let assignment = consumer_protocol::write_assignment(0, &vec![("topic".to_owned(), vec![0, 1, 2, 3])]);
    world.sync_with(SyncRequest { assignments: vec![(joined.member_id.clone(), assignment)], ..sync(&joined) });

    let new = world.beat(joining("new")).unwrap();
    assert_eq!((new.member_epoch, new.assignment), (joined.generation_id + 1, Some(Vec::new())));
    assert!(world.shard.classic(GROUP).is_none());
    let restarted = world.restarted();
    assert_eq!(restarted.described(), world.described());
    assert_eq!(world.heartbeat(&joined), Err(GroupError::RebalanceInProgress));

    let rejoined = world.join_with(join(&joined.member_id));
    let stepped = world.joined(rejoined);
    assert_eq!((stepped.error, stepped.leader.as_str()), (None, ""), "nobody leads");
    let waiter = world.sync_with(SyncRequest {
        protocol_type: Some("consumer".to_owned()),
        protocol_name: Some("range".to_owned()),
        ..sync(&stepped)
    });
    let kept = consumer_protocol::read_assignment(&world.synced(waiter).assignment).unwrap().partitions;
    assert_eq!(kept, [("topic".to_owned(), vec![0, 1])]);

    world.beat(heartbeat("new", -1)).unwrap();
    assert_eq!(world.state(), "PreparingRebalance", "a classic group again, whose members must join");
    assert_eq!(world.restarted().state(), "Stable");
    let rejoined = world.join_with(join(&joined.member_id));
    assert_eq!(world.joined(rejoined).leader, joined.member_id);
}

#[test]
fn an_empty_group_of_one_kind_becomes_the_other() {
    let mut world = world();
    world.beat(joining("a")).unwrap();
    world.beat(heartbeat("a", -1)).unwrap();
    let joined = world.stable(1).remove(0);
    assert_eq!(world.restarted().state(), "Stable");
    assert_eq!(world.leave(&[(&joined.member_id, None)]), [None]);
    assert_eq!(world.beat(joining("a")).unwrap().member_epoch, 2);
    assert_eq!(world.restarted().described(), world.described());
    assert_eq!(world.leave(&[("a", None), ("b", None)]), [None, Some(GroupError::UnknownMemberId)]);
    assert_eq!(world.described().state, "Empty");
}

#[test]
fn more_partitions_of_a_subscribed_topic_make_a_new_target() {
    let mut world = world();
    world.beat(joining("a")).unwrap();
    let cluster = TestCluster::default().with_topic("topic", 6);
    assert_eq!(world.beat(heartbeat("a", 2)).unwrap().member_epoch, 2);
    let changed = ChangedTopics { names: vec!["topic".to_owned()], ..ChangedTopics::default() };
    world.shard.on_cluster_changed(Arc::new(cluster), &changed);
    let more = world.beat(heartbeat("a", 2)).unwrap();
    assert_eq!((more.member_epoch, more.assignment.unwrap()[0].partitions.len()), (3, 6));
    assert_eq!(topic_id("topic"), world.described().members[0].assignment[0].topic_id);
}
