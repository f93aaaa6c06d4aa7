//! Reads the WAL after a stop that was not clean.
//!
//! Walks the files in the order of their generations and hands every entry on. A file ends at the first entry that does not
//! check out. That is a torn end only if nothing proves otherwise: proof of corruption (I37) is a later file, since the
//! file before is synced before the next one is begun, or a later entry of the same file that was written when
//! the bad one was already synced. Then the walk goes on behind the damage: what is lost concerns some partitions only.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use siltstone_common::fs::{File, FileSystem, OpenMode};

use super::entry::{ENTRY_HEADER_LEN, EntryHeader, FILE_HEADER_LEN, FileHeader, entry_len};
use super::files::{self, FullFile, Spare};
use crate::error::LogError;

/// Bytes read at once.
const WINDOW_BYTES: usize = 1 << 20;

/// What the directory held.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// Files whose entries are still needed.
    pub(crate) full: Vec<FullFile>,
    /// Files to be reused.
    pub(crate) spares: Vec<Spare>,
    /// Above all slots in file names.
    pub(crate) next_slot: u64,
    /// Above all generations.
    pub(crate) next_generation: u64,
    /// Above all sequences.
    pub(crate) next_sequence: u64,
    /// Bytes of a torn end.
    pub(crate) torn_bytes: u64,
    /// Descriptions of damage that is not a torn end.
    pub(crate) damage: Vec<String>,
}

struct Found {
    path: std::path::PathBuf,
    len: u64,
    header: FileHeader,
}

/// Walks the WAL in `dir`. Entries below `first_live_sequence` are not needed any more; with `skip` none is.
pub(crate) fn replay(
    fs: &dyn FileSystem,
    dir: &Path,
    first_live_sequence: u64,
    skip: bool,
    on_entry: &mut dyn FnMut(&EntryHeader, Bytes) -> Result<(), LogError>,
) -> Result<Replayed, LogError> {
    let mut replayed = Replayed { next_generation: 1, next_sequence: first_live_sequence.max(1), ..Replayed::default() };
    let found = list(fs, dir, skip, &mut replayed).map_err(|error| LogError::io(dir, error))?;
    let mut expected = None;
    for (at, file) in found.iter().enumerate() {
        let file_end = found.get(at + 1).map(|next| next.header.previous_end);
        if skip || file_end.is_some_and(|end| end <= first_live_sequence) {
            replayed.spares.push(Spare { path: file.path.clone(), len: file.len });
            continue;
        }
        let previous_end = file.header.previous_end;
        if previous_end > expected.unwrap_or(first_live_sequence.max(1)) {
            replayed.damage.push(format!("entries up to {} are missing before {}", previous_end - 1, file.path.display()));
        }
        let damage_before = replayed.damage.len();
        let walk = Walk { file, file_end, first_live_sequence };
        let end = walk.run(fs, &mut replayed, on_entry)?;
        expected = Some(end);
        replayed.next_sequence = replayed.next_sequence.max(end);
        let corrupt = replayed.damage.len() > damage_before;
        replayed.full.push(FullFile { path: file.path.clone(), len: file.len, last_sequence: end.saturating_sub(1), corrupt });
    }
    Ok(replayed)
}

/// The files with a header, by generation. The others become spares; but a file that was in use has a header, or is damaged: it is kept aside,
/// unless nothing is needed of the WAL (`skip`).
fn list(fs: &dyn FileSystem, dir: &Path, skip: bool, replayed: &mut Replayed) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs.read_dir(dir)? {
        let Some(slot) = files::slot_of(&entry.name) else {
            continue;
        };
        replayed.next_slot = replayed.next_slot.max(slot + 1);
        let path = dir.join(&entry.name);
        let file = fs.open(&path, OpenMode::Read)?;
        if entry.len <= FILE_HEADER_LEN {
            fs.remove_file(&path)?;
            continue;
        }
        let mut block = [0; FILE_HEADER_LEN as usize];
        file.read_exact_at(&mut block, 0)?;
        let len = entry.len;
        match FileHeader::decode(&block) {
            Some(header) => {
                replayed.next_generation = replayed.next_generation.max(header.generation + 1);
                found.push(Found { path, len, header });
            }
            None if skip || block.iter().all(|byte| *byte == 0) => replayed.spares.push(Spare { path, len }),
            None => {
                replayed.damage.push(format!("{}: the file header does not check out, its entries are left out", path.display()));
                replayed.full.push(FullFile { path, len, last_sequence: 0, corrupt: true });
            }
        }
    }
    found.sort_by_key(|file| file.header.generation);
    Ok(found)
}

struct Walk<'a> {
    file: &'a Found,
    /// Sequence after its last entry, as the next file says.
    file_end: Option<u64>,
    first_live_sequence: u64,
}

