//! Producer ids from the block that this broker holds; a new block when it is used up.

use siltstone_metadata::{MetadataApi, MetadataError};
use tokio::sync::Mutex;

/// Hands out producer ids that nobody has (KIP-730).
#[derive(Debug, Default)]
pub struct ProducerIds {
    block: Mutex<std::ops::Range<i64>>,
}

impl ProducerIds {
    /// The next id.
    ///
    /// # Errors
    /// When a new block is needed and the metadata service can't give one.
    pub async fn next(&self, metadata: &dyn MetadataApi, broker_id: i32) -> Result<i64, MetadataError> {
        let mut block = self.block.lock().await;
        if block.is_empty() {
            let epoch = metadata.image().brokers.get(&broker_id).map_or(-1, |broker| broker.epoch);
            let (first, count) = metadata.allocate_producer_ids(broker_id, epoch).await?;
            *block = first..first.saturating_add(count);
        }
        let id = block.start;
        block.start += 1;
        Ok(id)
    }
}
