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
    bytes.extend(encode_group(&all_kinds(), 16));
    assert_eq!(bytes, include_bytes!("../../tests/golden/manifest.v2.bin"));
    let (records, len) = decode_group(&bytes[16..], 16).unwrap();
    assert_eq!((records, len), (all_kinds(), bytes.len() - 16));
    assert_eq!(decode_group(&bytes[16..], 17), None, "of another place");
}

/// Where the last record ends.
fn end_of(fs: &SimFs, path: &Path) -> u64 {
    let bytes = crate::segment::read_whole(fs, path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
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
    file.set_len(end_of(&fs, &path) - 1).unwrap();
    let loaded = load(&fs, &path).unwrap();
    assert_eq!(loaded.partitions[&ID], partition(2));
    assert!(!loaded.damaged);
}

#[test]
fn a_flipped_bit_before_a_good_record_is_damage() {
    let (fs, path) = written();
    let len = end_of(&fs, &path);
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

/// An append of several records whose first sectors were lost with the power while later ones are there.
#[test]
fn a_torn_append_of_several_records_is_no_damage_and_none_of_it_counts() {
    let (fs, path) = written();
    let before = end_of(&fs, &path);
    let loaded = load(&fs, &path).unwrap();
    let manifest = Manifest::create(Arc::new(fs.clone()), path.clone(), BTreeMap::new(), 1, vec![Record::Partition(partition(3))]).unwrap();
    assert!(before > end_of(&fs, &path));
    let start = end_of(&fs, &path);
    let other = TopicIdPartition { partition: 4, ..ID };
    let two = [Record::Partition(partition(4)), Record::Partition(PartitionRecord { id: other, ..partition(4) })];
    manifest.append(&mut |out| out.extend(two.clone()), &mut |_| {}).unwrap();
    let file = fs.open(&path, OpenMode::ReadWrite).unwrap();
    file.write_all_at(&[0; 100], start).unwrap();
    let torn = load(&fs, &path).unwrap();
    assert!(!torn.damaged);
    assert_eq!(torn.partitions, loaded.partitions);
}

#[test]
fn a_sync_that_fails_for_want_of_room_is_no_full_disk() {
    let (fs, path) = written();
    let manifest = Manifest::create(Arc::new(fs.clone()), path, BTreeMap::new(), 1, Vec::new()).unwrap();
    fs.inject(siltstone_common::fs::sim::SimFault::SyncNoSpace, "manifest", 1);
    let error = manifest.append(&mut |out| out.push(Record::Opened), &mut |_| {}).unwrap_err();
    assert!(!is_full(&error), "it would be tried again and believed (I38): {error}");
}

#[test]
fn on_a_full_disk_removals_can_still_be_noted() {
    let (fs, path) = written();
    let manifest = Manifest::create(Arc::new(fs.clone()), path.clone(), BTreeMap::new(), 1, Vec::new()).unwrap();
    manifest.append(&mut |out| out.push(Record::Partition(partition(3))), &mut |_| {}).unwrap();
    fs.set_capacity(Some(0));
    manifest.append(&mut |out| out.push(Record::Removed { id: ID, covered_sequence: 9 }), &mut |_| {}).unwrap();
    assert_eq!(load(&fs, &path).unwrap().removed[&ID], 9);
}
