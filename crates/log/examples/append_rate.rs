//! How fast the log appends: one partition against many, flush before acknowledging against none.
//!
//! `cargo run --release -p siltstone-log --example append_rate [-- seconds [directory]]`. Every appender waits for its acknowledgement
//! before its next batch. Look at the ratios; the disk under the directory decides the rest.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use siltstone_common::{Env, TopicId, TopicIdPartition};
use siltstone_log::batch::Compression;
use siltstone_log::records::BatchBuilder;
use siltstone_log::{AppendOrigin, LogConfig, LogManager, LogManagerConfig, PartitionLog};

type Failure = Box<dyn std::error::Error>;

/// One measurement.
struct Case {
    partitions: usize,
    appenders: usize,
    batch_bytes: usize,
    flush: bool,
}

struct Outcome {
    batches_per_s: f64,
    mb_per_s: f64,
    cpu_s_per_gb: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let root = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from).join(format!("append-rate-{}", std::process::id()));
    println!("{:>10} {:>9} {:>8} {:>7} {:>12} {:>9} {:>12}", "partitions", "appenders", "batch", "flush", "batches/s", "MB/s", "CPU-s/GB");
    for (appenders, batch_bytes) in [(64, 16 << 10), (64, 1 << 10), (1000, 1 << 10)] {
        let mut rates = Vec::new();
        for (partitions, flush) in [(1, true), (1, false), (1000, true), (1000, false)] {
            let case = Case { partitions, appenders, batch_bytes, flush };
            let outcome = measure(&case, &root, Duration::from_secs(seconds)).await?;
            println!(
                "{:>10} {:>9} {:>8} {:>7} {:>12.0} {:>9.1} {:>12.3}",
                partitions, appenders, batch_bytes, flush, outcome.batches_per_s, outcome.mb_per_s, outcome.cpu_s_per_gb
            );
            rates.push(outcome.batches_per_s);
        }
        println!("  flush / no flush: 1 partition {:.2}, 1000 partitions {:.2}", rates[0] / rates[1], rates[2] / rates[3]);
    }
    Ok(())
}

async fn measure(case: &Case, root: &PathBuf, time: Duration) -> Result<Outcome, Failure> {
    let env = Env::system();
    let config = LogManagerConfig {
        dir: root.clone(),
        cluster_id: "bench".to_owned(),
        wal_file_bytes: 64 << 20,
        wal_bytes_max: 512 << 20,
        tail_cache_bytes: 128 << 20,
        disk_reserve_bytes: 0,
        producer_expiration_ms: 86_400_000,
    };
    let (manager, _) = LogManager::open(config, env.clone())?;
    let log_config = LogConfig { flush_messages: if case.flush { 1 } else { i64::MAX }, ..LogConfig::default() };
    let mut logs = Vec::new();
    for partition in 0..case.partitions {
        let id = TopicIdPartition::new(TopicId(env.entropy.uuid()), i32::try_from(partition)?);
        logs.push(manager.get_or_create(id, log_config.clone())?);
    }
    let template = batch(case.batch_bytes);
    let batch_len = template.len();
    let count = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    for appender in 0..case.appenders {
        let (logs, template, count, stop) = (logs.clone(), template.clone(), Arc::clone(&count), Arc::clone(&stop));
        env.tasks.spawn("appender", async move {
            let mut at = appender;
            while !stop.load(Ordering::Relaxed) {
                append(&logs[at % logs.len()], &template).await;
                count.fetch_add(1, Ordering::Relaxed);
                at += 7919;
            }
        });
    }
    env.clock.sleep(Duration::from_millis(500)).await;
    let (count_before, cpu_before, begin) = (count.load(Ordering::Relaxed), cpu_seconds()?, env.clock.monotonic());
    env.clock.sleep(time).await;
    let elapsed = (env.clock.monotonic() - begin).as_secs_f64();
    let batches = (count.load(Ordering::Relaxed) - count_before) as f64;
    let cpu = cpu_seconds()? - cpu_before;
    stop.store(true, Ordering::Relaxed);
    env.tasks.shutdown(Duration::from_secs(30)).await;
    drop(logs);
    drop(manager);
    std::fs::remove_dir_all(root)?;
    let bytes = batches * batch_len as f64;
    Ok(Outcome { batches_per_s: batches / elapsed, mb_per_s: bytes / elapsed / 1e6, cpu_s_per_gb: cpu / (bytes / 1e9) })
}

async fn append(log: &PartitionLog, template: &BytesMut) {
    log.ready().await;
    let mut offsets = log.subscribe();
    match log.append_as_leader(template.clone(), 1, AppendOrigin::Client) {
        Ok(info) => _ = offsets.wait_for(|offsets| offsets.ack_end > info.last_offset).await,
        Err(error) => eprintln!("{error}"),
    }
}

fn batch(bytes: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(Compression::None);
    let value = vec![b'v'; 1000.min(bytes)];
    for _ in 0..bytes.div_ceil(1000).max(1) {
        builder.record(0, None, Some(&value), &[]);
    }
    builder.build()
}

/// User and system time of this process.
fn cpu_seconds() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields.get(11).ok_or("no utime")?.parse::<f64>()? + fields.get(12).ok_or("no stime")?.parse::<f64>()?;
    Ok(ticks / 100.0)
}
