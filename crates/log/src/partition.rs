//! One partition's log.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use siltstone_common::TopicIdPartition;
use siltstone_common::fs::File;
use tokio::sync::watch;

use crate::epochs::EpochEntry;
use crate::error::{AppendError, LogError, ReadError};
use crate::producers::{AbortedTxn, ProducerInfo};
use crate::segment::{SealedSegment, SegmentStat};

/// The topic settings that the log needs, under Kafka's names and with Kafka's defaults but for `flush_messages`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`
    pub segment_bytes: u64,
    /// `segment.ms`
    pub segment_ms: i64,
    /// `segment.jitter.ms`
    pub segment_jitter_ms: i64,
    /// `index.interval.bytes`
    pub index_interval_bytes: u32,
    /// `flush.messages`: 1 (our default) syncs before acknowledging; N syncs after every N records without making anyone wait.
    pub flush_messages: i64,
    /// `flush.ms`: longest time a record stays unsynced; i64::MAX for never.
    pub flush_ms: i64,
    /// `max.message.bytes`
    pub max_message_bytes: usize,
    /// `message.timestamp.type` is LogAppendTime
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms`
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`
    pub timestamp_after_max_ms: i64,
    /// `cleanup.policy` contains compact: records need keys
    pub compact: bool,
    /// `compression.type` other than producer: batches are recompressed
    pub compression: Option<crate::batch::Compression>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            segment_jitter_ms: 0,
            index_interval_bytes: 4096,
            flush_messages: 1,
            flush_ms: i64::MAX,
            max_message_bytes: 1_048_588,
            log_append_time: false,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compact: false,
            compression: None,
        }
    }
}

/// Who appends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A producer: everything is checked.
    Client,
    /// A coordinator of this broker: offsets, transaction state, markers.
    Coordinator,
}

/// Where a batch went.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct AppendInfo {
    /// First offset.
    pub first_offset: i64,
    /// Last offset; `first_offset - 1` if nothing was there to append.
    pub last_offset: i64,
    /// The broker's time if `LogAppendTime`, else -1.
    pub log_append_time_ms: i64,
    /// Log start offset then.
    pub log_start_offset: i64,
    /// True if it was there already (I18).
    pub duplicate: bool,
}

/// A consistent view of a partition's offsets (I1). All ends are exclusive.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct LogOffsets {
    /// First offset that exists in any tier.
    pub log_start: i64,
    /// First offset on the local disk.
    pub local_start: i64,
    /// No record at or above it is visible to read_committed.
    pub last_stable: i64,
    /// No record at or above it is visible.
    pub high_watermark: i64,
    /// What this replica holds under its flush policy: synced with `flush.messages=1`, else appended. Goes into the high watermark.
    pub ack_end: i64,
    /// Next offset to be written.
    pub log_end: i64,
}

/// A piece of a read: memory, or a range of a file to be sent by sendfile.
#[derive(Clone, Debug)]
pub enum LogSlice {
    /// Bytes of the tail cache.
    Memory(Bytes),
    /// A range of a hot segment. The file stays readable while held.
    File {
        /// The segment.
        file: Arc<dyn File>,
        /// First byte.
        position: u64,
        /// How many.
        len: usize,
    },
}

impl LogSlice {
    /// Bytes of the piece.
    pub fn len(&self) -> usize {
        match self {
            LogSlice::Memory(bytes) => bytes.len(),
            LogSlice::File { len, .. } => *len,
        }
    }

    /// True without bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whole batches, the first containing the asked offset.
#[derive(Clone, Debug, Default)]
pub struct LogRead {
    /// The pieces in order.
    pub slices: Vec<LogSlice>,
    /// Sum of their lengths.
    pub size_bytes: usize,
    /// First offset after the last batch read; the asked offset if nothing was.
    pub next_offset: i64,
}

/// One partition's log. Shared by `Arc`; all methods take `&self`. Appends are serialised by an inner lock that is never held across I/O
/// other than what is documented at the method.
#[derive(Debug)]
pub struct PartitionLog {
    _private: (),
}

impl PartitionLog {
    /// Which partition.
    pub fn id(&self) -> TopicIdPartition {
        todo!()
    }

    /// Validates a producer's batches (`records` holds one or more), stamps offsets and `leader_epoch` in place, and puts them into the tail
    /// cache and the WAL's queue. Returns at once: the record is durable when [`LogOffsets::ack_end`] passes it (see [`PartitionLog::subscribe`]).
    pub fn append_as_leader(&self, records: BytesMut, leader_epoch: i32, origin: AppendOrigin) -> Result<AppendInfo, AppendError> {
        let _ = (records, leader_epoch, origin);
        todo!()
    }

    /// Appends batches fetched from the leader as they are; their offsets must follow ours (I7).
    pub fn append_as_follower(&self, records: Bytes) -> Result<AppendInfo, AppendError> {
        let _ = records;
        todo!()
    }

