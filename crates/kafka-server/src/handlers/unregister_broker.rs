//! UnregisterBroker: forgets a broker that will not come back.

use kafka_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use siltstone_metadata::acls::AclOperation;
use siltstone_metadata::api::AdminChange;

use crate::context::RequestContext;
use crate::error_codes::{Refused, with_error};

pub(crate) async fn handle(ctx: &RequestContext, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse {
    let change = AdminChange::UnregisterBroker(request.broker_id.0);
    let outcome = match ctx.authorize_cluster(AclOperation::Alter) {
        Ok(()) => ctx.services.metadata.administer(change, false).await.map_err(Refused::from),
        Err(error) => Err(error.into()),
    };
    with_error!(UnregisterBrokerResponse::default(), outcome)
}
