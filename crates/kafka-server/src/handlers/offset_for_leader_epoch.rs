//! OffsetForLeaderEpoch (KIP-101, KIP-320).

use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::replica_error;
use crate::topic_lookup::{by_name, refuse_epoch_below_none};

pub(crate) async fn handle(ctx: &RequestContext, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let image = ctx.services.metadata.image();
    let is_broker = ctx.allows_cluster(AclOperation::ClusterAction);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let permitted = if is_broker { Ok(()) } else { ctx.authorize(AclOperation::Describe, ResourceType::Topic, topic.topic.as_str()) };
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let id = permitted.and_then(|()| by_name(&image, &topic.topic, asked.partition));
            let found = match id.and_then(|id| refuse_epoch_below_none(asked.current_leader_epoch).map(|()| id)) {
                Ok(id) => {
                    let found = ctx.services.replicas.offset_for_leader_epoch(id, asked.current_leader_epoch, asked.leader_epoch).await;
                    found.map_err(|error| replica_error(&error))
                }
                Err(error) => Err(error),
            };
            let (code, (epoch, end_offset)) = match found {
                Ok(found) => (0, found),
                Err(error) => (error.code(), (-1, -1)),
            };
            let answer = EpochEndOffset::default().with_partition(asked.partition).with_error_code(code);
            partitions.push(answer.with_leader_epoch(epoch).with_end_offset(end_offset));
        }
        topics.push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}
