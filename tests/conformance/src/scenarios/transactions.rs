//! Transactions: coordinator, produce, markers, offsets and the descriptions of all that, by both protocols (with and without KIP-890).

use super::requests::{Topic, fetch, list_offsets, produce, text};
use crate::batch::Batch;
use crate::{Conn, Scenario, Session, scenario};
use anyhow::Result;
use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeProducersRequest, DescribeTransactionsRequest, EndTxnRequest,
    FindCoordinatorRequest, GroupId, InitProducerIdRequest, ListTransactionsRequest, OffsetFetchRequest, ProducerId, TopicName,
    TransactionalId, TxnOffsetCommitRequest, WriteTxnMarkersRequest,
};

pub const SCENARIOS: &[Scenario] = &[
    scenario("txn-init", init_producer_id),
    scenario("txn-v1", old_protocol),
    scenario("txn-v1-end", old_ends),
    scenario("txn-v2", new_protocol),
    scenario("txn-v2-end", new_ends),
    scenario("txn-add-partitions", add_partitions),
    scenario("txn-verify", verify),
    scenario("txn-offsets", offsets),
    scenario("txn-offsets-errors", offset_errors),
    scenario("txn-fencing", fencing),
    scenario("txn-markers", markers),
    scenario("txn-describe", describe),
    scenario("txn-states-end", ends_in_every_state),
    scenario("txn-states-begin", begins_in_every_state),
    Scenario { name: "txn-timeout", settings: &[("transaction.abort.timed.out.transaction.cleanup.interval.ms", "100")], run: timeout },
];

const TRANSACTIONAL: i16 = 0x10;
const CONCURRENT_TRANSACTIONS: i16 = 51;

/// A transactional producer by hand.
struct Producer {
    id: TransactionalId,
    producer_id: i64,
    epoch: i16,
    sequence: i32,
}

fn init(id: &TransactionalId) -> InitProducerIdRequest {
    InitProducerIdRequest::default().with_transactional_id(Some(id.clone())).with_transaction_timeout_ms(60_000)
}

/// Waits until the coordinator of `id` answers.
fn coordinated(c: &mut Conn, id: &TransactionalId) -> Result<()> {
    c.wait_for(|c| {
        let find = FindCoordinatorRequest::default().with_key(id.0.clone()).with_key_type(1);
        let described = DescribeTransactionsRequest::default().with_transactional_ids(vec![id.clone()]);
        // Not loading, and in charge: 105 is that nobody knows the id yet.
        Ok(c.call(3, &find)?.error_code == 0 && matches!(c.call(0, &described)?.transaction_states[0].error_code, 0 | 105))
    })
}

impl Producer {
    /// A producer that has its id and epoch.
    fn new(s: &Session, c: &mut Conn, short: &str) -> Result<Producer> {
        let id = TransactionalId(s.own(short));
        coordinated(c, &id)?;
        let mut producer = Producer { id, producer_id: -1, epoch: -1, sequence: 0 };
        producer.init(c)?;
        Ok(producer)
    }

    fn init(&mut self, c: &mut Conn) -> Result<()> {
        let request = init(&self.id);
        let mut answer = c.call(4, &request)?;
        while answer.error_code == CONCURRENT_TRANSACTIONS {
            answer = c.call(4, &request)?;
        }
        (self.producer_id, self.epoch, self.sequence) = (answer.producer_id.0, answer.producer_epoch, 0);
        Ok(())
    }

    fn batch(&mut self, s: &Session, records: usize) -> Batch {
        let batch = Batch::of(records, s.start_ms).from_producer(self.producer_id, self.epoch, self.sequence);
        self.sequence += records as i32;
        batch.with(|batch| batch.attributes = TRANSACTIONAL)
    }

    /// Produces `records` records and notes the answer. Versions from 13 on want the topic's id.
    fn produce(&mut self, s: &mut Session, c: &mut Conn, step: &str, version: i16, topic: &Topic, partition: i32) -> Result<()> {
        let batch = self.batch(s, 2);
        let request = produce(topic, &[(partition, &batch)]).with_transactional_id(Some(self.id.clone()));
        let answer = s.ask(c, step, version, &request)?;
        if answer.responses[0].partition_responses[0].error_code != 0 {
            self.sequence -= 2;
        }
        Ok(())
    }

