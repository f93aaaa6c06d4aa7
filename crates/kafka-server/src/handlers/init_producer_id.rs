//! InitProducerId for idempotent producers (KIP-98): ids from blocks that the metadata service gives out.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::context::RequestContext;

pub(crate) async fn handle(ctx: &RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let refused = |error: ResponseError| {
        InitProducerIdResponse::default().with_error_code(error.code()).with_producer_id(ProducerId(-1)).with_producer_epoch(-1)
    };
    // An id and its epoch come together or not at all (KIP-360).
    if (request.producer_id.0 == -1) != (request.producer_epoch == -1) {
        return refused(ResponseError::InvalidRequest);
    }
    match &request.transactional_id {
        Some(id) if id.0.is_empty() => return refused(ResponseError::InvalidRequest),
        // Transactions need their coordinator, which this broker does not have yet: the id is nobody's to give.
        Some(_) => return refused(ResponseError::TransactionalIdNotFound),
        None => {}
    }
    match ctx.services.producer_ids.next(&*ctx.services.metadata, ctx.services.config.broker_id).await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(error) => {
            tracing::warn!(%error, "no producer id to give");
            refused(ResponseError::CoordinatorLoadInProgress)
        }
    }
}
