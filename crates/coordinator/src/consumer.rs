//! A consumer group (KIP-848) as a state machine: no clock, no log, no tasks.
//!
//! ```text
//!   subscriptions, topics ──► group epoch ──► target assignment (at an epoch) ──► each member's current assignment
//! ```
//! A change of members, subscriptions or topics raises the *group epoch*. A heartbeat then has the assignor work out a *target* for that epoch, and
//! each member's own heartbeats take it to the target step by step: first it gives up what it must, then it takes what others gave up.
//!
//! Every event is a function of the state (`&self`) and a [`Turn`], which collects *records*; [`ConsumerGroup::apply`] alone changes the state, for the
//! records just made as for those replayed. So a group is a function of its records, and replay can't differ from life. A record is applied when
//! it is made; its answer waits until it is written (I21). If a write fails, the whole partition is replayed.
//!
//! Invariants: a partition has one owner at most, `owners` says which; a member's epoch never exceeds the target's, the target's never the group's.

mod admin;
mod classic_members;
mod heartbeat;
mod member;
mod migration;
mod reconcile;
mod regex;
mod subscriptions;
mod target;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use siltstone_common::TopicId;

use crate::assignor::Assignment;
use crate::cluster::ClusterView;
use crate::config::GroupCoordinatorConfig;
use crate::timers::GroupTimer;
pub(crate) use admin::Commit;
pub(crate) use heartbeat::validate;
pub(crate) use member::{
    ClassicProfile, ConsumerMember, CurrentAssignment, LEAVE_EPOCH, LEAVE_STATIC_EPOCH, MemberProfile, MemberState, PartitionEpochs,
};
pub(crate) use migration::Downgrade;
pub(crate) use regex::ResolvedRegex;
pub(crate) use subscriptions::Subscriptions;

/// A change to a group: one record of `__consumer_offsets`. No value deletes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ConsumerRecord {
    /// Group epoch and metadata hash; its end ends the group.
    Epoch(Option<(i32, i64)>),
    /// Only ever read, or deleted: Kafka before 4.1 kept partition counts here.
    PartitionMetadata {
        exists: bool,
    },
    Member {
        member_id: Arc<str>,
        profile: Option<Box<MemberProfile>>,
    },
    /// Epoch of the target, and when it was worked out.
    TargetEpoch(Option<(i32, i64)>),
    Target {
        member_id: Arc<str>,
        target: Option<Assignment>,
    },
    Current {
        member_id: Arc<str>,
        current: Option<Box<CurrentAssignment>>,
    },
    Regex {
        regex: String,
        resolved: Option<ResolvedRegex>,
    },
}

/// Kafka's states of a consumer group.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ConsumerGroupState {
    Empty,
    Assigning,
    Reconciling,
    Stable,
}

impl ConsumerGroupState {
    /// Kafka's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// What is to be done with a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TimerChange {
    Set(GroupTimer, Duration),
    SetIfAbsent(GroupTimer, Duration),
    Cancel(GroupTimer),
}

/// One event's surroundings, and what is to be done after it.
pub(crate) struct Turn<'a> {
    /// Monotonic.
    pub(crate) now: Duration,
    /// Wall clock, for timestamps in records.
    pub(crate) now_ms: i64,
    pub(crate) config: &'a GroupCoordinatorConfig,
    pub(crate) cluster: &'a dyn ClusterView,
    /// Whether the client may know of a topic: regular expressions match no others.
    pub(crate) may_describe: &'a dyn Fn(&str) -> bool,
    /// The revision at which the newest topic appeared.
    pub(crate) topics_created_at: u64,
    /// To be applied and written, in this order.
    pub(crate) records: Vec<ConsumerRecord>,
    pub(crate) timers: Vec<TimerChange>,
    /// The group becomes a classic one.
    pub(crate) downgrade: Option<Downgrade>,
    /// The group's topics were looked up in `cluster`, all changes are in `records`.
    pub(crate) metadata_checked: bool,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(now: Duration, now_ms: i64, config: &'a GroupCoordinatorConfig, cluster: &'a dyn ClusterView) -> Self {
        Self {
            now,
            now_ms,
            config,
            cluster,
            may_describe: &|_| true,
            topics_created_at: 0,
            records: Vec::new(),
            timers: Vec::new(),
            downgrade: None,
            metadata_checked: false,
        }
    }

    fn set_timer(&mut self, timer: GroupTimer, delay_ms: i32) {
        let delay = Duration::from_millis(u64::try_from(delay_ms).unwrap_or(0));
        self.timers.push(TimerChange::Set(timer, self.now + delay));
    }

    fn set_timer_if_absent(&mut self, timer: GroupTimer, delay_ms: i32) {
        let delay = Duration::from_millis(u64::try_from(delay_ms).unwrap_or(0));
        self.timers.push(TimerChange::SetIfAbsent(timer, self.now + delay));
    }

    fn cancel_timer(&mut self, timer: GroupTimer) {
        self.timers.push(TimerChange::Cancel(timer));
    }

    fn cancel_all_timers(&mut self, member_id: &Arc<str>) {
        for timer in member_timers(member_id) {
            self.cancel_timer(timer);
        }
    }
}