    fn add(&self, topic: &TopicName, partitions: &[i32]) -> AddPartitionsToTxnRequest {
        AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(self.id.clone())
            .with_v3_and_below_producer_id(ProducerId(self.producer_id))
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![added(topic, partitions)])
    }

    /// As brokers send it, from version 4 on.
    fn add_batched(&self, topic: &TopicName, partition: i32) -> AddPartitionsToTxnRequest {
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(self.id.clone())
            .with_producer_id(ProducerId(self.producer_id))
            .with_producer_epoch(self.epoch)
            .with_topics(vec![added(topic, &[partition])]);
        AddPartitionsToTxnRequest::default().with_transactions(vec![transaction])
    }

    fn end(&self, commit: bool) -> EndTxnRequest {
        EndTxnRequest::default()
            .with_transactional_id(self.id.clone())
            .with_producer_id(ProducerId(self.producer_id))
            .with_producer_epoch(self.epoch)
            .with_committed(commit)
    }

    /// Waits until the markers of the last transaction are written.
    fn settled(&self, c: &mut Conn) -> Result<()> {
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![self.id.clone()]);
        c.wait_for(|c| {
            let state = c.call(0, &request)?.transaction_states.remove(0).transaction_state;
            Ok(!state.starts_with("Prepare"))
        })
    }

    /// Ends the transaction by the new protocol, and goes on with the new epoch.
    fn end_v2(&mut self, c: &mut Conn, commit: bool) -> Result<()> {
        let answer = c.call(5, &self.end(commit))?;
        (self.producer_id, self.epoch, self.sequence) = (answer.producer_id.0, answer.producer_epoch, 0);
        self.settled(c)
    }

    fn describe(&self, s: &mut Session, c: &mut Conn, step: &str) -> Result<()> {
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![self.id.clone()]);
        s.ask(c, step, 0, &request)?;
        Ok(())
    }
}

fn added(topic: &TopicName, partitions: &[i32]) -> AddPartitionsToTxnTopic {
    AddPartitionsToTxnTopic::default().with_name(topic.clone()).with_partitions(partitions.to_vec())
}

fn producers_of(topic: &TopicName, partitions: &[i32]) -> DescribeProducersRequest {
    let topic = TopicRequest::default().with_name(topic.clone()).with_partition_indexes(partitions.to_vec());
    DescribeProducersRequest::default().with_topics(vec![topic])
}

/// What readers of both kinds see.
fn read(s: &mut Session, c: &mut Conn, step: &str, topic: &TopicName, partition: i32) -> Result<()> {
    for (isolation, name) in [(0, "uncommitted"), (1, "committed")] {
        let request = fetch(&Topic::Name(topic.clone()), &[(partition, 0, 1 << 20)]).with_isolation_level(isolation);
        s.ask(c, &format!("{step}, read {name}"), 12, &request)?;
        let request = list_offsets(topic.clone(), &[(partition, -1), (partition, -2)]).with_isolation_level(isolation);
        s.ask(c, &format!("{step}, offsets {name}"), 7, &request)?;
    }
    Ok(())
}

fn init_producer_id(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let first = Producer::new(s, &mut c, "p")?;
    for version in 0..=5 {
        s.ask(&mut c, &format!("v{version} again"), version, &init(&first.id))?;
    }
    let current = c.call(4, &init(&first.id))?;
    let with = |producer_id: i64, epoch: i16| init(&first.id).with_producer_id(ProducerId(producer_id)).with_producer_epoch(epoch);
    let (producer_id, epoch) = (current.producer_id.0, current.producer_epoch);
    for version in [3, 4, 5] {
        s.ask(&mut c, &format!("v{version} with an older epoch"), version, &with(producer_id, epoch - 3))?;
        s.ask(&mut c, &format!("v{version} with a future epoch"), version, &with(producer_id, epoch + 3))?;
        s.ask(&mut c, &format!("v{version} with another producer id"), version, &with(producer_id + 100_000, epoch))?;
    }
    s.ask(&mut c, "recover", 4, &with(producer_id, epoch))?;
    s.ask(&mut c, "recover, the same again", 4, &with(producer_id, epoch))?;
    s.ask(&mut c, "recover once more", 4, &with(producer_id, epoch + 1))?;
    for timeout_ms in [0, -1, 1, 900_000, 900_001, i32::MAX] {
        s.ask(&mut c, &format!("timeout {timeout_ms}"), 4, &init(&first.id).with_transaction_timeout_ms(timeout_ms))?;
    }
    let empty = TransactionalId(text(""));
    s.ask(&mut c, "empty id", 4, &init(&empty))?;
    s.ask(&mut c, "empty id and a bad timeout", 4, &init(&empty).with_transaction_timeout_ms(-1))?;
    let fresh = TransactionalId(s.own("fresh"));
    s.ask(&mut c, "a new id with a producer", 4, &init(&fresh).with_producer_id(ProducerId(4_000_000)).with_producer_epoch(7))?;
    first.describe(s, &mut c, "described")
}

