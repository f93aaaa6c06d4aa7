//! Producer ids from the block that this broker holds; a new block when it is used up.

use std::sync::Arc;

use async_trait::async_trait;
use siltstone_coordinator::{ProducerIdError, ProducerIdSource};
use siltstone_metadata::{MetadataApi, MetadataError};
use tokio::sync::Mutex;

/// Hands out producer ids that nobody has (KIP-730).
pub struct ProducerIds {
    metadata: Arc<dyn MetadataApi>,
    broker_id: i32,
    block: Mutex<std::ops::Range<i64>>,
}

impl ProducerIds {
    /// Ids from blocks that `metadata` gives to this broker.
    pub fn new(metadata: Arc<dyn MetadataApi>, broker_id: i32) -> Self {
        Self { metadata, broker_id, block: Mutex::default() }
    }

    /// The next id.
    ///
    /// # Errors
    /// When a new block is needed and the metadata service can't give one.
    pub async fn next(&self) -> Result<i64, MetadataError> {
        let mut block = self.block.lock().await;
        if block.is_empty() {
            let epoch = self.metadata.image().brokers.get(&self.broker_id).map_or(-1, |broker| broker.epoch);
            let (first, count) = self.metadata.allocate_producer_ids(self.broker_id, epoch).await?;
            *block = first..first.saturating_add(count);
        }
        let id = block.start;
        block.start += 1;
        Ok(id)
    }
}

#[async_trait]
impl ProducerIdSource for ProducerIds {
    async fn next_producer_id(&self) -> Result<i64, ProducerIdError> {
        self.next().await.map_err(|error| ProducerIdError(error.to_string()))
    }
}
