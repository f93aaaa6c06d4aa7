//! AlterPartitionReassignments (KIP-455): moves partitions to other brokers.

use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, TopicName};
use siltstone_common::TopicIdPartition;
use siltstone_metadata::MetadataError;
use siltstone_metadata::acls::AclOperation;
use siltstone_metadata::api::AdminChange;

use crate::answer::AnswerRoom;
use crate::context::RequestContext;
use crate::error_codes::{Refused, with_error, words};
use crate::topic_lookup::{text, told};

pub(crate) async fn handle(ctx: &RequestContext, request: AlterPartitionReassignmentsRequest) -> AlterPartitionReassignmentsResponse {
    // A few bytes would ask for the topic's name in the error's words each time (I42).
    let mut room = AnswerRoom::new();
    let parts = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    let fits = room.check_parts(parts);
    let permitted = ctx.authorize_cluster(AclOperation::Alter).and(fits);
    let allow = request.allow_replication_factor_change;
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in request.topics.into_iter().filter(|_| fits.is_ok()) {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let result = ReassignablePartitionResponse::default().with_partition_index(asked.partition_index);
            let outcome = match permitted.and(room.check()) {
                Ok(()) => reassign(ctx, &topic.name, asked, allow).await.map_err(Refused::from),
                Err(error) => Err(error.into()),
            };
            room.take_outcome(&outcome);
            partitions.push(with_error!(result, outcome));
        }
        responses.push(ReassignableTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    let code = permitted.err().map_or(0, |error| error.code());
    let response = AlterPartitionReassignmentsResponse::default().with_responses(responses).with_error_code(code);
    let response = response.with_error_message(permitted.err().map(words).map(text));
    if ctx.api_version >= 1 { response.with_allow_replication_factor_change(allow) } else { response }
}

async fn reassign(ctx: &RequestContext, topic: &TopicName, asked: ReassignablePartition, allow: bool) -> Result<(), MetadataError> {
    let image = ctx.services.metadata.image();
    let unknown = |what: &str| MetadataError::UnknownPartition(format!("Unable to find a {what}"));
    let known = image.topic(topic.0.as_str()).ok_or_else(|| unknown(&format!("topic named {}.", told(topic.as_str()))))?;
    let id = TopicIdPartition::new(known.id, asked.partition_index);
    image.partition(id).ok_or_else(|| unknown(&format!("partition {}-{}.", known.name, asked.partition_index)))?;
    let replicas = asked.replicas.map(|replicas| replicas.iter().map(|id| id.0).collect());
    ctx.services.metadata.administer(AdminChange::Reassign { id, replicas, allow_replication_factor_change: allow }, false).await
}
