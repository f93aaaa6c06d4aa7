//! Whether a client may do what it asks for: Kafka's StandardAuthorizer over the image's ACLs.
//!
//! Off (`authorizer.class.name` empty) it costs one look at an option. On, a decision is a look-up in the image's index, so it is as new as the
//! image, and there is nothing to invalidate.
//!
//! Handlers ask [`RequestContext::authorize`] (a refusal is logged, as Kafka's `kafka.authorizer.logger` does) or [`RequestContext::allows`] where
//! a refusal only hides something.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::GroupId;
use siltstone_metadata::acls::{AclIndex, AclOperation, CLUSTER_NAME, Requester, ResourceType, Verdict};
use siltstone_metadata::configs::STANDARD_AUTHORIZER;

use crate::context::{RequestContext, Services};
use crate::session::Session;
use crate::topic_lookup::OPERATIONS_UNKNOWN;

/// See the module.
#[derive(Debug)]
pub(crate) struct Authorizer {
    /// `super.users`
    super_users: BTreeSet<String>,
    /// `allow.everyone.if.no.acl.found`
    allow_if_no_acl: bool,
}

impl Authorizer {
    /// The authorizer that the broker's settings ask for.
    pub(crate) fn from_configs(configs: &BTreeMap<String, String>) -> Option<Self> {
        configs.get("authorizer.class.name").filter(|class| class.trim() == STANDARD_AUTHORIZER)?;
        let super_users = configs.get("super.users").map_or("", String::as_str).split(';').map(str::trim);
        let allow_if_no_acl = configs.get("allow.everyone.if.no.acl.found").is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
        Some(Self { super_users: super_users.filter(|user| !user.is_empty()).map(str::to_owned).collect(), allow_if_no_acl })
    }

    fn allows(&self, acls: &AclIndex, who: &Session, operation: AclOperation, resource_type: ResourceType, name: &str) -> bool {
        if self.super_users.contains(&who.principal) {
            return true;
        }
        match acls.decide(requester(who), operation, resource_type, name) {
            Verdict::Allowed => true,
            Verdict::Denied => false,
            Verdict::NoAcl => self.allow_if_no_acl,
        }
    }

    /// KIP-679: true if there may be any resource of that type on which the client may do it. A name that nobody uses stands for the resources
    /// that no ACL names, as in Kafka.
    fn allows_any(&self, acls: &AclIndex, who: &Session, operation: AclOperation, resource_type: ResourceType) -> bool {
        self.allows(acls, who, operation, resource_type, "hardcode") || acls.allows_any(requester(who), operation, resource_type)
    }
}

fn requester(who: &Session) -> Requester<'_> {
    Requester { principal: &who.principal, host: &who.host }
}

/// The refusal that goes with a resource.
fn refusal(resource_type: ResourceType) -> ResponseError {
    match resource_type {
        ResourceType::Topic => ResponseError::TopicAuthorizationFailed,
        ResourceType::Group => ResponseError::GroupAuthorizationFailed,
        ResourceType::TransactionalId => ResponseError::TransactionalIdAuthorizationFailed,
        ResourceType::DelegationToken => ResponseError::DelegationTokenAuthorizationFailed,
        ResourceType::Cluster | ResourceType::User => ResponseError::ClusterAuthorizationFailed,
    }
}

impl Services {
    /// True if the client may do this.
    pub(crate) fn allows(&self, who: &Session, operation: AclOperation, resource_type: ResourceType, name: &str) -> bool {
        let Some(authorizer) = &self.authorizer else { return true };
        authorizer.allows(&self.metadata.image().acls, who, operation, resource_type, name)
    }

    /// As [`Services::allows`], with the error to answer; a refusal is logged.
    pub(crate) fn authorize(
        &self,
        who: &Session,
        operation: AclOperation,
        resource_type: ResourceType,
        name: &str,
    ) -> Result<(), ResponseError> {
        if self.allows(who, operation, resource_type, name) {
            return Ok(());
        }
        tracing::info!(principal = who.principal, host = who.host, ?operation, ?resource_type, name = ?name, "denied by the authorizer");
        Err(refusal(resource_type))
    }
}

impl RequestContext {
    /// True if ACLs are in force.
    pub(crate) fn has_authorizer(&self) -> bool {
        self.services.authorizer.is_some()
    }

    /// True if the client may do this; nothing is logged.
    pub(crate) fn allows(&self, operation: AclOperation, resource_type: ResourceType, name: &str) -> bool {
        self.services.allows(&self.session, operation, resource_type, name)
    }

