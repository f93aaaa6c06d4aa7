//! What a broker's partitions do while their disk, their bucket or their leadership fails.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use siltstone_common::TopicIdPartition;
use siltstone_common::fs::sim::SimFault;
use siltstone_common::fs::{FileSystem, SimFs};
use siltstone_log::batch::Compression;
use siltstone_log::records::BatchBuilder;
use siltstone_metadata::api::{AdminChange, ConfigOp, ConfigResource};
use siltstone_replica::{FetchParams, ReplicaError};
use support::*;

const NOW_MS: i64 = 1_700_000_000_000;

/// Rolls often and keeps next to nothing on the local disk.
const TIERED: [(&str, &str); 3] = [("segment.bytes", "2000"), ("local.retention.bytes", "1"), ("retention.bytes", "-1")];

/// Produces until the bucket has something and the local disk no longer has it.
async fn tier(node: &Node, id: TopicIdPartition) {
    for value in 0..12u8 {
        node.produce(id, batch(NOW_MS, &[&[value; 700]]), LONG).await.unwrap();
    }
    node.wait_for("a local segment to go", LONG, |node| {
        node.replicas.opened(id).is_some_and(|partition| partition.offsets().local_start > 3)
    })
    .await;
}

/// The time-out is the request's: partitions that are not safe by then are all told at once, and what was appended stays.
#[test]
fn the_partitions_of_a_produce_time_out_together() {
    simulated(async {
        let world = World::new(1).await;
        let node = Node::start(&world, &SimFs::new()).await;
        let ids = world.topic("t", 3, &[]).await;
        let parts = |value: &[u8]| -> Vec<_> {
            let part = |id: &TopicIdPartition| siltstone_replica::ProducePartition {
                id: *id,
                records: batch(NOW_MS, &[value]),
                origin: siltstone_log::AppendOrigin::Client,
            };
            ids.iter().map(part).collect()
        };
        let before = node.env.clock.monotonic();
        let outcomes = node.replicas.append(-1, Duration::ZERO, parts(b"late")).await;
        assert_eq!(outcomes.iter().map(|outcome| outcome.id).collect::<Vec<_>>(), ids);
        assert!(outcomes.iter().all(|outcome| matches!(outcome.result, Err(ReplicaError::TimedOut))), "{outcomes:?}");
        assert!(node.env.clock.monotonic() - before < LONG);
        let outcomes = node.replicas.append(-1, LONG, parts(b"in time")).await;
        assert!(outcomes.iter().all(|outcome| outcome.result.as_ref().is_ok_and(|info| info.first_offset == 1)), "{outcomes:?}");
    });
}

/// I7, I9: leadership that went while a produce waited for its partition is noticed before the append.
#[test]
fn a_produce_that_waited_is_judged_by_the_newest_image() {
    simulated(async {
        let world = World::new(1).await;
        let fs = SimFs::new();
        let node = Node::start(&world, &fs).await;
        let id = world.topic("t", 1, &TIERED).await[0];
        tier(&node, id).await;
        node.kill().await;

        // The disk is lost, so opening needs the bucket, which does not answer.
        world.bucket.faults.lock().hangs = true;
        let node = Node::start(&world, &SimFs::new()).await;
        let replicas = Arc::clone(&node.replicas);
        let parts = vec![siltstone_replica::ProducePartition {
            id,
            records: batch(NOW_MS, &[b"late"]),
            origin: siltstone_log::AppendOrigin::Client,
        }];
        let producing = tokio::spawn(async move { replicas.append_pending(1, LONG, parts).await });
        node.env.clock.sleep(Duration::from_millis(500)).await;
        node.metadata.heartbeat(BROKER, node.epoch, true).await.unwrap();
        world.bucket.faults.lock().hangs = false;
        let pending = producing.await.unwrap();
        let result = node.replicas.acknowledged(pending).await.remove(0).result;
        assert!(matches!(result, Err(ReplicaError::NotLeader | ReplicaError::Storage(_))), "{result:?}");
        let end = node.replicas.opened(id).map(|partition| partition.offsets().log_end);
        assert!(end.is_none_or(|end| end <= 12), "nothing was appended: {end:?}");
    });
}

