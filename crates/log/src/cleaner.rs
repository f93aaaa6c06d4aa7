//! Compaction: of each key only the newest record stays (`cleanup.policy=compact`).
//!
//! # Overview
//! A pass ([`PartitionLog::begin_cleaning`]) has two halves. The first reads the dirty segments, which no pass has seen, and notes the newest
//! offset of each key in a bounded map; when that is full, the pass goes as far as it got, and the next one goes on. The second reads all
//! segments from the begin up to there and writes what stays ([`filter`]) into one new segment for each group of old ones that together are not
//! above `segment.bytes`. The work comes in steps of a few MiB, so that whoever drives it can keep to an I/O budget and stop in between.
//! Only sealed segments below the last stable offset take part.
//!
//! # Invariants
//! Offsets, order, leader epochs and the log start never change; each segment ends where its group ended. Producer state is not touched:
//! the snapshot at a group's end stays, and the last batch of an active producer is kept, empty if need be (I17).
//!
//! # Cancellation
//! A [`Cleaning`] may be dropped after any step. Groups that were exchanged stay so; the unfinished file goes.
//!
//! # Crash consistency
//! A cleaned segment is written under a name of its own (`.cleaned`), synced with what stands beside it, renamed to `<base>.<generation>.log`, the
//! directory synced; then one manifest record exchanges it for its group, and the old files go. Before the record the old segments count,
//! after it the new one; what is not in the manifest is removed at the next start. How far the log is clean is in the same record.

pub(crate) mod filter;
pub(crate) mod offset_map;
pub(crate) mod reader;
pub(crate) mod transactions;
pub(crate) mod writer;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::batch::BatchError;
use crate::error::{LogError, ReadError};
use crate::partition::{PartitionLog, Scope};
use crate::producers::LastRecord;
use crate::records::{inflate, records};
use crate::segment::Segment;
use crate::validate::INFLATED_BYTES_MAX;
use filter::{Filter, Kept};
use offset_map::OffsetMap;
use reader::SegmentReader;
use transactions::Transactions;
use writer::CleanedWriter;

/// Segments merged into one by a pass: in the bucket, one transaction of the segment map must be able to exchange them.
const GROUP_SEGMENTS_MAX: usize = 40;
/// Bytes read by one step.
const STEP_BYTES: u64 = 4 << 20;

/// Settings of a pass, under the names of Kafka's topic and broker settings.
#[derive(Clone, Debug, PartialEq)]
pub struct CleanerConfig {
    /// `min.compaction.lag.ms`
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
    /// Nothing at or above takes part, whatever else allows it.
    pub offset_max: i64,
    /// `log.cleaner.dedupe.buffer.size`, this pass's share
    pub dedupe_buffer_bytes: usize,
    /// `log.cleaner.io.buffer.load.factor`
    pub load_factor: f64,
    /// `log.cleaner.io.buffer.size`, this pass's share: one half to read, one to write
    pub io_buffer_bytes: usize,
}

impl Default for CleanerConfig {
    fn default() -> Self {
        Self {
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 86_400_000,
            offset_max: i64::MAX,
            dedupe_buffer_bytes: 128 << 20,
            load_factor: 0.9,
            io_buffer_bytes: 512 << 10,
        }
    }
}

/// How dirty a log is.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleanable {
    /// Bytes of segments that were cleaned.
    pub clean_bytes: u64,
    /// Bytes of segments that may be cleaned and were not yet.
    pub dirty_bytes: u64,
    /// By how much the oldest of these is past `max.compaction.lag.ms`; 0 if it is not.
    pub overdue_ms: i64,
}

impl Cleanable {
    /// The dirty share of all that may be cleaned.
    pub fn dirty_ratio(&self) -> f64 {
        let total = self.clean_bytes + self.dirty_bytes;
        if total == 0 { 0.0 } else { self.dirty_bytes as f64 / total as f64 }
    }

    /// True if a pass is due.
    pub fn is_due(&self, min_cleanable_dirty_ratio: f64) -> bool {
        self.dirty_bytes > 0 && (self.overdue_ms > 0 || self.dirty_ratio() > min_cleanable_dirty_ratio)
    }
}

