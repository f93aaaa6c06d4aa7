//! The remote segment object: raw batches, then blocks, a footer and a fixed-size trailer. An object alone is enough to serve reads
//! and to rebuild its metadata row.
//!
//! ```text
//! batches                                  data_bytes
//! block: index                             24 bytes an entry: base offset, position, largest timestamp so far
//! block: aborted transactions              32 bytes each
//! block: producer snapshot                 the log's own format
//! block: leader epochs                     12 bytes each
//! footer                                   what the row says, counts, CRC-64 of the batches, position and CRC-64 of each block
//! trailer (28 bytes)                       tail length, footer length, CRC-64 of footer and trailer, version, magic
//! ```
//! All numbers are big-endian; checksums are CRC-64/NVME. Blocks of unknown kind are skipped, so a later version can add some.

use bytes::{BufMut, Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};
use siltstone_common::{TopicId, TopicIdPartition};
use siltstone_log::batch::BatchHeader;
use siltstone_log::epochs::EpochEntry;
use siltstone_log::producers::AbortedTxn;
use thiserror::Error;
use uuid::Uuid;

mod key;
#[cfg(test)]
mod tests;

pub use key::SegmentKey;

/// Bytes at the end of every object from which the rest of its tail is found.
pub const TRAILER_BYTES: usize = 28;
/// Largest tail that is read: more is not an object of ours.
pub const TAIL_BYTES_MAX: u64 = 256 << 20;
const MAGIC: &[u8; 6] = b"SILTSG";
const VERSION: u16 = 1;
const BLOCKS_MAX: usize = 64;

/// A tail that can't be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// Not an object of ours.
    #[error("the trailer is not one of a segment object")]
    BadMagic,
    /// Written by a newer version.
    #[error("object format version {0} is not known, the newest known is {VERSION}")]
    UnknownVersion(u16),
    /// A checksum does not match.
    #[error("the checksum of the {0} does not match")]
    BadChecksum(&'static str),
    /// Lengths or values that contradict each other.
    #[error("{0}")]
    Invalid(&'static str),
}

/// One sparse index entry of a remote segment.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RemoteIndexEntry {
    /// Base offset of the batch at `position`.
    pub base_offset: i64,
    /// Position of the batch in the object.
    pub position: u64,
    /// Largest timestamp from the segment's beginning up to the next entry, ms; -1 if none.
    pub max_timestamp_ms: i64,
}

/// What the footer says of the whole segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    /// Whose.
    pub id: TopicIdPartition,
    /// First offset.
    pub base_offset: i64,
    /// Last offset.
    pub last_offset: i64,
    /// Largest timestamp, ms; -1 if none.
    pub max_timestamp_ms: i64,
    /// Epoch of the leader that uploaded it.
    pub leader_epoch: i32,
    /// Unique per attempt (I23).
    pub attempt: Uuid,
    /// Number of records.
    pub records: u64,
    /// Number of batches.
    pub batches: u64,
    /// Bytes of batches.
    pub data_bytes: u64,
    /// CRC-64/NVME of the batches.
    pub data_checksum: u64,
}

/// Everything of an object behind its batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectTail {
    /// The footer.
    pub facts: SegmentFacts,
    /// Sparse index, ascending; the first entry is position 0.
    pub index: Vec<RemoteIndexEntry>,
    /// Aborted transactions that overlap the segment (I19).
    pub aborted: Vec<AbortedTxn>,
    /// Producer state as of the segment's end.
    pub producer_snapshot: Bytes,
    /// Leader epochs within the segment.
    pub leader_epochs: Vec<EpochEntry>,
}

#[derive(Copy, Clone, PartialEq, Eq)]
#[repr(u16)]
enum BlockKind {
    Index = 1,
    Aborted = 2,
    ProducerSnapshot = 3,
    LeaderEpochs = 4,
}

fn checksum(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// The trailer of an object.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Bytes from the end of the batches to the end of the object.
    pub tail_bytes: u64,
    footer_bytes: u32,
    checksum: u64,
}

