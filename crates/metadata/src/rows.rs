//! The metadata service's rows in the store: keys and values, versioned JSON that must parse for ever (golden files beside the tests).
//!
//! | key | value |
//! | --- | --- |
//! | `cluster` | cluster id |
//! | `active` | which service may write: the fence of every controller transaction |
//! | `broker/<id>` | a broker |
//! | `topic/<id>` | name, settings |
//! | `partitions/<id>/<chunk>` | [`CHUNK_PARTITIONS`] partitions each, so that a topic of 10,000 fits one transaction |
//! | `deleted/<id>` | a deleted topic whose segments are not all forgotten |
//! | `broker-config/<id>`, `group-config/<name>`, `client-metrics/<name>` | dynamic settings |
//! | `quota/<entity as JSON>` | quotas |
//! | `acl/<the ACL as a JSON list>` | an access control entry; the key says it all |
//! | `features` | levels of features that differ from the release's |
//! | `producer-ids` | first id not given out |
//!
//! Topic ids are 32 hexadecimal digits, numbers in keys hexadecimal with leading zeroes, so that keys sort like numbers.
//! The rows of segments are in [`crate::segments`].

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use siltstone_common::{TopicId, TopicIdPartition};

use crate::acls::{AclBinding, AclOperation, AclPermissionType, PatternType, ResourceType};
use crate::image::{BrokerImage, ImageChange, MetadataImage, PartitionImage, TopicImage};
use crate::quotas::{QuotaEntity, Quotas};
use crate::store::Write;

/// Partitions of one row.
pub(crate) const CHUNK_PARTITIONS: usize = 128;
/// Version of the values written now.
const VERSION: u32 = 1;

pub(crate) const CLUSTER: &str = "cluster";
pub(crate) const ACTIVE: &str = "active";
pub(crate) const PRODUCER_IDS: &str = "producer-ids";
pub(crate) const BROKER: &str = "broker/";
pub(crate) const TOPIC: &str = "topic/";
pub(crate) const PARTITIONS: &str = "partitions/";
pub(crate) const DELETED: &str = "deleted/";
pub(crate) const BROKER_CONFIG: &str = "broker-config/";
pub(crate) const GROUP_CONFIG: &str = "group-config/";
pub(crate) const CLIENT_METRICS: &str = "client-metrics/";
pub(crate) const QUOTA: &str = "quota/";
pub(crate) const FEATURES: &str = "features";
pub(crate) const ACL: &str = "acl/";
/// Prefixes of what makes the image, in the order in which it must be read.
pub(crate) const IMAGE_PREFIXES: [&str; 10] =
    [CLUSTER, BROKER, TOPIC, PARTITIONS, BROKER_CONFIG, GROUP_CONFIG, CLIENT_METRICS, QUOTA, FEATURES, ACL];

/// A value with its version.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    value: T,
}

/// A row can't be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("metadata row {key}: {reason}")]
pub(crate) struct RowError {
    key: String,
    reason: String,
}

/// Encodes a value.
pub(crate) fn encode<T: Serialize>(value: T) -> Bytes {
    // Rows are plain structs with string keys: serde_json can't fail on them.
    serde_json::to_vec(&Versioned { v: VERSION, value }).unwrap_or_default().into()
}

