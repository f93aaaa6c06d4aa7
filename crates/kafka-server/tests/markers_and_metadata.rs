//! A marker is left out only for what the metadata service itself does not know any more: the image of a broker may be behind (I19, I46).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use siltstone_common::Env;
use siltstone_coordinator::{MarkerOutcome, ProducerIdAndEpoch, TopicPartition, TransactionVersion, TxnMarker, TxnMarkerLog};
use siltstone_kafka_server::{ServerConfig, Services};
use siltstone_log::{LogManager, LogManagerConfig};
use siltstone_metadata::api::{CreateTopic, RegisterBroker};
use siltstone_metadata::{HttpMetadata, HttpMetadataConfig, MemoryStore, MetadataApi, MetadataService, MetadataServiceConfig, router};
use siltstone_replica::{ReplicaConfig, ReplicaManager};
use tokio::net::TcpListener;

const BROKER: i32 = 1;

async fn metadata_service() -> (Arc<MetadataService>, String) {
    // Nobody sends heartbeats.
    let config = MetadataServiceConfig { broker_session_timeout: Duration::from_secs(3_600), ..MetadataServiceConfig::default() };
    let service = MetadataService::open(Arc::new(MemoryStore::new(Env::system())), config, Env::system()).await.unwrap();
    let broker = RegisterBroker { id: BROKER, host: "localhost".to_owned(), port: 9092, clean_shutdown: true, ..RegisterBroker::default() };
    let epoch = service.register_broker(broker).await.unwrap();
    service.heartbeat(BROKER, epoch, false).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let served = router(service.clone());
    tokio::spawn(async move { axum::serve(listener, served).await });
    (service, address)
}

/// A client whose image stands still.
async fn behind(address: String) -> Arc<dyn MetadataApi> {
    let env = Env::system();
    let config = HttpMetadataConfig { call_timeout: Duration::from_millis(200), ..HttpMetadataConfig::new(vec![address]) };
    let client = HttpMetadata::connect(config, env.clone()).await.unwrap();
    assert!(env.tasks.shutdown(Duration::from_secs(10)).await, "it follows no longer");
    Arc::new(client)
}

async fn services(metadata: Arc<dyn MetadataApi>, dir: &std::path::Path, env: &Env) -> Arc<Services> {
    let config = LogManagerConfig {
        dir: dir.to_owned(),
        cluster_id: metadata.image().cluster_id.clone(),
        wal_file_bytes: 1 << 20,
        wal_bytes_max: 4 << 20,
        tail_cache_bytes: 1 << 20,
        disk_reserve_bytes: 0,
        producer_expiration_ms: 86_400_000,
    };
    let (logs, _) = LogManager::open(config, env.clone()).unwrap();
    let replica_config = ReplicaConfig {
        broker_id: BROKER,
        broker_epoch: metadata.image().brokers[&BROKER].epoch,
        log_dir: dir.to_owned(),
        data_dir_was_empty: true,
        ..ReplicaConfig::default()
    };
    let replicas = ReplicaManager::new(replica_config, env.clone(), metadata.clone(), logs, None);
    replicas.start();
    replicas.session().heartbeat().await.unwrap();
    let server_config = ServerConfig {
        broker_id: BROKER,
        advertised_host: "localhost".to_owned(),
        advertised_port: 9092,
        broker_configs: BTreeMap::new(),
        log_dir: dir.display().to_string(),
    };
    Services::new(server_config, metadata, replicas, env.clone())
}

async fn mark(services: &Services, topic: &str, partition: i32) -> MarkerOutcome {
    let producer = ProducerIdAndEpoch { producer_id: 7, producer_epoch: 1 };
    let marker = TxnMarker { producer, coordinator_epoch: 0, commit: true, version: TransactionVersion::V2 };
    let partitions = [TopicPartition { topic: topic.into(), partition }];
    services.markers.write(marker, &partitions).await[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i19_a_marker_waits_for_an_image_that_is_behind() {
    let (service, address) = metadata_service().await;
    let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
    let late = services(behind(address.clone()).await, &dir.path().join("late"), &env).await;
    let client = HttpMetadata::connect(HttpMetadataConfig::new(vec![address]), env.clone()).await.unwrap();
    let current = services(Arc::new(client), &dir.path().join("current"), &env).await;

    let topic = CreateTopic { name: "t".to_owned(), partitions: 1, replication_factor: -1, ..CreateTopic::default() };
    service.create_topic(topic).await.unwrap();
    assert!(late.metadata.image().topic("t").is_none(), "the image stands still");
    assert_eq!(mark(&late, "t", 0).await, MarkerOutcome::Retry, "the partition exists: its marker may not be left out");
    assert_eq!(mark(&late, "never", 0).await, MarkerOutcome::Gone, "the service knows no such topic");

    while mark(&current, "t", 0).await != MarkerOutcome::Written {
        tokio::task::yield_now().await;
    }
    assert_eq!(mark(&current, "t", 1).await, MarkerOutcome::Gone, "there is no such partition");
    service.delete_topic(service.image().topic("t").unwrap().id).await.unwrap();
    while mark(&current, "t", 0).await != MarkerOutcome::Gone {
        tokio::task::yield_now().await;
    }
    assert!(env.tasks.shutdown(Duration::from_secs(20)).await);
}
