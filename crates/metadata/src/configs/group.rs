//! The group settings; their defaults come from the broker's `group.*` settings.

use super::Check::{Any, AtLeast, OneOf, ShareOffsetReset};
use super::ConfigType::{Boolean, Int, String};
use super::{ConfigDef, def, same};

/// Sorted by name.
pub(super) static ALL: &[ConfigDef] = &[
    def("consumer.assignment.interval.ms", Int, "1000", AtLeast(0), "Least time between two assignments of a consumer group, in ms.")
        .or_broker(&[same("group.consumer.assignment.interval.ms")]),
    def("consumer.heartbeat.interval.ms", Int, "5000", AtLeast(1), "How often members of a consumer group send a heartbeat, in ms.")
        .or_broker(&[same("group.consumer.heartbeat.interval.ms")]),
    def(
        "consumer.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        "A consumer group's member without heartbeat for so long is removed, in ms.",
    )
    .or_broker(&[same("group.consumer.session.timeout.ms")]),
    def("share.assignment.interval.ms", Int, "1000", AtLeast(0), "Least time between two assignments of a share group, in ms.")
        .or_broker(&[same("group.share.assignment.interval.ms")]),
    def(
        "share.auto.offset.reset",
        String,
        "latest",
        ShareOffsetReset,
        "Where a share group begins: earliest, latest, or by_duration: that long ago.",
    ),
    def(
        "share.delivery.count.limit",
        Int,
        "5",
        AtLeast(2),
        "How often a record is delivered to a share group before it counts as undeliverable.",
    )
    .or_broker(&[same("group.share.delivery.count.limit")]),
    def("share.heartbeat.interval.ms", Int, "5000", AtLeast(1), "How often members of a share group send a heartbeat, in ms.")
        .or_broker(&[same("group.share.heartbeat.interval.ms")]),
    def(
        "share.isolation.level",
        String,
        "read_uncommitted",
        OneOf(&["read_committed", "read_uncommitted"]),
        "Whether a share group sees records of transactions that are open or aborted.",
    ),
    def(
        "share.partition.max.record.locks",
        Int,
        "2000",
        AtLeast(100),
        "Records of a partition that a share group may have in delivery at once.",
    )
    .or_broker(&[same("group.share.partition.max.record.locks")]),
    def("share.record.lock.duration.ms", Int, "30000", AtLeast(1000), "How long a delivered record is kept for its member, in ms.")
        .or_broker(&[same("group.share.record.lock.duration.ms")]),
    def("share.renew.acknowledge.enable", Boolean, "true", Any, "Whether a member may prolong the time that a record is kept for it."),
    def("share.session.timeout.ms", Int, "45000", AtLeast(1), "A share group's member without heartbeat for so long is removed, in ms.")
        .or_broker(&[same("group.share.session.timeout.ms")]),
    def("streams.assignment.interval.ms", Int, "1000", AtLeast(0), "Least time between two assignments of a streams group, in ms.")
        .or_broker(&[same("group.streams.assignment.interval.ms")]),
    def("streams.heartbeat.interval.ms", Int, "5000", AtLeast(1), "How often members of a streams group send a heartbeat, in ms.")
        .or_broker(&[same("group.streams.heartbeat.interval.ms")]),
    def(
        "streams.initial.rebalance.delay.ms",
        Int,
        "3000",
        AtLeast(0),
        "How long a new streams group waits for more members before its first assignment, in ms.",
    )
    .or_broker(&[same("group.streams.initial.rebalance.delay.ms")]),
    def("streams.num.standby.replicas", Int, "0", AtLeast(0), "Standby copies of each task of a streams group.")
        .or_broker(&[same("group.streams.num.standby.replicas")]),
    def(
        "streams.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        "A streams group's member without heartbeat for so long is removed, in ms.",
    )
    .or_broker(&[same("group.streams.session.timeout.ms")]),
];
