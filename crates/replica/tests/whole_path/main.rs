//! The whole path of a record on a simulated disk, a simulated bucket and metadata in memory: produce → seal → upload → drop → read back,
//! with power loss at any file operation, kills at any moment, clean stops, lost disks, and a bucket that is slow, refuses, hangs, loses its
//! answers, cuts and flips bytes. After and during each life: I1, I3, I6, I7, I8, I18, I22 to I29, I31, by number in the messages.
//! (I21, group offsets, has its own in `kafka-server`.)
//!
//! `SILTSTONE_SIM_SEED=n` runs one seed, `SILTSTONE_SIM_SEEDS=n` that many, or `a..b`; `SILTSTONE_SIM_TRACE=1` tells what happens.
#![expect(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

mod model;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use siltstone_common::entropy::{Entropy, SmallEntropy};
use siltstone_common::fs::SimFs;
use siltstone_log::AppendOrigin;
use siltstone_replica::{FetchParams, ProducePartition, ReplicaConfig, ReplicaError};

use model::{Part, below, one_in, text};
use support::bucket::Faults;
use support::*;

/// Seeds of a normal run.
const SEEDS: u64 = 12;
/// Starts and ends per seed.
const LIVES: u64 = 5;
const PARTITIONS: i32 = 2;
/// Keeps segments of the `small` topic so many bytes.
const RETENTION_BYTES: i64 = 6_000;

/// How often what the test is about took place: a run in which it did not says nothing.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct Coverage {
    uploads: u64,
    failed_uploads: u64,
    remote_bytes: u64,
    lost_tails: u64,
    expired: u64,
    deleted: u64,
    duplicates: u64,
    collected: u64,
}

impl Coverage {
    fn add(&mut self, other: &Coverage) {
        self.uploads += other.uploads;
        self.failed_uploads += other.failed_uploads;
        self.remote_bytes += other.remote_bytes;
        self.lost_tails += other.lost_tails;
        self.expired += other.expired;
        self.deleted += other.deleted;
        self.duplicates += other.duplicates;
        self.collected += other.collected;
    }

    fn counts(&self) -> [u64; 8] {
        let Self { uploads, failed_uploads, remote_bytes, lost_tails, expired, deleted, duplicates, collected } = *self;
        [uploads, failed_uploads, remote_bytes, lost_tails, expired, deleted, duplicates, collected]
    }
}

/// How a life ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Ending {
    PowerLoss,
    Kill,
    Clean,
    DiskLost,
}

struct Sim {
    rng: SmallEntropy,
    fs: SimFs,
    world: World,
    parts: Vec<Part>,
    next_value: u64,
    next_producer: i64,
    topics: u64,
    /// Every object that was ever in the bucket.
    objects: BTreeMap<String, Bytes>,
    disk_lost: bool,
    trace: Vec<String>,
    coverage: Coverage,
}

impl Sim {
    async fn new(seed: u64) -> Self {
        let rng = SmallEntropy::seeded(seed);
        let world = World::new(seed).await;
        Self {
            rng,
            fs: SimFs::new(),
            world,
            parts: Vec::new(),
            next_value: 0,
            next_producer: 0,
            topics: 0,
            objects: BTreeMap::new(),
            disk_lost: false,
            trace: Vec::new(),
            coverage: Coverage::default(),
        }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let line = format!("{} {}", self.world.env.clock.now_ms(), what());
        if std::env::var_os("SILTSTONE_SIM_TRACE").is_some() {
            eprintln!("{line}");
        }
        self.trace.push(line);
    }

    async fn add_topic(&mut self) {
        self.topics += 1;
        let retention = if self.topics.is_multiple_of(2) { RETENTION_BYTES } else { -1 };
        let local = ["1", "3000", "-2"][below(&self.rng, 3) as usize];
        let retention_text = retention.to_string();
        let configs = [
            ("segment.bytes", "2000"),
            ("segment.ms", "60000"),
            ("retention.bytes", retention_text.as_str()),
            ("local.retention.bytes", local),
        ];
        let ids = self.world.topic(&format!("t{}", self.topics), PARTITIONS, &configs).await;
        for id in ids {
            self.next_producer += 1;
            self.parts.push(Part::new(id, retention, self.next_producer));
        }
    }

