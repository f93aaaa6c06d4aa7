//! The records of the manifest, in the form they have on disk.
//!
//! ```text
//! file: magic "SILTMAN1", version u32 = 2, 4 zero bytes, then groups; behind the last one zeroes, or what a torn append left
//! group (what one append brought): payload length u32, crc32c of the group's position in the file as u64 and of the payload, payload = records
//! record: length of what follows u32, kind u8, then
//!   1 partition   topic id 16, partition i32, covered sequence u64, log start i64, end offset i64, snapshot offset i64,
//!                 epoch count u32, {epoch i32, start offset i64}*, segment count u32,
//!                 {base i64, last i64, size u64, max timestamp i64, first append i64, flags u8, [generation u32]}*
//!   2 removed     topic id 16, partition i32, covered sequence u64
//!   3 wal trim    first live sequence u64
//!   4 opened
//!   5 closed      next sequence u64
//!   6 cleaned     cleaned end i64, then as 1
//! ```
//! Segment flags: 1 sealed, 2 has aborted transactions, 4 the index file is there though it is not sealed, 8 a generation follows.

use siltstone_common::{TopicId, TopicIdPartition};
use uuid::Uuid;

use crate::codec::{Fields, crc32c};
use crate::epochs::EpochEntry;
use crate::segment::SegmentName;

/// First bytes of the file.
pub(crate) const FILE_HEADER: [u8; 16] = *b"SILTMAN1\0\0\0\x02\0\0\0\0";
/// Bytes before a group's payload.
const GROUP_PREFIX_LEN: usize = 8;
/// Bytes before a record's kind.
const RECORD_PREFIX_LEN: usize = 4;
const FLAG_SEALED: u8 = 1;
const FLAG_ABORTS: u8 = 2;
const FLAG_INDEXED: u8 = 4;
const FLAG_GENERATION: u8 = 8;

/// What is known, synced, of one segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRecord {
    pub(crate) base_offset: i64,
    /// How often it was cleaned: part of its files' name.
    pub(crate) generation: u32,
    /// `base_offset - 1` while empty.
    pub(crate) last_offset: i64,
    /// Bytes that are synced.
    pub(crate) size_bytes: u64,
    pub(crate) max_timestamp_ms: i64,
    /// When its first record was appended, for `segment.ms`.
    pub(crate) first_append_ms: i64,
    pub(crate) sealed: bool,
    pub(crate) has_aborts: bool,
    /// Not sealed, but its index file covers `size_bytes` (after a clean stop).
    pub(crate) indexed: bool,
}

/// What the segment files of one partition hold, synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionRecord {
    pub(crate) id: TopicIdPartition,
    /// WAL entries of this partition up to this sequence are in the segment files, or void.
    pub(crate) covered_sequence: u64,
    pub(crate) log_start: i64,
    /// Offset after the last synced batch: replay goes on there.
    pub(crate) end_offset: i64,
    /// Offset of the newest producer snapshot; -1 if there is none and the state is to be had by reading all that is there.
    pub(crate) snapshot_offset: i64,
    pub(crate) epochs: Vec<EpochEntry>,
    /// Compaction has seen every record below; 0 if it never ran.
    pub(crate) cleaned_end: i64,
    /// Oldest first.
    pub(crate) segments: Vec<SegmentRecord>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// The newest record of a partition counts.
    Partition(PartitionRecord),
    /// The partition is gone; WAL entries up to the sequence are void.
    Removed { id: TopicIdPartition, covered_sequence: u64 },
    /// WAL entries below the sequence are not needed.
    WalTrim { first_live_sequence: u64 },
    /// Work began: a record before it does not make a stop clean.
    Opened,
    /// As the last record: the stop was clean, and the WAL holds nothing that is needed.
    Closed { next_sequence: u64 },
}

/// `records` as one append has them at `position` of the file: all of them are there or none is.
pub(crate) fn encode_group(records: &[Record], position: u64) -> Vec<u8> {
    let mut out = vec![0; GROUP_PREFIX_LEN];
    records.iter().for_each(|record| record.encode(&mut out));
    let payload_len = (out.len() - GROUP_PREFIX_LEN) as u32;
    let crc = crc32c(&[&position.to_be_bytes(), &out[GROUP_PREFIX_LEN..]]);
    out[..4].copy_from_slice(&payload_len.to_be_bytes());
    out[4..8].copy_from_slice(&crc.to_be_bytes());
    out
}

/// The group at the start of `bytes`, which is `position` of the file, and how long it is; `None` if it does not check out.
pub(crate) fn decode_group(bytes: &[u8], position: u64) -> Option<(Vec<Record>, usize)> {
    let mut fields = Fields::new(bytes);
    let (len, crc) = (fields.u32()? as usize, fields.u32()?);
    let mut payload = fields.rest().get(..len).filter(|payload| !payload.is_empty())?;
    if crc32c(&[&position.to_be_bytes(), payload]) != crc {
        return None;
    }
    let mut records = Vec::new();
    while !payload.is_empty() {
        let (record, len) = Record::decode(payload)?;
        records.push(record);
        payload = &payload[len..];
    }
    Some((records, GROUP_PREFIX_LEN + len))
}

