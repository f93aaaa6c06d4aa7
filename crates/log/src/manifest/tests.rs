use siltstone_common::fs::SimFs;
use siltstone_common::{TopicId, TopicIdPartition};
use uuid::Uuid;

use super::record::SegmentRecord;
use super::*;
use crate::epochs::EpochEntry;

const ID: TopicIdPartition = TopicIdPartition { topic_id: TopicId(Uuid::from_u128(0x0a0b)), partition: 3 };

fn partition(covered_sequence: u64) -> PartitionRecord {
    let sealed = SegmentRecord {
        base_offset: 10,
        generation: 0,
        last_offset: 19,
        size_bytes: 1000,
        max_timestamp_ms: 1_700_000_000_000,
        first_append_ms: 1_700_000_000_001,
        sealed: true,
        has_aborts: true,
        indexed: false,
    };
    let active =
        SegmentRecord { base_offset: 20, last_offset: 24, size_bytes: 500, sealed: false, has_aborts: false, indexed: true, ..sealed };
    PartitionRecord {
        id: ID,
        covered_sequence,
        log_start: 12,
        end_offset: 25,
        snapshot_offset: 20,
        epochs: vec![EpochEntry { epoch: 1, start_offset: 0 }, EpochEntry { epoch: 4, start_offset: 15 }],
        cleaned_end: 0,
        segments: vec![sealed, active],
    }
}

fn all_kinds() -> Vec<Record> {
    vec![
        Record::WalTrim { first_live_sequence: 7 },
        Record::Removed { id: ID, covered_sequence: 5 },
        Record::Partition(partition(9)),
        Record::Opened,
        Record::Closed { next_sequence: 11 },
    ]
}

#[test]
fn golden() {
    let mut bytes = FILE_HEADER.to_vec();
    all_kinds().iter().for_each(|record| record.encode(&mut bytes));
    assert_eq!(bytes, include_bytes!("../../tests/golden/manifest.v1.bin"));
    let mut rest = bytes.strip_prefix(&FILE_HEADER).unwrap();
    for expected in all_kinds() {
        let (record, len) = Record::decode(rest).unwrap();
        assert_eq!(record, expected);
        rest = &rest[len..];
    }
    assert!(rest.is_empty());
}

fn written() -> (SimFs, PathBuf) {
    let fs = SimFs::new();
    fs.create_dir_all(Path::new("/d")).unwrap();
    let path = PathBuf::from("/d/manifest");
    let first = vec![Record::Partition(partition(1))];
    let manifest = Manifest::create(Arc::new(fs.clone()), path.clone(), BTreeMap::new(), 1, first).unwrap();
    for covered_sequence in [2, 3] {
        manifest.append(&mut |out| out.push(Record::Partition(partition(covered_sequence))), &mut |_| {}).unwrap();
    }
    (fs, path)
}

#[test]
fn the_newest_record_counts_and_a_cut_one_never_did() {
    let (fs, path) = written();
    let loaded = load(&fs, &path).unwrap();
    assert_eq!(loaded.partitions[&ID], partition(3));
    assert!(!loaded.damaged && !loaded.missing && loaded.closed.is_none());
    let file = fs.open(&path, OpenMode::ReadWrite).unwrap();
    file.set_len(file.len().unwrap() - 1).unwrap();
    let loaded = load(&fs, &path).unwrap();
    assert_eq!(loaded.partitions[&ID], partition(2));
    assert!(!loaded.damaged);
}

#[test]
fn a_flipped_bit_before_a_good_record_is_damage() {
    let (fs, path) = written();
    let len = fs.open(&path, OpenMode::Read).unwrap().len().unwrap();
    for position in [3, 40, len / 2] {
        let (fs, path) = written();
        fs.flip_bit(&path, position, 2).unwrap();
        assert!(load(&fs, &path).unwrap().damaged, "at {position} of {len}");
    }
    assert!(load(&fs, Path::new("/d/none")).unwrap().missing);
}

#[test]
fn a_file_that_grew_is_written_anew_with_the_newest_records_and_live_removals() {
    let (fs, path) = written();
    let other = TopicIdPartition { partition: 4, ..ID };
    let manifest = Manifest::create(Arc::new(fs.clone()), path.clone(), BTreeMap::from([(other, 6)]), 5, Vec::new()).unwrap();
    let mut largest = 0;
    for covered_sequence in 0..9000 {
        let newest = Record::Partition(partition(covered_sequence));
        manifest.append(&mut |out| out.push(newest.clone()), &mut |all| all.push(newest.clone())).unwrap();
        largest = largest.max(fs.open(&path, OpenMode::Read).unwrap().len().unwrap());
    }
    let len = fs.open(&path, OpenMode::Read).unwrap().len().unwrap();
    assert!(largest > REWRITE_BYTES_MIN / 2 && len < largest, "{len} {largest}");
    let loaded = load(&fs, &path).unwrap();
    assert_eq!(loaded.partitions[&ID], partition(8999));
    assert_eq!((loaded.first_live_sequence, loaded.removed[&other]), (5, 6));
    manifest.append(&mut |out| out.push(Record::WalTrim { first_live_sequence: 7 }), &mut |_| {}).unwrap();
    manifest.append(&mut |out| out.push(Record::Closed { next_sequence: 20 }), &mut |_| {}).unwrap();
    assert_eq!(load(&fs, &path).unwrap().closed, Some(20));
}
