//! Which transactional batches and markers a pass may drop: Kafka's `CleanedTransactionMetadata`.
//!
//! The records of an aborted transaction go at once. A marker goes when no batch of its transaction is left, and that only after it was
//! kept for `delete.retention.ms` more: see [`super::filter`]. An aborted transaction stays in the index as long as any of its batches does.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::batch::BatchHeader;
use crate::producers::{AbortedTxn, EndTxnMarker};

/// See the module. Batches are to be shown to it in the order of their offsets.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// Aborted transactions that did not begin yet, by first offset.
    ahead: BTreeSet<(i64, i64, i64)>,
    last_stable_offsets: HashMap<(i64, i64), i64>,
    aborting: HashMap<i64, Aborting>,
    committing: HashSet<i64>,
    /// Aborted transactions with batches that are still here.
    kept: Vec<AbortedTxn>,
}

#[derive(Debug)]
struct Aborting {
    txn: AbortedTxn,
    has_batches: bool,
}

impl Transactions {
    /// Takes note of the aborted transactions of what will be read.
    pub(crate) fn add_aborted(&mut self, aborted: impl IntoIterator<Item = AbortedTxn>) {
        for txn in aborted {
            self.ahead.insert((txn.first_offset, txn.producer_id, txn.last_offset));
            self.last_stable_offsets.insert((txn.producer_id, txn.last_offset), txn.last_stable_offset);
        }
    }

    /// A data batch was read; true if it belongs to an aborted transaction, so that its records can go.
    pub(crate) fn data_batch(&mut self, header: &BatchHeader) -> bool {
        self.begin_up_to(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        match self.aborting.get_mut(&header.producer_id) {
            Some(aborting) => {
                aborting.has_batches = true;
                true
            }
            None => {
                self.committing.insert(header.producer_id);
                false
            }
        }
    }

    /// A control batch was read; true if no batch of its transaction was, so that it can go.
    pub(crate) fn control_batch(&mut self, header: &BatchHeader, batch: &[u8]) -> bool {
        self.begin_up_to(header.last_offset());
        if header.record_count == 0 {
            // It was emptied by an earlier pass.
            return true;
        }
        match EndTxnMarker::from_batch(header, batch) {
            Some(EndTxnMarker { commit: true, .. }) => !self.committing.remove(&header.producer_id),
            Some(_) => match self.aborting.remove(&header.producer_id) {
                Some(Aborting { txn, has_batches: true }) => {
                    self.kept.push(txn);
                    false
                }
                _ => true,
            },
            None => false,
        }
    }

    /// The aborted transactions whose markers were read since the last call and that have batches left.
    pub(crate) fn take_kept(&mut self) -> Vec<AbortedTxn> {
        std::mem::take(&mut self.kept)
    }

    fn begin_up_to(&mut self, offset: i64) {
        while let Some(&first @ (first_offset, producer_id, last_offset)) = self.ahead.first()
            && first_offset <= offset
        {
            self.ahead.remove(&first);
            let last_stable_offset = self.last_stable_offsets.remove(&(producer_id, last_offset)).unwrap_or(last_offset);
            let txn = AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset };
            self.aborting.entry(producer_id).or_insert(Aborting { txn, has_batches: false });
        }
    }
}
