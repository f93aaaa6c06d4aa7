//! Intent → PUT → verify → commit (I24), for one sealed segment.
//!
//! # Overview
//! The sealed file is read in pieces off the runtime; each batch's CRC and the offsets' continuity are checked on the way (I36), and a
//! sparse index of our own is built. Small segments go by one conditional PUT, large ones in parts.
//!
//! # Invariants
//! - Nothing is written before its intent is in metadata, and nothing is committed that was not read back at its end with the right size.
//! - Each call is an attempt of its own, with its own key (I23): a retry never meets the object of an earlier one.
//! - All uploads together hold at most [`UploaderConfig::memory_bytes_max`].
//!
//! # Cancellation
//! The future may be dropped at any point: the intent expires, and garbage collection takes the object if there is one.
//!
//! # Crash consistency
//! As for cancellation. After a crash between commit and its reply the segment is committed, and the caller sees that in the
//! partition's remote extent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use siltstone_common::fs::File;
use siltstone_common::retry::Backoff;
use siltstone_common::{Env, TopicIdPartition, fault};
use siltstone_log::batch::{BatchError, BatchHeader, batches, verify_crc};
use siltstone_log::segment::SealedSegment;
use siltstone_metadata::{MetadataApi, MetadataError, SegmentRow, SegmentState};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::object::{IndexBuilder, ObjectTail, SegmentFacts, SegmentKey};
use crate::store::{LargeUpload, PART_BYTES, RemoteStore, SINGLE_PUT_BYTES_MAX, StoreError};

/// Bytes read from the local file at a time.
const PIECE_BYTES: u64 = 4 << 20;
/// An intent that is not committed by then is garbage. Far above the longest upload, which gives up after [`UPLOAD_LIMIT`].
const INTENT_LIFE_MS: i64 = 4 * 3_600_000;
/// An upload that takes longer than this is given up before its commit.
const UPLOAD_LIMIT: Duration = Duration::from_secs(3600);
/// How long a commit is tried again while the metadata service can't be reached: the object is there already.
const COMMIT_PATIENCE: Duration = Duration::from_secs(300);
/// Unit of the memory budget.
const PERMIT_BYTES: usize = 64 << 10;

/// A segment was not uploaded.
#[derive(Debug, Error)]
pub enum UploadError {
    /// The bucket.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The metadata service.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The local segment can't be read or does not check out (I36).
    #[error("local segment: {0}")]
    Local(String),
}

impl UploadError {
    /// True if the same segment may go through later.
    pub fn retryable(&self) -> bool {
        match self {
            UploadError::Store(error) => error.retryable(),
            UploadError::Metadata(error) => error.retryable(),
            UploadError::Local(_) => false,
        }
    }
}

/// Limits of all uploads together.
#[derive(Clone, Debug)]
pub struct UploaderConfig {
    /// Segment bytes in memory at most, for all uploads. An upload takes at most about 40 MiB; more wait.
    pub memory_bytes_max: usize,
}

impl Default for UploaderConfig {
    fn default() -> Self {
        Self { memory_bytes_max: 128 << 20 }
    }
}

/// What uploads did since the start.
#[derive(Debug, Default)]
pub struct UploadMetrics {
    /// Segments committed.
    pub segments: AtomicU64,
    /// Bytes of their objects.
    pub bytes: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// Segments refused because a batch did not check out (I36): a human must look.
    pub corrupt: AtomicU64,
}

/// Uploads sealed segments. Cheap to clone.
#[derive(Clone)]
pub struct Uploader {
    inner: Arc<Inner>,
}

struct Inner {
    store: RemoteStore,
    metadata: Arc<dyn MetadataApi>,
    env: Env,
    memory: Semaphore,
    permits: usize,
    metrics: UploadMetrics,
}

/// A piece of the local file: whole batches, checked.
struct Piece {
    bytes: Bytes,
    index: IndexBuilder,
}

