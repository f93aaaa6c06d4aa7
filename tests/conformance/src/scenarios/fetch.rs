//! Fetch: offsets, limits, epochs, isolation. Sessions have a file of their own.

use super::requests::{Topic, fetch, produce, topic_name};
use crate::batch::Batch;
use crate::{Conn, Scenario, Session, scenario};
use anyhow::Result;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::{DeleteRecordsRequest, FetchRequest};
use std::time::{Duration, Instant};
use uuid::Uuid;

pub const SCENARIOS: &[Scenario] = &[
    scenario("fetch-versions", versions),
    scenario("fetch-offsets", offsets),
    scenario("fetch-limits", limits),
    scenario("fetch-waits", waits),
    scenario("fetch-epochs", epochs),
    scenario("fetch-unknown", unknown),
    scenario("fetch-options", options),
];

const MIB: i32 = 1 << 20;

/// Fills partition `partition` of a topic with `batches` batches of `records` records.
pub fn fill(s: &Session, c: &mut Conn, short: &str, partition: i32, batches: usize, records: usize) -> Result<()> {
    let topic = Topic::Name(s.topic(short));
    for i in 0..batches {
        let batch = Batch::of(records, s.start_ms + (i * records) as i64);
        c.call(9, &produce(&topic, &[(partition, &batch)]))?;
    }
    Ok(())
}

fn versions(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let id = s.create_topic(&mut c, "t", 2, &[])?;
    fill(s, &mut c, "t", 0, 2, 3)?;
    for version in 4..=18 {
        let topic = match version {
            13.. => Topic::Id(id),
            _ => Topic::Name(s.topic("t")),
        };
        let request = fetch(&topic, &[(0, 0, MIB), (1, 0, MIB), (7, 0, MIB)]);
        s.ask(&mut c, &format!("v{version}"), version, &request)?;
        let request = fetch(&topic, &[(0, 100, MIB)]);
        s.ask(&mut c, &format!("v{version} out of range"), version, &request)?;
        let nothing = FetchRequest::default().with_max_wait_ms(0);
        s.ask(&mut c, &format!("v{version} no topics"), version, &nothing)?;
    }
    Ok(())
}

fn offsets(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 1, &[])?;
    fill(s, &mut c, "t", 0, 4, 3)?;
    let topic = Topic::Name(s.topic("t"));
    let try_all = |s: &mut Session, c: &mut Conn, when: &str| -> Result<()> {
        for offset in [-2, -1, 0, 1, 3, 4, 5, 6, 11, 12, 13, i64::MAX] {
            for version in [4, 12] {
                let request = fetch(&topic, &[(0, offset, MIB)]);
                s.ask(c, &format!("{when} offset {offset} v{version}"), version, &request)?;
            }
        }
        Ok(())
    };
    try_all(s, &mut c, "start 0,")?;
    let partition = DeleteRecordsPartition::default().with_offset(4);
    let records = DeleteRecordsTopic::default().with_name(s.topic("t")).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![records]).with_timeout_ms(10_000);
    s.ask(&mut c, "delete records below 4", 2, &request)?;
    try_all(s, &mut c, "start 4,")
}

fn limits(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 3, &[])?;
    for partition in 0..3 {
        fill(s, &mut c, "t", partition, 3, 5)?;
    }
    let topic = Topic::Name(s.topic("t"));
    let batch = Batch::of(5, s.start_ms).encode().len() as i32;
    let limits = [
        ("max_bytes 0", 0, MIB),
        ("max_bytes 1", 1, MIB),
        ("max_bytes one batch", batch, MIB),
        ("max_bytes a batch and a half", batch * 3 / 2, MIB),
        ("max_bytes two batches", batch * 2, MIB),
        ("max_bytes four batches", batch * 4, MIB),
        ("partition limit 0", MIB, 0),
        ("partition limit 1", MIB, 1),
        ("partition limit one batch less one", MIB, batch - 1),
        ("partition limit one batch", MIB, batch),
        ("partition limit two batches", MIB, batch * 2),
        ("partition limit negative", MIB, -1),
        ("max_bytes negative", -1, MIB),
    ];
    for version in [4, 12] {
        for (what, bytes_max, partition_bytes_max) in limits {
            let parts = [0, 1, 2].map(|p| (p, 0, partition_bytes_max));
            let request = fetch(&topic, &parts).with_max_bytes(bytes_max);
            s.ask(&mut c, &format!("{what} v{version}"), version, &request)?;
        }
    }
    let order = fetch(&topic, &[(2, 0, MIB), (0, 0, MIB), (1, 0, MIB)]).with_max_bytes(1);
    s.ask(&mut c, "the first partition asked for comes first", 12, &order)?;
    let empty_first = fetch(&topic, &[(0, 15, MIB), (1, 0, MIB)]).with_max_bytes(1);
    s.ask(&mut c, "an empty partition first", 12, &empty_first)?;
    let error_first = fetch(&topic, &[(0, 99, MIB), (1, 0, MIB)]).with_max_bytes(1);
    s.ask(&mut c, "an error first", 12, &error_first)?;
    Ok(())
}

