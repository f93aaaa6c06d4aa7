//! One partition's log.
//!
//! # Overview
//! Appended batches go to the tail cache and, in the same order, into the queue of the shared WAL; from the tail they are written
//! to the active segment's file in large writes, in the background (`flush`). A roll closes the active segment in memory; the
//! background completes its file, writes index, aborted transactions and producer snapshot beside it, and then the manifest
//! says that it is sealed. Everything that the manifest says of a partition is derived here ([`PartitionLog::manifest_record`]).
//!
//! # Locks
//! `state` serialises appends and is never held across I/O. `io` serialises what changes files (flush, seal, truncation, deletion)
//! and is held across it. Order: `io`, then the manifest's lock, then `state`, then the WAL's queue.
//!
//! # Invariants
//! I1 and I7 hold after each change of the state. A chunk leaves the tail only when it is in the segment file. Offsets below
//! `synced_end` of the manifest's record are in synced segment files; what is above is in the WAL or was not acknowledged.
//!
//! # Crash consistency
//! The manifest's record is the truth of what the files hold; what they hold beyond it is cut off at recovery and comes again from the WAL.

mod append;
mod clean;
mod flush;
mod lookup;
mod maintain;
mod open;
mod read;
mod rebuild;
mod state;

pub(crate) use clean::Scope;
pub(crate) use open::Recovered;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use siltstone_common::TopicIdPartition;
use siltstone_common::fs::File;
use tokio::sync::watch;

use crate::epochs::EpochEntry;
use crate::manifest::record::Record;
use crate::producers::{ProducerInfo, VerificationGuard};
use crate::segment::{Phase, SegmentStat};
use crate::shared::Shared;
use state::LogState;

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
    /// `max.compaction.lag.ms`: a compacted log's active segment is sealed by then
    pub max_compaction_lag_ms: i64,
    /// `compression.type` other than producer: batches are recompressed
    pub compression: Option<crate::batch::Compression>,
    /// `compression.gzip.level` or `compression.zstd.level`, whichever `compression` wants; `None` for the codec's default
    pub compression_level: Option<i32>,
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
            max_compaction_lag_ms: i64::MAX,
            compression: None,
            compression_level: None,
        }
    }
}

/// Who appends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A producer: everything is checked.
    Client,
    /// A producer whose transaction begins here; its coordinator was asked (see [`PartitionLog::begin_verification`]).
    VerifiedClient(VerificationGuard),
    /// A coordinator of this broker: groups, offsets, transaction state.
    Coordinator,
    /// The group coordinator, with offsets of a transaction that begins here; its coordinator was asked.
    VerifiedCoordinator(VerificationGuard),
    /// The marker of a transaction's end.
    Marker {
        /// Level of `transaction.version` at which the client ended it: from 2 on the marker must bring a newer epoch than the data.
        transaction_version: i16,
    },
}

impl AppendOrigin {
    /// True for producers.
    pub fn is_client(self) -> bool {
        matches!(self, Self::Client | Self::VerifiedClient(_))
    }

    /// The guard that the append brings.
    pub(crate) fn guard(self) -> Option<VerificationGuard> {
        match self {
            Self::VerifiedClient(guard) | Self::VerifiedCoordinator(guard) => Some(guard),
            Self::Client | Self::Coordinator | Self::Marker { .. } => None,
        }
    }
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
    /// What this replica holds under its flush policy: synced with `flush.messages=1`, else written to the WAL (so that it survives a
    /// kill of the process, but not a power loss). Goes into the high watermark.
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
    /// Which state of a compacted log it is of: see [`PartitionLog::aborted_in`].
    pub(crate) cleanings: u64,
}

/// One partition's log. Shared by `Arc`; all methods take `&self`. Appends are serialised by an inner lock that is never held across I/O
/// other than what is documented at the method.
#[derive(Debug)]
pub struct PartitionLog {
    id: TopicIdPartition,
    shared: Arc<Shared>,
    me: Weak<PartitionLog>,
    state: Mutex<LogState>,
    io: Mutex<flush::IoState>,
    offsets: watch::Sender<LogOffsets>,
    flush_requested: AtomicBool,
}

