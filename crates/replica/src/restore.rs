//! A partition whose local log was lost goes on from the bucket (I32).
//!
//! The log goes on after the bucket's last offset, with the leader epochs and the producer state of the last segment there. That state may know open
//! transactions, whose markers were in the part that is lost. They are decided nonetheless, since nothing undecided is ever uploaded (I22): those that
//! the segment lists were aborted, the others committed. So they are ended again as they were, or they would hold the last stable offset back for ever.
//!
//! Crash consistency: every opening looks anew, so what was cut short is done then. No segment is uploaded in between, as the last stable offset lies
//! below the bucket's end.

use std::sync::Arc;

use siltstone_log::producers::{EndTxnMarker, ProducerInfo};
use siltstone_log::{AppendOrigin, PartitionLog};
use siltstone_metadata::{RemoteExtent, TopicImage};
use siltstone_tiered::RemoteTail;

use crate::error::ReplicaError;
use crate::manager::ReplicaManager;

impl ReplicaManager {
    /// Brings a local log that is behind the bucket (its disk was lost), or is not the one that the bucket has (its disk was away, and another
    /// in its place: I30), to the bucket's end (I32), and says what that means.
    pub(crate) async fn adopt_remote(
        &self,
        topic: &TopicImage,
        log: &Arc<PartitionLog>,
        extent: &RemoteExtent,
    ) -> Result<(), ReplicaError> {
        let offsets = log.offsets();
        let (partition, resume_offset) = (log.id().partition, extent.remote_end.max(extent.log_start));
        let may_differ = extent.remote_end > extent.log_start && self.to_compare.lock().contains(&log.id());
        if offsets.log_end >= resume_offset && !may_differ {
            if self.lost_at_start.contains(&topic.id) && offsets.log_end == 0 && extent.log_start == 0 {
                self.metrics.count_lost_tail();
                tracing::warn!(topic = %topic.name, partition, "the local log is gone and nothing of it was in the bucket: the partition starts empty");
            }
            return self.keep_local(log, extent).await;
        }
        let tail = self.remote_tail(log).await?;
        if log.reaches(resume_offset, &tail.leader_epochs) {
            return self.keep_local(log, extent).await;
        }
        self.metrics.count_lost_tail();
        tracing::warn!(
            topic = %topic.name, partition, resume_offset, local_end = offsets.log_end,
            "the local log ends before the bucket's copy, or differs from it: records that were not uploaded are lost, the log goes on after the bucket's last offset"
        );
        let (log, start) = (Arc::clone(log), extent.log_start);
        self.local_work(move || log.reset_to(start, resume_offset, tail.leader_epochs, &tail.producer_snapshot)).await
    }

    async fn keep_local(&self, log: &Arc<PartitionLog>, extent: &RemoteExtent) -> Result<(), ReplicaError> {
        let offsets = log.offsets();
        // What is neither here nor in the bucket was lost to damage: the log begins behind it.
        let begin = if extent.segments == 0 { offsets.local_start } else { 0 };
        let (log, start) = (Arc::clone(log), extent.log_start.max(begin).min(offsets.log_end));
        self.local_work(move || log.raise_log_start(start)).await
    }

    async fn remote_tail(&self, log: &PartitionLog) -> Result<RemoteTail, ReplicaError> {
        let Some(remote) = &self.remote else {
            return Err(ReplicaError::Storage("the partition's records are in a bucket, and no object store is configured".to_owned()));
        };
        let tail = remote.reader.tail(log.id()).await.map_err(|error| ReplicaError::Storage(error.to_string()))?;
        Ok(tail.unwrap_or_default())
    }

    /// Ends transactions that are open here although the bucket has records of them: see the module.
    pub(crate) async fn end_decided(
        &self,
        topic: &TopicImage,
        log: &Arc<PartitionLog>,
        extent: &RemoteExtent,
        leader_epoch: i32,
    ) -> Result<(), ReplicaError> {
        let began = |producer: &ProducerInfo| producer.current_txn_start_offset.filter(|first_offset| *first_offset < extent.remote_end);
        let mut open: Vec<_> = log.producers().into_iter().filter_map(|producer| Some((began(&producer)?, producer))).collect();
        if open.is_empty() {
            return Ok(());
        }
        open.sort_unstable_by_key(|(first_offset, _)| *first_offset);
        let tail = self.remote_tail(log).await?;
        for (first_offset, producer) in open {
            let producer_id = producer.producer_id;
            let commit = !tail.aborted.iter().any(|txn| (txn.producer_id, txn.first_offset) == (producer_id, first_offset));
            let marker = EndTxnMarker { commit, coordinator_epoch: producer.coordinator_epoch.max(0) };
            let batch = marker.to_batch(producer_id, producer.producer_epoch, self.env.clock.now_ms());
            let appended = log.append_as_leader(batch, leader_epoch, AppendOrigin::Marker { transaction_version: 1 });
            appended.map_err(|error| ReplicaError::Storage(error.to_string()))?;
            self.metrics.add_transactions_ended_again(1);
            tracing::warn!(
                topic = %topic.name, partition = log.id().partition, producer_id, first_offset, commit,
                "the end of a transaction was lost with the local disk: it is written again, as it was"
            );
        }
        Ok(())
    }
}