fn old_protocol(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 3, &[])?;
    let (name, topic) = (s.topic("t"), Topic::Name(s.topic("t")));
    let mut p = Producer::new(s, &mut c, "p")?;
    p.describe(s, &mut c, "new")?;
    for version in [3, 9, 10, 11] {
        p.produce(s, &mut c, &format!("produce v{version}, no transaction"), version, &topic, 0)?;
    }
    s.ask(&mut c, "add a partition", 3, &p.add(&name, &[0]))?;
    p.describe(s, &mut c, "begun")?;
    p.produce(s, &mut c, "produce", 11, &topic, 0)?;
    p.produce(s, &mut c, "produce more", 9, &topic, 0)?;
    for version in [9, 11] {
        p.sequence = 0;
        p.produce(s, &mut c, &format!("produce v{version} to a partition that was not added"), version, &topic, 1)?;
    }
    p.sequence = 4;
    let plain = Batch::of(1, s.start_ms).from_producer(p.producer_id, p.epoch, 4);
    s.ask(&mut c, "a plain batch of the producer", 9, &produce(&topic, &[(0, &plain)]))?;
    let two = p.batch(s, 1);
    let request = produce(&topic, &[(0, &two), (2, &two)]).with_transactional_id(Some(p.id.clone()));
    s.ask(&mut c, "one partition of the transaction, one not", 9, &request)?;
    s.ask(&mut c, "producers", 0, &producers_of(&name, &[0, 1]))?;
    read(s, &mut c, "open", &name, 0)?;
    s.ask(&mut c, "commit", 4, &p.end(true))?;
    p.settled(&mut c)?;
    p.describe(s, &mut c, "committed")?;
    read(s, &mut c, "committed", &name, 0)?;
    p.produce(s, &mut c, "produce after the commit", 9, &topic, 0)?;
    s.ask(&mut c, "add two partitions", 2, &p.add(&name, &[0, 1]))?;
    p.produce(s, &mut c, "produce again", 9, &topic, 0)?;
    p.sequence = 0;
    p.produce(s, &mut c, "produce to the other", 9, &topic, 1)?;
    s.ask(&mut c, "abort", 4, &p.end(false))?;
    p.settled(&mut c)?;
    p.describe(s, &mut c, "aborted")?;
    s.ask(&mut c, "producers after it", 0, &producers_of(&name, &[0, 1, 2]))?;
    read(s, &mut c, "aborted", &name, 0)?;
    read(s, &mut c, "aborted, the other", &name, 1)
}

fn old_ends(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 1, &[])?;
    let name = s.topic("t");
    let p = Producer::new(s, &mut c, "p")?;
    for version in 0..=4 {
        s.ask(&mut c, &format!("v{version} commit of nothing"), version, &p.end(true))?;
        s.ask(&mut c, &format!("v{version} abort of nothing"), version, &p.end(false))?;
        let old = p.end(true).with_producer_epoch(p.epoch - 1);
        s.ask(&mut c, &format!("v{version} older epoch"), version, &old)?;
        let future = p.end(true).with_producer_epoch(p.epoch + 1);
        s.ask(&mut c, &format!("v{version} future epoch"), version, &future)?;
    }
    s.ask(&mut c, "another producer id", 4, &p.end(true).with_producer_id(ProducerId(p.producer_id + 100_000)))?;
    s.ask(&mut c, "unknown id", 4, &p.end(true).with_transactional_id(TransactionalId(s.own("unknown"))))?;
    s.ask(&mut c, "empty id", 4, &p.end(true).with_transactional_id(TransactionalId(text(""))))?;
    for (version, commit) in [(0, true), (4, false), (2, true), (3, false)] {
        c.call(3, &p.add(&name, &[0]))?;
        let outcome = if commit { "commit" } else { "abort" };
        s.ask(&mut c, &format!("v{version} {outcome}"), version, &p.end(commit))?;
        p.settled(&mut c)?;
        s.ask(&mut c, &format!("v{version} {outcome}, the same again"), version, &p.end(commit))?;
        s.ask(&mut c, &format!("v{version} {outcome}, then the opposite"), version, &p.end(!commit))?;
        p.describe(s, &mut c, &format!("after v{version} {outcome}"))?;
    }
    Ok(())
}

fn new_protocol(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    let topic_id = s.create_topic(&mut c, "t", 3, &[])?;
    let (name, topic) = (s.topic("t"), Topic::Name(s.topic("t")));
    let mut p = Producer::new(s, &mut c, "p")?;
    p.produce(s, &mut c, "produce", 12, &topic, 0)?;
    p.produce(s, &mut c, "produce more", 12, &topic, 0)?;
    p.describe(s, &mut c, "begun")?;
    p.sequence = 0;
    p.produce(s, &mut c, "produce by topic id", 13, &Topic::Id(topic_id), 1)?;
    p.describe(s, &mut c, "two partitions")?;
    s.ask(&mut c, "producers", 0, &producers_of(&name, &[0, 1, 2]))?;
    read(s, &mut c, "open", &name, 0)?;
    let old = p.end(true);
    let answer = s.ask(&mut c, "commit", 5, &old)?;
    p.settled(&mut c)?;
    p.describe(s, &mut c, "committed")?;
    s.ask(&mut c, "producers after the commit", 0, &producers_of(&name, &[0, 1, 2]))?;
    read(s, &mut c, "committed", &name, 0)?;
    p.sequence = 4;
    p.produce(s, &mut c, "produce with the old epoch", 12, &topic, 0)?;
    p.produce(s, &mut c, "produce v11 with the old epoch", 11, &topic, 0)?;
    p.sequence = 0;
    p.produce(s, &mut c, "produce with the old epoch to a new partition", 12, &topic, 2)?;
    (p.epoch, p.sequence) = (answer.producer_epoch, 0);
    p.sequence = 3;
    p.produce(s, &mut c, "produce, not from sequence zero", 12, &topic, 0)?;
    p.sequence = 0;
    p.produce(s, &mut c, "produce in the new epoch", 12, &topic, 0)?;
    s.ask(&mut c, "the old commit again, in the next transaction", 5, &old)?;
    p.describe(s, &mut c, "still open")?;
    s.ask(&mut c, "abort", 5, &p.end(false))?;
    p.settled(&mut c)?;
    read(s, &mut c, "aborted", &name, 0)?;
    read(s, &mut c, "aborted, the other", &name, 1)
}

