//! The one wrapper around the object store: retries, deadlines, checksums, fault points, and a probe that says what the store honours.
//!
//! # Overview
//! [`RemoteStore`] stands between the tier and a [`Bucket`] (one attempt per call). Reads have short deadlines (a client waits), writes
//! long ones. Within its deadline an operation is retried with jitter; after that it is [`StoreError::Unavailable`], and the caller, who
//! knows what is at stake, tries again later, for ever (I35). Nothing here panics or keeps more than the bytes it was given.
//!
//! # Invariants
//! - An object is never overwritten (I23): small ones by a conditional PUT, large ones by unique keys and a look before.
//! - "Already exists" for an own write (its reply was lost, or it raced with itself) is told from a foreign object by size and CRC.
//! - A short or long answer to a ranged read is an error, never data.
//!
//! # Cancellation
//! Every future may be dropped. A dropped write may or may not have stored its object; the key is then used up.
//!
//! # Crash consistency
//! An object is visible as a whole once its write returned, or not at all; `file://` syncs file and directories before that.

mod bucket;
mod driver;
mod probe;
mod upload;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use futures::future::{Either, select};
use futures::stream::{self, BoxStream, StreamExt};
use siltstone_common::retry::Backoff;
use siltstone_common::{Env, fault};
use thiserror::Error;

pub use bucket::{Bucket, BucketError, ObjectInfo, PartUpload};
pub use probe::StoreTraits;
pub use upload::{LargeUpload, PART_BYTES};

/// Objects up to this size are written by one conditional PUT.
pub const SINGLE_PUT_BYTES_MAX: usize = 16 << 20;
/// Slowest transfer that is waited for, bytes per second.
const RATE_MIN: u64 = 256 << 10;
/// How often a create that lost a race against nothing visible is tried again.
const CREATE_RACES_MAX: usize = 8;

/// Where the bucket is.
#[derive(Clone, Debug, Default)]
pub struct StoreConfig {
    /// `file:///DIR`, `s3://bucket/prefix`, `gs://…`, `az://…` or `memory://`.
    pub url: String,
    /// Endpoint for S3-compatible stores.
    pub s3_endpoint: Option<String>,
}

/// An operation on the bucket failed for good, or within its deadline.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// No such object.
    #[error("object {0} does not exist")]
    NotFound(String),
    /// A create found another object under its key.
    #[error("object {0} already exists")]
    AlreadyExists(String),
    /// 401 or 403.
    #[error("access to {key} denied: {reason}")]
    Denied {
        /// The key.
        key: String,
        /// The store's words.
        reason: String,
    },
    /// Outage, throttling, time-out: try again later.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The bytes are not what they should be (I36).
    #[error("object {key} is corrupt: {reason}")]
    Corrupt {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The address can't be used.
    #[error("object store address {url}: {reason}")]
    BadAddress {
        /// As configured.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

impl StoreError {
    /// True if the same operation may succeed later without anybody changing the data: outages, and rights, which are often mended.
    pub fn retryable(&self) -> bool {
        matches!(self, StoreError::Unavailable(_) | StoreError::Denied { .. })
    }
}

/// What the store was asked for, since the start.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Attempts of ranged reads.
    pub gets: AtomicU64,
    /// Attempts of writes: PUTs and parts.
    pub puts: AtomicU64,
    /// Attempts of everything else: HEAD, DELETE, LIST, and opening and closing of multipart uploads.
    pub others: AtomicU64,
    /// Attempts that failed in a way that may pass.
    pub retries: AtomicU64,
    /// Operations that failed for good or ran out of time.
    pub failures: AtomicU64,
    /// Bytes read.
    pub bytes_read: AtomicU64,
    /// Bytes written.
    pub bytes_written: AtomicU64,
}

/// A bucket under one cluster's prefix. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RemoteStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bucket: Arc<dyn Bucket>,
    env: Env,
    address: String,
    metrics: StoreMetrics,
    /// An operation ran out of time or was refused, and nothing has been answered since.
    in_trouble: AtomicBool,
}

/// Kind of an operation: its name in errors and fault points, and its patience.
#[derive(Copy, Clone)]
struct Op {
    name: &'static str,
    point: &'static str,
    /// One attempt may last this long, plus the time that its bytes need at [`RATE_MIN`].
    attempt: Duration,
    /// No new attempt begins after this long.
    total: Duration,
    /// A client waits for it.
    foreground: bool,
}

