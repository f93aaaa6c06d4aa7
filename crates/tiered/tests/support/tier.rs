//! A whole tier over the test bucket: metadata service in memory, uploader, reader, and segments made of real batches.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use siltstone_common::fs::{File, RealFs};
use siltstone_common::{Env, TopicIdPartition};
use siltstone_log::batch::{Compression, batches, stamp};
use siltstone_log::epochs::EpochEntry;
use siltstone_log::records::BatchBuilder;
use siltstone_log::segment::SealedSegment;
use siltstone_metadata::api::{CreateTopic, RegisterBroker};
use siltstone_metadata::{MemoryStore, MetadataApi, MetadataService, MetadataServiceConfig, SegmentRow};
use siltstone_tiered::{RemoteReader, RemoteReaderConfig, RemoteStore, UploadError, Uploader};

use super::{Handle, TestBucket};

/// A file in memory.
#[derive(Debug, Default)]
pub struct MemoryFile(pub Mutex<Vec<u8>>);

impl File for MemoryFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        let bytes = self.0.lock();
        let from = bytes.len().min(pos as usize);
        let len = buf.len().min(bytes.len() - from);
        buf[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(len)
    }

    fn write_vectored_at(&self, _bufs: &[IoSlice<'_>], _pos: u64) -> io::Result<usize> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().truncate(len as usize);
        Ok(())
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// One segment as the log hands it over, and its bytes.
#[derive(Clone, Debug)]
pub struct Made {
    pub sealed: SealedSegment,
    pub bytes: Bytes,
    pub file: Arc<MemoryFile>,
}

/// A batch of `records` records of `value_bytes` each from `base_offset`; record i has timestamp `timestamp_ms + i`.
pub fn batch(base_offset: i64, records: usize, value_bytes: usize, timestamp_ms: i64, epoch: i32) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for i in 0..records {
        let offset = base_offset + i as i64;
        let value = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64).to_be_bytes().repeat(value_bytes.div_ceil(8));
        builder.record(timestamp_ms + i as i64, Some(&offset.to_be_bytes()), Some(&value[..value_bytes]), &[]);
    }
    let mut bytes = builder.build();
    stamp(&mut bytes, base_offset, epoch);
    bytes.freeze()
}

/// Shape of a segment.
#[derive(Copy, Clone, Debug)]
pub struct Shape {
    pub batches: usize,
    pub records: usize,
    pub value_bytes: usize,
    pub timestamp_ms: i64,
    pub epoch: i32,
}

impl Default for Shape {
    fn default() -> Self {
        Self { batches: 10, records: 5, value_bytes: 100, timestamp_ms: 1_000_000, epoch: 0 }
    }
}

/// A sealed segment from `base_offset`.
pub fn segment(base_offset: i64, shape: Shape) -> Made {
    let batches = (0..shape.batches).map(|i| {
        let done = (i * shape.records) as i64;
        batch(base_offset + done, shape.records, shape.value_bytes, shape.timestamp_ms + done, shape.epoch)
    });
    sealed(base_offset, shape, batches)
}

/// A sealed segment of one batch over and over, at other offsets: quickly made.
pub fn repeated(base_offset: i64, shape: Shape, batch: &Bytes) -> Made {
    let batches = (0..shape.batches).map(|i| {
        let mut bytes = BytesMut::from(&batch[..]);
        stamp(&mut bytes, base_offset + (i * shape.records) as i64, shape.epoch);
        bytes.freeze()
    });
    sealed(base_offset, shape, batches)
}

fn sealed(base_offset: i64, shape: Shape, batches: impl Iterator<Item = Bytes>) -> Made {
    let mut bytes = BytesMut::new();
    batches.for_each(|batch| bytes.put(batch));
    let bytes = bytes.freeze();
    let offset = base_offset + (shape.batches * shape.records) as i64;
    let file = Arc::new(MemoryFile(Mutex::new(bytes.to_vec())));
    let sealed = SealedSegment {
        generation: 0,
        appended_ms: -1,
        base_offset,
        last_offset: offset - 1,
        max_timestamp_ms: shape.timestamp_ms + (shape.batches * shape.records) as i64 - 1,
        size_bytes: bytes.len() as u64,
        file: Arc::clone(&file) as Arc<dyn File>,
        index: Vec::new(),
        aborted: Vec::new(),
        producer_snapshot: Bytes::from(format!("producers at {offset}")),
        leader_epochs: vec![EpochEntry { epoch: shape.epoch, start_offset: base_offset }],
    };
    Made { sealed, bytes, file }
}

