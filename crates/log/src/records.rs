//! Records inside a batch: an allocation-free iterator, and a builder for the batches that the broker itself writes.

use std::borrow::Cow;

use bytes::BytesMut;

use crate::batch::{self, BATCH_HEADER_LEN, BATCH_PREFIX_LEN, BatchError, BatchHeader, Compression, MAGIC_V2, NO_PRODUCER_ID, NO_SEQUENCE};
use crate::compression::{compress, decompress};

/// One record, borrowed from the (inflated) batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, ms.
    pub timestamp_ms: i64,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in order, duplicate keys kept.
    pub headers: RecordHeaders<'a>,
}

/// A record's headers: still encoded, already checked.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RecordHeaders<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> RecordHeaders<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Key and value of each, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut reader = Reader { rest: self.bytes };
        (0..self.count).map_while(move |_| reader.header().ok())
    }
}

/// Iterates over the records of a batch. `body` is the inflated record section: see [`inflate`]. Each item checks all lengths
/// against what remains; bytes too few or too many for the header's count end in an error. Stops after the first error.
pub fn records<'a>(header: &BatchHeader, body: &'a [u8]) -> RecordIter<'a> {
    RecordIter {
        reader: Reader { rest: body },
        base_offset: header.base_offset,
        base_timestamp_ms: header.base_timestamp,
        append_time_ms: header.is_log_append_time().then_some(header.max_timestamp),
        next_delta: 0,
        last_delta: header.last_offset_delta,
        left: header.record_count,
        done: false,
    }
}

/// See [`records`].
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    reader: Reader<'a>,
    base_offset: i64,
    base_timestamp_ms: i64,
    append_time_ms: Option<i64>,
    /// Offset deltas must rise: the smallest that may come next.
    next_delta: i32,
    last_delta: i32,
    left: i32,
    done: bool,
}

impl<'a> RecordIter<'a> {
    fn step(&mut self) -> Result<Option<Record<'a>>, BatchError> {
        if self.left <= 0 {
            return if self.reader.rest.is_empty() { Ok(None) } else { Err(BatchError::Invalid("bytes after the last record")) };
        }
        let length = self.reader.varint()?;
        let length = usize::try_from(length).map_err(|_| BatchError::Invalid("negative record length"))?;
        let mut body = Reader { rest: self.reader.take(length)? };
        let _attributes = body.take(1)?;
        let timestamp_delta = body.varlong()?;
        let offset_delta = body.varint()?;
        if offset_delta < self.next_delta || offset_delta > self.last_delta {
            return Err(BatchError::Invalid("record offset delta out of order"));
        }
        let key = body.nullable()?;
        let value = body.nullable()?;
        let headers = body.headers()?;
        if !body.rest.is_empty() {
            return Err(BatchError::Invalid("bytes after the end of a record"));
        }
        self.left -= 1;
        self.next_delta = offset_delta.saturating_add(1);
        let timestamp_ms = self.append_time_ms.unwrap_or(self.base_timestamp_ms.wrapping_add(timestamp_delta));
        Ok(Some(Record { offset: self.base_offset.saturating_add(i64::from(offset_delta)), timestamp_ms, key, value, headers }))
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.step().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

/// Bytes not read yet; every call checks its length against them.
#[derive(Clone, Debug)]
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], BatchError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(BatchError::Invalid("a record is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// An unsigned varint of at most `max_bytes` bytes.
    fn unsigned(&mut self, max_bytes: usize) -> Result<u64, BatchError> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().take(max_bytes).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(BatchError::Invalid(if self.rest.len() < max_bytes { "a record is cut short" } else { "varint too long" }))
    }

    fn varint(&mut self) -> Result<i32, BatchError> {
        // As Java does, bits above the 32nd are dropped.
        let raw = self.unsigned(5)? as u32;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    fn varlong(&mut self) -> Result<i64, BatchError> {
        let raw = self.unsigned(10)?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    fn nullable(&mut self) -> Result<Option<&'a [u8]>, BatchError> {
        match self.varint()? {
            -1 => Ok(None),
            len => {
                let len = usize::try_from(len).map_err(|_| BatchError::Invalid("negative length in a record"))?;
                self.take(len).map(Some)
            }
        }
    }

    fn header(&mut self) -> Result<(&'a [u8], Option<&'a [u8]>), BatchError> {
        let key = self.nullable()?.ok_or(BatchError::Invalid("null header key"))?;
        Ok((key, self.nullable()?))
    }

    fn headers(&mut self) -> Result<RecordHeaders<'a>, BatchError> {
        let count = self.varint()?;
        let count = usize::try_from(count).map_err(|_| BatchError::Invalid("negative header count"))?;
        let bytes = self.rest;
        for _ in 0..count {
            self.header()?;
        }
        Ok(RecordHeaders { count, bytes: &bytes[..bytes.len() - self.rest.len()] })
    }
}

