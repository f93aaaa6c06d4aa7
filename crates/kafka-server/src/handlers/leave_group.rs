//! LeaveGroup: one member leaves, or from version 3 several (KIP-345).

use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use siltstone_coordinator::{LeaveRequest, LeavingMember, LeftMember};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::{group_code, group_error};
use crate::topic_lookup::text;

pub(crate) async fn handle(ctx: &RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse {
    if let Err(error) = ctx.authorize(AclOperation::Read, ResourceType::Group, request.group_id.0.as_str()) {
        return LeaveGroupResponse::default().with_error_code(error.code());
    }
    let is_batched = ctx.api_version >= 3;
    let members = if is_batched {
        let member = request.members.into_iter().map(|member| LeavingMember {
            member_id: member.member_id.to_string(),
            group_instance_id: member.group_instance_id.map(|id| id.to_string()),
            reason: member.reason.map(|reason| reason.to_string()),
        });
        member.collect()
    } else {
        vec![LeavingMember { member_id: request.member_id.to_string(), group_instance_id: None, reason: None }]
    };
    let result = ctx.services.groups.leave_group(LeaveRequest { group_id: request.group_id.0.to_string(), members }).await;
    let code = group_code(&result);
    let left = result.unwrap_or_default();
    if !is_batched {
        // The only member's error is the request's.
        let member_code = left.first().map_or(0, error_code);
        return LeaveGroupResponse::default().with_error_code(if code == 0 { member_code } else { code });
    }
    let members = left.into_iter().map(|member| {
        MemberResponse::default()
            .with_error_code(error_code(&member))
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.group_instance_id.map(text))
    });
    LeaveGroupResponse::default().with_error_code(code).with_members(members.collect())
}

fn error_code(member: &LeftMember) -> i16 {
    member.error.map_or(0, |error| group_error(error).code())
}
