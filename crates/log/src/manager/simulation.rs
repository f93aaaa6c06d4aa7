//! Random work on a simulated disk that is stopped, killed and robbed of its power at any operation, against a plain model: what
//! was acknowledged is there, what is there is what was appended, and nothing comes back that was taken away.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use siltstone_common::entropy::{Entropy, SmallEntropy};
use siltstone_common::fs::SimFs;

use super::*;
use crate::error::LogError;
use crate::testing::*;
use crate::{AppendOrigin, LogConfig};

const PARTITIONS: u64 = 3;
const DIR: &str = "/data";

/// What a partition must hold.
#[derive(Clone, Debug, Default)]
struct Model {
    /// Value by offset, from the local start.
    values: BTreeMap<i64, Vec<u8>>,
    local_start: i64,
    log_start: i64,
    end: i64,
    /// Below it everything must survive.
    safe_end: i64,
    /// What was acknowledged when the process was killed, synced or not: it survives unless the power goes before the next start is done.
    killed_end: i64,
    /// A change that was under way when the power went: it happened or not.
    uncertain: Option<Box<Model>>,
}

impl Model {
    fn cut_to(&mut self, end: i64) {
        self.values.split_off(&end);
        self.end = end;
        self.safe_end = self.safe_end.min(end);
    }

    /// Checks what recovery found, and makes it what must hold from now on.
    fn check(&mut self, log: &PartitionLog, context: &str) {
        let offsets = log.offsets();
        // The batch that holds the first offset may begin below it.
        let found: BTreeMap<_, _> =
            contents(log, offsets.local_start, 700).into_iter().filter(|(at, _)| *at >= offsets.local_start).collect();
        let fits = |model: &Model| {
            let expected: BTreeMap<_, _> =
                model.values.range(offsets.local_start.min(offsets.log_end)..offsets.log_end).map(|(k, v)| (*k, v.clone())).collect();
            offsets.log_start == model.log_start
                && offsets.local_start == model.local_start.min(offsets.log_end)
                && offsets.log_end >= model.safe_end
                && offsets.log_end <= model.end.max(model.log_start)
                && found == expected
        };
        self.safe_end = self.safe_end.max(std::mem::take(&mut self.killed_end));
        let other = self.uncertain.take();
        if let Some(other) = other.filter(|other| !fits(self) && fits(other)) {
            *self = *other;
        }
        assert!(
            fits(self),
            "{context}: {:?} found {offsets:?} with {:?}, expected {} to {} (safe {}), start {} local {}, segments {:?}",
            log.id(),
            found.keys().collect::<Vec<_>>(),
            self.local_start,
            self.end,
            self.safe_end,
            self.log_start,
            self.local_start,
            log.segments()
        );
        assert_eq!(offsets.ack_end, offsets.log_end);
        self.cut_to(offsets.log_end);
        self.safe_end = self.end;
        self.local_start = offsets.local_start;
    }
}

struct World {
    entropy: SmallEntropy,
    fs: SimFs,
    models: Vec<Model>,
    next_value: u64,
    flush: bool,
}

fn log_config(flush: bool) -> LogConfig {
    LogConfig { segment_bytes: 3500, index_interval_bytes: 300, flush_messages: if flush { 1 } else { i64::MAX }, ..LogConfig::default() }
}

impl World {
    fn below(&self, bound: u64) -> u64 {
        self.entropy.below(bound)
    }

