//! Consumer groups (KIP-848) in a shard, and the requests of the classic protocol that concern them.
//!
//! An event changes the group at once and queues its records; its answer waits for them, and so do answers without records that come
//! after them, since they may tell of what is not yet written (I21). If the write fails the shard must be replayed ([`Shard::must_reload`](crate::driver::Shard::must_reload)).

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::{Group, GroupShard, GroupSlot, Op, Reply};
use crate::classic::{ClassicGroup, ClassicState};
use crate::cluster::{ChangedTopics, ClusterView};
use crate::consumer::{self, ConsumerGroup, ConsumerRecord, Downgrade, TimerChange, Turn};
use crate::driver::{Now, WaiterId};
use crate::error::GroupError;
use crate::messages::{
    ConsumerHeartbeatRequest, ConsumerHeartbeatResponse, HeartbeatRequest, JoinRequest, JoinResponse, LeavingMember, Refusal, SyncRequest,
    SyncResponse,
};
use crate::offsets::GroupOffsets;
use crate::records;
use crate::state_log::StateRecord;
use crate::timers::GroupTimer;

/// Key and value of one record; what is larger could never be written.
const RECORD_BYTES_MAX: usize = 1_000_000;

/// What an event of a consumer group leads to.
#[derive(Default)]
struct Change {
    /// The group, if this event makes it; with the records that end what was there before.
    created: Option<ConsumerGroup>,
    before: Vec<StateRecord>,
    records: Vec<ConsumerRecord>,
    timers: Vec<TimerChange>,
    downgrade: Option<Downgrade>,
    metadata_checked: bool,
}

impl From<Turn<'_>> for Change {
    fn from(turn: Turn<'_>) -> Self {
        let Turn { records, timers, downgrade, metadata_checked, .. } = turn;
        Self { records, timers, downgrade, metadata_checked, ..Self::default() }
    }
}

impl GroupShard {
    /// The cluster's topics or settings changed.
    pub(crate) fn on_cluster_changed(&mut self, cluster: Arc<dyn ClusterView>, changed: &ChangedTopics) {
        if changed.any_created || self.topics_created_at == 0 {
            self.topics_created_at = cluster.revision();
        }
        self.cluster = cluster;
        for slot in self.groups.values_mut() {
            if let Group::Consumer(group) = &mut slot.group {
                group.is_metadata_stale |= changed.names.iter().any(|name| group.is_subscribed_to(name));
            }
        }
    }

    /// Gives an event to `group`: its result, and what it leads to.
    fn consumer_turn<T>(&self, group: &ConsumerGroup, now: Now, event: impl FnOnce(&ConsumerGroup, &mut Turn<'_>) -> T) -> (T, Change) {
        let mut turn = self.turn(now);
        let result = event(group, &mut turn);
        (result, turn.into())
    }

    fn turn(&self, now: Now) -> Turn<'_> {
        let turn = Turn::new(now.monotonic, now.wall_ms, &self.config, &*self.cluster);
        Turn { topics_created_at: self.topics_created_at, ..turn }
    }

    pub(super) fn consumer(&self, group_id: &str) -> Option<&ConsumerGroup> {
        match self.groups.get(group_id).map(|slot| &slot.group) {
            Some(Group::Consumer(group)) => Some(group),
            _ => None,
        }
    }

    /// The consumer group, if it has members.
    pub(super) fn live_consumer(&self, group_id: &str) -> Option<&ConsumerGroup> {
        self.consumer(group_id).filter(|group| !group.is_empty())
    }