/// A pass failed.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// Segments were removed or cut meanwhile: nothing is wrong, a later pass begins anew.
    #[error("the log changed meanwhile")]
    Changed,
    /// A segment can't be read or does not check out: no pass will get through it.
    #[error("segment {base_offset}: {reason}")]
    Corrupt {
        /// Its first offset.
        base_offset: i64,
        /// What is wrong.
        reason: String,
    },
    /// Writing failed; a later pass may get through.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What a pass did.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct CleaningStats {
    /// Bytes read in both halves.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Bytes of the segments that were gone through.
    pub bytes_before: u64,
    /// Bytes that are left of them.
    pub bytes_after: u64,
    /// Segments before and after.
    pub segments: (usize, usize),
    /// How full the map of keys got, of 1.
    pub map_utilization: f64,
    /// Offset up to which the log is clean now.
    pub cleaned_end: i64,
}

/// A pass under way.
#[derive(Debug)]
pub struct Cleaning {
    log: Arc<PartitionLog>,
    config: CleanerConfig,
    scope: Scope,
    map: OffsetMap,
    transactions: Transactions,
    phase: Phase,
    buffer: Vec<u8>,
    now_ms: i64,
    stats: CleaningStats,
}

#[derive(Debug)]
enum Phase {
    /// Reading dirty segments from the first of these on.
    Mapping {
        left: VecDeque<Segment>,
        reader: Option<SegmentReader>,
    },
    /// Writing groups anew.
    Writing {
        left: VecDeque<Vec<Segment>>,
        group: Option<Box<Group>>,
    },
    Done,
}

/// A group of segments on its way into one.
#[derive(Debug)]
struct Group {
    old: Vec<Segment>,
    /// The one that is read.
    at: usize,
    reader: SegmentReader,
    writer: CleanedWriter,
    changed: bool,
    last_records: HashMap<i64, LastRecord>,
}

impl PartitionLog {
    /// Begins a pass; `None` if nothing is dirty.
    pub fn begin_cleaning(self: &Arc<Self>, config: CleanerConfig) -> Option<Cleaning> {
        let scope = self.scope(&config);
        let left: VecDeque<Segment> = scope.segments.iter().filter(|segment| segment.end_offset > scope.first_dirty).cloned().collect();
        if left.is_empty() {
            return None;
        }
        let env = self.env();
        let secrets = std::array::from_fn(|_| env.entropy.next_u64());
        Some(Cleaning {
            log: Arc::clone(self),
            map: OffsetMap::new(config.dedupe_buffer_bytes, config.load_factor, secrets),
            transactions: Transactions::default(),
            phase: Phase::Mapping { left, reader: None },
            buffer: Vec::new(),
            now_ms: env.clock.now_ms(),
            stats: CleaningStats::default(),
            scope,
            config,
        })
    }
}

