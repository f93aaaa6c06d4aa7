//! Produce: batches good and bad.

use super::requests::{Topic, fetch, list_offsets, produce, produce_bytes, text};
use crate::batch::{Batch, old_message_set};
use crate::session::raw_header;
use crate::{Conn, Scenario, Session, scenario};
use anyhow::Result;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ProduceRequest, TransactionalId};
use std::time::Duration;
use uuid::Uuid;

pub const SCENARIOS: &[Scenario] = &[
    scenario("produce-versions", versions),
    scenario("produce-bad-batches", bad_batches),
    scenario("produce-bad-records", bad_records),
    scenario("produce-limits", limits),
    scenario("produce-acks", acks),
    scenario("produce-unknown", unknown),
    scenario("produce-old-versions", old_versions),
    scenario("produce-topic-settings", topic_settings),
];

fn versions(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let id = s.create_topic(&mut c, "t", 2, &[])?;
    let batch = Batch::of(3, s.start_ms);
    for version in 3..=13 {
        let topic = match version {
            13 => Topic::Id(id),
            _ => Topic::Name(s.topic("t")),
        };
        let request = produce(&topic, &[(0, &batch), (1, &batch), (7, &batch)]);
        s.ask(&mut c, &format!("v{version}"), version, &request)?;
    }
    let fetch = fetch(&Topic::Name(s.topic("t")), &[(0, 0, 1 << 20), (1, 0, 1 << 20)]);
    s.ask(&mut c, "read back", 12, &fetch)?;
    Ok(())
}

/// Produces each of `cases` at versions 3, 9 and 12, then notes where the log ends.
fn try_all(s: &mut Session, c: &mut Conn, cases: Vec<(&str, Bytes)>) -> Result<()> {
    s.create_topic(c, "t", 1, &[])?;
    let topic = Topic::Name(s.topic("t"));
    for (what, records) in cases {
        for version in [3, 9, 12] {
            let request = produce_bytes(&topic, -1, vec![(0, records.clone())]);
            s.ask(c, &format!("{what} v{version}"), version, &request)?;
        }
        let end = list_offsets(s.topic("t"), &[(0, -1)]);
        s.ask(c, &format!("{what}: log end"), 7, &end)?;
    }
    Ok(())
}

fn bad_batches(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let batch = Batch::of(3, s.start_ms);
    let good = batch.encode();
    let with = |change: fn(&mut Batch)| batch.clone().with(change).encode();
    let join = |parts: &[&[u8]]| Bytes::from(parts.concat());
    let cases = vec![
        ("bad crc", with(|b| b.bad_crc = true)),
        ("magic 0", with(|b| b.magic = 0)),
        ("magic 1", with(|b| b.magic = 1)),
        ("magic 3", with(|b| b.magic = 3)),
        ("magic -1", with(|b| b.magic = -1)),
        ("no bytes", Bytes::new()),
        ("11 bytes", good.slice(..11)),
        ("header only", good.slice(..61)),
        ("60 bytes", good.slice(..60)),
        ("last byte missing", good.slice(..good.len() - 1)),
        ("one byte too many", join(&[&good, &[0]])),
        ("length one too small", with(|b| b.length_lie = -1)),
        ("length one too large", with(|b| b.length_lie = 1)),
        ("length negative", with(|b| b.length_lie = -100_000)),
        ("length huge", with(|b| b.length_lie = i32::MAX - 200)),
        ("two batches", join(&[&good, &good])),
        ("good batch, then bad crc", join(&[&good, &with(|b| b.bad_crc = true)])),
        ("zeros", Bytes::from_static(&[0; 100])),
    ];
    try_all(s, &mut c, cases)
}

