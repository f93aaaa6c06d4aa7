//! Rows of the segment map in the store: keys and values. Values are versioned JSON like all rows ([`crate::rows`]).
//!
//! | key | value |
//! | --- | --- |
//! | `extent/<topic>/<partition>` | what of the partition is remote, so that asking is one read |
//! | `segment/<topic>/<partition>/<base offset>` | a committed segment |
//! | `fold/<topic>/<partition>/<first offset>` | many committed segments, whose rows are in an index object of the bucket |
//! | `intent/<topic>/<partition>/<base offset>/<attempt>` | a segment before its commit |
//! | `gone/<since ms>/<topic>/<partition>/<base offset>/<attempt>` | an object that nobody reads any more and that is to be deleted |

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use siltstone_common::{TopicId, TopicIdPartition};
use uuid::Uuid;

use super::{RemoteExtent, SegmentRow, SegmentState};

pub(crate) const INTENT: &str = "intent/";
pub(crate) const GONE: &str = "gone/";
pub(crate) const SEGMENT: &str = "segment/";
pub(crate) const FOLD: &str = "fold/";
pub(crate) const EXTENT: &str = "extent/";

/// The value of an extent's row.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExtentRow {
    pub(crate) log_start: i64,
    pub(crate) remote_start: i64,
    pub(crate) remote_end: i64,
    pub(crate) remote_bytes: u64,
    pub(crate) segments: u64,
    /// How many of `segments` are in index objects.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) folded: u64,
    /// Compaction replaces segments here: rows stay rows from then on, as many as the local log has segments (ADR 7).
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) compacted: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The value of a fold's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FoldRow {
    pub(crate) id: TopicIdPartition,
    /// Of the first segment, those below the log start included.
    pub(crate) first_offset: i64,
    pub(crate) last_offset: i64,
    /// Segments below are gone, though they still are in the object.
    pub(crate) live_from: i64,
    pub(crate) max_timestamp_ms: i64,
    /// Segments that are not gone.
    pub(crate) segments: u64,
    pub(crate) attempt: Uuid,
    pub(crate) object_key: String,
    pub(crate) object_bytes: u64,
    pub(crate) checksum: u64,
}

impl FoldRow {
    /// The index object as a segment without data: what garbage collection needs to know.
    pub(crate) fn object(&self, state: SegmentState) -> SegmentRow {
        SegmentRow {
            id: self.id,
            base_offset: self.first_offset,
            last_offset: self.last_offset,
            max_timestamp_ms: self.max_timestamp_ms,
            leader_epoch: -1,
            attempt: self.attempt,
            object_key: self.object_key.clone(),
            object_bytes: self.object_bytes,
            data_bytes: 0,
            checksum: self.checksum,
            has_aborts: false,
            generation: 0,
            appended_ms: -1,
            state,
        }
    }
}

impl From<ExtentRow> for RemoteExtent {
    fn from(row: ExtentRow) -> Self {
        let ExtentRow { log_start, remote_start, remote_end, remote_bytes, segments, folded: _, compacted: _ } = row;
        Self { log_start, remote_start, remote_end, remote_bytes, segments }
    }
}

/// A number of a key: offsets and times are never negative in rows.
fn number(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn of_partition(prefix: &str, id: TopicIdPartition) -> String {
    format!("{prefix}{}/{:08x}", id.topic_id, id.partition)
}

pub(crate) fn of_topic(prefix: &str, topic: TopicId) -> Bytes {
    format!("{prefix}{topic}/").into()
}

pub(crate) fn extent(id: TopicIdPartition) -> Bytes {
    of_partition(EXTENT, id).into()
}

/// Key of the committed segment at `base_offset`; offsets below 0 count as 0.
pub(crate) fn segment(id: TopicIdPartition, base_offset: i64) -> Bytes {
    format!("{}/{:016x}", of_partition(SEGMENT, id), number(base_offset)).into()
}

/// Past the last committed segment of a partition.
pub(crate) fn segments_end(id: TopicIdPartition) -> Bytes {
    // '0' follows '/'.
    format!("{}0", of_partition(SEGMENT, id)).into()
}

/// Key of the fold that begins at `first_offset`; offsets below 0 count as 0.
pub(crate) fn fold(id: TopicIdPartition, first_offset: i64) -> Bytes {
    format!("{}/{:016x}", of_partition(FOLD, id), number(first_offset)).into()
}

/// Past the last fold of a partition.
pub(crate) fn folds_end(id: TopicIdPartition) -> Bytes {
    format!("{}0", of_partition(FOLD, id)).into()
}

pub(crate) fn intent(row: &SegmentRow) -> Bytes {
    format!("{}/{:016x}/{}", of_partition(INTENT, row.id), number(row.base_offset), row.attempt.as_simple()).into()
}

/// Key of a row in `DeleteStarted`.
pub(crate) fn gone(row: &SegmentRow) -> Bytes {
    let since_ms = match row.state {
        SegmentState::DeleteStarted { since_ms } => since_ms,
        SegmentState::Intent { .. } | SegmentState::Committed => 0,
    };
    let attempt = row.attempt.as_simple();
    let id = row.id;
    format!("{GONE}{:016x}/{}/{:08x}/{:016x}/{attempt}", number(since_ms), id.topic_id, id.partition, number(row.base_offset)).into()
}

/// Past the last key of rows gone at or before `since_ms`.
pub(crate) fn gone_end(since_ms: i64) -> Bytes {
    format!("{GONE}{:016x}", number(since_ms.saturating_add(1))).into()
}
