//! The components' counters as Prometheus metrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use siltstone_common::clock::Clock;
use siltstone_coordinator::GroupCoordinator;
use siltstone_kafka_server::metrics::{ApiMetrics, LATENCY_BOUNDS_US, ServerMetrics};
use siltstone_kafka_server::telemetry::ClientTelemetry;
use siltstone_replica::{CleanerMetrics, ReplicaManager};
use siltstone_tiered::{GarbageCollector, RemoteReader, RemoteStore, Uploader};

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> fmt::Result {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// Counters of the replica layer.
#[derive(Debug)]
pub struct BrokerMetrics(Arc<ReplicaManager>);

impl BrokerMetrics {
    pub fn new(replicas: Arc<ReplicaManager>) -> Self {
        Self(replicas)
    }
}

impl Collector for BrokerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = self.0.metrics();
        let partitions = self.0.partitions();
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let local: u64 = partitions.iter().map(|partition| partition.log().local_size_bytes()).sum();
        let remote: u64 = partitions.iter().map(|partition| partition.remote().remote_bytes).sum();
        let segments: u64 = partitions.iter().map(|partition| partition.remote().segments).sum();
        let e = &mut encoder;
        gauge(e, "partitions", "partitions that this broker serves", signed(partitions.len() as u64))?;
        gauge(e, "local_log_bytes", "bytes of logs on the local disk", signed(local))?;
        gauge(e, "remote_log_bytes", "bytes of committed segments in the bucket", signed(remote))?;
        gauge(e, "remote_segments", "committed segments in the bucket", signed(segments))?;
        gauge(e, "upload_lag_bytes", "bytes of sealed segments that the bucket does not have yet", signed(self.0.upload_lag_bytes()))?;
        gauge(e, "log_directory_offline", "1 once the data directory failed", i64::from(metrics.is_offline()))?;
        gauge(e, "session_held", "1 while the metadata service surely counts on this broker", i64::from(self.0.session().holds()))?;
        counter(e, "produced_bytes", "bytes of batches appended by producers", metrics.bytes_in())?;
        counter(e, "fetched_local_bytes", "bytes of batches served from this disk and memory", metrics.bytes_out_local())?;
        counter(e, "fetched_remote_bytes", "bytes of batches served from the bucket", metrics.bytes_out_remote())?;
        counter(e, "uploaded_segments", "segments committed to the bucket", metrics.segments_uploaded())?;
        counter(e, "uploaded_bytes", "bytes committed to the bucket", metrics.bytes_uploaded())?;
        counter(e, "upload_failures", "upload attempts that failed", metrics.upload_failures())?;
        counter(e, "local_dropped_bytes", "bytes of local segments removed", metrics.local_bytes_dropped())?;
        counter(e, "lost_tails", "partitions whose un-uploaded tail was lost with the local disk", metrics.lost_tails())?;
        let again = metrics.transactions_ended_again();
        counter(e, "transactions_ended_again", "transactions whose end was lost with the local disk and was written again", again)?;
        cleaner(e, &self.0.cleaner_metrics())
    }
}

/// The log cleaner's numbers, under Kafka's names where it has them.
fn cleaner(e: &mut DescriptorEncoder<'_>, metrics: &CleanerMetrics) -> fmt::Result {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let (partitions, bytes) = (signed(metrics.uncleanable_partitions), signed(metrics.uncleanable_bytes));
    gauge(e, "log_cleaner_uncleanable_partitions_count", "compacted partitions left alone because a segment is corrupt", partitions)?;
    gauge(e, "log_cleaner_uncleanable_bytes", "bytes of partitions that can't be compacted", bytes)?;
    gauge(e, "log_cleaner_max_dirty_percent", "largest dirty share among compacted partitions", signed(metrics.max_dirty_percent))?;
    let delay = signed(metrics.max_compaction_delay_secs);
    gauge(e, "log_cleaner_max_compaction_delay_seconds", "by how much compaction is past max.compaction.lag.ms", delay)?;
    gauge(e, "log_cleaner_recopy_percent", "what the last pass left of what it went through", signed(metrics.recopy_percent))?;
    counter(e, "log_cleaner_passes", "passes of compaction that ended well", metrics.passes)?;
    counter(e, "log_cleaner_read_bytes", "bytes read by compaction", metrics.bytes_read)?;
    counter(e, "log_cleaner_written_bytes", "bytes written by compaction", metrics.bytes_written)
}

