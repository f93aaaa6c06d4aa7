//! What goes on behind the requests: roll, upload, retention over both tiers, the disk budget.
//!
//! # Overview
//! Three loops, none of which waits for another or for the bucket of one partition. Uploads: every partition with something to roll or
//! sealed gets a task of its own ([`Partition::uploading`] keeps it at one), of which so many upload at a time; one that failed backs off alone.
//! Retention raises the log start (metadata first, then the local log: I28) and drops local segments that the bucket has (I26). The disk
//! budget drops more of those.
//!
//! # Invariants
//! An outage of the bucket delays uploads only (I35): what may go by committed metadata goes. Every step begins from committed state and is safe
//! to repeat, so a step that fails is left to the next round.
//!
//! # Cancellation
//! Uploads are dropped at shutdown, at any point.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use siltstone_log::segment::SealedSegment;
use siltstone_metadata::{MetadataError, SegmentRow};
use siltstone_tiered::UploadError;
use siltstone_tiered::retention::{self, EvictionCandidate, RetentionConfig, RetentionDecision, RetentionSnapshot};
use tokio::sync::Semaphore;

use crate::error::ReplicaError;
use crate::manager::{RemoteTier, ReplicaManager};
use crate::partition::Partition;

/// How often partitions are looked at for something sealed to upload.
const UPLOAD_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How often the data directory is held against its budget.
const BUDGET_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Partitions whose retention is looked at at the same time.
const RETENTION_AT_ONCE: usize = 8;
/// Segments of one partition uploaded in one pass, so that no partition holds the others up.
const UPLOADS_PER_PASS: usize = 8;
/// Remote segments that one retention pass looks at.
const RETENTION_PAGE: usize = 256;

/// How long after the start the whole log's retention is first looked at, at the latest; Kafka's `log.initial.task.delay.ms`.
const INITIAL_TASK_DELAY: Duration = Duration::from_secs(30);

/// Which settings a look at retention applies.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Scope {
    /// `local.retention.*` only, which loses nothing.
    Local,
    /// `retention.*` as well.
    Both,
}

impl ReplicaManager {
    pub(crate) fn start_background(self: &Arc<Self>) {
        let manager = Arc::clone(self);
        self.env.tasks.spawn("replica-uploads", async move { manager.begin_uploads().await });
        let manager = Arc::clone(self);
        self.env.tasks.spawn("replica-retention", async move { manager.retain_all().await });
        let manager = Arc::clone(self);
        self.env.tasks.spawn("replica-disk-budget", async move { manager.keep_budget().await });
        let manager = Arc::clone(self);
        self.env.tasks.spawn("log-cleaner", async move { manager.clean_logs().await });
    }

    /// Waits; false at shutdown.
    async fn pause(&self, interval: Duration) -> bool {
        tokio::select! {
            () = self.env.clock.sleep(interval) => true,
            () = self.env.tasks.stopped() => false,
        }
    }

    async fn begin_uploads(self: Arc<Self>) {
        let slots = Arc::new(Semaphore::new(self.config.concurrent_uploads.max(1)));
        while self.pause(UPLOAD_CHECK_INTERVAL).await {
            for partition in self.partitions() {
                self.begin_upload(&partition, &slots);
            }
        }
    }

    fn begin_upload(self: &Arc<Self>, partition: &Arc<Partition>, slots: &Arc<Semaphore>) {
        self.begin_roll(partition);
        if !self.wants_upload(partition) {
            return;
        }
        let Ok(busy) = Arc::clone(&partition.uploading).try_lock_owned() else { return };
        let (manager, partition, slots) = (Arc::clone(self), Arc::clone(partition), Arc::clone(slots));
        self.env.tasks.spawn("replica-upload", async move {
            tokio::select! {
                () = manager.env.tasks.stopped() => {}
                () = manager.upload_waiting(&partition, &slots) => {}
            }
            drop(busy);
        });
    }

    /// Apart from uploads, which wait for their turn and for the bucket.
    fn begin_roll(self: &Arc<Self>, partition: &Arc<Partition>) {
        if !partition.log().is_roll_due() {
            return;
        }
        let Ok(busy) = Arc::clone(&partition.rolling).try_lock_owned() else { return };
        let (manager, partition) = (Arc::clone(self), Arc::clone(partition));
        self.env.tasks.spawn("replica-roll", async move {
            if let Err(error) = manager.roll_by_time(&partition).await {
                tracing::warn!(id = %partition.id(), %error, "could not roll a segment, trying again");
            }
            drop(busy);
        });
    }

    /// True if something is sealed that the bucket does not have, and it is time to try.
    fn wants_upload(&self, partition: &Partition) -> bool {
        if !self.copies_to_bucket(partition) || !partition.may_upload(self.env.clock.monotonic()) {
            return false;
        }
        let wanted_from = partition.remote().remote_end.max(partition.offsets().log_start);
        let is_sealed = partition.log().segments().iter().any(|segment| segment.sealed && segment.last_offset >= wanted_from);
        is_sealed || (partition.config().compact && !partition.is_mirrored() && !partition.is_mirror_refused())
    }

