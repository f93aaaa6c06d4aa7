//! Replaces what differs from run to run (ids, addresses, clocks) by stable names, so that two brokers' answers can be compared.

use crate::batch;
use crate::debug_json::BYTES_PREFIX;
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// Arrays of objects are sorted by the first of these that every element has: brokers may answer in any order.
const SORT_KEYS: [&str; 10] = [
    "name",
    "topic_name",
    "topic",
    "resource_name",
    "group_id",
    "group_instance_id",
    "client_id",
    "partition_index",
    "partition",
    "api_key",
];
const HALF_HOUR_MS: i64 = 30 * 60 * 1000;
const THIRTY_DAYS_MS: i64 = 30 * 86_400_000;

/// Gives each volatile value a name by order of first appearance within one scenario.
pub struct Normaliser {
    start_ms: i64,
    seen: Vec<(&'static str, String)>,
}

impl Normaliser {
    /// A normaliser for one run of one scenario; `start_ms` is the scenario's own time origin, an hour before now.
    pub fn new(start_ms: i64) -> Normaliser {
        Normaliser { start_ms, seen: Vec::new() }
    }

    /// The stable form of a decoded answer.
    pub fn apply(&mut self, mut answer: Value) -> Value {
        sort_arrays(&mut answer);
        self.value("", &mut answer);
        answer
    }

    fn value(&mut self, field: &str, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("unknown_tagged_fields");
                if let Some(Value::String(records)) = fields.get("records")
                    && let Some(hex) = records.strip_prefix(BYTES_PREFIX)
                {
                    let described = batch::describe(&unhex(hex));
                    fields.insert("records".into(), described);
                }
                let mut fields: Vec<_> = fields.iter_mut().collect();
                fields.sort_by(|a, b| a.0.cmp(b.0)); // whatever order the map keeps
                for (name, field) in fields {
                    self.value(name, field);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(field, item)),
            Value::String(text) => *text = self.text(field, text),
            Value::Number(number) => {
                if let Some(name) = number.as_i64().and_then(|n| self.number(field, n)) {
                    *value = name.into();
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, field: &str, text: &str) -> String {
        match field {
            "host" => return "<host>".into(),
            "cluster_id" => return "<cluster-id>".into(),
            "log_dir" => return "<log-dir>".into(),
            "client_host" => return "<client-host>".into(),
            _ => {}
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = (0..rest.len()).find(|at| is_uuid_at(rest, *at)) {
            out.push_str(&rest[..at]);
            let uuid = &rest[at..at + 36];
            match uuid.starts_with("00000000-0000-0000-0000-00000000000") {
                true => out.push_str(uuid),
                false => out.push_str(&self.name("uuid", uuid)),
            }
            rest = &rest[at + 36..];
        }
        without_times(&(out + rest))
    }

    fn number(&mut self, field: &str, n: i64) -> Option<String> {
        match field {
            "port" => return Some("<port>".into()),
            "session_id" if n > 0 => return Some(self.name("session", &n.to_string())),
            "producer_id" if n >= 0 => return Some(self.name("pid", &n.to_string())),
            "total_bytes" | "usable_bytes" if n >= 0 => return Some("<bytes>".into()),
            _ => {}
        }
        if (self.start_ms..self.start_ms + 100_000).contains(&n) {
            return Some(format!("<start+{}>", n - self.start_ms));
        }
        let ahead_ms = n - now_ms();
        if (ahead_ms - THIRTY_DAYS_MS).abs() < 2 * HALF_HOUR_MS {
            return Some("<now+30d>".into());
        }
        (ahead_ms.abs() < HALF_HOUR_MS).then(|| "<now>".into())
    }

    fn name(&mut self, kind: &'static str, value: &str) -> String {
        let of_kind = self.seen.iter().filter(|(k, _)| *k == kind);
        let position = of_kind.clone().position(|(_, v)| v == value);
        let number = position.unwrap_or_else(|| of_kind.count());
        if position.is_none() {
            self.seen.push((kind, value.to_owned()));
        }
        format!("<{kind}-{}>", number + 1)
    }
}

/// `text` with every time in ms since 1970 (13 digits) replaced.
fn without_times(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        out.push_str(&rest[..at]);
        let number = rest[at..].split(|c: char| !c.is_ascii_digit()).next();
        let number = number.unwrap_or_default();
        out.push_str(if number.len() == 13 { "<ms>" } else { number });
        rest = &rest[at + number.len()..];
    }
    out + rest
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as i64)
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    digits.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn is_uuid_at(text: &str, at: usize) -> bool {
    text.is_char_boundary(at) && text.get(at..at + 36).is_some_and(|t| uuid::Uuid::try_parse(t).is_ok())
}

fn sort_arrays(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(sort_arrays);
            // A set: Kafka gives it in the order of its hashes.
            if let Some(Value::Array(items)) = fields.get_mut("partitions")
                && items.iter().all(Value::is_number)
            {
                items.sort_by_key(Value::as_i64);
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(sort_arrays);
            let key = SORT_KEYS.into_iter().find(|key| {
                let mut values = items.iter().map(|item| item.get(key));
                values.all(|v| v.is_some_and(|v| !v.is_null()))
            });
            // ACLs have no name of their own, and Kafka gives them in the order of its hashes.
            if items.iter().all(|item| item.get("permission_type").or(item.get("acls")).is_some()) {
                items.sort_by_cached_key(Value::to_string);
            } else if let Some(key) = key {
                items.sort_by(|a, b| {
                    let (a, b) = (&a[key], &b[key]);
                    (a.as_i64(), a.as_str()).cmp(&(b.as_i64(), b.as_str()))
                });
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn volatile_values_get_names_in_order_of_appearance() {
        let start = now_ms() - 3_600_000;
        let mut normaliser = Normaliser::new(start);
        let (a, b) = ("5b2f1c6e-0000-4000-8000-0000000000aa", "5b2f1c6e-0000-4000-8000-0000000000bb");
        let answer = normaliser.apply(json!({
            "members": [format!("client-{a}"), format!("client-{b}")], "leader": format!("client-{a}"), "port": 4711,
            "t": start + 5, "timestamp": now_ms(), "producer_id": 12, "other": 12,
            "topics": [{"name": "b", "topic_id": b}, {"name": "a", "topic_id": a}],
        }));
        assert_eq!(
            answer,
            json!({
                "members": ["client-<uuid-1>", "client-<uuid-2>"], "leader": "client-<uuid-1>", "port": "<port>",
                "t": "<start+5>", "timestamp": "<now>", "producer_id": "<pid-1>", "other": 12,
                "topics": [{"name": "a", "topic_id": "<uuid-1>"}, {"name": "b", "topic_id": "<uuid-2>"}],
            })
        );
    }
}
