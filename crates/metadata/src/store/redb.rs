//! The embedded store: one `redb` file on the machine's disk, for one process.
//!
//! Overview: reads run on the blocking pool over redb's snapshots. Transactions queue; whoever finds nobody at work drains the queue on
//! the blocking pool, and all that waits goes into one redb commit, so that one disk sync serves many (group commit). Each transaction's
//! preconditions are judged after the writes of those before it. Watches and leases are emulated in the process.
//!
//! Format: table `rows` maps a key to version (1 byte, [`ROW_VERSION`]), revision (8, big endian), value; table `leases` maps the key of a row
//! under a lease to that lease; table `meta` maps `revision` to the store's revision.
//!
//! Cancellation: the drain is a blocking task of its own; a caller that goes away only misses the answer.
//!
//! Crash consistency: commits are durable before anyone learns of them (I47), with quick-repair, so opening after a crash takes no scan. The
//! file is made under another name and renamed when it is whole (I39). After an I/O error redb refuses everything until it is opened again: that happens
//! here at once if no byte is in doubt, as after a read or for want of room (I40), and never after a failed sync (I38).

mod database;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition};
use siltstone_common::Env;
use siltstone_common::fs::{FileLock, OpenMode};
use tokio::sync::oneshot;

use self::database::{FileDatabase, revision_of};
use super::events::EventLog;
use super::lease::Leases;
use super::{
    LeaseId, MetadataStore, PAGE_ROWS_MAX, Page, Precondition, Range, Row, StoreError, StoreEvent, StoreWatch, Txn, TxnOutcome, Write,
};

const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("rows");
const LEASES: TableDefinition<'static, &'static [u8], u64> = TableDefinition::new("leases");
const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;
/// Version of a row's encoding.
const ROW_VERSION: u8 = 1;
/// Bytes before a row's value: version, revision.
const ROW_HEADER_BYTES: usize = 9;
/// Page cache of redb, filled by use.
const CACHE_BYTES: usize = 16 << 20;
/// Most transactions in one commit.
const GROUP_MAX: usize = 128;

/// See the module. Clones share the file.
#[derive(Clone, Debug)]
pub struct RedbStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    db: FileDatabase,
    events: Arc<EventLog>,
    queue: Mutex<Queue>,
    leases: Mutex<Leases>,
    env: Env,
    _lock: Box<dyn FileLock>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Request>,
    draining: bool,
}

#[derive(Debug)]
struct Request {
    work: Work,
    reply: oneshot::Sender<Result<TxnOutcome, StoreError>>,
}

#[derive(Debug)]
enum Work {
    Txn(Txn),
    EndLease(u64),
}

/// What became of the transactions of one commit.
struct Group {
    outcomes: Vec<Result<TxnOutcome, StoreError>>,
    events: Vec<StoreEvent>,
}

impl RedbStore {
    /// Opens the store in the directory `dir`, or makes it. [`StoreError::Open`] if another process has it open or it is damaged.
    pub async fn open(dir: &Path, env: Env) -> Result<Self, StoreError> {
        let (dir, inside) = (dir.to_owned(), env.clone());
        let opened = env.tasks.blocking(move || Inner::open(&dir, inside)).await;
        Ok(Self { inner: Arc::new(opened.ok_or_else(gone)??) })
    }

    async fn submit(&self, work: Work) -> Result<TxnOutcome, StoreError> {
        let (reply, mut answer) = oneshot::channel();
        let lead = {
            let mut queue = self.inner.queue.lock();
            queue.waiting.push(Request { work, reply });
            !std::mem::replace(&mut queue.draining, true)
        };
        if lead {
            let inner = self.inner.clone();
            let drain = self.inner.env.tasks.blocking(move || inner.drain());
            tokio::pin!(drain);
            tokio::select! {
                biased;
                answer = &mut answer => return answer.map_err(|_| gone())?,
                _ = &mut drain => {}
            }
        }
        answer.await.map_err(|_| gone())?
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Rows, u64) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.inner.clone();
        let work = move || {
            inner.with_db(|db| {
                let txn = db.begin_read()?;
                let revision = txn.open_table(META)?.get(REVISION)?.map_or(0, |revision| revision.value());
                read(&txn.open_table(ROWS)?, revision)
            })
        };
        self.inner.env.tasks.blocking(work).await.ok_or_else(gone)?.map_err(unavailable)
    }
}

