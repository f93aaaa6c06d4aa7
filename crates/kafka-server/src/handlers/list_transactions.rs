//! ListTransactions: the transactional ids whose coordinator this broker is, filtered by state, producer id, duration and pattern.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_transactions_response::TransactionState;
use kafka_protocol::messages::{ListTransactionsResponse, ProducerId, TransactionalId};
use regex::{Regex, RegexBuilder};
use siltstone_coordinator::{ListTransactionsRequest, ListedTransactions};
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::transaction_error;
use crate::topic_lookup::text;

/// Memory that one pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

pub(crate) async fn handle(ctx: &RequestContext, request: kafka_protocol::messages::ListTransactionsRequest) -> ListTransactionsResponse {
    let pattern = match request.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty()).map(whole_match).transpose() {
        Ok(pattern) => pattern,
        Err(error) => {
            tracing::debug!(%error, "a pattern of transactional ids is invalid");
            return ListTransactionsResponse::default().with_error_code(ResponseError::InvalidRegularExpression.code());
        }
    };
    let wanted = ListTransactionsRequest {
        states: request.state_filters.iter().map(|state| state.to_string()).collect(),
        producer_ids: request.producer_id_filters.iter().map(|id| id.0).collect(),
        duration_ms: request.duration_filter,
    };
    match ctx.services.transactions.list(&wanted) {
        Ok(listed) => answer(ctx, listed, pattern.as_ref()),
        Err(error) => ListTransactionsResponse::default().with_error_code(transaction_error(error).code()),
    }
}

fn answer(ctx: &RequestContext, listed: ListedTransactions, pattern: Option<&Regex>) -> ListTransactionsResponse {
    let sees = |id: &str| ctx.allows(AclOperation::Describe, ResourceType::TransactionalId, id);
    let matches = |id: &str| pattern.is_none_or(|pattern| pattern.is_match(id)) && sees(id);
    let states = listed.transactions.into_iter().filter(|found| matches(&found.transactional_id)).map(|found| {
        TransactionState::default()
            .with_transactional_id(TransactionalId(text(found.transactional_id)))
            .with_producer_id(ProducerId(found.producer_id))
            .with_transaction_state(text(found.state))
    });
    ListTransactionsResponse::default()
        .with_unknown_state_filters(listed.unknown_states.iter().map(text).collect())
        .with_transaction_states(states.collect())
}

/// A pattern that must match the whole id, as in Kafka.
fn whole_match(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(PATTERN_BYTES_MAX).build()
}
