//! The coordinator over a log in memory, on a paused clock: time passes only when everybody waits.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use siltstone_common::Env;
use siltstone_common::clock::{Clock, SimulatedClock};
use siltstone_common::fs::RealFs;
use tokio::sync::Semaphore;

use crate::cluster::NoCluster;
use crate::messages::{CommitOffset, LeavingMember, Protocol};
use crate::{
    ChangedTopics, CommitRequest, ConsumerHeartbeatRequest, DeleteOffsetsRequest, FetchOffsetsRequest, GroupCoordinator,
    GroupCoordinatorConfig, GroupError, HeartbeatRequest, JoinRequest, JoinResponse, Leadership, LeaveRequest, ListGroupsRequest,
    ProducerIdAndEpoch, Replayed, StateLog, StateLogError, StateWrite, SyncRequest, TopicPartition, TransactionVersion,
    TransactionalAppend, TransactionalCommitRequest, TxnMarker, WriteGuard,
};

/// A log in memory that can be made to fail or to hold appends back.
struct MemoryLog {
    records: Mutex<Vec<Vec<Replayed>>>,
    failure: Mutex<Option<StateLogError>>,
    gate: Semaphore,
    appends: Mutex<usize>,
}

const OPEN: usize = 1 << 20;

impl MemoryLog {
    fn new() -> Arc<Self> {
        let records = Mutex::new(vec![Vec::new(); 50]);
        Arc::new(Self { records, failure: Mutex::new(None), gate: Semaphore::new(OPEN), appends: Mutex::new(0) })
    }

    fn hold(&self) {
        self.gate.forget_permits(OPEN);
    }

    fn release(&self) {
        self.gate.add_permits(OPEN);
    }

    async fn extend(&self, partition: i32, records: Vec<Replayed>) -> Result<(), StateLogError> {
        let _permit = self.gate.acquire().await.map_err(|_| StateLogError::NotLeader)?;
        *self.appends.lock() += 1;
        if let Some(error) = self.failure.lock().clone() {
            return Err(error);
        }
        self.records.lock()[partition as usize].extend(records);
        Ok(())
    }

    fn all(&self) -> usize {
        self.records.lock().iter().map(Vec::len).sum()
    }
}

#[async_trait]
impl StateLog for MemoryLog {
    async fn append(&self, partition: i32, write: StateWrite) -> Result<(), StateLogError> {
        let replayed = match write {
            StateWrite::Records(records) => records.into_iter().map(Replayed::Record).collect(),
            StateWrite::Transactional(TransactionalAppend { producer, records, .. }) => {
                records.into_iter().map(|record| Replayed::Transactional(producer.producer_id, record)).collect()
            }
            StateWrite::Marker(marker) => vec![Replayed::Marker(marker.producer.producer_id, marker.commit)],
        };
        self.extend(partition, replayed).await
    }

    fn replay(&self, partition: i32) -> BoxStream<'_, Result<Vec<Replayed>, StateLogError>> {
        if let Some(error) = self.failure.lock().clone() {
            return stream::iter([Err(error)]).boxed();
        }
        let records = self.records.lock()[partition as usize].clone();
        stream::iter(records.chunks(7).map(|piece| Ok(piece.to_vec())).collect::<Vec<_>>()).boxed()
    }
}

fn coordinator(log: &Arc<MemoryLog>, config: GroupCoordinatorConfig) -> GroupCoordinator {
    GroupCoordinator::new(config, Env::simulated(7, Arc::new(RealFs)), log.clone())
}

fn leading_in(partitions: std::ops::Range<i32>) -> Leadership {
    Leadership { partition_count: None, led: partitions.map(|partition| (partition, 1)).collect() }
}

/// A coordinator that leads everything and has loaded it.
async fn leading(log: &Arc<MemoryLog>, config: GroupCoordinatorConfig) -> GroupCoordinator {
    let coordinator = coordinator(log, config);
    coordinator.on_leadership(&leading_in(0..50));
    loaded(&coordinator).await;
    coordinator
}

