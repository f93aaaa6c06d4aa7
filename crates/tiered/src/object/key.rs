//! The names of segment objects.

use siltstone_common::TopicIdPartition;
use uuid::Uuid;

use super::checksum;

/// What a segment object's key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentKey {
    /// Cluster id.
    pub cluster_id: String,
    /// Whose.
    pub id: TopicIdPartition,
    /// First offset.
    pub base_offset: i64,
    /// Epoch of the uploading leader.
    pub leader_epoch: i32,
    /// Unique per attempt.
    pub attempt: Uuid,
}

impl SegmentKey {
    /// `<hash>/<cluster>/<topic id>/<partition>/<base offset, 20 digits>-<leader epoch>-<attempt>`: unique per attempt (I23), without any
    /// string of a user's (I45); the hash spreads partitions over a store's key ranges.
    pub fn encode(&self) -> String {
        let prefix = Self::partition_prefix(&self.cluster_id, self.id);
        format!("{prefix}/{:020}-{}-{}", self.base_offset, self.leader_epoch, self.attempt.as_simple())
    }

    /// The directory of a partition's segments.
    pub fn partition_prefix(cluster_id: &str, id: TopicIdPartition) -> String {
        let TopicIdPartition { topic_id, partition } = id;
        let mut hashed = topic_id.0.as_bytes().to_vec();
        hashed.extend_from_slice(&partition.to_be_bytes());
        let hash = checksum(&hashed) >> 48;
        format!("{hash:04x}/{}/{topic_id}/{partition}", cluster_segment(cluster_id))
    }

    /// True for a key (as parsed) of this cluster.
    pub fn is_of(&self, cluster_id: &str) -> bool {
        self.cluster_id == cluster_segment(cluster_id)
    }

    /// Reads a key; `None` if it is not one of a segment object.
    pub fn parse(key: &str) -> Option<Self> {
        let mut parts = key.split('/');
        let (_hash, cluster, topic, partition, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let mut fields = name.splitn(3, '-');
        let parsed = Self {
            cluster_id: cluster.to_owned(),
            id: TopicIdPartition::new(topic.parse().ok()?, partition.parse().ok()?),
            base_offset: fields.next()?.parse().ok()?,
            leader_epoch: fields.next()?.parse().ok()?,
            attempt: Uuid::parse_str(fields.next()?).ok()?,
        };
        (parts.next().is_none() && parsed.encode() == key).then_some(parsed)
    }
}

/// A cluster id as a directory name: itself if it is as Kafka makes them, else in hexadecimal.
fn cluster_segment(cluster_id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !cluster_id.is_empty() && cluster_id.len() <= 64 && cluster_id.bytes().all(plain) {
        return cluster_id.to_owned();
    }
    format!("h{:016x}", checksum(cluster_id.as_bytes()))
}