/// What ends the wait for an acknowledgement, and with which answer.
fn a_waiting_produce(
    ends_with: impl Fn(&Result<siltstone_log::AppendInfo, ReplicaError>) -> bool,
    event: impl AsyncFn(&Node, &SimFs, TopicIdPartition),
) {
    simulated(async {
        let world = World::new(1).await;
        let fs = SimFs::new();
        let node = Node::start(&world, &fs).await;
        let id = world.topic("t", 1, &[]).await[0];
        // No room for the write-ahead log: the append is taken, and waits.
        node.wait_for("the partition", LONG, |node| node.replicas.opened(id).is_some()).await;
        fs.set_capacity(Some(0));
        let replicas = Arc::clone(&node.replicas);
        let parts =
            vec![siltstone_replica::ProducePartition { id, records: batch(NOW_MS, &[b"x"]), origin: siltstone_log::AppendOrigin::Client }];
        let pending = node.replicas.append_pending(-1, LONG, parts).await;
        let waiting = tokio::spawn(async move { replicas.acknowledged(pending).await.remove(0).result });
        node.env.clock.sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished(), "nothing has happened yet");
        let before = node.env.clock.monotonic();
        event(&node, &fs, id).await;
        let result = waiting.await.unwrap();
        assert!(ends_with(&result), "{result:?}");
        let took = node.env.clock.monotonic() - before;
        assert!(took < Duration::from_secs(1), "noticed at once, not after {took:?}");
    });
}

#[test]
fn a_produce_that_waits_for_a_deleted_topic_is_told_at_once() {
    a_waiting_produce(
        |result| matches!(result, Err(ReplicaError::UnknownPartition)),
        async |node, _, id| node.metadata.delete_topic(id.topic_id).await.unwrap(),
    );
}

#[test]
fn a_produce_that_waits_while_leadership_goes_is_told_at_once() {
    a_waiting_produce(
        |result| matches!(result, Err(ReplicaError::NotLeader)),
        async |node, _, _| {
            node.metadata.heartbeat(BROKER, node.epoch, true).await.unwrap();
        },
    );
}

#[test]
fn a_produce_that_waits_while_the_disk_fails_is_told_at_once() {
    a_waiting_produce(
        |result| matches!(result, Err(ReplicaError::Storage(_))),
        async |_, fs, _| {
            fs.set_capacity(None);
            fs.inject(SimFault::Sync, "/wal/", 1);
        },
    );
}

/// A broker that can't know whether it still has its session: the service may give its place away at any moment (I9, F11).
#[test]
fn a_broker_without_an_answer_for_a_session_takes_and_acknowledges_nothing() {
    simulated(async {
        let session = Duration::from_secs(90);
        let world = World::with_sessions(1, session).await;
        let fs = SimFs::new();
        let node = Node::start(&world, &fs).await;
        let id = world.topic("t", 1, &[]).await[0];
        node.wait_for("the partition", LONG, |node| node.replicas.opened(id).is_some()).await;

        // A record is taken in time, and safe too late: there is no room for the write-ahead log.
        fs.set_capacity(Some(0));
        let (replicas, records) = (Arc::clone(&node.replicas), batch(NOW_MS, &[b"late"]));
        let parts = vec![siltstone_replica::ProducePartition { id, records, origin: siltstone_log::AppendOrigin::Client }];
        let pending = replicas.append_pending(1, LONG, parts).await;
        let waiting = tokio::spawn(async move { replicas.acknowledged(pending).await.remove(0).result });
        node.env.clock.sleep(session - Duration::from_secs(4)).await;
        fs.set_capacity(None);
        node.wait_for("the record to be safe", LONG, |_| waiting.is_finished()).await;
        let late = waiting.await.unwrap();
        assert!(matches!(late, Err(ReplicaError::NotLeader)), "{late:?}");
        let refused = node.produce(id, batch(NOW_MS, &[b"refused"]), LONG).await;
        assert!(matches!(refused, Err(ReplicaError::NotLeader)), "{refused:?}");
        assert_eq!(world.metadata.image().partition(id).unwrap().leader, BROKER, "its image can't tell");
        let read = node.fetch(fetch_params(1 << 20), &[(id, 0)]).await;
        assert!(read[0].error.is_none() && read[0].size_bytes > 0, "what is committed is read all the same");

        node.replicas.session().heartbeat().await.unwrap();
        node.produce(id, batch(NOW_MS, &[b"again"]), LONG).await.unwrap();
    });
}

