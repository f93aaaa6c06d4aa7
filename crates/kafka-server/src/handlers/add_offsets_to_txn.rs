//! AddOffsetsToTxn: the partition of a group's offsets becomes part of a transaction.

use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use siltstone_coordinator::{ProducerIdAndEpoch, TopicPartition, TransactionVersion, TxnProducer};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::transaction_code;
use crate::state_topics::GROUP_METADATA_TOPIC;

/// First version whose clients know PRODUCER_FENCED.
const FENCED_FROM: i16 = 2;

pub(crate) async fn handle(ctx: &RequestContext, request: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let permitted = ctx
        .authorize(AclOperation::Write, ResourceType::TransactionalId, request.transactional_id.0.as_str())
        .and_then(|()| ctx.authorize(AclOperation::Read, ResourceType::Group, request.group_id.0.as_str()));
    if let Err(error) = permitted {
        return AddOffsetsToTxnResponse::default().with_error_code(error.code());
    }
    let partition = ctx.services.groups.partition_for(request.group_id.0.as_str());
    let producer = ProducerIdAndEpoch { producer_id: request.producer_id.0, producer_epoch: request.producer_epoch };
    let who = TxnProducer { transactional_id: request.transactional_id.0.to_string(), producer };
    let offsets = vec![TopicPartition { topic: GROUP_METADATA_TOPIC.into(), partition }];
    let added = ctx.services.transactions.add_partitions(who, offsets, TransactionVersion::V1).await;
    let code = added.err().map_or(0, |error| transaction_code(error, ctx.api_version >= FENCED_FROM));
    AddOffsetsToTxnResponse::default().with_error_code(code)
}
