//! DescribeProducers: who writes to a partition, and which transactions are open there.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId, TopicName};
use siltstone_log::producers::ProducerInfo;
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::answer::AnswerRoom;
use crate::context::RequestContext;
use crate::error_codes::replica_error;
use crate::topic_lookup::{by_name, is_valid_name, text};

pub(crate) async fn handle(ctx: &RequestContext, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let mut room = AnswerRoom::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            let answer = PartitionResponse::default().with_partition_index(index);
            let found = match room.check() {
                Ok(()) => producers(ctx, &topic.name, index).await,
                Err(error) => Err(Refusal { error, message: None }),
            };
            partitions.push(match found {
                Ok(producers) => {
                    room.take(1 + producers.len(), 0);
                    answer.with_active_producers(producers.iter().map(state).collect())
                }
                Err(Refusal { error, message }) => answer.with_error_code(error.code()).with_error_message(message.map(text)),
            });
        }
        topics.push(TopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    DescribeProducersResponse::default().with_topics(topics)
}

/// Kafka explains what is wrong with a topic, not with a partition.
struct Refusal {
    error: ResponseError,
    message: Option<ResponseError>,
}

async fn producers(ctx: &RequestContext, topic: &TopicName, index: i32) -> Result<Vec<ProducerInfo>, Refusal> {
    let of_topic = |error| Refusal { error, message: Some(error) };
    let of_partition = |error| Refusal { error, message: None };
    if !is_valid_name(topic) {
        return Err(of_topic(ResponseError::InvalidTopicException));
    }
    ctx.authorize(AclOperation::Read, ResourceType::Topic, topic).map_err(of_topic)?;
    let image = ctx.services.metadata.image();
    if image.topic(topic).is_none() {
        return Err(of_topic(ResponseError::UnknownTopicOrPartition));
    }
    let id = by_name(&image, topic, index).map_err(of_partition)?;
    ctx.services.replicas.active_producers(id).await.map_err(|error| of_partition(replica_error(&error)))
}

fn state(producer: &ProducerInfo) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(producer.producer_id))
        .with_producer_epoch(i32::from(producer.producer_epoch))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_timestamp_ms)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.current_txn_start_offset.unwrap_or(-1))
}
