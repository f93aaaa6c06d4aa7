//! Classic groups: join, sync, heartbeat, leave, and a rebalance of two members.

use super::group_requests::{Member, REBALANCE_IN_PROGRESS, heartbeat, join, join_at, leave, sync};
use super::requests::text;
use crate::{Scenario, Session, scenario};
use anyhow::Result;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{GroupId, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest};

pub const SCENARIOS: &[Scenario] = &[
    scenario("group-versions", versions),
    scenario("group-join-errors", join_errors),
    scenario("group-member-errors", member_errors),
    scenario("group-rebalance", rebalance),
    scenario("group-protocols", protocols),
    scenario("group-leave", leaving),
];

fn versions(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for version in 0..=9 {
        let group = s.group(&format!("g{version}"));
        let step = |what: &str| format!("v{version} {what}");
        let first = join_at(version, join(&group, "", &["range", "roundrobin"]));
        let mut answer = s.ask(&mut c, &step("join without id"), version, &first)?;
        if version >= 4 {
            let again = join(&group, &answer.member_id, &["range", "roundrobin"]);
            answer = s.ask(&mut c, &step("join with the id given"), version, &again)?;
        }
        let (id, generation) = (answer.member_id.to_string(), answer.generation_id);
        let v = version.min(5);
        let mut request = sync(&group, generation, &id, &[&id]);
        if v == 5 {
            request = request.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range")));
        }
        s.ask(&mut c, &step("sync"), v, &request)?;
        s.ask(&mut c, &step("sync again"), v, &request)?;
        s.ask(&mut c, &step("heartbeat"), v.min(4), &heartbeat(&group, generation, &id))?;
        let again = join_at(version, join(&group, &id, &["range", "roundrobin"]));
        let answer = s.ask(&mut c, &step("the leader joins again"), version, &again)?;
        let now = answer.generation_id;
        s.ask(&mut c, &step("heartbeat before sync"), v.min(4), &heartbeat(&group, now, &id))?;
        s.ask(&mut c, &step("leave"), v, &leave(v, &group, &id))?;
        s.ask(&mut c, &step("leave again"), v, &leave(v, &group, &id))?;
        s.ask(&mut c, &step("heartbeat after leaving"), v.min(4), &heartbeat(&group, now, &id))?;
    }
    Ok(())
}

fn join_errors(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for version in [0, 3, 5, 6, 9] {
        let step = |what: &str| format!("v{version} {what}");
        let group = s.group(&format!("g{version}"));
        let ask =
            |s: &mut Session, c: &mut _, what: &str, request: JoinGroupRequest| s.ask(c, &step(what), version, &join_at(version, request));
        let nameless = GroupId(text(""));
        ask(s, &mut c, "empty group id", join(&nameless, "", &["range"]))?;
        ask(s, &mut c, "unknown member id", join(&group, "nobody", &["range"]))?;
        for timeout_ms in [-1, 0, 1, 5_999, 1_800_001] {
            let request = join(&group, "", &["range"]).with_session_timeout_ms(timeout_ms);
            ask(s, &mut c, &format!("session timeout {timeout_ms}"), request)?;
        }
        ask(s, &mut c, "no protocols", join(&group, "", &[]))?;
        let untyped = join(&group, "", &["range"]).with_protocol_type(text(""));
        ask(s, &mut c, "empty protocol type", untyped)?;
        let odd = GroupId(text("../odd \u{1f980} group"));
        let answer = ask(s, &mut c, "odd group id", join(&odd, "", &["range"]))?;
        c.call(2, &leave(2, &odd, &answer.member_id))?;
    }
    for version in [5, 9] {
        for (i, instance) in ["", "../x", ".."].into_iter().enumerate() {
            let group = s.group(&format!("i{version}-{i}"));
            let request = join(&group, "", &["range"]).with_group_instance_id(Some(text(instance)));
            s.ask(&mut c, &format!("v{version} instance id {instance:?}"), version, &request)?;
        }
        let unknown = join(&s.group("i"), "nobody", &["range"]).with_group_instance_id(Some(text("i")));
        s.ask(&mut c, &format!("v{version} unknown member with instance id"), version, &unknown)?;
    }
    let request = join(&s.group("r"), "", &["range"]).with_rebalance_timeout_ms(-1);
    s.ask(&mut c, "v3 negative rebalance timeout", 3, &request)?;
    c.client_id = None;
    s.ask(&mut c, "no client id", 5, &join(&s.group("n"), "", &["range"]))?;
    c.client_id = Some(text("with space"));
    s.ask(&mut c, "client id with a space", 5, &join(&s.group("n"), "", &["range"]))?;
    Ok(())
}

