//! The leader-epoch cache: which leader epoch began at which offset (KIP-101).

use serde::{Deserialize, Serialize};

/// `epoch` began at `start_offset`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochEntry {
    /// The leader epoch.
    pub epoch: i32,
    /// First offset written in it.
    pub start_offset: i64,
}

/// Strictly increasing in epoch and start offset (I16).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochCache {
    entries: Vec<EpochEntry>,
}

impl LeaderEpochCache {
    /// From entries in order; entries out of order are left out.
    pub fn from_entries(entries: impl IntoIterator<Item = EpochEntry>) -> Self {
        let mut cache = Self::default();
        for entry in entries {
            let valid = entry.epoch >= 0 && entry.start_offset >= 0;
            let follows = cache.entries.last().is_none_or(|last| entry.epoch > last.epoch && entry.start_offset > last.start_offset);
            if valid && follows {
                cache.entries.push(entry);
            }
        }
        cache
    }

    /// All entries, in order.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// Notes that `epoch` wrote at `start_offset`; true if that was news. As in Kafka, entries that the new one contradicts go.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        if epoch < 0 || start_offset < 0 {
            return false;
        }
        if self.entries.last().is_some_and(|last| last.epoch == epoch && last.start_offset <= start_offset) {
            return false;
        }
        while self.entries.last().is_some_and(|last| last.epoch >= epoch || last.start_offset >= start_offset) {
            self.entries.pop();
        }
        self.entries.push(EpochEntry { epoch, start_offset });
        true
    }

    /// The newest epoch.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The epoch that wrote `offset`.
    pub fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        Some(self.entries.get(after.checked_sub(1)?)?.epoch)
    }

    /// Kafka's `endOffsetFor` (KIP-101, KIP-279): the largest known epoch <= `epoch` and its end offset
    /// (`log_end_offset` for the newest); `None` if nothing is known of it. An epoch older than all known ones ends
    /// where the first known one begins.
    pub fn end_offset_for(&self, epoch: i32, log_end_offset: i64) -> Option<(i32, i64)> {
        if epoch < 0 {
            return None;
        }
        if self.latest_epoch() == Some(epoch) {
            return Some((epoch, log_end_offset));
        }
        let higher = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end_offset = self.entries.get(higher)?.start_offset;
        let floor = higher.checked_sub(1).and_then(|index| self.entries.get(index));
        Some((floor.map_or(epoch, |entry| entry.epoch), end_offset))
    }

    /// Forgets what begins at or above `offset`.
    pub fn truncate_from_end(&mut self, offset: i64) {
        let keep = self.entries.partition_point(|entry| entry.start_offset < offset);
        self.entries.truncate(keep);
    }

    /// Forgets what ended at or below `offset`; the epoch that covers it now begins at `offset`.
    pub fn truncate_from_start(&mut self, offset: i64) {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        let Some(covering) = after.checked_sub(1) else {
            return;
        };
        self.entries.drain(..covering);
        if let Some(first) = self.entries.first_mut() {
            first.start_offset = offset;
        }
    }

    /// The entries that lie in `[base_offset, last_offset]`, the first clipped to `base_offset`: what an uploaded segment carries.
    pub fn slice(&self, base_offset: i64, last_offset: i64) -> Vec<EpochEntry> {
        let end = self.entries.partition_point(|entry| entry.start_offset <= last_offset);
        let mut part = Self { entries: self.entries.get(..end).unwrap_or_default().to_vec() };
        if base_offset <= last_offset {
            part.truncate_from_start(base_offset);
            part.entries
        } else {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests;
