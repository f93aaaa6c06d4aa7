//! From the tail to segment files: writes, syncs, sealing. All under the `io` lock.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use siltstone_common::fault;
use siltstone_common::fs::{File, OpenMode};

use super::PartitionLog;
use crate::error::LogError;
use crate::index::{encode_aborted, encode_index};
use crate::manifest::record::PartitionRecord;
use crate::segment::{FileKind, Phase, Segment, SegmentName, path_of};
use crate::shared::segments_dir;

/// Most that goes into one write.
const WRITE_BYTES_MAX: usize = 8 << 20;

/// What the `io` lock guards besides the files themselves.
#[derive(Debug, Default)]
pub(super) struct IoState {
    dir_known: bool,
    names_changed: bool,
    /// Segments that are no longer part of the log and whose files are to be removed.
    pub(super) doomed: Vec<Segment>,
}

/// Part of the tail on its way into a segment file.
struct Piece {
    name: SegmentName,
    position: u64,
    chunks: Vec<Bytes>,
    end_offset: i64,
}

/// How far a log was synced.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Synced {
    incarnation: u64,
    end_offset: i64,
}

/// A segment with something to sync or to seal.
struct Unsealed {
    name: SegmentName,
    written_bytes: u64,
    written_end: i64,
    needs_sync: bool,
    complete: bool,
}

impl PartitionLog {
    /// Writes what of the tail is not in segment files yet, without a sync. Blocks.
    pub(crate) fn flush(&self) -> Result<(), LogError> {
        self.write_tail(&mut self.io.lock())
    }

    /// Writes and syncs the tail and seals what was rolled: the manifest may then say so. Blocks.
    pub(crate) fn sync_and_seal(&self) -> Result<(), LogError> {
        self.flush_requested.store(false, Ordering::Release);
        self.sync_and_seal_locked(&mut self.io.lock()).map(drop)
    }

    /// What was appended until it was called is then in synced segment files.
    pub(super) fn sync_and_seal_locked(&self, io: &mut IoState) -> Result<Synced, LogError> {
        let (incarnation, target_end, target_sequence) = {
            let state = self.state.lock();
            (state.incarnation, state.offsets.log_end, state.last_sequence)
        };
        self.write_tail(io)?;
        for unsealed in self.unsealed() {
            if unsealed.needs_sync {
                self.sync_segment(&unsealed)?;
            }
            if unsealed.complete {
                self.seal(unsealed.name.base_offset, io)?;
            }
        }
        self.sync_names(io)?;
        let mut state = self.state.lock();
        let synced_end = state.segments.iter().find(|segment| !segment.is_sealed()).map_or(state.offsets.log_end, |open| open.synced_end);
        if synced_end >= target_end {
            state.covered_sequence = state.covered_sequence.max(target_sequence);
        }
        Ok(Synced { incarnation, end_offset: synced_end.min(target_end) })
    }

    /// For a clean stop, once appends are refused: everything into synced files, with what makes the next start fast. Blocks.
    pub(crate) fn sync_for_close(&self) -> Result<Synced, LogError> {
        let synced = self.sync_and_seal_locked(&mut self.io.lock())?;
        self.save_active()?;
        Ok(synced)
    }

    /// What `synced` covers is acknowledged: to be called once the manifest has it.
    pub(crate) fn acknowledge(&self, synced: Synced) {
        self.committed(synced.incarnation, synced.end_offset);
    }

    /// Makes the names of new files durable, before the manifest refers to them (I39).
    pub(super) fn sync_names(&self, io: &mut IoState) -> Result<(), LogError> {
        if io.names_changed {
            let dir = self.dir();
            self.shared.env.fs.sync_dir(&dir).map_err(|error| self.shared.sync_failed(&dir, error))?;
            io.names_changed = false;
        }
        Ok(())
    }

