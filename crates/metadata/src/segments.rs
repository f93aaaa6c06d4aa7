//! The segment map: which object holds which offsets (I22–I31).

pub(crate) mod fold;
mod garbage;
pub mod index;
pub(crate) mod keys;
mod lookup;
pub(crate) mod map;
mod retention;

use serde::{Deserialize, Serialize};
use siltstone_common::TopicIdPartition;
use uuid::Uuid;

/// Life of a remote segment.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum SegmentState {
    /// Registered before its PUT; expires at `deadline_ms` if not committed (the object is garbage then).
    Intent {
        /// Wall time, ms.
        deadline_ms: i64,
    },
    /// Readable.
    Committed,
    /// Below the log start, to be deleted after a grace period.
    DeleteStarted {
        /// Wall time, ms.
        since_ms: i64,
    },
}

/// One remote segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRow {
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
    /// Exact key in the bucket.
    pub object_key: String,
    /// Bytes of the whole object.
    pub object_bytes: u64,
    /// Bytes of batches at its front.
    pub data_bytes: u64,
    /// CRC-64/NVME of the whole object.
    pub checksum: u64,
    /// True if it carries aborted transactions.
    pub has_aborts: bool,
    /// How often compaction wrote it anew; with the offsets, it names one state of the segment.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u32,
    /// About when it was written, ms: its age if it has no timestamps; -1 if that is not known.
    #[serde(default = "unknown_time", skip_serializing_if = "is_unknown")]
    pub appended_ms: i64,
    /// Where it is in its life.
    pub state: SegmentState,
}

fn unknown_time() -> i64 {
    -1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_unknown(time_ms: &i64) -> bool {
    *time_ms < 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What of a partition is in the bucket.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteExtent {
    /// Log start offset: nothing below exists. May lie beyond `remote_end` (DeleteRecords): a replica that starts empty
    /// starts at the larger of the two, and the next segment to commit begins anywhere from `remote_end` to `log_start`.
    pub log_start: i64,
    /// First committed offset at or above the log start's segment; equals `remote_end` if nothing is there.
    pub remote_start: i64,
    /// One past the last committed, contiguous offset (`rend + 1`).
    pub remote_end: i64,
    /// Bytes of batches in committed segments.
    pub remote_bytes: u64,
    /// Number of committed segments.
    pub segments: u64,
}
