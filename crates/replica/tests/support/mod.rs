//! A broker's replicas over a simulated disk, the test bucket and a metadata service in memory, all on one thread with paused time.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../../../tiered/tests/support/mod.rs"]
pub mod bucket;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use siltstone_common::clock::Clock;
use siltstone_common::entropy::SmallEntropy;
use siltstone_common::fs::SimFs;
use siltstone_common::{Env, TopicIdPartition};
use siltstone_log::batch::{Compression, batches, verify_crc};
use siltstone_log::records::{BatchBuilder, inflate, records};
use siltstone_log::{AppendInfo, AppendOrigin, LogManager, LogManagerConfig, LogSlice};
use siltstone_metadata::api::{CreateTopic, RegisterBroker};
use siltstone_metadata::{MemoryStore, MetadataApi, MetadataService, MetadataServiceConfig};
use siltstone_replica::{
    FetchIsolation, FetchParams, FetchPartition, FetchedPartition, ProducePartition, RemoteTier, ReplicaConfig, ReplicaError,
    ReplicaManager,
};
use siltstone_tiered::{GarbageCollector, GarbageConfig, RemoteReader, RemoteReaderConfig, RemoteStore, Uploader};

use bucket::{Handle, TestBucket};

pub const BROKER: i32 = 1;
/// Long enough for whatever a test waits for, in paused time.
pub const LONG: Duration = Duration::from_secs(3_600);

/// Runs a test on one thread with paused time.
pub fn simulated<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(test)
}

/// Paused time whose wall clock can jump (F38).
#[derive(Debug)]
pub struct JumpingClock {
    inner: Arc<dyn Clock>,
    ahead_ms: AtomicI64,
}

impl Clock for JumpingClock {
    fn now_ms(&self) -> i64 {
        self.inner.now_ms() + self.ahead_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(duration)
    }
}

/// What outlives a broker: metadata and bucket.
pub struct World {
    pub env: Env,
    pub metadata: Arc<dyn MetadataApi>,
    pub bucket: Arc<TestBucket>,
    clock: Arc<JumpingClock>,
}

impl World {
    pub async fn new(seed: u64) -> Self {
        Self::with_sessions(seed, LONG * 1_000).await
    }

    /// Where a broker is fenced after so long without a heartbeat.
    pub async fn with_sessions(seed: u64, broker_session_timeout: Duration) -> Self {
        let env = Env::simulated(seed, Arc::new(SimFs::new()));
        let clock = Arc::new(JumpingClock { inner: Arc::clone(&env.clock), ahead_ms: AtomicI64::new(0) });
        let env = Env { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..env };
        let store = Arc::new(MemoryStore::new(env.clone()));
        let bucket_env = Env { entropy: Arc::new(SmallEntropy::seeded(seed ^ 0xb0c4e7)), ..env.clone() };
        let bucket = TestBucket::new(bucket_env);
        let config = MetadataServiceConfig {
            broker_session_timeout,
            index_objects: Some(Arc::new(remote_store(&bucket, &env))),
            segment_rows_kept: 6,
            segment_fold_rows: 8,
            ..MetadataServiceConfig::default()
        };
        let metadata = MetadataService::open(store, config, env.clone()).await.unwrap();
        Self { bucket, metadata, env, clock }
    }

