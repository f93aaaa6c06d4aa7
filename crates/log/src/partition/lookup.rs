//! Looking things up: offsets by time, aborted transactions.

use std::io;
use std::sync::Arc;

use super::read::{check_range, load};
use super::{LogRead, PartitionLog};
use crate::batch::{BatchHeader, Compression, batches};
use crate::error::ReadError;
use crate::index::{decode_aborted, position_for_timestamp};
use crate::producers::AbortedTxn;
use crate::records::{inflate, records};
use crate::segment::{FileKind, Segment, SegmentName, read_whole};
use crate::validate::INFLATED_BYTES_MAX;

/// Bytes read at once while batches are looked through.
const SCAN_BYTES: usize = 256 << 10;

/// Timestamp, offset and leader epoch of a record.
type Found = (i64, i64, i32);

impl PartitionLog {
    /// Aborted transactions that overlap `[from, to)`, from local segments. Blocks on the disk.
    ///
    /// # Errors
    /// [`ReadError::NotLocal`] and [`ReadError::OutOfRange`] if the segments do not reach down to `from` any more, [`ReadError::Io`] and
    /// [`ReadError::Corrupt`].
    pub fn aborted_transactions(&self, from: i64, to: i64) -> Result<Vec<AbortedTxn>, ReadError> {
        let (aborted, _) = self.aborted_and_cleanings(from, to)?;
        Ok(aborted)
    }

    /// Aborted transactions that overlap `from` and what was read from there on. `None` if compaction exchanged segments since: data and list
    /// must be of one state of the log, so the data has to be read again. Blocks on the disk.
    ///
    /// # Errors
    /// As [`PartitionLog::aborted_transactions`].
    pub fn aborted_in(&self, from: i64, read: &LogRead) -> Result<Option<Vec<AbortedTxn>>, ReadError> {
        match self.aborted_and_cleanings(from, read.next_offset) {
            Ok((aborted, cleanings)) => Ok((cleanings == read.cleanings).then_some(aborted)),
            // A segment went meanwhile.
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// True if [`PartitionLog::aborted_in`] may have to look into files.
    pub fn aborted_are_on_disk(&self, from: i64) -> bool {
        self.state.lock().segments.iter().any(|segment| segment.has_aborts && segment.is_sealed() && segment.end_offset > from)
    }

    fn aborted_and_cleanings(&self, from: i64, to: i64) -> Result<(Vec<AbortedTxn>, u64), ReadError> {
        let (cleanings, names, in_memory) = {
            let state = self.state.lock();
            if state.segments.front().is_some_and(|first| first.base_offset > from) {
                // Retention passed: what the segments that went had to say is in the bucket.
                check_range(&state, from)?;
            }
            let with_aborts = || state.segments.iter().filter(|segment| segment.has_aborts && segment.end_offset > from);
            let names: Vec<SegmentName> = with_aborts().filter(|segment| segment.is_sealed()).map(Segment::name).collect();
            let in_memory: Vec<AbortedTxn> =
                with_aborts().filter(|segment| !segment.is_sealed()).flat_map(|segment| segment.aborted.iter().copied()).collect();
            (state.cleanings, names, in_memory)
        };
        let mut found = Vec::new();
        // True once nothing later can overlap: all that is aborted behind such an entry began at or above its last stable offset.
        let mut take = |aborted: &[AbortedTxn]| {
            found.extend(aborted.iter().filter(|txn| txn.first_offset < to && txn.last_offset >= from));
            aborted.iter().any(|txn| txn.last_stable_offset >= to)
        };
        for name in names {
            if take(&self.aborted_on_disk(name)?) {
                return Ok((found, cleanings));
            }
        }
        take(&in_memory);
        Ok((found, cleanings))
    }

    pub(super) fn aborted_on_disk(&self, name: SegmentName) -> Result<Arc<Vec<AbortedTxn>>, ReadError> {
        self.shared.files.aborted(self.id, name, || {
            let path = self.path(name, FileKind::Aborted);
            let read = read_whole(self.shared.env.fs.as_ref(), &path).map_err(|error| error.to_string());
            match read.and_then(|bytes| decode_aborted(&bytes).map_err(|error| error.to_string())) {
                Ok(aborted) => Ok(aborted),
                Err(error) => Ok(self.rebuild(name, &format!("{}: {error}", path.display()))?.aborted),
            }
        })
    }

    /// The first record at or above `from` with a timestamp >= `timestamp_ms`: (timestamp, offset, leader epoch). Local part only. Blocks.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn offset_for_timestamp(&self, timestamp_ms: i64, from: i64) -> Result<Option<Found>, ReadError> {
        self.find_timestamp(timestamp_ms, from, 3)
    }

    fn find_timestamp(&self, timestamp_ms: i64, from: i64, retries: u32) -> Result<Option<Found>, ReadError> {
        let candidates: Vec<Segment> = {
            let state = self.state.lock();
            let fits = |segment: &&Segment| segment.end_offset > from && segment.max_timestamp_ms >= timestamp_ms;
            state.segments.iter().filter(fits).cloned().collect()
        };
        for segment in candidates {
            match self.first_since(&segment, timestamp_ms, from) {
                Ok(None) => {}
                // Cleaned or removed meanwhile: look again.
                Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound && retries > 0 => {
                    return self.find_timestamp(timestamp_ms, from, retries - 1);
                }
                found => return found,
            }
        }
        Ok(None)
    }

    /// The first record with the largest timestamp of the local part: (timestamp, offset, leader epoch). Blocks.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn max_timestamp(&self) -> Result<Option<Found>, ReadError> {
        let (largest, from) = {
            let state = self.state.lock();
            let largest = state.segments.iter().map(|segment| segment.max_timestamp_ms).max().unwrap_or(-1);
            (largest, state.offsets.local_start)
        };
        if largest < 0 { Ok(None) } else { self.offset_for_timestamp(largest, from) }
    }

