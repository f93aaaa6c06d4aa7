//! DescribeCluster, DescribeLogDirs and AlterReplicaLogDirs.

use super::fetch::fill;
use super::requests::{text, topic_name};
use crate::{Scenario, Session, scenario};
use anyhow::Result;
use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::{AlterReplicaLogDirsRequest, DescribeClusterRequest, DescribeLogDirsRequest, TopicName};

pub const SCENARIOS: &[Scenario] = &[
    scenario("describe-cluster", describe_cluster),
    scenario("describe-log-dirs", describe_log_dirs),
    scenario("alter-replica-log-dirs", alter_replica_log_dirs),
];

fn describe_cluster(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for version in 0..=2 {
        let step = |what: &str| format!("v{version} {what}");
        let plain = DescribeClusterRequest::default();
        s.ask(&mut c, &step("plain"), version, &plain)?;
        let operations = plain.clone().with_include_cluster_authorized_operations(true);
        s.ask(&mut c, &step("authorized operations"), version, &operations)?;
        if version >= 1 {
            for endpoint in [2, 0, 3, -1] {
                let request = plain.clone().with_endpoint_type(endpoint);
                s.ask(&mut c, &step(&format!("endpoint type {endpoint}")), version, &request)?;
            }
        }
        if version >= 2 {
            let fenced = plain.with_include_fenced_brokers(true);
            s.ask(&mut c, &step("fenced brokers too"), version, &fenced)?;
        }
    }
    Ok(())
}

fn describe_log_dirs(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 2, &[])?;
    fill(s, &mut c, "t", 0, 2, 3)?;
    let of = |name: TopicName, partitions: &[i32]| {
        let topic = DescribableLogDirTopic::default().with_topic(name).with_partitions(partitions.to_vec());
        DescribeLogDirsRequest::default().with_topics(Some(vec![topic]))
    };
    for version in 1..=4 {
        let step = |what: &str| format!("v{version} {what}");
        let name = s.topic("t");
        s.ask(&mut c, &step("two partitions"), version, &of(name.clone(), &[0, 1]))?;
        s.ask(&mut c, &step("one and an unknown one"), version, &of(name.clone(), &[1, 9]))?;
        s.ask(&mut c, &step("no partitions"), version, &of(name, &[]))?;
        s.ask(&mut c, &step("unknown topic"), version, &of(s.topic("none"), &[0]))?;
        s.ask(&mut c, &step("invalid name"), version, &of(topic_name("../x"), &[0]))?;
        let nothing = DescribeLogDirsRequest::default().with_topics(Some(vec![]));
        s.ask(&mut c, &step("no topics"), version, &nothing)?;
    }
    Ok(())
}

fn alter_replica_log_dirs(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 1, &[])?;
    let described = c.call(4, &DescribeLogDirsRequest::default().with_topics(Some(vec![])))?;
    let here = described.results.first().map(|dir| dir.log_dir.to_string()).unwrap_or_default();
    let long = "x".repeat(213);
    let names = [("a topic", s.topic("t")), ("an unknown topic", s.topic("none"))];
    let names = names.into_iter().chain([("a long name", topic_name(&long[1..])), ("too long a name", topic_name(&long))]);
    for (what, name) in names {
        for (place, dir) in [("where it is", here.as_str()), ("nowhere", "/nowhere")] {
            for version in [1, 2] {
                let topic = AlterReplicaLogDirTopic::default().with_name(name.clone()).with_partitions(vec![0, 10]);
                let dir = AlterReplicaLogDir::default().with_path(text(dir)).with_topics(vec![topic]);
                let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]);
                s.ask(&mut c, &format!("v{version} {what}, {place}"), version, &request)?;
            }
        }
    }
    Ok(())
}
