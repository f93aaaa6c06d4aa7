//! Log lines: structured, on stderr; level by `SILTSTONE_LOG` (for example `debug` or `siltstone_tiered=debug,info`), and while the process runs
//! by `kafka-configs --entity-type broker-loggers`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use siltstone_common::log_levels::{self, Level, LogLevels, ROOT};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// What can be heard one by one: the parts of the broker.
const LOGGERS: [&str; 9] = [
    "siltstone",
    "siltstone_admin",
    "siltstone_common",
    "siltstone_coordinator",
    "siltstone_kafka_server",
    "siltstone_log",
    "siltstone_metadata",
    "siltstone_replica",
    "siltstone_tiered",
];
/// What is logged when nothing else is asked for.
const DEFAULT: &str = "info";

/// Starts logging. Call once.
pub fn start(json: bool) {
    let base = std::env::var("SILTSTONE_LOG").ok().filter(|text| EnvFilter::try_new(text).is_ok()).unwrap_or_else(|| DEFAULT.to_owned());
    let (filter, handle) = reload::Layer::new(EnvFilter::new(&base));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if json { lines.json().boxed() } else { lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed() };
    tracing_subscriber::registry().with(filter).with(lines).init();
    log_levels::install(Arc::new(Levels { base, changed: Mutex::default(), handle }));
}

struct Levels {
    /// As started.
    base: String,
    /// What was changed since.
    changed: Mutex<BTreeMap<String, Level>>,
    handle: reload::Handle<EnvFilter, Registry>,
}

impl LogLevels for Levels {
    fn all(&self) -> BTreeMap<String, Level> {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        in_force(&self.base, &changed)
    }

    fn set(&self, logger: &str, level: Option<Level>) -> Result<(), String> {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = changed.clone();
        match level {
            Some(level) => next.insert(logger.to_owned(), level),
            None => next.remove(logger),
        };
        let filter = EnvFilter::try_new(directives(&self.base, &next)).map_err(|error| error.to_string())?;
        self.handle.reload(filter).map_err(|error| error.to_string())?;
        *changed = next;
        Ok(())
    }
}

/// The filter as text: later directives for the same target win.
fn directives(base: &str, changed: &BTreeMap<String, Level>) -> String {
    let own = changed.iter().map(|(logger, level)| match logger.as_str() {
        ROOT => level.name().to_ascii_lowercase(),
        target => format!("{target}={}", level.name().to_ascii_lowercase()),
    });
    std::iter::once(base.to_owned()).chain(own).collect::<Vec<_>>().join(",")
}

/// Each logger's level, by the last directive that names it, else by the last one that names none.
fn in_force(base: &str, changed: &BTreeMap<String, Level>) -> BTreeMap<String, Level> {
    let text = directives(base, changed);
    let parse = |word: &str| Level::parse(&word.trim().to_ascii_uppercase());
    let mut root = Level::Error;
    let mut named = BTreeMap::new();
    for directive in text.split(',') {
        match directive.split_once('=') {
            Some((target, level)) => named.extend(parse(level).map(|level| (target.trim().to_owned(), level))),
            None => root = parse(directive).unwrap_or(root),
        }
    }
    let mut all: BTreeMap<String, Level> = LOGGERS.iter().map(|logger| ((*logger).to_owned(), root)).collect();
    all.extend(named);
    all.insert(ROOT.to_owned(), root);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_last_is_in_force() {
        let changed = BTreeMap::from([(ROOT.to_owned(), Level::Warn), ("siltstone_log".to_owned(), Level::Trace)]);
        let all = in_force("siltstone_tiered=debug,info", &changed);
        assert_eq!(all.get(ROOT), Some(&Level::Warn));
        assert_eq!(all.get("siltstone_log"), Some(&Level::Trace));
        assert_eq!(all.get("siltstone_tiered"), Some(&Level::Debug));
        assert_eq!(all.get("siltstone_metadata"), Some(&Level::Warn));
        assert!(EnvFilter::try_new(directives("info", &changed)).is_ok());
    }
}