/// Kafka's table of ends in the states without an open transaction.
fn new_ends(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 1, &[])?;
    let topic = Topic::Name(s.topic("t"));
    let mut p = Producer::new(s, &mut c, "p")?;
    s.ask(&mut c, "empty: commit", 5, &p.end(true))?;
    s.ask(&mut c, "empty: commit, older epoch", 5, &p.end(true).with_producer_epoch(p.epoch - 1))?;
    s.ask(&mut c, "empty: abort, older epoch", 5, &p.end(false).with_producer_epoch(p.epoch - 1))?;
    let answer = s.ask(&mut c, "empty: abort", 5, &p.end(false))?;
    p.epoch = answer.producer_epoch;
    p.settled(&mut c)?;
    p.describe(s, &mut c, "after an abort of nothing")?;
    for commit in [true, false] {
        let outcome = if commit { "committed" } else { "aborted" };
        p.produce(s, &mut c, &format!("{outcome}: produce"), 12, &topic, 0)?;
        let old = p.epoch;
        p.end_v2(&mut c, commit)?;
        let step = |what: &str| format!("{outcome}: {what}");
        s.ask(&mut c, &step("the same again"), 5, &p.end(commit).with_producer_epoch(old))?;
        s.ask(&mut c, &step("the opposite again"), 5, &p.end(!commit).with_producer_epoch(old))?;
        s.ask(&mut c, &step("much older"), 5, &p.end(commit).with_producer_epoch(old - 2))?;
        s.ask(&mut c, &step("future"), 5, &p.end(commit).with_producer_epoch(p.epoch + 1))?;
        s.ask(&mut c, &step("commit of nothing"), 5, &p.end(true))?;
        s.ask(&mut c, &step("another producer id"), 5, &p.end(true).with_producer_id(ProducerId(p.producer_id + 100_000)))?;
        let answer = s.ask(&mut c, &step("abort of nothing"), 5, &p.end(false))?;
        p.epoch = answer.producer_epoch;
        p.settled(&mut c)?;
    }
    s.ask(&mut c, "unknown id", 5, &p.end(true).with_transactional_id(TransactionalId(s.own("unknown"))))?;
    s.ask(&mut c, "empty id", 5, &p.end(true).with_transactional_id(TransactionalId(text(""))))?;
    p.produce(s, &mut c, "produce, then the old protocol", 12, &topic, 0)?;
    s.ask(&mut c, "commit by the old protocol", 4, &p.end(true))?;
    p.settled(&mut c)?;
    p.describe(s, &mut c, "after a commit by the old protocol")
}

fn add_partitions(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 3, &[])?;
    let name = s.topic("t");
    let unknown = s.topic("unknown");
    let p = Producer::new(s, &mut c, "p")?;
    for version in 0..=3 {
        let step = |what: &str| format!("v{version} {what}");
        s.ask(&mut c, &step("one"), version, &p.add(&name, &[0]))?;
        s.ask(&mut c, &step("the same and another"), version, &p.add(&name, &[0, 1]))?;
        s.ask(&mut c, &step("unknown partition"), version, &p.add(&name, &[2, 7]))?;
        s.ask(&mut c, &step("unknown topic"), version, &p.add(&unknown, &[0]))?;
        let mut both = p.add(&name, &[2]);
        both.v3_and_below_topics.push(added(&unknown, &[0, 1]));
        s.ask(&mut c, &step("a known and an unknown topic"), version, &both)?;
        s.ask(&mut c, &step("no partitions"), version, &p.add(&name, &[]))?;
        s.ask(&mut c, &step("no topics"), version, &p.add(&name, &[]).with_v3_and_below_topics(Vec::new()))?;
        let old = p.add(&name, &[0]).with_v3_and_below_producer_epoch(p.epoch - 1);
        s.ask(&mut c, &step("older epoch"), version, &old)?;
        let other = p.add(&name, &[0]).with_v3_and_below_producer_id(ProducerId(p.producer_id + 100_000));
        s.ask(&mut c, &step("another producer id"), version, &other)?;
        let nobody = p.add(&name, &[0]).with_v3_and_below_transactional_id(TransactionalId(s.own("nobody")));
        s.ask(&mut c, &step("unknown id"), version, &nobody)?;
        let empty = p.add(&name, &[0]).with_v3_and_below_transactional_id(TransactionalId(text("")));
        s.ask(&mut c, &step("empty id"), version, &empty)?;
    }
    p.describe(s, &mut c, "described")?;
    let internal = TopicName(text("__consumer_offsets"));
    s.ask(&mut c, "an internal topic", 3, &p.add(&internal, &[0]))?;
    Ok(())
}

