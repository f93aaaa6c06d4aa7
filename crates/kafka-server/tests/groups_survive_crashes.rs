//! Groups and offsets over the real log on a simulated disk that loses power, or a process that is killed, at any moment: what was
//! acknowledged is there afterwards, and no offset goes back (I21).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use siltstone_common::Env;
use siltstone_common::entropy::{Entropy, SmallEntropy};
use siltstone_common::fs::{FileSystem, SimFs};
use siltstone_coordinator::{
    CommitOffset, CommitRequest, FetchOffsetsRequest, GroupCoordinator, HeartbeatRequest, JoinRequest, JoinResponse, Leadership,
    ListGroupsRequest, Protocol, SyncRequest, TopicPartition,
};
use siltstone_kafka_server::state_topics::GROUP_METADATA_TOPIC;
use siltstone_kafka_server::{ServerConfig, Services};
use siltstone_log::{LogManager, LogManagerConfig};
use siltstone_metadata::api::{CreateTopic, RegisterBroker};
use siltstone_metadata::{MemoryStore, MetadataApi, MetadataService, MetadataServiceConfig};
use siltstone_replica::{ReplicaConfig, ReplicaManager};

const BROKER: i32 = 1;
const PARTITIONS: i32 = 3;
const GROUPS: u64 = 5;
const SEEDS: u64 = 12;
const LIVES: u64 = 5;

/// What was asked for and what was acknowledged, over all lives.
#[derive(Default)]
struct Promises {
    /// By group: the last acknowledged offset, and the last that was asked for.
    offsets: BTreeMap<String, (i64, i64)>,
    /// The member of the group with members, as it was acknowledged.
    member: Option<JoinResponse>,
}

struct Broker {
    env: Env,
    groups: GroupCoordinator,
}

