//! The metrics registry: one text for Prometheus, read from the counters that the components keep.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// What `/metrics` shows. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Default for Metrics {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Registry::with_prefix("siltstone"))))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Adds a component's counters; they are read each time the text is asked for.
    pub fn collect_from(&self, collector: impl Collector + 'static) {
        self.0.lock().register_collector(Box::new(collector));
    }

    /// The text.
    ///
    /// # Errors
    /// If a collector fails to write.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0.lock())?;
        Ok(text)
    }
}
