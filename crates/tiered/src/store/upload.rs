//! Objects too large for one PUT: parts of one size, a few in flight, each retried alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;

use super::{Op, PartUpload, RemoteStore, StoreError};

/// Bytes of a part (the last may be shorter). S3 takes at most 10,000 parts: 80 GB.
pub const PART_BYTES: usize = 8 << 20;
/// Parts in flight per upload. With the one being filled, an upload holds at most this many parts plus one in memory.
const PARTS_IN_FLIGHT: usize = 2;

/// An object under construction: [`LargeUpload::write`] in order, then [`LargeUpload::finish`]. There is no create-if-absent for objects in
/// parts: the key must be unique (I23).
///
/// Dropping it before `finish` starts an abort in the background.
pub struct LargeUpload {
    store: RemoteStore,
    key: String,
    parts: Arc<dyn PartUpload>,
    filling: Vec<Bytes>,
    filling_bytes: usize,
    next_index: usize,
    offset: u64,
    in_flight: FuturesUnordered<oneshot::Receiver<Result<(), StoreError>>>,
    open: bool,
}

impl RemoteStore {
    /// Begins an object that is written in parts.
    ///
    /// # Errors
    /// `Unavailable` or `Denied`; `BadAddress` if there is no such bucket.
    pub async fn begin_large(&self, key: &str) -> Result<LargeUpload, StoreError> {
        let others = &self.inner.metrics.others;
        let parts = match self.retried(Op::PUT, key, 0, others, || self.inner.bucket.begin_parts(key)).await {
            Err(StoreError::NotFound(_)) => return Err(self.no_bucket()),
            other => other?,
        };
        Ok(LargeUpload {
            store: self.clone(),
            key: key.to_owned(),
            parts: Arc::from(parts),
            filling: Vec::new(),
            filling_bytes: 0,
            next_index: 0,
            offset: 0,
            in_flight: FuturesUnordered::new(),
            open: true,
        })
    }
}

impl LargeUpload {
    /// Adds bytes. Waits while too many parts are in flight.
    ///
    /// # Errors
    /// A part could not be stored: the upload is of no use any more.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PART_BYTES - self.filling_bytes));
            self.filling_bytes += piece.len();
            self.filling.push(piece);
            if self.filling_bytes == PART_BYTES {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    async fn send_part(&mut self) -> Result<(), StoreError> {
        while self.in_flight.len() >= PARTS_IN_FLIGHT {
            self.one_sent().await?;
        }
        let part = std::mem::take(&mut self.filling);
        let (index, offset, size) = (self.next_index, self.offset, self.filling_bytes as u64);
        self.next_index += 1;
        self.offset += size;
        self.filling_bytes = 0;
        let (store, key, parts) = (self.store.clone(), self.key.clone(), Arc::clone(&self.parts));
        let (sender, receiver) = oneshot::channel();
        // A task of its own, so that parts go on while the caller reads the next one from its disk.
        self.store.inner.env.tasks.spawn("upload-part", async move {
            let metrics = &store.inner.metrics;
            let sent = store.retried(Op::PUT, &key, size, &metrics.puts, || parts.put(index, offset, &part)).await;
            metrics.bytes_written.fetch_add(size, Ordering::Relaxed);
            let _ = sender.send(sent);
        });
        self.in_flight.push(receiver);
        Ok(())
    }

    /// Waits for one part in flight.
    async fn one_sent(&mut self) -> Result<(), StoreError> {
        match self.in_flight.next().await {
            None => Ok(()),
            Some(Ok(sent)) => sent,
            Some(Err(_)) => Err(StoreError::Unavailable(format!("writing a part of {} was given up", self.key))),
        }
    }

    /// Sends what is left and makes the object visible.
    ///
    /// # Errors
    /// The object may be there or not: look with [`RemoteStore::holds`] or use another key.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        if self.filling_bytes > 0 || self.next_index == 0 {
            self.send_part().await?;
        }
        while !self.in_flight.is_empty() {
            self.one_sent().await?;
        }
        let store = self.store.clone();
        let completed = store.retried(Op::COMPLETE, &self.key, 0, &store.inner.metrics.others, || self.parts.complete()).await;
        match completed {
            Ok(()) => {}
            // The reply to an earlier call was lost: the upload is gone because the object is there (F33).
            Err(StoreError::NotFound(_)) if store.head(&self.key).await? == self.offset => {}
            Err(error) => return Err(error),
        }
        self.open = false;
        Ok(())
    }
}

impl Drop for LargeUpload {
    fn drop(&mut self) {
        if self.open {
            let parts = Arc::clone(&self.parts);
            self.store.inner.env.tasks.spawn("abort-upload", async move { parts.abort().await });
        }
    }
}
