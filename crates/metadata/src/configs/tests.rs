//! The tables against themselves and against what Apache Kafka 4.3.1 says (recorded from its own classes).

use std::collections::BTreeMap;

use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

#[test]
fn tables_are_sorted_documented_and_their_defaults_are_valid() {
    for table in [topic_configs(), broker_configs(), group_configs()] {
        assert!(table.windows(2).all(|pair| pair[0].name < pair[1].name));
        for def in table {
            assert!(def.documentation.ends_with('.'), "{}", def.name);
            if let Some(default) = def.default {
                assert_eq!(validate::value(def, default), Ok(()), "{}", def.name);
            }
            assert_eq!(def.broker_synonym, def.synonyms.first().map(|synonym| synonym.name));
            for synonym in def.synonyms {
                let of_broker = broker_config(synonym.name).unwrap_or_else(|| panic!("{} names {}", def.name, synonym.name));
                if let Some(default) = of_broker.default {
                    let scaled = default.parse::<i64>().map_or(default.to_owned(), |number| (number * synonym.factor).to_string());
                    assert_eq!(Some(&scaled[..]), def.default, "{} and {}", def.name, synonym.name);
                }
            }
        }
    }
    assert_eq!(topic_configs().iter().filter(|def| !def.internal).count(), 33, "as many as Kafka describes");
}

#[test]
fn topic_values_are_refused_in_kafkas_words() {
    let refused = |name: &str, value: &str| validate_topic_config(name, value).unwrap_err();
    for (name, value, message) in [
        ("foo", "1", "Unknown topic config name: foo"),
        ("message.format.version", "3.0", "Unknown topic config name: message.format.version"),
        ("retention.ms", "abc", "Invalid value abc for configuration retention.ms: Not a number of type LONG"),
        ("retention.ms", "", "Invalid value  for configuration retention.ms: Not a number of type LONG"),
        ("retention.ms", "-2", "Invalid value -2 for configuration retention.ms: Value must be at least -1"),
        ("cleanup.policy", "compact,foo", "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete"),
        ("cleanup.policy", "Delete", "Invalid value Delete for configuration cleanup.policy: String must be one of: compact, delete"),
        ("min.cleanable.dirty.ratio", "2", "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1"),
        ("min.cleanable.dirty.ratio", "x", "Invalid value x for configuration min.cleanable.dirty.ratio: Not a number of type DOUBLE"),
        ("preallocate", "maybe", "Invalid value maybe for configuration preallocate: Expected value to be either true or false"),
        (
            "compression.type",
            "GZIP",
            "Invalid value GZIP for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        (
            "compression.gzip.level",
            "0",
            "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
        ),
        ("compression.zstd.level", "50", "Invalid value 50 for configuration compression.zstd.level: Value must be no more than 22"),
        ("segment.bytes", "10", "Invalid value 10 for configuration segment.bytes: Value must be at least 14"),
        ("segment.bytes", "99999999999", "Invalid value 99999999999 for configuration segment.bytes: Not a number of type INT"),
        ("max.message.bytes", "5.5", "Invalid value 5.5 for configuration max.message.bytes: Not a number of type INT"),
        ("local.retention.ms", "-3", "Invalid value -3 for configuration local.retention.ms: Value must be at least -2"),
        (
            "leader.replication.throttled.replicas",
            "x",
            "Invalid value [x] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' \
             or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
        ),
    ] {
        assert_eq!(refused(name, value), message);
    }
    for (name, value) in [
        ("cleanup.policy", ""),
        ("cleanup.policy", "compact, delete"),
        ("preallocate", "TRUE"),
        ("internal.segment.bytes", "10"),
        ("leader.replication.throttled.replicas", "*"),
        ("leader.replication.throttled.replicas", "0:1,1:2"),
        ("leader.replication.throttled.replicas", ""),
        ("retention.ms", " 5 "),
        ("retention.ms", "+5"),
        ("retention.bytes", "-5"),
    ] {
        assert_eq!(validate_topic_config(name, value), Ok(()), "{name}={value}");
    }
}

