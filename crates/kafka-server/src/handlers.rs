//! One file per Kafka API. Each has `pub(crate) async fn handle(ctx: &RequestContext, request: XRequest) -> XResponse`, called from the API table
//! with a request that the guard has admitted and the codec has decoded; the answer is encoded in the request's version.

pub(crate) mod describe_cluster;
