//! What the tests of this crate share: data directories, batches, waiting.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use siltstone_common::{Env, TopicId, TopicIdPartition};
use uuid::Uuid;

use crate::batch::{Compression, batches};
use crate::manager::RecoveryReport;
use crate::partition::LogSlice;
use crate::records::BatchBuilder;
use crate::{AppendInfo, AppendOrigin, LogConfig, LogManager, LogManagerConfig, LogRead, PartitionLog};

/// A data directory's settings with small limits.
pub(crate) fn config(dir: &Path) -> LogManagerConfig {
    LogManagerConfig {
        dir: PathBuf::from(dir),
        cluster_id: "test-cluster".to_owned(),
        wal_file_bytes: 256 << 10,
        wal_bytes_max: 1 << 20,
        tail_cache_bytes: 1 << 20,
        disk_reserve_bytes: 0,
        producer_expiration_ms: 86_400_000,
    }
}

/// Partition number `partition` of a fixed topic.
pub(crate) fn id(partition: i32) -> TopicIdPartition {
    TopicIdPartition::new(TopicId(Uuid::from_u128(7)), partition)
}

/// A batch of records with these values, timestamps from `timestamp_ms` on.
pub(crate) fn batch(timestamp_ms: i64, values: &[&[u8]]) -> BytesMut {
    let mut builder = BatchBuilder::new(Compression::None);
    for (at, value) in values.iter().enumerate() {
        builder.record(timestamp_ms + at as i64, None, Some(value), &[]);
    }
    builder.build()
}

/// Appends one record as a client in epoch 1.
pub(crate) fn append(log: &PartitionLog, value: &[u8]) -> AppendInfo {
    log.append_as_leader(batch(1_700_000_000_000, &[value]), 1, AppendOrigin::Client).unwrap()
}

/// Waits until all of the log is acknowledged, and raises the high watermark to it.
pub(crate) async fn acknowledged(log: &PartitionLog) {
    let mut offsets = log.subscribe();
    let all = tokio::time::timeout(Duration::from_secs(20), offsets.wait_for(|offsets| offsets.ack_end == offsets.log_end));
    let end = all.await.expect("acknowledged in time").unwrap().ack_end;
    log.raise_high_watermark(end);
}

/// A process: its log manager, and the tasks that end with it.
pub(crate) struct Process {
    pub(crate) manager: Arc<LogManager>,
    pub(crate) report: RecoveryReport,
    env: Env,
}

impl Process {
    /// Starts on a directory.
    pub(crate) fn start(config: LogManagerConfig, env: &Env) -> Self {
        Self::try_start(config, env).unwrap()
    }

    /// Starts on a directory, or fails to.
    pub(crate) fn try_start(config: LogManagerConfig, env: &Env) -> Result<Self, crate::LogError> {
        let env = Env { tasks: env.tasks.child(), ..env.clone() };
        let (manager, report) = LogManager::open(config, env.clone())?;
        Ok(Self { manager, report, env })
    }

    /// The partition's log.
    pub(crate) fn log(&self, partition: i32, config: &LogConfig) -> Arc<PartitionLog> {
        self.manager.get_or_create(id(partition), config.clone()).unwrap()
    }

    /// Ends without a flush.
    pub(crate) async fn kill(self) {
        drop(self.manager);
        assert!(self.env.tasks.shutdown(Duration::from_secs(20)).await);
    }

    /// Ends cleanly.
    pub(crate) async fn stop(self) {
        self.manager.close().unwrap();
        self.kill().await;
    }
}

/// The bytes of a read.
pub(crate) fn bytes(read: &LogRead) -> Vec<u8> {
    let mut out = Vec::new();
    for slice in &read.slices {
        match slice {
            LogSlice::Memory(bytes) => out.extend_from_slice(bytes),
            LogSlice::File { file, position, len } => {
                let from = out.len();
                out.resize(from + len, 0);
                file.read_exact_at(&mut out[from..], *position).unwrap();
            }
        }
    }
    assert_eq!(out.len(), read.size_bytes);
    out
}

/// Offset and value of each record from `from` to the end, read `max_bytes` at a time.
pub(crate) fn contents(log: &PartitionLog, from: i64, max_bytes: usize) -> Vec<(i64, Vec<u8>)> {
    let mut out = Vec::new();
    let mut next = from;
    let end = log.offsets().log_end;
    while next < end {
        let read = log.read(next, max_bytes, true, end).unwrap();
        assert!(read.next_offset > next, "progress at {next}");
        for batch in batches(&bytes(&read)) {
            let (header, batch) = batch.unwrap();
            crate::batch::verify_crc(batch).unwrap();
            let body = crate::records::inflate(&header, batch, 1 << 20).unwrap();
            for record in crate::records::records(&header, &body) {
                let record = record.unwrap();
                out.push((record.offset, record.value.unwrap().to_vec()));
            }
        }
        next = read.next_offset;
    }
    out
}
