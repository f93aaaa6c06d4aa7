//! Wakes an I/O loop.
//!
//! A loop of [`Tasks::spawn_io`] has a thread of its own, which is parked by the system and woken by its ringer alone. A wait by the
//! runtime's timers instead would wake the network's threads for every deadline that comes before all others.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::tasks::Tasks;

/// See the module. Made by [`Tasks::bell`].
#[derive(Debug)]
pub struct Bell {
    threaded: bool,
    rung: Mutex<bool>,
    wake: Condvar,
    notify: Notify,
}

impl Tasks {
    /// A bell for one I/O loop of these tasks.
    pub fn bell(&self) -> Bell {
        Bell { threaded: self.is_threaded(), rung: Mutex::new(false), wake: Condvar::new(), notify: Notify::new() }
    }
}

impl Bell {
    /// Wakes the loop, or keeps its next wait from waiting.
    pub fn ring(&self) {
        if self.threaded {
            *self.rung.lock() = true;
            self.wake.notify_one();
        } else {
            self.notify.notify_one();
        }
    }

    /// Completes once the bell was rung after the last wait, or at the monotonic time `until`. Blocks its thread, so it is for I/O loops only.
    pub async fn wait(&self, clock: &dyn Clock, until: Option<Duration>) {
        let left = until.map(|until| until.saturating_sub(clock.monotonic()));
        if self.threaded {
            self.park(left);
            return;
        }
        match left {
            None => self.notify.notified().await,
            Some(left) => tokio::select! {
                () = self.notify.notified() => {}
                () = clock.sleep(left) => {}
            },
        }
    }

    fn park(&self, left: Option<Duration>) {
        let mut rung = self.rung.lock();
        match left {
            _ if *rung => {}
            None => self.wake.wait_while(&mut rung, |rung| !*rung),
            Some(left) => drop(self.wake.wait_while_for(&mut rung, |rung| !*rung, left)),
        }
        *rung = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{SimulatedClock, SystemClock};

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_simulated_wait_ends_with_the_bell_or_its_time() {
        let (bell, clock) = (Tasks::single_threaded().bell(), SimulatedClock::starting_at(0));
        bell.ring();
        bell.wait(&clock, None).await;
        bell.wait(&clock, Some(LONG)).await;
        assert_eq!(clock.monotonic(), LONG);
    }

    #[tokio::test]
    async fn a_thread_is_woken_by_the_bell_before_its_time_and_by_its_time_without() {
        let (bell, clock) = (Tasks::threaded().bell(), SystemClock::new());
        bell.wait(&clock, Some(clock.monotonic() + Duration::from_millis(1))).await;
        bell.ring();
        bell.wait(&clock, None).await;
        let started = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                started.wait();
                futures::executor::block_on(bell.wait(&clock, Some(LONG)));
                clock.monotonic()
            });
            started.wait();
            bell.ring();
            assert!(waiting.join().unwrap() < LONG);
        });
    }
}