    /// Moves the wall clock.
    pub fn jump(&self, by: Duration) {
        self.clock.ahead_ms.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// What the session time-out does to a broker that is gone.
    pub async fn end_session(&self) {
        let epoch = self.metadata.image().brokers[&BROKER].epoch;
        self.metadata.heartbeat(BROKER, epoch, true).await.unwrap();
    }

    /// A topic with these settings; the ids of its partitions.
    pub async fn topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Vec<TopicIdPartition> {
        let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let wanted = CreateTopic { name: name.to_owned(), partitions, replication_factor: 1, configs, ..CreateTopic::default() };
        let topic = self.metadata.create_topic(wanted).await.unwrap();
        (0..partitions).map(|partition| TopicIdPartition::new(topic.id, partition)).collect()
    }
}

pub fn remote_store(bucket: &Arc<TestBucket>, env: &Env) -> RemoteStore {
    RemoteStore::over(Arc::new(Handle(Arc::clone(bucket))), "test://bucket".to_owned(), env.clone())
}

/// A running broker.
pub struct Node {
    /// Of all but the logs, which outlive it.
    pub env: Env,
    log_env: Env,
    pub replicas: Arc<ReplicaManager>,
    pub logs: Arc<LogManager>,
    pub metadata: Arc<dyn MetadataApi>,
    pub epoch: i64,
}

pub fn log_manager_config(cluster_id: &str) -> LogManagerConfig {
    LogManagerConfig {
        dir: "/data".into(),
        cluster_id: cluster_id.to_owned(),
        wal_file_bytes: 256 << 10,
        wal_bytes_max: 1 << 20,
        tail_cache_bytes: 64 << 10,
        disk_reserve_bytes: 0,
        producer_expiration_ms: 86_400_000,
    }
}

pub fn replica_config() -> ReplicaConfig {
    ReplicaConfig {
        broker_id: BROKER,
        retention_check_interval: Duration::from_secs(5),
        log_dir: "/data".into(),
        ..ReplicaConfig::default()
    }
}

/// Registers the broker; its epoch.
pub async fn register(world: &World) -> i64 {
    if world.metadata.image().brokers.get(&BROKER).is_some_and(|known| !known.fenced) {
        world.end_session().await;
    }
    let broker = RegisterBroker { id: BROKER, host: "localhost".to_owned(), port: 9092, clean_shutdown: true, ..RegisterBroker::default() };
    world.metadata.register_broker(broker).await.unwrap()
}

impl Node {
    /// Starts a broker on `fs`, or fails to: `Err` is why.
    pub async fn try_start(world: &World, fs: &SimFs, seed: u64, config: ReplicaConfig) -> Result<Self, String> {
        let env = Env::simulated(seed, Arc::new(fs.clone()));
        let env = Env { clock: Arc::clone(&world.env.clock), ..env };
        let metadata = Arc::clone(&world.metadata);
        let log_config = log_manager_config(&metadata.image().cluster_id);
        let (log_env, env) = (env.clone(), Env { tasks: env.tasks.child(), ..env });
        let (logs, report) = LogManager::open(log_config, log_env.clone()).map_err(|error| error.to_string())?;
        assert_eq!(report.quarantined, Vec::<String>::new(), "nothing was damaged");
        let broker = RegisterBroker {
            id: BROKER,
            host: "localhost".to_owned(),
            port: 9092,
            clean_shutdown: report.clean,
            ..RegisterBroker::default()
        };
        if metadata.image().brokers.get(&BROKER).is_some_and(|known| !known.fenced && known.directory != logs.directory_id()) {
            world.end_session().await;
        }
        let registered = siltstone_replica::register(&env, &*metadata, &logs, broker, Duration::ZERO).await;
        let epoch = registered.map_err(|error| error.to_string())?;
        let config = ReplicaConfig { broker_epoch: epoch, ..config };
        let store = remote_store(&world.bucket, &env);
        let reader_config = RemoteReaderConfig {
            chunk_bytes: 4 << 10,
            read_ahead_bytes_max: 64 << 10,
            memory_cache_bytes: 1 << 20,
            ..RemoteReaderConfig::default()
        };
        let tier = RemoteTier {
            reader: RemoteReader::new(reader_config, store.clone(), Arc::clone(&metadata), env.clone()),
            uploader: Uploader::new(store.clone(), Arc::clone(&metadata), env.clone()),
        };
        let collector = GarbageCollector::new(GarbageConfig::default(), store, Arc::clone(&metadata), env.clone());
        env.tasks.spawn("bucket-gc", collector.run());
        let replicas = ReplicaManager::new(config, env.clone(), Arc::clone(&metadata), Arc::clone(&logs), Some(tier));
        replicas.start();
        replicas.session().heartbeat().await.map_err(|error| error.to_string())?;
        Ok(Self { env, log_env, replicas, logs, metadata, epoch })
    }

