//! DeleteGroups: groups without members, with their offsets.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::group_code;
use crate::topic_lookup::text;

pub(crate) async fn handle(ctx: &RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut group_ids: Vec<String> = request.groups_names.iter().map(|group_id| group_id.0.to_string()).collect();
    group_ids.sort_unstable();
    group_ids.dedup();
    let (allowed, denied): (Vec<_>, Vec<_>) =
        group_ids.into_iter().partition(|group_id| ctx.authorize(AclOperation::Delete, ResourceType::Group, group_id).is_ok());
    let deleted = ctx.services.groups.delete_groups(allowed).await;
    let deleted = deleted.into_iter().map(|(group_id, result)| (group_id, group_code(&result)));
    let denied = denied.into_iter().map(|group_id| (group_id, ResponseError::GroupAuthorizationFailed.code()));
    let results = deleted
        .chain(denied)
        .map(|(group_id, code)| DeletableGroupResult::default().with_error_code(code).with_group_id(GroupId(text(group_id))));
    DeleteGroupsResponse::default().with_results(results.collect())
}
