//! Files as a port: positioned reads and writes, explicit syncs, nothing hidden.
//!
//! Contract: a written byte survives a crash of the machine only after `sync_data`/`sync_all` of its file, and a created,
//! renamed or removed name only after [`FileSystem::sync_dir`] of its directory (I39). A failed sync must not be
//! retried and believed (I38). Calls block: keep them off the runtime's threads.

mod direct;
mod large_pages;
mod real;
pub mod sim;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

pub use real::RealFs;
pub use sim::SimFs;

/// Blocks of [`OpenMode::Direct`], bytes.
pub const DIRECT_BLOCK_BYTES: usize = 4096;

/// True if there was no room: the disk is full, or a quota is used up.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// True if the system was short of something that comes back (descriptors, memory): nothing was done, so it can be tried again.
pub fn is_short(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN];
    error.raw_os_error().is_some_and(|code| short.iter().any(|errno| errno.raw_os_error() == code))
}

/// A failed sync as an error that nobody takes for a full disk: what it should have written may be gone though the next sync would succeed (I38).
pub fn sync_error(error: &io::Error) -> io::Error {
    io::Error::other(format!("sync failed: {error}"))
}

/// How a file is opened.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    ReadWrite,
    /// A new file, to read and write; fails if the name exists.
    CreateNew,
    /// A file to read and write, emptied if it exists, created if not.
    Truncate,
    /// An existing file, to be written past the page cache where the file system can: for logs that are synced after each write. Best written from
    /// front to back by one writer. A write also zeroes what lies between its end and the end of that block
    /// ([`DIRECT_BLOCK_BYTES`]). Not for reading.
    Direct,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name within the directory.
    pub name: String,
    /// True for a directory.
    pub is_dir: bool,
    /// Size in bytes; 0 for directories.
    pub len: u64,
}

/// Room on the disk that holds a path, in bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Size of the file system.
    pub total: u64,
    /// What this process may still write.
    pub available: u64,
}

/// A directory tree.
pub trait FileSystem: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Creates a directory and its parents; no error if it exists.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no particular order.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// True if the path names a file or directory.
    fn exists(&self, path: &Path) -> bool;
    /// Renames within one file system, replacing a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Room on the disk that holds `path`.
    fn space(&self, path: &Path) -> io::Result<DiskSpace>;
    /// Takes an exclusive lock on a file (created if missing) until the guard is dropped or the process ends.
    /// `WouldBlock` if another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>>;
}

/// Holds a lock taken by [`FileSystem::lock`].
pub trait FileLock: Send + Sync + Debug {}

/// An open file. Positioned calls only, so one handle serves many threads.
pub trait File: Send + Sync + Debug {
    /// Reads up to `buf.len()` bytes at `pos`; 0 at or past the end.
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize>;
    /// Writes a prefix of the buffers at `pos`, growing the file; returns how many bytes.
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], pos: u64) -> io::Result<usize>;
    /// Makes the written bytes durable, and the length if it changed.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes bytes and all file attributes durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Cuts or extends (with zeroes) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves disk space up to `len`, so that later writes below it can't fail for want of room. Extends the file.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// The descriptor for sendfile; `None` if there is none (simulation).
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;

    /// True if the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// As [`File::read_at`], but only what is in memory: `WouldBlock` if the disk would have to be waited for, or nobody can tell.
    fn read_resident_at(&self, _buf: &mut [u8], _pos: u64) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Fills `buf` from `pos`; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, mut buf: &mut [u8], mut pos: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(buf, pos) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    buf = &mut buf[n..];
                    pos += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `buf` at `pos`.
    fn write_all_at(&self, buf: &[u8], pos: u64) -> io::Result<()> {
        self.write_all_vectored_at(&mut [IoSlice::new(buf)], pos)
    }

    /// As [`File::write_all_vectored_at`], for much that will not be read soon: goes past the page cache where the file system can.
    fn write_all_uncached_at(&self, bufs: &mut [IoSlice<'_>], pos: u64) -> io::Result<()> {
        self.write_all_vectored_at(bufs, pos)
    }

    /// Writes all of the buffers, one after the other, from `pos`. Uses up `bufs`.
    fn write_all_vectored_at(&self, mut bufs: &mut [IoSlice<'_>], mut pos: u64) -> io::Result<()> {
        IoSlice::advance_slices(&mut bufs, 0);
        while !bufs.is_empty() {
            let part = &bufs[..bufs.len().min(1024)];
            match self.write_vectored_at(part, pos) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    IoSlice::advance_slices(&mut bufs, n);
                    pos += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
