//! Record batches as a client writes them (well formed or broken on purpose), and what a fetched one says.

use bytes::{BufMut, Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, checksum};
use serde_json::{Value, json};

/// Bytes of a version 2 batch before its records.
pub const HEADER_BYTES: usize = 61;
/// Where the CRC begins to count: attributes to the end.
const CRC_START: usize = 21;

/// A batch to produce; every field of the header can lie.
#[derive(Clone)]
pub struct Batch {
    /// First offset claimed by the client; brokers overwrite it.
    pub base_offset: i64,
    /// Leader epoch claimed by the client.
    pub leader_epoch: i32,
    /// Format version; 2 is the only one Kafka 4 takes.
    pub magic: i8,
    /// Codec, timestamp type, transactional and control bits.
    pub attributes: i16,
    /// Timestamp of the first record in ms; record `i` has `timestamp + i`.
    pub timestamp: i64,
    /// Producer id, -1 for none.
    pub producer_id: i64,
    /// Producer epoch, -1 for none.
    pub producer_epoch: i16,
    /// Sequence of the first record, -1 for none.
    pub base_sequence: i32,
    /// Keys and values.
    pub records: Vec<(Option<Bytes>, Option<Bytes>)>,
    /// Record count to claim instead of the true one.
    pub count: Option<i32>,
    /// Last offset delta to claim instead of the true one.
    pub last_offset_delta: Option<i32>,
    /// Whether the CRC is wrong.
    pub bad_crc: bool,
    /// Added to the length field.
    pub length_lie: i32,
}

impl Batch {
    /// `count` records `v0`, `v1` … without keys, first timestamp `timestamp`.
    pub fn of(count: usize, timestamp: i64) -> Batch {
        let records = (0..count).map(|i| (None, Some(Bytes::from(format!("v{i}"))))).collect();
        Batch {
            base_offset: 0,
            leader_epoch: -1,
            magic: 2,
            attributes: 0,
            timestamp,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            records,
            count: None,
            last_offset_delta: None,
            bad_crc: false,
            length_lie: 0,
        }
    }

    /// The same batch from an idempotent producer.
    pub fn from_producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Batch {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (id, epoch, base_sequence);
        self
    }

    /// The same batch after `change`.
    pub fn with(mut self, change: impl FnOnce(&mut Batch)) -> Batch {
        change(&mut self);
        self
    }

    /// The batch on the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let last = self.records.len() as i64 - 1;
        out.put_i64(self.base_offset);
        out.put_i32(0);
        out.put_i32(self.leader_epoch);
        out.put_i8(self.magic);
        out.put_u32(0);
        out.put_i16(self.attributes);
        out.put_i32(self.last_offset_delta.unwrap_or(last as i32));
        out.put_i64(self.timestamp);
        out.put_i64(self.timestamp + last.max(0));
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.base_sequence);
        out.put_i32(self.count.unwrap_or(self.records.len() as i32));
        for (i, (key, value)) in self.records.iter().enumerate() {
            put_record(&mut out, i as i64, key.as_ref(), value.as_ref());
        }
        let length = out.len() as i32 - 12 + self.length_lie;
        out[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = checksum(CrcAlgorithm::Crc32Iscsi, &out[CRC_START..]) as u32 ^ u32::from(self.bad_crc);
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        out.freeze()
    }
}

fn put_record(out: &mut BytesMut, delta: i64, key: Option<&Bytes>, value: Option<&Bytes>) {
    let mut body = BytesMut::new();
    body.put_i8(0);
    put_varint(&mut body, delta);
    put_varint(&mut body, delta);
    for field in [key, value] {
        put_varint(&mut body, field.map_or(-1, |f| f.len() as i64));
        body.extend_from_slice(field.map_or(&[][..], |f| f));
    }
    put_varint(&mut body, 0);
    put_varint(out, body.len() as i64);
    out.extend_from_slice(&body);
}

/// Zig-zag variable-length integer.
fn put_varint(out: &mut BytesMut, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// A message set of format 0 or 1 with one message, as clients before 0.11 send it.
pub fn old_message_set(magic: i8, timestamp: i64, value: &[u8]) -> Bytes {
    let mut body = BytesMut::new();
    body.put_i8(magic);
    body.put_i8(0);
    if magic > 0 {
        body.put_i64(timestamp);
    }
    body.put_i32(-1);
    body.put_i32(value.len() as i32);
    body.extend_from_slice(value);
    let mut out = BytesMut::new();
    out.put_i64(0);
    out.put_i32(body.len() as i32 + 4);
    out.put_u32(checksum(CrcAlgorithm::Crc32IsoHdlc, &body) as u32);
    out.extend_from_slice(&body);
    out.freeze()
}

/// What the batches in a Fetch answer say; a batch cut off at the end is named as such.
pub fn describe(mut records: &[u8]) -> Value {
    let mut batches = Vec::new();
    while !records.is_empty() {
        let int = |at: usize, n: usize| {
            let bytes = &records[at..at + n];
            bytes.iter().fold(if bytes[0] & 0x80 == 0 { 0i64 } else { -1 }, |acc, b| acc << 8 | i64::from(*b))
        };
        let whole = (records.len() >= HEADER_BYTES).then(|| int(8, 4) as usize + 12);
        let Some(size) = whole.filter(|size| *size <= records.len()) else {
            batches.push(json!({"cut_off": true}));
            break;
        };
        let crc = checksum(CrcAlgorithm::Crc32Iscsi, &records[CRC_START..size]) as u32;
        batches.push(json!({
            "base_offset": int(0, 8), "last_offset": int(0, 8) + int(23, 4), "leader_epoch": int(12, 4), "magic": int(16, 1),
            "crc_ok": crc == int(17, 4) as u32, "attributes": int(21, 2), "base_timestamp": int(27, 8),
            "max_timestamp": int(35, 8), "producer_id": int(43, 8), "producer_epoch": int(51, 2),
            "base_sequence": int(53, 4), "count": int(57, 4), "size": size,
        }));
        records = &records[size..];
    }
    Value::Array(batches)
}
