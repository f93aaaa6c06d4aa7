//! OffsetCommit, OffsetFetch and OffsetDelete.

use super::group_requests::{Member, REBALANCE_IN_PROGRESS, subscription};
use super::requests::{text, topic_name};
use crate::session::raw_header;
use crate::{Scenario, Session, scenario};
use anyhow::Result;
use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, TopicName};
use uuid::Uuid;

pub const SCENARIOS: &[Scenario] = &[
    scenario("offset-commit-versions", versions),
    // Of its own settings, so of its own broker: it makes the group with the empty name, which others look for.
    Scenario { name: "offset-commit-errors", settings: &[("offset.metadata.max.bytes", "4096")], run: commit_errors },
    scenario("offset-fetch", fetching),
    scenario("offset-delete", delete),
    scenario("offset-by-topic-id", by_topic_id),
];

/// Commit `offset` with metadata to partitions of one topic, as a simple consumer without membership.
fn commit(group: &GroupId, topic: TopicName, partitions: &[i32], offset: i64, metadata: Option<&str>) -> OffsetCommitRequest {
    let partitions = partitions.iter().map(|partition| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(offset)
            .with_committed_metadata(metadata.map(text))
    });
    let topic = OffsetCommitRequestTopic::default().with_name(topic).with_partitions(partitions.collect());
    OffsetCommitRequest::default().with_group_id(group.clone()).with_generation_id_or_member_epoch(-1).with_topics(vec![topic])
}

/// OffsetFetch in the form that `version` knows; no list means all topics.
fn fetch(version: i16, group: &GroupId, topics: Option<&[(TopicName, &[i32])]>) -> OffsetFetchRequest {
    if version >= 8 {
        return OffsetFetchRequest::default().with_groups(vec![fetch_group(group, topics)]);
    }
    let topic = |(name, partitions): &(TopicName, &[i32])| {
        OffsetFetchRequestTopic::default().with_name(name.clone()).with_partition_indexes(partitions.to_vec())
    };
    OffsetFetchRequest::default().with_group_id(group.clone()).with_topics(topics.map(|topics| topics.iter().map(topic).collect()))
}

fn fetch_group(group: &GroupId, topics: Option<&[(TopicName, &[i32])]>) -> OffsetFetchRequestGroup {
    let topic = |(name, partitions): &(TopicName, &[i32])| {
        OffsetFetchRequestTopics::default().with_name(name.clone()).with_partition_indexes(partitions.to_vec())
    };
    OffsetFetchRequestGroup::default().with_group_id(group.clone()).with_topics(topics.map(|topics| topics.iter().map(topic).collect()))
}

fn versions(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 2, &[])?;
    let topic = s.topic("t");
    for version in 2..=9 {
        let step = |what: &str| format!("commit v{version} {what}");
        let group = s.group(&format!("g{version}"));
        let mut request = commit(&group, topic.clone(), &[0, 1, 9], 40 + i64::from(version), Some("m"));
        if version >= 6 {
            request.topics[0].partitions[0].committed_leader_epoch = 0;
        }
        s.ask(&mut c, &step("two partitions and one unknown"), version, &request)?;
        let none = commit(&group, s.topic("none"), &[0], 1, None);
        s.ask(&mut c, &step("unknown topic, null metadata"), version, &none)?;
        let empty = commit(&group, topic.clone(), &[], 1, None);
        s.ask(&mut c, &step("no partitions"), version, &empty)?;
        let nothing = empty.with_topics(vec![]);
        s.ask(&mut c, &step("no topics"), version, &nothing)?;
    }
    let (known, none) = (s.topic("t"), s.topic("none"));
    for version in 1..=9 {
        let step = |what: &str| format!("fetch v{version} {what}");
        let group = s.group("g6");
        let topics: &[(TopicName, &[i32])] = &[(known.clone(), &[0, 1, 9]), (none.clone(), &[0])];
        s.ask(&mut c, &step("some"), version, &fetch(version, &group, Some(topics)))?;
        s.ask(&mut c, &step("empty list"), version, &fetch(version, &group, Some(&[])))?;
        if version >= 2 {
            s.ask(&mut c, &step("all"), version, &fetch(version, &group, None))?;
        }
        let unknown = fetch(version, &s.group("none"), Some(topics));
        s.ask(&mut c, &step("unknown group"), version, &unknown)?;
        let nameless = fetch(version, &GroupId(text("")), Some(topics));
        s.ask(&mut c, &step("empty group id"), version, &nameless)?;
        if version >= 7 {
            let stable = fetch(version, &group, Some(topics)).with_require_stable(true);
            s.ask(&mut c, &step("require stable"), version, &stable)?;
        }
    }
    Ok(())
}

