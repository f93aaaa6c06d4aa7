//! A broker setting's value now: dynamic on this broker, else the dynamic cluster default, else given at start, else Kafka's default.

use std::collections::BTreeMap;

use siltstone_metadata::MetadataImage;
use siltstone_metadata::configs::{ConfigDef, broker_configs};

use crate::context::Services;

/// Where a value comes from, by the numbers of DescribeConfigs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on the topic.
    DynamicTopic = 1,
    /// Set on this broker while running.
    DynamicBroker = 2,
    /// Set for all brokers while running.
    DynamicDefaultBroker = 3,
    /// Given at start.
    StaticBroker = 4,
    /// Not set.
    Default = 5,
    /// The level of a logger.
    DynamicBrokerLogger = 6,
    /// Set on the subscription to clients' metrics.
    ClientMetrics = 7,
    /// Set on the group.
    GroupConfig = 8,
}

/// Every place that gives broker setting `name` a value, the one in force first.
pub fn broker_values<'a>(services: &'a Services, image: &'a MetadataImage, name: &str) -> Vec<(ConfigSource, &'a str)> {
    let own = services.config.broker_id.to_string();
    let dynamic = |key: &str| image.broker_configs.get(key).and_then(|configs| configs.get(name)).map(String::as_str);
    let places = [
        (ConfigSource::DynamicBroker, dynamic(&own)),
        (ConfigSource::DynamicDefaultBroker, dynamic("")),
        (ConfigSource::StaticBroker, services.config.broker_configs.get(name).map(String::as_str)),
        (ConfigSource::Default, broker_def(name).and_then(|def| def.default)),
    ];
    places.into_iter().filter_map(|(source, value)| value.map(|value| (source, value))).collect()
}

/// What is set on this broker while running: its own over the cluster-wide.
pub fn dynamic_broker_configs(services: &Services, image: &MetadataImage) -> BTreeMap<String, String> {
    let own = services.config.broker_id.to_string();
    let layers = ["", own.as_str()].into_iter().filter_map(|key| image.broker_configs.get(key));
    layers.flatten().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The definition of a broker setting.
pub fn broker_def(name: &str) -> Option<&'static ConfigDef> {
    broker_configs().iter().find(|def| def.name == name)
}

impl Services {
    /// The value of a broker setting, parsed; `None` if it is not set or not of that type.
    pub fn broker_setting<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        let image = self.metadata.image();
        broker_values(self, &image, name).first().and_then(|(_, value)| value.parse().ok())
    }

    /// True if `group.coordinator.rebalance.protocols` names the consumer protocol (KIP-848).
    pub(crate) fn serves_consumer_groups(&self) -> bool {
        let image = self.metadata.image();
        let values = broker_values(self, &image, "group.coordinator.rebalance.protocols");
        values.first().is_some_and(|(_, protocols)| protocols.split(',').any(|protocol| protocol.trim() == "consumer"))
    }
}
