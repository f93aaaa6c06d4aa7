//! The state of one `__transaction_state` partition: its transactional ids, the writes under way, and the markers that wait to be written. Pure.
//!
//! # Overview
//! Events come in by the methods; answers and markers to be written collect until the driver takes them. At most one batch of queued changes is
//! under way. What the driver asks is in `driven.rs`.
//!
//! # Invariants
//! A transactional id has at most one change under way (`pending`), so its records are in the log in the order of its changes, and a change is
//! visible only once it is committed. An outcome that was prepared is never changed (I19). From prepare to complete the id is pending too.
//!
//! # Crash consistency
//! The shard is a function of the partition's records; once they are loaded it takes up again what was prepared and not completed. The epoch before the
//! last bump is forgotten, as in Kafka: a retry of InitProducerId across an election is fenced.

mod driven;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::driver::{Now, QUEUED_WRITES_MAX, WaiterId};
use crate::messages::TopicPartition;
use crate::records::wire::WireError;
use crate::state_log::StateRecord;
use crate::transaction::config::TransactionCoordinatorConfig;
use crate::transaction::end::{self, EndStep};
use crate::transaction::error::TransactionError;
use crate::transaction::markers::MarkersToWrite;
use crate::transaction::messages::{
    DescribedTransaction, EndTransactionRequest, InitProducerRequest, ListTransactionsRequest, ListedTransaction, NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID, ProducerIdAndEpoch, TransactionVersion, TxnProducer,
};
use crate::transaction::metadata::{Transaction, TransactionData, TransactionState, is_epoch_exhausted};
use crate::transaction::ports::TxnMarker;
use crate::transaction::records::{self, TransactionRecord};

/// Pause before a completion that could not be written is tried again.
const COMPLETE_RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// InitProducerId, EndTxn.
    Producer(Result<ProducerIdAndEpoch, TransactionError>),
    /// AddPartitionsToTxn.
    Done(Result<(), TransactionError>),
    /// Ask again, with a producer id that nobody has.
    NeedsProducerId,
}

/// A change on its way into the log.
#[derive(Debug)]
struct Write {
    transactional_id: Arc<str>,
    /// `None` removes the id.
    next: Option<TransactionData>,
    then: Then,
}

/// What follows once a change is committed.
#[derive(Debug)]
enum Then {
    ReplyProducer(WaiterId),
    ReplyDone(WaiterId),
    /// The outcome is decided: answer, then write the markers.
    Prepared(EndedBy),
    Completed,
    Expired,
}

/// Who wanted the end of a transaction.
#[derive(Copy, Clone, Debug)]
enum EndedBy {
    Client(WaiterId),
    /// InitProducerId of a newer producer, which is to try again.
    NewProducer(WaiterId),
    Timeout,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct TransactionShard {
    config: Arc<TransactionCoordinatorConfig>,
    coordinator_epoch: i32,
    transactions: HashMap<Arc<str>, Transaction>,
    queue: VecDeque<Write>,
    in_flight: Option<Vec<Write>>,
    replies: Vec<(WaiterId, Reply)>,
    markers: Vec<MarkersToWrite>,
    /// Completions to be tried again, by their time.
    retries: BTreeMap<Duration, Vec<Arc<str>>>,
}

impl TransactionShard {
    pub(crate) fn new(config: Arc<TransactionCoordinatorConfig>, coordinator_epoch: i32) -> Self {
        Self {
            config,
            coordinator_epoch,
            transactions: HashMap::new(),
            queue: VecDeque::new(),
            in_flight: None,
            replies: Vec::new(),
            markers: Vec::new(),
            retries: BTreeMap::new(),
        }
    }

    /// Takes in one record of the partition; the answer is the type of a record that is not known here.
    pub(crate) fn replay(&mut self, record: &StateRecord) -> Result<Option<i16>, WireError> {
        match records::decode(record)? {
            TransactionRecord::Transaction { transactional_id, value: Some(value) } => {
                self.transactions.insert(transactional_id.into(), Transaction::new(value));
            }
            TransactionRecord::Transaction { transactional_id, value: None } => {
                self.transactions.remove(transactional_id.as_str());
            }
            TransactionRecord::Unknown(kind) => return Ok(Some(kind)),
        }
        Ok(None)
    }

    /// All records are in: transactions whose outcome was decided are brought to their end.
    pub(crate) fn on_loaded(&mut self, now: Now) {
        let prepared = self.transactions.iter().filter(|(_, transaction)| transaction.data.state.is_prepared());
        let mut prepared: Vec<Arc<str>> = prepared.map(|(id, _)| id.clone()).collect();
        prepared.sort_unstable();
        for transactional_id in prepared {
            tracing::info!(%transactional_id, "writing the markers of a transaction again, as its end was decided but not completed");
            self.send_markers(&transactional_id, now);
        }
    }

