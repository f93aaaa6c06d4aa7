//! Access control lists: who may do what to which resources (KIP-11, KIP-290).

mod index;

use serde::{Deserialize, Serialize};

use crate::api::MetadataError;

pub use index::{AclIndex, Requester, Verdict};

/// Most ACLs of a cluster: all of them are in every broker's memory, and the index is copied when one is added.
pub const ACLS_MAX: usize = 20_000;
/// Longest ACL, bytes of its resource's name, principal and host with their separators: it is a key of the store.
const ACL_BYTES_MAX: usize = 900;
/// The name that stands for every resource, and the host for every host.
pub const WILDCARD: &str = "*";
/// The principal that stands for everybody.
pub const WILDCARD_PRINCIPAL: &str = "User:*";
/// The only name of a resource of type [`ResourceType::Cluster`].
pub const CLUSTER_NAME: &str = "kafka-cluster";

/// An enumeration with Kafka's codes on the wire.
macro_rules! coded {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$meta])*
        #[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$doc])* $variant = $code,)*
        }

        impl $name {
            /// All of them, by code.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The one with a code of the wire.
            pub fn from_code(code: i8) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.code() == code)
            }

            /// Its code on the wire.
            pub fn code(self) -> i8 {
                self as i8
            }
        }
    };
}

coded! {
    /// What is protected.
    ResourceType {
        /// A topic.
        Topic = 2,
        /// A group.
        Group = 3,
        /// The cluster.
        Cluster = 4,
        /// A transactional id.
        TransactionalId = 5,
        /// A delegation token.
        DelegationToken = 6,
        /// A user.
        User = 7,
    }
}

coded! {
    /// Which resources a name means.
    PatternType {
        /// The one of that name, or all for [`WILDCARD`].
        Literal = 3,
        /// All whose names begin so (KIP-290).
        Prefixed = 4,
    }
}

coded! {
    /// What somebody may do.
    AclOperation {
        /// Everything.
        All = 2,
        /// Read.
        Read = 3,
        /// Write.
        Write = 4,
        /// Create.
        Create = 5,
        /// Delete.
        Delete = 6,
        /// Alter.
        Alter = 7,
        /// Describe.
        Describe = 8,
        /// What brokers do to each other.
        ClusterAction = 9,
        /// Describe settings.
        DescribeConfigs = 10,
        /// Alter settings.
        AlterConfigs = 11,
        /// Write with a producer id.
        IdempotentWrite = 12,
        /// Create delegation tokens for a user.
        CreateTokens = 13,
        /// Describe a user's delegation tokens.
        DescribeTokens = 14,
        /// Take part in two-phase commits (KIP-939).
        TwoPhaseCommit = 15,
    }
}

coded! {
    /// Whether an ACL allows or denies.
    AclPermissionType {
        /// Denies, whatever others allow.
        Deny = 2,
        /// Allows.
        Allow = 3,
    }
}

