//! All logs of one data directory: recovery, the shared WAL, creation and deletion.
//!
//! # Overview
//! The directory holds `meta.properties` (whose it is), `manifest` (what the segment files hold), `wal/` and, made when there is
//! something to put there, `log/<topic id>-<partition>/`. Opening reads manifest and WAL; a partition's own files are looked at
//! when its log is asked for. A partition without records leaves no trace on disk: the metadata knows that it exists.
//!
//! # Cancellation
//! Dropping the manager ends its loops without a flush, as a kill would. [`LogManager::close`] is the clean stop.

mod delete;
pub(crate) mod flusher;
pub(crate) mod identity;
mod recovery;
pub(crate) mod scan;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use siltstone_common::{Env, TopicIdPartition};
use uuid::Uuid;

use crate::error::LogError;
use crate::manager::identity::Identity;
use crate::manifest::record::Record;
use crate::partition::{LogConfig, PartitionLog, Recovered};
use crate::shared::{ListenerSlot, Shared};

/// Logs that are synced at the same time by a clean stop: a disk takes many syncs at once, and who stops us does not wait for ever.
const CLOSING_AT_ONCE: usize = 16;

/// Told when a partition's `ack_end` moved (a WAL commit). Called from the WAL's thread: must not block.
pub trait LogListener: Send + Sync {
    /// `log`'s `ack_end` moved.
    fn ack_end_moved(&self, log: &Arc<PartitionLog>);
    /// The data directory went offline (I38): nothing can be appended any more.
    fn offline(&self, reason: &str);
}

/// Settings of a data directory.
#[derive(Clone, Debug)]
pub struct LogManagerConfig {
    /// The directory; created if missing.
    pub dir: PathBuf,
    /// Refuse a directory of another cluster.
    pub cluster_id: String,
    /// Bytes of one WAL file.
    pub wal_file_bytes: u64,
    /// WAL bytes that may wait for segment files before those are flushed and synced.
    pub wal_bytes_max: u64,
    /// Tail cache for all partitions, bytes: flushed batches are kept up to it.
    pub tail_cache_bytes: u64,
    /// Appends are refused while less than this is free on the disk (I40), bytes.
    pub disk_reserve_bytes: u64,
    /// `producer.id.expiration.ms` to begin with, see [`LogManager::set_producer_expiration`].
    pub producer_expiration_ms: i64,
}

/// What recovery found.
#[derive(Clone, Debug, Default)]
pub struct RecoveryReport {
    /// Partitions found.
    pub partitions: usize,
    /// Batches replayed from the WAL.
    pub wal_batches: u64,
    /// Bytes of a torn end that were cut.
    pub torn_bytes: u64,
    /// Files set aside as corrupt.
    pub quarantined: Vec<String>,
    /// True if the last stop was clean.
    pub clean: bool,
}

/// All logs of one data directory. Shared by `Arc`.
#[derive(Debug)]
pub struct LogManager {
    shared: Arc<Shared>,
}

impl LogManager {
    /// Locks, recovers and opens the directory, and starts the WAL. Blocks: call it where that is allowed, inside a runtime.
    ///
    /// # Errors
    /// [`LogError::Locked`], [`LogError::WrongCluster`], and [`LogError::Io`].
    pub fn open(config: LogManagerConfig, env: Env) -> Result<(Arc<Self>, RecoveryReport), LogError> {
        let (shared, report) = recovery::recover(config, env)?;
        let tasks = shared.env.tasks.clone();
        tasks.spawn_io("log-wal", crate::wal::commit::run(Arc::clone(&shared)));
        tasks.spawn_io("log-flusher", flusher::run(Arc::clone(&shared)));
        Ok((Arc::new(Self { shared }), report))
    }

    /// Who is told of progress. Set once, before the first append; a second listener is ignored.
    pub fn set_listener(&self, listener: Arc<dyn LogListener>) {
        if self.shared.listener.set(ListenerSlot(listener)).is_err() {
            tracing::warn!("the log has a listener already");
        }
    }

    /// From now on producers are forgotten that were idle for so long, ms (`producer.id.expiration.ms`).
    pub fn set_producer_expiration(&self, expiration_ms: i64) {
        self.shared.producer_expiration_ms.store(expiration_ms, Ordering::Relaxed);
    }

