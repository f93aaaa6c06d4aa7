//! The rules of the tree, held by a test: file and function lengths, dependency edges, banned words.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of a product file, without its inline tests.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of tests in a product file; more live beside it in `<file>/tests.rs`.
const INLINE_TEST_LINES_MAX: usize = 150;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Files under version control, relative to the root.
fn tracked() -> Vec<String> {
    let output = Command::new("git").args(["ls-files"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "git ls-files failed");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).filter(|file| root().join(file).exists()).collect()
}

fn product_files() -> Vec<(String, String)> {
    let is_test =
        |file: &str| file.contains("/tests/") || file.ends_with("/tests.rs") || file.contains("/benches/") || file.contains("/examples/");
    let files = tracked().into_iter().filter(|file| file.starts_with("crates/") && file.ends_with(".rs") && !is_test(file));
    files.map(|file| (std::fs::read_to_string(root().join(&file)).unwrap(), file)).map(|(text, file)| (file, text)).collect()
}

/// The product part of a file and the number of lines of its inline tests.
fn split_tests(text: &str) -> (&str, usize) {
    match text.find("#[cfg(test)]\nmod ") {
        Some(at) if !text[at..].lines().nth(1).is_some_and(|line| line.ends_with(';')) => (&text[..at], text[at..].lines().count()),
        _ => (text, 0),
    }
}

/// Names and lengths of functions, by brace indentation (the tree is formatted by rustfmt).
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let declares = [
            "fn ",
            "pub fn ",
            "async fn ",
            "pub async fn ",
            "pub(crate) fn ",
            "pub(crate) async fn ",
            "pub(super) fn ",
            "const fn ",
            "pub const fn ",
        ]
        .iter()
        .any(|start| trimmed.starts_with(start));
        if !declares {
            continue;
        }
        let indent = line.len() - trimmed.len();
        let close = format!("{}}}", " ".repeat(indent));
        let end = lines[index..].iter().position(|line| *line == close);
        let name = trimmed.split("fn ").nth(1).unwrap_or_default().split(['(', '<']).next().unwrap_or_default();
        let body = lines[index..].iter().position(|line| line.ends_with('{') || line.ends_with(';') || line.ends_with('}'));
        if let (Some(end), Some(body)) = (end, body)
            && !lines[index + body].ends_with(';')
            && !lines[index + body].ends_with('}')
        {
            found.push((name.to_owned(), end + 1));
        }
    }
    found
}

/// `name count` lines of the ratchet file: what is over the limit today may shrink, never grow.
fn ratchet() -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(root().join("tests/tidy/ratchet.txt")).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect()
}

#[test]
fn files_and_functions_are_short() {
    let ratchet = ratchet();
    let mut over = Vec::new();
    let mut check = |name: String, lines: usize, max: usize| {
        if lines > ratchet.get(&name).copied().unwrap_or(max) {
            over.push(format!("{name} {lines} (limit {max})"));
        }
    };
    for (file, text) in product_files() {
        let (product, tests) = split_tests(&text);
        check(file.clone(), product.lines().count(), FILE_LINES_MAX);
        check(format!("{file}#tests"), tests, INLINE_TEST_LINES_MAX);
        for (name, lines) in functions(product) {
            check(format!("{file}::{name}"), lines, FUNCTION_LINES_MAX);
        }
    }
    assert!(over.is_empty(), "too long; cut where a reader would:\n{}", over.join("\n"));
}

#[test]
fn the_ratchet_only_names_what_is_over_the_limit() {
    let files: BTreeSet<String> = product_files().into_iter().map(|(file, _)| file).collect();
    let gone: Vec<_> = ratchet().into_keys().filter(|name| !files.contains(name.split(['#', ':']).next().unwrap())).collect();
    assert!(gone.is_empty(), "no longer in the tree, take them out of the ratchet: {gone:?}");
}

/// What each crate may depend on, of ours.
fn allowed_edges() -> BTreeMap<&'static str, Vec<&'static str>> {
    BTreeMap::from([
        ("common", vec![]),
        ("log", vec!["common"]),
        ("metadata", vec!["common"]),
        ("tiered", vec!["common", "log", "metadata"]),
        ("replica", vec!["common", "log", "tiered", "metadata"]),
        ("coordinator", vec!["common"]),
        ("security", vec!["common", "metadata"]),
        ("kafka-server", vec!["common", "replica", "log", "coordinator", "security", "metadata"]),
        ("admin", vec!["common", "replica", "coordinator", "security", "metadata"]),
    ])
}

/// Outside crates that only these of ours may name.
const KEPT_BEHIND_ONE_DOOR: [(&str, &[&str]); 3] =
    [("kafka-protocol", &["kafka-server"]), ("object_store", &["tiered"]), ("redb", &["metadata"])];

#[test]
fn dependencies_go_one_way() {
    let output =
        Command::new(env!("CARGO")).args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(root()).output();
    let metadata: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let edges = allowed_edges();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let path = package["manifest_path"].as_str().unwrap();
        let Some(krate) = path.rsplit("/crates/").next().filter(|_| path.contains("/crates/")).and_then(|rest| rest.split('/').next())
        else {
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap();
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            let ours = name.strip_prefix("siltstone-");
            let edge_ok = ours.is_none_or(|ours| krate == "siltstone" || edges.get(krate).is_some_and(|to| to.contains(&ours)));
            let door_ok = KEPT_BEHIND_ONE_DOOR.iter().all(|(outside, doors)| name != *outside || doors.contains(&krate));
            if !edge_ok || !door_ok {
                wrong.push(format!("{krate} -> {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "dependency edges that the architecture forbids: {wrong:?}");
}

#[test]
fn no_promise_is_left_open() {
    let banned = ["todo!(", "unimplemented!(", "#[ignore", "allow(dead_code)", "_for_test", "FIXME", "XXX"];
    let mut found = Vec::new();
    for (file, text) in product_files() {
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = banned.iter().find(|word| line.contains(**word)) {
                found.push(format!("{file}:{}: {word}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
