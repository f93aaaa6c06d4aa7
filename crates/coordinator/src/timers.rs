//! Deadlines of one shard: set, moved, cancelled and taken in order.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// What is due in a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum GroupTimer {
    /// A member was silent for its session timeout, or never came back with its new id.
    Heartbeat(Arc<str>),
    /// The join phase ends.
    Join,
    /// Members of this generation that did not sync are removed.
    Sync(i32),
    /// A member of a consumer group must have given its partitions up.
    Rebalance(Arc<str>),
    /// A member of a consumer group that speaks the classic protocol must have joined again.
    ClassicJoin(Arc<str>),
    /// Such a member must have sent SyncGroup.
    ClassicSync(Arc<str>),
}

type Key = (Arc<str>, GroupTimer);

/// Deadlines by (group, timer), on the monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_deadline: BTreeSet<(Duration, Key)>,
    by_key: HashMap<Key, Duration>,
}

impl Timers {
    /// Sets or moves a timer.
    pub(crate) fn set(&mut self, group: &Arc<str>, timer: GroupTimer, deadline: Duration) {
        let key = (group.clone(), timer);
        if let Some(old) = self.by_key.insert(key.clone(), deadline) {
            self.by_deadline.remove(&(old, key.clone()));
        }
        self.by_deadline.insert((deadline, key));
    }

    /// Sets a timer unless it is set.
    pub(crate) fn set_if_absent(&mut self, group: &Arc<str>, timer: GroupTimer, deadline: Duration) {
        if !self.by_key.contains_key(&(group.clone(), timer.clone())) {
            self.set(group, timer, deadline);
        }
    }

    /// Cancels a timer; no matter if it isn't set.
    pub(crate) fn cancel(&mut self, group: &Arc<str>, timer: GroupTimer) {
        let key = (group.clone(), timer);
        if let Some(deadline) = self.by_key.remove(&key) {
            self.by_deadline.remove(&(deadline, key));
        }
    }

    /// The earliest deadline.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Takes the earliest timer that is due.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<Key> {
        if self.next_deadline()? > now {
            return None;
        }
        let (_, key) = self.by_deadline.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_once_and_move() {
        let group: Arc<str> = "g".into();
        let mut timers = Timers::default();
        let second = Duration::from_secs;
        timers.set(&group, GroupTimer::Join, second(3));
        timers.set(&group, GroupTimer::Heartbeat("m".into()), second(1));
        timers.set(&group, GroupTimer::Heartbeat("m".into()), second(5));
        timers.set(&group, GroupTimer::Sync(1), second(4));
        timers.cancel(&group, GroupTimer::Sync(1));
        assert_eq!(timers.next_deadline(), Some(second(3)));
        assert_eq!(timers.pop_due(second(2)), None);
        assert_eq!(timers.pop_due(second(9)), Some((group.clone(), GroupTimer::Join)));
        assert_eq!(timers.pop_due(second(9)), Some((group.clone(), GroupTimer::Heartbeat("m".into()))));
        assert_eq!(timers.pop_due(second(9)), None);
    }
}
