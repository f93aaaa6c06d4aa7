//! The HTTP side door: health, readiness and metrics.

pub mod metrics;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

pub use metrics::Metrics;

/// What the side door knows of the process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Admin {
    ready: Arc<AtomicBool>,
    /// Something ended without which nothing can be served.
    failed: Arc<AtomicBool>,
    /// Asked each time; set at most once.
    condition: Arc<OnceLock<Condition>>,
    metrics: Metrics,
}

type Condition = Box<dyn Fn() -> bool + Send + Sync>;

impl Admin {
    /// Serves `metrics`; not ready yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// `/readyz` answers 200 from now on, or 503.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Not ready for good: the process must be started anew.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Ready only as long as `condition` holds. The first one counts.
    pub fn serves_while(&self, condition: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.condition.set(Box::new(condition));
    }

    /// What `/readyz` says.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
            && !self.failed.load(Ordering::Acquire)
            && self.condition.get().is_none_or(|condition| condition())
    }

    /// `/healthz` (the process lives), `/readyz` (it can serve its clients), `/metrics` (OpenMetrics text).
    pub fn router(&self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self.clone())
    }
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if admin.is_ready() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    match admin.metrics.render() {
        Ok(text) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_what_the_process_and_its_disk_are() {
        let admin = Admin::new(Metrics::default());
        assert!(!admin.is_ready(), "it has to be said");
        admin.set_ready(true);
        assert!(admin.is_ready());
        let sound = Arc::new(AtomicBool::new(true));
        let disk = Arc::clone(&sound);
        admin.serves_while(move || disk.load(Ordering::Acquire));
        assert!(admin.is_ready());
        sound.store(false, Ordering::Release);
        assert!(!admin.is_ready(), "the condition does not hold");
        sound.store(true, Ordering::Release);
        admin.fail();
        assert!(!admin.is_ready());
    }
}
