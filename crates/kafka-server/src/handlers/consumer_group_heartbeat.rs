//! ConsumerGroupHeartbeat (KIP-848): a member joins, stays, reports what it owns, or leaves.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use kafka_protocol::protocol::StrBytes;
use siltstone_common::TopicId;
use siltstone_coordinator::ConsumerHeartbeatRequest;
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::group_error;
use crate::topic_lookup::text;

pub(crate) async fn handle(ctx: &RequestContext, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
    let refused = |error: ResponseError| ConsumerGroupHeartbeatResponse::default().with_error_code(error.code());
    if let Err(error) = ctx.authorize(AclOperation::Read, ResourceType::Group, request.group_id.0.as_str()) {
        return refused(error);
    }
    for topic in request.subscribed_topic_names.iter().flatten() {
        if let Err(error) = ctx.authorize(AclOperation::Describe, ResourceType::Topic, topic.0.as_str()) {
            return refused(error);
        }
    }
    let owned = request.topic_partitions.map(|topics| {
        let topics = topics
            .into_iter()
            .map(|topic| siltstone_coordinator::TopicPartitions { topic_id: TopicId(topic.topic_id), partitions: topic.partitions });
        topics.collect()
    });
    let owned_text = |text: Option<StrBytes>| text.map(|text| text.to_string());
    let heartbeat = ConsumerHeartbeatRequest {
        group_id: request.group_id.0.to_string(),
        member_id: request.member_id.to_string(),
        member_epoch: request.member_epoch,
        group_instance_id: owned_text(request.instance_id),
        rack_id: owned_text(request.rack_id),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        subscribed_topics: request.subscribed_topic_names.map(|names| names.iter().map(|name| name.0.to_string()).collect()),
        subscribed_regex: owned_text(request.subscribed_topic_regex),
        server_assignor: owned_text(request.server_assignor),
        owned,
        client_id: ctx.client_id.as_deref().unwrap_or_default().to_owned(),
        client_host: format!("/{}", ctx.session.host),
        brings_member_id: ctx.api_version >= 1,
    };
    let answer = ConsumerGroupHeartbeatResponse::default();
    let response = match ctx.services.groups.consumer_heartbeat(heartbeat).await {
        Ok(response) => response,
        Err(refusal) => {
            return answer.with_error_code(group_error(refusal.error).code()).with_error_message(refusal.message.map(text));
        }
    };
    let assignment = response.assignment.map(|topics| {
        let topics =
            topics.into_iter().map(|topic| TopicPartitions::default().with_topic_id(topic.topic_id.0).with_partitions(topic.partitions));
        Assignment::default().with_topic_partitions(topics.collect())
    });
    answer
        .with_member_id(Some(text(response.member_id)))
        .with_member_epoch(response.member_epoch)
        .with_heartbeat_interval_ms(response.heartbeat_interval_ms)
        .with_assignment(assignment)
}
