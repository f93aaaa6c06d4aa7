//! Golden files, comparison with them, and the list of differences on purpose.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The Kafka whose answers the golden files hold.
pub const KAFKA_VERSION: &str = "4.3.1";
/// What identifies an element of an array in a path.
const IDENTITY: [&str; 13] = [
    "name",
    "topic_name",
    "topic",
    "resource_name",
    "group_id",
    "group_instance_id",
    "member_id",
    "partition_index",
    "partition",
    "index",
    "api_key",
    "topic_id",
    "base_offset",
];
/// Fields whose wording is ours; only whether they are null, empty or a text is compared.
const TEXTS: [&str; 3] = ["error_message", "batch_index_error_message", "documentation"];
const LINE_MAX: usize = 150;

/// This crate's directory.
pub fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where the golden file of a scenario is.
pub fn path(scenario: &str) -> PathBuf {
    home().join("golden").join(format!("{scenario}.json"))
}

/// Writes the golden file of a scenario.
pub fn save(scenario: &str, steps: &[Value]) -> Result<()> {
    let file = json!({"scenario": scenario, "kafka": KAFKA_VERSION, "steps": steps});
    let mut text = String::new();
    write(&file, 0, &mut text);
    text.push('\n');
    std::fs::write(path(scenario), text).context("writing a golden file")
}

/// The recorded steps of a scenario.
pub fn load(scenario: &str) -> Result<Vec<Value>> {
    let path = path(scenario);
    let text = std::fs::read(&path).with_context(|| format!("{} is missing: record it (README.md)", path.display()))?;
    let file: Value = serde_json::from_slice(&text)?;
    Ok(file["steps"].as_array().cloned().unwrap_or_default())
}

/// JSON with short values on one line and fields in alphabetical order.
fn write(value: &Value, indent: usize, out: &mut String) {
    let line = one_line(value);
    if line.len() + indent <= LINE_MAX {
        return out.push_str(&line);
    }
    let pad = " ".repeat(indent + 1);
    match value {
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i == 0 { "[\n" } else { ",\n" });
                out.push_str(&pad);
                write(item, indent + 1, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> = fields.iter().collect();
            for (i, (name, field)) in fields.into_iter().enumerate() {
                out.push_str(if i == 0 { "{\n" } else { ",\n" });
                out.push_str(&format!("{pad}\"{name}\": "));
                write(field, indent + 1, out);
            }
            out.push('}');
        }
        _ => out.push_str(&line),
    }
}

fn one_line(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(one_line).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> = fields.iter().collect();
            let fields: Vec<_> = fields.iter().map(|(name, field)| format!("\"{name}\": {}", one_line(field))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

/// One field that differs.
#[derive(Debug)]
pub struct Diff {
    /// `step: field path`.
    pub path: String,
    /// What Kafka answered.
    pub kafka: String,
    /// What we answered.
    pub ours: String,
}

/// Every field in which `ours` differs from what Kafka answered.
pub fn compare(kafka: &[Value], ours: &[Value]) -> Vec<Diff> {
    let mut diffs = Vec::new();
    let name = |step: &Value| step["step"].as_str().unwrap_or_default().to_owned();
    for step in kafka {
        let path = format!("{}:", name(step));
        match ours.iter().find(|o| o["step"] == step["step"]) {
            Some(our) => compare_value(&path, &step["answer"], &our["answer"], &mut diffs),
            None => push(&mut diffs, &path, &step["answer"], &"<step not reached>".into()),
        }
    }
    for our in ours {
        if !kafka.iter().any(|k| k["step"] == our["step"]) {
            push(&mut diffs, &format!("{}:", name(our)), &"<not recorded>".into(), &our["answer"]);
        }
    }
    diffs
}

fn push(diffs: &mut Vec<Diff>, path: &str, kafka: &Value, ours: &Value) {
    let (path, kafka, ours) = (path.to_owned(), kafka.to_string(), ours.to_string());
    diffs.push(Diff { path, kafka, ours });
}

fn compare_value(path: &str, kafka: &Value, ours: &Value, diffs: &mut Vec<Diff>) {
    match (kafka, ours) {
        (Value::Object(k), Value::Object(o)) => {
            let mut names: Vec<_> = k.keys().chain(o.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let (mut k, mut o) = (kafka[name].clone(), ours[name].clone());
                if TEXTS.contains(&name.as_str()) {
                    for text in [&mut k, &mut o] {
                        *text = kind_of_text(text).into();
                    }
                }
                compare_value(&join(path, name), &k, &o, diffs);
            }
        }
        (Value::Array(k), Value::Array(o)) => {
            let (k, o) = (keyed(k), keyed(o));
            let mut names: Vec<_> = k.iter().chain(&o).map(|(name, _)| name).collect();
            names.sort();
            names.dedup();
            let absent = Value::String("<absent>".into());
            for name in names {
                let find = |list: &[(String, Value)]| {
                    let found = list.iter().find(|(n, _)| n == name);
                    found.map_or(absent.clone(), |(_, item)| item.clone())
                };
                compare_value(&format!("{path}[{name}]"), &find(&k), &find(&o), diffs);
            }
        }
        (k, o) if k == o => {}
        (k, o) => push(diffs, path, k, o),
    }
}

fn join(path: &str, name: &str) -> String {
    let dot = if path.ends_with(':') { " " } else { "." };
    format!("{path}{dot}{name}")
}

/// What a client can tell of a text without reading it; some take one that is there, be it empty, for an error.
fn kind_of_text(value: &Value) -> &'static str {
    match value.as_str() {
        None => "null",
        Some("") => "empty",
        Some(_) => "text",
    }
}

/// The elements of an array with the name each has in a path: its identity if that is unique, else its index.
fn keyed(items: &[Value]) -> Vec<(String, Value)> {
    let by_field = IDENTITY.into_iter().find_map(|field| {
        let mut names = Vec::new();
        for item in items {
            let name = item.get(field).filter(|n| !n.is_null())?;
            let name = name.as_str().map_or(name.to_string(), str::to_owned);
            names.push(name);
        }
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        (unique.len() == items.len()).then_some(names)
    });
    let names = by_field.unwrap_or_else(|| (0..items.len()).map(|i| i.to_string()).collect());
    names.into_iter().zip(items.iter().cloned()).collect()
}

/// A difference on purpose.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Scenario; `*` stands for any text.
    pub scenario: String,
    /// `step: field path` of each field; `*` stands for any text.
    pub paths: Vec<String>,
    /// Why we differ.
    #[serde(rename = "reason")]
    pub _reason: String,
}

