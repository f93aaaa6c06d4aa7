//! FindCoordinator: which broker answers for a group.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;
use siltstone_metadata::BrokerImage;

use crate::context::RequestContext;
use crate::group_log::GROUP_METADATA_TOPIC;
use crate::groups;
use crate::topic_lookup::text;

/// `key_type` of groups. Transactions (1) and share groups (2) have no coordinator here.
const KEY_TYPE_GROUP: i8 = 0;

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
            let answer = answer.with_error_code(error.code()).with_error_message(Some(text(error)));
            answer.with_node_id(BrokerId(-1)).with_port(-1)
        }
    }
}

async fn find(ctx: &RequestContext, key_type: i8, key: &StrBytes) -> Result<std::sync::Arc<BrokerImage>, ResponseError> {
    if key_type != KEY_TYPE_GROUP {
        return Err(ResponseError::InvalidRequest);
    }
    if let Err(error) = groups::ensure_topic(ctx).await {
        tracing::warn!(%error, "could not create __consumer_offsets");
        return Err(ResponseError::CoordinatorNotAvailable);
    }
    let image = ctx.services.metadata.image();
    let partition = usize::try_from(ctx.services.groups.partition_for(key.as_str())).unwrap_or(usize::MAX);
    let state = image.topic(GROUP_METADATA_TOPIC).and_then(|topic| topic.partitions.get(partition));
    let leader = state.and_then(|state| image.brokers.get(&state.leader)).filter(|broker| !broker.fenced);
    leader.cloned().ok_or(ResponseError::CoordinatorNotAvailable)
}
