//! The coordinators: classic and consumer groups (KIP-848), committed offsets, and transactions, as pure state machines over a [`StateLog`].
//!
//! [`GroupCoordinator`] is the handle; each `__consumer_offsets` partition that this broker leads is one shard, which
//! replays its partition when it is elected and forgets everything when it resigns. The crate knows neither the wire nor
//! replication: requests and answers are plain structs, and records go through the port.

mod assignor;
mod classic;
mod cluster;
mod config;
mod consumer;
mod consumer_protocol;
mod coordinator;
mod driver;
mod error;
mod messages;
mod offsets;
mod partitions;
mod pending;
mod records;
mod shard;
mod state_log;
mod timers;
mod transaction;

pub use assignor::Assignor;
pub use cluster::{ChangedTopics, ClusterView, TopicView};
pub use config::{GroupCoordinatorConfig, MigrationPolicy};
pub use coordinator::GroupCoordinator;
pub use error::GroupError;
pub use messages::{
    CommitOffset, CommitOutcome, CommitRequest, CommittedOffset, ConsumerHeartbeatRequest, ConsumerHeartbeatResponse, DeleteOffsetsRequest,
    DescribedConsumerGroup, DescribedConsumerMember, DescribedGroup, DescribedMember, DescribedPartitions, FetchOffsetsRequest,
    HeartbeatRequest, JoinRequest, JoinResponse, JoinedMember, LeaveRequest, LeavingMember, LeftMember, ListGroupsRequest, ListedGroup,
    Protocol, Refusal, SyncRequest, SyncResponse, TopicPartition, TopicPartitions, TransactionalCommitRequest, WriteGuard,
};
pub use partitions::Leadership;
pub use state_log::{Replayed, StateLog, StateLogError, StateRecord, StateWrite, TransactionalAppend};
pub use transaction::{
    DescribedTransaction, EndTransactionRequest, InitProducerRequest, ListTransactionsRequest, ListedTransaction, ListedTransactions,
    MarkerOutcome, ProducerIdAndEpoch, ProducerIdError, ProducerIdSource, TransactionCoordinator, TransactionCoordinatorConfig,
    TransactionError, TransactionVersion, TxnMarker, TxnMarkerLog, TxnProducer,
};
