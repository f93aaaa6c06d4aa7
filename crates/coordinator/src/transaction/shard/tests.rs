//! Transactions, step by step, and at random against what must always hold.

use proptest::prelude::*;

use super::*;
use crate::driver::Shard;
use crate::state_log::{StateLogError, StateWrite};

const START_MS: i64 = 1_700_000_000_000;
const ID: &str = "id";

/// A shard, its clock, its log, and what it answered.
struct World {
    shard: TransactionShard,
    now_ms: i64,
    log: Vec<StateRecord>,
    markers: Vec<MarkersToWrite>,
    replies: HashMap<WaiterId, Reply>,
    last_waiter: WaiterId,
    last_producer_id: i64,
    /// What appends end with.
    append: Result<(), StateLogError>,
}

impl World {
    fn new() -> Self {
        let config = TransactionCoordinatorConfig { transactional_id_expiration_ms: 1_000_000, ..Default::default() };
        Self {
            shard: TransactionShard::new(Arc::new(config), 7),
            now_ms: START_MS,
            log: Vec::new(),
            markers: Vec::new(),
            replies: HashMap::new(),
            last_waiter: 0,
            last_producer_id: 99,
            append: Ok(()),
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: Duration::from_millis((self.now_ms - START_MS) as u64), wall_ms: self.now_ms }
    }

    /// Lets writes end until nothing is left to do now.
    fn settle(&mut self) {
        self.shard.on_tick(self.now());
        while let Some(StateWrite::Records(records)) = self.shard.next_batch(self.now()) {
            if self.append.is_ok() {
                self.log.extend(records);
            }
            let result = self.append.clone();
            self.shard.on_appended(&result, self.now());
        }
        self.markers.extend(self.shard.take_markers());
        for (waiter, reply) in self.shard.take_replies() {
            assert!(self.replies.insert(waiter, reply).is_none(), "waiter {waiter} is answered twice");
        }
    }

    fn ask(&mut self, ask: impl FnOnce(&mut TransactionShard, WaiterId, Now)) -> Option<Reply> {
        self.last_waiter += 1;
        let (waiter, now) = (self.last_waiter, self.now());
        ask(&mut self.shard, waiter, now);
        self.settle();
        self.replies.remove(&waiter)
    }

    fn producer(
        &mut self,
        ask: impl Fn(&mut TransactionShard, Option<i64>, WaiterId, Now),
    ) -> Result<ProducerIdAndEpoch, TransactionError> {
        let mut reply = self.ask(|shard, waiter, now| ask(shard, None, waiter, now));
        if reply == Some(Reply::NeedsProducerId) {
            self.last_producer_id += 1;
            let spare = self.last_producer_id;
            reply = self.ask(|shard, waiter, now| ask(shard, Some(spare), waiter, now));
        }
        match reply {
            Some(Reply::Producer(result)) => result,
            other => panic!("not an answer: {other:?}"),
        }
    }

    fn init_with(&mut self, expected: Option<ProducerIdAndEpoch>) -> Result<ProducerIdAndEpoch, TransactionError> {
        let request = InitProducerRequest { transactional_id: ID.to_owned(), timeout_ms: 60_000, expected };
        self.producer(|shard, spare, waiter, now| shard.init_producer(&request, spare, waiter, now))
    }

    fn init(&mut self) -> ProducerIdAndEpoch {
        self.init_with(None).unwrap()
    }

    fn add(&mut self, producer: ProducerIdAndEpoch, partition: i32, version: TransactionVersion) -> Result<(), TransactionError> {
        let who = who(producer);
        let partitions = [TopicPartition { topic: "t".into(), partition }];
        match self.ask(|shard, waiter, now| shard.add_partitions(&who, &partitions, version, waiter, now)) {
            Some(Reply::Done(result)) => result,
            other => panic!("not an answer: {other:?}"),
        }
    }

    fn end(
        &mut self,
        producer: ProducerIdAndEpoch,
        commit: bool,
        version: TransactionVersion,
    ) -> Result<ProducerIdAndEpoch, TransactionError> {
        let request = EndTransactionRequest { who: who(producer), commit, version };
        self.producer(|shard, spare, waiter, now| shard.end(&request, spare, waiter, now))
    }