/// A cold partition gets its share of a Fetch that hot ones behind it could fill, and its first batch whatever its size (KIP-74).
#[test]
fn hot_partitions_leave_a_cold_one_its_share() {
    simulated(async {
        let world = World::new(1).await;
        let node = Node::start(&world, &SimFs::new()).await;
        let cold = world.topic("cold", 1, &TIERED).await[0];
        let hot = world.topic("hot", 2, &[]).await;
        tier(&node, cold).await;
        for id in &hot {
            for value in 0..20u8 {
                node.produce(*id, batch(NOW_MS, &[&[value; 700]]), LONG).await.unwrap();
            }
        }
        let parts = [(cold, 0), (hot[0], 0), (hot[1], 0)];
        let params = FetchParams { max_wait: LONG, ..fetch_params(6_000) };
        let sizes: Vec<_> = node.fetch(params, &parts).await.iter().map(|answer| answer.size_bytes).collect();
        assert!(sizes[0] >= 1_400, "two batches of the cold one at least: {sizes:?}");
        assert!(sizes.iter().sum::<usize>() <= 6_000 && sizes[1] > 1_400, "{sizes:?}");
        // As the first in order it gets a batch that is larger than the whole answer may be.
        let params = FetchParams { max_wait: LONG, ..fetch_params(300) };
        let sizes: Vec<_> = node.fetch(params, &parts).await.iter().map(|answer| answer.size_bytes).collect();
        assert!(sizes[0] > 700, "{sizes:?}");
    });
}

/// I35: while uploads fail or hang, retention goes on over what is committed, and other partitions upload.
#[test]
fn retention_goes_on_while_uploads_fail_or_hang() {
    for hangs in [false, true] {
        simulated(async {
            let world = World::new(1).await;
            let node = Node::start(&world, &SimFs::new()).await;
            let configs = [("segment.bytes", "2000"), ("retention.ms", "600000")];
            let id = world.topic("t", 1, &configs).await[0];
            for value in 0..12u8 {
                node.produce(id, batch(node.env.clock.now_ms(), &[&[value; 700]]), LONG).await.unwrap();
            }
            let partition = node.replicas.opened(id).unwrap();
            node.wait_for("uploads", LONG, |_| partition.remote().segments >= 4).await;
            {
                let mut faults = world.bucket.faults.lock();
                (faults.hangs, faults.denied) = (hangs, !hangs);
            }
            let remote_end = partition.remote().remote_end;
            for value in 0..6u8 {
                node.produce(id, batch(node.env.clock.now_ms(), &[&[value; 700]]), LONG).await.unwrap();
            }
            node.env.clock.sleep(Duration::from_secs(610)).await;
            // Later records keep the newest segments alive.
            node.wait_for("retention", Duration::from_secs(20), |_| partition.offsets().log_start >= remote_end).await;
        });
    }
}

