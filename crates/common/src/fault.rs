//! Fail points: named places where a test can make the process crash, fail or wait (F8).
//!
//! A point costs one relaxed atomic load while nothing is set. Points are set by tests through [`set`], or for a
//! whole process by `SILTSTONE_FAULTS="name=crash;other=fail"`, read once by [`set_from_environment`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// What a fail point does when it is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends at once, as by kill -9.
    Crash,
    /// The operation at the point fails with an I/O error.
    Fail,
}

static ACTIVE: AtomicBool = AtomicBool::new(false);
static POINTS: Mutex<Option<HashMap<String, Fault>>> = Mutex::new(None);

/// Sets or (with `None`) clears what the point `name` does.
pub fn set(name: &str, fault: Option<Fault>) {
    let mut points = POINTS.lock();
    let map = points.get_or_insert_default();
    match fault {
        Some(fault) => map.insert(name.to_owned(), fault),
        None => map.remove(name),
    };
    ACTIVE.store(!map.is_empty(), Ordering::Relaxed);
}

/// Sets the points named in the environment variable `SILTSTONE_FAULTS`. Unknown actions are reported and ignored.
pub fn set_from_environment() {
    let Ok(text) = std::env::var("SILTSTONE_FAULTS") else {
        return;
    };
    for item in text.split(';').filter(|item| !item.is_empty()) {
        match item.split_once('=') {
            Some((name, "crash")) => set(name, Some(Fault::Crash)),
            Some((name, "fail")) => set(name, Some(Fault::Fail)),
            _ => tracing::warn!(item, "unknown fault, use name=crash or name=fail"),
        }
    }
}

/// Passes the point `name`.
///
/// # Errors
/// An I/O error that names the point, if the point is set to [`Fault::Fail`].
pub fn point(name: &str) -> std::io::Result<()> {
    if !ACTIVE.load(Ordering::Relaxed) {
        return Ok(());
    }
    let fault = POINTS.lock().as_ref().and_then(|map| map.get(name).copied());
    match fault {
        None => Ok(()),
        Some(Fault::Crash) => {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
            Ok(())
        }
        Some(Fault::Fail) => Err(std::io::Error::other(format!("fault injected at {name}"))),
    }
}