impl Cleaning {
    /// Does the next piece of the work; the bytes read and written by it. Blocks.
    ///
    /// # Errors
    /// See [`CleanError`]; the pass is over then, and the log as it was or cleaned in part.
    pub fn step(&mut self) -> Result<u64, CleanError> {
        let before = self.stats.bytes_read + self.stats.bytes_written;
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Mapping { left, reader } => self.phase = self.map_some(left, reader)?,
            Phase::Writing { left, group } => self.phase = self.write_some(left, group)?,
            Phase::Done => {}
        }
        Ok(self.stats.bytes_read + self.stats.bytes_written - before)
    }

    /// True once the pass is over.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// What it did so far.
    pub fn stats(&self) -> CleaningStats {
        self.stats
    }

    fn map_some(&mut self, mut left: VecDeque<Segment>, reader: Option<SegmentReader>) -> Result<Phase, CleanError> {
        let Some(segment) = left.front() else {
            return self.begin_writing();
        };
        let mut reader = match reader {
            Some(reader) => reader,
            None => {
                let range = (self.scope.first_dirty.max(segment.base_offset), segment.end_offset);
                let aborted = self.log.aborted_transactions(range.0, range.1).map_err(|error| read_error(segment, error))?;
                self.transactions.add_aborted(aborted);
                let position = self.log.position_below(segment, self.scope.first_dirty).map_err(|error| read_error(segment, error))?;
                self.open(segment, position)?
            }
        };
        let io_before = self.stats.bytes_read;
        while self.stats.bytes_read - io_before < STEP_BYTES {
            let Some((header, batch)) = reader.next().map_err(|error| read_error(segment, error))? else {
                self.map.seen(segment.end_offset - 1);
                self.buffer = reader.into_buffer();
                left.pop_front();
                return Ok(Phase::Mapping { left, reader: None });
            };
            let aborted = match header.is_control() {
                true => self.transactions.control_batch(&header, batch),
                false => self.transactions.data_batch(&header),
            };
            if !aborted && !header.is_control() {
                let noted = note_keys(&header, batch, self.scope.first_dirty, &mut self.map);
                if !noted.map_err(|error| corrupt(segment, &error))? {
                    self.buffer = reader.into_buffer();
                    return self.begin_writing();
                }
            }
            self.map.seen(header.last_offset());
            self.stats.bytes_read += reader.take_read_bytes();
        }
        Ok(Phase::Mapping { left, reader: Some(reader) })
    }

    fn open(&mut self, segment: &Segment, position: u64) -> Result<SegmentReader, CleanError> {
        let file = self.log.open_segment(segment.name()).map_err(|error| read_error(segment, error))?;
        let buffer = std::mem::take(&mut self.buffer);
        Ok(SegmentReader::new(file, segment, position, (self.config.io_buffer_bytes / 2).max(1), buffer))
    }

    /// The second half, up to where the map reaches.
    fn begin_writing(&mut self) -> Result<Phase, CleanError> {
        self.stats.map_utilization = self.map.utilization();
        self.stats.cleaned_end = self.map.latest_offset() + 1;
        self.transactions = Transactions::default();
        let reached = self.scope.segments.iter().take_while(|segment| segment.base_offset < self.stats.cleaned_end);
        let left = groups(reached, self.scope.segment_bytes);
        tracing::debug!(
            id = %self.log.id(), from = self.scope.first_dirty, to = self.stats.cleaned_end, keys = self.map.len(), groups = left.len(),
            "keys are noted, segments are written anew"
        );
        Ok(Phase::Writing { left, group: None })
    }

    fn write_some(&mut self, mut left: VecDeque<Vec<Segment>>, group: Option<Box<Group>>) -> Result<Phase, CleanError> {
        let mut group = match group {
            Some(group) => group,
            None => match left.pop_front() {
                Some(old) => Box::new(self.begin_group(old)?),
                None => {
                    self.log.set_cleaned(self.stats.cleaned_end, self.scope.incarnation)?;
                    return Ok(Phase::Done);
                }
            },
        };
        match self.clean_some(&mut group) {
            Ok(false) => Ok(Phase::Writing { left, group: Some(group) }),
            Ok(true) => {
                self.finish_group(*group)?;
                Ok(Phase::Writing { left, group: None })
            }
            Err(error) => Err(error),
        }
    }

    fn begin_group(&mut self, old: Vec<Segment>) -> Result<Group, CleanError> {
        let Some(first) = old.first() else { return Err(CleanError::Changed) };
        // Should no timestamp be left, it is as old as what it was made of.
        let age = |segment: &Segment| if segment.max_timestamp_ms >= 0 { segment.max_timestamp_ms } else { segment.first_append_ms };
        let first_append_ms = old.iter().map(age).max().unwrap_or(-1);
        // Above that of all it is made of: what is left of these is known by it.
        let generation = old.iter().map(|segment| segment.generation).max().unwrap_or(0) + 1;
        let empty = Segment { generation, first_append_ms, ..Segment::new(first.base_offset) };
        self.note_aborted(first)?;
        let reader = self.open(first, 0)?;
        let env = self.log.env();
        let io_bytes = self.config.io_buffer_bytes / 2;
        let writer = CleanedWriter::create(Arc::clone(&env.fs), self.log.segments_dir(), empty, io_bytes, self.scope.index_interval_bytes)?;
        let changed = old.len() > 1;
        Ok(Group { at: 0, reader, writer, changed, last_records: self.log.last_records(), old })
    }

    fn note_aborted(&mut self, segment: &Segment) -> Result<(), CleanError> {
        let aborted = self.log.aborted_transactions(segment.base_offset, segment.end_offset).map_err(|error| read_error(segment, error))?;
        self.transactions.add_aborted(aborted);
        Ok(())
    }

    /// True once the whole group was read.
    fn clean_some(&mut self, group: &mut Group) -> Result<bool, CleanError> {
        let Some(end_offset) = group.old.last().map(|last| last.end_offset) else { return Ok(true) };
        let io_before = self.stats.bytes_read;
        while self.stats.bytes_read - io_before < STEP_BYTES {
            let segment = &group.old[group.at];
            let Some((header, batch)) = group.reader.next().map_err(|error| read_error(segment, error))? else {
                group.at += 1;
                let Some(next) = group.old.get(group.at).cloned() else { return Ok(true) };
                self.note_aborted(&next)?;
                let reader = self.open(&next, 0)?;
                self.buffer = std::mem::replace(&mut group.reader, reader).into_buffer();
                continue;
            };
            let mut filter = Filter {
                map: &self.map,
                transactions: &mut self.transactions,
                last_records: &group.last_records,
                now_ms: self.now_ms,
                delete_retention_ms: self.config.delete_retention_ms,
                is_whole: self.scope.is_whole,
            };
            let from = group.writer.buffer().len();
            let is_last = header.next_offset() == end_offset;
            let kept = filter.apply(&header, batch, is_last, group.writer.buffer()).map_err(|error| corrupt(segment, &error))?;
            group.changed |= kept == Kept::Changed;
            group.writer.added(from)?;
            self.stats.bytes_read += group.reader.take_read_bytes();
            self.stats.bytes_written += group.writer.take_written_bytes();
        }
        Ok(false)
    }

    fn finish_group(&mut self, group: Group) -> Result<(), CleanError> {
        let Group { old, reader, mut writer, changed, .. } = group;
        self.buffer = reader.into_buffer();
        let aborted = self.transactions.take_kept();
        let before: u64 = old.iter().map(|segment| segment.size_bytes).sum();
        self.stats.segments.0 += old.len();
        self.stats.segments.1 += 1;
        self.stats.bytes_before += before;
        if !changed {
            self.stats.bytes_after += before;
            return Ok(());
        }
        let cleaned = writer.finish(&aborted)?;
        debug_assert_eq!(Some(cleaned.end_offset), old.last().map(|last| last.end_offset), "a cleaned segment ends where its group did");
        self.stats.bytes_after += cleaned.size_bytes;
        match self.log.replace_segments(&old, cleaned) {
            Ok(false) => Err(CleanError::Changed),
            // Even if that could not be recorded: readers have the new segment now.
            exchanged => {
                writer.keep();
                Ok(exchanged.map(drop)?)
            }
        }
    }
}

