//! The commit loop: the only writer of the WAL.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use siltstone_common::fault;
use siltstone_common::fs::{is_full, is_short, sync_error};

use super::Pending;
use super::entry::{ENTRY_HEADER_LEN, EntryHeader, FileHeader, entry_len};
use super::files::{self, CurrentFile};
use crate::shared::Shared;

/// At most this much goes into one commit, so that the first in the queue does not wait for all behind it.
const COMMIT_BYTES_MAX: u64 = 8 << 20;
/// So long after a commit as many entries are waited for as it had or found queued behind it.
const GROUP_WINDOW: Duration = Duration::from_millis(2);
/// How long to wait before trying again when the disk is full, or descriptors are short.
const NO_SPACE_RETRY: Duration = Duration::from_millis(250);
const PADDING: [u8; 8] = [0; 8];

/// Runs until the WAL is closed or the directory goes offline.
pub(crate) async fn run(shared: Arc<Shared>) {
    let _end = End(&shared);
    close_when_stopped(&shared);
    commit_all(&shared).await;
}

/// Whatever ended the loop: nothing is written any more, and nobody may wait for it.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.go_offline("write-ahead log: its loop panicked");
        }
        self.0.wal.give_up();
    }
}

/// The loop hears the WAL's bell alone.
fn close_when_stopped(shared: &Arc<Shared>) {
    let (tasks, stopping) = (shared.env.tasks.clone(), Arc::downgrade(shared));
    shared.env.tasks.spawn("log-wal-stop", async move {
        tasks.stopped().await;
        if let Some(shared) = stopping.upgrade() {
            shared.wal.close();
        }
    });
}

