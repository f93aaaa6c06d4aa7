//! One led partition of `__transaction_state`: its shard, who waits for it, and the task that loads it, writes for it, and writes its markers.
//!
//! Requests run on the caller's thread under the partition's lock, which is never held across an await. The task alone awaits: the replay, one append
//! at a time, and the markers of all prepared transactions at the same time.
//!
//! Cancellation: closing a partition drops the shard and whatever waits for it (callers see NOT_COORDINATOR), the append and the markers under way.
//! Those may or may not be in the logs; the next leader's replay settles it, and writing a marker twice is harmless.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::OptionFuture;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use siltstone_common::Env;
use siltstone_common::retry::Backoff;
use tokio::sync::{Notify, oneshot};

use crate::messages::TopicPartition;
use crate::shard::Now;
use crate::state_log::{Replayed, StateLog, StateLogError};
use crate::transaction::config::TransactionCoordinatorConfig;
use crate::transaction::error::TransactionError;
use crate::transaction::ports::{MarkerOutcome, TxnMarkerLog};
use crate::transaction::shard::{MarkersToWrite, Reply, Shard, WaiterId};

/// First pause after a failed replay or marker; doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// What all partitions share.
pub(crate) struct Shared {
    pub(crate) config: Arc<TransactionCoordinatorConfig>,
    pub(crate) env: Env,
    pub(crate) log: Arc<dyn StateLog>,
    pub(crate) markers: Arc<dyn TxnMarkerLog>,
}

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
    shared: Arc<Shared>,
    phase: Mutex<Phase>,
    wake: Notify,
}

impl Partition {
    /// Starts to load partition `index`, which this broker leads since `leader_epoch`.
    pub(crate) fn open(index: i32, leader_epoch: i32, shared: Arc<Shared>) -> Arc<Self> {
        let tasks = shared.env.tasks.clone();
        let partition = Arc::new(Self { index, leader_epoch, shared, phase: Mutex::new(Phase::Loading), wake: Notify::new() });
        tasks.spawn("transaction-coordinator", partition.clone().run());
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
        Now { monotonic: self.shared.env.clock.monotonic(), wall_ms: self.shared.env.clock.now_ms() }
    }