    pub async fn start(world: &World, fs: &SimFs) -> Self {
        Self::try_start(world, fs, world.env.entropy.next_u64(), replica_config()).await.unwrap()
    }

    /// Ends every task without a flush.
    pub async fn kill(self) {
        drop((self.replicas, self.logs));
        assert!(self.env.tasks.shutdown(LONG).await, "every task ends");
        assert!(self.log_env.tasks.shutdown(LONG).await, "every task of the log ends");
    }

    /// A clean stop, as a broker does it.
    pub async fn stop(self) -> Result<(), String> {
        self.replicas.session().end().await.map_err(|error| error.to_string())?;
        assert!(self.env.tasks.shutdown(LONG).await, "every task ends");
        let closed = self.logs.close().map_err(|error| error.to_string());
        self.kill().await;
        closed
    }

    pub async fn produce(&self, id: TopicIdPartition, records: BytesMut, timeout: Duration) -> Result<AppendInfo, ReplicaError> {
        let parts = vec![ProducePartition { id, records, origin: AppendOrigin::Client }];
        self.replicas.append(-1, timeout, parts).await.remove(0).result
    }

    pub async fn fetch(&self, params: FetchParams, parts: &[(TopicIdPartition, i64)]) -> Vec<FetchedPartition> {
        let part = |(id, fetch_offset): &(TopicIdPartition, i64)| FetchPartition {
            id: *id,
            fetch_offset: *fetch_offset,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            max_bytes: 1 << 20,
        };
        self.replicas.fetch(params, parts.iter().map(part).collect()).await
    }

    /// Waits until `condition` holds, for at most `limit` of paused time.
    pub async fn wait_for(&self, what: &str, limit: Duration, condition: impl Fn(&Self) -> bool) {
        let deadline = self.env.clock.monotonic() + limit;
        while !condition(self) {
            assert!(self.env.clock.monotonic() < deadline, "waited in vain for {what}");
            self.env.clock.sleep(Duration::from_millis(10)).await;
        }
    }
}

pub fn fetch_params(max_bytes: usize) -> FetchParams {
    FetchParams { max_wait: Duration::ZERO, min_bytes: 1, max_bytes, isolation: FetchIsolation::ReadUncommitted }
}

/// A batch of one record per value.
pub fn batch(timestamp_ms: i64, values: &[&[u8]]) -> BytesMut {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.record(timestamp_ms, None, Some(value), &[]);
    }
    builder.build()
}

/// The bytes of an answer.
pub fn answer_bytes(answer: &FetchedPartition) -> Bytes {
    let mut out = Vec::new();
    for slice in &answer.slices {
        match slice {
            LogSlice::Memory(bytes) => out.extend_from_slice(bytes),
            LogSlice::File { file, position, len } => {
                let from = out.len();
                out.resize(from + len, 0);
                file.read_exact_at(&mut out[from..], *position).unwrap();
            }
        }
    }
    assert_eq!(out.len(), answer.size_bytes);
    out.into()
}

/// Offset, leader epoch and value of every record of an answer.
pub fn answer_records(answer: &FetchedPartition) -> Vec<(i64, i32, Vec<u8>)> {
    let bytes = answer_bytes(answer);
    let mut out = Vec::new();
    for found in batches(&bytes) {
        let (header, batch) = found.unwrap();
        verify_crc(batch).unwrap();
        let body = inflate(&header, batch, 1 << 20).unwrap();
        for record in records(&header, &body) {
            let record = record.unwrap();
            out.push((record.offset, header.partition_leader_epoch, record.value.unwrap_or_default().to_vec()));
        }
    }
    out
}
