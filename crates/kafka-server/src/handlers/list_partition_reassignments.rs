//! ListPartitionReassignments (KIP-455): the moves under way. A reassignment is over as soon as it is decided, so there are none.

use kafka_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use crate::context::RequestContext;

pub(crate) async fn handle(_ctx: &RequestContext, _request: ListPartitionReassignmentsRequest) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}
