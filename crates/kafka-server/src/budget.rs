//! The memory that all requests share: a counter with a limit, and those who wait for room.
//!
//! A connection charges what it holds beyond a small free allowance, and reads no further while nothing is left (I42). A frame is charged whole
//! before it is read on, so that two half-read ones never wait for each other; together they exceed the limit by one frame at most. Charges
//! are given back when they are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

/// The shared counter.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    limit: usize,
    used: AtomicUsize,
    waiting: Mutex<Vec<Waker>>,
}

/// Bytes taken from a budget until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl MemoryBudget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), waiting: Mutex::default() })
    }

    /// Bytes charged now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A charge of nothing, to grow later.
    pub(crate) fn charge(self: &Arc<Self>) -> Charge {
        Charge { budget: Arc::clone(self), bytes: 0 }
    }

    /// True below the limit; else `waker` is woken when bytes come back.
    pub(crate) fn has_room(&self, waker: &Waker) -> bool {
        if !self.is_full() {
            return true;
        }
        self.waiting.lock().push(waker.clone());
        !self.is_full()
    }

    /// True if nothing more is given out.
    pub(crate) fn is_full(&self) -> bool {
        self.used() >= self.limit
    }

    fn try_take(&self, bytes: usize) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
                // While anything is left, one more passes however large it is, as in Kafka: or a large one might never be served.
                (used < self.limit).then_some(used.saturating_add(bytes))
            })
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Charge {
    /// Grows the charge to `bytes` (never shrinks it); false, with `waker` to be woken when bytes come back, if there is no room.
    pub(crate) fn grow_to(&mut self, bytes: usize, waker: &Waker) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return true };
        if !self.budget.try_take(more) {
            self.budget.waiting.lock().push(waker.clone());
            // Bytes may have come back between the attempt and the registration.
            if !self.budget.try_take(more) {
                return false;
            }
        }
        self.bytes = bytes;
        true
    }

    /// Adds bytes that are held already, room or not.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.budget.used.fetch_add(bytes, Ordering::AcqRel);
        self.bytes += bytes;
    }

    /// Grows the charge to `bytes` that are held already, room or not (never shrinks it).
    pub(crate) fn raise_to(&mut self, bytes: usize) {
        self.add(bytes.saturating_sub(self.bytes));
    }

    /// Moves the whole charge into a new one.
    pub(crate) fn take(&mut self) -> Charge {
        Charge { budget: Arc::clone(&self.budget), bytes: std::mem::take(&mut self.bytes) }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_waits_for_room_and_one_giant_passes() {
        let budget = MemoryBudget::new(100);
        let waker = futures::task::noop_waker();
        let mut first = budget.charge();
        assert!(first.grow_to(500, &waker), "while there is room it may exceed the limit");
        let mut second = budget.charge();
        assert!(!second.grow_to(10, &waker));
        drop(first.take());
        assert!(second.grow_to(10, &waker));
        assert!(second.grow_to(5, &waker), "never shrinks");
        assert_eq!(budget.used(), 10);
        drop(second);
        assert_eq!(budget.used(), 0);
    }
}
