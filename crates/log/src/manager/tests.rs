use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use siltstone_common::fs::sim::SimFault;
use siltstone_common::fs::{FileSystem, SimFs};

use super::*;
use crate::shared::segments_dir;
use crate::testing::*;
use crate::wal::entry::EntryHeader;

fn values(range: std::ops::Range<i64>) -> Vec<(i64, Vec<u8>)> {
    range.map(|offset| (offset, format!("value {offset}").into_bytes())).collect()
}

fn append_values(log: &PartitionLog, range: std::ops::Range<i64>) {
    for (offset, value) in values(range) {
        assert_eq!(append(log, &value).first_offset, offset);
    }
}

#[tokio::test]
async fn acknowledged_records_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::system();
    let process = Process::start(config(dir.path()), &env);
    assert!(!process.report.clean);
    let log = process.log(0, &LogConfig::default());
    append_values(&log, 0..100);
    acknowledged(&log).await;
    assert_eq!(contents(&log, 0, 300), values(0..100));
    drop(log);
    process.kill().await;

    let process = Process::start(config(dir.path()), &env);
    assert_eq!(process.report.wal_batches, 100);
    let log = process.log(0, &LogConfig::default());
    assert_eq!(log.offsets().log_end, 100);
    assert_eq!(log.offsets().ack_end, 100);
    assert_eq!(contents(&log, 0, 300), values(0..100));
    append_values(&log, 100..150);
    acknowledged(&log).await;
    drop(log);
    process.stop().await;

    let process = Process::start(config(dir.path()), &env);
    assert!(process.report.clean);
    let log = process.log(0, &LogConfig::default());
    assert_eq!(contents(&log, 0, 1000), values(0..150));
    assert_eq!(log.leader_epochs(), vec![crate::epochs::EpochEntry { epoch: 1, start_offset: 0 }]);
}

/// Notes whether a waiter had been woken when the listener was told, and perhaps raises the high watermark, as the replica manager does.
struct Raises {
    raise: bool,
    waiter: Arc<Wakes>,
    woken_before: AtomicUsize,
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl futures::task::ArcWake for Wakes {
    fn wake_by_ref(arc_self: &Arc<Self>) {
        arc_self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl LogListener for Raises {
    fn ack_end_moved(&self, log: &Arc<PartitionLog>) {
        self.woken_before.fetch_add(self.waiter.0.load(Ordering::SeqCst), Ordering::SeqCst);
        if self.raise {
            log.raise_high_watermark(log.offsets().ack_end);
        }
    }

    fn offline(&self, _reason: &str) {}
}

/// Each time is a switch of threads: who waits for the high watermark is not woken for the ack end, which moves right before it.
#[tokio::test(start_paused = true)]
async fn a_commit_wakes_who_waits_once_and_after_the_listener() {
    for raise in [true, false] {
        let env = sim_env(&SimFs::new());
        let process = Process::start(config(Path::new("/data")), &env);
        let waiter = Arc::new(Wakes::default());
        let listener = Arc::new(Raises { raise, waiter: Arc::clone(&waiter), woken_before: AtomicUsize::new(0) });
        process.manager.set_listener(Arc::clone(&listener) as Arc<dyn LogListener>);
        let log = process.log(0, &LogConfig::default());
        let mut offsets = log.subscribe();
        offsets.mark_unchanged();
        append(&log, b"v");
        let mut changed = Box::pin(offsets.changed());
        let waker = futures::task::waker_ref(&waiter);
        assert!(changed.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        acknowledged(&log).await;
        assert_eq!(listener.woken_before.load(Ordering::SeqCst), 0, "woken for the ack end alone");
        assert_eq!(waiter.0.load(Ordering::SeqCst), 1);
        drop(changed);
        drop(log);
        process.kill().await;
    }
}

/// A fetch from the middle of a batch goes on with the batches behind it, which other appends brought.
#[tokio::test]
async fn a_read_from_the_middle_of_a_batch_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(config(dir.path()), &Env::system());
    let log = process.log(0, &LogConfig::default());
    for values in [&[b"0".as_slice()][..], &[b"1", b"2"], &[b"3"], &[b"4"]] {
        log.append_as_leader(batch(1_700_000_000_000, values), 1, crate::AppendOrigin::Client).unwrap();
    }
    acknowledged(&log).await;
    let read = log.read_at_once(2, 1 << 20, true, 5).unwrap().unwrap();
    assert_eq!((read.slices.len(), read.next_offset), (3, 5));
}

/// Whatever its size, beside the bytes that are worth a commit too: an entry that is alone is committed, not kept until others come.
#[tokio::test]
async fn an_append_of_any_size_is_acknowledged_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(LogManagerConfig { wal_bytes_max: 1 << 30, ..config(dir.path()) }, &Env::system());
    let log = process.log(0, &LogConfig { max_message_bytes: 64 << 20, ..LogConfig::default() });
    for bytes in [1, 4_096, (1 << 20) - 100, 1 << 20, (1 << 20) + 1, 8 << 20, (8 << 20) + 1] {
        append(&log, &vec![7; bytes]);
        acknowledged(&log).await;
    }
}

/// What of a segment file is in the page cache is read without a thread of the blocking pool; what is not, or whose file nobody has opened, is not waited for.
#[tokio::test]
async fn a_read_at_once_takes_what_the_page_cache_holds_of_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(config(dir.path()), &Env::system());
    let log = process.log(0, &small_segments());
    append_values(&log, 0..100);
    acknowledged(&log).await;
    drop(log);
    process.stop().await;

    let process = Process::start(config(dir.path()), &Env::system());
    let log = process.log(0, &small_segments());
    acknowledged(&log).await;
    assert_eq!(log.read_at_once(0, 300, true, 100).unwrap().map(|read| read.next_offset), None, "no file is open");
    let read = log.read(0, 300, true, 100).unwrap();
    let at_once = log.read_at_once(0, 300, true, 100).unwrap().expect("it was read just now");
    assert!(read.size_bytes > 0);
    assert_eq!((bytes(&at_once), at_once.next_offset), (bytes(&read), read.next_offset));
}

#[tokio::test]
async fn segments_roll_by_size_and_are_sealed_uploadable_and_deletable() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::system();
    let process = Process::start(config(dir.path()), &env);
    let small = LogConfig { segment_bytes: 1000, ..LogConfig::default() };
    let log = process.log(0, &small);
    append_values(&log, 0..100);
    acknowledged(&log).await;
    wait_for(|| log.segments().iter().rev().skip(1).all(|segment| segment.sealed)).await;
    let segments = log.segments();
    assert!(segments.len() > 5, "{segments:?}");
    let uploadable = log.uploadable(0, 100).unwrap();
    assert_eq!(uploadable.len(), segments.len() - 1);
    let mut next = 0;
    for sealed in &uploadable {
        assert_eq!(sealed.base_offset, next);
        next = sealed.last_offset + 1;
        assert_eq!(sealed.file.len().unwrap(), sealed.size_bytes);
        assert_eq!(sealed.index[0].position, 0);
        assert_eq!(sealed.leader_epochs.len(), 1);
        let (_, at) = crate::producers::ProducerStates::load(&sealed.producer_snapshot).unwrap();
        assert_eq!(at, next);
    }
    assert!(log.roll(true).unwrap());
    assert!(!log.roll(true).unwrap(), "empty segments never roll");
    assert_eq!(contents(&log, 0, 300), values(0..100));

