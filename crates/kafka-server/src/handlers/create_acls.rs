//! CreateAcls (KIP-140).

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::{CreateAclsRequest, CreateAclsResponse};
use kafka_protocol::protocol::Decodable;
use siltstone_metadata::MetadataError;
use siltstone_metadata::acls::{AclBinding, AclOperation, AclPermissionType, PatternType, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::{with_error, words};
use crate::handlers::describe_acls::{NO_AUTHORIZER, ZERO_CODE};
use crate::topic_lookup::text;

/// As [`crate::handlers::describe_acls::decode`].
pub(crate) fn decode(mut body: Bytes, version: i16) -> Result<CreateAclsRequest, String> {
    let request = CreateAclsRequest::decode(&mut body, version).map_err(|error| error.to_string())?;
    let has_zero = request
        .creations
        .iter()
        .any(|asked| [asked.resource_type, asked.resource_pattern_type, asked.operation, asked.permission_type].contains(&0));
    if has_zero { Err(ZERO_CODE.to_owned()) } else { Ok(request) }
}

pub(crate) async fn handle(ctx: &RequestContext, request: CreateAclsRequest) -> CreateAclsResponse {
    let allowed = ctx.authorize_cluster(AclOperation::Alter).map_err(|error| (error, text(words(error))));
    let enabled = if ctx.has_authorizer() { Ok(()) } else { Err((ResponseError::SecurityDisabled, text(NO_AUTHORIZER))) };
    if let Err((error, reason)) = allowed.and(enabled) {
        let refused = AclCreationResult::default().with_error_code(error.code()).with_error_message(Some(reason));
        return CreateAclsResponse::default().with_results(vec![refused; request.creations.len()]);
    }
    let asked: Vec<Result<AclBinding, MetadataError>> = request.creations.iter().map(binding).collect();
    let bindings: Vec<AclBinding> = asked.iter().filter_map(|asked| asked.as_ref().ok().cloned()).collect();
    let mut made = match ctx.services.metadata.create_acls(bindings).await {
        Ok(made) => made,
        Err(error) => vec![Err(error); asked.len()],
    }
    .into_iter();
    let unanswered = || Err(MetadataError::Unavailable("the metadata service did not answer for this ACL".to_owned()));
    let results = asked.into_iter().map(|asked| {
        let outcome = asked.and_then(|_| made.next().unwrap_or_else(unanswered));
        with_error!(AclCreationResult::default(), outcome)
    });
    CreateAclsResponse::default().with_results(results.collect())
}

fn binding(asked: &AclCreation) -> Result<AclBinding, MetadataError> {
    let invalid = |what: &str, code: i8| MetadataError::InvalidRequest(format!("Invalid {what} {code}"));
    Ok(AclBinding {
        resource_type: ResourceType::from_code(asked.resource_type).ok_or_else(|| invalid("resourceType", asked.resource_type))?,
        resource_name: asked.resource_name.to_string(),
        pattern_type: PatternType::from_code(asked.resource_pattern_type)
            .ok_or_else(|| invalid("patternType", asked.resource_pattern_type))?,
        principal: asked.principal.to_string(),
        host: asked.host.to_string(),
        operation: AclOperation::from_code(asked.operation).ok_or_else(|| invalid("operation", asked.operation))?,
        permission_type: AclPermissionType::from_code(asked.permission_type)
            .ok_or_else(|| invalid("permissionType", asked.permission_type))?,
    })
}
