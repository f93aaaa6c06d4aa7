//! Produce: append to each partition's log, then wait for the high watermark (acks=all).

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::FutureExt;
use futures::future::{BoxFuture, Fuse, FusedFuture};
use siltstone_common::TopicIdPartition;
use siltstone_log::producers::{ProducerInfo, VerificationGuard};
use siltstone_log::{AppendInfo, AppendOrigin, LogOffsets};

use crate::error::ReplicaError;
use crate::manager::ReplicaManager;
use crate::partition::Partition;

/// One partition's part of a Produce request.
#[derive(Debug)]
pub struct ProducePartition {
    /// Which.
    pub id: TopicIdPartition,
    /// Its batches, to be stamped in place.
    pub records: BytesMut,
    /// Who appends them.
    pub origin: AppendOrigin,
}

/// What became of it.
#[derive(Debug)]
pub struct ProduceOutcome {
    /// Which.
    pub id: TopicIdPartition,
    /// Where it went, or why not.
    pub result: Result<AppendInfo, ReplicaError>,
}

/// Appends made, whose acknowledgement is still to be waited for.
#[derive(Debug)]
pub struct PendingProduce {
    acks: i16,
    timeout: Duration,
    parts: Vec<(TopicIdPartition, Result<Appended, ReplicaError>)>,
}

#[derive(Debug)]
struct Appended {
    partition: Arc<Partition>,
    info: AppendInfo,
}

const ACKS_ALL: i16 = -1;
/// `acks=0`: nobody is told anything.
const ACKS_NONE: i16 = 0;

impl ReplicaManager {
    /// Appends to each partition, then, with `acks` -1, waits until the high watermark has passed or `timeout` is over.
    /// Outcomes come in the order of `parts`.
    pub async fn append(self: &Arc<Self>, acks: i16, timeout: Duration, parts: Vec<ProducePartition>) -> Vec<ProduceOutcome> {
        let pending = self.append_pending(acks, timeout, parts).await;
        self.acknowledged(pending).await
    }

    /// The first half of [`ReplicaManager::append`]: when it returns, the records stand in the logs in the order of the calls, so that a
    /// connection may go on to its next request while this one waits for its acknowledgement.
    pub async fn append_pending(&self, acks: i16, timeout: Duration, parts: Vec<ProducePartition>) -> PendingProduce {
        let all_led = self.all_led(parts.iter().map(|part| (part.id, -1))).await;
        let mut appended = Vec::with_capacity(parts.len());
        for (part, led) in parts.into_iter().zip(all_led) {
            let id = part.id;
            appended.push((id, self.append_one(acks, part, led).await));
        }
        PendingProduce { acks, timeout, parts: appended }
    }

    /// The second half: waits for the acknowledgement.
    pub async fn acknowledged(&self, pending: PendingProduce) -> Vec<ProduceOutcome> {
        let PendingProduce { acks, timeout, parts } = pending;
        let mut deadline = self.env.clock.sleep(timeout).fuse();
        let mut outcomes = Vec::with_capacity(parts.len());
        // One after the other: all must come, and what came before it was its turn is seen at once.
        for (id, result) in parts {
            let result = match result {
                Ok(appended) if acks == ACKS_ALL => tokio::select! {
                    biased;
                    result = self.wait_safe(appended, acks) => result,
                    () = has_passed(&mut deadline) => Err(ReplicaError::TimedOut),
                },
                // As in Kafka, the time-out is for replicas: this broker's own disk has as long as it takes.
                Ok(appended) if acks != ACKS_NONE => self.wait_safe(appended, acks).await,
                Ok(appended) => Ok(appended.info),
                Err(error) => Err(error),
            };
            outcomes.push(ProduceOutcome { id, result });
        }
        outcomes
    }

    /// A guard for a transactional batch that would begin a transaction in a partition; `None` if it is open there already. See
    /// [`siltstone_log::PartitionLog::begin_verification`].
    ///
    /// # Errors
    /// The partition is not led here.
    pub async fn begin_verification(
        &self,
        id: TopicIdPartition,
        producer: (i64, i16),
        sequence: i32,
        bumps_epoch: bool,
    ) -> Result<Option<VerificationGuard>, ReplicaError> {
        Ok(self.led(id, -1).await?.log().begin_verification(producer, sequence, bumps_epoch))
    }

    /// The producers that a partition remembers (DescribeProducers).
    ///
    /// # Errors
    /// The partition is not led here.
    pub async fn active_producers(&self, id: TopicIdPartition) -> Result<Vec<ProducerInfo>, ReplicaError> {
        Ok(self.led(id, -1).await?.log().producers())
    }

    async fn append_one(
        &self,
        acks: i16,
        part: ProducePartition,
        led: Result<Arc<Partition>, ReplicaError>,
    ) -> Result<Appended, ReplicaError> {
        if !(-1..=1).contains(&acks) {
            return Err(ReplicaError::InvalidRequiredAcks);
        }
        let is_internal = self.metadata.image().topic_by_id(part.id.topic_id).ok_or(ReplicaError::UnknownPartition)?.is_internal();
        if part.origin.is_client() && is_internal {
            return Err(ReplicaError::InternalTopic);
        }
        let partition = led?;
        // A slow disk slows its producers down; it does not fill the memory.
        partition.log().ready().await;
        // Opening and waiting take time: who leads is looked up now (I9), and the log refuses the epoch should it know of a newer one.
        let image = self.metadata.image();
        let state = image.partition(part.id).ok_or(ReplicaError::UnknownPartition)?;
        if !self.leads(&image, state) || !self.session.holds() {
            return Err(ReplicaError::NotLeader);
        }
        // Never more than there are replicas, as in Kafka.
        let min_insync = usize::try_from(partition.config().min_insync_replicas).unwrap_or(1).min(state.replicas.len());
        if acks == ACKS_ALL && state.isr.len() < min_insync {
            return Err(ReplicaError::NotEnoughReplicas);
        }
        let size = part.records.len() as u64;
        let info = partition.log().append_as_leader(part.records, state.leader_epoch, part.origin)?;
        self.metrics.add_bytes_in(size);
        Ok(Appended { partition, info })
    }

    /// Waits until the high watermark has passed the append (I3), with acks=1 until this broker has it as safely as the topic asks (so that it survives
    /// a kill, as in Kafka); or until that cannot be any more: leadership went, the topic was deleted, the disk failed.
    async fn wait_safe(&self, appended: Appended, acks: i16) -> Result<AppendInfo, ReplicaError> {
        let Appended { partition, info } = appended;
        let mut offsets = partition.log().subscribe();
        let is_safe = |offsets: &LogOffsets| {
            let end = if acks == ACKS_ALL { offsets.high_watermark } else { offsets.ack_end };
            end > info.last_offset
        };
        let waited = offsets.wait_for(|offsets| is_safe(offsets) || partition.halted().is_some()).await.map(|offsets| is_safe(&offsets));
        match waited {
            // Another process may have the partition since, and not this record (F11).
            Ok(true) if !self.session.holds() => Err(ReplicaError::NotLeader),
            Ok(true) => Ok(info),
            Ok(false) => Err(partition.halted().unwrap_or(ReplicaError::NotLeader)),
            // The log is gone: the topic was deleted.
            Err(_) => Err(ReplicaError::UnknownPartition),
        }
    }
}

/// Completes at the deadline, and at once after it.
async fn has_passed(deadline: &mut Fuse<BoxFuture<'static, ()>>) {
    if !deadline.is_terminated() {
        deadline.await;
    }
}