    fn break_bucket(&mut self) {
        let (kind, hangs) = (below(&self.rng, 8), one_in(&self.rng, 3));
        let percent = 20 + below(&self.rng, 60);
        let mut faults = Faults::default();
        match kind {
            0 => faults.unavailable_percent = percent,
            1 => faults.lost_reply_percent = percent,
            2 => faults.truncated_percent = percent,
            3 => faults.corrupt_percent = percent,
            4 => faults.denied = true,
            5 if hangs => faults.hangs = true,
            6 => faults.conflict_next_create = true,
            _ => {}
        }
        self.note(|| format!("bucket: {faults:?}"));
        *self.world.bucket.faults.lock() = faults;
        self.world.bucket.speed.lock().latency = Duration::from_millis([0, 1, 30, 800][below(&self.rng, 4) as usize]);
    }

    fn mend_bucket(&mut self) {
        *self.world.bucket.faults.lock() = Faults::default();
        self.world.bucket.speed.lock().latency = Duration::ZERO;
    }

    /// From one start to the next end.
    async fn live(&mut self) -> Ending {
        if !one_in(&self.rng, 4) {
            self.fs.crash_at(self.fs.operations() + 1 + below(&self.rng, 500));
        }
        self.fs.set_short_writes(one_in(&self.rng, 4));
        self.break_bucket();
        let config = ReplicaConfig {
            data_dir_was_empty: self.disk_lost,
            disk_budget_bytes: if one_in(&self.rng, 3) { 300_000 } else { u64::MAX },
            ..replica_config()
        };
        self.disk_lost = false;
        let node = match Node::try_start(&self.world, &self.fs, self.rng.next_u64(), config).await {
            Ok(node) => node,
            Err(_) if self.fs.is_dead() => return Ending::PowerLoss,
            Err(error) => panic!("start: {error}"),
        };
        for _ in 0..20 + below(&self.rng, 120) {
            self.step(&node).await;
            if self.fs.is_dead() {
                self.count(&node);
                node.kill().await;
                return Ending::PowerLoss;
            }
            self.observe(&node).await;
        }
        self.count(&node);
        let ending = [Ending::PowerLoss, Ending::Kill, Ending::Clean, Ending::DiskLost][below(&self.rng, 4) as usize];
        if ending != Ending::Clean {
            node.kill().await;
        } else if let Err(error) = node.stop().await {
            assert!(self.fs.is_dead(), "close: {error}");
            return Ending::PowerLoss;
        }
        ending
    }

    fn count(&mut self, node: &Node) {
        let metrics = node.replicas.metrics();
        self.coverage.uploads += metrics.segments_uploaded();
        self.coverage.failed_uploads += metrics.upload_failures();
        self.coverage.remote_bytes += metrics.bytes_out_remote();
        self.coverage.lost_tails += metrics.lost_tails();
    }

    async fn step(&mut self, node: &Node) {
        let at = below(&self.rng, self.parts.len() as u64) as usize;
        match below(&self.rng, 40) {
            0 => self.break_bucket(),
            1 | 2 => self.mend_bucket(),
            3 => self.delete_records(node, at).await,
            4 if one_in(&self.rng, 4) => self.replace_topic(at).await,
            5..=8 => self.read_somewhere(node, at).await,
            9..=14 => {
                let pause = Duration::from_millis(below(&self.rng, 8_000));
                node.env.clock.sleep(pause).await;
            }
            _ => self.produce(node, at).await,
        }
    }

    /// Sends to one or two partitions at once, patiently or not.
    async fn produce(&mut self, node: &Node, at: usize) {
        let mut indexes = vec![at];
        if one_in(&self.rng, 4) {
            indexes.push((at + 1) % self.parts.len());
        }
        let now_ms = node.env.clock.now_ms();
        let sent: Vec<_> = indexes.iter().map(|index| self.parts[*index].next_batch(&self.rng, &mut self.next_value, now_ms)).collect();
        let parts = indexes.iter().zip(&sent).map(|(index, sent)| ProducePartition {
            id: self.parts[*index].id,
            records: sent.bytes(),
            origin: AppendOrigin::Client,
        });
        let timeout = if one_in(&self.rng, 8) { Duration::from_millis(below(&self.rng, 3)) } else { Duration::from_secs(30) };
        let outcomes = node.replicas.append(-1, timeout, parts.collect()).await;
        for ((index, sent), outcome) in indexes.into_iter().zip(sent).zip(outcomes) {
            assert_eq!(outcome.id, self.parts[index].id);
            self.note(|| format!("produce {} of {}: {:?}", text(&sent.values[0]), outcome.id, outcome.result));
            let high_watermark = node.replicas.opened(outcome.id).map_or(-1, |partition| partition.offsets().high_watermark);
            if let Ok(info) = &outcome.result {
                self.coverage.duplicates += u64::from(info.duplicate);
                assert!(high_watermark > info.last_offset, "I3: acknowledged at {} with high watermark {high_watermark}", info.last_offset);
            }
            self.parts[index].answered(sent, &outcome.result, &mut self.next_producer);
        }
    }

