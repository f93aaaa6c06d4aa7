//! The background of a data directory: writes tails to segment files, seals what was rolled, lets go of WAL files, watches the disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use siltstone_common::TopicIdPartition;
use tokio::sync::Notify;

use crate::error::LogError;
use crate::manifest::record::Record;
use crate::partition::{LogConfig, PartitionLog, Recovered};
use crate::shared::{Shared, wal_dir};
use crate::wal::files;

/// How often the disk is looked at, and what failed is tried again.
const TICK: Duration = Duration::from_secs(1);
/// Idle producers are looked for once in so many ticks.
const EXPIRE_TICKS: u64 = 60;

/// Partitions that want to be flushed.
#[derive(Debug, Default)]
pub(crate) struct FlushQueue {
    requests: Mutex<Vec<Arc<PartitionLog>>>,
    /// Logs with something that failed, for the next tick.
    again: Mutex<BTreeMap<TopicIdPartition, Arc<PartitionLog>>>,
    wake: Notify,
    closed: AtomicBool,
    /// Held during a round, and by a clean stop: no round writes behind what that has written.
    pub(crate) rounds: Mutex<()>,
}

impl FlushQueue {
    /// Asks for a flush of `log`, once.
    pub(crate) fn request(&self, log: &Arc<PartitionLog>) {
        if log.mark_flush_requested() {
            self.requests.lock().push(Arc::clone(log));
            self.wake.notify_one();
        }
    }

    /// Lets the next tick try again what failed: to write, to seal, to say so in the manifest, or to remove files.
    pub(crate) fn try_again(&self, log: &Arc<PartitionLog>) {
        self.again.lock().insert(log.id(), Arc::clone(log));
    }

    /// Makes the loop look around.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Ends the loop.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.requests.lock().clear();
        self.again.lock().clear();
        self.wake.notify_one();
    }
}

/// Runs until the queue is closed or the directory goes offline.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut ticks = 0;
    let mut tick = shared.env.clock.sleep(TICK);
    loop {
        let ticked = tokio::select! {
            () = shared.flusher.wake.notified() => false,
            () = &mut tick => true,
            () = shared.env.tasks.stopped() => return,
        };
        if shared.flusher.closed.load(Ordering::Acquire) || shared.health.is_offline() {
            return;
        }
        if ticked {
            ticks += 1;
            tick = shared.env.clock.sleep(TICK);
            shared.check_disk();
            if ticks % EXPIRE_TICKS == 0 {
                expire_producers(&shared);
            }
        }
        let _round = shared.flusher.rounds.lock();
        if shared.flusher.closed.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = round(&shared, ticked)
            && !shared.health.is_offline()
        {
            tracing::warn!(%error, "flush failed, it is tried again");
        }
    }
}

fn expire_producers(shared: &Shared) {
    let now_ms = shared.env.clock.now_ms();
    let expiration_ms = shared.producer_expiration_ms.load(Ordering::Relaxed);
    for log in shared.all_logs() {
        log.expire_producers(now_ms, expiration_ms);
    }
}

fn round(shared: &Arc<Shared>, ticked: bool) -> Result<(), LogError> {
    let requests = std::mem::take(&mut *shared.flusher.requests.lock());
    let mut to_seal: Vec<_> = match ticked {
        true => std::mem::take(&mut *shared.flusher.again.lock()).into_values().collect(),
        false => Vec::new(),
    };
    let mut outcome = Ok(());
    for log in requests {
        if log.wants_seal() {
            log.clear_flush_requested();
            to_seal.push(log);
            continue;
        }
        let flushed = log.flush();
        // Only now, or what was appended meanwhile would ask for a small write of its own.
        log.clear_flush_requested();
        match flushed {
            Ok(()) if log.wants_flush() => shared.flusher.request(&log),
            Ok(()) => {}
            Err(error) => {
                shared.flusher.try_again(&log);
                outcome = outcome.and(Err(error));
            }
        }
    }
    let (live_bytes, older_half) = {
        let files = shared.wal.files.lock();
        (files.live_bytes(), files.older_half())
    };
    if live_bytes > shared.config.wal_bytes_max
        && let Some(limit) = older_half
    {
        outcome = outcome.and(shared.settle_unopened(limit));
        to_seal.extend(shared.all_logs().into_iter().filter(|log| log.first_uncovered().is_some_and(|first| first <= limit)));
    }
    if !to_seal.is_empty() {
        outcome = outcome.and(shared.checkpoint(&to_seal));
    }
    if ticked {
        outcome = outcome.and(shared.finish_deletions());
    }
    if ticked || !to_seal.is_empty() {
        outcome = outcome.and(shared.trim_wal());
    }
    shared.tail_cache.evict(shared);
    outcome.and(prepare_spare(shared))
}

/// Makes the next WAL file before it is needed.
fn prepare_spare(shared: &Shared) -> Result<(), LogError> {
    let (dir, slot, len) = {
        let mut files = shared.wal.files.lock();
        if !files.wants_spare() {
            return Ok(());
        }
        (files.dir().to_owned(), files.take_slot(), files.new_file_bytes(0))
    };
    let spare = files::create(shared.env.fs.as_ref(), &dir, slot, len).map_err(|error| shared.failed(&dir, error))?;
    shared.wal.files.lock().add_spare(spare);
    Ok(())
}