fn verify(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 3, &[])?;
    let name = s.topic("t");
    let p = Producer::new(s, &mut c, "p")?;
    let q = Producer::new(s, &mut c, "q")?;
    let ask = |producer: &Producer, partitions: &[i32], verify_only: bool| {
        AddPartitionsToTxnTransaction::default()
            .with_transactional_id(producer.id.clone())
            .with_producer_id(ProducerId(producer.producer_id))
            .with_producer_epoch(producer.epoch)
            .with_verify_only(verify_only)
            .with_topics(vec![added(&name, partitions)])
    };
    let batch = |transactions: Vec<AddPartitionsToTxnTransaction>| AddPartitionsToTxnRequest::default().with_transactions(transactions);
    for version in [4, 5] {
        let step = |what: &str| format!("v{version} {what}");
        s.ask(&mut c, &step("verify before it is added"), version, &batch(vec![ask(&p, &[0], true)]))?;
        s.ask(&mut c, &step("add"), version, &batch(vec![ask(&p, &[0], false)]))?;
        s.ask(&mut c, &step("verify"), version, &batch(vec![ask(&p, &[0, 1], true)]))?;
        s.ask(&mut c, &step("verify an unknown partition"), version, &batch(vec![ask(&p, &[0, 9], true)]))?;
        let old = ask(&p, &[0], true).with_producer_epoch(p.epoch - 1);
        s.ask(&mut c, &step("verify, older epoch"), version, &batch(vec![old]))?;
        let other = ask(&p, &[0], true).with_producer_id(ProducerId(p.producer_id + 100_000));
        s.ask(&mut c, &step("verify, another producer id"), version, &batch(vec![other]))?;
        let nobody = ask(&p, &[0], true).with_transactional_id(TransactionalId(s.own("nobody")));
        s.ask(&mut c, &step("verify, unknown id"), version, &batch(vec![nobody]))?;
        let empty = ask(&p, &[0], true).with_transactional_id(TransactionalId(text("")));
        s.ask(&mut c, &step("verify, empty id"), version, &batch(vec![empty]))?;
        s.ask(&mut c, &step("two transactions"), version, &batch(vec![ask(&p, &[2], false), ask(&q, &[1], true)]))?;
        c.call(4, &p.end(false))?;
        p.settled(&mut c)?;
        s.ask(&mut c, &step("verify after the end"), version, &batch(vec![ask(&p, &[0], true)]))?;
    }
    p.describe(s, &mut c, "described")
}

fn offsets_of(p: &Producer, group: &GroupId, topic: &TopicName, offsets: &[(i32, i64)]) -> TxnOffsetCommitRequest {
    let partitions = offsets.iter().map(|(partition, offset)| {
        TxnOffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
            .with_committed_metadata(Some(text("m")))
    });
    let topic = TxnOffsetCommitRequestTopic::default().with_name(topic.clone()).with_partitions(partitions.collect());
    TxnOffsetCommitRequest::default()
        .with_transactional_id(p.id.clone())
        .with_group_id(group.clone())
        .with_producer_id(ProducerId(p.producer_id))
        .with_producer_epoch(p.epoch)
        .with_topics(vec![topic])
}

fn add_offsets(p: &Producer, group: &GroupId) -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest::default()
        .with_transactional_id(p.id.clone())
        .with_producer_id(ProducerId(p.producer_id))
        .with_producer_epoch(p.epoch)
        .with_group_id(group.clone())
}

/// The group's offsets, stable and as they are.
fn committed(s: &mut Session, c: &mut Conn, step: &str, group: &GroupId, topic: &TopicName) -> Result<()> {
    let topics = OffsetFetchRequestTopics::default().with_name(topic.clone()).with_partition_indexes(vec![0, 1]);
    let named = OffsetFetchRequestGroup::default().with_group_id(group.clone()).with_topics(Some(vec![topics]));
    let all = OffsetFetchRequestGroup::default().with_group_id(group.clone()).with_topics(None);
    for (what, asked) in [("named", named), ("all", all)] {
        for stable in [false, true] {
            let request = OffsetFetchRequest::default().with_groups(vec![asked.clone()]).with_require_stable(stable);
            let kind = if stable { "stable" } else { "any" };
            s.ask(c, &format!("{step}, {what} offsets, {kind}"), 8, &request)?;
        }
    }
    Ok(())
}

