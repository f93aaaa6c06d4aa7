//! The state of one `__consumer_offsets` partition: its groups, their offsets, their timers, and the writes under way. Pure.
//!
//! Events come in by the methods; answers collect until the driver takes them. Writes go through one queue: the driver appends as many queued
//! writes at once as fit, and reports their end. At most one batch is under way, so writes take effect in the log's order, and nothing is visible
//! before it is committed. Many commits share one append. What the driver asks is in `driven.rs`.
//!
//! Operations whose records depend on all that was written before (deletions, expiry) are *exclusive*: they are worked out when
//! nothing is under way, and make a batch of their own.
//!
//! Crash consistency: the shard is a function of the partition's records; replaying them gives the same groups (as `Empty` or
//! `Stable`) and offsets.

mod admin;
mod consumer;
mod driven;
mod offsets;
mod reply;
mod transactions;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use crate::classic::{Action, ClassicGroup, Turn, WriteDone};
use crate::cluster::{ClusterView, NoCluster};
use crate::config::GroupCoordinatorConfig;
use crate::consumer::{ConsumerGroup, member_timers};
use crate::driver::{BATCH_BYTES_TARGET, Now, QUEUED_WRITES_MAX, WaiterId};
use crate::error::GroupError;
use crate::messages::{
    CommitOutcome, FetchOffsetsRequest, HeartbeatRequest, JoinRequest, JoinResponse, LeaveRequest, LeftMember, SyncRequest, SyncResponse,
    TopicPartition,
};
use crate::offsets::{GroupOffsets, OffsetAndMetadata};
use crate::pending::PendingOffsets;
use crate::records::{self, GroupRecord};
use crate::state_log::{StateRecord, StateWrite, TransactionalAppend};
use crate::timers::{GroupTimer, Timers};
use crate::transaction::TxnMarker;

pub(crate) use driven::GroupSetup;
pub(crate) use reply::{FetchedOffsets, Reply};

/// A group by its protocol.
#[derive(Clone, Debug)]
enum Group {
    Classic(Box<ClassicGroup>),
    /// KIP-848.
    Consumer(Box<ConsumerGroup>),
}

/// A group and its offsets. Groups that only commit offsets are classic groups without protocol type.
#[derive(Clone, Debug)]
struct GroupSlot {
    group: Group,
    offsets: GroupOffsets,
    /// Changes to a consumer group that are queued or under way.
    pending_writes: usize,
}

impl GroupSlot {
    fn new(group: Group) -> Self {
        Self { group, offsets: GroupOffsets::default(), pending_writes: 0 }
    }
}

/// What waits for the log.
#[derive(Debug)]
enum Op {
    /// A group's own record.
    Group { group_id: Arc<str>, record: Option<StateRecord>, done: WriteDone },
    /// An OffsetCommit that was found valid.
    Commit {
        group_id: Arc<str>,
        records: Vec<StateRecord>,
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
        waiter: WaiterId,
        outcomes: Vec<CommitOutcome>,
    },
    /// A TxnOffsetCommit that was found valid. An append of its own, as it is of a producer's transaction.
    TransactionalCommit {
        group_id: Arc<str>,
        append: TransactionalAppend,
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
        waiter: WaiterId,
        outcomes: Vec<CommitOutcome>,
    },
    /// The end of a transaction. An append of its own, too.
    Marker { marker: TxnMarker, waiter: WaiterId },
    /// LeaveGroup's answer, after the record that it may have caused.
    Leave { waiter: WaiterId, members: Vec<LeftMember> },
    /// OffsetFetch with `require_stable`, after the commits before it.
    Fetch { waiter: WaiterId, request: FetchOffsetsRequest },
    /// A change to a consumer group that was made already, and the answer that waits for it.
    Consumer { group_id: Arc<str>, records: Vec<StateRecord>, reply: Option<(WaiterId, Reply)> },
    /// Worked out when nothing is under way.
    Exclusive(ExclusiveOp),
    /// An exclusive operation that was worked out: what to change once its tombstones are committed.
    Removal(Removal),
}

#[derive(Debug)]
enum ExclusiveOp {
    DeleteGroups { group_ids: Vec<String>, waiter: WaiterId },
    DeleteOffsets { request: crate::messages::DeleteOffsetsRequest, waiter: WaiterId },
    Expire,
    TopicsDeleted(Vec<String>),
}

/// What tombstones under way remove, and who waits for it.
#[derive(Debug, Default)]
struct Removal {
    groups: Vec<Arc<str>>,
    /// The records that end the groups.
    group_records: Vec<StateRecord>,
    /// One of them is a consumer group, which has ended already.
    ends_consumer_group: bool,
    offsets: Vec<(Arc<str>, TopicPartition)>,
    reply: Option<(WaiterId, Reply)>,
}