async fn loaded(coordinator: &GroupCoordinator) {
    for _ in 0..1000 {
        if coordinator.list_groups(&ListGroupsRequest::default()).is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not loaded");
}

fn join(group: &str, member_id: &str) -> JoinRequest {
    JoinRequest {
        group_id: group.to_owned(),
        member_id: member_id.to_owned(),
        group_instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![Protocol { name: "range".to_owned(), metadata: Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff") }],
        require_known_member_id: true,
        supports_skipping_assignment: true,
        reason: None,
    }
}

/// Joins as librdkafka and Java do: once for the id, once with it.
async fn join_twice(coordinator: &GroupCoordinator, group: &str) -> JoinResponse {
    let first = coordinator.join_group(join(group, "")).await;
    assert_eq!(first.error, Some(GroupError::MemberIdRequired));
    coordinator.join_group(join(group, &first.member_id)).await
}

fn sync(group: &str, joined: &JoinResponse) -> SyncRequest {
    let assign = |member: &crate::JoinedMember| (member.member_id.clone(), Bytes::from(format!("for {}", member.member_id)));
    SyncRequest {
        group_id: group.to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: None,
        protocol_type: Some("consumer".to_owned()),
        protocol_name: Some("range".to_owned()),
        assignments: joined.members.iter().map(assign).collect(),
    }
}

fn heartbeat(group: &str, joined: &JoinResponse) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: group.to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: None,
    }
}

fn commit(group: &str, joined: Option<&JoinResponse>, offset: i64) -> CommitRequest {
    CommitRequest {
        group_id: group.to_owned(),
        generation_id: joined.map_or(-1, |joined| joined.generation_id),
        member_id: joined.map(|joined| joined.member_id.clone()).unwrap_or_default(),
        group_instance_id: None,
        retention_time_ms: -1,
        reports_unknown_group: true,
        offsets: vec![CommitOffset { id: t0(), offset, leader_epoch: 3, metadata: Some("m".to_owned()) }],
    }
}

fn t0() -> TopicPartition {
    TopicPartition { topic: "t".into(), partition: 0 }
}

async fn committed(coordinator: &GroupCoordinator, group: &str, require_stable: bool) -> Result<i64, GroupError> {
    let request =
        FetchOffsetsRequest { group_id: group.to_owned(), partitions: Some(vec![t0()]), member_id: None, member_epoch: -1, require_stable };
    Ok(coordinator.fetch_offsets(request).await?[0].1.offset)
}

/// A group of `size` members that is stable: what JoinGroup told each.
async fn stable_group(coordinator: &GroupCoordinator, group: &str, size: usize) -> Vec<JoinResponse> {
    let joined = join_all((0..size).map(|_| join_twice(coordinator, group))).await;
    let synced = join_all(joined.iter().map(|joined| coordinator.sync_group(sync(group, joined)))).await;
    for (joined, synced) in joined.iter().zip(&synced) {
        assert_eq!(synced.error, None);
        assert_eq!(synced.assignment, format!("for {}", joined.member_id));
    }
    joined
}

#[test]
fn a_group_lives_where_java_s_hash_code_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let _guard = runtime.enter();
    let coordinator = coordinator(&MemoryLog::new(), GroupCoordinatorConfig::default());
    // By `Math.abs("...".hashCode()) % 50`; "polygenelubricants" hashes to i32::MIN, which Kafka takes for 0.
    for (group, partition) in [("", 0), ("a", 47), ("group", 47), ("my-group", 12), ("polygenelubricants", 0), ("grün😀", 8)] {
        assert_eq!(coordinator.partition_for(group), partition, "{group}");
    }
}

