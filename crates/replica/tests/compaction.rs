//! Compacted topics in both tiers: whatever is cleaned, mirrored into the bucket, folded there, and lost with a disk, the table that a
//! read_committed reader makes of the records stays what was written (I6, I19, ADR 7).
//!
//! `SILTSTONE_SIM_SEED=n` runs one seed, `SILTSTONE_SIM_SEEDS=n` that many, or `a..b`.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use siltstone_common::TopicIdPartition;
use siltstone_common::entropy::{Entropy, SmallEntropy};
use siltstone_common::fs::SimFs;
use siltstone_common::fs::sim::SimFault;
use siltstone_log::AppendOrigin;
use siltstone_log::batch::{Compression, batches, verify_crc};
use siltstone_log::producers::EndTxnMarker;
use siltstone_log::records::{BatchBuilder, inflate, records};
use siltstone_replica::{FetchIsolation, FetchParams, FetchedPartition, ProducePartition, ReplicaConfig};
use support::*;

const SEEDS: u64 = 6;
const LIVES: u64 = 5;
const DELETE_RETENTION: Duration = Duration::from_secs(20);
const COMPACTED: [(&str, &str); 5] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "900"),
    ("segment.ms", "5000"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("delete.retention.ms", "20000"),
];

type Table = BTreeMap<Vec<u8>, Vec<u8>>;

fn node_config() -> ReplicaConfig {
    let settings = [("log.cleaner.backoff.ms", "200"), ("log.cleaner.threads", "1")];
    ReplicaConfig { broker_configs: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(), ..replica_config() }
}

fn below(rng: &SmallEntropy, bound: u64) -> u64 {
    rng.below(bound)
}

#[derive(Clone, Debug)]
struct Written {
    offset: i64,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    transaction: Option<usize>,
}

/// What was written, and which transactions were decided how.
#[derive(Clone, Debug, Default)]
struct Model {
    records: Vec<Written>,
    /// Marker's offset and outcome of each transaction.
    decided: Vec<Option<(i64, bool)>>,
    /// Open transactions by producer.
    open: BTreeMap<i64, usize>,
    end: i64,
}

impl Model {
    fn wrote(&mut self, first: i64, transaction: Option<i64>, batch: &[(Vec<u8>, Option<Vec<u8>>)]) {
        let index = transaction.map(|producer_id| {
            *self.open.entry(producer_id).or_insert_with(|| {
                self.decided.push(None);
                self.decided.len() - 1
            })
        });
        let written = batch.iter().zip(first..).map(|((key, value), offset)| Written {
            offset,
            key: key.clone(),
            value: value.clone(),
            transaction: index,
        });
        self.records.extend(written);
        self.end = first + batch.len() as i64;
    }

    fn ended(&mut self, producer_id: i64, offset: i64, commit: bool) {
        if let Some(index) = self.open.remove(&producer_id) {
            self.decided[index] = Some((offset, commit));
        }
        self.end = offset + 1;
    }

    /// Everything from `end` on is gone, and what is known to be decided is ended again.
    fn cut(&mut self, end: i64) {
        let mut ended_again: Vec<(i64, usize)> = Vec::new();
        for (index, decided) in self.decided.iter().enumerate() {
            let first = self.records.iter().find(|record| record.transaction == Some(index)).map_or(i64::MAX, |first| first.offset);
            if first < end && decided.is_none_or(|(marker, _)| marker >= end) {
                assert!(decided.is_some(), "I22: nothing undecided is in the bucket");
                ended_again.push((first, index));
            }
        }
        ended_again.sort_unstable();
        self.records.retain(|record| record.offset < end);
        self.open.clear();
        self.end = end;
        for (_, index) in ended_again {
            self.decided[index] = self.decided[index].map(|(_, commit)| (self.end, commit));
            self.end += 1;
        }
    }

