//! One transactional id: what is stored of it, and what each change makes of that. Pure; the rules are those of Kafka's `TransactionMetadata`.

use std::collections::BTreeSet;

use crate::messages::TopicPartition;
use crate::transaction::error::TransactionError;
use crate::transaction::messages::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID, ProducerIdAndEpoch, TransactionVersion};

/// Where a transaction stands. The numbers are those of the records.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TransactionState {
    Empty = 0,
    Ongoing = 1,
    PrepareCommit = 2,
    PrepareAbort = 3,
    CompleteCommit = 4,
    CompleteAbort = 5,
}

impl TransactionState {
    pub(crate) const ALL: [Self; 6] =
        [Self::Empty, Self::Ongoing, Self::PrepareCommit, Self::PrepareAbort, Self::CompleteCommit, Self::CompleteAbort];

    pub(crate) fn from_id(id: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as i8 == id)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// True for Kafka's names of states; two of them are never seen from outside.
    pub(crate) fn is_name(name: &str) -> bool {
        Self::ALL.iter().any(|state| state.name() == name) || matches!(name, "Dead" | "PrepareEpochFence")
    }

    /// Decided, but not marked everywhere yet.
    pub(crate) fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

/// What is stored of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TransactionData {
    pub(crate) producer_id: i64,
    /// The producer id before the last change; -1 for none.
    pub(crate) previous_producer_id: i64,
    /// The producer id that a client got whose epochs were used up, until its transaction is complete; -1 for none.
    pub(crate) next_producer_id: i64,
    /// -1 until the first InitProducerId is committed.
    pub(crate) producer_epoch: i16,
    /// The epoch before the last bump, to know a retry by; -1 for none. Not stored, as in Kafka.
    pub(crate) last_producer_epoch: i16,
    pub(crate) timeout_ms: i32,
    pub(crate) state: TransactionState,
    pub(crate) partitions: BTreeSet<TopicPartition>,
    /// -1 for none.
    pub(crate) start_timestamp_ms: i64,
    pub(crate) last_update_timestamp_ms: i64,
    pub(crate) client_version: TransactionVersion,
}

/// A transactional id with what is under way for it.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) data: TransactionData,
    /// A change is being written, or markers are.
    pub(crate) pending: bool,
}

/// The last epoch that a producer may be given is one below the maximum, so that it can always be fenced.
pub(crate) fn is_epoch_exhausted(epoch: i16) -> bool {
    epoch >= i16::MAX - 1
}

impl Transaction {
    pub(crate) fn new(data: TransactionData) -> Self {
        Self { data, pending: false }
    }