/// Records whose timestamps are older than `retention.ms` are there until retention is due, as in Kafka: not gone within seconds.
#[test]
fn old_records_stay_until_retention_is_due() {
    simulated(async {
        let world = World::new(1).await;
        let config = siltstone_replica::ReplicaConfig { retention_check_interval: Duration::from_secs(300), ..replica_config() };
        let node = Node::try_start(&world, &SimFs::new(), 1, config).await.unwrap();
        // Past the first look after the start.
        node.env.clock.sleep(Duration::from_secs(60)).await;
        let configs = [("segment.bytes", "2000"), ("retention.ms", "600000"), ("local.retention.ms", "1")];
        let id = world.topic("t", 1, &configs).await[0];
        for value in 0..12u8 {
            node.produce(id, batch(1_111, &[&[value; 700]]), LONG).await.unwrap();
        }
        let partition = node.replicas.opened(id).unwrap();
        node.wait_for("local retention", Duration::from_secs(30), |_| partition.offsets().local_start >= 4).await;
        node.env.clock.sleep(Duration::from_secs(200)).await;
        assert_eq!(partition.offsets().log_start, 0);
        node.wait_for("retention", Duration::from_secs(120), |_| partition.offsets().log_start >= 8).await;
    });
}

/// One partition whose upload hangs keeps no other from being rolled by time, and the disk budget from its work.
#[test]
fn a_hanging_upload_does_not_hold_up_the_disk_budget() {
    simulated(async {
        let world = World::new(1).await;
        let config = siltstone_replica::ReplicaConfig { disk_budget_bytes: 1, concurrent_uploads: 1, ..replica_config() };
        world.bucket.speed.lock().latency = Duration::from_millis(50);
        let node = Node::try_start(&world, &SimFs::new(), 1, config).await.unwrap();
        let ids = world.topic("t", 2, &[("segment.bytes", "2000")]).await;
        for value in 0..12u8 {
            node.produce(ids[0], batch(NOW_MS, &[&[value; 700]]), LONG).await.unwrap();
        }
        let first = node.replicas.opened(ids[0]).unwrap();
        node.wait_for("uploads", LONG, |_| first.remote().segments >= 4).await;
        world.bucket.faults.lock().hangs = true;
        for value in 0..12u8 {
            node.produce(ids[1], batch(NOW_MS, &[&[value; 700]]), LONG).await.unwrap();
        }
        let uploaded = first.remote().remote_end;
        node.wait_for("the budget", Duration::from_secs(10), |_| first.offsets().local_start >= uploaded).await;
    });
}

/// With the disk lost and the bucket out, a Fetch answers for the partitions that it can, and the image is followed.
#[test]
fn a_partition_that_can_not_be_opened_holds_up_nobody() {
    simulated(async {
        let world = World::new(1).await;
        let node = Node::start(&world, &SimFs::new()).await;
        let cold = world.topic("cold", 3, &TIERED).await;
        for id in &cold {
            tier(&node, *id).await;
        }
        node.kill().await;

        world.bucket.faults.lock().hangs = true;
        let node = Node::start(&world, &SimFs::new()).await;
        let fine = world.topic("fine", 1, &[]).await[0];
        node.wait_for("the image to be followed", Duration::from_secs(3), |node| node.replicas.opened(fine).is_some()).await;
        node.produce(fine, batch(NOW_MS, &[b"here"]), LONG).await.unwrap();
        let before = node.env.clock.monotonic();
        let answers = node.fetch(fetch_params(1 << 20), &[(cold[0], 0), (cold[1], 0), (cold[2], 0), (fine, 0)]).await;
        let took = node.env.clock.monotonic() - before;
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(answers[..3].iter().all(|answer| matches!(answer.error, Some(ReplicaError::Storage(_)))), "{answers:?}");
        assert_eq!(answer_records(&answers[3]).len(), 1);
        // That it takes long is known now: nobody waits for it again.
        let before = node.env.clock.monotonic();
        assert!(node.fetch(fetch_params(1 << 20), &[(cold[0], 0)]).await[0].error.is_some());
        assert!(node.produce(cold[1], batch(NOW_MS, &[b"late"]), LONG).await.is_err());
        assert!(node.env.clock.monotonic() - before < Duration::from_millis(100));
        // A topic's settings change meanwhile, another topic goes: both are seen.
        node.metadata.delete_topic(fine.topic_id).await.unwrap();
        node.wait_for("the deletion", Duration::from_secs(3), |node| node.replicas.opened(fine).is_none()).await;

        world.bucket.faults.lock().hangs = false;
        node.wait_for("the cold ones", LONG, |node| cold.iter().all(|id| node.replicas.opened(*id).is_some())).await;
        let answers = node.fetch(FetchParams { max_wait: LONG, ..fetch_params(1 << 20) }, &[(cold[1], 0)]).await;
        assert_eq!(answer_records(&answers[0])[0].0, 0);
    });
}

