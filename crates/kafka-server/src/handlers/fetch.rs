//! Fetch: from the request through its session to the read path (`ReplicaManager::fetch`), and back into a frame that holds the records as they
//! lie in memory or in files.

mod framing;
mod session;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::protocol::Decodable;
use siltstone_common::{TopicId, TopicIdPartition};
use siltstone_metadata::MetadataImage;
use siltstone_metadata::acls::{AclOperation, CLUSTER_NAME, ResourceType};
use siltstone_replica::{FetchIsolation, FetchParams, FetchPartition, FetchedPartition};

use crate::answer::Answer;
use crate::dispatch::Handlers;
use crate::error_codes::replica_error;
use crate::handlers::fetch::framing::{Endpoint, FetchAnswer, PartitionAnswer, SESSIONS_FROM, TOPIC_IDS_FROM, TopicAnswer};
pub(crate) use crate::handlers::fetch::session::FetchSessions;
use crate::handlers::fetch::session::{Asked, FetchContext, NO_SESSION, SessionRequest, Told, TopicRef};
use crate::session::Session;
use crate::topic_lookup::permitted;

/// Up to this version clients don't know KAFKA_STORAGE_ERROR.
const NO_STORAGE_ERROR_UNTIL: i16 = 5;
/// From this version on a replica says who it is in a tagged field.
const REPLICA_STATE_FROM: i16 = 15;
const UNKNOWN_OFFSET: i64 = -1;

/// Decodes the request; the future reads and answers, with at most `bytes_max` of records.
pub(crate) fn decode(
    handlers: Arc<Handlers>,
    session: Arc<Session>,
    mut body: Bytes,
    (correlation_id, version): (i32, i16),
    bytes_max: usize,
) -> Result<impl Future<Output = Answer> + Send + 'static, String> {
    let request = FetchRequest::decode(&mut body, version).map_err(|error| error.to_string())?;
    Ok(async move { framing::frame(correlation_id, version, handle(&handlers, &session, request, version, bytes_max).await) })
}

async fn handle(handlers: &Arc<Handlers>, session: &Session, request: FetchRequest, version: i16, bytes_max: usize) -> FetchAnswer {
    let isolation = match request.isolation_level {
        0 => FetchIsolation::ReadUncommitted,
        1 => FetchIsolation::ReadCommitted,
        _ => return refuse(&request, ResponseError::UnknownServerError, version),
    };
    let max_bytes = size(request.max_bytes).min(bytes_max);
    let params = FetchParams {
        max_wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)),
        min_bytes: size(request.min_bytes).min(max_bytes),
        max_bytes,
        isolation,
    };
    let replica_id = if version >= REPLICA_STATE_FROM { request.replica_state.replica_id } else { request.replica_id };
    let context = match handlers.fetch_sessions.begin(session_request(&request, version), handlers.now_ms()) {
        Ok(context) => context,
        Err(error) => return error_only(error, NO_SESSION),
    };
    let image = handlers.services.metadata.image();
    let partitions = if replica_id.0 >= 0 {
        // No broker of this cluster fetches here by Kafka's protocol, and nobody else may read past the high watermark (I44).
        let is_broker = handlers.services.allows(session, AclOperation::ClusterAction, ResourceType::Cluster, CLUSTER_NAME);
        let refused = |asked: &Asked| match is_broker {
            true => failed(asked, ResponseError::NotLeaderOrFollower, None),
            false => failed(asked, ResponseError::TopicAuthorizationFailed, Some(Vec::new())),
        };
        context.asked.iter().map(refused).collect()
    } else {
        read(handlers, session, &image, &context, params, version).await
    };
    finish(handlers, &context, partitions, version)
}

