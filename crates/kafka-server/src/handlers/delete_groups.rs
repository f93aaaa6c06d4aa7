//! DeleteGroups: groups without members, with their offsets.

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};

use crate::context::RequestContext;
use crate::error_codes::group_code;
use crate::topic_lookup::text;

pub(crate) async fn handle(ctx: &RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut group_ids: Vec<String> = request.groups_names.iter().map(|group_id| group_id.0.to_string()).collect();
    group_ids.sort_unstable();
    group_ids.dedup();
    let results = ctx.services.groups.delete_groups(group_ids).await.into_iter().map(|(group_id, result)| {
        DeletableGroupResult::default().with_error_code(group_code(&result)).with_group_id(GroupId(text(group_id)))
    });
    DeleteGroupsResponse::default().with_results(results.collect())
}
