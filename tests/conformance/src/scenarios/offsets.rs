//! ListOffsets, OffsetForLeaderEpoch and DeleteRecords.

use super::fetch::fill;
use super::requests::{list_offsets, topic_name};
use crate::{Scenario, Session, scenario};
use anyhow::Result;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{DeleteRecordsRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest, TopicName};

pub const SCENARIOS: &[Scenario] = &[
    scenario("list-offsets", list),
    scenario("list-offsets-errors", list_errors),
    scenario("offset-for-leader-epoch", leader_epoch),
    scenario("delete-records", delete_records),
];

fn list(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 2, &[])?;
    fill(s, &mut c, "t", 0, 3, 4)?;
    let (name, start) = (s.topic("t"), s.start_ms);
    let times = [
        ("latest", -1),
        ("earliest", -2),
        ("max timestamp", -3),
        ("earliest local", -4),
        ("latest tiered", -5),
        ("earliest pending upload", -6),
        ("-7", -7),
        ("0", 0),
        ("first", start),
        ("inside the first batch", start + 2),
        ("first of the second batch", start + 4),
        ("last", start + 11),
        ("after the last", start + 12),
        ("far future", i64::MAX),
    ];
    for version in 1..=10 {
        for (what, time) in times {
            let request = list_offsets(name.clone(), &[(0, time), (1, time)]);
            s.ask(&mut c, &format!("v{version} {what}"), version, &request)?;
        }
    }
    for isolation in [0, 1, 2] {
        let request = list_offsets(name.clone(), &[(0, -1), (1, -1)]).with_isolation_level(isolation);
        s.ask(&mut c, &format!("latest, isolation {isolation}"), 7, &request)?;
    }
    Ok(())
}

fn list_errors(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 1, &[])?;
    fill(s, &mut c, "t", 0, 1, 2)?;
    for version in [1, 4, 6, 7, 10] {
        let step = |what: &str| format!("v{version} {what}");
        let none = list_offsets(s.topic("none"), &[(0, -1)]);
        s.ask(&mut c, &step("unknown topic"), version, &none)?;
        let parts = list_offsets(s.topic("t"), &[(5, -1), (-1, -1)]);
        s.ask(&mut c, &step("unknown partitions"), version, &parts)?;
        let bad = list_offsets(topic_name("../x"), &[(0, -1)]);
        s.ask(&mut c, &step("invalid name"), version, &bad)?;
        let twice = list_offsets(s.topic("t"), &[(0, -1), (0, -2)]);
        s.ask(&mut c, &step("one partition twice"), version, &twice)?;
        s.ask(&mut c, &step("no partitions"), version, &list_offsets(s.topic("t"), &[]))?;
        let nothing = ListOffsetsRequest::default().with_replica_id((-1).into());
        s.ask(&mut c, &step("no topics"), version, &nothing)?;
        for replica in [0, 5, -2] {
            let request = list_offsets(s.topic("t"), &[(0, -1)]).with_replica_id(replica.into());
            s.ask(&mut c, &step(&format!("replica {replica}")), version, &request)?;
        }
        if version >= 4 {
            for (epoch, time) in [(0, -1), (1, -1), (-2, -1), (1, -2), (1, 0)] {
                let mut request = list_offsets(s.topic("t"), &[(0, time)]);
                request.topics[0].partitions[0].current_leader_epoch = epoch;
                s.ask(&mut c, &step(&format!("epoch {epoch}, time {time}")), version, &request)?;
            }
        }
    }
    Ok(())
}

fn epoch_of(topic: TopicName, partitions: &[(i32, i32, i32)]) -> OffsetForLeaderEpochRequest {
    let partitions = partitions.iter().map(|(partition, current, wanted)| {
        OffsetForLeaderPartition::default().with_partition(*partition).with_current_leader_epoch(*current).with_leader_epoch(*wanted)
    });
    let topic = OffsetForLeaderTopic::default().with_topic(topic).with_partitions(partitions.collect());
    OffsetForLeaderEpochRequest::default().with_topics(vec![topic])
}

fn leader_epoch(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 2, &[])?;
    fill(s, &mut c, "t", 0, 2, 3)?;
    for version in 2..=4 {
        let step = |what: &str| format!("v{version} {what}");
        let as_consumer = |request: OffsetForLeaderEpochRequest| match version {
            2 => request,
            _ => request.with_replica_id((-1).into()),
        };
        for (current, wanted) in [(-1, 0), (0, 0), (-1, 1), (-1, 9), (-1, -1), (-1, -2), (1, 0), (-2, 0)] {
            let request = epoch_of(s.topic("t"), &[(0, current, wanted), (1, current, wanted)]);
            let step = step(&format!("current {current}, wanted {wanted}"));
            s.ask(&mut c, &step, version, &as_consumer(request))?;
        }
        let none = epoch_of(s.topic("none"), &[(0, -1, 0)]);
        s.ask(&mut c, &step("unknown topic"), version, &as_consumer(none))?;
        let part = epoch_of(s.topic("t"), &[(9, -1, 0), (-1, -1, 0)]);
        s.ask(&mut c, &step("unknown partition"), version, &as_consumer(part))?;
        let nothing = OffsetForLeaderEpochRequest::default();
        s.ask(&mut c, &step("no topics"), version, &as_consumer(nothing))?;
    }
    Ok(())
}

fn delete(topic: TopicName, partitions: &[(i32, i64)]) -> DeleteRecordsRequest {
    let partitions = partitions
        .iter()
        .map(|(partition, offset)| DeleteRecordsPartition::default().with_partition_index(*partition).with_offset(*offset));
    let topic = DeleteRecordsTopic::default().with_name(topic).with_partitions(partitions.collect());
    DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000)
}

fn delete_records(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for version in 0..=2 {
        let short = format!("t{version}");
        s.create_topic(&mut c, &short, 2, &[])?;
        fill(s, &mut c, &short, 0, 4, 3)?;
        let step = |what: &str| format!("v{version} {what}");
        let cases = [
            ("nothing", 0, 0),
            ("middle of a batch", 0, 4),
            ("the same again", 0, 4),
            ("below the start", 0, 2),
            ("above the end", 0, 13),
            ("-2", 0, -2),
            ("unknown partition", 9, 1),
            ("empty partition, its end", 1, 0),
            ("empty partition, -1", 1, -1),
            ("empty partition, one too many", 1, 1),
            ("the end", 0, 12),
            ("-1 when empty", 0, -1),
        ];
        for (what, partition, offset) in cases {
            let request = delete(s.topic(&short), &[(partition, offset)]);
            s.ask(&mut c, &step(what), version, &request)?;
            let offsets = list_offsets(s.topic(&short), &[(0, -2)]);
            s.ask(&mut c, &step(&format!("{what}: log start")), 7, &offsets)?;
        }
        s.ask(&mut c, &step("unknown topic"), version, &delete(s.topic("none"), &[(0, 1)]))?;
        let mixed = delete(s.topic(&short), &[(0, -1), (1, 5), (7, 0)]);
        s.ask(&mut c, &step("several partitions"), version, &mixed)?;
        s.ask(&mut c, &step("no topics"), version, &DeleteRecordsRequest::default())?;
        let offsets = delete(topic_name("__consumer_offsets"), &[(0, 0)]);
        s.ask(&mut c, &step("internal topic"), version, &offsets)?;
    }
    let cleanup = [("cleanup.policy", "compact")];
    s.create_topic(&mut c, "compact", 1, &cleanup)?;
    s.ask(&mut c, "compacted topic", 2, &delete(s.topic("compact"), &[(0, 0)]))?;
    Ok(())
}
