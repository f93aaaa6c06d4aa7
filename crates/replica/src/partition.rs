//! One partition as this broker serves it: its log, its settings, what of it is remote, and who waits for it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use siltstone_common::TopicIdPartition;
use siltstone_common::entropy::Entropy;
use siltstone_common::retry::Backoff;
use siltstone_log::{LogConfig, LogOffsets, PartitionLog};
use siltstone_metadata::configs::TopicConfig;
use siltstone_metadata::{RemoteExtent, SegmentRow};
use tokio::sync::Notify;

use crate::error::ReplicaError;

const UPLOAD_RETRY_MIN: Duration = Duration::from_secs(1);
const UPLOAD_RETRY_MAX: Duration = Duration::from_secs(30);

/// What the broker is to a partition, after the newest image that was looked at.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Standing {
    /// It leads it.
    Leader,
    /// Another broker does, or none.
    NotLeader,
    /// There is no such partition any more.
    Deleted,
}

/// When a partition's upload may be tried again.
#[derive(Debug)]
struct UploadRetry {
    backoff: Backoff,
    /// Monotonic time.
    not_before: Duration,
}

/// One partition as this broker serves it.
#[derive(Debug)]
pub struct Partition {
    id: TopicIdPartition,
    log: Arc<PartitionLog>,
    config: ArcSwap<TopicConfig>,
    /// As last read from, or written to, committed metadata: never ahead of it (I26).
    remote: Mutex<RemoteExtent>,
    /// The oldest committed segment, and the extent that it was read at.
    oldest_remote: Mutex<Option<(RemoteExtent, SegmentRow)>>,
    waiters: Mutex<Waiters>,
    /// A [`Standing`].
    standing: AtomicU8,
    /// Held by the one roll at work on the partition.
    pub(crate) rolling: Arc<tokio::sync::Mutex<()>>,
    /// Held by the one upload at work on the partition.
    pub(crate) uploading: Arc<tokio::sync::Mutex<()>>,
    upload_retry: Mutex<UploadRetry>,
    /// Which state of a compacted log the bucket has: see [`PartitionLog::cleanings`].
    mirrored: AtomicU64,
    /// Which state of it the bucket refused.
    mirror_refused: AtomicU64,
    /// Held by the one retention pass at work on the partition.
    pub(crate) retaining: tokio::sync::Mutex<()>,
}

/// Fetches that wait for the partition. A waiter that went away leaves a dead entry, swept when the list has doubled.
#[derive(Debug, Default)]
struct Waiters {
    list: Vec<Weak<Notify>>,
    sweep_at: usize,
}

impl Partition {
    pub(crate) fn new(id: TopicIdPartition, log: Arc<PartitionLog>, config: TopicConfig, remote: RemoteExtent) -> Self {
        Self {
            id,
            log,
            config: ArcSwap::from_pointee(config),
            remote: Mutex::new(remote),
            oldest_remote: Mutex::default(),
            waiters: Mutex::new(Waiters::default()),
            standing: AtomicU8::new(Standing::Leader as u8),
            rolling: Arc::default(),
            uploading: Arc::default(),
            upload_retry: Mutex::new(UploadRetry { backoff: Backoff::new(UPLOAD_RETRY_MIN, UPLOAD_RETRY_MAX), not_before: Duration::ZERO }),
            // Not known before the first look.
            mirrored: AtomicU64::new(u64::MAX),
            mirror_refused: AtomicU64::new(u64::MAX),
            retaining: tokio::sync::Mutex::new(()),
        }
    }

    /// Which partition.
    pub fn id(&self) -> TopicIdPartition {
        self.id
    }

    /// Its local log.
    pub fn log(&self) -> &Arc<PartitionLog> {
        &self.log
    }

