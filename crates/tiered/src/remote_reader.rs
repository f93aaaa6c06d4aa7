//! Reads offsets that live only in the bucket.

use std::sync::Arc;

use bytes::Bytes;
use siltstone_common::{Env, TopicIdPartition};
use siltstone_log::epochs::EpochEntry;
use siltstone_log::producers::AbortedTxn;
use siltstone_metadata::{MetadataApi, MetadataError};
use thiserror::Error;

use crate::store::{RemoteStore, StoreError};

/// Limits of the cold path: its own memory and disk, so that cold readers never move the hot path.
#[derive(Clone, Debug)]
pub struct RemoteReaderConfig {
    /// Bytes of one chunk (one ranged GET).
    pub chunk_bytes: u64,
    /// Chunks in memory, bytes.
    pub memory_cache_bytes: u64,
    /// Chunks on the SSD, bytes; 0 for none.
    pub disk_cache_bytes: u64,
    /// Directory of the SSD cache.
    pub disk_cache_dir: std::path::PathBuf,
    /// GETs in flight for all readers.
    pub concurrent_gets: usize,
    /// Read-ahead per reader, bytes at most (grows from one chunk).
    pub read_ahead_bytes_max: u64,
}

/// Whole batches from the bucket.
#[derive(Clone, Debug, Default)]
pub struct RemoteRead {
    /// Raw batches, the first containing the asked offset.
    pub slices: Vec<Bytes>,
    /// Sum of their lengths.
    pub size_bytes: usize,
    /// First offset after the last batch read; the asked one if nothing was.
    pub next_offset: i64,
    /// Aborted transactions that overlap what was read.
    pub aborted: Vec<AbortedTxn>,
}

/// A remote read failed.
#[derive(Debug, Error)]
pub enum RemoteReadError {
    /// No committed segment holds the offset (any more): OFFSET_OUT_OF_RANGE after checking the log start (I28).
    #[error("no remote segment holds offset {0}")]
    NotFound(i64),
    /// The bucket.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The metadata service.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

/// What an empty replica takes from the bucket (I32).
#[derive(Clone, Debug, Default)]
pub struct RemoteTail {
    /// Leader epochs of the whole remote range, as far as known.
    pub leader_epochs: Vec<EpochEntry>,
    /// Producer state as of the remote end.
    pub producer_snapshot: Bytes,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct RemoteReader {
    _private: Arc<()>,
}

impl RemoteReader {
    /// A reader over `store`.
    pub fn new(config: RemoteReaderConfig, store: RemoteStore, metadata: Arc<dyn MetadataApi>, env: Env) -> Self {
        let _ = (config, store, metadata, env);
        todo!()
    }

    /// Reads whole batches from the one that contains `offset`, at most `max_bytes` (the first batch comes even if larger when `at_least_one`).
    /// May cross segments. Work goes on into the cache when the future is dropped.
    pub async fn read(
        &self,
        id: TopicIdPartition,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<RemoteRead, RemoteReadError> {
        let _ = (id, offset, max_bytes, at_least_one);
        todo!()
    }

    /// The first remote record at or above `from` with timestamp >= `timestamp_ms`: (timestamp, offset, leader epoch).
    pub async fn offset_for_timestamp(
        &self,
        id: TopicIdPartition,
        timestamp_ms: i64,
        from: i64,
    ) -> Result<Option<(i64, i64, i32)>, RemoteReadError> {
        let _ = (id, timestamp_ms, from);
        todo!()
    }

    /// The first remote record with the largest timestamp.
    pub async fn max_timestamp(&self, id: TopicIdPartition) -> Result<Option<(i64, i64, i32)>, RemoteReadError> {
        let _ = id;
        todo!()
    }

    /// From the footer of the last committed segment; `None` if nothing is remote.
    pub async fn tail(&self, id: TopicIdPartition) -> Result<Option<RemoteTail>, RemoteReadError> {
        let _ = id;
        todo!()
    }
}