impl Inner {
    fn open(dir: &Path, env: Env) -> Result<Self, StoreError> {
        let at = |error: std::io::Error| StoreError::Open(format!("metadata store in {}: {error}", dir.display()));
        env.fs.create_dir_all(dir).map_err(at)?;
        let lock = env.fs.lock(&dir.join("metadata.lock")).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => {
                StoreError::Open(format!("metadata store in {} is in use by another process: stop it first", dir.display()))
            }
            _ => at(error),
        })?;
        let (path, new_path) = (dir.join("metadata.redb"), dir.join("metadata.redb.new"));
        let is_new = !env.fs.exists(&path);
        let file = if is_new { env.fs.open(&new_path, OpenMode::Truncate) } else { env.fs.open(&path, OpenMode::ReadWrite) }.map_err(at)?;
        let whole = Arc::new(AtomicBool::new(!is_new));
        let db = FileDatabase::open(file.clone(), whole.clone()).map_err(|error| {
            let path = path.display();
            StoreError::Open(format!("metadata store {path}: {error}; restore it from a copy, or move it away to start an empty cluster"))
        })?;
        let revision = db.with(|| 0, prepare).map_err(unavailable)?;
        if is_new {
            whole.store(true, Ordering::SeqCst);
            file.sync_all().map_err(at)?;
            env.fs.rename(&new_path, &path).map_err(at)?;
            env.fs.sync_dir(dir).map_err(at)?;
        }
        Ok(Self { db, events: EventLog::new(revision), queue: Mutex::default(), leases: Mutex::default(), env, _lock: lock })
    }

    fn with_db<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        self.db.with(|| self.events.revision(), work)
    }

    /// Commits what waits until nothing does.
    fn drain(&self) {
        let _guard = DrainGuard(self);
        loop {
            let group: Vec<Request> = {
                let mut queue = self.queue.lock();
                if queue.waiting.is_empty() {
                    queue.draining = false;
                    return;
                }
                let count = queue.waiting.len().min(GROUP_MAX);
                queue.waiting.drain(..count).collect()
            };
            let (works, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|request| (request.work, request.reply)).unzip();
            let committed = self.with_db(|db| {
                let Group { outcomes, events } = self.commit(db, works)?;
                self.events.append(events);
                Ok(outcomes)
            });
            match committed {
                Ok(outcomes) => {
                    for (reply, outcome) in replies.into_iter().zip(outcomes) {
                        let _ = reply.send(outcome);
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the metadata store can't write");
                    let error = unavailable(error);
                    for reply in replies {
                        let _ = reply.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    fn commit(&self, db: &Database, works: Vec<Work>) -> Result<Group, redb::Error> {
        let mut txn = db.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        txn.set_quick_repair(true);
        let (mut outcomes, mut events) = (Vec::with_capacity(works.len()), Vec::new());
        {
            let mut tables = Tables { rows: txn.open_table(ROWS)?, leases: txn.open_table(LEASES)? };
            let mut meta = txn.open_table(META)?;
            let before = meta.get(REVISION)?.map_or(0, |revision| revision.value());
            let mut revision = before;
            for work in works {
                let writes = match work {
                    Work::EndLease(lease) => tables.leased(|of| of == lease)?,
                    Work::Txn(txn) => match self.admit(&tables.rows, &txn)? {
                        Ok(true) => txn.then,
                        Ok(false) => {
                            outcomes.push(Ok(TxnOutcome::Conflict));
                            continue;
                        }
                        Err(error) => {
                            outcomes.push(Err(error));
                            continue;
                        }
                    },
                };
                if !writes.is_empty() {
                    revision += 1;
                    events.push(StoreEvent { revision, rows: Arc::new(tables.apply(revision, writes)?) });
                }
                outcomes.push(Ok(TxnOutcome::Committed(revision)));
            }
            if revision == before {
                return Ok(Group { outcomes, events });
            }
            meta.insert(REVISION, revision)?;
        }
        txn.commit()?;
        Ok(Group { outcomes, events })
    }

    /// True if the preconditions hold; an error if a lease is over.
    fn admit(&self, rows: &impl ReadableTable<&'static [u8], &'static [u8]>, txn: &Txn) -> Result<Result<bool, StoreError>, redb::Error> {
        let now = self.env.clock.monotonic();
        for write in &txn.then {
            if let Write::Put { lease: Some(lease), .. } = write
                && !self.leases.lock().alive(*lease, now)
            {
                return Ok(Err(StoreError::LeaseOver));
            }
        }
        for condition in &txn.when {
            let holds = match condition {
                Precondition::Revision(key, revision) => rows.get(&key[..])?.map_or(0, |value| decode_revision(value.value())) == *revision,
                Precondition::Exists(key) => rows.get(&key[..])?.is_some(),
            };
            if !holds {
                return Ok(Ok(false));
            }
        }
        Ok(Ok(true))
    }
}

/// Lets waiting callers go, and the next one drain, should the drain panic.
struct DrainGuard<'a>(&'a Inner);

impl Drop for DrainGuard<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        if std::thread::panicking() {
            queue.draining = false;
            queue.waiting.clear();
        }
    }
}

/// The tables of a transaction that writes.
struct Tables<'t> {
    rows: Table<'t, &'static [u8], &'static [u8]>,
    leases: Table<'t, &'static [u8], u64>,
}

impl Tables<'_> {
    /// Deletions of the rows under the leases chosen.
    fn leased(&self, chosen: impl Fn(u64) -> bool) -> Result<Vec<Write>, redb::Error> {
        let mut writes = Vec::new();
        for entry in self.leases.iter()? {
            let (key, lease) = entry?;
            if chosen(lease.value()) {
                writes.push(Write::Delete(Bytes::copy_from_slice(key.value())));
            }
        }
        Ok(writes)
    }

    fn apply(&mut self, revision: u64, writes: Vec<Write>) -> Result<Vec<(Bytes, Option<Bytes>)>, redb::Error> {
        let mut rows = Vec::with_capacity(writes.len());
        for write in writes {
            match write {
                Write::Put { key, value, lease } => {
                    self.rows.insert(&key[..], &encode_row(revision, &value)[..])?;
                    match lease {
                        Some(lease) => self.leases.insert(&key[..], lease.0)?,
                        None => self.leases.remove(&key[..])?,
                    };
                    rows.push((key, Some(value)));
                }
                Write::Delete(key) => {
                    self.rows.remove(&key[..])?;
                    self.leases.remove(&key[..])?;
                    rows.push((key, None));
                }
            }
        }
        Ok(rows)
    }
}

