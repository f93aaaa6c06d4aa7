//! The levels of this process's loggers, to be read and changed while it runs. There is one set per process, as there is one subscriber.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Kafka's name of the logger that the others inherit from.
pub const ROOT: &str = "root";

/// How much a logger says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Level {
    /// Only what a human must look at.
    Error,
    /// And what looks wrong.
    Warn,
    /// And what happens to the process as a whole.
    Info,
    /// And what happens in detail.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// Kafka's word for it; FATAL, which nothing here is logged as, means ERROR.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "FATAL" | "ERROR" => Some(Level::Error),
            "WARN" => Some(Level::Warn),
            "INFO" => Some(Level::Info),
            "DEBUG" => Some(Level::Debug),
            "TRACE" => Some(Level::Trace),
            _ => None,
        }
    }

    /// Kafka's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "ERROR",
            Level::Warn => "WARN",
            Level::Info => "INFO",
            Level::Debug => "DEBUG",
            Level::Trace => "TRACE",
        }
    }
}

/// Who keeps the levels.
pub trait LogLevels: Send + Sync {
    /// Every logger with the level in force, [`ROOT`] among them.
    fn all(&self) -> BTreeMap<String, Level>;
    /// Sets the level of a logger; `None` gives it back to the logger above it.
    ///
    /// # Errors
    /// A sentence, if the subscriber can't be changed.
    fn set(&self, logger: &str, level: Option<Level>) -> Result<(), String>;
}

static INSTALLED: OnceLock<Arc<dyn LogLevels>> = OnceLock::new();

/// Makes `levels` those of this process. The first call counts.
pub fn install(levels: Arc<dyn LogLevels>) {
    let _ = INSTALLED.set(levels);
}

/// The levels of this process, if it has installed any.
pub fn installed() -> Option<Arc<dyn LogLevels>> {
    INSTALLED.get().cloned()
}
