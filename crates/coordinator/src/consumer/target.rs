//! Group epoch and target assignment: what a change of members, subscriptions or topics leads to.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use siltstone_common::TopicId;

use super::{ConsumerGroup, ConsumerMember, ConsumerRecord, Subscriptions, Turn};
use crate::assignor::{Assignment, Assignor, GroupSpec, MemberSpec};
use crate::cluster::ClusterView;
use crate::config::GroupCoordinatorConfig;

/// A target for one member, and its epoch.
pub(super) struct MemberTarget {
    pub(super) epoch: i32,
    pub(super) target: Assignment,
}

/// Ids of topics by what is subscribed to, worked out once for members that subscribe alike.
struct TopicSets<'a> {
    group: &'a ConsumerGroup,
    cluster: &'a dyn ClusterView,
    partition_counts: BTreeMap<TopicId, i32>,
    sets: BTreeMap<(&'a BTreeSet<String>, &'a str), Arc<BTreeSet<TopicId>>>,
}

impl<'a> TopicSets<'a> {
    fn of(&mut self, member: &'a ConsumerMember) -> Arc<BTreeSet<TopicId>> {
        let key = (&member.profile.subscribed_topics, member.profile.subscribed_regex.as_str());
        if let Some(set) = self.sets.get(&key) {
            return set.clone();
        }
        let topics = self.group.subscribed_topics(member).filter_map(|name| self.cluster.topic(name));
        let set: BTreeSet<TopicId> = topics.map(|topic| (topic.id, topic.partitions)).fold(BTreeSet::new(), |mut set, (id, partitions)| {
            self.partition_counts.insert(id, partitions);
            set.insert(id);
            set
        });
        let set = Arc::new(set);
        self.sets.insert(key, set.clone());
        set
    }
}

impl ConsumerGroup {
    /// The names of all topics that a member subscribes to, by name or expression.
    pub(super) fn subscribed_topics<'a>(&'a self, member: &'a ConsumerMember) -> impl Iterator<Item = &'a String> {
        let matched = member.regex().and_then(|regex| self.regexes.get(regex));
        member.profile.subscribed_topics.iter().chain(matched.into_iter().flat_map(|resolved| &resolved.topics))
    }

