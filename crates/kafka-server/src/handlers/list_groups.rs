//! ListGroups: the groups that this broker coordinates.

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::group_error;
use crate::topic_lookup::text;

pub(crate) async fn handle(ctx: &RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
    let filter = siltstone_coordinator::ListGroupsRequest {
        states: request.states_filter.iter().map(|state| state.to_string()).collect(),
        types: request.types_filter.iter().map(|kind| kind.to_string()).collect(),
    };
    let groups = match ctx.services.groups.list_groups(&filter) {
        Ok(groups) => groups,
        Err(error) => return ListGroupsResponse::default().with_error_code(group_error(error).code()),
    };
    let sees_all = ctx.allows_cluster(AclOperation::Describe);
    let sees = |group_id: &str| sees_all || ctx.allows(AclOperation::Describe, ResourceType::Group, group_id);
    let listed = groups.into_iter().filter(|group| sees(&group.group_id)).map(|group| {
        ListedGroup::default()
            .with_group_id(GroupId(text(group.group_id)))
            .with_protocol_type(text(group.protocol_type))
            .with_group_state(StrBytes::from_static_str(group.state))
            .with_group_type(StrBytes::from_static_str(group.group_type))
    });
    ListGroupsResponse::default().with_groups(listed.collect())
}
