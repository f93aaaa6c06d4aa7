//! One led partition of `__consumer_offsets`: its shard, who waits for it, and the task that loads it, writes for it and keeps its time.
//!
//! Requests run on the caller's thread under the partition's lock, which is never held across an await. The task alone awaits: the
//! replay, one append at a time, and the next deadline. A request wakes it when there is something to append or a deadline has come nearer.
//!
//! Cancellation: closing a partition drops the shard and whatever waits for it (callers see NOT_COORDINATOR), and the append under
//! way; its records may or may not be in the log, which the next leader's replay settles.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, OptionFuture};
use parking_lot::{Mutex, RwLock};
use siltstone_common::Env;
use siltstone_common::retry::Backoff;
use tokio::sync::{Notify, oneshot};

use crate::classic::WaiterId;
use crate::cluster::{ChangedTopics, ClusterView};
use crate::config::GroupCoordinatorConfig;
use crate::error::GroupError;
use crate::shard::{Now, Reply, Shard, StateWrite};
use crate::state_log::{Replayed, StateLog, StateLogError};

/// First pause after a failed replay; doubles up to [`RELOAD_PAUSE_MAX`].
const RELOAD_PAUSE_MIN: Duration = Duration::from_millis(100);
const RELOAD_PAUSE_MAX: Duration = Duration::from_secs(2);

enum Phase {
    /// The log is being replayed.
    Loading,
    Active(Box<Active>),
    /// This broker no longer leads the partition.
    Closed,
}

struct Active {
    shard: Shard,
    waiters: HashMap<WaiterId, oneshot::Sender<Reply>>,
    last_waiter: WaiterId,
    /// When the task wakes by itself.
    wakes_at: Duration,
}

impl Active {
    fn deliver_replies(&mut self) {
        for (waiter, reply) in self.shard.take_replies() {
            if let Some(sender) = self.waiters.remove(&waiter) {
                // The client may be gone.
                let _ = sender.send(reply);
            }
        }
    }

    fn needs_task(&self) -> bool {
        self.shard.has_work() || self.shard.next_deadline().is_some_and(|deadline| deadline < self.wakes_at)
    }
}

/// See the module.
pub(crate) struct Partition {
    index: i32,
    leader_epoch: i32,
    config: Arc<GroupCoordinatorConfig>,
    env: Env,
    log: Arc<dyn StateLog>,
    cluster: Arc<RwLock<Arc<dyn ClusterView>>>,
    phase: Mutex<Phase>,
    wake: Notify,
}

impl Partition {
    /// Starts to load partition `index`, which this broker leads since `leader_epoch`.
    pub(crate) fn open(
        index: i32,
        leader_epoch: i32,
        config: Arc<GroupCoordinatorConfig>,
        env: Env,
        log: Arc<dyn StateLog>,
        cluster: Arc<RwLock<Arc<dyn ClusterView>>>,
    ) -> Arc<Self> {
        let tasks = env.tasks.clone();
        let phase = Mutex::new(Phase::Loading);
        let partition = Arc::new(Self { index, leader_epoch, config, env, log, cluster, phase, wake: Notify::new() });
        tasks.spawn("group-coordinator", partition.clone().run());
        partition
    }

    pub(crate) fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Forgets everything; who waits gets NOT_COORDINATOR.
    pub(crate) fn close(&self) {
        *self.phase.lock() = Phase::Closed;
        self.wake.notify_one();
    }

    fn now(&self) -> Now {
        Now { monotonic: self.env.clock.monotonic(), wall_ms: self.env.clock.now_ms() }
    }

    fn with_active<T>(&self, work: impl FnOnce(&mut Active, Now) -> T) -> Result<T, GroupError> {
        let mut phase = self.phase.lock();
        let active = match &mut *phase {
            Phase::Loading => return Err(GroupError::CoordinatorLoadInProgress),
            Phase::Closed => return Err(GroupError::NotCoordinator),
            Phase::Active(active) => active,
        };
        let result = work(active, self.now());
        active.deliver_replies();
        if active.needs_task() {
            self.wake.notify_one();
        }
        Ok(result)
    }

    /// Asks for something that is known at once.
    pub(crate) fn call<T>(&self, work: impl FnOnce(&mut Shard, Now) -> T) -> Result<T, GroupError> {
        self.with_active(|active, now| work(&mut active.shard, now))
    }

    /// Asks for something that may have to wait.
    pub(crate) async fn ask(&self, work: impl FnOnce(&mut Shard, WaiterId, Now)) -> Result<Reply, GroupError> {
        let receiver = self.with_active(|active, now| {
            let (sender, receiver) = oneshot::channel();
            active.last_waiter += 1;
            active.waiters.insert(active.last_waiter, sender);
            work(&mut active.shard, active.last_waiter, now);
            receiver
        })?;
        receiver.await.map_err(|_| GroupError::NotCoordinator)
    }

    async fn run(self: Arc<Self>) {
        let tasks = self.env.tasks.clone();
        tokio::select! {
            biased;
            () = tasks.stopped() => {}
            () = self.load_and_serve() => {}
        }
        self.close();
    }

