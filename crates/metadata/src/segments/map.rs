//! The segment map over the store.
//!
//! Overview: each change is one or more transactions of the store, whose preconditions are the whole of its safety: the topic's row
//! exists, the row of the partition's leader epoch and the partition's extent are as read. So no lock is needed, and a service that
//! was replaced can do no harm.
//!
//! Invariants: a commit continues the committed range or replaces whole segments of it (compaction), by the current leader, of a living topic (I25), and takes its intent away in the same
//! transaction, so an intent that garbage collection took can't be committed any more; objects are named as garbage only when neither a committed row nor
//! an intent names them (I29); the log start rises before any segment is marked (I28).
//!
//! Crash consistency: an extent always counts exactly the committed segments there are, since both change in one transaction. A raise of
//! the log start that was cut short is finished by the next one. Lookups are in [`super::lookup`], the raise in [`super::retention`], the folding of
//! old rows into index objects in [`super::fold`], garbage in [`super::garbage`].

use std::sync::Arc;

use bytes::Bytes;
use siltstone_common::{Env, TopicIdPartition};

use super::fold::Folding;
use super::index::IndexObjects;
use super::keys::{self, ExtentRow};
use super::{RemoteExtent, SegmentRow, SegmentState};
use crate::api::MetadataError;
use crate::rows::{self, ChunkRow, RowError};
use crate::store::{MetadataStore, Precondition, StoreError, TXN_OPS_MAX, Txn, TxnOutcome, Write};

/// How often a change is tried again when another one came between.
pub(super) const ATTEMPTS: usize = 32;
/// Segments that one may replace: their rows fit one transaction.
pub const REPLACED_MAX: usize = (TXN_OPS_MAX - 12) / 2;
/// Longest object key, bytes: what S3 allows.
const OBJECT_KEY_BYTES_MAX: usize = 1024;

