//! Settings, by Kafka's names.

/// Kafka's broker settings of the transaction coordinator, with Kafka's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionCoordinatorConfig {
    /// `transaction.state.log.num.partitions`: partitions of `__transaction_state` until the topic exists.
    pub state_log_num_partitions: i32,
    /// `transaction.max.timeout.ms`: longest time a transaction may ask to stay open.
    pub transaction_max_timeout_ms: i32,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`
    pub abort_timed_out_interval_ms: u64,
    /// `transactional.id.expiration.ms`: how long an idle transactional id is remembered.
    pub transactional_id_expiration_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`
    pub remove_expired_interval_ms: u64,
}

impl Default for TransactionCoordinatorConfig {
    fn default() -> Self {
        Self {
            state_log_num_partitions: 50,
            transaction_max_timeout_ms: 900_000,
            abort_timed_out_interval_ms: 10_000,
            transactional_id_expiration_ms: 604_800_000,
            remove_expired_interval_ms: 3_600_000,
        }
    }
}
