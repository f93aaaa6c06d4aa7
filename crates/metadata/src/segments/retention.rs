//! The raise of the log start (I28): first the offset in the extent, then segments wholly below it become garbage.

use siltstone_common::TopicIdPartition;

use super::SegmentState;
use super::keys::{self, ExtentRow, FoldRow};
use super::map::{ATTEMPTS, Current, SegmentMap, contended, mark};
use crate::api::MetadataError;
use crate::rows;
use crate::store::{TXN_OPS_MAX, Txn, TxnOutcome, Write};

/// Segments marked by one transaction: two writes each, beside the preconditions and the extent.
const MARKED_PER_TXN: usize = (TXN_OPS_MAX - 8) / 2;

/// What a step of a raise does: the extent after it, what to write beside it, and whether more may follow.
struct Step {
    extent: ExtentRow,
    writes: Vec<Write>,
    more: bool,
}

impl SegmentMap {
    /// Raises the log start and marks the segments wholly below it.
    pub(crate) async fn raise_log_start(&self, id: TopicIdPartition, leader_epoch: i32, offset: i64) -> Result<(), MetadataError> {
        if offset < 0 {
            return Err(MetadataError::InvalidRequest(format!("log start offset {offset} is negative")));
        }
        let mut conflicts = 0;
        while conflicts < ATTEMPTS {
            let current = self.current(id).await?;
            current.check_epoch(leader_epoch)?;
            let step = self.step(id, &current, offset).await?;
            if step.extent == current.extent && step.writes.is_empty() {
                return Ok(());
            }
            debug_assert!(step.extent.remote_start <= step.extent.remote_end, "remote range is in order (I1)");
            debug_assert!(step.extent.folded <= step.extent.segments, "folded segments are segments");
            let mut then = step.writes;
            then.push(Write::put(keys::extent(id), rows::encode(step.extent)));
            match self.store.txn(Txn { when: current.when, then }).await? {
                TxnOutcome::Committed(_) if !step.more => return Ok(()),
                TxnOutcome::Committed(_) => {}
                TxnOutcome::Conflict => conflicts += 1,
            }
        }
        Err(contended())
    }

    async fn step(&self, id: TopicIdPartition, current: &Current, offset: i64) -> Result<Step, MetadataError> {
        let mut extent = current.extent;
        extent.log_start = extent.log_start.max(offset);
        if extent.folded == 0 {
            return self.step_rows(id, extent).await;
        }
        let folds = self.folds(id, 0, 1).await?;
        let Some(fold) = folds.into_iter().next().filter(|fold| fold.live_from < extent.log_start) else {
            return Ok(Step { extent, writes: Vec::new(), more: false });
        };
        match self.step_fold(fold, extent).await {
            Err(error) => {
                // The bucket is away: the log start rises all the same, and the next raise marks what this one could not.
                tracing::warn!(partition = %id, %error, "segments below the log start are marked later");
                Ok(Step { extent, writes: Vec::new(), more: false })
            }
            step => step,
        }
    }

    async fn step_rows(&self, id: TopicIdPartition, mut extent: ExtentRow) -> Result<Step, MetadataError> {
        let mut below = self.rows_from(id, 0, MARKED_PER_TXN + 1).await?;
        let first_kept = below.iter().position(|row| row.last_offset >= extent.log_start);
        let kept_base = first_kept.map(|index| below[index].base_offset);
        below.truncate(first_kept.unwrap_or(below.len()));
        let more = below.len() > MARKED_PER_TXN;
        let next_base = if more { below.last().map(|row| row.base_offset) } else { kept_base };
        below.truncate(MARKED_PER_TXN);
        extent.remote_start = next_base.unwrap_or(extent.remote_end);
        let since_ms = self.env.clock.now_ms();
        let mut writes = Vec::with_capacity(2 * below.len());
        for row in below {
            extent.segments = extent.segments.saturating_sub(1);
            extent.remote_bytes = extent.remote_bytes.saturating_sub(row.data_bytes);
            writes.extend(mark(keys::segment(id, row.base_offset), row, since_ms));
        }
        Ok(Step { extent, writes, more })
    }

    /// Marks what of the first fold lies below the log start, and its object too when that is all of it.
    async fn step_fold(&self, mut fold: FoldRow, mut extent: ExtentRow) -> Result<Step, MetadataError> {
        let live = self.fold_rows(&fold).await?;
        let (below, kept): (Vec<_>, Vec<_>) = live.into_iter().partition(|row| row.last_offset < extent.log_start);
        let marked = u64::try_from(below.len()).unwrap_or(u64::MAX);
        extent.segments = extent.segments.saturating_sub(marked);
        extent.folded = extent.folded.saturating_sub(marked);
        extent.remote_bytes = extent.remote_bytes.saturating_sub(below.iter().map(|row| row.data_bytes).sum());
        let since_ms = self.env.clock.now_ms();
        let key = keys::fold(fold.id, fold.first_offset);
        let mut writes: Vec<Write> = below.into_iter().map(|row| mark(key.clone(), row, since_ms)).map(|[_, gone]| gone).collect();
        if let Some(first) = kept.first() {
            extent.remote_start = first.base_offset;
            if !writes.is_empty() {
                fold.live_from = first.base_offset;
                fold.segments = u64::try_from(kept.len()).unwrap_or(u64::MAX);
                writes.push(Write::put(key, rows::encode(&fold)));
            }
            return Ok(Step { extent, writes, more: false });
        }
        extent.remote_start = fold.last_offset.saturating_add(1);
        let object = fold.object(SegmentState::Committed);
        writes.extend(mark(key, object, since_ms));
        Ok(Step { extent, writes, more: true })
    }
}