/// The record section of `batch` (one whole batch), inflated if compressed, at most `limit` bytes.
///
/// # Errors
/// [`BatchError::BadCompression`], [`BatchError::Compression`], or [`BatchError::Truncated`] without a whole header.
pub fn inflate<'a>(header: &BatchHeader, batch: &'a [u8], limit: usize) -> Result<Cow<'a, [u8]>, BatchError> {
    let section = batch.get(BATCH_HEADER_LEN..).ok_or(BatchError::Truncated { have: batch.len(), need: BATCH_HEADER_LEN })?;
    match header.compression()? {
        Compression::None => Ok(Cow::Borrowed(section)),
        codec => Ok(Cow::Owned(decompress(codec, section, limit)?)),
    }
}

/// A header of a record to be written.
pub type HeaderToWrite<'a> = (&'a [u8], Option<&'a [u8]>);

/// Builds one batch, record by record.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    compression: Compression,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    transactional: bool,
    control: bool,
    count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    body: Vec<u8>,
    scratch: Vec<u8>,
}

impl BatchBuilder {
    /// A builder without producer id; offsets start at 0 (the log stamps them).
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: -1,
            base_sequence: NO_SEQUENCE,
            transactional: false,
            control: false,
            count: 0,
            base_timestamp_ms: -1,
            max_timestamp_ms: -1,
            body: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Sets the producer's id, epoch, first sequence and whether the batch belongs to a transaction.
    pub fn producer(self, producer_id: i64, producer_epoch: i16, base_sequence: i32, transactional: bool) -> Self {
        Self { producer_id, producer_epoch, base_sequence, transactional, ..self }
    }

    /// Marks the batch as holding control records.
    pub fn control(self) -> Self {
        Self { control: true, ..self }
    }

