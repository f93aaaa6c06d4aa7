//! The one read path: tail, local segments, remote tier, without a seam.
//!
//! A Fetch is planned partition by partition: what lies in memory, or in pages of a segment file that are there, is taken at once, what the disk
//! has to be waited for is looked up on the blocking pool, what lies in the bucket is read by all such partitions at the same time. In its turn each of those reserves an equal share, with the
//! partitions still to come, of the bytes that are left, so that no cold partition starves the others, nor the hot ones behind it the cold one. The
//! first partition with anything gets at least one batch (KIP-74). If too little is there, the Fetch waits on the partitions' progress and looks again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use siltstone_common::TopicIdPartition;
use siltstone_log::producers::AbortedTxn;
use siltstone_log::{LogOffsets, LogRead, LogSlice, ReadError};
use siltstone_tiered::{RemoteRead, RemoteReadError};
use tokio::sync::Notify;

use crate::error::ReplicaError;
use crate::manager::ReplicaManager;
use crate::partition::Partition;

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

impl FetchIsolation {
    /// What may be read up to, exclusive.
    pub(crate) fn upper_bound(self, offsets: &LogOffsets) -> i64 {
        match self {
            FetchIsolation::ReadUncommitted => offsets.high_watermark,
            FetchIsolation::ReadCommitted => offsets.last_stable,
            FetchIsolation::LogEnd => offsets.log_end,
        }
    }
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

impl FetchedPartition {
    fn empty(id: TopicIdPartition) -> Self {
        Self {
            id,
            error: None,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            slices: Vec::new(),
            size_bytes: 0,
            aborted: None,
            diverging_epoch: None,
            current_leader: None,
        }
    }

    fn at(id: TopicIdPartition, offsets: &LogOffsets) -> Self {
        Self {
            high_watermark: offsets.high_watermark,
            last_stable_offset: offsets.last_stable,
            log_start_offset: offsets.log_start,
            ..Self::empty(id)
        }
    }
}

/// An answer still to come from the bucket.
struct RemotePart {
    index: usize,
    partition: Arc<Partition>,
    /// Of the Fetch's bytes.
    reserved: usize,
    at_least_one: bool,
}

/// One pass over the partitions of a Fetch.
struct Pass {
    answers: Vec<FetchedPartition>,
    remote: Vec<RemotePart>,
    /// Bytes in the answers.
    bytes: usize,
    /// Bytes kept for `remote`.
    reserved: usize,
    /// True if the answer must not wait: an error, a divergence, remote data.
    at_once: bool,
}

impl ReplicaManager {
    /// Reads from each partition in order, local or remote, waiting up to `max_wait` for `min_bytes`. Answers come in the order of `parts`.
    pub async fn fetch(self: &Arc<Self>, params: FetchParams, parts: Vec<FetchPartition>) -> Vec<FetchedPartition> {
        let mut pass = self.read_all(&params, &parts).await;
        if pass.bytes >= params.min_bytes || pass.at_once || params.max_wait.is_zero() || parts.is_empty() {
            return self.finish(&params, &parts, pass).await;
        }
        let deadline = self.env.clock.sleep(params.max_wait);
        tokio::pin!(deadline);
        loop {
            // Look again once the waiter stands, so that progress between the look and the wait is not missed.
            let waiter = Arc::new(Notify::new());
            for part in &parts {
                if let Some(partition) = self.opened(part.id) {
                    partition.add_waiter(&waiter);
                }
            }
            pass = self.read_all(&params, &parts).await;
            if pass.bytes >= params.min_bytes || pass.at_once {
                return self.finish(&params, &parts, pass).await;
            }
            tokio::select! {
                () = waiter.notified() => {}
                () = &mut deadline => return self.finish(&params, &parts, pass).await,
                () = self.env.tasks.stopped() => return self.finish(&params, &parts, pass).await,
            }
        }
    }

    async fn finish(self: &Arc<Self>, params: &FetchParams, parts: &[FetchPartition], mut pass: Pass) -> Vec<FetchedPartition> {
        if !pass.remote.is_empty() {
            self.read_remote(params, parts, &mut pass).await;
        }
        self.metrics.add_bytes_out_local(pass.bytes as u64);
        pass.answers
    }