    /// All markers that wait are written.
    fn mark(&mut self) -> Vec<MarkersToWrite> {
        let written = std::mem::take(&mut self.markers);
        for job in &written {
            let now = self.now();
            self.shard.on_markers_written(&job.transactional_id, now);
        }
        self.settle();
        written
    }

    fn state(&self) -> &'static str {
        self.shard.describe(ID).unwrap().state
    }

    /// The broker starts again, with what is in the log.
    fn restart(&mut self) {
        let mut shard = TransactionShard::new(self.shard.config.clone(), 8);
        for record in &self.log {
            assert_eq!(shard.replay(record), Ok(None));
        }
        shard.on_loaded(self.now());
        self.shard = shard;
        self.markers.clear();
        self.settle();
    }
}

fn who(producer: ProducerIdAndEpoch) -> TxnProducer {
    TxnProducer { transactional_id: ID.to_owned(), producer }
}

fn epoch(producer: ProducerIdAndEpoch, producer_epoch: i16) -> ProducerIdAndEpoch {
    ProducerIdAndEpoch { producer_epoch, ..producer }
}

#[test]
fn a_transaction_of_version_1_keeps_its_epoch() {
    let mut world = World::new();
    let producer = world.init();
    assert_eq!(producer, ProducerIdAndEpoch { producer_id: 100, producer_epoch: 0 });
    assert_eq!(world.add(producer, 0, TransactionVersion::V1), Ok(()));
    let partitions = [0, 1].map(|partition| TopicPartition { topic: "t".into(), partition });
    let verified = world.shard.verify_partitions(&who(producer), &partitions);
    assert_eq!(verified, Ok(vec![Ok(()), Err(TransactionError::TransactionAbortable)]));
    assert_eq!(world.end(producer, true, TransactionVersion::V1), Ok(ProducerIdAndEpoch::NONE));
    assert_eq!(world.state(), "PrepareCommit");
    assert_eq!(world.add(producer, 1, TransactionVersion::V1), Err(TransactionError::ConcurrentTransactions));
    let verified = world.shard.verify_partitions(&who(producer), &partitions);
    assert_eq!(verified, Err(TransactionError::ConcurrentTransactions), "it takes no more");
    let written = world.mark();
    assert_eq!((written[0].marker.producer, written[0].marker.coordinator_epoch, written[0].marker.commit), (producer, 7, true));
    assert_eq!(written[0].partitions, partitions[..1]);
    assert_eq!(world.state(), "CompleteCommit");
    assert_eq!(world.shard.describe(ID).unwrap().partitions, []);
    assert_eq!(world.add(producer, 1, TransactionVersion::V1), Ok(()));
}

#[test]
fn i20_with_version_2_no_request_of_an_earlier_transaction_touches_a_later_one() {
    let mut world = World::new();
    let first = world.init();
    world.add(first, 0, TransactionVersion::V2).unwrap();
    let second = world.end(first, true, TransactionVersion::V2).unwrap();
    assert_eq!(second, epoch(first, 1));
    assert_eq!(world.mark()[0].marker.producer, second, "the marker brings the new epoch");
    world.add(second, 0, TransactionVersion::V2).unwrap();
    for commit in [true, false] {
        assert_eq!(world.end(first, commit, TransactionVersion::V2), Err(TransactionError::ProducerFenced));
        assert_eq!(world.end(first, commit, TransactionVersion::V1), Err(TransactionError::ProducerFenced));
    }
    assert_eq!(world.add(first, 1, TransactionVersion::V2), Err(TransactionError::ProducerFenced));
    assert_eq!(world.shard.verify_partitions(&who(first), &[]), Err(TransactionError::ProducerFenced));
    assert_eq!(world.state(), "Ongoing");
    let third = world.end(second, false, TransactionVersion::V2).unwrap();
    world.mark();
    assert_eq!(world.end(second, false, TransactionVersion::V2), Ok(third), "a retry of the last end is answered as it was");
}

