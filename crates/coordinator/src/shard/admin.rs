//! Listing, describing and deleting groups; deleting and expiring offsets.

use std::sync::Arc;

use super::{ExclusiveOp, Group, GroupSlot, Now, Op, Removal, Reply, Shard};
use crate::classic::{ClassicState, WaiterId};
use crate::error::GroupError;
use crate::messages::{CommitOutcome, DeleteOffsetsRequest, DescribedGroup, ListGroupsRequest, ListedGroup, TopicPartition};
use crate::records;
use crate::state_log::StateRecord;

impl Shard {
    /// ListGroups.
    pub(crate) fn list_groups(&self, request: &ListGroupsRequest) -> Vec<ListedGroup> {
        let wanted =
            |filter: &[String], value: &str| filter.is_empty() || filter.iter().any(|wanted| wanted.trim().eq_ignore_ascii_case(value));
        let listed = self.groups.values().map(|slot| match &slot.group {
            Group::Classic(group) => group.list(),
        });
        listed.filter(|group| wanted(&request.states, group.state) && wanted(&request.types, group.group_type)).collect()
    }

    /// DescribeGroups.
    pub(crate) fn describe_group(&self, group_id: &str) -> Result<DescribedGroup, GroupError> {
        Ok(self.classic(group_id).ok_or(GroupError::GroupIdNotFound)?.describe())
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
            ExclusiveOp::DeleteGroups { group_ids, waiter } => self.work_out_delete_groups(group_ids, waiter),
            ExclusiveOp::DeleteOffsets { request, waiter } => self.work_out_delete_offsets(request, waiter),
            ExclusiveOp::Expire => self.work_out_expiry(now.wall_ms),
            ExclusiveOp::TopicsDeleted(topics) => self.work_out_topics_deleted(&topics),
        };
        let offsets = removal.offsets.iter().map(|(group_id, id)| records::offset_record(group_id, &id.topic, id.partition, None));
        let groups = removal.groups.iter().map(|group_id| records::group_record(group_id, None));
        let tombstones = offsets.chain(groups).collect();
        (tombstones, removal)
    }

    fn work_out_delete_groups(&mut self, group_ids: Vec<String>, waiter: WaiterId) -> Removal {
        let mut removal = Removal::default();
        let mut results = Vec::with_capacity(group_ids.len());
        for group_id in group_ids {
            let result = match self.classic(&group_id).map(|group| group.state()) {
                None | Some(ClassicState::Dead) => Err(GroupError::GroupIdNotFound),
                Some(ClassicState::Empty) => {
                    self.remove_whole_group(&group_id, &mut removal);
                    Ok(())
                }
                Some(_) => Err(GroupError::NonEmptyGroup),
            };
            results.push((group_id, result));
        }
        removal.reply = Some((waiter, Reply::DeleteGroups(results)));
        removal
    }

    fn remove_whole_group(&mut self, group_id: &str, removal: &mut Removal) {
        let Some((group_id, slot)) = self.groups.get_key_value(group_id) else { return };
        let group_id = group_id.clone();
        removal.offsets.extend(slot.offsets.ids().into_iter().map(|id| (group_id.clone(), id)));
        removal.offsets.extend(self.pending.of_group(&group_id).into_iter().map(|id| (group_id.clone(), id)));
        self.mark_dead(&group_id, removal);
    }

    fn mark_dead(&mut self, group_id: &Arc<str>, removal: &mut Removal) {
        if let Some(GroupSlot { group: Group::Classic(group), .. }) = self.groups.get_mut(group_id) {
            group.set_dead(true);
            removal.groups.push(group_id.clone());
        }
    }

    fn work_out_delete_offsets(&mut self, request: DeleteOffsetsRequest, waiter: WaiterId) -> Removal {
        let mut removal = Removal::default();
        let reply = match self.groups.get_key_value(request.group_id.as_str()) {
            None => Err(GroupError::GroupIdNotFound),
            Some((group_id, slot)) => {
                let Group::Classic(group) = &slot.group;
                match group.state() {
                    ClassicState::Dead => Err(GroupError::GroupIdNotFound),
                    ClassicState::Empty => Ok(()),
                    _ if group.uses_consumer_protocol() => Ok(()),
                    _ => Err(GroupError::NonEmptyGroup),
                }
                .map(|()| {
                    let outcome = |id: TopicPartition| -> CommitOutcome {
                        if group.is_subscribed_to(&id.topic) {
                            return (id, Err(GroupError::GroupSubscribedToTopic));
                        }
                        if slot.offsets.contains(&id.topic, id.partition) {
                            removal.offsets.push((group_id.clone(), id.clone()));
                        }
                        (id, Ok(()))
                    };
                    request.partitions.into_iter().map(outcome).collect()
                })
            }
        };
        removal.reply = Some((waiter, Reply::DeleteOffsets(reply)));
        removal
    }

    /// Kafka's rules: offsets of a group without members expire so long after its last member left; those of a live consumer group only for topics
    /// that it no longer reads, and those of clients without group management, so long after they were committed.
    fn work_out_expiry(&mut self, now_ms: i64) -> Removal {
        let mut removal = Removal::default();
        let mut dead = Vec::new();
        for (group_id, slot) in &self.groups {
            let Group::Classic(group) = &slot.group;
            let is_empty = group.state() == ClassicState::Empty;
            let base_timestamp_ms = if group.has_protocol_type() && is_empty { group.state_timestamp_ms() } else { None };
            let stable_consumers =
                group.uses_consumer_protocol() && group.knows_subscribed_topics() && group.state() == ClassicState::Stable;
            if group.has_protocol_type() && !is_empty && !stable_consumers {
                continue;
            }
            let mut kept = 0;
            for (topic, partition, value) in slot.offsets.iter() {
                let base = base_timestamp_ms.unwrap_or(value.commit_timestamp_ms);
                let id = TopicPartition { topic: topic.to_owned(), partition };
                let is_held = self.pending.is_unstable(group_id, &id);
                if !is_held && !group.is_subscribed_to(topic) && value.is_expired(base, now_ms, self.config.offsets_retention_ms) {
                    removal.offsets.push((group_id.clone(), id));
                } else {
                    kept += 1;
                }
            }
            if kept == 0 && is_empty && !self.pending.has_group(group_id) {
                dead.push(group_id.clone());
            }
        }
        for group_id in &dead {
            self.mark_dead(group_id, &mut removal);
        }
        if !removal.offsets.is_empty() || !removal.groups.is_empty() {
            tracing::info!(offsets = removal.offsets.len(), groups = removal.groups.len(), "expiring offsets and empty groups");
        }
        removal
    }

    fn work_out_topics_deleted(&self, topics: &[String]) -> Removal {
        let ids = self.groups.iter().flat_map(|(group_id, slot)| {
            let gone = slot.offsets.iter().filter(|(topic, _, _)| topics.iter().any(|deleted| deleted == topic));
            gone.map(|(topic, partition, _)| (group_id.clone(), TopicPartition { topic: topic.to_owned(), partition }))
        });
        Removal { offsets: ids.collect(), ..Removal::default() }
    }

    /// The tombstones are committed, or could not be.
    pub(super) fn finish_removal(&mut self, removal: Removal, result: Result<(), GroupError>, now: Now) {
        let Removal { groups, offsets, reply } = removal;
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
        let reply = match (result, reply) {
            (Ok(()), reply) => reply,
            (Err(error), Reply::DeleteGroups(results)) => {
                Reply::DeleteGroups(results.into_iter().map(|(id, result)| (id, result.and(Err(error)))).collect())
            }
            (Err(error), Reply::DeleteOffsets(_)) => Reply::DeleteOffsets(Err(error)),
            (Err(_), reply) => reply,
        };
        self.replies.push((waiter, reply));
    }
}
