//! Why the coordinator refused a request: Kafka's transaction errors, nothing else.

use thiserror::Error;

use crate::driver::NotServed;
use crate::state_log::StateLogError;

/// A refusal. Each variant is the Kafka error code of the same name.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
pub enum TransactionError {
    /// The partition of the transactional id is being replayed: try again here.
    #[error("the coordinator is loading the transactional id")]
    CoordinatorLoadInProgress,
    /// The partition can't be written now: look the coordinator up again.
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// This broker does not lead the partition of the transactional id.
    #[error("this broker is not the coordinator of the transactional id")]
    NotCoordinator,
    /// A field is impossible, such as an empty transactional id.
    #[error("the request is invalid")]
    InvalidRequest,
    /// The timeout is not within 1 and `transaction.max.timeout.ms`.
    #[error("the transaction timeout is larger than the maximum value allowed by the broker, or not positive")]
    InvalidTransactionTimeout,
    /// The transactional id is not known, or belongs to another producer id.
    #[error("the producer id is not the one assigned to the transactional id")]
    InvalidProducerIdMapping,
    /// Another producer with the same transactional id is newer (I20).
    #[error("a newer producer with the same transactional id fences this one")]
    ProducerFenced,
    /// Another change of the same transactional id is under way: try again.
    #[error("another request for the same transactional id is under way")]
    ConcurrentTransactions,
    /// The transaction is not in a state in which this could be done.
    #[error("the transaction is not in a state that allows this")]
    InvalidTxnState,
    /// The partition is not in the transaction: the client must abort it.
    #[error("the partition is not part of the transaction: abort it")]
    TransactionAbortable,
    /// There is no such transactional id.
    #[error("the transactional id does not exist")]
    TransactionalIdNotFound,
    /// The broker's own fault, such as a transaction with more partitions than a record can hold.
    #[error("unexpected error")]
    UnknownServerError,
}

impl TransactionError {
    /// True if the same request may succeed later, at this or another broker.
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Self::CoordinatorLoadInProgress | Self::CoordinatorNotAvailable | Self::NotCoordinator | Self::ConcurrentTransactions
        )
    }
}

impl From<NotServed> for TransactionError {
    fn from(why: NotServed) -> Self {
        match why {
            NotServed::Loading => Self::CoordinatorLoadInProgress,
            NotServed::NotLed => Self::NotCoordinator,
        }
    }
}

impl From<&StateLogError> for TransactionError {
    /// What Kafka answers when a write to `__transaction_state` fails.
    fn from(error: &StateLogError) -> Self {
        match error {
            StateLogError::UnknownPartition | StateLogError::NotEnoughReplicas | StateLogError::TimedOut => Self::CoordinatorNotAvailable,
            StateLogError::NotLeader | StateLogError::Storage(_) => Self::NotCoordinator,
            // Producers have no say in the state of transactional ids.
            StateLogError::TooLarge
            | StateLogError::InvalidProducerEpoch
            | StateLogError::InvalidTxnState
            | StateLogError::CoordinatorFenced => Self::UnknownServerError,
        }
    }
}