impl Trailer {
    /// Reads a trailer from the last [`TRAILER_BYTES`] of an object (more bytes before are fine).
    ///
    /// # Errors
    /// `BadMagic`, `UnknownVersion`, or lengths that can't be.
    pub fn parse(end: &[u8]) -> Result<Self, FormatError> {
        let start = end.len().checked_sub(TRAILER_BYTES).ok_or(FormatError::BadMagic)?;
        let mut cursor = Cursor { rest: &end[start..] };
        let (tail_bytes, footer_bytes, checksum, version) = (cursor.u64()?, cursor.u32()?, cursor.u64()?, cursor.u16()?);
        if cursor.rest != MAGIC {
            return Err(FormatError::BadMagic);
        }
        if version != VERSION {
            return Err(FormatError::UnknownVersion(version));
        }
        if tail_bytes > TAIL_BYTES_MAX || u64::from(footer_bytes) + TRAILER_BYTES as u64 > tail_bytes {
            return Err(FormatError::Invalid("the trailer's lengths are not possible"));
        }
        Ok(Self { tail_bytes, footer_bytes, checksum })
    }

    fn encode(self, out: &mut BytesMut) {
        out.put_u64(self.tail_bytes);
        out.put_u32(self.footer_bytes);
        out.put_u64(self.checksum);
        out.put_u16(VERSION);
        out.put_slice(MAGIC);
    }

    /// CRC of the footer and of the trailer's other fields.
    fn checksum_of(self, footer: &[u8]) -> u64 {
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        digest.update(footer);
        digest.update(&self.tail_bytes.to_be_bytes());
        digest.update(&self.footer_bytes.to_be_bytes());
        digest.update(&VERSION.to_be_bytes());
        digest.finalize()
    }
}

impl ObjectTail {
    /// The bytes that follow the batches.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let mut blocks = Vec::new();
        let base = self.facts.data_bytes;
        let mut block = |kind: BlockKind, out: &mut BytesMut, write: &dyn Fn(&mut BytesMut)| {
            let start = out.len();
            write(out);
            blocks.push((kind as u16, base + start as u64, (out.len() - start) as u64, checksum(&out[start..])));
        };
        block(BlockKind::Index, &mut out, &|out| {
            for entry in &self.index {
                out.put_i64(entry.base_offset);
                out.put_u64(entry.position);
                out.put_i64(entry.max_timestamp_ms);
            }
        });
        block(BlockKind::Aborted, &mut out, &|out| {
            for txn in &self.aborted {
                out.put_i64(txn.producer_id);
                out.put_i64(txn.first_offset);
                out.put_i64(txn.last_offset);
                out.put_i64(txn.last_stable_offset);
            }
        });
        block(BlockKind::ProducerSnapshot, &mut out, &|out| out.put_slice(&self.producer_snapshot));
        block(BlockKind::LeaderEpochs, &mut out, &|out| {
            for entry in &self.leader_epochs {
                out.put_i32(entry.epoch);
                out.put_i64(entry.start_offset);
            }
        });
        let footer_start = out.len();
        self.facts.encode(&blocks, &mut out);
        let footer_bytes = (out.len() - footer_start) as u32;
        let mut trailer = Trailer { tail_bytes: (out.len() + TRAILER_BYTES) as u64, footer_bytes, checksum: 0 };
        trailer.checksum = trailer.checksum_of(&out[footer_start..]);
        trailer.encode(&mut out);
        out.freeze()
    }

    /// Reads the tail of an object of `object_bytes` in all: `tail` are its last bytes, exactly [`Trailer::tail_bytes`] of them.
    ///
    /// # Errors
    /// Whatever is wrong with it; every length is checked against what is there.
    pub fn parse(tail: &Bytes, object_bytes: u64) -> Result<Self, FormatError> {
        let trailer = Trailer::parse(tail)?;
        if trailer.tail_bytes != tail.len() as u64 || trailer.tail_bytes > object_bytes {
            return Err(FormatError::Invalid("the tail's length is not what its trailer says"));
        }
        let footer_end = tail.len() - TRAILER_BYTES;
        let footer = &tail[footer_end - trailer.footer_bytes as usize..footer_end];
        if trailer.checksum != trailer.checksum_of(footer) {
            return Err(FormatError::BadChecksum("footer"));
        }
        let (facts, blocks) = SegmentFacts::parse(footer)?;
        if facts.data_bytes.checked_add(trailer.tail_bytes) != Some(object_bytes) {
            return Err(FormatError::Invalid("batches and tail do not add up to the object's size"));
        }
        let find = |kind: BlockKind, name: &'static str| -> Result<Bytes, FormatError> {
            let Some(&(_, position, length, stated)) = blocks.iter().find(|block| block.0 == kind as u16) else {
                return Err(FormatError::Invalid("a block is missing"));
            };
            let start = position.checked_sub(facts.data_bytes).ok_or(FormatError::Invalid("a block lies among the batches"))?;
            let end = start.checked_add(length).filter(|end| *end <= footer_end as u64);
            let end = end.ok_or(FormatError::Invalid("a block lies outside of the tail"))?;
            let block = tail.slice(start as usize..end as usize);
            if checksum(&block) == stated { Ok(block) } else { Err(FormatError::BadChecksum(name)) }
        };
        let index = entries(&find(BlockKind::Index, "index")?, |cursor| {
            Ok(RemoteIndexEntry { base_offset: cursor.i64()?, position: cursor.u64()?, max_timestamp_ms: cursor.i64()? })
        })?;
        let aborted = entries(&find(BlockKind::Aborted, "aborted transactions")?, |cursor| {
            let (producer_id, first_offset) = (cursor.i64()?, cursor.i64()?);
            Ok(AbortedTxn { producer_id, first_offset, last_offset: cursor.i64()?, last_stable_offset: cursor.i64()? })
        })?;
        let leader_epochs = entries(&find(BlockKind::LeaderEpochs, "leader epochs")?, |cursor| {
            Ok(EpochEntry { epoch: cursor.i32()?, start_offset: cursor.i64()? })
        })?;
        let producer_snapshot = find(BlockKind::ProducerSnapshot, "producer snapshot")?;
        check_index(&index, &facts)?;
        Ok(Self { facts, index, aborted, producer_snapshot, leader_epochs })
    }

    /// Position of the batch, at or before which reading must begin to find `offset`.
    pub fn position_of(&self, offset: i64) -> u64 {
        let after = self.index.partition_point(|entry| entry.base_offset <= offset);
        self.index.get(after.saturating_sub(1)).map_or(0, |entry| entry.position)
    }

    /// Position from which reading finds the first batch whose largest timestamp is >= `timestamp_ms`; `None` if there is none.
    pub fn position_of_time(&self, timestamp_ms: i64) -> Option<u64> {
        let at = self.index.partition_point(|entry| entry.max_timestamp_ms < timestamp_ms);
        self.index.get(at).map(|entry| entry.position)
    }
}

