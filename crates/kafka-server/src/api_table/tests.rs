use super::*;

#[test]
fn keys_are_unique_and_ascending() {
    assert!(APIS.windows(2).all(|pair| pair[0].key < pair[1].key));
}

#[test]
fn every_row_is_found_by_its_key() {
    for (index, api) in APIS.iter().enumerate() {
        assert_eq!(find(api.key), Some(Row(index)), "{}", api.name);
        assert!(api.advertised_min_version <= api.min_version && api.min_version <= api.max_version, "{}", api.name);
    }
    assert_eq!(find(-1), None);
    assert_eq!(find(i16::MAX), None);
}

/// The compatibility page, made from the table, what Kafka's own tool printed of Kafka's, and the suites' allow-lists.
mod compatibility_page {
    use std::fmt::Write;

    use siltstone_common::fs::{FileSystem, OpenMode, RealFs};

    use super::*;

    const PAGE: &str = include_str!("../../../../docs/compatibility.md");
    const KAFKA_TOOLS: &str = include_str!("../../../../tests/compat/java-tools/golden.txt");
    const SUITES: [(&str, &str, &str); 11] = [
        ("franz-go", "integration tests of pkg/kgo and pkg/kadm", include_str!("../../../../tests/compat/franz-go/allow.txt")),
        ("java-tools", "printed output of Apache Kafka's tools", include_str!("../../../../tests/compat/java-tools/allow.txt")),
        (
            "kafka-clients",
            "integration tests of Apache Kafka's own Java clients",
            include_str!("../../../../tests/compat/kafka-clients/allow.txt"),
        ),
        ("kafka-go", "the module's own tests", include_str!("../../../../tests/compat/kafka-go/allow.txt")),
        ("kafka-python", "integration tests", include_str!("../../../../tests/compat/kafka-python/allow.txt")),
        ("librdkafka", "test-runner, quick mode", include_str!("../../../../tests/compat/librdkafka/allow.txt")),
        ("librdkafka-full", "test-runner, all of each test", include_str!("../../../../tests/compat/librdkafka/allow-full.txt")),
        (
            "librdkafka-idempotent",
            "test-runner, quick mode, every producer idempotent",
            include_str!("../../../../tests/compat/librdkafka/allow-idempotent.txt"),
        ),
        ("rskafka", "integration tests", include_str!("../../../../tests/compat/rskafka/allow.txt")),
        ("rust-rdkafka", "integration tests", include_str!("../../../../tests/compat/rust-rdkafka/allow.txt")),
        ("sarama", "functional tests", include_str!("../../../../tests/compat/sarama/allow.txt")),
    ];

    /// Name, key and versions of a line such as `Fetch(1): 4 to 18 [usable: 18],`.
    fn kafkas(line: &str) -> Option<(&str, i16, String)> {
        let (name, rest) = line.trim().split_once('(')?;
        let (key, rest) = rest.split_once("): ")?;
        let versions = rest.split(" [usable").next()?.trim_end_matches(',');
        Some((name, key.parse().ok()?, versions.replace(" to ", "–")))
    }

    fn page() -> String {
        let mut page = String::from(
            "# What of Kafka is served\n\nMade from the API table and the suites' lists; `SILTSTONE_WRITE_DOCS=docs/compatibility.md cargo test -p siltstone-kafka-server \
             compatibility` writes it anew.\n\n## APIs\n\nVersions that Apache Kafka 4.3.1 answers to ApiVersions, and those served here. An API without versions here is not \
             advertised. The two of clients' metrics are advertised where\n`metric.reporters` names `siltstone.ClientTelemetry`, as Kafka does with a receiver.\n\n| key | API | \
             Kafka 4.3.1 | Siltstone |\n| --- | --- | --- | --- |\n",
        );
        let listed = KAFKA_TOOLS.lines().skip_while(|line| *line != "=== cluster/api-versions").take_while(|line| *line != ")");
        for (name, key, versions) in listed.filter_map(kafkas) {
            let here = find(key).map_or(String::new(), |row| match (row.api().advertised_min_version, row.api().max_version) {
                (min, max) if min == max => min.to_string(),
                (min, max) => format!("{min}–{max}"),
            });
            let versions = if versions == "UNSUPPORTED" { "0, with a receiver" } else { &versions };
            let _ = writeln!(page, "| {key} | {name} | {versions} | {here} |");
        }
        page += "\n## Suites from outside\n\nNames that must pass (`tests/compat`, lists that only grow); what is missing has its cause in the `findings.md` beside each list.\n\n\
                 | suite | what | must pass |\n| --- | --- | --- |\n";
        for (suite, what, allowed) in SUITES {
            let names = allowed.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
            let _ = writeln!(page, "| {suite} | {what} | {names} |");
        }
        page += "\n## Where answers differ on purpose\n\nField by field in `tests/conformance/differences.toml`, in the tools' output in `tests/compat/java-tools/excuses.toml`, each with its reason.\n";
        page
    }

    #[test]
    fn the_compatibility_page_is_current() {
        let page = page();
        assert!(page.lines().count() > 80, "Kafka's versions are found");
        if let Ok(path) = std::env::var("SILTSTONE_WRITE_DOCS") {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
            let file = RealFs.open(&path, OpenMode::Truncate).expect("opens");
            file.write_all_at(page.as_bytes(), 0).expect("writes");
            return;
        }
        for (made, kept) in page.lines().zip(PAGE.lines()) {
            assert_eq!(made, kept, "docs/compatibility.md is out of date: its first line says how to make it");
        }
        assert_eq!(page.len(), PAGE.len(), "docs/compatibility.md is out of date: its first lines say how to make it");
    }
}
