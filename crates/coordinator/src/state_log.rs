//! Where the coordinator's state lives: a partitioned, compacted log behind a port.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use thiserror::Error;

use crate::messages::WriteGuard;
use crate::transaction::{ProducerIdAndEpoch, TxnMarker};

/// One record of the state: the newest value of a key counts, no value deletes the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRecord {
    /// Kafka's coordinator key: int16 record type, then its fields.
    pub key: Bytes,
    /// Kafka's coordinator value: int16 version, then its fields. `None` is a tombstone.
    pub value: Option<Bytes>,
}

impl StateRecord {
    /// Bytes of key and value.
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// Records of a producer's transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionalAppend {
    /// Whose.
    pub producer: ProducerIdAndEpoch,
    /// The proof that the transaction is open, if it begins in the partition with these.
    pub guard: Option<WriteGuard>,
    /// What to append.
    pub records: Vec<StateRecord>,
}

/// One append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateWrite {
    /// Plain records.
    Records(Vec<StateRecord>),
    /// Records of a transaction.
    Transactional(TransactionalAppend),
    /// The end of a transaction.
    Marker(TxnMarker),
}

/// What a replay finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// A plain record.
    Record(StateRecord),
    /// A record of a producer's transaction: it counts once that is committed.
    Transactional(i64, StateRecord),
    /// The end of a producer's transaction: committed, or else aborted.
    Marker(i64, bool),
}

/// A write or a replay failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StateLogError {
    /// The partition does not exist (yet).
    #[error("the partition does not exist")]
    UnknownPartition,
    /// This broker does not lead the partition.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// Too few in-sync replicas for acks=all.
    #[error("not enough in-sync replicas")]
    NotEnoughReplicas,
    /// Not committed in time. The records may still be committed later.
    #[error("not committed in time")]
    TimedOut,
    /// A record is larger than a batch of the log may be.
    #[error("a record is too large")]
    TooLarge,
    /// A newer epoch of the producer has been here.
    #[error("the producer's epoch is not the newest")]
    InvalidProducerEpoch,
    /// The transaction is not open in the partition, and the append brings no proof that it is elsewhere.
    #[error("the transaction is not open in the partition")]
    InvalidTxnState,
    /// A newer transaction coordinator has been here.
    #[error("a newer transaction coordinator has been here")]
    CoordinatorFenced,
    /// The disk or the bucket failed.
    #[error("storage error: {0}")]
    Storage(String),
}

/// A partitioned log of state records. Contract:
///
/// - [`append`](StateLog::append) returns `Ok` only when all the records are committed: durable on every in-sync replica. They are in the log in
///   the given order. After an error some, all or none of them may be in the log. A caller has one append per partition under way at a time.
/// - [`replay`](StateLog::replay) gives every record from the partition's log start up to what is committed when it begins or later, in
///   the log's order, whichever tier holds it, and ends.
#[async_trait]
pub trait StateLog: Send + Sync {
    /// Appends to `partition`.
    async fn append(&self, partition: i32, write: StateWrite) -> Result<(), StateLogError>;
    /// What `partition` holds, in pieces.
    fn replay(&self, partition: i32) -> BoxStream<'_, Result<Vec<Replayed>, StateLogError>>;
}
