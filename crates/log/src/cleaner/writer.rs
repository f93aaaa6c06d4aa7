//! Writes a cleaned segment under a name of its own. Nothing refers to it until [`PartitionLog::replace_segments`](crate::PartitionLog) says so;
//! should it not come to that, by failure or cancellation, what was written goes when the writer is dropped.

use std::path::PathBuf;
use std::sync::Arc;

use siltstone_common::fault;
use siltstone_common::fs::{File, FileSystem, OpenMode};

use crate::batch::batches;
use crate::error::LogError;
use crate::index::{encode_aborted, encode_index};
use crate::producers::AbortedTxn;
use crate::segment::{FileKind, Phase, Segment, path_of};

/// See the module.
#[derive(Debug)]
pub(crate) struct CleanedWriter {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    file: Arc<dyn File>,
    path: PathBuf,
    /// What goes unless it is kept.
    files: Vec<PathBuf>,
    segment: Segment,
    /// What is not in the file yet.
    buffer: Vec<u8>,
    io_bytes: usize,
    index_interval_bytes: u32,
    written_bytes: u64,
}

impl CleanedWriter {
    /// Begins the file of `segment`, which is empty.
    pub(crate) fn create(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        segment: Segment,
        io_bytes: usize,
        index_interval_bytes: u32,
    ) -> Result<Self, LogError> {
        let path = path_of(&dir, segment.name(), FileKind::Cleaned);
        let file = fs.open(&path, OpenMode::Truncate).map_err(|error| LogError::io(&path, error))?;
        let files = vec![path.clone()];
        Ok(Self { fs, dir, file, path, files, segment, buffer: Vec::new(), io_bytes, index_interval_bytes, written_bytes: 0 })
    }

    /// Where the next batches are to be put; to be followed by [`CleanedWriter::added`].
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Takes note of what was put into the buffer behind its first `from` bytes.
    pub(crate) fn added(&mut self, from: usize) -> Result<(), LogError> {
        for batch in batches(&self.buffer[from..]) {
            let (header, _) =
                batch.map_err(|error| LogError::Corrupt { path: self.path.display().to_string(), reason: error.to_string() })?;
            self.segment.add(&header, self.index_interval_bytes);
        }
        if self.buffer.len() >= self.io_bytes { self.flush() } else { Ok(()) }
    }

    /// Bytes written since the last call.
    pub(crate) fn take_written_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.written_bytes)
    }

    fn flush(&mut self) -> Result<(), LogError> {
        let position = self.segment.size_bytes - self.buffer.len() as u64;
        self.file.write_all_at(&self.buffer, position).map_err(|error| LogError::io(&self.path, error))?;
        self.written_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Syncs the batches, puts index and aborted transactions beside them, and gives all their names: the segment, complete on disk. It goes
    /// again unless [`CleanedWriter::keep`] follows.
    pub(crate) fn finish(&mut self, aborted: &[AbortedTxn]) -> Result<Segment, LogError> {
        self.flush()?;
        self.sync_and_rename(aborted)?;
        let segment = std::mem::replace(&mut self.segment, Segment::new(0));
        let (size_bytes, end_offset) = (segment.size_bytes, segment.end_offset);
        Ok(Segment {
            written_bytes: size_bytes,
            synced_bytes: size_bytes,
            synced_end: end_offset,
            indexed_bytes: size_bytes,
            index: Vec::new(),
            has_aborts: !aborted.is_empty(),
            phase: Phase::Sealed,
            ..segment
        })
    }

    fn sync_and_rename(&mut self, aborted: &[AbortedTxn]) -> Result<(), LogError> {
        let path = self.path.clone();
        let failed = |error| LogError::io(&path, error);
        fault::point("clean.written").map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        let index = encode_index(&self.segment.index);
        self.write_beside(FileKind::Index, &index)?;
        if !aborted.is_empty() {
            self.write_beside(FileKind::Aborted, &encode_aborted(aborted))?;
        }
        fault::point("clean.before-rename").map_err(failed)?;
        let renamed = path_of(&self.dir, self.segment.name(), FileKind::Log);
        self.fs.rename(&path, &renamed).map_err(failed)?;
        self.files[0] = renamed;
        self.fs.sync_dir(&self.dir).map_err(failed)?;
        fault::point("clean.renamed").map_err(failed)
    }

    /// The segment is in use: its files stay.
    pub(crate) fn keep(mut self) {
        self.files.clear();
    }

    fn write_beside(&mut self, kind: FileKind, bytes: &[u8]) -> Result<(), LogError> {
        let path = path_of(&self.dir, self.segment.name(), kind);
        self.files.push(path.clone());
        let write = || {
            let file = self.fs.open(&path, OpenMode::Truncate)?;
            file.write_all_at(bytes, 0)?;
            file.sync_all()
        };
        write().map_err(|error| LogError::io(&path, error))
    }
}

impl Drop for CleanedWriter {
    fn drop(&mut self) {
        for path in &self.files {
            match self.fs.remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "could not remove an unfinished cleaned segment");
                }
                _ => {}
            }
        }
    }
}