#[test]
fn i20_who_names_another_producer_id_gets_nothing() {
    let mut world = World::new();
    let producer = world.init();
    world.add(producer, 0, TransactionVersion::V1).unwrap();
    let other = ProducerIdAndEpoch { producer_id: producer.producer_id + 1, ..producer };
    assert_eq!(world.add(other, 0, TransactionVersion::V1), Err(TransactionError::InvalidProducerIdMapping));
    assert_eq!(world.shard.verify_partitions(&who(other), &[]), Err(TransactionError::InvalidProducerIdMapping));
    for version in [TransactionVersion::V1, TransactionVersion::V2] {
        assert_eq!(world.end(other, true, version), Err(TransactionError::InvalidProducerIdMapping));
    }
    assert_eq!(world.state(), "Ongoing");
    // As if it retried the end that gave another producer the id's first epoch.
    let last = epoch(other, i16::MAX - 1);
    assert_eq!(world.end(last, false, TransactionVersion::V2), Err(TransactionError::InvalidProducerIdMapping));
}

#[test]
fn while_a_change_is_under_way_every_other_waits() {
    let mut world = World::new();
    let first = world.init();
    world.add(first, 0, TransactionVersion::V1).unwrap();
    let end = |commit, version| EndTransactionRequest { who: who(first), commit, version };
    let now = world.now();
    world.shard.end(&end(true, TransactionVersion::V1), None, 1_000, now);
    assert!(world.shard.next_batch(now).is_some());
    world.shard.end(&end(false, TransactionVersion::V1), None, 1_001, now);
    world.shard.end(&end(false, TransactionVersion::V2), None, 1_002, now);
    let init = InitProducerRequest { transactional_id: ID.to_owned(), timeout_ms: 60_000, expected: None };
    world.shard.init_producer(&init, None, 1_003, now);
    let refused = Reply::Producer(Err(TransactionError::ConcurrentTransactions));
    assert_eq!(world.shard.take_replies(), [1_001, 1_002, 1_003].map(|waiter| (waiter, refused.clone())));
    // What concerns other ids is queued, and waits for its turn in the log.
    let other = InitProducerRequest { transactional_id: "other".to_owned(), ..init };
    world.shard.init_producer(&other, Some(7), 1_004, now);
    assert_eq!(world.shard.next_batch(now), None, "one batch at a time");
    world.shard.on_appended(&Ok(()), now);
    assert!(world.shard.next_batch(now).is_some());
}

#[test]
fn long_transactions_are_listed_by_how_long_they_run() {
    let mut world = World::new();
    let producer = world.init();
    world.add(producer, 0, TransactionVersion::V1).unwrap();
    world.now_ms += 1_000;
    let listed = |duration_ms| world.shard.list(&ListTransactionsRequest { duration_ms, ..Default::default() }, world.now()).len();
    assert_eq!([-1, 999, 1_000].map(listed), [1, 1, 0]);
}

/// I20: only the producer that got the newest epoch may ask for it again, not the one that it fenced (KIP-360).
#[test]
fn i20_a_producer_that_was_fenced_recovers_nothing() {
    let mut world = World::new();
    let first = world.init();
    assert_eq!(world.init(), epoch(first, 1));
    assert_eq!(world.init_with(Some(first)), Err(TransactionError::ProducerFenced));
}

#[test]
fn a_transaction_is_as_old_as_its_first_partition() {
    let mut world = World::new();
    let producer = world.init();
    world.add(producer, 0, TransactionVersion::V1).unwrap();
    world.now_ms += 40_000;
    world.add(producer, 1, TransactionVersion::V1).unwrap();
    assert_eq!(world.shard.describe(ID).unwrap().start_timestamp_ms, START_MS);
    world.now_ms += 20_001;
    world.shard.abort_timed_out(world.now());
    world.settle();
    assert_eq!(world.state(), "PrepareAbort");
}

