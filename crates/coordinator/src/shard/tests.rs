//! The shard under a simulated clock and log.

mod consumer;
mod members;
mod model;
mod offsets;
mod static_members;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::{GroupShard, Reply};
use crate::classic::ClassicGroup;
use crate::config::GroupCoordinatorConfig;
use crate::driver::{Now, Shard, WaiterId};
use crate::error::GroupError;
use crate::messages::{
    CommitOffset, CommitRequest, HeartbeatRequest, JoinRequest, JoinResponse, LeaveRequest, LeavingMember, LeftMember, Protocol,
    SyncRequest, SyncResponse, TopicPartition,
};
use crate::state_log::{StateLogError, StateRecord, StateWrite};

const GROUP: &str = "group";
const START_MS: i64 = 1_700_000_000_000;

/// A shard, its clock, its log, and what it answered.
struct World {
    shard: GroupShard,
    now: Duration,
    log: Vec<StateRecord>,
    /// Of the append that is held back.
    held: Vec<StateRecord>,
    replies: BTreeMap<WaiterId, Reply>,
    last_waiter: WaiterId,
    /// What appends end with; with `None` they go on for ever.
    append: Option<Result<(), StateLogError>>,
}

/// The plain records of an append.
fn written(write: StateWrite) -> Vec<StateRecord> {
    match write {
        StateWrite::Records(records) => records,
        StateWrite::Transactional(_) | StateWrite::Marker(_) => Vec::new(),
    }
}

impl World {
    /// Without an initial rebalance delay, so that a group forms at once.
    fn new() -> Self {
        Self::with(GroupCoordinatorConfig { group_initial_rebalance_delay_ms: 0, ..GroupCoordinatorConfig::default() })
    }

    fn with(config: GroupCoordinatorConfig) -> Self {
        Self {
            shard: GroupShard::new(Arc::new(config)),
            now: Duration::from_secs(1),
            log: Vec::new(),
            held: Vec::new(),
            replies: BTreeMap::new(),
            last_waiter: 0,
            append: Some(Ok(())),
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.now, wall_ms: START_MS + self.now.as_millis() as i64 }
    }

    fn waiter(&mut self) -> WaiterId {
        self.last_waiter += 1;
        self.last_waiter
    }

    /// Lets timers fire and writes end until nothing is left to do now.
    fn settle(&mut self) {
        loop {
            self.shard.on_tick(self.now());
            for (waiter, reply) in self.shard.take_replies() {
                assert!(self.replies.insert(waiter, reply).is_none(), "waiter {waiter} is answered twice");
            }
            let batch = self.shard.next_batch(self.now());
            match (batch, self.append.clone()) {
                (Some(records), Some(result)) => {
                    if result.is_ok() {
                        self.log.extend(written(records));
                    }
                    self.shard.on_appended(&result, self.now());
                }
                // Held back: the test ends it.
                (Some(records), None) => self.held = written(records),
                (None, _) => break,
            }
        }
        for (waiter, reply) in self.shard.take_replies() {
            assert!(self.replies.insert(waiter, reply).is_none(), "waiter {waiter} is answered twice");
        }
    }

    fn end_append(&mut self, result: Result<(), StateLogError>) {
        self.append = Some(Ok(()));
        let held = std::mem::take(&mut self.held);
        if result.is_ok() {
            self.log.extend(held);
        }
        self.shard.on_appended(&result, self.now());
        self.settle();
    }

    /// Time passes; every timer fires at its time.
    fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(deadline) = self.shard.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    fn join_with(&mut self, request: JoinRequest) -> WaiterId {
        let waiter = self.waiter();
        let new_id = Uuid::from_u128(u128::from(waiter));
        self.shard.join(request, new_id, waiter, self.now());
        self.settle();
        waiter
    }

    fn joined(&self, waiter: WaiterId) -> JoinResponse {
        match self.replies.get(&waiter) {
            Some(Reply::Join(response)) => response.clone(),
            other => panic!("expected an answer to JoinGroup, not {other:?}"),
        }
    }

    fn is_waiting(&self, waiter: WaiterId) -> bool {
        !self.replies.contains_key(&waiter)
    }

    /// A new member that needs no second JoinGroup (version 3).
    fn join_new(&mut self) -> WaiterId {
        self.join_with(join(""))
    }

    fn sync(&mut self, joined: &JoinResponse) -> WaiterId {
        self.sync_with(sync(joined))
    }

    fn sync_with(&mut self, request: SyncRequest) -> WaiterId {
        let waiter = self.waiter();
        self.shard.sync(request, waiter, self.now());
        self.settle();
        waiter
    }

    fn synced(&self, waiter: WaiterId) -> SyncResponse {
        match self.replies.get(&waiter) {
            Some(Reply::Sync(response)) => response.clone(),
            other => panic!("expected an answer to SyncGroup, not {other:?}"),
        }
    }

    fn heartbeat(&mut self, joined: &JoinResponse) -> Result<(), GroupError> {
        self.heartbeat_with(&joined.member_id, None, joined.generation_id)
    }

