//! What compaction needs of a partition: how dirty it is, its segments, and the exchange of old ones for a cleaned one.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use siltstone_common::Env;
use siltstone_common::fs::File;

use super::PartitionLog;
use super::state::LogState;
use crate::cleaner::{Cleanable, CleanerConfig};
use crate::error::{LogError, ReadError};
use crate::index::position_for_offset;
use crate::producers::{AbortedTxn, LastRecord};
use crate::segment::{Phase, Segment, SegmentName, Walker};

/// Where a pass works.
#[derive(Debug)]
pub(crate) struct Scope {
    /// Sealed segments below everything that may not be cleaned yet, oldest first.
    pub(crate) segments: Vec<Segment>,
    /// What lies below was cleaned already.
    pub(crate) first_dirty: i64,
    /// False if part of the log, below these, is only in the bucket.
    pub(crate) is_whole: bool,
    /// Changes when records are thrown away.
    pub(crate) incarnation: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) index_interval_bytes: u32,
}

impl PartitionLog {
    /// How dirty the log is, as Kafka's `LogToClean` has it. Reads indexes if `max_compaction_lag_ms` is set. Blocks.
    ///
    /// # Errors
    /// [`ReadError::Io`] and [`ReadError::Corrupt`].
    pub fn cleanable(&self, config: &CleanerConfig) -> Result<Cleanable, ReadError> {
        let now_ms = self.shared.env.clock.now_ms();
        let scope = self.scope(config);
        let bytes = |dirty: bool| {
            let fits = |segment: &&Segment| (segment.end_offset > scope.first_dirty) == dirty;
            scope.segments.iter().filter(fits).map(|segment| segment.size_bytes).sum()
        };
        let mut cleanable = Cleanable { clean_bytes: bytes(false), dirty_bytes: bytes(true), overdue_ms: 0 };
        if config.max_compaction_lag_ms < i64::MAX && cleanable.dirty_bytes > 0 {
            let due = now_ms.saturating_sub(config.max_compaction_lag_ms);
            for segment in scope.segments.iter().filter(|segment| segment.end_offset > scope.first_dirty) {
                let first_ms = self.index_on_disk(segment.name())?.first().map_or(-1, |first| first.max_timestamp_ms);
                if first_ms > 0 {
                    cleanable.overdue_ms = cleanable.overdue_ms.max(due.saturating_sub(first_ms));
                }
            }
        }
        Ok(cleanable)
    }

    pub(crate) fn scope(&self, config: &CleanerConfig) -> Scope {
        let min_compaction_lag_ms = config.min_compaction_lag_ms;
        let now_ms = self.shared.env.clock.now_ms();
        let state = self.state.lock();
        let bound = state.offsets.last_stable.min(state.offsets.high_watermark).min(config.offset_max);
        let too_young =
            |segment: &Segment| min_compaction_lag_ms > 0 && segment.max_timestamp_ms > now_ms.saturating_sub(min_compaction_lag_ms);
        let first_dirty = state.cleaned_end.max(state.offsets.local_start);
        let ready = |segment: &&Segment| {
            let settled = segment.phase == Phase::Durable && segment.end_offset <= bound;
            // What was cleaned before is there to be cleaned again, however young.
            settled && (segment.end_offset <= first_dirty || !too_young(segment))
        };
        Scope {
            segments: state.segments.iter().take_while(ready).cloned().collect(),
            first_dirty,
            is_whole: state.offsets.local_start <= state.offsets.log_start,
            incarnation: state.incarnation,
            segment_bytes: state.config.segment_bytes,
            index_interval_bytes: state.config.index_interval_bytes,
        }
    }

    pub(crate) fn env(&self) -> &Env {
        &self.shared.env
    }

    pub(crate) fn segments_dir(&self) -> PathBuf {
        self.dir()
    }

    /// The newest record of each producer.
    pub(crate) fn last_records(&self) -> HashMap<i64, LastRecord> {
        self.state.lock().producers.last_records()
    }

