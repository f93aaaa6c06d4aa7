//! A member of a consumer group: what it said of itself, and what it owns. The two halves are the values of its two records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use siltstone_common::TopicId;

use crate::assignor::Assignment;
use crate::messages::{Protocol, TopicPartitions};

/// Epoch of a member that has left.
pub(crate) const LEAVE_EPOCH: i32 = -1;
/// Epoch of a static member that has left for a while.
pub(crate) const LEAVE_STATIC_EPOCH: i32 = -2;

/// Partitions with the epochs at which they were assigned, which fence the commits of former owners.
pub(crate) type PartitionEpochs = BTreeMap<TopicId, BTreeMap<i32, i32>>;

/// How far a member is with its target.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// It owns its target.
    #[default]
    Stable,
    /// It must give partitions up before it gets others.
    UnrevokedPartitions,
    /// It waits for partitions that others still own.
    UnreleasedPartitions,
    /// Written by a version that knows more states.
    Unknown,
}

impl MemberState {
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::Stable => 0,
            Self::UnrevokedPartitions => 1,
            Self::UnreleasedPartitions => 2,
            Self::Unknown => 127,
        }
    }

    pub(crate) fn from_code(code: i8) -> Self {
        match code {
            0 => Self::Stable,
            1 => Self::UnrevokedPartitions,
            2 => Self::UnreleasedPartitions,
            _ => Self::Unknown,
        }
    }
}

/// ConsumerGroupMemberMetadataValue: what a member said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberProfile {
    pub(crate) instance_id: Option<String>,
    pub(crate) rack_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) subscribed_topics: BTreeSet<String>,
    /// Empty for none.
    pub(crate) subscribed_regex: String,
    /// -1 for unknown.
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) server_assignor: Option<String>,
    /// Only of members that speak the classic protocol.
    pub(crate) classic: Option<ClassicProfile>,
}

impl Default for MemberProfile {
    fn default() -> Self {
        Self {
            instance_id: None,
            rack_id: None,
            client_id: String::new(),
            client_host: String::new(),
            subscribed_topics: BTreeSet::new(),
            subscribed_regex: String::new(),
            rebalance_timeout_ms: -1,
            server_assignor: None,
            classic: None,
        }
    }
}

/// What a member that speaks the classic protocol brought along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClassicProfile {
    pub(crate) session_timeout_ms: i32,
    /// Never empty.
    pub(crate) protocols: Vec<Protocol>,
}

/// ConsumerGroupCurrentMemberAssignmentValue: what a member owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CurrentAssignment {
    pub(crate) epoch: i32,
    /// The epoch before: a member whose answer was lost comes with it.
    pub(crate) previous_epoch: i32,
    pub(crate) state: MemberState,
    pub(crate) assigned: PartitionEpochs,
    pub(crate) revoking: PartitionEpochs,
}

impl Default for CurrentAssignment {
    fn default() -> Self {
        Self {
            epoch: 0,
            previous_epoch: -1,
            state: MemberState::Stable,
            assigned: PartitionEpochs::new(),
            revoking: PartitionEpochs::new(),
        }
    }
}

impl CurrentAssignment {
    /// What remains once it has left, until its profile goes too.
    pub(crate) fn left() -> Self {
        Self { epoch: LEAVE_EPOCH, previous_epoch: LEAVE_EPOCH, ..Self::default() }
    }

    /// The epoch at which it was assigned the partition, if it owns it.
    pub(crate) fn assignment_epoch(&self, topic: TopicId, partition: i32) -> Option<i32> {
        let within = |owned: &PartitionEpochs| owned.get(&topic).and_then(|partitions| partitions.get(&partition)).copied();
        within(&self.assigned).or_else(|| within(&self.revoking))
    }

    /// All partitions it owns.
    pub(crate) fn owned(&self) -> impl Iterator<Item = (TopicId, i32)> + '_ {
        let all = self.assigned.iter().chain(&self.revoking);
        all.flat_map(|(topic, partitions)| partitions.keys().map(|partition| (*topic, *partition)))
    }

    pub(crate) fn is_reconciled_to(&self, target_epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == target_epoch
    }
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConsumerMember {
    pub(crate) id: Arc<str>,
    pub(crate) profile: MemberProfile,
    pub(crate) current: CurrentAssignment,
}

impl ConsumerMember {
    pub(crate) fn new(id: Arc<str>) -> Self {
        Self { id, profile: MemberProfile::default(), current: CurrentAssignment::default() }
    }

    pub(crate) fn uses_classic_protocol(&self) -> bool {
        self.profile.classic.is_some()
    }

    pub(crate) fn regex(&self) -> Option<&str> {
        Some(self.profile.subscribed_regex.as_str()).filter(|regex| !regex.is_empty())
    }
}

/// Without the epochs.
pub(crate) fn partitions_of(owned: &PartitionEpochs) -> Assignment {
    owned.iter().map(|(topic, partitions)| (*topic, partitions.keys().copied().collect())).collect()
}

/// All at one epoch.
pub(crate) fn at_epoch(assignment: &Assignment, epoch: i32) -> PartitionEpochs {
    assignment.iter().map(|(topic, partitions)| (*topic, partitions.iter().map(|partition| (*partition, epoch)).collect())).collect()
}

/// As requests and answers list partitions.
pub(crate) fn listed(owned: &PartitionEpochs) -> Vec<TopicPartitions> {
    owned.iter().map(|(topic, partitions)| TopicPartitions { topic_id: *topic, partitions: partitions.keys().copied().collect() }).collect()
}