impl Walk<'_> {
    /// Hands on the file's entries; the sequence after its last one.
    fn run(
        &self,
        fs: &dyn FileSystem,
        replayed: &mut Replayed,
        on_entry: &mut dyn FnMut(&EntryHeader, Bytes) -> Result<(), LogError>,
    ) -> Result<u64, LogError> {
        let failed = |error| LogError::io(&self.file.path, error);
        let file = fs.open(&self.file.path, OpenMode::Read).map_err(failed)?;
        let mut window = Window { file, len: self.file.len, start: 0, bytes: Vec::new() };
        let mut position = FILE_HEADER_LEN;
        let mut expected = self.file.header.first_sequence;
        loop {
            if self.file_end.is_some_and(|first| expected >= first) {
                return Ok(expected);
            }
            if let Some((header, payload)) = self.entry_at(&mut window, position).map_err(failed)?
                && header.sequence == expected
            {
                position += entry_len(payload.len()) as u64;
                expected += 1;
                if header.sequence >= self.first_live_sequence {
                    on_entry(&header, payload)?;
                }
                continue;
            }
            match self.resume(&mut window, position, expected).map_err(failed)? {
                Resume::At { position: at, sequence } => {
                    replayed.damage.push(format!("{}: entries {expected} to {} do not check out", self.file.path.display(), sequence - 1));
                    position = at;
                    expected = sequence;
                }
                Resume::NextFile(end) => {
                    replayed.damage.push(format!("{}: entries {expected} to {} do not check out", self.file.path.display(), end - 1));
                    return Ok(end);
                }
                Resume::TornEnd { bytes } => {
                    replayed.torn_bytes += bytes;
                    return Ok(expected);
                }
            }
        }
    }

    /// The entry at `position` if it belongs to this use of the file and its CRC fits.
    fn entry_at(&self, window: &mut Window, position: u64) -> io::Result<Option<(EntryHeader, Bytes)>> {
        let Some(bytes) = window.at(position, ENTRY_HEADER_LEN)? else {
            return Ok(None);
        };
        let Some(head) = bytes.first_chunk::<ENTRY_HEADER_LEN>().copied() else {
            return Ok(None);
        };
        let Some((header, crc)) = EntryHeader::decode(&head).filter(|(header, _)| header.salt == self.file.header.salt) else {
            return Ok(None);
        };
        let payload_len = header.payload_len as usize;
        let Some(payload) = window.at(position + ENTRY_HEADER_LEN as u64, payload_len)? else {
            return Ok(None);
        };
        Ok(EntryHeader::matches(&head, payload, crc).then(|| (header, Bytes::copy_from_slice(payload))))
    }

    /// What the bad entry `expected` at `position` means.
    fn resume(&self, window: &mut Window, position: u64, expected: u64) -> io::Result<Resume> {
        let mut torn_bytes = 0;
        let mut at = position;
        while at + (ENTRY_HEADER_LEN as u64) <= self.file.len {
            let salt = self.file.header.salt.to_be_bytes();
            if window.at(at, 16)?.is_none_or(|bytes| bytes[8..] != salt) {
                at += 8;
                continue;
            }
            match self.entry_at(window, at)? {
                Some((header, payload)) if header.sequence > expected => {
                    if self.file_end.is_some() || header.durable_sequence >= expected {
                        return Ok(Resume::At { position: at, sequence: header.sequence });
                    }
                    let len = entry_len(payload.len()) as u64;
                    torn_bytes += len;
                    at += len;
                }
                _ => at += 8,
            }
        }
        Ok(match self.file_end {
            Some(end) => Resume::NextFile(end),
            None => Resume::TornEnd { bytes: torn_bytes + self.torn_head(window, position)? },
        })
    }

    /// Bytes of a half-written entry at `position`.
    fn torn_head(&self, window: &mut Window, position: u64) -> io::Result<u64> {
        let header = window.at(position, ENTRY_HEADER_LEN)?.and_then(EntryHeader::decode);
        Ok(match header {
            Some((header, _)) if header.salt == self.file.header.salt => {
                (entry_len(header.payload_len as usize) as u64).min(self.file.len - position)
            }
            _ => 0,
        })
    }
}

enum Resume {
    At { position: u64, sequence: u64 },
    NextFile(u64),
    TornEnd { bytes: u64 },
}

/// A moving view of a file.
struct Window {
    file: Arc<dyn File>,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// `len` bytes at `position`; `None` if the file ends before.
    fn at(&mut self, position: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if position.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return Ok(None);
        }
        let held = self.start..self.start + self.bytes.len() as u64;
        if position < held.start || position + len as u64 > held.end {
            let wanted = (self.len - position).min(WINDOW_BYTES.max(len) as u64);
            self.bytes.resize(wanted as usize, 0);
            self.file.read_exact_at(&mut self.bytes, position)?;
            self.start = position;
        }
        let from = (position - self.start) as usize;
        Ok(self.bytes.get(from..from + len))
    }
}
