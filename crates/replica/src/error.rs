//! Why a partition request was refused.

use siltstone_log::AppendError;
use siltstone_metadata::MetadataError;
use thiserror::Error;

/// Why a partition request was refused. Each variant is one Kafka error code.
#[derive(Debug, Error)]
pub enum ReplicaError {
    /// UNKNOWN_TOPIC_OR_PARTITION (UNKNOWN_TOPIC_ID if asked by id).
    #[error("unknown topic or partition")]
    UnknownPartition,
    /// NOT_LEADER_OR_FOLLOWER
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// FENCED_LEADER_EPOCH (I10)
    #[error("leader epoch {got} is older than {current}")]
    FencedLeaderEpoch {
        /// In the request.
        got: i32,
        /// Here.
        current: i32,
    },
    /// UNKNOWN_LEADER_EPOCH (I10)
    #[error("leader epoch {got} is newer than {current}")]
    UnknownLeaderEpoch {
        /// In the request.
        got: i32,
        /// Here.
        current: i32,
    },
    /// OFFSET_OUT_OF_RANGE
    #[error("offset {offset} is not in [{start}, {end}]")]
    OffsetOutOfRange {
        /// Asked for.
        offset: i64,
        /// Log start.
        start: i64,
        /// What may be read up to.
        end: i64,
    },
    /// OFFSET_NOT_AVAILABLE (KIP-207): a new leader has not reached its epoch's start yet.
    #[error("offset not available yet")]
    OffsetNotAvailable,
    /// NOT_ENOUGH_REPLICAS
    #[error("fewer in-sync replicas than min.insync.replicas")]
    NotEnoughReplicas,
    /// NOT_ENOUGH_REPLICAS_AFTER_APPEND
    #[error("in-sync replicas fell below min.insync.replicas after the append")]
    NotEnoughReplicasAfterAppend,
    /// REQUEST_TIMED_OUT
    #[error("not committed in time")]
    TimedOut,
    /// INVALID_REQUIRED_ACKS
    #[error("acks must be -1, 0 or 1")]
    InvalidRequiredAcks,
    /// INVALID_TOPIC_EXCEPTION: a client writes to an internal topic.
    #[error("clients can't write to an internal topic")]
    InternalTopic,
    /// POLICY_VIOLATION
    #[error("{0}")]
    PolicyViolation(String),
    /// The append's own reasons.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// KAFKA_STORAGE_ERROR: the local disk or the bucket can't be read now.
    #[error("storage error: {0}")]
    Storage(String),
    /// The metadata service.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}
