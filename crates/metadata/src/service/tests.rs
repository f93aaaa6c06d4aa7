//! The service as its users see it, on both providers.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use siltstone_common::fs::{FileSystem, OpenMode, RealFs};

use super::*;
use crate::quotas::QuotaEntity;
use crate::segments::SegmentState;
use crate::store::conformance::eventually;
use crate::store::{LeaseId, MemoryStore, Page, Range, RedbStore, Row, StoreError, StoreWatch};

fn broker(id: i32) -> RegisterBroker {
    RegisterBroker {
        id,
        host: "127.0.0.1".into(),
        port: 9092,
        rack: None,
        clean_shutdown: true,
        directory: uuid::Uuid::from_u128(u128::try_from(id).unwrap() + 1),
    }
}

fn topic(name: &str, partitions: i32) -> CreateTopic {
    CreateTopic { name: name.into(), partitions, replication_factor: -1, ..CreateTopic::default() }
}

async fn open(store: Arc<dyn MetadataStore>) -> Arc<MetadataService> {
    MetadataService::open(store, replicating(), Env::system()).await.unwrap()
}

async fn with_broker(store: Arc<dyn MetadataStore>) -> (Arc<MetadataService>, i64) {
    let service = open(store).await;
    let epoch = service.register_broker(broker(1)).await.unwrap();
    service.heartbeat(1, epoch, false).await.unwrap();
    (service, epoch)
}

fn segment(id: TopicIdPartition, base: i64, last: i64) -> SegmentRow {
    SegmentRow {
        id,
        base_offset: base,
        last_offset: last,
        max_timestamp_ms: 1000 + last,
        leader_epoch: 0,
        attempt: uuid::Uuid::from_u128(u128::try_from(base).unwrap() + 1),
        object_key: format!("{id}/{base}"),
        object_bytes: 120,
        data_bytes: 100,
        checksum: 7,
        has_aborts: false,
        generation: 0,
        appended_ms: -1,
        state: SegmentState::Intent { deadline_ms: i64::MAX },
    }
}

#[tokio::test]
async fn a_change_shows_in_the_image_when_its_call_returns_and_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(RedbStore::open(dir.path(), Env::system()).await.unwrap());
    let (service, epoch) = with_broker(store.clone()).await;
    assert_eq!(service.image().cluster_id.len(), 22);
    let made = service.create_topic(topic("orders", 3)).await.unwrap();
    let image = service.image();
    assert_eq!(image.topic("orders").unwrap(), &made);
    assert_eq!(made.partitions.len(), 3);
    assert!(made.partitions.iter().all(|p| p.leader == 1 && p.isr == [1] && p.leader_epoch == 0));
    assert_eq!(service.create_topic(topic("orders", 3)).await, Err(MetadataError::TopicExists("orders".into())));
    service.create_partitions(made.id, 5, vec![], false).await.unwrap();
    assert_eq!(service.image().topic("orders").unwrap().partitions.len(), 5);
    let set = ConfigOp::Set("retention.ms".into(), "1000".into());
    service.alter_configs(ConfigResource::Topic("orders".into()), vec![set], false).await.unwrap();
    assert_eq!(service.allocate_producer_ids(1, epoch).await, Ok((0, 1000)));
    assert_eq!(service.allocate_producer_ids(1, epoch).await, Ok((1000, 1000)));
    assert_eq!(service.allocate_producer_ids(1, epoch - 1).await, Err(MetadataError::StaleBrokerEpoch));
    let before = service.image();
    let again = open(store).await;
    let after = again.image();
    assert!(after.revision >= before.revision);
    assert_eq!(
        (&after.cluster_id, &after.brokers, &after.topics, &after.topic_ids),
        (&before.cluster_id, &before.brokers, &before.topics, &before.topic_ids)
    );
    assert_eq!(again.allocate_producer_ids(1, epoch).await, Ok((2000, 1000)));
    assert!(matches!(service.delete_topic(made.id).await, Err(MetadataError::Unavailable(_))), "the replaced service is fenced");
    again.delete_topic(made.id).await.unwrap();
    assert!(again.image().topic("orders").is_none());
}