/// Every timer that a member may have.
pub(crate) fn member_timers(member_id: &Arc<str>) -> [GroupTimer; 4] {
    [
        GroupTimer::Heartbeat(member_id.clone()),
        GroupTimer::Rebalance(member_id.clone()),
        GroupTimer::ClassicJoin(member_id.clone()),
        GroupTimer::ClassicSync(member_id.clone()),
    ]
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerGroup {
    id: Arc<str>,
    epoch: i32,
    metadata_hash: i64,
    target_epoch: i32,
    target_timestamp_ms: i64,
    members: BTreeMap<Arc<str>, ConsumerMember>,
    /// Member ids by `group.instance.id`.
    static_members: HashMap<String, Arc<str>>,
    targets: BTreeMap<Arc<str>, Assignment>,
    owners: HashMap<(TopicId, i32), Arc<str>>,
    regexes: BTreeMap<String, ResolvedRegex>,
    subscriptions: Subscriptions,
    /// A record that older versions wrote is still there.
    has_partition_metadata: bool,
    /// The cluster's topics may have changed since they were last looked at. Not part of the records.
    pub(crate) is_metadata_stale: bool,
}

impl ConsumerGroup {
    /// A group without members.
    pub(crate) fn new(id: Arc<str>) -> Self {
        Self {
            id,
            epoch: 1,
            metadata_hash: 0,
            target_epoch: 1,
            target_timestamp_ms: 0,
            members: BTreeMap::new(),
            static_members: HashMap::new(),
            targets: BTreeMap::new(),
            owners: HashMap::new(),
            regexes: BTreeMap::new(),
            subscriptions: Subscriptions::default(),
            has_partition_metadata: false,
            is_metadata_stale: true,
        }
    }

    pub(crate) fn id(&self) -> &Arc<str> {
        &self.id
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn member_ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.members.keys()
    }

    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscriptions.contains(topic)
    }

    pub(crate) fn state(&self) -> ConsumerGroupState {
        if self.members.is_empty() {
            ConsumerGroupState::Empty
        } else if self.epoch > self.target_epoch {
            ConsumerGroupState::Assigning
        } else if self.members.values().all(|member| member.current.is_reconciled_to(self.target_epoch)) {
            ConsumerGroupState::Stable
        } else {
            ConsumerGroupState::Reconciling
        }
    }

    fn static_member(&self, instance_id: &str) -> Option<&ConsumerMember> {
        self.members.get(self.static_members.get(instance_id)?)
    }

    /// The target of a member; a static member under a new id has the old one's.
    fn target_of(&self, member_id: &str, instance_id: Option<&str>) -> Assignment {
        let previous = instance_id.and_then(|id| self.static_members.get(id)).map(|id| &**id);
        self.targets.get(member_id).or_else(|| self.targets.get(previous?)).cloned().unwrap_or_default()
    }

    fn is_owned(&self, topic: TopicId, partition: i32) -> bool {
        self.owners.contains_key(&(topic, partition))
    }

    /// Takes in one record: the only way in which a group changes.
    pub(crate) fn apply(&mut self, record: ConsumerRecord) {
        match record {
            ConsumerRecord::Epoch(value) => (self.epoch, self.metadata_hash) = value.unwrap_or((1, 0)),
            ConsumerRecord::PartitionMetadata { exists } => self.has_partition_metadata = exists,
            ConsumerRecord::TargetEpoch(value) => (self.target_epoch, self.target_timestamp_ms) = value.unwrap_or((-1, 0)),
            ConsumerRecord::Target { member_id, target: Some(target) } => {
                self.targets.insert(member_id, target);
            }
            ConsumerRecord::Target { member_id, target: None } => {
                self.targets.remove(&member_id);
            }
            ConsumerRecord::Regex { regex, resolved } => self.apply_regex(regex, resolved),
            ConsumerRecord::Member { member_id, profile: Some(profile) } => {
                let current = self.take_member(&member_id).map(|member| member.current).unwrap_or_default();
                self.put_member(ConsumerMember { id: member_id, profile: *profile, current });
            }
            ConsumerRecord::Member { member_id, profile: None } => {
                self.take_member(&member_id);
            }
            ConsumerRecord::Current { member_id, current: Some(current) } => {
                let profile = self.take_member(&member_id).map(|member| member.profile).unwrap_or_default();
                self.put_member(ConsumerMember { id: member_id, profile, current: *current });
            }
            ConsumerRecord::Current { member_id, current: None } => {
                if let Some(member) = self.take_member(&member_id) {
                    self.put_member(ConsumerMember { current: CurrentAssignment::left(), ..member });
                }
            }
        }
    }

    fn apply_regex(&mut self, regex: String, resolved: Option<ResolvedRegex>) {
        if let Some(old) = self.regexes.remove(&regex) {
            self.subscriptions.remove_matches(&old.topics);
        }
        if let Some(resolved) = resolved {
            self.subscriptions.add_matches(&resolved.topics);
            self.regexes.insert(regex, resolved);
        }
    }

    fn put_member(&mut self, member: ConsumerMember) {
        if let Some(instance_id) = &member.profile.instance_id {
            self.static_members.insert(instance_id.clone(), member.id.clone());
        }
        for partition in member.current.owned() {
            self.owners.insert(partition, member.id.clone());
        }
        self.subscriptions.add_member(&member.profile);
        self.members.insert(member.id.clone(), member);
    }

    fn take_member(&mut self, member_id: &str) -> Option<ConsumerMember> {
        let member = self.members.remove(member_id)?;
        if let Some(instance_id) = &member.profile.instance_id
            && self.static_members.get(instance_id) == Some(&member.id)
        {
            self.static_members.remove(instance_id);
        }
        for partition in member.current.owned() {
            // A static member may already have it under its new id.
            if self.owners.get(&partition) == Some(&member.id) {
                self.owners.remove(&partition);
            }
        }
        self.subscriptions.remove_member(&member.profile);
        Some(member)
    }
}