async fn commit_all(shared: &Arc<Shared>) {
    let mut writer = Writer {
        shared: Arc::clone(shared),
        current: None,
        sync_by: None,
        unsynced: false,
        written_sequence: 0,
        durable_sequence: 0,
        headers: Vec::new(),
    };
    let mut batch = Vec::new();
    // How many entries were under way when the last commit was made, and until when as many are waited for.
    let (mut under_way, mut gather_until) = (1, Duration::ZERO);
    loop {
        let now = shared.env.clock.monotonic();
        let gathers = under_way > 1 && now < gather_until && !shared.wal.is_closing();
        let outcome = if shared.wal.is_due(if gathers { under_way } else { 1 }) {
            shared.wal.take(&mut batch);
            let count = batch.len();
            let outcome = writer.commit(&mut batch).await;
            gather_until = shared.env.clock.monotonic() + GROUP_WINDOW;
            outcome.map(|queued_behind| under_way = count + queued_behind)
        } else if shared.wal.is_closing() || shared.health.is_offline() {
            return;
        } else if writer.sync_by.is_some_and(|by| by <= now) {
            writer.sync()
        } else {
            let until = writer.sync_by.into_iter().chain(gathers.then_some(gather_until)).min();
            shared.wal.work.wait(&*shared.env.clock, until).await;
            continue;
        };
        if let Err(error) = outcome {
            shared.go_offline(&format!("write-ahead log: {error}"));
            return;
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    current: Option<CurrentFile>,
    /// When the oldest unsynced entry has to be synced, monotonic time.
    sync_by: Option<Duration>,
    unsynced: bool,
    written_sequence: u64,
    durable_sequence: u64,
    headers: Vec<[u8; ENTRY_HEADER_LEN]>,
}

impl Writer {
    /// Writes, syncs and publishes all of `batch`, and empties it; how many entries were queued meanwhile. Waits while the disk is full (I40) or
    /// descriptors are short.
    async fn commit(&mut self, batch: &mut Vec<Pending>) -> io::Result<usize> {
        let mut from = 0;
        while from < batch.len() {
            let count = self.fitting(&batch[from..]);
            let outcome = match count {
                0 => self.next_file(&batch[from]),
                _ => self.commit_group(&batch[from..from + count]),
            };
            match outcome {
                Ok(()) => from += count,
                Err(error) if is_full(&error) || is_short(&error) => {
                    if is_full(&error) {
                        self.shared.disk_is_full();
                    }
                    self.shared.env.clock.sleep(NO_SPACE_RETRY).await;
                    if self.shared.wal.is_closing() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let bytes = batch.iter().map(|pending| pending.bytes.len()).sum();
        self.shared.tail_cache.add(batch);
        batch.clear();
        let queued_behind = self.shared.wal.done(bytes);
        self.shared.tail_cache.evict(&self.shared);
        Ok(queued_behind)
    }

    /// How many of `batch` go into the current file in one commit.
    fn fitting(&self, batch: &[Pending]) -> usize {
        let Some(current) = &self.current else {
            return 0;
        };
        let room = (current.len - current.position).min(COMMIT_BYTES_MAX);
        let mut used = 0;
        let mut count = 0;
        for pending in batch {
            used += entry_len(pending.bytes.len()) as u64;
            if used > room && (count > 0 || current.position + used > current.len) {
                break;
            }
            count += 1;
        }
        count
    }

    /// Takes the next file into use, big enough for `first`.
    fn next_file(&mut self, first: &Pending) -> io::Result<()> {
        // Only the newest file may have a torn end: see `replay`.
        self.sync()?;
        let shared = &self.shared;
        let fs = shared.env.fs.as_ref();
        let need = entry_len(first.bytes.len()) as u64;
        let (spare, generation, slot) = shared.wal.files.lock().take_spare(need);
        let spare = match spare {
            Some(spare) => spare,
            None => {
                let (dir, len) = {
                    let files = shared.wal.files.lock();
                    (files.dir().to_owned(), files.new_file_bytes(need))
                };
                files::create(fs, &dir, slot, len)?
            }
        };
        let previous_end = match self.written_sequence {
            0 => shared.wal.files.lock().end_at_start(),
            written => written + 1,
        };
        let header = FileHeader { generation, salt: shared.env.entropy.next_u64(), first_sequence: first.sequence, previous_end };
        let next = match files::begin_use(fs, &spare, header) {
            Ok(next) => next,
            Err(error) => {
                shared.wal.files.lock().add_spare(spare);
                return Err(error);
            }
        };
        if let Some(filled) = self.current.replace(next) {
            shared.wal.files.lock().retire(&filled, first.sequence - 1);
        }
        shared.wal.check_overfull(shared.config.wal_bytes_max);
        shared.flusher.wake();
        Ok(())
    }

    /// One vectored write, at most one sync, and the acknowledgements.
    fn commit_group(&mut self, group: &[Pending]) -> io::Result<()> {
        self.write(group)?;
        fault::point("wal.written")?;
        self.publish(group, false);
        let must_sync = group.iter().any(|pending| pending.ack_after_sync);
        self.sync_by = group.iter().filter_map(|pending| pending.sync_by).chain(self.sync_by).min();
        if must_sync || self.sync_by.is_some_and(|by| by <= self.shared.env.clock.monotonic()) {
            self.sync()?;
            fault::point("wal.synced")?;
            self.publish(group, true);
        }
        Ok(())
    }

    fn write(&mut self, group: &[Pending]) -> io::Result<()> {
        let Some(current) = &mut self.current else {
            return Err(io::Error::other("no wal file is open"));
        };
        self.headers.clear();
        self.headers.extend(group.iter().map(|pending| {
            let header = EntryHeader {
                payload_len: pending.bytes.len() as u32,
                salt: current.header.salt,
                sequence: pending.sequence,
                durable_sequence: self.durable_sequence,
                id: pending.log.id(),
            };
            header.encode(&pending.bytes)
        }));
        let mut slices = Vec::with_capacity(group.len() * 3);
        let mut len = 0;
        for (header, pending) in self.headers.iter().zip(group) {
            let whole = entry_len(pending.bytes.len());
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(&pending.bytes));
            slices.push(IoSlice::new(&PADDING[..whole - ENTRY_HEADER_LEN - pending.bytes.len()]));
            len += whole as u64;
        }
        current.file.write_all_vectored_at(&mut slices, current.position)?;
        current.position += len;
        self.unsynced = true;
        self.written_sequence = group.last().map_or(self.written_sequence, |last| last.sequence);
        self.shared.wal.files.lock().set_current_bytes(current.position);
        Ok(())
    }

    /// Syncs what was written since the last sync.
    fn sync(&mut self) -> io::Result<()> {
        self.sync_by = None;
        let Some(current) = self.current.as_ref().filter(|_| self.unsynced) else {
            return Ok(());
        };
        current.file.sync_data().map_err(|error| sync_error(&error))?;
        self.unsynced = false;
        self.durable_sequence = self.written_sequence;
        Ok(())
    }

    /// Moves `ack_end` of the logs in `group` whose acknowledgement was waiting for this stage. From the back, so that each
    /// log moves once.
    fn publish(&self, group: &[Pending], synced: bool) {
        for pending in group.iter().rev().filter(|pending| pending.ack_after_sync == synced) {
            pending.log.committed(pending.incarnation, pending.end_offset);
        }
    }
}
