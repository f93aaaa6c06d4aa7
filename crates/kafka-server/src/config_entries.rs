//! Settings as DescribeConfigs and CreateTopics show them: value in force, where it comes from, and its synonyms.

use std::collections::BTreeMap;

use kafka_protocol::messages::create_topics_response::CreatableTopicConfigs;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsSynonym};
use siltstone_metadata::configs::{ConfigDef, ConfigType, broker_configs, topic_configs};
use siltstone_metadata::{MetadataImage, TopicImage};

use crate::context::RequestContext;
use crate::settings::{ConfigSource, broker_def, broker_values};
use crate::topic_lookup::text;

/// One place that gives a setting a value.
struct Origin {
    name: String,
    value: Option<String>,
    source: ConfigSource,
}

/// A setting with every place that gives it a value, the one in force first.
pub(crate) struct ConfigEntry {
    def: &'static ConfigDef,
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
        self.def.kind == ConfigType::Password
    }

    fn shown(&self, value: Option<&String>) -> Option<kafka_protocol::protocol::StrBytes> {
        if self.is_sensitive() { None } else { value.map(text) }
    }

    fn value(&self) -> Option<kafka_protocol::protocol::StrBytes> {
        self.shown(self.origins.first().and_then(|origin| origin.value.as_ref()))
    }

    pub(crate) fn describe(&self, detail: Detail, read_only: bool) -> DescribeConfigsResourceResult {
        let synonyms = self.origins.iter().filter(|_| detail.synonyms).map(|origin| {
            let synonym = DescribeConfigsSynonym::default().with_name(text(&origin.name)).with_source(origin.source as i8);
            synonym.with_value(self.shown(origin.value.as_ref()))
        });
        DescribeConfigsResourceResult::default()
            .with_name(text(self.def.name))
            .with_value(self.value())
            .with_read_only(read_only)
            .with_config_source(self.source() as i8)
            .with_is_sensitive(self.is_sensitive())
            .with_synonyms(synonyms.collect())
            .with_config_type(wire_type(self.def.kind))
            .with_documentation(detail.documentation.then(|| text(self.def.documentation)))
    }
}

/// Every topic setting of `topic`, in the order of the table.
pub(crate) fn of_topic(ctx: &RequestContext, image: &MetadataImage, topic: &BTreeMap<String, String>) -> Vec<ConfigEntry> {
    let entries = topic_configs().iter().filter(|def| !def.internal).map(|def| {
        let own = topic.get(def.name).map(|value| Origin {
            name: def.name.to_owned(),
            value: Some(value.clone()),
            source: ConfigSource::DynamicTopic,
        });
        let synonym = def.broker_synonym.and_then(broker_def);
        let inherited = synonym.map(|synonym| broker_origins(ctx, image, synonym)).unwrap_or_default();
        // The topic's own default is the last word where no broker setting stands behind it, or where that one has another default.
        let default = Origin {
            name: def.broker_synonym.unwrap_or(def.name).to_owned(),
            value: def.default.map(str::to_owned),
            source: ConfigSource::Default,
        };
        let set = inherited.into_iter().filter(|origin| origin.source != ConfigSource::Default);
        ConfigEntry { def, origins: own.into_iter().chain(set).chain([default]).collect() }
    });
    entries.collect()
}

/// Every broker setting.
pub(crate) fn of_broker(ctx: &RequestContext, image: &MetadataImage) -> Vec<ConfigEntry> {
    broker_configs().iter().map(|def| ConfigEntry { def, origins: broker_origins(ctx, image, def) }).collect()
}

/// The cluster-wide dynamic defaults that are set.
pub(crate) fn of_cluster_default(image: &MetadataImage) -> Vec<ConfigEntry> {
    let set = image.broker_configs.get("").into_iter().flatten();
    let entries = set.filter_map(|(name, value)| {
        let origin = Origin { name: name.clone(), value: Some(value.clone()), source: ConfigSource::DynamicDefaultBroker };
        broker_def(name).map(|def| ConfigEntry { def, origins: vec![origin] })
    });
    entries.collect()
}

fn broker_origins(ctx: &RequestContext, image: &MetadataImage, def: &'static ConfigDef) -> Vec<Origin> {
    let values = broker_values(&ctx.services, image, def.name);
    let origins = values.into_iter().map(|(source, value)| Origin { name: def.name.to_owned(), value: Some(value.to_owned()), source });
    origins.collect()
}

impl ConfigEntry {
    pub(crate) fn name(&self) -> &'static str {
        self.def.name
    }

    pub(crate) fn is_dynamic(&self) -> bool {
        self.def.dynamic
    }
}

/// A created topic's settings, for CreateTopics version 5 and up.
pub(crate) fn created_topic(ctx: &RequestContext, topic: &TopicImage) -> Vec<CreatableTopicConfigs> {
    let image = ctx.services.metadata.image();
    let configs = of_topic(ctx, &image, &topic.configs).into_iter().map(|entry| {
        CreatableTopicConfigs::default()
            .with_name(text(entry.name()))
            .with_value(entry.value())
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
