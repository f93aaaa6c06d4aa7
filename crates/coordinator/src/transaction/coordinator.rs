//! The handle: finds the partition of a transactional id, checks what can be checked without it, and asks its shard.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use parking_lot::RwLock;
use siltstone_common::Env;

use crate::messages::TopicPartition;
use crate::records::wire::STRING_BYTES_MAX;
use crate::state_log::StateLog;
use crate::transaction::config::TransactionCoordinatorConfig;
use crate::transaction::error::TransactionError;
use crate::transaction::messages::{
    DescribedTransaction, EndTransactionRequest, InitProducerRequest, ListTransactionsRequest, ListedTransactions, ProducerIdAndEpoch,
    TransactionVersion, TxnProducer,
};
use crate::transaction::metadata::TransactionState;
use crate::transaction::partition::{Partition, Shared};
use crate::transaction::ports::{ProducerIdSource, TxnMarkerLog};
use crate::transaction::shard::{Reply, Shard, WaiterId};

/// The transaction coordinator of one broker. Cloning is cheap; all clones share the same transactions.
///
/// It serves the transactional ids of those partitions of `__transaction_state` that it was told to lead ([`TransactionCoordinator::on_election`]).
/// Answers wait until what they tell is committed. Dropping a request's future abandons the answer, not the request.
#[derive(Clone)]
pub struct TransactionCoordinator {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    producer_ids: Arc<dyn ProducerIdSource>,
    partitions: RwLock<HashMap<i32, Arc<Partition>>>,
    partition_count: AtomicI32,
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
        let partition_count = AtomicI32::new(config.state_log_num_partitions);
        let shared = Arc::new(Shared { config: Arc::new(config), env, log, markers });
        Self { inner: Arc::new(Inner { shared, producer_ids, partitions: RwLock::default(), partition_count }) }
    }

    /// The partition of `__transaction_state` that holds a transactional id: Java's `String.hashCode`, as in Kafka.
    pub fn partition_for(&self, transactional_id: &str) -> i32 {
        crate::coordinator::partition_of_key(transactional_id, self.inner.partition_count.load(Ordering::Relaxed))
    }

    /// How many partitions `__transaction_state` really has, once it exists.
    pub fn set_partition_count(&self, count: i32) {
        self.inner.partition_count.store(count, Ordering::Relaxed);
    }

    /// This broker leads `partition` since `leader_epoch`: its transactional ids are loaded. Nothing happens if that is known.
    pub fn on_election(&self, partition: i32, leader_epoch: i32) {
        let mut partitions = self.inner.partitions.write();
        match partitions.get(&partition) {
            Some(open) if open.leader_epoch() >= leader_epoch => return,
            // Another broker may have led meanwhile.
            Some(open) => open.close(),
            None => {}
        }
        partitions.insert(partition, Partition::open(partition, leader_epoch, Arc::clone(&self.inner.shared)));
    }

    /// This broker no longer leads `partition`: its transactional ids are forgotten, who waits gets NOT_COORDINATOR.
    pub fn on_resignation(&self, partition: i32) {
        if let Some(open) = self.inner.partitions.write().remove(&partition) {
            open.close();
        }
    }

    /// The partitions it leads, with the leader epochs it was told.
    pub fn led_partitions(&self) -> BTreeMap<i32, i32> {
        self.inner.partitions.read().iter().map(|(index, partition)| (*index, partition.leader_epoch())).collect()
    }

    fn partition_of(&self, transactional_id: &str) -> Result<Arc<Partition>, TransactionError> {
        if transactional_id.is_empty() || transactional_id.len() > STRING_BYTES_MAX {
            return Err(TransactionError::InvalidRequest);
        }
        let index = self.partition_for(transactional_id);
        self.inner.partitions.read().get(&index).cloned().ok_or(TransactionError::NotCoordinator)
    }

    async fn new_producer_id(&self) -> Result<i64, TransactionError> {
        self.inner.producer_ids.next_producer_id().await.map_err(|error| {
            tracing::warn!(%error, "no producer id to give");
            TransactionError::CoordinatorLoadInProgress
        })
    }

    /// Asks a shard for a producer; if it needs a new producer id for that, once more with one.
    async fn ask_producer(
        &self,
        transactional_id: &str,
        ask: impl Fn(&mut Shard, Option<i64>, WaiterId, crate::shard::Now),
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
        if !(1..=self.inner.shared.config.transaction_max_timeout_ms).contains(&request.timeout_ms) {
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
        let partitions: Vec<Arc<Partition>> = self.inner.partitions.read().values().cloned().collect();
        for partition in partitions {
            match partition.call(|shard, now| shard.list(request, now)) {
                Ok(part) => listed.transactions.extend(part),
                Err(TransactionError::NotCoordinator) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listed)
    }
}
