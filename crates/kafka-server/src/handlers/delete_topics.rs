//! DeleteTopics, by name or id (KIP-516).

use std::collections::HashMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use siltstone_common::TopicId;
use siltstone_metadata::MetadataImage;
use siltstone_metadata::acls::{AclOperation, ResourceType};
use uuid::Uuid;

use crate::context::RequestContext;
use crate::error_codes::{metadata_error, words};
use crate::quotas::MutationBill;
use crate::topic_lookup::{text, topic_name};

pub(crate) async fn handle(ctx: &RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request.topic_names.into_iter().map(|name| DeleteTopicState::default().with_name(Some(name)));
    let wanted: Vec<_> = if ctx.api_version >= 6 { request.topics } else { by_name.collect() };
    let enabled = ctx.services.broker_setting("delete.topic.enable").unwrap_or(true);
    let mut responses = Vec::with_capacity(wanted.len());
    let mut bill = MutationBill::new(ctx, 5);
    for (topic, times) in counted(ctx, wanted) {
        let image = ctx.services.metadata.image();
        let mut result = DeletableTopicResult::default().with_name(topic.name.clone()).with_topic_id(topic.topic_id);
        let outcome = match find(&image, &topic) {
            _ if times > 1 => Err((ResponseError::InvalidRequest, "Duplicate topic name or id.".to_owned())),
            _ if let Some(name) = denied(ctx, &image, &topic) => {
                result = result.with_name(name);
                Err((ResponseError::TopicAuthorizationFailed, words(ResponseError::TopicAuthorizationFailed)))
            }
            Err(error) => Err((error, error.to_string())),
            Ok(_) if !enabled => Err((ResponseError::TopicDeletionDisabled, "Topic deletion is disabled.".to_owned())),
            Ok(id) => {
                let found = image.topic_by_id(id);
                if let Some(found) = found {
                    result = result.with_name(Some(topic_name(&found.name)));
                    if ctx.api_version >= 6 {
                        result = result.with_topic_id(id.0);
                    }
                }
                let deleted = match bill.allow() {
                    Ok(()) => ctx.services.metadata.delete_topic(id).await,
                    Err(error) => Err(error),
                };
                if deleted.is_ok() {
                    bill.charge(found.map_or(0, |found| found.partitions.len()));
                }
                deleted.map_err(|error| (metadata_error(&error), error.to_string()))
            }
        };
        if let Err((code, message)) = outcome {
            result = result.with_error_code(code.code());
            if ctx.api_version >= 5 {
                result = result.with_error_message(Some(text(message)));
            }
        }
        responses.push(result);
    }
    DeleteTopicsResponse::default().with_responses(responses).with_throttle_time_ms(bill.throttle_ms())
}

/// Each topic once, and how often it was asked for; the one that names its topic stands for the others.
fn counted(ctx: &RequestContext, wanted: Vec<DeleteTopicState>) -> Vec<(DeleteTopicState, usize)> {
    let image = ctx.services.metadata.image();
    let mut counted: Vec<(DeleteTopicState, usize)> = Vec::with_capacity(wanted.len());
    let mut place_of: HashMap<(Option<TopicName>, Uuid), usize> = HashMap::new();
    for topic in wanted {
        let identity = match find(&image, &topic) {
            // Who may not delete a topic does not learn which id it has.
            Ok(id) if denied(ctx, &image, &topic).is_none() => (None, id.0),
            _ => (topic.name.clone(), topic.topic_id),
        };
        match place_of.get(&identity) {
            Some(&place) => {
                counted[place].1 += 1;
                if topic.name.is_some() {
                    counted[place].0 = topic;
                }
            }
            None => {
                place_of.insert(identity, counted.len());
                counted.push((topic, 1));
            }
        }
    }
    counted
}

/// For a client that may not delete the topic, the name to tell: an id's only if the client may describe the topic. Whether a topic of a name
/// exists is not told to those who may not describe it.
fn denied(ctx: &RequestContext, image: &MetadataImage, topic: &DeleteTopicState) -> Option<Option<TopicName>> {
    if ctx.allows_cluster(AclOperation::Delete) {
        return None;
    }
    let allows = |operation, name: &str| ctx.allows(operation, ResourceType::Topic, name);
    match &topic.name {
        Some(name) if !allows(AclOperation::Describe, name) => Some(Some(name.clone())),
        Some(name) => (image.topic(name).is_some() && !allows(AclOperation::Delete, name)).then(|| Some(name.clone())),
        None => {
            let name = &image.topic_by_id(TopicId(topic.topic_id))?.name;
            let told = || allows(AclOperation::Describe, name).then(|| topic_name(name));
            (!allows(AclOperation::Delete, name)).then(told)
        }
    }
}

fn find(image: &MetadataImage, topic: &DeleteTopicState) -> Result<TopicId, ResponseError> {
    let id = TopicId(topic.topic_id);
    match &topic.name {
        Some(_) if !id.is_zero() => Err(ResponseError::InvalidRequest),
        Some(name) => image.topic_ids.get(name.0.as_str()).copied().ok_or(ResponseError::UnknownTopicOrPartition),
        None if id.is_zero() => Err(ResponseError::InvalidRequest),
        None => image.topic_by_id(id).map(|topic| topic.id).ok_or(ResponseError::UnknownTopicId),
    }
}
