//! What the coordinator needs of the broker beyond its log.

use async_trait::async_trait;
use thiserror::Error;

use crate::messages::TopicPartition;
use crate::transaction::messages::{ProducerIdAndEpoch, TransactionVersion};

/// No producer id could be had now.
#[derive(Clone, Debug, Error)]
#[error("no producer id to give: {0}")]
pub struct ProducerIdError(pub String);

/// Producer ids that nobody ever had.
#[async_trait]
pub trait ProducerIdSource: Send + Sync {
    /// The next one.
    async fn next_producer_id(&self) -> Result<i64, ProducerIdError>;
}

/// The end of a transaction, as it is written into its partitions.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TxnMarker {
    /// Whose transaction.
    pub producer: ProducerIdAndEpoch,
    /// Leader epoch of the coordinator's partition: fences coordinators that lost it.
    pub coordinator_epoch: i32,
    /// Committed, or else aborted.
    pub commit: bool,
    /// What the client that ended it speaks: markers of version 2 must carry a newer epoch than the data.
    pub version: TransactionVersion,
}

/// What became of a marker in one partition.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum MarkerOutcome {
    /// It is committed.
    Written,
    /// The partition does not exist any more: nothing is left to mark.
    Gone,
    /// Not now: try again.
    Retry,
    /// A newer coordinator or producer was here: this coordinator must leave the transaction alone.
    Fenced,
}

/// Writes markers into partitions, wherever they are led. Contract: an outcome per partition, in their order; `Written` means durable on every
/// in-sync replica. Writing a marker again that was written before is harmless.
#[async_trait]
pub trait TxnMarkerLog: Send + Sync {
    /// Ends the transaction in each of `partitions`.
    async fn write(&self, marker: TxnMarker, partitions: &[TopicPartition]) -> Vec<MarkerOutcome>;
}
