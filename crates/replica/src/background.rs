//! What goes on behind the requests: roll, upload, retention over both tiers, the disk budget.
//!
//! One pass per partition at a time ([`Partition::maintenance`]), in this order: roll by time, upload what is sealed, raise the log start by
//! retention (metadata first, then the local log: I28), drop local segments that the bucket has (I26). A step that fails ends the pass; the next
//! pass starts from committed state again, so every step is safe to repeat. An outage of the bucket delays uploads only (I35).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use siltstone_common::retry::Backoff;
use siltstone_metadata::MetadataError;
use siltstone_tiered::UploadError;
use siltstone_tiered::retention::{self, EvictionCandidate, RetentionConfig, RetentionSnapshot};

use crate::error::ReplicaError;
use crate::manager::ReplicaManager;
use crate::partition::Partition;

/// How often partitions are looked at for something sealed to upload.
const UPLOAD_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Segments of one partition uploaded in one pass, so that no partition holds the others up.
const UPLOADS_PER_PASS: usize = 8;
/// Remote segments that one retention pass looks at.
const RETENTION_PAGE: usize = 256;

/// What a pass over a partition does.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Pass {
    /// Roll by time and upload.
    Upload,
    /// And retention.
    Full,
}

impl ReplicaManager {
    /// Runs passes over all partitions until shutdown.
    pub(crate) async fn maintain(self: Arc<Self>) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let mut last_full = self.env.clock.monotonic();
        let mut wait = UPLOAD_CHECK_INTERVAL;
        loop {
            tokio::select! {
                () = self.env.clock.sleep(wait) => {}
                () = self.env.tasks.stopped() => return,
            }
            let now = self.env.clock.monotonic();
            let pass = if now.saturating_sub(last_full) >= self.config.retention_check_interval { Pass::Full } else { Pass::Upload };
            if pass == Pass::Full {
                last_full = now;
            }
            let failed = self.pass(pass).await;
            wait = if failed {
                backoff.next_delay(&*self.env.entropy)
            } else {
                backoff.reset();
                UPLOAD_CHECK_INTERVAL
            };
        }
    }

    /// One pass over all partitions; true if any upload failed.
    async fn pass(self: &Arc<Self>, pass: Pass) -> bool {
        let results =
            futures::stream::iter(self.partitions())
                .map(|partition| async move {
                    if self.env.tasks.is_stopped() { Ok(()) } else { self.maintain_partition(&partition, pass).await }
                })
                .buffer_unordered(self.config.concurrent_uploads.max(1))
                .collect::<Vec<_>>();
        let failed = results.await.iter().any(Result::is_err);
        if pass == Pass::Full {
            self.enforce_disk_budget().await;
        }
        failed
    }

    async fn maintain_partition(&self, partition: &Arc<Partition>, pass: Pass) -> Result<(), ReplicaError> {
        let offsets = partition.offsets();
        if offsets.log_end == offsets.log_start && partition.remote().segments == 0 {
            return Ok(());
        }
        let _one_at_a_time = partition.maintenance.lock().await;
        self.roll_by_time(partition).await?;
        let uploaded =
            if partition.config().remote_storage_enable && !partition.config().compact { self.upload_sealed(partition).await? } else { 0 };
        if pass == Pass::Full || uploaded > 0 {
            self.apply_retention(partition).await?;
        }
        Ok(())
    }

    async fn roll_by_time(&self, partition: &Arc<Partition>) -> Result<(), ReplicaError> {
        let log = Arc::clone(partition.log());
        self.local_work(move || log.roll(false)).await.map(drop)
    }

    /// Uploads what is sealed, oldest first; how many segments.
    async fn upload_sealed(&self, partition: &Arc<Partition>) -> Result<usize, ReplicaError> {
        let Some(tier) = &self.remote else { return Ok(0) };
        // A segment that the log start cuts through is uploaded whole; what lies wholly below is not wanted any more (I25).
        let (from, log_start) = (partition.remote().remote_end, partition.offsets().log_start);
        let sealed_after = partition.log().segments().iter().any(|segment| segment.sealed && segment.last_offset >= from.max(log_start));
        if !sealed_after {
            return Ok(0);
        }
        let log = Arc::clone(partition.log());
        let sealed = self.local_work(move || log.uploadable(from, UPLOADS_PER_PASS)).await?;
        let count = sealed.len();
        for segment in sealed.into_iter().filter(|segment| segment.last_offset >= log_start) {
            let Some((leader, leader_epoch)) = self.leader_of(partition.id()) else { return Ok(0) };
            if leader != self.config.broker_id {
                return Ok(0);
            }
            let result = tier.uploader.upload(partition.id(), leader_epoch, segment).await;
            // Whatever came of it, the committed state is what metadata says.
            let extent = self.metadata.remote_extent(partition.id()).await?;
            partition.set_remote(extent);
            match result {
                Ok(row) => {
                    self.metrics.add_segments_uploaded(1);
                    self.metrics.add_bytes_uploaded(row.object_bytes);
                    tracing::debug!(id = %partition.id(), base_offset = row.base_offset, last_offset = row.last_offset, "segment committed to the bucket");
                }
                Err(error) => {
                    self.metrics.add_upload_failures(1);
                    tracing::warn!(id = %partition.id(), %error, "an upload failed, trying again");
                    return Err(upload_error(error));
                }
            }
        }
        Ok(count)
    }

    /// Raises the log start where retention says so, drops local segments that may go, and seals an active segment that has expired.
    async fn apply_retention(&self, partition: &Arc<Partition>) -> Result<(), ReplicaError> {
        let config = partition.config();
        let remote = self.metadata.remote_extent(partition.id()).await?;
        partition.set_remote(remote);
        let oldest = if remote.segments > 0 {
            self.metadata.list_segments(partition.id(), remote.remote_start, RETENTION_PAGE).await?
        } else {
            Vec::new()
        };
        let local = partition.log().segments();
        let offsets = partition.offsets();
        let snapshot = RetentionSnapshot {
            now_ms: self.env.clock.now_ms(),
            is_leader: self.leader_of(partition.id()).is_some_and(|(leader, _)| leader == self.config.broker_id),
            log_start: offsets.log_start,
            high_watermark: offsets.high_watermark,
            local: &local,
            remote: Some(remote),
            remote_segments: &oldest,
        };
        let settings = RetentionConfig {
            delete: config.delete,
            tiered: self.is_tiered(partition),
            retention_ms: config.retention_ms,
            retention_bytes: config.retention_bytes,
            local_retention_ms: config.local_retention_ms,
            local_retention_bytes: config.local_retention_bytes,
        };
        let decision = retention::decide(&settings, &snapshot);
        if let Some(start) = decision.raise_log_start {
            tracing::info!(id = %partition.id(), log_start = start, "retention raises the log start");
            self.raise_log_start(partition, start).await?;
        }
        if let Some(below) = decision.delete_local_below {
            self.drop_local_below(partition, below).await?;
        }
        if decision.roll_active {
            let log = Arc::clone(partition.log());
            self.local_work(move || log.roll(true)).await?;
        }
        Ok(())
    }

    /// True if the partition's sealed segments go to the bucket. Compacted topics stay local.
    fn is_tiered(&self, partition: &Partition) -> bool {
        let config = partition.config();
        self.remote.is_some() && config.remote_storage_enable && !config.compact
    }

    async fn drop_local_below(&self, partition: &Arc<Partition>, offset: i64) -> Result<(), ReplicaError> {
        let log = Arc::clone(partition.log());
        let freed = self.local_work(move || log.delete_local_below(offset)).await?;
        self.metrics.add_local_bytes_dropped(freed);
        Ok(())
    }

    /// Past the budget, uploaded segments go, the oldest of all partitions first.
    async fn enforce_disk_budget(&self) {
        let excess = self.logs.used_bytes().saturating_sub(self.config.disk_budget_bytes);
        if excess == 0 {
            return;
        }
        let partitions = self.partitions();
        let candidates: Vec<EvictionCandidate> = partitions
            .iter()
            .filter(|partition| self.is_tiered(partition))
            .flat_map(|partition| {
                let remote_end = partition.remote().remote_end;
                let uploaded =
                    partition.log().segments().into_iter().filter(move |segment| segment.sealed && segment.last_offset < remote_end);
                uploaded.map(|segment| EvictionCandidate {
                    id: partition.id(),
                    last_offset: segment.last_offset,
                    size_bytes: segment.size_bytes,
                    max_timestamp_ms: segment.max_timestamp_ms,
                })
            })
            .collect();
        for (id, below) in retention::plan_evictions(excess, &candidates) {
            let Some(partition) = self.opened(id) else { continue };
            let _one_at_a_time = partition.maintenance.lock().await;
            if let Err(error) = self.drop_local_below(&partition, below).await {
                tracing::warn!(%id, %error, "could not free local space");
            }
        }
    }

    /// Bytes of sealed segments that should be in the bucket and are not there yet.
    pub fn upload_lag_bytes(&self) -> u64 {
        let lag = |partition: &Arc<Partition>| {
            let remote_end = partition.remote().remote_end;
            let waiting = partition.log().segments().into_iter().filter(|segment| segment.sealed && segment.last_offset >= remote_end);
            waiting.map(|segment| segment.size_bytes).sum::<u64>()
        };
        self.partitions().iter().filter(|partition| self.is_tiered(partition)).map(lag).sum()
    }

    /// Raises the log start in metadata, then locally (I28).
    pub(crate) async fn raise_log_start(&self, partition: &Arc<Partition>, offset: i64) -> Result<(), ReplicaError> {
        let (_, leader_epoch) = self.leader_of(partition.id()).ok_or(ReplicaError::UnknownPartition)?;
        self.metadata.raise_log_start(partition.id(), leader_epoch, offset).await?;
        partition.set_remote(self.metadata.remote_extent(partition.id()).await?);
        let log = Arc::clone(partition.log());
        self.local_work(move || {
            log.raise_log_start(offset)?;
            log.delete_local_below(offset)
        })
        .await
        .map(|freed| self.metrics.add_local_bytes_dropped(freed))
    }

    async fn local_work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, siltstone_log::LogError> + Send + 'static,
    ) -> Result<T, ReplicaError> {
        match self.env.tasks.blocking(work).await {
            Some(result) => result.map_err(|error| ReplicaError::Storage(error.to_string())),
            None => Err(ReplicaError::Storage("work on the local log failed".to_owned())),
        }
    }
}

fn upload_error(error: UploadError) -> ReplicaError {
    match error {
        UploadError::Metadata(error @ MetadataError::Unavailable(_)) => ReplicaError::Metadata(error),
        error => ReplicaError::Storage(error.to_string()),
    }
}
