//! Appends: checks, offsets, tail cache, WAL queue.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::state::LogState;
use super::{AppendInfo, AppendOrigin, LogConfig, PartitionLog};
use crate::batch::{BatchError, BatchHeader, batches, verify_crc};
use crate::error::AppendError;
use crate::producers::{EndTxnMarker, SequenceCheck};
use crate::segment::{Phase, Segment};
use crate::tail::Chunk;
use crate::validate::{ValidatedBatches, validate};
use crate::wal::Pending;

/// A slice smaller than this is copied out of its request's buffer: one that stays in the tail cache would keep the whole
/// buffer, however large, in memory.
const COPY_BYTES_MAX: usize = 8 << 10;

impl PartitionLog {
    /// Validates a producer's batches (`records` holds one or more), stamps offsets and `leader_epoch` in place, and puts them into the tail
    /// cache and the WAL's queue. Returns at once: the record is durable when [`super::LogOffsets::ack_end`] passes it (see
    /// [`PartitionLog::subscribe`]).
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was appended then. An epoch below the newest one here is refused (I7, I9).
    pub fn append_as_leader(&self, records: BytesMut, leader_epoch: i32, origin: AppendOrigin) -> Result<AppendInfo, AppendError> {
        self.check_ready()?;
        let config = Arc::clone(&self.state.lock().config);
        let now_ms = self.shared.env.clock.now_ms();
        let mut valid = validate(records, origin, &config, now_ms)?;
        let mut state = self.state.lock();
        self.check_still_open(&state)?;
        if let Some(current) = state.epochs.latest_epoch().filter(|current| *current > leader_epoch) {
            return Err(AppendError::StaleLeaderEpoch { got: leader_epoch, current });
        }
        if let Some(duplicate) = check_producers(&state, &valid, origin)? {
            return Ok(duplicate);
        }
        state.keep_append_time_order(&mut valid, self.shared.env.clock.now_ms());
        let first_offset = state.offsets.log_end;
        let next_offset = valid.assign_offsets(first_offset, leader_epoch);
        if next_offset > first_offset {
            self.push(&mut state, valid.records.freeze(), now_ms)?;
        }
        Ok(AppendInfo {
            first_offset,
            last_offset: next_offset - 1,
            log_append_time_ms: valid.log_append_time_ms,
            log_start_offset: state.offsets.log_start,
            duplicate: false,
        })
    }

    /// Appends batches fetched from the leader as they are; their offsets must follow ours (I7). A cut last batch, as Fetch may
    /// return it, is left out.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was appended then.
    pub fn append_as_follower(&self, records: Bytes) -> Result<AppendInfo, AppendError> {
        self.check_ready()?;
        let mut len = 0;
        let mut range = None;
        for batch in batches(&records) {
            let (header, bytes) = match batch {
                Err(BatchError::Truncated { .. }) => break,
                other => other?,
            };
            verify_crc(bytes)?;
            let (first, end) = range.unwrap_or((header.base_offset, header.base_offset));
            if header.base_offset < end {
                return Err(AppendError::InvalidRecord("batch offsets do not increase"));
            }
            range = Some((first, header.next_offset()));
            len += bytes.len();
        }
        let mut state = self.state.lock();
        self.check_still_open(&state)?;
        let log_end = state.offsets.log_end;
        let (first_offset, end_offset) = range.unwrap_or((log_end, log_end));
        if first_offset < log_end {
            return Err(AppendError::InvalidRecord("batch offsets lie below the log end"));
        }
        if len > 0 {
            self.push(&mut state, records.slice(..len), self.shared.env.clock.now_ms())?;
        }
        Ok(AppendInfo {
            first_offset,
            last_offset: end_offset - 1,
            log_append_time_ms: -1,
            log_start_offset: state.offsets.log_start,
            duplicate: false,
        })
    }

    fn check_ready(&self) -> Result<(), AppendError> {
        self.shared.health.check()?;
        if self.shared.wal.has_room() { Ok(()) } else { Err(AppendError::NoSpace) }
    }

    /// To be asked with the state locked, after all that takes time: what is appended once the log was closed or deleted would
    /// come after what its last flush covers.
    fn check_still_open(&self, state: &LogState) -> Result<(), AppendError> {
        if state.deleted {
            return Err(AppendError::Deleted);
        }
        self.shared.health.check_open()
    }

