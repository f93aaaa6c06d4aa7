//! What one client is asked for: all subscriptions that match it, put together.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use regex::Regex;
use siltstone_metadata::configs::client_metrics::selector;
use uuid::Uuid;

/// Kafka's default of `interval.ms`.
const INTERVAL_MS: u32 = 300_000;

/// What is known of a client.
pub(crate) struct ClientFacts<'a> {
    pub instance: Uuid,
    pub client_id: &'a str,
    /// Name and version, as it called itself in ApiVersions.
    pub software: (&'a str, &'a str),
    pub peer: SocketAddr,
}

/// The parts of the stored subscriptions that are for one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    /// Changes whenever the rest does.
    pub(super) id: i32,
    pub(super) interval_ms: u32,
    /// Prefixes of names; one empty prefix for all.
    pub(super) metrics: Vec<String>,
}

pub(super) fn subscription_of(stored: &BTreeMap<String, BTreeMap<String, String>>, facts: &ClientFacts<'_>) -> Subscription {
    let mut interval_ms: Option<u32> = None;
    let mut metrics: Vec<String> = Vec::new();
    for configs in stored.values().filter(|configs| matches(configs.get("match").map_or("", String::as_str), facts)) {
        let interval = configs.get("interval.ms").and_then(|text| text.trim().parse().ok()).unwrap_or(INTERVAL_MS);
        interval_ms = Some(interval_ms.map_or(interval, |known| known.min(interval)));
        let names = configs.get("metrics").map_or("", String::as_str);
        metrics.extend(names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned));
    }
    // One for all leaves nothing for the others to add.
    if metrics.iter().any(|name| name == "*") {
        metrics = vec![String::new()];
    }
    metrics.sort();
    metrics.dedup();
    let interval_ms = interval_ms.unwrap_or(INTERVAL_MS);
    let text = format!("{interval_ms};{}", metrics.join(";"));
    Subscription { id: checksum(text.as_bytes()), interval_ms, metrics }
}

/// FNV-1a: any change of the text changes it, for all that matters here.
fn checksum(bytes: &[u8]) -> i32 {
    bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)).cast_signed()
}

/// True if every pattern matches the whole of what it is for; an expression that this engine can't read matches nothing.
fn matches(patterns: &str, facts: &ClientFacts<'_>) -> bool {
    let patterns = patterns.split(',').map(str::trim).filter(|pattern| !pattern.is_empty());
    patterns.into_iter().all(|pattern| {
        let Ok((name, expression)) = selector(pattern) else { return false };
        let Ok(expression) = Regex::new(&format!("^(?:{expression})$")) else { return false };
        expression.is_match(&fact(name, facts))
    })
}

fn fact(name: &str, facts: &ClientFacts<'_>) -> String {
    match name {
        "client_id" => facts.client_id.to_owned(),
        // Kafka's form of ids, as clients show them.
        "client_instance_id" => base64_of(facts.instance),
        "client_software_name" => facts.software.0.to_owned(),
        "client_software_version" => facts.software.1.to_owned(),
        "client_source_address" => facts.peer.ip().to_string(),
        "client_source_port" => facts.peer.port().to_string(),
        _ => String::new(),
    }
}

/// An id as 22 characters of URL-safe base64.
fn base64_of(id: Uuid) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = id.as_u128();
    // 128 bits are 21 digits of six bits and one of two, whose low four bits are zero.
    let digit = |index: u32| if index < 21 { (bits >> (122 - 6 * index)) & 63 } else { (bits & 3) << 4 };
    (0..22).map(|index| char::from(DIGITS[usize::try_from(digit(index)).unwrap_or(0)])).collect()
}
