//! ListOffsets: earliest, latest, by time, by tier.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, TopicName};
use siltstone_metadata::acls::{AclOperation, ResourceType};
use siltstone_replica::{FetchIsolation, FoundOffset, OffsetSpec};

use crate::context::RequestContext;
use crate::error_codes::replica_error;
use crate::topic_lookup::{by_name, refuse_epoch_below_none};

pub(crate) async fn handle(ctx: &RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        if topic.partitions.is_empty() {
            continue; // as Kafka
        }
        let mut asked: BTreeMap<i32, usize> = BTreeMap::new();
        for partition in &topic.partitions {
            *asked.entry(partition.partition_index).or_default() += 1;
        }
        let permitted = ctx.authorize(AclOperation::Describe, ResourceType::Topic, topic.name.as_str());
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let found = match asked.remove(&index) {
                None => continue, // asked for twice, and refused once
                Some(_) if permitted.is_err() => permitted.map(|()| FoundOffset::NONE),
                Some(1) => find(ctx, &topic.name, partition, request.isolation_level).await,
                Some(_) => Err(ResponseError::InvalidRequest),
            };
            partitions.push(answer(ctx.api_version, index, found));
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

fn answer(version: i16, index: i32, found: Result<FoundOffset, ResponseError>) -> ListOffsetsPartitionResponse {
    let (code, found) = match found {
        Ok(found) => (0, found),
        Err(error) => (error.code(), FoundOffset::NONE),
    };
    ListOffsetsPartitionResponse::default()
        .with_partition_index(index)
        .with_error_code(code)
        .with_timestamp(found.timestamp_ms)
        .with_offset(found.offset)
        .with_leader_epoch(if version >= 4 { found.leader_epoch } else { -1 })
}

async fn find(
    ctx: &RequestContext,
    topic: &TopicName,
    asked: &ListOffsetsPartition,
    isolation_level: i8,
) -> Result<FoundOffset, ResponseError> {
    let isolation = match isolation_level {
        0 => FetchIsolation::ReadUncommitted,
        1 => FetchIsolation::ReadCommitted,
        _ => return Err(ResponseError::UnknownServerError), // Kafka's answer
    };
    let spec = spec(ctx.api_version, asked.timestamp)?;
    let id = by_name(&ctx.services.metadata.image(), topic, asked.partition_index)?;
    refuse_epoch_below_none(asked.current_leader_epoch)?;
    let found = ctx.services.replicas.list_offset(id, asked.current_leader_epoch, spec, isolation).await;
    found.map_err(|error| replica_error(&error))
}

/// Each special timestamp has the version that brought it (KIP-734, KIP-405, KIP-1005, KIP-1023); before, and unknown ones: UNSUPPORTED_VERSION.
fn spec(version: i16, timestamp: i64) -> Result<OffsetSpec, ResponseError> {
    match timestamp {
        -1 => Ok(OffsetSpec::Latest),
        -2 => Ok(OffsetSpec::Earliest),
        -3 if version >= 7 => Ok(OffsetSpec::MaxTimestamp),
        -4 if version >= 8 => Ok(OffsetSpec::EarliestLocal),
        -5 if version >= 9 => Ok(OffsetSpec::LatestTiered),
        -6 if version >= 11 => Ok(OffsetSpec::EarliestPendingUpload),
        timestamp if timestamp >= 0 => Ok(OffsetSpec::Timestamp(timestamp)),
        _ => Err(ResponseError::UnsupportedVersion),
    }
}
