//! EndTxn: commits or aborts a transaction; from version 5 on it gives the producer its next epoch (KIP-890).

use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};
use siltstone_coordinator::{EndTransactionRequest, ProducerIdAndEpoch, TransactionVersion, TxnProducer};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::transaction_code;

/// First version whose clients know PRODUCER_FENCED.
const FENCED_FROM: i16 = 2;
/// First version of transactions version 2.
const EPOCH_BUMP_FROM: i16 = 5;

pub(crate) async fn handle(ctx: &RequestContext, request: EndTxnRequest) -> EndTxnResponse {
    let producer = ProducerIdAndEpoch { producer_id: request.producer_id.0, producer_epoch: request.producer_epoch };
    let end = EndTransactionRequest {
        who: TxnProducer { transactional_id: request.transactional_id.0.to_string(), producer },
        commit: request.committed,
        version: if ctx.api_version >= EPOCH_BUMP_FROM { TransactionVersion::V2 } else { TransactionVersion::V1 },
    };
    let permitted = ctx.authorize(AclOperation::Write, ResourceType::TransactionalId, &end.who.transactional_id);
    let result = match permitted {
        Ok(()) => {
            let ended = ctx.services.transactions.end_transaction(end).await;
            ended.map_err(|error| transaction_code(error, ctx.api_version >= FENCED_FROM))
        }
        Err(error) => Err(error.code()),
    };
    let (code, next) = match result {
        Ok(next) => (0, next),
        Err(code) => (code, ProducerIdAndEpoch::NONE),
    };
    let response = EndTxnResponse::default().with_error_code(code);
    if ctx.api_version < EPOCH_BUMP_FROM {
        return response;
    }
    response.with_producer_id(ProducerId(next.producer_id)).with_producer_epoch(next.producer_epoch)
}