    fn refuse_producer(&mut self, waiter: WaiterId, error: TransactionError) {
        self.replies.push((waiter, Reply::Producer(Err(error))));
    }

    fn is_overloaded(&self) -> bool {
        self.queue.len() >= QUEUED_WRITES_MAX
    }

    /// InitProducerId. `spare` is a producer id that nobody has, if one was asked for.
    pub(crate) fn init_producer(&mut self, request: &InitProducerRequest, spare: Option<i64>, waiter: WaiterId, now: Now) {
        if self.is_overloaded() {
            return self.refuse_producer(waiter, TransactionError::CoordinatorNotAvailable);
        }
        let transactional_id: Arc<str> = request.transactional_id.as_str().into();
        if !self.transactions.contains_key(&transactional_id) {
            let Some(producer_id) = spare else { return self.replies.push((waiter, Reply::NeedsProducerId)) };
            let created = Transaction::created(producer_id, request.timeout_ms, now.wall_ms);
            self.transactions.insert(transactional_id.clone(), created);
        }
        let Some(transaction) = self.transactions.get_mut(&transactional_id) else { return };
        if let Err(error) = check_init(transaction, request) {
            return self.refuse_producer(waiter, error);
        }
        if transaction.data.state == TransactionState::Ongoing {
            // The client is told to try again, and then finds the transaction ended.
            return self.fence_and_abort(&transactional_id, EndedBy::NewProducer(waiter), now);
        }
        let expected_epoch = request.expected.map(|expected| expected.producer_epoch);
        let next = match (transaction.must_rotate(expected_epoch), spare) {
            (true, None) => return self.replies.push((waiter, Reply::NeedsProducerId)),
            (true, Some(id)) => Ok(transaction.rotate_producer_id(id, request.timeout_ms, now.wall_ms, expected_epoch)),
            (false, _) => transaction.increment_epoch(request.timeout_ms, expected_epoch, now.wall_ms),
        };
        match next {
            Ok(next) => self.write(transactional_id, Some(next), Then::ReplyProducer(waiter)),
            Err(error) => self.refuse_producer(waiter, error),
        }
    }

    fn find(&self, transactional_id: &str) -> Result<&Transaction, TransactionError> {
        if transactional_id.is_empty() {
            return Err(TransactionError::InvalidRequest);
        }
        self.transactions.get(transactional_id).ok_or(TransactionError::InvalidProducerIdMapping)
    }

    /// AddPartitionsToTxn, AddOffsetsToTxn, and the first Produce of a version 2 client to a partition.
    pub(crate) fn add_partitions(
        &mut self,
        who: &TxnProducer,
        partitions: &[TopicPartition],
        version: TransactionVersion,
        waiter: WaiterId,
        now: Now,
    ) {
        let next = self.find(&who.transactional_id).and_then(|transaction| {
            // Before all else: a client may have its next producer id already while the markers of the last one are being written.
            if transaction.pending {
                return Err(TransactionError::ConcurrentTransactions);
            }
            transaction.check_producer(who.producer)?;
            if transaction.data.state.is_prepared() {
                return Err(TransactionError::ConcurrentTransactions);
            }
            let is_ongoing = transaction.data.state == TransactionState::Ongoing;
            if is_ongoing && partitions.iter().all(|id| transaction.data.partitions.contains(id)) {
                return Ok(None);
            }
            if self.is_overloaded() {
                return Err(TransactionError::CoordinatorNotAvailable);
            }
            Ok(Some(transaction.add_partitions(partitions, now.wall_ms, version)))
        });
        match next {
            Ok(Some(next)) => self.write(who.transactional_id.as_str().into(), Some(next), Then::ReplyDone(waiter)),
            Ok(None) => self.replies.push((waiter, Reply::Done(Ok(())))),
            Err(error) => self.replies.push((waiter, Reply::Done(Err(error)))),
        }
    }

