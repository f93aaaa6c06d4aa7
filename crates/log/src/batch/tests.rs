use super::*;
use crate::records::BatchBuilder;

fn sample(records: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None).producer(7, 3, i32::MAX - 1, true);
    for i in 0..records {
        builder.record(1_000 + i as i64, Some(b"key"), Some(b"value"), &[]);
    }
    builder.build().to_vec()
}

#[test]
fn a_header_reads_back_what_was_written() {
    let header = BatchHeader {
        base_offset: 0x0102_0304_0506_0708,
        batch_length: 0x11_1213,
        partition_leader_epoch: 0x2122_2324,
        magic: 2,
        crc: 0xf1f2_f3f4,
        attributes: 0x001b,
        last_offset_delta: 0x4142_4344,
        base_timestamp: 0x5152_5354_5556_5758,
        max_timestamp: 0x6162_6364_6566_6768,
        producer_id: 0x7172_7374_7576_7778,
        producer_epoch: 0x0182,
        base_sequence: 0x1192_9394,
        record_count: 0x21a2_a3a4,
    };
    let bytes = header.to_bytes();
    assert_eq!(BatchHeader::parse(&bytes).unwrap(), header);
    // The layout of KIP-98, byte by byte.
    assert_eq!(bytes[8..17], [0, 0x11, 0x12, 0x13, 0x21, 0x22, 0x23, 0x24, 2]);
    assert_eq!(bytes[17..27], [0xf1, 0xf2, 0xf3, 0xf4, 0x00, 0x1b, 0x41, 0x42, 0x43, 0x44]);
    assert_eq!(bytes[51..61], [0x01, 0x82, 0x11, 0x92, 0x93, 0x94, 0x21, 0xa2, 0xa3, 0xa4]);
    assert_eq!(header.compression(), Ok(Compression::Lz4));
    assert!(header.is_log_append_time() && header.is_transactional() && !header.is_control());
}

#[test]
fn impossible_headers_are_refused() {
    let good = sample(1);
    let with = |at: usize, bytes: &[u8]| {
        let mut batch = good.clone();
        batch[at..at + bytes.len()].copy_from_slice(bytes);
        BatchHeader::parse(&batch)
    };
    for length in [i32::MIN, -1, 0, 48] {
        assert_eq!(with(8, &length.to_be_bytes()), Err(BatchError::BadLength(length)));
    }
    assert!(with(8, &49i32.to_be_bytes()).is_ok());
    for magic in [-1i8, 0, 1, 3] {
        assert_eq!(with(16, &magic.to_be_bytes()), Err(BatchError::BadMagic(magic)));
    }
    assert!(matches!(with(0, &(-1i64).to_be_bytes()), Err(BatchError::Invalid(_))));
    assert!(matches!(with(0, &i64::MAX.to_be_bytes()), Err(BatchError::Invalid(_))));
    assert!(matches!(with(23, &(-1i32).to_be_bytes()), Err(BatchError::Invalid(_))));
    assert!(matches!(with(57, &(-1i32).to_be_bytes()), Err(BatchError::Invalid(_))));
    assert_eq!(BatchHeader::parse(&good[..60]), Err(BatchError::Truncated { have: 60, need: 61 }));
    // A whole v0 message may be shorter than our header: its format is named all the same.
    let mut v0 = [0; 30];
    v0[11] = 18;
    assert_eq!(BatchHeader::parse(&v0), Err(BatchError::BadMagic(0)));
    let mut unknown_codec = good.clone();
    unknown_codec[22] |= 5;
    assert_eq!(BatchHeader::parse(&unknown_codec).unwrap().compression(), Err(BatchError::BadCompression(5)));
}

#[test]
fn stamping_offset_and_epoch_leaves_the_crc_valid() {
    let mut batch = sample(2);
    stamp(&mut batch, 42, 9);
    assert_eq!(verify_crc(&batch), Ok(()));
    let header = BatchHeader::parse(&batch).unwrap();
    assert_eq!((header.base_offset, header.last_offset(), header.next_offset(), header.partition_leader_epoch), (42, 43, 44, 9));
}

#[test]
fn stamping_the_append_time_renews_the_crc() {
    let mut batch = sample(1);
    stamp_log_append_time(&mut batch, 77_000);
    assert_eq!(verify_crc(&batch), Ok(()));
    let header = BatchHeader::parse(&batch).unwrap();
    assert!(header.is_log_append_time() && header.is_transactional());
    assert_eq!((header.max_timestamp, header.base_timestamp), (77_000, 1_000));
    stamp_create_time(&mut batch, 1_000);
    assert!(!BatchHeader::parse(&batch).unwrap().is_log_append_time());
    assert_eq!(verify_crc(&batch), Ok(()));
}

#[test]
fn any_flipped_bit_after_the_crc_is_found() {
    let good = sample(1);
    for at in 21..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(matches!(verify_crc(&bad), Err(BatchError::BadCrc { .. })), "byte {at}");
    }
    assert!(matches!(verify_crc(&good[..40]), Err(BatchError::Truncated { .. })));
}

#[test]
fn sequences_wrap_to_zero() {
    let header = BatchHeader::parse(&sample(3)).unwrap();
    assert_eq!(header.base_sequence, i32::MAX - 1);
    assert_eq!(header.last_sequence(), 0);
    assert_eq!(increment_sequence(i32::MAX, 0), i32::MAX);
    assert_eq!(increment_sequence(i32::MAX, 1), 0);
    assert_eq!(increment_sequence(5, i32::MAX), 4);
    assert_eq!(BatchHeader { base_sequence: -1, ..header }.last_sequence(), -1);
}

#[test]
fn the_walk_ends_at_the_first_bad_batch() {
    let one = sample(1);
    let all = [one.clone(), sample(2), one[..70].to_vec()].concat();
    let items: Vec<_> = batches(&all).collect();
    assert_eq!(items.len(), 3);
    assert_eq!(items[0].as_ref().unwrap().1, one);
    assert_eq!(items[1].as_ref().unwrap().0.record_count, 2);
    assert_eq!(items[2], Err(BatchError::Truncated { have: 70, need: one.len() }));
    assert_eq!(batches(&[]).count(), 0);
}
