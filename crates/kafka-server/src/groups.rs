//! The group coordinator of this broker: its settings, its log, and who it leads, after the metadata image.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use siltstone_common::{Env, TopicId, TopicIdPartition};
use siltstone_coordinator::{Assignor, ChangedTopics, ClusterView, GroupCoordinator, GroupCoordinatorConfig, MigrationPolicy, TopicView};
use siltstone_metadata::{MetadataApi, MetadataError, MetadataImage, TopicImage};
use siltstone_replica::ReplicaManager;

use crate::context::{RequestContext, ServerConfig};
use crate::state_log::TopicLog;
use crate::state_topics::{self, GROUP_METADATA_TOPIC, StateTopic};

const TOPIC: StateTopic =
    StateTopic { name: GROUP_METADATA_TOPIC, settings: "offsets.topic", configs: &[("compression.type", "producer")] };

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
    let (broker_id, followed) = (config.broker_id, coordinator.clone());
    let mut previous: Arc<MetadataImage> = Arc::default();
    state_topics::follow("group-leadership", &env, &metadata, move |image| {
        followed.on_leadership(&TOPIC.leadership(&image, broker_id));
        if image.revision != previous.revision {
            let changed = changed_topics(&previous, &image);
            let view = GroupClusterView { image: Arc::clone(&image), broker_id: broker_id.to_string() };
            followed.on_cluster_changed(Arc::new(view), &changed);
        }
        previous = image;
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
        consumer_session_timeout_ms: setting(configs, "group.consumer.session.timeout.ms", default.consumer_session_timeout_ms),
        consumer_session_timeout_limits_ms: limits(configs, "session.timeout.ms", default.consumer_session_timeout_limits_ms),
        consumer_heartbeat_interval_ms: setting(configs, "group.consumer.heartbeat.interval.ms", default.consumer_heartbeat_interval_ms),
        consumer_heartbeat_interval_limits_ms: limits(configs, "heartbeat.interval.ms", default.consumer_heartbeat_interval_limits_ms),
        consumer_assignment_interval_ms: setting(configs, "group.consumer.assignment.interval.ms", default.consumer_assignment_interval_ms),
        consumer_assignment_interval_limits_ms: limits(configs, "assignment.interval.ms", default.consumer_assignment_interval_limits_ms),
        consumer_group_max_size: setting(configs, "group.consumer.max.size", default.consumer_group_max_size),
        consumer_assignors: assignors(configs).unwrap_or(default.consumer_assignors),
        consumer_migration_policy: configs
            .get("group.consumer.migration.policy")
            .and_then(|value| MigrationPolicy::by_name(value.trim()))
            .unwrap_or(default.consumer_migration_policy),
        consumer_regex_refresh_interval_ms: setting(
            configs,
            "group.consumer.regex.refresh.interval.ms",
            default.consumer_regex_refresh_interval_ms,
        ),
    }
}

/// `group.consumer.min.*` and `group.consumer.max.*` of a setting.
fn limits(configs: &BTreeMap<String, String>, name: &str, default: RangeInclusive<i32>) -> RangeInclusive<i32> {
    let min = setting(configs, &format!("group.consumer.min.{name}"), *default.start());
    min..=setting(configs, &format!("group.consumer.max.{name}"), *default.end())
}

/// Those of `group.consumer.assignors` that there are; `None` if it is not given or names none of them.
fn assignors(configs: &BTreeMap<String, String>) -> Option<Vec<Assignor>> {
    let named = configs.get("group.consumer.assignors")?.split(',');
    let known: Vec<Assignor> = named.filter_map(|name| Assignor::by_name(name.trim())).collect();
    Some(known).filter(|known| !known.is_empty())
}

/// What consumer groups must look at anew: topics with another id or another number of partitions.
fn changed_topics(previous: &MetadataImage, image: &MetadataImage) -> ChangedTopics {
    let is_same = |old: &Arc<TopicImage>, new: &Arc<TopicImage>| Arc::ptr_eq(old, new) || old.partitions.len() == new.partitions.len();
    let mut changed = ChangedTopics::default();
    for topic in image.topics.values() {
        let old = previous.topics.get(&topic.id);
        changed.any_created |= old.is_none();
        if old.is_none_or(|old| !is_same(old, topic)) {
            changed.names.push(topic.name.clone());
        }
    }
    for topic in previous.topics.values().filter(|topic| !image.topics.contains_key(&topic.id)) {
        changed.names.push(topic.name.clone());
        changed.deleted.push(topic.name.clone());
    }
    changed
}

/// The image, as the coordinator sees it.
struct GroupClusterView {
    image: Arc<MetadataImage>,
    broker_id: String,
}

fn topic_view(topic: &TopicImage) -> TopicView<'_> {
    TopicView { id: topic.id, name: &topic.name, partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX) }
}

impl ClusterView for GroupClusterView {
    fn revision(&self) -> u64 {
        self.image.revision
    }

    fn topic(&self, name: &str) -> Option<TopicView<'_>> {
        self.image.topic(name).map(|topic| topic_view(topic))
    }

    fn topic_by_id(&self, id: TopicId) -> Option<TopicView<'_>> {
        self.image.topic_by_id(id).map(|topic| topic_view(topic))
    }

    fn for_each_topic_name(&self, visit: &mut dyn FnMut(&str)) {
        self.image.topic_ids.keys().for_each(|name| visit(name));
    }

    fn partition_racks(&self, id: TopicId, partition: i32) -> Vec<String> {
        let replicas = self.image.partition(TopicIdPartition::new(id, partition)).map(|partition| partition.replicas.as_slice());
        let racks = replicas.unwrap_or_default().iter().filter_map(|id| self.image.brokers.get(id)?.rack.clone());
        racks.collect()
    }

    /// The group's own, else what was set on the broker or on all brokers while running.
    fn group_setting(&self, group_id: &str, name: &str) -> Option<i32> {
        let own = self.image.group_configs.get(group_id).and_then(|configs| configs.get(name));
        let broker_name = format!("group.{name}");
        let dynamic = |broker: &str| self.image.broker_configs.get(broker).and_then(|configs| configs.get(&broker_name));
        own.or_else(|| dynamic(&self.broker_id)).or_else(|| dynamic(""))?.trim().parse().ok()
    }
}

/// Makes `__consumer_offsets` if there is none.
///
/// # Errors
/// What the metadata service says.
pub(crate) async fn ensure_topic(ctx: &RequestContext) -> Result<(), MetadataError> {
    let services = &ctx.services;
    if TOPIC.ensure(services).await? {
        // At once, so that the client's next request already finds its coordinator here.
        services.groups.on_leadership(&TOPIC.leadership(&services.metadata.image(), services.config.broker_id));
    }
    Ok(())
}
