//! Settings, by Kafka's names.

use std::ops::RangeInclusive;

use crate::assignor::Assignor;

/// `group.consumer.migration.policy`: whether groups change between the classic and the consumer protocol while they run.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// Never.
    Disabled,
    /// From classic to consumer.
    Upgrade,
    /// From consumer to classic.
    Downgrade,
    /// Both ways.
    Bidirectional,
}

impl MigrationPolicy {
    /// The policy of that name, whatever its case.
    pub fn by_name(name: &str) -> Option<Self> {
        let all = [Self::Disabled, Self::Upgrade, Self::Downgrade, Self::Bidirectional];
        all.into_iter().find(|policy| format!("{policy:?}").eq_ignore_ascii_case(name))
    }

    pub(crate) fn allows_upgrade(self) -> bool {
        matches!(self, Self::Upgrade | Self::Bidirectional)
    }

    pub(crate) fn allows_downgrade(self) -> bool {
        matches!(self, Self::Downgrade | Self::Bidirectional)
    }
}

/// Kafka's broker settings of the group coordinator, with Kafka's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCoordinatorConfig {
    /// `offsets.topic.num.partitions`: partitions of `__consumer_offsets` until the topic exists and
    /// [`set_partition_count`](crate::GroupCoordinator::set_partition_count) tells how many it has.
    pub offsets_topic_num_partitions: i32,
    /// `group.initial.rebalance.delay.ms`: how long the first rebalance of an empty group waits for more members.
    pub group_initial_rebalance_delay_ms: i32,
    /// `group.min.session.timeout.ms`
    pub group_min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub group_max_session_timeout_ms: i32,
    /// `group.max.size`: members of one group.
    pub group_max_size: usize,
    /// `offset.metadata.max.bytes`: UTF-16 units, as Kafka counts.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`: how long offsets outlive their group's last member.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: u64,
    /// `group.consumer.session.timeout.ms`: how long a member of a consumer group may be silent.
    pub consumer_session_timeout_ms: i32,
    /// `group.consumer.min.session.timeout.ms` and its max: bounds of a group's own `consumer.session.timeout.ms`.
    pub consumer_session_timeout_limits_ms: RangeInclusive<i32>,
    /// `group.consumer.heartbeat.interval.ms`: how often members are asked to send heartbeats.
    pub consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.min.heartbeat.interval.ms` and its max.
    pub consumer_heartbeat_interval_limits_ms: RangeInclusive<i32>,
    /// `group.consumer.assignment.interval.ms`: least time between two targets of a group.
    pub consumer_assignment_interval_ms: i32,
    /// `group.consumer.min.assignment.interval.ms` and its max.
    pub consumer_assignment_interval_limits_ms: RangeInclusive<i32>,
    /// `group.consumer.max.size`: members of one consumer group.
    pub consumer_group_max_size: usize,
    /// `group.consumer.assignors`: what members may ask for; the first is the default. Never empty.
    pub consumer_assignors: Vec<Assignor>,
    /// `group.consumer.migration.policy`
    pub consumer_migration_policy: MigrationPolicy,
    /// How often regular expressions are matched again although no topic is new.
    pub consumer_regex_refresh_interval_ms: i32,
}

impl Default for GroupCoordinatorConfig {
    fn default() -> Self {
        Self {
            offsets_topic_num_partitions: 50,
            group_initial_rebalance_delay_ms: 3_000,
            group_min_session_timeout_ms: 6_000,
            group_max_session_timeout_ms: 1_800_000,
            group_max_size: i32::MAX as usize,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 10_080 * 60_000,
            offsets_retention_check_interval_ms: 600_000,
            consumer_session_timeout_ms: 45_000,
            consumer_session_timeout_limits_ms: 45_000..=60_000,
            consumer_heartbeat_interval_ms: 5_000,
            consumer_heartbeat_interval_limits_ms: 5_000..=15_000,
            consumer_assignment_interval_ms: 1_000,
            consumer_assignment_interval_limits_ms: 0..=15_000,
            consumer_group_max_size: i32::MAX as usize,
            consumer_assignors: Assignor::ALL.to_vec(),
            consumer_migration_policy: MigrationPolicy::Bidirectional,
            consumer_regex_refresh_interval_ms: 600_000,
        }
    }
}