    async fn upload_waiting(&self, partition: &Arc<Partition>, slots: &Semaphore) {
        let Ok(_slot) = slots.acquire().await else { return };
        // What was cleaned first: a segment made of such as are in the bucket and such as are not comes before all that follow.
        let mirrored = if partition.config().compact { self.mirror_cleaned(partition).await } else { Ok(0) };
        let uploaded = self.upload_sealed(partition).await;
        match mirrored.and_then(|mirrored| Ok(mirrored + uploaded?)) {
            Ok(0) => {}
            // What is in the bucket now may go from here at once.
            Ok(_) => {
                partition.upload_succeeded();
                self.retain(partition, Scope::Local).await;
            }
            Err(error) => {
                tracing::warn!(id = %partition.id(), %error, "an upload failed, trying again");
                partition.upload_failed(self.env.clock.monotonic(), &*self.env.entropy);
            }
        }
    }

    async fn retain_all(self: Arc<Self>) {
        let (whole, local) = (self.config.retention_check_interval, self.config.local_retention_check_interval);
        let mut whole_due = self.env.clock.monotonic() + whole.min(INITIAL_TASK_DELAY);
        while self.pause(local.min(whole)).await {
            let now = self.env.clock.monotonic();
            let scope = if now >= whole_due { Scope::Both } else { Scope::Local };
            if scope == Scope::Both {
                whole_due = now + whole;
            }
            let partitions = futures::stream::iter(self.partitions());
            let work = partitions.for_each_concurrent(RETENTION_AT_ONCE, |partition| {
                let manager = &self;
                async move { manager.retain(&partition, scope).await }
            });
            tokio::select! {
                () = work => {}
                () = self.env.tasks.stopped() => return,
            }
        }
    }

    /// One look at a partition's retention, unless another is at it.
    async fn retain(&self, partition: &Arc<Partition>, scope: Scope) {
        let offsets = partition.offsets();
        if offsets.log_end == offsets.log_start && partition.remote().segments == 0 {
            return;
        }
        let Ok(_one_at_a_time) = partition.retaining.try_lock() else { return };
        if let Err(error) = self.apply_retention(partition, scope).await {
            tracing::warn!(id = %partition.id(), %error, "retention failed, trying again");
        }
    }

    async fn keep_budget(self: Arc<Self>) {
        while self.pause(BUDGET_CHECK_INTERVAL).await {
            self.enforce_disk_budget().await;
        }
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
        let log = Arc::clone(partition.log());
        let sealed = self.local_work(move || log.uploadable(from, UPLOADS_PER_PASS)).await?;
        if let Some(first) = sealed.first().filter(|first| first.base_offset > from.max(log_start)) {
            let gap = MetadataError::NotContiguous { base_offset: first.base_offset, expected: from };
            return Err(ReplicaError::Metadata(gap));
        }
        let count = sealed.len();
        for segment in sealed.into_iter().filter(|segment| segment.last_offset >= log_start) {
            let Some(leader_epoch) = self.led_epoch(partition.id()) else { return Ok(0) };
            self.upload_one(partition, tier, leader_epoch, segment).await?;
        }
        Ok(count)
    }

    pub(crate) async fn upload_one(
        &self,
        partition: &Arc<Partition>,
        tier: &RemoteTier,
        leader_epoch: i32,
        segment: SealedSegment,
    ) -> Result<(), ReplicaError> {
        let result = tier.uploader.upload(partition.id(), leader_epoch, segment).await;
        // Whatever came of it, the committed state is what metadata says.
        if let Ok(extent) = self.metadata.remote_extent(partition.id()).await {
            partition.set_remote(extent);
        }
        match result {
            Ok(row) => {
                self.metrics.add_segments_uploaded(1);
                self.metrics.add_bytes_uploaded(row.object_bytes);
                tracing::debug!(id = %partition.id(), base_offset = row.base_offset, last_offset = row.last_offset, "segment committed to the bucket");
                Ok(())
            }
            Err(error) => {
                self.metrics.add_upload_failures(1);
                Err(upload_error(error))
            }
        }
    }

    /// Raises the log start where retention says so, drops local segments that may go, and seals an active segment that has expired.
    /// What is known of the bucket is committed (I26); metadata is asked only when something goes, so that idle partitions cost nothing.
    async fn apply_retention(&self, partition: &Arc<Partition>, scope: Scope) -> Result<(), ReplicaError> {
        self.give_up_remote(partition).await?;
        let (decision, unlisted) = match self.decide_by_rows(partition, scope).await {
            Ok(decision) => (decision, None),
            // Old rows lie in the bucket, which may be out: what it is known to have may go from the local disk all the same (I35).
            Err(error) => (self.decide_retention(partition, Scope::Local, &[]), Some(error)),
        };
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
        unlisted.map_or(Ok(()), Err)
    }

