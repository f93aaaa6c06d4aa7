//! The log cleaner: looks for the dirtiest compacted partitions and has them compacted, within an I/O budget.
//!
//! As Kafka's: a partition is due when more than `min.cleanable.dirty.ratio` of it is dirty, or a record waits for longer than
//! `max.compaction.lag.ms`; the dirtiest come first, `log.cleaner.threads` at a time, each with its share of the buffers and of
//! `log.cleaner.io.max.bytes.per.second`; where a pass ends, the next one begins. With nothing due the cleaner rests for
//! `log.cleaner.backoff.ms`. All these settings count at once when they are changed.
//!
//! A partition that can't be cleaned (a segment does not check out, the bucket refuses what was cleaned, the pass panics) is left alone until
//! the next start, with an error in the log and in the metrics of Kafka's names. One whose pass failed (a full disk) waits, longer each time. In
//! both cases its reads and writes go on, and the other partitions have the threads.
//!
//! Cancellation: a pass ends between two steps at shutdown; what it exchanged stays, the rest is as it was.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use siltstone_common::TopicIdPartition;
use siltstone_common::retry::Backoff;
use siltstone_log::LogError;
use siltstone_log::cleaner::{CleanError, Cleanable, CleanerConfig, Cleaning, CleaningStats};
use siltstone_metadata::configs::{BrokerConfig, TopicConfig};
use tokio::sync::Notify;

use crate::manager::ReplicaManager;
use crate::partition::Partition;

/// Least rest between two looks at what is due.
const REST_MIN: Duration = Duration::from_millis(10);
/// Longest wait of a partition whose passes fail.
const RETRY_MAX: Duration = Duration::from_secs(15 * 60);

/// What the cleaner knows and counts.
#[derive(Debug, Default)]
pub(crate) struct CleanerState {
    troubled: Mutex<HashMap<TopicIdPartition, Trouble>>,
    /// Partitions with a pass under way.
    busy: Mutex<HashSet<TopicIdPartition>>,
    pass_ended: Notify,
    passes: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    max_dirty_percent: AtomicU64,
    max_overdue_ms: AtomicU64,
    last_recopy_percent: AtomicU64,
}

/// Why a partition is passed over.
#[derive(Debug)]
enum Trouble {
    /// Until the next start.
    Uncleanable,
    /// Until `not_before`, monotonic time.
    Failing { backoff: Backoff, not_before: Duration },
}

impl CleanerState {
    /// Leaves a partition alone until the next start.
    pub(crate) fn give_up(&self, id: TopicIdPartition) {
        self.troubled.lock().insert(id, Trouble::Uncleanable);
    }

    fn uncleanable(&self) -> Vec<TopicIdPartition> {
        let troubled = self.troubled.lock();
        troubled.iter().filter(|(_, trouble)| matches!(trouble, Trouble::Uncleanable)).map(|(id, _)| *id).collect()
    }
}

/// A place for a pass, given back when dropped. A pass that ends without having said how has panicked.
struct Pass {
    manager: Arc<ReplicaManager>,
    id: TopicIdPartition,
    ended: bool,
}

impl Pass {
    async fn run(mut self, partition: Arc<Partition>, settings: Settings) {
        self.ended = self.manager.clean_partition(&partition, &settings).await;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let state = &self.manager.cleaner;
        if !self.ended && !self.manager.env.tasks.is_stopped() {
            tracing::error!(id = %self.id, "compaction of a partition panicked, it is left as it is until the next start");
            state.give_up(self.id);
        }
        state.busy.lock().remove(&self.id);
        state.pass_ended.notify_one();
    }
}

/// Numbers for `/metrics`.
#[derive(Copy, Clone, Debug, Default)]
pub struct CleanerMetrics {
    /// Partitions left alone until the next start, as no pass gets through them.
    pub uncleanable_partitions: u64,
    /// Bytes of these on the local disk.
    pub uncleanable_bytes: u64,
    /// The largest dirty share among compacted partitions at the last look, percent.
    pub max_dirty_percent: u64,
    /// By how much the oldest uncleaned record was past `max.compaction.lag.ms` at the last look.
    pub max_compaction_delay_secs: u64,
    /// What the last pass left of what it went through, percent.
    pub recopy_percent: u64,
    /// Passes that ended well.
    pub passes: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
}

