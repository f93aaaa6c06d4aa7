//! Reads offsets that live only in the bucket.
//!
//! # Overview
//! A read is planned from rows ([`rows`]): they say which objects hold which offsets, and how large they are. The object's own index gives the
//! position within it. All chunks that the read needs are asked for at once, and those of the read-ahead window behind them ([`streams`]);
//! then batches are walked and checked over the chunks in order ([`walker`]) and handed out without a copy, but for those that two chunks share.
//!
//! # Invariants
//! - No batch is served whose CRC or offset does not check out (I36); a bad chunk is read again once, then it is an error.
//! - GETs, memory and disk of the cold path are its own and bounded ([`RemoteReaderConfig`]); nothing of the hot path waits for them.
//! - A missing object of a committed row is an alarm, never an empty answer.
//!
//! # Cancellation
//! Loads run in tasks of their own: when a reader's time is over, the work goes on into the cache, and the next try finds it there.
//!
//! # Crash consistency
//! Nothing here must survive. The chunk cache on disk is checked chunk by chunk when it is read.

mod chunks;
mod disk_cache;
mod flights;
mod lookups;
mod rows;
mod streams;
mod walker;

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use siltstone_common::tasks::Tasks;
use siltstone_common::{Env, TopicIdPartition};
use siltstone_log::epochs::EpochEntry;
use siltstone_log::producers::AbortedTxn;
use siltstone_metadata::{MetadataApi, MetadataError, SegmentRow};
use thiserror::Error;
use uuid::Uuid;

use crate::object::{ObjectTail, TAIL_BYTES_MAX};
use crate::store::{RemoteStore, StoreError};
use chunks::{ChunkKey, Chunks, Priority};
use flights::{Flights, Seat};
use rows::Rows;
use streams::{Place, Streams};
use walker::{FetchSink, Sink, Walker};

pub use chunks::RemoteReadMetrics;

/// More than this is never returned by one read, whatever was asked for.
const READ_BYTES_MAX: usize = 64 << 20;
/// Memory for indexes and footers.
const TAIL_CACHE_BYTES: u64 = 32 << 20;

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

impl Default for RemoteReaderConfig {
    /// Fast enough for a replay at 700 MB/s from a store that gives 90 MB/s per connection; no SSD cache.
    fn default() -> Self {
        Self {
            chunk_bytes: 4 << 20,
            memory_cache_bytes: 256 << 20,
            disk_cache_bytes: 0,
            disk_cache_dir: std::path::PathBuf::new(),
            concurrent_gets: 32,
            read_ahead_bytes_max: 96 << 20,
        }
    }
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

impl RemoteReadError {
    /// True if the same read may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            RemoteReadError::NotFound(_) => false,
            RemoteReadError::Store(error) => error.retryable(),
            RemoteReadError::Metadata(error) => error.retryable(),
        }
    }
}

