//! Transaction markers into the partitions of this broker: control batches by way of the replica manager.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use siltstone_common::TopicIdPartition;
use siltstone_coordinator::{MarkerOutcome, TopicPartition, TxnMarker, TxnMarkerLog};
use siltstone_log::producers::EndTxnMarker;
use siltstone_log::{AppendError, AppendOrigin};
use siltstone_metadata::MetadataApi;
use siltstone_replica::{ProducePartition, ReplicaError, ReplicaManager};

/// How long a marker may take to be committed: Kafka's `request.timeout.ms`.
const MARKER_TIMEOUT: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct ReplicaMarkers {
    metadata: Arc<dyn MetadataApi>,
    replicas: Arc<ReplicaManager>,
}

impl ReplicaMarkers {
    pub(crate) fn new(metadata: Arc<dyn MetadataApi>, replicas: Arc<ReplicaManager>) -> Self {
        Self { metadata, replicas }
    }

    fn find(&self, partition: &TopicPartition) -> Option<TopicIdPartition> {
        let image = self.metadata.image();
        let id = TopicIdPartition::new(image.topic(&partition.topic)?.id, partition.partition);
        image.partition(id).map(|_| id)
    }

    /// Writes a marker into `partitions`, and says what became of each, in their order.
    pub(crate) async fn append(&self, marker: TxnMarker, partitions: &[TopicPartition]) -> Vec<Result<(), ReplicaError>> {
        let mut results: Vec<Result<(), ReplicaError>> = Vec::with_capacity(partitions.len());
        let (mut parts, mut places) = (Vec::new(), Vec::new());
        let batch = marker_batch(marker, self.replicas.now_ms());
        for (at, partition) in partitions.iter().enumerate() {
            match self.find(partition) {
                Some(id) => {
                    let origin = AppendOrigin::Marker { transaction_version: marker.version.level() };
                    parts.push(ProducePartition { id, records: batch.clone(), origin });
                    places.push(at);
                    results.push(Ok(()));
                }
                None => results.push(Err(ReplicaError::UnknownPartition)),
            }
        }
        let outcomes = self.replicas.append(-1, MARKER_TIMEOUT, parts).await;
        for (at, outcome) in places.into_iter().zip(outcomes) {
            results[at] = outcome.result.map(drop);
        }
        results
    }
}

fn marker_batch(marker: TxnMarker, now_ms: i64) -> bytes::BytesMut {
    let TxnMarker { producer, coordinator_epoch, commit, .. } = marker;
    EndTxnMarker { commit, coordinator_epoch }.to_batch(producer.producer_id, producer.producer_epoch, now_ms)
}

#[async_trait]
impl TxnMarkerLog for ReplicaMarkers {
    async fn write(&self, marker: TxnMarker, partitions: &[TopicPartition]) -> Vec<MarkerOutcome> {
        let results = self.append(marker, partitions).await;
        let outcome = |(result, partition): (Result<(), ReplicaError>, &TopicPartition)| match result {
            Ok(()) => MarkerOutcome::Written,
            Err(ReplicaError::UnknownPartition) if self.find(partition).is_none() => MarkerOutcome::Gone,
            Err(ReplicaError::Append(AppendError::InvalidProducerEpoch { .. } | AppendError::CoordinatorFenced { .. })) => {
                MarkerOutcome::Fenced
            }
            Err(error) => {
                tracing::debug!(topic = partition.topic, partition = partition.partition, %error, "a transaction marker could not be written");
                MarkerOutcome::Retry
            }
        };
        results.into_iter().zip(partitions).map(outcome).collect()
    }
}
