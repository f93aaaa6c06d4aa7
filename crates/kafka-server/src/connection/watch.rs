//! What the reaper sees of a connection, and how it ends one: atomics and a waker, no lock and no timer per connection.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use futures::task::AtomicWaker;

use crate::limits::{ANSWER_GRACE, CROWDED_FRAME_RATE_MIN, FRAME_GRACE, FRAME_RATE_MIN};

/// What the reaper decided.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Verdict {
    Go,
    Idle,
    TooSlow,
    NotReading,
    Stop,
    /// The connection may go on, if its client is still there.
    Look,
}

/// Which memory of all connections is used up: who holds it then has less time.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Crowded {
    /// That of frames that have begun and requests under way.
    pub requests: bool,
    /// That of answers that are not read.
    pub answers: bool,
}

/// No frame has begun, no answer waits.
const NEVER: u64 = u64::MAX;
const FRAME_GRACE_MS: u64 = FRAME_GRACE.as_millis() as u64;
/// A connection that is not read is looked at each second after such a silence.
const LOOK_AFTER_MS: u64 = 10_000;
const CROWDED_GRACE_MS: u64 = ANSWER_GRACE.as_millis() as u64;

/// See the module. Times are the server's coarse clock, milliseconds.
#[derive(Debug)]
pub(crate) struct Watch {
    waker: AtomicWaker,
    verdict: AtomicU8,
    draining: AtomicBool,
    /// Nothing is read, so that the end of the client is not seen by itself.
    deaf: AtomicBool,
    progress_ms: AtomicU64,
    frame_began_ms: AtomicU64,
    /// When the frame that has begun must be complete, unless more of it comes: its bytes put that off, never by more than the first grace.
    frame_due_ms: AtomicU64,
    frame_bytes: AtomicU64,
    /// Since when the socket has not taken all answers.
    unsent_since_ms: AtomicU64,
    /// What it took since then.
    sent_bytes: AtomicU64,
}

