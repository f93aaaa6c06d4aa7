//! Index objects: the rows of many segments in one immutable object of the bucket.
//!
//! Format, version 1: the magic `SILTIDX1`, the CRC-64/NVME of what follows (8 bytes, big endian), then a JSON array of segment rows
//! in order of their offsets. The row in the store that names an object also has its size and the CRC of the whole.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use parking_lot::Mutex;
use siltstone_common::{TopicId, TopicIdPartition};
use thiserror::Error;
use uuid::Uuid;

use super::SegmentRow;
use super::keys::FoldRow;
use crate::api::MetadataError;

const MAGIC: &[u8; 8] = b"SILTIDX1";
/// Index objects kept in memory.
const CACHED_MAX: usize = 32;

/// The bucket did not do what was asked.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct IndexObjectError(pub String);

/// Where index objects are kept: the bucket. Keys are unique per attempt, so that nothing is ever overwritten (I23); the garbage
/// that [`crate::MetadataApi::garbage`] names includes index objects.
#[async_trait]
pub trait IndexObjects: Send + Sync + Debug {
    /// Creates an object; `checksum` is the CRC-64/NVME of `bytes`. Writing the same object again is no error.
    async fn put(&self, key: &str, bytes: Bytes, checksum: u64) -> Result<(), IndexObjectError>;
    /// All of an object of `size_bytes`.
    async fn get(&self, key: &str, size_bytes: u64) -> Result<Bytes, IndexObjectError>;
}

/// The key of an index object.
pub(super) fn object_key(id: TopicIdPartition, first_offset: i64, attempt: Uuid) -> String {
    format!("index/{}/{}/{first_offset:020}-{}", id.topic_id, id.partition, attempt.as_simple())
}

/// Whose rows the index object under `key` holds; `None` if it is no such key.
pub fn index_object_owner(key: &str) -> Option<TopicIdPartition> {
    let mut parts = key.strip_prefix("index/")?.splitn(3, '/');
    let (topic_id, partition, name) = (parts.next()?, parts.next()?, parts.next()?);
    let (first_offset, attempt) = name.split_once('-')?;
    let id = TopicIdPartition::new(TopicId(Uuid::parse_str(topic_id).ok()?), partition.parse().ok()?);
    (object_key(id, first_offset.parse().ok()?, Uuid::parse_str(attempt).ok()?) == key).then_some(id)
}

/// Encodes rows; the object and its CRC-64/NVME.
pub(super) fn encode(rows: &[SegmentRow]) -> (Bytes, u64) {
    // Rows are plain structs with string keys: serde_json can't fail on them.
    let payload = serde_json::to_vec(rows).unwrap_or_default();
    let mut object = Vec::with_capacity(16 + payload.len());
    object.extend_from_slice(MAGIC);
    object.extend_from_slice(&checksum(CrcAlgorithm::Crc64Nvme, &payload).to_be_bytes());
    object.extend_from_slice(&payload);
    let whole = checksum(CrcAlgorithm::Crc64Nvme, &object);
    (object.into(), whole)
}

/// Decodes and checks an object (I36).
pub(super) fn decode(object: &[u8]) -> Result<Vec<SegmentRow>, String> {
    let (head, payload) = object.split_at_checked(16).ok_or("it is too short")?;
    if &head[..8] != MAGIC {
        return Err("it is no index object of version 1".into());
    }
    if head[8..] != checksum(CrcAlgorithm::Crc64Nvme, payload).to_be_bytes() {
        return Err("its checksum is wrong".into());
    }
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

/// Reads index objects, the recent ones from memory.
#[derive(Debug)]
pub(super) struct IndexReader {
    objects: Arc<dyn IndexObjects>,
    cached: Mutex<VecDeque<(String, Arc<Vec<SegmentRow>>)>>,
}

impl IndexReader {
    pub(super) fn new(objects: Arc<dyn IndexObjects>) -> Self {
        Self { objects, cached: Mutex::default() }
    }

    pub(super) fn objects(&self) -> &dyn IndexObjects {
        &*self.objects
    }

    /// All rows of an index object, those below the log start too.
    pub(super) async fn rows(&self, fold: &FoldRow) -> Result<Arc<Vec<SegmentRow>>, MetadataError> {
        let known = self.cached.lock().iter().find(|(key, _)| *key == fold.object_key).map(|(_, rows)| rows.clone());
        if let Some(rows) = known {
            return Ok(rows);
        }
        let unavailable = |reason: String| MetadataError::Unavailable(format!("index object {}: {reason}", fold.object_key));
        let object = self.objects.get(&fold.object_key, fold.object_bytes).await.map_err(|error| unavailable(error.to_string()))?;
        let rows = Arc::new(decode(&object).map_err(unavailable)?);
        let mut cached = self.cached.lock();
        cached.truncate(CACHED_MAX - 1);
        cached.push_front((fold.object_key.clone(), rows.clone()));
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] = include_bytes!("index-v1.golden");

    #[test]
    fn objects_of_version_1_parse_for_ever_and_damage_is_found() {
        let rows = decode(GOLDEN).unwrap();
        assert_eq!((rows.len(), rows[1].base_offset, rows[1].object_key.as_str()), (2, 100, "data/100"));
        assert_eq!(&encode(&rows).0[..], GOLDEN);
        for index in 0..GOLDEN.len() {
            let mut damaged = GOLDEN.to_vec();
            damaged[index] ^= 0x10;
            assert!(decode(&damaged).is_err(), "byte {index}");
            assert!(decode(&GOLDEN[..index]).is_err(), "cut at {index}");
        }
    }
}
