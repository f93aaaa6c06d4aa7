//! Requests and answers, as the wire has them but for their encoding.

use crate::messages::TopicPartition;

/// No producer id.
pub(crate) const NO_PRODUCER_ID: i64 = -1;
/// No producer epoch.
pub(crate) const NO_PRODUCER_EPOCH: i16 = -1;

/// How a client ends its transactions: the levels of the feature `transaction.version` that differ in behaviour.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionVersion {
    /// Levels 0 and 1: one epoch per producer, partitions are announced by AddPartitionsToTxn.
    V1,
    /// Level 2 (KIP-890): a new epoch with each end of a transaction, partitions join with their first Produce.
    V2,
}

impl TransactionVersion {
    /// The feature level, as records and markers carry it.
    pub fn level(self) -> i16 {
        match self {
            Self::V1 => 0,
            Self::V2 => 2,
        }
    }

    /// What a feature level means.
    pub fn from_level(level: i16) -> Self {
        if level >= 2 { Self::V2 } else { Self::V1 }
    }
}

/// A producer id and its epoch; both -1 for none.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProducerIdAndEpoch {
    /// The id.
    pub producer_id: i64,
    /// The epoch.
    pub producer_epoch: i16,
}

impl ProducerIdAndEpoch {
    /// No producer.
    pub const NONE: Self = Self { producer_id: NO_PRODUCER_ID, producer_epoch: NO_PRODUCER_EPOCH };
}

/// InitProducerId with a transactional id.
#[derive(Clone, Debug)]
pub struct InitProducerRequest {
    /// Whose.
    pub transactional_id: String,
    /// How long its transactions may stay open.
    pub timeout_ms: i32,
    /// What the producer has now, if it recovers from an error (KIP-360).
    pub expected: Option<ProducerIdAndEpoch>,
}

/// Who asks about a transaction.
#[derive(Clone, Debug)]
pub struct TxnProducer {
    /// Its transactional id.
    pub transactional_id: String,
    /// Its producer id and epoch.
    pub producer: ProducerIdAndEpoch,
}

/// EndTxn.
#[derive(Clone, Debug)]
pub struct EndTransactionRequest {
    /// Who asks.
    pub who: TxnProducer,
    /// Commit, or else abort.
    pub commit: bool,
    /// What the client speaks.
    pub version: TransactionVersion,
}

/// One transactional id in DescribeTransactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedTransaction {
    /// The producer.
    pub producer: ProducerIdAndEpoch,
    /// State, by Kafka's name.
    pub state: &'static str,
    /// Its timeout.
    pub timeout_ms: i32,
    /// When the transaction began; -1 if none is open.
    pub start_timestamp_ms: i64,
    /// What belongs to it, sorted.
    pub partitions: Vec<TopicPartition>,
}

/// ListTransactions.
#[derive(Clone, Debug, Default)]
pub struct ListTransactionsRequest {
    /// States to list; empty for all.
    pub states: Vec<String>,
    /// Producer ids to list; empty for all.
    pub producer_ids: Vec<i64>,
    /// Only transactions that run longer than so many ms; negative for all.
    pub duration_ms: i64,
}

/// A transactional id in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTransaction {
    /// The transactional id.
    pub transactional_id: String,
    /// Its producer id.
    pub producer_id: i64,
    /// State, by Kafka's name.
    pub state: &'static str,
}

/// The answer to ListTransactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedTransactions {
    /// States asked for that don't exist.
    pub unknown_states: Vec<String>,
    /// What was found.
    pub transactions: Vec<ListedTransaction>,
}