    let freed = log.delete_local_below(uploadable[2].last_offset + 1).unwrap();
    assert_eq!(freed, uploadable[..3].iter().map(|sealed| sealed.size_bytes).sum::<u64>());
    assert_eq!(log.offsets().local_start, uploadable[3].base_offset);
    assert_eq!(log.offsets().log_start, 0);
    assert!(matches!(log.read(0, 100, true, 100), Err(crate::ReadError::NotLocal { .. })));
    drop(log);
    process.kill().await;

    let process = Process::start(config(dir.path()), &env);
    let log = process.log(0, &small);
    assert_eq!(log.offsets().local_start, uploadable[3].base_offset);
    assert_eq!(contents(&log, uploadable[3].base_offset, 300), values(uploadable[3].base_offset..100));
    assert_eq!(log.uploadable(0, 100).unwrap().len(), 0, "nothing is below the high watermark yet");
}

async fn wait_for(condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("waited in vain");
}

const DIR: &str = "/data";

fn sim_env(fs: &SimFs) -> Env {
    Env::simulated(1, Arc::new(fs.clone()))
}

fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: 1000, index_interval_bytes: 100, ..LogConfig::default() }
}

/// A data directory with 100 records in several segments, stopped cleanly or not.
async fn filled(clean: bool) -> SimFs {
    let fs = SimFs::new();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let log = process.log(0, &small_segments());
    append_values(&log, 0..100);
    acknowledged(&log).await;
    wait_for(|| log.segments().iter().rev().skip(1).all(|segment| segment.sealed)).await;
    if clean {
        drop(log);
        process.stop().await;
        return fs.kill();
    }
    process.manager.shared.checkpoint(std::slice::from_ref(&log)).unwrap();
    drop(log);
    let killed = fs.kill();
    process.kill().await;
    killed
}

fn segment_path(base_offset: i64) -> PathBuf {
    crate::segment::path_of(&segments_dir(Path::new(DIR)).join(id(0).to_string()), base_offset, crate::segment::FileKind::Log)
}

fn bases(log: &PartitionLog) -> Vec<i64> {
    log.segments().iter().map(|segment| segment.base_offset).collect()
}