    /// The last records of a key, for messages.
    fn history(&self, key: &[u8]) -> Vec<String> {
        let of_key = self.records.iter().rev().filter(|record| record.key == key).take(4);
        let text = |record: &Written| {
            let value = record.value.as_ref().map_or("-".into(), |value| String::from_utf8_lossy(&value[..value.len().min(12)]));
            format!("{}: {value} {:?}", record.offset, record.transaction.map(|index| (index, self.decided[index])))
        };
        of_key.map(text).collect()
    }

    fn table(&self, end: i64) -> Table {
        let mut table = Table::new();
        for record in self.records.iter().filter(|record| record.offset < end) {
            if record.transaction.is_some_and(|index| !self.decided[index].is_some_and(|(_, commit)| commit)) {
                continue;
            }
            match &record.value {
                Some(value) => drop(table.insert(record.key.clone(), value.clone())),
                None => drop(table.remove(&record.key)),
            }
        }
        table
    }
}

/// A consumer that makes a table, as Java's with `isolation.level=read_committed` does.
#[derive(Clone, Debug, Default)]
struct Reader {
    next: i64,
    table: Table,
}

impl Reader {
    fn take(&mut self, answer: &FetchedPartition) {
        let mut aborted = answer.aborted.clone().unwrap_or_default();
        aborted.sort_by_key(|txn| txn.first_offset);
        let mut aborted: VecDeque<_> = aborted.into();
        let mut aborting = BTreeSet::new();
        let bytes = answer_bytes(answer);
        for found in batches(&bytes) {
            let (header, batch) = found.unwrap();
            verify_crc(batch).unwrap();
            while aborted.front().is_some_and(|txn| txn.first_offset <= header.last_offset()) {
                aborting.extend(aborted.pop_front().map(|txn| txn.producer_id));
            }
            let marker = EndTxnMarker::from_batch(&header, batch);
            if marker.is_some_and(|marker| !marker.commit) {
                aborting.remove(&header.producer_id);
            }
            if !header.is_control() && !(header.is_transactional() && aborting.contains(&header.producer_id)) {
                let body = inflate(&header, batch, 1 << 20).unwrap();
                for record in records(&header, &body) {
                    let record = record.unwrap();
                    if record.offset >= self.next {
                        match record.value {
                            Some(value) => drop(self.table.insert(record.key.unwrap().to_vec(), value.to_vec())),
                            None => drop(self.table.remove(record.key.unwrap())),
                        }
                    }
                }
            }
            self.next = self.next.max(header.next_offset());
        }
    }

    /// Reads to the last stable offset.
    async fn read_on(&mut self, node: &Node, id: TopicIdPartition, rng: &SmallEntropy) {
        let end = node.replicas.opened(id).unwrap().offsets().last_stable;
        while self.next < end {
            let params = FetchParams {
                isolation: FetchIsolation::ReadCommitted,
                max_wait: LONG,
                ..fetch_params([100, 1_000, 4_000, 100_000][below(rng, 4) as usize])
            };
            let answer = node.fetch(params, &[(id, self.next)]).await.remove(0);
            assert!(answer.error.is_none(), "at {} of {end}: {:?}", self.next, answer.error);
            let before = self.next;
            self.take(&answer);
            assert!(self.next > before, "a reader at {before} of {end} gets on");
        }
    }
}

/// A write whose answer the power took.
enum Pending {
    Batch(Option<i64>, Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Marker(i64, bool),
}

struct Sim {
    rng: SmallEntropy,
    world: World,
    fs: SimFs,
    id: TopicIdPartition,
    model: Model,
    pending: Option<Pending>,
    /// A reader with an old position, and since when it has not read.
    reader: (Reader, Duration),
    disk_lost: bool,
    /// Where the bucket ended when the disk was lost.
    remote_end: i64,
    passes: u64,
    lost_disks: u64,
    keys: u64,
}

impl Sim {
    async fn new(seed: u64) -> Self {
        let rng = SmallEntropy::seeded(seed);
        let world = World::new(seed).await;
        let epoch = register(&world).await;
        world.metadata.heartbeat(BROKER, epoch, false).await.unwrap();
        let id = world.topic("compacted", 1, &COMPACTED).await[0];
        let keys = 3 + below(&rng, 40);
        let reader = (Reader::default(), Duration::ZERO);
        let model = Model::default();
        let fs = SimFs::new();
        Self { rng, world, fs, id, model, pending: None, reader, disk_lost: false, remote_end: 0, passes: 0, lost_disks: 0, keys }
    }