    /// Turns an error away if the power is gone.
    fn unless_dead<T>(&self, result: Result<T, LogError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(_) if self.fs.is_dead() => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn append(&mut self, log: &PartitionLog, at: usize) {
        let mut values = Vec::new();
        for _ in 0..=self.below(3) {
            self.next_value += 1;
            let size = if self.below(10) == 0 { 700 } else { self.below(120) as usize };
            values.push(format!("{}:{}", self.next_value, "x".repeat(size)).into_bytes());
        }
        let refs: Vec<_> = values.iter().map(Vec::as_slice).collect();
        let appended = log.append_as_leader(batch(1_000, &refs), 1, AppendOrigin::Client);
        let model = &mut self.models[at];
        match appended {
            Ok(info) => {
                assert_eq!(info.first_offset, model.end);
                for (delta, value) in values.into_iter().enumerate() {
                    model.values.insert(info.first_offset + delta as i64, value);
                }
                model.end = info.last_offset + 1;
            }
            Err(crate::AppendError::NoSpace) => {}
            Err(_) if self.fs.is_dead() => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// One change; the model has it as uncertain while it runs.
    fn change(&mut self, at: usize, changed: Model, work: impl FnOnce() -> Result<(), LogError>) {
        self.models[at].uncertain = Some(Box::new(changed.clone()));
        let done = work();
        if self.unless_dead(done).is_some() {
            self.models[at] = changed;
        }
    }

    fn step(&mut self, log: &Arc<PartitionLog>, at: usize) {
        let offsets = log.offsets();
        let mut changed = self.models[at].clone();
        match self.below(30) {
            0 => drop(self.unless_dead(log.roll(true))),
            1 => drop(self.unless_dead(log.flush())),
            2 | 3 if offsets.log_end > offsets.local_start => {
                let range = (offsets.log_end - offsets.local_start) as u64;
                let back = if self.below(2) == 0 { self.below(range + 1) } else { self.below(range.min(4) + 1) };
                let to = offsets.log_end - back as i64;
                let end = batch_start(log, to);
                changed.cut_to(end);
                changed.local_start = changed.local_start.min(end);
                changed.log_start = changed.log_start.min(end);
                self.change(at, changed, || log.truncate_to(to));
            }
            4 => {
                log.raise_high_watermark(offsets.ack_end);
                let sealed: Vec<_> = self.unless_dead(log.uploadable(offsets.local_start, 3)).unwrap_or_default();
                if let Some(last) = sealed.last() {
                    changed.local_start = changed.local_start.max(last.last_offset + 1);
                    changed.values = changed.values.split_off(&changed.local_start);
                    let below = last.last_offset + 1;
                    self.change(at, changed, || log.delete_local_below(below).map(drop));
                }
            }
            5 if offsets.ack_end > offsets.log_start => {
                let to = offsets.log_start + self.below((offsets.ack_end - offsets.log_start) as u64 + 1) as i64;
                log.raise_high_watermark(offsets.ack_end);
                changed.log_start = to;
                changed.local_start = changed.local_start.max(to);
                changed.values = changed.values.split_off(&changed.local_start);
                self.change(at, changed, || log.raise_log_start(to));
            }
            6 if self.below(4) == 0 => {
                let to = offsets.log_end + 1 + self.below(50) as i64;
                let start = offsets.log_start;
                let changed =
                    Model { values: BTreeMap::new(), local_start: to, log_start: start, end: to, safe_end: to, ..Model::default() };
                self.change(at, changed, || log.reset_to(start, to, Vec::new(), &[]));
            }
            _ => self.append(log, at),
        }
    }

    async fn delete(&mut self, process: &Process, at: usize) {
        self.change(at, Model::default(), || process.manager.delete(id(at as i32)));
    }

    /// One life of the process, to its end.
    async fn live(&mut self, life: u32, seed: u64) {
        let env = Env::simulated(seed, Arc::new(self.fs.clone()));
        if self.below(3) > 0 {
            self.fs.crash_at(self.fs.operations() + 1 + self.below(250));
        }
        self.fs.set_short_writes(self.below(4) == 0);
        let context = format!("seed {seed} life {life}");
        let mut settings = config(Path::new(DIR));
        settings.wal_file_bytes = 8 << 10;
        settings.wal_bytes_max = 24 << 10;
        settings.tail_cache_bytes = 6 << 10;
        let Some(process) = self.start(settings, &env) else {
            return self.lose_power();
        };
        let mut logs = Vec::new();
        for at in 0..PARTITIONS {
            let opened = process.manager.get_or_create(id(at as i32), log_config(self.flush));
            // The power may go while files are removed that nothing needs: then the log is open all the same.
            let Some(log) = self.unless_dead(opened).filter(|_| !self.fs.is_dead()) else {
                drop(logs);
                process.kill().await;
                return self.lose_power();
            };
            self.models[at as usize].check(&log, &context);
            logs.push(log);
        }
        let steps = self.below(120);
        for _ in 0..steps {
            let at = self.below(PARTITIONS) as usize;
            if self.below(150) == 0 {
                self.delete(&process, at).await;
                if let Some(log) = self.unless_dead(process.manager.get_or_create(id(at as i32), log_config(self.flush))) {
                    logs[at] = log;
                }
            } else {
                self.step(&logs[at].clone(), at);
            }
            for _ in 0..self.below(3) {
                tokio::task::yield_now().await;
            }
            if self.below(20) == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(self.below(1500))).await;
            }
            if self.fs.is_dead() {
                break;
            }
            let unsynced_is_safe = self.flush;
            for (log, model) in logs.iter().zip(&mut self.models) {
                let offsets = log.offsets();
                if unsynced_is_safe {
                    model.safe_end = model.safe_end.max(offsets.ack_end.min(model.end));
                }
            }
        }
        self.end(process, logs).await;
    }

    fn start(&self, settings: LogManagerConfig, env: &Env) -> Option<Process> {
        match Process::try_start(settings, env) {
            Ok(process) => Some(process),
            Err(_) if self.fs.is_dead() => None,
            Err(error) => panic!("{error}"),
        }
    }

    async fn end(&mut self, process: Process, logs: Vec<Arc<PartitionLog>>) {
        let how = self.below(3);
        if self.fs.is_dead() || how == 0 {
            drop(logs);
            self.fs.crash_at(self.fs.operations() + 1);
            process.kill().await;
            self.lose_power();
        } else if how == 1 {
            // Kill: what was acknowledged in any way survives.
            for (log, model) in logs.iter().zip(&mut self.models) {
                model.killed_end = log.offsets().ack_end.min(model.end);
            }
            let next = self.fs.kill();
            drop(logs);
            process.kill().await;
            self.fs = next;
        } else {
            let closed = process.manager.close();
            let clean = self.unless_dead(closed).is_some();
            drop(logs);
            process.kill().await;
            if clean {
                self.models.iter_mut().for_each(|model| model.safe_end = model.end);
            }
            self.lose_power();
        }
    }

    fn lose_power(&mut self) {
        self.models.iter_mut().for_each(|model| model.killed_end = 0);
        self.fs = self.fs.crash(&self.entropy);
    }
}

/// First offset of the batch that holds `offset`.
fn batch_start(log: &PartitionLog, offset: i64) -> i64 {
    let end = log.offsets().log_end;
    if offset >= end {
        return end;
    }
    let read = log.read(offset, 1, true, end).unwrap();
    crate::batch::BatchHeader::parse(&bytes(&read)).unwrap().base_offset
}

fn simulate(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let entropy = SmallEntropy::seeded(seed);
        let flush = entropy.below(4) > 0;
        let models = (0..PARTITIONS).map(|_| Model::default()).collect();
        let mut world = World { entropy, fs: SimFs::new(), models, next_value: 0, flush };
        for life in 0..12 {
            world.live(life, seed).await;
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_whenever_the_power_goes() {
    let seeds = std::env::var("SILTSTONE_SEEDS").ok();
    let (from, to) =
        seeds.as_deref().and_then(|text| text.split_once("..")).map_or((0, 20), |(from, to)| (from.parse().unwrap(), to.parse().unwrap()));
    for seed in from..to {
        simulate(seed);
    }
}