/// Partitions hold a marker of version 2 to a newer epoch than the data's, so that a late one ends nothing (I20).
#[test]
fn i20_a_marker_says_what_its_client_speaks() {
    for version in [TransactionVersion::V1, TransactionVersion::V2] {
        let mut world = World::new();
        let producer = world.init();
        world.add(producer, 0, version).unwrap();
        world.end(producer, true, version).unwrap();
        assert_eq!(world.mark()[0].marker.version, version);
    }
}

/// I19: what the sweeps see is not yet what was decided.
#[test]
fn i19_no_sweep_touches_a_transaction_whose_change_is_under_way() {
    let mut world = World::new();
    let first = world.init();
    world.add(first, 0, TransactionVersion::V1).unwrap();
    world.now_ms += 60_001;
    let request = EndTransactionRequest { who: who(first), commit: true, version: TransactionVersion::V1 };
    world.shard.end(&request, None, 1_000, world.now());
    world.shard.abort_timed_out(world.now());
    world.settle();
    assert_eq!(world.state(), "PrepareCommit");
    assert_eq!(world.mark().len(), 1);

    world.now_ms += 1_000_001;
    let partitions = [TopicPartition { topic: "t".into(), partition: 0 }];
    world.shard.add_partitions(&who(first), &partitions, TransactionVersion::V1, 1_001, world.now());
    world.shard.expire(world.now());
    world.settle();
    assert_eq!(world.state(), "Ongoing");
}

#[test]
fn i19_a_decided_end_is_carried_out_after_a_restart_and_never_changed() {
    let mut world = World::new();
    let first = world.init();
    world.add(first, 0, TransactionVersion::V2).unwrap();
    world.add(first, 1, TransactionVersion::V2).unwrap();
    world.end(first, true, TransactionVersion::V2).unwrap();
    let before = world.markers.clone();
    world.restart();
    assert_eq!(world.markers.len(), 1);
    let again = &world.markers[0];
    assert_eq!((again.marker.commit, again.marker.producer), (true, before[0].marker.producer));
    assert_eq!((again.marker.coordinator_epoch, &again.partitions), (8, &before[0].partitions));
    assert_eq!(world.init_with(None), Err(TransactionError::ConcurrentTransactions));
    world.mark();
    assert_eq!(world.state(), "CompleteCommit");
}

#[test]
fn a_completion_that_can_t_be_written_is_tried_again() {
    let mut world = World::new();
    let first = world.init();
    world.add(first, 0, TransactionVersion::V1).unwrap();
    world.end(first, false, TransactionVersion::V1).unwrap();
    world.append = Err(StateLogError::TimedOut);
    world.mark();
    assert_eq!(world.state(), "PrepareAbort");
    world.append = Ok(());
    world.now_ms += 1_000;
    world.settle();
    assert_eq!(world.state(), "CompleteAbort");
}

#[test]
fn a_write_that_fails_changes_nothing_and_is_told() {
    let mut world = World::new();
    let first = world.init();
    world.append = Err(StateLogError::NotLeader);
    assert_eq!(world.add(first, 0, TransactionVersion::V1), Err(TransactionError::NotCoordinator));
    world.append = Ok(());
    world.add(first, 0, TransactionVersion::V1).unwrap();
    world.append = Err(StateLogError::NotEnoughReplicas);
    assert_eq!(world.end(first, true, TransactionVersion::V1), Err(TransactionError::CoordinatorNotAvailable));
    assert_eq!(world.state(), "Ongoing");
    world.append = Ok(());
    assert_eq!(world.end(first, true, TransactionVersion::V1), Ok(ProducerIdAndEpoch::NONE));
}

#[test]
fn a_transaction_that_timed_out_is_aborted_and_its_producer_fenced() {
    let mut world = World::new();
    let first = world.init();
    world.add(first, 0, TransactionVersion::V1).unwrap();
    world.now_ms += 60_000;
    world.shard.abort_timed_out(world.now());
    world.settle();
    assert_eq!(world.state(), "Ongoing", "not a moment too early");
    world.now_ms += 1;
    world.shard.abort_timed_out(world.now());
    world.settle();
    assert!(!world.mark()[0].marker.commit);
    assert_eq!(world.state(), "CompleteAbort");
    assert_eq!(world.add(first, 0, TransactionVersion::V1), Err(TransactionError::ProducerFenced));
    assert_eq!(world.end(first, true, TransactionVersion::V1), Err(TransactionError::ProducerFenced));
}

