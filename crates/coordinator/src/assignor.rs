//! Server-side assignors of consumer groups (KIP-848): pure functions from members, subscriptions and the last target to a new target.
//!
//! Invariants of every assignment: a partition has one owner at most; only subscribers own a topic's partitions; every partition of a
//! subscribed topic has an owner. `uniform` moves as few partitions as balance allows.

mod range;
mod uniform;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use siltstone_common::TopicId;

/// Partitions by topic.
pub(crate) type Assignment = BTreeMap<TopicId, BTreeSet<i32>>;

/// The assignors that there are, by Kafka's names.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Assignor {
    /// Spreads all partitions evenly and keeps them where they are.
    Uniform,
    /// Gives each member a range of each topic, so that topics with the same count of partitions are assigned alike.
    Range,
}

impl Assignor {
    /// All of them, Kafka's default first.
    pub const ALL: [Assignor; 2] = [Assignor::Uniform, Assignor::Range];

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// The assignor of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// The new target of every member.
    pub(crate) fn assign(self, group: &GroupSpec) -> BTreeMap<Arc<str>, Assignment> {
        match self {
            Self::Uniform => uniform::assign(group),
            Self::Range => range::assign(group),
        }
    }
}

/// A member, as assignors see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberSpec {
    pub(crate) instance_id: Option<String>,
    /// Only topics that exist.
    pub(crate) topics: Arc<BTreeSet<TopicId>>,
    /// Its last target.
    pub(crate) target: Assignment,
}

/// A group, as assignors see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupSpec {
    pub(crate) members: BTreeMap<Arc<str>, MemberSpec>,
    /// Partitions of every topic that a member subscribes to.
    pub(crate) partition_counts: BTreeMap<TopicId, i32>,
}

impl GroupSpec {
    fn partition_count(&self, topic: TopicId) -> i32 {
        self.partition_counts.get(&topic).copied().unwrap_or(0)
    }

    /// True if all members subscribe to the same topics.
    fn is_homogeneous(&self) -> bool {
        let mut subscriptions = self.members.values().map(|member| &member.topics);
        let Some(first) = subscriptions.next() else { return true };
        subscriptions.all(|topics| Arc::ptr_eq(topics, first) || topics == first)
    }
}
