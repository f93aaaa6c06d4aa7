//! OffsetFetch: the committed positions of one group, or from version 8 of several (KIP-709).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestTopic, OffsetFetchRequestTopics};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse};
use kafka_protocol::protocol::StrBytes;
use siltstone_common::TopicId;
use siltstone_coordinator::{CommittedOffset, FetchOffsetsRequest, TopicPartition};
use siltstone_metadata::MetadataImage;

use crate::by_topic_id::{ById, FIRST_VERSION, put_names};
use crate::context::RequestContext;
use crate::error_codes::group_error;
use crate::topic_lookup::{text, topic_name};

type Fetched = Vec<(TopicPartition, CommittedOffset)>;

pub(crate) async fn handle(ctx: &RequestContext, request: ById<OffsetFetchRequest>) -> OffsetFetchResponse {
    let ById { request, topic_ids } = request;
    if ctx.api_version >= 8 {
        return fetch_groups(ctx, request, topic_ids).await;
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

async fn fetch_groups(ctx: &RequestContext, request: OffsetFetchRequest, topic_ids: Vec<TopicId>) -> OffsetFetchResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    let mut topic_ids = topic_ids.into_iter();
    for mut group in request.groups {
        let named = group.topics.as_deref_mut().unwrap_or_default();
        let ids: Vec<TopicId> = topic_ids.by_ref().take(named.len()).collect();
        let image = ctx.services.metadata.image();
        put_names(&image, &ids, named.iter_mut().map(|topic| &mut topic.name));
        // Topics of unknown ids have no name: they are told apart from all others by their id alone.
        let is_known = |topic: &&OffsetFetchRequestTopics| ctx.api_version < FIRST_VERSION || !topic.name.is_empty();
        let partitions = group.topics.as_ref().map(|topics| topics.iter().filter(is_known).flat_map(topic_partitions).collect());
        let asked = FetchOffsetsRequest {
            group_id: group.group_id.0.to_string(),
            member_id: group.member_id.as_ref().map(|id| id.to_string()),
            member_epoch: group.member_epoch,
            partitions,
            require_stable: request.require_stable,
        };
        let fetched = fetch(ctx, asked).await;
        let is_refused = fetched.is_err();
        let mut answer = group_answer(group.group_id, fetched);
        if ctx.api_version >= FIRST_VERSION && !is_refused {
            put_ids(&image, &mut answer);
            let unknown = group.topics.iter().flatten().zip(&ids).filter(|(topic, _)| topic.name.is_empty());
            answer.topics.extend(unknown.map(|(topic, id)| unknown_topic(topic, *id)));
        }
        groups.push(answer);
    }
    OffsetFetchResponse::default().with_groups(groups)
}

/// Names the topics of an answer by their ids; topics that are gone are left out.
fn put_ids(image: &MetadataImage, answer: &mut OffsetFetchResponseGroup) {
    answer.topics.retain_mut(|topic| {
        let found = image.topic(topic.name.as_str());
        topic.topic_id = found.map_or(TopicId::ZERO, |topic| topic.id).0;
        found.is_some()
    });
}

fn unknown_topic(topic: &OffsetFetchRequestTopics, id: TopicId) -> OffsetFetchResponseTopics {
    let partitions = topic.partition_indexes.iter().map(|index| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(*index)
            .with_committed_offset(-1)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(StrBytes::default()))
            .with_error_code(ResponseError::UnknownTopicId.code())
    });
    OffsetFetchResponseTopics::default().with_topic_id(id.0).with_partitions(partitions.collect())
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

fn topic_partitions(topic: &OffsetFetchRequestTopics) -> impl Iterator<Item = TopicPartition> + '_ {
    ids(topic.name.0.as_str(), &topic.partition_indexes)
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
