//! CreateAcls, DescribeAcls and DeleteAcls.

use super::requests::text;
use crate::{Conn, Scenario, Session, scenario};
use anyhow::{Result, ensure};
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::{CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest};

/// The authorizer is on; what no ACL names is everybody's.
pub const AUTHORIZER: &[(&str, &str)] =
    &[("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"), ("allow.everyone.if.no.acl.found", "true")];

pub const SCENARIOS: &[Scenario] =
    &[scenario("acl-disabled", disabled), Scenario { name: "acl-admin", settings: AUTHORIZER, run: administer }];

pub const TOPIC: i8 = 2;
pub const GROUP: i8 = 3;
pub const CLUSTER: i8 = 4;
pub const TRANSACTIONAL_ID: i8 = 5;
const ANY: i8 = 1;
const MATCH: i8 = 2;
pub const LITERAL: i8 = 3;
pub const PREFIXED: i8 = 4;
pub const ALL: i8 = 2;
pub const READ: i8 = 3;
const DENY: i8 = 2;
const ALLOW: i8 = 3;

/// Allows User:ANONYMOUS at `host` an operation.
pub fn allow(resource: (i8, &str, i8), host: &str, operation: i8) -> AclCreation {
    AclCreation::default()
        .with_resource_type(resource.0)
        .with_resource_name(text(resource.1))
        .with_resource_pattern_type(resource.2)
        .with_principal(text("User:ANONYMOUS"))
        .with_host(text(host))
        .with_operation(operation)
        .with_permission_type(ALLOW)
}

/// Makes ACLs and waits until they are in force.
pub fn create(c: &mut Conn, acls: Vec<AclCreation>) -> Result<()> {
    let answer = c.call(3, &CreateAclsRequest::default().with_creations(acls.clone()))?;
    ensure!(answer.results.iter().all(|result| result.error_code == 0), "{answer:?}");
    for acl in acls {
        let filter = DescribeAclsRequest::default()
            .with_resource_type_filter(acl.resource_type)
            .with_resource_name_filter(Some(acl.resource_name))
            .with_pattern_type_filter(acl.resource_pattern_type)
            .with_principal_filter(None)
            .with_host_filter(Some(acl.host))
            .with_operation(acl.operation)
            .with_permission_type(acl.permission_type);
        c.wait_for(|c| Ok(!c.call(3, &filter)?.resources.is_empty()))?;
    }
    Ok(())
}

fn filter(resource: (i8, Option<&str>, i8), entry: (Option<&str>, Option<&str>, i8, i8)) -> DeleteAclsFilter {
    DeleteAclsFilter::default()
        .with_resource_type_filter(resource.0)
        .with_resource_name_filter(resource.1.map(text))
        .with_pattern_type_filter(resource.2)
        .with_principal_filter(entry.0.map(text))
        .with_host_filter(entry.1.map(text))
        .with_operation(entry.2)
        .with_permission_type(entry.3)
}

fn describe(filter: &DeleteAclsFilter) -> DescribeAclsRequest {
    DescribeAclsRequest::default()
        .with_resource_type_filter(filter.resource_type_filter)
        .with_resource_name_filter(filter.resource_name_filter.clone())
        .with_pattern_type_filter(filter.pattern_type_filter)
        .with_principal_filter(filter.principal_filter.clone())
        .with_host_filter(filter.host_filter.clone())
        .with_operation(filter.operation)
        .with_permission_type(filter.permission_type)
}

fn disabled(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let any = filter((ANY, None, ANY), (None, None, ANY, ANY));
    let acl = allow((TOPIC, "t", LITERAL), "*", READ);
    for version in 1..=3 {
        let step = |what: &str| format!("v{version} {what}");
        s.ask(&mut c, &step("describe"), version, &describe(&any))?;
        let two = vec![acl.clone(), acl.clone().with_resource_type(99)];
        s.ask(&mut c, &step("create"), version, &CreateAclsRequest::default().with_creations(two))?;
        let two = vec![any.clone(), any.clone()];
        s.ask(&mut c, &step("delete"), version, &DeleteAclsRequest::default().with_filters(two))?;
    }
    Ok(())
}

