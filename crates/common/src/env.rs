//! The ports of a process, in one cheap handle.

use std::sync::Arc;

use crate::clock::{Clock, SimulatedClock, SystemClock};
use crate::entropy::{Entropy, SmallEntropy, SystemEntropy};
use crate::fs::{FileSystem, RealFs};
use crate::tasks::Tasks;

/// Everything a component may know of the outside world. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Files.
    pub fs: Arc<dyn FileSystem>,
    /// Where tasks are spawned, and how they are stopped.
    pub tasks: Tasks,
}

impl Env {
    /// The real machine. Must be called inside a tokio runtime.
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(SystemEntropy::new()),
            fs: Arc::new(RealFs),
            tasks: Tasks::threaded(),
        }
    }

    /// A deterministic world over `fs`: everything runs on the current thread, randomness comes from `seed`, time is tokio's.
    /// Must be called inside a paused current-thread tokio runtime.
    pub fn simulated(seed: u64, fs: Arc<dyn FileSystem>) -> Self {
        Self {
            clock: Arc::new(SimulatedClock::starting_at(1_700_000_000_000)),
            entropy: Arc::new(SmallEntropy::seeded(seed)),
            fs,
            tasks: Tasks::single_threaded(),
        }
    }
}
