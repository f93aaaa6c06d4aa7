//! The metadata service of one process over a store.
//!
//! Overview: a call that changes the cluster takes the writer's lock, lets the controller decide on the newest image, and writes the decision's rows
//! to the store. The image moves forward by one road only, the store's watch ([`crate::follower`]); the call returns when the
//! image shows its revision. Segments go past the lock, straight to the segment map, whose transactions guard themselves.
//!
//! Invariants: the image only moves forward (I46); what a call returned is durable (I47); each of the controller's transactions demands that
//! this service still is the active one, so one that was replaced can do no harm.
//!
//! Cancellation: a change runs as a task of its own; dropping the caller's future loses the answer, never half of the change.
//!
//! Crash consistency: the image is folded from the store's rows alone, so opening again gives the same one. A decision too large for one transaction
//! (thousands of partitions failing over) is written in several, each consistent; opening finishes what a crash cut short.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use siltstone_common::{Env, TopicId, TopicIdPartition};
use tokio::sync::{oneshot, watch};

use crate::acls::{AclBinding, AclBindingFilter};
use crate::api::{AdminChange, ConfigOp, ConfigResource, CreateTopic, MetadataApi, MetadataError, RegisterBroker};
use crate::configs;
use crate::controller::{self, Decision, Sessions, View};
use crate::follower::{DeltaLog, Follower};
use crate::image::{ImageChange, MetadataImage, TopicImage};
use crate::rows::{self, ActiveRow, ProducerIdsRow};
use crate::segments::fold::FOLD_ROWS_MAX;
use crate::segments::index::IndexObjects;
use crate::segments::map::SegmentMap;
use crate::segments::{RemoteExtent, SegmentRow};
use crate::store::{MetadataStore, Precondition, TXN_BYTES_MAX, TXN_OPS_MAX, Txn, TxnOutcome, Write};

/// Producer ids given out at once, as in Kafka.
const PRODUCER_ID_BLOCK: i64 = 1000;

/// Settings of the service.
#[derive(Clone, Debug)]
pub struct MetadataServiceConfig {
    /// Broker settings that no one changed while running, by Kafka's names: defaults of new topics.
    pub static_broker_configs: BTreeMap<String, String>,
    /// A broker without a heartbeat for so long is fenced (`broker.session.timeout.ms`).
    pub broker_session_timeout: Duration,
    /// Where old segment rows are folded to; without, all rows stay in the store.
    pub index_objects: Option<Arc<dyn IndexObjects>>,
    /// Newest rows of a partition that stay in the store.
    pub segment_rows_kept: u64,
    /// Rows that are folded into one object, at most 64.
    pub segment_fold_rows: usize,
    /// Most replicas that a new partition may have. One, as long as brokers do not fetch from each other: a replica that gets nothing
    /// must not count as a copy.
    pub replicas_max: usize,
}

