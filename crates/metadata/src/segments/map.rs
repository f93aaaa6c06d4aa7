//! The segment map over the store.
//!
//! Overview: each change is one or more transactions of the store, whose preconditions are the whole of its safety: the topic's row
//! exists, the row of the partition's leader epoch and the partition's extent are as read. So no lock is needed, and a service that
//! was replaced can do no harm.
//!
//! Invariants: a commit continues the committed range, by the current leader, of a living topic (I25), and takes its intent away in the same
//! transaction, so an intent that garbage collection took can't be committed any more; objects are named as garbage only when neither a committed row nor
//! an intent names them (I29); the log start rises before any segment is marked (I28).
//!
//! Crash consistency: an extent always counts exactly the committed rows there are, since both change in one transaction. A raise of
//! the log start that was cut short is finished by the next one.

use std::sync::Arc;

use bytes::Bytes;
use siltstone_common::{Env, TopicIdPartition};

use super::keys::{self, ExtentRow};
use super::{RemoteExtent, SegmentRow, SegmentState};
use crate::api::MetadataError;
use crate::rows::{self, ChunkRow, RowError};
use crate::store::{MetadataStore, PAGE_ROWS_MAX, Precondition, Range, StoreError, TXN_OPS_MAX, Txn, TxnOutcome, Write};

/// Segments marked by one transaction: two writes each, beside the preconditions and the extent.
const MARKED_PER_TXN: usize = (TXN_OPS_MAX - 8) / 2;
/// How often a change is tried again when another one came between.
const ATTEMPTS: usize = 32;
/// Longest object key, bytes: what S3 allows.
const OBJECT_KEY_BYTES_MAX: usize = 1024;

impl From<StoreError> for MetadataError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
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
}

/// What a change of a partition's segments is judged on, and what must still hold when it happens.
struct Current {
    leader_epoch: i32,
    extent: ExtentRow,
    when: Vec<Precondition>,
}