impl Shared {
    /// All open logs.
    pub(crate) fn all_logs(&self) -> Vec<Arc<PartitionLog>> {
        self.logs.read().values().cloned().collect()
    }

    /// Flushes, syncs and seals `logs`, and says so in the manifest, in one record each and one sync. A log that fails does not
    /// keep the others; the first error is returned, and what failed is tried again at the next tick. Blocks.
    pub(crate) fn checkpoint(&self, logs: &[Arc<PartitionLog>]) -> Result<(), LogError> {
        let mut outcome = Ok(());
        let mut tried = |log: &Arc<PartitionLog>, result: Result<(), LogError>| {
            if let Err(error) = result {
                self.flusher.try_again(log);
                outcome = std::mem::replace(&mut outcome, Ok(())).and(Err(error));
            }
        };
        for log in logs {
            tried(log, log.sync_and_seal());
        }
        let mut written = Vec::new();
        self.append_manifest(&mut |out| {
            for log in logs {
                if let Some(Record::Partition(record)) = log.manifest_record() {
                    written.push((log, record.clone()));
                    out.push(Record::Partition(record));
                }
            }
        })
        .inspect_err(|_| logs.iter().for_each(|log| self.flusher.try_again(log)))?;
        for (log, record) in &written {
            log.recorded(record);
            tried(log, log.remove_doomed());
        }
        outcome
    }

    /// Puts what the WAL holds up to `limit` of logs that nobody has opened into their segment files: a partition that this broker does not
    /// serve any more would keep the WAL from ever getting shorter. Blocks.
    fn settle_unopened(self: &Arc<Self>, limit: u64) -> Result<(), LogError> {
        // While one is opened or deleted, or the directory closes, the next round will do.
        let Some(_changing) = self.changing.try_lock() else {
            return Ok(());
        };
        let is_due = |recovered: &Recovered| recovered.entries.first().is_some_and(|(sequence, _)| *sequence <= limit);
        let due: Vec<_> = {
            let recovered = self.recovered.lock();
            recovered.iter().filter(|(_, recovered)| is_due(recovered)).map(|(id, recovered)| (*id, recovered.clone())).collect()
        };
        let mut outcome = Ok(());
        for (id, recovered) in due {
            outcome = outcome.and(self.settle(id, recovered));
        }
        outcome
    }

    fn settle(self: &Arc<Self>, id: TopicIdPartition, recovered: Recovered) -> Result<(), LogError> {
        tracing::info!(%id, entries = recovered.entries.len(), "the write-ahead log is full of a partition that is not open: its records go to a segment");
        let covered_sequence = self.wal.next_sequence() - 1;
        let log = PartitionLog::open(id, Arc::clone(self), LogConfig::default(), recovered, covered_sequence)?;
        log.sync_and_seal()?;
        let Some(Record::Partition(record)) = log.manifest_record() else {
            return Ok(());
        };
        // Before the manifest has it, so that one written anew has it, too; the entries stay until then.
        if let Some(recovered) = self.recovered.lock().get_mut(&id) {
            recovered.record = Some(record.clone());
        }
        self.append_manifest(&mut |out| out.push(Record::Partition(record.clone())))?;
        if let Some(recovered) = self.recovered.lock().get_mut(&id) {
            recovered.entries.clear();
        }
        Ok(())
    }

    /// Lets go of the WAL files that no partition needs. Blocks.
    pub(crate) fn trim_wal(&self) -> Result<(), LogError> {
        if !self.wal.files.lock().can_trim(u64::MAX) {
            return Ok(());
        }
        let next = self.wal.next_sequence();
        let recovered =
            self.recovered.lock().values().filter_map(|recovered| recovered.entries.first().map(|(sequence, _)| *sequence)).min();
        let open = self.all_logs().iter().filter_map(|log| log.first_uncovered()).min();
        let needed = open.into_iter().chain(recovered).chain([next]).min().unwrap_or(next);
        if !self.wal.files.lock().can_trim(needed) {
            return Ok(());
        }
        self.append_manifest(&mut |out| out.push(Record::WalTrim { first_live_sequence: needed }))?;
        let dir = wal_dir(&self.config.dir);
        let trimmed = self.wal.files.lock().trim(self.env.fs.as_ref(), needed);
        self.wal.check_overfull(self.config.wal_bytes_max);
        trimmed.map_err(|error| LogError::io(&dir, error))
    }

    /// Refuses appends below the disk mark, and takes them again above it (I40).
    pub(crate) fn check_disk(&self) {
        match self.env.fs.space(&self.config.dir) {
            Ok(space) => {
                let no_space = space.available < self.config.disk_reserve_bytes.max(1);
                let before = self.health.set_no_space(no_space);
                if before != no_space {
                    let (available, reserve) = (space.available, self.config.disk_reserve_bytes);
                    if no_space {
                        self.wal.wake_waiting();
                        tracing::error!(available, reserve, "disk mark is reached: appends are refused until there is room");
                    } else {
                        tracing::info!(available, reserve, "there is room on the disk again: appends are taken");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, dir = %self.config.dir.display(), "can't tell the room on the disk"),
        }
    }
}
