//! What the log knows of its producers: epochs, the last five batches each (for retries), open transactions, and the
//! aborted-transaction index (KIP-98). I8, I17, I18.
//!
//! # Overview
//! [`ProducerStates::check`] decides about a client's batch and changes nothing; [`ProducerStates::appended`] follows every batch that
//! went into the log, whoever wrote it. The rules are those of Kafka's `ProducerStateManager` and `ProducerAppendInfo`, but for one: a
//! producer id that this partition never saw must begin with sequence 0 (KAFKA-15591: else the second of two batches in flight can get in
//! before the first). A producer id that may have been here and expired is let in with any sequence, as in Kafka.
//!
//! # Crash consistency
//! The state is a function of the log: a snapshot at an offset plus `appended` for every batch from there on gives the state (I17).

mod marker;
mod verify;

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};

use crate::batch::{BatchHeader, NO_SEQUENCE, increment_sequence};
use crate::error::{AppendError, LogError};
use crate::sealed::{self, UnsealError};
pub use marker::EndTxnMarker;
pub use verify::VerificationGuard;
use verify::Verifications;

/// Producers remembered; above, those that wrote longest ago are forgotten: a client can have any number of ids (I42).
const PRODUCERS_MAX: usize = 10_000;
/// How many are forgotten at once.
const PRODUCERS_FORGOTTEN: usize = PRODUCERS_MAX / 8;
/// Batches remembered per producer: as many as a client may have in flight (`max.in.flight.requests.per.connection` of idempotent clients).
const BATCHES_KEPT: usize = 5;
/// No coordinator has written a marker.
const NO_COORDINATOR_EPOCH: i32 = -1;
/// In a snapshot: no open transaction.
const NO_OFFSET: i64 = -1;

const SNAPSHOT_MAGIC: [u8; 4] = *b"SSPS";
const SNAPSHOT_VERSION: u16 = 1;
/// Bytes of a snapshot's entry without batches.
const SNAPSHOT_ENTRY_LEN: usize = 31;

/// A finished, aborted transaction: records of `producer_id` in `[first_offset, last_offset]` are not for read_committed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortedTxn {
    /// The producer.
    pub producer_id: i64,
    /// First offset of the transaction in this partition.
    pub first_offset: i64,
    /// Offset of the abort marker.
    pub last_offset: i64,
    /// The last stable offset once this abort was written.
    pub last_stable_offset: i64,
}

/// What the check of a batch found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// Not idempotent, or in sequence: append it.
    Append,
    /// Already there: answer with these offsets and append nothing.
    Duplicate {
        /// The original first offset.
        base_offset: i64,
        /// The original last offset.
        last_offset: i64,
        /// The timestamp then, ms.
        timestamp_ms: i64,
    },
}

/// State of one producer, as DescribeProducers shows it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ProducerInfo {
    /// Id.
    pub producer_id: i64,
    /// Epoch.
    pub producer_epoch: i16,
    /// Last sequence; -1 if none.
    pub last_sequence: i32,
    /// Timestamp of its last batch, ms.
    pub last_timestamp_ms: i64,
    /// Epoch of the coordinator that wrote its last marker; -1 if none.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction.
    pub current_txn_start_offset: Option<i64>,
}

/// One of the last batches of a producer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct BatchMetadata {
    last_sequence: i32,
    last_offset: i64,
    offset_delta: i32,
    timestamp_ms: i64,
}

impl BatchMetadata {
    fn base_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }

    fn is(&self, header: &BatchHeader) -> bool {
        self.last_sequence == header.last_sequence() && self.offset_delta == header.last_offset_delta
    }
}

#[derive(Clone, Debug)]
struct ProducerEntry {
    epoch: i16,
    coordinator_epoch: i32,
    last_timestamp_ms: i64,
    txn_first_offset: Option<i64>,
    /// Oldest first.
    batches: VecDeque<BatchMetadata>,
    /// Wrote since the last call of `expire`: its record timestamps may be old, its retries are not.
    fresh: bool,
}

