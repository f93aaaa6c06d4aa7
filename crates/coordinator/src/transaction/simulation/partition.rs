//! What a partition's log does to keep transactions apart: epochs, markers, and guards for the first batch of a transaction (KIP-890).

use std::collections::{BTreeSet, HashMap};

use crate::{ProducerIdAndEpoch, StateLogError, TransactionVersion, TxnMarker};

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    InvalidProducerEpoch,
    NotOpen,
    CoordinatorFenced,
}

impl From<Refused> for StateLogError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::InvalidProducerEpoch => Self::InvalidProducerEpoch,
            Refused::NotOpen => Self::InvalidTxnState,
            Refused::CoordinatorFenced => Self::CoordinatorFenced,
        }
    }
}

#[derive(Default)]
struct ProducerEntry {
    epoch: i16,
    coordinator_epoch: i32,
    is_open: bool,
    /// The question whether a transaction is open, and the epoch that asked.
    guard: Option<(u64, i16, TransactionVersion)>,
    /// Values of the open transaction.
    open: Vec<u64>,
}

/// See the module.
#[derive(Default)]
pub(super) struct DataPartition {
    producers: HashMap<i64, ProducerEntry>,
    visible: BTreeSet<u64>,
    last_guard: u64,
}

impl DataPartition {
    /// A guard for a batch that would begin a transaction; `None` if it is open.
    pub(super) fn begin_verification(&mut self, producer: ProducerIdAndEpoch, version: TransactionVersion) -> Option<u64> {
        let entry = self.producers.entry(producer.producer_id).or_default();
        if entry.is_open && entry.epoch == producer.producer_epoch {
            return None;
        }
        self.last_guard += 1;
        let (guard, epoch, _) = entry.guard.get_or_insert((self.last_guard, producer.producer_epoch, version));
        *epoch = producer.producer_epoch.max(*epoch);
        Some(*guard)
    }

    pub(super) fn append(&mut self, producer: ProducerIdAndEpoch, value: u64, guard: Option<u64>) -> Result<(), Refused> {
        let entry = self.producers.entry(producer.producer_id).or_default();
        if producer.producer_epoch < entry.epoch {
            return Err(Refused::InvalidProducerEpoch);
        }
        let is_open = entry.is_open && entry.epoch == producer.producer_epoch;
        let is_verified = entry.guard.is_some_and(|(in_force, ..)| guard == Some(in_force));
        if !is_open && !is_verified {
            return Err(Refused::NotOpen);
        }
        assert!(is_open || !entry.is_open, "I20: a transaction begins before the one before has ended");
        (entry.epoch, entry.is_open, entry.guard) = (producer.producer_epoch, true, None);
        entry.open.push(value);
        Ok(())
    }

    pub(super) fn mark(&mut self, marker: TxnMarker) -> Result<(), Refused> {
        let TxnMarker { producer, coordinator_epoch, commit, version } = marker;
        let entry = self.producers.entry(producer.producer_id).or_default();
        let is_stale = version == TransactionVersion::V2 && producer.producer_epoch == entry.epoch && entry.is_open;
        if producer.producer_epoch < entry.epoch || is_stale {
            return Err(Refused::InvalidProducerEpoch);
        }
        if coordinator_epoch < entry.coordinator_epoch {
            return Err(Refused::CoordinatorFenced);
        }
        let next_asks = |(_, epoch, version): &_| *version == TransactionVersion::V2 && *epoch == producer.producer_epoch;
        entry.guard = entry.guard.filter(next_asks);
        (entry.epoch, entry.coordinator_epoch, entry.is_open) = (producer.producer_epoch, coordinator_epoch, false);
        let ended = std::mem::take(&mut entry.open);
        self.visible.extend(ended.into_iter().filter(|_| commit));
        Ok(())
    }

    /// What read_committed shows; nothing may be undecided.
    pub(super) fn visible(&self) -> BTreeSet<u64> {
        assert!(self.producers.values().all(|entry| !entry.is_open), "I20: a transaction stays open");
        self.visible.clone()
    }
}
