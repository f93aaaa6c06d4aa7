//! What stands beside a sealed segment, had again from the segment itself when a file is damaged or gone (F27).

use std::io;

use bytes::Bytes;

use super::PartitionLog;
use super::open::Loader;
use crate::error::ReadError;
use crate::producers::{AbortedTxn, ProducerStates};
use crate::segment::{IndexEntry, SegmentName};

/// All that can be had by reading a segment.
#[derive(Debug)]
pub(super) struct Rebuilt {
    pub(super) index: Vec<IndexEntry>,
    pub(super) aborted: Vec<AbortedTxn>,
    /// Producer state at the segment's end.
    pub(super) snapshot: Bytes,
}

impl PartitionLog {
    /// Reads the segment of that name anew; `why` is logged. Blocks.
    pub(super) fn rebuild(&self, name: SegmentName, why: &str) -> Result<Rebuilt, ReadError> {
        let base_offset = name.base_offset;
        let (record, interval) = {
            let state = self.state.lock();
            let segment = state.segments.iter().find(|segment| segment.name() == name);
            // Removed or cleaned meanwhile: the caller looks again.
            let record = segment.map(|segment| segment.record()).ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            (record, state.config.index_interval_bytes)
        };
        tracing::warn!(id = %self.id(), base_offset, why, "a file beside a segment is unusable: the segment is read instead");
        let dir = self.dir();
        let loader = Loader { fs: self.shared.env.fs.as_ref(), dir: &dir, interval };
        let mut producers = match base_offset {
            0 => ProducerStates::default(),
            _ => loader.usable_snapshot(base_offset)?.map(|(producers, _)| producers).unwrap_or_default(),
        };
        let (walked, damage) = loader.walk(&record, &mut producers, base_offset)?;
        if let Some(reason) = damage {
            return Err(ReadError::Corrupt { offset: base_offset, reason });
        }
        Ok(Rebuilt { snapshot: producers.snapshot(walked.end_offset), index: walked.index, aborted: walked.aborted })
    }
}
