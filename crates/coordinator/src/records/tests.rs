//! Golden bytes: written by Apache Kafka 4.3.1's own serialisers (GroupCoordinatorRecordSerde, MessageUtil).

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::consumer::{ClassicProfile, CurrentAssignment, MemberProfile, MemberState, ResolvedRegex};

const OFFSET_KEY: &str = "0001000567726f75700007666c696768747300000007";
const OFFSET_VALUES: [&str; 5] = [
    "00000000011f71fb04cb00056dc3a974610000018bcfe5687b",
    "00010000011f71fb04cb00056dc3a974610000018bcfe5687b0000018bcfe6ee9f",
    "00020000011f71fb04cb00056dc3a974610000018bcfe5687b",
    "00030000011f71fb04cb0000000500056dc3a974610000018bcfe5687b",
    "00040000011f71fb04cb00000005066dc3a974610000018bcfe5687b00",
];
const OFFSET_VALUE_WITH_TOPIC_ID: &str = "00040000011f71fb04cb00000005066dc3a974610000018bcfe5687b01001000000000000000010000000000000002";
const GROUP_KEY: &str = "0002000567726f7570";
const GROUP_VALUES: [&str; 5] = [
    "00000008636f6e73756d657200000003000572616e676500026d310000000200026d3100026331000a2f3132372e302e302e310000271000000003000102000000010900026d320002633200042f3a3a310000afc80000000000000000",
    "00010008636f6e73756d657200000003000572616e676500026d310000000200026d3100026331000a2f3132372e302e302e310000ea600000271000000003000102000000010900026d320002633200042f3a3a31000493e00000afc80000000000000000",
    "00020008636f6e73756d657200000003000572616e676500026d310000018bcfe5687b0000000200026d3100026331000a2f3132372e302e302e310000ea600000271000000003000102000000010900026d320002633200042f3a3a31000493e00000afc80000000000000000",
    "00030008636f6e73756d657200000003000572616e676500026d310000018bcfe5687b0000000200026d310002693100026331000a2f3132372e302e302e310000ea600000271000000003000102000000010900026d32ffff0002633200042f3a3a31000493e00000afc80000000000000000",
    "000409636f6e73756d6572000000030672616e6765036d310000018bcfe5687b03036d310369310363310b2f3132372e302e302e310000ea600000271004000102020900036d3200036332052f3a3a31000493e00000afc801010000",
];
const EMPTY_GROUP_VALUE: &str = "0003000000000000ffffffffffffffffffffffff00000000";
const SHARE_GROUP_KEY: &str = "000b000567726f7570";

