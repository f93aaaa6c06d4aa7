//! The 61-byte header of a record batch (message format v2, KIP-98): read and stamped in place, never decoded further.

use crc_fast::CrcAlgorithm;
use thiserror::Error;

use crate::compression::CompressionError;

/// Bytes of a batch's header, up to and including the record count.
pub const BATCH_HEADER_LEN: usize = 61;
/// Bytes before a batch's length field counts: base offset (8) and the length itself (4).
pub const BATCH_PREFIX_LEN: usize = 12;
/// `producer_id` of a batch without a producer id.
pub const NO_PRODUCER_ID: i64 = -1;
/// `base_sequence` of a batch without a sequence (no producer id, or a control batch).
pub const NO_SEQUENCE: i32 = -1;
/// The one message format that is stored.
pub const MAGIC_V2: i8 = 2;

/// Attribute bits that name the codec.
const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
const DELETE_HORIZON_BIT: i16 = 0x40;

/// Where the fields lie, and which bytes the CRC covers.
pub(crate) mod at {
    pub(crate) const LENGTH: usize = 8;
    pub(crate) const LEADER_EPOCH: usize = 12;
    pub(crate) const MAGIC: usize = 16;
    pub(crate) const CRC: usize = 17;
    pub(crate) const ATTRIBUTES: usize = 21;
    pub(crate) const LAST_OFFSET_DELTA: usize = 23;
    pub(crate) const BASE_TIMESTAMP: usize = 27;
    pub(crate) const MAX_TIMESTAMP: usize = 35;
    pub(crate) const PRODUCER_ID: usize = 43;
    pub(crate) const PRODUCER_EPOCH: usize = 51;
    pub(crate) const BASE_SEQUENCE: usize = 53;
    pub(crate) const RECORD_COUNT: usize = 57;
}

/// A batch's codec, from the low three attribute bits.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Compression {
    /// 0
    None,
    /// 1
    Gzip,
    /// 2
    Snappy,
    /// 3
    Lz4,
    /// 4
    Zstd,
}

impl Compression {
    /// The codec of the low three attribute bits.
    ///
    /// # Errors
    /// [`BatchError::BadCompression`] for 5 to 7.
    pub fn from_attributes(attributes: i16) -> Result<Self, BatchError> {
        match attributes & CODEC_MASK {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            other => Err(BatchError::BadCompression(other.to_le_bytes()[0])),
        }
    }

    /// The codec's attribute bits.
    pub fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }
}

