//! ListOffsets: earliest, latest, by time, by tier.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, TopicName};
use siltstone_metadata::acls::{AclOperation, ResourceType};
use siltstone_replica::{FetchIsolation, FoundOffset, OffsetSpec};

use crate::context::RequestContext;
use crate::error_codes::replica_error;
use crate::topic_lookup::{by_name, refuse_epoch_below_none};

/// Partitions looked up at the same time: by time, one may need several reads from the bucket.
const AT_ONCE: usize = 16;
/// `remote.list.offsets.request.timeout.ms`, if it is not set.
const TIMEOUT_MS: u64 = 30_000;

/// The partitions of all topics are looked up side by side; what is not found in time gets REQUEST_TIMED_OUT, as in Kafka.
pub(crate) async fn handle(ctx: &RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let timeout_ms = ctx.services.broker_setting("remote.list.offsets.request.timeout.ms").unwrap_or(TIMEOUT_MS);
    let asked_ms = u64::try_from(request.timeout_ms).ok().filter(|ms| ctx.api_version >= 10 && *ms > 0);
    let deadline = ctx.services.replicas.sleep(Duration::from_millis(asked_ms.unwrap_or(timeout_ms))).shared();
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut searches = Vec::new();
    for topic in request.topics {
        if topic.partitions.is_empty() {
            continue; // as Kafka
        }
        let mut asked: BTreeMap<i32, usize> = BTreeMap::new();
        for partition in &topic.partitions {
            *asked.entry(partition.partition_index).or_default() += 1;
        }
        let permitted = ctx.authorize(AclOperation::Describe, ResourceType::Topic, topic.name.as_str());
        for partition in topic.partitions {
            // None: asked for twice, and refused once.
            let Some(times) = asked.remove(&partition.partition_index) else { continue };
            let refusal = permitted.err().or((times > 1).then_some(ResponseError::InvalidRequest));
            searches.push((topics.len(), topic.name.clone(), partition, refusal));
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name));
    }
    let isolation_level = request.isolation_level;
    let found = searches.into_iter().map(|(index, name, partition, refusal)| {
        let deadline = deadline.clone();
        async move {
            let found = match refusal {
                Some(error) => Err(error),
                None => tokio::select! {
                    biased;
                    found = find(ctx, &name, &partition, isolation_level) => found,
                    () = deadline => Err(ResponseError::RequestTimedOut),
                },
            };
            (index, answer(ctx.api_version, partition.partition_index, found))
        }
    });
    let mut found = futures::stream::iter(found).buffered(AT_ONCE);
    while let Some((index, answer)) = found.next().await {
        topics[index].partitions.push(answer);
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