/// How a pass ended early.
enum PassError {
    /// Where, is in the log.
    Panicked,
    Clean(CleanError),
}

/// The broker settings as they are now.
#[derive(Clone, Debug)]
struct Settings {
    threads: usize,
    backoff: Duration,
    dedupe_buffer_bytes: usize,
    load_factor: f64,
    io_buffer_bytes: usize,
    bytes_per_second: f64,
}

impl Settings {
    fn new(broker: &BrokerConfig) -> Self {
        let size = |name: &str| usize::try_from(broker.long(name)).unwrap_or(0);
        let threads = if broker.flag("log.cleaner.enable") { size("log.cleaner.threads") } else { 0 };
        Self {
            threads,
            backoff: Duration::from_millis(u64::try_from(broker.long("log.cleaner.backoff.ms")).unwrap_or(0)),
            dedupe_buffer_bytes: size("log.cleaner.dedupe.buffer.size"),
            load_factor: broker.double("log.cleaner.io.buffer.load.factor").unwrap_or(0.9),
            io_buffer_bytes: size("log.cleaner.io.buffer.size"),
            bytes_per_second: broker.double("log.cleaner.io.max.bytes.per.second").unwrap_or(f64::MAX),
        }
    }

    /// Settings of one of the passes that run at once.
    fn pass(&self, topic: &TopicConfig) -> CleanerConfig {
        CleanerConfig {
            min_compaction_lag_ms: topic.min_compaction_lag_ms,
            max_compaction_lag_ms: topic.max_compaction_lag_ms,
            delete_retention_ms: topic.delete_retention_ms,
            dedupe_buffer_bytes: self.dedupe_buffer_bytes / self.threads.max(1),
            load_factor: self.load_factor,
            io_buffer_bytes: (self.io_buffer_bytes / self.threads.max(1)).max(1 << 10),
            ..CleanerConfig::default()
        }
    }
}

impl ReplicaManager {
    /// Runs passes until shutdown.
    pub(crate) async fn clean_logs(self: Arc<Self>) {
        loop {
            let settings = Settings::new(&self.broker_config());
            for partition in self.filthiest(&settings).await {
                self.begin_pass(partition, settings.clone());
            }
            tokio::select! {
                () = self.env.clock.sleep(settings.backoff.max(REST_MIN)) => {}
                () = self.cleaner.pass_ended.notified() => self.env.clock.sleep(REST_MIN).await,
                () = self.env.tasks.stopped() => return,
            }
        }
    }

    fn begin_pass(self: &Arc<Self>, partition: Arc<Partition>, settings: Settings) {
        if !self.cleaner.busy.lock().insert(partition.id()) {
            return;
        }
        let pass = Pass { manager: Arc::clone(self), id: partition.id(), ended: false };
        self.env.tasks.spawn("log-cleaner-pass", pass.run(partition, settings));
    }

    /// Numbers for `/metrics`.
    pub fn cleaner_metrics(&self) -> CleanerMetrics {
        let state = &self.cleaner;
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let uncleanable = state.uncleanable();
        let bytes = uncleanable.iter().filter_map(|id| self.opened(*id)).map(|partition| partition.log().local_size_bytes()).sum();
        CleanerMetrics {
            uncleanable_partitions: uncleanable.len() as u64,
            uncleanable_bytes: bytes,
            max_dirty_percent: read(&state.max_dirty_percent),
            max_compaction_delay_secs: read(&state.max_overdue_ms) / 1000,
            recopy_percent: read(&state.last_recopy_percent),
            passes: read(&state.passes),
            bytes_read: read(&state.bytes_read),
            bytes_written: read(&state.bytes_written),
        }
    }

