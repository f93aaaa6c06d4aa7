//! Heartbeat: a member is alive.

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::group_code;

pub(crate) async fn handle(ctx: &RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    if let Err(error) = ctx.authorize(AclOperation::Read, ResourceType::Group, request.group_id.0.as_str()) {
        return HeartbeatResponse::default().with_error_code(error.code());
    }
    let result = ctx.services.groups.heartbeat(&siltstone_coordinator::HeartbeatRequest {
        group_id: request.group_id.0.to_string(),
        generation_id: request.generation_id,
        member_id: request.member_id.to_string(),
        group_instance_id: request.group_instance_id.map(|id| id.to_string()),
    });
    HeartbeatResponse::default().with_error_code(group_code(&result))
}
