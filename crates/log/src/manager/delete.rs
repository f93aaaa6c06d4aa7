//! Deletion of logs.
//!
//! # Overview
//! A log goes out of use first, in memory; then its directory gets another name, the manifest says that it is removed, and its files go. What fails
//! half way, as on a full disk, is tried again by the background, and meanwhile keeps nothing: neither the WAL nor any other log.
//!
//! # Crash consistency
//! Until the directory has its other name, a restart may find the log again, without what the WAL had of it: whoever deleted it knows that it is to go.
//! A directory under its other name is removed at the next start.

use siltstone_common::{TopicIdPartition, fault};

use super::LogManager;
use crate::error::LogError;
use crate::manifest::record::Record;
use crate::shared::{Shared, segments_dir};

impl LogManager {
    /// Removes a partition's log. Blocks.
    ///
    /// # Errors
    /// [`LogError::Io`] and [`LogError::Offline`]; the log takes no appends any more, and the background goes on with its removal.
    pub fn delete(&self, id: TopicIdPartition) -> Result<(), LogError> {
        let _changing = self.shared.changing.lock();
        let log = self.get(id);
        if log.is_some() || self.shared.recovered.lock().contains_key(&id) {
            self.shared.deleting.lock().insert(id);
        }
        if let Some(log) = log {
            log.mark_deleted();
        }
        self.shared.logs.write().remove(&id);
        self.shared.recovered.lock().remove(&id);
        self.shared.finish_deletion(id)
    }
}

impl Shared {
    /// Tries again to remove what is left of deleted logs. Blocks.
    pub(super) fn finish_deletions(&self) -> Result<(), LogError> {
        let ids: Vec<_> = self.deleting.lock().iter().copied().collect();
        // While one is opened or deleted, or the directory closes, the next tick will do.
        let Some(_changing) = self.changing.try_lock() else {
            return Ok(());
        };
        ids.into_iter().map(|id| self.finish_deletion(id)).fold(Ok(()), Result::and)
    }

    /// Removes what is left of the partition's log if that was deleted. To be called with `changing` locked, so that none is made in its place. Blocks.
    pub(super) fn finish_deletion(&self, id: TopicIdPartition) -> Result<(), LogError> {
        if !self.deleting.lock().contains(&id) {
            return Ok(());
        }
        let fs = &self.env.fs;
        let dir = self.partition_dir(id);
        let doomed = dir.with_extension("deleted");
        let failed = |error| LogError::io(&dir, error);
        if fs.exists(&dir) {
            fs.rename(&dir, &doomed).map_err(failed)?;
        }
        if fs.exists(&doomed) {
            fs.sync_dir(&segments_dir(&self.config.dir)).map_err(failed)?;
        }
        fault::point("delete.renamed").map_err(failed)?;
        let covered_sequence = self.wal.next_sequence() - 1;
        self.append_manifest(&mut |out| out.push(Record::Removed { id, covered_sequence }))?;
        if fs.exists(&doomed) {
            fs.remove_dir_all(&doomed).map_err(failed)?;
        }
        self.deleting.lock().remove(&id);
        Ok(())
    }
}
