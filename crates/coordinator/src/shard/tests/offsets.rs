//! Committed offsets: who may commit, what is kept, what goes.

use super::*;
use crate::messages::{CommittedOffset, DeleteOffsetsRequest, FetchOffsetsRequest};

impl World {
    fn commit_with(&mut self, request: CommitRequest) -> Reply {
        let waiter = self.waiter();
        self.shard.commit_offsets(request, waiter, self.now());
        self.settle();
        self.replies.get(&waiter).expect("answered").clone()
    }

    fn fetched(&self, group: &str, topic: &str) -> CommittedOffset {
        let request = FetchOffsetsRequest {
            group_id: group.to_owned(),
            partitions: Some(vec![topic_partition(topic, 0)]),
            member_id: None,
            member_epoch: -1,
            require_stable: false,
        };
        self.shard.fetch_offsets(&request).unwrap().remove(0).1
    }

    fn expire_after(&mut self, seconds: u64) {
        self.pass(seconds);
        self.shard.expire();
        self.settle();
    }
}

const WEEK_SECONDS: u64 = 7 * 24 * 3600;

fn on_topic(topic: &str, request: CommitRequest) -> CommitRequest {
    let mut request = request;
    request.offsets[0].id.topic = topic.into();
    request
}

#[test]
fn who_may_commit() {
    let mut world = World::new();
    // Without a group, a client that manages itself makes one; a generation is an error that depends on the version.
    assert_eq!(world.commit("m", None, 3), Err(GroupError::IllegalGeneration));
    let modern = CommitRequest { reports_unknown_group: true, ..commit("m", 3, 1) };
    assert_eq!(world.commit_with(modern), Reply::Commit(Err(GroupError::GroupIdNotFound)));
    assert_eq!(world.commit("", None, -1), Ok(()));
    assert_eq!(world.group().list().protocol_type, "");
    // An empty group: still.
    assert_eq!(world.commit("anybody", None, -1), Ok(()));
    assert_eq!(world.commit("", None, 0), Err(GroupError::UnknownMemberId));
    // A stable one: members of the generation only.
    let member = world.stable(1).remove(0);
    let id = member.member_id.as_str();
    assert_eq!(world.commit("", None, -1), Err(GroupError::UnknownMemberId));
    assert_eq!(world.commit("nobody", None, member.generation_id), Err(GroupError::UnknownMemberId));
    assert_eq!(world.commit(id, None, member.generation_id - 1), Err(GroupError::IllegalGeneration));
    assert_eq!(world.commit(id, None, -1), Err(GroupError::IllegalGeneration));
    assert_eq!(world.commit(id, Some("i"), member.generation_id), Err(GroupError::UnknownMemberId));
    assert_eq!(world.commit(id, None, member.generation_id), Ok(()));
    // While the others join, the old generation may still commit; not once the new one is told.
    let newcomer = world.join_new();
    assert_eq!(world.commit(id, None, member.generation_id), Ok(()));
    world.join_with(join(id));
    assert_eq!(world.commit(id, None, member.generation_id), Err(GroupError::IllegalGeneration));
    let generation = world.joined(newcomer).generation_id;
    assert_eq!(world.commit(id, None, generation), Err(GroupError::RebalanceInProgress));
}

#[test]
fn metadata_that_is_too_large_refuses_its_partition_only() {
    let mut world = World::new();
    let mut request = commit("", -1, 5);
    request.offsets[0].metadata = Some("é".repeat(4_096));
    let too_large = CommitOffset { id: topic_partition("topic", 1), metadata: Some("é".repeat(4_097)), ..request.offsets[0].clone() };
    request.offsets.push(too_large.clone());
    let outcomes = vec![(topic_partition("topic", 0), Ok(())), (topic_partition("topic", 1), Err(GroupError::OffsetMetadataTooLarge))];
    assert_eq!(world.commit_with(request), Reply::Commit(Ok(outcomes)));
    assert_eq!(world.fetched(GROUP, "topic").metadata.chars().count(), 4_096);
    let written = world.log.len();
    let refused = CommitRequest { offsets: vec![too_large], ..commit("", -1, 5) };
    assert_eq!(world.commit_with(refused), Reply::Commit(Ok(vec![(topic_partition("topic", 1), Err(GroupError::OffsetMetadataTooLarge))])));
    assert_eq!(world.log.len(), written, "nothing is written");
}

#[test]
fn what_was_never_committed_is_minus_one() {
    let mut world = World::new();
    assert_eq!(world.fetched("nobody", "topic"), CommittedOffset::none());
    world.commit("", None, -1).unwrap();
    assert_eq!(world.fetched(GROUP, "other"), CommittedOffset::none());
    let all =
        FetchOffsetsRequest { group_id: GROUP.to_owned(), partitions: None, member_id: None, member_epoch: -1, require_stable: false };
    assert_eq!(world.shard.fetch_offsets(&all).unwrap(), [(topic_partition("topic", 0), world.fetched(GROUP, "topic"))]);
}

#[test]
fn offsets_without_a_group_expire_a_week_after_their_commit() {
    let mut world = World::new();
    world.commit_with(commit("", -1, 5));
    world.expire_after(WEEK_SECONDS / 2);
    world.commit_with(on_topic("later", commit("", -1, 6)));
    world.expire_after(WEEK_SECONDS / 2);
    assert_eq!(world.fetched(GROUP, "topic").offset, -1);
    assert_eq!(world.fetched(GROUP, "later").offset, 6);
    world.expire_after(WEEK_SECONDS / 2);
    assert_eq!(world.shard.len(), 0);
    let tombstones = world.log.iter().filter(|record| record.value.is_none()).count();
    assert_eq!(tombstones, 3, "two offsets and the group");
}

