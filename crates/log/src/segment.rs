//! Hot segments: one file of raw batches with sparse offset and time indexes beside it.

mod files;
mod state;
mod walk;

pub(crate) use files::{FileKind, SegmentFiles, SegmentName, path_of, read_whole};
pub(crate) use state::{Phase, Segment};
pub(crate) use walk::Walker;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use siltstone_common::fs::File;

use crate::epochs::EpochEntry;
use crate::producers::AbortedTxn;

/// One sparse index entry: the batch that begins at `position` has base offset `offset`, and no batch before it in the segment
/// has a timestamp above `max_timestamp_ms`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// Base offset of the batch.
    pub offset: i64,
    /// Byte position of the batch in the segment.
    pub position: u64,
    /// Largest timestamp up to and including this batch, ms.
    pub max_timestamp_ms: i64,
}

/// A local segment, as retention and describe see it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SegmentStat {
    /// First offset.
    pub base_offset: i64,
    /// Last offset; `base_offset - 1` while empty.
    pub last_offset: i64,
    /// Bytes.
    pub size_bytes: u64,
    /// Largest timestamp, ms; -1 if none.
    pub max_timestamp_ms: i64,
    /// True once rolled: immutable.
    pub sealed: bool,
    /// How often compaction wrote it anew.
    pub generation: u32,
    /// About when it was written, ms: its age if it has no timestamps; -1 if that is not known.
    pub appended_ms: i64,
}

/// Everything that an upload needs of a sealed segment. The file stays readable while this is held, even if retention removes the name.
#[derive(Clone, Debug)]
pub struct SealedSegment {
    /// How often compaction wrote it anew.
    pub generation: u32,
    /// First offset.
    pub base_offset: i64,
    /// Last offset.
    pub last_offset: i64,
    /// Largest timestamp, ms.
    pub max_timestamp_ms: i64,
    /// About when it was written, ms: its age if it has no timestamps; -1 if that is not known.
    pub appended_ms: i64,
    /// Bytes of batches.
    pub size_bytes: u64,
    /// The batches.
    pub file: Arc<dyn File>,
    /// Sparse index, ascending; the first entry is position 0.
    pub index: Vec<IndexEntry>,
    /// Aborted transactions that overlap the segment (I19: complete, as the segment lies below the LSO).
    pub aborted: Vec<AbortedTxn>,
    /// Producer state as of the segment's end (`last_offset + 1`).
    pub producer_snapshot: Bytes,
    /// Leader epochs within the segment, the first clipped to `base_offset`.
    pub leader_epochs: Vec<EpochEntry>,
}
