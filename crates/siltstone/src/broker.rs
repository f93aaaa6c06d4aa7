//! The broker's parts, put together: logs, remote tier, replicas, coordinator, Kafka listener, and the life of its registration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use siltstone_admin::{Admin, Metrics};
use siltstone_common::Env;
use siltstone_common::retry::Backoff;
use siltstone_common::tasks::Tasks;
use siltstone_kafka_server::{BoundListener, Server, ServerConfig, Services};
use siltstone_log::{LogManager, LogManagerConfig};
use siltstone_metadata::api::RegisterBroker;
use siltstone_metadata::{MetadataApi, MetadataError};
use siltstone_replica::{RemoteTier, ReplicaConfig, ReplicaError, ReplicaManager, Session};
use siltstone_tiered::{GarbageCollector, GarbageConfig, RemoteReader, RemoteReaderConfig, RemoteStore, StoreError, Uploader};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::args::Role;
use crate::config::{Config, DiskBudget};
use crate::metrics::{BrokerMetrics, BucketMetrics, ClientMetrics, GroupMetrics, ListenerMetrics};

const MIB: u64 = 1 << 20;
/// Files of the write-ahead log at its largest.
const WAL_FILES: u64 = 8;
/// How long a start waits for the bucket before it goes on without (I35).
const CLAIM_LIMIT: Duration = Duration::from_secs(5);

/// How long a start waits for the session of another process as this broker to end (Kafka's initial.broker.registration.timeout.ms).
const REGISTRATION_LIMIT: Duration = Duration::from_secs(60);
/// How often a broker without a session asks for one.
const LAPSED_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);
/// How long a stop waits for the metadata service to move leadership away: it may be gone before us.
const HAND_BACK_LIMIT: Duration = Duration::from_secs(3);
/// How long a stop waits for what goes on behind the requests.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(5);

/// A running broker. Its tasks are in groups that stop one after the other: what one needs outlives it.
pub struct Broker {
    session: Arc<Session>,
    logs: Arc<LogManager>,
    env: Env,
    replaced: Arc<Notify>,
    /// Stopped first: a heartbeat after the one that hands leadership back would take it again.
    heartbeat_tasks: Tasks,
    /// Listener and connections.
    listener_tasks: Tasks,
    /// Replicas, coordinators, the bucket: all that appends. Stopped before the logs are closed.
    background_tasks: Tasks,
}