    async fn append(&mut self, node: &Node, records: BytesMut, origin: AppendOrigin) -> Option<i64> {
        let parts = vec![ProducePartition { id: self.id, records, origin }];
        match node.replicas.append(-1, LONG, parts).await.remove(0).result {
            Ok(info) => {
                self.pending = None;
                Some(info.first_offset)
            }
            Err(error) => {
                assert!(self.fs.is_dead(), "{error}");
                None
            }
        }
    }

    async fn write(&mut self, node: &Node, producer_id: Option<i64>) {
        let batch: Vec<(Vec<u8>, Option<Vec<u8>>)> = (0..1 + below(&self.rng, 4))
            .map(|_| {
                let key = format!("key-{}", below(&self.rng, self.keys)).into_bytes();
                let value = format!("{:04x}-{}", below(&self.rng, 65_536), "x".repeat(below(&self.rng, 60) as usize)).into_bytes();
                (key, (below(&self.rng, 4) > 0).then_some(value))
            })
            .collect();
        let codec = [Compression::None, Compression::Lz4][below(&self.rng, 2) as usize];
        let mut builder = BatchBuilder::new(codec);
        let mut origin = AppendOrigin::Client;
        if let Some(producer_id) = producer_id {
            let known = node.replicas.opened(self.id).unwrap().log().producers();
            let sequence = known.iter().find(|known| known.producer_id == producer_id).map_or(0, |known| known.last_sequence + 1);
            builder = builder.producer(producer_id, 0, sequence, true);
            let guard = node.replicas.begin_verification(self.id, (producer_id, 0), sequence, false).await.unwrap();
            origin = guard.map_or(AppendOrigin::Client, AppendOrigin::VerifiedClient);
        }
        let now_ms = node.env.clock.now_ms();
        for (key, value) in &batch {
            builder.record(now_ms, Some(key), value.as_deref(), &[]);
        }
        self.pending = Some(Pending::Batch(producer_id, batch.clone()));
        if let Some(first) = self.append(node, builder.build(), origin).await {
            self.wrote(first, producer_id, &batch);
        }
    }

    fn wrote(&mut self, first: i64, producer_id: Option<i64>, batch: &[(Vec<u8>, Option<Vec<u8>>)]) {
        self.model.wrote(first, producer_id, batch);
    }

    async fn end_transaction(&mut self, node: &Node, producer_id: i64, commit: bool) {
        let batch = EndTxnMarker { commit, coordinator_epoch: 1 }.to_batch(producer_id, 0, node.env.clock.now_ms());
        self.pending = Some(Pending::Marker(producer_id, commit));
        if let Some(offset) = self.append(node, batch, AppendOrigin::Marker { transaction_version: 1 }).await {
            self.model.ended(producer_id, offset, commit);
        }
    }

    /// What a restart found: a write without an answer may be there; without the disk, the end is missing.
    fn restarted(&mut self, log_end: i64) {
        match self.pending.take() {
            Some(Pending::Batch(producer_id, batch)) if log_end > self.model.end => {
                self.wrote(self.model.end, producer_id, &batch);
            }
            Some(Pending::Marker(producer_id, commit)) if log_end > self.model.end => {
                self.model.ended(producer_id, self.model.end, commit);
            }
            _ => {}
        }
        if self.disk_lost {
            self.model.cut(self.remote_end);
        }
        assert_eq!(log_end, self.model.end, "I3");
        if self.disk_lost {
            self.reader = (Reader::default(), Duration::ZERO);
        }
    }

