//! CreateTopics.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use siltstone_metadata::acls::{AclOperation, ResourceType};
use siltstone_metadata::api::CreateTopic;
use siltstone_metadata::{MetadataError, TopicImage};

use crate::config_entries;
use crate::context::RequestContext;
use crate::error_codes::Refused;
use crate::quotas::MutationBill;
use crate::topic_lookup::text;

pub(crate) async fn handle(ctx: &RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut count: HashMap<_, usize> = HashMap::new();
    for topic in &request.topics {
        *count.entry(topic.name.clone()).or_default() += 1;
    }
    let mut results = Vec::with_capacity(request.topics.len());
    let mut bill = MutationBill::new(ctx, 6);
    for topic in request.topics {
        match count.remove(&topic.name) {
            None => {} // answered with the first of its name
            Some(1) => results.push(create(ctx, topic, request.validate_only, &mut bill).await),
            Some(_) => {
                let error = MetadataError::InvalidRequest("Duplicate topic name.".to_owned());
                results.push(refused(CreatableTopicResult::default().with_name(topic.name), error.into()));
            }
        }
    }
    CreateTopicsResponse::default().with_topics(results).with_throttle_time_ms(bill.throttle_ms())
}

async fn create(ctx: &RequestContext, topic: CreatableTopic, validate_only: bool, bill: &mut MutationBill<'_>) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(topic.name.clone()).with_error_message(None);
    let name = topic.name.clone();
    if !ctx.allows_cluster(AclOperation::Create)
        && let Err(error) = ctx.authorize(AclOperation::Create, ResourceType::Topic, &name)
    {
        return refused(result, error.into());
    }
    let created = match bill.allow().and_then(|()| wanted(topic, validate_only)) {
        Ok(wanted) => ctx.services.metadata.create_topic(wanted).await,
        Err(error) => Err(error),
    };
    match created {
        Ok(topic) => {
            bill.charge(topic.partitions.len());
            made(ctx, result, &topic)
        }
        Err(error) => refused(result, error.into()),
    }
}

fn wanted(topic: CreatableTopic, validate_only: bool) -> Result<CreateTopic, MetadataError> {
    let mut configs = BTreeMap::new();
    let nulls: Vec<_> = topic.configs.iter().filter(|config| config.value.is_none()).map(|config| config.name.to_string()).collect();
    if !nulls.is_empty() {
        return Err(MetadataError::InvalidConfig(format!("Null value not supported for topic configs: {}", nulls.join(","))));
    }
    for config in topic.configs {
        configs.insert(config.name.to_string(), config.value.unwrap_or_default().to_string());
    }
    let mut assignments = BTreeMap::new();
    for assignment in topic.assignments {
        let brokers = assignment.broker_ids.iter().map(|id| id.0).collect();
        if assignments.insert(assignment.partition_index, brokers).is_some() {
            let index = assignment.partition_index;
            let reason = format!("Found multiple assignments for partition {index}");
            // Kafka looks at the counts, which must then be -1, before it looks at the assignments.
            let counted = topic.num_partitions != -1 || topic.replication_factor != -1;
            return Err(if counted { MetadataError::InvalidRequest(reason) } else { MetadataError::InvalidReplicaAssignment(reason) });
        }
    }
    let (partitions, replication_factor) = (topic.num_partitions, topic.replication_factor);
    Ok(CreateTopic { name: topic.name.0.to_string(), partitions, replication_factor, assignments, configs, validate_only })
}

fn made(ctx: &RequestContext, result: CreatableTopicResult, topic: &TopicImage) -> CreatableTopicResult {
    if ctx.api_version < 5 {
        return result;
    }
    let result = result.with_topic_id(if ctx.api_version >= 7 { topic.id.0 } else { uuid::Uuid::nil() });
    if !ctx.allows(AclOperation::DescribeConfigs, ResourceType::Topic, &topic.name) {
        let hidden = result.with_num_partitions(-1).with_replication_factor(-1).with_configs(Some(Vec::new()));
        return hidden.with_topic_config_error_code(ResponseError::TopicAuthorizationFailed.code());
    }
    let replicas = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
    result
        .with_num_partitions(i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX))
        .with_replication_factor(i16::try_from(replicas).unwrap_or(i16::MAX))
        .with_configs(Some(config_entries::created_topic(ctx, topic)))
}

fn refused(result: CreatableTopicResult, error: Refused) -> CreatableTopicResult {
    result
        .with_error_code(error.code().code())
        .with_error_message(Some(text(error)))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_configs(Some(Vec::new()))
}
