//! The metadata service over HTTP with JSON: every call of [`crate::MetadataApi`], readable with curl.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/image` | the whole image |
//! | `GET /v1/watch?after=REVISION&wait_ms=N` | steps of the image after a revision, as soon as there are any, else `[]` after N ms; 410 when they are not kept any more |
//! | `POST /v1/brokers` | registers a broker: `{"epoch"}` |
//! | `POST /v1/brokers/ID/heartbeat` | `{"epoch", "stopping"}`: `{"session_ms"}`, how long the session lasts |
//! | `POST /v1/topics` | makes a topic |
//! | `DELETE /v1/topics/TOPIC` | deletes a topic, by id |
//! | `POST /v1/topics/TOPIC/partitions` | `{"count", "assignments", "validate_only"}` |
//! | `POST /v1/topics/TOPIC/partitions/N/isr` | `{"leader_epoch", "partition_epoch", "isr"}` |
//! | `POST /v1/configs` | `{"resource", "ops", "validate_only"}` |
//! | `POST /v1/admin` | `{"change", "validate_only"}`: quotas, elections, reassignments, features, brokers |
//! | `POST /v1/acls` | ACLs to make: for each null, or the error |
//! | `POST /v1/acls/delete` | filters: for each the ACLs that were deleted |
//! | `POST /v1/producer-ids` | `{"broker", "epoch"}`: `{"first", "count"}` |
//! | `GET /v1/segments/TOPIC/N?from=OFFSET&limit=N` | committed segments |
//! | `GET /v1/segments/TOPIC/N/at?offset=OFFSET` or `?timestamp_ms=MS` | one committed segment, or null |
//! | `GET /v1/segments/TOPIC/N/extent` | what of the partition is remote |
//! | `POST /v1/segments/TOPIC/N/log-start` | `{"leader_epoch", "offset"}` |
//! | `POST /v1/segments/intent`, `POST /v1/segments/commit` | a segment's row |
//! | `POST /v1/garbage` | `{"grace_ms", "limit"}`: rows whose objects may go |
//! | `POST /v1/garbage/forget` | rows whose objects are deleted |
//!
//! Whatever is not a GET needs `content-type: application/json` and the header [`CLUSTER_HEADER`].
//! An error is the JSON of [`crate::MetadataError`] with a fitting status. Each answer carries the image's revision in the header
//! [`REVISION_HEADER`]: an image of that revision shows what the call changed.

mod client;
mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::acls::{AclBinding, AclIndex};
use crate::api::{AdminChange, ConfigOp, ConfigResource};
use crate::image::{BrokerImage, MetadataImage, TopicImage};
use crate::quotas::{QuotaEntity, Quotas};

pub use client::{HttpMetadata, HttpMetadataConfig};
pub use server::router;

/// Revision of the server's image when it answered.
pub const REVISION_HEADER: &str = "x-metadata-revision";
/// Cluster that a request is meant for; one for another cluster is refused with 403. A GET may leave it out.
pub const CLUSTER_HEADER: &str = "x-cluster-id";
/// Largest request body, bytes: a topic of 10,000 partitions with its assignments is a tenth of it.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// The image as it goes over the wire.
#[derive(Serialize, Deserialize)]
struct ImageSnapshot {
    revision: u64,
    cluster_id: String,
    controller_id: i32,
    brokers: Vec<Arc<BrokerImage>>,
    topics: Vec<Arc<TopicImage>>,
    broker_configs: BTreeMap<String, BTreeMap<String, String>>,
    group_configs: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    client_metrics: BTreeMap<String, BTreeMap<String, String>>,
    /// A list: JSON has only text as keys.
    #[serde(default)]
    quotas: Vec<(QuotaEntity, Quotas)>,
    #[serde(default)]
    acls: Vec<AclBinding>,
    #[serde(default)]
    features: BTreeMap<String, i16>,
}

impl From<&MetadataImage> for ImageSnapshot {
    fn from(image: &MetadataImage) -> Self {
        Self {
            revision: image.revision,
            cluster_id: image.cluster_id.clone(),
            controller_id: image.controller_id,
            brokers: image.brokers.values().cloned().collect(),
            topics: image.topic_ids.values().filter_map(|id| image.topics.get(id).cloned()).collect(),
            broker_configs: image.broker_configs.clone(),
            group_configs: image.group_configs.clone(),
            client_metrics: image.client_metrics.clone(),
            quotas: image.quotas.iter().map(|(entity, quotas)| (entity.clone(), quotas.clone())).collect(),
            acls: image.acls.iter().collect(),
            features: image.features.clone(),
        }
    }
}

impl From<ImageSnapshot> for MetadataImage {
    fn from(snapshot: ImageSnapshot) -> Self {
        let mut acls = AclIndex::default();
        snapshot.acls.iter().for_each(|acl| acls.insert(acl));
        Self {
            revision: snapshot.revision,
            cluster_id: snapshot.cluster_id,
            controller_id: snapshot.controller_id,
            brokers: snapshot.brokers.into_iter().map(|broker| (broker.id, broker)).collect(),
            topic_ids: snapshot.topics.iter().map(|topic| (topic.name.clone(), topic.id)).collect(),
            topics: snapshot.topics.into_iter().map(|topic| (topic.id, topic)).collect(),
            broker_configs: snapshot.broker_configs,
            group_configs: snapshot.group_configs,
            client_metrics: snapshot.client_metrics,
            quotas: snapshot.quotas.into_iter().collect(),
            acls: Arc::new(acls),
            features: snapshot.features,
        }
    }
}

#[derive(Deserialize)]
struct WatchQuery {
    after: u64,
    #[serde(default)]
    wait_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Registered {
    epoch: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Heartbeat {
    epoch: i64,
    #[serde(default)]
    stopping: bool,
}

#[derive(Serialize, Deserialize)]
struct HeartbeatTaken {
    session_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreatePartitions {
    count: i32,
    #[serde(default)]
    assignments: Vec<Vec<i32>>,
    #[serde(default)]
    validate_only: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AlterIsr {
    leader_epoch: i32,
    partition_epoch: i32,
    isr: Vec<i32>,
}

#[derive(Serialize, Deserialize)]
struct IsrAltered {
    partition_epoch: i32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Administer {
    change: AdminChange,
    #[serde(default)]
    validate_only: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AlterConfigs {
    resource: ConfigResource,
    ops: Vec<ConfigOp>,
    #[serde(default)]
    validate_only: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AllocateProducerIds {
    broker: i32,
    epoch: i64,
}

#[derive(Serialize, Deserialize)]
struct ProducerIds {
    first: i64,
    count: i64,
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(default)]
    from: i64,
    #[serde(default = "list_limit")]
    limit: usize,
}

fn list_limit() -> usize {
    100
}

#[derive(Deserialize)]
struct AtQuery {
    offset: Option<i64>,
    timestamp_ms: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RaiseLogStart {
    leader_epoch: i32,
    offset: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Garbage {
    grace_ms: i64,
    limit: usize,
}

/// The answer of calls that have nothing to say.
#[derive(Serialize, Deserialize)]
struct Done {}