fn broker_configs() -> BTreeMap<String, String> {
    [("group.initial.rebalance.delay.ms", "0"), ("group.max.session.timeout.ms", "2000000000")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
}

/// Starts a broker on `fs`; `None` if the power failed meanwhile.
async fn start(seed: u64, fs: &SimFs, metadata: &Arc<dyn MetadataApi>) -> Option<Broker> {
    let files: Arc<dyn FileSystem> = Arc::new(fs.clone());
    let env = Env::simulated(seed, files);
    let config = LogManagerConfig {
        dir: "/data".into(),
        cluster_id: metadata.image().cluster_id.clone(),
        wal_file_bytes: 256 << 10,
        wal_bytes_max: 1 << 20,
        tail_cache_bytes: 64 << 10,
        disk_reserve_bytes: 0,
        producer_expiration_ms: 86_400_000,
    };
    let (logs, _) = match LogManager::open(config, env.clone()) {
        Ok(opened) => opened,
        Err(_) if fs.is_dead() => return None,
        Err(error) => panic!("open: {error}"),
    };
    let broker = RegisterBroker { id: BROKER, host: "localhost".to_owned(), port: 9092, ..RegisterBroker::default() };
    let epoch = siltstone_replica::register(&env, &**metadata, &logs, broker, Duration::from_secs(60)).await.expect("registers");
    let replica_config = ReplicaConfig {
        broker_id: BROKER,
        broker_epoch: epoch,
        broker_configs: broker_configs(),
        log_dir: "/data".into(),
        ..ReplicaConfig::default()
    };
    let replicas = ReplicaManager::new(replica_config, env.clone(), Arc::clone(metadata), logs, None);
    replicas.start();
    replicas.session().heartbeat().await.expect("a first heartbeat");
    let server_config = ServerConfig {
        broker_id: BROKER,
        advertised_host: "localhost".to_owned(),
        advertised_port: 9092,
        broker_configs: broker_configs(),
        log_dir: "/data".to_owned(),
    };
    let (session, beats) = (Arc::clone(replicas.session()), env.clone());
    let services = Services::new(server_config, Arc::clone(metadata), replicas, env.clone());
    env.tasks.spawn("heartbeats", async move {
        while !beats.tasks.is_stopped() && session.heartbeat().await.is_ok() {
            beats.clock.sleep(Duration::from_secs(2)).await;
        }
    });
    Some(Broker { env, groups: services.groups.clone() })
}

/// Waits until every partition is loaded; false if the power failed meanwhile.
async fn loaded(broker: &Broker, fs: &SimFs) -> bool {
    for _ in 0..2_000 {
        let leads_all = broker.groups.led_partitions().len() == PARTITIONS as usize;
        if leads_all && broker.groups.list_groups(&ListGroupsRequest::default()).is_ok() {
            return true;
        }
        if fs.is_dead() {
            return false;
        }
        broker.env.clock.sleep(Duration::from_millis(10)).await;
    }
    panic!("the groups were not loaded in time");
}

fn topic_partition() -> TopicPartition {
    TopicPartition { topic: "t".into(), partition: 0 }
}

async fn committed(groups: &GroupCoordinator, group: &str) -> Option<i64> {
    let request = FetchOffsetsRequest {
        group_id: group.to_owned(),
        partitions: Some(vec![topic_partition()]),
        member_id: None,
        member_epoch: -1,
        require_stable: true,
    };
    groups.fetch_offsets(request).await.ok().map(|found| found[0].1.offset)
}

async fn commit(groups: &GroupCoordinator, group: &str, offset: i64) -> bool {
    let request = CommitRequest {
        group_id: group.to_owned(),
        generation_id: -1,
        member_id: String::new(),
        group_instance_id: None,
        retention_time_ms: -1,
        reports_unknown_group: true,
        offsets: vec![CommitOffset { id: topic_partition(), offset, leader_epoch: 0, metadata: Some("m".repeat(offset as usize % 300)) }],
    };
    groups.commit_offsets(request).await.is_ok_and(|outcomes| outcomes.iter().all(|(_, result)| result.is_ok()))
}

/// Joins, and syncs as its own leader: what it was told, once its assignment is acknowledged.
async fn join(groups: &GroupCoordinator, member_id: &str) -> Option<JoinResponse> {
    let request = JoinRequest {
        group_id: "members".to_owned(),
        member_id: member_id.to_owned(),
        group_instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        rebalance_timeout_ms: 1_000,
        session_timeout_ms: 2_000_000_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![Protocol { name: "range".to_owned(), metadata: Bytes::from_static(b"\0\0\0\0\0\0\xff\xff\xff\xff") }],
        require_known_member_id: false,
        supports_skipping_assignment: true,
        reason: None,
    };
    let joined = groups.join_group(request).await;
    if joined.error.is_some() {
        return None;
    }
    let request = SyncRequest {
        group_id: "members".to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: None,
        protocol_type: None,
        protocol_name: None,
        assignments: vec![(joined.member_id.clone(), Bytes::from_static(b"everything"))],
    };
    groups.sync_group(request).await.error.is_none().then_some(joined)
}

impl Promises {
    async fn check(&self, groups: &GroupCoordinator) {
        for (group, (acked, asked)) in &self.offsets {
            let found = committed(groups, group).await.expect("a loaded group answers");
            assert!((*acked..=*asked).contains(&found), "{group}: {found} is not in {acked}..={asked} (I21)");
        }
        if let Some(member) = &self.member {
            let request = HeartbeatRequest {
                group_id: "members".to_owned(),
                generation_id: member.generation_id,
                member_id: member.member_id.clone(),
                group_instance_id: None,
            };
            assert_eq!(groups.heartbeat(&request), Ok(()), "the member and its generation are there");
        }
    }

    async fn commit(&mut self, groups: &GroupCoordinator, group: String) {
        let promised = self.offsets.entry(group.clone()).or_insert((-1, -1));
        promised.1 += 1;
        if commit(groups, &group, promised.1).await {
            promised.0 = promised.1;
        }
    }

    async fn rejoin(&mut self, groups: &GroupCoordinator) {
        // From here on the old generation may be gone.
        let member_id = self.member.take().map(|member| member.member_id).unwrap_or_default();
        self.member = match join(groups, &member_id).await {
            Some(joined) => Some(joined),
            None => join(groups, "").await,
        };
    }
}

/// One life of the broker, from start to its end.
async fn live(rng: &SmallEntropy, fs: &SimFs, metadata: &Arc<dyn MetadataApi>, promises: &mut Promises) {
    if rng.below(4) > 0 {
        fs.crash_at(fs.operations() + 1 + rng.below(150));
    }
    let Some(broker) = start(rng.next_u64(), fs, metadata).await else { return };
    if loaded(&broker, fs).await {
        if !fs.is_dead() {
            promises.check(&broker.groups).await;
        }
        for _ in 0..10 + rng.below(40) {
            match rng.below(12) {
                0 => promises.rejoin(&broker.groups).await,
                1 => broker.env.clock.sleep(Duration::from_millis(rng.below(3_000))).await,
                _ => promises.commit(&broker.groups, format!("g{}", rng.below(GROUPS))).await,
            }
            if fs.is_dead() {
                break;
            }
        }
    }
    broker.groups.on_leadership(&Leadership::default());
    broker.env.tasks.shutdown(Duration::from_secs(60)).await;
}

fn run(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let rng = SmallEntropy::seeded(seed);
        let mut fs = SimFs::new();
        let env = Env::simulated(seed, Arc::new(SimFs::new()));
        let store = Arc::new(MemoryStore::new(env.clone()));
        let service = MetadataService::open(store, MetadataServiceConfig::default(), env.clone()).await.expect("opens");
        let metadata: Arc<dyn MetadataApi> = service;
        let broker =
            RegisterBroker { id: BROKER, host: "localhost".to_owned(), port: 9092, clean_shutdown: true, ..RegisterBroker::default() };
        let epoch = metadata.register_broker(broker).await.expect("registers");
        metadata.heartbeat(BROKER, epoch, false).await.expect("a heartbeat");
        for (name, partitions) in [(GROUP_METADATA_TOPIC, PARTITIONS), ("t", 1)] {
            let topic = CreateTopic { name: name.to_owned(), partitions, replication_factor: 1, ..CreateTopic::default() };
            metadata.create_topic(topic).await.expect("creates");
        }
        metadata.heartbeat(BROKER, epoch, true).await.expect("it makes room for the broker");
        let mut promises = Promises::default();
        for _ in 0..LIVES {
            live(&rng, &fs, &metadata, &mut promises).await;
            fs = if rng.below(2) == 0 { fs.kill() } else { fs.crash(&rng) };
        }
        // A last, undisturbed life.
        let broker = start(seed, &fs, &metadata).await.expect("starts");
        assert!(loaded(&broker, &fs).await);
        promises.check(&broker.groups).await;
        assert!(promises.offsets.values().any(|(acked, _)| *acked >= 0), "something was acknowledged");
        broker.env.tasks.shutdown(Duration::from_secs(60)).await;
        env.tasks.shutdown(Duration::from_secs(60)).await;
    });
}

#[test]
fn what_was_acknowledged_is_there_after_any_end() {
    let only: Option<u64> = std::env::var("SILTSTONE_GROUPS_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..SEEDS, |seed| seed..seed + 1) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("failed with SILTSTONE_GROUPS_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
