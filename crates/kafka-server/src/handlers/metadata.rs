//! Metadata: brokers, topics and leaders; creates topics on first use if allowed.

use std::collections::{BTreeSet, HashSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use siltstone_common::TopicId;
use siltstone_metadata::acls::{AclOperation, ResourceType};
use siltstone_metadata::api::CreateTopic;
use siltstone_metadata::{MetadataError, MetadataImage, TopicImage};

use crate::context::RequestContext;
use crate::error_codes::metadata_error;
use crate::quotas::MutationBill;
use crate::state_topics::{GROUP_METADATA_TOPIC, TRANSACTION_STATE_TOPIC};
use crate::topic_lookup::{OPERATIONS_UNKNOWN, broker_ids, is_valid_name, offline_replicas, text, topic_name};
use crate::{groups, transactions};

pub(crate) async fn handle(ctx: &RequestContext, request: MetadataRequest) -> MetadataResponse {
    let asked = match &request.topics {
        // Version 0 has no null: empty means all.
        Some(topics) if topics.is_empty() && ctx.api_version == 0 => None,
        other => other.as_deref(),
    };
    // A topic has a name or, from version 12 on, an id.
    let nameless = |topic: &MetadataRequestTopic| topic.name.is_none() && (ctx.api_version < 12 || topic.topic_id.is_nil());
    if asked.is_some_and(|topics| topics.iter().any(nameless)) {
        let error = if ctx.api_version >= 13 { ResponseError::InvalidRequest.code() } else { 0 };
        return MetadataResponse::default().with_error_code(error).with_topics(Vec::new());
    }
    let (uncreatable, throttle_ms) = match asked {
        Some(topics) => create_missing(ctx, &request, topics).await,
        None => (HashSet::new(), 0),
    };
    let image = ctx.services.metadata.image();
    let look_up = LookUp { ctx, image: &image, tells_operations: request.include_topic_authorized_operations, uncreatable };
    let topics = match asked {
        None => {
            let topics = image.topic_ids.values().filter_map(|id| image.topic_by_id(*id));
            let visible = topics.filter(|topic| ctx.allows(AclOperation::Describe, ResourceType::Topic, &topic.name));
            visible.map(|topic| look_up.found(topic)).collect()
        }
        Some(topics) => distinct(topics).into_iter().map(|topic| look_up.one(topic)).collect(),
    };
    let asks_cluster = request.include_cluster_authorized_operations && (8..=10).contains(&ctx.api_version);
    MetadataResponse::default()
        .with_throttle_time_ms(throttle_ms)
        .with_brokers(
            image
                .brokers
                .values()
                .filter(|broker| !broker.fenced)
                .map(|broker| {
                    MetadataResponseBroker::default()
                        .with_node_id(BrokerId(broker.id))
                        .with_host(text(&broker.host))
                        .with_port(i32::from(broker.port))
                        .with_rack(broker.rack.as_ref().map(text))
                })
                .collect(),
        )
        .with_cluster_id(Some(text(&image.cluster_id)))
        .with_controller_id(BrokerId(image.controller_id))
        .with_cluster_authorized_operations(if asks_cluster { ctx.authorized_cluster_operations() } else { OPERATIONS_UNKNOWN })
        .with_topics(topics)
}

/// Creates the topics asked for by name that do not exist, where the request, `auto.create.topics.enable` and the client's quota allow it. What can't be
/// created shows in the look-up that follows; the answer are those that the client may not create, and for how long the quota holds it back, ms.
async fn create_missing(ctx: &RequestContext, request: &MetadataRequest, topics: &[MetadataRequestTopic]) -> (HashSet<TopicName>, i32) {
    let mut uncreatable = HashSet::new();
    let allowed = ctx.api_version < 4 || request.allow_auto_topic_creation;
    if !allowed || !ctx.services.broker_setting("auto.create.topics.enable").unwrap_or(true) {
        return (uncreatable, 0);
    }
    let mut bill = MutationBill::new(ctx, 0);
    for name in topics.iter().filter_map(|topic| topic.name.as_ref()).map(|name| name.0.as_str()) {
        if ctx.services.metadata.image().topic(name).is_some() {
            continue;
        }
        if !ctx.allows(AclOperation::Describe, ResourceType::Topic, name) {
            continue; // refused by the look-up
        }
        if !ctx.allows_cluster(AclOperation::Create) && ctx.authorize(AclOperation::Create, ResourceType::Topic, name).is_err() {
            uncreatable.insert(topic_name(name));
            continue;
        }
        if bill.allow().is_err() {
            break;
        }
        match create(ctx, name).await {
            Ok(()) => bill.charge(ctx.services.metadata.image().topic(name).map_or(0, |topic| topic.partitions.len())),
            Err(MetadataError::TopicExists(_) | MetadataError::InvalidTopic(_) | MetadataError::InvalidRequest(_)) => {}
            Err(error) => tracing::warn!(topic = name, %error, "could not create a topic on first use"),
        }
    }
    (uncreatable, bill.throttle_ms())
}

/// Makes a topic with the broker's defaults; those that the coordinators write to with theirs.
async fn create(ctx: &RequestContext, name: &str) -> Result<(), MetadataError> {
    match name {
        GROUP_METADATA_TOPIC => groups::ensure_topic(ctx).await,
        TRANSACTION_STATE_TOPIC => transactions::ensure_topic(ctx).await,
        _ => {
            let topic = CreateTopic { name: name.to_owned(), partitions: -1, replication_factor: -1, ..CreateTopic::default() };
            ctx.services.metadata.create_topic(topic).await.map(drop)
        }
    }
}

/// Each topic once. Where one is asked for by id, names do not count (as in Kafka).
fn distinct(topics: &[MetadataRequestTopic]) -> Vec<&MetadataRequestTopic> {
    let by_id = topics.iter().any(|topic| !topic.topic_id.is_nil());
    let mut seen = BTreeSet::new();
    let asked = topics.iter().filter(|topic| !by_id || !topic.topic_id.is_nil());
    asked.filter(|topic| seen.insert((topic.topic_id, topic.name.as_ref().filter(|_| !by_id)))).collect()
}

/// How topics that were asked for are answered.
struct LookUp<'a> {
    ctx: &'a RequestContext,
    image: &'a MetadataImage,
    /// The client asks what it may do with each topic.
    tells_operations: bool,
    /// Missing topics that the client may not create.
    uncreatable: HashSet<TopicName>,
}

