//! Memory in large pages, for buffers that the disk writes from: pinning each of their small pages costs about as much as the write.

#![expect(unsafe_code, reason = "the system call takes an address; there is no safe way to it")]

use rustix::mm::{Advice, madvise};

/// Asks the system to back `memory` by large pages. Best effort: without them it works as well, at more cost.
pub(super) fn ask(memory: &mut [u8]) {
    // SAFETY: the range is one that we may write to, and the advice changes only how it is backed, not what it holds.
    let asked = unsafe { madvise(memory.as_mut_ptr().cast(), memory.len(), Advice::LinuxHugepage) };
    if let Err(error) = asked {
        tracing::debug!(%error, "the system has no large pages for buffers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_holds_what_it_held_and_an_odd_range_is_no_error() {
        let mut memory = vec![7; 5 << 20];
        ask(&mut memory[1..]);
        ask(&mut []);
        assert!(memory.iter().all(|byte| *byte == 7));
    }
}
