//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs and ListConfigResources.

use super::requests::text;
use crate::{Conn, Scenario, Session, scenario};
use anyhow::Result;
use kafka_protocol::messages::alter_configs_request::{self as alter, AlterConfigsResource};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{self as incremental};
use kafka_protocol::messages::{AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, ListConfigResourcesRequest};

pub const SCENARIOS: &[Scenario] = &[
    scenario("describe-configs", describe),
    scenario("describe-configs-all", describe_all),
    scenario("alter-configs", alter_configs),
    scenario("incremental-alter-configs", incremental_alter),
    scenario("incremental-alter-configs-errors", incremental_errors),
    scenario("list-config-resources", list_resources),
];

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;

fn resource(kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResource {
    DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()))
}

fn describe_of(resources: Vec<DescribeConfigsResource>) -> DescribeConfigsRequest {
    DescribeConfigsRequest::default().with_resources(resources)
}

fn describe(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 1, &[("retention.ms", "3600000"), ("cleanup.policy", "compact")])?;
    let (t, none) = (s.own("t").to_string(), s.own("none").to_string());
    let keys: &[&str] = &["retention.ms", "cleanup.policy", "segment.bytes", "max.message.bytes", "no.such.config"];
    for version in 1..=4 {
        let step = |what: &str| format!("v{version} {what}");
        let some = describe_of(vec![resource(TOPIC, &t, Some(keys))]);
        s.ask(&mut c, &step("some keys"), version, &some)?;
        let synonyms = some.clone().with_include_synonyms(true);
        s.ask(&mut c, &step("synonyms"), version, &synonyms)?;
        if version >= 3 {
            let documented = some.clone().with_include_documentation(true);
            s.ask(&mut c, &step("documentation"), version, &documented)?;
        }
        s.ask(&mut c, &step("empty key list"), version, &describe_of(vec![resource(TOPIC, &t, Some(&[]))]))?;
        for (what, kind, name) in [
            ("unknown topic", TOPIC, none.as_str()),
            ("invalid topic name", TOPIC, "../x"),
            ("empty topic name", TOPIC, ""),
            ("unknown broker", BROKER, "77"),
            ("broker that is no number", BROKER, "zero"),
            ("unknown type", 99, "x"),
            ("type zero", 0, "x"),
            ("negative type", -1, "x"),
            ("unknown broker's loggers", BROKER_LOGGER, "77"),
        ] {
            let request = describe_of(vec![resource(kind, name, None)]);
            s.ask(&mut c, &step(what), version, &request)?;
        }
        let several = describe_of(vec![resource(TOPIC, &t, Some(&["retention.ms"])), resource(TOPIC, &none, None)]);
        s.ask(&mut c, &step("known and unknown"), version, &several)?;
        let broker_keys: &[&str] = &["log.retention.hours", "num.partitions", "auto.create.topics.enable", "broker.id", "node.id"];
        let broker = describe_of(vec![resource(BROKER, "0", Some(broker_keys))]).with_include_synonyms(true);
        s.ask(&mut c, &step("broker"), version, &broker)?;
        let defaults = describe_of(vec![resource(BROKER, "", None)]);
        s.ask(&mut c, &step("cluster-wide broker defaults"), version, &defaults)?;
    }
    s.ask(&mut c, "nothing", 4, &describe_of(vec![]))?;
    let twice = describe_of(vec![resource(TOPIC, &t, Some(&["retention.ms"])), resource(TOPIC, &t, Some(&["segment.ms"]))]);
    s.ask(&mut c, "one topic twice", 4, &twice)?;
    Ok(())
}

fn describe_all(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 1, &[("retention.ms", "3600000")])?;
    let t = s.own("t").to_string();
    let all = describe_of(vec![resource(TOPIC, &t, None)]);
    s.ask(&mut c, "v1 all", 1, &all)?;
    s.ask(&mut c, "v4 all, with synonyms", 4, &all.with_include_synonyms(true))?;
    Ok(())
}

/// Notes the topic's own settings, without the defaults.
fn note_own(s: &mut Session, c: &mut Conn, step: &str, topic: &str) -> Result<()> {
    let keys: &[&str] = &["retention.ms", "segment.bytes", "cleanup.policy", "max.message.bytes"];
    let request = describe_of(vec![resource(TOPIC, topic, Some(keys))]);
    s.ask(c, step, 4, &request)?;
    Ok(())
}