    /// ConsumerGroupHeartbeat. `new_id` becomes the id of a member that brought none; regular expressions match what the client `may_describe`.
    pub(crate) fn consumer_heartbeat(
        &mut self,
        request: ConsumerHeartbeatRequest,
        may_describe: &dyn Fn(&str) -> bool,
        new_id: Uuid,
        waiter: WaiterId,
        now: Now,
    ) {
        let group_id: Arc<str> = request.group_id.as_str().into();
        match self.try_consumer_heartbeat(&group_id, request, new_id, now) {
            Ok((response, change)) => self.take_in(&group_id, change, Some((waiter, Reply::ConsumerHeartbeat(Ok(response)))), now),
            Err(refusal) => return self.replies.push((waiter, Reply::ConsumerHeartbeat(Err(refusal)))),
        }
        self.refresh_regexes(&group_id, may_describe, now);
    }

    fn try_consumer_heartbeat(
        &self,
        group_id: &Arc<str>,
        request: ConsumerHeartbeatRequest,
        new_id: Uuid,
        now: Now,
    ) -> Result<(ConsumerHeartbeatResponse, Change), Refusal> {
        if self.is_overloaded() {
            return Err(GroupError::CoordinatorNotAvailable.into());
        }
        let (valid, _) = self.consumer_turn(&ConsumerGroup::new(group_id.clone()), now, |_, turn| consumer::validate(&request, turn));
        valid?;
        let (group, before) = self.group_for_heartbeat(group_id, request.member_epoch)?;
        let (response, mut change) = self.consumer_turn(&group, now, |group, turn| {
            if request.member_epoch < 0 {
                return group.leave(&request, turn);
            }
            if !before.is_empty() {
                group.start_classic_sessions(turn);
            }
            group.heartbeat(request, || kafka_uuid(new_id), turn)
        });
        change.before = before;
        if let Cow::Owned(created) = group {
            change.created = Some(created);
        }
        Ok((response?, change))
    }

    /// The group of a heartbeat. One that joins makes the group, or turns a classic one into it: then the records of that come along.
    fn group_for_heartbeat(&self, group_id: &Arc<str>, member_epoch: i32) -> Result<(Cow<'_, ConsumerGroup>, Vec<StateRecord>), Refusal> {
        let refused = |message: String| Err(Refusal::new(GroupError::GroupIdNotFound, message));
        let created = || Cow::Owned(ConsumerGroup::new(group_id.clone()));
        let tombstone = || records::group_record(group_id, None);
        match self.groups.get(group_id).map(|slot| &slot.group) {
            Some(Group::Consumer(group)) => Ok((Cow::Borrowed(group), Vec::new())),
            Some(Group::Classic(group)) if group.state() == ClassicState::Dead => Err(GroupError::CoordinatorNotAvailable.into()),
            Some(Group::Classic(_)) if member_epoch != 0 => refused(format!("Group {group_id} is not a consumer group.")),
            Some(Group::Classic(group)) if group.state() == ClassicState::Empty => Ok((created(), vec![tombstone()])),
            Some(Group::Classic(group)) => {
                let (group, upgrade) = ConsumerGroup::from_classic(group, &self.config, &*self.cluster)?;
                let records = upgrade.iter().map(|record| records::consumer_record(group_id, record));
                Ok((Cow::Owned(group), [tombstone()].into_iter().chain(records).collect()))
            }
            None if member_epoch == 0 => Ok((created(), Vec::new())),
            None if member_epoch > 0 => refused(format!("Consumer group {group_id} not found.")),
            None => refused(format!("Group {group_id} not found.")),
        }
    }