/// The differences on purpose, and which of them were met.
pub struct Differences {
    list: Vec<Difference>,
    met: Vec<Vec<bool>>,
}

impl Differences {
    /// Reads `differences.toml`.
    pub fn load() -> Result<Differences> {
        let path = home().join("differences.toml");
        let text = std::fs::read_to_string(&path).context("differences.toml")?;
        let file: DifferenceFile = toml::from_str(&text).context("differences.toml")?;
        let list = file.difference;
        let met = list.iter().map(|d| vec![false; d.paths.len()]).collect();
        Ok(Differences { list, met })
    }

    /// Whether the field at `path` in `scenario` differs on purpose.
    pub fn covers(&mut self, scenario: &str, path: &str) -> bool {
        let mut covered = false;
        for (difference, met) in self.list.iter().zip(&mut self.met) {
            let ours = matches(&difference.scenario, scenario);
            for (pattern, met) in difference.paths.iter().zip(met) {
                let hit = ours && matches(pattern, path);
                *met |= hit;
                covered |= hit;
            }
        }
        covered
    }

    /// Entries that were never met: they must go.
    pub fn unmet(&self) -> Vec<String> {
        let mut unmet = Vec::new();
        for (difference, met) in self.list.iter().zip(&self.met) {
            for (path, _) in difference.paths.iter().zip(met).filter(|(_, met)| !**met) {
                unmet.push(format!("{} · {path}", difference.scenario));
            }
        }
        unmet
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DifferenceFile {
    #[serde(default)]
    difference: Vec<Difference>,
}

fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    text.strip_prefix(head).is_some_and(|text| (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_names_the_step_and_the_field() {
        let kafka = [json!({"step": "s", "answer": {"topics": [{"name": "a", "error_code": 3}], "error_message": "x"}})];
        let ours = [json!({"step": "s", "answer": {"topics": [{"name": "a", "error_code": 0}], "error_message": "y"}})];
        let diffs = compare(&kafka, &ours);
        let paths: Vec<_> = diffs.iter().map(|d| d.path.as_str()).collect();
        assert_eq!(paths, ["s: topics[a].error_code"]);
    }

    #[test]
    fn an_empty_text_is_not_null() {
        let answer = |text: Value| [json!({"step": "s", "answer": {"error_message": text}})];
        assert_eq!(compare(&answer(Value::Null), &answer("".into())).len(), 1);
        assert!(compare(&answer("".into()), &answer("".into())).is_empty());
    }

    #[test]
    fn missing_steps_and_elements_are_diffs() {
        let kafka = [json!({"step": "s", "answer": [{"name": "a"}]}), json!({"step": "t", "answer": 1})];
        let ours = [json!({"step": "s", "answer": []})];
        assert_eq!(compare(&kafka, &ours).len(), 2);
        assert_eq!(compare(&ours, &kafka).len(), 2);
    }

    #[test]
    fn stars_match_any_text() {
        assert!(matches("a*c", "abbc") && matches("*", "") && !matches("a*c", "abd"));
    }
}
