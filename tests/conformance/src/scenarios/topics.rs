//! CreateTopics, DeleteTopics, CreatePartitions and DescribeTopicPartitions.

use super::requests::{text, topic_name};
use crate::{Conn, Scenario, Session, scenario};
use anyhow::Result;
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeTopicPartitionsRequest, TopicName,
};
use uuid::Uuid;

pub const SCENARIOS: &[Scenario] = &[
    scenario("create-topics-versions", create_versions),
    scenario("create-topics-errors", create_errors),
    scenario("create-topics-configs", create_configs),
    scenario("delete-topics", delete),
    scenario("create-partitions", create_partitions),
    scenario("describe-topic-partitions", describe),
];

fn new_topic(name: TopicName, partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic::default().with_name(name).with_num_partitions(partitions).with_replication_factor(replicas)
}

fn create(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(15_000)
}

fn config(name: &str, value: Option<&str>) -> CreatableTopicConfig {
    CreatableTopicConfig::default().with_name(text(name)).with_value(value.map(text))
}

fn assigned(partition: i32, brokers: &[i32]) -> CreatableReplicaAssignment {
    CreatableReplicaAssignment::default().with_partition_index(partition).with_broker_ids(brokers.iter().map(|id| (*id).into()).collect())
}

fn create_versions(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for version in 2..=7 {
        let step = |what: &str| format!("v{version} {what}");
        let name = s.topic(&format!("t{version}"));
        let request = create(vec![new_topic(name.clone(), 3, 1)]);
        s.ask(&mut c, &step("validate only"), version, &request.clone().with_validate_only(true))?;
        s.ask(&mut c, &step("create"), version, &request)?;
        s.ask(&mut c, &step("create again"), version, &request)?;
        s.ask(&mut c, &step("validate what exists"), version, &request.with_validate_only(true))?;
        let defaults = create(vec![new_topic(s.topic(&format!("d{version}")), -1, -1)]);
        s.ask(&mut c, &step("default partitions and replicas"), version, &defaults)?;
        s.ask(&mut c, &step("no topics"), version, &create(vec![]))?;
        let several =
            create(vec![new_topic(s.topic(&format!("ok{version}")), 1, 1), new_topic(name, 1, 1), new_topic(topic_name("../x"), 1, 1)]);
        s.ask(&mut c, &step("several"), version, &several)?;
        let mut placed = new_topic(s.topic(&format!("placed{version}")), -1, -1);
        placed.assignments = vec![assigned(0, &[0]), assigned(1, &[0])];
        s.ask(&mut c, &step("assignments"), version, &create(vec![placed]))?;
    }
    Ok(())
}

