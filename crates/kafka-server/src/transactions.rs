//! The transaction coordinator of this broker: its settings, its log, and who it leads, after the metadata image.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use siltstone_common::Env;
use siltstone_coordinator::{TransactionCoordinator, TransactionCoordinatorConfig};
use siltstone_metadata::api::CreateTopic;
use siltstone_metadata::{MetadataApi, MetadataError, MetadataImage};
use siltstone_replica::ReplicaManager;

use crate::context::{RequestContext, ServerConfig};
use crate::groups::setting;
use crate::producer_ids::ProducerIds;
use crate::state_log::{TRANSACTION_STATE_TOPIC, TopicLog};
use crate::txn_markers::ReplicaMarkers;

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
    let (tasks, broker_id, followed, metadata) = (env.tasks.clone(), config.broker_id, coordinator.clone(), Arc::clone(metadata));
    env.tasks.spawn("transaction-leadership", async move {
        tokio::select! {
            () = tasks.stopped() => {}
            () = follow(broker_id, followed, metadata) => {}
        }
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

/// Keeps the coordinator in step with the image.
async fn follow(broker_id: i32, coordinator: TransactionCoordinator, metadata: Arc<dyn MetadataApi>) {
    let mut images = metadata.watch();
    loop {
        let image = Arc::clone(&images.borrow_and_update());
        let led = led_partitions(&image, broker_id);
        for partition in coordinator.led_partitions().into_keys().filter(|partition| !led.contains_key(partition)) {
            coordinator.on_resignation(partition);
        }
        elect(&coordinator, &image, broker_id);
        if images.changed().await.is_err() {
            return;
        }
    }
}

/// The partitions of `__transaction_state` that a broker leads, with their leader epochs.
fn led_partitions(image: &MetadataImage, broker_id: i32) -> BTreeMap<i32, i32> {
    let states = image.topic(TRANSACTION_STATE_TOPIC).into_iter().flat_map(|topic| topic.partitions.iter().zip(0..));
    states.filter(|(state, _)| state.leader == broker_id).map(|(state, index)| (index, state.leader_epoch)).collect()
}

fn elect(coordinator: &TransactionCoordinator, image: &MetadataImage, broker_id: i32) {
    if let Some(topic) = image.topic(TRANSACTION_STATE_TOPIC) {
        coordinator.set_partition_count(i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX));
    }
    for (partition, leader_epoch) in led_partitions(image, broker_id) {
        coordinator.on_election(partition, leader_epoch);
    }
}

/// Makes `__transaction_state` if there is none, as Kafka does at the first FindCoordinator: with one replica each, which is what brokers
/// keep until they copy from each other, whatever `transaction.state.log.replication.factor` asks for.
///
/// # Errors
/// What the metadata service says.
pub(crate) async fn ensure_topic(ctx: &RequestContext) -> Result<(), MetadataError> {
    let services = &ctx.services;
    let image = services.metadata.image();
    if image.topic(TRANSACTION_STATE_TOPIC).is_some() {
        return Ok(());
    }
    let segment_bytes = services.broker_setting("transaction.state.log.segment.bytes").unwrap_or(104_857_600i32);
    let configs = [
        ("cleanup.policy", "compact".to_owned()),
        ("compression.type", "uncompressed".to_owned()),
        ("min.insync.replicas", "1".to_owned()),
        ("segment.bytes", segment_bytes.to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ];
    let topic = CreateTopic {
        name: TRANSACTION_STATE_TOPIC.to_owned(),
        partitions: services.broker_setting("transaction.state.log.num.partitions").unwrap_or(50),
        replication_factor: 1,
        configs: configs.map(|(name, value)| (name.to_owned(), value)).into(),
        ..CreateTopic::default()
    };
    match services.metadata.create_topic(topic).await {
        Ok(_) | Err(MetadataError::TopicExists(_)) => {}
        Err(error) => return Err(error),
    }
    // At once, so that the client's next request already finds its coordinator here.
    elect(&services.transactions, &services.metadata.image(), services.config.broker_id);
    Ok(())
}