    /// Notes that the manifest has `record`.
    pub(crate) fn recorded(&self, record: &PartitionRecord) {
        let mut state = self.state.lock();
        state.recorded = true;
        state.unrecorded = false;
        for segment in &mut state.segments {
            let sealed = record.segments.iter().any(|known| known.sealed && known.base_offset == segment.base_offset);
            if sealed && segment.phase == Phase::Sealed {
                segment.phase = Phase::Durable;
            }
        }
        state.first_uncovered = match state.first_uncovered {
            Some(first) if state.last_sequence > record.covered_sequence => Some(first.max(record.covered_sequence + 1)),
            _ => None,
        };
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.shared.partition_dir(self.id)
    }

    pub(super) fn path(&self, name: impl Into<SegmentName>, kind: FileKind) -> PathBuf {
        path_of(&self.dir(), name, kind)
    }

    /// What was appended until it was called: what comes in meanwhile is left to the next flush, which is then large.
    pub(super) fn write_tail(&self, io: &mut IoState) -> Result<(), LogError> {
        self.shared.check_online()?;
        let log_end = self.state.lock().offsets.log_end;
        while let Some(piece) = self.next_piece(log_end) {
            let len: usize = piece.chunks.iter().map(Bytes::len).sum();
            let path = self.path(piece.name, FileKind::Log);
            let failed = |error| self.shared.failed(&path, error);
            let file = match piece.position {
                0 => self.create_file(piece.name, io)?,
                _ => self.shared.env.fs.open(&path, OpenMode::ReadWrite).map_err(failed)?,
            };
            let mut slices: Vec<_> = piece.chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
            file.write_all_uncached_at(&mut slices, piece.position).map_err(failed)?;
            let mut state = self.state.lock();
            state.written_end = piece.end_offset;
            if let Some(segment) = state.segments.iter_mut().find(|segment| segment.name() == piece.name) {
                segment.written_bytes = piece.position + len as u64;
            }
        }
        Ok(())
    }

    fn next_piece(&self, log_end: i64) -> Option<Piece> {
        let state = self.state.lock();
        if state.deleted {
            return None;
        }
        let open = state.segments.iter().rposition(Segment::is_sealed).map_or(0, |sealed| sealed + 1);
        let segment = state.segments.range(open..).find(|segment| segment.written_bytes < segment.size_bytes)?;
        let mut piece = Piece { name: segment.name(), position: segment.written_bytes, chunks: Vec::new(), end_offset: 0 };
        let mut len = 0;
        for chunk in state.tail.from(state.written_end) {
            if chunk.end_offset > segment.end_offset.min(log_end) || (len + chunk.bytes.len() > WRITE_BYTES_MAX && len > 0) {
                break;
            }
            debug_assert_eq!(chunk.position, segment.written_bytes + len as u64, "the tail follows the file");
            len += chunk.bytes.len();
            piece.chunks.push(chunk.bytes.clone());
            piece.end_offset = chunk.end_offset;
        }
        (!piece.chunks.is_empty()).then_some(piece)
    }

    fn create_file(&self, name: SegmentName, io: &mut IoState) -> Result<std::sync::Arc<dyn File>, LogError> {
        self.ensure_dir(io)?;
        let path = self.path(name, FileKind::Log);
        self.shared.files.forget(self.id, name);
        io.doomed.retain(|segment| segment.name() != name);
        io.names_changed = true;
        self.shared.env.fs.open(&path, OpenMode::Truncate).map_err(|error| self.shared.failed(&path, error))
    }

    /// The partition's directory is made only once there is something to put into it.
    pub(super) fn ensure_dir(&self, io: &mut IoState) -> Result<(), LogError> {
        if io.dir_known {
            return Ok(());
        }
        let fs = &self.shared.env.fs;
        let dir = self.dir();
        // Without a record in the manifest whoever made it may have ended before its name was durable (I39).
        if !fs.exists(&dir) || !self.state.lock().recorded {
            let parent = segments_dir(&self.shared.config.dir);
            fs.create_dir_all(&dir).map_err(|error| self.shared.failed(&dir, error))?;
            fs.sync_dir(&parent).map_err(|error| self.shared.sync_failed(&parent, error))?;
        }
        io.dir_known = true;
        Ok(())
    }

