//! JoinGroup: a member joins, and waits until the others have.

use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;
use siltstone_coordinator::{JoinRequest, Protocol};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::group_error;
use crate::topic_lookup::text;

pub(crate) async fn handle(ctx: &RequestContext, request: JoinGroupRequest) -> JoinGroupResponse {
    let version = ctx.api_version;
    if let Err(error) = ctx.authorize(AclOperation::Read, ResourceType::Group, request.group_id.0.as_str()) {
        let refused = JoinGroupResponse::default().with_error_code(error.code()).with_generation_id(-1);
        return refused.with_protocol_name((version < 7).then(StrBytes::default));
    }
    let protocols = request.protocols.into_iter();
    let joined = JoinRequest {
        group_id: request.group_id.0.to_string(),
        member_id: request.member_id.to_string(),
        group_instance_id: request.group_instance_id.map(|id| id.to_string()),
        client_id: ctx.client_id.as_deref().unwrap_or_default().to_owned(),
        client_host: format!("/{}", ctx.session.host),
        // Version 0 knows one timeout only.
        rebalance_timeout_ms: if version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms },
        session_timeout_ms: request.session_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        // Copied, so that the group does not hold the whole frame.
        protocols: protocols
            .map(|protocol| Protocol { name: protocol.name.to_string(), metadata: protocol.metadata.to_vec().into() })
            .collect(),
        require_known_member_id: version >= 4,
        supports_skipping_assignment: version >= 9,
        reason: request.reason.map(|reason| reason.to_string()),
    };
    let response = ctx.services.groups.join_group(joined).await;
    let members = response.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.group_instance_id.map(text))
            .with_metadata(member.metadata)
    });
    // Before version 7 the protocol's name can't be null.
    let protocol_name = match response.protocol_name {
        None if version < 7 => Some(StrBytes::default()),
        name => name.map(text),
    };
    JoinGroupResponse::default()
        .with_error_code(response.error.map_or(0, |error| group_error(error).code()))
        .with_generation_id(response.generation_id)
        .with_protocol_type(response.protocol_type.map(text))
        .with_protocol_name(protocol_name)
        .with_leader(text(response.leader))
        .with_skip_assignment(version >= 9 && response.skip_assignment)
        .with_member_id(text(response.member_id))
        .with_members(members.collect())
}
