//! Listing, describing and deleting groups; deleting and expiring offsets.

use std::sync::Arc;

use super::{ExclusiveOp, Group, GroupShard, GroupSlot, Op, Removal, Reply};
use crate::classic::{ClassicGroup, ClassicState};
use crate::driver::{Now, WaiterId};
use crate::error::GroupError;
use crate::messages::{
    CommitOutcome, DeleteOffsetsRequest, DescribedConsumerGroup, DescribedGroup, ListGroupsRequest, ListedGroup, Refusal, TopicPartition,
};
use crate::records;
use crate::state_log::StateRecord;

impl GroupShard {
    /// ListGroups.
    pub(crate) fn list_groups(&self, request: &ListGroupsRequest) -> Vec<ListedGroup> {
        let wanted =
            |filter: &[String], value: &str| filter.is_empty() || filter.iter().any(|wanted| wanted.trim().eq_ignore_ascii_case(value));
        let listed = self.groups.values().map(|slot| match &slot.group {
            Group::Classic(group) => group.list(),
            Group::Consumer(group) => group.list(),
        });
        listed.filter(|group| wanted(&request.states, group.state) && wanted(&request.types, group.group_type)).collect()
    }

    /// DescribeGroups: classic groups only.
    pub(crate) fn describe_group(&self, group_id: &str) -> Result<DescribedGroup, Refusal> {
        self.classic(group_id).map(ClassicGroup::describe).ok_or_else(|| self.not_found(group_id, "classic"))
    }

    /// ConsumerGroupDescribe: consumer groups only.
    pub(crate) fn describe_consumer_group(&self, group_id: &str) -> Result<DescribedConsumerGroup, Refusal> {
        let group = self.consumer(group_id).ok_or_else(|| self.not_found(group_id, "consumer"))?;
        Ok(group.describe(&self.config, &*self.cluster))
    }

    fn not_found(&self, group_id: &str, kind: &str) -> Refusal {
        let message = match self.groups.contains_key(group_id) {
            true => format!("Group {group_id} is not a {kind} group."),
            false => format!("Group {group_id} not found."),
        };
        Refusal::new(GroupError::GroupIdNotFound, message)
    }

    /// DeleteGroups.
    pub(crate) fn delete_groups(&mut self, group_ids: Vec<String>, waiter: WaiterId) {
        if self.is_overloaded() {
            let results = group_ids.into_iter().map(|group_id| (group_id, Err(GroupError::CoordinatorNotAvailable)));
            return self.replies.push((waiter, Reply::DeleteGroups(results.collect())));
        }
        self.queue.push_back(Op::Exclusive(ExclusiveOp::DeleteGroups { group_ids, waiter }));
    }

    /// OffsetDelete.
    pub(crate) fn delete_offsets(&mut self, request: DeleteOffsetsRequest, waiter: WaiterId) {
        if self.is_overloaded() {
            return self.replies.push((waiter, Reply::DeleteOffsets(Err(GroupError::CoordinatorNotAvailable))));
        }
        self.queue.push_back(Op::Exclusive(ExclusiveOp::DeleteOffsets { request, waiter }));
    }

    /// Time to look for expired offsets and empty groups.
    pub(crate) fn expire(&mut self) {
        self.queue.push_back(Op::Exclusive(ExclusiveOp::Expire));
    }

    /// Topics are gone: their offsets go too.
    pub(crate) fn on_topics_deleted(&mut self, topics: Vec<String>) {
        self.queue.push_back(Op::Exclusive(ExclusiveOp::TopicsDeleted(topics)));
    }

    /// The tombstones of an exclusive operation, and what they remove. Groups that go are `Dead` until the tombstones are committed.
    pub(super) fn work_out(&mut self, op: ExclusiveOp, now: Now) -> (Vec<StateRecord>, Removal) {
        let removal = match op {
            ExclusiveOp::DeleteGroups { group_ids, waiter } => self.work_out_delete_groups(group_ids, waiter, now),
            ExclusiveOp::DeleteOffsets { request, waiter } => self.work_out_delete_offsets(request, waiter),
            ExclusiveOp::Expire => self.work_out_expiry(now),
            ExclusiveOp::TopicsDeleted(topics) => self.work_out_topics_deleted(&topics),
        };
        let offsets = removal.offsets.iter().map(|(group_id, id)| records::offset_record(group_id, &id.topic, id.partition, None));
        let tombstones = offsets.chain(removal.group_records.iter().cloned()).collect();
        (tombstones, removal)
    }

