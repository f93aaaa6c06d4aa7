//! ElectLeaders (KIP-460): gives leadership back to preferred replicas, or elects uncleanly where nobody leads.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};
use siltstone_common::TopicIdPartition;
use siltstone_metadata::MetadataError;
use siltstone_metadata::acls::AclOperation;
use siltstone_metadata::api::{AdminChange, Election};

use crate::answer::AnswerRoom;
use crate::context::RequestContext;
use crate::error_codes::{Refused, with_error};
use crate::topic_lookup::{told, topic_name};

pub(crate) async fn handle(ctx: &RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let election = match request.election_type {
        0 => Election::Preferred,
        1 => Election::Unclean,
        _ => return ElectLeadersResponse::default().with_error_code(ResponseError::UnknownServerError.code()), // Kafka's answer
    };
    let permitted = ctx.authorize_cluster(AclOperation::Alter);
    if permitted.is_err() && request.topic_partitions.is_none() {
        return finish(ctx, permitted, Vec::new());
    }
    // All partitions: those that need no election are left out of the answer.
    let all = request.topic_partitions.is_none();
    let asked: Vec<(TopicName, Vec<i32>)> = match request.topic_partitions {
        Some(topics) => topics.into_iter().map(|topic| (topic.topic, topic.partitions)).collect(),
        None => {
            let image = ctx.services.metadata.image();
            let topics = image.topic_ids.iter().filter_map(|(name, id)| Some((name, image.topics.get(id)?.partitions.len())));
            topics.map(|(name, count)| (topic_name(name), (0..i32::try_from(count).unwrap_or(i32::MAX)).collect())).collect()
        }
    };
    // Four bytes would ask for the topic's name in the error's words each time (I42).
    let mut room = AnswerRoom::new();
    if let Err(error) = room.check_parts(asked.iter().map(|(_, partitions)| partitions.len()).sum()) {
        return finish(ctx, Err(error), Vec::new());
    }
    let mut results = Vec::with_capacity(asked.len());
    for (name, partitions) in asked {
        let mut elected = Vec::with_capacity(partitions.len());
        for index in partitions {
            let outcome = match permitted.and(room.check()) {
                Ok(()) => elect(ctx, name.0.as_str(), index, election).await.map_err(Refused::from),
                Err(error) => Err(error.into()),
            };
            if all && outcome == Err(MetadataError::ElectionNotNeeded.into()) {
                continue;
            }
            room.take_outcome(&outcome);
            elected.push(with_error!(PartitionResult::default().with_partition_id(index), outcome));
        }
        if !all || !elected.is_empty() {
            results.push(ReplicaElectionResult::default().with_topic(name).with_partition_result(elected));
        }
    }
    finish(ctx, permitted, results)
}

/// Version 0 has no error of the whole request.
fn finish(ctx: &RequestContext, permitted: Result<(), ResponseError>, results: Vec<ReplicaElectionResult>) -> ElectLeadersResponse {
    let code = permitted.err().filter(|_| ctx.api_version >= 1).map_or(0, |error| error.code());
    ElectLeadersResponse::default().with_error_code(code).with_replica_election_results(results)
}

async fn elect(ctx: &RequestContext, topic: &str, index: i32, election: Election) -> Result<(), MetadataError> {
    let image = ctx.services.metadata.image();
    let unknown = |what: String| MetadataError::UnknownPartition(format!("No such {what}"));
    let known = image.topic(topic).ok_or_else(|| unknown(format!("topic as {}", told(topic))))?;
    let id = TopicIdPartition::new(known.id, index);
    let partition = image.partition(id).ok_or_else(|| unknown(format!("partition as {topic}-{index}")))?;
    // The answer for most partitions of a cluster, found without asking the metadata service for each.
    if election == Election::Preferred && partition.replicas.first() == Some(&partition.leader) {
        return Err(MetadataError::ElectionNotNeeded);
    }
    ctx.services.metadata.administer(AdminChange::ElectLeader { id, election }, false).await
}
