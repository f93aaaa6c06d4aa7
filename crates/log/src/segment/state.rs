//! What is known in memory of one local segment.

use bytes::Bytes;

use super::{IndexEntry, SegmentName, SegmentStat};
use crate::batch::BatchHeader;
use crate::manifest::record::SegmentRecord;
use crate::producers::AbortedTxn;

/// How far a segment is on its way to be immutable.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Appends go here.
    Active,
    /// Rolled in memory; its end may not be in the file yet.
    Closing,
    /// Complete on disk, with its index; the manifest does not say so yet.
    Sealed,
    /// And the manifest says so.
    Durable,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) base_offset: i64,
    /// How often it was cleaned: part of its files' name.
    pub(crate) generation: u32,
    /// Offset after the last record.
    pub(crate) end_offset: i64,
    /// Bytes of all batches.
    pub(crate) size_bytes: u64,
    /// Of these, in the file.
    pub(crate) written_bytes: u64,
    /// Of these, synced.
    pub(crate) synced_bytes: u64,
    /// Offset after the last synced batch.
    pub(crate) synced_end: i64,
    /// Largest timestamp; -1 if none.
    pub(crate) max_timestamp_ms: i64,
    /// When the first record was appended; of a sealed segment without timestamps, what counts instead of these.
    pub(crate) first_append_ms: i64,
    pub(crate) phase: Phase,
    /// Index of what lies at or above `indexed_bytes`; empty once sealed.
    pub(crate) index: Vec<IndexEntry>,
    /// The index file covers the bytes below (all, once sealed).
    pub(crate) indexed_bytes: u64,
    /// Position of the last batch that has an index entry, to keep the distance.
    pub(crate) last_indexed: Option<u64>,
    /// Transactions aborted here; empty once sealed.
    pub(crate) aborted: Vec<AbortedTxn>,
    pub(crate) has_aborts: bool,
    /// Producer state at the end, taken at the roll, until it is on disk.
    pub(crate) end_snapshot: Option<Bytes>,
}

impl Segment {
    /// An empty active segment.
    pub(crate) fn new(base_offset: i64) -> Self {
        Self {
            base_offset,
            generation: 0,
            end_offset: base_offset,
            size_bytes: 0,
            written_bytes: 0,
            synced_bytes: 0,
            synced_end: base_offset,
            max_timestamp_ms: -1,
            first_append_ms: -1,
            phase: Phase::Active,
            index: Vec::new(),
            indexed_bytes: 0,
            last_indexed: None,
            aborted: Vec::new(),
            has_aborts: false,
            end_snapshot: None,
        }
    }

    /// As the manifest has it.
    pub(crate) fn from_record(record: &SegmentRecord) -> Self {
        Self {
            generation: record.generation,
            end_offset: record.last_offset + 1,
            size_bytes: record.size_bytes,
            written_bytes: record.size_bytes,
            synced_bytes: record.size_bytes,
            synced_end: record.last_offset + 1,
            max_timestamp_ms: record.max_timestamp_ms,
            first_append_ms: record.first_append_ms,
            phase: if record.sealed { Phase::Durable } else { Phase::Active },
            indexed_bytes: if record.sealed || record.indexed { record.size_bytes } else { 0 },
            has_aborts: record.has_aborts,
            ..Self::new(record.base_offset)
        }
    }

    /// What of it may be relied upon.
    pub(crate) fn record(&self) -> SegmentRecord {
        let sealed = self.is_sealed();
        SegmentRecord {
            base_offset: self.base_offset,
            generation: self.generation,
            last_offset: self.synced_end - 1,
            size_bytes: self.synced_bytes,
            max_timestamp_ms: self.max_timestamp_ms,
            first_append_ms: self.first_append_ms,
            sealed,
            has_aborts: self.has_aborts,
            indexed: !sealed && self.synced_bytes > 0 && self.indexed_bytes == self.synced_bytes,
        }
    }

    /// What its files are called.
    pub(crate) fn name(&self) -> SegmentName {
        SegmentName { base_offset: self.base_offset, generation: self.generation }
    }

    /// True without batches.
    pub(crate) fn is_empty(&self) -> bool {
        self.size_bytes == 0
    }

    /// True once the file is complete and has its index beside it.
    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self.phase, Phase::Sealed | Phase::Durable)
    }

    /// Takes note of a batch at the end.
    pub(crate) fn add(&mut self, header: &BatchHeader, index_interval_bytes: u32) {
        debug_assert!(header.base_offset >= self.end_offset, "I7");
        if header.record_count > 0 {
            self.max_timestamp_ms = self.max_timestamp_ms.max(header.max_timestamp);
        }
        let due = self.last_indexed.is_none_or(|last| self.size_bytes - last >= u64::from(index_interval_bytes));
        if due {
            self.last_indexed = Some(self.size_bytes);
            self.index.push(IndexEntry { offset: header.base_offset, position: self.size_bytes, max_timestamp_ms: self.max_timestamp_ms });
        }
        self.size_bytes += header.total_len() as u64;
        self.end_offset = header.next_offset();
    }

    /// The last indexed batch that begins at or below `offset`; `None` if the index file has to be asked.
    pub(crate) fn entry_for_offset(&self, offset: i64) -> Option<IndexEntry> {
        let at = self.index.partition_point(|entry| entry.offset <= offset);
        self.index.get(at.checked_sub(1)?).copied()
    }

    /// As retention and describe see it.
    pub(crate) fn stat(&self) -> SegmentStat {
        SegmentStat {
            base_offset: self.base_offset,
            last_offset: self.end_offset - 1,
            size_bytes: self.size_bytes,
            max_timestamp_ms: self.max_timestamp_ms,
            sealed: self.phase == Phase::Durable,
            generation: self.generation,
            appended_ms: self.first_append_ms,
        }
    }
}
