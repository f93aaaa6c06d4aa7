//! Rolling by time, uploads, retention, truncation: what changes segments besides appends and flushes.

use std::sync::Arc;

use bytes::Bytes;
use siltstone_common::fault;
use siltstone_common::fs::OpenMode;

use super::PartitionLog;
use super::flush::IoState;
use super::state::LogState;
use crate::epochs::{EpochEntry, LeaderEpochCache};
use crate::error::{LogError, ReadError};
use crate::manifest::record::{PartitionRecord, Record, SegmentRecord};
use crate::producers::ProducerStates;
use crate::segment::{FileKind, Phase, SealedSegment, Segment, SegmentName, Walker, read_whole};

/// An active segment smaller than this is not saved at a clean stop.
const SAVE_BYTES_MIN: u64 = if cfg!(test) { 1 << 10 } else { 1 << 20 };

impl PartitionLog {
    /// Raises the log start (DeleteRecords, retention): durable before it returns. Blocks.
    ///
    /// # Errors
    /// [`LogError::Io`] and [`LogError::Offline`]; the log start stays then, but a restart may find it raised.
    pub fn raise_log_start(&self, offset: i64) -> Result<(), LogError> {
        let _io = self.io.lock();
        let offset = {
            let mut state = self.state.lock();
            let offset = offset.min(state.offsets.log_end);
            if offset <= state.offsets.log_start {
                let unrecorded = state.unrecorded;
                drop(state);
                return if unrecorded { self.record_in_manifest() } else { Ok(()) };
            }
            state.durable_log_start = offset;
            state.recorded = true;
            offset
        };
        self.record_in_manifest()?;
        let mut state = self.state.lock();
        state.set_log_start(offset);
        state.epochs.truncate_from_start(offset);
        self.publish(&state);
        Ok(())
    }

    /// Seals the active segment if it is due by time (`segment.ms`, from the first record's append), or at once with `force`. Empty segments never roll. Blocks.
    ///
    /// # Errors
    /// [`LogError::Io`] and [`LogError::Offline`].
    pub fn roll(&self, force: bool) -> Result<bool, LogError> {
        {
            let mut state = self.state.lock();
            let config = Arc::clone(&state.config);
            let now_ms = self.shared.env.clock.now_ms();
            let active = state.active();
            if active.is_empty() || !(force || LogState::is_old(active, &config, now_ms)) {
                return Ok(false);
            }
            let log_end = state.offsets.log_end;
            state.roll(log_end);
        }
        self.shared.checkpoint(&[self.me()?])?;
        Ok(true)
    }

    /// True if [`PartitionLog::roll`] has something to seal by time. Does not block.
    pub fn is_roll_due(&self) -> bool {
        let mut state = self.state.lock();
        let (config, now_ms) = (Arc::clone(&state.config), self.shared.env.clock.now_ms());
        let active = state.active();
        !active.is_empty() && LogState::is_old(active, &config, now_ms)
    }

    /// Sealed segments with `base_offset >= from` that lie wholly below min(high watermark, last stable offset) (I22), oldest first, at most `limit`. Blocks.
    ///
    /// # Errors
    /// [`LogError::Io`] and [`LogError::Corrupt`].
    pub fn uploadable(&self, from: i64, limit: usize) -> Result<Vec<SealedSegment>, LogError> {
        let (segments, epochs) = {
            let state = self.state.lock();
            let bound = state.offsets.high_watermark.min(state.offsets.last_stable);
            let ready = |segment: &&Segment| segment.phase == Phase::Durable && segment.base_offset >= from && segment.end_offset <= bound;
            let segments: Vec<Segment> = state.segments.iter().filter(ready).take(limit).cloned().collect();
            (segments, state.epochs.clone())
        };
        segments.iter().map(|segment| self.sealed_segment(segment, &epochs)).collect()
    }

    fn sealed_segment(&self, segment: &Segment, epochs: &LeaderEpochCache) -> Result<SealedSegment, LogError> {
        let fs = self.shared.env.fs.as_ref();
        let log_path = self.path(segment.name(), FileKind::Log);
        let last_offset = segment.end_offset - 1;
        let failed = |error: ReadError| error.into_log_error(&log_path);
        let index = self.index_on_disk(segment.name()).map_err(failed)?;
        let mut aborted = self.aborted_transactions(segment.base_offset, segment.end_offset).map_err(failed)?;
        if segment.generation > 0 && !aborted.is_empty() {
            self.keep_present(segment, &mut aborted).map_err(failed)?;
        }
        let producer_snapshot = self.snapshot_on_disk(segment).map_err(failed)?;
        Ok(SealedSegment {
            generation: segment.generation,
            base_offset: segment.base_offset,
            last_offset,
            max_timestamp_ms: segment.max_timestamp_ms,
            appended_ms: segment.first_append_ms,
            size_bytes: segment.size_bytes,
            file: fs.open(&log_path, OpenMode::Read).map_err(|error| LogError::io(&log_path, error))?,
            index: index.to_vec(),
            aborted,
            producer_snapshot,
            leader_epochs: epochs.slice(segment.base_offset, last_offset),
        })
    }

