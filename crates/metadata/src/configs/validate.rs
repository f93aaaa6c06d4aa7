//! Checks of single values and of values together, in the words of Kafka's refusals.

use std::collections::BTreeMap;

use super::{Check, ConfigDef, ConfigType, broker_config, broker_configs, group_configs, topic_config};

const REMOTE_STORAGE: &str = "remote.storage.enable";
/// Longest value of any setting, bytes.
const VALUE_BYTES_MAX: usize = 32 * 1024;

fn invalid(def: &ConfigDef, value: &str, reason: &str) -> Result<(), String> {
    let value = if def.sensitive() { "[hidden]" } else { value };
    Err(format!("Invalid value {value} for configuration {}: {reason}", def.name))
}

/// Checks type and bounds of a value.
pub(super) fn value(def: &ConfigDef, value: &str) -> Result<(), String> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!("Invalid value for configuration {}: longer than {VALUE_BYTES_MAX} bytes", def.name));
    }
    let trimmed = value.trim();
    match def.kind {
        ConfigType::Boolean if trimmed.eq_ignore_ascii_case("true") || trimmed.eq_ignore_ascii_case("false") => Ok(()),
        ConfigType::Boolean => invalid(def, trimmed, "Expected value to be either true or false"),
        ConfigType::Int => integer(def, trimmed, i64::from(i32::MIN)..=i64::from(i32::MAX), "INT"),
        ConfigType::Short => integer(def, trimmed, i64::from(i16::MIN)..=i64::from(i16::MAX), "SHORT"),
        ConfigType::Long => integer(def, trimmed, i64::MIN..=i64::MAX, "LONG"),
        ConfigType::Double => match trimmed.parse::<f64>() {
            Ok(number) => bounds_f(def, number),
            Err(_) => invalid(def, trimmed, "Not a number of type DOUBLE"),
        },
        ConfigType::List => list(def, trimmed),
        ConfigType::String | ConfigType::Class | ConfigType::Password => word(def, trimmed),
    }
}

fn integer(def: &ConfigDef, text: &str, range: std::ops::RangeInclusive<i64>, kind: &str) -> Result<(), String> {
    match text.parse::<i64>() {
        Ok(number) if range.contains(&number) => bounds(def, number),
        _ => invalid(def, text, &format!("Not a number of type {kind}")),
    }
}

fn bounds(def: &ConfigDef, number: i64) -> Result<(), String> {
    let text = number.to_string();
    match def.check {
        Check::AtLeast(least) | Check::Between(least, _) if number < least => {
            invalid(def, &text, &format!("Value must be at least {least}"))
        }
        Check::Between(_, most) if number > most => invalid(def, &text, &format!("Value must be no more than {most}")),
        Check::MinusOneOrBetween(least, most) if number != -1 && !(least..=most).contains(&number) => {
            invalid(def, &text, &format!("Value must be between {least} and {most} or equal to -1"))
        }
        Check::NotZero if number == 0 => invalid(def, &text, "Value must be at least 1, or -1 for no limit"),
        _ => Ok(()),
    }
}

fn bounds_f(def: &ConfigDef, number: f64) -> Result<(), String> {
    let text = format!("{number:?}");
    match def.check {
        Check::BetweenF(least, _) if number < least || number.is_nan() => invalid(def, &text, &format!("Value must be at least {least}")),
        Check::BetweenF(_, most) if number > most => invalid(def, &text, &format!("Value must be no more than {most}")),
        _ => Ok(()),
    }
}

fn word(def: &ConfigDef, text: &str) -> Result<(), String> {
    match def.check {
        Check::OneOf(words) if !words.contains(&text) => invalid(def, text, &format!("String must be one of: {}", words.join(", "))),
        Check::OneOfAnyCase(words) if !words.iter().any(|word| word.eq_ignore_ascii_case(text)) => {
            invalid(def, text, &format!("String must be one of (case insensitive): {}", words.join(", ")))
        }
        Check::AddressLimits => match items(text).find(|item| !is_address_limit(item)) {
            Some(item) => invalid(def, item, "give an IP address and a number of connections: 10.0.0.1:100,[::1]:50"),
            None => Ok(()),
        },
        Check::ShareOffsetReset if !is_share_offset_reset(text) => {
            invalid(def, text, "the format should be 'earliest', 'latest' or 'by_duration:PnDTnHnMn.nS'")
        }
        _ => Ok(()),
    }
}

