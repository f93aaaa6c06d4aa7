//! Metadata: brokers, topics and leaders; creates topics on first use if allowed.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use siltstone_common::TopicId;
use siltstone_metadata::api::CreateTopic;
use siltstone_metadata::{MetadataError, MetadataImage, TopicImage};

use crate::context::RequestContext;
use crate::error_codes::metadata_error;
use crate::topic_lookup::{
    ALL_CLUSTER_OPERATIONS, ALL_TOPIC_OPERATIONS, OPERATIONS_UNKNOWN, broker_ids, is_valid_name, offline_replicas, text, topic_name,
};

pub(crate) async fn handle(ctx: &RequestContext, request: MetadataRequest) -> MetadataResponse {
    let asked = match &request.topics {
        // Version 0 has no null: empty means all.
        Some(topics) if topics.is_empty() && ctx.api_version == 0 => None,
        other => other.as_deref(),
    };
    // A topic has a name or, from version 12 on, an id.
    let nameless = |topic: &MetadataRequestTopic| topic.name.is_none() && (ctx.api_version < 12 || topic.topic_id.is_nil());
    if asked.is_some_and(|topics| topics.iter().any(nameless)) {
        let error = if ctx.api_version >= 13 { ResponseError::InvalidRequest.code() } else { 0 };
        return MetadataResponse::default().with_error_code(error).with_topics(Vec::new());
    }
    if let Some(topics) = asked {
        create_missing(ctx, &request, topics).await;
    }
    let image = ctx.services.metadata.image();
    let operations = if request.include_topic_authorized_operations { ALL_TOPIC_OPERATIONS } else { OPERATIONS_UNKNOWN };
    let topics = match asked {
        None => image.topic_ids.values().filter_map(|id| image.topic_by_id(*id)).map(|topic| found(&image, topic, operations)).collect(),
        Some(topics) => distinct(topics).into_iter().map(|topic| look_up(ctx, &image, topic, operations)).collect(),
    };
    let asks_cluster = request.include_cluster_authorized_operations && (8..=10).contains(&ctx.api_version);
    MetadataResponse::default()
        .with_brokers(
            image
                .brokers
                .values()
                .filter(|broker| !broker.fenced)
                .map(|broker| {
                    MetadataResponseBroker::default()
                        .with_node_id(BrokerId(broker.id))
                        .with_host(text(&broker.host))
                        .with_port(i32::from(broker.port))
                        .with_rack(broker.rack.as_ref().map(text))
                })
                .collect(),
        )
        .with_cluster_id(Some(text(&image.cluster_id)))
        .with_controller_id(BrokerId(image.controller_id))
        .with_cluster_authorized_operations(if asks_cluster { ALL_CLUSTER_OPERATIONS } else { OPERATIONS_UNKNOWN })
        .with_topics(topics)
}

/// Creates the topics asked for by name that do not exist, where the request and `auto.create.topics.enable` allow it.
/// What can't be created shows in the look-up that follows.
async fn create_missing(ctx: &RequestContext, request: &MetadataRequest, topics: &[MetadataRequestTopic]) {
    let allowed = ctx.api_version < 4 || request.allow_auto_topic_creation;
    if !allowed || !ctx.services.broker_setting("auto.create.topics.enable").unwrap_or(true) {
        return;
    }
    for name in topics.iter().filter_map(|topic| topic.name.as_ref()) {
        if ctx.services.metadata.image().topic(name.0.as_str()).is_some() {
            continue;
        }
        let topic = CreateTopic { name: name.0.to_string(), partitions: -1, replication_factor: -1, ..CreateTopic::default() };
        match ctx.services.metadata.create_topic(topic).await {
            Ok(_) | Err(MetadataError::TopicExists(_) | MetadataError::InvalidTopic(_)) => {}
            Err(error) => tracing::warn!(topic = name.0.as_str(), %error, "could not create a topic on first use"),
        }
    }
}

/// Each topic once. Where one is asked for by id, names do not count (as in Kafka).
fn distinct(topics: &[MetadataRequestTopic]) -> Vec<&MetadataRequestTopic> {
    let by_id = topics.iter().any(|topic| !topic.topic_id.is_nil());
    let mut seen = BTreeSet::new();
    let asked = topics.iter().filter(|topic| !by_id || !topic.topic_id.is_nil());
    asked.filter(|topic| seen.insert((topic.topic_id, topic.name.as_ref().filter(|_| !by_id)))).collect()
}

fn look_up(ctx: &RequestContext, image: &MetadataImage, asked: &MetadataRequestTopic, operations: i32) -> MetadataResponseTopic {
    let missing = |error: ResponseError, name: Option<TopicName>| {
        // Before version 12 a topic without a name has the empty one.
        let name = if ctx.api_version < 12 { Some(name.unwrap_or(TopicName(StrBytes::default()))) } else { name };
        MetadataResponseTopic::default()
            .with_error_code(error.code())
            .with_name(name)
            .with_topic_id(asked.topic_id)
            .with_topic_authorized_operations(OPERATIONS_UNKNOWN)
    };
    match asked.name.as_ref().filter(|_| asked.topic_id.is_nil()) {
        Some(name) => match image.topic(name.0.as_str()) {
            Some(topic) => found(image, topic, operations),
            None if !is_valid_name(name.0.as_str()) => missing(ResponseError::InvalidTopicException, Some(name.clone())),
            None => missing(ResponseError::UnknownTopicOrPartition, Some(name.clone())),
        },
        None => match image.topic_by_id(TopicId(asked.topic_id)) {
            Some(topic) => found(image, topic, operations),
            None => missing(metadata_error(&MetadataError::UnknownTopicId(TopicId(asked.topic_id))), None),
        },
    }
}

fn found(image: &MetadataImage, topic: &TopicImage, operations: i32) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter().zip(0..).map(|(state, index)| {
        let error = if state.leader < 0 { ResponseError::LeaderNotAvailable.code() } else { 0 };
        MetadataResponsePartition::default()
            .with_error_code(error)
            .with_partition_index(index)
            .with_leader_id(BrokerId(state.leader))
            .with_leader_epoch(state.leader_epoch)
            .with_replica_nodes(broker_ids(&state.replicas))
            .with_isr_nodes(broker_ids(&state.isr))
            .with_offline_replicas(offline_replicas(image, &state.replicas))
    });
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id.0)
        .with_is_internal(topic.is_internal())
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(operations)
}
