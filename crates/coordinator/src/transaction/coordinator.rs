//! The handle: finds the partition of a transactional id, checks what can be checked without it, and asks its shard.

use std::sync::Arc;

use siltstone_common::Env;

use crate::driver::{Now, Partition, Shared, WaiterId};
use crate::messages::TopicPartition;
use crate::partitions::{Leadership, Partitions};
use crate::records::wire::STRING_BYTES_MAX;
use crate::state_log::StateLog;
use crate::transaction::config::TransactionCoordinatorConfig;
use crate::transaction::error::TransactionError;
use crate::transaction::markers::TransactionSetup;
use crate::transaction::messages::{
    DescribedTransaction, EndTransactionRequest, InitProducerRequest, ListTransactionsRequest, ListedTransactions, ProducerIdAndEpoch,
    TransactionVersion, TxnProducer,
};
use crate::transaction::metadata::TransactionState;
use crate::transaction::ports::{ProducerIdSource, TxnMarkerLog};
use crate::transaction::shard::{Reply, TransactionShard};

/// The transaction coordinator of one broker. Cloning is cheap; all clones share the same transactions.
///
/// It serves the transactional ids of those partitions of `__transaction_state` that it was told to lead ([`TransactionCoordinator::on_leadership`]).
/// Answers wait until what they tell is committed. Dropping a request's future abandons the answer, not the request.
#[derive(Clone)]
pub struct TransactionCoordinator {
    partitions: Arc<Partitions<TransactionShard>>,
    producer_ids: Arc<dyn ProducerIdSource>,
}

impl TransactionCoordinator {
    /// A coordinator that leads nothing yet. Its tasks run in `env.tasks` and end with them.
    pub fn new(
        config: TransactionCoordinatorConfig,
        env: Env,
        log: Arc<dyn StateLog>,
        markers: Arc<dyn TxnMarkerLog>,
        producer_ids: Arc<dyn ProducerIdSource>,
    ) -> Self {
        let partition_count = config.state_log_num_partitions;
        let setup = TransactionSetup { config: Arc::new(config), env: env.clone(), markers };
        let shared = Shared { env, log, setup: Arc::new(setup) };
        Self { partitions: Arc::new(Partitions::new(shared, partition_count)), producer_ids }
    }

    /// The partition of `__transaction_state` that holds a transactional id: Java's `String.hashCode`, as in Kafka.
    pub fn partition_for(&self, transactional_id: &str) -> i32 {
        self.partitions.index_of(transactional_id)
    }

    /// Which partitions of `__transaction_state` this broker leads now: their transactional ids are loaded. Those of the others are forgotten,
    /// and who waits for them gets NOT_COORDINATOR.
    pub fn on_leadership(&self, leadership: &Leadership) {
        self.partitions.on_leadership(leadership);
    }

    fn partition_of(&self, transactional_id: &str) -> Result<Arc<Partition<TransactionShard>>, TransactionError> {
        if transactional_id.is_empty() || transactional_id.len() > STRING_BYTES_MAX {
            return Err(TransactionError::InvalidRequest);
        }
        self.partitions.get(self.partition_for(transactional_id))
    }

    async fn new_producer_id(&self) -> Result<i64, TransactionError> {
        self.producer_ids.next_producer_id().await.map_err(|error| {
            tracing::warn!(%error, "no producer id to give");
            TransactionError::CoordinatorLoadInProgress
        })
    }

    /// Asks a shard for a producer; if it needs a new producer id for that, once more with one.
    async fn ask_producer(
        &self,
        transactional_id: &str,
        ask: impl Fn(&mut TransactionShard, Option<i64>, WaiterId, Now),
    ) -> Result<ProducerIdAndEpoch, TransactionError> {
        let partition = self.partition_of(transactional_id)?;
        let mut reply = partition.ask(|shard, waiter, now| ask(shard, None, waiter, now)).await?;
        if reply == Reply::NeedsProducerId {
            let spare = self.new_producer_id().await?;
            reply = partition.ask(|shard, waiter, now| ask(shard, Some(spare), waiter, now)).await?;
        }
        match reply {
            Reply::Producer(result) => result,
            Reply::Done(_) | Reply::NeedsProducerId => Err(TransactionError::UnknownServerError),
        }
    }

    /// InitProducerId: fences older producers of the transactional id, ends what they left open, and gives id and epoch.
    ///
    /// # Errors
    /// CONCURRENT_TRANSACTIONS while an older transaction is being ended: the client tries again.
    pub async fn init_producer(&self, request: InitProducerRequest) -> Result<ProducerIdAndEpoch, TransactionError> {
        if request.transactional_id.is_empty() {
            return Err(TransactionError::InvalidRequest);
        }
        if !(1..=self.partitions.shared().setup.config.transaction_max_timeout_ms).contains(&request.timeout_ms) {
            return Err(TransactionError::InvalidTransactionTimeout);
        }
        self.ask_producer(&request.transactional_id, |shard, spare, waiter, now| shard.init_producer(&request, spare, waiter, now)).await
    }

    /// AddPartitionsToTxn: answered when the partitions are committed as part of the transaction.
    ///
    /// # Errors
    /// See [`TransactionError`].
    pub async fn add_partitions(
        &self,
        who: TxnProducer,
        partitions: Vec<TopicPartition>,
        version: TransactionVersion,
    ) -> Result<(), TransactionError> {
        let partition = self.partition_of(&who.transactional_id)?;
        match partition.ask(|shard, waiter, now| shard.add_partitions(&who, &partitions, version, waiter, now)).await? {
            Reply::Done(result) => result,
            Reply::Producer(_) | Reply::NeedsProducerId => Err(TransactionError::UnknownServerError),
        }
    }

    /// Whether partitions are part of the producer's open transaction, each in its order.
    ///
    /// # Errors
    /// Why nothing can be said about any of them.
    pub fn verify_partitions(
        &self,
        who: &TxnProducer,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<(), TransactionError>>, TransactionError> {
        self.partition_of(&who.transactional_id)?.call(|shard, _| shard.verify_partitions(who, partitions))?
    }

    /// EndTxn: answered when the outcome is committed; the markers follow. Version 2 gives the producer of the next transaction.
    ///
    /// # Errors
    /// See [`TransactionError`].
    pub async fn end_transaction(&self, request: EndTransactionRequest) -> Result<ProducerIdAndEpoch, TransactionError> {
        self.ask_producer(&request.who.transactional_id, |shard, spare, waiter, now| shard.end(&request, spare, waiter, now)).await
    }

    /// DescribeTransactions, for one id.
    ///
    /// # Errors
    /// TRANSACTIONAL_ID_NOT_FOUND and those of every coordinator.
    pub fn describe(&self, transactional_id: &str) -> Result<DescribedTransaction, TransactionError> {
        self.partition_of(transactional_id)?.call(|shard, _| shard.describe(transactional_id))?
    }

    /// ListTransactions: all transactional ids of this broker.
    ///
    /// # Errors
    /// COORDINATOR_LOAD_IN_PROGRESS while any of its partitions is loading.
    pub fn list(&self, request: &ListTransactionsRequest) -> Result<ListedTransactions, TransactionError> {
        let unknown = request.states.iter().filter(|name| !TransactionState::is_name(name));
        let mut listed = ListedTransactions { unknown_states: unknown.cloned().collect(), transactions: Vec::new() };
        for partition in self.partitions.all() {
            match partition.call(|shard, now| shard.list(request, now)) {
                Ok(part) => listed.transactions.extend(part),
                Err(TransactionError::NotCoordinator) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listed)
    }
}
