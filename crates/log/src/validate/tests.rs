use super::*;
use crate::records::BatchBuilder;

const NOW: i64 = 1_700_000_000_000;
const CODECS: [Compression; 5] = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn builder(codec: Compression) -> BatchBuilder {
    let mut builder = BatchBuilder::new(codec);
    builder.record(NOW - 10, Some(b"a"), Some(b"1"), &[]);
    builder.record(NOW - 5, Some(b"b"), None, &[]);
    builder.record(NOW - 7, Some(b"c"), Some(b"3"), &[]);
    builder
}

fn client(bytes: BytesMut, config: &LogConfig) -> Result<ValidatedBatches, AppendError> {
    validate(bytes, AppendOrigin::Client, config, NOW)
}

/// `batch` with other header bytes and a CRC that fits them.
fn patched(mut batch: BytesMut, at: usize, bytes: &[u8]) -> BytesMut {
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    batch::set_crc(&mut batch);
    batch
}

#[track_caller]
fn assert_invalid_record(result: Result<ValidatedBatches, AppendError>) {
    assert!(matches!(result, Err(AppendError::InvalidRecord(_))), "{result:?}");
}

#[test]
fn a_good_batch_passes_untouched_and_gets_offsets() {
    for codec in CODECS {
        let batch = builder(codec).build();
        let mut validated = client(batch.clone(), &LogConfig::default()).unwrap();
        assert_eq!(validated.records, batch);
        assert_eq!(validated.log_append_time_ms, -1);
        assert_eq!(validated.assign_offsets(70, 3), 73);
        assert_eq!(verify_crc(&validated.records), Ok(()));
        let header = BatchHeader::parse(&validated.records).unwrap();
        assert_eq!(validated.headers, [header]);
        assert_eq!((header.base_offset, header.last_offset(), header.partition_leader_epoch), (70, 72, 3));
    }
}

#[test]
fn a_client_sends_exactly_one_batch_a_coordinator_any_number() {
    let config = LogConfig::default();
    assert_invalid_record(client(BytesMut::new(), &config));
    let batch = builder(Compression::None).build();
    assert_invalid_record(client(BytesMut::from(&batch[..batch.len() - 1]), &config));
    let two = BytesMut::from([&batch[..], &batch[..]].concat().as_slice());
    assert_invalid_record(client(two.clone(), &config));
    let mut both = validate(two, AppendOrigin::Coordinator, &config, NOW).unwrap();
    assert_eq!(both.assign_offsets(10, 0), 16);
    assert_eq!(both.headers.iter().map(|header| header.base_offset).collect::<Vec<_>>(), [10, 13]);
    // A cut batch at the end is left out, as Kafka does.
    let trailing = BytesMut::from([&batch[..], &batch[..20]].concat().as_slice());
    assert_eq!(client(trailing, &config).unwrap().records, batch);
}

#[test]
fn malformed_batches_get_kafkas_errors() {
    let config = LogConfig::default();
    let good = builder(Compression::None).build();
    let mut flipped = good.clone();
    flipped[70] ^= 1;
    assert!(matches!(client(flipped, &config), Err(AppendError::Corrupt(BatchError::BadCrc { .. }))));
    assert!(matches!(client(patched(good.clone(), 8, &5i32.to_be_bytes()), &config), Err(AppendError::Corrupt(BatchError::BadLength(5)))));
    assert!(matches!(client(patched(good.clone(), 16, &[7]), &config), Err(AppendError::Corrupt(BatchError::BadMagic(7)))));
    assert_invalid_record(client(patched(good.clone(), 16, &[1]), &config));
    assert!(matches!(client(patched(good.clone(), 22, &[6]), &config), Err(AppendError::UnsupportedCompression(6))));
    assert_invalid_record(client(patched(good.clone(), 0, &4i64.to_be_bytes()), &config));
    assert_invalid_record(client(patched(good.clone(), 22, &[0x20]), &config));
    assert_invalid_record(client(patched(good.clone(), 22, &[0x10]), &config));
    for (count, delta) in [(0i32, 0i32), (-1, 0), (3, 3), (4, 2), (2, 1), (4, 3), (i32::MAX, i32::MAX - 1)] {
        let lie = patched(good.clone(), 57, &count.to_be_bytes());
        assert_invalid_record(client(patched(lie, 23, &delta.to_be_bytes()), &config));
    }
}