/// Reads every partition that exists; answers by position in the context's `asked`.
async fn read(
    handlers: &Arc<Handlers>,
    session: &Session,
    image: &MetadataImage,
    context: &FetchContext,
    params: FetchParams,
    version: i16,
) -> Vec<PartitionAnswer> {
    let find = |topic: &TopicRef| {
        let asked = ((version >= TOPIC_IDS_FROM).then_some(topic.id), &*topic.name);
        let found = permitted(&handlers.services, session, image, asked, AclOperation::Read)?;
        Ok((found.id, found.partitions.len()))
    };
    let topics: Vec<Result<(TopicId, usize), ResponseError>> = context.topics.iter().map(find).collect();
    let locate = |asked: &Asked| -> Result<TopicIdPartition, ResponseError> {
        let (id, count) = topics.get(asked.topic as usize).copied().unwrap_or(Err(ResponseError::UnknownTopicOrPartition))?;
        let known = usize::try_from(asked.partition).is_ok_and(|index| index < count);
        known.then(|| TopicIdPartition::new(id, asked.partition)).ok_or(ResponseError::UnknownTopicOrPartition)
    };
    let located: Vec<_> = context.asked.iter().map(locate).collect();
    let parts = located.iter().zip(&context.asked).filter_map(|(id, asked)| {
        Some(FetchPartition {
            id: (*id).ok()?,
            fetch_offset: asked.fetch_offset,
            current_leader_epoch: asked.current_leader_epoch,
            last_fetched_epoch: asked.last_fetched_epoch,
            max_bytes: size(asked.max_bytes),
        })
    });
    let mut fetched = handlers.services.replicas.fetch(params, parts.collect()).await.into_iter();
    let answer = |(id, asked): (&Result<TopicIdPartition, ResponseError>, &Asked)| match id {
        Err(error) => failed(asked, *error, Some(Vec::new())),
        Ok(_) => match fetched.next() {
            Some(partition) => fetched_answer(asked, partition, version),
            None => failed(asked, ResponseError::UnknownServerError, None),
        },
    };
    located.iter().zip(&context.asked).map(answer).collect()
}

/// Lets the session choose what is told, and puts the answer together.
fn finish(handlers: &Handlers, context: &FetchContext, partitions: Vec<PartitionAnswer>, version: i16) -> FetchAnswer {
    let told: Vec<Told> = partitions.iter().map(told).collect();
    let settled = handlers.fetch_sessions.settle(context, &told, handlers.now_ms(), &*handlers.services.env.entropy);
    let settled = match settled {
        Ok(settled) => settled,
        Err(error) => return error_only(error, NO_SESSION),
    };
    let endpoints = endpoints(handlers, &partitions, version);
    let mut topics: Vec<TopicAnswer> = Vec::new();
    let mut last_topic = None;
    for ((asked, partition), included) in context.asked.iter().zip(partitions).zip(settled.included) {
        if !included {
            continue;
        }
        if last_topic != Some(asked.topic) {
            let Some(topic) = context.topics.get(asked.topic as usize) else { continue };
            topics.push(TopicAnswer { name: Arc::clone(&topic.name), id: topic.id, partitions: Vec::new() });
            last_topic = Some(asked.topic);
        }
        if let Some(topic) = topics.last_mut() {
            topic.partitions.push(partition);
        }
    }
    FetchAnswer { error_code: 0, session_id: settled.session_id, topics, endpoints }
}

fn told(partition: &PartitionAnswer) -> Told {
    Told {
        high_watermark: partition.high_watermark,
        log_start_offset: partition.log_start_offset,
        has_records: !partition.records.is_empty(),
        has_error: partition.error_code != 0,
        diverges: partition.diverging_epoch.is_some(),
    }
}

/// Addresses of the leaders that partitions name.
fn endpoints(handlers: &Handlers, partitions: &[PartitionAnswer], version: i16) -> Vec<Endpoint> {
    let leaders: BTreeSet<i32> = partitions.iter().filter_map(|partition| partition.current_leader).map(|(leader, _)| leader).collect();
    if version < framing::ENDPOINTS_FROM || leaders.is_empty() {
        return Vec::new();
    }
    let image = handlers.services.metadata.image();
    let brokers = leaders.iter().filter_map(|id| image.brokers.get(id));
    brokers
        .map(|broker| Endpoint { id: broker.id, host: broker.host.clone(), port: i32::from(broker.port), rack: broker.rack.clone() })
        .collect()
}