    /// Adds a record.
    pub fn record(&mut self, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[HeaderToWrite<'_>]) {
        if self.count == 0 {
            self.base_timestamp_ms = timestamp_ms;
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        let deltas = (timestamp_ms.wrapping_sub(self.base_timestamp_ms), i64::from(self.count));
        put_record(&mut self.body, &mut self.scratch, deltas, key, value, |record| {
            put_len(record, headers.len());
            for (key, value) in headers {
                put_nullable(record, Some(key));
                put_nullable(record, *value);
            }
        });
        self.count += 1;
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(0)
    }

    /// True before the first record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The batch, with its CRC. Should the codec fail, the records go in as they are.
    pub fn build(self) -> BytesMut {
        let (codec, section) = match self.compression {
            Compression::None => (Compression::None, self.body),
            codec => compress(codec, &self.body).map_or((Compression::None, self.body), |packed| (codec, packed)),
        };
        let total = BATCH_HEADER_LEN + section.len();
        let header = BatchHeader {
            base_offset: 0,
            batch_length: i32::try_from(total - BATCH_PREFIX_LEN).unwrap_or(i32::MAX),
            partition_leader_epoch: -1,
            magic: MAGIC_V2,
            crc: 0,
            attributes: batch::attributes(codec, self.transactional, self.control),
            last_offset_delta: (self.count - 1).max(0),
            base_timestamp: self.base_timestamp_ms,
            max_timestamp: self.max_timestamp_ms,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            record_count: self.count,
        };
        let mut batch = BytesMut::with_capacity(total);
        batch.extend_from_slice(&header.to_bytes());
        batch.extend_from_slice(&section);
        batch::set_crc(&mut batch);
        batch
    }
}

/// Appends to `out` the batch of `header` with only `kept` of its records (at least one, in order): same offsets, codec, producer and leader
/// epoch. The base timestamp is `delete_horizon_ms`, or else the first record's.
pub(crate) fn rebuilt_batch<'a>(
    header: &BatchHeader,
    kept: impl Iterator<Item = Record<'a>>,
    delete_horizon_ms: Option<i64>,
    out: &mut Vec<u8>,
) {
    let mut kept = kept.peekable();
    let first_ms = kept.peek().map_or(header.base_timestamp, |first| first.timestamp_ms);
    let base_timestamp = delete_horizon_ms.unwrap_or(first_ms);
    let mut body = Vec::new();
    let mut scratch = Vec::new();
    let mut max_timestamp = -1;
    let mut record_count = 0;
    for record in kept {
        record_count += 1;
        max_timestamp = record.timestamp_ms.max(max_timestamp);
        let deltas = (record.timestamp_ms.wrapping_sub(base_timestamp), record.offset - header.base_offset);
        put_record(&mut body, &mut scratch, deltas, record.key, record.value, |bytes| {
            put_len(bytes, record.headers.count);
            bytes.extend_from_slice(record.headers.bytes);
        });
    }
    let (codec, section) = match header.compression() {
        Ok(Compression::None) | Err(_) => (Compression::None, body),
        Ok(codec) => compress(codec, &body).map_or((Compression::None, body), |packed| (codec, packed)),
    };
    let max_timestamp = if header.is_log_append_time() { header.max_timestamp } else { max_timestamp };
    let rebuilt = BatchHeader { base_timestamp, max_timestamp, record_count, ..*header }.with_compression(codec);
    put_batch(&rebuilt.with_delete_horizon(delete_horizon_ms), &section, out);
}

/// Appends to `out` the batch of `header` without records: its offsets, producer, epoch and sequence are all that is left.
pub(crate) fn empty_batch(header: &BatchHeader, out: &mut Vec<u8>) {
    let empty = BatchHeader { base_timestamp: header.max_timestamp, record_count: 0, ..*header }.with_compression(Compression::None);
    put_batch(&empty.with_delete_horizon(None), &[], out);
}

fn put_batch(header: &BatchHeader, section: &[u8], out: &mut Vec<u8>) {
    let total = BATCH_HEADER_LEN + section.len();
    let begin = out.len();
    let header = BatchHeader { batch_length: i32::try_from(total - BATCH_PREFIX_LEN).unwrap_or(i32::MAX), ..*header };
    out.extend_from_slice(&header.to_bytes());
    out.extend_from_slice(section);
    batch::set_crc(&mut out[begin..]);
}

/// Appends a record with its deltas of timestamp and offset; `headers` writes their count and bytes. `scratch` is for reuse.
fn put_record(
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    (timestamp_delta, offset_delta): (i64, i64),
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl FnOnce(&mut Vec<u8>),
) {
    scratch.clear();
    scratch.push(0);
    put_varlong(scratch, timestamp_delta);
    put_varlong(scratch, offset_delta);
    put_nullable(scratch, key);
    put_nullable(scratch, value);
    headers(scratch);
    put_len(out, scratch.len());
    out.extend_from_slice(scratch);
}

/// Zigzag varint; a 32-bit value has the same form in it as in Kafka's varint.
fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while raw >= 0x80 {
        out.push(raw.to_le_bytes()[0] | 0x80);
        raw >>= 7;
    }
    out.push(raw.to_le_bytes()[0]);
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    put_varlong(out, i64::try_from(len).unwrap_or(i64::MAX));
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varlong(out, -1),
        Some(bytes) => {
            put_len(out, bytes.len());
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests;
