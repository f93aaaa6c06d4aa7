//! What all logs of a data directory have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use siltstone_common::fs::{FileLock, is_full, is_short};
use siltstone_common::{Env, TopicIdPartition};

use crate::error::{AppendError, LogError};
use crate::manager::flusher::FlushQueue;
use crate::manager::identity::Identity;
use crate::manager::{LogListener, LogManagerConfig};
use crate::manifest::Manifest;
use crate::manifest::record::Record;
use crate::partition::{PartitionLog, Recovered};
use crate::segment::SegmentFiles;
use crate::tail::TailCache;
use crate::wal::Wal;

/// Whether appends are possible.
#[derive(Debug, Default)]
pub(crate) struct Health {
    offline: OnceLock<String>,
    no_space: AtomicBool,
    closed: AtomicBool,
}

impl Health {
    /// True once the directory went offline (I38); it stays so.
    pub(crate) fn is_offline(&self) -> bool {
        self.offline.get().is_some()
    }

    /// Why it is offline.
    pub(crate) fn offline(&self) -> Option<&str> {
        self.offline.get().map(String::as_str)
    }

    /// Notes whether the disk mark is reached (I40).
    pub(crate) fn set_no_space(&self, no_space: bool) -> bool {
        self.no_space.swap(no_space, Ordering::Relaxed)
    }

    /// Refuses appends from now on.
    pub(crate) fn close(&self) -> bool {
        self.closed.swap(true, Ordering::AcqRel)
    }

    /// An error once the directory is offline or closed.
    pub(crate) fn check_open(&self) -> Result<(), AppendError> {
        if let Some(reason) = self.offline() {
            return Err(AppendError::Offline(reason.to_owned()));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(AppendError::Offline("the log is closed".to_owned()));
        }
        Ok(())
    }

    /// Whether an append may begin.
    pub(crate) fn check(&self) -> Result<(), AppendError> {
        self.check_open()?;
        if self.no_space.load(Ordering::Relaxed) {
            return Err(AppendError::NoSpace);
        }
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) config: LogManagerConfig,
    /// How long an idle producer is remembered, ms.
    pub(crate) producer_expiration_ms: AtomicI64,
    pub(crate) health: Health,
    pub(crate) wal: Wal,
    pub(crate) manifest: Manifest,
    pub(crate) files: SegmentFiles,
    pub(crate) tail_cache: TailCache,
    pub(crate) flusher: FlushQueue,
    pub(crate) listener: OnceLock<ListenerSlot>,
    pub(crate) logs: RwLock<BTreeMap<TopicIdPartition, Arc<PartitionLog>>>,
    /// What recovery found of logs that were not opened yet.
    pub(crate) recovered: Mutex<BTreeMap<TopicIdPartition, Recovered>>,
    /// Deleted logs of which something is left.
    pub(crate) deleting: Mutex<BTreeSet<TopicIdPartition>>,
    pub(crate) identity: Mutex<Identity>,
    /// Serialises creation, opening and deletion of logs.
    pub(crate) changing: Mutex<()>,
    /// Held while a look-up inflates a batch.
    pub(crate) inflating: Mutex<()>,
    /// Held as long as anything may write to the directory.
    pub(crate) _lock: Box<dyn FileLock>,
}

/// Holds the listener; only here so that `Shared` can be printed.
pub(crate) struct ListenerSlot(pub(crate) Arc<dyn LogListener>);

impl std::fmt::Debug for ListenerSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogListener")
    }
}

impl Shared {
    /// Takes the directory offline (I38).
    pub(crate) fn go_offline(&self, reason: &str) {
        if self.health.offline.set(reason.to_owned()).is_err() {
            return;
        }
        tracing::error!(dir = %self.config.dir.display(), reason, "log directory goes offline: replace the disk or fix it, then restart");
        if let Some(listener) = self.listener.get() {
            listener.0.offline(reason);
        }
        // Ends the loop, and lets go who waits for room.
        self.wal.close();
    }

    /// Turns a failed open or write into the log's state and error: a full disk refuses appends, what is short comes back (the caller tries again),
    /// all else goes offline.
    pub(crate) fn failed(&self, path: &Path, error: std::io::Error) -> LogError {
        if is_full(&error) {
            self.disk_is_full();
        } else if !is_short(&error) {
            self.go_offline(&format!("{}: {error}", path.display()));
        }
        LogError::io(path, error)
    }

    /// A failed sync: what was written may be gone though the next sync would succeed (I38).
    pub(crate) fn sync_failed(&self, path: &Path, error: std::io::Error) -> LogError {
        self.go_offline(&format!("sync of {}: {error}", path.display()));
        LogError::io(path, error)
    }

    /// Refuses appends until there is room (I40).
    pub(crate) fn disk_is_full(&self) {
        if !self.health.set_no_space(true) {
            self.wal.wake_waiting();
            tracing::error!(dir = %self.config.dir.display(), "disk is full: appends are refused until there is room");
        }
    }

    /// An error if the directory is offline.
    pub(crate) fn check_online(&self) -> Result<(), LogError> {
        self.health.offline().map_or(Ok(()), |reason| Err(LogError::Offline(reason.to_owned())))
    }

    /// Appends to the manifest what `records` gives while the manifest is locked. Blocks.
    pub(crate) fn append_manifest(&self, records: &mut dyn FnMut(&mut Vec<Record>)) -> Result<(), LogError> {
        self.check_online()?;
        let mut all = |out: &mut Vec<Record>| {
            // A log that is being opened may be in both: its own record comes last and counts.
            out.extend(self.recovered.lock().values().filter_map(|recovered| recovered.record.clone().map(Record::Partition)));
            out.extend(self.all_logs().iter().filter_map(|log| log.manifest_record()));
        };
        self.manifest.append(records, &mut all).map_err(|error| self.failed(&self.manifest_path(), error))
    }

    /// Where the manifest is.
    pub(crate) fn manifest_path(&self) -> PathBuf {
        manifest_path(&self.config.dir)
    }

    /// Where a partition's segments are.
    pub(crate) fn partition_dir(&self, id: TopicIdPartition) -> PathBuf {
        segments_dir(&self.config.dir).join(id.to_string())
    }
}

/// Where the manifest is.
pub(crate) fn manifest_path(dir: &Path) -> PathBuf {
    dir.join("manifest")
}

/// Where the partitions' directories are.
pub(crate) fn segments_dir(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Where the WAL's files are.
pub(crate) fn wal_dir(dir: &Path) -> PathBuf {
    dir.join("wal")
}