fn bad_records(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let batch = Batch::of(3, s.start_ms);
    let with = |change: fn(&mut Batch)| batch.clone().with(change).encode();
    let cases = vec![
        ("count one too large", with(|b| b.count = Some(4))),
        ("count one too small", with(|b| b.count = Some(2))),
        ("count zero", with(|b| b.count = Some(0))),
        ("count negative", with(|b| b.count = Some(-1))),
        ("count huge", with(|b| b.count = Some(i32::MAX))),
        ("no records", with(|b| b.records.clear())),
        ("last offset delta too large", with(|b| b.last_offset_delta = Some(5))),
        ("last offset delta too small", with(|b| b.last_offset_delta = Some(1))),
        ("last offset delta negative", with(|b| b.last_offset_delta = Some(-1))),
        ("base offset set", with(|b| b.base_offset = 1000)),
        ("leader epoch set", with(|b| b.leader_epoch = 55)),
        ("control batch", with(|b| b.attributes = 0x20)),
        ("transactional without producer id", with(|b| b.attributes = 0x10)),
        ("log append time set", with(|b| b.attributes = 0x08)),
        ("delete horizon set", with(|b| b.attributes = 0x40)),
        ("unused attribute bits", with(|b| b.attributes = 0x0f00)),
        ("codec 5", with(|b| b.attributes = 5)),
        ("codec 7", with(|b| b.attributes = 7)),
        ("timestamp -1", with(|b| b.timestamp = -1)),
        ("timestamp two hours ahead", with(|b| b.timestamp += 3 * 3_600_000)),
        ("producer id without epoch", with(|b| (b.producer_id, b.base_sequence) = (1, 0))),
        ("producer id without sequence", with(|b| (b.producer_id, b.producer_epoch) = (1, 0))),
        ("sequence without producer id", with(|b| b.base_sequence = 0)),
        ("null key and null value", with(|b| b.records = vec![(None, None)])),
        ("empty key and empty value", with(|b| b.records = vec![(Some(Bytes::new()), Some(Bytes::new()))])),
    ];
    try_all(s, &mut c, cases)
}

fn limits(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "small", 2, &[("max.message.bytes", "1000")])?;
    s.create_topic(&mut c, "segment", 1, &[("segment.bytes", "1048576"), ("max.message.bytes", "2097152")])?;
    let start = s.start_ms;
    let of_size = |bytes| batch_of_size(bytes, start);
    let topic = Topic::Name(s.topic("small"));
    for size in [999, 1000, 1001, 1002, 5000] {
        let batch = of_size(size);
        let encoded = batch.encode().len();
        for version in [3, 9] {
            let step = format!("limit 1000, batch of {encoded}, v{version}");
            s.ask(&mut c, &step, version, &produce(&topic, &[(0, &batch)]))?;
        }
    }
    let (good, large) = (of_size(500), of_size(2000));
    let request = produce(&topic, &[(0, &large), (1, &good)]);
    s.ask(&mut c, "one of two partitions too large", 9, &request)?;
    let topic = Topic::Name(s.topic("segment"));
    for size in [1_048_000, 1_100_000] {
        let batch = of_size(size);
        let step = format!("segment of 1 MiB, batch of {size}");
        s.ask(&mut c, &step, 9, &produce(&topic, &[(0, &batch)]))?;
    }
    Ok(())
}

/// A batch of one record that takes exactly `bytes` on the wire, or one less where no value length gives that.
fn batch_of_size(bytes: usize, timestamp: i64) -> Batch {
    let of_value = |length: usize| {
        let record = (None, Some(vec![b'x'; length].into()));
        Batch::of(1, timestamp).with(|b| b.records = vec![record])
    };
    let fits = (bytes - 80..bytes).rev().map(of_value);
    fits.into_iter().find(|batch| batch.encode().len() <= bytes).unwrap_or_else(|| of_value(0))
}