/// See the module.
pub(crate) struct GroupShard {
    config: Arc<GroupCoordinatorConfig>,
    cluster: Arc<dyn ClusterView>,
    /// Revision of the cluster at which the newest topic appeared.
    topics_created_at: u64,
    must_reload: bool,
    groups: HashMap<Arc<str>, GroupSlot>,
    pending: PendingOffsets,
    timers: Timers,
    queue: VecDeque<Op>,
    in_flight: Option<Vec<Op>>,
    replies: Vec<(WaiterId, Reply)>,
}

impl GroupShard {
    pub(crate) fn new(config: Arc<GroupCoordinatorConfig>) -> Self {
        Self {
            config,
            cluster: Arc::new(NoCluster),
            topics_created_at: 0,
            must_reload: false,
            groups: HashMap::new(),
            pending: PendingOffsets::default(),
            timers: Timers::default(),
            queue: VecDeque::new(),
            in_flight: None,
            replies: Vec::new(),
        }
    }

    /// Takes in one record of the partition; the answer is the type of a record that is not known here.
    pub(crate) fn replay(&mut self, record: &StateRecord, now_ms: i64) -> Result<Option<i16>, records::WireError> {
        match records::decode(record)? {
            GroupRecord::Offset { group, topic, partition, value: Some(value) } => {
                let group_id: Arc<str> = group.into();
                self.slot_mut(&group_id, now_ms).offsets.put(&topic, partition, value);
                self.pending.overtaken(&group_id, &TopicPartition { topic: topic.into(), partition });
            }
            GroupRecord::Offset { group, topic, partition, value: None } => {
                if let Some(slot) = self.groups.get_mut(group.as_str()) {
                    slot.offsets.remove(&topic, partition);
                }
                self.pending.forget(&group.into(), &TopicPartition { topic: topic.into(), partition });
            }
            GroupRecord::Group { group, value: Some(metadata) } => {
                let group_id: Arc<str> = group.into();
                let group = ClassicGroup::from_metadata(group_id.clone(), metadata, now_ms);
                self.slot_mut(&group_id, now_ms).group = Group::Classic(Box::new(group));
            }
            // A group that has become a consumer group ends by its own records.
            GroupRecord::Group { group, value: None } if self.consumer(&group).is_some() => {}
            GroupRecord::Group { group, value: None } => self.forget_group(&group.into(), now_ms),
            GroupRecord::Consumer { group, record } => self.replay_consumer(&group.into(), record, now_ms),
            GroupRecord::Unknown(kind) => return Ok(Some(kind)),
        }
        Ok(None)
    }

    /// All records are in: the members' sessions begin.
    pub(crate) fn on_loaded(&mut self, now: Now) {
        let group_ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for group_id in group_ids {
            self.with_classic(&group_id, now, |group, turn| group.on_loaded(turn));
            self.on_consumer_loaded(&group_id, now);
        }
    }

    /// The slot of a group, made if there is none.
    fn slot_mut(&mut self, group_id: &Arc<str>, now_ms: i64) -> &mut GroupSlot {
        let new = || GroupSlot::new(Group::Classic(Box::new(ClassicGroup::new(group_id.clone(), now_ms))));
        self.groups.entry(group_id.clone()).or_insert_with(new)
    }

    /// Removes a group; what offsets it may still have stay, as those of a group without members.
    fn forget_group(&mut self, group_id: &Arc<str>, now_ms: i64) {
        let Some(slot) = self.groups.get_mut(group_id) else { return };
        let timers: Vec<GroupTimer> = match &slot.group {
            Group::Classic(group) => group.idle_timers().collect(),
            Group::Consumer(group) => group.member_ids().flat_map(member_timers).collect(),
        };
        timers.into_iter().for_each(|timer| self.timers.cancel(group_id, timer));
        if slot.offsets.is_empty() {
            self.groups.remove(group_id);
        } else {
            slot.group = Group::Classic(Box::new(ClassicGroup::new(group_id.clone(), now_ms)));
        }
    }

    fn classic(&self, group_id: &str) -> Option<&ClassicGroup> {
        match self.groups.get(group_id).map(|slot| &slot.group) {
            Some(Group::Classic(group)) => Some(group),
            _ => None,
        }
    }

