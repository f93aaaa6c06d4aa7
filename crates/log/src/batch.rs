//! The 61-byte header of a record batch (message format v2, KIP-98): read and stamped in place, never decoded further.

use thiserror::Error;

/// Bytes of a batch's header, up to and including the record count.
pub const BATCH_HEADER_LEN: usize = 61;
/// Bytes before a batch's length field counts: base offset (8) and the length itself (4).
pub const BATCH_PREFIX_LEN: usize = 12;
/// `producer_id` of a batch without a producer id.
pub const NO_PRODUCER_ID: i64 = -1;

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
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let _ = bytes;
        todo!()
    }

    /// Bytes of the whole batch.
    pub fn total_len(&self) -> usize {
        todo!()
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The codec.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        todo!()
    }

    /// True if the timestamps are the broker's (`LogAppendTime`).
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & 0x08 != 0
    }

    /// True for a batch of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    /// True for a batch of control records.
    pub fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }

    /// Sequence of the last record, wrapping from i32::MAX to 0 as Kafka's does; -1 without sequence.
    pub fn last_sequence(&self) -> i32 {
        todo!()
    }
}

/// Checks one whole batch's CRC (I36). `batch` is exactly one batch.
pub fn verify_crc(batch: &[u8]) -> Result<(), BatchError> {
    let _ = batch;
    todo!()
}

/// Writes base offset and leader epoch into the header of `batch`; both lie outside the CRC.
pub fn stamp(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
    let _ = (batch, base_offset, leader_epoch);
    todo!()
}

/// Sets `LogAppendTime` and max timestamp, and the CRC anew.
pub fn stamp_log_append_time(batch: &mut [u8], timestamp_ms: i64) {
    let _ = (batch, timestamp_ms);
    todo!()
}

/// Walks the batches in `bytes`: each item is a header and its whole batch. Ends with an error at the first malformed one;
/// a cut last batch is [`BatchError::Truncated`].
pub fn batches(bytes: &[u8]) -> BatchIter<'_> {
    BatchIter { rest: bytes }
}

/// See [`batches`].
#[derive(Debug)]
pub struct BatchIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = Result<(BatchHeader, &'a [u8]), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let _ = self.rest;
        todo!()
    }
}