    fn first_since(&self, segment: &Segment, timestamp_ms: i64, from: i64) -> Result<Option<Found>, ReadError> {
        let in_memory = (!segment.index.is_empty()).then(|| Arc::new(segment.index.clone()));
        let index = match in_memory {
            Some(index) if segment.indexed_bytes == 0 => index,
            Some(index) if index[0].max_timestamp_ms < timestamp_ms => index,
            _ if segment.indexed_bytes > 0 => self.index_on_disk(segment.name())?,
            _ => Arc::new(Vec::new()),
        };
        let position = position_for_timestamp(&index, timestamp_ms);
        let indexed = index.partition_point(|entry| entry.position <= position).checked_sub(1).and_then(|at| index.get(at));
        let mut next = indexed.map_or(segment.base_offset, |entry| entry.offset).max(from);
        while next < segment.end_offset {
            let read = self.read(next, SCAN_BYTES, true, segment.end_offset)?;
            if read.size_bytes == 0 {
                return Ok(None);
            }
            next = read.next_offset;
            if let Some(found) = self.first_in(&read, timestamp_ms, from)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first record of what was read that is late enough.
    fn first_in(&self, read: &LogRead, timestamp_ms: i64, from: i64) -> Result<Option<Found>, ReadError> {
        let mut bytes = Vec::new();
        for slice in &read.slices {
            bytes.clear();
            load(slice, &mut bytes)?;
            for batch in batches(&bytes) {
                let (header, batch) = batch.map_err(|error| ReadError::Corrupt { offset: read.next_offset, reason: error.to_string() })?;
                if header.max_timestamp < timestamp_ms || header.next_offset() <= from {
                    continue;
                }
                // One at a time: each may need all the memory that a batch may inflate to (I42).
                let _turn = (header.compression() != Ok(Compression::None)).then(|| self.shared.inflating.lock());
                if let Some(found) = first_in_batch(&header, batch, timestamp_ms, from)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }
}

fn first_in_batch(header: &BatchHeader, batch: &[u8], timestamp_ms: i64, from: i64) -> Result<Option<Found>, ReadError> {
    let has_all = i64::from(header.record_count) == i64::from(header.last_offset_delta) + 1;
    if header.is_log_append_time() && has_all {
        return Ok(Some((header.max_timestamp, header.base_offset.max(from), header.partition_leader_epoch)));
    }
    let corrupt = |error: crate::batch::BatchError| ReadError::Corrupt { offset: header.base_offset, reason: error.to_string() };
    let body = inflate(header, batch, INFLATED_BYTES_MAX).map_err(corrupt)?;
    for record in records(header, &body) {
        let record = record.map_err(corrupt)?;
        if record.timestamp_ms >= timestamp_ms && record.offset >= from {
            return Ok(Some((record.timestamp_ms, record.offset, header.partition_leader_epoch)));
        }
    }
    Ok(None)
}
