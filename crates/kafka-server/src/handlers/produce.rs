//! Produce: every partition's batch goes to its log, then the answer waits for the acknowledgement that the client asked for.
//!
//! Two steps, so that a connection may go on: `start` ends when the batches stand in the logs, in the order of the requests; the future it
//! leaves ends with the answer.

mod check;
mod codec;
#[cfg(test)]
mod samples;
mod transaction;
#[cfg(test)]
pub(crate) use samples::{decode_only, sample_request};

use std::cell::LazyCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{BrokerId, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use siltstone_common::{TopicId, TopicIdPartition};
use siltstone_log::{AppendError, AppendOrigin};
use siltstone_metadata::acls::{AclOperation, ResourceType};
use siltstone_metadata::{MetadataImage, TopicImage};
use siltstone_replica::{ProduceOutcome, ProducePartition, ReplicaError};

use crate::answer::{Answer, encode_answer};
use crate::budget::Charge;
use crate::connection::InboundFrame;
use crate::dispatch::{Appended, Handlers};
use crate::error_codes::replica_error;
use crate::handlers::produce::codec::{ProduceRequest, ProduceTopic, TOPIC_IDS_FROM};
use crate::session::Session;
use crate::topic_lookup::permitted;

const NO_ACKS: i16 = 0;
/// First version that names the records in error (KIP-467).
const RECORD_ERRORS_FROM: i16 = 8;
/// Records in error that get a message each; the others only their index, so that a small request never gets a large answer.
const RECORD_MESSAGES_MAX: usize = 100;
/// First version that names the leader with NOT_LEADER_OR_FOLLOWER (KIP-951).
const LEADERS_FROM: i16 = 10;

/// Requests of so many partitions cost no more than their frame and the free allowance.
const PARTITIONS_UNCHARGED: usize = 64;
/// Memory that a partition takes until its answer is sent, besides its batches.
const PARTITION_BYTES: usize = 512;

/// A request under way: the answer with a place for every partition, and where each appended partition's outcome goes.
struct Produce {
    handlers: Arc<Handlers>,
    session: Arc<Session>,
    correlation_id: i32,
    version: i16,
    acks: i16,
    topics: Vec<TopicProduceResponse>,
    /// Topic and partition positions in `topics`, in the order of the appends.
    appended: Vec<(usize, usize)>,
}

/// Decodes the request and appends its batches; `charge` grows by what it takes beyond its frame.
pub(crate) fn decode(
    handlers: Arc<Handlers>,
    session: Arc<Session>,
    frame: InboundFrame,
    body_start: usize,
    correlation_id: i32,
    version: i16,
    charge: &mut Charge,
) -> Result<impl Future<Output = Appended> + Send + 'static, String> {
    let request = codec::decode(frame, body_start, version).map_err(|error| error.to_string())?;
    let partitions: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    if partitions > PARTITIONS_UNCHARGED {
        charge.add(partitions * PARTITION_BYTES);
    }
    let produce = Produce { handlers, session, correlation_id, version, acks: request.acks, topics: Vec::new(), appended: Vec::new() };
    Ok(start(produce, request))
}

async fn start(mut produce: Produce, request: ProduceRequest) -> Appended {
    let ProduceRequest { transactional_id, acks, timeout_ms, topics } = request;
    produce.topics.reserve(topics.len());
    let mut parts = produce.place(once_each(topics), transactional_id.as_deref());
    if let Some(transactional_id) = transactional_id {
        parts = produce.verify(parts, &transactional_id).await;
    }
    if parts.is_empty() {
        return Appended::Done(produce.answer());
    }
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
    let replicas = Arc::clone(&produce.handlers.services.replicas);
    let pending = replicas.append_pending(acks, timeout, parts).await;
    Appended::Waiting(Box::pin(async move {
        let outcomes = replicas.acknowledged(pending).await;
        produce.settle(outcomes);
        produce.answer()
    }))
}

