//! Why the coordinator refused a request: Kafka's group errors, nothing else.

use thiserror::Error;

use crate::driver::NotServed;
use crate::state_log::StateLogError;

/// A refusal. Each variant is the Kafka error code of the same name.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
pub enum GroupError {
    /// The partition of the group is being replayed: try again here.
    #[error("the coordinator is loading the group")]
    CoordinatorLoadInProgress,
    /// The group's partition can't be written now, or the group is being deleted: look the coordinator up again.
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// This broker does not lead the group's partition.
    #[error("this broker is not the coordinator of the group")]
    NotCoordinator,
    /// The generation is not the group's current one (I21).
    #[error("the generation is not the group's current one")]
    IllegalGeneration,
    /// No protocol of the member suits all other members.
    #[error("the member's protocols do not match the group's")]
    InconsistentGroupProtocol,
    /// The group id may not be empty or absurdly long.
    #[error("the group id is invalid")]
    InvalidGroupId,
    /// The group does not know the member (I21).
    #[error("the group does not know the member")]
    UnknownMemberId,
    /// The session timeout is outside `group.min.session.timeout.ms` and `group.max.session.timeout.ms`.
    #[error("the session timeout is outside the broker's limits")]
    InvalidSessionTimeout,
    /// The group rebalances: join again.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// Only a group without members can be deleted.
    #[error("the group has members")]
    NonEmptyGroup,
    /// There is no such group.
    #[error("the group does not exist")]
    GroupIdNotFound,
    /// Join again with the member id in the answer (KIP-394).
    #[error("join again with the given member id")]
    MemberIdRequired,
    /// The group has `group.max.size` members.
    #[error("the group has its maximum size")]
    GroupMaxSizeReached,
    /// Another member took the `group.instance.id` over (KIP-345).
    #[error("another member has the group instance id")]
    FencedInstanceId,
    /// A live group subscribes to the topic whose offsets should go (KIP-496).
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    /// The metadata of a commit is longer than `offset.metadata.max.bytes`.
    #[error("the offset's metadata is too large")]
    OffsetMetadataTooLarge,
    /// An open transaction holds the offset: try again (KIP-447).
    #[error("an open transaction holds the offset")]
    UnstableOffsetCommit,
    /// A newer producer has the transactional id (I20).
    #[error("the producer's epoch is not the newest")]
    InvalidProducerEpoch,
    /// The transaction is not open here.
    #[error("the transaction is not in a state that allows this")]
    InvalidTxnState,
    /// The marker is of a coordinator that is no longer in charge.
    #[error("a newer transaction coordinator is in charge")]
    TransactionCoordinatorFenced,
    /// The member's epoch is not the group's idea of it: it must give everything up and join anew (KIP-848).
    #[error("the member's epoch is fenced")]
    FencedMemberEpoch,
    /// The member's epoch is not the current one: it will learn of the new one with its next heartbeat (KIP-848).
    #[error("the member's epoch is stale")]
    StaleMemberEpoch,
    /// There is no server-side assignor of that name (KIP-848).
    #[error("the assignor is not supported")]
    UnsupportedAssignor,
    /// The instance id is still in use by another member (KIP-848).
    #[error("the group instance id is in use")]
    UnreleasedInstanceId,
    /// The expression is not RE2 syntax, or too large.
    #[error("the regular expression is invalid")]
    InvalidRegularExpression,
    /// Members of the consumer protocol must commit by OffsetCommit 9 or later (KIP-848).
    #[error("the request's version is too old for this group")]
    UnsupportedVersion,
    /// A field is impossible, such as a name of more than 32 KiB.
    #[error("the request is invalid")]
    InvalidRequest,
    /// The broker's own fault, such as group metadata larger than a batch may be.
    #[error("unexpected error")]
    UnknownServerError,
}

impl GroupError {
    /// True if the same request may succeed later, at this or another broker.
    pub fn retryable(self) -> bool {
        matches!(self, Self::CoordinatorLoadInProgress | Self::CoordinatorNotAvailable | Self::NotCoordinator | Self::UnstableOffsetCommit)
    }
}

impl From<NotServed> for GroupError {
    fn from(why: NotServed) -> Self {
        match why {
            NotServed::Loading => Self::CoordinatorLoadInProgress,
            NotServed::NotLed => Self::NotCoordinator,
        }
    }
}

impl From<&StateLogError> for GroupError {
    /// What Kafka answers when a write to `__consumer_offsets` fails.
    fn from(error: &StateLogError) -> Self {
        match error {
            StateLogError::UnknownPartition | StateLogError::NotEnoughReplicas | StateLogError::TimedOut => Self::CoordinatorNotAvailable,
            StateLogError::NotLeader | StateLogError::Storage(_) => Self::NotCoordinator,
            StateLogError::TooLarge => Self::UnknownServerError,
            StateLogError::InvalidProducerEpoch => Self::InvalidProducerEpoch,
            StateLogError::InvalidTxnState => Self::InvalidTxnState,
            StateLogError::CoordinatorFenced => Self::TransactionCoordinatorFenced,
        }
    }
}
