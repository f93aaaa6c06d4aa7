//! OffsetFetch: the committed positions of one group, or from version 8 of several (KIP-709).

use std::collections::HashSet;
use std::sync::Arc;

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
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::answer::AnswerRoom;
use crate::by_topic_id::{ById, FIRST_VERSION, put_names};
use crate::context::RequestContext;
use crate::error_codes::group_error;
use crate::topic_lookup::{partitions_of, text, topic_name};

type Fetched = Vec<(TopicPartition, CommittedOffset)>;

pub(crate) async fn handle(ctx: &RequestContext, request: ById<OffsetFetchRequest>) -> OffsetFetchResponse {
    let ById { request, topic_ids } = request;
    if ctx.api_version >= 8 {
        return fetch_groups(ctx, request, topic_ids).await;
    }
    let permitted = ctx.authorize(AclOperation::Describe, ResourceType::Group, request.group_id.0.as_str());
    let (seen, unseen): (Option<Vec<_>>, Vec<_>) = match request.topics {
        None => (None, Vec::new()),
        Some(topics) => {
            let sees = |topic: &OffsetFetchRequestTopic| permitted.is_err() || may_see(ctx, topic.name.0.as_str());
            let (seen, unseen) = topics.into_iter().partition(sees);
            (Some(seen), unseen)
        }
    };
    let asked = FetchOffsetsRequest {
        group_id: request.group_id.0.to_string(),
        member_id: None,
        member_epoch: -1,
        partitions: seen.as_deref().map(partitions),
        require_stable: request.require_stable,
    };
    let fetched = match permitted {
        Ok(()) => fetch(ctx, asked).await,
        Err(error) => Err(error),
    };
    let nothing = |topics: &[OffsetFetchRequestTopic]| partitions(topics).into_iter().map(|id| (id, CommittedOffset::none())).collect();
    match fetched {
        Ok(fetched) => {
            let mut answered = topics(fetched, 0);
            if seen.is_none() {
                answered.retain(|topic| may_see(ctx, topic.name.0.as_str()));
            }
            answered.extend(topics(nothing(&unseen), ResponseError::TopicAuthorizationFailed.code()));
            OffsetFetchResponse::default().with_topics(answered)
        }
        // Version 1 has no error of the request: it is every partition's.
        Err(error) if ctx.api_version < 2 => {
            OffsetFetchResponse::default().with_topics(topics(nothing(&seen.unwrap_or_default()), error.code()))
        }
        Err(error) => OffsetFetchResponse::default().with_error_code(error.code()),
    }
}