impl Broker {
    /// Recovers the logs, registers, and serves `listener`. Reads from the bucket run on `cold_runtime`.
    pub async fn start(
        config: &Config,
        env: &Env,
        cold_runtime: &Handle,
        metadata: Arc<dyn MetadataApi>,
        bucket: RemoteStore,
        listener: BoundListener,
        (admin, metrics): (&Admin, &Metrics),
    ) -> anyhow::Result<Self> {
        let cluster_id = metadata.image().cluster_id.clone();
        let (logs, clean_shutdown, was_empty) = open_logs(config, env, &cluster_id).await?;
        let (host, port) = config.advertise.clone();
        let address = listener.local_addr();
        let port = if port == 0 { address.port() } else { port };
        let rack = config.kafka.get("broker.rack").cloned();
        let id = config.node_id;
        let me = RegisterBroker { id, host: host.clone(), port, rack, clean_shutdown, directory: logs.directory_id() };
        if config.role == Role::All {
            end_session_before(&*metadata, &me).await.with_context(|| format!("ending the last session of broker {id}"))?;
        }
        let epoch = siltstone_replica::register(env, &*metadata, &logs, me, REGISTRATION_LIMIT).await.map_err(|error| match error {
            ReplicaError::Metadata(MetadataError::DuplicateBroker) => anyhow!(
                "broker id {id} is in use by another running broker: stop that one, or give this one another id with --set node.id=NUMBER"
            ),
            error => anyhow!("registering broker {id}: {error}"),
        })?;
        let background_tasks = env.tasks.child();
        let background = Env { tasks: background_tasks.clone(), ..env.clone() };
        let (remote, bucket_metrics) = open_remote(config, &background, cold_runtime, &metadata, bucket, &cluster_id).await?;
        metrics.collect_from(bucket_metrics);
        let replicas = ReplicaManager::new(
            replica_config(config, env, epoch, was_empty)?,
            background.clone(),
            Arc::clone(&metadata),
            Arc::clone(&logs),
            Some(remote),
        );
        replicas.start();
        let session = Arc::clone(replicas.session());
        session.heartbeat().await.map_err(|error| anyhow!("first heartbeat of broker {id}: {error}"))?;
        let heartbeat_tasks = env.tasks.child();
        let heartbeat_ms = config.kafka_number("broker.heartbeat.interval.ms").and_then(|ms| u64::try_from(ms).ok()).unwrap_or(2_000);
        let beating = Env { tasks: heartbeat_tasks.clone(), ..env.clone() };
        let replaced = spawn_heartbeats(id, Duration::from_millis(heartbeat_ms), beating, Arc::clone(&session), admin.clone());
        let disk = Arc::clone(&replicas);
        admin.serves_while(move || !disk.metrics().is_offline());

        let server_config = ServerConfig {
            broker_id: id,
            broker_configs: static_configs(config, address, &host, port),
            advertised_host: host,
            advertised_port: port,
            log_dir: config.data_dir.display().to_string(),
        };
        let services = Services::new(server_config, Arc::clone(&metadata), Arc::clone(&replicas), background);
        let listener_tasks = env.tasks.child();
        metrics.collect_from(GroupMetrics::new(services.groups.clone()));
        if services.telemetry.enabled() {
            metrics.collect_from(ClientMetrics::new(Arc::clone(&services.telemetry), Arc::clone(&env.clock)));
        }
        let server = Server::new(listener, services, listener_tasks.clone());
        metrics.collect_from(BrokerMetrics::new(replicas));
        metrics.collect_from(ListenerMetrics::new(server.metrics()));
        let listening = Listening(admin.clone());
        listener_tasks.spawn("kafka-listener", async move {
            let _listening = listening;
            server.run().await;
        });
        Ok(Self { session, logs, env: env.clone(), replaced, heartbeat_tasks, listener_tasks, background_tasks })
    }

    /// Waits until another process has taken this one's place: it leads nothing any more, and should stop.
    pub async fn replaced(&self) {
        self.replaced.notified().await;
    }

    /// Hands leadership back, closes connections within `limit`, ends what goes on behind them, flushes the logs.
    pub async fn stop(self, limit: Duration) {
        hand_back_leadership(&self.session, &self.heartbeat_tasks).await;
        if !self.listener_tasks.shutdown(limit).await {
            tracing::warn!("some connections did not close in time");
        }
        if !self.background_tasks.shutdown(BACKGROUND_LIMIT).await {
            tracing::warn!("some background tasks did not end in time");
        }
        let logs = self.logs;
        match self.env.tasks.blocking(move || logs.close()).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(%error, "closing the logs failed"),
            None => tracing::error!("closing the logs failed"),
        }
    }
}

/// While it lives, the listener does: however that ends, the broker is not ready any more.
struct Listening(Admin);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.fail();
    }
}

/// Ends the heartbeats, then says that this broker stops: nothing may follow that.
async fn hand_back_leadership(session: &Session, heartbeat_tasks: &Tasks) {
    if !heartbeat_tasks.shutdown(HAND_BACK_LIMIT).await {
        tracing::warn!("the last heartbeat is still under way");
    }
    match tokio::time::timeout(HAND_BACK_LIMIT, session.end()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "could not tell the metadata service of the stop"),
        Err(_elapsed) => tracing::warn!("the metadata service did not answer in time that this broker stops"),
    }
}

/// The settings given at start as Kafka's tools show them: by name, and what our own flags say under Kafka's names.
fn static_configs(config: &Config, listen: SocketAddr, host: &str, port: u16) -> BTreeMap<String, String> {
    let mut configs = config.kafka.clone();
    let own = [
        ("node.id", config.node_id.to_string()),
        ("broker.id", config.node_id.to_string()),
        ("listeners", format!("PLAINTEXT://{listen}")),
        ("advertised.listeners", format!("PLAINTEXT://{host}:{port}")),
        ("log.dirs", config.data_dir.display().to_string()),
    ];
    configs.extend(own.map(|(name, value)| (name.to_owned(), value)));
    configs
}