/// An index that could send a reader outside of the batches is not used.
fn check_index(index: &[RemoteIndexEntry], facts: &SegmentFacts) -> Result<(), FormatError> {
    // Compaction may have taken what was before the first batch.
    let first = index.first().is_some_and(|entry| entry.position == 0 && entry.base_offset >= facts.base_offset);
    let ascending = index.windows(2).all(|pair| {
        pair[0].base_offset < pair[1].base_offset
            && pair[0].position < pair[1].position
            && pair[0].max_timestamp_ms <= pair[1].max_timestamp_ms
    });
    let inside = index.last().is_some_and(|entry| entry.position < facts.data_bytes && entry.base_offset <= facts.last_offset);
    if first && ascending && inside { Ok(()) } else { Err(FormatError::Invalid("the index is not ascending from the first batch")) }
}

type Block = (u16, u64, u64, u64);

impl SegmentFacts {
    fn encode(&self, blocks: &[Block], out: &mut BytesMut) {
        out.put_slice(self.id.topic_id.0.as_bytes());
        out.put_i32(self.id.partition);
        out.put_i64(self.base_offset);
        out.put_i64(self.last_offset);
        out.put_i64(self.max_timestamp_ms);
        out.put_i32(self.leader_epoch);
        out.put_slice(self.attempt.as_bytes());
        out.put_u64(self.records);
        out.put_u64(self.batches);
        out.put_u64(self.data_bytes);
        out.put_u64(self.data_checksum);
        out.put_u16(blocks.len() as u16);
        for (kind, position, length, checksum) in blocks {
            out.put_u16(*kind);
            out.put_u64(*position);
            out.put_u64(*length);
            out.put_u64(*checksum);
        }
    }

