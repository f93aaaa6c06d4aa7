//! The HTTP side door: health, readiness and metrics.

pub mod metrics;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    metrics: Metrics,
}

impl Admin {
    /// Serves `metrics`; not ready yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { ready: Arc::default(), metrics }
    }

    /// `/readyz` answers 200 from now on, or 503.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// `/healthz` (the process lives), `/readyz` (it takes connections), `/metrics` (OpenMetrics text).
    pub fn router(&self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self.clone())
    }
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if admin.ready.load(Ordering::Acquire) { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    match admin.metrics.render() {
        Ok(text) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
