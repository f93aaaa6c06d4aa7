//! A file system in memory, for simulations: deterministic, and it can lose power.
//!
//! # Overview
//! What a process sees is the *current* state; beside it stands the *durable* one and the list of operations between the two.
//! `sync_data`/`sync_all` move a file's operations over, `sync_dir` those of a directory's names. [`SimFs::crash`] takes the power away:
//! of what was not synced, nothing, everything, a beginning with a torn end, or any sectors and names in any combination survive (so
//! lost and reordered writes, zero-filled tails, lost and half-done directory changes). [`SimFs::kill`] ends the process only.
//! Both give the file system that the next process finds; the old one answers every call with an error from then on.
//!
//! # Faults
//! See [`SimFault`], [`SimFs::set_capacity`], [`SimFs::set_short_writes`], [`SimFs::flip_bit`], and [`SimFs::crash_at`].
//!
//! # Determinism
//! Nothing depends on hashing, time or addresses: the same calls and the same entropy give the same state.

mod content;
mod crash;
mod state;

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{DirEntry, DiskSpace, File, FileLock, FileSystem, OpenMode};
use crate::entropy::Entropy;
use state::{InodeId, State};

/// What goes wrong at the next operations of a kind.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SimFault {
    /// `sync_data`, `sync_all` or `sync_dir` fails with EIO. As on Linux the pages count as clean afterwards: the next sync
    /// returns ok and what this one should have written never becomes durable (F22, I38).
    Sync,
    /// As [`SimFault::Sync`], with ENOSPC: delayed allocation, or a network's file system.
    SyncNoSpace,
    /// Opening a file fails with EMFILE.
    Open,
    /// A read fails with EIO (F23).
    Read,
    /// A write fails with EIO and nothing is written.
    Write,
    /// Creating, renaming or removing a name fails with EIO.
    Name,
}

/// See the module. Cloning gives another handle to the same file system.
#[derive(Clone)]
pub struct SimFs(Arc<Mutex<State>>);

impl Default for SimFs {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFs").field("operations", &self.operations()).finish_non_exhaustive()
    }
}

impl SimFs {
    /// An empty file system without limit.
    pub fn new() -> Self {
        Self::with(State::new())
    }

    fn with(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// Takes the power away. Returns what the disk holds; this handle and all open files are dead afterwards.
    pub fn crash(&self, entropy: &dyn Entropy) -> SimFs {
        let mut state = self.0.lock();
        state.dead = true;
        Self::with(crash::survivors(&state, entropy))
    }

    /// Ends the process and leaves the machine running: every write survives, synced or not, and may yet be lost by a later crash. This
    /// handle and all open files are dead afterwards.
    pub fn kill(&self) -> SimFs {
        let mut state = self.0.lock();
        state.dead = true;
        Self::with(state.after_kill())
    }

    /// How many operations changed or synced something so far.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Lets the power fail at operation number `operation` (counted as in [`SimFs::operations`], from 1): it fails, and so does every call after it.
    /// Whether its effect is on the disk is decided by the [`SimFs::crash`] that must follow.
    pub fn crash_at(&self, operation: u64) {
        self.0.lock().crash_at = Some(operation);
    }

    /// True once the power is gone or the process ended: nothing works any more.
    pub fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    /// The next `times` operations of the kind on a path that contains `path_part` fail.
    pub fn inject(&self, fault: SimFault, path_part: &str, times: u32) {
        self.0.lock().faults.push((fault, path_part.to_owned(), times));
    }

    /// Bytes that all files together may have; `None` for no limit. Beyond it writes are short, then fail with ENOSPC (F21).
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Makes every write of more than one byte write only half (F24).
    pub fn set_short_writes(&self, short: bool) {
        self.0.lock().short_writes = short;
    }

    /// Flips bit `bit` (0 to 7) of the byte at `position`, in memory and on the disk (F27).
    ///
    /// # Errors
    /// `NotFound` if there is no such file, `UnexpectedEof` if it is shorter.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) -> io::Result<()> {
        self.0.lock().flip_bit(path, position, bit)
    }

    /// All files and directories with their contents, sorted: for comparing two runs.
    pub fn dump(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        self.0.lock().dump()
    }

    fn look<T>(&self, f: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock();
        state.check_alive()?;
        f(&mut state)
    }

    /// A change. At the point of the power failure it takes place in memory, where the crash may or may not find it.
    fn change<T>(&self, f: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock();
        state.check_alive()?;
        let last = state.count_operation();
        let result = f(&mut state);
        if last { Err(state::power_loss()) } else { result }
    }

    /// A sync. At the point of the power failure it does nothing: all it would have covered is left to chance.
    fn sync(&self, f: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.0.lock();
        state.check_alive()?;
        if state.count_operation() { Err(state::power_loss()) } else { f(&mut state) }
    }
}

impl FileSystem for SimFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let open = |state: &mut State| state.open(path, mode);
        let inode = match mode {
            OpenMode::Read | OpenMode::ReadWrite | OpenMode::Direct => self.look(open)?,
            OpenMode::CreateNew | OpenMode::Truncate => self.change(open)?,
        };
        Ok(Arc::new(SimFile { fs: self.clone(), path: path.to_owned(), inode, mode }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change(|state| state.create_dir_all(path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.look(|state| state.read_dir(path))
    }

    fn exists(&self, path: &Path) -> bool {
        self.look(|state| state.lookup(path)).is_ok()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| state.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change(|state| state.remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change(|state| state.remove_dir_all(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.sync(|state| state.sync_dir(path))
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.look(|state| {
            state.lookup(path)?;
            Ok(state.space())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        self.change(|state| state.lock(path))?;
        Ok(Box::new(SimLock { fs: self.clone(), path: path.to_owned() }))
    }
}

#[derive(Debug)]
struct SimLock {
    fs: SimFs,
    path: PathBuf,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.fs.0.lock().locks.remove(&self.path);
    }
}

#[derive(Debug)]
struct SimFile {
    fs: SimFs,
    path: PathBuf,
    inode: InodeId,
    mode: OpenMode,
}

impl SimFile {
    fn write<T>(&self, f: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.fs.change(|state| {
            if self.mode == OpenMode::Read {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "file is open for reading only"));
            }
            state.fault(SimFault::Write, &self.path)?;
            f(state)
        })
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        self.fs.look(|state| {
            state.fault(SimFault::Read, &self.path)?;
            Ok(state.file(self.inode)?.current.read(buf, pos))
        })
    }

    fn read_resident_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        self.read_at(buf, pos)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], pos: u64) -> io::Result<usize> {
        let data = bufs.iter().flat_map(|buf| buf.iter().copied()).collect::<Vec<u8>>();
        self.write(|state| match self.mode {
            OpenMode::Direct => state.write_blocks(self.inode, &data, pos),
            _ => state.write(self.inode, &data, pos),
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fs.sync(|state| state.sync_file(self.inode, &self.path))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.write(|state| state.set_len(self.inode, len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.write(|state| if state.file(self.inode)?.current.len() < len { state.set_len(self.inode, len) } else { Ok(()) })
    }

    fn len(&self) -> io::Result<u64> {
        self.fs.look(|state| Ok(state.file(self.inode)?.current.len()))
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[cfg(test)]
mod tests;