impl Default for MetadataServiceConfig {
    fn default() -> Self {
        Self {
            static_broker_configs: BTreeMap::new(),
            broker_session_timeout: Duration::from_secs(9),
            index_objects: None,
            segment_rows_kept: 1000,
            segment_fold_rows: FOLD_ROWS_MAX,
            replicas_max: 1,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct MetadataService {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn MetadataStore>,
    segments: SegmentMap,
    config: MetadataServiceConfig,
    env: Env,
    /// One change of the cluster at a time.
    writer: tokio::sync::Mutex<()>,
    sessions: Mutex<Sessions>,
    deltas: Arc<DeltaLog>,
    /// The fence: this service is active as long as the row `active` has this revision.
    active_revision: u64,
}

impl MetadataService {
    /// Opens the service and makes it the active one; an empty store becomes a new cluster. Needs a tokio runtime.
    pub async fn open(store: Arc<dyn MetadataStore>, config: MetadataServiceConfig, env: Env) -> Result<Arc<Self>, MetadataError> {
        let active_revision = claim(&*store, &env, &config.static_broker_configs).await?;
        let follower = Follower::open(store.clone(), env.clone()).await?;
        let deltas = follower.deltas();
        env.tasks.spawn("metadata-follower", follower.run());
        let mut sessions = Sessions::new(config.broker_session_timeout);
        let now = env.clock.monotonic();
        deltas.image().active_brokers().for_each(|broker| sessions.touch(broker, now));
        let segments =
            SegmentMap::new(store.clone(), config.index_objects.clone(), (config.segment_rows_kept, config.segment_fold_rows), env.clone());
        let writer = tokio::sync::Mutex::new(());
        let sessions = Mutex::new(sessions);
        let inner = Arc::new(Inner { store, segments, config, env, writer, sessions, deltas, active_revision });
        inner.change(|view, _| Ok(controller::repair(view))).await?;
        let watched = Arc::downgrade(&inner);
        let env = inner.env.clone();
        env.tasks.clone().spawn("metadata-sessions", async move {
            let every = Duration::from_millis(250);
            loop {
                tokio::select! {
                    () = env.clock.sleep(every) => {}
                    () = env.tasks.stopped() => return,
                }
                let Some(inner) = watched.upgrade() else { return };
                inner.fence_silent_brokers().await;
            }
        });
        Ok(Arc::new(Self { inner }))
    }

    /// Recent steps of the image, for those who follow it from elsewhere.
    pub(crate) fn deltas(&self) -> &Arc<DeltaLog> {
        &self.inner.deltas
    }

    /// The ports of the service.
    pub(crate) fn env(&self) -> &Env {
        &self.inner.env
    }

    /// Runs a change to its end, whatever becomes of the caller.
    async fn run<T: Send + 'static>(
        &self,
        decide: impl FnOnce(View<'_>, &Env) -> Result<Decision<T>, MetadataError> + Send + 'static,
    ) -> Result<T, MetadataError> {
        let (sender, receiver) = oneshot::channel();
        let inner = self.inner.clone();
        self.inner.env.tasks.spawn("metadata-change", async move {
            let _ = sender.send(inner.change(decide).await);
        });
        receiver.await.map_err(|_| MetadataError::Unavailable("the metadata service is stopping".into()))?
    }
}

/// Makes this service the active one, and the cluster if there is none. The revision of its claim.
async fn claim(store: &dyn MetadataStore, env: &Env, static_configs: &BTreeMap<String, String>) -> Result<u64, MetadataError> {
    let mut then = vec![Write::put(rows::ACTIVE, rows::encode(ActiveRow { instance: env.entropy.uuid() }))];
    let mut when = Vec::new();
    if store.get(rows::CLUSTER.as_bytes()).await?.is_none() {
        let cluster_id = URL_SAFE_NO_PAD.encode(cluster_uuid(env).as_bytes());
        tracing::info!(cluster_id, "a new cluster");
        when.push(Precondition::Revision(rows::CLUSTER.into(), 0));
        then.push(Write::put(rows::CLUSTER, rows::encode(rows::ClusterRow { cluster_id })));
        // Eligible leader replicas are counted by one number for all brokers, so it is a setting of the cluster from the start (KIP-966).
        let min_isr = static_configs.get(configs::MIN_INSYNC_REPLICAS).map_or("1", String::as_str).to_owned();
        then.push(rows::broker_configs_write("", &BTreeMap::from([(configs::MIN_INSYNC_REPLICAS.to_owned(), min_isr)])));
    }
    match store.txn(Txn { when, then }).await? {
        TxnOutcome::Committed(revision) => Ok(revision),
        TxnOutcome::Conflict => Err(MetadataError::Unavailable("another metadata service is starting: try again".into())),
    }
}

/// Kafka's ids never begin with a dash, so that tools don't take them for an option.
fn cluster_uuid(env: &Env) -> uuid::Uuid {
    loop {
        let id = env.entropy.uuid();
        if !URL_SAFE_NO_PAD.encode(id.as_bytes()).starts_with('-') {
            return id;
        }
    }
}

impl Inner {
    async fn change<T>(&self, decide: impl FnOnce(View<'_>, &Env) -> Result<Decision<T>, MetadataError>) -> Result<T, MetadataError> {
        let _writer = self.writer.lock().await;
        let before = self.deltas.image();
        let view = View { image: &before, static_configs: &self.config.static_broker_configs, replicas_max: self.config.replicas_max };
        let Decision { changes, answer } = decide(view, &self.env)?;
        self.write(&before, &changes).await?;
        Ok(answer)
    }

    async fn write(&self, before: &MetadataImage, changes: &[ImageChange]) -> Result<(), MetadataError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut after = before.clone();
        changes.iter().for_each(|change| after.apply(change));
        let now_ms = self.env.clock.now_ms();
        let mut revision = before.revision;
        for then in batches(changes, before, &after, now_ms)? {
            revision = self.fenced_txn(Vec::new(), then).await?;
            siltstone_common::fault::point("metadata-after-txn").map_err(|error| MetadataError::Unavailable(error.to_string()))?;
        }
        self.deltas.reached(revision).await
    }

    /// A transaction that happens only while this service is the active one.
    async fn fenced_txn(&self, mut when: Vec<Precondition>, then: Vec<Write>) -> Result<u64, MetadataError> {
        when.push(Precondition::Revision(rows::ACTIVE.into(), self.active_revision));
        match self.store.txn(Txn { when, then }).await? {
            TxnOutcome::Committed(revision) => Ok(revision),
            TxnOutcome::Conflict => Err(MetadataError::Unavailable("another metadata service has taken over: ask that one".into())),
        }
    }

    async fn fence_silent_brokers(&self) {
        let silent = self.sessions.lock().over(self.env.clock.monotonic());
        for broker in silent {
            let fenced = self.change(|view, env| {
                // It may have come back while this waited for the lock.
                let over = self.sessions.lock().over(env.clock.monotonic()).contains(&broker);
                Ok(if over { controller::fence(view, broker) } else { Decision { changes: Vec::new(), answer: () } })
            });
            match fenced.await {
                Ok(()) => {
                    let mut sessions = self.sessions.lock();
                    if sessions.over(self.env.clock.monotonic()).contains(&broker) {
                        sessions.end(broker);
                        tracing::warn!(broker, timeout = ?self.config.broker_session_timeout, "fenced a broker without heartbeat");
                    }
                }
                Err(error) => tracing::error!(broker, %error, "could not fence a broker without heartbeat"),
            }
        }
    }

    async fn producer_ids(&self, broker: i32, epoch: i64) -> Result<(i64, i64), MetadataError> {
        let _writer = self.writer.lock().await;
        check_broker_epoch(&self.deltas.image(), broker, epoch)?;
        let row = self.store.get(rows::PRODUCER_IDS.as_bytes()).await?;
        let first = row.as_ref().map(|row| rows::decode::<ProducerIdsRow>(&row.key, &row.value)).transpose()?.map_or(0, |row| row.next);
        let next = first.checked_add(PRODUCER_ID_BLOCK).ok_or_else(|| MetadataError::Unavailable("producer ids are used up".into()))?;
        let when = vec![Precondition::Revision(rows::PRODUCER_IDS.into(), row.map_or(0, |row| row.revision))];
        self.fenced_txn(when, vec![Write::put(rows::PRODUCER_IDS, rows::encode(ProducerIdsRow { next }))]).await?;
        Ok((first, PRODUCER_ID_BLOCK))
    }
}

fn check_broker_epoch(image: &MetadataImage, broker: i32, epoch: i64) -> Result<(), MetadataError> {
    match image.brokers.get(&broker) {
        None => Err(MetadataError::UnknownBroker(broker)),
        Some(known) if known.epoch != epoch => Err(MetadataError::StaleBrokerEpoch),
        Some(_) => Ok(()),
    }
}

/// The writes of changes, in order, in transactions within the store's limits. Creation and deletion of a topic are never divided.
fn batches(changes: &[ImageChange], before: &MetadataImage, after: &MetadataImage, now_ms: i64) -> Result<Vec<Vec<Write>>, MetadataError> {
    // Room for the fence.
    let fits = |ops: usize, bytes: usize| ops < TXN_OPS_MAX && bytes + 64 < TXN_BYTES_MAX;
    let mut batches: Vec<Vec<Write>> = Vec::new();
    let (mut ops, mut bytes) = (0, 0);
    for change in changes {
        let writes = rows::writes_of(change, before, after, now_ms);
        let whole_bytes: usize = writes.iter().map(Write::size_bytes).sum();
        let atomic = matches!(change, ImageChange::Topic(_) | ImageChange::TopicDeleted(_));
        if atomic && !fits(writes.len(), whole_bytes) {
            return Err(MetadataError::PolicyViolation(format!(
                "the topic's metadata takes {whole_bytes} bytes, more than one transaction holds: use fewer partitions or replicas"
            )));
        }
        for (index, write) in writes.into_iter().enumerate() {
            let full = !fits(ops + 1, bytes + write.size_bytes());
            if batches.is_empty() || full || (index == 0 && atomic) {
                batches.push(Vec::new());
                (ops, bytes) = (0, 0);
            }
            ops += 1;
            bytes += write.size_bytes();
            if let Some(batch) = batches.last_mut() {
                batch.retain(|earlier| earlier.key() != write.key());
                batch.push(write);
            }
        }
    }
    Ok(batches)
}

#[async_trait]
impl MetadataApi for MetadataService {
    fn image(&self) -> Arc<MetadataImage> {
        self.inner.deltas.image()
    }

    fn watch(&self) -> watch::Receiver<Arc<MetadataImage>> {
        self.inner.deltas.watch()
    }

    async fn register_broker(&self, broker: RegisterBroker) -> Result<i64, MetadataError> {
        let id = broker.id;
        let epoch = self.run(move |view, _| controller::register(view, broker)).await?;
        self.inner.sessions.lock().end(id);
        Ok(epoch)
    }

    async fn heartbeat(&self, broker: i32, epoch: i64, stopping: bool) -> Result<Duration, MetadataError> {
        let image = self.image();
        check_broker_epoch(&image, broker, epoch)?;
        let lasts = self.inner.config.broker_session_timeout;
        if !stopping && self.inner.sessions.lock().prolong(broker, self.inner.env.clock.monotonic()) {
            return Ok(lasts);
        }
        // In turn with what fences it, so that no answer promises a session that another process may have since (I9).
        let inner = Arc::clone(&self.inner);
        self.run(move |view, env| {
            let decision = controller::heartbeat(view, broker, epoch, stopping)?;
            let mut sessions = inner.sessions.lock();
            if stopping {
                sessions.end(broker)
            } else {
                sessions.touch(broker, env.clock.monotonic())
            }
            Ok(decision)
        })
        .await?;
        Ok(if stopping { Duration::ZERO } else { lasts })
    }

    async fn create_topic(&self, topic: CreateTopic) -> Result<Arc<TopicImage>, MetadataError> {
        self.run(move |view, env| {
            let (id, seed) = (new_topic_id(env, view.image), env.entropy.next_u64());
            controller::create_topic(view, topic, id, seed)
        })
        .await
    }

    async fn delete_topic(&self, topic: TopicId) -> Result<(), MetadataError> {
        self.run(move |view, _| controller::delete_topic(view, topic)).await
    }

    async fn create_partitions(
        &self,
        topic: TopicId,
        count: i32,
        assignments: Vec<Vec<i32>>,
        validate_only: bool,
    ) -> Result<(), MetadataError> {
        self.run(move |view, env| controller::create_partitions(view, topic, count, assignments, validate_only, env.entropy.next_u64()))
            .await
    }

    async fn alter_configs(&self, resource: ConfigResource, ops: Vec<ConfigOp>, validate_only: bool) -> Result<(), MetadataError> {
        self.run(move |view, _| controller::alter_configs(view, resource, ops, validate_only)).await
    }

    async fn administer(&self, change: AdminChange, validate_only: bool) -> Result<(), MetadataError> {
        self.run(move |view, _| {
            let Decision { changes, answer } = controller::administer(view, change)?;
            Ok(Decision { changes: if validate_only { Vec::new() } else { changes }, answer })
        })
        .await
    }

    async fn create_acls(&self, acls: Vec<AclBinding>) -> Result<Vec<Result<(), MetadataError>>, MetadataError> {
        self.run(move |view, _| Ok(controller::create_acls(view, acls))).await
    }

    async fn delete_acls(&self, filters: Vec<AclBindingFilter>) -> Result<Vec<Vec<AclBinding>>, MetadataError> {
        self.run(move |view, _| Ok(controller::delete_acls(view, &filters))).await
    }

    async fn alter_isr(&self, id: TopicIdPartition, leader_epoch: i32, partition_epoch: i32, isr: Vec<i32>) -> Result<i32, MetadataError> {
        self.run(move |view, _| controller::alter_isr(view, id, leader_epoch, partition_epoch, isr)).await
    }

    async fn allocate_producer_ids(&self, broker: i32, epoch: i64) -> Result<(i64, i64), MetadataError> {
        let inner = self.inner.clone();
        let (sender, receiver) = oneshot::channel();
        self.inner.env.tasks.spawn("metadata-producer-ids", async move {
            let _ = sender.send(inner.producer_ids(broker, epoch).await);
        });
        receiver.await.map_err(|_| MetadataError::Unavailable("the metadata service is stopping".into()))?
    }

    async fn segment_intent(&self, row: SegmentRow) -> Result<(), MetadataError> {
        self.inner.segments.intent(row).await
    }

    async fn segment_commit(&self, row: SegmentRow) -> Result<(), MetadataError> {
        self.inner.segments.commit(row).await
    }

    async fn find_segment(&self, id: TopicIdPartition, offset: i64) -> Result<Option<SegmentRow>, MetadataError> {
        self.inner.segments.find(id, offset).await
    }

    async fn find_segment_by_time(&self, id: TopicIdPartition, timestamp_ms: i64) -> Result<Option<SegmentRow>, MetadataError> {
        self.inner.segments.find_by_time(id, timestamp_ms).await
    }

    async fn list_segments(&self, id: TopicIdPartition, from: i64, limit: usize) -> Result<Vec<SegmentRow>, MetadataError> {
        self.inner.segments.list(id, from, limit).await
    }

    async fn remote_extent(&self, id: TopicIdPartition) -> Result<RemoteExtent, MetadataError> {
        self.inner.segments.extent(id).await
    }

    async fn raise_log_start(&self, id: TopicIdPartition, leader_epoch: i32, offset: i64) -> Result<(), MetadataError> {
        self.inner.segments.raise_log_start(id, leader_epoch, offset).await
    }

    async fn garbage(&self, grace_ms: i64, limit: usize) -> Result<Vec<SegmentRow>, MetadataError> {
        self.inner.segments.garbage(grace_ms, limit).await
    }

    async fn forget(&self, rows: Vec<SegmentRow>) -> Result<(), MetadataError> {
        self.inner.segments.forget(rows).await
    }
}

fn new_topic_id(env: &Env, image: &MetadataImage) -> TopicId {
    loop {
        let id = TopicId(env.entropy.uuid());
        if !id.is_zero() && !image.topics.contains_key(&id) {
            return id;
        }
    }
}

#[cfg(test)]
mod tests;
