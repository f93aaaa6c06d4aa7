//! Writes that go past the page cache (`O_DIRECT`).
//!
//! # Overview
//! The kernel takes such writes only from aligned memory, at aligned positions, in whole blocks. Here everything is gathered in aligned
//! buffers, which are kept for reuse: one copy in user space instead of one into fresh pages of the page cache, which costs several times as
//! much and evicts what is worth caching. [`DirectFile`] is a file that is only written this way; [`write_uncached`] writes a large
//! piece of an ordinary file.
//!
//! Where the file system refuses (`EINVAL`), the same writes go through the page cache.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::{DIRECT_BLOCK_BYTES, File, large_pages};

/// Bytes of one buffer, and so of one write: one large page of the machine.
const BUFFER_BYTES: usize = 2 << 20;
/// Buffers kept for reuse by the whole process.
const POOL_MAX: usize = 4;
/// Less than this is not worth a write of its own past the page cache.
const UNCACHED_BYTES_MIN: usize = 128 << 10;
/// No write ended here: the next one reads its first block.
const NOWHERE: u64 = u64::MAX;

static POOL: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Aligned memory, given back to the pool when dropped.
#[derive(Debug)]
struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn new() -> Self {
        let pooled = POOL.lock().pop();
        let is_fresh = pooled.is_none();
        // Room for the alignment: what is not touched takes no memory.
        let memory = pooled.unwrap_or_else(|| vec![0; 2 * BUFFER_BYTES]);
        let start = memory.as_ptr().align_offset(BUFFER_BYTES);
        let mut buffer = Self { memory, start };
        if is_fresh {
            large_pages::ask(buffer.bytes());
        }
        buffer
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + BUFFER_BYTES]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut pool = POOL.lock();
        if pool.len() < POOL_MAX {
            pool.push(std::mem::take(&mut self.memory));
        }
    }
}

/// The bytes of several slices, taken from the front.
struct Source<'a, 'b> {
    slices: &'a [IoSlice<'b>],
    offset: usize,
}

impl Source<'_, '_> {
    /// Fills `out` as far as there is something left; how many bytes.
    fn take(&mut self, out: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < out.len()
            && let Some(first) = self.slices.first()
        {
            let count = (first.len() - self.offset).min(out.len() - filled);
            out[filled..filled + count].copy_from_slice(&first[self.offset..self.offset + count]);
            filled += count;
            self.offset += count;
            if self.offset == first.len() {
                self.slices = &self.slices[1..];
                self.offset = 0;
            }
        }
        filled
    }
}

fn len_of(bufs: &[IoSlice<'_>]) -> usize {
    bufs.iter().map(|buf| buf.len()).sum()
}

/// Opens for writing past the page cache; the ordinary way if the file system has none.
fn open(path: &Path) -> io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true);
    let direct = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
    match options.clone().custom_flags(direct).open(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => options.open(path),
        other => other,
    }
}

/// Writes whole blocks; through the page cache once the file system refused.
fn write_blocks(file: &std::fs::File, blocks: &[u8], pos: u64) -> io::Result<()> {
    match file.write_all_at(blocks, pos) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            rustix::fs::fcntl_setfl(file, rustix::fs::fcntl_getfl(file)? - OFlags::DIRECT)?;
            file.write_all_at(blocks, pos)
        }
        other => other,
    }
}

#[derive(Debug)]
struct Tail {
    /// Its first bytes are those of the block in which the last write ended.
    buffer: Buffer,
    end: u64,
}

/// See [`super::OpenMode::Direct`].
#[derive(Debug)]
pub(super) struct DirectFile {
    file: std::fs::File,
    tail: Mutex<Tail>,
}

impl DirectFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: open(path)?, tail: Mutex::new(Tail { buffer: Buffer::new(), end: NOWHERE }) })
    }

    /// Puts the bytes from the start of `pos`'s block up to `pos` into the buffer; how many.
    fn begin(&self, tail: &mut Tail, pos: u64) -> io::Result<usize> {
        let head = (pos % DIRECT_BLOCK_BYTES as u64) as usize;
        if head > 0 && tail.end != pos {
            let block = &mut tail.buffer.bytes()[..DIRECT_BLOCK_BYTES];
            let read = self.file.read_at(block, pos - head as u64)?;
            block[read..].fill(0);
        }
        tail.end = NOWHERE;
        Ok(head)
    }
}

