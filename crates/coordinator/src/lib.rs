//! The coordinators: consumer groups and committed offsets, and transactions, as pure state machines over a [`StateLog`].
//!
//! [`GroupCoordinator`] is the handle; each `__consumer_offsets` partition that this broker leads is one shard, which
//! replays its partition when it is elected and forgets everything when it resigns. The crate knows neither the wire nor
//! replication: requests and answers are plain structs, and records go through the port.

mod classic;
mod config;
mod consumer_protocol;
mod coordinator;
mod driver;
mod error;
mod messages;
mod offsets;
mod pending;
mod records;
mod shard;
mod state_log;
mod timers;
mod transaction;

pub use config::GroupCoordinatorConfig;
pub use coordinator::GroupCoordinator;
pub use error::GroupError;
pub use messages::{
    CommitOffset, CommitOutcome, CommitRequest, CommittedOffset, DeleteOffsetsRequest, DescribedGroup, DescribedMember,
    FetchOffsetsRequest, HeartbeatRequest, JoinRequest, JoinResponse, JoinedMember, LeaveRequest, LeavingMember, LeftMember,
    ListGroupsRequest, ListedGroup, Protocol, SyncRequest, SyncResponse, TopicPartition, TransactionalCommitRequest, WriteGuard,
};
pub use state_log::{Replayed, StateLog, StateLogError, StateRecord, TransactionalAppend};
pub use transaction::{
    DescribedTransaction, EndTransactionRequest, InitProducerRequest, ListTransactionsRequest, ListedTransaction, ListedTransactions,
    MarkerOutcome, ProducerIdAndEpoch, ProducerIdError, ProducerIdSource, TransactionCoordinator, TransactionCoordinatorConfig,
    TransactionError, TransactionVersion, TxnMarker, TxnMarkerLog, TxnProducer,
};
