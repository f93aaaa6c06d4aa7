//! One partition as this broker serves it: its log, its settings, what of it is remote, and who waits for it.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use siltstone_common::TopicIdPartition;
use siltstone_log::{LogConfig, LogOffsets, PartitionLog};
use siltstone_metadata::RemoteExtent;
use siltstone_metadata::configs::TopicConfig;
use tokio::sync::Notify;

/// One partition as this broker serves it.
#[derive(Debug)]
pub struct Partition {
    id: TopicIdPartition,
    log: Arc<PartitionLog>,
    config: ArcSwap<TopicConfig>,
    /// As last read from, or written to, committed metadata: never ahead of it (I26).
    remote: Mutex<RemoteExtent>,
    waiters: Mutex<Waiters>,
    /// Held by the one upload or retention pass at work on the partition.
    pub(crate) maintenance: tokio::sync::Mutex<()>,
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
            waiters: Mutex::new(Waiters::default()),
            maintenance: tokio::sync::Mutex::new(()),
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

    /// What of it is in the bucket, as committed.
    pub fn remote(&self) -> RemoteExtent {
        *self.remote.lock()
    }

    pub(crate) fn set_remote(&self, extent: RemoteExtent) {
        *self.remote.lock() = extent;
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
        compression: match config.compression_type.as_str() {
            "uncompressed" => Some(Compression::None),
            "gzip" => Some(Compression::Gzip),
            "snappy" => Some(Compression::Snappy),
            "lz4" => Some(Compression::Lz4),
            "zstd" => Some(Compression::Zstd),
            _ => None,
        },
    }
}