impl Produce {
    /// Makes a place in the answer for every partition; what can be appended.
    fn place(&mut self, topics: Vec<ProduceTopic>, transactional_id: Option<&str>) -> Vec<ProducePartition> {
        let services = Arc::clone(&self.handlers.services);
        let image = services.metadata.image();
        // Asked for the first transactional batch only: a refusal is logged.
        let may_transact = LazyCell::new(|| {
            let allowed = |id| services.authorize(&self.session, AclOperation::Write, ResourceType::TransactionalId, id).is_ok();
            transactional_id.is_some_and(allowed)
        });
        let mut parts = Vec::new();
        let mut unauthorized = false;
        for topic in topics {
            let asked = ((self.version >= TOPIC_IDS_FROM).then_some(topic.id), topic.name.as_str());
            let found = permitted(&services, &self.session, &image, asked, AclOperation::Write);
            let topic_at = self.topics.len();
            let mut answer = TopicProduceResponse::default().with_name(TopicName(topic.name)).with_topic_id(topic.id.0);
            for data in topic.partitions {
                let mut place = PartitionProduceResponse::default()
                    .with_index(data.index)
                    .with_base_offset(-1)
                    .with_log_append_time_ms(-1)
                    .with_log_start_offset(-1);
                let id = found.and_then(|topic| partition_of(topic, data.index));
                let batch = check::one_batch(data.records, self.version).map_err(|bad| (bad.code, bad.message));
                unauthorized |= batch.as_ref().is_ok_and(|batch| check::is_transactional(batch)) && !*may_transact;
                let batch = id.map_err(|code| (code, None)).and_then(|id| Ok((id, batch?)));
                match batch {
                    Ok((id, records)) => {
                        parts.push(ProducePartition { id, records, origin: AppendOrigin::Client });
                        self.appended.push((topic_at, answer.partition_responses.len()));
                    }
                    Err((code, message)) => {
                        place.error_code = code.code();
                        place.error_message = message.map(StrBytes::from_string);
                    }
                }
                answer.partition_responses.push(place);
            }
            self.topics.push(answer);
        }
        if unauthorized {
            self.refuse_all(ResponseError::TransactionalIdAuthorizationFailed);
            self.appended.clear();
            parts.clear();
        }
        parts
    }

    /// The place in the answer of the part that was appended as the `at`th.
    fn place_of(&mut self, at: usize) -> Option<&mut PartitionProduceResponse> {
        let (topic_at, partition_at) = *self.appended.get(at)?;
        self.topics.get_mut(topic_at)?.partition_responses.get_mut(partition_at)
    }

    fn refuse_all(&mut self, code: ResponseError) {
        for place in self.topics.iter_mut().flat_map(|topic| &mut topic.partition_responses) {
            place.error_code = code.code();
            place.error_message = None;
        }
    }

    /// Writes the outcomes into their places.
    fn settle(&mut self, outcomes: Vec<ProduceOutcome>) {
        debug_assert_eq!(outcomes.len(), self.appended.len());
        let image = self.handlers.services.metadata.image();
        for (outcome, (topic_at, partition_at)) in outcomes.into_iter().zip(&self.appended) {
            let Some(place) = self.topics.get_mut(*topic_at).and_then(|topic| topic.partition_responses.get_mut(*partition_at)) else {
                continue;
            };
            match outcome.result {
                Ok(info) => {
                    place.base_offset = info.first_offset;
                    place.log_append_time_ms = info.log_append_time_ms;
                    place.log_start_offset = info.log_start_offset;
                }
                Err(error) => {
                    refuse(place, &error, outcome.id, self.version, &image);
                    if tells_log_start(&error) {
                        let partition = self.handlers.services.replicas.opened(outcome.id);
                        place.log_start_offset = partition.map_or(-1, |partition| partition.offsets().log_start);
                    }
                }
            }
        }
    }

    fn answer(self) -> Answer {
        let failed = self.topics.iter().flat_map(|topic| &topic.partition_responses).find(|place| place.error_code != 0);
        if self.acks == NO_ACKS {
            // Nobody waits for an answer: the end of the connection is how the producer learns of the error.
            return match failed {
                None => Answer::Nothing,
                Some(place) => Answer::Close(format!("a Produce request without acknowledgement failed with error {}", place.error_code)),
            };
        }
        let node_endpoints = self.leader_endpoints();
        let response = ProduceResponse::default().with_responses(self.topics).with_node_endpoints(node_endpoints);
        encode_answer(self.correlation_id, self.version, &response)
    }

    /// Addresses of the leaders that the answer names.
    fn leader_endpoints(&self) -> Vec<NodeEndpoint> {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partition_responses);
        let leaders: BTreeMap<i32, ()> =
            partitions.filter(|place| place.current_leader.leader_id.0 >= 0).map(|place| (place.current_leader.leader_id.0, ())).collect();
        if leaders.is_empty() {
            return Vec::new();
        }
        let image = self.handlers.services.metadata.image();
        let brokers = leaders.keys().filter_map(|id| image.brokers.get(id));
        brokers
            .map(|broker| {
                NodeEndpoint::default()
                    .with_node_id(BrokerId(broker.id))
                    .with_host(StrBytes::from_string(broker.host.clone()))
                    .with_port(i32::from(broker.port))
                    .with_rack(broker.rack.clone().map(StrBytes::from_string))
            })
            .collect()
    }
}

fn partition_of(topic: &Arc<TopicImage>, index: i32) -> Result<TopicIdPartition, ResponseError> {
    let known = usize::try_from(index).is_ok_and(|index| index < topic.partitions.len());
    known.then(|| TopicIdPartition::new(topic.id, index)).ok_or(ResponseError::UnknownTopicOrPartition)
}

