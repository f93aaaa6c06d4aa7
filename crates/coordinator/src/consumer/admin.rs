//! Describing a consumer group, judging commits of its members, and deleting it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use siltstone_common::TopicId;

use super::target::default_assignor;
use super::{ConsumerGroup, ConsumerMember, ConsumerRecord};
use crate::cluster::ClusterView;
use crate::config::GroupCoordinatorConfig;
use crate::error::GroupError;
use crate::messages::{DescribedConsumerGroup, DescribedConsumerMember, DescribedPartitions, ListedGroup, TopicPartition};

/// Who commits, and what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commit<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) group_instance_id: Option<&'a str>,
    pub(crate) epoch: i32,
    /// TxnOffsetCommit instead of OffsetCommit.
    pub(crate) is_transactional: bool,
    /// OffsetCommit from version 9, which knows of member epochs.
    pub(crate) knows_member_epochs: bool,
}

impl ConsumerGroup {
    /// As ListGroups shows it.
    pub(crate) fn list(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id.to_string(),
            protocol_type: crate::consumer_protocol::PROTOCOL_TYPE.to_owned(),
            state: self.state().name(),
            group_type: "consumer",
        }
    }

    /// As ConsumerGroupDescribe shows it.
    pub(crate) fn describe(&self, config: &GroupCoordinatorConfig, cluster: &dyn ClusterView) -> DescribedConsumerGroup {
        let assignor = self.subscriptions.preferred_assignor().unwrap_or_else(|| default_assignor(config));
        DescribedConsumerGroup {
            state: self.state().name(),
            group_epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor: assignor.name(),
            members: self.members.values().map(|member| self.describe_member(member, cluster)).collect(),
        }
    }

    fn describe_member(&self, member: &ConsumerMember, cluster: &dyn ClusterView) -> DescribedConsumerMember {
        let target = self.targets.get(&member.id).into_iter().flatten();
        let target = target.flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)));
        let profile = &member.profile;
        DescribedConsumerMember {
            member_id: member.id.to_string(),
            group_instance_id: profile.instance_id.clone(),
            rack_id: profile.rack_id.clone(),
            member_epoch: member.current.epoch,
            client_id: profile.client_id.clone(),
            client_host: profile.client_host.clone(),
            subscribed_topics: profile.subscribed_topics.iter().cloned().collect(),
            subscribed_regex: profile.subscribed_regex.clone(),
            assignment: described(member.current.owned(), cluster),
            target: described(target, cluster),
            is_classic: member.uses_classic_protocol(),
        }
    }

    /// Whether a commit may go on: fenced by the member's epoch, or, for an older one, by the epochs at which it got the partitions (I21).
    pub(crate) fn validate_commit<'a>(
        &self,
        commit: Commit<'_>,
        partitions: impl Iterator<Item = &'a TopicPartition>,
        cluster: &dyn ClusterView,
    ) -> Result<(), GroupError> {
        let Commit { member_id, group_instance_id, epoch, is_transactional, knows_member_epochs } = commit;
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        // Old transactional producers don't name their member.
        if is_transactional && epoch == -1 && member_id.is_empty() && group_instance_id.is_none() {
            return Ok(());
        }
        let member = self.members.get(member_id).ok_or(GroupError::UnknownMemberId)?;
        if !is_transactional && !member.uses_classic_protocol() && !knows_member_epochs {
            return Err(GroupError::UnsupportedVersion);
        }
        let stale = stale_error(member);
        match epoch.cmp(&member.current.epoch) {
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(stale),
            Ordering::Less => {
                let mut partitions = partitions;
                let was_assigned_by = |id: &TopicPartition| {
                    let topic = cluster.topic(&id.topic)?;
                    member.current.assignment_epoch(topic.id, id.partition)
                };
                let all = partitions.all(|id| was_assigned_by(id).is_some_and(|assigned_at| epoch >= assigned_at));
                if all { Ok(()) } else { Err(stale) }
            }
        }
    }

    /// Whether a member may fetch offsets; others need not name one.
    pub(crate) fn validate_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        if member_id.is_none() && epoch < 0 {
            return Ok(());
        }
        let member = member_id.and_then(|id| self.members.get(id)).ok_or(GroupError::UnknownMemberId)?;
        if epoch == member.current.epoch { Ok(()) } else { Err(stale_error(member)) }
    }

    /// The records that end the group, in Kafka's order.
    pub(crate) fn tombstones(&self) -> Vec<ConsumerRecord> {
        let ids = || self.members.keys().cloned();
        let current = ids().map(|member_id| ConsumerRecord::Current { member_id, current: None });
        let targets = ids().map(|member_id| ConsumerRecord::Target { member_id, target: None });
        let members = ids().map(|member_id| ConsumerRecord::Member { member_id, profile: None });
        let regexes = self.regexes.keys().map(|regex| ConsumerRecord::Regex { regex: regex.clone(), resolved: None });
        let whole = [ConsumerRecord::PartitionMetadata { exists: false }, ConsumerRecord::Epoch(None)];
        current.chain(targets).chain([ConsumerRecord::TargetEpoch(None)]).chain(members).chain(regexes).chain(whole).collect()
    }
}

/// The error of a member with another epoch than the group's, in its own protocol's words.
fn stale_error(member: &ConsumerMember) -> GroupError {
    if member.uses_classic_protocol() { GroupError::IllegalGeneration } else { GroupError::StaleMemberEpoch }
}

/// By topic; topics that are gone are left out.
fn described(partitions: impl Iterator<Item = (TopicId, i32)>, cluster: &dyn ClusterView) -> Vec<DescribedPartitions> {
    let mut by_topic: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        by_topic.entry(topic).or_default().push(partition);
    }
    let described = by_topic.into_iter().filter_map(|(topic_id, partitions)| {
        let topic = cluster.topic_by_id(topic_id)?;
        Some(DescribedPartitions { topic_id, topic_name: topic.name.to_owned(), partitions })
    });
    described.collect()
}
