//! The rows of version 1 must parse for ever: `rows-v1.golden` holds what a small cluster wrote.

use std::sync::Arc;

use siltstone_common::fs::{FileSystem, OpenMode, RealFs};
use siltstone_common::{Env, TopicIdPartition};

use crate::acls::{AclBinding, AclBindingFilter, AclOperation, AclPermissionType, PatternFilter, PatternType, ResourceType};
use crate::api::{AdminChange, ConfigOp, ConfigResource, CreateTopic, MetadataApi, RegisterBroker};
use crate::features::{FEATURES, FeatureUpdate, UpgradeType};
use crate::quotas::{CLIENT_ID, QuotaEntity, USER};
use crate::segments::{SegmentRow, SegmentState};
use crate::service::{MetadataService, MetadataServiceConfig};
use crate::store::{MemoryStore, MetadataStore, Range, Txn, Write};

const GOLDEN: &str = include_str!("rows-v1.golden");

async fn open(store: &MemoryStore, env: &Env) -> Arc<MetadataService> {
    MetadataService::open(
        Arc::new(store.clone()),
        MetadataServiceConfig { replicas_max: 2, ..MetadataServiceConfig::default() },
        env.clone(),
    )
    .await
    .unwrap()
}

fn segment(id: TopicIdPartition, base_offset: i64, deadline_ms: i64) -> SegmentRow {
    SegmentRow {
        id,
        base_offset,
        last_offset: base_offset + 99,
        max_timestamp_ms: 1_700_000_000_123,
        leader_epoch: 0,
        attempt: uuid::Uuid::from_u128(u128::try_from(base_offset).unwrap()),
        object_key: format!("data/{base_offset}"),
        object_bytes: 5000,
        data_bytes: 4000,
        checksum: u64::MAX - 1,
        has_aborts: base_offset == 0,
        generation: 0,
        appended_ms: -1,
        state: SegmentState::Intent { deadline_ms },
    }
}

/// One of every kind of row.
async fn small_cluster(service: &MetadataService) {
    for id in [1, 2] {
        let rack = (id == 2).then(|| "b".to_owned());
        let broker = RegisterBroker { id, host: format!("host{id}"), port: 9092, rack, clean_shutdown: true, directory: uuid::Uuid::nil() };
        let epoch = service.register_broker(broker).await.unwrap();
        service.heartbeat(id, epoch, false).await.unwrap();
        service.allocate_producer_ids(id, epoch).await.unwrap();
    }
    let asked = |name: &str| CreateTopic { name: name.into(), partitions: 130, replication_factor: 2, ..CreateTopic::default() };
    let orders = service.create_topic(asked("orders")).await.unwrap();
    let doomed = service.create_topic(asked("doomed")).await.unwrap();
    service.delete_topic(doomed.id).await.unwrap();
    let set = |name: &str, value: &str| vec![ConfigOp::Set(name.into(), value.into())];
    service.alter_configs(ConfigResource::Topic("orders".into()), set("retention.ms", "1000"), false).await.unwrap();
    service.alter_configs(ConfigResource::Broker(String::new()), set("message.max.bytes", "2000"), false).await.unwrap();
    service.alter_configs(ConfigResource::Group("g/\u{e9}".into()), set("consumer.session.timeout.ms", "50000"), false).await.unwrap();
    service.alter_configs(ConfigResource::ClientMetrics("m".into()), set("interval.ms", "1000"), false).await.unwrap();
    let entity = QuotaEntity::of([(USER, Some("a/\"\u{e9}")), (CLIENT_ID, None)]);
    let ops = [("producer_byte_rate".to_owned(), Some(1048576.0))].into();
    service.administer(AdminChange::Quotas { entity, ops }, false).await.unwrap();
    let acl = |name: &str| AclBinding {
        resource_type: ResourceType::TransactionalId,
        resource_name: name.into(),
        pattern_type: PatternType::Prefixed,
        principal: "User:a/\"\u{e9}".into(),
        host: "*".into(),
        operation: AclOperation::DescribeConfigs,
        permission_type: AclPermissionType::Deny,
    };
    assert_eq!(service.create_acls(vec![acl("pay/-"), acl("gone")]).await.unwrap(), [Ok(()), Ok(())]);
    let gone = AclBindingFilter {
        resource_type: None,
        resource_name: Some("gone".into()),
        pattern: PatternFilter::Any,
        principal: None,
        host: None,
        operation: None,
        permission_type: None,
    };
    assert_eq!(service.delete_acls(vec![gone]).await.unwrap(), [[acl("gone")]]);
    let update = FeatureUpdate { name: FEATURES[0].name.into(), level: 0, upgrade: UpgradeType::SafeDowngrade };
    service.administer(AdminChange::Features(vec![update]), false).await.unwrap();
    let id = TopicIdPartition::new(orders.id, 129);
    for base in [0, 100, 200] {
        service.segment_intent(segment(id, base, i64::MAX)).await.unwrap();
        if base < 200 {
            service.segment_commit(segment(id, base, i64::MAX)).await.unwrap();
        }
    }
    service.raise_log_start(id, 0, 150).await.unwrap();
}

