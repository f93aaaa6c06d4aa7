//! `siltstone produce`: lines of standard input as records.

use std::collections::BTreeMap;
use std::io::BufRead;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use siltstone_common::clock::{Clock, SystemClock};
use siltstone_kafka_server::client::{Client, ProducedRecord};
use siltstone_log::batch::Compression;

use super::Connect;

/// Records in one batch at most.
const BATCH_RECORDS_MAX: usize = 5_000;
/// Bytes in one batch at most.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// A codec.
#[derive(Copy, Clone, Debug, ValueEnum)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}

/// Sends lines of standard input.
#[derive(Debug, Args)]
pub struct ProduceOptions {
    /// The topic; made if the broker allows it.
    topic: String,
    /// Send everything to this partition; else by key, or in turn.
    #[arg(long)]
    partition: Option<i32>,
    /// What stands between key and value of a line; without it lines have no key.
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// Codec.
    #[arg(long, value_enum, default_value = "none")]
    compression: Codec,
    #[command(flatten)]
    connect: Connect,
}

/// Runs it.
pub async fn run(options: ProduceOptions) -> anyhow::Result<()> {
    let mut client = options.connect.client().await?;
    let partitions = client.partition_count(&options.topic).await?.max(1);
    let progress = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {pos} records, {per_sec}")?);
    let clock = SystemClock::new();
    let mut waiting: BTreeMap<i32, (usize, Vec<ProducedRecord>)> = BTreeMap::new();
    let mut sent: u64 = 0;
    let mut turn = 0;
    for line in std::io::stdin().lock().split(b'\n') {
        let record = record(line?, options.key_separator.as_deref(), clock.now_ms());
        let partition = options.partition.unwrap_or_else(|| match &record.key {
            Some(key) => (murmur2(key) & 0x7fff_ffff) % partitions,
            None => turn,
        });
        let (bytes, batch) = waiting.entry(partition).or_default();
        *bytes += record.value.as_ref().map_or(0, Bytes::len) + record.key.as_ref().map_or(0, Bytes::len);
        batch.push(record);
        if batch.len() >= BATCH_RECORDS_MAX || *bytes >= BATCH_BYTES_MAX {
            sent += flush(&mut client, &options, partition, &mut waiting).await?;
            turn = (turn + 1) % partitions;
        }
        progress.set_position(sent);
    }
    for partition in waiting.keys().copied().collect::<Vec<_>>() {
        sent += flush(&mut client, &options, partition, &mut waiting).await?;
    }
    progress.finish_and_clear();
    options.connect.print(&serde_json::json!({ "topic": options.topic, "records": sent }), &["RECORDS"], vec![vec![sent.to_string()]])
}

async fn flush(
    client: &mut Client,
    options: &ProduceOptions,
    partition: i32,
    waiting: &mut BTreeMap<i32, (usize, Vec<ProducedRecord>)>,
) -> anyhow::Result<u64> {
    let (_, batch) = waiting.remove(&partition).unwrap_or_default();
    client.produce(&options.topic, partition, &batch, options.compression.into()).await?;
    Ok(batch.len() as u64)
}

fn record(line: Vec<u8>, separator: Option<&str>, timestamp_ms: i64) -> ProducedRecord {
    let line = Bytes::from(line);
    let split = separator.filter(|text| !text.is_empty()).and_then(|text| {
        let at = line.windows(text.len()).position(|window| window == text.as_bytes())?;
        Some((line.slice(..at), line.slice(at + text.len()..)))
    });
    match split {
        Some((key, value)) => ProducedRecord { key: Some(key), value: Some(value), timestamp_ms },
        None => ProducedRecord { key: None, value: Some(line), timestamp_ms },
    }
}

/// Murmur2 as Kafka's Java client uses it, so that keys go where its producers send them.
fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash: u32 = 0x9747_b28c ^ length;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |sum, byte| (sum << 8) | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_where_kafkas_producers_send_them() {
        // The examples of Kafka's own UtilsTest.
        assert_eq!(murmur2(b"21"), -973_932_308);
        assert_eq!(murmur2(b"foobar"), -790_332_482);
        assert_eq!(murmur2(b"a-little-bit-long-string"), -985_981_536);
        assert_eq!(murmur2(b"a-little-bit-longer-string"), -1_486_304_829);
    }

    #[test]
    fn a_line_is_split_at_the_first_separator() {
        let split = record(b"k:v:w".to_vec(), Some(":"), 0);
        assert_eq!((split.key.as_deref(), split.value.as_deref()), (Some(&b"k"[..]), Some(&b"v:w"[..])));
        assert_eq!(record(b"plain".to_vec(), Some(":"), 0).key, None);
    }
}