    fn work_out_delete_groups(&mut self, group_ids: Vec<String>, waiter: WaiterId, now: Now) -> Removal {
        let mut removal = Removal::default();
        let mut results = Vec::with_capacity(group_ids.len());
        for group_id in group_ids {
            let result = match self.groups.get(group_id.as_str()).map(|slot| &slot.group) {
                None => Err(GroupError::GroupIdNotFound),
                Some(Group::Classic(group)) if group.state() == ClassicState::Dead => Err(GroupError::GroupIdNotFound),
                Some(group) if group.is_empty() => {
                    self.remove_whole_group(&group_id, &mut removal, now);
                    Ok(())
                }
                Some(_) => Err(GroupError::NonEmptyGroup),
            };
            results.push((group_id, result));
        }
        removal.reply = Some((waiter, Reply::DeleteGroups(results)));
        removal
    }

    fn remove_whole_group(&mut self, group_id: &str, removal: &mut Removal, now: Now) {
        let Some((group_id, slot)) = self.groups.get_key_value(group_id) else { return };
        let group_id = group_id.clone();
        removal.offsets.extend(self.offsets_of(&group_id, slot).map(|id| (group_id.clone(), id)));
        self.mark_dead(&group_id, removal, now);
    }

    /// A consumer group ends at once, so that the partition must be replayed if its end can't be written.
    fn mark_dead(&mut self, group_id: &Arc<str>, removal: &mut Removal, now: Now) {
        match self.end_empty_consumer_group(group_id, now) {
            Some(tombstones) => {
                removal.ends_consumer_group = true;
                removal.group_records.extend(tombstones);
            }
            None => removal.group_records.push(records::group_record(group_id, None)),
        }
        if let Some(GroupSlot { group: Group::Classic(group), .. }) = self.groups.get_mut(group_id) {
            group.set_dead(true);
            removal.groups.push(group_id.clone());
        }
    }

    fn work_out_delete_offsets(&mut self, request: DeleteOffsetsRequest, waiter: WaiterId) -> Removal {
        let mut removal = Removal::default();
        let reply = match self.groups.get_key_value(request.group_id.as_str()) {
            None => Err(GroupError::GroupIdNotFound),
            Some((group_id, slot)) => match &slot.group {
                Group::Classic(group) if group.state() == ClassicState::Dead => Err(GroupError::GroupIdNotFound),
                Group::Classic(group) if group.state() != ClassicState::Empty && !group.uses_consumer_protocol() => {
                    Err(GroupError::NonEmptyGroup)
                }
                Group::Classic(_) | Group::Consumer(_) => Ok(()),
            }
            .map(|()| {
                let outcome = |id: TopicPartition| -> CommitOutcome {
                    if slot.group.is_subscribed_to(&id.topic) {
                        return (id, Err(GroupError::GroupSubscribedToTopic));
                    }
                    if slot.offsets.contains(&id.topic, id.partition) || self.pending.is_unstable(group_id, &id) {
                        removal.offsets.push((group_id.clone(), id.clone()));
                    }
                    (id, Ok(()))
                };
                request.partitions.into_iter().map(outcome).collect()
            }),
        };
        removal.reply = Some((waiter, Reply::DeleteOffsets(reply)));
        removal
    }