    fn heartbeat_with(&mut self, member_id: &str, instance: Option<&str>, generation_id: i32) -> Result<(), GroupError> {
        let request = HeartbeatRequest {
            group_id: GROUP.to_owned(),
            generation_id,
            member_id: member_id.to_owned(),
            group_instance_id: instance.map(str::to_owned),
        };
        let result = self.shard.heartbeat(&request, self.now());
        self.settle();
        result
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<Option<GroupError>> {
        let waiter = self.waiter();
        let member = |(id, instance): &(&str, Option<&str>)| LeavingMember {
            member_id: (*id).to_owned(),
            group_instance_id: instance.map(str::to_owned),
            reason: None,
        };
        let request = LeaveRequest { group_id: GROUP.to_owned(), members: members.iter().map(member).collect() };
        self.shard.leave(request, waiter, self.now());
        self.settle();
        match self.replies.get(&waiter) {
            Some(Reply::Leave(Ok(members))) => members.iter().map(|member: &LeftMember| member.error).collect(),
            other => panic!("expected an answer to LeaveGroup, not {other:?}"),
        }
    }

    fn commit(&mut self, member_id: &str, instance: Option<&str>, generation_id: i32) -> Result<(), GroupError> {
        let waiter = self.waiter();
        let request = CommitRequest { group_instance_id: instance.map(str::to_owned), ..commit(member_id, generation_id, 7) };
        self.shard.commit_offsets(request, waiter, self.now());
        self.settle();
        match self.replies.get(&waiter) {
            Some(Reply::Commit(Ok(outcomes))) => outcomes[0].1,
            Some(Reply::Commit(Err(error))) => Err(*error),
            other => panic!("expected an answer to OffsetCommit, not {other:?}"),
        }
    }

    fn group(&self) -> &ClassicGroup {
        self.shard.classic(GROUP).expect("the group exists")
    }

    fn state(&self) -> &'static str {
        self.group().state().name()
    }

    /// A stable group of `size` dynamic members, as JoinGroup told them, the leader first.
    fn stable(&mut self, size: usize) -> Vec<JoinResponse> {
        self.stabilise((0..size).map(|_| join("")).collect())
    }

    /// Lets the members join one after the other, and sync.
    fn stabilise(&mut self, requests: Vec<JoinRequest>) -> Vec<JoinResponse> {
        let mut members: Vec<JoinRequest> = Vec::new();
        let mut joined = Vec::new();
        for request in requests {
            let mut waiters = vec![self.join_with(request.clone())];
            // Everybody who is there joins again.
            for member in &members {
                waiters.push(self.join_with(member.clone()));
            }
            self.pass(0);
            joined = waiters.iter().map(|waiter| self.joined(*waiter)).collect();
            members = std::iter::once(&request)
                .chain(&members)
                .zip(&joined)
                .map(|(request, joined)| JoinRequest { member_id: joined.member_id.clone(), ..request.clone() })
                .collect();
        }
        joined.sort_by_key(|joined| joined.members.is_empty());
        let requests = joined.iter().map(|joined| {
            let instance =
                members.iter().find(|member| member.member_id == joined.member_id).and_then(|member| member.group_instance_id.clone());
            SyncRequest { group_instance_id: instance, ..sync(joined) }
        });
        for request in requests.collect::<Vec<_>>() {
            let waiter = self.sync_with(request);
            assert_eq!(self.synced(waiter).error, None);
        }
        assert_eq!(self.state(), "Stable");
        joined
    }
}

fn protocols(names: &[&str]) -> Vec<Protocol> {
    let protocol = |name: &&str| Protocol { name: (*name).to_owned(), metadata: subscription(&["topic"]) };
    names.iter().map(protocol).collect()
}

/// ConsumerProtocolSubscription version 0.
fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 0];
    bytes.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend((-1i32).to_be_bytes());
    bytes.into()
}

fn join(member_id: &str) -> JoinRequest {
    JoinRequest {
        group_id: GROUP.to_owned(),
        member_id: member_id.to_owned(),
        group_instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols: protocols(&["range", "roundrobin"]),
        require_known_member_id: false,
        supports_skipping_assignment: true,
        reason: None,
    }
}

fn join_static(member_id: &str, instance: &str) -> JoinRequest {
    JoinRequest { group_instance_id: Some(instance.to_owned()), ..join(member_id) }
}

/// As leader, assigns to each member its own id.
fn sync(joined: &JoinResponse) -> SyncRequest {
    SyncRequest {
        group_id: GROUP.to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: None,
        protocol_type: None,
        protocol_name: None,
        assignments: joined.members.iter().map(|member| (member.member_id.clone(), Bytes::from(member.member_id.clone()))).collect(),
    }
}

fn commit(member_id: &str, generation_id: i32, offset: i64) -> CommitRequest {
    CommitRequest {
        group_id: GROUP.to_owned(),
        generation_id,
        member_id: member_id.to_owned(),
        group_instance_id: None,
        retention_time_ms: -1,
        reports_unknown_group: false,
        offsets: vec![CommitOffset { id: topic_partition("topic", 0), offset, leader_epoch: -1, metadata: None }],
    }
}

fn topic_partition(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition }
}
