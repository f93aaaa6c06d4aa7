//! Reads: from the tail cache, and from segment files by index.

use std::io;
use std::sync::Arc;

use siltstone_common::fs::File;

use super::state::LogState;
use super::{LogRead, LogSlice, PartitionLog};
use crate::batch::batches;
use crate::error::{LogError, ReadError};
use crate::index::{decode_index, position_for_offset};
use crate::segment::{FileKind, IndexEntry, Segment, SegmentName, Walker, read_whole};
use crate::tail::Chunk;

/// What a read still may take.
#[derive(Copy, Clone)]
struct Want {
    max_bytes: usize,
    at_least_one: bool,
    upper_bound: i64,
    /// Whether the disk may be waited for.
    may_wait: bool,
}

impl Want {
    /// True if a piece of `len` more is allowed.
    fn allows(&self, read: &LogRead, len: usize) -> bool {
        read.size_bytes + len <= self.max_bytes || (self.at_least_one && read.size_bytes == 0)
    }
}

/// The part of a segment file to be read, as it was when the lock was held.
struct FilePart {
    name: SegmentName,
    cleanings: u64,
    limit: u64,
    /// Offset after the last batch below the limit.
    end_offset: i64,
    start: Option<IndexEntry>,
    index: Option<Vec<IndexEntry>>,
}

enum Source {
    Memory(LogRead),
    File(FilePart),
    End,
}

