//! Rates over a sliding window of samples, and buckets of tokens, as Kafka counts them. Times are milliseconds of a monotonic clock.

use std::collections::VecDeque;
use std::time::Duration;

/// How long is looked back (`quota.window.num`, `quota.window.size.seconds`).
#[derive(Copy, Clone, Debug)]
pub(super) struct WindowConfig {
    pub(super) samples: u64,
    pub(super) sample_ms: u64,
}

/// What was taken in the last samples.
#[derive(Debug)]
pub(super) struct Rate {
    config: WindowConfig,
    /// Start and sum of each sample, the oldest first.
    samples: VecDeque<(u64, f64)>,
}

impl Rate {
    pub(super) fn new(config: WindowConfig) -> Self {
        Self { config, samples: VecDeque::new() }
    }

    fn purge(&mut self, now_ms: u64) {
        let kept_ms = self.config.samples * self.config.sample_ms;
        while self.samples.front().is_some_and(|(start, _)| now_ms.saturating_sub(*start) >= kept_ms) {
            self.samples.pop_front();
        }
    }

    pub(super) fn record(&mut self, amount: f64, now_ms: u64) {
        self.purge(now_ms);
        match self.samples.back_mut() {
            Some((start, sum)) if now_ms.saturating_sub(*start) < self.config.sample_ms => *sum += amount,
            _ => self.samples.push_back((now_ms, amount)),
        }
    }

    /// True if nothing counts any more.
    pub(super) fn is_idle(&self, now_ms: u64) -> bool {
        let kept_ms = self.config.samples * self.config.sample_ms;
        self.samples.back().is_none_or(|(start, _)| now_ms.saturating_sub(*start) >= kept_ms)
    }

    /// How long nothing may be taken until the rate is down to `limit` a second.
    pub(super) fn throttle(&mut self, limit: f64, now_ms: u64) -> Duration {
        self.purge(now_ms);
        let Some((oldest, _)) = self.samples.front() else { return Duration::ZERO };
        let elapsed_ms = now_ms.saturating_sub(*oldest);
        // A window that has just begun counts as nearly full, or the first requests would look like a flood.
        let full = (self.config.samples - 1).saturating_sub(elapsed_ms / self.config.sample_ms);
        let window_secs = (elapsed_ms + full * self.config.sample_ms) as f64 / 1_000.0;
        let total: f64 = self.samples.iter().map(|(_, sum)| sum).sum();
        let window_secs = if window_secs > 0.0 { window_secs } else { self.config.sample_ms as f64 / 1_000.0 };
        let over = total / window_secs - limit;
        if over <= 0.0 { Duration::ZERO } else { bounded(over / limit * window_secs) }
    }
}

/// Seconds as a time, at most an hour.
fn bounded(seconds: f64) -> Duration {
    const LONGEST_SECS: f64 = 3_600.0;
    // Whole milliseconds, as the wire has them.
    Duration::from_millis((seconds.clamp(0.0, LONGEST_SECS) * 1_000.0).round() as u64)
}

/// Tokens that fill up with time, may be overdrawn once, and are then to be waited for (KIP-599).
#[derive(Debug)]
pub(super) struct TokenBucket {
    config: WindowConfig,
    tokens: f64,
    /// Most tokens when it was last filled up.
    burst: f64,
    /// Never filled up yet: it begins full, whatever its size.
    fresh: bool,
    last_ms: u64,
}

impl TokenBucket {
    pub(super) fn new(config: WindowConfig, now_ms: u64) -> Self {
        Self { config, tokens: 0.0, burst: 0.0, fresh: true, last_ms: now_ms }
    }

    pub(super) fn refill(&mut self, rate: f64, now_ms: u64) {
        self.burst = rate * (self.config.samples * self.config.sample_ms) as f64 / 1_000.0;
        let gained = rate * now_ms.saturating_sub(self.last_ms) as f64 / 1_000.0;
        self.tokens = if std::mem::take(&mut self.fresh) { self.burst } else { (self.tokens + gained).min(self.burst) };
        self.last_ms = now_ms;
    }

    pub(super) fn take(&mut self, tokens: f64) {
        self.tokens -= tokens;
    }

    /// How long until nothing is owed.
    pub(super) fn overdrawn(&self, rate: f64) -> Duration {
        if self.tokens >= 0.0 { Duration::ZERO } else { bounded(-self.tokens / rate) }
    }

    /// True if forgetting it changes nothing.
    pub(super) fn is_full(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.last_ms) >= self.config.samples * self.config.sample_ms && self.tokens >= 0.0
    }
}