    fn with_active<T>(&self, work: impl FnOnce(&mut Active, Now) -> T) -> Result<T, TransactionError> {
        let mut phase = self.phase.lock();
        let active = match &mut *phase {
            Phase::Loading => return Err(TransactionError::CoordinatorLoadInProgress),
            Phase::Closed => return Err(TransactionError::NotCoordinator),
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
    pub(crate) fn call<T>(&self, work: impl FnOnce(&mut Shard, Now) -> T) -> Result<T, TransactionError> {
        self.with_active(|active, now| work(&mut active.shard, now))
    }

    /// Asks for something that may have to wait.
    pub(crate) async fn ask(&self, work: impl FnOnce(&mut Shard, WaiterId, Now)) -> Result<Reply, TransactionError> {
        let receiver = self.with_active(|active, now| {
            let (sender, receiver) = oneshot::channel();
            active.last_waiter += 1;
            active.waiters.insert(active.last_waiter, sender);
            work(&mut active.shard, active.last_waiter, now);
            receiver
        })?;
        receiver.await.map_err(|_| TransactionError::NotCoordinator)
    }

    async fn run(self: Arc<Self>) {
        let tasks = self.shared.env.tasks.clone();
        tokio::select! {
            biased;
            () = tasks.stopped() => {}
            () = self.load_and_serve() => {}
        }
        self.close();
    }

    async fn load_and_serve(&self) {
        let env = &self.shared.env;
        let mut backoff = Backoff::new(RETRY_PAUSE_MIN, RETRY_PAUSE_MAX);
        while !self.is_closed() {
            match self.load().await {
                Ok(shard) => {
                    self.activate(shard);
                    return self.serve().await;
                }
                Err(error) => {
                    tracing::warn!(partition = self.index, %error, "could not load the transactions of a partition, trying again");
                    tokio::select! {
                        () = env.clock.sleep(backoff.next_delay(env.entropy.as_ref())) => {}
                        () = self.wake.notified() => {}
                    }
                }
            }
        }
    }

    fn is_closed(&self) -> bool {
        matches!(*self.phase.lock(), Phase::Closed)
    }

    async fn load(&self) -> Result<Shard, StateLogError> {
        let mut shard = Shard::new(self.shared.config.clone(), self.leader_epoch);
        let mut records = self.shared.log.replay(self.index);
        let (mut read, mut skipped) = (0u64, 0u64);
        while let Some(piece) = records.next().await {
            for item in piece? {
                read += 1;
                // Nobody writes transactional ids within transactions.
                let Replayed::Record(record) = item else { continue };
                match shard.replay(&record) {
                    Ok(None) => {}
                    Ok(Some(kind)) => {
                        skipped += 1;
                        tracing::debug!(partition = self.index, kind, "skipping a record of unknown type");
                    }
                    Err(error) => {
                        skipped += 1;
                        tracing::debug!(partition = self.index, %error, "skipping a record that can't be read");
                    }
                }
            }
            if self.is_closed() {
                break;
            }
        }
        if skipped > 0 {
            tracing::warn!(partition = self.index, skipped, "skipped records of __transaction_state");
        }
        tracing::debug!(partition = self.index, records = read, transactional_ids = shard.len(), "loaded transactions");
        Ok(shard)
    }

    fn activate(&self, mut shard: Shard) {
        let mut phase = self.phase.lock();
        if matches!(*phase, Phase::Loading) {
            shard.on_loaded(self.now());
            *phase = Phase::Active(Box::new(Active { shard, waiters: HashMap::new(), last_waiter: 0, wakes_at: Duration::ZERO }));
        }
    }

    async fn serve(&self) {
        let Shared { config, env, log, .. } = &*self.shared;
        let mut aborts = Every::new(config.abort_timed_out_interval_ms, env);
        let mut expiries = Every::new(config.remove_expired_interval_ms, env);
        let mut append: OptionFuture<_> = None.into();
        let mut markers = FuturesUnordered::new();
        loop {
            let (abort_due, expiry_due) = (aborts.is_due(env), expiries.is_due(env));
            let step = self.with_active(|active, now| {
                if abort_due {
                    active.shard.abort_timed_out(now);
                }
                if expiry_due {
                    active.shard.expire(now);
                }
                active.shard.on_tick(now);
                let sweep = aborts.next.min(expiries.next);
                active.wakes_at = active.shard.next_deadline().map_or(sweep, |deadline| deadline.min(sweep));
                (active.shard.next_batch(), active.shard.take_markers(), active.wakes_at.saturating_sub(now.monotonic))
            });
            let Ok((batch, to_write, pause)) = step else { return };
            if let Some(records) = batch {
                append = Some(log.append(self.index, records)).into();
            }
            markers.extend(to_write.into_iter().map(|job| self.write_markers(job)));
            tokio::select! {
                biased;
                Some(result) = &mut append => {
                    append = None.into();
                    if let Err(error) = &result {
                        tracing::warn!(partition = self.index, %error, "could not write to __transaction_state");
                    }
                    if self.call(|shard, now| shard.on_appended(&result, now)).is_err() {
                        return;
                    }
                }
                Some(written) = markers.next() => {
                    let done = self.call(|shard, now| {
                        if let Some(transactional_id) = &written {
                            shard.on_markers_written(transactional_id, now);
                        }
                    });
                    if done.is_err() {
                        return;
                    }
                }
                () = self.wake.notified() => {}
                () = env.clock.sleep(pause) => {}
            }
        }
    }

    /// Writes the markers of one transaction until every partition has its own; `None` if this coordinator is fenced.
    async fn write_markers(&self, job: MarkersToWrite) -> Option<Arc<str>> {
        let MarkersToWrite { transactional_id, marker, mut partitions } = job;
        let env = &self.shared.env;
        let mut backoff = Backoff::new(RETRY_PAUSE_MIN, RETRY_PAUSE_MAX);
        loop {
            let outcomes = self.shared.markers.write(marker, &partitions).await;
            debug_assert_eq!(outcomes.len(), partitions.len(), "an outcome per partition");
            if outcomes.contains(&MarkerOutcome::Fenced) {
                tracing::warn!(
                    %transactional_id, producer_id = marker.producer.producer_id, epoch = marker.producer.producer_epoch,
                    "a newer coordinator or producer has been here: leaving the markers of a transaction to it"
                );
                return None;
            }
            let left = partitions.into_iter().zip(outcomes).filter(|(_, outcome)| *outcome == MarkerOutcome::Retry);
            partitions = left.map(|(id, _)| id).collect::<Vec<TopicPartition>>();
            if partitions.is_empty() {
                return Some(transactional_id);
            }
            tracing::debug!(%transactional_id, left = partitions.len(), "markers could not be written yet, trying again");
            env.clock.sleep(backoff.next_delay(env.entropy.as_ref())).await;
        }
    }
}

/// Something that is due again and again.
struct Every {
    interval: Duration,
    next: Duration,
}

impl Every {
    fn new(interval_ms: u64, env: &Env) -> Self {
        let interval = Duration::from_millis(interval_ms);
        Self { interval, next: env.clock.monotonic() + interval }
    }

    /// True once per interval.
    fn is_due(&mut self, env: &Env) -> bool {
        let now = env.clock.monotonic();
        let is_due = now >= self.next;
        if is_due {
            self.next = now + self.interval;
        }
        is_due
    }
}
