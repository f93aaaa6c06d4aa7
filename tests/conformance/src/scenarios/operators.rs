//! What operators ask for: elections, reassignments, log directories, the quorum, features, brokers, quotas, subscriptions to metrics.

use super::requests::{text, topic_name};
use crate::{Scenario, Session, scenario};
use anyhow::Result;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, BrokerId, DescribeClientQuotasRequest,
    DescribeQuorumRequest, ElectLeadersRequest, ListPartitionReassignmentsRequest, TopicName, UnregisterBrokerRequest,
    UpdateFeaturesRequest,
};

pub const SCENARIOS: &[Scenario] = &[
    scenario("elect-leaders", elect_leaders),
    scenario("reassignments", reassignments),
    scenario("alter-replica-log-dirs", alter_replica_log_dirs),
    scenario("describe-quorum", describe_quorum),
    scenario("update-features", update_features),
    scenario("unregister-broker", unregister_broker),
    scenario("client-quotas", client_quotas),
    scenario("client-quotas-errors", client_quotas_errors),
];

fn elect_leaders(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 2, &[])?;
    let of = |topic: TopicName, partitions: &[i32]| {
        let asked = TopicPartitions::default().with_topic(topic).with_partitions(partitions.to_vec());
        ElectLeadersRequest::default().with_topic_partitions(Some(vec![asked])).with_timeout_ms(5_000)
    };
    for version in 0..=2 {
        let step = |what: &str| format!("v{version} {what}");
        let t = s.topic("t");
        s.ask(&mut c, &step("preferred"), version, &of(t.clone(), &[0, 1]))?;
        s.ask(&mut c, &step("unknown partition"), version, &of(t.clone(), &[9]))?;
        s.ask(&mut c, &step("negative partition"), version, &of(t.clone(), &[-1]))?;
        s.ask(&mut c, &step("unknown topic"), version, &of(s.topic("none"), &[0]))?;
        s.ask(&mut c, &step("no partitions"), version, &of(t.clone(), &[]))?;
        s.ask(
            &mut c,
            &step("no topics"),
            version,
            &ElectLeadersRequest::default().with_topic_partitions(Some(vec![])).with_timeout_ms(5_000),
        )?;
        if version >= 1 {
            s.ask(&mut c, &step("unclean"), version, &of(t, &[0]).with_election_type(1))?;
        }
    }
    Ok(())
}

fn reassignments(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 2, &[])?;
    let of = |topic: TopicName, moves: &[(i32, Option<&[i32]>)]| {
        let one = |(index, replicas): &(i32, Option<&[i32]>)| {
            let replicas = replicas.map(|replicas| replicas.iter().copied().map(BrokerId).collect());
            ReassignablePartition::default().with_partition_index(*index).with_replicas(replicas)
        };
        let topic = ReassignableTopic::default().with_name(topic).with_partitions(moves.iter().map(one).collect());
        AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000)
    };
    for version in 0..=1 {
        let step = |what: &str| format!("v{version} {what}");
        let t = s.topic("t");
        let cases: &[(&str, TopicName, &[(i32, Option<&[i32]>)])] = &[
            ("to where it is", t.clone(), &[(0, Some(&[0])), (1, Some(&[0]))]),
            ("call off what is not there", t.clone(), &[(0, None)]),
            ("to an unknown broker", t.clone(), &[(0, Some(&[7]))]),
            ("to a negative broker", t.clone(), &[(0, Some(&[-1]))]),
            ("to one broker twice", t.clone(), &[(0, Some(&[0, 0]))]),
            ("to nowhere", t.clone(), &[(0, Some(&[]))]),
            ("unknown partition", t.clone(), &[(9, Some(&[0]))]),
            ("call off an unknown partition", t.clone(), &[(9, None)]),
            ("unknown topic", s.topic("none"), &[(0, Some(&[0]))]),
            ("no partitions", t, &[]),
        ];
        for (what, topic, moves) in cases {
            s.ask(&mut c, &step(what), version, &of(topic.clone(), moves))?;
        }
        let nothing = AlterPartitionReassignmentsRequest::default().with_timeout_ms(5_000);
        s.ask(&mut c, &step("nothing"), version, &nothing)?;
    }
    let list = |topics| ListPartitionReassignmentsRequest::default().with_topics(topics).with_timeout_ms(5_000);
    let some = |name: TopicName| ListPartitionReassignmentsTopics::default().with_name(name).with_partition_indexes(vec![0, 9]);
    s.ask(&mut c, "list one topic", 0, &list(Some(vec![some(s.topic("t"))])))?;
    s.ask(&mut c, "list an unknown topic", 0, &list(Some(vec![some(s.topic("none"))])))?;
    Ok(())
}