#[test]
fn offsets_of_a_live_consumer_group_expire_for_topics_it_no_longer_reads() {
    let mut world = World::new();
    let member = world.stabilise(vec![JoinRequest { session_timeout_ms: 1_800_000, ..join("") }]).remove(0);
    for topic in ["topic", "former"] {
        world.commit_with(on_topic(topic, commit(&member.member_id, member.generation_id, 5)));
    }
    let mut passed = 0;
    while passed < WEEK_SECONDS {
        world.pass(1_700);
        world.heartbeat(&member).unwrap();
        passed += 1_700;
    }
    world.expire_after(1);
    assert_eq!(world.fetched(GROUP, "topic").offset, 5);
    assert_eq!(world.fetched(GROUP, "former").offset, -1);
}

#[test]
fn offsets_of_a_group_of_another_type_stay_while_it_lives() {
    let mut world = World::new();
    let connect = JoinRequest { protocol_type: "connect".to_owned(), session_timeout_ms: i32::MAX, ..join("") };
    let member = world.stabilise(vec![connect]).remove(0);
    world.commit_with(commit(&member.member_id, member.generation_id, 5));
    world.expire_after(WEEK_SECONDS * 2);
    assert_eq!(world.fetched(GROUP, "topic").offset, 5);
}

#[test]
fn a_commit_s_own_retention_time_counts_instead() {
    let mut world = World::new();
    world.commit_with(CommitRequest { retention_time_ms: 60_000, ..commit("", -1, 5) });
    world.commit_with(on_topic("kept", CommitRequest { retention_time_ms: 60_000 * 60 * 24 * 30, ..commit("", -1, 5) }));
    let mut loaded = World::new();
    for record in &world.log {
        loaded.shard.replay(record, START_MS).unwrap();
    }
    for world in [&mut world, &mut loaded] {
        world.expire_after(61);
        assert_eq!(world.fetched(GROUP, "topic").offset, -1);
        world.expire_after(WEEK_SECONDS);
        assert_eq!(world.fetched(GROUP, "kept").offset, 5);
    }
}

#[test]
fn a_group_that_is_being_deleted_takes_nothing_and_comes_back_if_that_fails() {
    let mut world = World::new();
    world.commit("", None, -1).unwrap();
    world.append = None;
    let deleting = world.waiter();
    world.shard.delete_groups(vec![GROUP.to_owned()], deleting);
    world.settle();
    assert_eq!(world.state(), "Dead");
    let joining = world.join_new();
    assert_eq!(world.joined(joining).error, Some(GroupError::CoordinatorNotAvailable));
    assert_eq!(world.commit("", None, -1), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(world.fetched(GROUP, "topic").offset, 7);
    world.end_append(Err(StateLogError::TimedOut));
    let failed = Reply::DeleteGroups(vec![(GROUP.to_owned(), Err(GroupError::CoordinatorNotAvailable))]);
    assert_eq!(world.replies[&deleting], failed);
    assert_eq!(world.state(), "Empty");
    assert_eq!(world.commit("", None, -1), Ok(()));
    let deleting = world.waiter();
    world.shard.delete_groups(vec![GROUP.to_owned()], deleting);
    world.settle();
    assert_eq!(world.replies[&deleting], Reply::DeleteGroups(vec![(GROUP.to_owned(), Ok(()))]));
    assert_eq!(world.shard.len(), 0);
}

#[test]
fn offsets_of_a_live_group_that_is_not_a_consumer_s_can_t_be_deleted() {
    let mut world = World::new();
    let delete = DeleteOffsetsRequest { group_id: GROUP.to_owned(), partitions: vec![topic_partition("topic", 0)] };
    let deleted = |world: &mut World| {
        let waiter = world.waiter();
        world.shard.delete_offsets(delete.clone(), waiter);
        world.settle();
        world.replies[&waiter].clone()
    };
    assert_eq!(deleted(&mut world), Reply::DeleteOffsets(Err(GroupError::GroupIdNotFound)));
    let connect = JoinRequest { protocol_type: "connect".to_owned(), ..join("") };
    let member = world.stabilise(vec![connect]).remove(0);
    assert_eq!(deleted(&mut world), Reply::DeleteOffsets(Err(GroupError::NonEmptyGroup)));
    world.commit_with(commit(&member.member_id, member.generation_id, 5));
    world.leave(&[(&member.member_id, None)]);
    assert_eq!(deleted(&mut world), Reply::DeleteOffsets(Ok(vec![(topic_partition("topic", 0), Ok(()))])));
    assert_eq!(world.fetched(GROUP, "topic").offset, -1);
}

#[test]
fn a_group_s_end_in_the_log_leaves_offsets_that_come_after_it() {
    let mut world = World::new();
    world.commit("", None, -1).unwrap();
    let offset = world.log.last().unwrap().clone();
    let end = crate::records::group_record(GROUP, None);
    let mut loaded = World::new();
    for record in [&offset, &end] {
        loaded.shard.replay(record, START_MS).unwrap();
    }
    assert_eq!(loaded.fetched(GROUP, "topic").offset, 7);
    let offset_end = crate::records::offset_record(GROUP, "topic", 0, None);
    loaded.shard.replay(&offset_end, START_MS).unwrap();
    assert_eq!(loaded.fetched(GROUP, "topic").offset, -1);
}
