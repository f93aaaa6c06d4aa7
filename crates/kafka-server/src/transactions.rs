//! The transaction coordinator of this broker: its settings, its log, and who it leads, after the metadata image.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use siltstone_common::Env;
use siltstone_coordinator::{TransactionCoordinator, TransactionCoordinatorConfig};
use siltstone_metadata::{MetadataApi, MetadataError};
use siltstone_replica::ReplicaManager;

use crate::context::{RequestContext, ServerConfig};
use crate::groups::setting;
use crate::producer_ids::ProducerIds;
use crate::state_log::TopicLog;
use crate::state_topics::{self, StateTopic, TRANSACTION_STATE_TOPIC};
use crate::txn_markers::ReplicaMarkers;

const TOPIC: StateTopic = StateTopic {
    name: TRANSACTION_STATE_TOPIC,
    settings: "transaction.state.log",
    configs: &[("compression.type", "uncompressed"), ("min.insync.replicas", "1"), ("unclean.leader.election.enable", "false")],
};

/// How long a record of a transaction may take to be committed: Kafka's `request.timeout.ms`.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts the coordinator: it follows the image and leads the transactional ids of the `__transaction_state` partitions that this broker leads.
/// It stops with `env`'s tasks.
pub fn start_transaction_coordinator(
    config: &ServerConfig,
    metadata: &Arc<dyn MetadataApi>,
    replicas: &Arc<ReplicaManager>,
    markers: &Arc<ReplicaMarkers>,
    producer_ids: &Arc<ProducerIds>,
    env: &Env,
) -> TransactionCoordinator {
    let log = TopicLog::new(TRANSACTION_STATE_TOPIC, Arc::clone(metadata), Arc::clone(replicas), env.clone(), COMMIT_TIMEOUT);
    let markers: Arc<ReplicaMarkers> = Arc::clone(markers);
    let settings = coordinator_config(&config.broker_configs);
    let producer_ids: Arc<ProducerIds> = Arc::clone(producer_ids);
    let coordinator = TransactionCoordinator::new(settings, env.clone(), Arc::new(log), markers, producer_ids);
    let (broker_id, followed) = (config.broker_id, coordinator.clone());
    state_topics::follow("transaction-leadership", env, metadata, move |image| {
        followed.on_leadership(&TOPIC.leadership(&image, broker_id));
    });
    coordinator
}

fn coordinator_config(configs: &BTreeMap<String, String>) -> TransactionCoordinatorConfig {
    let default = TransactionCoordinatorConfig::default();
    TransactionCoordinatorConfig {
        state_log_num_partitions: setting(configs, "transaction.state.log.num.partitions", default.state_log_num_partitions),
        transaction_max_timeout_ms: setting(configs, "transaction.max.timeout.ms", default.transaction_max_timeout_ms),
        abort_timed_out_interval_ms: setting(
            configs,
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            default.abort_timed_out_interval_ms,
        ),
        transactional_id_expiration_ms: setting(configs, "transactional.id.expiration.ms", default.transactional_id_expiration_ms),
        remove_expired_interval_ms: setting(
            configs,
            "transaction.remove.expired.transaction.cleanup.interval.ms",
            default.remove_expired_interval_ms,
        ),
    }
}

/// Makes `__transaction_state` if there is none.
///
/// # Errors
/// What the metadata service says.
pub(crate) async fn ensure_topic(ctx: &RequestContext) -> Result<(), MetadataError> {
    let services = &ctx.services;
    if TOPIC.ensure(services).await? {
        // At once, so that the client's next request already finds its coordinator here.
        services.transactions.on_leadership(&TOPIC.leadership(&services.metadata.image(), services.config.broker_id));
    }
    Ok(())
}
