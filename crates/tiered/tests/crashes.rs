//! Crashes at every point of an upload. A program of its own, as fail points are the whole process's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use siltstone_common::fault::{self, Fault};
use siltstone_metadata::MetadataApi;
use siltstone_tiered::fsck::{self, FsckOptions, FsckReport};
use siltstone_tiered::{GarbageCollector, GarbageConfig, UploadError};
use support::tier::{Shape, Tier, read_all, segment, small_chunks};

async fn check(tier: &Tier) -> FsckReport {
    let metadata = tier.metadata.clone() as Arc<dyn MetadataApi>;
    let options = FsckOptions { deep: true, ..FsckOptions::default() };
    fsck::check(&options, &tier.store, &metadata, &tier.env, |_| ()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_point_of_an_upload_loses_nothing_and_leaves_only_garbage() {
    let points = ["upload.after-intent", "upload.mid-put", "upload.after-put", "upload.before-commit", "upload.after-commit"];
    for point in points {
        for shape in [Shape::default(), Shape { batches: 30, records: 10, value_bytes: 30_000, ..Shape::default() }] {
            let tier = Tier::simulated(1).await;
            let made = segment(0, shape);
            fault::set(point, Some(Fault::Fail));
            let crashed = tier.upload(&made).await;
            fault::set(point, None);
            assert!(matches!(crashed, Err(UploadError::Store(_))), "{point}: {crashed:?}");
            // I24: what metadata calls committed is there and whole, at every moment.
            let report = check(&tier).await;
            assert!(report.is_sound(), "{point}: {report:?}");
            let extent = tier.metadata.remote_extent(tier.id).await.unwrap();
            let end = made.sealed.last_offset + 1;
            if point == "upload.after-commit" {
                assert_eq!((extent.remote_end, extent.segments), (end, 1), "{point}");
            } else {
                assert_eq!((extent.remote_end, extent.segments), (0, 0), "{point}");
                tier.upload(&made).await.unwrap();
            }
            // I25 and I31: exactly one committed segment holds the offsets, byte for byte.
            let reader = tier.reader(small_chunks());
            assert_eq!(read_all(&reader, tier.id, 0, end, 200_000).await, made.bytes, "{point}");
            // The same offsets again take the place of the first, as after a compaction: there is still one segment.
            tier.upload(&made).await.unwrap();
            assert_eq!(tier.metadata.remote_extent(tier.id).await.unwrap().segments, 1, "{point}");
            assert_eq!(read_all(&reader, tier.id, 0, end, 200_000).await, made.bytes, "{point}");
            // Nothing but the committed object outlives the grace period.
            tokio::time::advance(Duration::from_secs(5 * 3600)).await;
            let collector = GarbageCollector::new(GarbageConfig::default(), tier.store.clone(), tier.metadata.clone(), tier.env.clone());
            collector.pass().await.unwrap();
            tokio::time::advance(Duration::from_secs(120)).await;
            collector.pass().await.unwrap();
            let row = tier.metadata.find_segment(tier.id, 0).await.unwrap().unwrap();
            let keys = tier.bucket.objects.lock().keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys, [row.object_key], "{point}");
            assert!(check(&tier).await.is_sound(), "{point}");
        }
    }
}
