//! All logs of one data directory: recovery, the shared WAL, creation and deletion.

use std::path::PathBuf;
use std::sync::Arc;

use siltstone_common::{Env, TopicIdPartition};

use crate::error::LogError;
use crate::partition::{LogConfig, PartitionLog};

/// Told when a partition's `ack_end` moved (a WAL commit, or an append without flush). Called from the WAL's thread or the appender's: must not block.
pub trait LogListener: Send + Sync {
    /// `log`'s `ack_end` moved.
    fn ack_end_moved(&self, log: &Arc<PartitionLog>);
    /// The data directory went offline (I38): nothing can be appended any more.
    fn offline(&self, reason: &str);
}

/// Settings of a data directory.
#[derive(Clone, Debug)]
pub struct LogManagerConfig {
    /// The directory; created if missing.
    pub dir: PathBuf,
    /// Refuse a directory of another cluster.
    pub cluster_id: String,
    /// Bytes of one WAL file.
    pub wal_file_bytes: u64,
    /// WAL bytes that may wait for segment files before those are flushed and synced.
    pub wal_bytes_max: u64,
    /// Tail cache for all partitions, bytes: flushed batches are kept up to it.
    pub tail_cache_bytes: u64,
    /// Appends are refused while less than this is free on the disk (I40), bytes.
    pub disk_reserve_bytes: u64,
    /// `producer.id.expiration.ms`
    pub producer_expiration_ms: i64,
}

/// What recovery found.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// Partitions found.
    pub partitions: usize,
    /// Batches replayed from the WAL.
    pub wal_batches: u64,
    /// Bytes of a torn end that were cut.
    pub torn_bytes: u64,
    /// Files set aside as corrupt.
    pub quarantined: Vec<String>,
    /// True if the last stop was clean.
    pub clean: bool,
}

/// All logs of one data directory. Shared by `Arc`.
#[derive(Debug)]
pub struct LogManager {
    _private: (),
}

impl LogManager {
    /// Locks, recovers and opens the directory, and starts the WAL. Blocks: call it where that is allowed, inside a runtime.
    pub fn open(config: LogManagerConfig, env: Env) -> Result<(Arc<Self>, RecoveryReport), LogError> {
        let _ = (config, env);
        todo!()
    }

    /// Who is told of progress. Set once, before the first append.
    pub fn set_listener(&self, listener: Arc<dyn LogListener>) {
        let _ = listener;
        todo!()
    }

    /// The partition's log, made empty if there is none. Blocks.
    pub fn get_or_create(&self, id: TopicIdPartition, config: LogConfig) -> Result<Arc<PartitionLog>, LogError> {
        let _ = (id, config);
        todo!()
    }

    /// The partition's log.
    pub fn get(&self, id: TopicIdPartition) -> Option<Arc<PartitionLog>> {
        let _ = id;
        todo!()
    }

    /// All partitions with a local log.
    pub fn ids(&self) -> Vec<TopicIdPartition> {
        todo!()
    }

    /// Removes a partition's log. Blocks.
    pub fn delete(&self, id: TopicIdPartition) -> Result<(), LogError> {
        let _ = id;
        todo!()
    }

    /// Bytes used by the directory's logs and WAL.
    pub fn used_bytes(&self) -> u64 {
        todo!()
    }

    /// Flushes all, writes checkpoints and the clean-stop marker. Appends after this fail. Blocks.
    pub fn close(&self) -> Result<(), LogError> {
        todo!()
    }
}
