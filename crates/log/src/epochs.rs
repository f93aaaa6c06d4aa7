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
        let _ = entries;
        todo!()
    }

    /// All entries, in order.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// Notes that `epoch` wrote at `start_offset`; true if that was news.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        let _ = (epoch, start_offset);
        todo!()
    }

    /// The newest epoch.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The epoch that wrote `offset`.
    pub fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        let _ = offset;
        todo!()
    }

    /// Kafka's `endOffsetFor` (KIP-101, KIP-279): the largest known epoch <= `epoch` and its end offset
    /// (`log_end_offset` for the newest); `None` if nothing is known of it.
    pub fn end_offset_for(&self, epoch: i32, log_end_offset: i64) -> Option<(i32, i64)> {
        let _ = (epoch, log_end_offset);
        todo!()
    }

    /// Forgets what begins at or above `offset`.
    pub fn truncate_from_end(&mut self, offset: i64) {
        let _ = offset;
        todo!()
    }

    /// Forgets what ended at or below `offset`; the epoch that covers it now begins at `offset`.
    pub fn truncate_from_start(&mut self, offset: i64) {
        let _ = offset;
        todo!()
    }

    /// The entries that lie in `[base_offset, last_offset]`, the first clipped to `base_offset`: what an uploaded segment carries.
    pub fn slice(&self, base_offset: i64, last_offset: i64) -> Vec<EpochEntry> {
        let _ = (base_offset, last_offset);
        todo!()
    }
}
