//! The topic settings.

use super::Check::{Any, AtLeast, Between, BetweenF, ListOf, MinusOneOrBetween, OneOf, ThrottledReplicas};
use super::ConfigType::{Boolean, Double, Int, List, Long, String};
use super::{ConfigDef, def, hours, minutes, same};

/// What `compression.type` may be.
pub(super) const COMPRESSIONS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
/// What `cleanup.policy` may be.
pub(super) const POLICIES: &[&str] = &["compact", "delete"];
/// What `message.timestamp.type` may be.
pub(super) const TIMESTAMP_TYPES: &[&str] = &["CreateTime", "LogAppendTime"];

/// Sorted by name.
pub(super) static ALL: &[ConfigDef] = &[
    def(
        "cleanup.policy",
        List,
        "delete",
        ListOf(POLICIES),
        "What happens to old segments: delete removes them by time and size, compact keeps the newest record of each key, both does both; \
         an empty list keeps everything.",
    )
    .or_broker(&[same("log.cleanup.policy")]),
    def("compression.gzip.level", Int, "-1", MinusOneOrBetween(1, 9), "Level of gzip where the broker compresses; -1 for gzip's own default.")
        .or_broker(&[same("compression.gzip.level")]),
    def("compression.lz4.level", Int, "9", Between(1, 17), "Level of lz4 where the broker compresses.")
        .or_broker(&[same("compression.lz4.level")]),
    def(
        "compression.type",
        String,
        "producer",
        OneOf(COMPRESSIONS),
        "How records are kept: producer leaves each batch as its producer compressed it, uncompressed keeps them plain, a codec's name compresses with it.",
    )
    .or_broker(&[same("compression.type")]),
    def("compression.zstd.level", Int, "3", Between(-131_072, 22), "Level of zstd where the broker compresses.")
        .or_broker(&[same("compression.zstd.level")]),
    def(
        "delete.retention.ms",
        Long,
        "86400000",
        AtLeast(0),
        "How long a compacted topic keeps the markers of deleted keys, so that slow readers still learn of the deletion. In ms.",
    )
    .or_broker(&[same("log.cleaner.delete.retention.ms")]),
    def("file.delete.delay.ms", Long, "60000", AtLeast(0), "How long files stay on disk after they were taken out of the log, in ms.")
        .or_broker(&[same("log.segment.delete.delay.ms")]),
    def(
        "flush.messages",
        Long,
        "1",
        AtLeast(1),
        "Records that may be accepted before they are flushed to the disk. With 1 every produce is on disk before it is acknowledged. Kafka's own default never flushes \
         and relies on replicas: a crash of the machine then loses what only its memory held.",
    )
    .or_broker(&[same("log.flush.interval.messages")]),
    def("flush.ms", Long, "9223372036854775807", AtLeast(0), "The longest time, in ms, that accepted records wait for their flush to the disk.")
        .or_broker(&[same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")]),
    def(
        "follower.replication.throttled.replicas",
        List,
        "",
        ThrottledReplicas,
        "Replicas whose fetching of this topic counts against the follower's replication quota: partition:broker pairs, or * for all.",
    ),
    def("index.interval.bytes", Int, "4096", AtLeast(0), "Bytes of log between two entries of its offset index: fewer find offsets faster, in a larger index.")
        .or_broker(&[same("log.index.interval.bytes")]),
    def("internal.segment.bytes", Int, "", Any, "As segment.bytes without its lower bound, for tests.").without_default().hidden(),
    def(
        "leader.replication.throttled.replicas",
        List,
        "",
        ThrottledReplicas,
        "Replicas whose fetching of this topic counts against the leader's replication quota: partition:broker pairs, or * for all.",
    ),
    def(
        "local.retention.bytes",
        Long,
        "-2",
        AtLeast(-2),
        "Bytes of a partition to keep on local disk once they are in the bucket; -2 for as many as retention.bytes, -1 for no limit.",
    )
    .or_broker(&[same("log.local.retention.bytes")]),
    def(
        "local.retention.ms",
        Long,
        "-2",
        AtLeast(-2),
        "How long, in ms, segments stay on local disk once they are in the bucket; -2 for as long as retention.ms, -1 for no limit.",
    )
    .or_broker(&[same("log.local.retention.ms")]),
    def("max.compaction.lag.ms", Long, "9223372036854775807", AtLeast(1), "The longest time, in ms, that a record waits for compaction.")
        .or_broker(&[same("log.cleaner.max.compaction.lag.ms")]),
    def("max.message.bytes", Int, "1048588", AtLeast(0), "The largest batch of records, as compressed by its producer, that is accepted. In bytes.")
        .or_broker(&[same("message.max.bytes")]),
    def(
        "message.timestamp.after.max.ms",
        Long,
        "3600000",
        AtLeast(0),
        "How far, in ms, a record's own timestamp may lie in the future; records beyond are refused. Without meaning for LogAppendTime.",
    )
    .or_broker(&[same("log.message.timestamp.after.max.ms")]),
    def(
        "message.timestamp.before.max.ms",
        Long,
        "9223372036854775807",
        AtLeast(0),
        "How far, in ms, a record's own timestamp may lie in the past; records beyond are refused. Without meaning for LogAppendTime.",
    )
    .or_broker(&[same("log.message.timestamp.before.max.ms")]),
    def(
        "message.timestamp.type",
        String,
        "CreateTime",
        OneOf(TIMESTAMP_TYPES),
        "Whose clock gives a record's timestamp: the producer's (CreateTime) or the broker's (LogAppendTime).",
    )
    .or_broker(&[same("log.message.timestamp.type")]),
    def(
        "min.cleanable.dirty.ratio",
        Double,
        "0.5",
        BetweenF(0.0, 1.0),
        "The share of a log that must be uncompacted before it is compacted: lower wastes less room, and works more.",
    )
    .or_broker(&[same("log.cleaner.min.cleanable.ratio")]),
    def("min.compaction.lag.ms", Long, "0", AtLeast(0), "The shortest time, in ms, that a record stays as it is before it may be compacted away.")
        .or_broker(&[same("log.cleaner.min.compaction.lag.ms")]),
    def(
        "min.insync.replicas",
        Int,
        "1",
        AtLeast(1),
        "How many replicas must be in sync for a produce with acks=all to succeed; with fewer it is refused and nothing is lost.",
    )
    .or_broker(&[same("min.insync.replicas")]),
    def("preallocate", Boolean, "false", Any, "Whether to reserve the disk space of a segment when it is made.").or_broker(&[same("log.preallocate")]),
    def(
        "remote.log.copy.disable",
        Boolean,
        "false",
        Any,
        "Stops uploads of this topic; what is in the bucket stays readable until retention takes it.",
    ),
    def(
        "remote.log.delete.on.disable",
        Boolean,
        "false",
        Any,
        "Must be true to switch remote.storage.enable off: what only the bucket has is deleted then, the copies of what is on the local disk when retention passes them.",
    ),
    def(
        "remote.storage.enable",
        Boolean,
        "true",
        Any,
        "Whether sealed segments go to the bucket, so that only the hot tail needs local disk. On by default here, off in Kafka. Of a compacted topic the bucket has a copy.",
    ),
    def(
        "retention.bytes",
        Long,
        "-1",
        Any,
        "How many bytes a partition may have, local and remote counted once, before its oldest segments are deleted; -1 for no limit.",
    )
    .or_broker(&[same("log.retention.bytes")]),
    def("retention.ms", Long, "604800000", AtLeast(-1), "How long records are kept before their segment is deleted, in ms; -1 for ever.")
        .or_broker(&[same("log.retention.ms"), minutes("log.retention.minutes"), hours("log.retention.hours")]),
    def(
        "segment.bytes",
        Int,
        "1073741824",
        // Kafka 4 asks for 1 MiB at least (KIP-1030), for the sake of its index files; here small segments cost little and let one see tiering at work.
        AtLeast(14),
        "Size at which a segment is sealed and a new one begins, in bytes. Sealed segments are what is uploaded, deleted and compacted.",
    )
    .or_broker(&[same("log.segment.bytes")]),
    def("segment.index.bytes", Int, "10485760", AtLeast(4), "Largest size of a segment's offset index; a full one seals the segment. In bytes.")
        .or_broker(&[same("log.index.size.max.bytes")]),
    def("segment.jitter.ms", Long, "0", AtLeast(0), "Largest random time, in ms, by which a segment is sealed earlier, so that not all are sealed at once.")
        .or_broker(&[same("log.roll.jitter.ms"), hours("log.roll.jitter.hours")]),
    def("segment.ms", Long, "604800000", AtLeast(1), "Age, in ms, at which a segment is sealed even if it is not full, so that it can be uploaded and deleted.")
        .or_broker(&[same("log.roll.ms"), hours("log.roll.hours")]),
    def(
        "unclean.leader.election.enable",
        Boolean,
        "false",
        Any,
        "Whether a replica that may lack acknowledged records may lead when no other is left: the partition comes back sooner and those records are lost.",
    )
    .or_broker(&[same("unclean.leader.election.enable")]),
];