impl File for DirectFile {
    fn read_at(&self, _buf: &mut [u8], _pos: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], pos: u64) -> io::Result<usize> {
        let mut tail = self.tail.lock();
        let head = self.begin(&mut tail, pos)?;
        let len = len_of(bufs);
        let mut source = Source { slices: bufs, offset: 0 };
        let mut at = pos - head as u64;
        let mut filled = head + source.take(&mut tail.buffer.bytes()[head..]);
        while filled == BUFFER_BYTES {
            write_blocks(&self.file, tail.buffer.bytes(), at)?;
            at += BUFFER_BYTES as u64;
            filled = source.take(tail.buffer.bytes());
        }
        let blocks = filled.next_multiple_of(DIRECT_BLOCK_BYTES);
        let buffer = tail.buffer.bytes();
        buffer[filled..blocks].fill(0);
        if blocks > 0 {
            write_blocks(&self.file, &buffer[..blocks], at)?;
        }
        let partial = filled % DIRECT_BLOCK_BYTES;
        buffer.copy_within(filled - partial..filled, 0);
        tail.end = pos + len as u64;
        Ok(len)
    }

    fn write_all_vectored_at(&self, bufs: &mut [IoSlice<'_>], pos: u64) -> io::Result<()> {
        self.write_vectored_at(bufs, pos).map(drop)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.tail.lock().end = NOWHERE;
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        super::real::allocate(&self.file, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Writes `bufs` at `pos` of `file`, which is `path`: whole blocks past the page cache, the odd bytes at both ends through it.
pub(super) fn write_uncached(file: &dyn File, path: &Path, bufs: &mut [IoSlice<'_>], pos: u64) -> io::Result<()> {
    let len = len_of(bufs);
    let head = (pos.next_multiple_of(DIRECT_BLOCK_BYTES as u64) - pos) as usize;
    if len < UNCACHED_BYTES_MIN + head {
        return file.write_all_vectored_at(bufs, pos);
    }
    // Renamed or removed meanwhile: the open file is still the right one.
    let Ok(direct) = open(path) else {
        return file.write_all_vectored_at(bufs, pos);
    };
    let mut source = Source { slices: bufs, offset: 0 };
    let mut buffer = Buffer::new();
    let (mut at, end) = (pos, pos + len as u64);
    let odd = source.take(&mut buffer.bytes()[..head]);
    file.write_all_at(&buffer.bytes()[..odd], at)?;
    at += odd as u64;
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        let blocks = left.min(BUFFER_BYTES) / DIRECT_BLOCK_BYTES * DIRECT_BLOCK_BYTES;
        let part = &mut buffer.bytes()[..if blocks == 0 { left } else { blocks }];
        source.take(part);
        match blocks {
            0 => file.write_all_at(part, at)?,
            _ => write_blocks(&direct, part, at)?,
        }
        at += part.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{FileSystem, OpenMode, RealFs, SimFs};
    use super::*;

    fn written(fs: &dyn FileSystem, path: &Path, writes: &[(usize, u8)], mode: OpenMode) -> Vec<u8> {
        fs.open(path, OpenMode::CreateNew).unwrap().allocate(3 << 20).unwrap();
        let file = fs.open(path, mode).unwrap();
        let mut at = 100;
        for (len, byte) in writes {
            let bytes = vec![*byte; *len];
            let (one, two) = bytes.split_at(len / 3);
            let mut slices = [IoSlice::new(one), IoSlice::new(&[]), IoSlice::new(two)];
            match mode {
                OpenMode::Direct => file.write_all_vectored_at(&mut slices, at).unwrap(),
                _ => file.write_all_uncached_at(&mut slices, at).unwrap(),
            }
            at += *len as u64;
        }
        file.sync_data().unwrap();
        let file = fs.open(path, OpenMode::Read).unwrap();
        let mut found = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut found, 0).unwrap();
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_is_written_past_the_cache_stands_where_it_should(
            writes in proptest::collection::vec((prop_oneof![1..9000usize, 100_000..600_000usize, Just(BUFFER_BYTES)], 1..=255u8), 1..5),
        ) {
            let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
            let mut expected = vec![0; 3 << 20];
            let mut at = 100;
            for (len, byte) in &writes {
                expected.resize(expected.len().max(at + len), 0);
                expected[at..at + len].fill(*byte);
                at += len;
            }
            prop_assert!(written(&RealFs, &dir.path().join("uncached"), &writes, OpenMode::ReadWrite) == expected);
            expected.resize(expected.len().max(at.next_multiple_of(DIRECT_BLOCK_BYTES)), 0);
            prop_assert!(written(&RealFs, &dir.path().join("direct"), &writes, OpenMode::Direct) == expected);
            prop_assert!(written(&SimFs::new(), Path::new("/direct"), &writes, OpenMode::Direct) == expected);
        }
    }

    #[test]
    fn a_direct_write_keeps_what_lies_before_it_and_zeroes_the_rest_of_its_block() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let sim = SimFs::new();
        for (fs, path) in [(&RealFs as &dyn FileSystem, dir.path().join("a")), (&sim, "/a".into())] {
            let file = fs.open(&path, OpenMode::CreateNew).unwrap();
            file.write_all_at(&[9; 3 * DIRECT_BLOCK_BYTES], 0).unwrap();
            fs.open(&path, OpenMode::Direct).unwrap().write_all_at(b"new", 5000).unwrap();
            let mut found = vec![0; 3 * DIRECT_BLOCK_BYTES];
            file.read_exact_at(&mut found, 0).unwrap();
            assert!(found[..5000].iter().all(|byte| *byte == 9));
            assert_eq!(&found[5000..5003], b"new");
            assert!(found[5003..8192].iter().all(|byte| *byte == 0));
            assert!(found[8192..].iter().all(|byte| *byte == 9));
        }
    }
}
