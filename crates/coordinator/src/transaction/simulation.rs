//! Both coordinators over logs in memory that fail, with producers of both versions that crash and come back while their older selves go on, and
//! elections at any moment: whatever happens, a transaction is visible whole or not at all (I19), no request of an earlier one touches a later one
//! and none stays open (I20), and a coordinator that starts anew says what the one before said (I17).

mod partition;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use siltstone_common::Env;
use siltstone_common::entropy::{Entropy, SmallEntropy};
use siltstone_common::fs::SimFs;

use crate::records::{self, GroupRecord};
use crate::{
    CommitOffset, CommitRequest, EndTransactionRequest, FetchOffsetsRequest, GroupCoordinator, GroupCoordinatorConfig, GroupError,
    InitProducerRequest, Leadership, ListTransactionsRequest, MarkerOutcome, ProducerIdAndEpoch, ProducerIdError, ProducerIdSource,
    Replayed, StateLog, StateLogError, StateWrite, TopicPartition, TransactionCoordinator, TransactionCoordinatorConfig, TransactionError,
    TransactionVersion, TransactionalAppend, TransactionalCommitRequest, TxnMarker, TxnMarkerLog, TxnProducer, WriteGuard,
};
use partition::{DataPartition, Refused};

const PARTITIONS: i32 = 3;
const OFFSETS_TOPIC: &str = "__consumer_offsets";
const TIMEOUT_MS: i32 = 3_000;
const SEEDS: u64 = 12;

/// Chances and pauses, from the seed.
#[derive(Clone)]
struct Dice {
    rng: Arc<SmallEntropy>,
    env: Env,
    calm: Arc<AtomicBool>,
}

impl Dice {
    fn one_in(&self, count: u64) -> bool {
        self.rng.below(count) == 0
    }

    fn trouble(&self, one_in: u64) -> bool {
        !self.calm.load(Ordering::Relaxed) && self.one_in(one_in)
    }

    async fn pause(&self, ms_max: u64) {
        self.env.clock.sleep(Duration::from_millis(self.rng.below(ms_max + 1))).await;
    }
}

/// The log of one coordinator, in one partition. Appends take time, and may fail after they were stored.
struct SimLog {
    dice: Dice,
    records: Mutex<Vec<Replayed>>,
    /// What a log does to keep transactions apart.
    producers: Mutex<DataPartition>,
}

impl SimLog {
    fn new(dice: &Dice) -> Arc<Self> {
        Arc::new(Self { dice: dice.clone(), records: Mutex::default(), producers: Mutex::default() })
    }

    fn store(&self, write: StateWrite) -> Result<(), StateLogError> {
        let mut records = self.records.lock();
        match write {
            StateWrite::Records(plain) => records.extend(plain.into_iter().map(Replayed::Record)),
            StateWrite::Transactional(TransactionalAppend { producer, guard, records: written }) => {
                self.producers.lock().append(producer, 0, guard.map(|guard| guard.0))?;
                records.extend(written.into_iter().map(|record| Replayed::Transactional(producer.producer_id, record)));
            }
            StateWrite::Marker(marker) => {
                self.producers.lock().mark(marker)?;
                records.push(Replayed::Marker(marker.producer.producer_id, marker.commit));
            }
        }
        Ok(())
    }

    /// The last offset of each group's partition in transactions that were committed.
    fn committed_offsets(&self) -> BTreeMap<i32, i64> {
        let (mut open, mut committed) = (BTreeMap::<i64, Vec<(i32, i64)>>::new(), BTreeMap::new());
        for item in self.records.lock().iter() {
            match item {
                Replayed::Record(_) => {}
                Replayed::Transactional(producer_id, record) => match records::decode(record).unwrap() {
                    GroupRecord::Offset { partition, value: Some(value), .. } => {
                        open.entry(*producer_id).or_default().push((partition, value.offset));
                    }
                    other => panic!("not an offset: {other:?}"),
                },
                Replayed::Marker(producer_id, commit) => {
                    let ended = open.remove(producer_id).unwrap_or_default();
                    committed.extend(ended.into_iter().filter(|_| *commit));
                }
            }
        }
        committed
    }
}