impl PartitionLog {
    fn with_state(id: TopicIdPartition, shared: Arc<Shared>, state: LogState) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            id,
            shared,
            me: Weak::clone(me),
            offsets: watch::Sender::new(state.offsets),
            state: Mutex::new(state),
            io: Mutex::default(),
            flush_requested: AtomicBool::new(false),
        })
    }

    /// Which partition.
    pub fn id(&self) -> TopicIdPartition {
        self.id
    }

    /// The offsets now.
    pub fn offsets(&self) -> LogOffsets {
        *self.offsets.borrow()
    }

    /// Wakes whenever any of the offsets but the log end moved.
    pub fn subscribe(&self) -> watch::Receiver<LogOffsets> {
        self.offsets.subscribe()
    }

    /// Completes when the WAL has room for more, or appends are refused: to be awaited before an append, so that a slow disk slows producers
    /// down instead of filling the memory.
    pub async fn ready(&self) {
        self.shared.wal.room(&self.shared.health).await;
    }

    /// Raises the high watermark (never lowers it, never past the log end).
    pub fn raise_high_watermark(&self, offset: i64) {
        let mut state = self.state.lock();
        if state.raise_high_watermark(offset) {
            self.publish(&state);
        }
    }

    /// Leader epochs known here.
    pub fn leader_epochs(&self) -> Vec<EpochEntry> {
        self.state.lock().epochs.entries().to_vec()
    }

    /// See [`crate::epochs::LeaderEpochCache::end_offset_for`].
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let state = self.state.lock();
        state.epochs.end_offset_for(epoch, state.offsets.log_end)
    }

    /// Wakes all subscribers though no offset has moved: something else that they wait for did.
    pub fn wake_subscribers(&self) {
        self.offsets.send_modify(|_| {});
    }

    /// True if the data directory is offline (I38).
    pub fn is_offline(&self) -> bool {
        self.shared.health.is_offline()
    }

    /// Notes that this broker leads from now on in `epoch`: the epoch begins at the log end, as Kafka has it. An epoch that is not
    /// the newest says nothing new (I16).
    pub fn begin_leader_epoch(&self, epoch: i32) {
        let mut state = self.state.lock();
        if state.epochs.latest_epoch().is_some_and(|latest| latest > epoch) {
            return;
        }
        let log_end = state.offsets.log_end;
        state.epochs.assign(epoch, log_end);
    }

    /// Active producers (DescribeProducers).
    pub fn producers(&self) -> Vec<ProducerInfo> {
        self.state.lock().producers.list()
    }

    /// A guard for a transactional batch that would begin a transaction here, to be had before the coordinator is asked and brought with the append;
    /// `None` if the transaction is open already. `producer` is id and epoch; `sequence` is the batch's first, -1 without; `bumps_epoch`: the client
    /// speaks transactions version 2 (KIP-890).
    pub fn begin_verification(&self, producer: (i64, i16), sequence: i32, bumps_epoch: bool) -> Option<VerificationGuard> {
        let now_ms = self.shared.env.clock.now_ms();
        self.state.lock().producers.begin_verification(producer, sequence, bumps_epoch, now_ms)
    }

    /// Local segments, oldest first; the last is the active one.
    pub fn segments(&self) -> Vec<SegmentStat> {
        self.state.lock().segments.iter().map(|segment| segment.stat()).collect()
    }

    /// Bytes on this disk (segments and unflushed tail).
    pub fn local_size_bytes(&self) -> u64 {
        self.state.lock().segments.iter().map(|segment| segment.size_bytes).sum()
    }

    /// Takes new settings.
    pub fn set_config(&self, config: LogConfig) {
        self.state.lock().config = Arc::new(config);
    }

    /// Called by the WAL when entries up to `end_offset` are as safe as the flush policy asks. If that is news, the listener is told, who mostly
    /// raises the high watermark, and then who waits is woken: once, as each time is a switch of threads.
    pub(crate) fn committed(&self, incarnation: u64, end_offset: i64) {
        let high_watermark = {
            let mut state = self.state.lock();
            if state.incarnation != incarnation || end_offset <= state.offsets.ack_end {
                return;
            }
            state.offsets.ack_end = end_offset;
            self.publish_quietly(&state);
            state.offsets.high_watermark
        };
        if let (Some(listener), Some(me)) = (self.shared.listener.get(), self.me.upgrade()) {
            listener.0.ack_end_moved(&me);
        }
        if self.offsets().high_watermark == high_watermark {
            self.wake_subscribers();
        }
    }

    /// Drops tail chunks up to `end_offset`; false if they are not in the segment file yet.
    pub(crate) fn evict_tail(&self, end_offset: i64) -> bool {
        let mut state = self.state.lock();
        let written_end = state.written_end;
        state.tail.evict(end_offset, written_end)
    }

    /// The first WAL entry that the manifest does not cover yet.
    pub(crate) fn first_uncovered(&self) -> Option<u64> {
        self.state.lock().first_uncovered
    }

    /// Forgets producers that are idle for too long.
    pub(crate) fn expire_producers(&self, now_ms: i64, expiration_ms: i64) {
        self.state.lock().producers.expire(now_ms, expiration_ms);
    }

    /// What may be relied upon, for the manifest; `None` if nothing has to be kept.
    pub(crate) fn manifest_record(&self) -> Option<Record> {
        self.state.lock().record(self.id).map(Record::Partition)
    }

    /// True if a rolled segment waits to be completed.
    pub(crate) fn wants_seal(&self) -> bool {
        self.state.lock().has_closing()
    }

    /// True if segments are sealed that the manifest does not have so.
    pub(crate) fn has_unrecorded(&self) -> bool {
        self.state.lock().segments.iter().any(|segment| segment.phase == Phase::Sealed)
    }

    /// True if so much waits for the segment file that it is to be written.
    pub(crate) fn wants_flush(&self) -> bool {
        self.state.lock().wants_flush()
    }

    /// True if the flusher is to be told, that is, if it does not know yet.
    pub(crate) fn mark_flush_requested(&self) -> bool {
        !self.flush_requested.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn clear_flush_requested(&self) {
        self.flush_requested.store(false, Ordering::Release);
    }

    fn publish(&self, state: &LogState) {
        let offsets = &state.offsets;
        debug_assert!(offsets.log_start <= offsets.last_stable, "I1: {offsets:?}");
        debug_assert!(offsets.last_stable <= offsets.high_watermark, "I1: {offsets:?}");
        debug_assert!(offsets.high_watermark <= offsets.log_end, "I1: {offsets:?}");
        self.offsets.send_replace(state.offsets);
    }

    /// Shows what nobody is to be woken for: of an append what a client may see moves with the high watermark.
    fn publish_quietly(&self, state: &LogState) {
        self.offsets.send_if_modified(|offsets| {
            *offsets = state.offsets;
            false
        });
    }
}
