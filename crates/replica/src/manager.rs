//! All partitions of this broker.

use std::sync::Arc;
use std::time::Duration;

use siltstone_common::TopicIdPartition;
use siltstone_log::AppendOrigin;

use crate::error::ReplicaError;
use crate::list_offsets::{FoundOffset, OffsetSpec};
use crate::produce::{ProduceOutcome, ProducePartition};
use crate::read_path::{FetchIsolation, FetchParams, FetchPartition, FetchedPartition};

/// Settings.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// `node.id`
    pub broker_id: i32,
}

/// A partition in DescribeLogDirs.
#[derive(Copy, Clone, Debug)]
pub struct LogDirPartition {
    /// Which.
    pub id: TopicIdPartition,
    /// Bytes on the local disk.
    pub local_bytes: u64,
    /// Bytes in the bucket.
    pub remote_bytes: u64,
}

/// All partitions of this broker. Shared by `Arc`.
#[derive(Debug)]
pub struct ReplicaManager {
    _private: (),
}

impl ReplicaManager {
    /// Appends to each partition, then, with `acks` -1, waits until the high watermark has passed or `timeout` is over.
    /// Outcomes come in the order of `parts`.
    pub async fn append(
        self: &Arc<Self>,
        acks: i16,
        timeout: Duration,
        parts: Vec<ProducePartition>,
        origin: AppendOrigin,
    ) -> Vec<ProduceOutcome> {
        let _ = (acks, timeout, parts, origin);
        todo!()
    }

    /// Reads from each partition in order, local or remote, waiting up to `max_wait` for `min_bytes`. Answers come in the order of `parts`.
    pub async fn fetch(self: &Arc<Self>, params: FetchParams, parts: Vec<FetchPartition>) -> Vec<FetchedPartition> {
        let _ = (params, parts);
        todo!()
    }

    /// ListOffsets for one partition.
    pub async fn list_offset(
        &self,
        id: TopicIdPartition,
        current_leader_epoch: i32,
        spec: OffsetSpec,
        isolation: FetchIsolation,
    ) -> Result<FoundOffset, ReplicaError> {
        let _ = (id, current_leader_epoch, spec, isolation);
        todo!()
    }

    /// OffsetForLeaderEpoch: (epoch, end offset), -1s if nothing is known (KIP-101).
    pub fn offset_for_leader_epoch(&self, id: TopicIdPartition, current_leader_epoch: i32, epoch: i32) -> Result<(i32, i64), ReplicaError> {
        let _ = (id, current_leader_epoch, epoch);
        todo!()
    }

    /// DeleteRecords: raises the log start to `offset` (-1: the high watermark) in both tiers; the new low watermark.
    pub async fn delete_records(&self, id: TopicIdPartition, offset: i64) -> Result<i64, ReplicaError> {
        let _ = (id, offset);
        todo!()
    }

    /// Every partition's sizes, for DescribeLogDirs: (partitions, total bytes, usable bytes of the volume).
    pub async fn describe_log_dir(&self) -> (Vec<LogDirPartition>, u64, u64) {
        todo!()
    }
}