    /// Its topic's settings.
    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.load_full()
    }

    /// Takes new settings.
    pub(crate) fn set_config(&self, config: TopicConfig) {
        if **self.config.load() != config {
            self.log.set_config(log_config(&config));
            self.config.store(Arc::new(config));
        }
    }

    /// True if the bucket has what compaction left of the log.
    pub(crate) fn is_mirrored(&self) -> bool {
        self.mirrored.load(Ordering::Acquire) == self.log.cleanings()
    }

    /// Notes that the bucket has the log as it was after so many cleanings.
    pub(crate) fn set_mirrored(&self, cleanings: u64) {
        self.mirrored.store(cleanings, Ordering::Release);
    }

    /// True if the bucket refused a segment of the log as compaction left it: to offer it again is of no use.
    pub(crate) fn is_mirror_refused(&self) -> bool {
        self.mirror_refused.load(Ordering::Acquire) == self.log.cleanings()
    }

    /// Notes that the bucket refused a segment of the log as it was after so many cleanings.
    pub(crate) fn set_mirror_refused(&self, cleanings: u64) {
        self.mirror_refused.store(cleanings, Ordering::Release);
    }

    /// What of it is in the bucket, as committed.
    pub fn remote(&self) -> RemoteExtent {
        *self.remote.lock()
    }

    /// Takes what metadata says, if it is not older than what is known: answers may overtake each other.
    pub(crate) fn set_remote(&self, extent: RemoteExtent) {
        let mut remote = self.remote.lock();
        if extent.remote_end >= remote.remote_end && extent.log_start >= remote.log_start {
            *remote = extent;
        }
    }

    /// The oldest committed segment of `extent`, if it is known.
    pub(crate) fn oldest_remote(&self, extent: RemoteExtent) -> Option<SegmentRow> {
        let known = self.oldest_remote.lock();
        known.as_ref().filter(|(at, _)| *at == extent).map(|(_, row)| row.clone())
    }

    pub(crate) fn set_oldest_remote(&self, extent: RemoteExtent, row: Option<&SegmentRow>) {
        *self.oldest_remote.lock() = row.map(|row| (extent, row.clone()));
    }

    /// Takes note of what the broker is to the partition, and lets everyone who waits for it know.
    pub(crate) fn set_standing(&self, standing: Standing) {
        if self.standing.swap(standing as u8, Ordering::AcqRel) != standing as u8 {
            self.wake_all();
        }
    }

    /// Wakes fetches and produces that wait for the partition.
    pub(crate) fn wake_all(&self) {
        self.log.wake_subscribers();
        self.wake();
    }

    /// Why nothing more will be committed here, if so.
    pub(crate) fn halted(&self) -> Option<ReplicaError> {
        match self.standing.load(Ordering::Acquire) {
            standing if standing == Standing::Deleted as u8 => Some(ReplicaError::UnknownPartition),
            standing if standing == Standing::NotLeader as u8 => Some(ReplicaError::NotLeader),
            _ if self.log.is_offline() => Some(ReplicaError::Storage("the log directory is offline".to_owned())),
            _ => None,
        }
    }

    /// True if an upload that failed has waited long enough.
    pub(crate) fn may_upload(&self, now: Duration) -> bool {
        now >= self.upload_retry.lock().not_before
    }

    /// The next upload may be tried at once.
    pub(crate) fn upload_succeeded(&self) {
        self.upload_retry.lock().backoff.reset();
    }

    /// The next upload waits.
    pub(crate) fn upload_failed(&self, now: Duration, entropy: &dyn Entropy) {
        let mut retry = self.upload_retry.lock();
        retry.not_before = now + retry.backoff.next_delay(entropy);
    }

    /// `waiter` is notified at the next progress.
    pub(crate) fn add_waiter(&self, waiter: &Arc<Notify>) {
        let mut waiters = self.waiters.lock();
        if waiters.list.len() >= waiters.sweep_at {
            waiters.list.retain(|waiter| waiter.strong_count() > 0);
            waiters.sweep_at = (waiters.list.len() * 2).max(8);
        }
        waiters.list.push(Arc::downgrade(waiter));
    }

    /// Wakes every fetch that waits for the partition.
    pub(crate) fn wake(&self) {
        let waiting = std::mem::take(&mut self.waiters.lock().list);
        for waiter in waiting {
            if let Some(waiter) = waiter.upgrade() {
                waiter.notify_one();
            }
        }
    }

    /// Raises the high watermark to what every in-sync replica holds (I4) and wakes those who wait. This broker is the only replica.
    pub(crate) fn advance_high_watermark(&self) {
        let offsets = self.log.offsets();
        if offsets.ack_end > offsets.high_watermark {
            self.log.raise_high_watermark(offsets.ack_end);
            self.wake();
        }
    }

    /// The log's offsets.
    pub fn offsets(&self) -> LogOffsets {
        self.log.offsets()
    }
}

/// The part of a topic's settings that the log needs.
pub(crate) fn log_config(config: &TopicConfig) -> LogConfig {
    use siltstone_log::batch::Compression;
    LogConfig {
        segment_bytes: u64::try_from(config.segment_bytes).unwrap_or(0),
        segment_ms: config.segment_ms,
        segment_jitter_ms: config.segment_jitter_ms,
        index_interval_bytes: u32::try_from(config.index_interval_bytes).unwrap_or(0),
        flush_messages: config.flush_messages,
        flush_ms: config.flush_ms,
        max_message_bytes: usize::try_from(config.max_message_bytes).unwrap_or(0),
        log_append_time: config.log_append_time,
        timestamp_before_max_ms: config.message_timestamp_before_max_ms,
        timestamp_after_max_ms: config.message_timestamp_after_max_ms,
        compact: config.compact,
        max_compaction_lag_ms: config.max_compaction_lag_ms,
        compression: match config.compression_type.as_str() {
            "uncompressed" => Some(Compression::None),
            "gzip" => Some(Compression::Gzip),
            "snappy" => Some(Compression::Snappy),
            "lz4" => Some(Compression::Lz4),
            "zstd" => Some(Compression::Zstd),
            _ => None,
        },
        compression_level: match config.compression_type.as_str() {
            "gzip" if config.compression_gzip_level > 0 => Some(config.compression_gzip_level),
            "zstd" => Some(config.compression_zstd_level),
            _ => None,
        },
    }
}
