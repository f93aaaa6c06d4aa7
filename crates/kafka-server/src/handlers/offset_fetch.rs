//! OffsetFetch: the committed positions of one group, or from version 8 of several (KIP-709).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestTopic, OffsetFetchRequestTopics};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse};
use siltstone_coordinator::{CommittedOffset, FetchOffsetsRequest, TopicPartition};

use crate::context::RequestContext;
use crate::error_codes::group_error;
use crate::topic_lookup::{text, topic_name};

type Fetched = Vec<(TopicPartition, CommittedOffset)>;

pub(crate) async fn handle(ctx: &RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if ctx.api_version >= 8 {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            let partitions = group.topics.as_deref().map(batched_partitions);
            let asked = FetchOffsetsRequest {
                group_id: group.group_id.0.to_string(),
                member_id: group.member_id.as_ref().map(|id| id.to_string()),
                member_epoch: group.member_epoch,
                partitions,
                require_stable: request.require_stable,
            };
            let fetched = fetch(ctx, asked).await;
            groups.push(group_answer(group.group_id, fetched));
        }
        return OffsetFetchResponse::default().with_groups(groups);
    }
    let partitions = request.topics.as_deref().map(partitions);
    let asked = FetchOffsetsRequest {
        group_id: request.group_id.0.to_string(),
        member_id: None,
        member_epoch: -1,
        partitions: partitions.clone(),
        require_stable: request.require_stable,
    };
    let fetched = fetch(ctx, asked).await;
    match fetched {
        Ok(fetched) => OffsetFetchResponse::default().with_topics(topics(fetched, 0)),
        // Version 1 has no error of the request: it is every partition's.
        Err(error) if ctx.api_version < 2 => {
            let refused = partitions.unwrap_or_default().into_iter().map(|id| (id, CommittedOffset::none()));
            OffsetFetchResponse::default().with_topics(topics(refused.collect(), error.code()))
        }
        Err(error) => OffsetFetchResponse::default().with_error_code(error.code()),
    }
}

async fn fetch(ctx: &RequestContext, request: FetchOffsetsRequest) -> Result<Fetched, ResponseError> {
    ctx.services.groups.fetch_offsets(request).await.map_err(group_error)
}

fn ids<'a>(topic: &'a str, indexes: &'a [i32]) -> impl Iterator<Item = TopicPartition> + 'a {
    indexes.iter().map(|partition| TopicPartition { topic: topic.to_owned(), partition: *partition })
}

fn partitions(topics: &[OffsetFetchRequestTopic]) -> Vec<TopicPartition> {
    topics.iter().flat_map(|topic| ids(topic.name.0.as_str(), &topic.partition_indexes)).collect()
}

fn batched_partitions(topics: &[OffsetFetchRequestTopics]) -> Vec<TopicPartition> {
    topics.iter().flat_map(|topic| ids(topic.name.0.as_str(), &topic.partition_indexes)).collect()
}

fn topics(fetched: Fetched, error_code: i16) -> Vec<OffsetFetchResponseTopic> {
    let topics = by_topic(fetched).into_iter().map(|(topic, offsets)| {
        let partitions = offsets.into_iter().map(|(partition, committed)| {
            OffsetFetchResponsePartition::default()
                .with_error_code(if error_code == 0 { stability_code(&committed) } else { error_code })
                .with_partition_index(partition)
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(committed.leader_epoch)
                .with_metadata(Some(text(committed.metadata)))
        });
        OffsetFetchResponseTopic::default().with_name(topic_name(&topic)).with_partitions(partitions.collect())
    });
    topics.collect()
}

fn group_answer(group_id: GroupId, fetched: Result<Fetched, ResponseError>) -> OffsetFetchResponseGroup {
    let answer = OffsetFetchResponseGroup::default().with_group_id(group_id);
    let fetched = match fetched {
        Ok(fetched) => fetched,
        Err(error) => return answer.with_error_code(error.code()),
    };
    let topics = by_topic(fetched).into_iter().map(|(topic, offsets)| {
        let partitions = offsets.into_iter().map(|(partition, committed)| {
            OffsetFetchResponsePartitions::default()
                .with_error_code(stability_code(&committed))
                .with_partition_index(partition)
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(committed.leader_epoch)
                .with_metadata(Some(text(committed.metadata)))
        });
        OffsetFetchResponseTopics::default().with_name(topic_name(&topic)).with_partitions(partitions.collect())
    });
    answer.with_topics(topics.collect())
}

/// An offset that an open transaction holds must be asked for again (KIP-447).
fn stability_code(committed: &CommittedOffset) -> i16 {
    if committed.is_unstable { ResponseError::UnstableOffsetCommit.code() } else { 0 }
}

/// Runs of one topic, in the order in which they came.
fn by_topic(fetched: Fetched) -> Vec<(String, Vec<(i32, CommittedOffset)>)> {
    let mut topics: Vec<(String, Vec<(i32, CommittedOffset)>)> = Vec::new();
    for (id, committed) in fetched {
        match topics.last_mut() {
            Some((topic, offsets)) if *topic == id.topic => offsets.push((id.partition, committed)),
            _ => topics.push((id.topic, vec![(id.partition, committed)])),
        }
    }
    topics
}
