//! OffsetCommit: a group's positions, stored.

use std::collections::HashSet;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse, TopicName};
use siltstone_coordinator::{CommitOffset, CommitRequest, TopicPartition};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::by_topic_id::{ById, FIRST_VERSION, put_names};
use crate::context::RequestContext;
use crate::error_codes::{group_code, group_error};
use crate::topic_lookup::{by_name, unreadable};

pub(crate) async fn handle(ctx: &RequestContext, request: ById<OffsetCommitRequest>) -> OffsetCommitResponse {
    let image = ctx.services.metadata.image();
    let ById { mut request, topic_ids } = request;
    put_names(&image, &topic_ids, request.topics.iter_mut().map(|topic| &mut topic.name));
    let permitted = ctx.authorize(AclOperation::Read, ResourceType::Group, request.group_id.0.as_str());
    let unreadable = if permitted.is_ok() { unreadable(ctx, request.topics.iter().map(|topic| &topic.name)) } else { HashSet::new() };
    let find = |topic: &TopicName, partition: i32| match permitted {
        Err(error) => Err(error),
        Ok(()) if ctx.api_version >= FIRST_VERSION && topic.is_empty() => Err(ResponseError::UnknownTopicId),
        Ok(()) if unreadable.contains(topic) => Err(ResponseError::TopicAuthorizationFailed),
        Ok(()) => by_name(&image, topic, partition).map(drop),
    };
    let known = known_offsets(&request, find);
    let outcomes = if known.is_empty() {
        // Nothing to ask the group for.
        Ok(Vec::new())
    } else {
        let commit = CommitRequest {
            group_id: request.group_id.0.to_string(),
            generation_id: request.generation_id_or_member_epoch,
            member_id: request.member_id.to_string(),
            group_instance_id: request.group_instance_id.as_ref().map(|id| id.to_string()),
            retention_time_ms: request.retention_time_ms,
            reports_unknown_group: ctx.api_version >= 9,
            offsets: known,
        };
        ctx.services.groups.commit_offsets(commit).await
    };
    // A refusal of the request is every known partition's; outcomes come in the order of the known partitions.
    let (refusal, mut outcomes) = match outcomes {
        Ok(outcomes) => (0, outcomes.into_iter()),
        Err(error) => (group_error(error).code(), Vec::new().into_iter()),
    };
    // Kafka leaves topics without partitions out.
    let ids = topic_ids.into_iter().map(|id| id.0).chain(std::iter::repeat(uuid::Uuid::nil()));
    let topics = request.topics.into_iter().zip(ids).filter(|(topic, _)| !topic.partitions.is_empty()).map(|(topic, topic_id)| {
        let partitions = topic.partitions.iter().map(|partition| {
            let code = match find(&topic.name, partition.partition_index) {
                Err(error) => error.code(),
                Ok(_) if refusal != 0 => refusal,
                Ok(_) => outcomes.next().map_or(ResponseError::UnknownServerError.code(), |(_, result)| group_code(&result)),
            };
            OffsetCommitResponsePartition::default().with_partition_index(partition.partition_index).with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default().with_name(topic.name).with_topic_id(topic_id).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// The offsets of partitions that are found.
fn known_offsets(request: &OffsetCommitRequest, find: impl Fn(&TopicName, i32) -> Result<(), ResponseError>) -> Vec<CommitOffset> {
    let mut known = Vec::new();
    for topic in &request.topics {
        let name: Arc<str> = topic.name.as_str().into();
        let partitions = topic.partitions.iter().filter(|partition| find(&topic.name, partition.partition_index).is_ok());
        known.extend(partitions.map(|partition| CommitOffset {
            id: TopicPartition { topic: name.clone(), partition: partition.partition_index },
            offset: partition.committed_offset,
            leader_epoch: partition.committed_leader_epoch,
            metadata: partition.committed_metadata.as_ref().map(|text| text.to_string()),
        }));
    }
    known
}
