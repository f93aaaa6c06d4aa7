//! Intent → PUT → verify → commit (I24), for one sealed segment.

use std::sync::Arc;

use siltstone_common::{Env, TopicIdPartition};
use siltstone_log::segment::SealedSegment;
use siltstone_metadata::{MetadataApi, MetadataError, SegmentRow};
use thiserror::Error;

use crate::store::{RemoteStore, StoreError};

/// A segment was not uploaded.
#[derive(Debug, Error)]
pub enum UploadError {
    /// The bucket.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The metadata service.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The local segment can't be read or does not check out (I36).
    #[error("local segment: {0}")]
    Local(String),
}

/// Uploads sealed segments. Cheap to clone.
#[derive(Clone)]
pub struct Uploader {
    _private: Arc<()>,
}

impl Uploader {
    /// An uploader into `store`.
    pub fn new(store: RemoteStore, metadata: Arc<dyn MetadataApi>, env: Env) -> Self {
        let _ = (store, metadata, env);
        todo!()
    }

    /// Uploads one segment as leader of `leader_epoch`; the committed row. Checks every batch's CRC on the way (I36).
    pub async fn upload(&self, id: TopicIdPartition, leader_epoch: i32, segment: SealedSegment) -> Result<SegmentRow, UploadError> {
        let _ = (id, leader_epoch, segment);
        todo!()
    }
}