#[tokio::test]
async fn a_broker_that_comes_back_leads_its_partitions_again_with_a_higher_epoch() {
    let (service, epoch) = with_broker(Arc::new(MemoryStore::new(Env::system()))).await;
    let made = service.create_topic(topic("t", 2)).await.unwrap();
    for clean in [true, false] {
        let id = TopicIdPartition::new(made.id, 0);
        let before = service.image().partition(id).unwrap().clone();
        let again = service.register_broker(RegisterBroker { clean_shutdown: clean, ..broker(1) }).await.unwrap();
        assert!(again > epoch);
        assert_eq!(service.image().partition(id).unwrap().leader, -1);
        assert_eq!(service.heartbeat(1, epoch, false).await, Err(MetadataError::StaleBrokerEpoch));
        service.heartbeat(1, again, false).await.unwrap();
        let after = service.image().partition(id).unwrap().clone();
        assert_eq!((after.leader, &after.isr[..], after.elr.len()), (1, &[1][..], 0));
        assert!(after.leader_epoch > before.leader_epoch, "I9");
    }
}

/// As Kafka's DUPLICATE_BROKER_REGISTRATION; a restart on the same data directory does not wait for the old session.
#[tokio::test(start_paused = true)]
async fn a_second_process_does_not_take_the_place_of_one_with_a_session() {
    let env = Env::simulated(1, Arc::new(RealFs));
    let service = MetadataService::open(Arc::new(MemoryStore::new(env.clone())), replicating(), env.clone()).await.unwrap();
    let epoch = service.register_broker(broker(1)).await.unwrap();
    service.heartbeat(1, epoch, false).await.unwrap();
    for directory in [uuid::Uuid::from_u128(99), uuid::Uuid::nil()] {
        let other = RegisterBroker { host: "elsewhere".into(), directory, ..broker(1) };
        assert_eq!(service.register_broker(other).await, Err(MetadataError::DuplicateBroker));
    }
    service.heartbeat(1, epoch, false).await.unwrap();
    let again = service.register_broker(broker(1)).await.unwrap();
    assert_eq!(service.heartbeat(1, epoch, false).await, Err(MetadataError::StaleBrokerEpoch), "the old process is fenced");
    service.heartbeat(1, again, false).await.unwrap();
    // Its session ends: whoever comes is let in.
    env.clock.sleep(Duration::from_secs(20)).await;
    let other = RegisterBroker { directory: uuid::Uuid::nil(), ..broker(1) };
    let unknown = service.register_broker(other.clone()).await.unwrap();
    assert!(unknown > again);
    service.heartbeat(1, unknown, false).await.unwrap();
    assert_eq!(service.register_broker(other).await, Err(MetadataError::DuplicateBroker), "an unknown directory is nobody's");
}