#[test]
fn a_new_producer_ends_what_the_old_one_left_open() {
    let mut world = World::new();
    let first = world.init();
    world.add(first, 0, TransactionVersion::V1).unwrap();
    assert_eq!(world.init_with(None), Err(TransactionError::ConcurrentTransactions));
    world.mark();
    let second = world.init();
    assert_eq!(second, epoch(first, 2));
    assert_eq!(world.end(first, true, TransactionVersion::V1), Err(TransactionError::ProducerFenced));
    assert_eq!(world.init_with(Some(first)), Err(TransactionError::ProducerFenced));
    assert_eq!(world.init_with(Some(second)), Ok(epoch(first, 3)));
    assert_eq!(world.init_with(Some(second)), Ok(epoch(first, 3)), "a retry gets the same again (KIP-360)");
}

#[test]
fn epochs_that_are_used_up_make_way_for_a_new_producer_id() {
    let mut world = World::new();
    let mut producer = world.init();
    for _ in 0..i16::MAX - 1 {
        producer = world.end(producer, false, TransactionVersion::V2).unwrap();
    }
    assert_eq!(producer, ProducerIdAndEpoch { producer_id: 100, producer_epoch: i16::MAX - 1 });
    world.add(producer, 0, TransactionVersion::V2).unwrap();
    let next = world.end(producer, true, TransactionVersion::V2).unwrap();
    assert_eq!(next, ProducerIdAndEpoch { producer_id: 101, producer_epoch: 0 });
    assert_eq!(world.mark()[0].marker.producer, epoch(producer, i16::MAX), "the marker ends the old id's transaction");
    assert_eq!(world.end(producer, true, TransactionVersion::V2), Ok(next), "a retry");
    world.restart();
    assert_eq!(world.end(producer, true, TransactionVersion::V2), Ok(next), "a retry after a restart");
    assert_eq!(world.init_with(Some(epoch(producer, 0))), Err(TransactionError::ProducerFenced), "long fenced");
    world.add(next, 0, TransactionVersion::V2).unwrap();
}

/// The client has its new producer id before the transaction of the old one is marked everywhere.
#[test]
fn a_producer_id_that_was_given_early_is_told_to_wait_for_the_markers() {
    let mut world = World::new();
    let mut producer = world.init();
    for _ in 0..i16::MAX - 1 {
        producer = world.end(producer, false, TransactionVersion::V2).unwrap();
    }
    world.add(producer, 0, TransactionVersion::V2).unwrap();
    let next = world.end(producer, true, TransactionVersion::V2).unwrap();
    assert_ne!(next.producer_id, producer.producer_id);
    assert_eq!(world.state(), "PrepareCommit");
    assert_eq!(world.add(next, 0, TransactionVersion::V2), Err(TransactionError::ConcurrentTransactions));
    assert_eq!(world.end(next, false, TransactionVersion::V2), Err(TransactionError::ConcurrentTransactions));
    world.mark();
    assert_eq!(world.add(next, 0, TransactionVersion::V2), Ok(()));
}

/// I20: the last epoch of all is for fencing only; whoever was fenced by it may not go on with it, as nothing is left to fence that with.
#[test]
fn i20_nobody_gets_the_epoch_that_fences_the_last_one() {
    let mut world = World::new();
    let mut producer = world.init();
    for _ in 0..i16::MAX - 1 {
        producer = world.end(producer, false, TransactionVersion::V2).unwrap();
    }
    world.add(producer, 0, TransactionVersion::V2).unwrap();
    world.now_ms += 60_001;
    world.shard.abort_timed_out(world.now());
    world.settle();
    assert_eq!(world.mark()[0].marker.producer, epoch(producer, i16::MAX));
    assert_eq!(world.end(producer, false, TransactionVersion::V2), Err(TransactionError::ProducerFenced));
    assert_eq!(world.end(epoch(producer, i16::MAX), false, TransactionVersion::V2), Err(TransactionError::ProducerFenced));
    let next = ProducerIdAndEpoch { producer_id: producer.producer_id + 1, producer_epoch: 0 };
    assert_eq!(world.init_with(Some(producer)), Ok(next), "it recovers with an id of its own (KIP-360)");
    assert_eq!(world.init_with(Some(producer)), Ok(next), "a retry");
}

