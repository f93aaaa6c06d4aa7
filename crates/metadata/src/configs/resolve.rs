//! The settings of a topic with all defaults resolved.

use std::collections::BTreeMap;

use super::{ConfigDef, topic_config, validate};

/// A topic's settings with defaults resolved: topic override, else dynamic broker setting, else static broker setting
/// (`--set`, configuration file), else default.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy` contains delete
    pub delete: bool,
    /// `cleanup.policy` contains compact
    pub compact: bool,
    /// `compression.gzip.level`; -1 for gzip's own default
    pub compression_gzip_level: i32,
    /// `compression.type`
    pub compression_type: String,
    /// `compression.zstd.level`
    pub compression_zstd_level: i32,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
    /// `file.delete.delay.ms`
    pub file_delete_delay_ms: i64,
    /// `flush.messages`; our default is 1
    pub flush_messages: i64,
    /// `flush.ms`
    pub flush_ms: i64,
    /// `index.interval.bytes`
    pub index_interval_bytes: i32,
    /// `local.retention.bytes`; -2 means `retention.bytes`
    pub local_retention_bytes: i64,
    /// `local.retention.ms`; -2 means `retention.ms`
    pub local_retention_ms: i64,
    /// `max.compaction.lag.ms`
    pub max_compaction_lag_ms: i64,
    /// `max.message.bytes`
    pub max_message_bytes: i32,
    /// `message.timestamp.after.max.ms`
    pub message_timestamp_after_max_ms: i64,
    /// `message.timestamp.before.max.ms`
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.type` is LogAppendTime
    pub log_append_time: bool,
    /// `min.cleanable.dirty.ratio`
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`
    pub min_compaction_lag_ms: i64,
    /// `min.insync.replicas`
    pub min_insync_replicas: i32,
    /// `remote.storage.enable`; our default is true
    pub remote_storage_enable: bool,
    /// `remote.log.copy.disable`: what is remote stays readable, nothing more is uploaded
    pub remote_log_copy_disable: bool,
    /// `remote.log.delete.on.disable`: with `remote.storage.enable` off, what only the bucket has is deleted
    pub remote_log_delete_on_disable: bool,
    /// `retention.bytes`; -1 for no limit
    pub retention_bytes: i64,
    /// `retention.ms`; -1 for no limit
    pub retention_ms: i64,
    /// `segment.bytes`
    pub segment_bytes: i32,
    /// `segment.jitter.ms`
    pub segment_jitter_ms: i64,
    /// `segment.ms`
    pub segment_ms: i64,
    /// `unclean.leader.election.enable`
    pub unclean_leader_election_enable: bool,
}

/// Where a value comes from.
struct Layers<'a> {
    topic: &'a BTreeMap<String, String>,
    brokers: [&'a BTreeMap<String, String>; 2],
}

impl Layers<'_> {
    /// The value of a setting as text that is valid, in the setting's unit.
    fn text(&self, def: &ConfigDef) -> Option<String> {
        let valid = |value: &&String| validate::value(def, value).is_ok();
        if let Some(value) = self.topic.get(def.name).filter(valid) {
            return Some(value.trim().to_owned());
        }
        for synonym in def.synonyms {
            for layer in self.brokers {
                let Some(value) = layer.get(synonym.name).map(|value| value.trim()) else { continue };
                let value = match value.parse::<i64>() {
                    // Negative means no limit, whatever the unit.
                    Ok(number) if number < 0 && (synonym.factor != 1 || def.name == "retention.ms") => "-1".to_owned(),
                    Ok(number) if synonym.factor != 1 => number.saturating_mul(synonym.factor).to_string(),
                    _ => value.to_owned(),
                };
                if validate::value(def, &value).is_ok() {
                    return Some(value);
                }
            }
        }
        def.default.map(str::to_owned)
    }

    fn get(&self, name: &'static str) -> Option<String> {
        self.text(topic_config(name)?)
    }

    fn number<T: std::str::FromStr + Default>(&self, name: &'static str) -> T {
        self.get(name).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    fn flag(&self, name: &'static str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

/// The value of a topic or group setting as text: its own, else that of the broker settings behind it, converted to its unit, else the default.
pub fn effective_text(
    def: &ConfigDef,
    own: &BTreeMap<String, String>,
    dynamic_broker: &BTreeMap<String, String>,
    static_broker: &BTreeMap<String, String>,
) -> Option<String> {
    Layers { topic: own, brokers: [dynamic_broker, static_broker] }.text(def)
}

impl TopicConfig {
    /// Resolves the settings of a topic. Values are known to be valid (they were checked when set); one that isn't counts as unset.
    pub fn resolve(
        topic: &BTreeMap<String, String>,
        dynamic_broker: &BTreeMap<String, String>,
        static_broker: &BTreeMap<String, String>,
    ) -> Self {
        let layers = Layers { topic, brokers: [dynamic_broker, static_broker] };
        let policy = layers.get("cleanup.policy").unwrap_or_default();
        let policies: Vec<_> = policy.split(',').map(str::trim).collect();
        let compact = policies.contains(&"compact");
        let segment_bytes = match layers.get("internal.segment.bytes").and_then(|value| value.parse().ok()) {
            Some(bytes) => bytes,
            None => layers.number("segment.bytes"),
        };
        Self {
            delete: policies.contains(&"delete"),
            compact,
            compression_gzip_level: layers.number("compression.gzip.level"),
            compression_zstd_level: layers.number("compression.zstd.level"),
            compression_type: layers.get("compression.type").unwrap_or_default(),
            delete_retention_ms: layers.number("delete.retention.ms"),
            file_delete_delay_ms: layers.number("file.delete.delay.ms"),
            flush_messages: layers.number("flush.messages"),
            flush_ms: layers.number("flush.ms"),
            index_interval_bytes: layers.number("index.interval.bytes"),
            local_retention_bytes: layers.number("local.retention.bytes"),
            local_retention_ms: layers.number("local.retention.ms"),
            max_compaction_lag_ms: layers.number("max.compaction.lag.ms"),
            max_message_bytes: layers.number("max.message.bytes"),
            message_timestamp_after_max_ms: layers.number("message.timestamp.after.max.ms"),
            message_timestamp_before_max_ms: layers.number("message.timestamp.before.max.ms"),
            log_append_time: layers.get("message.timestamp.type").as_deref() == Some("LogAppendTime"),
            min_cleanable_dirty_ratio: layers.number("min.cleanable.dirty.ratio"),
            min_compaction_lag_ms: layers.number("min.compaction.lag.ms"),
            min_insync_replicas: layers.number("min.insync.replicas"),
            remote_storage_enable: layers.flag("remote.storage.enable"),
            remote_log_copy_disable: layers.flag("remote.log.copy.disable"),
            remote_log_delete_on_disable: layers.flag("remote.log.delete.on.disable"),
            retention_bytes: layers.number("retention.bytes"),
            retention_ms: layers.number("retention.ms"),
            segment_bytes,
            segment_jitter_ms: layers.number("segment.jitter.ms"),
            segment_ms: layers.number("segment.ms"),
            unclean_leader_election_enable: layers.flag("unclean.leader.election.enable"),
        }
    }
}