/// What the write-ahead log may take of the disk.
fn wal_bytes_max(env: &Env, config: &Config) -> anyhow::Result<u64> {
    let disk_bytes = env.fs.space(&config.data_dir).context("disk of the data directory")?.total;
    Ok((disk_bytes / 64).clamp(MIB, 64 * MIB) * WAL_FILES)
}

async fn open_logs(config: &Config, env: &Env, cluster_id: &str) -> anyhow::Result<(Arc<LogManager>, bool, bool)> {
    let dir = config.data_dir.join("broker");
    let was_empty = !env.fs.exists(&dir);
    let disk_bytes = env.fs.space(&config.data_dir).context("disk of the data directory")?.total;
    let wal_bytes_max = wal_bytes_max(env, config)?;
    let settings = LogManagerConfig {
        dir: dir.clone(),
        cluster_id: cluster_id.to_owned(),
        wal_file_bytes: wal_bytes_max / WAL_FILES,
        wal_bytes_max,
        tail_cache_bytes: 128 * MIB,
        disk_reserve_bytes: (disk_bytes / 20).min(256 * MIB),
        producer_expiration_ms: config.kafka_number("producer.id.expiration.ms").unwrap_or(86_400_000),
    };
    let inside = env.clone();
    let opened = env.tasks.blocking(move || LogManager::open(settings, inside)).await;
    let (logs, report) = opened.ok_or_else(|| anyhow!("recovery failed"))?.with_context(|| format!("data directory {}", dir.display()))?;
    tracing::info!(
        partitions = report.partitions,
        wal_batches = report.wal_batches,
        torn_bytes = report.torn_bytes,
        quarantined = report.quarantined.len(),
        clean = report.clean,
        "logs recovered"
    );
    Ok((logs, report.clean, was_empty))
}

/// Claims the bucket's prefix. A bucket that can't be reached delays uploads, never the start (I35); one that belongs to
/// another cluster is refused (I33).
async fn open_remote(
    config: &Config,
    env: &Env,
    cold_runtime: &Handle,
    metadata: &Arc<dyn MetadataApi>,
    store: RemoteStore,
    cluster_id: &str,
) -> anyhow::Result<(RemoteTier, BucketMetrics)> {
    match tokio::time::timeout(CLAIM_LIMIT, store.claim(cluster_id)).await {
        Ok(Ok(())) => probe(env, &store),
        Ok(Err(error @ StoreError::BadAddress { .. })) => bail!("object store {}: {error}", store.address()),
        Ok(Err(error)) => claim_later(env, &store, cluster_id, &error.to_string()),
        Err(_elapsed) => claim_later(env, &store, cluster_id, "no answer"),
    }
    let disk_bytes = env.fs.space(&config.data_dir).context("disk of the data directory")?.total;
    let reader_config = RemoteReaderConfig {
        chunk_bytes: 8 * MIB,
        memory_cache_bytes: 256 * MIB,
        // A small volume is for the log.
        disk_cache_bytes: (disk_bytes / 20).min(1024 * MIB),
        disk_cache_dir: config.data_dir.join("broker").join("cache"),
        concurrent_gets: 32,
        read_ahead_bytes_max: 128 * MIB,
    };
    let cold = Env { tasks: env.tasks.child_on(cold_runtime), ..env.clone() };
    let reader = RemoteReader::new(reader_config, store.clone(), Arc::clone(metadata), cold.clone());
    let uploader = Uploader::new(store.clone(), Arc::clone(metadata), cold);
    let collector = GarbageCollector::new(GarbageConfig::default(), store.clone(), Arc::clone(metadata), env.clone());
    let metrics = BucketMetrics::new(store, reader.clone(), uploader.clone(), collector.clone());
    env.tasks.spawn("bucket-gc", collector.run());
    Ok((RemoteTier { reader, uploader }, metrics))
}

/// Says in the log what the store honours, without making the start wait.
fn probe(env: &Env, store: &RemoteStore) {
    let (store, tasks) = (store.clone(), env.tasks.clone());
    env.tasks.spawn("bucket-probe", async move {
        tokio::select! {
            probed = store.probe() => if let Err(error) = probed {
                tracing::warn!(%error, "could not probe the bucket");
            },
            () = tasks.stopped() => {}
        }
    });
}