impl Current {
    /// Only the leader of the newest epoch may change anything (I25).
    fn check_epoch(&self, leader_epoch: i32) -> Result<(), MetadataError> {
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
    pub(crate) fn new(store: Arc<dyn MetadataStore>, env: Env) -> Self {
        Self { store, env }
    }

    async fn current(&self, id: TopicIdPartition) -> Result<Current, MetadataError> {
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
            check_contiguity(&row, current.extent)?;
            let [_, Some(intent)] = &found[..] else {
                return Err(MetadataError::Conflict("the segment's intent has expired: register another attempt".into()));
            };
            let mut extent = current.extent;
            if extent.segments == 0 {
                extent.remote_start = row.base_offset;
            }
            extent.remote_end = row.last_offset.saturating_add(1);
            extent.remote_bytes = extent.remote_bytes.saturating_add(row.data_bytes);
            extent.segments += 1;
            let mut when = current.when;
            when.push(Precondition::Revision(intent_key.clone(), intent.revision));
            let then = vec![
                Write::Delete(intent_key.clone()),
                Write::put(segment_key.clone(), rows::encode(&row)),
                Write::put(keys::extent(row.id), rows::encode(extent)),
            ];
            if let TxnOutcome::Committed(_) = self.store.txn(Txn { when, then }).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// The committed segment that holds `offset`, else the first after it.
    pub(crate) async fn find(&self, id: TopicIdPartition, offset: i64) -> Result<Option<SegmentRow>, MetadataError> {
        Ok(self.list(id, offset, 1).await?.into_iter().next())
    }

    /// The first committed segment whose largest timestamp is >= `timestamp_ms`. Timestamps need not rise with offsets, so rows are
    /// looked at in order.
    pub(crate) async fn find_by_time(&self, id: TopicIdPartition, timestamp_ms: i64) -> Result<Option<SegmentRow>, MetadataError> {
        let mut from = 0;
        loop {
            let rows = self.list(id, from, PAGE_ROWS_MAX).await?;
            let Some(last) = rows.last() else { return Ok(None) };
            from = last.last_offset.saturating_add(1);
            if let Some(found) = rows.into_iter().find(|row| row.max_timestamp_ms >= timestamp_ms) {
                return Ok(Some(found));
            }
        }
    }

    /// Committed segments from the one that holds `from` on.
    pub(crate) async fn list(&self, id: TopicIdPartition, from: i64, limit: usize) -> Result<Vec<SegmentRow>, MetadataError> {
        let limit = limit.min(PAGE_ROWS_MAX);
        let below = Range { from: keys::segment(id, 0), to: keys::segment(id, from.saturating_add(1).max(0)), limit: 1, reverse: true };
        let holder = self.rows(below).await?.into_iter().find(|row| row.last_offset >= from);
        let start = holder.as_ref().map_or(from, |row| row.base_offset);
        let after = Range { from: keys::segment(id, start), to: keys::segments_end(id), limit, reverse: false };
        self.rows(after).await
    }

    async fn rows(&self, range: Range) -> Result<Vec<SegmentRow>, MetadataError> {
        let page = self.store.range(range).await?;
        page.rows.iter().map(|row| rows::decode(&row.key, &row.value).map_err(MetadataError::from)).collect()
    }

    /// What of the partition is remote.
    pub(crate) async fn extent(&self, id: TopicIdPartition) -> Result<RemoteExtent, MetadataError> {
        Ok(self.current(id).await?.extent.into())
    }

    /// Raises the log start (I28, first step) and marks the segments wholly below it.
    pub(crate) async fn raise_log_start(&self, id: TopicIdPartition, leader_epoch: i32, offset: i64) -> Result<(), MetadataError> {
        if offset < 0 {
            return Err(MetadataError::InvalidRequest(format!("log start offset {offset} is negative")));
        }
        let mut conflicts = 0;
        while conflicts < ATTEMPTS {
            let current = self.current(id).await?;
            current.check_epoch(leader_epoch)?;
            let Some((txn, more)) = self.marking(id, &current, offset).await? else { return Ok(()) };
            match self.store.txn(txn).await? {
                TxnOutcome::Committed(_) if !more => return Ok(()),
                TxnOutcome::Committed(_) => {}
                TxnOutcome::Conflict => conflicts += 1,
            }
        }
        Err(contended())
    }

    /// The next transaction of a raise, and whether more follow; `None` if nothing is left to do.
    async fn marking(&self, id: TopicIdPartition, current: &Current, offset: i64) -> Result<Option<(Txn, bool)>, MetadataError> {
        let mut extent = current.extent;
        extent.log_start = extent.log_start.max(offset);
        let range = Range { from: keys::segment(id, 0), to: keys::segments_end(id), limit: MARKED_PER_TXN + 1, reverse: false };
        let mut below = self.rows(range).await?;
        let first_kept = below.iter().position(|row| row.last_offset >= extent.log_start);
        let kept_base = first_kept.map(|index| below[index].base_offset);
        below.truncate(first_kept.unwrap_or(below.len()));
        let more = below.len() > MARKED_PER_TXN;
        let next_base = if more { below.last().map(|row| row.base_offset) } else { kept_base };
        below.truncate(MARKED_PER_TXN);
        if extent == current.extent && below.is_empty() {
            return Ok(None);
        }
        extent.remote_start = next_base.unwrap_or(extent.remote_end);
        let since_ms = self.env.clock.now_ms();
        let mut then = Vec::with_capacity(2 * below.len() + 1);
        for row in below {
            extent.segments = extent.segments.saturating_sub(1);
            extent.remote_bytes = extent.remote_bytes.saturating_sub(row.data_bytes);
            then.extend(mark(keys::segment(id, row.base_offset), row, since_ms));
        }
        debug_assert!(extent.remote_start <= extent.remote_end, "remote range is in order (I1)");
        then.push(Write::put(keys::extent(id), rows::encode(extent)));
        Ok(Some((Txn { when: current.when.clone(), then }, more)))
    }
}

/// Turns a row at `key` into garbage.
pub(super) fn mark(key: Bytes, mut row: SegmentRow, since_ms: i64) -> [Write; 2] {
    row.state = SegmentState::DeleteStarted { since_ms };
    [Write::Delete(key), Write::put(keys::gone(&row), rows::encode(&row))]
}

fn contended() -> MetadataError {
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
