//! Leases for providers that emulate them in their process: who lives until when. Time is given by the caller.

use std::collections::HashMap;
use std::time::Duration;

use super::LeaseId;

/// Lives of leases, on the monotonic clock (I41).
#[derive(Debug, Default)]
pub(crate) struct Leases {
    last: u64,
    lives: HashMap<LeaseId, (Duration, Duration)>,
}

impl Leases {
    /// A new lease; ids are never used twice in a process.
    pub(crate) fn grant(&mut self, now: Duration, ttl: Duration) -> LeaseId {
        self.last += 1;
        let id = LeaseId(self.last);
        self.lives.insert(id, (now.saturating_add(ttl), ttl));
        id
    }

    /// Starts a lease's time over; false if it is over.
    pub(crate) fn keep_alive(&mut self, id: LeaseId, now: Duration) -> bool {
        let Some((deadline, ttl)) = self.lives.get_mut(&id).filter(|(deadline, _)| now < *deadline) else { return false };
        *deadline = now.saturating_add(*ttl);
        true
    }

    /// True while a lease lives.
    pub(crate) fn alive(&self, id: LeaseId, now: Duration) -> bool {
        self.left(id, now).is_some()
    }

    /// How long a lease still lives; `None` when it is over.
    pub(crate) fn left(&self, id: LeaseId, now: Duration) -> Option<Duration> {
        let (deadline, _) = self.lives.get(&id)?;
        deadline.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Ends a lease.
    pub(crate) fn end(&mut self, id: LeaseId) {
        self.lives.remove(&id);
    }
}
