//! Produce load: the same batch again and again, the partitions in turn, so many requests in flight.

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{bail, ensure};
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use siltstone_log::batch::Compression;
use siltstone_log::records::BatchBuilder;

use crate::Target;
use crate::connection::{connect, decode, frame, read_frame, topic_name};
use crate::cpu::Meter;

const VERSION: i16 = 9;

/// What the batches look like, and how they are sent.
pub struct Shape {
    pub record_bytes: usize,
    pub batch_bytes: usize,
    pub in_flight: usize,
    pub codec: String,
    pub acks: i16,
}

/// Runs the load; prints the broker's cost per GB of batches.
pub fn run(target: &Target, shape: &Shape) -> anyhow::Result<()> {
    let stream = connect(&target.broker, &target.topic())?;
    let (frames, batch_bytes) = frames(target, shape)?;
    let count = |gigabytes: f64| (gigabytes * 1e9 / batch_bytes as f64) as u64 + 1;
    until_led(&stream, &frames, shape)?;
    send(&stream, &frames, shape, count(target.warm_up))?;
    let meter = Meter::process(target.pid)?;
    let requests = count(target.gigabytes);
    let mut latencies = send(&stream, &frames, shape, requests)?;
    latencies.sort_unstable();
    let what = format!("produce, {} B records, {}, {} partitions, acks={}", shape.record_bytes, shape.codec, target.partitions, shape.acks);
    meter.report(&what, requests * batch_bytes as u64)?;
    let quantile = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).map_or(0.0, |latency| latency.as_secs_f64() * 1e3);
    println!("latency: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms", quantile(0.5), quantile(0.99), quantile(0.999));
    Ok(())
}

/// Sends one batch to each partition until it is taken: a topic's leaders may need a moment after its creation.
fn until_led(stream: &TcpStream, frames: &[Vec<u8>], shape: &Shape) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    for frame in frames.iter().filter(|_| shape.acks != 0) {
        while let Err(error) = send(stream, std::slice::from_ref(frame), shape, 1) {
            ensure!(Instant::now() < deadline && error.is::<Refused>(), "partition is not served: {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Error codes of an answer.
#[derive(Debug)]
struct Refused(Vec<i16>);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "produce failed with {:?}", self.0)
    }
}

impl std::error::Error for Refused {}

/// One ready frame per partition, and the size of the batch in each.
fn frames(target: &Target, shape: &Shape) -> anyhow::Result<(Vec<Vec<u8>>, usize)> {
    let codec = match shape.codec.as_str() {
        "none" => Compression::None,
        "lz4" => Compression::Lz4,
        other => bail!("unknown codec '{other}': use none or lz4"),
    };
    // Old timestamps would fall to retention at once.
    let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let mut builder = BatchBuilder::new(codec);
    let mut seed = 1u32;
    for index in 0..(shape.batch_bytes / shape.record_bytes).max(1) {
        // Half of each value is random, half is constant: it compresses to about a half.
        let value: Vec<u8> = (0..shape.record_bytes)
            .map(|at| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if at % 2 == 0 { (seed >> 24) as u8 } else { b'x' }
            })
            .collect();
        builder.record(now_ms + index as i64, None, Some(&value), &[]);
    }
    let batch = builder.build().freeze();
    let one = |partition: i32| {
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch.clone()));
        let topic = TopicProduceData::default().with_name(topic_name(&target.topic)).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(shape.acks).with_timeout_ms(30_000).with_topic_data(vec![topic]);
        frame(partition, VERSION, &request).map(|frame| frame.to_vec())
    };
    Ok(((0..target.partitions).map(one).collect::<anyhow::Result<_>>()?, batch.len()))
}

/// Sends so many requests; how long each took.
fn send(stream: &TcpStream, frames: &[Vec<u8>], shape: &Shape, requests: u64) -> anyhow::Result<Vec<Duration>> {
    let (permit, permits) = mpsc::sync_channel::<()>(shape.in_flight.max(1));
    let (start, starts) = mpsc::channel::<Instant>();
    let (mut writer, mut reader) = (stream.try_clone()?, stream.try_clone()?);
    std::thread::scope(|scope| {
        let answers = scope.spawn(move || -> anyhow::Result<Vec<Duration>> {
            let mut latencies = Vec::new();
            if shape.acks == 0 {
                permits.iter().take(usize::try_from(requests)?).for_each(drop);
                return Ok(latencies);
            }
            let mut buffer = Vec::new();
            for _ in 0..requests {
                read_frame(&mut reader, &mut buffer)?;
                let answer = decode::<ProduceRequest>(&buffer, VERSION)?;
                let codes = answer.responses.iter().flat_map(|topic| &topic.partition_responses).map(|partition| partition.error_code);
                if codes.clone().any(|code| code != 0) {
                    return Err(Refused(codes.collect()).into());
                }
                latencies.push(starts.recv()?.elapsed());
                permits.recv()?;
            }
            Ok(latencies)
        });
        for request in 0..requests {
            if permit.send(()).is_err() || (shape.acks != 0 && start.send(Instant::now()).is_err()) {
                break;
            }
            writer.write_all(&frames[request as usize % frames.len()])?;
        }
        drop(permit);
        answers.join().unwrap_or_else(|_| bail!("the reader panicked"))
    })
}