#[tokio::test(start_paused = true)]
async fn members_join_sync_commit_and_find_everything_after_a_restart() {
    let log = MemoryLog::new();
    let first = leading(&log, GroupCoordinatorConfig::default()).await;
    let joined = stable_group(&first, "g", 3).await;
    assert!(joined.iter().all(|member| member.generation_id == 1 && member.protocol_name.as_deref() == Some("range")));
    assert_eq!(joined.iter().filter(|member| !member.members.is_empty()).count(), 1, "one leader");
    assert_eq!(first.heartbeat(&heartbeat("g", &joined[0])), Ok(()));
    assert_eq!(first.commit_offsets(commit("g", Some(&joined[1]), 42)).await, Ok(vec![(t0(), Ok(()))]));
    let described = first.describe_group("g").unwrap();
    first.on_leadership(&Leadership::default());

    let second = leading(&log, GroupCoordinatorConfig::default()).await;
    assert_eq!(committed(&second, "g", true).await, Ok(42));
    assert_eq!(second.describe_group("g"), Ok(described));
    assert_eq!(second.heartbeat(&heartbeat("g", &joined[2])), Ok(()));
    // The sessions began anew with the load: silent members go, and the group becomes empty.
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(second.describe_group("g").unwrap().state, "Empty");
    assert_eq!(committed(&second, "g", false).await, Ok(42));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_visible_before_it_is_committed() {
    let log = MemoryLog::new();
    let coordinator = leading(&log, GroupCoordinatorConfig::default()).await;
    log.hold();
    let committing = coordinator.commit_offsets(commit("g", None, 5)).shared();
    let stable = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        committed(&coordinator, "g", true).await
    }
    .boxed()
    .shared();
    let middle = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(committing.peek().is_none() && stable.peek().is_none());
        assert_eq!(committed(&coordinator, "g", false).await, Ok(-1));
        log.release();
    };
    let (committed, stable, ()) = tokio::join!(committing.clone(), stable.clone(), middle);
    assert_eq!(committed, Ok(vec![(t0(), Ok(()))]));
    assert_eq!(stable, Ok(5));
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_changes_nothing_and_says_what_kafka_says() {
    let log = MemoryLog::new();
    let coordinator = leading(&log, GroupCoordinatorConfig::default()).await;
    let joined = stable_group(&coordinator, "g", 1).await;
    coordinator.commit_offsets(commit("g", Some(&joined[0]), 1)).await.unwrap();
    for (failure, error) in [
        (StateLogError::NotEnoughReplicas, GroupError::CoordinatorNotAvailable),
        (StateLogError::NotLeader, GroupError::NotCoordinator),
        (StateLogError::TooLarge, GroupError::UnknownServerError),
    ] {
        *log.failure.lock() = Some(failure);
        assert_eq!(coordinator.commit_offsets(commit("g", Some(&joined[0]), 2)).await, Err(error));
        assert_eq!(committed(&coordinator, "g", true).await, Ok(1));
    }
    // A new member makes a generation whose assignment can't be written: the leader hears of it and all join again.
    let member_id = joined[0].member_id.clone();
    let rejoined = coordinator.join_group(join("g", &member_id)).await;
    assert_eq!((rejoined.error, rejoined.generation_id), (None, 2));
    let synced = coordinator.sync_group(sync("g", &rejoined)).await;
    assert_eq!(synced.error, Some(GroupError::UnknownServerError));
    assert_eq!(coordinator.describe_group("g").unwrap().state, "PreparingRebalance");
    *log.failure.lock() = None;
    let rejoined = coordinator.join_group(join("g", &member_id)).await;
    assert_eq!(coordinator.sync_group(sync("g", &rejoined)).await.error, None);
}