    async fn read_all(self: &Arc<Self>, params: &FetchParams, parts: &[FetchPartition]) -> Pass {
        let all_led = self.all_led(parts.iter().map(|part| (part.id, part.current_leader_epoch))).await;
        let mut pass = Pass { answers: Vec::with_capacity(parts.len()), remote: Vec::new(), bytes: 0, reserved: 0, at_once: false };
        for (index, (part, led)) in parts.iter().zip(all_led).enumerate() {
            let answer = match led {
                Ok(partition) => self.read_partition(params, part, (index, parts.len()), &partition, &mut pass).await,
                Err(error) => FetchedPartition { error: Some(error), ..FetchedPartition::empty(part.id) },
            };
            let mut answer = answer;
            if let Some(ReplicaError::NotLeader | ReplicaError::FencedLeaderEpoch { .. }) = answer.error {
                answer.current_leader = self.leader_of(part.id);
            }
            pass.at_once |= answer.error.is_some() || answer.diverging_epoch.is_some();
            pass.bytes += answer.size_bytes;
            pass.answers.push(answer);
        }
        pass
    }

    /// `position` is the partition's index in the request, and how many there are.
    async fn read_partition(
        &self,
        params: &FetchParams,
        part: &FetchPartition,
        position: (usize, usize),
        partition: &Arc<Partition>,
        pass: &mut Pass,
    ) -> FetchedPartition {
        let offsets = partition.offsets();
        let mut answer = FetchedPartition::at(part.id, &offsets);
        let offset = part.fetch_offset;
        let mut in_range = (offsets.log_start..=offsets.log_end).contains(&offset);
        if part.last_fetched_epoch >= 0 {
            match divergence(partition, part) {
                Divergence::None => {}
                Divergence::UnknownEpoch => in_range = false,
                Divergence::At(epoch, end_offset) => {
                    answer.diverging_epoch = Some((epoch, end_offset));
                    return answer;
                }
            }
        }
        if !in_range {
            answer.error = Some(ReplicaError::OffsetOutOfRange { offset, start: offsets.log_start, end: offsets.log_end });
            answer.high_watermark = -1;
            answer.last_stable_offset = -1;
            answer.log_start_offset = -1;
            return answer;
        }
        if params.isolation == FetchIsolation::ReadCommitted {
            answer.aborted = Some(Vec::new());
        }
        let upper_bound = params.isolation.upper_bound(&offsets);
        let budget = params.max_bytes.saturating_sub(pass.bytes + pass.reserved);
        let first = pass.bytes == 0 && pass.remote.is_empty();
        if offset >= upper_bound || (budget == 0 && !first) {
            return answer;
        }
        let (index, count) = position;
        let mut reserve = || {
            let reserved = part.max_bytes.min(budget / (count - index));
            pass.remote.push(RemotePart { index, partition: Arc::clone(partition), reserved, at_least_one: first });
            pass.reserved += reserved;
            pass.at_once = true;
        };
        if offset < offsets.local_start {
            reserve();
            return answer;
        }
        match self.read_with_aborted(partition, offset, (part.max_bytes.min(budget), first, upper_bound), &mut answer).await {
            Ok(()) => {}
            // Local retention passed between the look at the offsets and the end of the read.
            Err(ReadError::NotLocal { .. }) => reserve(),
            Err(error) => answer.error = Some(read_error(error)),
        }
        answer
    }

    /// Reads, and with `read_committed` lists the aborted transactions of what was read; again if compaction passes in between. If retention does,
    /// what was read counts for nothing: it is not local any more.
    async fn read_with_aborted(
        &self,
        partition: &Arc<Partition>,
        offset: i64,
        (max_bytes, at_least_one, upper_bound): (usize, bool, i64),
        answer: &mut FetchedPartition,
    ) -> Result<(), ReadError> {
        let mut read = self.read_local(partition, offset, max_bytes, at_least_one, upper_bound).await?;
        while let Some(aborted) = &mut answer.aborted {
            let log = Arc::clone(partition.log());
            let listed = if log.aborted_are_on_disk(offset) {
                let of = read.clone();
                let listed = self.env.tasks.blocking(move || log.aborted_in(offset, &of)).await;
                listed.unwrap_or_else(|| Err(ReadError::Offline("the read failed".to_owned())))
            } else {
                log.aborted_in(offset, &read)
            };
            if let Some(found) = listed? {
                *aborted = found;
                break;
            }
            read = self.read_local(partition, offset, max_bytes, at_least_one, upper_bound).await?;
        }
        answer.size_bytes = read.size_bytes;
        answer.slices = read.slices;
        Ok(())
    }