fn create_errors(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let long = "x".repeat(250);
    let names = ["", ".", "..", "../x", "a b", "a/b", "é", "a\0b", "__consumer_offsets", "__cluster_metadata", long.as_str(), &long[1..]];
    for version in [2, 7] {
        for name in names {
            let shown = if name.len() > 100 { format!("of {} bytes", name.len()) } else { format!("{name:?}") };
            let request = create(vec![new_topic(topic_name(name), 1, 1)]).with_validate_only(true);
            s.ask(&mut c, &format!("v{version} name {shown}"), version, &request)?;
        }
        for (partitions, replicas) in [(0, 1), (-2, 1), (i32::MAX, 1), (1, 0), (1, -2), (1, 2), (1, i16::MAX), (0, 0)] {
            let request = create(vec![new_topic(s.topic("x"), partitions, replicas)]).with_validate_only(true);
            s.ask(&mut c, &format!("v{version} {partitions} partitions, {replicas} replicas"), version, &request)?;
        }
        let assignments = [
            ("partition 1 without 0", vec![assigned(1, &[0])]),
            ("gap", vec![assigned(0, &[0]), assigned(2, &[0])]),
            ("unknown broker", vec![assigned(0, &[7])]),
            ("no brokers", vec![assigned(0, &[])]),
            ("one broker twice", vec![assigned(0, &[0, 0])]),
            ("one partition twice", vec![assigned(0, &[0]), assigned(0, &[0])]),
            ("negative partition", vec![assigned(-1, &[0])]),
            ("negative broker", vec![assigned(0, &[-1])]),
            ("different replica counts", vec![assigned(0, &[0]), assigned(1, &[])]),
        ];
        for (what, assignments) in assignments {
            for (partitions, replicas) in [(-1, -1), (1, 1)] {
                let topic = new_topic(s.topic("x"), partitions, replicas).with_assignments(assignments.clone());
                let step = format!("v{version} assignment, {what}, counts {partitions}");
                s.ask(&mut c, &step, version, &create(vec![topic]).with_validate_only(true))?;
            }
        }
        let twice = create(vec![new_topic(s.topic("twice"), 1, 1), new_topic(s.topic("twice"), 2, 1), new_topic(s.topic("once"), 1, 1)]);
        s.ask(&mut c, &format!("v{version} one name twice"), version, &twice.with_validate_only(true))?;
    }
    c.call(7, &create(vec![new_topic(s.topic("a.b"), 1, 1)]))?;
    let clash = create(vec![new_topic(s.topic("a_b"), 1, 1)]).with_validate_only(true);
    s.ask(&mut c, "a name that differs in dot and underscore alone", 7, &clash)?;
    let at_once = create(vec![new_topic(s.topic("late"), 1, 1)]).with_timeout_ms(-1);
    s.ask(&mut c, "negative timeout", 7, &at_once.with_validate_only(true))?;
    Ok(())
}

fn create_configs(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let cases: &[(&str, Option<&str>)] = &[
        ("retention.ms", Some("1000")),
        ("retention.ms", Some("abc")),
        ("retention.ms", Some("-1")),
        ("retention.ms", Some("-2")),
        ("retention.ms", Some("")),
        ("retention.ms", None),
        ("segment.bytes", Some("1")),
        ("segment.bytes", Some("1048576")),
        ("segment.bytes", Some("99999999999")),
        ("max.message.bytes", Some("-1")),
        ("min.insync.replicas", Some("0")),
        ("cleanup.policy", Some("compact,delete")),
        ("cleanup.policy", Some("compact")),
        ("cleanup.policy", Some("nonsense")),
        ("cleanup.policy", Some("")),
        ("compression.type", Some("zstd")),
        ("compression.type", Some("nonsense")),
        ("message.timestamp.type", Some("LogAppendTime")),
        ("message.timestamp.type", Some("nonsense")),
        ("unclean.leader.election.enable", Some("maybe")),
        ("unclean.leader.election.enable", Some("TRUE")),
        ("no.such.config", Some("1")),
        ("no.such.config", None),
        ("", Some("1")),
        ("min.cleanable.dirty.ratio", Some("2")),
        ("flush.messages", Some("0")),
        ("message.format.version", Some("3.0")),
        ("leader.replication.throttled.replicas", Some("*")),
        ("leader.replication.throttled.replicas", Some("x:y")),
        ("follower.replication.throttled.replicas", Some("0:0")),
        ("preallocate", Some("false")),
    ];
    for (name, value) in cases {
        for version in [4, 7] {
            let topic = new_topic(s.topic("x"), 1, 1).with_configs(vec![config(name, *value)]);
            let step = format!("v{version} {name}={value:?}");
            s.ask(&mut c, &step, version, &create(vec![topic]).with_validate_only(true))?;
        }
    }
    let twice = vec![config("retention.ms", Some("1")), config("retention.ms", Some("2"))];
    let topic = new_topic(s.topic("twice"), 1, 1).with_configs(twice);
    s.ask(&mut c, "one config twice", 7, &create(vec![topic]))?;
    let real = vec![config("retention.ms", Some("3600000")), config("cleanup.policy", Some("compact"))];
    let topic = new_topic(s.topic("real"), 1, 1).with_configs(real);
    s.ask(&mut c, "two configs", 7, &create(vec![topic]))?;
    Ok(())
}

