//! Counters of the replica layer, read by `/metrics`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters of the replica layer. All count since start.
#[derive(Debug, Default)]
pub struct ReplicaMetrics {
    lost_tails: AtomicU64,
    transactions_ended_again: AtomicU64,
    segments_uploaded: AtomicU64,
    bytes_uploaded: AtomicU64,
    upload_failures: AtomicU64,
    segments_dropped_locally: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out_local: AtomicU64,
    bytes_out_remote: AtomicU64,
    offline: AtomicBool,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $read:ident / $add:ident: $field:ident;)*) => {
        impl ReplicaMetrics {
            $(
                $(#[$doc])*
                pub fn $read(&self) -> u64 {
                    self.$field.load(Ordering::Relaxed)
                }

                pub(crate) fn $add(&self, count: u64) {
                    self.$field.fetch_add(count, Ordering::Relaxed);
                }
            )*
        }
    };
}

counters! {
    /// Transactions whose markers were lost with the local disk and that were ended again as they were.
    transactions_ended_again / add_transactions_ended_again: transactions_ended_again;
    /// Segments committed to the bucket.
    segments_uploaded / add_segments_uploaded: segments_uploaded;
    /// Bytes committed to the bucket.
    bytes_uploaded / add_bytes_uploaded: bytes_uploaded;
    /// Upload attempts that failed.
    upload_failures / add_upload_failures: upload_failures;
    /// Bytes of local segments removed because the bucket has them or retention is over.
    local_bytes_dropped / add_local_bytes_dropped: segments_dropped_locally;
    /// Bytes appended by producers.
    bytes_in / add_bytes_in: bytes_in;
    /// Bytes served from this disk and memory.
    bytes_out_local / add_bytes_out_local: bytes_out_local;
    /// Bytes served from the bucket.
    bytes_out_remote / add_bytes_out_remote: bytes_out_remote;
}

impl ReplicaMetrics {
    /// Partitions whose un-uploaded tail was lost with the local disk.
    pub fn lost_tails(&self) -> u64 {
        self.lost_tails.load(Ordering::Relaxed)
    }

    /// True once the data directory is offline (I38).
    pub fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Relaxed)
    }

    pub(crate) fn count_lost_tail(&self) {
        self.lost_tails.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_offline(&self) {
        self.offline.store(true, Ordering::Relaxed);
    }
}
