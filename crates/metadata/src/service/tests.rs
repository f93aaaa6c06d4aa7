//! The service as its users see it, on both providers.

use super::*;
use crate::segments::SegmentState;
use crate::store::{MemoryStore, RedbStore};

fn broker(id: i32) -> RegisterBroker {
    RegisterBroker { id, host: "127.0.0.1".into(), port: 9092, rack: None, clean_shutdown: true }
}

fn topic(name: &str, partitions: i32) -> CreateTopic {
    CreateTopic { name: name.into(), partitions, replication_factor: -1, ..CreateTopic::default() }
}

async fn open(store: Arc<dyn MetadataStore>) -> Arc<MetadataService> {
    MetadataService::open(store, MetadataServiceConfig::default(), Env::system()).await.unwrap()
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
    assert_eq!(garbage.iter().map(|row| row.base_offset).collect::<Vec<_>>(), [10, 20, 40], "rows and intents of a deleted topic");
    service.forget(garbage).await.unwrap();
    assert_eq!(service.garbage(0, 10).await.unwrap(), []);
}