fn is_address_limit(item: &str) -> bool {
    let parts = item.rsplit_once(':').map(|(host, limit)| (host.trim_matches(['[', ']']), limit.trim()));
    parts.is_some_and(|(host, limit)| host.parse::<std::net::IpAddr>().is_ok() && limit.parse::<u32>().is_ok())
}

fn is_share_offset_reset(text: &str) -> bool {
    let duration = |text: &str| {
        text.strip_prefix('P').is_some_and(|rest| rest.len() > 1 && rest.chars().all(|c| c.is_ascii_digit() || "DTHMS.".contains(c)))
    };
    matches!(text, "earliest" | "latest") || text.strip_prefix("by_duration:").is_some_and(duration)
}

/// The items of a list; an empty text has none.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|_| !text.trim().is_empty())
}

fn list(def: &ConfigDef, text: &str) -> Result<(), String> {
    let items: Vec<_> = items(text).collect();
    match def.check {
        Check::ListOf(words) => match items.iter().find(|item| !words.contains(item)) {
            Some(item) => invalid(def, item, &format!("String must be one of: {}", words.join(", "))),
            None => Ok(()),
        },
        Check::ThrottledReplicas => {
            let number = |text: &str| text.parse::<u32>().is_ok();
            let pair = |item: &&str| item.split_once(':').is_some_and(|(partition, broker)| number(partition) && number(broker));
            if items == ["*"] || items.iter().all(pair) {
                return Ok(());
            }
            let text = format!("[{}]", items.join(", "));
            let reason = "must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...";
            invalid(def, &text, &format!("{} {reason}", def.name))
        }
        _ => Ok(()),
    }
}

/// Checks the settings of one topic against each other.
pub(crate) fn validate_topic_configs_together(configs: &BTreeMap<String, String>) -> Result<(), String> {
    let number = |name: &str| {
        let text = configs.get(name).map(String::as_str).or_else(|| topic_config(name)?.default)?;
        text.trim().parse::<i64>().ok()
    };
    if let (Some(least), Some(most)) = (number("min.compaction.lag.ms"), number("max.compaction.lag.ms"))
        && least > most
    {
        return Err(format!("conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})"));
    }
    // Where tiering was not asked for but is the default, what Kafka accepts is accepted.
    if configs.get("remote.storage.enable").is_none_or(|value| !value.trim().eq_ignore_ascii_case("true")) {
        return Ok(());
    }
    if configs.get("cleanup.policy").is_some_and(|policy| policy.split(',').any(|item| item.trim() == "compact")) {
        return Err("Remote log storage only supports topics with cleanup.policy=delete or cleanup.policy being an empty list.".into());
    }
    for unit in ["ms", "bytes"] {
        let (total_name, local_name) = (format!("retention.{unit}"), format!("local.retention.{unit}"));
        let (Some(total), Some(local)) = (number(&total_name), number(&local_name)) else { continue };
        if total == -1 || local == -2 {
            continue;
        }
        if local == -1 {
            return Err(format!(
                "Invalid value -1 for configuration {local_name}: Value must not be -1 as {total_name} value is set as {total}."
            ));
        }
        if local > total {
            return Err(format!(
                "Invalid value {local} for configuration {local_name}: Value must not be more than {total_name} property value: {total}"
            ));
        }
    }
    let copy_disabled = configs.get("remote.log.copy.disable").is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
    for unit in ["bytes", "ms"] {
        let (total, local) = (number(&format!("retention.{unit}")), number(&format!("local.retention.{unit}")));
        if copy_disabled && local != Some(-2) && local != total {
            return Err(format!(
                "When `remote.log.copy.disable` is set to true, the `local.retention.{unit}` and `retention.{unit}` must be set to the identical value because there will be no more logs copied to the remote storage."
            ));
        }
    }
    Ok(())
}