/// How long Fetch waits; the times themselves are noted as early or late only.
fn waits(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 2, &[])?;
    fill(s, &mut c, "t", 0, 1, 1)?;
    let topic = Topic::Name(s.topic("t"));
    let end = |min_bytes| fetch(&topic, &[(0, 1, MIB)]).with_max_wait_ms(400).with_min_bytes(min_bytes);
    let cases = [
        ("at the end, min_bytes 0", end(0)),
        ("at the end, min_bytes 1", end(1)),
        ("data, min_bytes 1", fetch(&topic, &[(0, 0, MIB)]).with_max_wait_ms(400).with_min_bytes(1)),
        ("data, min_bytes too large", fetch(&topic, &[(0, 0, MIB)]).with_max_wait_ms(400).with_min_bytes(MIB)),
        ("an error does not wait", fetch(&topic, &[(0, 99, MIB)]).with_max_wait_ms(400).with_min_bytes(1)),
        ("an error and an end", fetch(&topic, &[(0, 1, MIB), (1, 99, MIB)]).with_max_wait_ms(400).with_min_bytes(1)),
        ("no partitions", fetch(&topic, &[]).with_max_wait_ms(400).with_min_bytes(1)),
    ];
    for (what, request) in cases {
        let start = Instant::now();
        s.ask(&mut c, what, 12, &request)?;
        let waited = start.elapsed() >= Duration::from_millis(390);
        s.note(&format!("{what}: waited"), "clock", waited.into())?;
    }
    c.send(12, &end(1).with_max_wait_ms(10_000))?;
    let mut other = s.connect()?;
    fill(s, &mut other, "t", 0, 1, 2)?;
    s.hear::<FetchRequest>(&mut c, "a produce wakes a fetch", 12)?;
    Ok(())
}

fn epochs(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 1, &[])?;
    fill(s, &mut c, "t", 0, 2, 3)?;
    let topic = Topic::Name(s.topic("t"));
    for epoch in [-1, 0, 1, 7, -2] {
        for version in [9, 12] {
            let mut request = fetch(&topic, &[(0, 0, MIB)]);
            request.topics[0].partitions[0].current_leader_epoch = epoch;
            s.ask(&mut c, &format!("current leader epoch {epoch} v{version}"), version, &request)?;
        }
    }
    for (epoch, offset) in [(0, 0), (0, 3), (0, 6), (0, 7), (0, 100), (1, 3), (5, 0), (-1, 3), (-2, 3)] {
        let mut request = fetch(&topic, &[(0, offset, MIB)]);
        request.topics[0].partitions[0].last_fetched_epoch = epoch;
        s.ask(&mut c, &format!("last fetched epoch {epoch}, offset {offset}"), 12, &request)?;
    }
    Ok(())
}

fn unknown(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let id = s.create_topic(&mut c, "t", 1, &[])?;
    fill(s, &mut c, "t", 0, 1, 1)?;
    let (known, none) = (Topic::Name(s.topic("t")), Topic::Name(s.topic("none")));
    for version in [4, 7, 12] {
        let step = |what: &str| format!("{what} v{version}");
        s.ask(&mut c, &step("unknown topic"), version, &fetch(&none, &[(0, 0, MIB)]))?;
        s.ask(&mut c, &step("partition -1"), version, &fetch(&known, &[(-1, 0, MIB)]))?;
        let bad = Topic::Name(topic_name("../x"));
        s.ask(&mut c, &step("invalid name"), version, &fetch(&bad, &[(0, 0, MIB)]))?;
        let mut both = fetch(&none, &[(0, 0, MIB)]);
        both.topics.extend(fetch(&known, &[(0, 0, MIB)]).topics);
        s.ask(&mut c, &step("unknown and known"), version, &both)?;
        s.ask(&mut c, &step("no partitions"), version, &fetch(&known, &[]))?;
    }
    for version in [13, 18] {
        for (what, topic) in [("unknown id", Topic::Id(Uuid::from_u128(5))), ("zero id", Topic::Id(Uuid::nil()))] {
            let mut request = fetch(&topic, &[(0, 0, MIB)]);
            s.ask(&mut c, &format!("{what} v{version}"), version, &request)?;
            request.topics.extend(fetch(&Topic::Id(id), &[(0, 0, MIB)]).topics);
            s.ask(&mut c, &format!("{what} and known v{version}"), version, &request)?;
        }
    }
    let twice = fetch(&known, &[(0, 0, MIB), (0, 1, MIB)]);
    s.ask(&mut c, "one partition twice", 12, &twice)?;
    Ok(())
}

fn options(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let id = s.create_topic(&mut c, "t", 1, &[])?;
    fill(s, &mut c, "t", 0, 1, 2)?;
    let (name, id) = (Topic::Name(s.topic("t")), Topic::Id(id));
    let part = [(0, 0, MIB)];
    for (version, topic) in [(4, &name), (11, &name), (12, &name), (18, &id)] {
        let step = |what: &str| format!("{what} v{version}");
        for isolation in [0, 1, 2, -1] {
            let request = fetch(topic, &part).with_isolation_level(isolation);
            s.ask(&mut c, &step(&format!("isolation {isolation}")), version, &request)?;
        }
        if version >= 11 {
            let request = fetch(topic, &part).with_rack_id(super::requests::text("some-rack"));
            s.ask(&mut c, &step("rack"), version, &request)?;
        }
        if version <= 14 {
            for replica in [-2, 5] {
                let request = fetch(topic, &part).with_replica_id(replica.into());
                s.ask(&mut c, &step(&format!("replica {replica}")), version, &request)?;
            }
        }
        if version >= 12 {
            let request = fetch(topic, &part).with_cluster_id(Some(super::requests::text("other")));
            s.ask(&mut c, &step("another cluster id"), version, &request)?;
        }
        let request = fetch(topic, &part).with_max_wait_ms(-1);
        s.ask(&mut c, &step("negative wait"), version, &request)?;
    }
    Ok(())
}