fn offsets(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 2, &[])?;
    let name = s.topic("t");
    let mut p = Producer::new(s, &mut c, "p")?;
    for version in 0..=4 {
        let group = s.group(&format!("g{version}"));
        s.ask(&mut c, &format!("v{version} add offsets"), version.min(4), &add_offsets(&p, &group))?;
        let request = offsets_of(&p, &group, &name, &[(0, 5), (1, 6), (9, 7)]);
        s.ask(&mut c, &format!("v{version} commit"), version, &request)?;
        committed(s, &mut c, &format!("v{version} open"), &group, &name)?;
        c.call(4, &p.end(version % 2 == 0))?;
        p.settled(&mut c)?;
        committed(s, &mut c, &format!("v{version} ended"), &group, &name)?;
    }
    let group = s.group("g5");
    s.ask(&mut c, "v5 commit", 5, &offsets_of(&p, &group, &name, &[(0, 8)]))?;
    p.describe(s, &mut c, "v5 described")?;
    p.end_v2(&mut c, true)?;
    committed(s, &mut c, "v5 committed", &group, &name)?;
    s.ask(&mut c, "v5 commit to be aborted", 5, &offsets_of(&p, &group, &name, &[(0, 9), (1, 2)]))?;
    committed(s, &mut c, "v5 open", &group, &name)?;
    p.end_v2(&mut c, false)?;
    committed(s, &mut c, "v5 aborted", &group, &name)
}

fn offset_errors(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 2, &[])?;
    let (name, group) = (s.topic("t"), s.group("g"));
    let p = Producer::new(s, &mut c, "p")?;
    for version in 0..=4 {
        let step = |what: &str| format!("v{version} {what}");
        s.ask(&mut c, &step("not added"), version, &offsets_of(&p, &group, &name, &[(0, 1)]))?;
        s.ask(&mut c, &step("add offsets, older epoch"), version, &add_offsets(&p, &group).with_producer_epoch(p.epoch - 1))?;
        let other = add_offsets(&p, &group).with_producer_id(ProducerId(p.producer_id + 100_000));
        s.ask(&mut c, &step("add offsets, another producer id"), version, &other)?;
        let nobody = add_offsets(&p, &group).with_transactional_id(TransactionalId(s.own("nobody")));
        s.ask(&mut c, &step("add offsets, unknown id"), version, &nobody)?;
    }
    c.call(4, &add_offsets(&p, &group))?;
    for version in [3, 4, 5] {
        let step = |what: &str| format!("v{version} {what}");
        let good = || offsets_of(&p, &group, &name, &[(0, 1)]);
        s.ask(&mut c, &step("older epoch"), version, &good().with_producer_epoch(p.epoch - 1))?;
        s.ask(&mut c, &step("future epoch"), version, &good().with_producer_epoch(p.epoch + 1))?;
        s.ask(&mut c, &step("another producer id"), version, &good().with_producer_id(ProducerId(p.producer_id + 100_000)))?;
        s.ask(&mut c, &step("unknown id"), version, &good().with_transactional_id(TransactionalId(s.own("nobody"))))?;
        s.ask(&mut c, &step("empty id"), version, &good().with_transactional_id(TransactionalId(text(""))))?;
        s.ask(&mut c, &step("empty group"), version, &good().with_group_id(GroupId(text(""))))?;
        s.ask(&mut c, &step("a generation of no group"), version, &good().with_generation_id(3).with_member_id(text("m")))?;
        s.ask(&mut c, &step("a member of no group"), version, &good().with_member_id(text("m")))?;
        let large = "x".repeat(5_000);
        let mut too_large = offsets_of(&p, &group, &name, &[(0, 1), (1, 1)]);
        too_large.topics[0].partitions[1].committed_metadata = Some(text(&large));
        s.ask(&mut c, &step("too much metadata"), version, &too_large)?;
        let unknown = offsets_of(&p, &group, &s.topic("unknown"), &[(0, 1)]);
        s.ask(&mut c, &step("unknown topic"), version, &unknown)?;
        s.ask(&mut c, &step("no topics"), version, &good().with_topics(Vec::new()))?;
    }
    Ok(())
}

fn fencing(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 2, &[])?;
    let (name, topic, group) = (s.topic("t"), Topic::Name(s.topic("t")), s.group("g"));
    let mut old = Producer::new(s, &mut c, "p")?;
    c.call(3, &old.add(&name, &[0]))?;
    old.produce(s, &mut c, "the old producer begins", 11, &topic, 0)?;
    s.ask(&mut c, "a new producer comes", 4, &init(&old.id))?;
    old.settled(&mut c)?;
    old.describe(s, &mut c, "what was open is aborted")?;
    old.produce(s, &mut c, "the old one produces", 11, &topic, 0)?;
    let sequence = std::mem::take(&mut old.sequence);
    old.produce(s, &mut c, "the old one produces elsewhere", 9, &topic, 1)?;
    old.sequence = sequence;
    for version in [1, 2] {
        s.ask(&mut c, &format!("v{version} the old one adds a partition"), version, &old.add(&name, &[1]))?;
        s.ask(&mut c, &format!("v{version} the old one adds offsets"), version, &add_offsets(&old, &group))?;
        s.ask(&mut c, &format!("v{version} the old one commits"), version, &old.end(true))?;
    }
    s.ask(&mut c, "the old one commits offsets", 3, &offsets_of(&old, &group, &name, &[(0, 1)]))?;
    for version in [3, 4] {
        let mine = init(&old.id).with_producer_id(ProducerId(old.producer_id)).with_producer_epoch(old.epoch);
        s.ask(&mut c, &format!("v{version} the old one recovers"), version, &mine)?;
    }
    s.ask(&mut c, "the new producer tries again", 4, &init(&old.id))?;
    read(s, &mut c, "at the end", &name, 0)
}

