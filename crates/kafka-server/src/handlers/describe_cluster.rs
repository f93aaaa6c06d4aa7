//! DescribeCluster (KIP-700).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use crate::context::RequestContext;
use crate::topic_lookup::OPERATIONS_UNKNOWN;

/// `endpoint_type` of brokers.
const ENDPOINT_BROKERS: i8 = 1;
/// `endpoint_type` of controllers, which clients do not reach here.
const ENDPOINT_CONTROLLERS: i8 = 2;

/// The brokers that are up, and who is controller.
pub(crate) async fn handle(ctx: &RequestContext, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let image = ctx.services.metadata.image();
    if ctx.api_version >= 1 && request.endpoint_type != ENDPOINT_BROKERS {
        let (error, message) = match request.endpoint_type {
            ENDPOINT_CONTROLLERS => (ResponseError::MismatchedEndpointType, "The request was sent to an endpoint of the wrong type."),
            _ => (ResponseError::UnsupportedEndpointType, "This endpoint type is not known."),
        };
        return DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str(message)));
    }
    let brokers = image.brokers.values().filter(|broker| !broker.fenced || request.include_fenced_brokers).map(|broker| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(broker.id))
            .with_host(StrBytes::from_string(broker.host.clone()))
            .with_port(i32::from(broker.port))
            .with_rack(broker.rack.clone().map(StrBytes::from_string))
            .with_is_fenced(ctx.api_version >= 2 && broker.fenced)
    });
    let operations = if request.include_cluster_authorized_operations { ctx.authorized_cluster_operations() } else { OPERATIONS_UNKNOWN };
    DescribeClusterResponse::default()
        .with_endpoint_type(ENDPOINT_BROKERS)
        .with_cluster_id(StrBytes::from_string(image.cluster_id.clone()))
        .with_controller_id(BrokerId(image.controller_id))
        .with_brokers(brokers.collect())
        .with_cluster_authorized_operations(operations)
}
