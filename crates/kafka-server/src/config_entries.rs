//! Settings as DescribeConfigs and CreateTopics show them: value in force, where it comes from, and its synonyms.

use std::collections::BTreeMap;

use kafka_protocol::messages::create_topics_response::CreatableTopicConfigs;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsSynonym};
use siltstone_metadata::configs::{
    ConfigDef, ConfigType, broker_configs, client_metrics_configs, effective_text, group_configs, topic_configs,
};
use siltstone_metadata::{MetadataImage, TopicImage};

use crate::context::RequestContext;
use crate::settings::{ConfigSource, broker_def, broker_values, dynamic_broker_configs};
use crate::topic_lookup::text;

/// One place that gives a setting a value.
struct Origin {
    name: String,
    value: String,
    source: ConfigSource,
}

/// A setting with every place that gives it a value, the one in force first.
pub(crate) struct ConfigEntry {
    def: &'static ConfigDef,
    /// In force, whatever places are told.
    value: Option<String>,
    origins: Vec<Origin>,
}

/// What of an entry a request wants to see.
#[derive(Copy, Clone)]
pub(crate) struct Detail {
    pub(crate) synonyms: bool,
    pub(crate) documentation: bool,
}

impl ConfigEntry {
    fn source(&self) -> ConfigSource {
        self.origins.first().map_or(ConfigSource::Default, |origin| origin.source)
    }

    fn is_sensitive(&self) -> bool {
        self.def.sensitive()
    }

    fn shown(&self, value: Option<&String>) -> Option<kafka_protocol::protocol::StrBytes> {
        if self.is_sensitive() { None } else { value.map(text) }
    }

    pub(crate) fn describe(&self, detail: Detail, read_only: bool) -> DescribeConfigsResourceResult {
        let synonyms = self.origins.iter().filter(|_| detail.synonyms).map(|origin| {
            let synonym = DescribeConfigsSynonym::default().with_name(text(&origin.name)).with_source(origin.source as i8);
            synonym.with_value(self.shown(Some(&origin.value)))
        });
        DescribeConfigsResourceResult::default()
            .with_name(text(self.def.name))
            .with_value(self.shown(self.value.as_ref()))
            .with_read_only(read_only)
            .with_config_source(self.source() as i8)
            .with_is_sensitive(self.is_sensitive())
            .with_synonyms(synonyms.collect())
            .with_config_type(if self.def.internal { 0 } else { wire_type(self.def.kind) })
            .with_documentation(detail.documentation.then(|| text(self.def.documentation)))
    }

    pub(crate) fn name(&self) -> &'static str {
        self.def.name
    }

    pub(crate) fn is_dynamic(&self) -> bool {
        self.def.dynamic
    }
}

/// Every topic setting of `topic`, in the order of the table.
pub(crate) fn of_topic(ctx: &RequestContext, image: &MetadataImage, topic: &BTreeMap<String, String>) -> Vec<ConfigEntry> {
    let inherited = |def: &ConfigDef| def.broker_synonym.map(|name| broker_origins(ctx, image, name)).unwrap_or_default();
    let defs = topic_configs().iter().filter(|def| !def.internal);
    defs.map(|def| inheriting(ctx, image, def, topic, ConfigSource::DynamicTopic, inherited(def))).collect()
}

/// Every group setting of a group that has these of its own. Defaults without a broker setting behind them are told under their own name.
pub(crate) fn of_group(ctx: &RequestContext, image: &MetadataImage, group: &BTreeMap<String, String>) -> Vec<ConfigEntry> {
    let inherited = |def: &ConfigDef| match (def.broker_synonym, def.default) {
        (Some(name), _) => broker_origins(ctx, image, name),
        (None, Some(value)) => vec![Origin { name: def.name.to_owned(), value: value.to_owned(), source: ConfigSource::Default }],
        (None, None) => Vec::new(),
    };
    let defs = group_configs().iter();
    defs.map(|def| inheriting(ctx, image, def, group, ConfigSource::GroupConfig, inherited(def))).collect()
}