async fn dump(store: &MemoryStore) -> String {
    let page = store.range(Range { from: "".into(), to: vec![0xff].into(), limit: 1000, reverse: false }).await.unwrap();
    let line = |row: &crate::store::Row| format!("{}\t{}\n", String::from_utf8_lossy(&row.key), String::from_utf8_lossy(&row.value));
    page.rows.iter().map(line).collect()
}

#[tokio::test(start_paused = true)]
async fn rows_are_written_as_in_the_golden_file() {
    let env = Env::simulated(42, Arc::new(RealFs));
    let store = MemoryStore::new(env.clone());
    small_cluster(&*open(&store, &env).await).await;
    let rows = dump(&store).await;
    if let Ok(path) = std::env::var("SILTSTONE_WRITE_GOLDEN") {
        let file = RealFs.open(std::path::Path::new(&path), OpenMode::Truncate).unwrap();
        file.write_all_at(rows.as_bytes(), 0).unwrap();
    }
    for (row, golden) in rows.lines().zip(GOLDEN.lines()) {
        assert_eq!(row, golden, "the format of a row changed: raise its version and add a golden file");
    }
    assert_eq!(rows.lines().count(), GOLDEN.lines().count());
}

#[tokio::test(start_paused = true)]
async fn rows_of_version_1_still_make_the_same_cluster() {
    let env = Env::simulated(1, Arc::new(RealFs));
    let store = MemoryStore::new(env.clone());
    for line in GOLDEN.lines() {
        let (key, value) = line.split_once('\t').unwrap();
        store.txn(Txn { when: vec![], then: vec![Write::put(key.to_owned(), value.to_owned())] }).await.unwrap();
    }
    let service = open(&store, &env).await;
    let image = service.image();
    assert_eq!(image.cluster_id.len(), 22);
    assert_eq!((image.brokers[&2].rack.as_deref(), image.brokers[&1].host.as_str()), (Some("b"), "host1"));
    let orders = image.topic("orders").unwrap();
    assert!(orders.partitions.len() == 130 && orders.partitions.iter().all(|p| p.isr.len() == 2 && p.leader > 0));
    assert_eq!(orders.configs["retention.ms"], "1000");
    assert_eq!(image.broker_configs[""]["message.max.bytes"], "2000");
    assert_eq!(image.group_configs["g/\u{e9}"]["consumer.session.timeout.ms"], "50000");
    let acls: Vec<_> = image.acls.iter().map(|acl| (acl.resource_name, acl.principal, acl.operation)).collect();
    assert_eq!(acls, [("pay/-".to_owned(), "User:a/\"\u{e9}".to_owned(), AclOperation::DescribeConfigs)]);
    assert_eq!(service.allocate_producer_ids(1, image.brokers[&1].epoch).await.unwrap().0, 2000);
    let id = TopicIdPartition::new(orders.id, 129);
    let extent = service.remote_extent(id).await.unwrap();
    assert_eq!((extent.log_start, extent.remote_start, extent.remote_end, extent.segments, extent.remote_bytes), (150, 100, 200, 1, 4000));
    let committed = SegmentRow { state: SegmentState::Committed, ..segment(id, 100, 0) };
    assert_eq!(service.find_segment(id, 150).await.unwrap(), Some(committed));
    service.segment_commit(segment(id, 200, i64::MAX)).await.unwrap();
    assert_eq!(service.garbage(0, 10).await.unwrap().len(), 1);
}

#[test]
fn a_row_of_a_newer_release_is_refused() {
    let error = super::decode::<super::ProducerIdsRow>(b"producer-ids", b"{\"v\":2,\"next\":1}").err().unwrap();
    assert!(error.to_string().contains("newer"), "{error}");
}
