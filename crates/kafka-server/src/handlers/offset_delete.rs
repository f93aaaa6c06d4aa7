//! OffsetDelete (KIP-496): takes committed positions away from a group that does not use them.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_delete_request::OffsetDeleteRequestTopic;
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse, TopicName};
use siltstone_coordinator::{DeleteOffsetsRequest, TopicPartition};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::{group_code, group_error};
use crate::topic_lookup::{by_name, partitions_of, unreadable};

pub(crate) async fn handle(ctx: &RequestContext, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    if let Err(error) = ctx.authorize(AclOperation::Delete, ResourceType::Group, request.group_id.0.as_str()) {
        return OffsetDeleteResponse::default().with_error_code(error.code());
    }
    let image = ctx.services.metadata.image();
    let unreadable = unreadable(ctx, request.topics.iter().map(|topic| &topic.name));
    let find = |topic: &TopicName, partition: i32| match unreadable.contains(topic) {
        true => Err(ResponseError::TopicAuthorizationFailed),
        false => by_name(&image, topic, partition),
    };
    let known = |topic: &OffsetDeleteRequestTopic| -> Vec<TopicPartition> {
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        partitions_of(&topic.name, indexes.filter(|index| find(&topic.name, *index).is_ok())).collect()
    };
    let partitions = request.topics.iter().flat_map(known).collect();
    let delete = DeleteOffsetsRequest { group_id: request.group_id.0.to_string(), partitions };
    let mut outcomes = match ctx.services.groups.delete_offsets(delete).await {
        Ok(outcomes) => outcomes.into_iter(),
        Err(error) => return OffsetDeleteResponse::default().with_error_code(group_error(error).code()),
    };
    // Kafka leaves topics without partitions out.
    let topics = request.topics.into_iter().filter(|topic| !topic.partitions.is_empty()).map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let code = match find(&topic.name, partition.partition_index) {
                Err(error) => error.code(),
                Ok(_) => outcomes.next().map_or(ResponseError::UnknownServerError.code(), |(_, result)| group_code(&result)),
            };
            OffsetDeleteResponsePartition::default().with_partition_index(partition.partition_index).with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