/// I9: two processes with one broker id, of which the first does not know that its session was over.
#[test]
fn a_process_that_was_replaced_leads_nothing_any_more() {
    simulated(async {
        let world = World::new(1).await;
        let first = Node::start(&world, &SimFs::new()).await;
        let id = world.topic("t", 1, &[("segment.bytes", "2000")]).await[0];
        first.produce(id, batch(NOW_MS, &[b"first"]), LONG).await.unwrap();
        let second = Node::start(&world, &SimFs::new()).await;
        second.wait_for("the partition", LONG, |node| node.replicas.opened(id).is_some()).await;
        let objects = world.bucket.objects.lock().len();
        let late = first.produce(id, batch(NOW_MS, &[&[1; 1_500]]), LONG).await;
        assert!(matches!(late, Err(ReplicaError::NotLeader)), "{late:?}");
        let answer = first.fetch(fetch_params(1 << 20), &[(id, 0)]).await.remove(0);
        assert!(matches!(answer.error, Some(ReplicaError::NotLeader)), "{answer:?}");
        first.env.clock.sleep(Duration::from_secs(60)).await;
        assert_eq!(world.bucket.objects.lock().len(), objects, "and uploads nothing");
        second.produce(id, batch(NOW_MS, &[b"second"]), LONG).await.unwrap();
    });
}

/// F27: what of a log is only in the bucket stays part of it.
#[test]
fn without_the_manifest_the_log_still_begins_in_the_bucket() {
    simulated(async {
        let world = World::new(1).await;
        let fs = SimFs::new();
        let node = Node::start(&world, &fs).await;
        let id = world.topic("t", 1, &TIERED).await[0];
        tier(&node, id).await;
        let end = node.produce(id, batch(NOW_MS, &[b"tail"]), LONG).await.unwrap().last_offset + 1;
        node.stop().await.unwrap();
        let fs = fs.kill();
        fs.remove_file("/data/manifest".as_ref()).unwrap();

        let node = Node::start(&world, &fs).await;
        node.wait_for("the partition", LONG, |node| node.replicas.opened(id).is_some()).await;
        let offsets = node.replicas.opened(id).unwrap().offsets();
        assert!((offsets.log_start, offsets.log_end) == (0, end) && offsets.local_start > 0, "{offsets:?}");
        for offset in [0, end - 1] {
            let answer = node.fetch(FetchParams { max_wait: LONG, ..fetch_params(900) }, &[(id, offset)]).await.remove(0);
            assert_eq!(answer_records(&answer)[0].0, offset);
        }
    });
}

/// I6, I30: a data directory that comes back after another one has taken its place yields to what that one has uploaded, also if metadata forgot
/// the broker meanwhile.
#[test]
fn a_disk_that_returns_yields_to_what_the_bucket_has() {
    for unregistered in [false, true] {
        simulated(a_disk_returns(unregistered));
    }
}