/// The groups that this broker coordinates.
pub struct GroupMetrics(GroupCoordinator);

impl fmt::Debug for GroupMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupMetrics")
    }
}

impl GroupMetrics {
    pub fn new(groups: GroupCoordinator) -> Self {
        Self(groups)
    }
}

impl Collector for GroupMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family =
            encoder.encode_descriptor("group_count", "groups that this broker coordinates, by type and state", None, MetricType::Gauge)?;
        for ((protocol, state), count) in self.0.group_counts() {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(family.encode_family(&[("protocol", protocol), ("state", state)])?)?;
        }
        Ok(())
    }
}

/// Counters of the Kafka listener.
#[derive(Debug)]
pub struct ListenerMetrics(Arc<ServerMetrics>);

impl ListenerMetrics {
    pub fn new(metrics: Arc<ServerMetrics>) -> Self {
        Self(metrics)
    }
}

impl Collector for ListenerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = &self.0;
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let e = &mut encoder;
        gauge(e, "connections", "client connections open now", i64::try_from(read(&metrics.connections)).unwrap_or(i64::MAX))?;
        counter(e, "connections_accepted", "client connections accepted", read(&metrics.accepted))?;
        counter(e, "connections_refused", "client connections turned away at a limit", read(&metrics.refused))?;
        counter(
            e,
            "connection_violations",
            "connections ended for a malformed frame, an unknown API or slowness",
            read(&metrics.violations),
        )?;
        let unsent = i64::try_from(read(&metrics.unsent_bytes)).unwrap_or(i64::MAX);
        gauge(e, "unsent_response_bytes", "memory of answers that clients have not read yet", unsent)?;
        counter(e, "connections_idle_closed", "connections ended by connections.max.idle.ms", read(&metrics.idle_closed))?;
        counter(e, "sendfile_bytes", "batch bytes sent straight from segment files", read(&metrics.sendfile_bytes))?;
        counter(e, "cold_file_bytes", "batch bytes of segment files that were not in the page cache", read(&metrics.cold_file_bytes))?;
        per_api(e, metrics, "requests", "requests answered", |api| read(&api.requests))?;
        per_api(e, metrics, "request_errors", "requests refused as malformed or not answered", |api| read(&api.errors))?;
        per_api(e, metrics, "request_bytes", "bytes of requests", |api| read(&api.request_bytes))?;
        per_api(e, metrics, "response_bytes", "bytes of answers", |api| read(&api.response_bytes))?;
        let memory = i64::try_from(metrics.request_memory_bytes()).unwrap_or(i64::MAX);
        gauge(e, "request_memory_bytes", "memory of requests being received or served, beyond each connection's allowance", memory)?;
        let sessions = i64::try_from(read(&metrics.fetch_sessions)).unwrap_or(i64::MAX);
        gauge(e, "fetch_sessions", "fetch sessions held now", sessions)?;
        counter(e, "fetch_session_evictions", "fetch sessions evicted for others", read(&metrics.fetch_session_evictions))?;
        latencies(e, metrics)?;
        per_api(e, metrics, "request_latency_microseconds", "sum of the times from complete request to answer", |api| api.latency.sum_us())
    }
}

/// What clients measure (KIP-714): the standard metrics only, so that no client can add a name.
pub struct ClientMetrics(Arc<ClientTelemetry>, Arc<dyn Clock>);

impl ClientMetrics {
    pub fn new(telemetry: Arc<ClientTelemetry>, clock: Arc<dyn Clock>) -> Self {
        Self(telemetry, clock)
    }
}

impl fmt::Debug for ClientMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientMetrics")
    }
}