fn administer(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let (a, b) = (s.own("a").to_string(), s.own("b").to_string());
    let prefix = s.own("").to_string();
    let any_entry = (None, None, ANY, ANY);
    for version in 1..=3 {
        let step = |what: &str| format!("v{version} {what}");
        let base = allow((TOPIC, &a, LITERAL), "*", READ).with_principal(text("User:alice"));
        let ask = |s: &mut Session, c: &mut Conn, what: &str, acls: Vec<AclCreation>| {
            s.ask(c, &step(what), version, &CreateAclsRequest::default().with_creations(acls)).map(drop)
        };
        let made = vec![
            base.clone(),
            base.clone().with_host(text("10.0.0.1")).with_permission_type(DENY),
            base.clone().with_resource_pattern_type(PREFIXED).with_resource_name(text(&prefix)),
            base.clone().with_resource_name(text(&b)).with_principal(text("User:*")).with_operation(ALL),
            base.clone().with_resource_type(GROUP),
            base.clone().with_resource_type(TRANSACTIONAL_ID).with_operation(9),
        ];
        ask(s, &mut c, "create", made.clone())?;
        ask(s, &mut c, "create again, and one twice", vec![made[0].clone(), made[1].clone(), made[0].clone()])?;
        let wait = describe(&filter((TRANSACTIONAL_ID, Some(&a), LITERAL), any_entry));
        c.wait_for(|c| Ok(!c.call(3, &wait)?.resources.is_empty()))?;
        let errors = vec![
            base.clone().with_resource_name(text("")),
            base.clone().with_resource_type(CLUSTER),
            base.clone().with_resource_type(ANY),
            base.clone().with_resource_type(99),
            base.clone().with_resource_pattern_type(ANY),
            base.clone().with_resource_pattern_type(MATCH),
            base.clone().with_resource_pattern_type(99),
            base.clone().with_operation(ANY),
            base.clone().with_operation(99),
            base.clone().with_permission_type(ANY),
            base.clone().with_permission_type(99),
        ];
        for (index, error) in errors.into_iter().enumerate() {
            ask(s, &mut c, &format!("create nonsense {index}"), vec![error])?;
        }
        for (what, principal) in
            [("no colon", "alice"), ("empty principal", ""), ("no type", ":alice"), ("no name", "User:"), ("other type", "Group:g")]
        {
            ask(s, &mut c, &format!("create {what}"), vec![base.clone().with_resource_name(text(&b)).with_principal(text(principal))])?;
        }
        ask(s, &mut c, "create zeros: resource type", vec![base.clone().with_resource_type(0)])?;
        ask(s, &mut c, "create zeros: pattern type", vec![base.clone().with_resource_pattern_type(0)])?;
        ask(s, &mut c, "create zeros: operation", vec![base.clone().with_operation(0)])?;
        ask(s, &mut c, "create zeros: permission", vec![base.clone().with_permission_type(0)])?;
        ask(
            s,
            &mut c,
            "create odd hosts",
            vec![
                base.clone().with_resource_name(text(&b)).with_host(text("")),
                base.clone().with_resource_name(text(&b)).with_host(text("no host")),
            ],
        )?;
        ask(s, &mut c, "create nothing", vec![])?;
        let filters = [
            ("by name, any pattern", filter((TOPIC, Some(&a), ANY), any_entry)),
            ("by name, match", filter((TOPIC, Some(&a), MATCH), any_entry)),
            ("by name, literal", filter((TOPIC, Some(&a), LITERAL), any_entry)),
            ("by name, prefixed", filter((TOPIC, Some(&prefix), PREFIXED), any_entry)),
            ("any type", filter((ANY, Some(&a), ANY), any_entry)),
            ("by principal", filter((TOPIC, Some(&a), ANY), (Some("User:alice"), None, ANY, ANY))),
            ("by wildcard principal", filter((ANY, Some(&b), ANY), (Some("User:*"), None, ANY, ANY))),
            ("by host", filter((ANY, Some(&a), ANY), (None, Some("10.0.0.1"), ANY, ANY))),
            ("by operation", filter((ANY, Some(&a), ANY), (None, None, 9, ANY))),
            ("by permission", filter((ANY, Some(&a), ANY), (None, None, ANY, DENY))),
            ("nothing matches", filter((TOPIC, Some("none"), LITERAL), any_entry)),
            ("unknown type", filter((99, Some(&a), ANY), any_entry)),
            ("unknown pattern", filter((TOPIC, Some(&a), 99), any_entry)),
            ("unknown operation", filter((TOPIC, Some(&a), ANY), (None, None, 99, ANY))),
            ("unknown permission", filter((TOPIC, Some(&a), ANY), (None, None, ANY, 99))),
            ("zero type", filter((0, Some(&a), ANY), any_entry)),
            ("zero pattern", filter((TOPIC, Some(&a), 0), any_entry)),
            ("zero operation", filter((TOPIC, Some(&a), ANY), (None, None, 0, ANY))),
            ("zero permission", filter((TOPIC, Some(&a), ANY), (None, None, ANY, 0))),
        ];
        for (what, wanted) in &filters {
            s.ask(&mut c, &step(&format!("describe {what}")), version, &describe(wanted))?;
        }
        for (what, wanted) in &filters[10..] {
            s.ask(&mut c, &step(&format!("delete {what}")), version, &DeleteAclsRequest::default().with_filters(vec![wanted.clone()]))?;
        }
        let several = vec![filters[7].1.clone(), filters[7].1.clone(), filters[4].1.clone(), filters[11].1.clone()];
        s.ask(&mut c, &step("delete several"), version, &DeleteAclsRequest::default().with_filters(several))?;
        s.ask(&mut c, &step("delete nothing"), version, &DeleteAclsRequest::default())?;
        let rest = vec![filter((ANY, Some(&b), ANY), any_entry), filter((ANY, Some(&prefix), ANY), any_entry)];
        s.ask(&mut c, &step("delete the rest"), version, &DeleteAclsRequest::default().with_filters(rest))?;
        c.wait_for(|c| Ok(c.call(3, &describe(&filters[6].1))?.resources.is_empty()))?;
        s.ask(&mut c, &step("describe what is left"), version, &describe(&filters[1].1))?;
    }
    Ok(())
}