    /// An id that nobody used before; it has no epoch until its first InitProducerId is committed.
    pub(crate) fn created(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Self {
        Self::new(TransactionData {
            producer_id,
            previous_producer_id: NO_PRODUCER_ID,
            next_producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            last_producer_epoch: NO_PRODUCER_EPOCH,
            timeout_ms,
            state: TransactionState::Empty,
            partitions: BTreeSet::new(),
            start_timestamp_ms: -1,
            last_update_timestamp_ms: now_ms,
            client_version: TransactionVersion::V1,
        })
    }

    pub(crate) fn producer(&self) -> ProducerIdAndEpoch {
        ProducerIdAndEpoch { producer_id: self.data.producer_id, producer_epoch: self.data.producer_epoch }
    }

    /// Refuses who does not have the producer id and epoch in force.
    pub(crate) fn check_producer(&self, asked: ProducerIdAndEpoch) -> Result<(), TransactionError> {
        if self.data.producer_id != asked.producer_id {
            return Err(TransactionError::InvalidProducerIdMapping);
        }
        if self.data.producer_epoch != asked.producer_epoch {
            return Err(TransactionError::ProducerFenced);
        }
        Ok(())
    }

    pub(crate) fn is_epoch_exhausted(&self) -> bool {
        is_epoch_exhausted(self.data.producer_epoch)
    }

    /// True if InitProducerId must give a new producer id: there is no epoch left for whoever has the one in force, or had it until it was fenced.
    pub(crate) fn must_rotate(&self, expected_epoch: Option<i16>) -> bool {
        let TransactionData { producer_epoch, last_producer_epoch, .. } = self.data;
        let is_fenced_last = |epoch| producer_epoch == i16::MAX && epoch == last_producer_epoch;
        self.is_epoch_exhausted() && expected_epoch.is_none_or(|epoch| epoch == producer_epoch || is_fenced_last(epoch))
    }

    /// The data with what every change has in common.
    fn next(&self, state: TransactionState) -> TransactionData {
        TransactionData { state, previous_producer_id: self.data.producer_id, ..self.data.clone() }
    }

    /// InitProducerId within the same producer id: the next epoch, or for a retry the same again (KIP-360).
    pub(crate) fn increment_epoch(
        &self,
        timeout_ms: i32,
        expected_epoch: Option<i16>,
        now_ms: i64,
    ) -> Result<TransactionData, TransactionError> {
        let TransactionData { producer_epoch, last_producer_epoch, .. } = self.data;
        let (epoch, last_epoch) = match expected_epoch {
            None => (producer_epoch + 1, NO_PRODUCER_EPOCH),
            Some(expected) if producer_epoch == NO_PRODUCER_EPOCH || expected == producer_epoch => (producer_epoch + 1, producer_epoch),
            Some(expected) if expected == last_producer_epoch => (producer_epoch, last_producer_epoch),
            Some(_) => return Err(TransactionError::ProducerFenced),
        };
        Ok(TransactionData {
            producer_epoch: epoch,
            last_producer_epoch: last_epoch,
            timeout_ms,
            partitions: BTreeSet::new(),
            start_timestamp_ms: -1,
            last_update_timestamp_ms: now_ms,
            ..self.next(TransactionState::Empty)
        })
    }

    /// InitProducerId when the epochs of the producer id are used up. `last_epoch` is the one that the client named, if it did.
    pub(crate) fn rotate_producer_id(&self, producer_id: i64, timeout_ms: i32, now_ms: i64, last_epoch: Option<i16>) -> TransactionData {
        TransactionData {
            producer_id,
            producer_epoch: 0,
            last_producer_epoch: last_epoch.unwrap_or(NO_PRODUCER_EPOCH),
            timeout_ms,
            partitions: BTreeSet::new(),
            start_timestamp_ms: -1,
            last_update_timestamp_ms: now_ms,
            ..self.next(TransactionState::Empty)
        }
    }

    /// More partitions; the first begin the transaction.
    pub(crate) fn add_partitions(&self, added: &[TopicPartition], now_ms: i64, version: TransactionVersion) -> TransactionData {
        let is_open = self.data.state == TransactionState::Ongoing;
        let mut next = self.next(TransactionState::Ongoing);
        if !is_open {
            next.start_timestamp_ms = now_ms;
        }
        next.partitions.extend(added.iter().cloned());
        next.last_update_timestamp_ms = now_ms;
        next.client_version = version;
        next
    }

    /// The outcome is decided. Version 2 bumps the epoch, or hands out `next_producer_id` if the epochs are used up.
    pub(crate) fn prepare_end(
        &self,
        commit: bool,
        version: TransactionVersion,
        next_producer_id: i64,
        now_ms: i64,
        has_no_partitions: bool,
    ) -> TransactionData {
        let state = if commit { TransactionState::PrepareCommit } else { TransactionState::PrepareAbort };
        let mut next = self.next(state);
        if version == TransactionVersion::V2 {
            next.last_producer_epoch = self.data.producer_epoch;
            next.producer_epoch = self.data.producer_epoch.saturating_add(1);
        }
        if has_no_partitions {
            next.start_timestamp_ms = now_ms;
        }
        next.next_producer_id = next_producer_id;
        next.last_update_timestamp_ms = now_ms;
        next.client_version = version;
        next
    }

    /// All markers are written: the next transaction may begin.
    pub(crate) fn complete(&self, now_ms: i64) -> TransactionData {
        let state = match self.data.state {
            TransactionState::PrepareCommit => TransactionState::CompleteCommit,
            _ => TransactionState::CompleteAbort,
        };
        let mut next = self.next(state);
        if self.data.client_version == TransactionVersion::V2 && self.data.next_producer_id != NO_PRODUCER_ID {
            next.producer_id = self.data.next_producer_id;
            next.producer_epoch = 0;
        }
        next.next_producer_id = NO_PRODUCER_ID;
        next.partitions = BTreeSet::new();
        next.last_update_timestamp_ms = now_ms;
        next
    }
}
