//! Chunks on the SSD: one file each, named by what it holds. The names are the index, so recovery is one listing; nothing is synced, as a
//! lost or torn file costs a GET and nothing else: length and CRC-64 in the name tell a good file from a bad one.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};
use siltstone_common::Env;
use siltstone_common::fs::OpenMode;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::chunks::ChunkKey;

/// Writes at a time; more are left out, so that a fast reader can't take the disk from the hot path.
const WRITES_IN_FLIGHT: usize = 2;
/// The cache is spread over so many directories.
const DIRECTORIES: u8 = 16;

/// Eviction collects what went, and its files are removed by whoever inserted.
#[derive(Clone)]
struct Evicted;

impl Lifecycle<ChunkKey, u64> for Evicted {
    type RequestState = Vec<(ChunkKey, u64)>;

    fn on_evict(&self, state: &mut Self::RequestState, key: ChunkKey, checksum: u64) {
        state.push((key, checksum));
    }
}

#[derive(Clone)]
struct Length;

impl Weighter<ChunkKey, u64> for Length {
    fn weight(&self, key: &ChunkKey, _checksum: &u64) -> u64 {
        u64::from(key.len)
    }
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct DiskCache {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    directory: PathBuf,
    /// Chunk to the CRC-64 of its file.
    index: Cache<ChunkKey, u64, Length, BuildHasherDefault<DefaultHasher>, Evicted>,
    writes: Semaphore,
    usable: AtomicBool,
}

fn file_name(key: &ChunkKey, checksum: u64) -> String {
    format!("{}-{}-{}-{checksum:016x}.chunk", key.attempt.as_simple(), key.start, key.len)
}

fn parse_file_name(name: &str) -> Option<(ChunkKey, u64)> {
    let mut fields = name.strip_suffix(".chunk")?.split('-');
    let attempt = Uuid::parse_str(fields.next()?).ok()?;
    let key = ChunkKey { attempt, start: fields.next()?.parse().ok()?, len: fields.next()?.parse().ok()? };
    let checksum = u64::from_str_radix(fields.next()?, 16).ok()?;
    fields.next().is_none().then_some((key, checksum))
}

fn checksum(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

impl DiskCache {
    /// A cache of `capacity_bytes` in `directory`, made if missing. Names of an earlier run are read in the background.
    pub(super) fn open(directory: PathBuf, capacity_bytes: u64, chunk_bytes: u64, env: Env) -> Option<Self> {
        let items = usize::try_from(capacity_bytes / chunk_bytes.max(1)).unwrap_or(usize::MAX).max(16);
        let options = OptionsBuilder::new().shards(1).estimated_items_capacity(items).weight_capacity(capacity_bytes).build().ok()?;
        let index = Cache::with_options(options, Length, BuildHasherDefault::default(), Evicted);
        let writes = Semaphore::new(WRITES_IN_FLIGHT);
        let inner = Arc::new(Inner { env: env.clone(), directory, index, writes, usable: AtomicBool::new(false) });
        let cache = Self { inner: Arc::clone(&inner) };
        env.tasks.spawn("recover-chunk-cache", async move {
            let tasks = inner.env.tasks.clone();
            tasks.blocking(move || inner.recover()).await;
        });
        Some(cache)
    }

    /// The chunk, if it is there and whole.
    pub(super) async fn get(&self, key: ChunkKey) -> Option<Bytes> {
        let stated = self.inner.index.get(&key)?;
        let inner = Arc::clone(&self.inner);
        let bytes = self.inner.env.tasks.blocking(move || inner.read(&key, stated)).await.flatten();
        if bytes.is_none() {
            self.inner.index.remove(&key);
        }
        bytes
    }

    /// Writes a chunk, unless the disk is busy with others.
    pub(super) async fn put(&self, key: ChunkKey, bytes: Bytes) {
        let Ok(_permit) = self.inner.writes.try_acquire() else { return };
        if !self.inner.usable.load(Ordering::Relaxed) || self.inner.index.contains_key(&key) {
            return;
        }
        let inner = Arc::clone(&self.inner);
        self.inner.env.tasks.blocking(move || inner.write(key, &bytes)).await;
    }

    /// Forgets a chunk that turned out to be bad.
    pub(super) async fn remove(&self, key: ChunkKey) {
        if let Some((key, checksum)) = self.inner.index.remove(&key) {
            let inner = Arc::clone(&self.inner);
            self.inner.env.tasks.blocking(move || inner.remove_file(&key, checksum)).await;
        }
    }
}

impl Inner {
    fn path(&self, key: &ChunkKey, checksum: u64) -> PathBuf {
        let spread = key.attempt.as_bytes()[0] % DIRECTORIES;
        self.directory.join(format!("{spread:02x}")).join(file_name(key, checksum))
    }

    fn recover(&self) {
        let mut chunks = 0_usize;
        for spread in 0..DIRECTORIES {
            let directory = self.directory.join(format!("{spread:02x}"));
            let listed = self.env.fs.create_dir_all(&directory).and_then(|()| self.env.fs.read_dir(&directory));
            let names = match listed {
                Ok(names) => names,
                Err(error) => {
                    tracing::warn!(directory = %directory.display(), %error, "no chunk cache on disk: reads go to the object store");
                    return;
                }
            };
            for entry in names {
                match parse_file_name(&entry.name) {
                    Some((key, checksum)) if u64::from(key.len) == entry.len => {
                        chunks += 1;
                        self.admit(key, checksum);
                    }
                    // Torn by a crash, or not ours: only what bears our suffix is removed.
                    _ if entry.name.ends_with(".chunk") => {
                        let _ = self.env.fs.remove_file(&directory.join(&entry.name));
                    }
                    _ => {}
                }
            }
        }
        self.usable.store(true, Ordering::Relaxed);
        tracing::debug!(chunks, directory = %self.directory.display(), "chunk cache ready");
    }

    fn admit(&self, key: ChunkKey, checksum: u64) {
        let mut evicted = Vec::new();
        self.index.insert_with_lifecycle(key, checksum, &mut evicted);
        for (key, checksum) in evicted {
            self.remove_file(&key, checksum);
        }
    }

    fn remove_file(&self, key: &ChunkKey, checksum: u64) {
        let _ = self.env.fs.remove_file(&self.path(key, checksum));
    }

    fn read(&self, key: &ChunkKey, stated: u64) -> Option<Bytes> {
        let file = self.env.fs.open(&self.path(key, stated), OpenMode::Read).ok()?;
        let mut bytes = vec![0; key.len as usize];
        file.read_exact_at(&mut bytes, 0).ok()?;
        if checksum(&bytes) == stated {
            return Some(Bytes::from(bytes));
        }
        tracing::warn!(chunk = ?key, "a cached chunk on the local disk is damaged, reading it from the object store");
        self.remove_file(key, stated);
        None
    }

    fn write(&self, key: ChunkKey, bytes: &Bytes) {
        let checksum = checksum(bytes);
        let path = self.path(&key, checksum);
        let written = self.env.fs.open(&path, OpenMode::Truncate).and_then(|file| file.write_all_at(bytes, 0));
        match written {
            Ok(()) => self.admit(key, checksum),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "could not cache a chunk on disk");
                self.remove_file(&key, checksum);
            }
        }
    }
}