    async fn decide_by_rows(&self, partition: &Partition, scope: Scope) -> Result<RetentionDecision, ReplicaError> {
        let oldest = self.oldest_remote(partition).await?;
        let decision = self.decide_retention(partition, scope, oldest.as_slice());
        if decision.raise_log_start.is_none() || oldest.is_empty() {
            return Ok(decision);
        }
        partition.set_remote(self.metadata.remote_extent(partition.id()).await?);
        let page = self.metadata.list_segments(partition.id(), partition.remote().remote_start, RETENTION_PAGE).await?;
        Ok(self.decide_retention(partition, scope, &page))
    }

    /// With `remote.log.delete.on.disable` a log whose tiering was switched off begins where its local part does, as in Kafka. The copies of what is
    /// here go when retention passes them.
    async fn give_up_remote(&self, partition: &Arc<Partition>) -> Result<(), ReplicaError> {
        let (config, offsets) = (partition.config(), partition.offsets());
        let given_up = !config.remote_storage_enable && config.remote_log_delete_on_disable && partition.remote().segments > 0;
        if given_up && offsets.log_start < offsets.local_start && self.led_epoch(partition.id()).is_some() {
            tracing::info!(id = %partition.id(), log_start = offsets.local_start, "tiering was switched off: what only the bucket has is deleted");
            self.raise_log_start(partition, offsets.local_start).await?;
        }
        Ok(())
    }

    /// The oldest committed segment: none before it goes.
    async fn oldest_remote(&self, partition: &Partition) -> Result<Vec<SegmentRow>, ReplicaError> {
        let remote = partition.remote();
        if remote.segments == 0 {
            return Ok(Vec::new());
        }
        if let Some(known) = partition.oldest_remote(remote) {
            return Ok(vec![known]);
        }
        let oldest = self.metadata.list_segments(partition.id(), remote.remote_start, 1).await?;
        partition.set_oldest_remote(remote, oldest.first());
        Ok(oldest)
    }

    fn decide_retention(&self, partition: &Partition, scope: Scope, remote_segments: &[SegmentRow]) -> RetentionDecision {
        let config = partition.config();
        // Before the local part: see the snapshot.
        let remote = partition.remote();
        let local = partition.log().segments();
        let offsets = partition.offsets();
        let snapshot = RetentionSnapshot {
            now_ms: self.env.clock.now_ms(),
            is_leader: self.led_epoch(partition.id()).is_some(),
            log_start: offsets.log_start,
            high_watermark: offsets.high_watermark,
            local: &local,
            remote: Some(remote),
            remote_segments,
        };
        let settings = RetentionConfig {
            delete: config.delete && scope == Scope::Both,
            tiered: self.copies_to_bucket(partition),
            retention_ms: config.retention_ms,
            retention_bytes: config.retention_bytes,
            // Compaction needs all of a log here; what the bucket has of it is for when this disk is lost.
            local_retention_ms: if config.compact { retention::UNLIMITED } else { config.local_retention_ms },
            local_retention_bytes: if config.compact { retention::UNLIMITED } else { config.local_retention_bytes },
        };
        retention::decide(&settings, &snapshot)
    }

    /// True if the partition's sealed segments go to the bucket.
    pub(crate) fn copies_to_bucket(&self, partition: &Partition) -> bool {
        self.is_tiered(partition) && self.tiering_enabled && !partition.config().remote_log_copy_disable
    }

    /// True if what the bucket has of the partition need not be on the local disk.
    pub(crate) fn is_tiered(&self, partition: &Partition) -> bool {
        let config = partition.config();
        self.remote.is_some() && config.remote_storage_enable
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
            .filter(|partition| self.is_tiered(partition) && !partition.config().compact)
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
            // One that is at its retention frees what it can by itself.
            let Ok(_one_at_a_time) = partition.retaining.try_lock() else { continue };
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
        self.partitions().iter().filter(|partition| self.copies_to_bucket(partition)).map(lag).sum()
    }

    /// Raises the log start in metadata, then locally (I28).
    pub(crate) async fn raise_log_start(&self, partition: &Arc<Partition>, offset: i64) -> Result<(), ReplicaError> {
        let leader_epoch = self.led_epoch(partition.id()).ok_or(ReplicaError::NotLeader)?;
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

    pub(crate) async fn local_work<T: Send + 'static>(
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
        UploadError::Metadata(error @ (MetadataError::Unavailable(_) | MetadataError::NotContiguous { .. })) => {
            ReplicaError::Metadata(error)
        }
        error => ReplicaError::Storage(error.to_string()),
    }
}
