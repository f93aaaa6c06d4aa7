//! Transaction markers into the partitions of this broker: control batches by way of the replica manager; for `__consumer_offsets` by way of the
//! group coordinator, which then makes the offsets of the transaction the groups', or forgets them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use kafka_protocol::ResponseError;
use siltstone_common::TopicIdPartition;
use siltstone_coordinator::{GroupCoordinator, GroupError, MarkerOutcome, TopicPartition, TxnMarker, TxnMarkerLog};
use siltstone_log::AppendOrigin;
use siltstone_log::producers::EndTxnMarker;
use siltstone_metadata::api::ConfigResource;
use siltstone_metadata::{MetadataApi, MetadataError};
use siltstone_replica::{ProducePartition, ReplicaManager};

use crate::error_codes::{group_error, replica_error};
use crate::state_topics::GROUP_METADATA_TOPIC;

/// How long a marker may take to be committed: Kafka's `request.timeout.ms`.
const MARKER_TIMEOUT: Duration = Duration::from_secs(30);

/// See the module.
pub struct ReplicaMarkers {
    metadata: Arc<dyn MetadataApi>,
    replicas: Arc<ReplicaManager>,
    groups: GroupCoordinator,
}

impl ReplicaMarkers {
    pub(crate) fn new(metadata: Arc<dyn MetadataApi>, replicas: Arc<ReplicaManager>, groups: GroupCoordinator) -> Self {
        Self { metadata, replicas, groups }
    }

    fn find(&self, partition: &TopicPartition) -> Option<TopicIdPartition> {
        let image = self.metadata.image();
        let id = TopicIdPartition::new(image.topic(&partition.topic)?.id, partition.partition);
        image.partition(id).map(|_| id)
    }

    /// True only if the metadata service itself does not know the partition any more: a marker left out because this broker's image is behind
    /// would hold the last stable offset back for ever (I19).
    async fn is_gone<'a>(&self, partition: &'a TopicPartition, caught_up: &mut BTreeMap<&'a str, bool>) -> bool {
        let topic = &*partition.topic;
        if !caught_up.contains_key(topic) {
            // A change of nothing: it is refused for want of the topic, or returns once the image shows all that the service knows.
            let asked = self.metadata.alter_configs(ConfigResource::Topic(topic.to_owned()), Vec::new(), true).await;
            caught_up.insert(topic, matches!(asked, Ok(()) | Err(MetadataError::UnknownTopic(_))));
        }
        caught_up.get(topic) == Some(&true) && self.find(partition).is_none()
    }

    /// Writes a marker into `partitions`, and says what became of each, in their order.
    pub(crate) async fn append(&self, marker: TxnMarker, partitions: &[TopicPartition]) -> Vec<Result<(), ResponseError>> {
        let mut results: Vec<Result<(), ResponseError>> = vec![Ok(()); partitions.len()];
        let (mut parts, mut places) = (Vec::new(), Vec::new());
        let mut groups = Vec::new();
        let batch = marker_batch(marker, self.replicas.now_ms());
        for (at, partition) in partitions.iter().enumerate() {
            match self.find(partition) {
                None => results[at] = Err(ResponseError::UnknownTopicOrPartition),
                Some(_) if &*partition.topic == GROUP_METADATA_TOPIC => groups.push(async move {
                    let completed = self.groups.complete_transaction(partition.partition, marker).await;
                    (at, completed.map_err(offsets_error))
                }),
                Some(id) => {
                    let origin = AppendOrigin::Marker { transaction_version: marker.version.level() };
                    parts.push(ProducePartition { id, records: batch.clone(), origin });
                    places.push(at);
                }
            }
        }
        let (outcomes, completed) = tokio::join!(self.replicas.append(-1, MARKER_TIMEOUT, parts), join_all(groups));
        for (at, outcome) in places.into_iter().zip(outcomes) {
            results[at] = outcome.result.map(drop).map_err(|error| replica_error(&error));
        }
        for (at, result) in completed {
            results[at] = result;
        }
        results
    }
}

/// The group coordinator's refusals as those of a partition: what may pass means that it is not ready yet.
fn offsets_error(error: GroupError) -> ResponseError {
    match group_error(error) {
        ResponseError::CoordinatorNotAvailable | ResponseError::CoordinatorLoadInProgress | ResponseError::NotCoordinator => {
            ResponseError::NotLeaderOrFollower
        }
        other => other,
    }
}

pub(crate) fn marker_batch(marker: TxnMarker, now_ms: i64) -> bytes::BytesMut {
    let TxnMarker { producer, coordinator_epoch, commit, .. } = marker;
    EndTxnMarker { commit, coordinator_epoch }.to_batch(producer.producer_id, producer.producer_epoch, now_ms)
}

#[async_trait]
impl TxnMarkerLog for ReplicaMarkers {
    async fn write(&self, marker: TxnMarker, partitions: &[TopicPartition]) -> Vec<MarkerOutcome> {
        let results = self.append(marker, partitions).await;
        let mut outcomes = Vec::with_capacity(partitions.len());
        let mut caught_up: BTreeMap<&str, bool> = BTreeMap::new();
        for (result, partition) in results.into_iter().zip(partitions) {
            outcomes.push(match result {
                Ok(()) => MarkerOutcome::Written,
                Err(ResponseError::UnknownTopicOrPartition) if self.is_gone(partition, &mut caught_up).await => MarkerOutcome::Gone,
                Err(ResponseError::InvalidProducerEpoch | ResponseError::TransactionCoordinatorFenced) => MarkerOutcome::Fenced,
                Err(error) => {
                    tracing::debug!(topic = %partition.topic, partition = partition.partition, %error, "a transaction marker could not be written");
                    MarkerOutcome::Retry
                }
            });
        }
        outcomes
    }
}
