//! The files of the WAL: preallocated, filled one after the other, recycled once their entries are in synced segments.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone_common::fault;
use siltstone_common::fs::{DIRECT_BLOCK_BYTES, File, FileSystem, OpenMode};

use super::entry::{FILE_HEADER_LEN, FileHeader};

/// Spare files kept for reuse; more are removed.
const SPARES_MAX: usize = 4;

/// A filled file whose entries are still needed.
#[derive(Debug)]
pub(crate) struct FullFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its length in bytes.
    pub(crate) len: u64,
    /// Its last entry.
    pub(crate) last_sequence: u64,
    /// Entries in it do not check out: it is set aside, not recycled.
    pub(crate) corrupt: bool,
}

/// A file ready to be taken into use.
#[derive(Debug)]
pub(crate) struct Spare {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its length in bytes.
    pub(crate) len: u64,
}

/// The file that entries go to.
#[derive(Debug)]
pub(crate) struct CurrentFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Open for writing.
    pub(crate) file: Arc<dyn File>,
    /// Its use.
    pub(crate) header: FileHeader,
    /// Where the next entry goes.
    pub(crate) position: u64,
    /// Its length in bytes.
    pub(crate) len: u64,
}

/// All files but the current one.
#[derive(Debug)]
pub(crate) struct WalFiles {
    dir: PathBuf,
    file_bytes: u64,
    full: VecDeque<FullFile>,
    spares: Vec<Spare>,
    next_slot: u64,
    next_generation: u64,
    current_bytes: u64,
}

impl WalFiles {
    /// Files found in `dir`; `next_slot` and `next_generation` are above all of theirs.
    pub(crate) fn new(
        dir: PathBuf,
        file_bytes: u64,
        full: Vec<FullFile>,
        spares: Vec<Spare>,
        next_slot: u64,
        next_generation: u64,
    ) -> Self {
        Self { dir, file_bytes, full: full.into(), spares, next_slot, next_generation, current_bytes: 0 }
    }

    /// Sequence after the last entry of the files that were there at the start; 0 if there were none. To be asked before any is added.
    pub(crate) fn end_at_start(&self) -> u64 {
        self.full.back().map_or(0, |file| file.last_sequence + 1)
    }

    /// Bytes of the files whose entries are still needed.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.full.iter().map(|file| file.len).sum::<u64>() + self.current_bytes
    }

    /// Bytes of all files.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.live_bytes() + self.spares.iter().map(|spare| spare.len).sum::<u64>()
    }

    /// Notes how far the current file is filled.
    pub(crate) fn set_current_bytes(&mut self, bytes: u64) {
        self.current_bytes = bytes;
    }

    /// The last sequence of the older half of the full files: what has to reach segments so that room comes back.
    pub(crate) fn older_half(&self) -> Option<u64> {
        self.full.get(self.full.len().checked_sub(1)? / 2).map(|file| file.last_sequence)
    }

    /// Puts the filled current file behind the others.
    pub(crate) fn retire(&mut self, file: &CurrentFile, last_sequence: u64) {
        self.full.push_back(FullFile { path: file.path.clone(), len: file.len, last_sequence, corrupt: false });
        self.current_bytes = 0;
    }

    /// True if a spare should be made ready.
    pub(crate) fn wants_spare(&self) -> bool {
        self.spares.is_empty()
    }

    /// Takes a spare that holds `entry_bytes` and a number for its use, and the slot for a new file if there is no such spare.
    pub(crate) fn take_spare(&mut self, entry_bytes: u64) -> (Option<Spare>, u64, u64) {
        let fits = self.spares.iter().position(|spare| spare.len >= FILE_HEADER_LEN + entry_bytes);
        let spare = fits.map(|at| self.spares.swap_remove(at));
        let generation = self.next_generation;
        self.next_generation += 1;
        (spare, generation, self.take_slot())
    }

    /// A number for a new file's name.
    pub(crate) fn take_slot(&mut self) -> u64 {
        self.next_slot += 1;
        self.next_slot - 1
    }

    /// Keeps a file for reuse.
    pub(crate) fn add_spare(&mut self, spare: Spare) {
        self.spares.push(spare);
    }

    /// Bytes of a new file that has to hold `entry_bytes`.
    pub(crate) fn new_file_bytes(&self, entry_bytes: u64) -> u64 {
        // In whole blocks: the last entry's may be written whole.
        self.file_bytes.max(FILE_HEADER_LEN + entry_bytes).next_multiple_of(DIRECT_BLOCK_BYTES as u64)
    }

    /// True if [`WalFiles::trim`] would free a file.
    pub(crate) fn can_trim(&self, needed_sequence: u64) -> bool {
        self.full.front().is_some_and(|file| file.last_sequence < needed_sequence)
    }

    /// Frees the files whose entries all lie below `needed_sequence`. The manifest already says so.
    pub(crate) fn trim(&mut self, fs: &dyn FileSystem, needed_sequence: u64) -> io::Result<()> {
        while let Some(file) = self.full.pop_front_if(|file| file.last_sequence < needed_sequence) {
            if file.corrupt {
                let aside = file.path.with_extension(format!("wal.corrupt-{}", file.last_sequence));
                fs.rename(&file.path, &aside)?;
            } else if self.spares.len() < SPARES_MAX && file.len == self.new_file_bytes(0) {
                self.spares.push(Spare { path: file.path, len: file.len });
            } else {
                fs.remove_file(&file.path)?;
            }
        }
        // More may have been found at the start.
        while self.spares.len() > SPARES_MAX
            && let Some(spare) = self.spares.pop()
        {
            fs.remove_file(&spare.path)?;
        }
        Ok(())
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Makes an empty, preallocated file; its name is durable.
pub(crate) fn create(fs: &dyn FileSystem, dir: &Path, slot: u64, len: u64) -> io::Result<Spare> {
    let path = dir.join(file_name(slot));
    let made = (|| {
        let file = fs.open(&path, OpenMode::Truncate)?;
        file.allocate(len)?;
        file.sync_all()?;
        fault::point("wal.file-created")?;
        fs.sync_dir(dir)
    })();
    if let Err(error) = made {
        // Best effort: room may be what is missing.
        let _ = fs.remove_file(&path);
        return Err(error);
    }
    Ok(Spare { path, len })
}

/// Begins a new use of a file. The header becomes durable with the first entry's sync.
pub(crate) fn begin_use(fs: &dyn FileSystem, spare: &Spare, header: FileHeader) -> io::Result<CurrentFile> {
    let file = fs.open(&spare.path, OpenMode::Direct)?;
    file.write_all_at(&header.encode(), 0)?;
    Ok(CurrentFile { path: spare.path.clone(), file, header, position: FILE_HEADER_LEN, len: spare.len })
}

/// The name of file number `slot`.
pub(crate) fn file_name(slot: u64) -> String {
    format!("{slot:016x}.wal")
}

/// The number in a file's name.
pub(crate) fn slot_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(".wal")?, 16).ok()
}
