//! Errors of the inner crates as Kafka's error codes: exhaustive matches, no `_`.

use kafka_protocol::ResponseError;
use siltstone_coordinator::{GroupError, TransactionError};
use siltstone_log::AppendError;
use siltstone_metadata::MetadataError;
use siltstone_replica::ReplicaError;

/// Why what an operator asks for is not done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refused {
    /// The client may not ask for it.
    #[error("{}", words(*.0))]
    Denied(ResponseError),
    /// The metadata service says no.
    #[error(transparent)]
    Metadata(MetadataError),
}

/// Kafka's words for what the authorizer refuses; other errors by their names.
pub(crate) fn words(error: ResponseError) -> String {
    match error {
        ResponseError::TopicAuthorizationFailed => "Topic authorization failed.".to_owned(),
        ResponseError::GroupAuthorizationFailed => "Group authorization failed.".to_owned(),
        ResponseError::ClusterAuthorizationFailed => "Cluster authorization failed.".to_owned(),
        ResponseError::TransactionalIdAuthorizationFailed => "Transactional Id authorization failed.".to_owned(),
        other => other.to_string(),
    }
}

impl Refused {
    /// The wire code.
    pub(crate) fn code(&self) -> ResponseError {
        match self {
            Refused::Denied(error) => *error,
            Refused::Metadata(error) => metadata_error(error),
        }
    }
}

impl From<ResponseError> for Refused {
    fn from(error: ResponseError) -> Self {
        Refused::Denied(error)
    }
}

impl From<MetadataError> for Refused {
    fn from(error: MetadataError) -> Self {
        Refused::Metadata(error)
    }
}

/// The answer with the code and the words of a refusal, or as it is.
macro_rules! with_error {
    ($answer:expr, $outcome:expr) => {{
        let answer = $answer;
        match $outcome {
            Ok(()) => answer,
            Err(error) => {
                let error = $crate::error_codes::Refused::from(error);
                let code = error.code().code();
                answer.with_error_code(code).with_error_message(Some($crate::topic_lookup::text(error)))
            }
        }
    }};
}
pub(crate) use with_error;

/// The wire code of a refused partition request.
pub fn replica_error(error: &ReplicaError) -> ResponseError {
    match error {
        ReplicaError::UnknownPartition => ResponseError::UnknownTopicOrPartition,
        ReplicaError::NotLeader => ResponseError::NotLeaderOrFollower,
        ReplicaError::FencedLeaderEpoch { .. } => ResponseError::FencedLeaderEpoch,
        ReplicaError::UnknownLeaderEpoch { .. } => ResponseError::UnknownLeaderEpoch,
        ReplicaError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
        ReplicaError::OffsetNotAvailable => ResponseError::OffsetNotAvailable,
        ReplicaError::NotEnoughReplicas => ResponseError::NotEnoughReplicas,
        ReplicaError::NotEnoughReplicasAfterAppend => ResponseError::NotEnoughReplicasAfterAppend,
        ReplicaError::TimedOut => ResponseError::RequestTimedOut,
        ReplicaError::InvalidRequiredAcks => ResponseError::InvalidRequiredAcks,
        ReplicaError::InternalTopic => ResponseError::InvalidTopicException,
        ReplicaError::PolicyViolation(_) => ResponseError::PolicyViolation,
        ReplicaError::Append(error) => append_error(error),
        ReplicaError::Storage(_) => ResponseError::KafkaStorageError,
        ReplicaError::Metadata(error) => metadata_error(error),
    }
}

/// The wire code of a refused append.
pub fn append_error(error: &AppendError) -> ResponseError {
    match error {
        AppendError::Corrupt(_) => ResponseError::CorruptMessage,
        AppendError::InvalidRecord(_) | AppendError::KeylessRecords(_) => ResponseError::InvalidRecord,
        AppendError::MessageTooLarge { .. } => ResponseError::MessageTooLarge,
        AppendError::RecordListTooLarge { .. } => ResponseError::RecordListTooLarge,
        AppendError::UnsupportedFormat(_) => ResponseError::UnsupportedForMessageFormat,
        AppendError::UnsupportedCompression(_) => ResponseError::UnsupportedCompressionType,
        AppendError::InvalidTimestamps(_) => ResponseError::InvalidTimestamp,
        AppendError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        AppendError::UnknownProducerId(_) => ResponseError::UnknownProducerId,
        AppendError::InvalidProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
        AppendError::InvalidTxnState(_) => ResponseError::InvalidTxnState,
        AppendError::StaleLeaderEpoch { .. } => ResponseError::NotLeaderOrFollower,
        AppendError::Deleted => ResponseError::UnknownTopicOrPartition,
        AppendError::CoordinatorFenced { .. } => ResponseError::TransactionCoordinatorFenced,
        AppendError::NoSpace | AppendError::Offline(_) => ResponseError::KafkaStorageError,
    }
}

