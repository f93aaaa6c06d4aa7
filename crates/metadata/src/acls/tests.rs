use proptest::prelude::*;

use super::*;

fn acl(resource_name: &str, pattern_type: PatternType, principal: &str, operation: AclOperation, allow: bool) -> AclBinding {
    AclBinding {
        resource_type: ResourceType::Topic,
        resource_name: resource_name.into(),
        pattern_type,
        principal: principal.into(),
        host: "*".into(),
        operation,
        permission_type: if allow { AclPermissionType::Allow } else { AclPermissionType::Deny },
    }
}

fn index(acls: &[AclBinding]) -> AclIndex {
    let mut index = AclIndex::default();
    acls.iter().for_each(|acl| index.insert(acl));
    index
}

const ALICE: Requester<'static> = Requester { principal: "User:alice", host: "10.0.0.1" };

fn decide(index: &AclIndex, operation: AclOperation, name: &str) -> Verdict {
    index.decide(ALICE, operation, ResourceType::Topic, name)
}

use AclOperation::{All, Alter, AlterConfigs, Delete, Describe, DescribeConfigs, Read, Write};
use PatternType::{Literal, Prefixed};

#[test]
fn names_match_literally_by_prefix_and_by_wildcard() {
    let rules = index(&[
        acl("orders", Literal, "User:alice", Read, true),
        acl("log-", Prefixed, "User:alice", Read, true),
        acl("log-secret", Prefixed, "User:alice", Read, false),
        acl("*", Literal, WILDCARD_PRINCIPAL, Write, true),
    ]);
    assert_eq!(decide(&rules, Read, "orders"), Verdict::Allowed);
    assert_eq!(decide(&rules, Read, "orders2"), Verdict::Denied, "the wildcard's rule is there and does not allow it");
    assert_eq!(decide(&rules, Write, "orders2"), Verdict::Allowed);
    assert_eq!(decide(&rules, Read, "log-a"), Verdict::Allowed);
    assert_eq!(decide(&rules, Read, "log-secret-1"), Verdict::Denied);
    assert_eq!(decide(&rules, Read, "log"), Verdict::Denied);
    assert_eq!(rules.decide(ALICE, Read, ResourceType::Group, "orders"), Verdict::NoAcl);
    assert_eq!(decide(&index(&[acl("*", Prefixed, "User:alice", Read, true)]), Read, "orders"), Verdict::NoAcl);
}

#[test]
fn a_denial_goes_first_and_operations_imply_others_only_where_they_allow() {
    for strong in [Read, Write, Delete, Alter] {
        assert_eq!(decide(&index(&[acl("t", Literal, "User:alice", strong, true)]), Describe, "t"), Verdict::Allowed);
        let both = [acl("t", Literal, "User:alice", Describe, true), acl("t", Literal, "User:alice", strong, false)];
        assert_eq!(decide(&index(&both), Describe, "t"), Verdict::Allowed, "to deny {strong:?} is not to deny Describe");
    }
    let configs = index(&[acl("t", Literal, "User:alice", AlterConfigs, true)]);
    assert_eq!(decide(&configs, DescribeConfigs, "t"), Verdict::Allowed);
    assert_eq!(decide(&configs, Describe, "t"), Verdict::Denied);
    let all = index(&[acl("t", Literal, "User:alice", All, true), acl("*", Literal, WILDCARD_PRINCIPAL, Write, false)]);
    assert_eq!((decide(&all, Read, "t"), decide(&all, Write, "t")), (Verdict::Allowed, Verdict::Denied));
}

#[test]
fn hosts_and_principals_count() {
    let from = |host: &str| index(&[AclBinding { host: host.into(), ..acl("t", Literal, "User:alice", Read, true) }]);
    assert_eq!(decide(&from("10.0.0.1"), Read, "t"), Verdict::Allowed);
    assert_eq!(decide(&from("10.0.0.2"), Read, "t"), Verdict::Denied);
    assert_eq!(decide(&index(&[acl("t", Literal, "User:bob", Read, true)]), Read, "t"), Verdict::Denied);
}

#[test]
fn some_topic_is_writable_unless_every_one_is_denied() {
    let any = |acls: &[AclBinding]| index(acls).allows_any(ALICE, Write, ResourceType::Topic);
    assert!(!any(&[]));
    assert!(any(&[acl("t", Literal, "User:alice", Write, true)]));
    assert!(any(&[acl("t", Literal, "User:alice", All, true)]));
    assert!(!any(&[acl("t", Literal, "User:alice", Read, true)]));
    assert!(!any(&[acl("t", Literal, "User:alice", Write, true), acl("t", Literal, WILDCARD_PRINCIPAL, Write, false)]));
    assert!(!any(&[acl("team-a", Prefixed, "User:alice", Write, true), acl("team", Prefixed, "User:alice", All, false)]));
    assert!(any(&[acl("team", Prefixed, "User:alice", Write, true), acl("team-a", Prefixed, "User:alice", All, false)]));
    assert!(!any(&[acl("*", Literal, "User:alice", Write, true), acl("*", Literal, "User:alice", Write, false)]));
}