fn acks(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 1, &[])?;
    let topic = Topic::Name(s.topic("t"));
    let records = vec![(0, Batch::of(1, s.start_ms).encode())];
    let end = list_offsets(s.topic("t"), &[(0, -1)]);
    for (round, version) in [3, 9, 12].into_iter().enumerate() {
        for acks in [-1, 1, 2, -2, 100] {
            let request = produce_bytes(&topic, acks, records.clone());
            s.ask(&mut c, &format!("acks {acks} v{version}"), version, &request)?;
        }
        c.send(version, &produce_bytes(&topic, 0, records.clone()))?;
        let records = 3 * (round as i64 + 1);
        c.wait_for(|c| Ok(c.call(7, &end)?.topics[0].partitions[0].offset == records))?;
        s.ask(&mut c, &format!("acks 0 v{version}: log end"), 7, &end)?;
    }
    let unknown = Topic::Name(s.topic("none"));
    c.send(9, &produce_bytes(&unknown, 0, records.clone()))?;
    s.hear_raw(&mut c, "acks 0 to an unknown topic", Duration::from_secs(5))?;
    let mut c = s.connect()?;
    let nothing = ProduceRequest::default().with_acks(0).with_timeout_ms(1000);
    c.send(9, &nothing)?;
    s.ask(&mut c, "acks 0 with nothing: the next answer", 7, &end)?;
    let request = produce_bytes(&topic, 1, records).with_timeout_ms(-1);
    s.ask(&mut c, "negative timeout", 9, &request)?;
    Ok(())
}

fn unknown(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let id = s.create_topic(&mut c, "t", 1, &[])?;
    let batch = Batch::of(1, s.start_ms);
    let (known, none) = (Topic::Name(s.topic("t")), Topic::Name(s.topic("none")));
    for version in [3, 8, 9, 12] {
        let step = |what: &str| format!("{what} v{version}");
        s.ask(&mut c, &step("unknown topic"), version, &produce(&none, &[(0, &batch)]))?;
        s.ask(&mut c, &step("partition -1"), version, &produce(&known, &[(-1, &batch)]))?;
        let bad = Topic::Name(super::requests::topic_name("../x"));
        s.ask(&mut c, &step("invalid name"), version, &produce(&bad, &[(0, &batch)]))?;
        let empty = Topic::Name(super::requests::topic_name(""));
        s.ask(&mut c, &step("empty name"), version, &produce(&empty, &[(0, &batch)]))?;
        let mut both = produce(&none, &[(0, &batch)]);
        both.topic_data.extend(produce(&known, &[(0, &batch)]).topic_data);
        s.ask(&mut c, &step("unknown and known"), version, &both)?;
        let nothing = ProduceRequest::default().with_acks(-1).with_timeout_ms(1000);
        s.ask(&mut c, &step("no topics"), version, &nothing)?;
        s.ask(&mut c, &step("no partitions"), version, &produce(&known, &[]))?;
        let transactional = produce(&known, &[(0, &batch)]).with_transactional_id(Some(TransactionalId(text("none"))));
        s.ask(&mut c, &step("transactional id, plain batch"), version, &transactional)?;
    }
    for (what, topic) in [("unknown id", Topic::Id(Uuid::from_u128(5))), ("zero id", Topic::Id(Uuid::nil()))] {
        let mut request = produce(&topic, &[(0, &batch)]);
        s.ask(&mut c, &format!("{what} v13"), 13, &request)?;
        request.topic_data.extend(produce(&Topic::Id(id), &[(0, &batch)]).topic_data);
        s.ask(&mut c, &format!("{what} and known v13"), 13, &request)?;
    }
    let twice = produce(&known, &[(0, &batch), (0, &batch)]);
    s.ask(&mut c, "one partition twice", 9, &twice)?;
    let mut null = produce(&known, &[(0, &batch)]);
    null.topic_data[0].partition_data[0].records = None;
    s.ask(&mut c, "null records", 9, &null)?;
    Ok(())
}