impl Op {
    const GET: Op = Op { foreground: true, ..Op::new("read", "store.get", 5, 15) };
    const HEAD: Op = Op::new("head", "store.head", 5, 30);
    const PUT: Op = Op::new("write", "store.put", 20, 60);
    const COMPLETE: Op = Op::new("complete", "store.complete", 60, 120);
    const DELETE: Op = Op::new("delete", "store.delete", 10, 30);
    const LIST: Op = Op::new("list", "store.list", 30, 120);

    const fn new(name: &'static str, point: &'static str, attempt_s: u64, total_s: u64) -> Self {
        Op { name, point, attempt: Duration::from_secs(attempt_s), total: Duration::from_secs(total_s), foreground: false }
    }

    fn attempt_limit(self, bytes: u64) -> Duration {
        self.attempt + Duration::from_millis(bytes.saturating_mul(1000) / RATE_MIN)
    }
}

impl RemoteStore {
    /// Opens the address. Makes no request.
    ///
    /// # Errors
    /// `BadAddress` that says how to write it.
    pub fn open(config: &StoreConfig, env: Env) -> Result<Self, StoreError> {
        let bucket = driver::open(config, &env)?;
        Ok(Self::over(bucket, config.url.clone(), env))
    }

    /// A store over any provider of the port: simulations and models of slow or faulty stores.
    pub fn over(bucket: Arc<dyn Bucket>, address: String, env: Env) -> Self {
        Self { inner: Arc::new(Inner { bucket, env, address, metrics: StoreMetrics::default(), in_trouble: AtomicBool::new(false) }) }
    }

    /// The address as configured.
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    pub(crate) fn env(&self) -> &Env {
        &self.inner.env
    }

    /// Counters since the start.
    pub fn metrics(&self) -> &StoreMetrics {
        &self.inner.metrics
    }

    /// Creates an object; never overwrites (I23). `chunks` are written in order. `checksum` is the CRC-64/NVME of the whole. An object of
    /// the same content that is there already counts as this write (its reply was lost).
    ///
    /// # Errors
    /// `AlreadyExists` if another object is there; `Unavailable` or `Denied`: try again later, for ever.
    pub async fn put_new(&self, key: &str, chunks: Vec<Bytes>, checksum: u64) -> Result<(), StoreError> {
        let size = chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        if size > SINGLE_PUT_BYTES_MAX as u64 {
            return self.put_new_large(key, chunks, checksum).await;
        }
        let mut backoff = self.backoff(Op::PUT);
        for _ in 0..CREATE_RACES_MAX {
            let put = self.retried(Op::PUT, key, size, &self.inner.metrics.puts, || self.inner.bucket.create(key, &chunks));
            match put.await {
                Ok(()) => {
                    self.inner.metrics.bytes_written.fetch_add(size, Ordering::Relaxed);
                    return Ok(());
                }
                Err(StoreError::AlreadyExists(_)) => match self.holds(key, size, checksum).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => return Err(StoreError::AlreadyExists(key.to_owned())),
                    // Nothing there after all: S3's 409, a race of two creates. Try again.
                    Err(StoreError::NotFound(_)) => self.inner.env.clock.sleep(backoff.next_delay(&*self.inner.env.entropy)).await,
                    Err(error) => return Err(error),
                },
                Err(StoreError::NotFound(_)) => return Err(self.no_bucket()),
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Unavailable(format!("creating {key} keeps losing races against nothing that stays")))
    }