fn alter_configs(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for version in 0..=2 {
        let short = format!("t{version}");
        s.create_topic(&mut c, &short, 1, &[("retention.ms", "3600000")])?;
        let (t, none) = (s.own(&short).to_string(), s.own("none").to_string());
        let step = |what: &str| format!("v{version} {what}");
        let of = |kind: i8, name: &str, configs: &[(&str, Option<&str>)]| {
            let one =
                |(name, value): &(&str, Option<&str>)| alter::AlterableConfig::default().with_name(text(name)).with_value(value.map(text));
            let resource = AlterConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(name))
                .with_configs(configs.iter().map(one).collect());
            AlterConfigsRequest::default().with_resources(vec![resource])
        };
        let set = of(TOPIC, &t, &[("segment.bytes", Some("2000000"))]);
        s.ask(&mut c, &step("validate only"), version, &set.clone().with_validate_only(true))?;
        note_own(s, &mut c, &step("after validation"), &t)?;
        s.ask(&mut c, &step("replace all"), version, &set)?;
        note_own(s, &mut c, &step("after replacing"), &t)?;
        for (what, request) in [
            ("invalid value", of(TOPIC, &t, &[("retention.ms", Some("abc"))])),
            ("unknown config", of(TOPIC, &t, &[("no.such.config", Some("1"))])),
            ("null value", of(TOPIC, &t, &[("retention.ms", None)])),
            ("one config twice", of(TOPIC, &t, &[("retention.ms", Some("1")), ("retention.ms", Some("2"))])),
            ("unknown topic", of(TOPIC, &none, &[("retention.ms", Some("1"))])),
            ("unknown type", of(77, "x", &[])),
            ("unknown broker", of(BROKER, "77", &[("log.retention.ms", Some("1"))])),
            ("read-only broker config", of(BROKER, "0", &[("node.id", Some("5"))])),
        ] {
            s.ask(&mut c, &step(what), version, &request)?;
        }
        let mut twice = of(TOPIC, &t, &[("retention.ms", Some("1"))]);
        twice.resources.push(twice.resources[0].clone());
        s.ask(&mut c, &step("one topic twice"), version, &twice)?;
        s.ask(&mut c, &step("to nothing"), version, &of(TOPIC, &t, &[]))?;
        note_own(s, &mut c, &step("after nothing"), &t)?;
        s.ask(&mut c, &step("no resources"), version, &AlterConfigsRequest::default())?;
    }
    Ok(())
}

/// One change: name, operation (0 set, 1 delete, 2 append, 3 subtract), value.
type Change<'a> = (&'a str, i8, Option<&'a str>);

fn change(kind: i8, name: &str, changes: &[Change]) -> IncrementalAlterConfigsRequest {
    let one = |(name, operation, value): &Change| {
        incremental::AlterableConfig::default().with_name(text(name)).with_config_operation(*operation).with_value(value.map(text))
    };
    let resource = incremental::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(changes.iter().map(one).collect());
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
}

fn incremental_alter(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for version in 0..=1 {
        let short = format!("t{version}");
        s.create_topic(&mut c, &short, 1, &[])?;
        let t = s.own(&short).to_string();
        let steps: &[(&str, &[Change])] = &[
            ("set", &[("retention.ms", 0, Some("3600000")), ("segment.bytes", 0, Some("2000000"))]),
            ("delete", &[("segment.bytes", 1, None)]),
            ("delete what is not set", &[("segment.bytes", 1, None)]),
            ("delete with a value", &[("retention.ms", 1, Some("x"))]),
            ("append", &[("cleanup.policy", 2, Some("compact"))]),
            ("append what is there", &[("cleanup.policy", 2, Some("compact"))]),
            ("subtract", &[("cleanup.policy", 3, Some("delete"))]),
            ("subtract what is not there", &[("cleanup.policy", 3, Some("delete"))]),
            ("subtract the last", &[("cleanup.policy", 3, Some("compact"))]),
            ("set both", &[("cleanup.policy", 0, Some("compact,delete"))]),
            ("subtract two", &[("cleanup.policy", 3, Some("compact,delete"))]),
            ("no changes", &[]),
        ];
        for (what, changes) in steps {
            let request = change(TOPIC, &t, changes);
            s.ask(&mut c, &format!("v{version} {what}"), version, &request)?;
            note_own(s, &mut c, &format!("v{version} {what}: now"), &t)?;
        }
        let dry = change(TOPIC, &t, &[("retention.ms", 0, Some("5"))]).with_validate_only(true);
        s.ask(&mut c, &format!("v{version} validate only"), version, &dry)?;
        note_own(s, &mut c, &format!("v{version} validate only: now"), &t)?;
    }
    Ok(())
}