fn alter_replica_log_dirs(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 1, &[])?;
    for version in 1..=2 {
        for (what, topic) in [("unknown directory", s.topic("t")), ("unknown directory and topic", s.topic("none"))] {
            let topic = AlterReplicaLogDirTopic::default().with_name(topic).with_partitions(vec![0]);
            let dir = AlterReplicaLogDir::default().with_path(text("/no/such/directory")).with_topics(vec![topic]);
            let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]);
            s.ask(&mut c, &format!("v{version} {what}"), version, &request)?;
        }
        s.ask(&mut c, &format!("v{version} nothing"), version, &AlterReplicaLogDirsRequest::default())?;
    }
    Ok(())
}

fn describe_quorum(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let of = |topic: TopicName, partitions: &[i32]| {
        let partitions = partitions.iter().map(|index| PartitionData::default().with_partition_index(*index)).collect();
        DescribeQuorumRequest::default().with_topics(vec![TopicData::default().with_topic_name(topic).with_partitions(partitions)])
    };
    for version in 0..=2 {
        let step = |what: &str| format!("v{version} {what}");
        s.ask(&mut c, &step("another partition"), version, &of(topic_name("__cluster_metadata"), &[1]))?;
        s.ask(&mut c, &step("another topic"), version, &of(s.topic("t"), &[0]))?;
    }
    Ok(())
}

fn update_features(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for version in 0..=2 {
        let of = |name: &str, level: i16, upgrade_type: i8| {
            let key = FeatureUpdateKey::default().with_feature(text(name)).with_max_version_level(level);
            let key = if version >= 1 { key.with_upgrade_type(upgrade_type) } else { key };
            UpdateFeaturesRequest::default().with_feature_updates(vec![key]).with_timeout_ms(5_000)
        };
        for (what, request) in [
            ("where it is", of("transaction.version", 2, 1)),
            ("unknown", of("no.such.feature", 1, 1)),
            ("too high", of("transaction.version", 99, 1)),
            ("negative", of("transaction.version", -1, 1)),
            ("nothing", UpdateFeaturesRequest::default().with_timeout_ms(5_000)),
        ] {
            s.ask(&mut c, &format!("v{version} {what}"), version, &request)?;
        }
        if version >= 1 {
            for (what, request) in [
                ("down without leave, dry", of("transaction.version", 0, 1).with_validate_only(true)),
                ("down, dry", of("transaction.version", 0, 2).with_validate_only(true)),
                ("metadata.version down, dry", of("metadata.version", 21, 2).with_validate_only(true)),
                ("unknown kind of upgrade", of("transaction.version", 2, 9)),
            ] {
                s.ask(&mut c, &format!("v{version} {what}"), version, &request)?;
            }
        }
    }
    Ok(())
}

fn unregister_broker(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for id in [77, -1] {
        s.ask(&mut c, &format!("broker {id}"), 0, &UnregisterBrokerRequest::default().with_broker_id(BrokerId(id)))?;
    }
    Ok(())
}

type Part<'a> = (&'a str, Option<&'a str>);
type Op<'a> = (&'a str, f64, bool);

fn quota(parts: &[Part], ops: &[Op]) -> EntryData {
    let part = |(kind, name): &Part| EntityData::default().with_entity_type(text(kind)).with_entity_name(name.map(text));
    let op = |(key, value, remove): &Op| OpData::default().with_key(text(key)).with_value(*value).with_remove(*remove);
    EntryData::default().with_entity(parts.iter().map(part).collect()).with_ops(ops.iter().map(op).collect())
}

fn alter(entries: Vec<EntryData>) -> AlterClientQuotasRequest {
    AlterClientQuotasRequest::default().with_entries(entries)
}

/// Entity type, kind of match (0 exactly, 1 default, 2 any), name.
type Match<'a> = (&'a str, i8, Option<&'a str>);

fn describe(parts: &[Match], strict: bool) -> DescribeClientQuotasRequest {
    let part =
        |(kind, how, name): &Match| ComponentData::default().with_entity_type(text(kind)).with_match_type(*how).with_match(name.map(text));
    DescribeClientQuotasRequest::default().with_components(parts.iter().map(part).collect()).with_strict(strict)
}

