//! Kafka's settings that mean something here: names, types, defaults, validation, documentation in our own words.

use std::collections::BTreeMap;

/// Kafka's types, as DescribeConfigs reports them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ConfigType {
    /// true or false
    Boolean,
    /// Text
    String,
    /// 32 bits
    Int,
    /// 64 bits
    Long,
    /// 16 bits
    Short,
    /// Floating point
    Double,
    /// Comma-separated
    List,
    /// A class name
    Class,
    /// A secret, never shown
    Password,
}

/// One setting.
#[derive(Debug)]
pub struct ConfigDef {
    /// Kafka's name.
    pub name: &'static str,
    /// Its type.
    pub kind: ConfigType,
    /// Default, as text; `None` for null.
    pub default: Option<&'static str>,
    /// For topic settings: the broker setting that gives the default (`log.retention.ms` for `retention.ms`).
    pub broker_synonym: Option<&'static str>,
    /// May change while running (brokers); always true for topics.
    pub dynamic: bool,
    /// What it does.
    pub documentation: &'static str,
}

/// All topic settings.
pub fn topic_configs() -> &'static [ConfigDef] {
    todo!()
}

/// All broker settings.
pub fn broker_configs() -> &'static [ConfigDef] {
    todo!()
}

/// Checks a topic setting's name and value; the error is a sentence for the client.
pub fn validate_topic_config(name: &str, value: &str) -> Result<(), String> {
    let _ = (name, value);
    todo!()
}

/// Checks a broker setting's name and value.
pub fn validate_broker_config(name: &str, value: &str) -> Result<(), String> {
    let _ = (name, value);
    todo!()
}

/// A topic's settings with defaults resolved: topic override, else dynamic broker setting, else static broker setting
/// (`--set`, configuration file), else default.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy` contains delete
    pub delete: bool,
    /// `cleanup.policy` contains compact
    pub compact: bool,
    /// `compression.type`
    pub compression_type: String,
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

impl TopicConfig {
    /// Resolves the settings of a topic. Values are known to be valid (they were checked when set); one that isn't counts as unset.
    pub fn resolve(
        topic: &BTreeMap<String, String>,
        dynamic_broker: &BTreeMap<String, String>,
        static_broker: &BTreeMap<String, String>,
    ) -> Self {
        let _ = (topic, dynamic_broker, static_broker);
        todo!()
    }
}