pub struct Tier {
    pub env: Env,
    pub bucket: Arc<TestBucket>,
    pub store: RemoteStore,
    pub metadata: Arc<MetadataService>,
    pub uploader: Uploader,
    pub id: TopicIdPartition,
    pub leader_epoch: i32,
}

impl Tier {
    /// In simulated time: for tests with `start_paused`.
    pub async fn simulated(seed: u64) -> Self {
        Self::over(Env::simulated(seed, Arc::new(RealFs))).await
    }

    pub async fn over(env: Env) -> Self {
        let bucket = TestBucket::new(env.clone());
        let store = RemoteStore::over(Arc::new(Handle(Arc::clone(&bucket))), "model".to_owned(), env.clone());
        let config = MetadataServiceConfig { broker_session_timeout: Duration::from_secs(1_000_000), ..Default::default() };
        let rows = Arc::new(MemoryStore::new(env.clone()));
        let metadata = MetadataService::open(rows, config, env.clone()).await.unwrap();
        let broker = RegisterBroker { id: 0, host: "localhost".to_owned(), port: 9092, clean_shutdown: true, ..RegisterBroker::default() };
        let epoch = metadata.register_broker(broker).await.unwrap();
        metadata.heartbeat(0, epoch, false).await.unwrap();
        let topic = CreateTopic { name: "t".to_owned(), partitions: 1, replication_factor: 1, ..CreateTopic::default() };
        let topic = metadata.create_topic(topic).await.unwrap();
        let uploader = Uploader::new(store.clone(), metadata.clone(), env.clone());
        let leader_epoch = topic.partitions[0].leader_epoch;
        Self { env, bucket, store, metadata, uploader, id: TopicIdPartition::new(topic.id, 0), leader_epoch }
    }

    pub fn reader(&self, config: RemoteReaderConfig) -> RemoteReader {
        RemoteReader::new(config, self.store.clone(), self.metadata.clone(), self.env.clone())
    }

    pub async fn upload(&self, made: &Made) -> Result<SegmentRow, UploadError> {
        self.uploader.upload(self.id, self.leader_epoch, made.sealed.clone()).await
    }

    /// Uploads `count` segments of one shape from offset 0 on; all their bytes.
    pub async fn fill(&self, count: usize, shape: Shape) -> Bytes {
        let mut all = BytesMut::new();
        let mut offset = 0;
        for i in 0..count {
            let timestamp_ms = shape.timestamp_ms + (i * shape.batches * shape.records) as i64;
            let made = segment(offset, Shape { timestamp_ms, ..shape });
            self.upload(&made).await.unwrap();
            offset = made.sealed.last_offset + 1;
            all.extend_from_slice(&made.bytes);
        }
        all.freeze()
    }
}

/// Small chunks, so that small tests cross their seams.
pub fn small_chunks() -> RemoteReaderConfig {
    RemoteReaderConfig {
        chunk_bytes: 64 << 10,
        read_ahead_bytes_max: 1 << 20,
        memory_cache_bytes: 64 << 20,
        ..RemoteReaderConfig::default()
    }
}

/// Reads everything from `from` to the end, `max_bytes` at a time.
pub async fn read_all(reader: &RemoteReader, id: TopicIdPartition, from: i64, end: i64, max_bytes: usize) -> Bytes {
    let mut all = BytesMut::new();
    let mut offset = from;
    while offset < end {
        let read = reader.read(id, offset, max_bytes, true).await.unwrap();
        assert!(read.next_offset > offset, "no progress at {offset}");
        let bytes = read.slices.concat();
        assert_eq!(bytes.len(), read.size_bytes);
        let last = batches(&bytes).map(|batch| batch.unwrap().0).last().unwrap();
        assert_eq!(last.last_offset() + 1, read.next_offset);
        all.extend_from_slice(&bytes);
        offset = read.next_offset;
    }
    all.freeze()
}