#[tokio::test]
async fn segments_go_from_intent_to_commit_to_garbage() {
    let (service, _) = with_broker(Arc::new(MemoryStore::new(Env::system()))).await;
    let made = service.create_topic(topic("t", 1)).await.unwrap();
    let id = TopicIdPartition::new(made.id, 0);
    for base in [0, 10, 20] {
        let row = segment(id, base, base + 9);
        service.segment_intent(row.clone()).await.unwrap();
        service.segment_commit(row.clone()).await.unwrap();
        service.segment_commit(row).await.unwrap();
    }
    let extent = service.remote_extent(id).await.unwrap();
    assert_eq!((extent.remote_start, extent.remote_end, extent.segments, extent.remote_bytes), (0, 30, 3, 300));
    let gap = segment(id, 40, 49);
    service.segment_intent(gap.clone()).await.unwrap();
    assert_eq!(service.segment_commit(gap.clone()).await, Err(MetadataError::NotContiguous { base_offset: 40, expected: 30 }));
    let base = |row: Option<SegmentRow>| row.map(|row| row.base_offset);
    assert_eq!(base(service.find_segment(id, 15).await.unwrap()), Some(10));
    assert_eq!(base(service.find_segment(id, 30).await.unwrap()), None);
    assert_eq!(base(service.find_segment_by_time(id, 1010).await.unwrap()), Some(10));
    service.raise_log_start(id, 0, 15).await.unwrap();
    let extent = service.remote_extent(id).await.unwrap();
    assert_eq!((extent.log_start, extent.remote_start, extent.remote_end, extent.segments), (15, 10, 30, 2));
    assert_eq!(service.raise_log_start(id, 1, 15).await, Err(MetadataError::Conflict("leader epoch is 0, not 1".into())));
    let garbage = service.garbage(0, 10).await.unwrap();
    assert_eq!(garbage.iter().map(|row| row.base_offset).collect::<Vec<_>>(), [0]);
    assert_eq!(service.garbage(60_000, 10).await.unwrap(), []);
    service.forget(garbage).await.unwrap();
    assert_eq!(service.garbage(0, 10).await.unwrap(), []);
    service.delete_topic(made.id).await.unwrap();
    assert_eq!(service.remote_extent(id).await, Err(MetadataError::UnknownTopicId(made.id)));
    let garbage = service.garbage(0, 10).await.unwrap();
    assert_eq!(
        garbage.iter().map(|row| row.base_offset).collect::<Vec<_>>(),
        [10, 20],
        "rows of a deleted topic; an upload under way may make its object yet"
    );
    service.forget(garbage).await.unwrap();
    assert_eq!(service.garbage(0, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_cleaned_segment_takes_the_place_of_whole_ones_at_once() {
    let (service, _) = with_broker(Arc::new(MemoryStore::new(Env::system()))).await;
    let made = service.create_topic(topic("t", 1)).await.unwrap();
    let id = TopicIdPartition::new(made.id, 0);
    let commit = async |base, last, data_bytes| {
        let row = SegmentRow {
            data_bytes,
            attempt: uuid::Uuid::from_u128(u128::from(data_bytes) << 64 | last as u128),
            ..segment(id, base, last)
        };
        service.segment_intent(row.clone()).await.unwrap();
        service.segment_commit(row).await
    };
    for base in [0, 10, 20, 30] {
        commit(base, base + 9, 50).await.unwrap();
    }
    for (base, last) in [(0, 15), (5, 19), (12, 29)] {
        assert!(matches!(commit(base, last, 1).await, Err(MetadataError::NotContiguous { .. })), "{base} to {last} cuts through segments");
    }
    commit(10, 29, 30).await.unwrap();
    let rows = service.list_segments(id, 0, 10).await.unwrap();
    let ranges: Vec<_> = rows.iter().map(|row| (row.base_offset, row.last_offset, row.data_bytes)).collect();
    assert_eq!(ranges, [(0, 9, 50), (10, 29, 30), (30, 39, 50)]);
    let extent = service.remote_extent(id).await.unwrap();
    assert_eq!((extent.remote_start, extent.remote_end, extent.segments, extent.remote_bytes), (0, 40, 3, 130));
    // In its own place again, and across what the log start has taken.
    commit(10, 29, 20).await.unwrap();
    service.raise_log_start(id, 0, 12).await.unwrap();
    commit(0, 29, 10).await.unwrap();
    let extent = service.remote_extent(id).await.unwrap();
    assert_eq!((extent.log_start, extent.remote_start, extent.remote_end, extent.segments, extent.remote_bytes), (12, 0, 40, 2, 60));
    let mut garbage: Vec<_> = service.garbage(0, 20).await.unwrap().iter().map(|row| (row.base_offset, row.data_bytes)).collect();
    garbage.sort_unstable();
    assert_eq!(garbage, [(0, 50), (10, 20), (10, 30), (10, 50), (20, 50)], "I29: what was replaced goes after the grace");
}

/// A store that stops answering after some transactions, as if the process had died: the next one may or may not have happened.
#[derive(Debug)]
struct DyingStore {
    inner: MemoryStore,
    left: AtomicUsize,
    last_one_happens: bool,
}

fn dead<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("died".into()))
}

#[async_trait]
impl MetadataStore for DyingStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Row>, StoreError> {
        self.inner.get(key).await
    }
    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Row>>, StoreError> {
        self.inner.get_many(keys).await
    }
    async fn range(&self, range: Range) -> Result<Page, StoreError> {
        self.inner.range(range).await
    }
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(1) if self.last_one_happens => {
                self.inner.txn(txn).await?;
                dead()
            }
            Ok(left) if left > 1 => self.inner.txn(txn).await,
            _ => dead(),
        }
    }
    async fn watch(&self, revision: u64) -> Result<StoreWatch, StoreError> {
        self.inner.watch(revision).await
    }
    async fn grant_lease(&self, _: Duration) -> Result<LeaseId, StoreError> {
        dead()
    }
    async fn keep_alive(&self, _: LeaseId) -> Result<(), StoreError> {
        dead()
    }
    async fn revoke(&self, _: LeaseId) -> Result<(), StoreError> {
        dead()
    }
}

