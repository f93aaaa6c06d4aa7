//! What the log knows of its producers: epochs, the last five batches each (for retries), open transactions, and the
//! aborted-transaction index (KIP-98). I8, I17, I18.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::batch::BatchHeader;
use crate::error::AppendError;

/// A finished, aborted transaction: records of `producer_id` in `[first_offset, last_offset]` are not for read_committed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortedTxn {
    /// The producer.
    pub producer_id: i64,
    /// First offset of the transaction in this partition.
    pub first_offset: i64,
    /// Offset of the abort marker.
    pub last_offset: i64,
    /// The last stable offset once this abort was written.
    pub last_stable_offset: i64,
}

/// What the check of a batch found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// Not idempotent, or in sequence: append it.
    Append,
    /// Already there: answer with these offsets and append nothing.
    Duplicate {
        /// The original first offset.
        base_offset: i64,
        /// The original last offset.
        last_offset: i64,
        /// The timestamp then, ms.
        timestamp_ms: i64,
    },
}

/// State of one producer, as DescribeProducers shows it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ProducerInfo {
    /// Id.
    pub producer_id: i64,
    /// Epoch.
    pub producer_epoch: i16,
    /// Last sequence; -1 if none.
    pub last_sequence: i32,
    /// Timestamp of its last batch, ms.
    pub last_timestamp_ms: i64,
    /// Epoch of the coordinator that wrote its last marker; -1 if none.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction.
    pub current_txn_start_offset: Option<i64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ProducerStates {
    _private: (),
}

impl ProducerStates {
    /// Checks a client's batch against what is known (sequence, epoch), changing nothing. A first sequence above zero for an
    /// unknown producer id is refused so that the client retries in order (KAFKA-15591).
    pub fn check(&self, header: &BatchHeader) -> Result<SequenceCheck, AppendError> {
        let _ = header;
        todo!()
    }

    /// Takes note of an appended batch: client's or marker (`control_key` is the first record's key of a control batch).
    /// Returns the aborted transaction if the batch ended one so.
    pub fn appended(&mut self, header: &BatchHeader, control_key: Option<&[u8]>) -> Option<AbortedTxn> {
        let _ = (header, control_key);
        todo!()
    }

    /// First offset of the oldest open transaction: the last stable offset is at most this.
    pub fn first_undecided_offset(&self) -> Option<i64> {
        todo!()
    }

    /// Forgets producers idle for longer than `expiration_ms` with no open transaction.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        let _ = (now_ms, expiration_ms);
        todo!()
    }

    /// All active producers.
    pub fn list(&self) -> Vec<ProducerInfo> {
        todo!()
    }

    /// The versioned, checksummed snapshot (golden file) of the state as of `offset`.
    pub fn snapshot(&self, offset: i64) -> Bytes {
        let _ = offset;
        todo!()
    }

    /// From a snapshot: the state and its offset.
    pub fn load(snapshot: &[u8]) -> Result<(Self, i64), crate::error::LogError> {
        let _ = snapshot;
        todo!()
    }
}
