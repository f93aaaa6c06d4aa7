//! Garbage collection: deletes objects that metadata says may go, and then has it forget them (I28, I29).
//!
//! What is garbage is decided by the metadata service alone, from its committed state: rows below the log start for longer than the grace
//! period, intents past their deadline, rows of deleted topics. Nothing is ever deleted because of a listing. Each step can be repeated, and
//! several collectors may run at once. A pass is bounded; what it leaves comes with the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use siltstone_common::Env;
use siltstone_common::retry::Backoff;
use siltstone_metadata::{MetadataApi, MetadataError, SegmentRow, SegmentState};

use crate::store::RemoteStore;

/// Objects that can't be deleted that a pass looks past.
const STUCK_MAX: usize = 10_000;

/// What a pass came to.
#[derive(Copy, Clone, Debug)]
struct Pass {
    /// Objects it was to delete.
    found: usize,
    /// Of them, those that are there still.
    failed: usize,
}

/// Settings of the collector.
#[derive(Clone, Debug)]
pub struct GarbageConfig {
    /// From the end of a row's life to the end of its object: longer than any cold read.
    pub grace: Duration,
    /// From one pass to the next.
    pub interval: Duration,
    /// Objects per pass at most.
    pub objects_per_pass: usize,
    /// Deletions at a time.
    pub concurrent_deletes: usize,
}

impl Default for GarbageConfig {
    fn default() -> Self {
        let (grace, interval) = (Duration::from_secs(60), Duration::from_secs(30));
        Self { grace, interval, objects_per_pass: 1000, concurrent_deletes: 16 }
    }
}

/// What was collected since the start.
#[derive(Debug, Default)]
pub struct GarbageMetrics {
    /// Objects deleted.
    pub objects: AtomicU64,
    /// Bytes of them, as far as their rows say.
    pub bytes: AtomicU64,
    /// Deletions that failed, to be tried again.
    pub failures: AtomicU64,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct GarbageCollector {
    config: GarbageConfig,
    store: RemoteStore,
    metadata: Arc<dyn MetadataApi>,
    env: Env,
    metrics: Arc<GarbageMetrics>,
}

impl GarbageCollector {
    /// A collector over `store`.
    pub fn new(config: GarbageConfig, store: RemoteStore, metadata: Arc<dyn MetadataApi>, env: Env) -> Self {
        Self { config, store, metadata, env, metrics: Arc::default() }
    }

    /// Counters since the start.
    pub fn metrics(&self) -> &GarbageMetrics {
        &self.metrics
    }

    /// Collects until shutdown.
    pub async fn run(self) {
        let mut stuck = 0;
        let mut backoff = Backoff::new(Duration::from_secs(1), self.config.interval.max(Duration::from_secs(1)) * 10);
        loop {
            let pass = tokio::select! {
                pass = self.pass_beyond(stuck) => pass,
                () = self.env.tasks.stopped() => return,
            };
            let wait = match pass {
                // More is waiting.
                Ok(Pass { found, failed }) if found - failed >= self.config.objects_per_pass => {
                    stuck = failed;
                    Duration::ZERO
                }
                Ok(Pass { failed: 0, .. }) => {
                    stuck = 0;
                    backoff.reset();
                    self.config.interval
                }
                Ok(Pass { failed, .. }) => {
                    stuck = failed;
                    tracing::warn!(
                        objects = failed,
                        "could not delete garbage from the bucket, trying again: see whether the broker may delete there"
                    );
                    self.config.interval + backoff.next_delay(&*self.env.entropy)
                }
                Err(error) => {
                    tracing::debug!(%error, "garbage collection could not ask metadata, trying again");
                    self.config.interval + backoff.next_delay(&*self.env.entropy)
                }
            };
            tokio::select! {
                () = self.env.clock.sleep(wait.max(Duration::from_millis(100))) => {}
                () = self.env.tasks.stopped() => return,
            }
        }
    }

    /// One pass; how many objects it found. Those that can't be deleted now stay for the next pass.
    ///
    /// # Errors
    /// The metadata service can't be asked.
    pub async fn pass(&self) -> Result<usize, MetadataError> {
        self.pass_beyond(0).await.map(|pass| pass.found)
    }

    /// A pass that looks past so many objects, the oldest, that could not be deleted before: they must not keep all others in the bucket.
    async fn pass_beyond(&self, stuck: usize) -> Result<Pass, MetadataError> {
        let limit = self.config.objects_per_pass.max(1) + stuck.min(STUCK_MAX);
        let grace_ms = i64::try_from(self.config.grace.as_millis()).unwrap_or(i64::MAX);
        let rows = self.metadata.garbage(grace_ms, limit).await?;
        let found = rows.len();
        let mut pass = Pass { found, failed: found };
        let deleted = stream::iter(rows)
            .map(|row| self.delete(row))
            .buffer_unordered(self.config.concurrent_deletes.max(1))
            .filter_map(|row| async { row })
            .collect::<Vec<_>>()
            .await;
        if !deleted.is_empty() {
            tracing::debug!(objects = deleted.len(), "deleted garbage from the bucket");
            pass.failed -= deleted.len();
            self.metadata.forget(deleted).await?;
        }
        Ok(pass)
    }

    async fn delete(&self, row: SegmentRow) -> Option<SegmentRow> {
        if row.state == SegmentState::Committed {
            tracing::error!(id = %row.id, key = row.object_key, "a committed segment was called garbage and is not deleted (I29)");
            return None;
        }
        match self.store.delete(&row.object_key).await {
            Ok(()) => {
                self.metrics.objects.fetch_add(1, Ordering::Relaxed);
                self.metrics.bytes.fetch_add(row.object_bytes, Ordering::Relaxed);
                Some(row)
            }
            Err(error) => {
                self.metrics.failures.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(key = row.object_key, %error, "could not delete garbage, trying again later");
                None
            }
        }
    }
}
