//! InitProducerId: ids from blocks that the metadata service gives out (KIP-98), and for a transactional id its producer, which fences the one
//! before (KIP-360).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use siltstone_coordinator::{InitProducerRequest, ProducerIdAndEpoch};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::transaction_code;

/// First version whose clients know PRODUCER_FENCED.
const FENCED_FROM: i16 = 4;

pub(crate) async fn handle(ctx: &RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let allowed = match &request.transactional_id {
        Some(id) => ctx.authorize(AclOperation::Write, ResourceType::TransactionalId, id.0.as_str()),
        None if ctx.allows_cluster(AclOperation::IdempotentWrite) || ctx.allows_any(AclOperation::Write, ResourceType::Topic) => Ok(()),
        None => Err(ResponseError::ClusterAuthorizationFailed),
    };
    if let Err(error) = allowed {
        return answer(Err(error.code()));
    }
    let given = ProducerIdAndEpoch { producer_id: request.producer_id.0, producer_epoch: request.producer_epoch };
    // An id and its epoch come together or not at all (KIP-360).
    if (given.producer_id == -1) != (given.producer_epoch == -1) {
        return answer(Err(ResponseError::InvalidRequest.code()));
    }
    let Some(transactional_id) = request.transactional_id else {
        return answer(idempotent(ctx).await.map_err(|error| error.code()));
    };
    let init = InitProducerRequest {
        transactional_id: transactional_id.0.to_string(),
        timeout_ms: request.transaction_timeout_ms,
        expected: (given != ProducerIdAndEpoch::NONE).then_some(given),
    };
    let result = ctx.services.transactions.init_producer(init).await;
    answer(result.map_err(|error| transaction_code(error, ctx.api_version >= FENCED_FROM)))
}

async fn idempotent(ctx: &RequestContext) -> Result<ProducerIdAndEpoch, ResponseError> {
    match ctx.services.producer_ids.next().await {
        Ok(producer_id) => Ok(ProducerIdAndEpoch { producer_id, producer_epoch: 0 }),
        Err(error) => {
            tracing::warn!(%error, "no producer id to give");
            Err(ResponseError::CoordinatorLoadInProgress)
        }
    }
}

fn answer(result: Result<ProducerIdAndEpoch, i16>) -> InitProducerIdResponse {
    let (code, producer) = match result {
        Ok(producer) => (0, producer),
        Err(code) => (code, ProducerIdAndEpoch::NONE),
    };
    InitProducerIdResponse::default()
        .with_error_code(code)
        .with_producer_id(ProducerId(producer.producer_id))
        .with_producer_epoch(producer.producer_epoch)
}