fn fetched_answer(asked: &Asked, partition: FetchedPartition, version: i16) -> PartitionAnswer {
    let code = partition.error.as_ref().map(replica_error);
    let code = match code {
        Some(ResponseError::KafkaStorageError) if version <= NO_STORAGE_ERROR_UNTIL => Some(ResponseError::NotLeaderOrFollower),
        code => code,
    };
    PartitionAnswer {
        index: asked.partition,
        error_code: code.map_or(0, |code| code.code()),
        high_watermark: partition.high_watermark,
        last_stable_offset: partition.last_stable_offset,
        log_start_offset: partition.log_start_offset,
        aborted: partition.aborted.map(|aborted| aborted.iter().map(|txn| (txn.producer_id, txn.first_offset)).collect()),
        diverging_epoch: partition.diverging_epoch,
        current_leader: partition.current_leader,
        records: partition.slices,
    }
}

fn failed(asked: &Asked, error: ResponseError, aborted: Option<Vec<(i64, i64)>>) -> PartitionAnswer {
    PartitionAnswer {
        index: asked.partition,
        error_code: error.code(),
        high_watermark: UNKNOWN_OFFSET,
        last_stable_offset: UNKNOWN_OFFSET,
        log_start_offset: UNKNOWN_OFFSET,
        aborted,
        diverging_epoch: None,
        current_leader: None,
        records: Vec::new(),
    }
}

fn error_only(error: ResponseError, session_id: i32) -> FetchAnswer {
    FetchAnswer { error_code: error.code(), session_id, topics: Vec::new(), endpoints: Vec::new() }
}

/// The same error for the whole request: at the top, and for clients without topic ids also at each partition.
fn refuse(request: &FetchRequest, error: ResponseError, version: i16) -> FetchAnswer {
    let SessionRequest { topics, asked, .. } = session_request(request, version);
    let mut answer = error_only(error, if version >= SESSIONS_FROM { request.session_id } else { NO_SESSION });
    if version >= TOPIC_IDS_FROM {
        return answer;
    }
    answer.topics = topics.into_iter().map(|topic| TopicAnswer { name: topic.name, id: topic.id, partitions: Vec::new() }).collect();
    for asked in &asked {
        if let Some(topic) = answer.topics.get_mut(asked.topic as usize) {
            topic.partitions.push(failed(asked, error, Some(Vec::new())));
        }
    }
    answer
}

/// The request as sessions see it. Below version 7 there are none: the request stands alone.
fn session_request(request: &FetchRequest, version: i16) -> SessionRequest {
    let topic_ref = |name: &str, id: uuid::Uuid| TopicRef { name: Arc::from(name), id: TopicId(id) };
    let mut topics: Vec<TopicRef> = Vec::with_capacity(request.topics.len());
    let mut positions: HashMap<TopicRef, u32> = HashMap::new();
    let mut asked = Vec::new();
    for topic in &request.topics {
        let topic_ref = topic_ref(&topic.topic, topic.topic_id);
        let position = match positions.get(&topic_ref) {
            Some(position) => *position,
            None => {
                let position = u32::try_from(topics.len()).unwrap_or(u32::MAX);
                topics.push(topic_ref.clone());
                positions.insert(topic_ref, position);
                position
            }
        };
        asked.extend(topic.partitions.iter().map(|partition| Asked {
            topic: position,
            partition: partition.partition,
            fetch_offset: partition.fetch_offset,
            max_bytes: partition.partition_max_bytes,
            current_leader_epoch: partition.current_leader_epoch,
            last_fetched_epoch: partition.last_fetched_epoch,
        }));
    }
    let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
        let topic_ref = topic_ref(&topic.topic, topic.topic_id);
        topic.partitions.iter().map(move |partition| (topic_ref.clone(), *partition))
    });
    SessionRequest {
        session_id: request.session_id,
        session_epoch: if version >= SESSIONS_FROM { request.session_epoch } else { -1 },
        by_id: version >= TOPIC_IDS_FROM,
        topics,
        asked,
        forgotten: forgotten.collect(),
    }
}

fn size(bytes: i32) -> usize {
    usize::try_from(bytes).unwrap_or(0)
}