#[test]
fn filters_match_as_kafkas() {
    let acls =
        [acl("ab", Literal, "User:a", Read, true), acl("a", Prefixed, "User:a", Read, true), acl("*", Literal, "User:b", Write, false)];
    let any = AclBindingFilter {
        resource_type: None,
        resource_name: None,
        pattern: PatternFilter::Any,
        principal: None,
        host: None,
        operation: None,
        permission_type: None,
    };
    let count = |filter: AclBindingFilter| acls.iter().filter(|acl| filter.matches(acl)).count();
    let named = |name: &str, pattern| AclBindingFilter { resource_name: Some(name.into()), pattern, ..any.clone() };
    assert_eq!(count(any.clone()), 3);
    assert_eq!(count(named("ab", PatternFilter::Match)), 3);
    assert_eq!(count(named("ab", PatternFilter::Any)), 1);
    assert_eq!(count(named("a", PatternFilter::Any)), 1);
    assert_eq!(count(named("a", PatternFilter::Exactly(Literal))), 0);
    assert_eq!(count(AclBindingFilter { pattern: PatternFilter::Exactly(Prefixed), ..any.clone() }), 1);
    assert_eq!(count(AclBindingFilter { principal: Some("User:b".into()), ..any.clone() }), 1);
    assert_eq!(count(AclBindingFilter { operation: Some(AclOperation::All), ..any.clone() }), 0);
    assert_eq!(count(AclBindingFilter { resource_type: Some(ResourceType::Group), ..any }), 0);
}

/// What the index must find, by looking at each rule.
fn by_hand(acls: &[AclBinding], who: Requester<'_>, operation: AclOperation, name: &str) -> Verdict {
    let names = |acl: &&AclBinding| match acl.pattern_type {
        Literal => acl.resource_name == name || acl.resource_name == WILDCARD,
        Prefixed => name.starts_with(&acl.resource_name),
    };
    let matching: Vec<_> = acls.iter().filter(names).collect();
    let concerns = |acl: &&&AclBinding| {
        (acl.principal == who.principal || acl.principal == WILDCARD_PRINCIPAL) && (acl.host == WILDCARD || acl.host == who.host)
    };
    let denies = |acl: &&AclBinding| acl.permission_type == AclPermissionType::Deny && [operation, All].contains(&acl.operation);
    let allows = |acl: &&AclBinding| acl.permission_type == AclPermissionType::Allow && acl.operation.implies(operation);
    if matching.is_empty() {
        Verdict::NoAcl
    } else if matching.iter().filter(concerns).any(denies) || !matching.iter().filter(concerns).any(allows) {
        Verdict::Denied
    } else {
        Verdict::Allowed
    }
}

fn any_acl() -> impl Strategy<Value = AclBinding> {
    let name = prop_oneof![4 => "[ab\u{e9}]{1,4}", 1 => Just(WILDCARD.to_owned())];
    let principal = prop::sample::select(vec!["User:alice", "User:bob", WILDCARD_PRINCIPAL]);
    let host = prop::sample::select(vec!["*", "10.0.0.1", "10.0.0.2"]);
    let operation = prop::sample::select(vec![All, Read, Describe, Delete, AlterConfigs]);
    (name, prop::sample::select(vec![Literal, Prefixed]), principal, host, operation, any::<bool>()).prop_map(
        |(name, pattern, principal, host, operation, allow)| AclBinding {
            host: host.into(),
            ..acl(&name, pattern, principal, operation, allow)
        },
    )
}

proptest! {
    /// The index decides as one does who reads all rules, after any creations and deletions.
    #[test]
    fn the_index_decides_as_all_rules_read_one_by_one(
        steps in prop::collection::vec((any_acl(), any::<bool>()), 0..40),
        names in prop::collection::vec("[ab\u{e9}]{1,5}", 8),
    ) {
        let mut rules: Vec<AclBinding> = Vec::new();
        let mut index = AclIndex::default();
        for (acl, create) in steps {
            rules.retain(|known| *known != acl);
            if create {
                index.insert(&acl);
                rules.push(acl);
            } else {
                index.remove(&acl);
            }
        }
        let mut listed: Vec<_> = index.iter().collect();
        listed.sort();
        rules.sort();
        prop_assert_eq!(&listed, &rules);
        prop_assert_eq!(index.len(), rules.len());
        prop_assert!(rules.iter().all(|acl| index.contains(acl)));
        for name in &names {
            for operation in [Read, Describe, Delete, DescribeConfigs] {
                let verdict = index.decide(ALICE, operation, ResourceType::Topic, name);
                prop_assert_eq!(verdict, by_hand(&rules, ALICE, operation, name), "{:?} {}", operation, name);
            }
        }
    }
}