/// Writes an error into its place in the answer.
fn refuse(place: &mut PartitionProduceResponse, error: &ReplicaError, id: TopicIdPartition, version: i16, image: &MetadataImage) {
    place.error_code = replica_error(error).code();
    if version >= RECORD_ERRORS_FROM
        && let ReplicaError::Append(AppendError::KeylessRecords(indexes)) = error
    {
        let topic = image.topic_by_id(id.topic_id).map_or("", |topic| topic.name.as_str());
        let message = format!("Compacted topic cannot accept message without key in topic partition {topic}-{}", id.partition);
        name_keyless(place, indexes, &message);
    }
    if version >= RECORD_ERRORS_FROM
        && let ReplicaError::Append(AppendError::InvalidTimestamps(refused)) = error
    {
        place.error_message = Some(StrBytes::from_static_str("One or more records have been rejected due to invalid timestamp"));
        let message = |(index, timestamp): (i32, i64)| match refused.allowed {
            Some((earliest, latest)) => format!(
                "Timestamp {timestamp} of message with offset {index} is out of range. The timestamp should be within [{earliest}, {latest}]"
            ),
            None => format!("Invalid timestamp type in message {index}. Producer should not set timestamp type to LogAppendTime."),
        };
        name_records(place, refused.records.iter().map(|record| (record.0, message(*record))));
    }
    if version >= LEADERS_FROM
        && matches!(error, ReplicaError::NotLeader)
        && let Some(partition) = image.partition(id)
    {
        place.current_leader =
            LeaderIdAndEpoch::default().with_leader_id(BrokerId(partition.leader)).with_leader_epoch(partition.leader_epoch);
    }
}

/// Names the records for which a batch was refused, so that the producer can send the others again (KIP-467).
fn name_keyless(place: &mut PartitionProduceResponse, indexes: &[i32], message: &str) {
    let shown: Vec<String> = indexes.iter().take(3).map(|index| format!("RecordError(batchIndex={index}, message='{message}')")).collect();
    place.error_message = Some(StrBytes::from_string(format!(
        "One or more records have been rejected due to {} record errors in total, and only showing the first three errors at most: [{}]",
        indexes.len(),
        shown.join(", ")
    )));
    name_records(place, indexes.iter().map(|index| (*index, message.to_owned())));
}

fn name_records(place: &mut PartitionProduceResponse, refused: impl Iterator<Item = (i32, String)>) {
    let errors = refused.enumerate().map(|(at, (index, message))| {
        let text = (at < RECORD_MESSAGES_MAX).then(|| StrBytes::from_string(message));
        BatchIndexAndErrorMessage::default().with_batch_index(index).with_batch_index_error_message(text)
    });
    place.record_errors = errors.collect();
}

/// Every topic and partition once, as Kafka's map has them: the last batch of a partition counts, and a topic without partitions is not answered.
fn once_each(topics: Vec<ProduceTopic>) -> Vec<ProduceTopic> {
    let single = |topic: &ProduceTopic| topic.partitions.len() == 1;
    if topics.len() == 1 && topics.iter().all(single) {
        return topics;
    }
    let mut merged: Vec<ProduceTopic> = Vec::new();
    let mut topic_at: HashMap<(StrBytes, TopicId), usize> = HashMap::new();
    let mut partition_at: HashMap<(usize, i32), usize> = HashMap::new();
    for mut topic in topics {
        let partitions = std::mem::take(&mut topic.partitions);
        if partitions.is_empty() {
            continue;
        }
        let at = *topic_at.entry((topic.name.clone(), topic.id)).or_insert_with(|| {
            merged.push(topic);
            merged.len() - 1
        });
        let into = &mut merged[at].partitions;
        for data in partitions {
            match partition_at.entry((at, data.index)) {
                Entry::Occupied(earlier) => into[*earlier.get()] = data,
                Entry::Vacant(vacant) => {
                    vacant.insert(into.len());
                    into.push(data);
                }
            }
        }
    }
    merged
}

/// Kafka tells the log start offset with errors that it finds once it looks into a batch's records, not with those before.
fn tells_log_start(error: &ReplicaError) -> bool {
    let ReplicaError::Append(error) = error else { return false };
    match error {
        AppendError::InvalidRecord(_)
        | AppendError::KeylessRecords(_)
        | AppendError::InvalidTimestamps(_)
        | AppendError::OutOfOrderSequence { .. }
        | AppendError::UnknownProducerId(_)
        | AppendError::InvalidProducerEpoch { .. }
        | AppendError::CoordinatorFenced { .. }
        | AppendError::InvalidTxnState(_) => true,
        AppendError::Corrupt(_)
        | AppendError::MessageTooLarge { .. }
        | AppendError::RecordListTooLarge { .. }
        | AppendError::UnsupportedFormat(_)
        | AppendError::UnsupportedCompression(_)
        | AppendError::StaleLeaderEpoch { .. }
        | AppendError::Deleted
        | AppendError::NoSpace
        | AppendError::Offline(_) => false,
    }
}