    /// Adds stamped batches to the log in memory and queues them for the WAL.
    fn push(&self, state: &mut LogState, bytes: Bytes, now_ms: i64) -> Result<(), AppendError> {
        let Some(me) = self.me.upgrade() else {
            return Err(AppendError::Offline("the log is closed".to_owned()));
        };
        let bytes = if bytes.len() < COPY_BYTES_MAX { Bytes::copy_from_slice(&bytes) } else { bytes };
        let record_count = state.take(&bytes, now_ms)?;
        let end_offset = state.offsets.log_end;
        let (ack_after_sync, sync_now) = state.flush_policy(record_count);
        let now = self.shared.env.clock.monotonic();
        let sync_by = match state.config.flush_ms {
            _ if sync_now => Some(now),
            i64::MAX => None,
            flush_ms => Some(now + std::time::Duration::from_millis(u64::try_from(flush_ms).unwrap_or(0))),
        };
        let pending = Pending { log: me, incarnation: state.incarnation, bytes, end_offset, sequence: 0, ack_after_sync, sync_by };
        state.queued(self.shared.wal.enqueue(pending));
        self.publish_quietly(state);
        if state.wants_flush()
            && let Some(me) = self.me.upgrade()
        {
            self.shared.flusher.request(&me);
        }
        Ok(())
    }
}

impl LogState {
    /// Adds whole, stamped batches to tail, segment, epochs and producers; rolls before if that is due. How many records.
    pub(super) fn take(&mut self, bytes: &Bytes, now_ms: i64) -> Result<i64, AppendError> {
        let first = BatchHeader::parse(bytes)?;
        if self.must_roll(bytes, now_ms) {
            self.roll(first.base_offset);
        }
        if self.active().is_empty() {
            self.active().first_append_ms = now_ms;
        }
        self.last_append_ms = now_ms;
        let position = self.active().size_bytes;
        let interval = self.config.index_interval_bytes;
        let mut record_count = 0;
        for batch in batches(bytes) {
            let (header, batch) = batch?;
            self.active().add(&header, interval);
            if header.partition_leader_epoch >= 0 {
                self.epochs.assign(header.partition_leader_epoch, header.base_offset);
            }
            let marker = EndTxnMarker::from_batch(&header, batch);
            if let Some(aborted) = self.producers.appended(&header, marker) {
                self.active().aborted.push(aborted);
                self.active().has_aborts = true;
            }
            record_count += i64::from(header.record_count);
        }
        let end_offset = self.active().end_offset;
        self.tail.push(Chunk { base_offset: first.base_offset, end_offset, position, bytes: bytes.clone() });
        self.offsets.log_end = end_offset;
        Ok(record_count)
    }

    /// `segment.bytes`, `segment.ms` from the first append, and offsets that no longer fit 32 bits relative to the base.
    fn must_roll(&mut self, bytes: &Bytes, now_ms: i64) -> bool {
        let config = Arc::clone(&self.config);
        let last_offset = batches(bytes).last().and_then(Result::ok).map_or(0, |(header, _)| header.last_offset());
        let active = self.active();
        let too_large = active.size_bytes + bytes.len() as u64 > config.segment_bytes;
        let too_far = last_offset - active.base_offset > i64::from(i32::MAX);
        !active.is_empty() && (too_large || too_far || Self::is_old(active, &config, now_ms))
    }

    /// True if the segment is due by time.
    pub(super) fn is_old(active: &Segment, config: &LogConfig, now_ms: i64) -> bool {
        // The jitter is a fixed part of `segment.jitter.ms` for each segment, so that partitions made together do not roll together.
        let jitter = if config.segment_jitter_ms > 0 {
            (active.base_offset ^ active.first_append_ms).rem_euclid(config.segment_jitter_ms)
        } else {
            0
        };
        let lag_ms = if config.compact && config.max_compaction_lag_ms > 0 { config.max_compaction_lag_ms } else { i64::MAX };
        now_ms.saturating_sub(active.first_append_ms) > config.segment_ms.min(lag_ms).saturating_sub(jitter)
    }