#[tokio::test(start_paused = true)]
async fn requests_to_partitions_not_led_or_loading_are_refused() {
    let log = MemoryLog::new();
    let coordinator = coordinator(&log, GroupCoordinatorConfig::default());
    let partition = coordinator.partition_for("g");
    assert_eq!(committed(&coordinator, "g", false).await, Err(GroupError::NotCoordinator));
    *log.failure.lock() = Some(StateLogError::Storage("bucket is down".to_owned()));
    coordinator.on_leadership(&leading_in(partition..partition + 1));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(committed(&coordinator, "g", false).await, Err(GroupError::CoordinatorLoadInProgress));
    assert_eq!(coordinator.list_groups(&ListGroupsRequest::default()), Err(GroupError::CoordinatorLoadInProgress));
    let nobody = JoinResponse::refused("nobody", GroupError::UnknownMemberId);
    assert_eq!(coordinator.heartbeat(&heartbeat("g", &nobody)), Ok(()), "heartbeats are good while loading");
    *log.failure.lock() = None;
    loaded(&coordinator).await;
    assert_eq!(coordinator.heartbeat(&heartbeat("g", &nobody)), Err(GroupError::UnknownMemberId));
    let resignation = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        coordinator.on_leadership(&Leadership::default());
    };
    let (joined, ()) = tokio::join!(join_twice(&coordinator, "g"), resignation);
    assert_eq!(joined.error, Some(GroupError::NotCoordinator));
}

/// I21: another broker may have led meanwhile.
#[tokio::test(start_paused = true)]
async fn i21_a_newer_epoch_of_the_same_leader_loads_what_others_wrote() {
    let log = MemoryLog::new();
    let first = leading(&log, GroupCoordinatorConfig::default()).await;
    first.commit_offsets(commit("g", None, 1)).await.unwrap();
    let second = leading(&log, GroupCoordinatorConfig::default()).await;
    second.commit_offsets(commit("g", None, 2)).await.unwrap();
    first.on_leadership(&leading_in(0..50));
    assert_eq!(committed(&first, "g", false).await, Ok(1), "the epoch is known");
    first.on_leadership(&Leadership { led: (0..50).map(|partition| (partition, 2)).collect(), ..Leadership::default() });
    loaded(&first).await;
    assert_eq!(committed(&first, "g", false).await, Ok(2));
}

/// A consumer group runs ahead of what is written: if the write fails, the log says what there is.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_is_forgotten_by_a_replay() {
    let log = MemoryLog::new();
    let coordinator = leading(&log, GroupCoordinatorConfig::default()).await;
    let joining = ConsumerHeartbeatRequest {
        rebalance_timeout_ms: 60_000,
        subscribed_topics: Some(vec!["t".to_owned()]),
        owned: Some(Vec::new()),
        ..crate::consumer::tests::heartbeat("m", 0)
    };
    *log.failure.lock() = Some(StateLogError::NotEnoughReplicas);
    assert_eq!(coordinator.consumer_heartbeat(joining, &|_| true).await, Err(GroupError::CoordinatorNotAvailable.into()));
    *log.failure.lock() = None;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(coordinator.list_groups(&ListGroupsRequest::default()), Ok(Vec::new()));
}

/// A rebalance that nothing is written for: its end comes nearer than what the partition's task waits for.
#[tokio::test(start_paused = true)]
async fn a_member_that_does_not_rejoin_holds_a_rebalance_up_no_longer_than_it_said() {
    let log = MemoryLog::new();
    let coordinator =
        leading(&log, GroupCoordinatorConfig { group_initial_rebalance_delay_ms: 0, ..GroupCoordinatorConfig::default() }).await;
    let hasty = |member_id: &str| JoinRequest { rebalance_timeout_ms: 1_000, ..join("g", member_id) };
    let first = coordinator.join_group(hasty("")).await;
    let first = coordinator.join_group(hasty(&first.member_id)).await;
    assert_eq!(coordinator.sync_group(sync("g", &first)).await.error, None);
    let second = coordinator.join_group(hasty("")).await;
    let joined = tokio::time::timeout(Duration::from_secs(3), coordinator.join_group(hasty(&second.member_id))).await;
    assert_eq!(joined.expect("in time").members.len(), 1, "the first one is out");
}

