//! DescribeAcls (KIP-140): the ACLs that a filter means.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
use kafka_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};
use kafka_protocol::protocol::{Decodable, StrBytes};
use siltstone_metadata::MetadataError;
use siltstone_metadata::acls::{AclBindingFilter, AclOperation, AclPermissionType, PatternFilter, PatternType, ResourceType};

use crate::context::RequestContext;
use crate::error_codes::words;
use crate::topic_lookup::text;

/// Words of the answer where no authorizer is set.
pub(super) const NO_AUTHORIZER: &str = "No Authorizer is configured.";

pub(crate) async fn handle(ctx: &RequestContext, request: DescribeAclsRequest) -> DescribeAclsResponse {
    let refused = |error: ResponseError, reason: StrBytes| {
        DescribeAclsResponse::default().with_error_code(error.code()).with_error_message(Some(reason))
    };
    if let Err(error) = ctx.authorize_cluster(AclOperation::Describe) {
        return refused(error, text(words(error)));
    }
    if !ctx.has_authorizer() {
        return refused(ResponseError::SecurityDisabled, text("No Authorizer is configured on the broker"));
    }
    let pattern = (request.resource_type_filter, request.resource_name_filter.as_ref(), request.pattern_type_filter);
    let entry = (request.principal_filter.as_ref(), request.host_filter.as_ref(), request.operation, request.permission_type);
    // What the filter names may be known to later releases: no ACL here has to do with it.
    let Ok(filter) = filter(pattern, entry) else { return DescribeAclsResponse::default() };
    let image = ctx.services.metadata.image();
    let mut resources: BTreeMap<_, Vec<AclDescription>> = BTreeMap::new();
    for acl in image.acls.matching(&filter) {
        let description = AclDescription::default()
            .with_principal(text(acl.principal))
            .with_host(text(acl.host))
            .with_operation(acl.operation.code())
            .with_permission_type(acl.permission_type.code());
        resources.entry((acl.resource_type, acl.resource_name, acl.pattern_type)).or_default().push(description);
    }
    let resources = resources.into_iter().map(|((resource_type, name, pattern_type), acls)| {
        DescribeAclsResource::default()
            .with_resource_type(resource_type.code())
            .with_resource_name(text(name))
            .with_pattern_type(pattern_type.code())
            .with_acls(acls)
    });
    DescribeAclsResponse::default().with_resources(resources.collect())
}

/// Kafka takes a request with a code of zero, which is no code, for a broken one: the connection ends.
pub(crate) fn decode(mut body: Bytes, version: i16) -> Result<DescribeAclsRequest, String> {
    let request = DescribeAclsRequest::decode(&mut body, version).map_err(|error| error.to_string())?;
    let codes = [request.resource_type_filter, request.pattern_type_filter, request.operation, request.permission_type];
    if codes.contains(&0) { Err(ZERO_CODE.to_owned()) } else { Ok(request) }
}

/// Why a request with a code of zero is refused.
pub(super) const ZERO_CODE: &str = "a type, an operation or a permission has the code 0, which stands for unknown";

/// Codes that mean "any" and "all that match", beside those of the things themselves.
const ANY: i8 = 1;
const MATCH: i8 = 2;

type Name<'a> = Option<&'a StrBytes>;

/// A filter from its fields on the wire: (resource type, name, pattern type) and (principal, host, operation, permission type).
pub(super) fn filter(pattern: (i8, Name<'_>, i8), entry: (Name<'_>, Name<'_>, i8, i8)) -> Result<AclBindingFilter, MetadataError> {
    let unknown = |what: &str| MetadataError::InvalidRequest(format!("Unknown {what}."));
    let (resource_type, resource_name, pattern_type) = pattern;
    let (principal, host, operation, permission_type) = entry;
    Ok(AclBindingFilter {
        resource_type: any_or(resource_type, ResourceType::from_code).ok_or_else(|| unknown("patternFilter"))?,
        resource_name: resource_name.map(ToString::to_string),
        pattern: match pattern_type {
            ANY => PatternFilter::Any,
            MATCH => PatternFilter::Match,
            other => PatternFilter::Exactly(PatternType::from_code(other).ok_or_else(|| unknown("patternFilter"))?),
        },
        principal: principal.map(ToString::to_string),
        host: host.map(ToString::to_string),
        operation: any_or(operation, AclOperation::from_code).ok_or_else(|| unknown("entryFilter"))?,
        permission_type: any_or(permission_type, AclPermissionType::from_code).ok_or_else(|| unknown("entryFilter"))?,
    })
}

fn any_or<T>(code: i8, from_code: impl Fn(i8) -> Option<T>) -> Option<Option<T>> {
    if code == ANY { Some(None) } else { from_code(code).map(Some) }
}
