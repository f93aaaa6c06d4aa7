//! Rows of committed segments, cached per partition. A row never changes while it is committed; one that is gone shows as a missing object,
//! and is then asked for again.

use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use siltstone_common::{Env, TopicIdPartition};
use siltstone_metadata::{MetadataApi, MetadataError, SegmentRow};

use super::flights::Flights;
use crate::store::StoreError;

/// Rows asked for at a time.
const PAGE: usize = 64;
/// Rows kept per partition; beyond, all are forgotten and those in use asked for again.
const ROWS_MAX: usize = 256;
/// Partitions kept: with all their rows, some 100 MB.
const PARTITIONS_MAX: usize = 1024;

type PartitionRows = Arc<Mutex<BTreeMap<i64, Arc<SegmentRow>>>>;

type RowCache = Cache<TopicIdPartition, PartitionRows, UnitWeighter, BuildHasherDefault<DefaultHasher>>;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(super) struct Rows {
    metadata: Arc<dyn MetadataApi>,
    cache: Arc<RowCache>,
    pages: Arc<Flights<(TopicIdPartition, i64), ()>>,
}

impl Rows {
    pub(super) fn new(metadata: Arc<dyn MetadataApi>, env: Env) -> Self {
        let hasher = BuildHasherDefault::default();
        let cache = Cache::with(PARTITIONS_MAX, PARTITIONS_MAX as u64, UnitWeighter, hasher, DefaultLifecycle::default());
        Self { metadata, cache: Arc::new(cache), pages: Arc::new(Flights::new("load-segment-rows", env)) }
    }

    /// Asks for the page from `offset` in the background.
    pub(super) fn prefetch(&self, id: TopicIdPartition, offset: i64) {
        let rows = self.clone();
        let load = || async move { rows.page_from(id, offset).await.map(drop).map_err(|error| StoreError::Unavailable(error.to_string())) };
        drop(self.pages.join(&(id, offset), || None, load));
    }

    /// The committed segment that holds `offset`; `None` if there is none.
    pub(super) async fn holding(&self, id: TopicIdPartition, offset: i64) -> Result<Option<Arc<SegmentRow>>, MetadataError> {
        if let Some(row) = self.cached(id, offset) {
            return Ok(Some(row));
        }
        self.page_from(id, offset).await?;
        Ok(self.cached(id, offset))
    }

    /// The cached row that holds `offset`.
    pub(super) fn cached(&self, id: TopicIdPartition, offset: i64) -> Option<Arc<SegmentRow>> {
        let rows = self.cache.get(&id)?;
        let rows = rows.lock();
        let (_, row) = rows.range(..=offset).next_back()?;
        (row.last_offset >= offset).then(|| Arc::clone(row))
    }

    /// A page of committed rows from the one that holds `offset`, or the first after it.
    pub(super) async fn page_from(&self, id: TopicIdPartition, offset: i64) -> Result<Vec<Arc<SegmentRow>>, MetadataError> {
        let page = self.metadata.list_segments(id, offset, PAGE).await?.into_iter().map(Arc::new).collect::<Vec<_>>();
        if page.is_empty() {
            return Ok(page);
        }
        let rows = self.cache.get(&id).unwrap_or_else(|| {
            let rows = PartitionRows::default();
            self.cache.insert(id, Arc::clone(&rows));
            rows
        });
        let mut rows = rows.lock();
        if rows.len() + page.len() > ROWS_MAX {
            rows.clear();
        }
        for row in &page {
            rows.insert(row.base_offset, Arc::clone(row));
        }
        Ok(page)
    }

    /// Forgets what is known of a partition.
    pub(super) fn forget(&self, id: TopicIdPartition) {
        self.cache.remove(&id);
    }
}
