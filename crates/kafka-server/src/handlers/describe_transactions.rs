//! DescribeTransactions: the state of transactional ids whose coordinator this broker is.

use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId};
use siltstone_coordinator::DescribedTransaction;
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::answer::AnswerRoom;
use crate::context::RequestContext;
use crate::error_codes::transaction_error;
use crate::topic_lookup::{text, topic_name};

pub(crate) async fn handle(ctx: &RequestContext, request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    let mut room = AnswerRoom::new();
    let states = request.transactional_ids.into_iter().map(|transactional_id| {
        if let Err(error) = ctx.authorize(AclOperation::Describe, ResourceType::TransactionalId, &transactional_id) {
            return TransactionState::default().with_transactional_id(transactional_id).with_error_code(error.code());
        }
        let described = room.check().and_then(|()| ctx.services.transactions.describe(&transactional_id).map_err(transaction_error));
        let answer = TransactionState::default().with_transactional_id(transactional_id);
        match described {
            Ok(transaction) => {
                room.take(1 + transaction.partitions.len(), 0);
                fill(ctx, answer, transaction)
            }
            Err(error) => answer.with_error_code(error.code()),
        }
    });
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}

fn fill(ctx: &RequestContext, answer: TransactionState, transaction: DescribedTransaction) -> TransactionState {
    let mut topics: Vec<TopicData> = Vec::new();
    for id in transaction.partitions {
        match topics.last_mut() {
            Some(topic) if *topic.topic == *id.topic => topic.partitions.push(id.partition),
            _ => topics.push(TopicData::default().with_topic(topic_name(&id.topic)).with_partitions(vec![id.partition])),
        }
    }
    topics.retain(|topic| ctx.allows(AclOperation::Describe, ResourceType::Topic, topic.topic.0.as_str()));
    answer
        .with_transaction_state(text(transaction.state))
        .with_transaction_timeout_ms(transaction.timeout_ms)
        .with_transaction_start_time_ms(transaction.start_timestamp_ms)
        .with_producer_id(ProducerId(transaction.producer.producer_id))
        .with_producer_epoch(transaction.producer.producer_epoch)
        .with_topics(topics)
}
