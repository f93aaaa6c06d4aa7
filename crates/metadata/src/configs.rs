//! Kafka's settings that mean something here: names, types, defaults, validation, documentation in our own words.
//!
//! Names, types, defaults, bounds and the words of refusals are those of Apache Kafka 4.3.1. Some defaults differ, on purpose:
//! `flush.messages` (`log.flush.interval.messages`) is 1, `remote.storage.enable` and `remote.log.storage.system.enable` are true,
//! connections have limits (`max.connections`, `max.connections.per.ip`), and logs are not kept in a temporary directory.

mod broker_config;
mod broker_foreign;
mod broker_group;
mod broker_log;
mod broker_security;
mod broker_server;
mod broker_unlisted;
pub mod client_metrics;
mod group;
mod resolve;
mod topic;
mod validate;

use std::sync::LazyLock;

pub use broker_config::BrokerConfig;
pub use resolve::{TopicConfig, effective_text};
pub use validate::nearest;
pub(crate) use validate::{
    validate_client_metrics_config, validate_cluster_default, validate_dynamic_broker_config, validate_group_config,
    validate_group_configs_together, validate_remote_storage_change, validate_topic_configs_together,
};

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

/// What values a setting may have, beside its type.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Check {
    /// Any.
    Any,
    /// A number from this on.
    AtLeast(i64),
    /// A number within these, both included.
    Between(i64, i64),
    /// A floating-point number within these, both included.
    BetweenF(f64, f64),
    /// -1 or within these, both included.
    MinusOneOrBetween(i64, i64),
    /// Any number but 0; negative for no limit.
    NotZero,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// One of these words, in any case.
    OneOfAnyCase(&'static [&'static str]),
    /// A list of these words.
    ListOf(&'static [&'static str]),
    /// A list of `address:limit`. Names are not resolved, so they are refused rather than forgotten.
    AddressLimits,
    /// `*` or a list of `partition:broker`.
    ThrottledReplicas,
    /// `earliest`, `latest` or `by_duration:PnDTnHnMn.nS` (KIP-932).
    ShareOffsetReset,
}

/// A broker setting that gives the default of a topic or group setting.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// Its name.
    pub name: &'static str,
    /// Its unit in units of the setting: 60,000 for minutes where the setting counts milliseconds.
    pub factor: i64,
}

/// One setting.
#[derive(Copy, Clone, Debug)]
pub struct ConfigDef {
    /// Kafka's name.
    pub name: &'static str,
    /// Its type.
    pub kind: ConfigType,
    /// Default, as text; `None` for null.
    pub default: Option<&'static str>,
    /// What values it may have.
    pub check: Check,
    /// For topic settings: the broker setting that gives the default (`log.retention.ms` for `retention.ms`): the first of `synonyms`.
    pub broker_synonym: Option<&'static str>,
    /// All broker settings that give the default, first come first served.
    pub synonyms: &'static [Synonym],
    /// May change while running (brokers); always true for topics and groups.
    pub dynamic: bool,
    /// Kafka does not list it: a setting for tests. One of a broker is of the authorizer: listed where it is set, without its value.
    pub internal: bool,
    /// What it does.
    pub documentation: &'static str,
}

impl ConfigDef {
    /// Shown only where it is set.
    pub fn unlisted(&self) -> bool {
        self.internal || broker_unlisted::ALL.iter().any(|def| def.name == self.name)
    }

    /// A secret is never shown.
    pub fn sensitive(&self) -> bool {
        self.kind == ConfigType::Password || self.internal
    }
}

/// The setting that says how many replicas must have a record before it counts.
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// The one `authorizer.class.name` that is served.
pub const STANDARD_AUTHORIZER: &str = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";

/// All topic settings, by name.
pub fn topic_configs() -> &'static [ConfigDef] {
    topic::ALL
}

/// All broker settings, by name.
pub fn broker_configs() -> &'static [ConfigDef] {
    static ALL: LazyLock<Vec<ConfigDef>> = LazyLock::new(|| {
        let tables =
            [broker_foreign::ALL, broker_group::ALL, broker_log::ALL, broker_security::ALL, broker_server::ALL, broker_unlisted::ALL];
        let mut all: Vec<_> = tables.into_iter().flatten().copied().collect();
        all.sort_unstable_by_key(|def| def.name);
        all
    });
    &ALL
}

/// All group settings, by name (KIP-848, KIP-932, KIP-1071).
pub fn group_configs() -> &'static [ConfigDef] {
    group::ALL
}

/// All settings of a subscription to clients' metrics, by name (KIP-714).
pub fn client_metrics_configs() -> &'static [ConfigDef] {
    client_metrics::ALL
}

/// The topic setting of that name.
pub fn topic_config(name: &str) -> Option<&'static ConfigDef> {
    find(topic_configs(), name)
}

/// The broker setting of that name.
pub fn broker_config(name: &str) -> Option<&'static ConfigDef> {
    find(broker_configs(), name)
}

fn find(all: &'static [ConfigDef], name: &str) -> Option<&'static ConfigDef> {
    all.binary_search_by_key(&name, |def| def.name).ok().map(|index| &all[index])
}

/// Checks a topic setting's name and value; the error is a sentence for the client.
pub fn validate_topic_config(name: &str, value: &str) -> Result<(), String> {
    let def = topic_config(name).ok_or_else(|| format!("Unknown topic config name: {name}"))?;
    validate::value(def, value)
}

/// Checks a broker setting's name and value. An unknown name is refused with the nearest known one.
pub fn validate_broker_config(name: &str, value: &str) -> Result<(), String> {
    let def = broker_config(name).ok_or_else(|| validate::unknown_broker_config(name))?;
    validate::value(def, value)
}

/// A setting without synonyms; the building block of the tables.
const fn def(name: &'static str, kind: ConfigType, default: &'static str, check: Check, documentation: &'static str) -> ConfigDef {
    ConfigDef {
        name,
        kind,
        default: Some(default),
        check,
        broker_synonym: None,
        synonyms: &[],
        dynamic: true,
        internal: false,
        documentation,
    }
}

impl ConfigDef {
    const fn or_broker(mut self, synonyms: &'static [Synonym]) -> Self {
        self.broker_synonym = Some(synonyms[0].name);
        self.synonyms = synonyms;
        self
    }

    const fn without_default(mut self) -> Self {
        self.default = None;
        self
    }

    const fn hidden(mut self) -> Self {
        self.internal = true;
        self
    }

    const fn read_only(mut self) -> Self {
        self.dynamic = false;
        self
    }
}

const fn same(name: &'static str) -> Synonym {
    Synonym { name, factor: 1 }
}

const fn minutes(name: &'static str) -> Synonym {
    Synonym { name, factor: 60_000 }
}

const fn hours(name: &'static str) -> Synonym {
    Synonym { name, factor: 3_600_000 }
}

#[cfg(test)]
mod tests;
