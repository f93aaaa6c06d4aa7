//! Folding: the oldest rows of a partition move into an immutable index object, so that the store stays small whatever the retention.
//!
//! Overview: after a commit that leaves a partition with enough rows, a background task takes the oldest [`FOLD_ROWS_MAX`], registers an intent,
//! puts them into one object, and in one transaction replaces them by a row that names it. Rows that compaction replaces come back out of
//! their objects first ([`SegmentMap::unfold_from`]), and are never folded again. Rows in the store are always newer than those in objects. Crash consistency: as for segments (I24): the
//! object of a fold that was cut short is the garbage of an expired intent. Cancellation: none needed, a fold can stop anywhere.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use siltstone_common::TopicIdPartition;
use tokio::sync::Semaphore;

use super::index::{self, IndexObjects, IndexReader};
use super::keys::{self, ExtentRow, FoldRow};
use super::map::{ATTEMPTS, SegmentMap, contended, mark};
use super::{SegmentRow, SegmentState};
use crate::api::MetadataError;
use crate::rows;
use crate::store::{Precondition, Txn, TxnOutcome, Write};

/// Rows of one fold: their deletions fit one transaction, and so does marking all of them as garbage.
pub(crate) const FOLD_ROWS_MAX: usize = 64;
/// Folds at work at once.
const CONCURRENT_MAX: usize = 4;
/// Until when an index object must be committed.
const INTENT_MS: i64 = 600_000;

/// What folding needs beside the store.
#[derive(Debug)]
pub(crate) struct Folding {
    pub(super) reader: IndexReader,
    rows_kept: u64,
    fold_rows: usize,
    at_work: Mutex<HashSet<TopicIdPartition>>,
    permits: Semaphore,
}

impl Folding {
    pub(super) fn new(objects: Arc<dyn IndexObjects>, rows_kept: u64, fold_rows: usize) -> Self {
        let fold_rows = fold_rows.clamp(1, FOLD_ROWS_MAX);
        Self { reader: IndexReader::new(objects), rows_kept, fold_rows, at_work: Mutex::default(), permits: Semaphore::new(CONCURRENT_MAX) }
    }

    fn wanted(&self, extent: ExtentRow) -> bool {
        !extent.compacted && extent.segments.saturating_sub(extent.folded) >= self.rows_kept.saturating_add(self.fold_rows as u64)
    }
}

/// Takes a partition out of those at work, however the work ends.
struct AtWork(Arc<Folding>, TopicIdPartition);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.at_work.lock().remove(&self.1);
    }
}

impl SegmentMap {
    /// Folds the partition's oldest rows if there are enough, one fold of a partition at a time.
    pub(super) fn fold_in_background(&self, id: TopicIdPartition, extent: ExtentRow) {
        let Some(folding) = self.folding.clone().filter(|folding| folding.wanted(extent)) else { return };
        if !folding.at_work.lock().insert(id) {
            return;
        }
        let guard = AtWork(folding.clone(), id);
        let map = self.clone();
        self.env.tasks.spawn("metadata-fold", async move {
            let Ok(_permit) = folding.permits.acquire().await else { return };
            let tasks = map.env.tasks.clone();
            tokio::select! {
                folded = map.fold(id, &folding) => {
                    if let Err(error) = folded {
                        tracing::warn!(partition = %id, %error, "could not fold segment rows; trying again after the next upload");
                    }
                }
                () = tasks.stopped() => {}
            }
            drop(guard);
        });
    }