fn same(left: &MetadataImage, right: &MetadataImage) -> bool {
    (&left.cluster_id, &left.brokers, &left.topics, &left.topic_ids, &left.broker_configs, &left.group_configs)
        == (&right.cluster_id, &right.brokers, &right.topics, &right.topic_ids, &right.broker_configs, &right.group_configs)
}

/// Brokers that keep replicas, which the controller is made for.
fn replicating() -> MetadataServiceConfig {
    MetadataServiceConfig { replicas_max: 3, ..MetadataServiceConfig::default() }
}

/// Everything a small cluster does, up to the first failure.
async fn scenario(service: &MetadataService) -> Result<(), MetadataError> {
    for id in [1, 2] {
        let epoch = service.register_broker(broker(id)).await?;
        service.heartbeat(id, epoch, false).await?;
    }
    let asked = |name: &str| CreateTopic { replication_factor: 2, ..topic(name, 300) };
    let doomed = service.create_topic(asked("doomed")).await?;
    service.create_topic(asked("kept")).await?;
    service.delete_topic(doomed.id).await?;
    let set = ConfigOp::Set("min.insync.replicas".into(), "2".into());
    service.alter_configs(ConfigResource::Topic("kept".into()), vec![set], false).await?;
    let epoch = service.register_broker(RegisterBroker { clean_shutdown: false, ..broker(1) }).await?;
    service.heartbeat(1, epoch, false).await.map(|_| ())
}

#[tokio::test]
async fn dying_at_any_transaction_leaves_a_store_that_opens_to_a_whole_image() {
    let mut ended = false;
    for left in 1.. {
        for last_one_happens in [false, true] {
            let inner = MemoryStore::new(Env::system());
            let store = Arc::new(DyingStore { inner: inner.clone(), left: AtomicUsize::new(left), last_one_happens });
            let Ok(service) = MetadataService::open(store, replicating(), Env::system()).await else { continue };
            ended = scenario(&service).await.is_ok();
            // What was written shows in the image in the end, though its caller got an error.
            let again = open(Arc::new(inner)).await;
            eventually(|| async { same(&service.image(), &again.image()) }).await;
            for topic in again.image().topics.values() {
                assert_eq!(topic.partitions.len(), 300, "a topic is there with all its partitions, or not at all");
                let fenced = |id: i32| again.image().brokers[&id].fenced;
                assert!(topic.partitions.iter().all(|p| p.leader >= 0 && !fenced(p.leader)), "a leader wherever one can be");
            }
        }
        if ended {
            break;
        }
    }
    assert!(ended);
}

#[tokio::test]
async fn a_store_that_was_killed_opens_from_what_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (service, _) = with_broker(Arc::new(RedbStore::open(dir.path(), Env::system()).await.unwrap())).await;
    for round in 0..5 {
        service.create_topic(topic(&format!("t{round}"), 3)).await.unwrap();
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join("metadata.redb"), copy.path().join("metadata.redb")).unwrap();
        let again = open(Arc::new(RedbStore::open(copy.path(), Env::system()).await.unwrap())).await;
        assert!(same(&service.image(), &again.image()), "after {round} topics");
    }
}