    /// Reads whole batches from the one that contains `offset`, at most `max_bytes`, all below `upper_bound` (exclusive: high watermark,
    /// last stable offset or log end). With `at_least_one`, the first batch comes even if larger. Only from memory: `None` if the
    /// offset lies in a segment file, and [`PartitionLog::read`] is to be called where blocking is allowed.
    pub fn read_tail(&self, offset: i64, max_bytes: usize, at_least_one: bool, upper_bound: i64) -> Result<Option<LogRead>, ReadError> {
        let _ = (offset, max_bytes, at_least_one, upper_bound);
        todo!()
    }

    /// As [`PartitionLog::read_tail`], from segment files too. Blocks on the disk (index look-up and a few headers).
    pub fn read(&self, offset: i64, max_bytes: usize, at_least_one: bool, upper_bound: i64) -> Result<LogRead, ReadError> {
        let _ = (offset, max_bytes, at_least_one, upper_bound);
        todo!()
    }

    /// Aborted transactions that overlap `[from, to)`, from local segments.
    pub fn aborted_transactions(&self, from: i64, to: i64) -> Result<Vec<AbortedTxn>, ReadError> {
        let _ = (from, to);
        todo!()
    }

    /// The first record at or above `from` with a timestamp >= `timestamp_ms`: (timestamp, offset, leader epoch). Local part only. Blocks.
    pub fn offset_for_timestamp(&self, timestamp_ms: i64, from: i64) -> Result<Option<(i64, i64, i32)>, ReadError> {
        let _ = (timestamp_ms, from);
        todo!()
    }

    /// The first record with the largest timestamp of the local part: (timestamp, offset, leader epoch). Blocks.
    pub fn max_timestamp(&self) -> Result<Option<(i64, i64, i32)>, ReadError> {
        todo!()
    }

    /// The offsets now.
    pub fn offsets(&self) -> LogOffsets {
        todo!()
    }

    /// Changes whenever any of the offsets does.
    pub fn subscribe(&self) -> watch::Receiver<LogOffsets> {
        todo!()
    }

    /// Raises the high watermark (never lowers it, never past the log end).
    pub fn raise_high_watermark(&self, offset: i64) {
        let _ = offset;
        todo!()
    }

    /// Raises the log start (DeleteRecords, retention): durable before it returns. Blocks.
    pub fn raise_log_start(&self, offset: i64) -> Result<(), LogError> {
        let _ = offset;
        todo!()
    }

    /// Leader epochs known here.
    pub fn leader_epochs(&self) -> Vec<EpochEntry> {
        todo!()
    }

    /// See [`crate::epochs::LeaderEpochCache::end_offset_for`].
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let _ = epoch;
        todo!()
    }

    /// Notes that this broker leads from now on in `epoch`: the epoch begins at the log end with its first batch.
    pub fn begin_leader_epoch(&self, epoch: i32) {
        let _ = epoch;
        todo!()
    }

    /// Active producers (DescribeProducers).
    pub fn producers(&self) -> Vec<ProducerInfo> {
        todo!()
    }

    /// Local segments, oldest first; the last is the active one.
    pub fn segments(&self) -> Vec<SegmentStat> {
        todo!()
    }

    /// Bytes on this disk (segments and unflushed tail).
    pub fn local_size_bytes(&self) -> u64 {
        todo!()
    }

    /// Seals the active segment if it is due by time (`segment.ms`, from the first record's append), or at once with `force`. Empty segments never roll. Blocks.
    pub fn roll(&self, force: bool) -> Result<bool, LogError> {
        let _ = force;
        todo!()
    }

    /// Sealed segments with `base_offset >= from` that lie wholly below min(high watermark, last stable offset) (I22), oldest first, at most `limit`. Blocks.
    pub fn uploadable(&self, from: i64, limit: usize) -> Result<Vec<SealedSegment>, LogError> {
        let _ = (from, limit);
        todo!()
    }

    /// Removes sealed segments whose last offset is below `offset` from the local disk; the caller has made sure that they are committed
    /// remotely or below the log start (I26). Returns bytes freed. Blocks.
    pub fn delete_local_below(&self, offset: i64) -> Result<u64, LogError> {
        let _ = offset;
        todo!()
    }

    /// Removes everything at or above `offset` (I15). Blocks.
    pub fn truncate_to(&self, offset: i64) -> Result<(), LogError> {
        let _ = offset;
        todo!()
    }

    /// Forgets all local data and starts anew at `offset`, with epochs and producer state from the remote tier (I32). `log_start` is the first
    /// offset that exists remotely. Blocks.
    pub fn reset_to(&self, log_start: i64, offset: i64, epochs: Vec<EpochEntry>, producer_snapshot: &[u8]) -> Result<(), LogError> {
        let _ = (log_start, offset, epochs, producer_snapshot);
        todo!()
    }

    /// Takes new settings.
    pub fn set_config(&self, config: LogConfig) {
        let _ = config;
        todo!()
    }
}
