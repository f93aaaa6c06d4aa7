//! InitProducerId and the sequences of idempotent producers.

use super::requests::{Topic, fetch, produce, text};
use crate::batch::Batch;
use crate::{Conn, Scenario, Session, scenario};
use anyhow::Result;
use kafka_protocol::messages::{InitProducerIdRequest, TransactionalId};

pub const SCENARIOS: &[Scenario] =
    &[scenario("init-producer-id", init_producer_id), scenario("idempotence", sequences), scenario("idempotence-wrap", wrap)];

fn init() -> InitProducerIdRequest {
    InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000)
}

fn init_producer_id(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    for version in 0..=5 {
        s.ask(&mut c, &format!("v{version}"), version, &init())?;
    }
    for version in [3, 5] {
        let step = |what: &str| format!("v{version} {what}");
        let id = c.call(version, &init())?.producer_id;
        let again = init().with_producer_id(id).with_producer_epoch(0);
        s.ask(&mut c, &step("with an id and epoch"), version, &again)?;
        let half = init().with_producer_id(id);
        s.ask(&mut c, &step("with an id, no epoch"), version, &half)?;
        let other = init().with_producer_epoch(3);
        s.ask(&mut c, &step("with an epoch, no id"), version, &other)?;
    }
    for version in [0, 5] {
        let empty = init().with_transactional_id(Some(TransactionalId(text(""))));
        s.ask(&mut c, &format!("v{version} empty transactional id"), version, &empty)?;
    }
    for timeout_ms in [0, -1] {
        let request = init().with_transaction_timeout_ms(timeout_ms);
        s.ask(&mut c, &format!("timeout {timeout_ms}"), 4, &request)?;
    }
    Ok(())
}

/// A producer with a fresh id.
fn new_producer(c: &mut Conn) -> Result<i64> {
    Ok(c.call(4, &init())?.producer_id.0)
}

/// Produces batches of one producer to one partition, noting each answer.
struct Producer<'a> {
    s: &'a mut Session,
    c: Conn,
    topic: Topic,
    id: i64,
}

impl Producer<'_> {
    fn send(&mut self, step: &str, epoch: i16, sequence: i32, records: usize) -> Result<()> {
        let batch = Batch::of(records, self.s.start_ms).from_producer(self.id, epoch, sequence);
        let request = produce(&self.topic, &[(0, &batch)]);
        self.s.ask(&mut self.c, step, 9, &request)?;
        Ok(())
    }
}

fn sequences(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 2, &[])?;
    let topic = Topic::Name(s.topic("t"));
    let id = new_producer(&mut c)?;
    let mut p = Producer { s, c, topic, id };
    p.send("first", 0, 0, 3)?;
    p.send("second", 0, 3, 2)?;
    p.send("duplicate of the second", 0, 3, 2)?;
    p.send("duplicate of the first", 0, 0, 3)?;
    p.send("gap", 0, 7, 1)?;
    p.send("overlap", 0, 4, 3)?;
    p.send("same start, other length", 0, 3, 1)?;
    p.send("sequence back at zero", 0, 0, 1)?;
    for i in 0..6 {
        p.send(&format!("batch {i} of six"), 0, 5 + i, 1)?;
    }
    p.send("duplicate of one of the last five", 0, 7, 1)?;
    p.send("duplicate older than five batches", 0, 3, 2)?;
    p.send("newer epoch, sequence above zero", 1, 11, 1)?;
    p.send("newer epoch, sequence zero", 1, 0, 1)?;
    p.send("older epoch", 0, 11, 1)?;
    p.send("negative sequence", 1, -2, 1)?;
    p.send("negative epoch", -1, 1, 1)?;
    p.send("next of the newer epoch", 1, 1, 1)?;
    let unknown = p.id + 1_000_000;
    p.id = unknown;
    p.send("unknown producer, sequence above zero", 0, 5, 1)?;
    p.send("unknown producer, its next", 0, 6, 1)?;
    p.send("unknown producer, sequence zero after that", 0, 0, 1)?;
    p.id = unknown + 1;
    p.send("another unknown producer, epoch 3, sequence zero", 3, 0, 1)?;
    let request = fetch(&p.topic, &[(0, 0, 1 << 20)]);
    p.s.ask(&mut p.c, "read back", 12, &request)?;
    several_batches(p)
}

fn several_batches(p: Producer) -> Result<()> {
    let Producer { s, mut c, topic, .. } = p;
    let id = new_producer(&mut c)?;
    let at = |sequence| Batch::of(1, s.start_ms).from_producer(id, 0, sequence).encode();
    let two = bytes::Bytes::from([at(0), at(1)].concat());
    let request = super::requests::produce_bytes(&topic, -1, vec![(1, two)]);
    s.ask(&mut c, "two batches of a producer in one request", 9, &request)?;
    let id = new_producer(&mut c)?;
    let batch = Batch::of(1, s.start_ms).from_producer(id, 0, 0);
    let request = produce(&topic, &[(0, &batch), (1, &batch)]);
    s.ask(&mut c, "one producer, two partitions", 9, &request)?;
    s.ask(&mut c, "both again", 9, &request)?;
    let transactional = batch.clone().with(|b| {
        b.attributes = 0x10;
        b.base_sequence = 1;
    });
    let request = produce(&topic, &[(0, &transactional)]);
    s.ask(&mut c, "transactional batch, no transactional id", 9, &request)?;
    Ok(())
}

fn wrap(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 1, &[])?;
    let topic = Topic::Name(s.topic("t"));
    let id = new_producer(&mut c)?;
    let mut p = Producer { s, c, topic, id };
    p.send("unknown producer, sequence near the end", 0, i32::MAX - 1, 2)?;
    p.send("after the end comes zero", 0, 0, 1)?;
    p.send("then one", 0, 1, 1)?;
    p.id = new_producer(&mut p.c)?;
    p.send("a batch that wraps", 0, i32::MAX, 3)?;
    p.send("after it", 0, 2, 1)?;
    p.send("duplicate of the wrapping batch", 0, i32::MAX, 3)?;
    Ok(())
}
