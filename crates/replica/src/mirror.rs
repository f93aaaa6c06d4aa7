//! The bucket's copy of a compacted log follows what compaction left of it (ADR 0007).
//!
//! Sealed segments go to the bucket as those of any topic. A cleaned one is uploaded as an object of its own, and its commit takes the place of all
//! segments that it was made of, in one transaction of the segment map; the objects of these go after the grace of garbage collection, so
//! a reader under way sees no gap. Until that is done no further pass begins over the partition: what is exchanged is never more than
//! one pass's groups, and no tombstone or abort marker goes while the bucket still has what it deletes. A step that fails is repeated: what the
//! bucket has is read from metadata each time. Should the bucket refuse a segment for good, the partition is not compacted any further.

use std::sync::Arc;

use siltstone_log::segment::SegmentStat;
use siltstone_metadata::{MetadataError, SegmentRow};

use crate::error::ReplicaError;
use crate::manager::ReplicaManager;
use crate::partition::Partition;

impl ReplicaManager {
    /// Uploads cleaned segments that the bucket has in an older form; how many.
    pub(crate) async fn mirror_cleaned(&self, partition: &Arc<Partition>) -> Result<usize, ReplicaError> {
        let (Some(tier), false) = (&self.remote, partition.is_mirrored() || partition.is_mirror_refused()) else { return Ok(0) };
        let cleanings = partition.log().cleanings();
        let mut count = 0;
        for stat in partition.log().segments() {
            let is_there = stat.base_offset < partition.remote().remote_end;
            if !stat.sealed || stat.generation == 0 || !is_there || self.bucket_has(partition, &stat).await? {
                continue;
            }
            let Some(leader_epoch) = self.led_epoch(partition.id()) else { return Ok(count) };
            let log = Arc::clone(partition.log());
            let found = self.local_work(move || log.uploadable(stat.base_offset, 1)).await?;
            let Some(segment) = found.into_iter().next().filter(|segment| segment.base_offset == stat.base_offset) else { continue };
            match self.upload_one(partition, tier, leader_epoch, segment).await {
                Ok(()) => count += 1,
                Err(ReplicaError::Metadata(error @ MetadataError::NotContiguous { .. })) => {
                    tracing::error!(
                        id = %partition.id(), base_offset = stat.base_offset, %error,
                        "a cleaned segment can't take the place of those in the bucket: the partition is not compacted any further until the next start"
                    );
                    partition.set_mirror_refused(cleanings);
                    self.cleaner.give_up(partition.id());
                    return Ok(count);
                }
                Err(error) => return Err(error),
            }
        }
        partition.set_mirrored(cleanings);
        Ok(count)
    }

    async fn bucket_has(&self, partition: &Arc<Partition>, stat: &SegmentStat) -> Result<bool, ReplicaError> {
        let rows = self.metadata.list_segments(partition.id(), stat.base_offset, 1).await?;
        let same =
            |row: &SegmentRow| (row.base_offset, row.last_offset, row.generation) == (stat.base_offset, stat.last_offset, stat.generation);
        // What lies below the log start is not wanted there any more.
        Ok(rows.first().is_some_and(same) || stat.last_offset < partition.offsets().log_start)
    }
}