    async fn put_new_large(&self, key: &str, chunks: Vec<Bytes>, checksum: u64) -> Result<(), StoreError> {
        let size = chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        match self.holds(key, size, checksum).await {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(StoreError::AlreadyExists(key.to_owned())),
            Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let mut upload = self.begin_large(key).await?;
        for chunk in chunks {
            upload.write(chunk).await?;
        }
        upload.finish().await
    }

    /// True if the object under `key` has this size and CRC-64/NVME.
    ///
    /// # Errors
    /// `NotFound` if there is no object.
    pub async fn holds(&self, key: &str, size_bytes: u64, checksum: u64) -> Result<bool, StoreError> {
        if self.head(key).await? != size_bytes {
            return Ok(false);
        }
        Ok(self.checksum(key, size_bytes).await? == checksum)
    }

    /// CRC-64/NVME of the first `size_bytes` of an object, read in pieces.
    ///
    /// # Errors
    /// As [`RemoteStore::get_range`].
    pub async fn checksum(&self, key: &str, size_bytes: u64) -> Result<u64, StoreError> {
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        let mut position = 0;
        while position < size_bytes {
            let end = size_bytes.min(position + PART_BYTES as u64);
            digest.update(&self.get_range(key, position, end).await?);
            position = end;
        }
        Ok(digest.finalize())
    }

    /// Bytes `[from, to)` of an object.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` if the object ends before `to`; `Unavailable` or `Denied`.
    pub async fn get_range(&self, key: &str, from: u64, to: u64) -> Result<Bytes, StoreError> {
        Ok(self.get_range_and_size(key, from, to).await?.0)
    }

    /// As [`RemoteStore::get_range`], with the size of the whole object.
    ///
    /// # Errors
    /// As [`RemoteStore::get_range`].
    pub async fn get_range_and_size(&self, key: &str, from: u64, to: u64) -> Result<(Bytes, u64), StoreError> {
        if from >= to {
            return Ok((Bytes::new(), self.head(key).await?));
        }
        let attempt = || async move {
            let (bytes, size) = self.inner.bucket.get(key, from, to).await?;
            // A body cut on the way (F34) has the object's size in its header still: worth another try.
            if size >= to && bytes.len() as u64 != to - from {
                return Err(BucketError::Transient(format!("{} of {} bytes came", bytes.len(), to - from)));
            }
            Ok((bytes, size))
        };
        let (bytes, size) = self.retried(Op::GET, key, to - from, &self.inner.metrics.gets, attempt).await?;
        if size < to {
            let reason = format!("it has {size} bytes, expected at least {to}");
            return Err(StoreError::Corrupt { key: key.to_owned(), reason });
        }
        self.inner.metrics.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok((bytes, size))
    }

    /// Size of an object in bytes.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` or `Denied`.
    pub async fn head(&self, key: &str) -> Result<u64, StoreError> {
        self.retried(Op::HEAD, key, 0, &self.inner.metrics.others, || self.inner.bucket.head(key)).await
    }

    /// Deletes an object; no error if there is none (I28: each step can be repeated).
    ///
    /// # Errors
    /// `Unavailable` or `Denied`.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let deleted = self.retried(Op::DELETE, key, 0, &self.inner.metrics.others, || self.inner.bucket.delete(key)).await;
        match deleted {
            Err(StoreError::NotFound(_)) => Ok(()),
            other => other,
        }
    }

