//! The transaction coordinator (KIP-98, KIP-360, KIP-890): transactional ids, their producers and their open transactions, as a pure state machine
//! over a [`StateLog`](crate::StateLog) that holds `__transaction_state`.
//!
//! [`TransactionCoordinator`] is the handle. Each partition of `__transaction_state` that this broker leads is one [`shard`], replayed at election and
//! forgotten at resignation. A transaction ends in two steps, each a record: *prepare* decides the outcome for ever, then the markers go to
//! every partition of the transaction ([`TxnMarkerLog`]), then *complete* lets the next transaction begin (I19). A shard that finds a prepared
//! transaction in its log writes the markers again, so a crash between the steps changes nothing.
//!
//! Fencing (I20): whoever asks must name the producer id and the epoch in force. Clients of transactions version 2 get a new epoch with every end of a
//! transaction, so a request of an earlier transaction can never meet a later one; clients of version 1 get one with each InitProducerId.

mod config;
mod coordinator;
mod end;
mod error;
mod markers;
mod messages;
mod metadata;
mod ports;
mod records;
mod shard;
#[cfg(test)]
mod simulation;

pub use config::TransactionCoordinatorConfig;
pub use coordinator::TransactionCoordinator;
pub use error::TransactionError;
pub use messages::{
    DescribedTransaction, EndTransactionRequest, InitProducerRequest, ListTransactionsRequest, ListedTransaction, ListedTransactions,
    ProducerIdAndEpoch, TransactionVersion, TxnProducer,
};
pub use ports::{MarkerOutcome, ProducerIdError, ProducerIdSource, TxnMarker, TxnMarkerLog};
