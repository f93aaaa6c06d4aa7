//! The one read path: tail, local segments, remote tier, without a seam.

use std::time::Duration;

use siltstone_common::TopicIdPartition;
use siltstone_log::LogSlice;
use siltstone_log::producers::AbortedTxn;

use crate::error::ReplicaError;

/// What a reader may see (I5).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FetchIsolation {
    /// Below the high watermark.
    ReadUncommitted,
    /// Below the last stable offset, with the aborted transactions listed.
    ReadCommitted,
    /// Up to the log end: replicas only.
    LogEnd,
}

/// Settings of one Fetch.
#[derive(Copy, Clone, Debug)]
pub struct FetchParams {
    /// Wait this long for `min_bytes`.
    pub max_wait: Duration,
    /// Answer at once when this many bytes are there.
    pub min_bytes: usize,
    /// Bytes of the whole answer (the first batch may exceed it).
    pub max_bytes: usize,
    /// What may be seen.
    pub isolation: FetchIsolation,
}

/// One partition of a Fetch.
#[derive(Copy, Clone, Debug)]
pub struct FetchPartition {
    /// Which.
    pub id: TopicIdPartition,
    /// From where.
    pub fetch_offset: i64,
    /// The client's view of the leader epoch; -1 for none (KIP-320).
    pub current_leader_epoch: i32,
    /// Epoch of the last record fetched, for divergence; -1 for none.
    pub last_fetched_epoch: i32,
    /// Bytes for this partition.
    pub max_bytes: usize,
}

/// A piece of records to send.
pub type FetchedSlice = LogSlice;

/// One partition's answer.
#[derive(Debug)]
pub struct FetchedPartition {
    /// Which.
    pub id: TopicIdPartition,
    /// Why not, if not. Offsets below are -1 if they are not known.
    pub error: Option<ReplicaError>,
    /// High watermark.
    pub high_watermark: i64,
    /// Last stable offset.
    pub last_stable_offset: i64,
    /// Log start offset.
    pub log_start_offset: i64,
    /// The records: whole batches.
    pub slices: Vec<FetchedSlice>,
    /// Sum of their lengths.
    pub size_bytes: usize,
    /// Aborted transactions in the range, for read_committed.
    pub aborted: Option<Vec<AbortedTxn>>,
    /// Where the logs diverge (epoch, end offset), if `last_fetched_epoch` does not match (KIP-595).
    pub diverging_epoch: Option<(i32, i64)>,
    /// Current leader (id, epoch) with NOT_LEADER and FENCED answers.
    pub current_leader: Option<(i32, i32)>,
}
