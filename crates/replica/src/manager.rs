//! All partitions of this broker: opened on first use, kept in step with the metadata image, asked by the handlers.
//!
//! Leadership is not stored here: every request reads it from the metadata image, so there is one truth (I46). A partition is opened when the
//! image says that this broker leads it and somebody asks, or when the image task finds it; so a partition that Metadata names can be
//! written at once (KAFKA-15591).
//!
//! Cancellation: every method may be dropped at any await; an append that was made stays made. Opening is single-flight per partition.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use parking_lot::{Mutex, RwLock};
use siltstone_common::{Env, TopicId, TopicIdPartition};
use siltstone_log::{LogListener, LogManager, PartitionLog};
use siltstone_metadata::configs::TopicConfig;
use siltstone_metadata::{MetadataApi, MetadataImage, PartitionImage, TopicImage};
use siltstone_tiered::{RemoteReader, Uploader};
use tokio::sync::OnceCell;

use crate::cleaner::CleanerState;
use crate::error::ReplicaError;
use crate::metrics::ReplicaMetrics;
use crate::partition::{Partition, log_config};
use crate::session::Session;

/// How long a request waits for a partition to be opened; the opening goes on behind it. With the local disk lost it needs the bucket, which
/// may be out (I35), and a request is for other partitions, too.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(2);

/// Internal topics that go to the bucket are sealed at least so often.
const INTERNAL_SEGMENT_MS: i64 = 10 * 60_000;
/// And compacted at least so often.
const INTERNAL_COMPACTION_LAG_MS: i64 = 6 * 3_600_000;

/// Settings.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// `node.id`
    pub broker_id: i32,
    /// What the registration of this process gave: another process that registers as the same broker gets a higher one, and leads instead (I9).
    pub broker_epoch: i64,
    /// Broker settings given at start, by Kafka's names: defaults for topics.
    pub broker_configs: BTreeMap<String, String>,
    /// How often `retention.*` is applied to the whole log: `log.retention.check.interval.ms`.
    pub retention_check_interval: Duration,
    /// How often `local.retention.*` is applied, if that is oftener.
    pub local_retention_check_interval: Duration,
    /// How long a Fetch waits for the bucket before it answers without (the work goes on): `remote.fetch.max.wait.ms`.
    pub remote_fetch_max_wait: Duration,
    /// Uploads at the same time.
    pub concurrent_uploads: usize,
    /// Bytes the data directory may use before uploaded segments go, oldest first, whatever `local.retention.*` says.
    pub disk_budget_bytes: u64,
    /// The data directory.
    pub log_dir: std::path::PathBuf,
    /// True if the data directory was empty at start although the broker may have led partitions before.
    pub data_dir_was_empty: bool,
}

impl Default for ReplicaConfig {
    /// Kafka's defaults, of a broker that is not registered and may fill its disk.
    fn default() -> Self {
        Self {
            broker_id: -1,
            broker_epoch: -1,
            broker_configs: BTreeMap::new(),
            retention_check_interval: Duration::from_secs(300),
            local_retention_check_interval: Duration::from_secs(5),
            remote_fetch_max_wait: Duration::from_millis(500),
            concurrent_uploads: 4,
            disk_budget_bytes: u64::MAX,
            log_dir: std::path::PathBuf::new(),
            data_dir_was_empty: false,
        }
    }
}

/// The remote tier, if there is one.
#[derive(Clone)]
pub struct RemoteTier {
    /// Reads.
    pub reader: RemoteReader,
    /// Writes.
    pub uploader: Uploader,
}

/// How a partition's opening goes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Begun,
    /// A request has waited in vain.
    Slow,
}

/// A partition in DescribeLogDirs.
#[derive(Copy, Clone, Debug)]
pub struct LogDirPartition {
    /// Which.
    pub id: TopicIdPartition,
    /// Bytes on the local disk.
    pub local_bytes: u64,
    /// Bytes in the bucket.
    pub remote_bytes: u64,
}

