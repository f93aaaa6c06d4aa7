//! SyncGroup: the leader brings the assignment, everybody gets their part.

use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use siltstone_coordinator::{GroupError, SyncRequest, SyncResponse};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::group_error;
use crate::topic_lookup::text;

pub(crate) async fn handle(ctx: &RequestContext, request: SyncGroupRequest) -> SyncGroupResponse {
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    let permitted = ctx.authorize(AclOperation::Read, ResourceType::Group, request.group_id.0.as_str());
    let response = if ctx.api_version >= 5 && !names_protocol {
        SyncResponse::refused(GroupError::InconsistentGroupProtocol)
    } else if let Err(error) = permitted {
        return SyncGroupResponse::default().with_error_code(error.code());
    } else {
        ctx.services.groups.sync_group(sync_request(request)).await
    };
    SyncGroupResponse::default()
        .with_error_code(response.error.map_or(0, |error| group_error(error).code()))
        .with_protocol_type(response.protocol_type.map(text))
        .with_protocol_name(response.protocol_name.map(text))
        .with_assignment(response.assignment)
}

fn sync_request(request: SyncGroupRequest) -> SyncRequest {
    let assignments = request.assignments.into_iter();
    SyncRequest {
        group_id: request.group_id.0.to_string(),
        generation_id: request.generation_id,
        member_id: request.member_id.to_string(),
        group_instance_id: request.group_instance_id.map(|id| id.to_string()),
        protocol_type: request.protocol_type.map(|kind| kind.to_string()),
        protocol_name: request.protocol_name.map(|name| name.to_string()),
        // Copied, so that the group does not hold the whole frame.
        assignments: assignments.map(|assigned| (assigned.member_id.to_string(), assigned.assignment.to_vec().into())).collect(),
    }
}