impl ProducerEntry {
    fn new(epoch: i16) -> Self {
        Self {
            epoch,
            coordinator_epoch: NO_COORDINATOR_EPOCH,
            last_timestamp_ms: -1,
            txn_first_offset: None,
            batches: VecDeque::new(),
            fresh: true,
        }
    }

    fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    fn next_sequence(&self) -> i32 {
        self.batches.back().map_or(0, |batch| increment_sequence(batch.last_sequence, 1))
    }

    fn enter_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct ProducerStates {
    producers: HashMap<i64, ProducerEntry>,
    /// Open transactions: first offset to producer.
    open: BTreeMap<i64, i64>,
    /// Ended transactions whose marker is not below the high watermark yet: first offset to marker's offset.
    unreplicated: BTreeMap<i64, i64>,
    /// The largest producer id that was ever forgotten, -1 if none: ids are handed out in rising order, so one above it is new here.
    max_expired_producer_id: i64,
    verifications: Verifications,
}

impl Default for ProducerStates {
    fn default() -> Self {
        Self {
            producers: HashMap::new(),
            open: BTreeMap::new(),
            unreplicated: BTreeMap::new(),
            max_expired_producer_id: -1,
            verifications: Verifications::default(),
        }
    }
}

/// The newest that a producer wrote, which compaction must not lose.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct LastRecord {
    /// Last offset of its newest batch in its epoch; `None` if there is only a marker.
    pub(crate) data_offset: Option<i64>,
    pub(crate) epoch: i16,
}

impl ProducerStates {
    /// The newest of each active producer.
    pub(crate) fn last_records(&self) -> HashMap<i64, LastRecord> {
        let last =
            |entry: &ProducerEntry| LastRecord { data_offset: entry.batches.back().map(|batch| batch.last_offset), epoch: entry.epoch };
        self.producers.iter().map(|(producer_id, entry)| (*producer_id, last(entry))).collect()
    }

    /// Checks a batch against what is known (sequence, epoch, transaction), changing nothing. Batches without a sequence, which
    /// coordinators write, are held to epoch and transaction only.
    ///
    /// # Errors
    /// [`AppendError::InvalidProducerEpoch`], [`AppendError::OutOfOrderSequence`], [`AppendError::InvalidTxnState`].
    pub fn check(&self, header: &BatchHeader) -> Result<SequenceCheck, AppendError> {
        if !header.has_producer_id() {
            return Ok(SequenceCheck::Append);
        }
        let Some(entry) = self.producers.get(&header.producer_id) else {
            let new_here = header.producer_id > self.max_expired_producer_id;
            return if header.base_sequence > 0 && new_here { Err(out_of_order(header, 0)) } else { Ok(SequenceCheck::Append) };
        };
        if header.base_sequence != NO_SEQUENCE
            && header.producer_epoch == entry.epoch
            && let Some(batch) = entry.batches.iter().find(|batch| batch.is(header))
        {
            return Ok(SequenceCheck::Duplicate {
                base_offset: batch.base_offset(),
                last_offset: batch.last_offset,
                timestamp_ms: batch.timestamp_ms,
            });
        }
        if header.producer_epoch < entry.epoch {
            return Err(AppendError::InvalidProducerEpoch { current: entry.epoch, got: header.producer_epoch });
        }
        if header.is_control() {
            return Ok(SequenceCheck::Append);
        }
        let expected = if header.producer_epoch == entry.epoch { entry.next_sequence() } else { 0 };
        if header.base_sequence != NO_SEQUENCE && header.base_sequence != expected {
            return Err(out_of_order(header, expected));
        }
        if entry.txn_first_offset.is_some() && !header.is_transactional() {
            return Err(AppendError::InvalidTxnState("a transaction is open: only transactional batches may follow"));
        }
        Ok(SequenceCheck::Append)
    }

    /// True if the producer's transaction of this epoch has begun here and not ended.
    fn has_open_transaction(&self, producer_id: i64, epoch: i16) -> bool {
        let entry = self.producers.get(&producer_id);
        entry.is_some_and(|entry| entry.txn_first_offset.is_some() && entry.epoch == epoch)
    }

