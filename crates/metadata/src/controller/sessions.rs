//! Until when each broker's session lasts, on the monotonic clock (I41).

use std::collections::HashMap;
use std::time::Duration;

/// Sessions of the brokers that are not fenced.
#[derive(Debug)]
pub(crate) struct Sessions {
    timeout: Duration,
    deadlines: HashMap<i32, Duration>,
}

impl Sessions {
    /// No sessions yet; each will last `timeout` after a heartbeat.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, deadlines: HashMap::new() }
    }

    /// A broker gave a sign of life.
    pub(crate) fn touch(&mut self, broker: i32, now: Duration) {
        self.deadlines.insert(broker, now.saturating_add(self.timeout));
    }

    /// A sign of life within a session prolongs it. False if it is over, or there is none: then the broker is fenced, or about to be.
    pub(crate) fn prolong(&mut self, broker: i32, now: Duration) -> bool {
        let is_alive = self.deadlines.get(&broker).is_some_and(|deadline| now < *deadline);
        if is_alive {
            self.touch(broker, now);
        }
        is_alive
    }

    /// A broker was fenced.
    pub(crate) fn end(&mut self, broker: i32) {
        self.deadlines.remove(&broker);
    }

    /// Brokers whose session is over.
    pub(crate) fn over(&self, now: Duration) -> Vec<i32> {
        let mut over: Vec<_> = self.deadlines.iter().filter(|(_, deadline)| **deadline <= now).map(|(broker, _)| *broker).collect();
        over.sort_unstable();
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_to_the_moment_and_is_not_prolonged_after() {
        let second = Duration::from_secs;
        let mut sessions = Sessions::new(second(9));
        sessions.touch(1, second(0));
        assert!(sessions.prolong(1, second(8)));
        assert!(sessions.over(second(16)).is_empty());
        assert_eq!(sessions.over(second(17)), [1]);
        assert!(!sessions.prolong(1, second(17)));
        assert_eq!(sessions.over(second(17)), [1]);
    }
}
