//! What a handler gets: ports, never the broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use siltstone_common::Env;
use siltstone_coordinator::{GroupCoordinator, TransactionCoordinator};
use siltstone_metadata::MetadataApi;
use siltstone_replica::ReplicaManager;

use crate::authorizer::Authorizer;
use crate::groups::start_group_coordinator;
use crate::producer_ids::ProducerIds;
use crate::quotas::ClientQuotas;
use crate::session::Session;
use crate::telemetry::ClientTelemetry;
use crate::transactions::start_transaction_coordinator;
use crate::txn_markers::ReplicaMarkers;

/// Settings of the Kafka side.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// `node.id`
    pub broker_id: i32,
    /// Host that clients are told.
    pub advertised_host: String,
    /// Port that clients are told.
    pub advertised_port: u16,
    /// Kafka broker settings given by file, flag or `--set`, by Kafka's names, checked at start.
    pub broker_configs: BTreeMap<String, String>,
    /// The local data directory, as DescribeLogDirs names it.
    pub log_dir: String,
}

/// The ports behind the handlers.
pub struct Services {
    /// Cluster metadata.
    pub metadata: Arc<dyn MetadataApi>,
    /// The partitions of this broker.
    pub replicas: Arc<ReplicaManager>,
    /// The groups of this broker.
    pub groups: GroupCoordinator,
    /// The transactional ids of this broker.
    pub transactions: TransactionCoordinator,
    /// Where the ends of transactions go.
    pub markers: Arc<ReplicaMarkers>,
    /// Producer ids to give out.
    pub producer_ids: Arc<ProducerIds>,
    /// What clients measure.
    pub telemetry: Arc<ClientTelemetry>,
    /// What clients have taken, and may take.
    pub(crate) quotas: ClientQuotas,
    /// Who decides what clients may do; `None`: they may do everything.
    pub(crate) authorizer: Option<Authorizer>,
    /// Settings.
    pub config: ServerConfig,
    /// Clock, randomness, tasks.
    pub env: Env,
}

impl Services {
    /// The ports of one broker. Starts its coordinators, which stop with `env`'s tasks.
    pub fn new(config: ServerConfig, metadata: Arc<dyn MetadataApi>, replicas: Arc<ReplicaManager>, env: Env) -> Arc<Self> {
        let groups = start_group_coordinator(&config, Arc::clone(&metadata), Arc::clone(&replicas), env.clone());
        let producer_ids = Arc::new(ProducerIds::new(Arc::clone(&metadata), config.broker_id));
        let markers = Arc::new(ReplicaMarkers::new(Arc::clone(&metadata), Arc::clone(&replicas), groups.clone()));
        let transactions = start_transaction_coordinator(&config, &metadata, &replicas, &markers, &producer_ids, &env);
        let telemetry = Arc::new(ClientTelemetry::new(&config.broker_configs));
        let quotas = ClientQuotas::new(&config.broker_configs);
        let authorizer = Authorizer::from_configs(&config.broker_configs);
        Arc::new(Self { metadata, replicas, groups, transactions, markers, producer_ids, telemetry, quotas, authorizer, config, env })
    }
}

impl Services {
    /// Milliseconds of the monotonic clock.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.env.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }
}

/// One request's surroundings.
#[derive(Clone)]
pub struct RequestContext {
    /// The ports.
    pub services: Arc<Services>,
    /// Version of the request.
    pub api_version: i16,
    /// The client's name for itself; untrusted text (I45).
    pub client_id: Option<Arc<str>>,
    /// Who it is, and where it comes from.
    pub session: Arc<Session>,
}
