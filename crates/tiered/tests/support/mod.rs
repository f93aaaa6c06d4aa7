//! A bucket in memory that can be slow, narrow and faulty in every way that object stores are (F30 to F37).

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod tier;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use siltstone_common::Env;
use siltstone_tiered::store::{Bucket, BucketError, ObjectInfo, PartUpload};

/// Decides by a seed and a share in percent.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Share of calls that fail with 503 before anything happens.
    pub unavailable_percent: u64,
    /// Share of writes that are stored but whose reply is lost.
    pub lost_reply_percent: u64,
    /// Share of reads whose body is cut.
    pub truncated_percent: u64,
    /// Share of reads with a flipped bit.
    pub corrupt_percent: u64,
    /// Every call is refused with 403.
    pub denied: bool,
    /// Creates ignore their condition.
    pub overwrites: bool,
    /// The next create answers 409 though nothing is there.
    pub conflict_next_create: bool,
    /// Every call hangs for ever.
    pub hangs: bool,
}

/// How fast the bucket is.
#[derive(Copy, Clone, Debug, Default)]
pub struct Speed {
    /// Time to the first byte.
    pub latency: Duration,
    /// Bytes per second of one connection; 0 for no limit.
    pub connection_bytes_per_s: u64,
}

#[derive(Debug)]
pub struct TestBucket {
    pub objects: Mutex<BTreeMap<String, Bytes>>,
    pub faults: Mutex<Faults>,
    pub speed: Mutex<Speed>,
    pub gets: AtomicU64,
    pub bytes_sent: AtomicU64,
    env: Env,
}

impl TestBucket {
    pub fn new(env: Env) -> Arc<Self> {
        Arc::new(Self {
            objects: Mutex::default(),
            faults: Mutex::default(),
            speed: Mutex::default(),
            gets: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            env,
        })
    }

    fn roll(&self, percent: u64) -> bool {
        self.env.entropy.below(100) < percent
    }

    async fn pass(&self) -> Result<Faults, BucketError> {
        let faults = self.faults.lock().clone();
        let latency = self.speed.lock().latency;
        if !latency.is_zero() {
            self.env.clock.sleep(latency).await;
        }
        if faults.hangs {
            std::future::pending::<()>().await;
        }
        if faults.denied {
            return Err(BucketError::Denied("403 Forbidden".to_owned()));
        }
        if self.roll(faults.unavailable_percent) {
            return Err(BucketError::Transient("503 SlowDown".to_owned()));
        }
        Ok(faults)
    }

    async fn transfer(&self, bytes: usize) {
        let rate = self.speed.lock().connection_bytes_per_s;
        if rate > 0 {
            self.env.clock.sleep(Duration::from_secs_f64(bytes as f64 / rate as f64)).await;
        }
    }

    fn lost_reply(&self, faults: &Faults) -> Result<(), BucketError> {
        if self.roll(faults.lost_reply_percent) {
            Err(BucketError::Transient("500 after the object was stored".to_owned()))
        } else {
            Ok(())
        }
    }
}

fn concat(chunks: &[Bytes]) -> Bytes {
    Bytes::from(chunks.concat())
}

/// The port on a handle, so that tests keep the other end.
#[derive(Clone, Debug)]
pub struct Handle(pub Arc<TestBucket>);

#[async_trait]
impl Bucket for Handle {
    async fn create(&self, key: &str, chunks: &[Bytes]) -> Result<(), BucketError> {
        let faults = self.0.pass().await?;
        if std::mem::take(&mut self.0.faults.lock().conflict_next_create) {
            return Err(BucketError::AlreadyExists);
        }
        let body = concat(chunks);
        self.0.transfer(body.len()).await;
        {
            let mut objects = self.0.objects.lock();
            if objects.contains_key(key) && !faults.overwrites {
                return Err(BucketError::AlreadyExists);
            }
            objects.insert(key.to_owned(), body);
        }
        self.0.lost_reply(&faults)
    }

    async fn begin_parts(&self, key: &str) -> Result<Box<dyn PartUpload>, BucketError> {
        self.0.pass().await?;
        Ok(Box::new(Parts { bucket: Arc::clone(&self.0), key: key.to_owned(), parts: Mutex::default() }))
    }

    async fn get(&self, key: &str, from: u64, to: u64) -> Result<(Bytes, u64), BucketError> {
        self.0.gets.fetch_add(1, Ordering::Relaxed);
        let faults = self.0.pass().await?;
        let object = self.0.objects.lock().get(key).cloned().ok_or(BucketError::NotFound)?;
        let size = object.len() as u64;
        let mut body = object.slice(from.min(size) as usize..to.min(size) as usize);
        self.0.transfer(body.len()).await;
        self.0.bytes_sent.fetch_add(body.len() as u64, Ordering::Relaxed);
        if !body.is_empty() && self.0.roll(faults.truncated_percent) {
            body.truncate(body.len() / 2);
        }
        if !body.is_empty() && self.0.roll(faults.corrupt_percent) {
            let mut bytes = body.to_vec();
            let at = self.0.env.entropy.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.0.env.entropy.below(8);
            body = Bytes::from(bytes);
        }
        Ok((body, size))
    }

    async fn head(&self, key: &str) -> Result<u64, BucketError> {
        self.0.pass().await?;
        self.0.objects.lock().get(key).map(|object| object.len() as u64).ok_or(BucketError::NotFound)
    }

    async fn delete(&self, key: &str) -> Result<(), BucketError> {
        self.0.pass().await?;
        self.0.objects.lock().remove(key);
        Ok(())
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> BoxStream<'static, Result<ObjectInfo, BucketError>> {
        let (bucket, prefix, after) = (Arc::clone(&self.0), prefix.to_owned(), after.map(str::to_owned));
        stream::unfold((bucket, after), move |(bucket, after)| {
            let prefix = prefix.clone();
            async move {
                if let Err(error) = bucket.pass().await {
                    return Some((Err(error), (bucket, after)));
                }
                let next = {
                    let objects = bucket.objects.lock();
                    objects
                        .iter()
                        .find(|(key, _)| {
                            let below = prefix.is_empty() || key.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('/'));
                            below && after.as_deref().is_none_or(|after| key.as_str() > after)
                        })
                        .map(|(key, object)| ObjectInfo { key: key.clone(), size_bytes: object.len() as u64, modified_ms: 0 })
                };
                let info = next?;
                let after = Some(info.key.clone());
                Some((Ok(info), (bucket, after)))
            }
        })
        .boxed()
    }

    fn lists_in_order(&self) -> bool {
        true
    }
}

struct Parts {
    bucket: Arc<TestBucket>,
    key: String,
    parts: Mutex<BTreeMap<usize, Bytes>>,
}

#[async_trait]
impl PartUpload for Parts {
    async fn put(&self, index: usize, _offset: u64, part: &[Bytes]) -> Result<(), BucketError> {
        let faults = self.bucket.pass().await?;
        let part = concat(part);
        self.bucket.transfer(part.len()).await;
        self.parts.lock().insert(index, part);
        self.bucket.lost_reply(&faults)
    }

    async fn complete(&self) -> Result<(), BucketError> {
        let faults = self.bucket.pass().await?;
        let parts = std::mem::take(&mut *self.parts.lock());
        if parts.is_empty() {
            return Err(BucketError::NotFound);
        }
        let body = concat(&parts.into_values().collect::<Vec<_>>());
        self.bucket.objects.lock().insert(self.key.clone(), body);
        self.bucket.lost_reply(&faults)
    }

    async fn abort(&self) {
        self.parts.lock().clear();
    }
}
