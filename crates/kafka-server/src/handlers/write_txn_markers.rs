//! WriteTxnMarkers: ends transactions in their partitions. Brokers send it to each other; kafka-transactions.sh sends it to abort what hangs.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::WriteTxnMarkersResponse;
use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarkerTopic;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use siltstone_coordinator::{ProducerIdAndEpoch, TransactionVersion, TxnMarker};
use siltstone_metadata::acls::AclOperation;

use crate::by_topic_id::VersionedMarkers;
use crate::context::RequestContext;
use crate::topic_lookup::partitions_of;

pub(crate) async fn handle(ctx: &RequestContext, request: VersionedMarkers) -> WriteTxnMarkersResponse {
    let VersionedMarkers { request, levels } = request;
    let allowed = ctx.allows_cluster(AclOperation::Alter) || ctx.authorize_cluster(AclOperation::ClusterAction).is_ok();
    let mut results = Vec::with_capacity(request.markers.len());
    // Version 1 of the request does not tell the level: the lenient rule holds.
    let levels = levels.into_iter().chain(std::iter::repeat(0));
    for (marker, level) in request.markers.into_iter().zip(levels) {
        let producer = ProducerIdAndEpoch { producer_id: marker.producer_id.0, producer_epoch: marker.producer_epoch };
        let end = TxnMarker {
            producer,
            coordinator_epoch: marker.coordinator_epoch,
            commit: marker.transaction_result,
            version: TransactionVersion::from_level(level.into()),
        };
        let codes = match allowed {
            true => {
                let of_topic = |topic: &WritableTxnMarkerTopic| partitions_of(&topic.name, topic.partition_indexes.clone());
                ctx.services.markers.append(end, &marker.topics.iter().flat_map(of_topic).collect::<Vec<_>>()).await
            }
            false => Vec::new(),
        };
        let mut codes = codes.into_iter();
        let topics = marker.topics.into_iter().map(|topic| {
            let partitions = topic.partition_indexes.iter().map(|index| {
                let code = codes.next().unwrap_or(Err(ResponseError::ClusterAuthorizationFailed)).err().map_or(0, |code| code.code());
                WritableTxnMarkerPartitionResult::default().with_partition_index(*index).with_error_code(code)
            });
            let partitions = partitions.collect();
            WritableTxnMarkerTopicResult::default().with_name(topic.name).with_partitions(partitions)
        });
        let topics = topics.collect();
        results.push(WritableTxnMarkerResult::default().with_producer_id(marker.producer_id).with_topics(topics));
    }
    WriteTxnMarkersResponse::default().with_markers(results)
}