fn markers(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 2, &[])?;
    let (name, topic) = (s.topic("t"), Topic::Name(s.topic("t")));
    let mut p = Producer::new(s, &mut c, "p")?;
    p.init(&mut c)?;
    p.produce(s, &mut c, "produce", 12, &topic, 0)?;
    let marker = |producer: &Producer, partitions: &[i32]| {
        let topic = WritableTxnMarkerTopic::default().with_name(name.clone()).with_partition_indexes(partitions.to_vec());
        WritableTxnMarker::default()
            .with_producer_id(ProducerId(producer.producer_id))
            .with_producer_epoch(producer.epoch)
            .with_coordinator_epoch(5)
            .with_transaction_result(false)
            .with_topics(vec![topic])
    };
    let request = |markers: Vec<WritableTxnMarker>| WriteTxnMarkersRequest::default().with_markers(markers);
    s.ask(&mut c, "none", 1, &request(Vec::new()))?;
    s.ask(&mut c, "older epoch", 1, &request(vec![marker(&p, &[0]).with_producer_epoch(p.epoch - 1)]))?;
    s.ask(&mut c, "unknown partition", 1, &request(vec![marker(&p, &[7])]))?;
    s.ask(&mut c, "abort", 1, &request(vec![marker(&p, &[0])]))?;
    s.ask(&mut c, "abort again", 1, &request(vec![marker(&p, &[0])]))?;
    s.ask(&mut c, "older coordinator", 1, &request(vec![marker(&p, &[0]).with_coordinator_epoch(4)]))?;
    s.ask(&mut c, "newer epoch", 1, &request(vec![marker(&p, &[0, 1]).with_producer_epoch(p.epoch + 4)]))?;
    s.ask(&mut c, "producers", 0, &producers_of(&name, &[0, 1]))?;
    read(s, &mut c, "marked", &name, 0)?;
    p.describe(s, &mut c, "the coordinator knows nothing of it")
}

fn describe(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 1, &[])?;
    let (name, topic) = (s.topic("t"), Topic::Name(s.topic("t")));
    let mut p = Producer::new(s, &mut c, "p")?;
    p.produce(s, &mut c, "produce", 12, &topic, 0)?;
    s.ask(&mut c, "producers", 0, &producers_of(&name, &[0, 5]))?;
    s.ask(&mut c, "producers of an unknown topic", 0, &producers_of(&s.topic("unknown"), &[0]))?;
    s.ask(&mut c, "producers of an impossible topic", 0, &producers_of(&TopicName(text("a b")), &[0]))?;
    s.ask(&mut c, "producers of nothing", 0, &producers_of(&name, &[]))?;
    let ids = [p.id.clone(), TransactionalId(s.own("unknown")), TransactionalId(text(""))];
    s.ask(&mut c, "described", 0, &DescribeTransactionsRequest::default().with_transactional_ids(ids.to_vec()))?;
    s.ask(&mut c, "described, none", 0, &DescribeTransactionsRequest::default())?;
    let mine = || ListTransactionsRequest::default().with_producer_id_filters(vec![ProducerId(p.producer_id)]).with_duration_filter(-1);
    for version in 0..=2 {
        let step = |what: &str| format!("list v{version} {what}");
        s.ask(&mut c, &step("by producer"), version, &mine())?;
        s.ask(&mut c, &step("by state"), version, &mine().with_state_filters(vec![text("Ongoing"), text("Nonsense")]))?;
        let others = ["Empty", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "PrepareEpochFence", "Dead", "ongoing"];
        s.ask(&mut c, &step("by other states"), version, &mine().with_state_filters(others.map(text).to_vec()))?;
    }
    for duration_ms in [0, 1, 3_600_000] {
        std::thread::sleep(std::time::Duration::from_millis(5));
        s.ask(&mut c, &format!("list longer than {duration_ms} ms"), 1, &mine().with_duration_filter(duration_ms))?;
    }
    let own = p.id.0.to_string();
    let own_dots = own.replace('-', ".");
    for pattern in ["", "nothing", own.as_str(), own_dots.as_str(), ".*", "p", ".*p", "(", "["] {
        let what = pattern.replace(&own, "ID").replace(&own_dots, "ID with dots");
        s.ask(&mut c, &format!("list by pattern '{what}'"), 2, &mine().with_transactional_id_pattern(Some(text(pattern))))?;
    }
    Ok(())
}

/// Where a transactional id may stand, and how it got there.
const STATES: [&str; 7] = ["empty", "ongoing v1", "ongoing v2", "committed v1", "aborted v1", "committed v2", "aborted v2"];

