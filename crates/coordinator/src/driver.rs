//! One led partition of a coordinator: its shard, who waits for it, and the task that loads it, writes for it and keeps its time.
//!
//! Requests run on the caller's thread under the partition's lock, which is never held across an await. The task alone awaits: the
//! replay, one append at a time, the shard's jobs all at the same time, and the next deadline. A request wakes it when there is something
//! to do or a deadline has come nearer.
//!
//! Cancellation: closing a partition drops the shard and whatever waits for it (callers see NOT_COORDINATOR), and the append and the jobs
//! under way; their records may or may not be in the logs, which the next leader's replay settles.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use siltstone_common::Env;
use siltstone_common::retry::Backoff;
use tokio::sync::{Notify, oneshot};

use crate::records::wire::WireError;
use crate::state_log::{Replayed, StateLog, StateLogError, StateWrite};

/// Queued writes that a shard takes; it refuses more as COORDINATOR_NOT_AVAILABLE, which clients retry.
pub(crate) const QUEUED_WRITES_MAX: usize = 16_384;
/// A shard closes a batch once it has this many bytes of records.
pub(crate) const BATCH_BYTES_TARGET: usize = 512 * 1024;
/// First pause after a failed replay; doubles up to [`RELOAD_PAUSE_MAX`].
const RELOAD_PAUSE_MIN: Duration = Duration::from_millis(100);
const RELOAD_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Now, on both clocks.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Now {
    pub(crate) monotonic: Duration,
    pub(crate) wall_ms: i64,
}

impl Now {
    fn of(env: &Env) -> Self {
        Self { monotonic: env.clock.monotonic(), wall_ms: env.clock.now_ms() }
    }
}

/// Who waits for an answer.
pub(crate) type WaiterId = u64;

/// Why a partition can't be asked.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotServed {
    Loading,
    NotLed,
}

/// Something that is done to a shard again and again.
pub(crate) struct Sweep<S> {
    pub(crate) interval_ms: u64,
    pub(crate) run: fn(&mut S, Now),
}

/// The state of one partition, as a function of its records and of the events since. Pure: what it wants written and done it hands out.
pub(crate) trait Shard: Send + Sized + 'static {
    /// Whose it is, for tasks and log lines.
    const COORDINATOR: &'static str;
    /// What all partitions of a coordinator share.
    type Setup: Send + Sync;
    /// The answer to a request that had to wait.
    type Reply: Send;
    /// A refusal.
    type Error: From<NotServed> + Send;
    /// What a job ends with.
    type Done: Send;

    /// A shard without state, of a partition that is led since `leader_epoch`.
    fn open(setup: &Self::Setup, leader_epoch: i32) -> Self;
    /// Takes in what the log holds; the answer is the type of a record that is not known here.
    fn on_replayed(&mut self, item: &Replayed, now: Now) -> Result<Option<i16>, WireError>;
    /// All is taken in: service begins.
    fn begin(&mut self, setup: &Self::Setup, now: Now);
    /// How many groups or transactional ids there are.
    fn len(&self) -> usize;
    /// What is due at intervals.
    fn sweeps(setup: &Self::Setup) -> Vec<Sweep<Self>>;
    /// Does what is due by [`Shard::next_deadline`].
    fn on_tick(&mut self, now: Now);
    /// When [`Shard::on_tick`] has something to do.
    fn next_deadline(&self) -> Option<Duration>;
    /// True if [`Shard::next_batch`] or [`Shard::take_jobs`] has something to give.
    fn has_work(&self) -> bool;
    /// The next append, if there is any and none is under way.
    fn next_batch(&mut self, now: Now) -> Option<StateWrite>;
    /// The last append has ended.
    fn on_appended(&mut self, result: &Result<(), StateLogError>, now: Now);
    /// True once the shard has run ahead of what could be written: the partition must be replayed.
    fn must_reload(&self) -> bool;
    /// Work beyond the partition's log, since the last call.
    fn take_jobs(&mut self, setup: &Arc<Self::Setup>) -> Vec<BoxFuture<'static, Self::Done>>;
    /// One of the jobs has ended.
    fn on_job_done(&mut self, done: Self::Done, now: Now);
    /// The answers since the last call.
    fn take_replies(&mut self) -> Vec<(WaiterId, Self::Reply)>;
}

