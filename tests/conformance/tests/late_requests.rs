//! F20, I20: a proxy holds an EndTxn or a Produce of a transaction back and releases it once a later transaction has begun; the later one must not
//! notice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result, ensure};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, EndTxnRequest, FetchRequest, FindCoordinatorRequest, InitProducerIdRequest, ProducerId, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use siltstone_conformance::batch::Batch;
use siltstone_conformance::scenarios::requests::{Topic, fetch, produce, text};
use siltstone_conformance::{Conn, Session, brokers};

const PRODUCE: i16 = 0;
const END_TXN: i16 = 26;
const TRANSACTIONAL: i16 = 0x10;

/// Passes one connection's requests on, but holds back the first of one API until it is told.
struct Proxy {
    addr: SocketAddr,
    release: Sender<()>,
    held: Receiver<()>,
}

impl Proxy {
    fn start(broker: SocketAddr, api_key: i16) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        let (release, released) = channel();
        let (holds, held) = channel();
        std::thread::spawn(move || -> Result<()> {
            let (mut client, _) = listener.accept()?;
            let mut upstream = TcpStream::connect(broker)?;
            let (mut answers, mut back) = (upstream.try_clone()?, client.try_clone()?);
            std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
            loop {
                let mut length = [0; 4];
                client.read_exact(&mut length)?;
                let mut frame = vec![0; u32::from_be_bytes(length) as usize];
                client.read_exact(&mut frame)?;
                if i16::from_be_bytes([frame[0], frame[1]]) == api_key {
                    holds.send(())?;
                    released.recv()?;
                }
                upstream.write_all(&length)?;
                upstream.write_all(&frame)?;
            }
        });
        Ok(Proxy { addr, release, held })
    }
}

struct Producer {
    id: TransactionalId,
    producer_id: i64,
    epoch: i16,
}

impl Producer {
    fn new(c: &mut Conn, id: &str) -> Result<Producer> {
        let id = TransactionalId(text(id));
        let find = FindCoordinatorRequest::default().with_key(id.0.clone()).with_key_type(1);
        c.wait_for(|c| Ok(c.call(3, &find)?.error_code == 0))?;
        let request = InitProducerIdRequest::default().with_transactional_id(Some(id.clone())).with_transaction_timeout_ms(60_000);
        let mut answer = None;
        c.wait_for(|c| {
            answer = Some(c.call(4, &request)?).filter(|answer| answer.error_code == 0);
            Ok(answer.is_some())
        })?;
        let answer = answer.context("an answer")?;
        Ok(Producer { id, producer_id: answer.producer_id.0, epoch: answer.producer_epoch })
    }

    fn produce(&self, topic: &Topic, sequence: i32, value: &str) -> kafka_protocol::messages::ProduceRequest {
        let batch = Batch::of(1, 1_700_000_000_000).from_producer(self.producer_id, self.epoch, sequence).with(|batch| {
            batch.attributes = TRANSACTIONAL;
            batch.records[0].1 = Some(value.to_owned().into());
        });
        produce(topic, &[(0, &batch)]).with_transactional_id(Some(self.id.clone()))
    }

    fn end(&self, commit: bool) -> EndTxnRequest {
        EndTxnRequest::default()
            .with_transactional_id(self.id.clone())
            .with_producer_id(ProducerId(self.producer_id))
            .with_producer_epoch(self.epoch)
            .with_committed(commit)
    }

    fn end_and_go_on(&mut self, c: &mut Conn, commit: bool) -> Result<()> {
        let answer = c.call(5, &self.end(commit))?;
        ensure!(answer.error_code == 0, "EndTxn: {}", answer.error_code);
        (self.producer_id, self.epoch) = (answer.producer_id.0, answer.producer_epoch);
        Ok(())
    }

    fn state(&self, c: &mut Conn) -> Result<StrBytes> {
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![self.id.clone()]);
        Ok(c.call(0, &request)?.transaction_states.remove(0).transaction_state)
    }

    fn settled(&self, c: &mut Conn) -> Result<()> {
        c.wait_for(|c| Ok(!self.state(c)?.starts_with("Prepare")))
    }
}

fn send(c: &mut Conn, request: &kafka_protocol::messages::ProduceRequest) -> Result<i16> {
    Ok(c.call(12, request)?.responses[0].partition_responses[0].error_code)
}