#[async_trait]
impl StateLog for SimLog {
    async fn append(&self, _: i32, write: StateWrite) -> Result<(), StateLogError> {
        self.dice.pause(4).await;
        if self.dice.trouble(20) {
            return Err(StateLogError::NotEnoughReplicas);
        }
        self.store(write)?;
        self.dice.pause(4).await;
        if self.dice.trouble(20) { Err(StateLogError::TimedOut) } else { Ok(()) }
    }

    fn replay(&self, _: i32) -> BoxStream<'_, Result<Vec<Replayed>, StateLogError>> {
        let records = self.records.lock().clone();
        let pause = self.dice.pause(10);
        stream::once(async move {
            pause.await;
            Ok(records)
        })
        .boxed()
    }
}

/// The data partitions, and the way of markers into them and into the groups.
struct Markers {
    dice: Dice,
    groups: GroupCoordinator,
    partitions: Vec<Mutex<DataPartition>>,
}

#[async_trait]
impl TxnMarkerLog for Markers {
    async fn write(&self, marker: TxnMarker, partitions: &[TopicPartition]) -> Vec<MarkerOutcome> {
        let write = |id: &TopicPartition| {
            let (is_offsets, partition) = (&*id.topic == OFFSETS_TOPIC, id.partition);
            async move {
                self.dice.pause(10).await;
                if self.dice.trouble(6) {
                    return MarkerOutcome::Retry;
                }
                let fenced = if is_offsets {
                    match self.groups.complete_transaction(0, marker).await {
                        Ok(()) => false,
                        Err(GroupError::InvalidProducerEpoch | GroupError::TransactionCoordinatorFenced) => true,
                        Err(_) => return MarkerOutcome::Retry,
                    }
                } else {
                    self.partitions[partition as usize].lock().mark(marker).is_err()
                };
                match fenced {
                    true => MarkerOutcome::Fenced,
                    // It is there, but nobody hears of it.
                    false if self.dice.trouble(6) => MarkerOutcome::Retry,
                    false => MarkerOutcome::Written,
                }
            }
        };
        join_all(partitions.iter().map(write)).await
    }
}

#[derive(Default)]
struct ProducerIds(AtomicU64);

#[async_trait]
impl ProducerIdSource for ProducerIds {
    async fn next_producer_id(&self) -> Result<i64, ProducerIdError> {
        Ok(1 + self.0.fetch_add(1, Ordering::Relaxed) as i64)
    }
}

/// What a producer knows of the end of a transaction.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Told {
    Committed,
    Aborted,
    /// It asked to commit and never heard what became of that.
    Nothing,
}

#[derive(Debug)]
struct Txn {
    values: Vec<(usize, u64)>,
    offset: Option<(i32, i64)>,
    told: Told,
}

struct World {
    dice: Dice,
    transactions: TransactionCoordinator,
    groups: GroupCoordinator,
    offsets: Arc<SimLog>,
    markers: Arc<Markers>,
    next_value: AtomicU64,
    done: Mutex<Vec<Txn>>,
}

/// This transaction can't go on, but another may; or this producer can't go on at all.
enum Stop {
    Transaction,
    Producer,
}

impl From<TransactionError> for Stop {
    fn from(error: TransactionError) -> Self {
        if error.retryable() || error == TransactionError::TransactionAbortable { Self::Transaction } else { Self::Producer }
    }
}

/// One process that writes transactions.
struct Producer<'a> {
    world: &'a World,
    /// Also the partition that its group commits.
    number: i32,
    version: TransactionVersion,
    producer: ProducerIdAndEpoch,
}