    /// Kafka's rules: offsets of a classic group without members expire so long after its last member left; those of a live group of consumers
    /// only for topics that it no longer reads, and those of clients without group management and of consumer groups, so long after they
    /// were committed.
    fn work_out_expiry(&mut self, now: Now) -> Removal {
        let mut removal = Removal::default();
        let mut dead = Vec::new();
        for (group_id, slot) in &self.groups {
            let Some(base_timestamp_ms) = slot.group.expiry_base_ms() else { continue };
            let mut kept = 0;
            for (topic, partition, value) in slot.offsets.iter() {
                let base = base_timestamp_ms.unwrap_or(value.commit_timestamp_ms);
                let id = TopicPartition { topic: topic.into(), partition };
                let is_held = self.pending.is_unstable(group_id, &id);
                if !is_held && !slot.group.is_subscribed_to(topic) && value.is_expired(base, now.wall_ms, self.config.offsets_retention_ms)
                {
                    removal.offsets.push((group_id.clone(), id));
                } else {
                    kept += 1;
                }
            }
            if kept == 0 && slot.group.is_empty() && !self.pending.has_group(group_id) {
                dead.push(group_id.clone());
            }
        }
        for group_id in &dead {
            self.mark_dead(group_id, &mut removal, now);
        }
        if !removal.offsets.is_empty() || !removal.groups.is_empty() {
            tracing::info!(offsets = removal.offsets.len(), groups = removal.groups.len(), "expiring offsets and empty groups");
        }
        removal
    }

    fn work_out_topics_deleted(&self, topics: &[String]) -> Removal {
        let gone = self.groups.iter().flat_map(|(group_id, slot)| {
            let gone = self.offsets_of(group_id, slot).filter(|id| topics.iter().any(|deleted| **deleted == *id.topic));
            gone.map(|id| (group_id.clone(), id))
        });
        Removal { offsets: gone.collect(), ..Removal::default() }
    }

    /// The partitions of which a group has an offset, be it one that an open transaction holds.
    fn offsets_of<'a>(&'a self, group_id: &'a Arc<str>, slot: &'a GroupSlot) -> impl Iterator<Item = TopicPartition> + 'a {
        let pending = self.pending.of_group(group_id).into_iter().filter(|id| !slot.offsets.contains(&id.topic, id.partition));
        slot.offsets.ids().into_iter().chain(pending)
    }

    /// The tombstones are committed, or could not be.
    pub(super) fn finish_removal(&mut self, removal: Removal, result: Result<(), GroupError>, now: Now) {
        let Removal { groups, offsets, reply, ends_consumer_group, .. } = removal;
        self.must_reload |= ends_consumer_group && result.is_err();
        if result.is_ok() {
            for (group_id, id) in &offsets {
                if let Some(slot) = self.groups.get_mut(group_id) {
                    slot.offsets.remove(&id.topic, id.partition);
                }
                self.pending.forget(group_id, id);
            }
        }
        for group_id in &groups {
            if let Some(GroupSlot { group: Group::Classic(group), .. }) = self.groups.get_mut(group_id) {
                group.set_dead(false);
            }
            if result.is_ok() {
                self.forget_group(group_id, now.wall_ms);
            }
        }
        let Some((waiter, reply)) = reply else { return };
        let reply = match result {
            Ok(()) => reply,
            Err(error) => reply.failed(error),
        };
        self.replies.push((waiter, reply));
    }
}

impl Group {
    /// True if it has no members and none is on the way.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Classic(group) => group.state() == ClassicState::Empty,
            Self::Consumer(group) => group.is_empty(),
        }
    }

    fn is_subscribed_to(&self, topic: &str) -> bool {
        match self {
            Self::Classic(group) => group.is_subscribed_to(topic),
            Self::Consumer(group) => group.is_subscribed_to(topic),
        }
    }

    /// `None` if no offset expires now; else when their time began, if not when they were committed.
    fn expiry_base_ms(&self) -> Option<Option<i64>> {
        let Self::Classic(group) = self else { return Some(None) };
        let is_empty = group.state() == ClassicState::Empty;
        let stable_consumers = group.uses_consumer_protocol() && group.knows_subscribed_topics() && group.state() == ClassicState::Stable;
        if group.has_protocol_type() && !is_empty && !stable_consumers {
            return None;
        }
        Some(if group.has_protocol_type() && is_empty { group.state_timestamp_ms() } else { None })
    }
}