#[test]
fn idle_ids_expire_and_open_ones_do_not() {
    let mut world = World::new();
    let first = world.init();
    world.add(first, 0, TransactionVersion::V1).unwrap();
    world.now_ms += 1_000_001;
    world.shard.expire(world.now());
    world.settle();
    assert_eq!(world.state(), "Ongoing");
    world.end(first, true, TransactionVersion::V1).unwrap();
    world.mark();
    world.now_ms += 1_000_001;
    world.shard.expire(world.now());
    world.settle();
    assert_eq!(world.shard.describe(ID), Err(TransactionError::TransactionalIdNotFound));
    world.restart();
    assert_eq!(world.shard.len(), 0);
}

/// A world in which the id stands in a state; `version` is that of the requests that led to it.
fn world_in(state: TransactionState, version: TransactionVersion) -> (World, ProducerIdAndEpoch) {
    let mut world = World::new();
    world.init();
    let mut producer = world.init();
    if state == TransactionState::Empty {
        return (world, producer);
    }
    world.add(producer, 0, version).unwrap();
    if state != TransactionState::Ongoing {
        let commit = matches!(state, TransactionState::PrepareCommit | TransactionState::CompleteCommit);
        let next = world.end(producer, commit, version).unwrap();
        producer = if version == TransactionVersion::V2 { next } else { producer };
    }
    if matches!(state, TransactionState::CompleteCommit | TransactionState::CompleteAbort) {
        world.mark();
    }
    assert_eq!(world.state(), state.name());
    (world, producer)
}