async fn a_disk_returns(unregistered: bool) {
    let world = World::new(1).await;
    let old = SimFs::new();
    let node = Node::start(&world, &old).await;
    let id = world.topic("t", 1, &TIERED).await[0];
    let untouched = world.topic("u", 1, &TIERED).await[0];
    tier(&node, id).await;
    tier(&node, untouched).await;
    node.wait_for("uploads", LONG, |node| node.replicas.upload_lag_bytes() == 0).await;
    let uploaded = node.replicas.opened(id).unwrap().remote().remote_end;
    world.bucket.faults.lock().denied = true;
    for value in 0..40u8 {
        node.produce(id, batch(NOW_MS, &[&[value; 400]]), LONG).await.unwrap();
    }
    node.produce(untouched, batch(NOW_MS, &[b"mine"]), LONG).await.unwrap();
    let untouched_end = node.replicas.opened(untouched).unwrap().offsets().log_end;
    node.kill().await;
    *world.bucket.faults.lock() = bucket::Faults::default();

    let node = Node::start(&world, &SimFs::new()).await;
    node.wait_for("the partition", LONG, |node| node.replicas.opened(id).is_some()).await;
    for value in 0..9u8 {
        let at = node.produce(id, batch(NOW_MS, &[&[100 + value; 900]]), LONG).await.unwrap();
        assert!(at.last_offset >= uploaded);
    }
    node.wait_for("uploads", LONG, |node| node.replicas.upload_lag_bytes() == 0).await;
    let remote_end = node.replicas.opened(id).unwrap().remote().remote_end;
    assert!(remote_end > uploaded + 3);
    node.kill().await;
    if unregistered {
        world.metadata.administer(AdminChange::UnregisterBroker(BROKER), false).await.unwrap();
    }

    let old = old.kill();
    for life in 0..2 {
        let node = Node::start(&world, &old).await;
        node.wait_for("the partitions", LONG, |node| [id, untouched].iter().all(|id| node.replicas.opened(*id).is_some())).await;
        assert!(!node.logs.has_returned(), "compared once, in life {life}");
        let partition = node.replicas.opened(id).unwrap();
        let params = FetchParams { max_wait: LONG, ..fetch_params(900) };
        let answer = node.fetch(params, &[(id, uploaded)]).await.remove(0);
        assert!(answer_records(&answer)[0].2 == [100; 900], "what the bucket has is the log");
        let at = node.produce(id, batch(NOW_MS, &[&[7; 900]]), LONG).await.unwrap();
        assert!(at.last_offset == remote_end + life, "{at:?}");
        node.wait_for("uploads", LONG, |node| node.replicas.upload_lag_bytes() == 0).await;
        assert!(partition.remote().remote_end >= remote_end);
        let kept = node.replicas.opened(untouched).unwrap().offsets().log_end;
        assert_eq!(kept, untouched_end, "what nobody else wrote to stays, with the tail that only this disk has");
        node.stop().await.unwrap();
    }
}

/// KIP-950: what is in the bucket stays and is served, nothing more goes there, and what did not go is deleted by age all the same.
#[test]
fn a_topic_whose_copying_is_switched_off_uploads_nothing() {
    for of_the_broker in [false, true] {
        simulated(async {
            let world = World::new(1).await;
            let fs = SimFs::new();
            let node = Node::start(&world, &fs).await;
            let id = world.topic("t", 1, &[("segment.bytes", "2000"), ("retention.ms", "600000")]).await[0];
            for value in 0..6u8 {
                node.produce(id, batch(node.env.clock.now_ms(), &[&[value; 700]]), LONG).await.unwrap();
            }
            node.wait_for("uploads", LONG, |node| node.replicas.opened(id).is_some_and(|partition| partition.remote().remote_end >= 4))
                .await;
            let node = if of_the_broker {
                node.kill().await;
                let fs = fs.kill();
                let off = [("remote.log.storage.system.enable".to_owned(), "false".to_owned())].into();
                Node::try_start(&world, &fs, 2, siltstone_replica::ReplicaConfig { broker_configs: off, ..replica_config() }).await.unwrap()
            } else {
                let off = ConfigOp::Set("remote.log.copy.disable".to_owned(), "true".to_owned());
                world.metadata.alter_configs(ConfigResource::Topic("t".to_owned()), vec![off], false).await.unwrap();
                node
            };
            node.wait_for("the partition", LONG, |node| node.replicas.opened(id).is_some()).await;
            let partition = node.replicas.opened(id).unwrap();
            let before = partition.remote().remote_end;
            for value in 0..6u8 {
                node.produce(id, batch(node.env.clock.now_ms(), &[&[value; 700]]), LONG).await.unwrap();
            }
            node.env.clock.sleep(Duration::from_secs(60)).await;
            assert!(partition.remote().remote_end == before && before > 3 && node.replicas.upload_lag_bytes() == 0);
            let read = node.fetch(fetch_params(1 << 20), &[(id, 0)]).await.remove(0);
            assert!(read.error.is_none() && answer_records(&read)[0].0 == 0, "{read:?}");
            node.wait_for("retention", Duration::from_secs(1_500), |_| partition.offsets().log_start >= 10).await;
        });
    }
}

