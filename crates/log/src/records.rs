//! Records inside a batch: an allocation-free iterator, and a builder for the batches that the broker itself writes.

use bytes::BytesMut;

use crate::batch::{BatchError, BatchHeader, Compression};

/// One record, borrowed from the (inflated) batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, ms.
    pub timestamp_ms: i64,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in order, duplicate keys kept.
    pub headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

/// Iterates over the records of `batch` (one whole batch). `body` is the inflated record section: for uncompressed batches
/// the bytes after the header, else the result of [`inflate`]. Each item checks all lengths against what remains.
pub fn records<'a>(header: &BatchHeader, body: &'a [u8]) -> RecordIter<'a> {
    let _ = header;
    RecordIter { rest: body }
}

/// See [`records`].
#[derive(Debug)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let _ = self.rest;
        todo!()
    }
}

/// The record section of `batch` (one whole batch), inflated if compressed, at most `limit` bytes.
pub fn inflate<'a>(header: &BatchHeader, batch: &'a [u8], limit: usize) -> Result<std::borrow::Cow<'a, [u8]>, BatchError> {
    let _ = (header, batch, limit);
    todo!()
}

/// A header of a record to be written.
pub type HeaderToWrite<'a> = (&'a [u8], Option<&'a [u8]>);

/// Builds one batch, record by record.
#[derive(Debug)]
pub struct BatchBuilder {
    _private: (),
}

impl BatchBuilder {
    /// A builder without producer id; offsets start at 0 (the log stamps them).
    pub fn new(compression: Compression) -> Self {
        let _ = compression;
        todo!()
    }

    /// Sets the producer's id, epoch, first sequence and whether the batch belongs to a transaction.
    pub fn producer(self, producer_id: i64, producer_epoch: i16, base_sequence: i32, transactional: bool) -> Self {
        let _ = (producer_id, producer_epoch, base_sequence, transactional);
        todo!()
    }

    /// Marks the batch as holding control records.
    pub fn control(self) -> Self {
        todo!()
    }

    /// Adds a record.
    pub fn record(&mut self, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[HeaderToWrite<'_>]) {
        let _ = (timestamp_ms, key, value, headers);
        todo!()
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// True before the first record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The batch, with its CRC.
    pub fn build(self) -> BytesMut {
        todo!()
    }
}
