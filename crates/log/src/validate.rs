//! What must hold before a batch gets offsets: the checks of Kafka's `ProduceRequest`, `UnifiedLog` and `LogValidator`, in their order and
//! with their errors.
//!
//! Compressed batches are judged by header and CRC alone, without inflating them, unless the topic is compacted (every record needs a
//! key), the header has no max timestamp, `message.timestamp.before.max.ms` is set, or `compression.type` asks for another codec.
//! A compressed batch whose record count lies is thus found by its readers; Kafka finds it here, at the price of inflating everything.
//! Records of uncompressed batches are always walked.

use bytes::BytesMut;

use crate::batch::{
    self, BATCH_HEADER_LEN, BATCH_PREFIX_LEN, BatchError, BatchHeader, Compression, batches, stamp, stamp_create_time,
    stamp_log_append_time, verify_crc,
};
use crate::compression::{CompressionError, compress_at};
use crate::error::{AppendError, InvalidTimestamps};
use crate::partition::{AppendOrigin, LogConfig};
use crate::records::{inflate, records};

/// A batch that must be looked into may inflate to this: Kafka's `socket.request.max.bytes`.
pub const INFLATED_BYTES_MAX: usize = 100 * 1024 * 1024;

/// So many records of one batch are named when their timestamps are refused: memory stays bounded whatever a batch inflates to.
const REFUSED_LISTED_MAX: usize = 1 << 16;

/// A batch or record without a timestamp.
const NO_TIMESTAMP: i64 = -1;

/// Batches that may be appended, once they have offsets.
#[derive(Debug)]
pub struct ValidatedBatches {
    /// Whole batches, nothing else; rewritten if the topic's settings ask for it.
    pub records: BytesMut,
    /// Their headers, in order.
    pub headers: Vec<BatchHeader>,
    /// The broker's time if `LogAppendTime`, else -1.
    pub log_append_time_ms: i64,
}

impl ValidatedBatches {
    /// Stamps offsets from `first_offset` on, and the leader epoch, into bytes and headers. Returns the offset after the last.
    pub fn assign_offsets(&mut self, first_offset: i64, leader_epoch: i32) -> i64 {
        let mut next_offset = first_offset;
        let mut rest = &mut self.records[..];
        for header in &mut self.headers {
            let (batch, after) = rest.split_at_mut(header.total_len());
            stamp(batch, next_offset, leader_epoch);
            header.base_offset = next_offset;
            header.partition_leader_epoch = leader_epoch;
            next_offset = header.next_offset();
            rest = after;
        }
        next_offset
    }

    /// Stamps another append time.
    pub(crate) fn set_log_append_time(&mut self, now_ms: i64) {
        let mut rest = &mut self.records[..];
        for header in &mut self.headers {
            let (batch, after) = rest.split_at_mut(header.total_len());
            stamp_log_append_time(batch, now_ms);
            *header = BatchHeader::parse(batch).unwrap_or(*header);
            rest = after;
        }
        self.log_append_time_ms = now_ms;
    }
}

/// Checks `batches` (a client's: exactly one) for an append at `now_ms`, and applies the topic's timestamp type and codec.
///
/// # Errors
/// [`AppendError::Corrupt`], [`AppendError::InvalidRecord`], [`AppendError::KeylessRecords`], [`AppendError::MessageTooLarge`],
/// [`AppendError::RecordListTooLarge`], [`AppendError::UnsupportedCompression`], [`AppendError::InvalidTimestamps`].
pub fn validate(mut bytes: BytesMut, origin: AppendOrigin, config: &LogConfig, now_ms: i64) -> Result<ValidatedBatches, AppendError> {
    let mut headers = whole_batches(&mut bytes, origin)?;
    let mut at = 0;
    let mut latest = Vec::with_capacity(headers.len());
    for header in &headers {
        let batch = &bytes[at..at + header.total_len()];
        latest.push(check_batch(header, batch, origin, config)?);
        at += batch.len();
    }
    if let Some(header) = headers.iter().find(|header| config.log_append_time && header.is_log_append_time()) {
        // Kafka: "Producer should not set timestamp type to LogAppendTime."
        let records = (0..header.record_count).take(REFUSED_LISTED_MAX).map(|index| (index, header.max_timestamp)).collect();
        return Err(InvalidTimestamps { records, allowed: None }.into());
    }
    if headers.iter().any(|header| wants_rewrite(header, config)) {
        bytes = rewrite(&bytes, &headers, config)?;
    }
    let mut rest = &mut bytes[..];
    for (header, latest) in headers.iter_mut().zip(latest) {
        let len = BatchHeader::parse(rest)?.total_len();
        let (batch, after) = rest.split_at_mut(len);
        apply_timestamps(batch, latest, config, now_ms)?;
        *header = BatchHeader::parse(batch)?;
        rest = after;
    }
    if let Some(header) = headers.iter().find(|header| header.total_len() > config.max_message_bytes) {
        return Err(AppendError::MessageTooLarge { size: header.total_len(), max: config.max_message_bytes });
    }
    if u64::try_from(bytes.len()).is_ok_and(|len| len > config.segment_bytes) {
        return Err(AppendError::RecordListTooLarge {
            size: bytes.len(),
            max: usize::try_from(config.segment_bytes).unwrap_or(usize::MAX),
        });
    }
    let log_append_time_ms = if config.log_append_time { now_ms } else { NO_TIMESTAMP };
    Ok(ValidatedBatches { records: bytes, headers, log_append_time_ms })
}

