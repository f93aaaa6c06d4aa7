//! `siltstone serve`: the composition root. Starts the parts that the role asks for, announces that they serve, stops them in order.
//!
//! Stopping (SIGTERM, SIGINT): not ready any more, leadership handed back, connections closed, logs flushed and marked clean. A signal
//! during the start ends the process at once, as a crash would: nothing was promised yet, and the next start recovers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use siltstone_admin::{Admin, Metrics};
use siltstone_common::Env;
use siltstone_common::tasks::low_priority_runtime;
use siltstone_kafka_server::BoundListener;
use siltstone_metadata::store::RedbStore;
use siltstone_metadata::{HttpMetadata, HttpMetadataConfig, MetadataApi, MetadataService, MetadataServiceConfig};
use siltstone_tiered::{RemoteStore, StoreConfig};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Role, ServeOptions};
use crate::banner;
use crate::broker::Broker;
use crate::config::Config;

/// How long connections may take to close; with the other limits of a stop it stays below the 30 s that Kubernetes gives.
const CONNECTIONS_LIMIT: Duration = Duration::from_secs(10);
/// How long the remaining tasks may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
pub fn run(options: ServeOptions) -> anyhow::Result<()> {
    let config = Config::load(&options)?;
    crate::telemetry::start(config.log_json);
    siltstone_common::fault::set_from_environment();
    siltstone_common::limits::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let cold_runtime = low_priority_runtime("cold").context("cannot start the runtime of the cold path")?;
    let outcome = runtime.block_on(serve(config, cold_runtime.handle()));
    // Recovery that a signal cut short may still be reading: nobody waits for it.
    runtime.shutdown_background();
    cold_runtime.shutdown_background();
    outcome
}

async fn serve(config: Config, cold_runtime: &Handle) -> anyhow::Result<()> {
    let env = Env::system();
    let metrics = Metrics::default();
    let admin = Admin::new(metrics.clone());
    let mut signals = Signals::new()?;
    let broker = tokio::select! {
        started = start(&config, &env, cold_runtime, &admin, &metrics) => started?,
        signal = signals.next() => {
            tracing::info!(signal, "stopping before the start was done");
            return Ok(());
        }
    };
    let replaced = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "stopping");
            false
        }
        () = replaced(broker.as_ref()) => true,
    };
    admin.set_ready(false);
    if let Some(broker) = broker {
        broker.stop(CONNECTIONS_LIMIT).await;
    }
    if !env.tasks.shutdown(STOP_LIMIT).await {
        tracing::warn!("some tasks did not end in time");
    }
    tracing::info!("stopped");
    if replaced {
        bail!("another process runs as broker {}: stop that one, or give this one another id with --set node.id=NUMBER", config.node_id);
    }
    Ok(())
}

/// Waits until another process has taken the broker's place.
async fn replaced(broker: Option<&Broker>) {
    match broker {
        Some(broker) => broker.replaced().await,
        None => std::future::pending().await,
    }
}

/// Starts what the role asks for; the broker, if it has one.
async fn start(config: &Config, env: &Env, cold_runtime: &Handle, admin: &Admin, metrics: &Metrics) -> anyhow::Result<Option<Broker>> {
    let data_dir = config.data_dir.clone();
    env.fs.create_dir_all(&data_dir).with_context(|| format!("data directory {}", data_dir.display()))?;
    let admin_socket = TcpListener::bind(config.admin).await.with_context(|| format!("admin address {}", config.admin))?;
    let admin_address = admin_socket.local_addr()?;

    let bucket = match &config.object_store {
        Some(url) => {
            let address = StoreConfig { url: url.clone(), s3_endpoint: config.s3_endpoint.clone() };
            let cold = Env { tasks: env.tasks.child_on(cold_runtime), ..env.clone() };
            Some(RemoteStore::open(&address, cold).context("object store")?)
        }
        None => None,
    };
    let (metadata, router) = open_metadata(config, bucket.clone(), env).await?;
    let router = admin.router().merge(router);
    let stopped = env.tasks.clone();
    env.tasks.spawn("admin-http", async move {
        let stop = async move { stopped.stopped().await };
        if let Err(error) = axum::serve(admin_socket, router).with_graceful_shutdown(stop).await {
            tracing::error!(%error, "the admin listener failed");
        }
    });
    if config.role == Role::Metadata {
        announce(config, admin, admin_address, admin_address);
        return Ok(None);
    }
    let bucket = bucket.ok_or_else(|| anyhow!("a broker needs a bucket"))?;
    let listener = BoundListener::bind(&config.listen.to_string()).await.with_context(|| format!("listen address {}", config.listen))?;
    let address = listener.local_addr();
    let broker = Broker::start(config, env, cold_runtime, metadata, bucket, listener, (admin, metrics)).await?;
    announce(config, admin, address, admin_address);
    Ok(Some(broker))
}

async fn open_metadata(config: &Config, bucket: Option<RemoteStore>, env: &Env) -> anyhow::Result<(Arc<dyn MetadataApi>, axum::Router)> {
    if let (Role::Broker, Some(addresses)) = (config.role, &config.metadata) {
        let addresses = addresses.split(',').map(|address| address.trim().to_owned()).collect();
        let client = HttpMetadata::connect(HttpMetadataConfig::new(addresses), env.clone()).await;
        let client = client.map_err(|error| anyhow!("metadata service: {error}"))?;
        return Ok((Arc::new(client), axum::Router::new()));
    }
    let dir = config.data_dir.join("metadata");
    let store = RedbStore::open(&dir, env.clone()).await.with_context(|| format!("metadata store in {}", dir.display()))?;
    let session = u64::try_from(config.kafka_number("broker.session.timeout.ms").unwrap_or(9_000)).unwrap_or(9_000);
    let settings = MetadataServiceConfig {
        static_broker_configs: config.kafka.clone(),
        broker_session_timeout: Duration::from_millis(session),
        index_objects: bucket.map(|bucket| Arc::new(bucket) as _),
        ..MetadataServiceConfig::default()
    };
    let service =
        MetadataService::open(Arc::new(store), settings, env.clone()).await.map_err(|error| anyhow!("metadata service: {error}"))?;
    let router = siltstone_metadata::router(Arc::clone(&service));
    Ok((service, router))
}

/// The one line that programs wait for, and what a person wants to see.
fn announce(config: &Config, admin: &Admin, address: SocketAddr, admin_address: SocketAddr) {
    use std::io::Write;
    admin.set_ready(true);
    tracing::info!(%address, admin = %admin_address, node_id = config.node_id, "ready");
    let mut stdout = std::io::stdout().lock();
    // Nobody may be reading: that is no reason to stop.
    let _ = writeln!(stdout, "listening on {address}").and_then(|()| stdout.flush());
    banner::print(config, address, admin_address);
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