    /// All subscriptions, once `old` is replaced by `new`.
    pub(super) fn subscriptions_with(&self, old: Option<&ConsumerMember>, new: &ConsumerMember) -> Cow<'_, Subscriptions> {
        if old.is_some_and(|old| old.profile == new.profile) {
            return Cow::Borrowed(&self.subscriptions);
        }
        let mut subscriptions = self.subscriptions.clone();
        if let Some(old) = old {
            subscriptions.remove_member(&old.profile);
        }
        subscriptions.add_member(&new.profile);
        self.drop_unused_matches(old.and_then(ConsumerMember::regex), &mut subscriptions);
        Cow::Owned(subscriptions)
    }

    /// All subscriptions, once members are gone; and the expressions that nobody uses any more.
    pub(super) fn subscriptions_without(&self, members: &[&ConsumerMember]) -> (Subscriptions, BTreeSet<String>) {
        let mut subscriptions = self.subscriptions.clone();
        let mut unused = BTreeSet::new();
        for member in members {
            subscriptions.remove_member(&member.profile);
            if let Some(regex) = member.regex().filter(|regex| subscriptions.regex_count(regex) == 0) {
                self.drop_unused_matches(Some(regex), &mut subscriptions);
                unused.insert(regex.to_owned());
            }
        }
        (subscriptions, unused)
    }

    fn drop_unused_matches(&self, regex: Option<&str>, subscriptions: &mut Subscriptions) {
        if let Some(resolved) = regex.filter(|regex| subscriptions.regex_count(regex) == 0).and_then(|regex| self.regexes.get(regex)) {
            subscriptions.remove_matches(&resolved.topics);
        }
    }

    /// The group epoch after a change: raised if the subscriptions changed, or the subscribed topics did.
    pub(super) fn next_epoch(&self, subscription_changed: bool, subscriptions: &Subscriptions, turn: &mut Turn<'_>) -> i32 {
        if !subscription_changed && !self.is_metadata_stale {
            return self.epoch;
        }
        turn.metadata_checked = true;
        let hash = subscriptions.metadata_hash(turn.cluster);
        let mut epoch = self.epoch;
        if subscription_changed || hash != self.metadata_hash {
            epoch = epoch.saturating_add(1);
            tracing::info!(group = ?self.id, epoch, "consumer group has a new epoch");
            turn.records.push(ConsumerRecord::Epoch(Some((epoch, hash))));
        }
        if self.has_partition_metadata {
            turn.records.push(ConsumerRecord::PartitionMetadata { exists: false });
        }
        epoch
    }

    /// The target of `updated` at `epoch`: a new one for all members if the last is older, unless that one is too young to be replaced.
    pub(super) fn target_for(&self, epoch: i32, updated: &ConsumerMember, assignor: Option<Assignor>, turn: &mut Turn<'_>) -> MemberTarget {
        let interval_ms = assignment_interval_ms(&self.id, turn);
        let is_young = self.target_timestamp_ms != 0
            && interval_ms != 0
            && turn.now_ms < self.target_timestamp_ms.saturating_add(i64::from(interval_ms));
        if self.target_epoch >= epoch || is_young {
            let target = self.target_of(&updated.id, updated.profile.instance_id.as_deref());
            return MemberTarget { epoch: self.target_epoch, target };
        }
        let assignor = assignor.unwrap_or_else(|| default_assignor(turn.config));
        let spec = self.group_spec(updated, turn.cluster);
        let mut targets = assignor.assign(&spec);
        tracing::info!(group = ?self.id, epoch, assignor = assignor.name(), members = targets.len(), "consumer group has a new target");
        let own = targets.get(&updated.id).cloned().unwrap_or_default();
        for member_id in spec.members.into_keys() {
            let target = targets.remove(&member_id).unwrap_or_default();
            if self.targets.get(&member_id) != Some(&target) {
                turn.records.push(ConsumerRecord::Target { member_id, target: Some(target) });
            }
        }
        turn.records.push(ConsumerRecord::TargetEpoch(Some((epoch, turn.now_ms))));
        MemberTarget { epoch, target: own }
    }

    /// All members with `updated` in its place; a static member takes the place of its former id.
    fn group_spec<'a>(&'a self, updated: &'a ConsumerMember, cluster: &'a dyn ClusterView) -> GroupSpec {
        let replaced = updated.profile.instance_id.as_ref().and_then(|id| self.static_members.get(id));
        let others = self.members.values().filter(|member| member.id != updated.id && Some(&member.id) != replaced);
        let mut sets = TopicSets { group: self, cluster, partition_counts: BTreeMap::new(), sets: BTreeMap::new() };
        let members = others.chain([updated]).map(|member| {
            let instance_id = member.profile.instance_id.clone();
            let target = self.target_of(&member.id, instance_id.as_deref());
            (member.id.clone(), MemberSpec { instance_id, topics: sets.of(member), target })
        });
        let members = members.collect();
        GroupSpec { members, partition_counts: sets.partition_counts }
    }
}

/// The first of `group.consumer.assignors`.
pub(super) fn default_assignor(config: &GroupCoordinatorConfig) -> Assignor {
    config.consumer_assignors.first().copied().unwrap_or(Assignor::Uniform)
}

fn assignment_interval_ms(group_id: &str, turn: &Turn<'_>) -> i32 {
    let limits = &turn.config.consumer_assignment_interval_limits_ms;
    let set = turn.cluster.group_setting(group_id, "consumer.assignment.interval.ms");
    set.map_or(turn.config.consumer_assignment_interval_ms, |value| value.max(*limits.start()).min(*limits.end()))
}
