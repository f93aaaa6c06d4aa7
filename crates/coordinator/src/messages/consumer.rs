//! Requests of consumer groups (KIP-848) and their answers.

use siltstone_common::TopicId;

use crate::error::GroupError;

/// Partitions of one topic, by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPartitions {
    /// The topic.
    pub topic_id: TopicId,
    /// The partitions' indexes.
    pub partitions: Vec<i32>,
}

/// A refusal with its reason, which the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Kafka's error.
    pub error: GroupError,
    /// Why.
    pub message: Option<String>,
}

impl Refusal {
    pub(crate) fn new(error: GroupError, message: impl Into<String>) -> Self {
        Self { error, message: Some(message.into()) }
    }
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        Self { error, message: None }
    }
}

/// ConsumerGroupHeartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerHeartbeatRequest {
    /// The group.
    pub group_id: String,
    /// The member; version 0 may leave it empty to be given one.
    pub member_id: String,
    /// 0 to join, -1 to leave, -2 to leave for a while as a static member, else the member's epoch.
    pub member_epoch: i32,
    /// `group.instance.id` of a static member; here and below `None` means "as before".
    pub group_instance_id: Option<String>,
    /// `client.rack`
    pub rack_id: Option<String>,
    /// How long the member may take to give partitions up; -1 for as before.
    pub rebalance_timeout_ms: i32,
    /// Topics by name.
    pub subscribed_topics: Option<Vec<String>>,
    /// Topics by regular expression, in RE2 syntax; empty for none.
    pub subscribed_regex: Option<String>,
    /// The assignor it would like.
    pub server_assignor: Option<String>,
    /// What it owns now.
    pub owned: Option<Vec<TopicPartitions>>,
    /// The client's name for itself.
    pub client_id: String,
    /// Its address, as descriptions show it.
    pub client_host: String,
    /// The client makes up its member id itself: true from version 1.
    pub brings_member_id: bool,
}

impl ConsumerHeartbeatRequest {
    /// True if it says everything: then the answer tells the assignment, too.
    pub(crate) fn is_full(&self) -> bool {
        let subscribes = self.subscribed_topics.is_some() || self.subscribed_regex.is_some();
        self.rebalance_timeout_ms != -1 && subscribes && self.owned.is_some()
    }
}

/// The answer to ConsumerGroupHeartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerHeartbeatResponse {
    /// The member.
    pub member_id: String,
    /// Its epoch now.
    pub member_epoch: i32,
    /// When to send the next one.
    pub heartbeat_interval_ms: i32,
    /// What it may own, if that changed.
    pub assignment: Option<Vec<TopicPartitions>>,
}

/// Partitions of one topic, as descriptions list them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedPartitions {
    /// The topic.
    pub topic_id: TopicId,
    /// Its name.
    pub topic_name: String,
    /// The partitions' indexes.
    pub partitions: Vec<i32>,
}

/// A member in ConsumerGroupDescribe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConsumerMember {
    /// Its id.
    pub member_id: String,
    /// Its `group.instance.id`, if static.
    pub group_instance_id: Option<String>,
    /// `client.rack`
    pub rack_id: Option<String>,
    /// Its epoch.
    pub member_epoch: i32,
    /// The client's name for itself.
    pub client_id: String,
    /// Its address.
    pub client_host: String,
    /// Topics by name.
    pub subscribed_topics: Vec<String>,
    /// Topics by regular expression; empty for none.
    pub subscribed_regex: String,
    /// What it owns.
    pub assignment: Vec<DescribedPartitions>,
    /// What it is to own.
    pub target: Vec<DescribedPartitions>,
    /// It speaks the classic protocol.
    pub is_classic: bool,
}

/// A group in ConsumerGroupDescribe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConsumerGroup {
    /// Kafka's name of its state.
    pub state: &'static str,
    /// The group epoch.
    pub group_epoch: i32,
    /// The epoch of the target assignment.
    pub assignment_epoch: i32,
    /// The assignor in use.
    pub assignor: &'static str,
    /// Its members.
    pub members: Vec<DescribedConsumerMember>,
}
