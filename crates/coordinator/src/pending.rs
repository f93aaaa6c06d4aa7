//! Offsets of open transactions (KIP-447): they become their groups' offsets when the transaction commits, and are forgotten when it aborts. While
//! they are pending, readers that ask for stable offsets are told to wait.
//!
//! Of two offsets of one partition the one that was written later counts, whichever transaction ended first; so an offset that was overtaken
//! stays pending, without a value.

use std::collections::HashMap;
use std::sync::Arc;

use crate::messages::TopicPartition;
use crate::offsets::OffsetAndMetadata;

type Key = (Arc<str>, TopicPartition);

#[derive(Clone, Debug)]
struct Pending {
    /// Orders the writes.
    position: u64,
    /// `None` once it was overtaken.
    value: Option<OffsetAndMetadata>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct PendingOffsets {
    by_producer: HashMap<i64, HashMap<Key, Pending>>,
    /// How many open transactions hold an offset of a group's partition.
    holders: HashMap<Arc<str>, HashMap<TopicPartition, usize>>,
    last_position: u64,
}

impl PendingOffsets {
    /// An offset was written within a producer's transaction.
    pub(crate) fn put(&mut self, producer_id: i64, group: &Arc<str>, id: TopicPartition, value: OffsetAndMetadata) {
        self.last_position += 1;
        let pending = Pending { position: self.last_position, value: Some(value) };
        let offsets = self.by_producer.entry(producer_id).or_default();
        if offsets.insert((group.clone(), id.clone()), pending).is_none() {
            *self.holders.entry(group.clone()).or_default().entry(id).or_insert(0) += 1;
        }
    }

    /// True while a transaction holds an offset of the partition.
    pub(crate) fn is_unstable(&self, group: &str, id: &TopicPartition) -> bool {
        self.holders.get(group).is_some_and(|partitions| partitions.contains_key(id))
    }

    /// True while a transaction holds any offset of the group.
    pub(crate) fn has_group(&self, group: &str) -> bool {
        self.holders.contains_key(group)
    }

    /// A later offset of the partition was committed outside of transactions.
    pub(crate) fn overtaken(&mut self, group: &Arc<str>, id: &TopicPartition) {
        self.overtaken_before(group, id, u64::MAX);
    }

    fn overtaken_before(&mut self, group: &Arc<str>, id: &TopicPartition, position: u64) {
        if !self.is_unstable(group, id) {
            return;
        }
        let key = (group.clone(), id.clone());
        for pending in self.by_producer.values_mut().filter_map(|offsets| offsets.get_mut(&key)) {
            if pending.position < position {
                pending.value = None;
            }
        }
    }

    /// The partition's offset was deleted: what is pending goes too, as in Kafka.
    pub(crate) fn forget(&mut self, group: &Arc<str>, id: &TopicPartition) {
        if !self.is_unstable(group, id) {
            return;
        }
        let key = (group.clone(), id.clone());
        self.by_producer.values_mut().for_each(|offsets| drop(offsets.remove(&key)));
        self.by_producer.retain(|_, offsets| !offsets.is_empty());
        if let Some(partitions) = self.holders.get_mut(group) {
            partitions.remove(id);
            if partitions.is_empty() {
                self.holders.remove(group);
            }
        }
    }

    /// The partitions of a group that transactions hold.
    pub(crate) fn of_group(&self, group: &str) -> Vec<TopicPartition> {
        self.holders.get(group).map(|partitions| partitions.keys().cloned().collect()).unwrap_or_default()
    }

    /// A producer's transaction has ended; what it committed.
    pub(crate) fn complete(&mut self, producer_id: i64, commit: bool) -> Vec<(Arc<str>, TopicPartition, OffsetAndMetadata)> {
        let mut applied = Vec::new();
        for ((group, id), pending) in self.by_producer.remove(&producer_id).unwrap_or_default() {
            self.release(&group, &id);
            if let Some(value) = pending.value.filter(|_| commit) {
                self.overtaken_before(&group, &id, pending.position);
                applied.push((group, id, value));
            }
        }
        applied
    }

    fn release(&mut self, group: &Arc<str>, id: &TopicPartition) {
        let Some(partitions) = self.holders.get_mut(group) else { return };
        if let Some(count) = partitions.get_mut(id) {
            *count -= 1;
            if *count == 0 {
                partitions.remove(id);
            }
        }
        if partitions.is_empty() {
            self.holders.remove(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(offset: i64) -> OffsetAndMetadata {
        OffsetAndMetadata { offset, leader_epoch: -1, metadata: String::new(), commit_timestamp_ms: 0, expire_timestamp_ms: None }
    }

    fn setup() -> (PendingOffsets, Arc<str>, TopicPartition) {
        (PendingOffsets::default(), "g".into(), TopicPartition { topic: "t".into(), partition: 0 })
    }

    #[test]
    fn a_commit_gives_the_offsets_and_an_abort_none() {
        let (mut pending, group, id) = setup();
        pending.put(1, &group, id.clone(), offset(5));
        pending.put(1, &group, id.clone(), offset(6));
        pending.put(2, &group, id.clone(), offset(7));
        assert!(pending.is_unstable("g", &id) && pending.has_group("g"));
        assert_eq!(pending.complete(2, false), []);
        assert!(pending.is_unstable("g", &id));
        assert_eq!(pending.complete(1, true), [(group, id.clone(), offset(6))]);
        assert!(!pending.is_unstable("g", &id) && !pending.has_group("g"));
        assert_eq!(pending.complete(1, true), []);
    }

    #[test]
    fn the_offset_that_was_written_last_counts() {
        let (mut pending, group, id) = setup();
        pending.put(1, &group, id.clone(), offset(5));
        pending.put(2, &group, id.clone(), offset(6));
        assert_eq!(pending.complete(2, true), [(group.clone(), id.clone(), offset(6))]);
        assert!(pending.is_unstable("g", &id));
        assert_eq!(pending.complete(1, true), [], "it was overtaken by the other transaction");
        pending.put(1, &group, id.clone(), offset(7));
        pending.overtaken(&group, &id);
        assert_eq!(pending.complete(1, true), [], "it was overtaken by a plain commit");
    }

    #[test]
    fn a_deleted_offset_is_not_brought_back_by_a_transaction() {
        let (mut pending, group, id) = setup();
        pending.put(1, &group, id.clone(), offset(5));
        assert_eq!(pending.of_group("g"), std::slice::from_ref(&id));
        pending.forget(&group, &id);
        assert!(!pending.has_group("g"));
        assert_eq!(pending.complete(1, true), []);
    }
}
