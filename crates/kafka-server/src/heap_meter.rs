//! For tests: an allocator that counts the bytes each thread holds, so that a test can say how much memory a piece of code took at most.
//!
//! The one `unsafe` of the crate, in test builds only: an allocator can't be written without. It hands every call on to the system's allocator.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Meter;

#[global_allocator]
static METER: Meter = Meter;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    HELD.with(|held| {
        let now = held.get() + change;
        held.set(now);
        PEAK.with(|peak| peak.set(peak.get().max(now)));
    });
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The most bytes that `work` held on this thread beyond what was held before, and its result.
pub(crate) fn peak_bytes<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = begin();
    let result = work();
    (peak_since(before), result)
}

/// As [`peak_bytes`], for work that waits; what runs on this thread meanwhile is counted too.
pub(crate) async fn peak_bytes_of<T>(work: impl Future<Output = T>) -> (usize, T) {
    let before = begin();
    let result = work.await;
    (peak_since(before), result)
}

fn begin() -> isize {
    let before = HELD.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    before
}

fn peak_since(before: isize) -> usize {
    usize::try_from(PEAK.with(Cell::get) - before).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_what_was_held_at_once() {
        let (peak, kept) = peak_bytes(|| {
            drop(std::hint::black_box(vec![1u8; 100_000]));
            std::hint::black_box(vec![1u8; 50_000])
        });
        assert!((100_000..101_000).contains(&peak), "{peak}");
        drop(kept);
    }
}
