//! FindCoordinator, DescribeGroups, ListGroups and DeleteGroups.

use super::group_requests::{Member, join, leave};
use super::requests::text;
use crate::{Scenario, Session, scenario};
use anyhow::Result;
use kafka_protocol::messages::{DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest};
use kafka_protocol::protocol::StrBytes;

pub const SCENARIOS: &[Scenario] = &[
    scenario("find-coordinator", find_coordinator),
    scenario("describe-groups", describe),
    scenario("list-groups", list),
    scenario("delete-groups", delete),
];

fn find_coordinator(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for version in 0..=6 {
        let of = |key: &str| match version {
            0..=3 => FindCoordinatorRequest::default().with_key(text(key)),
            _ => FindCoordinatorRequest::default().with_coordinator_keys(vec![text(key)]),
        };
        let step = |what: &str| format!("v{version} {what}");
        s.ask(&mut c, &step("group"), version, &of("some-group"))?;
        s.ask(&mut c, &step("empty key"), version, &of(""))?;
        if version >= 1 {
            for kind in [3, -1, 127] {
                s.ask(&mut c, &step(&format!("key type {kind}")), version, &of("x").with_key_type(kind))?;
            }
        }
        if version >= 4 {
            let keys = |keys: &[&str]| {
                let keys: Vec<StrBytes> = keys.iter().map(|key| text(key)).collect();
                FindCoordinatorRequest::default().with_coordinator_keys(keys)
            };
            s.ask(&mut c, &step("three keys"), version, &keys(&["a", "", "b"]))?;
            s.ask(&mut c, &step("no keys"), version, &keys(&[]))?;
            s.ask(&mut c, &step("one key twice"), version, &keys(&["a", "a"]))?;
        }
    }
    Ok(())
}

fn describe_of(groups: &[&GroupId]) -> DescribeGroupsRequest {
    DescribeGroupsRequest::default().with_groups(groups.iter().map(|g| (*g).clone()).collect())
}

fn describe(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let stable = Member::alone(s, "stable", "m", Some("i-1"))?;
    let mut left = Member::alone(s, "left", "m", None)?;
    left.conn.call(3, &leave(3, &left.group, &left.id))?;
    let pending = Member::known(s, "pending", "m", None)?;
    let mut unsynced = Member::known(s, "unsynced", "m", None)?;
    let request = join(&unsynced.group, &unsynced.id, &["range", "roundrobin"]);
    unsynced.conn.call(5, &request)?;
    let none = s.group("none");
    for version in 0..=6 {
        let step = |what: &str| format!("v{version} {what}");
        for (what, group) in [
            ("stable", &stable.group),
            ("empty", &left.group),
            ("pending member", &pending.group),
            ("before sync", &unsynced.group),
            ("unknown", &none),
        ] {
            s.ask(&mut c, &step(what), version, &describe_of(&[group]))?;
        }
        let several = describe_of(&[&stable.group, &none, &GroupId(text(""))]);
        s.ask(&mut c, &step("several"), version, &several)?;
        s.ask(&mut c, &step("none"), version, &describe_of(&[]))?;
        let twice = describe_of(&[&left.group, &left.group]);
        s.ask(&mut c, &step("one twice"), version, &twice)?;
        if version >= 3 {
            let request = describe_of(&[&left.group]).with_include_authorized_operations(true);
            s.ask(&mut c, &step("authorized operations"), version, &request)?;
        }
    }
    Ok(())
}

fn list(s: &mut Session) -> Result<()> {
    s.note_only_own();
    let mut c = s.connect()?;
    let _stable = Member::alone(s, "stable", "m", None)?;
    let mut left = Member::alone(s, "left", "m", None)?;
    left.conn.call(3, &leave(3, &left.group, &left.id))?;
    let mut unsynced = Member::known(s, "unsynced", "m", None)?;
    unsynced.conn.call(5, &unsynced.join())?;
    let other = join(&s.group("connect"), "", &["x"]).with_protocol_type(text("connect"));
    c.call(3, &other)?;
    for version in 0..=5 {
        s.ask(&mut c, &format!("v{version} all"), version, &ListGroupsRequest::default())?;
    }
    let words = |list: &[&str]| list.iter().map(|word| text(word)).collect::<Vec<_>>();
    for version in [4, 5] {
        for states in
            [&["Stable"][..], &["stable"], &["Empty", "CompletingRebalance"], &["Nonsense"], &[""], &["PreparingRebalance"], &["Dead"]]
        {
            let request = ListGroupsRequest::default().with_states_filter(words(states));
            s.ask(&mut c, &format!("v{version} states {states:?}"), version, &request)?;
        }
    }
    for types in [&["classic"][..], &["Classic"], &["CLASSIC"], &["consumer"], &["share"], &["nonsense"], &[""]] {
        let request = ListGroupsRequest::default().with_types_filter(words(types));
        s.ask(&mut c, &format!("v5 types {types:?}"), 5, &request)?;
    }
    let both = ListGroupsRequest::default().with_types_filter(words(&["classic"])).with_states_filter(words(&["Empty"]));
    s.ask(&mut c, "v5 type and state", 5, &both)?;
    Ok(())
}

fn delete(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for version in 0..=2 {
        let step = |what: &str| format!("v{version} {what}");
        let of = |groups: &[&GroupId]| DeleteGroupsRequest::default().with_groups_names(groups.iter().map(|g| (*g).clone()).collect());
        let live = Member::alone(s, &format!("live-{version}"), "m", None)?;
        let mut left = Member::alone(s, &format!("left-{version}"), "m", None)?;
        left.conn.call(3, &leave(3, &left.group, &left.id))?;
        let none = s.group("none");
        s.ask(&mut c, &step("live, unknown, nameless"), version, &of(&[&live.group, &none, &GroupId(text(""))]))?;
        s.ask(&mut c, &step("empty"), version, &of(&[&left.group]))?;
        s.ask(&mut c, &step("the same again"), version, &of(&[&left.group]))?;
        s.ask(&mut c, &step("nothing"), version, &of(&[]))?;
        s.ask(&mut c, &step("described after deletion"), 5, &describe_of(&[&left.group]))?;
    }
    Ok(())
}