fn member_errors(s: &mut Session) -> Result<()> {
    let mut m = Member::alone(s, "g", "one", None)?;
    let (group, id, generation) = (m.group.clone(), m.id.clone(), m.generation);
    let (none, nameless) = (s.group("none"), GroupId(text("")));
    let cases = [
        ("unknown group", &none, generation, id.as_str()),
        ("empty group id", &nameless, generation, id.as_str()),
        ("unknown member", &group, generation, "nobody"),
        ("empty member id", &group, generation, ""),
        ("older generation", &group, generation - 1, id.as_str()),
        ("newer generation", &group, generation + 1, id.as_str()),
        ("generation -1", &group, -1, id.as_str()),
    ];
    for (what, group, generation, id) in cases {
        for version in [0, 3, 4] {
            let request = heartbeat(group, generation, id);
            s.ask(&mut m.conn, &format!("heartbeat v{version} {what}"), version, &request)?;
        }
        for version in [0, 3, 5] {
            let request = sync(group, generation, id, &[]);
            s.ask(&mut m.conn, &format!("sync v{version} {what}"), version, &request)?;
        }
    }
    for (kind, name) in [("consumer", "range"), ("other", "range"), ("consumer", "other")] {
        let request = sync(&group, generation, &id, &[]).with_protocol_type(Some(text(kind))).with_protocol_name(Some(text(name)));
        s.ask(&mut m.conn, &format!("sync v5 as {kind}, {name}"), 5, &request)?;
    }
    let request = m.heartbeat().with_group_instance_id(Some(text("x")));
    s.ask(&mut m.conn, "heartbeat of an instance nobody knows", 3, &request)?;
    let request = sync(&group, generation, &id, &[]).with_group_instance_id(Some(text("x")));
    s.ask(&mut m.conn, "sync of an instance nobody knows", 3, &request)?;
    Ok(())
}

fn rebalance(s: &mut Session) -> Result<()> {
    let mut a = Member::alone(s, "g", "a", None)?;
    let mut b = Member::known(s, "g", "b", None)?;
    b.conn.send(7, &b.join())?;
    a.beat_until(REBALANCE_IN_PROGRESS)?;
    let request = a.heartbeat();
    s.ask(&mut a.conn, "heartbeat while the other joins", 4, &request)?;
    let request = a.sync(&[]);
    s.ask(&mut a.conn, "sync while the other joins", 3, &request)?;
    a.conn.send(7, &a.join())?;
    let answer = s.hear::<JoinGroupRequest>(&mut a.conn, "a joins generation 2", 7)?;
    a.joined(&answer);
    let answer = s.hear::<JoinGroupRequest>(&mut b.conn, "b joins generation 2", 7)?;
    b.joined(&answer);
    b.conn.send(3, &b.sync(&[]))?;
    let request = a.heartbeat();
    s.ask(&mut a.conn, "heartbeat of the leader before sync", 4, &request)?;
    let ids = [a.id.clone(), b.id.clone()];
    a.conn.send(3, &a.sync(&[&ids[0], &ids[1]]))?;
    s.hear::<SyncGroupRequest>(&mut a.conn, "the leader's sync", 3)?;
    s.hear::<SyncGroupRequest>(&mut b.conn, "the follower's sync", 3)?;
    for m in [&mut a, &mut b] {
        let request = m.heartbeat();
        s.ask(&mut m.conn, &format!("stable, heartbeat of {}", &m.id[..1]), 4, &request)?;
    }
    let request = heartbeat(&a.group, 1, &a.id);
    s.ask(&mut a.conn, "heartbeat of the old generation", 4, &request)?;
    let request = b.join();
    s.ask(&mut b.conn, "a follower joins again with the same protocols", 7, &request)?;
    let other = join(&b.group, &b.id, &["range", "roundrobin"]);
    b.conn.send(7, &other)?;
    a.beat_until(REBALANCE_IN_PROGRESS)?;
    a.conn.send(7, &a.join())?;
    let answer = s.hear::<JoinGroupRequest>(&mut a.conn, "a joins generation 3", 7)?;
    a.joined(&answer);
    let answer = s.hear::<JoinGroupRequest>(&mut b.conn, "b joins generation 3", 7)?;
    b.joined(&answer);
    let request = leave(3, &b.group, &b.id);
    s.ask(&mut b.conn, "b leaves before sync", 3, &request)?;
    let request = a.sync(&[&ids[0]]);
    s.ask(&mut a.conn, "a's sync after that", 3, &request)?;
    let request = a.join();
    let answer = s.ask(&mut a.conn, "a alone joins generation 4", 7, &request)?;
    a.joined(&answer);
    let request = a.sync(&[]);
    s.ask(&mut a.conn, "a leader's sync without assignments", 3, &request)?;
    let request = a.heartbeat();
    s.ask(&mut a.conn, "stable at last", 4, &request)?;
    Ok(())
}