    fn unsealed(&self) -> Vec<Unsealed> {
        let state = self.state.lock();
        if state.deleted {
            return Vec::new();
        }
        let written_end = state.written_end;
        let of = |segment: &Segment| Unsealed {
            name: segment.name(),
            written_bytes: segment.written_bytes,
            written_end: written_end.min(segment.end_offset),
            needs_sync: segment.written_bytes > segment.synced_bytes,
            complete: segment.phase == Phase::Closing && segment.written_bytes == segment.size_bytes,
        };
        state.segments.iter().filter(|segment| !segment.is_sealed()).map(of).collect()
    }

    fn sync_segment(&self, unsealed: &Unsealed) -> Result<(), LogError> {
        let path = self.path(unsealed.name, FileKind::Log);
        let file = self.shared.env.fs.open(&path, OpenMode::ReadWrite).map_err(|error| self.shared.failed(&path, error))?;
        let sync = || {
            fault::point("segment.before-sync")?;
            file.sync_data()?;
            fault::point("segment.synced")
        };
        // A full disk may show only now, with delayed allocation: after a failed sync the pages are not to be trusted (I38).
        sync().map_err(|error| self.shared.sync_failed(&path, error))?;
        let mut state = self.state.lock();
        if let Some(segment) = state.segments.iter_mut().find(|segment| segment.name() == unsealed.name) {
            segment.synced_bytes = unsealed.written_bytes;
            segment.synced_end = unsealed.written_end;
        }
        Ok(())
    }

    /// Puts index, aborted transactions and producer snapshot beside a complete segment file.
    fn seal(&self, base_offset: i64, io: &mut IoState) -> Result<(), LogError> {
        let segment = {
            let state = self.state.lock();
            state.segments.iter().find(|segment| segment.base_offset == base_offset).cloned()
        };
        let Some(segment) = segment else {
            return Ok(());
        };
        self.write_index_files(&segment, io)?;
        if let Some(snapshot) = &segment.end_snapshot {
            self.write_file(segment.end_offset, FileKind::Snapshot, snapshot, io)?;
        }
        fault::point("roll.files-written").map_err(|error| LogError::io(&self.dir(), error))?;
        let mut state = self.state.lock();
        state.snapshot_offset = state.snapshot_offset.max(segment.end_offset);
        if let Some(sealed) = state.segments.iter_mut().find(|other| other.base_offset == base_offset) {
            sealed.phase = Phase::Sealed;
            sealed.indexed_bytes = sealed.size_bytes;
            sealed.index = Vec::new();
            sealed.aborted = Vec::new();
            sealed.end_snapshot = None;
        }
        drop(state);
        self.shared.files.forget(self.id, segment.name());
        Ok(())
    }

    pub(super) fn write_index_files(&self, segment: &Segment, io: &mut IoState) -> Result<(), LogError> {
        let index = self.whole_index(segment)?;
        self.write_file(segment.name(), FileKind::Index, &encode_index(&index), io)?;
        if segment.has_aborts {
            self.write_file(segment.name(), FileKind::Aborted, &encode_aborted(&segment.aborted), io)?;
        }
        Ok(())
    }

    pub(super) fn write_file(&self, name: impl Into<SegmentName>, kind: FileKind, bytes: &[u8], io: &mut IoState) -> Result<(), LogError> {
        self.ensure_dir(io)?;
        let path = self.path(name, kind);
        let file = self.shared.env.fs.open(&path, OpenMode::Truncate).map_err(|error| self.shared.failed(&path, error))?;
        file.write_all_at(bytes, 0).map_err(|error| self.shared.failed(&path, error))?;
        file.sync_all().map_err(|error| self.shared.sync_failed(&path, error))?;
        io.names_changed = true;
        Ok(())
    }
}
