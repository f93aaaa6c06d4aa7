//! The segment map, with folding, against a model that is a list.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use siltstone_common::fs::RealFs;
use siltstone_common::{Env, TopicId};
use uuid::Uuid;

use super::*;
use crate::api::{CreateTopic, MetadataApi, RegisterBroker};
use crate::segments::index::IndexObjectError;
use crate::service::{MetadataService, MetadataServiceConfig};
use crate::store::{MemoryStore, MetadataStore, Range};

#[derive(Debug, Default)]
struct Bucket {
    objects: Mutex<HashMap<String, Bytes>>,
    down: AtomicBool,
}

impl Bucket {
    fn check(&self) -> Result<(), IndexObjectError> {
        if self.down.load(Ordering::SeqCst) { Err(IndexObjectError("the bucket is down".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl IndexObjects for Bucket {
    async fn put(&self, key: &str, bytes: Bytes, _: u64) -> Result<(), IndexObjectError> {
        self.check()?;
        assert!(self.objects.lock().insert(key.to_owned(), bytes).is_none(), "no object is overwritten (I23)");
        Ok(())
    }

    async fn get(&self, key: &str, size_bytes: u64) -> Result<Bytes, IndexObjectError> {
        self.check()?;
        let bytes = self.objects.lock().get(key).cloned().ok_or_else(|| IndexObjectError("no such object".into()))?;
        assert_eq!(bytes.len() as u64, size_bytes);
        Ok(bytes)
    }
}

struct World {
    map: SegmentMap,
    bucket: Arc<Bucket>,
    store: MemoryStore,
    service: Arc<MetadataService>,
    id: TopicIdPartition,
    /// Segments that should be committed.
    model: Vec<SegmentRow>,
    end: i64,
    log_start: i64,
    attempts: u128,
    /// Keys of objects that garbage collection was told to delete.
    collected: BTreeSet<String>,
}

const KEPT: u64 = 10;

impl World {
    async fn new() -> Self {
        let env = Env::simulated(5, Arc::new(RealFs));
        let store = MemoryStore::new(env.clone());
        let config = MetadataServiceConfig { broker_session_timeout: std::time::Duration::from_secs(1_000_000), ..Default::default() };
        let service = MetadataService::open(Arc::new(store.clone()), config, env.clone()).await.unwrap();
        let broker = RegisterBroker { id: 1, host: "h".into(), port: 1, clean_shutdown: true, ..RegisterBroker::default() };
        let epoch = service.register_broker(broker).await.unwrap();
        service.heartbeat(1, epoch, false).await.unwrap();
        let topic = CreateTopic { name: "t".into(), partitions: 1, replication_factor: 1, ..CreateTopic::default() };
        let id = TopicIdPartition::new(service.create_topic(topic).await.unwrap().id, 0);
        let bucket = Arc::new(Bucket::default());
        let map = SegmentMap::new(Arc::new(store.clone()), Some(bucket.clone()), (KEPT, FOLD_ROWS_MAX), env);
        let (model, collected) = (Vec::new(), BTreeSet::new());
        Self { map, bucket, store, service, id, model, end: 0, log_start: 0, attempts: 0, collected }
    }

    async fn commit(&mut self, records: i64, max_timestamp_ms: i64) {
        self.attempts += 1;
        let base_offset = self.end.max(self.log_start.min(self.end + 3));
        let row = SegmentRow {
            id: self.id,
            base_offset,
            last_offset: (base_offset + records - 1).max(self.log_start),
            max_timestamp_ms,
            leader_epoch: 0,
            attempt: Uuid::from_u128(self.attempts),
            object_key: format!("data/{}", self.attempts),
            object_bytes: 20,
            data_bytes: 10,
            checksum: 1,
            has_aborts: false,
            generation: 0,
            appended_ms: -1,
            state: SegmentState::Intent { deadline_ms: i64::MAX },
        };
        self.map.intent(row.clone()).await.unwrap();
        self.map.commit(row.clone()).await.unwrap();
        self.end = row.last_offset + 1;
        self.model.push(SegmentRow { state: SegmentState::Committed, ..row });
    }

    /// A cleaned segment takes the place of `count` of the model's from index `at` on.
    async fn replace(&mut self, at: usize, count: usize) -> Result<(), MetadataError> {
        let (first, last) = (self.model[at].clone(), self.model[at + count - 1].clone());
        self.attempts += 1;
        let row = SegmentRow {
            last_offset: last.last_offset,
            attempt: Uuid::from_u128(self.attempts),
            object_key: format!("data/{}", self.attempts),
            generation: first.generation + 1,
            state: SegmentState::Intent { deadline_ms: i64::MAX },
            ..first
        };
        self.map.intent(row.clone()).await?;
        self.map.commit(row.clone()).await?;
        self.model.splice(at..at + count, [SegmentRow { state: SegmentState::Committed, ..row }]);
        Ok(())
    }

    async fn quiet(&self) {
        while !self.map.folding.as_ref().unwrap().at_work.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    async fn raise(&mut self, offset: i64) {
        self.map.raise_log_start(self.id, 0, offset).await.unwrap();
        self.log_start = self.log_start.max(offset);
        let start = self.log_start;
        self.model.retain(|row| row.last_offset >= start);
    }

    async fn check(&self) {
        let probes: BTreeSet<i64> =
            self.model.iter().step_by(7).flat_map(|row| [row.base_offset, row.last_offset]).chain([0, self.end]).collect();
        for offset in probes {
            let expected = self.model.iter().find(|row| row.last_offset >= offset);
            assert_eq!(self.map.find(self.id, offset).await.unwrap().as_ref(), expected, "offset {offset}");
        }
        for timestamp in [-1, 0, 50, 99, 100] {
            let expected = self.model.iter().find(|row| row.max_timestamp_ms >= timestamp);
            assert_eq!(self.map.find_by_time(self.id, timestamp).await.unwrap().as_ref(), expected, "timestamp {timestamp}");
        }
        for (from, limit) in [(0, 1000), (self.end / 2, 70), (self.end / 3, 3)] {
            let expected: Vec<_> = self.model.iter().filter(|row| row.last_offset >= from).take(limit).cloned().collect();
            assert_eq!(self.map.list(self.id, from, limit).await.unwrap(), expected, "from {from}, {limit}");
        }
        let extent = self.map.extent(self.id).await.unwrap();
        assert_eq!((extent.segments, extent.remote_bytes), (self.model.len() as u64, 10 * self.model.len() as u64));
        assert_eq!((extent.log_start, extent.remote_end), (self.log_start, self.end));
        assert_eq!(extent.remote_start, self.model.first().map_or(self.end, |row| row.base_offset));
    }

    async fn collect(&mut self) {
        let gone = self.map.garbage(0, 1000).await.unwrap();
        for row in &gone {
            assert!(self.collected.insert(row.object_key.clone()), "nothing is collected twice");
            let live = |live: &SegmentRow| live.object_key == row.object_key && live.last_offset >= self.log_start;
            assert!(!self.model.iter().any(live), "nothing that is committed and above the log start is garbage (I28, I29)");
        }
        self.map.forget(gone).await.unwrap();
    }

    async fn rows(&self, prefix: &str) -> usize {
        self.store.range(Range::prefix(prefix.as_bytes())).await.unwrap().rows.len()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Commit { count: usize, records: i64, timestamp: i64 },
    Raise { percent: i64 },
    Replace { percent: usize, count: usize },
    Bucket { down: bool },
    Collect,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        5 => (1..120_usize, 1..5_i64, 0..100_i64).prop_map(|(count, records, timestamp)| Op::Commit { count, records, timestamp }),
        3 => (0..110_i64).prop_map(|percent| Op::Raise { percent }),
        1 => (0..100_usize, 1..20_usize).prop_map(|(percent, count)| Op::Replace { percent, count }),
        1 => any::<bool>().prop_map(|down| Op::Bucket { down }),
        1 => Just(Op::Collect),
    ];
    prop::collection::vec(op, 1..12)
}

async fn run(ops: Vec<Op>) {
    let (mut world, mut compacted) = (World::new().await, false);
    for op in ops {
        let commits = matches!(op, Op::Commit { .. });
        match op {
            Op::Commit { count, records, timestamp } => {
                for index in 0..count {
                    world.commit(records, (timestamp * (index as i64 + 3)) % 101).await;
                }
            }
            Op::Raise { percent } => {
                let start = world.log_start;
                world.raise(start + (world.end - start) * percent / 100).await;
            }
            Op::Replace { percent, count } if !world.model.is_empty() => {
                let down = world.bucket.down.load(Ordering::SeqCst);
                if !down {
                    world.raise(0).await;
                }
                let at = world.model.len() * percent / 100;
                let replaced = world.replace(at, count.min(world.model.len() - at)).await;
                assert!(replaced.is_ok() || (down && matches!(replaced, Err(MetadataError::Unavailable(_)))), "{replaced:?}");
                compacted = true;
            }
            Op::Replace { .. } => {}
            Op::Bucket { down } => world.bucket.down.store(down, Ordering::SeqCst),
            Op::Collect => world.collect().await,
        }
        world.quiet().await;
        if !world.bucket.down.load(Ordering::SeqCst) {
            // What a raise could not mark while the bucket was away is marked by the next.
            world.raise(0).await;
            world.check().await;
            // What could not be folded while the bucket was away is folded after the next commit.
            assert!(!commits || compacted || world.rows("segment/").await < 130, "old rows are folded");
        }
    }
    world.bucket.down.store(false, Ordering::SeqCst);
    world.service.delete_topic(world.id.topic_id).await.unwrap();
    let objects: BTreeSet<String> = world.bucket.objects.lock().keys().cloned().collect();
    world.model.clear();
    // Intents of folds that failed expire in time.
    tokio::time::advance(std::time::Duration::from_millis(INTENT_MS as u64 + 1)).await;
    for _ in 0..8 {
        world.collect().await;
    }
    assert!(objects.is_subset(&world.collected), "every index object is collected in the end");
    for prefix in ["segment/", "fold/", "intent/", "gone/", "extent/", "deleted/"] {
        assert_eq!(world.rows(prefix).await, 0, "{prefix}");
    }
    assert_eq!(world.collected.iter().filter(|key| key.starts_with("data/")).count() as u128, world.attempts);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_map_with_folds_behaves_like_a_list(ops in ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(ops));
    }
}

/// I6, of compaction: were the old rows kept because they are in an index object, deleted records would come back from the bucket.
#[tokio::test(start_paused = true)]
async fn a_cleaned_segment_takes_the_place_of_rows_that_are_in_index_objects() {
    let mut world = World::new().await;
    for index in 0..300 {
        world.commit(2, index % 100).await;
    }
    world.quiet().await;
    assert!(world.rows("fold/").await >= 4);
    world.replace(150, 30).await.unwrap();
    world.check().await;
    assert_eq!(world.rows("fold/").await, 2, "older ones stay");
    // Across two objects, and whole.
    world.replace(100, 40).await.unwrap();
    world.replace(0, 1).await.unwrap();
    world.check().await;
    for index in 0..300 {
        world.commit(2, index % 100).await;
    }
    world.quiet().await;
    assert_eq!(world.rows("fold/").await, 0, "what compaction works on is not folded again");
    world.check().await;
    world.collect().await;
}

#[tokio::test(start_paused = true)]
async fn lookups_while_rows_are_folded_never_skip_one() {
    let mut world = World::new().await;
    for index in 0..400 {
        world.commit(2, index).await;
        let offset = world.end / 2;
        let found = world.map.find(world.id, offset).await.unwrap().unwrap();
        assert!(found.base_offset <= offset && offset <= found.last_offset, "{offset} in {found:?}");
    }
    world.quiet().await;
    assert!(world.rows("fold/").await >= 5);
    let other = TopicIdPartition::new(TopicId(Uuid::from_u128(1)), 0);
    assert_eq!(world.map.find(other, 0).await.unwrap(), None);
    let without = SegmentMap::new(Arc::new(world.store.clone()), None, (KEPT, FOLD_ROWS_MAX), Env::simulated(1, Arc::new(RealFs)));
    assert!(matches!(without.find(world.id, 0).await, Err(MetadataError::Unavailable(_))), "not a wrong answer");
}

#[tokio::test(start_paused = true)]
async fn an_expired_intent_can_not_be_committed() {
    let mut world = World::new().await;
    world.commit(1, 1).await;
    let late = SegmentRow {
        base_offset: 1,
        last_offset: 1,
        attempt: Uuid::from_u128(99),
        object_key: "late".into(),
        state: SegmentState::Intent { deadline_ms: 0 },
        ..world.model[0].clone()
    };
    world.map.intent(late.clone()).await.unwrap();
    world.collect().await;
    assert!(world.collected.contains("late"));
    assert!(matches!(world.map.commit(late).await, Err(MetadataError::Conflict(_))), "I29");
    let stale = SegmentRow { leader_epoch: -1, ..world.model[0].clone() };
    let stale = SegmentRow { state: SegmentState::Intent { deadline_ms: 0 }, ..stale };
    assert_eq!(world.map.intent(stale).await, Err(MetadataError::FencedLeaderEpoch));
}
