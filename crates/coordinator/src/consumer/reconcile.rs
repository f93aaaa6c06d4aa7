//! Reconciliation: the next step of one member from what it owns to its target, in Kafka's order: a member first gives up what it must, and
//! only then gets what others have given up (KIP-848). Pure.

use std::collections::BTreeMap;

use siltstone_common::TopicId;

use super::member::{CurrentAssignment, MemberState, PartitionEpochs};
use crate::assignor::Assignment;
use crate::messages::TopicPartitions;

/// What a step depends on.
pub(super) struct Step<'a> {
    pub(super) target_epoch: i32,
    pub(super) target: &'a Assignment,
    /// True for topics that the member subscribes to and that exist.
    pub(super) is_subscribed: &'a dyn Fn(TopicId) -> bool,
    pub(super) subscription_changed: bool,
    /// True while anybody owns the partition.
    pub(super) is_owned: &'a dyn Fn(TopicId, i32) -> bool,
    /// What the member says that it owns, if it says so.
    pub(super) reported: Option<&'a [TopicPartitions]>,
}

/// A member whose state is not known here must begin anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownState;

impl Step<'_> {
    /// What the member owns after this step.
    pub(super) fn next(&self, member: &CurrentAssignment) -> Result<CurrentAssignment, UnknownState> {
        match member.state {
            MemberState::Stable if member.epoch != self.target_epoch => Ok(self.toward_target(member, member.epoch)),
            MemberState::Stable if self.subscription_changed => Ok(self.drop_unsubscribed(member)),
            MemberState::Stable => Ok(member.clone()),
            MemberState::UnrevokedPartitions if !self.still_owns(&member.revoking) => Ok(self.toward_target(member, member.epoch)),
            MemberState::UnrevokedPartitions if self.subscription_changed => Ok(self.drop_unsubscribed(member)),
            MemberState::UnrevokedPartitions => Ok(member.clone()),
            MemberState::UnreleasedPartitions => Ok(self.toward_target(member, member.epoch)),
            MemberState::Unknown if self.reported.is_some_and(<[_]>::is_empty) => Ok(self.toward_target(member, self.target_epoch)),
            MemberState::Unknown => Err(UnknownState),
        }
    }

    /// A member that does not report what it owns may own all of it.
    fn still_owns(&self, revoked: &PartitionEpochs) -> bool {
        let Some(reported) = self.reported else { return true };
        let revokes = |topic: &TopicPartitions| {
            let partitions = revoked.get(&topic.topic_id);
            topic.partitions.iter().any(|partition| partitions.is_some_and(|partitions| partitions.contains_key(partition)))
        };
        reported.iter().any(revokes)
    }

    /// The target is the same, but the member no longer subscribes to some of its topics.
    fn drop_unsubscribed(&self, member: &CurrentAssignment) -> CurrentAssignment {
        let (assigned, dropped): (PartitionEpochs, PartitionEpochs) =
            member.assigned.clone().into_iter().partition(|(topic, _)| (self.is_subscribed)(*topic));
        if dropped.is_empty() {
            return member.clone();
        }
        let mut revoking = member.revoking.clone();
        for (topic, partitions) in dropped {
            revoking.entry(topic).or_default().extend(partitions);
        }
        let mut next = CurrentAssignment { assigned, previous_epoch: member.epoch, ..member.clone() };
        if self.still_owns(&revoking) {
            next.state = MemberState::UnrevokedPartitions;
            next.revoking = revoking;
        }
        next
    }

    /// Revokes what is not in the target; if nothing is to be revoked, takes what is free of it.
    fn toward_target(&self, member: &CurrentAssignment, epoch: i32) -> CurrentAssignment {
        let mut assigned = PartitionEpochs::new();
        let mut revoking = PartitionEpochs::new();
        let wanted = |topic: &TopicId, partition: &i32| {
            (self.is_subscribed)(*topic) && self.target.get(topic).is_some_and(|partitions| partitions.contains(partition))
        };
        for (topic, partitions) in &member.assigned {
            let (kept, revoked): (BTreeMap<i32, i32>, BTreeMap<i32, i32>) =
                partitions.iter().partition(|(partition, _)| wanted(topic, partition));
            for (part, into) in [(kept, &mut assigned), (revoked, &mut revoking)] {
                if !part.is_empty() {
                    into.insert(*topic, part);
                }
            }
        }
        if !revoking.is_empty() && self.still_owns(&revoking) {
            let state = MemberState::UnrevokedPartitions;
            return CurrentAssignment { epoch, previous_epoch: member.epoch, state, assigned, revoking };
        }
        let has_unreleased = self.take_free(member, &mut assigned);
        let state = if has_unreleased { MemberState::UnreleasedPartitions } else { MemberState::Stable };
        CurrentAssignment { epoch: self.target_epoch, previous_epoch: member.epoch, state, assigned, revoking: PartitionEpochs::new() }
    }

    /// Adds the target's partitions that nobody else owns; true if others still own some.
    fn take_free(&self, member: &CurrentAssignment, assigned: &mut PartitionEpochs) -> bool {
        let mut has_unreleased = false;
        for (topic, partitions) in self.target.iter().filter(|(topic, _)| (self.is_subscribed)(**topic)) {
            for partition in partitions {
                if assigned.get(topic).is_some_and(|kept| kept.contains_key(partition)) {
                    continue;
                }
                let was_ours = member.assignment_epoch(*topic, *partition).is_some();
                if (self.is_owned)(*topic, *partition) && !was_ours {
                    has_unreleased = true;
                } else {
                    assigned.entry(*topic).or_default().insert(*partition, self.target_epoch);
                }
            }
        }
        has_unreleased
    }
}