impl Producer<'_> {
    fn who(&self) -> TxnProducer {
        TxnProducer { transactional_id: format!("id-{}", self.number), producer: self.producer }
    }

    async fn init(&mut self, expected: Option<ProducerIdAndEpoch>) -> Result<(), Stop> {
        loop {
            let request = InitProducerRequest { transactional_id: self.who().transactional_id, timeout_ms: TIMEOUT_MS, expected };
            match self.world.transactions.init_producer(request).await {
                Ok(producer) => break self.producer = producer,
                Err(error) if error.retryable() => self.world.dice.pause(20).await,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn add(&self, topic: &str, partition: i32) -> Result<(), Stop> {
        let partitions = vec![TopicPartition { topic: topic.into(), partition }];
        let mut tries = 0;
        loop {
            match self.world.transactions.add_partitions(self.who(), partitions.clone(), self.version).await {
                Ok(()) => return Ok(()),
                Err(error) if error.retryable() && tries < 20 => self.world.dice.pause(20).await,
                Err(error) => return Err(error.into()),
            }
            tries += 1;
        }
    }

    /// What a broker does before it lets a batch begin a transaction in a partition (KIP-890).
    async fn verify(&self, topic: &str, partition: i32) -> Result<(), Stop> {
        if self.version == TransactionVersion::V2 {
            return self.add(topic, partition).await;
        }
        let id = TopicPartition { topic: topic.into(), partition };
        let verdicts = self.world.transactions.verify_partitions(&self.who(), &[id])?;
        verdicts.into_iter().collect::<Result<Vec<()>, _>>()?;
        self.world.dice.pause(5).await;
        Ok(())
    }

    async fn write(&self, txn: &mut Txn) -> Result<(), Stop> {
        let dice = &self.world.dice;
        let at = dice.rng.below(PARTITIONS as u64) as usize;
        if self.version == TransactionVersion::V1 {
            self.add("t", at as i32).await?;
        }
        let guard = self.world.markers.partitions[at].lock().begin_verification(self.producer, self.version);
        if guard.is_some() {
            self.verify("t", at as i32).await?;
        }
        let value = self.world.next_value.fetch_add(1, Ordering::Relaxed);
        match self.world.markers.partitions[at].lock().append(self.producer, value, guard) {
            Ok(()) => txn.values.push((at, value)),
            Err(Refused::NotOpen) => return Err(Stop::Transaction),
            Err(Refused::InvalidProducerEpoch | Refused::CoordinatorFenced) => return Err(Stop::Producer),
        }
        Ok(())
    }

    async fn commit_offset(&self, txn: &mut Txn) -> Result<(), Stop> {
        if self.version == TransactionVersion::V1 {
            self.add(OFFSETS_TOPIC, 0).await?;
        }
        let guard = self.world.offsets.producers.lock().begin_verification(self.producer, self.version);
        if guard.is_some() {
            self.verify(OFFSETS_TOPIC, 0).await?;
        }
        let offset = self.world.next_value.fetch_add(1, Ordering::Relaxed) as i64;
        let id = TopicPartition { topic: "input".into(), partition: self.number };
        let commit = CommitRequest {
            group_id: "g".to_owned(),
            generation_id: -1,
            member_id: String::new(),
            group_instance_id: None,
            retention_time_ms: -1,
            reports_unknown_group: true,
            offsets: vec![CommitOffset { id, offset, leader_epoch: -1, metadata: None }],
        };
        let request = TransactionalCommitRequest { commit, producer: self.producer, guard: guard.map(WriteGuard) };
        match self.world.groups.commit_transactional_offsets(request).await {
            Ok(_) => txn.offset = Some((self.number, offset)),
            Err(GroupError::InvalidProducerEpoch) => return Err(Stop::Producer),
            Err(_) => return Err(Stop::Transaction),
        }
        Ok(())
    }

    async fn end(&mut self, commit: bool, told: &mut Told) -> Result<(), Stop> {
        loop {
            let request = EndTransactionRequest { who: self.who(), commit, version: self.version };
            match self.world.transactions.end_transaction(request).await {
                Ok(next) => {
                    *told = if commit { Told::Committed } else { Told::Aborted };
                    if self.version == TransactionVersion::V2 {
                        self.producer = next;
                    }
                    return Ok(());
                }
                // Nothing was done.
                Err(TransactionError::ConcurrentTransactions | TransactionError::CoordinatorLoadInProgress) => {}
                Err(error) if error.retryable() => *told = if commit { Told::Nothing } else { Told::Aborted },
                // Nothing was begun.
                Err(TransactionError::InvalidTxnState) if !commit => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            self.world.dice.pause(20).await;
        }
    }

    async fn transaction(&mut self, txn: &mut Txn) -> Result<(), Stop> {
        let dice = self.world.dice.clone();
        for _ in 0..=dice.rng.below(4) {
            self.write(txn).await?;
            if dice.one_in(40) {
                // Longer than the transaction may be open.
                dice.env.clock.sleep(Duration::from_millis(2 * TIMEOUT_MS as u64)).await;
            }
        }
        if dice.one_in(2) {
            self.commit_offset(txn).await?;
        }
        self.end(!dice.one_in(4), &mut txn.told).await
    }

    /// Transactions until one meets with something that ends the producer.
    async fn run(mut self, count: u32) {
        let mut recovers = None;
        if self.init(None).await.is_err() {
            return;
        }
        for _ in 0..count {
            let mut txn = Txn { values: Vec::new(), offset: None, told: Told::Aborted };
            let stopped = self.transaction(&mut txn).await;
            let (told, was) = (txn.told, self.producer);
            self.world.done.lock().push(txn);
            let ended = match stopped {
                Ok(()) => Ok(()),
                // An end that nobody heard of may not be followed by another.
                Err(_) if told == Told::Nothing => return,
                Err(Stop::Transaction) => self.end(false, &mut Told::Aborted).await,
                Err(Stop::Producer) => Err(Stop::Producer),
            };
            if ended.is_err() {
                if recovers == Some(was) || self.init(Some(was)).await.is_err() {
                    return;
                }
                recovers = Some(was);
            }
        }
    }
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        let env = Env::simulated(seed, Arc::new(SimFs::new()));
        let dice = Dice { rng: Arc::new(SmallEntropy::seeded(seed)), env: env.clone(), calm: Arc::default() };
        let offsets = SimLog::new(&dice);
        let group_config = GroupCoordinatorConfig { offsets_topic_num_partitions: 1, ..GroupCoordinatorConfig::default() };
        let groups = GroupCoordinator::new(group_config, env.clone(), offsets.clone());
        let partitions = (0..PARTITIONS).map(|_| Mutex::default()).collect();
        let markers = Arc::new(Markers { dice: dice.clone(), groups: groups.clone(), partitions });
        let config = TransactionCoordinatorConfig { state_log_num_partitions: 1, abort_timed_out_interval_ms: 500, ..Default::default() };
        let log = SimLog::new(&dice);
        let transactions = TransactionCoordinator::new(config, env, log, markers.clone(), Arc::new(ProducerIds::default()));
        Arc::new(Self { dice, transactions, groups, offsets, markers, next_value: AtomicU64::new(1), done: Mutex::default() })
    }

    fn elect(&self, epoch: i32) {
        let leadership = Leadership { partition_count: None, led: BTreeMap::from([(0, epoch)]) };
        if self.dice.one_in(2) {
            self.transactions.on_leadership(&leadership);
        }
        if self.dice.one_in(2) {
            self.groups.on_leadership(&leadership);
        }
    }

    async fn elections(&self) -> i32 {
        let mut epoch = 1;
        while !self.dice.calm.load(Ordering::Relaxed) {
            self.elect(epoch);
            epoch += 1;
            self.dice.pause(1_500).await;
        }
        epoch
    }

    /// A process, and some time later the next with the same transactional id, which does not know whether the one before has ended.
    async fn produce(&self, number: i32) {
        let version = if number % 2 == 0 { TransactionVersion::V2 } else { TransactionVersion::V1 };
        let lives = (0..4).map(|life| async move {
            self.dice.pause(2_000 * life).await;
            let producer = Producer { world: self, number, version, producer: ProducerIdAndEpoch::NONE };
            producer.run(8).await;
        });
        join_all(lives).await;
    }

    /// Elects both coordinators again without trouble, and gives them the time to end what is open.
    async fn heal(&self, epoch: i32) -> Vec<String> {
        let leadership = Leadership { partition_count: None, led: BTreeMap::from([(0, epoch)]) };
        self.transactions.on_leadership(&leadership);
        self.groups.on_leadership(&leadership);
        self.dice.env.clock.sleep(Duration::from_millis(10 * TIMEOUT_MS as u64)).await;
        let listed = self.transactions.list(&ListTransactionsRequest::default()).unwrap().transactions;
        let mut described: Vec<String> =
            listed.iter().map(|id| format!("{}: {:?}", id.transactional_id, self.transactions.describe(&id.transactional_id))).collect();
        described.sort_unstable();
        described
    }

    async fn offsets(&self) -> BTreeMap<i32, i64> {
        let request =
            FetchOffsetsRequest { group_id: "g".to_owned(), member_id: None, member_epoch: -1, partitions: None, require_stable: true };
        let fetched = self.groups.fetch_offsets(request).await.unwrap();
        assert!(fetched.iter().all(|(_, offset)| !offset.is_unstable), "I20: a transaction holds offsets for ever");
        fetched.into_iter().map(|(id, offset)| (id.partition, offset.offset)).collect()
    }

    fn check(&self) {
        let visible: Vec<_> = self.markers.partitions.iter().map(|partition| partition.lock().visible()).collect();
        let committed_offsets = self.offsets.committed_offsets();
        let mut told_committed = 0;
        for txn in self.done.lock().iter() {
            let seen: Vec<bool> = txn.values.iter().map(|(at, value)| visible[*at].contains(value)).collect();
            match txn.told {
                Told::Committed => assert!(seen.iter().all(|seen| *seen), "I19: committed and not all visible: {txn:?} {seen:?}"),
                Told::Aborted => assert!(seen.iter().all(|seen| !seen), "I19: aborted and visible: {txn:?} {seen:?}"),
                Told::Nothing => assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "I19: visible in part: {txn:?} {seen:?}"),
            }
            if let Some((partition, offset)) = txn.offset {
                let last = committed_offsets.get(&partition).copied().unwrap_or(-1);
                assert!(txn.told != Told::Committed || last >= offset, "I21: {offset} was committed, {last} is there");
                assert!(txn.told != Told::Aborted || last != offset, "I19: the offset of an aborted transaction is there: {txn:?}");
            }
            told_committed += usize::from(txn.told == Told::Committed);
        }
        assert!(told_committed > 0, "nothing was committed");
    }
}

fn run(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(seed);
        let producing = async {
            join_all((0..4).map(|number| world.produce(number))).await;
            world.dice.calm.store(true, Ordering::Relaxed);
        };
        let (epoch, ()) = tokio::join!(world.elections(), producing);
        let described = world.heal(epoch).await;
        for open in ["Ongoing", "Prepare"] {
            assert!(!described.iter().any(|id| id.contains(open)), "I20: {described:#?}");
        }
        world.check();
        let offsets = world.offsets().await;
        assert_eq!(offsets, world.offsets.committed_offsets(), "the groups have what was committed last");
        assert_eq!(world.heal(epoch + 1).await, described, "I17: the log says the same");
        assert_eq!(world.offsets().await, offsets, "I17, I21: the log says the same");
    });
}

#[test]
fn whatever_happens_a_transaction_is_there_whole_or_not_at_all() {
    let only: Option<u64> = std::env::var("SILTSTONE_TXN_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..SEEDS, |seed| seed..seed + 1) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("failed with SILTSTONE_TXN_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