    fn compare(&self, reader: &Reader, what: &str) {
        let expected = self.model.table(reader.next);
        let keys: BTreeSet<_> = expected.keys().chain(reader.table.keys()).collect();
        let text = |value: Option<&Vec<u8>>| value.map(|value| String::from_utf8_lossy(&value[..value.len().min(12)]).into_owned());
        let wrong: Vec<_> = keys.into_iter().filter(|key| reader.table.get(*key) != expected.get(*key)).collect();
        let wrong: Vec<_> = wrong
            .into_iter()
            .map(|key| (String::from_utf8_lossy(key), text(reader.table.get(key)), text(expected.get(key)), self.model.history(key)))
            .collect();
        assert!(wrong.is_empty(), "{what}: up to {}: (key, read, written, history) {wrong:#?}", reader.next);
    }

    async fn check(&mut self, node: &Node, what: &str) {
        let mut reader = Reader::default();
        reader.read_on(node, self.id, &self.rng).await;
        self.compare(&reader, what);
    }

    /// A reader that goes on where it was sees every deletion, if it is not slower than `delete.retention.ms`.
    async fn check_reader(&mut self, node: &Node) {
        let now = node.env.clock.monotonic();
        let (mut reader, since) = std::mem::take(&mut self.reader);
        if now.saturating_sub(since) >= DELETE_RETENTION {
            reader = Reader::default();
        }
        reader.read_on(node, self.id, &self.rng).await;
        self.compare(&reader, "an old position");
        self.reader = (reader, now);
    }

    async fn step(&mut self, node: &Node) {
        match below(&self.rng, 40) {
            0..=14 => self.write(node, None).await,
            15..=24 => {
                let producer_id = 1 + below(&self.rng, 3) as i64;
                self.write(node, Some(producer_id)).await;
            }
            25..=31 => {
                let open: Vec<i64> = self.model.open.keys().copied().collect();
                if !open.is_empty() {
                    let producer_id = open[below(&self.rng, open.len() as u64) as usize];
                    let commit = below(&self.rng, 2) > 0;
                    self.end_transaction(node, producer_id, commit).await;
                }
            }
            32..=36 => node.env.clock.sleep(Duration::from_millis(below(&self.rng, 4_000))).await,
            37 => node.env.clock.sleep(DELETE_RETENTION).await,
            38 => self.check(node, "under way").await,
            _ => self.check_reader(node).await,
        }
    }

    async fn lose_disk(&mut self) {
        self.remote_end = self.world.metadata.remote_extent(self.id).await.unwrap().remote_end;
        self.disk_lost = true;
        self.lost_disks += 1;
        self.fs = SimFs::new();
    }