#[test]
fn how_long_an_idle_producer_is_remembered_may_be_set_while_running() {
    simulated(async {
        let world = World::new(1).await;
        let node = Node::start(&world, &SimFs::new()).await;
        let id = world.topic("t", 1, &[]).await[0];
        let mut records = BatchBuilder::new(Compression::None).producer(7, 0, 0, false);
        records.record(node.env.clock.now_ms(), None, Some(b"value"), &[]);
        node.wait_for("the partition", LONG, |node| node.replicas.opened(id).is_some()).await;
        node.produce(id, records.build(), LONG).await.unwrap();
        node.env.clock.sleep(Duration::from_secs(600)).await;
        assert_eq!(node.replicas.active_producers(id).await.unwrap().len(), 1, "a day by default");
        let shorter = ConfigOp::Set("producer.id.expiration.ms".to_owned(), "60000".to_owned());
        world.metadata.alter_configs(ConfigResource::Broker(String::new()), vec![shorter], false).await.unwrap();
        node.env.clock.sleep(Duration::from_secs(180)).await;
        assert_eq!(node.replicas.active_producers(id).await.unwrap().len(), 0, "forgotten");
    });
}

/// As Kafka: with `remote.log.delete.on.disable` the log begins where its local part does.
#[test]
fn tiering_switched_off_deletes_what_only_the_bucket_has() {
    simulated(async {
        let world = World::new(1).await;
        let node = Node::start(&world, &SimFs::new()).await;
        let id = world.topic("t", 1, &TIERED).await[0];
        tier(&node, id).await;
        let set = |name: &str, value: &str| ConfigOp::Set(name.to_owned(), value.to_owned());
        let topic = || ConfigResource::Topic("t".to_owned());
        let off = set("remote.storage.enable", "false");
        assert!(
            world.metadata.alter_configs(topic(), vec![off.clone()], false).await.is_err(),
            "without saying what becomes of the bucket"
        );
        world.metadata.alter_configs(topic(), vec![off, set("remote.log.delete.on.disable", "true")], false).await.unwrap();
        let partition = node.replicas.opened(id).unwrap();
        node.wait_for("the log start", LONG, |_| partition.offsets().log_start == partition.offsets().local_start).await;
        assert!(partition.offsets().log_start > 3);
        node.wait_for("the objects", LONG, |_| world.bucket.objects.lock().len() <= partition.remote().segments as usize + 1).await;
    });
}

/// What local retention takes while a look-up by time is under way is found in the bucket.
#[test]
fn a_search_by_time_skips_nothing_that_moves_to_the_bucket_meanwhile() {
    simulated(async {
        let world = World::new(1).await;
        let node = Node::start(&world, &SimFs::new()).await;
        let id = world.topic("t", 1, &[("segment.bytes", "2000"), ("local.retention.bytes", "9000")]).await[0];
        for value in 0..30 {
            node.produce(id, batch(NOW_MS + value, &[&[7; 700]]), LONG).await.unwrap();
        }
        let partition = node.replicas.opened(id).unwrap();
        node.wait_for("retention", LONG, |_| partition.offsets().local_start > 4 && partition.remote().remote_end >= 28).await;
        let wanted = partition.offsets().local_start;
        world.bucket.speed.lock().latency = Duration::from_secs(1);
        let replicas = Arc::clone(&node.replicas);
        let spec = siltstone_replica::OffsetSpec::Timestamp(NOW_MS + wanted);
        let isolation = siltstone_replica::FetchIsolation::ReadUncommitted;
        let search = tokio::spawn(async move { replicas.list_offset(id, -1, spec, isolation).await });
        node.env.clock.sleep(Duration::from_millis(100)).await;
        partition.log().delete_local_below(wanted + 4).unwrap();
        assert!(partition.offsets().local_start > wanted);
        assert_eq!(search.await.unwrap().unwrap().offset, wanted);
    });
}