fn commit_errors(s: &mut Session) -> Result<()> {
    let mut m = Member::alone(s, "g", "m", Some("i-1"))?;
    s.create_topic(&mut m.conn, "t", 1, &[])?;
    let (group, topic, id, generation) = (m.group.clone(), s.topic("t"), m.id.clone(), m.generation);
    let as_member = |group: &GroupId, generation: i32, id: &str| {
        commit(group, topic.clone(), &[0], 5, Some("")).with_generation_id_or_member_epoch(generation).with_member_id(text(id))
    };
    let (none, nameless) = (s.group("none"), GroupId(text("")));
    for version in [2, 7, 8, 9] {
        for (what, request) in [
            ("member", as_member(&group, generation, &id)),
            ("simple consumer in a group with members", as_member(&group, -1, "")),
            ("unknown member", as_member(&group, generation, "nobody")),
            ("older generation", as_member(&group, generation - 1, &id)),
            ("newer generation", as_member(&group, generation + 1, &id)),
            ("generation -1 with member id", as_member(&group, -1, &id)),
            ("generation without member id", as_member(&group, generation, "")),
            ("empty group id", as_member(&nameless, -1, "")),
            ("unknown group, with generation", as_member(&none, 3, "nobody")),
            ("unknown group, member id alone", as_member(&none, -1, "nobody")),
        ] {
            s.ask(&mut m.conn, &format!("v{version} {what}"), version, &request)?;
        }
        if version >= 7 {
            for (what, id, instance) in
                [("instance", id.as_str(), "i-1"), ("fenced instance", "nobody", "i-1"), ("unknown instance", &id, "i-9")]
            {
                let request = as_member(&group, generation, id).with_group_instance_id(Some(text(instance)));
                s.ask(&mut m.conn, &format!("v{version} {what}"), version, &request)?;
            }
        }
    }
    let simple = s.group("simple");
    for (what, metadata) in [("4096 bytes", 4096), ("4097 bytes", 4097)] {
        let metadata = "x".repeat(metadata);
        let request = commit(&simple, topic.clone(), &[0], 7, Some(&metadata));
        s.ask(&mut m.conn, &format!("metadata of {what}"), 8, &request)?;
    }
    for offset in [-1, -2, i64::MAX] {
        let request = commit(&simple, topic.clone(), &[0], offset, None);
        s.ask(&mut m.conn, &format!("offset {offset}"), 8, &request)?;
        let all = fetch(7, &simple, None);
        s.ask(&mut m.conn, &format!("offset {offset}: fetched"), 7, &all)?;
    }
    for version in [2, 8] {
        let bad = commit(&simple, topic_name("../x"), &[0], 1, None);
        s.ask(&mut m.conn, &format!("v{version} invalid topic name"), version, &bad)?;
        let partition = commit(&simple, topic.clone(), &[-1], 1, None);
        s.ask(&mut m.conn, &format!("v{version} partition -1"), version, &partition)?;
        let internal = commit(&simple, topic_name("__consumer_offsets"), &[0], 1, None);
        s.ask(&mut m.conn, &format!("v{version} internal topic"), version, &internal)?;
    }
    let retention = commit(&simple, topic.clone(), &[0], 1, None).with_retention_time_ms(60_000);
    s.ask(&mut m.conn, "v4 retention time", 4, &retention)?;
    let mut other = Member::known(s, "g", "other", None)?;
    other.conn.send(5, &other.join())?;
    m.beat_until(REBALANCE_IN_PROGRESS)?;
    s.ask(&mut m.conn, "commit while the group prepares", 8, &as_member(&group, generation, &id))?;
    m.conn.send(5, &m.join())?;
    let answer = s.hear::<kafka_protocol::messages::JoinGroupRequest>(&mut m.conn, "the member joins again", 5)?;
    let next = as_member(&group, answer.generation_id, &id);
    s.ask(&mut m.conn, "commit before sync", 8, &next)?;
    s.ask(&mut m.conn, "commit of the old generation", 8, &as_member(&group, generation, &id))?;
    Ok(())
}