    /// Gives an event to a classic group and does what it wants done; `None` if there is no such group.
    fn with_classic<T>(&mut self, group_id: &str, now: Now, event: impl FnOnce(&mut ClassicGroup, &mut Turn<'_>) -> T) -> Option<T> {
        let config = self.config.clone();
        let mut turn = Turn::new(now.monotonic, now.wall_ms, &config);
        let slot = self.groups.get_mut(group_id)?;
        let Group::Classic(group) = &mut slot.group else { return None };
        let result = event(group, &mut turn);
        let group_id = group.id().clone();
        for action in turn.actions {
            match action {
                Action::ReplyJoin(waiter, response) => self.replies.push((waiter, Reply::Join(response))),
                Action::ReplySync(waiter, response) => self.replies.push((waiter, Reply::Sync(response))),
                Action::SetTimer(timer, deadline) => self.timers.set(&group_id, timer, deadline),
                Action::CancelTimer(timer) => self.timers.cancel(&group_id, timer),
                Action::Write(metadata, done) => {
                    let record = records::group_record(&group_id, Some(&metadata));
                    self.queue.push_back(Op::Group { group_id: group_id.clone(), record: Some(record), done });
                }
            }
        }
        Some(result)
    }

    fn is_overloaded(&self) -> bool {
        self.queue.len() >= QUEUED_WRITES_MAX
    }

    /// JoinGroup. `new_id` makes the id of a new member unique. A new member makes a new group.
    pub(crate) fn join(&mut self, request: JoinRequest, new_id: Uuid, waiter: WaiterId, now: Now) {
        let refusal = match self.groups.contains_key(request.group_id.as_str()) {
            _ if self.is_overloaded() => Some(GroupError::CoordinatorNotAvailable),
            false if !request.member_id.is_empty() => Some(GroupError::UnknownMemberId),
            _ => None,
        };
        if let Some(error) = refusal {
            return self.replies.push((waiter, Reply::Join(JoinResponse::refused(request.member_id, error))));
        }
        if self.live_consumer(&request.group_id).is_some() {
            return self.join_consumer_group(&request, new_id, waiter, now);
        }
        let group_id: Arc<str> = request.group_id.as_str().into();
        let was_consumer = self.consumer(&group_id).is_some();
        if was_consumer && !request.member_id.is_empty() {
            let refused = JoinResponse::refused(request.member_id, GroupError::UnknownMemberId);
            return self.replies.push((waiter, Reply::Join(refused)));
        }
        if let Some(records) = self.end_empty_consumer_group(&group_id, now) {
            self.slot_mut(&group_id, now.wall_ms).pending_writes += 1;
            self.queue.push_back(Op::Consumer { group_id: group_id.clone(), records, reply: None });
        }
        let is_new = was_consumer || !self.groups.contains_key(&group_id);
        self.slot_mut(&group_id, now.wall_ms);
        let queued = self.queue.len();
        self.with_classic(&group_id, now, |group, turn| {
            if is_new {
                group.write_created(turn);
            }
            group.join(request, new_id, waiter, turn);
        });
        debug_assert!(!is_new || self.queue.len() > queued, "a new group is written");
    }

    /// SyncGroup.
    pub(crate) fn sync(&mut self, request: SyncRequest, waiter: WaiterId, now: Now) {
        if self.live_consumer(&request.group_id).is_some() && !self.is_overloaded() {
            return self.sync_consumer_group(&request, waiter, now);
        }
        let group_id = request.group_id.clone();
        let refusal = if self.is_overloaded() { Some(GroupError::CoordinatorNotAvailable) } else { None };
        let refusal = match refusal {
            Some(error) => Some(error),
            None => match self.with_classic(&group_id, now, |group, turn| group.sync(request, waiter, turn)) {
                Some(()) => None,
                None => Some(GroupError::UnknownMemberId),
            },
        };
        if let Some(error) = refusal {
            self.replies.push((waiter, Reply::Sync(SyncResponse::refused(error))));
        }
    }

    /// Heartbeat.
    pub(crate) fn heartbeat(&mut self, request: &HeartbeatRequest, now: Now) -> Result<(), GroupError> {
        if self.consumer(&request.group_id).is_some() {
            return self.heartbeat_consumer_group(request, now);
        }
        let HeartbeatRequest { group_id, generation_id, member_id, group_instance_id } = request;
        self.with_classic(group_id, now, |group, turn| group.heartbeat(member_id, group_instance_id.as_deref(), *generation_id, turn))
            .unwrap_or(Err(GroupError::UnknownMemberId))
    }

    /// LeaveGroup.
    pub(crate) fn leave(&mut self, request: LeaveRequest, waiter: WaiterId, now: Now) {
        let queued = self.queue.len();
        let LeaveRequest { group_id, members } = request;
        if self.consumer(&group_id).is_some() && !self.is_overloaded() {
            return self.leave_consumer_group(&group_id, members, waiter, now);
        }
        let left = if self.is_overloaded() {
            Err(GroupError::CoordinatorNotAvailable)
        } else if self.groups.contains_key(group_id.as_str()) {
            self.with_classic(&group_id, now, |group, turn| group.leave(members, turn)).unwrap_or_else(|| Ok(Vec::new()))
        } else {
            Ok(members.into_iter().map(|member| member.left(Some(GroupError::UnknownMemberId))).collect())
        };
        match left {
            Ok(members) if self.queue.len() > queued => self.queue.push_back(Op::Leave { waiter, members }),
            left => self.replies.push((waiter, Reply::Leave(left))),
        }
    }

    fn take_batch(&mut self, now: Now) -> (StateWrite, Vec<Op>) {
        let mut records: Vec<StateRecord> = Vec::new();
        let mut ops = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES_TARGET {
            match self.queue.pop_front() {
                None => break,
                Some(op @ (Op::Exclusive(_) | Op::TransactionalCommit { .. } | Op::Marker { .. })) if !ops.is_empty() => {
                    self.queue.push_front(op);
                    break;
                }
                Some(Op::Exclusive(op)) => {
                    let (tombstones, removal) = self.work_out(op, now);
                    return (StateWrite::Records(tombstones), vec![Op::Removal(removal)]);
                }
                Some(mut op @ Op::TransactionalCommit { .. }) => {
                    let write = take_transactional(&mut op);
                    return (write, vec![op]);
                }
                Some(op @ Op::Marker { marker, .. }) => return (StateWrite::Marker(marker), vec![op]),
                Some(mut op) => {
                    let added = take_records(&mut op);
                    ops.push(op);
                    bytes += added.iter().map(StateRecord::size_bytes).sum::<usize>();
                    records.extend(added);
                }
            }
        }
        (StateWrite::Records(records), ops)
    }

    fn finish(&mut self, op: Op, result: Result<(), GroupError>, now: Now) {
        match op {
            Op::Group { group_id, done, .. } => {
                self.with_classic(&group_id, now, |group, turn| group.on_written(done, result, turn));
            }
            Op::Commit { group_id, offsets, waiter, outcomes, .. } => {
                if result.is_ok() {
                    let slot = self.slot_mut(&group_id, now.wall_ms);
                    for (id, value) in &offsets {
                        slot.offsets.put(&id.topic, id.partition, value.clone());
                    }
                    offsets.iter().for_each(|(id, _)| self.pending.overtaken(&group_id, id));
                }
                self.replies.push((waiter, Reply::Commit(result.map(|()| outcomes))));
            }
            Op::Leave { waiter, members } => self.replies.push((waiter, Reply::Leave(result.map(|()| members)))),
            Op::Fetch { waiter, request } => {
                let fetched = self.fetch_offsets(&request);
                self.replies.push((waiter, Reply::Fetch(fetched)));
            }
            op @ (Op::TransactionalCommit { .. } | Op::Marker { .. }) => self.finish_transactional(op, result, now),
            Op::Consumer { group_id, reply, .. } => {
                self.must_reload |= result.is_err();
                if let Some(slot) = self.groups.get_mut(&group_id) {
                    slot.pending_writes = slot.pending_writes.saturating_sub(1);
                }
                self.replies.extend(reply.map(|(waiter, reply)| match result {
                    Ok(()) => (waiter, reply),
                    Err(error) => (waiter, reply.failed(error)),
                }));
            }
            Op::Exclusive(_) => debug_assert!(false, "an exclusive operation is worked out before it is finished"),
            Op::Removal(removal) => self.finish_removal(removal, result, now),
        }
    }
}

fn take_records(op: &mut Op) -> Vec<StateRecord> {
    match op {
        Op::Group { record, .. } => record.take().into_iter().collect(),
        Op::Commit { records, .. } | Op::Consumer { records, .. } => std::mem::take(records),
        Op::Leave { .. } | Op::Fetch { .. } | Op::Exclusive(_) | Op::Removal(_) | Op::TransactionalCommit { .. } | Op::Marker { .. } => {
            Vec::new()
        }
    }
}

fn take_transactional(op: &mut Op) -> StateWrite {
    match op {
        Op::TransactionalCommit { append, .. } => {
            let records = std::mem::take(&mut append.records);
            StateWrite::Transactional(TransactionalAppend { records, ..append.clone() })
        }
        _ => StateWrite::Records(Vec::new()),
    }
}