    /// Makes a change to a consumer group: at once in memory, in the log by the queue. The answer goes out after both.
    fn take_in(&mut self, group_id: &Arc<str>, change: Change, reply: Option<(WaiterId, Reply)>, now: Now) {
        let mut to_write = change.before;
        to_write.extend(change.records.iter().map(|record| records::consumer_record(group_id, record)));
        if let Some(downgrade) = &change.downgrade {
            to_write.push(records::group_record(group_id, Some(&downgrade.group.metadata())));
        }
        if to_write.iter().any(|record| record.size_bytes() > RECORD_BYTES_MAX) {
            tracing::warn!(group = ?group_id, "a change to a consumer group is too large to be written");
            return self.replies.extend(reply.map(|(waiter, reply)| (waiter, reply.failed(GroupError::UnknownServerError))));
        }
        if let Some(created) = change.created {
            self.put_consumer_group(group_id, created, now);
        }
        if let Some(Group::Consumer(group)) = self.groups.get_mut(group_id).map(|slot| &mut slot.group) {
            change.records.into_iter().for_each(|record| group.apply(record));
            group.is_metadata_stale &= !change.metadata_checked;
        }
        self.change_timers(group_id, change.timers);
        if let Some(Downgrade { group, rebalance }) = change.downgrade {
            self.slot_mut(group_id, now.wall_ms).group = Group::Classic(Box::new(group));
            self.with_classic(group_id, now, |group, turn| group.on_converted(rebalance.as_deref(), turn));
        }
        let slot = self.slot_mut(group_id, now.wall_ms);
        if to_write.is_empty() && slot.pending_writes == 0 {
            return self.replies.extend(reply);
        }
        slot.pending_writes += 1;
        self.queue.push_back(Op::Consumer { group_id: group_id.clone(), records: to_write, reply });
    }

    /// Puts a consumer group where there was none, or a classic one, which ends.
    fn put_consumer_group(&mut self, group_id: &Arc<str>, created: ConsumerGroup, now: Now) {
        self.with_classic(group_id, now, ClassicGroup::give_way);
        let slot = self.groups.entry(group_id.clone());
        let slot = slot.or_insert_with(|| GroupSlot::new(Group::Consumer(Box::new(ConsumerGroup::new(group_id.clone())))));
        slot.group = Group::Consumer(Box::new(created));
    }

    fn change_timers(&mut self, group_id: &Arc<str>, changes: Vec<TimerChange>) {
        for change in changes {
            match change {
                TimerChange::Set(timer, deadline) => self.timers.set(group_id, timer, deadline),
                TimerChange::SetIfAbsent(timer, deadline) => self.timers.set_if_absent(group_id, timer, deadline),
                TimerChange::Cancel(timer) => self.timers.cancel(group_id, timer),
            }
        }
    }

    /// Matches the group's regular expressions anew, if it is time.
    fn refresh_regexes(&mut self, group_id: &Arc<str>, may_describe: &dyn Fn(&str) -> bool, now: Now) {
        let Some(group) = self.consumer(group_id) else { return };
        let mut turn = Turn { may_describe, ..self.turn(now) };
        if group.needs_regex_refresh(&turn) {
            group.refresh_regexes(&mut turn);
            let change = turn.into();
            self.take_in(group_id, change, None, now);
        }
    }

    /// JoinGroup of a consumer group with members.
    pub(super) fn join_consumer_group(&mut self, request: &JoinRequest, new_id: Uuid, waiter: WaiterId, now: Now) {
        let group_id: Arc<str> = request.group_id.as_str().into();
        let Some(group) = self.consumer(&group_id) else { return };
        let (joined, change) = self.consumer_turn(group, now, |group, turn| group.classic_join(request, kafka_uuid(new_id).into(), turn));
        match joined {
            Ok(response) => self.take_in(&group_id, change, Some((waiter, Reply::Join(response))), now),
            Err(error) => self.replies.push((waiter, Reply::Join(JoinResponse::refused("", error)))),
        }
    }

    /// SyncGroup of a consumer group with members.
    pub(super) fn sync_consumer_group(&mut self, request: &SyncRequest, waiter: WaiterId, now: Now) {
        let group_id: Arc<str> = request.group_id.as_str().into();
        let Some(group) = self.consumer(&group_id) else { return };
        let (synced, change) = self.consumer_turn(group, now, |group, turn| group.classic_sync(request, turn));
        // A refusal may have started a timer.
        let response = synced.unwrap_or_else(SyncResponse::refused);
        self.take_in(&group_id, change, Some((waiter, Reply::Sync(response))), now);
    }