fn delete(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let by_name = |names: Vec<TopicName>| DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(15_000);
    for version in 1..=5 {
        let short = format!("t{version}");
        s.create_topic(&mut c, &short, 1, &[])?;
        let step = |what: &str| format!("v{version} {what}");
        let both = by_name(vec![s.topic(&short), s.topic("none"), topic_name("../x"), topic_name("")]);
        s.ask(&mut c, &step("known and unknown"), version, &both)?;
        s.ask(&mut c, &step("again"), version, &by_name(vec![s.topic(&short)]))?;
        s.ask(&mut c, &step("nothing"), version, &by_name(vec![]))?;
    }
    s.create_topic(&mut c, "twice", 1, &[])?;
    s.ask(&mut c, "v5 one name twice", 5, &by_name(vec![s.topic("twice"), s.topic("twice")]))?;
    s.ask(&mut c, "v5 what that left", 5, &by_name(vec![s.topic("twice")]))?;
    by_id(s, &mut c)
}

fn by_id(s: &mut Session, c: &mut Conn) -> Result<()> {
    let state = |name: Option<TopicName>, id: Uuid| DeleteTopicState::default().with_name(name).with_topic_id(id);
    let of = |topics| DeleteTopicsRequest::default().with_topics(topics).with_timeout_ms(15_000);
    let a = s.create_topic(c, "a", 1, &[])?;
    let b = s.create_topic(c, "b", 1, &[])?;
    s.create_topic(c, "c", 1, &[])?;
    let none = Uuid::from_u128(99);
    s.ask(c, "v6 by id", 6, &of(vec![state(None, a)]))?;
    s.ask(c, "v6 by id again", 6, &of(vec![state(None, a)]))?;
    s.ask(c, "v6 unknown id", 6, &of(vec![state(None, none)]))?;
    s.ask(c, "v6 unknown name", 6, &of(vec![state(Some(s.topic("none")), Uuid::nil())]))?;
    s.ask(c, "v6 name and id", 6, &of(vec![state(Some(s.topic("b")), b)]))?;
    s.ask(c, "v6 neither", 6, &of(vec![state(None, Uuid::nil())]))?;
    let both = of(vec![state(Some(s.topic("b")), Uuid::nil()), state(None, b)]);
    s.ask(c, "v6 one topic by name and by id", 6, &both)?;
    let mixed = of(vec![state(Some(s.topic("c")), Uuid::nil()), state(None, none), state(Some(s.topic("none")), Uuid::nil())]);
    s.ask(c, "v6 several", 6, &mixed)?;
    let twice = of(vec![state(None, b), state(None, b)]);
    s.ask(c, "v6 one id twice", 6, &twice)?;
    s.ask(c, "v6 nothing", 6, &of(vec![]))?;
    Ok(())
}