/// Where the pieces go.
enum Target {
    Single(Vec<Bytes>),
    Large(Box<LargeUpload>),
}

impl Uploader {
    /// An uploader into `store`, with the default limits.
    pub fn new(store: RemoteStore, metadata: Arc<dyn MetadataApi>, env: Env) -> Self {
        Self::with_config(UploaderConfig::default(), store, metadata, env)
    }

    /// An uploader into `store`.
    pub fn with_config(config: UploaderConfig, store: RemoteStore, metadata: Arc<dyn MetadataApi>, env: Env) -> Self {
        let permits = (config.memory_bytes_max / PERMIT_BYTES).clamp(1, u32::MAX as usize / 2);
        let memory = Semaphore::new(permits);
        Self { inner: Arc::new(Inner { store, metadata, env, memory, permits, metrics: UploadMetrics::default() }) }
    }

    /// Counters since the start.
    pub fn metrics(&self) -> &UploadMetrics {
        &self.inner.metrics
    }

    /// Uploads one segment as leader of `leader_epoch`; the committed row. Checks every batch's CRC on the way (I36).
    ///
    /// # Errors
    /// `Store` and `Metadata`: nothing is committed, or (only if the metadata service could not be reached) it may be: ask for the
    /// remote extent and go on from there. `Local`: the segment must not go to the bucket as it is; a human must look.
    pub async fn upload(&self, id: TopicIdPartition, leader_epoch: i32, segment: SealedSegment) -> Result<SegmentRow, UploadError> {
        let base_offset = segment.base_offset;
        let inner = Arc::clone(&self.inner);
        let upload = self.inner.env.tasks.run(async move { inner.upload(id, leader_epoch, segment).await });
        let given_up = || Err(UploadError::Store(StoreError::Unavailable("the upload was given up".to_owned())));
        let result = upload.await.unwrap_or_else(given_up);
        let metrics = &self.inner.metrics;
        match &result {
            Ok(row) => {
                metrics.segments.fetch_add(1, Ordering::Relaxed);
                metrics.bytes.fetch_add(row.object_bytes, Ordering::Relaxed);
            }
            Err(error) => {
                metrics.failures.fetch_add(1, Ordering::Relaxed);
                if let UploadError::Local(reason) = error {
                    metrics.corrupt.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%id, base_offset, reason, "a local segment does not check out and is not uploaded");
                }
            }
        }
        result
    }
}

fn passed(point: &str) -> Result<(), UploadError> {
    fault::point(point).map_err(|error| StoreError::Unavailable(error.to_string()).into())
}

impl Inner {
    async fn upload(&self, id: TopicIdPartition, leader_epoch: i32, segment: SealedSegment) -> Result<SegmentRow, UploadError> {
        let started = self.env.clock.monotonic();
        // In an outage no intents pile up.
        self.store.reachable().await?;
        let _memory = self.reserve(&segment).await?;
        let intent = self.intent(id, leader_epoch, &segment);
        self.metadata.segment_intent(intent.clone()).await?;
        passed("upload.after-intent")?;

        let (row, tail) = self.write(intent, segment).await?;
        passed("upload.after-put")?;
        self.verify(&row, &tail).await?;
        if self.env.clock.monotonic().saturating_sub(started) > UPLOAD_LIMIT {
            return Err(StoreError::Unavailable("the upload took too long to be committed".to_owned()).into());
        }
        passed("upload.before-commit")?;
        self.commit(&row).await?;
        passed("upload.after-commit")?;
        Ok(row)
    }