/// Notes the keys of a batch from `first_dirty` on; false if the map has no room for all of them.
fn note_keys(header: &crate::batch::BatchHeader, batch: &[u8], first_dirty: i64, map: &mut OffsetMap) -> Result<bool, BatchError> {
    let body = inflate(header, batch, INFLATED_BYTES_MAX)?;
    for record in records(header, &body) {
        let record = record?;
        let Some(key) = record.key.filter(|_| record.offset >= first_dirty) else { continue };
        if map.is_full() {
            return Ok(false);
        }
        map.put(key, record.offset);
    }
    Ok(true)
}

/// Neighbours that together are no larger than a segment may be, and whose offsets fit one (32 bits above its base).
fn groups<'a>(segments: impl Iterator<Item = &'a Segment>, segment_bytes: u64) -> VecDeque<Vec<Segment>> {
    let mut groups: VecDeque<Vec<Segment>> = VecDeque::new();
    let mut bytes = 0;
    for segment in segments {
        let group = groups.back().filter(|group| group.len() < GROUP_SEGMENTS_MAX);
        let joins = group.and_then(|group| Some((group.first()?, group.last()?))).is_some_and(|(first, last)| {
            let fits = bytes + segment.size_bytes <= segment_bytes && segment.end_offset - 1 - first.base_offset <= i64::from(i32::MAX);
            fits && last.end_offset == segment.base_offset
        });
        match groups.back_mut().filter(|_| joins) {
            Some(group) => group.push(segment.clone()),
            None => {
                groups.push_back(vec![segment.clone()]);
                bytes = 0;
            }
        }
        bytes += segment.size_bytes;
    }
    groups
}

/// A segment that is gone was removed by retention; anything else is damage.
fn read_error(segment: &Segment, error: ReadError) -> CleanError {
    match error {
        ReadError::NotLocal { .. } | ReadError::OutOfRange { .. } => CleanError::Changed,
        ReadError::Io(error) if error.kind() == io::ErrorKind::NotFound => CleanError::Changed,
        error if error.is_damage() => corrupt(segment, &error),
        error => CleanError::Log(error.into_log_error(Path::new(&format!("{}.log", segment.name())))),
    }
}

fn corrupt(segment: &Segment, reason: &dyn std::fmt::Display) -> CleanError {
    CleanError::Corrupt { base_offset: segment.base_offset, reason: reason.to_string() }
}

#[cfg(test)]
mod tests;
