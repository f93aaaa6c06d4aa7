//! DescribeGroups: state and members of classic groups.

use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use kafka_protocol::protocol::StrBytes;
use siltstone_coordinator::{GroupError, Refusal};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::answer::AnswerRoom;
use crate::context::RequestContext;
use crate::error_codes::group_error;
use crate::topic_lookup::{OPERATIONS_UNKNOWN, text};

pub(crate) async fn handle(ctx: &RequestContext, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let asks_operations = ctx.api_version >= 3 && request.include_authorized_operations;
    let mut room = AnswerRoom::new();
    let groups = request.groups.into_iter().map(|group_id| {
        if let Err(error) = ctx.authorize(AclOperation::Describe, ResourceType::Group, group_id.0.as_str()) {
            return DescribedGroup::default()
                .with_group_id(group_id)
                .with_error_code(error.code())
                .with_authorized_operations(OPERATIONS_UNKNOWN);
        }
        let group = match room.check() {
            Ok(()) => describe(ctx, group_id),
            Err(error) => DescribedGroup::default().with_group_id(group_id).with_error_code(error.code()),
        };
        let bytes = group.members.iter().map(|member| member.member_metadata.len() + member.member_assignment.len()).sum();
        room.take(1 + group.members.len(), bytes);
        let operations = ctx.group_operations(asks_operations && group.error_code == 0, &group.group_id);
        group.with_authorized_operations(operations)
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn describe(ctx: &RequestContext, group_id: GroupId) -> DescribedGroup {
    let described = ctx.services.groups.describe_group(group_id.0.as_str());
    let answer = DescribedGroup::default().with_group_id(group_id);
    let group = match described {
        Ok(group) => group,
        // Before version 6 a group that does not exist is a dead one (KIP-1043).
        Err(Refusal { error: GroupError::GroupIdNotFound, message }) => {
            let answer = answer.with_group_state(StrBytes::from_static_str("Dead"));
            if ctx.api_version < 6 {
                return answer;
            }
            return answer.with_error_code(group_error(GroupError::GroupIdNotFound).code()).with_error_message(message.map(text));
        }
        Err(refusal) => return answer.with_error_code(group_error(refusal.error).code()),
    };
    let members = group.members.into_iter().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.group_instance_id.map(text))
            .with_client_id(text(member.client_id))
            .with_client_host(text(member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    });
    answer
        .with_group_state(StrBytes::from_static_str(group.state))
        .with_protocol_type(text(group.protocol_type))
        .with_protocol_data(text(group.protocol_name))
        .with_members(members.collect())
}
