//! Fetch load: all partitions from their first offsets to their ends, and again, until enough was read.

use std::io::Write;

use anyhow::{bail, ensure};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};

use crate::Target;
use crate::connection::{connect, decode, frame, read_frame, topic_name};
use crate::cpu::Meter;

const VERSION: i16 = 11;
const MAX_BYTES: i32 = 50 << 20;
/// Where the length, and the last offset's delta, stand in a batch.
const LENGTH_AT: usize = 8;
const LAST_DELTA_AT: usize = 23;

/// Runs the load; prints the broker's cost per GB of batches.
pub fn run(target: &Target, partition_bytes: i32, from_offset: i64) -> anyhow::Result<()> {
    let mut reader = Reader {
        stream: connect(&target.broker, &target.topic())?,
        topic: target.topic.clone(),
        partition_bytes,
        from_offset,
        offsets: vec![from_offset; usize::try_from(target.partitions)?],
        buffer: Vec::new(),
    };
    reader.read((target.warm_up * 1e9) as u64)?;
    let meter = Meter::process(target.pid)?;
    let bytes = reader.read((target.gigabytes * 1e9) as u64)?;
    meter.report(&format!("fetch, {} partitions, {} B each", target.partitions, partition_bytes), bytes)
}

struct Reader {
    stream: std::net::TcpStream,
    topic: String,
    partition_bytes: i32,
    from_offset: i64,
    offsets: Vec<i64>,
    buffer: Vec<u8>,
}

impl Reader {
    /// Reads at least `wanted` bytes of batches; how many it were.
    fn read(&mut self, wanted: u64) -> anyhow::Result<u64> {
        let (mut total, mut empty) = (0, 0);
        while total < wanted {
            let read = self.once()?;
            total += read;
            if read == 0 {
                empty += 1;
                ensure!(empty < 100, "nothing to read: produce into the topic first");
                self.offsets.fill(self.from_offset);
            } else {
                empty = 0;
            }
        }
        Ok(total)
    }

    fn once(&mut self) -> anyhow::Result<u64> {
        let partition = |(index, offset): (usize, &i64)| {
            FetchPartition::default().with_partition(index as i32).with_fetch_offset(*offset).with_partition_max_bytes(self.partition_bytes)
        };
        let partitions = self.offsets.iter().enumerate().map(partition).collect();
        let topic = FetchTopic::default().with_topic(topic_name(&self.topic)).with_partitions(partitions);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(0)
            .with_min_bytes(1)
            .with_max_bytes(MAX_BYTES)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        self.stream.write_all(&frame(1, VERSION, &request)?)?;
        read_frame(&mut self.stream, &mut self.buffer)?;
        let answer = decode::<FetchRequest>(&self.buffer, VERSION)?;
        ensure!(answer.error_code == 0, "fetch failed with {}", answer.error_code);
        let mut total = 0;
        for partition in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            ensure!(partition.error_code == 0, "partition {} failed with {}", partition.partition_index, partition.error_code);
            let records = partition.records.as_ref().map_or(&[][..], Bytes::as_ref);
            if let Some(next) = next_offset(records)? {
                self.offsets[usize::try_from(partition.partition_index)?] = next;
            }
            total += records.len() as u64;
        }
        Ok(total)
    }
}

/// The offset after the last whole batch.
fn next_offset(mut records: &[u8]) -> anyhow::Result<Option<i64>> {
    let mut next = None;
    while let (Some(base), Some(length)) = (records.first_chunk::<8>(), records.get(LENGTH_AT..LENGTH_AT + 4)) {
        let size = 12 + u32::from_be_bytes(length.try_into()?) as usize;
        let Some(batch) = records.get(..size) else { break };
        let Some(delta) = batch.get(LAST_DELTA_AT..LAST_DELTA_AT + 4) else { bail!("a batch of {size} bytes") };
        next = Some(i64::from_be_bytes(*base) + i64::from(i32::from_be_bytes(delta.try_into()?)) + 1);
        records = &records[size..];
    }
    Ok(next)
}