/// Bytes that are not a well-formed batch.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BatchError {
    /// Fewer bytes than the header or the stated length.
    #[error("batch is cut short: {have} of {need} bytes")]
    Truncated {
        /// Bytes there.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// A length field that cannot be.
    #[error("batch length {0} is not possible")]
    BadLength(i32),
    /// Message format v0, v1 or unknown.
    #[error("magic {0} is not supported, only 2 is")]
    BadMagic(i8),
    /// The checksum does not match (I36).
    #[error("crc mismatch: header says {stated:#010x}, bytes give {computed:#010x}")]
    BadCrc {
        /// In the header.
        stated: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// Attribute bits name no codec.
    #[error("unknown compression codec {0}")]
    BadCompression(u8),
    /// Counts, deltas or fields that contradict each other.
    #[error("invalid batch: {0}")]
    Invalid(&'static str),
    /// The record section can't be inflated.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// The fields of a batch header.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes after this field (total length less 12).
    pub batch_length: i32,
    /// Epoch of the leader that appended it; -1 from a producer.
    pub partition_leader_epoch: i32,
    /// Format version, 2.
    pub magic: i8,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec (bits 0-2), timestamp type (3), transactional (4), control (5), delete horizon (6).
    pub attributes: i16,
    /// Last offset less base offset.
    pub last_offset_delta: i32,
    /// Timestamp of the first record, ms.
    pub base_timestamp: i64,
    /// Largest timestamp, ms; -1 if unset.
    pub max_timestamp: i64,
    /// Producer id, or -1.
    pub producer_id: i64,
    /// Producer epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// How many records.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads a header and checks magic and length against what is possible; not the CRC, nor that all bytes are there.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] below 61 bytes, [`BatchError::BadMagic`] for another format (told apart as soon as its byte is there),
    /// [`BatchError::BadLength`], and [`BatchError::Invalid`] for a negative count or delta or an offset past `i64::MAX`.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if let Some(&magic) = bytes.get(at::MAGIC)
            && magic != MAGIC_V2.to_be_bytes()[0]
        {
            return Err(BatchError::BadMagic(i8::from_be_bytes([magic])));
        }
        let Some(bytes) = bytes.first_chunk::<BATCH_HEADER_LEN>() else {
            return Err(BatchError::Truncated { have: bytes.len(), need: BATCH_HEADER_LEN });
        };
        let header = Self {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            batch_length: i32::from_be_bytes(field(bytes, at::LENGTH)),
            partition_leader_epoch: i32::from_be_bytes(field(bytes, at::LEADER_EPOCH)),
            magic: i8::from_be_bytes(field(bytes, at::MAGIC)),
            crc: u32::from_be_bytes(field(bytes, at::CRC)),
            attributes: i16::from_be_bytes(field(bytes, at::ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(field(bytes, at::LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(field(bytes, at::BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(field(bytes, at::MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(field(bytes, at::PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(field(bytes, at::PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(field(bytes, at::BASE_SEQUENCE)),
            record_count: i32::from_be_bytes(field(bytes, at::RECORD_COUNT)),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), BatchError> {
        match usize::try_from(self.batch_length) {
            Ok(length) if length >= BATCH_HEADER_LEN - BATCH_PREFIX_LEN => {}
            _ => return Err(BatchError::BadLength(self.batch_length)),
        }
        if self.last_offset_delta < 0 {
            return Err(BatchError::Invalid("negative last offset delta"));
        }
        if self.record_count < 0 {
            return Err(BatchError::Invalid("negative record count"));
        }
        if self.base_offset < 0 {
            return Err(BatchError::Invalid("negative base offset"));
        }
        if self.base_offset.checked_add(i64::from(self.last_offset_delta)).is_none_or(|last| last == i64::MAX) {
            return Err(BatchError::Invalid("last offset out of range"));
        }
        Ok(())
    }

    /// Bytes of the whole batch.
    pub fn total_len(&self) -> usize {
        BATCH_PREFIX_LEN + usize::try_from(self.batch_length).unwrap_or(0)
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }

    /// The codec.
    ///
    /// # Errors
    /// [`BatchError::BadCompression`] if the attributes name none.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_attributes(self.attributes)
    }

    /// True if the timestamps are the broker's (`LogAppendTime`).
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }

    /// True for a batch of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// True for a batch of control records.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// When tombstones and markers of the batch may go, ms; `None` until compaction has set it. The base timestamp then means this.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp)
    }

    /// This header with that delete horizon, or none.
    pub(crate) fn with_delete_horizon(self, horizon_ms: Option<i64>) -> Self {
        match horizon_ms {
            Some(horizon_ms) => Self { attributes: self.attributes | DELETE_HORIZON_BIT, base_timestamp: horizon_ms, ..self },
            None => Self { attributes: self.attributes & !DELETE_HORIZON_BIT, ..self },
        }
    }

    /// True for a batch of an idempotent or transactional producer.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// This header with another codec in its attributes.
    pub(crate) fn with_compression(self, codec: Compression) -> Self {
        Self { attributes: self.attributes & !CODEC_MASK | codec.bits(), ..self }
    }

    /// The attributes with `CreateTime` as the timestamp type.
    pub(crate) fn without_log_append_time(&self) -> i16 {
        self.attributes & !LOG_APPEND_TIME_BIT
    }

    /// Sequence of the last record, wrapping from i32::MAX to 0 as Kafka's does; -1 without sequence.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE { NO_SEQUENCE } else { increment_sequence(self.base_sequence, self.last_offset_delta) }
    }

    /// The header's 61 bytes.
    pub fn to_bytes(&self) -> [u8; BATCH_HEADER_LEN] {
        let mut bytes = [0; BATCH_HEADER_LEN];
        put(&mut bytes, 0, &self.base_offset.to_be_bytes());
        put(&mut bytes, at::LENGTH, &self.batch_length.to_be_bytes());
        put(&mut bytes, at::LEADER_EPOCH, &self.partition_leader_epoch.to_be_bytes());
        put(&mut bytes, at::MAGIC, &self.magic.to_be_bytes());
        put(&mut bytes, at::CRC, &self.crc.to_be_bytes());
        put(&mut bytes, at::ATTRIBUTES, &self.attributes.to_be_bytes());
        put(&mut bytes, at::LAST_OFFSET_DELTA, &self.last_offset_delta.to_be_bytes());
        put(&mut bytes, at::BASE_TIMESTAMP, &self.base_timestamp.to_be_bytes());
        put(&mut bytes, at::MAX_TIMESTAMP, &self.max_timestamp.to_be_bytes());
        put(&mut bytes, at::PRODUCER_ID, &self.producer_id.to_be_bytes());
        put(&mut bytes, at::PRODUCER_EPOCH, &self.producer_epoch.to_be_bytes());
        put(&mut bytes, at::BASE_SEQUENCE, &self.base_sequence.to_be_bytes());
        put(&mut bytes, at::RECORD_COUNT, &self.record_count.to_be_bytes());
        bytes
    }
}

/// Attribute bits of a batch to be written.
pub(crate) fn attributes(codec: Compression, transactional: bool, control: bool) -> i16 {
    codec.bits() | if transactional { TRANSACTIONAL_BIT } else { 0 } | if control { CONTROL_BIT } else { 0 }
}

/// `sequence + delta`, wrapping from `i32::MAX` to 0. Both are not negative.
pub(crate) fn increment_sequence(sequence: i32, delta: i32) -> i32 {
    if sequence > i32::MAX - delta { delta - (i32::MAX - sequence) - 1 } else { sequence + delta }
}

fn field<const N: usize>(bytes: &[u8; BATCH_HEADER_LEN], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// The CRC-32C of a batch's bytes from the attributes on.
pub(crate) fn compute_crc(batch: &[u8]) -> u32 {
    let covered = batch.get(at::ATTRIBUTES..).unwrap_or_default();
    // The algorithm is 32 bits wide; the crate hands every checksum out in 64.
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, covered) as u32
}

/// Checks one whole batch's CRC (I36). `batch` is exactly one batch.
///
/// # Errors
/// [`BatchError::BadCrc`], or [`BatchError::Truncated`] if not even the header is there.
pub fn verify_crc(batch: &[u8]) -> Result<(), BatchError> {
    let Some(header) = batch.first_chunk::<BATCH_HEADER_LEN>() else {
        return Err(BatchError::Truncated { have: batch.len(), need: BATCH_HEADER_LEN });
    };
    let stated = u32::from_be_bytes(field(header, at::CRC));
    let computed = compute_crc(batch);
    if stated == computed { Ok(()) } else { Err(BatchError::BadCrc { stated, computed }) }
}

/// Writes base offset and leader epoch into the header of `batch`; both lie outside the CRC.
pub fn stamp(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
    assert!(batch.len() >= BATCH_HEADER_LEN, "stamping needs a whole header");
    put(batch, 0, &base_offset.to_be_bytes());
    put(batch, at::LEADER_EPOCH, &leader_epoch.to_be_bytes());
}

/// Sets `LogAppendTime` and max timestamp, and the CRC anew. `batch` is exactly one batch.
pub fn stamp_log_append_time(batch: &mut [u8], timestamp_ms: i64) {
    set_timestamps(batch, true, timestamp_ms);
}

/// Clears `LogAppendTime` and sets the max timestamp, and the CRC anew. `batch` is exactly one batch.
pub(crate) fn stamp_create_time(batch: &mut [u8], max_timestamp_ms: i64) {
    set_timestamps(batch, false, max_timestamp_ms);
}

fn set_timestamps(batch: &mut [u8], log_append_time: bool, max_timestamp_ms: i64) {
    assert!(batch.len() >= BATCH_HEADER_LEN, "stamping needs a whole header");
    let before = i16::from_be_bytes([batch[at::ATTRIBUTES], batch[at::ATTRIBUTES + 1]]);
    let attributes = if log_append_time { before | LOG_APPEND_TIME_BIT } else { before & !LOG_APPEND_TIME_BIT };
    put(batch, at::ATTRIBUTES, &attributes.to_be_bytes());
    put(batch, at::MAX_TIMESTAMP, &max_timestamp_ms.to_be_bytes());
    set_crc(batch);
}

/// Computes the CRC of `batch` (exactly one batch) and writes it into its header.
pub(crate) fn set_crc(batch: &mut [u8]) {
    let crc = compute_crc(batch);
    put(batch, at::CRC, &crc.to_be_bytes());
}

/// Walks the batches in `bytes`: each item is a header and its whole batch. Ends with an error at the first malformed one;
/// a cut last batch is [`BatchError::Truncated`]. CRCs are not checked.
pub fn batches(bytes: &[u8]) -> BatchIter<'_> {
    BatchIter { rest: bytes }
}

/// See [`batches`].
#[derive(Clone, Debug)]
pub struct BatchIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = Result<(BatchHeader, &'a [u8]), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.rest);
        let header = match BatchHeader::parse(bytes) {
            Ok(header) => header,
            Err(error) => return Some(Err(error)),
        };
        let Some((batch, rest)) = bytes.split_at_checked(header.total_len()) else {
            return Some(Err(BatchError::Truncated { have: bytes.len(), need: header.total_len() }));
        };
        self.rest = rest;
        Some(Ok((header, batch)))
    }
}

#[cfg(test)]
mod tests;