    async fn live(&mut self, steps: u64) {
        let node = loop {
            let config = ReplicaConfig { data_dir_was_empty: self.disk_lost, ..node_config() };
            match Node::try_start(&self.world, &self.fs, self.rng.next_u64(), config).await {
                Ok(node) => break node,
                Err(error) => assert!(self.fs.is_dead(), "{error}"),
            }
            self.fs = self.fs.crash(&self.rng);
        };
        node.wait_for("the partition", LONG, |node| node.replicas.opened(self.id).is_some()).await;
        self.restarted(node.replicas.opened(self.id).unwrap().offsets().log_end);
        self.disk_lost = false;
        let log = Arc::clone(node.replicas.opened(self.id).unwrap().log());
        node.wait_for("the last stable offset", LONG, |_| {
            !self.model.open.is_empty() || log.offsets().last_stable == log.offsets().log_end
        })
        .await;
        self.check(&node, "after a start").await;
        if below(&self.rng, 2) > 0 {
            self.fs.crash_at(self.fs.operations() + 1 + below(&self.rng, 1_000));
        }
        for _ in 0..steps {
            if !self.fs.is_dead() {
                // What reads while the power goes fails: only what is written is looked at then.
                self.step(&node).await;
            }
        }
        self.passes += node.replicas.cleaner_metrics().passes;
        assert_eq!(node.replicas.cleaner_metrics().uncleanable_partitions * u64::from(!self.fs.is_dead()), 0);
        node.kill().await;
        match below(&self.rng, 4) {
            0 | 1 => self.lose_disk().await,
            2 => self.fs = self.fs.kill(),
            _ => self.fs = self.fs.crash(&self.rng),
        }
    }
}

fn run(seed: u64) -> (u64, u64) {
    simulated(async {
        let mut sim = Sim::new(seed).await;
        for _ in 0..LIVES {
            let steps = 20 + below(&sim.rng, 280);
            sim.live(steps).await;
        }
        // And from the bucket alone.
        sim.live(0).await;
        sim.lose_disk().await;
        sim.live(0).await;
        sim.world.env.tasks.shutdown(LONG).await;
        (sim.passes, sim.lost_disks)
    })
}

fn seeds() -> std::ops::Range<u64> {
    let number = |text: &str| text.parse::<u64>().ok();
    if let Some(seed) = std::env::var("SILTSTONE_SIM_SEED").ok().as_deref().and_then(number) {
        return seed..seed + 1;
    }
    let text = std::env::var("SILTSTONE_SIM_SEEDS").unwrap_or_else(|_| SEEDS.to_string());
    match text.split_once("..") {
        Some((from, to)) => number(from).unwrap()..number(to).unwrap(),
        None => 0..number(&text).unwrap(),
    }
}

#[test]
fn a_table_stays_whatever_is_cleaned_mirrored_folded_and_lost() {
    let (mut failed, mut passes, mut lost_disks) = (Vec::new(), 0, 0);
    for seed in seeds() {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(counts) => (passes, lost_disks) = (passes + counts.0, lost_disks + counts.1),
            Err(_) => failed.push(seed),
        }
    }
    eprintln!("{passes} passes, {lost_disks} lost disks");
    assert!(failed.is_empty(), "seeds {failed:?} failed: SILTSTONE_SIM_SEED=n cargo test -p siltstone-replica --test compaction");
    assert!(seeds().count() < SEEDS as usize || (passes > 50 && lost_disks > 5), "{passes} passes, {lost_disks} lost disks");
}

fn keyed(key: &str, value_bytes: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.record(1_700_000_000_000, Some(key.as_bytes()), Some(&vec![b'v'; value_bytes]), &[]);
    builder.build()
}

async fn in_transaction(node: &Node, id: TopicIdPartition, sequence: i32, key: &str) {
    let guard = node.replicas.begin_verification(id, (1, 0), sequence, false).await.unwrap();
    let mut builder = BatchBuilder::new(Compression::None).producer(1, 0, sequence, true);
    builder.record(1_700_000_000_000, Some(key.as_bytes()), Some(b"in a transaction"), &[]);
    let origin = guard.map_or(AppendOrigin::Client, AppendOrigin::VerifiedClient);
    let parts = vec![ProducePartition { id, records: builder.build(), origin }];
    node.replicas.append(-1, LONG, parts).await.remove(0).result.unwrap();
}

async fn marker(node: &Node, id: TopicIdPartition, commit: bool) {
    let records = EndTxnMarker { commit, coordinator_epoch: 1 }.to_batch(1, 0, node.env.clock.now_ms());
    let parts = vec![ProducePartition { id, records, origin: AppendOrigin::Marker { transaction_version: 1 } }];
    node.replicas.append(-1, LONG, parts).await.remove(0).result.unwrap();
}