impl Watch {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            waker: AtomicWaker::new(),
            verdict: AtomicU8::new(Verdict::Go as u8),
            draining: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
            progress_ms: AtomicU64::new(now_ms),
            frame_began_ms: AtomicU64::new(NEVER),
            frame_due_ms: AtomicU64::new(NEVER),
            frame_bytes: AtomicU64::new(0),
            unsent_since_ms: AtomicU64::new(NEVER),
            sent_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match self.verdict.load(Ordering::Acquire) {
            0 => Verdict::Go,
            1 => Verdict::Idle,
            2 => Verdict::TooSlow,
            3 => Verdict::NotReading,
            4 => Verdict::Stop,
            _ => Verdict::Look,
        }
    }

    /// True once the server stops: nothing new is begun.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether the client could go without being noticed.
    pub(crate) fn set_deaf(&self, deaf: bool) {
        if self.deaf.load(Ordering::Relaxed) != deaf {
            self.deaf.store(deaf, Ordering::Relaxed);
        }
    }

    /// Something was received, answered or sent.
    pub(crate) fn progress(&self, now_ms: u64) {
        self.progress_ms.store(now_ms, Ordering::Relaxed);
    }

    /// `buffered` bytes are there that no request was made of yet. Called by the connection only, as all that follows down to `frame_paused`.
    pub(crate) fn received(&self, now_ms: u64, buffered: usize) {
        self.progress(now_ms);
        let before = self.frame_bytes.swap(buffered as u64, Ordering::Relaxed);
        let due_ms = self.frame_due_ms.load(Ordering::Relaxed);
        if due_ms != NEVER {
            let put_off_ms = (buffered as u64).saturating_sub(before).saturating_mul(1000) / FRAME_RATE_MIN;
            self.frame_due_ms.store(due_ms.saturating_add(put_off_ms).min(now_ms + FRAME_GRACE_MS), Ordering::Relaxed);
        }
    }

    /// Part of a frame is there; its time runs from the first call.
    pub(crate) fn frame_began(&self, now_ms: u64) {
        if self.frame_due_ms.load(Ordering::Relaxed) == NEVER {
            self.frame_began_ms.store(now_ms, Ordering::Relaxed);
            self.frame_due_ms.store(now_ms + FRAME_GRACE_MS, Ordering::Relaxed);
        }
    }

    /// No frame has begun, or it is not the client that holds it up.
    pub(crate) fn frame_paused(&self) {
        self.frame_due_ms.store(NEVER, Ordering::Relaxed);
    }

    /// True if the frame that has begun comes in too slowly: for its client's sake, or with `crowded` for that of others who wait for memory.
    fn sends_too_slowly(&self, now_ms: u64, crowded: bool) -> bool {
        let due_ms = self.frame_due_ms.load(Ordering::Relaxed);
        if due_ms == NEVER || !crowded {
            return due_ms != NEVER && now_ms > due_ms;
        }
        let allowed_ms = CROWDED_GRACE_MS + self.frame_bytes.load(Ordering::Relaxed).saturating_mul(1000) / CROWDED_FRAME_RATE_MIN;
        now_ms.saturating_sub(self.frame_began_ms.load(Ordering::Relaxed)) > allowed_ms || now_ms > due_ms
    }

    /// The socket took `bytes` of the answers, not all.
    pub(crate) fn answers_wait(&self, now_ms: u64, bytes: usize) {
        if self.unsent_since_ms.load(Ordering::Relaxed) == NEVER {
            self.sent_bytes.store(0, Ordering::Relaxed);
            self.unsent_since_ms.store(now_ms, Ordering::Relaxed);
        } else {
            self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// The socket took all answers.
    pub(crate) fn answers_sent(&self) {
        if self.unsent_since_ms.load(Ordering::Relaxed) != NEVER {
            self.unsent_since_ms.store(NEVER, Ordering::Relaxed);
        }
    }

    /// True if the client takes its answers in slower than [`FRAME_RATE_MIN`] after `grace`.
    fn reads_too_slowly(&self, now_ms: u64, grace: Duration) -> bool {
        let since_ms = self.unsent_since_ms.load(Ordering::Relaxed);
        let allowed_ms = grace.as_millis() as u64 + self.sent_bytes.load(Ordering::Relaxed).saturating_mul(1000) / FRAME_RATE_MIN;
        since_ms != NEVER && now_ms.saturating_sub(since_ms) > allowed_ms
    }

    /// Ends the connection if its time is over, or lets it look for its client. True if that was done.
    pub(crate) fn judge(&self, now_ms: u64, idle_max: Duration, crowded: Crowded) -> bool {
        let idle_ms = u64::try_from(idle_max.as_millis()).unwrap_or(u64::MAX);
        let quiet_ms = now_ms.saturating_sub(self.progress_ms.load(Ordering::Relaxed));
        let verdict = if self.sends_too_slowly(now_ms, crowded.requests) {
            Verdict::TooSlow
        } else if quiet_ms > idle_ms {
            Verdict::Idle
        } else if self.reads_too_slowly(now_ms, if crowded.answers { ANSWER_GRACE } else { idle_max }) {
            Verdict::NotReading
        } else if quiet_ms > LOOK_AFTER_MS && self.deaf.load(Ordering::Relaxed) {
            Verdict::Look
        } else {
            return false;
        };
        self.end(verdict);
        true
    }

    /// Ends the connection.
    pub(crate) fn end(&self, verdict: Verdict) {
        self.verdict.store(verdict as u8, Ordering::Release);
        self.waker.wake();
    }

    /// The client is still there.
    pub(crate) fn seen(&self) {
        self.verdict.store(Verdict::Go as u8, Ordering::Release);
    }

    /// Takes an idle verdict back.
    pub(crate) fn pardon(&self, now_ms: u64) {
        self.progress(now_ms);
        self.seen();
    }

    /// Lets the connection finish what it has begun.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(600);
    const CALM: Crowded = Crowded { requests: false, answers: false };
    const CROWDED: Crowded = Crowded { requests: false, answers: true };

    #[test]
    fn a_frame_has_a_deadline_that_its_bytes_extend() {
        let watch = Watch::new(0);
        watch.frame_began(1_000);
        watch.frame_began(5_000);
        assert!(!watch.judge(31_000, IDLE, CALM));
        watch.received(31_000, 80 * 1024);
        assert!(!watch.judge(41_000, IDLE, CALM), "80 KiB at 8 KiB/s give ten more seconds");
        assert!(watch.judge(41_001, IDLE, CALM));
        assert_eq!(watch.verdict(), Verdict::TooSlow);
    }

    #[test]
    fn bytes_that_came_fast_give_no_hours_of_silence() {
        let watch = Watch::new(0);
        watch.frame_began(1_000);
        watch.received(2_000, 64 << 20);
        assert!(!watch.judge(32_000, IDLE, CALM));
        assert!(watch.judge(32_001, IDLE, CALM), "64 MiB at once are worth no more than the grace");
    }

    #[test]
    fn frames_have_to_come_faster_while_others_wait_for_memory() {
        const CROWDED: Crowded = Crowded { requests: true, answers: false };
        let watch = Watch::new(0);
        watch.frame_began(0);
        for second in 1..=20 {
            watch.received(second * 1000, second as usize * 64 * 1024);
        }
        assert!(!watch.judge(20_000, IDLE, CALM), "64 KiB/s will do");
        assert!(watch.judge(20_000, IDLE, CROWDED));
        let fast = Watch::new(0);
        fast.frame_began(0);
        fast.received(19_000, 6 << 20);
        assert!(!fast.judge(20_000, IDLE, CROWDED));
    }

    #[test]
    fn answers_have_to_be_read_at_some_rate_and_soon_when_memory_is_short() {
        let watch = Watch::new(0);
        watch.answers_wait(1_000, 0);
        assert!(!watch.judge(500_000, IDLE, CALM));
        assert!(!watch.judge(11_000, IDLE, CROWDED));
        watch.answers_wait(11_000, 80 * 1024);
        watch.progress(11_000);
        assert!(!watch.judge(21_000, IDLE, CROWDED), "80 KiB at 8 KiB/s give ten more seconds");
        watch.answers_sent();
        assert!(!watch.judge(500_000, IDLE, CROWDED), "all is read");
        watch.answers_wait(500_000, 80 * 1024);
        assert!(watch.judge(510_001, IDLE, CROWDED), "what was sent before the wait does not count");
        assert_eq!(watch.verdict(), Verdict::NotReading);
    }

    #[test]
    fn answers_that_drip_away_are_no_progress_for_ever() {
        let watch = Watch::new(0);
        watch.answers_wait(0, 0);
        for second in 1..=601 {
            watch.progress(second * 1000);
            watch.answers_wait(second * 1000, 1);
        }
        assert!(watch.judge(601_000, IDLE, CALM));
        assert_eq!(watch.verdict(), Verdict::NotReading);
    }

    #[test]
    fn a_quiet_connection_is_idle_after_its_time_and_a_complete_frame_has_no_deadline() {
        let watch = Watch::new(0);
        watch.frame_began(0);
        watch.frame_paused();
        watch.progress(1_000);
        assert!(!watch.judge(601_000, IDLE, CALM));
        assert!(watch.judge(601_001, IDLE, CALM));
        assert_eq!(watch.verdict(), Verdict::Idle);
    }
}