fn incremental_errors(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 1, &[])?;
    let (t, none) = (s.own("t").to_string(), s.own("none").to_string());
    for version in 0..=1 {
        let step = |what: &str| format!("v{version} {what}");
        let cases: &[(&str, i8, &str, &[Change])] = &[
            ("invalid value", TOPIC, &t, &[("retention.ms", 0, Some("abc"))]),
            ("value out of range", TOPIC, &t, &[("segment.bytes", 0, Some("1"))]),
            ("null value", TOPIC, &t, &[("retention.ms", 0, None)]),
            ("empty value", TOPIC, &t, &[("retention.ms", 0, Some(""))]),
            ("unknown config", TOPIC, &t, &[("no.such.config", 0, Some("1"))]),
            ("delete an unknown config", TOPIC, &t, &[("no.such.config", 1, None)]),
            ("one config twice", TOPIC, &t, &[("retention.ms", 0, Some("1")), ("retention.ms", 0, Some("2"))]),
            ("set and delete", TOPIC, &t, &[("retention.ms", 0, Some("1")), ("retention.ms", 1, None)]),
            ("append to what is no list", TOPIC, &t, &[("retention.ms", 2, Some("1"))]),
            ("append nonsense", TOPIC, &t, &[("cleanup.policy", 2, Some("nonsense"))]),
            ("append null", TOPIC, &t, &[("cleanup.policy", 2, None)]),
            ("operation 4", TOPIC, &t, &[("retention.ms", 4, Some("1"))]),
            ("operation -1", TOPIC, &t, &[("retention.ms", -1, Some("1"))]),
            ("one good, one bad", TOPIC, &t, &[("retention.ms", 0, Some("1000")), ("no.such.config", 0, Some("1"))]),
            ("unknown topic", TOPIC, &none, &[("retention.ms", 0, Some("1"))]),
            ("invalid topic name", TOPIC, "../x", &[("retention.ms", 0, Some("1"))]),
            ("unknown type", 99, "x", &[]),
            ("type zero", 0, "x", &[]),
            ("unknown broker", BROKER, "77", &[("log.retention.ms", 0, Some("1000"))]),
            ("broker that is no number", BROKER, "zero", &[("log.retention.ms", 0, Some("1000"))]),
            ("read-only broker config", BROKER, "0", &[("node.id", 0, Some("5"))]),
            ("unknown broker's logger", BROKER_LOGGER, "77", &[("x", 0, Some("INFO"))]),
        ];
        for (what, kind, name, changes) in cases {
            s.ask(&mut c, &step(what), version, &change(*kind, name, changes))?;
        }
        note_own(s, &mut c, &step("nothing has changed"), &t)?;
        let mut several = change(TOPIC, &t, &[("retention.ms", 0, Some("9000"))]);
        several.resources.extend(change(TOPIC, &none, &[("retention.ms", 0, Some("9000"))]).resources);
        s.ask(&mut c, &step("one good resource, one bad"), version, &several)?;
        note_own(s, &mut c, &step("the good one has changed"), &t)?;
        let mut twice = change(TOPIC, &t, &[("retention.ms", 0, Some("1"))]);
        twice.resources.push(twice.resources[0].clone());
        s.ask(&mut c, &step("one resource twice"), version, &twice)?;
        let undo = change(TOPIC, &t, &[("retention.ms", 1, None)]);
        s.ask(&mut c, &step("undo"), version, &undo)?;
        s.ask(&mut c, &step("no resources"), version, &IncrementalAlterConfigsRequest::default())?;
    }
    Ok(())
}

fn list_resources(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.ask(&mut c, "v0", 0, &ListConfigResourcesRequest::default())?;
    for types in [&[BROKER][..], &[16], &[99], &[0]] {
        let request = ListConfigResourcesRequest::default().with_resource_types(types.to_vec());
        s.ask(&mut c, &format!("v1 {types:?}"), 1, &request)?;
    }
    Ok(())
}
