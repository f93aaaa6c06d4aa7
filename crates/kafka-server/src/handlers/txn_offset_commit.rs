//! TxnOffsetCommit: a group's positions as part of a transaction (KIP-98, KIP-447).

use std::collections::HashSet;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::txn_offset_commit_request::TxnOffsetCommitRequestTopic;
use kafka_protocol::messages::txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic};
use kafka_protocol::messages::{TopicName, TxnOffsetCommitRequest, TxnOffsetCommitResponse};
use siltstone_common::TopicIdPartition;
use siltstone_coordinator::{
    CommitOffset, CommitOutcome, CommitRequest, ProducerIdAndEpoch, TopicPartition, TransactionError, TransactionVersion,
    TransactionalCommitRequest, TxnProducer, WriteGuard,
};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::{group_error, replica_error, transaction_error};
use crate::state_topics::GROUP_METADATA_TOPIC;
use crate::topic_lookup::{by_name, unreadable};
use crate::txn_verify::verify;

/// First version whose clients know COORDINATOR_LOAD_IN_PROGRESS.
const LOADING_FROM: i16 = 2;
/// First version whose clients know TRANSACTION_ABORTABLE.
const ABORTABLE_FROM: i16 = 4;
/// First version of transactions version 2.
const TRANSACTIONS_V2_FROM: i16 = 5;

pub(crate) async fn handle(ctx: &RequestContext, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let image = ctx.services.metadata.image();
    let permitted = ctx
        .authorize(AclOperation::Write, ResourceType::TransactionalId, request.transactional_id.0.as_str())
        .and_then(|()| ctx.authorize(AclOperation::Read, ResourceType::Group, request.group_id.0.as_str()));
    let unreadable = if permitted.is_ok() { unreadable(ctx, request.topics.iter().map(|topic| &topic.name)) } else { HashSet::new() };
    let find = |topic: &TopicName, partition: i32| match permitted {
        Err(error) => Err(error),
        Ok(()) if unreadable.contains(topic) => Err(ResponseError::TopicAuthorizationFailed),
        Ok(()) => by_name(&image, topic, partition).map(drop),
    };
    let known = known_offsets(&request.topics, find);
    let outcomes = if known.is_empty() { Ok(Vec::new()) } else { commit(ctx, &request, known).await };
    // A refusal of the request is every known partition's; outcomes come in the order of the known partitions.
    let (refusal, mut outcomes) = match outcomes {
        Ok(outcomes) => (0, outcomes.into_iter()),
        Err(error) => (error.code(), Vec::new().into_iter()),
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let code = match find(&topic.name, partition.partition_index) {
                Err(error) => error.code(),
                Ok(_) if refusal != 0 => refusal,
                Ok(_) => match outcomes.next() {
                    Some((_, result)) => result.err().map_or(0, |error| group_error(error).code()),
                    None => ResponseError::UnknownServerError.code(),
                },
            };
            TxnOffsetCommitResponsePartition::default().with_partition_index(partition.partition_index).with_error_code(code)
        });
        let partitions = partitions.collect();
        TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

/// The offsets of partitions that are found.
fn known_offsets(topics: &[TxnOffsetCommitRequestTopic], find: impl Fn(&TopicName, i32) -> Result<(), ResponseError>) -> Vec<CommitOffset> {
    let mut known = Vec::new();
    for topic in topics {
        let name: Arc<str> = topic.name.as_str().into();
        let partitions = topic.partitions.iter().filter(|partition| find(&topic.name, partition.partition_index).is_ok());
        known.extend(partitions.map(|partition| CommitOffset {
            id: TopicPartition { topic: name.clone(), partition: partition.partition_index },
            offset: partition.committed_offset,
            leader_epoch: partition.committed_leader_epoch,
            metadata: partition.committed_metadata.as_ref().map(|text| text.to_string()),
        }));
    }
    known
}

async fn commit(
    ctx: &RequestContext,
    request: &TxnOffsetCommitRequest,
    offsets: Vec<CommitOffset>,
) -> Result<Vec<CommitOutcome>, ResponseError> {
    let old_client = |error| match error {
        ResponseError::CoordinatorLoadInProgress if ctx.api_version < LOADING_FROM => ResponseError::CoordinatorNotAvailable,
        error => error,
    };
    if request.group_id.0.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    let guard = begin(ctx, request).await.map_err(old_client)?;
    let commit = CommitRequest {
        group_id: request.group_id.0.to_string(),
        generation_id: request.generation_id,
        member_id: request.member_id.to_string(),
        group_instance_id: request.group_instance_id.as_ref().map(|id| id.to_string()),
        retention_time_ms: -1,
        reports_unknown_group: false,
        offsets,
    };
    let commit = TransactionalCommitRequest { commit, producer: producer_of(request), guard };
    let outcomes = ctx.services.groups.commit_transactional_offsets(commit).await;
    outcomes.map_err(|error| old_client(group_error(error)))
}

fn producer_of(request: &TxnOffsetCommitRequest) -> ProducerIdAndEpoch {
    ProducerIdAndEpoch { producer_id: request.producer_id.0, producer_epoch: request.producer_epoch }
}

/// Makes sure that the transaction knows the partition of the group's offsets; the guard for its first write there.
async fn begin(ctx: &RequestContext, request: &TxnOffsetCommitRequest) -> Result<Option<WriteGuard>, ResponseError> {
    let services = &ctx.services;
    let partition = services.groups.partition_for(request.group_id.0.as_str());
    let image = services.metadata.image();
    let topic = image.topic(GROUP_METADATA_TOPIC).ok_or(ResponseError::CoordinatorNotAvailable)?;
    let id = TopicIdPartition::new(topic.id, partition);
    let version = if ctx.api_version >= TRANSACTIONS_V2_FROM { TransactionVersion::V2 } else { TransactionVersion::V1 };
    let producer = producer_of(request);
    let bumps_epoch = version == TransactionVersion::V2;
    let guard = services.replicas.begin_verification(id, (producer.producer_id, producer.producer_epoch), -1, bumps_epoch).await;
    let Some(guard) = guard.map_err(|error| match replica_error(&error) {
        ResponseError::NotLeaderOrFollower | ResponseError::KafkaStorageError => ResponseError::NotCoordinator,
        ResponseError::UnknownTopicOrPartition => ResponseError::CoordinatorNotAvailable,
        other => other,
    })?
    else {
        return Ok(None);
    };
    let who = TxnProducer { transactional_id: request.transactional_id.0.to_string(), producer };
    let asked = vec![TopicPartition { topic: GROUP_METADATA_TOPIC.into(), partition }];
    match verify(services, version, who, asked).await.into_iter().next() {
        Some(Ok(())) => Ok(Some(WriteGuard(guard.value()))),
        Some(Err(TransactionError::ProducerFenced)) => Err(ResponseError::InvalidProducerEpoch),
        Some(Err(TransactionError::TransactionAbortable)) if ctx.api_version < ABORTABLE_FROM => Err(ResponseError::InvalidTxnState),
        Some(Err(error)) => Err(transaction_error(error)),
        None => Err(ResponseError::UnknownServerError),
    }
}
