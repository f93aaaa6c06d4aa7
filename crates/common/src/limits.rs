//! The limits that the system sets to the process.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Takes as many file descriptors as the process may have: the usual 1024 are used up by idle connections alone. How many there are now;
/// `None` for no limit.
pub fn raise_open_files() -> Option<u64> {
    let mut limits = getrlimit(Resource::Nofile);
    if limits.current != limits.maximum {
        let before = limits.current;
        limits.current = limits.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limits) {
            tracing::warn!(%error, limit = before, "the limit of open files can't be raised");
            return before;
        }
    }
    limits.current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let lower = rustix::process::Rlimit { current: Some(maximum.unwrap_or(4096).min(512)), maximum };
        setrlimit(Resource::Nofile, lower).unwrap();
        assert_eq!(raise_open_files(), maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
