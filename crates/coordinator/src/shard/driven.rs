//! What the driver asks of the shard of a `__consumer_offsets` partition.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::RwLock;

use super::{GroupShard, Reply};
use crate::cluster::{ChangedTopics, ClusterView};
use crate::config::GroupCoordinatorConfig;
use crate::driver::{Now, Shard, Sweep, WaiterId};
use crate::error::GroupError;
use crate::records;
use crate::state_log::{Replayed, StateLogError, StateWrite};

/// What all partitions of the group coordinator share.
pub(crate) struct GroupSetup {
    pub(crate) config: Arc<GroupCoordinatorConfig>,
    /// The newest view.
    pub(crate) cluster: RwLock<Arc<dyn ClusterView>>,
}

impl Shard for GroupShard {
    const COORDINATOR: &'static str = "group-coordinator";
    type Setup = GroupSetup;
    type Reply = Reply;
    type Error = GroupError;
    type Done = Infallible;

    fn open(setup: &GroupSetup, _: i32) -> Self {
        Self::new(setup.config.clone())
    }

    fn on_replayed(&mut self, item: &Replayed, now: Now) -> Result<Option<i16>, records::WireError> {
        match item {
            Replayed::Record(record) => self.replay(record, now.wall_ms),
            Replayed::Transactional(producer_id, record) => self.replay_transactional(*producer_id, record),
            Replayed::Marker(producer_id, commit) => {
                self.transaction_ended(*producer_id, *commit, now.wall_ms);
                Ok(None)
            }
        }
    }

    fn begin(&mut self, setup: &GroupSetup, now: Now) {
        self.on_cluster_changed(setup.cluster.read().clone(), &ChangedTopics::default());
        self.on_loaded(now);
    }

    fn len(&self) -> usize {
        self.groups.len()
    }

    fn sweeps(setup: &GroupSetup) -> Vec<Sweep<Self>> {
        vec![Sweep { interval_ms: setup.config.offsets_retention_check_interval_ms, run: |shard, _| shard.expire() }]
    }

    fn on_tick(&mut self, now: Now) {
        while let Some((group_id, timer)) = self.timers.pop_due(now.monotonic) {
            if !self.on_consumer_timer(&group_id, &timer, now) {
                self.with_classic(&group_id, now, |group, turn| group.on_timer(timer, turn));
            }
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.timers.next_deadline()
    }

    fn has_work(&self) -> bool {
        self.in_flight.is_none() && !self.queue.is_empty()
    }

    fn next_batch(&mut self, now: Now) -> Option<StateWrite> {
        while self.has_work() {
            let (write, ops) = self.take_batch(now);
            if write != StateWrite::Records(Vec::new()) {
                self.in_flight = Some(ops);
                return Some(write);
            }
            // Nothing to wait for.
            ops.into_iter().for_each(|op| self.finish(op, Ok(()), now));
        }
        None
    }

    fn on_appended(&mut self, result: &Result<(), StateLogError>, now: Now) {
        let result = result.as_ref().copied().map_err(GroupError::from);
        for op in self.in_flight.take().unwrap_or_default() {
            self.finish(op, result, now);
        }
    }

    fn must_reload(&self) -> bool {
        self.must_reload
    }

    fn take_jobs(&mut self, _: &Arc<GroupSetup>) -> Vec<BoxFuture<'static, Infallible>> {
        Vec::new()
    }

    fn on_job_done(&mut self, done: Infallible, _: Now) {
        match done {}
    }

    fn take_replies(&mut self) -> Vec<(WaiterId, Reply)> {
        std::mem::take(&mut self.replies)
    }
}
