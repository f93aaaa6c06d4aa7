//! Reads a sealed segment from begin to end, batch by batch, a buffer at a time, and checks every batch (I36).

use std::ops::Range;
use std::sync::Arc;

use siltstone_common::fs::File;

use crate::batch::{BATCH_HEADER_LEN, BatchHeader, verify_crc};
use crate::error::ReadError;
use crate::segment::Segment;

/// See the module.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    file: Arc<dyn File>,
    limit: u64,
    /// Where the next batch may begin, and what all must lie below.
    offsets: Range<i64>,
    /// Where the buffer's begin lies in the file.
    position: u64,
    buffer: Vec<u8>,
    start: usize,
    io_bytes: usize,
    read_bytes: u64,
}

impl SegmentReader {
    /// The segment's batches from `position` on, which is a boundary, `io_bytes` at a time. `buffer` is an old one to be used again.
    pub(crate) fn new(file: Arc<dyn File>, segment: &Segment, position: u64, io_bytes: usize, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        let (offsets, limit) = (segment.base_offset..segment.end_offset, segment.size_bytes);
        Self { file, limit, offsets, position, buffer, start: 0, io_bytes, read_bytes: 0 }
    }

    /// The next batch; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(BatchHeader, &[u8])>, ReadError> {
        loop {
            let at = self.position + self.start as u64;
            let have = &self.buffer[self.start..];
            let mut need = BATCH_HEADER_LEN;
            if have.len() >= BATCH_HEADER_LEN {
                let header = BatchHeader::parse(have).map_err(|error| corrupt(at, error))?;
                need = header.total_len();
                if have.len() >= need {
                    let from = self.start;
                    self.start += need;
                    let batch = &self.buffer[from..self.start];
                    verify_crc(batch).map_err(|error| corrupt(at, error))?;
                    if header.base_offset < self.offsets.start || header.next_offset() > self.offsets.end {
                        return Err(corrupt(at, format_args!("offset {} is not in {:?}", header.base_offset, self.offsets)));
                    }
                    self.offsets.start = header.next_offset();
                    return Ok(Some((header, batch)));
                }
            }
            if at == self.limit {
                return Ok(None);
            }
            if at + need as u64 > self.limit {
                return Err(corrupt(at, "batch goes past the end of the segment"));
            }
            self.fill(need)?;
        }
    }

    /// Bytes read since the last call.
    pub(crate) fn take_read_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.read_bytes)
    }

    /// The buffer, for the next reader.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// Moves what is left to the front and reads on, until at least `need` bytes are there.
    fn fill(&mut self, need: usize) -> Result<(), ReadError> {
        self.buffer.drain(..self.start);
        self.position += self.start as u64;
        self.start = 0;
        let have = self.buffer.len();
        let left = usize::try_from(self.limit - self.position).unwrap_or(usize::MAX);
        self.buffer.resize(need.max(self.io_bytes).min(left), 0);
        if let Err(error) = self.file.read_exact_at(&mut self.buffer[have..], self.position + have as u64) {
            self.buffer.truncate(have);
            return Err(error.into());
        }
        self.read_bytes += (self.buffer.len() - have) as u64;
        Ok(())
    }
}

fn corrupt(position: u64, reason: impl ToString) -> ReadError {
    ReadError::Corrupt { offset: -1, reason: format!("at position {position}: {}", reason.to_string()) }
}
