//! OffsetCommit: a group's positions, stored.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use siltstone_coordinator::{CommitOffset, CommitRequest, TopicPartition};
use siltstone_metadata::MetadataImage;

use crate::context::RequestContext;
use crate::error_codes::{group_code, group_error};
use crate::topic_lookup::by_name;

pub(crate) async fn handle(ctx: &RequestContext, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let image = ctx.services.metadata.image();
    let known = known_offsets(&image, &request);
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
    let topics = request.topics.into_iter().filter(|topic| !topic.partitions.is_empty()).map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let code = match by_name(&image, &topic.name, partition.partition_index) {
                Err(error) => error.code(),
                Ok(_) if refusal != 0 => refusal,
                Ok(_) => outcomes.next().map_or(ResponseError::UnknownServerError.code(), |(_, result)| group_code(&result)),
            };
            OffsetCommitResponsePartition::default().with_partition_index(partition.partition_index).with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// The offsets of partitions that exist.
fn known_offsets(image: &MetadataImage, request: &OffsetCommitRequest) -> Vec<CommitOffset> {
    let partitions = request.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |partition| (&topic.name, partition)));
    let known = partitions.filter(|(topic, partition)| by_name(image, topic, partition.partition_index).is_ok());
    known
        .map(|(topic, partition)| CommitOffset {
            id: TopicPartition { topic: topic.0.to_string(), partition: partition.partition_index },
            offset: partition.committed_offset,
            leader_epoch: partition.committed_leader_epoch,
            metadata: partition.committed_metadata.as_ref().map(|text| text.to_string()),
        })
        .collect()
}
