//! The group coordinator of this broker: its settings, its log, and who it leads, after the metadata image.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use siltstone_common::Env;
use siltstone_coordinator::{GroupCoordinator, GroupCoordinatorConfig};
use siltstone_metadata::api::CreateTopic;
use siltstone_metadata::{MetadataApi, MetadataError, MetadataImage};
use siltstone_replica::ReplicaManager;

use crate::context::{RequestContext, ServerConfig};
use crate::state_log::{GROUP_METADATA_TOPIC, TopicLog};

/// Starts the coordinator: it follows the image, leads the groups of the `__consumer_offsets` partitions that this broker leads,
/// and drops the offsets of deleted topics. It stops with `env`'s tasks.
pub fn start_group_coordinator(
    config: &ServerConfig,
    metadata: Arc<dyn MetadataApi>,
    replicas: Arc<ReplicaManager>,
    env: Env,
) -> GroupCoordinator {
    let commit_timeout = Duration::from_millis(setting(&config.broker_configs, "offsets.commit.timeout.ms", 5_000));
    let log = TopicLog::new(GROUP_METADATA_TOPIC, Arc::clone(&metadata), replicas, env.clone(), commit_timeout);
    let coordinator = GroupCoordinator::new(coordinator_config(&config.broker_configs), env.clone(), Arc::new(log));
    let (tasks, broker_id, followed) = (env.tasks.clone(), config.broker_id, coordinator.clone());
    env.tasks.spawn("group-leadership", async move {
        tokio::select! {
            () = tasks.stopped() => {}
            () = follow(broker_id, followed, metadata) => {}
        }
    });
    coordinator
}

/// A broker setting given at start, or `default`; values were checked at start.
pub(crate) fn setting<T: FromStr>(configs: &BTreeMap<String, String>, name: &str, default: T) -> T {
    configs.get(name).and_then(|value| value.trim().parse().ok()).unwrap_or(default)
}

fn coordinator_config(configs: &BTreeMap<String, String>) -> GroupCoordinatorConfig {
    let default = GroupCoordinatorConfig::default();
    GroupCoordinatorConfig {
        offsets_topic_num_partitions: setting(configs, "offsets.topic.num.partitions", default.offsets_topic_num_partitions),
        group_initial_rebalance_delay_ms: setting(configs, "group.initial.rebalance.delay.ms", default.group_initial_rebalance_delay_ms),
        group_min_session_timeout_ms: setting(configs, "group.min.session.timeout.ms", default.group_min_session_timeout_ms),
        group_max_session_timeout_ms: setting(configs, "group.max.session.timeout.ms", default.group_max_session_timeout_ms),
        group_max_size: setting(configs, "group.max.size", default.group_max_size),
        offset_metadata_max_bytes: setting(configs, "offset.metadata.max.bytes", default.offset_metadata_max_bytes),
        offsets_retention_ms: setting(configs, "offsets.retention.minutes", default.offsets_retention_ms / 60_000).saturating_mul(60_000),
        offsets_retention_check_interval_ms: setting(
            configs,
            "offsets.retention.check.interval.ms",
            default.offsets_retention_check_interval_ms,
        ),
    }
}

/// Keeps the coordinator in step with the image.
async fn follow(broker_id: i32, coordinator: GroupCoordinator, metadata: Arc<dyn MetadataApi>) {
    let mut images = metadata.watch();
    let mut previous: Arc<MetadataImage> = Arc::default();
    loop {
        let image = Arc::clone(&images.borrow_and_update());
        let led = led_partitions(&image, broker_id);
        for partition in coordinator.led_partitions().into_keys().filter(|partition| !led.contains_key(partition)) {
            coordinator.on_resignation(partition);
        }
        elect(&coordinator, &image, broker_id);
        let gone = previous.topics.values().filter(|topic| !image.topics.contains_key(&topic.id));
        let deleted: Vec<String> = gone.map(|topic| topic.name.clone()).collect();
        if !deleted.is_empty() {
            coordinator.on_topics_deleted(&deleted);
        }
        previous = image;
        if images.changed().await.is_err() {
            return;
        }
    }
}

/// The partitions of `__consumer_offsets` that a broker leads, with their leader epochs.
fn led_partitions(image: &MetadataImage, broker_id: i32) -> BTreeMap<i32, i32> {
    let states = image.topic(GROUP_METADATA_TOPIC).into_iter().flat_map(|topic| topic.partitions.iter().zip(0..));
    states.filter(|(state, _)| state.leader == broker_id).map(|(state, index)| (index, state.leader_epoch)).collect()
}

fn elect(coordinator: &GroupCoordinator, image: &MetadataImage, broker_id: i32) {
    if let Some(topic) = image.topic(GROUP_METADATA_TOPIC) {
        coordinator.set_partition_count(i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX));
    }
    for (partition, leader_epoch) in led_partitions(image, broker_id) {
        coordinator.on_election(partition, leader_epoch);
    }
}

/// Makes `__consumer_offsets` if there is none, as Kafka does at the first FindCoordinator: with one replica each, which is what brokers
/// keep until they copy from each other, whatever `offsets.topic.replication.factor` asks for.
///
/// # Errors
/// What the metadata service says.
pub(crate) async fn ensure_topic(ctx: &RequestContext) -> Result<(), MetadataError> {
    let services = &ctx.services;
    let image = services.metadata.image();
    if image.topic(GROUP_METADATA_TOPIC).is_some() {
        return Ok(());
    }
    let segment_bytes = services.broker_setting("offsets.topic.segment.bytes").unwrap_or(104_857_600i32);
    let configs = [
        ("cleanup.policy", "compact".to_owned()),
        ("compression.type", "producer".to_owned()),
        ("segment.bytes", segment_bytes.to_string()),
    ];
    let topic = CreateTopic {
        name: GROUP_METADATA_TOPIC.to_owned(),
        partitions: services.broker_setting("offsets.topic.num.partitions").unwrap_or(50),
        replication_factor: 1,
        configs: configs.map(|(name, value)| (name.to_owned(), value)).into(),
        ..CreateTopic::default()
    };
    match services.metadata.create_topic(topic).await {
        Ok(_) | Err(MetadataError::TopicExists(_)) => {}
        Err(error) => return Err(error),
    }
    // At once, so that the client's next request already finds its coordinator here.
    elect(&services.groups, &services.metadata.image(), services.config.broker_id);
    Ok(())
}