    /// A segment's file, to be read.
    pub(crate) fn open_segment(&self, name: SegmentName) -> Result<Arc<dyn File>, ReadError> {
        Ok(self.shared.files.open(self.shared.env.fs.as_ref(), self.id, name, &self.dir())?)
    }

    /// The position of an indexed batch at or below `offset`.
    pub(crate) fn position_below(&self, segment: &Segment, offset: i64) -> Result<u64, ReadError> {
        if offset <= segment.base_offset {
            return Ok(0);
        }
        Ok(position_for_offset(&self.index_on_disk(segment.name())?, offset))
    }

    /// How often segments were exchanged for cleaned ones since the log was opened.
    pub fn cleanings(&self) -> u64 {
        self.state.lock().cleanings
    }

    /// Keeps of the aborted transactions those that have a batch in a cleaned segment: one whose batches and marker are gone must not be named, or its
    /// producer's next transaction would be taken for it. Those that ended behind it stay, too: what follows may be lost, and they are what tells then
    /// how the transactions that are open at its end came out.
    pub(super) fn keep_present(&self, segment: &Segment, aborted: &mut Vec<AbortedTxn>) -> Result<(), ReadError> {
        let mut walker = Walker::new(self.open_segment(segment.name())?, segment.size_bytes);
        let (mut position, mut present) = (0, HashSet::new());
        while let Some(header) = walker.header_at(position, segment.base_offset)? {
            position += header.total_len() as u64;
            let of = |txn: &AbortedTxn| {
                txn.producer_id == header.producer_id && (txn.first_offset..=txn.last_offset).contains(&header.base_offset)
            };
            if header.is_transactional() {
                present.extend(aborted.iter().filter(|txn| of(txn)).map(|txn| (txn.producer_id, txn.last_offset)));
            }
        }
        aborted.retain(|txn| txn.last_offset >= segment.end_offset || present.contains(&(txn.producer_id, txn.last_offset)));
        Ok(())
    }

    /// Puts `cleaned`, complete on disk, in the place of `old`, and removes the files of these; false, and nothing changes, if they are not
    /// all there any more. After an error it is in their place, too, and the background goes on, but a restart may find them again. Readers in
    /// between have either. Blocks.
    pub(crate) fn replace_segments(&self, old: &[Segment], cleaned: Segment) -> Result<bool, LogError> {
        let mut io = self.io.lock();
        {
            let mut state = self.state.lock();
            if !state.exchange(old, cleaned) {
                return Ok(false);
            }
        }
        io.doomed.extend_from_slice(old);
        self.record_in_manifest()?;
        self.remove_doomed_files(&mut io, "clean.recorded")?;
        Ok(true)
    }

    /// Notes, durably, that everything below `offset` was cleaned, if nothing was thrown away since `incarnation`. Blocks.
    pub(crate) fn set_cleaned(&self, offset: i64, incarnation: u64) -> Result<(), LogError> {
        let _io = self.io.lock();
        {
            let mut state = self.state.lock();
            if state.deleted || state.incarnation != incarnation {
                return Ok(());
            }
            state.cleaned_end = offset;
        }
        self.record_in_manifest()
    }
}

impl LogState {
    fn exchange(&mut self, old: &[Segment], cleaned: Segment) -> bool {
        let at = self.segments.iter().position(|segment| old.first().is_some_and(|first| first.name() == segment.name()));
        let Some(at) = at.filter(|_| !self.deleted) else {
            return false;
        };
        let range = at..at + old.len();
        let same = |(ours, old): (&Segment, &Segment)| {
            ours.name() == old.name() && ours.phase == Phase::Durable && ours.end_offset == old.end_offset
        };
        if range.end > self.segments.len() || !self.segments.range(range.clone()).zip(old).all(same) {
            return false;
        }
        let end_offset = cleaned.end_offset;
        self.segments.drain(range);
        self.segments.insert(at, cleaned);
        self.cleanings += 1;
        self.tail.evict(end_offset, self.written_end);
        true
    }
}