/// All partitions of this broker. Shared by `Arc`.
pub struct ReplicaManager {
    pub(crate) config: ReplicaConfig,
    pub(crate) env: Env,
    pub(crate) metadata: Arc<dyn MetadataApi>,
    pub(crate) logs: Arc<LogManager>,
    pub(crate) remote: Option<RemoteTier>,
    /// `remote.log.storage.system.enable`: without, nothing goes to the bucket; what is there is served all the same.
    pub(crate) tiering_enabled: bool,
    pub(crate) metrics: ReplicaMetrics,
    pub(crate) session: Arc<Session>,
    pub(crate) cleaner: CleanerState,
    /// Topics there were before this start, if the data directory was empty then: what they had on the local disk is gone.
    pub(crate) lost_at_start: HashSet<TopicId>,
    /// Logs to be compared with the bucket before they are used, as the directory was away: see [`crate::registration`].
    pub(crate) to_compare: Mutex<HashSet<TopicIdPartition>>,
    pub(crate) partitions: RwLock<HashMap<TopicIdPartition, Arc<OnceCell<Arc<Partition>>>>>,
    /// Partitions that a task is busy opening until it succeeds, and whether that takes so long that nobody waits for it.
    pub(crate) opening: Mutex<HashMap<TopicIdPartition, Opening>>,
}

impl std::fmt::Debug for ReplicaManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaManager").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Keeps high watermarks in step with the WAL. Weak, as the log manager holds it.
struct AckListener(std::sync::Weak<ReplicaManager>);

impl LogListener for AckListener {
    fn ack_end_moved(&self, log: &Arc<PartitionLog>) {
        let Some(manager) = self.0.upgrade() else { return };
        if let Some(partition) = manager.opened(log.id()) {
            partition.advance_high_watermark();
        }
    }

    fn offline(&self, reason: &str) {
        tracing::error!(reason, "the data directory is offline: this broker can't take writes until it is restarted on a sound disk");
        if let Some(manager) = self.0.upgrade() {
            manager.metrics.set_offline();
            manager.partitions().iter().for_each(|partition| partition.wake_all());
        }
    }
}

impl ReplicaManager {
    /// The manager over `logs`; starts nothing (see [`ReplicaManager::start`]).
    pub fn new(
        config: ReplicaConfig,
        env: Env,
        metadata: Arc<dyn MetadataApi>,
        logs: Arc<LogManager>,
        remote: Option<RemoteTier>,
    ) -> Arc<Self> {
        let lost_at_start = if config.data_dir_was_empty { metadata.image().topics.keys().copied().collect() } else { HashSet::new() };
        let to_compare = if logs.has_returned() { logs.ids().into_iter().collect() } else { HashSet::new() };
        let enabled = config.broker_configs.get("remote.log.storage.system.enable");
        let tiering_enabled = enabled.is_none_or(|text| !text.trim().eq_ignore_ascii_case("false"));
        let session = Session::new(Arc::clone(&metadata), Arc::clone(&env.clock), config.broker_id, config.broker_epoch);
        let manager = Arc::new(Self {
            config,
            env,
            metadata,
            logs: Arc::clone(&logs),
            remote,
            tiering_enabled,
            metrics: ReplicaMetrics::default(),
            session: Arc::new(session),
            cleaner: CleanerState::default(),
            lost_at_start,
            to_compare: Mutex::new(to_compare),
            partitions: RwLock::default(),
            opening: Mutex::default(),
        });
        logs.set_listener(Arc::new(AckListener(Arc::downgrade(&manager))));
        manager
    }

    /// Starts what goes on behind the requests: following the image, rolling, uploading, retention, compaction.
    pub fn start(self: &Arc<Self>) {
        let manager = Arc::clone(self);
        self.env.tasks.spawn("replica-image", async move { manager.follow_image().await });
        self.start_background();
    }

    /// The broker's time, ms.
    pub fn now_ms(&self) -> i64 {
        self.env.clock.now_ms()
    }

