//! Incremental fetch sessions (KIP-227).

use super::fetch::fill;
use super::requests::{Topic, fetch};
use crate::{Conn, Scenario, Session, scenario};
use anyhow::Result;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use uuid::Uuid;

pub const SCENARIOS: &[Scenario] =
    &[scenario("fetch-sessions", by_name), scenario("fetch-sessions-by-id", by_id), scenario("fetch-session-errors", errors)];

const MIB: i32 = 1 << 20;

/// `request` as part of session `id` at `epoch`.
fn within(request: FetchRequest, id: i32, epoch: i32) -> FetchRequest {
    request.with_session_id(id).with_session_epoch(epoch)
}

fn forget(request: FetchRequest, topic: &Topic, partitions: &[i32]) -> FetchRequest {
    let forgotten = ForgottenTopic::default().with_partitions(partitions.to_vec());
    let forgotten = match topic {
        Topic::Name(name) => forgotten.with_topic(name.clone()),
        Topic::Id(id) => forgotten.with_topic_id(*id),
    };
    request.with_forgotten_topics_data(vec![forgotten])
}

fn nothing() -> FetchRequest {
    FetchRequest::default().with_max_wait_ms(0)
}

fn by_name(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 3, &[])?;
    fill(s, &mut c, "t", 0, 1, 2)?;
    let topic = Topic::Name(s.topic("t"));
    for version in [7, 12] {
        conversation(s, &mut c, &topic, version)?;
    }
    Ok(())
}

fn by_id(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let id = s.create_topic(&mut c, "t", 3, &[])?;
    fill(s, &mut c, "t", 0, 1, 2)?;
    for version in [13, 18] {
        conversation(s, &mut c, &Topic::Id(id), version)?;
        let step = |what: &str| format!("v{version} {what}");
        let mut request = fetch(&Topic::Id(Uuid::from_u128(5)), &[(0, 0, MIB)]);
        request.topics.extend(fetch(&Topic::Id(id), &[(0, 0, MIB)]).topics);
        let request = within(request, 0, 0);
        let session = s.ask(&mut c, &step("session with an unknown id"), version, &request)?.session_id;
        s.ask(&mut c, &step("its next"), version, &within(nothing(), session, 1))?;
    }
    Ok(())
}

fn conversation(s: &mut Session, c: &mut Conn, topic: &Topic, v: i16) -> Result<()> {
    let step = |what: &str| format!("v{v} {what}");
    let all = [(0, 0, MIB), (1, 0, MIB)];
    let full = within(fetch(topic, &all), 0, 0);
    let id = s.ask(c, &step("create"), v, &full)?.session_id;
    s.ask(c, &step("nothing new asked"), v, &within(nothing(), id, 1))?;
    let moved = within(fetch(topic, &[(0, 2, MIB)]), id, 2);
    s.ask(c, &step("one partition moves to its end"), v, &moved)?;
    s.ask(c, &step("nothing to report"), v, &within(nothing(), id, 3))?;
    let mut other = s.connect()?;
    fill(s, &mut other, "t", 1, 1, 1)?;
    s.ask(c, &step("new data in the other"), v, &within(nothing(), id, 4))?;
    let added = within(fetch(topic, &[(2, 0, MIB)]), id, 5);
    s.ask(c, &step("a partition is added"), v, &added)?;
    let bad = within(fetch(topic, &[(2, 99, MIB)]), id, 6);
    s.ask(c, &step("a partition goes out of range"), v, &bad)?;
    s.ask(c, &step("the error is repeated"), v, &within(nothing(), id, 7))?;
    let without = forget(within(nothing(), id, 8), topic, &[2, 1]);
    s.ask(c, &step("two are forgotten"), v, &without)?;
    let unknown = within(fetch(topic, &[(9, 0, MIB)]), id, 9);
    s.ask(c, &step("an unknown partition is added"), v, &unknown)?;
    let gone = forget(within(nothing(), id, 10), topic, &[0, 9, 77]);
    s.ask(c, &step("all are forgotten, one never known"), v, &gone)?;
    s.ask(c, &step("an empty session"), v, &within(nothing(), id, 11))?;
    let close = within(fetch(topic, &all), id, -1);
    s.ask(c, &step("close"), v, &close)?;
    s.ask(c, &step("after closing"), v, &within(nothing(), id, 12))?;
    Ok(())
}

fn errors(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let id = s.create_topic(&mut c, "t", 1, &[])?;
    let part = [(0, 0, MIB)];
    for (v, topic) in [(7, Topic::Name(s.topic("t"))), (12, Topic::Name(s.topic("t"))), (18, Topic::Id(id))] {
        let step = |what: &str| format!("v{v} {what}");
        let request = fetch(&topic, &part);
        s.ask(&mut c, &step("unknown session"), v, &within(request.clone(), 12345, 1))?;
        s.ask(&mut c, &step("session zero, epoch one"), v, &within(request.clone(), 0, 1))?;
        s.ask(&mut c, &step("negative session"), v, &within(request.clone(), -5, 1))?;
        s.ask(&mut c, &step("unknown session, epoch zero"), v, &within(request.clone(), 12345, 0))?;
        s.ask(&mut c, &step("unknown session, epoch -1"), v, &within(request.clone(), 12345, -1))?;
        s.ask(&mut c, &step("epoch -2"), v, &within(request.clone(), 0, -2))?;
        let session = c.call(v, &within(request.clone(), 0, 0))?.session_id;
        s.ask(&mut c, &step("epoch too large"), v, &within(nothing(), session, 5))?;
        s.ask(&mut c, &step("epoch right after that"), v, &within(nothing(), session, 1))?;
        s.ask(&mut c, &step("epoch used before"), v, &within(nothing(), session, 1))?;
        let again = within(request.clone(), session, 0);
        let next = s.ask(&mut c, &step("epoch zero replaces the session"), v, &again)?.session_id;
        s.ask(&mut c, &step("the old one is gone"), v, &within(nothing(), session, 2))?;
        s.ask(&mut c, &step("the new one works"), v, &within(nothing(), next, 1))?;
        let mut other = s.connect()?;
        s.ask(&mut other, &step("from another connection"), v, &within(nothing(), next, 2))?;
        let empty = within(nothing(), 0, 0);
        s.ask(&mut c, &step("create with nothing"), v, &empty)?;
    }
    Ok(())
}