/// How many batches readers of committed records see, and how many aborted transactions they are told of.
fn committed(c: &mut Conn, topic: &Topic) -> Result<(usize, usize)> {
    let request: FetchRequest = fetch(topic, &[(0, 0, 1 << 20)]).with_isolation_level(1);
    let mut answer = c.call(12, &request)?;
    let mut partition = answer.responses.remove(0).partitions.remove(0);
    let records = partition.records.take().unwrap_or_default();
    let batches = siltstone_conformance::batch::describe(&records);
    Ok((batches.as_array().map_or(0, Vec::len), partition.aborted_transactions.map_or(0, |aborted| aborted.len())))
}

#[test]
fn a_held_end_of_a_transaction_does_not_end_the_next_one() {
    let broker = brokers::start_siltstone(&[]).expect("siltstone starts");
    let session = Session::new(broker.addr, "late-end");
    let mut c = session.connect().expect("connects");
    session.create_topic(&mut c, "t", 1, &[]).expect("creates");
    let topic = Topic::Name(session.topic("t"));
    for held_commit in [true, false] {
        let mut producer = Producer::new(&mut c, &format!("late-end-{held_commit}")).expect("a producer");
        let proxy = Proxy::start(broker.addr, END_TXN).expect("a proxy");
        let mut slow = Conn::open(proxy.addr).expect("connects");
        assert_eq!(send(&mut c, &producer.produce(&topic, 0, "first")).expect("produces"), 0);
        let late = producer.end(held_commit);
        slow.send(5, &late).expect("sends");
        proxy.held.recv().expect("the proxy holds it");
        // The client gives up on that connection and asks again on another.
        producer.end_and_go_on(&mut c, held_commit).expect("ends");
        producer.settled(&mut c).expect("settles");
        assert_eq!(send(&mut c, &producer.produce(&topic, 0, "second")).expect("produces"), 0);
        proxy.release.send(()).expect("releases");
        let answer = slow.hear_answer::<EndTxnRequest>(5).expect("an answer");
        assert_ne!(answer.error_code, 0, "I20: an EndTxn of the transaction before was taken for this one's");
        assert_eq!(&*producer.state(&mut c).expect("a state"), "Ongoing", "I20");
        producer.end_and_go_on(&mut c, !held_commit).expect("ends as its own client says");
        producer.settled(&mut c).expect("settles");
    }
    // first, marker, second, marker; twice; one of each pair aborted.
    assert_eq!(committed(&mut c, &topic).expect("reads"), (8, 2));
}

#[test]
fn a_held_batch_of_a_transaction_does_not_get_into_the_next_one() {
    let broker = brokers::start_siltstone(&[]).expect("siltstone starts");
    let session = Session::new(broker.addr, "late-produce");
    let mut c = session.connect().expect("connects");
    session.create_topic(&mut c, "t", 1, &[]).expect("creates");
    let topic = Topic::Name(session.topic("t"));
    let mut producer = Producer::new(&mut c, "late-produce").expect("a producer");
    let proxy = Proxy::start(broker.addr, PRODUCE).expect("a proxy");
    let mut slow = Conn::open(proxy.addr).expect("connects");
    assert_eq!(send(&mut c, &producer.produce(&topic, 0, "first")).expect("produces"), 0);
    slow.send(12, &producer.produce(&topic, 1, "late")).expect("sends");
    proxy.held.recv().expect("the proxy holds it");
    // The client gives up on the batch, and on the transaction.
    producer.end_and_go_on(&mut c, false).expect("aborts");
    producer.settled(&mut c).expect("settles");
    assert_eq!(send(&mut c, &producer.produce(&topic, 0, "second")).expect("produces"), 0);
    proxy.release.send(()).expect("releases");
    let answer = slow.hear_answer::<kafka_protocol::messages::ProduceRequest>(12).expect("an answer");
    assert_ne!(answer.responses[0].partition_responses[0].error_code, 0, "I20: a batch of the transaction before got into this one");
    producer.end_and_go_on(&mut c, true).expect("commits");
    producer.settled(&mut c).expect("settles");
    // first, its abort, second, its commit.
    assert_eq!(committed(&mut c, &topic).expect("reads"), (4, 1));
}
