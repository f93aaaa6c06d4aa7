//! Topics by the names and ids that requests use, and the small conversions that every handler needs.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use siltstone_common::TopicIdPartition;
use siltstone_metadata::MetadataImage;

/// The partition `index` of the topic called `name`: UNKNOWN_TOPIC_OR_PARTITION if there is none.
pub(crate) fn by_name(image: &MetadataImage, name: &TopicName, index: i32) -> Result<TopicIdPartition, ResponseError> {
    let topic = image.topic(name.0.as_str()).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let id = TopicIdPartition::new(topic.id, index);
    image.partition(id).map(|_| id).ok_or(ResponseError::UnknownTopicOrPartition)
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

pub(crate) fn text(text: impl ToString) -> StrBytes {
    StrBytes::from_string(text.to_string())
}

pub(crate) fn broker_ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

/// Replicas that are not up.
pub(crate) fn offline_replicas(image: &MetadataImage, replicas: &[i32]) -> Vec<BrokerId> {
    let up = |id: &i32| image.brokers.get(id).is_some_and(|broker| !broker.fenced);
    replicas.iter().filter(|id| !up(id)).copied().map(BrokerId).collect()
}

/// All operations on a topic, as a bit field (KIP-430): read, write, create, delete, alter, describe, describe and alter configs.
pub(crate) const ALL_TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// All operations on the cluster.
pub(crate) const ALL_CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;
/// Operations were not asked for.
pub(crate) const OPERATIONS_UNKNOWN: i32 = i32::MIN;

/// Kafka takes -1 for "no leader epoch known" and any other negative one for an old epoch.
pub(crate) fn refuse_epoch_below_none(current_leader_epoch: i32) -> Result<(), ResponseError> {
    if current_leader_epoch < -1 { Err(ResponseError::FencedLeaderEpoch) } else { Ok(()) }
}

/// Kafka's rule for topic names.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= 249 && name != "." && name != ".." && name.bytes().all(legal)
}