    /// Heartbeat of a classic member of a consumer group.
    pub(super) fn heartbeat_consumer_group(&mut self, request: &HeartbeatRequest, now: Now) -> Result<(), GroupError> {
        let Some(group) = self.consumer(&request.group_id) else { return Err(GroupError::UnknownMemberId) };
        let group_id = group.id().clone();
        let (result, change) = self.consumer_turn(group, now, |group, turn| group.classic_heartbeat(request, turn));
        self.change_timers(&group_id, change.timers);
        result
    }

    /// LeaveGroup of a consumer group.
    pub(super) fn leave_consumer_group(&mut self, group_id: &str, members: Vec<LeavingMember>, waiter: WaiterId, now: Now) {
        let Some(group) = self.consumer(group_id) else { return };
        let group_id = group.id().clone();
        let (left, change) = self.consumer_turn(group, now, |group, turn| group.classic_leave(members, turn));
        self.take_in(&group_id, change, Some((waiter, Reply::Leave(Ok(left)))), now);
    }

    /// A consumer group without members ends, as a classic one begins in its place: the records of that.
    pub(super) fn end_empty_consumer_group(&mut self, group_id: &Arc<str>, now: Now) -> Option<Vec<StateRecord>> {
        let group = self.consumer(group_id).filter(|group| group.is_empty())?;
        let tombstones = group.tombstones().iter().map(|record| records::consumer_record(group_id, record)).collect();
        self.slot_mut(group_id, now.wall_ms).group = Group::Classic(Box::new(ClassicGroup::new(group_id.clone(), now.wall_ms)));
        Some(tombstones)
    }

    /// A timer of a consumer group is due; true if the group is one.
    pub(super) fn on_consumer_timer(&mut self, group_id: &Arc<str>, timer: &GroupTimer, now: Now) -> bool {
        let Some(group) = self.consumer(group_id) else { return false };
        let ((), change) = self.consumer_turn(group, now, |group, turn| group.on_timer(timer.clone(), turn));
        self.take_in(group_id, change, None, now);
        true
    }

    /// The sessions of a group that was just replayed begin.
    pub(super) fn on_consumer_loaded(&mut self, group_id: &Arc<str>, now: Now) {
        let Some(group) = self.consumer(group_id) else { return };
        let ((), change) = self.consumer_turn(group, now, |group, turn| group.on_loaded(turn));
        self.change_timers(group_id, change.timers);
    }

    /// Takes in a replayed record of a consumer group.
    pub(super) fn replay_consumer(&mut self, group_id: &Arc<str>, record: ConsumerRecord, now_ms: i64) {
        let is_tombstone = matches!(
            record,
            ConsumerRecord::Epoch(None)
                | ConsumerRecord::PartitionMetadata { exists: false }
                | ConsumerRecord::Member { profile: None, .. }
                | ConsumerRecord::TargetEpoch(None)
                | ConsumerRecord::Target { target: None, .. }
                | ConsumerRecord::Current { current: None, .. }
                | ConsumerRecord::Regex { resolved: None, .. }
        );
        if self.consumer(group_id).is_none() && is_tombstone {
            return;
        }
        if matches!(record, ConsumerRecord::Epoch(None)) {
            return self.forget_group(group_id, now_ms);
        }
        let slot = self.groups.entry(group_id.clone());
        let new = || Group::Consumer(Box::new(ConsumerGroup::new(group_id.clone())));
        let slot = slot.or_insert_with(|| GroupSlot { group: new(), offsets: GroupOffsets::default(), pending_writes: 0 });
        if matches!(slot.group, Group::Classic(_)) {
            slot.group = new();
        }
        if let Group::Consumer(group) = &mut slot.group {
            group.apply(record);
        }
    }
}

/// A UUID as Kafka writes it: 22 characters of base64 that do not begin with a dash.
fn kafka_uuid(id: Uuid) -> String {
    let mut bytes = id.into_bytes();
    bytes[0] &= 0x7f;
    URL_SAFE_NO_PAD.encode(bytes)
}
