//! GetTelemetrySubscriptions (KIP-714): which metrics a client is asked for.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse};
use uuid::Uuid;

use crate::context::RequestContext;
use crate::telemetry::ClientFacts;
use crate::topic_lookup::text;

/// Codecs that a push may be compressed with, the best first: zstd, lz4, gzip, snappy.
const COMPRESSION_TYPES: [i8; 4] = [4, 3, 1, 2];

pub(crate) async fn handle(ctx: &RequestContext, request: GetTelemetrySubscriptionsRequest) -> GetTelemetrySubscriptionsResponse {
    let services = &ctx.services;
    let response = GetTelemetrySubscriptionsResponse::default();
    if !services.telemetry.enabled() {
        return response.with_error_code(ResponseError::UnsupportedVersion.code());
    }
    let instance = if request.client_instance_id.is_nil() { services.env.entropy.uuid() } else { request.client_instance_id };
    let software = services.telemetry.software(ctx.session.peer);
    match services.telemetry.subscribe(&services.metadata.image(), &facts(ctx, instance, &software), services.now_ms()) {
        Ok(told) => response
            .with_client_instance_id(told.instance)
            .with_subscription_id(told.subscription_id)
            .with_accepted_compression_types(COMPRESSION_TYPES.to_vec())
            .with_push_interval_ms(told.interval_ms)
            .with_telemetry_max_bytes(i32::try_from(services.telemetry.bytes_max()).unwrap_or(i32::MAX))
            .with_delta_temporality(true)
            .with_requested_metrics(told.metrics.into_iter().map(text).collect()),
        Err(error) => response.with_error_code(error.code()),
    }
}

pub(super) fn facts<'a>(ctx: &'a RequestContext, instance: Uuid, software: &'a (String, String)) -> ClientFacts<'a> {
    let software = (software.0.as_str(), software.1.as_str());
    ClientFacts { instance, client_id: ctx.client_id.as_deref().unwrap_or(""), software, peer: ctx.session.peer }
}
