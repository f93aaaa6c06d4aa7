//! DescribeTopicPartitions (KIP-966): topics page by page.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use siltstone_metadata::acls::{AclOperation, ResourceType};
use siltstone_metadata::{MetadataImage, TopicImage};

use crate::context::RequestContext;
use crate::topic_lookup::{OPERATIONS_UNKNOWN, broker_ids, offline_replicas, topic_name};

/// `max.request.partition.size.limit`
const DEFAULT_PARTITION_LIMIT: i32 = 2000;

pub(crate) async fn handle(ctx: &RequestContext, request: DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let image = ctx.services.metadata.image();
    let limit = ctx.services.broker_setting("max.request.partition.size.limit").unwrap_or(DEFAULT_PARTITION_LIMIT);
    let mut left = usize::try_from(request.response_partition_limit.clamp(1, limit.max(1))).unwrap_or(1);
    let mut names: Vec<String> = request.topics.iter().map(|topic| topic.name.0.to_string()).collect();
    let all = names.is_empty();
    if all {
        names = image.topic_ids.keys().cloned().collect();
    }
    names.sort_unstable();
    names.dedup();
    let (from_topic, from_partition) =
        request.cursor.as_ref().map_or(("", 0), |cursor| (cursor.topic_name.0.as_str(), cursor.partition_index));
    let mut response = DescribeTopicPartitionsResponse::default();
    let cursor_is_asked_for = all || from_topic.is_empty() || names.iter().any(|name| name == from_topic);
    if from_partition < 0 || !cursor_is_asked_for {
        // Only what was asked for by name: who may not describe them is told of no other topics (I44).
        response.topics = request.topics.iter().map(|topic| refused(&topic.name)).collect();
        return response;
    }
    names.retain(|name| name.as_str() >= from_topic);
    let (names, hidden): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| ctx.allows(AclOperation::Describe, ResourceType::Topic, name));
    for name in &names {
        let first = if name == from_topic { usize::try_from(from_partition).unwrap_or(0) } else { 0 };
        if left == 0 {
            response.next_cursor = Some(Cursor::default().with_topic_name(topic_name(name)).with_partition_index(0));
            break;
        }
        let Some(topic) = image.topic(name) else {
            response.topics.push(unknown(name).with_topic_authorized_operations(ctx.authorized_operations(ResourceType::Topic, name)));
            continue;
        };
        let last = topic.partitions.len().min(first.saturating_add(left));
        let operations = ctx.authorized_operations(ResourceType::Topic, name);
        response.topics.push(describe(&image, topic, first..last).with_topic_authorized_operations(operations));
        left -= last.saturating_sub(first);
        if last < topic.partitions.len() {
            let next = i32::try_from(last).unwrap_or(i32::MAX);
            response.next_cursor = Some(Cursor::default().with_topic_name(topic_name(name)).with_partition_index(next));
            break;
        }
    }
    if !all {
        response.topics.extend(hidden.iter().map(|name| denied(name)));
    }
    response
}

fn refused(name: &str) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(ResponseError::InvalidRequest.code())
        .with_name(Some(topic_name(name)))
        .with_topic_authorized_operations(OPERATIONS_UNKNOWN)
}

fn denied(name: &str) -> DescribeTopicPartitionsResponseTopic {
    refused(name).with_error_code(ResponseError::TopicAuthorizationFailed.code())
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(ResponseError::UnknownTopicOrPartition.code())
        .with_name(Some(topic_name(name)))
}

fn describe(image: &MetadataImage, topic: &TopicImage, range: std::ops::Range<usize>) -> DescribeTopicPartitionsResponseTopic {
    let partitions = topic.partitions.iter().enumerate().filter(|(index, _)| range.contains(index)).map(|(index, state)| {
        let error = if state.leader < 0 { ResponseError::LeaderNotAvailable.code() } else { 0 };
        DescribeTopicPartitionsResponsePartition::default()
            .with_error_code(error)
            .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
            .with_leader_id(BrokerId(state.leader))
            .with_leader_epoch(state.leader_epoch)
            .with_replica_nodes(broker_ids(&state.replicas))
            .with_isr_nodes(broker_ids(&state.isr))
            .with_eligible_leader_replicas(Some(broker_ids(&state.elr)))
            .with_last_known_elr(Some(Vec::new()))
            .with_offline_replicas(offline_replicas(image, &state.replicas))
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id.0)
        .with_is_internal(topic.is_internal())
        .with_partitions(partitions.collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::messages::describe_topic_partitions_request::{Cursor as From, TopicRequest};

    use super::*;
    use crate::rig::Rig;

    async fn ask(rig: &Rig, topics: &[&str], from: (&str, i32)) -> Vec<(TopicName, i16)> {
        let topics = topics.iter().map(|name| TopicRequest::default().with_name(topic_name(name))).collect();
        let from = From::default().with_topic_name(topic_name(from.0)).with_partition_index(from.1);
        let request = DescribeTopicPartitionsRequest::default().with_topics(topics).with_cursor(Some(from));
        let response = handle(&rig.request(0), request.with_response_partition_limit(100)).await;
        response.topics.into_iter().map(|topic| (topic.name.expect("a name"), topic.error_code)).collect()
    }

    /// I44: a request that is refused tells of no topic that it does not name.
    #[tokio::test]
    async fn a_bad_cursor_tells_no_names() {
        let rig = Rig::secured().await;
        rig.create_topic("secret", 1).await;
        assert_eq!(ask(&rig, &[], ("a", -1)).await, []);
        assert_eq!(ask(&rig, &["a"], ("a", -1)).await, [(topic_name("a"), ResponseError::InvalidRequest.code())]);
        assert_eq!(ask(&rig, &["a"], ("b", 0)).await, [(topic_name("a"), ResponseError::InvalidRequest.code())]);
    }

    /// As in Kafka, what the pages before have told is not told again.
    #[tokio::test]
    async fn what_may_not_be_described_is_told_once() {
        let rig = Rig::secured().await;
        rig.create_topic("b", 1).await;
        rig.allow(AclOperation::Describe, ResourceType::Topic, "b").await;
        let denied = ResponseError::TopicAuthorizationFailed.code();
        assert_eq!(
            ask(&rig, &["a", "b", "c"], ("", 0)).await,
            [(topic_name("b"), 0), (topic_name("a"), denied), (topic_name("c"), denied)]
        );
        assert_eq!(ask(&rig, &["a", "b", "c"], ("b", 0)).await, [(topic_name("b"), 0), (topic_name("c"), denied)]);
    }
}
