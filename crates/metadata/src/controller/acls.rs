//! Access control lists.

use std::collections::HashSet;

use super::{Decision, View};
use crate::acls::{ACLS_MAX, AclBinding, AclBindingFilter};
use crate::api::MetadataError;
use crate::image::ImageChange;

/// Makes ACLs, each for itself: one that can't be made does not keep the others from being made.
pub(crate) fn create_acls(view: View<'_>, acls: Vec<AclBinding>) -> Decision<Vec<Result<(), MetadataError>>> {
    let known = &view.image.acls;
    let mut new = HashSet::new();
    let mut changes = Vec::new();
    let mut outcomes = Vec::with_capacity(acls.len());
    for acl in acls {
        let outcome = acl.validate().and_then(|()| {
            if known.contains(&acl) || new.contains(&acl) {
                return Ok(());
            }
            if known.len() + new.len() >= ACLS_MAX {
                let reason = format!("a cluster has at most {ACLS_MAX} ACLs: delete some, or use prefixed ones");
                return Err(MetadataError::PolicyViolation(reason));
            }
            new.insert(acl.clone());
            changes.push(ImageChange::AclCreated(acl));
            Ok(())
        });
        outcomes.push(outcome);
    }
    Decision::new(changes, outcomes)
}

/// Deletes what filters mean. An ACL that several filters match is in the answer to each, as in Kafka.
pub(crate) fn delete_acls(view: View<'_>, filters: &[AclBindingFilter]) -> Decision<Vec<Vec<AclBinding>>> {
    let mut gone = HashSet::new();
    let mut changes = Vec::new();
    let answer: Vec<Vec<AclBinding>> = filters.iter().map(|filter| view.image.acls.matching(filter).collect()).collect();
    for acl in answer.iter().flatten() {
        if gone.insert(acl) {
            changes.push(ImageChange::AclDeleted(acl.clone()));
        }
    }
    Decision::new(changes, answer)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::acls::{AclOperation, AclPermissionType, PatternFilter, PatternType, ResourceType};
    use crate::image::MetadataImage;

    fn acl(name: &str, principal: &str) -> AclBinding {
        AclBinding {
            resource_type: ResourceType::Topic,
            resource_name: name.into(),
            pattern_type: PatternType::Literal,
            principal: principal.into(),
            host: "*".into(),
            operation: AclOperation::Read,
            permission_type: AclPermissionType::Allow,
        }
    }

    fn view(image: &MetadataImage) -> View<'_> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        View { image, static_configs: &NONE, replicas_max: 1 }
    }

    fn create(image: &mut MetadataImage, acls: Vec<AclBinding>) -> Vec<Result<(), MetadataError>> {
        let Decision { changes, answer } = create_acls(view(image), acls);
        changes.iter().for_each(|change| image.apply(change));
        answer
    }

    fn filter(name: Option<&str>) -> AclBindingFilter {
        AclBindingFilter {
            resource_type: None,
            resource_name: name.map(str::to_owned),
            pattern: PatternFilter::Any,
            principal: None,
            host: None,
            operation: None,
            permission_type: None,
        }
    }

    #[test]
    fn an_acl_is_made_once_and_deleted_once() {
        let mut image = MetadataImage::default();
        let made = create(&mut image, vec![acl("t", "User:a"), acl("t", "User:a"), acl("t", "User:b")]);
        assert!(made.iter().all(Result::is_ok));
        assert_eq!(create_acls(view(&image), vec![acl("t", "User:a")]).changes, []);
        assert_eq!(image.acls.len(), 2);
        let Decision { changes, answer } = delete_acls(view(&image), &[filter(Some("t")), filter(None), filter(Some("other"))]);
        assert_eq!(answer.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 0]);
        assert_eq!(changes.len(), 2);
        changes.iter().for_each(|change| image.apply(change));
        assert!(image.acls.is_empty());
    }

    #[test]
    fn what_cant_be_an_acl_keeps_no_other_from_being_made() {
        let mut image = MetadataImage::default();
        let cluster = |name: &str| AclBinding { resource_type: ResourceType::Cluster, ..acl(name, "User:a") };
        let asked = vec![
            acl("", "User:a"),
            acl("t", "alice"),
            cluster("other"),
            cluster("kafka-cluster"),
            acl(&"x".repeat(2000), "User:a"),
            acl("t", "User:a"),
        ];
        let made = create(&mut image, asked);
        assert_eq!(made.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, false, false, true, false, true]);
        assert_eq!(image.acls.len(), 2);
    }

    #[test]
    fn the_number_of_acls_is_bounded() {
        let mut image = MetadataImage::default();
        let many: Vec<_> = (0..ACLS_MAX).map(|i| acl(&format!("t{i}"), "User:a")).collect();
        assert!(create(&mut image, many).iter().all(Result::is_ok));
        assert!(matches!(create(&mut image, vec![acl("more", "User:a")])[..], [Err(MetadataError::PolicyViolation(_))]));
        assert_eq!(create(&mut image, vec![acl("t0", "User:a")]), [Ok(())], "it is there already");
    }
}