async fn fetch_groups(ctx: &RequestContext, request: OffsetFetchRequest, topic_ids: Vec<TopicId>) -> OffsetFetchResponse {
    let mut room = AnswerRoom::new();
    let mut groups = Vec::with_capacity(request.groups.len());
    let mut topic_ids = topic_ids.into_iter();
    for mut group in request.groups {
        let named = group.topics.as_deref_mut().unwrap_or_default();
        let ids: Vec<TopicId> = topic_ids.by_ref().take(named.len()).collect();
        let image = ctx.services.metadata.image();
        put_names(&image, &ids, named.iter_mut().map(|topic| &mut topic.name));
        // Topics of unknown ids have no name: they are told apart from all others by their id alone.
        let permitted = ctx.authorize(AclOperation::Describe, ResourceType::Group, group.group_id.0.as_str());
        let refusal = |topic: &OffsetFetchRequestTopics| match topic.name.is_empty() && ctx.api_version >= FIRST_VERSION {
            true => Some(ResponseError::UnknownTopicId),
            false if permitted.is_ok() && !may_see(ctx, topic.name.0.as_str()) => Some(ResponseError::TopicAuthorizationFailed),
            false => None,
        };
        let refusals: Vec<_> = group.topics.iter().flatten().map(refusal).collect();
        let known = |topics: &Vec<OffsetFetchRequestTopics>| {
            let known = topics.iter().zip(&refusals).filter(|(_, refusal)| refusal.is_none());
            known.flat_map(|(topic, _)| topic_partitions(topic)).collect()
        };
        let partitions = group.topics.as_ref().map(known);
        let asked = FetchOffsetsRequest {
            group_id: group.group_id.0.to_string(),
            member_id: group.member_id.as_ref().map(|id| id.to_string()),
            member_epoch: group.member_epoch,
            partitions,
            require_stable: request.require_stable,
        };
        let fetched = match permitted.and(room.check()) {
            Ok(()) => fetch(ctx, asked).await,
            Err(error) => Err(error),
        };
        let offsets = fetched.as_deref().unwrap_or_default();
        room.take(1 + offsets.len(), offsets.iter().map(|(_, committed)| committed.metadata.len()).sum());
        let is_refused = fetched.is_err();
        let mut answer = group_answer(group.group_id, fetched);
        if group.topics.is_none() {
            answer.topics.retain(|topic| may_see(ctx, topic.name.0.as_str()));
        }
        if ctx.api_version >= FIRST_VERSION && !is_refused {
            put_ids(&image, &mut answer);
        }
        if !is_refused {
            let ids = ids.iter().copied().chain(std::iter::repeat(TopicId::ZERO));
            let refused = group.topics.iter().flatten().zip(ids).zip(&refusals);
            answer.topics.extend(refused.filter_map(|((topic, id), refusal)| Some(refused_topic(ctx, topic, id, (*refusal)?))));
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

fn refused_topic(ctx: &RequestContext, topic: &OffsetFetchRequestTopics, id: TopicId, error: ResponseError) -> OffsetFetchResponseTopics {
    let partitions = topic.partition_indexes.iter().map(|index| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(*index)
            .with_committed_offset(-1)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(StrBytes::default()))
            .with_error_code(error.code())
    });
    let answer = OffsetFetchResponseTopics::default().with_topic_id(id.0).with_partitions(partitions.collect());
    if ctx.api_version < FIRST_VERSION { answer.with_name(topic.name.clone()) } else { answer }
}

fn may_see(ctx: &RequestContext, topic: &str) -> bool {
    ctx.allows(AclOperation::Describe, ResourceType::Topic, topic)
}

/// Partitions of a group up to this many may be asked for more than once.
const REPEATS_MAX: usize = 10_000;

async fn fetch(ctx: &RequestContext, mut request: FetchOffsetsRequest) -> Result<Fetched, ResponseError> {
    if let Some(partitions) = request.partitions.as_mut().filter(|partitions| partitions.len() > REPEATS_MAX) {
        // Four bytes would ask for all of an offset's metadata each time (I42).
        let mut seen = HashSet::new();
        partitions.retain(|id| seen.insert(id.clone()));
    }
    ctx.services.groups.fetch_offsets(request).await.map_err(group_error)
}

fn partitions(topics: &[OffsetFetchRequestTopic]) -> Vec<TopicPartition> {
    topics.iter().flat_map(|topic| partitions_of(&topic.name, topic.partition_indexes.iter().copied())).collect()
}

fn topic_partitions(topic: &OffsetFetchRequestTopics) -> impl Iterator<Item = TopicPartition> + '_ {
    partitions_of(&topic.name, topic.partition_indexes.iter().copied())
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
fn by_topic(fetched: Fetched) -> Vec<(Arc<str>, Vec<(i32, CommittedOffset)>)> {
    let mut topics: Vec<(Arc<str>, Vec<(i32, CommittedOffset)>)> = Vec::new();
    for (id, committed) in fetched {
        match topics.last_mut() {
            Some((topic, offsets)) if *topic == id.topic => offsets.push((id.partition, committed)),
            _ => topics.push((id.topic, vec![(id.partition, committed)])),
        }
    }
    topics
}