fn claim_later(env: &Env, store: &RemoteStore, cluster_id: &str, reason: &str) {
    tracing::warn!(reason, "the bucket can't be reached: starting without it, uploads wait");
    let (env, store, cluster_id) = (env.clone(), store.clone(), cluster_id.to_owned());
    env.tasks.clone().spawn("bucket-claim", async move {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            tokio::select! {
                () = env.clock.sleep(backoff.next_delay(&*env.entropy)) => {}
                () = env.tasks.stopped() => return,
            }
            let claimed = tokio::select! {
                claimed = store.claim(&cluster_id) => claimed,
                () = env.tasks.stopped() => return,
            };
            match claimed {
                Ok(()) => return tracing::info!("the bucket is reachable"),
                Err(error @ StoreError::Unavailable(_)) => tracing::debug!(%error, "the bucket is still out of reach"),
                Err(error) => {
                    return tracing::error!(%error, "the bucket can't be used: nothing is uploaded until the configuration is mended");
                }
            }
        }
    });
}

fn replica_config(config: &Config, env: &Env, broker_epoch: i64, data_dir_was_empty: bool) -> anyhow::Result<ReplicaConfig> {
    let millis = |name: &str, default: u64| {
        Duration::from_millis(config.kafka_number(name).and_then(|ms| u64::try_from(ms).ok()).unwrap_or(default))
    };
    let disk_budget_bytes = match config.disk_budget {
        DiskBudget::Bytes(bytes) => bytes,
        DiskBudget::Percent(percent) => {
            env.fs.space(&config.data_dir).context("disk of the data directory")?.total / 100 * u64::from(percent)
        }
    };
    let wal_bytes = wal_bytes_max(env, config)?;
    if disk_budget_bytes < wal_bytes {
        tracing::warn!(
            disk_budget_bytes,
            wal_bytes,
            "disk_budget is less than the write-ahead log alone may take: segments leave the local disk as soon as they are uploaded, raise it to keep some"
        );
    }
    Ok(ReplicaConfig {
        broker_id: config.node_id,
        broker_epoch,
        broker_configs: config.kafka.clone(),
        retention_check_interval: millis("log.retention.check.interval.ms", 300_000),
        // A pass over idle partitions costs next to nothing, so look at least every five seconds.
        local_retention_check_interval: millis("remote.log.manager.task.interval.ms", 30_000).min(Duration::from_secs(5)),
        remote_fetch_max_wait: millis("remote.fetch.max.wait.ms", 500),
        concurrent_uploads: 4,
        disk_budget_bytes,
        log_dir: config.data_dir.clone(),
        data_dir_was_empty,
    })
}

/// Ends the session that the broker had before this start, if it was on another data directory. Only for a broker with the metadata service in its
/// process: the store has one process at a time, so the one before is gone, and there is no session to wait for. A session at another address may be
/// that of a broker of the same id in a process of its own, which lives: it is left alone, and keeps this one from registering.
async fn end_session_before(metadata: &dyn MetadataApi, me: &RegisterBroker) -> Result<(), MetadataError> {
    let image = metadata.image();
    match image.brokers.get(&me.id) {
        Some(known) if !known.fenced && known.directory != me.directory && (&known.host, known.port) == (&me.host, me.port) => {
            metadata.heartbeat(me.id, known.epoch, true).await.map(|_| ())
        }
        _ => Ok(()),
    }
}

/// Tells the metadata service that this broker lives; once it is not this broker's any more, nobody should be sent here (`admin`).
/// Notifies once another process has registered as this broker.
fn spawn_heartbeats(id: i32, every: Duration, env: Env, session: Arc<Session>, admin: Admin) -> Arc<Notify> {
    let replaced = Arc::new(Notify::new());
    let noticed = Arc::clone(&replaced);
    env.tasks.clone().spawn("broker-heartbeat", async move {
        loop {
            // An answer that came late is worth nothing: ask at once.
            let pause = if session.holds() { every } else { every.min(LAPSED_HEARTBEAT_INTERVAL) };
            tokio::select! {
                () = env.clock.sleep(pause) => {}
                () = env.tasks.stopped() => return,
            }
            // Seen to its end, so that it can't arrive after the stopping one.
            match session.heartbeat().await {
                Ok(()) => {}
                Err(MetadataError::StaleBrokerEpoch) => {
                    tracing::error!(id, "another process has registered as this broker: this one leads nothing any more, and stops");
                    admin.fail();
                    return noticed.notify_one();
                }
                Err(MetadataError::UnknownBroker(_)) => {
                    tracing::error!(id, "this broker was unregistered: it leads nothing any more, start it anew to register again");
                    return admin.fail();
                }
                Err(error) => tracing::warn!(%error, "heartbeat failed, trying again"),
            }
        }
    });
    replaced
}