    async fn fold(&self, id: TopicIdPartition, folding: &Folding) -> Result<(), MetadataError> {
        while folding.wanted(self.current(id).await?.extent) {
            let segments = self.rows_from(id, 0, folding.fold_rows).await?;
            let (object, checksum) = index::encode(&segments);
            let fold = self.fold_row(id, &segments, object.len() as u64, checksum)?;
            let intent = fold.object(SegmentState::Intent { deadline_ms: self.env.clock.now_ms().saturating_add(INTENT_MS) });
            let when = vec![Precondition::Exists(rows::topic_key(id.topic_id).into())];
            let registered = self.store.txn(Txn { when, then: vec![Write::put(keys::intent(&intent), rows::encode(&intent))] }).await?;
            if registered == TxnOutcome::Conflict {
                return Ok(());
            }
            let put = folding.reader.objects().put(&fold.object_key, object, checksum).await;
            put.map_err(|error| MetadataError::Unavailable(error.to_string()))?;
            self.commit_fold(&fold, &intent, &segments).await?;
            tracing::debug!(partition = %id, from = fold.first_offset, to = fold.last_offset, "folded segment rows");
        }
        Ok(())
    }

    fn fold_row(&self, id: TopicIdPartition, segments: &[SegmentRow], object_bytes: u64, checksum: u64) -> Result<FoldRow, MetadataError> {
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Err(contended()) };
        debug_assert!(segments.windows(2).all(|pair| pair[0].last_offset < pair[1].base_offset), "segments are in order (I31)");
        let attempt = self.env.entropy.uuid();
        Ok(FoldRow {
            id,
            first_offset: first.base_offset,
            last_offset: last.last_offset,
            live_from: first.base_offset,
            max_timestamp_ms: segments.iter().map(|row| row.max_timestamp_ms).max().unwrap_or(-1),
            segments: segments.len() as u64,
            attempt,
            object_key: index::object_key(id, first.base_offset, attempt),
            object_bytes,
            checksum,
        })
    }

    async fn commit_fold(&self, fold: &FoldRow, intent: &SegmentRow, segments: &[SegmentRow]) -> Result<(), MetadataError> {
        let intent_key = keys::intent(intent);
        for _ in 0..ATTEMPTS {
            let current = self.current(fold.id).await?;
            if current.extent.compacted || self.rows_from(fold.id, 0, segments.len()).await? != segments {
                // Retention or compaction took some of them meanwhile: the object becomes garbage with its intent.
                return Err(contended());
            }
            let mut extent = current.extent;
            extent.folded += fold.segments;
            debug_assert!(extent.folded <= extent.segments, "folded segments are segments");
            let mut when = current.when;
            when.push(Precondition::Exists(intent_key.clone()));
            let mut then: Vec<_> = segments.iter().map(|row| Write::Delete(keys::segment(fold.id, row.base_offset))).collect();
            then.push(Write::Delete(intent_key.clone()));
            then.push(Write::put(keys::fold(fold.id, fold.first_offset), rows::encode(fold)));
            then.push(Write::put(keys::extent(fold.id), rows::encode(extent)));
            if let TxnOutcome::Committed(_) = self.store.txn(Txn { when, then }).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Puts rows back out of index objects, the newest object first, until none holds `offset` or what lies above; true if there was any. The
    /// partition's rows are not folded from then on.
    pub(super) async fn unfold_from(&self, id: TopicIdPartition, offset: i64) -> Result<bool, MetadataError> {
        let (mut conflicts, mut any) = (0, false);
        while conflicts < ATTEMPTS {
            let current = self.current(id).await?;
            let newest = if current.extent.folded > 0 { self.newest_fold(id).await? } else { None };
            let Some(fold) = newest.filter(|fold| fold.last_offset >= offset) else { return Ok(any) };
            let segments = self.fold_rows(&fold).await?;
            let mut extent = current.extent;
            extent.folded = extent.folded.saturating_sub(fold.segments);
            extent.compacted = true;
            let put = |row: &SegmentRow| Write::put(keys::segment(id, row.base_offset), rows::encode(row));
            let mut then: Vec<_> = segments.iter().map(put).collect();
            then.extend(mark(keys::fold(id, fold.first_offset), fold.object(SegmentState::Committed), self.env.clock.now_ms()));
            then.push(Write::put(keys::extent(id), rows::encode(extent)));
            match self.store.txn(Txn { when: current.when, then }).await? {
                TxnOutcome::Committed(_) => any = true,
                TxnOutcome::Conflict => conflicts += 1,
            }
        }
        Err(contended())
    }
}

#[cfg(test)]
mod tests;