impl PartitionLog {
    /// Reads whole batches from the one that contains `offset`, at most `max_bytes`, all below `upper_bound` (exclusive: high watermark,
    /// last stable offset or log end). With `at_least_one`, the first batch comes even if larger. Waits for nothing: `None` if the disk would
    /// have to be waited for, and [`PartitionLog::read`] is to be called where blocking is allowed.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_at_once(&self, offset: i64, max_bytes: usize, at_least_one: bool, upper_bound: i64) -> Result<Option<LogRead>, ReadError> {
        match self.read_as(offset, Want { max_bytes, at_least_one, upper_bound, may_wait: false }) {
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other.map(Some),
        }
    }

    /// As [`PartitionLog::read_at_once`], but blocks on the disk if need be (index look-up and a few headers).
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, offset: i64, max_bytes: usize, at_least_one: bool, upper_bound: i64) -> Result<LogRead, ReadError> {
        self.read_as(offset, Want { max_bytes, at_least_one, upper_bound, may_wait: true })
    }

    fn read_as(&self, offset: i64, want: Want) -> Result<LogRead, ReadError> {
        let mut read = LogRead { next_offset: offset, ..LogRead::default() };
        let mut retries = 3;
        loop {
            let before = read.size_bytes;
            let part = match self.source(&read, want) {
                Ok(Source::Memory(done)) => return Ok(done),
                Ok(Source::End) => return Ok(read),
                Ok(Source::File(part)) => part,
                Err(_) if before > 0 => return Ok(read),
                Err(error) => return Err(error),
            };
            match self.read_file(&part, want, &mut read) {
                Ok(()) if read.size_bytes == before || read.size_bytes >= want.max_bytes => return Ok(read),
                Ok(()) => {}
                Err(_) if read.size_bytes > 0 => return Ok(read),
                // The segment was removed meanwhile: look again.
                Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound && retries > 0 => retries -= 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Where the read goes on.
    fn source(&self, so_far: &LogRead, want: Want) -> Result<Source, ReadError> {
        let state = self.state.lock();
        let offset = so_far.next_offset;
        check_range(&state, offset)?;
        if so_far.size_bytes > 0 && so_far.cleanings != state.cleanings {
            // Compaction passed: what comes now does not go with what was read.
            return Ok(Source::End);
        }
        if offset >= want.upper_bound.min(state.offsets.log_end) {
            return Ok(Source::Memory(LogRead { cleanings: state.cleanings, ..so_far.clone() }));
        }
        if in_tail(&state, offset) {
            let mut read = LogRead { cleanings: state.cleanings, ..so_far.clone() };
            read_chunks(&state, want, &mut read);
            return Ok(Source::Memory(read));
        }
        let segment = state.segment_for(offset).ok_or(ReadError::NotLocal { local_start: state.offsets.local_start })?;
        if segment.base_offset > offset {
            // A hole: what was there was set aside as corrupt.
            return Err(ReadError::NotLocal { local_start: segment.base_offset });
        }
        let end_offset = if segment.written_bytes == segment.size_bytes { segment.end_offset } else { state.written_end };
        Ok(Source::File(FilePart {
            name: segment.name(),
            cleanings: state.cleanings,
            limit: segment.written_bytes,
            end_offset,
            start: segment.entry_for_offset(offset),
            index: (!segment.is_sealed()).then(|| near(segment, offset, want.max_bytes)),
        }))
    }

    fn read_file(&self, part: &FilePart, want: Want, read: &mut LogRead) -> Result<(), ReadError> {
        let (files, would_block) = (&self.shared.files, || io::Error::from(io::ErrorKind::WouldBlock));
        let file = match want.may_wait {
            true => files.open(self.shared.env.fs.as_ref(), self.id, part.name, &self.dir())?,
            false => files.opened(self.id, part.name).ok_or_else(would_block)?,
        };
        let index = match (&part.index, part.start) {
            (Some(index), Some(_)) => Arc::new(index.clone()),
            _ if want.may_wait => self.index_on_disk(part.name)?,
            _ => files.loaded_index(self.id, part.name).ok_or_else(would_block)?,
        };
        read.cleanings = part.cleanings;
        let offset = read.next_offset;
        let walker = if want.may_wait { Walker::new } else { Walker::resident };
        let mut walker = walker(Arc::clone(&file), part.limit);
        let Some((start, first_len, first_next)) = find_batch(&mut walker, &index, offset, want.upper_bound)? else {
            return Ok(());
        };
        if !want.allows(read, first_len) {
            return Ok(());
        }
        let room = want.max_bytes.saturating_sub(read.size_bytes).max(first_len) as u64;
        let (end, next_offset) = if part.end_offset <= want.upper_bound && part.limit - start <= room {
            (part.limit, part.end_offset)
        } else {
            let reach = Reach { start, end: start + first_len as u64, next_offset: first_next, room };
            find_end(&mut walker, &index, reach, want.upper_bound)?
        };
        let len = usize::try_from(end - start).unwrap_or(usize::MAX);
        read.slices.push(LogSlice::File { file, position: start, len });
        read.size_bytes += len;
        read.next_offset = next_offset;
        Ok(())
    }

    /// The index of the part of a segment that has one on disk.
    pub(super) fn index_on_disk(&self, name: SegmentName) -> Result<Arc<Vec<IndexEntry>>, ReadError> {
        self.shared.files.index(self.id, name, || {
            let path = self.path(name, FileKind::Index);
            let read = read_whole(self.shared.env.fs.as_ref(), &path).map_err(|error| error.to_string());
            match read.and_then(|bytes| decode_index(&bytes).map_err(|error| error.to_string())) {
                Ok(index) => Ok(index),
                Err(error) => Ok(self.rebuild(name, &format!("{}: {error}", path.display()))?.index),
            }
        })
    }

    /// All index entries of a segment that is not sealed.
    pub(super) fn whole_index(&self, segment: &Segment) -> Result<Vec<IndexEntry>, LogError> {
        let mut index = Vec::new();
        if segment.indexed_bytes > 0 {
            let path = self.path(segment.name(), FileKind::Index);
            let on_disk = self
                .index_on_disk(segment.name())
                .map_err(|error| LogError::Corrupt { path: path.display().to_string(), reason: error.to_string() })?;
            index.extend(on_disk.iter().filter(|entry| entry.position < segment.indexed_bytes));
        }
        index.extend(segment.index.iter().copied());
        Ok(index)
    }
}

/// I1: below the log start or above the end is out of range, below the local start is elsewhere.
pub(super) fn check_range(state: &LogState, offset: i64) -> Result<(), ReadError> {
    let offsets = &state.offsets;
    if offset < offsets.log_start || offset > offsets.log_end {
        return Err(ReadError::OutOfRange { offset, start: offsets.log_start, end: offsets.log_end });
    }
    if offset < offsets.local_start {
        return Err(ReadError::NotLocal { local_start: offsets.local_start });
    }
    Ok(())
}

/// True if the tail holds `offset`, or the first batch behind it in the same segment.
fn in_tail(state: &LogState, offset: i64) -> bool {
    state.tail.start().is_some_and(|start| start <= offset)
}

/// Takes from the tail what `want` allows.
fn read_chunks(state: &LogState, want: Want, read: &mut LogRead) {
    for chunk in state.tail.from(read.next_offset) {
        let whole = chunk.base_offset >= read.next_offset && chunk.end_offset <= want.upper_bound;
        if whole && read.size_bytes + chunk.bytes.len() <= want.max_bytes {
            read.size_bytes += chunk.bytes.len();
            read.slices.push(LogSlice::Memory(chunk.bytes.clone()));
            read.next_offset = chunk.end_offset;
        } else {
            read_part_of_chunk(chunk, want, read);
            // A chunk that the read entered in its middle may still have been taken to its end.
            if read.next_offset < chunk.end_offset {
                return;
            }
        }
    }
}

/// Takes the batches of one chunk that `want` allows.
fn read_part_of_chunk(chunk: &Chunk, want: Want, read: &mut LogRead) {
    let (mut start, mut end, mut at) = (None, 0, 0);
    for (header, batch) in batches(&chunk.bytes).map_while(Result::ok) {
        let begin = at;
        at += batch.len();
        if header.next_offset() <= read.next_offset {
            continue;
        }
        let taken = start.map_or(0, |start| end - start);
        let allowed = read.size_bytes + taken + batch.len() <= want.max_bytes || (want.at_least_one && read.size_bytes + taken == 0);
        if header.next_offset() > want.upper_bound || !allowed {
            break;
        }
        start.get_or_insert(begin);
        end = at;
        read.next_offset = header.next_offset();
    }
    if let Some(start) = start {
        read.size_bytes += end - start;
        read.slices.push(LogSlice::Memory(chunk.bytes.slice(start..end)));
    }
}

/// The index entries that a read of `max_bytes` from `offset` may need, one more on each side.
fn near(segment: &Segment, offset: i64, max_bytes: usize) -> Vec<IndexEntry> {
    let from = segment.index.partition_point(|entry| entry.offset <= offset).saturating_sub(1);
    let position = segment.index.get(from).map_or(0, |entry| entry.position).saturating_add(max_bytes as u64);
    let to = segment.index.partition_point(|entry| entry.position <= position);
    segment.index.get(from..(to + 1).min(segment.index.len())).unwrap_or_default().to_vec()
}

/// Position, length and next offset of the batch that holds `offset` or is the first behind it; `None` if that is not below the bound.
fn find_batch(walker: &mut Walker, index: &[IndexEntry], offset: i64, upper_bound: i64) -> Result<Option<(u64, usize, i64)>, ReadError> {
    let mut position = position_for_offset(index, offset);
    while let Some(header) = walker.header_at(position, offset)? {
        if header.next_offset() > offset {
            let found = (position, header.total_len(), header.next_offset());
            return Ok((header.next_offset() <= upper_bound).then_some(found));
        }
        position += header.total_len() as u64;
    }
    Ok(None)
}

/// How far a read got.
struct Reach {
    start: u64,
    end: u64,
    next_offset: i64,
    room: u64,
}

/// End position and next offset of the last batch that fits.
fn find_end(walker: &mut Walker, index: &[IndexEntry], reach: Reach, upper_bound: i64) -> Result<(u64, i64), ReadError> {
    let Reach { start, mut end, mut next_offset, room } = reach;
    // An indexed batch within reach and below the bound is a boundary that need not be walked to.
    let at = index.partition_point(|entry| entry.position <= start + room && entry.offset <= upper_bound);
    if let Some(entry) = at.checked_sub(1).and_then(|at| index.get(at)).filter(|entry| entry.position > end) {
        end = entry.position;
        next_offset = entry.offset;
    }
    while let Some(header) = walker.header_at(end, next_offset)? {
        let batch_end = end + header.total_len() as u64;
        if batch_end - start > room || header.next_offset() > upper_bound {
            break;
        }
        end = batch_end;
        next_offset = header.next_offset();
    }
    Ok((end, next_offset))
}

/// Puts the bytes of `slice` into `out`.
pub(super) fn load(slice: &LogSlice, out: &mut Vec<u8>) -> io::Result<()> {
    match slice {
        LogSlice::Memory(bytes) => out.extend_from_slice(bytes),
        LogSlice::File { file, position, len } => {
            let from = out.len();
            out.resize(from + len, 0);
            read_into(file.as_ref(), &mut out[from..], *position)?;
        }
    }
    Ok(())
}

fn read_into(file: &dyn File, buf: &mut [u8], position: u64) -> io::Result<()> {
    file.read_exact_at(buf, position)
}