#[tokio::test(start_paused = true)]
async fn a_directory_is_refused_to_a_second_process_and_to_another_cluster() {
    let fs = SimFs::new();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    assert!(matches!(Process::try_start(config(Path::new(DIR)), &sim_env(&fs)), Err(LogError::Locked(_))));
    process.stop().await;
    let other = LogManagerConfig { cluster_id: "another".to_owned(), ..config(Path::new(DIR)) };
    assert!(matches!(Process::try_start(other, &sim_env(&fs)), Err(LogError::WrongCluster { found, .. }) if found == "test-cluster"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_takes_the_directory_offline_and_nothing_more_is_acknowledged() {
    // A full disk too: the next sync would succeed all the same (I38).
    for fault in [SimFault::Sync, SimFault::SyncNoSpace] {
        let fs = SimFs::new();
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        let log = process.log(0, &LogConfig::default());
        append_values(&log, 0..3);
        acknowledged(&log).await;
        fs.inject(fault, "wal", 1);
        append(&log, b"never acknowledged");
        wait_for(|| process.manager.shared.health.is_offline()).await;
        assert_eq!(log.offsets().ack_end, 3);
        let refused = log.append_as_leader(batch(0, &[b"x"]), 1, crate::AppendOrigin::Client);
        assert!(matches!(refused, Err(crate::AppendError::Offline(reason)) if reason.contains("write-ahead log")));
        assert!(matches!(log.roll(true), Err(LogError::Offline(_))));
        assert_eq!(contents(&log, 0, 1000).len(), 4, "reads go on");
    }
}

/// A log with more than is taken before producers have to wait, while the loop gets no turn.
fn without_room() -> (SimFs, Process, Arc<PartitionLog>) {
    let fs = SimFs::new();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let log = process.log(0, &LogConfig::default());
    for _ in 0..70 {
        append(&log, &[b'v'; 1_000_000]);
    }
    (fs, process, log)
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_room_is_let_go_when_the_directory_goes_offline() {
    let (fs, _process, log) = without_room();
    fs.inject(SimFault::Sync, "wal", 1);
    tokio::time::timeout(std::time::Duration::from_secs(1), log.ready()).await.expect("let go");
    assert!(log.is_offline());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_room_is_let_go_when_the_disk_is_full() {
    let (fs, _process, log) = without_room();
    fs.set_capacity(Some(0));
    tokio::time::timeout(std::time::Duration::from_secs(1), log.ready()).await.expect("let go");
    let refused = log.append_as_leader(batch(0, &[b"x"]), 1, crate::AppendOrigin::Client);
    assert!(matches!(refused, Err(crate::AppendError::NoSpace)), "{refused:?}");
    fs.set_capacity(None);
    acknowledged(&log).await;
}

#[tokio::test(start_paused = true)]
async fn without_descriptors_the_directory_stays_online_and_all_is_tried_again() {
    let fs = SimFs::new();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let log = process.log(0, &LogConfig::default());
    fs.inject(SimFault::Open, "/wal/", 3);
    append_values(&log, 0..3);
    acknowledged(&log).await;
    fs.inject(SimFault::Open, ".log", 2);
    assert!(log.roll(true).is_err());
    assert!(!log.is_offline());
    wait_for(|| log.segments()[0].sealed).await;
    assert_eq!(contents(&log, 0, 1000), values(0..3));
}

#[tokio::test(start_paused = true)]
async fn the_segment_of_an_idle_partition_is_sealed_once_there_is_room() {
    let fs = SimFs::new();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let log = process.log(0, &LogConfig::default());
    append_values(&log, 0..3);
    acknowledged(&log).await;
    fs.set_capacity(Some(0));
    assert!(log.roll(true).is_err());
    fs.set_capacity(None);
    wait_for(|| log.segments()[0].sealed).await;
}

#[tokio::test(start_paused = true)]
async fn files_that_could_not_be_removed_go_later() {
    for full in [true, false] {
        let fs = filled(true).await;
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        let log = process.log(0, &small_segments());
        log.raise_high_watermark(100);
        let below = bases(&log)[3];
        if full {
            // The manifest has taken no room ahead yet.
            fs.set_capacity(Some(0));
        } else {
            fs.inject(SimFault::Name, "0.log", 1);
        }
        assert!(log.delete_local_below(below).is_err());
        assert!(fs.exists(&segment_path(0)));
        fs.set_capacity(None);
        wait_for(|| !fs.exists(&segment_path(0))).await;
        assert!(fs.exists(&segment_path(below)) && !log.is_offline());
    }
}

/// True if the partition's directory has no segment that is not part of the log.
fn only_segments_of(log: &PartitionLog, fs: &SimFs) -> bool {
    let entries = fs.read_dir(&segments_dir(Path::new(DIR)).join(id(0).to_string())).unwrap();
    let names = entries.iter().filter_map(|entry| crate::segment::SegmentName::parse(&entry.name));
    let bases = bases(log);
    names.map(|name| name.base_offset).all(|base| bases.contains(&base))
}

#[tokio::test(start_paused = true)]
async fn segments_that_were_taken_out_go_though_it_failed_first() {
    type Change = fn(&PartitionLog) -> Result<(), LogError>;
    let changes: [Change; 3] = [
        |log| log.truncate_to(30),
        |log| log.reset_to(0, 200, Vec::new(), &[]),
        |log| {
            log.raise_high_watermark(100);
            log.delete_local_below(60).map(drop)
        },
    ];
    for (at, change) in changes.into_iter().enumerate() {
        for full in [true, false] {
            let fs = filled(true).await;
            let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
            let log = process.log(0, &small_segments());
            if full {
                // The manifest has taken no room ahead yet.
                fs.set_capacity(Some(0));
            } else {
                fs.inject(SimFault::Name, ".log", 1);
            }
            assert!(change(&log).is_err(), "change {at}, full {full}");
            assert!(!only_segments_of(&log, &fs));
            fs.set_capacity(None);
            wait_for(|| only_segments_of(&log, &fs)).await;
        }
        let fs = filled(true).await;
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        let log = process.log(0, &small_segments());
        fs.inject(SimFault::Name, ".log", 1000);
        assert!(change(&log).is_err());
        drop(log);
        process.stop().await;
        let fs = fs.kill();
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        assert!(process.report.clean);
        assert!(only_segments_of(&process.log(0, &small_segments()), &fs), "change {at}, after a clean stop");
    }
}

/// A round of the background may come with a record that is older than what was taken out.
#[tokio::test(start_paused = true)]
async fn no_file_goes_that_the_manifest_has() {
    let fs = filled(true).await;
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let log = process.log(0, &small_segments());
    log.raise_high_watermark(100);
    // The manifest has taken no room ahead yet.
    fs.set_capacity(Some(0));
    assert!(log.delete_local_below(60).is_err());
    assert!(log.remove_doomed().is_err());
    assert!(fs.exists(&segment_path(0)));
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_failed_is_not_taken_for_done() {
    for open in [true, false] {
        let fs = filled(false).await;
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        if open {
            process.log(0, &small_segments());
        }
        // The manifest has taken no room ahead yet.
        fs.set_capacity(Some(0));
        assert!(process.manager.delete(id(0)).is_err());
        assert_eq!(process.manager.ids(), [id(0)]);
        fs.set_capacity(None);
        wait_for(|| process.manager.ids().is_empty()).await;
        assert_eq!(fs.read_dir(&segments_dir(Path::new(DIR))).unwrap(), Vec::new());
        let killed = fs.kill();
        process.kill().await;
        let process = Process::start(config(Path::new(DIR)), &sim_env(&killed));
        assert_eq!((process.report.partitions, process.log(0, &small_segments()).offsets().log_end), (0, 0));
    }
}

/// The full disk is why somebody deletes a topic.
#[tokio::test(start_paused = true)]
async fn a_removal_that_fails_for_long_does_not_keep_the_wal() {
    for open in [true, false] {
        let fs = SimFs::new();
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        let log = process.log(0, &LogConfig::default());
        append_values(&log, 0..10);
        acknowledged(&log).await;
        log.flush().unwrap();
        drop(log);
        let fs = fs.kill();
        process.kill().await;
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        if open {
            process.log(0, &LogConfig::default());
        }
        fs.inject(SimFault::Name, ".deleted", 1000);
        assert!(process.manager.delete(id(0)).is_err());
        let busy = process.log(1, &LogConfig::default());
        let value = vec![b'v'; 10_000];
        for _ in 0..400 {
            tokio::time::timeout(std::time::Duration::from_secs(60), busy.ready()).await.expect("the WAL goes on");
            append(&busy, &value);
            acknowledged(&busy).await;
        }
        assert!(!busy.is_offline());
        assert_eq!(process.manager.ids(), [id(0), id(1)]);
    }
}

/// The background, an upload or an opening may have the log in hand while its topic is deleted.
#[tokio::test(start_paused = true)]
async fn what_still_works_on_a_log_that_was_deleted_takes_nothing_offline() {
    let fs = SimFs::new();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let (log, other) = (process.log(0, &small_segments()), process.log(1, &LogConfig::default()));
    abort_one(&other, 0);
    acknowledged(&other).await;
    other.roll(true).unwrap();
    let snapshot = other.uploadable(0, 1).unwrap().remove(0).producer_snapshot;
    append_values(&log, 0..20);
    acknowledged(&log).await;
    // Files whose names are not durable yet, and a segment that waits to be sealed.
    log.flush().unwrap();
    process.manager.delete(id(0)).unwrap();
    process.manager.shared.checkpoint(std::slice::from_ref(&log)).unwrap();
    log.reset_to(0, 60, Vec::new(), &snapshot).unwrap();
    log.raise_log_start(5).unwrap();
    log.truncate_to(3).unwrap();
    log.delete_local_below(10).unwrap();
    log.roll(true).unwrap();
    assert!(!log.is_offline());
    assert!(!fs.exists(&segment_path(0)) && process.manager.ids() == [id(1)]);
    append(&other, b"goes on");
    acknowledged(&other).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_appends_and_takes_them_again_without_a_restart() {
    let fs = SimFs::new();
    fs.set_capacity(Some(2 << 20));
    let settings = LogManagerConfig { disk_reserve_bytes: 300 << 10, ..config(Path::new(DIR)) };
    let process = Process::start(settings, &sim_env(&fs));
    let log = process.log(0, &LogConfig { segment_bytes: 100_000, ..LogConfig::default() });
    let value = vec![b'v'; 10_000];
    let mut count = 0;
    let refused = loop {
        match log.append_as_leader(batch(0, &[&value]), 1, crate::AppendOrigin::Client) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
        acknowledged(&log).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(count < 400, "the mark is never reached");
    };
    assert!(matches!(refused, crate::AppendError::NoSpace), "{refused}");
    assert!(count > 20);
    assert_eq!(contents(&log, 0, 1 << 20).len() as i64, count, "reads go on");
    let sealed = log.uploadable(0, 1000).unwrap();
    assert!(log.delete_local_below(sealed.last().unwrap().last_offset + 1).unwrap() > 0);
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(log.append_as_leader(batch(0, &[&value]), 1, crate::AppendOrigin::Client).unwrap().first_offset, count);
    acknowledged(&log).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_manifest_or_with_a_damaged_one_the_segments_are_read() {
    for damage in [false, true] {
        let fs = filled(true).await;
        let manifest = crate::shared::manifest_path(Path::new(DIR));
        if damage {
            fs.flip_bit(&manifest, 60, 3).unwrap();
        } else {
            fs.remove_file(&manifest).unwrap();
        }
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        let log = process.log(0, &small_segments());
        assert_eq!(contents(&log, 0, 300), values(0..100), "damage {damage}");
        assert_eq!(log.leader_epochs().len(), 1);
        append_values(&log, 100..120);
        acknowledged(&log).await;
        assert!(log.uploadable(0, 100).unwrap().len() > 5);
        drop(log);
        process.stop().await;
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        assert_eq!(contents(&process.log(0, &small_segments()), 0, 300), values(0..120));
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_batch_is_set_aside_by_a_scan_and_the_rest_is_served() {
    let fs = filled(true).await;
    fs.remove_file(&crate::shared::manifest_path(Path::new(DIR))).unwrap();
    let second = {
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs.clone()));
        let second = bases(&process.log(0, &small_segments()))[1];
        process.stop().await;
        second
    };
    fs.remove_file(&crate::shared::manifest_path(Path::new(DIR))).unwrap();
    fs.flip_bit(&segment_path(second), 250, 0).unwrap();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    assert_eq!(process.report.quarantined.len(), 1, "{:?}", process.report);
    assert!(fs.exists(Path::new(&process.report.quarantined[0])));
    let log = process.log(0, &small_segments());
    let third = bases(&log)[2];
    assert_eq!(log.offsets().log_end, 100, "no offset is given twice");
    assert_eq!(contents(&log, third, 300), values(third..100));
    let bad = contents_until_error(&log);
    assert!(bad > second && bad < third, "{second} {bad} {third}");
    assert!(matches!(log.read(bad, 100, true, 100), Err(crate::ReadError::NotLocal { local_start }) if local_start == third));
}

/// F27: of what a cleaned segment was made of, any may be left by a loss of power.
#[tokio::test(start_paused = true)]
async fn a_scan_takes_a_cleaned_segment_whole_whatever_is_left_of_what_it_was_made_of() {
    for left in 0..8u32 {
        let fs = filled(true).await;
        let bases_before = bases_on(&fs).await;
        let fs = fs.kill();
        let merged = &bases_before[..3];
        let bytes: Vec<u8> = merged.iter().flat_map(|base| crate::segment::read_whole(&fs, &segment_path(*base)).unwrap()).collect();
        let cleaned = segment_path(0).with_extension("1.log");
        fs.open(&cleaned, siltstone_common::fs::OpenMode::CreateNew).unwrap().write_all_at(&bytes, 0).unwrap();
        for (at, base) in merged.iter().enumerate().filter(|(at, _)| left & 1 << at == 0) {
            fs.remove_file(&segment_path(*base)).unwrap_or_else(|error| panic!("{at}: {error}"));
        }
        fs.remove_file(&crate::shared::manifest_path(Path::new(DIR))).unwrap();
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        assert_eq!(process.report.quarantined, Vec::<String>::new(), "left {left:03b}");
        let log = process.log(0, &small_segments());
        assert_eq!(contents(&log, 0, 300), values(0..100), "left {left:03b}");
        assert_eq!(bases(&log)[..2], [0, bases_before[3]]);
        assert!(merged.iter().all(|base| !fs.exists(&segment_path(*base))));
    }
}

/// Reads from the beginning; the offset that can't be read.
fn contents_until_error(log: &PartitionLog) -> i64 {
    let mut next = log.offsets().log_start;
    while let Ok(read) = log.read(next, 300, true, log.offsets().log_end) {
        next = read.next_offset;
    }
    next
}

#[tokio::test(start_paused = true)]
async fn a_segment_file_that_is_gone_leaves_a_hole_and_the_rest_is_served() {
    let fs = filled(false).await;
    let bases_before = {
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        let bases = bases(&process.log(0, &small_segments()));
        process.kill().await;
        bases
    };
    fs.remove_file(&segment_path(bases_before[2])).unwrap();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    assert_eq!(process.report.quarantined.len(), 1);
    let log = process.log(0, &small_segments());
    assert_eq!(log.offsets().log_end, 100);
    assert_eq!(contents_until_error(&log), bases_before[2]);
    assert_eq!(contents(&log, bases_before[3], 300), values(bases_before[3]..100));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_active_segment_keeps_what_is_good_and_the_log_goes_on_behind_it() {
    let fs = filled(false).await;
    let active = {
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        let active = *bases(&process.log(0, &small_segments())).last().unwrap();
        process.kill().await;
        active
    };
    // The magic byte of the second batch, so that a walk over headers sees it.
    let first_len = {
        let file = fs.open(&segment_path(active), siltstone_common::fs::OpenMode::Read).unwrap();
        let mut header = [0; 61];
        file.read_exact_at(&mut header, 0).unwrap();
        crate::batch::BatchHeader::parse(&header).unwrap().total_len() as u64
    };
    fs.flip_bit(&segment_path(active), first_len + 16, 5).unwrap();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let log = process.log(0, &small_segments());
    assert_eq!(log.offsets().log_end, 100, "no offset is given twice (I6)");
    assert_eq!(contents_until_error(&log), active + 1);
    append_values(&log, 100..110);
    acknowledged(&log).await;
    assert_eq!(contents(&log, 100, 300), values(100..110));
}

#[tokio::test(start_paused = true)]
async fn a_directory_whose_partitions_were_removed_gives_empty_logs() {
    for clean in [false, true] {
        let fs = filled(clean).await;
        fs.remove_dir_all(&segments_dir(Path::new(DIR))).unwrap();
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        assert_eq!(process.report.partitions, 0);
        let log = process.log(0, &small_segments());
        assert_eq!(log.offsets().log_end, 0);
        log.reset_to(0, 60, Vec::new(), &[]).unwrap();
        append_values(&log, 60..70);
        acknowledged(&log).await;
        drop(log);
        process.kill().await;
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        let log = process.log(0, &small_segments());
        assert_eq!((log.offsets().log_start, log.offsets().local_start), (0, 60));
        assert_eq!(contents(&log, 60, 300), values(60..70));
    }
}

#[tokio::test(start_paused = true)]
async fn a_retried_batch_is_answered_with_its_offsets_after_a_restart() {
    let fs = SimFs::new();
    let idempotent = |sequence: i32| {
        let mut builder = crate::records::BatchBuilder::new(crate::batch::Compression::None).producer(7, 0, sequence, false);
        builder.record(0, None, Some(b"v"), &[]);
        builder.build()
    };
    for life in 0..4 {
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        let log = process.log(0, &small_segments());
        if life > 0 {
            let info = log.append_as_leader(idempotent(life * 10 - 1), 1, crate::AppendOrigin::Client).unwrap();
            assert_eq!((info.first_offset, info.duplicate), (i64::from(life) * 10 - 1, true), "life {life}");
        }
        for sequence in life * 10..life * 10 + 10 {
            let info = log.append_as_leader(idempotent(sequence), 1, crate::AppendOrigin::Client).unwrap();
            assert_eq!((info.first_offset, info.duplicate), (i64::from(sequence), false));
        }
        let gap = log.append_as_leader(idempotent(life * 10 + 12), 1, crate::AppendOrigin::Client);
        assert!(matches!(gap, Err(crate::AppendError::OutOfOrderSequence { .. })));
        acknowledged(&log).await;
        drop(log);
        if life % 2 == 0 { process.kill().await } else { process.stop().await }
    }
}

#[tokio::test(start_paused = true)]
async fn without_flush_an_acknowledgement_waits_for_the_write_and_flush_ms_bounds_the_time_to_the_sync() {
    let fs = SimFs::new();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let log = process.log(0, &LogConfig { flush_messages: i64::MAX, flush_ms: 500, ..LogConfig::default() });
    append_values(&log, 0..5);
    acknowledged(&log).await;
    let acknowledged_at = fs.operations();
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    assert_eq!(fs.operations(), acknowledged_at, "nothing is synced before its time");
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(fs.operations(), acknowledged_at + 1, "one sync");
    let survivor = fs.crash(&siltstone_common::entropy::SmallEntropy::seeded(3));
    drop(log);
    process.kill().await;
    let process = Process::start(config(Path::new(DIR)), &sim_env(&survivor));
    assert_eq!(contents(&process.log(0, &LogConfig::default()), 0, 300), values(0..5));
}

/// What [`PartitionLog::offset_for_timestamp`] must say of records with these timestamps.
fn first_since(timestamps: &[i64], timestamp_ms: i64, from: i64) -> Option<(i64, i64, i32)> {
    let late = timestamps.iter().enumerate().find(|(offset, at)| **at >= timestamp_ms && *offset as i64 >= from);
    late.map(|(offset, at)| (*at, offset as i64, 1))
}

#[tokio::test(start_paused = true)]
async fn offsets_are_found_by_time_in_sealed_active_and_unflushed_segments() {
    let fs = SimFs::new();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let log = process.log(0, &small_segments());
    // Goes up, with jumps back that a sparse index must not be misled by.
    let timestamps: Vec<i64> =
        (0..90).map(|at: i64| 1000 + at * 10 - if at % 7 == 3 { 200 } else { 0 } + if at == 40 { 5000 } else { 0 }).collect();
    for three in timestamps.chunks(3) {
        let mut builder = crate::records::BatchBuilder::new(crate::batch::Compression::Lz4);
        three.iter().for_each(|at| builder.record(*at, None, Some(b"some value"), &[]));
        log.append_as_leader(builder.build(), 1, crate::AppendOrigin::Client).unwrap();
    }
    acknowledged(&log).await;
    for timestamp_ms in (700..2100).step_by(5).chain([5000, 6400, 6401]) {
        for from in [0, 1, 35, 41, 88] {
            let found = log.offset_for_timestamp(timestamp_ms, from).unwrap();
            assert_eq!(found, first_since(&timestamps, timestamp_ms, from), "{timestamp_ms} from {from}");
        }
    }
    assert_eq!(log.max_timestamp().unwrap(), Some((6400, 40, 1)));
    drop(log);
    process.stop().await;
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let log = process.log(0, &small_segments());
    assert_eq!(log.max_timestamp().unwrap(), Some((6400, 40, 1)));
    assert_eq!(log.offset_for_timestamp(1890, 0).unwrap(), first_since(&timestamps, 1890, 0));
}

#[tokio::test(start_paused = true)]
async fn a_follower_takes_the_leaders_batches_as_they_are_but_no_bad_or_old_ones() {
    let fs = SimFs::new();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let (leader, follower) = (process.log(0, &small_segments()), process.log(1, &small_segments()));
    append_values(&leader, 0..50);
    let fetched = bytes(&leader.read(0, 5000, true, 50).unwrap());
    let cut = bytes::Bytes::copy_from_slice(&fetched[..fetched.len() - 5]);
    let info = follower.append_as_follower(cut).unwrap();
    assert!(info.last_offset < 49 && info.last_offset > 20, "a cut last batch is left out");
    let next = info.last_offset + 1;
    assert!(matches!(follower.append_as_follower(fetched.into()), Err(crate::AppendError::InvalidRecord(_))));
    let rest = bytes(&leader.read(next, 50_000, true, 50).unwrap());
    let mut bad = rest.clone();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    assert!(matches!(follower.append_as_follower(bad.into()), Err(crate::AppendError::Corrupt(_))), "I36");
    assert_eq!(follower.offsets().log_end, next);
    follower.append_as_follower(rest.into()).unwrap();
    acknowledged(&follower).await;
    assert_eq!(contents(&follower, 0, 300), values(0..50));
    assert_eq!(follower.leader_epochs(), leader.leader_epochs());
    assert_eq!(follower.end_offset_for_epoch(1), Some((1, 50)));
}

fn in_simulation<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
}

/// I3: a clean stop acknowledges what it synced, nothing else.
#[test]
fn a_close_that_could_not_sync_acknowledges_nothing_more() {
    in_simulation(async {
        let fs = SimFs::new();
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        let small = process.log(0, &LogConfig::default());
        append_values(&small, 0..3);
        acknowledged(&small).await;
        // Not even in the write-ahead log yet, as its loop had no turn.
        let large = process.log(1, &LogConfig::default());
        append(&large, &vec![7; 100 << 10]);
        let used: u64 = fs.dump().iter().filter_map(|(_, bytes)| Some(bytes.as_ref()?.len() as u64)).sum();
        fs.set_capacity(Some(used + (16 << 10)));
        assert!(process.manager.close().is_err(), "there is no room for the large record");
        assert_eq!(small.offsets().ack_end, 3);
        assert_eq!(large.offsets().ack_end, 0, "it is nowhere on the disk");
    });
}

/// An append that was being checked while the log closed is refused or kept, never taken and lost (I3).
#[test]
fn nothing_is_appended_behind_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let log_end = runtime.block_on(async {
        let process = Process::start(config(dir.path()), &Env::system());
        let log = process.log(0, &LogConfig::default());
        let value = vec![b'x'; 900 << 10];
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let records = batch(1_700_000_000_000, &[&value]);
                    while !matches!(
                        log.append_as_leader(records.clone(), 1, crate::AppendOrigin::Client),
                        Err(crate::AppendError::Offline(_))
                    ) {}
                });
            }
            while log.offsets().log_end < 4 {
                std::thread::yield_now();
            }
            process.manager.close().unwrap();
        });
        let offsets = log.offsets();
        assert_eq!(offsets.ack_end, offsets.log_end, "all that was taken was synced");
        drop(log);
        process.kill().await;
        offsets.log_end
    });
    runtime.block_on(async {
        let process = Process::start(config(dir.path()), &Env::system());
        assert!(process.report.clean);
        assert_eq!(process.log(0, &LogConfig::default()).offsets().log_end, log_end);
        process.kill().await;
    });
}

/// I7, I9: once a newer epoch has begun, what an older leader still had in hand is refused.
#[test]
fn an_append_in_an_older_epoch_is_refused() {
    in_simulation(async {
        let process = Process::start(config(Path::new(DIR)), &sim_env(&SimFs::new()));
        let log = process.log(0, &LogConfig::default());
        log.begin_leader_epoch(3);
        let append = |epoch| log.append_as_leader(batch(1, &[b"x"]), epoch, crate::AppendOrigin::Client);
        assert!(matches!(append(2), Err(crate::AppendError::StaleLeaderEpoch { got: 2, current: 3 })));
        assert_eq!(log.offsets().log_end, 0);
        append(3).unwrap();
        append(4).unwrap();
        assert!(append(3).is_err());
        assert_eq!(log.leader_epochs().iter().map(|entry| entry.epoch).collect::<Vec<_>>(), [3, 4]);
    });
}

/// I3: a reset that was asked for twice, as by an open that was given up and went on behind, takes nothing that came after the first.
#[test]
fn a_reset_leaves_a_log_that_has_gone_on_since() {
    in_simulation(async {
        let process = Process::start(config(Path::new(DIR)), &sim_env(&SimFs::new()));
        let log = process.log(0, &LogConfig::default());
        log.reset_to(0, 60, Vec::new(), &[]).unwrap();
        append_values(&log, 60..63);
        acknowledged(&log).await;
        log.reset_to(0, 60, Vec::new(), &[]).unwrap();
        assert_eq!(log.offsets().log_end, 63);
        assert_eq!(contents(&log, 60, 1 << 10), values(60..63));
    });
}

/// Entries in the payload of other entries, as anybody who may write to one topic can send them.
fn forged(victim: siltstone_common::TopicIdPartition, lead: usize) -> Vec<u8> {
    let mut payload = batch(0, &[b"forged"]);
    crate::batch::stamp(&mut payload, 3, 1);
    let mut out = vec![0; lead];
    for salt in 1..200 {
        let (sequence, payload_len) = (1 << 40, payload.len() as u32);
        let header = EntryHeader { payload_len, salt, sequence, durable_sequence: sequence, id: victim };
        out.extend_from_slice(&header.encode(&payload));
        out.extend_from_slice(&payload);
        out.resize(lead + (out.len() - lead).next_multiple_of(8), 0);
    }
    out
}

#[tokio::test(start_paused = true)]
async fn what_a_producer_writes_into_its_records_is_never_taken_for_entries() {
    let fs = SimFs::new();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let (mallory, victim) = (process.log(0, &small_segments()), process.log(1, &small_segments()));
    mallory.set_config(LogConfig { segment_bytes: 100_000, ..LogConfig::default() });
    // The first forged entry has to lie on a multiple of 8 in the file.
    let at = batch(0, &[&forged(victim.id(), 0)]).len() - forged(victim.id(), 0).len() - 1;
    let value = forged(victim.id(), (8 - at % 8) % 8);
    for _ in 0..100 {
        append(&mallory, &value);
        acknowledged(&mallory).await;
    }
    append_values(&victim, 0..10);
    acknowledged(&victim).await;
    drop((mallory, victim));
    let killed = fs.kill();
    process.kill().await;

    let process = Process::start(config(Path::new(DIR)), &sim_env(&killed));
    assert_eq!(process.report.quarantined, Vec::<String>::new());
    assert_eq!(contents(&process.log(1, &small_segments()), 0, 300), values(0..10));
}

/// The one WAL file that was taken into use.
fn wal_file_in_use(fs: &SimFs) -> PathBuf {
    let files = fs.dump().into_iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "wal"));
    files.filter(|(_, bytes)| bytes.as_ref().is_some_and(|bytes| bytes[0] != 0)).map(|(path, _)| path).next().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_header_of_the_newest_wal_file_loses_nothing_and_two_are_reported() {
    for damaged_copies in [1, 2] {
        let fs = SimFs::new();
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        let log = process.log(0, &small_segments());
        append_values(&log, 0..3);
        acknowledged(&log).await;
        drop(log);
        let fs = {
            let killed = fs.kill();
            process.kill().await;
            killed
        };
        let path = wal_file_in_use(&fs);
        (0..damaged_copies).for_each(|copy| fs.flip_bit(&path, copy * 2048 + 20, 0).unwrap());
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        let log = process.log(0, &small_segments());
        if damaged_copies == 1 {
            assert_eq!(contents(&log, 0, 300), values(0..3));
        } else {
            assert_eq!(process.report.quarantined.len(), 1, "{:?}", process.report);
            assert!(!fs.exists(&path) && fs.exists(&path.with_extension("wal.corrupt-0")), "set aside");
        }
    }
}

/// Magic byte of the `nth` batch of the segment that begins at `base_offset`: a walk over headers sees it.
fn damage_batch(fs: &SimFs, base_offset: i64, nth: usize) {
    let bytes = crate::segment::read_whole(fs, &segment_path(base_offset)).unwrap();
    let position: usize = crate::batch::batches(&bytes).take(nth).map(|item| item.unwrap().1.len()).sum();
    fs.flip_bit(&segment_path(base_offset), position as u64 + 16, 5).unwrap();
}

/// Without snapshots all segments are read.
fn remove_snapshots(fs: &SimFs) {
    let dir = segments_dir(Path::new(DIR)).join(id(0).to_string());
    for entry in fs.read_dir(&dir).unwrap().iter().filter(|entry| entry.name.ends_with(".snapshot")) {
        fs.remove_file(&dir.join(&entry.name)).unwrap();
    }
}

/// Opens the directory, looks at the first offsets of its segments, and kills the process.
async fn bases_on(fs: &SimFs) -> Vec<i64> {
    let process = Process::start(config(Path::new(DIR)), &sim_env(fs));
    let bases = bases(&process.log(0, &small_segments()));
    process.kill().await;
    bases
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_disk_that_passes_is_not_taken_for_damage() {
    for (fault, kind) in [(SimFault::Read, "log"), (SimFault::Open, "log"), (SimFault::Read, "snapshot"), (SimFault::Open, "snapshot")] {
        let fs = filled(false).await;
        let active = *bases_on(&fs).await.last().unwrap();
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        fs.inject(fault, &format!("{active}.{kind}"), 1);
        assert!(process.manager.get_or_create(id(0), small_segments()).is_err(), "{fault:?} {kind}");
        assert_eq!(contents(&process.log(0, &small_segments()), 0, 300), values(0..100));
    }
    // Where there is no manifest.
    let fs = filled(true).await;
    fs.remove_file(&crate::shared::manifest_path(Path::new(DIR))).unwrap();
    fs.inject(SimFault::Read, ".log", 1);
    assert!(Process::try_start(config(Path::new(DIR)), &sim_env(&fs)).is_err());
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    assert_eq!(contents(&process.log(0, &small_segments()), 0, 300), values(0..100));
}

#[tokio::test(start_paused = true)]
async fn segments_behind_a_damaged_one_stay() {
    let fs = filled(false).await;
    let bases_before = bases_on(&fs).await;
    let (damaged, next, active) = (bases_before[3], bases_before[4], *bases_before.last().unwrap());
    remove_snapshots(&fs);
    damage_batch(&fs, damaged, 1);
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let log = process.log(0, &small_segments());
    append_values(&log, 100..103);
    acknowledged(&log).await;
    process.manager.shared.checkpoint(std::slice::from_ref(&log)).unwrap();
    drop(log);
    let killed = fs.kill();
    process.kill().await;
    for _ in 0..2 {
        let process = Process::start(config(Path::new(DIR)), &sim_env(&killed));
        let log = process.log(0, &small_segments());
        assert_eq!(log.offsets().log_end, 103);
        assert_eq!(contents_until_error(&log), damaged + 1);
        assert_eq!(contents(&log, next, 300), values(next..103));
        assert!(active > next && log.segments().iter().rev().skip(1).all(|segment| segment.sealed));
        drop(log);
        process.kill().await;
    }
}

/// The process ends before the manifest says what is left of a damaged segment.
#[tokio::test(start_paused = true)]
async fn what_is_good_of_a_damaged_segment_stays_whenever_the_process_ends() {
    let fs = filled(false).await;
    let bases_before = bases_on(&fs).await;
    let (damaged, next) = (bases_before[3], bases_before[4]);
    let mut fs = fs.kill();
    remove_snapshots(&fs);
    damage_batch(&fs, damaged, 1);
    let len = fs.open(&segment_path(damaged), siltstone_common::fs::OpenMode::Read).unwrap().len().unwrap();
    for life in 0..3 {
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        fs.inject(SimFault::Write, "manifest", 10);
        let log = process.log(0, &small_segments());
        assert_eq!(contents_until_error(&log), damaged + 1, "life {life}");
        assert_eq!(contents(&log, next, 300), values(next..100));
        let aside = segment_path(damaged).with_extension(format!("log.corrupt-{}", damaged + 1));
        assert_eq!(fs.open(&aside, siltstone_common::fs::OpenMode::Read).unwrap().len().unwrap(), len, "all of it is kept");
        drop(log);
        let killed = fs.kill();
        process.kill().await;
        fs = killed;
    }
}

#[tokio::test(start_paused = true)]
async fn after_damage_to_the_active_segment_no_offset_is_given_twice_whatever_is_recorded_next() {
    let fs = filled(false).await;
    let active = *bases_on(&fs).await.last().unwrap();
    damage_batch(&fs, active, 1);
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let log = process.log(0, &small_segments());
    log.raise_log_start(10).unwrap();
    drop(log);
    let killed = fs.kill();
    process.kill().await;
    let process = Process::start(config(Path::new(DIR)), &sim_env(&killed));
    let log = process.log(0, &small_segments());
    assert_eq!((log.offsets().log_start, log.offsets().log_end), (10, 100), "I6");
    assert_eq!(contents_until_error(&log), active + 1);
}

/// F27: the rest may be in the bucket, whoever knows that says where the log begins.
#[tokio::test(start_paused = true)]
async fn without_manifest_and_segments_what_the_wal_has_is_kept() {
    let fs = filled(true).await;
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let log = process.log(0, &small_segments());
    log.roll(true).unwrap();
    log.raise_high_watermark(100);
    log.delete_local_below(100).unwrap();
    append_values(&log, 100..103);
    acknowledged(&log).await;
    drop(log);
    let fs = fs.kill();
    process.kill().await;
    fs.remove_file(&crate::shared::manifest_path(Path::new(DIR))).unwrap();
    for end in [103, 104] {
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        let log = process.log(0, &small_segments());
        let offsets = log.offsets();
        assert_eq!((offsets.log_start, offsets.local_start, offsets.log_end), (0, 100, end));
        assert_eq!(contents(&log, 100, 300), values(100..end));
        assert!(matches!(log.read(99, 100, true, 103), Err(crate::ReadError::NotLocal { local_start: 100 })));
        append_values(&log, end..end + 1);
        acknowledged(&log).await;
        drop(log);
        process.stop().await;
    }
}

/// A record that begins a transaction.
fn begin_transaction(log: &PartitionLog, producer_id: i64, sequence: i32) {
    let mut builder = crate::records::BatchBuilder::new(crate::batch::Compression::None).producer(producer_id, 0, sequence, true);
    builder.record(0, None, Some(b"gone"), &[]);
    let guard = log.begin_verification((producer_id, 0), sequence, false).unwrap();
    log.append_as_leader(builder.build(), 1, crate::AppendOrigin::VerifiedClient(guard)).unwrap();
}

fn abort_transaction(log: &PartitionLog, producer_id: i64) {
    let marker = crate::producers::EndTxnMarker { commit: false, coordinator_epoch: 1 }.to_batch(producer_id, 0, 0);
    log.append_as_leader(marker, 1, crate::AppendOrigin::Marker { transaction_version: 0 }).unwrap();
}

/// A transaction that is aborted: record, marker.
fn abort_one(log: &PartitionLog, sequence: i32) {
    begin_transaction(log, 7, sequence);
    abort_transaction(log, 7);
}

/// I19, F27.
#[tokio::test(start_paused = true)]
async fn aborted_transactions_are_found_though_their_lists_and_the_snapshots_are_gone() {
    for begin_is_here in [true, false] {
        let fs = SimFs::new();
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        let log = process.log(0, &LogConfig::default());
        for segment in 0..3 {
            match segment {
                0 => begin_transaction(&log, 8, 0),
                1 => abort_one(&log, 0),
                _ => abort_transaction(&log, 8),
            }
            acknowledged(&log).await;
            log.roll(true).unwrap();
        }
        assert_eq!(bases(&log), [0, 1, 3, 4]);
        if !begin_is_here {
            log.delete_local_below(1).unwrap();
        }
        let damaged: &[i64] = if begin_is_here { &[1, 3] } else { &[1] };
        for base in damaged {
            fs.remove_file(&segment_path(*base).with_extension("txnindex")).unwrap();
            fs.remove_file(&segment_path(*base).with_extension("snapshot")).unwrap();
        }
        let producers = |from, to| -> Vec<i64> { log.aborted_transactions(from, to).unwrap().iter().map(|txn| txn.producer_id).collect() };
        assert_eq!(producers(1, 3), [7, 8], "begin is here: {begin_is_here}");
        assert_eq!(producers(3, 4), [8]);
    }
}

#[tokio::test(start_paused = true)]
async fn aborted_transactions_are_looked_for_no_further_than_they_may_lie_and_read_once() {
    let fs = SimFs::new();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let log = process.log(0, &LogConfig::default());
    for sequence in 0..4 {
        abort_one(&log, sequence);
        acknowledged(&log).await;
        log.roll(true).unwrap();
    }
    let list = |base: i64| segment_path(base).with_extension("txnindex");
    assert!((0..4).all(|segment| fs.exists(&list(segment * 2))));
    // Only the list of the first is there to be read.
    (1..4).for_each(|segment| fs.remove_file(&list(segment * 2)).unwrap());
    assert_eq!(log.aborted_transactions(0, 2).unwrap().len(), 1);
    fs.inject(SimFault::Open, ".log", 100);
    fs.inject(SimFault::Open, ".txnindex", 100);
    assert_eq!(log.aborted_transactions(0, 2).unwrap().len(), 1, "from memory, and nothing of the segments behind it");
    assert!(log.aborted_transactions(0, 8).is_err());
}

/// I19: what retention takes between a read and the look-up of its aborted transactions.
#[tokio::test(start_paused = true)]
async fn aborted_transactions_of_what_is_not_here_any_more_are_not_said_to_be_none() {
    let process = Process::start(config(Path::new(DIR)), &sim_env(&SimFs::new()));
    let log = process.log(0, &LogConfig::default());
    for sequence in 0..2 {
        abort_one(&log, sequence);
        acknowledged(&log).await;
        log.roll(true).unwrap();
    }
    let read = log.read(0, 1 << 20, true, 4).unwrap();
    assert_eq!(log.aborted_in(0, &read).unwrap().unwrap().len(), 2);
    log.raise_log_start(1).unwrap();
    assert_eq!(log.aborted_in(0, &read).unwrap().unwrap().len(), 2, "the segment is still here");
    log.delete_local_below(2).unwrap();
    assert!(matches!(log.aborted_in(1, &read), Err(crate::ReadError::NotLocal { local_start: 2 })));
    assert!(matches!(log.aborted_in(0, &read), Err(crate::ReadError::OutOfRange { start: 1, .. })));
    assert_eq!(log.aborted_in(2, &read).unwrap().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_appended_after_a_reset_that_could_not_be_recorded_at_once_is_there_after_a_kill() {
    let fs = filled(true).await;
    fs.remove_dir_all(&segments_dir(Path::new(DIR))).unwrap();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let log = process.log(0, &small_segments());
    // The manifest has taken no room ahead yet.
    fs.set_capacity(Some(0));
    assert!(log.reset_to(0, 60, Vec::new(), &[]).is_err());
    fs.set_capacity(None);
    log.reset_to(0, 60, Vec::new(), &[]).unwrap();
    let killed = fs.kill();
    drop(log);
    process.kill().await;
    let process = Process::start(config(Path::new(DIR)), &sim_env(&killed));
    let log = process.log(0, &small_segments());
    assert_eq!((log.offsets().log_start, log.offsets().log_end), (0, 60));
}

#[tokio::test(start_paused = true)]
async fn a_partition_directory_whose_name_was_never_synced_is_not_relied_upon() {
    for seed in 0..20 {
        let fs = SimFs::new();
        Process::start(config(Path::new(DIR)), &sim_env(&fs)).stop().await;
        let fs = fs.kill();
        // A process that was killed before it had made the name durable.
        fs.create_dir_all(&segments_dir(Path::new(DIR)).join(id(0).to_string())).unwrap();
        let fs = fs.kill();
        let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
        let log = process.log(0, &small_segments());
        append_values(&log, 0..100);
        acknowledged(&log).await;
        process.manager.shared.checkpoint(std::slice::from_ref(&log)).unwrap();
        drop(log);
        let crashed = fs.crash(&siltstone_common::entropy::SmallEntropy::seeded(seed));
        process.kill().await;
        let process = Process::start(config(Path::new(DIR)), &sim_env(&crashed));
        assert_eq!(contents(&process.log(0, &small_segments()), 0, 300), values(0..100), "seed {seed}");
        process.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_nobody_opens_does_not_keep_the_wal() {
    let fs = SimFs::new();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let (idle, busy) = (process.log(0, &small_segments()), process.log(1, &LogConfig::default()));
    append_values(&idle, 0..10);
    append(&busy, b"x");
    acknowledged(&idle).await;
    acknowledged(&busy).await;
    drop((idle, busy));
    let killed = fs.kill();
    process.kill().await;
    let process = Process::start(config(Path::new(DIR)), &sim_env(&killed));
    let busy = process.log(1, &LogConfig::default());
    let value = vec![b'v'; 10_000];
    for _ in 0..400 {
        tokio::time::timeout(std::time::Duration::from_secs(60), busy.ready()).await.expect("the WAL goes on");
        append(&busy, &value);
        acknowledged(&busy).await;
    }
    drop(busy);
    let killed = killed.kill();
    process.kill().await;
    let process = Process::start(config(Path::new(DIR)), &sim_env(&killed));
    assert_eq!(contents(&process.log(0, &small_segments()), 0, 300), values(0..10));
}

#[tokio::test(start_paused = true)]
async fn files_beside_segments_that_are_gone_are_removed_at_opening() {
    let fs = filled(true).await;
    let dir = segments_dir(Path::new(DIR)).join(id(0).to_string());
    let leftovers = [77_000, 78_000].map(|offset| crate::segment::path_of(&dir, offset, crate::segment::FileKind::Snapshot));
    let index = crate::segment::path_of(&dir, 77_000, crate::segment::FileKind::Index);
    for path in leftovers.iter().chain([&index]) {
        fs.open(path, siltstone_common::fs::OpenMode::CreateNew).unwrap();
    }
    let before = fs.read_dir(&dir).unwrap().len();
    let process = Process::start(config(Path::new(DIR)), &sim_env(&fs));
    let log = process.log(0, &small_segments());
    let left = fs.read_dir(&dir).unwrap();
    assert!(
        left.len() <= before - 3 && left.iter().all(|entry| !entry.name.contains("77000") && !entry.name.contains("78000")),
        "{left:?}"
    );
    log.raise_high_watermark(100);
    assert!(log.uploadable(0, 100).unwrap().len() > 5);
}