fn fetching(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "a", 2, &[])?;
    s.create_topic(&mut c, "b", 1, &[])?;
    let (one, two, none) = (s.group("one"), s.group("two"), s.group("none"));
    for (group, topic, offset) in [(&one, s.topic("a"), 3), (&one, s.topic("b"), 4), (&two, s.topic("a"), 5)] {
        c.call(8, &commit(group, topic, &[0], offset, Some("note")))?;
    }
    let a = s.topic("a");
    let some: &[(TopicName, &[i32])] = &[(a, &[1, 0])];
    for version in [8, 9] {
        let step = |what: &str| format!("v{version} {what}");
        let of = |groups| OffsetFetchRequest::default().with_groups(groups);
        let three = of(vec![fetch_group(&one, None), fetch_group(&two, Some(some)), fetch_group(&none, Some(some))]);
        s.ask(&mut c, &step("three groups"), version, &three)?;
        s.ask(&mut c, &step("no groups"), version, &of(vec![]))?;
        let twice = of(vec![fetch_group(&one, Some(some)), fetch_group(&one, None)]);
        s.ask(&mut c, &step("one group twice"), version, &twice)?;
        let mixed = of(vec![fetch_group(&GroupId(text("")), Some(some)), fetch_group(&two, Some(some))]);
        s.ask(&mut c, &step("an empty group id among them"), version, &mixed)?;
        let unknown = of(vec![fetch_group(&none, None)]);
        s.ask(&mut c, &step("all of an unknown group"), version, &unknown)?;
    }
    for (what, id, epoch) in [("unknown member", "nobody", 1), ("member, no epoch", "nobody", -1), ("no member, epoch", "", 5)] {
        let group = fetch_group(&one, Some(some)).with_member_id(Some(text(id))).with_member_epoch(epoch);
        s.ask(&mut c, &format!("v9 {what}"), 9, &OffsetFetchRequest::default().with_groups(vec![group]))?;
    }
    let replaced = commit(&two, s.topic("a"), &[0], 2, Some("less"));
    s.ask(&mut c, "a smaller offset", 8, &replaced)?;
    s.ask(&mut c, "it replaced the larger", 7, &fetch(7, &two, Some(some)))?;
    Ok(())
}

fn delete(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for short in ["a", "b", "c"] {
        s.create_topic(&mut c, short, 2, &[])?;
    }
    let simple = s.group("simple");
    let of = |group: &GroupId, parts: &[(TopicName, &[i32])]| {
        let partition = |index: &i32| OffsetDeleteRequestPartition::default().with_partition_index(*index);
        let topic = |(name, indexes): &(TopicName, &[i32])| {
            OffsetDeleteRequestTopic::default().with_name(name.clone()).with_partitions(indexes.iter().map(partition).collect())
        };
        OffsetDeleteRequest::default().with_group_id(group.clone()).with_topics(parts.iter().map(topic).collect())
    };
    c.call(8, &commit(&simple, s.topic("a"), &[0, 1], 3, None))?;
    let (a, b, none) = (s.topic("a"), s.topic("b"), s.topic("none"));
    s.ask(&mut c, "committed, not committed, unknown", 0, &of(&simple, &[(a.clone(), &[0, 9]), (b.clone(), &[0]), (none, &[0])]))?;
    s.ask(&mut c, "what is left", 7, &fetch(7, &simple, None))?;
    s.ask(&mut c, "unknown group", 0, &of(&s.group("none"), &[(a.clone(), &[0])]))?;
    s.ask(&mut c, "empty group id", 0, &of(&GroupId(text("")), &[(a.clone(), &[0])]))?;
    s.ask(&mut c, "no topics", 0, &of(&simple, &[]))?;
    s.ask(&mut c, "no partitions", 0, &of(&simple, &[(a.clone(), &[])]))?;
    let mut m = Member::known(s, "live", "m", None)?;
    let mut join = m.join();
    join.protocols[0].metadata = subscription(std::slice::from_ref(&a), "");
    let answer = m.conn.call(5, &join)?;
    m.joined(&answer);
    m.conn.call(3, &m.sync(&[]))?;
    for topic in [&a, &b] {
        let request =
            commit(&m.group, topic.clone(), &[0], 3, None).with_generation_id_or_member_epoch(m.generation).with_member_id(text(&m.id));
        m.conn.call(8, &request)?;
    }
    s.ask(&mut c, "a live group, subscribed and not", 0, &of(&m.group, &[(a, &[0]), (b, &[0])]))?;
    s.ask(&mut c, "what the live group has left", 7, &fetch(7, &m.group, None))?;
    Ok(())
}

