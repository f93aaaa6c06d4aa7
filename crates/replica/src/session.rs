//! The broker's session with the metadata service, as far as this process can know of it.
//!
//! The service gives a broker's place to another process once the session is over, and a broker that is cut off from it does not see that
//! (F11). So each heartbeat that was answered is a lease, counted from before it was sent: within it no other process leads what this one
//! does. When it is out, nothing is appended and nothing acknowledged until a heartbeat gets through (I9, I47); what is committed is read
//! all the same.
//!
//! Invariant: [`Session::holds`] ends before the service ends the session, if the two clocks run apart by less than a part in
//! [`CLOCK_DRIFT_SHARE`], and none stands still: a machine that was suspended for so long must not go on in its sleep's middle.
//!
//! Cancellation: a dropped heartbeat renews nothing. Crash consistency: a new process begins without a session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use siltstone_common::clock::Clock;
use siltstone_metadata::{MetadataApi, MetadataError};

/// The lease is shorter than the session by one part in so many.
const CLOCK_DRIFT_SHARE: u32 = 20;

/// See the module.
pub struct Session {
    metadata: Arc<dyn MetadataApi>,
    clock: Arc<dyn Clock>,
    broker_id: i32,
    broker_epoch: i64,
    /// Monotonic time, ns.
    held_until: AtomicU64,
    /// The end of the lease was logged.
    is_noted: AtomicBool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("broker_id", &self.broker_id).field("broker_epoch", &self.broker_epoch).finish_non_exhaustive()
    }
}

impl Session {
    /// The session of the process that registered as `broker_id` and got `broker_epoch`. Begins with the first heartbeat.
    pub fn new(metadata: Arc<dyn MetadataApi>, clock: Arc<dyn Clock>, broker_id: i32, broker_epoch: i64) -> Self {
        Self { metadata, clock, broker_id, broker_epoch, held_until: AtomicU64::new(0), is_noted: AtomicBool::new(false) }
    }

    /// True while no other process can have this broker's place.
    pub fn holds(&self) -> bool {
        nanos(self.clock.monotonic()) < self.held_until.load(Ordering::Acquire)
    }

    /// Tells the metadata service that this broker lives, which unfences it and prolongs the session.
    ///
    /// # Errors
    /// What the service answers: [`MetadataError::StaleBrokerEpoch`] once another process is this broker.
    pub async fn heartbeat(&self) -> Result<(), MetadataError> {
        let sent = self.clock.monotonic();
        let answered = self.metadata.heartbeat(self.broker_id, self.broker_epoch, false).await;
        if let Ok(lasts) = &answered {
            let until = sent.saturating_add(*lasts - *lasts / CLOCK_DRIFT_SHARE);
            self.held_until.fetch_max(nanos(until), Ordering::AcqRel);
        }
        self.note();
        answered.map(|_| ())
    }

    /// Gives the broker's leadership back and fences it. The lease ends first; nothing may follow but a new registration.
    ///
    /// # Errors
    /// What the service answers.
    pub async fn end(&self) -> Result<(), MetadataError> {
        self.held_until.store(0, Ordering::Release);
        self.metadata.heartbeat(self.broker_id, self.broker_epoch, true).await.map(|_| ())
    }

    /// Says once in the log that the lease is out, and that it is back.
    fn note(&self) {
        let is_out = !self.holds();
        if self.is_noted.swap(is_out, Ordering::AcqRel) == is_out {
            return;
        }
        if is_out {
            tracing::error!("no answer of the metadata service for a whole session: writes are refused until there is one");
        } else {
            tracing::info!("the metadata service answers: writes are taken again");
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
