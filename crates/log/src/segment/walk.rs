//! Walks the batch headers of a segment file, a window at a time.

use std::io;
use std::sync::Arc;

use siltstone_common::fs::File;

use crate::batch::{BATCH_HEADER_LEN, BatchHeader};
use crate::error::ReadError;

const WINDOW_BYTES: usize = 8 << 10;

/// A walk over `file` below `limit`, which is a batch boundary.
#[derive(Debug)]
pub(crate) struct Walker {
    file: Arc<dyn File>,
    limit: u64,
    may_wait: bool,
    start: u64,
    window: Vec<u8>,
}

impl Walker {
    /// See the type.
    pub(crate) fn new(file: Arc<dyn File>, limit: u64) -> Self {
        Self { file, limit, may_wait: true, start: 0, window: Vec::new() }
    }

    /// A walk that ends with `WouldBlock` where the disk would have to be waited for.
    pub(crate) fn resident(file: Arc<dyn File>, limit: u64) -> Self {
        Self { may_wait: false, ..Self::new(file, limit) }
    }

    /// The header of the batch that begins at `position`; `None` at the limit. `offset` is what was asked for, for the error.
    pub(crate) fn header_at(&mut self, position: u64, offset: i64) -> Result<Option<BatchHeader>, ReadError> {
        if position >= self.limit {
            return Ok(None);
        }
        let corrupt = |reason: String| ReadError::Corrupt { offset, reason };
        let bytes = self.at(position, BATCH_HEADER_LEN)?;
        let header = BatchHeader::parse(bytes).map_err(|error| corrupt(format!("{error} at position {position}")))?;
        if position + header.total_len() as u64 > self.limit {
            return Err(corrupt(format!("batch at position {position} goes past the end of the segment")));
        }
        Ok(Some(header))
    }

    /// The whole batch at `position`.
    pub(crate) fn batch(&self, position: u64, header: &BatchHeader) -> io::Result<Vec<u8>> {
        let mut batch = vec![0; header.total_len()];
        self.file.read_exact_at(&mut batch, position)?;
        Ok(batch)
    }

    fn at(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let held = self.start..self.start + self.window.len() as u64;
        if position < held.start || position + len as u64 > held.end {
            let wanted = (self.limit - position).min(WINDOW_BYTES as u64) as usize;
            self.window.resize(wanted, 0);
            self.start = position;
            let filled = match self.may_wait {
                true => self.file.read_exact_at(&mut self.window, position),
                false => match self.file.read_resident_at(&mut self.window, position) {
                    Ok(read) if read < wanted => Err(io::ErrorKind::WouldBlock.into()),
                    other => other.map(drop),
                },
            };
            if let Err(error) = filled {
                self.window.clear();
                return Err(error);
            }
        }
        let from = (position - self.start) as usize;
        self.window.get(from..from + len).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