    async fn delete_records(&mut self, node: &Node, at: usize) {
        let part = &mut self.parts[at];
        let Some(partition) = node.replicas.opened(part.id) else { return };
        let offsets = partition.offsets();
        let to = offsets.log_start + below(&self.rng, (offsets.high_watermark - offsets.log_start) as u64 / 2 + 1) as i64;
        part.deleted_to = part.deleted_to.max(to);
        let id = part.id;
        let result = node.replicas.delete_records(id, to).await;
        self.coverage.deleted += u64::from(result.is_ok());
        self.note(|| format!("delete records of {id} below {to}: {result:?}"));
    }

    /// The topic of a partition goes, and another comes in its place.
    async fn replace_topic(&mut self, at: usize) {
        let topic_id = self.parts[at].id.topic_id;
        self.world.metadata.delete_topic(topic_id).await.unwrap();
        self.parts.retain(|part| part.id.topic_id != topic_id);
        self.note(|| format!("topic {topic_id} is deleted"));
        self.add_topic().await;
    }

    /// A fetch from anywhere: what comes is right, whatever state the bucket is in.
    async fn read_somewhere(&mut self, node: &Node, at: usize) {
        let part = &mut self.parts[at];
        let Some(partition) = node.replicas.opened(part.id) else { return };
        let offsets = partition.offsets();
        let from = offsets.log_start + below(&self.rng, (offsets.log_end - offsets.log_start) as u64 + 1) as i64;
        let max_bytes = 200 + below(&self.rng, 8_000) as usize;
        let answer = node.fetch(fetch_params(max_bytes), &[(part.id, from)]).await.remove(0);
        match &answer.error {
            None => check_records(part, from, &answer_records(&answer)),
            Some(ReplicaError::OffsetOutOfRange { start, .. }) => {
                assert!(from < *start, "I28: offset {from} is out of range though the log starts at {start}");
            }
            Some(_) => {}
        }
        let (id, size, error) = (part.id, answer.size_bytes, answer.error);
        self.note(|| format!("fetch {id} from {from}: {size} bytes, {error:?}"));
    }

    /// What can be looked at from outside at any time.
    async fn observe(&mut self, node: &Node) {
        for index in 0..self.parts.len() {
            let id = self.parts[index].id;
            let Some(partition) = node.replicas.opened(id) else { continue };
            let offsets = partition.offsets();
            let extent = self.world.metadata.remote_extent(id).await.unwrap();
            let part = &mut self.parts[index];
            let context = format!("{id}: {offsets:?} {extent:?}");
            assert!(offsets.log_start <= offsets.last_stable && offsets.last_stable <= offsets.high_watermark, "I1: {context}");
            assert!(
                offsets.high_watermark <= offsets.log_end && offsets.log_start <= offsets.local_start.max(offsets.log_start),
                "I1: {context}"
            );
            assert!(offsets.local_start <= extent.remote_end.max(extent.log_start), "I26: {context}");
            assert!(extent.remote_end <= offsets.high_watermark.max(extent.log_start), "I22: {context}");
            assert!(offsets.log_start <= extent.log_start, "I28: metadata first: {context}");
            assert!(extent.log_start >= part.log_start && extent.remote_end >= part.remote_end, "the extent never goes back: {context}");
            assert!(offsets.high_watermark >= part.acked_end, "I3: acknowledged up to {}: {context}", part.acked_end);
            if extent.log_start > part.log_start.max(part.deleted_to) {
                self.coverage.expired += 1;
                assert!(part.retention_bytes >= 0, "I27: nothing of this topic expires: {context}");
                // Batches that nobody was told of may be among what is left.
                let unknown_may_be_there = !part.maybe.is_empty() || part.producer.unknown.is_some();
                let left = part.known_bytes(extent.log_start);
                assert!(left >= part.retention_bytes as u64 || unknown_may_be_there, "I27: {left} bytes left: {context}");
            }
            part.log_start = extent.log_start;
            part.remote_end = extent.remote_end;
        }
        self.check_bucket().await;
    }