/// A compact string; short, as all lengths here are.
fn put_text(frame: &mut BytesMut, text: &str) {
    frame.put_u8(text.len() as u8 + 1);
    frame.extend_from_slice(text.as_bytes());
}

fn put_topics(frame: &mut BytesMut, topics: &[(Uuid, &[i32])], partition: impl Fn(&mut BytesMut, i32)) {
    frame.put_u8(topics.len() as u8 + 1);
    for (id, partitions) in topics {
        frame.extend_from_slice(id.as_bytes());
        frame.put_u8(partitions.len() as u8 + 1);
        partitions.iter().for_each(|index| partition(frame, *index));
        frame.put_u8(0);
    }
}

/// OffsetCommit 10, which the codec can't write; its answer it can read.
fn commit_by_id(group: &GroupId, generation: i32, member: &str, topics: &[(Uuid, &[i32])]) -> BytesMut {
    let mut frame = raw_header(8, 10, true);
    put_text(&mut frame, &group.0);
    frame.put_i32(generation);
    put_text(&mut frame, member);
    frame.put_u8(0);
    put_topics(&mut frame, topics, |frame, index| {
        frame.put_i32(index);
        frame.put_i64(40 + i64::from(index));
        frame.put_i32(-1);
        put_text(frame, "m");
        frame.put_u8(0);
    });
    frame.put_u8(0);
    frame
}

/// OffsetFetch 10 of one group; no list means all topics.
fn fetch_by_id(group: &GroupId, topics: Option<&[(Uuid, &[i32])]>) -> BytesMut {
    let mut frame = raw_header(9, 10, true);
    frame.put_u8(2);
    put_text(&mut frame, &group.0);
    frame.put_u8(0);
    frame.put_i32(-1);
    match topics {
        Some(topics) => put_topics(&mut frame, topics, |frame, index| frame.put_i32(index)),
        None => frame.put_u8(0),
    }
    frame.extend_from_slice(&[0, 0, 0]);
    frame
}

fn by_topic_id(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let id = s.create_topic(&mut c, "t", 2, &[])?;
    let gone = s.create_topic(&mut c, "gone", 1, &[])?;
    let (group, none) = (s.group("g"), s.group("none"));
    let (zero, unknown) = (Uuid::nil(), Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef));
    for (what, frame) in [
        ("two topics", commit_by_id(&group, -1, "", &[(id, &[0, 1]), (gone, &[0])])),
        ("an unknown partition", commit_by_id(&group, -1, "", &[(id, &[0, 9])])),
        ("an unknown id", commit_by_id(&group, -1, "", &[(unknown, &[0]), (id, &[0])])),
        ("the zero id", commit_by_id(&group, -1, "", &[(zero, &[0])])),
        ("no partitions", commit_by_id(&group, -1, "", &[(id, &[])])),
        ("no topics", commit_by_id(&group, -1, "", &[])),
        ("unknown group with generation", commit_by_id(&none, 3, "m", &[(id, &[0])])),
        ("unknown member", commit_by_id(&group, 3, "m", &[(id, &[0])])),
    ] {
        c.send_raw(&frame)?;
        s.hear::<OffsetCommitRequest>(&mut c, &format!("commit, {what}"), 10)?;
    }
    for (what, frame) in [
        ("some", fetch_by_id(&group, Some(&[(id, &[0, 1, 9])]))),
        ("all", fetch_by_id(&group, None)),
        ("an unknown id", fetch_by_id(&group, Some(&[(unknown, &[0, 1]), (id, &[0])]))),
        ("the zero id", fetch_by_id(&group, Some(&[(zero, &[0])]))),
        ("no topics", fetch_by_id(&group, Some(&[]))),
        ("unknown group", fetch_by_id(&none, Some(&[(id, &[0])]))),
        ("all of an unknown group", fetch_by_id(&none, None)),
    ] {
        c.send_raw(&frame)?;
        s.hear::<OffsetFetchRequest>(&mut c, &format!("fetch, {what}"), 10)?;
    }
    Ok(())
}