impl LookUp<'_> {
    fn one(&self, asked: &MetadataRequestTopic) -> MetadataResponseTopic {
        let (ctx, image) = (self.ctx, self.image);
        let name = asked.name.as_ref().filter(|_| asked.topic_id.is_nil());
        let found = match name {
            Some(name) => image.topic(name),
            None => image.topic_by_id(TopicId(asked.topic_id)),
        };
        let known = name.map(|name| name.as_str()).or(found.map(|topic| topic.name.as_str()));
        let permitted = known.map_or(Ok(()), |name| ctx.authorize(AclOperation::Describe, ResourceType::Topic, name));
        match (permitted, found, name) {
            (Err(error), ..) => self.missing(asked, error, name),
            (Ok(()), Some(topic), _) => self.found(topic),
            (Ok(()), None, Some(name)) if self.uncreatable.contains(name) => {
                self.missing(asked, ResponseError::TopicAuthorizationFailed, Some(name))
            }
            (Ok(()), None, Some(name)) => {
                let invalid = !is_valid_name(name.0.as_str());
                let error = if invalid { ResponseError::InvalidTopicException } else { ResponseError::UnknownTopicOrPartition };
                self.missing(asked, error, Some(name)).with_topic_authorized_operations(self.operations(name))
            }
            (Ok(()), None, None) => self.missing(asked, metadata_error(&MetadataError::UnknownTopicId(TopicId(asked.topic_id))), None),
        }
    }

    fn operations(&self, name: &str) -> i32 {
        if self.tells_operations { self.ctx.authorized_operations(ResourceType::Topic, name) } else { OPERATIONS_UNKNOWN }
    }

    fn missing(&self, asked: &MetadataRequestTopic, error: ResponseError, name: Option<&TopicName>) -> MetadataResponseTopic {
        // Before version 12 a topic without a name has the empty one.
        let name = if self.ctx.api_version < 12 { Some(name.cloned().unwrap_or_default()) } else { name.cloned() };
        MetadataResponseTopic::default()
            .with_error_code(error.code())
            .with_name(name)
            .with_topic_id(asked.topic_id)
            .with_topic_authorized_operations(OPERATIONS_UNKNOWN)
    }

    fn found(&self, topic: &TopicImage) -> MetadataResponseTopic {
        let partitions = topic.partitions.iter().zip(0..).map(|(state, index)| {
            let error = if state.leader < 0 { ResponseError::LeaderNotAvailable.code() } else { 0 };
            MetadataResponsePartition::default()
                .with_error_code(error)
                .with_partition_index(index)
                .with_leader_id(BrokerId(state.leader))
                .with_leader_epoch(state.leader_epoch)
                .with_replica_nodes(broker_ids(&state.replicas))
                .with_isr_nodes(broker_ids(&state.isr))
                .with_offline_replicas(offline_replicas(self.image, &state.replicas))
        });
        MetadataResponseTopic::default()
            .with_name(Some(topic_name(&topic.name)))
            .with_topic_id(topic.id.0)
            .with_is_internal(topic.is_internal())
            .with_partitions(partitions.collect())
            .with_topic_authorized_operations(self.operations(&topic.name))
    }
}