fn garbage(path: &std::path::Path) {
    RealFs.open(path, OpenMode::CreateNew).unwrap().write_all_at(&[7; 10_000], 0).unwrap();
}

#[tokio::test]
async fn a_damaged_store_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    garbage(&dir.path().join("metadata.redb"));
    let error = RedbStore::open(dir.path(), Env::system()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Open(text) if text.contains("move it away")), "{error}");
    // A file that was still being made when the process died is made anew.
    let dir = tempfile::tempdir().unwrap();
    garbage(&dir.path().join("metadata.redb.new"));
    RedbStore::open(dir.path(), Env::system()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_broker_without_heartbeats_is_fenced_and_one_with_heartbeats_is_not() {
    let env = Env::simulated(1, Arc::new(RealFs));
    let service = MetadataService::open(Arc::new(MemoryStore::new(env.clone())), replicating(), env).await.unwrap();
    let mut epochs = Vec::new();
    for id in [1, 2] {
        let epoch = service.register_broker(broker(id)).await.unwrap();
        service.heartbeat(id, epoch, false).await.unwrap();
        epochs.push(epoch);
    }
    let made = service.create_topic(CreateTopic { replication_factor: 2, ..topic("t", 4) }).await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        service.heartbeat(1, epochs[0], false).await.unwrap();
    }
    let image = service.image();
    assert!(!image.brokers[&1].fenced && image.brokers[&2].fenced);
    assert!(image.topics[&made.id].partitions.iter().all(|p| p.leader == 1 && p.isr == [1]));
    service.heartbeat(2, epochs[1], false).await.unwrap();
    assert!(!service.image().brokers[&2].fenced, "a late heartbeat of the same epoch unfences");
}

#[tokio::test]
async fn a_dropped_call_still_happens_as_a_whole() {
    let (service, _) = with_broker(Arc::new(MemoryStore::new(Env::system()))).await;
    let call = service.create_topic(topic("t", 3));
    assert!(futures::FutureExt::now_or_never(call).is_none());
    eventually(|| async { service.image().topic("t").is_some_and(|topic| topic.partitions.len() == 3) }).await;
}

/// Brokers do not copy from each other yet: nobody is promised a replica that would stay empty (I3).
#[tokio::test]
async fn a_replica_that_nobody_fills_is_refused() {
    let service =
        MetadataService::open(Arc::new(MemoryStore::new(Env::system())), MetadataServiceConfig::default(), Env::system()).await.unwrap();
    for id in [1, 2] {
        let epoch = service.register_broker(broker(id)).await.unwrap();
        service.heartbeat(id, epoch, false).await.unwrap();
    }
    let refused = |error: MetadataError| match error {
        MetadataError::InvalidReplicationFactor(text) => text,
        other => panic!("{other:?}"),
    };
    let text = refused(service.create_topic(CreateTopic { replication_factor: 2, ..topic("t", 1) }).await.unwrap_err());
    assert!(text.contains("Use a replication factor of 1"), "{text}");
    let manual = CreateTopic { assignments: [(0, vec![1, 2])].into(), partitions: -1, replication_factor: -1, ..topic("t", 1) };
    refused(service.create_topic(manual).await.unwrap_err());
    service.create_topic(topic("t", 1)).await.unwrap();
}

/// What the store can't take is refused for good: a client that tries again would do so until its time is over.
#[tokio::test]
async fn a_change_that_is_too_large_is_refused_for_good() {
    let (service, _) = with_broker(Arc::new(MemoryStore::new(Env::system()))).await;
    let name = "x".repeat(1_000);
    let entity = QuotaEntity::of([(crate::quotas::USER, Some(name.as_str())), (crate::quotas::CLIENT_ID, Some(name.as_str()))]);
    let ops = BTreeMap::from([(crate::quotas::PRODUCER_BYTE_RATE.to_owned(), Some(1.0))]);
    let refused = service.administer(AdminChange::Quotas { entity, ops }, false).await.unwrap_err();
    assert!(matches!(refused, MetadataError::PolicyViolation(_)) && !refused.retryable(), "{refused}");
}
