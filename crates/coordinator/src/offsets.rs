//! The committed offsets of one group.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::messages::{CommittedOffset, TopicPartition};

/// A committed offset as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OffsetAndMetadata {
    pub(crate) offset: i64,
    /// -1 for unknown.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
    pub(crate) commit_timestamp_ms: i64,
    /// Only from OffsetCommit versions 2 to 4 with a retention time.
    pub(crate) expire_timestamp_ms: Option<i64>,
}

impl OffsetAndMetadata {
    /// True once the offset has outlived its group: its own expiry is past, or `base_timestamp_ms` is `retention_ms` ago.
    pub(crate) fn is_expired(&self, base_timestamp_ms: i64, now_ms: i64, retention_ms: i64) -> bool {
        match self.expire_timestamp_ms {
            Some(expiry) => now_ms >= expiry,
            None => now_ms.saturating_sub(base_timestamp_ms) >= retention_ms,
        }
    }
}

/// The committed offsets of one group, by topic and partition. Those of open transactions stand elsewhere
/// ([`crate::pending::PendingOffsets`]) and come here when their transaction commits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupOffsets {
    by_topic: BTreeMap<String, BTreeMap<i32, OffsetAndMetadata>>,
}

impl GroupOffsets {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    pub(crate) fn contains(&self, topic: &str, partition: i32) -> bool {
        self.by_topic.get(topic).is_some_and(|partitions| partitions.contains_key(&partition))
    }

    pub(crate) fn put(&mut self, topic: &str, partition: i32, value: OffsetAndMetadata) {
        if let Some(partitions) = self.by_topic.get_mut(topic) {
            partitions.insert(partition, value);
        } else {
            self.by_topic.insert(topic.to_owned(), BTreeMap::from([(partition, value)]));
        }
    }

    pub(crate) fn remove(&mut self, topic: &str, partition: i32) {
        if let Some(partitions) = self.by_topic.get_mut(topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.by_topic.remove(topic);
            }
        }
    }

    /// What OffsetFetch answers for one partition.
    pub(crate) fn committed(&self, topic: &str, partition: i32) -> CommittedOffset {
        match self.by_topic.get(topic).and_then(|partitions| partitions.get(&partition)) {
            Some(found) => CommittedOffset {
                offset: found.offset,
                leader_epoch: found.leader_epoch,
                metadata: found.metadata.clone(),
                is_unstable: false,
            },
            None => CommittedOffset::none(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i32, &OffsetAndMetadata)> {
        self.by_topic
            .iter()
            .flat_map(|(topic, partitions)| partitions.iter().map(move |(partition, value)| (topic.as_str(), *partition, value)))
    }

    /// Which offsets there are.
    pub(crate) fn ids(&self) -> Vec<TopicPartition> {
        let of_topic = |(topic, partitions): (&String, &BTreeMap<i32, OffsetAndMetadata>)| {
            let topic: Arc<str> = topic.as_str().into();
            partitions.keys().map(|partition| TopicPartition { topic: topic.clone(), partition: *partition }).collect::<Vec<_>>()
        };
        self.by_topic.iter().flat_map(of_topic).collect()
    }
}
