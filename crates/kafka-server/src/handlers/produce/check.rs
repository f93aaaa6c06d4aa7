//! What Kafka checks of a partition's bytes before the log sees them: exactly one whole batch of format 2.

use bytes::BytesMut;
use kafka_protocol::ResponseError;

/// Bytes of a batch before those that its length counts.
const LOG_OVERHEAD: usize = 12;
/// Bytes up to the magic, which must be there for a batch to be looked at.
const HEAD_UP_TO_MAGIC: usize = 17;
/// Least length of a batch in any format.
const MIN_RECORD_OVERHEAD: i32 = 14;
const CURRENT_MAGIC: i8 = 2;
const ATTRIBUTES_AT: usize = 21;
const CODEC_BITS: u8 = 0x07;
const ZSTD: u8 = 4;
const TRANSACTIONAL_BIT: u8 = 0x10;
/// First version in which batches may be compressed by zstd (KIP-110).
const ZSTD_FROM: i16 = 7;

/// A partition's bytes are refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadRecords {
    pub code: ResponseError,
    pub message: Option<String>,
}

impl BadRecords {
    fn code(code: ResponseError) -> Self {
        Self { code, message: None }
    }

    fn corrupt(message: String) -> Self {
        Self { code: ResponseError::CorruptMessage, message: Some(message) }
    }
}

/// Size of the first batch of `bytes`; `None` if it is cut short.
fn first_batch(bytes: &[u8]) -> Result<Option<usize>, BadRecords> {
    let Some(head) = bytes.first_chunk::<HEAD_UP_TO_MAGIC>() else { return Ok(None) };
    let len = i32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    let magic = i8::from_be_bytes([head[16]]);
    if len < MIN_RECORD_OVERHEAD {
        return Err(BadRecords::corrupt(format!("Record size {len} is less than the minimum record overhead ({MIN_RECORD_OVERHEAD})")));
    }
    if !(0..=CURRENT_MAGIC).contains(&magic) {
        return Err(BadRecords::corrupt(format!("Invalid magic found in record: {magic}")));
    }
    Ok(usize::try_from(len).ok().map(|len| len + LOG_OVERHEAD).filter(|size| *size <= bytes.len()))
}

/// Cuts `records` to its one batch, or says why it can't be appended. Bytes of a second batch that is cut short are dropped, as Kafka drops them.
pub(crate) fn one_batch(records: Option<BytesMut>, version: i16) -> Result<BytesMut, BadRecords> {
    let invalid = || BadRecords::code(ResponseError::InvalidRecord);
    let mut records = records.ok_or_else(invalid)?;
    let size = first_batch(&records)?.ok_or_else(invalid)?;
    if records[HEAD_UP_TO_MAGIC - 1] != CURRENT_MAGIC as u8 || records.len() <= ATTRIBUTES_AT + 1 {
        return Err(invalid());
    }
    if records[ATTRIBUTES_AT + 1] & CODEC_BITS == ZSTD && version < ZSTD_FROM {
        return Err(BadRecords::code(ResponseError::UnsupportedCompressionType));
    }
    if first_batch(&records[size..])?.is_some() {
        return Err(invalid());
    }
    records.truncate(size);
    Ok(records)
}

/// True for a batch of a transaction. `batch` has passed [`one_batch`].
pub(crate) fn is_transactional(batch: &[u8]) -> bool {
    batch.get(ATTRIBUTES_AT + 1).is_some_and(|low| low & TRANSACTIONAL_BIT != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(len: i32, magic: i8, attributes: u8, total: usize) -> BytesMut {
        let mut bytes = BytesMut::zeroed(total);
        bytes[8..12].copy_from_slice(&len.to_be_bytes());
        bytes[16] = magic as u8;
        bytes[22] = attributes;
        bytes
    }

    #[test]
    fn one_whole_batch_passes_and_a_torn_second_one_is_dropped() {
        assert_eq!(one_batch(Some(batch(60, 2, 0, 72)), 3).map(|bytes| bytes.len()), Ok(72));
        assert_eq!(one_batch(Some(batch(60, 2, 0, 73)), 3).map(|bytes| bytes.len()), Ok(72));
        let mut two = batch(60, 2, 0, 72);
        two.extend_from_slice(&batch(60, 2, 0, 71));
        assert_eq!(one_batch(Some(two), 3).map(|bytes| bytes.len()), Ok(72));
    }

    #[test]
    fn everything_else_gets_kafkas_codes() {
        let code =
            |records: Option<BytesMut>, version| one_batch(records, version).map(drop).map_err(|bad| (bad.code, bad.message.is_some()));
        let invalid = Err((ResponseError::InvalidRecord, false));
        assert_eq!(code(None, 9), invalid);
        assert_eq!(code(Some(BytesMut::new()), 9), invalid);
        assert_eq!(code(Some(batch(60, 2, 0, 71)), 9), invalid, "cut short");
        assert_eq!(code(Some(batch(i32::MAX, 2, 0, 71)), 9), invalid, "a huge length");
        assert_eq!(code(Some(batch(60, 1, 0, 72)), 9), invalid, "an old format");
        assert_eq!(code(Some(batch(14, 0, 0, 26)), 9), invalid, "an old format, short");
        assert_eq!(code(Some(batch(60, 3, 0, 72)), 9), Err((ResponseError::CorruptMessage, true)));
        assert_eq!(code(Some(batch(-1, 2, 0, 72)), 9), Err((ResponseError::CorruptMessage, true)));
        assert_eq!(code(Some(BytesMut::zeroed(100)), 9), Err((ResponseError::CorruptMessage, true)));
        assert_eq!(code(Some(batch(60, 2, 4, 72)), 6), Err((ResponseError::UnsupportedCompressionType, false)));
        assert_eq!(code(Some(batch(60, 2, 4, 72)), 7), Ok(()));
        let mut two = batch(60, 2, 0, 72);
        two.extend_from_slice(&batch(60, 2, 0, 72));
        assert_eq!(code(Some(two), 9), invalid);
        assert!(is_transactional(&batch(60, 2, 0x10, 72)) && !is_transactional(&batch(60, 2, 0x27, 72)));
    }
}
