use super::*;
use crate::testing::*;

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