    /// Producer state at the end of a sealed segment.
    fn snapshot_on_disk(&self, segment: &Segment) -> Result<Bytes, ReadError> {
        let path = self.path(segment.end_offset, FileKind::Snapshot);
        let read = read_whole(self.shared.env.fs.as_ref(), &path).map_err(|error| error.to_string());
        let checked = read.and_then(|bytes| match ProducerStates::load(&bytes) {
            Ok((_, offset)) if offset == segment.end_offset => Ok(bytes),
            Ok((_, offset)) => Err(format!("it is of offset {offset}")),
            Err(error) => Err(error.to_string()),
        });
        match checked {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Ok(self.rebuild(segment.name(), &format!("{}: {error}", path.display()))?.snapshot),
        }
    }

    /// Removes sealed segments whose last offset is below `offset` from the local disk; the caller has made sure that they are committed
    /// remotely or below the log start (I26). Returns bytes freed. Blocks.
    ///
    /// # Errors
    /// [`LogError::Io`] and [`LogError::Offline`]; the files are then removed by the background.
    pub fn delete_local_below(&self, offset: i64) -> Result<u64, LogError> {
        let mut io = self.io.lock();
        {
            let mut state = self.state.lock();
            while let Some(first) = state.segments.pop_front_if(|first| first.phase == Phase::Durable && first.end_offset <= offset) {
                io.doomed.push(first);
            }
            state.offsets.local_start = state.local_start();
            let (local_start, written_end) = (state.offsets.local_start, state.written_end);
            state.tail.evict(local_start, written_end);
            self.publish(&state);
        }
        if io.doomed.is_empty() {
            return Ok(0);
        }
        let freed_bytes = io.doomed.iter().map(|segment| segment.size_bytes).sum();
        self.record_in_manifest()?;
        self.remove_doomed_files(&mut io, "retention.recorded")?;
        Ok(freed_bytes)
    }

    /// Tries again to remove the files of segments that are no longer part of the log. Blocks.
    pub(crate) fn remove_doomed(&self) -> Result<(), LogError> {
        let mut io = self.io.lock();
        if io.doomed.is_empty() {
            return Ok(());
        }
        // What the manifest has may be older than the list.
        self.record_in_manifest()?;
        self.remove_doomed_files(&mut io, "doomed.recorded")
    }

    /// Removes the files of segments that are no longer part of the log, once the manifest does not have them any more; what fails is tried again
    /// by the background. `point` is the fail point before.
    pub(super) fn remove_doomed_files(&self, io: &mut IoState, point: &str) -> Result<(), LogError> {
        let mut remove = || {
            fault::point(point).map_err(|error| LogError::io(&self.dir(), error))?;
            while let Some(segment) = io.doomed.last() {
                self.remove_files(segment)?;
                io.doomed.pop();
            }
            Ok(())
        };
        let removed = remove();
        if let (Err(_), Ok(me)) = (&removed, self.me()) {
            self.shared.flusher.try_again(&me);
        }
        removed
    }

