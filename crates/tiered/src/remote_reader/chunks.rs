//! Pieces of objects: from memory, from the SSD, else by one ranged GET each, within the cold path's own budget.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use siltstone_common::Env;
use siltstone_metadata::SegmentRow;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::RemoteReaderConfig;
use super::disk_cache::DiskCache;
use super::flights::{Flights, Seat};
use crate::store::{RemoteStore, StoreError};

/// A range of an object, named by the attempt that wrote it: unique for ever (I23).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ChunkKey {
    pub(super) attempt: Uuid,
    pub(super) start: u64,
    pub(super) len: u32,
}

/// Who wants a chunk.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// A reader that waits.
    Now,
    /// Read-ahead.
    Ahead,
}

/// What the cold path did since the start.
#[derive(Debug, Default)]
pub struct RemoteReadMetrics {
    /// Chunks found in memory.
    pub memory_hits: AtomicU64,
    /// Chunks found on the SSD.
    pub disk_hits: AtomicU64,
    /// Chunks read from the store.
    pub gets: AtomicU64,
    /// Bytes of them.
    pub bytes_from_store: AtomicU64,
    /// Bytes handed to readers.
    pub bytes_served: AtomicU64,
    /// Reads that met bytes that did not check out, and were tried again (I36).
    pub corrupt_chunks: AtomicU64,
    /// Objects that metadata calls committed and the store does not have: a human must look.
    pub missing_objects: AtomicU64,
}

#[derive(Clone)]
struct Length;

impl Weighter<ChunkKey, Bytes> for Length {
    fn weight(&self, _key: &ChunkKey, bytes: &Bytes) -> u64 {
        bytes.len() as u64 + 128
    }
}

type MemoryCache = Cache<ChunkKey, Bytes, Length, BuildHasherDefault<DefaultHasher>>;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Chunks {
    inner: Arc<Inner>,
    flights: Arc<Flights<ChunkKey, Bytes>>,
}

struct Inner {
    store: RemoteStore,
    chunk_bytes: u64,
    memory: MemoryCache,
    disk: Option<DiskCache>,
    gets: Semaphore,
    ahead: Semaphore,
    metrics: RemoteReadMetrics,
}

impl Chunks {
    pub(super) fn new(config: &RemoteReaderConfig, store: RemoteStore, env: &Env) -> Self {
        let chunk_bytes = config.chunk_bytes.clamp(64 << 10, 64 << 20);
        let gets = config.concurrent_gets.clamp(1, 4096);
        let disk = (config.disk_cache_bytes > 0)
            .then(|| DiskCache::open(config.disk_cache_dir.clone(), config.disk_cache_bytes, chunk_bytes, env.clone()))
            .flatten();
        let inner = Inner {
            store,
            chunk_bytes,
            memory: memory_cache(config.memory_cache_bytes, chunk_bytes),
            disk,
            gets: Semaphore::new(gets),
            // A quarter is kept for those who wait.
            ahead: Semaphore::new((gets * 3 / 4).max(1)),
            metrics: RemoteReadMetrics::default(),
        };
        Self { inner: Arc::new(inner), flights: Arc::new(Flights::new("load-chunk", env.clone())) }
    }

    pub(super) fn metrics(&self) -> &RemoteReadMetrics {
        &self.inner.metrics
    }

    /// Bytes of a chunk, but for the last of an object.
    pub(super) fn chunk_bytes(&self) -> u64 {
        self.inner.chunk_bytes
    }

    /// The key of the chunk of batches that holds `position`.
    pub(super) fn key_at(&self, row: &SegmentRow, position: u64) -> ChunkKey {
        let start = position - position % self.inner.chunk_bytes;
        let end = row.data_bytes.min(start + self.inner.chunk_bytes);
        ChunkKey { attempt: row.attempt, start, len: u32::try_from(end.saturating_sub(start)).unwrap_or(u32::MAX) }
    }

    /// Takes a seat in the load of a chunk, which begins if nobody has begun it. Never waits.
    pub(super) fn seat(&self, row: &Arc<SegmentRow>, key: ChunkKey, priority: Priority) -> Seat<Bytes> {
        let inner = &self.inner;
        let present = || match priority {
            Priority::Now => inner.memory.get(&key).inspect(|_| {
                inner.metrics.memory_hits.fetch_add(1, Ordering::Relaxed);
            }),
            // Read-ahead asks again and again: that must not make a chunk look wanted.
            Priority::Ahead => inner.memory.peek(&key),
        };
        self.flights.join(&key, present, || {
            let (inner, row) = (Arc::clone(inner), Arc::clone(row));
            async move { inner.load(&row, key, priority).await }
        })
    }

    /// Forgets a chunk that does not check out.
    pub(super) async fn discard(&self, key: ChunkKey) {
        self.inner.memory.remove(&key);
        if let Some(disk) = &self.inner.disk {
            disk.remove(key).await;
        }
    }
}

fn memory_cache(capacity_bytes: u64, chunk_bytes: u64) -> MemoryCache {
    // A shard must have room for many chunks, else large ones are never admitted.
    let shards = (capacity_bytes / (chunk_bytes * 32)).clamp(1, 16) as usize;
    let items = usize::try_from(capacity_bytes / chunk_bytes).unwrap_or(usize::MAX).max(16);
    let mut options = OptionsBuilder::new();
    // Half for chunks read once: read-ahead must not be evicted by what was hot an hour ago.
    options.shards(shards).estimated_items_capacity(items).weight_capacity(capacity_bytes).hot_allocation(0.5);
    match options.build() {
        Ok(options) => Cache::with_options(options, Length, BuildHasherDefault::default(), DefaultLifecycle::default()),
        Err(_) => Cache::with(items, capacity_bytes, Length, BuildHasherDefault::default(), DefaultLifecycle::default()),
    }
}

impl Inner {
    async fn load(self: Arc<Self>, row: &SegmentRow, key: ChunkKey, priority: Priority) -> Result<Bytes, StoreError> {
        if let Some(disk) = &self.disk
            && let Some(bytes) = disk.get(key).await
        {
            self.metrics.disk_hits.fetch_add(1, Ordering::Relaxed);
            self.memory.insert(key, bytes.clone());
            return Ok(bytes);
        }
        let bytes = {
            let closed = |_| StoreError::Unavailable("the remote reader is closed".to_owned());
            let _ahead = match priority {
                Priority::Now => None,
                Priority::Ahead => Some(self.ahead.acquire().await.map_err(closed)?),
            };
            let _get = self.gets.acquire().await.map_err(closed)?;
            self.metrics.gets.fetch_add(1, Ordering::Relaxed);
            self.store.get_range(&row.object_key, key.start, key.start + u64::from(key.len)).await?
        };
        self.metrics.bytes_from_store.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.memory.insert(key, bytes.clone());
        if self.disk.is_some() {
            let (inner, bytes) = (Arc::clone(&self), bytes.clone());
            self.store.env().tasks.spawn("cache-chunk", async move {
                if let Some(disk) = &inner.disk {
                    disk.put(key, bytes).await;
                }
            });
        }
        Ok(bytes)
    }
}