    /// A guard for a transactional batch that would begin a transaction here, to be had before the coordinator is asked; `None` if the transaction
    /// is open already. `sequence` is the batch's first, -1 without; `bumps_epoch`: the client speaks transactions version 2 (KIP-890).
    pub fn begin_verification(
        &mut self,
        (producer_id, epoch): (i64, i16),
        sequence: i32,
        bumps_epoch: bool,
        now_ms: i64,
    ) -> Option<VerificationGuard> {
        let is_open = self.has_open_transaction(producer_id, epoch);
        (!is_open).then(|| self.verifications.begin((producer_id, epoch), sequence, bumps_epoch, now_ms))
    }

    /// Checks that a transactional batch belongs to a transaction that is open here, or that the coordinator was asked about with `guard`.
    ///
    /// # Errors
    /// [`AppendError::InvalidTxnState`], [`AppendError::OutOfOrderSequence`].
    pub fn check_verified(&self, header: &BatchHeader, guard: Option<VerificationGuard>) -> Result<(), AppendError> {
        if header.is_transactional() && header.has_producer_id() && !self.has_open_transaction(header.producer_id, header.producer_epoch) {
            let verified = guard.is_some_and(|guard| self.verifications.is_in_force(header.producer_id, guard));
            if !verified {
                return Err(AppendError::InvalidTxnState("record was not part of an ongoing transaction"));
            }
            let has_batches = self.producers.get(&header.producer_id).is_some_and(|entry| !entry.batches.is_empty());
            self.verifications.check_sequence(header, has_batches)?;
        }
        Ok(())
    }

    /// Checks a marker (I20). With transactions version 2 the coordinator raises the epoch before it writes markers: one that does not bring a newer
    /// epoch than the data is of an earlier transaction, unless nothing is open and it is the same marker again (KAFKA-19999).
    ///
    /// # Errors
    /// [`AppendError::InvalidProducerEpoch`], [`AppendError::CoordinatorFenced`].
    pub fn check_marker(&self, header: &BatchHeader, marker: EndTxnMarker, transaction_version: i16) -> Result<(), AppendError> {
        let Some(entry) = self.producers.get(&header.producer_id) else { return Ok(()) };
        let (current, got) = (entry.epoch, header.producer_epoch);
        let is_stale = transaction_version >= 2 && got == current && entry.txn_first_offset.is_some();
        if got < current || is_stale {
            return Err(AppendError::InvalidProducerEpoch { current, got });
        }
        if marker.coordinator_epoch < entry.coordinator_epoch {
            return Err(AppendError::CoordinatorFenced { current: entry.coordinator_epoch, got: marker.coordinator_epoch });
        }
        Ok(())
    }

    /// Takes note of an appended batch: client's or coordinator's. `marker` is that of a control batch: see [`EndTxnMarker::from_batch`].
    /// Returns the aborted transaction if the batch ended one so.
    pub fn appended(&mut self, header: &BatchHeader, marker: Option<EndTxnMarker>) -> Option<AbortedTxn> {
        if !header.has_producer_id() {
            return None;
        }
        if header.is_control() {
            let aborted = marker.and_then(|marker| self.transaction_ended(header, marker));
            self.forget_oldest(header.producer_id);
            return aborted;
        }
        let entry = self.producers.entry(header.producer_id).or_insert_with(|| ProducerEntry::new(header.producer_epoch));
        entry.enter_epoch(header.producer_epoch);
        entry.last_timestamp_ms = header.max_timestamp;
        entry.fresh = true;
        if header.base_sequence != NO_SEQUENCE {
            if entry.batches.len() == BATCHES_KEPT {
                entry.batches.pop_front();
            }
            entry.batches.push_back(BatchMetadata {
                last_sequence: header.last_sequence(),
                last_offset: header.last_offset(),
                offset_delta: header.last_offset_delta,
                timestamp_ms: header.max_timestamp,
            });
        }
        if header.is_transactional() {
            self.verifications.transaction_begun(header.producer_id);
            if entry.txn_first_offset.is_none() {
                entry.txn_first_offset = Some(header.base_offset);
                self.open.insert(header.base_offset, header.producer_id);
            }
        }
        self.forget_oldest(header.producer_id);
        None
    }

