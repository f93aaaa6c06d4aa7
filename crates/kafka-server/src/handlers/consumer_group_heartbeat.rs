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
    if !ctx.services.serves_consumer_groups() {
        return refused(ResponseError::UnsupportedVersion);
    }
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
    let may_describe = |topic: &str| ctx.allows(AclOperation::Describe, ResourceType::Topic, topic);
    let response = match ctx.services.groups.consumer_heartbeat(heartbeat, &may_describe).await {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kafka_protocol::messages::GroupId;

    use super::*;
    use crate::rig::Rig;
    use crate::state_topics::GROUP_METADATA_TOPIC;

    /// I44: what the client may not describe is not assigned to it.
    #[tokio::test]
    async fn an_expression_matches_only_topics_that_its_client_may_describe() {
        let rig = Rig::secured().await;
        rig.create_topic(GROUP_METADATA_TOPIC, 1).await;
        rig.create_topic("secret", 1).await;
        let open = rig.create_topic("open", 1).await;
        rig.allow(AclOperation::Read, ResourceType::Group, "g").await;
        rig.allow(AclOperation::Describe, ResourceType::Topic, "open").await;
        let ctx = rig.request(1);
        let beat = |epoch: i32| {
            let request = ConsumerGroupHeartbeatRequest::default().with_group_id(GroupId(text("g"))).with_member_id(text("m"));
            let request = request.with_member_epoch(epoch).with_rebalance_timeout_ms(60_000).with_topic_partitions(Some(Vec::new()));
            handle(&ctx, request.with_subscribed_topic_regex(Some(text("[a-z]+"))))
        };
        let assigned = tokio::time::timeout(Duration::from_secs(20), async {
            let mut epoch = 0;
            loop {
                // The coordinator may still be loading, and the expression is matched after the first answer.
                let answer = beat(epoch).await;
                if answer.error_code == 0 {
                    epoch = answer.member_epoch;
                }
                let topics = answer.assignment.unwrap_or_default().topic_partitions;
                if !topics.is_empty() {
                    return topics;
                }
                tokio::task::yield_now().await;
            }
        });
        let assigned = assigned.await.expect("an assignment in time");
        assert_eq!(assigned.iter().map(|topic| TopicId(topic.topic_id)).collect::<Vec<_>>(), [open.id]);
    }
}