    /// The partition's log, made empty if there is none. Blocks.
    ///
    /// # Errors
    /// [`LogError::Io`] and [`LogError::Corrupt`].
    pub fn get_or_create(&self, id: TopicIdPartition, config: LogConfig) -> Result<Arc<PartitionLog>, LogError> {
        let _changing = self.shared.changing.lock();
        if let Some(log) = self.get(id) {
            return Ok(log);
        }
        self.shared.finish_deletion(id)?;
        let recovered = self.shared.recovered.lock().get(&id).cloned();
        let covered_sequence = self.shared.wal.next_sequence() - 1;
        let log = PartitionLog::open(id, Arc::clone(&self.shared), config, recovered.unwrap_or_default(), covered_sequence)?;
        self.shared.logs.write().insert(id, Arc::clone(&log));
        self.shared.recovered.lock().remove(&id);
        if log.has_unrecorded()
            && let Err(error) = log.record_in_manifest()
        {
            tracing::warn!(%id, %error, "what was cut at opening is not in the manifest yet");
            self.shared.flusher.try_again(&log);
        }
        Ok(log)
    }

    /// The partition's log, if it was asked for by [`LogManager::get_or_create`].
    pub fn get(&self, id: TopicIdPartition) -> Option<Arc<PartitionLog>> {
        self.shared.logs.read().get(&id).cloned()
    }

    /// All partitions with a local log, opened or not, or with something left of one.
    pub fn ids(&self) -> Vec<TopicIdPartition> {
        let mut ids: Vec<_> = self.shared.logs.read().keys().copied().collect();
        ids.extend(self.shared.recovered.lock().keys().copied());
        ids.extend(self.shared.deleting.lock().iter().copied());
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The id that the directory got when it was made: who takes it elsewhere, or puts another in its place, is noticed by it.
    pub fn directory_id(&self) -> Uuid {
        self.shared.identity.lock().directory
    }

    /// True if another directory has been in this one's place since it was written last, and what it holds was not looked through yet.
    pub fn has_returned(&self) -> bool {
        self.shared.identity.lock().returned
    }

    /// Remembers, durably, whether all logs here have yet to be compared with what others wrote meanwhile. Blocks.
    ///
    /// # Errors
    /// [`LogError::Io`]
    pub fn set_returned(&self, returned: bool) -> Result<(), LogError> {
        let mut identity = self.shared.identity.lock();
        let changed = Identity { returned, ..*identity };
        if changed != *identity {
            let config = &self.shared.config;
            identity::write(self.shared.env.fs.as_ref(), &config.dir, &config.cluster_id, changed)?;
            *identity = changed;
        }
        Ok(())
    }

    /// Bytes used by the directory's logs and WAL.
    pub fn used_bytes(&self) -> u64 {
        let logs: u64 = self.shared.all_logs().iter().map(|log| log.local_size_bytes()).sum();
        let record_bytes = |recovered: &Recovered| -> u64 {
            recovered.record.iter().flat_map(|record| &record.segments).map(|segment| segment.size_bytes).sum()
        };
        let unopened: u64 = self.shared.recovered.lock().values().map(record_bytes).sum();
        logs + unopened + self.shared.wal.files.lock().disk_bytes()
    }

    /// Flushes all, several logs at a time, writes checkpoints and the clean-stop marker. Appends after this fail. Blocks.
    ///
    /// # Errors
    /// [`LogError::Io`] and [`LogError::Offline`]; the next start then recovers from the WAL.
    pub fn close(&self) -> Result<(), LogError> {
        let _changing = self.shared.changing.lock();
        if self.shared.health.close() {
            return Ok(());
        }
        self.shared.flusher.close();
        let _no_round = self.shared.flusher.rounds.lock();
        self.shared.wal.close();
        let logs = self.shared.all_logs();
        let (mut synced, mut failed) = (Vec::with_capacity(logs.len()), None);
        let outcomes = self.shared.env.tasks.blocking_each(CLOSING_AT_ONCE, &logs, |log| log.sync_for_close());
        for (log, outcome) in logs.iter().zip(outcomes) {
            match outcome {
                Ok(end) => synced.push((log, end)),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        let pending = self.shared.recovered.lock().values().any(|recovered| !recovered.entries.is_empty());
        let clean = failed.is_none() && !pending;
        let next_sequence = self.shared.wal.next_sequence();
        self.shared.append_manifest(&mut |out| {
            out.extend(logs.iter().filter_map(|log| log.manifest_record()));
            if clean {
                out.push(Record::Closed { next_sequence });
            }
        })?;
        // Only what was synced, and only now that the manifest has it (I3).
        for (log, end) in synced {
            log.acknowledge(end);
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Drop for LogManager {
    fn drop(&mut self) {
        self.shared.health.close();
        self.shared.flusher.close();
        self.shared.wal.close();
        // Logs and what they share hold each other.
        self.shared.logs.write().clear();
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