#[test]
fn a_producer_id_needs_sequence_and_epoch() {
    let config = LogConfig::default();
    let with = |epoch, sequence| client(builder(Compression::None).producer(5, epoch, sequence, false).build(), &config);
    assert!(with(0, 0).is_ok());
    assert_invalid_record(with(0, -1));
    assert_invalid_record(with(-1, 0));
}

#[test]
fn sizes_are_held_to_their_limits() {
    let batch = builder(Compression::None).build();
    let exact = LogConfig { max_message_bytes: batch.len(), segment_bytes: batch.len() as u64, ..LogConfig::default() };
    assert!(client(batch.clone(), &exact).is_ok());
    let small = LogConfig { max_message_bytes: batch.len() - 1, ..exact.clone() };
    assert!(matches!(client(batch.clone(), &small), Err(AppendError::MessageTooLarge { .. })));
    let short = LogConfig { segment_bytes: batch.len() as u64 - 1, ..exact };
    assert!(matches!(client(batch, &short), Err(AppendError::RecordListTooLarge { .. })));
}

#[test]
fn compacted_topics_refuse_records_without_key_in_every_codec() {
    let config = LogConfig { compact: true, ..LogConfig::default() };
    for codec in CODECS {
        assert!(client(builder(codec).build(), &config).is_ok());
        let mut keyless = builder(codec);
        keyless.record(NOW, None, Some(b"x"), &[]);
        keyless.record(NOW, None, Some(b"y"), &[]);
        assert!(matches!(client(keyless.build(), &config), Err(AppendError::KeylessRecords(indexes)) if indexes == [3, 4]));
    }
}

#[test]
fn a_bomb_in_a_compacted_topic_is_refused() {
    let mut bomb = BatchBuilder::new(Compression::Zstd);
    bomb.record(NOW, Some(b"k"), Some(&vec![0; INFLATED_BYTES_MAX + 1]), &[]);
    let bomb = bomb.build();
    assert!(bomb.len() < 20_000);
    let config = LogConfig { compact: true, ..LogConfig::default() };
    assert_invalid_record(client(bomb, &config));
}

#[test]
fn log_append_time_is_stamped_and_not_taken_from_clients() {
    let config = LogConfig { log_append_time: true, ..LogConfig::default() };
    let validated = client(builder(Compression::Lz4).build(), &config).unwrap();
    assert_eq!(validated.log_append_time_ms, NOW);
    let header = validated.headers[0];
    assert!(header.is_log_append_time());
    assert_eq!(header.max_timestamp, NOW);
    assert_eq!(verify_crc(&validated.records), Ok(()));

    let mut claimed = builder(Compression::None).build();
    stamp_log_append_time(&mut claimed, 5);
    assert!(matches!(client(claimed.clone(), &config), Err(AppendError::InvalidTimestamps(_))));
    // With CreateTime the claim is dropped and the records' own times count.
    let validated = client(claimed, &LogConfig::default()).unwrap();
    assert!(!validated.headers[0].is_log_append_time());
    assert_eq!(validated.headers[0].max_timestamp, NOW - 5);
    assert_eq!(verify_crc(&validated.records), Ok(()));
}

