//! For tests: one broker's handlers over a metadata store in memory and logs in a temporary directory, called without a connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use siltstone_common::Env;
use siltstone_log::{LogManager, LogManagerConfig};
use siltstone_metadata::acls::{AclBinding, AclOperation, AclPermissionType, PatternType, ResourceType};
use siltstone_metadata::api::{AdminChange, CreateTopic, RegisterBroker};
use siltstone_metadata::configs::STANDARD_AUTHORIZER;
use siltstone_metadata::quotas::QuotaEntity;
use siltstone_metadata::{MemoryStore, MetadataApi, MetadataService, MetadataServiceConfig, TopicImage};
use siltstone_replica::{ReplicaConfig, ReplicaManager};

use crate::context::{RequestContext, ServerConfig, Services};
use crate::server::{BoundListener, Server};
use crate::session::Session;

const BROKER: i32 = 0;

/// A broker; dropped with its directory.
pub(crate) struct Rig {
    pub services: Arc<Services>,
    pub metadata: Arc<MetadataService>,
    _dir: tempfile::TempDir,
}

impl Rig {
    /// A broker that is registered and leads what is created.
    pub(crate) async fn new() -> Self {
        Self::at(9092, BTreeMap::new()).await
    }

    /// A broker whose clients may do nothing but what [`Rig::allow`] allows them.
    pub(crate) async fn secured() -> Self {
        Self::at(9092, BTreeMap::from([("authorizer.class.name".to_owned(), STANDARD_AUTHORIZER.to_owned())])).await
    }

    /// A broker that also listens; its address.
    pub(crate) async fn serving() -> (Self, String) {
        let listener = BoundListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr();
        let rig = Self::at(address.port(), BTreeMap::new()).await;
        let tasks = rig.services.env.tasks.clone();
        tasks.spawn("listener", Server::new(listener, Arc::clone(&rig.services), tasks.clone()).run());
        (rig, address.to_string())
    }

    async fn at(port: u16, broker_configs: BTreeMap<String, String>) -> Self {
        let (env, dir) = (Env::system(), tempfile::tempdir().expect("a directory"));
        let store = Arc::new(MemoryStore::new(env.clone()));
        // Nobody sends heartbeats, and a test may take its time.
        let metadata_config =
            MetadataServiceConfig { broker_session_timeout: Duration::from_secs(3_600), ..MetadataServiceConfig::default() };
        let metadata = MetadataService::open(store, metadata_config, env.clone()).await.expect("opens");
        let broker = RegisterBroker { id: BROKER, host: "127.0.0.1".to_owned(), port, clean_shutdown: true, ..RegisterBroker::default() };
        let epoch = metadata.register_broker(broker).await.expect("registers");
        let config = LogManagerConfig {
            dir: dir.path().to_owned(),
            cluster_id: metadata.image().cluster_id.clone(),
            wal_file_bytes: 1 << 20,
            wal_bytes_max: 4 << 20,
            tail_cache_bytes: 1 << 20,
            disk_reserve_bytes: 0,
            producer_expiration_ms: 86_400_000,
        };
        let (logs, _) = LogManager::open(config, env.clone()).expect("opens");
        let replica_config = ReplicaConfig {
            broker_id: BROKER,
            broker_epoch: epoch,
            log_dir: dir.path().to_owned(),
            data_dir_was_empty: true,
            ..ReplicaConfig::default()
        };
        let replicas = ReplicaManager::new(replica_config, env.clone(), metadata.clone(), logs, None);
        replicas.start();
        replicas.session().heartbeat().await.expect("lives");
        let config = ServerConfig {
            broker_id: BROKER,
            advertised_host: "localhost".to_owned(),
            advertised_port: port,
            broker_configs,
            log_dir: dir.path().display().to_string(),
        };
        Self { services: Services::new(config, metadata.clone(), replicas, env), metadata, _dir: dir }
    }

    /// Creates a topic.
    pub(crate) async fn create_topic(&self, name: &str, partitions: i32) -> Arc<TopicImage> {
        let topic = CreateTopic { name: name.to_owned(), partitions, replication_factor: -1, ..CreateTopic::default() };
        self.metadata.create_topic(topic).await.expect("creates")
    }

    /// Allows everybody this.
    pub(crate) async fn allow(&self, operation: AclOperation, resource_type: ResourceType, name: &str) {
        let acl = AclBinding {
            resource_type,
            resource_name: name.to_owned(),
            pattern_type: PatternType::Literal,
            principal: "User:*".to_owned(),
            host: "*".to_owned(),
            operation,
            permission_type: AclPermissionType::Allow,
        };
        self.metadata.create_acls(vec![acl]).await.expect("creates").into_iter().for_each(|made| made.expect("is valid"));
    }

    /// Sets a quota.
    pub(crate) async fn set_quota(&self, entity: QuotaEntity, quota: &str, value: f64) {
        let ops = BTreeMap::from([(quota.to_owned(), Some(value))]);
        self.metadata.administer(AdminChange::Quotas { entity, ops }, false).await.expect("sets");
    }

    /// The surroundings of a request in this version.
    pub(crate) fn request(&self, api_version: i16) -> RequestContext {
        let session = Session::anonymous(([127, 0, 0, 1], 1).into());
        RequestContext { services: Arc::clone(&self.services), api_version, client_id: None, session }
    }
}