    /// AddPartitionsToTxn that only asks: an outcome per partition, in their order.
    pub(crate) fn verify_partitions(
        &self,
        who: &TxnProducer,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<(), TransactionError>>, TransactionError> {
        let transaction = self.find(&who.transactional_id)?;
        transaction.check_producer(who.producer)?;
        // A change under way does not matter: the log of the partition has the last word.
        if transaction.data.state.is_prepared() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        let verdict = |id| if transaction.data.partitions.contains(id) { Ok(()) } else { Err(TransactionError::TransactionAbortable) };
        Ok(partitions.iter().map(verdict).collect())
    }

    /// EndTxn. `spare` as in [`Self::init_producer`].
    pub(crate) fn end(&mut self, request: &EndTransactionRequest, spare: Option<i64>, waiter: WaiterId, now: Now) {
        if self.is_overloaded() {
            return self.refuse_producer(waiter, TransactionError::CoordinatorNotAvailable);
        }
        let transactional_id: Arc<str> = request.who.transactional_id.as_str().into();
        match self.find(&transactional_id).and_then(|transaction| end::step(transaction, request, spare, now.wall_ms)) {
            Ok(EndStep::Prepare(next)) => {
                self.write(transactional_id, Some(*next), Then::Prepared(EndedBy::Client(waiter)));
            }
            Ok(EndStep::AlreadyEnded(producer)) => self.replies.push((waiter, Reply::Producer(Ok(producer)))),
            Ok(EndStep::NeedsProducerId) => self.replies.push((waiter, Reply::NeedsProducerId)),
            Err(error) => self.refuse_producer(waiter, error),
        }
    }

    /// Aborts an open transaction whose producer did not ask for it. Whatever that producer speaks, the new epoch fences it (I20).
    fn fence_and_abort(&mut self, transactional_id: &Arc<str>, by: EndedBy, now: Now) {
        let Some(transaction) = self.transactions.get(transactional_id) else { return };
        let next = transaction.prepare_end(false, TransactionVersion::V2, NO_PRODUCER_ID, now.wall_ms, false);
        self.write(transactional_id.clone(), Some(next), Then::Prepared(by));
    }

    /// Aborts the transactions that are open for longer than they may be (I20: none holds the last stable offset back for ever).
    pub(crate) fn abort_timed_out(&mut self, now: Now) {
        let is_over = |transaction: &Transaction| {
            let TransactionData { state, start_timestamp_ms, timeout_ms, .. } = &transaction.data;
            let deadline_ms = start_timestamp_ms.saturating_add(i64::from(*timeout_ms));
            !transaction.pending && *state == TransactionState::Ongoing && deadline_ms < now.wall_ms
        };
        let over: Vec<Arc<str>> =
            self.transactions.iter().filter(|(_, transaction)| is_over(transaction)).map(|(id, _)| id.clone()).collect();
        for transactional_id in over {
            tracing::info!(%transactional_id, "aborting a transaction that timed out");
            self.fence_and_abort(&transactional_id, EndedBy::Timeout, now);
        }
    }

    /// Forgets transactional ids that are idle for `transactional.id.expiration.ms`.
    pub(crate) fn expire(&mut self, now: Now) {
        let horizon_ms = now.wall_ms.saturating_sub(self.config.transactional_id_expiration_ms);
        let is_idle = |transaction: &Transaction| {
            let is_closed = transaction.data.state != TransactionState::Ongoing && !transaction.data.state.is_prepared();
            !transaction.pending && is_closed && transaction.data.last_update_timestamp_ms <= horizon_ms
        };
        let idle: Vec<Arc<str>> =
            self.transactions.iter().filter(|(_, transaction)| is_idle(transaction)).map(|(id, _)| id.clone()).collect();
        for transactional_id in idle {
            self.write(transactional_id, None, Then::Expired);
        }
    }

    fn write(&mut self, transactional_id: Arc<str>, next: Option<TransactionData>, then: Then) {
        if let Some(transaction) = self.transactions.get_mut(&transactional_id) {
            transaction.pending = true;
        }
        self.queue.push_back(Write { transactional_id, next, then });
    }

    fn committed(&mut self, write: Write, now: Now) {
        let Write { transactional_id, next, then } = write;
        let (Some(transaction), Some(next)) = (self.transactions.get_mut(&transactional_id), next) else {
            self.transactions.remove(&transactional_id);
            return;
        };
        transaction.data = next;
        transaction.pending = false;
        match then {
            Then::ReplyProducer(waiter) => {
                let producer = transaction.producer();
                self.replies.push((waiter, Reply::Producer(Ok(producer))));
            }
            Then::ReplyDone(waiter) => self.replies.push((waiter, Reply::Done(Ok(())))),
            Then::Prepared(by) => {
                // Decided for ever: the client need not wait for the markers.
                let complete = transaction.complete(now.wall_ms);
                match by {
                    EndedBy::Client(waiter) if complete.client_version == TransactionVersion::V2 => {
                        let producer = ProducerIdAndEpoch { producer_id: complete.producer_id, producer_epoch: complete.producer_epoch };
                        self.replies.push((waiter, Reply::Producer(Ok(producer))));
                    }
                    EndedBy::Client(waiter) => self.replies.push((waiter, Reply::Producer(Ok(ProducerIdAndEpoch::NONE)))),
                    EndedBy::NewProducer(waiter) => self.refuse_producer(waiter, TransactionError::ConcurrentTransactions),
                    EndedBy::Timeout => {}
                }
                self.send_markers(&transactional_id, now);
            }
            Then::Completed | Then::Expired => {}
        }
    }

    fn failed(&mut self, write: Write, error: TransactionError, now: Now) {
        let Write { transactional_id, then, .. } = write;
        let Some(transaction) = self.transactions.get_mut(&transactional_id) else { return };
        transaction.pending = false;
        match then {
            Then::ReplyProducer(waiter) => self.refuse_producer(waiter, error),
            Then::ReplyDone(waiter) => self.replies.push((waiter, Reply::Done(Err(error)))),
            Then::Prepared(EndedBy::Client(waiter) | EndedBy::NewProducer(waiter)) => self.refuse_producer(waiter, error),
            Then::Prepared(EndedBy::Timeout) => {
                tracing::warn!(%transactional_id, %error, "could not abort a transaction that timed out");
            }
            Then::Completed => {
                // The markers are there; only the record that says so is missing.
                transaction.pending = true;
                self.retries.entry(now.monotonic + COMPLETE_RETRY_PAUSE).or_default().push(transactional_id);
            }
            Then::Expired => {}
        }
    }

    fn send_markers(&mut self, transactional_id: &Arc<str>, now: Now) {
        let Some(transaction) = self.transactions.get_mut(transactional_id) else { return };
        debug_assert!(transaction.data.state.is_prepared(), "only a decided transaction is marked");
        transaction.pending = true;
        if transaction.data.partitions.is_empty() {
            return self.complete(transactional_id, now);
        }
        let marker = TxnMarker {
            producer: transaction.producer(),
            coordinator_epoch: self.coordinator_epoch,
            commit: transaction.data.state == TransactionState::PrepareCommit,
            version: transaction.data.client_version,
        };
        let partitions = transaction.data.partitions.iter().cloned().collect();
        self.markers.push(MarkersToWrite { transactional_id: transactional_id.clone(), marker, partitions });
    }

    /// Markers to be written since the last call.
    pub(crate) fn take_markers(&mut self) -> Vec<MarkersToWrite> {
        std::mem::take(&mut self.markers)
    }

    /// Every partition of a prepared transaction has its marker.
    pub(crate) fn on_markers_written(&mut self, transactional_id: &Arc<str>, now: Now) {
        self.complete(transactional_id, now);
    }

    fn complete(&mut self, transactional_id: &Arc<str>, now: Now) {
        let Some(transaction) = self.transactions.get(transactional_id).filter(|found| found.data.state.is_prepared()) else { return };
        let next = transaction.complete(now.wall_ms);
        self.write(transactional_id.clone(), Some(next), Then::Completed);
    }

    /// DescribeTransactions, for one id.
    pub(crate) fn describe(&self, transactional_id: &str) -> Result<DescribedTransaction, TransactionError> {
        let transaction = self.transactions.get(transactional_id).ok_or(TransactionError::TransactionalIdNotFound)?;
        Ok(DescribedTransaction {
            producer: transaction.producer(),
            state: transaction.data.state.name(),
            timeout_ms: transaction.data.timeout_ms,
            start_timestamp_ms: transaction.data.start_timestamp_ms,
            partitions: transaction.data.partitions.iter().cloned().collect(),
        })
    }

    /// ListTransactions, of this partition.
    pub(crate) fn list(&self, request: &ListTransactionsRequest, now: Now) -> Vec<ListedTransaction> {
        let wanted = |data: &TransactionData| {
            let runs_ms = now.wall_ms.saturating_sub(data.start_timestamp_ms);
            (request.producer_ids.is_empty() || request.producer_ids.contains(&data.producer_id))
                && (request.states.is_empty() || request.states.iter().any(|state| state == data.state.name()))
                && (request.duration_ms < 0 || runs_ms > request.duration_ms)
        };
        let found = self.transactions.iter().filter(|(_, transaction)| wanted(&transaction.data));
        let listed = found.map(|(id, transaction)| ListedTransaction {
            transactional_id: id.to_string(),
            producer_id: transaction.data.producer_id,
            state: transaction.data.state.name(),
        });
        listed.collect()
    }
}

/// What InitProducerId must fulfil before anything is changed.
fn check_init(transaction: &Transaction, request: &InitProducerRequest) -> Result<(), TransactionError> {
    let data = &transaction.data;
    // A new id, the one in force, or the one before if its epochs were used up: then this may be a retry.
    let is_ours = |expected: ProducerIdAndEpoch| {
        data.producer_epoch == NO_PRODUCER_EPOCH
            || expected.producer_id == data.producer_id
            || (expected.producer_id == data.previous_producer_id && is_epoch_exhausted(expected.producer_epoch))
    };
    if transaction.pending {
        return Err(TransactionError::ConcurrentTransactions);
    }
    if !request.expected.is_none_or(is_ours) {
        return Err(TransactionError::ProducerFenced);
    }
    if data.state.is_prepared() { Err(TransactionError::ConcurrentTransactions) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