/// Every setting of a subscription to clients' metrics that has these of its own.
pub(crate) fn of_client_metrics(own: &BTreeMap<String, String>) -> Vec<ConfigEntry> {
    let entries = client_metrics_configs().iter().map(|def| {
        let set = own.get(def.name).map(|value| (value.as_str(), ConfigSource::ClientMetrics));
        let place = set.or_else(|| def.default.map(|value| (value, ConfigSource::Default)));
        let place = place.map(|(value, source)| Origin { name: def.name.to_owned(), value: value.to_owned(), source });
        let origins: Vec<_> = place.into_iter().collect();
        ConfigEntry { def, value: origins.first().map(|origin| origin.value.clone()), origins }
    });
    entries.collect()
}

/// An entry of a resource that inherits from the broker's settings.
fn inheriting(
    ctx: &RequestContext,
    image: &MetadataImage,
    def: &'static ConfigDef,
    own: &BTreeMap<String, String>,
    source: ConfigSource,
    inherited: Vec<Origin>,
) -> ConfigEntry {
    let set = own.get(def.name).map(|value| Origin { name: def.name.to_owned(), value: value.clone(), source });
    let dynamic = dynamic_broker_configs(&ctx.services, image);
    let value = effective_text(def, own, &dynamic, &ctx.services.config.broker_configs);
    ConfigEntry { def, value, origins: set.into_iter().chain(inherited).collect() }
}

/// Every broker setting.
pub(crate) fn of_broker(ctx: &RequestContext, image: &MetadataImage) -> Vec<ConfigEntry> {
    let entries = broker_configs().iter().map(|def| {
        let value = broker_values(&ctx.services, image, def.name).first().map(|(_, value)| (*value).to_owned());
        ConfigEntry { def, value, origins: broker_origins(ctx, image, def.name) }
    });
    let is_set = |entry: &ConfigEntry| entry.origins.iter().any(|origin| origin.source != ConfigSource::Default);
    entries.filter(|entry| !entry.def.unlisted() || is_set(entry)).collect()
}

/// The cluster-wide dynamic defaults that are set.
pub(crate) fn of_cluster_default(image: &MetadataImage) -> Vec<ConfigEntry> {
    let set = image.broker_configs.get("").into_iter().flatten();
    let entries = set.filter_map(|(name, value)| {
        let origin = Origin { name: name.clone(), value: value.clone(), source: ConfigSource::DynamicDefaultBroker };
        broker_def(name).map(|def| ConfigEntry { def, value: Some(value.clone()), origins: vec![origin] })
    });
    entries.collect()
}

/// Every place that gives broker setting `name` or one of its other units a value, as Kafka tells them: by kind of place, then by unit, and
/// from the first one on that bears the name itself.
fn broker_origins(ctx: &RequestContext, image: &MetadataImage, name: &str) -> Vec<Origin> {
    let mut origins = Vec::new();
    for unit in units(name) {
        let values = broker_values(&ctx.services, image, unit);
        origins.extend(values.into_iter().map(|(source, value)| Origin { name: unit.to_owned(), value: value.to_owned(), source }));
    }
    origins.sort_by_key(|origin| origin.source as i8);
    origins.into_iter().skip_while(|origin| origin.name != name).collect()
}

/// The settings that say the same as `name` in other units, and itself, in the order in which they count.
fn units(name: &str) -> Vec<&str> {
    let several = topic_configs().iter().map(|def| def.synonyms);
    let group = several.filter(|synonyms| synonyms.len() > 1).find(|synonyms| synonyms.iter().any(|synonym| synonym.name == name));
    group.map_or_else(|| vec![name], |synonyms| synonyms.iter().map(|synonym| synonym.name).collect())
}

/// A created topic's settings, for CreateTopics version 5 and up.
pub(crate) fn created_topic(ctx: &RequestContext, topic: &TopicImage) -> Vec<CreatableTopicConfigs> {
    let image = ctx.services.metadata.image();
    let configs = of_topic(ctx, &image, &topic.configs).into_iter().map(|entry| {
        CreatableTopicConfigs::default()
            .with_name(text(entry.name()))
            .with_value(entry.shown(entry.value.as_ref()))
            .with_config_source(entry.source() as i8)
            .with_is_sensitive(entry.is_sensitive())
    });
    configs.collect()
}

fn wire_type(kind: ConfigType) -> i8 {
    match kind {
        ConfigType::Boolean => 1,
        ConfigType::String => 2,
        ConfigType::Int => 3,
        ConfigType::Short => 4,
        ConfigType::Long => 5,
        ConfigType::Double => 6,
        ConfigType::List => 7,
        ConfigType::Class => 8,
        ConfigType::Password => 9,
    }
}
