//! Counters of the Kafka side: plain atomics, rendered by the admin port.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::api_table::{self, Api, Row};
use crate::budget::MemoryBudget;

/// Upper bounds of the latency buckets, microseconds; one more bucket holds the rest.
pub const LATENCY_BOUNDS_US: [u64; 16] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000];

/// How long requests took, from the complete frame to the answer.
#[derive(Debug, Default)]
pub struct LatencyHistogram {
    buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl LatencyHistogram {
    fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// Requests per bucket of [`LATENCY_BOUNDS_US`], not cumulative; the last counts those above all bounds.
    pub fn counts(&self) -> [u64; LATENCY_BOUNDS_US.len() + 1] {
        std::array::from_fn(|index| self.buckets[index].load(Ordering::Relaxed))
    }

    /// Sum of all latencies, microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.load(Ordering::Relaxed)
    }
}

/// One API's counters.
#[derive(Debug)]
pub struct ApiMetrics {
    /// Its name in Kafka's protocol.
    pub name: &'static str,
    /// Requests answered.
    pub requests: AtomicU64,
    /// Requests refused as malformed, or that this broker failed to answer.
    pub errors: AtomicU64,
    /// Bytes of the requests' frames.
    pub request_bytes: AtomicU64,
    /// Bytes of the answers' frames.
    pub response_bytes: AtomicU64,
    /// How long they took.
    pub latency: LatencyHistogram,
}

impl ApiMetrics {
    pub(crate) fn refused(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn answered(&self, request_bytes: usize, response_bytes: usize, latency: Duration) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.request_bytes.fetch_add(request_bytes as u64, Ordering::Relaxed);
        self.response_bytes.fetch_add(response_bytes as u64, Ordering::Relaxed);
        self.latency.record(latency);
    }
}

/// All counters of a server.
#[derive(Debug)]
pub struct ServerMetrics {
    pub(crate) budget: Arc<MemoryBudget>,
    /// By row of the API table.
    pub apis: Vec<ApiMetrics>,
    /// Connections open now.
    pub connections: AtomicU64,
    /// Connections accepted since the start.
    pub accepted: AtomicU64,
    /// Connections turned away at a limit.
    pub refused: AtomicU64,
    /// Connections ended for a malformed frame, an unknown API, or slowness.
    pub violations: AtomicU64,
    /// Memory of answers that clients have not read yet, bytes.
    pub unsent_bytes: AtomicU64,
    /// Connections ended by `connections.max.idle.ms`.
    pub idle_closed: AtomicU64,
    /// Batch bytes sent by sendfile.
    pub sendfile_bytes: AtomicU64,
    /// Batch bytes of files read on the blocking pool because they were not in the page cache.
    pub cold_file_bytes: AtomicU64,
    /// Fetch sessions held now.
    pub fetch_sessions: AtomicU64,
    /// Fetch sessions evicted for others.
    pub fetch_session_evictions: AtomicU64,
}

impl ServerMetrics {
    pub(crate) fn new(queued_request_bytes_max: usize) -> Self {
        let row = |api: &Api| ApiMetrics {
            name: api.name,
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            latency: LatencyHistogram::default(),
        };
        Self {
            budget: MemoryBudget::new(queued_request_bytes_max),
            apis: api_table::APIS.iter().map(row).collect(),
            connections: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            unsent_bytes: AtomicU64::new(0),
            idle_closed: AtomicU64::new(0),
            sendfile_bytes: AtomicU64::new(0),
            cold_file_bytes: AtomicU64::new(0),
            fetch_sessions: AtomicU64::new(0),
            fetch_session_evictions: AtomicU64::new(0),
        }
    }

    /// Memory of all requests being received or served, as far as it is charged to the common budget, bytes.
    pub fn request_memory_bytes(&self) -> u64 {
        self.budget.used() as u64
    }

    pub(crate) fn api(&self, row: Row) -> &ApiMetrics {
        &self.apis[row.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let histogram = LatencyHistogram::default();
        histogram.record(Duration::from_micros(100));
        histogram.record(Duration::from_micros(101));
        histogram.record(Duration::from_secs(60));
        let counts = histogram.counts();
        assert_eq!((counts[0], counts[1], counts[LATENCY_BOUNDS_US.len()]), (1, 1, 1));
        assert_eq!(histogram.sum_us(), 60_000_201);
    }
}