    /// The broker's settings as they are now.
    pub(crate) fn broker_config(&self) -> BrokerConfig {
        let image = self.metadata.image();
        let none = BTreeMap::new();
        let dynamic_all = image.broker_configs.get("").unwrap_or(&none);
        let dynamic_one = image.broker_configs.get(&self.config.broker_id.to_string()).unwrap_or(&none);
        BrokerConfig::resolve(&self.config.broker_configs, dynamic_all, dynamic_one)
    }

    /// The partitions to be cleaned now, the dirtiest first, as many as there are threads free.
    async fn filthiest(&self, settings: &Settings) -> Vec<Arc<Partition>> {
        let busy = self.cleaner.busy.lock().clone();
        let free = settings.threads.saturating_sub(busy.len());
        let compacted: Vec<_> = {
            let now = self.env.clock.monotonic();
            let mut troubled = self.cleaner.troubled.lock();
            troubled.retain(|id, _| self.opened(*id).is_some());
            let may = |partition: &Arc<Partition>| {
                // What the last pass left goes to the bucket before the next pass.
                let ready = !self.copies_to_bucket(partition) || partition.is_mirrored();
                let rested = match troubled.get(&partition.id()) {
                    None => true,
                    Some(Trouble::Uncleanable) => false,
                    Some(Trouble::Failing { not_before, .. }) => *not_before <= now,
                };
                partition.config().compact && ready && rested && !busy.contains(&partition.id())
            };
            self.partitions().into_iter().filter(may).collect()
        };
        if compacted.is_empty() || free == 0 {
            return Vec::new();
        }
        let compacted: Vec<_> = compacted.into_iter().map(|partition| (self.settings_of(&partition, settings), partition)).collect();
        let found = self.env.tasks.blocking(move || {
            let look = |(pass, partition): (CleanerConfig, Arc<Partition>)| {
                let cleanable = partition.log().cleanable(&pass);
                (partition, cleanable)
            };
            compacted.into_iter().map(look).collect::<Vec<_>>()
        });
        let mut due: Vec<(Arc<Partition>, Cleanable)> = Vec::new();
        let (mut dirtiest, mut overdue_ms) = (0.0_f64, 0);
        for (partition, cleanable) in found.await.unwrap_or_default() {
            match cleanable {
                Ok(cleanable) => {
                    dirtiest = dirtiest.max(cleanable.dirty_ratio());
                    overdue_ms = overdue_ms.max(cleanable.overdue_ms);
                    if cleanable.is_due(partition.config().min_cleanable_dirty_ratio) {
                        due.push((partition, cleanable));
                    }
                }
                Err(error) => tracing::warn!(id = %partition.id(), %error, "can't tell how dirty a compacted partition is"),
            }
        }
        self.cleaner.max_dirty_percent.store((dirtiest * 100.0) as u64, Ordering::Relaxed);
        self.cleaner.max_overdue_ms.store(u64::try_from(overdue_ms).unwrap_or(0), Ordering::Relaxed);
        due.sort_by(|(_, a), (_, b)| b.dirty_ratio().total_cmp(&a.dirty_ratio()));
        due.into_iter().take(free).map(|(partition, _)| partition).collect()
    }

    fn settings_of(&self, partition: &Arc<Partition>, settings: &Settings) -> CleanerConfig {
        // Whole segments of the bucket are exchanged for cleaned ones: so only what is there is cleaned.
        let offset_max = if self.copies_to_bucket(partition) { partition.remote().remote_end } else { i64::MAX };
        CleanerConfig { offset_max, ..settings.pass(&partition.config()) }
    }

