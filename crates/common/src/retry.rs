//! Backoff with jitter.

use std::time::Duration;

use crate::entropy::Entropy;

/// Exponential backoff with full jitter over the upper half: each delay lies in `[d/2, d]`, `d` doubling from `first` up to `max`.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    first: Duration,
    max: Duration,
}

impl Backoff {
    /// A backoff that starts at `first` and never exceeds `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, first, max }
    }

    /// The next delay to wait.
    pub fn next_delay(&mut self, entropy: &dyn Entropy) -> Duration {
        let whole = self.next.min(self.max);
        self.next = whole.saturating_mul(2).min(self.max);
        let half_us = u64::try_from(whole.as_micros() / 2).unwrap_or(u64::MAX);
        Duration::from_micros(half_us + entropy.below(half_us + 1))
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SmallEntropy;

    #[test]
    fn delays_grow_to_the_maximum_and_start_over() {
        let entropy = SmallEntropy::seeded(1);
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(80));
        for whole in [10, 20, 40, 80, 80] {
            let delay = backoff.next_delay(&entropy);
            assert!(delay >= Duration::from_millis(whole / 2) && delay <= Duration::from_millis(whole), "{delay:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay(&entropy) <= Duration::from_millis(10));
    }
}