impl Record {
    /// Appends the record to `out`.
    fn encode(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&[0; RECORD_PREFIX_LEN]);
        match self {
            Record::Partition(record) => record.encode(out),
            Record::Removed { id, covered_sequence } => {
                out.push(2);
                put_id(out, *id);
                out.extend_from_slice(&covered_sequence.to_be_bytes());
            }
            Record::WalTrim { first_live_sequence } => {
                out.push(3);
                out.extend_from_slice(&first_live_sequence.to_be_bytes());
            }
            Record::Opened => out.push(4),
            Record::Closed { next_sequence } => {
                out.push(5);
                out.extend_from_slice(&next_sequence.to_be_bytes());
            }
        }
        let len = (out.len() - begin - RECORD_PREFIX_LEN) as u32;
        out[begin..begin + RECORD_PREFIX_LEN].copy_from_slice(&len.to_be_bytes());
    }

    /// The record at the start of `bytes` and how long it is; `None` if it does not check out.
    fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut fields = Fields::new(bytes);
        let len = fields.u32()? as usize;
        let payload = fields.rest().get(..len)?;
        Some((Self::decode_payload(payload)?, RECORD_PREFIX_LEN + len))
    }

    fn decode_payload(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(payload);
        let record = match fields.u8()? {
            1 => Record::Partition(PartitionRecord::decode(0, &mut fields)?),
            2 => Record::Removed { id: id(&mut fields)?, covered_sequence: fields.u64()? },
            3 => Record::WalTrim { first_live_sequence: fields.u64()? },
            4 => Record::Opened,
            5 => Record::Closed { next_sequence: fields.u64()? },
            6 => Record::Partition(PartitionRecord::decode(fields.i64()?, &mut fields)?),
            _ => return None,
        };
        fields.rest().is_empty().then_some(record)
    }
}

impl PartitionRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        if self.cleaned_end == 0 {
            out.push(1);
        } else {
            out.push(6);
            out.extend_from_slice(&self.cleaned_end.to_be_bytes());
        }
        put_id(out, self.id);
        out.extend_from_slice(&self.covered_sequence.to_be_bytes());
        out.extend_from_slice(&self.log_start.to_be_bytes());
        out.extend_from_slice(&self.end_offset.to_be_bytes());
        out.extend_from_slice(&self.snapshot_offset.to_be_bytes());
        out.extend_from_slice(&(self.epochs.len() as u32).to_be_bytes());
        for entry in &self.epochs {
            out.extend_from_slice(&entry.epoch.to_be_bytes());
            out.extend_from_slice(&entry.start_offset.to_be_bytes());
        }
        out.extend_from_slice(&(self.segments.len() as u32).to_be_bytes());
        for segment in &self.segments {
            out.extend_from_slice(&segment.base_offset.to_be_bytes());
            out.extend_from_slice(&segment.last_offset.to_be_bytes());
            out.extend_from_slice(&segment.size_bytes.to_be_bytes());
            out.extend_from_slice(&segment.max_timestamp_ms.to_be_bytes());
            out.extend_from_slice(&segment.first_append_ms.to_be_bytes());
            out.push(segment.flags());
            if segment.generation > 0 {
                out.extend_from_slice(&segment.generation.to_be_bytes());
            }
        }
    }

    fn decode(cleaned_end: i64, fields: &mut Fields<'_>) -> Option<Self> {
        let mut record = Self {
            id: id(fields)?,
            covered_sequence: fields.u64()?,
            log_start: fields.i64()?,
            end_offset: fields.i64()?,
            snapshot_offset: fields.i64()?,
            epochs: Vec::new(),
            cleaned_end,
            segments: Vec::new(),
        };
        for _ in 0..fields.u32()? {
            record.epochs.push(EpochEntry { epoch: fields.i32()?, start_offset: fields.i64()? });
        }
        for _ in 0..fields.u32()? {
            record.segments.push(SegmentRecord::decode(fields)?);
        }
        Some(record)
    }
}

impl SegmentRecord {
    /// What its files are called.
    pub(crate) fn name(&self) -> SegmentName {
        SegmentName { base_offset: self.base_offset, generation: self.generation }
    }

    fn flags(&self) -> u8 {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        flag(self.sealed, FLAG_SEALED)
            | flag(self.has_aborts, FLAG_ABORTS)
            | flag(self.indexed, FLAG_INDEXED)
            | flag(self.generation > 0, FLAG_GENERATION)
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let base_offset = fields.i64()?;
        let (last_offset, size_bytes) = (fields.i64()?, fields.u64()?);
        let (max_timestamp_ms, first_append_ms, flags) = (fields.i64()?, fields.i64()?, fields.u8()?);
        let generation = if flags & FLAG_GENERATION != 0 { fields.u32()? } else { 0 };
        Some(Self {
            base_offset,
            generation,
            last_offset,
            size_bytes,
            max_timestamp_ms,
            first_append_ms,
            sealed: flags & FLAG_SEALED != 0,
            has_aborts: flags & FLAG_ABORTS != 0,
            indexed: flags & FLAG_INDEXED != 0,
        })
    }
}

fn put_id(out: &mut Vec<u8>, id: TopicIdPartition) {
    out.extend_from_slice(id.topic_id.0.as_bytes());
    out.extend_from_slice(&id.partition.to_be_bytes());
}

fn id(fields: &mut Fields<'_>) -> Option<TopicIdPartition> {
    let topic_id = TopicId(Uuid::from_bytes(fields.array()?));
    Some(TopicIdPartition::new(topic_id, fields.i32()?))
}