/// I28: metadata has raised the log start, the local log has not: what is below is out of range, no damage.
#[test]
fn a_read_below_a_log_start_that_only_metadata_knows_is_out_of_range() {
    simulated(async {
        let world = World::new(1).await;
        let node = Node::start(&world, &SimFs::new()).await;
        let id = world.topic("t", 1, &TIERED).await[0];
        tier(&node, id).await;
        let epoch = world.metadata.image().partition(id).unwrap().leader_epoch;
        world.metadata.raise_log_start(id, epoch, 4).await.unwrap();
        assert_eq!(node.replicas.opened(id).unwrap().offsets().log_start, 0);
        let answer = node.fetch(FetchParams { max_wait: LONG, ..fetch_params(1 << 20) }, &[(id, 1)]).await.remove(0);
        assert!(matches!(answer.error, Some(ReplicaError::OffsetOutOfRange { offset: 1, start: 4, .. })), "{answer:?}");
    });
}

/// I35: rows that lie in index objects can't be read while the bucket is out; what it has goes from the local disk all the same.
#[test]
fn local_retention_goes_on_while_the_bucket_with_the_old_rows_is_out() {
    simulated(async {
        let world = World::new(1).await;
        let fs = SimFs::new();
        let node = Node::start(&world, &fs).await;
        let id = world.topic("t", 1, &[("segment.bytes", "2000")]).await[0];
        for value in 0..60u8 {
            node.produce(id, batch(NOW_MS, &[&[value; 700]]), LONG).await.unwrap();
        }
        node.wait_for("uploads", LONG, |node| node.replicas.upload_lag_bytes() == 0).await;
        node.env.clock.sleep(Duration::from_secs(60)).await;
        world.bucket.faults.lock().denied = true;
        let small = ConfigOp::Set("local.retention.bytes".to_owned(), "1".to_owned());
        world.metadata.alter_configs(ConfigResource::Topic("t".to_owned()), vec![small], false).await.unwrap();
        node.kill().await;
        // Nothing of the bucket is cached any more.
        let node = Node::start(&world, &fs.kill()).await;
        let opened = |node: &Node| node.replicas.opened(id).is_some_and(|partition| partition.offsets().local_start > 40);
        node.wait_for("local retention", Duration::from_secs(60), opened).await;
    });
}

/// Time-based rolling waits for no upload.
#[test]
fn a_segment_is_rolled_in_time_while_uploads_hang() {
    simulated(async {
        let world = World::new(1).await;
        let config = siltstone_replica::ReplicaConfig { concurrent_uploads: 1, ..replica_config() };
        let node = Node::try_start(&world, &SimFs::new(), 1, config).await.unwrap();
        let ids = world.topic("t", 3, &[("segment.bytes", "2000"), ("segment.ms", "60000")]).await;
        world.bucket.faults.lock().hangs = true;
        for id in &ids {
            for value in 0..5u8 {
                node.produce(*id, batch(NOW_MS, &[&[value; 700]]), LONG).await.unwrap();
            }
        }
        let all_sealed = |node: &Node| {
            let segments = |id| node.replicas.opened(id).map(|partition| partition.log().segments()).unwrap_or_default();
            ids.iter().all(|id| segments(*id).iter().filter(|segment| segment.sealed).count() >= 3)
        };
        node.wait_for("the rolls", Duration::from_secs(75), all_sealed).await;
    });
}