    /// Closes the active segment and begins one at `base_offset`. The background completes the file.
    pub(super) fn roll(&mut self, base_offset: i64) {
        let snapshot = self.producers.snapshot(self.offsets.log_end);
        let last_append_ms = self.last_append_ms;
        let active = self.active();
        if active.max_timestamp_ms < 0 {
            active.first_append_ms = last_append_ms.max(active.first_append_ms);
        }
        active.phase = Phase::Closing;
        active.end_snapshot = Some(snapshot);
        self.segments.push_back(Segment::new(base_offset));
    }

    /// Records below the log start may be lost with the power if they were never synced: then the log goes on at its start.
    pub(super) fn skip_to_log_start(&mut self) {
        let log_start = self.offsets.log_start;
        if self.offsets.log_end >= log_start {
            return;
        }
        if self.active().is_empty() {
            self.segments.pop_back();
            self.segments.push_back(Segment::new(log_start));
        } else {
            self.roll(log_start);
        }
        self.offsets.log_end = log_start;
    }

    /// Append times go back only if the clock does: whoever took its time first may come last (recompression takes long), and takes it anew.
    fn keep_append_time_order(&mut self, valid: &mut ValidatedBatches, now_ms: i64) {
        if valid.log_append_time_ms >= 0 {
            if valid.log_append_time_ms < self.last_stamped_ms {
                valid.set_log_append_time(now_ms);
            }
            self.last_stamped_ms = valid.log_append_time_ms;
        }
    }

    /// Whether the acknowledgement waits for a sync, and whether to sync at once without that.
    fn flush_policy(&mut self, record_count: i64) -> (bool, bool) {
        let messages = self.config.flush_messages;
        if messages <= 1 {
            return (true, false);
        }
        self.unsynced_records = self.unsynced_records.saturating_add(record_count);
        let due = self.unsynced_records >= messages;
        if due {
            self.unsynced_records = 0;
        }
        (false, due)
    }

    /// Notes the WAL entry of the newest chunk.
    pub(super) fn queued(&mut self, sequence: u64) {
        self.last_sequence = sequence;
        self.first_uncovered.get_or_insert(sequence);
    }
}

/// The answer for a batch that is here already (I18), or an error if it is out of sequence or not part of an open transaction.
fn check_producers(state: &LogState, valid: &ValidatedBatches, origin: AppendOrigin) -> Result<Option<AppendInfo>, AppendError> {
    if let AppendOrigin::Marker { transaction_version } = origin {
        for (header, batch) in batches(&valid.records).map_while(Result::ok) {
            let marker = EndTxnMarker::from_batch(&header, batch).ok_or(AppendError::InvalidRecord("not a transaction marker"))?;
            state.producers.check_marker(&header, marker, transaction_version)?;
        }
        return Ok(None);
    }
    for header in &valid.headers {
        if let SequenceCheck::Duplicate { base_offset, last_offset, timestamp_ms } = state.producers.check(header)? {
            return Ok(Some(AppendInfo {
                first_offset: base_offset,
                last_offset,
                // The time of the batch that is here, as Kafka does whatever the timestamp type.
                log_append_time_ms: timestamp_ms,
                log_start_offset: state.offsets.log_start,
                duplicate: true,
            }));
        }
        state.producers.check_verified(header, origin.guard())?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn append_times_go_back_only_with_the_clock() {
        let config = Arc::new(LogConfig { log_append_time: true, ..LogConfig::default() });
        let mut state = LogState::empty(Arc::clone(&config), 0, 0);
        // The second took its time first and comes last; then the clock jumps and is put right (F38).
        for (validated_ms, now_ms, stamped_ms) in
            [(2_000, 2_001, 2_000), (1_000, 2_002, 2_002), (9_000, 9_001, 9_000), (3_000, 3_001, 3_001), (3_002, 3_003, 3_002)]
        {
            let mut valid = validate(crate::testing::batch(0, &[b"v"]), AppendOrigin::Client, &config, validated_ms).unwrap();
            state.keep_append_time_order(&mut valid, now_ms);
            let header = BatchHeader::parse(&valid.records).unwrap();
            assert_eq!((header.max_timestamp, valid.log_append_time_ms), (stamped_ms, stamped_ms));
            assert_eq!(valid.headers, [header]);
            assert_eq!(verify_crc(&valid.records), Ok(()));
        }
    }
}
