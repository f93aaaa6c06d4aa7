//! Supervised tasks: everything that runs in the background is spawned here, has a name, and stops on shutdown.
//!
//! A panic in a task is logged with the task's name and does not take the process down. In a simulation every kind of
//! task runs on the one thread of the runtime, so that the same seed gives the same order.

use std::fmt::Debug;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Where tasks are spawned. Clones share the same shutdown; [`Tasks::child`] makes a group that can be stopped alone.
#[derive(Clone, Debug)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
    threaded: bool,
    /// Where they run, if not where they are spawned.
    runtime: Option<Handle>,
}

/// How much nicer than others the threads of [`low_priority_runtime`] are: against a busy thread they get a tenth of a core.
const LOW_PRIORITY: i32 = 10;

/// A runtime whose threads, those of blocking work too, give way to all others of the machine: for work that nobody waits for, or that may
/// take long, such as reading what is old. Where the system does not let threads be nice, they are as others.
///
/// # Errors
/// Threads can't be started.
pub fn low_priority_runtime(name: &'static str) -> std::io::Result<Runtime> {
    let give_way = || {
        if let Err(error) = rustix::process::setpriority_process(None, LOW_PRIORITY) {
            tracing::debug!(%error, "a thread keeps its priority");
        }
    };
    Builder::new_multi_thread().enable_all().thread_name(name).on_thread_start(give_way).build()
}

impl Tasks {
    /// Tasks on the runtime's threads, I/O loops on threads of their own, blocking work on the blocking pool.
    pub fn threaded() -> Self {
        Self { token: CancellationToken::new(), tracker: TaskTracker::new(), threaded: true, runtime: None }
    }

    /// Everything on the current runtime's thread: for simulations.
    pub fn single_threaded() -> Self {
        Self { token: CancellationToken::new(), tracker: TaskTracker::new(), threaded: false, runtime: None }
    }

    /// A group that stops when this one does, or alone by its own [`Tasks::shutdown`].
    pub fn child(&self) -> Self {
        let runtime = self.runtime.clone();
        Self { token: self.token.child_token(), tracker: TaskTracker::new(), threaded: self.threaded, runtime }
    }

    /// As [`Tasks::child`], with its tasks and blocking work on `runtime`.
    pub fn child_on(&self, runtime: &Handle) -> Self {
        Self { runtime: Some(runtime.clone()), ..self.child() }
    }

    /// True if I/O loops have threads of their own.
    pub(crate) fn is_threaded(&self) -> bool {
        self.threaded
    }

    /// Spawns `future`. It should end soon after [`Tasks::stopped`] completes.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        match &self.runtime {
            Some(runtime) => self.tracker.spawn_on(supervised(name, future), runtime),
            None => self.tracker.spawn(supervised(name, future)),
        };
    }

    /// Runs `future` where this group's tasks run. Dropping the returned future ends it. `None` if it panicked (logged) or the runtime is
    /// going away.
    pub async fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let Some(runtime) = &self.runtime else { return Some(future.await) };
        match AbortOnDropHandle::new(runtime.spawn(future)).await {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::error!(%error, "a task failed");
                None
            }
        }
    }

    /// Spawns an I/O loop that blocks in system calls: on a thread of its own, or in a simulation as an ordinary task.
    pub fn spawn_io(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        if !self.threaded {
            self.spawn(name, future);
            return;
        }
        let handle = tokio::runtime::Handle::current();
        let tracked = self.tracker.track_future(supervised(name, future));
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || handle.block_on(tracked));
        if let Err(error) = spawned {
            tracing::error!(name, %error, "could not start an i/o thread");
            self.token.cancel();
        }
    }

    /// Runs `work`, which may block, without blocking the runtime. `None` if it panicked (logged) or the runtime is going away.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        if !self.threaded {
            return Some(work());
        }
        let running = match &self.runtime {
            Some(runtime) => runtime.spawn_blocking(work),
            None => tokio::task::spawn_blocking(work),
        };
        match running.await {
            Ok(value) => Some(value),
            // It had not begun when the runtime went away: that is how a process stops.
            Err(error) if error.is_cancelled() => None,
            Err(error) => {
                tracing::error!(%error, "blocking work failed");
                None
            }
        }
    }

    /// Runs `work`, which may block, for each of `items`, at most `limit` at the same time: on threads of their own, or in a simulation one
    /// after the other. Answers come in the order of `items`. Blocks.
    pub fn blocking_each<T: Sync, R: Send>(&self, limit: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
        if !self.threaded || items.len() < 2 || limit < 2 {
            return items.iter().map(work).collect();
        }
        let next = AtomicUsize::new(0);
        let run = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(index) else { return done };
                done.push((index, work(item)));
            }
        };
        let mut done = std::thread::scope(|scope| {
            // This thread is one of them: should no other start, it does it all.
            let others = (1..limit.min(items.len())).filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, run).ok());
            let others: Vec<_> = others.collect();
            let mut done = run();
            for other in others {
                done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            done
        });
        done.sort_unstable_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Completes when shutdown was asked for.
    pub async fn stopped(&self) {
        self.token.cancelled().await;
    }

    /// True once shutdown was asked for.
    pub fn is_stopped(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Asks every task of this group and its children to stop, and waits for this group's tasks up to `limit`.
    /// True if all of them ended in time.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

async fn supervised(name: &'static str, future: impl Future<Output = ()> + Send) {
    if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "unknown panic".to_owned());
        tracing::error!(task = name, panic = text, "a task panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panicking_task_does_not_stop_the_others_and_shutdown_waits() {
        let tasks = Tasks::threaded();
        tasks.spawn("bad", async { panic!("on purpose") });
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let group = tasks.clone();
        tasks.spawn_io("loop", async move {
            group.stopped().await;
            let _ = sender.send(());
        });
        assert!(tasks.shutdown(Duration::from_secs(5)).await);
        assert!(receiver.await.is_ok());
    }

    #[tokio::test]
    async fn a_group_on_another_runtime_runs_there_and_stops_with_its_parent() {
        let other = low_priority_runtime("other").unwrap();
        let tasks = Tasks::threaded();
        let group = tasks.child_on(other.handle());
        let name = || std::thread::current().name().map(str::to_owned);
        let nice = || rustix::process::getpriority_process(None).unwrap();
        assert_eq!(group.run(async move { (name(), nice()) }).await, Some((Some("other".to_owned()), nice() + LOW_PRIORITY)));
        assert_eq!(group.blocking(move || (name(), nice())).await, Some((Some("other".to_owned()), nice() + LOW_PRIORITY)));
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let stopping = group.clone();
        group.spawn("loop", async move {
            stopping.stopped().await;
            let _ = sender.send(name());
        });
        assert!(tasks.shutdown(Duration::from_secs(5)).await);
        assert_eq!(receiver.await.unwrap().as_deref(), Some("other"));
        other.shutdown_background();
    }

    #[test]
    fn blocking_each_runs_several_at_a_time_and_answers_in_order() {
        let items: Vec<usize> = (0..40).collect();
        let barrier = std::sync::Barrier::new(4);
        let work = |item: &usize| {
            barrier.wait();
            item * 2
        };
        let expected: Vec<_> = items.iter().map(|item| item * 2).collect();
        assert_eq!(Tasks::threaded().blocking_each(4, &items, work), expected);
        assert_eq!(Tasks::single_threaded().blocking_each(4, &items, |item| item * 2), expected);
    }
}