    /// The committed rows of every partition follow each other and their objects are there, whole; and no object ever changed.
    async fn check_bucket(&mut self) {
        let objects = self.world.bucket.objects.lock().clone();
        for (key, bytes) in &objects {
            match self.objects.get(key) {
                Some(known) => assert!(known == bytes, "I23: object {key} was overwritten"),
                None => drop(self.objects.insert(key.clone(), bytes.clone())),
            }
        }
        self.coverage.collected += self.objects.keys().filter(|key| !objects.contains_key(*key)).count() as u64;
        for part in &self.parts {
            let extent = self.world.metadata.remote_extent(part.id).await.unwrap();
            // Folded rows are read from the bucket, which may not answer just now.
            let Ok(rows) = self.world.metadata.list_segments(part.id, extent.remote_start, 10_000).await else { continue };
            let mut expected = None;
            for row in &rows {
                let object = objects.get(&row.object_key);
                let sound = object.is_some_and(|object| {
                    object.len() as u64 == row.object_bytes && checksum(CrcAlgorithm::Crc64Nvme, object) == row.checksum
                });
                assert!(sound, "I24, I29: committed, but the object is missing or wrong: {row:?}");
                assert!(expected.is_none_or(|next| next == row.base_offset || row.base_offset <= extent.log_start), "I25: {rows:#?}");
                expected = Some(row.last_offset + 1);
            }
            assert_eq!(expected.unwrap_or(extent.remote_end), extent.remote_end, "I25: {extent:?} {rows:#?}");
            let mut keys: Vec<_> = rows.iter().map(|row| &row.object_key).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), rows.len(), "I23: {rows:#?}");
        }
    }

    /// After the end of a life: the disk that the next one finds.
    async fn end(&mut self, ended: Ending) {
        self.note(|| format!("ended: {ended:?}"));
        self.fs = match ended {
            // A clean stop has to last through a power loss, too.
            Ending::PowerLoss | Ending::Clean => self.fs.crash(&self.rng),
            Ending::Kill => self.fs.kill(),
            Ending::DiskLost => {
                self.disk_lost = true;
                for part in &mut self.parts {
                    let extent = self.world.metadata.remote_extent(part.id).await.unwrap();
                    part.lose_disk(extent.remote_end.max(extent.log_start));
                }
                SimFs::new()
            }
        };
        // Long enough for intents to expire now and then (I29).
        if one_in(&self.rng, 3) {
            self.world.jump(Duration::from_secs(5 * 3_600));
        }
    }

    /// A last life without faults: everything that was promised is read back, in order, once.
    async fn settle(&mut self) {
        self.mend_bucket();
        let config = ReplicaConfig { data_dir_was_empty: self.disk_lost, ..replica_config() };
        let node = Node::try_start(&self.world, &self.fs, 7, config).await.expect("starts");
        for index in 0..self.parts.len() {
            let id = self.parts[index].id;
            node.wait_for("the partition", LONG, |node| node.replicas.opened(id).is_some()).await;
            while let Some(unknown) = self.parts[index].producer.unknown.clone() {
                let result = node.produce(id, unknown.bytes(), LONG).await;
                self.note(|| format!("at last {id}: {result:?}"));
                self.parts[index].answered(unknown, &result, &mut self.next_producer);
            }
        }
        node.wait_for("uploads", LONG, |node| node.replicas.upload_lag_bytes() == 0).await;
        self.observe(&node).await;
        for index in 0..self.parts.len() {
            self.read_all(&node, index).await;
        }
        self.count(&node);
        node.stop().await.expect("stops");
    }

    async fn read_all(&mut self, node: &Node, index: usize) {
        let id = self.parts[index].id;
        let partition = node.replicas.opened(id).unwrap();
        let mut next = partition.offsets().log_start;
        let mut values = BTreeSet::new();
        let mut epoch = -1;
        while next < partition.offsets().high_watermark {
            let params = FetchParams { max_wait: LONG, ..fetch_params(100 + below(&self.rng, 10_000) as usize) };
            let answer = node.fetch(params, &[(id, next)]).await.remove(0);
            let log_start = partition.offsets().log_start;
            if answer.error.is_some() && log_start > next {
                next = log_start;
                continue;
            }
            assert!(answer.error.is_none(), "{id} at {next}: {:?}", answer.error);
            let records = answer_records(&answer);
            check_records(&mut self.parts[index], next, &records);
            let from = next;
            for (offset, record_epoch, value) in records.into_iter().filter(|(offset, _, _)| *offset >= from) {
                assert_eq!(offset, next, "I31: no gap in {id}");
                assert!(record_epoch >= epoch, "I7: epochs of {id} at {offset}");
                assert!(values.insert(value), "I8: stored twice in {id} at {offset}");
                (next, epoch) = (offset + 1, record_epoch);
            }
        }
        assert!(next >= self.parts[index].acked_end, "I3: {id} ends at {next}, acknowledged up to {}", self.parts[index].acked_end);
        self.note(|| format!("read {id} to {next}"));
    }
}

