//! DescribeQuorum (KIP-595): who keeps the cluster's metadata. Here that is the metadata service, whose voter is the controller's broker and whose log
//! is the sequence of the image's revisions.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData};
use kafka_protocol::messages::{BrokerId, DescribeQuorumRequest, DescribeQuorumResponse};
use kafka_protocol::protocol::StrBytes;
use siltstone_metadata::MetadataImage;
use siltstone_metadata::acls::AclOperation;
use siltstone_metadata::image::METADATA_TOPIC;

use crate::context::RequestContext;
use crate::error_codes::words;
use crate::topic_lookup::{text, topic_name};

pub(crate) async fn handle(ctx: &RequestContext, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    if let Err(error) = ctx.authorize_cluster(AclOperation::Describe) {
        return refused(ctx, error, text(words(error)));
    }
    let [topic] = request.topics.as_slice() else { return invalid(ctx) };
    let [partition] = topic.partitions.as_slice() else { return invalid(ctx) };
    if topic.topic_name.0.as_str() != METADATA_TOPIC || partition.partition_index != 0 {
        let unknown = PartitionData::default()
            .with_partition_index(partition.partition_index)
            .with_error_code(ResponseError::UnknownTopicOrPartition.code());
        let topic = TopicData::default().with_topic_name(topic.topic_name.clone()).with_partitions(vec![unknown]);
        return DescribeQuorumResponse::default().with_topics(vec![topic]);
    }
    let image = ctx.services.metadata.image();
    let topic = TopicData::default().with_topic_name(topic_name(METADATA_TOPIC)).with_partitions(vec![quorum(ctx, &image)]);
    let response = DescribeQuorumResponse::default().with_topics(vec![topic]);
    if ctx.api_version >= 2 { response.with_nodes(nodes(&image)) } else { response }
}

fn invalid(ctx: &RequestContext) -> DescribeQuorumResponse {
    refused(ctx, ResponseError::InvalidRequest, text("ask for __cluster_metadata-0, and nothing else"))
}

fn refused(ctx: &RequestContext, error: ResponseError, reason: StrBytes) -> DescribeQuorumResponse {
    let response = DescribeQuorumResponse::default().with_error_code(error.code());
    if ctx.api_version >= 2 { response.with_error_message(Some(reason)) } else { response }
}

fn quorum(ctx: &RequestContext, image: &MetadataImage) -> PartitionData {
    let revision = i64::try_from(image.revision).unwrap_or(i64::MAX);
    let epoch = image.brokers.get(&image.controller_id).map_or(0, |broker| i32::try_from(broker.epoch).unwrap_or(i32::MAX));
    let now = ctx.services.env.clock.now_ms();
    let state = |id: i32| {
        let state = ReplicaState::default().with_replica_id(BrokerId(id)).with_log_end_offset(revision);
        // The image here is the newest that this broker knows of.
        if ctx.api_version >= 1 { state.with_last_fetch_timestamp(now).with_last_caught_up_timestamp(now) } else { state }
    };
    let observers = image.brokers.keys().filter(|id| **id != image.controller_id).map(|id| state(*id));
    PartitionData::default()
        .with_leader_id(BrokerId(image.controller_id))
        .with_leader_epoch(epoch)
        .with_high_watermark(revision)
        .with_current_voters(vec![state(image.controller_id)])
        .with_observers(observers.collect())
}

fn nodes(image: &MetadataImage) -> Vec<Node> {
    let voter = image.brokers.get(&image.controller_id).map(|broker| {
        let listener = Listener::default().with_name(text("PLAINTEXT")).with_host(text(&broker.host)).with_port(broker.port);
        Node::default().with_node_id(BrokerId(broker.id)).with_listeners(vec![listener])
    });
    voter.into_iter().collect()
}