    async fn read_local(
        &self,
        partition: &Arc<Partition>,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
        upper_bound: i64,
    ) -> Result<LogRead, ReadError> {
        if let Some(read) = partition.log().read_at_once(offset, max_bytes, at_least_one, upper_bound)? {
            return Ok(read);
        }
        let log = Arc::clone(partition.log());
        let read = self.env.tasks.blocking(move || log.read(offset, max_bytes, at_least_one, upper_bound)).await;
        read.unwrap_or_else(|| Err(ReadError::Offline("the read failed".to_owned())))
    }

    /// Reads what is in the bucket for all partitions that need it at the same time, each with what it reserved and an equal share of what
    /// nobody did.
    async fn read_remote(&self, params: &FetchParams, parts: &[FetchPartition], pass: &mut Pass) {
        let Some(tier) = &self.remote else {
            for remote in &pass.remote {
                pass.answers[remote.index].error =
                    Some(ReplicaError::Storage("the records are in a bucket, and no object store is configured".to_owned()));
            }
            return;
        };
        let share = params.max_bytes.saturating_sub(pass.bytes + pass.reserved) / pass.remote.len();
        let wait = params.max_wait.max(self.config.remote_fetch_max_wait);
        let reads = pass.remote.iter().map(|remote| {
            let part = parts[remote.index];
            let max_bytes = part.max_bytes.min(remote.reserved + share);
            let read = tier.reader.read(part.id, part.fetch_offset, max_bytes, remote.at_least_one);
            async move { tokio::time::timeout(wait, read).await }
        });
        let results = join_all(reads).await;
        for (RemotePart { index, partition, .. }, result) in pass.remote.drain(..).zip(results) {
            let answer = &mut pass.answers[index];
            match result {
                Ok(Ok(read)) => {
                    self.metrics.add_bytes_out_remote(read.size_bytes as u64);
                    fill_remote(answer, read);
                }
                Ok(Err(error)) => answer.error = Some(self.remote_error(&partition, parts[index].fetch_offset, error).await),
                // Not there in time: an empty answer. The reader goes on into its cache, the client asks again.
                Err(_elapsed) => {}
            }
        }
    }
    /// A segment that is gone because the log start passed the offset is OFFSET_OUT_OF_RANGE, never a data error (I28): metadata's log start, as
    /// the local one follows it later.
    async fn remote_error(&self, partition: &Partition, offset: i64, error: RemoteReadError) -> ReplicaError {
        if matches!(error, RemoteReadError::NotFound(_)) {
            if let Ok(extent) = self.metadata.remote_extent(partition.id()).await {
                partition.set_remote(extent);
            }
            let offsets = partition.offsets();
            let start = offsets.log_start.max(partition.remote().log_start);
            if offset < start {
                return ReplicaError::OffsetOutOfRange { offset, start, end: offsets.high_watermark };
            }
        }
        tracing::warn!(id = %partition.id(), offset, %error, "a read from the bucket failed");
        ReplicaError::Storage(error.to_string())
    }
}

fn fill_remote(answer: &mut FetchedPartition, read: RemoteRead) {
    if let Some(aborted) = &mut answer.aborted {
        *aborted = read.aborted;
    }
    answer.size_bytes = read.size_bytes;
    answer.slices = read.slices.into_iter().filter(|slice: &Bytes| !slice.is_empty()).map(LogSlice::Memory).collect();
}

/// How the log of a reader and ours part (KIP-595).
enum Divergence {
    None,
    /// We never heard of the reader's epoch, so its offset is out of range.
    UnknownEpoch,
    /// Our last epoch up to the reader's, and where it ends.
    At(i32, i64),
}

fn divergence(partition: &Partition, part: &FetchPartition) -> Divergence {
    match partition.log().end_offset_for_epoch(part.last_fetched_epoch) {
        None => Divergence::UnknownEpoch,
        Some((epoch, end)) if epoch < part.last_fetched_epoch || end < part.fetch_offset => Divergence::At(epoch, end),
        Some(_) => Divergence::None,
    }
}

pub(crate) fn read_error(error: ReadError) -> ReplicaError {
    match error {
        ReadError::OutOfRange { offset, start, end } => ReplicaError::OffsetOutOfRange { offset, start, end },
        ReadError::NotLocal { local_start } => ReplicaError::Storage(format!("not on the local disk, which starts at {local_start}")),
        ReadError::Corrupt { offset, reason } => {
            tracing::error!(offset, reason, "a stored batch is corrupt and is not served");
            ReplicaError::Storage("a stored batch is corrupt".to_owned())
        }
        ReadError::Io(error) => {
            tracing::error!(%error, "reading a segment failed");
            ReplicaError::Storage(error.to_string())
        }
        ReadError::Offline(reason) => ReplicaError::Storage(reason),
    }
}
