//! What consumer groups (KIP-848) cost a broker that does nothing else: groups full of members whose heartbeats have no news.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::ensure;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, FindCoordinatorRequest, GroupId};
use kafka_protocol::protocol::StrBytes;

use crate::connection::{Topic, connect, decode, frame, read_frame, topic_name};
use crate::cpu::seconds;

const VERSION: i16 = 1;
/// Requests that are sent before their answers are read.
const BURST: usize = 100;
/// Rounds in which all groups must have settled.
const ROUNDS_MAX: usize = 100;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const LOAD_IN_PROGRESS: i16 = 14;

/// How much load.
pub struct Shape {
    pub groups: usize,
    pub members: usize,
    /// `group.consumer.heartbeat.interval.ms`
    pub interval: Duration,
    /// How long to measure.
    pub time: Duration,
}

/// A member and what it believes.
struct Client {
    group: GroupId,
    id: StrBytes,
    epoch: i32,
    owned: Vec<TopicPartitions>,
}

fn text(text: String) -> StrBytes {
    StrBytes::from_string(text)
}

impl Client {
    fn heartbeat(&self, topic: &str, is_full: bool) -> ConsumerGroupHeartbeatRequest {
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(self.group.clone())
            .with_member_id(self.id.clone())
            .with_member_epoch(self.epoch)
            .with_rebalance_timeout_ms(if is_full { 60_000 } else { -1 });
        let owned = is_full.then(|| if self.epoch == 0 { Vec::new() } else { self.owned.clone() });
        request.with_subscribed_topic_names(is_full.then(|| vec![topic_name(topic)])).with_topic_partitions(owned)
    }

    fn hear(&mut self, answer: ConsumerGroupHeartbeatResponse) -> anyhow::Result<bool> {
        if matches!(answer.error_code, COORDINATOR_NOT_AVAILABLE | LOAD_IN_PROGRESS) {
            return Ok(false);
        }
        ensure!(answer.error_code == 0, "error {}: {:?}", answer.error_code, answer.error_message);
        let is_settled = self.epoch == answer.member_epoch;
        self.epoch = answer.member_epoch;
        if let Some(assignment) = answer.assignment {
            let owned = assignment.topic_partitions.into_iter();
            let owned = owned.map(|topic| TopicPartitions::default().with_topic_id(topic.topic_id).with_partitions(topic.partitions));
            let owned: Vec<TopicPartitions> = owned.collect();
            let same = owned == self.owned;
            self.owned = owned;
            return Ok(is_settled && same);
        }
        Ok(is_settled)
    }
}

/// One heartbeat of each client; true if none had news.
fn beat(stream: &mut TcpStream, clients: &mut [Client], topic: &str, is_full: bool) -> anyhow::Result<bool> {
    let mut buffer = Vec::new();
    let mut are_settled = true;
    for burst in clients.chunks_mut(BURST) {
        let mut frames = bytes::BytesMut::new();
        for client in burst.iter() {
            frames.extend_from_slice(&frame(1, VERSION, &client.heartbeat(topic, is_full))?);
        }
        stream.write_all(&frames)?;
        for client in burst {
            read_frame(stream, &mut buffer)?;
            are_settled &= client.hear(decode::<ConsumerGroupHeartbeatRequest>(&buffer, VERSION)?)?;
        }
    }
    Ok(are_settled)
}

/// Fills the groups, lets them settle, and measures the broker while every member beats at its interval.
pub fn run(broker: &str, pid: u32, topic: &str, shape: &Shape) -> anyhow::Result<()> {
    let mut stream = connect(broker, &Topic { name: topic, partitions: i32::try_from(shape.members)?, configs: Vec::new() })?;
    let find = FindCoordinatorRequest::default().with_key(text("bench".to_owned()));
    stream.write_all(&frame(0, 3, &find)?)?;
    read_frame(&mut stream, &mut Vec::new())?;
    let group = |number: usize| GroupId(text(format!("bench-{number}")));
    let members = (0..shape.groups).flat_map(|number| (0..shape.members).map(move |member| (number, member)));
    let client = |(number, member): (usize, usize)| Client {
        group: group(number),
        id: text(format!("member-{number}-{member}")),
        epoch: 0,
        owned: Vec::new(),
    };
    let mut clients: Vec<Client> = members.map(client).collect();
    let begun = Instant::now();
    let mut rounds = 0;
    while !beat(&mut stream, &mut clients, topic, true)? {
        rounds += 1;
        ensure!(rounds < ROUNDS_MAX, "the groups do not settle");
    }
    println!("{} members in {} groups settled in {:.1} s", clients.len(), shape.groups, begun.elapsed().as_secs_f64());

    let stat = format!("/proc/{pid}/stat");
    let (cpu, begun) = (seconds(&stat)?, Instant::now());
    let bursts = clients.len().div_ceil(BURST);
    let pause = shape.interval / u32::try_from(bursts)?;
    let mut sent = 0u64;
    let mut due = begun;
    while begun.elapsed() < shape.time {
        for burst in clients.chunks_mut(BURST) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due += pause;
            beat(&mut stream, burst, topic, false)?;
            sent += burst.len() as u64;
            if begun.elapsed() >= shape.time {
                break;
            }
        }
    }
    let (cpu, elapsed) = (seconds(&stat)? - cpu, begun.elapsed().as_secs_f64());
    println!(
        "steady: {:.1} % of a core, {:.0} heartbeats/s, {:.1} µs CPU each",
        100.0 * cpu / elapsed,
        sent as f64 / elapsed,
        1e6 * cpu / sent as f64
    );
    Ok(())
}