fn create_partitions(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for version in 0..=3 {
        let short = format!("t{version}");
        s.create_topic(&mut c, &short, 2, &[])?;
        let step = |what: &str| format!("v{version} {what}");
        let placed = |brokers: &[&[i32]]| {
            let one = |ids: &&[i32]| CreatePartitionsAssignment::default().with_broker_ids(ids.iter().map(|id| (*id).into()).collect());
            Some(brokers.iter().map(one).collect())
        };
        let to = |name: TopicName, count| CreatePartitionsTopic::default().with_name(name).with_count(count).with_assignments(None);
        let of = |topics| CreatePartitionsRequest::default().with_topics(topics).with_timeout_ms(15_000);
        let name = s.topic(&short);
        let cases = vec![
            ("fewer", to(name.clone(), 1)),
            ("as many", to(name.clone(), 2)),
            ("zero", to(name.clone(), 0)),
            ("negative", to(name.clone(), -1)),
            ("absurdly many", to(name.clone(), i32::MAX)),
            ("unknown topic", to(s.topic("none"), 5)),
            ("invalid name", to(topic_name("../x"), 5)),
            ("too few assignments", to(name.clone(), 4).with_assignments(placed(&[&[0]]))),
            ("too many assignments", to(name.clone(), 3).with_assignments(placed(&[&[0], &[0]]))),
            ("unknown broker", to(name.clone(), 3).with_assignments(placed(&[&[9]]))),
            ("no brokers", to(name.clone(), 3).with_assignments(placed(&[&[]]))),
            ("one broker twice", to(name.clone(), 3).with_assignments(placed(&[&[0, 0]]))),
            ("empty assignments", to(name.clone(), 3).with_assignments(placed(&[]))),
        ];
        for (what, topic) in cases {
            s.ask(&mut c, &step(what), version, &of(vec![topic]))?;
        }
        let four = of(vec![to(name.clone(), 5)]);
        s.ask(&mut c, &step("validate only"), version, &four.clone().with_validate_only(true))?;
        s.ask(&mut c, &step("five"), version, &four)?;
        s.ask(&mut c, &step("five again"), version, &four)?;
        let assigned = to(name.clone(), 6).with_assignments(placed(&[&[0]]));
        s.ask(&mut c, &step("assigned"), version, &of(vec![assigned]))?;
        let twice = of(vec![to(name.clone(), 8), to(name.clone(), 9), to(s.topic("none"), 2)]);
        s.ask(&mut c, &step("one topic twice"), version, &twice)?;
        s.ask(&mut c, &step("nothing"), version, &of(vec![]))?;
    }
    Ok(())
}

fn describe(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.note_only_own();
    s.create_topic(&mut c, "a", 3, &[])?;
    s.create_topic(&mut c, "b", 2, &[])?;
    let (a, b, none) = (s.topic("a"), s.topic("b"), s.topic("none"));
    let of = |names: &[&TopicName], limit: i32| {
        let topics = names.iter().map(|name| TopicRequest::default().with_name((*name).clone()));
        DescribeTopicPartitionsRequest::default().with_topics(topics.collect()).with_response_partition_limit(limit)
    };
    let at = |topic: &TopicName, partition: i32| Some(Cursor::default().with_topic_name(topic.clone()).with_partition_index(partition));
    let cases = vec![
        ("two topics", of(&[&b, &a], 2000)),
        ("unknown", of(&[&none], 2000)),
        ("unknown and known", of(&[&none, &a], 2000)),
        ("invalid name", of(&[&topic_name("../x")], 2000)),
        ("one twice", of(&[&a, &a], 2000)),
        ("limit 1", of(&[&a, &b], 1)),
        ("limit 2", of(&[&a, &b], 2)),
        ("limit 3", of(&[&a, &b], 3)),
        ("limit 4", of(&[&a, &b], 4)),
        ("limit 5", of(&[&a, &b], 5)),
        ("limit 0", of(&[&a, &b], 0)),
        ("limit -1", of(&[&a, &b], -1)),
        ("cursor at the first", of(&[&a, &b], 2).with_cursor(at(&a, 0))),
        ("cursor in the middle", of(&[&a, &b], 2).with_cursor(at(&a, 2))),
        ("cursor at the second topic", of(&[&a, &b], 2).with_cursor(at(&b, 1))),
        ("cursor after the last partition", of(&[&a, &b], 2).with_cursor(at(&b, 2))),
        ("cursor far after", of(&[&a, &b], 2).with_cursor(at(&a, 100))),
        ("cursor negative", of(&[&a, &b], 2).with_cursor(at(&a, -1))),
        ("cursor at a topic not asked for", of(&[&b], 2).with_cursor(at(&a, 1))),
        ("cursor at an unknown topic", of(&[&a, &b], 9).with_cursor(at(&none, 0))),
    ];
    for (what, request) in cases {
        s.ask(&mut c, what, 0, &request)?;
    }
    let all = of(&[], 2000);
    s.ask(&mut c, "all topics", 0, &all)?;
    let all_from = of(&[], 2000).with_cursor(at(&a, 1));
    s.ask(&mut c, "all topics from a cursor", 0, &all_from)?;
    Ok(())
}
