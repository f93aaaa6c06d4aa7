//! All ACLs, found by what they protect.
//!
//! A decision looks at the rules of the resource's own name, of every prefix of it, and of `*`, and there only at those for the principal and for
//! everybody: it costs the same with ten ACLs and with ten thousand. Rules of one name are shared between copies of the index.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::{AclBinding, AclBindingFilter, AclOperation, AclPermissionType, PatternType, ResourceType, WILDCARD, WILDCARD_PRINCIPAL};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AclIndex {
    len: usize,
    by_type: BTreeMap<ResourceType, Patterns>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Patterns {
    literal: HashMap<Arc<str>, Arc<Rules>>,
    prefixed: BTreeMap<Arc<str>, Arc<Rules>>,
}

/// The rules of one resource pattern, by principal; none is empty.
type Rules = BTreeMap<String, BTreeSet<Rule>>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    host: String,
    operation: AclOperation,
    permission_type: AclPermissionType,
}

impl Rule {
    fn of(acl: &AclBinding) -> Self {
        Self { host: acl.host.clone(), operation: acl.operation, permission_type: acl.permission_type }
    }

    fn is_for(&self, host: &str) -> bool {
        self.host == WILDCARD || self.host == host
    }

    fn denies(&self, operation: AclOperation) -> bool {
        self.permission_type == AclPermissionType::Deny && (self.operation == operation || self.operation == AclOperation::All)
    }

    fn allows(&self, operation: AclOperation) -> bool {
        self.permission_type == AclPermissionType::Allow && self.operation.implies(operation)
    }
}

/// Who asks, and from where.
#[derive(Copy, Clone, Debug)]
pub struct Requester<'a> {
    /// `User:name`
    pub principal: &'a str,
    /// Address, as Java writes it.
    pub host: &'a str,
}

/// What the ACLs say.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They allow it.
    Allowed,
    /// One denies it, or there are some for the resource and none allows it.
    Denied,
    /// There is none for the resource.
    NoAcl,
}

impl AclIndex {
    /// Number of ACLs.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True if there is this one.
    pub fn contains(&self, acl: &AclBinding) -> bool {
        let patterns = self.by_type.get(&acl.resource_type);
        let rules = patterns.and_then(|patterns| match acl.pattern_type {
            PatternType::Literal => patterns.literal.get(acl.resource_name.as_str()),
            PatternType::Prefixed => patterns.prefixed.get(acl.resource_name.as_str()),
        });
        rules.and_then(|rules| rules.get(&acl.principal)).is_some_and(|rules| rules.contains(&Rule::of(acl)))
    }

    /// Adds one, if it is not there.
    pub fn insert(&mut self, acl: &AclBinding) {
        let patterns = self.by_type.entry(acl.resource_type).or_default();
        let name: Arc<str> = acl.resource_name.as_str().into();
        let rules = match acl.pattern_type {
            PatternType::Literal => patterns.literal.entry(name).or_default(),
            PatternType::Prefixed => patterns.prefixed.entry(name).or_default(),
        };
        let rules = Arc::make_mut(rules).entry(acl.principal.clone()).or_default();
        self.len += usize::from(rules.insert(Rule::of(acl)));
    }

    /// Takes one away, if it is there.
    pub fn remove(&mut self, acl: &AclBinding) {
        let Some(patterns) = self.by_type.get_mut(&acl.resource_type) else { return };
        let name = acl.resource_name.as_str();
        let found = match acl.pattern_type {
            PatternType::Literal => patterns.literal.get_mut(name),
            PatternType::Prefixed => patterns.prefixed.get_mut(name),
        };
        let Some(pattern) = found else { return };
        let pattern = Arc::make_mut(pattern);
        let Some(rules) = pattern.get_mut(&acl.principal) else { return };
        self.len -= usize::from(rules.remove(&Rule::of(acl)));
        if rules.is_empty() {
            pattern.remove(&acl.principal);
        }
        if pattern.is_empty() {
            match acl.pattern_type {
                PatternType::Literal => drop(patterns.literal.remove(name)),
                PatternType::Prefixed => drop(patterns.prefixed.remove(name)),
            }
        }
        if patterns.literal.is_empty() && patterns.prefixed.is_empty() {
            self.by_type.remove(&acl.resource_type);
        }
    }