    fn transaction_ended(&mut self, header: &BatchHeader, marker: EndTxnMarker) -> Option<AbortedTxn> {
        self.verifications.transaction_ended(header.producer_id, header.producer_epoch);
        let entry = self.producers.entry(header.producer_id).or_insert_with(|| ProducerEntry::new(header.producer_epoch));
        entry.enter_epoch(header.producer_epoch);
        entry.coordinator_epoch = marker.coordinator_epoch;
        entry.last_timestamp_ms = header.max_timestamp;
        entry.fresh = true;
        // A marker without data before it changes nothing that a reader sees.
        let first_offset = entry.txn_first_offset.take()?;
        let last_offset = header.base_offset;
        self.open.remove(&first_offset);
        self.unreplicated.insert(first_offset, last_offset);
        let last_stable_offset = self.first_undecided_offset().unwrap_or(last_offset + 1);
        (!marker.commit).then_some(AbortedTxn { producer_id: header.producer_id, first_offset, last_offset, last_stable_offset })
    }

    /// First offset of the oldest open transaction.
    pub fn first_undecided_offset(&self) -> Option<i64> {
        self.open.keys().next().copied()
    }

    /// First offset of the oldest transaction that is open, or whose marker is not below the high watermark: the last stable offset
    /// is at most this (I19).
    pub fn first_unstable_offset(&self) -> Option<i64> {
        let unreplicated = self.unreplicated.keys().next().copied();
        self.first_undecided_offset().into_iter().chain(unreplicated).min()
    }

    /// Notes the high watermark: transactions whose marker lies below it hold the last stable offset back no more.
    pub fn high_watermark_moved(&mut self, high_watermark: i64) {
        self.unreplicated.retain(|_, marker_offset| *marker_offset >= high_watermark);
    }

    /// Forgets producers whose last batch is older than `expiration_ms`, with no open transaction and silent since the last call.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.verifications.expire(now_ms, expiration_ms);
        let max_expired = &mut self.max_expired_producer_id;
        self.producers.retain(|producer_id, entry| {
            let fresh = std::mem::take(&mut entry.fresh);
            let idle = now_ms.saturating_sub(entry.last_timestamp_ms) >= expiration_ms;
            let keep = fresh || !idle || entry.txn_first_offset.is_some();
            if !keep {
                *max_expired = (*max_expired).max(*producer_id);
            }
            keep
        });
    }

    /// Forgets those that wrote longest ago, once there are too many; none with an open transaction, and not `newest`. Depends on what is in the
    /// log alone, so that a replay forgets the same (I17).
    fn forget_oldest(&mut self, newest: i64) {
        if self.producers.len() <= PRODUCERS_MAX {
            return;
        }
        let idle = self.producers.iter().filter(|(id, entry)| **id != newest && entry.txn_first_offset.is_none());
        let mut idle: Vec<(i64, i64)> = idle.map(|(id, entry)| (entry.last_timestamp_ms, *id)).collect();
        idle.sort_unstable();
        for (_, producer_id) in idle.into_iter().take(PRODUCERS_FORGOTTEN) {
            self.producers.remove(&producer_id);
            self.max_expired_producer_id = self.max_expired_producer_id.max(producer_id);
        }
    }

    /// All active producers, by id.
    pub fn list(&self) -> Vec<ProducerInfo> {
        let mut list: Vec<_> = self
            .producers
            .iter()
            .map(|(&producer_id, entry)| ProducerInfo {
                producer_id,
                producer_epoch: entry.epoch,
                last_sequence: entry.last_sequence(),
                last_timestamp_ms: entry.last_timestamp_ms,
                coordinator_epoch: entry.coordinator_epoch,
                current_txn_start_offset: entry.txn_first_offset,
            })
            .collect();
        list.sort_unstable_by_key(|info| info.producer_id);
        list
    }

    /// The versioned, checksummed snapshot (golden file) of the state as of `offset`. Equal states give equal bytes.
    pub fn snapshot(&self, offset: i64) -> Bytes {
        let mut entries: Vec<_> = self.producers.iter().collect();
        entries.sort_unstable_by_key(|(producer_id, _)| **producer_id);
        sealed::seal(SNAPSHOT_MAGIC, SNAPSHOT_VERSION, |out| {
            out.put_i64(offset);
            out.put_i64(self.max_expired_producer_id);
            out.put_u32(u32::try_from(entries.len()).unwrap_or(u32::MAX));
            for (producer_id, entry) in entries {
                out.put_i64(*producer_id);
                out.put_i16(entry.epoch);
                out.put_i32(entry.coordinator_epoch);
                out.put_i64(entry.last_timestamp_ms);
                out.put_i64(entry.txn_first_offset.unwrap_or(NO_OFFSET));
                out.put_u8(u8::try_from(entry.batches.len()).unwrap_or(u8::MAX));
                for batch in &entry.batches {
                    out.put_i32(batch.last_sequence);
                    out.put_i64(batch.last_offset);
                    out.put_i32(batch.offset_delta);
                    out.put_i64(batch.timestamp_ms);
                }
            }
        })
    }

    /// From a snapshot: the state and its offset.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if it is not exactly what [`ProducerStates::snapshot`] wrote.
    pub fn load(snapshot: &[u8]) -> Result<(Self, i64), LogError> {
        let corrupt = |error: UnsealError| LogError::Corrupt { path: "producer snapshot".to_owned(), reason: error.to_string() };
        sealed::unseal(SNAPSHOT_MAGIC, SNAPSHOT_VERSION, snapshot).and_then(load_body).map_err(corrupt)
    }
}

