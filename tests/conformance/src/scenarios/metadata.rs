//! Metadata at every version.

use super::requests::topic_name;
use crate::{Scenario, Session, scenario};
use anyhow::Result;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, TopicName};
use uuid::Uuid;

pub const SCENARIOS: &[Scenario] = &[
    scenario("metadata", metadata),
    Scenario { name: "metadata-auto-create", settings: &[("auto.create.topics.enable", "true")], run: auto_create },
];

fn named(name: TopicName) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_name(Some(name))
}

fn by_id(id: Uuid) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_topic_id(id).with_name(None)
}

fn of(topics: Vec<MetadataRequestTopic>) -> MetadataRequest {
    MetadataRequest::default().with_topics(Some(topics))
}

fn metadata(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.note_only_own();
    let id = s.create_topic(&mut c, "a", 3, &[])?;
    s.create_topic(&mut c, "b", 1, &[])?;
    for version in 0..=13 {
        let step = |what: &str| format!("v{version} {what}");
        s.ask(&mut c, &step("one topic"), version, &of(vec![named(s.topic("a"))]))?;
        s.ask(&mut c, &step("unknown topic"), version, &of(vec![named(s.topic("none"))]))?;
        s.ask(&mut c, &step("empty list"), version, &of(vec![]))?;
        if version >= 1 {
            let all = MetadataRequest::default().with_topics(None);
            s.ask(&mut c, &step("null list"), version, &all)?;
        }
    }
    let name = topic_name("bad/name");
    for version in [1, 12] {
        s.ask(&mut c, &format!("v{version} invalid name"), version, &of(vec![named(name.clone())]))?;
        let twice = of(vec![named(s.topic("a")), named(s.topic("a"))]);
        s.ask(&mut c, &format!("v{version} one name twice"), version, &twice)?;
        s.ask(&mut c, &format!("v{version} empty name"), version, &of(vec![named(topic_name(""))]))?;
    }
    for version in [12, 13] {
        let step = |what: &str| format!("v{version} {what}");
        s.ask(&mut c, &step("by id"), version, &of(vec![by_id(id)]))?;
        s.ask(&mut c, &step("unknown id"), version, &of(vec![by_id(Uuid::from_u128(77))]))?;
        s.ask(&mut c, &step("zero id and no name"), version, &of(vec![by_id(Uuid::nil())]))?;
        let mixed = of(vec![by_id(id), named(s.topic("b"))]);
        s.ask(&mut c, &step("by id and by name"), version, &mixed)?;
        let both = named(s.topic("b")).with_topic_id(id);
        s.ask(&mut c, &step("id and name in one"), version, &of(vec![both]))?;
    }
    for version in [10, 11] {
        s.ask(&mut c, &format!("v{version} by id, too early"), version, &of(vec![by_id(id)]))?;
        s.ask(&mut c, &format!("v{version} null name"), version, &of(vec![by_id(Uuid::nil())]))?;
    }
    for version in [8, 10] {
        let request =
            of(vec![named(s.topic("a"))]).with_include_cluster_authorized_operations(true).with_include_topic_authorized_operations(true);
        s.ask(&mut c, &format!("v{version} authorized operations"), version, &request)?;
    }
    let request = of(vec![named(s.topic("a"))]).with_include_topic_authorized_operations(true);
    s.ask(&mut c, "v13 authorized operations", 13, &request)?;
    let request = of(vec![named(s.topic("made"))]).with_allow_auto_topic_creation(true);
    s.ask(&mut c, "auto-create refused by the broker", 12, &request)?;
    Ok(())
}

fn auto_create(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.note_only_own();
    let refuse = of(vec![named(s.topic("not-made"))]).with_allow_auto_topic_creation(false);
    s.ask(&mut c, "client says no", 12, &refuse)?;
    s.ask(&mut c, "client says no again", 12, &refuse)?;
    for version in [0, 3, 4, 12] {
        let short = format!("made-{version}");
        let request = of(vec![named(s.topic(&short))]);
        c.call(version, &request)?; // Kafka answers UNKNOWN or LEADER_NOT_AVAILABLE first, by the version
        s.wait_for_topic(&mut c, &short, 2)?;
        s.ask(&mut c, &format!("v{version} made"), version, &request)?;
    }
    let bad = of(vec![named(topic_name("bad/name"))]);
    s.ask(&mut c, "invalid name", 12, &bad)?;
    Ok(())
}