fn client_quotas(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for version in 0..=1 {
        let step = |what: &str| format!("v{version} {what}");
        let (user, client) = (format!("conformance-u{version}"), format!("conformance-c{version}"));
        let (user, client) = (user.as_str(), client.as_str());
        let both: &[Part] = &[("user", Some(user)), ("client-id", Some(client))];
        let set = alter(vec![
            quota(&[("user", Some(user))], &[("producer_byte_rate", 1024.0, false), ("request_percentage", 12.5, false)]),
            quota(both, &[("consumer_byte_rate", 2048.0, false)]),
        ]);
        s.ask(&mut c, &step("validate only"), version, &set.clone().with_validate_only(true))?;
        s.ask(&mut c, &step("after validation"), version, &describe(&[("user", 0, Some(user))], false))?;
        s.ask(&mut c, &step("set"), version, &set)?;
        s.ask(&mut c, &step("by user"), version, &describe(&[("user", 0, Some(user))], false))?;
        s.ask(&mut c, &step("by user, strictly"), version, &describe(&[("user", 0, Some(user))], true))?;
        s.ask(&mut c, &step("by user and any client"), version, &describe(&[("user", 0, Some(user)), ("client-id", 2, None)], true))?;
        s.ask(&mut c, &step("by client"), version, &describe(&[("client-id", 0, Some(client))], false))?;
        s.ask(&mut c, &step("no such user"), version, &describe(&[("user", 0, Some("conformance-nobody"))], false))?;
        let remove = alter(vec![
            quota(&[("user", Some(user))], &[("producer_byte_rate", 0.0, true), ("request_percentage", 0.0, true)]),
            quota(both, &[("consumer_byte_rate", 0.0, true)]),
        ]);
        s.ask(&mut c, &step("remove"), version, &remove)?;
        s.ask(&mut c, &step("after removal"), version, &describe(&[("user", 0, Some(user))], false))?;
        s.ask(&mut c, &step("remove what is not set"), version, &remove)?;
    }
    s.ask(&mut c, "nothing", 1, &alter(vec![]))?;
    Ok(())
}

fn client_quotas_errors(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let user: &[Part] = &[("user", Some("conformance-bad"))];
    let rate = "producer_byte_rate";
    let cases: &[(&str, &[Part], &[Op])] = &[
        ("zero", user, &[(rate, 0.0, false)]),
        ("negative", user, &[(rate, -1.0, false)]),
        ("a fraction of a byte", user, &[(rate, 1.5, false)]),
        ("too large", user, &[(rate, 1e30, false)]),
        ("unknown key", user, &[("no_such_quota", 1.0, false)]),
        ("remove an unknown key", user, &[("no_such_quota", 1.0, true)]),
        ("an address' key", user, &[("connection_creation_rate", 1.0, false)]),
        ("unknown entity type", &[("planet", Some("earth"))], &[(rate, 1.0, false)]),
        ("empty entity type", &[("", Some("earth"))], &[(rate, 1.0, false)]),
        ("empty name", &[("user", Some(""))], &[(rate, 1.0, false)]),
        ("no entity", &[], &[(rate, 1.0, false)]),
        ("address and user", &[("ip", Some("10.0.0.1")), ("user", Some("u"))], &[("connection_creation_rate", 1.0, false)]),
        ("bytes of an address", &[("ip", Some("10.0.0.1"))], &[(rate, 1.0, false)]),
        ("a fraction of a connection", &[("ip", Some("10.0.0.1"))], &[("connection_creation_rate", 1.5, false)]),
        ("no address", &[("ip", Some("no.such.host.invalid"))], &[("connection_creation_rate", 1.0, false)]),
    ];
    for (what, parts, ops) in cases {
        s.ask(&mut c, what, 1, &alter(vec![quota(parts, ops)]))?;
    }
    let filters: &[(&str, &[Match])] = &[
        ("filter: exactly nothing", &[("user", 0, None)]),
        ("filter: default with a name", &[("user", 1, Some("u"))]),
        ("filter: any with a name", &[("user", 2, Some("u"))]),
        ("filter: unknown kind of match", &[("user", 3, None)]),
        ("filter: one type twice", &[("user", 0, Some("u")), ("user", 1, None)]),
        ("filter: empty type", &[("", 2, None)]),
        ("filter: unknown type", &[("planet", 2, None)]),
        ("filter: address and user", &[("ip", 2, None), ("user", 2, None)]),
    ];
    for (what, parts) in filters {
        s.ask(&mut c, what, 1, &describe(parts, false))?;
    }
    Ok(())
}
