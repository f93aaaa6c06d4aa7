//! CreatePartitions (KIP-195).

use std::collections::HashMap;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use siltstone_metadata::MetadataError;
use siltstone_metadata::acls::{AclOperation, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::{Refused, with_error};
use crate::quotas::MutationBill;

pub(crate) async fn handle(ctx: &RequestContext, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut count: HashMap<_, usize> = HashMap::new();
    for topic in &request.topics {
        *count.entry(topic.name.clone()).or_default() += 1;
    }
    let mut results = Vec::with_capacity(request.topics.len());
    let mut bill = MutationBill::new(ctx, 3);
    for topic in request.topics {
        let name = topic.name.clone();
        let outcome = match count.remove(&name) {
            None => continue,
            Some(1) => create(ctx, topic, request.validate_only, &mut bill).await,
            Some(_) => Err(MetadataError::InvalidRequest("Duplicate topic name.".to_owned()).into()),
        };
        let result = CreatePartitionsTopicResult::default().with_name(name);
        results.push(match outcome {
            // As Kafka: no words for those who may not ask.
            Err(Refused::Denied(error)) => result.with_error_code(error.code()),
            outcome => with_error!(result, outcome),
        });
    }
    CreatePartitionsResponse::default().with_results(results).with_throttle_time_ms(bill.throttle_ms())
}

async fn create(
    ctx: &RequestContext,
    topic: CreatePartitionsTopic,
    validate_only: bool,
    bill: &mut MutationBill<'_>,
) -> Result<(), Refused> {
    let name = topic.name.0.as_str();
    ctx.authorize(AclOperation::Alter, ResourceType::Topic, name)?;
    let image = ctx.services.metadata.image();
    let known = image.topic(name).ok_or_else(|| MetadataError::UnknownTopic(name.to_owned()))?;
    if topic.assignments.as_ref().is_some_and(Vec::is_empty) {
        return Err(MetadataError::InvalidReplicaAssignment(
            "The list of assignments is empty: leave it out to have the broker choose.".to_owned(),
        )
        .into());
    }
    let new: Vec<Vec<i32>> =
        topic.assignments.unwrap_or_default().into_iter().map(|new| new.broker_ids.iter().map(|id| id.0).collect()).collect();
    bill.allow()?;
    ctx.services.metadata.create_partitions(known.id, topic.count, new, validate_only).await?;
    bill.charge(usize::try_from(topic.count).unwrap_or(0).saturating_sub(known.partitions.len()));
    Ok(())
}
