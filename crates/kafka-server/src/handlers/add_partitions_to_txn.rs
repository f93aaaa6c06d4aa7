//! AddPartitionsToTxn: partitions become part of a transaction. Versions 4 and up come from brokers, for many transactions, and may only ask (KIP-890).

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, TopicName, TransactionalId};
use siltstone_coordinator::{ProducerIdAndEpoch, TopicPartition, TransactionVersion, TxnProducer};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::transaction_code;
use crate::state_topics::{GROUP_METADATA_TOPIC, TRANSACTION_STATE_TOPIC};
use crate::topic_lookup::{by_name, partitions_of};

/// First version whose clients know PRODUCER_FENCED.
const FENCED_FROM: i16 = 2;
/// First version for many transactions.
const BATCHED_FROM: i16 = 4;
/// First version of brokers that add partitions for clients of transactions version 2.
const TRANSACTIONS_V2_FROM: i16 = 5;

pub(crate) async fn handle(ctx: &RequestContext, request: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
    if ctx.api_version >= BATCHED_FROM {
        // These come from brokers.
        if let Err(error) = ctx.authorize_cluster(AclOperation::ClusterAction) {
            return AddPartitionsToTxnResponse::default().with_error_code(error.code());
        }
        let mut results = Vec::with_capacity(request.transactions.len());
        for transaction in request.transactions {
            results.push(one(ctx, transaction).await);
        }
        return AddPartitionsToTxnResponse::default().with_results_by_transaction(results);
    }
    let transaction = AddPartitionsToTxnTransaction::default()
        .with_transactional_id(request.v3_and_below_transactional_id)
        .with_producer_id(request.v3_and_below_producer_id)
        .with_producer_epoch(request.v3_and_below_producer_epoch)
        .with_topics(request.v3_and_below_topics);
    let topics = one(ctx, transaction).await.topic_results;
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics)
}

/// One transaction: if any partition can't be added, none is.
async fn one(ctx: &RequestContext, transaction: AddPartitionsToTxnTransaction) -> AddPartitionsToTxnResult {
    let AddPartitionsToTxnTransaction { transactional_id, producer_id, producer_epoch, verify_only, topics, .. } = transaction;
    let image = ctx.services.metadata.image();
    // Clients have no business in the coordinators' topics; AddOffsetsToTxn brings those in.
    let is_forbidden = |topic: &AddPartitionsToTxnTopic| {
        ctx.api_version < BATCHED_FROM && matches!(topic.name.0.as_str(), GROUP_METADATA_TOPIC | TRANSACTION_STATE_TOPIC)
    };
    if ctx.api_version < BATCHED_FROM
        && let Err(error) = ctx.authorize(AclOperation::Write, ResourceType::TransactionalId, transactional_id.0.as_str())
    {
        return result(transactional_id, &topics, |_, _| error.code());
    }
    let is_denied = |topic: &&AddPartitionsToTxnTopic| {
        is_forbidden(topic)
            || ctx.api_version < BATCHED_FROM && ctx.authorize(AclOperation::Write, ResourceType::Topic, topic.name.0.as_str()).is_err()
    };
    let denied: HashSet<TopicName> = topics.iter().filter(is_denied).map(|topic| topic.name.clone()).collect();
    let check = |topic: &AddPartitionsToTxnTopic, index: i32| match denied.contains(&topic.name) {
        true => Err(ResponseError::TopicAuthorizationFailed),
        false => by_name(&image, &topic.name, index).map(drop),
    };
    if topics.iter().any(|topic| topic.partitions.iter().any(|index| check(topic, *index).is_err())) {
        return result(transactional_id, &topics, |topic, index| match check(topic, index) {
            Ok(()) => ResponseError::OperationNotAttempted.code(),
            Err(error) => error.code(),
        });
    }
    let producer = ProducerIdAndEpoch { producer_id: producer_id.0, producer_epoch };
    let who = TxnProducer { transactional_id: transactional_id.0.to_string(), producer };
    let of_topic = |topic: &AddPartitionsToTxnTopic| partitions_of(&topic.name, topic.partitions.clone());
    let partitions: Vec<TopicPartition> = topics.iter().flat_map(of_topic).collect();
    let code = |error| transaction_code(error, ctx.api_version >= FENCED_FROM);
    let codes: Result<Vec<i16>, i16> = if verify_only {
        let verified = ctx.services.transactions.verify_partitions(&who, &partitions);
        verified.map(|outcomes| outcomes.into_iter().map(|outcome| outcome.err().map_or(0, code)).collect()).map_err(code)
    } else {
        let version = if ctx.api_version >= TRANSACTIONS_V2_FROM { TransactionVersion::V2 } else { TransactionVersion::V1 };
        let count = partitions.len();
        ctx.services.transactions.add_partitions(who, partitions, version).await.map(|()| vec![0; count]).map_err(code)
    };
    let (refusal, mut codes) = match codes {
        Ok(codes) => (0, codes.into_iter()),
        Err(code) => (code, Vec::new().into_iter()),
    };
    result(transactional_id, &topics, |_, _| codes.next().unwrap_or(refusal))
}

fn result(
    transactional_id: TransactionalId,
    topics: &[AddPartitionsToTxnTopic],
    mut code: impl FnMut(&AddPartitionsToTxnTopic, i32) -> i16,
) -> AddPartitionsToTxnResult {
    let topics = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|index| {
            AddPartitionsToTxnPartitionResult::default().with_partition_index(*index).with_partition_error_code(code(topic, *index))
        });
        let partitions = partitions.collect();
        AddPartitionsToTxnTopicResult::default().with_name(topic.name.clone()).with_results_by_partition(partitions)
    });
    let topics = topics.collect();
    AddPartitionsToTxnResult::default().with_transactional_id(transactional_id).with_topic_results(topics)
}
