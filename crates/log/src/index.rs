//! The sparse index of a segment by offset and by time, and the two files beside a sealed segment: that index, and its aborted transactions.
//!
//! Both files are sealed (magic, version, CRC-32C) and have golden files. A damaged one is no loss: both can be had by reading the segment.

use bytes::{Buf, BufMut, Bytes};

use crate::producers::AbortedTxn;
pub use crate::sealed::UnsealError;
use crate::sealed::{seal, unseal};
use crate::segment::IndexEntry;

const INDEX_MAGIC: [u8; 4] = *b"SSIX";
const INDEX_VERSION: u16 = 1;
const INDEX_ENTRY_LEN: usize = 24;
const ABORTED_MAGIC: [u8; 4] = *b"SSTX";
const ABORTED_VERSION: u16 = 1;
const ABORTED_ENTRY_LEN: usize = 32;

/// Where a scan for the batch that holds `offset` begins: the last indexed batch at or below it, or the segment's begin.
pub fn position_for_offset(entries: &[IndexEntry], offset: i64) -> u64 {
    let after = entries.partition_point(|entry| entry.offset <= offset);
    after.checked_sub(1).and_then(|at| entries.get(at)).map_or(0, |entry| entry.position)
}

/// Where a scan for the first batch with a max timestamp of at least `timestamp_ms` begins: no batch before has one. If the segment
/// has such a batch at all is for its max timestamp to say.
pub fn position_for_timestamp(entries: &[IndexEntry], timestamp_ms: i64) -> u64 {
    // An entry's timestamp includes its own batch, so the batch may lie anywhere from the last entry below on.
    let reached = entries.partition_point(|entry| entry.max_timestamp_ms < timestamp_ms);
    reached.checked_sub(1).and_then(|at| entries.get(at)).map_or(0, |entry| entry.position)
}

/// The index file's bytes.
pub fn encode_index(entries: &[IndexEntry]) -> Bytes {
    seal(INDEX_MAGIC, INDEX_VERSION, |out| {
        out.reserve(entries.len() * INDEX_ENTRY_LEN + 4);
        for entry in entries {
            out.put_i64(entry.offset);
            out.put_u64(entry.position);
            out.put_i64(entry.max_timestamp_ms);
        }
    })
}

/// The entries of an index file.
///
/// # Errors
/// [`UnsealError`] if it is not exactly what [`encode_index`] wrote, or does not ascend.
pub fn decode_index(bytes: &[u8]) -> Result<Vec<IndexEntry>, UnsealError> {
    let mut body = unseal(INDEX_MAGIC, INDEX_VERSION, bytes)?;
    let mut entries: Vec<IndexEntry> = Vec::with_capacity(body.len() / INDEX_ENTRY_LEN);
    while !body.is_empty() {
        let entry = IndexEntry { offset: body.try_get_i64()?, position: body.try_get_u64()?, max_timestamp_ms: body.try_get_i64()? };
        let ascends = entries.last().is_none_or(|last| {
            entry.offset > last.offset && entry.position > last.position && entry.max_timestamp_ms >= last.max_timestamp_ms
        });
        if !ascends {
            return Err(UnsealError::Invalid("index entries do not ascend"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// The bytes of the file of aborted transactions.
pub fn encode_aborted(aborted: &[AbortedTxn]) -> Bytes {
    seal(ABORTED_MAGIC, ABORTED_VERSION, |out| {
        for txn in aborted {
            out.put_i64(txn.producer_id);
            out.put_i64(txn.first_offset);
            out.put_i64(txn.last_offset);
            out.put_i64(txn.last_stable_offset);
        }
    })
}

/// The aborted transactions of such a file.
///
/// # Errors
/// [`UnsealError`] if it is not exactly what [`encode_aborted`] wrote.
pub fn decode_aborted(bytes: &[u8]) -> Result<Vec<AbortedTxn>, UnsealError> {
    let mut body = unseal(ABORTED_MAGIC, ABORTED_VERSION, bytes)?;
    let mut aborted = Vec::with_capacity(body.len() / ABORTED_ENTRY_LEN);
    while !body.is_empty() {
        let txn = AbortedTxn {
            producer_id: body.try_get_i64()?,
            first_offset: body.try_get_i64()?,
            last_offset: body.try_get_i64()?,
            last_stable_offset: body.try_get_i64()?,
        };
        if txn.first_offset > txn.last_offset {
            return Err(UnsealError::Invalid("a transaction ends before it begins"));
        }
        aborted.push(txn);
    }
    Ok(aborted)
}

#[cfg(test)]
mod tests;