impl AclOperation {
    /// The operations that there are on resources of a type, as tools list them (KIP-430).
    pub fn of(resource_type: ResourceType) -> &'static [AclOperation] {
        use AclOperation::{
            Alter, AlterConfigs, ClusterAction, Create, CreateTokens, Delete, Describe, DescribeConfigs, DescribeTokens, IdempotentWrite,
            Read, TwoPhaseCommit, Write,
        };
        match resource_type {
            ResourceType::Topic => &[Read, Write, Create, Describe, Delete, Alter, DescribeConfigs, AlterConfigs],
            ResourceType::Group => &[Read, Describe, Delete, DescribeConfigs, AlterConfigs],
            ResourceType::Cluster => &[Create, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite, Alter, Describe],
            ResourceType::TransactionalId => &[Describe, Write, TwoPhaseCommit],
            ResourceType::DelegationToken => &[Describe],
            ResourceType::User => &[CreateTokens, DescribeTokens],
        }
    }

    /// True if an ACL that allows `self` allows `wanted` too.
    fn implies(self, wanted: AclOperation) -> bool {
        use AclOperation::{All, Alter, AlterConfigs, Delete, Describe, DescribeConfigs, Read, Write};
        self == wanted
            || self == All
            || match wanted {
                Describe => matches!(self, Read | Write | Delete | Alter),
                DescribeConfigs => self == AlterConfigs,
                _ => false,
            }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AclBinding {
    /// What is protected.
    pub resource_type: ResourceType,
    /// Its name, its name's beginning, or [`WILDCARD`].
    pub resource_name: String,
    /// Which of these.
    pub pattern_type: PatternType,
    /// Whom the rule is for: `User:name`, or [`WILDCARD_PRINCIPAL`].
    pub principal: String,
    /// The address that requests come from, as Java writes it, or [`WILDCARD`].
    pub host: String,
    /// What they would do.
    pub operation: AclOperation,
    /// Whether they may.
    pub permission_type: AclPermissionType,
}

impl AclBinding {
    /// Refuses what can't be a rule.
    pub(crate) fn validate(&self) -> Result<(), MetadataError> {
        let refuse = |reason: String| Err(MetadataError::InvalidRequest(reason));
        if self.resource_type == ResourceType::Cluster && self.resource_name != CLUSTER_NAME {
            return refuse(format!("The only valid name for the CLUSTER resource is {CLUSTER_NAME}"));
        }
        if self.resource_name.is_empty() {
            return refuse("Invalid empty resource name".to_owned());
        }
        if !self.principal.contains(':') {
            return refuse(format!(
                "Could not parse principal from `{}` (no colon is present separating the principal type from the principal name)",
                self.principal
            ));
        }
        let bytes = self.resource_name.len() + self.principal.len() + self.host.len();
        if bytes > ACL_BYTES_MAX {
            let reason =
                format!("an ACL's resource name, principal and host have at most {ACL_BYTES_MAX} bytes together, these have {bytes}");
            return Err(MetadataError::PolicyViolation(reason));
        }
        Ok(())
    }
}

/// How a filter matches names.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatternFilter {
    /// Rules of that name, of either pattern type.
    Any,
    /// Rules that hold for a resource of that name.
    Match,
    /// Rules of that name and this pattern type.
    Exactly(PatternType),
}

/// Which rules are meant. `None` matches anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclBindingFilter {
    /// Type of the resource.
    pub resource_type: Option<ResourceType>,
    /// Name of the resource.
    pub resource_name: Option<String>,
    /// How the name matches.
    pub pattern: PatternFilter,
    /// Principal.
    pub principal: Option<String>,
    /// Host.
    pub host: Option<String>,
    /// Operation.
    pub operation: Option<AclOperation>,
    /// Allow or deny.
    pub permission_type: Option<AclPermissionType>,
}

impl AclBindingFilter {
    /// True if `acl` is meant.
    pub fn matches(&self, acl: &AclBinding) -> bool {
        fn fits<T: PartialEq>(wanted: Option<&T>, is: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == is)
        }
        fits(self.resource_type.as_ref(), &acl.resource_type)
            && self.matches_name(acl)
            && fits(self.principal.as_ref(), &acl.principal)
            && fits(self.host.as_ref(), &acl.host)
            && fits(self.operation.as_ref(), &acl.operation)
            && fits(self.permission_type.as_ref(), &acl.permission_type)
    }

    fn matches_name(&self, acl: &AclBinding) -> bool {
        let same = |wanted: &str| wanted == acl.resource_name;
        match (self.pattern, self.resource_name.as_deref()) {
            (PatternFilter::Any | PatternFilter::Match, None) => true,
            (PatternFilter::Any, Some(wanted)) => same(wanted),
            (PatternFilter::Exactly(pattern), wanted) => pattern == acl.pattern_type && wanted.is_none_or(same),
            (PatternFilter::Match, Some(wanted)) => match acl.pattern_type {
                PatternType::Literal => same(wanted) || acl.resource_name == WILDCARD,
                PatternType::Prefixed => wanted.starts_with(&acl.resource_name),
            },
        }
    }
}

#[cfg(test)]
mod tests;
