use bytes::{Bytes, BytesMut};
use kafka_protocol::records as oracle;

use super::*;
use crate::batch::{stamp, stamp_log_append_time, verify_crc};

const CODECS: [Compression; 5] = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
const LIMIT: usize = 1 << 20;

type Plain = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>);

fn read(batch: &[u8]) -> Result<Vec<Plain>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let body = inflate(&header, batch, LIMIT)?;
    records(&header, &body)
        .map(|record| record.map(|r| (r.offset, r.timestamp_ms, r.key.map(<[u8]>::to_vec), r.value.map(<[u8]>::to_vec))))
        .collect()
}

#[test]
fn built_batches_read_back_with_every_codec() {
    for codec in CODECS {
        let mut builder = BatchBuilder::new(codec);
        builder.record(1_000, Some(b"k1"), Some(b"v1"), &[(b"h", Some(b"1")), (b"h", None), (b"", Some(b""))]);
        builder.record(999, None, None, &[]);
        builder.record(5_000_000_000_000, Some(b""), Some(&[7; 5_000]), &[]);
        assert_eq!(builder.len(), 3);
        let mut batch = builder.build();
        assert_eq!(verify_crc(&batch), Ok(()));
        stamp(&mut batch, 100, 1);
        let header = BatchHeader::parse(&batch).unwrap();
        assert_eq!(header.total_len(), batch.len());
        assert_eq!((header.compression(), header.max_timestamp, header.record_count), (Ok(codec), 5_000_000_000_000, 3));
        let all = read(&batch).unwrap();
        assert_eq!(all[0], (100, 1_000, Some(b"k1".to_vec()), Some(b"v1".to_vec())));
        assert_eq!(all[1], (101, 999, None, None));
        assert_eq!(all[2], (102, 5_000_000_000_000, Some(vec![]), Some(vec![7; 5_000])));
        let body = inflate(&header, &batch, LIMIT).unwrap();
        let first = records(&header, &body).next().unwrap().unwrap();
        assert_eq!(first.headers.len(), 3);
        let headers: Vec<_> = first.headers.iter().collect();
        assert_eq!(headers, [(&b"h"[..], Some(&b"1"[..])), (b"h", None), (b"", Some(b""))]);
    }
}

#[test]
fn log_append_time_overrides_every_records_time() {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.record(1, None, Some(b"a"), &[]);
    builder.record(2, None, Some(b"b"), &[]);
    let mut batch = builder.build();
    stamp_log_append_time(&mut batch, 50);
    assert_eq!(read(&batch).unwrap().iter().map(|record| record.1).collect::<Vec<_>>(), [50, 50]);
}

#[test]
fn a_lying_record_count_is_found() {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.record(1, None, Some(b"a"), &[]);
    builder.record(2, None, Some(b"b"), &[]);
    let batch = builder.build();
    for count in [0i32, 1, 3, i32::MAX] {
        let mut lie = batch.clone();
        lie[57..61].copy_from_slice(&count.to_be_bytes());
        lie[23..27].copy_from_slice(&(count.max(1) - 1).to_be_bytes());
        assert!(matches!(read(&lie), Err(BatchError::Invalid(_))), "{count}");
    }
}

#[test]
fn bad_lengths_inside_a_record_are_found() {
    let header = BatchHeader { record_count: 1, ..BatchHeader::parse(&BatchBuilder::new(Compression::None).build()).unwrap() };
    let bad: [(&str, &[u8]); 11] = [
        ("negative record length", &[0x01]),
        ("record longer than the rest", &[0x10, 0, 0, 0, 1, 1, 0]),
        ("record shorter than its fields", &[0x04, 0, 0, 0, 1, 1, 0]),
        ("bytes after the fields", &[0x0e, 0, 0, 0, 1, 1, 0, 0]),
        ("key length -2", &[0x0c, 0, 0, 0, 3, 1, 0]),
        ("key longer than the record", &[0x0c, 0, 0, 0, 0x7e, 1, 0]),
        ("header count -1", &[0x0c, 0, 0, 0, 1, 1, 1]),
        ("header count without headers", &[0x14, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f]),
        ("null header key", &[0x10, 0, 0, 0, 1, 1, 2, 1, 1]),
        ("varint of six bytes", &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]),
        ("offset delta past the last", &[0x0c, 0, 0, 2, 1, 1, 0]),
    ];
    for (what, body) in bad {
        let mut walk = records(&header, body);
        assert!(matches!(walk.next(), Some(Err(BatchError::Invalid(_)))), "{what}");
        assert!(walk.next().is_none(), "{what}: the walk goes on after an error");
    }
    let good = [0x0c, 0, 0, 0, 1, 1, 0];
    assert!(records(&header, &good).next().unwrap().is_ok());
}

fn oracle_record(offset: i64, key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> oracle::Record {
    oracle::Record {
        transactional: true,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 4,
        producer_id: 99,
        producer_epoch: 2,
        timestamp_type: oracle::TimestampType::Creation,
        offset,
        sequence: i32::try_from(offset).unwrap(),
        timestamp: 1_700_000_000_000 + offset * 3,
        key: key.map(Bytes::from_static),
        value: value.map(Bytes::from_static),
        headers: [("trace".into(), Some(Bytes::from_static(b"abc"))), ("empty".into(), None)].into_iter().collect(),
    }
}

#[test]
fn reads_what_the_protocol_crate_writes() {
    let written = [oracle_record(0, Some(b"k"), Some(b"v")), oracle_record(1, None, None), oracle_record(2, Some(b""), Some(&[1; 300]))];
    let mut bytes = BytesMut::new();
    let options = oracle::RecordEncodeOptions { version: 2, compression: oracle::Compression::None };
    oracle::RecordBatchEncoder::encode(&mut bytes, &written, &options).unwrap();

    assert_eq!(verify_crc(&bytes), Ok(()));
    let header = BatchHeader::parse(&bytes).unwrap();
    assert_eq!((header.total_len(), header.producer_id, header.producer_epoch, header.base_sequence), (bytes.len(), 99, 2, 0));
    assert!(header.is_transactional());
    let read: Vec<_> = records(&header, &bytes[BATCH_HEADER_LEN..]).map(Result::unwrap).collect();
    for (ours, theirs) in read.iter().zip(&written) {
        assert_eq!((ours.offset, ours.timestamp_ms), (theirs.offset, theirs.timestamp));
        assert_eq!((ours.key, ours.value), (theirs.key.as_deref(), theirs.value.as_deref()));
        let headers: Vec<_> = ours.headers.iter().collect();
        assert_eq!(headers, [(&b"trace"[..], Some(&b"abc"[..])), (b"empty", None)]);
    }
    assert_eq!(read.len(), 3);
}

#[test]
fn the_protocol_crate_reads_what_we_write() {
    let mut builder = BatchBuilder::new(Compression::None).producer(99, 2, 5, false);
    builder.record(1_000, Some(b"k"), Some(b"v"), &[(b"a", Some(b"1"))]);
    builder.record(900, None, None, &[]);
    let mut bytes = builder.build().freeze();
    let set = oracle::RecordBatchDecoder::decode(&mut bytes).unwrap();
    assert_eq!(set.records.len(), 2);
    assert_eq!((set.records[0].timestamp, set.records[0].key.as_deref(), set.records[0].sequence), (1_000, Some(&b"k"[..]), 5));
    assert_eq!(set.records[0].headers[0].as_deref(), Some(&b"1"[..]));
    assert_eq!((set.records[1].timestamp, set.records[1].offset, set.records[1].value.clone()), (900, 1, None));
}