    /// One pass over one partition; false if it panicked.
    async fn clean_partition(&self, partition: &Arc<Partition>, settings: &Settings) -> bool {
        let started = self.env.clock.monotonic();
        let result = self.run_pass(partition, settings).await;
        match result {
            Ok(Some(stats)) => {
                let took_ms = u64::try_from(self.env.clock.monotonic().saturating_sub(started).as_millis()).unwrap_or(u64::MAX);
                self.cleaner.troubled.lock().remove(&partition.id());
                self.cleaner.passes.fetch_add(1, Ordering::Relaxed);
                let recopied = (stats.bytes_after * 100).checked_div(stats.bytes_before).unwrap_or(100);
                self.cleaner.last_recopy_percent.store(recopied, Ordering::Relaxed);
                tracing::info!(
                    id = %partition.id(), cleaned_end = stats.cleaned_end, took_ms,
                    bytes_before = stats.bytes_before, bytes_after = stats.bytes_after,
                    segments_before = stats.segments.0, segments_after = stats.segments.1,
                    map_utilization_percent = (stats.map_utilization * 100.0) as u64, "compacted a partition"
                );
            }
            Ok(None) => {}
            Err(PassError::Panicked) => return false,
            Err(PassError::Clean(error @ CleanError::Corrupt { .. })) => {
                self.cleaner.give_up(partition.id());
                tracing::error!(id = %partition.id(), %error, "a partition can't be compacted and is left as it is until the next start");
            }
            Err(PassError::Clean(error)) => {
                let wait_ms = self.pass_failed(partition.id(), settings).as_millis();
                match error {
                    CleanError::Log(LogError::Offline(_)) | CleanError::Changed => {
                        tracing::debug!(id = %partition.id(), %error, wait_ms, "compaction is begun again");
                    }
                    error => tracing::warn!(id = %partition.id(), %error, wait_ms, "compaction failed, it is tried again"),
                }
            }
        }
        true
    }

    /// Passes a partition over for a while; how long.
    fn pass_failed(&self, id: TopicIdPartition, settings: &Settings) -> Duration {
        let first = settings.backoff.clamp(Duration::from_secs(1), RETRY_MAX);
        let mut troubled = self.cleaner.troubled.lock();
        let known = match troubled.remove(&id) {
            Some(Trouble::Failing { backoff, .. }) => Some(backoff),
            Some(Trouble::Uncleanable) | None => None,
        };
        let mut backoff = known.unwrap_or_else(|| Backoff::new(first, RETRY_MAX));
        let wait = backoff.next_delay(&*self.env.entropy);
        troubled.insert(id, Trouble::Failing { backoff, not_before: self.env.clock.monotonic() + wait });
        wait
    }

    /// Works step by step, and rests after each for as long as the budget asks. `None` if there was nothing to do or it is time to stop.
    async fn run_pass(&self, partition: &Arc<Partition>, settings: &Settings) -> Result<Option<CleaningStats>, PassError> {
        let Some(mut cleaning) = partition.log().begin_cleaning(self.settings_of(partition, settings)) else { return Ok(None) };
        while !cleaning.is_done() {
            if self.env.tasks.is_stopped() || self.opened(partition.id()).is_none() {
                return Ok(None);
            }
            let before = self.env.clock.monotonic();
            let bytes;
            (cleaning, bytes) = self.step(cleaning).await?;
            let budget = settings.bytes_per_second / settings.threads.max(1) as f64;
            let due = Duration::try_from_secs_f64(bytes as f64 / budget.max(1.0)).unwrap_or_default();
            let spent = self.env.clock.monotonic().saturating_sub(before);
            if due > spent {
                tokio::select! {
                    () = self.env.clock.sleep(due - spent) => {}
                    () = self.env.tasks.stopped() => return Ok(None),
                }
            }
        }
        Ok(Some(cleaning.stats()))
    }

    async fn step(&self, mut cleaning: Cleaning) -> Result<(Cleaning, u64), PassError> {
        let before = cleaning.stats();
        let stepped = self.env.tasks.blocking(move || cleaning.step().map(|bytes| (cleaning, bytes)));
        let (cleaning, bytes) = stepped.await.ok_or(PassError::Panicked)?.map_err(PassError::Clean)?;
        let after = cleaning.stats();
        self.cleaner.bytes_read.fetch_add(after.bytes_read - before.bytes_read, Ordering::Relaxed);
        self.cleaner.bytes_written.fetch_add(after.bytes_written - before.bytes_written, Ordering::Relaxed);
        Ok((cleaning, bytes))
    }
}