/// I17: what a coordinator answers does not depend on whether it was started anew meanwhile.
#[test]
fn a_restart_in_any_state_changes_no_answer() {
    use TransactionVersion::{V1, V2};
    type Ask = fn(&mut World, ProducerIdAndEpoch) -> Result<ProducerIdAndEpoch, TransactionError>;
    let asks: [(&str, Ask); 8] = [
        ("init", |world, _| world.init_with(None)),
        ("recover", |world, producer| world.init_with(Some(producer))),
        ("add v1", |world, producer| world.add(producer, 1, V1).map(|()| producer)),
        ("add v2", |world, producer| world.add(producer, 1, V2).map(|()| producer)),
        ("commit v1", |world, producer| world.end(producer, true, V1)),
        ("abort v1", |world, producer| world.end(producer, false, V1)),
        ("commit v2", |world, producer| world.end(producer, true, V2)),
        ("abort v2", |world, producer| world.end(producer, false, V2)),
    ];
    for (state, version) in TransactionState::ALL.into_iter().flat_map(|state| [(state, V1), (state, V2)]) {
        for (name, ask) in asks {
            // The epoch before is good for nothing but retries; "recover" with it is the one retry that a restart forgets, as in Kafka.
            for off in if name == "recover" { 0..=1 } else { -1..=1i16 } {
                let answer = |restarts: bool| {
                    let (mut world, producer) = world_in(state, version);
                    if restarts {
                        world.restart();
                    }
                    let answer = ask(&mut world, epoch(producer, producer.producer_epoch + off));
                    world.mark();
                    (answer, world.shard.describe(ID))
                };
                assert_eq!(answer(false), answer(true), "{state:?} by {version:?}: {name}, epoch {off:+}");
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Init { recovers: bool },
    Add { partition: i32, back: i16, v2: bool },
    End { commit: bool, back: i16, v2: bool },
    Mark,
    Pass { seconds: i64 },
    FailAppends(bool),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => any::<bool>().prop_map(|recovers| Step::Init { recovers }),
        5 => (0..3i32, 0..2i16, any::<bool>()).prop_map(|(partition, back, v2)| Step::Add { partition, back, v2 }),
        4 => (any::<bool>(), 0..3i16, any::<bool>()).prop_map(|(commit, back, v2)| Step::End { commit, back, v2 }),
        4 => Just(Step::Mark),
        1 => (0..90i64).prop_map(|seconds| Step::Pass { seconds }),
        1 => any::<bool>().prop_map(Step::FailAppends),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..80)
}

/// The newest producer that anybody was told.
fn run(world: &mut World, step: Step, newest: &mut ProducerIdAndEpoch) {
    let version = |v2| if v2 { TransactionVersion::V2 } else { TransactionVersion::V1 };
    match step {
        Step::Init { recovers } => {
            let expected = (recovers && newest.producer_id >= 0).then_some(*newest);
            if let Ok(producer) = world.init_with(expected) {
                *newest = producer;
            }
        }
        Step::Add { partition, back, v2 } => {
            let asked = epoch(*newest, newest.producer_epoch - back);
            let result = world.add(asked, partition, version(v2));
            assert!(back == 0 || result.is_err(), "I20: an older epoch added a partition");
        }
        Step::End { commit, back, v2 } => {
            let asked = epoch(*newest, newest.producer_epoch - back);
            let before = world.shard.transactions.get(ID).map(|transaction| transaction.data.clone());
            let result = world.end(asked, commit, version(v2));
            if back > 0 {
                let after = world.shard.transactions.get(ID).map(|transaction| transaction.data.clone());
                assert_eq!(before, after, "I20: an older epoch ended a transaction");
            }
            if let (0, Ok(producer), true) = (back, result, v2) {
                *newest = producer;
            }
        }
        Step::Mark => drop(world.mark()),
        Step::Pass { seconds } => {
            world.now_ms += seconds * 1_000;
            world.shard.abort_timed_out(world.now());
            world.settle();
        }
        Step::FailAppends(fails) => world.append = if fails { Err(StateLogError::TimedOut) } else { Ok(()) },
        Step::Restart => world.restart(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Epochs only rise, an outcome once decided stays, and the log gives the same state again (I17, I19, I20).
    #[test]
    fn whatever_happens_epochs_rise_and_outcomes_stay(steps in steps()) {
        let mut world = World::new();
        let mut newest = world.init();
        let mut last = (newest.producer_id, newest.producer_epoch);
        let mut prepared: Option<(i64, i16, TransactionState)> = None;
        for step in steps {
            let restarted = matches!(step, Step::Restart);
            run(&mut world, step, &mut newest);
            let data = world.shard.transactions[ID].data.clone();
            let now = (data.producer_id, data.producer_epoch);
            prop_assert!(now >= last || restarted, "{now:?} after {last:?}");
            last = now;
            if let Some((producer_id, producer_epoch, state)) = prepared
                && (data.producer_id, data.producer_epoch) == (producer_id, producer_epoch)
            {
                let ended = if state == TransactionState::PrepareCommit { TransactionState::CompleteCommit } else { TransactionState::CompleteAbort };
                prop_assert!(data.state == state || data.state == ended || data.state == TransactionState::Ongoing || data.state == TransactionState::Empty);
                prop_assert!(data.state != state || !world.shard.transactions[ID].data.partitions.is_empty() || world.append.is_err());
            }
            prepared = data.state.is_prepared().then_some((data.producer_id, data.producer_epoch, data.state));
        }
        // Whatever was open comes to its end.
        world.append = Ok(());
        world.now_ms += 120_000;
        world.settle();
        world.shard.abort_timed_out(world.now());
        world.settle();
        world.mark();
        let data = world.shard.transactions[ID].data.clone();
        prop_assert!(!data.state.is_prepared() && data.state != TransactionState::Ongoing, "I20: {data:?} stays open");
        world.restart();
        let again = TransactionData { last_producer_epoch: data.last_producer_epoch, ..world.shard.transactions[ID].data.clone() };
        prop_assert_eq!(again, data);
    }
}
