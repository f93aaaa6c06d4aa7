//! How fast a log is compacted, and with how much memory.
//!
//! ```text
//! cargo run --release -p siltstone-log --example compaction -- DIR [MIB] [KEYS]
//! ```
//! Fills a log in `DIR` (which must not hold one) with records of 1 KiB over so many keys, then compacts it in one pass with Kafka's buffer sizes.

use std::path::PathBuf;
use std::sync::Arc;

use siltstone_common::fs::OpenMode;
use siltstone_common::{Env, TopicId, TopicIdPartition};
use siltstone_log::batch::Compression;
use siltstone_log::cleaner::CleanerConfig;
use siltstone_log::records::BatchBuilder;
use siltstone_log::{AppendOrigin, LogConfig, LogManager, LogManagerConfig, PartitionLog};

const MIB: u64 = 1 << 20;
const RECORD_BYTES: u64 = 1 << 10;
const RECORDS_PER_BATCH: u64 = 16;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: compaction DIR [MIB] [KEYS]")?);
    let mib: u64 = arguments.next().map_or(Ok(1024), |text| text.parse())?;
    let keys: u64 = arguments.next().map_or(Ok(200_000), |text| text.parse())?;
    let env = Env::system();
    let manager = open(dir, &env)?;
    let id = TopicIdPartition::new(TopicId(env.entropy.uuid()), 0);
    let config = LogConfig { segment_bytes: 100 * MIB, compact: true, flush_messages: i64::MAX, ..LogConfig::default() };
    let log = manager.get_or_create(id, config)?;
    fill(&log, &env, mib * MIB / RECORD_BYTES, keys).await?;
    let mut offsets = log.subscribe();
    let end = offsets.wait_for(|offsets| offsets.ack_end == offsets.log_end).await?.ack_end;
    log.raise_high_watermark(end);
    log.roll(true)?;

    let (held_before, started) = (memory(&env, "VmRSS")?, env.clock.monotonic());
    let mut cleaning = log.begin_cleaning(CleanerConfig::default()).ok_or("nothing to compact")?;
    while !cleaning.is_done() {
        let stepped = env.tasks.blocking(move || cleaning.step().map(|_| cleaning)).await;
        cleaning = stepped.ok_or("the step failed")??;
    }
    let seconds = (env.clock.monotonic() - started).as_secs_f64();
    let stats = cleaning.stats();
    println!(
        "{} MiB in {} segments to {} MiB in {}: {seconds:.2} s, {:.0} MB/s; memory {held_before} kB before, {} kB at most",
        stats.bytes_before / MIB,
        stats.segments.0,
        stats.bytes_after / MIB,
        stats.segments.1,
        stats.bytes_before as f64 / 1e6 / seconds,
        memory(&env, "VmHWM")?,
    );
    manager.close()?;
    Ok(())
}

fn open(dir: PathBuf, env: &Env) -> Result<Arc<LogManager>, Failure> {
    let config = LogManagerConfig {
        dir,
        cluster_id: "compaction".to_owned(),
        wal_file_bytes: 64 * MIB,
        wal_bytes_max: 128 * MIB,
        tail_cache_bytes: 4 * MIB,
        disk_reserve_bytes: 0,
        producer_expiration_ms: 86_400_000,
    };
    Ok(LogManager::open(config, env.clone())?.0)
}

async fn fill(log: &PartitionLog, env: &Env, records: u64, keys: u64) -> Result<(), Failure> {
    let mut value = vec![0; RECORD_BYTES as usize];
    for _ in 0..records / RECORDS_PER_BATCH {
        let mut batch = BatchBuilder::new(Compression::None);
        for _ in 0..RECORDS_PER_BATCH {
            let key = env.entropy.below(keys);
            value[..8].copy_from_slice(&env.entropy.next_u64().to_be_bytes());
            batch.record(env.clock.now_ms(), Some(format!("key-{key:012}").as_bytes()), Some(&value), &[]);
        }
        log.ready().await;
        log.append_as_leader(batch.build(), 0, AppendOrigin::Client)?;
    }
    Ok(())
}

/// A line of `/proc/self/status`, in kB.
fn memory(env: &Env, name: &str) -> Result<u64, Failure> {
    let file = env.fs.open(std::path::Path::new("/proc/self/status"), OpenMode::Read)?;
    let mut bytes = vec![0; 1 << 14];
    let len = file.read_at(&mut bytes, 0)?;
    let text = String::from_utf8_lossy(&bytes[..len]);
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}
