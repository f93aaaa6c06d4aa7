//! The broker settings of the server itself.

use super::Check::{AddressLimits, Any, AtLeast, OneOf};
use super::ConfigType::{Boolean, Int, List, Long, String};
use super::{ConfigDef, def};

/// Sorted by name.
pub(super) static ALL: &[ConfigDef] = &[
    def(
        "advertised.listeners",
        List,
        "",
        Any,
        "What clients are told to connect to, where that differs from listeners: NAME://host:port, separated by commas.",
    )
    .without_default()
    .read_only(),
    def(
        "allow.everyone.if.no.acl.found",
        Boolean,
        "false",
        Any,
        "Whether everybody may do everything with a resource that no ACL names. Of the authorizer.",
    )
    .without_default()
    .read_only()
    .hidden(),
    def(
        "authorizer.class.name",
        String,
        "",
        OneOf(&["", super::STANDARD_AUTHORIZER]),
        "Who decides what clients may do: org.apache.kafka.metadata.authorizer.StandardAuthorizer after the ACLs, or empty: all may do all.",
    )
    .read_only(),
    def(
        "auto.create.topics.enable",
        Boolean,
        "true",
        Any,
        "Whether asking for a topic that does not exist makes it, with num.partitions and default.replication.factor.",
    )
    .read_only(),
    def("auto.leader.rebalance.enable", Boolean, "true", Any, "Whether leadership returns to the preferred replicas by itself.")
        .read_only(),
    def("background.threads", Int, "10", AtLeast(1), "Threads for background work."),
    def("broker.heartbeat.interval.ms", Int, "2000", Any, "How often a broker tells the metadata service that it lives, in ms.")
        .read_only(),
    def("broker.id", Int, "-1", Any, "Kafka's old name of node.id.").read_only(),
    def(
        "broker.rack",
        String,
        "",
        Any,
        "Where the broker stands; replicas are spread over racks, and readers may be sent to a replica in their own.",
    )
    .without_default()
    .read_only(),
    def(
        "broker.session.timeout.ms",
        Int,
        "9000",
        Any,
        "A broker without heartbeat for so long is fenced and its partitions get other leaders. In ms.",
    )
    .read_only(),
    def(
        "connection.failed.authentication.delay.ms",
        Int,
        "100",
        AtLeast(0),
        "How long the answer to a failed authentication is held back, in ms.",
    )
    .read_only(),
    def("connections.max.idle.ms", Long, "600000", Any, "A connection without traffic for so long is closed, in ms.").read_only(),
    def("connections.max.reauth.ms", Long, "0", Any, "Time after which a client must authenticate anew, in ms; 0 for never.").read_only(),
    def("controlled.shutdown.enable", Boolean, "true", Any, "Whether a broker that is stopped hands its leadership over first.")
        .read_only(),
    def("controller.quota.window.num", Int, "11", AtLeast(1), "Samples kept for the quota of cluster changes.").read_only(),
    def("controller.quota.window.size.seconds", Int, "1", AtLeast(1), "Length of a sample for the quota of cluster changes, in s.")
        .read_only(),
    def("default.replication.factor", Int, "1", Any, "Replicas of topics that are made without saying how many.").read_only(),
    def(
        "delete.records.purgatory.purge.interval.requests",
        Int,
        "1",
        Any,
        "Finished DeleteRecords requests after which waiting ones are tidied up.",
    )
    .read_only(),
    def("delete.topic.enable", Boolean, "true", Any, "Whether topics can be deleted.").read_only(),
    def("fetch.max.bytes", Int, "57671680", AtLeast(1_024), "Most bytes of records in one Fetch response, whatever the client asks for.")
        .read_only(),
    def("fetch.purgatory.purge.interval.requests", Int, "1000", Any, "Finished Fetch requests after which waiting ones are tidied up.")
        .read_only(),
    def("inter.broker.listener.name", String, "", Any, "Name of the listener that brokers use among themselves.")
        .without_default()
        .read_only(),
    def(
        "leader.imbalance.check.interval.seconds",
        Long,
        "300",
        AtLeast(1),
        "How often is looked whether leadership should return to preferred replicas, in s.",
    )
    .read_only(),
    def(
        "listener.security.protocol.map",
        String,
        "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT",
        Any,
        "Which security protocol each listener speaks: NAME:PROTOCOL, separated by commas.",
    )
    .read_only(),
    def("listeners", List, "PLAINTEXT://:9092", Any, "Where connections are taken: NAME://host:port, separated by commas.").read_only(),
    def("max.connection.creation.rate", Int, "2147483647", AtLeast(0), "Most new connections in a second."),
    def("max.connections", Int, "16384", AtLeast(0), "Most connections."),
    def("max.connections.per.ip", Int, "8192", AtLeast(0), "Most connections from one address."),
    def("max.connections.per.ip.overrides", String, "", AddressLimits, "Other limits for single addresses: address:limit, separated by commas."),
    def("max.incremental.fetch.session.cache.slots", Int, "1000", AtLeast(0), "Most fetch sessions that are kept (KIP-227).").read_only(),
    def("max.request.partition.size.limit", Int, "2000", AtLeast(1), "Most partitions in one DescribeTopicPartitions response.")
        .read_only(),
    def(
        "metric.reporters",
        List,
        "org.apache.kafka.common.metrics.JmxReporter",
        Any,
        "Who receives metrics. The broker's own are always at /metrics; with siltstone.ClientTelemetry also those of the clients (KIP-714).",
    )
    .read_only(),
    def("metrics.num.samples", Int, "2", AtLeast(1), "Samples kept for a metric.").read_only(),
    def("metrics.recording.level", String, "INFO", Any, "Which metrics are recorded.").read_only(),
    def("metrics.sample.window.ms", Long, "30000", AtLeast(1), "Length of a metric's sample, in ms.").read_only(),
    def("node.id", Int, "", AtLeast(0), "This broker's number in the cluster.").without_default().read_only(),
    def("num.io.threads", Int, "8", AtLeast(1), "Threads that work on requests in Kafka."),
    def("num.network.threads", Int, "3", AtLeast(1), "Threads that serve connections."),
    def("num.partitions", Int, "1", AtLeast(1), "Partitions of topics that are made without saying how many.").read_only(),
    def("num.recovery.threads.per.data.dir", Int, "2", AtLeast(1), "Threads that load logs at the start."),
    def("num.replica.alter.log.dirs.threads", Int, "", Any, "Threads that move replicas between directories.")
        .without_default()
        .read_only(),
    def("num.replica.fetchers", Int, "1", AtLeast(1), "Fetchers per leader that a follower has."),
    def("queued.max.request.bytes", Long, "536870912", Any, "Most bytes of requests that are received and served at once; -1 for no limit.")
        .read_only(),
    def("queued.max.requests", Int, "500", AtLeast(1), "Most requests that wait for their turn.").read_only(),
    def("quota.window.num", Int, "11", AtLeast(1), "Samples kept for client quotas.").read_only(),
    def("quota.window.size.seconds", Int, "1", AtLeast(1), "Length of a sample for client quotas, in s.").read_only(),
    def("request.timeout.ms", Int, "30000", Any, "Time-out of requests between brokers, in ms.").read_only(),
    def(
        "security.inter.broker.protocol",
        String,
        "PLAINTEXT",
        OneOf(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]),
        "Security protocol that brokers use among themselves.",
    )
    .read_only(),
    def("socket.connection.setup.timeout.max.ms", Long, "30000", Any, "Longest time for setting up a connection between brokers, in ms.")
        .read_only(),
    def("socket.connection.setup.timeout.ms", Long, "10000", Any, "First time-out for setting up a connection between brokers, in ms.")
        .read_only(),
    def("socket.listen.backlog.size", Int, "50", AtLeast(1), "Connections that may wait to be taken.").read_only(),
    def("socket.receive.buffer.bytes", Int, "102400", Any, "Receive buffer of connections, bytes; -1 for the system's default.")
        .read_only(),
    def("socket.request.max.bytes", Int, "104857600", AtLeast(1), "Largest request, bytes.").read_only(),
    def("socket.send.buffer.bytes", Int, "102400", Any, "Send buffer of connections, bytes; -1 for the system's default.").read_only(),
    def(
        "super.users",
        String,
        "",
        Any,
        "Principals that may do everything, whatever the ACLs say: User:name, separated by semicolons. Of the authorizer.",
    )
    .without_default()
    .read_only()
    .hidden(),
    def("telemetry.max.bytes", Int, "1048576", AtLeast(1), "Most bytes of one push of a client's metrics (KIP-714).").read_only(),
];
