//! What can go wrong, per operation.

use thiserror::Error;

use crate::batch::BatchError;

/// Opening, recovering or maintaining a log failed.
#[derive(Debug, Error)]
pub enum LogError {
    /// The disk said no. After a failed sync the log is offline (I38).
    #[error("i/o error on {path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A stored file does not check out.
    #[error("{path} is corrupt: {reason}")]
    Corrupt {
        /// Which file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Another process holds the data directory.
    #[error("data directory {0} is in use by another process")]
    Locked(String),
    /// The data directory belongs to someone else.
    #[error("data directory {path} belongs to cluster {found}, not {expected}: use another directory or the right metadata")]
    WrongCluster {
        /// The directory.
        path: String,
        /// Cluster id found in it.
        found: String,
        /// This cluster's id.
        expected: String,
    },
    /// The log is offline after an earlier failure.
    #[error("log directory is offline: {0}")]
    Offline(String),
}

impl LogError {
    /// An I/O error with the file it happened to.
    pub(crate) fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io { path: path.display().to_string(), source }
    }
}

/// Records whose timestamps are not allowed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{} records have timestamps that are not allowed", .records.len())]
pub struct InvalidTimestamps {
    /// Index in the batch and timestamp of each.
    pub records: Vec<(i32, i64)>,
    /// What the topic allows; `None` if the batch claims that its times are the broker's.
    pub allowed: Option<(i64, i64)>,
}

/// A batch was not appended.
#[derive(Debug, Error)]
pub enum AppendError {
    /// Malformed, or its checksum is wrong: CORRUPT_MESSAGE.
    #[error("corrupt batch: {0}")]
    Corrupt(#[from] BatchError),
    /// INVALID_RECORD, with what to tell the client.
    #[error("invalid record: {0}")]
    InvalidRecord(&'static str),
    /// Records without a key, by their index in the batch, for a compacted topic: INVALID_RECORD, naming each (KIP-467).
    #[error("{} records have no key, which a compacted topic needs", .0.len())]
    KeylessRecords(Vec<i32>),
    /// A batch above `max.message.bytes`: MESSAGE_TOO_LARGE.
    #[error("batch of {size} bytes exceeds max.message.bytes {max}")]
    MessageTooLarge {
        /// The batch.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// More bytes in one request than a segment holds: RECORD_LIST_TOO_LARGE.
    #[error("{size} bytes exceed segment.bytes {max}")]
    RecordListTooLarge {
        /// The request's part.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// Message format v0/v1: UNSUPPORTED_FOR_MESSAGE_FORMAT.
    #[error("message format {0} is not supported")]
    UnsupportedFormat(i8),
    /// UNSUPPORTED_COMPRESSION_TYPE.
    #[error("compression codec {0} is not supported")]
    UnsupportedCompression(u8),
    /// Records outside `message.timestamp.before/after.max.ms`, or marked with the broker's time: INVALID_TIMESTAMP, naming each (KIP-467).
    #[error(transparent)]
    InvalidTimestamps(#[from] InvalidTimestamps),
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("out of order sequence for producer {producer_id}: expected {expected}, got {got}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// Next expected.
        expected: i32,
        /// In the batch.
        got: i32,
    },
    /// UNKNOWN_PRODUCER_ID.
    #[error("producer {0} is not known here")]
    UnknownProducerId(i64),
    /// INVALID_PRODUCER_EPOCH.
    #[error("producer epoch {got} is older than {current}")]
    InvalidProducerEpoch {
        /// Known.
        current: i16,
        /// In the batch.
        got: i16,
    },
    /// A marker of a coordinator that is no longer in charge: TRANSACTION_COORDINATOR_FENCED.
    #[error("coordinator epoch {got} is older than {current}")]
    CoordinatorFenced {
        /// Known.
        current: i32,
        /// In the marker.
        got: i32,
    },
    /// INVALID_TXN_STATE.
    #[error("invalid transaction state: {0}")]
    InvalidTxnState(&'static str),
    /// The caller's leader epoch is older than one that was begun here (I9): NOT_LEADER_OR_FOLLOWER.
    #[error("leader epoch {got} is older than {current}")]
    StaleLeaderEpoch {
        /// Of the append.
        got: i32,
        /// The newest here.
        current: i32,
    },
    /// The partition was deleted: UNKNOWN_TOPIC_OR_PARTITION.
    #[error("the partition was deleted")]
    Deleted,
    /// The disk mark is reached (I40): a retriable KAFKA_STORAGE_ERROR until room comes back.
    #[error("no room on the disk")]
    NoSpace,
    /// The log is offline: KAFKA_STORAGE_ERROR.
    #[error("log is offline: {0}")]
    Offline(String),
}

/// A read was refused.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Above the end, or below everything.
    #[error("offset {offset} is not in [{start}, {end}]")]
    OutOfRange {
        /// Asked for.
        offset: i64,
        /// Log start.
        start: i64,
        /// Log end.
        end: i64,
    },
    /// Below the local part: read it from the remote tier.
    #[error("offset is below the local log start {local_start}")]
    NotLocal {
        /// First local offset.
        local_start: i64,
    },
    /// A stored batch does not check out (I37).
    #[error("corrupt data at offset {offset}: {reason}")]
    Corrupt {
        /// Where.
        offset: i64,
        /// What.
        reason: String,
    },
    /// The disk said no.
    #[error("i/o error: {0}")]
    Io(#[from] std::io::Error),
    /// The log is offline.
    #[error("log is offline: {0}")]
    Offline(String),
}

impl ReadError {
    /// True if what is on the disk is at fault. Any other error of the disk (no descriptors, EIO) may pass: the bytes may be whole.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            ReadError::Io(error) => is_damage(error),
            ReadError::Corrupt { .. } => true,
            ReadError::OutOfRange { .. } | ReadError::NotLocal { .. } | ReadError::Offline(_) => false,
        }
    }

    /// As the failure of an operation on the file at `path`.
    pub(crate) fn into_log_error(self, path: &std::path::Path) -> LogError {
        match self {
            ReadError::Io(source) => LogError::io(path, source),
            // Retention took it.
            ReadError::NotLocal { .. } | ReadError::OutOfRange { .. } => LogError::io(path, std::io::ErrorKind::NotFound.into()),
            other => LogError::Corrupt { path: path.display().to_string(), reason: other.to_string() },
        }
    }
}

/// True if an error of the disk says that a file is gone or shorter than it should be.
pub(crate) fn is_damage(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof)
}