fn bytes(hex: &str) -> Bytes {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn record(key: &str, value: Option<&str>) -> StateRecord {
    StateRecord { key: bytes(key), value: value.map(bytes) }
}

fn offset() -> OffsetAndMetadata {
    OffsetAndMetadata {
        offset: 1_234_567_890_123,
        leader_epoch: 5,
        metadata: "méta".to_owned(),
        commit_timestamp_ms: 1_700_000_000_123,
        expire_timestamp_ms: None,
    }
}

fn group() -> GroupMetadata {
    let member = |id: &str, instance: Option<&str>, client: &str, host: &str, timeouts: (i32, i32), data: (&[u8], &[u8])| MemberMetadata {
        member_id: id.to_owned(),
        group_instance_id: instance.map(str::to_owned),
        client_id: client.to_owned(),
        client_host: host.to_owned(),
        rebalance_timeout_ms: timeouts.0,
        session_timeout_ms: timeouts.1,
        subscription: Bytes::copy_from_slice(data.0),
        assignment: Bytes::copy_from_slice(data.1),
    };
    GroupMetadata {
        protocol_type: "consumer".to_owned(),
        generation: 3,
        protocol: Some("range".to_owned()),
        leader: Some("m1".to_owned()),
        current_state_timestamp_ms: 1_700_000_000_123,
        members: vec![
            member("m1", Some("i1"), "c1", "/127.0.0.1", (60_000, 10_000), (&[0, 1, 2], &[9])),
            member("m2", None, "c2", "/::1", (300_000, 45_000), (&[], &[])),
        ],
    }
}

#[test]
fn offsets_are_written_as_kafka_writes_them() {
    assert_eq!(offset_record("group", "flights", 7, Some(&offset())), record(OFFSET_KEY, Some(OFFSET_VALUES[4])));
    let expiring = OffsetAndMetadata { expire_timestamp_ms: Some(1_700_000_099_999), ..offset() };
    assert_eq!(offset_record("group", "flights", 7, Some(&expiring)), record(OFFSET_KEY, Some(OFFSET_VALUES[1])));
    assert_eq!(offset_record("group", "flights", 7, None), record(OFFSET_KEY, None));
}

#[test]
fn groups_are_written_as_kafka_writes_them() {
    assert_eq!(group_record("group", Some(&group())), record(GROUP_KEY, Some(GROUP_VALUES[3])));
    assert_eq!(group_record("group", None), record(GROUP_KEY, None));
    let empty = GroupMetadata {
        protocol_type: String::new(),
        generation: 0,
        protocol: None,
        leader: None,
        current_state_timestamp_ms: -1,
        members: Vec::new(),
    };
    assert_eq!(group_record("group", Some(&empty)), record(GROUP_KEY, Some(EMPTY_GROUP_VALUE)));
}

#[test]
fn every_version_of_an_offset_is_read() {
    for (version, value) in OFFSET_VALUES.iter().enumerate() {
        let expected = OffsetAndMetadata {
            leader_epoch: if version >= 3 { 5 } else { -1 },
            expire_timestamp_ms: (version == 1).then_some(1_700_000_099_999),
            ..offset()
        };
        let expected = GroupRecord::Offset { group: "group".to_owned(), topic: "flights".to_owned(), partition: 7, value: Some(expected) };
        assert_eq!(decode(&record(OFFSET_KEY, Some(value))), Ok(expected.clone()), "version {version}");
        let legacy_key = OFFSET_KEY.replacen("0001", "0000", 1);
        assert_eq!(decode(&record(&legacy_key, Some(value))), Ok(expected), "version {version} under the old key");
    }
    let tombstone = GroupRecord::Offset { group: "group".to_owned(), topic: "flights".to_owned(), partition: 7, value: None };
    assert_eq!(decode(&record(OFFSET_KEY, None)), Ok(tombstone));
    assert_eq!(decode(&record(OFFSET_KEY, Some(OFFSET_VALUE_WITH_TOPIC_ID))), decode(&record(OFFSET_KEY, Some(OFFSET_VALUES[4]))));
}

#[test]
fn every_version_of_a_group_is_read() {
    for (version, value) in GROUP_VALUES.iter().enumerate() {
        let mut expected = group();
        for member in &mut expected.members {
            if version < 1 {
                member.rebalance_timeout_ms = -1;
            }
            if version < 3 {
                member.group_instance_id = None;
            }
        }
        if version < 2 {
            expected.current_state_timestamp_ms = -1;
        }
        let expected = GroupRecord::Group { group: "group".to_owned(), value: Some(expected) };
        assert_eq!(decode(&record(GROUP_KEY, Some(value))), Ok(expected), "version {version}");
    }
}

#[test]
fn records_of_other_types_and_versions_are_told_apart_from_damage() {
    assert_eq!(decode(&record(SHARE_GROUP_KEY, Some("00000000"))), Ok(GroupRecord::Unknown(11)));
    let future = OFFSET_VALUES[4].replacen("0004", "0005", 1);
    assert_eq!(decode(&record(OFFSET_KEY, Some(&future))), Err(WireError::UnknownVersion(5)));
    for (key, value) in [(OFFSET_KEY, OFFSET_VALUES[4]), (GROUP_KEY, GROUP_VALUES[3]), (GROUP_KEY, GROUP_VALUES[4])] {
        for cut in 0..value.len() / 2 {
            assert!(decode(&record(key, Some(&value[..cut * 2]))).is_err(), "value cut at {cut}");
        }
        for cut in 0..key.len() / 2 {
            assert!(decode(&record(&key[..cut * 2], Some(value))).is_err(), "key cut at {cut}");
        }
    }
    // A member count that lies.
    let lying = EMPTY_GROUP_VALUE.replace("00000000", "7fffffff");
    assert!(decode(&record(GROUP_KEY, Some(&lying))).is_err());
}

fn topic_id() -> siltstone_common::TopicId {
    siltstone_common::TopicId(uuid::Uuid::from_u64_pair(1, 2))
}

/// Every record of a consumer group, and what Kafka's GroupCoordinatorRecordHelpers and serialisers make of it.
fn consumer_goldens() -> Vec<(ConsumerRecord, &'static str, Option<&'static str>)> {
    let member_id: std::sync::Arc<str> = "m".into();
    let profile = MemberProfile {
        instance_id: Some("i".to_owned()),
        client_id: "c".to_owned(),
        client_host: "/h".to_owned(),
        subscribed_topics: ["a", "b"].map(str::to_owned).into(),
        subscribed_regex: "r.*".to_owned(),
        rebalance_timeout_ms: 60_000,
        server_assignor: Some("range".to_owned()),
        ..MemberProfile::default()
    };
    let protocols = vec![crate::messages::Protocol { name: "range".to_owned(), metadata: Bytes::from_static(&[0, 1]) }];
    let classic = MemberProfile {
        client_id: "c".to_owned(),
        client_host: "/h".to_owned(),
        rebalance_timeout_ms: 1,
        classic: Some(ClassicProfile { session_timeout_ms: 10_000, protocols }),
        ..MemberProfile::default()
    };
    let current = CurrentAssignment {
        epoch: 5,
        previous_epoch: 4,
        state: MemberState::UnrevokedPartitions,
        assigned: [(topic_id(), [(0, 3), (1, 5)].into())].into(),
        revoking: [(topic_id(), [(2, 4)].into())].into(),
    };
    let resolved = ResolvedRegex { topics: ["r1", "r2"].map(str::to_owned).into(), version: 9, timestamp_ms: 1_700_000_000_123 };
    let (member, target, regex) = ("000500016700016d", "000700016700016d", "00100001670003722e2a");
    let member_of =
        |profile: Option<MemberProfile>| ConsumerRecord::Member { member_id: member_id.clone(), profile: profile.map(Box::new) };
    let target_of = |target| ConsumerRecord::Target { member_id: member_id.clone(), target };
    let current_of =
        |current: Option<CurrentAssignment>| ConsumerRecord::Current { member_id: member_id.clone(), current: current.map(Box::new) };
    let regex_of = |resolved| ConsumerRecord::Regex { regex: "r.*".to_owned(), resolved };
    vec![
        (member_of(Some(profile)), member, Some("00000269000263032f68030261026204722e2a0000ea600672616e676501000100")),
        (member_of(Some(classic)), member, Some("000000000263032f68010100000001000100110100002710020672616e67650300010000")),
        (ConsumerRecord::Epoch(Some((7, -3))), "0003000167", Some("000000000007010008fffffffffffffffd")),
        (ConsumerRecord::Epoch(Some((7, 0))), "0003000167", Some("00000000000700")),
        (ConsumerRecord::TargetEpoch(Some((7, 1_700_000_000_123))), "0006000167", Some("0000000000070100080000018bcfe5687b")),
        (
            target_of(Some([(topic_id(), [0, 1].into())].into())),
            target,
            Some("000002000000000000000100000000000000020300000000000000010000"),
        ),
        (
            current_of(Some(current)),
            "000800016700016d",
            Some(
                "0000000000050000000401020000000000000001000000000000000203000000000000000101000903000000030000000502000000000000000100000000000000020200000002010005020000000400",
            ),
        ),
        (regex_of(Some(resolved)), regex, Some("00000303723103723200000000000000090000018bcfe5687b00")),
        (current_of(None), "000800016700016d", None),
        (target_of(None), target, None),
        (ConsumerRecord::TargetEpoch(None), "0006000167", None),
        (member_of(None), member, None),
        (regex_of(None), regex, None),
        (ConsumerRecord::PartitionMetadata { exists: false }, "0004000167", None),
        (ConsumerRecord::Epoch(None), "0003000167", None),
    ]
}

#[test]
fn records_of_consumer_groups_are_kafkas() {
    for (change, key, value) in consumer_goldens() {
        let golden = record(key, value);
        assert_eq!(consumer_record("g", &change), golden, "{change:?}");
        assert_eq!(decode(&golden), Ok(GroupRecord::Consumer { group: "g".to_owned(), record: change }));
        for cut in 0..value.map_or(0, |value| value.len() / 2) {
            assert!(decode(&record(key, value.map(|value| &value[..cut * 2]))).is_err(), "{key} cut at {cut}");
        }
    }
}

/// Kafka before 4.2 wrote no assignment epochs.
#[test]
fn partitions_without_epochs_have_the_member_s() {
    let value = "00000000000500000004000200000000000000010000000000000002030000000000000001000100";
    let decoded = decode(&record("000800016700016d", Some(value))).unwrap();
    let GroupRecord::Consumer { record: ConsumerRecord::Current { current: Some(current), .. }, .. } = decoded else {
        panic!("{decoded:?}")
    };
    assert_eq!(current.assigned, [(topic_id(), [(0, 5), (1, 5)].into())].into());
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        group in "[ -~]{0,40}", topic in "[a-z.]{1,40}", partition in 0..i32::MAX, offset in any::<i64>(), leader_epoch in any::<i32>(),
        metadata in ".{0,60}", commit_timestamp_ms in any::<i64>(),
    ) {
        let value = OffsetAndMetadata { offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms: None };
        let read = decode(&offset_record(&group, &topic, partition, Some(&value)));
        prop_assert_eq!(read, Ok(GroupRecord::Offset { group, topic, partition, value: Some(value) }));
    }

    #[test]
    fn noise_is_refused_without_a_panic(key in proptest::collection::vec(any::<u8>(), 0..40), value in proptest::collection::vec(any::<u8>(), 0..80), kind in 0i16..17) {
        let key = kind.to_be_bytes().into_iter().chain(key).collect();
        let _ = decode(&StateRecord { key, value: Some(value.into()) });
    }
}
