use proptest::prelude::*;
use siltstone_log::batch::{Compression, batches, stamp};
use siltstone_log::records::BatchBuilder;

use super::*;

/// Three batches of two records each from offset 100, with timestamps 1000, 3000 and 2000 and ten more each.
fn data() -> Vec<u8> {
    let mut data = Vec::new();
    for (i, timestamp) in [1000, 3000, 2000].into_iter().enumerate() {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.record(timestamp, Some(b"key"), Some(b"value"), &[]);
        builder.record(timestamp + 10, None, None, &[(b"h", None)]);
        let mut batch = builder.build();
        stamp(&mut batch, 100 + 2 * i as i64, 7);
        data.extend_from_slice(&batch);
    }
    data
}

fn tail(data: &[u8]) -> ObjectTail {
    let mut builder = IndexBuilder::new(100, data.len() as u64);
    builder.interval_bytes = 1;
    for batch in batches(data) {
        builder.push(&batch.unwrap().0).unwrap();
    }
    let max_timestamp_ms = builder.max_timestamp_ms();
    let last_offset = builder.next_offset() - 1;
    let (index, records, batches) = builder.finish();
    let facts = SegmentFacts {
        id: TopicIdPartition::new(TopicId(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)), 5),
        base_offset: 100,
        last_offset,
        max_timestamp_ms,
        leader_epoch: 7,
        attempt: Uuid::from_u128(42),
        records,
        batches,
        data_bytes: data.len() as u64,
        data_checksum: checksum(data),
    };
    ObjectTail {
        facts,
        index,
        aborted: vec![AbortedTxn { producer_id: 9, first_offset: 98, last_offset: 103, last_stable_offset: 104 }],
        producer_snapshot: Bytes::from_static(b"producers"),
        leader_epochs: vec![EpochEntry { epoch: 6, start_offset: 100 }, EpochEntry { epoch: 7, start_offset: 102 }],
    }
}

#[test]
fn an_object_alone_gives_everything_back() {
    let data = data();
    let tail = tail(&data);
    let encoded = tail.encode();
    let object_bytes = (data.len() + encoded.len()) as u64;
    let trailer = Trailer::parse(&encoded[encoded.len() - TRAILER_BYTES..]).unwrap();
    assert_eq!(trailer.tail_bytes, encoded.len() as u64);
    let parsed = ObjectTail::parse(&encoded, object_bytes).unwrap();
    assert_eq!(parsed, tail);
    assert_eq!((parsed.facts.records, parsed.facts.batches), (6, 3));
    assert_eq!(parsed.index.iter().map(|entry| entry.max_timestamp_ms).collect::<Vec<_>>(), [1010, 3010, 3010]);
}

#[test]
fn the_golden_object_of_version_1_parses_for_ever() {
    let data = data();
    let tail = tail(&data);
    let golden = Bytes::from_static(include_bytes!("../../tests/golden/segment-v1.bin"));
    let split = golden.len() - usize::try_from(Trailer::parse(&golden).unwrap().tail_bytes).unwrap();
    assert_eq!(ObjectTail::parse(&golden.slice(split..), golden.len() as u64).unwrap(), tail);
    assert_eq!(golden[..split], data);
    assert_eq!(golden[split..], tail.encode(), "the writer changed: bump the version and keep this file");
}

#[test]
fn offsets_and_timestamps_find_the_batch_to_begin_at() {
    let data = data();
    let tail = tail(&data);
    let positions = tail.index.iter().map(|entry| entry.position).collect::<Vec<_>>();
    for (offset, batch) in [(100, 0), (101, 0), (102, 1), (105, 2)] {
        assert_eq!(tail.position_of(offset), positions[batch], "{offset}");
    }
    for (timestamp, expected) in [(0, Some(0)), (1010, Some(0)), (1011, Some(1)), (2000, Some(1)), (3010, Some(1)), (3011, None)] {
        assert_eq!(tail.position_of_time(timestamp), expected.map(|batch: usize| positions[batch]), "{timestamp}");
    }
}

#[test]
fn keys_are_unique_per_attempt_and_read_back() {
    let id = TopicIdPartition::new(TopicId(Uuid::from_u128(1)), 3);
    let key = SegmentKey { cluster_id: "kX_9-a".to_owned(), id, base_offset: 12, leader_epoch: 4, attempt: Uuid::from_u128(5) };
    let text = key.encode();
    let expected = "/kX_9-a/00000000000000000000000000000001/3/00000000000000000012-4-00000000000000000000000000000005";
    assert!(text.ends_with(expected) && text.len() == expected.len() + 4, "{text}");
    assert_eq!(SegmentKey::parse(&text), Some(key.clone()));
    let other = SegmentKey { attempt: Uuid::from_u128(6), ..key.clone() };
    assert_ne!(other.encode(), text);
    let hostile = SegmentKey { cluster_id: "../../etc\0".to_owned(), ..key }.encode();
    assert!(hostile.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-".contains(&byte)), "{hostile}");
    for bad in ["", "siltstone-cluster.json", "0000/c/t/0/1-2-3", &format!("{text}/x"), &text.replace("-4-", "-04-")] {
        assert_eq!(SegmentKey::parse(bad), None, "{bad}");
    }
}

#[test]
fn offsets_may_leave_a_gap_as_compaction_does_and_never_go_back() {
    let data = data();
    let headers = batches(&data).map(|batch| batch.unwrap().0).collect::<Vec<_>>();
    let mut builder = IndexBuilder::new(100, data.len() as u64);
    builder.push(&headers[0]).unwrap();
    builder.push(&headers[2]).unwrap();
    assert!(builder.push(&headers[1]).unwrap_err().contains("begins at offset 102"));
}

proptest! {
    #[test]
    fn no_change_of_a_tail_goes_unseen(at in 0_usize..1000, bit in 0_u8..8) {
        let data = data();
        let encoded = tail(&data).encode();
        let object_bytes = (data.len() + encoded.len()) as u64;
        let mut changed = encoded.to_vec();
        let at = at % changed.len();
        changed[at] ^= 1 << bit;
        prop_assert!(ObjectTail::parse(&Bytes::from(changed), object_bytes).is_err());
    }

    #[test]
    fn garbage_is_an_error_and_not_a_panic(mut garbage in proptest::collection::vec(any::<u8>(), 0..400), magic in any::<bool>()) {
        if magic && garbage.len() >= 8 {
            let at = garbage.len() - 8;
            garbage[at..].copy_from_slice(b"\0\x01SILTSG");
        }
        let object_bytes = garbage.len() as u64;
        prop_assert!(ObjectTail::parse(&Bytes::from(garbage), object_bytes).is_err());
    }
}
