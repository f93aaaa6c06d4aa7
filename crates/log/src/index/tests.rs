use proptest::prelude::*;

use super::*;

fn entry(offset: i64, position: u64, max_timestamp_ms: i64) -> IndexEntry {
    IndexEntry { offset, position, max_timestamp_ms }
}

fn sample() -> Vec<IndexEntry> {
    vec![entry(100, 0, 1_000), entry(110, 4_200, 1_000), entry(150, 9_000, 5_000)]
}

fn aborted() -> Vec<AbortedTxn> {
    vec![
        AbortedTxn { producer_id: 7, first_offset: 100, last_offset: 120, last_stable_offset: 105 },
        AbortedTxn { producer_id: 8, first_offset: 105, last_offset: 130, last_stable_offset: 131 },
    ]
}

#[test]
fn offsets_find_the_last_entry_at_or_below() {
    let index = sample();
    let found = [99, 100, 109, 110, 149, 150, i64::MAX].map(|offset| position_for_offset(&index, offset));
    assert_eq!(found, [0, 0, 0, 4_200, 4_200, 9_000, 9_000]);
    assert_eq!(position_for_offset(&[], 5), 0);
}

#[test]
fn timestamps_find_the_last_entry_below() {
    let index = sample();
    let found = [-1, 1_000, 1_001, 5_000, 5_001].map(|time| position_for_timestamp(&index, time));
    assert_eq!(found, [0, 0, 4_200, 4_200, 9_000]);
    assert_eq!(position_for_timestamp(&[], 5), 0);
}

#[test]
fn the_golden_files_of_version_1_read_for_ever() {
    let index = include_bytes!("../../tests/golden/index.v1.bin");
    assert_eq!(decode_index(index).unwrap(), sample());
    assert_eq!(encode_index(&sample()), index[..], "the format changed: give it a new version and keep reading this one");
    let transactions = include_bytes!("../../tests/golden/aborted.v1.bin");
    assert_eq!(decode_aborted(transactions).unwrap(), aborted());
    assert_eq!(encode_aborted(&aborted()), transactions[..], "the format changed: give it a new version and keep reading this one");
}

#[test]
fn damage_is_found() {
    for at in 0..encode_index(&sample()).len() {
        let good = encode_index(&sample());
        let mut bad = good.to_vec();
        bad[at] ^= 0x40;
        assert!(decode_index(&bad).is_err() && decode_index(&good[..at]).is_err(), "byte {at}");
    }
    for at in 0..encode_aborted(&aborted()).len() {
        let good = encode_aborted(&aborted());
        let mut bad = good.to_vec();
        bad[at] ^= 0x40;
        assert!(decode_aborted(&bad).is_err() && decode_aborted(&good[..at]).is_err(), "byte {at}");
    }
    assert_eq!(decode_index(&encode_index(&[entry(5, 0, 0), entry(5, 10, 0)])), Err(UnsealError::Invalid("index entries do not ascend")));
    assert_eq!(decode_index(&encode_aborted(&aborted())), Err(UnsealError::BadMagic));
    assert_eq!(decode_index(&[]), Err(UnsealError::Truncated));
    assert_eq!(decode_index(&encode_index(&[])), Ok(vec![]));
}

proptest! {
    /// A scan that begins where the index says finds what a scan from the begin finds.
    #[test]
    fn a_lookup_never_skips_what_it_looks_for(batches in prop::collection::vec((1i64..5, 1u64..9, 0i64..50, any::<bool>()), 1..40), offset in 0i64..200, time in 0i64..60) {
        let (mut next, mut position, mut max, mut index, mut all) = (0, 0, -1, Vec::new(), Vec::new());
        for (records, len, timestamp, indexed) in batches {
            max = max.max(timestamp);
            if indexed || index.is_empty() {
                index.push(entry(next, position, max));
            }
            all.push((position, next + records, timestamp));
            next += records;
            position += len;
        }
        let from = position_for_offset(&index, offset);
        let want = all.iter().find(|batch| batch.1 > offset);
        prop_assert_eq!(all.iter().filter(|batch| batch.0 >= from).find(|batch| batch.1 > offset), want);
        let from = position_for_timestamp(&index, time);
        let want = all.iter().find(|batch| batch.2 >= time);
        prop_assert_eq!(all.iter().filter(|batch| batch.0 >= from).find(|batch| batch.2 >= time), want);
    }
}