/// What the partitions of a coordinator are driven with.
pub(crate) struct Shared<S: Shard> {
    pub(crate) env: Env,
    pub(crate) log: Arc<dyn StateLog>,
    pub(crate) setup: Arc<S::Setup>,
}

enum Phase<S: Shard> {
    /// The log is being replayed.
    Loading,
    Active(Box<Active<S>>),
    /// This broker no longer leads the partition.
    Closed,
}

struct Active<S: Shard> {
    shard: S,
    waiters: HashMap<WaiterId, oneshot::Sender<S::Reply>>,
    last_waiter: WaiterId,
    /// When the task wakes by itself.
    wakes_at: Duration,
}

impl<S: Shard> Active<S> {
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
pub(crate) struct Partition<S: Shard> {
    index: i32,
    leader_epoch: i32,
    shared: Arc<Shared<S>>,
    phase: Mutex<Phase<S>>,
    wake: Notify,
}

impl<S: Shard> Partition<S> {
    /// Starts to load partition `index`, which this broker leads since `leader_epoch`.
    pub(crate) fn open(index: i32, leader_epoch: i32, shared: Arc<Shared<S>>) -> Arc<Self> {
        let tasks = shared.env.tasks.clone();
        let partition = Arc::new(Self { index, leader_epoch, shared, phase: Mutex::new(Phase::Loading), wake: Notify::new() });
        tasks.spawn(S::COORDINATOR, partition.clone().run());
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

    fn with_active<T>(&self, work: impl FnOnce(&mut Active<S>, Now) -> T) -> Result<T, S::Error> {
        let mut phase = self.phase.lock();
        let active = match &mut *phase {
            Phase::Loading => return Err(NotServed::Loading.into()),
            Phase::Closed => return Err(NotServed::NotLed.into()),
            Phase::Active(active) => active,
        };
        let result = work(active, Now::of(&self.shared.env));
        active.deliver_replies();
        if active.needs_task() {
            self.wake.notify_one();
        }
        Ok(result)
    }

    /// Asks for something that is known at once.
    pub(crate) fn call<T>(&self, work: impl FnOnce(&mut S, Now) -> T) -> Result<T, S::Error> {
        self.with_active(|active, now| work(&mut active.shard, now))
    }

    /// Asks for something that may have to wait.
    pub(crate) async fn ask(&self, work: impl FnOnce(&mut S, WaiterId, Now)) -> Result<S::Reply, S::Error> {
        let receiver = self.with_active(|active, now| {
            let (sender, receiver) = oneshot::channel();
            active.last_waiter += 1;
            active.waiters.insert(active.last_waiter, sender);
            work(&mut active.shard, active.last_waiter, now);
            receiver
        })?;
        receiver.await.map_err(|_| NotServed::NotLed.into())
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
        let mut backoff = Backoff::new(RELOAD_PAUSE_MIN, RELOAD_PAUSE_MAX);
        while !self.is_closed() {
            match self.load().await {
                Ok(shard) => {
                    self.activate(shard);
                    self.serve().await;
                    self.restart();
                }
                Err(error) => {
                    tracing::warn!(coordinator = S::COORDINATOR, partition = self.index, %error, "could not load a partition, trying again");
                }
            }
            tokio::select! {
                () = env.clock.sleep(backoff.next_delay(env.entropy.as_ref())) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Forgets what could not be written, to begin again with what was; who waits gets NOT_COORDINATOR and asks again.
    fn restart(&self) {
        let mut phase = self.phase.lock();
        if matches!(*phase, Phase::Active(_)) {
            tracing::warn!(coordinator = S::COORDINATOR, partition = self.index, "loading a partition again after a failed write");
            *phase = Phase::Loading;
        }
    }

    fn is_closed(&self) -> bool {
        matches!(*self.phase.lock(), Phase::Closed)
    }

    async fn load(&self) -> Result<S, StateLogError> {
        let Shared { env, log, setup } = &*self.shared;
        let begun = env.clock.monotonic();
        let mut shard = S::open(setup, self.leader_epoch);
        let mut records = log.replay(self.index);
        let (mut read, mut skipped) = (0u64, 0u64);
        while let Some(piece) = records.next().await {
            for item in piece? {
                read += 1;
                match shard.on_replayed(&item, Now::of(env)) {
                    Ok(None) => continue,
                    Ok(Some(kind)) => tracing::debug!(partition = self.index, kind, "skipping a record of unknown type"),
                    Err(error) => tracing::debug!(partition = self.index, %error, "skipping a record that can't be read"),
                }
                skipped += 1;
            }
            if self.is_closed() {
                break;
            }
        }
        if skipped > 0 {
            tracing::warn!(coordinator = S::COORDINATOR, partition = self.index, skipped, "skipped records of a partition");
        }
        let took_ms = (env.clock.monotonic() - begun).as_millis() as u64;
        tracing::debug!(coordinator = S::COORDINATOR, partition = self.index, read, loaded = shard.len(), took_ms, "loaded a partition");
        Ok(shard)
    }

    fn activate(&self, mut shard: S) {
        let mut phase = self.phase.lock();
        if matches!(*phase, Phase::Loading) {
            shard.begin(&self.shared.setup, Now::of(&self.shared.env));
            *phase = Phase::Active(Box::new(Active { shard, waiters: HashMap::new(), last_waiter: 0, wakes_at: Duration::ZERO }));
        }
    }

    async fn serve(&self) {
        let Shared { env, log, setup } = &*self.shared;
        let mut sweeps = Sweeps::<S>::new(S::sweeps(setup), env.clock.monotonic());
        let mut append: OptionFuture<_> = None.into();
        let mut jobs = FuturesUnordered::new();
        loop {
            let step = self.with_active(|active, now| {
                sweeps.run_due(&mut active.shard, now);
                active.shard.on_tick(now);
                // First, as it may lead to jobs.
                let write = active.shard.next_batch(now);
                let deadlines = active.shard.next_deadline().into_iter().chain(sweeps.next());
                active.wakes_at = deadlines.min().unwrap_or(Duration::MAX);
                (write, active.shard.take_jobs(setup), active.wakes_at.saturating_sub(now.monotonic))
            });
            let Ok((write, new_jobs, pause)) = step else { return };
            if let Some(write) = write {
                append = Some(log.append(self.index, write)).into();
            }
            jobs.extend(new_jobs);
            let ended = tokio::select! {
                biased;
                Some(result) = &mut append => {
                    append = None.into();
                    if let Err(error) = &result {
                        tracing::warn!(coordinator = S::COORDINATOR, partition = self.index, %error, "could not write to the log of a partition");
                    }
                    self.call(|shard, now| {
                        shard.on_appended(&result, now);
                        shard.must_reload()
                    })
                }
                Some(done) = jobs.next() => self.call(|shard, now| {
                    shard.on_job_done(done, now);
                    false
                }),
                () = self.wake.notified() => Ok(false),
                () = env.clock.sleep(pause) => Ok(false),
            };
            if ended.unwrap_or(true) {
                return;
            }
        }
    }
}

/// Sweeps, and when each is due next.
struct Sweeps<S>(Vec<(Duration, Sweep<S>)>);

impl<S> Sweeps<S> {
    fn new(sweeps: Vec<Sweep<S>>, now: Duration) -> Self {
        Self(sweeps.into_iter().map(|sweep| (now + Duration::from_millis(sweep.interval_ms), sweep)).collect())
    }

    fn run_due(&mut self, shard: &mut S, now: Now) {
        for (due, sweep) in self.0.iter_mut().filter(|(due, _)| *due <= now.monotonic) {
            *due = now.monotonic + Duration::from_millis(sweep.interval_ms);
            (sweep.run)(shard, now);
        }
    }

    fn next(&self) -> Option<Duration> {
        self.0.iter().map(|(due, _)| *due).min()
    }
}
