//! DeleteRecords (KIP-107).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::replica_error;
use crate::topic_lookup::by_name;

/// No low watermark to tell.
const INVALID_LOW_WATERMARK: i64 = -1;

pub(crate) async fn handle(ctx: &RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let image = ctx.services.metadata.image();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let permitted = ctx.authorize(AclOperation::Delete, ResourceType::Topic, topic.name.as_str());
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let internal = image.topic(topic.name.0.as_str()).is_some_and(|topic| topic.is_internal());
            let outcome = match permitted.and_then(|()| by_name(&image, &topic.name, partition.partition_index)) {
                Ok(_) if internal => Err(ResponseError::InvalidTopicException),
                Ok(id) => ctx.services.replicas.delete_records(id, partition.offset).await.map_err(|error| replica_error(&error)),
                Err(error) => Err(error),
            };
            let (code, low_watermark) = match outcome {
                Ok(low_watermark) => (0, low_watermark),
                Err(error) => (error.code(), INVALID_LOW_WATERMARK),
            };
            partitions.push(
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(partition.partition_index)
                    .with_low_watermark(low_watermark)
                    .with_error_code(code),
            );
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}