    async fn load_and_serve(&self) {
        let mut backoff = Backoff::new(RELOAD_PAUSE_MIN, RELOAD_PAUSE_MAX);
        while !self.is_closed() {
            match self.load().await {
                Ok(shard) => {
                    self.activate(shard);
                    self.serve().await;
                    self.restart();
                }
                Err(error) => {
                    tracing::warn!(partition = self.index, %error, "could not load the groups of a partition, trying again");
                }
            }
            tokio::select! {
                () = self.env.clock.sleep(backoff.next_delay(self.env.entropy.as_ref())) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Forgets what could not be written, to begin again with what was; who waits gets NOT_COORDINATOR and asks again.
    fn restart(&self) {
        let mut phase = self.phase.lock();
        if matches!(*phase, Phase::Active(_)) {
            tracing::warn!(partition = self.index, "loading the groups of a partition again after a failed write");
            *phase = Phase::Loading;
        }
    }

    fn is_closed(&self) -> bool {
        matches!(*self.phase.lock(), Phase::Closed)
    }

    async fn load(&self) -> Result<Shard, StateLogError> {
        let begun = self.env.clock.monotonic();
        let mut shard = Shard::new(self.config.clone());
        let mut records = self.log.replay(self.index);
        let (mut read, mut unknown, mut damaged) = (0u64, 0u64, 0u64);
        while let Some(piece) = records.next().await {
            for item in piece? {
                read += 1;
                let replayed = match &item {
                    Replayed::Record(record) => shard.replay(record, self.now().wall_ms),
                    Replayed::Transactional(producer_id, record) => shard.replay_transactional(*producer_id, record),
                    Replayed::Marker(producer_id, commit) => {
                        shard.transaction_ended(*producer_id, *commit, self.now().wall_ms);
                        Ok(None)
                    }
                };
                match replayed {
                    Ok(None) => {}
                    Ok(Some(kind)) => {
                        unknown += 1;
                        tracing::debug!(partition = self.index, kind, "skipping a record of unknown type");
                    }
                    Err(error) => {
                        damaged += 1;
                        tracing::debug!(partition = self.index, %error, "skipping a record that can't be read");
                    }
                }
            }
            if self.is_closed() {
                break;
            }
        }
        if unknown > 0 || damaged > 0 {
            tracing::warn!(partition = self.index, unknown, damaged, "skipped records of __consumer_offsets");
        }
        let took_ms = (self.env.clock.monotonic() - begun).as_millis() as u64;
        tracing::debug!(partition = self.index, records = read, groups = shard.group_count(), took_ms, "loaded groups");
        Ok(shard)
    }

    fn activate(&self, mut shard: Shard) {
        let mut phase = self.phase.lock();
        if matches!(*phase, Phase::Loading) {
            shard.on_cluster_changed(self.cluster.read().clone(), &ChangedTopics::default());
            shard.on_loaded(self.now());
            *phase = Phase::Active(Box::new(Active { shard, waiters: HashMap::new(), last_waiter: 0, wakes_at: Duration::ZERO }));
        }
    }

    fn write(&self, write: StateWrite) -> BoxFuture<'_, Result<(), StateLogError>> {
        match write {
            StateWrite::Records(records) => self.log.append(self.index, records),
            StateWrite::Transactional(append) => self.log.append_transactional(self.index, append),
            StateWrite::Marker(marker) => self.log.append_marker(self.index, marker),
        }
    }

    async fn serve(&self) {
        let check_interval = Duration::from_millis(self.config.offsets_retention_check_interval_ms);
        let mut next_expiry = self.env.clock.monotonic() + check_interval;
        let mut append: OptionFuture<_> = None.into();
        loop {
            let is_due = self.env.clock.monotonic() >= next_expiry;
            if is_due {
                next_expiry = self.env.clock.monotonic() + check_interval;
            }
            let step = self.with_active(|active, now| {
                if is_due {
                    active.shard.expire();
                }
                active.shard.on_tick(now);
                let batch = active.shard.next_batch(now);
                active.wakes_at = active.shard.next_deadline().map_or(next_expiry, |deadline| deadline.min(next_expiry));
                (batch, active.wakes_at.saturating_sub(now.monotonic))
            });
            let Ok((batch, pause)) = step else { return };
            if let Some(write) = batch {
                append = Some(self.write(write)).into();
            }
            tokio::select! {
                biased;
                Some(result) = &mut append => {
                    append = None.into();
                    if let Err(error) = &result {
                        tracing::warn!(partition = self.index, %error, "could not write to __consumer_offsets");
                    }
                    let must_reload = self.call(|shard, now| {
                        shard.on_appended(&result, now);
                        shard.must_reload()
                    });
                    if must_reload.unwrap_or(true) {
                        return;
                    }
                }
                () = self.wake.notified() => {}
                () = self.env.clock.sleep(pause) => {}
            }
        }
    }
}
