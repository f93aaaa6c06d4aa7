//! The broker settings of what Kafka has and this broker has not, or does otherwise: the Raft quorum, share groups, plug-ins. Shown with Kafka's
//! defaults, without effect.

use super::Check::{Any, AtLeast, Between, ListOf};
use super::ConfigType::{Boolean, Class, Int, List, Long, Short, String};
use super::{ConfigDef, def};

/// Sorted by name.
pub(super) static ALL: &[ConfigDef] = &[
    def(
        "add.partitions.to.txn.retry.backoff.max.ms",
        Int,
        "100",
        AtLeast(0),
        "Longest time that the server tries anew to add partitions to a transaction, in ms.",
    )
    .read_only(),
    def(
        "add.partitions.to.txn.retry.backoff.ms",
        Int,
        "20",
        AtLeast(1),
        "Pause before the server tries anew to add partitions to a transaction, in ms.",
    )
    .read_only(),
    def("alter.config.policy.class.name", Class, "", Any, "Class that checks changes of settings.").without_default().read_only(),
    def("alter.log.dirs.replication.quota.window.num", Int, "11", AtLeast(1), "Samples kept for the quota of moves between directories.")
        .read_only(),
    def(
        "alter.log.dirs.replication.quota.window.size.seconds",
        Int,
        "1",
        AtLeast(1),
        "Length of a sample for the quota of moves between directories, in s.",
    )
    .read_only(),
    def("client.quota.callback.class", Class, "", Any, "Class that decides clients' quotas.").without_default().read_only(),
    def("config.providers", List, "", Any, "Names of the classes that fetch settings from elsewhere.").read_only(),
    def("controller.listener.names", List, "", Any, "Names of the listeners of the Raft quorum.").without_default().read_only(),
    def("controller.quorum.append.linger.ms", Int, "25", AtLeast(0), "How long the quorum's leader gathers writes, in ms.").read_only(),
    def("controller.quorum.auto.join.enable", Boolean, "false", Any, "Whether a controller joins the quorum by itself.").read_only(),
    def("controller.quorum.bootstrap.servers", List, "", Any, "Addresses at which the quorum is found: host:port, separated by commas.")
        .read_only(),
    def("controller.quorum.election.backoff.max.ms", Int, "1000", AtLeast(0), "Longest pause before a new election in the quorum, in ms.")
        .read_only(),
    def(
        "controller.quorum.election.timeout.ms",
        Int,
        "1000",
        AtLeast(0),
        "Time without the quorum's leader after which there is an election, in ms.",
    )
    .read_only(),
    def("controller.quorum.fetch.max.bytes", Int, "1048576", AtLeast(1), "Most bytes of one Fetch within the quorum.").read_only(),
    def("controller.quorum.fetch.snapshot.max.bytes", Int, "1048576", AtLeast(1), "Most bytes of one FetchSnapshot within the quorum.")
        .read_only(),
    def(
        "controller.quorum.fetch.timeout.ms",
        Int,
        "2000",
        AtLeast(0),
        "Time without a Fetch that succeeds after which a voter becomes a candidate, in ms.",
    )
    .read_only(),
    def("controller.quorum.request.timeout.ms", Int, "2000", AtLeast(0), "Time-out of requests within the quorum, in ms.").read_only(),
    def("controller.quorum.retry.backoff.ms", Int, "20", AtLeast(0), "Pause before a request within the quorum is sent anew, in ms.")
        .read_only(),
    def("controller.quorum.voters", List, "", Any, "Voters of the quorum: id@host:port, separated by commas.").read_only(),
    def("controller.socket.timeout.ms", Int, "30000", Any, "Time-out of connections from controller to broker, in ms.").read_only(),
    def("cordoned.log.dirs", List, "", Any, "Directories that get no new replicas, or * for all.").read_only(),
    def("create.topic.policy.class.name", Class, "", Any, "Class that checks new topics.").without_default().read_only(),
    def("early.start.listeners", List, "", Any, "Listeners that may start before the authorizer is ready.").without_default().read_only(),
    def("follower.fetch.last.tiered.offset.enable", Boolean, "false", Any, "Whether an empty follower begins after what is in the bucket."),
    def("group.coordinator.background.threads", Int, "2", AtLeast(1), "Threads of the group coordinator for work in the background.")
        .read_only(),
    def(
        "group.coordinator.cached.buffer.max.bytes",
        Int,
        "1048588",
        AtLeast(524_288),
        "Largest buffer that the group coordinator keeps for its next write, bytes.",
    ),
    def("group.share.assignors", List, "simple", Any, "Assignors of share groups.").read_only(),
    def("group.share.max.assignment.interval.ms", Int, "15000", AtLeast(0), "Upper bound of share.assignment.interval.ms.").read_only(),
    def("group.share.max.delivery.count.limit", Int, "10", Between(5, 25), "Upper bound of share.delivery.count.limit.").read_only(),
    def("group.share.max.heartbeat.interval.ms", Int, "15000", AtLeast(1), "Upper bound of share.heartbeat.interval.ms.").read_only(),
    def(
        "group.share.max.partition.max.record.locks",
        Int,
        "4000",
        Between(2_000, 10_000),
        "Upper bound of share.partition.max.record.locks.",
    )
    .read_only(),
    def(
        "group.share.max.record.lock.duration.ms",
        Int,
        "60000",
        Between(30_000, 3_600_000),
        "Upper bound of share.record.lock.duration.ms.",
    )
    .read_only(),
    def("group.share.max.session.timeout.ms", Int, "60000", AtLeast(1), "Upper bound of share.session.timeout.ms.").read_only(),
    def("group.share.min.assignment.interval.ms", Int, "0", AtLeast(0), "Lower bound of share.assignment.interval.ms.").read_only(),
    def("group.share.min.delivery.count.limit", Int, "2", Between(2, 5), "Lower bound of share.delivery.count.limit.").read_only(),
    def("group.share.min.heartbeat.interval.ms", Int, "5000", AtLeast(1), "Lower bound of share.heartbeat.interval.ms.").read_only(),
    def("group.share.min.partition.max.record.locks", Int, "100", Between(100, 2_000), "Lower bound of share.partition.max.record.locks.")
        .read_only(),
    def("group.share.min.record.lock.duration.ms", Int, "15000", Between(1_000, 30_000), "Lower bound of share.record.lock.duration.ms.")
        .read_only(),
    def("group.share.min.session.timeout.ms", Int, "45000", AtLeast(1), "Lower bound of share.session.timeout.ms.").read_only(),
    def("group.streams.max.assignment.interval.ms", Int, "15000", AtLeast(0), "Upper bound of streams.assignment.interval.ms.").read_only(),
    def("group.streams.max.heartbeat.interval.ms", Int, "15000", AtLeast(1), "Upper bound of streams.heartbeat.interval.ms.").read_only(),
    def("group.streams.max.session.timeout.ms", Int, "60000", AtLeast(1), "Upper bound of streams.session.timeout.ms.").read_only(),
    def("group.streams.max.standby.replicas", Int, "2", AtLeast(0), "Upper bound of streams.num.standby.replicas.").read_only(),
    def("group.streams.min.assignment.interval.ms", Int, "0", AtLeast(0), "Lower bound of streams.assignment.interval.ms.").read_only(),
    def("group.streams.min.heartbeat.interval.ms", Int, "5000", AtLeast(1), "Lower bound of streams.heartbeat.interval.ms.").read_only(),
    def("group.streams.min.session.timeout.ms", Int, "45000", AtLeast(1), "Lower bound of streams.session.timeout.ms.").read_only(),
    def("initial.broker.registration.timeout.ms", Int, "60000", Any, "How long a broker that starts tries to register, in ms.").read_only(),
    def("kafka.metrics.polling.interval.secs", Int, "10", AtLeast(1), "How often reporters of Yammer metrics are given them, in s.")
        .read_only(),
    def("kafka.metrics.reporters", List, "", Any, "Reporters of Yammer metrics.").read_only(),
    def("log.dir.failure.timeout.ms", Long, "30000", AtLeast(1), "How long a broker that can't report a failed directory goes on, in ms.")
        .read_only(),
    def("metadata.log.dir", String, "", Any, "Directory of the quorum's log.").without_default().read_only(),
    def(
        "metadata.log.max.record.bytes.between.snapshots",
        Long,
        "20971520",
        AtLeast(1),
        "Bytes of the quorum's log after which there is a snapshot.",
    )
    .read_only(),
    def(
        "metadata.log.max.snapshot.interval.ms",
        Long,
        "3600000",
        AtLeast(0),
        "Time after which there is a snapshot of the quorum's log, in ms.",
    )
    .read_only(),
    def("metadata.log.segment.bytes", Int, "1073741824", AtLeast(8_388_608), "Segment size of the quorum's log, bytes.").read_only(),
    def("metadata.log.segment.ms", Long, "604800000", Any, "Time after which the quorum's log begins a new segment, in ms.").read_only(),
    def(
        "metadata.max.idle.interval.ms",
        Int,
        "500",
        AtLeast(0),
        "How often an idle controller writes a record without effect, in ms; 0 for never.",
    )
    .read_only(),
    def("metadata.max.retention.bytes", Long, "104857600", Any, "Most bytes of the quorum's log and snapshots that are kept.").read_only(),
    def("metadata.max.retention.ms", Long, "604800000", Any, "How long the quorum's log and snapshots are kept, in ms.").read_only(),
    def("process.roles", List, "", ListOf(&["broker", "controller"]), "What the process is: broker, controller, or both.")
        .without_default()
        .read_only(),
    def("remote.log.manager.copy.quota.window.num", Int, "11", AtLeast(1), "Samples kept for the quota of uploads.").read_only(),
    def("remote.log.manager.copy.quota.window.size.seconds", Int, "1", AtLeast(1), "Length of a sample for the quota of uploads, in s.")
        .read_only(),
    def("remote.log.manager.fetch.quota.window.num", Int, "11", AtLeast(1), "Samples kept for the quota of reads from the bucket.")
        .read_only(),
    def(
        "remote.log.manager.fetch.quota.window.size.seconds",
        Int,
        "1",
        AtLeast(1),
        "Length of a sample for the quota of reads from the bucket, in s.",
    )
    .read_only(),
    def("remote.log.manager.follower.thread.pool.size", Int, "2", AtLeast(1), "Threads with which followers look for what was uploaded."),
    def("remote.log.manager.thread.pool.size", Int, "2", AtLeast(1), "Threads with which segments are copied and removed.").read_only(),
    def(
        "remote.log.metadata.custom.metadata.max.bytes",
        Int,
        "128",
        AtLeast(0),
        "Most bytes that a plug-in may add to the metadata of an uploaded segment.",
    )
    .read_only(),
    def(
        "remote.log.metadata.manager.class.name",
        String,
        "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager",
        Any,
        "Class that keeps the metadata of uploaded segments.",
    )
    .read_only(),
    def("remote.log.metadata.manager.class.path", String, "", Any, "Where that class is loaded from.").without_default().read_only(),
    def("remote.log.metadata.manager.impl.prefix", String, "rlmm.config.", Any, "Beginning of the names of that class's own settings.")
        .read_only(),
    def("remote.log.metadata.manager.listener.name", String, "", Any, "Listener that it uses to reach the brokers.")
        .without_default()
        .read_only(),
    def("remote.log.storage.manager.class.name", String, "", Any, "Class that writes to and reads from the remote storage.")
        .without_default()
        .read_only(),
    def("remote.log.storage.manager.class.path", String, "", Any, "Where that class is loaded from.").without_default().read_only(),
    def("remote.log.storage.manager.impl.prefix", String, "rsm.config.", Any, "Beginning of the names of that class's own settings.")
        .read_only(),
    def("replication.quota.window.num", Int, "11", AtLeast(1), "Samples kept for the quota of replication.").read_only(),
    def("replication.quota.window.size.seconds", Int, "1", AtLeast(1), "Length of a sample for the quota of replication, in s.")
        .read_only(),
    def(
        "share.coordinator.append.linger.ms",
        Int,
        "-1",
        AtLeast(-1),
        "How long the share coordinator gathers changes before it writes them, in ms; -1 adapts to the load.",
    )
    .read_only(),
    def(
        "share.coordinator.cached.buffer.max.bytes",
        Int,
        "1048588",
        AtLeast(524_288),
        "Largest buffer that the share coordinator keeps for its next write, bytes.",
    ),
    def("share.coordinator.load.buffer.size", Int, "5242880", AtLeast(1), "Bytes read at once when the state of share groups is loaded.")
        .read_only(),
    def(
        "share.coordinator.snapshot.update.records.per.snapshot",
        Int,
        "500",
        Between(0, 500),
        "Changes between two snapshots of a share group's state.",
    )
    .read_only(),
    def(
        "share.coordinator.state.topic.compression.codec",
        Int,
        "0",
        Any,
        "Codec of the topic of share groups: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.",
    )
    .read_only(),
    def("share.coordinator.state.topic.min.isr", Short, "2", AtLeast(1), "min.insync.replicas of the topic of share groups.").read_only(),
    def(
        "share.coordinator.state.topic.num.partitions",
        Int,
        "50",
        AtLeast(1),
        "Partitions of the topic of share groups; fixed once it exists.",
    )
    .read_only(),
    def("share.coordinator.state.topic.replication.factor", Short, "3", AtLeast(1), "Replicas of the topic of share groups.").read_only(),
    def("share.coordinator.state.topic.segment.bytes", Int, "104857600", AtLeast(1), "Segment size of the topic of share groups, bytes.")
        .read_only(),
    def("share.coordinator.threads", Int, "1", AtLeast(1), "Threads of the share coordinator.").read_only(),
    def(
        "share.coordinator.write.timeout.ms",
        Int,
        "5000",
        AtLeast(1),
        "How long a write of the share coordinator waits for the replicas, in ms.",
    )
    .read_only(),
    def(
        "share.fetch.purgatory.purge.interval.requests",
        Int,
        "1000",
        Any,
        "Finished ShareFetch requests after which waiting ones are tidied up.",
    )
    .read_only(),
];
