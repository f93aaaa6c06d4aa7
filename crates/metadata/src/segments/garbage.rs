//! Objects that may go (I29): what is below the log start, what was never committed, what belonged to deleted topics.
//!
//! Everything passes through `gone` rows: a row is first marked (and can from then on be neither read nor committed), and named to
//! whoever deletes objects only a grace period later, so that readers and uploads that still know the object are done with it.

use bytes::Bytes;
use siltstone_common::TopicId;

use super::keys::{self, FoldRow};
use super::lookup::after;
use super::map::{SegmentMap, mark};
use super::{SegmentRow, SegmentState};
use crate::api::MetadataError;
use crate::rows::{self, DeletedRow};
use crate::store::{Precondition, Range, Row, TXN_OPS_MAX, Txn, Write};

impl SegmentMap {
    /// Rows whose objects may go now, at most `limit`.
    pub(crate) async fn garbage(&self, grace_ms: i64, limit: usize) -> Result<Vec<SegmentRow>, MetadataError> {
        let now_ms = self.env.clock.now_ms();
        self.take_expired_intents(now_ms).await?;
        self.take_deleted_topics(limit).await?;
        let to = keys::gone_end(now_ms.saturating_sub(grace_ms.max(0)));
        let page = self.store.range(Range { from: keys::GONE.into(), to, limit, reverse: false }).await?;
        page.rows.iter().map(|row| rows::decode(&row.key, &row.value).map_err(MetadataError::from)).collect()
    }

    /// Forgets rows whose objects are deleted.
    pub(crate) async fn forget(&self, rows: Vec<SegmentRow>) -> Result<(), MetadataError> {
        if let Some(alive) = rows.iter().find(|row| !matches!(row.state, SegmentState::DeleteStarted { .. })) {
            return Err(MetadataError::InvalidRequest(format!("segment {} at {} is not garbage", alive.id, alive.base_offset)));
        }
        let mut keys: Vec<Bytes> = rows.iter().map(keys::gone).collect();
        keys.sort_unstable();
        keys.dedup();
        for part in keys.chunks(TXN_OPS_MAX) {
            let then = part.iter().cloned().map(Write::Delete).collect();
            self.store.txn(Txn { when: Vec::new(), then }).await?;
        }
        Ok(())
    }

    /// Uploads that were not committed in time: from here on they can't be.
    async fn take_expired_intents(&self, now_ms: i64) -> Result<(), MetadataError> {
        let mut range = Range::prefix(keys::INTENT.as_bytes());
        loop {
            let page = self.store.range(range.clone()).await?;
            let expired = page.rows.iter().filter_map(|row| match rows::decode::<SegmentRow>(&row.key, &row.value) {
                Ok(intent) => {
                    let over = matches!(intent.state, SegmentState::Intent { deadline_ms } if deadline_ms <= now_ms);
                    over.then_some(Ok((row, intent)))
                }
                Err(error) => Some(Err(error)),
            });
            let expired = expired.collect::<Result<Vec<_>, _>>()?;
            self.mark_all(expired, now_ms).await?;
            match page.rows.last().filter(|_| page.more) {
                Some(last) => range.from = after(&last.key),
                None => return Ok(()),
            }
        }
    }

    async fn mark_all(&self, rows: Vec<(&Row, SegmentRow)>, since_ms: i64) -> Result<(), MetadataError> {
        for part in rows.chunks(TXN_OPS_MAX / 3) {
            let mut txn = Txn::default();
            for (row, segment) in part {
                txn.when.push(Precondition::Revision(row.key.clone(), row.revision));
                txn.then.extend(mark(row.key.clone(), segment.clone(), since_ms));
            }
            // On a conflict one of them was committed or taken meanwhile: the next call looks again.
            self.store.txn(txn).await?;
        }
        Ok(())
    }

    /// Segments of deleted topics, at most `limit`; a topic without any left is forgotten.
    async fn take_deleted_topics(&self, limit: usize) -> Result<(), MetadataError> {
        let topics = self.store.range(Range { limit: limit.max(1), ..Range::prefix(rows::DELETED.as_bytes()) }).await?;
        let mut left = limit;
        for topic in topics.rows {
            let deleted: DeletedRow = rows::decode(&topic.key, &topic.value)?;
            let id = String::from_utf8_lossy(&topic.key[rows::DELETED.len()..]).parse();
            let id = id.map_err(|_| MetadataError::Unavailable(format!("malformed key of deleted topic {}", deleted.name)))?;
            if !self.take_folds(id, deleted.since_ms).await? {
                continue;
            }
            let page = self.store.range(Range { limit: left, ..Range::prefix(&keys::of_topic(keys::SEGMENT, id)) }).await?;
            let found = page.rows.iter().map(|row| Ok((row, rows::decode(&row.key, &row.value)?)));
            let found = found.collect::<Result<Vec<_>, rows::RowError>>()?;
            self.mark_all(found, deleted.since_ms).await?;
            left -= page.rows.len();
            if page.more || left == 0 {
                return Ok(());
            }
            // An upload may be under way, and make its object yet: its intent goes when its time is over, and the topic after it.
            if !self.store.range(Range { limit: 1, ..Range::prefix(&keys::of_topic(keys::INTENT, id)) }).await?.rows.is_empty() {
                continue;
            }
            let extents = self.store.range(Range { limit: TXN_OPS_MAX, ..Range::prefix(&keys::of_topic(keys::EXTENT, id)) }).await?;
            let mut then: Vec<_> = extents.rows.into_iter().map(|row| Write::Delete(row.key)).collect();
            if then.len() < TXN_OPS_MAX {
                then.push(Write::Delete(topic.key));
            }
            self.store.txn(Txn { when: Vec::new(), then }).await?;
        }
        Ok(())
    }

    /// Segments of a deleted topic that are in index objects, and these; false if one can't be read now.
    async fn take_folds(&self, topic: TopicId, since_ms: i64) -> Result<bool, MetadataError> {
        loop {
            let page = self.store.range(Range { limit: 1, ..Range::prefix(&keys::of_topic(keys::FOLD, topic)) }).await?;
            let Some(row) = page.rows.first() else { return Ok(true) };
            let fold: FoldRow = rows::decode(&row.key, &row.value)?;
            let segments = match self.fold_rows(&fold).await {
                Ok(segments) => segments,
                Err(error) => {
                    tracing::warn!(partition = %fold.id, %error, "segments of a deleted topic stay for now");
                    return Ok(false);
                }
            };
            let object = fold.object(SegmentState::Committed);
            let mut then: Vec<Write> =
                segments.into_iter().map(|segment| mark(row.key.clone(), segment, since_ms)).map(|[_, gone]| gone).collect();
            then.extend(mark(row.key.clone(), object, since_ms));
            self.store.txn(Txn { when: vec![Precondition::Revision(row.key.clone(), row.revision)], then }).await?;
        }
    }
}