#[test]
fn values_that_contradict_each_other_are_refused_in_kafkas_words() {
    let together = |pairs: &[(&str, &str)]| validate_topic_configs_together(&map(pairs));
    let tiered = |pairs: &[(&str, &str)]| together(&[pairs, &[("remote.storage.enable", "true")]].concat()).unwrap_err();
    assert_eq!(
        together(&[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")]).unwrap_err(),
        "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)"
    );
    assert_eq!(
        tiered(&[("cleanup.policy", "compact")]),
        "Remote log storage only supports topics with cleanup.policy=delete or cleanup.policy being an empty list."
    );
    assert_eq!(
        tiered(&[("local.retention.ms", "800000000")]),
        "Invalid value 800000000 for configuration local.retention.ms: Value must not be more than retention.ms property value: 604800000"
    );
    assert_eq!(
        tiered(&[("retention.bytes", "5"), ("local.retention.bytes", "-1")]),
        "Invalid value -1 for configuration local.retention.bytes: Value must not be -1 as retention.bytes value is set as 5."
    );
    let copy_disabled = "When `remote.log.copy.disable` is set to true, the `local.retention.ms` and `retention.ms` must be set to the identical value because there will be no more logs copied to the remote storage.";
    assert_eq!(tiered(&[("remote.log.copy.disable", "true"), ("local.retention.ms", "5")]), copy_disabled);
    assert_eq!(together(&[("remote.storage.enable", "true"), ("remote.log.copy.disable", "true"), ("local.retention.ms", "-2")]), Ok(()));
    assert_eq!(together(&[("retention.ms", "5"), ("local.retention.ms", "10")]), Ok(()), "as in Kafka, where tiering was not asked for");
    assert_eq!(together(&[("cleanup.policy", "compact")]), Ok(()));
}

#[test]
fn tiering_is_switched_off_only_with_what_is_in_the_bucket() {
    let (enabled, off) = (("remote.storage.enable", "true"), ("remote.storage.enable", "false"));
    let delete = ("remote.log.delete.on.disable", "true");
    let change =
        |before: &[(&str, &str)], after: &[(&str, &str)], system| validate_remote_storage_change(&map(before), &map(after), system);
    for before in [&[][..], &[enabled]] {
        let refused = change(before, &[off], true).unwrap_err();
        assert!(refused.starts_with("It is invalid to disable remote storage without deleting remote data. If you want"), "{refused}");
        assert_eq!(change(before, &[off, delete], true), Ok(()));
    }
    assert_eq!(change(&[off], &[off], true), Ok(()));
    assert_eq!(change(&[], &[off], false), Ok(()), "nothing of it is there");
    let refused = change(&[], &[enabled], false).unwrap_err();
    assert_eq!(refused, "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.");
    assert_eq!(change(&[enabled], &[enabled, delete], false), Ok(()), "it was before");
}

#[test]
fn a_topic_takes_its_own_value_then_dynamic_then_static_then_the_default() {
    let default = TopicConfig::resolve(&none(), &none(), &none());
    assert_eq!((default.retention_ms, default.segment_bytes, default.max_message_bytes), (604_800_000, 1 << 30, 1_048_588));
    assert_eq!((default.flush_messages, default.remote_storage_enable, default.local_retention_ms), (1, true, -2));
    assert!(default.delete && !default.compact && !default.log_append_time && !default.unclean_leader_election_enable);
    let fixed =
        map(&[("log.retention.hours", "2"), ("log.segment.bytes", "2097152"), ("log.roll.hours", "1"), ("message.max.bytes", "junk")]);
    let from_static = TopicConfig::resolve(&none(), &none(), &fixed);
    assert_eq!((from_static.retention_ms, from_static.segment_bytes, from_static.segment_ms), (7_200_000, 2_097_152, 3_600_000));
    assert_eq!(from_static.max_message_bytes, 1_048_588, "an invalid value counts as unset");
    let minutes = map(&[("log.retention.hours", "2"), ("log.retention.minutes", "3")]);
    assert_eq!(TopicConfig::resolve(&none(), &none(), &minutes).retention_ms, 180_000, "minutes go before hours");
    assert_eq!(TopicConfig::resolve(&none(), &none(), &map(&[("log.retention.hours", "-1")])).retention_ms, -1);
    assert_eq!(
        TopicConfig::resolve(&none(), &map(&[("log.retention.ms", "-2")]), &fixed).retention_ms,
        -1,
        "any negative number: for ever"
    );
    for zero in ["log.retention.ms", "log.retention.minutes", "log.retention.hours"] {
        let error = BrokerConfig::new(&map(&[(zero, "0")])).unwrap_err();
        assert!(error.contains("at least 1, or -1"), "it would delete everything: {error}");
    }
    let dynamic = map(&[("log.retention.ms", "7")]);
    assert_eq!(TopicConfig::resolve(&none(), &dynamic, &fixed).retention_ms, 7);
    let topic = map(&[("retention.ms", " 9 "), ("internal.segment.bytes", "4096"), ("cleanup.policy", "compact")]);
    let own = TopicConfig::resolve(&topic, &dynamic, &fixed);
    assert_eq!((own.retention_ms, own.segment_bytes), (9, 4096));
    assert!(own.compact && !own.delete && own.remote_storage_enable);
    let flush = map(&[("log.flush.interval.messages", "9223372036854775807"), ("log.flush.scheduler.interval.ms", "50")]);
    let flush = TopicConfig::resolve(&none(), &none(), &flush);
    assert_eq!((flush.flush_messages, flush.flush_ms), (i64::MAX, 50));
}

#[test]
fn broker_settings_are_typed_and_unknown_ones_are_refused_with_the_nearest_name() {
    let error = BrokerConfig::new(&map(&[("log.retention.hour", "1")])).unwrap_err();
    assert_eq!(error, "Unknown broker config name: log.retention.hour. Did you mean log.retention.hours?");
    assert_eq!(validate_broker_config("qqqqqqqqqqqqqqqqqqqqqq", "1").unwrap_err(), "Unknown broker config name: qqqqqqqqqqqqqqqqqqqqqq");
    let config = BrokerConfig::new(&map(&[("num.partitions", "7"), ("log.dirs", "/a, /b")])).unwrap();
    assert_eq!((config.int("num.partitions"), config.long("log.retention.check.interval.ms")), (7, 300_000));
    assert_eq!(config.list("log.dirs"), ["/a", "/b"]);
    assert!(config.flag("auto.create.topics.enable") && config.text("log.retention.ms").is_none());
    let dynamic = BrokerConfig::resolve(
        &map(&[("message.max.bytes", "1"), ("fetch.max.bytes", "2048")]),
        &map(&[("message.max.bytes", "2"), ("log.cleaner.threads", "junk")]),
        &map(&[("message.max.bytes", "3")]),
    );
    assert_eq!((dynamic.int("message.max.bytes"), dynamic.int("fetch.max.bytes"), dynamic.int("log.cleaner.threads")), (3, 2048, 1));
    assert!(validate_dynamic_broker_config("num.partitions", "3").unwrap_err().contains("num.partitions"));
    assert_eq!(validate_dynamic_broker_config("message.max.bytes", "3"), Ok(()));
    let overrides = |text: &str| validate_dynamic_broker_config("max.connections.per.ip.overrides", text);
    assert_eq!((overrides("10.0.0.1:5, [::1]:3"), overrides("")), (Ok(()), Ok(())));
    for wrong in ["a-host:5", "10.0.0.1", "10.0.0.1:many"] {
        assert!(overrides(wrong).unwrap_err().contains(wrong), "a limit that would hold for nobody");
    }
}

#[test]
fn group_settings_are_checked() {
    assert_eq!(validate_group_config("consumer.session.timeout.ms", "50000"), Ok(()));
    assert!(validate_group_config("share.auto.offset.reset", "by_duration:PT5M").is_ok());
    assert!(validate_group_config("share.auto.offset.reset", "tomorrow").is_err());
    assert!(validate_group_config("retention.ms", "1").is_err());
}

/// Each line: a name, its type, whether it may change while the broker runs, and `=default` unless that is null; of Kafka's own classes.
const KAFKA: &str = include_str!("kafka-4.3.1-broker.txt");

#[test]
fn every_broker_setting_of_kafka_is_known_with_its_type_and_default() {
    // Our own defaults, and what is refused as it would promise something.
    let other_default = [
        "log.dir",
        "log.flush.interval.messages",
        "max.connections",
        "max.connections.per.ip",
        "queued.max.request.bytes",
        "remote.log.storage.system.enable",
    ];
    let fixed =
        ["config.providers", "cordoned.log.dirs", "listener.security.protocol.map", "listeners", "metric.reporters", "sasl.jaas.config"];
    let mut known = 0;
    for line in KAFKA.lines() {
        let mut words = line.splitn(4, ' ');
        let (name, kind, dynamic) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let default = words.next().map(|default| &default[1..]);
        let def = broker_config(name).unwrap_or_else(|| panic!("{name} is unknown"));
        assert_eq!(format!("{:?}", def.kind).to_lowercase(), kind, "{name}");
        assert!(def.default == default || other_default.contains(&name), "{name}: {:?}, not {default:?}", def.default);
        assert!(def.dynamic == (dynamic == "dynamic") || fixed.contains(&name), "{name}");
        known += 1;
    }
    assert_eq!(broker_configs().iter().filter(|def| !def.unlisted()).count(), known, "and none that Kafka does not list");
    assert_eq!(validate_dynamic_broker_config("leader.replication.throttled.rate", "1000"), Ok(()), "set by kafka-reassign-partitions");
}

#[test]
fn settings_of_security_change_where_kafka_lets_them() {
    let cluster =
        "Cannot update these configs at default cluster level, broker id must be specified: [sasl.kerberos.min.time.before.relogin]";
    assert_eq!(validate_dynamic_broker_config("sasl.kerberos.min.time.before.relogin", "58000"), Ok(()));
    assert_eq!(validate_cluster_default("sasl.kerberos.min.time.before.relogin", "58000").unwrap_err(), cluster);
    assert_eq!(
        validate_dynamic_broker_config("ssl.keystore.password", "secret").unwrap_err(),
        "These security configs can be dynamically updated only per-listener using the listener prefix: [ssl.keystore.password]"
    );
    assert!(broker_config("ssl.keystore.password").unwrap().sensitive());
}