#[cfg(test)]
mod tests {
    use siltstone_metadata::quotas::{CLIENT_ID, CONTROLLER_MUTATION_RATE, QuotaEntity};

    use super::*;
    use crate::rig::Rig;

    fn asking(names: &[String]) -> MetadataRequest {
        let topics = names.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name)))).collect();
        MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(true)
    }

    /// I20, I21: what coordinators keep must neither be deleted by age nor lie in one partition for ever.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn coordinators_topics_get_their_own_settings_whoever_asks_for_them_first() {
        let rig = Rig::new().await;
        let names = ["__consumer_offsets".to_owned(), "__transaction_state".to_owned()];
        let answer = handle(&rig.request(12), asking(&names)).await;
        for (topic, name) in answer.topics.iter().zip(&names) {
            assert_eq!((topic.error_code, topic.partitions.len()), (0, 50), "{name}");
            let image = rig.services.metadata.image();
            let policy = image.topic(name).and_then(|topic| topic.configs.get("cleanup.policy").cloned());
            assert_eq!(policy.as_deref(), Some("compact"), "{name}");
        }
    }

    /// KIP-599: else a client that may create little could create much by asking.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn topics_made_on_first_use_are_paid_for() {
        let rig = Rig::new().await;
        rig.set_quota(QuotaEntity::of([(CLIENT_ID, None)]), CONTROLLER_MUTATION_RATE, 1.0).await;
        let names: Vec<String> = (0..50).map(|index| format!("t{index}")).collect();
        let answer = handle(&rig.request(12), asking(&names)).await;
        assert!(answer.throttle_time_ms > 0, "the client is over its quota");
        let made = answer.topics.iter().filter(|topic| topic.error_code == 0).count();
        assert!((1..30).contains(&made), "{made} topics were made at one per second");
        let refused = answer.topics.iter().filter(|topic| topic.error_code == ResponseError::UnknownTopicOrPartition.code()).count();
        assert_eq!(made + refused, 50);
    }
}
