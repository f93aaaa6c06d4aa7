//! What stays of a batch: the rules of Kafka's `Cleaner` and `MemoryRecords.filterTo`.
//!
//! A tombstone, and a marker without a transaction, is first kept with a *delete horizon* in its batch (attribute bit 6, the time as the base
//! timestamp) and goes once that has passed, so that a reader who is not slower than `delete.retention.ms` sees it; but never while part of the
//! log lies only in the bucket, which compaction does not reach: what it deletes there would come back. Offsets never change: a
//! rewritten batch keeps base and last offset. A batch without records is kept where something hangs on it: the last of its producer (sequence
//! and epoch), and the last of a segment (where it ends).

use std::collections::HashMap;

use super::offset_map::OffsetMap;
use super::transactions::Transactions;
use crate::batch::{BatchError, BatchHeader};
use crate::producers::LastRecord;
use crate::records::{Record, empty_batch, inflate, rebuilt_batch, records};
use crate::validate::INFLATED_BYTES_MAX;

/// See the module.
#[derive(Debug)]
pub(crate) struct Filter<'a> {
    pub(crate) map: &'a OffsetMap,
    pub(crate) transactions: &'a mut Transactions,
    /// The newest of each producer.
    pub(crate) last_records: &'a HashMap<i64, LastRecord>,
    pub(crate) now_ms: i64,
    /// `delete.retention.ms`
    pub(crate) delete_retention_ms: i64,
    /// All of the log takes part, from the log start on: tombstones and markers may go when their time has come.
    pub(crate) is_whole: bool,
}

/// What became of a batch.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// As it is.
    Whole,
    /// Something else, or nothing, was written.
    Changed,
}

impl Filter<'_> {
    /// Appends to `out` what stays of `batch`; of the last batch of a segment something always does.
    pub(crate) fn apply(&mut self, header: &BatchHeader, batch: &[u8], is_last: bool, out: &mut Vec<u8>) -> Result<Kept, BatchError> {
        let is_control = header.is_control();
        let can_go = if is_control { self.transactions.control_batch(header, batch) } else { self.transactions.data_batch(header) };
        let horizon_ms = header.delete_horizon_ms();
        let drop_records = can_go && (!is_control || self.is_past(horizon_ms));
        let keep_empty = is_last || self.is_last_of_producer(header);
        if drop_records || header.record_count == 0 {
            return Ok(keep_empty_batch(header, keep_empty, out));
        }
        let body = inflate(header, batch, INFLATED_BYTES_MAX)?;
        let (mut stay, mut kept, mut has_tombstones) = (Vec::<u64>::new(), 0, false);
        for (record, index) in records(header, &body).zip(0usize..) {
            let record = record?;
            if index.is_multiple_of(64) {
                stay.push(0);
            }
            if (is_control || self.stays(&record, horizon_ms))
                && let Some(word) = stay.last_mut()
            {
                *word |= 1 << (index % 64);
                kept += 1;
                has_tombstones |= record.value.is_none();
            }
        }
        if kept == 0 {
            return Ok(keep_empty_batch(header, keep_empty, out));
        }
        let new_horizon = horizon_ms.is_none() && (has_tombstones || (can_go && is_control));
        if !new_horizon && kept == header.record_count {
            out.extend_from_slice(batch);
            return Ok(Kept::Whole);
        }
        let horizon_ms = if new_horizon { Some(self.now_ms.saturating_add(self.delete_retention_ms)) } else { horizon_ms };
        // Read once more instead of kept in a list: a record may be smaller than an entry of it.
        let left = records(header, &body).flatten().zip(0usize..).filter(|(_, index)| stay[index / 64] >> (index % 64) & 1 == 1);
        rebuilt_batch(header, left.map(|(record, _)| record), horizon_ms, out);
        Ok(Kept::Changed)
    }

    /// True if the record is the newest of its key, and not a deletion that everyone has seen.
    fn stays(&self, record: &Record<'_>, horizon_ms: Option<i64>) -> bool {
        if record.offset > self.map.latest_offset() {
            return true;
        }
        // A record without a key, from before the topic was compacted, has no place in it.
        let Some(key) = record.key else { return false };
        let is_newest = self.map.get(key).is_none_or(|newest| record.offset >= newest);
        is_newest && (record.value.is_some() || !self.is_past(horizon_ms))
    }

    fn is_past(&self, horizon_ms: Option<i64>) -> bool {
        self.is_whole && horizon_ms.is_some_and(|horizon_ms| horizon_ms <= self.now_ms)
    }

    /// True if sequence or epoch of an active producer would be lost with the batch.
    fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        if !header.has_producer_id() {
            return false;
        }
        self.last_records.get(&header.producer_id).is_some_and(|last| match last.data_offset {
            Some(offset) => header.last_offset() == offset,
            None => header.is_control() && header.producer_epoch == last.epoch,
        })
    }
}

fn keep_empty_batch(header: &BatchHeader, keep: bool, out: &mut Vec<u8>) -> Kept {
    if !keep {
        return Kept::Changed;
    }
    empty_batch(header, out);
    if header.record_count == 0 { Kept::Whole } else { Kept::Changed }
}
