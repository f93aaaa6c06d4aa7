//! PushTelemetry (KIP-714): takes in a client's metrics.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{PushTelemetryRequest, PushTelemetryResponse};

use super::get_telemetry_subscriptions::facts;
use crate::context::RequestContext;
use crate::telemetry::Push;

pub(crate) async fn handle(ctx: &RequestContext, request: PushTelemetryRequest) -> PushTelemetryResponse {
    let services = &ctx.services;
    let response = PushTelemetryResponse::default();
    if !services.telemetry.enabled() {
        return response.with_error_code(ResponseError::UnsupportedVersion.code());
    }
    let push = Push {
        instance: request.client_instance_id,
        subscription_id: request.subscription_id,
        terminating: request.terminating,
        compression: request.compression_type,
        data: &request.metrics,
    };
    let software = services.telemetry.software(ctx.session.peer);
    let facts = facts(ctx, request.client_instance_id, &software);
    match services.telemetry.push(&services.metadata.image(), &facts, &push, services.now_ms()) {
        Ok(()) => response,
        Err(error) => response.with_error_code(error.code()),
    }
}