/// A new transactional id in one of `STATES`, with an epoch of at least 1.
fn producer_in(s: &mut Session, c: &mut Conn, short: &str, state: &str, topic: &TopicName) -> Result<Producer> {
    let mut p = Producer::new(s, c, short)?;
    p.init(c)?;
    if state == "empty" {
        return Ok(p);
    }
    if state.ends_with("v1") {
        c.call(3, &p.add(topic, &[0]))?;
    } else {
        c.call(5, &p.add_batched(topic, 0))?;
    }
    let commit = state.starts_with("committed");
    if state.ends_with("v1") && !state.starts_with("ongoing") {
        c.call(4, &p.end(commit))?;
        p.settled(c)?;
    } else if !state.starts_with("ongoing") {
        p.end_v2(c, commit)?;
    }
    Ok(p)
}

/// EndTxn by both protocols, with the epoch before, in force and after, in every state that lasts.
fn ends_in_every_state(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 2, &[])?;
    let name = s.topic("t");
    for (number, state) in STATES.into_iter().enumerate() {
        for version in [4, 5] {
            for (commit, outcome) in [(true, "commit"), (false, "abort")] {
                for (off, which) in [(-1, "older"), (0, "current"), (1, "newer")] {
                    let p = producer_in(s, &mut c, &format!("{number}-{version}-{outcome}-{which}"), state, &name)?;
                    let step = format!("{state}: v{version} {outcome}, {which} epoch");
                    s.ask(&mut c, &step, version, &p.end(commit).with_producer_epoch(p.epoch + off))?;
                    p.settled(&mut c)?;
                    p.describe(s, &mut c, &format!("{step}, then"))?;
                }
            }
        }
    }
    Ok(())
}

/// InitProducerId and all that adds to a transaction, with the epoch before, in force and after, in every state that lasts.
fn begins_in_every_state(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 2, &[])?;
    let (name, group) = (s.topic("t"), s.group("g"));
    for (number, state) in STATES.into_iter().enumerate() {
        let p = producer_in(s, &mut c, &format!("{number}-new"), state, &name)?;
        s.ask(&mut c, &format!("{state}: a new producer"), 4, &init(&p.id))?;
        p.settled(&mut c)?;
        p.describe(s, &mut c, &format!("{state}: a new producer, then"))?;
        for (off, which) in [(-1, "older"), (0, "current"), (1, "newer")] {
            for what in ["recover", "add v3", "add v4", "add v5", "add offsets"] {
                let mut p = producer_in(s, &mut c, &format!("{number}-{}-{which}", what.replace(' ', "-")), state, &name)?;
                p.epoch += off;
                let step = format!("{state}: {what}, {which} epoch");
                let mine = init(&p.id).with_producer_id(ProducerId(p.producer_id)).with_producer_epoch(p.epoch);
                match what {
                    "recover" => drop(s.ask(&mut c, &step, 4, &mine)?),
                    "add v3" => drop(s.ask(&mut c, &step, 3, &p.add(&name, &[1]))?),
                    "add v4" => drop(s.ask(&mut c, &step, 4, &p.add_batched(&name, 1))?),
                    "add v5" => drop(s.ask(&mut c, &step, 5, &p.add_batched(&name, 1))?),
                    _ => drop(s.ask(&mut c, &step, 4, &add_offsets(&p, &group))?),
                }
                p.settled(&mut c)?;
                p.describe(s, &mut c, &format!("{step}, then"))?;
                if what == "recover" {
                    s.ask(&mut c, &format!("{step}, once more"), 4, &mine)?;
                }
            }
        }
    }
    Ok(())
}

fn timeout(s: &mut Session) -> Result<()> {
    let mut c = s.connect()?;
    s.create_topic(&mut c, "t", 1, &[])?;
    let (name, topic) = (s.topic("t"), Topic::Name(s.topic("t")));
    let mut p = Producer::new(s, &mut c, "p")?;
    let answer = c.call(4, &init(&p.id).with_transaction_timeout_ms(500))?;
    p.epoch = answer.producer_epoch;
    p.produce(s, &mut c, "produce", 12, &topic, 0)?;
    let id = p.id.clone();
    c.wait_for(|c| {
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![id.clone()]);
        Ok(&*c.call(0, &request)?.transaction_states[0].transaction_state == "CompleteAbort")
    })?;
    p.describe(s, &mut c, "aborted by the coordinator")?;
    s.ask(&mut c, "commit", 5, &p.end(true))?;
    p.produce(s, &mut c, "produce more", 12, &topic, 0)?;
    s.ask(&mut c, "commit by the old protocol", 4, &p.end(true))?;
    s.ask(&mut c, "producers", 0, &producers_of(&name, &[0]))?;
    read(s, &mut c, "aborted", &name, 0)?;
    let mine = init(&p.id).with_producer_id(ProducerId(p.producer_id)).with_producer_epoch(p.epoch);
    s.ask(&mut c, "recover", 4, &mine)?;
    Ok(())
}