impl Collector for ClientMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now_ms = u64::try_from(self.1.monotonic().as_millis()).unwrap_or(u64::MAX);
        let instances = i64::try_from(self.0.instances(now_ms)).unwrap_or(i64::MAX);
        gauge(&mut encoder, "telemetry_clients", "client instances that have asked for a subscription to their metrics", instances)?;
        let collected = self.0.collected(now_ms);
        let mut family = encoder.encode_descriptor("client_metric", "metrics that clients have sent", None, MetricType::Gauge)?;
        for metric in &collected {
            for (stat, value) in [("sum", metric.sum), ("max", metric.max)] {
                let labels = [("name", metric.name.as_str()), ("stat", stat)];
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// The latency of each API that was asked for, in buckets.
fn latencies(encoder: &mut DescriptorEncoder<'_>, metrics: &ServerMetrics) -> fmt::Result {
    let help = "times from complete request to answer";
    let mut family = encoder.encode_descriptor("request_latency_seconds", help, None, MetricType::Histogram)?;
    let seconds = |us: u64| us as f64 / 1e6;
    for api in &metrics.apis {
        let counts = api.latency.counts();
        let count: u64 = counts.iter().sum();
        if count > 0 {
            let bounds = LATENCY_BOUNDS_US.iter().map(|bound| seconds(*bound)).chain([f64::MAX]);
            let buckets: Vec<_> = bounds.zip(counts).collect();
            let labels = [("api", api.name)];
            let mut one = family.encode_family(&labels)?;
            one.encode_histogram::<NoLabelSet>(seconds(api.latency.sum_us()), count, &buckets, None)?;
        }
    }
    Ok(())
}

/// What goes to the bucket and comes from it.
pub struct BucketMetrics {
    store: RemoteStore,
    reader: RemoteReader,
    uploader: Uploader,
    collector: GarbageCollector,
}

impl fmt::Debug for BucketMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BucketMetrics")
    }
}

impl BucketMetrics {
    pub fn new(store: RemoteStore, reader: RemoteReader, uploader: Uploader, collector: GarbageCollector) -> Self {
        Self { store, reader, uploader, collector }
    }
}

impl Collector for BucketMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let (store, reader, garbage) = (self.store.metrics(), self.reader.metrics(), self.collector.metrics());
        let e = &mut encoder;
        let mut requests = e.encode_descriptor("bucket_requests", "attempts of requests to the bucket", None, MetricType::Counter)?;
        for (kind, value) in [("get", &store.gets), ("put", &store.puts), ("other", &store.others)] {
            ConstCounter::new(read(value)).encode(requests.encode_family(&[("kind", kind)])?)?;
        }
        counter(e, "bucket_retries", "attempts that failed in a way that may pass", read(&store.retries))?;
        counter(e, "bucket_failures", "operations that failed for good or ran out of time", read(&store.failures))?;
        counter(e, "bucket_read_bytes", "bytes read from the bucket", read(&store.bytes_read))?;
        counter(e, "bucket_written_bytes", "bytes written to the bucket", read(&store.bytes_written))?;
        counter(e, "remote_cache_memory_hits", "chunks of segments found in memory", read(&reader.memory_hits))?;
        counter(e, "remote_cache_disk_hits", "chunks of segments found on the local disk", read(&reader.disk_hits))?;
        counter(e, "remote_cache_misses", "chunks of segments read from the bucket", read(&reader.gets))?;
        counter(e, "remote_corrupt_chunks", "reads of the bucket that met damaged bytes", read(&reader.corrupt_chunks))?;
        counter(e, "remote_missing_objects", "reads of committed objects that the bucket does not have", read(&reader.missing_objects))?;
        let corrupt = read(&self.uploader.metrics().corrupt);
        counter(e, "upload_corrupt_segments", "segments not uploaded because a batch is damaged", corrupt)?;
        counter(e, "garbage_deleted_objects", "objects deleted from the bucket", read(&garbage.objects))?;
        counter(e, "garbage_deleted_bytes", "bytes of them", read(&garbage.bytes))?;
        counter(e, "garbage_failures", "deletions that failed, to be tried again", read(&garbage.failures))
    }
}

/// One counter per API, labelled with its name.
fn per_api(
    encoder: &mut DescriptorEncoder<'_>,
    metrics: &ServerMetrics,
    name: &str,
    help: &str,
    value: impl Fn(&ApiMetrics) -> u64,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for api in &metrics.apis {
        ConstCounter::new(value(api)).encode(family.encode_family(&[("api", api.name)])?)?;
    }
    Ok(())
}
