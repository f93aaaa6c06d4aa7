//! AlterReplicaLogDirs (KIP-113): moves replicas between a broker's directories. There is one, where every replica is already.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult as PartitionResult, AlterReplicaLogDirTopicResult as TopicResult,
};
use kafka_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};
use siltstone_common::TopicIdPartition;
use siltstone_metadata::acls::AclOperation;

use crate::context::RequestContext;

/// No file system takes longer names.
const FILE_NAME_BYTES_MAX: usize = 255;

pub(crate) async fn handle(ctx: &RequestContext, request: AlterReplicaLogDirsRequest) -> AlterReplicaLogDirsResponse {
    let permitted = ctx.authorize_cluster(AclOperation::Alter);
    let image = ctx.services.metadata.image();
    let mut results = Vec::new();
    for dir in request.dirs {
        let here = dir.path.as_str() == ctx.services.config.log_dir;
        for topic in dir.topics {
            let id = image.topic(topic.name.0.as_str()).map(|topic| topic.id);
            let outcome = |index: i32| match id.and_then(|id| image.partition(TopicIdPartition::new(id, index))) {
                _ if permitted.is_err() => ResponseError::ClusterAuthorizationFailed.code(),
                _ if future_name_bytes(&topic.name, index) > FILE_NAME_BYTES_MAX => ResponseError::InvalidTopicException.code(),
                _ if !here => ResponseError::LogDirNotFound.code(),
                None => ResponseError::UnknownTopicOrPartition.code(),
                Some(partition) if partition.replicas.contains(&ctx.services.config.broker_id) => 0,
                Some(_) => ResponseError::ReplicaNotAvailable.code(),
            };
            let partitions = topic.partitions.iter();
            let partitions =
                partitions.map(|index| PartitionResult::default().with_partition_index(*index).with_error_code(outcome(*index)));
            results.push(TopicResult::default().with_topic_name(topic.name.clone()).with_partitions(partitions.collect()));
        }
    }
    AlterReplicaLogDirsResponse::default().with_results(results)
}

/// Length of the name under which Kafka builds a replica's copy: `TOPIC-PARTITION.UUID-future`. It refuses what does not fit (KAFKA-4893), wherever
/// it is to go.
fn future_name_bytes(topic: &str, partition: i32) -> usize {
    format!("{topic}-{partition}.").len() + 32 + "-future".len()
}