fn protocols(s: &mut Session) -> Result<()> {
    let mut a = Member::known(s, "g", "a", None)?;
    let mut b = Member::known(s, "g", "b", None)?;
    let request = join(&a.group, &a.id, &["x", "y", "z"]);
    let answer = s.ask(&mut a.conn, "a offers x, y, z", 7, &request)?;
    a.joined(&answer);
    a.conn.call(3, &a.sync(&[]))?;
    let request = join(&b.group, &b.id, &["v", "w"]);
    s.ask(&mut b.conn, "b offers v, w", 7, &request)?;
    let request = join(&b.group, &b.id, &["x"]).with_protocol_type(text("connect"));
    s.ask(&mut b.conn, "b is of another type", 7, &request)?;
    b.conn.send(7, &join(&b.group, &b.id, &["z", "y"]))?;
    a.beat_until(REBALANCE_IN_PROGRESS)?;
    a.conn.send(7, &join(&a.group, &a.id, &["x", "y", "z"]))?;
    let answer = s.hear::<JoinGroupRequest>(&mut a.conn, "a: y wins", 7)?;
    a.joined(&answer);
    let answer = s.hear::<JoinGroupRequest>(&mut b.conn, "b: y wins", 7)?;
    b.joined(&answer);
    let request = join(&b.group, &b.id, &["v"]);
    s.ask(&mut b.conn, "b would offer nothing in common any more", 7, &request)?;
    let empty = s.group("empty");
    let mut c = Member::alone(s, "empty", "c", None)?;
    c.conn.call(3, &leave(3, &empty, &c.id))?;
    let request = join(&empty, "", &["q"]).with_protocol_type(text("connect"));
    let answer = s.ask(&mut c.conn, "another type in an empty group", 3, &request)?;
    c.joined(&answer);
    Ok(())
}

fn leaving(s: &mut Session) -> Result<()> {
    for version in [0, 2, 3, 4, 5] {
        let mut m = Member::alone(s, &format!("g{version}"), "m", None)?;
        let step = |what: &str| format!("v{version} {what}");
        let (group, none, nameless) = (m.group.clone(), s.group("none"), GroupId(text("")));
        for (what, group, id) in [
            ("unknown group", &none, "m"),
            ("empty group id", &nameless, "m"),
            ("unknown member", &group, "nobody"),
            ("empty member id", &group, ""),
        ] {
            s.ask(&mut m.conn, &step(what), version, &leave(version, group, id))?;
        }
        if version >= 3 {
            let member = |id: &str| MemberIdentity::default().with_member_id(text(id));
            let of = |members| LeaveGroupRequest::default().with_group_id(group.clone()).with_members(members);
            s.ask(&mut m.conn, &step("no members"), version, &of(vec![]))?;
            let instance = member("").with_group_instance_id(Some(text("x")));
            s.ask(&mut m.conn, &step("unknown instance"), version, &of(vec![instance.clone()]))?;
            let several = of(vec![member("nobody"), member(&m.id), instance, member(&m.id)]);
            s.ask(&mut m.conn, &step("several"), version, &several)?;
        }
        let pending = Member::known(s, &format!("g{version}"), "p", None)?;
        s.ask(&mut m.conn, &step("a member that never joined"), version, &leave(version, &group, &pending.id))?;
        s.ask(&mut m.conn, &step("for good"), version, &leave(version, &group, &m.id))?;
    }
    Ok(())
}
