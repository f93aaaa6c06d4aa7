//! ListOffsets, OffsetForLeaderEpoch and DeleteRecords over both tiers.

use std::sync::Arc;

use siltstone_common::TopicIdPartition;

use crate::error::ReplicaError;
use crate::manager::ReplicaManager;
use crate::partition::Partition;
use crate::read_path::{FetchIsolation, read_error};

/// What is asked for, by ListOffsets' timestamp values.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// -1
    Latest,
    /// -2
    Earliest,
    /// -3: the record with the largest timestamp
    MaxTimestamp,
    /// -4: first offset on the local disk
    EarliestLocal,
    /// -5: last offset in the bucket
    LatestTiered,
    /// -6: first offset that the bucket is to get next (KIP-1023)
    EarliestPendingUpload,
    /// >= 0: first record at or after, ms
    Timestamp(i64),
}

/// The answer; offset -1 if there is none.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// Timestamp of the record, ms; -1 unless asked by time.
    pub timestamp_ms: i64,
    /// The offset.
    pub offset: i64,
    /// Epoch of the leader that wrote it; -1 if unknown.
    pub leader_epoch: i32,
}

impl FoundOffset {
    /// No such record.
    pub const NONE: FoundOffset = FoundOffset { timestamp_ms: -1, offset: -1, leader_epoch: -1 };

    fn by_offset(offset: i64, leader_epoch: i32) -> Self {
        Self { timestamp_ms: -1, offset, leader_epoch }
    }
}

type Found = Option<(i64, i64, i32)>;

impl ReplicaManager {
    /// ListOffsets for one partition. By time, the answer lies below what `isolation` may see.
    pub async fn list_offset(
        &self,
        id: TopicIdPartition,
        current_leader_epoch: i32,
        spec: OffsetSpec,
        isolation: FetchIsolation,
    ) -> Result<FoundOffset, ReplicaError> {
        let partition = self.led(id, current_leader_epoch).await?;
        let offsets = partition.offsets();
        let upper_bound = isolation.upper_bound(&offsets);
        let latest_epoch = partition.log().leader_epochs().last().map_or(-1, |entry| entry.epoch);
        match spec {
            OffsetSpec::Latest => Ok(FoundOffset::by_offset(upper_bound, latest_epoch)),
            OffsetSpec::Earliest => Ok(FoundOffset::by_offset(offsets.log_start, epoch_of(&partition, offsets.log_start))),
            OffsetSpec::EarliestLocal => Ok(FoundOffset::by_offset(offsets.local_start, epoch_of(&partition, offsets.local_start))),
            OffsetSpec::LatestTiered => {
                let last = partition.remote().remote_end - 1;
                let tiered = last >= offsets.log_start && partition.remote().segments > 0;
                Ok(if tiered { FoundOffset::by_offset(last, epoch_of(&partition, last)) } else { FoundOffset::NONE })
            }
            OffsetSpec::EarliestPendingUpload => {
                if !partition.config().remote_storage_enable {
                    return Ok(FoundOffset::NONE);
                }
                let uploaded = if partition.remote().segments > 0 { partition.remote().remote_end } else { 0 };
                let next = uploaded.max(offsets.log_start);
                Ok(FoundOffset::by_offset(next, epoch_of(&partition, next)))
            }
            OffsetSpec::MaxTimestamp => Ok(within(self.max_timestamp(&partition).await?, upper_bound)),
            OffsetSpec::Timestamp(timestamp_ms) => Ok(within(self.by_time(&partition, timestamp_ms).await?, upper_bound)),
        }
    }

    /// Looks in both tiers, and again if local retention passed meanwhile: what it took between the two looks is in neither.
    async fn by_time(&self, partition: &Partition, timestamp_ms: i64) -> Result<Found, ReplicaError> {
        loop {
            let seam = partition.offsets().local_start;
            let mut found = self.remote_by_time(partition, timestamp_ms).await?;
            if found.is_none() {
                found = self.local_by_time(partition, timestamp_ms).await?;
            }
            if partition.offsets().local_start == seam {
                return Ok(found);
            }
        }
    }

    /// As [`ReplicaManager::by_time`].
    async fn max_timestamp(&self, partition: &Partition) -> Result<Found, ReplicaError> {
        loop {
            let seam = partition.offsets().local_start;
            let found = best_timestamp(self.remote_max_timestamp(partition).await?, self.local_max_timestamp(partition).await?);
            if partition.offsets().local_start == seam {
                return Ok(found);
            }
        }
    }

