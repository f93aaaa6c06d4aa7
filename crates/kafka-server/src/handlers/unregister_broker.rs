//! UnregisterBroker: forgets a broker that will not come back.

use kafka_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use siltstone_metadata::api::AdminChange;

use crate::context::RequestContext;
use crate::error_codes::with_error;

pub(crate) async fn handle(ctx: &RequestContext, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse {
    let change = AdminChange::UnregisterBroker(request.broker_id.0);
    with_error!(UnregisterBrokerResponse::default(), ctx.services.metadata.administer(change, false).await)
}