    /// Objects whose key lies in the directory `prefix` ("" for all), page by page: memory does not grow with the bucket. Ends after the
    /// first error. Where the store lists in key order, a listing that breaks goes on after the last key.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo, StoreError>> {
        let state = Listing { store: self.clone(), prefix: prefix.to_owned(), after: None, pages: None, patience: None };
        stream::unfold(Some(state), |state| async move {
            let mut state = state?;
            match state.next().await {
                Ok(Some(item)) => Some((Ok(item), Some(state))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    /// Asks whether the store answers, if the last thing known is that it does not: before work whose traces must be cleared up later.
    ///
    /// # Errors
    /// `Unavailable` or `Denied`, as before.
    pub async fn reachable(&self) -> Result<(), StoreError> {
        if !self.inner.in_trouble.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.head(probe::MARKER).await {
            Ok(_) | Err(StoreError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn no_bucket(&self) -> StoreError {
        StoreError::BadAddress { url: self.inner.address.clone(), reason: "there is no such bucket: create it".to_owned() }
    }

    fn backoff(&self, op: Op) -> Backoff {
        // Somebody waits for a read: ask often, not long.
        Backoff::new(Duration::from_millis(50), op.attempt / 10)
    }

    /// Runs `attempt` until it succeeds, fails for good, or `op`'s time is over.
    async fn retried<T, F, Fut>(&self, op: Op, key: &str, bytes: u64, counter: &AtomicU64, mut attempt: F) -> Result<T, StoreError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, BucketError>>,
    {
        let Inner { env, metrics, in_trouble, .. } = &*self.inner;
        let started = env.clock.monotonic();
        let mut backoff = self.backoff(op);
        // In an outage one of many background operations finds out when it is over; the others do not queue up behind their deadlines.
        let patience = if in_trouble.load(Ordering::Relaxed) && !op.foreground { Duration::ZERO } else { op.total };
        loop {
            counter.fetch_add(1, Ordering::Relaxed);
            let reason = match self.attempt_once(op, bytes, attempt()).await {
                Ok(value) => {
                    in_trouble.store(false, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(BucketError::Transient(reason)) => reason,
                Err(error) => {
                    let is_answer = matches!(error, BucketError::NotFound | BucketError::AlreadyExists);
                    metrics.failures.fetch_add(u64::from(!is_answer), Ordering::Relaxed);
                    let refused = matches!(error, BucketError::Denied(_));
                    in_trouble.store(refused, Ordering::Relaxed);
                    return Err(self.fatal(op, key, error));
                }
            };
            metrics.retries.fetch_add(1, Ordering::Relaxed);
            let delay = backoff.next_delay(&*env.entropy);
            let spent = env.clock.monotonic().saturating_sub(started);
            if spent + delay > patience || env.tasks.is_stopped() {
                in_trouble.store(true, Ordering::Relaxed);
                metrics.failures.fetch_add(1, Ordering::Relaxed);
                return Err(StoreError::Unavailable(format!("{} of {key} failed for {} s: {reason}", op.name, spent.as_secs())));
            }
            tracing::debug!(op = op.name, key, reason, ?delay, "object store attempt failed, trying again");
            env.clock.sleep(delay).await;
        }
    }

    async fn attempt_once<T>(&self, op: Op, bytes: u64, attempt: impl Future<Output = Result<T, BucketError>>) -> Result<T, BucketError> {
        fault::point(op.point).map_err(|error| BucketError::Transient(error.to_string()))?;
        let limit = op.attempt_limit(bytes);
        match select(std::pin::pin!(attempt), self.inner.env.clock.sleep(limit)).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(BucketError::Transient(format!("no answer within {} s", limit.as_secs()))),
        }
    }

    fn fatal(&self, op: Op, key: &str, error: BucketError) -> StoreError {
        let key = key.to_owned();
        match error {
            BucketError::NotFound => StoreError::NotFound(key),
            BucketError::AlreadyExists => StoreError::AlreadyExists(key),
            BucketError::Denied(reason) => StoreError::Denied { key, reason },
            BucketError::Transient(reason) => StoreError::Unavailable(reason),
            BucketError::Unsupported(reason) => {
                StoreError::BadAddress { url: self.inner.address.clone(), reason: format!("{} fails: {reason}", op.name) }
            }
        }
    }
}

/// A listing under way.
struct Listing {
    store: RemoteStore,
    prefix: String,
    after: Option<String>,
    pages: Option<BoxStream<'static, Result<ObjectInfo, BucketError>>>,
    /// When the present trouble began, and the waits within it.
    patience: Option<(Duration, Backoff)>,
}

impl Listing {
    async fn next(&mut self) -> Result<Option<ObjectInfo>, StoreError> {
        loop {
            let Inner { bucket, metrics, .. } = &*self.store.inner;
            let pages = self.pages.get_or_insert_with(|| {
                metrics.others.fetch_add(1, Ordering::Relaxed);
                bucket.list(&self.prefix, self.after.as_deref())
            });
            match self.store.attempt_once(Op::LIST, 0, async { pages.next().await.transpose() }).await {
                Ok(None) => return Ok(None),
                Ok(Some(item)) => {
                    self.after = Some(item.key.clone());
                    self.patience = None;
                    return Ok(Some(item));
                }
                Err(BucketError::NotFound) => return Ok(None),
                Err(BucketError::Transient(reason)) => self.wait(reason).await?,
                Err(error) => return Err(self.store.fatal(Op::LIST, &self.prefix, error)),
            }
        }
    }

    async fn wait(&mut self, reason: String) -> Result<(), StoreError> {
        let Inner { bucket, env, metrics, .. } = &*self.store.inner;
        metrics.retries.fetch_add(1, Ordering::Relaxed);
        self.pages = None;
        let now = env.clock.monotonic();
        let (since, backoff) = self.patience.get_or_insert_with(|| (now, self.store.backoff(Op::LIST)));
        let resumable = self.after.is_none() || bucket.lists_in_order();
        if !resumable || now.saturating_sub(*since) > Op::LIST.total || env.tasks.is_stopped() {
            metrics.failures.fetch_add(1, Ordering::Relaxed);
            return Err(StoreError::Unavailable(format!("listing '{}': {reason}", self.prefix)));
        }
        env.clock.sleep(backoff.next_delay(&*env.entropy)).await;
        Ok(())
    }
}
