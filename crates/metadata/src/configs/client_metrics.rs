//! The settings of a subscription to clients' metrics (KIP-714).

use super::Check::{Any, Between};
use super::ConfigType::{Int, List};
use super::{ConfigDef, def, validate};

/// What a subscription can match a client by.
pub const MATCH_SELECTORS: [&str; 6] =
    ["client_id", "client_instance_id", "client_software_name", "client_software_version", "client_source_address", "client_source_port"];
/// Pushes are never asked for more often than this, ms.
pub const INTERVAL_MS_MIN: i64 = 100;
/// Nor more seldom, ms.
pub const INTERVAL_MS_MAX: i64 = 3_600_000;

/// Sorted by name.
pub(super) static ALL: &[ConfigDef] = &[
    def(
        "interval.ms",
        Int,
        "300000",
        Between(INTERVAL_MS_MIN, INTERVAL_MS_MAX),
        "How often the clients that match send their metrics, in ms.",
    ),
    def(
        "match",
        List,
        "",
        Any,
        "Which clients the subscription is for: selector=regular expression, separated by commas; all must match. Selectors are \
         client_id, client_instance_id, client_software_name, client_software_version, client_source_address and client_source_port.",
    ),
    def("metrics", List, "", Any, "Prefixes of the names of the metrics to send; * for all, nothing for none."),
];

/// Checks a setting, in the words of Kafka's refusals.
pub(super) fn validate(name: &str, text: &str) -> Result<(), String> {
    let def = ALL.iter().find(|def| def.name == name).ok_or_else(|| format!("Unknown client metrics configuration: {name}"))?;
    if name == "interval.ms"
        && let Ok(interval) = text.trim().parse::<i64>()
        && !(INTERVAL_MS_MIN..=INTERVAL_MS_MAX).contains(&interval)
    {
        return Err(format!(
            "Invalid value {interval} for interval.ms, interval must be between {INTERVAL_MS_MIN} and {INTERVAL_MS_MAX} (1 hour)"
        ));
    }
    if name == "match" {
        for pattern in validate::items(text) {
            selector(pattern)?;
        }
    }
    validate::value(def, text)
}

/// A matching pattern taken apart: selector and expression.
pub fn selector(pattern: &str) -> Result<(&str, &str), String> {
    let refuse = || format!("Illegal client matching pattern: {pattern}");
    let (name, expression) = pattern.split_once('=').ok_or_else(refuse)?;
    let (name, expression) = (name.trim(), expression.trim());
    if expression.is_empty() || !MATCH_SELECTORS.contains(&name) {
        return Err(refuse());
    }
    Ok((name, expression))
}