    /// Waits, on the broker's clock.
    pub fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.env.clock.sleep(duration)
    }

    /// The session that this broker leads by: somebody has to send its heartbeats.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Counters for `/metrics`.
    pub fn metrics(&self) -> &ReplicaMetrics {
        &self.metrics
    }

    /// Every partition opened so far, in order.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        let mut partitions: Vec<_> = self.partitions.read().values().filter_map(|cell| cell.get().cloned()).collect();
        partitions.sort_unstable_by_key(|partition| partition.id());
        partitions
    }

    /// The partition if it is open.
    pub fn opened(&self, id: TopicIdPartition) -> Option<Arc<Partition>> {
        self.partitions.read().get(&id)?.get().cloned()
    }

    /// The partition, if this broker leads it and the client's view of the leader epoch (-1: none) is the current one (I10).
    pub(crate) async fn led(&self, id: TopicIdPartition, current_leader_epoch: i32) -> Result<Arc<Partition>, ReplicaError> {
        match self.find_led(id, current_leader_epoch)? {
            Ok(partition) => Ok(partition),
            Err(image) => self.open_in_time(id, &image).await,
        }
    }

    async fn open_in_time(&self, id: TopicIdPartition, image: &MetadataImage) -> Result<Arc<Partition>, ReplicaError> {
        if self.opening.lock().get(&id) != Some(&Opening::Slow)
            && let Ok(opened) = tokio::time::timeout(OPEN_WAIT_MAX, self.open(id, image)).await
        {
            return opened;
        }
        // As long as a task is at it; the next requests then need not wait as long again.
        self.opening.lock().entry(id).and_modify(|opening| *opening = Opening::Slow);
        Err(ReplicaError::Storage("the partition is still being opened".to_owned()))
    }

    /// [`ReplicaManager::led`] of each id and leader epoch; those that have to be opened are opened at the same time.
    pub(crate) async fn all_led(&self, ids: impl Iterator<Item = (TopicIdPartition, i32)>) -> Vec<Result<Arc<Partition>, ReplicaError>> {
        let mut to_open = Vec::new();
        let mut all = Vec::with_capacity(ids.size_hint().0);
        for (index, (id, epoch)) in ids.enumerate() {
            all.push(match self.find_led(id, epoch) {
                Ok(Ok(partition)) => Ok(partition),
                Ok(Err(_not_open)) => {
                    to_open.push((index, id, epoch));
                    Err(ReplicaError::UnknownPartition)
                }
                Err(error) => Err(error),
            });
        }
        if !to_open.is_empty() {
            let opened = join_all(to_open.iter().map(|(_, id, epoch)| self.led(*id, *epoch))).await;
            for ((index, ..), opened) in to_open.into_iter().zip(opened) {
                all[index] = opened;
            }
        }
        all
    }

    /// As [`ReplicaManager::led`], without a wait: the image to open it with, if it is not open yet.
    pub(crate) fn find_led(
        &self,
        id: TopicIdPartition,
        current_leader_epoch: i32,
    ) -> Result<Result<Arc<Partition>, Arc<MetadataImage>>, ReplicaError> {
        let image = self.metadata.image();
        let state = image.partition(id).ok_or(ReplicaError::UnknownPartition)?;
        let current = state.leader_epoch;
        if current_leader_epoch >= 0 && current_leader_epoch < current {
            return Err(ReplicaError::FencedLeaderEpoch { got: current_leader_epoch, current });
        }
        if current_leader_epoch > current {
            return Err(ReplicaError::UnknownLeaderEpoch { got: current_leader_epoch, current });
        }
        if !self.leads(&image, state) {
            return Err(ReplicaError::NotLeader);
        }
        Ok(self.opened(id).ok_or(image))
    }

    /// True if the partition is led by this broker, and this process is that broker: of two processes with one id the later one leads (I9).
    pub(crate) fn leads(&self, image: &MetadataImage, state: &PartitionImage) -> bool {
        let ReplicaConfig { broker_id, broker_epoch, .. } = self.config;
        state.leader == broker_id && image.brokers.get(&broker_id).is_some_and(|broker| broker.epoch == broker_epoch)
    }

    /// The leader epoch in which this process leads the partition, if it does.
    pub(crate) fn led_epoch(&self, id: TopicIdPartition) -> Option<i32> {
        let image = self.metadata.image();
        image.partition(id).filter(|state| self.leads(&image, state)).map(|state| state.leader_epoch)
    }

    /// Leader and epoch of a partition, as clients are told.
    pub(crate) fn leader_of(&self, id: TopicIdPartition) -> Option<(i32, i32)> {
        self.metadata.image().partition(id).map(|state| (state.leader, state.leader_epoch))
    }

    pub(crate) async fn open(&self, id: TopicIdPartition, image: &MetadataImage) -> Result<Arc<Partition>, ReplicaError> {
        let topic = Arc::clone(image.topic_by_id(id.topic_id).ok_or(ReplicaError::UnknownPartition)?);
        let cell = Arc::clone(self.partitions.write().entry(id).or_default());
        let opened = cell.get_or_try_init(|| self.open_log(id, &topic, image)).await.map(Arc::clone);
        // The topic may have been deleted while its log was opened: then the image task has been here before us.
        if opened.is_ok() && self.metadata.image().topic_by_id(id.topic_id).is_none() {
            self.close_partition(id).await;
            return Err(ReplicaError::UnknownPartition);
        }
        let opened = opened?;
        self.apply_newest(&opened);
        // What was appended while it was opened may be on disk since.
        opened.advance_high_watermark();
        Ok(opened)
    }

    async fn open_log(&self, id: TopicIdPartition, topic: &TopicImage, image: &MetadataImage) -> Result<Arc<Partition>, ReplicaError> {
        let config = self.topic_config(topic, image);
        let extent = self.metadata.remote_extent(id).await?;
        let logs = Arc::clone(&self.logs);
        let settings = log_config(&config);
        let log = self
            .env
            .tasks
            .blocking(move || logs.get_or_create(id, settings))
            .await
            .ok_or_else(|| ReplicaError::Storage("opening the log failed".to_owned()))?
            .map_err(|error| ReplicaError::Storage(error.to_string()))?;
        self.adopt_remote(topic, &log, &extent).await?;
        self.compared(id).await?;
        let leader_epoch = image.partition(id).map_or(0, |state| state.leader_epoch);
        log.begin_leader_epoch(leader_epoch);
        self.end_decided(topic, &log, &extent, leader_epoch).await?;
        let partition = Arc::new(Partition::new(id, log, config, extent));
        partition.advance_high_watermark();
        Ok(partition)
    }

    /// A log of a directory that was away is in line with the bucket, or gone; after the last one the directory is like any other.
    pub(crate) async fn compared(&self, id: TopicIdPartition) -> Result<(), ReplicaError> {
        let was_last = {
            let mut to_compare = self.to_compare.lock();
            to_compare.remove(&id) && to_compare.is_empty()
        };
        if was_last {
            let logs = Arc::clone(&self.logs);
            self.local_work(move || logs.set_returned(false)).await?;
        }
        Ok(())
    }

    pub(crate) fn topic_config(&self, topic: &TopicImage, image: &MetadataImage) -> TopicConfig {
        let mut dynamic = image.broker_configs.get("").cloned().unwrap_or_default();
        if let Some(own) = image.broker_configs.get(&self.config.broker_id.to_string()) {
            dynamic.extend(own.clone());
        }
        let mut config = TopicConfig::resolve(&topic.configs, &dynamic, &self.config.broker_configs);
        if topic.is_internal() && config.compact && config.remote_storage_enable && self.remote.is_some() {
            // What a lost disk takes of the groups' offsets is no more than this; the small segments are merged soon.
            config.segment_ms = config.segment_ms.min(INTERNAL_SEGMENT_MS);
            config.max_compaction_lag_ms = config.max_compaction_lag_ms.min(INTERNAL_COMPACTION_LAG_MS);
        }
        config
    }

    /// Every open partition's sizes, for DescribeLogDirs: (partitions, total bytes, usable bytes of the volume).
    pub async fn describe_log_dir(&self) -> (Vec<LogDirPartition>, u64, u64) {
        let partitions = self
            .partitions()
            .iter()
            .map(|partition| LogDirPartition {
                id: partition.id(),
                local_bytes: partition.log().local_size_bytes(),
                remote_bytes: partition.remote().remote_bytes,
            })
            .collect();
        let (fs, dir) = (Arc::clone(&self.env.fs), self.config.log_dir.clone());
        let space = self.env.tasks.blocking(move || fs.space(&dir)).await.and_then(Result::ok);
        (partitions, space.map_or(0, |space| space.total), space.map_or(0, |space| space.available))
    }
}