/// Checks what a change of a topic's settings does to what is in the bucket.
pub(crate) fn validate_remote_storage_change(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    system_enabled: bool,
) -> Result<(), String> {
    let flag = |configs: &BTreeMap<String, String>, name: &str, default: bool| {
        configs.get(name).map_or(default, |value| value.trim().eq_ignore_ascii_case("true"))
    };
    if !system_enabled && flag(after, REMOTE_STORAGE, false) && !flag(before, REMOTE_STORAGE, false) {
        return Err("Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.".into());
    }
    // On by default here, so a topic that says nothing has something in the bucket, too.
    if flag(before, REMOTE_STORAGE, system_enabled)
        && !flag(after, REMOTE_STORAGE, true)
        && !flag(after, "remote.log.delete.on.disable", false)
    {
        return Err("It is invalid to disable remote storage without deleting remote data. \
             If you want to keep the remote data and turn to read only, please set `remote.storage.enable=true,remote.log.copy.disable=true`. \
             If you want to disable remote storage and delete all remote data, please set `remote.storage.enable=false,remote.log.delete.on.disable=true`."
            .into());
    }
    Ok(())
}

/// Checks a broker setting that is to change while running.
pub(crate) fn validate_dynamic_broker_config(name: &str, text: &str) -> Result<(), String> {
    let def = broker_config(name).ok_or_else(|| unknown_broker_config(name))?;
    if !def.dynamic {
        return Err(format!("Cannot update these configs dynamically: [{name}]"));
    }
    if PER_LISTENER.contains(&name) {
        return Err(format!("These security configs can be dynamically updated only per-listener using the listener prefix: [{name}]"));
    }
    value(def, text)
}

/// Settings that belong to one listener.
const PER_LISTENER: [&str; 10] = [
    "ssl.key.password",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.type",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
];

/// Settings that belong to one broker, never to all; and those of TLS and SASL.
const PER_BROKER: [&str; 4] = ["advertised.listeners", "broker.rack", "listener.security.protocol.map", "listeners"];

/// Checks a broker setting that is to change for all brokers while running.
pub(crate) fn validate_cluster_default(name: &str, text: &str) -> Result<(), String> {
    let refusal = format!("Cannot update these configs at default cluster level, broker id must be specified: [{name}]");
    if PER_BROKER.contains(&name) {
        return Err(refusal);
    }
    validate_dynamic_broker_config(name, text)?;
    let is_security = name.starts_with("ssl.") || name.starts_with("sasl.") || name == "principal.builder.class";
    if is_security { Err(refusal) } else { Ok(()) }
}

/// Checks a setting of a subscription to clients' metrics (KIP-714).
pub(crate) fn validate_client_metrics_config(name: &str, text: &str) -> Result<(), String> {
    super::client_metrics::validate(name, text)
}

/// Checks a group's settings against the bounds that the brokers set.
pub(crate) fn validate_group_configs_together(
    configs: &BTreeMap<String, String>,
    broker: &dyn Fn(&str) -> Option<String>,
) -> Result<(), String> {
    for (name, text) in configs {
        let Some((kind, rest)) = name.split_once('.') else { continue };
        let Ok(value) = text.trim().parse::<i64>() else { continue };
        let bound = |which: &str| {
            let name = format!("group.{kind}.{which}.{rest}");
            let bound = broker(&name)?.trim().parse::<i64>().ok()?;
            Some((name, bound))
        };
        if let Some((bound, least)) = bound("min")
            && value < least
        {
            return Err(format!("{name} must be greater than or equal to {bound}"));
        }
        if let Some((bound, most)) = bound("max")
            && value > most
        {
            return Err(format!("{name} must be less than or equal to {bound}"));
        }
    }
    Ok(())
}

/// Checks a group setting.
pub(crate) fn validate_group_config(name: &str, text: &str) -> Result<(), String> {
    let def = group_configs().iter().find(|def| def.name == name).ok_or_else(|| format!("Unknown group config name: {name}"))?;
    value(def, text)
}

/// A sentence about a broker setting that does not exist.
pub(super) fn unknown_broker_config(name: &str) -> String {
    match nearest(name, broker_configs().iter().map(|def| def.name)) {
        Some(near) => format!("Unknown broker config name: {name}. Did you mean {near}?"),
        None => format!("Unknown broker config name: {name}"),
    }
}

/// The known name that differs least from `name`, if any is close.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.chars().take(256).collect();
    let best = known.into_iter().map(|candidate| (distance(&name, candidate), candidate)).min()?;
    (best.0 <= 2 + name.len() / 4).then_some(best.1)
}

/// Levenshtein's distance.
fn distance(name: &[char], other: &str) -> usize {
    let mut row: Vec<usize> = (0..=name.len()).collect();
    for (index, c) in other.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, d) in name.iter().enumerate() {
            let substituted = diagonal + usize::from(*d != c);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[name.len()]
}