/// The wire code of a refusal by the metadata service.
pub fn metadata_error(error: &MetadataError) -> ResponseError {
    match error {
        MetadataError::TopicExists(_) => ResponseError::TopicAlreadyExists,
        MetadataError::UnknownTopic(_) | MetadataError::UnknownPartition(_) => ResponseError::UnknownTopicOrPartition,
        MetadataError::UnknownTopicId(_) => ResponseError::UnknownTopicId,
        MetadataError::InvalidTopic(_) => ResponseError::InvalidTopicException,
        MetadataError::InvalidPartitions(_) => ResponseError::InvalidPartitions,
        MetadataError::InvalidReplicationFactor(_) => ResponseError::InvalidReplicationFactor,
        MetadataError::InvalidReplicaAssignment(_) => ResponseError::InvalidReplicaAssignment,
        MetadataError::PolicyViolation(_) => ResponseError::PolicyViolation,
        MetadataError::InvalidConfig(_) => ResponseError::InvalidConfig,
        MetadataError::InvalidRequest(_) | MetadataError::NotContiguous { .. } => ResponseError::InvalidRequest,
        MetadataError::UnknownBroker(_) => ResponseError::BrokerIdNotRegistered,
        MetadataError::DuplicateBroker => ResponseError::DuplicateBrokerRegistration,
        MetadataError::StaleBrokerEpoch => ResponseError::StaleBrokerEpoch,
        MetadataError::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch,
        MetadataError::Conflict(_) | MetadataError::InvalidFeature(_) => ResponseError::InvalidUpdateVersion,
        MetadataError::QuotaExceeded => ResponseError::ThrottlingQuotaExceeded,
        MetadataError::ElectionNotNeeded => ResponseError::ElectionNotNeeded,
        MetadataError::PreferredLeaderNotAvailable => ResponseError::PreferredLeaderNotAvailable,
        MetadataError::EligibleLeadersNotAvailable => ResponseError::EligibleLeadersNotAvailable,
        MetadataError::NoReassignment => ResponseError::NoReassignmentInProgress,
        MetadataError::WrongCluster(_) => ResponseError::InconsistentClusterId,
        MetadataError::Unavailable(_) => ResponseError::CoordinatorNotAvailable,
    }
}

/// The wire code of a refusal by the group coordinator.
pub fn group_error(error: GroupError) -> ResponseError {
    match error {
        GroupError::CoordinatorLoadInProgress => ResponseError::CoordinatorLoadInProgress,
        GroupError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
        GroupError::NotCoordinator => ResponseError::NotCoordinator,
        GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
        GroupError::InconsistentGroupProtocol => ResponseError::InconsistentGroupProtocol,
        GroupError::InvalidGroupId => ResponseError::InvalidGroupId,
        GroupError::UnknownMemberId => ResponseError::UnknownMemberId,
        GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
        GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
        GroupError::NonEmptyGroup => ResponseError::NonEmptyGroup,
        GroupError::GroupIdNotFound => ResponseError::GroupIdNotFound,
        GroupError::MemberIdRequired => ResponseError::MemberIdRequired,
        GroupError::GroupMaxSizeReached => ResponseError::GroupMaxSizeReached,
        GroupError::FencedInstanceId => ResponseError::FencedInstanceId,
        GroupError::GroupSubscribedToTopic => ResponseError::GroupSubscribedToTopic,
        GroupError::OffsetMetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
        GroupError::UnstableOffsetCommit => ResponseError::UnstableOffsetCommit,
        GroupError::InvalidProducerEpoch => ResponseError::InvalidProducerEpoch,
        GroupError::InvalidTxnState => ResponseError::InvalidTxnState,
        GroupError::TransactionCoordinatorFenced => ResponseError::TransactionCoordinatorFenced,
        GroupError::FencedMemberEpoch => ResponseError::FencedMemberEpoch,
        GroupError::StaleMemberEpoch => ResponseError::StaleMemberEpoch,
        GroupError::UnsupportedAssignor => ResponseError::UnsupportedAssignor,
        GroupError::UnreleasedInstanceId => ResponseError::UnreleasedInstanceId,
        GroupError::InvalidRegularExpression => ResponseError::InvalidRegularExpression,
        GroupError::UnsupportedVersion => ResponseError::UnsupportedVersion,
        GroupError::InvalidRequest => ResponseError::InvalidRequest,
        GroupError::UnknownServerError => ResponseError::UnknownServerError,
    }
}

/// The wire code of a refusal by the transaction coordinator.
pub fn transaction_error(error: TransactionError) -> ResponseError {
    match error {
        TransactionError::CoordinatorLoadInProgress => ResponseError::CoordinatorLoadInProgress,
        TransactionError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
        TransactionError::NotCoordinator => ResponseError::NotCoordinator,
        TransactionError::InvalidRequest => ResponseError::InvalidRequest,
        TransactionError::InvalidTransactionTimeout => ResponseError::InvalidTransactionTimeout,
        TransactionError::InvalidProducerIdMapping => ResponseError::InvalidProducerIdMapping,
        TransactionError::ProducerFenced => ResponseError::ProducerFenced,
        TransactionError::ConcurrentTransactions => ResponseError::ConcurrentTransactions,
        TransactionError::InvalidTxnState => ResponseError::InvalidTxnState,
        TransactionError::TransactionAbortable => ResponseError::TransactionAbortable,
        TransactionError::TransactionalIdNotFound => ResponseError::TransactionalIdNotFound,
        TransactionError::UnknownServerError => ResponseError::UnknownServerError,
    }
}

/// As [`transaction_error`], for requests below the first version of theirs that knows PRODUCER_FENCED.
pub fn transaction_code(error: TransactionError, knows_fenced: bool) -> i16 {
    match transaction_error(error) {
        ResponseError::ProducerFenced if !knows_fenced => ResponseError::InvalidProducerEpoch.code(),
        code => code.code(),
    }
}

/// The code on the wire: 0 for success.
pub fn group_code<T>(result: &Result<T, GroupError>) -> i16 {
    result.as_ref().err().map_or(0, |error| group_error(*error).code())
}