    /// Waits until the bytes that this upload will hold fit into the budget.
    async fn reserve(&self, segment: &SealedSegment) -> Result<tokio::sync::SemaphorePermit<'_>, UploadError> {
        let data = usize::try_from(segment.size_bytes).unwrap_or(usize::MAX);
        let side = segment.producer_snapshot.len().saturating_add(segment.aborted.len() * 32);
        let bytes = data.min(4 * PART_BYTES + PIECE_BYTES as usize).saturating_add(2 * side);
        let permits = bytes.div_ceil(PERMIT_BYTES).clamp(1, self.permits);
        let acquired = self.memory.acquire_many(u32::try_from(permits).unwrap_or(1)).await;
        acquired.map_err(|_| UploadError::Store(StoreError::Unavailable("the uploader is closed".to_owned())))
    }

    /// The row before its object: the tail's size and the checksum are not known yet.
    fn intent(&self, id: TopicIdPartition, leader_epoch: i32, segment: &SealedSegment) -> SegmentRow {
        let attempt = self.env.entropy.uuid();
        let cluster_id = self.metadata.image().cluster_id.clone();
        let key = SegmentKey { cluster_id, id, base_offset: segment.base_offset, leader_epoch, attempt };
        SegmentRow {
            id,
            base_offset: segment.base_offset,
            last_offset: segment.last_offset,
            max_timestamp_ms: segment.max_timestamp_ms,
            leader_epoch,
            attempt,
            object_key: key.encode(),
            object_bytes: segment.size_bytes,
            data_bytes: segment.size_bytes,
            checksum: 0,
            has_aborts: !segment.aborted.is_empty(),
            generation: segment.generation,
            // Only where it counts: rows are small.
            appended_ms: if segment.max_timestamp_ms < 0 { segment.appended_ms } else { -1 },
            state: SegmentState::Intent { deadline_ms: self.env.clock.now_ms() + INTENT_LIFE_MS },
        }
    }

    /// Streams the segment into its object; the row to be committed, and the object's tail.
    async fn write(&self, intent: SegmentRow, segment: SealedSegment) -> Result<(SegmentRow, Bytes), UploadError> {
        let small = segment.size_bytes <= (SINGLE_PUT_BYTES_MAX / 2) as u64;
        let mut target =
            if small { Target::Single(Vec::new()) } else { Target::Large(Box::new(self.store.begin_large(&intent.object_key).await?)) };
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        let mut index = IndexBuilder::new(segment.base_offset, segment.size_bytes);
        while index.position() < segment.size_bytes {
            let piece = self.read_piece(&segment, index).await?;
            index = piece.index;
            digest.update(&piece.bytes);
            target.write(piece.bytes).await?;
            passed("upload.mid-put")?;
        }
        let max_timestamp_ms = index.max_timestamp_ms();
        let tail = finish_tail(&intent, segment, index, digest.finalize())?;
        digest.update(&tail);
        let (object_bytes, checksum) = (digest.get_amount(), digest.finalize());
        match target {
            Target::Single(mut chunks) => {
                chunks.push(tail.clone());
                self.store.put_new(&intent.object_key, chunks, checksum).await?;
            }
            Target::Large(mut upload) => {
                upload.write(tail.clone()).await?;
                upload.finish().await?;
            }
        }
        Ok((SegmentRow { max_timestamp_ms, object_bytes, checksum, state: SegmentState::Committed, ..intent }, tail))
    }

    async fn read_piece(&self, segment: &SealedSegment, index: IndexBuilder) -> Result<Piece, UploadError> {
        let (file, end) = (Arc::clone(&segment.file), segment.size_bytes);
        let read = self.env.tasks.blocking(move || read_batches(&*file, end, index)).await;
        read.unwrap_or_else(|| Err("reading it was given up".to_owned())).map_err(UploadError::Local)
    }

    /// Reads the object's end back: size and tail must be what was written (I24).
    async fn verify(&self, row: &SegmentRow, tail: &Bytes) -> Result<(), UploadError> {
        let (found, size) = self.store.get_range_and_size(&row.object_key, row.data_bytes, row.object_bytes).await?;
        if size != row.object_bytes || found != *tail {
            let reason = format!("it has {size} bytes right after a write of {}, or another end", row.object_bytes);
            return Err(StoreError::Corrupt { key: row.object_key.clone(), reason }.into());
        }
        Ok(())
    }

    async fn commit(&self, row: &SegmentRow) -> Result<(), UploadError> {
        let started = self.env.clock.monotonic();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        loop {
            match self.metadata.segment_commit(row.clone()).await {
                Err(error) if error.retryable() => {
                    let delay = backoff.next_delay(&*self.env.entropy);
                    let spent = self.env.clock.monotonic().saturating_sub(started);
                    if spent + delay > COMMIT_PATIENCE || self.env.tasks.is_stopped() {
                        return Err(error.into());
                    }
                    self.env.clock.sleep(delay).await;
                }
                other => return Ok(other?),
            }
        }
    }
}