    async fn remote_by_time(&self, partition: &Partition, timestamp_ms: i64) -> Result<Found, ReplicaError> {
        let offsets = partition.offsets();
        let Some(tier) = self.remote.as_ref().filter(|_| offsets.log_start < offsets.local_start) else { return Ok(None) };
        let found = tier.reader.offset_for_timestamp(partition.id(), timestamp_ms, offsets.log_start).await;
        // At or above the local start the local log answers: it holds the same records.
        Ok(found.map_err(|error| ReplicaError::Storage(error.to_string()))?.filter(|(_, offset, _)| *offset < offsets.local_start))
    }

    async fn local_by_time(&self, partition: &Partition, timestamp_ms: i64) -> Result<Found, ReplicaError> {
        let (log, from) = (Arc::clone(partition.log()), partition.offsets().log_start);
        self.blocking_read(move || log.offset_for_timestamp(timestamp_ms, from)).await
    }

    async fn remote_max_timestamp(&self, partition: &Partition) -> Result<Found, ReplicaError> {
        let offsets = partition.offsets();
        let Some(tier) = self.remote.as_ref().filter(|_| offsets.log_start < offsets.local_start) else { return Ok(None) };
        let found = tier.reader.max_timestamp(partition.id()).await.map_err(|error| ReplicaError::Storage(error.to_string()))?;
        Ok(found.filter(|(_, offset, _)| *offset >= offsets.log_start))
    }

    async fn local_max_timestamp(&self, partition: &Partition) -> Result<Found, ReplicaError> {
        let log = Arc::clone(partition.log());
        self.blocking_read(move || log.max_timestamp()).await
    }

    async fn blocking_read(
        &self,
        read: impl FnOnce() -> Result<Found, siltstone_log::ReadError> + Send + 'static,
    ) -> Result<Found, ReplicaError> {
        match self.env.tasks.blocking(read).await {
            Some(result) => result.map_err(read_error),
            None => Err(ReplicaError::Storage("the read failed".to_owned())),
        }
    }

    /// OffsetForLeaderEpoch: (epoch, end offset), -1s if nothing is known (KIP-101).
    pub async fn offset_for_leader_epoch(
        &self,
        id: TopicIdPartition,
        current_leader_epoch: i32,
        epoch: i32,
    ) -> Result<(i32, i64), ReplicaError> {
        let partition = self.led(id, current_leader_epoch).await?;
        if let Some(found) = partition.log().end_offset_for_epoch(epoch) {
            return Ok(found);
        }
        // An epoch before the first one here ended where that began; -1 asks for nothing.
        let first =
            partition.log().leader_epochs().first().filter(|first| epoch != -1 && epoch < first.epoch).map(|first| first.start_offset);
        Ok(first.map_or((-1, -1), |start_offset| (epoch, start_offset)))
    }

    /// DeleteRecords: raises the log start to `offset` (-1: the high watermark) in both tiers; the new low watermark (I28).
    pub async fn delete_records(&self, id: TopicIdPartition, offset: i64) -> Result<i64, ReplicaError> {
        let partition = self.led(id, -1).await?;
        if !partition.config().delete {
            return Err(ReplicaError::PolicyViolation("records of a topic without cleanup.policy=delete can't be deleted".to_owned()));
        }
        let offsets = partition.offsets();
        let target = if offset == -1 { offsets.high_watermark } else { offset };
        if target < 0 || target > offsets.high_watermark {
            return Err(ReplicaError::OffsetOutOfRange { offset: target, start: offsets.log_start, end: offsets.high_watermark });
        }
        if target > offsets.log_start {
            self.raise_log_start(&partition, target).await?;
        }
        Ok(partition.offsets().log_start)
    }
}

fn epoch_of(partition: &Partition, offset: i64) -> i32 {
    let epochs = partition.log().leader_epochs();
    epochs.iter().rev().find(|entry| entry.start_offset <= offset).map_or(-1, |entry| entry.epoch)
}

/// The larger timestamp; of equals, the earlier offset.
fn best_timestamp(a: Found, b: Found) -> Found {
    match (a, b) {
        (Some(a), Some(b)) => Some(if (b.0, -b.1) > (a.0, -a.1) { b } else { a }),
        (a, b) => a.or(b),
    }
}

fn within(found: Found, upper_bound: i64) -> FoundOffset {
    match found {
        Some((timestamp_ms, offset, leader_epoch)) if offset < upper_bound => FoundOffset { timestamp_ms, offset, leader_epoch },
        _ => FoundOffset::NONE,
    }
}