/// Records of an answer are what was acknowledged, or what may be there.
fn check_records(part: &mut Part, from: i64, records: &[(i64, i32, Vec<u8>)]) {
    assert!(records.is_empty() || records.iter().any(|(offset, _, _)| *offset == from), "the answer holds the offset that was asked for");
    for (offset, _, value) in records {
        if part.records.contains_key(offset) || *offset < part.log_start {
            if part.records.contains_key(offset) {
                part.seen(*offset, value.clone());
            }
            continue;
        }
        assert!(part.may_hold(value), "{}: at {offset} lies {}, which was never sent or is elsewhere", part.id, text(value));
        part.seen(*offset, value.clone());
    }
}

#[derive(PartialEq)]
struct Outcome {
    coverage: Coverage,
    trace: Vec<String>,
    disk: Vec<(PathBuf, Option<Vec<u8>>)>,
    objects: BTreeMap<String, Bytes>,
}

/// Runs a seed; what happened, and what disk and bucket hold in the end.
fn run(seed: u64) -> Outcome {
    simulated(async {
        let mut sim = Sim::new(seed).await;
        for _ in 0..2 {
            sim.add_topic_once_registered().await;
        }
        for _ in 0..LIVES {
            let ended = sim.live().await;
            sim.end(ended).await;
        }
        sim.settle().await;
        sim.world.env.tasks.shutdown(LONG).await;
        let objects = sim.world.bucket.objects.lock().clone();
        Outcome { coverage: sim.coverage, trace: sim.trace, disk: sim.fs.dump(), objects }
    })
}

impl Sim {
    /// A topic needs a broker that is up.
    async fn add_topic_once_registered(&mut self) {
        let epoch = register(&self.world).await;
        self.world.metadata.heartbeat(BROKER, epoch, false).await.expect("a heartbeat");
        self.add_topic().await;
    }
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds() -> std::ops::Range<u64> {
    if let Some(seed) = from_env("SILTSTONE_SIM_SEED") {
        return seed..seed + 1;
    }
    let range = std::env::var("SILTSTONE_SIM_SEEDS").ok();
    let range = range.as_deref().and_then(|text| text.split_once("..")).and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or(0..from_env("SILTSTONE_SIM_SEEDS").unwrap_or(SEEDS))
}

#[test]
fn what_was_promised_is_there_whatever_happens() {
    let (mut failed, mut coverage) = (Vec::new(), Coverage::default());
    for seed in seeds() {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(outcome) => coverage.add(&outcome.coverage),
            Err(_) => failed.push(seed),
        }
    }
    assert!(
        coverage.counts().iter().all(|count| *count > 0) || seeds().count() < SEEDS as usize,
        "not everything took place: {coverage:?}"
    );
    eprintln!("{coverage:?}");
    assert!(failed.is_empty(), "seeds {failed:?} failed: SILTSTONE_SIM_SEED=n cargo test -p siltstone-replica --test whole_path");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..2 {
        let (first, second) = (run(seed), run(seed));
        for (a, b) in first.trace.iter().zip(&second.trace) {
            assert_eq!(a, b, "seed {seed}");
        }
        assert!(first == second, "seed {seed}");
    }
}
