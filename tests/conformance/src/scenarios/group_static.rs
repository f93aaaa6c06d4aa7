//! Static members (KIP-345).

use super::group_requests::{Member, REBALANCE_IN_PROGRESS};
use super::requests::text;
use crate::{Scenario, Session, scenario};
use anyhow::Result;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest};

pub const SCENARIOS: &[Scenario] = &[scenario("group-static", replaced), scenario("group-static-leave", leave)];

/// An instance comes back under a new member id; the old one is fenced.
fn replaced(s: &mut Session) -> Result<()> {
    for version in [5, 7, 9] {
        let step = |what: &str| format!("v{version} {what}");
        let short = format!("g{version}");
        let mut old = Member::known(s, &short, "old", Some("i-1"))?;
        let request = old.join();
        let answer = s.ask(&mut old.conn, &step("first join"), version, &request)?;
        old.joined(&answer);
        let request = old.sync(&[old.id.as_str()]);
        s.ask(&mut old.conn, &step("sync"), 3, &request)?;

        let mut new = Member::known(s, &short, "new", Some("i-1"))?;
        let request = new.join();
        let answer = s.ask(&mut new.conn, &step("the instance is back"), version, &request)?;
        new.joined(&answer);
        let request = new.sync(&[]);
        s.ask(&mut new.conn, &step("sync of the new one"), 3, &request)?;
        let request = new.heartbeat();
        s.ask(&mut new.conn, &step("heartbeat of the new one"), 3, &request)?;
        let request = old.heartbeat();
        s.ask(&mut old.conn, &step("heartbeat of the old one"), 3, &request)?;
        let request = old.heartbeat().with_group_instance_id(None);
        s.ask(&mut old.conn, &step("heartbeat of the old one, no instance"), 3, &request)?;
        let request = old.sync(&[]);
        s.ask(&mut old.conn, &step("sync of the old one"), 3, &request)?;
        let request = old.join();
        s.ask(&mut old.conn, &step("join of the old one"), version, &request)?;

        let mut other = Member::known(s, &short, "other", Some("i-2"))?;
        other.conn.send(version, &other.join())?;
        new.beat_until(REBALANCE_IN_PROGRESS)?;
        new.conn.send(version, &new.join())?;
        let answer = s.hear::<JoinGroupRequest>(&mut new.conn, &step("two: first"), version)?;
        new.joined(&answer);
        let answer = s.hear::<JoinGroupRequest>(&mut other.conn, &step("two: second"), version)?;
        other.joined(&answer);
        let ids = [new.id.clone(), other.id.clone()];
        other.conn.send(3, &other.sync(&[]))?;
        new.conn.send(3, &new.sync(&[&ids[0], &ids[1]]))?;
        s.hear::<SyncGroupRequest>(&mut new.conn, &step("two: sync of the first"), 3)?;
        s.hear::<SyncGroupRequest>(&mut other.conn, &step("two: sync of the second"), 3)?;

        let mut third = Member::known(s, &short, "third", Some("i-2"))?;
        let request = third.join();
        let answer = s.ask(&mut third.conn, &step("a follower's instance is back"), version, &request)?;
        third.joined(&answer);
        let request = third.sync(&[]);
        s.ask(&mut third.conn, &step("it keeps its assignment"), 3, &request)?;
        let request = new.heartbeat();
        s.ask(&mut new.conn, &step("no rebalance"), 3, &request)?;
    }
    Ok(())
}

fn leave(s: &mut Session) -> Result<()> {
    for version in [3, 4, 5] {
        let step = |what: &str| format!("v{version} {what}");
        let mut m = Member::alone(s, &format!("g{version}"), "m", Some("i-1"))?;
        let group = m.group.clone();
        let of = |id: &str, instance: &str| {
            let member = MemberIdentity::default().with_member_id(text(id)).with_group_instance_id(Some(text(instance)));
            LeaveGroupRequest::default().with_group_id(group.clone()).with_members(vec![member])
        };
        for (what, id, instance) in [
            ("wrong member id", "nobody", "i-1"),
            ("wrong instance", m.id.as_str(), "i-9"),
            ("by instance alone", "", "i-1"),
            ("again", "", "i-1"),
        ] {
            s.ask(&mut m.conn, &step(what), version, &of(id, instance))?;
        }
        let request = m.heartbeat();
        s.ask(&mut m.conn, &step("heartbeat after leaving"), 3, &request)?;
        let mut m = Member::alone(s, &format!("g{version}"), "m", Some("i-1"))?;
        s.ask(&mut m.conn, &step("by id and instance"), version, &of(&m.id, "i-1"))?;
        let mut m = Member::alone(s, &format!("g{version}"), "m", Some("i-1"))?;
        let request = super::group_requests::leave(version, &group, &m.id);
        s.ask(&mut m.conn, &step("by id alone"), version, &request)?;
    }
    Ok(())
}