/// Versions 0 to 2 are advertised for the sake of old librdkafka, and refused.
fn old_versions(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 1, &[])?;
    let name = s.topic("t");
    for version in 0..=2 {
        for (what, records) in
            [("message set", old_message_set(i8::from(version > 1), s.start_ms, b"old")), ("batch", Batch::of(1, s.start_ms).encode())]
        {
            let mut frame = raw_header(0, version, false);
            put_old_body(&mut frame, &name, &records);
            let mut c = s.connect()?;
            c.send_frame(&frame)?;
            s.hear_raw(&mut c, &format!("v{version} {what}"), Duration::from_secs(5))?;
        }
    }
    let topic = Topic::Name(name.clone());
    for magic in [0, 1] {
        let records = old_message_set(magic, s.start_ms, b"old");
        for version in [3, 9] {
            let request = produce_bytes(&topic, -1, vec![(0, records.clone())]);
            s.ask(&mut c, &format!("v{version} message set {magic}"), version, &request)?;
        }
    }
    s.ask(&mut c, "log end", 7, &list_offsets(name, &[(0, -1)]))?;
    Ok(())
}

fn put_old_body(frame: &mut BytesMut, topic: &str, records: &[u8]) {
    frame.put_i16(1);
    frame.put_i32(1000);
    frame.put_i32(1);
    frame.put_i16(topic.len() as i16);
    frame.put_slice(topic.as_bytes());
    frame.put_i32(1);
    frame.put_i32(0);
    frame.put_i32(records.len() as i32);
    frame.put_slice(records);
}

fn topic_settings(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let now = s.start_ms + 3_600_000;
    let batch = Batch::of(2, s.start_ms);
    s.create_topic(&mut c, "append-time", 1, &[("message.timestamp.type", "LogAppendTime")])?;
    let topic = Topic::Name(s.topic("append-time"));
    for version in [3, 9] {
        let step = format!("log append time v{version}");
        s.ask(&mut c, &step, version, &produce(&topic, &[(0, &batch)]))?;
    }
    let marked = batch.clone().with(|b| b.attributes = 0x08);
    s.ask(&mut c, "log append time, marked so", 9, &produce(&topic, &[(0, &marked)]))?;
    let far = batch.clone().with(|b| b.timestamp = now + 30 * 86_400_000);
    s.ask(&mut c, "log append time, far ahead", 9, &produce(&topic, &[(0, &far)]))?;
    s.ask(&mut c, "log append time: read back", 12, &fetch(&topic, &[(0, 0, 1 << 20)]))?;

    s.create_topic(&mut c, "compact", 1, &[("cleanup.policy", "compact")])?;
    let topic = Topic::Name(s.topic("compact"));
    let key = |key: &'static str| (Some(Bytes::from(key)), Some(Bytes::from("v")));
    let keyed = batch.clone().with(|b| b.records = vec![key("a"), key("b")]);
    let mixed = batch.clone().with(|b| b.records = vec![key("a"), (None, None), (None, None)]);
    for version in [3, 7, 8, 9] {
        let step = |what: &str| format!("compacted, {what} v{version}");
        s.ask(&mut c, &step("with keys"), version, &produce(&topic, &[(0, &keyed)]))?;
        s.ask(&mut c, &step("without keys"), version, &produce(&topic, &[(0, &batch)]))?;
        s.ask(&mut c, &step("some without"), version, &produce(&topic, &[(0, &mixed)]))?;
    }

    let bounds = [("message.timestamp.before.max.ms", "60000"), ("message.timestamp.after.max.ms", "60000")];
    s.create_topic(&mut c, "bounds", 1, &bounds)?;
    let topic = Topic::Name(s.topic("bounds"));
    for (what, offset) in [("now", 0), ("hour old", -3_600_000), ("hour ahead", 3_600_000)] {
        for version in [3, 9] {
            let batch = batch.clone().with(|b| b.timestamp = now + offset);
            let step = format!("timestamp bounds, {what} v{version}");
            s.ask(&mut c, &step, version, &produce(&topic, &[(0, &batch)]))?;
        }
    }
    s.create_topic(&mut c, "isr", 1, &[("min.insync.replicas", "2")])?;
    let topic = Topic::Name(s.topic("isr"));
    for acks in [-1, 1] {
        let request = produce_bytes(&topic, acks, vec![(0, batch.encode())]);
        s.ask(&mut c, &format!("min.insync.replicas 2, acks {acks}"), 9, &request)?;
    }
    Ok(())
}