/// What an empty replica takes from the bucket (I32).
#[derive(Clone, Debug, Default)]
pub struct RemoteTail {
    /// Leader epochs of the whole remote range, as far as known.
    pub leader_epochs: Vec<EpochEntry>,
    /// Producer state as of the remote end.
    pub producer_snapshot: Bytes,
    /// Aborted transactions of the last segment. All that are open in the producer state are decided (I22): those that are here were aborted.
    pub aborted: Vec<AbortedTxn>,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct RemoteReader {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct TailWeight;

impl Weighter<Uuid, Arc<ObjectTail>> for TailWeight {
    fn weight(&self, _attempt: &Uuid, tail: &Arc<ObjectTail>) -> u64 {
        (tail.index.len() * 24 + tail.aborted.len() * 32 + tail.leader_epochs.len() * 16 + tail.producer_snapshot.len() + 256) as u64
    }
}

type TailCache = Cache<Uuid, Arc<ObjectTail>, TailWeight, BuildHasherDefault<DefaultHasher>>;

struct Inner {
    rows: Rows,
    chunks: Chunks,
    tails: Arc<TailCache>,
    tail_flights: Flights<Uuid, Arc<ObjectTail>>,
    streams: Mutex<Streams>,
    metadata: Arc<dyn MetadataApi>,
    tasks: Tasks,
}

/// Chunks that a read touched, for the case that they do not check out.
type Touched = Vec<ChunkKey>;

/// Chunks asked for and not walked yet, in order.
type Seats = VecDeque<(ChunkKey, Seat<Bytes>)>;

/// What a Fetch of one partition asks for.
#[derive(Copy, Clone)]
struct Want {
    id: TopicIdPartition,
    offset: i64,
    max_bytes: usize,
    at_least_one: bool,
    /// Bytes to read ahead.
    window: u64,
    /// Where `offset` is, if it is known.
    place: Option<Place>,
}

impl RemoteReader {
    /// A reader over `store`.
    pub fn new(config: RemoteReaderConfig, store: RemoteStore, metadata: Arc<dyn MetadataApi>, env: Env) -> Self {
        let chunks = Chunks::new(&config, store, &env);
        // The other half of the memory is for what was read already and may be read again.
        let streams = Streams::new(chunks.chunk_bytes(), config.read_ahead_bytes_max, config.memory_cache_bytes / 2);
        let tails = Cache::with(1024, TAIL_CACHE_BYTES, TailWeight, BuildHasherDefault::default(), DefaultLifecycle::default());
        let tasks = env.tasks.clone();
        let inner = Inner {
            rows: Rows::new(Arc::clone(&metadata), env.clone()),
            chunks,
            tails: Arc::new(tails),
            tail_flights: Flights::new("load-segment-index", env),
            streams: Mutex::new(streams),
            metadata,
            tasks,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Counters since the start.
    pub fn metrics(&self) -> &RemoteReadMetrics {
        self.inner.chunks.metrics()
    }

    /// Reads whole batches from the one that contains `offset`, at most `max_bytes` (the first batch comes even if larger when `at_least_one`).
    /// May cross segments. Work goes on into the cache when the future is dropped.
    ///
    /// # Errors
    /// `NotFound` if no committed segment holds the offset; `Store` with `Corrupt` or `NotFound` if the object is damaged or missing, which is
    /// logged for a human; else what may pass.
    pub async fn read(
        &self,
        id: TopicIdPartition,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<RemoteRead, RemoteReadError> {
        // Walking and checking the batches takes its time too: never on the threads of the hot path.
        let reader = self.clone();
        let read = self.inner.tasks.run(async move { reader.read_here(id, offset, max_bytes, at_least_one).await });
        read.await.unwrap_or_else(|| Err(StoreError::Unavailable("the read was given up".to_owned()).into()))
    }

    async fn read_here(
        &self,
        id: TopicIdPartition,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<RemoteRead, RemoteReadError> {
        let inner = &self.inner;
        let (window, place) = inner.streams.lock().window(id, offset);
        let want = Want { id, offset, max_bytes: max_bytes.min(READ_BYTES_MAX), at_least_one, window, place };
        let mut trial = Trial::new(id);
        let (read, place) = loop {
            let result = inner.read_once(want, &mut trial.touched).await;
            if let Some(verdict) = trial.judge(inner, result).await {
                break verdict?;
            }
        };
        if read.next_offset > offset {
            inner.streams.lock().ended(id, offset, read.next_offset, place);
            inner.chunks.metrics().bytes_served.fetch_add(read.size_bytes as u64, Ordering::Relaxed);
        }
        Ok(read)
    }
}

/// Damaged bytes or a missing object are believed only the second time: the first time, all that was used is forgotten and read again.
struct Trial {
    id: TopicIdPartition,
    touched: Touched,
    second: bool,
}

impl Trial {
    fn new(id: TopicIdPartition) -> Self {
        Self { id, touched: Touched::new(), second: false }
    }

    /// The result to be believed; `None` to try again.
    async fn judge<T>(&mut self, inner: &Inner, result: Result<T, RemoteReadError>) -> Option<Result<T, RemoteReadError>> {
        let id = self.id;
        let Err(RemoteReadError::Store(error @ (StoreError::Corrupt { .. } | StoreError::NotFound(_)))) = &result else {
            return Some(result);
        };
        let metrics = inner.chunks.metrics();
        if self.second {
            if let StoreError::NotFound(key) = error {
                metrics.missing_objects.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%id, key, "an object is missing that metadata calls committed: its records are lost unless the bucket can restore it");
            } else {
                tracing::error!(%id, %error, "a remote segment is damaged and is not served");
            }
            return Some(result);
        }
        self.second = true;
        if matches!(error, StoreError::Corrupt { .. }) {
            metrics.corrupt_chunks.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%id, %error, "bytes from the object store do not check out, reading them again");
        }
        inner.rows.forget(id);
        for key in std::mem::take(&mut self.touched) {
            inner.chunks.discard(key).await;
            inner.tails.remove(&key.attempt);
        }
        None
    }
}

impl Inner {
    /// What was read, and the place of the batch after it.
    async fn read_once(&self, want: Want, touched: &mut Touched) -> Result<(RemoteRead, Place), RemoteReadError> {
        let Want { id, offset, .. } = want;
        let mut row = self.rows.holding(id, offset).await?.ok_or(RemoteReadError::NotFound(offset))?;
        let mut used = vec![Arc::clone(&row)];
        let mut walker = match want.place.filter(|place| place.attempt == row.attempt) {
            Some(place) => Walker::new(place.position, offset, row.data_bytes),
            None => self.walker_at(&row, offset, touched).await?,
        };
        let mut seats = self.launch(id, &row, walker.position(), want.max_bytes as u64, want.window);
        let mut sink = FetchSink::new(offset, want.max_bytes, want.at_least_one);
        while self.walk(&row, &mut walker, &mut seats, &mut sink, touched).await? && !sink.is_full() {
            let next = row.last_offset + 1;
            // Something to answer with is there: no waiting for metadata to find more.
            let following = if sink.is_empty() { self.rows.holding(id, next).await? } else { self.rows.cached(id, next) };
            let Some(following) = following.filter(|following| following.base_offset == next) else { break };
            if sink.is_empty() {
                used.clear();
            } else if following.generation > 0 && used.iter().any(|row| row.has_aborts) {
                // Compaction may have taken the markers there of transactions that are listed here: an answer that held both would hide from
                // the client what their producers committed later.
                break;
            }
            walker = Walker::new(0, next, following.data_bytes);
            used.push(Arc::clone(&following));
            row = following;
        }
        let place = Place { attempt: row.attempt, position: walker.batch_position() };
        let mut read = sink.finish();
        read.aborted = self.aborted(&used, offset, read.next_offset, touched).await?;
        Ok((read, place))
    }

    /// A walker that stands at or before the batch that holds `offset`.
    async fn walker_at(&self, row: &Arc<SegmentRow>, offset: i64, touched: &mut Touched) -> Result<Walker, RemoteReadError> {
        if offset <= row.base_offset {
            return Ok(Walker::new(0, row.base_offset, row.data_bytes));
        }
        let tail = self.tail_of(row, touched).await?;
        Ok(self.walker_from(row, &tail, tail.position_of(offset)))
    }

    /// A walker at an indexed position.
    fn walker_from(&self, row: &SegmentRow, tail: &ObjectTail, position: u64) -> Walker {
        let at = tail.index.partition_point(|entry| entry.position < position);
        let base_offset = tail.index.get(at).map_or(row.base_offset, |entry| entry.base_offset);
        Walker::new(position, base_offset, row.data_bytes)
    }

    /// Asks for all chunks of the next `bytes`, keeping seats for them, and for those of the `window` behind. Never waits.
    fn launch(&self, id: TopicIdPartition, row: &Arc<SegmentRow>, position: u64, bytes: u64, window: u64) -> Seats {
        let mut seats = Seats::new();
        let (mut row, mut position, mut ahead) = (Arc::clone(row), position, 0);
        while ahead < bytes + window {
            let key = self.chunks.key_at(&row, position);
            if ahead < bytes {
                seats.push_back((key, self.chunks.seat(&row, key, Priority::Now)));
            } else {
                drop(self.chunks.seat(&row, key, Priority::Ahead));
                if row.has_aborts && position == 0 {
                    drop(self.tail_seat(&row));
                }
            }
            let end = key.start + u64::from(key.len);
            ahead += end - position;
            position = end;
            if position >= row.data_bytes {
                let next = row.last_offset + 1;
                match self.rows.cached(id, next) {
                    Some(following) if following.base_offset == next && following.data_bytes > 0 => (row, position) = (following, 0),
                    Some(_) => break,
                    None => {
                        if window > 0 {
                            self.rows.prefetch(id, next);
                        }
                        break;
                    }
                }
            }
        }
        seats
    }

    /// Walks from where `walker` stands to the end of `row`; false if the sink wants no more.
    async fn walk(
        &self,
        row: &Arc<SegmentRow>,
        walker: &mut Walker,
        seats: &mut Seats,
        sink: &mut impl Sink,
        touched: &mut Touched,
    ) -> Result<bool, RemoteReadError> {
        let corrupt = |reason: String| StoreError::Corrupt { key: row.object_key.clone(), reason };
        while walker.position() < row.data_bytes {
            let key = self.chunks.key_at(row, walker.position());
            let seat = match seats.pop_front() {
                Some((reserved, seat)) if reserved == key => seat,
                _ => self.chunks.seat(row, key, Priority::Now),
            };
            touched.push(key);
            let chunk = seat.wait().await?;
            let skip = usize::try_from(walker.position() - key.start).unwrap_or(usize::MAX).min(chunk.len());
            if !walker.feed(&chunk.slice(skip..), sink).map_err(corrupt)? {
                return Ok(false);
            }
        }
        if !walker.is_at_end() || walker.next_offset() != row.last_offset + 1 {
            let reason = format!("it ends before offset {}, not after {}", walker.next_offset(), row.last_offset);
            return Err(corrupt(reason).into());
        }
        Ok(true)
    }

    /// Aborted transactions of the walked segments that overlap `[from, to)`.
    async fn aborted(
        &self,
        rows: &[Arc<SegmentRow>],
        from: i64,
        to: i64,
        touched: &mut Touched,
    ) -> Result<Vec<AbortedTxn>, RemoteReadError> {
        let mut aborted = Vec::new();
        for row in rows.iter().filter(|row| row.has_aborts && row.base_offset < to) {
            let tail = self.tail_of(row, touched).await?;
            let overlapping = tail.aborted.iter().filter(|txn| txn.first_offset < to && txn.last_offset >= from);
            aborted.extend(overlapping.copied());
        }
        // One that spans segments is in each of them.
        aborted.sort_by_key(|txn| (txn.first_offset, txn.producer_id, txn.last_offset));
        aborted.dedup();
        Ok(aborted)
    }

    /// Index and footer of a segment, from the cache or by one GET.
    async fn tail_of(&self, row: &Arc<SegmentRow>, touched: &mut Touched) -> Result<Arc<ObjectTail>, StoreError> {
        touched.push(tail_key(row)?);
        self.tail_seat(row)?.wait().await
    }

    fn tail_seat(&self, row: &Arc<SegmentRow>) -> Result<Seat<Arc<ObjectTail>>, StoreError> {
        let key = tail_key(row)?;
        let present = || self.tails.get(&row.attempt);
        let (chunks, row, tails) = (self.chunks.clone(), Arc::clone(row), Arc::clone(&self.tails));
        let attempt = row.attempt;
        Ok(self.tail_flights.join(&attempt, present, move || async move {
            let bytes = chunks.seat(&row, key, Priority::Now).wait().await?;
            let tail = Arc::new(parse_tail(&row, &bytes)?);
            tails.insert(attempt, Arc::clone(&tail));
            Ok(tail)
        }))
    }
}

/// The chunk that is all of an object's tail.
fn tail_key(row: &SegmentRow) -> Result<ChunkKey, StoreError> {
    let bytes = row.object_bytes.checked_sub(row.data_bytes).filter(|bytes| *bytes <= TAIL_BYTES_MAX);
    match bytes.and_then(|bytes| u32::try_from(bytes).ok()) {
        Some(len) => Ok(ChunkKey { attempt: row.attempt, start: row.data_bytes, len }),
        None => Err(StoreError::Corrupt { key: row.object_key.clone(), reason: "its row gives sizes that can't be".to_owned() }),
    }
}

/// The tail of `row`'s object, if it says the same as the row.
fn parse_tail(row: &SegmentRow, bytes: &Bytes) -> Result<ObjectTail, StoreError> {
    let corrupt = |reason: String| StoreError::Corrupt { key: row.object_key.clone(), reason };
    let tail = ObjectTail::parse(bytes, row.object_bytes).map_err(|error| corrupt(error.to_string()))?;
    let facts = &tail.facts;
    let same = facts.id == row.id
        && facts.attempt == row.attempt
        && (facts.base_offset, facts.last_offset, facts.data_bytes) == (row.base_offset, row.last_offset, row.data_bytes);
    if same { Ok(tail) } else { Err(corrupt("its footer contradicts its row in metadata".to_owned())) }
}
