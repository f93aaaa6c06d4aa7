//! FindCoordinator: which broker answers for a group or a transactional id.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;
use siltstone_metadata::BrokerImage;
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::groups;
use crate::state_topics::{GROUP_METADATA_TOPIC, TRANSACTION_STATE_TOPIC};
use crate::topic_lookup::text;
use crate::transactions;

/// `key_type` of groups and of transactional ids. Share groups (2) have no coordinator here.
const KEY_TYPE_GROUP: i8 = 0;
const KEY_TYPE_TRANSACTION: i8 = 1;

pub(crate) async fn handle(ctx: &RequestContext, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    if ctx.api_version >= 4 {
        // One look-up per key, all at once (KIP-699).
        let mut coordinators = Vec::with_capacity(request.coordinator_keys.len());
        for key in request.coordinator_keys {
            let found = find(ctx, request.key_type, &key).await;
            coordinators.push(coordinator(key, found));
        }
        return FindCoordinatorResponse::default().with_coordinators(coordinators);
    }
    let found = coordinator(request.key.clone(), find(ctx, request.key_type, &request.key).await);
    // Kafka names success too.
    let message = found.error_message.filter(|message| !message.is_empty()).unwrap_or(StrBytes::from_static_str("NONE"));
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(Some(message))
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}

fn coordinator(key: StrBytes, found: Result<std::sync::Arc<BrokerImage>, ResponseError>) -> Coordinator {
    let answer = Coordinator::default().with_key(key);
    match found {
        Ok(broker) => answer.with_node_id(BrokerId(broker.id)).with_host(text(&broker.host)).with_port(i32::from(broker.port)),
        Err(error) => {
            // As Kafka: no words for those who may not ask.
            let denied = matches!(error, ResponseError::GroupAuthorizationFailed | ResponseError::TransactionalIdAuthorizationFailed);
            let words = if denied { StrBytes::default() } else { text(error) };
            let answer = answer.with_error_code(error.code()).with_error_message(Some(words));
            answer.with_node_id(BrokerId(-1)).with_port(-1)
        }
    }
}

async fn find(ctx: &RequestContext, key_type: i8, key: &StrBytes) -> Result<std::sync::Arc<BrokerImage>, ResponseError> {
    match key_type {
        KEY_TYPE_GROUP => ctx.authorize(AclOperation::Describe, ResourceType::Group, key)?,
        KEY_TYPE_TRANSACTION => ctx.authorize(AclOperation::Describe, ResourceType::TransactionalId, key)?,
        _ => return Err(ResponseError::InvalidRequest),
    }
    let services = &ctx.services;
    let (topic, made, partition) = match key_type {
        KEY_TYPE_GROUP => (GROUP_METADATA_TOPIC, groups::ensure_topic(ctx).await, services.groups.partition_for(key.as_str())),
        KEY_TYPE_TRANSACTION => {
            let made = transactions::ensure_topic(ctx).await;
            (TRANSACTION_STATE_TOPIC, made, services.transactions.partition_for(key.as_str()))
        }
        _ => return Err(ResponseError::InvalidRequest),
    };
    if let Err(error) = made {
        tracing::warn!(topic, %error, "could not create the coordinator's topic");
        return Err(ResponseError::CoordinatorNotAvailable);
    }
    let image = services.metadata.image();
    let partition = usize::try_from(partition).unwrap_or(usize::MAX);
    let state = image.topic(topic).and_then(|topic| topic.partitions.get(partition));
    let leader = state.and_then(|state| image.brokers.get(&state.leader)).filter(|broker| !broker.fenced);
    leader.cloned().ok_or(ResponseError::CoordinatorNotAvailable)
}
