//! Topics by the names and ids that requests use, and the small conversions that every handler needs.

use std::collections::HashSet;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use siltstone_common::{TopicId, TopicIdPartition};
use siltstone_coordinator::TopicPartition;
use siltstone_metadata::acls::{AclOperation, ResourceType};
use siltstone_metadata::{MetadataImage, TopicImage};

use crate::context::{RequestContext, Services};
use crate::session::Session;

/// The topic that a client means by id or, without one, by name, if it may do `operation` with it: whether a topic of that name exists is told
/// only to those who may.
pub(crate) fn permitted<'a>(
    services: &Services,
    who: &Session,
    image: &'a MetadataImage,
    topic: (Option<TopicId>, &str),
    operation: AclOperation,
) -> Result<&'a Arc<TopicImage>, ResponseError> {
    let (id, name) = topic;
    let found = match id {
        Some(id) => Some(image.topic_by_id(id).ok_or(ResponseError::UnknownTopicId)?),
        None => image.topic(name),
    };
    services.authorize(who, operation, ResourceType::Topic, found.map_or(name, |topic| &topic.name))?;
    found.ok_or(ResponseError::UnknownTopicOrPartition)
}

/// The partition `index` of the topic called `name`: UNKNOWN_TOPIC_OR_PARTITION if there is none.
pub(crate) fn by_name(image: &MetadataImage, name: &TopicName, index: i32) -> Result<TopicIdPartition, ResponseError> {
    let topic = image.topic(name.0.as_str()).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let id = TopicIdPartition::new(topic.id, index);
    image.partition(id).map(|_| id).ok_or(ResponseError::UnknownTopicOrPartition)
}

/// The partitions of a topic that a request names, for the coordinators.
pub(crate) fn partitions_of<I: IntoIterator<Item = i32>>(topic: &TopicName, indexes: I) -> impl Iterator<Item = TopicPartition> + use<I> {
    let topic: Arc<str> = topic.as_str().into();
    indexes.into_iter().map(move |partition| TopicPartition { topic: topic.clone(), partition })
}

/// Those of the topics that the client may not read, each asked for once.
pub(crate) fn unreadable<'a>(ctx: &RequestContext, topics: impl Iterator<Item = &'a TopicName>) -> HashSet<TopicName> {
    let names = topics.filter(|name| ctx.has_authorizer() && !name.is_empty()).cloned();
    let mut names: HashSet<TopicName> = names.collect();
    names.retain(|name| ctx.authorize(AclOperation::Read, ResourceType::Topic, name.as_str()).is_err());
    names
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

/// Operations were not asked for.
pub(crate) const OPERATIONS_UNKNOWN: i32 = i32::MIN;

/// Kafka takes -1 for "no leader epoch known" and any other negative one for an old epoch.
pub(crate) fn refuse_epoch_below_none(current_leader_epoch: i32) -> Result<(), ResponseError> {
    if current_leader_epoch < -1 { Err(ResponseError::FencedLeaderEpoch) } else { Ok(()) }
}

/// Longest name of a topic, bytes.
const NAME_BYTES_MAX: usize = 249;

/// A name as the words of an error tell it: what is longer than any topic's is cut, for words may come with each of its partitions (I42).
pub(crate) fn told(name: &str) -> &str {
    name.split_at(name.floor_char_boundary(NAME_BYTES_MAX)).0
}

/// Kafka's rule for topic names.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name != "." && name != ".." && name.bytes().all(legal)
}