#[test]
fn timestamps_are_held_to_both_bounds() {
    let at = |timestamp_ms: i64, codec, config: &LogConfig| {
        let mut builder = BatchBuilder::new(codec);
        builder.record(NOW, Some(b"k"), None, &[]);
        builder.record(timestamp_ms, Some(b"k"), None, &[]);
        client(builder.build(), config)
    };
    let config = LogConfig { timestamp_before_max_ms: 1_000, timestamp_after_max_ms: 500, ..LogConfig::default() };
    for codec in CODECS {
        assert!(at(NOW + 500, codec, &config).is_ok());
        assert!(at(NOW - 1_000, codec, &config).is_ok());
        assert!(at(-1, codec, &config).is_ok());
        assert!(matches!(at(NOW + 501, codec, &config), Err(AppendError::InvalidTimestamps(bad)) if bad.records == [(1, NOW + 501)]));
        assert!(matches!(at(NOW - 1_001, codec, &config), Err(AppendError::InvalidTimestamps(bad)) if bad.records == [(1, NOW - 1_001)]));
        assert!(matches!(at(i64::MAX, codec, &LogConfig::default()), Err(AppendError::InvalidTimestamps(_))));
        assert!(at(0, codec, &LogConfig::default()).is_ok());
    }
}

#[test]
fn an_unset_max_timestamp_is_found_by_walking() {
    for codec in CODECS {
        let unset = patched(builder(codec).build(), 35, &(-1i64).to_be_bytes());
        let validated = client(unset, &LogConfig::default()).unwrap();
        assert_eq!(validated.headers[0].max_timestamp, NOW - 5);
        assert_eq!(verify_crc(&validated.records), Ok(()));
    }
}

#[test]
fn batches_are_recompressed_into_the_topics_codec() {
    for from in CODECS {
        for to in CODECS {
            let config = LogConfig { compression: Some(to), ..LogConfig::default() };
            let batch = builder(from).producer(9, 1, 4, true).build();
            let validated = client(batch.clone(), &config).unwrap();
            assert_eq!(verify_crc(&validated.records), Ok(()));
            let (before, after) = (BatchHeader::parse(&batch).unwrap(), BatchHeader::parse(&validated.records).unwrap());
            assert_eq!(after.compression(), Ok(to));
            assert_eq!(after.total_len(), validated.records.len());
            let same = BatchHeader { batch_length: before.batch_length, crc: before.crc, attributes: before.attributes, ..after };
            assert_eq!(same, before);
            let body = inflate(&after, &validated.records, 1 << 20).unwrap();
            let keys: Vec<_> = records(&after, &body).map(|record| record.unwrap().key.map(<[u8]>::to_vec)).collect();
            assert_eq!(keys, [Some(b"a".to_vec()), Some(b"b".to_vec()), Some(b"c".to_vec())]);
        }
    }
}

#[test]
fn a_batch_that_grows_past_the_limit_by_recompression_is_refused() {
    let mut packed = BatchBuilder::new(Compression::Zstd);
    packed.record(NOW, Some(b"k"), Some(&[0; 10_000]), &[]);
    let config = LogConfig { compression: Some(Compression::None), max_message_bytes: 1_000, ..LogConfig::default() };
    assert!(matches!(client(packed.build(), &config), Err(AppendError::MessageTooLarge { .. })));
}

/// Kafka takes the largest timestamp of the records, whatever the header says.
#[test]
fn the_max_timestamp_of_an_uncompressed_batch_is_that_of_its_records() {
    let config = LogConfig::default();
    for wrong in [NOW - 1_000_000, NOW + 1000, NOW + 1_000_000_000_000] {
        let batch = patched(builder(Compression::None).build(), batch::at::MAX_TIMESTAMP, &i64::to_be_bytes(wrong));
        let validated = client(batch, &config).unwrap();
        assert_eq!(validated.headers[0].max_timestamp, NOW - 5);
        assert_eq!(verify_crc(&validated.records), Ok(()));
    }
    let mut late = BatchBuilder::new(Compression::None);
    late.record(NOW, None, Some(b"v"), &[]);
    late.record(NOW + config.timestamp_after_max_ms + 1, None, Some(b"v"), &[]);
    let batch = patched(late.build(), batch::at::MAX_TIMESTAMP, &i64::to_be_bytes(NOW));
    let refused = client(batch, &config);
    assert!(matches!(&refused, Err(AppendError::InvalidTimestamps(refused)) if refused.records.len() == 1), "{refused:?}");
}
