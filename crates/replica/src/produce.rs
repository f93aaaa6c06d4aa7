//! Produce: append to each partition's log, then wait for the high watermark (acks=all).

use bytes::BytesMut;
use siltstone_common::TopicIdPartition;
use siltstone_log::AppendInfo;

use crate::error::ReplicaError;

/// One partition's part of a Produce request.
#[derive(Debug)]
pub struct ProducePartition {
    /// Which.
    pub id: TopicIdPartition,
    /// Its batches, to be stamped in place.
    pub records: BytesMut,
}

/// What became of it.
#[derive(Debug)]
pub struct ProduceOutcome {
    /// Which.
    pub id: TopicIdPartition,
    /// Where it went, or why not.
    pub result: Result<AppendInfo, ReplicaError>,
}
