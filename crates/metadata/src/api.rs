//! What the metadata service does for brokers: the same trait in one process and over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use siltstone_common::{TopicId, TopicIdPartition};
use thiserror::Error;
use tokio::sync::watch;
use uuid::Uuid;

use crate::acls::{AclBinding, AclBindingFilter};
use crate::features::FeatureUpdate;
use crate::image::{MetadataImage, TopicImage};
use crate::quotas::QuotaEntity;
use crate::segments::{RemoteExtent, SegmentRow};

/// A request to the metadata service was refused or failed.
#[derive(Clone, Debug, Error, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case", tag = "error", content = "message")]
pub enum MetadataError {
    /// TOPIC_ALREADY_EXISTS
    #[error("Topic '{0}' already exists.")]
    TopicExists(String),
    /// UNKNOWN_TOPIC_OR_PARTITION
    #[error("The topic '{0}' does not exist.")]
    UnknownTopic(String),
    /// UNKNOWN_TOPIC_OR_PARTITION, in words of the caller's.
    #[error("{0}")]
    UnknownPartition(String),
    /// UNKNOWN_TOPIC_ID
    #[error("unknown topic id {0}")]
    UnknownTopicId(TopicId),
    /// INVALID_TOPIC_EXCEPTION
    #[error("{0}")]
    InvalidTopic(String),
    /// INVALID_PARTITIONS
    #[error("{0}")]
    InvalidPartitions(String),
    /// INVALID_REPLICATION_FACTOR
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// INVALID_REPLICA_ASSIGNMENT
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    /// INVALID_CONFIG
    #[error("{0}")]
    InvalidConfig(String),
    /// POLICY_VIOLATION: over a limit of this cluster.
    #[error("{0}")]
    PolicyViolation(String),
    /// INVALID_REQUEST
    #[error("{0}")]
    InvalidRequest(String),
    /// THROTTLING_QUOTA_EXCEEDED: too many changes of topics in too short a time (KIP-599).
    #[error("The throttling quota has been exceeded.")]
    QuotaExceeded,
    /// INVALID_UPDATE_VERSION of a feature.
    #[error("{0}")]
    InvalidFeature(String),
    /// ELECTION_NOT_NEEDED
    #[error("Leader election not needed for topic partition.")]
    ElectionNotNeeded,
    /// PREFERRED_LEADER_NOT_AVAILABLE
    #[error("The preferred leader was not available.")]
    PreferredLeaderNotAvailable,
    /// ELIGIBLE_LEADERS_NOT_AVAILABLE
    #[error("Eligible topic partition leaders are not available.")]
    EligibleLeadersNotAvailable,
    /// NO_REASSIGNMENT_IN_PROGRESS
    #[error("No partition reassignment is in progress.")]
    NoReassignment,
    /// BROKER_ID_NOT_REGISTERED
    #[error("Broker ID {0} is not currently registered")]
    UnknownBroker(i32),
    /// DUPLICATE_BROKER_REGISTRATION: a broker of that id has a live session, from another data directory.
    #[error(
        "Another broker is registered with that broker id. If the broker was recently restarted this should self-resolve once the heartbeat manager expires the broker's session."
    )]
    DuplicateBroker,
    /// STALE_BROKER_EPOCH
    #[error("broker epoch is stale")]
    StaleBrokerEpoch,
    /// FENCED_LEADER_EPOCH: a newer leader epoch exists (I25).
    #[error("leader epoch is fenced")]
    FencedLeaderEpoch,
    /// INVALID_UPDATE_VERSION: the compare of a compare-and-set failed.
    #[error("the state changed meanwhile: {0}")]
    Conflict(String),
    /// Commit does not continue the committed range (I25).
    #[error("segment starts at {base_offset}, but the committed range ends at {expected}")]
    NotContiguous {
        /// Of the segment.
        base_offset: i64,
        /// What it should be.
        expected: i64,
    },
    /// The cluster id of the caller is not this cluster's.
    #[error("{0}")]
    WrongCluster(String),
    /// The service or its store can't be reached now: retry.
    #[error("metadata service unavailable: {0}")]
    Unavailable(String),
}

impl MetadataError {
    /// True if the same request may succeed later.
    pub fn retryable(&self) -> bool {
        matches!(self, MetadataError::Unavailable(_) | MetadataError::QuotaExceeded)
    }
}

/// A topic to be made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CreateTopic {
    /// Name; checked by Kafka's rules.
    pub name: String,
    /// Partitions; -1 for `num.partitions`.
    pub partitions: i32,
    /// Replicas each; -1 for `default.replication.factor`.
    pub replication_factor: i16,
    /// Replicas by partition index, instead of the two above (which are then -1).
    pub assignments: BTreeMap<i32, Vec<i32>>,
    /// Settings.
    pub configs: BTreeMap<String, String>,
    /// Check only.
    pub validate_only: bool,
}

/// What settings belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigResource {
    /// A topic, by name.
    Topic(String),
    /// A broker by id; "" for all brokers.
    Broker(String),
    /// A group.
    Group(String),
    /// A subscription to clients' metrics (KIP-714), by name.
    ClientMetrics(String),
}

/// What a leader election may do.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Election {
    /// Give leadership back to the preferred replica, if that is in sync.
    Preferred,
    /// Where nobody leads, let any replica lead that is up, whatever is lost by it.
    Unclean,
}