/// The headers of the whole batches in `bytes`, and `bytes` cut to them: as Kafka does, a cut batch at the end is left out.
fn whole_batches(bytes: &mut BytesMut, origin: AppendOrigin) -> Result<Vec<BatchHeader>, AppendError> {
    let mut headers = Vec::with_capacity(1);
    let mut whole_len = 0;
    for item in batches(bytes) {
        match item {
            Ok((header, batch)) => {
                headers.push(header);
                whole_len += batch.len();
            }
            Err(BatchError::Truncated { .. }) => break,
            Err(BatchError::BadMagic(0 | 1)) => {
                return Err(AppendError::InvalidRecord("produce requests may only contain record batches with magic version 2"));
            }
            Err(BatchError::Invalid(reason)) => return Err(AppendError::InvalidRecord(reason)),
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(whole_len);
    match (headers.len(), origin) {
        (0, _) => Err(AppendError::InvalidRecord("produce requests must have at least one record batch per partition")),
        (2.., origin) if origin.is_client() => {
            Err(AppendError::InvalidRecord("produce requests are only allowed to contain exactly one record batch per partition"))
        }
        _ => Ok(headers),
    }
}

/// The largest timestamp of its records, if they had to be looked at.
fn check_batch(header: &BatchHeader, batch: &[u8], origin: AppendOrigin, config: &LogConfig) -> Result<Option<i64>, AppendError> {
    if origin.is_client() && header.base_offset != 0 {
        return Err(AppendError::InvalidRecord("the base offset of a produced record batch should be 0"));
    }
    if batch.len() > config.max_message_bytes {
        return Err(AppendError::MessageTooLarge { size: batch.len(), max: config.max_message_bytes });
    }
    if origin.is_client() {
        verify_crc(batch)?;
        check_client_header(header)?;
    }
    let codec = header.compression().map_err(append_error)?;
    if codec == Compression::None || config.compact {
        let body = inflate(header, batch, INFLATED_BYTES_MAX).map_err(append_error)?;
        let (mut keyless, mut latest_ms) = (Vec::new(), NO_TIMESTAMP);
        for (record, index) in records(header, &body).zip(0..) {
            let record = record.map_err(append_error)?;
            if record.key.is_none() && config.compact {
                keyless.push(index);
            }
            latest_ms = latest_ms.max(record.timestamp_ms);
        }
        if !keyless.is_empty() {
            return Err(AppendError::KeylessRecords(keyless));
        }
        return Ok(Some(latest_ms));
    }
    Ok(None)
}

/// `LogValidator.validateBatch` for clients, and what Kafka's own builder would never write.
fn check_client_header(header: &BatchHeader) -> Result<(), AppendError> {
    let problem = if header.record_count <= 0 {
        "invalid reported count for record batch"
    } else if header.last_offset_delta != header.record_count - 1 {
        "inconsistent batch offset range: it does not match the count of records"
    } else if header.is_control() {
        "clients are not allowed to write control records"
    } else if header.has_producer_id() && header.base_sequence < 0 {
        "invalid sequence number in record batch with a producer id"
    } else if header.has_producer_id() && header.producer_epoch < 0 {
        "invalid producer epoch in record batch with a producer id"
    } else if header.is_transactional() && !header.has_producer_id() {
        "transactional record batch without a producer id"
    } else {
        return Ok(());
    };
    Err(AppendError::InvalidRecord(problem))
}

fn append_error(error: BatchError) -> AppendError {
    match error {
        BatchError::BadCompression(codec) => AppendError::UnsupportedCompression(codec),
        BatchError::Invalid(reason) => AppendError::InvalidRecord(reason),
        BatchError::Compression(CompressionError::TooLarge { .. }) => AppendError::InvalidRecord("batch inflates to more than 100 MiB"),
        other => AppendError::Corrupt(other),
    }
}

fn wants_rewrite(header: &BatchHeader, config: &LogConfig) -> bool {
    !header.is_control() && config.compression.is_some_and(|codec| header.compression() != Ok(codec))
}

/// All batches anew, in the topic's codec.
fn rewrite(bytes: &[u8], headers: &[BatchHeader], config: &LogConfig) -> Result<BytesMut, AppendError> {
    let mut out = BytesMut::with_capacity(bytes.len());
    let mut rest = bytes;
    for header in headers {
        let (batch, after) = rest.split_at(header.total_len());
        rest = after;
        match config.compression {
            Some(codec) if wants_rewrite(header, config) => rewrite_batch(header, batch, (codec, config.compression_level), &mut out)?,
            _ => out.extend_from_slice(batch),
        }
    }
    Ok(out)
}

fn rewrite_batch(
    header: &BatchHeader,
    batch: &[u8],
    (codec, level): (Compression, Option<i32>),
    out: &mut BytesMut,
) -> Result<(), AppendError> {
    let body = inflate(header, batch, INFLATED_BYTES_MAX).map_err(append_error)?;
    // What was not inflated before is seen now: nothing unsound may get our CRC.
    records(header, &body).try_for_each(|record| record.map(drop)).map_err(append_error)?;
    let section = compress_at(codec, level, &body).map_err(|error| append_error(error.into()))?;
    let total_len = BATCH_HEADER_LEN + section.len();
    let batch_length = i32::try_from(total_len - BATCH_PREFIX_LEN)
        .map_err(|_| AppendError::MessageTooLarge { size: total_len, max: usize::try_from(i32::MAX).unwrap_or(usize::MAX) })?;
    let rewritten = BatchHeader { batch_length, ..*header }.with_compression(codec);
    let start = out.len();
    out.extend_from_slice(&rewritten.to_bytes());
    out.extend_from_slice(&section);
    batch::set_crc(&mut out[start..]);
    Ok(())
}

/// Checks timestamps against the topic's bounds, and sets type and max timestamp as the topic has them. `latest_ms` is the largest of the
/// records, where they were looked at; else the header is believed.
fn apply_timestamps(batch: &mut [u8], latest_ms: Option<i64>, config: &LogConfig, now_ms: i64) -> Result<(), AppendError> {
    if config.log_append_time {
        stamp_log_append_time(batch, now_ms);
        return Ok(());
    }
    let header = BatchHeader::parse(batch)?;
    let allowed = Allowed::new(config, now_ms);
    let by_header = [header.base_timestamp, latest_ms.unwrap_or(header.max_timestamp)].into_iter().all(|time| allowed.contains(time));
    let walk = header.max_timestamp == NO_TIMESTAMP || header.is_log_append_time() || config.timestamp_before_max_ms != i64::MAX;
    if by_header && !walk {
        if let Some(latest_ms) = latest_ms.filter(|latest_ms| *latest_ms != header.max_timestamp) {
            stamp_create_time(batch, latest_ms);
        }
        return Ok(());
    }
    // What a producer says of append time is nothing to us: its records' own times count.
    let plain = BatchHeader { attributes: header.without_log_append_time(), ..header };
    let mut max_timestamp_ms = NO_TIMESTAMP;
    let mut refused = Vec::new();
    {
        let body = inflate(&plain, batch, INFLATED_BYTES_MAX).map_err(append_error)?;
        for (record, index) in records(&plain, &body).zip(0..) {
            let timestamp_ms = record.map_err(append_error)?.timestamp_ms;
            if !allowed.contains(timestamp_ms) && refused.len() < REFUSED_LISTED_MAX {
                refused.push((index, timestamp_ms));
            }
            max_timestamp_ms = max_timestamp_ms.max(timestamp_ms);
        }
    }
    if !refused.is_empty() {
        return Err(InvalidTimestamps { records: refused, allowed: Some((allowed.earliest_ms, allowed.latest_ms)) }.into());
    }
    if header.is_log_append_time() || header.max_timestamp != max_timestamp_ms {
        stamp_create_time(batch, max_timestamp_ms);
    }
    Ok(())
}

/// The timestamps that a topic takes now.
#[derive(Copy, Clone)]
struct Allowed {
    earliest_ms: i64,
    latest_ms: i64,
}

impl Allowed {
    fn new(config: &LogConfig, now_ms: i64) -> Self {
        Self {
            earliest_ms: now_ms.saturating_sub(config.timestamp_before_max_ms),
            latest_ms: now_ms.saturating_add(config.timestamp_after_max_ms),
        }
    }

    fn contains(&self, timestamp_ms: i64) -> bool {
        timestamp_ms == NO_TIMESTAMP || (self.earliest_ms..=self.latest_ms).contains(&timestamp_ms)
    }
}

#[cfg(test)]
mod tests;