#[tokio::test(start_paused = true)]
async fn the_first_rebalance_waits_for_more_members_and_no_longer() {
    let log = MemoryLog::new();
    let coordinator = leading(&log, GroupCoordinatorConfig::default()).await;
    let clock = SimulatedClock::starting_at(0);
    let joined = join_twice(&coordinator, "alone").await;
    assert_eq!(joined.error, None);
    assert!((3_000..3_010).contains(&clock.now_ms()), "{} ms", clock.now_ms());
    let none = GroupCoordinatorConfig { group_initial_rebalance_delay_ms: 0, ..GroupCoordinatorConfig::default() };
    let coordinator = leading(&log, none).await;
    let clock = SimulatedClock::starting_at(0);
    assert_eq!(join_twice(&coordinator, "at once").await.error, None);
    assert!(clock.now_ms() < 10, "{} ms", clock.now_ms());
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_members_join_leave_and_share_appends() {
    let log = MemoryLog::new();
    let coordinator = leading(&log, GroupCoordinatorConfig::default()).await;
    let joined = stable_group(&coordinator, "big", 300).await;
    let appends = *log.appends.lock();
    let commits = joined.iter().enumerate().map(|(at, member)| coordinator.commit_offsets(commit("big", Some(member), at as i64)));
    for outcome in join_all(commits).await {
        assert_eq!(outcome, Ok(vec![(t0(), Ok(()))]));
    }
    assert!(*log.appends.lock() - appends < 20, "300 commits took {} appends", *log.appends.lock() - appends);
    let members = joined.iter().map(|member| LeavingMember { member_id: member.member_id.clone(), group_instance_id: None, reason: None });
    let left = coordinator.leave_group(LeaveRequest { group_id: "big".to_owned(), members: members.collect() }).await.unwrap();
    assert!(left.iter().all(|member| member.error.is_none()));
    assert_eq!(coordinator.describe_group("big").unwrap().state, "Empty");
}

#[tokio::test(start_paused = true)]
async fn groups_and_offsets_are_deleted_by_tombstones() {
    let log = MemoryLog::new();
    let coordinator = leading(&log, GroupCoordinatorConfig::default()).await;
    let joined = stable_group(&coordinator, "live", 1).await;
    coordinator.commit_offsets(commit("live", Some(&joined[0]), 7)).await.unwrap();
    coordinator.commit_offsets(commit("idle", None, 8)).await.unwrap();
    let outcomes = coordinator.delete_groups(["live", "idle", "none"].map(str::to_owned).to_vec()).await;
    let outcome = |group: &str| outcomes.iter().find(|(id, _)| id == group).unwrap().1;
    assert_eq!(outcome("live"), Err(GroupError::NonEmptyGroup));
    assert_eq!(outcome("idle"), Ok(()));
    assert_eq!(outcome("none"), Err(GroupError::GroupIdNotFound));
    let delete = |topic: &str| DeleteOffsetsRequest {
        group_id: "live".to_owned(),
        partitions: vec![TopicPartition { topic: topic.into(), partition: 0 }],
    };
    assert_eq!(coordinator.delete_offsets(delete("t")).await.unwrap()[0].1, Err(GroupError::GroupSubscribedToTopic));
    assert_eq!(coordinator.delete_offsets(delete("other")).await.unwrap()[0].1, Ok(()));
    let mut of_deleted = commit("live", Some(&joined[0]), 9);
    of_deleted.offsets[0].id.topic = "deleted".into();
    coordinator.commit_offsets(of_deleted).await.unwrap();
    let changed = ChangedTopics { deleted: vec!["deleted".to_owned()], ..ChangedTopics::default() };
    coordinator.on_cluster_changed(Arc::new(NoCluster), &changed);
    assert_eq!(committed(&coordinator, "live", true).await, Ok(7));
    coordinator.on_leadership(&Leadership::default());

    let again = leading(&log, GroupCoordinatorConfig::default()).await;
    assert_eq!(again.describe_group("idle").unwrap_err().error, GroupError::GroupIdNotFound);
    let all =
        FetchOffsetsRequest { group_id: "live".to_owned(), member_id: None, member_epoch: -1, partitions: None, require_stable: false };
    assert_eq!(again.fetch_offsets(all).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn offsets_expire_so_long_after_the_last_member_left() {
    let log = MemoryLog::new();
    let config = GroupCoordinatorConfig { offsets_retention_ms: 24 * 3_600_000, ..GroupCoordinatorConfig::default() };
    let coordinator = leading(&log, config).await;
    let request = JoinRequest { session_timeout_ms: 1_800_000, require_known_member_id: false, ..join("g", "") };
    let joined = [coordinator.join_group(request).await];
    assert_eq!(coordinator.sync_group(sync("g", &joined[0])).await.error, None);
    coordinator.commit_offsets(commit("g", Some(&joined[0]), 7)).await.unwrap();
    coordinator.commit_offsets(commit("simple", None, 8)).await.unwrap();
    // The member lives for two days: its offsets stay, those without a group go.
    for _ in 0..48 * 2 + 1 {
        tokio::time::sleep(Duration::from_secs(1_790)).await;
        coordinator.heartbeat(&heartbeat("g", &joined[0])).unwrap();
    }
    assert_eq!(committed(&coordinator, "g", false).await, Ok(7));
    assert_eq!(committed(&coordinator, "simple", false).await, Ok(-1));
    assert_eq!(coordinator.describe_group("simple").unwrap_err().error, GroupError::GroupIdNotFound);
    // Then it falls silent: a day later they go, and the group with them.
    tokio::time::sleep(Duration::from_secs(23 * 3600)).await;
    assert_eq!(committed(&coordinator, "g", false).await, Ok(7));
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    assert_eq!(committed(&coordinator, "g", false).await, Ok(-1));
    assert_eq!(coordinator.describe_group("g").unwrap_err().error, GroupError::GroupIdNotFound);
    assert!(log.all() > 0);
}

fn of_transaction(group: &str, joined: Option<&JoinResponse>, offset: i64) -> TransactionalCommitRequest {
    let producer = ProducerIdAndEpoch { producer_id: 7, producer_epoch: 0 };
    TransactionalCommitRequest { commit: commit(group, joined, offset), producer, guard: Some(WriteGuard(1)) }
}

fn end_of_transaction(commit: bool) -> TxnMarker {
    let producer = ProducerIdAndEpoch { producer_id: 7, producer_epoch: 1 };
    TxnMarker { producer, coordinator_epoch: 0, commit, version: TransactionVersion::V2 }
}

/// What a reader that waits for stable offsets is told: `None` while a transaction holds the offset.
async fn stable(coordinator: &GroupCoordinator, group: &str) -> Option<i64> {
    let request = FetchOffsetsRequest {
        group_id: group.to_owned(),
        partitions: Some(vec![t0()]),
        member_id: None,
        member_epoch: -1,
        require_stable: true,
    };
    let found = coordinator.fetch_offsets(request).await.unwrap().remove(0).1;
    (!found.is_unstable).then_some(found.offset)
}

#[tokio::test(start_paused = true)]
async fn offsets_of_a_transaction_count_from_its_commit_on_and_over_a_restart() {
    let log = MemoryLog::new();
    let first = leading(&log, GroupCoordinatorConfig::default()).await;
    let partition = first.partition_for("g");
    first.commit_offsets(commit("g", None, 3)).await.unwrap();
    assert_eq!(first.commit_transactional_offsets(of_transaction("g", None, 5)).await, Ok(vec![(t0(), Ok(()))]));
    assert_eq!((committed(&first, "g", false).await, stable(&first, "g").await), (Ok(3), None));
    first.on_leadership(&Leadership::default());
    let second = leading(&log, GroupCoordinatorConfig::default()).await;
    assert_eq!((committed(&second, "g", false).await, stable(&second, "g").await), (Ok(3), None), "I17: it is open still");
    second.complete_transaction(partition, end_of_transaction(true)).await.unwrap();
    assert_eq!(stable(&second, "g").await, Some(5));
    second.commit_transactional_offsets(of_transaction("g", None, 9)).await.unwrap();
    second.complete_transaction(partition, end_of_transaction(false)).await.unwrap();
    assert_eq!(stable(&second, "g").await, Some(5), "I19: an aborted offset never counts");
    second.on_leadership(&Leadership::default());
    let third = leading(&log, GroupCoordinatorConfig::default()).await;
    assert_eq!(stable(&third, "g").await, Some(5));
}

/// A topic may be made again under its name before the transaction commits: the offset was not meant for that one.
#[tokio::test(start_paused = true)]
async fn offsets_that_a_transaction_holds_go_with_their_topic_and_by_offset_delete() {
    let log = MemoryLog::new();
    let coordinator = leading(&log, GroupCoordinatorConfig::default()).await;
    let partition = coordinator.partition_for("g");
    for by_topic in [true, false] {
        coordinator.commit_transactional_offsets(of_transaction("g", None, 5)).await.unwrap();
        if by_topic {
            let changed = ChangedTopics { deleted: vec![t0().topic.to_string()], ..ChangedTopics::default() };
            coordinator.on_cluster_changed(Arc::new(NoCluster), &changed);
        } else {
            let delete = DeleteOffsetsRequest { group_id: "g".to_owned(), partitions: vec![t0()] };
            assert_eq!(coordinator.delete_offsets(delete).await, Ok(vec![(t0(), Ok(()))]));
        }
        coordinator.complete_transaction(partition, end_of_transaction(true)).await.unwrap();
        assert_eq!(stable(&coordinator, "g").await, Some(-1), "deleted with its topic: {by_topic}");
    }
    coordinator.on_leadership(&Leadership::default());
    let again = leading(&log, GroupCoordinatorConfig::default()).await;
    assert_eq!(stable(&again, "g").await, Some(-1));
}

#[tokio::test(start_paused = true)]
async fn i21_a_fenced_member_commits_no_offsets_in_a_transaction_either() {
    let log = MemoryLog::new();
    let coordinator = leading(&log, GroupCoordinatorConfig::default()).await;
    let joined = stable_group(&coordinator, "g", 1).await.remove(0);
    let refused = |generation_id: i32, member_id: &str| {
        let mut request = of_transaction("g", Some(&joined), 5);
        request.commit.generation_id = generation_id;
        request.commit.member_id = member_id.to_owned();
        request
    };
    let old = coordinator.commit_transactional_offsets(refused(joined.generation_id - 1, &joined.member_id)).await;
    assert_eq!(old, Err(GroupError::IllegalGeneration));
    let stranger = coordinator.commit_transactional_offsets(refused(joined.generation_id, "stranger")).await;
    assert_eq!(stranger, Err(GroupError::UnknownMemberId));
    let nobody = coordinator.commit_transactional_offsets(of_transaction("no-group", Some(&joined), 5)).await;
    assert_eq!(nobody, Err(GroupError::IllegalGeneration));
    let mut first = of_transaction("no-group", None, 5);
    first.commit.generation_id = 0;
    assert_eq!(coordinator.commit_transactional_offsets(first).await, Err(GroupError::IllegalGeneration));
    let old = HeartbeatRequest { generation_id: joined.generation_id - 1, ..heartbeat("g", &joined) };
    assert_eq!(coordinator.heartbeat(&old), Err(GroupError::IllegalGeneration));
    assert!(coordinator.commit_transactional_offsets(of_transaction("g", Some(&joined), 5)).await.is_ok());
    // Old producers name no member.
    assert!(coordinator.commit_transactional_offsets(of_transaction("g", None, 6)).await.is_ok());
}