/// I19, I20, I32: what is in the bucket is decided; a lost marker must neither hold the last stable offset back nor change what was decided.
#[test]
fn a_transaction_whose_end_was_lost_with_the_disk_is_ended_again_as_it_was() {
    for commit in [false, true] {
        simulated(async {
            let world = World::new(1).await;
            let node = Node::start(&world, &SimFs::new()).await;
            let tiered = [("segment.bytes", "2000"), ("local.retention.bytes", "1"), ("retention.bytes", "-1")];
            let id = world.topic("t", 1, &tiered).await[0];
            in_transaction(&node, id, 0, "first").await;
            for key in ["x", "y", "z"] {
                node.produce(id, keyed(key, 800), LONG).await.unwrap();
            }
            let remote_end = |node: &Node| node.replicas.opened(id).unwrap().remote().remote_end;
            node.env.clock.sleep(Duration::from_secs(10)).await;
            assert_eq!(remote_end(&node), 0, "I22: an open transaction is not uploaded");
            marker(&node, id, commit).await;
            node.wait_for("an upload", LONG, |node| remote_end(node) > 0).await;
            let end = remote_end(&node);
            assert!(end < 4, "the marker is not in the bucket");
            node.kill().await;

            let node = Node::try_start(&world, &SimFs::new(), 2, replica_config()).await.unwrap();
            node.wait_for("the partition", LONG, |node| node.replicas.opened(id).is_some()).await;
            let offsets = || node.replicas.opened(id).unwrap().offsets();
            node.wait_for("the last stable offset", LONG, |_| offsets().last_stable == end + 1).await;
            assert_eq!((offsets().log_end, node.replicas.metrics().transactions_ended_again()), (end + 1, 1));
            // The same producer goes on, and all of it is read back from the bucket in one answer.
            in_transaction(&node, id, 1, "second").await;
            marker(&node, id, true).await;
            for key in ["x", "y", "z"] {
                node.produce(id, keyed(key, 800), LONG).await.unwrap();
            }
            node.wait_for("local segments to go", LONG, |_| offsets().local_start > end + 2).await;
            node.kill().await;
            let node = Node::try_start(&world, &SimFs::new(), 3, replica_config()).await.unwrap();
            node.wait_for("the partition", LONG, |node| node.replicas.opened(id).is_some()).await;
            let params = FetchParams { isolation: FetchIsolation::ReadCommitted, max_wait: LONG, ..fetch_params(1 << 20) };
            let mut reader = Reader::default();
            reader.take(&node.fetch(params, &[(id, 0)]).await[0]);
            assert_eq!((reader.table.contains_key(&b"first"[..]), reader.table.contains_key(&b"second"[..])), (commit, true));
            node.kill().await;
            world.env.tasks.shutdown(LONG).await;
        });
    }
}

/// A partition whose passes fail must not be picked for ever, nor leave its unfinished segments on the disk.
#[test]
fn a_partition_that_can_not_be_compacted_does_not_hold_up_the_others() {
    simulated(async {
        let world = World::new(1).await;
        let fs = SimFs::new();
        let node = Node::try_start(&world, &fs, 1, node_config()).await.unwrap();
        let ids = world.topic("compacted", 2, &COMPACTED).await;
        fs.inject(SimFault::Sync, "-0/00000000000000000000.1", u32::MAX);
        for _ in 0..30 {
            for id in &ids {
                node.produce(*id, keyed("same", 200), LONG).await.unwrap();
            }
            // The other one is never the dirtier.
            node.produce(ids[1], keyed("other", 10), LONG).await.unwrap();
        }
        node.wait_for("the other one's compaction", LONG, |node| node.replicas.cleaner_metrics().passes > 0).await;
        let small = |node: &Node| node.replicas.opened(ids[1]).unwrap().log().local_size_bytes() < 2_000;
        node.wait_for("most of it to go", LONG, small).await;
        assert!(node.replicas.opened(ids[0]).unwrap().log().local_size_bytes() > 6_000, "the first can't be compacted");
        let generation_1: Vec<_> =
            fs.dump().into_iter().filter(|(path, _)| path.display().to_string().contains("-0/00000000000000000000.1")).collect();
        assert!(generation_1.is_empty(), "what a failed pass wrote is gone: {generation_1:?}");
        node.kill().await;
        world.env.tasks.shutdown(LONG).await;
    });
}