/// A change of the cluster that an operator asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminChange {
    /// Changes the quotas of one entity (KIP-546).
    Quotas {
        /// Whose.
        entity: QuotaEntity,
        /// By quota name: a value to set, or `None` to take it away.
        ops: BTreeMap<String, Option<f64>>,
    },
    /// Elects a leader (KIP-460).
    ElectLeader {
        /// Of this partition.
        id: TopicIdPartition,
        /// How.
        election: Election,
    },
    /// Moves a partition to other brokers (KIP-455).
    Reassign {
        /// This partition.
        id: TopicIdPartition,
        /// Where to; `None` calls a move off.
        replicas: Option<Vec<i32>>,
        /// Whether there may be more or fewer replicas than before (KIP-860).
        allow_replication_factor_change: bool,
    },
    /// Forgets a broker that will not come back.
    UnregisterBroker(i32),
    /// Changes the levels of features, all or none (KIP-584).
    Features(Vec<FeatureUpdate>),
}

/// One change of a setting (KIP-339).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigOp {
    /// Set to a value.
    Set(String, String),
    /// Back to the default.
    Delete(String),
    /// Add to a list.
    Append(String, String),
    /// Take from a list.
    Subtract(String, String),
}

/// A broker presents itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RegisterBroker {
    /// `node.id`
    pub id: i32,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: u16,
    /// `broker.rack`
    pub rack: Option<String>,
    /// True if the last stop was clean (I14).
    pub clean_shutdown: bool,
    /// Id of its data directory, which one process has at a time: the next process on it takes over at once, any other waits until the
    /// broker's session is over. Nil if unknown, which is nobody's.
    #[serde(default)]
    pub directory: Uuid,
}

/// See the module. Writes are durable when they return (I47); reads of segments are linearizable.
#[async_trait]
pub trait MetadataApi: Send + Sync {
    /// The image now.
    fn image(&self) -> Arc<MetadataImage>;
    /// Follows the image. After a call that changes the image has returned, `image()` of the same handle shows the change.
    fn watch(&self) -> watch::Receiver<Arc<MetadataImage>>;

    /// Registers a broker; its new epoch. The broker is fenced until its first heartbeat.
    async fn register_broker(&self, broker: RegisterBroker) -> Result<i64, MetadataError>;
    /// Keeps a broker's session alive and unfences it; with `stopping`, moves leadership away and fences it. How long the session lasts from when
    /// the heartbeat was taken.
    async fn heartbeat(&self, broker: i32, epoch: i64, stopping: bool) -> Result<Duration, MetadataError>;
    /// Makes a topic; with `validate_only` the topic as it would be.
    async fn create_topic(&self, topic: CreateTopic) -> Result<Arc<TopicImage>, MetadataError>;
    /// Deletes a topic.
    async fn delete_topic(&self, topic: TopicId) -> Result<(), MetadataError>;
    /// Raises the number of partitions to `count`; `assignments` for the new ones or empty.
    async fn create_partitions(
        &self,
        topic: TopicId,
        count: i32,
        assignments: Vec<Vec<i32>>,
        validate_only: bool,
    ) -> Result<(), MetadataError>;
    /// Changes settings, all or none.
    async fn alter_configs(&self, resource: ConfigResource, ops: Vec<ConfigOp>, validate_only: bool) -> Result<(), MetadataError>;
    /// Makes a change that an operator asks for.
    async fn administer(&self, change: AdminChange, validate_only: bool) -> Result<(), MetadataError>;
    /// Makes ACLs; one that there is already stays as it is. For each whether it is there now, or why not.
    async fn create_acls(&self, acls: Vec<AclBinding>) -> Result<Vec<Result<(), MetadataError>>, MetadataError>;
    /// Deletes the ACLs that filters mean; for each filter those it matched.
    async fn delete_acls(&self, filters: Vec<AclBindingFilter>) -> Result<Vec<Vec<AclBinding>>, MetadataError>;
    /// Changes the ISR by compare-and-set on (leader epoch, partition epoch) (I11); the new partition epoch.
    async fn alter_isr(&self, id: TopicIdPartition, leader_epoch: i32, partition_epoch: i32, isr: Vec<i32>) -> Result<i32, MetadataError>;
    /// A block of producer ids never given before: (first, count).
    async fn allocate_producer_ids(&self, broker: i32, epoch: i64) -> Result<(i64, i64), MetadataError>;

    /// Registers a segment before its PUT (I24); `row.state` is an intent.
    async fn segment_intent(&self, row: SegmentRow) -> Result<(), MetadataError>;
    /// Makes it readable by the compare-and-set of I25; idempotent for the same attempt.
    async fn segment_commit(&self, row: SegmentRow) -> Result<(), MetadataError>;
    /// The committed segment that holds `offset`, else the first after it.
    async fn find_segment(&self, id: TopicIdPartition, offset: i64) -> Result<Option<SegmentRow>, MetadataError>;
    /// The first committed segment whose largest timestamp is >= `timestamp_ms`.
    async fn find_segment_by_time(&self, id: TopicIdPartition, timestamp_ms: i64) -> Result<Option<SegmentRow>, MetadataError>;
    /// Committed segments from the one that holds `from` on, in order, at most `limit`.
    async fn list_segments(&self, id: TopicIdPartition, from: i64, limit: usize) -> Result<Vec<SegmentRow>, MetadataError>;
    /// What of the partition is remote.
    async fn remote_extent(&self, id: TopicIdPartition) -> Result<RemoteExtent, MetadataError>;
    /// Raises the log start offset (I28, first step); segments wholly below it become DeleteStarted.
    async fn raise_log_start(&self, id: TopicIdPartition, leader_epoch: i32, offset: i64) -> Result<(), MetadataError>;
    /// Rows whose objects may go now: DeleteStarted older than `grace_ms`, expired intents, rows of deleted topics; at most `limit` (I29).
    async fn garbage(&self, grace_ms: i64, limit: usize) -> Result<Vec<SegmentRow>, MetadataError>;
    /// Forgets rows whose objects are deleted.
    async fn forget(&self, rows: Vec<SegmentRow>) -> Result<(), MetadataError>;
}