fn out_of_order(header: &BatchHeader, expected: i32) -> AppendError {
    AppendError::OutOfOrderSequence { producer_id: header.producer_id, expected, got: header.base_sequence }
}

fn load_body(mut body: &[u8]) -> Result<(ProducerStates, i64), UnsealError> {
    let offset = body.try_get_i64()?;
    let mut states = ProducerStates { max_expired_producer_id: body.try_get_i64()?, ..ProducerStates::default() };
    let count = usize::try_from(body.try_get_u32()?).unwrap_or(usize::MAX);
    if count > body.len() / SNAPSHOT_ENTRY_LEN {
        return Err(UnsealError::Truncated);
    }
    states.producers.reserve(count);
    for _ in 0..count {
        let (producer_id, entry) = load_entry(&mut body)?;
        if let Some(first_offset) = entry.txn_first_offset
            && states.open.insert(first_offset, producer_id).is_some()
        {
            return Err(UnsealError::Invalid("two transactions begin at one offset"));
        }
        if states.producers.insert(producer_id, entry).is_some() {
            return Err(UnsealError::Invalid("a producer id occurs twice"));
        }
    }
    if body.is_empty() { Ok((states, offset)) } else { Err(UnsealError::Invalid("bytes after the last entry")) }
}

fn load_entry(body: &mut &[u8]) -> Result<(i64, ProducerEntry), UnsealError> {
    let producer_id = body.try_get_i64()?;
    let mut entry = ProducerEntry::new(body.try_get_i16()?);
    entry.coordinator_epoch = body.try_get_i32()?;
    entry.last_timestamp_ms = body.try_get_i64()?;
    let first_offset = body.try_get_i64()?;
    entry.txn_first_offset = (first_offset >= 0).then_some(first_offset);
    let batches = usize::from(body.try_get_u8()?);
    if batches > BATCHES_KEPT {
        return Err(UnsealError::Invalid("more batches than are kept"));
    }
    for _ in 0..batches {
        let batch = BatchMetadata {
            last_sequence: body.try_get_i32()?,
            last_offset: body.try_get_i64()?,
            offset_delta: body.try_get_i32()?,
            timestamp_ms: body.try_get_i64()?,
        };
        if batch.last_sequence < 0 || batch.offset_delta < 0 || batch.last_offset < i64::from(batch.offset_delta) {
            return Err(UnsealError::Invalid("impossible batch"));
        }
        entry.batches.push_back(batch);
    }
    Ok((producer_id, entry))
}

#[cfg(test)]
mod tests;