    fn parse(footer: &[u8]) -> Result<(Self, Vec<Block>), FormatError> {
        let mut cursor = Cursor { rest: footer };
        let topic_id = TopicId(Uuid::from_bytes(cursor.array()?));
        let id = TopicIdPartition::new(topic_id, cursor.i32()?);
        let (base_offset, last_offset, max_timestamp_ms) = (cursor.i64()?, cursor.i64()?, cursor.i64()?);
        let leader_epoch = cursor.i32()?;
        let attempt = Uuid::from_bytes(cursor.array()?);
        let (records, batches, data_bytes, data_checksum) = (cursor.u64()?, cursor.u64()?, cursor.u64()?, cursor.u64()?);
        let count = usize::from(cursor.u16()?);
        if count > BLOCKS_MAX {
            return Err(FormatError::Invalid("too many blocks"));
        }
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            blocks.push((cursor.u16()?, cursor.u64()?, cursor.u64()?, cursor.u64()?));
        }
        if !cursor.rest.is_empty() || base_offset < 0 || last_offset < base_offset {
            return Err(FormatError::Invalid("the footer contradicts itself"));
        }
        let facts =
            Self { id, base_offset, last_offset, max_timestamp_ms, leader_epoch, attempt, records, batches, data_bytes, data_checksum };
        Ok((facts, blocks))
    }
}

fn entries<T>(block: &[u8], read: impl Fn(&mut Cursor<'_>) -> Result<T, FormatError>) -> Result<Vec<T>, FormatError> {
    let mut cursor = Cursor { rest: block };
    let mut out = Vec::new();
    while !cursor.rest.is_empty() {
        out.push(read(&mut cursor)?);
    }
    Ok(out)
}

/// Reads big-endian numbers, never past the end.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(FormatError::Invalid("a field is cut short"))?;
        self.rest = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, FormatError> {
        self.array().map(i32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, FormatError> {
        self.array().map(i64::from_be_bytes)
    }
}

/// Builds the sparse index, counts and checks while batches pass by in order.
#[derive(Debug)]
pub struct IndexBuilder {
    interval_bytes: u64,
    position: u64,
    next_offset: i64,
    max_timestamp_ms: i64,
    records: u64,
    batches: u64,
    index: Vec<RemoteIndexEntry>,
}

impl IndexBuilder {
    /// For a segment of `data_bytes` that begins at `base_offset`. The interval keeps the index of a large segment near 200 KB.
    pub fn new(base_offset: i64, data_bytes: u64) -> Self {
        Self {
            interval_bytes: (data_bytes / 8192).clamp(4096, 1 << 20),
            position: 0,
            next_offset: base_offset,
            max_timestamp_ms: -1,
            records: 0,
            batches: 0,
            index: Vec::new(),
        }
    }

    /// Takes the next batch.
    ///
    /// # Errors
    /// A text, if its offsets go back (I7).
    pub fn push(&mut self, header: &BatchHeader) -> Result<(), String> {
        // Compaction leaves gaps (I7).
        if header.base_offset < self.next_offset || header.last_offset_delta < 0 {
            return Err(format!(
                "batch at {} begins at offset {}, expected {} or above",
                self.position, header.base_offset, self.next_offset
            ));
        }
        let due = self.index.last().is_none_or(|last| self.position - last.position >= self.interval_bytes);
        if due {
            let max_timestamp_ms = self.max_timestamp_ms;
            self.index.push(RemoteIndexEntry { base_offset: header.base_offset, position: self.position, max_timestamp_ms });
        }
        if header.record_count > 0 {
            self.max_timestamp_ms = self.max_timestamp_ms.max(header.max_timestamp);
        }
        if let Some(last) = self.index.last_mut() {
            last.max_timestamp_ms = self.max_timestamp_ms;
        }
        self.next_offset = header.last_offset() + 1;
        self.position += header.total_len() as u64;
        self.records += u64::try_from(header.record_count).unwrap_or(0);
        self.batches += 1;
        Ok(())
    }

    /// One past the last offset.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Bytes so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Largest timestamp so far, ms; -1 if none.
    pub fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp_ms
    }

    /// Index, records, batches.
    pub fn finish(self) -> (Vec<RemoteIndexEntry>, u64, u64) {
        (self.index, self.records, self.batches)
    }
}
