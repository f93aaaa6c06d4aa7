//! DeleteAcls (KIP-140): deletes the ACLs that filters mean.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl};
use kafka_protocol::messages::{DeleteAclsRequest, DeleteAclsResponse};
use kafka_protocol::protocol::Decodable;
use siltstone_metadata::MetadataError;
use siltstone_metadata::acls::{AclBinding, AclBindingFilter, AclOperation};

use crate::context::RequestContext;
use crate::error_codes::{with_error, words};
use crate::handlers::describe_acls::{NO_AUTHORIZER, ZERO_CODE, filter};
use crate::topic_lookup::text;

/// As [`crate::handlers::describe_acls::decode`].
pub(crate) fn decode(mut body: Bytes, version: i16) -> Result<DeleteAclsRequest, String> {
    let request = DeleteAclsRequest::decode(&mut body, version).map_err(|error| error.to_string())?;
    let has_zero = request
        .filters
        .iter()
        .any(|asked| [asked.resource_type_filter, asked.pattern_type_filter, asked.operation, asked.permission_type].contains(&0));
    if has_zero { Err(ZERO_CODE.to_owned()) } else { Ok(request) }
}

pub(crate) async fn handle(ctx: &RequestContext, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let allowed = ctx.authorize_cluster(AclOperation::Alter).map_err(|error| (error, text(words(error))));
    let enabled = if ctx.has_authorizer() { Ok(()) } else { Err((ResponseError::SecurityDisabled, text(NO_AUTHORIZER))) };
    if let Err((error, reason)) = allowed.and(enabled) {
        let refused = DeleteAclsFilterResult::default().with_error_code(error.code()).with_error_message(Some(reason));
        return DeleteAclsResponse::default().with_filter_results(vec![refused; request.filters.len()]);
    }
    let asked: Vec<Result<AclBindingFilter, MetadataError>> = request.filters.iter().map(filter_of).collect();
    let filters: Vec<AclBindingFilter> = asked.iter().filter_map(|asked| asked.as_ref().ok().cloned()).collect();
    let (mut deleted, failure) = match ctx.services.metadata.delete_acls(filters).await {
        Ok(deleted) => (deleted.into_iter(), Ok(())),
        Err(error) => (Vec::new().into_iter(), Err(error)),
    };
    let results = asked.into_iter().map(|asked| {
        let outcome = asked.and_then(|_| failure.clone().map(|()| deleted.next().unwrap_or_default()));
        match outcome {
            Ok(acls) => {
                let matching = acls.into_iter().map(matching).collect();
                DeleteAclsFilterResult::default().with_error_message(None).with_matching_acls(matching)
            }
            Err(error) => with_error!(DeleteAclsFilterResult::default(), Err(error)),
        }
    });
    DeleteAclsResponse::default().with_filter_results(results.collect())
}

fn filter_of(asked: &DeleteAclsFilter) -> Result<AclBindingFilter, MetadataError> {
    filter(
        (asked.resource_type_filter, asked.resource_name_filter.as_ref(), asked.pattern_type_filter),
        (asked.principal_filter.as_ref(), asked.host_filter.as_ref(), asked.operation, asked.permission_type),
    )
}

fn matching(acl: AclBinding) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl::default()
        .with_error_message(None)
        .with_resource_type(acl.resource_type.code())
        .with_resource_name(text(acl.resource_name))
        .with_pattern_type(acl.pattern_type.code())
        .with_principal(text(acl.principal))
        .with_host(text(acl.host))
        .with_operation(acl.operation.code())
        .with_permission_type(acl.permission_type.code())
}
