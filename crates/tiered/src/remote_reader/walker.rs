//! Walks whole batches over consecutive chunks of an object and checks them (I36): CRC, continuity of offsets, lengths within the segment.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use siltstone_log::batch::{BATCH_HEADER_LEN, BatchHeader, verify_crc};

use super::RemoteRead;

/// What a sink wants of a batch, by its header.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Checked and handed over.
    Take,
    /// Passed over.
    Skip,
    /// Nothing of it nor of what follows.
    Stop,
}

/// Takes batches.
pub(super) trait Sink {
    /// Decides by the header.
    fn wants(&mut self, header: &BatchHeader) -> Want;
    /// Takes the checked batch `chunk[range]`; false to stop.
    ///
    /// # Errors
    /// What is wrong with its records.
    fn take(&mut self, header: &BatchHeader, chunk: &Bytes, range: Range<usize>) -> Result<bool, String>;
}

/// See the module. One walker walks one segment.
#[derive(Debug)]
pub(super) struct Walker {
    /// Beginning of a batch that continues in the next chunk.
    carry: BytesMut,
    position: u64,
    data_bytes: u64,
    next_offset: i64,
}

impl Walker {
    /// Begins at the batch at `position`, whose base offset is `base_offset`, in a segment of `data_bytes`.
    pub(super) fn new(position: u64, base_offset: i64, data_bytes: u64) -> Self {
        Self { carry: BytesMut::new(), position, data_bytes, next_offset: base_offset }
    }

    /// Position of the next byte to be fed.
    pub(super) fn position(&self) -> u64 {
        self.position + self.carry.len() as u64
    }

    /// Position of the next batch.
    pub(super) fn batch_position(&self) -> u64 {
        self.position
    }

    /// Base offset of the next batch.
    pub(super) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// True at the segment's end.
    pub(super) fn is_at_end(&self) -> bool {
        self.position == self.data_bytes
    }

    /// Walks over the next bytes; false if the sink wants no more.
    ///
    /// # Errors
    /// A text that says what does not check out.
    pub(super) fn feed(&mut self, chunk: &Bytes, sink: &mut impl Sink) -> Result<bool, String> {
        let mut at = 0;
        if !self.carry.is_empty() {
            match self.complete_carried(chunk, sink)? {
                Some((used, true)) => at = used,
                Some((_, false)) => return Ok(false),
                None => return Ok(true),
            }
        }
        while at < chunk.len() {
            let rest = &chunk[at..];
            let header = (rest.len() >= BATCH_HEADER_LEN).then(|| self.header(rest)).transpose()?;
            let want = header.map_or(Want::Take, |header| sink.wants(&header));
            if want == Want::Stop {
                return Ok(false);
            }
            let Some(header) = header.filter(|header| header.total_len() <= rest.len()) else {
                self.carry.extend_from_slice(rest);
                return Ok(true);
            };
            let range = at..at + header.total_len();
            at = range.end;
            if !self.pass(&header, chunk, range, want, sink)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Completes the carried batch from `chunk`: bytes used and whether the sink goes on; `None` if the batch is still not whole.
    fn complete_carried(&mut self, chunk: &Bytes, sink: &mut impl Sink) -> Result<Option<(usize, bool)>, String> {
        let missing = BATCH_HEADER_LEN.saturating_sub(self.carry.len()).min(chunk.len());
        self.carry.extend_from_slice(&chunk[..missing]);
        if self.carry.len() < BATCH_HEADER_LEN {
            return Ok(None);
        }
        let header = self.header(&self.carry)?;
        let want = sink.wants(&header);
        if want == Want::Stop {
            return Ok(Some((missing, false)));
        }
        let used = chunk.len().min(missing + (header.total_len() - self.carry.len()));
        self.carry.extend_from_slice(&chunk[missing..used]);
        if self.carry.len() < header.total_len() {
            return Ok(None);
        }
        let batch = std::mem::take(&mut self.carry).freeze();
        let range = 0..batch.len();
        self.pass(&header, &batch, range, want, sink).map(|on| Some((used, on)))
    }

    fn header(&self, bytes: &[u8]) -> Result<BatchHeader, String> {
        let at = self.position;
        let header = BatchHeader::parse(bytes).map_err(|error| format!("the batch at {at}: {error}"))?;
        if header.total_len() as u64 > self.data_bytes.saturating_sub(at) {
            return Err(format!("the batch at {at} reaches past the segment's end"));
        }
        // Compaction leaves gaps (I7).
        if header.base_offset < self.next_offset || header.last_offset_delta < 0 {
            return Err(format!("the batch at {at} begins at offset {}, expected {} or above", header.base_offset, self.next_offset));
        }
        Ok(header)
    }

    fn pass(&mut self, header: &BatchHeader, chunk: &Bytes, range: Range<usize>, want: Want, sink: &mut impl Sink) -> Result<bool, String> {
        let at = self.position;
        self.position += range.len() as u64;
        self.next_offset = header.last_offset().saturating_add(1);
        if want == Want::Skip {
            return Ok(true);
        }
        verify_crc(&chunk[range.clone()]).map_err(|error| format!("the batch at {at}: {error}"))?;
        sink.take(header, chunk, range)
    }
}

/// Collects what a Fetch asked for.
#[derive(Debug)]
pub(super) struct FetchSink {
    offset: i64,
    max_bytes: usize,
    at_least_one: bool,
    read: RemoteRead,
    /// Neighbouring batches of one chunk become one slice.
    run: Option<(Bytes, Range<usize>)>,
    full: bool,
}

impl FetchSink {
    pub(super) fn new(offset: i64, max_bytes: usize, at_least_one: bool) -> Self {
        let read = RemoteRead { next_offset: offset, ..RemoteRead::default() };
        Self { offset, max_bytes, at_least_one, read, run: None, full: false }
    }

    /// True once nothing more fits.
    pub(super) fn is_full(&self) -> bool {
        self.full || self.read.size_bytes >= self.max_bytes.max(1)
    }

    /// True before the first batch.
    pub(super) fn is_empty(&self) -> bool {
        self.read.size_bytes == 0
    }

    pub(super) fn finish(mut self) -> RemoteRead {
        self.end_run();
        self.read
    }

    fn end_run(&mut self) {
        if let Some((chunk, range)) = self.run.take() {
            // A small slice of a large chunk would keep all of it in memory until the answer is sent: a Fetch of a thousand cold partitions a
            // thousand chunks.
            let is_small = range.len() < chunk.len() / 4;
            self.read.slices.push(if is_small { Bytes::copy_from_slice(&chunk[range]) } else { chunk.slice(range) });
        }
    }
}

impl Sink for FetchSink {
    fn wants(&mut self, header: &BatchHeader) -> Want {
        if header.last_offset() < self.offset {
            return Want::Skip;
        }
        let fits = self.read.size_bytes.saturating_add(header.total_len()) <= self.max_bytes;
        if fits || (self.at_least_one && self.read.size_bytes == 0) {
            return Want::Take;
        }
        self.full = true;
        Want::Stop
    }

    fn take(&mut self, header: &BatchHeader, chunk: &Bytes, range: Range<usize>) -> Result<bool, String> {
        self.read.size_bytes += range.len();
        self.read.next_offset = header.last_offset() + 1;
        match &mut self.run {
            Some((current, run)) if current.as_ptr() == chunk.as_ptr() && run.end == range.start => run.end = range.end,
            _ => {
                self.end_run();
                self.run = Some((chunk.clone(), range));
            }
        }
        Ok(true)
    }
}
