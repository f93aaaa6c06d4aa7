//! Broker settings that Kafka does not list unless they are set: quotas of replication, which its tools set and take back, and settings for its own
//! tests. Taken without effect.

use super::Check::{Any, AtLeast};
use super::ConfigType::{Boolean, Double, Int, Long, String};
use super::{ConfigDef, def};

/// Sorted by name.
pub(super) static ALL: &[ConfigDef] = &[
    def("controller.performance.always.log.threshold.ms", Long, "2000", AtLeast(0), "A setting for Kafka's own tests.")
        .read_only()
        .hidden(),
    def("controller.performance.sample.period.ms", Long, "60000", AtLeast(100), "A setting for Kafka's own tests.").read_only().hidden(),
    def(
        "follower.replication.throttled.rate",
        Long,
        "",
        AtLeast(0),
        "Most bytes in a second that the broker fetches for throttled replicas.",
    )
    .without_default(),
    def("group.consumer.regex.refresh.interval.ms", Int, "600000", AtLeast(10_000), "A setting for Kafka's own tests.")
        .read_only()
        .hidden(),
    def("group.share.initialize.retry.interval.ms", Int, "30000", AtLeast(1), "A setting for Kafka's own tests.").read_only().hidden(),
    def(
        "group.share.persister.class.name",
        String,
        "org.apache.kafka.server.share.persister.DefaultStatePersister",
        Any,
        "A setting for Kafka's own tests.",
    )
    .read_only()
    .hidden(),
    def("internal.metadata.delete.delay.millis", Long, "60000", Any, "A setting for Kafka's own tests.").read_only().hidden(),
    def("internal.metadata.log.segment.bytes", Int, "", Any, "A setting for Kafka's own tests.").without_default().read_only().hidden(),
    def("internal.metadata.max.batch.size.in.bytes", Int, "8388608", Any, "A setting for Kafka's own tests.").read_only().hidden(),
    def("leader.replication.throttled.rate", Long, "", AtLeast(0), "Most bytes in a second that the broker sends to throttled replicas.")
        .without_default(),
    def("log.initial.task.delay.ms", Long, "30000", AtLeast(0), "A setting for Kafka's own tests.").read_only().hidden(),
    def("producer.id.expiration.check.interval.ms", Int, "600000", AtLeast(1), "A setting for Kafka's own tests.").read_only().hidden(),
    def("remote.log.index.file.cache.ttl.ms", Long, "900000", AtLeast(-1), "A setting for Kafka's own tests.").read_only().hidden(),
    def("remote.log.manager.task.retry.backoff.max.ms", Long, "30000", AtLeast(1), "A setting for Kafka's own tests.").read_only().hidden(),
    def("remote.log.manager.task.retry.backoff.ms", Long, "500", AtLeast(1), "A setting for Kafka's own tests.").read_only().hidden(),
    def("remote.log.manager.task.retry.jitter", Double, "0.2", Any, "A setting for Kafka's own tests.").read_only().hidden(),
    def(
        "replica.alter.log.dirs.io.max.bytes.per.second",
        Long,
        "",
        AtLeast(0),
        "Most bytes in a second that are moved between directories.",
    )
    .without_default(),
    def("server.max.startup.time.ms", Long, "9223372036854775807", AtLeast(0), "A setting for Kafka's own tests.").read_only().hidden(),
    def("share.coordinator.cold.partition.snapshot.interval.ms", Int, "300000", AtLeast(1), "A setting for Kafka's own tests.")
        .read_only()
        .hidden(),
    def("share.coordinator.state.topic.prune.interval.ms", Int, "300000", AtLeast(1), "A setting for Kafka's own tests.")
        .read_only()
        .hidden(),
    def("unclean.leader.election.interval.ms", Long, "300000", AtLeast(1), "A setting for Kafka's own tests.").read_only().hidden(),
    def("unstable.api.versions.enable", Boolean, "false", Any, "A setting for Kafka's own tests.").read_only().hidden(),
    def("unstable.feature.versions.enable", Boolean, "false", Any, "A setting for Kafka's own tests.").read_only().hidden(),
];
