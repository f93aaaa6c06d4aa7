//! Which transactions were asked about at their coordinator and not begun here yet (KIP-890).
//!
//! A transactional batch may begin a transaction in a partition only if the coordinator knows of it, or the transaction would never end. Between the
//! coordinator's word and the append the transaction may end, and another begin; so each question gets a *guard*, which the transaction's first
//! batch or its marker takes away, and only an append that brings the guard in force may begin the transaction (I20).
//! Nothing of this is stored: after a restart the question is asked again.

use std::collections::HashMap;

use crate::batch::{BatchHeader, NO_SEQUENCE};
use crate::error::AppendError;

/// The coordinator was asked about a producer's transaction for this append. Only good for one partition, and for one transaction.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct VerificationGuard(u64);

impl VerificationGuard {
    /// As a number, for those who only carry it.
    pub fn value(self) -> u64 {
        self.0
    }

    /// From [`VerificationGuard::value`]. A number that was made up is not in force.
    pub fn from_value(value: u64) -> Self {
        Self(value)
    }
}

#[derive(Clone, Debug)]
struct Entry {
    guard: VerificationGuard,
    epoch: i16,
    /// The lowest sequence that was asked for: higher ones wait for it, so that a retry of the first batch is not out of order.
    lowest_sequence: i32,
    /// The client speaks transactions version 2.
    bumps_epoch: bool,
    begun_ms: i64,
}

/// The open questions of one partition, by producer id.
#[derive(Clone, Debug, Default)]
pub(super) struct Verifications {
    entries: HashMap<i64, Entry>,
    last_guard: u64,
}

impl Verifications {
    /// The guard for a batch that may begin a transaction.
    pub(super) fn begin(&mut self, (producer_id, epoch): (i64, i16), sequence: i32, bumps_epoch: bool, now_ms: i64) -> VerificationGuard {
        let last_guard = &mut self.last_guard;
        let entry = self.entries.entry(producer_id).or_insert_with(|| {
            *last_guard += 1;
            Entry { guard: VerificationGuard(*last_guard), epoch, lowest_sequence: sequence, bumps_epoch, begun_ms: now_ms }
        });
        if epoch > entry.epoch {
            entry.epoch = epoch;
            entry.lowest_sequence = sequence;
        } else if epoch == entry.epoch {
            entry.lowest_sequence = entry.lowest_sequence.min(sequence);
        }
        entry.guard
    }

    /// True if `guard` is the one in force for the producer.
    pub(super) fn is_in_force(&self, producer_id: i64, guard: VerificationGuard) -> bool {
        self.entries.get(&producer_id).is_some_and(|entry| entry.guard == guard)
    }

    /// Sequences that Kafka refuses because of an open question. `has_batches`: the partition remembers batches of the producer.
    pub(super) fn check_sequence(&self, header: &BatchHeader, has_batches: bool) -> Result<(), AppendError> {
        let sequence = header.base_sequence;
        let Some(entry) = self.entries.get(&header.producer_id).filter(|_| sequence != NO_SEQUENCE) else { return Ok(()) };
        let must_be_first = entry.bumps_epoch && !has_batches;
        let expected = if must_be_first { 0 } else { entry.lowest_sequence };
        if (must_be_first && sequence != 0) || sequence > entry.lowest_sequence {
            return Err(AppendError::OutOfOrderSequence { producer_id: header.producer_id, expected, got: sequence });
        }
        Ok(())
    }

    /// The transaction has begun here.
    pub(super) fn transaction_begun(&mut self, producer_id: i64) {
        self.entries.remove(&producer_id);
    }

    /// A transaction's marker was written. With transactions version 2 it bears the raised epoch, which is that of the next transaction: that one's
    /// question stays open (KIP-890).
    pub(super) fn transaction_ended(&mut self, producer_id: i64, marker_epoch: i16) {
        if self.entries.get(&producer_id).is_some_and(|entry| !(entry.bumps_epoch && entry.epoch == marker_epoch)) {
            self.entries.remove(&producer_id);
        }
    }

    /// Forgets what nobody came back for.
    pub(super) fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.entries.retain(|_, entry| now_ms.saturating_sub(entry.begun_ms) < expiration_ms);
    }
}
