//! Changes of settings (KIP-339): all of a request or none.

use std::collections::BTreeMap;

use super::partitions::clear_elr;
use super::{Decision, View};
use crate::api::{ConfigOp, ConfigResource, MetadataError};
use crate::configs::{self, ConfigDef, ConfigType, MIN_INSYNC_REPLICAS};
use crate::image::{ImageChange, MetadataImage};

/// Longest group id whose settings can be kept, bytes.
const GROUP_BYTES_MAX: usize = 512;

/// Changes the settings of one resource.
pub(crate) fn alter_configs(
    view: View<'_>,
    resource: ConfigResource,
    ops: Vec<ConfigOp>,
    validate_only: bool,
) -> Result<Decision<()>, MetadataError> {
    let mut changes = Vec::new();
    let change = match resource {
        ConfigResource::Topic(name) => {
            let topic = view.image.topic(&name).ok_or(MetadataError::UnknownTopic(name))?;
            let configs = apply(&topic.configs, ops, configs::topic_configs(), configs::validate_topic_config)?;
            configs::validate_topic_configs_together(&configs).map_err(MetadataError::InvalidConfig)?;
            let checked = configs::validate_remote_storage_change(&topic.configs, &configs, view.is_tiering_enabled());
            checked.map_err(MetadataError::InvalidConfig)?;
            changes.extend(clear_elr(topic, view.min_insync_replicas(&configs)));
            (configs != topic.configs).then_some(ImageChange::TopicConfigs { topic: topic.id, configs })
        }
        ConfigResource::Broker(broker) => {
            if !broker.is_empty() && broker.parse::<i32>().is_err() {
                return Err(MetadataError::InvalidRequest(format!("Unable to parse broker name as a base 10 number: {broker}")));
            }
            check_min_isr(&broker, &ops)?;
            let current = view.image.broker_configs.get(&broker).cloned().unwrap_or_default();
            let validate = if broker.is_empty() { configs::validate_cluster_default } else { configs::validate_dynamic_broker_config };
            // A broker's settings are refused as requests, a topic's as settings: so does Kafka.
            let configs = apply(&current, ops, configs::broker_configs(), validate).map_err(|error| match error {
                MetadataError::InvalidConfig(reason) => MetadataError::InvalidRequest(reason),
                other => other,
            })?;
            if broker.is_empty() {
                changes.extend(clear_elrs(view, &configs));
            }
            (configs != current).then_some(ImageChange::BrokerConfigs { broker, configs })
        }
        ConfigResource::Group(group) => {
            if group.is_empty() || group.len() > GROUP_BYTES_MAX {
                return Err(MetadataError::InvalidRequest(format!("a group id has 1 to {GROUP_BYTES_MAX} bytes")));
            }
            let current = view.image.group_configs.get(&group).cloned().unwrap_or_default();
            let configs = apply(&current, ops, configs::group_configs(), configs::validate_group_config)?;
            configs::validate_group_configs_together(&configs, &|name| view.broker_text(name)).map_err(MetadataError::InvalidConfig)?;
            (configs != current).then_some(ImageChange::GroupConfigs { group, configs })
        }
        ConfigResource::ClientMetrics(name) => {
            if name.is_empty() || name.len() > GROUP_BYTES_MAX {
                return Err(MetadataError::InvalidRequest(format!("a subscription's name has 1 to {GROUP_BYTES_MAX} bytes")));
            }
            let current = view.image.client_metrics.get(&name).cloned().unwrap_or_default();
            let configs = apply(&current, ops, configs::client_metrics_configs(), configs::validate_client_metrics_config)?;
            (configs != current).then_some(ImageChange::ClientMetricsConfigs { name, configs })
        }
    };
    // The ELR first: a crash in between leaves the stricter setting.
    changes.extend(change);
    Ok(Decision::new(if validate_only { Vec::new() } else { changes }, ()))
}

/// Eligible leader replicas need one `min.insync.replicas` for all brokers, and that there always is one (KIP-966).
fn check_min_isr(broker: &str, ops: &[ConfigOp]) -> Result<(), MetadataError> {
    let refuse = |reason: &str| Err(MetadataError::InvalidConfig(reason.to_owned()));
    for op in ops {
        match op {
            ConfigOp::Set(name, _) | ConfigOp::Append(name, _) | ConfigOp::Subtract(name, _)
                if name == MIN_INSYNC_REPLICAS && !broker.is_empty() =>
            {
                return refuse("Broker-level min.insync.replicas cannot be altered while ELR is enabled.");
            }
            ConfigOp::Delete(name) if name == MIN_INSYNC_REPLICAS && broker.is_empty() => {
                return refuse("Cluster-level min.insync.replicas cannot be removed while ELR is enabled.");
            }
            _ => {}
        }
    }
    Ok(())
}

/// What the new settings of all brokers ask of the ELRs.
fn clear_elrs(view: View<'_>, configs: &BTreeMap<String, String>) -> Vec<ImageChange> {
    let mut image = MetadataImage { topics: view.image.topics.clone(), ..MetadataImage::default() };
    image.broker_configs.insert(String::new(), configs.clone());
    let after = View { image: &image, ..view };
    let mut topics: Vec<_> = image.topics.values().collect();
    topics.sort_unstable_by_key(|topic| topic.id);
    topics.into_iter().filter_map(|topic| clear_elr(topic, after.min_insync_replicas(&topic.configs))).collect()
}

type Validate = fn(&str, &str) -> Result<(), String>;

fn apply(
    current: &BTreeMap<String, String>,
    ops: Vec<ConfigOp>,
    defs: &'static [ConfigDef],
    validate: Validate,
) -> Result<BTreeMap<String, String>, MetadataError> {
    let mut configs = current.clone();
    for op in ops {
        match op {
            ConfigOp::Set(name, value) => {
                validate(&name, &value).map_err(MetadataError::InvalidConfig)?;
                configs.insert(name, value);
            }
            ConfigOp::Delete(name) => {
                configs.remove(&name);
            }
            ConfigOp::Append(name, value) => change_list(&mut configs, name, &value, defs, validate, true)?,
            ConfigOp::Subtract(name, value) => change_list(&mut configs, name, &value, defs, validate, false)?,
        }
    }
    Ok(configs)
}

fn change_list(
    configs: &mut BTreeMap<String, String>,
    name: String,
    value: &str,
    defs: &'static [ConfigDef],
    validate: Validate,
    append: bool,
) -> Result<(), MetadataError> {
    let def = defs.iter().find(|def| def.name == name);
    if def.is_none_or(|def| def.kind != ConfigType::List) {
        let verb = if append { "APPEND" } else { "SUBTRACT" };
        return Err(MetadataError::InvalidConfig(format!("Can't {verb} to key {name} because its type is not LIST.")));
    }
    let now = configs.get(&name).map(String::as_str).or_else(|| def.and_then(|def| def.default)).unwrap_or("");
    let items = |text: &str| text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let (mut list, change) = (items(now), items(value));
    list.retain(|item| !change.contains(item));
    if append {
        list = items(now);
        let missing: Vec<_> = change.into_iter().filter(|item| !list.contains(item)).collect();
        list.extend(missing);
    }
    let joined = list.join(",");
    validate(&name, &joined).map_err(MetadataError::InvalidConfig)?;
    configs.insert(name, joined);
    Ok(())
}
