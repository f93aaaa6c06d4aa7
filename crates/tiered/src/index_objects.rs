//! The bucket as the place where the metadata service keeps its index objects.

use async_trait::async_trait;
use bytes::Bytes;
use siltstone_metadata::{IndexObjectError, IndexObjects};

use crate::store::RemoteStore;

#[async_trait]
impl IndexObjects for RemoteStore {
    async fn put(&self, key: &str, bytes: Bytes, checksum: u64) -> Result<(), IndexObjectError> {
        self.put_new(key, vec![bytes], checksum).await.map_err(|error| IndexObjectError(error.to_string()))
    }

    async fn get(&self, key: &str, size_bytes: u64) -> Result<Bytes, IndexObjectError> {
        self.get_range(key, 0, size_bytes).await.map_err(|error| IndexObjectError(error.to_string()))
    }
}