    /// What the ACLs say to `operation` on the resource: a denial goes before all that allows.
    pub fn decide(&self, who: Requester<'_>, operation: AclOperation, resource_type: ResourceType, name: &str) -> Verdict {
        let Some(patterns) = self.by_type.get(&resource_type) else { return Verdict::NoAcl };
        let mut verdict = Verdict::NoAcl;
        for rules in patterns.matching(name) {
            if verdict == Verdict::NoAcl {
                verdict = Verdict::Denied;
            }
            let principals = [who.principal, WILDCARD_PRINCIPAL];
            for rule in principals.iter().filter_map(|principal| rules.get(*principal)).flatten().filter(|rule| rule.is_for(who.host)) {
                if rule.denies(operation) {
                    return Verdict::Denied;
                }
                if rule.allows(operation) {
                    verdict = Verdict::Allowed;
                }
            }
        }
        verdict
    }

    /// True if there is any resource of that type, existing or not, on which the ACLs allow `operation` (KIP-679). What other operations imply
    /// does not count, as in Kafka.
    pub fn allows_any(&self, who: Requester<'_>, operation: AclOperation, resource_type: ResourceType) -> bool {
        let Some(patterns) = self.by_type.get(&resource_type) else { return false };
        let has = |rules: &Rules, permission_type: AclPermissionType| {
            let principals = [who.principal, WILDCARD_PRINCIPAL];
            let mut rules = principals.iter().filter_map(|principal| rules.get(*principal)).flatten();
            rules.any(|rule| {
                rule.permission_type == permission_type
                    && rule.is_for(who.host)
                    && (rule.operation == operation || rule.operation == AclOperation::All)
            })
        };
        let denied = |rules: &Rules| has(rules, AclPermissionType::Deny);
        let allowed = |rules: &Rules| has(rules, AclPermissionType::Allow);
        match patterns.literal.get(WILDCARD) {
            Some(everything) if denied(everything) => return false,
            Some(everything) if allowed(everything) => return true,
            _ => {}
        }
        let prefix_denied = |name: &str| patterns.prefixes_of(name).any(&denied);
        patterns.literal.iter().any(|(name, rules)| allowed(rules) && !denied(rules) && !prefix_denied(name))
            || patterns.prefixed.iter().any(|(name, rules)| allowed(rules) && !prefix_denied(name))
    }

    /// The ACLs that a filter means, those of a resource pattern one after the other.
    pub fn matching<'a>(&'a self, filter: &'a AclBindingFilter) -> impl Iterator<Item = AclBinding> + 'a {
        self.iter().filter(|acl| filter.matches(acl))
    }

    /// All of them, those of a resource pattern one after the other.
    pub fn iter(&self) -> impl Iterator<Item = AclBinding> + '_ {
        self.by_type.iter().flat_map(|(resource_type, patterns)| {
            let literal = patterns.literal.iter().map(|(name, rules)| (PatternType::Literal, name, rules));
            let prefixed = patterns.prefixed.iter().map(|(name, rules)| (PatternType::Prefixed, name, rules));
            literal.chain(prefixed).flat_map(move |(pattern_type, name, rules)| {
                let rules = rules.iter().flat_map(|(principal, rules)| rules.iter().map(move |rule| (principal, rule)));
                rules.map(move |(principal, rule)| AclBinding {
                    resource_type: *resource_type,
                    resource_name: name.to_string(),
                    pattern_type,
                    principal: principal.clone(),
                    host: rule.host.clone(),
                    operation: rule.operation,
                    permission_type: rule.permission_type,
                })
            })
        })
    }
}

impl Patterns {
    /// The rules for the resource of that name.
    fn matching<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Rules> {
        let everything = (name != WILDCARD).then(|| self.literal.get(WILDCARD)).flatten();
        let literal = self.literal.get(name).into_iter().chain(everything).map(|rules| &**rules);
        literal.chain(self.prefixes_of(name))
    }

    /// The rules for names that begin as `name` does: of all its prefixes, the longest first, with one look-up for each and one for each
    /// place where names part.
    fn prefixes_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Rules> {
        let mut rest = name;
        let mut first = true;
        std::iter::from_fn(move || {
            loop {
                let end = if std::mem::take(&mut first) { Bound::Included(rest) } else { Bound::Excluded(rest) };
                let (prefix, rules) = self.prefixed.range::<str, _>((Bound::Unbounded, end)).next_back()?;
                if name.starts_with(&**prefix) {
                    rest = &name[..prefix.len()];
                    return Some(&**rules);
                }
                // All prefixes of the name that sort before this one are no longer than what they have in common.
                let common = name.char_indices().zip(prefix.chars()).find(|((_, a), b)| a != b).map_or(name.len(), |((at, _), _)| at);
                rest = &name[..common];
                first = true;
            }
        })
    }
}