#[cfg(test)]
mod tests {
    use siltstone_common::fs::SimFs;
    use siltstone_metadata::{MemoryStore, MetadataService, MetadataServiceConfig};

    use super::*;

    async fn metadata_service() -> (Env, Arc<MetadataService>) {
        let env = Env::simulated(1, Arc::new(SimFs::new()));
        let store = Arc::new(MemoryStore::new(env.clone()));
        let metadata = MetadataService::open(store, MetadataServiceConfig::default(), env.clone()).await.unwrap();
        (env, metadata)
    }

    fn broker() -> RegisterBroker {
        RegisterBroker { id: 1, host: "localhost".to_owned(), port: 9092, clean_shutdown: true, ..RegisterBroker::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn no_heartbeat_takes_leadership_again_after_a_stop() {
        let (env, metadata) = metadata_service().await;
        let epoch = metadata.register_broker(broker()).await.unwrap();
        let heartbeat_tasks = env.tasks.child();
        let beating = Env { tasks: heartbeat_tasks.clone(), ..env.clone() };
        let admin = ready();
        let session = Arc::new(Session::new(metadata.clone(), Arc::clone(&env.clock), 1, epoch));
        spawn_heartbeats(1, Duration::from_millis(100), beating, Arc::clone(&session), admin.clone());
        env.clock.sleep(Duration::from_secs(1)).await;
        assert!(!metadata.image().brokers[&1].fenced, "the heartbeats keep it active");

        hand_back_leadership(&session, &heartbeat_tasks).await;
        env.clock.sleep(Duration::from_secs(5)).await;
        assert!(metadata.image().brokers[&1].fenced, "and nothing takes it back");
        assert!(admin.is_ready());
    }

    fn ready() -> Admin {
        let admin = Admin::new(Metrics::default());
        admin.set_ready(true);
        admin
    }

    /// A broker with its metadata in its process that lost its data directory: nothing to wait for.
    #[tokio::test(start_paused = true)]
    async fn an_embedded_broker_on_a_new_directory_waits_for_no_session() {
        let (_env, metadata) = metadata_service().await;
        let lost = RegisterBroker { directory: uuid::Uuid::from_u128(1), clean_shutdown: false, ..broker() };
        let epoch = metadata.register_broker(lost.clone()).await.unwrap();
        metadata.heartbeat(1, epoch, false).await.unwrap();
        let me = RegisterBroker { directory: uuid::Uuid::from_u128(2), ..lost };
        let elsewhere = RegisterBroker { port: 9093, ..me.clone() };
        end_session_before(&*metadata, &elsewhere).await.unwrap();
        assert!(matches!(metadata.register_broker(elsewhere).await, Err(MetadataError::DuplicateBroker)), "the other one may live");
        end_session_before(&*metadata, &me).await.unwrap();
        assert!(metadata.register_broker(me).await.unwrap() > epoch);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_whose_registration_is_gone_is_not_ready() {
        let (env, metadata) = metadata_service().await;
        let epoch = metadata.register_broker(broker()).await.unwrap();
        let admin = ready();
        let session = Arc::new(Session::new(metadata.clone(), Arc::clone(&env.clock), 1, epoch));
        spawn_heartbeats(1, Duration::from_millis(100), env.clone(), session, admin.clone());
        env.clock.sleep(Duration::from_secs(1)).await;
        assert!(admin.is_ready());
        metadata.heartbeat(1, epoch, true).await.unwrap();
        metadata.register_broker(broker()).await.unwrap();
        env.clock.sleep(Duration::from_secs(1)).await;
        assert!(!admin.is_ready(), "another has its id");
        admin.set_ready(true);
        assert!(!admin.is_ready(), "and it stays so");
    }
}
