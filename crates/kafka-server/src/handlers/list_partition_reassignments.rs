//! ListPartitionReassignments (KIP-455): the moves under way. A reassignment is over as soon as it is decided, so there are none.

use kafka_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};
use siltstone_metadata::acls::AclOperation;

use crate::context::RequestContext;
use crate::error_codes::words;
use crate::topic_lookup::text;

pub(crate) async fn handle(ctx: &RequestContext, _request: ListPartitionReassignmentsRequest) -> ListPartitionReassignmentsResponse {
    let response = ListPartitionReassignmentsResponse::default();
    match ctx.authorize_cluster(AclOperation::Describe) {
        Ok(()) => response,
        Err(error) => response.with_error_code(error.code()).with_error_message(Some(text(words(error)))),
    }
}