    /// True if the client may do this to the cluster; nothing is logged.
    pub(crate) fn allows_cluster(&self, operation: AclOperation) -> bool {
        self.allows(operation, ResourceType::Cluster, CLUSTER_NAME)
    }

    /// Refuses what the client may not do: the error to answer.
    pub(crate) fn authorize(&self, operation: AclOperation, resource_type: ResourceType, name: &str) -> Result<(), ResponseError> {
        self.services.authorize(&self.session, operation, resource_type, name)
    }

    /// Refuses what the client may not do to the cluster.
    pub(crate) fn authorize_cluster(&self, operation: AclOperation) -> Result<(), ResponseError> {
        self.authorize(operation, ResourceType::Cluster, CLUSTER_NAME)
    }

    /// True if there may be a resource of that type on which the client may do this (KIP-679).
    pub(crate) fn allows_any(&self, operation: AclOperation, resource_type: ResourceType) -> bool {
        let Some(authorizer) = &self.services.authorizer else { return true };
        authorizer.allows_any(&self.services.metadata.image().acls, &self.session, operation, resource_type)
    }

    /// What the client may do with the cluster, as a bit field: nothing for those who may not even describe it (KIP-430).
    pub(crate) fn authorized_cluster_operations(&self) -> i32 {
        match self.authorize_cluster(AclOperation::Describe) {
            Ok(()) => self.authorized_operations(ResourceType::Cluster, CLUSTER_NAME),
            Err(_) => 0,
        }
    }

    /// What the client may do with a resource, as a bit field of operations' codes (KIP-430).
    pub(crate) fn authorized_operations(&self, resource_type: ResourceType, name: &str) -> i32 {
        let operations = AclOperation::of(resource_type).iter().copied();
        operations.filter(|operation| self.allows(*operation, resource_type, name)).fold(0, |bits, operation| bits | 1 << operation.code())
    }

    /// The same of a group, if the answer is to tell it.
    pub(crate) fn group_operations(&self, tells: bool, group_id: &GroupId) -> i32 {
        if tells { self.authorized_operations(ResourceType::Group, group_id.0.as_str()) } else { OPERATIONS_UNKNOWN }
    }
}

#[cfg(test)]
mod tests {
    use siltstone_metadata::acls::{AclBinding, AclPermissionType, PatternType};

    use super::*;

    fn authorizer(configs: &[(&str, &str)]) -> Option<Authorizer> {
        Authorizer::from_configs(&configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn allows(authorizer: &Authorizer, acls: &AclIndex, operation: AclOperation, name: &str) -> bool {
        let who = Session::anonymous("127.0.0.1:9".parse().expect("an address"));
        authorizer.allows(acls, &who, operation, ResourceType::Topic, name)
    }

    fn one(operation: AclOperation, principal: &str) -> AclIndex {
        let mut acls = AclIndex::default();
        acls.insert(&AclBinding {
            resource_type: ResourceType::Topic,
            resource_name: "t".into(),
            pattern_type: PatternType::Literal,
            principal: principal.into(),
            host: "127.0.0.1".into(),
            operation,
            permission_type: AclPermissionType::Allow,
        });
        acls
    }

    #[test]
    fn it_is_off_unless_named() {
        assert!(authorizer(&[]).is_none());
        assert!(authorizer(&[("authorizer.class.name", ""), ("super.users", "User:a")]).is_none());
        assert!(authorizer(&[("authorizer.class.name", STANDARD_AUTHORIZER)]).is_some());
    }

    #[test]
    fn without_acls_all_or_nothing_is_allowed() {
        let class = ("authorizer.class.name", STANDARD_AUTHORIZER);
        let strict = authorizer(&[class]).expect("on");
        let lenient = authorizer(&[class, ("allow.everyone.if.no.acl.found", "true")]).expect("on");
        let acls = one(AclOperation::Read, "User:bob");
        assert!(!allows(&strict, &acls, AclOperation::Read, "other") && allows(&lenient, &acls, AclOperation::Read, "other"));
        assert!(!allows(&lenient, &acls, AclOperation::Read, "t"), "an ACL names it, and not for this client");
        assert!(allows(&strict, &one(AclOperation::Read, "User:ANONYMOUS"), AclOperation::Describe, "t"));
    }

    #[test]
    fn super_users_may_do_all() {
        let users = ("super.users", "User:admin; User:ANONYMOUS;");
        let authorizer = authorizer(&[("authorizer.class.name", STANDARD_AUTHORIZER), users]).expect("on");
        assert!(allows(&authorizer, &one(AclOperation::Read, "User:bob"), AclOperation::Delete, "t"));
    }
}
