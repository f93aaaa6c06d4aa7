//! What the append lock guards: everything about a partition's log that is in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use siltstone_common::TopicIdPartition;

use super::{LogConfig, LogOffsets};
use crate::epochs::LeaderEpochCache;
use crate::manifest::record::PartitionRecord;
use crate::producers::ProducerStates;
use crate::segment::{Phase, Segment};
use crate::tail::Tail;

/// A partition's tail is written to its segment file once this much of it is not there.
const FLUSH_BYTES: u64 = 4 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct LogState {
    pub(super) config: Arc<LogConfig>,
    /// Oldest first; never empty; the last is the active one.
    pub(super) segments: VecDeque<Segment>,
    pub(super) tail: Tail,
    pub(super) offsets: LogOffsets,
    pub(super) epochs: LeaderEpochCache,
    pub(super) producers: ProducerStates,
    /// Offset after the last batch that is in a segment file.
    pub(super) written_end: i64,
    /// Sequence of the newest WAL entry.
    pub(super) last_sequence: u64,
    /// When a batch was last appended; -1 before the first.
    pub(super) last_append_ms: i64,
    /// WAL entries up to here are in synced segment files, or void.
    pub(super) covered_sequence: u64,
    /// The first WAL entry that the manifest does not cover.
    pub(super) first_uncovered: Option<u64>,
    /// The log start that the manifest has.
    pub(super) durable_log_start: i64,
    /// Offset of the newest producer snapshot on disk; -1 if there is none.
    pub(super) snapshot_offset: i64,
    /// Raised when batches are thrown away: acknowledgements on their way for them are then void.
    pub(super) incarnation: u64,
    /// The time given to the newest batch (`LogAppendTime`).
    pub(super) last_stamped_ms: i64,
    /// Records since the last one that asked for a sync (`flush.messages` > 1).
    pub(super) unsynced_records: i64,
    /// Compaction has seen every record below; 0 if it never ran.
    pub(super) cleaned_end: i64,
    /// Raised whenever segments are replaced by cleaned ones: what was read before does not go with what is read after.
    pub(super) cleanings: u64,
    /// True if the manifest has to get a record before what is appended may be relied upon.
    pub(super) unrecorded: bool,
    /// True if the manifest has, or has to get, a record even without segments.
    pub(super) recorded: bool,
    /// Deleted: no appends, no flushes.
    pub(super) deleted: bool,
}

impl LogState {
    /// An empty log that begins at `offset`.
    pub(super) fn empty(config: Arc<LogConfig>, offset: i64, covered_sequence: u64) -> Self {
        Self {
            config,
            segments: VecDeque::from([Segment::new(offset)]),
            tail: Tail::default(),
            offsets: LogOffsets {
                log_start: offset,
                local_start: offset,
                last_stable: offset,
                high_watermark: offset,
                ack_end: offset,
                log_end: offset,
            },
            epochs: LeaderEpochCache::default(),
            producers: ProducerStates::default(),
            written_end: offset,
            last_sequence: covered_sequence,
            last_append_ms: -1,
            covered_sequence,
            first_uncovered: None,
            durable_log_start: offset,
            snapshot_offset: -1,
            incarnation: 0,
            last_stamped_ms: 0,
            unsynced_records: 0,
            cleaned_end: 0,
            cleanings: 0,
            unrecorded: false,
            recorded: false,
            deleted: false,
        }
    }

    /// The active segment.
    pub(super) fn active(&mut self) -> &mut Segment {
        if self.segments.is_empty() {
            self.segments.push_back(Segment::new(self.offsets.log_end));
        }
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }

    /// The segment that holds `offset`, or the first one behind it.
    pub(super) fn segment_for(&self, offset: i64) -> Option<&Segment> {
        let at = self.segments.partition_point(|segment| segment.end_offset <= offset);
        self.segments.get(at)
    }

    /// Bytes that are in no segment file yet.
    pub(super) fn dirty_bytes(&self) -> u64 {
        self.segments
            .iter()
            .rev()
            .take_while(|segment| !segment.is_sealed())
            .map(|segment| segment.size_bytes - segment.written_bytes)
            .sum()
    }

    /// True if the background has something to do here.
    pub(super) fn wants_flush(&self) -> bool {
        self.dirty_bytes() >= FLUSH_BYTES || self.has_closing()
    }

    /// True if a segment waits for the background to complete it.
    pub(super) fn has_closing(&self) -> bool {
        self.segments.iter().rev().nth(1).is_some_and(|segment| segment.phase == Phase::Closing)
    }

    /// Takes the last stable offset from the high watermark and the open transactions.
    pub(super) fn update_last_stable(&mut self) {
        let high_watermark = self.offsets.high_watermark;
        let unstable = self.producers.first_unstable_offset().unwrap_or(high_watermark);
        self.offsets.last_stable = unstable.min(high_watermark).max(self.offsets.log_start);
    }

    /// True if the log goes to `offset` at least, and what is before it was written in `last_epoch`.
    pub(super) fn reaches(&self, offset: i64, last_epoch: Option<i32>) -> bool {
        self.offsets.log_end >= offset && (last_epoch.is_none() || self.epochs.epoch_for_offset(offset - 1) == last_epoch)
    }

    /// Raises the high watermark; false if it stays.
    pub(super) fn raise_high_watermark(&mut self, offset: i64) -> bool {
        let offset = offset.min(self.offsets.log_end);
        if offset <= self.offsets.high_watermark {
            return false;
        }
        self.offsets.high_watermark = offset;
        self.producers.high_watermark_moved(offset);
        self.update_last_stable();
        true
    }

    /// Brings all offsets in line with a new log start.
    pub(super) fn set_log_start(&mut self, offset: i64) {
        self.offsets.log_start = offset;
        self.offsets.local_start = self.local_start();
        self.offsets.high_watermark = self.offsets.high_watermark.max(offset);
        self.update_last_stable();
    }

    /// First offset that is here and not deleted.
    pub(super) fn local_start(&self) -> i64 {
        self.segments.front().map_or(self.offsets.log_end, |first| first.base_offset).max(self.offsets.log_start)
    }

    /// True if the producer snapshot of that offset may be asked for.
    pub(super) fn needs_snapshot(&self, offset: i64) -> bool {
        self.snapshot_offset == offset || self.segments.iter().any(|segment| segment.base_offset == offset || segment.end_offset == offset)
    }

    /// What of the log may be relied upon: whole segments up to the first that is not sealed, of that the synced part.
    pub(super) fn record(&self, id: TopicIdPartition) -> Option<PartitionRecord> {
        let sealed = self.segments.iter().take_while(|segment| segment.is_sealed()).count();
        let segments: Vec<_> =
            self.segments.iter().take(sealed + 1).filter(|segment| segment.synced_bytes > 0).map(|segment| segment.record()).collect();
        if self.deleted || (segments.is_empty() && !self.recorded) {
            return None;
        }
        let end_offset = self.segments.get(sealed).map_or(self.offsets.log_end, |open| open.synced_end);
        let epochs = self.epochs.entries().iter().filter(|entry| entry.start_offset <= end_offset).copied().collect();
        Some(PartitionRecord {
            id,
            covered_sequence: self.covered_sequence,
            log_start: self.durable_log_start,
            end_offset,
            snapshot_offset: self.snapshot_offset,
            epochs,
            cleaned_end: self.cleaned_end,
            segments,
        })
    }
}