/// Decodes a value of any version up to now.
pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, RowError> {
    let error = |reason: String| RowError { key: String::from_utf8_lossy(key).into_owned(), reason };
    let row: Versioned<T> = serde_json::from_slice(value).map_err(|e| error(e.to_string()))?;
    if row.v > VERSION {
        return Err(error(format!("version {} is newer than this release knows ({VERSION})", row.v)));
    }
    Ok(row.value)
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ClusterRow {
    pub(crate) cluster_id: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ActiveRow {
    pub(crate) instance: uuid::Uuid,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ProducerIdsRow {
    pub(crate) next: i64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct TopicRow {
    pub(crate) name: String,
    pub(crate) configs: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct DeletedRow {
    pub(crate) name: String,
    pub(crate) partitions: i32,
    pub(crate) since_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct ConfigsRow {
    configs: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct QuotasRow {
    quotas: Quotas,
}

#[derive(Serialize, Deserialize)]
struct FeaturesRow {
    levels: BTreeMap<String, i16>,
}

/// What is left to say of an ACL beside its key.
#[derive(Serialize, Deserialize)]
struct AclRow {}

/// resource type, resource name, pattern type, principal, host, operation, permission type
#[derive(Serialize, Deserialize)]
struct AclKey(ResourceType, String, PatternType, String, String, AclOperation, AclPermissionType);

/// leader, leader epoch, partition epoch, replicas, isr, elr, last known leader
#[derive(Serialize, Deserialize)]
struct PartitionRow(i32, i32, i32, Vec<i32>, Vec<i32>, Vec<i32>, i32);

#[derive(Serialize, Deserialize)]
pub(crate) struct ChunkRow {
    rows: Vec<PartitionRow>,
}

impl ChunkRow {
    /// The leader epoch of a partition of this chunk.
    pub(crate) fn leader_epoch(&self, partition: i32) -> Option<i32> {
        let index = usize::try_from(partition).ok()? % CHUNK_PARTITIONS;
        self.rows.get(index).map(|row| row.1)
    }
}

impl From<&PartitionImage> for PartitionRow {
    fn from(p: &PartitionImage) -> Self {
        Self(p.leader, p.leader_epoch, p.partition_epoch, p.replicas.clone(), p.isr.clone(), p.elr.clone(), p.last_known_leader)
    }
}

impl From<PartitionRow> for PartitionImage {
    fn from(row: PartitionRow) -> Self {
        let PartitionRow(leader, leader_epoch, partition_epoch, replicas, isr, elr, last_known_leader) = row;
        Self { leader, leader_epoch, partition_epoch, replicas, isr, elr, last_known_leader }
    }
}

pub(crate) fn topic_key(topic: TopicId) -> String {
    format!("{TOPIC}{topic}")
}

pub(crate) fn deleted_key(topic: TopicId) -> String {
    format!("{DELETED}{topic}")
}

fn chunk_key(topic: TopicId, chunk: usize) -> String {
    format!("{PARTITIONS}{topic}/{chunk:04x}")
}

/// Key of the row that holds a partition.
pub(crate) fn chunk_key_of(id: TopicIdPartition) -> Option<String> {
    Some(chunk_key(id.topic_id, usize::try_from(id.partition).ok()? / CHUNK_PARTITIONS))
}

/// The rows that make `change` last, between the images before and after it.
pub(crate) fn writes_of(change: &ImageChange, before: &MetadataImage, after: &MetadataImage, now_ms: i64) -> Vec<Write> {
    match change {
        ImageChange::Cluster(id) => vec![Write::put(CLUSTER, encode(ClusterRow { cluster_id: id.clone() }))],
        ImageChange::Broker(broker) => vec![Write::put(format!("{BROKER}{}", broker.id), encode(&**broker))],
        // The topic's row first: whoever follows the store learns of the topic before its partitions.
        ImageChange::Topic(topic) => {
            std::iter::once(topic_write(topic)).chain((0..chunk_count(topic)).map(|chunk| chunk_write(topic, chunk))).collect()
        }
        ImageChange::TopicConfigs { topic, .. } => after.topics.get(topic).map(|topic| topic_write(topic)).into_iter().collect(),
        ImageChange::Partitions { topic, partitions } => {
            let Some(topic) = after.topics.get(topic) else { return Vec::new() };
            let mut chunks: Vec<_> = partitions.keys().filter_map(|index| usize::try_from(*index).ok()).collect();
            chunks.iter_mut().for_each(|index| *index /= CHUNK_PARTITIONS);
            chunks.dedup();
            chunks.into_iter().map(|chunk| chunk_write(topic, chunk)).collect()
        }
        ImageChange::TopicDeleted(id) => before.topics.get(id).map_or_else(Vec::new, |topic| deletion_writes(topic, now_ms)),
        ImageChange::BrokerConfigs { broker, configs } => vec![configs_write(BROKER_CONFIG, broker, configs)],
        ImageChange::GroupConfigs { group, configs } => vec![configs_write(GROUP_CONFIG, group, configs)],
        ImageChange::ClientMetricsConfigs { name, configs } => vec![configs_write(CLIENT_METRICS, name, configs)],
        ImageChange::BrokerRemoved(id) => vec![Write::Delete(format!("{BROKER}{id}").into())],
        ImageChange::Features(levels) => vec![Write::put(FEATURES, encode(FeaturesRow { levels: levels.clone() }))],
        ImageChange::AclCreated(acl) => vec![Write::put(acl_key(acl), encode(AclRow {}))],
        ImageChange::AclDeleted(acl) => vec![Write::Delete(acl_key(acl).into())],
        ImageChange::Quotas { entity, quotas } if quotas.is_empty() => vec![Write::Delete(quota_key(entity).into())],
        ImageChange::Quotas { entity, quotas } => vec![Write::put(quota_key(entity), encode(QuotasRow { quotas: quotas.clone() }))],
    }
}

fn quota_key(entity: &QuotaEntity) -> String {
    // A map of strings: serde_json can't fail on it.
    format!("{QUOTA}{}", serde_json::to_string(entity).unwrap_or_default())
}

fn acl_key(acl: &AclBinding) -> String {
    let AclBinding { resource_type, resource_name, pattern_type, principal, host, operation, permission_type } = acl.clone();
    let key = AclKey(resource_type, resource_name, pattern_type, principal, host, operation, permission_type);
    // A list of texts: serde_json can't fail on it.
    format!("{ACL}{}", serde_json::to_string(&key).unwrap_or_default())
}

fn acl_of(key: &str) -> serde_json::Result<AclBinding> {
    let AclKey(resource_type, resource_name, pattern_type, principal, host, operation, permission_type) = serde_json::from_str(key)?;
    Ok(AclBinding { resource_type, resource_name, pattern_type, principal, host, operation, permission_type })
}

fn chunk_count(topic: &TopicImage) -> usize {
    topic.partitions.len().div_ceil(CHUNK_PARTITIONS)
}

fn chunk_write(topic: &TopicImage, chunk: usize) -> Write {
    let rows = topic.partitions.iter().skip(chunk * CHUNK_PARTITIONS).take(CHUNK_PARTITIONS).map(PartitionRow::from).collect();
    Write::put(chunk_key(topic.id, chunk), encode(ChunkRow { rows }))
}

fn topic_write(topic: &TopicImage) -> Write {
    Write::put(topic_key(topic.id), encode(TopicRow { name: topic.name.clone(), configs: topic.configs.clone() }))
}

/// The segments of a deleted topic stay as garbage, which its `deleted` row makes findable (I29).
fn deletion_writes(topic: &TopicImage, now_ms: i64) -> Vec<Write> {
    let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    let deleted = DeletedRow { name: topic.name.clone(), partitions, since_ms: now_ms };
    let mut writes = vec![Write::Delete(topic_key(topic.id).into()), Write::put(deleted_key(topic.id), encode(deleted))];
    writes.extend((0..chunk_count(topic)).map(|chunk| Write::Delete(chunk_key(topic.id, chunk).into())));
    writes
}

fn configs_write(prefix: &str, name: &str, configs: &BTreeMap<String, String>) -> Write {
    let key = format!("{prefix}{name}");
    if configs.is_empty() { Write::Delete(key.into()) } else { Write::put(key, encode(ConfigsRow { configs: configs.clone() })) }
}

/// The row of a broker's dynamic settings ("" for all).
pub(crate) fn broker_configs_write(broker: &str, configs: &BTreeMap<String, String>) -> Write {
    configs_write(BROKER_CONFIG, broker, configs)
}

/// What a row (`None`: deleted) changes in `image`; nothing if it is no row of the image, or known.
pub(crate) fn change_of(key: &[u8], value: Option<&[u8]>, image: &MetadataImage) -> Result<Option<ImageChange>, RowError> {
    let Ok(text) = std::str::from_utf8(key) else { return Ok(None) };
    let bad_key = || RowError { key: text.to_owned(), reason: "malformed key".into() };
    let topic_of = |id: &str| id.parse::<TopicId>().map_err(|_| bad_key());
    if text == CLUSTER {
        let row = value.map(|value| decode::<ClusterRow>(key, value)).transpose()?;
        Ok(row.map(|row| ImageChange::Cluster(row.cluster_id)))
    } else if let Some(id) = text.strip_prefix(BROKER) {
        let Some(value) = value else { return id.parse().map(|id| Some(ImageChange::BrokerRemoved(id))).map_err(|_| bad_key()) };
        Ok(Some(ImageChange::Broker(Arc::new(decode::<BrokerImage>(key, value)?))))
    } else if let Some(id) = text.strip_prefix(TOPIC) {
        let topic = topic_of(id)?;
        let Some(value) = value else { return Ok(Some(ImageChange::TopicDeleted(topic))) };
        let row: TopicRow = decode(key, value)?;
        Ok(Some(match image.topics.get(&topic) {
            Some(_) => ImageChange::TopicConfigs { topic, configs: row.configs },
            None => ImageChange::Topic(Arc::new(TopicImage { id: topic, name: row.name, partitions: Vec::new(), configs: row.configs })),
        }))
    } else if let Some(rest) = text.strip_prefix(PARTITIONS) {
        let (id, chunk) = rest.split_once('/').ok_or_else(bad_key)?;
        let (topic, chunk) = (topic_of(id)?, usize::from_str_radix(chunk, 16).map_err(|_| bad_key())?);
        let (Some(value), Some(known)) = (value, image.topics.get(&topic)) else { return Ok(None) };
        Ok(changed_partitions(known, chunk, decode(key, value)?).map(|partitions| ImageChange::Partitions { topic, partitions }))
    } else if let Some(broker) = text.strip_prefix(BROKER_CONFIG) {
        Ok(Some(ImageChange::BrokerConfigs { broker: broker.to_owned(), configs: configs_of(key, value)? }))
    } else if let Some(group) = text.strip_prefix(GROUP_CONFIG) {
        Ok(Some(ImageChange::GroupConfigs { group: group.to_owned(), configs: configs_of(key, value)? }))
    } else if let Some(name) = text.strip_prefix(CLIENT_METRICS) {
        Ok(Some(ImageChange::ClientMetricsConfigs { name: name.to_owned(), configs: configs_of(key, value)? }))
    } else if let Some(entity) = text.strip_prefix(QUOTA) {
        let entity = serde_json::from_str(entity).map_err(|_| bad_key())?;
        let row = value.map(|value| decode::<QuotasRow>(key, value)).transpose()?;
        Ok(Some(ImageChange::Quotas { entity, quotas: row.map(|row| row.quotas).unwrap_or_default() }))
    } else if let Some(acl) = text.strip_prefix(ACL) {
        let acl = acl_of(acl).map_err(|_| bad_key())?;
        let Some(value) = value else { return Ok(Some(ImageChange::AclDeleted(acl))) };
        decode::<AclRow>(key, value).map(|_| Some(ImageChange::AclCreated(acl)))
    } else if text == FEATURES {
        let row = value.map(|value| decode::<FeaturesRow>(key, value)).transpose()?;
        Ok(Some(ImageChange::Features(row.map(|row| row.levels).unwrap_or_default())))
    } else {
        Ok(None)
    }
}

fn configs_of(key: &[u8], value: Option<&[u8]>) -> Result<BTreeMap<String, String>, RowError> {
    value.map_or_else(|| Ok(BTreeMap::new()), |value| decode::<ConfigsRow>(key, value).map(|row| row.configs))
}

fn changed_partitions(known: &TopicImage, chunk: usize, row: ChunkRow) -> Option<BTreeMap<i32, PartitionImage>> {
    let first = chunk * CHUNK_PARTITIONS;
    let partitions = row.rows.into_iter().map(PartitionImage::from).enumerate();
    let changed: BTreeMap<_, _> = partitions
        .filter(|(index, partition)| known.partitions.get(first + index) != Some(partition))
        .filter_map(|(index, partition)| Some((i32::try_from(first + index).ok()?, partition)))
        .collect();
    (!changed.is_empty()).then_some(changed)
}

#[cfg(test)]
mod tests;