impl From<StoreError> for MetadataError {
    fn from(error: StoreError) -> Self {
        match error {
            // Nobody should try that again.
            StoreError::TooLarge(what) => {
                Self::PolicyViolation(format!("more than the metadata store takes at once ({what}): ask for less"))
            }
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<RowError> for MetadataError {
    fn from(error: RowError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct SegmentMap {
    pub(super) store: Arc<dyn MetadataStore>,
    pub(super) env: Env,
    pub(super) folding: Option<Arc<Folding>>,
}

/// What a change of a partition's segments is judged on, and what must still hold when it happens.
pub(super) struct Current {
    pub(super) leader_epoch: i32,
    pub(super) extent: ExtentRow,
    pub(super) when: Vec<Precondition>,
}

impl Current {
    /// Only the leader of the newest epoch may change anything (I25).
    pub(super) fn check_epoch(&self, leader_epoch: i32) -> Result<(), MetadataError> {
        if leader_epoch < self.leader_epoch {
            return Err(MetadataError::FencedLeaderEpoch);
        }
        if leader_epoch > self.leader_epoch {
            return Err(MetadataError::Conflict(format!("leader epoch is {}, not {leader_epoch}", self.leader_epoch)));
        }
        Ok(())
    }
}

impl SegmentMap {
    /// A map that folds old rows into `objects`, if given, so many at a time, and keeps `rows_kept` of each partition.
    pub(crate) fn new(
        store: Arc<dyn MetadataStore>,
        objects: Option<Arc<dyn IndexObjects>>,
        (rows_kept, fold_rows): (u64, usize),
        env: Env,
    ) -> Self {
        let folding = objects.map(|objects| Arc::new(Folding::new(objects, rows_kept, fold_rows)));
        Self { store, env, folding }
    }

    pub(super) async fn current(&self, id: TopicIdPartition) -> Result<Current, MetadataError> {
        let topic_key = Bytes::from(rows::topic_key(id.topic_id));
        let unknown_partition = || MetadataError::UnknownTopic(id.to_string());
        let chunk_key = Bytes::from(rows::chunk_key_of(id).ok_or_else(unknown_partition)?);
        let extent_key = keys::extent(id);
        let found = self.store.get_many(vec![topic_key.clone(), chunk_key.clone(), extent_key.clone()]).await?;
        let [Some(_topic), chunk, extent] = &found[..] else { return Err(MetadataError::UnknownTopicId(id.topic_id)) };
        let chunk = chunk.as_ref().ok_or_else(unknown_partition)?;
        let leader_epoch = rows::decode::<ChunkRow>(&chunk_key, &chunk.value)?.leader_epoch(id.partition).ok_or_else(unknown_partition)?;
        let when = vec![
            Precondition::Exists(topic_key),
            Precondition::Revision(chunk_key, chunk.revision),
            Precondition::Revision(extent_key.clone(), extent.as_ref().map_or(0, |row| row.revision)),
        ];
        let extent = extent.as_ref().map(|row| rows::decode(&extent_key, &row.value)).transpose()?.unwrap_or_default();
        Ok(Current { leader_epoch, extent, when })
    }

    /// Registers a segment before its PUT (I24).
    pub(crate) async fn intent(&self, row: SegmentRow) -> Result<(), MetadataError> {
        check_row(&row)?;
        if !matches!(row.state, SegmentState::Intent { .. }) {
            return Err(MetadataError::InvalidRequest("a segment is registered as an intent".into()));
        }
        for _ in 0..ATTEMPTS {
            let current = self.current(row.id).await?;
            current.check_epoch(row.leader_epoch)?;
            let txn = Txn { when: current.when, then: vec![Write::put(keys::intent(&row), rows::encode(&row))] };
            if let TxnOutcome::Committed(_) = self.store.txn(txn).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Makes a segment readable by the compare-and-set of I25.
    pub(crate) async fn commit(&self, mut row: SegmentRow) -> Result<(), MetadataError> {
        check_row(&row)?;
        row.state = SegmentState::Committed;
        let (segment_key, intent_key) = (keys::segment(row.id, row.base_offset), keys::intent(&row));
        for _ in 0..ATTEMPTS {
            let current = self.current(row.id).await?;
            let found = self.store.get_many(vec![segment_key.clone(), intent_key.clone()]).await?;
            if let [Some(committed), _] = &found[..]
                && rows::decode::<SegmentRow>(&segment_key, &committed.value)?.attempt == row.attempt
            {
                return Ok(());
            }
            current.check_epoch(row.leader_epoch)?;
            if row.generation > 0
                && found[1].is_some()
                && row.base_offset < current.extent.remote_end
                && self.unfold_from(row.id, row.base_offset).await?
            {
                continue;
            }
            let replaced = self.replaced_by(&row, current.extent).await?;
            if replaced.is_empty() {
                check_contiguity(&row, current.extent)?;
            }
            let [_, Some(intent)] = &found[..] else {
                return Err(MetadataError::Conflict("the segment's intent has expired: register another attempt".into()));
            };
            let mut extent = current.extent;
            if extent.segments == 0 || row.base_offset < extent.remote_start {
                extent.remote_start = row.base_offset;
            }
            extent.remote_end = extent.remote_end.max(row.last_offset.saturating_add(1));
            extent.remote_bytes = extent.remote_bytes.saturating_add(row.data_bytes);
            extent.segments += 1;
            extent.compacted |= row.generation > 0 && !replaced.is_empty();
            let mut when = current.when;
            when.push(Precondition::Revision(intent_key.clone(), intent.revision));
            let mut then = Vec::with_capacity(3 + 2 * replaced.len());
            let since_ms = self.env.clock.now_ms();
            for old in replaced {
                extent.segments = extent.segments.saturating_sub(1);
                extent.remote_bytes = extent.remote_bytes.saturating_sub(old.data_bytes);
                let [delete, gone] = mark(keys::segment(old.id, old.base_offset), old, since_ms);
                // The first one's key is written below: no key is written twice.
                then.extend(Some(delete).filter(|delete| *delete != Write::Delete(segment_key.clone())).into_iter().chain([gone]));
            }
            then.push(Write::Delete(intent_key.clone()));
            then.push(Write::put(segment_key.clone(), rows::encode(&row)));
            then.push(Write::put(keys::extent(row.id), rows::encode(extent)));
            if let TxnOutcome::Committed(_) = self.store.txn(Txn { when, then }).await? {
                self.fold_in_background(row.id, extent);
                return Ok(());
            }
        }
        Err(contended())
    }

    /// The committed segments in whose place `row` comes, if it holds exactly their offsets: what compaction leaves of them. None if it
    /// lies behind all that is committed.
    async fn replaced_by(&self, row: &SegmentRow, extent: ExtentRow) -> Result<Vec<SegmentRow>, MetadataError> {
        if extent.segments == 0 || row.base_offset >= extent.remote_end {
            return Ok(Vec::new());
        }
        let mut replaced = self.rows_from(row.id, row.base_offset, REPLACED_MAX + 1).await?;
        replaced.retain(|old| old.base_offset <= row.last_offset);
        // Below the log start, segments may be gone that the new one still has.
        let begins = |first: &SegmentRow| {
            (first.base_offset == row.base_offset && first.generation <= row.generation)
                || (row.base_offset < extent.remote_start && first.base_offset == extent.remote_start)
        };
        let covers = replaced.first().is_some_and(begins)
            && replaced.last().is_some_and(|last| last.last_offset == row.last_offset || row.last_offset >= extent.remote_end)
            && replaced.windows(2).all(|pair| pair[0].last_offset + 1 == pair[1].base_offset);
        if covers && replaced.len() <= REPLACED_MAX {
            return Ok(replaced);
        }
        Err(MetadataError::NotContiguous { base_offset: row.base_offset, expected: extent.remote_end })
    }

    /// What of the partition is remote.
    pub(crate) async fn extent(&self, id: TopicIdPartition) -> Result<RemoteExtent, MetadataError> {
        Ok(self.current(id).await?.extent.into())
    }
}

/// Turns a row at `key` into garbage.
pub(super) fn mark(key: Bytes, mut row: SegmentRow, since_ms: i64) -> [Write; 2] {
    row.state = SegmentState::DeleteStarted { since_ms };
    [Write::Delete(key), Write::put(keys::gone(&row), rows::encode(&row))]
}

pub(super) fn contended() -> MetadataError {
    MetadataError::Unavailable("the partition's segments change too fast: try again".into())
}

fn check_row(row: &SegmentRow) -> Result<(), MetadataError> {
    if row.base_offset < 0 || row.last_offset < row.base_offset || row.last_offset == i64::MAX {
        return Err(MetadataError::InvalidRequest(format!("a segment can't hold offsets {} to {}", row.base_offset, row.last_offset)));
    }
    if row.object_key.is_empty() || row.object_key.len() > OBJECT_KEY_BYTES_MAX {
        return Err(MetadataError::InvalidRequest(format!("an object key has 1 to {OBJECT_KEY_BYTES_MAX} bytes")));
    }
    if row.data_bytes > row.object_bytes {
        return Err(MetadataError::InvalidRequest("a segment has more data than its object".into()));
    }
    Ok(())
}

/// I25. Below a log start that has left the committed range behind, a gap harms no one.
fn check_contiguity(row: &SegmentRow, extent: ExtentRow) -> Result<(), MetadataError> {
    let continues = row.base_offset == extent.remote_end;
    let bridges = extent.remote_end < row.base_offset && row.base_offset <= extent.log_start;
    let wanted = row.last_offset >= extent.log_start;
    if (continues || bridges) && wanted {
        return Ok(());
    }
    let expected = if wanted { extent.remote_end } else { extent.log_start };
    Err(MetadataError::NotContiguous { base_offset: row.base_offset, expected })
}