    /// Removes everything at or above `offset` (I15). A batch that straddles it goes as a whole. Blocks.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn truncate_to(&self, offset: i64) -> Result<(), LogError> {
        let mut io = self.io.lock();
        loop {
            // What stays has to be synced before the WAL's entries for it become void.
            self.sync_and_seal_locked(&mut io)?;
            let Some((record, cut, log_end)) = self.record_cut_at(offset)? else {
                return Ok(());
            };
            let config = Arc::clone(&self.state.lock().config);
            let fresh = super::open::state_from_record(&self.shared, self.id, config, &record)?;
            if !self.replace_state(fresh, &mut io, |state| state.offsets.log_end == log_end) {
                continue;
            }
            self.record_in_manifest()?;
            if let Some((name, len)) = cut {
                let path = self.path(name, FileKind::Log);
                let cut = || self.shared.env.fs.open(&path, OpenMode::ReadWrite)?.set_len(len);
                cut().map_err(|error| self.shared.failed(&path, error))?;
            }
            return self.remove_doomed_files(&mut io, "truncate.recorded");
        }
    }

    /// The record of the log cut at `offset`, name and new length of the segment that is cut, and the log end that this
    /// was taken at. `None` if nothing lies above.
    fn record_cut_at(&self, offset: i64) -> Result<Option<CutRecord>, LogError> {
        let (mut record, segment, log_end) = {
            let mut state = self.state.lock();
            let log_end = state.offsets.log_end;
            if offset >= log_end {
                return Ok(None);
            }
            state.recorded = true;
            let Some(mut record) = state.record(self.id) else {
                return Ok(None);
            };
            record.covered_sequence = state.last_sequence;
            let segment = state.segments.iter().find(|segment| segment.end_offset > offset).cloned();
            (record, segment, log_end)
        };
        let Some(segment) = segment else {
            return Ok(None);
        };
        record.segments.retain(|known| known.base_offset < segment.base_offset);
        let (len, end_offset) = self.length_below(&segment, offset)?;
        if len > 0 {
            let kept = Segment { generation: segment.generation, ..Segment::new(segment.base_offset) };
            let kept = Segment { size_bytes: len, synced_bytes: len, synced_end: end_offset, ..kept };
            record.segments.push(SegmentRecord { first_append_ms: segment.first_append_ms, ..kept.record() });
        }
        record.end_offset = if len > 0 { end_offset } else { segment.base_offset.min(offset) };
        record.log_start = record.log_start.min(record.end_offset);
        if record.snapshot_offset > record.end_offset {
            record.snapshot_offset = self.snapshot_at_or_below(record.end_offset);
        }
        record.epochs.retain(|entry| entry.start_offset < record.end_offset);
        record.cleaned_end = record.cleaned_end.min(record.end_offset);
        let cut = (len > 0).then_some((segment.name(), len));
        Ok(Some((record, cut, log_end)))
    }

    /// Length and end offset of the batches of a (written) segment that lie wholly below `offset`.
    fn length_below(&self, segment: &Segment, offset: i64) -> Result<(u64, i64), LogError> {
        let path = self.path(segment.name(), FileKind::Log);
        if offset <= segment.base_offset || segment.is_empty() {
            return Ok((0, segment.base_offset));
        }
        let file = self.shared.env.fs.open(&path, OpenMode::Read).map_err(|error| LogError::io(&path, error))?;
        let mut walker = Walker::new(file, segment.written_bytes);
        let (mut position, mut end_offset) = (0, segment.base_offset);
        while let Some(header) = walker.header_at(position, offset).map_err(|error| error.into_log_error(&path))? {
            if header.next_offset() > offset {
                break;
            }
            position += header.total_len() as u64;
            end_offset = header.next_offset();
        }
        Ok((position, end_offset))
    }

    /// Offset of the newest snapshot file that is not above `offset`; -1 if there is none.
    fn snapshot_at_or_below(&self, offset: i64) -> i64 {
        let offsets: Vec<i64> = {
            let state = self.state.lock();
            let sealed_ends = state.segments.iter().filter(|segment| segment.is_sealed()).map(|segment| segment.end_offset);
            sealed_ends.chain(state.segments.front().map(|first| first.base_offset)).collect()
        };
        let there = |at: &i64| *at <= offset && self.shared.env.fs.exists(&self.path(*at, FileKind::Snapshot));
        offsets.into_iter().filter(there).max().unwrap_or(-1)
    }

    /// Puts `fresh` in place of the state, if `may` still says so of that; the files of segments that it does not have are to go.
    fn replace_state(&self, fresh: LogState, io: &mut IoState, may: impl FnOnce(&LogState) -> bool) -> bool {
        let mut state = self.state.lock();
        if !may(&state) {
            return false;
        }
        let old = std::mem::replace(&mut *state, fresh);
        state.incarnation = old.incarnation + 1;
        state.cleanings = old.cleanings + 1;
        state.last_sequence = old.last_sequence;
        state.covered_sequence = old.last_sequence;
        state.first_uncovered = old.first_uncovered;
        state.recorded = true;
        state.offsets.ack_end = state.offsets.log_end.min(old.offsets.ack_end);
        state.raise_high_watermark(old.offsets.high_watermark);
        self.publish(&state);
        let kept = |segment: &Segment| state.segments.iter().any(|other| other.base_offset == segment.base_offset && !other.is_empty());
        for segment in &old.segments {
            self.shared.files.forget(self.id, segment.name());
        }
        io.doomed.extend(old.segments.into_iter().filter(|segment| !kept(segment)));
        true
    }

    /// True if the log reaches `offset` with a record of the last of `epochs` before it: then all before is the same, too (I16).
    pub fn reaches(&self, offset: i64, epochs: &[EpochEntry]) -> bool {
        self.state.lock().reaches(offset, epochs.last().map(|entry| entry.epoch))
    }

    /// Forgets all local data and starts anew at `offset`, with epochs and producer state from the remote tier (I32). `log_start` is the first
    /// offset that exists remotely. A log that reaches `offset` in the same epoch already stays as it is: who asked for this may be gone, and
    /// another have done it and gone on since. Blocks.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn reset_to(&self, log_start: i64, offset: i64, epochs: Vec<EpochEntry>, producer_snapshot: &[u8]) -> Result<(), LogError> {
        let mut io = self.io.lock();
        let last_epoch = epochs.last().map(|entry| entry.epoch);
        let reaches = |state: &LogState| state.deleted || state.reaches(offset, last_epoch);
        let (is_done, unrecorded) = {
            let state = self.state.lock();
            (reaches(&state), state.unrecorded)
        };
        if is_done {
            return if unrecorded { self.record_in_manifest() } else { Ok(()) };
        }
        let producers = match producer_snapshot {
            [] => ProducerStates::default(),
            snapshot => ProducerStates::load(snapshot)?.0,
        };
        let mut fresh = LogState::empty(Arc::clone(&self.state.lock().config), offset, 0);
        if !producers.list().is_empty() {
            self.write_file(offset, FileKind::Snapshot, &producers.snapshot(offset), &mut io)?;
            self.sync_names(&mut io)?;
            fresh.snapshot_offset = offset;
        }
        fresh.unrecorded = true;
        fresh.producers = producers;
        fresh.epochs = LeaderEpochCache::from_entries(epochs);
        fresh.durable_log_start = log_start;
        fresh.set_log_start(log_start);
        if !self.replace_state(fresh, &mut io, |state| !reaches(state)) {
            return Ok(());
        }
        self.record_in_manifest()?;
        self.remove_doomed_files(&mut io, "reset.recorded")
    }

    /// Appends the partition's record to the manifest.
    pub(crate) fn record_in_manifest(&self) -> Result<(), LogError> {
        let mut written = None;
        let appended = self.shared.append_manifest(&mut |out| {
            written = self.state.lock().record(self.id);
            out.extend(written.clone().map(Record::Partition));
        });
        if let (Err(_), Ok(me)) = (&appended, self.me()) {
            self.shared.flusher.try_again(&me);
        }
        appended?;
        if let Some(record) = &written {
            self.recorded(record);
        }
        Ok(())
    }

    /// Removes the files of a segment that is no longer part of the log, and the producer snapshots at its ends unless the log has a use for them:
    /// what is here gives the state only from where it now begins on (I17). They may be missing.
    fn remove_files(&self, segment: &Segment) -> Result<(), LogError> {
        self.shared.files.forget(self.id, segment.name());
        let beside = [FileKind::Log, FileKind::Index, FileKind::Aborted].map(|kind| self.path(segment.name(), kind));
        let is_kept = |at: &i64| self.state.lock().needs_snapshot(*at);
        let snapshots = [segment.base_offset, segment.end_offset].into_iter().filter(|at| !is_kept(at));
        for path in beside.into_iter().chain(snapshots.map(|at| self.path(at, FileKind::Snapshot))) {
            match self.shared.env.fs.remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(LogError::io(&path, error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses appends and flushes from now on. Whoever still has the log in hand changes nothing on the disk any more: its directory goes.
    pub(crate) fn mark_deleted(&self) {
        let mut io = self.io.lock();
        *io = IoState::default();
        let mut state = self.state.lock();
        state.deleted = true;
        state.incarnation += 1;
        state.tail.clear();
        for segment in &state.segments {
            self.shared.files.forget(self.id, segment.name());
        }
    }

    /// For a clean stop: writes index and producer snapshot of the active segment, so that the next start need not read its headers. A small
    /// one is read faster than it is saved. Blocks.
    pub(crate) fn save_active(&self) -> Result<(), LogError> {
        let mut io = self.io.lock();
        let (active, log_end, snapshot) = {
            let state = self.state.lock();
            let Some(active) = state.segments.back().cloned() else {
                return Ok(());
            };
            let log_end = state.offsets.log_end;
            let is_saved = active.indexed_bytes == active.size_bytes && state.snapshot_offset == log_end;
            if state.deleted || is_saved || active.size_bytes < SAVE_BYTES_MIN {
                return Ok(());
            }
            (active, log_end, state.producers.snapshot(log_end))
        };
        self.write_index_files(&active, &mut io)?;
        self.write_file(log_end, FileKind::Snapshot, &snapshot, &mut io)?;
        self.sync_names(&mut io)?;
        let mut state = self.state.lock();
        state.snapshot_offset = log_end;
        if let Some(last) = state.segments.back_mut() {
            last.indexed_bytes = last.size_bytes;
        }
        Ok(())
    }

    pub(super) fn me(&self) -> Result<Arc<PartitionLog>, LogError> {
        self.me.upgrade().ok_or_else(|| LogError::Offline("the log is closed".to_owned()))
    }
}

/// The record of a log that was cut; name and length of the segment that is cut; the log end before.
type CutRecord = (PartitionRecord, Option<(SegmentName, u64)>, i64);
