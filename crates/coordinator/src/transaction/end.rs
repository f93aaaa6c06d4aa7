//! What EndTxn means to a transaction, by its state and the client's version: Kafka's tables.

use crate::transaction::error::TransactionError;
use crate::transaction::messages::{EndTransactionRequest, NO_PRODUCER_ID, ProducerIdAndEpoch, TransactionVersion};
use crate::transaction::metadata::{Transaction, TransactionData, TransactionState};

/// What to do.
#[derive(Debug)]
pub(crate) enum EndStep {
    /// Write this: the outcome is decided.
    Prepare(Box<TransactionData>),
    /// A retry: it ended so before.
    AlreadyEnded(ProducerIdAndEpoch),
    /// The epochs are used up: a new producer id is needed.
    NeedsProducerId,
}

/// Decides; `spare` is a producer id that nobody has, if one was asked for.
pub(crate) fn step(
    transaction: &Transaction,
    request: &EndTransactionRequest,
    spare: Option<i64>,
    now_ms: i64,
) -> Result<EndStep, TransactionError> {
    match request.version {
        TransactionVersion::V1 => step_v1(transaction, request, now_ms),
        TransactionVersion::V2 => step_v2(transaction, request, spare, now_ms),
    }
}

fn step_v1(transaction: &Transaction, request: &EndTransactionRequest, now_ms: i64) -> Result<EndStep, TransactionError> {
    transaction.check_producer(request.who.producer)?;
    if transaction.pending {
        return Err(TransactionError::ConcurrentTransactions);
    }
    match (transaction.data.state, request.commit) {
        (TransactionState::Ongoing, commit) => {
            let next = transaction.prepare_end(commit, TransactionVersion::V1, NO_PRODUCER_ID, now_ms, false);
            Ok(EndStep::Prepare(Box::new(next)))
        }
        (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) => {
            Ok(EndStep::AlreadyEnded(ProducerIdAndEpoch::NONE))
        }
        (state, commit) => Err(refusal(state, commit)),
    }
}

/// With version 2 each end bumps the epoch (KIP-890): the epoch in force asks for the end of the transaction that is open, or to abort one in
/// which nothing was written; the epoch before it is a retry of the last end.
fn step_v2(
    transaction: &Transaction,
    request: &EndTransactionRequest,
    spare: Option<i64>,
    now_ms: i64,
) -> Result<EndStep, TransactionError> {
    let data = &transaction.data;
    let asked = request.who.producer;
    // Before all else: a client may have its next producer id already while the markers of the last one are being written.
    if transaction.pending {
        return Err(TransactionError::ConcurrentTransactions);
    }
    // The client got a new producer id with its last end, and does not know it yet.
    let retry_on_overflow =
        data.previous_producer_id == asked.producer_id && asked.producer_epoch == i16::MAX - 1 && data.producer_epoch == 0;
    let retry_on_bump = asked.producer_epoch.checked_add(1) == Some(data.producer_epoch);
    if data.producer_id != asked.producer_id && !retry_on_overflow {
        return Err(TransactionError::InvalidProducerIdMapping);
    }
    let is_current = asked.producer_epoch == data.producer_epoch;
    let is_retry = retry_on_bump || retry_on_overflow;
    let is_valid = match data.state {
        TransactionState::Ongoing | TransactionState::Empty => is_current,
        TransactionState::PrepareCommit | TransactionState::PrepareAbort => retry_on_bump,
        // The last epoch of all fences whoever had the one before: nobody may go on with it.
        TransactionState::CompleteCommit | TransactionState::CompleteAbort => (is_retry || is_current) && data.producer_epoch != i16::MAX,
    };
    if !is_valid {
        return Err(TransactionError::ProducerFenced);
    }
    let prepare = |commit: bool, has_no_partitions: bool| {
        let next_producer_id = match (transaction.is_epoch_exhausted(), spare) {
            (true, None) => return Ok(EndStep::NeedsProducerId),
            (true, Some(id)) => id,
            (false, _) => NO_PRODUCER_ID,
        };
        let next = transaction.prepare_end(commit, TransactionVersion::V2, next_producer_id, now_ms, has_no_partitions);
        Ok(EndStep::Prepare(Box::new(next)))
    };
    match (data.state, request.commit) {
        (TransactionState::Ongoing, commit) => prepare(commit, false),
        (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) if is_retry => {
            Ok(EndStep::AlreadyEnded(transaction.producer()))
        }
        (TransactionState::CompleteCommit | TransactionState::CompleteAbort, false) if !is_retry => prepare(false, true),
        (TransactionState::Empty, false) => prepare(false, true),
        (state, commit) => Err(refusal(state, commit)),
    }
}

/// Why a transaction in `state` can't be ended so: its end may be under way, or nothing is open.
fn refusal(state: TransactionState, commit: bool) -> TransactionError {
    match (state, commit) {
        (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => TransactionError::ConcurrentTransactions,
        _ => TransactionError::InvalidTxnState,
    }
}
