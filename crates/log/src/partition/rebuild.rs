//! What stands beside a sealed segment, had again from the segment itself when a file is damaged or gone (F27).

use std::io;

use bytes::Bytes;

use super::PartitionLog;
use super::open::Loader;
use crate::error::ReadError;
use crate::manifest::record::SegmentRecord;
use crate::producers::{AbortedTxn, ProducerStates};
use crate::segment::{IndexEntry, Segment, SegmentName};

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
        let (before, record, interval) = {
            let state = self.state.lock();
            let at = state.segments.iter().position(|segment| segment.name() == name);
            // Removed or cleaned meanwhile: the caller looks again.
            let at = at.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            let before: Vec<_> = state.segments.range(..at).map(Segment::record).collect();
            (before, state.segments[at].record(), state.config.index_interval_bytes)
        };
        tracing::warn!(id = %self.id(), base_offset, why, "a file beside a segment is unusable: the segment is read instead");
        let dir = self.dir();
        let loader = Loader { fs: self.shared.env.fs.as_ref(), dir: &dir, interval };
        let known = producers_at(&loader, &before, base_offset)?;
        let is_known = known.is_some();
        let mut producers = known.unwrap_or_default();
        let (mut walked, damage) = loader.walk(&record, &mut producers, base_offset)?;
        if let Some(reason) = damage {
            return Err(ReadError::Corrupt { offset: base_offset, reason });
        }
        if !is_known {
            // Transactions may have been open at its begin: no list ends the search for those that were aborted.
            walked.aborted.iter_mut().for_each(|txn| txn.last_stable_offset = 0);
        }
        Ok(Rebuilt { snapshot: producers.snapshot(walked.end_offset), index: walked.index, aborted: walked.aborted })
    }
}

/// The producers' state at `offset`, where the segments `before` end: from the newest snapshot that is usable, or the log's begin, and what follows it.
/// `None` if there is neither.
fn producers_at(loader: &Loader<'_>, before: &[SegmentRecord], offset: i64) -> Result<Option<ProducerStates>, ReadError> {
    for at in (0..=before.len()).rev() {
        let known = match before.get(at).map_or(offset, |segment| segment.base_offset) {
            0 => Some(ProducerStates::default()),
            begin => loader.usable_snapshot(begin)?.map(|(producers, _)| producers),
        };
        let Some(mut producers) = known else { continue };
        for segment in &before[at..] {
            let (_, damage) = loader.walk(segment, &mut producers, segment.base_offset)?;
            if damage.is_some() {
                return Ok(None);
            }
        }
        return Ok(Some(producers));
    }
    Ok(None)
}