impl Target {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        match self {
            Target::Single(chunks) => {
                chunks.push(bytes);
                Ok(())
            }
            Target::Large(upload) => upload.write(bytes).await,
        }
    }
}

/// Reads whole batches from where `index` stands, about [`PIECE_BYTES`] or one batch if that is larger, and checks them.
fn read_batches(file: &dyn File, end: u64, index: IndexBuilder) -> Result<Piece, String> {
    let from = index.position();
    let mut want = PIECE_BYTES.min(end - from);
    loop {
        let mut bytes = vec![0; usize::try_from(want).map_err(|error| error.to_string())?];
        file.read_exact_at(&mut bytes, from).map_err(|error| format!("reading at {from}: {error}"))?;
        if let Some(need) = first_batch_len(&bytes, from)?.filter(|need| *need > want) {
            // A batch larger than a piece: its length was checked to be possible, and it must end within the segment.
            if need > end - from {
                return Err(format!("the batch at {from} reaches past the segment's end"));
            }
            want = need;
            continue;
        }
        return check_batches(bytes, end, index);
    }
}

fn first_batch_len(bytes: &[u8], from: u64) -> Result<Option<u64>, String> {
    match BatchHeader::parse(bytes) {
        Ok(header) => Ok(Some(header.total_len() as u64)),
        Err(error) => Err(format!("the batch at {from}: {error}")),
    }
}

fn check_batches(mut bytes: Vec<u8>, end: u64, mut index: IndexBuilder) -> Result<Piece, String> {
    let start = index.position();
    for batch in batches(&bytes) {
        let at = index.position();
        let (header, batch) = match batch {
            Ok(found) => found,
            // Cut by the end of the piece: the next piece begins with it.
            Err(BatchError::Truncated { .. }) if at > start && start + (bytes.len() as u64) < end => break,
            Err(error) => return Err(format!("the batch at {at}: {error}")),
        };
        verify_crc(batch).map_err(|error| format!("the batch at {at}, offset {}: {error}", header.base_offset))?;
        index.push(&header)?;
    }
    bytes.truncate(usize::try_from(index.position() - start).map_err(|error| error.to_string())?);
    Ok(Piece { bytes: Bytes::from(bytes), index })
}

fn finish_tail(intent: &SegmentRow, segment: SealedSegment, index: IndexBuilder, data_checksum: u64) -> Result<Bytes, UploadError> {
    if index.next_offset() != segment.last_offset + 1 || index.position() != segment.size_bytes {
        let found = index.next_offset() - 1;
        return Err(UploadError::Local(format!("it ends at offset {found}, not at {} as it should", segment.last_offset)));
    }
    let max_timestamp_ms = index.max_timestamp_ms();
    let (index, records, batches) = index.finish();
    let facts = SegmentFacts {
        id: intent.id,
        base_offset: intent.base_offset,
        last_offset: intent.last_offset,
        max_timestamp_ms,
        leader_epoch: intent.leader_epoch,
        attempt: intent.attempt,
        records,
        batches,
        data_bytes: segment.size_bytes,
        data_checksum,
    };
    let tail = ObjectTail {
        facts,
        index,
        aborted: segment.aborted,
        producer_snapshot: segment.producer_snapshot,
        leader_epochs: segment.leader_epochs,
    };
    Ok(tail.encode())
}