/// Makes the tables, and deletes rows under leases: no process that held one lives on. The store's revision.
fn prepare(db: &Database) -> Result<u64, redb::Error> {
    let read = db.begin_read()?;
    match read.open_table(LEASES) {
        Ok(leases) if leases.is_empty()? => return revision_of(db),
        Ok(_) | Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    drop(read);
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    let revision = {
        let mut tables = Tables { rows: txn.open_table(ROWS)?, leases: txn.open_table(LEASES)? };
        let mut meta = txn.open_table(META)?;
        let revision = meta.get(REVISION)?.map_or(0, |revision| revision.value()) + 1;
        let writes = tables.leased(|_| true)?;
        tables.apply(revision, writes)?;
        meta.insert(REVISION, revision)?;
        revision
    };
    txn.commit()?;
    Ok(revision)
}

fn encode_row(revision: u64, value: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(ROW_HEADER_BYTES + value.len());
    row.push(ROW_VERSION);
    row.extend_from_slice(&revision.to_be_bytes());
    row.extend_from_slice(value);
    row
}

fn decode_revision(row: &[u8]) -> u64 {
    row.get(1..ROW_HEADER_BYTES).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn decode_row(key: &[u8], row: &[u8]) -> Result<Row, redb::Error> {
    match row.first() {
        Some(&ROW_VERSION) if row.len() >= ROW_HEADER_BYTES => Ok(Row {
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(&row[ROW_HEADER_BYTES..]),
            revision: decode_revision(row),
        }),
        version => Err(redb::Error::Corrupted(format!("row of {} bytes with version {version:?}: made by a newer release?", row.len()))),
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the metadata store is closing".into())
}

fn unavailable(error: redb::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

fn get_row(rows: &impl ReadableTable<&'static [u8], &'static [u8]>, key: &[u8]) -> Result<Option<Row>, redb::Error> {
    rows.get(key)?.map(|row| decode_row(key, row.value())).transpose()
}

fn get_page(rows: &Rows, range: &Range, revision: u64) -> Result<Page, redb::Error> {
    let mut page = Page { revision, ..Page::default() };
    if range.from >= range.to {
        return Ok(page);
    }
    let limit = range.limit.min(PAGE_ROWS_MAX);
    let mut found = rows.range(&range.from[..]..&range.to[..])?;
    while let Some(entry) = if range.reverse { found.next_back() } else { found.next() } {
        if page.rows.len() == limit {
            page.more = true;
            break;
        }
        let (key, row) = entry?;
        page.rows.push(decode_row(key.value(), row.value())?);
    }
    Ok(page)
}

#[async_trait]
impl MetadataStore for RedbStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Row>, StoreError> {
        let key = Bytes::copy_from_slice(key);
        self.read(move |rows, _| get_row(rows, &key)).await
    }

    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Row>>, StoreError> {
        self.read(move |rows, _| keys.iter().map(|key| get_row(rows, key)).collect()).await
    }

    async fn range(&self, range: Range) -> Result<Page, StoreError> {
        self.read(move |rows, revision| get_page(rows, &range, revision)).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        txn.check()?;
        self.submit(Work::Txn(txn)).await
    }

    async fn watch(&self, revision: u64) -> Result<StoreWatch, StoreError> {
        self.inner.events.watch(revision)
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let env = self.inner.env.clone();
        let lease = self.inner.leases.lock().grant(env.clock.monotonic(), ttl);
        let inner = Arc::downgrade(&self.inner);
        env.tasks.clone().spawn("metadata-lease", async move {
            let left = || inner.upgrade()?.leases.lock().left(lease, env.clock.monotonic());
            while let Some(left) = left() {
                tokio::select! {
                    () = env.clock.sleep(left) => {}
                    () = env.tasks.stopped() => return,
                }
            }
            if let Some(inner) = inner.upgrade() {
                let ended = RedbStore { inner }.revoke(lease).await;
                if let Err(error) = ended {
                    tracing::warn!(%error, "rows of a lease that is over stay until the next start");
                }
            }
        });
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        let alive = self.inner.leases.lock().keep_alive(lease, self.inner.env.clock.monotonic());
        if alive { Ok(()) } else { Err(StoreError::LeaseOver) }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.leases.lock().end(lease);
        self.submit(Work::EndLease(lease.0)).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_version_1_parse_for_ever() {
        let golden = [1, 0, 0, 0, 0, 0, 0, 1, 2, b'x', b'y'];
        assert_eq!(encode_row(258, b"xy"), golden);
        let row = decode_row(b"k", &golden).unwrap();
        assert_eq!((&row.key[..], &row.value[..], row.revision), (&b"k"[..], &b"xy"[..], 258));
        assert!(decode_row(b"k", &[2; 11]).is_err() && decode_row(b"k", &golden[..5]).is_err());
    }
}
