//! Finding segments by offset and by time: in the rows, and for the older ones in the index objects that folds name.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use siltstone_common::TopicIdPartition;

use super::SegmentRow;
use super::keys::{self, ExtentRow, FoldRow};
use super::map::{ATTEMPTS, SegmentMap, contended};
use crate::api::MetadataError;
use crate::rows;
use crate::store::{PAGE_ROWS_MAX, Range};

/// Folds read by one page of a lookup.
const FOLDS_PER_PAGE: usize = 64;

impl SegmentMap {
    /// The committed segment that holds `offset`, else the first after it.
    pub(crate) async fn find(&self, id: TopicIdPartition, offset: i64) -> Result<Option<SegmentRow>, MetadataError> {
        Ok(self.list(id, offset, 1).await?.into_iter().next())
    }

    /// The first committed segment whose largest timestamp is >= `timestamp_ms`. Timestamps need not rise with offsets, so folds and rows
    /// are looked at in order.
    pub(crate) async fn find_by_time(&self, id: TopicIdPartition, timestamp_ms: i64) -> Result<Option<SegmentRow>, MetadataError> {
        for _ in 0..ATTEMPTS {
            let before = self.folded(id).await?;
            let found = self.find_by_time_once(id, timestamp_ms).await?;
            if self.folded(id).await? == before {
                return Ok(found);
            }
        }
        Err(contended())
    }

    async fn find_by_time_once(&self, id: TopicIdPartition, timestamp_ms: i64) -> Result<Option<SegmentRow>, MetadataError> {
        let late = |row: &SegmentRow| row.max_timestamp_ms >= timestamp_ms;
        let mut from = 0;
        loop {
            let folds = self.folds(id, from, FOLDS_PER_PAGE).await?;
            let Some(last) = folds.last() else { break };
            from = last.last_offset.saturating_add(1);
            for fold in folds.iter().filter(|fold| fold.max_timestamp_ms >= timestamp_ms) {
                if let Some(row) = self.fold_rows(fold).await?.into_iter().find(late) {
                    return Ok(Some(row));
                }
            }
        }
        loop {
            let rows = self.rows_from(id, from, PAGE_ROWS_MAX).await?;
            let Some(last) = rows.last() else { return Ok(None) };
            from = last.last_offset.saturating_add(1);
            if let Some(row) = rows.into_iter().find(late) {
                return Ok(Some(row));
            }
        }
    }

    /// Committed segments from the one that holds `from` on.
    pub(crate) async fn list(&self, id: TopicIdPartition, from: i64, limit: usize) -> Result<Vec<SegmentRow>, MetadataError> {
        let limit = limit.min(PAGE_ROWS_MAX);
        let below = Range { from: keys::segment(id, 0), to: keys::segment(id, from.saturating_add(1).max(0)), limit: 1, reverse: true };
        if let Some(holder) = self.read::<SegmentRow>(below).await?.into_iter().next().filter(|row| row.last_offset >= from) {
            let rows = self.rows_from(id, holder.base_offset, limit).await?;
            // Rows are folded from the oldest on: where the first is there, so are the others.
            if limit == 0 || rows.first().is_some_and(|first| first.base_offset == holder.base_offset) {
                return Ok(rows);
            }
        }
        for _ in 0..ATTEMPTS {
            let before = self.folded(id).await?;
            let found = self.list_once(id, from, limit).await?;
            if self.folded(id).await? == before {
                return Ok(found);
            }
        }
        Err(contended())
    }

    async fn list_once(&self, id: TopicIdPartition, from: i64, limit: usize) -> Result<Vec<SegmentRow>, MetadataError> {
        let mut found = Vec::new();
        let mut next = from;
        while found.len() < limit {
            let folds = self.folds(id, next, 1).await?;
            let Some(fold) = folds.first() else { break };
            next = fold.last_offset.saturating_add(1);
            found.extend(self.fold_rows(fold).await?.into_iter().filter(|row| row.last_offset >= from));
        }
        found.truncate(limit);
        if found.len() < limit {
            let below = Range { from: keys::segment(id, 0), to: keys::segment(id, next.saturating_add(1).max(0)), limit: 1, reverse: true };
            let holder = self.read::<SegmentRow>(below).await?.into_iter().next().filter(|row| row.last_offset >= next);
            let start = holder.map_or(next, |row| row.base_offset);
            found.extend(self.rows_from(id, start, limit - found.len()).await?);
        }
        Ok(found)
    }

    /// What changes whenever rows move into an index object or out of one: a lookup that sees it change looks again.
    async fn folded(&self, id: TopicIdPartition) -> Result<(u64, i64), MetadataError> {
        let row = self.store.get(&keys::extent(id)).await?;
        let extent = row.map(|row| rows::decode::<ExtentRow>(&row.key, &row.value)).transpose()?.unwrap_or_default();
        Ok((extent.folded, extent.remote_start))
    }

    /// Rows whose base offset is `from` or above.
    pub(super) async fn rows_from(&self, id: TopicIdPartition, from: i64, limit: usize) -> Result<Vec<SegmentRow>, MetadataError> {
        self.read(Range { from: keys::segment(id, from), to: keys::segments_end(id), limit, reverse: false }).await
    }

    /// Folds from the one that holds `from` on.
    pub(super) async fn folds(&self, id: TopicIdPartition, from: i64, limit: usize) -> Result<Vec<FoldRow>, MetadataError> {
        let below = Range { from: keys::fold(id, 0), to: keys::fold(id, from.saturating_add(1).max(0)), limit: 1, reverse: true };
        let holder = self.read::<FoldRow>(below).await?.into_iter().next().filter(|fold| fold.last_offset >= from);
        let start = holder.map_or(from, |fold| fold.first_offset);
        self.read(Range { from: keys::fold(id, start), to: keys::folds_end(id), limit, reverse: false }).await
    }

    /// The fold of the newest segments that are folded.
    pub(super) async fn newest_fold(&self, id: TopicIdPartition) -> Result<Option<FoldRow>, MetadataError> {
        let all = Range { from: keys::fold(id, 0), to: keys::folds_end(id), limit: 1, reverse: true };
        Ok(self.read(all).await?.into_iter().next())
    }

    /// The segments of a fold that are not gone.
    pub(super) async fn fold_rows(&self, fold: &FoldRow) -> Result<Vec<SegmentRow>, MetadataError> {
        let Some(folding) = &self.folding else {
            let text = format!(
                "segments {} to {} of {} are in the bucket's index, but no bucket is set",
                fold.first_offset, fold.last_offset, fold.id
            );
            return Err(MetadataError::Unavailable(text));
        };
        let rows = folding.reader.rows(fold).await?;
        Ok(rows.iter().filter(|row| row.base_offset >= fold.live_from).cloned().collect())
    }

    async fn read<T: DeserializeOwned>(&self, range: Range) -> Result<Vec<T>, MetadataError> {
        let page = self.store.range(range).await?;
        page.rows.iter().map(|row| rows::decode(&row.key, &row.value).map_err(MetadataError::from)).collect()
    }
}

/// The first key after `key`.
pub(super) fn after(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}
